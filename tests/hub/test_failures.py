"""A defect, or memory that has run out, at any call on the way of an edit: what was acknowledged stays, nobody else is
harmed, and the document can be opened again.

Strategy: a profiler counts the calls that the server's own code makes in one part of that way, those of C functions
too, and raises in the place of one of them. A test walks all of these places, one run for each. What must hold then is
the same everywhere: the other rooms of the same turn relay and store, the room itself is in order or is closed to its
members with "come back", what a member was told is in the log, and when the members have come back they agree with it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from collab.engine.room import Room
from collab.errors import DocumentBusy, InternalError, StoreRefused
from collab.hub import hub as hub_module
from collab.hub.hub import Hub
from collab.hub.member import Member
from collab.hub.quarantine import Quarantine
from collab.hub.room import LiveRoom
from collab.protocol.awareness import AwarenessUpdate, Entry, encode_awareness
from collab.protocol.session import Access, State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.sandbox.inline import InlineSandbox
from collab.storage.journal import Journal
from collab.update.delete_set import DeleteSet
from collab.update.merge import merge_updates
from tests.hub.conftest import Acknowledged, Node, StartNode
from tests.support.author import Author, content
from tests.support.faults import PARTS, Fault
from tests.support.waiting import happens


class Person:
    """Somebody who has a document open, writes in it, and comes back when sent away."""

    def __init__(self, node: Node, name: str, client: int, kind: type[Member]) -> None:
        self.node, self.name, self.kind = node, name, kind
        self.author = Author(client)
        self.client = client
        self.saved = 0  # updates that were acknowledged
        self.sent = 0
        self._read = 0

    async def join(self) -> None:
        self.live, self.member, self.box = await self.node.join(self.name, answer=False, kind=self.kind)
        self._read = 0
        question = next(m for m in self.box.messages if isinstance(m, SyncStep1))
        self.live.receive(self.member, SyncStep2(self.author.doc.get_update(question.state_vector)))
        self.live.receive(self.member, SyncStep1(self.author.doc.get_state()))

    def read(self) -> str:
        updates = self.box.updates()
        for update in updates[self._read :]:
            self.author.read(update)
        self._read = len(updates)
        return str(self.author.text)

    def type(self, text: str) -> None:
        self._send(SyncUpdate(self.author.type(text)))

    def show(self, clock: int) -> None:
        self._send(AwarenessUpdate(encode_awareness([Entry(self.client, clock, b'{"at":%d}' % clock)])))

    def _send(self, message: SyncUpdate | AwarenessUpdate) -> None:
        """Send a message; a defect ends this socket, as a connection does it."""
        try:
            self.live.receive(self.member, message)
        except (MemoryError, RuntimeError):
            self.live.leave(self.member)

    @property
    def gone(self) -> bool:
        return self.member.state is State.CLOSED


async def quiet(node: Node) -> None:
    """Return when no turn is about to end and nothing waits for a commit."""
    async with asyncio.timeout(20):
        while node.hub._turns.touched or node.journal.backlog:  # noqa: ASYNC110 - neither tells when it is empty
            await asyncio.sleep(0.001)
        for _ in range(3):
            await asyncio.sleep(0)


async def stored(node: Node, name: str) -> str:
    reader = Author(0)
    for row in (await node.stored(name)).rows:
        reader.read(row.data)
    return str(reader.text)


async def one_run(part: tuple[type, str], number: int, error: type[Exception]) -> bool:
    """Edit three rooms in one turn, with a fault in the second one's part; return whether there was such a place."""
    node = Node(None, sandbox=InlineSandbox())
    await node.start()
    people = {
        name: [Person(node, name, 10 * n + i, kind) for i, kind in enumerate((Acknowledged, Acknowledged, Member), 1)]
        for n, name in enumerate(("before", "faulty", "behind"), 1)
    }
    try:
        for group in people.values():
            for person in group:
                await person.join()
            group[0].type("a")
        await quiet(node)
        writer, other, reader = people["faulty"]
        faulty = writer.live
        told = len(writer.box.verdicts())
        with Fault(*part, number, error) as fault:
            fault.only = lambda arguments: arguments[0] in (faulty, faulty.persistence, node.journal)
            for group in people.values():
                group[0].type("b")
                if group[2].gone is False:
                    group[2].show(1)
            await quiet(node)
        harmed = [name for name, group in people.items() if any(person.gone for person in group)]
        # What the journal does for all of them may fail in the place of any of them.
        assert len(harmed) <= 1 if part[0] is Journal else harmed in ([], ["faulty"]), "another room was harmed"
        # The others hear and store everything.
        for name in [name for name in people if name not in (*harmed, "faulty")]:
            first, second, third = people[name]
            assert first.box.verdicts()[-1:] == [True]
            assert second.read() == third.read() == await stored(node, name) == "ab"
            assert second.box.awareness()[third.client][0] == 1
        # What a member was told holds.
        if sum(writer.box.verdicts()[told:]):
            assert await stored(node, "faulty") == "ab"
        # Who was sent away comes back, with what the log lacks.
        for person in [person for group in people.values() for person in group]:
            assert person.box.ended is None or isinstance(person.box.ended, InternalError)
            if person.gone:
                await person.join()
        await quiet(node)
        assert [person.read() for person in people["faulty"]] == ["ab"] * 3
        assert await stored(node, "faulty") == "ab"
        assert all(writer.box.verdicts()[-1:])
        # And the room works.
        other.type("c")
        await quiet(node)
        assert [person.read() for person in people["faulty"]] == ["abc"] * 3
        assert await stored(node, "faulty") == "abc"
        assert other.box.verdicts()[-1:] == [True]
        return fault.hit
    finally:
        await node.stop()


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
@pytest.mark.parametrize("part", PARTS)
async def test_a_fault_at_any_call_loses_nothing_and_harms_no_other_room(part: str, error: type[Exception]) -> None:
    places = 0
    while await one_run(PARTS[part], places, error):
        places += 1
    assert places >= 5, "the walk has found nothing to walk"


