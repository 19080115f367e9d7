"""Who is in documents, and which connections there are, on all nodes.

Strategy: each node tells what it knows alone (``collab.hub.questions``): its sockets, its sessions, and the states that
these, its agents and its visitors show. The one that is asked puts the answers together in one order, by document name
or by node and number, and gives a page of them. A node that has more than fits says so. Then the page ends with what
that node has told last, for what follows there may lie before what other nodes have told. So no page leaves anybody
out.

Texts of clients are cut to a length, and half characters in them are replaced; states that are long are left out. Who
may see what is decided by those who ask.
"""

from __future__ import annotations

import bisect
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

from collab.engine.agents import Agent
from collab.engine.visitors import Visitor
from collab.hub.member import ConnectionFacts, Member
from collab.hub.membership import Membership
from collab.hub.questions import FRESH, AnswerList, Answers, Facts, Questions
from collab.hub.room import LiveRoom
from collab.hub.slices import Pauses
from collab.protocol.awareness import Entry
from collab.protocol.session import State

MAX_LIMIT: Final = 200
"""Documents, or connections, in one page."""

MAX_SESSIONS: Final = 200
"""Sessions that are shown of one document by one node; all of them are counted."""

MAX_STATE: Final = 4 * 1024
"""Bytes of a state that is shown; of a longer one only its length is."""

ORDERS: Final = ("node", "received", "waiting", "since")
"""How connections are put in order: by node and number, bytes a second, waiting bytes, or the newest first."""

MAX_DOCUMENTS: Final = 50
"""Documents that are shown of one connection; all of them are counted."""

# Bytes of JSON of one document's people, and of their states, by one node: both fit into an answer.
_PART: Final = 96 * 1024

# Characters of a text of a client, as in listings of documents, and of a user and an address.
_TEXT: Final = 100
_LONG_TEXT: Final = 1_024

# Levels of a state that is shown; libraries give up at some hundreds.
_MAX_DEPTH: Final = 64


MAX_TOLD: Final = 20_000
"""Connections of one node that a command is told."""

# Bytes of JSON of those; compressed they have a tenth of it.
_FULL_TOLD: Final = 8 * 1024 * 1024


class Keeper(Protocol):
    """What is needed of the hub."""

    rooms: dict[str, LiveRoom]
    membership: Membership
    clock: Callable[[], float]

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...


class Person(NamedTuple):
    """A session, an agent, or a visitor, as any node shows it.

    Attributes:
        node: where it is.
        connection: its socket, ``NODE-NUMBER``; None for one without a socket.
        agent: the name that its user gives it; None for one that is no agent.
        user: as its token names it; None where nobody has said.
        name, color: what it shows of itself, or None.
        clients: the client IDs of its states.
        protocol: "y-websocket", "hocuspocus", "streams" or "agent".
        access: "read", "write" or "admin".
        since: when it came, in Unix seconds.
    """

    node: str
    connection: str | None
    agent: str | None
    user: str | None
    name: str | None
    color: str | None
    clients: list[int]
    protocol: str
    access: str
    since: float


class Shown(NamedTuple):
    """An awareness state; ``state`` is None where it is longer than ``MAX_STATE``, and ``size`` its bytes."""

    node: str
    client: int
    clock: int
    state: Any
    size: int


class Present(NamedTuple):
    """Who is in one document.

    Attributes:
        name: of the document.
        sessions: how many there are on all nodes that have answered, agents and visitors included.
        people, states: those that are shown.
        complete: whether all are shown.
    """

    name: str
    sessions: int
    people: list[Person]
    states: list[Shown]
    complete: bool


class Place(NamedTuple):
    """A document that a connection has open: what it may do there, and whether it gets no live frames now."""

    document: str
    access: str
    lagging: bool


