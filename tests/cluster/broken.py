"""Buses that break one promise each: what the conformance suite must find.

Strategy: each is the bus of one process with one mistake that somebody could make on a real one, and names the tests
that find it. Together they name every test of the suite, so each of them can fail.
"""

from __future__ import annotations

import asyncio
import fnmatch
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from collab.cluster.bus import BusMessage
from collab.cluster.local import Came, LocalBus, LocalExchange, Waiting, Went
from collab.errors import CollabError

BROKEN: list[tuple[type[LocalBus], str]] = []
"""Each broken bus with a test that finds it."""

_Class = TypeVar("_Class", bound=type[LocalBus])


def found_by(*tests: str) -> Callable[[_Class], _Class]:
    """Note the tests of the suite that find a bus."""

    def note(cls: _Class) -> _Class:
        BROKEN.extend((cls, test) for test in tests)
        return cls

    return note


# Names and company.


@found_by("test_names_are_unique_and_never_come_back")
class NamedByTheHost(LocalBus):
    @property
    def node(self) -> str:
        return "host"


@found_by("test_names_are_unique_and_never_come_back")
class TakesTheNextFreeName(LocalBus):
    def __init__(self, exchange: LocalExchange) -> None:
        super().__init__(exchange)
        taken = set(exchange.nodes)
        self._node = next(name for name in map(str, range(10)) if name not in taken)


@found_by("test_a_node_knows_how_many_others_there_are")
class AlwaysAlone(LocalBus):
    others = 0  # type: ignore[assignment]


@found_by("test_a_node_knows_how_many_others_there_are")
class NeverAlone(LocalBus):
    others = 1  # type: ignore[assignment]


@found_by("test_a_node_knows_how_many_others_there_are")
class NeverAloneAgain(LocalBus):
    _most = 0

    @property
    def others(self) -> int:
        self._most = max(self._most, super().others)
        return self._most


@found_by("test_nodes_that_share_a_topic_are_called_to_tell_each_other")
class TellsOnlyWhoWasThere(LocalBus):
    """The one that comes has states too."""

    def _meet(self, topic: str) -> None:
        for other in self._exchange.nodes.values():
            if other is not self and topic in other._topics and self._node in self._exchange.nodes:
                other._put(Came(topic, self._node))


@found_by("test_nodes_that_share_a_topic_are_called_to_tell_each_other")
class TellsOnlyWhoComes(LocalBus):
    def _put(self, what: Waiting) -> None:
        if not isinstance(what, Came) or what.topic == "both":
            super()._put(what)


@found_by("test_nodes_that_share_a_topic_are_called_to_tell_each_other")
class TellsEverybodyOfEverything(LocalBus):
    def _meet(self, topic: str) -> None:
        super()._meet(topic)
        for other in self._exchange.nodes.values():
            if other is not self and topic not in other._topics:
                self._put(Came(topic, other._node))
                self._topics.add(topic)


@found_by("test_nodes_that_share_a_topic_are_called_to_tell_each_other")
class TellsOnce(LocalBus):
    """Who has been told is taken to know it for ever."""

    def __init__(self, exchange: LocalExchange) -> None:
        super().__init__(exchange)
        self._met: set[Came] = set()

    def _put(self, what: Waiting) -> None:
        if isinstance(what, Came):
            if what in self._met:
                return
            self._met.add(what)
        super()._put(what)


@found_by("test_a_node_knows_what_others_want")
class WantsEverything(LocalBus):
    def wanted(self, topic: str) -> bool:
        return True


@found_by("test_a_node_knows_what_others_want")
class WantsNothing(LocalBus):
    def wanted(self, topic: str) -> bool:
        return False


@found_by("test_a_node_knows_what_others_want")
class TakesItsOwnWishForAnothers(LocalBus):
    def wanted(self, topic: str) -> bool:
        return any(topic in other._topics for other in self._exchange.nodes.values())


