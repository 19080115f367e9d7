"""``/inspect`` and ``/log``: one document from inside, on all nodes and as it is stored, and its updates decoded.

Strategy: what is stored is read by numbers and sizes; only of the rows of one page the bytes are read, a few at a
time, and decoded in slices (``collab.update.outline``). What each node has in memory is asked of it
(``collab.hub.activity``).
It shows everything about a document but its content, and who wrote it; so it needs ``admin`` for all documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web
from pydantic import Field, ValidationError

from collab.audit import Act, Kind
from collab.errors import DecodeError
from collab.hub.hub import Hub
from collab.hub.loading import find_living, is_damaged_pending
from collab.hub.slices import in_slices
from collab.protocol.session import Access
from collab.storage.checksums import beside_the_loop, is_damaged
from collab.storage.maintenance import Maintenance
from collab.storage.records import LogRow, PendingUpdate
from collab.storage.store import Store
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.creation import Metadata
from collab.transports.http.api.documents import show_time
from collab.transports.http.api.nodes import ACCESS, TAG, Said
from collab.transports.http.api.people import Date, Silent
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Query, Route, json_response
from collab.update.outline import Outline, outline

DEFAULT_ROWS: Final = 20
MAX_ROWS: Final = 100
"""Rows of one answer."""

MAX_DECODED: Final = 1024 * 1024
"""Bytes of a row, or of an update that waits, that is decoded."""

# Bytes that are decoded for one answer: about a second of work in slices.
_DECODED: Final = 2 * 1024 * 1024

# Rows that are read at once, and bytes of rows after which a page ends: each may be as long as a message.
_PORTION: Final = 10
_PAGE_BYTES: Final = 8 * 1024 * 1024

# Looks into the log for one page: rows may be missing.
_LOOKS: Final = 20

# Updates that wait and snapshots that are listed of one document; all are counted.
_LISTED: Final = 50

_MOST: Final = 1 << 53

_PROBLEMS: Final = ("document_not_found", "document_deleted", "invalid_name")


class Structs(Model):
    """Structs of one kind: how many, and the clocks that they have together."""

    count: int
    length: int


class ClientShare(Model):
    """What an update holds of one client: the clocks from `from` to `to`, exclusive."""

    client: int
    start: int = Field(serialization_alias="from")
    end: int = Field(serialization_alias="to")
    structs: int


class Deletes(Model):
    """What an update deletes."""

    clients: int
    ranges: int
    length: int = Field(description="In clocks.")


class Decoded(Model):
    """What an update holds."""

    structs: dict[str, Structs] = Field(
        description="By kind of content: `gc`, `deleted`, `json`, `binary`, `string`, `embed`, `format`, `type`, "
        "`any`, `doc`, `skip`."
    )
    clients: list[ClientShare] = Field(description="Of whom the structs are, up to 50.")
    clients_count: int
    roots: list[str] = Field(description="Roots that structs name themselves, up to 20.")
    deletes: Deletes
    text: str = Field(description="The beginning of its strings, up to 200 characters.")


class DecodedRow(Model):
    """A row of the log."""

    number: int
    at: Date
    author: str | None
    on_behalf_of: str | None
    label: str | None
    bytes: int
    damaged: bool
    decoded: Decoded | None = Field(description="Null for a damaged row, for one above 1 MiB, and past 2 MiB.")


class LogPage(Model):
    """Rows of the log, the newest first."""

    rows: list[DecodedRow]
    next: int | None = Field(description="Give it as `before` for the page behind this one; null at the oldest row.")


class LogQuery(Query):
    """Which rows."""

    before: int | None = Field(None, ge=1, lt=_MOST, description="Only rows below this number.")
    limit: int = Field(DEFAULT_ROWS, ge=1, le=MAX_ROWS, description="How many rows there are in a page, at most.")


class SnapshotFacts(Model):
    """A snapshot."""

    number: int
    bytes: int
    at: Date


class WaitingUpdate(Model):
    """An update that waits for what the document lacks."""

    number: int
    at: Date
    author: str | None
    bytes: int
    damaged: bool
    decoded: Decoded | None


class RoomInside(Said):
    """What one node has of a document; numbers are null where it is not open there."""

    node: str
    open: bool
    number: int | None = None
    bytes: int | None = Field(None, description="In memory.")
    clients: int | None = Field(None, description="Client IDs that have ever edited it.")
    sessions: int | None = None
    readers: int | None = None
    agents: int | None = None
    visitors: int | None = None
    edits: float | None = Field(None, description="A second, of the last seconds.")
    waiting_bytes: int | None = Field(None, description="Bytes that wait for its clients.")
    slow_members: int | None = None
    uncommitted: int | None = Field(None, description="Turns on their way into the log.")
    pending_updates: int | None = None
    pending_bytes: int | None = None
    waiting_rows: int | None = Field(None, description="Rows that wait for what the log lacks.")
    tail_rows: int | None = None
    tail_bytes: int | None = None
    snapshot_number: int | None = None
    compacting: bool | None = None
    idle_seconds: float | None = Field(None, description="Since when nobody is there; null while somebody is.")
    closed_seconds: float = Field(description="For so long it cannot be opened there.")
    closed_by: str | None = Field(description="`operator`, `failures`, or null.")
    troubled: bool = Field(description="Whether it could not be served when it was opened last.")
    damaged: str | None = Field(description="What could not be read.")


class Inside(Model):
    """One document from inside."""

    name: str
    id: int
    title: str | None
    metadata: Metadata
    gc: bool = Field(description="Whether compaction drops deleted content.")
    created_at: Date
    updated_at: Date
    number: int = Field(description="Of the newest row; 0: there is none.")
    rows: int = Field(description="Rows that are kept.")
    first_row: int | None = Field(description="The number of the oldest of them.")
    tail_rows: int = Field(description="Rows behind the newest snapshot.")
    tail_bytes: int
    snapshots: list[SnapshotFacts] = Field(description="The newest first, up to 50.")
    snapshots_count: int | None = Field(description="Null for a store that does not tell.")
    pending: list[WaitingUpdate] = Field(description="Updates that wait for what the document lacks, up to 50.")
    pending_count: int
    damage_noted: bool | None = Field(description="Null for a store that does not tell.")
    nodes: list[RoomInside]
    silent: Silent


class InspectionRoutes:
    """The handlers.

    Args:
        hub: asks the other nodes.
        store: where documents are; it shows more if it is one of ``Maintenance``.
        permission: knows who asks.
    """

    def __init__(self, hub: Hub, store: Store, permission: Permission) -> None:
        self._hub = hub
        self._store = store
        self._permission = permission

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "GET",
                "/inspect/{name}",
                self.inspect,
                "inspect_document",
                TAG,
                "Show a document from inside: what is stored of it, and what each node has in memory.",
                [Answer(200, "The document.", Inside)],
                access=ACCESS,
                problems=_PROBLEMS,
            ),
            Route(
                "GET",
                "/log/{name}",
                self.log,
                "list_log",
                TAG,
                "List the newest updates of a document, decoded.",
                [Answer(200, "A page of rows.", LogPage)],
                query=LogQuery,
                access=ACCESS,
                problems=_PROBLEMS,
            ),
        ]

    async def inspect(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Answer with one document."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        name = call.name
        summary = await self._store.describe(name)
        document = summary.document
        answers = await self._hub.activity.inside(name)
        nodes, silent = _read_nodes(answers.said), [*answers.silent]
        silent += [node for node in answers.said if all(node != each.node for each in nodes)]
        snapshots, count, noted = await self._snapshots(document.id)
        if count is None and summary.snapshot_at is not None:
            at = show_time(summary.snapshot_at)
            snapshots = [SnapshotFacts(number=summary.snapshot_seq, bytes=summary.snapshot_bytes, at=at)]
        pending = await self._store.load_pending(document.id)
        return json_response(
            Inside(
                name=document.name,
                id=document.id,
                title=document.title,
                metadata=dict(document.metadata),
                gc=document.gc,
                created_at=show_time(document.created_at),
                updated_at=show_time(document.updated_at),
                number=document.head_seq,
                rows=summary.log_rows,
                first_row=document.head_seq - summary.log_rows + 1 if summary.log_rows else None,
                tail_rows=summary.tail_rows,
                tail_bytes=summary.tail_bytes,
                snapshots=snapshots,
                snapshots_count=count,
                pending=await self._describe_pending(pending),
                pending_count=len(pending),
                damage_noted=noted,
                nodes=nodes,
                silent=sorted(silent),
            )
        )

    async def log(self, call: Call[LogQuery, NoBody]) -> web.Response:
        """Answer with rows."""
        grant = await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        with self._permission.acting(call.request, Act(Kind.DOCUMENT_READ, call.name), grant):
            return await self._log(call)

    async def _log(self, call: Call[LogQuery, NoBody]) -> web.Response:
        head = await find_living(self._store, call.name)
        before = head.seq + 1 if call.query.before is None else min(call.query.before, head.seq + 1)
        oldest = await self._store.rows_after(head.document_id, 0, 1)
        end = oldest[0].seq if oldest else head.seq + 1
        rows: list[DecodedRow] = []
        decoding = _Decoding()
        looks, nbytes = 0, 0
        while before > end and len(rows) < call.query.limit and nbytes < _PAGE_BYTES and looks < _LOOKS:
            # Where rows are missing there are fewer of them.
            first = max(0, before - 1 - min(call.query.limit - len(rows), _PORTION))
            found = await self._store.rows_after(head.document_id, first, before - 1 - first)
            for row in reversed([row for row in found if row.seq < before]):
                rows.append(await _describe_row(row, decoding))
                nbytes += len(row.data)
            before, looks = first + 1, looks + 1
        return json_response(LogPage(rows=rows, next=before if before > end else None))

    async def _snapshots(self, document_id: int) -> tuple[list[SnapshotFacts], int | None, bool | None]:
        if not isinstance(self._store, Maintenance):
            return [], None, None
        kept = await self._store.kept_snapshots(document_id)
        newest = kept[: -_LISTED - 1 : -1]
        facts = [SnapshotFacts(number=each.seq, bytes=each.nbytes, at=show_time(each.at)) for each in newest]
        return facts, len(kept), await self._store.damage_noted(document_id)

    async def _describe_pending(self, pending: Sequence[PendingUpdate]) -> list[WaitingUpdate]:
        found: list[WaitingUpdate] = []
        decoding = _Decoding()
        for update in pending[:_LISTED]:
            damaged = await beside_the_loop(len(update.data), partial(is_damaged_pending, update))
            found.append(
                WaitingUpdate(
                    number=update.number,
                    at=show_time(update.at),
                    author=update.author,
                    bytes=len(update.data),
                    damaged=damaged,
                    decoded=None if damaged else await decoding.decode(update.data),
                )
            )
        return found


class _Decoding:
    """Decodes updates for one answer, until they have been too many bytes."""

    def __init__(self) -> None:
        self._left = _DECODED

    async def decode(self, data: bytes) -> Decoded | None:
        """Decode an update; None for one that is too large, that is none, or for which there is no time left."""
        if len(data) > min(MAX_DECODED, self._left):
            return None
        self._left -= len(data)
        try:
            return _describe(await in_slices(outline(data)))
        except DecodeError:
            return None


async def _describe_row(row: LogRow, decoding: _Decoding) -> DecodedRow:
    damaged = await beside_the_loop(len(row.data), lambda: is_damaged(row))
    return DecodedRow(
        number=row.seq,
        at=show_time(row.at),
        author=row.author,
        on_behalf_of=None if row.note is None else row.note.on_behalf_of,
        label=None if row.note is None else row.note.label,
        bytes=len(row.data),
        damaged=damaged,
        decoded=None if damaged else await decoding.decode(row.data),
    )


def _describe(found: Outline) -> Decoded:
    return Decoded(
        structs={kind: Structs(count=count, length=length) for kind, (count, length) in found.structs.items()},
        clients=[
            ClientShare(client=share.client, start=share.start, end=share.end, structs=share.structs)
            for share in found.shares
        ],
        clients_count=found.clients,
        roots=found.roots,
        deletes=Deletes(clients=found.deleting, ranges=found.ranges, length=found.deleted),
        text=found.text,
    )


def _read_nodes(said: Mapping[str, Any]) -> list[RoomInside]:
    """Read what nodes have said of a document; those are left out whose answer is of another form."""
    found: list[RoomInside] = []
    for node, facts in sorted(said.items()):
        try:
            found.append(RoomInside.model_validate({**facts, "node": node}))
        except (TypeError, ValidationError):
            continue
    return found
