"""The supervisor: one attempt at one run, from the one-time token to the signed result.

It is the program inside the trusted environment that holds keys. It imports no portal code, takes every rule from the
manifest, and lets nothing out but phases, exit classes, allow-listed exception types, hashes, and the sealed outputs.
"""

from __future__ import annotations

import hashlib
import shutil
import ssl
import tarfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from strongroom import contexts, seal, shapes, statement, strictjson
from strongroom.errors import FormatError, SealError, StrongroomError
from strongroom.evidence.protection import PROTECTION
from strongroom.paths import distinct_files, safe_path
from strongroom.signing import SigningKey
from workers.runner import sandbox
from workers.runner.attester import Attester, Facts, NoEvidence
from workers.runner.attesters import Environment
from workers.runner.client import Cancelled, Portal, Refused
from workers.runner.exits import Exit, allowed_type
from workers.runner.heart import Heart, note
from workers.runner.inputs import InputRefused, fetch_inputs
from workers.runner.place import PlaceRefused, require_memory
from workers.runner.program import ROOT, Layout, ProgramRefused, lay_out, run_program, view_of

MAX_LOG = 1 << 20


def moment() -> str:
    """The present time as the contexts write it: RFC 3339, UTC, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def supervise(
    *,
    url: str,
    token: str,
    base: Path,
    environment: Environment,
    sandbox_proof: Path | None = None,
    run: str = "",
    trust: ssl.SSLContext | None = None,
) -> int:
    """Carry out one attempt. Returns 0 when the portal has accepted a result (of success or failure), else 1.

    sandbox_proof: where the sandbox's self-test is remembered; None tests it anew. run: the run that this machine was
    started for, where it was told; another one's manifest is refused. trust: of the portal's certificate, where it is of
    a private authority.
    """
    portal = Portal(url, trust=trust)
    heart = Heart(portal)
    try:
        claim = portal.claim(token)
        note("claimed")
        heart.start()
        if run and claim["manifest"]["run"] != run:
            raise InputRefused("manifest_differs")
        if environment.hardware:
            require_memory(base)
        Attempt(portal, heart, claim, base, environment).carry_out(sandbox_proof)
        return 0
    except Cancelled:
        portal.abandon("cancelled")
    except Refused as refused:
        portal.abandon(refused.code)
    except (InputRefused, ProgramRefused, PlaceRefused) as refused:
        portal.abandon(refused.code)
    except SealError:
        portal.abandon("seal_broken")
    except sandbox.SandboxRefused as refused:
        note(f"sandbox refused: {refused}")  # of this machine, not of data: the portal hears the code alone
        portal.abandon(f"sandbox_{refused.code}")
    except NoEvidence as error:
        note(f"no evidence: {error}")  # likewise
        portal.abandon("no_evidence", type(error).__name__)
    except StrongroomError as error:
        portal.abandon("runner_error", type(error).__name__)
    except (
        Exception
    ) as error:  # whatever it is, the portal must hear that nothing more will come, and nothing else
        portal.abandon("runner_error", allowed_type(type(error).__name__))
    finally:
        heart.stop()
        portal.close()
        for part in ("inputs", "work", "outputs"):
            shutil.rmtree(base / part, ignore_errors=True)
    return 1


class Attempt:
    """The steps of one attempt, in the order of docs/explanation/way-of-a-run.md."""

    def __init__(
        self, portal: Portal, heart: Heart, claim: dict[str, Any], base: Path, environment: Environment
    ) -> None:
        self.portal, self.heart, self.claim = portal, heart, claim
        self.manifest: dict[str, Any] = claim["manifest"]
        if hashlib.sha256(strictjson.canonical(self.manifest)).hexdigest() != claim["manifest_sha256"]:
            raise InputRefused("manifest_differs")
        self.layout = Layout(base)
        self.signer = SigningKey.generate()
        self.hpke = seal.generate_key_pair()
        self.shown: list[dict[str, str]] = []  # which evidence was shown to which custodian's key broker
        self.image = environment.image(self.manifest, ROOT)
        facts = Facts(
            portal=claim["portal"], manifest=claim["manifest_sha256"], image=self.image, instance=base.name
        )
        self.attester: Attester = environment.attester(facts)
        self.started = moment()
        self.refusal = ""  # why the outputs were refused: a code, never a name

    def carry_out(self, sandbox_proof: Path | None = None) -> None:
        self.layout.make()
        box = sandbox.proved(sandbox_proof) if sandbox_proof else sandbox.choose()
        keys, e1 = self.obtain_keys()
        inputs = fetch_inputs(self.portal, self.manifest, keys, self.layout.inputs, self.heart.at)
        keys.clear()
        program = self.manifest["program"]
        content = b"" if program["kind"] == "builtin" else b"".join(self.portal.download("/program"))
        if program["kind"] != "builtin" and hashlib.sha256(content).hexdigest() != program["sha256"]:
            raise InputRefused("program_changed")
        self.layout.work.chmod(0o700)
        self.index(box)
        lines = lay_out(program, content, self.layout)
        # Said and answered before the program starts: a machine lost from here on is not tried again.
        self.portal.phase("running", 0, int(self.manifest["limits"]["wall_seconds"]))
        self.heart.at("running", 0, int(self.manifest["limits"]["wall_seconds"]))
        ended = run_program(
            self.manifest,
            self.layout,
            lines,
            box=box,
            on_tick=lambda tick: self._tick(tick.wall_seconds),
            cancel=self.heart.cancelled.is_set,
        )
        if self.heart.cancelled.is_set():
            raise Cancelled(self.heart.reason)
        self.heart.at("checking")
        outputs, ended = self.collect(ended)
        shutil.rmtree(self.layout.inputs, ignore_errors=True)
        self.deliver(inputs, outputs, ended, e1)

    def _tick(self, seconds: float) -> None:
        with suppress(Cancelled):  # the sandbox asks `cancel` itself
            self.heart.at("running", int(seconds), int(self.manifest["limits"]["wall_seconds"]))

    def obtain_keys(self) -> tuple[dict[str, bytes], str | None]:
        """Prove what this is to every broker that holds a key; open the data keys that come back.

        Each broker gets a C1 of its own, with its challenge and only its inputs, and evidence bound to that. The
        program starts with all keys or not at all. Returns keys by dataset, and the SHA-256 of the evidence shown to
        the portal's own broker, None if it holds no key; the others' go into `self.shown`.
        """
        sealed = [entry for entry in self.manifest["inputs"] if entry["sealed"]]
        if not sealed:
            return {}, None
        self.heart.at("attesting")
        keys: dict[str, bytes] = {}
        first: str | None = None
        for broker in sorted({str(entry.get("broker") or "") for entry in sealed}):
            inputs = [entry for entry in sealed if str(entry.get("broker") or "") == broker]
            challenge = self.portal.broker_challenge(broker) if broker else str(self.claim["challenge"])
            found, digest = self.ask_broker(broker, challenge, inputs)
            keys |= found
            if broker:
                self.shown.append({"broker": broker, "e1": digest})
            else:
                first = digest
        return keys, first

    def ask_broker(
        self, broker: str, challenge: str, inputs: list[dict[str, Any]]
    ) -> tuple[dict[str, bytes], str]:
        """The keys that one broker ("" the portal's) releases for `inputs`, and the SHA-256 of the evidence shown."""
        context = contexts.key_release_context(
            run=self.manifest["run"],
            portal=self.claim["portal"],
            challenge=challenge,
            manifest=self.claim["manifest_sha256"],
            image=self.image,
            inputs=[
                {"dataset": e["dataset"], "version": e["version"], "ciphertext": e["sha256"]} for e in inputs
            ],
            approvals=self.manifest["approvals"],
            sign_pub=self.signer.public,
            hpke_pub=self.hpke.public,
            broker=broker or None,
        )
        nonce = contexts.n1(context)
        evidence = self.attester.evidence(nonce)
        asked = {(e["dataset"], e["version"]) for e in inputs}
        keys = {}
        for released in self.portal.keys(context, strictjson.loads(evidence, max_bytes=len(evidence))):
            if (released["dataset"], released["version"]) not in asked:
                raise SealError("A key was sent that was not asked for.")
            info = seal.info_run_key(self.manifest["run"], released["dataset"], released["version"], nonce)
            keys[released["dataset"]] = seal.unwrap_key(
                shapes.b64_decode(released["wrapped"], "wrapped"), self.hpke, info
            )
        return keys, hashlib.sha256(evidence).hexdigest()

    def index(self, box: sandbox.Sandbox) -> None:
        """Put the paths that the program will see into index.json."""
        path = self.layout.inputs / "index.json"
        view = view_of(self.layout, box)
        entries = strictjson.loads(path.read_bytes())
        for entry in entries.values():
            entry["path"] = f"{view.inputs}/{entry.pop('file')}"
        path.write_bytes(strictjson.canonical(entries))

    def collect(self, ended: Exit) -> tuple[list[sandbox.OutputFile], Exit]:
        """The output files of a program that succeeded; a failed program's leftovers leave only a rehearsal."""
        if ended.exit_class != "succeeded" and not self.manifest["full_log"]:
            return [], ended
        try:
            limits = self.manifest["limits"]
            found = sandbox.collect_outputs(self.layout.outputs, max_bytes=int(limits["disk_bytes"]))
            distinct_files(safe_path(output.path) for output in found)
            return found, ended
        except sandbox.OutputRefused as refused:
            self.refusal = refused.code
        except FormatError:  # a name that the statement and the package cannot carry
            self.refusal = "unsafe_name"
        return [], Exit("refused")

    def deliver(
        self, inputs: list[dict[str, Any]], outputs: list[sandbox.OutputFile], ended: Exit, e1: str | None
    ) -> None:
        """Seal and upload the outputs, sign the statement, attest the result (E2 bound to C2), and hand all in."""
        self.heart.at("sealing")
        sealed_path, sealed = self.seal_outputs(outputs)
        self.heart.at("uploading", 0, sealed["size"])
        with sealed_path.open("rb") as reader:
            self.portal.upload(reader, sealed["size"])
        files = [{"path": o.path, "sha256": o.sha256, "size": o.size} for o in outputs]
        exit_record = {
            "class": ended.exit_class,
            "exception_type": ended.exception_type or None,
            "line": ended.line,
        }
        stamp = moment()
        envelope = statement.sign(
            statement.run_statement(
                files,
                {
                    "run": self.manifest["run"],
                    "portal": self.claim["portal"],
                    "project": self.manifest["project"],
                    "kind": self.manifest["kind"],
                    "manifest": self.claim["manifest_sha256"],
                    "program": {"sha256": self.manifest["program"]["sha256"]},
                    "inputs": inputs,
                    "exit": exit_record,
                    "started": self.started,
                    "ended": stamp,
                    "image": self.image,
                    "backend": self.manifest["backend"],
                    "evidence": self.attester.type,
                    "protection": PROTECTION[self.attester.type],
                },
            ),
            [self.signer],
        )
        context = contexts.result_context(
            run=self.manifest["run"],
            portal=self.claim["portal"],
            challenge2=self.claim["challenge2"],
            e1=e1,
            manifest=self.claim["manifest_sha256"],
            inputs=[{"dataset": i["dataset"], "plaintext": i["plaintext"]} for i in inputs],
            outputs=files,
            statement=statement.digest(envelope),
            exit=exit_record,
            started=self.started,
            ended=stamp,
            sign_pub=self.signer.public,
            brokers=self.shown,
        )
        body: dict[str, Any] = {
            "context": context,
            "evidence": strictjson.loads(self.attester.evidence(contexts.n2(context))),
            "statement": strictjson.loads(envelope),
            "sealed": sealed,
            "exit": {**ended.as_dict(), "refusal": self.refusal},
        }
        if self.manifest["full_log"] and self.layout.log.exists():
            body["log"] = shapes.b64_encode(self.layout.log.read_bytes()[:MAX_LOG])
        self.portal.result(body)

    def seal_outputs(self, outputs: list[sandbox.OutputFile]) -> tuple[Path, dict[str, Any]]:
        """One tar of the outputs, sealed to the egress key under a fresh data key."""
        tar_path, sealed_path = self.layout.base / "outputs.tar", self.layout.base / "outputs.sealed"
        with tarfile.open(tar_path, "x", format=tarfile.PAX_FORMAT) as tar:
            for output in outputs:
                info = tarfile.TarInfo(output.path)
                info.size, info.mode = output.size, 0o600
                with (self.layout.outputs / output.path).open("rb") as reader:
                    tar.addfile(info, reader)
        run = self.manifest["run"]
        key = seal.generate_data_key()
        with tar_path.open("rb") as source, sealed_path.open("xb") as target:
            result = seal.seal_stream(source, target, key, seal.aad_outputs(run))
        tar_path.unlink()
        egress = seal.PublicKey.from_json(self.manifest["egress"], "The egress key")
        wrapped = seal.wrap_key(key, egress, seal.info_egress_key(run))
        return sealed_path, {
            "wrapped_key": {
                "suite": egress.suite,
                "recipient": egress.id,
                "data": shapes.b64_encode(wrapped),
            },
            "sha256": result.ciphertext_sha256,
            "size": result.ciphertext_size,
        }
