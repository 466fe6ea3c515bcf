"""`python -m infra.runner.disk`: the disk image of the runner for Azure confidential VMs, and its PCR values.

build --out FOLDER      the image: strongroom.raw, strongroom.vhd, strongroom.efi, image.json (docs/how-to/runner-image.md)
pcrs FILE               the PCR values of a unified kernel image (strongroom.efi), computed
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.runner.disk import build, debian, pcrs
from infra.runner.disk.commit import Commit, NotCommitted

ROOT = Path(__file__).resolve().parents[3]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="infra.runner.disk", description=__doc__.split("\n")[0])
    acts = made.add_subparsers(dest="act", required=True)
    making = acts.add_parser("build", help="build the image; needs root, mmdebstrap and some 12 GB")
    making.add_argument(
        "--out", type=Path, default=ROOT / "var/runner-disk", help="folder for all that is made"
    )
    making.add_argument("--mirror", help="address of Debian's archive; else what apt here is set up with")
    making.add_argument("--security-mirror", help="address of Debian's security updates; else likewise")
    making.add_argument(
        "--without-programs", action="store_true", help="for a trial: boots, and can do no run"
    )
    making.add_argument(
        "--console", action="store_true", help="for a trial: speaks on a serial port; other PCRs"
    )
    making.add_argument("--key", type=Path, help="your key for Secure Boot, PEM")
    making.add_argument("--certificate", type=Path, help="its certificate, PEM")
    making.add_argument(
        "--authority",
        type=Path,
        help="who signs the portal's certificate, PEM, where no public authority does",
    )
    showing = acts.add_parser("pcrs", help="compute PCR values of a unified kernel image")
    showing.add_argument("file", type=Path)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.act == "pcrs":
            print(json.dumps(pcrs.golden(options.file.read_bytes()), indent=1))
            return 0
        if bool(options.key) != bool(options.certificate):
            raise build.CannotBuild("Name both, --key and --certificate, or neither.")
        commit = Commit.of(ROOT)
        wanted = build.Wanted(
            folder=ROOT,
            out=options.out.resolve(),
            mirrors=debian.mirrors(options.mirror, options.security_mirror),
            with_programs=not options.without_programs,
            console=options.console,
            key=options.key,
            certificate=options.certificate,
            authority=options.authority,
        )
        made = build.build(wanted, commit, lambda text: print(text, file=sys.stderr))
        print(json.dumps(made["code"], indent=1))
        return 0
    except (NotCommitted, build.CannotBuild, debian.NoMirror, OSError, ValueError) as error:
        print(error, file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"A tool failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
