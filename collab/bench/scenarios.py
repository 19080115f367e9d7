"""The scenarios: what is built, what is measured, and what counts as right.

Strategy: each scenario is one coroutine that takes a Bench (where, whose process, how long) and returns
a flat dictionary of figures, ready for a table or for JSON. Setting up is never measured; CPU is read
over the stretch from the first send to the last delivery and a moment more, so that a journal's commit
is in it. A scenario that lost something, or whose document is not what was typed, says so in
``right`` and is a failure whatever its speed.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from collab.bench.connection import Connection, Target, close_all, connect
from collab.bench.ledger import Ledger
from collab.bench.load import (
    Driven,
    Progress,
    Room,
    collector_resting,
    drive,
    first_error,
    gathered,
    give_typists,
    holds_exactly,
    lacking,
    open_rooms,
    rooms_hold_exactly,
    settle,
    silent,
)
from collab.bench.process import ServerProcess, Stopwatch
from collab.bench.updates import EditingSession, Typist
from collab.errors import ConfigurationError, ProtocolError

Figures = dict[str, Any]

# After the last delivery: a journal that gathers for some milliseconds still has to commit.
_COMMIT_PAUSE = 0.1
# What one client types within 10 ms it hands to its socket in one write (a message and a frame each, as
# ever). Below 150 updates a second and client that is a write for each; above, where only the search for the
# highest rate goes, the generator would otherwise spend its core on system calls.
_ONE_WRITE = 0.01
# The generator is no witness of the server any more when it needs more of its core than this.
GENERATOR_LIMIT = 0.9


@dataclass(slots=True)
class Bench:
    """Where a scenario runs and for how long."""

    target: Target
    server: ServerProcess | None = None
    seconds: float = 5.0
    progress: Progress = silent
    restart: Callable[[], Awaitable[tuple[Target, ServerProcess | None]]] | None = None
    verify: bool = True
    url: str = ""
    wire: str = "y-websocket"
    token: str = ""
    name: str = field(default_factory=lambda: f"bench-{secrets.token_hex(4)}")
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def document(self, what: str) -> str:
        """Return a document name that no other run has."""
        return f"{self.name}-{what}-{secrets.token_hex(3)}"


def _cpu(figures: Figures, cpu: float | None, deliveries: int) -> None:
    figures["server_cpu_s"] = cpu
    figures["cpu_ms_per_1000"] = None if cpu is None or not deliveries else cpu * 1e6 / deliveries


async def _typing(
    bench: Bench, *, rooms: int, members: int, writers: int, rate: float, patience: float = 3.0, what: str = "typing"
) -> Figures:
    """Let ``writers`` of ``members`` clients in each of ``rooms`` rooms type ``rate`` characters a second."""
    ledger = Ledger()
    bench.progress(0.0, "connecting")
    opened = await open_rooms(bench.target, [bench.document(str(n)) for n in range(rooms)], members, ledger)
    connections = [connection for room in opened for connection in room.connections]
    try:
        give_typists(opened, writers, bench.rng)
        return await _typing_in(bench, opened, connections, ledger, rate, patience, what)
    finally:
        await close_all(connections)


def keystroke(connection: Connection, typist: Typist, strokes: int = 1) -> Callable[[float], None]:
    """Return the action that lets ``typist`` type ``strokes`` times on ``connection``."""
    return lambda now: connection.type(typist, now, strokes)


async def _typing_in(
    bench: Bench,
    opened: list[Room],
    connections: list[Connection],
    ledger: Ledger,
    rate: float,
    patience: float,
    what: str,
) -> Figures:
    strokes = max(1, round(rate * _ONE_WRITE))
    actions = [keystroke(connection, typist, strokes) for connection in connections for typist in connection.typists]
    members = len(opened[0].connections)
    backlog_limit = max(2_000.0, len(actions) * rate * members)  # one second's deliveries

    def overloaded() -> bool:
        return ledger.sent * (members - 1) - ledger.delivered > backlog_limit or first_error(connections) is not None

    with collector_resting():
        watch = Stopwatch(bench.server)
        driven = await drive(
            actions, rate / strokes, bench.seconds, bench.rng, progress=bench.progress, what=what, stop=overloaded
        )
        bench.progress(1.0, "waiting for the last deliveries")
        everywhere = ledger.sent * members
        to_others = ledger.sent * (members - 1)
        # A server need not echo to the sender: then the last delivery is the last to the others.
        await settle(ledger, lambda: ledger.delivered >= everywhere, patience=min(patience, 0.5))
        if ledger.delivered < to_others:
            await settle(ledger, lambda: ledger.delivered >= to_others, patience=patience)
        share, waited = watch.generator_share(), watch.generator_waited()
        await asyncio.sleep(_COMMIT_PAUSE)
        cpu = watch.server_cpu()
    others, own = lacking(opened)
    echoed = own < ledger.sent
    expected = everywhere if echoed else to_others
    # A gap is what a later update of the same client has passed: no server delivers it afterwards.
    lost = others + (own if echoed else 0) + ledger.gaps
    error = first_error(connections)
    figures: Figures = {
        "sent": ledger.sent,
        "sent_per_s": ledger.sent / driven.seconds,
        "expected": expected,
        "delivered": ledger.delivered,
        "lost": lost,
        **ledger.latencies(),
        "frames": ledger.frames,
        "overloaded": driven.stopped,
        "error": str(error) if error else None,
        "generator_share": share,
        "generator_waited": waited,
        "generator_lag_ms": driven.lag * 1000,
    }
    _cpu(figures, cpu, ledger.delivered)
    if bench.verify:
        bench.progress(1.0, "comparing the documents")
        whole = await rooms_hold_exactly(bench.target, opened) if error is None else 0
        figures["documents_equal"] = whole
        figures["documents"] = len(opened)
        figures["right"] = lost == 0 and whole == len(opened) and error is None
    else:
        figures["right"] = lost == 0 and error is None
    return figures


async def one_writer(bench: Bench, *, readers: int = 100, rate: float = 50.0) -> Figures:
    """One client types, the others read."""
    return await _typing(bench, rooms=1, members=readers + 1, writers=1, rate=rate)


async def everybody_types(bench: Bench, *, clients: int = 100, rate: float = 5.0) -> Figures:
    """All clients of one room type."""
    return await _typing(bench, rooms=1, members=clients, writers=clients, rate=rate)


async def many_rooms(bench: Bench, *, rooms: int = 500, members: int = 2, rate: float = 1.0) -> Figures:
    """All clients of many small rooms type."""
    return await _typing(bench, rooms=rooms, members=members, writers=members, rate=rate)


class _Cursor:
    """One client's awareness: a name, a colour and a caret that moves."""

    def __init__(self, connection: Connection, client: int, number: int) -> None:
        self.connection = connection
        self.client = client
        self.clock = 0
        self._times = connection.ledger.sent_at.setdefault(client, [0.0])  # clock 0 is never sent
        self._front = f'{{"user":{{"name":"Person {number}","color":"#30bced"}},"cursor":{{"anchor":'

    def move(self, now: float) -> None:
        """Move the caret and tell the room."""
        self.clock += 1
        self._times.append(now)
        self.connection.ledger.sent += 1
        state = f'{self._front}{self.clock},"head":{self.clock + 3}}}}}'.encode()
        self.connection.send_awareness(self.client, self.clock, state)