class Seen(NamedTuple):
    """A connection.

    Attributes:
        node, number: which it is: ``NODE-NUMBER``.
        users: whose tokens it has shown for the documents that it has open; more than one is rare.
        address: of its client.
        protocol: as of a ``Person``.
        since: when its handshake ended, in Unix seconds.
        documents: those that it has open, ``MAX_DOCUMENTS`` at most.
        open: how many it has open.
        waiting: bytes that wait for it in this process.
        received: bytes that have come from it; None of a node of a release before this.
        receives: how many of them a second; None while that is not known.
    """

    node: str
    number: int
    users: list[str]
    address: str
    protocol: str
    since: float
    documents: list[Place]
    open: int
    waiting: int
    received: int | None = None
    receives: float | None = None

    @property
    def id(self) -> str:
        """Give it as operators name it."""
        return f"{self.node}-{self.number}"


class Page(NamedTuple):
    """A page of what all nodes say; ``following`` is where the next one begins, None after the last one."""

    items: list[Any]
    following: str | None
    silent: tuple[str, ...]


class People:
    """What this node knows of those who are there, and what it asks the others.

    Args:
        hub: see ``Keeper``.

    Attributes:
        questions: the way to the other nodes; set by the hub.
        sockets: gives the facts of all connections of this node, in the order of their numbers.
        rate: gives the bytes a second that come from one of them; None where that is not known.
    """

    questions: Questions

    def __init__(self, hub: Keeper) -> None:
        self._hub = hub
        self.sockets: Callable[[], Iterable[Callable[[], ConnectionFacts]]] = lambda: ()
        self.rate: Callable[[ConnectionFacts], float | None] = lambda told: None

    # What is asked

    async def present(self, name: str) -> tuple[Present, tuple[str, ...]]:
        """Tell who is in a document, and which nodes were silent; raises ``Overloaded``."""
        answers = await self.questions.ask({"kind": "presence", "name": name, "limit": 1})
        page = _merge_presence(answers, 1)
        return (page.items[0] if page.items else Present(name, 0, [], [], True)), page.silent

    async def list_present(self, prefix: str, after: str | None, limit: int) -> Page:
        """Give a page of ``Present``, by the names of documents that begin with ``prefix`` and in which anybody is.

        Raises ``Overloaded``.
        """
        asked = {"kind": "presence", "prefix": prefix, "after": after, "limit": limit}
        return _merge_presence(await self.questions.ask(asked), limit)

    async def list_connections(
        self, document: str | None, user: str | None, node: str | None, after: str | None, limit: int
    ) -> Page:
        """Give a page of ``Seen``, by node and number: of those that have a document open, of a user, of a node.

        With a document only that one is in what is shown of a connection. ``after`` is the ``id`` of the last one of
        the page before. Raises ``Overloaded``; or ``ValueError`` for an ``after`` that is none.
        """
        asked = {
            "kind": "connections",
            "document": document,
            "user": user,
            "node": node,
            "after": None if after is None else list(_read_id(after)),
            "limit": limit,
        }
        return _merge_connections(await self.questions.ask(asked), limit)

    async def find_connections(
        self, document: str | None, user: str | None, node: str | None, search: str, order: str, limit: int
    ) -> Page:
        """Give the first connections in one of ``ORDERS``, of those as in ``list_connections``; raises ``Overloaded``.

        Chosen are those whose id, users, address or open documents hold the text ``search``, whatever case. With a
        document its name and users are looked at alone: its own admins may not know the rest.
        """
        asked = {
            "kind": "found connections",
            "document": document,
            "user": user,
            "node": node,
            "search": search,
            "order": order,
            "limit": limit,
        }
        page = _merge_connections(await self.questions.ask(asked, fresh=FRESH), limit, order)
        return page._replace(following=None)

    # What is answered

    async def answer(self, asked: Facts) -> Facts | None:
        """Answer a question of this node, or of another one; None to one that is of a later release."""
        if asked.get("kind") == "presence":
            return await self._answer_presence(asked)
        if asked.get("kind") == "connections":
            return await self._answer_connections(asked)
        if asked.get("kind") == "found connections":
            return await self._answer_found(asked)
        return None

    async def _answer_presence(self, asked: Facts) -> Facts:
        limit = _read_limit(asked)
        if isinstance(name := asked.get("name"), str):
            names = [name]
        else:
            prefix, after = str(asked.get("prefix") or ""), asked.get("after")
            found = [name for name, live in list(self._hub.rooms.items()) if live.occupied and name.startswith(prefix)]
            found.sort()
            begin = bisect.bisect_right(found, after) if isinstance(after, str) else 0
            names = found[begin:]
        told, pause = AnswerList(limit), Pauses(self._hub.now)
        for name in names:
            live = self._hub.rooms.get(name)
            if live is None or not live.occupied:
                continue
            if not told.add(self._describe_room(live)):
                break
            await pause.if_due()
        return told.facts() | {"last": told.items[-1]["name"] if told.items else None}

    def _describe_room(self, live: LiveRoom) -> Facts:
        people: list[Facts] = []
        states: list[Facts] = []
        left, left_of_states, complete, count = _PART, _PART, True, 0
        owners: list[Member | Agent | Visitor] = [*live.members, *live.agents, *live.visitors]
        for owner in owners:
            if owner.state is State.CLOSED if isinstance(owner, Member) else not owner.shown:
                continue
            count += 1
            if len(people) >= MAX_SESSIONS or left < 0:
                complete = False
                continue
            entries = live.room.awareness.states_of(owner)
            values = [read_state(entry) for entry in entries]
            person = self._describe(live, owner, values)
            left -= len(json.dumps(person))
            if left < 0:
                complete = False
                continue
            people.append(person)
            for entry, value in zip(entries, values, strict=True):
                state = {"client": entry.client, "clock": entry.clock, "state": value, "size": len(entry.state)}
                left_of_states -= len(json.dumps(state))
                if left_of_states < 0:
                    complete = False
                else:
                    states.append(state)
        return {"name": live.name, "sessions": count, "people": people, "states": states, "complete": complete}

    def _describe(self, live: LiveRoom, owner: Member | Agent | Visitor, values: Sequence[Any]) -> Facts:
        name, color = _shown_name(values)
        facts: Facts = {
            "user": _cut(owner.author, _LONG_TEXT),
            "name": name,
            "color": color,
            "clients": sorted(owner.awareness or ())[:100],
        }
        if isinstance(owner, Member):
            told = owner.client.facts()
            return facts | {
                "number": owner.client.number,
                "agent": None,
                "protocol": told.protocol,
                "access": owner.access.value,
                "since": owner.joined_at,
            }
        if isinstance(owner, Visitor):
            here = live.visitors[owner]
            return facts | {
                "number": None,
                "agent": None,
                "protocol": "streams",
                "access": here.access.value,
                "since": here.since,
            }
        held = live.agents[owner]
        return facts | {
            "number": None,
            "agent": owner.ident,
            "protocol": "agent",
            "access": held.access.value,
            "since": held.since,
        }

    async def tell_connections(self, document: str | None, user: str | None) -> bytes:
        """Give the connections of this node, for ``read_connections`` of a command; the first ``MAX_TOLD`` of them."""
        said = await self._list(document, user, 0, AnswerList(MAX_TOLD, _FULL_TOLD))
        return zlib.compress(json.dumps(said).encode())

    async def _answer_connections(self, asked: Facts) -> Facts:
        limit, document, user, node = _read_limit(asked), asked.get("document"), asked.get("user"), asked.get("node")
        own, after = self._hub.membership.name, 0
        if isinstance(where := asked.get("after"), list) and len(where) == 2:
            if str(where[0]) > own:
                return AnswerList(0).facts()
            after = int(where[1]) if where[0] == own else 0
        if node is not None and node != own:
            return AnswerList(0).facts()
        return await self._list(document, user, after, AnswerList(limit))

    async def _answer_found(self, asked: Facts) -> Facts:
        own, now, pause = self._hub.membership.name, self._hub.now(), Pauses(self._hub.now)
        if asked.get("node") not in (None, own):
            return AnswerList(0).facts()
        document, user, order = asked.get("document"), asked.get("user"), str(asked.get("order"))
        search = str(asked.get("search") or "").casefold()
        found: list[tuple[float, ConnectionFacts]] = []
        for describe in self._chosen(document):
            await pause.if_due()
            facts = describe()
            if _holds(f"{own}-{facts.number}", facts, search, document):
                found.append((self._place(facts, order), facts))
        found.sort(key=itemgetter(0))
        told = AnswerList(_read_limit(asked))
        for _, facts in found:
            item = self._describe_connection(facts, document, user, now)
            if item is not None and not told.add(item):
                break
        return told.facts() | {"more": False}  # in these orders nothing goes on behind them

    def _place(self, told: ConnectionFacts, order: str) -> float:
        if order == "received":
            return -(self.rate(told) or 0.0)
        if order == "waiting":
            return -told.waiting
        return -told.opened_at if order == "since" else told.number

    async def _list(self, document: Any, user: Any, after: int, told: AnswerList) -> Facts:
        """Describe the connections with numbers above ``after``, as many as have a place."""
        now, pause = self._hub.now(), Pauses(self._hub.now)
        for describe in self._chosen(document):
            await pause.if_due()
            facts = describe()
            if facts.number <= after:
                continue
            item = self._describe_connection(facts, document, user, now)
            if item is not None and not told.add(item):
                break
        return told.facts()

    def _chosen(self, document: Any) -> list[Callable[[], ConnectionFacts]]:
        """Give the connections that may be meant, in the order of their numbers."""
        if not isinstance(document, str):
            return list(self.sockets())
        live = self._hub.rooms.get(document)
        clients = {} if live is None else {member.client.number: member.client.facts for member in live.members}
        clients |= {} if live is None else {reader.number: reader.facts for reader in live.readers}
        return [clients[number] for number in sorted(clients)]

    def _describe_connection(self, told: ConnectionFacts, document: Any, user: Any, now: float) -> Facts | None:
        members = [
            (name, member)
            for name, member in told.members
            if member.state is not State.CLOSED and (document is None or name == document)
        ]
        if user is not None and all(member.author != user for _, member in members):
            return None
        if document is not None and not members:
            return None
        users = dict.fromkeys([member.author for _, member in members if member.author is not None])
        return {
            "number": told.number,
            "users": [_cut(each, _LONG_TEXT) for each in list(users)[:10]],
            "address": _cut(told.address, _TEXT),
            "protocol": told.protocol,
            "since": self._hub.clock() - (now - told.opened_at),
            "documents": [[name, member.access.value, member.state is State.LAGGING] for name, member in members][
                :MAX_DOCUMENTS
            ],
            "open": len(members),
            "waiting": told.waiting,
            "received": told.received,
            "receives": self.rate(told),
        }


