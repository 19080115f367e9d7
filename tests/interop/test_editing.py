"""Published clients of both protocols type in a document that is edited over HTTP meanwhile.

Strategy: each writer and each call brings words of its own, so what is missing, or is there twice, is seen. Everything
happens at the same time; in the end all clients must show the same, and what HTTP reads must be that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.interop.agent import VERSIONS, Agent, DocumentClient, converge
from tests.interop.conftest import OPTIONS
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent
from tests.support.author import Author
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

AgentOf = Callable[[str], Awaitable[Agent]]

pytestmark = [pytest.mark.server, pytest.mark.slow]


class Api:
    """Calls to one server; all of them must be answered as expected."""

    def __init__(self, session: aiohttp.ClientSession, server: ServerProcess, name: str) -> None:
        self._session = session
        self._url = server.url
        self._name = name

    async def ask(self, method: str, resource: str, media: str, body: Any = None, **headers: str) -> tuple[Any, str]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind, mark, query = resource.partition("?")
        url = f"{self._url}/api/v1/{kind}/{self._name}{mark}{query}"
        headers = {"Accept" if method == "GET" else "Content-Type": media, **headers}
        async with self._session.request(method, url, data=data, headers=headers) as response:
            read = await response.read()
            assert response.status == 200, (response.status, read)
            return (json.loads(read) if "json" in response.content_type else read), response.headers["ETag"]

    async def edit(self, *edits: dict[str, Any]) -> None:
        await self.ask("PATCH", "content", "application/json", {"edits": edits})

    async def shown(self, root: str) -> Any:
        return (await self.ask("GET", f"content?root={root}", "application/json"))[0]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """One server on SQLite, or two on one PostgreSQL."""
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            made = [ServerProcess(tmp_path, *OPTIONS)]
        else:
            url = request.getfixturevalue("postgres_url")
            made = [ServerProcess(tmp_path / number, *OPTIONS, database_url=url) for number in ("one", "two")]
        yield [stack.enter_context(server) for server in made]


async def test_what_is_typed_and_what_is_put_is_there_for_everybody(
    servers: list[ServerProcess], agent_of: AgentOf, hocuspocus: HocuspocusAgent, name: str
) -> None:
    clients: list[DocumentClient] = []
    for number, version in enumerate([*VERSIONS, *PROVIDERS]):
        server = servers[number % len(servers)]
        if version in PROVIDERS:
            clients.append(await hocuspocus.open(f"h{version}", version, server.hocuspocus_url, name))
        else:
            agent = await agent_of(version)
            clients.append(await agent.open(f"y{version}", version, server.ws_url, name))
    async with aiohttp.ClientSession() as session:
        apis = [Api(session, server, name) for server in servers]

        async def types(number: int, client: DocumentClient) -> None:
            for n in range(12):
                await client.edit("type", text=f"<c{number}.{n}>", at=0)
                await client.edit("set", key=f"c{number}", value=n)
                await client.edit("push", values=[f"c{number}.{n}"])

        async def edits(number: int, api: Api) -> None:
            for n in range(12):
                await api.edit(
                    {"op": "insert", "root": "text", "at": 0, "text": f"<e{number}.{n}>"},
                    {"op": "append", "root": "array", "values": [f"e{number}.{n}"]},
                )
                patch = [{"op": "add", "path": f"/map/e{number}", "value": n}]
                await api.ask("PATCH", "content", "application/json-patch+json", patch)

        async def applies(number: int, api: Api) -> None:
            author = Author(1_000 + number)
            for n in range(12):
                await api.ask("POST", "updates", "application/octet-stream", author.type(f"<a{number}.{n}>"))

        async def puts(number: int, api: Api) -> None:
            for n in range(6):
                await api.ask("PUT", f"content?root=put{number}", "text/plain", f"version {n} of {number}".encode())

        # The roots are there in the types that clients use, before HTTP has to guess them.
        await clients[0].edit("type", text="<begin>")
        await clients[0].edit("set", key="begin", value=True)
        await clients[0].edit("push", values=["begin"])
        await clients[0].until(synced=True)
        await converge(clients)
        await asyncio.gather(
            *(types(number, client) for number, client in enumerate(clients)),
            *(edits(number, api) for number, api in enumerate(apis)),
            *(applies(number, api) for number, api in enumerate(apis)),
            *(puts(number, api) for number, api in enumerate(apis)),
        )
        state = await converge(clients)
        text = "".join(run["insert"] for run in state["text"])
        words = [f"<c{number}.{n}>" for number in range(len(clients)) for n in range(12)]
        words += [f"<e{number}.{n}>" for number in range(len(apis)) for n in range(12)]
        assert len(text) == len("<begin>") + sum(map(len, words)), "all of it, and nothing twice"
        assert sorted(state["array"]) == sorted([word[1:-1] for word in words] + ["begin"])
        assert state["map"] == {
            "begin": True,
            **{f"c{number}": 11 for number in range(len(clients))},
            **{f"e{number}": 11 for number in range(len(apis))},
        }

        async def level() -> bool:
            return len({(await api.ask("GET", "updates", "*/*"))[1] for api in apis}) == 1

        await eventually(level, "one state has one name on all nodes")
        for number, api in enumerate(apis):
            assert await api.shown("text") == text
            assert (await api.shown("array"), await api.shown("map")) == (state["array"], state["map"])
            letters = await api.shown("t")
            assert len(letters) == sum(len(f"<a{of}.{n}>") for of in range(len(apis)) for n in range(12))
            for of in range(len(apis)):
                assert await api.shown(f"put{of}") == f"version 5 of {of}"
            update, tag = await api.ask("GET", "updates", "application/octet-stream")
            again = await agent_of(VERSIONS[0])
            reader = await again.open(f"reader {number}")
            await reader.apply(update)
            assert (await reader.state())["snapshot"] == state["snapshot"]
            # The name of the state is what a precondition takes.
            body = {"edits": [{"op": "append", "root": "array", "values": [f"last {number}"]}]}
            await api.ask("PATCH", "content", "application/json", body, **{"If-Match": tag})
            state = await converge(clients)
            assert state["array"][-1] == f"last {number}"
            await eventually(level, "the nodes agree")


async def test_seeding_from_ten_places_at_once_gives_the_content_once(
    servers: list[ServerProcess], agent_of: AgentOf, name: str
) -> None:
    async with aiohttp.ClientSession() as session:

        async def seed(server: ServerProcess) -> int:
            headers = {"Content-Type": "text/plain", "If-None-Match": "*"}
            url = f"{server.url}/api/v1/content/{name}?root=text"
            async with session.put(url, data=b"the seed", headers=headers) as response:
                await response.read()
                return response.status

        # Of one node: a document that two nodes create at the same moment has both seeds, as with sockets.
        said = await asyncio.gather(*(seed(servers[0]) for _ in range(10)))
        assert sorted(said) == [200] + [412] * 9
        agent = await agent_of(VERSIONS[0])
        client = await agent.open("reader", VERSIONS[0], servers[-1].ws_url, name)
        await client.until(text=[{"insert": "the seed"}])
