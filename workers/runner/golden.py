"""`python -m workers.runner.golden`: the PCR values of a runner's disk image, for the policies of custodians.

    record FILE                     on a machine made of the image, before it has had a run: its PCRs as JSON
    join --image DIGEST FILES...    at home: the policy's `code` entry, of the PCRs that are equal in every record
    join --build image.json FILES...
                                    the same for an image of infra/runner/disk: what its build computed is kept, PCR 12 and
                                    13 at zero among it, and must be what every record shows

A file for `join` is a record or an evidence envelope, of a machine each. Neither is verified here: a record is one machine's
word about itself, and worth something where the machines are your own and nobody else could change the image.
docs/how-to/golden-pcrs.md has what to pin and how to check values against evidence.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strongroom import shapes
from strongroom.errors import FormatError
from strongroom.evidence import envelope
from strongroom.evidence.tpm import parse_pcrs
from workers.runner.attester import NoEvidence
from workers.runner.attesters.azure_cvm import MANIFEST_PCR, PCRS
from workers.runner.attesters.tpm import DEVICE, DIGEST, Tpm

# What an image decides: boot loader or unified kernel, secure boot's keys, GRUB's commands and files, kernel and command line.
OF_THE_IMAGE = (4, 7, 8, 9, 11, 12, 13, 14)
ZERO = "00" * DIGEST


def record(tpm: Tpm) -> dict[str, Any]:
    """{"v": 1, "bank": "sha256", "pcrs": {"0": hex, ...}}. Raises NoEvidence, also for a machine that has had a run."""
    found = tpm.pcrs(PCRS)
    if any(found[MANIFEST_PCR]):
        raise NoEvidence(
            f"PCR {MANIFEST_PCR} is not empty: this machine has had a run, or its image uses that PCR."
        )
    return {
        "v": 1,
        "bank": "sha256",
        "pcrs": {str(n): v.hex() for n, v in found.items() if n != MANIFEST_PCR},
    }


def join(
    records: Sequence[dict[str, Any]], image: str, computed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The `code` entry of a release policy. A register that holds nothing is pinned only if it is in `computed`.

    computed: what the image's build says, hex by number. Raises FormatError: fewer than two records, nothing equal to pin, or
    a record that shows something else than was computed.
    """
    shapes.image_digest(image, "The image")
    if len(records) < 2:
        raise FormatError("Record at least two machines: what differs between them must not be pinned.")
    values = [_pcrs(document, f"record {number}") for number, document in enumerate(records, 1)]
    equal = {
        str(n): values[0].get(str(n), ZERO) for n in OF_THE_IMAGE if len({v.get(str(n)) for v in values}) == 1
    }
    computed = computed or {}
    _compare(values, computed)
    pinned = {n: value for n, value in equal.items() if value != ZERO} | dict(computed)
    if "4" not in pinned or "7" not in pinned or len(pinned) < 3:
        raise FormatError(
            "The machines differ where an image decides (PCR 4, PCR 7, and one of the kernel's), or hold nothing there. "
            "Were they made of one image, and is it measured?"
        )
    return {"type": "azure-cvm", "image": image, "pcrs": {n: pinned[n] for n in sorted(pinned, key=int)}}


def _compare(values: Sequence[Mapping[str, str]], computed: Mapping[str, str]) -> None:
    for number, found in enumerate(values, 1):
        other = [n for n, value in computed.items() if found.get(n) != value]
        if other:
            raise FormatError(
                f"Record {number} shows other values than the build computed, in PCR {', '.join(other)}. Pin neither before "
                "you know why: another image, Secure Boot off, or something given to the machine from outside (PCR 12, 13)."
            )


def built(document: Any) -> tuple[str, dict[str, str]]:
    """Digest and computed PCRs, from the image.json of a build. Raises FormatError."""
    code = shapes.pick(document, "image.json", {"v": shapes.exactly(1), "code": shapes.mapping})["code"]
    shape = {"type": shapes.exactly("azure-cvm"), "image": shapes.image_digest, "pcrs": shapes.mapping}
    found = shapes.fields(code, "image.json's code", shape)
    computed = {n: shapes.hex32(value, f"image.json, PCR {n}") for n, value in found["pcrs"].items()}
    if not set(computed) <= set(map(str, OF_THE_IMAGE)):
        raise FormatError(f"image.json has PCRs that no image decides: {', '.join(computed)}.")
    return found["image"], computed


def _pcrs(document: Any, where: str) -> dict[str, str]:
    shape = {"v": shapes.exactly(1), "bank": shapes.exactly("sha256"), "pcrs": shapes.mapping}
    found: dict[str, str] = shapes.fields(document, where, shape)["pcrs"]
    return {n: shapes.hex32(value, f"{where}, PCR {n}") for n, value in found.items()}


def read(raw: bytes) -> Any:
    """A record as it stands, or one of the PCR values in an evidence envelope. Raises FormatError, ValueError."""
    document = json.loads(raw)
    if not isinstance(document, dict) or "parts" not in document:
        return document
    shown = parse_pcrs(envelope.parse(raw).parts.get("pcrs", b""))
    return {"v": 1, "bank": "sha256", "pcrs": {str(n): value.hex() for n, value in shown.items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="workers.runner.golden", description=__doc__.split("\n")[0])
    acts = parser.add_subparsers(dest="act", required=True)
    recording = acts.add_parser("record")
    recording.add_argument("file", type=Path)
    recording.add_argument("--tcti", default=DEVICE, help="how the TPM is reached, for tests")
    joining = acts.add_parser("join")
    which = joining.add_mutually_exclusive_group(required=True)
    which.add_argument("--image", help="digest of the disk image, sha256:...")
    which.add_argument("--build", type=Path, help="image.json, which the image's build has written")
    joining.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    try:
        if options.act == "record":
            options.file.write_text(json.dumps(record(Tpm(options.tcti)), indent=1) + "\n")
        else:
            records = [read(path.read_bytes()) for path in options.files]
            computed: dict[str, str] = {}
            image = options.image
            if options.build:
                image, computed = built(json.loads(options.build.read_text()))
            print(json.dumps(join(records, image, computed), indent=1))
    except (NoEvidence, FormatError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
