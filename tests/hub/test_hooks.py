"""Calling Python hooks: order, time, what may wait, and what becomes of hooks that fail.

Strategy: the calls of a real hub, but what is told is given to them by hand where a client could not do it in time.
tests/transports/test_hooks.py shows the same from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import FrameType
from typing import Any, cast

import pytest

from collab.cluster.local import LocalBus, LocalExchange
from collab.errors import DocumentNotFound, HookUnavailable, Refused, ServerStopping
from collab.hooks import METHODS, Creation, Deletion, Hooks, Loaded, Message, Relay, Rows, Server, Visit
from collab.hub import hooks as module
from collab.hub.hooks import HookCalls, HookOptions
from collab.protocol.messages import Stateless
from collab.protocol.sync import SyncUpdate
from collab.storage.records import Appended
from tests.hub.conftest import Acknowledged, Node, StartNode
from tests.support.author import Author
from tests.support.waiting import happens

Told = tuple[str, Any]
StartCalls = Callable[..., Awaitable[HookCalls]]


class Recorder(Hooks):
    """Notes what it is told; ``gate`` holds back every call while it is closed."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.ended: list[Told] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.now: Counter[str] = Counter()
        self.most = 0
        self.beside = False

    async def _note(self, method: str, event: Any) -> None:
        self.told.append((method, event))
        self.now[event.name] += 1
        self.beside = self.beside or self.now[event.name] > 1
        self.most = max(self.most, self.now.total())
        try:
            await self.gate.wait()
        finally:
            self.now[event.name] -= 1
        self.ended.append((method, event))

    async def may_create(self, event: Creation, server: Server) -> None:
        await self._note("may_create", event)

    async def loaded(self, event: Loaded, server: Server) -> None:
        await self._note("loaded", event)

    async def stored(self, event: Rows, server: Server) -> None:
        await self._note("stored", event)

    async def changed(self, event: Rows, server: Server) -> None:
        await self._note("changed", event)

    async def joined(self, event: Visit, server: Server) -> None:
        await self._note("joined", event)

    async def left(self, event: Visit, server: Server) -> None:
        await self._note("left", event)

    async def before_delete(self, event: Deletion, server: Server) -> None:
        await self._note("before_delete", event)

    def methods(self, name: str | None = None) -> list[str]:
        return [method for method, event in self.told if name in (None, event.name)]


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """A hub whose store is memory: nothing here is about files."""
    node = Node(None)
    await node.start()
    yield node
    if not node.hub.stopping:
        await node.stop()


@pytest.fixture
async def start_calls(node: Node, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartCalls]:
    monkeypatch.setattr(module, "GRACE", 0.02)
    made: list[HookCalls] = []

    own = node

    async def start(*hooks: Hooks, seconds: float = 5.0, interval: float = 0.01, node: Node = own) -> HookCalls:
        calls = HookCalls(hooks, HookOptions(seconds, interval, 1_000), node.hub)
        calls.server = cast(Server, object())
        await calls.start()
        node.hub.hooks = calls
        made.append(calls)
        return calls

    yield start
    for calls in made:
        await calls.drain(0.0)
        await calls.close()
        await happens(lambda calls=calls: not calls.stuck, "what hangs has ended")  # type: ignore[misc]


def rows(calls: HookCalls, name: str, first: int, last: int, *authors: str | None, document: int = 1) -> None:
    calls.committed(name, Appended(document, first, last), authors)


async def idle(node: Node) -> None:
    await happens(lambda: node.hub.counts.hooks.waiting == 0, "everything is told")


# What is told, and in which order


