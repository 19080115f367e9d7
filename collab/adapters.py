"""The choice of adapters: what stands behind a port, by the settings.

Strategy: a part of the composition root (:mod:`collab.app`) in a module of its own, because the commands that
work on the database need the store without the server: importing that one costs them another 0.4 s. Nothing else
imports an adapter; ``make lint`` checks that.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from collab.cluster.bus import Bus
from collab.cluster.local import LocalBus
from collab.cluster.network import BusDown
from collab.cluster.postgresql import PostgresBus
from collab.errors import ConfigurationError, StoreUnavailable
from collab.sandbox.port import Sandbox
from collab.storage.connecting import DRIVER_ERRORS, Connector, is_pooled
from collab.storage.people import People
from collab.storage.postgresql import PostgresBackend
from collab.storage.sql import SqlStore
from collab.storage.sql_maintenance import SqlMaintenance
from collab.storage.sqlite import SqliteBackend
from collab.storage.store import Store
from collab.storage.urls import DatabaseUrl, parse_database_url

# A copy of a database, restored elsewhere, has another one; a standby that was promoted has the same.
_IDENTITY: Final = """
SELECT to_hex(system_identifier) || '-' || pg_database.oid || '-' || pg_namespace.oid
FROM pg_control_system(), pg_database, pg_namespace
WHERE datname = current_database() AND nspname = current_schema()
"""


def make_store(url: DatabaseUrl) -> Store:
    """Make the store for a database URL; call its ``open`` next. It expects the schema of this release."""
    return SqlStore(SqliteBackend(url) if url.backend == "sqlite" else PostgresBackend(url))


def make_maintenance(url: DatabaseUrl) -> People:
    """Make the store for a database URL as one that shows everything that it keeps."""
    return SqlMaintenance(SqliteBackend(url) if url.backend == "sqlite" else PostgresBackend(url))


def make_bus(url: DatabaseUrl | None, listen_url: str | None = None, redis_url: str | None = None) -> Bus:
    """Make the bus of a node: over Redis, on the database where that is a PostgreSQL, else that of one process.

    ``url`` None is a store of the caller's own. Raises ``ConfigurationError``.
    """
    if url is None or url.backend != "postgresql":
        if listen_url is not None or redis_url is not None:
            raise ConfigurationError(
                "--listen-url and --redis-url are for several nodes, which need a PostgreSQL that they share: set "
                "--database-url"
            )
        return LocalBus()
    if redis_url is not None:
        try:
            from collab.cluster.redis import RedisBus
        except ImportError as error:
            if not (error.name or "").startswith("redis"):
                raise
            raise ConfigurationError("--redis-url needs a library: pip install 'collab-server[redis]'") from None
        return RedisBus(redis_url, partial(_identity, Connector(url)))
    direct = url if listen_url is None else parse_database_url(listen_url)
    if direct.backend != "postgresql":
        raise ConfigurationError("--listen-url begins with postgresql://")
    return PostgresBus(Connector(direct).connect, is_pooled, DRIVER_ERRORS)


async def _identity(connector: Connector) -> str:
    """Return a name that only nodes on the same schema of the same database have; raises ``BusDown``."""
    try:
        raw = await connector.connect()
        try:
            return str(await raw.fetchval(_IDENTITY))
        finally:
            raw.terminate()
    except (StoreUnavailable, *DRIVER_ERRORS) as error:
        raise BusDown(f"the database does not say which one it is: {error}") from None


def make_sandbox(processes: int, seconds: float, memory_bytes: int) -> Sandbox:
    """Make the sandbox of a server: each job takes at most ``seconds``, each process has ``memory_bytes``."""
    # Here, because the commands that only list or delete need no processes.
    from collab.sandbox.pool import ProcessSandbox

    return ProcessSandbox(processes, seconds, memory_bytes)
