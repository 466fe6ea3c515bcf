"""A small strict DER reader: what AMD's certificates and revocation lists need, and nothing more.

AMD's endorsement certificates (VCEK, VLEK) carry serial number 0, which RFC 5280 forbids and which `cryptography`
announces to refuse. They are read here instead; keys and signatures stay with `cryptography`.

DER has one encoding of each value (ITU-T X.690 chapter 10), and this reader refuses every other: indefinite or overlong
lengths, multi-byte tags, bytes left over. So no byte of a certificate can change without the certificate changing.
Everything here raises FormatError, and nothing else, for any input.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from strongroom.errors import FormatError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTF8_STRING, PRINTABLE_STRING, IA5_STRING = 0x0C, 0x13, 0x16
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

MAX_BYTES = 64 << 10
MAX_ELEMENTS = 4096  # of one sequence
MAX_CERTIFICATES = 16

COMMON_NAME = "2.5.4.3"
RSA_PSS = "1.2.840.113549.1.1.10"
MGF1 = "1.2.840.113549.1.1.8"
SHA384 = "2.16.840.1.101.3.4.2.2"
BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"

_TIMES = {
    UTC_TIME: re.compile(rb"\d{12}Z"),
    GENERALIZED_TIME: re.compile(rb"\d{14}Z"),
}
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")


@dataclass(frozen=True, slots=True)
class Element:
    """One value: its tag, its content, and the whole encoding with tag and length."""

    tag: int
    content: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Pss:
    """Parameters of an RSASSA-PSS signature (RFC 4055 section 3.1). Hashes by OID, the salt in bytes."""

    hash: str
    mgf_hash: str
    salt: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """An X.509 certificate. `tbs`, `issuer`, `subject` and `spki` are whole encodings; extensions by dotted OID."""

    raw: bytes
    tbs: bytes
    serial: int
    algorithm: bytes
    signature: bytes
    issuer: bytes
    issuer_cn: str
    subject: bytes
    subject_cn: str
    not_before: datetime
    not_after: datetime
    spki: bytes
    extensions: Mapping[str, bytes]
    critical: frozenset[str]

    @property
    def sha256(self) -> str:
        """Fingerprint: hex SHA-256 of the encoding."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def is_ca(self) -> bool:
        """Whether the basic constraints say that it may sign certificates, and the key usage agrees."""
        constraints = self.extensions.get(BASIC_CONSTRAINTS)
        usage = self.extensions.get(KEY_USAGE)
        if constraints is None:
            return False
        first = next(iter(items(whole(constraints, SEQUENCE))), None)
        if first is None or first.tag != BOOLEAN or first.content != b"\xff":
            return False
        return usage is None or _key_cert_sign(whole(usage, BIT_STRING).content)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A certificate revocation list; `revoked` are serial numbers of its issuer's certificates."""

    tbs: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    this_update: datetime
    next_update: datetime | None
    revoked: frozenset[int]
    critical: frozenset[str]


def read(data: bytes, offset: int = 0) -> tuple[Element, int]:
    """The value at `offset`, and the offset after it."""
    header = data[offset : offset + 2]
    if len(header) < 2:
        raise FormatError("A DER value ends before it begins.")
    tag, length, start = header[0], header[1], offset + 2
    if tag & 0x1F == 0x1F:
        raise FormatError("A DER tag has more than one byte.")
    if length & 0x80:
        count = length & 0x7F
        size = data[start : start + count]
        if not 1 <= count <= 3 or len(size) != count or size[0] == 0 or (count == 1 and size[0] < 0x80):
            raise FormatError("A DER length is not in its shortest form.")
        length, start = int.from_bytes(size), start + count
    end = start + length
    if end > len(data):
        raise FormatError("A DER value is longer than the data that hold it.")
    return Element(tag, data[start:end], data[offset:end]), end


def whole(data: bytes, tag: int) -> Element:
    """The one value that `data` is, which must have this tag."""
    element, end = read(data)
    if end != len(data):
        raise FormatError("Bytes are left over after a DER value.")
    return _expect(element, tag)


def items(element: Element) -> Iterator[Element]:
    """The values inside a constructed value."""
    offset, count = 0, 0
    while offset < len(element.content):
        item, offset = read(element.content, offset)
        count += 1
        if count > MAX_ELEMENTS:
            raise FormatError("A DER sequence has too many values.")
        yield item


def integer(element: Element) -> int:
    content = _expect(element, INTEGER).content
    if not content or (
        len(content) > 1 and content[0] in (0, 0xFF) and (content[0] ^ content[1]) & 0x80 == 0
    ):
        raise FormatError("A DER integer is not in its shortest form.")
    return int.from_bytes(content, signed=True)


