"""How published clients live with the server: presence, names, silence, restarts and close codes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.interop.agent import VERSIONS, Agent, converge
from tests.support.server import ServerProcess, collab_command
from tests.support.waiting import eventually
from tests.support.wsclient import RawClient

AgentOf = Callable[[str], Awaitable[Agent]]


def ids(*states: tuple[int, object]) -> dict[str, object]:
    return {str(client): state for client, state in sorted(states)}


@pytest.mark.parametrize("version", VERSIONS)
async def test_awareness_appears_changes_and_disappears(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    url = shared_server.ws_url
    ada = await agent.open("ada", version, url, name, clientID=11)
    bob = await agent.open("bob", version, url, name, clientID=12)
    await ada.until(synced=True)
    await ada.present({"user": "Ada 😀", "at": [1, {"deep": None}]})
    await bob.present({"user": "Bob"})
    both = ids((11, {"at": [1, {"deep": None}], "user": "Ada 😀"}), (12, {"user": "Bob"}))
    await bob.until(states=both)
    await ada.until(states=both)
    await ada.present({"user": "Ada", "at": 2})
    await bob.until(states=ids((11, {"at": 2, "user": "Ada"}), (12, {"user": "Bob"})))
    # One who comes later is told at once of all who are there.
    cy = await agent.open("cy", version, url, name, clientID=13)
    everybody = ids((11, {"at": 2, "user": "Ada"}), (12, {"user": "Bob"}), (13, {}))
    await cy.until(states=everybody)
    # The first, empty state has clock 0, which y-protocols ignores: only what one sets is seen.
    await cy.present({"user": "Cy"})
    cys = (13, {"user": "Cy"})
    await bob.until(states=ids((11, {"at": 2, "user": "Ada"}), (12, {"user": "Bob"}), cys))
    # y-websocket says goodbye with null at the clock that the others know already.
    await ada.disconnect()
    await bob.until(states=ids((12, {"user": "Bob"}), cys))
    # And one whose socket is cut says nothing at all.
    await cy.vanish()
    await bob.until(states=ids((12, {"user": "Bob"})))
    await ada.connect()
    await ada.present({"user": "Ada is back"})
    await bob.until(states=ids((11, {"user": "Ada is back"}), (12, {"user": "Bob"})))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "odd", ["notes/ä b", "a//b/", "50%25 off?", "日本語/😀", "dots/../up", "semi;colon&and=is", "+plus +"]
)
async def test_a_name_of_any_characters_is_one_document_for_all_versions(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str, odd: str
) -> None:
    """A room name goes into the address as it is; the clients' own URL code encodes what it must."""
    agent = await agent_of(version)
    full = f"{name}/{odd}"
    one = await agent.open("one", version, shared_server.ws_url, full, params={"token": "t k&"})
    two = await agent.open("two", version, shared_server.ws_url, full)
    await one.edit("type", text=odd)
    await two.until(synced=True, text=[{"insert": odd}])


async def test_a_name_means_the_same_however_it_is_encoded(shared_server: ServerProcess, agent_of: AgentOf) -> None:
    agent = await agent_of("3.1")
    one = await agent.open("one", "3.1", shared_server.ws_url, "notes/ä b")
    await one.edit("type", text="umlaut")
    await one.until(synced=True)
    async with RawClient(shared_server.document_url("notes/ä b")) as raw:
        await raw.send(b"\x00\x00\x01\x00")
        await raw.expect(lambda frame: b"umlaut" in frame.payload, "the document")
    two = await agent.open("two", "3.1", shared_server.ws_url, "notes%2F%C3%A4%20b")
    await two.until(text=[{"insert": "umlaut"}])


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_lone_client_without_awareness_is_kept_company(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    """Its watchdog sees no WebSocket pings: only frames keep it from reconnecting every 30 s."""
    agent = await agent_of(version)
    lone = await agent.open("lone", version, shared_server.ws_url, name, awareness="null")
    await lone.until(synced=True)

    async def kept_alive() -> bool:
        return (await lone.received()).count("AQEA") >= 2

    await eventually(kept_alive, "two keepalive frames")
    state = await lone.state()
    assert (state["opens"], state["closes"], state["states"]) == (1, [], {})


@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_come_back_after_a_restart_and_nothing_is_lost(
    own_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    clients = [await agent.open(key, version, own_server.ws_url, name) for key in ("one", "two")]
    for client in clients:
        await client.until(synced=True)
    await clients[0].edit("fuzz", seed=1, count=30)
    await converge(clients)
    assert await own_server.aterminate() == 0
    for client in clients:
        state = await client.until(connected=False)
        assert state["closes"][0] == 1012
        assert state["shouldConnect"] is True
    await clients[0].edit("fuzz", seed=2, count=10)
    await clients[1].edit("fuzz", seed=3, count=10)
    expected = await agent.together([await client.encode() for client in clients])
    await own_server.astart()
    for client in clients:
        await client.until(synced=True)
    assert await converge(clients) == expected
    # And all of it is stored: a server that never saw those clients has the same.
    for client in clients:
        await client.close()
    assert await own_server.aterminate() == 0
    await own_server.astart()
    joiner = await agent.open("joiner", version, own_server.ws_url, name)
    assert {key: (await joiner.until(synced=True))[key] for key in expected} == expected


async def test_a_client_of_3_1_is_told_that_its_document_was_deleted_and_stays_away(
    own_server: ServerProcess, agent_of: AgentOf, tmp_path: Path, name: str
) -> None:
    agent = await agent_of("3.1")
    client = await agent.open("client", "3.1", own_server.ws_url, name)
    await client.until(synced=True)
    await client.edit("type", text="old")
    await _stored(own_server, name)
    deleted = await asyncio.to_thread(
        collab_command, "documents", "delete", name, "--data-dir", str(own_server.data_dir)
    )
    assert deleted.returncode == 0, deleted.stderr
    await client.edit("type", text=" copy")
    state = await client.until(shouldConnect=False)
    assert state["closes"] == [4404]
    assert state["closed"]["code"] == 4404
    # Asked to try again on purpose, it is refused again: its old copy cannot revive the document.
    await client.connect()
    await client.until(closes=[4404, 4404])
    shown = await asyncio.to_thread(collab_command, "documents", "show", name, "--data-dir", str(own_server.data_dir))
    assert shown.returncode != 0


async def test_older_clients_only_ever_come_back_and_are_refused_each_time(
    own_server: ServerProcess, agent_of: AgentOf, name: str
) -> None:
    agent = await agent_of("3.0")
    too_long = "x" * 513
    client = await agent.open("client", "3.0", own_server.ws_url, too_long)
    await client.until(closes=[4400, 4400])
    stops = await agent.open("stops", "3.1", own_server.ws_url, too_long)
    state = await stops.until(shouldConnect=False)
    assert state["closes"] == [4400]


async def _stored(server: ServerProcess, name: str) -> None:
    """Wait until the database beside the running server has a row of this document."""

    async def listed() -> bool:
        listed = await asyncio.to_thread(collab_command, "documents", "list", "--data-dir", str(server.data_dir))
        assert listed.returncode == 0, listed.stderr
        return name in listed.stdout

    await eventually(listed, f"{name} among the documents")
