"""The command line: serve, migrate, nodes, documents, backup, token, keygen, bench, version, and those beside it.

Strategy: commands are thin. The options of the server come from ``Settings`` (``with_settings`` makes
flags of its fields), so they are not written twice; what a command needs is imported when it runs, so
that ``collab version`` does not wait for a database driver. Everything that goes wrong on purpose is a
``CollabError`` and ends as one line on standard error; a traceback means a defect of ours.

Exit codes: 0 done, 1 it failed, 2 it was asked for in a wrong way, 130 interrupted.
"""

from __future__ import annotations

import functools
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.exceptions import TyperException

from collab.audit import Act, Kind
from collab.cli import (
    audit,
    auth,
    backup,
    control,
    doctor,
    health,
    people,
    status,
    tenants,
    top,
    transfer,
    trash,
    versions,
    webhooks,
)
from collab.cli.common import (
    AUDIT,
    BUS,
    DATABASE,
    Name,
    audited,
    database_of,
    output_file,
    progress,
    shown_file,
    telling_nodes,
    with_database,
    with_settings,
    with_store,
)
from collab.cli.nodes import print_nodes
from collab.cli.versions import read_past
from collab.errors import CollabError, ConfigurationError, LimitExceeded, UpdateError
from collab.loop import run_loop
from collab.protocol.names import check_document_name
from collab.settings import Settings
from collab.telemetry import complain, escape_controls, shown_name
from collab.telemetry.release import release

if TYPE_CHECKING:
    from collab.hub.documents import Documents
    from collab.hub.maintenance import Report
    from collab.storage.maintenance import Maintenance
    from collab.storage.records import DocumentSummary, StoredDocument
    from collab.storage.store import Store

_Result = TypeVar("_Result")
_Store = TypeVar("_Store", bound="Store")

