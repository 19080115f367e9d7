"""What one PostgreSQL does on this machine, for the capacity model of ``docs/scaling.md``.

    python -m tests.support.capacity [--seconds 5] [--database-url postgresql://...]

Strategy: the store and the bus of the server say what they do to the database; here it is done as fast as it goes, on
a throw-away PostgreSQL that flushes its log to the disk, or on the reader's own. Everything is counted at its end:
rows in the table, notifications at each listener.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import asyncpg

from collab.adapters import make_store
from collab.storage import migrate
from collab.storage.connecting import Connector
from collab.storage.records import Append, NewRow
from collab.storage.urls import parse_database_url
from tests.support.postgres import PostgresServer
from tests.support.waiting import happens

UPDATE = bytes(60)
"""As long as the update of a few keystrokes."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured: ``done`` in ``seconds``."""

    what: str
    done: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.done / self.seconds

    def __str__(self) -> str:
        return f"{self.what:62} {self.rate:10,.0f} a second"


async def appends(url: str, writers: int, documents: int, seconds: float) -> tuple[Figure, Figure]:
    """Let so many nodes append one row to each of so many documents of their own in each commit, as fast as it goes.

    Returns the commits and the rows.
    """
    stores = [make_store(parse_database_url(url)) for _ in range(writers)]
    commits = 0

    async def write(number: int, until: float) -> None:
        nonlocal commits
        store = stores[number]
        names = [f"capacity {writers} {documents} {number} {n}" for n in range(documents)]
        while time.monotonic() < until:
            await store.append([Append(name, None, (NewRow(UPDATE, 1.0, None),)) for name in names])
            commits += 1

    for store in stores:
        await store.open()
    try:
        begun = time.monotonic()
        await asyncio.gather(*(write(number, begun + seconds) for number in range(writers)))
        taken = time.monotonic() - begun
    finally:
        for store in stores:
            await store.close()
    nodes = f"{writers} node{'s' if writers > 1 else ''}, {documents} documents a commit"
    return Figure(f"commits, {nodes}", commits, taken), Figure(f"rows, {nodes}", commits * documents, taken)


async def notifications(url: str, senders: int, listeners: int, size: int, seconds: float) -> Figure:
    """Notify as nodes do, each in one transaction after the other, and wait until every listener has heard all."""
    connector = Connector(parse_database_url(url))
    heard = [0] * listeners
    ears, mouths = [], []
    payload = "x" * size

    def hear(number: int) -> asyncpg.connection.Listener:
        def heard_one(*_: object) -> None:
            heard[number] += 1

        return heard_one

    async def send(connection: asyncpg.Connection, until: float) -> int:
        sent = 0
        await connection.execute("SET synchronous_commit = off")
        while time.monotonic() < until:
            await connection.execute("SELECT pg_notify('capacity', $1)", payload)
            sent += 1
        return sent

    try:
        for number in range(listeners):
            ears.append(await connector.connect())
            await ears[-1].add_listener("capacity", hear(number))
        for _ in range(senders):
            mouths.append(await connector.connect())
        begun = time.monotonic()
        sent = sum(await asyncio.gather(*(send(each, begun + seconds) for each in mouths)))
        await happens(lambda: min(heard) == sent, "every listener has heard all")
        taken = time.monotonic() - begun
    finally:
        for connection in (*ears, *mouths):
            connection.terminate()
    assert heard == [sent] * listeners
    return Figure(f"notifications of {size:,} bytes, {senders} senders, {listeners} listeners", sent, taken)


async def measure(url: str, seconds: float) -> list[Figure]:
    """Measure everything; each for so many seconds."""
    figures: list[Figure] = []
    for writers, documents in ((1, 1), (3, 1), (3, 100), (3, 500)):
        figures += await appends(url, writers, documents, seconds)
    for senders, listeners, size in ((2, 2, 500), (2, 2, 7_900), (2, 20, 500)):
        figures.append(await notifications(url, senders, listeners, size, seconds))
    return figures


@contextlib.contextmanager
def throw_away() -> Iterator[str]:
    """Give the URL of a database on a PostgreSQL that flushes its log."""
    server = PostgresServer(options=["-c", "fsync=on", "-c", "full_page_writes=on"])
    try:
        server.start()
        url = server.url(server.create_database())
        migrate.upgrade(parse_database_url(url))
        yield url
    finally:
        server.close()
        shutil.rmtree(server.directory, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure (5)")
    parser.add_argument("--database-url", help="an empty database of your own, which keeps the rows (a throw-away one)")
    given = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        url = given.database_url or stack.enter_context(throw_away())
        if given.database_url:
            migrate.upgrade(parse_database_url(url))
        for figure in asyncio.run(measure(url, given.seconds)):
            print(figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
