"""How a machine's runner starts: what it was told, where its data may lie, and what it never does by itself."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.evidence.protection import PROTECTION
from tests.fakes.launcher import Metadata, google_metadata
from workers.runner import __main__ as start
from workers.runner import place
from workers.runner.attester import Facts, NoEvidence
from workers.runner.attesters import ENVIRONMENTS, Environment, metadata
from workers.runner.attesters.metadata import USER_DATA
from workers.runner.told import Told, told

TOKEN = "0123456789abcdef0123456789abcdef." + "ab" * 32
RUN = "7b1c2a90-0000-4000-8000-000000000001"
FACTS = Facts(portal="p", manifest="00" * 32, image="sha256:" + "11" * 32, instance="i")
VARIABLES = {"STRONGROOM_PORTAL": "https://portal.example", "STRONGROOM_RUN": RUN}


def user_data(document: object) -> Metadata:
    page = base64.b64encode(json.dumps(document).encode()).decode()
    return Metadata({USER_DATA: page}, ("Metadata", "true"))


# What the machine was told


def test_google_tells_by_variables_and_metadata():
    with google_metadata(TOKEN) as service:
        environment = Environment("gcp", gcp_metadata=service.url)
        assert told(environment, VARIABLES) == Told("https://portal.example", TOKEN, RUN)


def test_azure_vms_are_told_by_user_data():
    with user_data({"portal": "https://portal.example", "run": RUN, "token": TOKEN}) as service:
        environment = Environment("azure-cvm", azure_metadata=service.url)
        assert told(environment, {}) == Told("https://portal.example", TOKEN, RUN)


@pytest.mark.parametrize("name", ["azure-aci", "software"])
def test_containers_are_told_by_variables_and_a_mounted_file(name, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    key = tmp_path / "key" if name == "software" else None
    environment = Environment(name, attester_key=key)
    variables = {**VARIABLES, "STRONGROOM_TOKEN_FILE": str(tmp_path / "token")}
    assert told(environment, variables) == Told("https://portal.example", TOKEN, RUN)


def test_a_token_file_of_the_arguments_is_removed(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    environment = Environment("software", attester_key=tmp_path / "key")
    found = told(environment, {}, portal="http://127.0.0.1:8000", token_file=tmp_path / "token")
    assert found == Told("http://127.0.0.1:8000", TOKEN)
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"portal": "https://p.example", "run": RUN},
        {"portal": "https://p.example", "run": RUN, "token": TOKEN, "more": "x"},
        {"portal": "https://p.example", "run": RUN, "token": 5},
        {"portal": "https://p.example", "run": RUN, "token": "two words " * 4},
        {"portal": "http://p.example", "run": RUN, "token": TOKEN},
        [TOKEN],
        TOKEN,
    ],
)
def test_user_data_that_are_refused(document):
    with user_data(document) as service, pytest.raises(NoEvidence):
        told(Environment("azure-cvm", azure_metadata=service.url), {})


@pytest.mark.parametrize("variables", [{}, {"STRONGROOM_PORTAL": "http://portal.example"}])
def test_a_portal_without_tls_or_none_at_all(variables):
    with google_metadata(TOKEN) as service, pytest.raises(NoEvidence, match="portal"):
        told(Environment("gcp", gcp_metadata=service.url), variables)


@pytest.mark.parametrize("token", ["", "short", "a b" * 20, "x" * 500, "é" * 40])
def test_metadata_that_hold_no_token(token):
    with google_metadata(token) as service, pytest.raises(NoEvidence):
        told(Environment("gcp", gcp_metadata=service.url), VARIABLES)


def test_the_metadata_service_must_be_asked_as_it_wants():
    with google_metadata(TOKEN) as service:
        with pytest.raises(NoEvidence, match="403"):
            metadata.fetch(
                service.url, "/computeMetadata/v1/instance/attributes/strongroom-token", headers={}
            )
        with pytest.raises(metadata.NotThere):
            metadata.fetch(service.url, "/elsewhere", headers={"Metadata-Flavor": "Google"})
    with pytest.raises(NoEvidence, match="no connection"):
        metadata.fetch("http://127.0.0.1:9", "/", headers={}, patience=0)


def test_too_much_metadata():
    large = Metadata({"/": "x" * (metadata.MAX_BYTES + 1)}, ("Metadata", "true"))
    with large as service, pytest.raises(NoEvidence, match="more than"):
        metadata.fetch(service.url, "/", headers={"Metadata": "true"})


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with google_metadata(TOKEN) as service:
        assert metadata.gcp_launch_token(service.url) == TOKEN


# The environment is an argument, and there is no way back to software


@pytest.mark.parametrize("name", ["", "auto", "local", "GCP", "azure"])
def test_there_are_no_other_environments(name):
    with pytest.raises(ValueError, match="none of"):
        Environment(name)


@pytest.mark.parametrize("name", [n for n in ENVIRONMENTS if n != "software"])
def test_hardware_takes_no_software_key(name, tmp_path):
    with pytest.raises(ValueError, match="attester key"):
        Environment(name, attester_key=tmp_path / "key")


def test_software_needs_its_key():
    with pytest.raises(ValueError, match="attester key"):
        Environment("software")


@pytest.mark.parametrize("name", [n for n in ENVIRONMENTS if n != "software"])
def test_nothing_stands_in_for_hardware_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.setenv("STRONGROOM_ATTESTER_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.delenv("UVM_SECURITY_CONTEXT_DIR", raising=False)
    with pytest.raises(NoEvidence):
        Environment(name, launcher=tmp_path / "none").attester(FACTS)


def test_the_software_attester_is_not_even_loaded_elsewhere():
    code = (
        "import sys\nimport workers.runner.__main__\n"
        "assert 'workers.runner.attesters.software' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env={"PYTHONPATH": f"{root}/sdk/src"}, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_the_image_of_hardware_is_what_the_manifest_names(tmp_path):
    manifest = {"image": "sha256:" + "ee" * 32}
    assert Environment("gcp").image(manifest, tmp_path) == manifest["image"]


def test_the_environment_must_be_named(capsys):
    with pytest.raises(SystemExit) as ended:
        start.main(["--workdir", "/nowhere"])
    assert ended.value.code == 2 and "--environment" in capsys.readouterr().err


def test_a_machine_that_cannot_take_a_run_says_why(tmp_path, capsys, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text(TOKEN)
    arguments = [
        "--environment",
        "azure-aci",
        "--workdir",
        str(tmp_path),
        "--token-file",
        str(tmp_path / "token"),
    ]
    assert start.main(arguments) == start.REFUSED
    assert "portal's address is missing" in capsys.readouterr().err


def test_every_environment_has_an_honest_sentence():
    for kind in ("gcp-confidential-space", "azure-cvm", "azure-aci"):
        assert (
            "shows" in PROTECTION[kind] and "not show" in PROTECTION[kind] and "rests on" in PROTECTION[kind]
        )
        assert len(PROTECTION[kind]) <= 500
    assert "no hardware protection" in PROTECTION["software"]


# Where opened data may lie

MOUNTS = """\
overlay / overlay rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
ext4 /dev/shm/disk ext4 rw 0 0
tmpfs /work\\040place tmpfs rw 0 0
"""
NO_SWAP, SWAP = (
    "Filename Type Size Used Priority\n",
    "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/dev/shm/run", "tmpfs"),
        ("/dev/shm", "tmpfs"),
        ("/dev/shmx", "overlay"),
        ("/dev/shm/disk/run", "ext4"),
        ("/work place/x", "tmpfs"),
        ("/srv", "overlay"),
    ],
)
def test_the_nearest_mount_counts(folder, kind):
    assert place._file_system(Path(folder), MOUNTS) == kind


def write(tmp_path: Path, *, kind: str, swaps: str) -> dict[str, Path]:
    (tmp_path / "mounts").write_text(f"x {tmp_path} {kind} rw 0 0\n")
    (tmp_path / "swaps").write_text(swaps)
    return {"mounts": tmp_path / "mounts", "swaps": tmp_path / "swaps"}


@pytest.mark.parametrize(
    ("kind", "swaps", "word"),
    [("ext4", NO_SWAP, "mount a tmpfs"), ("overlay", NO_SWAP, "mount a tmpfs"), ("tmpfs", SWAP, "swapoff")],
)
def test_places_that_are_refused(tmp_path, kind, swaps, word):
    (tmp_path / "work").mkdir()
    with pytest.raises(place.PlaceRefused, match=word):
        place.require_memory(tmp_path / "work", **write(tmp_path, kind=kind, swaps=swaps))


def test_a_place_in_memory(tmp_path):
    (tmp_path / "work").mkdir()
    place.require_memory(tmp_path / "work", **write(tmp_path, kind="tmpfs", swaps=NO_SWAP))
    with pytest.raises(place.PlaceRefused, match="empty"):
        place.require_memory(tmp_path, **write(tmp_path, kind="tmpfs", swaps=NO_SWAP))
    with pytest.raises(place.PlaceRefused, match="empty"):
        place.require_memory(tmp_path / "none", **write(tmp_path, kind="tmpfs", swaps=NO_SWAP))
