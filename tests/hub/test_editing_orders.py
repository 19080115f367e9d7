"""Edits over HTTP and typing in any order: compared with a model of what must be there, what may be, and what not.

Strategy: Hypothesis decides what happens next: two people type, their updates arrive late, PATCH and PUT are begun and
go on for some turns of the loop. Each letter that anybody writes is another one. So the model is sets of letters: those
that a PUT was to remove are gone; those that the server had not heard of when it was taken stay; and everybody shows
the same text in the end. Where a precondition names a state, the text is just what was put, in the step that takes it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Text

from collab.content.edits import Format, Replace, TextInsert
from collab.errors import ContentError, PreconditionFailed
from collab.hub.editing import Editing
from collab.hub.orders import ALWAYS, Precondition, Sender
from collab.hub.room import LiveRoom
from collab.protocol.sync import SyncUpdate
from collab.sandbox.inline import InlineSandbox
from tests.hub.conftest import Node
from tests.hub.test_editing import ANN, Edits, match
from tests.support.author import Author, content

# A letter has three bytes, by which pycrdt counts, and one unit, by which the API does.
FIRST, BYTES = 0x4E00, 3

PEOPLE = 2


class Person:
    """Somebody who types, whose updates wait until they are sent, and who reads now and then."""

    def __init__(self, node: Node, client: int) -> None:
        self._node = node
        self.author = Author(client)
        self.unsent: deque[tuple[str, bytes]] = deque()
        self._read = 0

    async def join(self) -> None:
        self.live, self.member, self.box = await self._node.join("d")

    def type(self, at: int, letter: str) -> None:
        text = self.author.text
        text.insert(min(at, len(str(text))) * BYTES, letter)
        self.unsent.append((letter, self.author.updates[-1]))

    def send(self) -> str:
        letter, update = self.unsent.popleft()
        self.live.receive(self.member, SyncUpdate(update))
        return letter

    def read(self) -> str:
        updates = self.box.updates()
        for update in updates[self._read :]:
            self.author.read(update)
        self._read = len(updates)
        return str(self.author.text)


@dataclass
class Model:
    """What the letters are that somebody has written.

    Attributes:
        written: all of them.
        heard: those that the server knows of.
        may_go: those that a PUT may have removed.
        puts: what each PUT was to remove, what it was to leave, and when it was begun and done.
    """

    written: set[str] = field(default_factory=set)
    heard: set[str] = field(default_factory=set)
    may_go: set[str] = field(default_factory=set)
    puts: list[tuple[set[str], set[str], int, int]] = field(default_factory=list)
    time: int = 0

    letters: int = 0

    def tick(self) -> int:
        self.time += 1
        return self.time

    def gone(self) -> set[str]:
        """Give the letters that a PUT has removed and no other one, begun before that was done, has put again."""
        return {
            letter
            for removed, _, begun, _ in self.puts
            for letter in removed
            if not any(letter in left for _, left, _, done in self.puts if done > begun)
        }

    def letter(self) -> str:
        letter = chr(FIRST + self.letters)
        self.letters += 1
        self.written.add(letter)
        return letter


class Checked(Editing):
    """Notes what the text is in the step that takes an edit with a precondition."""

    before = expected = ""
    exact = 0

    async def take(
        self,
        live: LiveRoom,
        update: bytes,
        sender: Sender,
        condition: Precondition,
        check: Callable[[], object] | None = None,
        client: int | None = None,
    ) -> Any:
        def look() -> None:
            if check is not None:
                check()
            if condition.exact:
                assert content(live.room.document.encode_state_as_update()) == self.before

        taken = await super().take(live, update, sender, condition, look, client)
        if condition.exact:
            assert content(live.room.document.encode_state_as_update()) == self.expected
            type(self).exact += 1
        return taken


Step = tuple[str, int, int]

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["type", "type", "send", "send", "read", "patch", "put", "exact", "turns", "turns"]),
        st.integers(0, PEOPLE - 1),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=30,
)


async def play(steps: list[Step]) -> None:
    node = Node(None, sandbox=InlineSandbox())
    await node.start()
    edits = Edits(node)
    edits.editing.__class__ = Checked
    people = [Person(node, client + 1) for client in range(PEOPLE)]
    for person in people:
        await person.join()
    live = people[0].live
    model = Model()
    first = model.letter()
    await edits.edit("d", TextInsert("t", 0, first), ANN)
    model.heard.add(first)
    running: list[asyncio.Task[None]] = []

    def text() -> str:
        return content(live.room.document.encode_state_as_update())

    async def patch(at: int, letter: str) -> None:
        try:
            await edits.edit("d", TextInsert("t", at, letter), ANN)
            model.heard.add(letter)
        except ContentError:
            model.written.discard(letter)
            assert at > 0, "only an offset behind the end is refused"

    async def put(before: str, value: str, condition: Precondition) -> None:
        begun = model.tick()
        try:
            await edits.edit("d", Replace("t", Format.TEXT, value), ANN, condition)
        except PreconditionFailed:
            assert condition is not ALWAYS
            model.written -= set(value) - set(before)  # nobody has got to see them
            return
        model.puts.append((set(before) - set(value), set(value), begun, model.tick()))
        model.may_go |= model.heard - set(value)
        model.heard |= set(value)

    for kind, who, number in steps:
        person = people[who]
        if kind == "type":
            person.type(number, model.letter())
        elif kind == "send" and person.unsent:
            model.heard.add(person.send())
        elif kind == "read":
            person.read()
        elif kind == "patch":
            running.append(asyncio.ensure_future(patch(number, model.letter())))
        elif kind in ("put", "exact"):
            live.end_turn(node.hub.now())
            before = text()
            kept = "".join(letter for at, letter in enumerate(before) if (at + number) % 3)
            value = kept[: number + 1] + model.letter() + kept[number + 1 :]
            if kind == "put":
                running.append(asyncio.ensure_future(put(before, value, ALWAYS)))
            else:
                # One at a time, for the check has to know which it is.
                edits.editing.before, edits.editing.expected = before, value
                work = asyncio.ensure_future(put(before, value, match(live.name_state())))
                if number % 2 and person.unsent:
                    await asyncio.sleep(0)
                    model.heard.add(person.send())
                await work
        elif kind == "turns":
            for _ in range(number):
                await asyncio.sleep(0)
    await asyncio.gather(*running)
    for person in people:
        while person.unsent:
            model.heard.add(person.send())
    live.end_turn(node.hub.now())
    shown = text()
    assert len(shown) == len(set(shown)), "nothing is there twice"
    assert model.written - model.may_go <= set(shown), "what nobody has removed is there"
    assert not model.gone() & set(shown), "what was removed is gone"
    assert [person.read() for person in people] == [shown] * PEOPLE
    assert (await edits.read("d", Format.TEXT, "t")).value.decode() == shown
    # A document of the library that gets all of it at once shows the same.
    reader: Doc[Any] = Doc()
    reader.get("t", type=Text)
    reader.apply_update(live.room.document.encode_state_as_update())
    assert str(reader.get("t", type=Text)) == shown
    await live.persistence.durable()
    assert await edits.stored_text("d") == shown
    await node.stop()


@given(STEPS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_edits_and_typing_in_any_order(steps: list[Step]) -> None:
    asyncio.run(play(steps))


def test_the_check_of_exact_edits_is_reached() -> None:
    before = Checked.exact
    asyncio.run(play([("type", 0, 0), ("send", 0, 0), ("exact", 0, 2), ("exact", 1, 4)]))
    assert Checked.exact == before + 2
