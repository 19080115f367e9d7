"""The setting ``COLLAB`` of a project, and what the server is given of the rest of Django's settings.

Strategy: keys are upper case, as everywhere in Django. A few belong to this application; all others are the options of
the server (`collab.settings.Settings`), so none of them is written down twice. An unknown key is an error and not a
silence. What is not given has a default that works at once: the secret is derived from ``SECRET_KEY``, documents are
stored in the project's PostgreSQL in a schema of their own, or in a SQLite file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS
from django.dispatch import receiver
from django.utils.crypto import salted_hmac
from django.utils.module_loading import import_string

from collab.auth.keys import secret_key
from collab.errors import ConfigurationError
from collab.net import is_loopback
from collab.settings import Settings, near

Permission = Callable[[Any, str], Any]
"""``permission(user, document)``: "read", "write", "admin" or None; plain or async."""

SALT: Final = "collab.contrib.django"

_POSTGRESQL: Final = ("django.db.backends.postgresql", "django.contrib.gis.db.backends.postgis")

# Options of Django's backend that say how its own connections are used, and nothing of the way to the database.
_ITS_OWN: Final = frozenset({"isolation_level", "pool", "server_side_binding", "client_encoding", "cursor_factory"})


@dataclass(frozen=True)
class Conf:
    """What this application is told.

    Attributes:
        permission: decides who may do what.
        server_url: where Django's processes reach the HTTP API of the server, without a slash at the end.
        server_url_is_a_guess: nobody has said it, so it is that of a server on this machine.
        server_seconds: how long they wait for an answer of it.
        token_seconds: how long a token of the view is good.
        recheck_seconds: after how long the function is asked again about a live session.
        threads: calls of the function, of receivers and of the mirror at a time.
        schema: the schema of PostgreSQL in which documents are; None where they are elsewhere.
        database: the alias of that database; None where documents are elsewhere.
        options: of the server.
    """

    permission: Permission = field(repr=False)
    server_url: str
    server_url_is_a_guess: bool
    server_seconds: float
    token_seconds: float
    recheck_seconds: float
    threads: int
    schema: str | None
    database: str | None
    options: Mapping[str, object] = field(repr=False)

    def server_settings(self, given: Mapping[str, object] | None = None) -> Settings:
        """Give the settings of the server, those ``given`` first; raises ``ConfigurationError``."""
        return _settings({**self.options, **(given or {})})

    @property
    def secret(self) -> str:
        """The secret by which Django and the server know each other's tokens."""
        return str(self.options["jwt_secret"])


