"""A crowd of y-websocket clients that show presence, light enough for hundreds of them in one process.

Strategy: each is an ``asyncio.Protocol`` that does what y-websocket 3 and y-protocols do with awareness: it shows
itself before it has read anything, takes only greater clocks, keeps the clocks of those whom it has removed, sends
every change that it hears of back to the server, answers ``null`` for its own ID with the next clock, and comes back
when its socket is closed. What is the same for all of them, such as decoding a frame, is done once. Nobody edits.

As a program it measures what comebacks cost: ``python -m tests.support.crowd --size 300 --phones 5`` restarts a server
under a crowd, and then lets some of it flap; it prints seconds until all see all, frames, bytes and CPU of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
import time
from collections.abc import Coroutine
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import psutil
import uvloop

from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.support.wsclient import AWARENESS, STEP1, SYNC, awareness, awareness_entries, parse, step1, step2

_EMPTY_UPDATE = b"\0\0"
_BINARY = 0x82
_RENEW_SECONDS = 15.0

Entry = tuple[int, int, str]
Entries = tuple[Entry, ...]


def _frame(payload: bytes) -> bytes:
    """Make a masked frame; the mask is zero, which changes nothing."""
    size = len(payload)
    if size < 126:
        head = bytes((_BINARY, 0x80 | size))
    elif size < 65_536:
        head = bytes((_BINARY, 0x80 | 126)) + size.to_bytes(2)
    else:
        head = bytes((_BINARY, 0x80 | 127)) + size.to_bytes(8)
    return head + bytes(4) + payload


@lru_cache(maxsize=64)
def _entries(payload: bytes) -> Entries:
    return tuple(awareness_entries(payload))


@lru_cache(maxsize=64)
def _shown(entries: Entries) -> bytes:
    return _frame(awareness(*entries))


class Person(asyncio.Protocol):
    """One of the crowd.

    Attributes:
        client, clock, shows: what it shows of itself.
        seen: the states of the others, as they are shown to it.
        removed: how often somebody else was removed while it was connected.
        asked: how often it was made to announce itself.
        opens: how often its socket was opened.
        frames, nbytes: what has come.
    """

    def __init__(self, crowd: Crowd, client: int) -> None:
        self.crowd, self.client, self.clock = crowd, client, 1
        self.shows: dict[str, Any] = {"cursor": None, "user": {"color": "#30bced", "name": f"Person {client}"}}
        self.state = json.dumps(self.shows, separators=(",", ":"))
        self.seen: dict[int, str] = {}
        self.known: dict[int, int] = {}
        self.removed = self.asked = self.opens = self.frames = self.nbytes = 0
        self.opened_at = 0.0
        self.complete_at = 0.0
        self.renewed_at = 0.0
        self.wanted = True
        self.open = False
        self._tries = 0
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    async def connect(self) -> None:
        url, loop = urlsplit(self.crowd.url), asyncio.get_running_loop()
        while self.wanted:
            try:
                await loop.create_connection(lambda: self, url.hostname or "", url.port or 0)
            except OSError:
                await self._pause()
            else:
                return

    async def _pause(self) -> None:
        self._tries += 1
        await asyncio.sleep(min(2**self._tries * 0.1, 2.5))

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none
        self._buffer = b""
        url = urlsplit(self.crowd.url)
        address = f"{url.path}?{url.query}"
        self._transport.write(
            f"GET {address} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self.open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                self.drop()
                return
            buffer = buffer[end + 4 :]
            self.open = True
            self.opens += 1
            self.opened_at = time.monotonic()
            self._write(_frame(step1()), self._own())
        pos = 0
        while (span := self._span_of_frame(buffer, pos)) is not None:
            start, end = span
            opcode = buffer[pos] & 0x0F
            payload = buffer[start:end]
            pos = end
            if opcode == 2:
                self.frames += 1
                self.nbytes += len(payload)
                self._read(payload)
            elif opcode == 9:
                self._write(bytes((0x8A, 0x80)) + bytes(4))
            elif opcode == 8:
                self.drop()
                return
        self._buffer = buffer[pos:]

    @staticmethod
    def _span_of_frame(buffer: bytes, pos: int) -> tuple[int, int] | None:
        if len(buffer) < pos + 2:
            return None
        size, start = buffer[pos + 1], pos + 2
        if size > 125:
            width = 2 if size == 126 else 8
            if len(buffer) < start + width:
                return None
            size, start = int.from_bytes(buffer[start : start + width]), start + width
        return (start, start + size) if len(buffer) >= start + size else None

    def connection_lost(self, error: Exception | None) -> None:
        self.open, self._transport = False, None
        self.seen = {}
        if self.wanted:
            self.crowd.spawn(self._come_back())

    async def _come_back(self) -> None:
        await self._pause()
        await self.connect()

    def drop(self) -> None:
        """Lose the socket."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, *frames: bytes) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(frames))

    # What it says and hears

    def _own(self) -> bytes:
        self.renewed_at = time.monotonic()
        return _frame(awareness((self.client, self.clock, self.state)))

    def renew(self) -> None:
        """Show itself with the next clock."""
        self.clock += 1
        self._write(self._own())

    def _read(self, payload: bytes) -> None:
        if payload[0] == SYNC:
            if parse(payload).kind == STEP1:
                self._tries = 0
                self._write(_frame(step2(_EMPTY_UPDATE)))
        elif payload[0] == AWARENESS:
            self._hear(_entries(parse(payload).payload))

    def _hear(self, entries: Entries) -> None:
        added: list[Entry] = []
        updated: list[Entry] = []
        removed: list[Entry] = []
        for entry in entries:
            client, clock, state = entry
            if client == self.client:
                if state == "null" and clock >= self.clock:
                    self.clock = clock
                    self.asked += 1
                    self.renew()
                continue
            known = self.known.get(client, 0)
            if clock > known or (clock == known and state == "null" and client in self.seen):
                (removed if state == "null" else updated if client in self.known else added).append(entry)
                self.known[client] = clock
                if state == "null":
                    self.seen.pop(client, None)
                    self.removed += 1
                else:
                    self.seen[client] = state
                    if len(self.seen) == self.crowd.others:
                        self.complete_at = time.monotonic()
        if changed := (*added, *updated, *removed):
            self._write(_shown(entries if changed == entries else changed))


