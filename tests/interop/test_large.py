"""Published clients that send much, or send it slowly: all of it arrives, and what is too much is said once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.agent import VERSIONS, Agent
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, until_saved
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine

AgentOf = Callable[[str], Awaitable[Agent]]

MIB = 1024 * 1024

# As on a slow line with the usual times, but a hundred times as fast: the document needs several of each time.
SLOW = ("--sync-timeout-seconds", "1", "--ping-seconds", "0.5", "--auth-seconds", "1", "--keepalive-seconds", "0.4")
SLOW_BYTES = 1_200_000
SLOW_RATE = 300_000


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("impatient"), *SLOW) as server:
        yield server


@pytest.fixture
def line(impatient: ServerProcess) -> Iterator[SlowLine]:
    with SlowLine(impatient.port, up=SLOW_RATE) as line:
        yield line


@pytest.mark.parametrize("version", VERSIONS)
async def test_offline_edits_arrive_over_a_slow_uplink(
    impatient: ServerProcess, line: SlowLine, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    ada = await agent.open("ada", version, f"ws://127.0.0.1:{line.port}/ws", name)
    await ada.until(synced=True)
    await ada.disconnect()
    digest = await ada.large("offline", SLOW_BYTES)
    await ada.connect()
    bob = await agent.open("bob", version, impatient.ws_url, name)
    await bob.until_large("offline", digest)
    state = await ada.state()
    assert (state["opens"], line.connections) == (2, 2), "the offline edits have needed one connection"


@pytest.mark.parametrize("version", PROVIDERS)
async def test_offline_edits_arrive_over_a_slow_uplink_with_hocuspocus(
    impatient: ServerProcess, line: SlowLine, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    socket = await hocuspocus.socket(version, f"ws://127.0.0.1:{line.port}/hocuspocus")
    ada = await socket.open("ada", name)
    other = await socket.open("other", f"{name} beside")
    await until_saved(ada)
    await until_saved(other)
    await socket.disconnect()
    await ada.until(open=False, status="disconnected")  # 4 does not come back while it still closes
    digest = await ada.large("offline", SLOW_BYTES)
    await other.edit("type", text="beside")
    await socket.connect()
    bob = await hocuspocus.open("bob", version, impatient.hocuspocus_url, name)
    await bob.until_large("offline", digest)
    await until_saved(ada)
    await until_saved(other)
    assert (await socket.state())["opens"] == 2, "the offline edits have needed one connection"


@pytest.mark.parametrize("version", VERSIONS)
async def test_one_edit_of_20_mb_arrives_and_is_relayed(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    ada = await agent.open("ada", version, shared_server.ws_url, name)
    bob = await agent.open("bob", version, shared_server.ws_url, name)
    await ada.until(synced=True)
    await bob.until(synced=True)
    digest = await ada.large("paste", 20_000_000)
    await ada.edit("type", text="and on")
    await bob.until_large("paste", digest)
    await bob.until(text=[{"insert": "and on"}])
    cy = await agent.open("cy", version, shared_server.ws_url, name)
    await cy.until_large("paste", digest)
    assert (await ada.state())["opens"] == (await bob.state())["opens"] == 1


@pytest.mark.parametrize("version", PROVIDERS)
async def test_one_edit_of_20_mb_arrives_and_is_relayed_with_hocuspocus(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = shared_server.hocuspocus_url
    ada = await hocuspocus.open("ada", version, url, name)
    bob = await hocuspocus.open("bob", version, url, name)
    await until_saved(ada)
    await until_saved(bob)
    digest = await ada.large("paste", 20_000_000)
    await ada.edit("type", text="and on")
    await bob.until_large("paste", digest)
    await bob.until(text=[{"insert": "and on"}])
    await until_saved(ada)
    assert (await ada.state())["opens"] == (await bob.state())["opens"] == 1


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One that takes messages of 1 MiB and documents of 2, and tells all that it refuses."""
    directory: Path = tmp_path_factory.mktemp("narrow")
    options = ("--max-message-bytes", str(MIB), "--max-document-bytes", str(2 * MIB))
    with ServerProcess(directory, *options) as server:
        yield server


def warnings(server: ServerProcess, name: str, option: str) -> int:
    return sum("WARNING" in line and repr(name) in line and option in line for line in server.log_lines)


