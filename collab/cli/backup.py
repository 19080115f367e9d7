"""The commands for whole databases: backup, restore.

Strategy: on the database, beside servers that may run on it; the file and the tables are those of ``collab.backups``.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collab.audit import Act, Kind
from collab.cli.common import (
    AUDIT,
    DATABASE,
    audited,
    database_of,
    input_file,
    output_file,
    progress,
    shown_file,
    with_settings,
    with_store,
)
from collab.cli.nodes import date
from collab.cli.versions import read_time
from collab.errors import CollabError, ConfigurationError
from collab.settings import Settings
from collab.telemetry import complain, shown_name

if TYPE_CHECKING:
    from collab.backups.database import Restored
    from collab.backups.format import BackupReader
    from collab.storage.store import Store
    from collab.storage.urls import DatabaseUrl

_Key = Annotated[
    str | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="Seal it, or open it, with the bytes of this file: 32 random ones or more.",
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Say what was done as one JSON object.")]

_NAMES = 20
"""Names of documents that are listed for people."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(backup)
    app.command()(restore)


@with_settings(*DATABASE, *AUDIT)
def backup(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is standard output.", show_default=False)],
    key_file: _Key = None,
    as_json: _Json = False,
) -> None:
    """Write all of the database as it is at this instant into one file, and read it again. Servers go on meanwhile.

    What was acknowledged before is in it. It can be restored into SQLite and PostgreSQL.
    """
    from collab.backups import database

    url, key = _existing(settings), _key(key_file)
    nbytes = done = 0
    with (
        audited(settings, Act(Kind.BACKUP_MADE, detail=f"to {shown_file(file, out=True)}")),
        output_file(file, private=True) as write,
        progress(0, hidden=False) as show,
    ):

        def counting(data: bytes) -> None:
            nonlocal nbytes
            nbytes += len(data)
            write(data)

        def step(size: int) -> None:
            nonlocal done
            done += size
            show(f"{done // 1_000_000} MB")

        rows = database.save(url, counting, key, step)
    if file != "-" and Path(file).is_file():
        with _reading(file, key) as reader:
            if database.check(reader) != rows:
                raise CollabError(f"{file} does not hold what was written")
    where = shown_file(file, out=True)
    _tell(
        {"file": None if file == "-" else file, "bytes": nbytes, "sealed": key is not None, "rows": rows},
        f"{rows['documents']} documents with {rows['log']} rows are in {where}: {nbytes} bytes",
        as_json,
        out=file == "-",
    )


@with_settings(*DATABASE, *AUDIT, "max_document_bytes", "keep_deleted")
def restore(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A backup; - is standard input.", show_default=False)],
    key_file: _Key = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="As all was then, such as 2026-05-04T09:14:07Z.", show_default=False),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="In the place of the documents that are there.")] = False,
    prefix: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only documents whose names begin so, into a database in use: one that is missing is created, one "
            "that is there gets a version.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only read the backup, to its end.")] = False,
    as_json: _Json = False,
) -> int:
    """Fill an empty database from a backup, in one transaction. Exit code 1 if not all could be brought back."""
    from collab.backups import database

    if replace and prefix is not None:
        raise ConfigurationError("--replace and --prefix do not come together: what is there is never replaced by part")
    moment = None if at is None else read_time(at)
    key = _key(key_file)
    with _reading(file, key) as reader:
        header = reader.header
        if check:
            rows = database.check(reader)
            facts = {"at": header.at, "release": header.release, "schema": header.schema, "rows": rows}
            text = f"{rows['documents']} documents with {rows['log']} rows, whole, made {date(header.at)}"
            _tell(facts, f"{text} by release {header.release}", as_json)
            return 0
        said = f"from {shown_file(file)}" + ("" if prefix is None else f", only {shown_name(prefix)}")
        act = Act(Kind.BACKUP_RESTORED, detail=said + ("" if at is None else f", as of {at}"))
        if prefix is not None:
            with audited(settings, act):
                return _bring_back(settings, reader, prefix, moment, as_json=as_json)
        url = database_of(settings)
        with audited(settings, act), progress(_size(file), hidden=False) as show:
            restored = database.restore(url, reader, at=moment, replace=replace, step=lambda read: show("", to=read))
    return _tell_restored(restored, as_json=as_json)


