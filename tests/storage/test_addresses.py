"""Addresses of PostgreSQL servers: every parameter does something, changes nothing, or is refused with the reason."""

from __future__ import annotations

import re

import pytest

from collab.errors import ConfigurationError
from collab.storage import addresses
from collab.storage.addresses import Address, Target
from collab.storage.connecting import secrets_of
from collab.storage.urls import parse_database_url


def read(text: str) -> Address:
    url = parse_database_url(f"postgresql://{text}")
    assert url.address is not None
    return url.address


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "targets", "shown"),
    [
        ("db/d", [("db", None)], "db:5432"),
        ("db:6543/d", [("db", 6543)], "db:6543"),
        ("u:p@a:1,b:2,c/d", [("a", 1), ("b", 2), ("c", None)], "a:1, b:2, c:5432"),
        ("a,b/d?port=5433", [("a", 5433), ("b", 5433)], "a:5433, b:5433"),
        ("/d?host=a,b&port=1,2", [("a", 1), ("b", 2)], "a:1, b:2"),
        ("[::1]:5,[fe80::1%25eth0]/d", [("::1", 5), ("fe80::1%25eth0", None)], "[::1]:5, [fe80::1%25eth0]:5432"),
        ("%2Fvar%2Frun:7/d", [("/var/run", 7)], "/var/run/.s.PGSQL.7"),
        ("/d?host=/var/run", [("/var/run", None)], "/var/run/.s.PGSQL.5432"),
        ("/d?host=/a:b", [("/a:b", None)], "/a:b/.s.PGSQL.5432"),
        ("/d", [(None, None)], "localhost:5432"),
        ("", [(None, None)], "localhost:5432"),
        ("db?dbname=d", [("db", None)], "db:5432"),
    ],
)
def test_servers(
    text: str, targets: list[tuple[str | None, int | None]], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name, raising=False)
    address = read(text)
    assert address.targets == tuple(Target(*target) for target in targets)
    assert ", ".join(map(str, address.targets)) == shown
    assert address.read_write is (len(targets) > 1), "with several hosts, one that takes writes is wanted"


def test_a_database_has_one_name_wherever_it_stands() -> None:
    assert read("db/a%20b").parameters["database"] == "a b"
    assert read("db?dbname=a").parameters["database"] == read("db/a?dbname=b").parameters["database"] == "a"
    assert "database" not in read("db").parameters


def test_what_the_driver_does_it_is_given() -> None:
    address = read("u:p%40w@h/d?sslmode=verify-full&sslrootcert=/ca.pem&passfile=/p&krbsrvname=k&sslnegotiation=direct")
    assert address.parameters["user"] == "u" and address.parameters["password"] == "p@w"
    dsn = address.driver_dsn()
    for part in ("sslmode=verify-full", "sslrootcert=%2Fca.pem", "passfile=%2Fp", "krbsrvname=k"):
        assert part in dsn
    assert "p%40w" not in dsn and "host" not in dsn
    assert "p%40w" not in repr(address)


def test_what_is_done_here() -> None:
    address = read(
        "h/d?connect_timeout=3&application_name=mine&options=-c%20jit%3Doff&keepalives=1&keepalives_idle=7"
        "&keepalives_interval=8&keepalives_count=9&tcp_user_timeout=1000&load_balance_hosts=random"
    )
    assert address.connect_seconds == 3 and address.shuffled
    assert address.startup == {"application_name": "mine", "options": "-c jit=off"}
    assert address.keepalive == {
        "keepalives": 1,
        "keepalives_idle": 7,
        "keepalives_interval": 8,
        "keepalives_count": 9,
        "tcp_user_timeout": 1000,
    }
    assert address.driver_dsn() == "postgresql://"
    assert read("h").startup == {"application_name": "collab"}
    assert read("h?fallback_application_name=f").startup == {"application_name": "f"}
    assert read("h?fallback_application_name=f&application_name=a").startup == {"application_name": "a"}
    assert read("h?connect_timeout=0").connect_seconds is None, "libpq's word for no bound: ours holds"


@pytest.mark.parametrize(
    ("query", "prepared"),
    [
        ("", None),
        ("?pgbouncer=true", False),
        ("?pgbouncer=false", True),
        ("?statement_cache_size=0", False),
        ("?prepared_statement_cache_size=0", False),
        ("?prepared_statement_cache_size=100", None),
    ],
)
def test_poolers_as_other_drivers_name_them(query: str, prepared: bool | None) -> None:
    assert read(f"h/d{query}").prepared is prepared


@pytest.mark.parametrize(
    "query",
    [
        "gssencmode=disable",
        "gssencmode=prefer",
        "sslcompression=0",
        "sslsni=1",
        "client_encoding=UTF8",
        "max_protocol_version=latest",
        "uselibpqcompat=true",
        "schema=public",
        "replication=off",
        "target_session_attrs=any",
        "channel_binding=prefer",
        "channel_binding=disable",
        "load_balance_hosts=disable",
    ],
)
def test_what_changes_nothing_is_taken(query: str) -> None:
    assert read(f"h/d?{query}") == read("h/d")


