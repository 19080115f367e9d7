"""``/compact``, ``/verify`` and ``/repair``: putting one document in order, by an operator.

Strategy: it is done below (``collab.hub.upkeep``), on the node that is asked. Here it is decided who may: all of it
reads or changes what is stored as it lies there, so it needs ``admin`` for all documents.
"""

from __future__ import annotations

import time

from aiohttp import web
from pydantic import Field

from collab.audit import Act, Kind
from collab.hub.hub import Hub
from collab.hub.maintenance import Report
from collab.hub.upkeep import Upkeep
from collab.protocol.session import Access
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.control import NodeAnswer, Outcome
from collab.transports.http.api.nodes import ACCESS, TAG
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Route, json_response
from collab.transports.problems import BadRequest

# Numbers that are told of one kind of damage, and troubles; a document may have more.
_LISTED = 1_000

_PROBLEMS = ("document_not_found", "document_deleted", "too_many_requests", "invalid_name", "not_offered")


class Snapshotted(Model):
    """What became of a snapshot that was asked for."""

    made: bool
    reason: str | None = Field(description="Why none was made; null if one was.")
    number: int = Field(description="Up to which number the newest one goes; 0: there is none.")
    was_number: int = Field(description="Up to which number the newest one went before.")
    bytes: int
    node: str


class Verified(Model):
    """What was found of a document. Lists have up to 1,000 entries."""

    name: str
    whole: bool = Field(description="Whether nothing is damaged or missing.")
    rows: int
    snapshots: int
    pending: int = Field(description="Updates that wait for what the document lacks.")
    bytes: int
    troubles: list[str] = Field(description="What is wrong, a sentence each.")
    damaged_rows: list[int]
    damaged_snapshots: list[int]
    damaged_pending: list[int]
    missing: list[list[int]] = Field(description="First and last numbers of rows that are not there, in pairs.")
    unverified_rows: int = Field(description="Rows without a checksum, of an older release.")
    unverified_snapshots: int
    noted: bool = Field(description="Whether it is noted as damaged: nothing of it is pruned then.")
    poison: list[str] = Field(description="What stops yjs clients, and why.")
    seconds: float
    node: str


class Repairing(Model):
    """How a document is repaired."""

    dry_run: bool = Field(description="Only say what would be done.")


class Repaired(Model):
    """What was done, or would be."""

    name: str
    steps: list[str]
    done: bool
    kept: list[str] = Field(description="Files on `node` that hold the damaged bytes.")
    report: Verified = Field(description="What is found now.")
    reloaded: Outcome | None = Field(description="What the nodes have said that were to read it again.")
    node: str


class UpkeepRoutes:
    """The handlers.

    Args:
        hub: this node.
        upkeep: does it; None for a store that does not show what it keeps.
        permission: knows who asks.
    """

    def __init__(self, hub: Hub, upkeep: Upkeep | None, permission: Permission) -> None:
        self._hub = hub
        self._upkeep = upkeep
        self._permission = permission

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "POST",
                "/compact/{name}",
                self.compact,
                "compact_document",
                TAG,
                "Make a snapshot of a document now.",
                [Answer(200, "What became of it.", Snapshotted)],
                access=ACCESS,
                problems=(*_PROBLEMS, "document_damaged"),
                description="Servers make snapshots by themselves. The document is brought into memory for that.",
            ),
            Route(
                "POST",
                "/verify/{name}",
                self.verify,
                "verify_document",
                TAG,
                "Read all that is stored of a document, and compare checksums.",
                [Answer(200, "What was found.", Verified)],
                access=ACCESS,
                problems=_PROBLEMS,
                description="As `collab documents verify`. A node does two at a time.",
            ),
            Route(
                "POST",
                "/repair/{name}",
                self.repair,
                "repair_document",
                TAG,
                "Make a damaged document readable again, or say what would be done.",
                [Answer(200, "What was done, or would be.", Repaired)],
                body=Repairing,
                access=ACCESS,
                problems=_PROBLEMS,
                description="As `collab documents repair`: damaged bytes are kept in files first. If the document is "
                "open on the node that is asked, a snapshot is made of its memory before that. Then all nodes read it "
                "again.",
            ),
        ]

    async def compact(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Make a snapshot."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        made = await self._offered().compact(call.name)
        return json_response(
            Snapshotted(
                made=made.reason is None,
                reason=made.reason,
                number=made.number,
                was_number=made.was,
                bytes=made.nbytes,
                node=self._hub.membership.name,
            )
        )

    async def verify(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Look at a document."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        began = time.perf_counter()
        report = await self._offered().verify(call.name)
        return json_response(self._describe(report, began))

    async def repair(self, call: Call[NoQuery, Repairing]) -> web.Response:
        """Repair a document."""
        grant = await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        body, began = await call.body(known=True), time.perf_counter()
        with self._permission.acting(call.request, Act(Kind.DOCUMENT_REPAIRED, call.name), grant) as act:
            done = await self._offered().repair(call.name, dry_run=body.dry_run)
            act.nothing = body.dry_run or not done.steps
            act.detail = "; ".join(done.steps[:_LISTED])
        outcome = None
        if done.reloaded is not None:
            nodes = [NodeAnswer(**report._asdict()) for report in done.reloaded.reports]
            outcome = Outcome(nodes=nodes, silent=[*done.reloaded.silent])
        return json_response(
            Repaired(
                name=call.name,
                steps=done.steps[:_LISTED],
                done=bool(done.steps) and not body.dry_run,
                kept=[str(path) for path in done.kept[:_LISTED]],
                report=self._describe(done.report, began),
                reloaded=outcome,
                node=self._hub.membership.name,
            )
        )

    def _offered(self) -> Upkeep:
        if self._upkeep is None:
            raise BadRequest("the store of this server does not show what it keeps", "not_offered")
        return self._upkeep

    def _describe(self, report: Report, began: float) -> Verified:
        return Verified(
            name=report.name,
            whole=report.whole,
            rows=report.rows,
            snapshots=report.snapshots,
            pending=report.pending,
            bytes=report.nbytes,
            troubles=[*report.troubles()][:_LISTED],
            damaged_rows=report.damaged_rows[:_LISTED],
            damaged_snapshots=report.damaged_snapshots[:_LISTED],
            damaged_pending=report.damaged_pending[:_LISTED],
            missing=[[first, last] for first, last in report.missing[:_LISTED]],
            unverified_rows=report.unverified_rows,
            unverified_snapshots=report.unverified_snapshots,
            noted=report.noted,
            poison=report.poison[:_LISTED],
            seconds=round(time.perf_counter() - began, 3),
            node=self._hub.membership.name,
        )
