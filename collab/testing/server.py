"""A whole server in a thread of this process, for the tests of applications that use one.

Strategy: the application is the one that serves in production, on a real port of this machine. It has an event loop and
a thread of its own, so a test may be synchronous or run on any loop. Documents are kept in memory unless the settings
name a database, and a server that is started again has them again, as one with a database has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from joserfc.jwk import OctKey

from collab.app import DRAIN, create_app
from collab.auth.access import Authenticator
from collab.auth.claims import ClaimRules, read_claims
from collab.auth.hook import Hook
from collab.auth.jwt import sign
from collab.errors import ConfigurationError, Unauthenticated
from collab.hooks import Hooks
from collab.loop import run_loop
from collab.settings import Settings
from collab.storage.memory import MemoryStorage, MemoryStore

HOST = "127.0.0.1"

CHOSEN = frozenset({"host", "port", "workers", "metrics_host", "metrics_port", "tls_cert", "tls_key"})
"""Options that say how a process of its own listens, and mean nothing here."""

_DEFAULTS: Mapping[str, Any] = {
    # The memory of this process is that of the tests.
    "memory_mark_bytes": 0,
    "memory_limit_bytes": 0,
    # Tests may end with clients that are still there.
    "drain_seconds": 2.0,
}

_END_SECONDS = 1.0


def make_settings(options: Mapping[str, Any]) -> Settings:
    """Make the settings of a server for tests: ``options`` by their names, else what suits a test, else the defaults.

    Raises:
        ConfigurationError: an option does not exist, is out of its bounds, or says how to listen.
    """
    if chosen := sorted(CHOSEN & options.keys()):
        raise ConfigurationError(f"{chosen[0]} has no meaning here: the server listens on {HOST}, on a free port")
    return Settings(**{**_DEFAULTS, **options})


def make_token(
    settings: Settings,
    user: str = "ada",
    documents: Mapping[str, Literal["read", "write", "admin"]] | None = None,
    *,
    name: str | None = None,
    seconds: float = 3_600,
) -> str:
    """Make a token (JWT, HS256) that a server with ``settings`` takes.

    Args:
        settings: they have ``jwt_secret``.
        user: who the bearer is, the claim ``sub``.
        documents: what it may do, by names, or by beginnings of names with a ``*`` behind; without it, write all.
        name: what others are shown of the user.
        seconds: how long the token is good; negative for one that has expired.

    Raises:
        ConfigurationError: the settings have no secret.
        ValueError: a claim is malformed.
    """
    if settings.jwt_secret is None:
        raise ConfigurationError("a token needs a secret to be signed with: set jwt_secret")
    now = time.time()
    claims: dict[str, Any] = {
        "sub": user,
        "name": name,
        "documents": {"*": "write"} if documents is None else dict(documents),
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        "exp": now + seconds,
    }
    claims = {claim: value for claim, value in claims.items() if value is not None}
    try:
        read_claims(claims, ClaimRules(settings.jwt_issuer, settings.jwt_audience), min(now, claims["exp"] - 1))
    except Unauthenticated as error:
        raise ValueError(error.public) from None
    return sign(claims, OctKey.import_key(settings.jwt_secret), "HS256")


def make_app(
    settings: Settings,
    authenticator: Authenticator | Hook | None = None,
    *,
    hooks: Sequence[Hooks] = (),
    storage: MemoryStorage | None = None,
) -> web.Application:
    """Make the application: with documents in memory (``storage``), or in a database if ``settings`` name one."""
    named = {"database_url", "data_dir"} & settings.model_fields_set
    return create_app(settings, authenticator, hooks=hooks, store=None if named else MemoryStore(storage))


class CollabServer:
    """A server that runs from ``start`` to ``stop``, or within ``with``.

    Args:
        settings: its options; see ``make_settings``.
        authenticator, hooks: as for ``collab.app.create_app``. They run in the server's thread.

    Attributes:
        settings: those.
        port: the port, once it was started; it keeps it when it is started again.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        authenticator: Authenticator | Hook | None = None,
        *,
        hooks: Sequence[Hooks] = (),
    ) -> None:
        self.settings = make_settings({}) if settings is None else settings
        self.port = 0
        self._parts = authenticator, hooks
        self._storage = MemoryStorage()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """``http://HOST:PORT``, for the HTTP API."""
        return f"http://{HOST}:{self.port}"

    @property
    def ws_url(self) -> str:
        """What a ``WebsocketProvider`` of y-websocket is given."""
        return f"ws://{HOST}:{self.port}/ws"

    @property
    def hocuspocus_url(self) -> str:
        """What a ``HocuspocusProvider`` and ``collab.client`` are given."""
        return f"ws://{HOST}:{self.port}/hocuspocus"

    def start(self) -> Self:
        """Start the server, and return when it takes connections.

        Raises:
            ConfigurationError: something in the settings cannot be used.
            OSError: the port is not free any more.
            RuntimeError: it runs.
        """
        if self._thread is not None:
            raise RuntimeError("the server runs")
        self._ready.clear()
        self._stop, self._failure = asyncio.Event(), None
        self._thread = threading.Thread(target=self._run, name="collab server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._loop is None:
            self.stop()
        return self

    def stop(self) -> None:
        """Stop it as SIGTERM does: everything taken is stored, then connections are closed. Twice does nothing.

        Raises:
            Exception: what the server has failed with.
        """
        if self._thread is None:
            return
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = self._loop = None
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def token(
        self,
        user: str = "ada",
        documents: Mapping[str, Literal["read", "write", "admin"]] | None = None,
        *,
        name: str | None = None,
        seconds: float = 3_600,
    ) -> str:
        """Make a token that this server takes, as ``make_token`` does."""
        return make_token(self.settings, user, documents, name=name, seconds=seconds)

    def _run(self) -> None:
        try:
            run_loop(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        authenticator, hooks = self._parts
        app = make_app(self.settings, authenticator, hooks=hooks, storage=self._storage)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_END_SECONDS)
        try:
            await runner.setup()
            await web.TCPSite(runner, HOST, self.port).start()
            self.port = int(runner.addresses[0][1])
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stop.wait()
            await app[DRAIN]()
        finally:
            await runner.cleanup()