# Putting answers together


def read_connections(answers: Mapping[str, bytes]) -> tuple[list[Seen], bool, tuple[str, ...]]:
    """Read what nodes have told a command.

    Gives all connections, whether a node has more than it has told, and the nodes whose answer cannot be read.
    """
    said: dict[str, Facts] = {}
    for node, data in answers.items():
        try:
            said[node] = json.loads(zlib.decompress(data))
        except (ValueError, zlib.error):
            said[node] = {}  # of another release
    read, unread = Answers(said, ()).read(_read_connections)
    found = [seen for connections, _ in read.values() for seen in connections]
    return found, any(more for _, more in read.values()), unread


def _merge_presence(answers: Answers, limit: int) -> Page:
    """Put the answers of all nodes together, by the names of documents."""
    found: dict[str, Present] = {}
    ends: list[str] = []  # behind which a node has more
    read, silent = answers.read(
        lambda node, said: ([_read_present(node, item) for item in said["items"]], bool(said.get("more")))
    )
    for told, more_there in read.values():
        if more_there and told:
            ends.append(told[-1].name)
        for item in told:
            before = found.get(item.name)
            found[item.name] = item if before is None else _join(before, item)
    names = sorted(name for name in found if not ends or name <= min(ends))
    more = bool(ends) or len(names) > limit
    names = names[:limit]
    items = [found[name] for name in names]
    return Page(items, names[-1] if more and names else None, silent)


