"""Two servers on one PostgreSQL whose clients write one document all the time: how often it is compacted, and by whom.

    python -m tests.cluster.two_writers --minutes 10 [--bus redis] [--compact-rows 500]

Strategy: real server processes; on each node some clients type and delete in one text. Once a second the head of the
log and its newest snapshot are read from the database, and at the end the counts of both nodes. The figures: rows, the
longest tail that was seen, snapshots that each node has made, compactions of its sandbox, and snapshots that it has
taken from the other one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg

from tests.support.postgres import TEMPLATE, shared_server
from tests.support.server import ServerProcess
from tests.support.valkey import Valkey, running
from tests.support.waiting import happens
from tests.support.wsclient import LiveClient, converge

BUSES: Final = ("postgresql", "redis", "none")
"""Without a bus the nodes look at the database; theirs is one that nobody can reach."""

_TAKEN: Final = "collab_snapshots_of_others_total"

# Clients on each node, and seconds between two edits of one.
_CLIENTS: Final = 2
_PAUSE: Final = 0.03

# Characters of the text from which clients delete as much as they type.
_LENGTH: Final = 20_000


@dataclass(slots=True)
class Figures:
    """What two nodes have done with one document; lists have an entry for each node."""

    rows: int = 0
    snapshots: int = 0
    tails: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    jobs: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.rows} rows, {self.snapshots} snapshots stored, made by each node {self.made}, taken from the other "
            f"{self.taken}, compactions of the sandboxes {self.jobs}, failed {self.failed}, "
            f"tail at most {max(self.tails)} rows, {self.tails[-1]} at the end"
        )


@contextmanager
def way(bus: str) -> Iterator[tuple[str, ...]]:
    """Give the options by which two nodes hear of each other over ``bus``."""
    with ExitStack() as stack:
        if bus == "redis":
            valkey = Valkey()
            stack.enter_context(running(valkey))
            yield ("--redis-url", valkey.url)
        else:
            yield () if bus == "postgresql" else ("--redis-url", "redis://127.0.0.1:1")


async def run(
    directory: Path, database_url: str, options: tuple[str, ...], seconds: float, at_most: float = 0.0
) -> Figures:
    """Let two nodes write one document for ``seconds``; check that all of it is there.

    They go on after that, for ``at_most`` seconds in all, until a node has taken a snapshot of the other.
    """
    figures = Figures()
    over = asyncio.Event()
    async with AsyncExitStack() as stack:
        nodes = [ServerProcess(directory / name, *options, database_url=database_url) for name in ("one", "two")]
        for node in nodes:
            await stack.enter_async_context(node)
        clients = [LiveClient(node.document_url("d")) for node in nodes for _ in range(_CLIENTS)]
        for client in clients:
            await stack.enter_async_context(client)
            await client.until_synced()
        database = await asyncpg.connect(database_url)
        stack.push_async_callback(database.close)
        writing = [_write(client, number, over) for number, client in enumerate(clients)]
        timing = _time(nodes, seconds, at_most, over)
        await asyncio.gather(*writing, _watch(database, figures, over), timing)
        await _settle(clients)
        async with LiveClient(nodes[0].document_url("d")) as late:
            await converge([late], lambda client: str(client.text()), str(clients[0].text()))
        figures.rows, _ = await _head(database)
        for node in nodes:
            counted = await metrics(node)
            figures.made.append(int(counted["collab_compaction_seconds_count"]))
            figures.taken.append(int(counted[_TAKEN]))
            figures.jobs.append(int(counted['collab_sandbox_jobs_total{kind="compaction",outcome="done"}']))
            figures.failed.append(int(counted["collab_compactions_failed_total"]))
        figures.snapshots = await database.fetchval("SELECT count(*) FROM snapshots")
    return figures


async def _settle(clients: list[LiveClient]) -> None:
    """Wait until all clients show the same."""
    await happens(lambda: len({str(client.text()) for client in clients}) == 1, "all show the same")


async def _time(nodes: list[ServerProcess], seconds: float, at_most: float, over: asyncio.Event) -> None:
    """Say when it is over."""
    try:
        await asyncio.sleep(seconds)
        for _ in range(int(at_most - seconds)):
            if any([(await metrics(node))[_TAKEN] for node in nodes]):
                break
            await asyncio.sleep(1.0)
    finally:
        over.set()


async def _write(client: LiveClient, seed: int, over: asyncio.Event) -> None:
    dice = random.Random(seed)
    text = client.text()
    while not over.is_set():
        length = len(text)
        if length > _LENGTH and dice.random() < 0.5:
            at = dice.randrange(length - 10)
            del text[at : at + 5]
        else:
            text.insert(dice.randrange(length + 1), dice.choice("abcdefgh ") * dice.randrange(1, 6))
        await asyncio.sleep(_PAUSE)


async def _head(database: asyncpg.Connection) -> tuple[int, int]:
    row = await database.fetchrow(
        "SELECT head_seq, coalesce((SELECT max(seq) FROM snapshots WHERE document_id = id), 0) AS newest FROM documents"
    )
    return (0, 0) if row is None else (row["head_seq"], row["newest"])


async def _watch(database: asyncpg.Connection, figures: Figures, over: asyncio.Event) -> None:
    while not over.is_set():
        head, newest = await _head(database)
        figures.tails.append(head - newest)
        await asyncio.sleep(1.0)


async def metrics(node: ServerProcess) -> dict[str, float]:
    """Read what a node counts."""
    async with aiohttp.ClientSession() as http, http.get(f"{node.url}/metrics") as answer:
        text = await answer.text()
    return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{[^}]*\})?) ([\d.e+]+)", text, re.MULTILINE)}


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--bus", choices=BUSES, default="postgresql")
    parser.add_argument("--compact-rows", type=int, default=500)
    parser.add_argument("--compact-ratio", type=float, default=0.5)
    chosen = parser.parse_args()
    options = ("--compact-rows", str(chosen.compact_rows), "--compact-ratio", str(chosen.compact_ratio))
    with shared_server() as server, way(chosen.bus) as bus, tempfile.TemporaryDirectory() as directory:
        name = server.create_database(template=TEMPLATE)
        try:
            url = server.url(name)
            print(asyncio.run(run(Path(directory), url, (*options, *bus), chosen.minutes * 60)))
        finally:
            server.drop_database(name)


if __name__ == "__main__":
    main()
