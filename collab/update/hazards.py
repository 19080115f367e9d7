"""What a whole document holds on which yjs throws later: for ``verify``, not for the way in.

Strategy: the reader sees one update, and refuses the poison in it. Two more kinds show only in a whole document,
because structs inherit parent and key from their origins (docs/decisions/0018). So this walks over all structs, looks
up where each of them hangs, and says what it finds. Its time is linear in the structs: about a second for 100,000.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from collab.protocol.lib0 import read_var_uint
from collab.update.reader import ANY, GC, JSON, STRING, TYPE, Update, find_poison, read_update
from collab.update.structs import Struct, walk

# yjs recurses over types in types when it deletes and collects them. Node with its usual stack throws from 2,000 maps
# or 5,000 arrays in each other on, and what the application does around that takes of the same stack.
MAX_NESTED_TYPES: Final = 500

_Id = tuple[int, int]
# The id of the parent, None for a root; whether there is a key.
_Place = tuple[_Id | None, bool]


def find_hazard(data: bytes) -> str | None:
    """Tell why yjs would throw on a whole document, now or after an edit; None when nothing is found.

    ``data`` is what `Document.encode_state_as_update` returns, or a snapshot with nothing behind it.
    """
    found = find_poison(data)
    if found is not None:
        return found
    document = _Shape(read_update(data))
    return document.find_cut_value() or document.find_deep_type()


class _Shape:
    """All structs of a document, and where each of them hangs."""

    def __init__(self, update: Update) -> None:
        self.update = update
        self.structs: dict[int, list[Struct]] = {}
        self.starts: dict[int, list[int]] = {}
        for section in update.sections:
            structs = self.structs.setdefault(section.client, [])
            structs += walk(update.data, section.start, section.stop, section.clock)
        for client, structs in self.structs.items():
            self.starts[client] = [struct.clock for struct in structs]
        self.places: dict[int, list[_Place | None]] = {
            client: [None] * len(structs) for client, structs in self.structs.items()
        }
        for client, structs in self.structs.items():
            for at in range(len(structs)):
                self._find(client, at)

    def _at(self, client: int, clock: int) -> int:
        """Return the ordinal of the struct that holds a clock, -1 when it is not there."""
        return bisect_right(self.starts.get(client, ()), clock) - 1

    def _find(self, client: int, at: int) -> None:
        """Find where a struct hangs, and all those on the way there."""
        passed: list[tuple[list[_Place | None], int]] = []
        place: _Place | None = None
        while at >= 0:
            places = self.places[client]
            place = places[at]
            if place is not None:
                break
            places[at] = (None, False)  # until it is known: two that wait for each other hang nowhere
            passed.append((places, at))
            struct = self.structs[client][at]
            reference = struct.origin or struct.right
            if reference is None:
                place = self._written(struct)
                break
            client, clock = reference
            at = self._at(client, clock)
        for places, at in passed:
            places[at] = place or (None, False)

    def _written(self, struct: Struct) -> _Place:
        """Return the place that a struct without origins names."""
        data = self.update.data
        if struct.kind == GC or data[struct.parent]:
            return None, struct.info & 32 > 0
        client, pos = read_var_uint(data, struct.parent + 1)
        return (client, read_var_uint(data, pos)[0]), struct.info & 32 > 0

    def _deleted(self) -> dict[int, list[int]]:
        """Return the deleted ranges of each client: start, end, start, end ..., merged."""
        deleted: dict[int, list[int]] = {}
        for entry in self.update.deletes:
            merged = deleted[entry.client] = []
            for start, length in sorted(zip(entry.ranges[::2], entry.ranges[1::2], strict=True)):
                if merged and start <= merged[-1]:
                    merged[-1] = max(merged[-1], start + length)
                else:
                    merged += (start, start + length)
        return deleted

    def _cuts(self, deleted: dict[int, list[int]]) -> Iterator[_Id]:
        """Yield where yjs cuts structs: the first clock behind each cut."""
        for client, ranges in deleted.items():
            for clock in ranges:
                yield client, clock
        for structs in self.structs.values():
            for struct in structs:
                if struct.origin is not None:
                    yield struct.origin[0], struct.origin[1] + 1
                if struct.right is not None:
                    yield struct.right

    def find_cut_value(self) -> str | None:
        """Find a value of several clocks under a key of a nested type that is cut and not all deleted.

        yjs takes only its last part for the value, does not delete the others with the parent, and throws when it
        collects that.
        """
        deleted = self._deleted()
        for client, clock in self._cuts(deleted):
            at = self._at(client, clock)
            if at < 0:
                continue
            struct = self.structs[client][at]
            place = self.places[client][at]
            if struct.kind not in (STRING, ANY, JSON) or not struct.clock < clock < struct.clock + struct.length:
                continue
            if place is None or place[0] is None or not place[1]:
                continue
            ranges = deleted.get(client, [])
            before = bisect_right(ranges, struct.clock)
            if not (before & 1 and ranges[before] >= struct.clock + struct.length):
                return f"a value under a key is cut at clock {clock} of client {client}"
        return None

    def find_deep_type(self) -> str | None:
        """Find a type that lies in too many others."""
        depths: dict[_Id, int] = {}
        for client, structs in self.structs.items():
            for struct in structs:
                way: list[_Id] = []
                here: _Id | None = (client, struct.clock) if struct.kind == TYPE else None
                while here is not None and here not in depths:
                    depths[here] = 0  # until it is known
                    way.append(here)
                    there = self._at(*here)
                    place = self.places[here[0]][there] if there >= 0 else None
                    here = place[0] if place is not None else None
                depth = depths[here] if here is not None else 0
                for one in reversed(way):
                    depth += 1
                    depths[one] = depth
                if depth > MAX_NESTED_TYPES:
                    at = f"clock {struct.clock} of client {client}"
                    return f"more than {MAX_NESTED_TYPES} types lie in each other, down to {at}"
        return None
