"""Frames between nodes, as bytes: what adapters of the bus that cross a network carry.

Strategy: a frame is what arrives whole or not at all. It says who has sent it and on which stream, and has a number,
which grows with each frame of its sender. It also says the number of the frame before it on its stream, so whoever has
not heard that one knows that it was lost. Its checksum tells a damaged one. What is too large for one frame goes on in
the next of the same stream.

    frame   := byte(version) bytes8(sender) bytes8(stream) varuint(number) varuint(before) byte(flags) body
               uint32le(CRC-32 of all that)
    stream  := eight zero bytes (what concerns all), or the hash of a topic
    before  := 0 for the first of a stream, as far as its sender remembers
    flags   := 1: goes on in the next frame, 2: continues the one before
    body    := item*, of all frames that belong together

    item    := 0 Said     varbytes(topic) varbytes(payload)
             | 1 Joined   hashes                               has subscribed to these
             | 2 Left     hashes                               has ended these subscriptions
             | 3 Topics   hashes                               has subscribed to these, and to no others
             | 4 Beat     varuint(subscriptions) bytes8(xor) varuint(n) n*(bytes8(stream) varuint(number))
             | 5 Ask      bytes8(node)                         introduce yourself; eight zero bytes ask every node
             | 6 Bye      empty                                leaves
    hashes  := varuint(count) count*bytes8

A topic's hash is BLAKE2b of its UTF-8 text, eight bytes. An item or a version that a node does not know is left alone
with what follows it in its body, so that nodes of two releases can be on one bus.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_bytes, encode_var_uint, read_var_bytes, read_var_uint

VERSION: Final = 1
ID_BYTES: Final = 8
COMMON: Final = bytes(ID_BYTES)
"""The stream of what concerns all nodes; as the target of ``Ask``: every node."""

MORE: Final = 1
CONTINUES: Final = 2

OVERHEAD: Final = 1 + 2 * ID_BYTES + 2 * 8 + 1 + 4
"""Bytes of a frame around its body, at most."""


class Frame(NamedTuple):
    """One frame; see the module for its fields."""

    sender: bytes
    stream: bytes
    number: int
    before: int
    flags: int
    body: bytes


class Said(NamedTuple):
    """A message on a topic."""

    topic: str
    payload: bytes


class Joined(NamedTuple):
    """The sender has subscribed to the topics with these hashes."""

    hashes: tuple[bytes, ...]


class Left(NamedTuple):
    """The sender has ended these subscriptions."""

    hashes: tuple[bytes, ...]


class Topics(NamedTuple):
    """All subscriptions of the sender."""

    hashes: tuple[bytes, ...]


class Beat(NamedTuple):
    """A sign of life: how many subscriptions the sender has, all their hashes by XOR, and how far its streams are.

    ``numbers`` has the last frame of each stream that had one lately, but not of the stream of the beat itself.
    """

    subscriptions: int
    digest: bytes
    numbers: tuple[tuple[bytes, int], ...]


class Ask(NamedTuple):
    """Ask a node, or all of them, to introduce itself: the sender knows too little of it."""

    node: bytes


class Bye(NamedTuple):
    """The sender leaves the cluster."""


Item = Said | Joined | Left | Topics | Beat | Ask | Bye


def topic_hash(topic: str) -> bytes:
    """Return the eight bytes that stand for a topic."""
    return blake2b(topic.encode(), digest_size=ID_BYTES).digest()


def encode_frame(frame: Frame) -> bytes:
    """Encode one frame."""
    numbers = encode_var_uint(frame.number) + encode_var_uint(frame.before)
    data = bytes((VERSION,)) + frame.sender + frame.stream + numbers + bytes((frame.flags,)) + frame.body
    return data + zlib.crc32(data).to_bytes(4, "little")


def sender_of(data: bytes) -> bytes:
    """Return who has sent a frame, of which nothing else was looked at."""
    return data[1 : 1 + ID_BYTES]


def decode_frame(data: bytes) -> Frame | None:
    """Decode one frame; None for one of a version that this release does not know.

    Raises:
        DecodeError: it is damaged, or no frame.
    """
    if len(data) < OVERHEAD - 14:
        raise DecodeError(f"a frame of {len(data)} bytes")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise DecodeError("a frame does not fit its checksum")
    if data[0] != VERSION:
        return None
    begin = 1 + 2 * ID_BYTES
    number, pos = read_var_uint(data, begin)
    before, pos = read_var_uint(data, pos)
    if pos + 5 > len(data):
        raise DecodeError("a frame ends in its head")
    return Frame(data[1 : 1 + ID_BYTES], data[1 + ID_BYTES : begin], number, before, data[pos], data[pos + 1 : -4])


def encode_item(item: Item) -> bytes:
    """Encode one item of a body."""
    match item:
        case Said(topic, payload):
            return b"\x00" + encode_var_bytes(topic.encode()) + encode_var_bytes(payload)
        case Joined(hashes):
            return b"\x01" + _encode_hashes(hashes)
        case Left(hashes):
            return b"\x02" + _encode_hashes(hashes)
        case Topics(hashes):
            return b"\x03" + _encode_hashes(hashes)
        case Beat(subscriptions, digest, numbers):
            pairs = b"".join([stream + encode_var_uint(number) for stream, number in numbers])
            return b"\x04" + encode_var_uint(subscriptions) + digest + encode_var_uint(len(numbers)) + pairs
        case Ask(node):
            return b"\x05" + node
        case Bye():
            return b"\x06"


def decode_items(body: bytes, topics: Mapping[bytes, str] | None = None) -> Iterator[Item]:
    """Decode the items of a body one by one, up to the first of a kind that this release does not know.

    ``topics`` has those that are listened to, by their UTF-8: what is said on others is passed over.

    Raises:
        DecodeError: a truncated item.
    """
    pos = 0
    while pos < len(body):
        kind = body[pos]
        pos += 1
        if kind == 0:
            raw, pos = read_var_bytes(body, pos)
            if topics is not None:
                topic = topics.get(raw)
                if topic is None:
                    pos = _skip_var_bytes(body, pos)
                    continue
            else:
                try:
                    topic = raw.decode()
                except UnicodeDecodeError:
                    raise DecodeError("a topic that is not UTF-8") from None
            payload, pos = read_var_bytes(body, pos)
            yield Said(topic, payload)
        elif kind in (1, 2, 3):
            hashes, pos = _read_hashes(body, pos)
            yield (Joined, Left, Topics)[kind - 1](hashes)
        elif kind == 4:
            subscriptions, pos = read_var_uint(body, pos)
            digest, pos = _read_id(body, pos)
            left, pos = read_var_uint(body, pos)
            numbers = []
            for _ in range(left):
                stream, pos = _read_id(body, pos)
                number, pos = read_var_uint(body, pos)
                numbers.append((stream, number))
            yield Beat(subscriptions, digest, tuple(numbers))
        elif kind == 5:
            node, pos = _read_id(body, pos)
            yield Ask(node)
        elif kind == 6:
            yield Bye()
        else:
            return


def cut(body: bytes, most: int) -> Iterator[tuple[int, bytes]]:
    """Cut a body into the bodies of frames of at most ``most`` bytes, each with its flags."""
    room = most - OVERHEAD
    for begin in range(0, max(len(body), 1), room):
        flags = (MORE if begin + room < len(body) else 0) | (CONTINUES if begin else 0)
        yield flags, body[begin : begin + room]


def _encode_hashes(hashes: tuple[bytes, ...]) -> bytes:
    return encode_var_uint(len(hashes)) + b"".join(hashes)


def _read_hashes(body: bytes, pos: int) -> tuple[tuple[bytes, ...], int]:
    count, pos = read_var_uint(body, pos)
    end = pos + count * ID_BYTES
    if end > len(body):
        raise DecodeError(f"{count} hashes in {len(body) - pos} bytes")
    return tuple([body[at : at + ID_BYTES] for at in range(pos, end, ID_BYTES)]), end


def _skip_var_bytes(body: bytes, pos: int) -> int:
    length, pos = read_var_uint(body, pos)
    if length > len(body) - pos:
        raise DecodeError("a length passes the end of the data")
    return pos + length


def _read_id(body: bytes, pos: int) -> tuple[bytes, int]:
    if pos + ID_BYTES > len(body):
        raise DecodeError("an item ends in the middle")
    return body[pos : pos + ID_BYTES], pos + ID_BYTES
