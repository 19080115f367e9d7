"""The composition root: the only place where adapters are chosen and wired together.

Strategy: ``create_app`` builds everything from the settings without touching the outside, and hangs
start and stop onto the application's own signals, so that it works the same under ``collab serve``
and mounted into somebody else's aiohttp application. ``serve`` adds what a process of its own needs:
a socket, signals, an exit code.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator

from aiohttp import web

from collab.auth.access import Authenticator, OpenAccess
from collab.hub.compaction import CompactionPolicy
from collab.hub.hub import DAY, Hub, HubOptions
from collab.sandbox.pool import Sandbox
from collab.settings import Settings
from collab.storage import migrate
from collab.storage.journal import Journal
from collab.storage.sql import open_store
from collab.storage.urls import parse_database_url
from collab.telemetry import get_logger
from collab.transports.health import Readiness, healthz
from collab.transports.hocuspocus import HocuspocusConnection
from collab.transports.http_log import HttpLog
from collab.transports.static import add_static_routes, find_web_root
from collab.transports.websocket import WebSocketOptions, WebSockets
from collab.transports.ywebsocket import YWebSocketConnection

_log = get_logger()

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
UNSAVED: web.AppKey[list[str]] = web.AppKey("unsaved", list)

# Seconds that open HTTP requests get after the drain; sockets have been closed by then.
_HTTP_SHUTDOWN_SECONDS = 5.0


def create_app(settings: Settings, authenticator: Authenticator | None = None) -> web.Application:
    """Build the server as an aiohttp application.

    Serve it as it is, or mount it with ``parent.add_subapp("/collab", create_app(settings))``. The
    store is opened and, for SQLite, migrated when the application starts; on shutdown everything
    taken is stored before the sockets are closed.

    Args:
        settings: every option.
        authenticator: decides who may do what; without one everybody may do everything.
    """
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
    sockets = WebSockets(
        hub,
        authenticator or OpenAccess(),
        WebSocketOptions(
            max_message_bytes=settings.max_message_bytes,
            outbox_bytes=settings.outbox_bytes,
            keepalive=settings.keepalive_seconds,
            ping=settings.ping_seconds,
            auth=settings.auth_seconds,
            max_documents=settings.max_documents_per_connection,
            stateless=settings.stateless == "relay",
            max_stateless_bytes=settings.max_stateless_bytes,
            stateless_rate=settings.max_stateless_per_second,
            stamp_users=settings.stamp_users,
        ),
    )
    app = web.Application()
    app[HUB] = hub
    app[UNSAVED] = []

    async def run(app: web.Application) -> AsyncIterator[None]:
        if url.backend == "sqlite" or settings.migrate:
            await asyncio.to_thread(migrate.upgrade, url)
        try:
            await store.open()
            await hub.start()
            sockets.start()
            yield
        finally:
            await sandbox.close()
            await store.close()

    async def drain(app: web.Application) -> None:
        app[UNSAVED].extend(await hub.drain(settings.drain_seconds))
        await sockets.close()

    app.cleanup_ctx.append(run)
    app.on_shutdown.append(drain)
    app.router.add_route("GET", r"/ws/{name:[\s\S]*}", sockets.handler(YWebSocketConnection))
    app.router.add_route("GET", "/hocuspocus", sockets.handler(HocuspocusConnection))
    app.router.add_route("GET", "/hocuspocus/", sockets.handler(HocuspocusConnection))
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", Readiness(hub).handle)
    add_static_routes(app, find_web_root())
    return app


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Prints ``collab listening on http://HOST:PORT`` to standard output once connections are taken.
    0 means that everything taken was stored; 1 that something was not, with a line for each
    document on standard error.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = create_app(settings)
    runner = web.AppRunner(app, access_log=None, logger=HttpLog(), shutdown_timeout=_HTTP_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=4096)
        await site.start()
        # What stands now stays for ever: the collector need not look at it again, and a storm of
        # connects spends a third of its time there with the thresholds as they are by default.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        host, port = runner.addresses[0][:2]
        print(f"collab listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        await stop.wait()
        _log.info("stopping")
        await site.stop()
    finally:
        await runner.cleanup()
    for name in app[UNSAVED]:
        print(f"collab: not everything of the document {name!r} could be stored", file=sys.stderr, flush=True)
    return 1 if app[UNSAVED] else 0
