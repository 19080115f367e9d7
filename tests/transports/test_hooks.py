"""Python hooks of the whole application: what they are told, and what real clients see of what they decide.

Strategy: users are those of a table, each shows the own name as the token. The rules of order, time and bounds are in
tests/hub/test_hooks.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pycrdt import Doc, Text

from collab import errors
from collab.app import DRAIN, HUB, create_app
from collab.content.edits import TextInsert
from collab.errors import ConfigurationError, DocumentNotFound, LimitExceeded, Refused
from collab.hooks import (
    Content,
    Creation,
    Deletion,
    Format,
    Hooks,
    Message,
    Relay,
    Rows,
    Server,
    Visit,
    check_hooks,
    load_hooks,
)
from collab.hub import hooks as module
from collab.protocol.session import Access
from collab.settings import Settings
from collab.storage.memory import MemoryStore
from tests.support.api import check
from tests.support.author import Author
from tests.support.hocuspocus import AUTH, AUTHENTICATED, STATELESS, SYNC_STATUS, RawHocuspocus, auth, stateless
from tests.support.hocuspocus import update as addressed_update
from tests.support.waiting import happens
from tests.support.wsclient import LiveClient, RawClient, text_update, update
from tests.transports.conftest import Serve, Served
from tests.transports.test_control import Table

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]
OCTETS = {"Content-Type": "application/octet-stream"}


class Api:
    """Asks the server as a user; every answer is compared with its description."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.url = ""

    async def __call__(self, method: str, path: str, body: Any = None, user: str = "root", **query: str) -> Any:
        options: dict[str, Any] = {"headers": {"Authorization": f"Bearer {user}"}, "params": query}
        if isinstance(body, bytes):
            options["data"] = body
            options["headers"] |= OCTETS
        elif body is not None:
            options["json"] = body
        async with self.session.request(method, f"{self.url}/api/v1/{path}", **options) as answer:
            data = await answer.read()
            check(method, answer.url.path, answer.status, answer.headers.get("Content-Type", ""), data)
            found = json.loads(data) if data and "json" in answer.content_type else data
            return answer.status, found


@pytest.fixture
def api(session: aiohttp.ClientSession) -> Api:
    return Api(session)


@pytest.fixture
def start(serve: Serve, api: Api) -> Callable[..., Awaitable[Served]]:
    """Serve with hooks, in memory; users are those of a table."""

    async def start(*hooks: Hooks, **options: Any) -> Served:
        table = Table()
        for user in ("ada", "bob"):
            table.rights[user, "*"] = Access.WRITE
        table.rights["rea", "*"] = Access.READ
        served = await serve(
            authenticator=table, store=MemoryStore(), hooks=hooks, **{"hook_interval_seconds": 0.02, **options}
        )
        served.app[HUB].table = table  # type: ignore[attr-defined]
        api.url = served.url
        return served

    return start


Start = Callable[..., Awaitable[Served]]


def texts(state: bytes) -> str:
    """Give the root text ``text`` of a whole document."""
    doc: Doc[Any] = Doc()
    doc.apply_update(state)
    return str(doc.get("text", type=Text))