class Crowd:
    """So many people on the document at ``url``; use as an async context manager.

    ``others`` is how many each of them has to see: those of the crowd, and ``more`` beside it. With ``renews`` they
    renew their states every 15 s, as y-protocols does.
    """

    def __init__(self, url: str, size: int, *, more: int = 0, first: int = 1_000_000, renews: bool = False) -> None:
        self.url = url
        self.others = size - 1 + more
        self.people = [Person(self, first + at) for at in range(size)]
        self._renews = renews
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> Crowd:
        await asyncio.gather(*(person.connect() for person in self.people))
        if self._renews:
            self.spawn(self._renew_forever())
        return self

    async def __aexit__(self, *_: object) -> None:
        for person in self.people:
            person.wanted = False
            person.drop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await happens(lambda: not any(person.open for person in self.people), "all sockets are closed")

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(0.3)
            now = time.monotonic()
            for person in self.people:
                if person.open and now - person.renewed_at >= _RENEW_SECONDS + person.client % 30 / 10:
                    person.renew()

    @property
    def shown(self) -> dict[int, dict[str, Any]]:
        """What its people show, by client ID."""
        return {person.client: person.shows for person in self.people}

    @property
    def complete(self) -> bool:
        """Whether everybody is connected and sees everybody."""
        return all(person.open and len(person.seen) == self.others for person in self.people)

    async def until_complete(self, seconds: float = 60.0) -> None:
        await happens(lambda: self.complete, "everybody sees everybody", seconds)

    def has_heard(self, of: Crowd) -> bool:
        """Whether all of it know the newest clock of everybody in a crowd, which may be this one."""
        return all(
            other is person or person.known.get(other.client) == other.clock
            for person in self.people
            for other in of.people
        )

    async def until_sees(self, client: int, shows: dict[str, Any]) -> None:
        """Wait until all of it see this of a client that is none of it."""
        await happens(lambda: all(json.loads(person.seen.get(client, "0")) == shows for person in self.people), "seen")


# Measuring