app = typer.Typer(
    name="collab",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
documents = typer.Typer(
    help="List, show, copy, delete, restore and repair documents. On the database; a server may be running on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(documents, name="documents")
audit.register(app)
auth.register(app)
backup.register(app)
control.register(app, documents)
doctor.register(app)
health.register(app)
people.register(app)
status.register(app)
top.register(app)
transfer.register(documents)
trash.register(documents)
versions.register(app)
webhooks.register(app)
tenants.register(app)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line with ``arguments`` (default: the process's) and exit; see the module for the codes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A document's name may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


@functools.cache
def program() -> typer.core.TyperGroup:
    """Make all commands with their options, once: it takes longer than most of them."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return group


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what went wrong is one line on standard error."""
    try:
        result = program().main(arguments, prog_name="collab", standalone_mode=False)
        # Here and not at the interpreter's exit, where a reader that has gone cannot be told from a defect.
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except ConfigurationError as error:
        return _fail(str(error), 2)
    except CollabError as error:
        return _fail(str(error) or error.public, 1)
    except TyperException as error:
        message = error.format_message()
        if message.startswith("Usage: "):  # no arguments at all: the help, as it is
            print(message, file=sys.stderr)
            return error.exit_code
        return _fail(message, error.exit_code)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone, which is its right. Python would complain
        # once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130


def _fail(message: str, code: int) -> int:
    line = " ".join(part.strip() for part in message.splitlines() if part.strip())
    complain(line)
    return code


@app.command()
@with_settings()
def serve(settings: Settings) -> int:
    """Serve documents until SIGTERM or SIGINT. The first line of output names the address."""
    if settings.workers > 1:
        from collab.workers.supervisor import supervise

        return run_loop(supervise(settings))
    from collab.app import serve as serve_until_stopped

    return run_loop(serve_until_stopped(settings))


@app.command()
@with_settings(*DATABASE, *AUDIT)
def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema. Safe while others do the same."""
    from collab.storage.migrate import upgrade

    url = database_of(settings)
    with audited(settings, Act(Kind.DATABASE_MIGRATED)) as act:
        changed = upgrade(url)
        act.nothing = not changed
    print(f"{url} {'was brought to' if changed else 'is on'} the newest schema")


@app.command()
@with_settings(*DATABASE)
def nodes(
    settings: Settings, as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False
) -> None:
    """List the servers on the database; one that has died stays listed for an hour."""

    async def work(store: Store) -> None:
        print_nodes(await store.list_nodes(), as_json=as_json)

    with_store(settings, work)


@app.command()
def version() -> None:
    """Print the version."""
    print(release())


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """A durable sync server for Yjs documents."""


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
def bench(context: typer.Context) -> int:
    """Measure a deployment under load. See collab bench --help."""
    from collab.bench.cli import app as bench_app

    command = typer.main.get_command(bench_app)
    result = command.main(context.args, prog_name="collab bench", standalone_mode=False)
    return result if isinstance(result, int) else 0


class _Order(StrEnum):
    """How documents are put in order."""

    NAME = "name"
    UPDATED = "updated"
    SIZE = "size"


# Documents of a page by size: each page is a look at all documents.
_RANKED = 20_000


@documents.command("list")
@with_settings(*DATABASE)
def list_documents(
    settings: Settings,
    prefix: Annotated[str, typer.Option(help="Only names that begin with this.", show_default=False)] = "",
    order: Annotated[
        _Order, typer.Option(help="By name, those edited last first, or the largest first.")
    ] = _Order.NAME,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many of them.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the documents with sizes and dates, ordered by name, time or size."""
    from collab.hub.documents import Documents

    async def work(store: Store) -> None:
        if not as_json:
            print(f"{'BYTES':>12} {'ROWS':>10}  {'UPDATED':20}  NAME")
        left = limit
        async for page in _pages(Documents(store), order, prefix):
            for summary in page[:left]:
                if as_json:
                    print(json.dumps(_facts(summary), ensure_ascii=False))
                else:
                    document = summary.document
                    name = escape_controls(document.name)
                    date = _date(document.updated_at)
                    print(f"{summary.stored_bytes:>12} {document.head_seq:>10}  {date:20}  {name}")
            left = None if left is None else left - len(page)
            if left is not None and left <= 0:
                return

    with_store(settings, work)


async def _pages(documents: Documents, order: _Order, prefix: str) -> AsyncIterator[list[DocumentSummary]]:
    """Give all documents under a prefix, in pages."""
    page: list[DocumentSummary] = []
    while True:
        last = page[-1] if page else None
        if order is _Order.NAME:
            after = None if last is None else last.document.name
            page = await documents.list(after=after, prefix=prefix, limit=100)
        elif order is _Order.UPDATED:
            moment = None if last is None else (last.document.updated_at, last.document.name)
            page = await documents.recent(after=moment, prefix=prefix, limit=1_000)
        else:
            size = None if last is None else (last.stored_bytes, last.document.name)
            page = await documents.largest.list(after=size, prefix=prefix, limit=_RANKED)
        if not page:
            return
        yield page


@documents.command()
@with_settings(*DATABASE, *AUDIT, "sandbox_seconds", "sandbox_memory_bytes")
def show(
    settings: Settings,
    name: Name,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with the content.")] = False,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="As it was then, such as 2026-05-04T09:14:07Z.", show_default=False),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, metavar="ID", help="As this version of it was.", show_default=False)
    ] = None,
) -> None:
    """Show a document's sizes, numbers and dates and, with --json, its content: as it is, or as it was."""

    async def work(store: Store) -> None:
        summary = await store.describe(name)
        if at is None and version is None:
            data = await _read(store, name)
            facts = {**_facts(summary), "update_bytes": len(data)}
        else:
            number, data = await read_past(store, name, at, version)
            facts = {"name": name, "number": number or None, "update_bytes": len(data)}
        if as_json:
            from collab.adapters import make_sandbox

            sandbox = make_sandbox(1, settings.sandbox_seconds, settings.sandbox_memory_bytes)
            try:
                facts["content"] = await sandbox.content(data)
            finally:
                await sandbox.close()
            print(json.dumps(facts, ensure_ascii=False, indent=2))
        elif "number" in facts:
            print(f"{shown_name(name)} after row {facts['number'] or 0}: {len(data)} bytes as one update")
        else:
            _print_facts(facts)

    with audited(settings, Act(Kind.DOCUMENT_READ, name, nothing=not as_json)):
        with_store(settings, work)


@documents.command()
@with_settings(*DATABASE, *AUDIT)
def export(
    settings: Settings,
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is standard output.", show_default=False)],
) -> None:
    """Write a document as one Yjs v1 update. Y.applyUpdate reads it."""

    async def work(store: Store) -> None:
        data = await _read(store, name)
        with output_file(file) as write:
            write(data)

    with audited(settings, Act(Kind.DOCUMENTS_EXPORTED, name)):
        with_store(settings, work)


@documents.command("import")
@with_settings(*DATABASE, *BUS, *AUDIT, "max_document_bytes", "keep_deleted")
def import_document(
    settings: Settings,
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where from; - is standard input.", show_default=False)],
    gc: Annotated[bool, typer.Option(help="Let compaction remove deleted content.")] = True,
) -> None:
    """Create a document from a Yjs v1 update. It may have the name of a deleted one."""
    from collab.hub.documents import Documents
    from collab.protocol.sync import EMPTY_UPDATE

    check_document_name(name)
    data = _whole_update(_read_file(file), file)
    if len(data) > settings.max_document_bytes:
        raise LimitExceeded(
            f"{shown_file(file)} has {len(data)} bytes; --max-document-bytes allows {settings.max_document_bytes}"
        )

    async def work(store: Store) -> None:
        update = data if len(data) > len(EMPTY_UPDATE) else None
        async with telling_nodes(settings) as tell:
            await Documents(store, keep_deleted=settings.keep_deleted).create(name, gc=gc, update=update)
            tell([name])
        print(f"created {shown_name(name)} from {len(data)} bytes", file=sys.stderr)

    with audited(settings, Act(Kind.DOCUMENTS_IMPORTED, name)):
        with_store(settings, work, create=True)


@documents.command()
@with_settings(*DATABASE, *BUS, *AUDIT)
def delete(settings: Settings, name: Name) -> None:
    """Delete a document. Running servers tell its clients within about a second; its name is free for import only.

    It can be restored for --trash-days of the servers: collab documents trash, restore, erase.
    """
    from collab.hub.documents import Documents

    async def work(store: Store) -> None:
        async with telling_nodes(settings) as tell:
            await Documents(store).delete(name)
            tell([name])
        print(f"deleted {shown_name(name)}", file=sys.stderr)

    with audited(settings, Act(Kind.DOCUMENT_DELETED, name)):
        with_store(settings, work)


_Names = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False, help="Documents; none: all of them.")
]


