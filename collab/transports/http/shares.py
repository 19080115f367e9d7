"""``/api/shares``: links by which guests open a document, for servers whose users need tokens.

    POST /api/shares   {"name", "access": "read" or "write", "seconds"}   201 {"token", "access", "expires"}
    GET  /api/shares?name=                                                200 {"max_seconds"}, 0 where there are none

Strategy: the page that shares puts the token into the fragment of a link (``#token=``), which no server and no
log ever sees. What a token holds is the business of ``collab.auth.guests``; here it is decided who gets one: whoever
is signed in and may write the document, at a bounded rate. Each is a line of the log with the user that guests are
recorded as, so that an edit of a guest leads back to who has shared.

``expires`` is RFC 3339 in UTC. 501 says why this server makes no links: only one that holds a shared secret can sign.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from aiohttp import web

from collab.auth.guests import GuestTokens, NameIsPattern
from collab.errors import Forbidden
from collab.hub.admission import Admission
from collab.protocol.names import check_document_name
from collab.protocol.session import Access
from collab.telemetry import get_logger, shown_name
from collab.transports.guard.audit import LIMIT
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import BadRequest, Permission, answering, encodable, json_answer

_log = get_logger("http")

_ACCESS = {access.value: access for access in (Access.READ, Access.WRITE)}

# What Retry-After says: a full second more than one token of 20 a minute takes to come back.
_RETRY_SECONDS = 4

OPEN = "without authentication there is nothing to share but the address: whoever reaches this server may edit"
NO_SECRET = "this server checks tokens and cannot make any: it has no --jwt-secret"
TURNED_OFF = "links for guests are turned off here (--max-share-seconds)"


def add_share_routes(app: web.Application, admission: Admission, guard: Guard, guests: GuestTokens | None) -> None:
    """Serve ``/api/shares``; ``guests`` is None where no token can be signed. Without ``max_seconds`` it is off."""
    shares = _Shares(Permission(admission, guard), guard, guests)
    app.router.add_get("/api/shares", answering(shares.show))
    app.router.add_post("/api/shares", answering(shares.create))


class _Shares:
    """The handlers."""

    def __init__(self, permission: Permission, guard: Guard, guests: GuestTokens | None) -> None:
        self._permission = permission
        self._guard = guard
        self._guests = guests

    async def show(self, request: web.Request) -> web.Response:
        """Answer with how long a link may last: a page offers none where there are none.

        With ``name`` it is what holds for the sender and that document: 0 for those who would be refused one.
        """
        guests = self._guests
        longest = 0 if guests is None else guests.max_seconds
        name = request.query.get("name")
        if name is not None and guests is not None and longest:
            encodable(name)
            check_document_name(name)
            sharer = await self._permission.require(request, name, Access.READ)
            try:
                # The rule itself; nobody gets to see this token.
                guests.issue(name, Access.READ, 1, sharer)
            except (Forbidden, NameIsPattern):
                longest = 0
        return json_answer({"max_seconds": longest})

    async def create(self, request: web.Request) -> web.Response:
        """Sign a token for a guest."""
        guests = self._guests
        if guests is None or not guests.max_seconds:
            raise BadRequest(OPEN if self._permission.open else NO_SECRET if guests is None else TURNED_OFF, 501)
        body = await self._permission.read_body(request)
        name, word, seconds = body.get("name"), body.get("access"), body.get("seconds")
        if not isinstance(name, str):
            raise BadRequest('"name" is missing')
        check_document_name(name)
        if not isinstance(word, str) or word not in _ACCESS:
            raise BadRequest('"access" is "read" or "write"')
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 1 <= seconds <= guests.max_seconds:
            raise BadRequest(f'"seconds" is a whole number from 1 to {guests.max_seconds}')
        sharer = await self._permission.require(request, name, Access.WRITE)
        peer = self._guard.peer(request)
        if sharer.user is not None and not self._guard.limits.allow_share(
            sharer.user, asyncio.get_running_loop().time()
        ):
            self._guard.audit.write(LIMIT, "shares", "too many links of one user", peer.address, name)
            raise BadRequest("too many links, try again later", 429, {"Retry-After": str(_RETRY_SECONDS)})
        with self._permission.noting(request, name):
            made = guests.issue(name, _ACCESS[word], seconds, sharer)
        expires = datetime.fromtimestamp(made.expires_at, UTC).isoformat().replace("+00:00", "Z")
        _log.info(
            "%s shared %s, to %s until %s, with %s",
            shown_name(sharer.user or ""),
            shown_name(name),
            word,
            expires,
            made.user,
        )
        return json_answer({"token": made.token, "access": word, "expires": expires}, 201)
