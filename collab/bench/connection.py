"""One client of the generator: a WebSocket on an asyncio Protocol, with its wire and its books.

Strategy: the least work per frame. Sent frames are header, prefix and update joined once (mask 0: RFC
6455 wants the bit and a key, and a zero key leaves the payload as it is). Received bytes are scanned
frame by frame in place; a payload that some client of the run has seen already is recognised by its
bytes and only counted. Frames larger than the socket's chunk are gathered in a list, never re-joined
chunk by chunk, and not kept unless asked, so that 150 clients can receive 20 MB each.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

from collab.bench.ledger import BUCKETS_PER_SECOND, Arrival, Ledger
from collab.bench.updates import Range, Typist, read_ranges
from collab.bench.wire import Wire
from collab.errors import CollabError, ProtocolError
from collab.protocol.hocuspocus.codec import AWARENESS, PING, PONG, SYNC, SYNC_STATUS, Closed, TokenRequest
from collab.protocol.lib0 import encode_var_bytes, encode_var_uint, read_var_bytes, read_var_uint
from collab.protocol.messages import PermissionDenied
from collab.protocol.sync import EMPTY_UPDATE, STEP1, STEP2, SyncStep2, SyncUpdate
from collab.update import decode_state_vector

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _PING, _PONG, _CLOSE = 0x82, 0x89, 0x8A, 0x88
_ZERO_KEY = bytes(4)
# What a step 2 begins with, behind the address; a large one is not read further.
_STEP_2 = bytes((SYNC, STEP2))
_AWARENESS = bytes((AWARENESS,))
_ONE_ENTRY = encode_var_uint(1)
# Above this a frame is gathered in pieces instead of joined to the rest of the last chunk.
_LARGE = 1 << 18

# Of a large frame that nobody keeps, the beginning is: enough for the address, the types and the length.
_HEAD = 1024


def frame(payload: bytes, opcode: int = _BINARY) -> bytes:
    """Return ``payload`` as one final client frame (RFC 6455 section 5.2, masked with zeros)."""
    return _header(len(payload), opcode) + payload


def _header(size: int, opcode: int = _BINARY) -> bytes:
    if size < 126:
        return bytes((opcode, 0x80 | size)) + _ZERO_KEY
    if size < 1 << 16:
        return bytes((opcode, 0x80 | 126)) + size.to_bytes(2) + _ZERO_KEY
    return bytes((opcode, 0x80 | 127)) + size.to_bytes(8) + _ZERO_KEY


class Connection(asyncio.Protocol):
    """One client on one document.

    Made by :func:`connect`. ``known`` holds, for each client ID, the clock behind the last update that
    came here; ``states`` the newest awareness clock. ``synced_at`` is the perf_counter time of the first
    step 2, ``step2`` its update when ``keep`` was set, ``step2_size`` its length always, ``vector_size`` that of the
    state vector in the server's last step 1. ``own`` are the client IDs that write here. With ``echoes`` what is new in
    an awareness update is sent back, as y-websocket's clients do.
    """

    __slots__ = (
        "_accept",
        "_fronts",
        "_kept",
        "_large",
        "_large_head",
        "_large_left",
        "_prefix",
        "_request",
        "_rest",
        "_skipped",
        "closed",
        "closing",
        "document",
        "echoes",
        "error",
        "keep",
        "known",
        "ledger",
        "own",
        "ready",
        "started_at",
        "states",
        "step2",
        "step2_size",
        "synced_at",
        "transport",
        "typists",
        "vector_size",
        "wire",
    )

    def __init__(self, wire: Wire, document: str, ledger: Ledger, request: bytes, accept: bytes, keep: bool) -> None:
        self.wire = wire
        self.document = document
        self.ledger = ledger
        self.keep = keep
        self.known: dict[int, int] = {}
        self.states: dict[int, int] = {}
        self.typists: list[Typist] = []
        self.own: set[int] = set()
        self.started_at = perf_counter()
        self.synced_at = 0.0
        self.step2: bytes | None = None
        self.step2_size = 0
        self.vector_size = 0
        self.closing = False
        self.echoes = False
        self.error: Exception | None = None
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None
        self._request = request
        self._accept: bytes | None = accept
        self._rest = b""
        self._large: list[bytes] | None = None
        self._large_head = b""
        self._large_left = 0
        self._kept = False
        self._skipped = 0
        self._prefix = wire.prefix(document)
        self._fronts: dict[int, bytes] = {}

    def add(self, typist: Typist) -> None:
        """Let ``typist`` write here; what comes back of it alone says nothing about latency."""
        self.typists.append(typist)
        self.own.add(typist.client)

    # --- sending ---------------------------------------------------------------------------------

    def send_update(self, update: bytes) -> None:
        """Send a Yjs update (v1) as one message in one frame."""
        if self.transport is not None:
            self.transport.write(self.update_frame(update))

    def update_frame(self, update: bytes) -> bytes:
        """Encode a Yjs update (v1) as one message in one frame."""
        front = self._fronts.get(len(update))
        if front is None:
            head = self._prefix + self.wire.encode(SyncUpdate(update))[: -len(update)]
            front = self._fronts[len(update)] = _header(len(head) + len(update)) + head
        return front + update

    def send_awareness(self, client: int, clock: int, state: bytes) -> None:
        """Send one awareness state (JSON in UTF-8) of ``client`` at ``clock``."""
        # One entry, written out: what the codecs make of it, at a third of the cost.
        entry = _ONE_ENTRY + encode_var_uint(client) + encode_var_uint(clock) + encode_var_bytes(state)
        self.send(_AWARENESS + encode_var_bytes(entry))

    def send(self, message: bytes) -> None:
        """Send a message of this document, given without its prefix."""
        if self.transport is not None:
            self.transport.write(frame(self._prefix + message))

    def type(self, typist: Typist, now: float, strokes: int = 1) -> None:
        """Let ``typist`` type here ``strokes`` times, each a message and a frame of its own, in one write.

        ``now`` (perf_counter seconds) is entered as the send time of each.
        """
        ledger = self.ledger
        ledger.sent += strokes
        if strokes == 1 and typist.size == 1:
            typist.sent_at.append(now)
            self.send_update(typist.stroke())
            return
        typist.sent_at.extend([now] * (strokes * typist.size))
        self.send_frames(self.frames(typist, strokes))

    def frames(self, typist: Typist, strokes: int) -> bytes:
        """Give what ``typist`` types here ``strokes`` times, each a message and a frame of its own."""
        return b"".join([self.update_frame(typist.stroke()) for _ in range(strokes)])

    def send_frames(self, frames: bytes) -> None:
        """Write whole frames."""
        if self.transport is not None:
            self.transport.write(frames)

    def waiting(self) -> int:
        """Return how many bytes wait here for the server to read on."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    # --- the socket ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request."""
        # uvloop's transports have a Transport's methods without being one.
        self.transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle both futures: a lost socket is an error unless :meth:`close` was called."""
        self.transport = None
        if self.error is None and not self.closing:
            self.error = exc or ProtocolError(f"the server dropped the connection to {self.document!r}")
        if not self.ready.done():
            self.ready.set_exception(self.error or ProtocolError("closed before the first sync"))
            self.ready.exception()  # nobody may be waiting any more
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        """Say goodbye (close frame 1000) and close the socket."""
        self.closing = True
        if self.transport is not None:
            self.transport.write(frame((1000).to_bytes(2), _CLOSE))
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Scan what came; whatever is not understood ends this connection with ``error`` set."""
        try:
            self._scan(data, perf_counter())
        except (CollabError, IndexError) as error:
            self.error = error
            if self.transport is not None:
                self.transport.abort()

    def _scan(self, data: bytes, now: float) -> None:
        ledger = self.ledger
        ledger.received_bytes += len(data)
        pos = 0
        if self._large is not None:
            pos = self._gather(data, now)
            if pos < 0:
                return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if self._accept is not None:
            pos = self._upgrade(data)
            if pos < 0:
                return
        arrivals = ledger.arrivals
        known = self.known
        buckets = ledger.buckets
        delivered = frames = 0
        end = len(data)
        while end - pos >= 2:
            opcode = data[pos]
            size = data[pos + 1]
            body = pos + 2
            if size > 125:
                wide = 2 if size == 126 else 8
                if end - body < wide:
                    break
                size = int.from_bytes(data[body : body + wide])
                body += wide
            stop = body + size
            if stop > end:
                if size > _LARGE and opcode == _BINARY:
                    self._large = [data[body:]]
                    self._large_head = data[body : body + _HEAD]
                    self._large_left = stop - end
                    at = body + len(self._prefix)
                    # The first step 2 may be read by its head alone; a step 1 of a server that has seen
                    # tens of thousands of clients has to be answered, so it is kept whole.
                    first_step_2 = data[at : at + 2] == _STEP_2 and not self.synced_at
                    self._kept = self.keep or not first_step_2
                    pos = end
                break
            payload = data[body:stop]
            pos = stop
            frames += 1
            if opcode != _BINARY:
                self._control(opcode, payload)
                continue
            try:
                arrival = arrivals[payload]
            except KeyError:
                arrival = self._read(payload, now)
            if arrival is None:
                continue
            ranges = arrival.ranges
            if arrival.awareness:
                if self.echoes:
                    self._echo(payload, arrival)
                states = self.states
                if len(ranges) == 1 and states.get(ranges[0][0], -1) < ranges[0][1]:
                    states[ranges[0][0]] = ranges[0][1]
                else:
                    delivered += self._take_states(ranges, now)
                    continue
            elif len(ranges) == 1:
                client, start, after = ranges[0]
                if known.get(client, 0) != start:
                    delivered += self._take_overlapping(ranges, now)
                    continue
                known[client] = after
                if client in self.own:
                    delivered += arrival.count
                    continue
            else:
                for client, start, _ in ranges:
                    if known.get(client, 0) != start:
                        delivered += self._take_overlapping(ranges, now)
                        break
                else:
                    for client, _, after in ranges:
                        known[client] = after
                    delivered += arrival.count
                    for moment, weight in arrival.moments:
                        bucket = int((now - moment) * BUCKETS_PER_SECOND)
                        buckets[bucket] = buckets.get(bucket, 0) + weight
                continue
            delivered += arrival.count
            for moment, weight in arrival.moments:
                bucket = int((now - moment) * BUCKETS_PER_SECOND)
                buckets[bucket] = buckets.get(bucket, 0) + weight
        ledger.delivered += delivered
        ledger.frames += frames
        if pos < end:
            self._rest = data[pos:]

    def _gather(self, data: bytes, now: float) -> int:
        # Returns where the bytes behind the large frame begin, -1 while it is not complete.
        assert self._large is not None
        taken = min(self._large_left, len(data))
        self._large_left -= taken
        if self._kept:
            self._large.append(data[:taken])
        else:
            self._skipped += taken
        if self._large_left:
            return -1
        pieces, self._large = self._large, None
        self.ledger.frames += 1
        if self._kept:
            payload = b"".join(pieces)
            arrival = self._read(payload, now)
            if arrival is not None:
                # Only a catch-up is as large as this.
                self.ledger.delivered += self._take_overlapping(arrival.ranges, now)
        else:
            self._skim(self._large_head, sum(map(len, pieces)) + self._skipped, now)
            self._skipped = 0
        return taken

    def _upgrade(self, data: bytes) -> int:
        assert self._accept is not None
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._rest = data
            return -1
        head = data[:end]
        if not head.startswith(b"HTTP/1.1 101"):
            raise ProtocolError(f"the server answered {head.splitlines()[0].decode('latin-1')!r} to the upgrade")
        if self._accept not in head:
            raise ProtocolError("the server's Sec-WebSocket-Accept is wrong")
        self._accept = None
        for payload in self.wire.greeting(self.document):
            assert self.transport is not None
            self.transport.write(frame(payload))
        return end + 4

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            if self.transport is not None:
                self.transport.write(frame(payload, _PONG))
        elif opcode == _CLOSE:
            if not self.closing:
                code = int.from_bytes(payload[:2]) if payload else 1005
                self.error = ProtocolError(f"the server closed with {code} {payload[2:].decode(errors='replace')}")
            if self.transport is not None:
                self.transport.write(frame(payload[:2], _CLOSE))
                self.transport.close()
        elif opcode != _PONG:
            raise ProtocolError(f"the server sent a frame that begins with {opcode:#04x}")

    # --- messages --------------------------------------------------------------------------------

    def _read(self, payload: bytes, now: float) -> Arrival | None:
        """Read a payload that nobody of the run has seen yet; return what it delivers."""
        if payload == PING and self._prefix:  # Hocuspocus' ping has no address
            self.send_raw(PONG)
            return None
        pos = len(self._prefix)
        if payload[:pos] != self._prefix:
            raise ProtocolError("a message for another document")
        kind = payload[pos]
        if kind == SYNC:
            step, length = payload[pos + 1], pos + 2
            size, body = read_var_uint(payload, length)
            if step == STEP1:
                self._answer_step1(payload[body : body + size])
                return None
            if step == STEP2 and not self.synced_at:
                self._synced(payload[body : body + size] if self.keep else None, size, now)
                ranges = self.ledger.step2_ranges.get(payload)
                if ranges is None:
                    # Fifty that join at once are sent the same bytes: reading them once is the client's part.
                    ranges = read_ranges(payload, body, body + size)
                    self.ledger.step2_ranges = {payload: ranges}
                for client, _, after in ranges:
                    self.known[client] = after
                return None
            ranges = read_ranges(payload, body, body + size)
            return self._arrival(payload, False, ranges, sum(after - start for _, start, after in ranges))
        if kind == AWARENESS:
            entries, _ = read_var_bytes(payload, pos + 1)
            states = _read_states(entries)
            return self._arrival(payload, True, states, len(states))
        if kind == SYNC_STATUS:
            self.ledger.acks += payload[pos + 1]
            return None
        message = self.wire.decode(payload, pos)
        if isinstance(message, PermissionDenied):
            raise ProtocolError(f"the server refused the client: {message.reason}")
        if isinstance(message, Closed):
            raise ProtocolError(f"the server closed the document: {message.reason}")
        if isinstance(message, TokenRequest):
            self.send(self.wire.token())
        return None

    def _arrival(self, payload: bytes, awareness: bool, ranges: list[Range], count: int) -> Arrival | None:
        if not ranges:
            self.ledger.remember(payload, None)
            return None
        moments = self.ledger.moments(_as_moments(ranges) if awareness else ranges)
        arrival = Arrival(awareness, tuple(ranges), moments, count)
        self.ledger.remember(payload, arrival)
        return arrival

    def _skim(self, head: bytes, size: int, now: float) -> None:
        # A large frame of which only the beginning was kept: it can only be counted as the first step 2.
        pos = len(self._prefix)
        if head[pos : pos + 2] != _STEP_2 or self.synced_at:
            raise ProtocolError(f"a frame of {size} bytes that is not the first sync step 2")
        length, body = read_var_uint(head, pos + 2)
        if body + length != size:
            raise ProtocolError("a step 2 whose length is not its frame's")
        self._synced(None, length, now)

    def _synced(self, update: bytes | None, size: int, now: float) -> None:
        self.synced_at = now
        self.step2 = update
        self.step2_size = size
        if not self.ready.done():
            self.ready.set_result(None)

    def _answer_step1(self, vector: bytes) -> None:
        self.vector_size = len(vector)
        update = EMPTY_UPDATE
        if self.typists:
            theirs = decode_state_vector(vector)
            lacking = [typist for typist in self.typists if theirs.get(typist.client, 0) < typist.clock]
            if lacking:
                sections = [typist.encode(theirs.get(typist.client, 0))[1:-1] for typist in lacking]
                update = encode_var_uint(len(sections)) + b"".join(sections) + b"\x00"
        self.send(self.wire.encode(SyncStep2(update)))

    def send_raw(self, payload: bytes) -> None:
        """Send a payload as it is, without the prefix."""
        if self.transport is not None:
            self.transport.write(frame(payload))

    def _take_overlapping(self, ranges: tuple[Range, ...], now: float) -> int:
        # A frame that repeats something known (a catch-up), or one that leaves a gap.
        fresh: list[Range] = []
        for client, start, after in ranges:
            have = self.known.get(client, 0)
            if start > have:
                self.ledger.gaps += start - have
            if after > have:
                fresh.append((client, max(start, have), after))
                self.known[client] = after
        self.ledger.record(self.ledger.moments(fresh), now)
        return sum(after - start for _, start, after in fresh)

    def _echo(self, payload: bytes, arrival: Arrival) -> None:
        if arrival.entries is None:
            arrival.entries = tuple(_split_states(read_var_bytes(payload, len(self._prefix) + 1)[0]))
        own, states = self.own, self.states
        fresh = [
            entry
            for (client, clock, _), entry in zip(arrival.ranges, arrival.entries, strict=True)
            if states.get(client, -1) < clock and client not in own
        ]
        if fresh:
            self.ledger.echoes += 1
            self.send(_AWARENESS + encode_var_bytes(encode_var_uint(len(fresh)) + b"".join(fresh)))

    def _take_states(self, ranges: tuple[Range, ...], now: float) -> int:
        fresh: list[Range] = []
        for client, clock, _ in ranges:
            if self.states.get(client, -1) < clock:
                self.states[client] = clock
                fresh.append((client, clock, clock))
        self.ledger.record(self.ledger.moments(_as_moments(fresh)), now)
        return len(fresh)


