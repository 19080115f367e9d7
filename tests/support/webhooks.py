"""A receiver of webhooks: a real server that checks each message as receivers do, and answers what a test says."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook

from tests.support.api import check_event

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 24).decode()


class Message(NamedTuple):
    """What came, after its signature was checked."""

    id: str
    type: str
    data: dict[str, Any]
    headers: dict[str, str]

    @property
    def about(self) -> tuple[str, str]:
        """The kind of the event, and the document."""
        return self.type, self.data["document"]


Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """Takes messages; ``replies`` are given first, one for each request: a status, or a function.

    Attributes:
        taken: messages that were answered with 2xx, in order.
        asked: all requests, by the ids of their messages.
        bodies: of all requests.
    """

    def __init__(self, *secrets: str, context: ssl.SSLContext | None = None) -> None:
        self._hooks = [Webhook(secret) for secret in secrets or (SECRET,)]
        self.replies: list[int | Reply] = []
        self.always: int | Reply = 200
        self.taken: list[Message] = []
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.under_way: dict[str, int] = {}
        app = web.Application()
        app.router.add_route("*", "/hooks", self._take)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        self.elsewhere = 0
        self._server = TestServer(app, host="127.0.0.1", scheme="https" if context else "http")
        self._context = context
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Receiver:
        await self._server.start_server(ssl=self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("/hooks"))

    async def _elsewhere(self, request: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = dict(request.headers)
        self.bodies.append(body)
        verified = [hook.verify(body, headers) for hook in self._hooks]
        assert request.method == "POST" and request.content_type == "application/json"
        found = verified[0]
        check_event(found)
        message = Message(request.headers["webhook-id"], found["type"], found["data"], headers)
        self.asked.append(message.id)
        document = message.data["document"]
        self.under_way[document] = self.under_way.get(document, 0) + 1
        assert self.under_way[document] == 1, "two of one document at a time"
        try:
            reply = self.replies.pop(0) if self.replies else self.always
            response = web.Response(status=reply) if isinstance(reply, int) else await reply(request)
        finally:
            self.under_way[document] -= 1
        if 200 <= response.status < 300:
            self.taken.append(message)
        self._changed.set()
        return response

    async def until(self, fact: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Wait for something that messages bring."""
        try:
            async with asyncio.timeout(seconds):
                while not fact():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            got = [message.about for message in self.taken]
            raise AssertionError(f"{what}: not within {seconds} s; taken: {got}, asked {len(self.asked)}") from None

    def abouts(self) -> list[tuple[str, str]]:
        """Give kinds and documents of what was taken."""
        return [message.about for message in self.taken]

    def of(self, document: str, *kinds: str) -> list[Message]:
        """Give what was taken of a document, each message once."""
        found = {message.id: message for message in self.taken if message.data["document"] == document}
        return [message for message in found.values() if not kinds or message.type in kinds]


async def never(request: web.Request) -> web.StreamResponse:
    """Answer nothing until the client goes."""
    await asyncio.sleep(3_600)
    raise AssertionError


async def cut(request: web.Request) -> web.StreamResponse:
    """Close the connection instead of answering."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)


async def redirect(request: web.Request) -> web.StreamResponse:
    """Send the client elsewhere."""
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def endless(request: web.Request) -> web.StreamResponse:
    """Answer 200 with a body that never ends."""
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 16_384)
    except ConnectionError:
        return web.Response(status=500)
