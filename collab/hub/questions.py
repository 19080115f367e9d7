"""Asking all nodes what each of them alone knows, and answering when one asks.

Strategy: a question goes to the topic of all nodes and says who asks; each node answers on the asker's own topic. The
asker waits until all have answered, for ``ANSWER_SECONDS`` at most, and says which nodes were silent: those that live,
by their heartbeats, and have said nothing. So an answer is never taken for complete that is not. Nothing is kept, and
nothing rests on it: messages of the bus may be lost.

What others can make a node do has bounds: the same question that is under way is not asked again, few are asked and
answered at a time, and an answer has ``MAX_ANSWER`` bytes at most.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from collab.cluster.bus import Bus, BusMessage
from collab.cluster.messages import QUESTIONS, Answer, Question, answers_topic, decode_node_message, encode_node_message
from collab.errors import DecodeError, Overloaded, StoreUnavailable, is_refusal
from collab.hub.tasks import Tasks
from collab.storage.membership import Node
from collab.telemetry import RateLimited, get_logger

_limited = RateLimited(get_logger("bus"))

ANSWER_SECONDS: Final = 1.0
"""Seconds for which the answers of other nodes are waited for."""

MAX_ANSWER: Final = 256 * 1024
"""Bytes of an answer on the bus."""

FRESH: Final = 0.9
"""Seconds for which answers are good enough to be given again, where several pages ask each second."""

FULL: Final = MAX_ANSWER - 8 * 1024
"""Bytes of JSON of the list in an answer; what stands around it has the rest."""

# Questions of this node at a time, and those that wait for their turn; questions of others that are answered at a time.
_ASKING = 4
_WAITING = 64
_ANSWERING = 16

# Answers that are given again while they are fresh; each may have a MiB.
_RECENT = 8

# Seconds for the store to say which nodes live; the last heartbeat says it else.
_STORE_SECONDS = 0.5

Facts = dict[str, Any]
"""A JSON object."""

_Read = TypeVar("_Read")


class Answers(NamedTuple):
    """What the nodes say: an object of each by its name, this one included; ``silent`` live and have said nothing."""

    said: Mapping[str, Facts]
    silent: tuple[str, ...]

    def read(self, read: Callable[[str, Facts], _Read]) -> tuple[dict[str, _Read], tuple[str, ...]]:
        """Read what each node has said, in the order of their names; give the silent ones too.

        ``read`` takes a node and its answer. It raises ``KeyError``, ``TypeError`` or ``ValueError`` where the answer
        has another form: that node is of another release, and counts as silent.
        """
        found: dict[str, _Read] = {}
        silent = [*self.silent]
        for node, said in sorted(self.said.items()):
            try:
                found[node] = read(node, said)
            except (KeyError, TypeError, ValueError):
                silent.append(node)
        return found, tuple(sorted(silent))


class AnswerList:
    """The list of an answer, of so many items and so many bytes of JSON at most; the first item always has a place.

    Args:
        limit: items.
        nbytes: of JSON; None for ``FULL``.

    Attributes:
        items: those that have a place.
        more: whether there are others.
    """

    def __init__(self, limit: int, nbytes: int | None = None) -> None:
        self._limit = limit
        self._left = FULL if nbytes is None else nbytes
        self.items: list[Facts] = []
        self.more = False

    def add(self, item: Facts) -> bool:
        """Add an item if there is a place for it; tell whether there was."""
        self._left -= len(json.dumps(item))
        if len(self.items) >= self._limit or (self._left < 0 and self.items):
            self.more = True
            return False
        self.items.append(item)
        return True

    def facts(self) -> Facts:
        """Give the answer."""
        return {"items": self.items, "more": self.more}


class _Asked:
    """A question of this node that waits for answers."""

    def __init__(self) -> None:
        self.said: dict[str, Facts] = {}
        self.senders: set[str] = set()
        self.changed = asyncio.Event()


class Questions:
    """The questions and answers of one node.

    Args:
        bus: started and closed by others.
        name: of this node, as its heartbeats have it.
        alive: gives the nodes that live; raises ``StoreUnavailable``.
        known: gives those of the last heartbeat.
        tasks: the hub's own.
        answer: answers a question for this node; None to one that it does not know.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        alive: Callable[[], Awaitable[list[Node]]],
        known: Callable[[], list[Node]],
        tasks: Tasks,
        answer: Callable[[Facts], Awaitable[Facts | None]],
    ) -> None:
        self._bus = bus
        self._name = name
        self._alive = alive
        self._known = known
        self._tasks = tasks
        self._answer = answer
        self._topic = answers_topic(bus.node)
        self._numbers = itertools.count(1)
        self._open: dict[int, _Asked] = {}
        self._under_way: dict[str, asyncio.Task[Answers]] = {}
        self._recent: dict[str, tuple[float, Answers]] = {}
        self._places = asyncio.Semaphore(_ASKING)
        self._waiting = self._answering = 0

    def start(self) -> None:
        """Listen to questions and to answers; call it before the bus is started."""
        self._bus.subscribe(QUESTIONS)
        self._bus.subscribe(self._topic)

    # Asking

    async def ask(self, asked: Facts, *, fresh: float = 0.0) -> Answers:
        """Ask all nodes; the same question that is under way is not asked again.

        ``fresh``: answers that are so many seconds old are good enough, since many ask again and again.

        Raises:
            Overloaded: too many questions wait.
        """
        key, now = json.dumps(asked, sort_keys=True), asyncio.get_running_loop().time()
        if fresh and (known := self._recent.get(key)) is not None and now - known[0] < fresh:
            return known[1]
        answers = await self._ask_once(key, asked)
        if fresh:
            self._recent.pop(key, None)
            self._recent[key] = (now, answers)
            while len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
        return answers

    async def _ask_once(self, key: str, asked: Facts) -> Answers:
        task = self._under_way.get(key)
        if task is None:
            if self._waiting >= _WAITING:
                raise Overloaded(f"{self._waiting} questions to other nodes wait", public="too much is asked at a time")
            task = self._under_way[key] = self._tasks.spawn(self._ask(asked), "asking other nodes", awaited=True)
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)

    async def _ask(self, asked: Facts) -> Answers:
        self._waiting += 1
        try:
            async with self._places:
                return await self._ask_now(asked)
        finally:
            self._waiting -= 1

    async def _ask_now(self, asked: Facts) -> Answers:
        number, found = next(self._numbers), _Asked()
        self._open[number] = found
        try:
            if self._bus.others:
                self._bus.publish(QUESTIONS, encode_node_message(Question(number, json.dumps(asked).encode())))
            (own, alive) = await asyncio.gather(self._answer(asked), self._others())
            await self._gather(found, alive)
        finally:
            del self._open[number]
        if own is not None:
            found.said[self._name] = own
        return Answers(found.said, tuple(sorted(alive - set(found.said))))

    async def _others(self) -> set[str]:
        """Give the names of the other nodes that live."""
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                nodes = await self._alive()
        except (StoreUnavailable, TimeoutError):
            nodes = self._known()
        return {node.name for node in nodes if node.alive and node.name != self._name}

    async def _gather(self, found: _Asked, alive: set[str]) -> None:
        """Wait for answers: of all that live, or of all that can be heard."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ANSWER_SECONDS
        while True:
            if alive <= set(found.said):
                return
            if self._bus.steady and self._bus.others <= len(found.senders):
                return  # the others are not on the bus, and will not answer
            found.changed.clear()
            try:
                async with asyncio.timeout_at(until):
                    await found.changed.wait()
            except TimeoutError:
                return

    # Answering

    def receive(self, heard: BusMessage) -> bool:
        """Take a message of another node, if it is a question or an answer; tell whether it was for this."""
        if heard.topic not in (QUESTIONS, self._topic):
            return False
        try:
            message = decode_node_message(heard.payload)
            if isinstance(message, Question) and heard.topic == QUESTIONS:
                self._asked_by(heard.sender, message)
            elif isinstance(message, Answer) and heard.topic == self._topic:
                self._answered_by(heard.sender, message)
        except DecodeError as error:
            _limited.warning("question", "a question or answer of the node %s is left out: %s", heard.sender, error)
        return True

    def _asked_by(self, sender: str, question: Question) -> None:
        if self._answering >= _ANSWERING:
            _limited.warning("questions", "questions of other nodes are left out: %d are answered", self._answering)
            return
        asked = _read(question.asked)
        self._answering += 1
        self._tasks.spawn(self._answer_to(sender, question.number, asked), "answering another node")

    async def _answer_to(self, sender: str, number: int, asked: Facts) -> None:
        try:
            said = await self._answer(asked)
            if said is None:
                return
            data = json.dumps({"node": self._name, "said": said}).encode()
            if len(data) > MAX_ANSWER:
                _limited.error("answer", "an answer of %d bytes to another node is left out", len(data))
                return
            self._bus.publish(answers_topic(sender), encode_node_message(Answer(number, data)))
        except Exception as error:
            if not is_refusal(error):
                raise
            _limited.warning("answer", "a question of the node %s is not answered: %s", sender, error)
        finally:
            self._answering -= 1

    def _answered_by(self, sender: str, answer: Answer) -> None:
        found = self._open.get(answer.number)
        if found is None:
            return  # it comes too late
        answered = _read(answer.said)
        node, said = answered.get("node"), answered.get("said")
        if not isinstance(node, str) or not isinstance(said, dict):
            raise DecodeError("an answer without a node")
        found.said[node] = said
        found.senders.add(sender)
        found.changed.set()


def _read(data: bytes) -> Facts:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise DecodeError("no JSON between nodes") from None
    if not isinstance(found, dict):
        raise DecodeError("no JSON object between nodes")
    return found
