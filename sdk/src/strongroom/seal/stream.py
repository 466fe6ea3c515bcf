"""Streaming encryption: Tink's AES-GCM-HKDF streaming AEAD, key type AES256_GCM_HKDF_1MB.

Source: developers.google.com/tink/wire-format and developers.google.com/tink/streaming-aead/aes_gcm_hkdf_streaming.

    file     = header || segment 0 || segment 1 || ...
    header   = length (1 byte: 40) || salt (32) || nonce prefix (7)
    file key = HKDF-SHA256(ikm = data key, salt = salt, info = associated data), 32 bytes
    segment  = AES-256-GCM(file key, nonce, plaintext), no associated data of its own, 16-byte tag last
    nonce    = nonce prefix (7) || segment number (4, big-endian) || 1 in the last segment, else 0 (1)

A ciphertext segment is 2**20 bytes, except that segment 0 shares its first 2**20 bytes with the header, and that
the last may be shorter. The number and the last-flag in the nonce are what make reordered, dropped, repeated,
truncated and appended segments fail.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.errors import SealError
from strongroom.hashing import BackgroundDigest, Buffers

FORMAT = "tink-aes256-gcm-hkdf-1mb"
DATA_KEY_SIZE = 32
HEADER_SIZE = 40
SEGMENT_SIZE = 1 << 20
TAG_SIZE = 16

_SALT_SIZE = 32
_PREFIX_SIZE = 7
_FIRST = SEGMENT_SIZE - HEADER_SIZE  # ciphertext bytes of segment 0
_MAX_SEGMENTS = 1 << 32


class Source(Protocol):
    """What is read from: `read(n)` gives at most n bytes, and none only at the end. It need not seek."""

    def read(self, size: int, /) -> bytes | None: ...


class Sink(Protocol):
    """What is written to, like a binary file."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...


@dataclass(frozen=True, slots=True)
class SealResult:
    """Digests (lower-case hex SHA-256) and sizes (bytes) of the whole ciphertext and the whole plaintext."""

    ciphertext_sha256: str
    ciphertext_size: int
    plaintext_sha256: str
    plaintext_size: int


def generate_data_key() -> bytes:
    """A fresh 32-byte data key from the system's random source."""
    return os.urandom(DATA_KEY_SIZE)


