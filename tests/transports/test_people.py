"""``/api/v1/presence``, ``/messages`` and ``/connections`` over the whole application, with clients of both protocols.

Strategy: users are those of a table, each shows the own name as the token. Every answer is compared with
its description.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from collab.app import HUB
from collab.engine.agents import FIRST_ID, agent_id
from collab.hub import agents as agents_module
from collab.protocol.session import Access
from tests.support.api import told
from tests.support.hocuspocus import STATELESS, RawHocuspocus, awareness
from tests.support.waiting import happens
from tests.support.wsclient import AWARENESS, RawClient, awareness_entries, step1, step2, take_varbytes, text_update
from tests.support.wsclient import awareness as y_awareness
from tests.transports.conftest import Serve, Served
from tests.transports.test_control import Client, Control, Provider, Table, client, control, http, provider

__all__ = ["client", "control", "http", "provider"]

READ, WRITE, ADMIN = Access.READ, Access.WRITE, Access.ADMIN
BOT = {"user": {"name": "Bot", "color": "#30bced"}, "cursor": {"at": 3}}
STAMPED = {"user": {"name": "Ada", "color": "#30bced", "sub": "ada"}, "cursor": {"at": 3}}


class Api:
    """Asks the server as a user."""

    def __init__(self, served: Served, http: aiohttp.ClientSession) -> None:
        self._served, self._http = served, http
        self.retry_after: str | None = None

    async def __call__(
        self, method: str, path: str, body: Any = None, user: str = "root", **options: Any
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {user}"} if user else {}
        if body is not None:
            options["json"] = body
        url = f"{self._served.url}/api/v1/{path}"
        async with self._http.request(method, url, headers=headers | options.pop("headers", {}), **options) as answer:
            self.retry_after = answer.headers.get("Retry-After")
            return answer.status, await told(answer)

    async def show(
        self, name: str = "a", agent: str = "bot", state: Any = None, seconds: float = 60, user: str = "ada"
    ) -> tuple[int, Any]:
        body = {"state": BOT if state is None else state, "seconds": seconds}
        return await self("PUT", f"presence/{quote(name)}", body, user, params={"agent": agent})

    async def present(self, name: str = "a", user: str = "root") -> Any:
        status, answer = await self("GET", f"presence/{quote(name)}", user=user)
        assert status == 200, answer
        return answer


@pytest.fixture
def table() -> Table:
    table = Table()
    table.rights["ada", "a"] = WRITE
    table.rights["rea", "a"] = READ
    return table


@pytest.fixture
async def served(serve: Serve, table: Table) -> Served:
    return await serve(authenticator=table)


@pytest.fixture
async def api(served: Served, http: aiohttp.ClientSession) -> Api:
    found = Api(served, http)
    status, _ = await found("POST", "documents", {"name": "a"})
    assert status == 201
    return found


def seen(client: RawClient, agent: int) -> Any:
    """Give the state that a y-websocket client was sent last of a client ID; None when it is removed."""
    found = None
    for data in client.frames:
        if data[:1] == bytes([AWARENESS]):
            payload, _ = take_varbytes(data, 1)
            for entry, _, state in awareness_entries(payload):
                if entry == agent:
                    found = json.loads(state)
    return found


# Who is in


async def test_who_is_in_a_document_is_shown_to_its_admins(
    served: Served, api: Api, client: Client, provider: Provider
) -> None:
    ada, rea = await client("ada"), await provider("rea", READ)
    await ada.send(y_awareness((7, 1, '{"user":{"name":"Mallory","color":"#123"}}')))
    await rea.send(awareness("a", (8, 1, '{"user":{"name":"R"},"cursor":1}')))
    await ada.barrier()
    await rea.barrier_of("a")
    hub = served.app[HUB]
    found = await api.present()
    assert (found["name"], found["sessions"], found["complete"], found["silent"]) == ("a", 2, True, [])
    people = {person["user"]: person for person in found["participants"]}
    assert people["ada"]["name"] == "Ada" and people["ada"]["color"] == "#123" and people["ada"]["clients"] == [7]
    assert (people["ada"]["protocol"], people["ada"]["access"]) == ("y-websocket", "write")
    assert (people["rea"]["protocol"], people["rea"]["access"]) == ("hocuspocus", "read")
    for person in people.values():
        assert person["node"] == hub.membership.name and person["connection"].startswith(person["node"] + "-")
        assert person["agent"] is None
        assert abs((datetime.now(UTC) - datetime.fromisoformat(person["since"])).total_seconds()) < 60
    states = {state["client"]: state["state"] for state in found["states"]}
    assert states == {
        7: {"user": {"name": "Ada", "color": "#123", "sub": "ada"}},
        8: {"user": {"name": "Rea", "sub": "rea"}, "cursor": 1},
    }


async def test_others_see_what_people_show_and_not_who_they_are(api: Api, client: Client) -> None:
    await client("ada")
    for user in ("ada", "rea"):
        (person,) = (await api.present(user=user))["participants"]
        assert (person["user"], person["connection"], person["node"]) == (None, None, None)
    assert (await api("GET", "presence/b", user="rea"))[0] == 403
    assert (await api("GET", "presence/a", user=""))[0] == 401
    assert (await api.present("never"))["participants"] == []


async def test_documents_under_a_prefix_are_listed_that_may_be_read(api: Api, client: Client, table: Table) -> None:
    for name in ("a", "team/1", "team/2", "team/3", "z"):
        await client("ada", name=name)
    assert (await api("GET", "presence"))[1]["next"] is None
    names: list[str] = []
    cursor = None
    while True:
        query = {"prefix": "team/", "limit": "2"} | ({} if cursor is None else {"cursor": cursor})
        status, page = await api("GET", "presence", params=query)
        assert status == 200 and page["silent"] == []
        names += [document["name"] for document in page["documents"]]
        if (cursor := page["next"]) is None:
            break
    assert names == ["team/1", "team/2", "team/3"]
    table.rights["rea", "team/2"] = READ
    status, page = await api("GET", "presence", user="rea")
    assert [document["name"] for document in page["documents"]] == ["a", "team/2"]
    assert all(person["user"] is None for document in page["documents"] for person in document["participants"])
    assert (await api("GET", "presence", user="nobody"))[0] == 401
    assert await api("GET", "presence", user="") == (401, "a token is needed")


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "201"}, {"limit": "x"}, {"cursor": "x"}, {"cursor": "bmE"}, {"of": "a"}],
)
@pytest.mark.parametrize("path", ["presence", "connections"])
async def test_what_is_no_question_is_refused(api: Api, path: str, query: dict[str, str]) -> None:
    assert (await api("GET", path, params=query))[0] == 400


# Agents


async def test_an_agent_is_seen_by_clients_of_both_protocols_and_ends_when_it_is_told_to(
    served: Served, api: Api, client: Client, provider: Provider
) -> None:
    rea, bob = await client("rea", READ), await provider("bob")
    status, shown = await api.show()
    bot = agent_id("a", "ada", "bot")
    assert status == 200 and shown["client"] == bot >= FIRST_ID and shown["state"] == STAMPED
    left = datetime.fromisoformat(shown["until"]) - datetime.now(UTC)
    assert 50 < left.total_seconds() < 61
    await rea.until(lambda: seen(rea, bot) == STAMPED, "the agent")
    frame = await bob.find(lambda frame: frame.type == 1 and b"30bced" in frame.fields[0], "the agent")
    assert frame.address == "a"
    late = await client("late")
    await late.until(lambda: seen(late, bot) == STAMPED, "the agent, for a newcomer")
    found = await api.present()
    agent = next(person for person in found["participants"] if person["agent"] is not None)
    assert (agent["agent"], agent["user"], agent["name"], agent["clients"]) == ("bot", "ada", "Ada", [bot])
    assert (agent["protocol"], agent["access"], agent["connection"]) == ("agent", "write", None)
    assert found["sessions"] == 4
    # Only its user ends it.
    assert await api("DELETE", "presence/a?agent=bot", user="rea") == (200, {"ended": False, "silent": []})
    assert await api("DELETE", "presence/a?agent=bot", user="ada") == (200, {"ended": True, "silent": []})
    await rea.until(lambda: seen(rea, bot) is None, "its end")
    assert (await api.present())["sessions"] == 3


async def test_an_agent_lives_as_long_as_it_says(api: Api, client: Client) -> None:
    rea, bot = await client("rea", READ), agent_id("a", "rea", "bot")
    assert (await api.show(seconds=1, user="rea"))[0] == 200
    await rea.until(lambda: seen(rea, bot), "the agent")
    await rea.until(lambda: seen(rea, bot) is None, "its end")
    assert (await api.present())["sessions"] == 1


async def test_agents_of_two_users_are_two(api: Api) -> None:
    clients = {(await api.show(user=user))[1]["client"] for user in ("ada", "rea", "ada", "root")}
    assert len(clients) == 3 and (await api.present())["sessions"] == 3


async def test_a_name_with_slashes_has_agents_too(api: Api, table: Table) -> None:
    assert (await api("POST", "documents", {"name": "team/n ü"}))[0] == 201
    assert (await api.show("team/n ü", user="root"))[0] == 200
    assert (await api.present("team/n ü"))["sessions"] == 1


async def test_a_kick_ends_the_agents_of_a_user(control: Control, api: Api, client: Client) -> None:
    await client("ada")
    await api.show()
    assert (await control.done({"action": "kick", "user": "ada", "seconds": 60}))["ended"] == 2
    assert (await api.present())["sessions"] == 0
    assert (await api.show())[0] == 403, "it is kept out"


async def test_its_access_is_asked_about_again_with_the_token_that_showed_it(
    control: Control, api: Api, table: Table
) -> None:
    await api.show()
    table.rights["ada", "a"] = READ
    assert (await control.done({"action": "check"}))["changed"] == 1
    assert (await api.present())["participants"][0]["access"] == "read"
    del table.rights["ada", "a"]
    assert (await control.done({"action": "check", "user": "ada"}))["ended"] == 1
    assert (await api.present())["sessions"] == 0


async def test_an_agent_may_not_pass_for_what_it_is_not(api: Api, client: Client) -> None:
    """Its ID is made by the server, and its user is written by the server: its state cannot take anybody's place."""
    ada = await client("ada")
    await ada.send(y_awareness((7, 1, '{"user":{"name":"Ada"}}')))
    await ada.barrier()
    await api.show(state={"user": {"sub": "ada", "name": "Ada"}, "clientID": 7}, user="rea")
    states = {state["client"]: state["state"] for state in (await api.present())["states"]}
    assert states[7]["user"]["sub"] == "ada" and states[agent_id("a", "rea", "bot")]["user"]["sub"] == "rea"


