"""What must hold: always, when everything is well again, and in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pycrdt import Doc, Text

from collab.update import decode_state_vector
from tests.simulation.clients import ROOT, HConnection, Person
from tests.simulation.store import Held

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

SLACK: Final = 64 * 1024
"""Bytes above a bound: messages that are taken whole."""


def memory(world: World, node: Node) -> None:
    """Look whether what a node holds is bounded."""
    hub = node.hub
    if hub.journal.backlog > node.settings.backlog_bytes + SLACK:
        world.fail(f"{node.label}: the journal holds {hub.journal.backlog} bytes")
    if len(hub.rooms) > len(world.documents):
        world.fail(f"{node.label}: {len(hub.rooms)} rooms for {len(world.documents)} documents")
    for live in hub.rooms.values():
        size = live.room.document.size
        for member in live.members:
            waiting = member.outbox.waiting()
            if waiting > member.outbox.mark + 4 * size + 16 * 1024:
                world.fail(f"{node.label}: {waiting} bytes wait for a client of a document of {size} bytes")
    if hub.bus.counts.published < 0:
        world.fail("a count ran backwards")


def read_log(world: World, name: str) -> Doc[Any]:
    """Make the document that the log holds."""
    doc: Doc[Any] = Doc()
    loaded = world.storage.load(name)
    if loaded is not None:
        if loaded.snapshot is not None:
            doc.apply_update(loaded.snapshot.data)
        for row in loaded.rows:
            doc.apply_update(row.data)
    return doc


def _text(doc: Doc[Any]) -> str:
    return str(doc.get(ROOT, type=Text))


def same(world: World) -> str | None:
    """Say who sees something else than the log; None if nobody does."""
    return next((wrong for name in world.documents if (wrong := _same(world, name)) is not None), None)


def converged(world: World) -> str | None:
    """Say what keeps the cluster from being whole; None if nothing does."""
    for node in world.nodes:
        if node is None or not node.up:
            return f"a node is not up: {node.failed if node else 'nobody has started it'}"
    for person in world.persons:
        if not person.online:
            return f"{person.name} is not online"
        if isinstance(person.connection, HConnection) and person.connection.owed:
            return f"{len(person.connection.owed)} updates of {person.name} are not acknowledged"
    if (wrong := same(world)) is not None:
        return wrong
    for name in world.documents:
        here = [person for person in world.persons if person.document == name]
        if (wrong := _presence(here)) is not None:
            return wrong
    return None


def connected(world: World) -> str | None:
    """Say what ``converged`` does, and who is not on the bus."""
    others = len(world.nodes) - 1
    off = [node.label for node in world.nodes if node is not None and (node.bus.trouble or node.bus.others < others)]
    return f"not on the bus: {off}" if off else converged(world)


def _same(world: World, name: str) -> str | None:
    log = read_log(world, name)
    text, vector = _text(log), decode_state_vector(log.get_state())
    for person in world.persons:
        if person.document != name:
            continue
        if person.content() != text:
            return f"{person.name} sees {person.content()!r} in {name}, the log holds {text!r}"
        if decode_state_vector(person.doc.get_state()) != vector:
            return f"{person.name} has other clocks of {name} than the log"
    return None


def _presence(here: list[Person]) -> str | None:
    shown = {}
    for person in here:
        own = person.presence.states.get(person.presence.client)
        if own is not None:
            shown[person.presence.client] = own
    for person in here:
        seen = person.presence.states
        if seen != shown:
            ghosts = {client: state for client, state in seen.items() if shown.get(client) != state}
            missing = sorted(shown.keys() - seen.keys())
            return f"{person.name} sees the ghosts {ghosts} and misses {missing} in {person.document}"
    return None


def unloaded(world: World, node: Node) -> None:
    """Look whether a node has let go of what nobody has open."""
    for name, live in node.hub.rooms.items():
        if live.room.sessions:
            world.fail(f"{node.label} counts {len(live.room.sessions)} sessions in {name}, and nobody is there")
        else:
            world.fail(f"{node.label} keeps {name} in memory, which nobody has open")


def log(world: World) -> None:
    """Look whether everything that was acknowledged is in the log, and the log is what all rows make."""
    for name in world.documents:
        held = Held()
        held.add(read_log(world, name).get_update())
        for person in (*world.persons, *world.gone):
            if person.document == name and not person.acked <= held:
                world.fail(f"acknowledged to {person.name} and not in the log of {name}: {held.lacks(person.acked)}")
        written = world.held.get(name)
        if written is not None and not written <= held:
            world.fail(f"was written and is not in the log of {name} any more: {held.lacks(written)}")
