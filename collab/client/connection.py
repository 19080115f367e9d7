"""A connection to a server: one WebSocket at a time, for many documents, which comes back by itself.

Strategy: one task runs a socket after the other, with pauses between them. Each socket has two tasks, one that reads
and one that writes, and a few that fetch tokens; all of them end with it, and are waited for. The writer asks the
documents that have something to send, one after the other, so a document with much to send holds up no other for
longer than one message. What is final ends a document, or all of them, with an error; everything else is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl as tls
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import pycrdt
from yarl import URL

from collab.client.backoff import Backoff
from collab.client.document import Document, Token
from collab.client.replica import LockedDoc, new_client_id
from collab.errors import ClientClosed, CollabError, ConfigurationError, ConnectionRefused, UnreadableContent
from collab.protocol.hocuspocus.client import Channel, ClientSocket, Event, Received, Reply
from collab.protocol.names import check_document_name

_log = logging.getLogger("collab.client")

DEFAULT_PATH: Final = "/hocuspocus"
"""Where a server of ours speaks the protocol; taken for an address without a path."""

# Seconds until a socket is open, from the look-up of the name to the answer to the upgrade.
_OPEN_SECONDS: Final = 20.0
# Seconds that a server has to answer the end of a socket.
_CLOSE_SECONDS: Final = 2.0
# Seconds that a socket has to be of use before the pauses begin with short ones again.
_GOOD_SECONDS: Final = 5.0
# Seconds between two looks at presence.
_TICK: Final = 3.0

# Statuses of HTTP that pass by waiting although they are the client's fault by their number.
_PASSING: Final = (408, 425, 429)

_ABNORMAL: Final = 1006
_UNREADABLE: Final = 1002
"""The close code for what a server has sent against the protocol."""

_FINAL_CODES: Final = range(4400, 4500)
_NOT_IN_TIME: Final = 4408
"""Of the final codes the one that passes: nothing was let in within the server's time."""


class _Marker:
    """The argument that was not given."""


_GIVEN_TO_CONNECTION: Final = _Marker()


