"""Live readers: requests that stay open until something comes, and then are answered (long-poll) or go on (SSE).

Strategy: whatever stream a reader is in, it is served here, and stands in it by a ``Cursor`` (``hub.readers``). One
request, one reader: it takes a place in the limits as a socket does, is in the lists of connections, and ends with
its access. It writes at the pace of its client's socket: a reader that is level writes the bytes that all share in the
step in which they come, beside aiohttp, which would frame them once for each; one whose socket holds more than the mark
reads on by its cursor when that has drained.

A reader ends in one way only, as its answer ends: the client asks again, and is then told what is so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from collab.auth.access import Grant
from collab.errors import CollabError, ServerStopping
from collab.hub.admission import Admission
from collab.hub.member import ConnectionFacts
from collab.hub.readers import Cursor, Reader
from collab.hub.room import LiveRoom
from collab.limits.limits import Ticket
from collab.protocol import streams
from collab.protocol.session import State
from collab.protocol.streams import Batch, Live
from collab.telemetry import RateLimited, get_logger, shown_name
from collab.transports.guard.guard import Guard
from collab.transports.http.streams.answers import HEADERS, octets
from collab.transports.requests import bearer_token

_limited = RateLimited(get_logger("streams"))

LIVE_SECONDS: Final = 55.0
"""Seconds for which a long-poll waits, and an SSE answer goes on: below the minute after which proxies cut."""

SPREAD: Final = 0.1
"""By so much of that each one is shorter or longer at random, so that readers do not come back in step."""

KEEP_ALIVE_SECONDS: Final = 20.0
"""Seconds without an event after which an SSE answer gets a comment: proxies cut what is silent."""

# Seconds between looks whether a client is still there, where nobody tells.
_LOOK = 5.0

# Readers that are ended at once when the server stops, and seconds until the next group, as for sockets.
_GROUP = 10
_GROUP_PAUSE = 0.05


@dataclass(slots=True)
class StreamCounts:
    """What readers and posts have come to, for the metrics.

    Attributes:
        opened: live readers so far, by how they wait.
        events: batches that were written to SSE readers in the step in which they came.
        behind: times that an SSE reader took less than came, and read on by its cursor.
        posts: what became of requests that bring updates.
        updates: updates in them.
    """

    opened: dict[str, int] = field(default_factory=lambda: {Live.LONG_POLL.value: 0, Live.EVENTS.value: 0})
    events: int = 0
    behind: int = 0
    posts: dict[str, int] = field(default_factory=lambda: {"new": 0, "repeated": 0, "refused": 0})
    updates: int = 0


class LiveReaders:
    """All live readers of this node.

    Args:
        admission: lets them into documents.
        guard: whose limits count.
        numbers: names connections, sockets too.
        mark: bytes that may wait for a client before it counts as slow.
        random: spreads what clients would else do in step.

    Attributes:
        counts: what they have come to.
    """

    def __init__(self, admission: Admission, guard: Guard, numbers: Iterator[int], mark: int, random: Random) -> None:
        self._admission = admission
        self._guard = guard
        self._numbers = numbers
        self._mark = mark
        self._random = random
        self._open: dict[Reader, Live] = {}
        self._stopping = False
        self.counts = StreamCounts()

    def __len__(self) -> int:
        return len(self._open)

    def open_by_mode(self) -> dict[str, int]:
        """Count those that are open, by how they wait."""
        found = {Live.LONG_POLL.value: 0, Live.EVENTS.value: 0}
        for mode in self._open.values():
            found[mode.value] += 1
        return found

    def describe(self) -> list[tuple[int, Callable[[], ConnectionFacts]]]:
        """Give the number of each reader, and what says who it is."""
        return [(reader.number, reader.facts) for reader in self._open if reader.state is not State.CLOSED]

    async def close(self, spread: float, hurried: asyncio.Event) -> None:
        """Take no more readers, and end all in small groups, within ``spread`` seconds or at once if it is hurried."""
        self._stopping = True
        readers = list(self._open)
        size = max(_GROUP, int(len(readers) * _GROUP_PAUSE / max(spread, _GROUP_PAUSE)) + 1)
        for groups in range(0, len(readers), size):
            if groups and not hurried.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(hurried.wait(), _GROUP_PAUSE)
            for reader in readers[groups : groups + size]:
                reader.end(ServerStopping("the server is stopping"))
        _limited.flush()

    async def serve(
        self, request: web.Request, live: LiveRoom, grant: Grant, cursor: Cursor, how: Live
    ) -> web.StreamResponse:
        """Serve a reader who may read the document, from ``cursor`` on, until its answer ends.

        ``live`` stays in memory meanwhile; what happens to it happens to its readers.

        Raises:
            CollabError: nothing was answered: there is no place, the access has ended, or nothing can be read.
        """
        peer, loop_time = self._guard.peer(request), asyncio.get_running_loop().time
        if self._stopping:
            raise ServerStopping("the server is stopping")
        limits = self._guard.limits
        ticket = limits.add_connection(peer, loop_time(), arrives=False)
        try:
            if grant.user is not None:
                limits.add_user(ticket, grant.user, loop_time())
            ticket.let_in = True
            self._admission.check(live, grant, ticket)
            reader = self._reader(request, live, grant, ticket)
            if how is Live.EVENTS:  # each answer to a long poll would be one
                who = partial(self._guard.who, request, grant.user, protocol="streams")
                self._guard.audit.sign_in(who, live.name, grant.access)
            with live.read_by(reader), self._watched(request, reader, grant, how):
                if how is Live.EVENTS:
                    return await self._events(request, live, reader, cursor)
                return await self._poll(request, reader, cursor)
        finally:
            limits.remove_connection(ticket, loop_time())

    def _reader(self, request: web.Request, live: LiveRoom, grant: Grant, ticket: Ticket) -> Reader:
        peer, token = ticket.peer, bearer_token(request)

        async def ask() -> Grant:
            return await self._admission.ask_again(peer, token, live.name, ticket)

        return Reader(next(self._numbers), live.name, peer.address, grant, ask)

    @contextlib.contextmanager
    def _watched(self, request: web.Request, reader: Reader, grant: Grant, how: Live) -> Iterator[None]:
        """Keep a reader in the list, and end it with its access or its client."""
        expiry: asyncio.TimerHandle | None = None

        def expire(grant: Grant) -> None:
            nonlocal expiry
            if expiry is not None:
                expiry.cancel()
            expiry = self._admission.when_expired(grant, reader.expired)

        def lost() -> None:
            reader.end(ConnectionResetError("the client has gone"))

        expire(grant)
        reader.on_grant(expire)
        transport = request.transport
        if transport is not None:
            reader.waiting = transport.get_write_buffer_size
        self._open[reader] = how
        try:
            with self._guard.streaming(request, lost):
                yield
        finally:
            del self._open[reader]
            reader.state = State.CLOSED
            if expiry is not None:
                expiry.cancel()

    def _seconds(self) -> float:
        return LIVE_SECONDS * (1.0 + SPREAD * (2.0 * self._random.random() - 1.0))

    # Long-poll

    async def _poll(self, request: web.Request, reader: Reader, cursor: Cursor) -> web.StreamResponse:
        """Answer with what there is, or with what comes, or that nothing has come."""
        self.counts.opened[Live.LONG_POLL.value] += 1
        sink = _PollSink()
        reader.on_end(sink.wake)
        batch = await cursor.read()
        until = asyncio.get_running_loop().time() + self._seconds()
        while not batch.payload:
            if reader.ended is not None:
                raise reader.ended
            if not batch.up_to_date or not cursor.attach(sink):
                batch = await cursor.read()
                continue
            try:
                late = await sink.wait(request, until)
            finally:
                cursor.detach()
            if sink.batch is not None:
                batch = sink.batch
            elif late:
                break
            elif reader.ended is None:
                batch = await cursor.read()
        told = streams.next_cursor(time.time(), request.query.get("cursor"), self._random.random())
        return await octets(request, batch, {streams.CURSOR: str(told)}, status=200 if batch.payload else 204)

    # Server-sent events

    async def _events(self, request: web.Request, live: LiveRoom, reader: Reader, cursor: Cursor) -> web.StreamResponse:
        """Write what there is, and what comes, until the time of the answer is over."""
        batch = await cursor.read()  # what cannot be read is told before anything is answered
        if reader.ended is not None:
            raise reader.ended
        self.counts.opened[Live.EVENTS.value] += 1
        response = web.StreamResponse(
            headers={
                **HEADERS,
                hdrs.CONTENT_TYPE: streams.EVENTS,
                streams.ENCODING: "base64",
                # Nginx, and others that know its header, pass the events on as they come.
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        told = streams.next_cursor(time.time(), request.query.get("cursor"), self._random.random())
        sink = _EventSink(request, live, self._mark, told, self.counts)
        reader.on_end(sink.wake)
        try:
            await self._write_events(request, response, reader, cursor, sink, batch)
        except ConnectionError:
            return response  # nobody reads it any more
        except CollabError as error:
            # The client asks again, and is told then.
            _limited.warning("read", "a stream of %s ends: %s", shown_name(reader.document_name), error)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    async def _write_events(
        self,
        request: web.Request,
        response: web.StreamResponse,
        reader: Reader,
        cursor: Cursor,
        sink: _EventSink,
        batch: Batch,
    ) -> None:
        loop_time = asyncio.get_running_loop().time
        until = loop_time() + self._seconds()
        first = True
        while reader.ended is None:
            if batch.payload or first:
                for part in streams.encode_data(batch.payload):
                    sink.sent(len(part))
                    await response.write(part)
                control = batch.control(sink.cursor())
                sink.sent(len(control))
                await response.write(control)
                sink.written_at = loop_time()
                first = False
            if batch.up_to_date and cursor.attach(sink):
                reader.state = State.LIVE
                try:
                    await sink.wait(response, until)
                finally:
                    cursor.detach()
            if reader.ended is not None or loop_time() >= until:
                return
            reader.state = State.LAGGING
            await request.writer.drain()
            batch = await cursor.read()


class _Waiting:
    """What waits for a batch, an end or a time."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def _until(self, at: float) -> bool:
        """Wait until it is woken, and at most until a time; return whether that has come first."""
        try:
            async with asyncio.timeout_at(at):
                await self._woken.wait()
        except TimeoutError:
            return True
        self._woken.clear()
        return False


