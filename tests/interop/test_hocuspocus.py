"""Published Hocuspocus providers on this server: content, awareness, many documents on a socket, and "saved"."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.crash.stored import SqliteLog
from tests.crash.test_outage import until_degraded
from tests.interop.agent import Agent, DocumentClient, content, converge
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider, Socket, until_saved
from tests.support import hocuspocus as wire
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess, collab_command
from tests.support.waiting import eventually
from tests.support.wsclient import STEP2, UPDATE, LiveClient

AgentOf = Callable[[str], Awaitable[Agent]]

VISIBLE = ("text", "map", "array", "xml")


def states(*entries: tuple[int, object]) -> dict[str, object]:
    return {str(client): state for client, state in sorted(entries)}


async def statuses(socket: Socket) -> list[int]:
    return [int(frame.fields[0]) for frame in await socket.received() if frame.type == wire.SYNC_STATUS]


async def carried(socket: Socket) -> int:
    """How many messages with content the socket has sent: steps 2 and updates."""
    frames = [wire.parse(frame) for frame in await socket.sent() if wire.parse_type(frame) == wire.SYNC]
    return sum(frame.fields[0] in (STEP2, UPDATE) for frame in frames)


async def until_stored(server: ServerProcess, name: str, provider: Provider) -> None:
    """Wait until what the provider has is what the database holds."""

    async def look() -> bool:
        doc: Doc[Any] = Doc()
        for _, data in SqliteLog(server.data_dir / "collab.db").rows().get(name, []):
            doc.apply_update(data)
        return str(doc.get("text", type=Text)) == "".join(run["insert"] for run in (await provider.state())["text"])

    await eventually(look, "the text in the store")


@pytest.mark.parametrize("version", PROVIDERS)
async def test_providers_share_a_document_and_are_told_what_is_saved(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    one = await hocuspocus.open("one", version, url, name, content=[["fuzz", {"seed": 1, "count": 40}]])
    two = await hocuspocus.open("two", version, url, name)
    for provider in (one, two):
        state = await provider.until(synced=True, unsynced=0)
        assert (state["status"], state["scope"], state["unsaved"]) == ("connected", "read-write", False)
        assert state["authenticated"] is True
        assert (state["events"]["synced"], state["events"]["authenticated"]) == (1, 1)
    await one.edit("keystrokes", text="typed 😀")
    await two.edit("fuzz", seed=2, count=40)
    shared = await converge([one, two])
    assert await hocuspocus.together([await one.encode(), await two.encode()]) == shared
    for provider in (one, two):
        await provider.until(synced=True, unsynced=0)
        assert (await provider.state())["opens"] == 1
    joiner = await hocuspocus.open("joiner", version, url, name)
    await joiner.until(synced=True)
    assert content(await joiner.state()) == shared


@pytest.mark.parametrize("version", PROVIDERS)
async def test_each_message_with_content_gets_one_status(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    socket = await hocuspocus.socket(version, shared_server.hocuspocus_url)
    provider = await socket.open("one", name)
    await provider.until(synced=True, unsynced=0)
    for text in ("ab", "cdefg", "h"):
        await provider.edit("keystrokes", text=text)
        await provider.until(unsynced=0)
        assert await statuses(socket) == [1] * await carried(socket)
    # Asked to sync again, it counts one more and gets one more: for its answer to the server's step 1.
    await provider.force_sync()
    await provider.until(unsynced=0)
    assert await statuses(socket) == [1] * await carried(socket)
    assert await carried(socket) == 1 + 8 + 1


@pytest.mark.parametrize("version", PROVIDERS)
async def test_awareness_appears_changes_and_disappears(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    ada = await hocuspocus.open("ada", version, url, name, clientID=11)
    bob = await hocuspocus.open("bob", version, url, name, clientID=12)
    await ada.until(synced=True)
    await bob.until(synced=True)
    await ada.present({"user": "Ada 😀", "at": [1, {"deep": None}]})
    await bob.present({"user": "Bob"})
    both = states((11, {"at": [1, {"deep": None}], "user": "Ada 😀"}), (12, {"user": "Bob"}))
    await bob.until(states=both)
    await ada.until(states=both)
    # One who comes later is told at once of all who are there.
    cy = await hocuspocus.open("cy", version, url, name, clientID=13)
    await cy.until(states=both | {"13": {}})
    await cy.present({"user": "Cy"})
    await bob.until(states=both | {"13": {"user": "Cy"}})
    # One says goodbye, one is cut off.
    await ada.destroy()
    await bob.until(states=states((12, {"user": "Bob"}), (13, {"user": "Cy"})))
    await cy.socket.disconnect()
    await bob.until(states=states((12, {"user": "Bob"})))
    await cy.socket.connect()
    await cy.present({"user": "Cy is back"})
    await bob.until(states=states((12, {"user": "Bob"}), (13, {"user": "Cy is back"})))


@pytest.mark.parametrize("version", PROVIDERS)
async def test_offline_edits_on_both_sides_are_exchanged(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    one = await hocuspocus.open("one", version, url, name, content=[["type", {"text": "before "}]])
    two = await hocuspocus.open("two", version, url, name)
    for provider in (one, two):
        await provider.until(synced=True, text=[{"insert": "before "}])
        await provider.socket.disconnect()
        state = await provider.until(status="disconnected", synced=False, open=False)
        # Its close frame had no code, which must not be answered with one that may not be sent.
        assert state["closes"] in ([1000], [1005])
    for i, provider in enumerate((one, two)):
        await provider.edit("keystrokes", text=f"offline {i} ")
        assert (await provider.state())["unsaved"] is True
    expected = await hocuspocus.together([await provider.encode() for provider in (one, two)])
    for provider in (one, two):
        await provider.socket.connect()
    assert await converge([one, two]) == expected
    for provider in (one, two):
        await until_saved(provider)
    await until_stored(shared_server, name, one)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_connections_that_are_cut_again_and_again_lose_nothing(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    providers = [await hocuspocus.open(key, version, url, name) for key in ("one", "two")]
    for turn in range(4):
        for i, provider in enumerate(providers):
            await provider.until(synced=True)
            await provider.edit("fuzz", seed=10 * turn + i, count=10)
            # In the middle of it: what was sent may have arrived or not.
            await provider.socket.cut()
            await provider.edit("fuzz", seed=10 * turn + i + 5, count=10)
    expected = await hocuspocus.together([await provider.encode() for provider in providers])
    shared = await converge(providers)
    assert {part: shared[part] for part in VISIBLE} == {part: expected[part] for part in VISIBLE}
    for provider in providers:
        await until_saved(provider)
        assert (await provider.state())["opens"] >= 5


async def test_providers_come_back_after_a_restart_and_nothing_is_lost(
    own_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str
) -> None:
    url = own_server.hocuspocus_url
    # Two of each version with a document of their own.
    pairs = {
        version: [await hocuspocus.open(f"{key} {version}", version, url, f"{name}/{version}") for key in ("a", "b")]
        for version in PROVIDERS
    }
    for pair in pairs.values():
        for provider in pair:
            await provider.until(synced=True)
        await pair[0].edit("fuzz", seed=1, count=30)
        await converge(pair)
    assert await own_server.aterminate() == 0
    expected = {}
    for version, pair in pairs.items():
        for i, provider in enumerate(pair):
            # While nobody listens, 2 goes on trying without ever saying that it is disconnected.
            state = await provider.until(synced=False, open=False)
            assert state["closes"][0] == 1012
            await provider.edit("fuzz", seed=2 + i, count=10)
        expected[version] = await hocuspocus.together([await provider.encode() for provider in pair])
    await own_server.astart()
    for version, pair in pairs.items():
        for provider in pair:
            await until_saved(provider)
        shared = await converge(pair)
        # Where formats meet, Yjs cleans up behind the exchange: that shows in the snapshot, and nowhere else.
        assert {part: shared[part] for part in VISIBLE} == {part: expected[version][part] for part in VISIBLE}
        for provider in pair:
            await until_saved(provider)
        expected[version] = await converge(pair)
    await own_server.akill()
    for pair in pairs.values():
        for provider in pair:
            await provider.destroy()
    await own_server.astart()
    # A server that has never seen those providers has the same.
    for version in PROVIDERS:
        joiner = await hocuspocus.open(f"joiner {version}", version, url, f"{name}/{version}")
        assert content(await joiner.until(synced=True)) == expected[version]


@pytest.mark.parametrize("version", PROVIDERS)
async def test_fifty_documents_on_one_socket(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    writing, reading = [await hocuspocus.socket(version, url) for _ in range(2)]
    writers = [await writing.open(f"writer {i}", f"{name}/{i}") for i in range(50)]
    readers = [await reading.open(f"reader {i}", f"{name}/{i}") for i in range(50)]
    for i, writer in enumerate(writers):
        await writer.edit("type", text=f"document {i}")
        await writer.present({"document": i})
    for i, (writer, reader) in enumerate(zip(writers, readers, strict=True)):
        await writer.until(synced=True, unsaved=False)
        state = await reader.until(synced=True, text=[{"insert": f"document {i}"}])
        await reader.until(
            states=states((state["clientID"], {}), ((await writer.state())["clientID"], {"document": i}))
        )
    # All go offline and come back together.
    await writing.cut()
    for i, writer in enumerate(writers):
        await writer.edit("type", text=", cut")
        await readers[i].until(text=[{"insert": f"document {i}, cut"}])
        await until_saved(writer)
    # Half of them end; the others do not notice.
    for writer in writers[:25]:
        await writer.destroy()
    for i in range(25):
        await readers[i].until(states=states(((await readers[i].state())["clientID"], {})))
    for i in range(25, 50):
        await writers[i].edit("type", text=", on")
        await readers[i].until(text=[{"insert": f"document {i}, cut, on"}])
        await until_saved(writers[i])
    assert (await writing.state())["opens"] == 2
    assert (await reading.state())["opens"] == 1


async def test_two_sessions_of_one_document_on_one_socket(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str
) -> None:
    url = shared_server.hocuspocus_url
    socket = await hocuspocus.socket("4", url)
    one, two = [
        await socket.open(key, name, clientID=client, options={"sessionAwareness": True})
        for key, client in (("one", 11), ("two", 12))
    ]
    other = await hocuspocus.open("other", "3", url, name, clientID=13)
    for client in (one, two, other):
        await client.until(synced=True)
    await one.present({"pane": "left"})
    await two.present({"pane": "right"})
    both = states((11, {"pane": "left"}), (12, {"pane": "right"}))
    await one.until(states=both)
    await two.until(states=both)
    await other.until(states=both | {"13": {}})
    await one.edit("fuzz", seed=1, count=20)
    await two.edit("fuzz", seed=2, count=20)
    await other.edit("fuzz", seed=3, count=20)
    await converge([one, two, other])
    for client in (one, two, other):
        await client.until(unsynced=0)
    addresses = {frame.address for frame in await socket.received()}
    assert len(addresses) == 2 and all(address.startswith(f"{name}\0") for address in addresses)
    # The end of one session is not the end of the other.
    await one.destroy()
    await two.until(states=states((12, {"pane": "right"})))
    await other.until(states=states((12, {"pane": "right"}), (13, {})))
    await two.edit("type", text="alone")
    await two.until(unsynced=0)
    await converge([two, other])
    assert (await socket.state())["opens"] == 1
    # The session is no part of the document's name.
    listed = await asyncio.to_thread(collab_command, "documents", "list", "--data-dir", str(shared_server.data_dir))
    assert [line.split()[-1] for line in listed.stdout.splitlines() if f"{name}/" in f"{line}/"] == [name]


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_document_closed_and_opened_again_at_once_on_one_socket(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    """As React does in its strict mode; the new provider must not take the end of the old one for its own."""
    socket = await hocuspocus.socket(version, shared_server.hocuspocus_url)
    beside = await socket.open("beside", name + "/beside")
    # Before the socket is open all providers keep back the CLOSE of the one and send it behind the other's Auth.
    await beside.until(synced=True)
    current = await socket.open("turn 0", name)
    for turn in range(5):
        if turn % 2:
            await current.until(synced=True)
        await current.edit("push", values=[turn])
        # Told in one breath, so that no answer comes in between.
        _, current = await asyncio.gather(current.destroy(), socket.open(f"turn {turn + 1}", name))
    last = current
    await last.edit("push", values=["last"])

    # Not when it calls itself synced: what was under way to the one before it, under the same address, counts for it.
    async def whole() -> dict[str, Any] | None:
        state = await last.state()
        return state if {0, 1, 2, 3, 4, "last"} == set(state["array"]) else None

    state = await eventually(whole, "what all of them have written")
    await until_saved(last)
    reader = await hocuspocus.open("reader", version, shared_server.hocuspocus_url, name)
    await reader.until(synced=True, array=state["array"])
    assert "close" not in state["events"]
    await beside.edit("type", text="still there")
    await beside.until(synced=True, unsaved=False, opens=1)


@pytest.mark.parametrize("version", ["3", "4"])
async def test_a_detached_document_is_left_and_can_be_attached_again(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    socket = await hocuspocus.socket(version, url)
    provider = await socket.open("one", name, clientID=11)
    reader = await hocuspocus.open("reader", version, url, name, clientID=12)
    await provider.present({"user": "Ada"})
    await reader.until(states=states((11, {"user": "Ada"}), (12, {})))
    await provider.detach()
    await reader.until(states=states((12, {})))
    await provider.edit("type", text="while detached")
    await provider.attach()
    await reader.until(text=[{"insert": "while detached"}])
    await provider.until(unsynced=0, opens=1)


async def test_stateless_messages_go_to_the_other_providers_of_the_document(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, name: str
) -> None:
    url = shared_server.hocuspocus_url
    providers = {version: await hocuspocus.open(version, version, url, name) for version in PROVIDERS}
    elsewhere = await hocuspocus.open("elsewhere", "4", url, name + "/other")
    page = await (await agent_of("3.1")).open("page", "3.1", shared_server.ws_url, name)
    for client in (*providers.values(), elsewhere, page):
        await client.until(synced=True)
    expected: dict[str, list[str]] = {version: [] for version in PROVIDERS}
    for version, provider in providers.items():
        message = f'{{"from": "{version} 😀"}}'
        await provider.send_stateless(message)
        for other in PROVIDERS:
            if other != version:
                expected[other].append(message)
                await providers[other].until(stateless=expected[other])
    # What comes after it has come says that nothing is under way any more.
    await page.edit("type", text="x")
    await elsewhere.edit("type", text="x")
    await converge([page, *providers.values()])
    await elsewhere.until(unsynced=0)
    for version, provider in providers.items():
        assert (await provider.state())["stateless"] == expected[version]
    assert (await elsewhere.state())["stateless"] == []
    assert (await page.state())["opens"] == 1


async def test_stateless_messages_switched_off_are_dropped(
    tmp_path: Path, hocuspocus: HocuspocusAgent, name: str
) -> None:
    async with ServerProcess(tmp_path, "--stateless", "off") as server:
        one, two = [await hocuspocus.open(key, "4", server.hocuspocus_url, name) for key in ("one", "two")]
        await one.until(synced=True)
        await two.until(synced=True)
        await one.send_stateless("nobody hears this")
        await one.edit("type", text="x")
        await converge([one, two])
        assert (await two.state())["stateless"] == []
        assert (await one.until(unsynced=0))["opens"] == 1


async def test_edits_that_the_provider_gathers_are_one_message_with_one_status(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str
) -> None:
    url = shared_server.hocuspocus_url
    socket = await hocuspocus.socket("4", url)
    gathers = await socket.open("gathers", name, options={"flushDelay": 200})
    reader = await hocuspocus.open("reader", "4", url, name)
    await gathers.until(synced=True, unsynced=0)
    before = await carried(socket)
    await gathers.edit("keystrokes", text="twenty letters in it")
    await reader.until(text=[{"insert": "twenty letters in it"}])
    await gathers.until(unsynced=0)
    assert await carried(socket) == before + 1
    assert await statuses(socket) == [1] * (before + 1)
    # What is gathered when the provider ends leaves before its CLOSE.
    await gathers.edit("keystrokes", text=" and the last ones")
    await gathers.destroy()
    await reader.until(text=[{"insert": "twenty letters in it and the last ones"}])


async def test_lone_providers_without_awareness_are_kept_company(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str
) -> None:
    """Their watchdog sees no WebSocket pings: only frames keep them from reconnecting every 30 s."""
    sockets = [await hocuspocus.socket(version, shared_server.hocuspocus_url) for version in PROVIDERS]
    lone = [
        await socket.open(f"lone {socket.version}", f"{name}/{socket.version}", awareness="null") for socket in sockets
    ]
    for provider in lone:
        await provider.until(synced=True)

    async def kept_alive() -> bool:
        counts = [[frame.type for frame in await socket.received()].count(wire.AWARENESS) for socket in sockets]
        return min(counts) >= 2

    await eventually(kept_alive, "two keepalive frames each")
    for provider in lone:
        assert (await provider.state())["opens"] == 1


@pytest.mark.parametrize("version", PROVIDERS)
async def test_names_are_the_same_documents_as_in_addresses(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    socket = await hocuspocus.socket(version, shared_server.hocuspocus_url)
    for odd in ("notes/ä b", "a//b/", "50%25 off?", "日本語/😀", " padded "):
        full = f"{name}/{odd}"
        provider = await socket.open(odd, full)
        await provider.edit("type", text=odd)
        await until_saved(provider)
        async with LiveClient(shared_server.document_url(full)) as page:
            await page.until(lambda page=page, odd=odd: str(page.text()) == odd, odd)  # type: ignore[misc]


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_name_that_cannot_be_is_refused_in_words_and_alone(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    socket = await hocuspocus.socket(version, shared_server.hocuspocus_url)
    good = await socket.open("good", name)
    rule = "a document name is 1 to 512 bytes of UTF-8"
    for i, (bad, reason) in enumerate((("x" * 513, rule), ("   ", f"{rule}, and not white space alone"))):
        refused = await socket.open(f"bad {i}", bad)
        state = await refused.until(failures=[reason])
        assert state["synced"] is False
    await good.edit("type", text="unharmed")
    await good.until(synced=True, unsaved=False, opens=1)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_provider_is_told_that_its_document_was_deleted_and_brings_nothing_back(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    """The command line deletes in the database; nobody writes, and the server finds it by itself."""
    socket = await hocuspocus.socket(version, shared_server.hocuspocus_url)
    other = await socket.open("other", f"{name}/other")
    # With a token, which an open server does not look at: without one 2 never asks again after a denial.
    provider = await socket.open("deleted", name, token="any")
    await provider.edit("type", text="old")
    await until_saved(provider)
    await until_stored(shared_server, name, provider)
    directory = str(shared_server.data_dir)
    deleted = await asyncio.to_thread(collab_command, "documents", "delete", name, "--data-dir", directory)
    assert deleted.returncode == 0, deleted.stderr
    reason = "the document was deleted"
    await provider.until(failures=[reason])
    await provider.edit("type", text=" copy")
    await provider.retry()
    await provider.until(failures=[reason, reason])
    await other.edit("type", text="unharmed")
    await other.until(synced=True, unsaved=False, opens=1)
    shown = await asyncio.to_thread(collab_command, "documents", "show", name, "--data-dir", directory)
    assert shown.returncode == 1


async def both_ways(clients: Sequence[DocumentClient]) -> None:
    """Let everybody show something, and wait until everybody sees it of everybody."""
    shown = []
    for client in clients:
        await client.present({"user": client.key})
        shown.append(((await client.state())["clientID"], {"user": client.key}))
    for client in clients:
        await client.until(states=states(*shown))


@pytest.mark.parametrize(("first", "second"), [("2", "3"), ("3", "4"), ("4", "2")])
async def test_providers_of_two_versions_and_two_pages_edit_together(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, name: str, first: str, second: str
) -> None:
    agent = await agent_of("3.1")
    providers = [
        await hocuspocus.open(f"provider {version}", version, shared_server.hocuspocus_url, name)
        for version in (first, second)
    ]
    pages = [
        await agent.open(f"page {version}", version, shared_server.ws_url, name, content=[["type", {"text": version}]])
        for version in ("3.0", "3.1")
    ]
    clients: list[DocumentClient] = [*providers, *pages]
    for client in clients:
        await client.until(synced=True)
    await both_ways(clients)
    for turn in range(4):
        await asyncio.gather(*(client.edit("fuzz", seed=100 * turn + i, count=15) for i, client in enumerate(clients)))
    # One of each protocol goes on offline.
    await providers[0].socket.disconnect()
    await pages[0].disconnect()
    remaining = [providers[1], pages[1]]
    for client in remaining:
        ids = {str((await other.state())["clientID"]): {"user": other.key} for other in remaining}
        await client.until(states=dict(sorted(ids.items(), key=lambda item: int(item[0]))))
    for i, client in enumerate(clients):
        await client.edit("fuzz", seed=1_000 + i, count=15)
    await providers[0].socket.connect()
    await pages[0].connect()
    for client in clients:
        await client.until(synced=True)
    shared = await converge(clients)
    assert await hocuspocus.together([await client.encode() for client in clients]) == shared
    await both_ways(clients)
    for provider in providers:
        await until_saved(provider)


async def test_while_the_store_is_stopped_nothing_is_called_saved_and_editing_goes_on(
    tmp_path: Path, private_postgres: PostgresServer, hocuspocus: HocuspocusAgent, agent_of: AgentOf, name: str
) -> None:
    server = ServerProcess(tmp_path, "--migrate", database_url=private_postgres.url())
    async with server:
        sockets = [await hocuspocus.socket(version, server.hocuspocus_url) for version in PROVIDERS]
        providers = [await socket.open(socket.version, name) for socket in sockets]
        page = await (await agent_of("3.1")).open("page", "3.1", server.ws_url, name)
        clients: list[DocumentClient] = [*providers, page]
        for provider in providers:
            await provider.until(synced=True, unsynced=0)
            await provider.edit("type", text="before ")
            await provider.until(unsynced=0)
        await converge(clients)
        await asyncio.to_thread(private_postgres.stop)
        saved = [len(await statuses(socket)) for socket in sockets]
        for turn in range(3):
            for client in clients:
                await client.edit("type", text=f"outage {turn} ")
            await converge(clients)
            for provider in providers:
                assert (await provider.state())["unsaved"] is True
        await until_degraded(server, "store")
        for client in clients:
            await client.edit("type", text="unready ")
        await converge(clients)
        for provider, socket, count in zip(providers, sockets, saved, strict=True):
            assert (await provider.state())["unsaved"] is True
            assert len(await statuses(socket)) == count
        await asyncio.to_thread(private_postgres.start)
        for provider in providers:
            state = await provider.until(unsynced=0)
            assert (state["unsaved"], state["opens"]) == (False, 1)
        for socket in sockets:
            assert await statuses(socket) == [1] * await carried(socket)
        expected = await converge(clients)
        await server.akill()
        await server.astart()
        late = await hocuspocus.open("late", "4", server.hocuspocus_url, name)
        assert content(await late.until(synced=True)) == expected


async def test_a_provider_that_comes_while_the_store_is_stopped_is_served_when_it_is_back(
    tmp_path: Path, private_postgres: PostgresServer, hocuspocus: HocuspocusAgent, name: str
) -> None:
    server = ServerProcess(tmp_path, "--migrate", database_url=private_postgres.url())
    async with server:
        await asyncio.to_thread(private_postgres.stop)
        sockets = [await hocuspocus.socket(version, server.hocuspocus_url) for version in PROVIDERS]
        providers = [await socket.open(socket.version, f"{name}/{socket.version}") for socket in sockets]
        for provider, socket in zip(providers, sockets, strict=True):
            await provider.edit("type", text="kept")
            await eventually(lambda socket=socket: _closed(socket), "the first close")  # type: ignore[misc]
            assert (await socket.state())["closes"][0] == 1013
            # 2 comes back in the same millisecond from a connection that has given it any frame.
            assert await socket.received() == []
        await asyncio.to_thread(private_postgres.start)
        for provider in providers:
            await provider.until(synced=True, unsaved=False, text=[{"insert": "kept"}])


async def _closed(socket: Socket) -> bool:
    return bool((await socket.state())["closes"])
