"""The command line: serve, migrate, documents, token, keygen, bench, version.

Strategy: commands are thin. The options of the server come from ``Settings`` (``with_settings`` makes
flags of its fields), so they are not written twice; what a command needs is imported when it runs, so
that ``collab version`` does not wait for a database driver. Everything that goes wrong on purpose is a
``CollabError`` and ends as one line on standard error; a traceback means a defect of ours.

Exit codes: 0 done, 1 it failed, 2 it was asked for in a wrong way, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.exceptions import TyperException

from collab import cli_auth
from collab.errors import CollabError, ConfigurationError, InvalidDocumentName, LimitExceeded, UpdateError
from collab.settings import Option, Settings, load_settings, options
from collab.telemetry import configure, escape_controls, mask_secrets, shown_name

if TYPE_CHECKING:
    from collab.storage.store import DocumentSummary, Store
    from collab.storage.urls import DatabaseUrl

_Result = TypeVar("_Result")

_DATABASE = ("database_url", "data_dir", "log_level")
"""The options of the commands that work on the database directly."""

_MAX_NAME_BYTES = 512

app = typer.Typer(
    name="collab",
    help="A durable sync server for Yjs documents.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
documents = typer.Typer(
    help="List, show, copy and delete documents. On the database directly; a server may be running on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(documents, name="documents")
cli_auth.register(app)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line with ``arguments`` (default: the process's) and exit; see the module for the codes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A document's name may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what went wrong is one line on standard error."""
    try:
        result = typer.main.get_command(app).main(arguments, prog_name="collab", standalone_mode=False)
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
    print(f"collab: {escape_controls(mask_secrets(line))}", file=sys.stderr)
    return code


def with_settings(*names: str) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """Give a command the flags of the options ``names`` (none: all of them) and ``--config``.

    The command's first parameter is the ``Settings`` read from flags, environment, file and defaults;
    its others stay arguments and options of its own.
    """

    def decorate(command: Callable[..., _Result]) -> Callable[..., _Result]:
        listed = [option for option in options() if not names or option.name in names]
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

        def call(**given: Any) -> _Result:
            config = given.pop("config")
            flags = {option.name: given.pop(option.name) for option in listed}
            settings = load_settings(flags, config)
            configure(settings.log_level)
            return command(settings, **given)

        # Typer reads the signature, so the flags are made by writing one.
        parameters = [*own, *(_parameter(option) for option in listed), _CONFIG]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        call.__name__ = command.__name__
        call.__doc__ = command.__doc__
        return call

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """Make the flag of one option. Its value stays text: ``Settings`` checks it, with one wording for all sources."""
    switch = not option.kind
    info = typer.Option(
        f"{option.flag}/--no-{option.flag[2:]}" if switch else option.flag,
        help=f"{option.description} [{option.env}{f', default {option.default}' if option.default else ''}]",
        show_default=False,
        metavar=option.kind or None,
    )
    kind = bool | None if switch else str | None
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, info]
    )


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML file with options, by their names with underscores. [COLLAB_CONFIG]"
        ),
    ],
)


@app.command()
@with_settings()
def serve(settings: Settings) -> int:
    """Serve documents until SIGTERM or SIGINT. The first line of output names the address."""
    from collab.app import serve as serve_until_stopped

    try:
        return _run(serve_until_stopped(settings))
    except OSError as error:
        # Of all that reaches the system on the way up, only the socket is not wrapped by a layer of ours.
        reason = os.strerror(error.errno) if error.errno else error
        raise CollabError(f"cannot listen on {settings.host} port {settings.port}: {reason}") from error


@app.command()
@with_settings(*_DATABASE)
def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema. Safe while others do the same."""
    from collab.storage.migrate import upgrade

    url = _url(settings)
    print(f"{url} {'was brought to' if upgrade(url) else 'is on'} the newest schema")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(installed("collab"))


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


_Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The document's name.")]


@documents.command("list")
@with_settings(*_DATABASE)
def list_documents(
    settings: Settings,
    prefix: Annotated[str, typer.Option(help="Only names that begin with this.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the documents with sizes and dates, ordered by name."""

    async def work(store: Store) -> None:
        if not as_json:
            print(f"{'BYTES':>12} {'ROWS':>10}  {'UPDATED':20}  NAME")
        after = None
        while page := await store.list_documents(after=after, prefix=prefix, limit=100):
            for summary in page:
                if as_json:
                    print(json.dumps(_facts(summary), ensure_ascii=False))
                else:
                    size, document = summary.snapshot_bytes + summary.tail_bytes, summary.document
                    name = escape_controls(document.name)
                    print(f"{size:>12} {document.head_seq:>10}  {_date(document.updated_at):20}  {name}")
            after = page[-1].document.name

    _with_store(settings, work)


@documents.command()
@with_settings(*_DATABASE, "sandbox_seconds", "sandbox_memory_bytes")
def show(
    settings: Settings,
    name: _Name,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with the content.")] = False,
) -> None:
    """Show a document's sizes, numbers and dates and, with --json, its content."""

    async def work(store: Store) -> None:
        summary = await store.describe(_checked(name))
        data = await _read(store, name)
        facts = {**_facts(summary), "update_bytes": len(data)}
        if as_json:
            from collab.sandbox.pool import Sandbox

            sandbox = Sandbox(1, settings.sandbox_seconds, settings.sandbox_memory_bytes)
            try:
                facts["content"] = await sandbox.content(data)
            finally:
                await sandbox.close()
            print(json.dumps(facts, ensure_ascii=False, indent=2))
        else:
            _print_facts(facts)

    _with_store(settings, work)


