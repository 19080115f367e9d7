"""Edits on their way from Django's database to the server.

Strategy: an edit is a row of `PendingEdit`, written in the transaction of what it belongs to. After the commit it is
sent at once. If the server is away the request goes on without it, and the row stays; the server process looks for such
rows in intervals (`collab.contrib.django.hooks`), and ``manage.py collab_pending`` shows and sends them. Edits of one
document are sent in their order, by one process at a time.

An edit is sent **at least once**: a process may die between the commit of the server and the removal of the row. It is
a difference, which is merged again with what the document holds then, and what is there already is not made again.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from functools import partial
from typing import Any, Final

from django.apps import apps
from django.db import connections, models, router, transaction
from django.utils import timezone

from collab.content.three_way import merge_texts
from collab.contrib.django.api import Api, Overtaken, ServerAway, ServerRefused, Text
from collab.contrib.django.conf import get_conf
from collab.contrib.django.models import PendingEdit
from collab.telemetry import shown_name

_log = logging.getLogger("collab.django")

CLAIM_SECONDS: Final = 120
"""For which a process has an edit for itself: longer than all its requests may take."""

TRIES: Final = 8
"""How often an edit is merged anew because the document has changed between reading and writing."""

MAX_FAILURES: Final = 20
"""Edits whose documents cannot be changed now, in one round: so one document holds up no other."""

AWAY_SECONDS: Final = 5.0
"""For which requests of Django do not try to reach a server that did not answer: each would wait for its time-out."""


class _Away:
    """Whether the server did not answer a moment ago."""

    until = 0.0


def queue_edit(field: Any, instance: models.Model, base: str, text: str, *, using: str) -> None:
    """Note an edit of a row that was saved; it is sent after the commit."""
    document = field.document_of(instance)
    PendingEdit.objects.using(using).create(
        document=document,
        root=field.root,
        format=field.format,
        base=base,
        text=text,
        field=f"{field.model._meta.label}.{field.name}",
        key=str(instance.pk),
    )
    transaction.on_commit(partial(_send_soon, document, using), using=using, robust=True)


def queue_deletion(document: str, *, using: str) -> None:
    """Note that a document is to be deleted; it is sent after the commit."""
    PendingEdit.objects.using(using).create(document=document, kind=PendingEdit.DELETE)
    transaction.on_commit(partial(_send_soon, document, using), using=using, robust=True)


def _send_soon(document: str, using: str) -> None:
    if time.monotonic() >= _Away.until:
        send_pending(using, document)


def databases() -> list[str]:
    """Give the databases that may hold edits."""
    return [alias for alias in connections if router.allow_migrate_model(alias, PendingEdit)]


def send_pending(using: str, document: str | None = None) -> int:
    """Send what waits in a database, of one document or of all; return how many edits were sent.

    It stops when the server does not answer, or after `MAX_FAILURES` answers that it cannot be done now, and never
    raises for what the server says.
    """
    api, sent, after, left = Api(get_conf()), 0, 0, MAX_FAILURES
    while left and (edit := _claim(using, document, after)) is not None:
        after = edit.pk
        name = shown_name(edit.document)
        try:
            _send(api, edit, using)
        except (ServerAway, Overtaken) as error:
            _note(edit, str(error))
            _log.warning("an edit of %s waits, %d so far: %s", name, PendingEdit.objects.using(using).count(), error)
            left -= 1
            if isinstance(error, ServerAway) and error.silent:
                _Away.until = time.monotonic() + AWAY_SECONDS
                break
        except ServerRefused as error:
            _note(edit, str(error), failed=True)
            _log.error("an edit of %s is kept and not sent again: %s (manage.py collab_pending)", name, error)
        else:
            _Away.until = 0.0
            edit.delete(using=using)
            sent += 1
    return sent


def _claim(using: str, document: str | None, after: int) -> PendingEdit | None:
    """Take the oldest edit of a document for this process; None if there is none, or others have them."""
    now = timezone.now()
    waiting = PendingEdit.objects.using(using).filter(failed=False)
    free = waiting.filter(models.Q(claimed_until=None) | models.Q(claimed_until__lt=now), pk__gt=after)
    if document is not None:
        free = free.filter(document=document)
    earlier = waiting.filter(document=models.OuterRef("document"), pk__lt=models.OuterRef("pk"))
    for edit in free.filter(~models.Exists(earlier))[:20]:
        until = now + timedelta(seconds=CLAIM_SECONDS)
        taken = waiting.filter(pk=edit.pk, claimed_until=edit.claimed_until).update(claimed_until=until)
        if taken:
            edit.claimed_until = until
            return edit
    return None


def _note(edit: PendingEdit, error: str, *, failed: bool = False) -> None:
    edit.attempts += 1
    edit.claimed_until = None
    edit.failed = failed
    edit.error = error[:500]
    edit.save(update_fields=["attempts", "claimed_until", "failed", "error"])


def _send(api: Api, edit: PendingEdit, using: str) -> None:
    if edit.kind == PendingEdit.DELETE:
        api.delete(edit.document)
        return
    for _ in range(TRIES):
        there = api.read(edit.document, edit.root, edit.format)
        text = merged(edit, there)
        if text == there.value and there.there:
            _settle(edit, text, using)
            return
        try:
            api.write(edit.document, edit.root, edit.format, text, there.state)
            return
        except Overtaken:
            continue
    raise Overtaken("the document changes all the time")


def merged(edit: PendingEdit, there: Text) -> str:
    """Return what the document is to show: what is there with the edit, or the whole text where nothing was ever."""
    return merge_texts(edit.base, edit.text, there.value) if there.there else edit.text


def _settle(edit: PendingEdit, text: str, using: str) -> None:
    """Let the column show what the document shows already: no change of it will say so."""
    label, _, name = edit.field.rpartition(".")
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError):
        return  # the model has gone since
    if text != edit.text:
        model._base_manager.using(using).filter(pk=edit.key, **{name: edit.text}).update(**{name: text})
