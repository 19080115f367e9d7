"""The y-websocket protocol on a socket: one session on one document, named by the path.

Strategy: the document is opened before the first message is read, so a socket is either refused by a
close code or has one member for the whole of its life.
"""

from __future__ import annotations

import asyncio
from functools import partial
from urllib.parse import unquote_to_bytes

from aiohttp import web

from collab.errors import AccessExpired, CollabError, InvalidDocumentName
from collab.hub.live import LiveRoom
from collab.hub.member import Member
from collab.protocol import ywebsocket
from collab.protocol.awareness import AwarenessUpdate
from collab.protocol.session import State
from collab.protocol.wire import CloseCode, Message, check_document_name
from collab.telemetry import ConnectionLog
from collab.transports.frames import binary_frame
from collab.transports.websocket import Accepted, Connection, WebSockets

_KEEPALIVE = binary_frame(ywebsocket.KEEPALIVE)


class YWebSocketEncoder:
    """Encode for every y-websocket client: there is no address, so all of them share this one."""

    def encode(self, message: Message) -> bytes:
        """Return one whole WebSocket frame."""
        return binary_frame(ywebsocket.encode(message))


_ENCODER = YWebSocketEncoder()


class YWebSocketConnection(Connection):
    """One client's socket, which is the outbox of its one member."""

    text_close = ywebsocket.CLOSE_TEXT

    __slots__ = ("_expiry", "live", "member", "name")

    def __init__(self, sockets: WebSockets, accepted: Accepted) -> None:
        super().__init__(sockets, accepted)
        self.name: str | None = None
        self.live: LiveRoom | None = None
        self.member = Member(_ENCODER, self)
        self._expiry: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Open the document that the path names, for what the token allows."""
        try:
            await self._open()
        except CollabError as error:
            if not error.retryable:
                now = asyncio.get_running_loop().time()
                await asyncio.sleep(self.sockets.refusals.pause(self.peer, self.request.raw_path, now))
            raise

    async def _open(self) -> None:
        self.name = name = document_name(self.request)
        grant = await self.authenticate(bearer_token(self.request), name)
        live = await self.sockets.hub.open(name)
        if not self.closing:
            self.member.admit(grant.access, grant.user)
            self.check_enter(live, grant)
            self.identify(self.member, grant)
            live.join(self.member)
            self.live = live
            # With another token the client may come back; with the same it is refused for good.
            self._expiry = self.when_expired(
                grant, partial(self.end, self.member, AccessExpired("the token has expired"))
            )

    def take_small(self, data: bytes) -> bool:
        """Take a small message while the socket is read."""
        live, member = self.live, self.member
        if live is None or member.state is State.CLOSED:
            return False
        decoded = ywebsocket.decode(data)
        if decoded is None:
            return False
        if type(decoded) is AwarenessUpdate:
            self.awareness += 1
        live.receive(member, decoded)
        return True

    async def receive(self, data: bytes) -> None:
        """Take one message."""
        live, member = self.live, self.member
        if live is None or member.state is State.CLOSED:
            return
        decoded = ywebsocket.decode(data)
        if decoded is None:
            self.sockets.limited.debug("unknown type", "unknown message type ignored", to=self.log())
        else:
            if type(decoded) is AwarenessUpdate:
                self.awareness += 1
            await self.give(live, member, decoded, len(data))

    def leave(self) -> None:
        """Leave the room."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self.live is not None:
            self.live.leave(self.member)

    def end(self, member: Member, error: CollabError) -> None:
        """Close the socket with the code by which y-websocket understands ``error``."""
        self.sockets.guard.audit.note(error, self.peer, self.name)
        self.close(self.close_code(error))

    def note_refused(self, member: Member) -> None:
        """Write the attempt to the audit log."""
        self.sockets.guard.audit.read_only("an edit", self.peer, member.author, self.name or "", "y-websocket")

    def close_code(self, error: BaseException) -> CloseCode:
        """Return y-websocket's code for an error."""
        return ywebsocket.close_code(error)

    def keepalive_frame(self) -> bytes:
        """Return the empty awareness update."""
        return _KEEPALIVE

    @property
    def document_name(self) -> str | None:
        """The document in the path, once it is found to be a name."""
        return self.name

    def log(self, document_name: str | None = None) -> ConnectionLog:
        """Return a logger for this connection and its document."""
        return super().log(document_name or self.name)


def bearer_token(request: web.Request) -> str:
    """Return the token of a request: from the Authorization header, else the parameter ``token``."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.query.get("token", "")


def document_name(request: web.Request) -> str:
    """Return the document name in a request's path, percent-decoded.

    The undecoded path is read, because what is not UTF-8 must be refused rather than replaced.

    Raises:
        InvalidDocumentName: see ``check_document_name``; or not UTF-8.
    """
    resource = request.match_info.route.resource
    assert resource is not None
    prefix = resource.canonical.partition("{")[0]
    raw = unquote_to_bytes(request.rel_url.raw_path)[len(prefix.encode()) :]
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise InvalidDocumentName("document name: not UTF-8") from None
    check_document_name(name)
    return name
