"""Deliberate defects: what the simulation must find, or it would prove nothing.

Strategy: each defect replaces one step of the server by a wrong one, as somebody might write it. ``DEFECTS`` names
them; ``run.py --defects`` looks for the first seed that finds each. A test does that again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from collab.cluster import wire
from collab.cluster.peers import Peers
from collab.engine.awareness import AwarenessStates
from collab.errors import StoreUnavailable
from collab.hub.catch_up import CatchUp
from collab.hub.hub import Hub
from collab.hub.members import Members
from collab.hub.persistence import Persistence
from collab.hub.replication import Replication
from collab.hub.room import LiveRoom
from collab.storage.checksums import seal_snapshot
from collab.storage.memory import MemoryStorage, MemoryStore
from collab.storage.records import Appended, Snapshot


class Defect(NamedTuple):
    """A defect: what it is, and what is replaced by what; ``also`` names a second function that is replaced."""

    what: str
    target: Any
    name: str
    wrong: Callable[..., Any]
    also: tuple[Any, str, Callable[..., Any]] | None = None

    @property
    def replaced(self) -> list[tuple[Any, str, Callable[..., Any]]]:
        """All that is replaced: a class or module, the name of its function, and the wrong function."""
        target = resolve_name(self.target) if isinstance(self.target, str) else self.target
        return [(target, self.name, self.wrong), *([] if self.also is None else [self.also])]


def nothing(*arguments: object, **options: object) -> None:
    """Do nothing, whatever it is called with."""


# Acknowledgements


def _acknowledge_early(self: Any, acks: Any, echo: bytes) -> None:
    self._tell_all(acks, echo)


_tell_all = Persistence._tell_all


def _acknowledge_twice(self: Any, acks: Any, echo: bytes = b"") -> None:
    _tell_all(self, acks, echo)
    _tell_all(self, acks)


def _forget_owed(self: Any, member: Any) -> None:
    member.owed = None


# The store


_append = MemoryStore.append


async def _take_for_committed(self: Any, batch: Any) -> Any:
    try:
        return await _append(self, batch)
    except StoreUnavailable:
        heads = self.storage.heads([entry.name for entry in batch])
        found = []
        for entry in batch:
            head = heads.get(entry.name)
            document_id, seq = (1, 0) if head is None else (head.document_id, head.seq)
            found.append(Appended(document_id, seq + 1, seq + len(entry.rows)))
        return found


_write_snapshot = MemoryStorage.write_snapshot


def _number_by_head(self: Any, document_id: int, snapshot: Snapshot) -> bool:
    head = self._ids[document_id].document.head_seq
    return _write_snapshot(self, document_id, seal_snapshot(replace(snapshot, seq=head, checksum=None)))


def _prune_all(
    self: Any, before: float, limit: int, spare: Any = (), trash_before: float = math.inf, histories: Any = ()
) -> int:
    removed = 0
    for kept in self._ids.values():
        rows = max(0, len(kept.rows) - 3)
        del kept.rows[:rows]
        removed += rows
    return removed


_rows_after = MemoryStorage.rows_after


def _skip_one(self: Any, document_id: int, seq: int, limit: int) -> Any:
    rows = _rows_after(self, document_id, seq, limit)
    return [replace_seq(row, row.seq - 1) for row in rows[1:]]


def replace_seq(row: Any, seq: int) -> Any:
    """Give a row another number."""
    return row._replace(seq=seq)


# Rooms


_add, _write_to_group = Members.add, Members._write_to_group


def _add_late(self: Any, member: Any) -> None:
    _add(self, member)
    _young[member] = None
    asyncio.get_running_loop().call_later(0.05, _young.pop, member, None)


_young: dict[Any, None] = {}


def _write_to_grown(
    self: Any, group: Any, frame: bytes, absent: Any, second: bytes = b"", *, updates: bool = False
) -> None:
    grown = {member: None for member in group if member not in _young}
    _write_to_group(self, grown, frame, absent, second, updates=updates)


_end_turn = LiveRoom.end_turn


def _clear_late(self: Any, now: float) -> None:
    _end_turn(self, now)
    self.dirty = True

    def clear() -> None:
        self.dirty = False

    asyncio.get_running_loop().call_later(0.02, clear)


_sweep = CatchUp._catch_up


def _catch_up_from_now(self: Any, member: Any, updates: Any) -> None:
    member.since_version = self._room.document.version
    _sweep(self, member, updates)


def _relay_to_nobody(self: Any, seq: int | None) -> None:
    end = self.room.end_turn()
    self.perform(end.effects)


# Replication


def _take_any_rows(self: Any, live: Any, document_id: int, seq: int, rows: Any) -> None:
    from collab.storage.records import LogRow

    persistence = live.persistence
    if persistence.document_id == document_id and seq + len(rows) > persistence.seq + 1:
        persistence.seq = seq - 1
        live.receive_stored([LogRow(seq + at, row.data, row.at, row.author) for at, row in enumerate(rows)])


_take_rows = Replication._take_rows


def _leave_out_rows(self: Any, live: Any, document_id: int, seq: int, rows: Any) -> None:
    if live.persistence.document_id is None or seq <= live.persistence.seq + 1:
        _take_rows(self, live, document_id, seq, rows)


_handle = Replication._handle


def _handle_twice(self: Any, live: Any, sender: str, message: Any) -> None:
    _handle(self, live, sender, message)
    _handle(self, live, sender, message)


def _everything_is_own(self: Any) -> bytes | None:
    return self.everything()  # type: ignore[no-any-return]


_decode_frame = wire.decode_frame


def _any_checksum(data: bytes) -> Any:
    import zlib

    return _decode_frame(data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little"))


_hear = Peers._hear


def _take_repeated(self: Any, peer: Any, frame: Any, now: float) -> None:
    peer.numbers.pop(frame.stream, None)
    _hear(self, peer, frame, now)


DEFECTS: Final = {
    "acknowledge early": Defect(
        "an edit is acknowledged before it is committed", Persistence, "_wait_for_commit", _acknowledge_early
    ),
    "acknowledge twice": Defect("each acknowledgement is sent twice", Persistence, "_tell_all", _acknowledge_twice),
    "forget owed": Defect(
        "what a slow reader is owed is forgotten when it has caught up", Persistence, "tell_owed", _forget_owed
    ),
    "swallow a failed commit": Defect(
        "a commit that failed, or of which nobody knows, is taken for done", MemoryStore, "append", _take_for_committed
    ),
    "compact past a foreign row": Defect(
        "a snapshot gets the number of the head of the log, whatever it holds",
        MemoryStorage,
        "write_snapshot",
        _number_by_head,
    ),
    "prune too much": Defect("rows go that no snapshot holds", MemoryStorage, "prune", _prune_all),
    "skip a row": Defect("the rows behind a number begin one too late", MemoryStorage, "rows_after", _skip_one),
    "drop a member between snapshot and live": Defect(
        "a member gets the document, and live edits only a little later",
        Members,
        "add",
        _add_late,
        also=(Members, "_write_to_group", _write_to_grown),
    ),
    "clear the mark late": Defect(
        "the mark of a room that has something to send is cleared after the sending", LiveRoom, "end_turn", _clear_late
    ),
    "catch up from now": Defect(
        "a slow reader is brought level from the state of now", CatchUp, "_catch_up", _catch_up_from_now
    ),
    "relay to nobody": Defect(
        "rows of other nodes are taken, and told only to those who come later",
        LiveRoom,
        "_relay_stored",
        _relay_to_nobody,
    ),
    "take any rows": Defect(
        "rows of another node are taken that do not follow on what is there", Replication, "_take_rows", _take_any_rows
    ),
    "skip the gap repair": Defect(
        "rows that do not follow are left out, and what lies before them is not read",
        Replication,
        "_take_rows",
        _leave_out_rows,
        also=(Hub, "overtaken", nothing),
    ),
    "never look": Defect("what was missed is not looked for", Replication, "_compare", nothing),
    "forget the presence of a node": Defect("the states of a node that has gone stay", Replication, "gone", nothing),
    "forget who leaves a document": Defect(
        "the states of a node stay that has a document open no more", Replication, "left", nothing
    ),
    "lose what is held": Defect(
        "a node that comes to a document is not told who is there", Replication, "joined", nothing
    ),
    "do not ask after a hole": Defect("what is missing is counted only", Peers, "_hole", nothing),
    "hand on foreign presence": Defect(
        "a node tells the states of other nodes as its own", AwarenessStates, "own", _everything_is_own
    ),
    "take repeated frames": Defect("a frame that came before is taken again", Peers, "_hear", _take_repeated),
    "take damaged frames": Defect(
        "checksums of frames are not looked at", "collab.cluster.peers", "decode_frame", _any_checksum
    ),
    "handle twice": Defect("each message of another node is taken twice", Replication, "_handle", _handle_twice),
}
"""Every defect by its name."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Put a defect into the server."""
    with ExitStack() as stack:
        for target, function, wrong in DEFECTS[name].replaced:
            stack.enter_context(patch.object(target, function, wrong))
        yield