def _join(a: Present, b: Present) -> Present:
    return Present(a.name, a.sessions + b.sessions, a.people + b.people, a.states + b.states, a.complete and b.complete)


def _holds(ident: str, told: ConnectionFacts, search: str, document: str | None) -> bool:
    """Tell whether a text is in what names a connection; of one document only in what its own admins may know."""
    texts = [ident] if document is not None else [ident, told.address]
    for name, member in told.members:
        if member.state is not State.CLOSED and document in (None, name):
            texts += [member.author or "", name]
    return any(search in text.casefold() for text in texts)


def _merge_connections(answers: Answers, limit: int, order: str = "node") -> Page:
    """Put the answers of all nodes together: node by node, in the order of their names, or in another order."""
    items: list[Seen] = []
    read, silent = answers.read(_read_connections)
    more = False
    for found, more_there in read.values():
        if more:
            break  # the others come with a later page
        items += found
        more = more_there and bool(found)
    if order == "received":
        items.sort(key=lambda seen: -(seen.receives or 0.0))
    elif order == "waiting":
        items.sort(key=lambda seen: -seen.waiting)
    elif order == "since":
        items.sort(key=lambda seen: -seen.since)
    more = more or len(items) > limit
    items = items[:limit]
    return Page(list(items), items[-1].id if more and items else None, silent)


