"""Bringing one member level with more than its line may take in one message.

Strategy: whatever is large goes through here: an answer to a SyncStep1, a catch-up, a large live update. The line is
measured first (``hub.line``). Where it is fast enough for one message, that is what is sent. Else, in this order:

1. rows of the log, joined in groups, where the log holds all that the member lacks: each group leads to a state that
   existed (``engine.groups``);
2. pieces that stay pending until the last one (``update.pieces``), where the member is taken to hold nothing but what
   it has told: it has answered the server's SyncStep1, and has sent nothing that the room has from elsewhere;
3. one message all the same.

Meanwhile the member gets awareness and acknowledgements, but no live updates: what has come since is in the last
message. That one alone is a SyncStep2, and only if it was asked for, so a client is in sync when it has everything. One
piece at a time is on a socket, whatever the number of its documents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

from collab.engine.answers import takes_long
from collab.engine.budget import Budget
from collab.engine.groups import LogGap, RowGroup
from collab.engine.room import Room
from collab.errors import CollabError, InternalError, PeerTooSlow, UpdateError
from collab.hub.answers import Answered
from collab.hub.line import LARGE, Line
from collab.hub.long_frames import Frame
from collab.hub.member import Encoder, Member
from collab.hub.persistence import Persistence
from collab.hub.slices import in_slices
from collab.hub.tasks import Tasks
from collab.protocol.lib0 import read_var_uint
from collab.protocol.session import State
from collab.protocol.sync import SyncUpdate
from collab.storage.checksums import is_damaged
from collab.storage.store import Store
from collab.telemetry import get_logger, shown_name
from collab.update.delete_set import DeleteSet
from collab.update.pieces import Cut, cut_update
from collab.update.state_vector import (
    StateVector,
    decode_in_slices,
    decode_state_vector,
    encode_in_slices,
    encode_state_vector,
    split_pairs,
)

_log = get_logger("room")

# Bytes of the two probes, and the part of what is to be sent that each is at most. Where the first one takes long, the
# line is slow. Else the second one decides, for two reasons: many lines let the first bytes through faster than those
# that follow, and a connection needs some round trips until it is as fast as its line.
_PROBES: Final = ((64 * 1024, 64), (256 * 1024, 8))
_SMALLEST_PROBE: Final = 16 * 1024
_QUICK: Final = 0.3

# Seconds that the way there and back may take, or a busy client, without making the line slow.
_LATENCY: Final = 0.3

# A group or piece may be so much larger than it should be before something else is done about it.
_TOLERANCE: Final = 1.5

# Rows read at once: each look reads twice as many, as long as they are small. They are all in memory then.
_MOST_ROWS: Final = 256

# Seconds in which a client has to answer the server's SyncStep1, and its rows to be committed.
_ANSWER_SECONDS: Final = 10.0
_COMMIT_SECONDS: Final = 10.0

NODE_BYTES: Final = 256 * 1024 * 1024
"""Bytes of what is cut for all members of the node: past it, what nobody else was cut is sent in one message."""

# Seconds between looks at what nothing tells, and at a client whose pong is awaited.
_PAUSE: Final = 0.05
_LOOK: Final = 1.0

# Seconds after which a client that has taken everything, and answers no ping, is given the next piece; and after which
# one that has answered none on this line is taken for a client that never does. 64 KB in 1.5 s are 43 kB/s.
_NO_PONG: Final = 60.0
_NEVER_PONGS: Final = 1.5

# Bytes of a state vector that is decoded at once: some 3 ms.
_DECODED: Final = 16 * 1024

# Client IDs up to which a document is cut into pieces for one that has some of it: what it has is looked at at once.
_MANY: Final = 2_500

# Groups and cuts that are kept for those who ask the same, and their bytes together.
_KEPT_BYTES: Final = 64 * 1024 * 1024

Result = TypeVar("Result")


class Ready:
    """An update that is ready to be sent, framed once for each kind of member."""

    __slots__ = ("frames", "update")

    def __init__(self, update: bytes) -> None:
        self.update = update
        self.frames: dict[Encoder, bytes] = {}

    def frame(self, encoder: Encoder) -> bytes:
        """Return the frame for members with this encoder."""
        frame = self.frames.get(encoder)
        if frame is None:
            frame = self.frames[encoder] = encoder.encode(SyncUpdate(self.update))
        return frame


class Group(NamedTuple):
    """Rows of the log up to ``seq``, joined; ``known`` is what a member has with them, ``size`` how much it lacked."""

    ready: Ready
    known: StateVector
    seq: int
    size: int


class Pieces:
    """An update that was cut, and its pieces that were made so far; ``budget`` counts it while it is in memory."""

    __slots__ = ("_budget", "_counted", "_cut", "_made", "early_bytes", "known", "last", "seq")

    def __init__(self, cut: Cut, known: StateVector, seq: int | None, budget: Budget) -> None:
        self._cut = cut
        self._made: dict[tuple[int, int], tuple[Ready, int]] = {}
        self.early_bytes = sum(len(run.data) for run in cut.early)
        self.last = Ready(cut.last)
        self.known = known
        self.seq = seq
        self._budget = budget
        self._counted = self.nbytes
        budget.nbytes += self._counted

    def __del__(self) -> None:
        # Each delivery that sends it holds it, also when it is not kept for others any more.
        self._budget.nbytes -= self._counted

    @property
    def nbytes(self) -> int:
        """How many bytes it takes, about: what was cut, and the pieces of it."""
        return 2 * (self.early_bytes + len(self.last.update))

    def piece(self, at: int, size: int) -> tuple[Ready, int]:
        """Return the piece that begins with the run ``at``, and where the next one begins; the last is in `last`."""
        if at >= len(self._cut.early):
            return self.last, -1
        made = self._made.get((at, size))
        if made is None:
            update, behind = self._cut.piece(at, size)
            made = self._made[at, size] = Ready(update), behind
        return made


class Shared:
    """What was made for one member of a room, and serves others that ask the same."""

    __slots__ = ("_kept", "_tasks")

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._kept: dict[object, tuple[asyncio.Task[Any], int]] = {}

    async def get(
        self, key: object, make: Callable[[], Coroutine[Any, Any, Result]], size: Callable[[Result], int]
    ) -> Result:
        """Return what was made under ``key``, or make it; those who come meanwhile wait for the same."""
        found = self._kept.get(key)
        if found is None:
            # A task of its own: the one who asks first may leave before the others.
            found = self._kept[key] = self._tasks.spawn(make(), "making pieces", awaited=True), 0
        task = cast("asyncio.Task[Result]", found[0])
        try:
            made = await asyncio.shield(task)
        except BaseException:
            if task.done():
                self._kept.pop(key, None)
            raise
        if made is None:
            self._kept.pop(key, None)  # there may be something a moment later
        elif key in self._kept:
            self._kept[key] = found[0], size(made)
            self._bound(key)
        return made

    def __contains__(self, key: object) -> bool:
        """Tell whether something was made, or is being made, under ``key``."""
        return key in self._kept

    def _bound(self, newest: object) -> None:
        kept = sum(nbytes for _, nbytes in self._kept.values())
        for old in list(self._kept):
            if kept > _KEPT_BYTES and old != newest and self._kept[old][0].done():
                kept -= self._kept.pop(old)[1]

    def clear(self) -> None:
        """Forget everything: nobody asks any more."""
        for task, _ in self._kept.values():
            task.cancel()
        self._kept.clear()


class Source(Protocol):
    """The room that a delivery sends."""

    name: str
    room: Room
    persistence: Persistence
    shared: Shared
    pieces_budget: Budget

    def frame_since(self, encoder: Encoder, state_vector: bytes, *, asks: bool) -> Frame:
        """Return the frame with all that ``state_vector`` lacks, a SyncStep2 if it was asked for."""
        ...

    async def make_frame(self, encoder: Encoder, state_vector: bytes, *, asks: bool) -> Answered:
        """Make the same in slices; what is taken meanwhile may be missing in it."""
        ...

    def send_piece(self, member: Member, frame: Frame, *, last: bool) -> None:
        """Send a member the next piece of what it lacks; after the last one it is level."""
        ...

    def delivered(self) -> None:
        """Note that a delivery has ended."""
        ...

    def end(self, member: Member, error: CollabError) -> None:
        """End one session and say why."""
        ...


class Delivery:
    """Brings one member level; made with the member in the state RECEIVING, and run in a task of its own.

    Args:
        live: its room.
        store: where the rows are.
        member: the one.
        vector: what it has, as a v1 state vector.
        seq: a row such that it has all rows up to it; None when that is not known.
        asks: whether the last message answers a SyncStep1.
        whole: it cannot be trusted, or nothing else helps: send everything in one message.
        patience: seconds for which it may take nothing.

    Attributes:
        task: runs it.
    """

    __slots__ = (
        "_asks",
        "_claimed",
        "_deletes",
        "_known",
        "_live",
        "_looked",
        "_member",
        "_patience",
        "_piece",
        "_pieces",
        "_seq",
        "_store",
        "_vector",
        "_whole",
        "task",
    )

    def __init__(
        self,
        live: Source,
        store: Store,
        member: Member,
        vector: bytes,
        seq: int | None,
        *,
        asks: bool,
        whole: bool,
        patience: float,
    ) -> None:
        self._live = live
        self._store = store
        self._member = member
        self._claimed = self._vector = vector
        # A long one is decoded when it is needed, in slices. Until then the member counts as one that has told nothing.
        self._known: StateVector | None = decode_state_vector(vector) if len(vector) <= _DECODED else None
        self._seq = seq
        self._looked = seq is not None  # for a row from which the log goes on
        self._deletes: Callable[[], DeleteSet] | None = None  # of the state after that row, until they are sent
        self._asks = asks
        self._whole = whole
        self._patience = patience
        self._pieces: Pieces | None = None
        self._piece = 0
        self.task: asyncio.Task[None] | None = None
        member.known = dict(self._known or ())
        member.strange = False

    def renumbered(self) -> None:
        """Hear that the log is another one than before: what was known of its rows says nothing any more."""
        self._seq, self._looked, self._deletes = None, True, None

    def asked(self, state_vector: bytes) -> Generator[None, None, bool]:
        """Hear that the member asks again: the last message answers that too.

        False if the member has less than it had said, so that nothing that was planned fits. A generator that yields
        about every millisecond.

        Raises:
            DecodeError: the state vector is malformed.
        """
        vector = yield from decode_in_slices(state_vector)
        self._asks = True
        for pairs in split_pairs(self._claimed):
            for client, clock in pairs:
                if read_var_uint(clock, 0)[0] > vector.get(read_var_uint(client, 0)[0], 0):
                    return False
            yield
        return True

    async def run(self) -> None:
        """Send what the member lacks, piece by piece."""
        member, line = self._member, self._member.outbox.line
        last, first = False, True
        try:
            while not last and self._receives:
                async with line.lock:
                    if self._receives and not line.known(self._now()):
                        await self._probe(line)
                    if not self._receives:
                        return
                    frame, last = await self._next(line)
                    if not self._receives:
                        return
                    # Nothing was awaited since `_next` has looked at the document.
                    self._live.send_piece(member, frame, last=last)
                    if len(frame) > LARGE or not (first and last):
                        await self._measure(line, len(frame), sure=True)
                    first = False
        except Exception:
            if self._receives:  # else it would be sent nothing any more, and not know it
                self._live.end(member, InternalError("sending the document has failed"))
            raise
        finally:
            self._live.delivered()

    @property
    def _receives(self) -> bool:
        return self._member.state is State.RECEIVING and self._member.delivery is self

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # The line

    async def _probe(self, line: Line) -> None:
        """Find out how fast the line is, by bytes that the client does not see."""
        lacks = len(await self._lacking())
        if lacks <= LARGE:
            return
        async with line.traffic.measuring:
            for most, part in _PROBES:
                if not self._receives:
                    return
                if line.traffic.is_busy(self._now()):
                    line.measured(lacks, 0.0, self._now(), sure=False)
                    return
                size = max(_SMALLEST_PROBE, min(most, lacks // part))
                if await self._measure(line, size, sure=False) > _QUICK or not line.pongs:
                    return

    async def _measure(self, line: Line, size: int, *, sure: bool) -> float:
        """Wait until the client has read everything written so far, and note how long that took."""
        outbox = self._member.outbox
        arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        began: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        started = moved_at = self._now()
        if not sure:
            # A ping before and one behind: what lies between their pongs is the time that the bytes took, without
            # that of the way there and back, and of a client that is busy.
            outbox.measure(partial(_arrive, began))
            outbox.fill(size)
        outbox.measure(partial(_arrive, arrived))
        await self._wait_for_pong(line, arrived, moved_at)
        line.pongs = line.pongs or arrived.done()
        now = self._now()
        if began.done() and arrived.done():
            started = min(began.result(), started + _LATENCY)
        # Nothing is known of a line whose client answers no pings: it gets whole messages.
        seconds = (arrived.result() if arrived.done() else now) - started if line.pongs else 0.0
        line.measured(size, seconds, now, sure=sure)
        return seconds

    async def _wait_for_pong(self, line: Line, arrived: asyncio.Future[float], moved_at: float) -> None:
        outbox = self._member.outbox
        waiting = outbox.waiting()
        silence = _NO_PONG if line.pongs else _NEVER_PONGS
        while not arrived.done():
            await asyncio.wait((arrived,), timeout=min(_LOOK, silence))
            now = self._now()
            if outbox.waiting() < waiting:
                moved_at = now
            waiting = outbox.waiting()
            if waiting and now - moved_at > self._patience:
                stalled = now - moved_at
                self._live.end(self._member, PeerTooSlow(f"{waiting} bytes wait, none taken for {stalled:.0f} s"))
                break
            if not waiting and now - moved_at >= silence:
                break

    # What comes next

    async def _next(self, line: Line) -> tuple[Frame, bool]:
        """Return the next frame, and whether it is the last."""
        encoder = self._member.encoder
        while True:
            if self._pieces is not None:
                if not self._member.strange:
                    ready, self._piece = self._pieces.piece(self._piece, line.piece())
                    if self._piece < 0:
                        await self._go_on(self._pieces.known, self._pieces.seq)
                        self._pieces = None
                    return ready.frame(encoder), False
                self._pieces, self._whole = None, True
            frame = await self._lacking()
            if self._whole or len(frame) <= LARGE or line.takes_whole(len(frame), self._now()):
                return frame, True
            try:
                group = await self._next_group(line)
            except CollabError as error:
                _log.debug("%s is sent in one message: %s", shown_name(self._live.name), error)
                self._whole = True
                continue
            if group is not None:
                return group.frame(encoder), False

    async def _lacking(self) -> Frame:
        """Return the frame with all that the member lacks.

        Where that is put together in slices, the member is kept what others are sent meanwhile (`Member.meanwhile`).
        """
        live, member, document = self._live, self._member, self._live.room.document
        if not takes_long(document, self._vector):
            member.meanwhile = None
            return live.frame_since(member.encoder, self._vector, asks=self._asks)
        member.meanwhile = []
        return (await live.make_frame(member.encoder, self._vector, asks=self._asks)).frame

    async def _go_on(self, known: StateVector, seq: int | None) -> None:
        """Note that the member has what was just sent."""
        self._known = known
        self._vector = await in_slices(encode_in_slices(known))
        self._seq = seq
        self._deletes = None

    async def _next_group(self, line: Line) -> Ready | None:
        """Return the next group of rows; None when something else comes now."""
        if self._known is None:
            self._known = await self._live.shared.get(("vector", self._vector), self._decode, _vector_size)
            if self._member.known is not None:
                self._member.known = _joined(self._known, self._member.known)
        if not self._looked:
            await self._find_row(self._known)
        budget = line.piece()
        if self._seq is not None:
            try:
                group = await self._group(budget)
                if group is None and self._live.persistence.uncommitted:
                    async with asyncio.timeout(_COMMIT_SECONDS):
                        await self._live.persistence.durable()
                    group = await self._group(budget)
            except (TimeoutError, UpdateError):
                group = None
            if group is not None and group.size <= _TOLERANCE * budget:
                await self._go_on(group.known, group.seq)
                return group.ready
            if group is not None:
                await self._cut_group(group)
                return None
        await self._cut_document()
        return None

    # Rows of the log

    async def _decode(self) -> StateVector:
        return await in_slices(decode_in_slices(self._vector))

    async def _find_row(self, known: StateVector) -> None:
        """Find a row such that the member has all rows up to it, and the log holds all behind it."""
        self._looked = True
        live = self._live
        document_id = live.persistence.document_id
        if document_id is None:
            return
        deletes = live.room.document.stored_deletes(known)
        for seq, deleted in ((live.persistence.snapshot_seq, deletes), (0, None)):
            if deleted is not None or not seq:
                rows = await self._store.rows_after(document_id, seq, 1)
                if rows and rows[0].seq == seq + 1:
                    self._seq, self._deletes = seq, deleted
                    return

    async def _group(self, budget: int) -> Group | None:
        assert self._seq is not None and self._known is not None
        key = ("rows", self._live.persistence.epoch, self._vector, self._seq, self._deletes is not None, budget)
        work = partial(self._join, self._known, self._seq, None if self._deletes is None else self._deletes(), budget)
        return await self._live.shared.get(key, work, _group_size)

    async def _join(self, known: StateVector, after: int, deletes: DeleteSet | None, budget: int) -> Group | None:
        """Join turns behind the member's row up to ``budget``, at least one; None if there is none.

        Raises:
            UpdateError: the log does not go on from what the member has, or a row is damaged.
        """
        document_id = self._live.persistence.document_id
        if document_id is None:
            return None
        group = RowGroup(known, deletes)
        seq = kept = after
        at: float | None = None  # of the turn that is being gathered
        limit, nbytes = 1, 0
        while True:
            rows = await self._store.rows_after(document_id, seq, limit)
            for row in rows:
                if row.seq != seq + 1:
                    raise LogGap(f"row {seq + 1} is not in the log")
                if is_damaged(row):
                    raise LogGap(f"row {row.seq} of the log is damaged")
                if at is not None and row.at != at:
                    if not group.empty and group.size + group.turn_size() > budget:
                        return self._joined(group, kept)
                    await in_slices(group.keep())
                    kept = seq
                    if group.size > budget:
                        return self._joined(group, kept)
                await in_slices(group.add(row.data))
                seq, at = row.seq, row.at
                nbytes += len(row.data)
            if not rows:
                if at is not None and (group.empty or group.size + group.turn_size() <= budget):
                    await in_slices(group.keep())
                    kept = seq
                return None if kept == after else self._joined(group, kept)
            # As many as are small: they are all in memory at once.
            mean = nbytes // (seq - after) + 1
            limit = max(1, min(2 * limit, _MOST_ROWS, budget // mean))

    def _joined(self, group: RowGroup, seq: int) -> Group:
        update, known = group.take()
        return Group(Ready(update), known, seq, group.size)

    # Pieces that stay pending

    async def _cut_group(self, group: Group) -> None:
        """Cut one turn that is too large, if the member can be trusted; else send all the rest in one message."""
        if not await self._is_exact():
            self._whole = True
            return
        known = self._has()
        if len(known) > _MANY:
            self._whole = True
            return
        key = ("turn", encode_state_vector(known), group.seq)
        await self._share(key, group.ready.update, known, group.known, group.seq)

    async def _cut_document(self) -> None:
        """Cut all that the member lacks, if it can be trusted; else send it in one message."""
        if not await self._is_exact():
            self._whole = True
            return
        document = self._live.room.document
        known = self._has()
        vector = encode_state_vector(known)
        if document.clients > _MANY and takes_long(document, vector):
            self._whole = True
            return
        own, update = document.encode_state_vector(), document.encode_state_as_update(vector)
        key = ("document", vector, document.version)
        await self._share(key, update, known, _joined(await in_slices(decode_in_slices(own)), known), None)

    async def _share(self, key: object, update: bytes, known: StateVector, after: StateVector, seq: int | None) -> None:
        """Cut an update, or take what was cut of it for others; where so much is cut already, send one message."""
        budget, size = self._live.pieces_budget, 2 * len(update)
        if key in self._live.shared:
            self._take(await self._live.shared.get(key, partial(self._cut, update, known, after, seq), _pieces_size))
            return
        if budget.nbytes + size > budget.limit and budget.nbytes:
            self._whole = True
            return
        budget.nbytes += size  # until it is cut
        try:
            pieces = await self._live.shared.get(key, partial(self._cut, update, known, after, seq), _pieces_size)
        finally:
            budget.nbytes -= size
        self._take(pieces)

    async def _cut(self, update: bytes, known: StateVector, after: StateVector, seq: int | None) -> Pieces:
        return Pieces(await in_slices(cut_update(update, known)), after, seq, self._live.pieces_budget)

    def _take(self, pieces: Pieces) -> None:
        if pieces.early_bytes > len(pieces.last.update) // 4:
            self._pieces, self._piece = pieces, 0
        else:
            self._whole = True  # hardly anything of it can be sent early

    def _has(self) -> StateVector:
        """Return all that the member has told or was sent."""
        return _joined(self._member.known or {}, self._known or {})

    async def _is_exact(self) -> bool:
        """Tell whether the member holds nothing but what it has told and was sent."""
        member = self._member
        deadline = self._now() + _ANSWER_SECONDS
        while member.unanswered and self._receives and self._now() < deadline:  # noqa: ASYNC110 - it may leave, too
            await asyncio.sleep(_PAUSE)
        return not member.unanswered and not member.strange


def _joined(one: StateVector, other: StateVector) -> StateVector:
    """Give what one who has both states has."""
    joined = dict(one)
    for client, clock in other.items():
        joined[client] = max(clock, joined.get(client, 0))
    return joined


def _arrive(arrived: asyncio.Future[float]) -> None:
    if not arrived.done():
        arrived.set_result(arrived.get_loop().time())


def _group_size(group: Group | None) -> int:
    return 0 if group is None else 2 * len(group.ready.update)


def _vector_size(vector: StateVector) -> int:
    return 100 * len(vector)


def _pieces_size(pieces: Pieces) -> int:
    return pieces.nbytes
