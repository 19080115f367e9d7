"""The commands for deleted documents and for copies: trash, restore, erase, copy.

Strategy: as the other commands they work on the database, and running servers are told to look. Erasing waits until
each server that lives has said that it has let go of the document: what somebody can still read is not erased. One that
is silent is named, and the exit code is 1.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from collab.audit import Act, Kind
from collab.cli.common import AUDIT, BUS, DATABASE, Name, audited, telling_nodes, with_settings, with_store
from collab.settings import Settings
from collab.telemetry import escape_controls, shown_name

if TYPE_CHECKING:
    from collab.storage.records import Reports
    from collab.storage.store import Store

_DAY = 86_400.0

_Id = Annotated[
    int | None,
    typer.Option("--id", metavar="ID", help="Which one, where several had the name.", show_default=False),
]


def register(documents: typer.Typer) -> None:
    """Add the commands."""
    documents.command("trash")(list_trash)
    documents.command()(restore)
    documents.command()(erase)
    documents.command("copy")(copy_document)


@with_settings(*DATABASE, "trash_days")
def list_trash(
    settings: Settings,
    prefix: Annotated[str, typer.Option(help="Only documents whose name began with this.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the deleted documents that can be restored, what was deleted last first."""
    from collab.hub.trash import Trash

    async def work(store: Store) -> None:
        trash = Trash(store, lambda: settings.trash_days * _DAY)
        if not as_json:
            print(f"{'ID':>10} {'BYTES':>12}  {'DELETED':20}  NAME")
        after = None
        while page := await trash.list(prefix=prefix, after=after):
            for summary in page:
                document, size = summary.document, summary.stored_bytes
                assert document.deleted_at is not None
                deleted = datetime.fromtimestamp(document.deleted_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                if as_json:
                    facts = {
                        "name": document.name,
                        "id": document.id,
                        "title": document.title,
                        "metadata": dict(document.metadata),
                        "deleted_at": deleted,
                        "head_seq": document.head_seq,
                        "bytes": size,
                    }
                    print(json.dumps(facts, ensure_ascii=False))
                else:
                    print(f"{document.id:>10} {size:>12}  {deleted:20}  {escape_controls(document.name)}")
                after = (document.deleted_at, document.id)

    with_store(settings, work)


@with_settings(*DATABASE, *BUS, *AUDIT, "trash_days")
def restore(
    settings: Settings,
    name: Name,
    document_id: _Id = None,
    new_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NEW", help="Under this name, if its own is taken.", show_default=False),
    ] = None,
) -> None:
    """Make a deleted document live again, with its history: the one that was deleted last, or the one with --id."""
    from collab.hub.trash import Trash

    async def work(store: Store) -> None:
        async with telling_nodes(settings) as tell:
            trash = Trash(store, lambda: settings.trash_days * _DAY)
            summary = await trash.restore(name, document_id, new_name)
            tell([summary.document.name])
        print(f"restored {shown_name(name)} as {shown_name(summary.document.name)}", file=sys.stderr)

    act = Act(Kind.DOCUMENT_RESTORED, name, "" if new_name is None else f"as {shown_name(new_name)}")
    with audited(settings, act):
        with_store(settings, work)


@with_settings(*DATABASE, *BUS, *AUDIT)
def erase(
    settings: Settings,
    name: Name,
    document_id: _Id = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Erase for good what is kept under a name: the document, and deleted ones; with --id only that deleted one.

    docs/operations.md says what of it a PostgreSQL server, its WAL and backups still hold.
    """
    from collab.hub.trash import Trash

    result = 0

    async def work(store: Store) -> None:
        nonlocal result
        async with telling_nodes(settings) as tell:

            async def forget(name: str) -> Reports:
                return await _let_servers_forget(store, name, tell)

            erased = await Trash(store, lambda: 0.0, forget=forget).erase(name, document_id)
        print(f"erased {shown_name(name)} ({len(erased.ids)} documents)", file=sys.stderr)
        if erased.holding:
            names = ", ".join(erased.holding)
            print(f"collab: not let go of yet, until they look: {names}", file=sys.stderr)
            result = 1

    if not yes:
        typer.confirm(f"Erase {shown_name(name)} for good? Nothing brings it back", abort=True)
    with audited(settings, Act(Kind.DOCUMENT_ERASED, name, "" if document_id is None else f"number {document_id}")):
        with_store(settings, work)
    return result


async def _let_servers_forget(store: Store, name: str, tell: Callable[[Iterable[str]], None]) -> Reports:
    """Tell all servers to drop what they have of a document, and wait until they say so."""
    from collab.cluster.messages import ALL_NODES
    from collab.hub.control import until_reported
    from collab.storage.records import Instruction, Kind, Reports

    tell([name])
    if not any(node.alive for node in await store.list_nodes()):
        return Reports((), ())  # nobody would answer
    number = await store.instruct(Instruction(Kind.RELOAD, document=name))
    return await until_reported(store, number, lambda: tell([ALL_NODES]))


@with_settings(*DATABASE, *BUS, "keep_deleted")
def copy_document(
    settings: Settings,
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="The name of the copy.")],
) -> None:
    """Create a document with what another one holds now, its title and own keys."""
    from collab.hub.documents import Documents

    async def work(store: Store) -> None:
        async with telling_nodes(settings) as tell:
            await Documents(store, keep_deleted=settings.keep_deleted).copy(name, new_name)
            tell([new_name])
        print(f"copied {shown_name(name)} to {shown_name(new_name)}", file=sys.stderr)

    with_store(settings, work)
