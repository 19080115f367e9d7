"""PostgreSQL addresses as libpq, hosting companies and other drivers write them.

Strategy: an address is read here, once and whole. Every parameter is in one of four tables: the driver does it, we do
it, it changes nothing here, or it cannot be done, with the reason. None is ignored because nobody knows it: asyncpg
would send it to the server as a setting, and either PgBouncer or the server would refuse the connection. Errors name
parameters and never values, which may be parts of a password that was not percent-encoded.

The parameters are those of libpq 18 (https://www.postgresql.org/docs/18/libpq-connect.html).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl, quote, unquote, urlencode

from collab.errors import ConfigurationError

MAX_TARGETS = 16
"""Servers in one address: each attempt to connect may try all of them, one after the other."""

APPLICATION_NAME = "collab"

DEFAULT_PORT = 5432


@dataclass(frozen=True, slots=True)
class Target:
    """One server; ``host`` is a name, an address or the directory of a Unix socket. None is the driver's default."""

    host: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        port = self.port or int(os.environ.get("PGPORT", "").partition(",")[0] or DEFAULT_PORT)
        host = self.host or os.environ.get("PGHOST", "").partition(",")[0] or "localhost"
        if host.startswith("/"):
            return f"{host}/.s.PGSQL.{port}"
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def is_socket(self) -> bool:
        """Whether it is a Unix socket."""
        return self.host is not None and self.host.startswith("/")


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says.

    Attributes:
        targets: the servers, in the order in which they are tried.
        read_write: only a server that takes writes will do.
        prepared: whether statements may be prepared under names; None: find out whether a pooler stands in between.
        connect_seconds: for one server; None for what is usual.
        system_trust: the certificate is verified by the CAs of the system.
        keepalive: options of the TCP socket, by the names of libpq.
        shuffled: the servers are tried in another order each time.
        startup: settings that are sent with the start of a connection.
        parameters: all others, as the driver knows them; ``user``, ``password`` and ``database`` among them.
    """

    targets: tuple[Target, ...]
    read_write: bool
    prepared: bool | None
    connect_seconds: float | None
    system_trust: bool
    keepalive: Mapping[str, int]
    shuffled: bool
    startup: Mapping[str, str]
    parameters: Mapping[str, str] = field(repr=False)

    def driver_dsn(self) -> str:
        """Give the address without servers, for the driver; it holds the password."""
        own = {"user", "password", "database"}
        if self.system_trust:
            own |= {"sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword"}
        rest = {key: value for key, value in self.parameters.items() if key not in own}
        return "postgresql://" + (f"/?{urlencode(rest)}" if rest else "")


_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

# What asyncpg does as libpq does.
_DRIVER = frozenset(
    {
        "user",
        "password",
        "database",
        "passfile",
        "service",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "krbsrvname",
        "gsslib",
    }
)

# What is done here.
_OURS = frozenset(
    {
        "host",
        "port",
        "dbname",
        "target_session_attrs",
        "connect_timeout",
        "application_name",
        "fallback_application_name",
        "options",
        "channel_binding",
        "pgbouncer",
        "statement_cache_size",
        "prepared_statement_cache_size",
        "load_balance_hosts",
        "ssl",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    }
)

# What changes nothing here, with these values.
_HARMLESS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "gssencmode": frozenset({"disable", "prefer"}),
        "gssdelegation": frozenset({"0"}),
        "sslcompression": frozenset({"0", "1"}),  # libpq may ignore it too
        "sslcertmode": frozenset({"allow"}),
        "sslsni": frozenset({"1"}),
        "replication": frozenset({"false", "off", "no", "0"}),
        "client_encoding": frozenset({"utf8", "utf-8", "auto"}),
        "min_protocol_version": frozenset({"3.0"}),
        "max_protocol_version": frozenset({"3.0", "3.2", "latest"}),
        # Of other drivers: node-postgres, Prisma, and what Supabase adds for Vercel.
        "uselibpqcompat": frozenset({"true"}),
        "schema": frozenset({"public"}),
        "supa": frozenset({"base-pooler.x"}),
    }
)

_PRISMA = "it is Prisma's and no parameter of PostgreSQL; leave it out"

# What cannot be done, and why.
_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "hostaddr": "write the address in place of the host's name",
        "gssencmode": "the driver has no GSSAPI encryption; use sslmode",
        "gssdelegation": "the driver passes no GSSAPI credentials on",
        "sslcertmode": "the driver shows the certificate of sslcert when it is asked for one; leave it out",
        "sslsni": "the driver always sends the server's name; leave it out",
        "sslcrldir": "the driver reads revoked certificates from a file: use sslcrl",
        "sslkeylogfile": "use the variable SSLKEYLOGFILE",
        "requirepeer": "the driver cannot look at the owner of a Unix socket; leave it out",
        "require_auth": "the driver cannot insist on a method of authentication; use sslmode=verify-full",
        "scram_client_key": "the driver signs in with a password",
        "scram_server_key": "the driver signs in with a password",
        "servicefile": "use the variable PGSERVICEFILE",
        "replication": "documents are no replication stream",
        "client_encoding": "text is always UTF-8",
        "min_protocol_version": "the driver speaks version 3.0 of the protocol",
        "max_protocol_version": "the driver speaks version 3.0 of the protocol",
        "schema": "it is Prisma's; use options=-csearch_path%3DNAME, or a user whose search_path is set",
        "connection_limit": _PRISMA + " (a server takes six connections)",
        "pool_timeout": _PRISMA,
        "socket_timeout": _PRISMA,
        "sslaccept": _PRISMA + ", and use sslmode",
        "sslidentity": _PRISMA + ", and use sslcert and sslkey",
        "uselibpqcompat": "it is node-postgres's; leave it out",
        "supa": "it is no parameter of PostgreSQL; leave it out",
    }
)

_KNOWN = sorted(_DRIVER | _OURS | set(_HARMLESS) | set(_REFUSED))

_ENCODE = "percent-encode special characters in the user and the password (@ is %40, / is %2F, # is %23, ? is %3F)"

_FORM = "a PostgreSQL URL has the form postgresql://user:password@host/database"

# What may be shown of a parameter that nobody knows.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,40}")


def read_address(rest: str) -> tuple[Address, str]:
    """Read what follows ``postgresql:``; return it, and as text without passwords.

    Raises ``ConfigurationError``, which repeats no value.
    """
    if not rest.startswith("//"):
        raise ConfigurationError(_FORM)
    if "#" in rest:
        raise ConfigurationError(f"a '#' has no meaning in a PostgreSQL URL: {_ENCODE}")
    authority, slash, tail = rest[2:].partition("/")
    if "?" in authority:  # postgresql://host?parameters, or a password with a question mark
        authority, question, query = rest[2:].partition("?")
        slash = tail = ""
    else:
        tail, question, query = tail.partition("?")
    if "@" in tail or "@" in query:
        # Most likely it ends a password that holds one of "/?".
        raise ConfigurationError(f"the PostgreSQL URL cannot be read: {_ENCODE}")
    userinfo, at, hosts = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    parameters = _read_query(query)
    if user:
        parameters["user"] = unquote(user)
    if password:
        parameters["password"] = unquote(password)
    if database := unquote(tail):
        parameters["database"] = database
    elif "dbname" in parameters:
        parameters.setdefault("database", parameters["dbname"])
    parameters.pop("dbname", None)
    address = _make_address(hosts, parameters)
    shown = "postgresql://" + (f"{user}{':***' if colon else ''}@" if at else "") + hosts + slash + tail
    if query:
        # sslpassword, and password as a parameter, are as secret as the one in front of the host.
        pairs = [
            (key, "***" if "password" in key.lower() else value)
            for key, value in parse_qsl(query, keep_blank_values=True)
        ]
        shown += "?" + urlencode(pairs, safe="/*,:-", quote_via=quote)
    return address, shown


def _read_query(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KNOWN:
            raise ConfigurationError(_unknown(key))
        if not value:
            # One that went missing in a deployment: sslrootcert, say, without which nothing is verified.
            raise ConfigurationError(f"the parameter {key} of the PostgreSQL URL is empty")
        harmless = _HARMLESS.get(key)
        if harmless is not None and value.lower() in harmless:
            continue
        if key in _REFUSED:
            raise ConfigurationError(f"the parameter {key} of the PostgreSQL URL cannot be used here: {_REFUSED[key]}")
        found[key] = value
    return found


def _unknown(key: str) -> str:
    if not _NAME.fullmatch(key):
        return f"the PostgreSQL URL has a parameter that nobody knows; {_ENCODE}"
    near = difflib.get_close_matches(key, _KNOWN, n=2, cutoff=0.75)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"if it is a setting of PostgreSQL, write options=-c%20{key}%3DVALUE"
    )
    return f"the PostgreSQL URL has the parameter {key}, which is none of PostgreSQL's; {hint}"


def _make_address(hosts: str, parameters: dict[str, str]) -> Address:
    targets = _targets(hosts, parameters)
    take = _Taker(parameters)
    attributes = take.choice(
        "target_session_attrs", ("any", "read-write", "primary", "read-only", "standby", "prefer-standby")
    )
    if attributes is None:
        attributes = os.environ.get("PGTARGETSESSIONATTRS") or ("read-write" if len(targets) > 1 else "any")
    if attributes not in ("any", "read-write", "primary"):
        raise ConfigurationError(
            "target_session_attrs is read-write, primary or any: the server has to write, which a standby cannot"
        )
    shuffled = take.choice("load_balance_hosts", ("disable", "random")) == "random"
    name, fallback = take.text("application_name"), take.text("fallback_application_name")
    startup = {"application_name": name or fallback or APPLICATION_NAME}
    if options := take.text("options"):
        startup["options"] = options
    seconds = take.number("connect_timeout", -1, 3_600)
    keepalive = {
        name: number
        for name, least, most in (
            ("keepalives", 0, 1),
            ("keepalives_idle", 0, 32_767),
            ("keepalives_interval", 0, 32_767),
            ("keepalives_count", 0, 127),
            ("tcp_user_timeout", 0, 86_400_000),
        )
        if (number := take.number(name, least, most)) is not None
    }
    prepared = _prepared(take)
    system_trust = _tls(take, targets)
    return Address(
        targets=targets,
        read_write=attributes != "any",
        prepared=prepared,
        connect_seconds=float(seconds) if seconds is not None and seconds > 0 else None,
        system_trust=system_trust,
        keepalive=MappingProxyType(keepalive),
        shuffled=shuffled,
        startup=MappingProxyType(startup),
        parameters=MappingProxyType(parameters),
    )


class _Taker:
    """Takes parameters that the driver is not to see."""

    def __init__(self, parameters: dict[str, str]) -> None:
        self.parameters = parameters

    def text(self, name: str) -> str | None:
        return self.parameters.pop(name, None)

    def choice(self, name: str, values: tuple[str, ...], *, keep: bool = False) -> str | None:
        value = self.parameters.get(name)
        if value is None:
            return None
        if value not in values:
            raise ConfigurationError(f"{name} in the PostgreSQL URL is one of {', '.join(values)}")
        if not keep:
            del self.parameters[name]
        return value

    def number(self, name: str, least: int, most: int) -> int | None:
        value = self.parameters.pop(name, None)
        if value is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise ConfigurationError(f"{name} in the PostgreSQL URL is a number from {least} to {most}")
        return int(value)


def _prepared(take: _Taker) -> bool | None:
    """Tell what the parameters of other drivers say of prepared statements."""
    pgbouncer = take.choice("pgbouncer", ("true", "false"))
    found = None if pgbouncer is None else pgbouncer == "false"
    for name in ("statement_cache_size", "prepared_statement_cache_size"):
        size = take.number(name, 0, 1_000_000)
        if size == 0:
            found = False
    return found


def _tls(take: _Taker, targets: tuple[Target, ...]) -> bool:
    """Check what is said of TLS; return whether the CAs of the system verify the certificate."""
    parameters = take.parameters
    if (ssl := take.choice("ssl", (*_SSL_MODES, "true", "false"))) is not None:
        # As asyncpg's users, JDBC and others write it.
        parameters.setdefault("sslmode", {"true": "require", "false": "disable"}.get(ssl, ssl))
    mode = take.choice("sslmode", _SSL_MODES, keep=True)
    take.choice("sslnegotiation", ("postgres", "direct"), keep=True)
    binding = take.choice("channel_binding", ("disable", "prefer", "require"))
    system = parameters.get("sslrootcert") == "system"
    if system and mode not in (None, "verify-full"):
        raise ConfigurationError("sslrootcert=system goes with sslmode=verify-full, for anybody can have a certificate")
    if binding == "require":
        if mode == "disable" or any(target.is_socket for target in targets):
            raise ConfigurationError(
                "channel_binding=require needs TLS; with sslmode=disable or a Unix socket there is none"
            )
        # The driver cannot bind. What binding is for, that nobody stands in between, a verified certificate gives too.
        if "sslrootcert" in parameters:
            parameters["sslmode"] = "verify-full"
        else:
            system = True
    if system:
        for name in ("sslcrl", "ssl_min_protocol_version", "ssl_max_protocol_version"):
            if name in parameters:
                raise ConfigurationError(f"{name} needs sslrootcert with the file of a CA")
    return system


def _targets(hosts: str, parameters: dict[str, str]) -> tuple[Target, ...]:
    """Read the servers from in front of the path, else from the parameters ``host`` and ``port``."""
    named, ports = parameters.pop("host", None), parameters.pop("port", None)
    specs = hosts.split(",") if hosts else []
    if not specs and named is not None:
        # A directory may have a colon in its name, which in front of the path is written %3A.
        specs = [quote(spec, safe="") if spec.startswith("/") else spec for spec in named.split(",")]
    if len(specs) > MAX_TARGETS:
        raise ConfigurationError(f"the PostgreSQL URL names {len(specs)} servers; {MAX_TARGETS} is the most")
    numbers = [_port(text) for text in ports.split(",")] if ports is not None else [None]
    if len(numbers) not in (1, max(1, len(specs))):
        raise ConfigurationError("port in the PostgreSQL URL is one number, or as many as there are hosts")
    numbers *= max(1, len(specs)) if len(numbers) == 1 else 1
    if not specs:
        return (Target(None, numbers[0]),)
    return tuple(_target(spec, number) for spec, number in zip(specs, numbers, strict=True))


def _target(spec: str, port: int | None) -> Target:
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\](?::(.*))?", spec)
    if bracketed is not None:
        host, own = bracketed[1], bracketed[2]
    elif spec.count(":") > 1:
        raise ConfigurationError("an IPv6 address in a PostgreSQL URL stands in brackets: [::1]:5432; else " + _ENCODE)
    else:
        host, _, own = spec.partition(":")
        host = unquote(host)
    if not host or (not host.startswith("/") and re.search(r"[\s/\[\]]", host)):
        raise ConfigurationError(f"the PostgreSQL URL has a host that cannot be read; {_ENCODE}")
    return Target(host, _port(own) if own else port)


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= 65_535:
        raise ConfigurationError(f"the PostgreSQL URL has a port that is no number from 1 to 65535; {_ENCODE}")
    return int(text)
