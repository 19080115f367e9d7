"""Readers that ask for nearly all of a document, each in its own words, and what that costs in memory.

Strategy: no two ask the same, so no answer serves two of them. Meanwhile people type in a room of their own, and the
server's memory is read before, during and after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

from collab.bench.connection import Connection, Target, close_all, connect, frame
from collab.bench.edits import keystroke
from collab.bench.ledger import Ledger
from collab.bench.load import collector_resting, drive, first_error, gathered, give_typists, lacking, open_rooms, settle
from collab.bench.process import Stopwatch
from collab.bench.run import Bench, Figures
from collab.errors import ProtocolError
from collab.protocol.lib0 import encode_var_uint
from collab.protocol.sync import SyncStep1

# Bytes of one update with which the document is written.
_PASTE = 250_000

# Seconds between two looks at the server's memory, and for which it must not have grown to count as settled.
_LOOK = 0.1
_STILL = 4.0
_LONGEST = 45.0


class Silent(asyncio.Protocol):
    """A client that sends its question after the upgrade, and reads nothing behind that."""

    def __init__(self, request: bytes, question: bytes) -> None:
        self._question = question
        self._request = request
        loop = asyncio.get_running_loop()
        self.asked: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the upgrade request."""
        self.transport = transport  # type: ignore[assignment]
        assert self.transport is not None
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Ask when the upgrade is answered."""
        assert self.transport is not None
        if self.asked.done():
            return
        if not data.startswith(b"HTTP/1.1 101"):
            self.asked.set_exception(ProtocolError(f"the server answered {data[:30]!r} to the upgrade"))
            return
        self.transport.pause_reading()
        self.transport.write(self._question)
        self.asked.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the server has ended it."""
        self.transport = None
        if not self.asked.done():
            self.asked.set_exception(ProtocolError("the server dropped a connection"))


def question(target: Target, document: str, client: int, clock: int) -> bytes:
    """Return the frame that asks for all of a document but the first ``clock`` clocks of a client."""
    vector = b"\x01" + encode_var_uint(client) + encode_var_uint(clock)
    return frame(target.wire.prefix(document) + target.wire.encode(SyncStep1(vector)))


def _paste(client: int, number: int) -> bytes:
    """Encode the update (v1) with which a client puts so many letters behind what it has written."""
    clock = number * _PASTE
    text = encode_var_uint(_PASTE) + b"x" * _PASTE
    origin = b"\x84" + encode_var_uint(client) + encode_var_uint(clock - 1) if clock else b"\x04\x01\x08document"
    return b"\x01\x01" + encode_var_uint(client) + encode_var_uint(clock) + origin + text + b"\x00"


async def _write(bench: Bench, document: str, client: int, megabytes: float) -> Connection:
    """Write a document; return a client that has it open."""
    author = await connect(bench.target, document, Ledger())
    for number in range(max(1, round(megabytes * 1e6 / _PASTE))):
        author.send_update(_paste(client, number))
        if not await settle(author.ledger, partial(_knows, author, client, (number + 1) * _PASTE)):
            raise ProtocolError("the document could not be written")
    return author


def _knows(connection: Connection, client: int, clock: int) -> bool:
    return connection.known.get(client, 0) >= clock


