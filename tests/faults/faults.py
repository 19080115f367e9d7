"""The faults, as data: how each begins and ends, and how it is told in the handbook.

Strategy: a fault is done to the real thing: the process of the database is killed, the disk is filled, the sandbox
process is killed. It takes the stage; what it has to undo at its end it keeps on a stack of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil
import psycopg

from tests.faults.stage import ALONE, ONE, SHARED, TWO, Stage
from tests.support.handshake import upgrade
from tests.support.server import collab_command
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient, RawClient, text_update, update

SLOW = "the store is slow: a commit took %.1f s, and people wait as long until their edits are saved"
"""What the log says of a slow commit."""

Trouble = Callable[[Stage], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One kind of trouble.

    Attributes:
        name: as it is shown.
        how: what the test does, as a sentence without its full stop.
        trouble: a context manager that does it at its beginning and undoes it at its end.
        nodes: where it is looked at.
        seconds: how long it lasts, at least. An alert for ten minutes needs eleven (`tests.faults.watch`).
        late: of the alerts and lines that a busy machine causes as well (`tests.faults.told`), those that are of it.
        sometimes: alerts, and lines of the log, that come in some runs only, by the moment at which it begins and ends.
    """

    name: str
    how: str
    trouble: Trouble
    nodes: tuple[str, ...] = (ONE,)
    seconds: float = 14.0
    late: frozenset[str] = frozenset()
    sometimes: frozenset[str] = frozenset()


@contextlib.asynccontextmanager
async def working(*work: asyncio.Future[None] | asyncio.Task[None]) -> AsyncIterator[None]:
    """Let tasks run meanwhile; raise what they have raised."""
    try:
        yield
    finally:
        for task in work:
            task.cancel()
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


