"""Clients that come back by another node: who gets the ID of the old socket, and who is asked for their sake.

Strategy: two rooms are two nodes with one document, and everything that one tells the other arrives at once, or when
the test lets it. Clients are those of ``test_comebacks``; what is asserted is what people see.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from collab.engine.awareness import Ask
from collab.engine.comebacks import DistantClaim
from collab.engine.room import Claim, Effect, Probe, Room, Send
from collab.errors import DecodeError
from collab.protocol.awareness import Entry, encode_awareness
from collab.protocol.session import Owner, State
from tests.engine.test_comebacks import MAX, Yjs, complete, leave, make_room

ANN, BOB = "ann", "bob"


class Node:
    """One node's room; ``other`` is what it knows the other node as."""

    def __init__(self, *, fresh: bool = False) -> None:
        self.room = make_room(fresh=fresh)
        self.other = Owner()
        self.clients: list[Yjs] = []
        self.claims: list[DistantClaim] = []
        self.probed: list[Probe] = []
        self.rounds = self.rounds_for_others = 0

    def come(self, client: Yjs) -> None:
        """Connect a client, and let it read what it is sent for that."""
        client.room = self.room
        if client not in self.clients:
            self.clients.append(client)
        self.read([effect for effect in client.connect() if not isinstance(effect, Send)])

    def read(self, effects: Iterable[Effect]) -> None:
        """Let the clients read what they are sent, and note the rest."""
        todo = list(effects)
        while todo:
            for effect in todo:
                if isinstance(effect, Claim):
                    session = effect.session
                    self.claims.append(DistantClaim(*effect[1:], session.author, session.address))
                elif isinstance(effect, Probe):
                    self.probed.append(effect)
            todo = [more for client in self.clients for more in client.read(todo)]


class Cluster:
    """Two nodes on one bus."""

    def __init__(self, *, fresh: bool = False) -> None:
        self.a, self.b = self.nodes = Node(fresh=fresh), Node(fresh=fresh)

    def introduce(self) -> None:
        """Let each tell the other all that its sessions show, as nodes do that have come to one document."""
        for node, peer in (self.nodes, self.nodes[::-1]):
            own = node.room.awareness.own() or encode_awareness(())
            effects, refused = peer.room.receive_awareness_of(peer.other, own, whole=True)
            assert refused is None
            peer.read(effects)

    def settle(self) -> None:
        """Let everything that is to be said arrive, until nobody has anything to say."""
        while any(node.room.pending or node.claims or node.room.lacking or node.room.asked for node in self.nodes):
            for node, peer in (self.nodes, self.nodes[::-1]):
                self._tell(node, peer)

    def _tell(self, node: Node, peer: Node) -> None:
        if node.room.pending:
            end = node.room.end_turn()
            if end.awareness is not None:
                for client in node.clients:
                    if client.session.state is not State.CLOSED:
                        node.read(client.take(end.awareness))
            if end.own_awareness is not None:
                effects, refused = peer.room.receive_awareness_of(peer.other, end.own_awareness)
                assert refused is None
                peer.read(effects)
        claims, node.claims = node.claims, []
        for claim in claims:
            peer.read(peer.room.receive_claim(claim))
        if node.room.lacking:
            node.rounds += 1
            here, there = node.room.begin_round()
            node.read(here)
            if there is not None:
                peer.room.receive_asked(there)
        if node.room.asked:
            node.rounds_for_others += 1
            node.read(node.room.begin_round_for_others().here)

    def silent(self, node: Node, client: Yjs) -> None:
        """Let the socket of a client that was probed be silent."""
        node.read(node.room.note_silent(client.session))
        self.settle()

    def people(self, *users: str | None) -> tuple[Yjs, ...]:
        """Let people join, one node in turn, who see each other."""
        found = [Yjs(self.a.room, 10 + at, user=user, address="here") for at, user in enumerate(users)]
        for at, client in enumerate(found):
            node = self.nodes[at % 2]
            node.come(client)
            self.settle()
        complete(*found)
        for client in found:
            client.asked, client.removed = 0, []
        for node in self.nodes:
            node.rounds = node.rounds_for_others = 0
        return tuple(found)


