"""What operators see and do over the HTTP API: all nodes, busy documents, one from inside, and putting it in order.

Strategy: whole applications, two of them on one PostgreSQL where it is about several nodes, with clients of the test's
own. Every answer is compared with its description.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from pycrdt import Array, Doc, Map, Text

from collab.app import GUARD, HUB, METRICS
from collab.audit import Who
from collab.errors import Forbidden
from collab.hub import activity as activity_module
from collab.hub import questions as questions_module
from collab.hub.questions import MAX_ANSWER, Facts
from collab.protocol.session import Access
from collab.transports.http import figures as figures_module
from collab.transports.http.api import inspection as inspection_module
from tests.support.api import told
from tests.support.waiting import eventually, happens
from tests.support.wsclient import LiveClient, RawClient, step1, text_update
from tests.transports.conftest import Serve, Served
from tests.transports.test_control import Table, http

__all__ = ["http"]


class Api:
    """Asks a server as a user."""

    def __init__(self, served: Served, http: aiohttp.ClientSession, user: str = "") -> None:
        self._served, self._http, self._user = served, http, user

    async def __call__(self, method: str, path: str, body: Any = None, user: str | None = None) -> tuple[int, Any]:
        user = self._user if user is None else user
        headers = {"Authorization": f"Bearer {user}"} if user else {}
        options = {} if body is None else {"json": body}
        url = f"{self._served.url}/api/v1/{path}"
        async with self._http.request(method, url, headers=headers, **options) as answer:
            return answer.status, await told(answer)

    async def good(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self(method, path, body)
        assert status in (200, 201, 204), (path, answer)
        return answer

    async def type(self, name: str, text: str, at: int = 0) -> None:
        await self.good(
            "PATCH", f"content/{name}", {"edits": [{"op": "insert", "root": "text", "at": at, "text": text}]}
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and give no answer twice."""
    monkeypatch.setattr(figures_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(figures_module, "_FRESH", 0.0)
    monkeypatch.setattr(questions_module, "_RECENT", 0)


@pytest.fixture
async def api(serve: Serve, http: aiohttp.ClientSession) -> Api:
    return Api(await serve(), http)


@pytest.fixture
async def pair(
    serve: Serve, http: aiohttp.ClientSession, postgres_url: str
) -> AsyncIterator[tuple[Served, Served, Api, Api]]:
    one, two = [await serve(database_url=postgres_url) for _ in range(2)]

    def heard() -> bool:
        return all(each.app[HUB].bus.others == 1 and each.app[HUB].bus.steady for each in (one, two))

    await happens(heard, "both nodes hear each other")
    yield one, two, Api(one, http), Api(two, http)


def node_of(served: Served) -> str:
    name: str = served.app[HUB].membership.name
    return name


# Who may


async def test_who_is_no_admin_of_all_documents_sees_and_does_nothing(
    serve: Serve, http: aiohttp.ClientSession
) -> None:
    table = Table()
    table.rights["ada", "a"] = Access.ADMIN  # of one document alone
    served = await serve(authenticator=table)
    api = Api(served, http)
    assert (await api("POST", "documents", {"name": "a", "title": "hidden"}, "root"))[0] == 201
    asked = [
        ("GET", "nodes", None),
        ("GET", "nodes/history", None),
        ("GET", "rooms", None),
        ("GET", "connections", None),
        ("GET", "connections?search=a&order=received", None),
        ("GET", "inspect/a", None),
        ("GET", "log/a", None),
        ("POST", "compact/a", None),
        ("POST", "verify/a", None),
        ("POST", "repair/a", {"dry_run": True}),
        ("POST", "control", {"action": "quarantine", "document": "a", "seconds": 60}),
        ("POST", "control", {"action": "release", "document": "a"}),
    ]
    for method, path, body in asked:
        for user, status in (("", 401), ("nobody", 401), ("ada", 403)):
            answer = await api(method, path, body, user)
            assert answer[0] == status and "hidden" not in str(answer[1]), (path, user, answer)
        assert (await api(method, path, body, "root"))[0] == 200, path
    hub = served.app[HUB]
    assert hub.control.followed["quarantine"] == hub.control.followed["release"] == 1


async def test_the_admin_of_one_document_finds_no_addresses(
    serve: Serve, http: aiohttp.ClientSession, connect: Callable[[str], Any]
) -> None:
    table = Table()
    table.rights |= {("ada", "a"): Access.ADMIN, ("ada", "secret"): Access.WRITE}
    served = await serve(authenticator=table)
    api = Api(served, http, "ada")
    client: RawClient = await connect(f"{served.ws('a')}?token=ada")
    await client.send(step1())
    await client.barrier()
    for search, count in (("ada", 1), ("127.0.0.1", 0), ("secret", 0), ("", 1)):
        page = await api.good("GET", f"connections?document=a&order=waiting&search={search}")
        assert len(page["connections"]) == count, search
        assert all(each["address"] is None for each in page["connections"])
    (found,) = (await Api(served, http, "root").good("GET", "connections?search=127.0.0"))["connections"]
    assert found["address"] == "127.0.0.1" and found["received_bytes"] > 0


# All nodes


async def test_every_node_shows_all_of_them(pair: tuple[Served, Served, Api, Api]) -> None:
    one, two, first, second = pair
    async with LiveClient(one.ws("d")) as ada, LiveClient(two.ws("d")) as bob, LiveClient(two.ws("e")):
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await bob.until(lambda: str(bob.text()) == "hello", "the other node")
        for asked, api in ((one, first), (two, second)):
            said = await api.good("GET", "nodes")
            assert said["asked"] == node_of(asked) and said["silent"] == []
            nodes = {node["name"]: node for node in said["nodes"]}
            assert list(nodes) == sorted(map(node_of, (one, two)))
            assert [nodes[node_of(each)]["connections"]["y-websocket"] for each in (one, two)] == [1, 2]
            assert [nodes[node_of(each)]["rooms"] for each in (one, two)] == [1, 2]
            for node in nodes.values():
                assert node["ready"] and node["bus"]["kind"] == "postgresql" and node["bus"]["others"] == 1
                assert node["memory"]["used"] > 1e6 and node["started_at"] < node["at"]
            rooms = await api.good("GET", "rooms?order=sessions")
            shared, alone = rooms["rooms"]
            assert (shared["name"], shared["sessions"], shared["number"]) == ("d", 2, 1)
            assert shared["nodes"] == sorted(nodes) and alone["nodes"] == [node_of(two)]
            assert rooms["total"] == 3 and rooms["silent"] == []
            found = await api.good("GET", f"rooms?search=D&node={node_of(one)}")
            assert [room["sessions"] for room in found["rooms"]] == [1]
            inside = await api.good("GET", "inspect/d")
            assert [each["sessions"] for each in inside["nodes"]] == [1, 1] and inside["number"] == 1
            history = await api.good("GET", f"nodes/history?node={node_of(two)}")
            assert [node["name"] for node in history["nodes"]] == [node_of(two)]


async def test_a_node_that_says_nothing_is_said_to_be_silent(
    pair: tuple[Served, Served, Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, api, _ = pair
    await api.type("d", "x")

    async def nothing(asked: Facts) -> None:
        return None

    async def another_release(asked: Facts) -> Facts:
        return {"what": "nobody knows", "items": "none"}

    monkeypatch.setattr(questions_module, "ANSWER_SECONDS", 0.2)
    for answer in (nothing, another_release):
        monkeypatch.setattr(two.app[HUB].questions, "_answer", answer)
        for path in ("nodes", "nodes/history", "rooms", "inspect/d", "connections?order=waiting"):
            assert (await api.good("GET", path))["silent"] == [node_of(two)], (path, answer)
    await happens(lambda: len(one.app[HUB].membership.nodes) == 2, "the next heartbeat")
    assert {beat["name"] for beat in (await api.good("GET", "nodes"))["heartbeats"]} == {node_of(one), node_of(two)}


async def test_the_figures_are_those_of_the_metrics(
    serve: Serve, http: aiohttp.ClientSession, connect: Callable[[str], Any]
) -> None:
    served = await serve()
    api = Api(served, http)
    client: RawClient = await connect(served.ws("d"))
    await client.send(step1())
    await client.send(*[bytes([0, 2, len(data)]) + data for n in range(3) if (data := text_update(7 + n, "abc"))])
    await client.barrier()
    served.app[GUARD].audit.note(Forbidden("no"), Who(address="192.0.2.1"))
    (node,) = (await api.good("GET", "nodes"))["nodes"]
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in served.app[METRICS].collect()
        for sample in metric.samples
    }
    assert node["connections"]["y-websocket"] == samples["collab_connections", "y-websocket"] == 1
    assert node["rooms"] == samples["collab_rooms",] and node["sessions"] == samples["collab_sessions",]
    assert node["refusals"] == [{"reason": "forbidden", "total": 1, "hour": 1}]
    assert samples["collab_refusals_total", "forbidden"] == 1 and node["limits"] == []
    assert node["memory"]["parts"]["documents"] == samples["collab_memory_bytes", "documents"] > 0


async def test_the_last_hour_has_so_many_samples_at_most(
    serve: Serve, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_module, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(figures_module, "SAMPLES", 4)
    served = await serve()
    api = Api(served, http)
    await api.type("d", "x")
    first = (await api.good("GET", "nodes/history"))["nodes"][0]

    found = first

    async def full() -> bool:
        nonlocal found
        found = (await api.good("GET", "nodes/history"))["nodes"][0]
        return len(found["at"]) == 4 and found["at"][0] > (first["at"] or [0])[-1]

    await eventually(full, "newer samples")
    assert set(found["series"]) == set(figures_module.SERIES)
    assert {len(values) for values in found["series"].values()} == {4} and found["series"]["rooms"] == [1] * 4
    later = (await api.good("GET", f"nodes/history?since={found['at'][-1]}"))["nodes"][0]
    assert all(at > found["at"][-1] for at in later["at"])
    assert (await api.good("GET", "nodes/history?node=nobody"))["nodes"] == []


async def test_rates_count_what_is_done_while_somebody_asks(api: Api, serve: Serve) -> None:
    await api.type("d", "x")
    await api.type("quiet", "x")

    rates: dict[str, float | None] = {}

    async def counted() -> bool:
        nonlocal rates
        await api.type("d", "more")
        found = await api.good("GET", "rooms")
        rates = {room["name"]: room["edits_per_second"] for room in found["rooms"]}
        return bool(rates["d"])

    await eventually(counted, "a rate")
    assert list(rates) == ["d", "quiet"] and rates["quiet"] == 0
    (node,) = (await api.good("GET", "nodes"))["nodes"]
    while not node["rates"]["edits"]:
        await api.type("d", "more")
        (node,) = (await api.good("GET", "nodes"))["nodes"]
    assert node["acknowledgement"]["p99"] > 0 and node["rates"]["stored_bytes"] > 0


async def test_rooms_have_pages_that_leave_none_out_and_answers_that_fit(
    serve: Serve, http: aiohttp.ClientSession
) -> None:
    served = await serve(max_new_documents_per_minute=0)
    api, hub = Api(served, http), served.app[HUB]
    names = [f"{number:03}-{'ä' * 200}" for number in range(260)]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context((await hub.open(name)).visited())  # else it leaves memory: it is not stored
        found: list[str] = []
        path = "rooms?order=name&limit=200"
        cursor = ""
        while True:
            page = await api.good("GET", path + cursor)
            found += [room["name"] for room in page["rooms"]]
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"
        assert found == names and page["total"] == 260
        for order in activity_module.ORDERS:
            said = await hub.activity.answer({"kind": "rooms", "order": order, "limit": 200})
            assert len(json.dumps(said)) < MAX_ANSWER and len(said["items"]) > 150
        assert len((await api.good("GET", "rooms?order=size&search=04&limit=5"))["rooms"]) == 5
    for query in ("limit=201", "order=wrong", "order=size&cursor=cjA", "search=" + "x" * 201, "what=1"):
        assert (await api("GET", f"rooms?{query}"))[0] == 400, query


# One document


async def test_updates_are_decoded(api: Api) -> None:
    doc: Doc[Any] = Doc()
    doc["text"], doc["map"] = text, mapping = Text(), Map()
    before = doc.get_state()
    text += "hello 😀 world"
    mapping["list"] = Array([1, None, "x"])
    whole = doc.get_update(before)
    await api.good("POST", "documents", {"name": "a/d"})
    await _post(api, "a/d", whole)
    state = doc.get_state()
    del text[0:6]
    text.format(0, 2, {"bold": True})
    await _post(api, "a/d", doc.get_update(state))
    page = await api.good("GET", "log/a/d")
    second, first = page["rows"]
    assert (first["number"], second["number"], page["next"]) == (1, 2, None) and first["bytes"] == len(whole)
    decoded = first["decoded"]
    assert decoded["structs"]["string"] == {"count": 1, "length": 14} and decoded["structs"]["type"]["count"] == 1
    assert decoded["roots"] == ["text", "map"] and decoded["text"] == "hello 😀 world"
    (share,) = decoded["clients"]
    assert share["client"] == doc.client_id and share["from"] == 0 and share["to"] == 18
    assert second["decoded"]["deletes"] == {"clients": 1, "ranges": 1, "length": 6}
    assert second["decoded"]["structs"] == {"format": {"count": 2, "length": 2}}
    assert second["decoded"]["clients"][0]["from"] == 18


async def _post(api: Api, name: str, update: bytes) -> None:
    url = f"{api._served.url}/api/v1/updates/{name}"
    async with api._http.post(url, data=update, headers={"Content-Type": "application/octet-stream"}) as answer:
        assert answer.status in (200, 204), await answer.text()


async def test_pages_of_the_log_leave_no_row_out(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(23):
        await api.type("d", f"{number} ")
    found: list[int] = []
    before = ""
    while True:
        page = await api.good("GET", f"log/d?limit=7{before}")
        assert len(page["rows"]) <= 7
        found += [row["number"] for row in page["rows"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert found == list(range(23, 0, -1))
    monkeypatch.setattr(inspection_module, "_PAGE_BYTES", 1)
    assert len((await api.good("GET", "log/d?limit=100"))["rows"]) == 10, "a page of large rows ends early"
    monkeypatch.setattr(inspection_module, "MAX_DECODED", 10)
    assert None in [row["decoded"] for row in (await api.good("GET", "log/d"))["rows"]]
    for query in ("limit=101", "limit=0", "before=0", "before=x"):
        assert (await api("GET", f"log/d?{query}"))[0] == 400, query
    for path in ("log/none", "inspect/none"):
        assert (await api("GET", path))[0] == 404


async def test_a_document_is_shown_from_inside(api: Api) -> None:
    await api.good("POST", "documents", {"name": "d", "title": "A title", "metadata": {"k": 1}})
    await api.type("d", "hello")
    made = await api.good("POST", "compact/d")
    assert made["made"] and (made["number"], made["was_number"], made["reason"]) == (1, 0, None)
    assert not (again := await api.good("POST", "compact/d"))["made"] and again["reason"]
    await api.type("d", "more")
    # It refers to what nobody has sent.
    doc: Doc[Any] = Doc()
    doc["text"] = text = Text()
    text += "first"
    state = doc.get_state()
    text += "second"
    async with LiveClient(api._served.ws("d")) as client:
        await client.until_synced()
        await client.send(bytes([0, 2, len(data := doc.get_update(state))]) + data)
        inside: Any = None

        async def waits() -> bool:
            nonlocal inside
            inside = await api.good("GET", "inspect/d")
            return bool(inside["pending"])

        await eventually(waits, "an update that waits")
        assert (inside["title"], inside["metadata"], inside["number"]) == ("A title", {"k": 1}, 2)
        assert (inside["rows"], inside["first_row"], inside["tail_rows"], inside["pending_count"]) == (2, 1, 1, 1)
        assert [each["number"] for each in inside["snapshots"]] == [1] and inside["snapshots_count"] == 1
        (waiting,) = inside["pending"]
        assert not waiting["damaged"] and waiting["decoded"]["text"] == "second"
        (node,) = inside["nodes"]
        assert node["open"] and node["pending_updates"] == 1 and node["snapshot_number"] == 1
        assert node["sessions"] == 1 and node["closed_by"] is None and node["damaged"] is None


# Actions


async def test_a_document_is_closed_on_all_nodes_and_released(
    pair: tuple[Served, Served, Api, Api], serve: Serve, http: aiohttp.ClientSession, postgres_url: str
) -> None:
    one, two, api, other = pair
    async with LiveClient(one.ws("d")) as ada, LiveClient(two.ws("d")) as bob:
        await ada.until_synced()
        ada.text().insert(0, "kept")
        await bob.until(lambda: str(bob.text()) == "kept", "the other node")
        done = await other.good("POST", "control", {"action": "quarantine", "document": "d", "seconds": 600})
        assert sum(node["ended"] for node in done["nodes"]) == 2 and done["silent"] == []
        for client in (ada, bob):
            await client.expect_close()
    for each in (api, other):
        assert (await each("PATCH", "content/d", {"edits": []}))[0] in (400, 429)
        body = {"edits": [{"op": "insert", "root": "text", "at": 0, "text": "x"}]}
        status, said = await each("PATCH", "content/d", body)
        assert status == 429 and "operator" in said
    for served in (one, two):
        for query in ("", "?offset=-1", "?offset=now", "?offset=snapshot", "?offset=-1&live=sse"):
            async with http.get(f"{served.url}/streams/docs/d{query}", allow_redirects=False) as answer:
                assert answer.status == 429 and "operator" in await answer.text(), query
        async with http.head(f"{served.url}/streams/docs/d") as answer:
            assert answer.status == 429
    third = await serve(database_url=postgres_url)
    await happens(lambda: third.app[HUB].closed_documents == 1, "a node that starts later has heard it")
    inside = await api.good("GET", "inspect/d")
    assert {node["closed_by"] for node in inside["nodes"]} == {"operator"} and inside["number"] == 1
    assert all(590 < node["closed_seconds"] <= 600 for node in inside["nodes"])
    assert (await api.good("GET", "nodes"))["nodes"][0]["documents"]["closed"] == 1
    await api.good("POST", "control", {"action": "release", "document": "d"})
    await other.type("d", "more ")
    async with LiveClient(third.ws("d")) as client:
        await client.until(lambda: str(client.text()) == "more kept", "nothing is lost")
    for body in (
        {"action": "quarantine", "document": "d"},
        {"action": "quarantine", "document": "d", "seconds": 86_401},
        {"action": "quarantine", "seconds": 5},
        {"action": "quarantine", "document": "d", "user": "u", "seconds": 5},
        {"action": "release"},
        {"action": "release", "document": "d", "seconds": 5},
    ):
        assert (await api("POST", "control", body))[0] == 400, body


async def test_a_snapshot_is_made_by_a_node_that_does_not_have_the_document_open(
    pair: tuple[Served, Served, Api, Api],
) -> None:
    one, _, _, other = pair
    async with LiveClient(one.ws("d")) as ada:
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await ada.barrier()

        async def stored() -> bool:
            return (await other("GET", "inspect/d"))[0] == 200

        await eventually(stored, "the row")
        assert (await other.good("POST", "compact/d"))["number"] == 1
        ada.text().insert(0, "go on, ")
        await ada.barrier()
    assert (await other.good("POST", "verify/d"))["snapshots"] == 1
    assert (await other("POST", "compact/none"))[0] == 404


def damage(data: Path) -> None:
    connection = sqlite3.connect(data / "collab.db", timeout=30)
    changed = "UPDATE log SET data = CAST(substr(data, 1, 6) || X'ff' AS BLOB) WHERE seq = 1"
    assert connection.execute(changed).rowcount == 1
    connection.commit()
    connection.close()


async def test_a_document_is_verified_and_repaired_while_people_edit_it(
    serve: Serve, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    served = await serve()
    api = Api(served, http)
    name = "a/d"
    async with LiveClient(served.ws(quote(name)), keep=True) as ada:
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await ada.barrier()
        await happens(lambda: served.app[HUB].rooms[name].persistence.seq == 1, "the row is stored")
        whole = await api.good("POST", f"verify/{name}")
        assert whole["whole"] and whole["rows"] == 1 and whole["troubles"] == []
        assert served.app[METRICS]._sources.sandbox.jobs["verification", "done"] == 1, "not on the loop"
        damage(tmp_path)
        assert (await api.good("GET", f"log/{name}"))["rows"][0]["damaged"]
        found = await api.good("POST", f"verify/{name}")
        assert (found["whole"], found["damaged_rows"], found["noted"]) == (False, [1], True) and found["troubles"]
        planned = await api.good("POST", f"repair/{name}", {"dry_run": True})
        assert not planned["done"] and len(planned["steps"]) == 1 and not planned["report"]["whole"]
        assert not (tmp_path / "damaged").exists()
        done = await api.good("POST", f"repair/{name}", {"dry_run": False})
        assert done["done"] and done["report"]["whole"] and done["reloaded"]["silent"] == []
        (kept,) = done["kept"]
        assert Path(kept).parent == tmp_path / "damaged"
        assert json.loads(await asyncio.to_thread(Path(kept).read_text))["name"] == name
        await ada.expect_close()
    async with LiveClient(served.ws(quote(name))) as bob:
        await bob.until_synced()
        assert str(bob.text()) == "hello", "memory was stored before the damaged row was replaced"
    assert (await api.good("POST", f"repair/{name}", {"dry_run": False}))["steps"] == []


async def test_so_many_documents_are_looked_at_at_a_time(
    serve: Serve, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve()
    api, gate = Api(served, http), asyncio.Event()
    for name in ("a", "b", "c"):
        await api.type(name, "x")
    sandbox = served.app[METRICS]._sources.sandbox
    find_hazard, looking = sandbox.find_hazard, 0

    async def slow(data: bytes) -> str | None:
        nonlocal looking
        looking += 1
        await gate.wait()
        found: str | None = await find_hazard(data)
        return found

    monkeypatch.setattr(sandbox, "find_hazard", slow)
    asked = [asyncio.create_task(api("POST", f"verify/{name}")) for name in ("a", "b")]
    await happens(lambda: looking == 2, "two are looked at")
    assert (await api("POST", "verify/c"))[0] == 429
    assert (await api("POST", "verify/a"))[0] == 429, "nor one of them twice"
    await api.type("a", "people edit meanwhile")
    gate.set()
    assert [status for status, _ in await asyncio.gather(*asked)] == [200, 200]
    assert (await api("POST", "verify/c"))[0] == 200
