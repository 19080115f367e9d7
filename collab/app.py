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
import ssl
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Protocol

from aiohttp import web

from collab.adapters import make_bus, make_maintenance, make_sandbox
from collab.agreement import node_facts, published_keys
from collab.audit import Audit
from collab.audit.writer import AuditWriter
from collab.auth.access import Authenticator, OpenAccess, ReadsCookies, ReadsScope
from collab.auth.factory import AuthOptions, make_authenticator, make_guest_tokens
from collab.auth.hook import MAX_QUESTIONS, Hook, HookAuthenticator
from collab.auth.remote import RemoteAuthenticator
from collab.auth.signing import Signer
from collab.auth.tokens import TokenAuthenticator
from collab.cluster.bus import Bus
from collab.errors import ConfigurationError
from collab.hooks import Hooks, check_hooks, load_hooks
from collab.hub.admission import Admission
from collab.hub.compaction import CompactionPolicy
from collab.hub.documents import Documents
from collab.hub.editing import Editing
from collab.hub.hook_server import HookServer
from collab.hub.hooks import HookCalls, HookOptions
from collab.hub.hub import DAY, Hub, HubOptions
from collab.hub.idempotency import Once
from collab.hub.membership import SIGNING_KEYS
from collab.hub.rewinding import Rewinding
from collab.hub.streaming import Streaming
from collab.hub.tenant_book import TenantOptions
from collab.hub.transfer import Transfer
from collab.hub.upkeep import Upkeep
from collab.hub.versions import HistoryOptions, Past
from collab.limits.arrivals import Arrivals
from collab.limits.disks import AUDIT, DATABASE, Disks
from collab.limits.exhaustion import EXIT_CODE, Exhaustion
from collab.limits.limits import Bounds, Limits
from collab.limits.memory import LIMIT_SHARE, MARK_SHARE, Memory, machine_memory
from collab.net import parse_network
from collab.outbound import Outbound
from collab.protocol.hocuspocus.connection import Limits as HocuspocusLimits
from collab.sandbox.counted import CountedSandbox
from collab.sandbox.port import Sandbox
from collab.settings import SET_AUTHENTICATION, Settings
from collab.storage import migrate
from collab.storage.journal import Journal
from collab.storage.lock import lock_database
from collab.storage.maintenance import Maintenance
from collab.storage.store import Store
from collab.storage.urls import DatabaseUrl, parse_database_url
from collab.systemd import Notifier
from collab.telemetry import complain, get_logger, keep_secrets_out, name_node, tell_left_out
from collab.telemetry.levels import levels
from collab.telemetry.loop_lag import LoopLag, Watchdog
from collab.transports.guard.door import Door, DoorOptions, Listener
from collab.transports.guard.guard import Guard
from collab.transports.guard.listening import announce, listen
from collab.transports.guard.origins import Origins
from collab.transports.guard.peers import Peers
from collab.transports.guard.tls import Certificate
from collab.transports.http.answers import Permission
from collab.transports.http.api.audit import AuditRoutes
from collab.transports.http.api.content import ContentRoutes
from collab.transports.http.api.control import ControlRoutes
from collab.transports.http.api.creation import Creation
from collab.transports.http.api.cursors import Cursors, make_cursors
from collab.transports.http.api.description import Description, serve_description
from collab.transports.http.api.documents import DocumentRoutes
from collab.transports.http.api.history import HistoryRoutes
from collab.transports.http.api.inspection import InspectionRoutes
from collab.transports.http.api.keys import KeyRoutes
from collab.transports.http.api.nodes import NodeRoutes
from collab.transports.http.api.page import serve_page
from collab.transports.http.api.people import PeopleRoutes
from collab.transports.http.api.reset import ResetRoutes
from collab.transports.http.api.route import add_routes
from collab.transports.http.api.shares import ShareRoutes
from collab.transports.http.api.tenants import TenantRoutes
from collab.transports.http.api.transfer import TransferRoutes
from collab.transports.http.api.trash import TrashRoutes
from collab.transports.http.api.updates import UpdateRoutes
from collab.transports.http.api.upkeep import UpkeepRoutes
from collab.transports.http.api.version_imports import VersionImportRoutes
from collab.transports.http.api.versions import VersionRoutes
from collab.transports.http.api.webhooks import WebhookRoutes
from collab.transports.http.bodies import LongBodies
from collab.transports.http.figures import Figures
from collab.transports.http.health import Readiness, healthz
from collab.transports.http.metrics import PATH, Exporter, MetricsPort
from collab.transports.http.metrics_list import Sources
from collab.transports.http.static import add_static_routes, find_web_root
from collab.transports.http.streams.awareness import AwarenessHandlers
from collab.transports.http.streams.live import LiveReaders
from collab.transports.http.streams.routes import StreamRoutes
from collab.transports.sockets.context import Context, WebSocketOptions
from collab.transports.sockets.deflate import Deflater
from collab.transports.sockets.hocuspocus import HocuspocusConnection
from collab.transports.sockets.intake import Gate
from collab.transports.sockets.pacing import Pacer
from collab.transports.sockets.parking import Parking
from collab.transports.sockets.websocket import WebSockets
from collab.transports.sockets.ywebsocket import YWebSocketConnection
from collab.webhooks.contents import Contents
from collab.webhooks.receivers import Receiver, read_receivers
from collab.webhooks.service import WebhookOptions, Webhooks

