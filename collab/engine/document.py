"""A document as bytes: what is known of each client, what is deleted, and the turn that has not left yet.

Strategy: nothing is ever integrated. An update is read, the part of it that is causally whole and new
is put behind what the document has, and the same runs of bytes make up the delta of the turn, step 2
for a joiner and the snapshot. So an open document costs about its encoded size:

- ``_stored`` is the newest snapshot, opened by its index and not read;
- ``_tails`` are, for each client that has edited since, its structs behind each other, with a mark every four
  kilobytes from which a clock can be found again;
- ``_deletes`` is the delete set, over the snapshot's;
- ``_clocks`` is the state vector.

What an edit costs does not depend on how many clients the document has seen, nor does (in Python; bytes are
copied) a joiner's step 2.

Whole is what clients could integrate at once: the longest prefix of each client's structs all of whose
references are known or whole themselves, a least fixpoint; two structs that wait for each other are
not whole. The rest is dropped and named, so that the room can ask for it again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple, TypeVar

from collab.errors import DecodeError, UpdateError
from collab.protocol.lib0 import encode_var_uint
from collab.protocol.update.delete_set import DeleteSet, encode_deletes
from collab.protocol.update.index import IndexedUpdate, index_update, open_index
from collab.protocol.update.join import Run, cut_section, pairs
from collab.protocol.update.reader import MARK_BYTES, Section, Update, UpdateReader, read_update
from collab.protocol.update.region import Buffer, Region
from collab.protocol.update.state_vector import decode_pairs, list_pairs
from collab.protocol.update.structs import suffix

# Rows, references, ranges between two yields: about a millisecond each.
_ROWS: Final = 100
_REFERENCES: Final = 2000
_RANGES: Final = 500
# Rows of this size are read in slices when a document is opened: 4 KB are 0.3 ms.
_LARGE: Final = 16384


_Result = TypeVar("_Result")


def at_once(slices: Generator[None, None, _Result]) -> _Result:
    """Run sliced work to its end, and return what it returns; on the loop of a server, ``in_slices`` lets others in."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            result: _Result = stop.value
            return result


class Taken(NamedTuple):
    """What became of an update.

    ``new``: something of it was new and joined the turn. ``missing``: it was not whole, and this is the first
    (client, clock) that it waited for; its whole prefix was taken and the rest dropped.
    """

    new: bool
    missing: tuple[int, int] | None


class Row(NamedTuple):
    """A row for the journal: a v1 update and who sent it."""

    data: bytes
    author: str | None


class Turn(NamedTuple):
    """What a turn brought.

    ``delta`` is one v1 update for the room; if one update made up the turn and was new throughout, that very
    bytes object. ``rows`` are the same for the journal, consecutive updates of one author joined.
    """

    delta: bytes
    rows: tuple[Row, ...]


NEW: Final = Taken(True, None)
_KNOWN: Final = Taken(False, None)


class _Tail:
    """One client's structs since the snapshot: ``count`` of them in ``data``, the first at ``clock``.

    ``data`` is bytes until there is a second run. ``marks`` is clock, offset, ordinal, clock, ...; ``marked`` the
    offset of the last mark.
    """

    __slots__ = ("clock", "count", "data", "marked", "marks")

    def __init__(self, clock: int) -> None:
        self.clock = clock
        self.count = 0
        self.data: bytes | bytearray = b""
        self.marks: list[int] | tuple[()] = ()
        self.marked = 0

    def append(self, clock: int, count: int, run: bytes, marks: Sequence[int], start: int) -> None:
        """Put a run of ``count`` structs from ``clock`` on behind the others.

        ``marks`` are those of the run, with offsets from ``start``.
        """
        data = self.data
        size = len(data)
        if not size:
            self.data = run
        else:
            if type(data) is bytes:
                data = self.data = bytearray(data)
            if size - self.marked >= MARK_BYTES:
                self._mark(clock, size, self.count)
            data += run
        for at in range(0, len(marks), 3):
            self._mark(marks[at], marks[at + 1] - start + size, marks[at + 2] + self.count)
        self.count += count

    def _mark(self, clock: int, offset: int, ordinal: int) -> None:
        if not self.marks:
            self.marks = []
        self.marks += (clock, offset, ordinal)
        self.marked = offset

    def suffix(self, client: int, known: int) -> tuple[int, bytes, int]:
        """Return how many structs are left from clock ``known`` on, the part of a cut one, the offset of the others."""
        if known <= self.clock:
            return self.count, b"", 0
        marks = self.marks
        at = bisect_right(marks[0::3], known - 1) * 3 - 3
        clock, offset, ordinal = (self.clock, 0, 0) if at < 0 else marks[at : at + 3]
        # At most up to the next mark, so that nothing large is copied for walking.
        stop = marks[at + 4] if at + 4 < len(marks) else len(self.data)
        if at < 0 and marks:
            stop = marks[1]
        passed, head, begin = suffix(bytes(self.data[offset:stop]), 0, stop - offset, clock, client, known)
        return self.count - ordinal - passed + (1 if head else 0), head, offset + begin

    def without(self, client: int, known: int) -> _Tail:
        """Return what is left from clock ``known`` on."""
        count, head, offset = self.suffix(client, known)
        tail = _Tail(known)
        tail.count = count
        tail.data = head + self.data[offset:]
        passed = self.count - count
        shift = offset - len(head)
        for at in range(0, len(self.marks), 3):
            if self.marks[at] > known and self.marks[at + 1] > offset:
                tail._mark(self.marks[at], self.marks[at + 1] - shift, self.marks[at + 2] - passed)
        return tail


