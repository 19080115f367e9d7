"""A bus that crosses a network: what its adapters have in common.

Strategy: what nodes say is in ``Peers``; an adapter has a connection, which fails and comes back. One task keeps it:
it connects, sends what waits as soon as the connection is free for it, beats, and begins again with a pause that grows
when something fails. Nothing that is published waits for any of that.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Final

from collab.cluster.bus import BusCounts, BusListener, BusMessage
from collab.cluster.peers import BEAT_SECONDS, SILENT_SECONDS, Outgoing, Peers
from collab.cluster.wire import ID_BYTES
from collab.errors import DecodeError
from collab.telemetry import RateLimited, get_logger

_log = get_logger("bus")

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts to connect; twice as long each time, and a random part of it."""

START_SECONDS: Final = 2.0
"""For the first attempt to connect: a server that is starting waits no longer for it."""

SEND_SECONDS: Final = 5.0
"""After these a connection that does not take what is sent counts as broken."""

BYE_SECONDS: Final = 1.0
"""For the last frames when a node leaves."""


class BusDown(Exception):
    """The connection cannot be had, or has ended; the text says why."""


class NetworkBus(ABC):
    """One node's end of a bus that crosses a network; see ``collab.cluster.bus.Bus`` for the promise.

    Args:
        frame_bytes: the largest frame that the network takes.
        streams: whether each topic has a channel of its own.
        what: how the log calls it, for example "the bus on PostgreSQL".
        random: names the node, and spreads attempts to connect.
    """

    def __init__(self, frame_bytes: int, *, streams: bool, what: str, random: Random | None = None) -> None:
        self._random = SystemRandom() if random is None else random
        self._name = self._random.randbytes(ID_BYTES)
        self._what = what
        self._listener: BusListener | None = None
        self._guarded = _Guarded(lambda: self._listener)
        self._peers = Peers(self._name, self._guarded, frame_bytes, streams=streams)
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._soon: asyncio.Handle | None = None
        self._connected = False
        self._stopping = False
        self._beat_due = False
        self._broken: str | None = None
        self._limited = RateLimited(_log)

    # What an adapter does

    @abstractmethod
    async def _connect(self) -> None:
        """Open the connection and listen; raises ``BusDown``."""

    @abstractmethod
    async def _send(self, frames: list[Outgoing]) -> None:
        """Send frames in their order; raises ``BusDown``."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close what is open; does not raise."""

    def _follow(self, stream: bytes) -> None:  # noqa: B027 -- for adapters with a channel for each stream
        """Listen to a stream from the next frame that is sent on."""

    def _leave(self, stream: bytes) -> None:  # noqa: B027 -- as above
        """Listen to a stream no more."""

    def _heard(self, data: bytes) -> None:
        """Take a frame; an adapter calls it on the loop for each one."""
        if self._listener is None:
            return
        try:
            self._peers.hear(data, asyncio.get_running_loop().time())
        except DecodeError as error:
            self._limited.warning("damaged", "%s: a frame is left out: %s", self._what, error)
        if self._peers.waiting or self._peers.telling:  # most frames ask for nothing, and come with every commit
            self._send_soon()

    def _heard_itself(self) -> None:
        """Note that a frame of this node came back, where an adapter sees that before it has read it."""
        self._peers.heard_itself = asyncio.get_running_loop().time()

    def _fail(self, why: str) -> None:
        """Note that the connection has ended; an adapter calls it when it is told so."""
        self._broken = why
        self._wake.set()

    # The port

    @property
    def node(self) -> str:
        """The name of this node."""
        return self._name.hex()

    @property
    def others(self) -> int:
        """How many other nodes are known."""
        return self._peers.count

    @property
    def counts(self) -> BusCounts:
        """What this end has done."""
        return self._peers.counts

    @property
    def trouble(self) -> str | None:
        """Whether there is no connection; the log says why."""
        return None if self._connected else f"{self._what} is down: edits of other nodes arrive about a second late"

    @property
    def steady(self) -> bool:
        """Whether there is a connection, on which this node hears itself and all others."""
        return self._connected and self._peers.sure and not self._deaf

    @property
    def _deaf(self) -> bool:
        now = asyncio.get_running_loop().time()
        return now - max(self._peers.heard_itself, self._connected_at) > SILENT_SECONDS

    def wanted(self, topic: str) -> bool:
        """Tell whether another node may have subscribed to a topic."""
        return self._peers.wanted(topic)

    async def start(self, listener: BusListener) -> None:
        """Begin to connect; return when that has succeeded or failed for the first time, or takes too long."""
        self._listener = listener
        first = asyncio.Event()
        self._task = asyncio.create_task(self._run(first), name=self._what)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await first.wait()

    async def close(self) -> None:
        """Say that this node leaves, and release everything."""
        task, self._task = self._task, None
        if task is not None:
            # Asked first: the library of a network may swallow a cancellation in the middle of a call.
            self._stopping = True
            self._wake.set()
            await asyncio.wait([task], timeout=BYE_SECONDS)
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=BYE_SECONDS)
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._connected:
            self._connected = False
            self._peers.leave()
            with contextlib.suppress(BusDown, TimeoutError):
                async with asyncio.timeout(BYE_SECONDS):
                    await self._send(self._peers.take())
        self._listener = None
        await self._disconnect()

    def subscribe(self, topic: str) -> None:
        """Hear what is published on ``topic``."""
        stream = self._peers.subscribe(topic)
        if stream is not None:
            self._follow(stream)
            self._send_soon()

    def unsubscribe(self, topic: str) -> None:
        """Hear nothing more of ``topic``."""
        stream = self._peers.unsubscribe(topic)
        if stream is not None:
            self._leave(stream)
            self._send_soon()

    def publish(self, topic: str, payload: bytes) -> None:
        """Let a message wait to be sent."""
        if not self._connected:
            return
        if not self._peers.publish(topic, payload):
            self._limited.warning("dropped", "%s: messages to other nodes are dropped, too much waits", self._what)
        self._send_soon()

    # The connection

    def _send_soon(self) -> None:
        if self._soon is None and self._connected:
            # In a later turn of the loop: what is published in one turn goes together.
            self._soon = asyncio.get_running_loop().call_soon(self._now)

    def _now(self) -> None:
        self._soon = None
        self._wake.set()

    async def _run(self, first: asyncio.Event) -> None:
        pause, said = FIRST_PAUSE, False
        while not self._stopping:
            began = asyncio.get_running_loop().time()
            try:
                self._broken = None
                await self._connect()
                self._note_connected(again=said)
                said, pause = False, FIRST_PAUSE
                first.set()
                await self._serve()
                return
            except BusDown as error:
                if self._connected:
                    self._connected = False
                    self._tell_missed()
                if not said:
                    _log.warning("%s is down: %s. Edits of other nodes arrive about a second late", self._what, error)
                    said = True
            except Exception as error:
                self._limited.error("defect", "%s has failed", self._what, exc_info=error)
                self._connected = False
                self._tell_missed()
                said = True
            first.set()
            await self._disconnect()
            self._peers.tick(asyncio.get_running_loop().time())
            lasted = asyncio.get_running_loop().time() - began
            pause = FIRST_PAUSE if lasted > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            await self._pause(pause * self._random.uniform(0.5, 1.0))

    def _note_connected(self, *, again: bool) -> None:
        self._connected = True
        self._connected_at = asyncio.get_running_loop().time()
        self._peers.counts.reconnects += again
        self._peers.reconnected()
        (_log.info if again else _log.debug)("%s is up", self._what)

    def _tell_missed(self) -> None:
        self._guarded.missed()

    _connected_at = float("-inf")

    async def _pause(self, seconds: float) -> None:
        """Wait, and let others be missed meanwhile."""
        end = asyncio.get_running_loop().time() + seconds
        while not self._stopping and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, BEAT_SECONDS))
            self._peers.tick(asyncio.get_running_loop().time())
            self._peers.take()  # nobody hears it

    async def _serve(self) -> None:
        """Send what waits, and beat, until the connection ends or this node leaves; raises ``BusDown``."""
        loop = asyncio.get_running_loop()
        beat: asyncio.TimerHandle | None = None  # one for all that is sent until then
        self._beat_due = True
        try:
            while not self._stopping:
                if self._broken is not None:
                    raise BusDown(self._broken)
                if self._beat_due:
                    self._beat_due = False
                    beat = loop.call_later(BEAT_SECONDS, self._note_beat)
                    self._peers.tick(loop.time())
                    if self._deaf:
                        raise BusDown(f"nothing comes back that was sent for {SILENT_SECONDS:g} s")
                else:
                    self._peers.tell_joined()
                self._wake.clear()
                if self._peers.waiting:
                    try:
                        async with asyncio.timeout(SEND_SECONDS):
                            await self._send(self._peers.take())
                    except TimeoutError:
                        raise BusDown(f"it takes nothing within {SEND_SECONDS:g} s") from None
                elif not self._beat_due:
                    await self._wake.wait()
        finally:
            if beat is not None:
                beat.cancel()

    def _note_beat(self) -> None:
        self._beat_due = True
        self._wake.set()


class _Guarded:
    """A listener whose mistakes are logged and end nothing; nobody is called after ``close``."""

    def __init__(self, listener: Callable[[], BusListener | None]) -> None:
        self._listener = listener
        self._limited = RateLimited(_log)

    def receive(self, message: BusMessage) -> None:
        # As ``_call``, for what comes with every edit of other nodes.
        listener = self._listener()
        if listener is not None:
            try:
                listener.receive(message)
            except Exception as error:
                self._note(error, "receive")

    def joined(self, topic: str, node: str) -> None:
        self._call("joined", topic, node)

    def left(self, topic: str, node: str) -> None:
        self._call("left", topic, node)

    def gone(self, node: str) -> None:
        self._call("gone", node)

    def missed(self) -> None:
        self._call("missed")

    def _call(self, name: str, *arguments: object) -> None:
        listener = self._listener()
        if listener is not None:
            try:
                getattr(listener, name)(*arguments)
            except Exception as error:
                self._note(error, name)

    def _note(self, error: Exception, name: str) -> None:
        self._limited.error("listener", "what the bus has told was not taken (%s)", name, exc_info=error)
