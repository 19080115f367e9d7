"""What operators tell all nodes, as the published clients see it: two servers on one PostgreSQL, a client on each.

Strategy: the application's endpoint is the test's own, so what a user may do changes while clients are connected. Each
action is told to the node on which nobody is, or by a command. How long it took is printed; on a busy machine nothing
but the fact is asserted.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from collab.storage.postgresql import connect
from collab.storage.urls import parse_database_url
from tests.interop.agent import Agent, Client
from tests.interop.hocuspocus import HocuspocusAgent, Provider
from tests.support.server import ServerProcess, collab_command
from tests.support.valkey import Valkey, running
from tests.support.waiting import eventually

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.valkey]

AgentOf = Callable[[str], Awaitable[Agent]]

ADMIN = "root"


class Application:
    """The application's endpoint: users show their name as the token."""

    def __init__(self) -> None:
        self.rights: dict[str, str] = {ADMIN: "admin"}
        self.asked = 0

    async def decide(self, request: web.Request) -> web.Response:
        self.asked += 1
        user = (await request.json())["token"]
        if user not in self.rights:
            return web.json_response({"reason": "not in the table"}, status=403)
        return web.json_response({"user": user, "access": self.rights[user], "expires_in": 3600})


class Cluster:
    """Two servers, and those who tell them something."""

    def __init__(self, one: ServerProcess, two: ServerProcess, bus: tuple[str, ...], by: str) -> None:
        self.one, self.two, self.bus, self.by = one, two, bus, by

    async def tell(self, action: str, **about: Any) -> tuple[int, int, int]:
        """Tell all nodes; give how many sessions ended, changed, or could not be decided on, on both nodes together."""
        if self.by == "HTTP":
            status, answer = await self._post("api/v1/control", {"action": action, **about})
            assert status == 200, answer
        else:
            if action == "reload":
                words = ["documents", "reload", about["document"]]
            else:
                words = [{"kick": "kick", "check": "check-access"}[action]]
                words += [word for name, value in about.items() for word in (f"--{name}", str(value))]
            done = await self._command(*words, "--json")
            assert done.returncode == 0, (done.stdout, done.stderr)
            answer = json.loads(done.stdout)
        assert answer["silent"] == [] and len(answer["nodes"]) == 2, answer
        ended, changed, undecided = [
            sum(report[what] for report in answer["nodes"]) for what in ("ended", "changed", "undecided")
        ]
        return ended, changed, undecided

    async def rename(self, name: str, new_name: str) -> None:
        if self.by == "HTTP":
            status, answer = await self._post(f"api/v1/documents/{name}", {"name": new_name}, "PATCH")
            assert status == 200, answer
        else:
            done = await self._command("documents", "rename", name, new_name)
            assert done.returncode == 0, done.stderr

    async def _post(self, path: str, body: Any, method: str = "POST") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, f"{self.two.url}/{path}", json=body) as answer,
        ):
            return answer.status, await answer.json()

    async def _command(self, *words: str) -> Any:
        assert self.one.database_url is not None
        options = ("--database-url", self.one.database_url, *self.bus)
        return await asyncio.to_thread(collab_command, *words, *options)


@pytest.fixture(params=["postgresql", "redis", "no bus"])
def bus(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    with ExitStack() as stack:
        if request.param == "redis":
            valkey = Valkey()
            stack.enter_context(running(valkey))
            yield ("--redis-url", valkey.url)
        elif request.param == "no bus":
            # Nobody listens there, so everything is found by looking.
            yield ("--listen-url", "postgresql://nobody@127.0.0.1:9/none?connect_timeout=1")
        else:
            yield ()


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture(params=["HTTP", "a command"])
async def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, bus: tuple[str, ...], application: Application
) -> AsyncIterator[Cluster]:
    app = web.Application()
    app.router.add_post("/decide", application.decide)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    options = (*bus, "--auth-url", str(server.make_url("/decide")), "--auth-cache-seconds", "600")
    one, two = [ServerProcess(tmp_path / name, *options, database_url=postgres_url) for name in ("one", "two")]
    async with one, two:
        yield Cluster(one, two, bus, request.param)
    await server.close()


class Watch:
    """Prints how long something took."""

    def __init__(self, cluster: Cluster, bus: tuple[str, ...]) -> None:
        self._told_by = f"{cluster.by}, {bus[0] if bus else 'bus on PostgreSQL'}"

    async def __call__(self, what: str, telling: Awaitable[object], *seen: Awaitable[object]) -> object:
        """Wait until it is told and seen by all; the facts are waited for at the same time."""
        began = time.monotonic()
        times: list[float] = []

        async def note(fact: Awaitable[object]) -> object:
            found = await fact
            times.append(time.monotonic() - began)
            return found

        told, *_ = await asyncio.gather(note(telling), *map(note, seen))
        print(f"{self._told_by}: {what}: seen after {', '.join(f'{at * 1000:.0f} ms' for at in sorted(times))}")
        return told


