"""A small load in a process of its own, beside a scenario: how do others fare meanwhile?

Strategy: driven over its standard streams. It prints ``ready`` when its clients are in, starts to type at
``go``, stops at ``stop``, prints its figures as one line of JSON and ends. Run by the big-join scenario as
``python -m collab.bench.probe '{"url": ..., "wire": ..., "rooms": ..., "members": ..., "rate": ...}'``.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import Any

import uvloop

from collab.bench.connection import Target, close_all
from collab.bench.ledger import Ledger
from collab.bench.load import collector_resting, drive, first_error, give_typists, lacking, open_rooms, settle
from collab.bench.scenarios import Bench, keystroke
from collab.bench.wire import WireName, choose_wire


async def probe(what: dict[str, Any]) -> None:
    """Type in ``what["rooms"]`` rooms from ``go`` to ``stop`` on standard input."""
    target = Target(what["url"], choose_wire(WireName(what["wire"]), what["token"]))
    bench = Bench(target)
    ledger = Ledger()
    rng = random.Random(11)
    documents = [bench.document(f"probe{n}") for n in range(what["rooms"])]
    rooms = await open_rooms(target, documents, what["members"], ledger)
    connections = [connection for room in rooms for connection in room.connections]
    give_typists(rooms, what["members"], rng)
    actions = [keystroke(connection, typist) for connection in connections for typist in connection.typists]
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
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