async def test_no_client_takes_the_id_of_an_agent(api: Api, client: Client) -> None:
    bot = (await api.show())[1]["client"]
    ada = await client("ada")
    await ada.send(y_awareness((bot, 2**31, '{"user":{"name":"Ada"}}')), y_awareness((bot, 2**31, "null")))
    await ada.barrier()
    states = {state["client"]: state["state"] for state in (await api.present())["states"]}
    assert states == {bot: STAMPED}


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("", {"state": {}, "seconds": 5}, 400),
        ("?agent=", {"state": {}, "seconds": 5}, 400),
        ("?agent=" + "x" * 129, {"state": {}, "seconds": 5}, 400),
        ("?agent=" + "%C3%A4" * 65, {"state": {}, "seconds": 5}, 400),
        ("?agent=%00", {"state": {}, "seconds": 5}, 400),
        ("?agent=a&agent=b", {"state": {}, "seconds": 5}, 400),
        ("?agent=a", {"state": {}}, 400),
        ("?agent=a", {"seconds": 5}, 400),
        ("?agent=a", {"state": None, "seconds": 5}, 400),
        ("?agent=a", {"state": [], "seconds": 5}, 400),
        ("?agent=a", {"state": {}, "seconds": 0}, 400),
        ("?agent=a", {"state": {}, "seconds": 3601}, 400),
        ("?agent=a", {"state": {}, "seconds": "5"}, 400),
        ("?agent=a", {"state": {}, "seconds": True}, 400),
        ("?agent=a", {"state": {}, "seconds": 5, "clock": 7}, 400),
        ("?agent=a", '{"state": {"x": NaN}, "seconds": 5}', 400),
        ("?agent=a", '{"state": {"x": 1e999}, "seconds": 5}', 400),
        ("?agent=a", '{"state": {"x": "\\ud800"}, "seconds": 5}', 400),
        ("?agent=a", '{"state": {"x": ' + "[" * 3_000 + "]" * 3_000 + '}, "seconds": 5}', 400),
        ("?agent=a", '{"state": {"x": ' + "9" * 5_000 + '}, "seconds": 5}', 400),
        ("?agent=a", {"state": {"x": "y" * 20_000}, "seconds": 5}, 413),
        ("?agent=a", {"state": {}, "seconds": 5}, 200),
        ("?agent=" + "%C3%A4" * 64, {"state": {"x": ["ä", 1.5, None, {"y": 2**60}]}, "seconds": 1.5}, 200),
    ],
)
async def test_what_is_no_agent_is_refused(api: Api, query: str, body: Any, status: int) -> None:
    options: dict[str, Any] = {"json": body}
    if isinstance(body, str):
        options = {"data": body.encode(), "headers": {"Content-Type": "application/json"}}
    url = f"presence/a{query}"
    found, answer = await api("PUT", url, user="ada", **options)
    assert found == status, answer
    assert (await api.present())["sessions"] == (status == 200)