@asynccontextmanager
async def slow_database(stage: Stage) -> AsyncIterator[None]:
    await asyncio.to_thread(
        stage.cluster.sql,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(1.1); RETURN NULL; END $$;"
        "CREATE TRIGGER slow AFTER INSERT ON log FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    )
    yield
    await asyncio.to_thread(stage.cluster.sql, "DROP TRIGGER slow ON log; DROP FUNCTION slow")


@asynccontextmanager
async def locked_table(stage: Stage) -> AsyncIterator[None]:
    def lock() -> psycopg.Connection:
        connection = psycopg.connect(stage.cluster.postgres.url(), autocommit=False)
        connection.execute("LOCK TABLE log IN ACCESS EXCLUSIVE MODE")
        return connection

    connection = await asyncio.to_thread(lock)
    try:
        yield
    finally:
        await asyncio.to_thread(connection.close)


@asynccontextmanager
async def database_down(stage: Stage) -> AsyncIterator[None]:
    await asyncio.to_thread(stage.cluster.postgres.kill)
    yield
    await asyncio.to_thread(stage.cluster.postgres.start)


@asynccontextmanager
async def bus_down(stage: Stage) -> AsyncIterator[None]:
    assert stage.cluster.valkey is not None
    await asyncio.to_thread(stage.cluster.valkey.kill)
    yield
    await asyncio.to_thread(stage.cluster.valkey.start)


@asynccontextmanager
async def flood(stage: Stage) -> AsyncIterator[None]:
    async def send() -> None:
        frame = update(text_update(77, "the same again"))
        while True:
            async with RawClient(stage.document_url(ONE, "flooded", "mallory")) as client:
                while client.open:
                    await client.send(*[frame] * 20)
                    await asyncio.sleep(0.1)
                await client.expect_close()
                stage.note("who floods", str(client.close_code))

    async with working(*[asyncio.create_task(send()) for _ in range(3)]):
        yield


STALLED = 12
"""More than the ten from which on it is told, and than one in ten."""


@asynccontextmanager
async def stalled_clients(stage: Stage) -> AsyncIterator[None]:
    name = "stalled"
    url = urlsplit(stage.document_url(ONE, name, "sleeper"))

    async def stall() -> None:
        # The smallest buffer there is, and nobody who reads what is in it.
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        end.setblocking(False)
        try:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(end, (url.hostname, url.port))
            await loop.sock_sendall(end, upgrade(f"{url.path}?{url.query}"))
            await asyncio.Event().wait()
        finally:
            end.close()

    async def write() -> None:
        async with LiveClient(stage.document_url(ONE, name, "writer")) as client:
            await client.until_synced()
            while True:
                client.text().insert(0, random.randbytes(20_000).hex())
                await asyncio.sleep(0.1)

    async with working(*[asyncio.create_task(stall()) for _ in range(STALLED)], asyncio.create_task(write())):
        yield


@asynccontextmanager
async def damaged_row(stage: Stage) -> AsyncIterator[None]:
    name = "damaged"
    async with LiveClient(stage.document_url(ONE, name)) as client:
        await client.until_synced()
        client.text().insert(0, "words")
        await client.barrier()
    # It has left memory when its snapshot is stored.
    of_it = f"document_id = (SELECT id FROM documents WHERE name = '{name}')"

    async def stored() -> bool:
        return await asyncio.to_thread(stage.cluster.sql, f"SELECT count(*) FROM snapshots WHERE {of_it}") != "0"

    await eventually(stored, "the snapshot")
    for table in ("log", "snapshots"):
        await asyncio.to_thread(stage.cluster.sql, f"UPDATE {table} SET data = substr(data, 1, 6) WHERE {of_it}")

    async def come() -> None:
        while True:
            stage.note("who opens it", await stage.open_document(ONE, name))
            await asyncio.sleep(1.0)

    async with working(asyncio.create_task(come())):
        yield
    done = await asyncio.to_thread(
        collab_command,
        *("documents", "repair", name, "--database-url", stage.cluster.postgres.url()),
        *("--aside", str(stage.servers[ONE].data_dir / "aside")),
    )
    assert done.returncode == 0, done.stdout + done.stderr

    async def served() -> bool:
        return await stage.open_document(ONE, name) == "served"

    await eventually(served, "the document")


@asynccontextmanager
async def disk_full(stage: Stage) -> AsyncIterator[None]:
    await asyncio.to_thread(stage.disk.fill)
    # The log beside the database has room of its own, which has to be used up.
    async with LiveClient(stage.document_url(ALONE, "large")) as client:
        await client.until_synced()

        async def fails() -> bool:
            client.text().insert(0, random.randbytes(100_000).hex())
            await asyncio.sleep(0.2)
            return (await stage.readiness(ALONE)).status == 503

        await eventually(fails, "the end of the room")
        yield
    stage.disk.free()


@asynccontextmanager
async def sandbox_killed(stage: Stage) -> AsyncIterator[None]:
    server = psutil.Process(stage.servers[ONE].pid)

    async def kill() -> None:
        while True:
            for child in server.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
            await asyncio.sleep(0.05)

    async def ask() -> None:
        while True:
            status = await stage.call(ONE, "GET", f"content/{SHARED}?root=tokens")
            stage.note("who reads content by HTTP", str(status))
            await asyncio.sleep(1.0)

    async with working(asyncio.create_task(kill()), asyncio.create_task(ask())):
        yield


GUESTS = 36


@asynccontextmanager
async def hot_document(stage: Stage) -> AsyncIterator[None]:
    """More people than the bound come to one document, and come again when they are sent away; all type."""
    name = "hot"

    async def visit(number: int) -> None:
        client = LiveClient(stage.document_url(ONE, name, f"guest {number}"))
        while True:
            async with client:
                await client.until(lambda: client.synced or client.close_code is not None, "an answer")
                while client.open:
                    client.text().insert(0, "x")
                    await asyncio.sleep(0.5 + random.random())
                await client.expect_close()
                stage.note("who comes too late", str(client.close_code))
            await asyncio.sleep(1.0 + random.random())

    async with working(*[asyncio.create_task(visit(number)) for number in range(GUESTS)]):
        yield


@asynccontextmanager
async def clock_jump(stage: Stage) -> AsyncIterator[None]:
    os.kill(stage.servers[TWO].pid, signal.SIGUSR2)
    yield
    os.kill(stage.servers[TWO].pid, signal.SIGUSR2)


BOTH = (ONE, TWO)

_LATE_ELSEWHERE = "CollabEditsOfOtherNodesAreLate"

FAULTS: tuple[Fault, ...] = (
    Fault(
        "slow database",
        "each commit takes 1.1 s longer (a trigger that sleeps)",
        slow_database,
        BOTH,
        late=frozenset({"CollabSavedIsLate", SLOW}),
        # Two nodes write one document, so one may wait for the other.
        sometimes=frozenset(
            {
                "CollabEditsAreNotStored",
                "the store has not answered a commit for %.0f s: edits wait in memory and are not called saved",
                "the store has answered a commit after %.1f s; %d bytes of edits are waiting",
            }
        ),
    ),
    Fault("lock in the database", "another session holds `LOCK TABLE log`", locked_table, BOTH),
    Fault(
        "database down",
        "PostgreSQL is killed, and started again",
        database_down,
        BOTH,
        sometimes=frozenset(
            {
                "rows of another node wait for the store: %s",
                "an instruction cannot be read now, and will be: %s",
                "a question of the node %s is not answered: %s",
            }
        ),
    ),
    Fault("bus down", "Valkey is killed, and started again", bus_down, BOTH),
    Fault("a flood", "three clients send ten times what `max_messages_per_second` allows, and come back", flood),
    Fault(
        "stalled clients",
        f"{STALLED} clients read nothing of a document that changes all the time",
        stalled_clients,
        seconds=24.0,
    ),
    Fault("a damaged row", "the only row and the only snapshot of a document are cut short", damaged_row),
    Fault("disk full", "SQLite: the disk with the data directory is filled to the last byte", disk_full, (ALONE,)),
    Fault("sandbox crash", "each sandbox process is killed as soon as it starts", sandbox_killed),
    Fault(
        "a hot document", "more people than `max_connections_per_document` open one document, and type", hot_document
    ),
    Fault(
        "a clock jumps",
        "the time of day of one node is an hour ahead",
        clock_jump,
        (TWO,),
        late=frozenset({_LATE_ELSEWHERE}),
    ),
)
