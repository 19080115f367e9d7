"""What clients have sent that waits for what nobody has sent yet (yjs: pending), kept beside the document.

Strategy: of an update that is not whole the document takes what it can (``document.py``); here is the rest, as an
update of its own. It is in nothing that the document encodes: a joiner would wait for ever for what may never come.
When the clock has come for which it waits, it is read again like an update that was just sent.

A client sends what is pending in its own document again each time it comes, and more each time. So an update that is
here already is not kept twice, and one that holds another takes its place. Only few ranges are compared; what has more
is told apart by its bytes alone. All of it is bounded, for a document and for a node.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterable, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple

from collab.engine.budget import Budget
from collab.protocol.lib0 import encode_var_uint
from collab.update.merge import cut_section, pairs
from collab.update.ranges import encode_ranges
from collab.update.reader import Update
from collab.update.state_vector import StateVector

NODE_BYTES: Final = 64 * 1024 * 1024
"""Bytes that all open documents of a node keep together. What is read from the store counts, and is never refused."""

OVERHEAD: Final = 1024
"""Bytes for which an update counts besides its own: it costs memory, a row in the store, and a look in each turn."""

# Ranges of an update that are compared with those of others (32 bytes each, which count too), and how many others,
# the newest ones: some 40 us, at most a millisecond.
_COMPARED: Final = 16
_OTHERS: Final = 16

# Ranges, sections, kilobytes between two yields: about a millisecond.
_WORK: Final = 500

# Bytes for which each clock counts that an update waits for: two entries of dicts.
_WAIT: Final = 128

_STRUCTS, _DELETES = 0, 1


class Rest(NamedTuple):
    """What of an update waits: ``data`` is a v1 update, ``missing`` has the clocks for which it waits, by client.

    ``spans`` are the clocks of its structs (kind 0) and deletions (kind 1), as kind, client, start, end (exclusive),
    kind, ...; empty if there are too many to compare.
    """

    data: bytes
    missing: StateVector
    spans: array[int]


class KeptUpdate(NamedTuple):
    """An update that waits: ``key`` is made of ``data``, and ``author`` has sent it.

    ``missing`` is None while nobody has looked what it waits for since it was read from the store. It is read again
    when one of these clocks has come.
    """

    key: bytes
    data: bytes
    author: str | None
    missing: StateVector | None
    spans: array[int]

    @classmethod
    def stored(cls, key: bytes, data: bytes, author: str | None) -> KeptUpdate:
        """Make an update of what the store keeps of it."""
        return cls(key, data, author, None, array("Q"))

    @property
    def size(self) -> int:
        """Give the bytes for which it counts."""
        return _size(self.data, self.missing or {}, self.spans)


class KeptChange(NamedTuple):
    """What a turn changes in the store: updates that wait from now on, and the keys of those that do so no more."""

    added: tuple[KeptUpdate, ...]
    settled: tuple[bytes, ...]


def _size(data: bytes, missing: StateVector, spans: array[int]) -> int:
    return OVERHEAD + len(data) + 8 * len(spans) + _WAIT * len(missing)


def make_key(data: bytes) -> bytes:
    """Make the key of an update: equal for equal bytes, and it tells whether they are what was written."""
    return blake2b(data, digest_size=16).digest()


def take_rest(update: Update, clocks: Mapping[int, int], missing: StateVector) -> Generator[None, None, Rest]:
    """Cut out of an update what lies beyond the state vector ``clocks``; yields about every millisecond.

    ``missing`` is what it waits for.

    Structs keep their bytes. Where clocks are lacking between two runs of a client a Skip says so, as yjs writes it.
    """
    spans = array("Q")
    sections: list[list[bytes]] = []  # of each client: its head, and its runs
    client, count, first, end, work = -1, 0, 0, 0, 0
    for section in update.sections:
        # A copy of 64 KB costs what a hundred small sections do.
        work += 1 + (section.stop - section.start >> 10)
        if work >= _WORK:
            work = 0
            yield
        known = max(clocks.get(section.client, 0), section.clock)
        if not section.count or section.end <= known:
            continue
        if section.client != client:
            client, count, first, end = section.client, 0, known, known
            sections.append([b""])
        body = sections[-1]
        if known > end:
            body.append(b"\x0a" + encode_var_uint(known - end))
            count += 1
        run = cut_section(update.data, section, known, section.end)
        body.append(run.data)
        count += run.structs
        end = run.end
        body[0] = encode_var_uint(count) + encode_var_uint(client) + encode_var_uint(first)
        if len(spans) <= 4 * _COMPARED:
            spans.extend((_STRUCTS, client, known, end))
    entries: list[bytes] = []
    for entry in update.deletes:
        limit = clocks.get(entry.client, 0)
        found: list[tuple[int, int]] = []
        ranges: list[bytes] = []
        count = 0
        for start, stop in pairs(entry.ranges):
            work += 1
            if work >= _WORK:
                work = 0
                ranges.append(encode_ranges(found))
                found.clear()
                yield
            if stop > limit:
                found.append((max(start, limit), stop))
                count += 1
                if len(spans) <= 4 * _COMPARED:
                    spans.extend((_DELETES, entry.client, *found[-1]))
        if count:
            ranges.append(encode_ranges(found))
            entries.append(encode_var_uint(entry.client) + encode_var_uint(count) + b"".join(ranges))
    data = b"".join(
        (
            encode_var_uint(len(sections)),
            *(part for body in sections for part in body),
            encode_var_uint(len(entries)),
            *entries,
        )
    )
    return Rest(data, missing, spans if len(spans) <= 4 * _COMPARED else array("Q"))


class KeptUpdates:
    """The updates of one document that wait.

    Args:
        max_bytes: how much they may be together, each with ``OVERHEAD``.
        budget: what the rooms of this node keep together.
    """

    __slots__ = ("_added", "_budget", "_max_bytes", "_nbytes", "_ready", "_settled", "_updates", "_waiting")

    def __init__(self, max_bytes: int, budget: Budget) -> None:
        self._max_bytes = max_bytes
        self._budget = budget
        self._nbytes = 0
        self._updates: dict[bytes, KeptUpdate] = {}
        self._waiting: dict[int, dict[bytes, int]] = {}  # by client, the clock for which each update waits
        self._ready: dict[bytes, None] = {}
        # Since the last `flush`; what was added and has gone since then is in neither.
        self._added: dict[bytes, KeptUpdate] = {}
        self._settled: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._updates)

    @property
    def nbytes(self) -> int:
        """The bytes that they take."""
        return self._nbytes

    @property
    def changed(self) -> bool:
        """Whether `flush` has anything to give."""
        return bool(self._added or self._settled)

    def add(self, rest: Rest, author: str | None) -> bool:
        """Keep an update that waits; return False if there is no room for it.

        It is in the next `flush`, unless all of it is here already.
        """
        size = _size(rest.data, rest.missing, rest.spans)
        if size > self._max_bytes:
            return False
        key = make_key(rest.data)
        if key in self._updates:
            return True
        replaced: list[KeptUpdate] = []
        for kept in islice(reversed(self._updates.values()), _OTHERS):
            if kept.spans and rest.spans:
                if covers(kept.spans, rest.spans):
                    return True
                if covers(rest.spans, kept.spans):
                    replaced.append(kept)
        more = size - sum([kept.size for kept in replaced])
        if self._nbytes + more > self._max_bytes or self._budget.nbytes + more > self._budget.limit:
            return False
        update = KeptUpdate(key, rest.data, author, rest.missing, rest.spans)
        # Whatever fails in between: nothing counts as kept that is not on its way to the store.
        if key in self._settled:
            del self._settled[key]  # it is in the store still
        else:
            self._added[key] = update
        self._keep(update)
        for kept in replaced:
            self.settle(kept.key)
        return True

    def load(self, updates: Iterable[KeptUpdate]) -> None:
        """Take what the store keeps; those that are here already are passed over."""
        for update in updates:
            if update.key not in self._updates:
                self._keep(update)

    def _keep(self, update: KeptUpdate) -> None:
        self._updates[update.key] = update
        self._nbytes += update.size
        self._budget.nbytes += update.size
        if update.missing is None:
            self._ready[update.key] = None
        for client, clock in (update.missing or {}).items():
            self._waiting.setdefault(client, {})[update.key] = clock

    def note_clocks(self, clients: Iterable[int], lacks: Callable[[int, int], bool]) -> None:
        """Note that the clocks of these clients have risen; ``lacks`` tells whether the document lacks one."""
        for client in clients:
            for key, clock in self._waiting.get(client, {}).items():
                if not lacks(client, clock):
                    self._ready[key] = None

    def find_ready(self) -> KeptUpdate | None:
        """Give an update that may wait no more: one of the clocks has come for which it has waited."""
        for key in self._ready:
            return self._updates[key]
        return None

    def wait(self, kept: KeptUpdate, rest: Rest, lacks: Callable[[int, int], bool]) -> None:
        """Note what an update that was read again still waits for."""
        if self._updates.get(kept.key) is kept:
            self._remove(kept)
            self._keep(kept._replace(missing=rest.missing, spans=rest.spans))
            self.note_clocks(rest.missing, lacks)  # something may have come while it was read

    def settle(self, key: bytes) -> None:
        """Keep an update no longer: the document has all of it, or another one holds it."""
        kept = self._updates.get(key)
        if kept is not None:
            self._remove(kept)
            if self._added.pop(key, None) is None:
                self._settled[key] = None

    def _remove(self, kept: KeptUpdate) -> None:
        del self._updates[kept.key]
        self._ready.pop(kept.key, None)
        for client in kept.missing or ():
            waiting = self._waiting[client]
            del waiting[kept.key]
            if not waiting:
                del self._waiting[client]
        self._nbytes -= kept.size
        self._budget.nbytes -= kept.size

    def drop(self, key: bytes) -> None:
        """Forget an update that cannot be taken; the store has it, and it is tried when the room is opened again."""
        kept = self._updates.get(key)
        if kept is not None:
            self._remove(kept)

    def flush(self) -> KeptChange | None:
        """Give what has changed since the last call; None if that is nothing."""
        if not self.changed:
            return None
        change = KeptChange(tuple(self._added.values()), tuple(self._settled))
        self._added.clear()
        self._settled.clear()
        return change

    def everything(self) -> tuple[KeptUpdate, ...]:
        """Give all that waits."""
        return tuple(self._updates.values())

    def clear(self) -> None:
        """Forget everything: the room has left memory, perhaps because of a defect in the middle of a change."""
        self._budget.nbytes -= self._nbytes
        self._nbytes = 0
        for kept in (self._updates, self._waiting, self._ready, self._added, self._settled):
            kept.clear()


def covers(outer: array[int], inner: array[int]) -> bool:
    """Tell whether each span of ``inner`` lies in one of ``outer``."""
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for at in range(0, len(outer), 4):
        found.setdefault((outer[at], outer[at + 1]), []).append((outer[at + 2], outer[at + 3]))
    for at in range(0, len(inner), 4):
        start, end = inner[at + 2], inner[at + 3]
        if not any(low <= start and end <= high for low, high in found.get((inner[at], inner[at + 1]), ())):
            return False
    return True