class _Cost:
    """What a server has used between two looks."""

    def __init__(self, server: ServerProcess, crowd: Crowd) -> None:
        self._server, self._crowd = server, crowd
        self._before = self._look()

    def _look(self) -> tuple[float, int, int, float]:
        used = psutil.Process(self._server.pid).cpu_times()
        people = self._crowd.people
        frames, nbytes = sum(person.frames for person in people), sum(person.nbytes for person in people)
        return used.user + used.system, frames, nbytes, time.monotonic()

    def __str__(self) -> str:
        cpu, frames, nbytes, seconds = (now - was for now, was in zip(self._look(), self._before, strict=True))
        return (
            f"in {seconds:.1f} s: server CPU {cpu:.2f} s ({100 * cpu / seconds:.0f} % of a core), "
            f"{frames} frames and {nbytes / 1e6:.1f} MB to clients"
        )


async def _measure(size: int, phones: int, seconds: float, every: float, restart: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder)) as server:
        async with Crowd(server.document_url("room"), size, renews=True) as crowd:
            await crowd.until_complete()
            await asyncio.sleep(1)
            if restart:
                await _measure_restart(server, crowd)
            cost = _Cost(server, crowd)
            await asyncio.sleep(seconds)
            print(f"{size} idle people {cost}")
            if phones:
                await _measure_phones(server, crowd, phones, seconds, every)


async def _measure_restart(server: ServerProcess, crowd: Crowd) -> None:
    await server.aterminate()
    await server.astart()
    cost, asked = _Cost(server, crowd), sum(person.asked for person in crowd.people)
    ready = time.monotonic()
    await happens(lambda: all(person.open for person in crowd.people), "all are back", 60)
    last = max(person.opened_at for person in crowd.people)
    first = str(cost) if await _settles(crowd, 2) else "not complete"
    await _settles(crowd, 40)
    done = max(person.complete_at for person in crowd.people)
    print(
        f"restart, {len(crowd.people)} people: all back {last - ready:.2f} s after the start, "
        f"all complete {done - last:.2f} s later (now {crowd.complete}); until then {first}; "
        f"asked {sum(person.asked for person in crowd.people) - asked} times"
    )
    await asyncio.sleep(max(0.0, ready + 20 - time.monotonic()))
    print(f"    the whole restart {cost}")


async def _settles(crowd: Crowd, seconds: float) -> bool:
    with contextlib.suppress(AssertionError):
        await crowd.until_complete(seconds)
    return crowd.complete


async def _measure_phones(server: ServerProcess, crowd: Crowd, phones: int, seconds: float, every: float) -> None:
    """Let some people lose their sockets again and again; say how long they do not see all others."""
    flapping = crowd.people[:phones]
    for person in crowd.people:
        person.asked = 0
    waits: list[float] = []
    cost = _Cost(server, crowd)
    end = time.monotonic() + seconds

    # The other phones come and go: all but these are to be seen.
    steady = {person.client for person in crowd.people[phones:]}

    async def flap(person: Person) -> None:
        await asyncio.sleep(random.uniform(0, every))
        while time.monotonic() < end:
            person.opened_at = 0.0
            person.drop()
            await happens(lambda: person.opened_at, "it is back", 20)
            back, stay = time.monotonic(), random.uniform(0.8, 1.2) * every
            with contextlib.suppress(AssertionError):
                await happens(lambda: person.seen.keys() >= steady, "it sees the others", stay)
            waits.append(time.monotonic() - back)
            await asyncio.sleep(max(0.0, back + stay - time.monotonic()))

    await asyncio.gather(*map(flap, flapping))
    waits.sort()
    print(
        f"{phones} flapping phones among {len(crowd.people)} {cost}; back {len(waits)} times, "
        f"did not see all steady people for {waits[len(waits) // 2]:.2f} s (median), {waits[-1]:.2f} s (at most); "
        f"others asked {sum(person.asked for person in crowd.people[phones:])} times, "
        f"removed from view {sum(person.removed for person in crowd.people)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--phones", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=4.0, help="seconds for which a phone stays")
    parser.add_argument("--no-restart", action="store_true")
    options = parser.parse_args()
    uvloop.run(_measure(options.size, options.phones, options.seconds, options.every, not options.no_restart))


if __name__ == "__main__":
    main()