@documents.command()
@with_settings(*DATABASE)
def verify(
    settings: Settings,
    names: _Names = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Give checksums to what has none, where everything was read and is whole.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for every document.")] = False,
) -> int:
    """Read all that is stored and compare checksums. Exit code 1 if anything is damaged, missing or poison.

    Without names the tables and indexes of the database are looked at, too.
    """
    from collab.hub.beside import UNSOUND_SKELETON, find_unsound_skeletons
    from collab.hub.maintenance import verify as look_at

    bad = rows = unverified = filled = 0
    troubles: list[str] = []

    def tell(report: Report) -> None:
        if as_json:
            print(json.dumps(report.facts(), ensure_ascii=False), flush=True)
            return
        name = _named(report)
        for trouble in report.troubles():
            print(f"{name}: {escape_controls(trouble)}", flush=True)
        if report.whole and report.noted:
            print(f"{name}: is whole, and noted as damaged: collab documents repair forgets that")

    async def work(store: Maintenance) -> None:
        nonlocal bad, rows, unverified, filled, troubles
        # Only a look at the whole store can go on where the one before was interrupted.
        whole_store = not names
        begin = await store.filled_to() if fill and whole_store else 0
        if begin:
            print(f"going on behind document number {begin}, where filling was interrupted", file=sys.stderr)
        with progress(len(names or ()) or await store.count(), hidden=as_json) as step:
            async for document in _chosen(store, names, begin):
                report = await look_at(store, document, fill=fill, note=whole_store)
                bad += not report.whole or bool(report.poison)
                rows += report.rows + report.snapshots
                unverified += report.unverified_rows + report.unverified_snapshots
                filled += report.filled
                step(report.name)
                tell(report)
        if fill and whole_store and not bad:
            await store.filled()
        if whole_store:
            unsound = await find_unsound_skeletons(store)
            troubles = [*await store.find_troubles(), *(UNSOUND_SKELETON % shown_name(name) for name, _ in unsound)]
            for trouble in troubles:
                print(json.dumps({"database": trouble}) if as_json else f"the database: {escape_controls(trouble)}")

    _with_maintenance(settings, work)
    left = unverified - filled
    print(
        f"{rows} rows and snapshots read, {bad} documents damaged"
        + (f", {filled} checksums filled in" if fill else "")
        + (f", {left} without a checksum, of an older release" if left else ""),
        file=sys.stderr,
    )
    return 1 if bad or troubles else 0