def _seconds(least: float, most: float) -> Callable[[str, object], object]:
    def check(key: str, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigurationError(f"COLLAB[{key!r}] is a number from {least:g} to {most:g}, not {value!r}")
        return float(value)

    return check


def _threads(key: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
        raise ConfigurationError(f"COLLAB[{key!r}] is a number from 1 to 100, not {value!r}")
    return value


def _permission(key: str, value: object) -> object:
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            raise ConfigurationError(f"COLLAB[{key!r}]: {error}") from None
        except Exception as error:
            raise ConfigurationError(f"COLLAB[{key!r}]: importing it raised {type(error).__name__}") from error
    if not callable(value):
        raise ConfigurationError(f"COLLAB[{key!r}] is the dotted path of a function permission(user, document)")
    return value


def _url(key: str, value: object) -> object:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError(f"COLLAB[{key!r}] is an address as in http://127.0.0.1:1234")
    return str(value).rstrip("/")


def _schema(key: str, value: object) -> object:
    if not isinstance(value, str) or not value.isascii() or not value.isidentifier() or value != value.lower():
        raise ConfigurationError(f"COLLAB[{key!r}] is the name of a schema, in lower case, not {value!r}")
    return value


def _alias(key: str, value: object) -> object:
    if value not in django_settings.DATABASES:
        raise ConfigurationError(f"COLLAB[{key!r}] is a key of DATABASES, not {value!r}")
    return value


_OWN: Final[Mapping[str, tuple[object, Callable[[str, object], object]]]] = {
    "PERMISSION": (None, _permission),
    "SERVER_URL": (None, _url),
    "SERVER_SECONDS": (5.0, _seconds(0.1, 60)),
    "TOKEN_SECONDS": (300.0, _seconds(10, 86_400)),
    "RECHECK_SECONDS": (60.0, _seconds(1, 86_400)),
    "THREADS": (8, _threads),
    "SCHEMA": ("collab", _schema),
    "DATABASE": (None, _alias),
}
"""The keys that belong to this application: the default, and what checks a value."""


@functools.cache
def get_conf() -> Conf:
    """Give what ``COLLAB`` says, read once; raises ``ConfigurationError`` for the first thing that is wrong."""
    conf, errors = read_conf()
    if errors or conf is None:
        raise ConfigurationError(errors[0])
    return conf


@receiver(setting_changed)
def _forget(**given: object) -> None:
    """Read the settings anew: a test has overridden some."""
    get_conf.cache_clear()


def read_conf() -> tuple[Conf | None, list[str]]:
    """Read ``COLLAB``; give what it says, None if it cannot be used, and all that is wrong with it."""
    given = getattr(django_settings, "COLLAB", {})
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        return None, ["COLLAB is a dict whose keys are texts"]
    errors: list[str] = []
    own: dict[str, Any] = {}
    for key, (default, check) in _OWN.items():
        value = given.get(key, default)
        if value is None:
            own[key] = None
            continue
        try:
            own[key] = check(key, value)
        except ConfigurationError as error:
            errors.append(str(error))
    if "PERMISSION" not in given:
        errors.append('COLLAB has no "PERMISSION": the dotted path of a function permission(user, document)')
    options = _options(given, errors)
    if errors:
        return None, errors
    try:
        return _joined(own, options), []
    except ConfigurationError as error:
        return None, [str(error)]


def _options(given: Mapping[str, object], errors: list[str]) -> dict[str, object]:
    """Return the options of the server by the names of ``Settings``; what is wrong is added to ``errors``."""
    fields = {name.upper(): name for name in Settings.model_fields}
    options: dict[str, object] = {}
    for key, value in given.items():
        if key in _OWN:
            continue
        if key not in fields:
            hint = near(key, [*_OWN, *fields]) or "docs/django.md and docs/configuration.md list what there is"
            errors.append(f"COLLAB has an unknown key {key!r}; {hint}")
            continue
        options[fields[key]] = value
        try:
            _settings({fields[key]: value})
        except ConfigurationError as error:
            errors.append(f"COLLAB[{key!r}]: {str(error).partition(': ')[2] or error}")
    if options.get("workers", 1) != 1:
        errors.append("COLLAB['WORKERS']: collab_serve is one process; start it several times, each with its own port")
    if options.get("auth_url") is not None:
        errors.append("COLLAB['AUTH_URL'] goes without this application: PERMISSION decides")
    return options


def _settings(values: dict[str, Any]) -> Settings:
    return Settings(**values)


def _joined(own: Mapping[str, Any], options: dict[str, object]) -> Conf:
    """Add what follows from the rest of Django's settings."""
    schema = database = None
    if options.get("database_url") is None:
        database = own["DATABASE"] or DEFAULT_DB_ALIAS
        url = database_url(django_settings.DATABASES.get(database, {}), own["SCHEMA"])
        if url is not None:
            options["database_url"], schema = url, own["SCHEMA"]
        elif own["DATABASE"] is not None:
            raise ConfigurationError(f"COLLAB['DATABASE']: {database!r} is no PostgreSQL database")
        else:
            database = None
            base = getattr(django_settings, "BASE_DIR", None)
            if base is not None:
                options.setdefault("data_dir", Path(base) / "data")
    if options.get("jwt_secret") is None:
        options["jwt_secret"] = salted_hmac(SALT, "tokens", algorithm="sha256").hexdigest()
    secret_key(str(options["jwt_secret"]))
    found = _settings(options)
    return Conf(
        permission=own["PERMISSION"],
        server_url=own["SERVER_URL"] or _own_address(found),
        server_url_is_a_guess=own["SERVER_URL"] is None,
        server_seconds=own["SERVER_SECONDS"],
        token_seconds=own["TOKEN_SECONDS"],
        recheck_seconds=own["RECHECK_SECONDS"],
        threads=own["THREADS"],
        schema=schema,
        database=database,
        options=options,
    )


def _own_address(settings: Settings) -> str:
    """Give the address of a server on this machine."""
    host = next((host for host in settings.host if is_loopback(host)), "127.0.0.1")
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port or 1234}"


def database_url(database: Mapping[str, Any], schema: str) -> str | None:
    """Make the address of one of ``DATABASES``, for tables in ``schema``; None if it is no PostgreSQL.

    Raises:
        ConfigurationError: it has an option that the server does not know.
    """
    if database.get("ENGINE") not in _POSTGRESQL:
        return None
    options = {key: value for key, value in database.get("OPTIONS", {}).items() if key not in _ITS_OWN}
    if "assume_role" in options:
        raise ConfigurationError("DATABASES has the option assume_role: give the server COLLAB['DATABASE_URL']")
    host, port = str(database.get("HOST") or ""), str(database.get("PORT") or "")
    if host.startswith("/"):  # a directory with a Unix socket
        options["host"], host = host, ""
        if port:
            options["port"], port = port, ""
    # The last one counts: what the project says of the search path is about its own tables.
    options["options"] = f"{options.get('options', '')} -csearch_path={schema}".strip()
    user, password = database.get("USER") or "", database.get("PASSWORD") or ""
    who = quote(str(user), safe="") + (f":{quote(str(password), safe='')}" if password else "")
    where = (f"[{host}]" if ":" in host and not host.startswith("[") else host) + (f":{port}" if port else "")
    name = quote(str(database.get("NAME") or ""), safe="")
    query = urlencode({key: _plain(value) for key, value in options.items()}, quote_via=quote)
    return f"postgresql://{f'{who}@' if who else ''}{where}/{name}?{query}"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)
