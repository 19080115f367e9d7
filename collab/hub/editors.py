"""Edits that have to be computed: one editor for each document, with its stay in the sandbox.

Strategy: the document stays loaded in a sandbox process (``collab.sandbox.port.Stay``), and is given what each turn
brings, so an edit costs what it changes. Edits that come while a job runs wait, and are done in one job together. Each
gives an update, which is taken like one that a client has sent: what was typed while the sandbox computed merges. The
edits of one job follow on each other, so if one is not taken, those behind it are computed again, in a new stay: the
old one holds what the document does not.

An edit whose precondition names states is the last of its job and the first edit in it, and everything that is in
memory is given to the stay before. So it was computed for just that state; in the step that takes it, it is looked
whether the document still is in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple, Protocol

from collab.content.edits import Edit
from collab.engine.answers import collect, compare
from collab.errors import (
    CollabError,
    DocumentBusy,
    EditOvertaken,
    OutcomeUnknown,
    SandboxBusy,
    ServerStopping,
    UpdateIncomplete,
    forget_frames,
)
from collab.hub.orders import Precondition, Sender
from collab.hub.persistence import Stored
from collab.hub.room import LiveRoom
from collab.hub.slices import in_slices
from collab.hub.tasks import Tasks
from collab.sandbox.port import Outcome, Reading, Sandbox, Stay, Task, Written
from collab.telemetry import shown_name

# Edits and readings that may wait for one document, and that one job does: it is a client's whole answer that waits.
_MAX_WAITING: Final = 256
_MAX_TASKS: Final = 32

# Bytes of turns that are kept for a stay until its next job; past it, what it lacks is found by its state vector.
_MAX_DELTAS: Final = 1024 * 1024

# How often one edit is computed.
_TRIES: Final = 4

# Seconds for which an edit waits to be computed and taken.
_SECONDS: Final = 60.0


class Taken(NamedTuple):
    """An edit that was taken.

    Attributes:
        new: whether anything of it was new.
        tag: the name of the state with it, if that is known.
        stored: tells when it is committed.
    """

    new: bool
    tag: str | None
    stored: Stored


class Taking(Protocol):
    """What takes what was computed (``hub.editing``)."""

    async def take(
        self,
        live: LiveRoom,
        update: bytes,
        sender: Sender,
        condition: Precondition,
        check: Callable[[], object] | None = None,
        client: int | None = None,
    ) -> Taken:
        """Apply an update to a live document."""
        ...

    def taken(self, live: LiveRoom, *, new: bool) -> Taken:
        """Say what is known of an edit now."""
        ...

    def admit(self, live: LiveRoom, sender: Sender, condition: Precondition) -> None:
        """Check that an edit may be taken."""
        ...


class Keeper(Protocol):
    """What an editor needs of the hub."""

    tasks: Tasks

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...


class _Job:
    """One edit or reading that waits.

    Attributes:
        task: what is to be done.
        order: who wants an edit, and when it may be taken; None for a reading.
        future: its result, a ``Taken`` or what was read and the name of the state.
        tries: how often it was computed.
        taking: whether it is being taken, so that it cannot be called back.
    """

    __slots__ = ("future", "order", "taking", "task", "tries")

    def __init__(self, task: Task, order: tuple[Sender, Precondition] | None) -> None:
        self.task = task
        self.order = order
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.tries = 0
        self.taking = False

    @property
    def exact(self) -> bool:
        """Whether it has to be done on one state, whose name is known."""
        return self.order is None or self.order[1].exact

    def finish(self, result: object) -> None:
        """Give the result."""
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Say why there is none."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # its caller may have gone


class Editor:
    """Computes edits of one document, and reads it.

    Args:
        hub: runs the work.
        taking: takes what was computed.
        sandbox: where it is computed.
        random: makes client IDs.
    """

    def __init__(self, hub: Keeper, taking: Taking, sandbox: Sandbox, random: Random) -> None:
        self._hub = hub
        self._taking = taking
        self._sandbox = sandbox
        self._random = random
        self._live: LiveRoom | None = None
        self._waiting: deque[_Job] = deque()
        self._working = False
        self._stay: Stay | None = None
        self._known = b"\0"  # a state vector of what the stay has at least
        self._clock = 0  # of the stay's client ID, behind its last edit that was taken
        self._left: int | None = None  # the document, by its number in the store, when its room left memory
        self._deltas: list[bytes] | None = None  # what turns have brought since; None if that is not all that it lacks
        self._nbytes = 0

    @property
    def unused(self) -> bool:
        """Whether nothing is lost by forgetting this editor."""
        return not self._working and self._live is None and (self._stay is None or self._stay.over)

    async def edit(self, live: LiveRoom, edit: Edit | Written, sender: Sender, condition: Precondition) -> Taken:
        """Compute an edit and take it; keep the room in memory meanwhile.

        Raises: see ``Editing.edit``.
        """
        taken: Taken = await self._run(live, _Job(edit, (sender, condition)))
        return taken

    async def read(self, live: LiveRoom, reading: Reading) -> tuple[bytes, str]:
        """Read the document; return what was read, and the name of the state that it was read of."""
        shown: tuple[bytes, str] = await self._run(live, _Job(reading, None))
        return shown

    async def _run(self, live: LiveRoom, job: _Job) -> Any:
        if len(self._waiting) >= _MAX_WAITING:
            raise DocumentBusy(f"{len(self._waiting)} edits wait for {live.name!r}", public="too many edits wait")
        if self._live is not live:
            self._enter(live)
        self._waiting.append(job)
        if not self._working:
            self._working = True
            self._hub.tasks.spawn(self._work(), f"editing {shown_name(live.name)}")
        try:
            async with asyncio.timeout(_SECONDS):
                return await job.future
        except TimeoutError:
            if job.taking:
                raise OutcomeUnknown(f"an edit of {live.name!r} is being taken for too long") from None
            raise SandboxBusy(f"an edit of {live.name!r} was not computed within {_SECONDS:g} s") from None

    # As the follower of the room

    def _enter(self, live: LiveRoom) -> None:
        """Go on in a room that was opened, with the stay of the one before if it is the same document."""
        stay, same = self._stay, self._left is not None and self._left == live.persistence.document_id
        if stay is not None and not (self._live is None and same and self._fits(live, stay)):
            self._end_stay()
        self._live = live
        live.follower = self
        self._deltas = None

    def _fits(self, live: LiveRoom, stay: Stay) -> bool:
        """Tell whether a document has all edits of the stay, and none with its client ID that it has not."""
        return live.room.document.clock(stay.client_id) == self._clock

    def follow(self, delta: bytes) -> None:
        """Keep what a turn has brought for the stay."""
        if self._deltas is not None:
            self._deltas.append(delta)
            self._nbytes += len(delta)
            if self._nbytes > _MAX_DELTAS:
                self._deltas = None

    def left(self, *, stored: bool) -> None:
        """Let go of the room; if all of it is stored, the stay goes on for when it is opened again."""
        live, self._live, self._deltas = self._live, None, None
        self._left = live.persistence.document_id if live is not None and stored else None

    # Work

    async def _work(self) -> None:
        """Do what waits, a batch at a time."""
        batch: list[_Job] = []
        try:
            while self._waiting:
                batch = self._next_batch()
                try:
                    await self._do(batch)
                except CollabError as error:
                    for job in batch:
                        job.fail(error)
                    forget_frames(error)
        finally:
            # Nothing is left, but when the server stops, or a defect has ended the work.
            self._working = False
            for job in (*batch, *self._waiting):
                if not job.future.done():
                    self._end_stay()
                    kind = OutcomeUnknown if job.taking else ServerStopping
                    job.fail(kind("the work on the document has ended"))
            self._waiting.clear()

    def _next_batch(self) -> list[_Job]:
        """Take what one job does: readings first, then edits; at most one that needs its own state, as the first."""
        readings: list[_Job] = []
        edits: list[_Job] = []
        left: deque[_Job] = deque()
        closed = False
        for job in self._waiting:
            if job.future.done():
                continue  # nobody waits for it any more
            if job.order is None and len(readings) < _MAX_TASKS:
                readings.append(job)
            elif job.order is not None and not closed and not (job.exact and edits) and len(edits) < _MAX_TASKS:
                edits.append(job)
                closed = job.exact
            else:
                closed = closed or job.order is not None  # edits keep their order
                left.append(job)
        self._waiting = left
        batch = readings + edits
        for job in batch:
            job.tries += 1
        return batch

    async def _do(self, batch: list[_Job]) -> None:
        """Do a batch in one job of the sandbox, and take what comes of it."""
        live = self._live
        if live is None or live.ended is not None:
            raise DocumentBusy("the room has ended while edits waited for it")
        exact = any(job.exact for job in batch)
        stay, updates = await self._make_ready(live, exact)
        # From here to the job nothing is awaited.
        batch = [job for job in batch if self._may_go(live, job)]
        tag = live.name_state() if exact else None
        tasks: list[Task] = []
        places = [self._place(tasks, job.task) for job in batch]
        known = live.room.document.encode_flushed_vector()
        try:
            outcomes = await stay.run(updates, tasks)
        except BaseException as error:
            self._deltas = None  # what was to be given is not there, as far as anybody knows
            if isinstance(error, SandboxBusy) and stay.over:
                forget_frames(error)
                self._compute_again(batch)
                return
            if not isinstance(error, SandboxBusy):
                self._end_stay()
            raise
        self._known = known
        for at, job in enumerate(batch):
            if job.order is None:
                self._show(job, outcomes[places[at]], tag)
            elif not await self._take(live, stay, job, outcomes[places[at]], tag):
                self._compute_again(batch[at:])
                break

    def _place(self, tasks: list[Task], task: Task) -> int:
        """Find the place of a task in a job: several who want to read the same are given the same."""
        if isinstance(task, Reading) and task in tasks:
            return tasks.index(task)
        tasks.append(task)
        return len(tasks) - 1

    def _compute_again(self, jobs: list[_Job]) -> None:
        """Put jobs first that were not done, or follow on an edit that was not taken; the stay has what nobody has."""
        self._end_stay()
        for job in reversed(jobs):
            if job.future.done():
                continue
            if job.tries >= _TRIES:
                job.fail(EditOvertaken(f"computed {job.tries} times"))
            else:
                self._waiting.appendleft(job)

    def _may_go(self, live: LiveRoom, job: _Job) -> bool:
        """Tell whether a job is worth doing; one that may not be taken any more is refused now."""
        if job.future.done():
            return False
        if job.order is not None:
            try:
                self._taking.admit(live, *job.order)
            except CollabError as error:
                job.fail(error)
                return False
        return True

    def _show(self, job: _Job, outcome: Outcome, tag: str | None) -> None:
        if isinstance(outcome, CollabError):
            job.fail(outcome)
        else:
            job.finish((outcome, tag))

    async def _take(self, live: LiveRoom, stay: Stay, job: _Job, outcome: Outcome, tag: str | None) -> bool:
        """Take what was computed; False if the edit, and those behind it, have to be computed again."""
        assert job.order is not None
        if isinstance(outcome, CollabError):
            job.fail(outcome)
            return True
        if not outcome:
            # Those before it may have changed what it asks for, to just what it is to give.
            if self._may_go(live, job):
                job.finish(self._taking.taken(live, new=False))
            return True
        if job.future.done():
            return False  # nobody waits for it, and those behind it follow on it
        exact = job.exact

        def check() -> None:
            if exact and live.name_state() != tag:
                raise EditOvertaken("the document is in another state than the edit was computed for")

        job.taking = True
        try:
            job.finish(await self._taking.take(live, outcome, *job.order, check, stay.client_id))
        except (UpdateIncomplete, EditOvertaken) as error:
            forget_frames(error)
            job.taking = False
            return False
        except CollabError as error:
            # This one is not computed again; those behind it follow on it.
            job.fail(error)
            return False
        self._clock = live.room.document.clock(stay.client_id)
        return True

    async def _make_ready(self, live: LiveRoom, exact: bool) -> tuple[Stay, list[bytes]]:
        """Give a stay of the document, and the updates that it lacks; if ``exact``, nothing else is in memory then."""
        if self._stay is not None and self._stay.over:
            self._stay = None
        updates: list[bytes] = []
        if self._stay is None:
            self._keep_turns()
            data, vector = await self._encode(live, b"\0")
            self._known, self._clock = vector, 0
            self._stay = await self._sandbox.stay(data, live.new_client_id(self._random))
        elif self._deltas is None:
            self._keep_turns()
            updates.append((await self._encode(live, self._known))[0])
        if exact:
            await live.prepare_name()
            if live.room.document.in_turn:
                live.end_turn(self._hub.now())
        if self._deltas is None:  # more has come meanwhile than is kept
            updates.append(live.room.document.encode_state_as_update(self._known))
        else:
            updates += self._deltas
        self._keep_turns()
        return self._stay, updates

    def _keep_turns(self) -> None:
        self._deltas, self._nbytes = [], 0

    async def _encode(self, live: LiveRoom, state_vector: bytes) -> tuple[bytes, bytes]:
        """Encode what a state vector lacks; return that and a state vector of it, which may be an older one.

        The loop goes on in between. What is taken meanwhile may be in it, or not; the turns that end meanwhile have it.
        """
        document = live.room.document
        before = document.encode_flushed_vector()
        parts = await in_slices(collect(document, await in_slices(compare(document, state_vector))))
        return parts.join(), before

    def _end_stay(self) -> None:
        if self._stay is not None:
            self._stay.end()
        self._stay = self._deltas = None
