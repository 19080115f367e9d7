"""Entries of many clients behind each other in one bytes object, of which few change.

Strategy: a stored document stays the bytes that it was stored as. Its state vector, its sections
and its delete set are each a run of entries in descending order of clients; two flat arrays say whose
and where. What changed since lies outside, and encoding the whole is slicing around those few: its cost
in Python does not depend on how many clients a document has seen in its life.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import accumulate, islice
from operator import neg
from typing import Final

from collab.update.parts import Piece, span
from collab.update.slices import at_once

# Changed entries that are put in place between two yields.
_SLICE: Final = 200


# Clients that are sorted between two yields.
_SORTED: Final = 2_000


def descending(clients: Collection[int]) -> Generator[None, None, Iterator[int]]:
    """Sort client IDs, the highest first, in a generator that yields about every millisecond; many are merged later."""
    if len(clients) <= _SORTED:
        return iter(sorted(clients, reverse=True))
    blocks: list[list[int]] = []
    left = iter(clients)
    while block := list(islice(left, _SORTED)):
        block.sort(reverse=True)
        blocks.append(block)
        yield
    return merge(*blocks, reverse=True)


class Region:
    """The entries of ``clients`` (descending) in ``data``; entry i is ``data[offsets[i]:offsets[i + 1]]``."""

    __slots__ = ("clients", "data", "offsets")

    def __init__(self, data: bytes = b"", clients: Sequence[int] = (), start: int = 0, sizes: Iterable[int] = ()):
        self.data = data
        self.clients = array("Q", clients)
        self.offsets = array("I", accumulate(sizes, initial=start))

    def find(self, client: int) -> int:
        """Return the ordinal of the client's entry, or -1."""
        at = bisect_left(self.clients, -client, key=neg)
        return at if at < len(self.clients) and self.clients[at] == client else -1

    def entry(self, client: int) -> bytes | None:
        """Return the client's entry."""
        at = self.find(client)
        return None if at < 0 else self.data[self.offsets[at] : self.offsets[at + 1]]

    def patched(self, changed: Mapping[int, Sequence[Piece]]) -> tuple[int, list[Piece]]:
        """Put ``changed`` entries, each a list of pieces, in place of the old ones or between them.

        Returns how many entries there are then, and the pieces of all.
        """
        return at_once(self.patched_in_slices(changed))

    def patched_in_slices(
        self, changed: Mapping[int, Sequence[Piece]]
    ) -> Generator[None, None, tuple[int, list[Piece]]]:
        """Do what `patched` does in a generator that yields about every millisecond."""
        clients, offsets = self.clients, self.offsets
        data = self.data
        count = len(clients)
        pieces: list[Piece] = []
        done = offsets[0]
        low = 0
        order = yield from descending(changed)
        for ordinal, client in enumerate(order, 1):
            if ordinal % _SLICE == 0:
                yield
            low = at = bisect_left(clients, -client, low, key=neg)
            if offsets[at] > done:
                pieces.append(span(data, done, offsets[at]))
            done = offsets[at]
            if at < len(clients) and clients[at] == client:
                done = offsets[at + 1]
            else:
                count += 1
            pieces += changed[client]
        if offsets[-1] > done:
            pieces.append(span(data, done, offsets[-1]))
        return count, pieces
