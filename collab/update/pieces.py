"""Cut an update into pieces that its receiver keeps pending until the last one has come.

Strategy: a receiver integrates a struct only when all ids that it names are known to it. So a struct that names an id
beyond the receiver's state vector can be sent early: it stays pending, and nothing is shown of it. The last piece is
what was held back: structs all of whose ids are known, those that name none, and all deletions. With it everything is
integrated in one transaction, as if it had come in one message. The rules, each of which tests show to be needed:

- A struct is early only if its origin, its right origin or its parent lies at or beyond the state vector. Of two early
  structs neither can be the first that is integrated, as long as nothing that was held back has come.
- The first struct of each client is held back too, up to ``_FIRSTS`` clients: yjs 13 then sees at once that a clock is
  lacking. yjs 14 integrates across such gaps, so this rule alone would not do. Above that number yjs filters a list of
  all clients for each one that it finds blocked, which costs more than the rule brings.
- All deletions are held back: one of known content would be applied at once.
- A long string or list that would be held back is cut: its first character or value is held, the rest goes early, for
  its origin is that first one. Cuts lie between code points only, because half a surrogate pair becomes U+FFFD.

All of this holds only for a receiver whose state is exactly its state vector (and what it has sent): with content
from elsewhere it might know the ids, and integrate a part of a transaction.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from itertools import islice
from typing import Final

from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.merge import Run, encode_runs
from collab.update.reader import ANY, JSON, SKIP, STRING, skip_any
from collab.update.structs import Struct, utf16_length, walk

# Clients up to which the first struct of each is held back.
_FIRSTS: Final = 5_000

# Bytes of a struct above which its rest goes early, and bytes of a run at which it ends: pieces are made of runs.
_LONG: Final = 1024
_RUN: Final = 64 * 1024

# Structs between two yields: about a millisecond.
_SLICE: Final = 200

_ALL: Final = 1 << 62
_NO_DELETES: Final = b"\0"


class Cut:
    """An update that was cut.

    Attributes:
        early: runs that stay pending, clients descending, clocks ascending.
        last: an update with all that was held back, and the whole delete set.
    """

    __slots__ = ("early", "last")

    def __init__(self, early: list[Run], last: bytes) -> None:
        self.early = early
        self.last = last

    def piece(self, at: int, size: int) -> tuple[bytes, int]:
        """Return an update of the runs from ``at`` on, of about ``size`` bytes, and which run is the next."""
        runs: dict[int, list[Run]] = {}
        taken = 0
        while at < len(self.early) and (not taken or taken + len(self.early[at].data) <= size):
            run = self.early[at]
            runs.setdefault(run.client, []).append(run)
            taken += len(run.data)
            at += 1
        return encode_runs(runs, _NO_DELETES), at


def cut_update(data: bytes, known: Mapping[int, int]) -> Generator[None, None, Cut]:
    """Cut an update for a receiver with the state vector ``known``; yields about every millisecond.

    ``data`` must have been read before, hold nothing that the receiver has, and no Skip in the middle of
    what it lacks.
    """
    early: list[Run] = []
    held: dict[int, list[Run]] = {}
    sections, pos = read_var_uint(data, 0)
    holds_firsts = sections <= _FIRSTS
    work = 0
    for _ in range(sections):
        count, pos = read_var_uint(data, pos)
        client, pos = read_var_uint(data, pos)
        clock, pos = read_var_uint(data, pos)
        first = holds_firsts
        runs = _Runs(client, early, held.setdefault(client, []))
        for struct in islice(walk(data, pos, len(data), clock), count):
            pos = struct.stop
            work += 1
            if work % _SLICE == 0:
                yield
            if struct.kind == SKIP:
                continue
            # What the receiver has already changes nothing, whenever it comes.
            has = struct.clock + struct.length <= known.get(client, 0)
            holds = not has and (first or not _is_early(data, struct, known))
            first = False
            size = pos - struct.start
            if size > (_LONG if holds else _RUN) and struct.length > 1 and struct.kind in (STRING, ANY, JSON):
                work += size >> 10
                for clock, end, part in _parts(data, struct, client, holds):
                    runs.add(clock, end, part, holds)
                    holds = False
            else:
                runs.add(struct.clock, struct.clock + struct.length, data[struct.start : pos], holds)
        runs.end()
        if not held[client]:
            del held[client]
    return Cut(early, encode_runs(held, data[pos:]))


def _is_early(data: bytes, struct: Struct, known: Mapping[int, int]) -> bool:
    """Tell whether a struct names an id that the receiver does not know."""
    for named in (struct.origin, struct.right):
        if named is not None and named[1] >= known.get(named[0], 0):
            return True
    if struct.content == struct.parent or data[struct.parent]:
        return False  # GC, an origin or a right origin, or the name of a root
    client, pos = read_var_uint(data, struct.parent + 1)
    clock, _ = read_var_uint(data, pos)
    return clock >= known.get(client, 0)


class _Runs:
    """Collects the structs of one client into runs, early ones and held ones."""

    __slots__ = ("_client", "_clock", "_early", "_end", "_held", "_holds", "_parts", "_size")

    def __init__(self, client: int, early: list[Run], held: list[Run]) -> None:
        self._client = client
        self._early = early
        self._held = held
        self._parts: list[bytes] = []
        self._size = self._clock = self._end = 0
        self._holds = False

    def add(self, clock: int, end: int, part: bytes, holds: bool) -> None:
        """Put a struct behind the others."""
        if holds != self._holds or clock != self._end or self._size + len(part) > _RUN:
            self.end()
            self._clock, self._holds = clock, holds
        self._parts.append(part)
        self._size += len(part)
        self._end = end

    def end(self) -> None:
        """End the run."""
        if self._parts:
            run = Run(self._client, self._clock, self._end, len(self._parts), b"".join(self._parts), ())
            (self._held if self._holds else self._early).append(run)
            self._parts = []
            self._size = 0


def _parts(data: bytes, struct: Struct, client: int, holds: bool) -> list[tuple[int, int, bytes]]:
    """Cut a long string or list into structs: (clock, end, bytes). The first is the least there is if it is held."""
    parts: list[tuple[int, int, bytes]] = []
    clock = struct.clock
    head = data[struct.start : struct.content]
    right = b"" if struct.right is None else encode_var_uint(struct.right[0]) + encode_var_uint(struct.right[1])
    size, pos = read_var_uint(data, struct.content)
    left = size
    while pos < struct.stop:
        least = holds and not parts
        if struct.kind == STRING:
            stop = pos + 1 if least else min(pos + _RUN, struct.stop)
            while stop < struct.stop and data[stop] & 0xC0 == 0x80:
                stop += 1
            text = data[pos:stop]
            length, content = utf16_length(text), encode_var_uint(len(text)) + text
        else:
            stop, length = pos, 0
            while length < left and (stop == pos or (not least and stop - pos < _RUN)):
                stop = _behind_value(data, stop, struct.kind)
                length += 1
            left -= length
            content = encode_var_uint(length) + data[pos:stop]
        parts.append((clock, clock + length, head + content))
        clock += length
        pos = stop
        head = bytes((struct.info | 128,)) + encode_var_uint(client) + encode_var_uint(clock - 1) + right
    return parts


def _behind_value(data: bytes, pos: int, kind: int) -> int:
    """Return the position behind one value of a list."""
    if kind == ANY:
        return skip_any(data, pos, [1], _ALL)
    length, pos = read_var_uint(data, pos)
    return pos + length
