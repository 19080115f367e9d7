"""Keeping the columns up to date that mirror documents.

Strategy: the server process reads a document after a change and writes the text by ``QuerySet.update``: no signal is
sent, so nothing goes round in circles, and other fields of the row stay as they are. Several processes may do this for
one document. Each text is at least as new as the row of the log whose change it was read for, and `Mirror` holds the
newest such row: a text for an older one is not written.
"""

from __future__ import annotations

from datetime import datetime

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, router, transaction
from django.db.models import Q
from django.utils import timezone

from collab.contrib.django.fields import CollaborativeTextField
from collab.contrib.django.models import Mirror


def mirrored_fields() -> list[CollaborativeTextField]:
    """Give the fields of all models that mirror documents."""
    return [
        field
        for model in apps.get_models()
        for field in model._meta.local_concrete_fields
        if isinstance(field, CollaborativeTextField) and not model._meta.proxy
    ]


def write_mirror(
    fields: list[tuple[CollaborativeTextField, str]],
    document: str,
    number: int | None,
    last: int = 0,
    since: datetime | None = None,
) -> int:
    """Write the texts of fields into the rows whose document this is; return how many rows have changed.

    Args:
        fields: each with the text that was read for it.
        document: its name.
        number: of the document in the store; None where it is not known.
        last: the row of the log up to which the texts are at the least.
        since: when the texts were read, where no number is known: what was written since is newer.
    """
    written = 0
    for field, text in fields:
        using = router.db_for_write(field.model)
        with transaction.atomic(using=using):
            where = using if router.allow_migrate_model(using, Mirror) else DEFAULT_DB_ALIAS
            if not _is_newest(where, document, number, last, since):
                continue
            row = field.find(document, using)
            if row is None:
                continue
            # PostgreSQL takes no NUL, and a document may hold one.
            value = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
            written += (
                field.model._base_manager.using(using)
                .filter(pk=row.pk)
                .exclude(**{field.attname: value})
                .update(**{field.attname: value})
            )
    return written


def _is_newest(using: str, document: str, number: int | None, last: int, since: datetime | None) -> bool:
    """Note how far a document is mirrored; False if it was further already. The row stays locked in the transaction."""
    mirrors = Mirror.objects.using(using).filter(document=document)
    if number is None:
        return not mirrors.filter(at__gte=since).exists()
    _, new = Mirror.objects.using(using).get_or_create(document=document, defaults={"number": number, "last": last})
    # The same row again: another field of the same document, or a second try.
    known = mirrors.filter(~Q(number=number) | Q(last__lte=last))
    return new or bool(known.update(number=number, last=last, at=timezone.now()))