def test_who_comes_back_by_another_node_sees_the_idle_of_all_nodes() -> None:
    cluster = Cluster()
    ann, bob, cleo, dan = cluster.people(None, None, None, None)
    leave(ann)
    cluster.a.clients.remove(ann)
    cluster.settle()
    assert ann.client not in bob.seen
    cluster.b.come(ann)
    cluster.settle()
    complete(ann, bob, cleo, dan)
    assert [bob.asked, cleo.asked, dan.asked] == [1, 1, 1]
    assert bob.removed == [ann.client] and cleo.removed == [ann.client]
    assert (cluster.b.rounds, cluster.a.rounds_for_others) == (1, 1)
    assert (cluster.a.rounds, cluster.b.rounds_for_others) == (0, 0), "what another node asks for is not asked back"


def test_who_comes_back_to_its_node_sees_the_idle_of_the_other_one() -> None:
    cluster = Cluster()
    ann, bob, cleo, dan = cluster.people(None, None, None, None)
    leave(ann)
    cluster.settle()
    dan.move()
    cluster.settle()
    cluster.a.come(ann)
    cluster.settle()
    complete(ann, bob, cleo, dan)
    assert [bob.asked, cleo.asked, dan.asked] == [1, 1, 0], "who has moved since needs not be asked"


@pytest.mark.parametrize("heard_first", [False, True])
def test_in_a_room_that_was_just_opened_the_idle_of_other_nodes_are_asked(heard_first: bool) -> None:
    cluster = Cluster(fresh=True)
    ann, bob = Yjs(cluster.a.room, 1), Yjs(cluster.a.room, 2)
    for client in (ann, bob):
        cluster.a.come(client)
        cluster.settle()
    complete(ann, bob)
    leave(ann)
    cluster.a.clients.remove(ann)
    cluster.settle()
    cluster.b = Node(fresh=True)  # ann comes to a node that has not had the document
    cluster.nodes = cluster.a, cluster.b
    if heard_first:
        cluster.introduce()
        cluster.b.room.end_turn()
        cluster.b.come(ann)
    else:
        cluster.b.come(ann)
        cluster.b.room.end_turn()
        cluster.introduce()
    cluster.settle()
    complete(ann, bob)
    assert bob.asked <= 2 and cluster.b.rounds <= 2


def test_nobody_is_asked_for_a_node_where_nobody_is() -> None:
    cluster = Cluster(fresh=True)
    ann = Yjs(cluster.a.room, 1)
    cluster.a.come(ann)
    cluster.settle()
    ann.asked = 0
    cluster.introduce()
    assert not cluster.b.room.lacking
    cluster.settle()
    assert ann.asked == 0


def test_a_user_has_its_id_at_once_by_another_node() -> None:
    cluster = Cluster()
    ann, bob, cleo = cluster.people(ANN, BOB, None)
    before = ann.session
    ann.drop()
    ann.clock += 1
    ann.state = '"moved"'
    cluster.b.come(ann)
    cluster.settle()
    complete(ann, bob, cleo)
    assert not cluster.a.probed and not before.awareness
    assert cluster.b.room.awareness.own() is not None and ann.session.awareness is not None


def test_a_user_gets_nothing_of_another_user_by_another_node() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(ANN, BOB)
    thief = Yjs(cluster.b.room, ann.client, clock=ann.clock + 1, user="eve", address="here")
    cluster.b.come(thief)
    cluster.settle()
    assert bob.seen[ann.client] == ann.state
    assert [probe.session for probe in cluster.a.probed] == [ann.session]
    cluster.silent(cluster.a, ann)
    assert bob.seen[ann.client] == ann.state, "one address is not enough where users are known"


def show_user_and_leave(cluster: Cluster, ann: Yjs) -> None:
    """Let a client of the first node show a user in its state, as the server stamps it, and lose its line."""
    ann.state = '{"user":{"sub":"ann","name":"Ann"}}'
    ann.clock += 1
    ann.show()
    cluster.settle()
    leave(ann)
    cluster.a.clients.remove(ann)
    cluster.settle()


def test_an_id_stays_its_users_on_other_nodes_while_its_line_is_down() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(ANN, BOB)
    show_user_and_leave(cluster, ann)
    thief = Yjs(cluster.b.room, ann.client, clock=ann.clock + 5, user="eve")
    cluster.b.come(thief)
    cluster.settle()
    assert ann.client not in bob.seen
    ann.clock += 1
    cluster.b.come(ann)
    cluster.settle()
    assert bob.seen[ann.client] == ann.state


def test_where_nobody_knows_users_what_a_state_says_keeps_nobody_out() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(None, None)
    show_user_and_leave(cluster, ann)
    ann.clock += 1
    cluster.b.come(ann)
    cluster.settle()
    assert bob.seen[ann.client] == ann.state


