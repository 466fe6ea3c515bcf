"""A custodian's key broker as a process of its own, set up as its custodian would: by files and the command line."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from apps.attestation.policies import runner_image
from apps.core.objects import put_bytes
from apps.datasets.models import Dataset, DatasetVersion
from apps.jobs.engine.packages import portal_keys
from strongroom import seal

ID = "broker.archive.example"


class BrokerProcess:
    """`strongroom broker serve` in `folder`. Datasets are named to it before it starts."""

    def __init__(self, folder: Path, id_: str = ID) -> None:
        self.folder, self.id = folder, id_
        folder.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.datasets: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "portal.json").write_bytes(portal_keys().to_bytes())
        self.set_policy()
        self._write()
        self.cli("init")

    def set_policy(self, **changes: Any) -> None:
        document = {
            "v": 1,
            "types": ["software"],
            "images": [runner_image()],
            "max_age_seconds": 600,
            **changes,
        }
        (self.folder / "policy.json").write_text(json.dumps(document))

    def holds(self, dataset: Dataset) -> None:
        self.datasets.append(str(dataset.pk))
        self._write()

    def _write(self) -> None:
        text = f'id = "{self.id}"\nlisten = "127.0.0.1:{self.port}"\nstate = "broker.sqlite"\n[portal]\nkeys = "portal.json"\n[store]\nkind = "local"\npath = "keys.json"\n[datasets]\n'
        for dataset in self.datasets:
            text += f'[datasets."{dataset}"]\npolicy = "policy.json"\npersonal_data = false\n'
        (self.folder / "broker.toml").write_text(text)

    def cli(self, *arguments: str) -> str:
        command = [
            sys.executable,
            "-m",
            "strongroom.cli",
            "broker",
            arguments[0],
            "--config",
            str(self.folder / "broker.toml"),
            *arguments[1:],
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.cli("log", "--json").splitlines()]

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "strongroom.cli",
            "broker",
            "serve",
            "--config",
            str(self.folder / "broker.toml"),
        ]
        with (self.folder / "out").open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        for _ in range(400):
            try:
                if httpx.get(f"{self.url}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "out").read_text())

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
            self.process = None

    def keys(self) -> list[dict[str, str]]:
        return list(json.loads(self.cli("keys"))["keys"])


def hand_over(dataset: Dataset, broker: BrokerProcess) -> None:
    """The dataset's keys are held by `broker` from now on. As apps.datasets.actions.set_key_broker writes it."""
    Dataset.objects.filter(pk=dataset.pk).update(key_broker=broker.id, key_broker_keys=broker.keys())
    dataset.refresh_from_db()


def sealed_version(dataset: Dataset, public: seal.PublicKey, by: Any, data: bytes) -> DatasetVersion:
    """A version really sealed, its data key wrapped to `public`."""
    number = dataset.versions.count() + 1
    key, out = seal.generate_data_key(), io.BytesIO()
    made = seal.seal_stream(io.BytesIO(data), out, key, seal.aad_dataset(str(dataset.pk), number))
    wrapped = seal.wrap_key(key, public, seal.info_data_key(str(dataset.pk), number))
    header = seal.seal_header(
        dataset=str(dataset.pk), version=number, suite=public.suite, recipient=public.id, wrapped_key=wrapped, result=made, media_type="text/csv",
    )  # fmt: skip
    version = DatasetVersion(
        dataset=dataset, number=number, state="accepted", dictionary=dataset.dictionary, media_type="text/csv",
        announced_size=made.ciphertext_size, received_size=made.ciphertext_size, seal=header.to_json(),
        ciphertext_sha256=made.ciphertext_sha256, plaintext_sha256=made.plaintext_sha256, rows=3, uploaded_by=by,
    )  # fmt: skip
    version.object_name = f"datasets/{version.pk}.sealed"
    version.save()
    put_bytes(version.object_name, out.getvalue())
    return version