def ciphertext_size(plaintext_size: int) -> int:
    """The size in bytes of the sealed file for a plaintext of `plaintext_size` bytes."""
    first, other = _FIRST - TAG_SIZE, SEGMENT_SIZE - TAG_SIZE
    segments = 1 if plaintext_size <= first else 1 + -(-(plaintext_size - first) // other)
    return HEADER_SIZE + plaintext_size + segments * TAG_SIZE


def seal_stream(src: Source, dst: Sink, key: bytes, aad: bytes) -> SealResult:
    """Encrypt all of `src` into `dst` in constant memory.

    `key` is the 32-byte data key, `aad` the associated data that unsealing must repeat (see `aad_dataset`). `dst`
    must have used each block when its `write` returns: the buffer is reused.
    Raises SealError for a wrong key length or more than 2**32 segments (4 PiB); errors of src and dst pass through.
    """
    salt, prefix = os.urandom(_SALT_SIZE), os.urandom(_PREFIX_SIZE)
    cipher = _file_cipher(key, salt, aad)
    plain, sealed = BackgroundDigest(), BackgroundDigest()
    inputs, outputs = Buffers(SEGMENT_SIZE), Buffers(SEGMENT_SIZE)
    try:
        header = bytes([HEADER_SIZE]) + salt + prefix
        sealed.update(header)
        _write(dst, header)
        segments = _segments(src, inputs, _FIRST - TAG_SIZE, SEGMENT_SIZE - TAG_SIZE)
        for number, last, buffer, size in segments:
            block = buffer[:size]
            plain.update(block, buffer, inputs)
            whole = outputs.take()
            segment = whole[: size + TAG_SIZE]
            cipher.encrypt_into(_nonce(prefix, number, last), block, None, segment)
            _write(dst, segment)
            sealed.update(segment, whole, outputs)
        return SealResult(*sealed.finish(), *plain.finish())
    finally:
        plain.close()
        sealed.close()


def unseal_stream(src: Source | Iterable[bytes], dst: Sink, key: bytes, aad: bytes) -> SealResult:
    """Decrypt all of `src` (a reader, or an iterable of chunks) into `dst` in constant memory.

    Each segment is authentic before it is written, but that the file is *whole* is only known at the end:
    on SealError throw away what `dst` has received. `dst` must have used each block when its `write` returns.
    """
    with Unsealer(src, key, aad) as reader:
        return reader.copy_to(dst)


class Unsealer(io.RawIOBase):
    """The plaintext of a sealed stream as a readable, non-seekable binary file.

    `src` is anything with `read(n)`, or an iterable of bytes such as `httpx.Response.iter_bytes()`: it is read
    forwards once and never seeked. Wrap it in `io.BufferedReader` for many small reads. A read raises SealError
    as soon as something does not fit; a truncated file is noticed at its end, so nothing derived from the data
    may be used before the reader has reached the end or `result()` has returned.
    """

    def __init__(self, src: Source | Iterable[bytes], key: bytes, aad: bytes) -> None:
        super().__init__()
        self._src: Source = src if hasattr(src, "read") else _Chunks(src)  # type: ignore[assignment]
        _check_key(key)
        self._key, self._aad = bytes(key), bytes(aad)
        self._plain, self._sealed = BackgroundDigest(), BackgroundDigest()
        self._iterator: Iterator[memoryview] | None = None
        self._rest = memoryview(b"")
        self._result: SealResult | None = None

    def copy_to(self, dst: Sink) -> SealResult:
        """Write all the plaintext that has not been read yet to `dst`: the fastest way to the end."""
        while block := self._next():
            _write(dst, block)
        return self.result()

    def result(self) -> SealResult:
        """Digests and sizes, once everything has been read and proved whole. Raises SealError before that."""
        if self._result is None:
            raise SealError("The sealed stream has not been read to its end, so it is not known to be whole.")
        return self._result

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self.closed:
            raise ValueError("read of a closed sealed stream")
        block = self._next()
        count = min(len(buffer), len(block))
        buffer[:count] = block[:count]
        self._rest = block[count:]
        return count

    def close(self) -> None:
        if not self.closed and hasattr(self, "_result"):
            self._plain.close()
            self._sealed.close()
            self._rest = memoryview(b"")
        super().close()

    def _next(self) -> memoryview:
        """What is left of the block at hand, or the next one; empty at the proven end."""
        if self._iterator is None:
            self._iterator = self._decrypt()
        block, self._rest = self._rest, memoryview(b"")
        while not block:  # a loop, as an empty plaintext is one empty segment
            following = next(self._iterator, None)
            if following is None:
                self.result()  # a read after a failure must raise, not look like the end of the file
                break
            block = following
        return block

    def _decrypt(self) -> Iterator[memoryview]:
        header = bytearray(HEADER_SIZE)
        if _fill(self._src, memoryview(header)) < HEADER_SIZE:
            raise SealError("The sealed file is cut short: it ends inside its header. Fetch it again.")
        if header[0] != HEADER_SIZE:
            raise SealError("This is not a sealed file: its header does not have the expected form.")
        self._sealed.update(bytes(header))
        salt, prefix = bytes(header[1 : 1 + _SALT_SIZE]), bytes(header[1 + _SALT_SIZE :])
        cipher = _file_cipher(self._key, salt, self._aad)
        inputs, outputs = Buffers(SEGMENT_SIZE), Buffers(SEGMENT_SIZE)
        for number, last, buffer, size in _segments(self._src, inputs, _FIRST, SEGMENT_SIZE):
            if size < TAG_SIZE:
                raise SealError("The sealed file is cut short. Fetch it again.")
            segment = buffer[:size]
            self._sealed.update(segment, buffer, inputs)
            whole = outputs.take()
            block = whole[: size - TAG_SIZE]
            try:
                cipher.decrypt_into(_nonce(prefix, number, last), segment, None, block)
            except InvalidTag:
                raise SealError(_refusal(number)) from None
            yield block
            self._plain.update(block, whole, outputs)
        self._result = SealResult(*self._sealed.finish(), *self._plain.finish())


class _Chunks:
    """An iterable of bytes as a reader."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def read(self, size: int, /) -> bytes:
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])


def _refusal(number: int) -> str:
    if number == 0:
        return (
            "The sealed file cannot be opened: the key is another one, it belongs to another dataset version or run, "
            "or its beginning was changed. Check that file, key and version belong together, then fetch it again."
        )
    return (
        f"The sealed file was changed or cut short near megabyte {number}: its bytes there are not the sealed ones. "
        "Discard what was read and fetch it again."
    )


def _check_key(key: bytes) -> None:
    if len(key) != DATA_KEY_SIZE:
        raise SealError(f"A data key has {DATA_KEY_SIZE} bytes; this one has {len(key)}.")


def _file_cipher(key: bytes, salt: bytes, aad: bytes) -> AESGCM:
    _check_key(key)
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=aad).derive(key))


def _nonce(prefix: bytes, number: int, last: bool) -> bytes:
    if number >= _MAX_SEGMENTS:
        raise SealError("The data is larger than one sealed file can hold (4 PiB). Split it.")
    return prefix + number.to_bytes(4, "big") + (b"\x01" if last else b"\x00")


def _segments(
    src: Source, buffers: Buffers, first: int, other: int
) -> Iterator[tuple[int, bool, memoryview, int]]:
    """(number, is last, buffer, bytes in it) of each segment; whoever receives a buffer gives it back.

    One segment is read ahead, because only the end of src tells which segment is the last.
    """
    number, limit = 0, first
    buffer = buffers.take()
    size = _fill(src, buffer[:limit])
    while True:
        ahead, ahead_size = buffer, 0
        if size == limit:
            ahead = buffers.take()
            ahead_size = _fill(src, ahead[:other])
        yield number, ahead_size == 0, buffer, size
        if ahead_size == 0:
            return
        number, limit, buffer, size = number + 1, other, ahead, ahead_size


def _fill(src: Source, buffer: memoryview) -> int:
    """Fill `buffer` from src; returns less than its length at the end of src only."""
    readinto = getattr(src, "readinto", None)
    have = 0
    while have < len(buffer):
        if readinto is not None:
            count = readinto(buffer[have:]) or 0
        else:
            block = src.read(len(buffer) - have) or b""
            count = len(block)
            buffer[have : have + count] = block
        if not count:
            break
        have += count
    return have


def _write(dst: Sink, data: bytes | memoryview) -> None:
    """Write all of `data`, also to an unbuffered file that takes less than asked."""
    view = memoryview(data)
    while view:
        written = dst.write(view)
        if written is None and not isinstance(dst, io.RawIOBase):  # a simple sink that takes everything
            return
        if not written:
            raise SealError("The destination stopped taking bytes. Check the free space and try again.")
        view = view[written:]
