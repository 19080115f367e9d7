"""``manage.py collab_import``: documents of what the project has already."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist
from django.core.management.base import BaseCommand, CommandError, CommandParser

from collab.contrib.django.api import MEDIA, Api, Overtaken, ServerError
from collab.contrib.django.conf import get_conf
from collab.contrib.django.fields import CollaborativeTextField
from collab.errors import CollabError
from collab.protocol.names import check_document_name


class _Text(NamedTuple):
    document: str
    root: str
    format: str
    text: str


class Command(BaseCommand):
    """Make documents of a field's texts, or of files; a document that is there already is left as it is."""

    help = (
        "Make documents of what the project has already. A document that is there already is left as it is, so the "
        "same import may be made again.\n\n"
        "manage.py collab_import notes.Note.body              the texts of a CollaborativeTextField\n"
        "manage.py collab_import --prefix docs/ a.md b.txt    files: documents docs/a and docs/b"
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take what is to be imported."""
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.add_argument("source", metavar="SOURCE", nargs="+", help="app.Model.field, or files in UTF-8.")
        parser.add_argument("--prefix", default="", help="Of files: what their documents' names begin with.")
        parser.add_argument("--root", default="content", help="Of files: the root that gets the text. [content]")
        parser.add_argument(
            "--format", choices=sorted(MEDIA), help="Of files: what they are. [by their ending: .md, .html, else text]"
        )

    def handle(self, *args: Any, **given: Any) -> None:
        """Import, and say how many."""
        sources: list[str] = given["source"]
        field = _field(sources[0]) if len(sources) == 1 else None
        texts = _rows(field) if field is not None else _files(sources, given)
        created = there = 0
        try:
            api = Api(get_conf())
            for each in texts:
                if not each.text:
                    continue  # a document is created by its first edit
                check_document_name(each.document)
                try:
                    api.write(each.document, each.root, each.format, each.text, None)
                    created += 1
                except Overtaken:
                    there += 1
        except (ServerError, CollabError) as error:
            raise CommandError(f"{created} documents were created, then: {error}") from None
        self.stdout.write(f"{created} documents were created, {there} were there already")


def _field(source: str) -> CollaborativeTextField | None:
    label, _, name = source.rpartition(".")
    if label.count(".") != 1 or Path(source).exists():
        return None
    try:
        found = apps.get_model(label)._meta.get_field(name)
    except (LookupError, FieldDoesNotExist) as error:
        raise CommandError(str(error)) from None
    if not isinstance(found, CollaborativeTextField):
        raise CommandError(f"{source} is no CollaborativeTextField")
    return found


def _rows(field: CollaborativeTextField) -> Iterator[_Text]:
    for row in field.model._base_manager.order_by("pk").iterator(chunk_size=500):
        yield _Text(field.document_of(row), field.root, field.format, getattr(row, field.attname))


def _files(sources: list[str], given: dict[str, Any]) -> Iterator[_Text]:
    endings = {".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html"}
    for source in sources:
        path = Path(source)
        format = given["format"] or endings.get(path.suffix.lower(), "text")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"cannot read {source}: {error}") from None
        yield _Text(given["prefix"] + path.stem, given["root"], format, text)
