"""The scenarios: what is built, what is measured, and what counts as right.

Strategy: here stand those in which clients come, and what happens beside that; those in which people type or move
their cursors have modules of their own, and SCENARIOS knows them all. Setting up is never measured; CPU is read
over the stretch from the first send to the last delivery and a moment more, so that a journal's commit
is in it. A scenario that lost something, or whose document is not what was typed, says so in
``right`` and is a failure whatever its speed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

from collab.bench.connection import Connection, close_all, connect
from collab.bench.costly import deletes, text_for
from collab.bench.edits import (
    everybody_types,
    highest_rate_many_rooms,
    highest_rate_one_room,
    keystroke,
    load_curve,
    many_rooms,
    one_writer,
)
from collab.bench.ledger import Ledger
from collab.bench.load import (
    Driven,
    Room,
    collector_resting,
    drive,
    first_error,
    gathered,
    give_typists,
    holds_exactly,
    lacking,
    open_rooms,
    settle,
)
from collab.bench.presence import presence_storm
from collab.bench.process import ServerProcess, Stopwatch
from collab.bench.run import COMMIT_PAUSE, Bench, Figures
from collab.bench.silent import distinct_questions, silent_readers
from collab.bench.updates import EditingSession, Typist
from collab.errors import ConfigurationError, ProtocolError

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
    bench.progress(0.0, "connecting")
    document = bench.document("flood")
    (room,) = await open_rooms(bench.target, [document], clients, Ledger())
    flooder = await connect(bench.target, document, Ledger())
    people = room.connections
    try:
        give_typists([room], clients, bench.rng)
        enemy = Typist(bench.rng.randrange(1 << 28, 1 << 32))
        strokes = max(1, round(limit * times / _FLOOD_WRITES))
        poured = [flooder.frames(enemy, strokes) for _ in range(round(bench.seconds * _FLOOD_WRITES))]
        figures, sent = await _disturbed(bench, room, rate, flooder, poured, "flood")
        taken = max(one.known.get(enemy.client, 0) for one in people)
        whole = await _holds(bench, room, enemy.client) if figures["error"] is None else False
        right = figures["lost"] == 0 and figures["error"] is None and (whole or not bench.verify)
        return {
            **figures,
            "flood_sent": sent * strokes,
            "flood_taken": taken,
            "documents_equal": int(whole),
            "right": right,
        }
    finally:
        await close_all([*people, flooder])


# Costly updates that are made beforehand: each needs 14 KB of text that it deletes.
_MOST_COSTLY = 1_000


async def costly(
    bench: Bench, *, clients: int = 20, rate: float = 10.0, others: int = 1, limit: float = 290.0
) -> Figures:
    """Let people type in one room, first among themselves, then beside writers in rooms of their own whose small
    updates cost as much as so many bytes can.

    ``others`` is how many such writers there are. Each sends ``limit`` updates a second, which is all that the limits
    of messages and bytes allow one connection, or what the server takes.
    """
    bench.progress(0.0, "connecting")
    (room,) = await open_rooms(bench.target, [bench.document("costly")], clients, Ledger())
    people = room.connections
    enemies: list[Connection] = []
    try:
        count = min(round(bench.seconds * limit), _MOST_COSTLY)
        client = bench.rng.randrange(1 << 28, 1 << 32)
        text = text_for(client, count)
        for number in range(others):
            document = bench.document(f"costly-{number}")
            author = await connect(bench.target, document, Ledger())  # the bytes of the text are not the enemy's
            author.send_update(text)
            known = author.known
            await settle(author.ledger, partial(known.__contains__, client))
            enemies.append(await connect(bench.target, document, Ledger()))
            await close_all([author])
        give_typists([room], clients, bench.rng)
        pieces = [enemies[0].update_frame(deletes(client, number)) for number in range(count)] if enemies else []
        more = [asyncio.create_task(_pour(enemy, deque(pieces), limit)) for enemy in enemies[1:]]
        try:
            figures, sent = await _disturbed(bench, room, rate, enemies[0], pieces, "costly", limit)
        finally:
            for task in more:
                task.cancel()
            await asyncio.gather(*more, return_exceptions=True)
        whole = await _holds(bench, room) if figures["error"] is None else False
        right = figures["lost"] == 0 and figures["error"] is None and (whole or not bench.verify)
        return {**figures, "costly_sent": sent, "documents_equal": int(whole), "right": right}
    finally:
        await close_all([*people, *enemies])


async def _holds(bench: Bench, room: Room, besides: int | None = None) -> bool:
    """Tell whether the document holds what was typed in a room, and what ``besides`` has put there."""
    if not bench.verify:
        return False
    bench.progress(1.0, "comparing the document")
    expected = {typist.client: typist.held() for typist in room.typists if typist.clock}
    if besides is None:
        return await holds_exactly(bench.target, room.connections[0].document, expected, chained=True)
    return await holds_exactly(bench.target, room.connections[0].document, expected, chained=True, besides=besides)


async def _disturbed(
    bench: Bench,
    room: Room,
    rate: float,
    enemy: Connection,
    pieces: list[bytes],
    name: str,
    writes: float = _FLOOD_WRITES,
) -> tuple[Figures, int]:
    """Let people type twice, the second time while ``enemy`` sends ``pieces``; also return how many it has sent."""
    people = room.connections
    ledger = people[0].ledger
    actions = [keystroke(one, typist) for one, typist in zip(people, room.typists, strict=True)]
    driven: list[Driven] = []

    async def latencies(what: str) -> dict[str, float | None]:
        ledger.buckets = {}
        driven.append(
            await drive(
                actions,
                rate,
                bench.seconds,
                bench.rng,
                progress=bench.progress,
                what=what,
                stop=lambda: first_error(people) is not None,
            )
        )
        await settle(ledger, lambda: lacking([room])[0] == 0)
        return ledger.latencies()

    with collector_resting():
        watch = Stopwatch(bench.server)
        calm = await latencies("typing")
        waiting = deque(pieces)
        pouring = asyncio.create_task(_pour(enemy, waiting, writes))
        worse = await latencies(f"typing beside {name}")
        pouring.cancel()
        await asyncio.wait([pouring])
        share, waited = watch.generator_share(), watch.generator_waited()
        cpu = watch.server_cpu()
    error = first_error(people)
    figures = {
        "sent": ledger.sent,
        "lost": lacking([room])[0],
        **{f"calm_{key}": value for key, value in calm.items()},
        **{f"{name}_{key}": value for key, value in worse.items()},
        f"{name}_ratio": _ratio(worse["p99_ms"], calm["p99_ms"]),
        f"{name}_ended": None if enemy.error is None else str(enemy.error),
        "server_cpu_s": cpu,
        "error": str(error) if error else None,
        "generator_share": share,
        "generator_waited": waited,
        "generator_lag_ms": max(one.lag for one in driven) * 1000,
    }
    return figures, len(pieces) - len(waiting)


async def _pour(connection: Connection, pieces: deque[bytes], writes: float) -> None:
    """Write ``pieces`` in order, at their rate or as the server reads them."""
    due = perf_counter()
    while pieces and connection.transport is not None:
        if connection.waiting() < _FLOOD_BUFFER:
            connection.send_frames(pieces.popleft())
        due = max(due + 1 / writes, perf_counter() - 1.0)
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
        sys.executable,
        "-m",
        "collab.bench.probe",
        json.dumps({"url": bench.url, "wire": bench.wire, "token": bench.token, **what}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
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
        await asyncio.sleep(COMMIT_PAUSE)
        cpu = watch.server_cpu()
        return {
            "p50_ms": ledger.latency_ms(0.5),
            "cpu_us": None if cpu is None else cpu * 1e6 / (ledger.sent - before),
        }
    finally:
        await close_all(room.connections)


Scenario = Callable[..., Awaitable[Figures]]

SCENARIOS: dict[str, Scenario] = {
    "one-writer": one_writer,
    "everybody": everybody_types,
    "many-rooms": many_rooms,
    "presence": presence_storm,
    "flood": flood,
    "costly": costly,
    "silent": silent_readers,
    "asked": distinct_questions,
    "idle": idle_connections,
    "cold-join": cold_join,
    "big-join": big_join,
    "many-ids": many_ids,
    "load": load_curve,
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