class _Entry:
    """One update's part of a turn: a whole update that was new throughout, or runs and ranges of one."""

    __slots__ = ("author", "deletes", "runs", "update")

    def __init__(
        self,
        author: str | None,
        update: Update | None,
        runs: list[Run] | None = None,
        deletes: dict[int, list[tuple[int, int]]] | None = None,
    ) -> None:
        self.author = author
        self.update = update
        self.runs = runs
        self.deletes = deletes


class Document:
    """A document in memory.

    Give it updates with `take`, then call `flush` once a turn for what is to be relayed and stored.
    ``version`` grows with every change: two calls of `encode`, `step2` or `state_vector` at one version say the
    same. ``size`` is about how many bytes `encode` returns.
    """

    __slots__ = ("_clocks", "_deletes", "_stored", "_tails", "_turn", "_vector", "size", "version")

    def __init__(self) -> None:
        self._clocks: dict[int, int] = {}
        self._tails: dict[int, _Tail] = {}
        self._deletes = DeleteSet()
        self._stored: IndexedUpdate | None = None
        self._turn: list[_Entry] = []
        self._vector: bytes | None = None
        self.version = 0
        self.size = 2

    @classmethod
    def load(
        cls, snapshot: bytes | None, index: bytes | None, rows: Sequence[bytes]
    ) -> Generator[None, None, Document]:
        """Open a document from its snapshot and the rows of the log after it, in order.

        A generator that yields about every millisecond and returns the document. With the ``index`` that
        belongs to the snapshot its structs are not read. Rows that the snapshot covers do no harm.
        Raises UpdateError when a row is malformed or waits for something that neither holds, and
        DecodeError when the index does not fit.
        """
        document = cls()
        stored: IndexedUpdate | None = None
        if snapshot is not None:
            stored = open_index(snapshot, index or b"")
            if stored is None:
                reader = UpdateReader(snapshot)
                while not reader.step():
                    yield
                stored = open_index(snapshot, index_update(reader.result))
                yield
        if stored is not None:
            yield from stored.read_vector()
            document._clocks = dict(zip(stored.sections.clients, stored.ends, strict=True))
            document._deletes = DeleteSet(stored.deletes, stored.delete_marks)
            document._stored = stored
            document.size = len(stored.data)
        elif snapshot is not None:
            rows = [snapshot, *rows]
        waiting = yield from document._replay(rows)
        # Nodes that write one log order it causally; what an older writer left out of order is tried again.
        while waiting:
            left = yield from document._replay(waiting)
            if len(left) == len(waiting):
                raise UpdateError(f"{len(left)} rows of the log wait for updates that it does not hold")
            waiting = left
        return document

    def _replay(self, rows: Sequence[bytes]) -> Generator[None, None, list[bytes]]:
        """Take rows of the log, which are no turn; return those that are not whole."""
        waiting = []
        for at, row in enumerate(rows):
            if len(row) < _LARGE:
                taken = self.take(row)
                if at % _ROWS == _ROWS - 1:
                    yield
            else:
                taken = yield from self.take_in_slices(row)
            if taken.missing is not None:
                waiting.append(row)
            self._turn.clear()
        return waiting

    def take(self, update: bytes | Update, author: str | None = None) -> Taken:
        """Take what is whole and new of a v1 update into the document and the turn.

        Raises UpdateError, before anything has changed, when clients would throw on it. Above some 16 KB use
        `take_in_slices`.
        """
        if isinstance(update, bytes):
            # The usual step 2 of a client with nothing to tell: no structs, and the delete set that we sent it.
            if update[:1] == b"\0" and self._deletes.was_encoded_as(update, 1):
                return _KNOWN
            update = read_update(update)
        sections = update.sections
        deletes = update.deletes
        clocks = self._clocks
        # The usual updates. One client goes on where it was, and refers to what is known:
        if len(sections) == 1 and not deletes:
            section = sections[0]
            client = section.client
            if section.clock == clocks.get(client, 0) and section.count and not section.deleted:
                for _, other, clock in section.references:
                    if clock >= clocks.get(other, 0):
                        break
                else:
                    tail = self._tails.get(client)
                    if tail is None:
                        tail = self._tails[client] = _Tail(section.clock)
                        self.size += _head_size(client, section.clock)
                    start = section.start
                    run = update.data[start : section.stop]
                    tail.append(section.clock, section.count, run, section.marks, start)
                    clocks[client] = section.end
                    self.size += len(run)
                    self.version += 1
                    self._vector = None
                    self._turn.append(_Entry(author, update))
                    return NEW
        # One stretch is deleted, all of which is known and still there:
        elif len(deletes) == 1 and not sections:
            entry = deletes[0]
            if len(entry.ranges) == 2:
                start, length = entry.ranges
                end = start + length
                grown = self._deletes.grown
                if end <= clocks.get(entry.client, 0) and self._deletes.add_new(entry.client, start, end):
                    self.size += self._deletes.grown - grown
                    self.version += 1
                    self._turn.append(_Entry(author, update))
                    return NEW
        return at_once(self._take(update, author))

    def take_in_slices(self, data: bytes, author: str | None = None) -> Generator[None, None, Taken]:
        """Take a large update as `take` does, in a generator that yields about every millisecond.

        Other updates may be taken, and the turn flushed, between the slices; the large one joins
        document and turn at once, at the end.
        """
        reader = UpdateReader(data)
        while not reader.step():
            yield
        return (yield from self._take(reader.result, author))

    def _take(self, update: Update, author: str | None) -> Generator[None, None, Taken]:
        """Take an update of any kind: settle what is whole and stage what is new, in slices, then commit at once."""
        clocks = self._clocks
        reached, missing = yield from self._settle(update)
        exact = missing is None
        work = 0

        # Stage: the tails of clients not seen before, and what counts as deleted, are made ready.
        plan: list[tuple[Section, int, Run | None, _Tail | None]] = []
        staged = DeleteSet()
        for section in update.sections:
            # A copy of 64 KB costs what a hundred small sections do.
            work += 1 + (section.stop - section.start >> 10)
            if work >= _RANGES:
                work = 0
                yield
            client = section.client
            end = min(section.end, reached[client])
            known = clocks.get(client, 0)
            if not section.count or end <= known or end <= section.clock:
                exact = False
                continue
            deleted = section.deleted
            for at in range(0, len(deleted), 2):
                if deleted[at] < end and deleted[at + 1] > known:
                    staged.add(client, max(deleted[at], known), min(deleted[at + 1], end))
                work += 1
                if work % _RANGES == 0:
                    yield
            if known or section.clock:
                plan.append((section, end, None, None))
                continue
            run = cut_section(update.data, section, 0, end)
            tail = _Tail(0)
            tail.append(0, run.structs, run.data, run.marks, 0)
            plan.append((section, end, run, tail))

        # Deletes of clocks that are known by then, and not deleted yet.
        deletes: dict[int, list[tuple[int, int]]] = {}
        compared: set[int] = set()
        for entry in update.deletes:
            work += 1
            if work % _RANGES == 0:
                yield
            client = entry.client
            # Once a client: an update may name it a million times, and comparing costs the whole entry.
            if len(entry.ranges) > 2 and client not in compared:
                compared.add(client)
                if self._deletes.has_entry(client, update.data[entry.start : entry.stop]):
                    exact = False
                    continue
            limit = max(reached.get(client, 0), clocks.get(client, 0))
            found: list[tuple[int, int]] = []
            for start, end in pairs(entry.ranges):
                work += 1
                if work % _RANGES == 0:
                    yield
                if end > limit:
                    # Pending, as yjs calls it; whoever merges would drop it, so it is asked for like a struct.
                    exact = False
                    if missing is None:
                        missing = (client, limit)
                    end = limit
                    if start >= end:
                        continue
                parts = self._deletes.missing(client, start, end)
                if len(parts) != 1 or parts[0] != (start, end):
                    exact = False
                found += parts
            if found:
                deletes.setdefault(client, []).extend(found)
                for start, end in found:
                    staged.add(client, start, end)
                    work += 1
                    if work % _RANGES == 0:
                        yield

        # Commit, without a yield. What others have sent meanwhile can only have raised the clocks.
        tails = self._tails
        size = self.size
        runs: list[Run] = []
        for section, end, made, fresh in plan:
            client = section.client
            known = clocks.get(client, 0)
            if end <= known:
                exact = False
                continue
            if known != section.clock or end != section.end:
                exact = False
            if made is not None and fresh is not None and not known:
                run = made
                tails[client] = fresh
                size += _head_size(client, 0)
            else:
                run = cut_section(update.data, section, known, end)
                if client not in tails:
                    tails[client] = _Tail(known)
                    size += _head_size(client, known)
                tails[client].append(known, run.structs, run.data, run.marks, 0)
            clocks[client] = end
            size += len(run.data)
            runs.append(run)
        if not runs and not deletes:
            return _KNOWN if missing is None else Taken(False, missing)
        size -= self._deletes.grown
        self._deletes.absorb(staged)
        self.size = size + self._deletes.grown
        self.version += 1
        self._vector = None
        self._turn.append(_Entry(author, update) if exact else _Entry(author, None, runs, deletes))
        return NEW if missing is None else Taken(True, missing)

    def _settle(self, update: Update) -> Generator[None, None, tuple[dict[int, int], tuple[int, int] | None]]:
        """Find how far each client of the update is whole, and the first id that something waits for.

        A work list: each client goes on until a reference stops it, waits in a heap by the clock that it
        needs, and is woken once that is reached; so each reference is looked at once, however
        the clients wait for each other.
        """
        clocks = self._clocks
        queues: dict[int, list[Section]] = {}
        for at, section in enumerate(update.sections, 1):
            queues.setdefault(section.client, []).append(section)
            if at % _REFERENCES == 0:
                yield
        reached: dict[int, int] = {}
        cursors = dict.fromkeys(queues, (0, 0))
        blocked: dict[int, tuple[int, int]] = {}
        waiting: dict[int, list[tuple[int, int]]] = {}
        ready = list(queues)
        work = 0
        while ready:
            client = ready.pop()
            blocked.pop(client, None)
            queue = queues[client]
            at, seen = cursors[client]
            now = max(reached.get(client, 0), clocks.get(client, 0))
            while at < len(queue):
                section = queue[at]
                work += 1
                if work % _REFERENCES == 0:
                    yield
                if section.end > now:
                    if section.clock > now or not section.count:
                        blocked[client] = (client, now)
                        break
                    references = section.references
                    while seen < len(references):
                        struct, other, clock = references[seen]
                        if clock >= clocks.get(other, 0) and clock >= reached.get(other, 0):
                            break
                        seen += 1
                        work += 1
                        if work % _REFERENCES == 0:
                            yield
                    if seen < len(references):
                        now = max(now, struct)
                        blocked[client] = (other, clock)
                        if other in queues:
                            heappush(waiting.setdefault(other, []), (clock, client))
                        break
                    now = section.end
                at += 1
                seen = 0
            cursors[client] = (at, seen)
            reached[client] = now
            heap = waiting.get(client)
            while heap and heap[0][0] < now:
                ready.append(heappop(heap)[1])
            work += 1
            if work % _REFERENCES == 0:
                yield
        missing = None
        for at, (client, root) in enumerate(blocked.items(), 1):
            if at % _REFERENCES == 0:
                yield
            # What lies in the update itself waits in turn: name what it waits for.
            if root[0] == client or root[0] not in queues:
                return reached, root
            missing = missing or root
        return reached, missing

    def flush(self) -> Turn | None:
        """Return everything taken since the last flush as one turn, or None if that is nothing."""
        turn = self._turn
        if not turn:
            return None
        self._turn = []
        if len(turn) == 1:
            delta = _join(turn)
            return Turn(delta, (Row(delta, turn[0].author),))
        groups: list[list[_Entry]] = []
        for entry in turn:
            if groups and groups[-1][0].author == entry.author:
                groups[-1].append(entry)
            else:
                groups.append([entry])
        delta = _join(turn)
        if len(groups) == 1:
            return Turn(delta, (Row(delta, turn[0].author),))
        return Turn(delta, tuple(Row(_join(group), group[0].author) for group in groups))

    def knows(self, data: bytes) -> bool:
        """Tell whether an update holds nothing new, without taking it; UpdateError when it is malformed."""
        return at_once(self.knows_in_slices(data))

    def knows_in_slices(self, data: bytes) -> Generator[None, None, bool]:
        """Do what `knows` does in a generator that yields about every millisecond."""
        reader = UpdateReader(data)
        while not reader.step():
            yield
        update = reader.result
        clocks = self._clocks
        work = 0
        for section in update.sections:
            work += 1
            if work % _RANGES == 0:
                yield
            if section.count and section.end > clocks.get(section.client, 0):
                return False
        compared: set[int] = set()
        for entry in update.deletes:
            work += 1
            if work % _RANGES == 0:
                yield
            if entry.client not in compared:
                compared.add(entry.client)
                if self._deletes.has_entry(entry.client, data[entry.start : entry.stop]):
                    continue
            for start, end in pairs(entry.ranges):
                work += 1
                if work % _RANGES == 0:
                    yield
                if end > clocks.get(entry.client, 0) or self._deletes.missing(entry.client, start, end):
                    return False
        return True

    @property
    def clients(self) -> int:
        """How many client IDs the document has seen."""
        return len(self._clocks)

    @property
    def tail_clients(self) -> int:
        """How many of them have edited since the snapshot below; `encode` costs some 3 us for each of them."""
        return len(self._tails)

    def lacks(self, client: int, clock: int) -> bool:
        """Tell whether the clock of the client is still unknown here."""
        return clock >= self._clocks.get(client, 0)

    def state_vector(self) -> bytes:
        """Encode the state vector, clients descending; kept until the next change."""
        if self._vector is None:
            clocks = self._clocks
            region = Region() if self._stored is None else self._stored.vector
            count, pieces = region.patched(
                {client: (encode_var_uint(client), encode_var_uint(clocks[client])) for client in self._tails}
            )
            self._vector = encode_var_uint(count) + b"".join(pieces)
        return self._vector

    def encode(self) -> bytes:
        """Encode the whole document as one v1 update (yjs ``encodeStateAsUpdate``)."""
        region = Region() if self._stored is None else self._stored.sections
        count, pieces = region.patched({client: self._section(client) for client in self._tails})
        return b"".join((encode_var_uint(count), *pieces, self._deletes.encode()))

    def step2(self, state_vector: bytes) -> bytes:
        """Encode what a client with that state vector lacks, and the whole delete set, as a v1 update.

        Raises DecodeError when the vector is malformed. Clocks beyond the document's are the client's
        own business.
        """
        if state_vector == b"\0":
            return self.encode()
        own = self.state_vector()
        if own == state_vector:
            return b"\0" + self._deletes.encode()
        clocks = self._clocks
        # What both hold alike is compared as bytes, at C speed, and not decoded.
        their_pairs, our_pairs = set(list_pairs(state_vector)), set(list_pairs(own))
        theirs = decode_pairs(their_pairs - our_pairs)
        for client in theirs:
            clock = clocks.get(client)
            if clock is not None and encode_var_uint(client) + encode_var_uint(clock) in their_pairs:
                raise DecodeError(f"the state vector names client {client} twice")
        lacking = our_pairs - their_pairs
        if len(lacking) * 2 < len(our_pairs):
            parts: list[Buffer] = []
            count = 0
            for client in sorted(decode_pairs(lacking), reverse=True):
                known = theirs.get(client, 0)
                if known < clocks[client]:
                    parts += self._section(client, known)
                    count += 1
        else:
            # Most is lacking: the whole, but for what they named and what is not in the snapshot.
            changed = {client: self._section(client) for client in self._tails}
            for client, known in theirs.items():
                if client in clocks:
                    changed[client] = self._section(client, known) if known < clocks[client] else []
            for client in decode_pairs(their_pairs & our_pairs):
                changed[client] = []
            region = Region() if self._stored is None else self._stored.sections
            count, parts = region.patched(changed)
            count -= sum(not section for section in changed.values())
        return b"".join((encode_var_uint(count), *parts, self._deletes.encode()))

    def _section(self, client: int, known: int = 0) -> list[Buffer]:
        """Return the client's structs from clock ``known`` on as a section: header and runs."""
        stored = self._stored
        tail = self._tails.get(client)
        count = 0
        runs: list[Buffer] = []
        if stored is not None and (tail is None or known < tail.clock):
            count, start, stop = stored.body(client)
            if count and known:
                offset, clock, ordinal = stored.mark(start, stop, known - 1)
                passed, head, start = suffix(stored.data, offset, stop, clock, client, known)
                count -= ordinal + passed
                if head:
                    count += 1
                    runs.append(head)
            runs.append(memoryview(stored.data)[start:stop])
        if tail is not None:
            left, head, offset = tail.suffix(client, known)
            count += left
            runs += (head, memoryview(tail.data)[offset:])
        return [encode_var_uint(count) + encode_var_uint(client) + encode_var_uint(known), *runs]

    def rebase(self, snapshot: bytes, index: bytes, state_vector: bytes) -> None:
        """Put a snapshot of this document, made at ``state_vector``, under it; what came since stays on top.

        The turn is left alone, and ``version`` too: the document says the same as before. Raises
        DecodeError when snapshot, index and vector do not belong together, ValueError when the snapshot
        lacks what lies below the one there was.
        """
        stored = open_index(snapshot, index)
        if stored is None:
            raise ValueError("a snapshot without an index cannot be put under a document")
        entries = list_pairs(state_vector)
        clients, clocks = stored.sections.clients, self._clocks
        if len(entries) != len(clients):
            raise ValueError("the state vector is not the snapshot's")
        stored.vector = Region(state_vector, clients, len(encode_var_uint(len(clients))), map(len, entries))
        tails: dict[int, _Tail] = {}
        since = 0
        for client, tail in self._tails.items():
            known, end = stored.end(client), clocks[client]
            if not tail.clock <= known <= end:
                raise ValueError("the snapshot is not one of this document")
            if known < end:
                tails[client] = tail.without(client, known)
                since += end - known
        # Without the clocks that came since, both are one vector; sums, because there may be 50,000 of them.
        if not clocks.keys() >= set(clients) or sum(stored.ends) + since != sum(clocks.values()):
            raise ValueError("the snapshot is not one of this document")
        self._stored = stored
        self._tails = tails
        self._deletes.rebase(stored.deletes, stored.delete_marks)
        heads = sum(_head_size(client, tail.clock) for client, tail in tails.items())
        self.size = len(snapshot) + heads + sum(len(tail.data) for tail in tails.values()) + self._deletes.grown


