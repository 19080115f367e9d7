"""The database: can it be reached and written, is it this release's, does its clock agree, does the bus carry."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from collab.adapters import make_bus, make_store
from collab.cluster.bus import Bus, BusMessage
from collab.cluster.messages import Look, encode_node_message
from collab.cluster.tell import Deaf
from collab.doctor.findings import Finding, failed, ok, skipped, warning
from collab.errors import CollabError, ConfigurationError, SchemaError
from collab.hub.membership import CLOCK_SECONDS
from collab.settings import Settings
from collab.storage.connecting import DRIVER_ERRORS, Connector
from collab.storage.schema import metadata
from collab.storage.urls import DatabaseUrl

OLDEST_POSTGRESQL = 140_000
"""As ``server_version_num``: what is older gets no corrections any more."""

_SECONDS = 15.0
_BUS_SECONDS = 10.0
_CONNECTIONS = 8
"""Of one server, with some room."""

_FACTS = """
SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool AS read_only,
    current_schema() AS schema, current_user AS role,
    current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE') AS may_create,
    current_setting('fsync')::bool AS fsync, current_setting('synchronous_commit') AS synchronous,
    current_setting('max_connections')::int AS connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
    extract(epoch FROM clock_timestamp())::float8 AS at
"""

_DENIED = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relname = ANY($1::text[]) AND c.relkind = 'r' AND NOT (
    has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
    AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
ORDER BY 1
"""


async def look_at_database(
    settings: Settings, url: DatabaseUrl, clock: Callable[[], float] = time.time
) -> AsyncIterator[Finding]:
    """Look at the database, its schema, its clock and the bus; what cannot be reached is not looked into further."""
    there = True
    if url.path is not None:
        finding = _file(url)
        there = url.path.exists()
        yield finding
        if finding.advice:
            return
    else:
        try:
            async with asyncio.timeout(_SECONDS):
                connection = await Connector(url).connect()
                try:
                    before = clock()
                    facts = await connection.fetchrow(_FACTS)
                    denied = [row["relname"] for row in await connection.fetch(_DENIED, [*metadata.tables])]
                finally:
                    connection.terminate()
        except (CollabError, TimeoutError, *DRIVER_ERRORS) as error:
            yield failed(
                "database",
                str(error) or f"no answer within {_SECONDS:.0f} s",
                "look at --database-url, the server, its pg_hba.conf and the network to it",
            )
            return
        yield _postgresql(facts, denied, settings)
        yield _durability(facts)
        yield _clock(facts["at"] - before)
    yield await _schema(url) if there else skipped("schema", "collab serve makes the file")
    yield await _bus(settings, url)


def _file(url: DatabaseUrl) -> Finding:
    path = url.path
    assert path is not None
    if not path.exists():
        place = path.parent if path.parent.exists() else path.absolute().parent.parent
        if not os.access(place, os.W_OK):
            return failed("database", f"{path} cannot be made", f"let the server's user write to {place}")
        return ok("database", f"there is no {path} yet; collab serve makes it")
    for each in (path, path.parent):
        if not os.access(each, os.W_OK):
            return failed("database", f"{each} cannot be written", "let the server's user write to it")
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_SECONDS)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        return failed("database", f"{path}: {error}", "put a backup in its place; is it the right file?")
    return ok("database", f"SQLite {sqlite3.sqlite_version}, {path}, {path.stat().st_size >> 20} MiB")


def _postgresql(facts: Any, denied: list[str], settings: Settings) -> Finding:
    """Say the worst of what was found."""
    if facts["read_only"]:
        return failed("database", "it takes no writes: a standby, or read-only", "name the primary in --database-url")
    if facts["schema"] is None:
        return failed("database", "the search path names no schema that there is", "CREATE SCHEMA, or mend search_path")
    if denied:
        return failed(
            "database",
            f"the role {facts['role']} may not read and write {', '.join(denied[:5])}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {facts['schema']} TO {facts['role']}",
        )
    if facts["number"] < OLDEST_POSTGRESQL:
        return warning("database", f"PostgreSQL {facts['version']} is no longer looked after", "upgrade PostgreSQL")
    if facts["connections"] - facts["used"] < _CONNECTIONS * settings.workers:
        return warning(
            "database",
            f"{facts['used']} of {facts['connections']} connections are in use",
            "raise max_connections of PostgreSQL, or put PgBouncer before it",
        )
    if not facts["may_create"]:
        return ok("database", f"PostgreSQL {facts['version']}; {facts['role']} cannot migrate: another role must")
    return ok(
        "database", f"PostgreSQL {facts['version']}, {facts['used']} of {facts['connections']} connections in use"
    )


def _durability(facts: Any) -> Finding:
    off = [
        name
        for name, on in (("fsync", facts["fsync"]), ("synchronous_commit", facts["synchronous"] != "off"))
        if not on
    ]
    if off:
        return failed(
            "durability",
            f"off: {', '.join(off)}; edits that were called saved are lost when the machine of the database fails",
            f"switch {' and '.join(off)} on",
        )
    return ok("durability", f"a commit is on disk when it is acknowledged (synchronous_commit {facts['synchronous']})")


def _clock(late: float) -> Finding:
    if abs(late) > CLOCK_SECONDS:
        way = "behind" if late > 0 else "ahead of"
        return warning(
            "clock",
            f"this machine is {abs(late):.0f} s {way} the database's",
            "let both follow a time server (chrony, systemd-timesyncd): tokens and dates go by the clock",
        )
    return ok("clock", "this machine and the database agree")


async def _schema(url: DatabaseUrl) -> Finding:
    store = make_store(url)
    try:
        async with asyncio.timeout(_SECONDS):
            await store.open()
            nodes = await store.list_nodes()
    except SchemaError as error:
        return failed("schema", str(error), "run collab migrate with the release that is to serve")
    except (CollabError, TimeoutError) as error:
        return failed("schema", str(error) or "no answer", "look at the database")
    finally:
        await store.close()
    alive = [node.name for node in nodes if node.alive]
    return ok("schema", f"it is this release's; {len(alive)} servers are alive")


class _Ear(Deaf):
    """A listener that waits for one message."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    def receive(self, message: BusMessage) -> None:
        self.heard.set()


async def _bus(settings: Settings, url: DatabaseUrl) -> Finding:
    """Send a message from one end of the bus to another."""
    advice = "look at --redis-url or --listen-url, and the network to it: other nodes' edits arrive a second late"
    try:
        buses = [make_bus(url, settings.listen_url, settings.redis_url) for _ in range(2)]
    except ConfigurationError as error:
        return failed("bus", str(error), "mend the option")
    if url.backend != "postgresql":
        return skipped("bus", "one server needs none")
    ear, topic = _Ear(), f"collab doctor {uuid4()}"
    try:
        async with asyncio.timeout(_BUS_SECONDS):
            for bus in buses:
                await bus.start(ear)
            one, two = buses
            two.subscribe(topic)
            while not ear.heard.is_set():
                if one.trouble is None and one.wanted(topic):
                    one.publish(topic, encode_node_message(Look()))
                await _briefly(ear.heard)
    except (CollabError, TimeoutError, *DRIVER_ERRORS) as error:
        return failed("bus", _trouble(buses) or str(error) or "a message did not arrive", advice)
    finally:
        for bus in buses:
            await bus.close()
    return ok("bus", "a message arrives")


def _trouble(buses: list[Bus]) -> str | None:
    return next((bus.trouble for bus in buses if bus.trouble is not None), None)


async def _briefly(heard: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(0.1):
            await heard.wait()
    except TimeoutError:
        pass