def test_the_same_address_has_its_id_once_the_old_socket_on_another_node_is_silent() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(None, None)
    old = Yjs(cluster.a.room, ann.client)
    old.session = ann.session
    ann.drop()
    ann.clock += 1
    ann.state = '"moved"'
    cluster.a.clients.remove(ann)
    cluster.b.come(ann)
    cluster.settle()
    assert [probe.session for probe in cluster.a.probed] == [old.session]
    assert bob.seen[ann.client] != ann.state, "its old socket may be alive"
    cluster.silent(cluster.a, old)
    complete(ann, bob)
    leave(old)
    cluster.settle()
    complete(ann, bob)


def test_from_another_address_the_id_is_free_when_the_old_socket_ends() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(None, None)
    old = Yjs(cluster.a.room, ann.client)
    old.session = ann.session
    cluster.a.clients.remove(ann)
    ann.drop()
    ann.clock += 1
    ann.state, ann.address = '"moved"', "elsewhere"
    cluster.b.come(ann)
    cluster.settle()
    cluster.silent(cluster.a, old)
    assert bob.seen[ann.client] != ann.state
    leave(old)
    cluster.settle()
    complete(ann, bob)


def test_the_id_is_free_when_the_node_of_the_old_socket_has_gone() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(None, None)
    cluster.a.clients.remove(ann)
    ann.drop()
    ann.clock += 1
    ann.state = '"moved"'
    cluster.b.come(ann)
    cluster.settle()
    cluster.a = Node()
    cluster.nodes = cluster.a, cluster.b
    cluster.b.read(cluster.b.room.leave_awareness(cluster.b.other))
    cluster.settle()
    complete(ann, bob)


def test_the_id_is_free_when_the_other_node_does_not_show_it_any_more() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(None, None)
    old = ann.session
    cluster.a.clients.remove(ann)
    ann.drop()
    ann.clock += 1
    ann.state = '"moved"'
    cluster.b.come(ann)
    cluster.b.claims = []  # the bus has lost it
    cluster.a.room.leave(old)
    cluster.a.room.end_turn()  # and this as well
    cluster.introduce()
    cluster.settle()
    complete(ann, bob)


@pytest.mark.parametrize("clock", [0, 2**31 + 5, MAX])
def test_a_claim_from_afar_with_a_clock_that_cannot_be_its_clients_is_nothing(clock: int) -> None:
    cluster = Cluster()
    ann, bob = cluster.people(ANN, BOB)
    assert cluster.a.room.receive_claim(DistantClaim(ann.client, clock, True, ANN, None)) == ()
    assert not cluster.a.room.pending and bob.seen[ann.client] == ann.state


def test_a_claim_from_afar_on_what_is_not_here_is_nothing() -> None:
    cluster = Cluster()
    _, bob = cluster.people(ANN, BOB)
    for client in (bob.client, 4711):
        assert cluster.a.room.receive_claim(DistantClaim(client, 9, True, ANN, None)) == ()
    assert not cluster.a.room.pending


def test_who_another_node_asks_for_need_not_announce_what_is_newer() -> None:
    cluster = Cluster()
    ann, bob = cluster.people(None, None)
    ann.move()
    cluster.a.room.receive_asked(encode_awareness([Entry(ann.client, ann.clock - 1, b"null")]))
    cluster.a.room.receive_asked(encode_awareness([Entry(bob.client, bob.clock, b"null"), Entry(4711, 1, b"null")]))
    assert not cluster.a.room.asked
    cluster.a.room.receive_asked(encode_awareness([Entry(ann.client, ann.clock, b"null")]))
    assert cluster.a.room.asked and not cluster.a.room.lacking
    with pytest.raises(DecodeError):
        cluster.a.room.receive_asked(b"\x01\x07")


def _asks(room: Room, node: Owner) -> list[Ask]:
    return room.awareness.leave(node)


def test_what_a_node_that_leaves_has_shown_is_given_once() -> None:
    cluster = Cluster()
    ann, _ = cluster.people(None, None)
    ann.clock += 1
    cluster.a.clients.remove(ann)
    cluster.b.come(ann)
    asks = _asks(cluster.b.room, cluster.b.other)
    assert [(session, entry) for session, entry in asks] == [(ann.session, Entry(ann.client, ann.clock, b"null"))]
    assert _asks(cluster.b.room, cluster.b.other) == []
