"""A document as bytes: what is known of each client, what is deleted, and the turn that has not left yet.

Strategy: nothing is ever integrated. An update is read, the part of it that is causally whole and new
is put behind what the document has, and the same runs of bytes make up the delta of the turn, step 2
for a joiner and the snapshot (docs/decisions/0001). So an open document costs about its encoded size:

- ``_stored`` is the newest snapshot, opened by its index and not read;
- ``_tails`` are, for each client that has edited since, its structs behind each other (``tail.py``);
- ``_deletes`` is the delete set, over the snapshot's;
- ``_clocks`` is the state vector.

What an edit costs does not depend on how many clients the document has seen, nor does (in Python; bytes are
copied) a joiner's step 2.

Whole is what clients could integrate at once: the longest prefix of each client's structs all of whose
references are known or whole themselves, a least fixpoint; two structs that wait for each other are
not whole. The rest is left out and handed back, so that the room can ask for it again and keep it
(docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import takewhile
from operator import itemgetter
from typing import Final, NamedTuple

from collab.authorship import FirstUse, Note
from collab.engine.clocks import EncodedClocks
from collab.engine.kept import Rest, take_rest
from collab.engine.tail import Tail
from collab.errors import DecodeError, UpdateError, UpdateIncomplete
from collab.protocol.lib0 import encode_var_uint
from collab.update.delete_set import DeleteSet, encode_delete_set
from collab.update.index import IndexedUpdate, index_update, open_index
from collab.update.merge import Run, cut_section, pairs
from collab.update.parts import Parts, Piece, join, span
from collab.update.ranges import BLOCK, encode_ranges, merge_ranges
from collab.update.reader import Section, Update, UpdateReader, read_update
from collab.update.region import Region
from collab.update.reset import RESERVED, is_marker, number_of
from collab.update.slices import at_once as at_once
from collab.update.state_vector import StateVector, decode_pairs, list_pairs
from collab.update.structs import suffix

# Rows, references, ranges between two yields: about a millisecond each.
_ROWS: Final = 32
_REFERENCES: Final = 2000
_RANGES: Final = 500
_END: Final = itemgetter(1)
# Rows of this size are read in slices when a document is opened: 4 KB are 0.3 ms.
_LARGE: Final = 16384


LARGE_DELTA: Final = 1024 * 1024
"""Bytes of a turn above which it is not sent to members whose line is slow as the one message that it is."""


class Applied(NamedTuple):
    """What became of an update.

    ``new``: something of it was new and joined the turn. ``missing``: it was not whole, and this is the first
    (client, clock) that it waited for; its whole prefix was applied, and ``rest`` is what was left out.
    """

    new: bool
    missing: tuple[int, int] | None
    rest: Rest | None = None


class Waiting(NamedTuple):
    """A row of the log that is not whole, and the first (client, clock) that it waits for."""

    data: bytes
    missing: tuple[int, int]


class Row(NamedTuple):
    """A row for the journal: a v1 update, who sent it, what its author says of it, and whose client IDs it decides."""

    data: bytes
    author: str | None
    note: Note | None = None
    first_uses: tuple[FirstUse, ...] = ()


class Turn(NamedTuple):
    """What a turn brought.

    ``delta`` is one v1 update for the room; if one update made up the turn and was new throughout, that very
    bytes object. ``rows`` are the same for the journal, consecutive updates of one author and note joined.
    ``before`` is the state vector before the turn if the delta has more than ``LARGE_DELTA`` bytes; else None.
    """

    delta: bytes
    rows: tuple[Row, ...]
    before: bytes | None = None


NEW: Final = Applied(True, None)
_KNOWN: Final = Applied(False, None)


class _Deleted:
    """What a turn deletes: few ranges of a client, to be merged, and many encoded, which are only put together.

    ``few`` are (start, end); ``many`` are counts and bytes (clock, length, clock, length ...).
    """

    __slots__ = ("few", "many")

    def __init__(self) -> None:
        self.few: dict[int, list[tuple[int, int]]] = {}
        self.many: dict[int, list[tuple[int, bytes]]] = {}

    def __bool__(self) -> bool:
        return bool(self.few or self.many)

    def add(self, client: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Add ranges; some hundred take as long as a slice may."""
        few = self.few.setdefault(client, [])
        few += ranges
        if len(few) >= BLOCK:
            del self.few[client]
            self.many.setdefault(client, []).append((len(few), encode_ranges(few)))

    def extend(self, other: _Deleted) -> None:
        """Add what another one has."""
        for client, many in other.many.items():
            self.many.setdefault(client, []).extend(many)
        for client, few in other.few.items():
            self.add(client, few)

    def encode(self) -> bytes:
        """Encode the delete set, clients descending; it is canonical unless one client has many ranges."""
        if not self.many:
            return encode_delete_set(self.few)
        clients = sorted(self.few.keys() | self.many.keys(), reverse=True)
        parts = [encode_var_uint(len(clients))]
        for client in clients:
            many = self.many.get(client, [])
            few = merge_ranges(self.few.get(client, ()))
            parts += (encode_var_uint(client), encode_var_uint(len(few) + sum(count for count, _ in many)))
            parts += (encode_ranges(few), *(ranges for _, ranges in many))
        return b"".join(parts)