@documents.command()
@with_settings(*DATABASE, *AUDIT)
def repair(
    settings: Settings,
    names: _Names = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    aside: Annotated[
        str | None,
        typer.Option(
            metavar="DIRECTORY",
            show_default=False,
            help="Where damaged bytes are kept [damaged, in the data directory].",
        ),
    ] = None,
) -> int:
    """Make damaged documents readable again: say what is done, keep the damaged bytes in files, do it."""
    from collab.hub.beside import UNSOUND_SKELETON, find_unsound_skeletons
    from collab.hub.maintenance import carry_out, keep_skeleton, plan_repair
    from collab.hub.maintenance import verify as look_at

    directory = settings.data_dir / "damaged" if aside is None else Path(aside)
    left = 0
    repaired: list[str] = []

    async def work(store: Maintenance) -> None:
        nonlocal left
        if not names:
            for done in [] if dry_run else await store.make_indexes():
                print(f"the database: {done}", flush=True)
                repaired.append(done)
            for each, data in await find_unsound_skeletons(store):
                print(
                    f"the database: {UNSOUND_SKELETON % shown_name(each)}; set its {len(data)} bytes aside", flush=True
                )
                left += dry_run
                if not dry_run:
                    print(f"the database: kept in {await keep_skeleton(store, each, data, directory)}", flush=True)
                    repaired.append(shown_name(each))
            for trouble in await store.find_troubles():
                left += 1
                print(f"the database: {'' if dry_run else 'not repaired: '}{escape_controls(trouble)}", flush=True)
        async for document in _chosen(store, names, 0):
            report = await look_at(store, document)
            steps = await plan_repair(store, document, report)
            name = _named(report)
            for planned in steps:
                print(f"{name}: {planned.text}", flush=True)
            for reason in report.left:
                print(f"{name}: not repaired: {escape_controls(reason)}", flush=True)
            if report.whole and report.noted:
                print(f"{name}: is whole; forget that it is noted as damaged", flush=True)
            if dry_run:
                left += not report.whole
                continue
            if steps or (report.whole and report.noted):
                repaired.append(shown_name(document.name))
                for path in await carry_out(store, document, steps, directory):
                    print(f"{name}: kept in {path}", flush=True)
                report = await look_at(store, document)
            for trouble in report.troubles():
                print(f"{name}: not repaired: {escape_controls(trouble)}", flush=True)
            left += not report.whole

    with audited(settings, Act(Kind.DOCUMENT_REPAIRED, names[0] if names and len(names) == 1 else None)) as act:
        _with_maintenance(settings, work)
        act.nothing, act.detail = not repaired, f"{len(repaired)}: {', '.join(repaired[:_SHOWN_REPAIRED])}"
    return 1 if left else 0


def _named(report: Report) -> str:
    return escape_controls(report.name) + (" (in the trash)" if report.deleted else "")


