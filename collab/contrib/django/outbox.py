"""Edits on their way from Django's database to the server.

Strategy: an edit is a row of `PendingEdit`, written in the transaction of what it belongs to. After the commit it is
sent at once. If the server is away the request goes on without it, and the row stays; the server process looks for such
rows in intervals (`collab.contrib.django.hooks`), and ``manage.py collab_pending`` shows and sends them. Edits of one
document are sent in their order, by one process at a time.

An edit is sent **at least once**: a process may die between the commit of the server and the removal of the row. So
before it is sent it becomes the step from just what the document shows to what it is to show, and is marked. If no
answer comes, the document has either text below what others have changed since, and is nearer to that one: so the next
process sees whether the edit has arrived, and does not make it twice.

While an edit waits, the column shows what was saved, and no mirror is written over it. When it goes, in whatever way,
it leaves a note for the mirror (`collab.contrib.django.mirror` has the rule).
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from functools import partial
from typing import Any, Final

from django.db import connections, models, router, transaction
from django.utils import timezone

from collab.content.difference import compare_texts
from collab.content.three_way import merge_texts
from collab.contrib.django.api import Api, Overtaken, ServerAway, ServerRefused, Text
from collab.contrib.django.conf import get_conf
from collab.contrib.django.mirror import note_behind, storable
from collab.contrib.django.models import PendingEdit
from collab.telemetry import shown_name

_log = logging.getLogger("collab.django")

CLAIM_SECONDS: Final = 10.0
"""For which a process has an edit for itself, beside what the requests of one try may take; each try begins anew. If it
dies meanwhile, the edit and the mirror of its document wait as long."""

_REQUESTS: Final = 3
"""Of one try."""

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
            number = _send(api, edit, using)
        except (ServerAway, Overtaken) as error:
            _note(edit, using, str(error))
            _log.warning("an edit of %s waits, %d so far: %s", name, PendingEdit.objects.using(using).count(), error)
            left -= 1
            if isinstance(error, ServerAway) and error.silent:
                _Away.until = time.monotonic() + AWAY_SECONDS
                break
        except ServerRefused as error:
            _note(edit, using, str(error), failed=True)
            _log.error("an edit of %s is kept and not sent again: %s (manage.py collab_pending)", name, error)
        else:
            _Away.until = 0.0
            remove_edit(edit, using, number)
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
    return next((edit for edit in free.filter(~models.Exists(earlier))[:20] if _hold(edit, using)), None)


def _hold(edit: PendingEdit, using: str) -> bool:
    """Take an edit for a while, if it is still as it was read; False if others were quicker."""
    until = timezone.now() + timedelta(seconds=CLAIM_SECONDS + _REQUESTS * get_conf().server_seconds)
    held = _same(edit, using).update(claimed_until=until)
    if held:
        edit.claimed_until = until
    return bool(held)


def _same(edit: PendingEdit, using: str) -> models.QuerySet[PendingEdit]:
    """Find an edit if it waits still and nobody has taken it since it was read."""
    return PendingEdit.objects.using(using).filter(pk=edit.pk, failed=False, claimed_until=edit.claimed_until)


def _note(edit: PendingEdit, using: str, error: str, *, failed: bool = False) -> None:
    """Let an edit wait, or keep it for people, and say why; not if another process has it by now."""
    with transaction.atomic(using=using):
        if failed:
            note_behind(edit.document, using)
        attempts = models.F("attempts") + 1
        _same(edit, using).update(attempts=attempts, claimed_until=None, failed=failed, error=error[:500])


def remove_edit(edit: PendingEdit, using: str, number: int | None = None) -> None:
    """Remove an edit: it was sent, and the server has stored it at this number of the log, or it is given up."""
    with transaction.atomic(using=using):
        if edit.kind == PendingEdit.EDIT:
            note_behind(edit.document, using, number)
        edit.delete(using=using)


def _send(api: Api, edit: PendingEdit, using: str) -> int | None:
    """Send an edit; return the number of the log at which the document has it, None for a deletion."""
    if edit.kind == PendingEdit.DELETE:
        api.delete(edit.document)
        return None
    for tries in range(TRIES):
        if tries and not _hold(edit, using):
            break
        there = api.read(edit.document, edit.root, edit.format)
        text = merged(edit, there)
        if not _mark(edit, using, there.value, text):
            break
        try:
            # Also where it shows that already: the answer says by which number.
            return api.write(edit.document, edit.root, edit.format, text, there.state)
        except Overtaken:
            edit.sent = False
    raise Overtaken("the document changes all the time")


def _mark(edit: PendingEdit, using: str, base: str, text: str) -> bool:
    """Note that an edit is about to be sent, as the step from ``base`` to ``text``; False if others have it by now."""
    if not _same(edit, using).update(base=storable(base), text=storable(text), sent=True):
        return False
    edit.base, edit.text, edit.sent = base, text, True
    return True


def merged(edit: PendingEdit, there: Text) -> str:
    """Return what the document is to show: what is there with the edit, or the whole text where nothing was ever."""
    if not there.there:
        return str(edit.text)
    if edit.sent and _distance(edit.text, there.value) < _distance(edit.base, there.value):
        return there.value
    return merge_texts(edit.base, edit.text, there.value)


def _distance(old: str, new: str) -> int:
    """Return how many characters one text has and the other one has not."""
    return sum(hunk.stop - hunk.start + hunk.new_stop - hunk.new_start for hunk in compare_texts(old, new))