class _Entry:
    """One update's part of a turn: a whole update that was new throughout, or runs of one, and what it deletes.

    A whole update deletes what it says itself where there is no ``deleted``.
    """

    __slots__ = ("author", "deleted", "note", "runs", "update")

    def __init__(
        self,
        author: str | None,
        note: Note | None,
        update: Update | None,
        runs: list[Run] | None = None,
        deleted: _Deleted | None = None,
    ) -> None:
        self.author = author
        self.note = note
        self.update = update
        self.runs = runs
        self.deleted = deleted


class _Fresh:
    """What an update brings of clients that are not known yet: by client, and by how many bytes the document grows."""

    __slots__ = ("_sections", "clocks", "runs", "size", "tails")

    def __init__(self) -> None:
        self._sections: dict[int, Section] = {}
        self.clocks: dict[int, int] = {}
        self.tails: dict[int, Tail] = {}
        self.runs: dict[int, Run] = {}
        self.size = 0

    def add(self, section: Section, run: Run) -> None:
        """Add the structs of one client from 0 on."""
        client = section.client
        tail = Tail(0)
        tail.append(0, run.structs, run.data, run.marks, 0)
        self._sections[client] = section
        self.clocks[client] = run.end
        self.tails[client] = tail
        self.runs[client] = run
        self.size += _head_size(client, 0) + len(run.data)

    def remove(self, client: int) -> tuple[Section, int]:
        """Leave out a client that is known by now; return what was read of it, and how far it goes."""
        self.size -= _head_size(client, 0) + len(self.runs.pop(client).data)
        del self.tails[client]
        return self._sections.pop(client), self.clocks.pop(client)


