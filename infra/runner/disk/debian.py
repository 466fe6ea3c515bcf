"""Where Debian's packages come from: what this machine's apt is set up with, or what an argument names."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

RELEASE = "bookworm"  # has Python 3.11, which requirements/programs.txt is locked for
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Linux 6.12: Hyper-V's isolated machines (vTOM) on SEV-SNP and TDX. Bookworm's own 6.1 has no TDX guest.
KERNEL = f"linux-image-cloud-amd64/{RELEASE}-backports"
PARTS = (
    KERNEL, "binutils", "busybox-static", "cryptsetup-bin", "dmsetup", "dosfstools", "kmod", "mtools", "python3-pip-whl",
    "sbsigntool", "squashfs-tools", "systemd-boot-efi",
)  # fmt: skip
ROOT = (
    "ca-certificates", "kmod", "libtss2-tcti-device0", "python3.11", "systemd", "systemd-resolved", "systemd-sysv",
    "tpm2-tools", "udev",
)  # fmt: skip
_FORMAT = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)"


class NoMirror(Exception):
    """This machine's apt knows no archive of the release."""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Addresses of the archive and of its security updates."""

    main: str
    security: str

    def sources(self) -> str:
        """As apt's sources.list."""
        wanted = [(self.main, RELEASE + suffix) for suffix in ("", "-updates", "-backports")]
        wanted.append((self.security, f"{RELEASE}-security"))
        return "".join(f"deb [signed-by={KEYRING}] {where} {suite} main\n" for where, suite in wanted)


def mirrors(main: str | None = None, security: str | None = None) -> Mirrors:
    """By arguments, else from apt. Raises NoMirror."""
    if not main or not security:
        found = read_targets(_targets())
        main, security = main or found.get(RELEASE), security or found.get(f"{RELEASE}-security")
    if not main or not security:
        raise NoMirror(f"apt of this machine has no Debian {RELEASE}: name --mirror and --security-mirror.")
    return Mirrors(main.rstrip("/"), security.rstrip("/"))


def read_targets(text: str) -> dict[str, str]:
    """Addresses by code name, of Debian's own archives."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        address, codename, component, origin = line.split("|")
        if origin == "Debian" and component == "main":
            found.setdefault(codename, address)
    return found


def _targets() -> str:
    command = ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def bootstrap(mirrors: Mirrors, *, variant: str, packages: tuple[str, ...], into: str, time: int) -> None:
    """A tree of packages by mmdebstrap; `extract` only unpacks. Needs root."""
    subprocess.run(
        [
            "mmdebstrap", "--mode=root", f"--variant={variant}", "--format=directory", f"--include={','.join(packages)}",
            '--aptopt=Apt::Install-Recommends "false"', *(["--skip=cleanup"] if variant == "extract" else []),
            RELEASE, into, "-",
        ],
        input=mirrors.sources(), text=True, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH": str(time)},
    )  # fmt: skip