_log = get_logger()

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
GUARD: web.AppKey[Guard] = web.AppKey("guard", Guard)
READERS: web.AppKey[LiveReaders] = web.AppKey("readers", LiveReaders)
UNSAVED: web.AppKey[list[str]] = web.AppKey("unsaved", list)
LAG: web.AppKey[LoopLag] = web.AppKey("lag", LoopLag)
METRICS: web.AppKey[Exporter] = web.AppKey("metrics", Exporter)
DESCRIPTION: web.AppKey[Description] = web.AppKey("description", Description)

# Shares of the time for stopping. The delay has half of it at most; of what is left then, the closing of the sockets
# has a quarter, and the last of them an eighth to answer. The journal has the rest, but for what ends behind it (HTTP
# requests under way, the sandbox, the connections of the store): a tenth, and no more than some seconds.
_DELAY_SHARE = 1 / 2
_SOCKETS_SHARE = 1 / 4
_ANSWERS_SHARE = 1 / 8
_END_SHARE = 1 / 10
_END_SECONDS = 2.0

# Of what large messages may have on their way, what those get beside it that come from clients that may not write:
# they bring an answer of some MiB at the most, and must not take the room of those that bring edits.
_SHARE_OF_STRANGERS = 8

# Bytes of a receiver's answer, of which the status alone counts.
MAX_ANSWER = 64 * 1024

# Seconds until lines that were not shown are counted in the log, if no line of their kind has followed.
_TELL_SECONDS = 10.0

# Files beside the sockets of clients: the store, the sandbox, pipes, and connections that come and go.
OTHER_FILES = 2_000