def _as_moments(states: list[Range]) -> list[Range]:
    return [(client, clock, clock + 1) for client, clock, _ in states]


def _read_states(data: bytes) -> list[Range]:
    """Read which client shows which clock in an awareness update.

    As ``collab.protocol.awareness.decode_awareness``, at three quarters of the cost: the states are not copied.
    """
    count, pos = read_var_uint(data, 0)
    states: list[Range] = []
    for _ in range(count):
        client, pos = read_var_uint(data, pos)
        clock, pos = read_var_uint(data, pos)
        size, pos = read_var_uint(data, pos)
        pos += size
        states.append((client, clock, clock))
    return states


def _split_states(data: bytes) -> Iterator[bytes]:
    """Give the bytes of each state in an awareness update: client ID, clock and JSON."""
    count, pos = read_var_uint(data, 0)
    for _ in range(count):
        start = pos
        _, pos = read_var_uint(data, pos)
        _, pos = read_var_uint(data, pos)
        size, pos = read_var_uint(data, pos)
        pos += size
        yield data[start:pos]


class Target:
    """A server's URL, taken apart once.

    ``tokens`` has the next client's for each request, as y-websocket shows it; without it, what the URL says.
    """

    def __init__(self, url: str, wire: Wire, tokens: Iterator[str] | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"a WebSocket URL begins with ws:// or wss:// and names a host: {url!r}")
        self.wire = wire
        self.host = parts.hostname
        self.tls = ssl.create_default_context() if parts.scheme == "wss" else None
        self.port = parts.port or (443 if self.tls else 80)
        self._path, self._query = parts.path, parts.query
        self._tokens = tokens
        default_port = 443 if self.tls else 80
        name = f"[{self.host}]" if ":" in self.host else self.host
        self._host_header = name if self.port == default_port else f"{name}:{self.port}"

    def request(self, document: str) -> tuple[bytes, bytes]:
        """Return the upgrade request for ``document`` and the Sec-WebSocket-Accept that answers it."""
        key = base64.b64encode(os.urandom(16))
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        query = self._query if self._tokens is None else f"token={next(self._tokens)}"
        lines = (
            f"GET {self.wire.target(self._path, query, document)} HTTP/1.1",
            f"Host: {self._host_header}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
            "User-Agent: collab-bench",
        )
        return "\r\n".join(lines).encode() + b"\r\n\r\n", accept


async def connect(
    target: Target,
    document: str,
    ledger: Ledger,
    *,
    keep: bool = False,
    within: float = 30.0,
) -> Connection:
    """Open a client on ``document`` and wait until its first sync step 2 has come.

    ``keep`` keeps that step 2's bytes on the connection. Raises ProtocolError when the server refuses
    or closes, OSError when it cannot be reached, TimeoutError after ``within`` seconds.
    """
    request, accept = target.request(document)
    loop = asyncio.get_running_loop()
    connection = Connection(target.wire, document, ledger, request, accept, keep)
    try:
        async with asyncio.timeout(within):
            await loop.create_connection(lambda: connection, target.host, target.port, ssl=target.tls)
            await connection.ready
    except TimeoutError:
        if connection.transport is not None:
            connection.transport.abort()
        raise TimeoutError(f"no first sync within {within:g} s on {document!r}") from None
    except BaseException:
        if connection.transport is not None:
            connection.transport.abort()
        raise
    return connection


async def close_all(connections: list[Connection], within: float = 10.0) -> None:
    """Close ``connections`` and wait until the sockets are gone."""
    for connection in connections:
        connection.close()
    if connections:
        await asyncio.wait([connection.closed for connection in connections], timeout=within)