def _head_size(client: int, clock: int) -> int:
    """Return about how many bytes a section's count, client and clock add; none when the section is there already."""
    return 0 if clock else len(encode_var_uint(client)) + 2


def _join(entries: Sequence[_Entry]) -> bytes:
    """Join the entries of a turn: each client's runs follow on each other, for they were taken in this order."""
    first = entries[0]
    if len(entries) == 1 and first.update is not None:
        return first.update.data
    sections: dict[int, list[bytes]] = {}
    heads: dict[int, list[int]] = {}
    deletes: dict[int, list[tuple[int, int]]] = {}
    for entry in entries:
        update = entry.update
        if update is None:
            for run in entry.runs or ():
                head = heads.get(run.client)
                if head is None:
                    heads[run.client] = [run.structs, run.clock]
                    sections[run.client] = [run.data]
                else:
                    head[0] += run.structs
                    sections[run.client].append(run.data)
            for client, ranges in (entry.deletes or {}).items():
                deletes.setdefault(client, []).extend(ranges)
            continue
        data = update.data
        for section in update.sections:
            client = section.client
            head = heads.get(client)
            if head is None:
                heads[client] = [section.count, section.clock]
                sections[client] = [data[section.start : section.stop]]
            else:
                head[0] += section.count
                sections[client].append(data[section.start : section.stop])
        for deleted in update.deletes:
            deletes.setdefault(deleted.client, []).extend(pairs(deleted.ranges))
    parts = [encode_var_uint(len(heads))]
    for client in sorted(heads, reverse=True):
        count, clock = heads[client]
        parts += (encode_var_uint(count), encode_var_uint(client), encode_var_uint(clock))
        parts += sections[client]
    parts.append(encode_deletes({client: ranges for client, ranges in deletes.items() if ranges}))
    return b"".join(parts)
