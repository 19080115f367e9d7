"""The bus on PostgreSQL: LISTEN and NOTIFY, on one connection of its own.

Strategy: all nodes of one schema share one channel. What is published in one turn of the loop, and while a
notification is under way, goes together into one statement, so at most one is under way and none delays a commit: the
transactions that hold edits notify nobody, for a NOTIFY at commit is held over the flush of the log by a lock of the
whole database. The statement is a transaction of its own, with ``synchronous_commit = off``: it writes nothing that
would have to be flushed. Payloads are text below 8,000 bytes: frames in base64.

A pooler in transaction mode takes LISTEN and forgets it. Where one is found nothing is sent, and the heads of the log
are looked at once a second instead; a direct address can be given for the bus alone.
"""

from __future__ import annotations

import asyncio
import binascii
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, Final

from collab.cluster.network import BusDown, NetworkBus
from collab.cluster.peers import Outgoing
from collab.cluster.wire import VERSION
from collab.errors import StoreUnavailable

FRAME_BYTES: Final = 5_990
"""Bytes of a frame: 7,988 characters of base64; PostgreSQL takes 7,999."""

AT_ONCE: Final = 64
"""Notifications in one statement."""

ROW_BYTES: Final = 4 * 1024
"""Bytes of rows that travel in a message: base64 of more would need more than one notification."""

PRESENCE_SECONDS: Final = 0.1
"""Seconds in which presence is gathered: each notification is a transaction."""

_SCHEMA: Final = "SELECT current_schema()"
_SETTINGS: Final = "SET synchronous_commit = off"
_NOTIFY: Final = "SELECT count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload"


class PostgresBus(NetworkBus):
    """One node's end of the bus; see ``collab.cluster.bus.Bus`` for the promise.

    Args:
        connect: opens a connection of asyncpg's to the server that takes writes; raises ``StoreUnavailable``.
        is_pooled: tells whether a connection goes through a pooler.
        errors: what asyncpg raises when it is not our mistake.
    """

    presence_seconds = PRESENCE_SECONDS
    row_bytes = ROW_BYTES

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        is_pooled: Callable[[Any], bool],
        errors: tuple[type[BaseException], ...],
    ) -> None:
        super().__init__(FRAME_BYTES, streams=False, what="the bus on PostgreSQL")
        self._open = connect
        self._is_pooled = is_pooled
        self._errors = errors
        self._raw: Any = None
        self._notify: Any = None  # the statement, prepared
        # How each payload of this node begins: nine bytes are twelve characters, whatever follows.
        self._own = b64encode(bytes((VERSION,)) + self._name).decode()
        self._channel = ""

    async def _connect(self) -> None:
        try:
            raw = self._raw = await self._open()
            if self._is_pooled(raw):
                raise BusDown(
                    "a pooler stands in between, which may not pass notifications on: give a direct address with "
                    "--listen-url"
                )
            raw.add_termination_listener(self._ended)
            # The name of a channel has 63 bytes at the most, that of a schema as well.
            schema = str(await raw.fetchval(_SCHEMA))
            self._channel = "collab_" + blake2b(schema.encode(), digest_size=8).hexdigest()
            await raw.execute(_SETTINGS)
            self._notify = await raw.prepare(_NOTIFY)
            await raw.add_listener(self._channel, self._notified)
        except StoreUnavailable as error:
            raise BusDown(str(error)) from None
        except self._errors as error:
            raise BusDown(str(error) or type(error).__name__) from None

    async def _send(self, frames: list[Outgoing]) -> None:
        try:
            for begin in range(0, len(frames), AT_ONCE):
                payloads = [b64encode(frame.data).decode() for frame in frames[begin : begin + AT_ONCE]]
                await self._notify.fetchval(self._channel, payloads)
        except self._errors as error:
            raise BusDown(str(error) or type(error).__name__) from None

    async def _disconnect(self) -> None:
        raw, self._raw, self._notify = self._raw, None, None
        if raw is not None:
            raw.remove_termination_listener(self._ended)
            raw.terminate()
            await asyncio.sleep(0)

    def _ended(self, raw: Any) -> None:
        if raw is self._raw:
            self._fail("the connection has ended")

    def _notified(self, raw: Any, process: int, channel: str, payload: str) -> None:
        if raw is not self._raw:
            return
        if payload.startswith(self._own):
            self._heard_itself()
            return
        try:
            data = b64decode(payload, validate=True)
        except (binascii.Error, ValueError):
            data = b""
        self._heard(data)
