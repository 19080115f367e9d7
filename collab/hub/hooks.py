"""Calling Python hooks (``collab.hooks``): the one place where what happens in the hub is told to them.

Strategy: hub and rooms say what has happened by plain calls that never wait; with no hooks there is no call at all.
Each document has a line of what is to be told of it, and its hooks are called one at a time, in order. What somebody
waits for comes first there: questions, then stateless messages, then news. Documents are told side by side, a bounded
number at a time, each kind by itself: news that hang hold up no message, and neither holds up a question.

A call that takes too long is cancelled and given up. One that does not end even then keeps the line of its document, so
that no second call begins beside it, and nothing else. What waits has a bound: rows of the same document are joined,
the oldest news of a document go first, and a client that sends stateless messages faster than they are taken is read
more slowly. All of it is in memory and told once at best; the log is the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from traceback import clear_frames
from typing import Any, Final, Protocol, TypeVar

from collab.errors import CollabError, HookUnavailable, Refused, ServerStopping, forget_frames, is_refusal
from collab.hooks import METHODS, Creation, Deletion, Hooks, Loaded, Message, Relay, Rows, Server, Visit
from collab.hub.counts import HubCounts
from collab.hub.member import Member
from collab.hub.membership import Membership
from collab.hub.room import LiveRoom
from collab.hub.tasks import Tasks, retrieve
from collab.protocol.messages import Stateless
from collab.protocol.session import State
from collab.storage.records import Appended
from collab.telemetry import RateLimited, get_logger, shown_name
from collab.telemetry.foreign import kind_of, places_of

_log = get_logger("hooks")

AT_A_TIME: Final = 32
"""Documents that are told news at a time, and as many that have a stateless message decided on. Each may hold a
connection to a database of the application's."""

MAX_NEWS: Final = 256
"""News of one document that wait. Rows are joined, so most of them are sessions that join and leave."""

MAX_WAITING: Final = 100_000
"""News and messages of all documents that wait: some 50 MB."""

MAX_QUESTIONS: Final = 1_000
"""Questions that wait, of all documents."""

MAX_MESSAGES: Final = 100
"""Stateless messages of one document that wait; then those who send more to it are read more slowly."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the stateless messages of all documents that wait; past it everybody who sends more is read more slowly."""

MAX_AUTHORS: Final = 100
"""Authors that are named for rows that are told together."""

MAX_STUCK: Final = 1_000
"""Calls that do not end even when they are cancelled; past it no news are told and no messages passed on."""

GRACE: Final = 1.0
"""Seconds in which a call that is cancelled has to end."""

CLOSE_SECONDS: Final = 2.0
"""Seconds at most for ``close`` of each hook: the server has to stop in time."""

# Seconds at the end for calls that are cancelled, however little time is left: those that mean well need no more.
_LEAST_END = 0.1

Answer = TypeVar("Answer")


class _Late(Exception):
    """A call was given up because it took too long.

    Args:
        hanging: runs it still, though it was cancelled; None if it has ended.
    """

    def __init__(self, hanging: asyncio.Task[Any] | None) -> None:
        super().__init__()
        self.hanging = hanging


class _NoError(Exception):
    """A hook has raised what is no error, such as SystemExit; that is the cause of this."""


class _Kind(Enum):
    """What a call is for; those that somebody waits for come first."""

    QUESTION = 0
    MESSAGE = 1
    NEWS = 2


@dataclass(frozen=True, slots=True)
class HookOptions:
    """What is told by the settings.

    Attributes:
        seconds: for one call.
        interval: seconds in which ``changed`` is called at most once for a document.
        message_bytes: the longest stateless message.
    """

    seconds: float
    interval: float
    message_bytes: int


class Keeper(Protocol):
    """What is needed of the hub."""

    counts: HubCounts
    membership: Membership

    def publish_stateless(self, live: LiveRoom, message: Stateless) -> None:
        """Pass a stateless message on to other nodes."""
        ...


Work = Callable[[], Coroutine[Any, Any, None]]


class _Entry:
    """Something to be told or asked; ``work`` calls the hooks, ``drop`` is called in its place if nobody is to be."""

    __slots__ = ("drop", "event", "kind", "method", "work")

    def __init__(self, kind: _Kind, method: str, event: Rows | None, work: Work, drop: Callable[[], object]) -> None:
        self.kind = kind
        self.method = method
        self.event = event
        self.work = work
        self.drop = drop


