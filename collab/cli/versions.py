"""The commands for versions: list, make, import, rename, delete, restore; and documents as they were.

Strategy: as the other commands they work on the database, beside servers that may run on it. What a version holds is
read with ``collab documents show --version`` or ``--at``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collab import audit
from collab.audit import Act
from collab.cli.common import (
    AUDIT,
    BUS,
    DATABASE,
    Name,
    audited,
    bytes_read,
    complain_of,
    imported,
    input_file,
    shown_file,
    telling_nodes,
    with_settings,
    with_store,
)
from collab.cli.nodes import date
from collab.errors import (
    CollabError,
    ConfigurationError,
)
from collab.settings import Settings
from collab.telemetry import escape_controls, shown_name

if TYPE_CHECKING:
    from collab.hub.versions import Versions
    from collab.storage.store import Store
    from collab.storage.versions import Version

versions = typer.Typer(
    help="List, make, change and restore versions of documents. On the database; a server may be running on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_PAGE = 500

# Bytes of a file that are read at once.
_CHUNK = 1024 * 1024

_Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="The first column of list.", show_default=False)]
_Title = Annotated[str, typer.Argument(metavar="TITLE", help="What the version is called.", show_default=False)]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(versions, name="versions")


@versions.command("list")
@with_settings(*DATABASE)
def list_versions(
    settings: Settings,
    name: Name,
    named: Annotated[bool, typer.Option("--named", help="Leave out those that were made by themselves.")] = False,
    as_json: _Json = False,
) -> None:
    """List the versions of a document, those of the newest states first."""
    from collab.storage.versions import Kind

    async def work(store: Store) -> None:
        if not as_json:
            print(f"{'ID':>10} {'NUMBER':>10} {'KIND':9} {'REASON':8} {'AT':20}  NAME")
        after = None
        service = _service(store)
        while page := await service.list(name, kind=Kind.NAMED if named else None, after=after, limit=_PAGE):
            guests = await service.guest_names(name, page) if as_json else {}
            for version in page:
                print(json.dumps(_facts(version, guests), ensure_ascii=False) if as_json else _line(version))
            after = page[-1].place

    with_store(settings, work)


@versions.command()
@with_settings(*DATABASE)
def make(
    settings: Settings,
    name: Name,
    title: _Title,
    number: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="A number of the log; else the newest.", show_default=False)
    ] = None,
    description: Annotated[str | None, typer.Option(help="What else is said of it.", show_default=False)] = None,
) -> None:
    """Give what a document holds now, or has held, a name. It stays until it is deleted."""

    async def work(store: Store) -> None:
        version = await _service(store).make(name, title, description=description, number=number)
        print(version.id)
        print(f"version {version.id} of {shown_name(name)} is number {version.seq}", file=sys.stderr)

    with_store(settings, work)


@versions.command("import")
@with_settings(*DATABASE, *AUDIT, "max_document_bytes")
def import_versions(
    settings: Settings,
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where from; - is standard input.", show_default=False)],
) -> int:
    """Import versions that come from another system: lines of JSON with name, at, update and, if known, author.

    One of the same time and name that was imported before is left as it is, so what broke off is done again. Exit
    code 1 if one of them failed.
    """
    from collab.transports.http.api.importing_versions import VersionImport
    from collab.transports.problems import BadRequest

    failed = 0

    async def work(store: Store) -> None:
        nonlocal failed
        done = VersionImport(_service(store), name, settings.max_document_bytes)
        await done.begin()
        with bytes_read(total, "versions") as step:
            try:
                while chunk := source.read(_CHUNK):
                    await done.feed(chunk)
                    step(len(chunk), done.lines)
                    complain_of(done, "version")
                await done.end()
            except BadRequest as error:
                raise CollabError(
                    f"{shown_file(file)}: {error}; {imported(done, 'versions imported')} before"
                ) from None
            finally:
                complain_of(done, "version")
        failed = done.failed
        print(imported(done, "versions imported"), file=sys.stderr)

    with input_file(file) as (source, total), audited(settings, Act(audit.Kind.VERSIONS_IMPORTED, name)):
        with_store(settings, work)
    return 1 if failed else 0


@versions.command()
@with_settings(*DATABASE)
def rename(settings: Settings, name: Name, version: _Id, title: _Title) -> None:
    """Give a version another name. One that was made by itself is kept from then on."""

    async def work(store: Store) -> None:
        changed = await _service(store).change(name, version, title=title)
        print(f"version {version} of {shown_name(name)} is {escape_controls(changed.name or '')}", file=sys.stderr)

    with_store(settings, work)


@versions.command()
@with_settings(*DATABASE, *AUDIT)
def delete(settings: Settings, name: Name, version: _Id) -> None:
    """Delete a version. The document and its log stay as they are."""

    async def work(store: Store) -> None:
        await _service(store).delete(name, version)
        print(f"deleted version {version} of {shown_name(name)}", file=sys.stderr)

    with audited(settings, Act(audit.Kind.VERSION_DELETED, name, f"version {version}")):
        with_store(settings, work)


@versions.command()
@with_settings(*DATABASE, *BUS, *AUDIT, "sandbox_seconds", "sandbox_memory_bytes", "auto_version_minutes")
def restore(
    settings: Settings,
    name: Name,
    version: Annotated[
        int | None, typer.Option(min=1, metavar="ID", help="What this version holds.", show_default=False)
    ] = None,
    number: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="What it held after this number of the log.", show_default=False),
    ] = None,
    root: Annotated[str | None, typer.Option(metavar="ROOT", help="Only this root.", show_default=False)] = None,
    element: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only this element of the root, by its id or key.", show_default=False),
    ] = None,
) -> None:
    """Make a document what it was. Who has it open sees it change. It prints the number that takes it back."""
    from collab.adapters import make_sandbox
    from collab.hub.restoring import restore_stored
    from collab.hub.versions import CompactsInThread, HistoryOptions, Versions, Which

    if (version is None) == (number is None):
        raise typer.BadParameter("there is a --version or a --number")
    if element is not None and root is None:
        raise typer.BadParameter("--element needs a --root")
    which = Which(version, number)

    async def work(store: Store) -> None:
        options = HistoryOptions(settings.auto_version_minutes * 60.0 or None)
        service = Versions(store, CompactsInThread(), options=options)
        sandbox = make_sandbox(1, settings.sandbox_seconds, settings.sandbox_memory_bytes)
        try:
            async with telling_nodes(settings) as tell:
                done = await restore_stored(store, sandbox, service, name, which, root=root, element=element)
                tell([name])
        finally:
            await sandbox.close()
        if done.changed:
            print(done.before)
            text = f"restored {shown_name(name)} by row {done.number}; number {done.before} is what it was before"
            print(text, file=sys.stderr)
        else:
            print(f"{shown_name(name)} is so already", file=sys.stderr)

    state = f"number {number}" if version is None else f"version {version}"
    with audited(settings, Act(audit.Kind.STATE_RESTORED, name, state)):
        with_store(settings, work)


async def read_past(store: Store, name: str, at: str | None, version: int | None) -> tuple[int, bytes]:
    """Read a document as it was at a time, or as a version of it was: the number of the log, and a v1 update.

    Raises:
        ConfigurationError: the time is none, or both are given.
        HistoryGone, NoSuchVersion, DocumentNotFound, DocumentDeleted, DamagedDocument: it cannot be read.
    """
    from collab.hub.versions import Which

    service = _service(store)
    if version is not None:
        if at is not None:
            raise ConfigurationError("--at and --version do not come together")
        which = Which(version=version)
    else:
        assert at is not None
        which = Which(number=await service.number_at(name, read_time(at)))
    state = await service.state(name, which)
    return state.number, state.document.encode_state_as_update()


def read_time(text: str) -> float:
    """Read a time as ISO 8601 has it, in UTC where it has no offset; give Unix seconds.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{text!r} is no time, such as 2026-05-04T09:14:07Z") from None


def _service(store: Store) -> Versions:
    from collab.hub.versions import CompactsInThread, Versions

    return Versions(store, CompactsInThread())


def _line(version: Version) -> str:
    name = "-" if version.name is None else escape_controls(version.name)
    number = "-" if version.seq == 0 else version.seq
    return (
        f"{version.id:>10} {number:>10} {version.kind.value:9} {version.reason.value:8} {date(version.at):20}  {name}"
    )


def _facts(version: Version, guests: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": version.id,
        "number": version.seq or None,
        "kind": version.kind.value,
        "reason": version.reason.value,
        "name": version.name,
        "description": version.description,
        "author": version.author,
        "author_name": None if version.author is None else guests.get(version.author),
        "at": date(version.at),
    }
