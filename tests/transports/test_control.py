"""``/api/v1/control`` and new names over the whole application: what live clients of both protocols see.

Strategy: an authenticator whose table the test changes while clients are connected; each token is a user's own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.errors import AccessUnavailable, Forbidden, Unauthenticated
from collab.hub import control as control_module
from collab.protocol.session import Access
from collab.storage import sql_control
from collab.storage.records import Instruction, Kind
from collab.transports.sockets import connection as connection_module
from tests.support.api import told
from tests.support.author import Author
from tests.support.hocuspocus import AUTH, AUTHENTICATED, READ_WRITE, READONLY, RawHocuspocus, auth
from tests.support.hocuspocus import step1 as addressed_step1
from tests.support.hocuspocus import update as addressed_update
from tests.support.snippets import snippet
from tests.support.waiting import happens
from tests.support.wsclient import STEP1, UPDATE, RawClient, step1, step2, update
from tests.transports.conftest import Serve, Served

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]

READ, WRITE, ADMIN = Access.READ, Access.WRITE, Access.ADMIN


class Table:
    """Who may do what: by user, who shows the name as the token, and by document; ``*`` is all other documents."""

    def __init__(self) -> None:
        self.rights: dict[tuple[str, str], Access] = {("root", "*"): ADMIN, ("owner", "a"): ADMIN}
        self.bad = {"nobody"}
        self.down = False
        self.gate: asyncio.Event | None = None  # an answer waits for it
        self.slow: tuple[str, asyncio.Event] | None = None  # a question about this user waits before it is answered
        self.asked: list[str] = []
        self.forgotten = 0

    async def authenticate(self, request: AccessRequest) -> Grant:
        user = request.token.partition(" ")[0]
        self.asked.append(user)
        if self.slow is not None and self.slow[0] == user:
            await self.slow[1].wait()
        access = self.rights.get((user, request.document_name), self.rights.get((user, "*")))
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise AccessUnavailable("switched off by the test")
        if not user or user in self.bad:
            raise Unauthenticated("no such user")
        if access is None:
            raise Forbidden("not in the table", public="not this one")
        return Grant(access, user, user.title(), time.time() + 3600)

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
async def served(serve: Serve, table: Table) -> Served:
    return await serve(authenticator=table)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Control:
    """Tells the server something as a user."""

    def __init__(self, served: Served, http: aiohttp.ClientSession) -> None:
        self._served, self._http = served, http

    async def __call__(self, body: Any, user: str = "root", **options: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {user}"} if user else {}
        options = options or {"json": body}
        async with self._http.post(f"{self._served.url}/api/v1/control", headers=headers, **options) as answer:
            return answer.status, await told(answer)

    async def done(self, body: Any, user: str = "root") -> dict[str, Any]:
        """Tell it; give what the one node reports."""
        status, answer = await self(body, user)
        assert status == 200 and answer["silent"] == [], answer
        (report,) = answer["nodes"]
        assert report.pop("done") is True
        assert report.pop("node") == self._served.app[HUB].membership.name
        found: dict[str, Any] = report
        return found

    async def patch(self, name: str, body: Any, user: str = "root") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {user}"}
        url = f"{self._served.url}/api/v1/documents/{name}"
        async with self._http.patch(url, json=body, headers=headers) as answer:
            return answer.status, await told(answer)


@pytest.fixture
def control(served: Served, http: aiohttp.ClientSession) -> Control:
    return Control(served, http)


@pytest.fixture
async def client(served: Served, connect: Connect, table: Table) -> Callable[..., Awaitable[RawClient]]:
    async def open_client(user: str, access: Access = WRITE, name: str = "a") -> RawClient:
        table.rights.setdefault((user, name), access)
        client = await connect(f"{served.ws(name)}?token={user}")
        await client.send(step1())
        await client.expect_sync(STEP1)
        return client

    return open_client


@pytest.fixture
async def provider(
    served: Served, connect_hocuspocus: ConnectHocuspocus, table: Table
) -> Callable[..., Awaitable[RawHocuspocus]]:
    async def open_client(user: str, access: Access = WRITE, name: str = "a") -> RawHocuspocus:
        table.rights.setdefault((user, name), access)
        client = await connect_hocuspocus(served.hocuspocus)
        await client.join(name, user)
        return client

    return open_client


Client = Callable[..., Awaitable[RawClient]]
Provider = Callable[..., Awaitable[RawHocuspocus]]


async def test_a_log_level_is_changed(control: Control, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collab")
    caplog.handler.setLevel(logging.DEBUG)
    nothing = {"ended": 0, "changed": 0, "undecided": 0}
    try:
        told = {"action": "log", "level": "debug", "logger": "collab.connection", "seconds": 60}
        assert await control.done(told) == nothing
        await client("ada")
        frames = [record for record in caplog.records if record.levelno == logging.DEBUG]
        assert frames and {record.name for record in frames} == {"collab.connection"}
    finally:
        assert await control.done({"action": "log", "level": "default", "logger": "collab.connection"}) == nothing
    (audited,) = [text for text in caplog.messages if "collab.connection debug" in text]
    assert audited.startswith("control: log level, collab.connection debug, for 60 s (user='root' address=127.0.0.1")
    assert not logging.getLogger("collab.connection").isEnabledFor(logging.DEBUG)


# Kick


async def test_a_kick_closes_the_sockets_of_a_user_so_that_they_come_back(
    control: Control, client: Client, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    ada, ada_too, bob = await client("ada"), await provider("ada"), await client("bob")
    assert await control.done({"action": "kick", "user": "ada"}) == {"ended": 2, "changed": 0, "undecided": 0}
    assert await ada.expect_close() == 4503
    assert await ada_too.expect_close() == 4503
    assert bob.open
    await client("ada")
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("control:")]
    assert lines[0].startswith("control: kick, user 'ada' (user='root' address=127.0.0.1")
    assert lines[1] == "control: kick, user 'ada': 2 sessions ended here, 0 with another access, 0 not decided"


async def test_lines_of_the_audit_log_are_as_they_are_written(
    control: Control, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    for _ in range(2):
        await client("17")
    await control.done({"action": "kick", "user": "17", "seconds": 3600})
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("control:")]
    written = snippet("docs/operations.md", "The audit log", "", 2).replace("203.0.113.7", "127.0.0.1")
    assert lines == written.splitlines()


async def test_a_user_who_is_kept_out_is_told_to_come_back_later_at_every_door(
    served: Served,
    control: Control,
    connect: Connect,
    connect_hocuspocus: ConnectHocuspocus,
    client: Client,
    table: Table,
) -> None:
    ada = await client("ada")
    await control.done({"action": "kick", "user": "ada", "seconds": 600})
    assert await ada.expect_close() == 4503
    again = await connect(f"{served.ws('a')}?token=ada")
    assert await again.expect_close() == 1013
    alone = await connect_hocuspocus(served.hocuspocus)
    await alone.send(auth("a", "ada"), addressed_step1("a"))
    assert await alone.expect_close() == 1013
    table.rights["ada", "a"] = ADMIN
    assert await control({"action": "reload", "document": "a"}, "ada") == (
        403,
        "an operator keeps you out for a while, come back later",
    )
    await control.done({"action": "kick", "user": "ada"})
    await client("ada")


async def test_one_who_waits_to_be_let_in_is_kept_out_too(
    served: Served, control: Control, connect: Connect, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.rights["ada", "a"] = WRITE
    hub, go_on, waits = served.app[HUB], asyncio.Event(), asyncio.Event()
    load = hub.store.load

    async def slowly(name: str) -> Any:
        waits.set()
        await go_on.wait()
        return await load(name)

    monkeypatch.setattr(hub.store, "load", slowly)
    ada = await connect(f"{served.ws('a')}?token=ada")
    await waits.wait()
    await control.done({"action": "kick", "user": "ada", "seconds": 600})
    go_on.set()
    assert await ada.expect_close() == 1013


async def test_a_connection_is_ended_by_its_number(served: Served, control: Control, client: Client) -> None:
    first, second = await client("ada"), await client("ada")
    node = served.app[HUB].membership.name
    numbers = sorted(member.client.number for member in served.app[HUB].rooms["a"].members)
    assert (await control.done({"action": "kick", "connection": f"{node}-{numbers[0]}"}))["ended"] == 1
    assert await first.expect_close() == 4503 and second.open


# Access that has changed


@pytest.mark.parametrize("of_all", [True, False])
async def test_who_may_not_read_any_more_is_sent_away_for_good(
    of_all: bool, control: Control, client: Client, provider: Provider, table: Table
) -> None:
    ada, ada_too, bob = await client("ada"), await provider("ada"), await client("bob")
    await ada_too.join("b", "root")
    del table.rights["ada", "a"]
    told = {"action": "check"} if of_all else {"action": "check", "user": "ada", "document": "a"}
    assert await control.done(told) == {"ended": 2, "changed": 0, "undecided": 0}
    assert await ada.expect_close() == 4403
    assert await ada_too.denied("a") == "not this one"
    await ada_too.barrier_of("b")  # its other document goes on
    assert bob.open and table.forgotten == 1
    assert table.asked.count("bob") == (2 if of_all else 1)


async def test_a_token_that_is_no_good_any_more_ends_the_session(
    control: Control, client: Client, provider: Provider, table: Table
) -> None:
    ada, ada_too = await client("ada"), await provider("ada")
    table.bad.add("ada")
    assert (await control.done({"action": "check", "user": "ada"}))["ended"] == 2
    assert await ada.expect_close() == 4401
    assert await ada_too.denied("a") == "a valid token is needed"


async def test_who_may_only_read_from_now_on_goes_on_reading(
    control: Control, client: Client, provider: Provider, table: Table
) -> None:
    ada, ada_too, bob = await client("ada"), await provider("ada"), await client("bob")
    table.rights["ada", "a"] = READ
    assert await control.done({"action": "check", "user": "ada"}) == {"ended": 0, "changed": 2, "undecided": 0}
    scope = await ada_too.find(
        lambda frame: frame.type == AUTH and frame.fields == (AUTHENTICATED, READONLY), "its scope"
    )
    assert scope.address == "a"
    await ada.send(update(Author(1).type("in vain")))
    await ada.expect(lambda frame: frame.type == 2, "the refusal")
    await ada_too.send(addressed_update("a", Author(2).type("in vain")))
    assert await ada_too.statuses("a", 1) == [0]
    await bob.send(update(Author(3).type("seen")))
    for reader in (ada, ada_too):
        await reader.until(lambda reader=reader: any(b"seen" in data for data in reader.frames), "what others write")
    assert not any(b"in vain" in data for data in bob.frames)
    # Nothing has changed since.
    assert await control.done({"action": "check", "user": "ada"}) == {"ended": 0, "changed": 0, "undecided": 0}


async def test_who_may_write_from_now_on_is_asked_for_what_it_has_edited_in_vain(
    control: Control, client: Client, provider: Provider, table: Table
) -> None:
    ada, ada_too, bob = await client("ada", READ), await provider("ada", READ), await client("bob")
    author = Author(1)
    await ada.send(step2(b"\0\0"), update(author.type("before ")))
    await ada.expect(lambda frame: frame.type == 2, "the refusal")
    table.rights["ada", "a"] = WRITE
    came, came_too = len(ada.frames), len(ada_too.frames)
    assert (await control.done({"action": "check", "user": "ada"}))["changed"] == 2
    await ada.expect_sync(STEP1, after=came)
    await ada.send(step2(author.updates[0]), update(author.type("after")))
    await bob.until(lambda: any(b"before " in data for data in bob.frames), "what was refused before")
    await bob.until(lambda: any(b"after" in data for data in bob.frames), "what was written then")
    await ada_too.find(
        lambda frame: frame.type == AUTH and frame.fields == (AUTHENTICATED, READ_WRITE), "its scope", after=came_too
    )


async def test_what_cannot_be_decided_now_leaves_things_as_they_are_and_is_counted(
    control: Control, client: Client, provider: Provider, table: Table, served: Served
) -> None:
    ada, ada_too = await client("ada"), await provider("ada")
    table.down = True
    reports = await served.app[HUB].control.give(Instruction(Kind.CHECK))
    assert [report[1:] for report in reports.reports] == [(0, 0, 2, True)]
    assert ada.open and ada_too.open
    table.down = False
    await ada.send(update(Author(1).type("on")))
    await ada.expect_sync(UPDATE)


async def test_one_who_was_let_in_by_an_older_answer_is_asked_about_once_more(
    served: Served, control: Control, connect: Connect, table: Table
) -> None:
    table.rights["ada", "a"] = WRITE
    table.gate = asyncio.Event()
    ada = await connect(f"{served.ws('a')}?token=ada")
    await happens(lambda: table.asked == ["ada"], "the question was asked")
    del table.rights["ada", "a"]  # the answer to it is older
    served.app[HUB].control.on_check()
    table.gate.set()
    table.gate = None
    assert await ada.expect_close() == 4403
    assert table.asked == ["ada", "ada"]


async def test_a_token_too_long_to_be_kept_is_asked_for_again(
    served: Served, control: Control, connect_hocuspocus: ConnectHocuspocus, table: Table
) -> None:
    table.rights["ada", "a"] = WRITE
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("a", "ada " + "x" * connection_module._KEPT_TOKEN)
    assert (await control.done({"action": "check"}))["ended"] == 1
    assert await client.expect_close() == 4503


async def test_a_newer_token_is_what_is_asked_about(control: Control, provider: Provider, table: Table) -> None:
    ada = await provider("ada")
    table.rights["bob", "a"] = WRITE
    await ada.send(auth("a", "bob"))
    await happens(lambda: table.asked[-1] == "bob", "the new token was looked at")
    await ada.barrier_of("a")
    del table.rights["ada", "a"]
    assert (await control.done({"action": "check"}))["ended"] == 0
    assert table.asked[-1] == "bob"


# Reload and new names


async def test_clients_of_a_document_that_is_reloaded_come_back_with_all_they_have(
    served: Served, control: Control, client: Client, provider: Provider
) -> None:
    ada, ada_too = await client("ada"), await provider("ada")
    await ada.send(update(Author(1).type("hello")))
    await ada.expect_sync(UPDATE)
    assert (await control.done({"action": "reload", "document": "a"}))["ended"] == 2
    assert await ada.expect_close() == 4502 and await ada_too.expect_close() == 4502
    again = await client("ada")
    await again.until(lambda: any(b"hello" in data for data in again.frames), "it was read from the store")


async def test_a_document_gets_another_name(
    served: Served, control: Control, client: Client, provider: Provider, table: Table
) -> None:
    ada, ada_too = await client("ada"), await provider("ada")
    await ada.send(update(Author(1).type("hello")))
    await ada.expect_sync(UPDATE)
    assert (await control.patch("a", {"title": "Title"}))[0] == 200
    status, renamed = await control.patch("a", {"name": "b/ä"})
    assert status == 200 and (renamed["name"], renamed["title"], renamed["access"]) == ("b/ä", "Title", "admin")
    assert await ada.expect_close() == 4404
    assert await ada_too.denied("a") == "the document was renamed"
    again = await client("root", ADMIN, "b/ä")
    await again.until(lambda: any(b"hello" in data for data in again.frames), "the content")
    old = await client_refused(served, table, "a")
    assert old == 4404
    assert await control.patch("a", {"title": "x"}) == (410, "the document was renamed")
    # The name is free for those who create it on purpose.
    headers = {"Authorization": "Bearer root"}
    async with control._http.post(f"{served.url}/api/v1/documents", json={"name": "a"}, headers=headers) as answer:
        assert answer.status == 201
    assert await control.patch("a", {"name": "b/ä"}) == (409, "the document exists already")


async def client_refused(served: Served, table: Table, name: str) -> int:
    table.rights["ada", name] = WRITE
    async with RawClient(f"{served.ws(name)}?token=ada") as client:
        return await client.expect_close()


# Who may


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "kick", "document": "a"}, 200),
        ({"action": "kick", "document": "a", "user": "ada", "seconds": 1}, 200),
        ({"action": "check", "document": "a"}, 200),
        ({"action": "reload", "document": "a"}, 200),
        ({"action": "kick", "user": "ada"}, 403),
        ({"action": "check"}, 403),
        ({"action": "kick", "document": "b"}, 403),
        ({"action": "kick", "connection": "node-1"}, 403),
        ({"action": "log", "level": "default"}, 403),
    ],
)
async def test_the_admin_of_a_document_may_say_what_concerns_it_alone(
    body: dict[str, Any], status: int, control: Control
) -> None:
    assert (await control(body, "owner"))[0] == status
    assert (await control(body, "root"))[0] == 200


@pytest.mark.parametrize(("user", "status"), [("", 401), ("nobody", 401), ("ada", 403)])
async def test_others_may_not(user: str, status: int, control: Control, table: Table) -> None:
    table.rights["ada", "a"] = WRITE
    assert (await control({"action": "kick", "document": "a"}, user))[0] == status
    assert (await control.patch("a", {"name": "b"}, user or "nobody"))[0] == (status if user != "" else 401)


async def test_a_new_name_needs_admin_for_both_names(control: Control, table: Table, served: Served) -> None:
    headers = {"Authorization": "Bearer root"}
    async with control._http.post(f"{served.url}/api/v1/documents", json={"name": "a"}, headers=headers) as answer:
        assert answer.status == 201
    table.rights["owner", "c"] = WRITE
    assert (await control.patch("a", {"name": "b"}, "owner"))[0] == 403
    assert (await control.patch("a", {"name": "c"}, "owner"))[0] == 403
    table.rights["owner", "c"] = ADMIN
    assert (await control.patch("a", {"name": "c"}, "owner"))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "dance"},
        {"action": ["kick"], "user": "u"},
        {"action": "kick"},
        {"action": "kick", "user": 7},
        {"action": "kick", "user": ""},
        {"action": "kick", "user": "u\ud800"},
        {"action": "kick", "user": "u", "seconds": "5"},
        {"action": "kick", "user": "u", "seconds": True},
        {"action": "kick", "user": "u", "seconds": 1e9},
        {"action": "kick", "document": "a\0b"},
        {"action": "kick", "document": " "},
        {"action": "reload"},
        {"action": "kick", "user": "u", "ip": "192.0.2.1"},
        {"action": "kick", "user": "u", "level": "debug"},
        {"action": "log"},
        {"action": "log", "level": "loud"},
        {"action": "log", "level": "debug", "logger": "sqlalchemy.engine"},
        {"action": "log", "level": "debug", "seconds": 0},
        {"action": "log", "level": "debug", "document": "a"},
        {"action": "kick", "user": "u", "\ud800": 1},
        ["kick"],
    ],
)
async def test_what_is_no_instruction_is_refused(body: Any, control: Control) -> None:
    status, answer = await control(body)
    assert status == 400 and isinstance(answer, str)


@pytest.mark.parametrize("body", [{"name": 7}, {"name": "b", "title": "t"}, {"name": ""}, {"name": "x" * 513}, {}])
async def test_what_is_no_new_name_is_refused(body: Any, control: Control, served: Served) -> None:
    headers = {"Authorization": "Bearer root"}
    async with control._http.post(f"{served.url}/api/v1/documents", json={"name": "a"}, headers=headers):
        assert (await control.patch("a", body))[0] == 400


async def test_too_many_instructions_are_refused(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_control, "MAX_INSTRUCTIONS", 1)
    assert (await control({"action": "check"}))[0] == 200
    assert (await control({"action": "check"}))[0] == 429


async def test_not_done_within_the_time_is_said_by_the_status(
    control: Control, client: Client, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await client("ada")
    monkeypatch.setattr(control_module, "ANSWER_SECONDS", 0.2)
    go_on = asyncio.Event()
    table.slow = "ada", go_on
    status, answer = await control({"action": "check", "user": "ada"})
    assert status == 202 and answer["nodes"][0]["done"] is False and answer["silent"] == []
    del table.rights["ada", "a"]
    go_on.set()
    assert await ada.expect_close() == 4403
