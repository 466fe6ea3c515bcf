"""Checkpoints, cosignatures, log proofs and salted leaves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import translog
from strongroom.errors import LogError
from strongroom.signing import SigningKey
from strongroom.translog.notes import COSIGNER_KEY, LOG_KEY

ORIGIN = "portal.example/log"
KEY = SigningKey(b"\x01" * 32)
LOG = translog.Verifier(ORIGIN, KEY.public)
WITNESS_KEY = SigningKey(b"\x02" * 32)
WITNESS = translog.Verifier("witness.example/w1", WITNESS_KEY.public, COSIGNER_KEY)
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LEAVES = [str(number).encode() for number in range(11)]
HASHES = [translog.leaf_hash(leaf) for leaf in LEAVES]
HEAD = translog.Checkpoint(ORIGIN, len(LEAVES), translog.root_from_leaves(HASHES))
SIGNED = translog.sign_checkpoint(HEAD, KEY)
PROOF = translog.format_proof(4, translog.inclusion_proof(4, 11, translog.memory_reader(HASHES)), SIGNED)


def test_the_published_example_parses() -> None:
    """The checkpoint that the specifications print. (They print no keys, so its signatures cannot be verified.)"""
    note = translog.parse_note(
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9n"
        "To+zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5"
        "nNo0xUe+mbIUBkBIfZ+qnA==\n".encode()
    )
    assert [(name, key_id.hex(), len(signature)) for name, key_id, signature in note.signatures] == [
        ("example.com/behind-the-sofa", "033de0ae", 64),
        ("witness.example.com/w1", "8d66cf3f", 72),
    ]
    assert int.from_bytes(note.signatures[1][2][:8], "big") == 1679315147


def test_verifier_key_text() -> None:
    text = translog.vkey(ORIGIN, KEY.public)
    assert translog.Verifier.parse(text) == LOG
    assert translog.Verifier.parse(str(WITNESS)) == WITNESS
    name, key_id, key = text.split("+", 2)
    for bad in (
        "", "a", "a+b", f"{name}+{key_id}", f"{name}x+{key_id}+{key}", f"{name}+00000000+{key}",
        f"{name}+{key_id.upper()}+{key}", f"{name}+{key_id}+{key[:-4]}", f"+{key_id}+{key}", f"{text} ", None, 5,
    ):  # fmt: skip
        with pytest.raises(LogError):
            translog.Verifier.parse(bad)  # type: ignore[arg-type]
    for name in ("", "a b", "a+b", "a\nb", "a\u00a0b"):
        with pytest.raises(LogError):
            translog.Verifier(name, KEY.public)
    with pytest.raises(LogError):
        translog.Verifier(ORIGIN, KEY.public, 6)


def test_the_verifier_key_of_the_go_checksum_database() -> None:
    """A key that millions of machines hold: its id is by the same rule."""
    text = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
    key = translog.Verifier.parse(text)
    assert (key.name, key.type, str(key)) == ("sum.golang.org", LOG_KEY, text)


def test_checkpoint_round_trip() -> None:
    assert translog.open_checkpoint(SIGNED, LOG) == HEAD
    empty = translog.Checkpoint(ORIGIN, 0, translog.EMPTY_ROOT)
    assert translog.open_checkpoint(translog.sign_checkpoint(empty, KEY), LOG) == empty


def test_a_checkpoint_by_another_key_or_of_another_log() -> None:
    other = SigningKey.generate()
    with pytest.raises(LogError, match="not signed by the log"):
        translog.open_checkpoint(translog.sign_checkpoint(HEAD, other), LOG)
    with pytest.raises(LogError, match="not signed by the log"):
        translog.open_checkpoint(SIGNED, translog.Verifier("other.example", KEY.public))
    with pytest.raises(LogError):
        translog.open_checkpoint(SIGNED, translog.Verifier(ORIGIN, KEY.public, COSIGNER_KEY))
    # A body of another origin under our key name: the log's key would be made to speak for another log.
    body = translog.checkpoint_body(translog.Checkpoint("evil.example", 1, bytes(32)))
    line = SIGNED.split(b"\n\n")[1].decode().split(" ")[1]
    from strongroom.shapes import b64_encode

    forged = f"{body}\n— {line} {b64_encode(LOG.key_id + KEY.sign(body.encode()))}\n".encode()
    with pytest.raises(LogError, match=r"is of the log 'evil\.example'"):
        translog.open_checkpoint(forged, LOG)


@pytest.mark.parametrize(
    "body",
    [
        f"{ORIGIN}\n011\n{'A' * 43}=\n", f"{ORIGIN}\n-1\n{'A' * 43}=\n", f"{ORIGIN}\n1\n{'A' * 43}\n",
        f"{ORIGIN}\n1\n{'A' * 43}=\nextension\n", f"{ORIGIN}\n1\n", f"\n1\n{'A' * 43}=\n", f"{ORIGIN}\n+1\n{'A' * 43}=\n",
        f"{ORIGIN}\n9223372036854775808\n{'A' * 43}=\n", f"{ORIGIN}\n1\n{'A' * 42}B=\n", f"{ORIGIN}\n\n1\n{'A' * 43}=\n",
        f"{ORIGIN}\n1 \n{'A' * 43}=\n", f"{ORIGIN}\n\u0661\n{'A' * 43}=\n",
    ],
)  # fmt: skip
def test_badly_formed_bodies_are_refused_even_when_signed(body: str) -> None:
    from strongroom.shapes import b64_encode

    note = f"{body}\n— {ORIGIN} {b64_encode(LOG.key_id + KEY.sign(body.encode()))}\n".encode()
    with pytest.raises(LogError):
        translog.open_checkpoint(note, LOG)


def test_every_flipped_bit_of_a_checkpoint() -> None:
    for position in range(len(SIGNED)):
        for bit in range(8):
            changed = bytearray(SIGNED)
            changed[position] ^= 1 << bit
            with pytest.raises(LogError):
                translog.open_checkpoint(bytes(changed), LOG)


@given(st.binary(max_size=300))
def test_garbage_notes_and_proofs(data: bytes) -> None:
    with pytest.raises(LogError):
        translog.open_checkpoint(data, LOG)
    with pytest.raises(LogError):
        translog.verify_proof(data, b"x", LOG)


def test_cosignatures() -> None:
    cosigned = translog.cosign(SIGNED, WITNESS, WITNESS_KEY, at=AT)
    assert translog.open_checkpoint(cosigned, LOG) == HEAD
    assert translog.verify_cosignatures(cosigned, [WITNESS]) == [translog.Cosignature(WITNESS.name, AT)]
    assert translog.verify_cosignatures(SIGNED, [WITNESS]) == []
    stranger = translog.Verifier(WITNESS.name, KEY.public, COSIGNER_KEY)
    assert translog.verify_cosignatures(cosigned, [stranger]) == []
    # The same key as a log key is another key: a log signature is no cosignature.
    assert translog.verify_cosignatures(cosigned, [translog.Verifier(WITNESS.name, WITNESS_KEY.public)]) == []
    with pytest.raises(LogError):
        translog.cosign(SIGNED, WITNESS, KEY, at=AT)
    with pytest.raises(LogError):
        translog.cosign(SIGNED, WITNESS, WITNESS_KEY, at=AT.replace(tzinfo=None))
    later = translog.cosign(cosigned, WITNESS, WITNESS_KEY, at=AT.replace(hour=13))
    assert translog.verify_cosignatures(later, [WITNESS])[0].at.hour == 13
    moved = cosigned.replace(b"\n11\n", b"\n12\n")
    with pytest.raises(LogError, match="witness"):
        translog.verify_cosignatures(moved, [WITNESS])


def test_proof_file() -> None:
    lines = PROOF.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1" and lines[1] == "index 4" and "" in lines
    assert translog.verify_proof(PROOF, LEAVES[4], LOG) == HEAD
    with pytest.raises(LogError, match="does not lead to the root"):
        translog.verify_proof(PROOF, LEAVES[5], LOG)
    with pytest.raises(LogError):
        translog.verify_proof(PROOF.replace(b"index 4", b"index 5"), LEAVES[4], LOG)
    with pytest.raises(LogError):
        translog.parse_proof(PROOF.replace(b"index 4", b"extra AA==\nindex 4"))
    one = translog.sign_checkpoint(translog.Checkpoint(ORIGIN, 1, HASHES[0]), KEY)
    assert translog.verify_proof(translog.format_proof(0, [], one), LEAVES[0], LOG).size == 1


def test_every_flipped_bit_of_a_proof() -> None:
    for position in range(len(PROOF)):
        changed = bytearray(PROOF)
        changed[position] ^= 1 << (position % 8)
        with pytest.raises(LogError):
            translog.verify_proof(bytes(changed), LEAVES[4], LOG)


def test_salted_leaves() -> None:
    entry, salt = {"action": "released", "data": {"statement": "a" * 64}}, bytes(range(32))
    data = translog.entry_file(entry, salt)
    opened = translog.parse_entry_file(data)
    assert (opened.entry, opened.salt) == (entry, salt)
    assert opened.leaf_data == translog.leaf_data(entry, salt)
    assert b"released" not in opened.leaf_data
    assert translog.leaf_data(entry, bytes(32)) != opened.leaf_data
    for bad in (salt[:31], salt + b"\0", b""):
        with pytest.raises(LogError, match="32 bytes"):
            translog.leaf_data(entry, bad)
    for broken in (b"", b"{}", data + b"\n", data.replace(b'"salt"', b'"sult"'), data.replace(b"1f", b"1F")):
        with pytest.raises(LogError):
            translog.parse_entry_file(broken)
