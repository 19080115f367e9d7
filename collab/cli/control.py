"""The commands that tell running servers something: kick, check access again, reload, log; list connections; rename.

Strategy: an instruction is written into the database and the servers are told over the bus to look; without one they
look once a second. Then the command waits for what they report. A server that lives and says nothing is named, and the
exit code is 1: a kick that silently did nothing would be the worst.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collab import audit
from collab.audit import Act
from collab.cli.common import AUDIT, BUS, DATABASE, Name, audited, telling_nodes, with_settings, with_store
from collab.cli.nodes import date
from collab.errors import CollabError
from collab.settings import Settings
from collab.telemetry import escape_controls, shown_name

if TYPE_CHECKING:
    from collab.hub.people import Seen
    from collab.storage.records import Instruction, Reports
    from collab.storage.store import Store

_User = Annotated[
    str | None, typer.Option("--user", metavar="ID", help="Only sessions of this user.", show_default=False)
]
_Document = Annotated[
    str | None, typer.Option("--document", metavar="NAME", help="Only sessions on this document.", show_default=False)
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def register(app: typer.Typer, documents: typer.Typer) -> None:
    """Add the commands."""
    app.command()(kick)
    app.command("check-access")(check_access)
    app.command()(connections)
    app.command("log-level")(log_level)
    documents.command()(reload)
    documents.command()(quarantine)
    documents.command()(release)
    documents.command()(rename)


@with_settings(*DATABASE, *BUS, *AUDIT)
def kick(
    settings: Settings,
    user: _User = None,
    document: _Document = None,
    connection: Annotated[
        str | None,
        typer.Option(
            "--connection",
            metavar="NODE-NUMBER",
            help="Only this connection: the name of its server, and its number in the log there.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Keep the user out for so long, on all servers: at most a day.", show_default=False)
    ] = 0.0,
    as_json: _Json = False,
) -> int:
    """End sessions on all servers. Their clients may come back, unless --seconds keeps their user out.

    The last kick of a user counts: one without --seconds lets the user in again.
    """
    from collab.storage.records import Instruction, Kind

    return _instruct(settings, Instruction(Kind.KICK, document, user, connection, seconds), as_json)


@with_settings(*DATABASE, *BUS, *AUDIT)
def check_access(settings: Settings, user: _User = None, document: _Document = None, as_json: _Json = False) -> int:
    """Ask again what live sessions may do, on all servers, with the tokens that they have shown."""
    from collab.storage.records import Instruction, Kind

    return _instruct(settings, Instruction(Kind.CHECK, document, user), as_json)


@with_settings(*DATABASE, *BUS, *AUDIT)
def log_level(
    settings: Settings,
    level: Annotated[
        str,
        typer.Argument(
            metavar="LEVEL", help="debug, info, warning, error, or default: as at the start.", show_default=False
        ),
    ],
    logger: Annotated[
        str | None,
        typer.Option("--logger", metavar="NAME", help="Only this one, such as collab.journal.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="For so long: 600 if not given, at most a day.", show_default=False)
    ] = None,
    as_json: _Json = False,
) -> int:
    """Let all servers log more or less, for some time. Where the database is away, SIGUSR1 turns debug on and off."""
    from collab.hub.control import change_of_level

    return _instruct(settings, change_of_level(logger, level, seconds), as_json)


@with_settings(*DATABASE, *BUS, *AUDIT)
def connections(
    settings: Settings,
    user: _User = None,
    document: _Document = None,
    node: Annotated[
        str | None, typer.Option("--node", metavar="NAME", help="Only those of this server.", show_default=False)
    ] = None,
    as_json: _Json = False,
) -> int:
    """List the connections of all servers, with their documents. The first column is what kick --connection takes."""
    from collab.hub.people import read_connections
    from collab.storage.records import Instruction, Kind

    result = 1

    async def work(store: Store) -> None:
        nonlocal result
        number, reports = await _tell(store, settings, Instruction(Kind.LIST, document, user))
        found, more, unread = read_connections(await store.answers(number))
        found = [seen for seen in found if node is None or seen.node == node]
        silent = sorted({*reports.silent, *unread})
        result = 0 if reports.complete and not unread and not more else 1
        if as_json:
            print(json.dumps({"connections": [_facts(seen) for seen in found], "silent": silent, "more": more}))
        else:
            _print_connections(found)
        if more:
            print(
                "collab: a server has more connections than it tells: ask for one --document or --user", file=sys.stderr
            )
        if silent and not as_json:
            print(f"collab: not heard from: {', '.join(silent)}", file=sys.stderr)
        elif not reports.reports and not as_json:
            raise CollabError("no server has answered: is one running on this database?")

    instruction = Instruction(Kind.LIST, document, user)
    _check(instruction)
    with audited(settings, _act(instruction)):
        with_store(settings, work)
    return result


def _facts(seen: Seen) -> dict[str, Any]:
    return {
        "id": seen.id,
        "node": seen.node,
        "users": seen.users,
        "address": seen.address,
        "protocol": seen.protocol,
        "since": date(seen.since),
        "documents": [place._asdict() for place in seen.documents],
        "open": seen.open,
        "waiting_bytes": seen.waiting,
    }


def _print_connections(found: Iterable[Seen]) -> None:
    print(f"{'CONNECTION':32} {'SINCE':20} {'PROTOCOL':11} {'ADDRESS':15} {'WAITING':>8}  {'USER':16}  DOCUMENTS")
    for seen in found:
        users = ", ".join(escape_controls(user) for user in seen.users) or "-"
        places = [
            f"{shown_name(place.document)} ({place.access}{', slow' if place.lagging else ''})"
            for place in seen.documents[:_SHOWN_DOCUMENTS]
        ]
        places += [f"{seen.open - len(places)} more"] if seen.open > len(places) else []
        texts = [escape_controls(text) for text in (seen.id, seen.protocol, seen.address)]
        print(
            f"{texts[0]:32} {date(seen.since):20} {texts[1]:11} {texts[2]:15} {seen.waiting:>8}  {users:16}  "
            f"{', '.join(places) or '-'}"
        )


# Documents of one connection in a line.
_SHOWN_DOCUMENTS = 5


@with_settings(*DATABASE, *BUS, *AUDIT)
def reload(settings: Settings, name: Name, as_json: _Json = False) -> int:
    """Let each server drop what it has of a document in memory. Its clients come back, and it is read again."""
    from collab.storage.records import Instruction, Kind

    return _instruct(settings, Instruction(Kind.RELOAD, name), as_json)


@with_settings(*DATABASE, *BUS, *AUDIT)
def quarantine(
    settings: Settings,
    name: Name,
    seconds: Annotated[float, typer.Option(help="For so long: at most a day.")] = 600.0,
    as_json: _Json = False,
) -> int:
    """Close a document on all servers for some time: its clients are sent away, and nobody can open it."""
    from collab.storage.records import Instruction, Kind

    return _instruct(settings, Instruction(Kind.QUARANTINE, name, seconds=seconds), as_json)


@with_settings(*DATABASE, *BUS, *AUDIT)
def release(settings: Settings, name: Name, as_json: _Json = False) -> int:
    """Let a document be opened again, whether an operator has closed it or its failures."""
    from collab.hub.control import release as make_release

    return _instruct(settings, make_release(name), as_json)


@with_settings(*DATABASE, *BUS, *AUDIT)
def rename(
    settings: Settings,
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", show_default=False, help="Its new name.")],
) -> None:
    """Give a document another name. Content and history stay; the old name is left as by a deletion."""
    from collab.hub.documents import Documents

    async def work(store: Store) -> None:
        async with telling_nodes(settings) as tell:
            await Documents(store).rename(name, new_name)
            tell([name, new_name])
        print(f"renamed {shown_name(name)} to {shown_name(new_name)}", file=sys.stderr)

    with audited(settings, Act(audit.Kind.DOCUMENT_RENAMED, name, f"to {shown_name(new_name)}")):
        with_store(settings, work)


def _instruct(settings: Settings, instruction: Instruction, as_json: bool) -> int:
    """Tell all servers, print what they report; 1 if one has not done it, or none was heard of."""
    result = 1

    async def work(store: Store) -> None:
        nonlocal result
        _, reports = await _tell(store, settings, instruction)
        result = 0 if reports.complete else 1
        if as_json:
            print(json.dumps(reports.facts()))
        else:
            _print(instruction, reports)

    _check(instruction)
    with audited(settings, _act(instruction)):
        with_store(settings, work)
    return result


def _act(instruction: Instruction) -> Act:
    from collab.hub.control import KINDS, describe

    return Act(KINDS[instruction.kind], instruction.document, describe(instruction), instruction.user)


def _check(instruction: Instruction) -> None:
    from collab.hub.control import check_instruction

    try:
        check_instruction(instruction)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def _tell(store: Store, settings: Settings, instruction: Instruction) -> tuple[int, Reports]:
    """Tell all servers; give the number of the instruction, and what they report."""
    from collab.cluster.messages import ALL_NODES
    from collab.hub.control import until_reported

    async with telling_nodes(settings) as tell:
        number = await store.instruct(instruction)
        return number, await until_reported(store, number, lambda: tell([ALL_NODES]))


def _print(instruction: Instruction, reports: Reports) -> None:
    for report in reports.reports:
        if instruction.logger is not None:
            print(f"{report.node}: the log level of {instruction.logger} is {instruction.level}")
            continue
        line = f"{report.node}: {report.ended} sessions ended"
        line += f", {report.changed} with another access" if report.changed else ""
        line += f", {report.undecided} could not be decided on" if report.undecided else ""
        print(line if report.done else f"{report.node}: has heard it, and is at it")
    if reports.silent:
        names = ", ".join(reports.silent)
        print(f"collab: not heard from, and still to act when they look: {names}", file=sys.stderr)
    elif not reports.reports:
        raise CollabError("no server has answered: is one running on this database? It acts when it looks")
