"""An authority of one's own, of the shape of Google's and Microsoft's: for tests, and for fakes of their services.

Nothing that it signs is accepted by a verifier that holds the shipped trust anchors. Keys are made on first use and
kept for the process: RSA keys are slow to make.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from strongroom.evidence import Anchor, envelope

GOOGLE = "https://confidentialcomputing.googleapis.com"
AUDIENCE = "https://portal.example"
IMAGE = "sha256:" + "ab" * 32
NONCE = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
MAA = "https://sharedtest.weu.attest.azure.net"
MAA_POLICY = base64.urlsafe_b64encode(hashlib.sha256(b"policy").digest()).rstrip(b"=").decode()
HOST_DATA = "cd" * 32

_DAY = timedelta(days=1)
GONE = object()  # where a value is asked for: there is none


def key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The key of this name and length: the same one for the whole process."""
    return _made(name, bits)


@lru_cache(maxsize=64)
def _made(name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(
    header: bytes | dict[str, Any], claims: bytes | dict[str, Any], signer: rsa.RSAPrivateKey
) -> bytes:
    """A token signed with RSA and SHA-256, whatever its header says. Bytes are taken as they are."""
    parts = [
        b64url(part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode())
        for part in (header, claims)
    ]
    signed = ".".join(parts).encode()
    return signed + b"." + b64url(signer.sign(signed, PKCS1v15(), hashes.SHA256())).encode()


def jwk(signer: rsa.RSAPrivateKey, kid: str | None, **more: Any) -> dict[str, Any]:
    numbers = signer.public_key().public_numbers()
    n, e = (b64url(v.to_bytes((v.bit_length() + 7) // 8, "big")) for v in (numbers.n, numbers.e))
    named = {} if kid is None else {"kid": kid}
    return {"kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e, **named, **more}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def set_anchor(purpose: str, issuer: str, data: bytes) -> Anchor:
    return Anchor(
        purpose, f"test keys of {issuer}", hashlib.sha256(data).hexdigest(), issuer=issuer, data=data
    )


def certify(
    subject: str,
    public: Any,
    issuer: str,
    signer: Any,
    *,
    ca: bool | None,
    start: datetime,
    end: datetime,
    algorithm: Any = None,
    usage: bool = True,
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    """A certificate. `ca` None leaves basic constraints out, `usage` False leaves key usage out."""

    def name(text: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Google LLC"),
                x509.NameAttribute(NameOID.COMMON_NAME, text),
            ]
        )

    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
    builder = builder.public_key(public).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(end)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if usage:
        off = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                key_cert_sign=bool(ca),
                encipher_only=False,
                decipher_only=False,
                **off,
            ),
            critical=True,
        )
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(signer, algorithm or hashes.SHA256())


ROOT, INTERMEDIATE, LEAF = (
    "Confidential Space Root CA",
    "Confidential Space Intermediate CA",
    "Confidential Space Leaf Certificate",
)


@dataclass
class Google:
    """Google's two ways to sign a Confidential Space token.

    `start`: when the certificates begin; a root lasts ten years, a leaf sixty days. `ca_bits`: of the root's and the
    intermediate's key; Google's have 4096, which take seconds to make.
    """

    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    label: str = "google"
    ca_bits: int = 2048
    root: x509.Certificate = field(init=False)
    intermediate: x509.Certificate = field(init=False)
    leaf: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        r, i, leaf = self._key("root"), self._key("intermediate"), self._key("leaf")
        at, years = self.start, 3650 * _DAY
        self.root = certify(ROOT, r.public_key(), ROOT, r, ca=True, start=at, end=at + years)
        self.intermediate = certify(
            INTERMEDIATE, i.public_key(), ROOT, r, ca=True, start=at, end=at + 1095 * _DAY
        )
        self.leaf = certify(
            LEAF, leaf.public_key(), INTERMEDIATE, i, ca=False, usage=False, start=at, end=at + 60 * _DAY
        )

    def _key(self, role: str) -> rsa.RSAPrivateKey:
        return key(f"{self.label}-{role}", self.ca_bits if role in ("root", "intermediate") else 2048)

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """What a trust store holds to accept both forms."""
        der = self.root.public_bytes(Encoding.DER)
        root = Anchor("google-cs-root", "test root", hashlib.sha256(der).hexdigest(), data=der)
        return (root, set_anchor("google-cs-jwks", GOOGLE, self.jwks))

    @property
    def jwks(self) -> bytes:
        return key_set(jwk(self._key("oidc-old"), "0" * 40), jwk(self._key("oidc"), "d6d5" * 10))

    def pki(self, claims: bytes | dict[str, Any], *, x5c: Any = GONE, **header: Any) -> bytes:
        """A PKI token; `header` adds or replaces header members."""
        chain = x5c if x5c is not GONE else chain_of(self.leaf, self.intermediate, self.root)
        head = {
            "alg": "RS256",
            "kid": "2Ssf_M3oeNfWhYguTpKEs1lrMZNOWP6muiYLENXtC4k",
            "typ": "JWT",
            "x5c": chain,
        }
        return compact({**head, **header}, claims, self._key("leaf"))

    def oidc(self, claims: bytes | dict[str, Any], **header: Any) -> bytes:
        """An OIDC token."""
        return compact(
            {"alg": "RS256", "kid": "d6d5" * 10, "typ": "JWT", **header}, claims, self._key("oidc")
        )


def chain_of(*certificates: x509.Certificate) -> list[str]:
    return [base64.b64encode(c.public_bytes(Encoding.DER)).decode() for c in certificates]


def google_claims(now: datetime, **changes: Any) -> dict[str, Any]:
    """The claims of a production container on SEV. `changes` replace top members; see `changed` for deeper ones."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "aud": AUDIENCE,
        "exp": issued + 3600,
        "iat": issued,
        "iss": GOOGLE,
        "nbf": issued,
        "sub": "https://www.googleapis.com/compute/v1/projects/research/zones/europe-west4-a/instances/run-1",
        "eat_nonce": NONCE,
        "eat_profile": "https://cloud.google.com/confidential-computing/confidential-space/docs/reference/token-claims",
        "secboot": True,
        "oemid": 11129,
        "hwmodel": "GCP_AMD_SEV",
        "swname": "CONFIDENTIAL_SPACE",
        "swversion": ["260300"],
        "dbgstat": "disabled-since-boot",
        "submods": {
            "confidential_space": {
                "support_attributes": ["LATEST", "STABLE", "USABLE"],
                "monitoring_enabled": {"memory": False},
            },
            "container": {
                "image_reference": f"europe-docker.pkg.dev/research/runner/runner@{IMAGE}",
                "image_digest": IMAGE,
                "restart_policy": "Never",
                "image_id": "sha256:" + "12" * 32,
                "env": {"HOSTNAME": "run-1", "PATH": "/usr/bin"},
                "args": ["/opt/runner/bin/runner"],
            },
            "gce": {
                "zone": "europe-west4-a",
                "project_id": "research",
                "project_number": "660892227407",
                "instance_name": "run-1",
                "instance_id": "587736333007598652",
            },
        },
        "google_service_accounts": ["runner@research.iam.gserviceaccount.com"],
    }
    return {**claims, **changes}


def google_tdx_claims(now: datetime, **changes: Any) -> dict[str, Any]:
    tdx = {"gcp_attester_tcb_status": "UpToDate", "gcp_attester_tcb_date": "2025-03-12T00:00:00Z"}
    return google_claims(now, hwmodel="GCP_INTEL_TDX", attester_tcb=["INTEL"], tdx=tdx, **changes)


def changed(claims: dict[str, Any], path: str, value: Any = GONE) -> dict[str, Any]:
    """A copy with the member at `path` ("submods/gce/zone") replaced, or taken out."""
    result = copy.deepcopy(claims)
    *way, last = path.split("/")
    place = result
    for name in way:
        place = place[name]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return result


@dataclass
class Maa:
    """One provider of Azure Attestation, with a key whose name is made the way Microsoft makes it."""

    issuer: str = MAA
    label: str = "maa"

    @property
    def kid(self) -> str:
        numbers = key(self.label).public_key().public_numbers()
        return base64.b64encode(hashlib.sha256(str(numbers.n).encode()).digest()).decode()

    @property
    def jwks(self) -> bytes:
        return key_set(jwk(key(self.label), self.kid), jwk(key(f"{self.label}-other"), "other"))

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        return (set_anchor("maa-jwks", self.issuer, self.jwks),)

    def token(self, claims: bytes | dict[str, Any], **header: Any) -> bytes:
        head = {"alg": "RS256", "jku": f"{self.issuer}/certs", "kid": self.kid, "typ": "JWT"}
        head.update(header)
        return compact({n: v for n, v in head.items() if v is not GONE}, claims, key(self.label))


def _maa_head(now: datetime) -> dict[str, Any]:
    issued = int(now.timestamp())
    return {
        "exp": issued + 28800,
        "iat": issued,
        "iss": MAA,
        "jti": "e459730915a60e2bd37e8346f0078a84a1590a40c53006ed6c42dcd42376dd59",
        "nbf": issued,
        "x-ms-policy-hash": MAA_POLICY,
        "x-ms-ver": "1.0",
    }


def _snp(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "authorkeydigest": "00" * 48,
        "bootloader-svn": 4,
        "chip-family": "Milan",
        "familyId": "01000000000000000000000000000000",
        "guestsvn": 10,
        "hostdata": "00" * 32,
        "idkeydigest": "94" * 48,
        "imageId": "02000000000000000000000000000000",
        "is-debuggable": False,
        "launchmeasurement": "6a" * 48,
        "microcode-svn": 219,
        "migration-allowed": False,
        "reportdata": "a6" * 32 + "00" * 32,
        "reportid": "44" * 32,
        "smt-allowed": True,
        "snpfw-svn": 24,
        "tee-svn": 0,
        "vmpl": 0,
        **changes,
    }
    return {f"x-ms-sevsnpvm-{name}": value for name, value in values.items()}


def padded(nonce: str = NONCE) -> str:
    """The 64 bytes that bind, in hex: the nonce's 32, then zeros."""
    return base64.urlsafe_b64decode(nonce + "=").hex() + "00" * 32


def _runtime() -> dict[str, Any]:
    vm = {
        "console-enabled": True,
        "secure-boot": True,
        "tpm-enabled": True,
        "vmUniqueId": "ABD9EA99-D837-4F68-AD3E-C87C88006AFA",
    }
    return {
        "keys": [{"kid": "HCLAkPub", "kty": "RSA"}],
        "user-data": padded().upper(),
        "vm-configuration": vm,
    }


def maa_vm_claims(now: datetime) -> dict[str, Any]:
    """The guest of a confidential VM with SEV-SNP."""
    flags = {
        "bootdebug-enabled": False,
        "dbvalidated": True,
        "dbxvalidated": True,
        "debuggersdisabled": True,
        "flightsigning-enabled": False,
        "hypervisordebug-enabled": False,
        "kerneldebug-enabled": False,
        "signingdisabled": True,
        "testsigning-enabled": False,
        "attested-pcrs": [0, 1, 2, 3, 4, 5, 6, 7],
        "vmid": "ABD9EA99-D837-4F68-AD3E-C87C88006AFA",
    }
    machine = {
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-compliance-status": "azure-compliant-cvm",
        "x-ms-runtime": _runtime(),
        **_snp(),
    }
    return {
        **_maa_head(now),
        "secureboot": True,
        "x-ms-attestation-type": "azurevm",
        **{f"x-ms-azurevm-{name}": value for name, value in flags.items()},
        "x-ms-isolation-tee": machine,
        "x-ms-runtime": {"client-payload": {"nonce": base64.b64encode(NONCE.encode()).decode()}},
    }


def maa_flat_vm_claims(now: datetime) -> dict[str, Any]:
    """A confidential VM's hardware without its guest."""
    kind = {"x-ms-attestation-type": "sevsnpvm", "x-ms-compliance-status": "azure-compliant-cvm"}
    return {**_maa_head(now), **kind, "x-ms-runtime": _runtime(), **_snp()}


def maa_tdx_claims(now: datetime) -> dict[str, Any]:
    """A TDX machine."""
    tdx = {
        "tdx_mrtd": "0c" * 48,
        "tdx_report_data": "31" * 32 + "00" * 32,
        "tdx_td_attributes": "0000000000000000",
        "tdx_td_attributes_debug": False,
        "attester_tcb_status": "UpToDate",
        "dbgstat": "disabled",
    }
    kind = {"x-ms-attestation-type": "tdxvm", "x-ms-compliance-status": "azure-compliant-cvm"}
    return {**_maa_head(now), **kind, "x-ms-runtime": _runtime(), **tdx}


RUNTIME_DATA = json.dumps({"nonce": NONCE}).encode()
UVM_ENDORSEMENT = "x-ms-sevsnpvm-uvm-endorsement"


def maa_containers_claims(now: datetime, runtime: bytes = RUNTIME_DATA) -> dict[str, Any]:
    """A confidential container group whose report data name `runtime`."""
    kind = {"x-ms-attestation-type": "sevsnpvm", "x-ms-compliance-status": "azure-compliant-uvm"}
    report_data = hashlib.sha256(runtime).hexdigest() + "00" * 32
    return {
        **_maa_head(now),
        **kind,
        "x-ms-runtime": json.loads(runtime),
        **_snp(hostdata=HOST_DATA, reportdata=report_data, guestsvn=2),
        UVM_ENDORSEMENT: {
            "x-ms-sevsnpvm-guestsvn": "103",
            "x-ms-sevsnpvm-launchmeasurement": "6a" * 48,
        },
    }


def wrap(
    type_: str,
    token: bytes,
    now: datetime,
    *,
    parts: dict[str, bytes] | None = None,
    collateral: dict[str, bytes] | None = None,
) -> bytes:
    """An envelope with a token."""
    return envelope.build(type_, {"token": token, **(parts or {})}, collected=now, collateral=collateral)


Change = Callable[[dict[str, Any]], dict[str, Any]]