TOO_LARGE = pytest.mark.parametrize(
    ("sizes", "option", "reason"),
    [
        pytest.param([1_500_000], "--max-message-bytes", "the message is too large", id="message"),
        pytest.param([900_000] * 3, "--max-document-bytes", "the document is too large", id="document"),
    ],
)


@TOO_LARGE
async def test_what_is_too_large_is_refused_for_good_and_once(
    narrow: ServerProcess, agent_of: AgentOf, name: str, sizes: list[int], option: str, reason: str
) -> None:
    agent = await agent_of("3.1")
    ada = await agent.open("ada", "3.1", narrow.ws_url, name)
    await ada.until(synced=True)
    for number, size in enumerate(sizes):
        await ada.large(f"{number}", size, seed=number + 1)
    await ada.until(closed={"code": 4413, "reason": reason}, shouldConnect=False)
    await asyncio.sleep(0.5)
    state = await ada.state()
    assert state["closes"] == [4413] and state["opens"] == 1
    assert warnings(narrow, name, option) == 1


@TOO_LARGE
@pytest.mark.parametrize("version", PROVIDERS)
async def test_what_is_too_large_costs_a_socket_of_hocuspocus_one_document(
    narrow: ServerProcess,
    hocuspocus: HocuspocusAgent,
    name: str,
    version: str,
    sizes: list[int],
    option: str,
    reason: str,
) -> None:
    socket = await hocuspocus.socket(version, narrow.hocuspocus_url)
    ada = await socket.open("ada", name)
    other = await socket.open("other", f"{name} beside")
    await until_saved(ada)
    await until_saved(other)
    for number, size in enumerate(sizes):
        await ada.large(f"{number}", size, seed=number + 1)
    await other.edit("type", text="goes on")
    await ada.until(failures=[reason])
    await ada.edit("type", text="typed on")
    bob = await hocuspocus.open("bob", version, narrow.hocuspocus_url, f"{name} beside")
    await bob.until(text=[{"insert": "goes on"}])
    await until_saved(other)
    state = await ada.state()
    assert (state["failures"], state["opens"], state["closes"]) == ([reason], 1, [])
    assert warnings(narrow, name, option) == 1


# An answer above 256 KiB is put together while it leaves: one that has a part of the document gets the rest so, too.

LONG_BYTES = 3_000_000


@pytest.mark.parametrize("version", VERSIONS)
async def test_one_that_comes_back_gets_the_long_rest(
    shared_server: ServerProcess, agent_of: AgentOf, name: str, version: str
) -> None:
    agent = await agent_of(version)
    ada = await agent.open("ada", version, shared_server.ws_url, name)
    bob = await agent.open("bob", version, shared_server.ws_url, name)
    first = await ada.large("first", LONG_BYTES)
    await ada.edit("type", text="before ")
    await bob.until_large("first", first)
    await bob.until(text=[{"insert": "before "}])
    await bob.disconnect()
    second = await ada.large("second", LONG_BYTES)
    await ada.edit("type", text="and after")
    await bob.connect()
    await bob.until_large("second", second)
    await bob.until_large("first", first)
    state = await ada.state()
    await bob.until(text=state["text"])
    await bob.edit("type", text="!")
    state = await bob.state()
    await ada.until(text=state["text"])
    assert ((await ada.state())["opens"], state["opens"]) == (1, 2)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_one_that_comes_back_gets_the_long_rest_with_hocuspocus(
    shared_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    ada = await hocuspocus.open("ada", version, shared_server.hocuspocus_url, name)
    socket = await hocuspocus.socket(version, shared_server.hocuspocus_url)
    bob = await socket.open("bob", name)
    first = await ada.large("first", LONG_BYTES)
    await bob.until_large("first", first)
    await until_saved(bob)
    await socket.disconnect()
    await bob.until(open=False, status="disconnected")
    second = await ada.large("second", LONG_BYTES)
    await until_saved(ada)
    await socket.connect()
    await bob.until_large("second", second)
    await bob.until_large("first", first)
    await until_saved(bob)
    await bob.edit("type", text="on")
    await ada.until(text=[{"insert": "on"}])
    assert (await socket.state())["opens"] == 2
