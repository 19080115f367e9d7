"""What people do, and what goes wrong: one step at a time, chosen by the seed.

Strategy: every kind of trouble that a run has gets steps that begin and end it. ``end`` ends all of it.
"""

from __future__ import annotations

from random import Random
from string import ascii_lowercase
from typing import TYPE_CHECKING

from tests.simulation.clients import HConnection, Person, state_of

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World


class Trouble:
    """The steps of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random: Random = world.random
        self._numbers = 0
        kinds = world.kinds
        self._steps = [(self.edit, 60.0)]
        for kind, step, weight in (
            ("delete", self.delete, 15.0),
            ("presence", self.show, 15.0),
            ("stateless", self.say, 5.0),
            ("offline", self.go_offline, 4.0),
            ("vanish", self.vanish, 4.0),
            ("slow", self.read_slowly, 10.0),
            ("die", self.replace, 2.0),
            ("storm", self.storm, 2.0),
            ("crash", self.crash, 2.0),
            ("stall", self.stall, 2.0),
            ("restart", self.restart, 1.5),
            ("partition", self.partition, 2.0),
            ("bus down", self.bus_down, 1.5),
            ("store away", self.store_away, 2.0),
            ("store slow", self.store_slow, 2.0),
            ("store fails", self.store_fails, 2.0),
        ):
            if kind in kinds:
                self._steps.append((step, weight))
        self._weights = [weight for _, weight in self._steps]
        faults = world.network.faults
        faults.lose = self.random.choice((0.02, 0.2)) if "lose" in kinds else 0.0
        faults.double = 0.1 if "double" in kinds else 0.0
        faults.damage = self.random.choice((0.05, 0.3)) if "damage" in kinds else 0.0
        faults.delay = self.random.choice((0.02, 0.3)) if "delay" in kinds else 0.0

    def step(self) -> None:
        """Do one thing."""
        (step,) = self.random.choices([step for step, _ in self._steps], self._weights)
        step()

    def end(self) -> None:
        """Let everything be well again."""
        world = self.world
        faults = world.network.faults
        faults.lose = faults.double = faults.damage = faults.delay = 0.0
        world.network.down = False
        world.network.cut.clear()
        for node in world.nodes:
            if node is not None:
                node.way.away, node.way.slow, node.way.fails = False, 0.0, 0.0
                node.process.stalled_until = 0.0
        for person in world.persons:
            if person.connection is not None and person.connection.link is not None:
                person.connection.link.read_at(1e6)
            if not person.wanted:
                person.wanted = True
                world.left(person)

    def _later(self, most: float, call: object, *arguments: object) -> None:
        self.world._later(self.random.uniform(0.1, most), self._unless_calm, call, *arguments)

    def _unless_calm(self, call: object, *arguments: object) -> None:
        if not self.world.calm:
            call(*arguments)  # type: ignore[operator]

    # People

    def _person(self) -> Person:
        return self.random.choice(self.world.persons)

    def edit(self) -> None:
        """Type some letters."""
        person = self._person()
        size = self.random.choices((1, 2, 5, 30, 500), (50, 15, 10, 10, 4))[0]
        text = "".join(self.random.choices(ascii_lowercase, k=size))
        person.type(int(self.random.random() * (len(person.text) + 1)), text)

    def delete(self) -> None:
        """Delete some letters."""
        person = self._person()
        length = len(person.text)
        if length:
            begin = int(self.random.random() * length)
            person.delete(begin, min(length - begin, self.random.choice((1, 1, 3, 20))))

    def show(self) -> None:
        """Move a cursor, or hide it."""
        person = self._person()
        self._numbers += 1
        person.show(None if self.random.random() < 0.15 else state_of(person, self._numbers))

    def say(self) -> None:
        """Send a stateless message."""
        connection = self._person().connection
        if isinstance(connection, HConnection):
            self._numbers += 1
            connection.send_stateless(f"said {self._numbers}")

    def go_offline(self) -> None:
        """Close the connection, and come back later with what was edited meanwhile."""
        person = self._person()
        if person.wanted:
            person.wanted = False
            if person.connection is not None:
                person.connection.leave()
            self._later(6.0, self._come_back, person)

    def _come_back(self, person: Person) -> None:
        if person in self.world.persons and not person.wanted:
            person.wanted = True
            self.world.left(person)

    def vanish(self) -> None:
        """Lose the network; the node is not told, and the client comes back at once."""
        connection = self._person().connection
        if connection is not None:
            connection.vanish()

    def read_slowly(self) -> None:
        """Read slowly, or nothing, for a while."""
        person = self._person()
        if person.connection is not None and person.connection.link is not None:
            link = person.connection.link
            link.read_at(self.random.choice((0.0, 0.0, 50.0, 500.0)))
            self._later(8.0, link.read_at, 1e6)

    def replace(self) -> None:
        """Let somebody go for good, with all that only they have; somebody else comes."""
        world = self.world
        person = self._person()
        if len(world.persons) < 2:
            return
        person.wanted = False
        if person.connection is not None:
            if self.random.random() < 0.5:
                person.connection.vanish()
            else:
                person.connection.leave()
        world.event("gone for good", person.name)
        world.persons.remove(person)
        world.gone.append(person)
        world.new_person()

    def storm(self) -> None:
        """Type fast, in one document."""
        person = self._person()
        for _ in range(self.random.choice((10, 40))):
            person.type(0, self.random.choice(ascii_lowercase))

    # Nodes

    def _node(self) -> Node | None:
        return self.random.choice(self.world.nodes)

    def crash(self) -> None:
        """Kill a node."""
        index = int(self.random.random() * len(self.world.nodes))
        if self.world.nodes[index] is not None:
            self.world.kill_node(index, self.random.uniform(0.1, 4.0))

    def stall(self) -> None:
        """Let a node stand still."""
        node = self._node()
        if node is not None:
            seconds = self.random.choice((0.5, 3.0, 11.0)) * self.random.random()
            self.world.event("stall", node.label, f"{seconds:.3f}")
            self.world.loop.stall(node.process, seconds)

    def restart(self) -> None:
        """Stop a node politely; another one takes its place."""
        node = self._node()
        if node is not None and node.up:
            self.world.event("stop", node.label)
            node.stop()

    # Networks and the store

    def partition(self) -> None:
        """Cut nodes off from each other, in one direction or both."""
        nodes = [node for node in self.world.nodes if node is not None]
        if len(nodes) < 2:
            return
        first, second = self.random.sample(nodes, 2)
        cut = {(first.label, second.label)}
        if self.random.random() < 0.5:
            cut.add((second.label, first.label))
        if self.random.random() < 0.2:
            cut.add((first.label, first.label))
        self.world.event("cut", sorted(cut))
        self.world.network.cut |= cut
        self._later(12.0, self._join, cut)

    def _join(self, cut: set[tuple[str, str]]) -> None:
        self.world.network.cut -= cut

    def bus_down(self) -> None:
        """End all connections of the bus."""
        self.world.event("bus down")
        self.world.network.break_down()
        self._later(5.0, self._bus_up)

    def _bus_up(self) -> None:
        self.world.event("bus up")
        self.world.network.down = False

    def store_away(self) -> None:
        """Let a node not reach the store."""
        node = self._node()
        if node is not None:
            self.world.event("store away", node.label)
            node.way.away = True
            self._later(4.0, setattr, node.way, "away", False)

    def store_slow(self) -> None:
        """Let a node reach the store slowly."""
        node = self._node()
        if node is not None:
            node.way.slow = self.random.choice((0.05, 0.5))
            self._later(5.0, setattr, node.way, "slow", 0.0)

    def store_fails(self) -> None:
        """Let single calls of a node fail, done or not."""
        node = self._node()
        if node is not None:
            node.way.fails = self.random.choice((0.05, 0.3))
            self._later(5.0, setattr, node.way, "fails", 0.0)