def oid(element: Element) -> str:
    """Dotted form of an object identifier."""
    content = _expect(element, OID).content
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise FormatError("A DER object identifier is not complete.")
    numbers, value, fresh = [], 0, True
    for byte in content:
        if fresh and byte == 0x80:
            raise FormatError("A DER object identifier is not in its shortest form.")
        value, fresh = value << 7 | byte & 0x7F, not byte & 0x80
        if fresh:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def _expect(element: Element, *tags: int) -> Element:
    if element.tag not in tags:
        raise FormatError(f"A DER value has tag {element.tag:#04x} where {tags[0]:#04x} is due.")
    return element


class _Reader:
    """Takes the values of a sequence one after the other."""

    def __init__(self, element: Element) -> None:
        self._items = list(items(_expect(element, SEQUENCE)))
        self._next = 0

    def take(self, *tags: int) -> Element:
        if self._next == len(self._items):
            raise FormatError("A DER sequence ends too early.")
        self._next += 1
        return _expect(self._items[self._next - 1], *tags)

    def optional(self, *tags: int) -> Element | None:
        if self._next < len(self._items) and self._items[self._next].tag in tags:
            return self.take(*tags)
        return None

    def end(self) -> None:
        if self._next != len(self._items):
            raise FormatError("A DER sequence holds a value that is not known.")


def _bits(element: Element) -> bytes:
    content = _expect(element, BIT_STRING).content
    if not content or content[0] != 0:
        raise FormatError("A DER bit string does not hold whole bytes.")
    return content[1:]


def _key_cert_sign(content: bytes) -> bool:
    return len(content) >= 2 and content[0] < 8 and bool(content[1] & 0x04)  # bit 5, RFC 5280 section 4.2.1.3


def _time(element: Element) -> datetime:
    text = _expect(element, UTC_TIME, GENERALIZED_TIME).content
    if not _TIMES[element.tag].fullmatch(text):
        raise FormatError("A DER time is not in UTC to the second.")
    digits = text[:-1].decode()
    if element.tag == UTC_TIME:  # RFC 5280 section 4.1.2.5.1: 50 to 99 are of the last century
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise FormatError("A DER time does not exist.") from None


def _common_name(name: Element) -> str:
    """The one common name in a distinguished name; empty where there is none."""
    found = []
    for relative in items(_expect(name, SEQUENCE)):
        for attribute in items(_expect(relative, SET)):
            reader = _Reader(attribute)
            kind, value = oid(reader.take(OID)), reader.take(UTF8_STRING, PRINTABLE_STRING, IA5_STRING)
            reader.end()
            if kind == COMMON_NAME:
                found.append(value.content)
    if len(found) > 1:
        raise FormatError("A distinguished name has several common names.")
    try:
        return found[0].decode("utf-8") if found else ""
    except UnicodeError:
        raise FormatError("A common name is not text.") from None


def _extensions(wrapper: Element | None) -> tuple[dict[str, bytes], frozenset[str]]:
    found: dict[str, bytes] = {}
    critical = set()
    for extension in items(whole(wrapper.content, SEQUENCE)) if wrapper is not None else ():
        reader = _Reader(extension)
        name = oid(reader.take(OID))
        flag = reader.optional(BOOLEAN)
        value = reader.take(OCTET_STRING).content
        reader.end()
        if name in found:
            raise FormatError(f"A certificate has the extension {name} twice.")
        if flag is not None:
            if flag.content != b"\xff":
                raise FormatError("A DER boolean is not in its one true form.")
            critical.add(name)
        found[name] = value
    return found, frozenset(critical)


def _signed(data: bytes, what: str) -> tuple[Element, Element, bytes]:
    """The signed part, the algorithm and the signature of a certificate or list."""
    if len(data) > MAX_BYTES:
        raise FormatError(f"{what} is longer than {MAX_BYTES} bytes.")
    reader = _Reader(whole(data, SEQUENCE))
    tbs, algorithm, signature = reader.take(SEQUENCE), reader.take(SEQUENCE), _bits(reader.take(BIT_STRING))
    reader.end()
    return tbs, algorithm, signature


