"""Fetch each input, check it against the manifest, open it where a key was released, and lay it out for the program.

Plaintext is written only below the attempt's folder, which the backend keeps in memory-backed storage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from strongroom.seal import Unsealer, aad_dataset
from workers.runner.client import Portal

SUFFIX = {"text/csv": ".csv", "application/vnd.apache.parquet": ".parquet"}


class InputRefused(Exception):
    """An input is not what the manifest says. `code` is a fine code of the portal."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def fetch_inputs(
    portal: Portal,
    manifest: dict[str, Any],
    keys: dict[str, bytes],
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> list[dict[str, Any]]:
    """Write every input to `folder` with an index.json; return [{dataset, version, stage, ciphertext, plaintext}].

    keys: data key by dataset id, for sealed inputs. progress(phase, done, total) counts bytes over all inputs.
    Raises InputRefused, strongroom.errors.SealError.
    """
    total = sum(entry["size"] for entry in manifest["inputs"])
    done, index, used = 0, {}, []
    for entry in manifest["inputs"]:
        path = folder / f"{entry['name']}{SUFFIX[entry['media_type']]}"
        stored = hashlib.sha256()

        def counted(source: Iterator[bytes], phase: str, stored: Any = stored) -> Iterator[bytes]:
            nonlocal done
            for chunk in source:
                stored.update(chunk)
                done += len(chunk)
                progress(phase, done, total)
                yield chunk

        source = portal.download(f"/inputs/{entry['dataset']}")
        if entry["sealed"]:
            reader = Unsealer(
                counted(source, "decrypting"),
                keys[entry["dataset"]],
                aad_dataset(entry["dataset"], entry["version"]),
            )
            with path.open("xb") as target:
                plaintext = reader.copy_to(target).plaintext_sha256
        else:
            plain = hashlib.sha256()
            with path.open("xb") as target:
                for chunk in counted(source, "fetching"):
                    plain.update(chunk)
                    target.write(chunk)
            plaintext = plain.hexdigest()
        if stored.hexdigest() != entry["sha256"]:
            raise InputRefused("input_changed")
        if plaintext != entry["plaintext"]:
            raise InputRefused("plaintext_differs")
        path.chmod(0o444)
        index[entry["name"]] = {
            "file": path.name,
            "media_type": entry["media_type"],
            "dictionary": entry["dictionary"],
        }
        used.append(
            {
                "dataset": entry["dataset"],
                "version": entry["version"],
                "stage": entry["stage"],
                "ciphertext": entry["sha256"] if entry["sealed"] else None,
                "plaintext": plaintext,
            }
        )
    (folder / "index.json").write_text(json.dumps(index))
    return used