class Document:
    """A document in memory.

    Give it updates with `apply_update`, then call `flush` once a turn for what is to be relayed and stored.
    ``version`` grows with every change: two calls of `encode_state_as_update` or `encode_state_vector` at one
    version say the same. ``size`` is about how many bytes the whole document has, encoded, and ``garbage`` how many of
    them the next snapshot is known to leave out (`Document.rebase`). ``waiting`` are the rows of
    the log that are not whole, because it lacks others; nothing of them that waits is in what the document encodes.
    ``resets`` is the highest number of a reset that it has seen, ``strict`` the client ID of the newest marker of a
    strict one (``update.reset``).
    ``torn`` tells, when a call has raised anything but an error of ours, that it has left a part of an update here: the
    document is of no use then.
    """

    __slots__ = (
        "_clocks",
        "_deletes",
        "_first_uses",
        "_stored",
        "_tails",
        "_turn",
        "_vector",
        "garbage",
        "resets",
        "size",
        "strict",
        "torn",
        "version",
        "waiting",
    )

    def __init__(self) -> None:
        self._clocks: dict[int, int] = {}
        self._tails: dict[int, Tail] = {}
        self._deletes = DeleteSet()
        self._stored: IndexedUpdate | None = None
        self._turn: list[_Entry] = []
        self._first_uses: list[tuple[int, FirstUse]] = []  # with the places of their entries in the turn
        self._vector = EncodedClocks(Region())
        self.version = 0
        self.torn = False
        self.size = 2
        self.garbage = 0
        self.resets = 0
        self.strict: int | None = None
        self.waiting: list[Waiting] = []

    @classmethod
    def load(
        cls, snapshot: bytes | None, index: bytes | None, rows: Sequence[bytes]
    ) -> Generator[None, None, Document]:
        """Open a document from its snapshot and the rows of the log after it, in order.

        A generator that yields about every millisecond and returns the document. With the ``index`` that
        belongs to the snapshot its structs are not read. Rows that the snapshot covers do no harm. The document has
        what is whole; rows that lack something are in ``waiting``.
        Raises UpdateError when a row is malformed, and DecodeError when the index does not fit.
        """
        document = cls()
        stored: IndexedUpdate | None = None
        if snapshot is not None:
            stored = open_index(snapshot, index or b"")
            if stored is None:
                reader = UpdateReader(snapshot, stored=True)
                while not reader.step():
                    yield
                stored = open_index(snapshot, index_update(reader.result))
                yield
        if stored is not None:
            yield from stored.read_vector()
            document._clocks = dict(zip(stored.sections.clients, stored.ends, strict=True))
            document._deletes = DeleteSet(stored.deletes, stored.delete_marks)
            document._stored = stored
            document._vector = EncodedClocks(stored.vector)
            document.size = len(stored.data)
            document._note_resets(takewhile(_is_reserved, stored.sections.clients))
        elif snapshot is not None:
            rows = [snapshot, *rows]
        waiting = yield from document._replay(rows)
        # Nodes that write one log order it causally; what is out of order, as after a gap was filled, is tried again.
        version = -1
        while waiting and document.version != version:
            version = document.version
            waiting = yield from document._replay([row.data for row in waiting])
        document.waiting = waiting
        return document

    def copy(self) -> Document:
        """Return the same document, to try an update on; what was applied since the last flush is no turn of it.

        Costs copies of the tails, and of the clocks and blocks of deletes.
        """
        made = Document()
        made._clocks = self._clocks.copy()
        made._tails = {client: tail.copy() for client, tail in self._tails.items()}
        made._deletes = self._deletes.copy()
        made._stored = self._stored
        made._vector = self._vector.copy()
        made.version, made.size, made.garbage = self.version, self.size, self.garbage
        made.resets, made.strict = self.resets, self.strict
        return made

    def _replay(self, rows: Sequence[bytes]) -> Generator[None, None, list[Waiting]]:
        """Apply rows of the log, which are no turn; return those that are not whole."""
        waiting: list[Waiting] = []
        for at, row in enumerate(rows):
            if len(row) < _LARGE:
                applied = self.apply_update(read_update(row, stored=True), stored=True)
                if at % _ROWS == _ROWS - 1:
                    yield
            else:
                applied = yield from self.apply_update_in_slices(row, stored=True)
            if applied.missing is not None:
                waiting.append(Waiting(row, applied.missing))
            self._turn.clear()
        return waiting

    def apply_stored(self, row: bytes, author: str | None = None) -> Applied:
        """Apply a row of the log as `apply_update` does, and keep it in ``waiting`` if it is not whole."""
        applied = self.apply_update(read_update(row, stored=True), author, stored=True)
        if applied.missing is not None:
            self.waiting.append(Waiting(row, applied.missing))
        return applied

    def apply_waiting(self) -> bool:
        """Apply rows in ``waiting`` for which what they waited for has come; return whether that brought anything."""
        came = True
        new = False
        while came:
            waiting, self.waiting = self.waiting, []
            came = False
            for row in waiting:
                if self.lacks(*row.missing):
                    self.waiting.append(row)
                elif self.apply_stored(row.data).new:
                    came = new = True
        return new

    def apply_update(
        self, update: bytes | Update, author: str | None = None, note: Note | None = None, *, stored: bool = False
    ) -> Applied:
        """Add what is whole and new of a v1 update to the document and the turn (yjs ``applyUpdate``).

        Raises UpdateError, before anything has changed, when clients would throw on it. Above some 16 KB use
        `apply_update_in_slices`. ``stored``: it comes from the log.
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
            if (
                section.clock == clocks.get(client, 0)
                and section.count
                and not section.deleted
                and (section.clock or client < RESERVED)
            ):
                for _, other, clock in section.references:
                    if clock >= clocks.get(other, 0):
                        break
                else:
                    self.torn = True
                    tail = self._tails.get(client)
                    if tail is None:
                        tail = self._tails[client] = Tail(section.clock)
                        self.size += _head_size(client, section.clock)
                    start = section.start
                    run = update.data[start : section.stop]
                    tail.append(section.clock, section.count, run, section.marks, start)
                    clocks[client] = section.end
                    self.size += len(run)
                    self.version += 1
                    vector = self._vector
                    vector.encoded = None
                    vector.moved.add(client)
                    self._turn.append(_Entry(author, note, update))
                    self.torn = False
                    return NEW
        # One stretch is deleted, all of which is known and still there:
        elif len(deletes) == 1 and not sections:
            entry = deletes[0]
            if len(entry.ranges) == 2:
                start, length = entry.ranges
                end = start + length
                if end <= clocks.get(entry.client, 0):
                    grown = self._deletes.grown
                    self.torn = True
                    if self._deletes.add_new(entry.client, start, end):
                        self.size += self._deletes.grown - grown
                        self.version += 1
                        self._turn.append(_Entry(author, note, update))
                        self.torn = False
                        return NEW
                    self.torn = False
        return at_once(self._apply(update, author, note, stored))

    def apply_update_in_slices(
        self,
        data: bytes,
        author: str | None = None,
        note: Note | None = None,
        *,
        stored: bool = False,
        admit: Callable[[], object] | None = None,
        partly: bool = False,
    ) -> Generator[None, None, Applied]:
        """Apply a large update as `apply_update` does, in a generator that yields about every millisecond.

        ``stored`` is what it is for `read_update`. With ``admit`` the update is taken as a whole or not at all, unless
        ``partly``. It is called when everything is ready and something of the update is new, or is left out: nothing
        happens between that call and the change, and nothing has changed if it raises.

        Other updates may be applied, and the turn flushed, between the slices; the large one joins
        document and turn at once, at the end. Raises UpdateError, and UpdateIncomplete with ``admit``.
        """
        reader = UpdateReader(data, stored=stored)
        while not reader.step():
            yield
        return (yield from self._apply(reader.result, author, note, stored, admit, partly))

    def _apply(
        self,
        update: Update,
        author: str | None,
        note: Note | None,
        stored: bool,
        admit: Callable[[], object] | None = None,
        partly: bool = False,
    ) -> Generator[None, None, Applied]:
        """Apply an update of any kind: find what is whole and stage what is new, in slices, then commit at once."""
        clocks = self._clocks
        reached, missing, roots = yield from self._find_whole(update)
        exact = missing is None
        work = 0

        # Stage: the tails of clients not seen before, and what counts as deleted, are made ready.
        plan: list[tuple[Section, int]] = []
        fresh = _Fresh()
        resets: list[int] = []
        version = self.version
        staged = self._deletes.additions()
        for section in update.sections:
            # A copy of 64 KB costs what a hundred small sections do.
            work += 1 + (section.stop - section.start >> 10)
            if work >= _RANGES:
                work = 0
                yield
            client = section.client
            end = min(section.end, reached[client])
            known = clocks.get(client, 0)
            if client >= RESERVED and not known:
                resets.append(client)
            if not section.count or end <= known or end <= section.clock:
                exact = False
                continue
            deleted = section.deleted
            for at in range(0, len(deleted), 2 * _RANGES):
                starts, ends = deleted[at : at + 2 * _RANGES : 2], deleted[at + 1 : at + 2 * _RANGES : 2]
                if starts[0] < known or ends[-1] > end:
                    starts, ends = [max(start, known) for start in starts], [min(stop, end) for stop in ends]
                staged.add(client, [one for one in zip(starts, ends, strict=True) if one[0] < one[1]])
                work += len(starts)
                if work >= _RANGES:
                    work = 0
                    yield
            if known or section.clock or client in fresh.runs:
                plan.append((section, end))
                continue
            if end != section.end:
                exact = False
            run = cut_section(update.data, section, 0, end)
            fresh.add(section, run)

        # Deletes of clocks that are known by then, and not deleted yet.
        deletes = _Deleted()
        compared: set[int] = set()
        for entry in update.deletes:
            work += 1
            if work >= _RANGES:
                work = 0
                yield
            client = entry.client
            # Once a client: an update may name it a million times, and comparing costs the whole entry.
            if len(entry.ranges) > 2 and client not in compared:
                compared.add(client)
                if self._deletes.has_entry(client, update.data[entry.start : entry.stop]):
                    exact = False
                    continue
            limit = max(reached.get(client, 0), clocks.get(client, 0))
            for at in range(0, len(entry.ranges), 2 * _RANGES):
                portion = list(pairs(entry.ranges[at : at + 2 * _RANGES]))
                work += len(portion)
                if work >= _RANGES:
                    work = 0
                    yield
                if max(portion, key=_END)[1] > limit:
                    # Pending, as yjs calls it; whoever merges would drop it, so it is asked for like a struct.
                    exact = False
                    if missing is None:
                        missing = (client, limit)
                    roots[client] = min(roots.get(client, limit), limit)
                    portion = [(start, min(end, limit)) for start, end in portion if start < limit]
                parts = self._deletes.missing_of(client, portion)
                if parts != portion:
                    exact = False
                if parts:
                    deletes.add(client, parts)
                    staged.add(client, parts)
        yield from staged.prepare()
        if resets and not stored:
            self._check_resets(resets)
        if admit is not None:
            if missing is not None and not partly:
                raise UpdateIncomplete(f"clock {missing[1]} of client {missing[0]} is missing", missing=missing)
            new = fresh.runs or deletes or any(end > clocks.get(section.client, 0) for section, end in plan)
            if new or missing is not None:
                admit()

        # Commit, without a yield. What others have sent meanwhile can only have raised the clocks.
        self.torn = True
        if self.version != version:
            for client in clocks.keys() & fresh.clocks.keys():
                plan.insert(0, fresh.remove(client))  # before what follows on it
        clocks.update(fresh.clocks)
        replaced = self.size if self._note_resets(resets) else 0
        tails = self._tails
        tails.update(fresh.tails)
        vector = self._vector
        vector.moved.update(fresh.clocks)
        size = self.size + fresh.size
        runs: list[Run] = []
        for section, end in plan:
            client = section.client
            known = clocks.get(client, 0)
            if end <= known:
                exact = False
                continue
            if known != section.clock or end != section.end:
                exact = False
            run = cut_section(update.data, section, known, end)
            if client not in tails:
                tails[client] = Tail(known)
                size += _head_size(client, known)
            tails[client].append(known, run.structs, run.data, run.marks, 0)
            clocks[client] = end
            size += len(run.data)
            runs.append(run)
            vector.moved.add(client)
        if not runs and not fresh.runs and not deletes:
            self.torn = False
            return _KNOWN if missing is None else (yield from self._left_out(update, missing, roots, new=False))
        size -= self._deletes.grown
        self._deletes.commit(staged)
        self.size = size + self._deletes.grown
        self.garbage = max(self.garbage, replaced)
        self.version += 1
        vector.encoded = None
        if exact:
            self._turn.append(_Entry(author, note, update, None, deletes))
        else:
            self._turn.append(_Entry(author, note, None, [*fresh.runs.values(), *runs], deletes))
        self.torn = False
        return NEW if missing is None else (yield from self._left_out(update, missing, roots, new=True))

    def _check_resets(self, clients: Iterable[int]) -> None:
        """Refuse client IDs of resets that leave out others: whoever has such an ID has all that came before.

        Else one update could take the last of them, and the document could never be reset.
        """
        newest = self.resets
        for number in sorted(map(number_of, clients)):
            if number > newest + 1:
                raise UpdateError(f"a client ID is reserved for reset {number}, and {newest} were seen")
            newest = max(newest, number)

    def _note_resets(self, clients: Iterable[int]) -> bool:
        """Note client IDs of resets that the document has now; tell whether one is a marker."""
        marked = False
        for client in clients:
            if client in self._clocks:
                marked = marked or is_marker(client)
                self.resets = max(self.resets, number_of(client))
                if is_marker(client, strict=True):
                    self.strict = max(client, self.strict or 0)
        return marked

    def repeats_replaced(self, data: bytes) -> Generator[None, None, bool]:
        """Tell whether an update begins structs again that a strict reset has replaced, and lacks its marker.

        That is an old copy which was read after its client had synced. What people type goes on where they were. A
        generator that yields about every millisecond. Raises UpdateError when the update is malformed.
        """
        reader = UpdateReader(data)
        while not reader.step():
            yield
        repeated = False
        for at, section in enumerate(reader.result.sections, 1):
            if at % _RANGES == 0:
                yield
            if section.client == self.strict:
                return False
            repeated = repeated or (
                not section.clock
                and section.client in self._clocks
                and section.client < RESERVED
                and self._deletes.covers(section.client, 0, 1)
            )
        return repeated

    def _left_out(
        self, update: Update, missing: tuple[int, int], roots: StateVector, *, new: bool
    ) -> Generator[None, None, Applied]:
        return Applied(new, missing, (yield from take_rest(update, self._clocks, roots)))

    def _find_whole(
        self, update: Update
    ) -> Generator[None, None, tuple[StateVector, tuple[int, int] | None, StateVector]]:
        """Find how far each client of the update is whole, the first id that something waits for, and all such ids.

        These are beyond the update; of each client the lowest clock.

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
        roots: StateVector = {}
        for at, (client, (other, clock)) in enumerate(blocked.items(), 1):
            if at % _REFERENCES == 0:
                yield
            # What lies in the update itself waits in turn: name what it waits for.
            if other == client or other not in blocked:
                roots[other] = min(roots.get(other, clock), clock)
                if missing is None and (other == client or other not in queues):
                    missing = (other, clock)
        if blocked and missing is None:
            missing = next(iter(blocked.values()))
        return reached, missing, roots

    def flush(self) -> Turn | None:
        """Return everything applied since the last flush as one turn, or None if that is nothing."""
        turn = self._turn
        if not turn:
            return None
        self._turn = []
        delta = _merge(turn)
        before = self._vector_before(turn) if len(delta) > LARGE_DELTA else None
        first, uses = turn[0], self._first_uses
        if len(turn) == 1:
            return Turn(
                delta, (Row(delta, first.author, first.note, self._take_first_uses(1) if uses else ()),), before
            )
        groups: list[list[_Entry]] = []
        for entry in turn:
            if groups and groups[-1][0].author == entry.author and groups[-1][0].note == entry.note:
                groups[-1].append(entry)
            else:
                groups.append([entry])
        if len(groups) == 1:
            taken = self._take_first_uses(len(turn)) if uses else ()
            return Turn(delta, (Row(delta, first.author, first.note, taken),), before)
        rows: list[Row] = []
        end = 0
        for group in groups:
            end += len(group)
            rows.append(Row(_merge(group), group[0].author, group[0].note, self._take_first_uses(end)))
        return Turn(delta, tuple(rows), before)

    def _take_first_uses(self, end: int) -> tuple[FirstUse, ...]:
        """Take what was noted of the entries of the turn before ``end``."""
        taken = tuple([use for at, use in self._first_uses if at < end])
        self._first_uses = [each for each in self._first_uses if each[0] >= end]
        return taken

    def find_used(self, client: int) -> int | None:
        """Find the first clock that the turn's newest update has brought of a client; None if it has none of it."""
        for section in self._newest():
            if section.client == client:
                return section.clock
        return None

    def only_used(self) -> int | None:
        """Return the client of all structs of the turn's newest update; None if there are several, or no structs."""
        sections = self._newest()
        return sections[0].client if len(sections) == 1 else None

    def _newest(self) -> Sequence[Section | Run]:
        newest = self._turn[-1]
        return newest.runs or () if newest.update is None else newest.update.sections

    def note_first_use(self, first_use: FirstUse) -> None:
        """Note whose a client ID is by the newest update of the turn; it goes with the row that holds that update."""
        self._first_uses.append((len(self._turn) - 1, first_use))

    def list_turn_clients(self) -> set[int]:
        """List the clients of which the turn holds structs; call it before `flush`."""
        found: set[int] = set()
        for entry in self._turn:
            sections: Sequence[Section | Run] = entry.runs or () if entry.update is None else entry.update.sections
            found.update([section.client for section in sections])
        return found

    @property
    def in_turn(self) -> bool:
        """Whether something was applied since the last flush."""
        return bool(self._turn)

    def encode_flushed_vector(self) -> bytes:
        """Encode the state vector as it was at the last flush."""
        return self._vector_before(self._turn) if self._turn else self.encode_state_vector()

    def _vector_before(self, turn: list[_Entry]) -> bytes:
        """Encode the state vector that there was before a turn, which holds all that came since."""
        before: dict[int, int] = {}
        for entry in reversed(turn):
            sections: Sequence[Section | Run] = entry.runs or () if entry.update is None else entry.update.sections
            for section in reversed(sections):
                before[section.client] = section.clock
        return self._vector.encode_before(self._clocks, before)

    def stored_deletes(self, known: Mapping[int, int]) -> Callable[[], DeleteSet] | None:
        """Return what makes the delete set of the snapshot below, if a state vector holds all of that snapshot."""
        stored = self._stored
        if stored is None or any(
            known.get(client, 0) < end for client, end in zip(stored.sections.clients, stored.ends, strict=True)
        ):
            return None
        return partial(DeleteSet, stored.deletes, stored.delete_marks)

    def contains_update(self, data: bytes) -> bool:
        """Tell whether an update holds nothing new, without applying it; UpdateError when it is malformed."""
        return at_once(self.contains_update_in_slices(data))

    def contains_update_in_slices(self, data: bytes) -> Generator[None, None, bool]:
        """Do what `contains_update` does in a generator that yields about every millisecond."""
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

    def repeats(self, data: bytes, known: StateVector) -> Generator[None, None, bool]:
        """Tell whether an update says something beyond ``known`` that the document has; ``known`` has it all then.

        ``known`` is what the sender has told or was sent so far. A generator that yields about every
        millisecond. Raises UpdateError when the update is malformed.
        """
        reader = UpdateReader(data)
        while not reader.step():
            yield
        clocks = self._clocks
        repeated = False
        for section in reader.result.sections:
            have = known.get(section.client, 0)
            if section.count and section.end > have:
                repeated = repeated or min(section.end, clocks.get(section.client, 0)) > max(have, section.clock)
                known[section.client] = section.end
        for entry in reader.result.deletes:
            have, own = known.get(entry.client, 0), clocks.get(entry.client, 0)
            for start, end in pairs(entry.ranges):
                repeated = repeated or min(end, own) > max(have, start)
        return repeated

    @property
    def clients(self) -> int:
        """How many client IDs the document has seen."""
        return len(self._clocks)

    @property
    def tail_clients(self) -> int:
        """How many of them have edited since the snapshot below; encoding all costs some 3 us for each."""
        return len(self._tails)

    @property
    def naming_bytes(self) -> int:
        """About how many bytes its state is named by (`collab.engine.tags`), 12 for each client ID."""
        return 12 * len(self._clocks) + self._deletes.nbytes

    def lacks(self, client: int, clock: int) -> bool:
        """Tell whether the clock of the client is still unknown here."""
        return clock >= self._clocks.get(client, 0)

    def clock(self, client: int) -> int:
        """Return the clock behind the last that is known of a client; 0 if none is."""
        return self._clocks.get(client, 0)

    def encode_state_vector(self) -> bytes:
        """Encode the state vector (yjs ``encodeStateVector``), clients descending; kept until the next change.

        Where many clients have edited, run `settle_state_vector` first.
        """
        return self._vector.encode(self._clocks)

    @property
    def is_settled(self) -> bool:
        """Whether the state vector can be encoded in one short step."""
        return self._vector.settled

    def settle_state_vector(self) -> Generator[None, None, None]:
        """Make ready that the state vector can be, in a generator that yields about every millisecond."""
        return self._vector.settle(self._clocks)

    def encode_state_as_update(self, state_vector: bytes = b"\0") -> bytes:
        """Encode what a client with that state vector lacks, and the delete set (yjs ``encodeStateAsUpdate``).

        Without a vector that is the whole document. The result is a v1 update. Raises DecodeError when the
        vector is malformed. Clocks beyond the document's are the client's own business.
        """
        count, pieces = self._lacking(state_vector)
        return join((encode_var_uint(count), *pieces, self._deletes.encode()))

    def collect_state_as_update(self, state_vector: bytes = b"\0") -> Parts:
        """Collect the parts of what `encode_state_as_update` returns; nothing long is copied."""
        count, pieces = self._lacking(state_vector)
        return Parts((encode_var_uint(count), *pieces, *at_once(self._deletes.pieces())))

    def _lacking(self, state_vector: bytes) -> tuple[int, list[Piece]]:
        """Return the sections that a client with that state vector lacks, and how many they are."""
        if state_vector == b"\0":
            return self.sections.patched({client: self._section(client) for client in self._tails})
        own = self.encode_state_vector()
        if own == state_vector:
            return 0, []
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
            pieces: list[Piece] = []
            count = 0
            for client in sorted(decode_pairs(lacking), reverse=True):
                known = theirs.get(client, 0)
                if known < clocks[client]:
                    pieces += self._section(client, known)
                    count += 1
            return count, pieces
        # Most is lacking: the whole, but for what they named and what is not in the snapshot.
        changed = {client: self._section(client) for client in self._tails}
        for client, known in theirs.items():
            if client in clocks:
                changed[client] = self._section(client, known) if known < clocks[client] else []
        for client in decode_pairs(their_pairs & our_pairs):
            changed[client] = []
        count, pieces = self.sections.patched(changed)
        return count - sum(not section for section in changed.values()), pieces

    # For an answer that is made in slices (``engine.answers``)

    def tail_client_ids(self) -> list[int]:
        """Return the clients that have edited since the snapshot below."""
        return list(self._tails)

    @property
    def sections(self) -> Region:
        """The sections of the snapshot below."""
        return Region() if self._stored is None else self._stored.sections

    def section(self, client: int, known: int) -> list[Piece]:
        """Return what a client has from a clock on, as a section of an update; nothing if that is nothing."""
        return self._section(client, known) if known < self._clocks[client] else []

    def deletes(self) -> Generator[None, None, list[Piece]]:
        """Give the encoded delete set, in a generator that yields about every millisecond."""
        return self._deletes.pieces()

    def _section(self, client: int, known: int = 0) -> list[Piece]:
        """Return the client's structs from clock ``known`` on as a section: header and runs."""
        stored = self._stored
        tail = self._tails.get(client)
        count = 0
        runs: list[Piece] = []
        if stored is not None and (tail is None or known < tail.clock):
            count, start, stop = stored.body(client)
            if count and known:
                offset, clock, ordinal = stored.mark(start, stop, known - 1)
                passed, head, start = suffix(stored.data, offset, stop, clock, client, known)
                count -= ordinal + passed
                if head:
                    count += 1
                    runs.append(head)
            runs.append(span(stored.data, start, stop))
        if tail is not None:
            left, head, offset = tail.suffix(client, known)
            count += left
            if head:
                runs.append(head)
            runs += tail.pieces(offset)
        return [encode_var_uint(count) + encode_var_uint(client) + encode_var_uint(known), *runs]

    def note_end(self) -> None:
        """Note where everything ends now, for a snapshot of this moment: ``rebase`` need not look for it then."""
        for client, tail in self._tails.items():
            tail.note_end(self._clocks[client])

    def rebase(self, snapshot: bytes, index: bytes, state_vector: bytes) -> None:
        """Put a snapshot of this document, made at ``state_vector``, under it; what came since stays on top.

        Where the snapshot ends in what came is looked for, a client after the other, up to half a millisecond each;
        not after ``note_end``.

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
        tails: dict[int, Tail] = {}
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
        encoded = self._vector.encoded
        self._vector = EncodedClocks(stored.vector, tails)
        self._vector.encoded = encoded
        self._deletes.rebase(stored.deletes, stored.delete_marks)
        heads = sum(_head_size(client, tail.clock) for client, tail in tails.items())
        above = sum(tail.size for tail in tails.values())
        before, self.size = self.size, len(snapshot) + heads + above + self._deletes.grown
        # What the snapshot has not taken away can lie in what came since alone.
        self.garbage = min(max(0, self.garbage - max(0, before - self.size)), above)


def _is_reserved(client: int) -> bool:
    return client >= RESERVED


def _head_size(client: int, clock: int) -> int:
    """Return about how many bytes a section's count, client and clock add; none when the section is there already."""
    return 0 if clock else len(encode_var_uint(client)) + 2


def _merge(entries: Sequence[_Entry]) -> bytes:
    """Merge the entries of a turn: each client's runs follow on each other, for they were applied in this order."""
    first = entries[0]
    if len(entries) == 1 and first.update is not None:
        return first.update.data
    sections: dict[int, list[bytes]] = {}
    heads: dict[int, list[int]] = {}
    deleted = _Deleted()
    for entry in entries:
        update = entry.update
        if entry.deleted is not None:
            deleted.extend(entry.deleted)
        if update is None:
            for run in entry.runs or ():
                head = heads.get(run.client)
                if head is None:
                    heads[run.client] = [run.structs, run.clock]
                    sections[run.client] = [run.data]
                else:
                    head[0] += run.structs
                    sections[run.client].append(run.data)
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
        for entry_deletes in update.deletes if entry.deleted is None else ():
            deleted.add(entry_deletes.client, pairs(entry_deletes.ranges))
    parts = [encode_var_uint(len(heads))]
    for client in sorted(heads, reverse=True):
        count, clock = heads[client]
        parts += (encode_var_uint(count), encode_var_uint(client), encode_var_uint(clock))
        parts += sections[client]
    parts.append(deleted.encode())
    return b"".join(parts)
