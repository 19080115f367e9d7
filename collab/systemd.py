"""What a service tells systemd of itself: that it serves, reads files again, stops, and that its event loop turns.

Strategy: the protocol of ``sd_notify(3)`` is one datagram of ``NAME=value`` lines, so no library is needed. The address
is taken out of the environment when it is read, as its manual asks for: what this process starts must not speak for it.
Where nobody listens (no systemd, another ``Type=``) every call does nothing.

The sign of life (``WATCHDOG=1``) is sent from the event loop. So systemd ends a process whose loop stands still, which
a thread of its own would go on calling alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, MutableMapping

from collab.telemetry import get_logger

_log = get_logger()

_ALIVE = "WATCHDOG=1"

_WAIT_SECONDS = 1.0
"""How long a message waits for room in the queue of a systemd that is busy."""


class Notifier:
    """Tell systemd how this process does.

    Args:
        address: of the datagram socket: a path, or ``@`` and an abstract name; None where nobody wants to hear.
        period: seconds in which systemd wants a sign of life; None for no watchdog.
    """

    def __init__(self, address: str | None = None, period: float | None = None) -> None:
        self._address = None if address is None else f"\0{address[1:]}" if address.startswith("@") else address
        self._period = period
        self._failed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Notifier:
        """Read what systemd has set for this process, and remove it from the environment."""
        address = environment.pop("NOTIFY_SOCKET", None)
        microseconds = environment.pop("WATCHDOG_USEC", None)
        process = environment.pop("WATCHDOG_PID", None)
        if address is None or not address.startswith(("/", "@")):
            return cls()
        mine = process is None or process == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if mine and microseconds and microseconds.isdigit() else None)

    def ready(self, status: str = "") -> None:
        """Say that the service serves; ``status`` is what ``systemctl status`` shows."""
        self._send("READY=1", *self._status(status))

    def stopping(self, status: str = "") -> None:
        """Say that the service has begun to stop."""
        self._send("STOPPING=1", *self._status(status))

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that files are read again, and, at the end, that the service serves as before."""
        # Type=notify-reload compares this with its own clock; older releases of systemd ignore it.
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self._send("READY=1")

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """Give signs of life from the event loop while the block runs, twice as often as systemd wants them."""
        if self._address is None or self._period is None:
            yield
            return
        beat = asyncio.create_task(self._beat(self._period / 2))
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    async def _beat(self, pause: float) -> None:
        while True:
            self._send(_ALIVE)
            await asyncio.sleep(pause)

    @staticmethod
    def _status(text: str) -> list[str]:
        return [f"STATUS={' '.join(text.split())}"] if text else []

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                # The queue may be full for a moment. A sign of life may be missing; what is said once may not.
                sock.settimeout(0.0 if lines == (_ALIVE,) else _WAIT_SECONDS)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # a time-out too
            if not self._failed:
                self._failed = True
                _log.warning("systemd cannot be told %s: %s", lines[0], error)
        else:
            self._failed = False
