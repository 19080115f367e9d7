"""What a node says and knows on a bus that crosses a network: bytes in, bytes out, and the time is the test's."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from collab.cluster import peers as peers_module
from collab.cluster.bus import BusMessage
from collab.cluster.peers import BEAT_SECONDS, GONE_SECONDS, QUIET_BEAT_SECONDS, SILENT_SECONDS, Outgoing, Peers
from collab.cluster.wire import COMMON, Beat, Said, decode_frame, decode_items, topic_hash
from collab.errors import DecodeError


@dataclass
class Heard:
    """A listener that notes what it is told, each with its kind."""

    told: list[tuple[str, ...]] = field(default_factory=list)
    payloads: list[tuple[str, bytes]] = field(default_factory=list)
    departed: list[tuple[str, str]] = field(default_factory=list)

    def receive(self, message: BusMessage) -> None:
        self.payloads.append((message.topic, message.payload))

    def joined(self, topic: str, node: str) -> None:
        self.told.append(("joined", topic, bytes.fromhex(node).decode().strip()))

    def left(self, topic: str, node: str) -> None:
        self.departed.append((topic, bytes.fromhex(node).decode().strip()))

    def gone(self, node: str) -> None:
        self.told.append(("gone", bytes.fromhex(node).decode().strip()))

    def missed(self) -> None:
        self.told.append(("missed",))

    def take(self) -> list[tuple[str, ...]]:
        told, self.told = self.told, []
        return told


class Net:
    """Nodes, the time, and a network between them that does what the test says."""

    def __init__(self, *names: str, streams: bool, most: int = 500) -> None:
        self.now = 1_000.0
        self.nodes: dict[str, Peers] = {}
        self.heard: dict[str, Heard] = {}
        self.cut_off: set[str] = set()
        self.lose: set[str] = set()  # who hears nothing now
        self._streams, self._most = streams, most
        for name in names:
            self.add(name)

    def add(self, name: str) -> Peers:
        heard = self.heard[name] = Heard()
        node = self.nodes[name] = Peers(name.ljust(8).encode(), heard, self._most, streams=self._streams)
        node.reconnected()
        heard.take()
        return node

    def carry(self, frames: list[Outgoing]) -> None:
        for name, node in self.nodes.items():
            if name not in self.lose and name not in self.cut_off:
                for frame in frames:
                    node.hear(frame.data, self.now)

    def settle(self) -> None:
        """Carry what is to be said until nothing is."""
        for _ in range(20):
            quiet = True
            for name, node in list(self.nodes.items()):
                node.tell_joined()
                if node.waiting and name not in self.cut_off:
                    quiet = False
                    self.carry(node.take())
            if quiet:
                return
        raise AssertionError("the nodes do not stop talking")

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += BEAT_SECONDS
            for name, node in list(self.nodes.items()):
                node.tick(self.now)
                if name in self.cut_off:
                    node.take()
            self.settle()


@pytest.fixture(params=[False, True], ids=["one channel", "a channel for each topic"])
def net(request: pytest.FixtureRequest) -> Net:
    net = Net("a", "b", streams=request.param)
    net.run(1)
    for heard in net.heard.values():
        heard.take()
    return net


def say(net: Net, name: str, topic: str, *payloads: bytes) -> None:
    for payload in payloads:
        assert net.nodes[name].publish(topic, payload)
    net.settle()


def test_what_half_of_the_nodes_want_goes_with_all_else_in_one_frame() -> None:
    net = Net("a", "b", "c", "d", streams=True)
    a = net.nodes["a"]
    a.ordered = True
    for name, topics in {"a": "tuv", "b": "tuv", "c": "tu"}.items():
        for topic in topics:
            net.nodes[name].subscribe(topic)
    net.run(2)
    for topic in "tuvt":
        a.publish(topic, topic.encode())
    frames = a.take()
    streams = [frame.stream for frame in frames]
    assert streams == [COMMON, topic_hash("v")], "two of three want the others, one wants this"
    net.carry(frames)
    assert net.heard["b"].payloads == [("t", b"t"), ("u", b"u"), ("t", b"t"), ("v", b"v")]
    assert net.heard["c"].payloads == [("t", b"t"), ("u", b"u"), ("t", b"t")]
    assert net.heard["d"].payloads == [], "it has none of them open"
    net.nodes["c"].unsubscribe("u")
    net.settle()
    a.publish("u", b"less")
    assert [frame.stream for frame in a.take()] == [topic_hash("u")]
    a.ordered = False
    a.publish("t", b"on a cluster")
    assert [frame.stream for frame in a.take()] == [topic_hash("t")]


def test_what_nobody_is_known_of_goes_on_its_own_stream() -> None:
    net = Net("a", "b", streams=True)
    a = net.nodes["a"]
    a.ordered = True
    for node in net.nodes.values():
        node.subscribe("t")
    net.run(2)
    a.reconnected()
    a.publish("t", b"to whom it concerns")
    assert topic_hash("t") in [frame.stream for frame in a.take()]


def test_a_beat_goes_with_what_is_said_and_alone_where_nothing_is(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.run(2)
    a, b = net.nodes["a"], net.nodes["b"]
    common = Net("a", "b", streams=False).nodes["a"]._streams is a._streams

    def said() -> list[list[type]]:
        return [[type(item) for item in decode_items(decode(frame.data))] for frame in a.take()]

    def decode(data: bytes) -> bytes:
        frame = decode_frame(data)
        assert frame is not None
        return frame.body

    a.tick(net.now + BEAT_SECONDS)
    a.tick(net.now + 2 * BEAT_SECONDS)
    a.tick(net.now + 3 * BEAT_SECONDS)
    assert said() == [[Beat]], "nothing else was said"
    a.publish("t", b"1")
    assert said() == [[Said]]
    a.tick(net.now + 4 * BEAT_SECONDS)
    if not common:
        assert said() == [[Beat]], "the channel of a topic is not heard by all"
        return
    assert said() == [], "it has just shown that it lives"
    a.publish("t", b"2")
    assert said() == [[Said, Beat]]
    a.publish("t", b"3")
    assert said() == [[Said]]
    a.tick(net.now + 5 * BEAT_SECONDS)
    assert said() == []
    a.tick(net.now + 6 * BEAT_SECONDS)
    assert said() == [[Beat]], "nothing came that takes it along"
    a.tick(net.now + 7 * BEAT_SECONDS)
    assert said() == [], "nothing was said that could be lost"
    a.tick(net.now + 9 * BEAT_SECONDS)
    assert said() == [[Beat]]
    assert b.sure


def test_nodes_meet_and_know_what_the_other_wants(net: Net) -> None:
    a, b = net.nodes["a"], net.nodes["b"]
    assert a.count == b.count == 1 and a.sure and b.sure
    a.subscribe("t")
    net.settle()
    assert b.wanted("t") and not a.wanted("t") and not b.wanted("u")
    assert net.heard["a"].take() == net.heard["b"].take() == []
    b.subscribe("t")
    net.settle()
    assert a.wanted("t")
    assert net.heard["a"].take() == [("joined", "t", "b")]
    assert net.heard["b"].take() == [("joined", "t", "a")]
    b.unsubscribe("t")
    net.settle()
    assert not a.wanted("t") and b.wanted("t")


def test_a_node_that_comes_later_is_told_all_topics(net: Net) -> None:
    for name in ("a", "b"):
        for number in range(100):  # more than a frame holds
            net.nodes[name].subscribe(f"{name}{number}")
    net.settle()
    c = net.add("c")
    c.subscribe("a7")
    net.run(1)
    assert c.count == 2 and c.sure
    assert all(c.wanted(f"{name}{number}") for name in "ab" for number in range(100)) and not c.wanted("c")
    assert set(net.heard["a"].take()) == {("joined", "a7", "c")}
    assert set(net.heard["c"].take()) - {("missed",)} == {("joined", "a7", "a")}
    assert net.nodes["a"].sure and net.nodes["a"].wanted("a7") and not net.nodes["a"].wanted("a8")


def test_messages_arrive_in_order_however_large(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    payloads = [b"%d" % n * (n * 37 % 400) for n in range(50)]
    say(net, "a", "t", *payloads)
    assert net.heard["b"].payloads == [("t", payload) for payload in payloads]
    assert net.heard["a"].payloads == []
    net.run(3)
    assert ("missed",) not in net.heard["b"].take()


def test_what_nobody_listens_to_is_not_given_on(net: Net) -> None:
    net.nodes["b"].subscribe("t")
    net.settle()
    say(net, "a", "u", b"x")
    say(net, "a", "t", b"y")
    assert net.heard["b"].payloads == [("t", b"y")]


def test_a_lost_message_is_missed_at_the_next_one_and_a_lost_last_one_at_the_beat(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    say(net, "a", "t", b"0")
    for heard in net.heard.values():
        heard.take()
    net.lose = {"b"}
    say(net, "a", "t", b"1")
    net.lose = set()
    assert net.heard["b"].take() == []
    say(net, "a", "t", b"2")
    assert net.heard["b"].payloads == [("t", b"0"), ("t", b"2")]
    assert ("missed",) in net.heard["b"].take()
    net.run(2)
    # Both have told each other what they hold: presence that was lost is there again.
    assert ("joined", "t", "b") in net.heard["a"].take()
    assert net.nodes["b"].sure
    for heard in net.heard.values():
        heard.take()
    net.lose = {"b"}
    say(net, "a", "t", b"3")
    net.lose = set()
    net.run(4 * BEAT_SECONDS)
    assert ("missed",) in net.heard["b"].take()
    net.run(2)
    assert net.nodes["b"].sure


def test_repeated_and_overtaken_frames_say_nothing(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    a, b = net.nodes["a"], net.nodes["b"]
    frames = []
    for payload in (b"0", b"1", b"2"):
        a.publish("t", payload)
        frames += a.take()
    first, second, third = frames
    for frame in (first, first, third, second, third):
        b.hear(frame.data, net.now)
    assert net.heard["b"].payloads == [("t", b"0"), ("t", b"2")]
    assert ("missed",) in net.heard["b"].take(), "what was overtaken counts as lost"


def test_a_damaged_frame_is_counted_and_then_missed(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    say(net, "a", "t", b"0")
    a, b = net.nodes["a"], net.nodes["b"]
    a.publish("t", b"1")
    (frame,) = a.take()
    with pytest.raises(DecodeError):
        b.hear(frame.data[:-6] + b"??" + frame.data[-4:], net.now)
    assert b.counts.damaged == 1
    net.heard["b"].take()
    say(net, "a", "t", b"2")
    assert ("missed",) in net.heard["b"].take()
    assert net.heard["b"].payloads == [("t", b"0"), ("t", b"2")]


def test_the_beginning_of_a_large_message_that_was_lost_takes_the_rest_along(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    say(net, "a", "t", b"0")
    a, b = net.nodes["a"], net.nodes["b"]
    for lost in range(3):
        a.publish("t", bytes([lost]) * 1_200)
        frames = a.take()
        assert len(frames) >= 3
        for at, frame in enumerate(frames[:3]):
            if at != lost:
                b.hear(frame.data, net.now)
        say(net, "a", "t", b"after %d" % lost)
    assert [payload for _, payload in net.heard["b"].payloads] == [b"0", b"after 0", b"after 1", b"after 2"]


def test_a_node_that_leaves_is_gone_at_once_and_its_last_frames_say_nothing(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    net.heard["b"].take()
    a, b = net.nodes["a"], net.nodes["b"]
    a.publish("t", b"late")
    late = a.take()
    a.leave()
    for frame in a.take() + late:
        b.hear(frame.data, net.now)
    assert [one for one in net.heard["b"].take() if one != ("missed",)] == [("gone", "a")]
    assert b.count == 0 and b.sure and not b.wanted("t")


def test_a_node_that_falls_silent_is_missed_then_gone_and_new_when_it_comes_back(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    for heard in net.heard.values():
        heard.take()
    net.cut_off = {"a"}
    net.run(SILENT_SECONDS + 2 * BEAT_SECONDS)
    assert net.heard["b"].take() == [("missed",)]
    assert not net.nodes["b"].sure and net.nodes["b"].wanted("t")
    net.run(GONE_SECONDS - SILENT_SECONDS)
    assert net.heard["b"].take() == [("gone", "a")]
    assert net.nodes["b"].count == 0 and not net.nodes["b"].wanted("t")
    net.cut_off = set()
    net.run(2)
    assert net.nodes["b"].count == net.nodes["a"].count == 1
    assert ("joined", "t", "a") in net.heard["b"].take()
    assert ("joined", "t", "b") in net.heard["a"].take()


def test_a_process_that_stood_still_does_not_take_the_others_for_gone(net: Net) -> None:
    net.heard["b"].take()
    net.now += 30
    net.nodes["b"].tick(net.now)
    assert net.heard["b"].take() == [("missed",)]
    assert net.nodes["b"].count == 1


def test_after_a_new_connection_both_tell_each_other_everything(net: Net) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    for heard in net.heard.values():
        heard.take()
    a = net.nodes["a"]
    a.subscribe("said while it was down")
    a.take()
    net.nodes["b"].subscribe("said while it was down")
    a.reconnected()
    assert net.heard["a"].take() == [("missed",)] and a.wanted("anything"), "nothing is known for certain"
    net.run(2)
    assert a.sure and not a.wanted("anything")
    topics = {"t", "said while it was down"}
    assert {one[1] for one in net.heard["a"].take() if one[0] == "joined"} == topics
    assert {one[1] for one in net.heard["b"].take() if one[0] == "joined"} == topics


def test_a_lost_subscription_is_found_by_the_beat(net: Net) -> None:
    net.nodes["b"].subscribe("t")
    net.settle()
    net.lose = {"b"}
    net.nodes["a"].subscribe("t")
    net.settle()
    net.lose = set()
    net.run(3)
    assert net.nodes["b"].wanted("t") and net.nodes["b"].sure
    assert ("joined", "t", "a") in net.heard["b"].take()


def test_what_is_too_much_is_dropped_and_the_others_learn_that_something_is(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in net.nodes.values():
        node.subscribe("t")
    net.settle()
    say(net, "a", "t", b"0")
    net.heard["b"].take()
    monkeypatch.setattr(peers_module, "MAX_WAITING", 1_000)
    a = net.nodes["a"]
    taken = [a.publish("t", bytes(100)) for _ in range(20)]
    assert taken == sorted(taken, reverse=True) and 0 < a.counts.dropped < 20
    net.settle()
    assert len(net.heard["b"].payloads) == 1 + 20 - a.counts.dropped
    say(net, "a", "t", b"on")
    assert ("missed",) in net.heard["b"].take()
    assert net.heard["b"].payloads[-1] == ("t", b"on")


def test_a_node_hears_itself(net: Net) -> None:
    a = net.nodes["a"]
    a.heard_itself = 0.0
    net.run(QUIET_BEAT_SECONDS)
    assert a.heard_itself > net.now - QUIET_BEAT_SECONDS


def test_invented_nodes_have_a_bound(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "MAX_PEERS", 3)
    for number in range(10):
        other = Peers(b"%8d" % number, Heard(), 500, streams=False)
        other.reconnected()
        for frame in other.take():
            net.nodes["a"].hear(frame.data, net.now)
    assert net.nodes["a"].count == 3


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_whatever_a_network_does_the_nodes_know_each_other_in_the_end(seed: int, streams: bool) -> None:
    """Frames are lost, repeated and swapped; then the network is good again, and a little later all is known."""
    random = Random(seed)
    net = Net("a", "b", "c", streams=streams, most=100)
    topics = [f"t{number}" for number in range(8)]
    subscribed: dict[str, set[str]] = {name: set() for name in net.nodes}

    def bad(frames: list[Outgoing]) -> None:
        for node in net.nodes.values():
            received = [frame for frame in frames for _ in range(random.choice((0, 1, 1, 1, 2)))]
            if random.random() < 0.3:
                random.shuffle(received)
            for frame in received:
                node.hear(frame.data, net.now)

    good, net.carry = net.carry, bad  # type: ignore[method-assign]
    for _ in range(60):
        name = random.choice(list(net.nodes))
        topic = random.choice(topics)
        if topic in subscribed[name]:
            net.nodes[name].unsubscribe(topic)
            subscribed[name].discard(topic)
        else:
            net.nodes[name].subscribe(topic)
            subscribed[name].add(topic)
        net.nodes[name].publish(random.choice(topics), random.randbytes(random.choice((3, 300))))
        net.now += BEAT_SECONDS / 3
        for one in net.nodes.values():
            one.tick(net.now)
            net.carry(one.take())
    net.carry = good  # type: ignore[method-assign]
    net.run(6)
    for name, node in net.nodes.items():
        assert node.sure and node.count == 2
        for topic in topics:
            others = any(topic in its for other, its in subscribed.items() if other != name)
            assert node.wanted(topic) is others
    for heard in net.heard.values():
        heard.take()
    net.run(2)
    assert [heard.take() for heard in net.heard.values()] == [[], [], []], "a quiet cluster is quiet"


def test_the_stream_of_what_concerns_all_is_no_topic() -> None:
    assert bytes(8) == COMMON


def test_a_peer_that_leaves_a_topic_is_told_of_where_both_have_it(net: Net) -> None:
    a, b = net.nodes["a"], net.nodes["b"]
    a.subscribe("t")
    b.subscribe("t")
    b.subscribe("u")
    net.settle()
    net.heard["a"].departed.clear()
    b.unsubscribe("t")
    b.unsubscribe("u")
    net.settle()
    assert net.heard["a"].departed == [("t", "b")] and net.heard["b"].departed == []


def test_a_peer_that_has_left_a_topic_unheard_is_told_of_when_it_introduces_itself(net: Net) -> None:
    a, b = net.nodes["a"], net.nodes["b"]
    a.subscribe("t")
    b.subscribe("t")
    net.settle()
    net.heard["a"].departed.clear()
    net.lose.add("a")
    b.unsubscribe("t")
    net.settle()
    assert net.heard["a"].departed == []
    net.lose.clear()
    net.run(3)
    assert ("t", "b") in net.heard["a"].departed and not a.wanted("t")


def test_a_peer_that_came_back_to_a_topic_before_its_leaving_was_heard_has_not_left_it() -> None:
    net = Net("a", "b", streams=True)
    net.run(1)
    a, b = net.nodes["a"], net.nodes["b"]
    a.subscribe("t")
    b.subscribe("t")
    net.settle()
    net.heard["a"].departed.clear()
    b.unsubscribe("t")
    late = b.take()
    b.subscribe("t")
    assert b.publish("t", b"again")
    frames = b.take()
    for frame in [*[one for one in frames if one.stream != COMMON], *late, *frames]:
        a.hear(frame.data, net.now)
    assert net.heard["a"].payloads == [("t", b"again")] and net.heard["a"].departed == []


def test_a_hole_is_asked_about_even_if_the_peer_introduces_itself_to_another_meanwhile(net: Net) -> None:
    """What it says to another one does not repeat what was lost here."""
    a, b = net.nodes["a"], net.nodes["b"]
    a.subscribe("t")
    b.subscribe("t")
    say(net, "b", "t", b"heard")
    net.run(2)
    net.lose.add("a")
    say(net, "b", "t", b"first")
    net.lose.clear()
    say(net, "b", "t", b"second")  # the hole is found, and asked about
    net.lose.add("a")
    say(net, "b", "t", b"third")
    net.lose.clear()
    net.add("c")  # asks all to introduce themselves
    net.settle()
    say(net, "b", "t", b"fourth")  # found within the second in which nobody is asked twice
    net.add("d")
    net.settle()
    net.heard["b"].take()
    net.run(2)
    assert ("joined", "t", "a") in net.heard["b"].take()