@documents.command()
@with_settings(*_DATABASE)
def export(
    settings: Settings,
    name: _Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is standard output.", show_default=False)],
) -> None:
    """Write a document as one Yjs v1 update. Y.applyUpdate reads it."""

    async def work(store: Store) -> None:
        _write_file(file, await _read(store, _checked(name)))

    _with_store(settings, work)


@documents.command("import")
@with_settings(*_DATABASE, "max_document_bytes")
def import_document(
    settings: Settings,
    name: _Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where from; - is standard input.", show_default=False)],
    gc: Annotated[bool, typer.Option(help="Let compaction remove deleted content.")] = True,
) -> None:
    """Create a document from a Yjs v1 update. It may have the name of a deleted one."""
    from collab.storage.store import NewRow

    _checked(name)
    data = _whole_update(_read_file(file), file)
    if len(data) > settings.max_document_bytes:
        raise LimitExceeded(
            f"{_shown_file(file)} has {len(data)} bytes; --max-document-bytes allows {settings.max_document_bytes}"
        )

    async def work(store: Store) -> None:
        rows = [NewRow(data, time.time(), None)] if len(data) > len(_EMPTY_UPDATE) else []
        await store.create(name, gc=gc, rows=rows)
        print(f"created {shown_name(name)} from {len(data)} bytes", file=sys.stderr)

    _with_store(settings, work, create=True)


@documents.command()
@with_settings(*_DATABASE)
def delete(settings: Settings, name: _Name) -> None:
    """Delete a document. Running servers notice at its next edit; its name is free for import only."""

    async def work(store: Store) -> None:
        await store.delete(_checked(name), time.time())
        print(f"deleted {shown_name(name)}", file=sys.stderr)

    _with_store(settings, work)


_EMPTY_UPDATE = b"\x00\x00"
"""No structs, no deletes: what Yjs gives for a new document."""


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``work`` on uvloop where there is one (not on Windows), else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def _url(settings: Settings) -> DatabaseUrl:
    from collab.storage.urls import parse_database_url

    return parse_database_url(settings.database_url, settings.data_dir)


def _with_store(settings: Settings, work: Callable[[Store], Awaitable[None]], *, create: bool = False) -> None:
    """Run ``work`` on the open store; with ``create`` a SQLite file is made and migrated first, as by ``serve``."""
    from collab.storage.migrate import upgrade
    from collab.storage.sql import open_store

    url = _url(settings)
    if url.path is not None:
        if create:
            upgrade(url)
        elif not url.path.exists():
            # SQLite would make an empty file out of a misspelt name.
            raise ConfigurationError(f"there is no database {url.path}; collab serve and collab migrate make one")

    async def inside() -> None:
        store = open_store(url)
        try:
            await store.open()
            await work(store)
        finally:
            await store.close()

    _run(inside())


async def _read(store: Store, name: str) -> bytes:
    """Read a document as one update; the errors are those of ``Store.describe``, asked first for its wording."""
    from collab.engine.document import Document, at_once

    await store.describe(name)
    loaded = await store.load(name)
    if loaded is None:
        return _EMPTY_UPDATE
    snapshot = loaded.snapshot
    slices = Document.load(
        snapshot.data if snapshot else None, snapshot.index if snapshot else None, [row.data for row in loaded.rows]
    )
    return at_once(slices).encode()


def _whole_update(data: bytes, file: str) -> bytes:
    """Give ``data`` if it is a v1 update that refers to nothing outside of itself; raises ``UpdateError`` if not."""
    from collab.engine.document import Document

    document = Document()
    try:
        taken = document.take(data)
    except UpdateError as error:
        raise UpdateError(f"{_shown_file(file)} is not a Yjs v1 update: {error}") from None
    if taken.missing is not None:
        client, clock = taken.missing
        raise UpdateError(
            f"{_shown_file(file)} is not a whole document: it builds on clock {clock} of client {client}, "
            "which is not in it"
        )
    return document.encode()


def _checked(name: str) -> str:
    """Refuse a name that no client could ask for: empty, over 512 bytes, not UTF-8, or with a NUL."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidDocumentName("the document name is not UTF-8") from None
    if not 1 <= size <= _MAX_NAME_BYTES or "\0" in name:
        raise InvalidDocumentName(f"a document name is 1 to {_MAX_NAME_BYTES} bytes of UTF-8; this one has {size}")
    return name


def _shown_file(file: str) -> str:
    return "standard input" if file == "-" else file


def _read_file(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CollabError(f"cannot read {file}: {error.strerror or error}") from None


def _write_file(file: str, data: bytes) -> None:
    """Write ``data``; a regular file appears under its name only when it is whole."""
    if file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(os.path.realpath(file))  # a link stays, what it points to is replaced
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a device or a pipe
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}.", delete=False) as part:
            try:
                part.write(data)
                part.close()
                # The temporary file is private; the export gets the rights that any new file would have.
                os.umask(mask := os.umask(0o077))
                os.chmod(part.name, 0o666 & ~mask)
                os.replace(part.name, path)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError as error:
        raise CollabError(f"cannot write {file}: {error.strerror or error}") from None


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _facts(summary: DocumentSummary) -> dict[str, Any]:
    """Name a document's sizes (bytes), numbers and dates (UTC) as ``--json`` shows them."""
    document = summary.document
    return {
        "name": document.name,
        "id": document.id,
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


def _print_facts(facts: dict[str, Any]) -> None:
    snapshot = (
        f"of row {facts['snapshot_seq']}, {facts['snapshot_bytes']} bytes, made {facts['snapshot_at']}"
        if facts["snapshot_at"] is not None
        else "none"
    )
    lines = {
        "name": escape_controls(facts["name"]),
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
