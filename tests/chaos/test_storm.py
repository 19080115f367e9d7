"""A database that comes back to three nodes with 200 open documents: what it is asked, and how often."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster, Node
from tests.crash.test_outage import until_degraded, until_well
from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.wsclient import EMPTY_UPDATE, STEP1, RawClient, step1, text_update

pytestmark = [pytest.mark.node, pytest.mark.postgres, pytest.mark.server, pytest.mark.valkey]

DOCUMENTS = 200

NEW = 60
"""Further ones that are asked for on each node while the database is away."""

# Connections of one node: the store's pool, that of the append, and that of the bus.
CONNECTIONS = 7

_LOGGED = ("-c", "log_connections=on", "-c", "log_statement=all")
_MARK = re.compile(rb"<\d\.\d>")
_STATEMENT = re.compile(r"LOG:  (?:execute [^:]*|statement): (.*)")


class Log:
    """What PostgreSQL says of itself from now on."""

    def __init__(self, cluster: Cluster) -> None:
        self._path = cluster.postgres.directory / "log"
        self._begin = self._path.stat().st_size

    def _text(self) -> str:
        with self._path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")

    def statements(self) -> list[str]:
        return _STATEMENT.findall(self._text())

    def connections(self) -> int:
        return self._text().count("connection authorized")


class Crowd(RawHocuspocus):
    """One client of a node that has all documents open over one socket, and keeps count of what comes.

    Attributes:
        number: its own, from 1.
        opened: how many documents were opened.
        saved: how many updates it was told to be saved.
        seen: the documents in which each text was seen.
    """

    def __init__(self, node: Node, number: int) -> None:
        super().__init__(node.server.hocuspocus_url)
        self.opened = self.saved = 0
        self.seen: Counter[bytes] = Counter()
        self.number = number
        self._answers: set[asyncio.Task[None]] = set()

    def received(self, data: bytes) -> None:
        frame = hocuspocus.parse(data)
        self.opened += frame.type == hocuspocus.AUTH
        self.saved += frame.type == hocuspocus.SYNC_STATUS
        if frame.type == hocuspocus.SYNC:
            kind, payload = frame.fields
            assert isinstance(payload, bytes)
            self.seen.update(_MARK.findall(payload))
            if kind == STEP1:
                answer = asyncio.create_task(self.send(hocuspocus.step2(frame.address, EMPTY_UPDATE)))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)

    async def open(self) -> None:
        await self.connect()
        for number in range(DOCUMENTS):
            await self.ask(f"d{number}")
        await self.until(lambda: self.opened >= DOCUMENTS, "all are open")

    async def ask(self, name: str) -> None:
        """Ask for a document."""
        await self.send(hocuspocus.auth(name), hocuspocus.step1(name))

    async def edit(self, turn: int) -> None:
        """Write a mark of this turn into each document."""
        for number in range(DOCUMENTS):
            data = text_update(100 * turn + self.number, f"<{turn}.{self.number}>")
            await self.send(hocuspocus.update(f"d{number}", data))


async def see(crowds: list[Crowd], turn: int) -> None:
    """Wait until every client has seen the marks of all in all documents, and was told that its own are saved."""
    for crowd in crowds:
        await crowd.until(
            lambda crowd=crowd: (  # type: ignore[misc]
                all(crowd.seen[b"<%d.%d>" % (turn, number)] >= DOCUMENTS for number in range(1, len(crowds) + 1))
                and crowd.saved >= (turn + 1) * DOCUMENTS
            ),
            f"all marks of turn {turn}",
            seconds=90.0,
        )


async def take_the_bus(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.bus.closed = True
        node.bus.cut()


@pytest.mark.timeout(300)
async def test_bus_and_database_go_and_come_back_and_nobody_is_run_over(tmp_path: Path) -> None:
    async with Cluster(tmp_path, "redis", postgres=_LOGGED) as cluster:
        crowds = [Crowd(node, number) for number, node in enumerate(cluster.nodes, 1)]
        for crowd in crowds:
            await crowd.open()
        # Somebody else in a document on each node, who is to see edits whatever happens.
        others = [await RawClient(node.server.document_url("d0")).connect() for node in cluster.nodes]
        for other in others:
            await other.send(step1())
        await take_the_bus(cluster)
        for node in cluster.nodes:
            await until_degraded(node.server, "bus")
            await asyncio.to_thread(
                node.server.wait_for_log, lambda line: "the bus on" in line and " is down: " in line
            )
        for crowd in crowds:
            await crowd.edit(1)
        await see(crowds, 1)

        # Now neither is there. Each node says so, and its clients edit on; what they ask for is not there to be had.
        connections = [node.store.connections for node in cluster.nodes]
        await asyncio.to_thread(cluster.postgres.kill)
        began = time.monotonic()
        for crowd in crowds:
            await crowd.edit(2)
        for crowd, other in zip(crowds, others, strict=True):
            own = b"<2.%d>" % crowd.number
            await other.until(lambda other=other, own=own: any(own in data for data in other.frames), "an edit")  # type: ignore[misc]
        for number in range(NEW):
            for crowd in crowds:
                await crowd.ask(f"new {crowd.number}.{number}")
        for node in cluster.nodes:
            for part in ("bus", "store", "journal"):
                await until_degraded(node.server, part)
        await asyncio.sleep(max(0.0, began + 4.0 - time.monotonic()))
        away = time.monotonic() - began
        tries = [node.store.connections - before for node, before in zip(cluster.nodes, connections, strict=True)]
        assert all(crowd.saved <= 2 * DOCUMENTS for crowd in crowds), "nothing is called saved"
        # Of the pool about one a second, and the journal's own, after the connections that there were have failed.
        print(f"{tries} connections were tried in {away:.1f} s")
        assert all(count <= 2 * CONNECTIONS + 4 * away for count in tries), tries

        log = Log(cluster)
        await asyncio.to_thread(cluster.postgres.start)
        began = time.monotonic()
        await see(crowds, 2)
        print(f"everybody has all after {time.monotonic() - began:.1f} s")
        for crowd in crowds:
            await crowd.until(lambda crowd=crowd: crowd.opened >= DOCUMENTS + NEW, "what was asked for")  # type: ignore[misc]
        for node in cluster.nodes:
            node.bus.closed = False
        for node in cluster.nodes:
            await until_well(node.server)
            await asyncio.to_thread(
                node.server.wait_for_log, lambda line: "the bus on" in line and line.endswith(" is up")
            )
        statements, seconds = len(log.statements()), time.monotonic() - began
        print(f"{log.connections()} connections and {statements} statements in {seconds:.1f} s, until all was well")
        assert log.connections() <= len(cluster.nodes) * 2 * CONNECTIONS
        # Some for each document on each node, and none again and again; while the bus is away, four more to read its
        # rows about once a second.
        bound = (12 + 4 * seconds) * len(cluster.nodes) * (DOCUMENTS + NEW)
        assert statements <= bound, Counter(log.statements()).most_common(20)
        for client in (*crowds, *others):
            await client.close()
