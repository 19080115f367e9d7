"""Every kind of content between published clients: both live ones, a late joiner and a single Yjs agree."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.interop.agent import VERSIONS, Agent, content, converge
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import RawClient, update

AgentOf = Callable[[str], Awaitable[Agent]]

# The content that a person would look for, by edit: (part of the state, text in its representation).
KINDS: dict[str, list[tuple[str, str]]] = {
    "formats": [("text", "😀"), ("text", "cat.png"), ("text", "italic")],
    "maps": [("map", "bigint"), ("map", "0001feff"), ("map", "inside a map")],
    "arrays": [("array", "first"), ("array", "inner"), ("array", "0908")],
    "xml": [("xml", "😀 text"), ("xml", 'level="2"')],
    "hook": [("xml", "calendar")],
    "undo": [("text", "redone kept ")],
    "splitPairs": [("text", "X"), ("text", "\ufffd")],
}

# Version 4 is another generation of Yjs: it shows a hook and some values in its own way, so what
# clients of both generations share are the edits and deletes seen and the text.
ACROSS = ("snapshot", "text", "array")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_content_reaches_live_clients_and_late_joiners(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str, kind: str
) -> None:
    agent = await agent_of(version)
    url = shared_server.ws_url
    writer = await agent.open("writer", version, url, name)
    reader = await agent.open("reader", version, url, name)
    await writer.until(synced=True)
    await reader.until(synced=True)
    await writer.edit(kind)
    live = await converge([writer, reader])
    for part, expected in KINDS[kind]:
        assert expected in repr(live[part])
    joiner = await agent.open("joiner", version, url, name)
    await joiner.until(synced=True)
    assert content(await joiner.state()) == live
    assert await agent.together([await joiner.encode()]) == live


@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_that_edit_at_once_converge_to_what_a_single_yjs_gives(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    clients = [await agent.open(f"c{i}", version, shared_server.ws_url, name) for i in range(3)]
    for client in clients:
        await client.until(synced=True)
    for turn in range(6):
        for i, client in enumerate(clients):
            await client.edit("fuzz", seed=100 * turn + i, count=12)
    shared = await converge(clients)
    assert await agent.together([await client.encode() for client in clients]) == shared
    joiner = await agent.open("joiner", version, shared_server.ws_url, name)
    await joiner.until(synced=True)
    assert content(await joiner.state()) == shared


@pytest.mark.parametrize("version", VERSIONS)
async def test_offline_edits_on_both_sides_are_exchanged(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    one = await agent.open("one", version, shared_server.ws_url, name, content=[["type", {"text": "before "}]])
    two = await agent.open("two", version, shared_server.ws_url, name)
    await two.until(synced=True, text=[{"insert": "before "}])
    await one.disconnect()
    await one.edit("type", text="one offline ")
    await one.edit("maps")
    await two.edit("type", text="two online ")
    await two.edit("erase", at=0, length=3)
    await two.disconnect()
    await two.edit("arrays")
    await one.edit("fuzz", seed=1, count=20)
    await two.edit("fuzz", seed=2, count=20)
    expected = await agent.together([await one.encode(), await two.encode()])
    await one.connect()
    await one.until(synced=True)
    await two.connect()
    assert await converge([one, two]) == expected


async def test_all_versions_edit_one_document(shared_server: ServerProcess, agent_of: AgentOf, name: str) -> None:
    clients = [
        await (await agent_of(version)).open(f"v{version}", version, shared_server.ws_url, name) for version in VERSIONS
    ]
    for client in clients:
        await client.until(synced=True)
    for turn in range(4):
        for i, client in enumerate(clients):
            await client.edit("type", text=f"{client.key} turn {turn} 😀 ", at=0)
            await client.edit("push", values=[turn, i, {"by": client.key}])
            await client.edit("erase", at=2, length=2)
    shared = await converge(clients, ACROSS)
    assert len(shared["array"]) == 4 * len(clients) * 3
    await clients[0].edit("maps")
    await clients[1].edit("xml")
    await converge(clients, ACROSS)


@pytest.mark.parametrize("version", VERSIONS)
async def test_subdocuments_keep_their_options_and_sync_under_their_own_name(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    url = shared_server.ws_url
    writer = await agent.open("writer", version, url, name)
    reader = await agent.open("reader", version, url, name)
    guid = f"{name}-chapter"
    await writer.edit("subdocument", key="chapter", guid=guid, meta={"title": "ü", "n": [1, 2]})
    await reader.until(subdocuments=[guid])
    joiner = await agent.open("joiner", version, url, name)
    await joiner.until(synced=True, subdocuments=[guid])
    shown = (await joiner.state())["map"]["chapter"]
    assert shown == {"subdocument": guid, "meta": {"title": "ü", "n": [1, 2]}}
    inner = await agent.open("inner", version, url, guid)
    await inner.edit("type", text="the chapter")
    other = await agent.open("other", version, url, guid)
    await other.until(text=[{"insert": "the chapter"}])


async def test_a_split_surrogate_pair_leaves_joiners_with_the_whole_document(
    shared_server: ServerProcess, agent_of: AgentOf, name: str
) -> None:
    agent = await agent_of("3.1")
    writer = await agent.open("writer", "3.1", shared_server.ws_url, name)
    await writer.until(synced=True)
    for _ in range(5):
        await writer.edit("splitPairs")
    await writer.edit("keystrokes", text="and more 👩‍👩‍👧 after it")
    reader = await agent.open("reader", "3.1", shared_server.ws_url, name)
    shared = await converge([writer, reader])
    # Back from being offline in the middle of such a text: the cut runs through items, not only between them.
    await reader.disconnect()
    await writer.edit("splitPairs")
    await reader.edit("splitPairs")
    await reader.connect()
    await reader.until(synced=True)

    async def both_saw_everything() -> bool:
        return len({(await client.state())["snapshot"] for client in (writer, reader)}) == 1

    await eventually(both_saw_everything, "equal state vectors and delete sets")
    assert shared["text"] != (await reader.state())["text"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_edit_is_echoed_to_its_author_because_that_confirms_it(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    author = await agent.open("author", version, shared_server.ws_url, name, clientID=77)
    await author.until(synced=True)
    await author.edit("type", text="confirm me")
    expected = base64.b64encode(update(base64.b64decode(await author.encode()))).decode()

    async def echoed() -> int:
        return (await author.received()).count(expected)

    assert await eventually(echoed, "the echo") == 1


async def test_an_unknown_generation_of_content_passes_untouched(
    shared_server: ServerProcess, agent_of: AgentOf, name: str
) -> None:
    """What yrs cannot read (a hook, a lone-surrogate escape in a format) is relayed and kept exact to the byte."""
    odd = bytes.fromhex("01020502460500016b08225c756438336422c605000501016b046e756c6c00")
    typed = bytes.fromhex("0101050004010474657874026162" + "00")
    async with RawClient(shared_server.document_url(name)) as sender:
        await sender.send(update(typed))
        await sender.send(update(odd))
        await sender.expect(lambda frame: odd in frame.payload or odd[4:-1] in frame.payload, "the echo")
    agent = await agent_of("3.1")
    joiner = await agent.open("joiner", "3.1", shared_server.ws_url, name)
    state: dict[str, Any] = await joiner.until(synced=True)
    assert state["text"] == [{"insert": "a", "attributes": {"k": "\ud83d"}}, {"insert": "b"}]