def _tell_restored(restored: Restored, *, as_json: bool) -> int:
    rows, moment = restored.rows, restored.moment
    facts: dict[str, object] = {"rows": rows}
    text = f"restored {rows['documents']} documents with {rows['log']} rows"
    if moment is not None:
        facts["moment"] = {
            "cut": moment.cut,
            "removed": moment.removed,
            "returned": moment.returned,
            "renamed": moment.renamed,
            "kept": moment.kept,
            "lost": moment.lost,
        }
        text += (
            f"; of them {moment.cut} without their later rows, {moment.removed} of later not at all, "
            f"{len(moment.returned)} that were deleted later are there again"
        )
        _list("the rows of that time are pruned, so these are as the backup has them", moment.kept)
        _list("these were renamed later, and keep their new names, since others have the old ones", moment.renamed)
        if moment.lost:
            complain(f"{moment.lost} documents were deleted later, and nothing of them is in the backup")
    _tell(facts, text, as_json)
    return 1 if moment is not None and (moment.kept or moment.renamed or moment.lost) else 0


def _bring_back(settings: Settings, reader: BackupReader, prefix: str, at: float | None, *, as_json: bool) -> int:
    """Restore the backup beside the database, and take the documents from there."""
    from collab.adapters import make_store
    from collab.backups import database
    from collab.backups.documents import bring_back
    from collab.hub.documents import Documents
    from collab.hub.transfer import Transfer
    from collab.hub.versions import CompactsInThread, Versions
    from collab.storage.urls import parse_database_url

    count = {"created": 0, "version": 0, "failed": 0}
    # It is as large as the database that was saved.
    with tempfile.TemporaryDirectory(prefix="collab-restore-") as directory:
        beside = parse_database_url(None, Path(directory))
        restored = database.restore(beside, reader, at=at)
        time = reader.header.at if at is None else at

        async def work(store: Store) -> None:
            source = make_store(beside)
            try:
                await source.open()
                most = settings.max_document_bytes
                target = Transfer(store, Documents(store, keep_deleted=settings.keep_deleted), most)
                found = bring_back(
                    Transfer(source, Documents(source), most),
                    target,
                    Versions(store, CompactsInThread()),
                    prefix=prefix,
                    title=f"Backup of {date(time)}",
                    at=time,
                )
                async for document in found:
                    count[document.how] += 1
                    if document.error is not None:
                        complain(f"{shown_name(document.name)}: {document.error}")
            finally:
                await source.close()

        with_store(settings, work)
    if restored.moment is not None:
        kept = [name for name in restored.moment.kept if name.startswith(prefix)]
        _list("the rows of that time are pruned, so these are as the backup has them", kept)
    text = f"{count['created']} documents created, {count['version']} got a version, {count['failed']} failed"
    _tell(count, text, as_json)
    return 1 if count["failed"] else 0


def _list(what: str, names: Sequence[str]) -> None:
    """Name documents to people, not too many."""
    if names:
        shown = ", ".join(map(shown_name, names[:_NAMES]))
        complain(f"{what}: {shown}" + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""))


def _existing(settings: Settings) -> DatabaseUrl:
    url = database_of(settings)
    if url.path is not None and not url.path.exists():
        # SQLite would make an empty file out of a misspelt name.
        raise ConfigurationError(f"there is no database {url.path}; collab serve and collab migrate make one")
    return url


def _key(file: str | None) -> bytes | None:
    from collab.backups.format import MAX_KEY_BYTES, check_key

    if file is None:
        return None
    with input_file(file) as (source, _):
        key = source.read(MAX_KEY_BYTES + 2)
    check_key(key)
    return key


@contextlib.contextmanager
def _reading(file: str, key: bytes | None) -> Iterator[BackupReader]:
    from collab.backups.format import BackupReader

    with input_file(file) as (source, _):
        yield BackupReader(source, key)


def _size(file: str) -> int:
    return Path(file).stat().st_size if Path(file).is_file() else 0


def _tell(facts: Mapping[str, object], text: str, as_json: bool, *, out: bool = False) -> None:
    """Say what was done; on standard error where the file itself went to standard output."""
    print(json.dumps(facts, ensure_ascii=False) if as_json else text, file=sys.stderr if out else sys.stdout)