class Stop:
    """What has been asked of a server that is to stop.

    Attributes:
        asked: it is to stop.
        hurried: it has been asked twice, so it does not wait for anybody's convenience.
        delayed: proxies get time to notice.
        drained: the sockets and the journal have been closed, or are just being closed.
        deadline: when it has stopped, by the loop; None while nobody has asked.
    """

    def __init__(self, seconds: float) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.delayed = self.drained = False
        self.deadline: float | None = None
        self._seconds = seconds

    def ask(self, *, delayed: bool = False) -> None:
        """Ask the server to stop; call it on the loop. The second time it hurries."""
        if self.asked.is_set():
            self.hurried.set()
        else:
            self.delayed = delayed
            self.deadline = asyncio.get_running_loop().time() + self._seconds
            self.asked.set()

    @property
    def left(self) -> float:
        """Seconds until it has stopped."""
        if self.deadline is None:
            return self._seconds
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    async def delay(self, seconds: float) -> None:
        """Let ``seconds`` pass, or less if there is a hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurried.wait(), seconds)


STOP: web.AppKey[Stop] = web.AppKey("stop", Stop)

DRAIN: web.AppKey[Callable[[], Awaitable[None]]] = web.AppKey("drain")
"""Closes the sockets in groups and writes what is left; the second time it does nothing. aiohttp calls it on shutdown,
but reads nothing more from the sockets then: whoever owns the runner awaits ``app[DRAIN]()`` before its cleanup."""


def create_app(
    settings: Settings,
    authenticator: Authenticator | Hook | None = None,
    *,
    hooks: Sequence[Hooks] = (),
    signer: Signer | None = None,
    store: Store | None = None,
    bus: Bus | None = None,
    sandbox: Sandbox | None = None,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    worked: Callable[[], float] = time.thread_time,
    random: Random | None = None,
) -> web.Application:
    """Build the server as an aiohttp application.

    Serve it as it is, or mount it with ``parent.add_subapp("/collab", create_app(settings))``. The
    store is opened and, for SQLite, migrated when the application starts; on shutdown everything
    taken is stored before the sockets are closed.

    Args:
        settings: every option.
        authenticator: decides who may do what, instead of what the settings say of it: an async function, or
            an object. If that has async ``start`` and ``close``, they are awaited when the application starts
            and has ended.
        hooks: code of the caller's that is told of documents and may decide on a few things (docs/hooks.md); called
            behind those that the settings name.
        signer: signs what is sent to other servers, instead of one that is made of the settings.
        store: where documents are kept, instead of the database of the settings (docs/adapters.md). It is opened and
            closed with the application.
        bus: how this node talks with others; without one it stays alone.
        sandbox: where whole documents are worked on, instead of processes of its own. It is closed with the
            application.
        clock: wall-clock time in Unix seconds; intervals are measured by the event loop's time.
        monotonic: the event loop's time, where that has only milliseconds (uvloop), more exactly.
        worked: seconds of CPU that the loop's thread has used; it decides how long edits gather.
        random: spreads what would else happen in step.

    Without an authenticator, and none in the settings, everybody may do everything, and only clients on
    the same machine are served (``insecure`` serves the others too).

    Raises:
        ConfigurationError: something in the settings cannot be used.
    """
    if signer is None:
        signer = make_signer(settings, clock)
    if authenticator is None:
        authenticator = make_authenticator(auth_options(settings), signer)
    found = check_hooks([*load_hooks(settings.hooks), *hooks])
    given, random = random, Random() if random is None else random
    url = None
    if store is None:
        url = parse_database_url(settings.database_url, settings.data_dir)
        store = make_maintenance(url)
    if sandbox is None:
        sandbox = make_sandbox(settings.sandbox_processes, settings.sandbox_seconds, settings.sandbox_memory_bytes)
    jobs = CountedSandbox(sandbox)
    journal = Journal(
        store,
        backlog_bytes=settings.backlog_bytes,
        gather=settings.gather_ms / 1000,
        clock=monotonic,
        random=random,
    )
    hub = Hub(
        store,
        journal,
        jobs,
        HubOptions(
            batch_window=settings.batch_window_ms / 1000,
            history=settings.history_days * DAY,
            trash=settings.trash_days * DAY,
            max_document_bytes=settings.max_document_bytes,
            max_awareness_bytes=settings.max_awareness_bytes,
            max_awareness_ids=settings.max_awareness_ids,
            max_pending_bytes=settings.max_pending_bytes,
            slow_seconds=settings.slow_seconds,
            sync_timeout=settings.sync_timeout_seconds,
            min_rate=settings.min_bytes_per_second,
            idle_seconds=settings.idle_seconds,
            compaction=CompactionPolicy(settings.compact_rows, settings.compact_bytes, settings.compact_ratio),
            keep_deleted=settings.keep_deleted,
            histories=history_options(settings),
            tenants=tenant_options(settings),
            node=node_facts(
                settings,
                authenticated=authenticator is not None,
                shared=url is not None and url.backend == "postgresql",
                hooks=found,
                signer=signer,
            ),
        ),
        make_bus(url, settings.listen_url, settings.redis_url) if bus is None else bus,
        clock,
        monotonic=monotonic,
        worked=worked,
    )
    if signer is not None:
        signer.on_reload = lambda: hub.membership.facts.tell(SIGNING_KEYS, published_keys(signer))
    if found:
        options = HookOptions(settings.hook_seconds, settings.hook_interval_seconds, settings.max_stateless_bytes)
        hub.hooks = HookCalls(found, options, hub)
    hub.audit.sign_ins = settings.audit_sign_ins
    guard = make_guard(
        settings,
        authenticated=authenticator is not None,
        audit=hub.audit,
        reads_cookies=authenticator if isinstance(authenticator, ReadsCookies) else None,
        reads_scope=isinstance(authenticator, ReadsScope),
    )
    asked = None
    if authenticator is not None:
        # Our own bound what they ask themselves, and answer what they know without asking.
        own = isinstance(authenticator, RemoteAuthenticator | TokenAuthenticator)
        at_a_time = None if own else MAX_QUESTIONS
        asked = HookAuthenticator(authenticator, settings.auth_seconds, at_a_time=at_a_time)
    access = OpenAccess() if asked is None else asked
    admission = Admission(hub, access, guard.limits, stamp_users=settings.stamp_users)
    deflater = Deflater() if settings.compression == "large" else None
    context = Context(hub, admission, guard, socket_options(settings), Pacer(), make_gate(settings), random, deflater)
    sockets = WebSockets(context)
    readers = LiveReaders(admission, guard, context.numbers, settings.outbox_bytes, random)
    hub.people.sockets = lambda: [
        facts for _, facts in sorted([*sockets.describe(), *readers.describe()], key=itemgetter(0))
    ]
    hub.membership.facts.connections = lambda: (
        len(readers) + sum([counts.open for counts in sockets.counted().values()])
    )
    keep_secrets_out()
    if (tenants := hub.tenants) is not None:
        guard.on_answer = lambda name, response: tenants.answered(name, response.content_length or 0)
    app = web.Application(middlewares=[guard.middleware])
    app.on_startup.append(_without_wrappers)
    app.on_response_prepare.append(guard.on_prepare)
    app[HUB] = hub
    app[GUARD] = guard
    app[READERS] = readers
    app[UNSAVED] = []
    app[STOP] = stop = Stop(settings.drain_seconds)
    editing = Editing(hub, admission, jobs, given)
    if hub.hooks is not None:
        hub.hooks.server = HookServer(hub, editing, settings.max_stateless_bytes)
    webhooks = make_webhooks(settings, hub, Contents(store, editing.read), clock, random, signer)
    lag, tasks = LoopLag(), (hub.tasks, context.tasks, *(() if webhooks is None else (webhooks.tasks,)))
    counted = None if webhooks is None else webhooks.counts
    app[LAG] = lag
    disks = Disks(_places(settings, url))
    sources = Sources(hub, guard, sockets, readers, jobs, context.gate, lag, tasks, counted, disks)
    app[METRICS] = exporter = Exporter(sources)
    # A file is this node's own, and so is its disk; any other store is there for other nodes too.
    own_store = url is not None and url.backend == "sqlite"
    readiness = Readiness(hub, guard.limits.memory, context.tasks, own_store=own_store, disks=disks)
    figures = Figures(sources, hub.membership.facts, guard.limits.memory, readiness.look, hub.activity.look)
    hub.answering.append(figures.answer)

    async def run(app: web.Application) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if settings.audit_log is not None:
                writer = AuditWriter(settings.audit_log, hub.membership.name)
                await asyncio.to_thread(writer.start)
                hub.audit.write_to(writer)
                # First and so last: what happens while all ends is in it too.
                end = _time_for_the_end(settings)
                stack.push_async_callback(asyncio.to_thread, hub.audit.close, end)
            if url is not None and url.path is not None:
                # Before the migration: the server that is still there may be of the release before.
                stack.callback((await lock_database(url.path)).release)
            if url is not None and (url.backend == "sqlite" or settings.migrate):
                await asyncio.to_thread(migrate.upgrade, url)
            stack.push_async_callback(store.close)
            stack.push_async_callback(sandbox.close)
            await store.open()
            if asked is not None:
                stack.push_async_callback(asked.close)
                await asked.start()
            if hub.hooks is not None:
                await hub.hooks.start()
                stack.push_async_callback(hub.hooks.close)
            await hub.start()
            if webhooks is not None:
                stack.push_async_callback(webhooks.close)
                await webhooks.start()
            sockets.start()
            context.tasks.supervise(guard.watch, "watch of the guard")
            context.tasks.supervise(lag.watch, "watch of the loop")
            if disks:
                context.tasks.supervise(disks.watch, "watch of the disks")
            context.tasks.supervise(figures.watch, "figures of the last hour")
            context.tasks.supervise(_tell_left_out_forever, "counts of lines that were not shown")
            yield

    async def drain() -> None:
        if stop.drained:
            return
        hub.draining = stop.drained = True
        if not stop.asked.is_set():  # mounted elsewhere, where the time begins now
            stop.ask()
        # Sockets before the journal: what they bring until they are closed is stored too.
        await readers.close(stop.left * _SOCKETS_SHARE, stop.hurried)
        await sockets.close(stop.left * _SOCKETS_SHARE, stop.left * _ANSWERS_SHARE, stop.hurried)
        app[UNSAVED].extend(await hub.drain(max(0.0, stop.left - _time_for_the_end(settings))))
        if webhooks is not None:
            await webhooks.close()

    upkeep = Upkeep(hub, store, jobs, settings.data_dir / "damaged") if isinstance(store, Maintenance) else None
    permission = Permission(admission, guard)
    app.cleanup_ctx.append(run)
    app[DRAIN] = drain
    app.on_shutdown.append(lambda _: drain())
    app.router.add_route("GET", r"/ws/{name:[\s\S]*}", sockets.handler(YWebSocketConnection))
    app.router.add_route("GET", "/hocuspocus", sockets.handler(HocuspocusConnection))
    app.router.add_route("GET", "/hocuspocus/", sockets.handler(HocuspocusConnection))
    app.router.add_get("/healthz", healthz)
    app.router.add_get(PATH, exporter.for_admins(permission))
    app.router.add_get("/readyz", readiness.handle)
    # An application's own authenticator would not know the tokens that are signed with a secret of the settings.
    by_token = isinstance(authenticator, TokenAuthenticator)
    guests = make_guest_tokens(auth_options(settings), settings.max_share_seconds) if by_token else None
    documents = Documents(store, hub, clock, settings.keep_deleted, hub.resetting)
    creation = Creation(guard, Once(store), jobs, settings.max_document_bytes, random)
    rewinding = Rewinding(hub, editing, jobs, given)
    gate, past = context.gate, Past(hub.versions, jobs)
    bodies = LongBodies(guard, gate.arrivals, gate.largest, settings.min_bytes_per_second)
    # Where everybody may read everything there is nothing to hide.
    hidden = not admission.open_to_all
    secret = settings.cursor_secret or settings.jwt_secret
    cursors = make_cursors(secret, random if own_store else None) if hidden else Cursors(None)
    routes = [
        *DocumentRoutes(documents, hub, permission, creation, cursors).routes(),
        *TrashRoutes(documents, hub, permission, creation, cursors).routes(),
        *ResetRoutes(hub.resetting, permission, creation).routes(),
        *ControlRoutes(hub.control, permission, guard).routes(),
        *ShareRoutes(permission, guard, guests).routes(),
        *TransferRoutes(
            Transfer(store, documents, settings.max_document_bytes), permission, guard, settings.max_document_bytes
        ).routes(),
        *HistoryRoutes(rewinding, permission, guard, creation).routes(),
        *VersionRoutes(hub, permission, creation, settings.max_document_bytes).routes(),
        *VersionImportRoutes(hub.versions, permission, guard, settings.max_document_bytes).routes(),
        *ContentRoutes(editing, permission, guard, bodies, past).routes(),
        *UpdateRoutes(editing, permission, guard, bodies, past).routes(),
        *PeopleRoutes(
            hub, permission, guard, context.options.hocuspocus, context.options.stateless_rate, cursors
        ).routes(),
        *NodeRoutes(hub, permission).routes(),
        *InspectionRoutes(hub, store, permission).routes(),
        *UpkeepRoutes(hub, upkeep, permission).routes(),
        *WebhookRoutes(store, permission).routes(),
        *AuditRoutes(hub.audits, permission).routes(),
        *TenantRoutes(hub, permission).routes(),
        *KeyRoutes(signer).routes(),
    ]
    app[DESCRIPTION] = description = Description(routes)
    serve_description(app, description)
    serve_page(app, description)
    add_routes(app, routes, permission)
    presence = AwarenessHandlers(
        hub, permission, guard, readers, settings.max_awareness_bytes, settings.max_awareness_per_second
    )
    streaming = Streaming(hub, admission, editing)
    StreamRoutes(streaming, documents, creation, permission, guard, bodies, readers, presence).add_to(app)
    add_static_routes(app, find_web_root())
    return app


async def _tell_left_out_forever() -> None:
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        tell_left_out()


async def _without_wrappers(app: web.Application) -> None:
    """Take away the coroutine that aiohttp puts around each request of an application with middlewares.

    It says which of nested applications ``request.app`` is, which nothing here asks, and its frame would
    stay with every socket for as long as it lives (half a KiB). The name is private; aiohttp is pinned.
    """
    app.pre_freeze()  # else it would be done behind this, and would put the coroutine back
    handlers = app._middlewares_handlers
    assert handlers is not None
    app._middlewares_handlers = handlers[:-1]


def make_signer(settings: Settings, clock: Callable[[], float] = time.time) -> Signer | None:
    """Make what signs with the server's own keys; None if it has none.

    Raises:
        ConfigurationError: a key cannot be used, or nothing is signed.
    """
    if not settings.signing_keys:
        if "signing_issuer" in settings.model_fields_set:
            raise ConfigurationError("--signing-issuer goes with --signing-keys")
        return None
    files = [path.expanduser() for path in settings.signing_keys]
    return Signer(files, settings.signing_issuer, clock=clock)


def make_webhooks(
    settings: Settings,
    hub: Hub,
    contents: Contents,
    clock: Callable[[], float],
    random: Random,
    signer: Signer | None = None,
) -> Webhooks | None:
    """Make what tells receivers, and let the hub tell it; None if there are none.

    Raises:
        ConfigurationError: a receiver cannot be used.
    """
    receivers = read_receivers(
        settings.webhook_url, settings.webhook_secrets, settings.webhooks_file, signed=signer is not None
    )
    if not receivers:
        return None
    lease = 3 * hub.store.beat_seconds
    options = WebhookOptions(settings.webhook_interval_seconds, settings.webhook_disable_days * DAY, lease)
    told = [(receiver, make_outbound(settings, receiver)) for receiver in receivers]
    hub.watcher = made = Webhooks(hub.store, told, contents, hub.membership.name, options, clock, random, signer)
    return made


def make_outbound(settings: Settings, receiver: Receiver) -> Outbound:
    """Make the address of a receiver; raises ``ConfigurationError``."""
    return Outbound(
        receiver.url,
        option=f"the address of the receiver {receiver.name!r}",
        danger="over plain http whoever is on the way reads what happens to documents (--webhook-allow-http)",
        timeout=settings.webhook_timeout_seconds,
        max_bytes=MAX_ANSWER,
        allow_http=settings.webhook_allow_http,
        public_only=settings.webhook_public_only,
    )


def history_options(settings: Settings) -> HistoryOptions:
    """Say how history is kept."""
    spacing = settings.auto_version_minutes * 60.0
    kept = tuple((pattern, float(days) * DAY) for pattern, _, days in map(_split_history, settings.history_days_for))
    return HistoryOptions(spacing or None, kept)


def _split_history(text: str) -> tuple[str, str, str]:
    return text.rpartition("=")


def _places(settings: Settings, url: DatabaseUrl | None) -> dict[str, Path]:
    """Give directories on the disks of this machine that the server writes to."""
    places: dict[str, Path] = {}
    if url is not None and url.path is not None:
        places[DATABASE] = url.path.absolute().parent
    if settings.audit_log is not None:
        places[AUDIT] = settings.audit_log.absolute().parent
    return places


def tenant_options(settings: Settings) -> TenantOptions | None:
    """Say how tenants are told apart; None if they are not.

    Raises:
        ConfigurationError: there are quotas without tenants.
    """
    if settings.tenants == "off":
        if settings.quotas:
            raise ConfigurationError(f"--quota-{next(iter(settings.quotas)).replace('_', '-')} goes with --tenants")
        return None
    return TenantOptions(settings.tenants != "name", settings.quotas)


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
        tenant_claim=settings.tenants.partition(":")[2] or None,
    )


def socket_options(settings: Settings) -> WebSocketOptions:
    """Say what the sockets are told."""
    return WebSocketOptions(
        min_rate=settings.min_bytes_per_second,
        outbox_bytes=settings.outbox_bytes,
        keepalive=settings.keepalive_seconds,
        ping=settings.ping_seconds,
        auth=settings.auth_seconds,
        stateless_rate=settings.max_stateless_per_second,
        hocuspocus=HocuspocusLimits(
            documents=settings.max_documents_per_connection,
            waiting_bytes=settings.max_unauthenticated_bytes,
            stateless=settings.stateless == "relay",
            stateless_bytes=settings.max_stateless_bytes,
        ),
    )


def make_gate(settings: Settings) -> Gate:
    """Say how much may come in messages."""
    largest, arriving = settings.max_message_bytes, settings.max_arriving_bytes
    return Gate(
        largest,
        min(largest, settings.max_unauthenticated_bytes),
        Arrivals(arriving),
        Arrivals(arriving // _SHARE_OF_STRANGERS),
        None if settings.tenants == "off" else Parking(),
    )


def make_guard(
    settings: Settings,
    *,
    authenticated: bool,
    audit: Audit | None = None,
    reads_cookies: ReadsCookies | None = None,
    reads_scope: bool = False,
) -> Guard:
    """Make what stands before the application."""
    own_machine_only = not authenticated and not settings.insecure
    there_is = machine_memory() // settings.workers  # the others are on the same machine
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
        exempt_local=own_machine_only,
    )
    memory = Memory(
        int(there_is * MARK_SHARE) if settings.memory_mark_bytes is None else settings.memory_mark_bytes,
        int(there_is * LIMIT_SHARE) if settings.memory_limit_bytes is None else settings.memory_limit_bytes,
    )
    return Guard(
        Peers(
            [parse_network(text) for text in settings.trusted_proxies],
            settings.proxy_headers,
            frozenset() if reads_cookies is None else reads_cookies.cookies,
            scopes=reads_scope,
        ),
        Origins(
            settings.allowed_origins,
            loopback=own_machine_only,
            trusts=None if reads_cookies is None else reads_cookies.trusts,
        ),
        Limits(bounds, memory),
        own_machine_only=own_machine_only,
        audit=audit,
    )


class Supervisor(Protocol):
    """What stands above a server that is one of several on a port (`collab.workers`)."""

    @property
    def number(self) -> int:
        """Which one it is, from 1."""

    async def start(self, stop: Stop) -> None:
        """Wait until connections may be taken, or the server is to stop; from now on ask it to when nobody is above."""

    def listening(self, addresses: Sequence[str], metrics: str | None) -> None:
        """Hear that connections are taken, and where: ``http://HOST:PORT``, and the address of the metrics."""


