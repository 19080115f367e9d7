"""The conformance suite of the bus: every promise of its port that can be seen from outside.

::

    class TestMyBus(BusConformance):
        @pytest.fixture
        def make_bus(self):
            return lambda: MyBus("redis://localhost")

The function is called once for each node that a test needs, up to three at a time, and all of them are to meet. The
suite starts and closes them. A bus may lose messages; this suite expects that one with little to do loses none, but
where it is flooded. Where it waits for something it waits for ``PATIENCE``; an adapter that needs its time to miss a
node, or to connect, can set more.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

import pytest
import pytest_asyncio

from collab.cluster.bus import Bus, BusMessage

MakeBus = Callable[[], Bus]

FLOOD = 20_000
"""Messages that are published within one turn of the loop, to see what a bus does that cannot carry them."""

TOPICS = [
    *("a", "A", "a ", " a", "a/b", "a*", "*", "?", "[a]", "%", "a%", "a_", "#", ">", "+", "$SYS", "'; --", '"'),
    *("ä", "a\u0308", "a\0", "a\0b", "😀", "notes", "notes.a", "notes:a", "x" * 511 + "y", "x" * 511 + "z"),
]
"""Names of documents, which have up to 512 bytes: what is a pattern, a quote or an end somewhere is none here."""

_MARK = b"\0mark "


class Listener:
    """One node: a bus, and all that it has called back with, in order.

    Attributes:
        heard: messages, and the names of nodes that have gone.
        met: topics and nodes that were called ``joined``.
        parted: topics and nodes that were called ``left``.
        lost: how often ``missed`` was called.
        faults: what was wrong with the callbacks themselves.
        answering: called with each message, from within the callback.
    """

    def __init__(self, bus: Bus, patience: float, calls: list[str]) -> None:
        self.bus = bus
        self.heard: list[BusMessage | str] = []
        self.met: list[tuple[str, str]] = []
        self.parted: list[tuple[str, str]] = []
        self.lost = 0
        self.faults: list[str] = []
        self.answering: Callable[[BusMessage], None] | None = None
        self._patience = patience
        self._calls = calls
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    async def start(self) -> Self:
        """Start the bus."""
        await self.bus.start(self)
        return self

    async def close(self) -> None:
        """Close the bus; from the return on nothing may be heard."""
        await self.bus.close()
        self._closed = True

    def publish(self, topic: str, *payloads: bytes) -> None:
        """Publish messages within this turn of the loop."""
        self._call(*((self.bus.publish, topic, payload) for payload in payloads))

    def subscribe(self, *topics: str) -> None:
        """Subscribe to topics."""
        self._call(*((self.bus.subscribe, topic) for topic in topics))

    def unsubscribe(self, *topics: str) -> None:
        """End subscriptions."""
        self._call(*((self.bus.unsubscribe, topic) for topic in topics))

    def payloads(self, sender: str | None = None) -> list[bytes]:
        """Give what was heard, of one sender if wanted, without the marks of ``until_heard``."""
        return [one.payload for one in messages(self) if sender is None or one.sender == sender]

    def all_gone(self) -> list[str]:
        """Give the names of nodes that have gone, as often as that was said."""
        return [one for one in self.heard if isinstance(one, str)]

    async def until(self, fact: Callable[[], object], what: str) -> None:
        """Wait until a fact is true."""
        try:
            async with asyncio.timeout(self._patience):
                while not fact():
                    self._changed.clear()
                    # Not every fact comes with a callback.
                    await asyncio.wait([asyncio.ensure_future(self._changed.wait())], timeout=0.02)
        except TimeoutError:
            raise AssertionError(f"{what}: not within {self._patience:g} s; heard {str(self.heard)[-400:]}") from None
        self.check()

    async def until_others(self, count: int) -> None:
        """Wait until the bus knows of so many other nodes."""
        await self.until(lambda: self.bus.others == count, f"{count} others")

    async def until_met(self, topic: str, other: Listener) -> None:
        """Wait until this node was asked to tell another one what it holds of a topic."""
        await self.until(lambda: (topic, other.bus.node) in self.met, f"joined({topic!r})")

    def check(self) -> None:
        """Raise what was wrong with the callbacks."""
        assert not self.faults, self.faults[:5]

    def _call(self, *calls: tuple[Callable[..., None], *tuple[object, ...]]) -> None:
        for method, *arguments in calls:
            self._calls.append(method.__name__)
            try:
                method(*arguments)
            finally:
                self._calls.pop()

    def receive(self, message: BusMessage) -> None:
        """Note a message, as the bus calls it."""
        self.heard.append(message)
        self._check_call()
        if self.answering is not None and not message.payload.startswith(_MARK):
            self.answering(message)

    def left(self, topic: str, node: str) -> None:
        """Note that a node has left a topic."""
        self.parted.append((topic, node))
        self._check_call()

    def gone(self, node: str) -> None:
        """Note that a node has gone."""
        self.heard.append(node)
        self._check_call()

    def joined(self, topic: str, node: str) -> None:
        """Note that a node has come to a topic."""
        self.met.append((topic, node))
        self._check_call()

    def missed(self) -> None:
        """Note that something may be lost, which it may at any time."""
        self.lost += 1
        self._check_call()

    def _check_call(self) -> None:
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if not here:
            self.faults.append("a callback did not come on the loop that called start")
        if self._calls:
            self.faults.append(f"a callback came from within a call of {self._calls[-1]}")
        if self._closed:
            self.faults.append("a callback came after close had returned")
        if here:
            self._changed.set()


class Cluster:
    """The nodes of one test; an async context manager, which closes them at the end."""

    def __init__(self, make_bus: MakeBus, patience: float) -> None:
        self._make_bus = make_bus
        self._patience = patience
        self._marks = itertools.count(1)
        self._calls: list[str] = []  # of all nodes: those of one process are not to call each other back either
        self.nodes: list[Listener] = []

    def make(self) -> Listener:
        """Make one more node, not started yet."""
        node = Listener(self._make_bus(), self._patience, self._calls)
        self.nodes.append(node)
        return node

    async def start(self, *topics: str) -> Listener:
        """Start one more node, subscribed to these topics."""
        node = await self.make().start()
        node.subscribe(*topics)
        return node

    async def until_heard(self, sender: Listener, *listeners: Listener, topic: str) -> None:
        """Publish marks until each listener has heard one: it hears the sender now, and all that came before."""
        first = next(self._marks)
        for listener in listeners:
            since = len(listener.heard)

            def heard(listener: Listener = listener, since: int = since) -> bool:
                return any(
                    isinstance(one, BusMessage)
                    and one.sender == sender.bus.node
                    and one.payload.startswith(_MARK)
                    and int(one.payload[len(_MARK) :]) >= first
                    for one in listener.heard[since:]
                )

            async with asyncio.timeout(self._patience):
                while not heard():
                    sender.publish(topic, _MARK + b"%d" % next(self._marks))
                    await asyncio.sleep(0.01)
            listener.check()

    async def meet(self, topic: str) -> None:
        """Return when all nodes, which must have subscribed to ``topic``, hear each other."""
        for sender in self.nodes:
            await self.until_heard(sender, *(node for node in self.nodes if node is not sender), topic=topic)

    async def __aenter__(self) -> Self:
        """Begin without nodes."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all nodes."""
        for node in self.nodes:
            await node.close()


