"""Connecting to PostgreSQL: several servers, one that becomes a standby, TLS, and what is said when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from collab.errors import StoreUnavailable
from collab.storage import connecting
from collab.storage.addresses import Target
from collab.storage.connecting import Connector, is_pooled
from collab.storage.migrate import upgrade
from collab.storage.postgresql import PostgresBackend
from collab.storage.records import Append, Appended, AppendOutcome, NewRow
from collab.storage.sql import SqlStore
from collab.storage.urls import parse_database_url
from tests.support.pgbouncer import running
from tests.support.postgres import PostgresServer, as_somebody_else
from tests.support.waiting import eventually


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def started(server: PostgresServer) -> Iterator[PostgresServer]:
    try:
        server.start()
        yield server
    finally:
        server.close()


def standby_of(primary: PostgresServer, **options: Any) -> PostgresServer:
    """Make a standby that follows ``primary``; it is not started."""
    standby = PostgresServer(**options)
    standby.directory.chmod(0o777)
    subprocess.run(
        [
            *as_somebody_else(),
            str(primary._bin / "pg_basebackup"),
            "-h",
            str(primary.directory),
            "-p",
            str(primary.port),
            "-U",
            "postgres",
            "-D",
            str(standby.directory / "data"),
            "-R",
            "-c",
            "fast",
        ],
        check=True,
        capture_output=True,
        cwd="/",
    )
    return standby


async def said(url: str) -> str:
    """Fail to connect, and return what is said of it."""
    with pytest.raises(StoreUnavailable) as caught:
        await Connector(parse_database_url(url)).connect()
    return str(caught.value).removeprefix("PostgreSQL: ")


@contextlib.asynccontextmanager
async def store_on(url: str) -> AsyncIterator[SqlStore]:
    store = SqlStore(PostgresBackend(parse_database_url(url)))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def row(data: bytes) -> tuple[NewRow, ...]:
    return (NewRow(data, 1.0),)


async def written(store: SqlStore, data: bytes) -> AppendOutcome:
    """Append a row, as often as it takes."""
    batch = [Append("d", None, row(data))]
    while True:
        try:
            (outcome,) = await store.append(batch)
            return outcome
        except StoreUnavailable:
            await asyncio.sleep(0.05)


# What is said


async def test_nobody_listens(tmp_path: Path) -> None:
    port = free_port()
    assert await said(f"postgresql://u:s3cret@127.0.0.1:{port}/d") == (
        f"connection refused by 127.0.0.1:{port}: is PostgreSQL running there?"
    )
    # A name with two addresses.
    assert await said(f"postgresql://localhost:{port}/d") == (
        f"connection refused by localhost:{port}: is PostgreSQL running there?"
    )
    assert await said(f"postgresql:///d?host={tmp_path}") == (
        f"there is no socket {tmp_path}/.s.PGSQL.5432: is PostgreSQL running there?"
    )


async def test_a_name_that_does_not_exist() -> None:
    assert await said("postgresql://db.invalid/d") == "the name db.invalid cannot be looked up"


async def test_each_server_is_named_with_its_reason() -> None:
    port = free_port()
    assert await said(f"postgresql://db.invalid,127.0.0.1:{port}/d") == (
        f"the name db.invalid cannot be looked up; connection refused by 127.0.0.1:{port}: is PostgreSQL running there?"
    )


@contextlib.asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """Listen on a port and say nothing, as behind a firewall."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_while_there_is_no_server_few_of_those_who_want_one_try(
    private_postgres: PostgresServer,
) -> None:
    port, tried = free_port(), 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.close()

    connector = Connector(parse_database_url(f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable"))
    server = await asyncio.start_server(refuse, "127.0.0.1", port)
    async with server:
        said = set()
        for _ in range(500):
            with pytest.raises(StoreUnavailable) as caught:
                await connector.connect_in_turn()
            said.add(str(caught.value))
        assert 1 <= tried < 20, "the first, and one after each pause"
        assert len(said) == 1 and f"127.0.0.1:{port}" in said.pop(), "everybody is told what is wrong"
        before = tried
        with pytest.raises(StoreUnavailable):
            await connector.connect()
        assert tried == before + 1, "one with a pause of its own always tries"
    connector = Connector(parse_database_url(private_postgres.url()))
    await asyncio.to_thread(private_postgres.stop)
    with pytest.raises(StoreUnavailable):
        await connector.connect_in_turn()
    await asyncio.to_thread(private_postgres.start)
    for raw in [await connector.connect(), *[await connector.connect_in_turn() for _ in range(3)]]:
        await raw.close()


async def test_a_server_that_says_nothing_has_a_time_of_its_own() -> None:
    async with silent() as port:
        assert await said(f"postgresql://127.0.0.1:{port}/d?connect_timeout=1") == (
            f"no answer from 127.0.0.1:{port} within 1 s"
        )


async def test_the_time_of_all_servers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "ALL_SECONDS", 0.3)
    async with silent() as port:
        text = await said(f"postgresql://127.0.0.1:{port},127.0.0.1:{port},127.0.0.1:{port}/d?connect_timeout=60")
        assert text == "; ".join([f"no answer from 127.0.0.1:{port} within 0.1 s"] * 3)


async def test_a_server_that_is_cut_off_keeps_nobody_from_the_next(private_postgres: PostgresServer) -> None:
    async with silent() as port:
        hosts = f"127.0.0.1,{private_postgres.directory}&port={port},5432&connect_timeout=1"
        connector = Connector(parse_database_url(f"postgresql://postgres@/postgres?host={hosts}"))
        for _ in range(2):
            raw = await connector.connect()
            assert not is_pooled(raw)
            await raw.close()
        # The second time it came first.
        assert connector.place == f"{private_postgres.directory}/.s.PGSQL.5432"
        assert [target.port for target in connector._order()] == [5432, port]


async def test_a_database_that_does_not_exist(postgres_server: PostgresServer) -> None:
    text = await said(postgres_server.url("nothing_here"))
    assert text == (
        f'{postgres_server.directory}/.s.PGSQL.5432 refuses the connection: database "nothing_here" does not exist'
    )


def test_the_kinds_of_failure_that_are_hard_to_bring_about() -> None:
    db = Target("db", 5432)

    def explained(error: BaseException) -> str:
        return connecting.explain(error, db)

    assert explained(OSError(113, "No route to host")) == "db:5432 cannot be reached: No route to host"
    assert explained(ConnectionResetError(104, "reset")) == "db:5432 has closed the connection"
    assert explained(asyncpg.ConnectionDoesNotExistError("x")) == "db:5432 refuses the connection: x"
    assert explained(asyncpg.CannotConnectNowError("the database system is starting up")) == (
        "db:5432 takes no connections yet: the database system is starting up"
    )
    mixed = OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 101] Network is unreachable")
    assert explained(mixed).startswith("db:5432 cannot be reached: Multiple exceptions")
    lost = connecting.explain_lost(asyncpg.ConnectionDoesNotExistError("connection was closed"), "db:5432")
    assert lost == "the connection to db:5432 was lost"
    lost = connecting.explain_lost(asyncpg.ReadOnlySQLTransactionError("x"), "db:5432")
    assert lost == "db:5432 takes no writes: it has become a standby, or is read-only"


