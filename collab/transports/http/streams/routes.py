"""``/streams/docs/{name}``: a document as a stream, and its presence as streams beside it (``?awareness=``).

Strategy: one handler for all methods, for the address is the document's. What is asked is read first (the name, the
offset, the numbers of a producer), then its sender is asked about, and only then is anything looked up or waited for.
Requests that come faster than an address may make them are answered later instead of refused: a stock client that is
refused a post has lost it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import urlencode

from aiohttp import hdrs, web

from collab.audit import Act, Kind
from collab.auth.access import Grant
from collab.errors import DocumentDeleted, DocumentExists, DocumentNotFound, Forbidden, LimitExceeded
from collab.hub.documents import Documents
from collab.hub.orders import Sender
from collab.hub.slices import in_slices
from collab.hub.streaming import Streaming
from collab.protocol import streams
from collab.protocol.session import Access
from collab.protocol.streams import (
    Batch,
    Begin,
    Code,
    Live,
    Offset,
    Producer,
    SnapshotOffset,
    Verdict,
    check_path,
    check_stream_name,
    decode_frames_in_slices,
    decode_live,
    decode_offset,
    decode_producer,
    encode_offset,
)
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import Permission
from collab.transports.http.api.creation import Creation
from collab.transports.http.bodies import LongBodies
from collab.transports.http.streams.answers import (
    HEADERS,
    Refusal,
    answering,
    check_type,
    code_of,
    octets,
    refuse,
    send,
)
from collab.transports.http.streams.live import LiveReaders
from collab.transports.problems import BadRequest
from collab.transports.requests import document_name, public_path

PATH: Final = "/streams/docs/"

_METHODS: Final = "DELETE, GET, HEAD, POST, PUT"

# What may be asked; "token" is how a client may say who it is, on every address.
_PARAMETERS: Final = frozenset({"offset", "live", "cursor", "awareness", "token"})

# The name of the stock client's producer ends with its client ID.
_OWN = re.compile(r".*-([0-9]{1,16})", re.DOTALL | re.ASCII)


class AwarenessStreams(Protocol):
    """Serve the awareness streams of documents."""

    async def handle(self, request: web.Request, name: str, stream: str) -> web.StreamResponse:
        """Answer a GET, HEAD, POST, PUT or DELETE for the awareness stream ``stream`` of the document ``name``.

        Both names were checked (``protocol.streams``); nothing else was: neither access nor whether the document is
        there. A live GET is served by ``LiveReaders.serve``, with a ``hub.readers.Cursor`` of the stream.

        Raises:
            Refusal, BadRequest, CollabError: nothing was answered; ``answering`` makes an error of it.
        """
        ...


class StreamRoutes:
    """The handlers.

    Args:
        streaming: reads, follows and takes posts.
        documents: creates and deletes.
        creation: counts what is created.
        permission: says who may do what.
        guard: knows who has sent a request.
        bodies: reads updates.
        readers: serves those that wait.
        awareness: serves what has ``?awareness=``.
    """

    def __init__(
        self,
        streaming: Streaming,
        documents: Documents,
        creation: Creation,
        permission: Permission,
        guard: Guard,
        bodies: LongBodies,
        readers: LiveReaders,
        awareness: AwarenessStreams,
    ) -> None:
        self._streaming = streaming
        self._documents = documents
        self._creation = creation
        self._permission = permission
        self._guard = guard
        self._bodies = bodies
        self._readers = readers
        self._awareness = awareness

    def add_to(self, app: web.Application) -> None:
        """Serve them."""
        handler = self._guard.paced(answering(self.handle), refuse_early)
        app.router.add_route("*", PATH + r"{name:[\s\S]*}", handler)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of any method."""
        methods: dict[str, Callable[[web.Request, str], Awaitable[web.StreamResponse]]] = {
            hdrs.METH_GET: self._read,
            hdrs.METH_HEAD: self._head,
            hdrs.METH_POST: self._append,
            hdrs.METH_PUT: self._create,
            hdrs.METH_DELETE: self._delete,
        }
        method = methods.get(request.method)
        if method is None:
            return refuse(
                Code.INVALID_REQUEST, f"this address has {_METHODS}", status=405, headers={hdrs.ALLOW: _METHODS}
            )
        name = document_name(request)
        check_path(name)
        for key in request.query:
            if key in _PARAMETERS and len(request.query.getall(key)) > 1:
                raise BadRequest(f"the parameter {key!r} is there twice")
        await self._guard.pace(request)
        stream = request.query.get("awareness")
        if stream is None:
            return await method(request, name)
        check_stream_name(stream)
        return await self._awareness.handle(request, name, stream)

    # The document

    async def _create(self, request: web.Request, name: str) -> web.StreamResponse:
        """Create the document if there is none, also in the place of a deleted one."""
        grant = await self._permission.require(request, name, Access.READ)
        if request.content_type != streams.MEDIA:
            raise BadRequest(f"the content type is {streams.MEDIA}", "unsupported_media_type")
        if request.can_read_body and request.content_length != 0:
            raise BadRequest("a document is created without content; POST its updates")
        created = False
        try:
            head = await self._streaming.find(name)
        except (DocumentNotFound, DocumentDeleted):
            if grant.access is Access.READ:
                public = "there is no such document, and this token may not create it"
                raise Forbidden("read-only", public=public) from None
            created = await self._make(request, grant, name)
            head = await self._streaming.find(name)
        headers = {
            **HEADERS,
            hdrs.CONTENT_TYPE: streams.MEDIA,
            streams.NEXT_OFFSET: encode_offset(Offset(head.document_id, head.seq + 1)),
        }
        if created:
            headers[hdrs.LOCATION] = public_path(request)
        return web.Response(status=201 if created else 200, headers=headers)

    async def _make(self, request: web.Request, grant: Grant, name: str) -> bool:
        """Create a document; False if somebody else was quicker."""
        await self._permission.admit_new(request, name, grant)
        try:
            with self._creation.counted(request, grant, name):
                created = await self._documents.create(name, author=grant.user)
        except DocumentExists:
            return False
        self._permission.created(grant, created.document)
        return True

    async def _delete(self, request: web.Request, name: str) -> web.StreamResponse:
        grant = await self._permission.require(request, name, Access.ADMIN)
        with self._permission.acting(request, Act(Kind.DOCUMENT_DELETED, name), grant, protocol="streams"):
            await self._documents.delete(name)
        return web.Response(status=204, headers=HEADERS)

    async def _head(self, request: web.Request, name: str) -> web.StreamResponse:
        await self._permission.require(request, name, Access.READ)
        head = await self._streaming.find(name)
        offset = encode_offset(Offset(head.document_id, head.seq + 1))
        response = web.StreamResponse(headers={**HEADERS, streams.NEXT_OFFSET: offset})
        response.content_type = streams.MEDIA
        await response.prepare(request)
        await response.write_eof()
        return response

    # Reading

    async def _read(self, request: web.Request, name: str) -> web.StreamResponse:
        query = request.query
        how = decode_live(query.get("live"))
        if how is not Live.NO and "offset" not in query:
            raise BadRequest("a live reader says its offset")
        start = decode_offset(query.get("offset", Begin.BEGINNING.value))
        grant = await self._permission.require(request, name, Access.READ)
        if start is Begin.SNAPSHOT:
            return await self._discover(request, name)
        if isinstance(start, SnapshotOffset):
            return await self._read_snapshot(request, name, start)
        if how is not Live.NO:
            async with self._streaming.follow(name, start) as (live, cursor):
                return await self._readers.serve(request, live, grant, cursor, how)
        batch = await self._streaming.read(name, start)
        headers: dict[str, str] = {}
        if start is not Begin.NOW:
            tag = _tag(start, batch)
            if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
                return web.Response(status=304, headers={**HEADERS, hdrs.ETAG: tag})
            headers[hdrs.ETAG] = tag
        return await octets(request, batch, headers)

    async def _discover(self, request: web.Request, name: str) -> web.StreamResponse:
        snapshot = await self._streaming.find_snapshot(name)
        offset = Begin.BEGINNING.value if snapshot is None else encode_offset(snapshot)
        # Relative to the address that was asked, whatever proxies have made of it.
        query = {"offset": offset, **({"token": token} if (token := request.query.get("token")) else {})}
        headers = {**HEADERS, hdrs.CACHE_CONTROL: "private, max-age=5", hdrs.LOCATION: f"?{urlencode(query)}"}
        return web.Response(status=307, headers=headers)

    async def _read_snapshot(self, request: web.Request, name: str, wanted: SnapshotOffset) -> web.StreamResponse:
        data = await self._streaming.read_snapshot(name, wanted)
        if data is None:
            raise Refusal(Code.SNAPSHOT_NOT_FOUND, "there is no such snapshot any more: ask with offset=snapshot")
        following = encode_offset(Offset(wanted.document_id, wanted.seq + 1))
        headers = {**HEADERS, streams.NEXT_OFFSET: following, hdrs.ETAG: f'"{encode_offset(wanted)}"'}
        return await send(request, data, headers)

    # Posting

    async def _append(self, request: web.Request, name: str) -> web.StreamResponse:
        counts = self._readers.counts
        try:
            answer = await self._post(request, name)
        except BaseException:
            counts.posts["refused"] += 1
            raise
        return answer

    async def _post(self, request: web.Request, name: str) -> web.StreamResponse:
        headers = request.headers
        names = (streams.PRODUCER_ID, streams.PRODUCER_EPOCH, streams.PRODUCER_SEQ)
        producer = decode_producer({key: headers.getall(key, []) for key in names})
        grant = await self._permission.require(request, name, Access.WRITE)
        check_type(request)
        counts = self._readers.counts
        async with self._bodies.read(request, (streams.MEDIA,)) as body:
            await self._streaming.find(name)
            if not body and headers.get(streams.CLOSED, "").lower() == "true":
                # The stock client does this when it leaves. A document is never closed.
                return await self._stay_open(name, producer)
            try:
                updates = await in_slices(decode_frames_in_slices(body))
            except LimitExceeded as error:
                raise Refusal(Code.TOO_LARGE, error.public) from None
            counts.updates += len(updates)
            sender = Sender(self._guard.peer(request), grant)
            posted = await self._streaming.post(name, updates, sender, producer, _own_client(producer))
        told = {**HEADERS, streams.NEXT_OFFSET: posted.offset}
        if posted.numbers is None:
            counts.posts["new"] += 1
            return web.Response(status=204, headers=told)
        told[streams.PRODUCER_EPOCH] = str(posted.numbers.epoch)
        if posted.verdict is Verdict.STALE:
            raise Refusal(Code.FORBIDDEN, "the producer has begun a newer epoch", told)
        told[streams.PRODUCER_SEQ] = str(posted.numbers.seq)
        repeated = posted.verdict is Verdict.REPEATED
        counts.posts["repeated" if repeated else "new"] += 1
        return web.Response(status=204 if repeated else 200, headers=told)

    async def _stay_open(self, name: str, producer: Producer | None) -> web.StreamResponse:
        head = await self._streaming.find(name)
        told = {**HEADERS, streams.NEXT_OFFSET: encode_offset(Offset(head.document_id, head.seq + 1))}
        if producer is not None:
            told |= {streams.PRODUCER_EPOCH: str(producer.epoch), streams.PRODUCER_SEQ: str(producer.seq)}
        return web.Response(status=204, headers=told)


def refuse_early(code: str, text: str) -> web.Response:
    """Make the answer to what may not come in at all, whoever sends it."""
    return refuse(code_of(code), text)


def _tag(start: Offset | Begin, batch: Batch) -> str:
    """Name what is between two positions of a document."""
    begin = start.value if isinstance(start, Begin) else encode_offset(start)
    return f'"{begin}:{batch.offset}"'


def _own_client(producer: Producer | None) -> int | None:
    """Give the client ID of the one who posts, if its producer is named as the stock client names its own."""
    found = None if producer is None else _OWN.fullmatch(producer.id)
    return None if found is None else int(found[1])
