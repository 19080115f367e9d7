"""Say what one update holds, for people: how many structs of which kind, of whom, and what it deletes.

Strategy: the update is read as on its way in, and then walked over struct by struct, in slices. No value is decoded but
the beginnings of its strings.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

from collab.protocol.lib0 import read_var_uint
from collab.update import reader
from collab.update.reader import GC, SKIP, STRING, UpdateReader
from collab.update.structs import Struct, walk

KINDS: Final = {
    reader.GC: "gc",
    reader.DELETED: "deleted",
    reader.JSON: "json",
    reader.BINARY: "binary",
    reader.STRING: "string",
    reader.EMBED: "embed",
    reader.FORMAT: "format",
    reader.TYPE: "type",
    reader.ANY: "any",
    reader.DOC: "doc",
    reader.SKIP: "skip",
}
"""The names of the kinds of content of structs."""

MAX_CLIENTS: Final = 50
"""Clients that are listed of one update."""

MAX_ROOTS: Final = 20
"""Roots that are named of one update, and characters that are shown of a name."""

MAX_TEXT: Final = 200
"""Characters that are shown of the strings of one update."""

_MAX_NAME: Final = 100

# Structs that are walked over between two yields: about half a millisecond.
_SLICE: Final = 200


class Share(NamedTuple):
    """What an update holds of one client: clocks from ``start`` to ``end`` (exclusive), in so many structs."""

    client: int
    start: int
    end: int
    structs: int


class Outline(NamedTuple):
    """What an update holds.

    Attributes:
        structs: how many there are of each of ``KINDS``, and their clocks.
        shares: of whom they are, ``MAX_CLIENTS`` at most.
        clients: of how many clients they are.
        roots: the names of roots under which they lie, as far as they say so themselves; ``MAX_ROOTS`` at most.
        text: the beginning of their strings.
        deleting: how many clients have something deleted by it.
        ranges, deleted: how many ranges of clocks that is, and how many clocks.
    """

    structs: dict[str, tuple[int, int]]
    shares: list[Share]
    clients: int
    roots: list[str]
    text: str
    deleting: int
    ranges: int
    deleted: int


def outline(data: bytes) -> Generator[None, None, Outline]:
    """Say what an update (v1) holds; a generator that yields about every millisecond.

    Raises ``UpdateError`` for bytes that are no update.
    """
    reading = UpdateReader(data, stored=True)
    while not reading.step():
        yield
    update = reading.result
    counts: dict[int, list[int]] = {}
    shares: dict[int, list[int]] = {}
    roots: dict[str, None] = {}
    text: list[str] = []
    left, work = MAX_TEXT, 0
    for section in update.sections:
        share = shares.setdefault(section.client, [section.clock, section.end, 0])
        share[1] = section.end
        share[2] += section.count
        for struct in walk(data, section.start, section.stop, section.clock):
            counted = counts.setdefault(struct.kind, [0, 0])
            counted[0] += 1
            counted[1] += struct.length
            if len(roots) < MAX_ROOTS and (root := _root(data, struct)) is not None:
                roots[root] = None
            if struct.kind == STRING and left > 0:
                size, begin = read_var_uint(data, struct.content)
                # Four bytes a character at the most; one that is cut is left out.
                shown = data[begin : begin + min(size, 4 * left)].decode(errors="ignore")[:left]
                text.append(shown)
                left -= len(shown)
            work += 1
            if work % _SLICE == 0:
                yield
    return Outline(
        {KINDS[kind]: (count, length) for kind, (count, length) in sorted(counts.items())},
        [Share(client, *share) for client, share in list(shares.items())[:MAX_CLIENTS]],
        len(shares),
        list(roots),
        "".join(text),
        len({entry.client for entry in update.deletes}),
        sum([len(entry.ranges) // 2 for entry in update.deletes]),
        sum([sum(entry.ranges[1::2]) for entry in update.deletes]),
    )


def _root(data: bytes, struct: Struct) -> str | None:
    """Give the name of the root that a struct names as its parent; None if it names none."""
    if struct.kind in (GC, SKIP) or struct.origin is not None or struct.right is not None or not data[struct.parent]:
        return None
    size, begin = read_var_uint(data, struct.parent + 1)
    return data[begin : begin + size].decode(errors="replace")[:_MAX_NAME]
