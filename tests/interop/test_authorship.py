"""Whose client IDs are, as a real server stores it of published clients of both protocols.

Strategy: people type, go offline and come back, heal what others have written, relay what came by another way, and
import a document. Then the store is read: each ID is its own person's, or nobody's.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest

from collab.adapters import make_store
from collab.engine.agents import FIRST_ID
from collab.storage.records import ClientOwner, LogRow
from collab.storage.urls import parse_database_url
from tests.interop.agent import VERSIONS, Agent, Client
from tests.interop.conftest import OPTIONS
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider
from tests.support.server import ServerProcess, collab_command
from tests.support.waiting import eventually

SECRET = "a secret of the tests, long enough for its hash"

_documents = itertools.count(1)

AgentOf = Callable[[str], Awaitable[Agent]]


def token(user: str) -> str:
    claims = {"sub": user, "documents": {"authorship/*": "write"}, "exp": time.time() + 3600}
    return jwt.encode(claims, SECRET, "HS256")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("authorship")
    with ServerProcess(folder, *OPTIONS, environment={"COLLAB_JWT_SECRET": SECRET}) as running:
        yield running


@dataclass(frozen=True)
class Log:
    """What is stored of a document: whose its client IDs are, and its rows."""

    owners: list[ClientOwner]
    rows: list[LogRow]

    @property
    def users(self) -> dict[int, str | None]:
        return {owner.client: owner.author for owner in self.owners}


async def read(server: ServerProcess, name: str) -> Log:
    store = make_store(parse_database_url(f"sqlite:///{server.data_dir / 'collab.db'}"))
    await store.open()
    try:
        number = (await store.describe(name)).document.id
        return Log(await store.client_owners(number, -1, 99), await store.rows_after(number, 0, 999))
    finally:
        await store.close()


async def until(server: ServerProcess, name: str, users: dict[int, str | None]) -> Log:
    """Wait until exactly these IDs have exactly these owners."""

    async def look() -> Log | None:
        found = await read(server, name)
        return found if found.users == users else None

    return await eventually(look, f"the client IDs are {users}", 20.0)


class People:
    """Opens a document for signed-in people, over the protocol and version that is tested."""

    def __init__(self, server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, version: str) -> None:
        self.server = server
        self.name = f"authorship/{next(_documents)}"
        self._hocuspocus = hocuspocus
        self._agent_of = agent_of
        self._protocol, _, self._version = version.partition(" ")

    async def open(self, key: str, user: str, client: int, **more: Any) -> Client | Provider:
        more["clientID"] = client
        if self._protocol == "hocuspocus":
            socket = await self._hocuspocus.socket(self._version, self.server.hocuspocus_url)
            return await socket.open(key, self.name, token=token(user), **more)
        agent = await self._agent_of(self._version)
        params = {"token": token(user)}
        return await agent.open(key, self._version, self.server.ws_url, self.name, params=params, **more)

    async def go(self, client: Client | Provider, *, online: bool) -> None:
        of = client.socket if isinstance(client, Provider) else client
        await (of.connect() if online else of.disconnect())


CLIENTS = [*[f"y-websocket {version}" for version in VERSIONS], *[f"hocuspocus {version}" for version in PROVIDERS]]


@pytest.fixture(params=CLIENTS)
def people(
    request: pytest.FixtureRequest, server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf
) -> People:
    return People(server, hocuspocus, agent_of, request.param)


# Above 32 bits, as after a reset, up to the largest that a client may show; the small one is one byte.
ANN, BOB, LATE, FRESH = FIRST_ID - 1, 2**32 + 5, 77, 4_000_000_000


async def test_each_id_is_its_own_persons(people: People) -> None:
    server, name = people.server, people.name
    ann = await people.open("ann", "ann", ANN)
    await ann.until(synced=True)
    bob = await people.open("bob", "bob", BOB)
    await bob.until(synced=True)
    await ann.edit("keystrokes", text="one ")
    await bob.until(text=[{"insert": "one "}])
    await bob.edit("keystrokes", text="two ")
    await ann.until(text=[{"insert": "one two "}])
    log = await until(server, name, {ANN: "ann", BOB: "bob"})
    by = {owner.client: owner for owner in log.owners}
    assert by[ANN].clock == by[BOB].clock == 0
    # The row that is named is the person's own.
    for owner in log.owners:
        assert log.rows[owner.seq - 1].author == owner.author and log.rows[owner.seq - 1].at == owner.at

    # Bob goes offline, types, and comes back with it by a SyncStep2.
    await people.go(bob, online=False)
    await bob.edit("type", text="offline ")
    await people.go(bob, online=True)
    await ann.until(text=[{"insert": "one two offline "}])
    await bob.edit("keystrokes", text="on ")
    await ann.until(text=[{"insert": "one two offline on "}])
    assert (await read(server, name)).owners == log.owners, "nothing has changed"


async def test_offline_edits_of_a_new_id_are_its_users_once_it_types_on(people: People) -> None:
    server, name = people.server, people.name
    late = await people.open("late", "ann", LATE, content=[["type", {"text": "offline "}]])
    await late.until(synced=True)
    other = await people.open("other", "bob", BOB)
    await other.until(text=[{"insert": "offline "}])
    assert (await read(server, name)).owners == [], "it came by a SyncStep2"
    await late.edit("keystrokes", text="on")
    await other.until(text=[{"insert": "offline on"}])
    log = await until(server, name, {LATE: "ann"})
    assert log.owners[0].clock == len("offline "), "what lies below came by another way"


async def test_healing_and_relaying_make_nobody_an_owner(people: People) -> None:
    server, name = people.server, people.name
    # What Bob has written offline reaches Ann past the server, as from a memory stick: she brings it with her.
    agent = await people._agent_of("3.1")
    lone = await agent.open("lone", clientID=BOB, content=[["type", {"text": "bob "}]])
    update = base64.b64decode(await lone.encode())
    ann = await people.open("ann", "ann", ANN)
    await ann.until(synced=True)
    await people.go(ann, online=False)
    await ann.apply(update)
    await people.go(ann, online=True)
    eve = await people.open("eve", "eve", LATE)
    await eve.until(text=[{"insert": "bob "}])
    assert (await read(server, name)).users == {}

    # More of it comes while she is online: her client sends it on as an Update, as if it were hers.
    more = await agent.open("more", clientID=FRESH, content=[["set", {"key": "relayed", "value": 1}]])
    await ann.apply(base64.b64decode(await more.encode()))
    await eve.until(map={"relayed": 1})
    assert (await read(server, name)).users == {}

    await ann.edit("type", text="ann")
    await eve.until(text=[{"insert": "bob ann"}])
    await until(server, name, {ANN: "ann"})
    # Then Bob comes himself, and types on.
    bob = await people.open("bob", "bob", BOB, content=[["type", {"text": "bob "}]])
    await bob.until(text=[{"insert": "bob ann"}])
    await bob.edit("type", text="!")
    await eve.until(text=[{"insert": "bob ann!"}])
    log = await until(server, name, {ANN: "ann", BOB: "bob"})
    assert {owner.client: owner.clock for owner in log.owners} == {ANN: 0, BOB: len("bob ")}


async def test_a_client_that_shows_nothing_owns_what_it_types(people: People) -> None:
    ann = await people.open("ann", "ann", ANN, awareness="null")
    await ann.until(synced=True)
    await ann.edit("keystrokes", text="typed")
    log = await until(people.server, people.name, {ANN: "ann"})
    assert log.owners[0].clock == 0


async def test_an_import_makes_nobody_an_owner(
    server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, tmp_path: Path
) -> None:
    people = People(server, hocuspocus, agent_of, "hocuspocus 4")
    agent = await agent_of("3.1")
    lone = await agent.open("lone", clientID=BOB, content=[["type", {"text": "imported "}]])
    (tmp_path / "update").write_bytes(base64.b64decode(await lone.encode()))
    url = f"sqlite:///{server.data_dir / 'collab.db'}"
    arguments = ("documents", "import", people.name, str(tmp_path / "update"), "--database-url", url)
    done = await asyncio.to_thread(collab_command, *arguments)
    assert done.returncode == 0, done.stderr
    ann = await people.open("ann", "ann", ANN)
    await ann.until(text=[{"insert": "imported "}])
    await ann.edit("keystrokes", text="typed")
    log = await until(server, people.name, {ANN: "ann"})
    assert log.rows[0].author is None
