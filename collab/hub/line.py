"""The line to one client: how fast it is, and whose turn it is to put something large onto it.

Strategy: a line is measured by what came through to the very end: large things are followed by a ping, and its pong
says that the client has read all before it, whatever proxies and kernels lie between. A large message feeds a client's
watchdog only when it has arrived whole, and everything else on the socket waits behind it. So a message may take as
long as ``WHOLE_SECONDS``; what would take longer is sent in pieces of ``PIECE_SECONDS``, one at a time for each socket,
however many documents it has.
"""

from __future__ import annotations

import asyncio
from typing import Final

# Seconds that one message may take on a line. Watchdogs of clients bite after 30 s without a whole message
# (y-websocket 3, Hocuspocus) or 45 (y-websocket 4), and a line may become half as fast meanwhile.
WHOLE_SECONDS: Final = 15.0

# Seconds of the line that a piece takes. Fewer pieces are cheaper for clients; more let others through sooner.
PIECE_SECONDS: Final = 10.0

# The least piece in bytes: 15 s at 9 kB/s.
SMALLEST_PIECE: Final = 128 * 1024

# What was measured is believed for so many seconds.
_FRESH: Final = 60.0

# Of what a probe has found, the part that the first piece takes: a probe is short, and lines are uneven.
_UNSURE: Final = 0.5

# Bytes above which a message goes out by a delivery: at 70 kB/s that is one message of 15 s.
LARGE: Final = 1024 * 1024


# Bytes a second that this node writes of large things, from which a probe would say nothing of its line: it would find
# that this node, its network, or a machine with many clients is busy. Lines are taken for fast meanwhile, as in the
# storm of joins after a restart. A client whose line is slow after all comes back, and is measured after the storm.
_BUSY: Final = 25_000_000

# Seconds over which that is measured.
_WINDOW: Final = 0.5

# Lines that are measured at a time: more would measure each other.
_MEASURED: Final = 8


class Traffic:
    """What this node sends to all clients that are sent something large.

    Attributes:
        sent: bytes of it that were written so far.
        measuring: held while a line is measured.
    """

    __slots__ = ("_at", "_busy", "_sent", "measuring", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.measuring = asyncio.Semaphore(_MEASURED)
        self._at = 0.0
        self._sent = 0
        self._busy = False

    def is_busy(self, now: float) -> bool:
        """Tell whether so much is sent that measuring a line makes no sense; ``now`` in the loop's seconds."""
        elapsed = now - self._at
        if elapsed >= _WINDOW:
            self._busy = elapsed < 4 * _WINDOW and self.sent - self._sent > _BUSY * elapsed
            self._at, self._sent = now, self.sent
        elif self.sent - self._sent > _BUSY * _WINDOW:
            self._busy = True  # as much as in a whole window already
        return self._busy


class Line:
    """What is known of one client's line.

    Args:
        traffic: of the node; a line without it is alone.

    Attributes:
        traffic: see above.
        lock: held by whoever has something large on the line.
        rate: bytes a second that came through; 0 while nobody has looked.
        pongs: whether the client was seen to answer pings.
    """

    __slots__ = ("_measured_at", "_sure", "lock", "pongs", "rate", "traffic")

    def __init__(self, traffic: Traffic | None = None) -> None:
        self.traffic = traffic or Traffic()
        self.lock = asyncio.Lock()
        self.rate = 0.0
        self.pongs = False
        self._measured_at = 0.0
        self._sure = False

    def known(self, now: float) -> bool:
        """Tell whether the line was measured lately."""
        return self.rate > 0 and now - self._measured_at < _FRESH

    def measured(self, nbytes: int, seconds: float, now: float, *, sure: bool) -> None:
        """Note that ``nbytes`` took so many seconds; ``sure`` says that they were many."""
        self.rate = nbytes / max(seconds, 1e-6)
        self._measured_at = now
        self._sure = sure

    def takes_whole(self, nbytes: int, now: float) -> bool:
        """Tell whether a message of this size may be sent in one, for all that is known ``now``."""
        if nbytes <= max(SMALLEST_PIECE, self.rate * WHOLE_SECONDS):
            return True
        return not self._sure and self.traffic.is_busy(now)  # what a probe has found may come from that

    def piece(self) -> int:
        """Return how many bytes the next piece may have: a power of two, so that clients share what was joined."""
        wanted = self.rate * PIECE_SECONDS * (1.0 if self._sure else _UNSURE)
        return max(SMALLEST_PIECE, 1 << int(wanted).bit_length() - 1 if wanted >= 1 else 0)
