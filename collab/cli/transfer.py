"""The commands for many documents at once: export-many, import-many.

Strategy: the same streams as ``/export`` and ``/import`` of the HTTP API give and take (``collab.hub.archives``), on
the database. A server may be running: what is exported is what is committed, and what is imported is found by servers
when they look, within about a second.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from collab.audit import Act, Kind
from collab.cli.common import (
    AUDIT,
    DATABASE,
    audited,
    bytes_read,
    complain_of,
    imported,
    input_file,
    output_file,
    progress,
    shown_file,
    with_settings,
    with_store,
)
from collab.errors import CollabError, ConfigurationError
from collab.settings import Settings
from collab.telemetry import shown_name

if TYPE_CHECKING:
    from collab.storage.store import Store

# Bytes that are read of a file at a time.
_CHUNK = 256 * 1024

_FORMATS = ("ndjson", "tar")


def register(documents: typer.Typer) -> None:
    """Add the commands."""
    documents.command("export-many")(export_many)
    documents.command("import-many")(import_many)


@with_settings(*DATABASE, *AUDIT, "max_document_bytes")
def export_many(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is standard output.", show_default=False)],
    prefix: Annotated[str, typer.Option(help="Only names that begin with this.", show_default=False)] = "",
    after: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only names behind this one.", show_default=False)
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help="ndjson or tar [tar for a FILE that ends in .tar, else ndjson].", show_default=False
        ),
    ] = None,
) -> int:
    """Write many documents as lines of JSON or as a tar archive. Exit code 1 if one of them could not be read.

    import-many and the HTTP API (POST /api/v1/import) read both.
    """
    from collab.hub.archives import LineWriter, TarWriter, Writer
    from collab.hub.documents import Documents
    from collab.hub.transfer import Export, Transfer
    from collab.transports.http.api.transfer import export_pieces

    if format is None:
        format = "tar" if file.endswith(".tar") else "ndjson"
    if format not in _FORMATS:
        raise ConfigurationError(f"--format is {' or '.join(_FORMATS)}")
    writer: Writer = TarWriter() if format == "tar" else LineWriter()
    failed = 0

    async def work(store: Store) -> None:
        nonlocal failed
        transfer = Transfer(store, Documents(store), settings.max_document_bytes)
        export = Export(transfer, prefix=prefix, after=after)
        with output_file(file) as write, progress(await export.count(), hidden=False) as step:
            async for piece in export_pieces(export, writer, step):
                write(piece)
        failed = export.failed
        print(f"exported {export.done} documents to {shown_file(file, out=True)}", file=sys.stderr)

    said = f"documents that begin with {shown_name(prefix)}" if prefix else "all documents"
    with audited(settings, Act(Kind.DOCUMENTS_EXPORTED, detail=said)):
        with_store(settings, work)
    return 1 if failed else 0


@with_settings(*DATABASE, *AUDIT, "max_document_bytes", "keep_deleted")
def import_many(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where from; - is standard input.", show_default=False)],
) -> int:
    """Create the documents of an export: lines of JSON, or a tar archive. Exit code 1 if one of them failed.

    A document that is there already is left as it is, so what broke off is done again from its beginning.
    """
    from collab.hub.archives import LineReader, Reader, TarReader
    from collab.hub.documents import Documents
    from collab.hub.transfer import Transfer
    from collab.transports.http.api.importing import Import
    from collab.transports.problems import BadRequest

    failed = 0

    async def work(store: Store) -> None:
        nonlocal failed
        transfer = Transfer(store, Documents(store, keep_deleted=settings.keep_deleted), settings.max_document_bytes)
        with bytes_read(total, "documents") as step:
            chunk = source.read(_CHUNK)
            # A line of JSON begins with a brace; no name of a member does.
            lines = chunk.lstrip()[:1] in (b"{", b"")
            most = settings.max_document_bytes
            reader: Reader = LineReader(most) if lines else TarReader(most)
            done = Import(transfer, reader)
            try:
                while chunk:
                    await done.feed(chunk)
                    step(len(chunk), done.lines)
                    complain_of(done, "document")
                    chunk = source.read(_CHUNK)
                await done.end()
            except BadRequest as error:
                raise CollabError(
                    f"{shown_file(file)}: {error}; {imported(done, 'documents created')} before"
                ) from None
            finally:
                complain_of(done, "document")
        failed = done.failed
        print(imported(done, "documents created"), file=sys.stderr)

    with input_file(file) as (source, total), audited(settings, Act(Kind.DOCUMENTS_IMPORTED)) as act:
        act.detail = f"from {shown_file(file)}"
        with_store(settings, work, create=True)
    return 1 if failed else 0
