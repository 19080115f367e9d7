"""``?awareness=``: the presence of a document as streams.

Strategy: ``default`` is the presence of the document itself, which sockets and agents see and show as well. What is
posted there is taken state by state (``hub.stream_presence``), and readers are told states, not posts. It is there as
long as the document, so nobody creates it, and deleting it ends all who are there without a socket. All other names are
streams of their own for what applications post (``hub.named_presence``), which the server does not look into.

Whoever may read a document sees who is there and may show itself there, as on a socket. To delete a stream takes the
right to write.
"""

from __future__ import annotations

import math
from typing import Final

from aiohttp import hdrs, web

from collab.auth.access import Grant
from collab.engine.visitors import AnothersClient
from collab.errors import DocumentNotFound, LimitExceeded
from collab.hub.agents import TooOften
from collab.hub.hub import Hub
from collab.hub.named_presence import MAX_POST, NamedCursor, StreamNotFound
from collab.hub.presence_tail import PresenceCursor, decode_position, encode_position
from collab.hub.readers import Cursor
from collab.hub.room import LiveRoom
from collab.hub.stream_presence import MAX_ENTRIES, Poster, TooManyVisitors
from collab.protocol import streams
from collab.protocol.session import Access
from collab.protocol.streams import Batch, Begin, Code, Live, decode_frames, decode_live
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import Permission
from collab.transports.http.streams.answers import HEADERS, Refusal, check_type, octets
from collab.transports.http.streams.live import LiveReaders
from collab.transports.problems import BadRequest

# Bytes of a post beside its states: their IDs and clocks, and lengths.
_AROUND: Final = 1_024

# Seconds after which somebody's time may be over.
_VISITOR_SECONDS: Final = 15


class AwarenessHandlers:
    """Serves the awareness streams of documents (``routes.AwarenessStreams``).

    Args:
        hub: the rooms, and who is in them.
        permission, guard: know who asks.
        readers: serve those who read on.
        max_bytes: bytes of state that one client may show.
        rate: states of one client in a second; 0 for no bound.
    """

    def __init__(
        self, hub: Hub, permission: Permission, guard: Guard, readers: LiveReaders, max_bytes: int, rate: float
    ) -> None:
        self._hub = hub
        self._permission = permission
        self._guard = guard
        self._readers = readers
        self._max_bytes = max_bytes
        self._rate = rate

    async def handle(self, request: web.Request, name: str, stream: str) -> web.StreamResponse:
        """Answer a request for the awareness stream ``stream`` of the document ``name``; both names were checked."""
        deletes = request.method == hdrs.METH_DELETE
        grant = await self._permission.require(request, name, Access.WRITE if deletes else Access.READ)
        live = await self._open(name)
        try:
            if request.method == hdrs.METH_POST:
                return await self._post(request, live, stream, grant)
            if request.method == hdrs.METH_PUT:
                return await self._put(live, stream)
            if deletes:
                return await self._delete(live, stream)
            return await self._read(request, live, stream, grant)
        except StreamNotFound as error:
            raise Refusal(Code.STREAM_NOT_FOUND, error.public) from None

    async def _open(self, name: str) -> LiveRoom:
        """Open the room of a document that exists."""
        self._guard.limits.check_load(name in self._hub.rooms)
        live = await self._hub.open(name)
        if live.ended is not None:
            raise live.ended
        if live.persistence.document_id is None:
            await self._hub.until_stored(name)  # its first edit may be on its way into the log
        if live.persistence.document_id is None:
            raise DocumentNotFound(f"there is no document {name!r}")
        return live

    # What is posted

    async def _post(self, request: web.Request, live: LiveRoom, stream: str, grant: Grant) -> web.StreamResponse:
        check_type(request)
        named = stream != streams.DEFAULT_AWARENESS
        most = MAX_POST if named else self._max_bytes + _AROUND + 32 * MAX_ENTRIES
        body = bytes(await self._permission.read_body(request, (streams.MEDIA,), most=most, known=True))
        if not body:
            raise BadRequest("the body is empty")
        if named:
            position = encode_position((await self._hub.named.post(live, stream, body)).end)
        else:
            position = await self._show(request, live, decode_frames(body), grant)
        return web.Response(status=204, headers={**HEADERS, streams.NEXT_OFFSET: position})

    async def _show(self, request: web.Request, live: LiveRoom, updates: list[bytes], grant: Grant) -> str:
        """Show what a person posts; return the position of a reader that has been told everything."""
        self._hub.control.check(grant.user, live.name)  # an operator may have begun to keep it out while its body came
        peer = self._guard.peer(request)
        caller = self._permission.caller(request, live.name, grant)
        poster = Poster(caller, peer.key if peer.counted else None)
        rate = 0.0 if self._guard.limits.exempts(peer) else self._rate
        try:
            live = await self._hub.visitors.post(live.name, updates, poster, rate)
        except TooOften as error:
            raise BadRequest(error.public, "too_many_requests", retry_after=math.ceil(error.seconds)) from None
        except TooManyVisitors as error:
            raise BadRequest(error.public, "too_many_requests", retry_after=_VISITOR_SECONDS) from None
        except AnothersClient as error:
            raise Refusal(Code.CONFLICT, error.public) from None
        except LimitExceeded as error:
            raise Refusal(Code.TOO_LARGE, error.public) from None
        return encode_position(live.open_presence().end)

    # Streams

    async def _put(self, live: LiveRoom, stream: str) -> web.StreamResponse:
        if stream == streams.DEFAULT_AWARENESS:
            return web.Response(status=200, headers={**HEADERS, hdrs.CONTENT_TYPE: streams.MEDIA})
        created = await self._hub.named.create(live, stream)
        return web.Response(status=201 if created else 200, headers={**HEADERS, hdrs.CONTENT_TYPE: streams.MEDIA})

    async def _delete(self, live: LiveRoom, stream: str) -> web.StreamResponse:
        if stream == streams.DEFAULT_AWARENESS:
            await self._hub.visitors.end_all(live.name)
        elif not await self._hub.named.delete(live, stream):
            raise StreamNotFound("there is none")
        return web.Response(status=204, headers=HEADERS)

    # Reading

    async def _read(self, request: web.Request, live: LiveRoom, stream: str, grant: Grant) -> web.StreamResponse:
        how = decode_live(request.query.get("live"))
        told = request.query.get("offset")
        if told is None and how is not Live.NO:
            raise BadRequest("live needs an offset")
        start = decode_position(Begin.BEGINNING.value if told is None else told)
        cursor: Cursor
        if stream == streams.DEFAULT_AWARENESS:
            tail = live.open_presence()
            end, begin, cursor = tail.end, tail.beginning, PresenceCursor(tail, start)
        else:
            found = await self._hub.named.find(live, stream)
            if found is None:
                raise StreamNotFound("there is none")
            begin = found.begin(start, self._hub.now())
            end, cursor = found.end, NamedCursor(found, begin)
        if request.method == hdrs.METH_HEAD:
            return web.Response(
                headers={**HEADERS, hdrs.CONTENT_TYPE: streams.MEDIA, streams.NEXT_OFFSET: encode_position(end)}
            )
        if how is not Live.NO:
            return await self._readers.serve(request, live, grant, cursor, how)
        if start is Begin.NOW:
            # Nothing, the specification says. The stock client asks so before it reads on as events, from the position
            # that it is given: there it is told who is here.
            return await octets(request, Batch(b"", encode_position(begin), up_to_date=True), {})
        return await octets(request, await cursor.read(), {})