@found_by("test_a_node_hears_who_leaves_a_topic_that_it_has")
class ForgetsWhoLeaves(LocalBus):
    def _put(self, what: Waiting) -> None:
        if not isinstance(what, Went):
            super()._put(what)


# The end of a node.


@found_by("test_a_node_that_closes_is_gone_once_and_after_its_last_message")
class ForgetsGone(LocalBus):
    async def close(self) -> None:
        self._exchange.nodes.pop(self._node, None)
        await super().close()


@found_by(
    "test_a_node_that_closes_is_gone_once_and_after_its_last_message",
    "test_closing_is_harmless_without_a_start_and_when_done_again",
)
class TellsGoneEachTimeItCloses(LocalBus):
    async def close(self) -> None:
        for other in self._exchange.nodes.values():
            if other is not self:
                other._put(self._node)
        await super().close()


@found_by("test_a_node_that_closes_is_gone_once_and_after_its_last_message")
class TellsGoneFirst(LocalBus):
    """Who has left is heard of on another connection."""

    def _put(self, what: Waiting) -> None:
        super()._put(what)
        if isinstance(what, str):
            self._waiting.rotate(1)


@found_by("test_a_node_that_closes_is_gone_once_and_after_its_last_message")
class TellsAnotherName(LocalBus):
    def _put(self, what: Waiting) -> None:
        super()._put(f"node {what}" if isinstance(what, str) else what)


@found_by("test_closing_is_harmless_without_a_start_and_when_done_again")
class ClosesOnce(LocalBus):
    _closed = False

    async def close(self) -> None:
        if self._closed:
            raise CollabError("closed already")
        self._closed = True
        await super().close()


@found_by("test_closing_is_harmless_without_a_start_and_when_done_again")
class ClosesOnlyWhatWasStarted(LocalBus):
    _closed = False

    async def close(self) -> None:
        if self._listener is None and not self._closed:
            raise CollabError("not started")
        self._closed = True
        await super().close()


@found_by("test_a_closed_node_says_and_hears_nothing")
class HandsOverAfterClose(LocalBus):
    async def close(self) -> None:
        left, listener = list(self._waiting), self._listener
        await super().close()
        for what in left:
            if listener is not None and isinstance(what, BusMessage):
                asyncio.get_running_loop().call_soon(listener.receive, what)


@found_by("test_a_closed_node_says_and_hears_nothing")
class PublishesAfterClose(LocalBus):
    def publish(self, topic: str, payload: bytes) -> None:
        for other in self._exchange.nodes.values():
            if other is not self and topic in other._topics:
                other._put(BusMessage(topic, self._node, payload))


@found_by("test_a_closed_node_says_and_hears_nothing")
class RaisesAfterClose(LocalBus):
    def publish(self, topic: str, payload: bytes) -> None:
        if self._listener is None:
            raise CollabError("closed")
        super().publish(topic, payload)


# Messages.


@found_by("test_a_message_never_comes_back_to_its_sender")
class EchoesToTheSender(LocalBus):
    def publish(self, topic: str, payload: bytes) -> None:
        super().publish(topic, payload)
        if topic in self._topics and self._listener is not None:
            self._put(BusMessage(topic, self._node, payload))


@found_by(
    "test_a_message_reaches_each_other_subscriber_once_and_as_it_is",
    "test_a_flood_may_be_lost_but_neither_raises_nor_ends_the_bus",
)
class DeliversTwice(LocalBus):
    def publish(self, topic: str, payload: bytes) -> None:
        super().publish(topic, payload)
        super().publish(topic, payload)


@found_by("test_a_message_reaches_each_other_subscriber_once_and_as_it_is")
class DeliversToOne(LocalBus):
    """A queue that all read from."""

    def publish(self, topic: str, payload: bytes) -> None:
        for other in self._exchange.nodes.values():
            if other is not self and topic in other._topics:
                other._put(BusMessage(topic, self._node, payload))
                return


