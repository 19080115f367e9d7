"""Entries of many clients behind each other in one bytes object, of which few change.

Strategy: a stored document stays the bytes that it was stored as. Its state vector, its sections
and its delete set are each a run of entries in descending order of clients; two flat arrays say whose
and where. What changed since lies outside, and encoding the whole is slicing around those few: its cost
in Python does not depend on how many clients a document has seen in its life.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import neg

Buffer = bytes | bytearray | memoryview


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

    def patched(self, changed: Mapping[int, Sequence[Buffer]]) -> tuple[int, list[Buffer]]:
        """Put ``changed`` entries, each a list of buffers, in place of the old ones or between them.

        Returns how many entries there are then, and the buffers to join.
        """
        clients, offsets = self.clients, self.offsets
        view = memoryview(self.data)
        count = len(clients)
        pieces: list[Buffer] = []
        done = offsets[0]
        low = 0
        for client in sorted(changed, reverse=True):
            low = at = bisect_left(clients, -client, low, key=neg)
            if offsets[at] > done:
                pieces.append(view[done : offsets[at]])
            done = offsets[at]
            if at < len(clients) and clients[at] == client:
                done = offsets[at + 1]
            else:
                count += 1
            pieces += changed[client]
        if offsets[-1] > done:
            pieces.append(view[done : offsets[-1]])
        return count, pieces
