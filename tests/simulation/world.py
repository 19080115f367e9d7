"""One run of the simulation: what happens to a cluster by chance, and what must hold all the same.

Strategy: a seed chooses how large the cluster is, which kinds of trouble it has (a run with few kinds goes deeper than
one with all), and then every single step. After some seconds of trouble everything is well again: within a bound
everybody must see the same, and the log too. Then somebody new comes to each document, all leave, and the nodes stop.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final
from unittest.mock import patch
from zlib import crc32

from collab.cluster.peers import GONE_SECONDS
from collab.telemetry import get_logger
from collab.telemetry.logs import RateLimited
from tests.simulation import checks
from tests.simulation.bus import BusNetwork
from tests.simulation.clients import Person, new_connection, state_of
from tests.simulation.loop import SimulatedLoop
from tests.simulation.node import Node, make_settings
from tests.simulation.sockets import Link
from tests.simulation.store import WatchedStorage

HEAL_SECONDS: Final = 30.0
"""Within these everybody sees the same, once nothing is wrong any more."""

SHAKE_SECONDS: Final = 5.0
"""Within these everybody sees the same, once no message between nodes is lost any more: two seconds until a hole is
seen at the latest, one until the node is asked that has left it, and what answers need."""

CROSS_SECONDS: Final = 1.0
"""Within these everybody sees the same, when all edit at once while nothing is lost. A row that comes too early waits
0.15 s for the one before it; the rest is for a read of a slow log. The look at all heads comes every ten seconds, so it
seldom mends within these what others have missed to mend."""

RENEW_SECONDS: Final = 5.0
"""Between two announcements of each client, when everything is well again. Stock clients take 15 s."""

SLOW_LATENCY: Final = 0.05
"""Seconds of one way to a storage that is far."""

_CROSSINGS: Final = 4
"""How often all edit in the same moment. With these, "skip the gap repair" is found in about every third run."""

MAX_TURNS: Final = 600_000
"""Rounds of a run; more say that something goes in a circle."""

KINDS: Final = (
    "lose",
    "double",
    "damage",
    "delay",
    "partition",
    "bus down",
    "store away",
    "store slow",
    "store fails",
    "crash",
    "stall",
    "restart",
    "offline",
    "vanish",
    "slow",
    "presence",
    "delete",
    "stateless",
    "die",
    "storm",
)


class Broken(Exception):
    """A promise was broken; the text says which."""


class World:
    """One run.

    Args:
        seed: decides everything.
        trace: called with a line for everything that happens.

    Attributes:
        held: what the log of each document holds.
        problems: which promises were broken.
        nodes: those that live, and those that wait to be started again as None.
        latency: how far the storage is.
        kinds: which kinds of trouble this run has.
    """

    def __init__(self, seed: int, trace: Callable[[str], object] | None = None) -> None:
        self.seed = seed
        self.random = Random(f"{seed} world")
        self.loop = SimulatedLoop(Random(f"{seed} loop"))
        self.storage = WatchedStorage(self._rows)
        self.held = self.storage.held
        self.problems: list[str] = []
        self._trace = trace
        self._hash = hashlib.blake2b(digest_size=16)
        random = self.random
        self.kinds = {kind for kind in KINDS if random.random() < 0.4}
        kind = random.random()
        self.network = BusNetwork(self.loop, Random(f"{seed} network"), streams=kind < 0.5, ordered=kind < 0.3)
        self._links = Random(f"{seed} links")
        self.settings = make_settings(random)
        self.nodes: list[Node | None] = [None] * random.choice((2, 2, 2, 3, 3, 4, 5))
        self.lives = 0
        self.latency = random.choice((0.002, 0.002, SLOW_LATENCY))
        self.documents = [f"doc{number}" for number in range(random.choice((1, 1, 2, 3)))]
        self.persons: list[Person] = []
        self._clients = 100
        self.gone: list[Person] = []
        self.calm = False
        self._calm_at = self._announced = 0.0
        self.ended = False
        self._said = 0
        for _ in range(random.randint(2, 7)):
            self.new_person()

    # What happens

    def event(self, *what: object) -> None:
        """Note what happens."""
        line = f"{self.loop.time():.6f} {' '.join(map(str, what))}"
        self._hash.update(line.encode())
        if self._trace is not None:
            self._trace(line)

    def fail(self, why: str) -> None:
        """Note that a promise was broken."""
        self.event("BROKEN", why)
        self.problems.append(why)

    def kept_beside(self, name: str) -> list[bytes]:
        """Give the updates that are kept beside the log of a document, and are durable like its rows."""
        loaded = self.storage.load(name)
        return [] if loaded is None else [update.data for update in loaded.pending]

    def _rows(self, name: str, number: int, data: bytes) -> None:
        self.event("row", name, number, crc32(data))

    @property
    def digest(self) -> str:
        """The hash of everything that has happened."""
        return self._hash.hexdigest()

    # Persons

    def new_person(self, document: str | None = None) -> Person:
        """Add somebody, who comes within a second."""
        self._clients += 1 + int(self.random.random() * 5)
        person = Person(self, self._clients, document or self.random.choice(self.documents), self.random.choice("yhh"))
        self.persons.append(person)
        if self.random.random() < 0.7:
            person.show(state_of(person, 0))
        self._come_later(person, 1.0)
        return person

    def _come_later(self, person: Person, most: float) -> None:
        self.loop.call_later(self.random.random() * most, self._come, person, context=self.loop.world.context)

    def _come(self, person: Person) -> None:
        if self.ended or not person.wanted or person.connection is not None:
            return
        nodes = [node for node in self.nodes if node is not None and node.up]
        if not nodes:
            self._come_later(person, 1.0)
            return
        node = self.random.choice(nodes)
        connection = person.connection = new_connection(person)
        link = Link(
            self.loop,
            self._links,
            node.process,
            connection,
            latency=self.random.choice((0.0005, 0.002, 0.02)),
            kernel=self.random.choice((0, 200, 100_000)),
            written=connection.written,
            address=person.address,
        )
        self.event("connect", person.name, person.document, node.label)
        node.accept(link)
        connection.begin(link)
        self.loop.call_later(6.0, self._give_up, connection, context=self.loop.world.context)

    def _give_up(self, connection: Any) -> None:
        if not connection.synced and not connection.over:
            connection.vanish()

    def left(self, person: Person) -> None:
        """Let a person come back, if it wants to."""
        if person.wanted and not self.ended:
            self._come_later(person, 0.5 if self.random.random() < 0.7 else 2.0)

    # Nodes

    def start_node(self, index: int) -> None:
        """Start a node in a place."""
        if self.ended or self.nodes[index] is not None:
            return
        self.lives += 1
        label = f"n{index}.{self.lives}"
        node = Node(
            self.loop, self.network, self.storage, label, self.settings, Random(f"{self.seed} node {self.lives}")
        )
        node.way.latency = self.latency
        self.nodes[index] = node
        self.event("start", label)
        node.start()

    def _later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        self.loop.call_later(seconds, call, *arguments, context=self.loop.world.context)

    def kill_node(self, index: int, again: float) -> None:
        """Kill a node, and start another one in its place later."""
        node = self.nodes[index]
        if node is not None:
            self.event("kill", node.label)
            node.die()
            self.nodes[index] = None
        self._later(again, self.start_node, index)

    def _look_at_nodes(self) -> None:
        """Start those again that have ended by themselves."""
        for index, node in enumerate(self.nodes):
            if node is not None and node.failed is not None:
                self.event("ended", node.label, node.failed)
                if node.unsaved and not node.way.away and not node.way.fails:
                    self.event("unsaved", node.label, node.unsaved)
                self.kill_node(index, 0.3)

    # The run

    def run(self) -> None:
        """Run from the beginning to the end.

        Raises:
            Broken: a promise was broken.
        """
        with self._sealed():
            try:
                self._begin()
                self._trouble()
                self._heal()
                self._shake()
                self._newcomers()
                self._leave()
                self._stop()
            finally:
                self.ended = True
                self.loop.clear()

    def _begin(self) -> None:
        self.event("seed", self.seed, len(self.nodes), self.documents, sorted(self.kinds))
        for index in range(len(self.nodes)):
            self.start_node(index)
        self._pass(1.0)

    def _pass(self, seconds: float) -> None:
        """Let time pass; look at everything that must always hold, four times a second."""
        end = self.loop.time() + seconds
        while self.loop.time() < end:
            self.loop.run_until(min(end, self.loop.time() + 0.25))
            self._look_at_nodes()
            for node in self.nodes:
                if node is not None and node.up:
                    checks.memory(self, node)
            self.problems += [f"an error that nobody takes: {error}" for error in self.loop.errors]
            self.loop.errors.clear()
            if self.loop.turns > MAX_TURNS:
                self.fail("it goes in a circle")
            if self.problems:
                raise Broken(self.problems[0])

    def _trouble(self) -> None:
        from tests.simulation.trouble import Trouble

        trouble = Trouble(self)
        end = self.loop.time() + self.random.uniform(3.0, 12.0)
        rate = self.random.choice((5.0, 15.0, 40.0))
        self._later(0.0, self._step, trouble, rate, end)
        self._pass(end - self.loop.time())
        trouble.end()

    def _step(self, trouble: Any, rate: float, end: float) -> None:
        if self.loop.time() < end and not self.problems:
            trouble.step()
            self._later(self.random.expovariate(rate), self._step, trouble, rate, end)

    def _heal(self) -> None:
        """Wait until everybody sees the same, and look whether it stays so."""
        self.calm = True
        self._calm_at = self.loop.time()
        self.event("calm")
        deadline = self.loop.time() + HEAL_SECONDS
        self._later(self.random.random() * RENEW_SECONDS, self._renew)
        looks = 0
        while looks < 3:
            wrong = checks.converged(self)
            looks = 0 if wrong else looks + 1
            if self.loop.time() >= deadline and wrong:
                self.fail(f"after {HEAL_SECONDS:g} s without trouble: {wrong}")
                raise Broken(self.problems[0])
            self._pass(0.5)
        self.event("converged")

    def _renew(self) -> None:
        """Let everybody announce itself anew.

        Clients do that every 15 s. One that has come back sees others by it that have been idle on another node.
        """
        if not self.ended:
            if self.loop.time() >= self._announced:
                for person in self.persons:
                    person.renew()
            self._later(RENEW_SECONDS, self._renew)

    def _shake(self) -> None:
        """Lose and damage messages of the bus for a second, in which all edit, and somebody goes: it must heal fast.

        Without this, the look at all heads that comes every ten seconds would mend what others have missed to mend.
        """
        self._announced = self.loop.time() + 2 * SHAKE_SECONDS  # clients say nothing by themselves meanwhile
        faults = self.network.faults
        faults.lose, faults.damage = self.random.choice((0.0, 0.3, 0.6)), self.random.choice((0.0, 0.3))
        for person in self.persons:
            for _ in range(3):
                self._later(self.random.random(), person.type, 0, self.random.choice("XYZ"))
            self._later(self.random.random(), person.show, state_of(person, 1_000))
        for person in self.persons[1:]:
            if self.random.random() < 0.3:
                self._later(self.random.random(), self._go, person)
        self._pass(1.0)
        faults.lose = faults.damage = 0.0
        # Who came from a node that died is shown by its new node when the old one is known to be gone.
        settled = self._calm_at + GONE_SECONDS + 2.0 - self.loop.time()
        self._wait_for(max(SHAKE_SECONDS, settled), checks.converged, "messages between nodes were lost")
        self.event("shaken")
        self._cross()
        if self.random.random() < 0.5:
            self._part()
        if self.random.random() < 0.5:
            self._without_bus()

    def _cross(self) -> None:
        """Let everybody edit in the same moment, while nothing is lost: what nodes say of their rows crosses.

        The store answers in another order than it writes, so a node often hears of a row and not yet of the one before.
        """
        for node in self.nodes:
            if node is not None:
                node.way.latency = SLOW_LATENCY
        for _ in range(_CROSSINGS):
            for person in self.persons:
                self._later(self.random.random() * 0.02, person.type, 0, self.random.choice("RST"))
            self._pass(0.25)
            self._wait_for(CROSS_SECONDS - 0.25, checks.same, "everybody has edited at once")
        for node in self.nodes:
            if node is not None:
                node.way.latency = self.latency
        self.event("crossed")

    def _part(self) -> None:
        """Let everybody whom a node has in a document go, while no other node hears that one.

        By the time it is heard again it has forgotten the document, so it says nothing of it any more.
        """
        leaving = self._people_of_a_node()
        if leaving is None:
            return
        node, persons = leaving
        self._announced = self.loop.time() + 2 * SHAKE_SECONDS
        unheard = {(node.label, other.label) for other in self.nodes if other is not None and other is not node}
        self.event("parts", node.label, *[person.name for person in persons])
        self.network.cut |= unheard
        for person in persons:
            self._go(person)
        self._pass(1.5)
        self.network.cut -= unheard
        self._wait_for(SHAKE_SECONDS, checks.converged, "a node was left while nobody heard it")
        self.event("parted")

    def _people_of_a_node(self) -> tuple[Node, list[Person]] | None:
        """Choose a document that people have open on several nodes, and those of one node; None if there is none."""
        found = []
        for name in self.documents:
            here = [person for person in self.persons if person.document == name]
            for node in self.nodes:
                if node is not None:
                    persons = [person for person in here if person.connection and person.connection.link in node.links]
                    if 0 < len(persons) < len(here):
                        found.append((node, persons))
        return self.random.choice(found) if found else None

    def _without_bus(self) -> None:
        """Let everybody edit without a bus: the log is looked at once a second."""
        self.network.break_down()
        for person in self.persons:
            self._later(self.random.random(), person.type, 0, self.random.choice("UVW"))
        self._pass(1.0)
        self._wait_for(2.5, checks.same, "the bus is down")
        self.network.down = False
        self._wait_for(3 * SHAKE_SECONDS, checks.connected, "the bus is up again")

    def _wait_for(self, seconds: float, check: Callable[[World], str | None], what: str) -> None:
        end = self.loop.time() + seconds
        while (wrong := check(self)) is not None and self.loop.time() < end:
            self._pass(0.5)
        if wrong is not None:
            self.fail(f"{max(0.0, seconds):.1f} s after {what}: {wrong}")
            raise Broken(self.problems[0])

    def _go(self, person: Person) -> None:
        """Let somebody go for good."""
        self.persons.remove(person)
        self.gone.append(person)
        person.wanted = False
        if person.connection is not None:
            person.connection.leave()

    def _newcomers(self) -> None:
        """Let somebody new come to each document: soon they see all."""
        for document in self.documents:
            person = self.new_person(document)
            self._come(person)
        self._pass(1.5)
        self._wait_for(self._calm_at + GONE_SECONDS + 2.0 - self.loop.time(), checks.converged, "somebody new has come")

    def _leave(self) -> None:
        """Let everybody go: their documents leave memory."""
        for person in self.persons:
            person.wanted = False
            if person.connection is not None:
                person.connection.leave()
        # The server may have closed a socket that is half open just now; it is cut five seconds after that.
        self._pass(self.settings.idle_seconds + 6.0)
        for node in self.nodes:
            if node is not None and node.up:
                checks.unloaded(self, node)
        checks.log(self)
        if self.problems:
            raise Broken(self.problems[0])

    def _stop(self) -> None:
        for node in self.nodes:
            if node is not None and node.up:
                node.stop()
        self._pass(1.0)
        checks.log(self)
        if self.problems:
            raise Broken(self.problems[0])

    @contextmanager
    def _sealed(self) -> Iterator[None]:
        """Take away what comes from outside: real time in costs and in the log, and what is logged as a defect."""
        costs = Random(f"{self.seed} costs")
        spent = 0.0

        def cost() -> float:
            # Each look at this clock says that work has taken a little, and now and then a lot.
            nonlocal spent
            chance = costs.random()
            spent += chance * 0.00005 if chance < 0.995 else 0.02
            return self.loop.time() + spent

        logger, handler = get_logger(), _Defects(self)
        level, propagate, handlers = logger.level, logger.propagate, logger.handlers[:]
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO if self._trace is not None else logging.ERROR)
        logger.propagate = False
        try:
            with (
                patch("collab.hub.slices.perf_counter", cost),
                patch("collab.transports.sockets.connection.perf_counter", cost),
                patch.object(RateLimited, "log", _log_all),
                patch("collab.telemetry.loop_lag.PAUSE", 5.0),  # nobody looks at how late a virtual loop is
            ):
                yield
        finally:
            logger.setLevel(level)
            logger.propagate = propagate
            logger.handlers[:] = handlers


def _log_all(
    limited: RateLimited,
    level: int,
    kind: str,
    message: str,
    *args: object,
    to: Any = None,
    exc_info: Any = None,
    extra: Any = None,
) -> bool:
    logger = limited._logger if to is None else to
    if not logger.isEnabledFor(level):
        return False
    logger.log(level, message, *args, exc_info=exc_info)
    return True


class _Defects(logging.Handler):
    """Takes what is logged with a traceback, which is always a defect."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line."""
        world = self._world
        if world._trace is not None:
            world._trace(f"{world.loop.time():.6f} log {record.levelname} {record.name} {record.getMessage()}")
        if record.levelno >= logging.ERROR and record.exc_info and not world.ended:
            error = record.exc_info[1]
            world.fail(f"logged: {record.getMessage()}: {error!r}")
            if world._trace is not None:
                world._trace(logging.Formatter().formatException(record.exc_info))
