"""The production settings refuse to start while anything insecure is the default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GOOD = {
    "STRONGROOM_SECRET_KEY": "k" * 40,
    "STRONGROOM_URL": "https://portal.example",
    "DATABASE_URL": "postgres://u:p@127.0.0.1:1/d",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "STRONGROOM_BACKEND": "gcp",
}


def start(**changes: str | None) -> subprocess.CompletedProcess[str]:
    values = {**GOOD, **changes}
    env = {name: value for name, value in values.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", "import portal.settings.production as p; print(p.DEFAULT_BACKEND)"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_good_configuration_starts() -> None:
    done = start()
    assert (done.returncode, done.stdout) == (0, "gcp\n"), done.stderr


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"STRONGROOM_SECRET_KEY": "short"}, "STRONGROOM_SECRET_KEY"),
        ({"STRONGROOM_URL": "http://portal.example"}, "https://"),
        ({"DATABASE_URL": None}, "DATABASE_URL"),
        ({"STRONGROOM_BACKEND": None}, "'local'"),
        ({"STRONGROOM_BACKEND": "kubernetes", "STRONGROOM_KUBERNETES_RUNTIME_CLASS": "kata"}, "'kubernetes'"),
        ({"STRONGROOM_TRUST_DIRECTORY": "/nowhere"}, "STRONGROOM_TRUST_DIRECTORY"),
        ({"STRONGROOM_KEY_BROKERS": "{"}, "STRONGROOM_KEY_BROKERS must be a JSON object"),
        ({"STRONGROOM_KEY_BROKERS": '["b"]'}, "STRONGROOM_KEY_BROKERS must be a JSON object"),
        ({"STRONGROOM_KEY_BROKERS": '{"b": 1}'}, "the address of 'b'"),
        ({"STRONGROOM_KEY_BROKERS": '{"b": "file:///etc"}'}, "the address of 'b'"),
        ({"STRONGROOM_KEY_STORE_OPTIONS": "x"}, "STRONGROOM_KEY_STORE_OPTIONS must be a JSON object"),
    ],
)
def test_what_is_insecure_does_not(changes: dict[str, str | None], says: str) -> None:
    done = start(**changes)
    assert done.returncode != 0 and "ImproperlyConfigured" in done.stderr and says in done.stderr


def test_a_test_authority_is_not_trusted(tmp_path: Path) -> None:
    anchor = {"purpose": "uvm-root", "name": "a test", "sha256": "ab" * 32, "test": True}
    (tmp_path / "anchors.json").write_text(json.dumps({"v": 1, "anchors": [anchor]}))
    done = start(STRONGROOM_TRUST_DIRECTORY=str(tmp_path))
    assert done.returncode != 0 and "test authority" in done.stderr


def test_each_kind_of_container_may_have_an_image_of_its_own() -> None:
    one, two = f"registry.example/a@sha256:{'a' * 64}", f"registry.example/b@sha256:{'b' * 64}"
    env = {
        "PATH": os.environ["PATH"],
        **GOOD,
        "STRONGROOM_RUNNER_IMAGE": one,
        "STRONGROOM_RUNNER_IMAGE_GCP": two,
    }
    code = "import json, portal.settings.base as p; print(json.dumps([p.RUNNER_IMAGE_REFERENCES, p.RUNNER_IMAGES]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    references, digests = json.loads(done.stdout)
    assert references == {"gcp": two, "azure-aci": one, "kubernetes": one}
    # A pod's software evidence names the runner's files, so its image has no digest in a manifest.
    assert digests == {"gcp": "sha256:" + "b" * 64, "azure-aci": "sha256:" + "a" * 64}
