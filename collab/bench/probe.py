"""A part of a scenario's load in a process of its own: people who type, or a crowd that joins.

Strategy: driven over its standard streams. It prints ``ready``, acts from ``go`` on, prints its figures as
one line of JSON and ends. Typing goes on until ``stop``. Run by the big-join scenario as
``python -m collab.bench.probe '{"url": ..., "wire": ..., "token": ..., ...}'`` with either ``rooms``,
``members`` and ``rate``, or ``document`` and ``clients``.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from typing import Any

import uvloop

from collab.bench.connection import Target, close_all
from collab.bench.edits import keystroke
from collab.bench.ledger import Ledger
from collab.bench.load import collector_resting, drive, first_error, give_typists, lacking, open_rooms, settle
from collab.bench.process import Stopwatch
from collab.bench.run import Bench
from collab.bench.scenarios import join_at_once
from collab.bench.wire import WireName, choose_wire

# The crowd's processes yield to those whose latency is measured, where both have one core.
_GIVE_WAY = 15


async def probe(what: dict[str, Any]) -> None:
    """Do what ``what`` says, told by standard input."""
    target = Target(what["url"], choose_wire(WireName(what["wire"]), what["token"]))
    bench = Bench(target)
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await (_join if "document" in what else _type)(bench, what, commands)


async def _join(bench: Bench, what: dict[str, Any], commands: asyncio.StreamReader) -> None:
    os.nice(_GIVE_WAY)
    print("ready", flush=True)
    if await commands.readline() != b"go\n":
        return
    with collector_resting():
        watch = Stopwatch(None)
        seconds, size = await join_at_once(bench, what["document"], what["clients"])
        share = watch.generator_share()
    print(json.dumps({"seconds": seconds, "bytes": size, "generator_share": share}), flush=True)


async def _type(bench: Bench, what: dict[str, Any], commands: asyncio.StreamReader) -> None:
    target = bench.target
    ledger = Ledger()
    rng = random.Random(11)
    documents = [bench.document(f"probe{n}") for n in range(what["rooms"])]
    rooms = await open_rooms(target, documents, what["members"], ledger)
    connections = [connection for room in rooms for connection in room.connections]
    give_typists(rooms, what["members"], rng)
    actions = [keystroke(connection, typist) for connection in connections for typist in connection.typists]
    print("ready", flush=True)
    if await commands.readline() != b"go\n":
        return
    stopping = asyncio.ensure_future(commands.readline())
    with collector_resting():
        await drive(actions, what["rate"], 600.0, rng, stop=stopping.done)
        await settle(ledger, lambda: lacking(rooms)[0] == 0)
    lost = lacking(rooms)[0]
    figures = {**ledger.latencies(), "sent": ledger.sent, "delivered": ledger.delivered, "lost": lost}
    print(json.dumps({**figures, "right": lost == 0 and first_error(connections) is None}), flush=True)
    await close_all(connections)


if __name__ == "__main__":
    uvloop.run(probe(json.loads(sys.argv[1])))
