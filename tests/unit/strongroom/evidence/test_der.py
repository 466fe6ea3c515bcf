"""The DER reader: real shapes are read, every other encoding of the same thing is refused, and noise never crashes it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.evidence import der
from tests.unit.strongroom.evidence import authority_amd as amd
from tests.unit.strongroom.evidence.authority_amd import Vek, tlv


def test_an_endorsement_certificate_with_serial_number_0() -> None:
    found = der.certificate(Vek().der())
    assert (found.serial, found.subject_cn, found.issuer_cn) == (0, "SEV-VCEK", "SEV-Milan")
    assert (found.not_before, found.not_after) == (amd.NOT_BEFORE, amd.NOT_AFTER)
    assert found.extensions[amd.ARC + "4"] == amd.HWID and not found.critical and not found.is_ca
    assert found.spki == amd.spki(Vek().private)
    assert der.pss(found.algorithm) == der.Pss(der.SHA384, der.SHA384, 48)
    assert found.raw.count(found.tbs) == 1 and found.sha256 == der.certificate(Vek().der()).sha256


def test_it_reads_what_cryptography_reads() -> None:
    for raw in (amd.ark(), amd.intermediate(), Vek(serial=5).der(), Vek(serial=2**150, not_after=FAR).der()):
        theirs, ours = x509.load_der_x509_certificate(raw), der.certificate(raw)
        assert ours.tbs == theirs.tbs_certificate_bytes and ours.signature == theirs.signature
        assert ours.serial == theirs.serial_number
        assert ours.issuer == theirs.issuer.public_bytes() and ours.subject == theirs.subject.public_bytes()
        assert ours.not_before == theirs.not_valid_before_utc and ours.not_after == theirs.not_valid_after_utc
        assert ours.sha256 == theirs.fingerprint(hashes.SHA256()).hex()
        assert [e.oid.dotted_string for e in theirs.extensions] == list(ours.extensions)
        assert {e.oid.dotted_string for e in theirs.extensions if e.critical} == ours.critical
        (name,) = theirs.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert ours.subject_cn == name.value


FAR = datetime(2055, 5, 5, 5, 5, 5, tzinfo=UTC)


def test_authorities() -> None:
    assert der.certificate(amd.ark()).is_ca and der.certificate(amd.intermediate()).is_ca
    assert not der.certificate(amd.intermediate(ca=False)).is_ca
    no_usage = amd.certify("x", amd.spki(amd.rsa_key("x")), "x", amd.rsa_key("x"), serial=1, extensions=())
    assert not der.certificate(no_usage).is_ca


def test_revocation_lists() -> None:
    found = der.revocation_list(amd.crl(revoked=(3, 2**70)))
    assert found.revoked == {3, 2**70} and found.next_update == amd.NOT_AFTER and not found.critical
    assert der.revocation_list(amd.crl(next_update=None)).next_update is None
    assert der.revocation_list(amd.crl()).revoked == frozenset()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x81\x01\x00", b"\x30\x82\x00\x80" + bytes(128),
        b"\x30\x84\x00\x00\x00\x01\x00", b"\x30\x02\x00", b"\x1f\x01\x00", b"\x30\x00\x00", b"\x30\xff",
        b"\x31\x00",
    ],
)  # fmt: skip
def test_other_encodings_of_a_length_or_tag(data: bytes) -> None:
    with pytest.raises(FormatError):
        der.whole(data, der.SEQUENCE)


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\xff\x80", b"\x00\x00"])
def test_other_encodings_of_an_integer(content: bytes) -> None:
    with pytest.raises(FormatError):
        der.integer(der.whole(tlv(2, content), der.INTEGER))


@given(st.integers(-(2**80), 2**80))
def test_integers(value: int) -> None:
    assert der.integer(der.whole(tlv(2, minimal(value)), der.INTEGER)) == value


@given(st.integers(0, 2**80))
def test_integers_of_the_test_authority(value: int) -> None:
    assert der.integer(der.whole(amd.integer(value), der.INTEGER)) == value


def minimal(value: int) -> bytes:
    size = ((value if value >= 0 else ~value).bit_length() // 8) + 1
    return value.to_bytes(size, signed=True)


@pytest.mark.parametrize("content", ["", "80", "2a80", "8001", "2a8001", "2a" + "81" * 64])
def test_object_identifiers_that_are_refused(content: str) -> None:
    with pytest.raises(FormatError):
        der.oid(der.whole(tlv(6, bytes.fromhex(content)), der.OID))


@pytest.mark.parametrize(
    "dotted", ["1.3.6.1.4.1.3704.1.3.8", "2.5.29.19", "0.9.2342.1", "2.999.3", "1.2.0.128.16384"]
)
def test_object_identifiers(dotted: str) -> None:
    assert der.oid(der.whole(amd.oid(dotted), der.OID)) == dotted


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (0x17, b"2601010000Z"), (0x17, b"260101000000+0000"), (0x17, b"260101000000"), (0x17, b"261301000000Z"),
        (0x17, b"260101000060Z"), (0x18, b"20260101000000.5Z"), (0x18, b"260101000000Z"), (0x0C, b"260101000000Z"),
        (0x18, "2026०101000000Z".encode()),
    ],
)  # fmt: skip
def test_times_that_are_refused(tag: int, text: bytes) -> None:
    good = Vek().der()
    assert good.count(amd.time(amd.NOT_BEFORE)) == 1
    body = rebuilt(lambda validity: tlv(0x30, tlv(tag, text), validity[1]))
    with pytest.raises(FormatError):
        der.certificate(body)


def rebuilt(change: object) -> bytes:
    """The endorsement certificate with another validity; its signature is not looked at here."""
    tbs, algorithm, signature = der.items(der.whole(Vek().der(), der.SEQUENCE))
    parts = [item.raw for item in der.items(tbs)]
    validity = [item.raw for item in der.items(der.whole(parts[4], der.SEQUENCE))]
    parts[4] = change(validity)  # type: ignore[operator]
    return tlv(0x30, tlv(0x30, *parts), algorithm.raw, signature.raw)


def test_two_algorithms_two_versions_and_bytes_left_over() -> None:
    tbs, algorithm, signature = (item.raw for item in der.items(der.whole(Vek().der(), der.SEQUENCE)))
    parts = [item.raw for item in der.items(der.whole(tbs, der.SEQUENCE))]
    other = amd.pss_algorithm(salt=32)
    for changed in (
        tlv(0x30, tbs, other, signature),
        tlv(0x30, tbs, algorithm, signature, b"\x05\x00"),
        tlv(0x30, tbs, algorithm),
        tlv(0x30, tlv(0x30, *parts[1:]), algorithm, signature),
        tlv(0x30, tlv(0x30, tlv(0xA0, amd.integer(1)), *parts[1:]), algorithm, signature),
        tlv(0x30, tlv(0x30, *parts, b"\x05\x00"), algorithm, signature),
        tlv(0x30, tbs, algorithm, tlv(0x03, b"\x01", signature[5:])),
        Vek().der() + b"\0",
        Vek().der()[:-1],
    ):
        with pytest.raises(FormatError):
            der.certificate(changed)


@pytest.mark.parametrize(
    "extension",
    [
        tlv(0x30, amd.oid("1.2.3"), tlv(0x01, b"\x01"), tlv(0x04, b"")),
        tlv(0x30, amd.oid("1.2.3"), tlv(0x01, b"\x00"), tlv(0x04, b"")),
        tlv(0x30, amd.oid("1.2.3"), tlv(0x04, b""), tlv(0x05)),
        tlv(0x30, amd.oid("1.2.3")),
        tlv(0x30, tlv(0x04, b"")),
        amd.extension(amd.ARC + "1", b""),
    ],
)
def test_extensions_that_are_refused(extension: bytes) -> None:
    with pytest.raises(FormatError):
        der.certificate(Vek(more=(extension,)).der())


@pytest.mark.parametrize(
    "algorithm",
    [
        tlv(0x30, amd.oid("1.2.840.113549.1.1.11"), tlv(0x05)),
        tlv(0x30, amd.oid(der.RSA_PSS)),
        tlv(0x30, amd.oid(der.RSA_PSS), tlv(0x30)),
        amd.pss_algorithm().replace(amd.oid(der.MGF1), amd.oid(der.RSA_PSS)),
        amd.pss_algorithm().replace(tlv(0xA3, amd.integer(1)), tlv(0xA3, amd.integer(2))),
        amd.pss_algorithm().replace(tlv(0x05), tlv(0x04)),
    ],
)
def test_signature_parameters_that_are_refused(algorithm: bytes) -> None:
    with pytest.raises(FormatError):
        der.pss(algorithm)


def test_pem() -> None:
    one, two = amd.ark(), Vek().der()
    assert der.unwrap(one, "CERTIFICATE") == [one]
    assert der.unwrap(amd.pem(one, two), "CERTIFICATE") == [one, two]
    assert der.unwrap(b"subject=x\r\n" + amd.pem(one).replace(b"\n", b"\r\n"), "CERTIFICATE") == [one]
    good = amd.pem(one)
    for bad in (
        b"",
        b"none",
        good.replace(b"END", b"FIN"),
        good.replace(b"=\n-----END", b"\n-----END")
        if b"=\n-----END" in good
        else b"-----BEGIN CERTIFICATE-----",
        good + amd.pem(two, label="PRIVATE KEY"),
        amd.pem(*[one] * (der.MAX_CERTIFICATES + 1)),
        good + b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----",
        b"x" * (der.MAX_BYTES * 2 + 1),
    ):
        with pytest.raises(FormatError):
            der.unwrap(bad, "CERTIFICATE")


@settings(max_examples=300)
@given(st.data())
def test_changed_bytes_never_crash_it(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([Vek().der(), amd.ark(), amd.crl(revoked=(1, 2))]))
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 8)))
    changed = good[:start] + data.draw(st.binary(max_size=8)) + good[end:]
    for reader in (der.certificate, der.revocation_list):
        try:
            found = reader(changed)
        except FormatError:
            continue
        assert found.tbs in changed


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    for reader in (der.certificate, der.revocation_list, der.pss):
        with pytest.raises(FormatError):
            reader(data)