class Heard(Hooks):
    """Notes the news that it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    async def stored(self, event: Rows, server: Server) -> None:
        self.told.append(("stored", event))

    async def changed(self, event: Rows, server: Server) -> None:
        self.told.append(("changed", event))

    async def joined(self, event: Visit, server: Server) -> None:
        self.told.append(("joined", event))

    async def left(self, event: Visit, server: Server) -> None:
        self.told.append(("left", event))

    def of(self, name: str, method: str | None = None) -> list[Any]:
        return [event for each, event in self.told if event.name == name and method in (None, each)]


# News


async def test_clients_of_both_protocols_are_told_of(
    start: Start, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    heard = Heard()
    served = await start(heard)
    ada = await connect(f"{served.ws('a')}?token=ada")
    await ada.barrier()
    rea = await connect_hocuspocus(served.hocuspocus)
    await rea.join("a", "rea")
    await ada.send(update(Author(1).type("x")))
    await happens(lambda: heard.of("a", "changed"), "the change")
    await ada.close()
    await rea.close()
    await happens(lambda: len(heard.of("a", "left")) == 2, "both have left")
    joined = {event.user: event for event in heard.of("a", "joined")}
    assert (joined["ada"].access, joined["rea"].access) == (Access.WRITE, Access.READ)
    assert sorted(event.sessions for event in heard.of("a", "joined")) == [1, 2]
    left = {event.user: event for event in heard.of("a", "left")}
    for user in ("ada", "rea"):
        assert left[user].session == joined[user].session
        assert joined[user].connection == left[user].connection
        assert joined[user].connection.startswith(served.app[HUB].membership.name)
    (stored,), (changed,) = heard.of("a", "stored"), heard.of("a", "changed")
    assert stored == changed and (stored.first, stored.last, stored.authors) == (1, 1, ("ada",))


async def test_what_comes_over_http_is_told_too(start: Start, api: Api) -> None:
    heard = Heard()
    await start(heard)
    author = Author(1)
    assert (await api("POST", "updates/a", author.type("x"), "ada"))[0] == 200
    await happens(lambda: heard.of("a", "stored"), "the update")
    body = {"name": "b", "content": [{"root": "t", "format": "text", "value": "seed"}]}
    status, answer = await api("POST", "documents", body, "bob")
    assert status == 201, answer
    await happens(lambda: heard.of("b", "stored"), "the content it begins with")
    assert (await api("POST", "reset/a", {}))[0] == 200
    await happens(lambda: len(heard.of("a", "stored")) == 2, "the reset")
    assert (await api("POST", "documents", {"name": "empty"}, "bob"))[0] == 201
    assert [(e.first, e.last, e.authors) for e in heard.of("a", "stored")] == [(1, 1, ("ada",)), (2, 2, ("root",))]
    assert [(e.first, e.last, e.authors) for e in heard.of("b", "stored")] == [(1, 1, ("bob",))]
    assert not heard.of("empty")


async def test_many_documents_are_told_of_each_in_its_order(
    start: Start, connect_hocuspocus: ConnectHocuspocus
) -> None:
    class Slow(Heard):
        async def stored(self, event: Rows, server: Server) -> None:
            await asyncio.sleep(0.005)
            await super().stored(event, server)

    heard = Slow()
    served = await start(heard, max_new_documents_per_minute=0)
    client = await connect_hocuspocus(served.hocuspocus)
    names = [f"d{number}" for number in range(100)]
    for name in names:
        await client.send(auth(name, "ada"))
    authors = {name: Author(number + 1) for number, name in enumerate(names)}
    await client.until(lambda: len(client.got(number=AUTH)) == len(names), "all are open")
    for _ in range(3):
        seen = len(client.frames)
        for name in names:
            await client.send(addressed_update(name, authors[name].type("x")))
        await client.until(
            lambda seen=seen: len(client.got(number=SYNC_STATUS, after=seen)) == len(names), "all are saved"
        )
    await happens(
        lambda: all(e and e[-1].last == 3 for e in (heard.of(name, "stored") for name in names)), "all are told"
    )
    for name in names:
        told = heard.of(name, "stored")
        assert [number for event in told for number in range(event.first, event.last + 1)] == [1, 2, 3]


async def test_hooks_that_hang_hold_up_no_edit_and_no_stop(start: Start, connect_hocuspocus: ConnectHocuspocus) -> None:
    called: list[str] = []

    class Hanging(Hooks):
        async def stored(self, event: Rows, server: Server) -> None:
            called.append("stored")
            await asyncio.Event().wait()

        async def close(self) -> None:
            called.append("close")

    served = await start(Hanging(), hook_seconds=600, drain_seconds=1)
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d", "ada")
    author = Author(1)
    for number in range(1, 21):
        await client.send(addressed_update("d", author.type("x")))
        assert await client.statuses("d", number) == [1] * number
    assert called == ["stored"]
    await served.app[DRAIN]()
    assert served.app[HUB].counts.hooks.waiting == 0


# What hooks may ask


async def test_a_hook_reads_and_edits_what_has_changed(start: Start, connect: Connect) -> None:
    read: dict[str, Any] = {}

    class Title(Hooks):
        async def changed(self, event: Rows, server: Server) -> None:
            if event.authors == ("bot",):
                return
            read["json"] = await server.read(event.name)
            read["text"] = await server.read(event.name, Format.TEXT, "text")
            read["state"] = await server.state(event.name)
            read["changed"] = await server.edit(event.name, TextInsert("text", 0, "* "), author="bot", label="stars")
            read["again"] = await server.update(event.name, read["state"], author="bot")
            read["other"] = await server.update("other/doc", text_update(5, "made"))
            server.send(event.name, "done")
            read["end"] = True

    heard = Heard()
    served = await start(Title(), heard)
    async with LiveClient(f"{served.ws('d')}?token=ada") as ada:
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await ada.until(lambda: str(ada.text()) == "* hello", "the edit of the hook")
        await happens(lambda: "end" in read, "the hook's end")
    assert json.loads(read["json"].value) == {"text": "hello"}
    assert isinstance(read["text"], Content) and read["text"].value == b"hello"
    assert read["text"].state == read["json"].state and texts(read["state"]) == "hello"
    (first, *_) = heard.of("d", "changed")
    assert (read["text"].document, read["text"].last) == (first.document, first.last)
    assert (read["changed"], read["again"], read["other"]) == (True, False, True)
    await happens(
        lambda: heard.of("d", "changed")[-1].last == 2 and heard.of("other/doc", "changed"), "told as any edit"
    )
    assert heard.of("d", "changed")[-1].authors == ("bot",) and heard.of("other/doc", "changed")[0].authors == ()


async def test_what_a_hook_asks_wrongly_is_refused(start: Start) -> None:
    said: list[BaseException | None] = []

    class Wrong(Hooks):
        async def may_create(self, event: Creation, server: Server) -> None:
            for ask in (
                lambda: server.read("nothing"),
                lambda: server.read(" "),
                lambda: server.edit("d", TextInsert("t", 0, "x"), label="x" * 300),
            ):
                try:
                    await ask()
                except Exception as error:
                    said.append(error)
            try:
                server.send("d", "x" * 70_000)
            except Exception as error:
                said.append(error)

    served = await start(Wrong())
    hooks = served.app[HUB].hooks
    assert hooks is not None
    await hooks.may_create("d", None)
    kinds = [DocumentNotFound, errors.InvalidDocumentName, LimitExceeded, LimitExceeded]
    assert [type(error) for error in said] == kinds


# Who may create


class Creating(Hooks):
    """Lets nobody create what begins with "no"; fails for what begins with "down"."""

    def __init__(self) -> None:
        self.asked: list[Creation] = []

    async def may_create(self, event: Creation, server: Server) -> None:
        self.asked.append(event)
        if event.name.startswith("no"):
            raise Refused(f"{event.user} may not create {event.name}")
        if event.name.startswith("down"):
            raise OSError("no database")


async def test_a_refused_document_is_told_in_each_protocol(
    start: Start, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    hook = Creating()
    served = await start(hook)
    ada = await connect(f"{served.ws('no/1')}?token=ada")
    assert (await ada.expect_close(), ada.close_reason) == (4403, "ada may not create no/1")
    bob = await connect_hocuspocus(served.hocuspocus)
    await bob.send(auth("no/2", "bob"))
    assert await bob.denied("no/2") == "bob may not create no/2"
    await bob.join("yes", "bob")
    await bob.send(addressed_update("yes", Author(1).type("x")))
    assert await bob.statuses("yes", 1) == [1], "the socket goes on with other documents"
    assert hook.asked == [Creation("no/1", "ada"), Creation("no/2", "bob"), Creation("yes", "bob")]
    assert served.app[HUB].rooms.keys() >= {"yes"}


async def test_who_opens_what_is_there_or_may_only_read_is_not_asked_about(start: Start, connect: Connect) -> None:
    hook = Creating()
    served = await start(hook)
    store = served.app[HUB].store
    await store.create("no/there")
    for url in (f"{served.ws('no/there')}?token=ada", f"{served.ws('no/new')}?token=rea"):
        client = await connect(url)
        await client.barrier()
    assert not hook.asked


async def test_a_second_one_is_asked_about_while_the_document_is_not_there(start: Start, connect: Connect) -> None:
    class Ada(Hooks):
        async def may_create(self, event: Creation, server: Server) -> None:
            if event.user != "ada":
                raise Refused("ada alone")

    served = await start(Ada())
    ada = await connect(f"{served.ws('d')}?token=ada")
    await ada.barrier()
    bob = await connect(f"{served.ws('d')}?token=bob")
    assert await bob.expect_close() == 4403
    await ada.send(update(Author(1).type("x")))
    await ada.barrier()
    bob = await connect(f"{served.ws('d')}?token=bob")
    await bob.barrier()


async def test_a_reader_who_may_write_by_now_is_asked_about(
    start: Start, connect_hocuspocus: ConnectHocuspocus
) -> None:
    hook = Creating()
    served = await start(hook)
    table: Table = served.app[HUB].table  # type: ignore[attr-defined]
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("no/a", "rea")
    await client.join("yes", "rea")
    assert not hook.asked
    table.rights["rea", "*"] = Access.WRITE
    seen = len(client.frames)
    await client.send(auth("no/a", "rea"))
    assert await client.denied("no/a", after=seen) == "rea may not create no/a"
    await client.send(auth("yes", "rea"))
    answer = await client.find_type("yes", AUTH, after=seen)
    assert answer.fields == (AUTHENTICATED, "read-write")
    assert [event.name for event in hook.asked] == ["no/a", "yes"]


async def test_access_that_is_checked_again_is_asked_about_too(start: Start, connect: Connect, api: Api) -> None:
    hook = Creating()
    served = await start(hook)
    table: Table = served.app[HUB].table  # type: ignore[attr-defined]
    client = await connect(f"{served.ws('no/a')}?token=rea")
    await client.barrier()
    table.rights["rea", "*"] = Access.WRITE
    status, answer = await api("POST", "control", {"action": "check", "user": "rea"})
    assert status == 200, answer
    assert await client.expect_close() == 4403
    assert hook.asked == [Creation("no/a", "rea")]


async def test_a_hook_that_fails_lets_nobody_create_for_now(
    start: Start, connect: Connect, connect_hocuspocus: ConnectHocuspocus, api: Api
) -> None:
    served = await start(Creating())
    ada = await connect(f"{served.ws('down')}?token=ada")
    assert (await ada.expect_close(), ada.close_reason) == (
        1013,
        "the application does not answer now, try again later",
    )
    bob = await connect_hocuspocus(served.hocuspocus)
    await bob.send(auth("down", "bob"))
    assert await bob.expect_close() == 1013
    status, problem = await api("POST", "documents", {"name": "down"}, "ada")
    assert (status, problem["code"]) == (503, "unavailable") and "application" in problem["detail"]
    assert "down" not in served.app[HUB].rooms or not served.app[HUB].rooms["down"].exists


REFUSED: list[tuple[str, str, Any]] = [
    ("POST", "documents", {"name": "no"}),
    ("PUT", "documents/no", {}),
    ("POST", "copies/there", {"name": "no"}),
    ("POST", "updates/no", text_update(1, "x")),
    ("PATCH", "content/no", {"edits": [{"op": "insert", "root": "t", "at": 0, "text": "x"}]}),
]


async def test_over_http_a_refusal_is_a_problem(start: Start, api: Api) -> None:
    hook = Creating()
    served = await start(hook)
    assert (await api("POST", "documents", {"name": "there"}, "ada"))[0] == 201
    hook.asked.clear()
    for method, path, body in REFUSED:
        status, problem = await api(method, path, body, "ada")
        assert (status, problem["code"], problem["detail"]) == (403, "refused", "ada may not create no"), path
    assert hook.asked == [Creation("no", "ada")] * len(REFUSED)
    assert (await api("GET", "documents/no"))[0] == 404
    hook.asked.clear()
    assert (await api("PUT", "documents/there", {}, "ada"))[0] == 200
    assert (await api("POST", "updates/there", text_update(1, "x"), "ada"))[0] == 200
    assert (await api("GET", "documents/other"))[0] == 404
    assert not hook.asked, "nothing was to be created"
    assert served.app[HUB].counts.hooks.failures.total() == 0


# Who may delete


class Deleting(Hooks):
    def __init__(self) -> None:
        self.asked: list[Deletion] = []
        self.read: list[bytes] = []

    async def before_delete(self, event: Deletion, server: Server) -> None:
        self.asked.append(event)
        self.read.append(await server.state(event.name))
        if event.name == "kept":
            raise Refused("it has to be kept for ten years")


async def test_a_deletion_is_asked_about_before_anything_happens(start: Start, api: Api, connect: Connect) -> None:
    hook = Deleting()
    served = await start(hook)
    for name in ("kept", "loose", "gone"):
        assert (await api("POST", f"updates/{name}", text_update(1, name), "ada"))[0] == 200
    client = await connect(f"{served.ws('kept')}?token=ada")
    await client.barrier()
    for query in ({}, {"erase": "true"}):
        status, problem = await api("DELETE", "documents/kept", **query)
        expected = (403, "refused", "it has to be kept for ten years")
        assert (status, problem["code"], problem["detail"]) == expected
    await client.barrier()
    assert client.close_code is None and (await api("GET", "documents/kept"))[0] == 200
    assert (await api("DELETE", "documents/loose"))[0] == 204
    assert (await api("DELETE", "documents/gone", erase="true"))[0] == 200
    assert (await api("DELETE", "documents/loose"))[0] in (404, 410)
    assert (await api("DELETE", "documents/never"))[0] == 404
    assert (await api("DELETE", "trash/loose"))[0] == 200
    asked = [(event.name, event.user, event.erase) for event in hook.asked]
    assert asked == [
        ("kept", "root", False),
        ("kept", "root", True),
        ("loose", "root", False),
        ("gone", "root", True),
    ], "nobody is asked about what is not there, or deleted already"
    assert texts(hook.read[2]) == "loose"


async def test_a_hook_that_fails_keeps_a_document(start: Start, api: Api) -> None:
    class Failing(Hooks):
        async def before_delete(self, event: Deletion, server: Server) -> None:
            await asyncio.Event().wait()

    await start(Failing(), hook_seconds=0.05)
    assert (await api("POST", "documents", {"name": "d"}, "ada"))[0] == 201
    status, problem = await api("DELETE", "documents/d")
    assert (status, problem["code"]) == (503, "unavailable")
    assert (await api("GET", "documents/d"))[0] == 200


# Stateless messages


class Chat(Hooks):
    async def stateless(self, event: Message, server: Server) -> Relay | None:
        match event.text:
            case "spam":
                return Relay(None)
            case "time?":
                return Relay(None, answer="noon")
            case "fail":
                raise ValueError
            case "rude":
                return Relay(f"{event.user}: ***", answer="be kind")
        return None


async def test_stateless_messages_are_answered_dropped_and_replaced(
    start: Start, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await start(Chat())
    ada, bob = [await connect_hocuspocus(served.hocuspocus) for _ in range(2)]
    await ada.join("d", "ada")
    await bob.join("d", "bob")
    for text in ("hello", "spam", "time?", "fail", "rude", "bye"):
        await ada.send(stateless("d", text))
    await bob.find(lambda one: one.fields == ("bye",), "the last message")
    assert [one.fields for one in bob.got("d", STATELESS)] == [("hello",), ("ada: ***",), ("bye",)]
    assert [one.fields for one in ada.got("d", STATELESS)] == [("noon",), ("be kind",)]
    # What a program sends over HTTP is the application's own.
    async with aiohttp.ClientSession() as session:
        url, headers = f"{served.url}/api/v1/messages/d", {"Authorization": "Bearer ada"}
        async with session.post(url, json={"payload": "spam"}, headers=headers) as answer:
            assert answer.status == 204
    await bob.find(lambda one: one.fields == ("spam",), "what a program sends")


async def test_a_sender_that_goes_while_it_waits_harms_nothing(
    start: Start, connect_hocuspocus: ConnectHocuspocus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGES", 1)
    gate = asyncio.Event()

    class Held(Hooks):
        async def stateless(self, event: Message, server: Server) -> Relay | None:
            await gate.wait()
            return None

    served = await start(Held())
    ada, bob = [await connect_hocuspocus(served.hocuspocus) for _ in range(2)]
    await ada.join("d", "ada")
    await bob.join("d", "bob")
    for number in range(5):
        await ada.send(stateless("d", str(number)))
    await bob.send(addressed_update("d", Author(1).type("x")))
    assert await bob.statuses("d", 1) == [1], "the edits of others go on"
    await happens(lambda: served.app[HUB].counts.hooks.waiting == 2, "one is with the hook, one waits")
    await ada.vanish()
    gate.set()
    await bob.find(lambda one: one.fields == ("1",), "what was taken before")
    await happens(lambda: served.app[HUB].counts.hooks.waiting == 0, "nothing waits")
    assert [one.fields for one in bob.got("d", STATELESS)] == [("0",), ("1",)]


# Handing in


async def test_a_hook_that_does_not_start_keeps_the_server_from_starting() -> None:
    class Broken(Hooks):
        async def start(self, server: Server) -> None:
            raise OSError("no database")

    app = create_app(Settings(), hooks=[Broken()], store=MemoryStore())
    runner = web.AppRunner(app)
    with pytest.raises(OSError, match="no database"):
        await runner.setup()
    await runner.cleanup()


def test_what_is_no_hook_is_refused() -> None:
    class Plain(Hooks):
        def stored(self, event: Rows, server: Server) -> None:  # type: ignore[override]
            pass

    one = Hooks()
    for wrong, why in (
        ([Hooks], "the class, not an instance"),
        ([object()], "object was given"),
        ([Plain()], "Plain.stored is not async: write async def stored"),
        ([one, one], "given twice"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            check_hooks(wrong)


def test_hooks_are_loaded_by_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_hooks.py").write_text(
        "from collab.hooks import Hooks\n"
        "class Own(Hooks): pass\n"
        "class Broken(Hooks):\n    def __init__(self): raise ValueError('a secret')\n"
        "class Space: own = Own()\n"
        "number = 5\n"
    )
    (tmp_path / "no_module.py").write_text("import absent_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    made = load_hooks(["own_hooks:Own", "own_hooks:Space.own"])
    assert [type(each).__name__ for each in made] == ["Own", "Own"] and made[0] is not made[1]
    for place, why in (
        ("own_hooks:Absent", "no attribute 'Absent'"),
        ("own_hooks:number", "int was given"),
        ("own_hooks:Broken", "it raised ValueError$"),
        ("no_module:x", "absent_module"),
        ("nowhere_at_all:x", "nowhere_at_all"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            load_hooks([place])
    assert load_hooks([]) == ()
    sys.modules.pop("own_hooks")


@pytest.mark.parametrize("place", ["module", "module:", ":name", "a b:c", "module:name()", "/a/b.py:x"])
def test_a_place_of_hooks_is_module_and_name(place: str) -> None:
    with pytest.raises(ConfigurationError, match="is no MODULE:NAME"):
        Settings(hooks=place)


async def test_the_settings_name_hooks_that_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first_hooks.py").write_text(
        "from collab.hooks import Hooks\n"
        "said = []\n"
        "class First(Hooks):\n    async def start(self, server): said.append('first')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    order: list[str] = []

    class Second(Hooks):
        async def start(self, server: Server) -> None:
            order.extend([*sys.modules["first_hooks"].said, "second"])

    app = create_app(Settings(hooks="first_hooks:First"), hooks=[Second()], store=MemoryStore())
    runner = web.AppRunner(app)
    await runner.setup()
    await runner.cleanup()
    assert order == ["first", "second"]
    sys.modules.pop("first_hooks")
