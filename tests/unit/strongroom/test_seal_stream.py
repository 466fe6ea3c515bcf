"""Streaming encryption: our own round trips, every kind of damage, and the reference implementation both ways."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom import seal
from strongroom.errors import SealError

SEGMENT = seal.SEGMENT_SIZE
FIRST_PLAIN = SEGMENT - seal.HEADER_SIZE - seal.TAG_SIZE
OTHER_PLAIN = SEGMENT - seal.TAG_SIZE
EDGES = [
    0, 1, 1000,
    FIRST_PLAIN - 1, FIRST_PLAIN, FIRST_PLAIN + 1,
    FIRST_PLAIN + OTHER_PLAIN - 1, FIRST_PLAIN + OTHER_PLAIN, FIRST_PLAIN + OTHER_PLAIN + 1,
    7 * SEGMENT + 12345,
]  # fmt: skip
AAD = b"dataset one"


def sealed(data: bytes, key: bytes, aad: bytes = AAD) -> bytes:
    out = io.BytesIO()
    seal.seal_stream(io.BytesIO(data), out, key, aad)
    return out.getvalue()


def unsealed(data: bytes, key: bytes, aad: bytes = AAD) -> bytes:
    out = io.BytesIO()
    seal.unseal_stream(io.BytesIO(data), out, key, aad)
    return out.getvalue()


@pytest.fixture(scope="module")
def key() -> bytes:
    return seal.generate_data_key()


@pytest.mark.parametrize("size", EDGES)
def test_round_trip_and_result(key: bytes, size: int) -> None:
    data = os.urandom(size)
    out = io.BytesIO()
    result = seal.seal_stream(io.BytesIO(data), out, key, AAD)
    assert result == seal.SealResult(
        hashlib.sha256(out.getvalue()).hexdigest(),
        len(out.getvalue()),
        hashlib.sha256(data).hexdigest(),
        size,
    )
    assert result.ciphertext_size == seal.ciphertext_size(size)
    back = io.BytesIO()
    assert seal.unseal_stream(io.BytesIO(out.getvalue()), back, key, AAD) == result
    assert back.getvalue() == data


class Trickle:
    """A connection that gives a few bytes at a time and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.step = data, 0, 1

    def read(self, size: int, /) -> bytes:
        self.step = (self.step * 7 + 3) % 70_000 + 1
        piece = self.data[self.at : self.at + min(size, self.step)]
        self.at += len(piece)
        return piece


def chunks(data: bytes, step: int) -> Iterator[bytes]:
    for start in range(0, len(data), step):
        yield data[start : start + step]
        yield b""  # an empty chunk is not the end


@pytest.mark.parametrize("size", [0, 5, FIRST_PLAIN, 3 * SEGMENT])
def test_reader_over_a_connection(key: bytes, size: int) -> None:
    data = os.urandom(size)
    file = sealed(data, key)
    with seal.Unsealer(Trickle(file), key, AAD) as reader:
        assert reader.read() == data
        assert reader.result().plaintext_sha256 == hashlib.sha256(data).hexdigest()
    small = io.BufferedReader(seal.Unsealer(chunks(file, 65_537), key, AAD))
    assert b"".join(iter(lambda: small.read(1013), b"")) == data


def test_every_way_of_damaging_a_file_is_noticed(key: bytes) -> None:
    data = os.urandom(3 * SEGMENT + 100)
    file = sealed(data, key)
    segments = [file[n * SEGMENT : (n + 1) * SEGMENT] for n in range(4)]
    other = sealed(data, key)
    damaged = {
        "empty": b"",
        "half a header": file[:20],
        "only the header": file[:40],
        "cut in segment 0": file[:1000],
        "cut after segment 0": segments[0],
        "cut between segments": b"".join(segments[:3]),
        "last byte gone": file[:-1],
        "last 17 bytes gone": file[:-17],
        "appended byte": file + b"\0",
        "appended segment": file + segments[3],
        "repeated segment": segments[0] + segments[1] + segments[1] + segments[2] + segments[3],
        "reordered": segments[0] + segments[2] + segments[1] + segments[3],
        "dropped": segments[0] + segments[2] + segments[3],
        "segment of another file": segments[0] + other[SEGMENT : 2 * SEGMENT] + segments[2] + segments[3],
        "two files": file + file,
    }
    for what, broken in damaged.items():
        with pytest.raises(SealError):
            unsealed(broken, key)
            pytest.fail(f"accepted: {what}")


def test_any_flipped_bit_is_noticed(key: bytes) -> None:
    file = sealed(os.urandom(300), key)
    for position in range(len(file)):
        broken = bytearray(file)
        broken[position] ^= 1 << (position % 8)
        with pytest.raises(SealError):
            unsealed(bytes(broken), key)


@given(st.binary(max_size=200))
def test_garbage_never_opens(garbage: bytes) -> None:
    with pytest.raises(SealError):
        unsealed(garbage, b"k" * 32)


