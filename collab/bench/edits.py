"""Scenarios in which people type: at a fixed rate, at rising ones, and at the highest that a server can do.

Strategy: setting up is never measured; CPU is read over the stretch from the first send to the last delivery and a
moment more, so that a journal's commit is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from collab.bench.connection import Connection, close_all
from collab.bench.ledger import Ledger
from collab.bench.load import (
    Room,
    collector_resting,
    drive,
    first_error,
    give_typists,
    lacking,
    open_rooms,
    rooms_hold_exactly,
    settle,
    silent,
)
from collab.bench.process import Stopwatch
from collab.bench.run import COMMIT_PAUSE, GENERATOR_LIMIT, Bench, Figures, note_cpu
from collab.bench.updates import Typist

# What one client types within 10 ms it hands to its socket in one write (a message and a frame each, as
# ever). Below 150 updates a second and client that is a write for each; above, where only the search for the
# highest rate goes, the generator would otherwise spend its core on system calls.
_ONE_WRITE = 0.01


async def typing_in_rooms(
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
        share, waited, watched = watch.generator_share(), watch.generator_waited(), watch.wall()
        await asyncio.sleep(COMMIT_PAUSE)
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
    note_cpu(figures, cpu, ledger.delivered, watched)
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
    return await typing_in_rooms(bench, rooms=1, members=readers + 1, writers=1, rate=rate)


async def everybody_types(bench: Bench, *, clients: int = 100, rate: float = 5.0) -> Figures:
    """All clients of one room type."""
    return await typing_in_rooms(bench, rooms=1, members=clients, writers=clients, rate=rate)


async def many_rooms(bench: Bench, *, rooms: int = 500, members: int = 2, rate: float = 1.0) -> Figures:
    """All clients of many small rooms type."""
    return await typing_in_rooms(bench, rooms=rooms, members=members, writers=members, rate=rate)


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
        step = await typing_in_rooms(
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
    note_cpu(figures, best["server_cpu_s"] if best else None, best["delivered"] if best else 0)
    return figures


async def highest_rate_one_room(bench: Bench, *, members: int = 20) -> Figures:
    """Search the highest rate in one room."""
    return await highest_rate(bench, rooms=1, members=members)


async def highest_rate_many_rooms(bench: Bench, *, rooms: int = 50, members: int = 4) -> Figures:
    """Search the highest rate over many rooms."""
    return await highest_rate(bench, rooms=rooms, members=members)


# A rate at which the p99 passes this ends the curve, in milliseconds: by then only the queue grows.
_SATURATED_MS = 1_000.0
# What a step of the curve has of the figures.
_STEP = ("sent_per_s", "core_share", "p50_ms", "p99_ms", "generator_share", "generator_waited", "error")


async def load_curve(bench: Bench, *, clients: int = 100, first: float = 0.5, last: float = 1_024.0) -> Figures:
    """Let all clients of one room type, at rates that double until the server is saturated.

    ``first`` and ``last`` are edits a second of each client. Each rate has a room of its own. ``steps`` has for each
    the edits a second of all, the part of a core that the server used, and latencies.
    """
    steps: list[Figures] = []
    inner = Bench(
        bench.target, bench.server, min(bench.seconds, 2.0), silent, None, False, name=bench.name, rng=bench.rng
    )
    rate, saturated, right = first, False, True
    while rate <= last and not saturated:
        bench.progress(min(0.95, len(steps) / 12), f"{rate * clients:,.0f} updates/s")
        step = await typing_in_rooms(inner, rooms=1, members=clients, writers=clients, rate=rate)
        p99 = step["p99_ms"]
        saturated = (
            bool(step["overloaded"]) or p99 is None or p99 > _SATURATED_MS or step["sent_per_s"] < 0.95 * rate * clients
        )
        right = right and (saturated or bool(step["right"]))
        steps.append(
            {
                **{key: step[key] for key in _STEP},
                "saturated": saturated,
            }
        )
        rate *= 2
    return {
        "steps": steps,
        "generator_share": max((step["generator_share"] for step in steps if not step["saturated"]), default=None),
        "generator_waited": max((step["generator_waited"] or 0.0 for step in steps), default=None),
        "right": right,
    }
