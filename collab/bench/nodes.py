"""Scenarios on several nodes: what it takes to reach a client on another one, and what it costs.

Strategy: the clients of one document sit on different nodes. Arrivals on the author's own node and on another one have
books of their own, over the same send times, so what the way between nodes adds is the difference of the two. They work
on any deployment whose nodes can be named one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import perf_counter

from collab.bench.connection import Connection, Target, close_all, connect
from collab.bench.edits import keystroke
from collab.bench.ledger import Ledger
from collab.bench.load import (
    Room,
    collector_resting,
    drive,
    first_error,
    gathered,
    give_typists,
    lacking,
    rooms_hold_exactly,
    settle,
)
from collab.bench.presence import Cursor
from collab.bench.process import ServerProcess, Stopwatch, Usage
from collab.bench.run import COMMIT_PAUSE, Bench, Figures

# Seconds without an arrival after which what is missing is lost: a bus may need two to notice a loss.
_PATIENCE = 5.0


class Processes(ServerProcess):
    """Several processes of servers as one, with their children."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._servers = [ServerProcess(pid) for pid in pids]
        self.pid = pids[0]

    def usage(self) -> Usage:
        """Return the CPU time that all have used so far."""
        exact: dict[tuple[int, int], float] = {}
        ticks: dict[int, float] = {}
        for server in self._servers:
            usage = server.usage()
            exact |= usage.exact
            ticks |= usage.ticks
        return Usage(exact, ticks)

    def rss(self) -> int:
        """Return the resident memory of all in bytes."""
        return sum(server.rss() for server in self._servers)


async def edits_across(
    bench: Bench, nodes: Sequence[Target], *, rooms: int = 10, rate: float = 5.0, authors_on_first: bool = False
) -> Figures:
    """Let one client of each room type; one reads on its node, and one on the next node.

    Latencies with ``near_`` are of the first, with ``far_`` of the second; ``beyond_`` is the difference. Rooms have
    their authors on the nodes in turn, or all ``authors_on_first``.
    """
    near, far = Ledger(), Ledger()
    found = [await _open_across(bench, nodes, 0 if authors_on_first else at, near, far) for at in range(rooms)]
    connections = [one for room in found for one in room.connections]
    try:
        give_typists(found, 1, bench.rng)
        for room in found:
            (typist,) = room.typists
            far.sent_at[typist.client] = typist.sent_at
        await _begin(found, near, far)
        with collector_resting():
            actions = [keystroke(room.connections[0], room.typists[0]) for room in found]
            await drive(actions, rate, bench.seconds, bench.rng, progress=bench.progress, what="typing across nodes")
            await settle(far, lambda: lacking(found)[0] == 0, patience=_PATIENCE)
        lost = lacking(found)[0] + near.gaps + far.gaps
        error = first_error(connections)
        # Seen by somebody who comes to either node.
        whole = [await rooms_hold_exactly(nodes[at % len(nodes)], [room]) for at, room in enumerate(found)]
        right = lost == 0 and error is None and sum(whole) == rooms
        return {**_across(near, far), "lost": lost, "error": str(error) if error else None, "right": right}
    finally:
        await close_all(connections)


async def presence_across(
    bench: Bench, nodes: Sequence[Target], *, rooms: int = 10, rate: float = 5.0, authors_on_first: bool = False
) -> Figures:
    """Let one client of each room move its cursor; as ``edits_across``."""
    near, far = Ledger(), Ledger()
    found = [await _open_across(bench, nodes, 0 if authors_on_first else at, near, far) for at in range(rooms)]
    connections = [one for room in found for one in room.connections]
    try:
        cursors = [
            Cursor(room.connections[0], bench.rng.randrange(1 << 28, 1 << 32), number)
            for number, room in enumerate(found)
        ]
        for cursor in cursors:
            cursor.connection.own.add(cursor.client)
            far.sent_at[cursor.client] = near.sent_at[cursor.client]
        with collector_resting():
            actions = [cursor.move for cursor in cursors]
            await drive(actions, rate, bench.seconds, bench.rng, progress=bench.progress, what="moving across nodes")

            def missing() -> int:
                return sum(
                    reader.states.get(cursor.client, -1) < cursor.clock
                    for cursor, room in zip(cursors, found, strict=True)
                    for reader in room.connections[1:]
                )

            await settle(far, lambda: missing() == 0, patience=_PATIENCE)
        error = first_error(connections)
        return {
            **_across(near, far),
            "lost": missing(),
            "error": str(error) if error else None,
            "right": missing() == 0 and error is None,
        }
    finally:
        await close_all(connections)