@found_by("test_a_message_reaches_each_other_subscriber_once_and_as_it_is")
class DropsWhatItHasJustSent(LocalBus):
    _last = b"none"

    def publish(self, topic: str, payload: bytes) -> None:
        if payload != self._last:
            super().publish(topic, payload)
        self._last = payload


@found_by("test_a_message_reaches_each_other_subscriber_once_and_as_it_is")
class CarriesText(LocalBus):
    def publish(self, topic: str, payload: bytes) -> None:
        super().publish(topic, payload.decode(errors="replace").encode())


@found_by("test_a_message_reaches_each_other_subscriber_once_and_as_it_is")
class CarriesEightKilobytes(LocalBus):
    """NOTIFY of PostgreSQL takes no more."""

    def publish(self, topic: str, payload: bytes) -> None:
        if len(payload) < 8_000:
            super().publish(topic, payload)


@found_by("test_a_message_reaches_each_other_subscriber_once_and_as_it_is")
class ForgetsTheSender(LocalBus):
    def _hand_over(self) -> None:
        self._waiting = deque(
            what._replace(sender="somebody") if isinstance(what, BusMessage) else what for what in self._waiting
        )
        super()._hand_over()


@found_by(
    "test_messages_of_one_sender_keep_their_order_within_a_topic",
    "test_a_message_reaches_each_other_subscriber_once_and_as_it_is",
)
class Reorders(LocalBus):
    def _hand_over(self) -> None:
        self._waiting.reverse()
        super()._hand_over()


@found_by("test_a_flood_may_be_lost_but_neither_raises_nor_ends_the_bus")
class RaisesWhenFull(LocalBus):
    def _put(self, what: Waiting) -> None:
        if len(self._waiting) >= 1_000:
            raise CollabError("full")
        super()._put(what)


@found_by("test_a_flood_may_be_lost_but_neither_raises_nor_ends_the_bus")
class GivesUpWhenFull(LocalBus):
    def _put(self, what: Waiting) -> None:
        if not self.counts.dropped:
            super()._put(what)


@found_by("test_a_flood_may_be_lost_but_neither_raises_nor_ends_the_bus")
class KeepsTheNewestFirst(LocalBus):
    """What waits longest is dropped, and what is new overtakes it."""

    def _put(self, what: Waiting) -> None:
        super()._put(what)
        if len(self._waiting) > 1_000:
            self._waiting.rotate(1)


# Topics.

_TOPICS = "test_only_what_was_subscribed_to_is_heard_and_names_are_told_apart_by_their_bytes"


class _Routes(LocalBus):
    """A bus that asks ``matches`` which subscriptions a topic belongs to."""

    def matches(self, subscribed: str, topic: str) -> bool:
        raise NotImplementedError

    def publish(self, topic: str, payload: bytes) -> None:
        if self._node in self._exchange.nodes:
            for other in self._exchange.nodes.values():
                if other is not self and any(self.matches(subscribed, topic) for subscribed in other._topics):
                    other._put(BusMessage(topic, self._node, payload))

    def _hand_over(self) -> None:
        self._handle = None
        waiting, self._waiting = self._waiting, deque()
        for what in waiting:
            if self._listener is None:
                return
            if isinstance(what, str):
                self._listener.gone(what)
            elif isinstance(what, Came):
                self._listener.joined(what.topic, what.node)
            elif isinstance(what, Went):
                self._listener.left(what.topic, what.node)
            elif any(self.matches(subscribed, what.topic) for subscribed in self._topics):
                self._listener.receive(what)


@found_by(_TOPICS, "test_a_topic_that_was_left_is_heard_no_more")
class HearsEverything(_Routes):
    def matches(self, subscribed: str, topic: str) -> bool:
        return True


@found_by(_TOPICS)
class TakesPatterns(_Routes):
    """PSUBSCRIBE of Redis."""

    def matches(self, subscribed: str, topic: str) -> bool:
        return fnmatch.fnmatchcase(topic, subscribed)


