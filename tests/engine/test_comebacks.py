"""Clients that come back: who gets the ID of an old socket, and who is asked to announce itself for their sake.

Strategy: messages in, effects out. ``Yjs`` does on a message what y-protocols does, as far as it matters here: it takes
only a greater clock, keeps the clocks of those whom it has removed, and answers ``null`` for its own ID with the next
clock. So what is asserted is what people see.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from collab.engine.awareness import LARGE
from collab.engine.comebacks import Comebacks
from collab.engine.departed import Departed
from collab.engine.document import Document, at_once
from collab.engine.room import Effect, Probe, Returned, Room, Send, Unseen
from collab.protocol.awareness import (
    AwarenessUpdate,
    Entry,
    QueryAwareness,
    decode_awareness,
    encode_awareness,
)
from collab.protocol.session import Access, Owner, Session, State
from collab.protocol.sync import SyncStep2
from tests.support.build import lines
from tests.support.sessions import admit

EMPTY = b"\0\0"
MAX = 2**53 - 1


def make_room(*, fresh: bool = False, departed: Departed | None = None, ids: int = 3, size: int = 1_000) -> Room:
    return Room(
        Document(),
        max_document_bytes=1 << 20,
        max_awareness_bytes=size,
        max_awareness_ids=ids,
        fresh=fresh,
        departed=departed,
    )


def said(*entries: tuple[int, int, str]) -> AwarenessUpdate:
    return AwarenessUpdate(encode_awareness(Entry(client, clock, state.encode()) for client, clock, state in entries))


class Yjs:
    """One client of a room, on one socket after the other."""

    def __init__(
        self,
        room: Room,
        client: int,
        *,
        clock: int = 1,
        user: str | None = None,
        address: str | None = None,
        quiet: bool = False,
    ) -> None:
        self.room, self.client, self.clock, self.state = room, client, clock, f'"{client}"'
        self.user, self.address, self.quiet = user, address, quiet
        self.clocks: dict[int, int] = {}
        self.seen: dict[int, str] = {}
        self.removed: list[int] = []  # of others, while it was connected
        self.asked = 0
        self.session = Session()

    def connect(self) -> list[Effect]:
        """Come on a new socket, as all stock clients do: show oneself before anything is read."""
        self.session = Session()
        self.session.address, self.session.quiet = self.address, self.quiet
        admit(self.session, Access.WRITE, self.user)
        effects = self.room.join(self.session)
        effects += self.show()
        self.read(effects)
        self.answer()
        return effects

    def answer(self) -> None:
        self.room.receive(self.session, SyncStep2(EMPTY))

    def show(self) -> list[Effect]:
        return list(self.room.receive(self.session, said((self.client, self.clock, self.state))))

    def move(self) -> list[Effect]:
        self.clock += 1
        self.state = f'"{self.client} at {self.clock}"'
        return self.show()

    def drop(self) -> None:
        """Lose the socket: y-protocols removes the others, and keeps their clocks. The server does not know it yet."""
        self.seen = {}

    def read(self, effects: Iterable[Effect]) -> list[Effect]:
        """Take what it is sent; give what its answers lead to."""
        out: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and effect.session is self.session:
                if isinstance(effect.message, AwarenessUpdate):
                    out += self.take(effect.message.payload)
                elif isinstance(effect.message, QueryAwareness):
                    everybody = [(self.client, self.clock, self.state)]
                    everybody += [(other, self.clocks[other], state) for other, state in self.seen.items()]
                    out += self.room.receive(self.session, said(*everybody))
        return out

    def take(self, payload: bytes) -> list[Effect]:
        out: list[Effect] = []
        for client, clock, state in decode_awareness(payload):
            if client == self.client:
                if state == b"null" and clock >= self.clock:
                    self.clock = clock + 1
                    self.asked += 1
                    if not self.quiet:
                        out += self.show()
                continue
            known = self.clocks.get(client, 0)
            if clock > known or (clock == known and state == b"null" and client in self.seen):
                self.clocks[client] = clock
                if state == b"null":
                    self.seen.pop(client, None)
                    self.removed.append(client)
                else:
                    self.seen[client] = state.decode()
        return out


def turn(room: Room, *clients: Yjs) -> list[Effect]:
    """End a turn, and let these clients read it."""
    payload = room.end_turn().awareness
    out: list[Effect] = []
    if payload is not None:
        for client in clients:
            if client.session.state is not State.CLOSED:
                out += client.take(payload)
    return out


def settle(room: Room, *clients: Yjs, effects: Iterable[Effect] = ()) -> int:
    """Let clients and room speak until nobody has anything to say; give how often a round is due."""
    rounds = 0
    todo = list(effects)
    while todo or room.pending:
        rounds += sum(isinstance(effect, Returned) for effect in todo)
        todo = [more for client in clients for more in client.read(todo)]
        todo += turn(room, *clients)
    return rounds


def leave(client: Yjs) -> None:
    client.drop()
    client.room.leave(client.session)


def people(room: Room, count: int, *, quiet: bool = False) -> list[Yjs]:
    """Let people join who see each other."""
    found = [Yjs(room, 10 + at, quiet=quiet) for at in range(count)]
    for client in found:
        settle(room, *found, effects=client.connect())
    for client in found:
        client.removed, client.asked = [], 0
    complete(*found)
    return found


def complete(*clients: Yjs) -> None:
    for client in clients:
        assert client.seen == {other.client: other.state for other in clients if other is not client}


# What one who comes back does not see


@pytest.mark.parametrize("quiet", [False, True], ids=["says so by itself", "says so when asked"])
def test_idle_members_are_asked_once_and_nobody_sees_anything_of_it(quiet: bool) -> None:
    room = make_room()
    ann, *others = everybody = people(room, 5, quiet=quiet)
    leave(ann)
    settle(room, *everybody)
    for other in others:
        other.removed = []
    assert settle(room, *everybody, effects=ann.connect()) == 1, "a round is due"
    assert ann.seen == {}, "which is why"
    asked = list(room.begin_round().here)
    assert {effect.session for effect in asked} == {other.session for other in others}
    assert all(isinstance(effect, Send) for effect in asked) and len(asked) == (8 if quiet else 4)
    assert settle(room, *everybody, effects=asked) == 0
    complete(*everybody)
    assert [other.removed for other in everybody] == [[], [], [], [], []], "nobody flickers"
    assert [other.asked for other in everybody] == [1, 1, 1, 1, 1], "the one who came back as before, for its own clock"
    assert list(room.begin_round().here) == [] and not room.awareness.comebacks.lacking


def test_who_has_said_something_since_is_not_asked() -> None:
    room = make_room()
    ann, bob, eve = everybody = people(room, 3)
    leave(ann)
    settle(room, *everybody)
    bob.move()
    settle(room, *everybody)
    settle(room, *everybody, effects=ann.connect())
    assert ann.seen == {bob.client: bob.state}
    asked = list(room.begin_round().here)
    assert [effect.session for effect in asked] == [eve.session]
    settle(room, *everybody, effects=asked)
    complete(*everybody)


def test_one_round_serves_all_who_left_before_it() -> None:
    room = make_room()
    everybody = people(room, 8)
    away, here = everybody[:4], everybody[4:]
    for client in away:
        leave(client)
    settle(room, *everybody)
    first, *rest = away
    settle(room, *everybody, effects=first.connect())
    settle(room, *everybody, effects=room.begin_round().here)
    for client in rest:
        assert settle(room, *everybody, effects=client.connect()) == 1
        assert list(room.begin_round().here) == [], "nobody is idle as long as that"
    complete(*everybody)
    assert {client.asked for client in here} == {1}


def test_who_comes_back_with_another_clock_lacks_the_others_just_the_same() -> None:
    room = make_room()
    ann, bob = everybody = people(room, 2)
    leave(ann)
    settle(room, *everybody)
    ann.clock += 1
    assert settle(room, *everybody, effects=ann.connect()) == 1
    settle(room, *everybody, effects=room.begin_round().here)
    complete(*everybody)
    # It hides for a while on the same socket: that is no comeback.
    room.receive(ann.session, said((ann.client, ann.clock, "null")))
    settle(room, *everybody)
    assert settle(room, *everybody, effects=ann.move()) == 0
    assert ann.seen == {bob.client: bob.state}


def test_a_newcomer_has_nobody_asked() -> None:
    room = make_room()
    people(room, 3)
    newcomer = Yjs(room, 99)
    assert settle(room, newcomer, effects=newcomer.connect()) == 0
    assert not room.awareness.comebacks.lacking and list(room.begin_round().here) == []


def test_who_does_not_answer_or_shows_what_it_has_heard_of_is_left_alone() -> None:
    room = make_room()
    ann, bob = everybody = people(room, 2)
    room.receive(bob.session, said((777, 1, '"a tab"'), (778, 1, '"another"')))
    settle(room, *everybody)
    leave(ann)
    settle(room, *everybody)
    settle(room, *everybody, effects=ann.connect())
    asked = list(room.begin_round().here)
    assert [effect.session for effect in asked] == [bob.session]
    assert isinstance(asked[0], Send) and asked[0].message == said((bob.client, bob.clock, "null"))
    # It says nothing: it is shown as before, and may be asked in the next round.
    assert bob.client in {entry.client for entry in decode_awareness(room.awareness.everything() or b"\0")}
    leave(ann)
    settle(room, ann)
    settle(room, ann, effects=ann.connect())
    assert list(room.begin_round().here) == asked


def test_while_a_round_goes_on_others_may_move_leave_and_come() -> None:
    room = make_room()
    ann, bob, eve, joe, kim = everybody = people(room, 5)
    leave(ann)
    settle(room, *everybody)
    settle(room, *everybody, effects=ann.connect())
    work = room.begin_round().here
    assert next(work).session is bob.session
    eve.move()
    settle(room, *everybody)
    leave(joe)
    settle(room, *everybody)
    assert [effect.session for effect in work] == [kim.session]


def test_states_of_other_nodes_are_not_asked_for() -> None:
    room = make_room()
    ann, bob = everybody = people(room, 2)
    node = Owner()
    room.receive_awareness_of(node, said((500, 3, '"there"')).payload)
    settle(room, *everybody)
    leave(ann)
    settle(room, *everybody)
    settle(room, *everybody, effects=ann.connect())
    assert [effect.session for effect in room.begin_round().here] == [bob.session]
    room.leave_awareness(node)
    assert settle(room, *everybody) == 0


def test_an_echo_is_no_comeback() -> None:
    room = make_room()
    ann, bob = everybody = people(room, 2)
    leave(ann)
    settle(room, *everybody)
    echo = room.receive(bob.session, said((ann.client, ann.clock, ann.state)))
    assert list(echo) == [Send(bob.session, said((ann.client, ann.clock, "null")))]
    assert not room.awareness.comebacks.lacking
    # Nor that of a client which shows nothing of itself.
    session = Session()
    admit(session, Access.WRITE)
    room.join(session)
    room.receive(session, SyncStep2(EMPTY))
    assert list(room.receive(session, said((bob.client, bob.clock, bob.state)))) == []
    assert session.own is None


def test_who_answers_a_question_is_read_only_for_itself() -> None:
    room = make_room(ids=3)
    everybody = people(room, 100, quiet=True)
    ann, bob = everybody[:2]
    leave(ann)
    settle(room, ann, bob)
    settle(room, ann, bob, effects=ann.connect())
    asked = [effect for effect in room.begin_round().here if effect.session is bob.session]
    assert len(asked) == 2 and bob.session.queried
    bob.clock += 1
    own = said((bob.client, bob.clock, '"moved"'))
    everything = said((bob.client, bob.clock + 1, '"all"'), *((n, 1, '"old"') for n in range(10, 110)))
    usual = lines(lambda: room.receive(bob.session, own))
    assert bob.session.queried, "that was no answer yet"
    assert lines(lambda: room.receive(bob.session, everything)) < usual + 30
    assert not bob.session.queried
    assert room.end_turn().awareness == said((bob.client, bob.clock + 1, '"all"')).payload
    # A larger one is taken in slices, of which one is enough.
    bob.session.queried = True
    large = said((bob.client, bob.clock + 2, '"large"'), *((n, 1, '"old"') for n in range(10, 1_500)))
    assert len(large.payload) > LARGE
    work = room.receive_awareness_in_slices(bob.session, large)
    assert at_once(work) == []
    assert room.end_turn().awareness == said((bob.client, bob.clock + 2, '"large"')).payload
    # What begins with somebody else is read as any other message.
    bob.session.queried = True
    room.receive(bob.session, said((10, 1, '"old"'), (bob.client, bob.clock + 3, '"last"')))
    assert room.end_turn().awareness == said((bob.client, bob.clock + 3, '"last"')).payload
    assert list(room.receive(bob.session, AwarenessUpdate(b"\0"))) == []


def test_the_turns_of_a_room_go_on_from_where_it_left_memory() -> None:
    room = make_room()
    ann, bob = people(room, 2)
    for client in (ann, bob):
        leave(client)
    settle(room)
    again = make_room(departed=room.awareness.departed)
    assert again.awareness.comebacks.turn > room.awareness.departed.turn > 0
    for client in (ann, bob):
        client.room = again
        settle(again, ann, bob, effects=client.connect())
    assert list(again.begin_round().here) == [], "all have come since"
    complete(ann, bob)


# A room of which nobody knows who was here


def test_after_a_restart_everybody_is_complete_for_everybody_without_a_round() -> None:
    room = make_room()
    everybody = people(room, 6)
    for client in everybody:
        client.drop()
    after = make_room(fresh=True)
    for client in everybody:
        client.room = after
        assert settle(after, *everybody, effects=client.connect()) == 0
    complete(*everybody)
    assert [client.asked for client in everybody] == [1] * 6
    assert [client.removed for client in everybody] == [[]] * 6


def test_only_what_a_client_brings_along_is_asked_for_and_only_in_the_first_minutes() -> None:
    room = make_room(fresh=True)
    ann = Yjs(room, 1)
    ann.connect()
    assert ann.asked == 1
    assert list(ann.move()) == []
    room.receive(ann.session, said((2, 1, '"a tab"')))
    hiding = Session()
    admit(hiding, Access.WRITE)
    room.join(hiding)
    room.receive(hiding, SyncStep2(EMPTY))
    assert list(room.receive(hiding, said((3, 1, '"shown later"')))) == []
    both = Session()
    admit(both, Access.WRITE)
    room.join(both)
    assert list(room.receive(both, said((4, 1, '"own"'), (5, 1, '"heard of"')))) == [Send(both, said((4, 1, "null")))]
    bad = Session()
    admit(bad, Access.WRITE)
    room.join(bad)
    assert not any(effect == Send(bad, said((6, 1, "null"))) for effect in room.receive(bad, said((6, 1, "{"))))
    room.awareness.forget()
    late = Yjs(room, 8)
    late.connect()
    assert late.asked == 1
    room.awareness.forget()
    later = Yjs(room, 9)
    later.connect()
    assert later.asked == 0
    old = Yjs(make_room(departed=Departed()), 10)
    old.connect()
    assert old.asked == 0


# One who comes back before the old socket is known to be dead


def test_a_user_has_its_id_at_once_with_the_clock_that_is_known_too() -> None:
    room = make_room()
    ann = Yjs(room, 7, user="ann")
    bob = Yjs(room, 8, user="bob")
    settle(room, ann, bob, effects=[*ann.connect(), *bob.connect()])
    before = ann.session
    ann.drop()
    bob.removed = []
    effects = ann.connect()
    assert Probe(before) in effects
    assert settle(room, ann, bob, effects=effects) == 1
    settle(room, ann, bob, effects=room.begin_round().here)
    room.leave(before)
    settle(room, ann, bob)
    complete(ann, bob)
    assert bob.removed == [] and bob.clocks[7] == ann.clock == 2
    # With a greater clock it needs not even announce itself once more.
    before = ann.session
    ann.drop()
    ann.clock += 1
    effects = ann.connect()
    assert Probe(before) in effects and settle(room, ann, bob, effects=effects) == 1
    assert ann.clock == bob.clocks[7] == 3
    assert [effect.session for effect in room.begin_round().here] == [bob.session]


def test_where_nobody_knows_users_the_same_address_has_its_id_once_the_old_socket_is_silent() -> None:
    room = make_room()
    ann, bob = Yjs(room, 7, address="192.0.2.7"), Yjs(room, 8, address="192.0.2.8")
    settle(room, ann, bob, effects=[*ann.connect(), *bob.connect()])
    before = ann.session
    ann.drop()
    bob.removed = []
    effects = ann.connect()
    assert effects[-1] == Probe(before) and settle(room, ann, bob, effects=effects) == 0
    ann.clock += 3  # while its claim waits
    assert ann.move() == [Probe(before)] and not room.pending
    assert before.awareness == {7: 3}, "it is not silent yet"
    asked = room.note_silent(before)
    assert asked == [Send(ann.session, said((7, 5, "null"))), Returned(ann.session)]
    assert (before.awareness, ann.session.awareness) == ({}, {7: 3})
    settle(room, ann, bob, effects=asked)
    settle(room, ann, bob, effects=room.begin_round().here)
    complete(ann, bob)
    room.leave(before)
    assert settle(room, ann, bob) == 0
    assert bob.removed == [], "there was no moment without it"
    assert room.note_silent(bob.session) == ()


@pytest.mark.parametrize(
    ("user", "address", "other", "there"),
    [
        (None, None, None, None),
        (None, "192.0.2.7", None, "192.0.2.9"),
        ("ann", "192.0.2.7", "eve", "192.0.2.7"),
        ("ann", "192.0.2.7", None, "192.0.2.7"),
        (None, "192.0.2.7", "eve", "192.0.2.7"),
    ],
)
def test_who_is_somebody_else_has_no_id_of_a_silent_socket(
    user: str | None, address: str | None, other: str | None, there: str | None
) -> None:
    room = make_room()
    ann = Yjs(room, 7, user=user, address=address)
    thief = Yjs(room, 7, clock=5, user=other, address=there)
    settle(room, ann, effects=ann.connect())
    thief.connect()
    assert list(thief.move()) == [Probe(ann.session)]
    assert room.note_silent(ann.session) == ()
    assert room.awareness.everything() == said((7, 1, '"7"')).payload


def test_where_the_address_is_another_one_the_id_is_free_when_the_old_socket_ends() -> None:
    room = make_room()
    ann, bob = Yjs(room, 7, address="192.0.2.7"), Yjs(room, 8, address="192.0.2.8")
    settle(room, ann, bob, effects=[*ann.connect(), *bob.connect()])
    before = ann.session
    ann.drop()
    ann.address = "198.51.100.7"
    ann.connect()
    ann.move()
    ended = room.leave(before)
    assert ended == [Send(ann.session, said((7, 2, "null"))), Returned(ann.session)]
    settle(room, ann, bob, effects=ended)
    settle(room, ann, bob, effects=room.begin_round().here)
    complete(ann, bob)


def test_a_users_id_stays_its_own_when_the_old_socket_ends() -> None:
    room = make_room()
    ann = Yjs(room, 7, user="ann")
    thief = Yjs(room, 7, clock=5, user="eve")
    settle(room, ann, effects=ann.connect())
    thief.connect()
    assert room.leave(ann.session) == ()
    assert room.end_turn().awareness == said((7, 1, "null")).payload


def test_the_same_address_has_its_id_without_a_gap_when_the_old_socket_ends_before_it_is_silent() -> None:
    room = make_room()
    ann, bob = Yjs(room, 7, address="192.0.2.7"), Yjs(room, 8, address="192.0.2.8")
    settle(room, ann, bob, effects=[*ann.connect(), *bob.connect()])
    before = ann.session
    ann.drop()
    ann.connect()
    bob.removed = []
    settle(room, ann, bob, effects=room.leave(before))
    settle(room, ann, bob, effects=room.begin_round().here)
    complete(ann, bob)
    assert bob.removed == []


def test_a_claim_ends_with_its_session_and_with_what_it_claims() -> None:
    room = make_room()
    address = "192.0.2.7"
    ann, first, second = (Yjs(room, 7, address=address) for _ in range(3))
    settle(room, ann, effects=ann.connect())
    claims = room.awareness.comebacks
    first.connect()
    second.connect()
    claim = claims.find_claim(7)
    assert claim is not None and claim.session is second.session, "the last one counts"
    room.leave(first.session)
    assert claims.find_claim(7) == claim
    room.leave(second.session)
    assert claims.find_claim(7) is None and not claims._claims
    first.connect()
    first.session.state = State.CLOSED
    assert claims.find_claim(7) is None, "it has not been cleared up yet"
    assert room.note_silent(ann.session) == ()
    second.connect()
    room.receive(ann.session, said((7, 2, "null")))
    assert not claims._claims
    assert room.note_silent(ann.session) == ()


def test_a_claim_with_a_clock_that_no_client_has_come_to_is_none_and_nobody_claims_two_ids() -> None:
    room = make_room()
    address = "192.0.2.7"
    owner = Yjs(room, 7, address=address)
    settle(room, owner, effects=owner.connect())
    room.receive(owner.session, said((8, 1, '"heard of"')))
    other = Yjs(room, 9, address=address)
    other.connect()
    room.receive(other.session, said((7, 3, '"x"')))
    assert room.note_silent(owner.session) == (), "it has shown another ID as its own"
    far = Yjs(room, 7, clock=MAX, address=address)
    far.connect()
    assert room.note_silent(owner.session) == ()
    two = Session()
    two.address = address
    admit(two, Access.WRITE)
    room.join(two)
    room.receive(two, said((7, 3, '"x"'), (8, 3, '"y"')))
    assert [effect for effect in room.note_silent(owner.session) if isinstance(effect, Send)] == [
        Send(two, said((7, 3, "null")))
    ]
    assert (owner.session.awareness, two.awareness) == ({8: 10}, {7: 3})


@pytest.mark.parametrize(("ids", "size"), [(1, 1_000), (3, 9)])
def test_nobody_is_given_more_than_it_may_show(ids: int, size: int) -> None:
    room = make_room(ids=ids, size=size)
    address = "192.0.2.7"
    ann = Yjs(room, 7, address=address)
    ann.state = '"12345"'
    settle(room, ann, effects=ann.connect())
    other = Yjs(room, 7, clock=2, address=address)
    other.connect()
    room.receive(other.session, said((9, 1, '"9"')))
    assert room.note_silent(ann.session) == ()
    assert ann.session.awareness == {7: 7}


def test_what_is_handed_over_counts_for_who_has_it_then() -> None:
    room = make_room(ids=3)
    before, after = Session(), Session()
    for session in (before, after):
        admit(session, Access.WRITE, "ann")
        room.join(session)
    room.receive(before, said((7, 5, '"old"')))
    many = said((7, 5, '"old"'), (8, 1, "1"), (9, 1, "1"), (10, 1, "1"))
    effects = at_once(room.receive_awareness_in_slices(after, many))
    assert Send(after, said((7, 5, "null"))) in effects and any(isinstance(effect, Unseen) for effect in effects)
    assert (before.awareness, after.awareness) == ({}, {7: 5, 8: 1, 9: 1})


def test_who_was_found_to_be_back_already_needs_no_other_round() -> None:
    room = make_room()
    address = "192.0.2.7"
    ann, copy = Yjs(room, 7, address=address), Yjs(room, 7, clock=5, address=address)
    settle(room, effects=ann.connect())
    leave(ann)
    settle(room)
    ann.session = Session()
    ann.session.address = address
    admit(ann.session, Access.WRITE)
    room.join(ann.session)
    assert Returned(ann.session) in ann.show(), "and it does not announce itself yet"
    copy.connect()
    ann.clock = 8
    room.receive(ann.session, said((9, 1, "1")))
    assert ann.show() == [Probe(copy.session)]
    assert list(room.note_silent(copy.session)) == [Send(ann.session, said((7, 8, "null")))]
    assert ann.session.awareness == {9: 1, 7: 3}


def test_what_is_known_of_comebacks_is_bounded_by_what_is_shown() -> None:
    room = make_room()
    everybody = people(room, 5)
    for _ in range(20):
        leave(everybody[0])
        settle(room, *everybody)
        settle(room, *everybody, effects=everybody[0].connect())
        settle(room, *everybody, effects=room.begin_round().here)
    comebacks: Comebacks = room.awareness.comebacks
    assert set(comebacks.announced) == {client.client for client in everybody} and not comebacks._claims
    complete(*everybody)
