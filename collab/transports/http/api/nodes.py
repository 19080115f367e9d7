"""``/nodes``, ``/nodes/history`` and ``/rooms``: how all nodes are, were in the last hour, and what is busy on them.

Strategy: each node puts its own figures together (``collab.transports.http.figures``, ``collab.hub.activity``); the one
that is asked asks the others. What a node of another release says in another form counts as if it had said nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from collab.hub.activity import MAX_ROOMS, MAX_SEARCH, Room
from collab.hub.hub import Hub
from collab.hub.questions import FRESH
from collab.protocol.session import Access
from collab.storage.membership import Node
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import show_time
from collab.transports.http.api.people import Date, Silent
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Query, Route, json_response
from collab.transports.http.figures import LAST_HOUR, NOW, SAMPLE_SECONDS
from collab.transports.problems import BadRequest

TAG: Final = "Operating"

ACCESS: Final = "admin of all documents"

_DEFAULT_ROOMS: Final = 50

_MAX_NODE: Final = 64


class Said(BaseModel):
    """The base of what other nodes say: they may be of a later release, and know more."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, frozen=True)


class Quantiles(Said):
    """Seconds of the last 5 to 10 seconds; null where nothing was measured."""

    p50: float | None
    p99: float | None


class MemoryFigures(Said):
    """Bytes of memory."""

    used: int = Field(description="Of the process (resident).")
    mark: int = Field(description="Past it no documents are opened that are not open already; 0: none.")
    limit: int = Field(description="Past it no new connections are taken; 0: none.")
    past: int = Field(description="0, 1 past the mark, 2 past the limit.")
    parts: dict[str, int] = Field(description="What is counted, by what it is for.")


class JournalFigures(Said):
    """The queue of what is to be stored."""

    entries: int
    bytes: int
    failing: bool = Field(description="Whether the store takes no writes.")
    stalled_seconds: float = Field(description="For how long one commit has been under way, if that is too long.")
    retries: int = Field(description="Commits that have failed and were tried again.")


class BusFigures(Said):
    """The way to the other nodes."""

    kind: str
    trouble: str | None = Field(description="Why the others cannot be heard; null while they can.")
    others: int = Field(description="Other nodes that are there.")
    lost: dict[str, int] = Field(description="What was lost on the way and then read from the log.")
    reconnects: int


class SandboxFigures(Said):
    """Where whole documents are worked on."""

    under_way: int
    stays: int = Field(description="Documents that stay loaded there.")
    stay_bytes: int
    failed: int = Field(description="Jobs that have failed, crashed or taken too long.")


class WebhookFigures(Said):
    """Webhooks, as the node that delivers them sees them."""

    delivering: bool
    pending: int
    oldest_seconds: float
    disabled: int


class Refused(Said):
    """How often something was refused."""

    reason: str
    total: int = Field(description="Since the start of the node.")
    hour: int = Field(description="In the last hour.")


class DocumentFigures(Said):
    """Documents that are not as they should be."""

    damaged: int
    troubled: int
    closed: int = Field(description="Those that stay closed, by an operator or for their failures.")


class NodeFigures(Said):
    """One node, now. Rates and quantiles are of the last 5 to 10 seconds."""

    name: str
    address: str
    version: str
    started_at: Date
    at: Date
    ready: bool
    degraded: bool = Field(description="It serves, and something is wrong all the same.")
    reasons: list[str] = Field(description="What is wrong.")
    checks: dict[str, str] = Field(description="As of `/readyz`.")
    connections: dict[str, int] = Field(description="By protocol.")
    rooms: int = Field(description="Documents in memory.")
    sessions: int
    slow_members: int = Field(description="Clients that get no live frames until they have read what waits.")
    rates: dict[str, float] = Field(description="A second. `cpu` is the share of one core.")
    acknowledgement: Quantiles
    propagation: Quantiles
    loop_lag: Quantiles
    loop_stalls: int
    memory: MemoryFigures
    journal: JournalFigures
    bus: BusFigures
    sandbox: SandboxFigures
    webhooks: WebhookFigures
    refusals: list[Refused] = Field(description="Most of the last hour first.")
    limits: list[Refused] = Field(description="Bounds that clients have passed, in the same order.")
    documents: DocumentFigures
    store_bytes: int | None = Field(description="Of the database that all nodes share.")


class HeartbeatFacts(Model):
    """A row of the table of nodes."""

    name: str
    address: str
    version: str
    bus: str
    alive: bool
    since: Date
    silent_seconds: float = Field(description="Since its last heartbeat.")
    documents: int
    connections: int


class Nodes(Model):
    """All nodes, now."""

    asked: str = Field(description="The node that has put this together.")
    at: Date
    nodes: list[NodeFigures] = Field(description="By name.")
    silent: Silent
    heartbeats: list[HeartbeatFacts] = Field(description="Also of nodes that are gone, for an hour.")


class NodeHistory(Said):
    """The last hour of one node."""

    name: str
    at: list[float] = Field(description="When each sample was taken, in seconds since 1970.")
    series: dict[str, list[int | float | None]] = Field(description="Values by name, each list as long as `at`.")


class History(Model):
    """The last hour of all nodes."""

    seconds: float = Field(description="Between two samples.")
    nodes: list[NodeHistory]
    silent: Silent


class HistoryQuery(Query):
    """Of which node, and since when."""

    node: str | None = Field(None, max_length=_MAX_NODE, description="Only of this node.")
    since: float = Field(0.0, ge=0, description="Only samples after this time, in seconds since 1970.")