async def test_too_large_for_what_one_may_show(serve: Serve, http: aiohttp.ClientSession, table: Table) -> None:
    api = Api(await serve(authenticator=table, max_awareness_bytes=1024), http)
    assert (await api("POST", "documents", {"name": "a"}))[0] == 201
    assert (await api.show(state={"x": "y" * 1_100}))[0] == 413
    assert (await api.show(state={"x": "y" * 900}))[0] == 200


async def test_agents_have_bounds(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents_module, "MAX_OF_USER", 1)
    assert (await api.show())[0] == 200
    assert await api.show(agent="two") == (429, "there are 1 agents of this user already")
    assert int(api.retry_after or "0") > 1
    for _ in range(60):
        status, answer = await api.show()
        if status != 200:
            break
    assert (status, answer) == (429, "an agent may change 4 times a second") and api.retry_after == "1"


async def test_agents_need_a_document_that_may_be_read(api: Api, table: Table) -> None:
    table.rights["ada", "never"] = WRITE
    assert (await api.show("never"))[0] == 404
    assert (await api.show("b"))[0] == 403
    assert (await api.show(user=""))[0] == 401
    assert (await api("DELETE", "presence/b?agent=bot", user="ada"))[0] == 403
    assert (await api("DELETE", "presence/a", user="ada"))[0] == 400
    assert (await api("DELETE", "documents/a"))[0] == 204
    assert (await api.show())[0] == 410