async def presence_storm(bench: Bench, *, clients: int = 100, rate: float = 10.0) -> Figures:
    """All clients of one room move their cursors.

    A server may skip a state that a newer one of the same client has replaced (``superseded``); what must
    arrive everywhere is each client's last.
    """
    ledger = Ledger()
    bench.progress(0.0, "connecting")
    (room,) = await open_rooms(bench.target, [bench.document("presence")], clients, ledger)
    connections = room.connections
    try:
        cursors = [
            _Cursor(connection, bench.rng.randrange(1 << 28, 1 << 32), number)
            for number, connection in enumerate(connections)
        ]
        with collector_resting():
            watch = Stopwatch(bench.server)
            driven = await drive(
                [cursor.move for cursor in cursors], rate, bench.seconds, bench.rng, progress=bench.progress,
                what="moving", stop=lambda: first_error(connections) is not None,
            )  # fmt: skip
            last = {cursor.client: cursor.clock for cursor in cursors}

            def missing() -> int:
                return sum(
                    1
                    for connection, own in zip(connections, cursors, strict=True)
                    for client, clock in last.items()
                    if client != own.client and connection.states.get(client, -1) < clock
                )

            await settle(ledger, lambda: missing() == 0)
            await settle(ledger, lambda: ledger.delivered >= ledger.sent * clients, patience=0.1)
            share, waited = watch.generator_share(), watch.generator_waited()
            cpu = watch.server_cpu()
        error = first_error(connections)
        echoed = any(own.client in c.states for c, own in zip(connections, cursors, strict=True))
        expected = ledger.sent * (clients if echoed else clients - 1)
        figures: Figures = {
            "sent": ledger.sent,
            "sent_per_s": ledger.sent / driven.seconds,
            "expected": expected,
            "delivered": ledger.delivered,
            "superseded": expected - ledger.delivered,
            "lost": missing(),
            **ledger.latencies(),
            "frames": ledger.frames,
            "error": str(error) if error else None,
            "generator_share": share,
            "generator_waited": waited,
            "generator_lag_ms": driven.lag * 1000,
            "right": missing() == 0 and error is None,
        }
        _cpu(figures, cpu, ledger.delivered)
        return figures
    finally:
        await close_all(connections)


