"""The way into a document, with real limits and a real hub; the authenticator is a table of tokens."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from collab.auth.access import AccessRequest, Grant, OpenAccess
from collab.cluster.local import LocalBus
from collab.errors import (
    AccessExpired,
    AccessUnavailable,
    DocumentBusy,
    DocumentDeleted,
    Forbidden,
    Overloaded,
    ServerStopping,
    Unauthenticated,
)
from collab.hub.admission import Admission
from collab.hub.hub import Hub
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.limits.limits import Bounds, Limits, Ticket, Turn
from collab.limits.memory import Memory
from collab.limits.questions import AT_A_TIME, FIRST_WAIT, FREE_OF_ADDRESS
from collab.net import Peer
from collab.protocol.awareness import AwarenessUpdate, Entry, User, encode_awareness
from collab.protocol.session import Access, State
from collab.protocol.sync import SyncUpdate
from collab.storage.journal import Journal
from tests.hub.conftest import OPTIONS, Box, Node, StartNode
from tests.support.author import Author
from tests.support.sessions import admit
from tests.support.waiting import eventually

PEER = Peer("203.0.113.7", "203.0.113.7", True, False, True, "collab.example")


class Table:
    """Who may do what, by token; notes what it was asked."""

    grants = {
        "reader": Grant(Access.READ, "u1", "Ann"),
        "writer": Grant(Access.WRITE, "u2", "Bob"),
        "admin": Grant(Access.ADMIN, "u3"),
        "guest": Grant(Access.WRITE),
    }

    def __init__(self) -> None:
        self.asked: list[AccessRequest] = []

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.asked.append(request)
        if request.token == "away":
            raise AccessUnavailable("for the test")
        try:
            return self.grants[request.token]
        except KeyError:
            raise Unauthenticated("not in the table") from None


class Way:
    """An admission with all that belongs to it."""

    def __init__(self, node: Node, limits: Limits, *, stamp_users: bool = False) -> None:
        self.node = node
        self.table = Table()
        self.limits = limits
        self.admission = Admission(node.hub, self.table, limits, stamp_users=stamp_users)

    def ticket(self) -> Ticket:
        return self.limits.add_connection(PEER, self.node.hub.now())

    def member(self, access: Access = Access.WRITE) -> tuple[Member, Box]:
        box = Box(self.node.recorder)
        member = Member(self.node.recorder, box, box)
        admit(member, access)
        return member, box


@pytest.fixture
async def node(start_node: StartNode) -> Node:
    started: Node = await start_node()
    return started


@pytest.fixture
def way(node: Node) -> Way:
    return Way(node, Limits(Bounds()))


# Asking


async def test_the_authenticator_is_asked_about_this_client_and_this_document(way: Way) -> None:
    assert await way.admission.ask(PEER, "writer", "notes/a") is Table.grants["writer"]
    (asked,) = way.table.asked
    assert (asked.token, asked.document_name, asked.peer) == ("writer", "notes/a", "203.0.113.7")
    with pytest.raises(Unauthenticated):
        await way.admission.ask(PEER, "", "notes/a")
    with pytest.raises(AccessUnavailable):
        await way.admission.ask(PEER, "away", "notes/a")


async def test_a_socket_asks_a_few_questions_at_a_time_and_says_which_it_is(way: Way) -> None:
    go_on = asyncio.Event()

    class Slow(Table):
        async def authenticate(self, request: AccessRequest) -> Grant:
            self.asked.append(request)
            await go_on.wait()
            return Table.grants["writer"]

    slow = Slow()
    admission = Admission(way.node.hub, slow, way.limits)
    first, second = way.ticket(), way.ticket()
    tasks = [asyncio.create_task(admission.ask(PEER, "writer", f"d{n}", first)) for n in range(AT_A_TIME + 3)]
    tasks.append(asyncio.create_task(admission.ask(PEER, "writer", "other", second)))
    await asyncio.sleep(0)
    assert len(slow.asked) == AT_A_TIME + 1
    assert {request.connection for request in slow.asked} == {first.questions, second.questions}
    go_on.set()
    await asyncio.gather(*tasks)
    assert len(slow.asked) == AT_A_TIME + 4


async def test_a_wrong_token_makes_its_own_refusal_late(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    for number in range(FREE_OF_ADDRESS):
        with pytest.raises(Unauthenticated):
            await way.admission.ask(PEER, f"bad {number}", "d", way.ticket())
    task = asyncio.create_task(way.admission.ask(PEER, "late", "d"))
    began = loop.time()
    assert await way.admission.ask(PEER, "writer", "d") is Table.grants["writer"]
    assert not task.done(), "a right one at the same address pays nothing"
    with pytest.raises(Unauthenticated):
        await task
    assert loop.time() - began >= FIRST_WAIT
    # So many are late at a time, and no more.
    monkeypatch.setattr("collab.hub.admission.MAX_LATE", 0)
    before = loop.time()
    with pytest.raises(Unauthenticated):
        await way.admission.ask(PEER, "at once", "d")
    assert loop.time() - before < FIRST_WAIT


async def test_whoever_hangs_up_before_the_answer_pays_as_for_a_wrong_token(way: Way) -> None:
    class Silent(Table):
        async def authenticate(self, request: AccessRequest) -> Grant:
            await asyncio.Event().wait()
            raise AssertionError

    admission = Admission(way.node.hub, Silent(), way.limits)
    for number in range(FREE_OF_ADDRESS):
        task = asyncio.create_task(admission.ask(PEER, f"bad {number}", "d"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert way.limits.count_wrong(PEER, way.node.hub.now()) >= FIRST_WAIT


@pytest.mark.parametrize(
    ("token", "needed", "allowed"),
    [
        ("reader", Access.READ, True),
        ("reader", Access.WRITE, False),
        ("reader", Access.ADMIN, False),
        ("writer", Access.READ, True),
        ("writer", Access.WRITE, True),
        ("writer", Access.ADMIN, False),
        ("admin", Access.READ, True),
        ("admin", Access.WRITE, True),
        ("admin", Access.ADMIN, True),
    ],
)
async def test_what_is_needed_must_be_granted(way: Way, token: str, needed: Access, allowed: bool) -> None:
    if allowed:
        assert await way.admission.require(PEER, token, "d", needed) is Table.grants[token]
        return
    with pytest.raises(Forbidden) as refused:
        await way.admission.require(PEER, token, "d", needed)
    assert refused.value.public == f"this needs {needed.value} access"


@pytest.mark.parametrize("needed", list(Access))
async def test_who_is_refused_by_the_authenticator_is_refused_whatever_is_needed(way: Way, needed: Access) -> None:
    with pytest.raises(Unauthenticated):
        await way.admission.require(PEER, "unknown", "d", needed)
    with pytest.raises(AccessUnavailable):
        await way.admission.require(PEER, "away", "d", needed)


async def test_only_a_server_that_is_open_to_all_says_so(node: Node, way: Way) -> None:
    assert not way.admission.open_to_all
    assert Admission(node.hub, OpenAccess(), way.limits).open_to_all


# Counting


async def test_a_connection_is_counted_for_each_user_once_and_waits_no_more(node: Node) -> None:
    way = Way(node, Limits(Bounds(connections_per_user=2, unauthenticated=5)))
    grant = Table.grants["writer"]
    tickets = [way.ticket() for _ in range(3)]
    for key, ticket in enumerate(tickets[:2]):
        way.limits.add_pending(key, lambda: None, node.hub.now())
        for _ in range(2):
            way.admission.count(ticket, key, grant)
    assert way.limits.pending == 0
    way.limits.add_pending("third", lambda: None, node.hub.now())
    with pytest.raises(Overloaded) as refused:
        way.admission.count(tickets[2], "third", grant)
    assert refused.value.public == "too many connections with your sign-in, come back later"
    assert way.limits.pending == 1, "it has not come in"
    way.admission.count(tickets[2], "third", Table.grants["guest"])
    assert way.limits.pending == 0, "of guests nobody knows who they are"
    way.limits.remove_connection(tickets[0], node.hub.now())
    way.admission.count(tickets[2], "third", grant)


async def test_while_memory_is_short_only_open_documents_are_entered(node: Node) -> None:
    memory = Memory(mark=1_000)
    way = Way(node, Limits(Bounds(), memory))
    memory.used = 1_001
    with pytest.raises(DocumentBusy) as refused:
        await way.admission.open("d")
    assert refused.value.retryable and refused.value.wait is None
    memory.used = 1_000
    live = await way.admission.open("d")
    memory.used = 1_001
    assert await way.admission.open("d") is live
    with pytest.raises(DocumentBusy):
        await way.admission.open("another")


# Opening and joining


async def test_opening_is_the_hubs(way: Way, node: Node) -> None:
    live = await way.admission.open("d")
    assert node.hub.rooms["d"] is live
    await node.store.create("gone")
    await node.store.delete("gone", 1.0)
    with pytest.raises(DocumentDeleted):
        await way.admission.open("gone")
    await node.stop()
    with pytest.raises(ServerStopping):
        await way.admission.open("d")


async def test_a_room_that_has_ended_is_not_joined(way: Way, node: Node) -> None:
    live = await way.admission.open("d")
    error = DocumentDeleted("for the test")
    node.hub.evict(live, error)
    with pytest.raises(DocumentDeleted) as refused:
        way.admission.check(live, Table.grants["admin"], way.ticket())
    assert refused.value is error


async def test_who_may_only_read_enters_a_document_that_is_not_there_and_sees_what_comes(way: Way, node: Node) -> None:
    live = await way.admission.open("d")
    ticket = way.ticket()
    reader, box = way.member(Access.READ)
    way.admission.check(live, Table.grants["reader"], ticket)
    way.admission.join(live, reader, Table.grants["reader"])
    way.admission.check(live, Table.grants["writer"], ticket)
    writer, _ = way.member()
    way.admission.join(live, writer, Table.grants["writer"])
    edit = Author(1).type("x")
    live.receive(writer, SyncUpdate(edit))
    await box.until(box.updates, "the first edit")
    assert box.updates() == [edit]


async def test_readers_of_what_is_not_there_store_nothing_and_leave_no_room(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=3_600)
    way = Way(node, Limits(Bounds(new_documents=1)))
    ticket, grant = way.ticket(), Table.grants["reader"]
    for number in range(50):
        live = await way.admission.open(f"none {number}")
        way.admission.check(live, grant, ticket)  # nothing is created, so nothing is counted
        reader, _ = way.member(Access.READ)
        way.admission.join(live, reader, grant)
        live.leave(reader)
    assert await node.store.list_documents() == []

    async def gone() -> bool:
        return not node.hub.rooms

    await eventually(gone, "an empty memory")


async def test_a_document_is_counted_for_the_first_who_may_write(node: Node) -> None:
    way = Way(node, Limits(Bounds(new_documents=1)))
    ticket = way.ticket()
    for name in ("a", "b"):
        live = await way.admission.open(name)
        reader, _ = way.member(Access.READ)
        way.admission.join(live, reader, Table.grants["reader"])
    way.admission.check(node.hub.rooms["a"], Table.grants["writer"], ticket)
    with pytest.raises(DocumentBusy):
        way.admission.check(node.hub.rooms["b"], Table.grants["writer"], ticket)
    # A reader whose next token lets it write makes the document as well: it is counted on credit.
    way.admission.renew(node.hub.rooms["b"], reader, Table.grants["admin"], ticket)
    with pytest.raises(DocumentBusy):
        way.admission.check(node.hub.rooms["b"], Table.grants["admin"], ticket)
    way.admission.renew(node.hub.rooms["b"], reader, Table.grants["reader"], ticket)


async def test_new_documents_that_may_wait_get_their_turns_in_order(node: Node) -> None:
    way = Way(node, Limits(Bounds(new_documents=60)))
    ticket, grant = way.ticket(), Table.grants["writer"]
    turns = [Turn() for _ in range(63)]
    rooms = [await way.admission.open(str(number)) for number in range(63)]
    began = node.hub.now()
    for live, turn in zip(rooms, turns, strict=True):
        with contextlib.suppress(DocumentBusy):
            way.admission.check(live, grant, ticket, turn)
    assert [turn.at for turn in turns[60:]] == [pytest.approx(began + seconds, abs=0.5) for seconds in (1, 2, 3)]
    # One that is there by now needs its turn no more, and one that goes gives it back.
    stored = await node.store.create("61")
    live = rooms[61]
    node.hub.created("61", stored.id)
    await eventually(lambda: _yes(live.exists), "that it is known")
    way.admission.check(live, grant, ticket, turns[61])
    turns[62].give_back()
    turns[62].give_back()
    late = Turn()
    with pytest.raises(DocumentBusy) as busy:
        way.admission.check(await way.admission.open("late"), grant, ticket, late)
    assert late.at == pytest.approx(began + 2, abs=0.5)
    # It is asked again in its turn, and not before.
    with pytest.raises(DocumentBusy) as busy:
        way.admission.check(await way.admission.open("late"), grant, ticket, late)
    assert late.at is not None and busy.value.wait == pytest.approx(late.at - node.hub.now(), abs=0.5)
    late.at = node.hub.now()
    way.admission.check(await way.admission.open("late"), grant, ticket, late)


async def _yes(answer: bool) -> bool:
    return answer


async def test_what_was_granted_may_run_out_while_its_client_waits(way: Way) -> None:
    live = await way.admission.open("d")
    with pytest.raises(AccessExpired):
        way.admission.check(live, Grant(Access.WRITE, "u2", expires_at=time.time() - 1), way.ticket())


async def test_a_document_is_open_only_so_many_times(node: Node) -> None:
    way = Way(node, Limits(Bounds(connections_per_document=2)))
    live = await way.admission.open("d")
    ticket, grant = way.ticket(), Table.grants["writer"]
    members = []
    for _ in range(2):
        way.admission.check(live, grant, ticket)
        members.append(way.member()[0])
        way.admission.join(live, members[-1], grant)
    with pytest.raises(DocumentBusy):
        way.admission.check(live, grant, ticket)
    live.leave(members[0])
    way.admission.check(live, grant, ticket)


async def test_new_documents_are_counted_and_those_that_are_there_are_not(node: Node) -> None:
    way = Way(node, Limits(Bounds(new_documents=2)))
    ticket, grant = way.ticket(), Table.grants["writer"]
    await node.store.create("stored")
    for _ in range(5):
        way.admission.check(await way.admission.open("stored"), grant, ticket)
    first = await way.admission.open("first")
    way.admission.check(first, grant, ticket)
    way.admission.join(first, way.member()[0], grant)
    for _ in range(5):
        way.admission.check(first, grant, ticket)  # somebody is there already: the document was counted for them
    way.admission.check(await way.admission.open("second"), grant, ticket)
    with pytest.raises(DocumentBusy) as refused:
        way.admission.check(await way.admission.open("third"), grant, ticket)
    assert refused.value.public == "too many new documents, come back later"
    way.admission.check(await way.admission.open("third"), Table.grants["admin"], ticket)  # another user


async def test_joining_notes_who_the_client_is(way: Way) -> None:
    live = await way.admission.open("d")
    member, box = way.member()
    way.admission.join(live, member, Table.grants["writer"])
    assert member.state is State.LIVE and member in live.room.sessions and box.messages
    assert member.author == "u2" and member.user is None
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await way.node.write(live)
    assert [row.author for row in (await way.node.stored("d")).rows] == ["u2"]


async def test_awareness_states_say_who_their_user_is_where_that_is_wanted_and_known(node: Node) -> None:
    way = Way(node, Limits(Bounds()), stamp_users=True)
    for token, user in (("reader", User("u1", "Ann")), ("admin", User("u3", "u3")), ("guest", None)):
        session = way.member()[0]
        way.admission.identify(session, Table.grants[token])
        assert session.user == user and session.author == Table.grants[token].user
    live = await way.admission.open("d")
    member, box = way.member()
    way.admission.join(live, member, Table.grants["writer"])
    live.receive(member, AwarenessUpdate(encode_awareness([Entry(7, 1, b'{"user":{"name":"Ann"}}')])))
    shown = encode_awareness([Entry(7, 1, b'{"user":{"name":"Bob","sub":"u2"}}')])
    await box.until(lambda: AwarenessUpdate(shown) in box.messages, "the state")
    way.admission.identify(member, Table.grants["guest"])
    assert member.user is None and member.author is None, "what the newest token says"


# The end of the access


class Clock:
    """Wall-clock time that stands still."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("left", "lead", "expected"),
    [
        (300.0, 0.0, 300.0),
        (300.0, 30.0, 270.0),
        (60.0, 30.0, 40.0),  # a third of its time at most
        (90.0, 30.0, 60.0),
        (0.0, 30.0, 0.0),
        (-5.0, 0.0, 0.0),
        (-5.0, 30.0, 0.0),
    ],
)
async def test_the_end_of_an_access_is_told_in_time(node: Node, left: float, lead: float, expected: float) -> None:
    clock = Clock()
    hub = Hub(node.store, Journal(node.store, backlog_bytes=1), node.sandbox, OPTIONS, LocalBus(), clock)
    admission = Admission(hub, OpenAccess(), Limits(Bounds()))
    told = asyncio.Event()
    now = asyncio.get_running_loop().time()
    timer = admission.when_expired(Grant(Access.READ, expires_at=clock.now + left), told.set, lead)
    assert timer is not None
    if expected:
        assert timer.when() - now == pytest.approx(expected, abs=0.5)
        timer.cancel()
    else:
        async with asyncio.timeout(20):
            await told.wait()