# Names of documents in one entry of the audit, whose text has a bound.
_SHOWN_REPAIRED = 5


async def _chosen(store: Maintenance, names: list[str] | None, begin: int) -> AsyncIterator[StoredDocument]:
    """Give the documents of these names, or all behind the id ``begin``."""
    for name in names or ():
        yield (await store.describe(name)).document
    while not names and (page := await store.documents_after(begin, 100)):
        for document in page:
            yield document
        begin = page[-1].id


def _with_maintenance(settings: Settings, work: Callable[[Maintenance], Awaitable[None]]) -> None:
    """Run ``work`` on the open database."""
    from collab.adapters import make_maintenance

    with_database(settings, make_maintenance, work)


async def _read(store: Store, name: str) -> bytes:
    """Read a document as one update; the errors are those of ``Store.describe``, asked first for its wording."""
    from collab.engine.document import at_once
    from collab.hub.loading import read_document, take_pending

    await store.describe(name)
    loaded = await store.load(name)
    if loaded is not None and loaded.passed_over:
        numbers = ", ".join(map(str, loaded.passed_over))
        print(
            f"collab: snapshot {numbers} is damaged; read from what came before it and the rows after", file=sys.stderr
        )
    document = at_once(read_document(name, loaded))
    if loaded is not None:
        take_pending(document, loaded.pending)
    if document.waiting:
        print(
            f"collab: the log of {shown_name(name)} has a gap: {len(document.waiting)} rows wait for what it does not "
            "hold, and are left out; a client that holds the rest brings it back by opening the document",
            file=sys.stderr,
        )
    return document.encode_state_as_update()


def _whole_update(data: bytes, file: str) -> bytes:
    """Give ``data`` if it is a v1 update that refers to nothing outside of itself; raises ``UpdateError`` if not."""
    from collab.engine.document import at_once
    from collab.hub.transfer import whole_update

    try:
        return at_once(whole_update(data))
    except UpdateError as error:
        raise UpdateError(f"{shown_file(file)}: {error}") from None


def _read_file(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CollabError(f"cannot read {file}: {error.strerror or error}") from None


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _facts(summary: DocumentSummary) -> dict[str, Any]:
    """Name a document's sizes (bytes), numbers and dates (UTC) as ``--json`` shows them."""
    document = summary.document
    return {
        "name": document.name,
        "id": document.id,
        "title": document.title,
        "metadata": dict(document.metadata),
        "gc": document.gc,
        "created_at": _date(document.created_at),
        "updated_at": _date(document.updated_at),
        "head_seq": document.head_seq,
        "log_rows": summary.log_rows,
        "snapshot_seq": summary.snapshot_seq,
        "snapshot_bytes": summary.snapshot_bytes,
        "snapshot_at": _date(summary.snapshot_at) if summary.snapshot_at is not None else None,
        "tail_rows": summary.tail_rows,
        "tail_bytes": summary.tail_bytes,
    }


def _shown_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _print_facts(facts: dict[str, Any]) -> None:
    snapshot = (
        f"of row {facts['snapshot_seq']}, {facts['snapshot_bytes']} bytes, made {facts['snapshot_at']}"
        if facts["snapshot_at"] is not None
        else "none"
    )
    lines = {
        "name": escape_controls(facts["name"]),
        **({} if facts["title"] is None else {"title": escape_controls(facts["title"])}),
        **({} if not facts["metadata"] else {"metadata": escape_controls(_shown_json(facts["metadata"]))}),
        "size": f"{facts['update_bytes']} bytes as one update",
        "created": facts["created_at"],
        "updated": facts["updated_at"],
        "log": f"{facts['head_seq']} rows ever, {facts['log_rows']} kept",
        "snapshot": snapshot,
        "after it": f"{facts['tail_rows']} rows, {facts['tail_bytes']} bytes",
        "deleted": "content removed by compaction" if facts["gc"] else "content kept (gc=off)",
        "id": str(facts["id"]),
    }
    for label, text in lines.items():
        print(f"{label:<10}{text}")