class _PollSink(_Waiting):
    """A long-poll that waits: the first batch is its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.batch: Batch | None = None

    def push(self, batch: Batch) -> bool:
        if self.batch is not None:
            return False
        self.batch = batch
        self.wake()
        return True

    async def wait(self, request: web.Request, until: float) -> bool:
        """Return when there is a batch or something to be read, or it was ended; True if its time is over."""
        loop_time = asyncio.get_running_loop().time
        while loop_time() < until:
            if not await self._until(min(until, loop_time() + _LOOK)):
                return False
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError("the client has gone")
        return True


class _EventSink(_Waiting):
    """An SSE answer that is level: batches are written as they come.

    Attributes:
        written_at: when the last event was written, in the loop's seconds.
    """

    def __init__(self, request: web.Request, live: LiveRoom, mark: int, told: int, counts: StreamCounts) -> None:
        super().__init__()
        self._request = request
        self._live = live
        self._mark = mark
        self._least = told
        self._counts = counts
        self._chunked = request.version >= HttpVersion11
        self._loop_time = asyncio.get_running_loop().time
        self.written_at = 0.0

    def cursor(self) -> int:
        """Give the cursor of an event that is written now: for nearly all readers that of the moment."""
        return max(self._least, streams.interval(time.time()))

    def sent(self, nbytes: int) -> None:
        """Count bytes for the tenant whose the document is."""
        if self._live.account is not None:
            self._live.account.bytes_sent += nbytes

    def push(self, batch: Batch) -> bool:
        transport = self._request.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > self._mark:
            self._counts.behind += 1
            self.wake()
            return False
        cursor = self.cursor()
        data = batch.chunk(cursor) if self._chunked else batch.event(cursor)
        transport.write(data)
        self.sent(len(data))
        self._counts.events += 1
        self.written_at = self._loop_time()
        return True

    async def wait(self, response: web.StreamResponse, until: float) -> None:
        """Return when there is something to be read, it was ended, or its time is over; keep the connection alive."""
        while (now := self._loop_time()) < until:
            if now >= self.written_at + KEEP_ALIVE_SECONDS:
                await response.write(streams.KEEP_ALIVE)
                self.written_at = now
            at = min(until, now + _LOOK, self.written_at + KEEP_ALIVE_SECONDS)
            if not await self._until(at):
                return
            transport = self._request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client has gone")