# A flood is made beforehand and handed to its socket in so many writes a second, as long as fewer bytes wait
# there: the rest would only fill this process.
_FLOOD_WRITES = 100
_FLOOD_BUFFER = 1 << 20


async def flood(
    bench: Bench, *, clients: int = 20, rate: float = 10.0, limit: float = 500.0, times: float = 50.0
) -> Figures:
    """Let people type in one room, first among themselves, then while another one in it sends far too much.

    ``limit`` is how many messages a second the server allows one connection; the flood sends ``times`` as
    many edits, or what the server takes. What is compared is the latency of what the people type.
    """
    ledger = Ledger()
    bench.progress(0.0, "connecting")
    document = bench.document("flood")
    (room,) = await open_rooms(bench.target, [document], clients, ledger)
    flooder = await connect(bench.target, document, Ledger())
    people = room.connections
    try:
        give_typists([room], clients, bench.rng)
        actions = [keystroke(one, typist) for one, typist in zip(people, room.typists, strict=True)]
        enemy = Typist(bench.rng.randrange(1 << 28, 1 << 32))
        strokes = max(1, round(limit * times / _FLOOD_WRITES))
        poured = [flooder.frames(enemy, strokes) for _ in range(round(bench.seconds * _FLOOD_WRITES))]
        driven: list[Driven] = []

        async def latencies(what: str) -> dict[str, float | None]:
            ledger.buckets = {}
            driven.append(
                await drive(
                    actions, rate, bench.seconds, bench.rng, progress=bench.progress, what=what,
                    stop=lambda: first_error(people) is not None,
                )
            )  # fmt: skip
            await settle(ledger, lambda: lacking([room])[0] == 0)
            return ledger.latencies()

        with collector_resting():
            watch = Stopwatch(bench.server)
            calm = await latencies("typing")
            waiting = deque(poured)
            pouring = asyncio.create_task(_pour(flooder, waiting))
            worse = await latencies("typing beside a flood")
            pouring.cancel()
            await asyncio.wait([pouring])
            share, waited = watch.generator_share(), watch.generator_waited()
            cpu = watch.server_cpu()
        taken = max(one.known.get(enemy.client, 0) for one in people)
        lost, error = lacking([room])[0], first_error(people)
        whole = False
        if error is None and bench.verify:
            bench.progress(1.0, "comparing the document")
            expected = {typist.client: typist.held() for typist in room.typists if typist.clock}
            whole = await holds_exactly(bench.target, document, expected, chained=True, besides=enemy.client)
        return {
            "sent": ledger.sent,
            "lost": lost,
            **{f"calm_{key}": value for key, value in calm.items()},
            **{f"flood_{key}": value for key, value in worse.items()},
            "flood_ratio": _ratio(worse["p99_ms"], calm["p99_ms"]),
            "flood_sent": (len(poured) - len(waiting)) * strokes,
            "flood_taken": taken,
            "flood_ended": None if flooder.error is None else str(flooder.error),
            "server_cpu_s": cpu,
            "error": str(error) if error else None,
            "generator_share": share,
            "generator_waited": waited,
            "generator_lag_ms": max(one.lag for one in driven) * 1000,
            "documents_equal": int(whole),
            "right": lost == 0 and error is None and (whole or not bench.verify),
        }
    finally:
        await close_all([*people, flooder])


async def _pour(connection: Connection, pieces: deque[bytes]) -> None:
    """Write ``pieces`` in order, at their rate or as the server reads them."""
    due = perf_counter()
    while pieces and connection.transport is not None:
        if connection.waiting() < _FLOOD_BUFFER:
            connection.send_frames(pieces.popleft())
        due = max(due + 1 / _FLOOD_WRITES, perf_counter() - 1.0)
        await asyncio.sleep(max(0.0, due - perf_counter()))


