"""What proxies of others do to a connection, done by one of our own: published clients lose nothing by it.

Strategy: Cloudflare, the load balancers of clouds and the proxies of companies cannot be run here. What they do to
bytes can be: they cut what is silent, cut all connections when they are renewed, in the middle of a message too, and
keep bytes back until they have looked at enough of them (`tests/support/throttle.py`). The proxies that Debian has are
run as they are (`tests/docs/test_proxies.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.interop.agent import VERSIONS, Agent, DocumentClient, converge
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider, until_saved
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually, happens

AgentOf = Callable[[str], Awaitable[Agent]]

pytestmark = pytest.mark.slow

# Of each edit that is cut in two; more than the buffers on the way take at once.
LARGE = 400_000

ALL = [*(f"y-websocket {version}" for version in VERSIONS), *(f"Hocuspocus {version}" for version in PROVIDERS)]


class Opened:
    """Opens published clients by the names of `ALL`."""

    def __init__(self, agent_of: AgentOf, hocuspocus: HocuspocusAgent) -> None:
        self._agent_of = agent_of
        self._hocuspocus = hocuspocus

    async def __call__(self, kind: str, key: str, port: int, name: str) -> DocumentClient:
        """Open a client on a document through a port of this machine, and wait until it has synced."""
        package, version = kind.split()
        client: DocumentClient
        if package == "Hocuspocus":
            client = await self._hocuspocus.open(key, version, f"ws://127.0.0.1:{port}/hocuspocus", name)
        else:
            agent = await self._agent_of(version)
            client = await agent.open(key, version, f"ws://127.0.0.1:{port}/ws", name)
        await client.until(synced=True)
        return client


@pytest.fixture
def opened(agent_of: AgentOf, hocuspocus: HocuspocusAgent) -> Opened:
    return Opened(agent_of, hocuspocus)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), "--ping-seconds", "0.3") as started:
        yield started


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One that sends an idle client nothing for longer than the proxies of these tests wait."""
    with ServerProcess(tmp_path_factory.mktemp("quiet"), "--ping-seconds", "3600") as started:
        yield started


async def saved(client: DocumentClient) -> None:
    """Wait until the server has said that all is stored, where the protocol has a word for that."""
    if isinstance(client, Provider):
        await until_saved(client)


@pytest.mark.parametrize("kind", ALL)
async def test_pings_keep_what_would_be_cut_for_its_silence(
    server: ServerProcess, quiet_server: ServerProcess, opened: Opened, name: str, kind: str
) -> None:
    with SlowLine(server.port, idle=2.0) as line, SlowLine(quiet_server.port, idle=2.0) as other:
        client = await opened(kind, "client", line.port, name)
        control = await opened(kind, "control", other.port, name)
        # The control is cut when this has been silent for as long, and comes back with what it has done meanwhile.
        await happens(lambda: other.silent, "the proxy to cut an idle connection")
        await control.edit("type", text="back")
        assert (line.silent, line.connections) == (0, 1)
        await client.edit("type", text="here")
        await saved(client)
        await saved(control)
        late = await opened(kind, "late", quiet_server.port, name)
        await converge([control, late])


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("kind", ALL)
async def test_a_cut_in_the_middle_of_a_message_loses_nothing(
    server: ServerProcess, opened: Opened, name: str, kind: str, way: str
) -> None:
    with SlowLine(server.port) as line:
        far = await opened(kind, "far", line.port, name)
        near = await opened(kind, "near", server.port, name)
        writer = far if way == "up" else near
        setattr(line, f"left_{way}", LARGE // 2)
        digest = await writer.large("picture", LARGE)
        await happens(lambda: line.connections > 1, "the client to come back")
        assert getattr(line, f"left_{way}") is None
        for client in (far, near):
            await client.until_large("picture", digest)
        await far.edit("type", text="and on")
        await saved(far)
        await converge([far, near])


@pytest.mark.parametrize("kind", ALL)
async def test_a_proxy_that_keeps_bytes_back_makes_edits_late_and_no_more(
    quiet_server: ServerProcess, opened: Opened, name: str, kind: str
) -> None:
    # Pings are late as well, and their answers: they must come before the next one.
    with SlowLine(quiet_server.port, hold=4_096, hold_seconds=0.2) as line:
        ada = await opened(kind, "ada", line.port, name)
        bob = await opened(kind, "bob", line.port, name)
        for index in range(5):
            await ada.edit("type", text=f"ada {index} ")
            await bob.edit("type", text=f"bob {index} ")
        digest = await ada.large("picture", LARGE)
        await bob.until_large("picture", digest)
        await saved(ada)
        await saved(bob)
        await converge([ada, bob])
        assert line.connections == 2


async def test_all_come_back_when_a_proxy_ends_all_connections_at_once(
    server: ServerProcess, opened: Opened, name: str
) -> None:
    with SlowLine(server.port) as line:
        clients = [await opened(kind, f"client {number}", line.port, name) for number, kind in enumerate(ALL * 2)]
        before = line.connections
        line.cut()
        for number, client in enumerate(clients):
            await client.edit("type", text=f"[{number}]")

        async def back() -> bool:
            return line.connections >= before + len(clients)

        await eventually(back, "everybody to come back")
        for client in clients:
            await saved(client)
        shared = await converge(clients)
        text = "".join(run["insert"] for run in shared["text"])
        assert sorted(text.strip("[]").split("][")) == sorted(str(number) for number in range(len(clients)))