def _read_connections(node: str, said: Facts) -> tuple[list[Seen], bool]:
    """Read the connections that a node has told, and whether it has more."""
    return [_read_seen(node, item) for item in said["items"]], bool(said.get("more"))


def _read_present(node: str, item: Mapping[str, Any]) -> Present:
    people = [
        Person(
            node,
            None if each["number"] is None else f"{node}-{int(each['number'])}",
            _read_text(each["agent"]),
            _read_text(each["user"]),
            _read_text(each["name"]),
            _read_text(each["color"]),
            [int(client) for client in each["clients"]],
            str(each["protocol"]),
            str(each["access"]),
            float(each["since"]),
        )
        for each in item["people"]
    ]
    states = [
        Shown(node, int(each["client"]), int(each["clock"]), each["state"], int(each["size"]))
        for each in item["states"]
    ]
    return Present(str(item["name"]), int(item["sessions"]), people, states, bool(item["complete"]))


def _read_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _read_seen(node: str, item: Mapping[str, Any]) -> Seen:
    return Seen(
        node,
        int(item["number"]),
        [str(user) for user in item["users"]],
        str(item["address"]),
        str(item["protocol"]),
        float(item["since"]),
        [Place(str(name), str(access), bool(lagging)) for name, access, lagging in item["documents"]],
        int(item["open"]),
        int(item["waiting"]),
        None if item.get("received") is None else int(item["received"]),
        None if item.get("receives") is None else float(item["receives"]),
    )


def _read_id(text: str) -> tuple[str, int]:
    """Split the ``id`` of a connection."""
    node, dash, number = text.rpartition("-")
    if not dash or not node or not number.isascii() or not number.isdecimal() or len(text) > 100:
        raise ValueError("it is NODE-NUMBER, as the page before has given it")
    return node, int(number[:18])


def _read_limit(asked: Facts) -> int:
    limit = asked.get("limit")
    return min(MAX_LIMIT, limit) if isinstance(limit, int) and limit > 0 else MAX_LIMIT


# Texts of clients


def read_state(entry: Entry) -> Any:
    """Give a state as JSON that anybody can encode; None for one that is too long or too deep, or no JSON."""
    if len(entry.state) > MAX_STATE:
        return None
    try:
        value = json.loads(entry.state, parse_float=_read_float)
        if _is_deep(value):
            return None
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # half a character
            value = json.loads(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return value


def _is_deep(value: Any) -> bool:
    """Tell whether a value is nested so deep that not everybody can encode it again."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _read_float(text: str) -> float | None:
    value = float(text)
    return value if abs(value) != float("inf") else None  # as JSON.stringify does


def _shown_name(values: Iterable[Any]) -> tuple[str | None, str | None]:
    """Give the name and the color of the first state that has a name, ``{"user": {"name", "color"}}``."""
    for value in values:
        user = value.get("user") if isinstance(value, dict) else None
        if isinstance(user, dict) and isinstance(user.get("name"), str):
            color = user.get("color")
            return _cut(user["name"], _TEXT), _cut(color, _TEXT) if isinstance(color, str) else None
    return None, None


def _cut(text: str | None, most: int) -> str | None:
    # Half a character passes json.loads and fails every encoder.
    return None if text is None else text[:most].encode(errors="replace").decode()
