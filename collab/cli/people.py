"""The command line's data about people: what names a user, as a file, and taking the user's name out of everything.

Strategy: on the database, beside running servers. All documents are looked through, deleted ones too, because nothing
is indexed by user. What a server writes meanwhile may name the user again, so erasing goes on until it finds nothing.
"""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from collab.audit import Act, Kind
from collab.authorship import DELETED_USER
from collab.cli.common import AUDIT, DATABASE, audited, output_file, progress, shown_file, with_database, with_settings
from collab.errors import ConfigurationError
from collab.settings import Settings
from collab.telemetry import shown_name

if TYPE_CHECKING:
    from collab.storage.people import People, Place, Trace
    from collab.storage.records import LogRow

_PAGE: Final = 100

_MOST_PASSES: Final = 5
"""How often erasing looks through everything before it says that the user is still at work."""

_TIMES: Final = frozenset({"at", "until"})

_WORDS: Final = {
    "edit": "edits",
    "waiting": "updates that wait",
    "client_id": "client IDs",
    "version": "versions",
    "sitting": "sittings",
    "attribution": "attributions",
    "guest_name": "names of guests",
    "delivery": "webhook deliveries",
}

_User = Annotated[
    str, typer.Argument(metavar="USER", show_default=False, help="The user's ID, as tokens name it (sub).")
]

people = typer.Typer(
    help="Export or erase what is stored about one user. On the database; servers may be running on it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(people, name="people")


@people.command("export")
@with_settings(*DATABASE, *AUDIT)
def export_user(
    settings: Settings,
    user: _User,
    out: Annotated[str, typer.Option(metavar="FILE", help="Where to write it; - is standard output.")] = "-",
    content: Annotated[bool, typer.Option("--content", help="With the update of each edit, as base64.")] = False,
) -> None:
    """Write everything that names a user, one JSON object a line: edits, versions, sittings, deliveries and so on."""
    from collab.adapters import make_maintenance

    counts: Counter[str] = Counter()

    async def work(store: People) -> None:
        with output_file(out) as write:
            async for trace in _everything(store, user, content=content, quiet=out == "-"):
                counts[trace["kind"]] += 1
                write(json.dumps(trace, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

    with audited(settings, Act(Kind.PEOPLE_EXPORTED, target=user)) as act:
        with_database(settings, make_maintenance, work)
        act.detail = _summary(counts)
    print(f"wrote {_summary(counts)} of {shown_name(user)} to {shown_file(out, out=True)}", file=sys.stderr)


@people.command("erase")
@with_settings(*DATABASE, *AUDIT)
def erase_user(
    settings: Settings,
    user: _User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as a JSON object.")] = False,
) -> int:
    """Put "deleted user" in the place of a user, wherever the user is named. What the user wrote stays.

    Take the user's access away first, and kick it. The exit code is 1 if the user is still named at the end.
    """
    from collab.adapters import make_maintenance

    if user == DELETED_USER:
        raise ConfigurationError(f"{DELETED_USER!r} stands for those who are erased already")
    if not yes:
        typer.confirm(f"Take {shown_name(user)} out of everything that is stored? Nothing brings it back", abort=True)
    counts: Counter[str] = Counter()
    places: set[int] = set()
    left: Counter[str] = Counter()

    async def work(store: People) -> None:
        nonlocal left
        for _ in range(_MOST_PASSES):
            left = Counter()
            with progress(await store.count(), hidden=as_json) as step:
                async for place in _places(store):
                    found = await store.rename_in(place.id, user, DELETED_USER)
                    if found:
                        places.add(place.id)
                        left.update(found)
                    step(place.name or "")
            if told := await store.rename_in_deliveries(user, DELETED_USER):
                left["delivery"] += told
            counts.update(left)
            if not left:
                return

    with audited(settings, Act(Kind.PEOPLE_ERASED, target=user)) as act:
        with_database(settings, make_maintenance, work)
        act.detail = f"{len(places)} documents: {_summary(counts)}" + (", and still named" if left else "")
    if as_json:
        facts = {"user": user, "documents": len(places), "changed": dict(counts), "done": not left}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print(f"erased {shown_name(user)} from {len(places)} documents: {_summary(counts)}", file=sys.stderr)
    if left:
        print(f"collab: {shown_name(user)} is still written about: take its access away, and kick it", file=sys.stderr)
        return 1
    return 0


async def _everything(store: People, user: str, *, content: bool, quiet: bool) -> AsyncIterator[dict[str, Any]]:
    with progress(await store.count(), hidden=quiet) as step:
        async for place in _places(store):
            after = 0
            while rows := await store.edits_of(place.id, user, after, _PAGE):
                for row in rows:
                    yield {"kind": "edit", **_of(place), **_edit(row, user, content=content)}
                after = rows[-1].seq
            for trace in await store.traces_of(place.id, user):
                yield {"kind": trace.kind, **_of(place), **_readable(trace)}
            step(place.name or "")
    last: int | None = 0
    while last is not None:
        traces, last = await store.deliveries_of(user, last, _PAGE)
        for trace in traces:
            yield {"kind": trace.kind, **_readable(trace)}


async def _places(store: People) -> AsyncIterator[Place]:
    after = 0
    while page := await store.places_after(after, _PAGE):
        for place in page:
            yield place
        after = page[-1].id


def _of(place: Place) -> dict[str, Any]:
    return {"document": place.name, "id": place.id, **({"deleted": True} if place.deleted else {})}


def _edit(row: LogRow, user: str, *, content: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"number": row.seq, "at": _time(row.at), "bytes": len(row.data)}
    if row.author != user:
        facts["sent_by"] = row.author
    if row.note is not None:
        facts |= {"on_behalf_of": row.note.on_behalf_of, "label": row.note.label}
    if content:
        facts["update"] = base64.b64encode(row.data).decode()
    return facts


def _readable(trace: Trace) -> dict[str, Any]:
    return {name: _time(value) if name in _TIMES else value for name, value in trace.facts.items()}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[kind]} {word}" for kind, word in _WORDS.items() if counts[kind]) or "nothing"