class _Memory:
    """Reads the server's memory while a scenario runs."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.most = 0

    def read(self) -> int:
        """Return it in bytes, 0 where it is not known."""
        server = self._bench.server
        now = 0 if server is None else server.rss()
        self.most = max(self.most, now)
        return now

    async def follow(self) -> None:
        """Read it until this is cancelled."""
        while True:
            self.read()
            await asyncio.sleep(_LOOK)

    async def settled(self) -> int:
        """Return it when it has not risen for some seconds."""
        began = risen_at = perf_counter()
        most = self.read()
        while perf_counter() - risen_at < _STILL and perf_counter() - began < _LONGEST:
            await asyncio.sleep(_LOOK)
            now = self.read()
            if now > most * 1.005:
                most, risen_at = now, perf_counter()
        return self.read()


async def _beside(
    bench: Bench, name: str, clients: int, rate: float, disturb: Callable[[], Awaitable[None]]
) -> Figures:
    """Let people type in a room of their own, first among themselves and then until ``disturb`` is done."""
    (room,) = await open_rooms(bench.target, [bench.document(name)], clients, Ledger())
    people = room.connections
    memory = _Memory(bench)
    try:
        give_typists([room], clients, bench.rng)
        ledger = people[0].ledger
        actions = [keystroke(one, typist) for one, typist in zip(people, room.typists, strict=True)]

        async def latencies(seconds: float, stop: Callable[[], bool]) -> dict[str, float | None]:
            ledger.buckets = {}
            await drive(actions, rate, seconds, bench.rng, progress=bench.progress, what="typing", stop=stop)
            await settle(ledger, lambda: lacking([room])[0] == 0)
            return ledger.latencies()

        with collector_resting():
            watch = Stopwatch(bench.server)
            calm = await latencies(bench.seconds, lambda: first_error(people) is not None)
            before = await memory.settled()
            memory.most = before
            disturbing = asyncio.ensure_future(disturb())
            following = asyncio.ensure_future(memory.follow())
            try:
                worse = await latencies(_LONGEST, lambda: disturbing.done() or first_error(people) is not None)
                await disturbing
            finally:
                disturbing.cancel()
                following.cancel()
                await asyncio.wait([disturbing, following])
            share, waited = watch.generator_share(), watch.generator_waited()
            cpu = watch.server_cpu()
        error = first_error(people)
        return {
            "sent": ledger.sent,
            "lost": lacking([room])[0],
            **{f"calm_{key}": value for key, value in calm.items()},
            **{f"{name}_{key}": value for key, value in worse.items()},
            f"{name}_ratio": None
            if not calm["p99_ms"] or worse["p99_ms"] is None
            else worse["p99_ms"] / calm["p99_ms"],
            "memory_before_mib": before / 2**20,
            "memory_most_mib": memory.most / 2**20,
            "memory_ratio": memory.most / before if before else None,
            "server_cpu_s": cpu,
            "error": str(error) if error else None,
            "generator_share": share,
            "generator_waited": waited,
            "right": lacking([room])[0] == 0 and error is None,
        }
    finally:
        await close_all(people)


async def silent_readers(
    bench: Bench, *, readers: int = 100, megabytes: float = 11.0, clients: int = 20, rate: float = 10.0
) -> Figures:
    """Let readers ask for nearly all of a large document and read none of it; ``memory_kib`` is for each of them."""
    document, client = bench.document("silent"), bench.rng.randrange(1 << 28, 1 << 32)
    bench.progress(0.0, "writing the document")
    author = await _write(bench, document, client, megabytes)
    opened: list[Silent] = []
    loop = asyncio.get_running_loop()

    def job(number: int) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            request, _ = bench.target.request(document)
            asks = Silent(request, question(bench.target, document, client, 1_000 + 7 * number))
            opened.append(asks)
            await loop.create_connection(lambda: asks, bench.target.host, bench.target.port, ssl=bench.target.tls)
            await asks.asked

        return ask

    memory = _Memory(bench)

    async def come() -> None:
        await gathered([job(number) for number in range(readers)])
        await memory.settled()

    try:
        figures = await _beside(bench, "silent", clients, rate, come)
        still = sum(one.transport is not None for one in opened)
    finally:
        for one in opened:
            if one.transport is not None:
                one.transport.abort()
        await close_all([author])
    after = await memory.settled()
    return {
        **figures,
        "readers": readers,
        "memory_kib": (memory.most / 2**20 - figures["memory_before_mib"]) * 1024 / readers,
        "memory_after_mib": after / 2**20,
        "right": figures["right"] and still == readers,
    }


async def distinct_questions(
    bench: Bench,
    *,
    asked: float = 88.0,
    megabytes: float = 1.0,
    seconds: float = 10.0,
    clients: int = 20,
    rate: float = 10.0,
) -> Figures:
    """Let one reader ask for nearly all of a document again and again, each time in other words, and read it all."""
    document, client = bench.document("asked"), bench.rng.randrange(1 << 28, 1 << 32)
    bench.progress(0.0, "writing the document")
    author = await _write(bench, document, client, megabytes)
    reader = await connect(bench.target, document, Ledger())
    sent = 0

    async def ask() -> None:
        nonlocal sent
        due = began = perf_counter()
        while due - began < seconds and reader.transport is not None:
            reader.send_frames(question(bench.target, document, client, 1_000 + sent))
            sent += 1
            due += 1 / asked
            await asyncio.sleep(max(0.0, due - perf_counter()))

    try:
        figures = await _beside(bench, "asked", clients, rate, ask)
        right = figures["right"] and reader.error is None
    finally:
        await close_all([author, reader])
    after = await _Memory(bench).settled()
    return {**figures, "questions": sent, "memory_after_mib": after / 2**20, "right": right}
