"""Published clients whose presence is too large: the document goes on, and what is not shown is said."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.interop.agent import VERSIONS, Agent, DocumentClient
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider
from tests.support.server import ServerProcess

AgentOf = Callable[[str], Awaitable[Agent]]

AVATAR = {"user": {"name": "Ada", "avatar": "x" * 100_000}}
SMALL = {"user": {"name": "Ada"}}


async def shows_and_edits(client: DocumentClient, other: DocumentClient) -> dict[str, Any]:
    """Show an avatar of 100 KB, edit, and show less; give the client's state."""
    await client.until(synced=True)
    mine = str((await client.state())["clientID"])
    theirs = str((await other.state())["clientID"])
    await client.present(SMALL)
    await other.present({"user": {"name": "Bob"}})
    both = {mine: SMALL, theirs: {"user": {"name": "Bob"}}}
    await other.until(states=both)
    await client.present(AVATAR)
    await other.until(states={theirs: both[theirs]})
    for number in range(10):
        await client.edit("push", values=[number])
    await other.until(array=list(range(10)))
    # It is seen again as soon as it shows something that fits.
    await client.present(SMALL)
    await other.until(states=both)
    return await client.state()


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_presence_over_its_bound_stops_no_edit_over_y_websocket(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    client = await agent.open("ada", version, shared_server.ws_url, name, clientID=11)
    other = await agent.open("bob", version, shared_server.ws_url, name, clientID=12)
    state = await shows_and_edits(client, other)
    assert (state["opens"], state["closes"]) == (1, [])


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_presence_over_its_bound_stops_no_edit_over_hocuspocus(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    client: Provider = await hocuspocus.open("ada", version, url, name, clientID=11)
    other = await hocuspocus.open("bob", version, url, name, clientID=12)
    state = await shows_and_edits(client, other)
    assert (state["opens"], state["closes"], state["failures"]) == (1, [], [])
    assert [json.loads(text) for text in state["stateless"]] == [
        {"type": "presence not shown", "reason": "awareness: more than 65536 bytes of state on one connection"}
    ]
    await client.until(unsynced=0)
