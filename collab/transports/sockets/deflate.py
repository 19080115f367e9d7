"""permessage-deflate (RFC 7692) for large frames, compressed once for all who get the same.

Strategy: only without context takeover, in both directions: then a compressed frame does not depend on what was sent
before, so one serves all receivers, and what is sent in between need not be compressed. Small frames never are. A large
one is compressed by a thread, because 20 MB take a fifth of a second; an outbox that waits for it sends nothing else.

Not for Safari before 16, which closes with 1002 on such frames now and then, nor for a client that has closed with 1002
after it had got one.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final
from weakref import WeakSet

from collab.hub.long_frames import LongFrame
from collab.hub.member import SMALL
from collab.transports.sockets.frames import binary_head, payload_of
from collab.update.parts import Cursor, Parts

RESPONSE: Final = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
"""What the server agrees to, whatever else was offered."""

# Bytes of a frame from which it is compressed: below it is one or two packets anyhow.
SMALLEST: Final = SMALL

# Bytes that are compressed on the loop: 0.7 ms at level 1. Level 6 makes typed text a tenth smaller and takes three
# times as long.
_AT_ONCE: Final = 64 * 1024
_LEVEL: Final = 1

# Compressed frames that are kept for those who get the same, and their bytes together before they were compressed.
_KEPT: Final = 16
_KEPT_BYTES: Final = 64 * 1024 * 1024

# Bytes of long frames that are in memory compressed at a time, kept here or on their way to clients; what is still
# being compressed counts as it was before. One alone may be larger.
_LONG_BYTES: Final = 64 * 1024 * 1024

# Clients that are remembered for having failed, the ones of longest ago are forgotten.
_DISTRUSTED: Final = 10_000

_SAFARI: Final = re.compile(r"Version/(\d+)[\d.]* (?:Mobile/\S+ )?Safari/")
_IOS: Final = re.compile(r"(?:iPhone|CPU) OS (\d+)_")
_FIRST_GOOD_SAFARI: Final = 16

_PARAMETERS: Final = {"server_no_context_takeover", "client_no_context_takeover", "client_max_window_bits"}


def accepts(offers: str | None) -> bool:
    """Tell whether one of the extensions that a client offers can be agreed to as `RESPONSE` says."""
    for offer in (offers or "").split(","):
        name, *parameters = (part.strip().lower() for part in offer.split(";"))
        names = [parameter.partition("=")[0].strip() for parameter in parameters]
        # A smaller window of ours (server_max_window_bits) is not made.
        if name == "permessage-deflate" and len(set(names)) == len(names) and _PARAMETERS.issuperset(names):
            return True
    return False


def is_old_safari(user_agent: str) -> bool:
    """Tell whether a browser is Safari before 16, or another one on iOS before 16, which is Safari inside."""
    ios = _IOS.search(user_agent)
    if ios is not None:
        return int(ios[1]) < _FIRST_GOOD_SAFARI
    safari = _SAFARI.search(user_agent)
    return safari is not None and int(safari[1]) < _FIRST_GOOD_SAFARI


def deflate_long(frame: LongFrame) -> LongFrame:
    """Compress a long frame as `deflate_frame` does, without putting it together."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
    pieces = [compressor.compress(payload_of(frame.head))]
    cursor = Cursor(frame.parts)
    while cursor.left:
        pieces += map(compressor.compress, cursor.take(_AT_ONCE))
    pieces.append(compressor.flush(zlib.Z_SYNC_FLUSH)[:-4])
    payload = Parts((b"".join(pieces),))
    if payload.nbytes > len(frame) * 0.95:
        return frame
    return LongFrame(binary_head(payload.nbytes, compressed=True), payload)


def deflate_frame(frame: bytes) -> bytes:
    """Compress a binary frame; returns the same one if that makes it hardly smaller."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
    payload = compressor.compress(payload_of(frame)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    size = len(payload) - 4  # the empty block at the end is left out (RFC 7692, section 7.2.1)
    return frame if size > len(frame) * 0.95 else binary_head(size, compressed=True) + memoryview(payload)[:size]


class Deflater:
    """Compresses the frames of all sockets of a node, each once."""

    def __init__(self) -> None:
        # By identity: the key holds the frame, so nothing else can get its id.
        self._kept: OrderedDict[int, tuple[bytes, asyncio.Future[bytes]]] = OrderedDict()
        self._long: OrderedDict[int, tuple[LongFrame, asyncio.Future[LongFrame]]] = OrderedDict()
        self._alive: WeakSet[Parts] = WeakSet()
        self._distrusted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None

    def _executor(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "deflate")
        return self._thread

    def compress(self, frame: bytes) -> asyncio.Future[bytes]:
        """Return a future of the compressed frame; it is done already if the frame is not large."""
        kept = self._kept.get(id(frame))
        if kept is not None:
            return kept[1]
        loop = asyncio.get_running_loop()
        if len(frame) <= _AT_ONCE:
            future: asyncio.Future[bytes] = loop.create_future()
            future.set_result(deflate_frame(frame))
        else:
            future = loop.run_in_executor(self._executor(), deflate_frame, frame)
        self._kept[id(frame)] = frame, future
        while len(self._kept) > _KEPT or (
            len(self._kept) > 1 and sum(len(one) for one, _ in self._kept.values()) > _KEPT_BYTES
        ):
            self._kept.popitem(last=False)
        return future

    def compress_long(self, frame: LongFrame) -> asyncio.Future[LongFrame] | None:
        """Return a future of the compressed frame; None where so many are in memory that this one stays as it is.

        A compressed frame is a copy, other than the long frame itself, and whoever reads it slowly keeps it.
        """
        kept = self._long.get(id(frame))
        if kept is not None:
            return kept[1]
        made = sum([len(one) for one, future in self._long.values() if not future.done()])
        if made + sum([parts.nbytes for parts in self._alive]) + len(frame) > _LONG_BYTES and (made or self._alive):
            return None
        future = asyncio.get_running_loop().run_in_executor(self._executor(), deflate_long, frame)
        future.add_done_callback(partial(_note, self._alive, frame))
        self._long[id(frame)] = frame, future
        return future

    def forget(self) -> None:
        """Keep no frames any longer than they are of use: call it every now and then."""
        for key, (_, future) in list(self._kept.items()):
            if future.done():
                del self._kept[key]
        for key, (_, long) in list(self._long.items()):
            if long.done():
                del self._long[key]

    def distrust(self, address: str, user_agent: str) -> None:
        """Compress nothing more for a client that could not read it."""
        self._distrusted[address, user_agent] = None
        if len(self._distrusted) > _DISTRUSTED:
            self._distrusted.popitem(last=False)

    def trusts(self, address: str, user_agent: str) -> bool:
        """Tell whether a client may be sent compressed frames."""
        return (address, user_agent) not in self._distrusted and not is_old_safari(user_agent)

    def close(self) -> None:
        """End the thread."""
        self._kept.clear()
        self._long.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _note(alive: WeakSet[Parts], frame: LongFrame, future: asyncio.Future[LongFrame]) -> None:
    """Note that a long frame was compressed."""
    if not future.cancelled() and future.exception() is None and future.result() is not frame:
        alive.add(future.result().parts)