async def idle_connections(bench: Bench, *, connections: int = 5_000, room_size: int = 50) -> Figures:
    """Open many connections that then do nothing: how fast they open, and the server's memory for each."""
    ledger = Ledger()
    documents = [bench.document(f"idle{n}") for n in range(-(-connections // room_size))]
    # The first connection makes the server load what it loads once.
    await close_all([await connect(bench.target, bench.document("warm"), ledger)])
    before = bench.server.rss() if bench.server else None
    opened: list[Connection] = []

    def job(number: int) -> Callable[[], Awaitable[None]]:
        async def open_one() -> None:
            opened.append(await connect(bench.target, documents[number // room_size], ledger))
            if number % 100 == 0:
                bench.progress(number / connections, "connecting")

        return open_one

    try:
        watch = Stopwatch(bench.server)
        await gathered([job(number) for number in range(connections)])
        seconds = watch.wall()
        share, waited = watch.generator_share(), watch.generator_waited()
        cpu = watch.server_cpu()
        bench.progress(1.0, "letting the memory settle")
        after = await _settled_rss(bench.server) if bench.server else None
        alive = sum(connection.error is None for connection in opened)
        return {
            "connections": alive,
            "connects_per_s": connections / seconds,
            "server_cpu_s": cpu,
            "cpu_ms_per_1000": None if cpu is None else cpu * 1e6 / connections,
            "memory_kib": None if before is None or after is None else (after - before) / 1024 / connections,
            "generator_share": share,
            "generator_waited": waited,
            "right": alive == connections,
        }
    finally:
        await close_all(opened, within=30.0)


async def _settled_rss(server: ServerProcess) -> int:
    # Read until half a second has changed it by less than 1 %, ten times at most.
    last = server.rss()
    for _ in range(10):
        await asyncio.sleep(0.5)
        now = server.rss()
        if abs(now - last) < last * 0.01:
            return now
        last = now
    return last


# So many characters may be under way to the reader before a filling writer waits.
_FILL_WINDOW = 4_000


async def _fill(
    bench: Bench, document: str, strokes: Iterator[tuple[bytes, int]], total: int, window: int
) -> Connection:
    """Write a document: ``strokes`` gives updates (v1) and how many characters each inserts.

    A second client follows, and the writer never gets more than ``window`` characters ahead of it. That
    client is returned, still connected: a server without a store forgets a document that nobody has open.
    """
    ledger = Ledger()
    writer = await connect(bench.target, document, ledger)
    reader = await connect(bench.target, document, ledger)
    typed = number = 0

    def arrived() -> int:
        return sum(reader.known.values())

    try:
        ahead = 0
        for update, size in strokes:
            writer.send_update(update)
            typed += size
            ahead += size
            number += 1
            if ahead >= window // 2:
                while typed - arrived() > window // 2:
                    await asyncio.sleep(0.001)
                    if (error := first_error([writer, reader])) is not None:
                        raise error
                ahead = 0
                bench.progress(number / total, "writing the document")
        if not await settle(ledger, lambda: arrived() >= typed, patience=10.0, limit=120.0):
            raise ProtocolError(f"only {arrived()} of {typed} characters of {document!r} arrived while it was written")
    except BaseException:
        await close_all([writer, reader])
        raise
    await close_all([writer])
    return reader


async def join_at_once(bench: Bench, document: str, clients: int, within: float = 120.0) -> tuple[list[float], int]:
    """Join with ``clients`` at once; return the seconds until each had its first sync, sorted, and its size.

    The size is what a join carries: the server's step 2 and the state vector in its step 1, in bytes.
    """
    ledger = Ledger()  # shared, so that what all are sent alike is read once
    start = perf_counter()
    opened = await gathered([lambda: connect(bench.target, document, ledger, within=within)] * clients, at_once=clients)
    try:
        sizes = {connection.step2_size + connection.vector_size for connection in opened}
        if len(sizes) != 1:
            raise ProtocolError(f"joiners got first syncs of different sizes: {sorted(sizes)}")
        return sorted(connection.synced_at - start for connection in opened), sizes.pop()
    finally:
        await close_all(opened)


async def _restarted(bench: Bench) -> bool:
    if bench.restart is None:
        return False
    bench.progress(1.0, "restarting the server")
    bench.target, bench.server = await bench.restart()
    return True


async def cold_join(bench: Bench, *, edits: int = 100_000, clients: int = 50) -> Figures:
    """Join a long document after a restart: the first client alone, then (restarted again) many at once.

    Without a way to restart the server the joins are warm, and the figures say so.
    """
    session = EditingSession(edits)
    document = bench.document("cold")

    def strokes() -> Iterator[tuple[bytes, int]]:
        while len(session):
            update = session.edit()
            yield update, int(update[0] != 0)

    keeper = await _fill(bench, document, strokes(), edits, _FILL_WINDOW)
    try:
        if bench.restart is not None:
            await close_all([keeper])
        cold = await _restarted(bench)
        (first,), size = await join_at_once(bench, document, 1)
        await _restarted(bench)
        watch = Stopwatch(bench.server)
        many, _ = await join_at_once(bench, document, clients)
        cpu, share = watch.server_cpu(), watch.generator_share()
        right = await holds_exactly(bench.target, document, session.held(), chained=False)
    finally:
        await close_all([keeper])
    return {
        "cold": cold,
        "bytes": size,
        "first_ms": first * 1000,
        "last_ms": many[-1] * 1000,
        "clients": clients,
        "server_cpu_s": cpu,
        "generator_share": share,
        "right": right,
    }


async def big_join(bench: Bench, *, megabytes: float = 20.0, clients: int = 150) -> Figures:
    """Let many clients join a large document at once, while others type in rooms of their own.

    Joiners and others are processes of their own, and the joiners give way to the others: a core that is
    busy with receiving gigabytes must not look like a server that keeps others waiting.
    """
    paste, writers = 1_000, 20
    strokes_each = int(megabytes * 1e6 / paste / writers)
    typists = [Typist(bench.rng.randrange(1 << 28, 1 << 32), paste) for _ in range(writers)]
    document = bench.document("big")

    def strokes() -> Iterator[tuple[bytes, int]]:
        for _ in range(strokes_each):
            for typist in typists:
                yield typist.stroke(), paste

    keeper = await _fill(bench, document, strokes(), strokes_each * writers, 400 * paste)
    try:
        bench.progress(0.9, "joining")
        async with _beside(bench, {"rooms": 10, "members": 2, "rate": 10}) as typing:
            await typing.go()
            await asyncio.sleep(2.0)
            calm = await typing.stop()
        async with (
            _beside(bench, {"rooms": 10, "members": 2, "rate": 10}) as typing,
            _beside(bench, {"document": document, "clients": clients}) as joining,
        ):
            await typing.go()
            watch = Stopwatch(bench.server)
            await joining.go()
            joined = await joining.result()
            cpu = watch.server_cpu()
            others = await typing.stop()
        expected = {typist.client: typist.held() for typist in typists}
        whole = await holds_exactly(bench.target, document, expected, chained=True)
    finally:
        await close_all([keeper])
    return {
        "bytes": joined["bytes"],
        "clients": clients,
        "first_ms": joined["seconds"][0] * 1000,
        "last_ms": joined["seconds"][-1] * 1000,
        "server_cpu_s": cpu,
        "generator_share": joined["generator_share"],
        "others_p50_ms": others["p50_ms"],
        "others_p99_ms": others["p99_ms"],
        "others_max_ms": others["max_ms"],
        "calm_p99_ms": calm["p99_ms"],
        "right": bool(others["right"]) and bool(calm["right"]) and whole,
    }


class _Beside:
    """A process of collab.bench.probe that is ready."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._input, self._output = process.stdin, process.stdout

    async def go(self) -> None:
        self._input.write(b"go\n")
        await self._input.drain()

    async def stop(self) -> Figures:
        self._input.write(b"stop\n")
        return await self.result()

    async def result(self) -> Figures:
        line = await self._output.readline()
        if not line:
            raise ProtocolError("a part of the load failed in a process of its own; see what it printed")
        figures: Figures = json.loads(line)
        return figures


@asynccontextmanager
async def _beside(bench: Bench, what: Figures) -> AsyncIterator[_Beside]:
    """Run a part of the load in a process of its own, connected when the block begins."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "collab.bench.probe",
        json.dumps({"url": bench.url, "wire": bench.wire, "token": bench.token, **what}),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise ProtocolError("a part of the load could not connect")
        yield _Beside(process)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def many_ids(bench: Bench, *, ids: int = 50_000, edits: int = 1_000_000) -> Figures:
    """Age a document (so many client IDs, so many edits) and compare an edit and a join with a fresh one.

    The fresh document for the edits is empty; the one for the joins has as many bytes, by one client.
    """
    each = max(1, edits // ids)
    typists = [Typist(client) for client in bench.rng.sample(range(1 << 28, 1 << 32), ids)]
    aged = bench.document("aged")

    def strokes() -> Iterator[tuple[bytes, int]]:
        for typist in typists:
            for _ in range(each):
                yield typist.stroke(), 1

    start = perf_counter()
    keepers = [await _fill(bench, aged, strokes(), ids * each, _FILL_WINDOW)]
    filled = perf_counter() - start
    expected = {typist.client: typist.held() for typist in typists}
    right = await holds_exactly(bench.target, aged, expected, chained=True)
    old_joins = await _join_cost(bench, aged)
    paste = 1_000
    writer = Typist(7, paste)
    plain = bench.document("plain")
    pastes = [(writer.stroke(), paste) for _ in range(int(old_joins["bytes"]) // paste)]
    keepers.append(await _fill(bench, plain, iter(pastes), len(pastes), 400 * paste))
    new_joins = await _join_cost(bench, plain)
    rounds = [(await _edit_cost(bench, bench.document("fresh")), await _edit_cost(bench, aged)) for _ in range(3)]
    await close_all(keepers)

    def middle(which: int, key: str) -> float | None:
        values = sorted(pair[which][key] for pair in rounds if pair[which][key] is not None)
        return values[len(values) // 2] if values else None

    return {
        "ids": ids,
        "edits": ids * each,
        "filled_per_s": ids * each / filled,
        "bytes": old_joins["bytes"],
        "join_ms": old_joins["ms"],
        "join_cpu_ms": old_joins["cpu_ms"],
        "fresh_bytes": new_joins["bytes"],
        "fresh_join_ms": new_joins["ms"],
        "fresh_join_cpu_ms": new_joins["cpu_ms"],
        "edit_cpu_us": middle(1, "cpu_us"),
        "fresh_edit_cpu_us": middle(0, "cpu_us"),
        "edit_p50_ms": middle(1, "p50_ms"),
        "fresh_edit_p50_ms": middle(0, "p50_ms"),
        "edit_ratio": _ratio(middle(1, "cpu_us"), middle(0, "cpu_us")),
        "join_ratio": _ratio(old_joins["cpu_ms"], new_joins["cpu_ms"]),
        "right": right,
    }


def _ratio(aged: float | None, fresh: float | None) -> float | None:
    return aged / fresh if aged is not None and fresh else None


async def _calm(bench: Bench, seconds: float = 60.0) -> None:
    """Wait until the server does nothing more (it may compact what was just written), but not for ever."""
    bench.progress(0.8, "waiting until the server is idle")
    end = perf_counter() + seconds
    while bench.server is not None and perf_counter() < end:
        watch = Stopwatch(bench.server)
        await asyncio.sleep(1.0)
        if (watch.server_cpu() or 0.0) < 0.05:
            return


async def _join_cost(bench: Bench, document: str, times: int = 100) -> Figures:
    await _calm(bench)
    await join_at_once(bench, document, 1)
    watch = Stopwatch(bench.server)
    seconds: list[float] = []
    size = 0
    for _ in range(times):
        one, size = await join_at_once(bench, document, 1)
        seconds += one
    cpu = watch.server_cpu()
    seconds.sort()
    return {
        "bytes": size,
        "ms": seconds[len(seconds) // 2] * 1000,
        "cpu_ms": None if cpu is None else cpu * 1000 / times,
    }


async def _edit_cost(bench: Bench, document: str, *, rate: float = 200.0) -> Figures:
    await _calm(bench)
    ledger = Ledger()
    (room,) = await open_rooms(bench.target, [document], 2, ledger)
    try:
        give_typists([room], 1, bench.rng)
        action = keystroke(room.connections[0], room.typists[0])
        await drive([action], rate, 0.2, bench.rng)
        watch = Stopwatch(bench.server)
        before = ledger.sent
        await drive([action], rate, min(bench.seconds, 1.5), bench.rng)
        await settle(ledger, lambda: lacking([room])[0] == 0)
        await asyncio.sleep(_COMMIT_PAUSE)
        cpu = watch.server_cpu()
        return {
            "p50_ms": ledger.latency_ms(0.5),
            "cpu_us": None if cpu is None else cpu * 1e6 / (ledger.sent - before),
        }
    finally:
        await close_all(room.connections)


async def highest_rate(
    bench: Bench, *, rooms: int, members: int, limit_ms: float = 100.0, start: float = 4_000.0, top: float = 400_000.0
) -> Figures:
    """Search the highest rate of updates (all clients type) at which the p99 stays under ``limit_ms``.

    The rate grows by 1.6 until a step fails, then three halvings between; each step has fresh rooms.
    """
    steps: list[Figures] = []
    inner = Bench(
        bench.target, bench.server, min(bench.seconds, 2.0), silent, None, False, name=bench.name, rng=bench.rng
    )

    async def passes(rate: float) -> bool:
        bench.progress(min(0.95, len(steps) / 12), f"trying {rate:,.0f} updates/s")
        step = await _typing(
            inner, rooms=rooms, members=members, writers=members, rate=rate / rooms / members, patience=1.0
        )
        p99 = step["p99_ms"]
        good = (
            bool(step["right"])
            and not step["overloaded"]
            and p99 is not None
            and p99 < limit_ms
            and step["sent_per_s"] > rate * 0.95
        )
        steps.append({**step, "rate": rate, "passed": good})
        return good

    # The first step warms both sides up and is not counted.
    await passes(start / 2)
    steps.clear()
    low, high = 0.0, start
    while high <= top and await passes(high):
        low, high = high, high * 1.6
    for _ in range(3):
        middle = (low + high) / 2
        if middle < 10:
            break
        if await passes(middle):
            low = middle
        else:
            high = middle
    good = [step for step in steps if step["passed"]]
    best = max(good, key=lambda step: float(step["rate"])) if good else None
    failed = [step for step in steps if not step["passed"]]
    first_failed = min(failed, key=lambda step: float(step["rate"])) if failed else None
    figures: Figures = {
        "updates_per_s": best["sent_per_s"] if best else 0.0,
        "deliveries_per_s": best["sent_per_s"] * members if best else 0.0,
        "p50_ms": best["p50_ms"] if best else None,
        "p99_ms": best["p99_ms"] if best else None,
        "generator_share": best["generator_share"] if best else None,
        "generator_waited": max((step["generator_waited"] or 0.0 for step in steps), default=None),
        # Busy in the step that failed: the server may be able to do more than the generator.
        "generator_bound": bool(first_failed and first_failed["generator_share"] > GENERATOR_LIMIT),
        "steps": [
            {
                key: step[key]
                for key in ("rate", "passed", "p99_ms", "generator_share", "generator_waited", "lost", "error")
            }
            for step in steps
        ],
        "right": best is not None,
    }
    _cpu(figures, best["server_cpu_s"] if best else None, best["delivered"] if best else 0)
    return figures


async def highest_rate_one_room(bench: Bench, *, members: int = 20) -> Figures:
    """Search the highest rate in one room."""
    return await highest_rate(bench, rooms=1, members=members)


async def highest_rate_many_rooms(bench: Bench, *, rooms: int = 50, members: int = 4) -> Figures:
    """Search the highest rate over many rooms."""
    return await highest_rate(bench, rooms=rooms, members=members)


Scenario = Callable[..., Awaitable[Figures]]

SCENARIOS: dict[str, Scenario] = {
    "one-writer": one_writer,
    "everybody": everybody_types,
    "many-rooms": many_rooms,
    "presence": presence_storm,
    "flood": flood,
    "idle": idle_connections,
    "cold-join": cold_join,
    "big-join": big_join,
    "many-ids": many_ids,
    "max-one-room": highest_rate_one_room,
    "max-many-rooms": highest_rate_many_rooms,
}


async def run_scenario(name: str, bench: Bench, sizes: dict[str, float] | None = None) -> Figures:
    """Run the scenario ``name``; ``sizes`` sets its parameters by name. Raises ConfigurationError on an unknown one."""
    if name not in SCENARIOS:
        raise ConfigurationError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[name]
    known = scenario.__kwdefaults__ or {}
    chosen: dict[str, float] = {}
    for key, value in (sizes or {}).items():
        if key not in known:
            raise ConfigurationError(f"scenario {name} has no size {key!r}; it has {', '.join(known)}")
        chosen[key] = int(value) if isinstance(known[key], int) else value
    return {"scenario": name, **await scenario(bench, **chosen)}
