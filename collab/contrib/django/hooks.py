"""What the server process does for Django beside serving: signals, mirrors, and edits that wait.

Strategy: all of it is told by the server's hooks after the commit (docs/hooks.md), and done in threads. What a hook
misses, because the process died or the database was away, is made up for: a mirror that could not be written is tried
again, and when the server starts it looks at the documents that have changed since the last mirror was written.

A mirror that has met an edit on its way is not written, and the process that removes the edit notes that
(`collab.contrib.django.mirror` has the rule). So such notes are looked for, soon where one is to be expected.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.apps import apps

from collab.content.edits import Format
from collab.contrib.django.api import Api, ServerError
from collab.contrib.django.conf import Conf
from collab.contrib.django.fields import CollaborativeTextField
from collab.contrib.django.mirror import (
    Behind,
    find_behind,
    mirrored_fields,
    newest_mirror,
    put_off,
    write_mirror,
)
from collab.contrib.django.outbox import databases, send_pending
from collab.contrib.django.signals import document_changed
from collab.contrib.django.threads import Threads
from collab.errors import CollabError, DocumentDeleted, DocumentNotFound, NoSuchContent
from collab.hooks import Hooks, Rows, Server
from collab.telemetry import shown_name

_log = logging.getLogger("collab.django")

LOOK_SECONDS: Final = 5.0
"""Seconds between looks at edits that wait, and between tries of a mirror that could not be written."""

FIRST_LOOK_SECONDS: Final = 0.5
"""Seconds until the first look after the start; then twice as long each time, up to `LOOK_SECONDS`. And seconds after
which a mirror is tried again that was left out because an edit is on its way."""

MAX_BEHIND: Final = 1_000
"""Documents of one database whose fields are written anew in one look; the others have their turn in the next one."""

MAX_LATE: Final = 10_000
"""Documents whose mirror is tried again; past it the oldest is forgotten until its next change."""

_BEFORE: Final = timedelta(minutes=5)
"""How far before the last mirror documents are looked at when the server starts: several were on their way."""


class _Texts(NamedTuple):
    """What was read of a document.

    Attributes:
        texts: fields, each with what it is to show; empty if nothing is to be shown, or this is no document of a row.
        number: of the document in the store.
        last: the row of the log up to which nothing is missing in the texts.
    """

    texts: list[tuple[CollaborativeTextField, str]]
    number: int
    last: int


class DjangoHooks(Hooks):
    """Sends `document_changed`, keeps fields up to date, sends what waits; hand it to ``create_app(hooks=...)``."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._threads = Threads(conf.threads, "hooks")
        self._fields = mirrored_fields()
        self._late: OrderedDict[str, None] = OrderedDict()
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        # When the last mirror was written before this process began; None while that was not asked.
        self._before: tuple[datetime | None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a receiver, or something else in a thread, is under way."""
        return self._threads.busy

    async def start(self, server: Server) -> None:
        """Begin to look at what waits."""
        self._server = server
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="what waits for Django")

    async def close(self) -> None:
        """End looking; what hangs in a thread is left alone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._threads.close()

    async def changed(self, event: Rows, server: Server) -> None:
        """Write the mirrors, and then tell receivers, who see them."""
        try:
            await self._mirror(event.name, server)
        except Exception:
            self._late[event.name] = None
            self._late.move_to_end(event.name)
            if len(self._late) > MAX_LATE:
                self._late.popitem(last=False)
            raise
        finally:
            await self._threads.run(
                document_changed.send_robust,
                sender=apps.get_app_config("collab"),
                document=event.name,
                authors=event.authors,
                first=event.first,
                last=event.last,
                number=event.document,
            )

    async def _mirror(self, document: str, server: Server, since: datetime | None = None) -> int | None:
        """Read a document and write its mirror; return how many rows have changed, None if nothing is to be shown."""
        read = await self._read(document, server)
        rows = None
        if read.texts:
            rows, waits = await self._threads.run(write_mirror, read.texts, document, read.number, read.last, since)
            if waits:
                self._soon.set()
        self._late.pop(document, None)
        return rows

    async def _read(self, document: str, server: Server) -> _Texts:
        """Read what the fields are to show of a document."""
        found = _Texts([], 0, 0)
        for field in self._fields:
            if not field.may_be(document):
                continue
            try:
                content = await server.read(document, Format(field.format), field.root)
            except (DocumentNotFound, DocumentDeleted, NoSuchContent):
                continue  # nothing to be shown
            if content.document is None:
                continue  # nothing of it is stored: its first row is told of
            text = (field, content.value.decode())
            if content.document != found.number:
                # The first one; or it was deleted and created anew meanwhile, and what was read before is of the other.
                found = _Texts([text], content.document, content.last)
            else:
                found = _Texts([*found.texts, text], found.number, min(found.last, content.last))
        return found

    # What waits

    async def _watch(self) -> None:
        caught_up, pause = not self._fields, FIRST_LOOK_SECONDS
        while True:
            if self._before is None:
                # First of all: this process writes mirrors too.
                await self._attempt(self._look_back, pause)
            await self._rest(pause)  # at the start the server does not listen yet
            pause = min(2 * pause, LOOK_SECONDS)
            await self._attempt(self._send, pause)
            await self._attempt(self._again, pause)
            caught_up = caught_up or await self._attempt(self._catch_up, pause)

    async def _attempt(self, work: Callable[[], Awaitable[bool]], pause: float) -> bool:
        try:
            return await work()
        except Exception as error:
            # Its text may be that of a database, with values in it.
            _log.warning("%s: tried again in %g s: %s", work.__doc__, pause, type(error).__name__)
            return False

    async def _rest(self, seconds: float) -> None:
        """Wait, and write mirrors meanwhile that are left out because an edit is on its way."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(end):
                    await self._soon.wait()
            except TimeoutError:
                return
            self._soon.clear()
            await asyncio.sleep(FIRST_LOOK_SECONDS)
            await self._attempt(self._again, LOOK_SECONDS)

    async def _look_back(self) -> bool:
        """The newest mirror is looked for"""
        self._before = (await self._threads.run(newest_mirror),)
        return True

    async def _send(self) -> bool:
        """Edits that wait are sent"""
        for alias in await self._threads.run(databases):
            await self._threads.run(send_pending, alias)
        return True

    async def _again(self) -> bool:
        """Mirrors that were not written are written"""
        assert self._server is not None
        for name in list(self._late):
            try:
                await self._mirror(name, self._server)
            except Exception as error:
                # The others have their turn: it may be this document's own fault.
                _log.warning("%s is not mirrored yet: %s", shown_name(name), type(error).__name__)
        for alias in await self._threads.run(databases):
            for behind in await self._threads.run(find_behind, alias, MAX_BEHIND):
                await self._make_up(behind, self._server)
        return True

    async def _make_up(self, behind: Behind, server: Server) -> None:
        """Write the fields of a document that are known to be behind."""
        try:
            rows = await self._mirror(behind.document, server, behind.since)
        except Exception as error:
            _log.warning("%s is not mirrored yet: %s", shown_name(behind.document), type(error).__name__)
            await self._threads.run(put_off, behind, given_up=False)
        else:
            if rows is None:
                await self._threads.run(put_off, behind, given_up=True)

    async def _catch_up(self) -> bool:
        """Documents that have changed while nobody mirrored are looked at"""
        assert self._server is not None
        if self._before is None:
            return False
        newest = self._before[0]
        api, cursor, looked = Api(self._conf), None, 0
        while True:
            try:
                page, cursor = await self._threads.run(api.updated, cursor)
            except ServerError:
                return False  # it does not listen yet
            for name, updated_at in page:
                if newest is not None and datetime.fromisoformat(updated_at) < newest - _BEFORE:
                    cursor = None
                    break
                try:
                    looked += await self._mirror(name, self._server) or 0
                except CollabError as error:
                    _log.warning("a document was not mirrored: %s", type(error).__name__)
            if cursor is None:
                break
        if looked:
            _log.info("%d rows were brought up to date with their documents", looked)
        return True
