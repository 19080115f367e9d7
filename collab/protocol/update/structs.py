"""Walk over structs that have been read before, and cut one.

Strategy: the reader has validated these bytes and does not remember single structs, for nearly
nobody needs them: joining and diffing move whole runs, and only the struct in which a clock falls is
cut. So walking reads a run a second time, at most from one mark to the next, and trusts what it finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.protocol.update.reader import (
    ANY,
    BINARY,
    DELETED,
    DOC,
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
            elif kind == DOC:
                pos = skip_any(data, _behind(data, pos), [1], _ALL)
        yield Struct(info, kind, clock, length, begin, references, parent, content, pos, origin, right)
        clock += length


def cut_struct(data: bytes, struct: Struct, client: int, offset: int) -> bytes:
    """Encode the right part of a struct of ``client``, from ``offset`` (1 to its length - 1) clocks into it.

    The part's origin is the clock before it; the right origin and the content are the struct's own. When the cut
    falls into a surrogate pair, the part begins with U+FFFD (yjs ``ContentString.write`` slices in UTF-16
    units, and ``TextEncoder`` writes the half as that).
    """
    left = struct.length - offset
    if struct.kind == GC or struct.kind == SKIP:
        return bytes((struct.info,)) + encode_var_uint(left)
    pos = struct.content
    if struct.kind == DELETED:
        content = encode_var_uint(left)
    elif struct.kind == STRING:
        size, pos = read_var_uint(data, pos)
        text = cut_text(data[pos : pos + size], offset)
        content = encode_var_uint(len(text)) + text
    else:
        count, pos = read_var_uint(data, pos)
        if struct.kind == JSON:
            for _ in range(offset):
                pos = _behind(data, pos)
        else:
            pos = skip_any(data, pos, [offset], _ALL)
        content = encode_var_uint(count - offset) + data[pos : struct.stop]
    head = bytes((struct.info | 128,)) + encode_var_uint(client) + encode_var_uint(struct.clock + offset - 1)
    if struct.right is not None:
        head += encode_var_uint(struct.right[0]) + encode_var_uint(struct.right[1])
    return head + content


def cut_text(text: bytes, offset: int) -> bytes:
    """Return UTF-8 ``text`` without its first ``offset`` UTF-16 units; a halved pair leaves U+FFFD."""
    if text.isascii():
        return text[offset:]
    return text.decode().encode("utf-16-le")[2 * offset :].decode("utf-16-le", "replace").encode()


def utf16_length(text: bytes) -> int:
    """Return how many UTF-16 units, hence clocks, UTF-8 ``text`` has."""
    if text.isascii():
        return len(text)
    return len(text.decode().encode("utf-16-le")) >> 1


def suffix(data: bytes, start: int, stop: int, clock: int, client: int, known: int) -> tuple[int, bytes, int]:
    """Find what ``data[start:stop]``, structs of ``client`` from ``clock`` on, holds from ``known`` on.

    Returns how many structs end at or before ``known``, the encoded right part of the one that it
    cuts (empty if it falls between two, else this counts as passed too), and the offset behind
    all those.
    """
    if known <= clock:
        return 0, b"", start
    for ordinal, struct in enumerate(walk(data, start, stop, clock), 1):
        end = struct.clock + struct.length
        if end == known:
            return ordinal, b"", struct.stop
        if end > known:
            return ordinal, cut_struct(data, struct, client, known - struct.clock), struct.stop
    raise ValueError(f"clock {known} lies behind these structs")


def _behind(data: bytes, pos: int) -> int:
    """Return the position behind a varString or varUint8Array."""
    length, pos = read_var_uint(data, pos)
    return pos + length