class RoomFigures(Model):
    """A document in memory. Rates are of the last 5 to 10 seconds, and null where they are not known yet."""

    name: str
    number: int | None = Field(description="Of its newest row; null of a document that is not stored yet.")
    bytes: int
    sessions: int
    readers: int = Field(description="Requests that read it as a stream.")
    edits_per_second: float | None
    stored_bytes_per_second: float | None
    rows_per_second: float | None
    waiting_bytes: int = Field(description="Bytes that wait for its clients.")
    slow_members: int
    uncommitted: int = Field(description="Turns that are on their way into the log.")
    pending_updates: int = Field(description="Updates that wait for what the document lacks.")
    nodes: list[str]


class RoomPage(Model):
    """Documents in memory."""

    rooms: list[RoomFigures]
    total: int = Field(description="How many match; one that is open on two nodes counts twice.")
    next: str | None = Field(description="The cursor of the page behind this one, in the order of names; else null.")
    silent: Silent


class RoomQuery(Query):
    """Which documents, and in which order."""

    order: Literal["edits", "stored", "size", "sessions", "waiting", "name"] = Field(
        "edits",
        description="By edits or stored bytes a second, bytes in memory, sessions, bytes that wait, or the name.",
    )
    search: str = Field("", max_length=MAX_SEARCH, description="Only those whose names hold this, whatever case.")
    node: str | None = Field(None, max_length=_MAX_NODE, description="Only those of this node.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(_DEFAULT_ROOMS, ge=1, le=MAX_ROOMS, description="How many are listed.")


class NodeRoutes:
    """The handlers.

    Args:
        hub: asks the other nodes.
        permission: knows who asks.
    """

    def __init__(self, hub: Hub, permission: Permission) -> None:
        self._hub = hub
        self._permission = permission

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "GET",
                "/nodes",
                self.show,
                "get_nodes",
                TAG,
                "Tell how all nodes are now.",
                [Answer(200, "All nodes that have answered.", Nodes)],
                access=ACCESS,
                description="It may be asked each second. The figures are those that `/metrics` counts.",
            ),
            Route(
                "GET",
                "/nodes/history",
                self.history,
                "get_nodes_history",
                TAG,
                "Tell how all nodes were in the last hour.",
                [Answer(200, "Samples, the oldest first.", History)],
                query=HistoryQuery,
                access=ACCESS,
            ),
            Route(
                "GET",
                "/rooms",
                self.rooms,
                "list_rooms",
                TAG,
                "List the documents in memory on all nodes, the busiest or the largest first.",
                [Answer(200, "The first ones, or a page by their names.", RoomPage)],
                query=RoomQuery,
                access=ACCESS,
                description="Rates are measured while somebody asks. A document that is far down on one of several "
                "nodes may be shown without that node's part.",
            ),
        ]

    async def show(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Answer with the figures of all nodes."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        answers = await self._hub.questions.ask({"kind": NOW}, fresh=FRESH)
        nodes, silent = answers.read(_read_figures)
        return json_response(
            Nodes(
                asked=self._hub.membership.name,
                at=show_time(self._hub.clock()),
                nodes=[*nodes.values()],
                silent=[*silent],
                heartbeats=[_describe_node(node) for node in self._hub.membership.nodes],
            )
        )

    async def history(self, call: Call[HistoryQuery, NoBody]) -> web.Response:
        """Answer with the last hour."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        asked = {"kind": LAST_HOUR, "node": call.query.node, "since": call.query.since}
        answers = await self._hub.questions.ask(asked, fresh=FRESH)
        nodes, silent = answers.read(_read_history)
        wanted = call.query.node
        return json_response(
            History(
                seconds=SAMPLE_SECONDS,
                nodes=[told for node, told in nodes.items() if wanted in (None, node)],
                silent=[node for node in silent if wanted in (None, node)],
            )
        )

    async def rooms(self, call: Call[RoomQuery, NoBody]) -> web.Response:
        """Answer with documents in memory."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        query = call.query
        if query.cursor is not None and query.order != "name":
            raise BadRequest('only "order=name" has pages')
        after = None if query.cursor is None else decode_cursor("r", query.cursor)
        found = await self._hub.activity.list_rooms(query.order, query.search, query.node, after, query.limit)
        following = None if found.following is None else encode_cursor("r", found.following)
        rooms = [_describe_room(room) for room in found.items]
        return json_response(RoomPage(rooms=rooms, total=found.total, next=following, silent=[*found.silent]))


def _read_figures(node: str, said: Mapping[str, Any]) -> NodeFigures:
    times = {name: show_time(float(said[name])) for name in ("started_at", "at")}
    return NodeFigures.model_validate({**said, **times, "name": node})


def _read_history(node: str, said: Mapping[str, Any]) -> NodeHistory:
    return NodeHistory.model_validate({**said, "name": node})


def _describe_node(node: Node) -> HeartbeatFacts:
    return HeartbeatFacts(
        name=node.name,
        address=node.address,
        version=node.version,
        bus=node.bus,
        alive=node.alive,
        since=show_time(node.since),
        silent_seconds=round(node.silent, 1),
        documents=node.documents,
        connections=node.connections,
    )


def _describe_room(room: Room) -> RoomFigures:
    return RoomFigures(
        name=room.name,
        number=room.number,
        bytes=room.nbytes,
        sessions=room.sessions,
        readers=room.readers,
        edits_per_second=room.edits,
        stored_bytes_per_second=room.stored,
        rows_per_second=room.rows,
        waiting_bytes=room.waiting,
        slow_members=room.slow,
        uncommitted=room.uncommitted,
        pending_updates=room.pending,
        nodes=[*room.nodes],
    )