def test_the_address_that_neon_gives() -> None:
    address = read("u:p@ep-cool.eu.aws.neon.tech/db?sslmode=require&channel_binding=require")
    # The driver cannot bind: the certificate is verified, by the CAs of the system, which sign theirs.
    assert address.system_trust and "sslmode" not in address.driver_dsn()


def test_binding_is_never_dropped_in_silence() -> None:
    address = read("h/d?channel_binding=require&sslmode=require&sslrootcert=/ca.pem")
    assert not address.system_trust and "sslmode=verify-full" in address.driver_dsn()
    for query in ("channel_binding=require&sslmode=disable", "channel_binding=require&host=/run"):
        assert "needs TLS" in refusal(f"/d?{query}")


def test_the_cas_of_the_system() -> None:
    assert read("h/d?sslrootcert=system").system_trust
    assert read("h/d?sslrootcert=system&sslmode=verify-full").system_trust
    assert "sslmode=verify-full" in refusal("h/d?sslrootcert=system&sslmode=require")
    assert "sslrootcert" in refusal("h/d?sslrootcert=system&sslcrl=/crl.pem")


@pytest.mark.parametrize(
    ("ssl", "mode"), [("true", "require"), ("false", "disable"), ("require", "require"), ("verify-full", "verify-full")]
)
def test_tls_as_other_drivers_ask_for_it(ssl: str, mode: str) -> None:
    assert read(f"h/d?ssl={ssl}").parameters["sslmode"] == mode


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h/d?target_session_attrs=standby", "the server has to write"),
        ("h/d?target_session_attrs=read-only", "the server has to write"),
        ("h/d?target_session_attrs=s3cret", "target_session_attrs in the PostgreSQL URL is one of any, read-write"),
        ("h/d?sslmode=no-verify", "sslmode in the PostgreSQL URL is one of disable, allow"),
        ("h/d?gssencmode=require", "no GSSAPI encryption"),
        ("h/d?hostaddr=127.0.0.1", "in place of the host's name"),
        ("h/d?require_auth=scram-sha-256", "cannot insist"),
        ("h/d?replication=database", "no replication stream"),
        ("h/d?schema=other", "options=-csearch_path"),
        ("h/d?connection_limit=5", "Prisma's"),
        ("h/d?sslrootcert=", "sslrootcert of the PostgreSQL URL is empty"),
        ("h/d?connect_timeout=soon", "connect_timeout in the PostgreSQL URL is a number"),
        ("h/d?keepalives_count=128", "a number from 0 to 127"),
        ("h/d?statement_timeout=5", "options=-c%20statement_timeout%3DVALUE"),
        ("h/d?sslmod=require", "did you mean sslmode"),
        ("h/d?s3cret!=1", "a parameter that nobody knows"),
        ("h:port/d", "a port that is no number"),
        ("h:0/d", "a port that is no number"),
        ("h:65536/d", "a port that is no number"),
        ("a,b/d?port=1,2,3", "as many as there are hosts"),
        ("a,,b/d", "a host that cannot be read"),
        ("::1/d", "stands in brackets"),
        (",".join("h" * 17) + "/d", "16 is the most"),
        # Passwords that were not percent-encoded; no part of them may be shown.
        ("u:s3cret#1@h/d", "%23"),
        ("u:s3cret/1@h/d", "%2F"),
        ("u:1?s3cret@h/d", "%3F"),
        ("u:1/s3cret=1@h/d", "%40"),
        ("u:[s3cret@h]/d", "a host that cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(text: str, said: str) -> None:
    assert said in refusal(text)


def test_every_parameter_of_libpq_is_known() -> None:
    """The list is that of libpq 18."""
    libpq = [
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "passfile",
        "require_auth",
        "channel_binding",
        "connect_timeout",
        "client_encoding",
        "options",
        "application_name",
        "fallback_application_name",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "replication",
        "gssencmode",
        "sslmode",
        "sslnegotiation",
        "sslcompression",
        "sslcert",
        "sslkey",
        "sslkeylogfile",
        "sslpassword",
        "sslcertmode",
        "sslrootcert",
        "sslcrl",
        "sslcrldir",
        "sslsni",
        "requirepeer",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "min_protocol_version",
        "max_protocol_version",
        "krbsrvname",
        "gsslib",
        "gssdelegation",
        "scram_client_key",
        "scram_server_key",
        "service",
        "servicefile",
        "target_session_attrs",
        "load_balance_hosts",
    ]
    assert [name for name in libpq if name not in addresses._KNOWN] == []
    # One that has harmless values says of the others why not.
    assert set(addresses._HARMLESS) - {"sslcompression"} <= set(addresses._REFUSED)


def test_the_attribute_may_be_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    assert not read("a,b/d").read_write
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "standby")
    assert "has to write" in refusal("a,b/d")


def test_what_is_shown_and_what_is_taken_out_of_messages() -> None:
    url = parse_database_url("postgresql://u:s3%21cret@a:1,b:2/d?sslpassword=0ther&sslmode=require")
    assert str(url) == "postgresql://u:***@a:1,b:2/d?sslpassword=***&sslmode=require"
    assert set(secrets_of(url)) == {"s3!cret", "s3%21cret", "0ther"}
    assert not re.search("cret|0ther", repr(url))
