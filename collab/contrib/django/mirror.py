"""Keeping the columns up to date that mirror documents.

Strategy: the server process reads a document after a change and writes the text by ``QuerySet.update``: no signal is
sent, so nothing goes round in circles, and other fields of the row stay as they are.

**The rule.** A column never loses what a save has put into it, until the document has it: so who reads a row after a
save has seen that save, and the next edit is the difference from a text that the document has, or will have. Several
processes save rows, send edits and write mirrors, in any order. Four facts make the rule hold:

1. A save writes the row and its edit (`PendingEdit`) in one transaction, also where the project has opened none
   (`collab.contrib.django.fields`).
2. A mirror is not written while an edit of its document waits. It first locks the row and then looks for edits. So a
   save either has committed, and its edit is seen, or waits for the mirror and writes its text over it.
3. An edit that was sent is removed in one transaction with the note, in `Mirror`, of the number that the log had when
   the server stored it. A mirror is not written if its text is of an older number. So a text that was read before the
   edit came to the document, in this process or in another one, or on a node that has not heard of the edit, is never
   written after the edit has gone.
4. The same transaction notes that the fields are **behind**: mirrors may have been left out meanwhile, and an edit that
   changes nothing, or that was refused for good, is followed by no change that would bring one. A mirror that is too
   old leaves the same note. The server processes look for such notes in intervals (`collab.contrib.django.hooks`). A
   mirror that is written takes the note away.

A process may die anywhere: an edit that stays is sent again, and a note that stays is followed again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, models, router, transaction
from django.utils import timezone

from collab.contrib.django.fields import CollaborativeTextField
from collab.contrib.django.models import Mirror, PendingEdit

UNKNOWN_DOCUMENT: Final = 0
"""The number of a document that nobody has told yet; no document has it."""


PUT_BACK: Final = timedelta(minutes=1)
"""After which a text that is read again and again, and is of an older number than it must be, is written nevertheless:
a node hears of each row of the others in less time, so the log itself was put back, from a backup say."""


class Written(NamedTuple):
    """What became of a mirror.

    Attributes:
        rows: how many have changed.
        waits: whether an edit waits, so that a row was left as it is.
    """

    rows: int
    waits: bool


class Behind(NamedTuple):
    """A document whose fields have to be written anew.

    Attributes:
        using: the alias of the database that says so.
        document: its name.
        since: when that was noted.
    """

    using: str
    document: str
    since: datetime


def storable(text: str) -> str:
    """Give a text of a document as a column can hold it: PostgreSQL takes no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def mirrored_fields() -> list[CollaborativeTextField]:
    """Give the fields of all models that mirror documents."""
    return [
        field
        for model in apps.get_models()
        for field in model._meta.local_concrete_fields
        if isinstance(field, CollaborativeTextField) and not model._meta.proxy
    ]


def write_mirror(
    texts: list[tuple[CollaborativeTextField, str]],
    document: str,
    number: int,
    last: int,
    since: datetime | None = None,
) -> Written:
    """Write the texts of fields into the rows whose document this is, unless the rule above forbids it.

    Args:
        texts: fields, each with the text that was read for it.
        document: its name.
        number: of the document in the store.
        last: the row of the log up to which nothing is missing in the texts.
        since: when it was noted that the fields are behind, if that is why they are written.
    """
    put_back = since is not None and timezone.now() - since > PUT_BACK
    rows, waits = 0, False
    for field, text in texts:
        found = _write(field, text, document, number, last, put_back=put_back)
        waits = waits or found is None
        rows += found or 0
    return Written(rows, waits)


def _write(
    field: CollaborativeTextField, text: str, document: str, number: int, last: int, *, put_back: bool
) -> int | None:
    """Write one field; return how many rows have changed, None if an edit waits."""
    using = router.db_for_write(field.model)
    row = field.find(document, using)
    value = storable(text)
    with transaction.atomic(using=using):
        mirrors = _mirrors(document, using)
        if row is not None:
            rows = field.model._base_manager.using(using).filter(pk=row.pk)
            # Whoever was saving the row has committed when this returns, and what it has committed is seen below.
            list(rows.select_for_update().values_list("pk"))
        if PendingEdit.objects.using(mirrors.db).filter(document=document, failed=False).exists():
            return None
        # The same number again: another field of the same document, or a second try.
        older = models.Q(number__in=(number, UNKNOWN_DOCUMENT), last__gt=last)
        free = mirrors if put_back else mirrors.exclude(older)
        if not free.update(number=number, last=last, at=timezone.now(), behind=None):
            mirrors.filter(behind=None).update(behind=timezone.now())
            return 0
        if row is None:
            return 0
        return rows.exclude(**{field.attname: value}).update(**{field.attname: value})


def _mirrors(document: str, using: str) -> models.QuerySet[Mirror]:
    """Give what is noted of a document, as a query that finds one row.

    It begins with a write, also where that changes nothing: a transaction of SQLite that begins by reading gets no
    lock when it writes later, if another one has written meanwhile.
    """
    # A database may have no tables of this application: then no rows of it are saved, and it is mirrored all the same.
    where = using if router.allow_migrate_model(using, Mirror) else DEFAULT_DB_ALIAS
    mirrors = Mirror.objects.using(where)
    mirrors.bulk_create([Mirror(document=document, number=UNKNOWN_DOCUMENT, last=0)], ignore_conflicts=True)
    return mirrors.filter(document=document)


def note_behind(document: str, using: str, number: int | None = None) -> None:
    """Note that the fields have to be written anew; call it in the transaction that removes the edit.

    Args:
        document: its name.
        using: the alias of the database in which the edit was.
        number: the row of the log up to which a text must be at the least, to be written; None if nobody knows.
    """
    mirrors = _mirrors(document, using)
    if number is not None:
        mirrors.filter(last__lt=number).update(last=number)
    mirrors.update(behind=timezone.now())


def newest_mirror() -> datetime | None:
    """Give the time at which the last mirror was written; None if there was none."""
    found: datetime | None = Mirror.objects.exclude(number=UNKNOWN_DOCUMENT).aggregate(at=models.Max("at"))["at"]
    return found


def find_behind(using: str, most: int) -> list[Behind]:
    """Give documents whose fields have to be written anew and of which no edit waits; the oldest notes first."""
    waiting = PendingEdit.objects.using(using).filter(document=models.OuterRef("document"), failed=False)
    found = Mirror.objects.using(using).filter(~models.Exists(waiting), behind__isnull=False).order_by("behind")
    return [Behind(using, document, since) for document, since in found.values_list("document", "behind")[:most]]


def put_off(behind: Behind, *, given_up: bool) -> None:
    """Put a document behind the others that have to be looked at, or take its note away, if that is still the same."""
    mirrors = Mirror.objects.using(behind.using).filter(document=behind.document, behind=behind.since)
    mirrors.update(behind=None if given_up else timezone.now())
