"""`python -m workers.runner.golden`: the PCR values of a runner's disk image, for the policies of custodians.

    record FILE                     on a machine made of the image, before it has had a run: its PCRs as JSON
    join --image DIGEST FILES...    at home: the policy's `code` entry, of the PCRs that are equal in every record

A record is one machine's word about itself. It is worth something where the machines are your own and nobody else could
change the image; docs/how-to/golden-pcrs.md has what to pin and how to check values against evidence.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strongroom import shapes
from strongroom.errors import FormatError
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


def join(records: Sequence[dict[str, Any]], image: str) -> dict[str, Any]:
    """The `code` entry of a release policy. Raises FormatError: fewer than two records, or nothing equal to pin."""
    shapes.image_digest(image, "The image")
    if len(records) < 2:
        raise FormatError("Record at least two machines: what differs between them must not be pinned.")
    values = [_pcrs(document, f"record {number}") for number, document in enumerate(records, 1)]
    equal = {
        str(n): values[0].get(str(n), ZERO) for n in OF_THE_IMAGE if len({v.get(str(n)) for v in values}) == 1
    }
    pinned = {n: value for n, value in equal.items() if value != ZERO}
    if "4" not in pinned or "7" not in pinned or len(pinned) < 3:
        raise FormatError(
            "The machines differ where an image decides (PCR 4, PCR 7, and one of the kernel's), or hold nothing there. "
            "Were they made of one image, and is it measured?"
        )
    return {"type": "azure-cvm", "image": image, "pcrs": pinned}


def _pcrs(document: Any, where: str) -> dict[str, str]:
    shape = {"v": shapes.exactly(1), "bank": shapes.exactly("sha256"), "pcrs": shapes.mapping}
    found: dict[str, str] = shapes.fields(document, where, shape)["pcrs"]
    return {n: shapes.hex32(value, f"{where}, PCR {n}") for n, value in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="workers.runner.golden", description=__doc__.split("\n")[0])
    acts = parser.add_subparsers(dest="act", required=True)
    recording = acts.add_parser("record")
    recording.add_argument("file", type=Path)
    recording.add_argument("--tcti", default=DEVICE, help="how the TPM is reached, for tests")
    joining = acts.add_parser("join")
    joining.add_argument("--image", required=True, help="digest of the disk image, sha256:...")
    joining.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    try:
        if options.act == "record":
            options.file.write_text(json.dumps(record(Tpm(options.tcti)), indent=1) + "\n")
        else:
            records = [json.loads(path.read_text()) for path in options.files]
            print(json.dumps(join(records, options.image), indent=1))
    except (NoEvidence, FormatError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
