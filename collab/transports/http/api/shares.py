"""``/shares``: links by which guests open a document, for servers whose users need tokens.

Strategy: the page that shares puts the token into the fragment of a link (``#token=``), which no server and no
log ever sees. What a token holds is the business of ``collab.auth.guests``; here it is decided who gets one: whoever
is signed in and may write the document, at a bounded rate. Each is a line of the log with the user that guests are
recorded as, so that an edit of a guest leads back to who has shared.

``not_offered`` says why this server makes no links: only one that holds a shared secret can sign.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Literal

from aiohttp import web
from pydantic import Field

from collab.audit import Act, Kind, Outcome
from collab.auth.guests import GuestTokens, NameIsPattern
from collab.errors import Forbidden
from collab.protocol.names import check_document_name
from collab.protocol.session import Access
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import Permission
from collab.transports.http.api.documents import Name
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Query, Route, json_response
from collab.transports.problems import BadRequest

_ACCESS = {access.value: access for access in (Access.READ, Access.WRITE)}

# What Retry-After says: a full second more than one token of 20 a minute takes to come back.
_RETRY_SECONDS = 4

TAG = "Links for guests"

OPEN = "without authentication there is nothing to share but the address: whoever reaches this server may edit"
NO_SECRET = "this server checks tokens and cannot make any: it has no --jwt-secret"
TURNED_OFF = "links for guests are turned off here (--max-share-seconds)"


class ShareQuery(Query):
    """For which document."""

    name: str | None = Field(None, description="Say what holds for whoever asks and this document.")


class Offer(Model):
    """How long a link may last."""

    max_seconds: int = Field(ge=0, description="0: none is made here, or none for whoever asks.")


class NewShare(Model):
    """A link to be made."""

    name: Name
    access: Literal["read", "write"] = Field(description="What the guest may do.")
    seconds: int = Field(ge=1, description="For so long the link is good; at most `max_seconds`.")


class Share(Model):
    """A token for a guest."""

    token: str
    access: Literal["read", "write"]
    expires: str = Field(description="RFC 3339 in UTC.", json_schema_extra={"format": "date-time"})


class ShareRoutes:
    """The handlers; ``guests`` is None where no token can be signed. Without ``max_seconds`` it is off."""

    def __init__(self, permission: Permission, guard: Guard, guests: GuestTokens | None) -> None:
        self._permission = permission
        self._guard = guard
        self._guests = guests

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "GET",
                "/shares",
                self.show,
                "get_share_offer",
                TAG,
                "Tell how long a link for guests may last.",
                [Answer(200, "What is offered.", Offer)],
                query=ShareQuery,
                access="any; read of the document that is named",
                problems=("invalid_name",),
            ),
            Route(
                "POST",
                "/shares",
                self.create,
                "create_share",
                TAG,
                "Make a token by which whoever has it opens a document.",
                [Answer(201, "The token.", Share)],
                body=NewShare,
                access="write, and signed in",
                problems=("invalid_name", "too_many_requests", "not_offered"),
            ),
        ]

    async def show(self, call: Call[ShareQuery, NoBody]) -> web.Response:
        """Answer with how long a link may last: a page offers none where there are none.

        With ``name`` it is what holds for the sender and that document: 0 for those who would be refused one.
        """
        guests = self._guests
        longest = 0 if guests is None else guests.max_seconds
        name = call.query.name
        if name is not None and guests is not None and longest:
            check_document_name(name)
            sharer = await self._permission.require(call.request, name, Access.READ)
            try:
                # The rule itself; nobody gets to see this token.
                guests.issue(name, Access.READ, 1, sharer)
            except (Forbidden, NameIsPattern):
                longest = 0
        return json_response(Offer(max_seconds=longest))

    async def create(self, call: Call[NoQuery, NewShare]) -> web.Response:
        """Sign a token for a guest."""
        guests = self._guests
        if guests is None or not guests.max_seconds:
            reason = OPEN if self._permission.open else NO_SECRET if guests is None else TURNED_OFF
            raise BadRequest(reason, "not_offered")
        body = await call.body()
        check_document_name(body.name)
        if body.seconds > guests.max_seconds:
            raise BadRequest(f'"seconds" is a whole number from 1 to {guests.max_seconds}')
        sharer = await self._permission.require(call.request, body.name, Access.WRITE)
        if sharer.user is not None and not self._guard.limits.allow_share(
            sharer.user, asyncio.get_running_loop().time()
        ):
            who = self._guard.who(call.request, sharer.user)
            self._guard.audit.write(Kind.LIMIT, "shares", "too many links of one user", who, body.name)
            raise BadRequest("too many links, try again later", "too_many_requests", retry_after=_RETRY_SECONDS)
        with self._permission.noting(call.request, body.name):
            made = guests.issue(body.name, _ACCESS[body.access], body.seconds, sharer)
        expires = datetime.fromtimestamp(made.expires_at, UTC).isoformat().replace("+00:00", "Z")
        said = f"{body.access} access for {made.user} until {expires}"
        act = Act(Kind.SHARE_MADE, body.name, said, target=made.user)
        self._guard.audit.act(act, Outcome.SUCCESS, self._guard.who(call.request, sharer.user))
        return json_response(Share(token=made.token, access=body.access, expires=expires), 201)
