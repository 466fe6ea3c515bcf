"""Microsoft's endorsement of the utility VM that runs confidential containers: which launch measurement is genuine.

A COSE_Sign1 under PS384. Its issuer is a did:x509: the fingerprint of a root and an extended key usage that the signer
must have. Two layouts are in use, and both are read:

- `iss` and `feed` as header names of their own; the payload is JSON with the measurement and the svn;
- from ContainerPlat 0.2.10 on, CWT claims (RFC 9597) with issuer, subject (the feed) and `svn`; the payload is the
  JSON, or the bare measurement where the header says that it is a hash.

The signer's certificate lives about a year and the endorsement longer, so the certificate is judged at the signing
time that the signature covers (the header `signingtime`, or the CWT claim `iat`); the authorities above it at `now`.
RFC 3161 time stamps beside it are not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from strongroom import shapes, strictjson
from strongroom.errors import FormatError
from strongroom.evidence import cbor, cose
from strongroom.evidence.cose import Sign1
from strongroom.evidence.trust import Trust

FEED = "ContainerPlat-AMD-UVM"
PURPOSE = "1.3.6.1.4.1.311.76.59.1.2"
MEASUREMENT_SIZE = 48

_ISS, _SUB, _IAT = 1, 2, 6  # CWT claims (RFC 8392 section 3.1)
_HASH_ALG, _HASHED_TYPES = (
    258,
    (259, 300),
)  # draft-ietf-cose-hash-envelope; 300 before the number was assigned
_SHA384 = -43
_EPOCH_TAG = 1
# Unprotected headers with an RFC 3161 time stamp: Microsoft's own, and those of RFC 9921.
_TIME_STAMPS = frozenset(("timestamp", 269, 270))
_CLOCK_SKEW = timedelta(seconds=60)
_DIGITS = re.compile(r"0|[1-9][0-9]{0,8}")
_MEASUREMENT = re.compile(r"[0-9a-f]{96}")
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """What the endorsement says: `measurement` of the utility VM, its security version, and who says so.

    `time_stamp`: it came with an RFC 3161 time stamp, which was not read.
    """

    measurement: bytes
    svn: int
    feed: str
    issuer: str
    signed_at: datetime | None
    time_stamp: bool


def verify(data: bytes, *, now: datetime, trust: Trust) -> Endorsement:
    """The endorsement, if Microsoft made it as far as `trust` says who that is.

    Raises FormatError with a sentence that says what is wrong.
    """
    message = cose.parse(data)
    if message.header.get(cose.ALG) != cose.PS384:
        raise FormatError("The endorsement is not signed with PS384.")
    chain = cose.chain(message)
    found = _content(message)
    fingerprint = _root(chain, trust)
    wanted = f"did:x509:0:sha256:{shapes.b64url_encode(fingerprint)}::eku:{PURPOSE}"
    if found.issuer != wanted:
        raise FormatError(f"The endorsement names the issuer {found.issuer[:300]!r} and not {wanted}.")
    if PURPOSE not in cose.purposes(chain[0]):
        raise FormatError("The signer's certificate is not for endorsing utility VMs.")
    if found.feed != FEED:
        raise FormatError(f"The endorsement is of the feed {found.feed[:100]!r} and not {FEED}.")
    if not cose.signed(message, chain[0]):
        raise FormatError(
            "The signature of the endorsement does not match: it was changed, or another key made it."
        )
    _check_times(chain, found.signed_at, now)
    return found


def _root(chain: list[x509.Certificate], trust: Trust) -> bytes:
    """The fingerprint of the authority in the chain that the trust store pins."""
    pinned = trust.fingerprints("uvm-root")
    for authority in chain[1:]:
        fingerprint = authority.fingerprint(hashes.SHA256())
        if fingerprint.hex() in pinned:
            return fingerprint
    raise FormatError("The endorsement does not lead to a pinned authority for utility VMs.")


def _check_times(chain: list[x509.Certificate], signed_at: datetime | None, now: datetime) -> None:
    if signed_at is not None and signed_at > now + _CLOCK_SKEW:
        raise FormatError(f"The endorsement was signed at {shapes.format_time(signed_at)}, which is not yet.")
    for certificate, at in ((chain[0], signed_at or now), *((authority, now) for authority in chain[1:])):
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise FormatError(f"A certificate of the endorsement is not valid at {shapes.format_time(at)}.")


def _content(message: Sign1) -> Endorsement:
    issuer, feed, svn = _names(message.header)
    kind = _content_type(message.header)
    if kind == _JSON:
        measurement, said = _payload(message.payload)
        if svn is not None and said != svn:
            raise FormatError("The endorsement names two security versions.")
        svn = said
    elif len(message.payload) == MEASUREMENT_SIZE and message.header.get(_HASH_ALG, _SHA384) == _SHA384:
        measurement = message.payload
    else:
        raise FormatError("The payload of the endorsement is neither JSON nor a measurement.")
    if svn is None:
        raise FormatError("The endorsement names no security version.")
    stamped = not _TIME_STAMPS.isdisjoint(message.unsigned)
    return Endorsement(measurement, svn, feed, issuer, _signing_time(message.header), stamped)


def _names(header: dict[int | str, Any]) -> tuple[str, str, int | None]:
    """Issuer, feed and, in the newer layout, security version."""
    if cose.CWT_CLAIMS not in header:
        return _text(header.get("iss"), "iss"), _text(header.get("feed"), "feed"), None
    claims = header[cose.CWT_CLAIMS]
    if not isinstance(claims, dict) or "iss" in header or "feed" in header:
        raise FormatError("The endorsement names its issuer in two ways, or in none.")
    svn = claims.get("svn")
    return (
        _text(claims.get(_ISS), "issuer"),
        _text(claims.get(_SUB), "subject"),
        None if svn is None else _svn(svn),
    )


def _content_type(header: dict[int | str, Any]) -> str:
    found = [header[name] for name in (cose.CONTENT_TYPE, *_HASHED_TYPES) if name in header]
    if len(found) != 1:
        raise FormatError("The endorsement must name the type of its payload once.")
    return _text(found[0], "content type")


def _payload(payload: bytes) -> tuple[bytes, int]:
    document = shapes.pick(
        strictjson.loads(payload, max_bytes=64 << 10, what="The payload of the endorsement"),
        "The payload of the endorsement",
        {"x-ms-sevsnpvm-launchmeasurement": shapes.text(96, 96), "x-ms-sevsnpvm-guestsvn": shapes.anything},
    )
    measurement = document["x-ms-sevsnpvm-launchmeasurement"]
    if not _MEASUREMENT.fullmatch(measurement):
        raise FormatError("The measurement in the endorsement is not 48 bytes in lower-case hex.")
    return bytes.fromhex(measurement), _svn(document["x-ms-sevsnpvm-guestsvn"])


def _svn(value: Any) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return int(shapes.whole(0, 999_999_999)(value, "The security version in the endorsement"))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"The endorsement's {name} is not text.")
    return value


def _signing_time(header: dict[int | str, Any]) -> datetime | None:
    claims = header.get(cose.CWT_CLAIMS, {})
    found = [time for time in (header.get("signingtime"), claims.get(_IAT)) if time is not None]
    if not found:
        return None
    if len(found) > 1:
        raise FormatError("The endorsement names its signing time in two ways.")
    (value,) = found
    if isinstance(value, cbor.Tag) and value.number == _EPOCH_TAG:
        value = value.value
    seconds = shapes.whole(0, 253_402_300_799)(value, "The signing time of the endorsement")
    return datetime.fromtimestamp(seconds, UTC)
