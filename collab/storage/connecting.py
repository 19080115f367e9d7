"""Connections to PostgreSQL: which server, what stands in between, and what is said when there is none.

Strategy: the servers of an address are tried one by one, each with its own time, so that one that swallows packets
cannot use up the time of all; names are looked up each time. The server that took the last connection comes first.
A connection that has to write is asked whether it can.

A pooler (PgBouncer, Supavisor ...) gives each transaction another session of the server, so nothing may be left in a
session: no prepared statement, no setting. It is found out by the number of the session, which a pooler invents. Then
statements are unnamed and always inside a transaction, which is where a pooler holds one session. A direct connection
keeps its prepared statements: with them, the append is one round trip and not four.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import re
import socket
import ssl
from typing import Any
from weakref import WeakSet

import asyncpg

from collab.errors import StoreUnavailable
from collab.storage.addresses import Address, Target
from collab.storage.breaker import Breaker
from collab.storage.urls import DatabaseUrl
from collab.telemetry import get_logger, mask_secrets

CONNECT_SECONDS = 10.0
"""For one server to take a connection, TLS and signing in included."""

ALL_SECONDS = 24.0
"""For all servers of an address together, below the time of an append."""

IDLE_TRANSACTION_MS = 60_000
"""A node that vanished in the middle of a transaction must not hold its documents' locks for hours."""

DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # "cannot switch to state ...": a connection that is cut between two messages; it is an Exception only.
    asyncpg.InternalClientError,
    OSError,
    ValueError,
)
"""What asyncpg raises when it is not our mistake."""

# The number of rows is told in the answer, so no statement is prepared, and one round trip is all it takes. Not sent
# with the start of the connection, which PgBouncer would refuse.
_SETTINGS = f"SELECT set_config('idle_in_transaction_session_timeout', '{IDLE_TRANSACTION_MS}', false)"
WRITABLE = "SELECT WHERE current_setting('transaction_read_only') = 'off'"
ALIVE = "SELECT WHERE true"
ONE_ROW = "SELECT 1"
"""What ``execute`` returns for a SELECT with one row."""

READ_ONLY = "25006"
"""SQLSTATE of a write on a server that has become a standby."""

_STATEMENTS = 100
"""Prepared statements that a direct connection keeps; we have some twenty."""

_LOG = get_logger("store")

