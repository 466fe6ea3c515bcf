"""The root file system: Debian's packages, the runner, the programs' environment, this image's own settings. Needs root."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra.runner.disk import initrd
from infra.runner.disk.commit import Commit

HERE = Path(__file__).parent
HOME = "opt/strongroom"
UNITS = ("strongroom-ready.service", "strongroom-runner.service", "work.mount")
ENABLED = ("systemd-networkd.service", "systemd-resolved.service", *UNITS)
# No way in: no console, no shell, no keys that mean something. No swapping, no sleeping, no core dumps.
MASKED = (
    "autovt@.service", "console-getty.service", "container-getty@.service", "ctrl-alt-del.target", "debug-shell.service",
    "getty.target", "getty@.service", "getty@tty1.service", "serial-getty@.service", "serial-getty@ttyS0.service",
    "ssh.service", "ssh.socket", "hibernate.target", "hybrid-sleep.target", "sleep.target", "suspend.target",
    "suspend-then-hibernate.target", "swap.target", "systemd-coredump.socket", "systemd-pstore.service",
    "kexec.target", "reboot.target", "systemd-firstboot.service", "systemd-sysusers.service", "systemd-sysext.service",
    "proc-sys-fs-binfmt_misc.automount", "proc-sys-fs-binfmt_misc.mount", "systemd-binfmt.service",
    "systemd-boot-random-seed.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "fstrim.timer", "systemd-tmpfiles-clean.timer", "walinuxagent.service",
    # PCR 11 is the kernel image's and PCR 15 the runner's: nothing else may extend them.
    "systemd-pcrphase.service", "systemd-pcrphase-initrd.service", "systemd-pcrphase-sysinit.service",
    "systemd-pcrmachine.service", "systemd-pcrfs-root.service", "systemd-pcrfs@.service",
)  # fmt: skip
# Beyond the initrd's: the network of Azure and of a trial, time from the host, the report devices.
MODULES = (
    *initrd.MODULES,
    "hv_netvsc",
    "hv_utils",
    "mana",
    "mlx5_core",
    "sev-guest",
    "tdx-guest",
    "virtio_net",
    "virtio_rng",
)
# Differs from build to build, or is of use only for making changes.
DROPPED = (
    "var/cache", "var/log", "var/lib/apt", "var/lib/dpkg", "var/lib/systemd", "var/tmp", "usr/share/doc", "usr/share/man",
    "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "etc/apt", "etc/cron.daily", "boot",
    "etc/machine-id", "etc/hostname", "etc/resolv.conf", "etc/ld.so.cache", "etc/.pwd.lock", "etc/passwd-", "etc/group-",
    "etc/shadow-", "etc/gshadow-", "run", "tmp", "dev", "etc/ssh", "root", "home", "var/lib/dbus", "etc/systemd/system",
)  # fmt: skip
EMPTY = ("boot", "dev", "home", "proc", "root", "run", "sys", "tmp", "var", "work")


def programs(root: Path, *, wheels: Path, first: Path, lock: Path, pip: Path) -> None:
    """/opt/strongroom/venv from wheels by their hashes, without a network. pip: the wheel of pip itself."""
    venv, place = f"/{HOME}/venv", root / "wheels"
    _chroot(root, "/usr/bin/python3.11", "-m", "venv", "--without-pip", venv)
    shutil.copytree(wheels, place, copy_function=os.link)
    for file in (first, lock, pip):
        shutil.copy(file, place / file.name)
    quiet = (
        "--no-index",
        "--find-links",
        "/wheels",
        "--require-hashes",
        "--no-compile",
        "--no-cache-dir",
        "--quiet",
    )
    installer = (
        f"{venv}/bin/python",
        f"/wheels/{pip.name}/pip",
        "install",
        *quiet,
        "--root-user-action",
        "ignore",
        "--no-deps",
    )
    _chroot(root, *installer, "-r", f"/wheels/{first.name}")
    _chroot(root, *installer, "--use-pep517", "--no-build-isolation", "-r", f"/wheels/{lock.name}")
    shutil.rmtree(place)


def bare(root: Path) -> None:
    """An environment without any package, for a trial of all but the runs."""
    _chroot(root, "/usr/bin/python3.11", "-m", "venv", "--without-pip", f"/{HOME}/venv")


def fill(root: Path, commit: Commit, *, authority: Path | None = None) -> None:
    """The runner as it is committed, under /opt/strongroom. authority: who signs the portal's certificate, PEM.

    Raises OSError where the file holds no certificate.
    """
    home = root / HOME
    home.mkdir(parents=True)
    commit.unpack(home)
    (home / "infra/runner/vm").rename(home / "vm")
    shutil.rmtree(home / "infra")
    (home / "authorities").mkdir()
    if authority:
        ssl.create_default_context(cafile=str(authority))
        shutil.copyfile(authority, home / "authorities/portal.pem")


def kernel_modules(root: Path, modules: Path, *, depmod: Sequence[str] = ("depmod",)) -> None:
    """Those that this image has a use for; the host decides which devices a machine sees, and with it what is loaded."""
    place = root / "usr/lib/modules" / modules.name
    known = initrd.dependencies((modules / "modules.dep").read_text())
    for file in initrd.in_order(MODULES, known):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(modules / file, place / file)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(modules / name, place / name)
    _chroot(root, *depmod, modules.name)


def settle(root: Path, *, time: int) -> None:
    """What makes a machine of it that nobody gets into, and the same bytes from each build."""
    for name in DROPPED:
        _remove(root / name)
    for name in EMPTY:
        (root / name).mkdir(exist_ok=True)
    shutil.copytree(HERE / "overlay", root, dirs_exist_ok=True)
    (root / "etc/machine-id").write_text("")  # systemd makes one up in memory
    (root / "etc/hostname").write_text("runner\n")
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/resolv.conf")
    units = root / "etc/systemd/system"
    for name in MASKED:
        (units / name).symlink_to("/dev/null")
    wants = units / "multi-user.target.wants"
    wants.mkdir()
    for name in UNITS:
        shutil.copy(root / HOME / "vm" / name, units / name)
    for name in ENABLED:
        place = "/etc" if name in UNITS else "/lib"
        (wants / name).symlink_to(f"{place}/systemd/system/{name}")
    online = units / "network-online.target.wants"
    online.mkdir()
    (online / "systemd-networkd-wait-online.service").symlink_to(
        "/lib/systemd/system/systemd-networkd-wait-online.service"
    )
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for folder in sorted(root.rglob("__pycache__")):
        _remove(folder)
    _chroot(root, "ldconfig")
    _remove(root / "var/cache")
    _times(root, time)


def _times(root: Path, time: int) -> None:
    for path in (root, *root.rglob("*")):
        os.utime(path, (time, time), follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _chroot(root: Path, *command: str) -> None:
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/nonexistent",
    }
    subprocess.run(["chroot", str(root), *command], check=True, env=env, stdin=subprocess.DEVNULL)
