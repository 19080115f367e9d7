"""``/api/control``: tell all nodes to end sessions, to ask again what they may do, or to read a document again.

    POST /api/control   {"action", "document"?, "user"?, "connection"?, "seconds"?}
        200 {"nodes": [{"node", "ended", "changed", "undecided", "done"}], "silent": [node]}
        202 the same, if not all have done it yet

``action`` is one of

    kick     end the sessions of a user, of a connection, or of everybody on a document; with ``seconds`` the user is
             kept out for so long
    check    ask the authenticator again, with the tokens that the sessions have shown
    reload   let each node drop the document from memory; its clients come back, and it is read from the store

Strategy: everything is decided and done in ``collab.hub.control``; here it is decided who may. Who is ``admin`` for a
document may say what concerns its sessions alone; all else needs ``admin`` for all documents (``*``).
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from collab.errors import StoreRefused
from collab.hub.admission import Admission
from collab.hub.control import Control, check_instruction
from collab.protocol.session import Access
from collab.storage.records import Instruction, Kind
from collab.telemetry import shown_name
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import (
    ALL_DOCUMENTS,
    BadRequest,
    Permission,
    answering,
    encodable,
    json_answer,
)

_FIELDS: Final = frozenset({"action", "document", "user", "connection", "seconds"})


def add_control_routes(app: web.Application, control: Control, admission: Admission, guard: Guard) -> None:
    """Serve ``/api/control``."""
    app.router.add_post("/api/control", answering(_Handlers(control, Permission(admission, guard), guard).give))


class _Handlers:
    """The handler."""

    def __init__(self, control: Control, permission: Permission, guard: Guard) -> None:
        self._control = control
        self._permission = permission
        self._guard = guard

    async def give(self, request: web.Request) -> web.Response:
        """Tell all nodes, and answer with what they report within seconds."""
        instruction = _read(await self._permission.read_body(request))
        name = ALL_DOCUMENTS if instruction.document is None else instruction.document
        grant = await self._permission.require(request, name, Access.ADMIN)
        address = self._guard.peer(request).address
        by = f"user={shown_name(grant.user)} address={address}" if grant.user is not None else f"address={address}"
        try:
            reports = await self._control.give(instruction, by)
        except StoreRefused as error:
            raise BadRequest("too many instructions, try again later", 429, {"Retry-After": "60"}) from error
        return json_answer(reports.facts(), 200 if reports.complete else 202)


def _read(body: dict[str, Any]) -> Instruction:
    """Read an instruction; raises ``BadRequest`` or ``InvalidDocumentName``."""
    if unknown := sorted(set(body) - _FIELDS):
        raise BadRequest(f'"{unknown[0][:64]}" is not known here'.encode(errors="replace").decode())
    texts: list[str | None] = []
    for field in ("document", "user", "connection"):
        value = body.get(field)
        if value is not None and not isinstance(value, str):
            raise BadRequest(f'"{field}" is a text')
        texts.append(value)
    for text in texts:
        encodable(text or "")
    action, seconds = body.get("action"), body.get("seconds", 0)
    if not isinstance(action, str) or action not in {kind.value for kind in Kind}:
        raise BadRequest('"action" is "kick", "check" or "reload"')
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise BadRequest('"seconds" is a number')
    document, user, connection = texts
    instruction = Instruction(Kind(action), document, user, connection, float(seconds))
    try:
        check_instruction(instruction)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    return instruction