async def test_an_agent_ends_with_the_token_that_showed_it(
    serve: Serve, http: aiohttp.ClientSession, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(authenticator=table)
    api = Api(served, http)
    assert (await api("POST", "documents", {"name": "a"}))[0] == 201
    hub = served.app[HUB]
    monkeypatch.setattr(hub, "clock", lambda clock=hub.clock: clock() + 3590)
    status, shown = await api.show(seconds=3600)
    assert status == 200
    left = datetime.fromisoformat(shown["until"]).timestamp() - hub.clock()
    assert 0 < left <= 10


# Stateless messages


async def test_a_message_reaches_those_whose_protocol_has_them(
    api: Api, client: Client, provider: Provider, table: Table
) -> None:
    rea, bob = await provider("rea", READ), await provider("bob")
    ada = await client("ada")
    await bob.join("b", "root")
    before = len(ada.frames)
    assert await api("POST", "messages/a", {"payload": "hä\U0001f600\n"}, user="ada") == (204, None)
    for each in (rea, bob):
        frame = await each.find_type("a", STATELESS)
        assert frame.fields == ("hä\U0001f600\n",)
    await ada.barrier()
    assert all(b"h\xc3\xa4" not in data for data in ada.frames[before:])
    assert not bob.got("b", STATELESS)
    assert await api("POST", "messages/nobody-is-here", {"payload": ""}) == (204, None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"payload": 7}, 400),
        ({"payload": "x", "to": "y"}, 400),
        ('{"payload": "\\ud800"}', 400),
        ({"payload": "x" * 1_001}, 413),
        ({"payload": "ä" * 501}, 413),
        ({"payload": "x" * 50_000}, 413),
        ({"payload": "ä" * 500}, 204),
    ],
)
async def test_what_is_no_message_is_refused(
    serve: Serve, http: aiohttp.ClientSession, table: Table, body: Any, status: int
) -> None:
    api = Api(await serve(authenticator=table, max_stateless_bytes=1_000), http)
    options: dict[str, Any] = {"json": body}
    if isinstance(body, str):
        options = {"data": body.encode(), "headers": {"Content-Type": "application/json"}}
    assert (await api("POST", "messages/a", user="ada", **options))[0] == status


async def test_messages_need_write_access_and_a_server_that_relays_them(
    serve: Serve, http: aiohttp.ClientSession, api: Api, table: Table
) -> None:
    assert (await api("POST", "messages/a", {"payload": "x"}, user="rea"))[0] == 403
    assert (await api("POST", "messages/a", {"payload": "x"}, user=""))[0] == 401
    off = Api(await serve(authenticator=table, stateless="off"), http)
    assert (await off("POST", "messages/a", {"payload": "x"}))[0] == 422