@found_by(_TOPICS)
class CutsLongNames(_Routes):
    """Names of PostgreSQL end after 63 bytes."""

    def matches(self, subscribed: str, topic: str) -> bool:
        return subscribed.encode()[:63] == topic.encode()[:63]


@found_by(_TOPICS)
class FoldsCase(_Routes):
    def matches(self, subscribed: str, topic: str) -> bool:
        return subscribed.lower() == topic.lower()


@found_by(_TOPICS)
class TrimsNames(_Routes):
    def matches(self, subscribed: str, topic: str) -> bool:
        return subscribed.strip(" \0") == topic.strip(" \0")


@found_by(_TOPICS)
class SplitsNames(_Routes):
    """NATS and MQTT know levels: who subscribes to "notes" would hear "notes.a"."""

    def matches(self, subscribed: str, topic: str) -> bool:
        return topic == subscribed or topic.startswith((subscribed + ".", subscribed + ":"))


@found_by("test_a_topic_that_was_left_is_heard_no_more")
class NeverLeaves(LocalBus):
    def unsubscribe(self, topic: str) -> None:
        pass


@found_by("test_a_topic_that_was_left_is_heard_no_more")
class LeavesABitLater(LocalBus):
    """What is on its way is still handed over."""

    def unsubscribe(self, topic: str) -> None:
        asyncio.get_running_loop().call_later(0.02, super().unsubscribe, topic)


@found_by("test_a_topic_that_was_left_is_heard_no_more")
class CountsSubscriptions(LocalBus):
    """As many ends are needed as there were beginnings."""

    def __init__(self, exchange: LocalExchange) -> None:
        super().__init__(exchange)
        self._counts: dict[str, int] = {}

    def subscribe(self, topic: str) -> None:
        self._counts[topic] = self._counts.get(topic, 0) + 1
        super().subscribe(topic)

    def unsubscribe(self, topic: str) -> None:
        self._counts[topic] = self._counts.get(topic, 0) - 1
        if self._counts[topic] <= 0:
            super().unsubscribe(topic)


@found_by("test_a_topic_that_was_left_is_heard_no_more")
class RaisesForUnknownTopics(LocalBus):
    def unsubscribe(self, topic: str) -> None:
        if topic not in self._topics:
            raise CollabError("not subscribed")
        super().unsubscribe(topic)


@found_by("test_a_topic_that_was_left_is_heard_no_more")
class SubscribesOnce(LocalBus):
    """A topic that was left once cannot be had again."""

    def __init__(self, exchange: LocalExchange) -> None:
        super().__init__(exchange)
        self._left: set[str] = set()

    def subscribe(self, topic: str) -> None:
        if topic not in self._left:
            super().subscribe(topic)

    def unsubscribe(self, topic: str) -> None:
        self._left.add(topic)
        super().unsubscribe(topic)


# Callbacks.


@found_by("test_callbacks_come_on_the_loop_and_never_from_within_a_call")
class DeliversSynchronously(LocalBus):
    def _put(self, what: Waiting) -> None:
        self._waiting.append(what)
        self._hand_over()


@found_by("test_a_callback_may_call_the_bus")
class LocksWhileItCallsBack(LocalBus):
    """A lock that is held while callbacks run, and what is published meanwhile is lost."""

    _locked = False

    def publish(self, topic: str, payload: bytes) -> None:
        if not self._locked:
            super().publish(topic, payload)

    def _hand_over(self) -> None:
        self._locked = True
        try:
            super()._hand_over()
        finally:
            self._locked = False


@found_by("test_callbacks_come_on_the_loop_and_never_from_within_a_call")
class CallsFromAThread(LocalBus):
    def _put(self, what: Waiting) -> None:
        self._waiting.append(what)
        thread = threading.Thread(target=self._hand_over)
        thread.start()
        thread.join()