async def serve(
    settings: Settings,
    supervisor: Supervisor | None = None,
    *,
    authenticator: Authenticator | Hook | None = None,
    hooks: Sequence[Hooks] = (),
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Prints ``collab listening on http://HOST:PORT`` to standard output once connections are taken, a line for each
    address, and behind it where metrics are, if they have a port of their own. That port is closed last.
    0 means that everything taken was stored; 1 that something was not, with a line for each
    document on standard error; 75 that there was no memory, and the server is to be started again. SIGHUP reads the
    certificate and the signing keys again and opens the audit log anew, SIGUSR1 turns the log level DEBUG on for ten
    minutes, or off again.

    With a ``supervisor`` that is told instead, and others listen on the same port. ``authenticator`` and ``hooks`` are
    those of `create_app`.

    Raises:
        ConfigurationError: the server would be open by accident, or something in the settings cannot be used.
        CollabError: an address cannot be listened on.
    """
    # A worker's parent speaks for all of them.
    notifier = Notifier.from_environment() if supervisor is None else Notifier()
    async with notifier.alive():
        return await _serve(settings, supervisor, authenticator, hooks, notifier)


async def _serve(
    settings: Settings,
    supervisor: Supervisor | None,
    authenticator: Authenticator | Hook | None,
    hooks: Sequence[Hooks],
    notifier: Notifier,
) -> int:
    loop = asyncio.get_running_loop()
    signer = make_signer(settings)
    if authenticator is None:
        authenticator = make_authenticator(auth_options(settings), signer)
    settings.check_exposure(authenticator is not None)
    settings.check_metrics()
    certificate = None
    if settings.tls_cert is not None and settings.tls_key is not None:
        certificate = Certificate(settings.tls_cert, settings.tls_key)
    if hasattr(signal, "SIGHUP"):
        # Without any of both, too: the signal's own meaning is to end the process.
        loop.add_signal_handler(signal.SIGHUP, _reload, certificate, signer, notifier)
    number = 1 if supervisor is None else supervisor.number
    if number == 1:
        warn(settings, authenticator is not None)
    raise_file_limit(settings.max_connections)
    app = create_app(settings, authenticator, hooks=hooks, signer=signer)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, _reload, certificate, signer, notifier, app[HUB].audit)
    end_tracing = _trace(settings, app, number)
    name_node(app[HUB].membership.name)
    if hasattr(signal, "SIGUSR1"):
        loop.add_signal_handler(signal.SIGUSR1, levels.toggle, loop.call_later)
    stop = app[STOP]
    # At a terminal nobody stands before the server who had to notice.
    loop.add_signal_handler(signal.SIGINT, stop.ask)
    loop.add_signal_handler(signal.SIGTERM, partial(stop.ask, delayed=True))
    # No body that is compressed is taken, so none is unpacked.
    end = _time_for_the_end(settings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=end, auto_decompress=False)
    await runner.setup()
    watchdog = Watchdog(app[LAG], settings.stall_limit_seconds)
    watchdog.start()
    metrics = make_metrics_port(settings, app[METRICS], number)
    with Exhaustion(stop.ask, lambda: app[HUB].journal.progress) as exhaustion:
        try:
            if metrics is not None:
                await metrics.start()  # first: what cannot be listened on is told before anybody is served
            if supervisor is not None:
                await supervisor.start(stop)
            sites: list[Listener] = []
            if supervisor is None or not stop.asked.is_set():
                sites = await _open(settings, app, runner, None if certificate is None else certificate.context)
                addresses, of_metrics = [site.name for site in sites], None if metrics is None else metrics.url
                (announce if supervisor is None else supervisor.listening)(addresses, of_metrics)
                notifier.ready(f"serving on {', '.join(addresses)}")
            if sites:
                app[HUB].membership.listens(sites[0].name)
            await stop.asked.wait()
            notifier.stopping(f"stopping, within {settings.drain_seconds:g} s")
            await _stop(settings, app, sites)
        finally:
            try:
                await runner.cleanup()
            finally:
                watchdog.close()
                if metrics is not None:
                    await metrics.close()  # last: how the server ends can be seen too
                if end_tracing is not None:
                    await asyncio.to_thread(end_tracing)
    for name in app[UNSAVED]:
        complain(f"not everything of the document {name!r} could be stored")
    if exhaustion.ended is not None:
        return EXIT_CODE
    return 1 if app[UNSAVED] else 0


def _trace(settings: Settings, app: web.Application, number: int) -> Callable[[], None] | None:
    """Begin to send the spans of this process, if they are wanted; give what ends it."""
    if settings.trace_url is None:
        return None
    # Together with what it brings it costs a start a tenth of a second.
    from collab.telemetry.tracing import start_tracing

    described: dict[str, str | int] = {"service.instance.id": app[HUB].membership.name, "collab.worker": number}
    return start_tracing(settings.trace_url, settings.trace_ratio, described)


async def _open(
    settings: Settings, app: web.Application, runner: web.AppRunner, context: ssl.SSLContext | None
) -> list[Listener]:
    """Begin to take connections."""
    door = Door(
        app[GUARD],
        DoorOptions(
            settings.header_seconds,
            settings.http_idle_seconds,
            settings.slow_seconds,
            settings.max_connections_per_address,
        ),
    )
    app[HUB].tasks.supervise(door.watch, "watch of the door")
    sockets = await listen(settings.host, settings.port, shared=settings.workers > 1)
    sites = [Listener(runner, door, sock, context) for sock in sockets]
    for site in sites:
        await site.start()
    # What stands now stays for ever: the collector need not look at it again, and a storm of
    # connects spends a third of its time there with the thresholds as they are by default.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    return sites


async def _stop(settings: Settings, app: web.Application, sites: Sequence[Listener]) -> None:
    """Do what has been asked of ``app[STOP]``, up to the cleanup of the runner."""
    stop = app[STOP]
    app[HUB].draining = True
    delay = min(settings.drain_delay_seconds, settings.drain_seconds * _DELAY_SHARE) if stop.delayed else 0.0
    if delay:
        _log.info("stopping: not ready any more, and closed to new connections in %g s", delay)
        await stop.delay(delay)
    _log.info("stopping: no new connections, within %.0f s", stop.left)
    for site in sites:
        await site.stop()
    # Not left to the cleanup: aiohttp reads nothing more from any connection before it tells the application.
    await app[DRAIN]()


def make_metrics_port(settings: Settings, exporter: Exporter, number: int) -> MetricsPort | None:
    """Make the listener for the metrics of this worker, if there is to be one."""
    if settings.metrics_port is None:
        return None
    return MetricsPort(
        exporter,
        settings.metrics_host,
        settings.metrics_port + number - 1 if settings.metrics_port else 0,
        head=settings.header_seconds,
        idle=settings.http_idle_seconds,
        slow=settings.slow_seconds,
    )


def _time_for_the_end(settings: Settings) -> float:
    """Give the seconds for what comes behind the journal."""
    return min(_END_SECONDS, settings.drain_seconds * _END_SHARE)


def _reload(
    certificate: Certificate | None, signer: Signer | None, notifier: Notifier, audit: Audit | None = None
) -> None:
    """Do what SIGHUP asks for, and tell systemd of it."""
    with notifier.reloading():
        writer = None if audit is None else audit.writer
        if writer is not None:
            writer.reopen()
            _log.info("SIGHUP: the audit log %s is opened anew", writer.path)
        if writer is None or certificate is not None or signer is not None:
            _read_again(certificate, signer)


def _read_again(certificate: Certificate | None, signer: Signer | None) -> None:
    """Read the files again; those that cannot be used leave what is there."""
    if certificate is None and signer is None:
        _log.info("SIGHUP: there is no certificate to read again, and no key; options are read at the start only")
    if certificate is not None:
        try:
            certificate.reload()
        except ConfigurationError as error:
            _log.error("SIGHUP: the certificate stays as it was: %s", error)
        else:
            _log.info("SIGHUP: new connections get the certificate as it is now")
    if signer is not None:
        try:
            signer.reload()
        except ConfigurationError as error:
            _log.error("SIGHUP: the signing keys stay as they were: %s", error)
        else:
            kids = ", ".join(key["kid"] for key in signer.published)
            _log.info("SIGHUP: the signing keys are read again: %s; the first one signs", kids)


def warn(settings: Settings, authenticated: bool) -> None:
    """Say what is open on purpose."""
    if not authenticated:
        reach = "this machine alone is served" if not settings.insecure else "whoever reaches it gets everything"
        _log.warning(
            "no authentication: everybody may read and change every document, and %s; %s", reach, SET_AUTHENTICATION
        )
    elif settings.insecure and not settings.on_loopback and settings.tls_cert is None and not settings.behind_proxy:
        _log.warning("no TLS: whoever is on the way may read tokens and documents; set --tls-cert and --tls-key")
    for path in filter(None, (settings.tls_key, settings.webhooks_file, *settings.signing_keys)):
        # What is missing is told where it is read.
        with contextlib.suppress(OSError):
            if path.expanduser().stat().st_mode & stat.S_IROTH:
                _log.warning("everybody on this machine can read %s, which holds secrets: chmod o-r", path)
    if find_web_root() is None:
        # pip shows nothing of what a build has warned of.
        _log.warning("no page was built when this was installed; / says how to build it, clients connect all the same")


def raise_file_limit(connections: int) -> None:
    """Let the process have as many files as there may be connections, as far as the system lets it."""
    try:
        import resource
    except ImportError:
        return  # Windows, which has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
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
