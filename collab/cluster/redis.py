"""The bus on Redis or Valkey: publish and subscribe, one channel for each document.

Strategy: a node listens to the channels of what it has open and to one that all nodes have in common, on a connection
of its own; it publishes on another, all that was said in one turn of the loop at once. What at least half of the nodes
have open is said on the common channel, in one frame for all documents of that turn: a message of Redis costs a node as
much CPU as some edits. A subscription is told to the others only when the server has confirmed it, so who is told of it
can be heard. Nothing is stored in Redis: it may be emptied, restarted or replaced at any time.

On a Redis Cluster the channels are sharded ones (Redis 7, Valkey), so a message concerns one server of it alone. Two
channels have no order there, so each document keeps to its own.

Frames are written to a connection of the library's, and read from one, without the layers that it has above: they cost
several times what a frame does.

All channels of one database have a name of their own in front (``identity``): deployments may share a Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from collab.cluster.network import BusDown, NetworkBus
from collab.cluster.peers import Outgoing
from collab.cluster.wire import COMMON
from collab.errors import ConfigurationError

FRAME_BYTES: Final = 256 * 1024
"""Bytes of a frame; what is longer goes in several."""

ROW_BYTES: Final = 64 * 1024
"""Bytes of rows that travel in a message; longer ones are read from the log."""

CONNECT_SECONDS: Final = 5.0

# For a connection to be closed.
_CLOSE_SECONDS: Final = 1.0

# Between two looks whether a server of a cluster has a channel of ours by now.
_NO_CHANNEL_SECONDS: Final = 0.01

_SENTINEL_PORT: Final = 26_379

_ERRORS: Final = (RedisError, OSError, asyncio.TimeoutError, ValueError)

_FORMS: Final = (
    "the Redis URL is redis://host:6379, rediss:// with TLS, unix:///path, redis+sentinel://host,host/service or "
    "redis+cluster://host:6379"
)


class RedisBus(NetworkBus):
    """One node's end of the bus; see ``collab.cluster.bus.Bus`` for the promise.

    Args:
        url: see ``check_url``.
        identity: asks for a name that only nodes on the same database have; raises ``BusDown``.
    """

    presence_seconds = 0.0
    row_bytes = ROW_BYTES

    def __init__(self, url: str, identity: Callable[[], Awaitable[str]]) -> None:
        super().__init__(FRAME_BYTES, streams=True, what="the bus on Redis")
        check_url(url)
        self._url = url
        self._identity = identity
        self._prefix = b""
        self._client: Any = None
        self._sentinel: Any = None
        self._pubsub: Any = None
        self._line: Any = None  # on which this node publishes
        self._readers: list[asyncio.Task[None]] = []
        self._sharded = False
        self._wanted: set[bytes] = set()
        self._asked: set[bytes] = set()
        self._unconfirmed: set[bytes] = set()
        self._confirmed = asyncio.Event()

    async def _connect(self) -> None:
        self._prefix = b"collab:%s:" % (await self._identity()).encode()
        try:
            async with asyncio.timeout(2 * CONNECT_SECONDS):
                self._sharded, self._client, self._sentinel = await _open(self._url)
                await self._client.ping()
                self._peers.ordered = not self._sharded
                if not self._sharded:
                    self._line = await self._client.connection_pool.get_connection()
                self._pubsub = self._client.pubsub()
                self._asked, self._unconfirmed = set(), set()
                await self._ask({COMMON})
                # A cluster has a connection for each of its servers.
                nodes = self._client.get_primaries() if self._sharded else [None]
                self._readers = [
                    asyncio.create_task(self._read(self._pubsub, node), name="reading the bus on Redis")
                    for node in nodes
                ]
                await self._until_confirmed()
        except _ERRORS as error:
            raise BusDown(_explain(error)) from None

    async def _send(self, frames: list[Outgoing]) -> None:
        try:
            await self._follow_all()
            if self._sharded:
                # Each stream has a server of its own; within a stream the order is kept.
                streams: dict[bytes, list[bytes]] = {}
                for stream, data in frames:
                    streams.setdefault(stream, []).append(data)
                await asyncio.gather(*[self._send_sharded(stream, found) for stream, found in streams.items()])
                return
            line = self._line
            commands = [("PUBLISH", self._channel(stream), data) for stream, data in frames]
            await line.send_packed_command(line.pack_commands(commands), check_health=False)
            for _ in commands:
                await line.read_response()
        except _ERRORS as error:
            raise BusDown(_explain(error)) from None

    async def _send_sharded(self, stream: bytes, found: list[bytes]) -> None:
        for data in found:
            await self._client.execute_command("SPUBLISH", self._channel(stream), data)

    async def _disconnect(self) -> None:
        readers, self._readers = self._readers, []
        pubsub, client, sentinel = self._pubsub, self._client, self._sentinel
        self._pubsub = self._client = self._sentinel = self._line = None
        # First, for a reader whose connection is closed would open it again.
        await _end(readers)
        for one in (pubsub, client, *([] if sentinel is None else sentinel.sentinels)):
            if one is not None:
                with contextlib.suppress(*_ERRORS):
                    async with asyncio.timeout(_CLOSE_SECONDS):
                        await one.aclose()
        await _end(readers)

    # Channels

    def _channel(self, stream: bytes) -> bytes:
        return self._prefix + (b"nodes" if stream == COMMON else stream.hex().encode())

    def _follow(self, stream: bytes) -> None:
        self._wanted.add(stream)

    def _leave(self, stream: bytes) -> None:
        self._wanted.discard(stream)

    async def _follow_all(self) -> None:
        """Listen to what is wanted, and to nothing else; return when the server has confirmed it."""
        wanted = self._wanted | {COMMON}
        if wanted != self._asked:
            new, old = wanted - self._asked, self._asked - wanted
            if new:
                await self._ask(new)
            if old:
                channels = [self._channel(stream) for stream in old]
                await (self._pubsub.sunsubscribe if self._sharded else self._pubsub.unsubscribe)(*channels)
                self._asked -= old
                self._unconfirmed -= set(channels)
        await self._until_confirmed()

    async def _ask(self, streams: set[bytes]) -> None:
        channels = [self._channel(stream) for stream in streams]
        self._unconfirmed.update(channels)
        self._asked |= streams
        await (self._pubsub.ssubscribe if self._sharded else self._pubsub.subscribe)(*channels)

    async def _until_confirmed(self) -> None:
        while self._unconfirmed:
            self._confirmed.clear()
            await self._confirmed.wait()

    async def _read(self, pubsub: Any, node: Any) -> None:
        """Take what comes on the channels, of one server of a cluster, until the connection ends."""
        try:
            while pubsub is self._pubsub:
                if node is None:
                    response = await pubsub.connection.read_response(
                        timeout=math.inf, disconnect_on_error=False, push_request=True
                    )
                    if response[0] == b"message":
                        self._heard(response[2])
                        continue
                    message = await pubsub.handle_message(response)
                elif node.name not in pubsub.node_pubsub_mapping:
                    await asyncio.sleep(_NO_CHANNEL_SECONDS)
                    continue
                else:
                    message = await pubsub.get_sharded_message(timeout=1.0, target_node=node)
                if message is None:
                    continue
                kind = message["type"]
                if kind in ("message", "smessage"):
                    self._heard(message["data"])
                elif kind in ("subscribe", "ssubscribe"):
                    self._unconfirmed.discard(message["channel"])
                    self._confirmed.set()
        except _ERRORS as error:
            self._fail(_explain(error))
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._unconfirmed.clear()  # nobody waits for what does not come any more
            self._confirmed.set()


def check_url(url: str) -> None:
    """Raise ``ConfigurationError``, without repeating the URL, if it is none of a Redis."""
    try:
        parts = urlsplit(url)
        scheme = parts.scheme
        if scheme == "unix":
            good = bool(parts.path)
        elif scheme in ("redis", "rediss", "redis+cluster", "rediss+cluster"):
            good = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        elif scheme in ("redis+sentinel", "rediss+sentinel"):
            good = bool(parts.netloc) and parts.path.strip("/") != ""
        else:
            good = False
    except ValueError:
        good = False
    if not good:
        raise ConfigurationError(_FORMS)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks; the library may swallow a cancellation, so it is not waited for ever."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)


async def _open(url: str) -> tuple[bool, Any, Any]:
    """Make the client of a URL; tell whether its channels are sharded, and give the Sentinel it came from."""
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_SECONDS, "socket_keepalive": True}
    options["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)  # a service of one company
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    plain = parts._replace(scheme=scheme).geturl()
    if kind == "cluster":
        cluster = RedisCluster.from_url(plain, **options)
        await cluster.initialize()
        return True, cluster, None
    once: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}
    if kind == "sentinel":
        credentials: dict[str, Any] = {"username": _text(parts.username), "password": _text(parts.password)}
        credentials["ssl"] = scheme == "rediss"
        given = dict(parse_qsl(parts.query))
        service, _, database = parts.path.strip("/").partition("/")
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            [_address(text) for text in parts.netloc.rpartition("@")[2].split(",")],
            sentinel_kwargs={**options, "password": given.get("sentinel_password")},
            **options,
        )
        master = sentinel.master_for(unquote(service), db=int(database or 0), **credentials, **once)
        return False, master, sentinel
    if scheme == "unix":
        options = {"socket_connect_timeout": CONNECT_SECONDS}
    return False, Redis.from_url(plain, **options, **once), None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return text.strip("[]"), _SENTINEL_PORT
    return host.strip("[]"), int(port)


def _text(value: str | None) -> str | None:
    return None if value is None else unquote(value)


def _explain(error: BaseException) -> str:
    return str(error) or type(error).__name__