_ERRNO = re.compile(r"\[Errno (\d+)\]")


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection through a pooler: each statement with parameters is inside a transaction, under no name.

    A statement and its parameters go to the server one after the other, and outside of a transaction a pooler may
    give them to two sessions. A statement without parameters is one message, and goes as it is.

    A call that is given up ends its connection. The driver would ask the pooler to cancel the statement, over another
    connection; some poolers do not know that request, and PgBouncer before 1.20 may end itself on one
    (https://github.com/pgbouncer/pgbouncer/issues/822).
    """

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        if not args and query.startswith("BEGIN"):
            # In one message. The setting ends with the transaction, so the session's next user has his own.
            query += f" SET LOCAL idle_in_transaction_session_timeout = {IDLE_TRANSACTION_MS}"
        async with self._pinned(bool(args)):
            status: str = await super().execute(query, *args, **options)
            return status

    async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._pinned():
            return await super().fetch(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._pinned():
            return await super().fetchval(query, *args, **options)

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._pinned():
            return await super().fetchrow(query, *args, **options)

    def _cancel_current_command(self, waiter: asyncio.Future[None], cancel_waiter: object = None) -> None:
        # Called in the middle of the protocol's own work, which the end of the connection must not meet.
        self._loop.call_soon(self._end, waiter)

    def _end(self, waiter: asyncio.Future[None]) -> None:
        self.terminate()
        if not waiter.done():
            waiter.set_result(None)

    def _pinned(self, needed: bool = True) -> Any:
        return self.transaction() if needed and not self.is_in_transaction() else contextlib.nullcontext()


def is_pooled(raw: Any) -> bool:
    """Tell whether a connection goes through a pooler."""
    return type(raw) is PooledConnection  # asyncpg's metaclass calls each connection an instance of each class


class Connector:
    """Opens connections to the servers of one address."""

    def __init__(self, url: DatabaseUrl) -> None:
        assert url.address is not None, "a PostgreSQL URL"
        self._address = url.address
        self._secrets = secrets_of(url)
        self._last: Target | None = None
        # What is known of the way: found out with the first connection, unless the address says it.
        self._pooled = self._address.prepared is False
        self._look = self._address.prepared is None
        self._good: WeakSet[Any] = WeakSet()  # connections that were made since a standby was met
        self._breaker = Breaker()

    @property
    def read_write(self) -> bool:
        """Whether a server that does not take writes will not do."""
        return self._address.read_write

    @property
    def place(self) -> str:
        """The server that took the last connection, or all of them."""
        return str(self._last) if self._last is not None else ", ".join(map(str, self._address.targets))

    async def connect_in_turn(self) -> Any:
        """As ``connect``, for callers without a pause of their own: while there is no server, few of them try.

        Raises ``StoreUnavailable`` at once for the others, with what was said last.
        """
        why = self._breaker.refuses()
        if why is not None:
            raise StoreUnavailable(why)
        return await self.connect()

    async def connect(self) -> Any:
        """Open a connection of asyncpg's.

        Raises ``StoreUnavailable``, which says for each server why there is none.
        """
        try:
            raw = await self._connect_to_any()
        except StoreUnavailable as error:
            self._breaker.failed(str(error))
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        return raw

    async def _connect_to_any(self) -> Any:
        said = []
        self._check_files()
        targets = self._order()
        seconds = min(self._address.connect_seconds or CONNECT_SECONDS, ALL_SECONDS / len(targets))
        for target in targets:
            try:
                async with asyncio.timeout(seconds):
                    raw = await self._connect(target)
            except TimeoutError:
                said.append(f"no answer from {target} within {seconds:g} s")
            except DRIVER_ERRORS as error:
                said.append(explain(error, target, self._address))
            else:
                if raw is not None:
                    self._last = target
                    self._good.add(raw)
                    return raw
                said.append(f"{target} takes no writes: it is a standby, or read-only")
        raise StoreUnavailable("PostgreSQL: " + masked("; ".join(said), self._secrets))

    def _check_files(self) -> None:
        """Raise ``StoreUnavailable`` for a file of the address that cannot be read, which the driver would not name."""
        for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl"):
            path = self._address.parameters.get(name)
            if path is not None and not (name == "sslrootcert" and self._address.system_trust):
                try:
                    open(path, "rb").close()
                except OSError as error:
                    raise StoreUnavailable(f"PostgreSQL: {name} {path} cannot be read: {error.strerror}") from None

    def met_standby(self) -> None:
        """Let no connection that stands now be used again: the server that took writes has become a standby.

        The way may lead to another one now: behind a pooler, or by the name.
        """
        self._good = WeakSet()

    async def usable(self, raw: Any) -> bool:
        """Tell whether a connection that was idle can be used; it takes one round trip.

        Raises what asyncpg does when it cannot be asked.
        """
        if raw not in self._good:
            return False
        return bool(await raw.execute(WRITABLE if self.read_write else ALIVE) == ONE_ROW)

    def _order(self) -> list[Target]:
        targets = list(self._address.targets)
        if self._address.shuffled:
            random.shuffle(targets)
        elif self._last is not None:
            targets.sort(key=lambda target: target != self._last)
        return targets

    async def _connect(self, target: Target) -> Any:
        """Connect to one server; None if it takes no writes though it has to."""
        raw = await self._open(target)
        try:
            if not self._pooled and await raw.execute(self._first(raw)) != ONE_ROW:
                _LOG.info("a pooler stands before %s: statements are not prepared", target)
                self._pooled = True
                raw.terminate()
                raw = await self._open(target)
            if self.read_write and await raw.execute(WRITABLE) != ONE_ROW:
                raw.terminate()
                return None
        except BaseException:
            raw.terminate()
            raise
        return raw

    def _first(self, raw: Any) -> str:
        """Give the statement that makes the session of a direct connection; it has no row if a pooler is found."""
        return _SETTINGS + (f" WHERE pg_backend_pid() = {int(raw.get_server_pid())}" if self._look else "")

    async def _open(self, target: Target) -> Any:
        address = self._address
        raw = await asyncpg.connect(
            address.driver_dsn(),
            host=target.host,
            port=target.port,
            user=address.parameters.get("user"),
            password=address.parameters.get("password"),
            database=address.parameters.get("database"),
            timeout=None,  # the caller's
            ssl=_context(address) if address.system_trust and not target.is_socket else None,
            target_session_attrs="any",
            server_settings=dict(address.startup),
            statement_cache_size=0 if self._pooled else _STATEMENTS,
            connection_class=PooledConnection if self._pooled else asyncpg.Connection,
        )
        _keep_alive(raw, address)
        return raw


def _context(address: Address) -> ssl.SSLContext:
    """Make what verifies a server's certificate by the CAs of the system."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    certificate = address.parameters.get("sslcert")
    if certificate is not None:
        password = address.parameters.get("sslpassword", "")
        context.load_cert_chain(certificate, address.parameters.get("sslkey"), lambda: password)
    return context


# Where an option of libpq goes; Windows and macOS lack some, and libpq leaves these out too.
_SOCKET_OPTIONS = (
    ("keepalives_idle", socket.IPPROTO_TCP, "TCP_KEEPIDLE"),
    ("keepalives_interval", socket.IPPROTO_TCP, "TCP_KEEPINTVL"),
    ("keepalives_count", socket.IPPROTO_TCP, "TCP_KEEPCNT"),
    ("tcp_user_timeout", socket.IPPROTO_TCP, "TCP_USER_TIMEOUT"),
)


def _keep_alive(raw: Any, address: Address) -> None:
    """Let the kernel notice a server that has vanished, as libpq does by default."""
    transport = raw._transport  # asyncpg shows it nowhere else
    used = transport.get_extra_info("socket")
    if used is None or used.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = address.keepalive
    if options.get("keepalives", 1):
        used.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, level, constant in _SOCKET_OPTIONS:
        if options.get(name) and hasattr(socket, constant):
            used.setsockopt(level, getattr(socket, constant), options[name])


def secrets_of(url: DatabaseUrl) -> tuple[str, ...]:
    """Give the passwords in a URL, as written and decoded, so that they can be taken out of messages."""
    if url.address is None:
        return ()
    found = {value for key, value in url.address.parameters.items() if "password" in key.lower()}
    written = re.match(r"postgresql://[^/]*?:(.*)@", url.dsn)
    if written is not None:
        found.add(written[1])
    return tuple(sorted((secret for secret in found if secret), key=len, reverse=True))


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """Take ``secrets``, and whatever looks like a password, out of a text."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return mask_secrets(text)


def explain(error: BaseException, target: Target, address: Address | None = None) -> str:
    """Say in words why there is no connection to ``target``."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, target, address)
    if isinstance(error, ssl.SSLError):
        return f"TLS with {target} failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"the name {target.host or target} cannot be looked up"
    if isinstance(error, asyncpg.PostgresError):
        return _explain_refusal(error, target, address)
    if isinstance(error, OSError):
        return _explain_network(error, target)
    text = first_line(error)
    if isinstance(error, asyncpg.InterfaceError | ValueError):
        # What the driver says of the address, before it has asked anybody.
        if "root certificate file" in text:
            return (
                "sslmode=verify-ca and verify-full need sslrootcert, the file of a CA's certificate that can be read, "
                "or sslrootcert=system"
            )
        return f"{target}: {text}"
    return f"{target}: {text} ({type(error).__name__})"


def _explain_network(error: OSError, target: Target) -> str:
    text = first_line(error)
    number = error.errno
    if number is None:
        # Of a name with several addresses: "Multiple exceptions: [Errno 111] ..., [Errno 111] ..."
        numbers = set(map(int, _ERRNO.findall(text)))
        number = numbers.pop() if len(numbers) == 1 else None
    if number == errno.ECONNREFUSED:
        return f"connection refused by {target}: is PostgreSQL running there?"
    if number == errno.ENOENT and target.is_socket:
        return f"there is no socket {target}: is PostgreSQL running there?"
    if number in (errno.ECONNRESET, errno.EPIPE) or isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return f"{target} has closed the connection"
    if "rejected SSL upgrade" in text:
        return f"{target} offers no TLS, and the address asks for it (sslmode)"
    reason = os.strerror(number) if number is not None else text or type(error).__name__
    return f"{target} cannot be reached: {reason}"


def _explain_certificate(error: ssl.SSLCertVerificationError, target: Target, address: Address | None) -> str:
    reason = error.verify_message.rstrip(".")
    if address is not None and address.system_trust and "sslrootcert" not in address.parameters:
        remedy = (
            "channel_binding=require verifies it by the CAs of the system; give sslrootcert, or channel_binding=prefer"
        )
    else:
        remedy = "is sslrootcert the certificate of its CA, and the host the name in it?"
    return f"the certificate of {target} is not trusted: {reason}; {remedy}"


def _explain_refusal(error: asyncpg.PostgresError, target: Target, address: Address | None) -> str:
    text = first_line(error)
    user = None if address is None else address.parameters.get("user")
    # The second is PgBouncer's.
    if isinstance(error, asyncpg.InvalidPasswordError) or "SASL authentication failed" in text:
        return f"{target} does not accept the password" + (f" of the user {user!r}" if user else "")
    if isinstance(error, asyncpg.CannotConnectNowError):
        return f"{target} takes no connections yet: {text}"
    if "unsupported startup parameter" in text:
        return (
            f"the pooler at {target} refuses a parameter of the address ({text}): leave it out, or name it in "
            "PgBouncer's ignore_startup_parameters"
        )
    return f"{target} refuses the connection: {text}"


def is_read_only(error: BaseException | None) -> bool:
    """Tell whether the server would not write, because it is a standby."""
    return getattr(error, "sqlstate", None) == READ_ONLY


def explain_lost(error: BaseException, place: str) -> str | None:
    """Say in words that a connection which stood was lost; None if ``error`` is about something else."""
    if isinstance(error, TimeoutError):
        return f"no answer from {place} in time"
    if isinstance(error, asyncpg.AdminShutdownError | asyncpg.CrashShutdownError):
        return f"{place} has ended the connection: {first_line(error)}"
    if isinstance(error, asyncpg.ConnectionDoesNotExistError | ConnectionError) or (
        isinstance(error, asyncpg.InterfaceError) and "connection is closed" in str(error)
    ):
        return f"the connection to {place} was lost"
    if is_read_only(error):
        return f"{place} takes no writes: it has become a standby, or is read-only"
    return None


def first_line(error: BaseException) -> str:
    """Give what an error says, without the detail, which may repeat values."""
    return str(error.args[0] if error.args else error).split("\n")[0]
