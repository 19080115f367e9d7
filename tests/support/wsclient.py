"""Clients that speak y-websocket byte by byte, for tests of the running server.

Strategy: :class:`RawClient` is a socket and a list: it sends whatever bytes a test gives it, keeps
every frame it gets and the close code in the end, and answers nothing by itself. :class:`LiveClient`
is a well-behaved client on top of it: a ``pycrdt.Doc`` that answers step 1, applies what it is sent
and sends its own edits, goes offline and comes back. The few codecs stand here a second time on
purpose: a mistake in ``collab.protocol`` must not cancel itself out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
from pycrdt import Doc, Text, TransactionEvent

SYNC, AWARENESS, AUTH, QUERY_AWARENESS = 0, 1, 2, 3
STEP1, STEP2, UPDATE = 0, 1, 2

EMPTY_UPDATE = b"\x00\x00"
EMPTY_VECTOR = b"\x00"

# A fact that does not come within this time does not come; generous, because both cores may be busy.
PATIENCE = 30.0


def varuint(number: int) -> bytes:
    """Encode a lib0 varUint."""
    out = bytearray()
    while number > 0x7F:
        out.append(0x80 | (number & 0x7F))
        number >>= 7
    out.append(number)
    return bytes(out)


def varbytes(data: bytes) -> bytes:
    """Encode a lib0 varUint8Array."""
    return varuint(len(data)) + data


def take_varuint(data: bytes, pos: int) -> tuple[int, int]:
    """Decode a lib0 varUint at ``pos``; return it and the position behind it."""
    number = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, pos
        shift += 7


def take_varbytes(data: bytes, pos: int) -> tuple[bytes, int]:
    """Decode a lib0 varUint8Array at ``pos``; return it and the position behind it."""
    length, pos = take_varuint(data, pos)
    assert pos + length <= len(data), "the server sent a length beyond its frame"
    return data[pos : pos + length], pos + length


class Frame(NamedTuple):
    """One frame from the server: its type, the kind of sync message (or None), and its payload."""

    type: int
    kind: int | None
    payload: bytes


def parse(data: bytes) -> Frame:
    """Parse a frame from the server; it must hold exactly one message."""
    kind: int | None = None
    number, pos = take_varuint(data, 0)
    if number == QUERY_AWARENESS:
        payload = b""
    else:
        if number in (SYNC, AUTH):
            kind, pos = take_varuint(data, pos)
        payload, pos = take_varbytes(data, pos)
    assert pos == len(data), f"more than one message in a frame: {data[:80].hex()}"
    return Frame(number, kind, payload)


def step1(vector: bytes = EMPTY_VECTOR) -> bytes:
    return b"\x00\x00" + varbytes(vector)


def step2(update: bytes) -> bytes:
    return b"\x00\x01" + varbytes(update)


def update(data: bytes) -> bytes:
    return b"\x00\x02" + varbytes(data)


def awareness(*entries: tuple[int, int, str | bytes]) -> bytes:
    """Encode an awareness frame of (client, clock, JSON text)."""
    body = varuint(len(entries))
    for client, clock, state in entries:
        text = state.encode() if isinstance(state, str) else state
        body += varuint(client) + varuint(clock) + varbytes(text)
    return b"\x01" + varbytes(body)


def awareness_entries(payload: bytes) -> list[tuple[int, int, str]]:
    """Decode an awareness update into (client, clock, JSON text)."""
    count, pos = take_varuint(payload, 0)
    entries = []
    for _ in range(count):
        client, pos = take_varuint(payload, pos)
        clock, pos = take_varuint(payload, pos)
        state, pos = take_varbytes(payload, pos)
        entries.append((client, clock, state.decode()))
    assert pos == len(payload)
    return entries


def text_update(client_id: int, text: str, root: str = "text") -> bytes:
    """Make a v1 update that inserts ``text`` at the start of an empty root text, as a client of that id would."""
    doc: Doc[Any] = Doc(client_id=client_id)
    doc.get(root, type=Text).insert(0, text)
    return doc.get_update()


class RawClient:
    """A WebSocket that sends what it is told and remembers what it gets; from the address ``local``, if that matters.

    Attributes:
        frames: every binary frame since :meth:`connect`, oldest first.
        close_code: the code that the server closed with; None while open; 1006 when it just went away.
        close_reason: the reason text that came with it.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None = None, local: str | None = None) -> None:
        self.url = url
        self._tls = tls
        self._local = local
        self.frames: list[bytes] = []
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._session: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._reader: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._changed = asyncio.Condition()

    async def connect(self, headers: dict[str, str] | None = None) -> Self:
        """Open the socket; nothing is sent. Raises ``aiohttp.ClientError`` when the server is not there."""
        self.frames.clear()
        self.close_code = self.close_reason = None
        connector = aiohttp.TCPConnector(local_addr=(self._local, 0)) if self._local is not None else None
        self._session = aiohttp.ClientSession(connector=connector)
        try:
            self._ws = await self._session.ws_connect(
                self.url, headers=headers, max_msg_size=0, autoclose=True, ssl=self._tls or True
            )
        except BaseException:
            await self._session.close()
            raise
        connection = self._ws._response.connection
        self._transport = None if connection is None or self._tls is None else connection.transport
        self._reader = asyncio.create_task(self._read(self._ws))
        return self

    async def close(self) -> None:
        """Close the socket politely (code 1000) and wait until it is."""
        if self._ws is not None:
            await self._ws.close()
        if self._reader is not None:
            await self._reader
        if self._session is not None:
            await self._session.close()
        if self._transport is not None:
            # TLS has an end of its own, for which nobody waits: the loop would be closed before it is over.
            self._transport.abort()
            await asyncio.sleep(0)
        self._ws = self._session = self._reader = self._transport = None

    async def vanish(self) -> None:
        """Cut the TCP connection without a WebSocket close frame."""
        assert self._ws is not None
        connection = self._ws._conn
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        if self._reader is not None:
            await self._reader
        await self.close()

    @property
    def open(self) -> bool:
        return self._ws is not None and not self._ws.closed and self.close_code is None

    @property
    def transport(self) -> asyncio.Transport:
        """The TCP connection of an open socket."""
        assert self._ws is not None and self._ws._conn is not None and self._ws._conn.transport is not None
        return self._ws._conn.transport

    def cut(self, data: bytes) -> None:
        """Write raw bytes to the TCP connection, past WebSocket framing."""
        self.transport.write(data)

    def burst(self, *messages: bytes) -> None:
        """Write binary frames at once, so that they arrive together, as after a stall of the network."""
        frames = bytearray()
        for data in messages:
            frames.append(0x82)
            if len(data) < 126:
                frames.append(0x80 | len(data))
            elif len(data) < 1 << 16:
                frames += bytes([0x80 | 126]) + len(data).to_bytes(2, "big")
            else:
                frames += bytes([0x80 | 127]) + len(data).to_bytes(8, "big")
            # Masked as clients must, with the key that changes nothing.
            frames += bytes(4) + data
        self.cut(bytes(frames))

    async def send(self, *frames: bytes) -> None:
        """Send binary frames; silently nothing when the server has closed, as a browser does."""
        for data in frames:
            if self._ws is None or self._ws.closed:
                return
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await self._ws.send_bytes(data)

    async def send_text(self, text: str) -> None:
        """Send one text frame."""
        assert self._ws is not None
        await self._ws.send_str(text)

    async def until(self, accept: Callable[[], object], what: str = "the fact", seconds: float = PATIENCE) -> None:
        """Wait until ``accept`` is true; it is asked again whenever a frame or the close arrives."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: bool(accept()))
        except TimeoutError:
            raise AssertionError(
                f"{what} did not come within {seconds} s; closed: {self.close_code} {self.close_reason!r}; "
                f"the last frames: {[frame[:60].hex() for frame in self.frames[-8:]]}"
            ) from None

    async def expect(self, accept: Callable[[Frame], object], what: str, *, after: int = 0) -> Frame:
        """Wait for a frame that ``accept`` takes among those from number ``after`` on, and return it."""
        found: list[Frame] = []

        def search() -> bool:
            found.extend(frame for frame in map(parse, self.frames[after:]) if accept(frame))
            return bool(found)

        await self.until(search, what)
        return found[0]

    async def expect_sync(self, kind: int, *, after: int = 0) -> bytes:
        """Wait for a sync message of this kind and return its payload."""
        frame = await self.expect(lambda frame: frame.type == SYNC and frame.kind == kind, f"sync {kind}", after=after)
        return frame.payload

    async def expect_close(self) -> int:
        """Wait until the server has closed the socket and return its code."""
        await self.until(lambda: self.close_code is not None, "the close")
        assert self.close_code is not None
        return self.close_code

    async def barrier(self) -> None:
        """Wait until the server has handled everything sent so far.

        Frames are handled in order, so the answer to a step 1 sent now says that all before it were.
        """
        seen = len(self.frames)
        await self.send(step1())
        await self.expect_sync(STEP2, after=seen)

    async def barrier_or_close(self) -> None:
        """Wait until the server has handled everything sent so far, or has closed the socket over it."""
        seen = len(self.frames)
        await self.send(step1())
        await self.until(
            lambda: (
                self.close_code is not None
                or any(frame.type == SYNC and frame.kind == STEP2 for frame in map(parse, self.frames[seen:]))
            ),
            "an answer or the close",
        )

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def received(self, data: bytes) -> None:
        """Handle one frame; a subclass that answers does so here."""

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        code, reason = 1006, ""
        async with self._changed:
            self._changed.notify_all()
        while True:
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                self.frames.append(message.data)
                self.received(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                raise AssertionError("the server sent a text frame")
            else:
                if message.type is aiohttp.WSMsgType.CLOSE:
                    code, reason = message.data, message.extra or ""
                break
            async with self._changed:
                self._changed.notify_all()
        async with self._changed:
            self.close_code, self.close_reason = code, reason
            self._changed.notify_all()


class LiveClient(RawClient):
    """A stock client in Python: one ``pycrdt.Doc`` kept in sync, edits made while offline included.

    ``synced`` is true from the server's step 2 on, as in y-websocket. With ``keep=True`` the client
    reconnects by itself whenever the server goes away, as stock clients do, until :meth:`close`
    (or a close code of 4400 to 4499).
    """

    def __init__(
        self, url: str, *, client_id: int | None = None, keep: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(url, tls=tls)
        self.doc: Doc[Any] = Doc(client_id=client_id) if client_id is not None else Doc()
        self.synced = False
        self.connects = 0
        self._out: asyncio.Queue[bytes] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._keep = keep
        self._keeper: asyncio.Task[None] | None = None
        self._subscription = self.doc.observe(self._edited)
        self._applying = False

    async def connect(self, headers: dict[str, str] | None = None) -> Self:
        await self._connect_once(headers)
        if self._keep and self._keeper is None:
            self._keeper = asyncio.create_task(self._reconnect())
        return self

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        await self._disconnect()

    async def until_synced(self) -> Self:
        await self.until(lambda: self.synced, "step 2")
        return self

    def text(self, root: str = "text") -> Text:
        text: Text = self.doc.get(root, type=Text)
        return text

    def received(self, data: bytes) -> None:
        frame = parse(data)
        if frame.type != SYNC or self._out is None:
            return
        if frame.kind == STEP1:
            self._out.put_nowait(step2(self.doc.get_update(frame.payload)))
            return
        self._applying = True
        try:
            self.doc.apply_update(frame.payload)
        finally:
            self._applying = False
        if frame.kind == STEP2:
            self.synced = True

    def _edited(self, event: TransactionEvent) -> None:
        if not self._applying and self._out is not None:
            self._out.put_nowait(update(event.update))

    async def _connect_once(self, headers: dict[str, str] | None = None) -> None:
        self.synced = False
        await super().connect(headers)
        self.connects += 1
        out: asyncio.Queue[bytes] = asyncio.Queue()
        out.put_nowait(step1(self.doc.get_state()))
        self._out = out
        self._sender = asyncio.create_task(self._send_out(out))

    async def _disconnect(self) -> None:
        self._out = None
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
            self._sender = None
        await super().close()
        self.synced = False

    async def _send_out(self, out: asyncio.Queue[bytes]) -> None:
        while True:
            await self.send(await out.get())

    async def _reconnect(self) -> None:
        while True:
            await self.until(lambda: self.close_code is not None, "the close", seconds=3600.0)
            if self.close_code is not None and 4400 <= self.close_code < 4500:
                return
            await self._disconnect()
            while True:
                # What stock clients wait at least; a server that restarts is met within this time.
                await asyncio.sleep(0.1)
                try:
                    await self._connect_once()
                    break
                except (aiohttp.ClientError, ConnectionError):
                    continue


async def converge(clients: Iterable[LiveClient], content: Callable[[LiveClient], object], expected: object) -> None:
    """Wait until ``content`` of every client equals ``expected``."""
    for client in clients:
        await client.until(partial(_equals, content, client, expected), f"{expected!r}"[:400])


def _equals(content: Callable[[LiveClient], object], client: LiveClient, expected: object) -> bool:
    return content(client) == expected
