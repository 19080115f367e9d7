"""Rooms full of clients, and the clock that makes them act.

Strategy: an open loop. Each actor has its own random phase within the period of its rate, so people
are not in step, and the schedule does not wait for the server: what is due is sent, and how late the
generator itself was is reported. The random numbers come from a seed, so every server sees the same
schedule. While a run is measured the generator's cyclic collector rests.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

from collab.bench.connection import Connection, Target, close_all, connect
from collab.bench.ledger import Ledger
from collab.bench.updates import Typist, read_content, run_is_chained
from collab.errors import DecodeError

T = TypeVar("T")

# So many handshakes are under way at once: enough to keep a server busy, below every listen backlog.
CONNECTING = 100
# Actions between two looks at the clock and two turns of the loop.
_BURST = 64

Progress = Callable[[float, str], None]
"""Called with the part that is done (0 to 1) and what is being done."""


def silent(done: float, what: str) -> None:
    """Report no progress."""


async def gathered(jobs: Sequence[Callable[[], Awaitable[T]]], at_once: int = CONNECTING) -> list[T]:
    """Run ``jobs``, ``at_once`` at a time; the first error cancels the others and is raised alone."""
    results: dict[int, T] = {}
    waiting = iter(enumerate(jobs))

    async def work() -> None:
        for index, job in waiting:
            results[index] = await job()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(jobs))):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [results[index] for index in range(len(jobs))]


@dataclass(slots=True)
class Room:
    """One document with its connections; the first ``len(typists)`` of them write, one typist each."""

    document: str
    connections: list[Connection]
    typists: list[Typist] = field(default_factory=list)


async def open_rooms(target: Target, documents: Sequence[str], members: int, ledger: Ledger) -> list[Room]:
    """Connect ``members`` clients to each of ``documents``; every client has its first sync when this returns."""

    def job(document: str) -> Callable[[], Awaitable[Connection]]:
        return lambda: connect(target, document, ledger)

    connections = await gathered([job(document) for document in documents for _ in range(members)])
    return [
        Room(document, connections[index * members : (index + 1) * members]) for index, document in enumerate(documents)
    ]


def give_typists(rooms: Sequence[Room], writers: int, rng: random.Random) -> None:
    """Give the first ``writers`` clients of each room a typist with an ID of its own."""
    for room in rooms:
        for connection in room.connections[:writers]:
            typist = Typist(rng.randrange(1 << 28, 1 << 32))
            room.typists.append(typist)
            connection.add(typist)
            connection.ledger.sent_at[typist.client] = typist.sent_at


@contextmanager
def collector_resting() -> Iterator[None]:
    """Keep the cyclic garbage collector off, and what exists out of its sight."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@dataclass(slots=True)
class Driven:
    """How a schedule went: actions done, seconds it took, and the worst lateness of the generator in seconds."""

    actions: int
    seconds: float
    lag: float
    stopped: bool


async def drive(
    actions: Sequence[Callable[[float], None]],
    rate: float,
    seconds: float,
    rng: random.Random,
    *,
    progress: Progress = silent,
    what: str = "typing",
    stop: Callable[[], bool] | None = None,
) -> Driven:
    """Do each of ``actions`` ``rate`` times a second for ``seconds``, each at its own random phase.

    An action gets the perf_counter time at which it is done. ``stop`` is asked about four times a
    second; when it says yes the schedule ends early.
    """
    period = 1 / rate
    rounds = max(1, round(rate * seconds))
    plan = sorted((rng.random() * period, index) for index in range(len(actions)))
    phases = [phase for phase, _ in plan]
    order = [actions[index] for _, index in plan]
    many = len(order)
    start = perf_counter()
    done = lag = 0
    worst = float(lag)
    looked = start
    for turn in range(rounds):
        base = start + turn * period
        index = 0
        while index < many:
            now = perf_counter()
            due = base + phases[index]
            if due > now:
                await asyncio.sleep(min(due - now, 0.25) if due - now > 0.001 else 0.001)
            else:
                worst = max(worst, now - due)
                burst = index + _BURST
                while index < many and index < burst and base + phases[index] <= now:
                    order[index](now)
                    index += 1
                    done += 1
                if index == burst:
                    await asyncio.sleep(0)
            if now - looked > 0.25:
                looked = now
                progress(min(1.0, (now - start) / seconds), what)
                if stop is not None and stop():
                    return Driven(done, perf_counter() - start, worst, True)
    return Driven(done, perf_counter() - start, worst, False)


def lacking(rooms: Sequence[Room]) -> tuple[int, int]:
    """Return how many characters have not reached (other clients, their own senders) yet."""
    others = own = 0
    for room in rooms:
        typed = [(typist.client, typist.clock) for typist in room.typists]
        for connection in room.connections:
            mine = {typist.client for typist in connection.typists}
            known = connection.known
            for client, clock in typed:
                missing = clock - known.get(client, 0)
                if client in mine:
                    own += missing
                else:
                    others += missing
    return others, own


async def settle(ledger: Ledger, complete: Callable[[], bool], *, patience: float = 3.0, limit: float = 30.0) -> bool:
    """Wait until ``complete`` or until nothing has been delivered for ``patience`` seconds; say which."""
    start = moved = perf_counter()
    delivered = ledger.delivered
    while not complete():
        await asyncio.sleep(0.02)
        now = perf_counter()
        if ledger.delivered != delivered:
            delivered, moved = ledger.delivered, now
        elif now - moved > patience:
            return False
        if now - start > limit:
            return False
    return True


def first_error(connections: Sequence[Connection]) -> Exception | None:
    """Return why one of ``connections`` was lost, None when all live."""
    return next((connection.error for connection in connections if connection.error is not None), None)


async def holds_exactly(
    target: Target, document: str, expected: dict[int, bytes], *, chained: bool, besides: int | None = None
) -> bool:
    """Join ``document`` afresh and say whether its step 2 holds ``expected`` and nothing else.

    ``expected`` has one ASCII byte for each clock of each client, 0 where deleted. ``chained`` also asks that
    each client's text stands as its typist wrote it. The client ``besides`` may have written anything.
    """
    ledger = Ledger()
    joiner = await connect(target, document, ledger, keep=True)
    try:
        if joiner.step2 is None:
            return False
        try:
            held = read_content(joiner.step2)
            if besides is not None:
                held.pop(besides, None)
            return held == expected and (not chained or run_is_chained(joiner.step2, set(expected)))
        except DecodeError:
            return False
    finally:
        await close_all([joiner])


async def rooms_hold_exactly(target: Target, rooms: Sequence[Room]) -> int:
    """Return how many of ``rooms`` hold exactly what was typed in them, seen by fresh joiners."""

    def job(room: Room) -> Callable[[], Awaitable[bool]]:
        expected = {typist.client: typist.held() for typist in room.typists if typist.clock}
        return lambda: holds_exactly(target, room.document, expected, chained=True)

    return sum(await gathered([job(room) for room in rooms], at_once=20))
