"""`CollaborativeTextField`: a text of a row that people edit together, and that is a field like any other.

Strategy: the document is the truth, and the column is a mirror of one of its roots, which the server process keeps up
to date (`collab.contrib.django.mirror`). Who saves another text makes an **edit**: the difference between what that
person saw and what is saved. It is merged into what the document holds by then, so nobody's typing is overwritten.

What was seen is known in two ways. A value that comes from the database remembers itself (`Mirrored`), and a form
carries what it has shown in a hidden input, because many minutes may lie between its showing and its saving. The edit
is written into a table in the transaction of the row, and sent after the commit (`collab.contrib.django.outbox`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, Final

from django import forms
from django.core import checks
from django.db import connections, models, router, transaction
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_delete, post_save

from collab.contrib.django.api import MEDIA
from collab.contrib.django.widgets import CollaborativeFormField, Edited, WithBase
from collab.errors import InvalidDocumentName
from collab.protocol.names import check_document_name

Lookup = Callable[[str], Mapping[str, Any] | None]

_CHANGES: Final = "_collab_changes"
"""The attribute of an instance that holds what is to be sent when it is saved: by field, the base and the text."""


_SAVES: Final = "_collab_saves"
"""The attribute of an instance that holds the last save of each field, while it is not known what became of it."""


class _Save:
    """A save of a text, which its transaction may roll back; called when it commits.

    Attributes:
        seen: what whoever saved it had seen before.
        earlier: the save before it in the same transaction, if there was one.
        committed: whether the transaction has committed.
    """

    def __init__(self, seen: str | None, earlier: _Save | None, using: str) -> None:
        self.seen = seen
        self.earlier = earlier
        self.committed = False
        self._using = using

    def __call__(self) -> None:
        self.committed = True
        self.earlier = None

    @property
    def open(self) -> bool:
        """Whether the transaction is still open; Django forgets what was to follow on a save that is rolled back."""
        waiting = connections[self._using].run_on_commit
        return not self.committed and any(called is self for _, called, *_ in waiting)


class Mirrored(str):
    """A text as it came from the database: what whoever changes it has seen."""

    __slots__ = ()


class _Attribute(DeferredAttribute):
    """The field on an instance; remembers what came from the database."""

    field: CollaborativeTextField

    def __set__(self, instance: Any, value: Any) -> None:
        name = self.field.attname
        if isinstance(value, Mirrored):
            self.field.saw(instance, str(value))
            value = str(value)
        instance.__dict__[name] = value


class CollaborativeTextField(models.TextField):  # type: ignore[type-arg]
    """A text field that mirrors a root of a document. In the database, and for migrations, it is a ``TextField``.

    Args:
        document: the name of the document of a row: a template with its fields (``"post-{pk}"``), or a function of the
            instance, together with ``lookup``. It should not change while the row lives.
        root: the name of the root.
        format: what the text is: ``text``, ``markdown`` or ``html`` (of a rich text).
        lookup: with a function for ``document``, the way back: from a name to the arguments of ``filter`` that find the
            row; None for a document of somebody else.
        on_delete_document: whether the document goes into the trash with its row.
    """

    descriptor_class = _Attribute

    def __init__(
        self,
        *args: Any,
        document: str | Callable[[Any], str] = "",
        root: str = "content",
        format: str = "text",
        lookup: Lookup | None = None,
        on_delete_document: bool = False,
        **given: Any,
    ) -> None:
        self.document = document
        self.root = root
        self.format = format
        self.lookup = lookup
        self.on_delete_document = on_delete_document
        super().__init__(*args, **given)

    # As Django asks a field

    def deconstruct(self) -> Any:
        """Be a text field in migrations: what is mirrored makes no difference to the table."""
        name, _, args, given = super().deconstruct()
        return name, "django.db.models.TextField", args, given

    def check(self, **given: Any) -> list[Any]:
        """Name what is wrong with the arguments."""
        return [*super().check(**given), *self._check_arguments()]

    def _check_arguments(self) -> list[checks.CheckMessage]:
        found = []
        if self.format not in MEDIA:
            found.append(f"format is one of {', '.join(MEDIA)}")
        if not self.root:
            found.append("root is the name of a root")
        if self.null:
            found.append("a text that nobody has written is empty: leave out null=True")
        if callable(self.document):
            if self.lookup is None:
                found.append("a function for document needs lookup, the way back from a name to the row")
        else:
            try:
                names = _fields_of(self.document)
                known = {"pk", *(field.attname for field in self.model._meta.concrete_fields)}
                found += [f"document names {name!r}, which is no field" for name in names if name not in known]
                if not names:
                    found.append('document is a template with a field of the row, as in "post-{pk}"')
            except ValueError as error:
                found.append(f"document is no template: {error}")
        return [checks.Error(text, obj=self, id="collab.E003") for text in found]

    def contribute_to_class(self, cls: type[models.Model], name: str, private_only: bool = False) -> None:
        """Hear of what is saved and deleted."""
        super().contribute_to_class(cls, name, private_only)
        if not cls._meta.abstract:
            # Of all models: a row may be saved as one of a proxy, or of a model that inherits from this one.
            post_save.connect(self._saved)
            post_delete.connect(self._deleted)
            cls.refresh_from_db = _remembering(self, cls.refresh_from_db)  # type: ignore[method-assign]
            cls.save_base = _in_one_transaction(cls.save_base)  # type: ignore[method-assign]

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        """Let a text know that it came from the database."""
        return None if value is None else Mirrored(value)

    def get_prep_value(self, value: Any) -> Any:
        """Give a plain text: drivers look at the exact type."""
        value = super().get_prep_value(value)
        return str(value) if isinstance(value, str) else value

    def pre_save(self, instance: models.Model, add: bool) -> Any:
        """Note what is to be sent, and give what is written into the column.

        A text that nobody has changed leaves the column as it is: it may have moved on since it was read.
        """
        value = getattr(instance, self.attname)
        if not isinstance(value, str):
            return value  # an expression of the database, which is no text of anybody
        base = value.base if isinstance(value, Edited) else None
        text = str(value)
        if base is None:
            base = "" if add else self.seen(instance)
        if base is None:
            base = self._stored(instance)
        setattr(instance, self.attname, text)
        if text == base:
            return text if add else models.F(self.attname)
        instance.__dict__.setdefault(_CHANGES, {})[self.attname] = (base, text)
        return text

    def formfield(self, **given: Any) -> Any:
        """Give a form field that carries along what it has shown."""
        widget = given.pop("widget", None) or forms.Textarea
        made = widget() if isinstance(widget, type) else widget
        return super().formfield(**{"form_class": CollaborativeFormField, **given, "widget": WithBase(made)})

    # Rows

    def saw(self, instance: models.Model, text: str) -> None:
        """Note what whoever changes the text of an instance has seen."""
        instance.__dict__.setdefault("_collab_seen", {})[self.attname] = text
        instance.__dict__.get(_SAVES, {}).pop(self.attname, None)

    def _stored(self, instance: models.Model) -> str:
        """Give the text of the row, for an instance that was made by hand: its author has seen that, if anything."""
        rows = self.model._base_manager.using(instance._state.db).filter(pk=instance.pk)
        found = rows.values_list(self.attname, flat=True).first()
        return str(found or "")

    def seen(self, instance: models.Model) -> str | None:
        """Give what was seen; None if nothing of it is known.

        A save that was rolled back has shown nothing to anybody: what was seen before it counts, so a second try of
        the transaction saves the text again.
        """
        saves = instance.__dict__.get(_SAVES, {})
        while (save := saves.get(self.attname)) is not None and not save.open:
            saves[self.attname] = save.earlier
            if not save.committed:
                instance.__dict__["_collab_seen"][self.attname] = save.seen
        found: str | None = instance.__dict__.get("_collab_seen", {}).get(self.attname)
        return found

    def _saved(self, instance: models.Model, using: str, raw: bool = False, **given: Any) -> None:
        from collab.contrib.django.outbox import queue_edit

        if not isinstance(instance, self.model):
            return
        change = instance.__dict__.get(_CHANGES, {}).pop(self.attname, None)
        if change is not None and not raw:  # fixtures are loaded as they are
            queue_edit(self, instance, *change, using=using)
            before = self.seen(instance)
            saves = instance.__dict__.setdefault(_SAVES, {})
            save = _Save(before, saves.get(self.attname), using)
            transaction.on_commit(save, using=using)
            self.saw(instance, change[1])
            saves[self.attname] = save

    def _deleted(self, instance: models.Model, using: str, **given: Any) -> None:
        from collab.contrib.django.outbox import queue_deletion

        # Of a row of several tables each is told; this one is the field's own.
        if self.on_delete_document and instance._meta.concrete_model is self.model:
            queue_deletion(self.document_of(instance), using=using)

    # Names

    def document_of(self, instance: models.Model) -> str:
        """Give the name of the document of a row; raises ``InvalidDocumentName``."""
        if callable(self.document):
            name = self.document(instance)
        else:
            name = self.document.format(**{name: getattr(instance, name) for name in _fields_of(self.document)})
        check_document_name(name)
        return name

    def may_be(self, document: str) -> bool:
        """Tell whether a document may be one of a row, by its name alone."""
        return self.lookup is not None or _read_name(self.document, document) is not None

    def find(self, document: str, using: str | None = None) -> models.Model | None:
        """Give the row whose document this is; None if there is none."""
        found = self.lookup(document) if self.lookup is not None else _read_name(self.document, document)
        if found is None:
            return None
        try:
            row = self.model._base_manager.using(using).filter(**found).order_by("pk").first()
            # 007 finds the row 7, whose document has another name.
            return row if row is not None and self.document_of(row) == document else None
        except (ValueError, TypeError, OverflowError, InvalidDocumentName):
            return None
        except Exception as error:
            if type(error).__name__ in ("ValidationError", "DataError"):  # no such key can be
                return None
            raise


def _in_one_transaction(save: Callable[..., None]) -> Any:
    """Let a row be saved in one transaction with what `post_save` adds, also where none is open: its edit does."""

    @functools.wraps(save)
    def save_base(
        self: models.Model,
        raw: bool = False,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Any = None,
    ) -> None:
        using = using or router.db_for_write(type(self), instance=self)
        given = {"force_insert": force_insert, "force_update": force_update, "update_fields": update_fields}
        if connections[using].in_atomic_block:
            save(self, raw=raw, using=using, **given)
            return
        with transaction.atomic(using=using):
            save(self, raw=raw, using=using, **given)

    return save_base


def _remembering(field: CollaborativeTextField, refresh: Callable[..., None]) -> Any:
    """Let an instance that is read anew remember what was read: Django copies the value of another instance."""

    @functools.wraps(refresh)
    def refresh_from_db(self: models.Model, using: Any = None, fields: Any = None, *args: Any, **given: Any) -> None:
        fields = None if fields is None else list(fields)
        refresh(self, using, fields, *args, **given)
        value = self.__dict__.get(field.attname)
        if isinstance(value, str) and (fields is None or field.attname in fields):
            field.saw(self, value)

    return refresh_from_db


def _fields_of(template: str) -> list[str]:
    """Return the fields that a template names; raises ``ValueError``."""
    names = []
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion or name in names:
            raise ValueError("write {field} for each field, once, and nothing else in braces")
        names.append(name)
    return names


def _read_name(template: object, document: str) -> dict[str, str] | None:
    """Return the values of the fields in the name of a document; None if the template did not make it."""
    if not isinstance(template, str):
        return None
    pattern = "".join(
        re.escape(literal) + (f"(?P<{name}>.+)" if name else "") for literal, name, _, _ in Formatter().parse(template)
    )
    match = re.fullmatch(pattern, document, re.DOTALL)
    return None if match is None else match.groupdict()