async def one_run_with_what_waits(part: tuple[type, str], number: int, error: type[Exception]) -> bool:
    """Send what waits, and then what it waits for, with a fault in each turn; return whether there was such a place."""
    node = Node(None, sandbox=InlineSandbox())
    await node.start()
    try:
        first, second, third = Author(100), Author(101), Author(102)
        missing = [first.type("1"), first.type("2")]
        for each in missing:
            second.read(each)
        rest = [second.type("3"), second.type("4")]
        writer = Person(node, "d", 1, Acknowledged)
        await writer.join()
        await quiet(node)
        kept = 0
        hit = False
        for sent in (merge_updates(rest), merge_updates(missing)):
            told = len(writer.box.verdicts())
            with Fault(*part, number, error) as fault:
                writer._send(SyncUpdate(sent))
                # Planning the journal's batch may be what has failed; then coming back wakes it.
                await happens(
                    lambda: writer.gone or not (node.hub._turns.touched or node.journal.backlog), "it is over"
                )
            hit = hit or fault.hit
            for _ in range(3):
                await asyncio.sleep(0)
            if sent == merge_updates(rest):
                kept += sum(writer.box.verdicts()[told:])
            if writer.gone:
                await writer.join()
            await quiet(node)
        # Somebody comes with all that was waited for, if it was lost on its way.
        await happens(lambda: not node.hub._evicted, "it is open")
        live, member, box = await node.join("d", answer=False, kind=Acknowledged)
        third.read(merge_updates(missing))
        live.receive(member, SyncStep2(third.doc.get_update()))
        await box.until(lambda: box.verdicts() == [True], "saved")
        wanted = {"1234"} if kept else {"12", "123", "1234"}
        await happens(lambda: content(live.room.document.encode_state_as_update()) in wanted, "what was kept is there")
        await quiet(node)
        await node.write(live)
        assert await stored(node, "d") in wanted
        return hit
    finally:
        await node.stop()


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
@pytest.mark.parametrize("part", PARTS)
async def test_a_fault_at_any_call_loses_nothing_that_waits(part: str, error: type[Exception]) -> None:
    places = 0
    while await one_run_with_what_waits(PARTS[part], places, error):
        places += 1
    assert places >= 5, "the walk has found nothing to walk"


