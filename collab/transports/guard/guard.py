"""What every request passes before anything is done for it, and what every answer carries.

Strategy: one object knows who may come at all (peers, origins), how much each may have (limits) and who
was refused (audit). Plain HTTP is refused here, by status. A WebSocket is not: a client whose upgrade
fails takes that for a lost network and tries for ever, so its socket is opened first and then told, in
its own protocol, by the code that asks ``refusal`` and ``limits``.

The middleware is a plain function and no coroutine, because a coroutine's frame would stay with every
socket for as long as it lives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import MappingProxyType

from aiohttp import hdrs, web

from collab.audit import Audit, Kind, Who
from collab.errors import AccessDenied, Forbidden
from collab.limits.limits import Limits
from collab.net import Peer
from collab.protocol import streams
from collab.telemetry import RateLimited, get_logger
from collab.transports.guard.hiding import hide_secrets
from collab.transports.guard.origins import Origins
from collab.transports.guard.peers import Peers, Remote
from collab.transports.problems import BadRequest, problem

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# For what sets none of its own, the pages above all. Nothing but a page has anything to run, to frame or
# to load. SAMEORIGIN and 'self', not DENY: one page of ours may show another in a frame.
_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        # Addresses name documents.
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
    }
)

# No Access-Control-Allow-Credentials: pages of other origins show a token in the Authorization header, never a cookie.
# So such a page can do nothing in the name of the user who looks at it.
_CORS_PREFLIGHT = MappingProxyType(
    {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
        "Access-Control-Allow-Headers": ", ".join(
            (
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "If-Match",
                "If-None-Match",
                "Last-Event-ID",
                *streams.HEADERS_OF_CLIENTS,
            )
        ),
        "Access-Control-Max-Age": "7200",  # what Chromium keeps at most
    }
)
# What pages of other origins may read beside what browsers let them read of every answer.
_CORS_EXPOSED = ("ETag", "Location", "Retry-After", "X-Total-Count", *streams.HEADERS_TOLD)

_NO_STORE = "no-store"

_ABOUT = web.RequestKey("about", str)

# By which proxies name a request, in their own log too.
_REQUEST_ID = "X-Request-ID"

# In counts, for what is none that we know: a client may choose the rest.
_NONE = "none"

_LOOK_SECONDS = 1.0

# Seconds for which a request waits at most that is answered later instead of refused.
_LONGEST_PAUSE = 10.0

_limited = RateLimited(get_logger("http"), per_second=1 / 60)

_MAX_SHOWN_ORIGIN = 60


class Guard:
    """Stand before an application.

    Args:
        peers, origins, limits: see there.
        own_machine_only: there is no authentication, so nobody from elsewhere is let in.
        audit: notes who was refused what; without one it has its own.

    Attributes:
        answers: HTTP answers so far, by the template of the route, the method and the class of the status ("2xx"); a
            WebSocket's is none. What has no route, or another method than HTTP's own, is counted as "none".
        on_request: told of each whole request, by its connection and whether it is for a WebSocket.
        on_wait: told of a request that waits for its body or for a decision on access, and when that is over.
        on_body: told of a request with a body that its sender may send, and when that is there: it may be long.
        on_answer: told of an answer that begins, with the name of the document that it is about (``about``).
        on_stream: told of an answer that goes on for as long as its client reads, with what is to be called if that
            has gone; and, with None, when it ends.
    """

    def __init__(
        self,
        peers: Peers,
        origins: Origins,
        limits: Limits,
        *,
        own_machine_only: bool,
        audit: Audit | None = None,
    ) -> None:
        self.origins = origins
        self.limits = limits
        self.audit = Audit() if audit is None else audit
        self.answers: Counter[tuple[str, str, str]] = Counter()
        self._peers = peers
        self._own_machine_only = own_machine_only
        self.on_request: Callable[[web.RequestHandler, bool], None] | None = None
        self.on_wait: Callable[[web.RequestHandler, bool], None] | None = None
        self.on_body: Callable[[web.RequestHandler, bool], None] | None = None
        self.on_answer: Callable[[str, web.StreamResponse], None] | None = None
        self.on_stream: Callable[[web.RequestHandler, Callable[[], None] | None], None] | None = None
        self._sockets: set[Handler] = set()
        self._paced: dict[Handler, Callable[[str, str], web.StreamResponse]] = {}

    # Requests

    def peer(self, request: web.BaseRequest) -> Peer:
        """Tell who has sent a request."""
        return self._peers.of(request)

    def who(
        self,
        request: web.BaseRequest,
        user: str | None = None,
        *,
        protocol: str = "http",
        on_behalf_of: str | None = None,
    ) -> Who:
        """Say who has sent a request, for the audit."""
        named = request.headers.get(_REQUEST_ID)
        return Who(user, self.peer(request).address, protocol, None, on_behalf_of, named)

    def about(self, request: web.Request, name: str) -> None:
        """Note which document a request is about, whose sender has access to it."""
        if self.on_answer is not None:
            request[_ABOUT] = name

    def remote(self, text: str) -> Remote:
        """Tell what is known of the other end of a connection by its address."""
        return self._peers.remote(text)

    def refusal(self, request: web.BaseRequest, peer: Peer) -> AccessDenied | None:
        """Tell why a request may do nothing here, whoever it says it is; None if it may come in."""
        if self._own_machine_only and not peer.local:
            return Forbidden(
                "from elsewhere, and there is no authentication",
                public="without authentication this server serves its own machine only",
            )
        for origin in request.headers.getall(hdrs.ORIGIN, ()):
            if not self.origins.allows(origin, peer):
                shown = origin[:_MAX_SHOWN_ORIGIN]
                return Forbidden(
                    f"origin {shown!r} for host {peer.host[:_MAX_SHOWN_ORIGIN]!r}",
                    # What to do comes first: the text may be cut behind 123 bytes.
                    public=f"origin not allowed, see --allowed-origins: {shown}",
                )
        return None

    def sockets(self, handler: Handler) -> Handler:
        """Leave the refusing to ``handler``, which speaks a protocol of its own."""
        self._sockets.add(handler)
        return handler

    def paced(self, handler: Handler, refuse: Callable[[str, str], web.StreamResponse]) -> Handler:
        """Leave it to ``handler`` to count its requests, by ``pace``; ``refuse`` tells a code and a text as it does."""
        self._paced[handler] = refuse
        return handler

    async def pace(self, request: web.Request) -> None:
        """Count a request, and let it wait if its address makes too many.

        Raises:
            BadRequest: it makes far too many.
        """
        peer = self.peer(request)
        pause = self.limits.request_pause(peer, asyncio.get_running_loop().time(), _LONGEST_PAUSE)
        if pause is None:
            self.audit.write(Kind.LIMIT, "requests", f"too many requests from {peer.key}", self.who(request))
            raise BadRequest("too many requests from your address, try again later", "too_many_requests")
        if pause:
            with self.waiting(request):
                await asyncio.sleep(pause)

    def middleware(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        """Refuse what may not come in, answer what browsers ask before a request, pass on the rest."""
        hide_secrets(request)
        for_socket = request.match_info.handler in self._sockets
        if self.on_request is not None:
            self.on_request(request.protocol, for_socket)
        if for_socket:
            return handler(request)
        peer = self.peer(request)
        refused = self.refusal(request, peer)
        if refused is None and not self.origins.allows_host(peer):
            refused = Forbidden(
                f"host {peer.host[:_MAX_SHOWN_ORIGIN]!r}",
                public="without authentication this server answers under the names of its own machine only",
            )
        paced = self._paced.get(request.match_info.handler)
        if refused is not None:
            self.audit.write(Kind.PERMISSION_REFUSED, "origin", str(refused), self.who(request))
            if paced is not None:
                return _told(paced("forbidden", refused.public))
            return _refuse(request, "forbidden", refused.public)
        if paced is None and not self.limits.allow_request(peer, asyncio.get_running_loop().time()):
            self.audit.write(Kind.LIMIT, "requests", f"too many requests from {peer.key}", self.who(request))
            return _refuse(request, "too_many_requests", "too many requests from your address, try again later")
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            return _allow()
        return handler(request)

    @contextmanager
    def waiting(self, request: web.Request) -> Iterator[None]:
        """Meanwhile a request waits, and its sender may be anybody: when places are short it goes for others."""
        handler, on_wait = request.protocol, self.on_wait
        if on_wait is None:
            yield
            return
        on_wait(handler, True)
        try:
            yield
        finally:
            on_wait(handler, False)

    @contextmanager
    def body(self, request: web.Request) -> Iterator[None]:
        """Count a request while it waits for its body.

        Raises:
            BadRequest: its address has too many of them.
        """
        with self._counted_body(request), self.waiting(request):
            yield

    @contextmanager
    def long_body(self, request: web.Request) -> Iterator[None]:
        """Count a request while its body comes, which its sender was found to be allowed to send.

        It is read as fast as a socket, and does not go for others. Raises: as ``body``.
        """
        with self._counted_body(request):
            handler, on_body = request.protocol, self.on_body
            if on_body is None:
                yield
                return
            on_body(handler, True)
            try:
                yield
            finally:
                on_body(handler, False)

    @contextmanager
    def streaming(self, request: web.Request, lost: Callable[[], None]) -> Iterator[None]:
        """Meanwhile an answer goes on for as long as its client reads, with a place of its own as a socket has.

        ``lost`` is called when the client has gone, where that can be told.
        """
        handler, on_stream = request.protocol, self.on_stream
        if on_stream is None:
            yield
            return
        on_stream(handler, lost)
        try:
            yield
        finally:
            on_stream(handler, None)

    @contextmanager
    def _counted_body(self, request: web.Request) -> Iterator[None]:
        peer, loop_time = self.peer(request), asyncio.get_running_loop().time
        if not self.limits.add_body(peer, loop_time()):
            self.audit.write(
                Kind.LIMIT, "bodies", f"too many requests without a body from {peer.key}", self.who(request)
            )
            raise BadRequest("too many requests from your address at a time", "too_many_requests")
        try:
            yield
        finally:
            self.limits.remove_body(peer, loop_time())

    # As aiohttp marks a middleware of the kind that it has had since version 3.
    middleware.__middleware_version__ = 1  # type: ignore[attr-defined]

    async def on_prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put the headers on an answer that every answer carries."""
        if response.status == 101:
            return  # nothing of it is shown, framed or read by a page
        resource = request.match_info.route.resource
        route = _NONE if resource is None else resource.canonical
        method = request.method if request.method in hdrs.METH_ALL else _NONE
        self.answers[route, method, f"{response.status // 100}xx"] += 1
        name = request.get(_ABOUT)
        if name is not None and self.on_answer is not None and method != hdrs.METH_HEAD:
            self.on_answer(name, response)
        if isinstance(response, web.HTTPException):
            # One frame of its traceback keeps it as the answer, so that both would wait for the collector.
            response.__traceback__ = None
        headers = response.headers
        if "Content-Security-Policy" in headers:
            # A page says itself who may frame it; an old header of ours must not say otherwise.
            for name, value in _HEADERS.items():
                if name != "X-Frame-Options":
                    headers.setdefault(name, value)
        else:
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self.refusal(request, self.peer(request)) is None:
            headers["Access-Control-Allow-Origin"] = origin
            # Those that are there: a page loads many small files, and each would carry the names of all.
            if told := [name for name in _CORS_EXPOSED if name in headers]:
                headers["Access-Control-Expose-Headers"] = ", ".join(told)
        vary = headers.get(hdrs.VARY)
        headers[hdrs.VARY] = hdrs.ORIGIN if vary is None else f"{vary}, {hdrs.ORIGIN}"

    # Time

    async def watch(self) -> None:
        """Look about once a second at what changes by itself; run it supervised, for the bounds must go on to hold."""
        loop_time = asyncio.get_running_loop().time
        while True:
            now = loop_time()
            await self.limits.memory.measure(now)
            self.limits.sweep(now)
            self.audit.flush()
            await asyncio.sleep(_LOOK_SECONDS)


async def _refuse(request: web.Request, code: str, text: str) -> web.StreamResponse:
    refused = problem(code, text)
    if "/api/" not in request.path:  # for people who look at a page
        refused.text = f"{refused.status}: {text}\n"
        refused.content_type = "text/plain"
    return refused


async def _told(response: web.StreamResponse) -> web.StreamResponse:
    return response


async def _allow() -> web.StreamResponse:
    return web.Response(status=204, headers={hdrs.CACHE_CONTROL: _NO_STORE, **_CORS_PREFLIGHT})
