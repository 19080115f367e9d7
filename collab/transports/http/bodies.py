"""Bodies that may be long: as long as a message of a socket, from somebody who may write.

Strategy: nothing of such a body is read before its sender was found to be allowed to send it. Its bytes count, as they
come, in the same account as large messages of sockets (``limits.arrivals``): past its bound the request is not read on,
and aiohttp lets its bytes wait in the kernel. They count until they were worked on. A body that comes more slowly than
a message may come is ended; the time in which it had to wait for room does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from aiohttp import hdrs, web

from collab.limits.arrivals import Arrivals
from collab.transports.guard.guard import Guard
from collab.transports.problems import BadRequest

# Seconds for a body to begin, and that it may be late.
_GRACE = 15.0


@contextlib.asynccontextmanager
async def coming(until: float) -> AsyncIterator[asyncio.Timeout]:
    """Wait for more of a body within this context; its deadline, in the loop's seconds, can be put off.

    Raises:
        BadRequest: it has not come by then, or its connection was lost.
    """
    try:
        async with asyncio.timeout_at(until) as deadline:
            yield deadline
    except TimeoutError:
        # The rest is not waited for: with more requests behind it, it would be read as one of them.
        raise BadRequest("the body comes too slowly", "slow_body", headers={hdrs.CONNECTION: "close"}) from None
    except ConnectionError as error:
        # Nobody reads the answer. But aiohttp keeps an error that goes further in a cycle with the request, and the
        # request's stream keeps this one.
        error.__traceback__ = None
        raise BadRequest("the connection was lost", headers={hdrs.CONNECTION: "close"}) from None


class _Body:
    """A body that is on its way, for the account."""

    def __init__(self) -> None:
        self.room = asyncio.Event()

    def go_on(self) -> None:
        self.room.set()


class LongBodies:
    """Reads bodies.

    Args:
        guard: counts them by address.
        arrivals: what messages have in memory before they are whole, and these bodies.
        largest: bytes of one body.
        min_rate: bytes a second at which one must come.
    """

    def __init__(self, guard: Guard, arrivals: Arrivals, largest: int, min_rate: float) -> None:
        self._guard = guard
        self._arrivals = arrivals
        self._min_rate = min_rate
        self.largest = largest

    @contextlib.asynccontextmanager
    async def read(self, request: web.Request, media: Collection[str], most: int | None = None) -> AsyncIterator[bytes]:
        """Read the body of a request whose sender may send it; it counts in memory until the end of the context.

        Raises:
            BadRequest: its content type is none of ``media``, it is compressed, larger than ``most`` bytes, or comes
                too slowly; or its address has too many bodies on their way.
        """
        check_media(request, media)
        most = self.largest if most is None else min(most, self.largest)
        if request.content_length is not None and request.content_length > most:
            raise too_large(most)
        body = _Body()
        try:
            with self._guard.long_body(request):
                data = await self._read(request, body, most)
            self._arrivals.whole(body)
            yield data
        finally:
            self._arrivals.remove(body)

    async def _read(self, request: web.Request, body: _Body, most: int) -> bytes:
        loop = asyncio.get_running_loop()
        data = bytearray()
        began = loop.time() + _GRACE
        async with coming(began) as deadline:
            async for chunk in request.content.iter_any():
                if len(data) + len(chunk) > most:
                    raise too_large(most)
                if not self._arrivals.add(body, len(chunk)):
                    began += await self._until_room(body, len(chunk), deadline)
                data += chunk
                deadline.reschedule(began + len(data) / self._min_rate)
        return bytes(data)

    async def _until_room(self, body: _Body, count: int, deadline: asyncio.Timeout) -> float:
        """Wait until there is room for ``count`` more bytes; return the seconds that took."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        deadline.reschedule(None)
        while True:
            await body.room.wait()
            body.room.clear()
            if self._arrivals.add(body, count):
                return loop.time() - since


def check_media(request: web.Request, media: Collection[str]) -> None:
    """Check that a body is of one of these content types, and not compressed: a small one could unpack to any size.

    Raises:
        BadRequest: it is not.
    """
    if request.content_type not in media:
        raise BadRequest(f"the content type is {' or '.join(media)}", "unsupported_media_type")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
        # Closed, or aiohttp would read the rest and unpack it: in an application of somebody else it does unpack.
        headers = {"Connection": "close"}
        raise BadRequest("a body that is compressed is not taken", "unsupported_media_type", headers=headers)


def too_large(most: int) -> BadRequest:
    """Make the error for a body of more than ``most`` bytes."""
    return BadRequest(f"a body has at most {most} bytes here", "too_large")