async def test_a_session_is_told_of_from_loading_to_leaving(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    await start_calls(hook, interval=0.0)
    live, member, _ = await node.join("d")
    member.identify("ada")
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await node.write(live)
    await happens(lambda: "changed" in hook.methods(), "the change")
    live.leave(member)
    live.leave(member)
    await happens(lambda: "left" in hook.methods(), "the end")
    await idle(node)
    assert hook.methods() == ["loaded", "joined", "stored", "changed", "left"]
    loaded, joined, stored, changed, left = (event for _, event in hook.told)
    assert (loaded.name, loaded.document, loaded.last) == ("d", None, 0)
    assert (joined.session, joined.sessions, left.session, left.sessions) == (1, 1, 1, 0)
    assert left.user == "ada" and joined.connection == f"{node.hub.membership.name}-0"
    assert (stored.first, stored.last, stored.authors) == (1, 1, ("ada",)) and stored == changed
    assert stored.document == live.persistence.document_id


async def test_a_document_that_is_there_is_told_with_its_numbers(node: Node, start_calls: StartCalls) -> None:
    author = Author(1)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(author.type("x")))
    await node.write(live)
    live.leave(member)
    await node.hub._unload(live)
    hook = Recorder()
    await start_calls(hook)
    live = await node.hub.open("d")
    await happens(lambda: hook.told, "it is loaded")
    event = hook.told[0][1]
    assert (event.document, event.last, event.size) == (live.persistence.document_id, 1, live.room.document.size)


async def test_rows_are_told_on_the_node_that_has_written_them(start_node: StartNode, start_calls: StartCalls) -> None:
    exchange = LocalExchange()
    here, there = [await start_node(bus=LocalBus(exchange)) for _ in range(2)]
    hook, other = Recorder(), Recorder()
    await start_calls(hook, node=here)
    await start_calls(other, node=there)
    live, member, _ = await there.join("d")
    _, _, box = await here.join("d")
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await there.write(live)
    await box.until(lambda: box.text() == "x", "the edit has come here")
    await happens(lambda: {"stored", "changed"} <= {*other.methods("d")}, "it is told there")
    await idle(here)
    assert hook.methods("d") == ["loaded", "joined"]


