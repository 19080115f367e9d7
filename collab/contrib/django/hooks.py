"""What the server process does for Django beside serving: signals, mirrors, and edits that wait.

Strategy: all of it is told by the server's hooks after the commit (docs/hooks.md), and done in threads. What a hook
misses, because the process died or the database was away, is made up for: a mirror that could not be written is tried
again, and when the server starts it looks at the documents that have changed since the last mirror was written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Any, Final

from django.apps import apps
from django.db import models
from django.utils import timezone

from collab.content.edits import Format
from collab.contrib.django.api import Api, ServerError
from collab.contrib.django.conf import Conf
from collab.contrib.django.fields import CollaborativeTextField
from collab.contrib.django.mirror import mirrored_fields, write_mirror
from collab.contrib.django.models import Mirror
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
"""Seconds until the first look after the start; then twice as long each time, up to `LOOK_SECONDS`."""

MAX_LATE: Final = 10_000
"""Documents whose mirror is tried again; past it the oldest is forgotten until its next change."""

_BEFORE: Final = timedelta(minutes=5)
"""How far before the last mirror documents are looked at when the server starts: several were on their way."""


class DjangoHooks(Hooks):
    """Sends `document_changed`, keeps fields up to date, sends what waits; hand it to ``create_app(hooks=...)``."""

    def __init__(self, conf: Conf) -> None:
        self._conf = conf
        self._threads = Threads(conf.threads, "hooks")
        self._fields = mirrored_fields()
        self._late: OrderedDict[str, Rows] = OrderedDict()
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

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
            await self._mirror(event, server)
        except Exception:
            self._late[event.name] = event
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

    async def _mirror(self, event: Rows, server: Server) -> None:
        texts = await self._read(event.name, server)
        if texts:
            await self._threads.run(write_mirror, texts, event.name, event.document, event.last)
        self._late.pop(event.name, None)

    async def _read(self, document: str, server: Server) -> list[tuple[CollaborativeTextField, str]]:
        """Read what the fields are to show of a document; none if it is no document of a row."""
        fields = [field for field in self._fields if field.may_be(document)]
        found: list[tuple[CollaborativeTextField, str]] = []
        for field in fields:
            try:
                content = await server.read(document, Format(field.format), field.root)
            except (DocumentNotFound, DocumentDeleted, NoSuchContent):
                continue  # nothing to be shown
            found.append((field, content.value.decode()))
        return found

    # What waits

    async def _watch(self) -> None:
        caught_up, pause = not self._fields, FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)  # the server does not listen yet
            pause = min(2 * pause, LOOK_SECONDS)
            for work in (self._send, self._again) if caught_up else (self._send, self._again, self._catch_up):
                try:
                    done = await work()
                    caught_up = caught_up or (work == self._catch_up and done)
                except Exception as error:
                    # Its text may be that of a database, with values in it.
                    _log.warning("%s: tried again in %g s: %s", work.__doc__, pause, type(error).__name__)

    async def _send(self) -> bool:
        """Edits that wait are sent"""
        for alias in await self._threads.run(databases):
            await self._threads.run(send_pending, alias)
        return True

    async def _again(self) -> bool:
        """Mirrors that could not be written are written"""
        assert self._server is not None
        for event in list(self._late.values()):
            try:
                await self._mirror(event, self._server)
            except Exception as error:
                # The others have their turn: it may be this document's own fault.
                _log.warning("%s is not mirrored yet: %s", shown_name(event.name), type(error).__name__)
        return True

    async def _catch_up(self) -> bool:
        """Documents that have changed while nobody mirrored are looked at"""
        assert self._server is not None
        newest = await self._threads.run(_newest_mirror)
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
                since = timezone.now()
                try:
                    texts = await self._read(name, self._server)
                except CollabError as error:
                    _log.warning("a document was not mirrored: %s", type(error).__name__)
                    continue
                if texts:
                    looked += await self._threads.run(write_mirror, texts, name, None, since=since)
            if cursor is None:
                break
        if looked:
            _log.info("%d rows were brought up to date with their documents", looked)
        return True


def _newest_mirror() -> datetime | None:
    found: Any = Mirror.objects.aggregate(at=models.Max("at"))["at"]
    return found if isinstance(found, datetime) else None