class Connection:
    """A connection for many documents. Use it as ``async with Connection(url) as connection:``.

    Args:
        url: of the server, ``ws://`` or ``wss://``. Without a path it is `DEFAULT_PATH`.
        token: shown for each document that has none of its own; see `Token`.
        headers: of the upgrade request.
        ssl: for ``wss://``; None verifies the server as usual.
        heartbeat: seconds of silence after which the server is asked whether it lives. After half as many without an
            answer the line is taken for dead.
        max_message_bytes: the largest message that is taken. A document comes as one.
        close_timeout: seconds in which edits have to be saved when a document, or the connection, is closed.
        backoff: the pauses between attempts.
        sleep: waits for seconds; tests hand in their own.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        headers: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        heartbeat: float = 20.0,
        max_message_bytes: int = 256 << 20,
        close_timeout: float = 10.0,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._url = _checked_url(url)
        self._name = str(self._url.with_query(None).with_user(None))  # for the log, without what may be secret
        self._ended = (_ABNORMAL, "")
        self._token = token
        self._headers = dict(headers or {})
        self._ssl = ssl
        self._heartbeat = heartbeat
        self._max_message_bytes = max_message_bytes
        self._close_timeout = close_timeout
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._documents: dict[Document, None] = {}
        self._wanted = asyncio.Event()  # there is a document to be connected for
        self._runner: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession | None = None
        self._closed = False
        self._established = False  # a socket was open once, so the address is good
        self._socket: ClientSocket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._marked: dict[Document, None] = {}
        self._frames: deque[bytes] = deque()  # of no document
        self._channels: dict[Channel, Document] = {}
        self._synced = False  # a document has come to be in sync on this socket
        self._something = asyncio.Event()  # there is something to be sent

    @property
    def url(self) -> str:
        """Where it connects to."""
        return str(self._url)

    @property
    def connected(self) -> bool:
        """Whether a socket is open now."""
        return self._socket is not None

    async def __aenter__(self) -> Self:
        if self._runner is not None or self._closed:
            raise RuntimeError("a connection is entered once")
        self._runner = asyncio.create_task(self._run(), name="collab client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(save=error is None)

    async def open(
        self,
        name: str,
        *,
        doc: pycrdt.Doc[Any] | None = None,
        token: Token | None | _Marker = _GIVEN_TO_CONNECTION,
        wait: bool = True,
        timeout: float | None = 30.0,
    ) -> Document:
        """Open a document, and wait until it is in sync.

        Args:
            name: of the document; it is created by its first edit.
            doc: is kept in sync; what it holds is sent. None makes a new one.
            token: for this document; not given, the connection's is shown.
            wait: False returns at once. The document then syncs as soon as it can, and edits made before are sent.
            timeout: seconds for the wait; None waits for as long as it takes.

        Raises:
            InvalidDocumentName: it is no name of a document.
            DocumentRefused, ConnectionRefused: the server refuses it for good.
            NotSynced: it has not come in time. It is not open then.
        """
        check_document_name(name)
        if self._closed or self._runner is None:
            raise ClientClosed("the connection is not open")
        chosen = self._token if isinstance(token, _Marker) else token
        document = Document(name, new_doc() if doc is None else doc, chosen, self, self._close_timeout)
        self._documents[document] = None
        self._wanted.set()
        if self._socket is not None:
            self._attach(document, self._socket)
        if wait:
            try:
                await document.wait_synced(timeout)
            except BaseException:
                await document.close(save=False)
                raise
        return document

    async def close(self, *, save: bool = True) -> None:
        """Close all documents, and the connection.

        Args:
            save: wait until all edits are committed, for as long as the connection was made with.

        Raises:
            NotSaved, EditRefused, DocumentRefused, ConnectionRefused: edits of a document are not committed. With
                several of them an ExceptionGroup. Everything is closed all the same.
        """
        try:
            documents = list(self._documents)
            results = await asyncio.gather(
                *(document.close(save=save) for document in documents), return_exceptions=True
            )
        finally:
            await self._end()
        errors = [result for result in results if isinstance(result, BaseException)]
        for error in errors:
            if not isinstance(error, Exception):
                raise error
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ExceptionGroup("documents were not saved", [one for one in errors if isinstance(one, Exception)])

    async def _end(self) -> None:
        self._closed = True
        runner, self._runner = self._runner, None
        if runner is None:
            return
        runner.cancel()
        await asyncio.wait([runner])
        if not runner.cancelled() and (error := runner.exception()) is not None:
            raise error

    # For documents

    def mark(self, document: Document) -> None:
        """Let a document send as soon as the socket can take something."""
        self._marked[document] = None
        self._something.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that ends with the socket at the latest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task of the client failed", exc_info=error)

    def pause(self) -> float:
        """Return the seconds to wait before something that has failed is tried again."""
        return self._backoff.next()

    async def leave(self, document: Document, channel: Channel | None, farewell: bytes | None) -> None:
        """Forget a document and its channel, and send a last frame of it if there is one."""
        self._documents.pop(document, None)
        self._marked.pop(document, None)
        if channel is not None and self._socket is not None:
            # The server confirms it. To a channel that is still there this would be the end of the whole socket.
            self._socket.forget(channel)
            self._channels.pop(channel, None)
        if farewell is not None and self._socket is not None:
            self._say(farewell)

    # The sockets

    async def _run(self) -> None:
        try:
            async with aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                connector=aiohttp.TCPConnector(limit=0, ssl=self._ssl or True),
            ) as http:
                while True:
                    while all(document.closed for document in self._documents):
                        self._wanted.clear()
                        await self._wanted.wait()
                    await self._one_socket(http)
                    await self._sleep(self._backoff.next())
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail_all(error)
            raise

    async def _one_socket(self, http: aiohttp.ClientSession) -> None:
        """Open a socket and use it until it ends, for whatever reason; a final one ends the documents."""
        for document in list(self._documents):
            document.connecting()
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                ws = await http.ws_connect(
                    self._url,
                    headers=self._headers,
                    heartbeat=self._heartbeat,
                    max_msg_size=self._max_message_bytes,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
                )
        except aiohttp.WSServerHandshakeError as error:
            if not self._established and 400 <= error.status < 500 and error.status not in _PASSING:
                text = f"{self._name} answers {error.status} to a WebSocket"
                self._fail_all(ConnectionRefused(text, code=error.status, reason=error.message))
            else:
                _log.info("%s answers %d; trying again", self._name, error.status)
            self._offline()
            return
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            _log.info("%s cannot be reached (%s); trying again", self._name, type(error).__name__)
            self._offline()
            return
        self._established = True
        self._ended = (_ABNORMAL, "")
        try:
            await self._use(ws)
        finally:
            await _end(ws)
        self._read_end()

    def _offline(self) -> None:
        for document in list(self._documents):
            document.detach()

    def _read_end(self) -> None:
        code, reason = self._ended
        _log.info("the connection to %s has ended: %d %s", self._name, code, reason)
        if code in _FINAL_CODES and code != _NOT_IN_TIME:
            text = f"{self._name} closes the connection for good: {code} {reason}"
            self._fail_all(ConnectionRefused(text, code=code, reason=reason))

    async def _use(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Run the tasks of a socket until one of them ends."""
        self._socket = ClientSocket()
        self._frames.clear()
        self._synced = False
        opened = asyncio.get_running_loop().time()
        tasks = [
            asyncio.create_task(self._read(ws, self._socket)),
            asyncio.create_task(self._write(ws)),
            asyncio.create_task(self._tick()),
        ]
        try:
            for document in list(self._documents):
                self._attach(document, self._socket)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._socket = None
            self._channels.clear()
            await _cancel([*tasks, *self._tasks])
            if self._synced and asyncio.get_running_loop().time() - opened >= _GOOD_SECONDS:
                self._backoff.reset()
            for document in list(self._documents):
                document.detach()
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                await self._forgive(ws, error)

    async def _forgive(self, ws: aiohttp.ClientWebSocketResponse, error: BaseException) -> None:
        """Go on after a task has failed by the fault of the network or of the server; raise a defect of ours."""
        if isinstance(error, CollabError):
            _log.warning("the server has sent what cannot be taken: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await ws.close(code=_UNREADABLE)
        elif not isinstance(error, (aiohttp.ClientError, OSError, TimeoutError)):
            raise error

    async def _read(self, ws: aiohttp.ClientWebSocketResponse, socket: ClientSocket) -> None:
        while True:
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                self._ended = (message.data, message.extra or "")
                return
            if message.type is not aiohttp.WSMsgType.BINARY:
                _log.info("the connection has ended: %s %s", message.type.name, ws.exception() or "")
                return
            for event in socket.receive(message.data):
                await self._take(event, socket)

    def _attach(self, document: Document, socket: ClientSocket) -> None:
        if not document.closed:
            channel = socket.open(document.name)
            self._channels[channel] = document
            document.attach(channel)

    async def _take(self, event: Event, socket: ClientSocket) -> None:
        """Take one event of a socket."""
        if isinstance(event, Reply):
            self._say(event.frame)
            return
        document = self._channels.get(event.channel)
        if document is None:
            return
        try:
            await document.take(event)
        except UnreadableContent as error:
            document.fail(error)
            self._say(event.channel.leave())
            socket.forget(event.channel)
        if document.closed:
            self._channels.pop(event.channel, None)
        elif isinstance(event, Received) and event.synced:
            self._synced = True

    def _say(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._something.set()

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            if self._frames:
                await ws.send_bytes(self._frames.popleft())
            elif self._marked:
                document = next(iter(self._marked))
                del self._marked[document]
                frame = await document.next_frame()
                if frame is not None:
                    self._marked[document] = None  # behind the others: there may be more of it
                    await ws.send_bytes(frame)
            else:
                self._something.clear()
                await self._something.wait()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            for document in list(self._documents):
                document.tick()

    def _fail_all(self, error: Exception) -> None:
        for document in list(self._documents):
            document.fail(error)


def new_doc() -> pycrdt.Doc[Any]:
    """Make a document whose client ID has 32 bits, as those of Yjs.

    The library would draw from 53. Of two values that are set for one key at once the one of the higher ID stays, so
    this client would win nearly always.
    """
    return pycrdt.Doc(client_id=new_client_id())


async def _end(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Close a socket, politely if the server is there, and let go of the line."""
    connection = ws._response.connection
    transport = None if connection is None else connection.transport
    try:
        # On a line that takes nothing the end would wait behind all that was written.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await ws.close()
    finally:
        if transport is not None:
            transport.abort()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    """End tasks and wait for them; their errors are looked at elsewhere."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _checked_url(url: str) -> URL:
    """Return an address of a server.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        found = URL(url)
        host = found.host
    except ValueError:
        raise ConfigurationError("the address of the server is no URL") from None
    schemes = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
    if found.scheme not in schemes or not host:
        raise ConfigurationError("the address of a server is as in ws://host:1234 or wss://host/hocuspocus")
    found = found.with_scheme(schemes[found.scheme])
    return found.with_path(DEFAULT_PATH, keep_query=True) if found.path in ("", "/") else found


class _Connect:
    """One document on a connection of its own; made by `connect`."""

    def __init__(self, connection: Callable[[], Connection], name: str, options: dict[str, Any]) -> None:
        self._make, self._name, self._options = connection, name, options
        self._connection: Connection | None = None

    async def __aenter__(self) -> Document:
        if self._connection is not None:
            raise RuntimeError("a connection is entered once")
        self._connection = connection = self._make()
        await connection.__aenter__()
        try:
            return await connection.open(self._name, **self._options)
        except BaseException:
            await connection.close(save=False)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        await self._connection.close(save=error is None)


def connect(
    url: str,
    name: str,
    *,
    token: Token | None = None,
    doc: pycrdt.Doc[Any] | None = None,
    wait: bool = True,
    timeout: float | None = 30.0,
    **options: Any,
) -> _Connect:
    """Open one document: ``async with connect("ws://host:1234", "notes") as document:``.

    The block begins when the document is in sync. At its end all edits are saved, or `NotSaved` is raised. A block that
    ends by an exception saves nothing more.

    Args:
        url, token, options: as of `Connection`.
        name, doc, wait, timeout: as of `Connection.open`.

    Raises:
        ConfigurationError: the address is none.
        DocumentRefused, ConnectionRefused, NotSynced, InvalidDocumentName: on entering; see `Connection.open`.
        NotSaved, EditRefused: on leaving; see `Connection.close`.
    """
    _checked_url(url)
    given = {"doc": doc, "wait": wait, "timeout": timeout}
    return _Connect(lambda: Connection(url, token=token, **options), name, given)


__all__ = ["Connection", "LockedDoc", "connect"]
