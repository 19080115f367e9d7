"""``/control``: tell all nodes to end sessions, ask again what they may do, read a document again, or log more.

Strategy: everything is decided and done in ``collab.hub.control``; here it is decided who may. Who is ``admin`` for a
document may say what concerns its sessions alone; all else needs ``admin`` for all documents (``*``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from aiohttp import web
from pydantic import Field

from collab.errors import StoreRefused
from collab.hub.control import Control, change_of_level, check_instruction, release
from collab.protocol.session import Access
from collab.storage.records import Instruction, Kind
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoQuery, Route, json_response
from collab.transports.problems import BadRequest

TAG = "Connections"

_RETRY_SECONDS = 60

_MAX_TEXT = 1_024


class Command(Model):
    """What all nodes are told."""

    action: Literal["kick", "check", "reload", "quarantine", "release", "log"] = Field(
        description="`kick` ends the sessions of a user, of a connection, or of everybody on a document. `check` asks "
        "again what sessions may do, with the tokens that they have shown. `reload` lets each node drop the document "
        "from memory: its clients come back, and it is read from the store. `quarantine` closes the document for some "
        "time: its clients are sent away, and nobody can open it. `release` lets it be opened again, also if it was "
        "closed because it has failed. `log` changes a log level for some time."
    )
    document: str | None = Field(None, max_length=_MAX_TEXT, description="Only sessions on this document.")
    user: str | None = Field(None, max_length=_MAX_TEXT, description="Only sessions of this user.")
    connection: str | None = Field(
        None, max_length=_MAX_TEXT, description="Only sessions of this connection, `NODE-NUMBER`."
    )
    seconds: float | None = Field(
        None,
        description="With `kick` and a user: for so long the user is kept out (not at all). With `quarantine`: for so "
        "long the document is closed (1 to 86400). With `log`: for so long the level counts (600, at most 86400).",
    )
    logger: str | None = Field(
        None,
        max_length=_MAX_TEXT,
        description="With `log`: `collab` for all (the default), or `collab.journal` and such.",
    )
    level: Literal["debug", "info", "warning", "error", "default"] | None = Field(
        None, description="With `log`: from which level on it writes; `default` is as at the start of the server."
    )


class NodeAnswer(Model):
    """What one node has done."""

    node: str
    ended: int = Field(description="Sessions that were ended.")
    changed: int = Field(description="Sessions that may do something else now.")
    undecided: int = Field(description="Sessions on which nobody could decide; they go on.")
    done: bool = Field(description="Whether the node is through with it.")


class Outcome(Model):
    """What the nodes have done within five seconds."""

    nodes: list[NodeAnswer]
    silent: list[str] = Field(description="Nodes that live and have said nothing.")


class ControlRoutes:
    """The handler."""

    def __init__(self, control: Control, permission: Permission, guard: Guard) -> None:
        self._control = control
        self._permission = permission
        self._guard = guard

    def routes(self) -> list[AnyRoute]:
        """Give the route."""
        return [
            Route(
                "POST",
                "/control",
                self.give,
                "control",
                TAG,
                "End sessions, ask again what they may do, read a document again, close one, or change a log level.",
                [
                    Answer(200, "All nodes have done it.", Outcome),
                    Answer(202, "Not all have done it yet; they will.", Outcome),
                ],
                body=Command,
                access="admin of the document; of all documents where none is named, and to close one and release it",
                problems=("invalid_name", "too_many_requests"),
            )
        ]

    async def give(self, call: Call[NoQuery, Command]) -> web.Response:
        """Tell all nodes, and answer with what they report within seconds."""
        instruction = _read(await call.body())
        # What an operator has closed its own admins must not open again.
        closes = instruction.kind in (Kind.QUARANTINE, Kind.RELEASE)
        name = ALL_DOCUMENTS if instruction.document is None or closes else instruction.document
        grant = await self._permission.require(call.request, name, Access.ADMIN)
        try:
            reports = await self._control.give(instruction, self._guard.who(call.request, grant.user))
        except StoreRefused as error:
            raise BadRequest(
                "too many instructions, try again later", "too_many_requests", retry_after=_RETRY_SECONDS
            ) from error
        outcome = Outcome(
            nodes=[NodeAnswer(**report._asdict()) for report in reports.reports], silent=list(reports.silent)
        )
        return json_response(outcome, 200 if reports.complete else 202)


def _read(body: Command) -> Instruction:
    """Read an instruction; raises ``BadRequest`` or ``InvalidDocumentName``."""
    if body.action == "log":
        if body.level is None:
            raise BadRequest('"log" needs a "level"')
        instruction = change_of_level(body.logger, body.level, body.seconds)
        instruction = replace(instruction, document=body.document, user=body.user, connection=body.connection)
    elif body.action == "release":
        if body.seconds is not None:
            raise BadRequest('"release" has no "seconds"')
        instruction = replace(release(body.document), user=body.user, connection=body.connection)
    else:
        seconds = 0.0 if body.seconds is None else body.seconds
        kind, logger = Kind(body.action), body.logger
        instruction = Instruction(
            kind, body.document, body.user, body.connection, seconds, logger=logger, level=body.level
        )
    try:
        check_instruction(instruction)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return instruction
