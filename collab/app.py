"""The composition root: the only place where adapters are chosen and wired together.

Strategy: ``create_app`` builds everything from the settings without touching the outside, and hangs
start and stop onto the application's own signals, so that it works the same under ``collab serve``
and mounted into somebody else's aiohttp application. ``serve`` adds what a process of its own needs:
a socket, signals, an exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator

from aiohttp import web

from collab.auth.access import Authenticator, OpenAccess
from collab.auth.factory import AuthOptions, make_authenticator, make_guest_tokens
from collab.auth.hook import Hook, HookAuthenticator
from collab.auth.tokens import TokenAuthenticator
from collab.errors import ConfigurationError
from collab.hub.compaction import CompactionPolicy
from collab.hub.hub import DAY, Hub, HubOptions
from collab.sandbox.pool import Sandbox
from collab.settings import SET_AUTHENTICATION, Settings
from collab.storage import migrate
from collab.storage.journal import Journal
from collab.storage.sql import open_store
from collab.storage.urls import parse_database_url
from collab.telemetry import get_logger
from collab.transports.addresses import parse_network
from collab.transports.api import add_api_routes
from collab.transports.door import Door, DoorOptions, Listener
from collab.transports.guard import Guard
from collab.transports.health import Readiness, healthz
from collab.transports.hocuspocus import HocuspocusConnection
from collab.transports.limits import Bounds, Limits
from collab.transports.memory import LIMIT_SHARE, MARK_SHARE, Memory, machine_memory
from collab.transports.origins import Origins
from collab.transports.peers import Peers
from collab.transports.shares import add_share_routes
from collab.transports.static import add_static_routes, find_web_root
from collab.transports.tls import Certificate
from collab.transports.websocket import WebSocketOptions, WebSockets
from collab.transports.ywebsocket import YWebSocketConnection

_log = get_logger()

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
GUARD: web.AppKey[Guard] = web.AppKey("guard", Guard)
UNSAVED: web.AppKey[list[str]] = web.AppKey("unsaved", list)

# Seconds that open HTTP requests get after the drain; sockets have been closed by then.
_HTTP_SHUTDOWN_SECONDS = 5.0

# Files beside the sockets of clients: the store, the sandbox, pipes, and connections that come and go.
_OTHER_FILES = 2_000


def create_app(settings: Settings, authenticator: Authenticator | Hook | None = None) -> web.Application:
    """Build the server as an aiohttp application.

    Serve it as it is, or mount it with ``parent.add_subapp("/collab", create_app(settings))``. The
    store is opened and, for SQLite, migrated when the application starts; on shutdown everything
    taken is stored before the sockets are closed.

    Args:
        settings: every option.
        authenticator: decides who may do what, instead of what the settings say of it: an async function, or
            an object. If that has async ``start`` and ``close``, they are awaited when the application starts
            and has ended.

    Without an authenticator, and none in the settings, everybody may do everything, and only clients on
    the same machine are served (``insecure`` serves the others too).

    Raises:
        ConfigurationError: something in the settings cannot be used.
    """
    if authenticator is None:
        authenticator = make_authenticator(auth_options(settings))
    url = parse_database_url(settings.database_url, settings.data_dir)
    store = open_store(url)
    journal = Journal(
        store,
        backlog_bytes=settings.backlog_bytes,
        gather=settings.gather_ms / 1000,
        clock=time.monotonic,
    )
    sandbox = Sandbox(settings.sandbox_processes, settings.sandbox_seconds, settings.sandbox_memory_bytes)
    hub = Hub(
        store,
        journal,
        sandbox,
        HubOptions(
            batch_window=settings.batch_window_ms / 1000,
            history=settings.history_days * DAY,
            max_document_bytes=settings.max_document_bytes,
            max_awareness_bytes=settings.max_awareness_bytes,
            max_awareness_ids=settings.max_awareness_ids,
            slow_seconds=settings.slow_seconds,
            sync_timeout=settings.sync_timeout_seconds,
            idle_seconds=settings.idle_seconds,
            compaction=CompactionPolicy(settings.compact_rows, settings.compact_bytes, settings.compact_ratio),
        ),
    )
    guard = make_guard(settings, authenticated=authenticator is not None)
    asked = None if authenticator is None else HookAuthenticator(authenticator, settings.auth_seconds)
    access = OpenAccess() if asked is None else asked
    sockets = WebSockets(
        hub,
        access,
        guard,
        WebSocketOptions(
            max_message_bytes=settings.max_message_bytes,
            outbox_bytes=settings.outbox_bytes,
            keepalive=settings.keepalive_seconds,
            ping=settings.ping_seconds,
            auth=settings.auth_seconds,
            max_documents=settings.max_documents_per_connection,
            max_waiting_bytes=settings.max_unauthenticated_bytes,
            stateless=settings.stateless == "relay",
            max_stateless_bytes=settings.max_stateless_bytes,
            stateless_rate=settings.max_stateless_per_second,
            stamp_users=settings.stamp_users,
        ),
    )
    app = web.Application(middlewares=[guard.middleware])
    app.on_startup.append(_without_wrappers)
    app.on_response_prepare.append(guard.on_prepare)
    app[HUB] = hub
    app[GUARD] = guard
    app[UNSAVED] = []

    async def run(app: web.Application) -> AsyncIterator[None]:
        if url.backend == "sqlite" or settings.migrate:
            await asyncio.to_thread(migrate.upgrade, url)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            stack.push_async_callback(sandbox.close)
            await store.open()
            if asked is not None:
                stack.push_async_callback(asked.close)
                await asked.start()
            await hub.start()
            sockets.start()
            sockets.tasks.spawn(guard.watch(), "watch of the guard")
            yield

    async def drain(app: web.Application) -> None:
        app[UNSAVED].extend(await hub.drain(settings.drain_seconds))
        await sockets.close()

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(drain)
    app.router.add_route("GET", r"/ws/{name:[\s\S]*}", sockets.handler(YWebSocketConnection))
    app.router.add_route("GET", "/hocuspocus", sockets.handler(HocuspocusConnection))
    app.router.add_route("GET", "/hocuspocus/", sockets.handler(HocuspocusConnection))
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", Readiness(hub, guard.limits.memory).handle)
    add_api_routes(app, hub, access, guard)
    # An application's own authenticator would not know the tokens that are signed with a secret of the settings.
    by_token = isinstance(authenticator, TokenAuthenticator)
    guests = make_guest_tokens(auth_options(settings), settings.max_share_seconds) if by_token else None
    add_share_routes(app, access, guard, guests)
    add_static_routes(app, find_web_root())
    return app


async def _without_wrappers(app: web.Application) -> None:
    """Take away the coroutine that aiohttp puts around each request of an application with middlewares.

    It says which of nested applications ``request.app`` is, which nothing here asks, and its frame would
    stay with every socket for as long as it lives (half a KiB). The name is private; aiohttp is pinned.
    """
    app.pre_freeze()  # else it would be done behind this, and would put the coroutine back
    handlers = app._middlewares_handlers
    assert handlers is not None
    app._middlewares_handlers = handlers[:-1]


def auth_options(settings: Settings) -> AuthOptions:
    """Say how access is decided."""
    return AuthOptions(
        secret=settings.jwt_secret,
        key_files=tuple(path.expanduser() for path in settings.jwt_keys),
        jwks_file=settings.jwks_file,
        jwks_url=settings.jwks_url,
        auth_url=settings.auth_url,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway=settings.jwt_leeway_seconds,
        jwks_ttl=settings.jwks_refresh_seconds,
        timeout=settings.auth_timeout_seconds,
        auth_cache=settings.auth_cache_seconds,
        allow_http=settings.auth_allow_http,
    )


def make_guard(settings: Settings, *, authenticated: bool) -> Guard:
    """Make what stands before the application."""
    own_machine_only = not authenticated and not settings.insecure
    there_is = machine_memory()
    bounds = Bounds(
        connections=settings.max_connections,
        connections_per_address=settings.max_connections_per_address,
        connections_per_user=settings.max_connections_per_user,
        connections_per_document=settings.max_connections_per_document,
        new_connections=settings.max_new_connections_per_second,
        requests=settings.max_requests_per_second,
        new_documents=settings.max_new_documents_per_minute,
        unauthenticated=settings.max_unauthenticated,
        messages=settings.max_messages_per_second,
        bytes=settings.max_bytes_per_second,
        awareness=settings.max_awareness_per_second,
        flood_seconds=settings.flood_seconds,
        spare_local=own_machine_only,
    )
    memory = Memory(
        int(there_is * MARK_SHARE) if settings.memory_mark_bytes is None else settings.memory_mark_bytes,
        int(there_is * LIMIT_SHARE) if settings.memory_limit_bytes is None else settings.memory_limit_bytes,
    )
    return Guard(
        Peers([parse_network(text) for text in settings.trusted_proxies], settings.proxy_headers),
        Origins(settings.allowed_origins, loopback=own_machine_only),
        Limits(bounds, memory),
        own_machine_only=own_machine_only,
    )


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Prints ``collab listening on http://HOST:PORT`` to standard output once connections are taken.
    0 means that everything taken was stored; 1 that something was not, with a line for each
    document on standard error. SIGHUP reads the certificate again.

    Raises:
        ConfigurationError: the server would be open by accident, or something in the settings cannot be used.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    authenticator = make_authenticator(auth_options(settings))
    settings.check_exposure(authenticator is not None)
    certificate = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        certificate = Certificate(settings.tls_cert, settings.tls_key)
    if hasattr(signal, "SIGHUP"):
        # Without a certificate too: the signal's own meaning is to end the process.
        loop.add_signal_handler(signal.SIGHUP, _reload, certificate)
    _warn(settings, authenticator is not None)
    raise_file_limit(settings.max_connections)
    app = create_app(settings, authenticator)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_HTTP_SHUTDOWN_SECONDS)
    await runner.setup()
    door = Door(
        app[GUARD],
        DoorOptions(
            settings.header_seconds,
            settings.http_idle_seconds,
            settings.slow_seconds,
            settings.max_connections_per_address,
        ),
    )
    watch = asyncio.create_task(door.watch(), name="watch of the door")
    try:
        site = Listener(
            runner, door, settings.host, settings.port, None if certificate is None else certificate.context
        )
        await site.start()
        # What stands now stays for ever: the collector need not look at it again, and a storm of
        # connects spends a third of its time there with the thresholds as they are by default.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        host, port = runner.addresses[0][:2]
        scheme = "http" if certificate is None else "https"
        print(f"collab listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        await stop.wait()
        _log.info("stopping")
        await site.stop()
    finally:
        await runner.cleanup()
        watch.cancel()
    for name in app[UNSAVED]:
        print(f"collab: not everything of the document {name!r} could be stored", file=sys.stderr, flush=True)
    return 1 if app[UNSAVED] else 0


def _reload(certificate: Certificate | None) -> None:
    """Do what SIGHUP asks for; a certificate that cannot be used leaves the one that is there."""
    if certificate is None:
        _log.info("SIGHUP: there is no certificate to read again, and options are read at the start only")
        return
    try:
        certificate.reload()
    except ConfigurationError as error:
        _log.error("SIGHUP: the certificate stays as it was: %s", error)
    else:
        _log.info("SIGHUP: new connections get the certificate as it is now")


def _warn(settings: Settings, authenticated: bool) -> None:
    """Say what is open on purpose."""
    if not authenticated:
        reach = "this machine alone is served" if not settings.insecure else "whoever reaches it gets everything"
        _log.warning(
            "no authentication: everybody may read and change every document, and %s; %s", reach, SET_AUTHENTICATION
        )
    elif settings.insecure and not settings.on_loopback and settings.tls_cert is None and not settings.behind_proxy:
        _log.warning("no TLS: whoever is on the way may read tokens and documents; set --tls-cert and --tls-key")


def raise_file_limit(connections: int) -> None:
    """Let the process have as many files as there may be connections, as far as the system lets it."""
    try:
        import resource
    except ImportError:
        return  # Windows, which has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    except (OSError, ValueError):
        possible = soft
    if possible < wanted:
        _log.warning(
            "the system allows %d files, which is not enough for --max-connections %d: raise it (ulimit -n, "
            "LimitNOFILE)",
            possible,
            connections,
        )