async def followed(cluster: Cluster) -> list[float]:
    """Give the seconds from each instruction (by the database's clock) to each server's line about what it has done."""
    assert cluster.one.database_url is not None
    raw = await connect(parse_database_url(cluster.one.database_url))
    told = [(row["kind"], row["at"]) for row in await raw.fetch("SELECT kind, at FROM instructions ORDER BY id")]
    raw.terminate()
    line = re.compile(r"(\S+) INFO +collab\.audit: control: (kick|check|reload).* sessions ended here")
    found = []
    for server in (cluster.one, cluster.two):
        for text in server.log_lines:
            if (match := line.match(text)) is not None:
                done = datetime.fromisoformat(match[1]).timestamp()
                found.append(done - max(at for kind, at in told if kind == match[2] and at < done + 0.002))
    return sorted(found)


async def closed(client: Client | Provider, code: int) -> None:
    """Wait until a client's socket was closed with a code."""

    async def look() -> bool:
        return code in (await client.state())["closes"]

    await eventually(look, f"a close with {code}")


async def opened(client: Client | Provider, times: int) -> None:
    async def look() -> bool:
        state = await client.state()
        return bool(state["opens"] >= times and state["synced"])

    await eventually(look, "it is back")


@pytest.mark.timeout(400)  # a command takes seconds to start on a busy machine
async def test_each_action_reaches_the_clients_of_every_node(
    cluster: Cluster, bus: tuple[str, ...], application: Application, agent_of: AgentOf, hocuspocus: HocuspocusAgent
) -> None:
    watch = Watch(cluster, bus)
    application.rights |= {"ada": "write", "bob": "write"}
    agent = await agent_of("3.1")
    ada = await agent.open("ada", "3.1", cluster.one.ws_url, "d", params={"token": "ada"})
    bob = await agent.open("bob", "3.1", cluster.two.ws_url, "d", params={"token": "bob"})
    ada_too = await hocuspocus.open("ada", "4", cluster.two.hocuspocus_url, "d", token={"value": "ada"})
    for client in (ada, bob, ada_too):
        await client.until(synced=True)
    await ada.edit("type", text="one ")
    for client in (bob, ada_too):
        await client.until(text=[{"insert": "one "}])

    # Everybody comes back by himself after a kick.
    told = await watch("kick", cluster.tell("kick", user="ada"), closed(ada, 4503), closed(ada_too, 4503))
    assert told == (2, 0, 0)
    await asyncio.gather(opened(ada, 2), opened(ada_too, 2))
    assert (await bob.state())["closes"] == []

    # Access that has changed, though answers are kept for ten minutes.
    application.rights["ada"] = "read"
    told = await watch("read-only", cluster.tell("check", user="ada"), ada_too.until(scope="readonly"))
    assert told == (0, 2, 0)
    await ada.edit("type", text="in vain ")
    await bob.edit("type", text="two ")
    await ada_too.until(text=[{"insert": "one two "}])
    application.rights["ada"] = "write"
    told = await watch(
        "write again",
        cluster.tell("check", user="ada"),
        ada_too.until(scope="read-write"),
        bob.until(map={}),
    )
    assert told == (0, 2, 0)
    # What was refused meanwhile comes with the answer to the server's question.
    texts = [(await client.until(synced=True))["text"] for client in (ada,)]

    async def equal() -> bool:
        states = [await client.state() for client in (ada, bob, ada_too)]
        return all(state["text"] == states[0]["text"] for state in states) and "in vain" in str(states[0]["text"])

    await eventually(equal, f"all have what was refused before, of {texts}")

    # A document that is read again, and one with another name.
    before = (await bob.state())["text"]
    told = await watch(
        "reload", cluster.tell("reload", document="d"), closed(ada, 4502), closed(bob, 4502), closed(ada_too, 4502)
    )
    assert told == (3, 0, 0)
    await asyncio.gather(opened(ada, 3), opened(bob, 2), opened(ada_too, 3))
    assert (await bob.state())["text"] == before
    await watch(
        "rename",
        cluster.rename("d", "e"),
        closed(ada, 4404),
        closed(bob, 4404),
        ada_too.until(failures=["the document was renamed"]),
    )
    late = await agent.open("late", "3.1", cluster.one.ws_url, "e", params={"token": "bob"})
    await late.until(text=before)
    late_too = await hocuspocus.open("late", "4", cluster.two.hocuspocus_url, "e", token={"value": "ada"})
    await late_too.until(text=before)

    # Kept out, on the node that has not heard of that user too; and let in again.
    told = await watch("kick for ten minutes", cluster.tell("kick", user="ada", seconds=600), closed(late_too, 4503))
    assert told == (1, 0, 0)
    for server in (cluster.one, cluster.two):
        refused = await agent.open(f"refused {server.port}", "3.1", server.ws_url, "e", params={"token": "ada"})
        await closed(refused, 1013)
    assert (await late.state())["closes"] == []
    assert await cluster.tell("kick", user="ada") == (0, 0, 0)
    await opened(late_too, 2)

    # Access that is gone.
    del application.rights["ada"], application.rights["bob"]
    told = await watch(
        "no access any more",
        cluster.tell("check", document="e"),
        closed(late, 4403),
        late_too.until(failures=["not in the table"]),
    )
    assert isinstance(told, tuple) and told[0] >= 2 and told[1:] == (0, 0)
    assert (await late.state())["shouldConnect"] is False
    times = await followed(cluster)
    assert len(times) >= 8
    print(f"from the instruction to its end on a server: {', '.join(f'{at * 1000:.0f}' for at in times)} ms")
