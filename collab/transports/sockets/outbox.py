"""The outbox of one socket: finished frames go straight to the transport, large ones in portions.

Strategy: rooms write without waiting and learn from the return value how much waits in this process. A large frame
leaves in portions that a ``Pacer`` gives turns to; what is written meanwhile waits behind it, so one frame is never
torn by another. A long frame (``hub.long_frames``) is put together portion by portion, each when the client has taken
the one before: a client that reads nothing costs one portion, however large its document is. All frames of a socket
pass through here, so this alone knows whether it is being closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from collab.hub.line import Line, Traffic
from collab.hub.long_frames import LongFrame
from collab.hub.member import SMALL
from collab.protocol.messages import CloseCode
from collab.transports.sockets.deflate import SMALLEST, Deflater
from collab.transports.sockets.frames import close_frame, is_one_binary_frame, ping_frame, pong_frame
from collab.transports.sockets.pacing import PORTION, Paced
from collab.update.parts import Cursor

# Seconds that a client gets to answer a close before its connection is cut.
CLOSE_SECONDS = 5.0


# What a line is probed with: pongs that nobody has asked for. Every client drops them unseen (RFC 6455, 5.5.3).
_FILLER: Final = pong_frame(bytes(125)) * 64


class Pacer(Protocol):
    """Give outboxes their turns at sending portions (``pacing.Pacer``; a simulation brings its own)."""

    traffic: Traffic
    """Counts what is sent in portions."""

    def add(self, outbox: Paced) -> None:
        """Give turns to ``outbox`` until it has no portions left."""
        ...

    def close(self) -> None:
        """Give no more turns."""
        ...


Deflating = tuple[asyncio.Future[bytes] | asyncio.Future[LongFrame], int]
"""A frame that is being compressed, and its size before."""


def _cut(data: bytes) -> list[memoryview]:
    view = memoryview(data)
    return [view[begin : begin + PORTION] for begin in range(0, len(data), PORTION)]


class SocketOutbox:
    """See ``collab.hub.member.Outbox`` for the promise.

    Args:
        transport: where finished frames are written to.
        mark: bytes waiting past which the client counts as slow.
        pacer: gives turns at sending portions.

    Attributes:
        deflater: compresses large frames, if the client can read them; None at first.
        deflated: whether it was sent such a frame.
        close_code: how the client has closed; None while it has not, or without a code.
        mark: see above.
        pings: whether the client sees our pings; else the transport answers them when all before them has left it.
        closing: nothing more is written: the socket is being closed, or is lost. There is no ``direct`` from then on:
            who sets this sets that, too, without a call, which might fail.
        direct, buffered: see ``collab.hub.member.Outbox``.
        quiet: nothing but keepalives was written since the last sweep.
    """

    __slots__ = (
        "_cutting",
        "_last",
        "_line",
        "_measured",
        "_pacer",
        "_pings",
        "_portions",
        "_portions_size",
        "_transport",
        "_write",
        "buffered",
        "close_code",
        "closing",
        "deflated",
        "deflater",
        "direct",
        "mark",
        "pings",
        "quiet",
    )

    def __init__(self, transport: asyncio.Transport, mark: int, pacer: Pacer) -> None:
        self._transport = transport
        self._write = transport.write
        self.buffered = transport.get_write_buffer_size
        self._pacer = pacer
        # Of large frames: portions, what reads a long one, or what is still being compressed; and what was written
        # behind them.
        self._portions: deque[memoryview | Cursor | Deflating] | None = None
        self.closing = False
        self.direct = self._find_direct()
        self.deflater: Deflater | None = None
        self.deflated = False
        self.close_code: int | None = None
        self._portions_size = 0
        self._cutting: asyncio.TimerHandle | None = None
        self._last: CloseCode | None = None  # to be said when the portions are written
        self._pings = 0
        self._line: Line | None = None
        self._measured: dict[bytes, Callable[[], object]] | None = None  # by what the pong will bring back
        self.mark = mark
        self.pings: bool = transport.get_extra_info("pings", True)
        self.quiet = False

    def _find_direct(self) -> Callable[[bytes], object] | None:
        """Return what ``direct`` is now."""
        return None if self.closing or self._portions is not None else self._write

    def write(self, data: bytes) -> int:
        """Write finished frames; return how many bytes wait in this process."""
        if self.closing:
            return 0
        self.quiet = False
        if self._portions is not None or len(data) >= SMALL:
            return self._write_large(data)
        try:
            self._write(data)
        except RuntimeError:
            self._lost()
            return 0
        return self.buffered()

    def write_long(self, frame: LongFrame) -> int:
        """Write a frame that is put together as it leaves; return how many bytes wait, made or not."""
        if self.closing:
            return 0
        self.quiet = False
        deflating = None if self.deflater is None else self.deflater.compress_long(frame)
        portions = self._begin_portions()
        if deflating is None:
            portions.append(frame.cursor())
        else:
            self.deflated = True
            portions.append((deflating, len(frame)))
        self._portions_size += len(frame)
        return self.waiting()

    def _write_large(self, data: bytes) -> int:
        if self.deflater is not None and len(data) >= SMALLEST and is_one_binary_frame(data):
            return self._write_deflated(data, self.deflater)
        if self._portions is not None or len(data) > 2 * PORTION:
            return self._write_in_portions(data)
        return self._write_now(data)

    def _write_now(self, data: bytes) -> int:
        try:
            self._write(data)
        except RuntimeError:
            self._lost()
            return 0
        return self.buffered()

    def write_control(self, frame: bytes) -> None:
        """Write a frame that is not missed: a peer that sends pings and reads nothing gets no pongs past the mark."""
        if not self.closing and self.waiting() <= self.mark:
            quiet = self.quiet
            self.write(frame)
            self.quiet = quiet  # no client sees these but the keepalive, which is sent in silence only

    def waiting(self) -> int:
        """Return how many bytes wait in this process."""
        return self.buffered() + self._portions_size

    def held(self) -> int:
        """Return how many bytes of memory that takes; of what is not put together yet, only what refers to it."""
        unmade = sum([one.left - one.held for one in self._portions or () if type(one) is Cursor])
        return self.waiting() - max(0, unmade)

    def _lost(self) -> None:
        # uvloop's word for a connection that was lost in this turn of the loop; the pump hears of it in
        # the next one. Nobody else's frame may be lost over it. Should it be another error, the client comes back.
        self.closing, self.direct, self._last = True, None, None
        self._transport.abort()

    # The line

    @property
    def line(self) -> Line:
        """What is known of the line to the client; made when somebody asks, which few sockets see."""
        if self._line is None:
            self._line = Line(self._pacer.traffic)
        return self._line

    def fill(self, size: int) -> None:
        """Write about ``size`` bytes that the client does not see."""
        quiet = self.quiet  # these feed no watchdog
        self._pacer.traffic.sent += size
        SocketOutbox.write(self, _FILLER * max(1, size // len(_FILLER)))
        self.quiet = quiet

    def measure(self, done: Callable[[], object]) -> None:
        """Call ``done`` once the client has read everything written so far, or is gone."""
        if self.closing:
            done()
            return
        if self._measured is None:
            self._measured = {}
        self._pings += 1
        payload = self._pings.to_bytes(4)
        self._measured[payload] = done
        quiet = self.quiet
        self.write(ping_frame(payload))
        self.quiet = quiet

    def ponged(self, payload: bytes) -> None:
        """Hear the answer to a ping."""
        if self._measured and (done := self._measured.pop(bytes(payload), None)) is not None:
            done()

    # Portions

    def _write_deflated(self, data: bytes, deflater: Deflater) -> int:
        self.deflated = True
        future = deflater.compress(data)
        if not future.done():
            portions = self._begin_portions()
            portions.append((future, len(data)))
            self._portions_size += len(data)
            return self.waiting()
        made = future.result()
        if self._portions is not None or len(made) > 2 * PORTION:
            return self._write_in_portions(made)
        return self._write_now(made)

    def _begin_portions(self) -> deque[memoryview | Cursor | Deflating]:
        if self._portions is None:
            self._portions = deque()
            self.direct = None
            self._pacer.add(self)
        return self._portions

    def _write_in_portions(self, data: bytes) -> int:
        self._begin_portions().extend(_cut(data))
        self._portions_size += len(data)
        return self.waiting()

    @property
    def has_portions(self) -> bool:
        """Whether a large frame, or what came behind it, is still to be written."""
        return self._portions is not None

    def send_portion(self) -> bool:
        """Write the next portion if the transport has taken the last one."""
        if self.closing and self._last is None:
            self._portions, self._portions_size = None, 0
            return False
        if self._portions is None or self.buffered():
            return False
        portion = self._portions[0]
        if type(portion) is tuple:
            future, size = portion
            if not future.done():
                return False
            made = future.result()
            self._portions_size += len(made) - size
            self._portions.popleft()
            self._portions.extendleft(reversed(_cut(made)) if isinstance(made, bytes) else (made.cursor(),))
            portion = self._portions[0]
        assert not isinstance(portion, tuple)
        buffers = portion.take(PORTION) if isinstance(portion, Cursor) else [portion]
        if not isinstance(portion, Cursor) or not portion.left:
            self._portions.popleft()
        size = sum(map(len, buffers))
        self._portions_size -= size
        self._pacer.traffic.sent += size
        try:
            if len(buffers) == 1:
                self._write(buffers[0])
            else:
                self._transport.writelines(buffers)
        except RuntimeError:
            self._lost()
        if not self._portions:
            self._portions = None
            if self._last is not None:
                self._write_close(self._last)
                self._last = None
            else:
                self.direct = self._find_direct()
        return True

    # Closing

    def close(self, code: CloseCode) -> None:
        """Send a close frame; nothing more is written, and the connection is cut if the client does not answer it.

        Not closed at once: with bytes of the client still unread, the kernel would reset the connection,
        which overtakes the close frame, and the client would never see its code.
        """
        if not self.closing:
            self.close_again(code)

    def close_again(self, code: CloseCode) -> None:
        """Close a socket whose close may have failed half-way."""
        self.closing, self.direct = True, None
        if self._portions is None:
            self._write_close(code)
        else:
            self._last = code  # behind the frame that is on its way, in whose middle it would stand
        self._abort_later()

    @property
    def stuck(self) -> bool:
        """Whether it is closing and nothing will end it: the close has failed half-way, for want of memory say."""
        return self.closing and self._cutting is None and not self._transport.is_closing()

    def _abort_later(self) -> None:
        if self._cutting is None:
            self._cutting = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _write_close(self, code: CloseCode | None) -> None:
        with contextlib.suppress(RuntimeError):  # as in ``_lost``
            self._write(close_frame(code))

    def closed_by_client(self, code: int | None) -> None:
        """Answer the client's close frame, if it is no answer itself, and close the connection."""
        self.close_code = code
        if not self.closing and self._portions is None:
            # A close frame without a code is answered by one.
            self._write_close(CloseCode(code, "") if code else None)
        self.closing, self.direct = True, None
        if self.buffered():  # a client that has closed need not read the rest
            self._abort_later()
        self._transport.close()

    def cut(self, code: CloseCode) -> None:
        """Send a close frame and close the connection without waiting for the answer."""
        if self._portions is not None:
            self.abort()  # the rest of the frame that is on its way would take time
            return
        self.close(code)
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection: the peer is dead, so there is nobody to be polite to."""
        self.closing, self.direct, self._last = True, None, None
        self._transport.abort()

    def release(self) -> None:
        """Close the connection, which has ended, and leave no timer behind that would keep it for seconds."""
        self.closing, self.direct, self._last = True, None, None
        measured, self._measured = self._measured, None
        for done in (measured or {}).values():
            done()
        if self.buffered():  # the transport stays until that is taken
            self._abort_later()
        elif self._cutting is not None:
            self._cutting.cancel()
        self._transport.close()
