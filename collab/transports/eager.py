"""A WebSocketResponse whose messages can be taken while the socket is read.

Strategy: aiohttp puts each message into a queue and wakes the task that waits for it. With many quiet
rooms nearly every message comes alone, and that waking (a future, a turn of the loop, a task's step)
costs more than all that the server does with the message. So the queue first offers a message to
``take``; what that refuses goes the usual way, and as long as anything is queued nothing is offered,
so the order is kept.

This leans on three private names of aiohttp (``_post_start``, ``_reader``, ``_parser``), which is why
aiohttp is pinned to one version; ``tests/transports/test_websocket.py`` shows what a new one changes.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import WSMessage, web
from aiohttp._websocket.models import WSMessageTextBytes
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http import WebSocketWriter

# As aiohttp's own queue: it pauses reading above twice this many bytes.
_QUEUE_BYTES = 2**16


class _EagerQueue(WebSocketDataQueue):
    """Offers each message to ``take`` before it queues it."""

    def offer_to(self, response: EagerWebSocketResponse) -> None:
        self._response = response

    def feed_data(self, data: WSMessage | WSMessageTextBytes, size: int) -> None:
        take = self._response.take
        if take is None or self._buffer or not take(data):
            super().feed_data(data, size)


class EagerWebSocketResponse(web.WebSocketResponse):
    """As ``web.WebSocketResponse``; ``take`` is asked first, and tells whether it has taken the message.

    ``take`` runs inside the parser: it must not raise, nor wait.
    """

    __slots__ = ("take",)

    def __init__(self, *, timeout: float, max_msg_size: int) -> None:
        super().__init__(timeout=timeout, max_msg_size=max_msg_size, autoping=False, autoclose=False, compress=False)
        self.take: Callable[[WSMessage | WSMessageTextBytes], bool] | None = None

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        """Do nothing: the connection sends the close frame, and knows when its code has been read.

        aiohttp calls this when it cannot go on reading, and closes at once; with bytes of the client still
        unread the kernel would reset the connection, and the client would never see the code.
        """
        return False

    @property
    def queued(self) -> bool:
        """Whether messages that were not taken wait to be received."""
        queue = self._reader
        return isinstance(queue, _EagerQueue) and bool(queue._buffer)

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        # As the method that it replaces, with our queue; there is no heartbeat to start.
        self._ws_protocol = protocol
        self._writer = writer
        assert self._loop is not None
        queue = _EagerQueue(request._protocol, _QUEUE_BYTES, loop=self._loop)
        queue.offer_to(self)
        self._reader = queue
        self._parser = WebSocketReader(
            queue, self._max_msg_size, compress=bool(self._compress), decode_text=self._decode_text
        )
        request.protocol.set_parser(self._parser)
        request.protocol.keep_alive(False)