def test_wrong_key_and_wrong_associated_data(key: bytes) -> None:
    file = sealed(b"secret", key)
    with pytest.raises(SealError, match="another dataset version"):
        unsealed(file, key, b"dataset two")
    with pytest.raises(SealError):
        unsealed(file, seal.generate_data_key())
    with pytest.raises(SealError, match="32 bytes"):
        unsealed(file, key[:16])
    with pytest.raises(SealError, match="32 bytes"):
        sealed(b"", b"short")


def test_no_result_before_the_end_and_no_false_end_after_a_failure(key: bytes) -> None:
    file = sealed(os.urandom(2 * SEGMENT), key)
    reader = seal.Unsealer(io.BytesIO(file), key, AAD)
    reader.read(10)
    with pytest.raises(SealError, match="not been read to its end"):
        reader.result()
    cut = seal.Unsealer(io.BytesIO(file[:SEGMENT]), key, AAD)
    for _ in range(3):
        with pytest.raises(SealError):
            while cut.read(100_000):
                pass
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_a_failing_source_or_destination_leaves_no_thread(key: bytes) -> None:
    class Failing:
        def __init__(self) -> None:
            self.left = 5

        def read(self, size: int, /) -> bytes:
            self.left -= 1
            if not self.left:
                raise ConnectionResetError("gone")
            return b"x" * size

        def write(self, data: bytes | memoryview, /) -> int:
            self.left -= 1
            if not self.left:
                raise OSError(28, "No space left on device")
            return len(data)

    before = threading.active_count()
    with pytest.raises(ConnectionResetError):
        seal.seal_stream(Failing(), io.BytesIO(), key, AAD)
    with pytest.raises(OSError, match="No space"):
        seal.seal_stream(io.BytesIO(b"x" * 9 * SEGMENT), Failing(), key, AAD)
    with pytest.raises(OSError, match="No space"):
        seal.unseal_stream(io.BytesIO(sealed(b"x" * 9 * SEGMENT, key)), Failing(), key, AAD)
    abandoned = seal.Unsealer(io.BytesIO(sealed(b"x" * 9 * SEGMENT, key)), key, AAD)
    abandoned.read(5 * SEGMENT)
    abandoned.close()
    assert threading.active_count() == before


def test_an_unbuffered_file_that_takes_less_than_asked(key: bytes) -> None:
    class Stingy(io.RawIOBase):
        def __init__(self) -> None:
            self.got = bytearray()

        def write(self, data: memoryview, /) -> int:  # type: ignore[override]
            self.got += data[:300_000]
            return min(300_000, len(data))

    data = os.urandom(2 * SEGMENT)
    out = Stingy()
    seal.seal_stream(io.BytesIO(data), out, key, AAD)
    assert unsealed(bytes(out.got), key) == data


def test_memory_does_not_grow_with_the_file(key: bytes) -> None:
    class Zeros:
        left = 300 << 20

        def read(self, size: int, /) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    class Nowhere:
        def write(self, data: bytes | memoryview, /) -> int:
            return len(data)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seal.seal_stream(Zeros(), Nowhere(), key, AAD)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10  # KiB


class TestReferenceImplementation:
    """Google's Tink, which defines the format."""

    @pytest.fixture
    def tink_pair(self) -> tuple[object, bytes]:
        tink = pytest.importorskip("tink", reason="the reference implementation is a development dependency")
        from tink import secret_key_access, streaming_aead
        from tink.proto import aes_gcm_hkdf_streaming_pb2, tink_pb2

        streaming_aead.register()
        handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
        raw = tink.proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
        keyset = tink_pb2.Keyset.FromString(raw)
        proto = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey.FromString(keyset.key[0].key_data.value)
        assert proto.params.ciphertext_segment_size == SEGMENT
        return handle.primitive(streaming_aead.StreamingAead), proto.key_value

    @pytest.mark.parametrize("size", EDGES)
    def test_theirs_opens_here(self, tink_pair: tuple[object, bytes], size: int) -> None:
        primitive, raw = tink_pair
        data = os.urandom(size)

        class Kept(io.BytesIO):
            def close(self) -> None:
                self.kept = self.getvalue()

        out = Kept()
        with primitive.new_encrypting_stream(out, AAD) as stream:  # type: ignore[attr-defined]
            stream.write(data)
        assert unsealed(out.kept, raw) == data
        assert len(out.kept) == seal.ciphertext_size(size)

    @pytest.mark.parametrize("size", EDGES)
    def test_ours_opens_there(self, tink_pair: tuple[object, bytes], size: int) -> None:
        primitive, raw = tink_pair
        data = os.urandom(size)
        with primitive.new_decrypting_stream(io.BytesIO(sealed(data, raw)), AAD) as stream:  # type: ignore[attr-defined]
            assert stream.read() == data
