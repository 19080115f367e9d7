"""Walk over structs that have been read before, and cut one.

Strategy: the reader has validated these bytes and does not remember single structs, for nearly
nobody needs them: joining and diffing move whole runs, and only the struct in which a clock falls is
cut. So walking reads a run a second time, at most from one mark to the next, and trusts what it finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.reader import (
    ANY,
    BINARY,
    DELETED,
    EMBED,
    FORMAT,
    GC,
    JSON,
    SKIP,
    STRING,
    TYPE,
    skip_any,
)

_ALL = 1 << 62

# Bytes of a text in which a place is looked for at once, and above which its length is counted in another way.
_TEXT: Final = 16 * 1024
# What yjs writes for the half of a surrogate pair, and the first bytes of characters that are a pair in UTF-16.
_HALF: Final = "\ufffd".encode()
_FIRSTS_OF_FOUR: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")


class Struct(NamedTuple):
    """Where one struct and its fields lie: ``data[start:stop]``.

    ``info`` is its first byte and ``kind`` the low five bits of it; ``length`` is in clocks (UTF-16 units of a
    string). ``origin`` and ``right`` are ids as (client, clock) or None. ``references`` is the offset behind
    the info byte, ``parent`` the offset behind both origins, ``content`` the offset of the content
    (behind the parent and its key); for GC and Skip all three are the offset of the length.
    """

    info: int
    kind: int
    clock: int
    length: int
    start: int
    references: int
    parent: int
    content: int
    stop: int
    origin: tuple[int, int] | None
    right: tuple[int, int] | None


def walk(data: bytes, start: int, stop: int, clock: int) -> Iterator[Struct]:
    """Yield the structs in ``data[start:stop]``, the first of which has ``clock``.

    The bytes must come from an update that `reader.read_update` took; others raise IndexError or
    UpdateError, or yield nonsense.
    """
    pos = start
    while pos < stop:
        begin = pos
        info = data[pos]
        pos += 1
        kind = info & 31
        references = pos
        origin = right = None
        if kind in (GC, SKIP):
            parent = content = pos
            length, pos = read_var_uint(data, pos)
        else:
            if info & 128:
                client, pos = read_var_uint(data, pos)
                other, pos = read_var_uint(data, pos)
                origin = (client, other)
            if info & 64:
                client, pos = read_var_uint(data, pos)
                other, pos = read_var_uint(data, pos)
                right = (client, other)
            parent = pos
            if not info & 192:
                named, pos = read_var_uint(data, pos)
                if named:
                    pos = _behind(data, pos)
                else:
                    _, pos = read_var_uint(data, pos)
                    _, pos = read_var_uint(data, pos)
                if info & 32:
                    pos = _behind(data, pos)
            content = pos
            length = 1
            if kind == STRING:
                size, pos = read_var_uint(data, pos)
                length = utf16_length(data[pos : pos + size])
                pos += size
            elif kind == DELETED:
                length, pos = read_var_uint(data, pos)
            elif kind == ANY:
                length, pos = read_var_uint(data, pos)
                pos = skip_any(data, pos, [length], _ALL)
            elif kind == JSON:
                length, pos = read_var_uint(data, pos)
                for _ in range(length):
                    pos = _behind(data, pos)
            elif kind == FORMAT:
                pos = _behind(data, _behind(data, pos))
            elif kind in (EMBED, BINARY):
                pos = _behind(data, pos)
            elif kind == TYPE:
                ref, pos = read_var_uint(data, pos)
                if ref == 3 or ref == 5:
                    pos = _behind(data, pos)
            else:  # a subdocument
                pos = skip_any(data, _behind(data, pos), [1], _ALL)
        yield Struct(info, kind, clock, length, begin, references, parent, content, pos, origin, right)
        clock += length


def cut_struct(data: bytes, struct: Struct, client: int, offset: int) -> bytes:
    """Encode the right part of a struct; see `cut_head`, of which this is both parts together."""
    head, pos = cut_head(data, struct, client, offset)
    return head + data[pos : struct.stop]


def cut_head(data: bytes, struct: Struct, client: int, offset: int) -> tuple[bytes, int]:
    """Encode how the right part of a struct of ``client`` begins, from ``offset`` (1 to its length - 1) clocks into it.

    Returns that beginning, of some 50 bytes at most, and the position in ``data`` from which the struct goes on as it
    is: so a string of megabytes that is cut is not copied.

    The part's origin is the clock before it; the right origin and the content are the struct's own. When the cut
    falls into a surrogate pair, the part begins with U+FFFD (yjs ``ContentString.write`` slices in UTF-16
    units, and ``TextEncoder`` writes the half as that).
    """
    left = struct.length - offset
    if struct.kind == GC or struct.kind == SKIP:
        return bytes((struct.info,)) + encode_var_uint(left), struct.stop
    head = bytes((struct.info | 128,)) + encode_var_uint(client) + encode_var_uint(struct.clock + offset - 1)
    if struct.right is not None:
        head += encode_var_uint(struct.right[0]) + encode_var_uint(struct.right[1])
    pos = struct.content
    if struct.kind == DELETED:
        return head + encode_var_uint(left), struct.stop
    if struct.kind == STRING:
        _, pos = read_var_uint(data, pos)
        half, pos = _behind_units(data, pos, struct.stop, offset)
        return head + encode_var_uint(len(half) + struct.stop - pos) + half, pos
    count, pos = read_var_uint(data, pos)
    if struct.kind == JSON:
        for _ in range(offset):
            pos = _behind(data, pos)
    else:
        pos = skip_any(data, pos, [offset], _ALL)
    return head + encode_var_uint(count - offset), pos


def _behind_units(data: bytes, pos: int, stop: int, units: int) -> tuple[bytes, int]:
    """Find the position behind so many UTF-16 units of the UTF-8 text ``data[pos:stop]``.

    Returns what stands for the half of a pair that is cut, if one is, and the position. Looks at no more of the text
    than it passes, in blocks, for texts may be long.
    """
    while True:
        end = min(pos + _TEXT, stop)
        while end < stop and data[end] & 0xC0 == 0x80:
            end += 1
        text = data[pos:end]
        length = utf16_length(text)
        if length > units or (length == units and end == stop):
            break
        pos, units = end, units - length
    if text.isascii():
        return b"", pos + units
    left = text.decode().encode("utf-16-le")[: 2 * units].decode("utf-16-le", "ignore").encode()
    pos += len(left)
    if utf16_length(left) == units:
        return b"", pos
    return _HALF, pos + 4


def cut_text(text: bytes, offset: int) -> bytes:
    """Return UTF-8 ``text`` without its first ``offset`` UTF-16 units; a halved pair leaves U+FFFD."""
    half, pos = _behind_units(text, 0, len(text), offset)
    return half + text[pos:]


def utf16_length(text: bytes) -> int:
    """Return how many UTF-16 units, hence clocks, UTF-8 ``text`` has."""
    if text.isascii():
        return len(text)
    if len(text) < _TEXT:
        return len(text.decode().encode("utf-16-le")) >> 1
    return len(text.decode()) + sum(map(text.count, _FIRSTS_OF_FOUR))


def suffix(data: bytes, start: int, stop: int, clock: int, client: int, known: int) -> tuple[int, bytes, int]:
    """Find what ``data[start:stop]``, structs of ``client`` from ``clock`` on, holds from ``known`` on.

    Returns how many structs end at or before ``known``, how the one that it cuts begins then (`cut_head`; empty if it
    falls between two, else this one counts as passed too), and the offset from which the bytes are as they were.
    """
    if known <= clock:
        return 0, b"", start
    for ordinal, struct in enumerate(walk(data, start, stop, clock), 1):
        end = struct.clock + struct.length
        if end == known:
            return ordinal, b"", struct.stop
        if end > known:
            return ordinal, *cut_head(data, struct, client, known - struct.clock)
    raise ValueError(f"clock {known} lies behind these structs")


def _behind(data: bytes, pos: int) -> int:
    """Return the position behind a varString or varUint8Array."""
    length, pos = read_var_uint(data, pos)
    return pos + length