@lru_cache(maxsize=128)
def certificate(data: bytes) -> Certificate:
    """Read a certificate of version 3 in DER."""
    outer, algorithm, signature = _signed(data, "A certificate")
    reader = _Reader(outer)
    if integer(whole(reader.take(0xA0).content, INTEGER)) != 2:
        raise FormatError("A certificate is not of version 3.")
    serial = integer(reader.take(INTEGER))
    if reader.take(SEQUENCE).raw != algorithm.raw:
        raise FormatError("A certificate names two signature algorithms.")
    issuer, validity, subject = reader.take(SEQUENCE), _Reader(reader.take(SEQUENCE)), reader.take(SEQUENCE)
    times = [_time(validity.take(UTC_TIME, GENERALIZED_TIME)) for _ in range(2)]
    validity.end()
    spki = reader.take(SEQUENCE)
    extensions, critical = _extensions(reader.optional(0xA3))
    reader.end()
    return Certificate(
        raw=data,
        tbs=outer.raw,
        serial=serial,
        algorithm=algorithm.raw,
        signature=signature,
        issuer=issuer.raw,
        issuer_cn=_common_name(issuer),
        subject=subject.raw,
        subject_cn=_common_name(subject),
        not_before=times[0],
        not_after=times[1],
        spki=spki.raw,
        extensions=extensions,
        critical=critical,
    )


def revocation_list(data: bytes) -> RevocationList:
    """Read a certificate revocation list of version 2 in DER."""
    outer, algorithm, signature = _signed(data, "A revocation list")
    reader = _Reader(outer)
    version = reader.optional(INTEGER)
    if version is not None and integer(version) != 1:
        raise FormatError("A revocation list is not of version 2.")
    if reader.take(SEQUENCE).raw != algorithm.raw:
        raise FormatError("A revocation list names two signature algorithms.")
    issuer = reader.take(SEQUENCE)
    this_update = _time(reader.take(UTC_TIME, GENERALIZED_TIME))
    after = reader.optional(UTC_TIME, GENERALIZED_TIME)
    entries = reader.optional(SEQUENCE)
    _, critical = _extensions(reader.optional(0xA0))
    reader.end()
    revoked = {integer(_Reader(entry).take(INTEGER)) for entry in items(entries)} if entries else set()
    return RevocationList(
        tbs=outer.raw,
        algorithm=algorithm.raw,
        signature=signature,
        issuer=issuer.raw,
        this_update=this_update,
        next_update=_time(after) if after is not None else None,
        revoked=frozenset(revoked),
        critical=critical,
    )


@lru_cache(maxsize=32)
def pss(algorithm: bytes) -> Pss:
    """The parameters of an RSASSA-PSS algorithm identifier; each must be named.

    AMD writes the trailer field although 1 is its default value; both forms are read.
    """
    reader = _Reader(whole(algorithm, SEQUENCE))
    if oid(reader.take(OID)) != RSA_PSS:
        raise FormatError("A signature is not RSASSA-PSS.")
    parameters = _Reader(reader.take(SEQUENCE))
    reader.end()
    hash_ = _hash(whole(parameters.take(0xA0).content, SEQUENCE))
    mask = _Reader(whole(parameters.take(0xA1).content, SEQUENCE))
    if oid(mask.take(OID)) != MGF1:
        raise FormatError("A PSS signature does not use MGF1.")
    mgf_hash = _hash(mask.take(SEQUENCE))
    mask.end()
    salt = integer(whole(parameters.take(0xA2).content, INTEGER))
    trailer = parameters.optional(0xA3)
    if trailer is not None and integer(whole(trailer.content, INTEGER)) != 1:
        raise FormatError("A PSS signature has an unknown trailer.")
    parameters.end()
    return Pss(hash_, mgf_hash, salt)


def _hash(algorithm: Element) -> str:
    reader = _Reader(algorithm)
    name, parameters = oid(reader.take(OID)), reader.optional(NULL)
    reader.end()
    if parameters is not None and parameters.content:
        raise FormatError("A DER null is not empty.")
    return name


def unwrap(data: bytes, label: str) -> list[bytes]:
    """The DER values in `data`: itself if it is DER, else every PEM block of it, which must all have this label.

    Text outside the blocks is ignored, as RFC 7468 section 2 has it.
    """
    if len(data) > MAX_BYTES * 2:
        raise FormatError(f"More than {MAX_BYTES * 2} bytes of certificates are not read.")
    if data[:1] == b"\x30":
        return [data]
    found = _PEM.findall(data)
    if not found or data.count(b"-----BEGIN") != len(found):
        raise FormatError("The certificate is neither DER nor PEM.")
    if len(found) > MAX_CERTIFICATES or any(name.decode() != label for name, _ in found):
        raise FormatError(f"Only up to {MAX_CERTIFICATES} PEM blocks named {label} are read.")
    try:
        return [base64.b64decode(b"".join(body.split()), validate=True) for _, body in found]
    except (binascii.Error, ValueError):
        raise FormatError("A PEM block is not base64.") from None