async def test_a_fault_while_a_large_update_is_taken_ends_the_room(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    person = Person(node, "d", 1, Acknowledged)
    await person.join()
    person.type("a")
    await quiet(node)

    with monkeypatch.context() as patch:

        def fails(this: DeleteSet, additions: object) -> None:
            raise MemoryError("injected")

        patch.setattr(DeleteSet, "commit", fails)
        with pytest.raises(MemoryError):
            await person.live.receive_in_slices(person.member, SyncUpdate(person.author.type("b" * 50_000)))
    assert isinstance(person.box.ended, InternalError), "its structs are here, what it deletes is not"
    await person.join()
    await quiet(node)
    assert await stored(node, "d") == person.read() == "a" + "b" * 50_000


async def test_what_a_reader_makes_fail_harms_nobody_else(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start_node()
    live, writer, box = await node.join("d")
    _, reader, _ = await node.join("d", access=Access.READ)

    def fails(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Room, "receive", fails)
    with pytest.raises(RuntimeError):
        live.receive(reader, SyncUpdate(Author(2).type("x")))
    with pytest.raises(RuntimeError):
        live.receive(writer, AwarenessUpdate(encode_awareness([Entry(1, 1, b"{}")])))
    assert live.ended is None and box.ended is None


async def test_a_join_that_fails_leaves_nobody_behind(start_node: StartNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await start_node()
    live, _, box = await node.join("d")

    def fails(effects: object) -> None:
        raise MemoryError("injected")

    with monkeypatch.context() as patch:
        patch.setattr(LiveRoom, "perform", lambda self, effects: fails(effects))
        with pytest.raises(MemoryError):
            await node.join("d")
    assert len(live.room.sessions) == len(list(live.members)) == 1
    assert live.ended is None and box.ended is None


async def test_an_evicted_document_opens_when_its_entries_have_been_answered(start_node: StartNode) -> None:
    node = await start_node()
    person = Person(node, "d", 1, Acknowledged)
    await person.join()
    person.type("a")
    await quiet(node)
    node.store.full = True
    person.type("b")
    person.live.end_turn(node.hub.now())
    node.hub.failed(person.live, MemoryError("injected"))
    opening = asyncio.create_task(node.hub.open("d"))
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not opening.done(), "the log that is there lacks what is on its way"
    node.store.full = False
    live = await opening
    assert content(live.room.document.encode_state_as_update(b"\0")) == "ab"


async def test_the_name_of_an_evicted_document_is_kept_as_long_as_the_journal_holds_its_entries(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_SWEEP", 0.01)
    monkeypatch.setattr(hub_module, "_FORGET", 0.01)
    node = await start_node()
    person = Person(node, "d", 1, Acknowledged)
    await person.join()
    other, _, _ = await node.join("other")
    node.store.full = True
    person.type("b")
    person.live.end_turn(node.hub.now())
    for live in (person.live, other):
        node.hub.failed(live, MemoryError("injected"))
    await happens(lambda: node.hub._evicted == {"d"}, "the other one, of which nothing waits, is forgotten")
    node.store.full = False
    await happens(lambda: not node.hub._evicted, "forgotten, too")


async def test_a_document_that_fails_again_and_again_stays_closed_for_a_while(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    now = node.hub.now()
    monkeypatch.setattr(Hub, "now", lambda self: now)
    _, _, other = await node.join("other")
    for failures in range(1, 4):
        live, _, box = await node.join("d")
        node.hub.failed(live, RuntimeError("a defect"))
        assert isinstance(box.ended, InternalError), f"failure {failures}"
    for _ in range(100):
        with pytest.raises(DocumentBusy):
            await node.hub.open("d")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 3 and "stays closed for 10 s" in errors[-1].getMessage()
    assert other.ended is None
    now += 11
    live = await node.hub.open("d")
    # What the store refuses for good counts the same: those who come back bring it again.
    live.refused(StoreRefused("too large"))
    assert "stays closed for 20 s" in caplog.records[-1].getMessage()


def test_a_document_that_is_closed_opens_after_a_pause_that_grows() -> None:
    quarantine = Quarantine()
    assert [quarantine.failed("slowly", now) for now in (0.0, 59.0, 118.0, 177.0)] == [0.0] * 4
    assert [quarantine.failed("d", now) for now in (0.0, 30.0, 60.0)] == [0.0, 0.0, 10.0]
    assert quarantine.left("d", 65.0) == 5.0 and quarantine.left("d", 70.0) == 0.0 and quarantine.left("x", 0.0) == 0.0
    now, pauses = 70.0, []
    for _ in range(8):
        pauses.append(quarantine.failed("d", now))
        now += pauses[-1]
    assert pauses == [20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0]
    quarantine.forget(now + 599.0)
    assert len(quarantine) == 1, "it is still known"
    quarantine.forget(now + 601.0)
    assert len(quarantine) == 0
    assert quarantine.failed("d", now + 602.0) == 0.0