class Sessions:
    """Grants for a while, and then refuses, as an application does whose session has ended."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ends = clock.now + 600

    async def authenticate(self, request: AccessRequest) -> Grant:
        if request.token != "session" or self.clock.now >= self.ends:
            raise Unauthenticated("sign in again")
        return Grant(Access.WRITE, "u1", expires_at=self.ends)


async def test_a_token_that_ran_out_a_moment_ago_is_asked_for_another_one(node: Node) -> None:
    clock = Clock()
    hub = Hub(node.store, Journal(node.store, backlog_bytes=1), node.sandbox, OPTIONS, LocalBus(), clock)
    sessions = Sessions(clock)
    admission = Admission(hub, sessions, Limits(Bounds()))
    await admission.ask(PEER, "session", "d")
    clock.now += 600
    for _ in range(3):
        with pytest.raises(AccessExpired):
            await admission.ask(PEER, "session", "d")
    for token, name in (("other", "d"), ("session", "another"), ("", "d")):
        with pytest.raises(Unauthenticated):
            await admission.ask(PEER, token, name)
    clock.now += 59
    with pytest.raises(AccessExpired):
        await admission.ask(PEER, "session", "d")
    # Not for ever.
    clock.now += 1
    with pytest.raises(Unauthenticated):
        await admission.ask(PEER, "session", "d")


async def test_what_was_called_back_before_its_time_is_refused_for_good(node: Node) -> None:
    clock = Clock()
    hub = Hub(node.store, Journal(node.store, backlog_bytes=1), node.sandbox, OPTIONS, LocalBus(), clock)
    sessions = Sessions(clock)
    admission = Admission(hub, sessions, Limits(Bounds()))
    await admission.ask(PEER, "session", "d")
    sessions.ends = clock.now
    with pytest.raises(Unauthenticated):
        await admission.ask(PEER, "session", "d")


async def test_of_so_many_tokens_it_is_known_when_they_end(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.hub.admission._REMEMBERED", 2)
    clock = Clock()
    hub = Hub(node.store, Journal(node.store, backlog_bytes=1), node.sandbox, OPTIONS, LocalBus(), clock)
    admission = Admission(hub, Sessions(clock), Limits(Bounds()))
    for name in ("a", "b", "a", "c"):
        await admission.ask(PEER, "session", name)
    clock.now += 600
    for name, kind in (("a", AccessExpired), ("b", Unauthenticated), ("c", AccessExpired)):
        with pytest.raises(kind):
            await admission.ask(PEER, "session", name)


async def test_an_access_that_ends_calls_back_and_one_that_does_not_never_does(way: Way) -> None:
    assert way.admission.when_expired(Grant(Access.READ), lambda: None) is None
    over = asyncio.Event()
    way.admission.when_expired(Grant(Access.READ, expires_at=time.time() + 0.05), over.set)
    assert not over.is_set()
    async with asyncio.timeout(20):
        await over.wait()


async def test_a_room_that_leaves_memory_while_somebody_comes_is_opened_again(start_node: StartNode) -> None:
    node = await start_node(idle_seconds=0.0)
    way = Way(node, Limits(Bounds(), Memory()))
    swept = []

    async def settle(live: LiveRoom) -> None:
        # The sweep comes just when the room has been made and before its first client has joined.
        if not swept:
            swept.append(live)
            await node.hub._unload(live)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LiveRoom, "settle", settle)
        live = await way.admission.open("d")
    assert live is not swept[0] and node.hub.rooms["d"] is live