async def test_a_join_that_fails_is_not_told(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    await start_calls(hook)
    live, member, box = await node.join("d")
    box.write = None  # type: ignore[assignment, method-assign]
    await happens(lambda: "joined" in hook.methods(), "the first has joined")
    broken = Acknowledged(member.encoder, box, box)
    with pytest.raises(Exception):  # noqa: B017 - whatever a session in this state raises
        live.join(broken)
    await idle(node)
    assert hook.methods("d").count("joined") == 1
    del box.write


async def test_several_hooks_are_called_in_their_order(node: Node, start_calls: StartCalls) -> None:
    said: list[str] = []

    class Named(Hooks):
        def __init__(self, name: str) -> None:
            self.name = name

        async def start(self, server: Server) -> None:
            said.append(f"{self.name} starts")

        async def close(self) -> None:
            said.append(f"{self.name} closes")

        async def stored(self, event: Rows, server: Server) -> None:
            await asyncio.sleep(0.01 if self.name == "a" else 0)
            said.append(f"{self.name} {event.first}")

    calls = await start_calls(Named("a"), Named("b"))
    rows(calls, "d", 1, 1)
    await happens(lambda: len(said) == 4, "both are told")
    rows(calls, "d", 2, 2)
    await happens(lambda: len(said) == 6, "both are told")
    await calls.drain(1.0)
    await calls.close()
    assert said == ["a starts", "b starts", "a 1", "b 1", "a 2", "b 2", "b closes", "a closes"]


async def test_one_that_does_not_start_keeps_the_server_from_starting(node: Node) -> None:
    said: list[str] = []

    class First(Hooks):
        async def close(self) -> None:
            said.append("closed")
            raise ValueError("for the test")

    class Second(Hooks):
        async def start(self, server: Server) -> None:
            raise OSError("no database")

    calls = HookCalls((First(), Second()), HookOptions(1.0, 1.0, 10), node.hub)
    calls.server = cast(Server, object())
    with pytest.raises(OSError, match="no database"):
        await calls.start()
    assert said == ["closed"]


async def test_documents_are_told_side_by_side_and_each_one_at_a_time(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_A_TIME", 4)
    hook = Recorder()
    calls = await start_calls(hook, interval=0.0)
    hook.gate.clear()
    for number in range(1, 4):
        for document in range(100):
            rows(calls, f"d{document}", number, number, document=document)
    await happens(lambda: hook.now.total() == 4, "so many are called")
    hook.gate.set()
    await idle(node)
    assert hook.most == 4 and not hook.beside
    for document in range(100):
        told = [event for method, event in hook.told if method == "stored" and event.name == f"d{document}"]
        numbers = [number for event in told for number in range(event.first, event.last + 1)]
        assert numbers == [1, 2, 3]
    assert not calls._lines, "nothing is kept of documents of which nothing is to be told"


# Joining


async def test_rows_are_joined_while_a_hook_is_busy(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook, interval=60.0)
    hook.gate.clear()
    for number in range(1, 50):
        rows(calls, "d", number, number, f"u{number % 3}", None)
    rows(calls, "d", 1, 1, "new", document=2)
    hook.gate.set()
    await idle(node)
    told = [(method, e.document, e.first, e.last, e.authors) for method, e in hook.told]
    assert told == [
        ("stored", 1, 1, 1, ("u1",)),
        ("stored", 1, 2, 49, ("u2", "u0", "u1")),
        ("changed", 1, 1, 49, ("u1", "u2", "u0")),
        ("stored", 2, 1, 1, ("new",)),
    ]


async def test_authors_are_named_up_to_a_bound(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_AUTHORS", 3)
    hook = Recorder()
    calls = await start_calls(hook, interval=60.0)
    rows(calls, "d", 1, 1, "first")
    rows(calls, "d", 2, 3, "a", "b")
    rows(calls, "d", 4, 5, "b", "c")
    await idle(node)
    rows(calls, "d", 6, 9, "a", "b", "c", "d")
    await idle(node)
    assert [(e.authors, e.more) for _, e in hook.told[1:]] == [(("a", "b", "c"), False), (("a", "b", "c"), True)]


async def test_a_change_is_told_once_in_the_interval(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook, interval=0.2)
    loop = asyncio.get_running_loop()
    at: list[float] = []
    began = loop.time()
    number = 0
    while loop.time() < began + 0.5:
        number += 1
        rows(calls, "d", number, number)
        if hook.methods().count("changed") > len(at):
            at.append(loop.time())
        await asyncio.sleep(0.002)
    await happens(lambda: not calls._lines, "the last change is told too")
    changes = [event for method, event in hook.told if method == "changed"]
    assert 2 <= len(changes) <= 4
    assert [number for event in changes for number in range(event.first, event.last + 1)] == [*range(1, number + 1)]
    assert all(later - earlier > 0.15 for earlier, later in zip(at, at[1:], strict=False))


async def test_changes_of_two_documents_of_one_name_are_not_joined(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook, interval=0.05)
    rows(calls, "d", 7, 9)
    rows(calls, "d", 1, 2, document=2)
    await happens(lambda: hook.methods().count("changed") == 2, "both")
    told = [(e.document, e.first, e.last) for method, e in hook.told if method == "changed"]
    assert told == [(1, 7, 9), (2, 1, 2)]


async def test_what_is_kept_beside_the_log_is_no_row(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook)
    rows(calls, "d", 5, 4)
    await idle(node)
    assert not hook.told and not calls._lines


# Hooks that fail


class Failing(Hooks):
    """Fails in the way that a test gives."""

    def __init__(self, fail: Callable[[], Awaitable[Any]]) -> None:
        self.fail = fail
        self.called = 0

    async def stored(self, event: Rows, server: Server) -> None:
        self.called += 1
        await self.fail()

    async def may_create(self, event: Creation, server: Server) -> None:
        self.called += 1
        await self.fail()

    async def before_delete(self, event: Deletion, server: Server) -> Any:  # type: ignore[override]
        self.called += 1
        return await self.fail()

    async def stateless(self, event: Message, server: Server) -> Relay | None:
        self.called += 1
        return cast("Relay | None", await self.fail())


def raising(error: BaseException) -> Callable[[], Awaitable[Any]]:
    async def fail() -> None:
        raise error

    return fail


ERRORS = [
    ValueError("the secret text"),
    MemoryError(),
    SystemExit(3),
    asyncio.CancelledError(),
    TimeoutError(),
    GeneratorExit(),
    DocumentNotFound("no document"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_hook_that_raises_harms_nothing(
    node: Node, start_calls: StartCalls, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = Failing(raising(error)), Recorder()
    calls = await start_calls(bad, good)
    caplog.set_level(logging.INFO)
    rows(calls, "d", 1, 1)
    await happens(lambda: "stored" in good.methods(), "the next one is told")
    with pytest.raises(HookUnavailable):
        await calls.may_create("d", None)
    live, member, _ = await node.join("d", kind=Acknowledged)
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await node.write(live)
    await idle(node)
    counts = node.hub.counts.hooks
    assert counts.failures["stored"] == bad.called - 1 and counts.failures["may_create"] == 1
    assert "secret" not in caplog.text and f"Failing.stored for 'd' raised {type(error).__name__}" in caplog.text
    assert not counts.timeouts


@pytest.mark.parametrize("given", [False, True, 0, "no", Refused("x")], ids=repr)
async def test_an_answer_that_is_none_refuses_for_now(node: Node, start_calls: StartCalls, given: object) -> None:
    async def answer() -> object:
        return given

    calls = await start_calls(Failing(answer))
    with pytest.raises(HookUnavailable):
        await calls.before_delete("d", "ada", erase=False)
    assert node.hub.counts.hooks.failures["before_delete"] == 1


async def test_the_first_that_refuses_decides(node: Node, start_calls: StartCalls) -> None:
    asked = Recorder()
    refusing, after = Failing(raising(Refused("not today"))), Recorder()
    calls = await start_calls(asked, refusing, after)
    with pytest.raises(Refused) as caught:
        await calls.may_create("d", "ada")
    assert caught.value.public == "not today"
    assert asked.told == [("may_create", Creation("d", "ada"))] and not after.told
    with pytest.raises(Refused):
        await calls.before_delete("d", None, erase=True)
    assert asked.told[-1] == ("before_delete", Deletion("d", None, True))
    assert not node.hub.counts.hooks.failures


def test_a_refusal_has_a_text_of_bounded_length() -> None:
    assert Refused().public == Refused("").public == "the application does not allow this"
    assert Refused("\ud800" + "x" * 10_000).public == "?" + "x" * 499


async def test_a_refusal_where_nothing_is_decided_is_a_failure(node: Node, start_calls: StartCalls) -> None:
    calls = await start_calls(Failing(raising(Refused("no"))))
    rows(calls, "d", 1, 1)
    await idle(node)
    assert node.hub.counts.hooks.failures["stored"] == 1


async def test_a_hook_that_hangs_is_given_up(
    node: Node, start_calls: StartCalls, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    bad, good = Failing(hang), Recorder()
    calls = await start_calls(bad, good, seconds=0.05)
    rows(calls, "d", 1, 1)
    await happens(lambda: "stored" in good.methods(), "the next one is told")
    with pytest.raises(HookUnavailable):
        await calls.may_create("other", None)
    assert "Failing.stored takes more than 0.05 s for 'd' and was given up" in caplog.text
    assert node.hub.counts.hooks.timeouts == {"stored": 1, "may_create": 1} and not calls.stuck


async def test_one_that_does_not_end_keeps_its_document_alone(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AT_A_TIME", 1)
    free = asyncio.Event()

    async def hold() -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    class Picky(Failing):
        async def stored(self, event: Rows, server: Server) -> None:
            if event.name == "bad":
                await super().stored(event, server)

    bad, good = Picky(hold), Recorder()
    calls = await start_calls(bad, good, seconds=0.05, interval=60.0)
    rows(calls, "bad", 1, 1)
    rows(calls, "good", 1, 1)
    await happens(lambda: good.methods("good"), "the only place is free again")
    assert len(calls.stuck) == 1 and "it does not end" in caplog.text
    rows(calls, "bad", 2, 2)
    with pytest.raises(HookUnavailable):
        await calls.may_create("bad", None)
    assert bad.called == 1 and not good.methods("bad"), "nothing is called beside it"
    free.set()
    await happens(lambda: bad.called == 2, "it goes on when the call has ended")
    await idle(node)
    await happens(lambda: not calls.stuck, "nothing hangs")


async def test_past_a_number_of_calls_that_do_not_end_nothing_is_told(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STUCK", 1)
    free = asyncio.Event()

    async def hold() -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    hook = Failing(hold)
    calls = await start_calls(hook, seconds=0.02)
    rows(calls, "a", 1, 1)
    await happens(lambda: calls.stuck, "it hangs")
    rows(calls, "b", 1, 1)
    await happens(lambda: node.hub.counts.hooks.dropped["stored"] == 1, "it is dropped")
    free.set()
    await happens(lambda: not calls.stuck, "it ends")
    rows(calls, "b", 2, 2)
    await happens(lambda: hook.called == 2, "and it is called again")


async def test_the_log_is_bounded(node: Node, start_calls: StartCalls, caplog: pytest.LogCaptureFixture) -> None:
    calls = await start_calls(Failing(raising(ValueError())))
    for number in range(200):
        rows(calls, f"d{number}", 1, 1, document=number)
    await idle(node)
    assert node.hub.counts.hooks.failures["stored"] == 200
    assert len([one for one in caplog.records if "raised ValueError" in one.getMessage()]) < 20


# Questions


async def test_a_question_comes_before_the_news_that_wait(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook, interval=0.0)
    hook.gate.clear()
    rows(calls, "d", 1, 1)
    await happens(lambda: hook.told, "a call is under way")
    live, _, _ = await node.join("d")
    question = asyncio.create_task(calls.may_create("d", None))
    await asyncio.sleep(0)
    rows(calls, "d", 2, 2, document=5)
    hook.gate.set()
    await question
    await idle(node)
    assert hook.methods("d")[:2] == ["stored", "may_create"] and not hook.beside
    assert live.name == "d"


async def test_news_that_hang_hold_up_no_question(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_A_TIME", 2)

    class Both(Recorder):
        async def may_create(self, event: Creation, server: Server) -> None:
            self.told.append(("may_create", event))

    hook = Both()
    calls = await start_calls(hook)
    hook.gate.clear()
    for number in range(10):
        rows(calls, f"d{number}", 1, 1, document=number)
    await happens(lambda: hook.now.total() == 2, "all places are taken")
    await calls.may_create("other", "ada")
    await calls.may_create("d9", "ada")
    assert hook.methods("d9") == ["may_create"]
    hook.gate.set()


async def test_a_question_whose_sender_has_gone_is_not_asked(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook)
    hook.gate.clear()
    first, second = (asyncio.create_task(calls.may_create("d", user)) for user in ("a", "b"))
    await happens(lambda: hook.told, "the first is asked")
    first.cancel()
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    hook.gate.set()
    await idle(node)
    assert hook.told == [("may_create", Creation("d", "a"))]


async def test_questions_have_a_bound(node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUESTIONS", 2)
    hook = Recorder()
    calls = await start_calls(hook)
    hook.gate.clear()
    asked = [asyncio.create_task(calls.may_create(name, None)) for name in "ab"]
    await happens(lambda: len(hook.told) == 2, "both are asked")
    with pytest.raises(HookUnavailable, match="2 questions"):
        await calls.may_create("c", None)
    hook.gate.set()
    await asyncio.gather(*asked)
    await calls.may_create("c", None)


async def test_a_question_behind_a_call_that_hangs_ends_in_time(node: Node, start_calls: StartCalls) -> None:
    free = asyncio.Event()

    async def hold() -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    calls = await start_calls(Failing(hold), seconds=0.03)
    rows(calls, "d", 1, 1)
    await happens(lambda: calls.stuck, "it hangs")
    with pytest.raises(HookUnavailable, match="in time"):
        await calls.may_create("d", None)
    free.set()


# Bounds


async def test_of_too_many_news_of_a_document_the_oldest_go(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NEWS", 5)

    class Stored(Recorder):
        changed = Hooks.changed

    hook = Stored()
    calls = await start_calls(hook, interval=60.0)
    hook.gate.clear()
    for number in range(20):
        rows(calls, "d", 1, 1, document=number)
    await happens(lambda: hook.told, "one is told")
    hook.gate.set()
    await idle(node)
    documents = [event.document for _, event in hook.told]
    assert documents[-5:] == [15, 16, 17, 18, 19] and len(documents) <= 6
    assert node.hub.counts.hooks.dropped["stored"] == 20 - len(documents)


async def test_what_waits_of_all_documents_has_a_bound(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    hook = Recorder()
    calls = await start_calls(hook, interval=60.0)
    hook.gate.clear()
    for number in range(30):
        rows(calls, f"d{number}", 1, 1, document=number)
    assert node.hub.counts.hooks.waiting == 10 and node.hub.counts.hooks.dropped["stored"] == 20
    hook.gate.set()
    await idle(node)
    rows(calls, "d", 1, 1)
    await happens(lambda: hook.methods("d"), "there is room again")


# Stateless messages


class Speaking(Hooks):
    """Answers a message with what the test gives for its text."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.heard: list[Message] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def stateless(self, event: Message, server: Server) -> Relay | None:
        self.heard.append(event)
        await self.gate.wait()
        return cast("Relay | None", self.answers.get(event.text))


async def test_hooks_decide_on_messages_one_after_the_other(node: Node, start_calls: StartCalls) -> None:
    first = Speaking({"drop": Relay(None), "ask": Relay(None, answer="here"), "a": Relay("b", answer="one")})
    second = Speaking({"b": Relay("c", answer="two")})
    await start_calls(first, second)
    live, ada, box = await node.join("d", kind=Acknowledged)
    _, _, other = await node.join("d", kind=Acknowledged)
    ada.identify("ada")
    for text in (b"plain", b"drop", b"ask", b"a", b"end"):
        live.receive(ada, Stateless(text))
    await other.until(lambda: b"end" in other.stateless(), "the last message")
    assert other.stateless() == [b"plain", b"c", b"end"]
    assert box.stateless() == [b"here", b"one", b"two"]
    assert [one.text for one in second.heard] == ["plain", "b", "end"]
    assert {(one.user, one.session, one.name) for one in first.heard} == {("ada", 1, "d")}


WRONG = [
    False,
    "text",
    Relay(cast(str, 5)),
    Relay("x" * 1_001),
    Relay("é" * 600),
    Relay("\ud800"),
    Relay(None, "x" * 1_001),
]


@pytest.mark.parametrize("given", WRONG, ids=range(len(WRONG)))
async def test_a_message_on_which_nobody_can_decide_is_dropped(node: Node, start_calls: StartCalls, given: Any) -> None:
    await start_calls(Speaking({"wrong": given}))
    live, ada, box = await node.join("d", kind=Acknowledged)
    _, _, other = await node.join("d", kind=Acknowledged)
    live.receive(ada, Stateless(b"wrong"))
    live.receive(ada, Stateless(b"end"))
    await other.until(lambda: other.stateless(), "a message")
    assert other.stateless() == [b"end"] and not box.stateless()
    counts = node.hub.counts.hooks
    assert counts.dropped["stateless"] == counts.failures["stateless"] == 1


async def test_a_message_for_a_room_that_has_ended_goes_nowhere(node: Node, start_calls: StartCalls) -> None:
    hook = Speaking({"x": Relay("y", answer="z")})
    await start_calls(hook)
    live, ada, box = await node.join("d", kind=Acknowledged)
    hook.gate.clear()
    live.receive(ada, Stateless(b"x"))
    await happens(lambda: hook.heard, "it is asked about")
    live.refused(DocumentNotFound("gone"))
    hook.gate.set()
    await idle(node)
    assert box.stateless() == [] and not node.hub.counts.hooks.dropped


async def test_who_sends_more_than_is_taken_waits(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGES", 3)
    hook = Speaking({})
    calls = await start_calls(hook)
    live, ada, _ = await node.join("d", kind=Acknowledged)
    _, _, other = await node.join("d", kind=Acknowledged)
    hook.gate.clear()

    async def send() -> None:
        for number in range(20):
            await calls.until_room("d")
            live.receive(ada, Stateless(b"%d" % number))

    sending = asyncio.create_task(send())
    await happens(lambda: node.hub.counts.hooks.waiting == 4, "one is asked about and three wait")
    await asyncio.wait_for(calls.until_room("other"), 5.0)
    assert not sending.done()
    hook.gate.set()
    await sending
    await other.until(lambda: len(other.stateless()) == 20, "none is lost")
    assert other.stateless() == [b"%d" % number for number in range(20)]


async def test_the_bytes_of_messages_that_wait_have_a_bound(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGE_BYTES", 10)
    hook = Speaking({})
    calls = await start_calls(hook)
    live, ada, _ = await node.join("d", kind=Acknowledged)
    hook.gate.clear()
    live.receive(ada, Stateless(b"0123456789"))
    waiting = asyncio.create_task(calls.until_room("other"))
    await happens(lambda: hook.heard, "it is asked about")
    assert not waiting.done()
    hook.gate.set()
    await waiting


async def test_past_the_bound_of_all_that_waits_a_message_is_dropped(
    node: Node, start_calls: StartCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    hook = Speaking({})
    await start_calls(hook)
    live, ada, _ = await node.join("d", kind=Acknowledged)
    hook.gate.clear()
    live.receive(ada, Stateless(b"1"))
    live.receive(ada, Stateless(b"2"))
    assert node.hub.counts.hooks.dropped["stateless"] == 1
    hook.gate.set()


# The end


async def test_what_waits_is_told_at_the_end_also_changes(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook, interval=3_600.0)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await node.stop()
    await happens(lambda: not calls._lines, "nothing is left")
    assert hook.methods() == ["loaded", "joined", "stored", "left", "changed"]
    assert [method for method, _ in hook.ended] == hook.methods()
    rows(calls, "late", 1, 1)
    with pytest.raises(ServerStopping):
        await calls.may_create("d", None)
    assert not hook.methods("late") and node.hub.counts.hooks.dropped == {"stored": 1, "changed": 1}


async def test_what_hangs_at_the_end_is_cancelled(node: Node, start_calls: StartCalls) -> None:
    hook = Recorder()
    calls = await start_calls(hook, interval=3_600.0)
    live, ada, _ = await node.join("d", kind=Acknowledged)
    await happens(lambda: len(hook.ended) == 2, "it is quiet")
    hook.gate.clear()
    question = asyncio.create_task(calls.may_create("d", None))
    await happens(lambda: hook.told[-1][0] == "may_create", "a call hangs")
    behind = asyncio.create_task(calls.may_create("d", "behind"))
    await asyncio.sleep(0)
    await calls.drain(0.01)
    with pytest.raises(ServerStopping):
        await behind
    with pytest.raises((ServerStopping, HookUnavailable)):
        await question
    assert node.hub.counts.hooks.waiting == 0 and not calls.stuck and len(hook.ended) == 2
    live.receive(ada, Stateless(b"late"))


async def test_what_does_not_even_end_then_is_left_behind(
    node: Node, start_calls: StartCalls, caplog: pytest.LogCaptureFixture
) -> None:
    free = asyncio.Event()

    async def hold() -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    calls = await start_calls(Failing(hold))
    live, ada, box = await node.join("d", kind=Acknowledged)
    live.receive(ada, Stateless(b"first"))
    live.receive(ada, Stateless(b"second"))
    await happens(lambda: node.hub.counts.hooks.waiting == 2, "one is asked about, one waits")
    full = asyncio.create_task(calls.until_room("d"))
    await calls.drain(0.0)
    await full
    assert "1 calls of hooks did not end" in caplog.text
    assert node.hub.counts.hooks.dropped == {"stateless": 1} and not box.stateless()
    free.set()


async def test_of_what_no_hook_wants_nothing_is_made(node: Node, start_calls: StartCalls) -> None:
    class Left(Recorder):
        loaded, joined, stored = Hooks.loaded, Hooks.joined, Hooks.stored

    class Joined(Recorder):
        loaded, left, changed = Hooks.loaded, Hooks.left, Hooks.changed

    first, second = Left(), Joined()
    await start_calls(first, second)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await node.write(live)
    await happens(lambda: first.told, "the change")
    live.leave(member)
    await idle(node)
    assert first.methods() == ["changed", "left"] and second.methods() == ["joined", "stored"]


@pytest.mark.parametrize("kept", ["changed", "left", "joined"])
async def test_one_method_alone_is_enough(node: Node, start_calls: StartCalls, kept: str) -> None:
    other = {name: getattr(Hooks, name) for name in METHODS if name != kept}
    hook = type("Alone", (Recorder,), other)()
    await start_calls(hook)
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("x")))
    await node.write(live)
    live.leave(member)
    await happens(lambda: hook.told, "it is told")
    await idle(node)
    assert hook.methods() == [kept]


async def test_a_close_that_hangs_or_raises_is_given_up(
    node: Node, start_calls: StartCalls, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    class Hanging(Hooks):
        async def close(self) -> None:
            await asyncio.Event().wait()

    class Raising(Hooks):
        async def close(self) -> None:
            closed.append("raised")
            raise ValueError("text")

    calls = await start_calls(Raising(), Hanging(), seconds=0.02)
    await calls.close()
    assert closed == ["raised"] and "Hanging.close takes more than" in caplog.text
    assert "Raising.close raised ValueError" in caplog.text and "text" not in caplog.text


# What it costs


async def test_without_hooks_nothing_of_this_is_called(node: Node, start_calls: StartCalls) -> None:
    called: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            called[frame.f_code.co_filename.rpartition("collab/")[2]] += 1

    async def edit(name: str, updates: list[bytes]) -> dict[str, Any]:
        """Give how many functions of each file are called from joining to the commit of the last edit."""
        called.clear()
        sys.setprofile(profile)
        try:
            live, member, _ = await node.join(name, kind=Acknowledged)
            joining = called["hub/hooks.py"]
            for update in updates:
                live.receive(member, SyncUpdate(update))
                live.end_turn(node.hub.now())
            editing = called["hub/hooks.py"] - joining
            await live.persistence.durable()
            live.receive(member, Stateless(b"x"))
            live.leave(member)
        finally:
            sys.setprofile(None)
        assert called["hub/room.py"] > 20, "the profile sees what is called"
        return {"all": called["hub/hooks.py"] + called["hooks.py"], "editing": editing}

    author = Author(1)
    updates = [author.type("x") for _ in range(20)]
    assert await edit("a", updates) == {"all": 0, "editing": 0}
    await start_calls(Hooks())
    # With hooks that want nothing, an edit costs nothing either, and its commit one call.
    found = await edit("b", updates)
    assert found["editing"] == 0 and found["all"] <= 20 + 10


def test_every_method_is_known() -> None:
    assert {*METHODS, "start", "close"} == {name for name in vars(Hooks) if not name.startswith("_")}