class _Line:
    """What is to be told of one document.

    Attributes:
        busy: a call is under way.
        hanging: a call that was given up and has not ended.
        change: rows of which ``changed`` is told when the interval is over.
        timer: its end.
    """

    __slots__ = ("busy", "change", "hanging", "name", "queues", "timer")

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy = False
        self.hanging: asyncio.Task[Any] | None = None
        self.queues: dict[_Kind, deque[_Entry]] = {}
        self.change: Rows | None = None
        self.timer: asyncio.TimerHandle | None = None

    def waiting(self, kind: _Kind) -> int:
        """How many entries of a kind wait."""
        queue = self.queues.get(kind)
        return 0 if queue is None else len(queue)

    def next(self) -> _Kind | None:
        """The kind of what comes next."""
        return next((kind for kind in _Kind if self.queues.get(kind)), None)


class HookCalls:
    """The hooks of a node, and what waits for them.

    Args:
        hooks: in the order in which they are called.
        options: see ``HookOptions``.
        hub: see ``Keeper``.

    Attributes:
        server: what hooks may ask; set it before the first thing happens.
        stuck: calls that were given up and have not ended.
    """

    def __init__(self, hooks: Sequence[Hooks], options: HookOptions, hub: Keeper) -> None:
        self._hooks = hooks
        self._options = options
        self._hub = hub
        self._counts = hub.counts.hooks
        self._limited = RateLimited(_log)
        self.server: Server | None = None
        self.stuck: set[asyncio.Task[Any]] = set()
        # Of a method that nobody overrides nothing is made.
        self._wanted = {
            name: tuple(each for each in hooks if getattr(type(each), name) is not getattr(Hooks, name))
            for name in METHODS
        }
        self._lines: dict[str, _Line] = {}
        self._ready: dict[_Kind, OrderedDict[_Line, None]] = {kind: OrderedDict() for kind in _Kind}
        self._free = {_Kind.QUESTION: MAX_QUESTIONS, _Kind.MESSAGE: AT_A_TIME, _Kind.NEWS: AT_A_TIME}
        self._questions = 0
        self._waiting = 0  # news and messages
        self._nbytes = 0  # of messages
        self._room: asyncio.Future[None] | None = None  # resolved when a message has gone
        self._sessions: dict[Member, int] = {}
        self._numbered = 0
        self._tasks = Tasks()
        self._closing = self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    # The way up and down

    async def start(self) -> None:
        """Start the hooks in their order; what one raises is raised, and those before it are closed."""
        server = self._asked
        _log.info("hooks: %s", ", ".join(map(kind_of, self._hooks)))
        for at, each in enumerate(self._hooks):
            try:
                await each.start(server)
            except BaseException:
                await self._close_hooks(self._hooks[:at])
                raise

    async def drain(self, seconds: float) -> None:
        """Tell what waits, as far as that is done within ``seconds``; then cancel and drop the rest."""
        self._closing = True
        for line in list(self._lines.values()):
            self._tell_change(line)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._idle.wait()
        for line in list(self._lines.values()):
            for queue in line.queues.values():
                while queue:
                    self._drop(queue.popleft())
        for ready in self._ready.values():
            ready.clear()
        self._wake()
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(_LEAST_END, min(2 * GRACE, seconds))):
                await self._tasks.close()
        if self.stuck:
            _log.error("%d calls of hooks did not end when they were cancelled", len(self.stuck))
        self._limited.flush()

    async def close(self) -> None:
        """Close the hooks, the last one first; what one raises is logged."""
        await self._close_hooks(self._hooks)

    async def _close_hooks(self, hooks: Sequence[Hooks]) -> None:
        seconds = min(self._options.seconds, CLOSE_SECONDS)
        for each in reversed(hooks):
            try:
                await self._bounded(each.close, seconds, f"{kind_of(each)}.close")
            except _Late:
                _log.error("%s.close takes more than %g s and was given up", kind_of(each), seconds)
            except Exception as error:
                _log.error("%s.close raised %s at %s", kind_of(each), kind_of(error), places_of(error))

    @property
    def _asked(self) -> Server:
        assert self.server is not None
        return self.server

    # Questions

    @property
    def decides_on_creation(self) -> bool:
        """Whether a hook wants to decide who may create a document."""
        return bool(self._wanted["may_create"])

    @property
    def decides_on_deletion(self) -> bool:
        """Whether a hook wants to decide who may delete a document."""
        return bool(self._wanted["before_delete"])

    async def may_create(self, name: str, user: str | None) -> None:
        """Ask whether a document may be created.

        Raises:
            Refused: it may not.
            HookUnavailable: this cannot be decided now.
            ServerStopping.
        """
        event = Creation(name, user)
        await self._ask("may_create", name, lambda hook: hook.may_create(event, self._asked))

    async def before_delete(self, name: str, user: str | None, *, erase: bool) -> None:
        """Ask whether a document may be deleted; raises as ``may_create``."""
        event = Deletion(name, user, erase)
        await self._ask("before_delete", name, lambda hook: hook.before_delete(event, self._asked))

    async def _ask(self, method: str, name: str, call: Callable[[Hooks], Coroutine[Any, Any, object]]) -> None:
        """Ask all hooks that want it, until one refuses. The time for that begins anew with the first of them."""
        hooks = self._wanted[method]
        if not hooks:
            return
        if self._closing:
            raise ServerStopping("the server is stopping")
        if self._questions >= MAX_QUESTIONS:
            raise HookUnavailable(f"{self._questions} questions wait for hooks already")
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            if answered.done():
                return  # nobody waits any more
            try:
                for hook in hooks:
                    given = await self._call(hook, method, name, partial(call, hook))
                    if given is not None:
                        self._note_wrong(
                            hook, method, name, f"gave {kind_of(given)}: it raises Refused, or gives nothing"
                        )
                        raise HookUnavailable(f"{kind_of(hook)}.{method} gave {kind_of(given)}")
            except (Refused, HookUnavailable) as error:
                refuse(error)
            except BaseException:
                drop()
                raise
            if not answered.done():
                answered.set_result(None)

        def refuse(error: CollabError) -> None:
            if not answered.done():
                answered.set_exception(error)
                answered.exception()  # the one that it was for may go in this moment

        def drop() -> None:
            refuse(ServerStopping("the server is stopping"))

        self._questions += 1
        self._add(name, _Entry(_Kind.QUESTION, method, None, work, drop))
        try:
            # Before it there may be a call under way, which has as long.
            async with asyncio.timeout((len(hooks) + 1) * (self._options.seconds + GRACE)):
                await answered
        except TimeoutError:
            raise HookUnavailable(f"no hook has said of {name!r} in time whether it {method}") from None
        finally:
            self._questions -= 1

    # Stateless messages

    @property
    def decides_on_messages(self) -> bool:
        """Whether a hook wants to decide what becomes of stateless messages."""
        return bool(self._wanted["stateless"])

    async def until_room(self, name: str) -> None:
        """Wait until one more stateless message of a document can be taken."""
        while not self._closing and self._is_full(name):
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)

    def _is_full(self, name: str) -> bool:
        line = self._lines.get(name)
        if self._nbytes >= MAX_MESSAGE_BYTES:
            return True
        return line is not None and line.waiting(_Kind.MESSAGE) >= MAX_MESSAGES

    def relay(self, live: LiveRoom, member: Member, message: Stateless) -> None:
        """Ask what becomes of a stateless message, and do that; it is dropped if nobody can say."""
        if self._closing or self._waiting >= MAX_WAITING:
            self._count_dropped("stateless", live.name)
            return
        size = len(message.payload)
        user, number = member.author, self._number(member)
        self._nbytes += size

        async def work() -> None:
            try:
                await self._decide(live, member, Message(live.name, number, user, message.payload.decode()))
            finally:
                gone()

        def gone() -> None:
            self._nbytes -= size
            self._wake()

        def drop() -> None:
            gone()
            self._count_dropped("stateless", live.name)

        self._add(live.name, _Entry(_Kind.MESSAGE, "stateless", None, work, drop))

    async def _decide(self, live: LiveRoom, member: Member, message: Message) -> None:
        text: str | None = message.text
        answers = []
        for hook in self._wanted["stateless"]:
            assert text is not None
            said = replace(message, text=text)
            try:
                ask = partial(hook.stateless, said, self._asked)
                given = await self._call(hook, "stateless", live.name, ask)
                if given is None:
                    continue
                self._check_relay(hook, live.name, given)
            except (Refused, HookUnavailable):
                self._count_dropped("stateless", live.name)
                return
            if given.answer is not None:
                answers.append(given.answer)
            text = given.text
            if text is None:
                break
        if live.ended is not None:
            return
        if text is not None:
            relayed = Stateless(text.encode())
            live.members.relay(relayed, member)
            self._hub.publish_stateless(live, relayed)
        for answer in answers:
            if member.state is not State.CLOSED and member.takes:
                live.members.send(member, Stateless(answer.encode()))

    def _check_relay(self, hook: Hooks, name: str, given: object) -> None:
        """Check what a hook says of a message; raises ``HookUnavailable``."""
        wrong = None
        if not isinstance(given, Relay):
            wrong = f"gave {kind_of(given)}, not a Relay or None"
        else:
            for text in (given.text, given.answer):
                if text is not None and not _is_sendable(text, self._options.message_bytes):
                    wrong = f"gave a text that is none, or has more than {self._options.message_bytes} bytes of UTF-8"
        if wrong is not None:
            self._note_wrong(hook, "stateless", name, wrong)
            raise HookUnavailable(f"{kind_of(hook)}.stateless {wrong}")

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)

    # News

    def loaded(self, live: LiveRoom, seconds: float) -> None:
        """Tell that a document has come into memory."""
        if self._wanted["loaded"]:
            persistence = live.persistence
            size = live.room.document.size
            event = Loaded(live.name, persistence.document_id, persistence.seq, size, seconds)
            self._tell("loaded", live.name, lambda hook: hook.loaded(event, self._asked))

    def joined(self, live: LiveRoom, member: Member) -> None:
        """Tell that a session has joined."""
        if self._wanted["joined"] or self._wanted["left"]:
            event = self._visit(live, member, self._number(member))
            if self._wanted["joined"]:
                self._tell("joined", live.name, lambda hook: hook.joined(event, self._asked))

    def left(self, live: LiveRoom, member: Member) -> None:
        """Tell that a session has left, if it was told that it has joined."""
        number = self._sessions.pop(member, None)
        if number is not None and self._wanted["left"]:
            event = self._visit(live, member, number)
            self._tell("left", live.name, lambda hook: hook.left(event, self._asked))

    def committed(self, name: str, outcome: Appended, authors: Iterable[str | None]) -> None:
        """Tell of rows that are in the log."""
        document, first, last = outcome
        if last < first or not (self._wanted["stored"] or self._wanted["changed"]):
            return
        rows = _with_authors(Rows(name, document, first, last, ()), authors)
        before = self._lines.get(name)
        if before is not None and before.change is not None and before.change.document != document:
            self._tell_change(before)
        if self._wanted["stored"]:
            self._tell_rows("stored", rows)
        if self._wanted["changed"]:
            line = self._line(name)
            line.change = rows if line.change is None else _joined(line.change, rows)
            if self._closing:
                self._tell_change(line)
            elif line.timer is None:
                # From the first change on: so the last one is told within the interval too, however many follow.
                loop = asyncio.get_running_loop()
                line.timer = loop.call_later(self._options.interval, self._tell_change, line)

    def _tell_change(self, line: _Line) -> None:
        if line.timer is not None:
            line.timer.cancel()
        rows, line.change, line.timer = line.change, None, None
        if rows is not None:
            self._tell_rows("changed", rows)
        self._forget(line)

    def _tell_rows(self, method: str, rows: Rows) -> None:
        """Tell of rows, together with those of which the hooks are still to be told just before."""
        queue = self._line(rows.name).queues.get(_Kind.NEWS)
        last = queue[-1] if queue else None
        event = None if last is None or last.method != method else last.event
        if last is not None and event is not None and event.document == rows.document:
            last.event = _joined(event, rows)
            return
        entry = _Entry(_Kind.NEWS, method, rows, _nothing, partial(self._count_dropped, method, rows.name))

        def call(hook: Hooks) -> Coroutine[Any, Any, None]:
            event = entry.event
            assert event is not None
            return hook.stored(event, self._asked) if method == "stored" else hook.changed(event, self._asked)

        entry.work = partial(self._tell_all, method, rows.name, call)
        self._add_news(rows.name, entry)

    def _tell(self, method: str, name: str, call: Callable[[Hooks], Coroutine[Any, Any, None]]) -> None:
        work = partial(self._tell_all, method, name, call)
        self._add_news(name, _Entry(_Kind.NEWS, method, None, work, partial(self._count_dropped, method, name)))

    async def _tell_all(self, method: str, name: str, call: Callable[[Hooks], Coroutine[Any, Any, None]]) -> None:
        for hook in self._wanted[method]:
            with contextlib.suppress(HookUnavailable, Refused):
                await self._call(hook, method, name, partial(call, hook))
            if self._line(name).hanging is not None:
                return  # the next one is not called beside it

    def _add_news(self, name: str, entry: _Entry) -> None:
        if self._closed or self._waiting >= MAX_WAITING:
            entry.drop()
            return
        line = self._line(name)
        if line.waiting(_Kind.NEWS) >= MAX_NEWS:
            self._drop(line.queues[_Kind.NEWS].popleft())
        self._add(name, entry)

    def _number(self, member: Member) -> int:
        number = self._sessions.get(member)
        if number is None:
            self._numbered += 1
            number = self._sessions[member] = self._numbered
        return number

    def _visit(self, live: LiveRoom, member: Member, number: int) -> Visit:
        connection = f"{self._hub.membership.name}-{member.client.number}"
        return Visit(live.name, number, member.author, member.access, connection, len(live.room.sessions))

    # Lines

    def _line(self, name: str) -> _Line:
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(name)
        return line

    def _forget(self, line: _Line) -> None:
        """Forget a line in which nothing is left."""
        if not line.busy and line.timer is None and line.next() is None and self._lines.get(line.name) is line:
            del self._lines[line.name]

    def _add(self, name: str, entry: _Entry) -> None:
        line = self._line(name)
        line.queues.setdefault(entry.kind, deque()).append(entry)
        self._count(entry, 1)
        if not line.busy:
            self._note_ready(line)
        self._go_on()

    def _count(self, entry: _Entry, more: int) -> None:
        self._counts.waiting += more
        if entry.kind is not _Kind.QUESTION:
            self._waiting += more
        if self._counts.waiting:
            self._idle.clear()
        else:
            self._idle.set()

    def _drop(self, entry: _Entry) -> None:
        self._count(entry, -1)
        entry.drop()

    def _note_ready(self, line: _Line) -> None:
        """Put a line that is not busy where it waits for its turn: behind all others with the same kind of entry."""
        kind = line.next()
        for each, ready in self._ready.items():
            if each is not kind:
                ready.pop(line, None)
        if kind is not None:
            self._ready[kind].setdefault(line)

    def _go_on(self) -> None:
        """Begin as many calls as may be under way."""
        for kind, ready in self._ready.items():
            while ready and self._free[kind] > 0:
                line, _ = ready.popitem(last=False)
                entry = line.queues[kind].popleft()
                line.busy = True
                self._free[kind] -= 1
                self._tasks.spawn(self._run(line, entry), f"calling hooks for {shown_name(line.name)}")

    async def _run(self, line: _Line, entry: _Entry) -> None:
        """Do one entry of a line; then the next one may begin."""
        try:
            if entry.kind is not _Kind.QUESTION and len(self.stuck) >= MAX_STUCK:
                entry.drop()
            else:
                await entry.work()
        finally:
            self._count(entry, -1)
            self._free[entry.kind] += 1
            hanging = line.hanging
            if hanging is None:
                self._go_on_with(line)
            else:
                hanging.add_done_callback(lambda _: self._go_on_with(line))
                self._go_on()

    def _go_on_with(self, line: _Line) -> None:
        line.busy = False
        line.hanging = None
        self._note_ready(line)
        self._forget(line)
        self._go_on()

    # One call

    async def _call(self, hook: Hooks, method: str, name: str, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call a hook, for a bounded time.

        Raises:
            Refused: the hook has raised that.
            HookUnavailable: it has raised anything else, or takes too long; the log has it.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            given = await self._bounded(call, self._options.seconds, f"{kind_of(hook)}.{method} of {shown_name(name)}")
        except _Late as late:
            self._line(name).hanging = late.hanging
            self._counts.timeouts[method] += 1
            text = "%s.%s takes more than %g s for %s and was given up%s"
            ends = "" if late.hanging is None else "; it does not end, and nothing more of that document is told"
            self._limited.error(
                f"late {method}", text, kind_of(hook), method, self._options.seconds, shown_name(name), ends
            )
            raise HookUnavailable(f"{kind_of(hook)}.{method} takes too long") from None
        except Refused:
            self._counts.calls[method] += 1
            if method in ("may_create", "before_delete"):
                raise
            self._note_wrong(hook, method, name, "raised Refused, which has no meaning there")
            raise
        except Exception as error:
            self._counts.calls[method] += 1
            why = f": {error}" if is_refusal(error) else ""  # a text of ours holds no content
            raised = error.__cause__ if isinstance(error, _NoError) and error.__cause__ is not None else error
            # Its frames hold what the hook held; before that is free, a MemoryError leaves no memory for the log.
            clear_frames(raised.__traceback__)
            self._note_wrong(hook, method, name, f"raised {kind_of(raised)}{why} at {places_of(raised)}")
            _log.debug("%s.%s has failed", kind_of(hook), method, exc_info=error)
            forget_frames(error)
            raise HookUnavailable(f"{kind_of(hook)}.{method} raised {kind_of(error)}") from None
        finally:
            self._counts.seconds.observe(loop.time() - began)
        self._counts.calls[method] += 1
        return given

    async def _bounded(self, call: Callable[[], Awaitable[Answer]], seconds: float, what: str) -> Answer:
        """Await code of somebody else's in a task of its own: it may swallow that it is cancelled.

        Raises:
            _Late: it was cancelled because it took too long; if it has not ended then, ``stuck`` has it.
        """
        task = asyncio.get_running_loop().create_task(_contained(call), name=what)
        try:
            done, _ = await asyncio.wait((task,), timeout=seconds)
            if done:
                return _result_of(task)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=GRACE)
            if task.done():
                retrieve(task)
            else:
                self.stuck.add(task)
                task.add_done_callback(self._ended)
        raise _Late(None if task.done() else task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.stuck.discard(task)
        retrieve(task)

    # What is logged and counted

    def _note_wrong(self, hook: Hooks, method: str, name: str, what: str) -> None:
        self._counts.failures[method] += 1
        self._limited.error(f"failed {method}", "%s.%s for %s %s", kind_of(hook), method, shown_name(name), what)

    def _count_dropped(self, method: str, name: str) -> None:
        self._counts.dropped[method] += 1
        self._limited.warning(f"dropped {method}", "%s of %s was dropped", method, shown_name(name))


async def _contained(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """Await a hook so that what it raises ends nothing but its call."""
    try:
        return await call()
    except SystemExit as error:  # asyncio lets it end the loop
        raise _NoError from error


def _result_of(task: asyncio.Task[Answer]) -> Answer:
    """Return what a task has given that nobody has cancelled; what is no error is raised as ``_NoError``."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is None or isinstance(error, Exception):
        return task.result()
    raise _NoError from error


async def _nothing() -> None:
    """Do nothing."""


def _joined(before: Rows, rows: Rows) -> Rows:
    """Join rows with those that were written before them."""
    joined = replace(before, first=min(before.first, rows.first), last=rows.last, more=before.more or rows.more)
    return _with_authors(joined, rows.authors)


def _with_authors(rows: Rows, authors: Iterable[str | None]) -> Rows:
    """Name more authors, each once."""
    named = dict.fromkeys(rows.authors)
    more = rows.more
    for author in authors:
        if author is not None and author not in named:
            if len(named) >= MAX_AUTHORS:
                more = True
                break
            named[author] = None
    return replace(rows, authors=tuple(named), more=more)


def _is_sendable(text: object, most: int) -> bool:
    """Tell whether a value is a text that can be sent as a stateless message."""
    if not isinstance(text, str) or len(text) > most:
        return False
    try:
        return len(text.encode()) <= most
    except UnicodeEncodeError:
        return False