# Sessions


async def test_a_direct_connection_keeps_its_statements_and_bounds_its_transactions(postgres_url: str) -> None:
    raw = await Connector(parse_database_url(postgres_url)).connect()
    try:
        assert not is_pooled(raw)
        assert await raw.fetchval("SELECT 1") == 1
        assert await raw.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") >= 1
        assert await raw.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
        assert await raw.fetchval("SHOW application_name") == "collab"
    finally:
        await raw.close()


async def test_settings_of_the_address_arrive(postgres_url: str) -> None:
    url = f"{postgres_url}&application_name=mine&options=-c%20jit%3Doff&pgbouncer=false"
    raw = await Connector(parse_database_url(url)).connect()
    try:
        assert await raw.fetchval("SHOW jit") == "off"
        assert await raw.fetchval("SHOW application_name") == "mine"
        assert await raw.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
    finally:
        await raw.close()


# Failover


async def has_rows(server: PostgresServer, number: int) -> bool:
    return await asyncio.to_thread(server.sql, "SELECT count(*) FROM log") == str(number)


@pytest.mark.timeout(240)
async def test_failover_to_a_standby(private_postgres: PostgresServer) -> None:
    primary = private_postgres
    await asyncio.to_thread(upgrade, parse_database_url(primary.url()))
    standby = await asyncio.to_thread(standby_of, primary)
    hosts = f"host={standby.directory},{primary.directory}"
    with started(standby):
        async with store_on(f"postgresql://postgres@/postgres?{hosts}") as store:
            backend = store._backend
            assert isinstance(backend, PostgresBackend)
            assert backend._connector.place.startswith(str(primary.directory)), "a standby takes no writes"
            assert await written(store, b"1") == Appended(1, 1, 1)
            assert (await store.load("d")) is not None
            # What the standby has not yet would be lost with its primary.
            await eventually(lambda: has_rows(standby, 1), "the row on the standby")
            await asyncio.to_thread(primary.kill)
            with pytest.raises(StoreUnavailable, match="it is a standby, or read-only"):
                await store.load("d")
            await asyncio.to_thread(standby.sql, "SELECT pg_promote()")
            assert await written(store, b"2") == Appended(1, 2, 2)
            loaded = await store.load("d")
            assert loaded is not None and [each.data for each in loaded.rows] == [b"1", b"2"]
            # The old one comes back as a standby, and first in the address.
            (primary.directory / "data" / "standby.signal").touch()
            await asyncio.to_thread(primary.start)
            assert await written(store, b"3") == Appended(1, 3, 3)
        async with store_on(f"postgresql://postgres@/postgres?host={primary.directory},{standby.directory}") as again:
            loaded = await again.load("d")
            assert loaded is not None and [each.data for each in loaded.rows] == [b"1", b"2", b"3"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("attributes", ["any", "read-write"])
async def test_connections_behind_which_the_server_has_become_a_standby_are_dropped(
    private_postgres: PostgresServer, attributes: str
) -> None:
    """Only a pooler does that: a server that stops being the primary cuts its connections."""
    primary = private_postgres
    await asyncio.to_thread(upgrade, parse_database_url(primary.url()))
    standby = await asyncio.to_thread(standby_of, primary)
    with started(standby), running(primary, "transaction") as bouncer:

        def aim(server: PostgresServer) -> None:
            bouncer.aim(server)
            for command in ("RELOAD", "RECONNECT"):
                bouncer.command(command)

        async with store_on(f"{bouncer.url('postgres')}&target_session_attrs={attributes}") as store:
            assert await written(store, b"1") == Appended(1, 1, 1)
            await asyncio.gather(*(store.load("d") for _ in range(5)))
            backend = store._backend
            assert isinstance(backend, PostgresBackend)
            before = backend._raw
            assert is_pooled(before)
            await asyncio.to_thread(aim, standby)

            batch = [Append("d", None, row(b"2"))]
            with pytest.raises(
                StoreUnavailable, match="takes no writes: it (has become|is) a standby, or (is )?read-only"
            ):
                for _ in range(100):  # sessions in the middle of a transaction still lead to the primary
                    await store.append(batch)
                    batch = [*batch]
            if attributes == "read-write":
                with pytest.raises(StoreUnavailable, match="takes no writes: it is a standby"):
                    await store.load("d")
            await asyncio.to_thread(aim, primary)
            outcome = await written(store, b"3")
            assert isinstance(outcome, Appended)
            assert backend._raw is not before and before.is_closed()
            loaded = await store.load("d")
            assert loaded is not None and loaded.rows[-1].data == b"3"
            assert loaded.rows[-1].seq == outcome.last_seq == len(loaded.rows)


async def test_no_pooled_connection_outlives_a_standby(postgres_url: str, postgres_server: PostgresServer) -> None:
    """One refusal to write drops them all: they were made when it was the primary."""
    async with store_on(postgres_url) as store:
        await written(store, b"1")
        sessions = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.gather(*(store.load("d") for _ in range(5)))
        name = parse_database_url(postgres_url).address.parameters["database"]  # type: ignore[union-attr]
        before = set(postgres_server.sql(sessions, name).split())
        backend = store._backend
        assert isinstance(backend, PostgresBackend)
        await backend._raw.execute("SET default_transaction_read_only = on")
        with pytest.raises(StoreUnavailable, match="takes no writes"):
            await store.append([Append("d", None, row(b"2"))])
        await asyncio.gather(*(store.load("d") for _ in range(5)))
        after = set(postgres_server.sql(sessions, name).split())
        assert before and not before & after


def test_a_name_is_looked_up_again_for_each_connection(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover by DNS: the name leads to another address, and nothing remembers the old one."""
    private_postgres.stop()
    port = free_port()
    leads_to = "127.0.0.1"
    look_up: Callable[..., Any] = socket.getaddrinfo

    def fake(host: Any, *arguments: Any, **options: Any) -> Any:
        return look_up(leads_to if host == "db.test" else host, *arguments, **options)

    async def address() -> str:
        url = f"postgresql://postgres@db.test:{port}/postgres?sslmode=disable"
        raw = await connector(url).connect()
        try:
            return str(await raw.fetchval("SELECT host(inet_server_addr())"))
        finally:
            await raw.close()

    made: dict[str, Connector] = {}

    def connector(url: str) -> Connector:
        return made.setdefault(url, Connector(parse_database_url(url)))

    def both() -> None:
        nonlocal leads_to
        # asyncio's own loop asks Python's socket module; uvloop asks the C library.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            assert runner.run(address()) == "127.0.0.1"
            leads_to = "127.0.0.2"
            assert runner.run(address()) == "127.0.0.2"

    private_postgres.port = port
    private_postgres._options = ["-h", "127.0.0.1,127.0.0.2"]
    private_postgres.start()
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    done: list[BaseException] = []

    def run() -> None:
        try:
            both()
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60.0)
    assert not thread.is_alive() and not done, done


# TLS


class Authority:
    """A CA of this test's own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        certificate = self._builder(self.name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        signed = certificate.sign(self.key, hashes.SHA256())
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def issue(self, directory: Path, host: str) -> tuple[Path, Path]:
        """Issue a certificate for a host; return the files of it and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        signed = self._builder(subject, key).add_extension(names, critical=False).sign(self.key, hashes.SHA256())
        files = directory / "server.crt", directory / "server.key"
        files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        files[1].chmod(0o600)
        return files


class Encrypted(NamedTuple):
    """What takes TLS alone, with passwords, by TCP: PgBouncer, because the PostgreSQL of the wheel has no TLS."""

    authority: Authority
    foreign: Authority
    port: int

    def url(self, query: str = "", *, host: str = "localhost", password: str = "s3cret") -> str:
        return f"postgresql://app:{password}@{host}:{self.port}/postgres?{query}"


@pytest.fixture(scope="module")
def encrypted(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory, "ours")
    certificate, key = authority.issue(directory, "localhost")
    users = directory / "users"
    users.write_text('"app" "s3cret"\n')
    if as_somebody_else()[:1] == ("setpriv",):
        shutil.chown(key, "nobody", "nogroup")
    options = {
        "listen_addr": "127.0.0.1",
        "listen_port": free_port(),
        "auth_type": "scram-sha-256",
        "auth_file": users,
        "client_tls_sslmode": "require",
        "client_tls_cert_file": certificate,
        "client_tls_key_file": key,
    }
    with running(postgres_server, "transaction", options) as bouncer:
        yield Encrypted(authority, Authority(directory, "theirs"), bouncer.port)


async def is_encrypted(url: str) -> bool:
    raw = await Connector(parse_database_url(url)).connect()
    try:
        assert await raw.fetchval("SELECT 1") == 1
        return raw._transport.get_extra_info("ssl_object") is not None
    finally:
        await raw.close()


async def test_a_certificate_is_verified_by_the_ca_of_the_address(encrypted: Encrypted) -> None:
    ca = f"sslrootcert={encrypted.authority.file}"
    for query in (
        f"sslmode=verify-full&{ca}",
        f"sslmode=verify-ca&{ca}",
        f"sslmode=require&{ca}",
        "sslmode=require",
        "",
        f"channel_binding=require&{ca}",
        f"sslmode=require&channel_binding=require&{ca}",
        "sslmode=require&channel_binding=prefer",
    ):
        assert await is_encrypted(encrypted.url(query)), query


async def test_a_certificate_that_does_not_fit_says_why(encrypted: Encrypted) -> None:
    place = f"localhost:{encrypted.port}"
    foreign = f"sslrootcert={encrypted.foreign.file}"
    text = await said(encrypted.url(f"sslmode=verify-full&{foreign}"))
    assert text.startswith(f"the certificate of {place} is not trusted: ") and "is sslrootcert the certificate" in text
    ours = f"sslrootcert={encrypted.authority.file}"
    text = await said(encrypted.url(f"sslmode=verify-full&{ours}", host="127.0.0.1"))
    assert "is not trusted: IP address mismatch" in text
    # By the CAs of the system, which know nothing of ours.
    for query in ("sslrootcert=system", "sslmode=require&channel_binding=require"):
        assert f"the certificate of {place} is not trusted: " in await said(encrypted.url(query)), query
    assert "channel_binding=prefer" in await said(encrypted.url("channel_binding=require"))
    assert "need sslrootcert" in await said(encrypted.url("sslmode=verify-full"))
    assert await said(encrypted.url("sslmode=verify-full&sslrootcert=/nothing.pem")) == (
        "sslrootcert /nothing.pem cannot be read: No such file or directory"
    )


async def test_a_wrong_password_is_named_and_not_shown(encrypted: Encrypted) -> None:
    text = await said(encrypted.url("sslmode=require", password="wr0ng"))
    assert text == f"localhost:{encrypted.port} does not accept the password of the user 'app'"
    text = await said(encrypted.url("sslmode=disable"))
    assert "refuses the connection: " in text and "s3cret" not in text


async def test_a_server_without_tls_says_so(private_postgres: PostgresServer) -> None:
    private_postgres.stop()
    private_postgres.port = free_port()
    private_postgres._options = ["-h", "127.0.0.1"]
    private_postgres.start()
    place = f"127.0.0.1:{private_postgres.port}"
    assert await said(f"postgresql://postgres@{place}/postgres?sslmode=require") == (
        f"{place} offers no TLS, and the address asks for it (sslmode)"
    )
    raw = await Connector(parse_database_url(f"postgresql://postgres@{place}/postgres?keepalives_idle=7")).connect()
    used = raw._transport.get_extra_info("socket")
    assert used.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert used.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
    await raw.close()