async def test_messages_have_a_rate(serve: Serve, http: aiohttp.ClientSession, table: Table) -> None:
    api = Api(await serve(authenticator=table, max_stateless_per_second=3), http)
    statuses = [(await api("POST", "messages/a", {"payload": "x"}, user="ada"))[0] for _ in range(20)]
    assert statuses[:3] == [204] * 3 and 429 in statuses
    assert (await api("POST", "messages/a", {"payload": "x"}))[0] == 204, "another user has a rate of its own"


# Connections


async def test_connections_are_listed_for_the_admins_of_all_documents(
    served: Served, api: Api, client: Client, provider: Provider
) -> None:
    await client("ada")
    bob = await provider("bob")
    await bob.join("b", "root")
    status, page = await api("GET", "connections")
    assert status == 200 and page["silent"] == [] and page["next"] is None
    first, second = page["connections"]
    node = served.app[HUB].membership.name
    assert first["node"] == node and first["id"].startswith(f"{node}-") and first["id"] != second["id"]
    assert (first["users"], first["address"], first["protocol"]) == (["ada"], "127.0.0.1", "y-websocket")
    assert first["documents"] == [{"name": "a", "access": "write", "lagging": False}]
    assert (second["users"], second["protocol"], second["open"]) == (["bob", "root"], "hocuspocus", 2)
    assert [place["name"] for place in second["documents"]] == ["a", "b"] and second["waiting_bytes"] == 0
    for query, count in (({"user": "root"}, 1), ({"user": "eve"}, 0), ({"node": node}, 2), ({"node": "x"}, 0)):
        status, page = await api("GET", "connections", params=query)
        assert status == 200 and len(page["connections"]) == count
    status, one = await api("GET", "connections", params={"limit": "1"})
    status, two = await api("GET", "connections", params={"limit": "1", "cursor": one["next"]})
    assert [one["connections"][0]["id"], two["connections"][0]["id"]] == [first["id"], second["id"]]
    assert two["next"] is None


async def test_the_admin_of_a_document_sees_its_connections_alone(api: Api, client: Client, provider: Provider) -> None:
    await client("ada")
    bob = await provider("bob")
    await bob.join("b", "root")
    await client("eve", name="b")
    for user in ("owner", "root"):
        status, page = await api("GET", "connections", params={"document": "a"}, user=user)
        assert status == 200 and len(page["connections"]) == 2
        for connection in page["connections"]:
            assert connection["address"] is None
            assert [place["name"] for place in connection["documents"]] == ["a"] and connection["open"] == 1
        assert [connection["users"] for connection in page["connections"]] == [["ada"], ["bob"]]
    assert (await api("GET", "connections", user="owner"))[0] == 403
    assert (await api("GET", "connections", params={"user": "ada"}, user="owner"))[0] == 403
    assert (await api("GET", "connections", params={"document": "b"}, user="owner"))[0] == 403
    assert (await api("GET", "connections", params={"document": "a"}, user="ada"))[0] == 403
    assert (await api("GET", "connections", user=""))[0] == 401


async def test_a_connection_without_a_document_is_listed_too(
    api: Api, served: Served, connect_hocuspocus: Callable[[str], Awaitable[RawHocuspocus]]
) -> None:
    idle = await connect_hocuspocus(served.hocuspocus)
    await happens(lambda: idle.open, "it is open")
    status, page = await api("GET", "connections")
    (connection,) = page["connections"]
    assert (connection["users"], connection["documents"], connection["open"]) == ([], [], 0)


async def test_a_kick_takes_the_id_of_the_list(api: Api, control: Control, client: Client) -> None:
    ada, bob = await client("ada"), await client("bob")
    status, page = await api("GET", "connections", params={"user": "ada"})
    assert (await control.done({"action": "kick", "connection": page["connections"][0]["id"]}))["ended"] == 1
    assert await ada.expect_close() == 4503 and bob.open


async def test_everybody_may_where_nobody_signs_in(serve: Serve, http: aiohttp.ClientSession) -> None:
    served = await serve()
    api = Api(served, http)
    async with RawClient(served.ws("a")) as client:
        await client.send(step1(), step2(text_update(1, "hello")))
        await client.barrier()
        status, shown = await api.show(user="")
        assert status == 200 and shown["state"] == BOT
        assert (await api.present(user=""))["sessions"] == 2
        status, page = await api("GET", "connections", user="")
        assert page["connections"][0]["address"] == "127.0.0.1" and page["connections"][0]["users"] == []
