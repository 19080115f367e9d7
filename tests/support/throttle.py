"""A slow line on loopback: a TCP proxy that lets only so many bytes a second pass, each way; and what proxies do.

It keeps bytes back until there are enough, cuts what is silent, and cuts in the middle of a message, as proxies in the
field do. It can be long as well: what passes arrives a while later.

Strategy: two threads for each connection read a little, wait as long as the line would need for it, and write it on.
The socket buffers of the proxy are small, so what a peer has written ahead waits in that peer's own kernel or process,
as on a real line; else the proxy would take megabytes at once, and nobody would notice that the line is slow. It runs
in threads, so tests with and without an event loop can use it.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

# Bytes of each socket buffer. The kernel doubles it; at 100 kB/s that is about a second of the line.
_BUFFER = 64 * 1024

# Seconds of the line that are passed on at once, and the bytes that this is at most.
_STEP = 0.02
_MOST = 64 * 1024

# Seconds by which a busy machine may wake a thread late without making the line slower.
_LATE = 0.2

# Seconds between looks while nothing may pass, or silence is measured.
_HELD = 0.01


@dataclass
class _Connection:
    """One connection: its number, and when a byte came last, either way."""

    number: int
    heard: float


class SlowLine:
    """A line to a server on this machine; use it as a context manager and connect to ``port``.

    Args:
        target: the port of the server on 127.0.0.1.
        down: bytes a second from the server to its client; None is as fast as it goes, 0 lets nothing pass.
        up: bytes a second from the client to its server.

        hold: bytes that are kept back, in each direction, until there are so many; or for ``hold_seconds`` since the
            first of them.
        hold_seconds: as above.
        idle: seconds without a byte in either direction after which a connection is cut; None is never.
        delay: seconds that everything is under way, in each direction.

    Attributes:
        port: where to connect to.
        down, up: as above, for all connections, each of which has the whole of it; they may be changed at any time.
        passed_down, passed_up: bytes that have passed, of all connections together.
        left_down, left_up: bytes that may still pass that way, of all connections together; with the last of them all
            connections are cut, and it is None again. None is no such end.
        connections: how many were opened so far.
        ended: how many were ended by the server so far.
        silent: how many were cut because they were idle.
        target: the port that new connections are carried to; it may be changed at any time, as a balancer does.
        source: the address from which the server is connected to; it may be changed at any time.
        closed: whether connections that come are ended at once; it may be changed at any time.
    """

    def __init__(
        self,
        target: int,
        *,
        down: float | None = None,
        up: float | None = None,
        hold: int = 0,
        hold_seconds: float = 0.0,
        idle: float | None = None,
        delay: float = 0.0,
    ) -> None:
        self.target = target
        self.delay = delay
        self.down = down
        self.up = up
        self.left_down: int | None = None
        self.left_up: int | None = None
        self.ended = 0
        self.silent = 0
        self.source = "127.0.0.1"
        self.closed = False
        self._hung = 0
        self._hold = hold
        self._hold_seconds = hold_seconds
        self._idle = idle
        self.passed_down = self.passed_up = 0
        self.connections = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # what it accepts has the same
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10.0)

    def cut(self) -> None:
        """End all connections in the middle of what they are doing; new ones are taken."""
        with self._lock:
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Let nothing more pass on the connections that there are, not even their ends; new ones are taken.

        That is what a peer sees of a phone that has gone to another network.
        """
        with self._lock:
            self._hung = self.connections

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.closed:
                client.close()
                continue
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:  # before the server can know of it: whoever has connected can be cut
                self._sockets |= {client, server}
                self.connections += 1
                connection = _Connection(self.connections, time.monotonic())
            try:
                server.bind((self.source, 0))
                server.connect(("127.0.0.1", self.target))
            except OSError:
                self._end(client, server)
                continue
            if self._closed:
                self._end(client, server)
                return
            self._start(self._carry, client, server, connection)

    def _carry(self, client: socket.socket, server: socket.socket, connection: _Connection) -> None:
        """Carry one connection to its end, and close it."""
        down = threading.Thread(target=self._pass_on, args=(server, client, "down", connection), daemon=True)
        down.start()
        self._pass_on(client, server, "up", connection)
        down.join()
        self._end(client, server)

    def _end(self, client: socket.socket, server: socket.socket) -> None:
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _wait(self, source: socket.socket, connection: _Connection, until: float | None) -> bool:
        """Wait for bytes of ``source``; False when ``until`` comes first. Raises OSError if all was silent too long."""
        if self._idle is None and until is None:
            return True  # recv waits
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while not poll.poll(_HELD * 1000):
            now = time.monotonic()
            if until is not None and now >= until:
                return False
            if self._idle is not None and now - connection.heard > self._idle:
                with self._lock:
                    self.silent += 1
                connection.heard = float("inf")  # only one of the two ways tells it
                raise OSError("silent for too long")
        return True

    def _gather(self, source: socket.socket, connection: _Connection, most: int) -> bytes:
        """Read what is passed on at once: what there is, or as much as a proxy keeps back."""
        self._wait(source, connection, None)
        data = source.recv(most)
        connection.heard = time.monotonic()
        until = time.monotonic() + self._hold_seconds
        while data and len(data) < self._hold and self._wait(source, connection, until):
            more = source.recv(most)
            if not more:
                break
            connection.heard = time.monotonic()
            data += more
        return data

    def _allowed(self, data: bytes, way: str) -> tuple[bytes, bool]:
        """Give what of ``data`` may pass before the connections are cut, and whether they are to be."""
        left: int | None = getattr(self, f"left_{way}")
        if left is None:
            return data, False
        setattr(self, f"left_{way}", left - len(data) if len(data) < left else None)
        return data[:left], len(data) >= left

    def _changer(self, way: str) -> Callable[[bytes], bytes] | None:
        """Give what changes the bytes of one way of one connection: for lines that do harm (tests/chaos)."""
        return None

    def _pass_on(self, source: socket.socket, target: socket.socket, way: str, connection: _Connection) -> None:
        """Pass on one way of a connection until its source says that nothing more comes."""
        due = 0.0  # when what has passed so far would have passed on the line
        change = self._changer(way)
        delivery = _Delivery(target, self.delay) if self.delay else None
        deliver = delivery or target
        try:
            while True:
                rate: float | None = getattr(self, way)
                while rate == 0 and not self._closed:
                    time.sleep(_HELD)
                    rate = getattr(self, way)
                data = self._gather(source, connection, _MOST if not rate else max(1, min(_MOST, int(rate * _STEP))))
                while connection.number <= self._hung and not self._closed:
                    time.sleep(_HELD)
                if not data:
                    if way == "down":
                        self.ended += 1
                    deliver.shutdown(socket.SHUT_WR)
                    return
                if change is not None:
                    data = change(data)
                if rate:
                    now = time.monotonic()
                    # A line that was idle has saved nothing up, but for what a thread sleeps too long.
                    due = max(due, now - _LATE) + len(data) / rate
                    time.sleep(max(0.0, due - now))
                with self._lock:  # before a peer can see it
                    data, ends = self._allowed(data, way)
                    if way == "down":
                        self.passed_down += len(data)
                    else:
                        self.passed_up += len(data)
                deliver.sendall(data)
                if ends:
                    self.cut()
        except OSError:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        finally:
            if delivery is not None:
                delivery.close()


class _Delivery:
    """Writes to a socket what was sent ``delay`` seconds before, from a thread of its own."""

    def __init__(self, target: socket.socket, delay: float) -> None:
        self._target = target
        self._delay = delay
        self._queue: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def sendall(self, data: bytes) -> None:
        if data:
            self._queue.put((time.monotonic() + self._delay, data))

    def shutdown(self, how: int) -> None:
        """Let the target know, after all that is under way, that nothing more comes."""
        self._queue.put((time.monotonic() + self._delay, b""))

    def close(self) -> None:
        """Return when all that is under way has arrived."""
        self.shutdown(socket.SHUT_WR)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                at, data = self._queue.get()
                time.sleep(max(0.0, at - time.monotonic()))
                if not data:
                    self._target.shutdown(socket.SHUT_WR)
                    return
                self._target.sendall(data)
