"""The two binary forms of the Xet protocol, as far as a receiver needs them: shards say what files are made of, xorbs hold it.

Written after the public specification (https://huggingface.co/docs/xet): numbers are little-endian, a hash is written as the
hexadecimal digits of its four 64-bit numbers.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow

ENTRY = 48
"""Bytes of a shard's header and of each of its entries."""
BOOKEND = b"\xff" * 32
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30
PLAIN, LZ4, GROUPED_LZ4 = range(3)


@dataclass(frozen=True)
class Segment:
    """The chunks `start` to `stop` (exclusive) of a xorb."""

    xorb: str
    start: int
    stop: int


@dataclass(frozen=True)
class FileEntry:
    """A file of a shard: the sha256 that its sender announces, and what it is made of."""

    sha256: str
    segments: list[Segment]


def hash_text(raw: bytes) -> str:
    """A 32-byte hash as the protocol writes it."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def files_of(shard: bytes) -> Iterator[FileEntry]:
    """The files of a shard, up to the entry that ends their section.

    Raises:
        ValueError: The shard ends in the middle, or a file does not say its sha256.
    """
    position = ENTRY
    while shard[position : position + 32] != BOOKEND:
        flags, count = struct.unpack_from("<II", shard, position + 32)
        segments = [_segment(shard, position + ENTRY * (1 + number)) for number in range(count)]
        position += ENTRY * (1 + count * (2 if flags & WITH_VERIFICATION else 1))
        if not flags & WITH_METADATA:
            raise ValueError("a file of the shard has no sha256")
        yield FileEntry(hash_text(shard[position : position + 32]), segments)
        position += ENTRY
        if position >= len(shard):
            raise ValueError("the shard ends without the entry that closes its files")


def _segment(shard: bytes, position: int) -> Segment:
    _, _, start, stop = struct.unpack_from("<IIII", shard, position + 32)
    return Segment(hash_text(shard[position : position + 32]), start, stop)


def chunks_of(xorb: Path, start: int, stop: int) -> Iterator[bytes]:
    """The content of some chunks of a xorb.

    Raises:
        ValueError: There are fewer, or one is packed in a way that the specification does not name.
    """
    with xorb.open("rb") as stream:
        for number in range(stop):
            header = stream.read(8)
            if len(header) < 8 or header[0] != 0:
                raise ValueError(f"the xorb has no chunk {number}")
            packed = stream.read(int.from_bytes(header[1:4], "little"))
            if number >= start:
                yield _unpacked(packed, header[4], int.from_bytes(header[5:8], "little"))


def _unpacked(packed: bytes, scheme: int, size: int) -> bytes:
    if scheme == PLAIN:
        return packed
    if scheme not in (LZ4, GROUPED_LZ4):
        raise ValueError(f"compression scheme {scheme}")
    content: bytes = pyarrow.decompress(packed, decompressed_size=size, codec="lz4", asbytes=True)
    if scheme == LZ4:
        return content
    whole, position = bytearray(size), 0
    for group in range(4):  # all first bytes of four, then all second ones, ...
        length = len(range(group, size, 4))
        whole[group::4] = content[position : position + length]
        position += length
    return bytes(whole)