class BusConformance:
    """Test a bus; derive from this class and override the fixture ``make_bus``."""

    pytestmark = pytest.mark.asyncio

    PATIENCE = 20.0
    """Seconds within which what must come has come."""

    QUIET = 0.05
    """Seconds for which is waited for what must not come, when everything that was to come before it has come."""

    @pytest.fixture
    def make_bus(self) -> MakeBus:
        """Give a function that makes one more bus, not started yet; all that it makes are of one cluster."""
        raise NotImplementedError("a suite needs a fixture make_bus")

    @pytest_asyncio.fixture
    async def cluster(self, make_bus: MakeBus) -> AsyncIterator[Cluster]:
        """A cluster without nodes."""
        async with Cluster(make_bus, self.PATIENCE) as cluster:
            yield cluster

    # Nodes.

    async def test_names_are_unique_and_never_come_back(self, cluster: Cluster) -> None:
        nodes = [await cluster.start() for _ in range(3)]
        names = [node.bus.node for node in nodes]
        assert len(set(names)) == 3 and all(names)
        await nodes[0].close()
        again = await cluster.start()
        assert again.bus.node not in names
        assert [node.bus.node for node in nodes[1:]] == names[1:], "a node keeps its name"

    async def test_a_node_knows_how_many_others_there_are(self, cluster: Cluster) -> None:
        one = await cluster.start()
        await one.until_others(0)
        two = await cluster.start()
        for node in (one, two):
            await node.until_others(1)
        three = await cluster.start()
        for node in (one, two, three):
            await node.until_others(2)
        await two.close()
        for node in (one, three):
            await node.until_others(1)

    async def test_nodes_that_share_a_topic_are_called_to_tell_each_other(self, cluster: Cluster) -> None:
        one, two = await cluster.start("before", "both"), await cluster.start("both")
        await one.until_met("both", two)
        await two.until_met("both", one)
        two.subscribe("before", "after")
        await one.until_met("before", two)
        await two.until_met("before", one)
        assert not [topic for topic, _ in one.met + two.met if topic == "after"]
        # It has left, and comes again: what was said meanwhile is not known to it.
        two.unsubscribe("both")
        await one.until(lambda: not one.bus.wanted("both"), "it has left")
        one.met.clear()
        two.met.clear()
        two.subscribe("both")
        await one.until_met("both", two)
        await two.until_met("both", one)
        assert {topic for topic, _ in one.met + two.met} == {"both"}

    async def test_a_node_hears_who_leaves_a_topic_that_it_has(self, cluster: Cluster) -> None:
        one, two = await cluster.start("one", "both"), await cluster.start("both", "two")
        await one.until_met("both", two)
        await two.until_met("both", one)
        one.parted.clear()
        two.unsubscribe("both", "two")
        await one.until(lambda: ("both", two.bus.node) in one.parted, "it has left")
        assert {topic for topic, _ in one.parted} == {"both"} and ("both", one.bus.node) not in two.parted

    async def test_a_node_knows_what_others_want(self, cluster: Cluster) -> None:
        one, two = await cluster.start("one", "both"), await cluster.start("both", "two")
        await one.until_met("both", two)
        await two.until_met("both", one)
        for node in (one, two):
            await node.until(lambda node=node: node.bus.wanted("both"), "it is wanted")  # type: ignore[misc]
        assert one.bus.wanted("two") and two.bus.wanted("one")
        await one.until(lambda: not one.bus.wanted("one"), "nobody else has it")
        await two.until(lambda: not two.bus.wanted("two"), "nobody else has it")
        await two.close()
        await one.until(lambda: not one.bus.wanted("both"), "who wanted it has gone")

    async def test_a_node_that_closes_is_gone_once_and_after_its_last_message(self, cluster: Cluster) -> None:
        one, two, three = [await cluster.start("t") for _ in range(3)]
        await cluster.meet("t")
        name, last = one.bus.node, numbered(50)
        one.publish("t", *last)
        await one.close()
        for node in (two, three):
            await node.until(node.all_gone, "the end of the node")
        two.publish("t", b"on")
        await cluster.until_heard(two, three, topic="t")
        await cluster.until_heard(three, two, topic="t")
        await asyncio.sleep(self.QUIET)
        for node in (two, three):
            assert node.all_gone() == [name]
            end = node.heard.index(name)
            assert not [one for one in node.heard[end:] if isinstance(one, BusMessage) and one.sender == name]
            # What waits at the end may be lost; what comes is no exception to the order.
            assert_once_in_order(node.payloads(sender=name), last)
            node.check()
        assert three.payloads(sender=two.bus.node) == [b"on"]

    async def test_closing_is_harmless_without_a_start_and_when_done_again(self, cluster: Cluster) -> None:
        never = cluster.make()
        for _ in range(2):
            await never.close()
        cluster.nodes.remove(never)  # it does not meet the others
        other, node = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        name = node.bus.node
        for _ in range(3):
            await node.close()
        await other.until(other.all_gone, "the end of the node")
        await asyncio.sleep(self.QUIET)
        assert other.all_gone() == [name]

    async def test_a_closed_node_says_and_hears_nothing(self, cluster: Cluster) -> None:
        one, two, three = [await cluster.start("t") for _ in range(3)]
        await cluster.meet("t")
        two.publish("t", *numbered(50))
        await one.close()
        heard = len(one.heard)
        one.publish("t", b"late")
        one.subscribe("other")
        one.unsubscribe("t")
        one.publish("other", b"late")
        two.publish("t", b"on")
        await cluster.until_heard(two, three, topic="t")
        await asyncio.sleep(self.QUIET)
        assert len(one.heard) == heard and not one.faults
        assert b"late" not in two.payloads() + three.payloads()

    # Messages.

    async def test_a_message_reaches_each_other_subscriber_once_and_as_it_is(self, cluster: Cluster) -> None:
        sender, *others = [await cluster.start("t") for _ in range(3)]
        await cluster.meet("t")
        payloads = [b"", b"\0", bytes(range(256)), "ä😀".encode(), b"same", b"same", b"x" * 100_000]
        sender.publish("t", *payloads)
        for node in others:
            await cluster.until_heard(sender, node, topic="t")
            assert node.payloads() == payloads
            assert {(one.topic, one.sender) for one in node.heard if isinstance(one, BusMessage)} == {
                ("t", other.bus.node) for other in cluster.nodes if other is not node
            }

    async def test_a_message_never_comes_back_to_its_sender(self, cluster: Cluster) -> None:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        one.publish("t", *numbered(10))
        await cluster.until_heard(one, two, topic="t")
        await cluster.until_heard(two, one, topic="t")
        await asyncio.sleep(self.QUIET)
        assert two.payloads() == numbered(10)
        assert one.payloads() == []
        assert {heard.sender for heard in one.heard if isinstance(heard, BusMessage)} == {two.bus.node}

    async def test_messages_of_one_sender_keep_their_order_within_a_topic(self, cluster: Cluster) -> None:
        topics = ("a", "b", "c")
        one, two, listener = [await cluster.start(*topics) for _ in range(3)]
        await cluster.meet("a")
        for number, payload in enumerate(numbered(300)):
            one.publish(topics[number % 3], payload)
            two.publish(topics[number % 2], payload)
            if number % 50 == 0:
                await asyncio.sleep(0)
        for sender, shared in ((one, 3), (two, 2)):
            for at, topic in enumerate(topics[:shared]):
                await cluster.until_heard(sender, listener, topic=topic)
                heard = [
                    message.payload
                    for message in messages(listener)
                    if (message.sender, message.topic) == (sender.bus.node, topic)
                ]
                assert heard == numbered(300)[at::shared]

    async def test_a_flood_may_be_lost_but_neither_raises_nor_ends_the_bus(self, cluster: Cluster) -> None:
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        sent = numbered(FLOOD)
        one.publish("t", *sent)
        await cluster.until_heard(one, two, topic="t")
        assert_once_in_order(two.payloads(), sent)
        one.publish("t", b"on")
        await cluster.until_heard(one, two, topic="t")
        assert two.payloads()[-1:] == [b"on"], "when the flood is over nothing is lost"

    # Topics.

    async def test_only_what_was_subscribed_to_is_heard_and_names_are_told_apart_by_their_bytes(
        self, cluster: Cluster
    ) -> None:
        topics = TOPICS
        sender = await cluster.start("all")
        even, odd = await cluster.start("all", *topics[::2]), await cluster.start("all", *topics[1::2])
        await cluster.start("all")
        await cluster.meet("all")
        # From now on, or a little later: until each subscription is there.
        for node, its in ((even, topics[::2]), (odd, topics[1::2])):
            for topic in its:
                await cluster.until_heard(sender, node, topic=topic)
        for topic in topics:
            sender.publish(topic, topic.encode())
        for node, its in ((even, topics[::2]), (odd, topics[1::2])):
            for topic in its:
                await cluster.until_heard(sender, node, topic=topic)
            heard = [(one.topic, one.payload.decode()) for one in messages(node)]
            assert sorted(heard) == sorted((topic, topic) for topic in its)
        assert messages(cluster.nodes[-1]) == []

    async def test_a_topic_that_was_left_is_heard_no_more(self, cluster: Cluster) -> None:
        one, two = [await cluster.start("t", "other") for _ in range(2)]
        await cluster.meet("t")
        await cluster.meet("other")
        two.subscribe("t")  # a second call changes nothing
        two.unsubscribe("never subscribed to")
        one.publish("t", b"once")
        await cluster.until_heard(one, two, topic="t")
        assert two.payloads() == [b"once"]
        one.publish("t", b"on its way")
        two.unsubscribe("t")
        before = two.payloads()
        one.publish("t", b"too late")
        await cluster.until_heard(one, two, topic="other")
        await asyncio.sleep(self.QUIET)
        assert two.payloads() == before, "nothing more, also of what was on its way"
        two.unsubscribe("t")
        two.subscribe("t")
        await cluster.until_heard(one, two, topic="t")
        one.publish("t", b"again")
        await cluster.until_heard(one, two, topic="t")
        assert two.payloads() == [*before, b"again"]

    # Callbacks.

    async def test_callbacks_come_on_the_loop_and_never_from_within_a_call(self, cluster: Cluster) -> None:
        """A room that is ending its turn must not be called back before it is done with it."""
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")
        for _ in range(5):
            one.publish("t", *numbered(3))
            two.publish("t", *numbered(3))
            one.unsubscribe("t")
            one.subscribe("t")
            await asyncio.sleep(0)
        await cluster.meet("t")
        third = await cluster.start("t")
        await third.close()
        for node in (one, two):
            node.check()

    async def test_a_callback_may_call_the_bus(self, cluster: Cluster) -> None:
        """Who is asked answers from within the callback, and begins and ends subscriptions there."""
        one, two = [await cluster.start("t") for _ in range(2)]
        await cluster.meet("t")

        def answer(message: BusMessage) -> None:
            two.subscribe("another")
            two.publish("t", b"answer to " + message.payload)
            two.unsubscribe("another")

        two.answering = answer
        one.publish("t", *numbered(10))
        await one.until(lambda: len(one.payloads()) >= 10, "ten answers")
        await cluster.until_heard(two, one, topic="t")
        assert one.payloads() == [b"answer to " + payload for payload in numbered(10)]
        two.check()


def messages(node: Listener) -> list[BusMessage]:
    """Give the messages that a node has heard, without marks."""
    return [one for one in node.heard if isinstance(one, BusMessage) and not one.payload.startswith(_MARK)]


def numbered(count: int) -> list[bytes]:
    """Make payloads that can be told apart."""
    return [b"%d" % number for number in range(count)]


def assert_once_in_order(received: Sequence[bytes], sent: Sequence[bytes]) -> None:
    """Check that what was received is some of what was sent, each at most once and in the same order."""
    left = iter(sent)
    for payload in received:
        assert any(payload == one for one in left), f"{payload!r} came twice, out of order, or from nowhere"
