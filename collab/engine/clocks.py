"""The state vector of a document as bytes: what was encoded once, and the clients that have moved on since.

Strategy: a document may have seen tens of thousands of client IDs, and each joiner is told the vector. So most of it
stays encoded, and what is encoded anew are the clients that have edited since. When those have become many they are
put in place in slices, and others may move on meanwhile.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterable, Mapping
from operator import neg, sub
from typing import Final

from collab.protocol.lib0 import encode_var_uint
from collab.update.parts import Piece, join
from collab.update.region import Region, descending

MANY: Final = 500
"""Clients that are encoded in one step: some 2 ms."""

# Clients that are put in place between two yields: about a millisecond.
_PLACED: Final = 200


class EncodedClocks:
    """The encoded state vector of a document, whose clocks it is given.

    Args:
        base: the entries of it at some time.
        moved: the clients that have moved on since then.

    Attributes:
        moved: see above. Whoever changes a clock adds the client, and takes ``encoded`` away.
        encoded: the whole vector, while nothing has changed.
    """

    __slots__ = ("_base", "_settling", "encoded", "moved")

    def __init__(self, base: Region, moved: Iterable[int] = ()) -> None:
        self._base = base
        self._settling: set[int] | None = None  # those that are being put in place
        self.moved: set[int] = set(moved)
        self.encoded: bytes | None = None

    def copy(self) -> EncodedClocks:
        """Return the same, to be changed for itself."""
        return EncodedClocks(self._base, self._all_moved())

    def _all_moved(self) -> set[int]:
        return self.moved | self._settling if self._settling else self.moved

    def encode(self, clocks: Mapping[int, int]) -> bytes:
        """Encode the state vector (yjs ``encodeStateVector``), clients descending; kept until the next change."""
        if self.encoded is None:
            self.encoded = self._encode(clocks, {})
        return self.encoded

    def encode_before(self, clocks: Mapping[int, int], before: Mapping[int, int]) -> bytes:
        """Encode the vector as it was when some clients had other clocks, 0 where one was not there."""
        return self._encode(clocks, before)

    def _encode(self, clocks: Mapping[int, int], before: Mapping[int, int]) -> bytes:
        changed: dict[int, list[Piece]] = {}
        for client in (*self._all_moved(), *before):
            clock = before.get(client, clocks[client])
            changed[client] = [encode_var_uint(client), encode_var_uint(clock)] if clock else []
        gone = sum(not entry for entry in changed.values())
        count, pieces = self._base.patched(changed)
        return encode_var_uint(count - gone) + join(pieces)

    @property
    def settled(self) -> bool:
        """Whether encoding it is one short step."""
        return self.encoded is not None or len(self.moved) + len(self._settling or ()) <= MANY

    def settle(self, clocks: Mapping[int, int]) -> Generator[None, None, None]:
        """Put the clients that have moved on in their place, if they are many.

        A generator that yields about every millisecond; it may be left unfinished, and run beside another one.
        """
        if self.settled:
            return
        settling = self._settling = set(self._all_moved())
        self.moved = set()
        base = self._base
        yield
        old = array("I", map(sub, base.offsets[1:], base.offsets[:-1]))
        clients, sizes, data = array("Q"), array("I"), bytearray()
        low = 0
        order = yield from descending(settling)
        for placed, client in enumerate(order, 1):
            at = bisect_left(base.clients, -client, low, key=neg)
            clients.extend(base.clients[low:at])
            sizes.extend(old[low:at])
            data += base.data[base.offsets[low] : base.offsets[at]]
            # One that has moved on once more meanwhile is among those as well.
            entry = encode_var_uint(client) + encode_var_uint(clocks[client])
            clients.append(client)
            sizes.append(len(entry))
            data += entry
            low = at + 1 if at < len(base.clients) and base.clients[at] == client else at
            if placed % _PLACED == 0:
                yield
        clients.extend(base.clients[low:])
        sizes.extend(old[low:])
        data += base.data[base.offsets[low] : base.offsets[-1]]
        yield
        if self._settling is settling:
            self._base = Region(bytes(data), clients, 0, sizes)
            self._settling = None