async def rooms_on_nodes(
    bench: Bench,
    nodes: Sequence[Target],
    *,
    rooms: int = 30,
    members: int = 3,
    writers: int | None = None,
    rate: float = 2.0,
    spread: bool = True,
    verify: bool = True,
) -> Figures:
    """Let ``writers`` of the ``members`` of each room type (all of them by default).

    With ``spread`` the members of a room are on the nodes in turn, else all are on one node, and the rooms in turn.
    """
    ledger = Ledger()
    many = len(nodes)

    async def open_one(number: int, document: str) -> Room:
        targets = [nodes[(number + (member if spread else 0)) % many] for member in range(members)]
        return Room(document, [await connect(target, document, ledger) for target in targets])

    names = [bench.document(f"nodes-{number}") for number in range(rooms)]
    found = await gathered([lambda n=n, name=name: open_one(n, name) for n, name in enumerate(names)])  # type: ignore[misc]
    connections = [one for room in found for one in room.connections]
    try:
        give_typists(found, members if writers is None else writers, bench.rng)
        actions = [keystroke(one, typist) for one in connections for typist in one.typists]
        await _begin(found, ledger)
        acks = ledger.acks
        with collector_resting():
            watch = Stopwatch(bench.server)
            driven = await drive(actions, rate, bench.seconds, bench.rng, progress=bench.progress, what="typing")
            saved = (ledger.acks - acks) / driven.seconds
            await settle(ledger, lambda: lacking(found)[0] == 0, patience=_PATIENCE)
            share = watch.generator_share()
            await asyncio.sleep(COMMIT_PAUSE)
            cpu = watch.server_cpu()
        others, own = lacking(found)
        error = first_error(connections)
        whole = await rooms_hold_exactly(nodes[0], found) if verify and error is None else rooms
        return {
            "sent": ledger.sent,
            "sent_per_s": ledger.sent / driven.seconds,
            "saved_per_s": saved,
            "server_cpu_s": cpu,
            "cpu_us_per_edit": None if cpu is None else cpu * 1e6 / ledger.sent,
            "generator_share": share,
            **ledger.latencies(),
            "lost": others + ledger.gaps,
            "error": str(error) if error else None,
            "right": others == 0 and ledger.gaps == 0 and error is None and whole == rooms,
        }
    finally:
        await close_all(connections)


async def acknowledged(bench: Bench, node: Target, *, edits: int = 50) -> Figures:
    """Let one client make edits, each after the last was acknowledged; the protocol must have acknowledgements."""
    ledger = Ledger()
    (room,) = [Room(name, [await connect(node, name, ledger)]) for name in [bench.document("acknowledged")]]
    try:
        give_typists([room], 1, bench.rng)
        await asyncio.sleep(0.5)  # what the server says of the opening has come
        took = []
        for _ in range(edits):
            before, began = ledger.acks, perf_counter()
            room.connections[0].type(room.typists[0], began)
            async with asyncio.timeout(30.0):
                while ledger.acks == before:  # noqa: ASYNC110 -- the books have no event for it
                    await asyncio.sleep(0.0005)
            took.append((perf_counter() - began) * 1000)
        took.sort()
        return {"p50_ms": took[len(took) // 2], "p99_ms": took[int(len(took) * 0.99)], "right": True}
    finally:
        await close_all(room.connections)


async def _open_across(bench: Bench, nodes: Sequence[Target], number: int, near: Ledger, far: Ledger) -> Room:
    """Open a document on a node twice, and once on the next one."""
    name = bench.document("across")
    here, there = nodes[number % len(nodes)], nodes[(number + 1) % len(nodes)]
    connections: list[Connection] = [await connect(here, name, near) for _ in range(2)]
    return Room(name, [*connections, await connect(there, name, far)])


async def _begin(rooms: Sequence[Room], *ledgers: Ledger) -> None:
    """Let each document be created by its first edit, and all nodes know it; that is not measured."""
    for room in rooms:
        keystroke(room.connections[0], room.typists[0])(perf_counter())
    await settle(ledgers[-1], lambda: lacking(rooms)[0] == 0, patience=_PATIENCE)
    await asyncio.sleep(1.0)
    for ledger in ledgers:
        ledger.buckets.clear()
        ledger.sent = 0


def _across(near: Ledger, far: Ledger) -> Figures:
    figures: Figures = {"sent": near.sent}
    for share, name in ((0.5, "p50_ms"), (0.99, "p99_ms")):
        here, there = near.latency_ms(share), far.latency_ms(share)
        figures[f"near_{name}"], figures[f"far_{name}"] = here, there
        figures[f"beyond_{name}"] = None if here is None or there is None else there - here
    return figures
