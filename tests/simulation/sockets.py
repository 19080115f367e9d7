"""Simulated connections between clients and nodes: bytes that take their time, and ends of every kind.

Strategy: the server's end is an asyncio transport for aiohttp's own protocol, so the handshake, the parser, the intake
and the outbox are the real ones. The client's end is a callback. Each direction is a queue of chunks in their order.
The client's end reads at its own pace: what it has not read fills the buffer of the kernel first, and then waits in the
server, as on a real socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

from tests.simulation.loop import Process, SimulatedLoop

CUT_SECONDS: Final = 3.0
"""At most, until a node hears that a client has gone without a word."""


class Peer(Protocol):
    """A client's end."""

    def received(self, data: bytes) -> None:
        """Take bytes of the server."""

    def lost(self) -> None:
        """Hear that the connection has ended."""


class Link(asyncio.Transport):
    """One connection, as its server sees it.

    Args:
        loop, random: what it runs on.
        node: the process at the server's end.
        peer: the client's end.
        latency: seconds that a byte takes on average.
        kernel: bytes that the server's kernel takes of what its client does not read.
        written: called with what the server writes, when it writes it.
        address: the client's.

    Attributes:
        rate: bytes a second that the client reads; 0 while it reads nothing.
        cut: nothing passes any more, and nobody is told: the cable is out.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        random: Random,
        node: Process,
        peer: Peer,
        *,
        latency: float,
        kernel: int,
        written: Callable[[bytes], None],
        address: str,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._random = random
        self._node = node
        self._peer: Peer | None = peer
        self._latency = latency
        self._kernel = kernel
        self._written = written
        self._address = address
        self.rate = 1e6
        self.cut = False
        self.protocol: Any = None
        self._out: deque[bytes] = deque()  # to the client
        self._waiting = 0
        self._carrying: asyncio.TimerHandle | None = None
        self._in: deque[bytes] = deque()  # to the server
        self._arriving: asyncio.TimerHandle | None = None
        self._arrives_at = 0.0
        self._paused = False
        self._closing = self._lost = False
        self._ended_by_client = False

    # The client's end

    def begin(self, protocol: Any) -> None:
        """Tell the server of the connection; within its process."""
        self.protocol = protocol
        self._node.context.run(protocol.connection_made, self)

    def send(self, data: bytes) -> None:
        """Send bytes to the server."""
        if not self._lost and not self._ended_by_client:
            self._in.append(data)
            self._plan_arrival()

    def end(self) -> None:
        """Close from the client's end; the server reads what was sent before."""
        self._peer = None
        if not self._ended_by_client:
            self._ended_by_client = True
            self._plan_arrival()

    def vanish(self) -> None:
        """Let nothing pass any more, and the server hear of it late, or never by itself."""
        self.cut = True
        self._peer = None
        self._in.clear()
        if self._random.random() < 0.5:
            self._loop.call_later(self._random.random() * CUT_SECONDS, self._lose, context=self._node.context)

    def read_at(self, rate: float) -> None:
        """Read at another pace from now on."""
        self.rate = rate
        if self._carrying is not None:
            self._carrying.cancel()  # it was planned at the pace before
            self._carrying = None
        self._plan_delivery()

    # Bytes to the server

    def _plan_arrival(self) -> None:
        if self._arriving is None and not self._paused and not self._lost:
            wait = self._latency * (0.5 + self._random.random())
            self._arriving = self._loop.call_later(wait, self._arrive, context=self._node.context)

    def _arrive(self) -> None:
        self._arriving = None
        if self._lost or self._paused or self.cut:
            return
        # What came in one moment is read at once, or a part of it, as on a stream.
        data = b"".join(self._in)
        self._in.clear()
        if len(data) > 1 and self._random.random() < 0.1:
            begin = 1 + int(self._random.random() * (len(data) - 1))
            self._in.append(data[begin:])
            data = data[:begin]
        if data:
            self.protocol.data_received(data)
        if self._in:
            self._plan_arrival()
        elif self._ended_by_client:
            self._lose()

    # What the server asks of its transport

    def write(self, data: Any) -> None:
        """Take bytes for the client."""
        if self._lost or self._closing:
            return
        data = bytes(data)
        self._written(data)
        self._out.append(data)
        self._waiting += len(data)
        self._plan_delivery()

    def writelines(self, list_of_data: Any) -> None:
        """Take bytes for the client."""
        self.write(b"".join(list_of_data))

    def _plan_delivery(self) -> None:
        if self._carrying is None and self._out and self.rate and not self.cut:
            wait = self._latency * (0.5 + self._random.random()) + len(self._out[0]) / self.rate
            self._carrying = self._loop.call_later(wait, self._deliver, context=self._loop.world.context)

    def _deliver(self) -> None:
        self._carrying = None
        if self.cut or not self._out or not self.rate:
            return
        # A line that is not the bottleneck brings all that was written.
        count = len(self._out) if self.rate >= 1e5 else 1
        data = b"".join([self._out.popleft() for _ in range(count)])
        self._waiting -= len(data)
        if self._peer is not None:
            self._peer.received(data)
        if self._out:
            self._plan_delivery()
        elif self._closing and not self._lost:
            self._loop.call_soon(self._lose, context=self._node.context)

    def get_write_buffer_size(self) -> int:
        """Give the bytes that the kernel has not taken."""
        return max(0, self._waiting - self._kernel)

    def pause_reading(self) -> None:
        """Read nothing more."""
        self._paused = True
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def resume_reading(self) -> None:
        """Read on."""
        self._paused = False
        if self._in or self._ended_by_client:
            self._plan_arrival()

    def is_closing(self) -> bool:
        """Tell whether the server closes it, or it has ended."""
        return self._closing or self._lost

    def close(self) -> None:
        """Close when everything was written."""
        if self._closing or self._lost:
            return
        self._closing = True
        if not self._out:
            self._loop.call_soon(self._lose, context=self._node.context)

    def abort(self) -> None:
        """Close at once."""
        if not self._lost:
            self._closing = True
            self._out.clear()
            self._loop.call_soon(self._lose, context=self._node.context)

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = True
        self._out.clear()
        self._in.clear()
        self._tell_peer()
        self.protocol.connection_lost(None)

    def die(self) -> None:
        """End because the node's process has died: its kernel tells the client."""
        self._lost = True
        self._out.clear()
        self._tell_peer()

    def _tell_peer(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None and not self.cut:
            wait = self._latency * (0.5 + self._random.random())
            self._loop.call_later(wait, peer.lost, context=self._loop.world.context)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._lost

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Say who is at the other end."""
        return {"peername": (self._address, 40_000), "sockname": ("10.0.0.1", 1234)}.get(name, default)

    def get_protocol(self) -> Any:
        """Give the server's protocol."""
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        """Change the server's protocol."""
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: nobody of ours waits for them."""
