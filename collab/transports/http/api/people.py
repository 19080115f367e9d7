"""``/presence``, ``/messages`` and ``/connections``: who is there, being there as an agent, and speaking to all.

Strategy: what nodes know is put together by ``collab.hub.people``, agents are kept by ``collab.hub.agents``; here it is
decided who may see what. Whoever may read a document sees who is in it by what they show. The user, the connection and
the node of each are for its admins, since a guest's link reads too; addresses are for the admins of all documents.

The name is the rest of the path, so an agent is named by a parameter. It belongs to the user who shows it: another
user's agent of the same name is another agent.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field, JsonValue

from collab.audit import Act, Kind
from collab.errors import LimitExceeded
from collab.hub.activity import MAX_SEARCH
from collab.hub.agents import MAX_IDENT_BYTES, MAX_SECONDS, Agents, TooManyAgents, TooOften
from collab.hub.hub import Hub
from collab.hub.people import MAX_LIMIT, MAX_STATE, Page, People, Present, Seen
from collab.hub.people import Person as Somebody
from collab.protocol.hocuspocus.connection import Limits as StatelessLimits
from collab.protocol.messages import Stateless
from collab.protocol.session import Access
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.cursors import MAX_CURSOR, Cursors, decode_cursor, encode_cursor
from collab.transports.http.api.documents import show_time
from collab.transports.http.api.route import (
    Answer,
    AnyRoute,
    Call,
    Model,
    NoBody,
    NoQuery,
    Query,
    Route,
    json_response,
    no_content,
)
from collab.transports.problems import BadRequest

TAG = "Presence and messages"
CONNECTIONS = "Connections"

DEFAULT_LIMIT = 50

_MAX_NAME = 512
_MAX_TEXT = 1_024

# Seconds after which somebody's agents may have ended.
_AGENTS_SECONDS = 30

# Bytes of JSON beside a stateless message, and for each byte of it, should its sender write it in ASCII alone.
_AROUND = 4 * 1024
_ESCAPED = 3

Date = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Right = Literal["read", "write", "admin"]
Silent = Annotated[
    list[str],
    Field(description="Nodes that live and have not answered within a second: what they know is missing here."),
]


class Participant(Model):
    """A session on a document, an agent, or a person who shows itself by requests."""

    name: str | None = Field(description="The `user.name` that it shows, cut to 100 characters.")
    color: str | None = Field(description="The `user.color` that it shows.")
    clients: list[int] = Field(description="The awareness client IDs of its states; most have one.")
    protocol: str = Field(description="`y-websocket`, `hocuspocus`, `streams`, or `agent`.")
    access: Right = Field(description="What it may do.")
    since: Date = Field(description="When it came, RFC 3339 in UTC.")
    agent: str | None = Field(description="The name of an agent; null for all others.")
    user: str | None = Field(description="Its user as the token names it; null where nobody knows, and for non-admins.")
    connection: str | None = Field(description="Its socket, `NODE-NUMBER`; null without one, and for non-admins.")
    node: str | None = Field(description="The server that it is on; null for non-admins.")


class AwarenessState(Model):
    """What a client shows of itself."""

    client: int = Field(description="Its awareness client ID.")
    clock: int
    state: JsonValue = Field(description=f"The state; null if it has more than {MAX_STATE} bytes.")
    bytes: int = Field(ge=0, description="Bytes of the state as JSON.")


class DocumentPresence(Model):
    """Who is in a document."""

    name: str
    sessions: int = Field(ge=0, description="How many sessions, agents and people without a socket there are.")
    participants: list[Participant]
    states: list[AwarenessState]
    complete: bool = Field(description="Whether all participants and states are here; very many are cut.")


class OnePresence(DocumentPresence):
    """Who is in a document."""

    silent: Silent


class PresencePage(Model):
    """A part of a list."""

    documents: list[DocumentPresence]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")
    silent: Silent


class PresenceQuery(Query):
    """Which documents are listed."""

    prefix: str = Field("", max_length=_MAX_NAME, description="Only names that begin with this.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many documents are looked at.")


class AgentQuery(Query):
    """Which agent is meant."""

    agent: str = Field(
        min_length=1,
        max_length=MAX_IDENT_BYTES,
        description="A name of the caller's own, which stays the same: the agent keeps its client ID by it. "
        f"1 to {MAX_IDENT_BYTES} bytes of UTF-8 without control characters.",
    )


class AgentState(Model):
    """What an agent shows, and for how long."""

    state: dict[str, JsonValue] = Field(
        description='Its awareness state, such as `{"user": {"name": "Bot", "color": "#30bced"}}`.'
    )
    seconds: float = Field(ge=1, le=MAX_SECONDS, description="Its lifetime from now on.")


class ShownAgent(Model):
    """An agent that is shown."""

    client: int = Field(description="Its awareness client ID.")
    until: Date = Field(description="When it ends, RFC 3339 in UTC: earlier than asked for if the token ends earlier.")
    state: dict[str, JsonValue] = Field(description="What is shown: the server writes who its user is.")


class EndedAgent(Model):
    """What became of an agent."""

    ended: bool = Field(description="Whether it was shown.")
    silent: Silent


class StatelessMessage(Model):
    """A message for everybody on a document."""

    payload: str = Field(description="A text of the application.")


class OpenDocument(Model):
    """A document that a connection has open."""

    name: str
    access: Right
    lagging: bool = Field(description="It reads too slowly, and is brought level when it has caught up.")


class OpenConnection(Model):
    """A connection."""

    id: str = Field(description="`NODE-NUMBER`, as a kick takes it.")
    node: str = Field(description="The server that it is on.")
    users: list[str] = Field(description="Whose tokens it has shown; more than one is rare.")
    address: str | None = Field(description="Of its client; null in the list of one document.")
    protocol: str = Field(description="`y-websocket` or `hocuspocus`.")
    since: Date = Field(description="RFC 3339 in UTC.")
    documents: list[OpenDocument] = Field(description="Up to 50; in the list of one document that one alone.")
    open: int = Field(ge=0, description="How many it has open.")
    waiting_bytes: int = Field(ge=0, description="Bytes that wait for it in the server.")
    received_bytes: int | None = Field(description="Bytes that have come from it since its handshake.")
    received_bytes_per_second: float | None = Field(
        description="Of the last seconds; null where that is not known: it is looked at while somebody asks."
    )


class ConnectionPage(Model):
    """A part of a list."""

    connections: list[OpenConnection]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")
    silent: Silent


class ConnectionQuery(Query):
    """Which connections are listed."""

    document: str | None = Field(None, max_length=_MAX_NAME, description="Only those that have this document open.")
    user: str | None = Field(None, max_length=_MAX_TEXT, description="Only those of this user.")
    node: str | None = Field(None, max_length=_MAX_TEXT, description="Only those of this server.")
    search: str = Field(
        "",
        max_length=MAX_SEARCH,
        description="Only those whose id, users, address or open documents hold this text, whatever case.",
    )
    order: Literal["node", "received", "waiting", "since"] = Field(
        "node",
        description="By node and number; by the bytes that come from them a second; by the bytes that wait for them; "
        "or the newest first.",
    )
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many there are in a page.")


class PeopleRoutes:
    """The handlers.

    Args:
        hub: knows who is there.
        permission, guard: know who asks.
        stateless: whether there are stateless messages, and how large they may be.
        rate: how many of them one user may send in a second.
        cursors: as for ``DocumentRoutes``.
    """

    def __init__(
        self,
        hub: Hub,
        permission: Permission,
        guard: Guard,
        stateless: StatelessLimits,
        rate: float,
        cursors: Cursors,
    ) -> None:
        self._hub = hub
        self._people: People = hub.people
        self._agents: Agents = hub.agents
        self._permission = permission
        self._guard = guard
        self._stateless = stateless
        self._rate = rate
        self._cursors = cursors

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        return [
            Route(
                "GET",
                "/presence",
                self.list,
                "list_presence",
                TAG,
                "List who is in documents, on all nodes, by the names of the documents.",
                [Answer(200, "A page of documents in which anybody is.", PresencePage)],
                query=PresenceQuery,
                access="any; documents that may not be read are left out",
                description="A page may hold fewer documents than `limit`, even none, and still have a `next`.",
            ),
            Route(
                "GET",
                "/presence/{name}",
                self.show,
                "get_presence",
                TAG,
                "Tell who is in a document, on all nodes.",
                [Answer(200, "Who is there; nobody where there is no such document.", OnePresence)],
                access="read; users, connections and nodes are for admins",
            ),
            Route(
                "PUT",
                "/presence/{name}",
                self.show_agent,
                "show_agent",
                TAG,
                "Show an agent among the people on a document, for some time.",
                [Answer(200, "It is shown.", ShownAgent)],
                query=AgentQuery,
                body=AgentState,
                access="read",
                problems=("document_not_found", "document_deleted", "too_large"),
                description="All clients see it as one of them, also those that come later. Another call replaces what "
                "it shows, and its lifetime begins anew; any node takes it. It ends with its lifetime, by DELETE, with "
                "the access of its user, and with the node that shows it.",
            ),
            Route(
                "DELETE",
                "/presence/{name}",
                self.end_agent,
                "end_agent",
                TAG,
                "End an agent of the caller's own.",
                [Answer(200, "It is shown no more.", EndedAgent)],
                query=AgentQuery,
                access="read",
            ),
            Route(
                "POST",
                "/messages/{name}",
                self.send,
                "send_message",
                TAG,
                "Send a stateless message to everybody on a document whose protocol has them, on all nodes.",
                [Answer(204, "It is on its way.")],
                body=StatelessMessage,
                most=_AROUND + _ESCAPED * self._stateless.stateless_bytes,
                access="write",
                problems=("too_large", "not_offered"),
                description="Hocuspocus providers give it to their application (`onStateless`). It is not kept: who "
                "is away does not get it.",
            ),
            Route(
                "GET",
                "/connections",
                self.list_connections,
                "list_connections",
                CONNECTIONS,
                "List connections on all nodes.",
                [Answer(200, "A page of connections, by node and number.", ConnectionPage)],
                query=ConnectionQuery,
                access="admin of the document; of all documents where none is named",
                problems=("invalid_name",),
                description="With `search`, or another `order` than `node`, these are the first ones of one page.",
            ),
        ]

    async def list(self, call: Call[PresenceQuery, NoBody]) -> web.Response:
        """Answer with a page of documents in which anybody is."""
        query = call.query
        after = None if query.cursor is None else self._cursors.decode("p", query.cursor)
        await self._permission.check_token(call.request)  # before other nodes are asked
        with self._guard.waiting(call.request):
            page = await self._people.list_present(query.prefix, after, query.limit)
        access = await self._permission.readable(call.request, [present.name for present in page.items])
        documents = [_describe(present, access[present.name]) for present in page.items if present.name in access]
        following = None if page.following is None else self._cursors.encode("p", page.following)
        return json_response(PresencePage(documents=documents, next=following, silent=[*page.silent]))

    async def show(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Answer with who is in a document."""
        name = call.name
        access = (await self._permission.require(call.request, name, Access.READ)).access
        present, silent = await self._people.present(name)
        return json_response(OnePresence(**dict(_describe(present, access)), silent=[*silent]))

    async def show_agent(self, call: Call[AgentQuery, AgentState]) -> web.Response:
        """Show an agent."""
        name, ident = call.name, _ident(call.query)
        grant = await self._permission.require(call.request, name, Access.READ)
        body = await call.body(known=True)
        try:
            state = json.dumps(body.state, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            raise BadRequest("the state cannot be given to clients as JSON") from None
        self._guard.limits.check_load(name in self._hub.rooms)
        caller = self._permission.caller(call.request, name, grant)
        try:
            shown = await self._agents.show(name, ident, state, body.seconds, caller)
        except TooOften as error:
            raise BadRequest(error.public, "too_many_requests", retry_after=math.ceil(error.seconds)) from None
        except TooManyAgents as error:
            raise BadRequest(error.public, "too_many_requests", retry_after=_AGENTS_SECONDS) from None
        except LimitExceeded as error:
            if error.retryable:
                raise
            raise BadRequest(error.public, "too_large") from None
        return json_response(
            ShownAgent(client=shown.client, until=show_time(shown.until), state=json.loads(shown.state))
        )

    async def end_agent(self, call: Call[AgentQuery, NoBody]) -> web.Response:
        """End an agent."""
        name, ident = call.name, _ident(call.query)
        grant = await self._permission.require(call.request, name, Access.READ)
        ended, silent = await self._agents.end(name, ident, grant.user)
        return json_response(EndedAgent(ended=ended, silent=[*silent]))

    async def send(self, call: Call[NoQuery, StatelessMessage]) -> web.Response:
        """Send a stateless message."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.WRITE)
        if not self._stateless.stateless:
            raise BadRequest("stateless messages are turned off here (--stateless)", "not_offered")
        payload = (await call.body(known=True)).payload.encode()
        if len(payload) > self._stateless.stateless_bytes:
            raise BadRequest(
                f"a stateless message has at most {self._stateless.stateless_bytes} bytes of UTF-8", "too_large"
            )
        now = asyncio.get_running_loop().time()
        if not self._guard.limits.allow_stateless(self._guard.peer(call.request), grant.user, self._rate, now):
            raise BadRequest("too many stateless messages, try again later", "too_many_requests")
        self._hub.send_stateless(name, Stateless(payload))
        return no_content()

    async def list_connections(self, call: Call[ConnectionQuery, NoBody]) -> web.Response:
        """Answer with a page of connections."""
        query = call.query
        grant = await self._permission.require(
            call.request, ALL_DOCUMENTS if query.document is None else query.document, Access.ADMIN
        )
        act = Act(Kind.CONNECTIONS_LISTED, query.document, target=query.user)
        if query.search or query.order != "node":
            if query.cursor is not None:
                raise BadRequest('there are no pages with "search", or with another "order" than "node"')
            with self._permission.acting(call.request, act, grant):
                page = await self._people.find_connections(
                    query.document, query.user, query.node, query.search, query.order, query.limit
                )
            return self._answer_connections(query, page)
        after = None if query.cursor is None else decode_cursor("c", query.cursor)
        try:
            with self._permission.acting(call.request, act, grant):
                page = await self._people.list_connections(query.document, query.user, query.node, after, query.limit)
        except ValueError:
            raise BadRequest('"cursor" is the "next" of the page before') from None
        return self._answer_connections(query, page)

    def _answer_connections(self, query: ConnectionQuery, page: Page) -> web.Response:
        connections = [_describe_connection(seen, addresses=query.document is None) for seen in page.items]
        following = None if page.following is None else encode_cursor("c", page.following)
        return json_response(ConnectionPage(connections=connections, next=following, silent=[*page.silent]))


def _ident(query: AgentQuery) -> str:
    ident = query.agent
    if len(ident.encode()) > MAX_IDENT_BYTES or not ident.isprintable():
        raise BadRequest(f'"agent" has at most {MAX_IDENT_BYTES} bytes of UTF-8, and no control characters')
    return ident


def _describe(present: Present, access: Access) -> DocumentPresence:
    admin = access is Access.ADMIN
    return DocumentPresence(
        name=present.name,
        sessions=present.sessions,
        participants=[_describe_person(person, admin=admin) for person in present.people],
        states=[
            AwarenessState(client=shown.client, clock=shown.clock, state=shown.state, bytes=shown.size)
            for shown in present.states
        ],
        complete=present.complete,
    )


def _describe_person(person: Somebody, *, admin: bool) -> Participant:
    return Participant(
        name=person.name,
        color=person.color,
        clients=person.clients,
        protocol=person.protocol,
        access=_right(person.access),
        since=show_time(person.since),
        agent=person.agent,
        user=person.user if admin else None,
        connection=person.connection if admin else None,
        node=person.node if admin else None,
    )


def _describe_connection(seen: Seen, *, addresses: bool) -> OpenConnection:
    return OpenConnection(
        id=seen.id,
        node=seen.node,
        users=seen.users,
        address=seen.address if addresses else None,
        protocol=seen.protocol,
        since=show_time(seen.since),
        documents=[
            OpenDocument(name=place.document, access=_right(place.access), lagging=place.lagging)
            for place in seen.documents
        ],
        open=seen.open,
        waiting_bytes=seen.waiting,
        received_bytes=seen.received,
        received_bytes_per_second=seen.receives,
    )


def _right(access: str) -> Right:
    """Give an access as it is described; one of a later release is shown as the least."""
    return "admin" if access == "admin" else "write" if access == "write" else "read"
