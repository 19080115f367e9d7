"""The blocks for reverse proxies in docs/operations.md, run by the proxies themselves under published clients.

Strategy: the server asks for tokens, as it must behind a proxy, and trusts 127.0.0.1, where the proxies are. Clients
that must have another address than a proxy come from 127.0.0.2.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import jwt
import pytest
import pytest_asyncio
from yarl import URL

from collab.protocol.streams import encode_frames
from tests.auth.makers import SECRET
from tests.interop.agent import Agent, converge
from tests.interop.hocuspocus import HocuspocusAgent, until_saved
from tests.support.author import Author
from tests.support.proxies import KINDS, Proxy
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import RawClient
from tests.transports.test_tls import make_certificate

pytestmark = [pytest.mark.proxy, pytest.mark.server, pytest.mark.slow]

# What a name may hold, and what a proxy may be tempted to put right.
NAME = "notes/ä b//50% %2F?#+"

OPTIONS = ("--behind-proxy", "--trusted-proxies", "127.0.0.1/32", "--log-level", "debug")

# Seconds of silence after which the proxies of these tests cut, and after which the server pings.
IDLE = 2
PING = 0.3


def token() -> str:
    claims = {"sub": "17", "documents": {"*": "write"}, "exp": int(time.time()) + 3600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def start_server(directory: Path, *options: str) -> ServerProcess:
    return ServerProcess(directory, *OPTIONS, *options, environment={"COLLAB_JWT_SECRET": SECRET})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with start_server(tmp_path_factory.mktemp("server"), "--ping-seconds", str(PING)) as started:
        yield started


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One that sends nothing to an idle client for longer than these proxies wait."""
    options = ("--ping-seconds", "3600", "--keepalive-seconds", "25")
    with start_server(tmp_path_factory.mktemp("quiet"), *options) as started:
        yield started


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"), "site")


@pytest.fixture
def trusted(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


@pytest.fixture(params=[f"{name} {scheme}" for name in KINDS for scheme in ("ws", "wss")])
def proxy(
    request: pytest.FixtureRequest, server: ServerProcess, certificate: tuple[Path, Path], tmp_path: Path
) -> Iterator[Proxy]:
    """Each proxy with its block, without TLS and with it."""
    name, scheme = request.param.split()
    (tmp_path / "proxy").mkdir()
    files = certificate if scheme == "wss" else None
    with Proxy(name, tmp_path / "proxy", server.port, certificate=files) as started:
        yield started


@pytest_asyncio.fixture
async def agents(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Agent, HocuspocusAgent]]:
    """Published clients of both protocols, which trust the test's certificate."""
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificate[0]))
    async with Agent("yjs13") as plain, HocuspocusAgent() as hocuspocus:
        yield plain, hocuspocus


@pytest.mark.node
async def test_clients_of_both_protocols_edit_through_it_and_its_restart_loses_nothing(
    proxy: Proxy, agents: tuple[Agent, HocuspocusAgent]
) -> None:
    plain, hocuspocus = agents
    name = f"{proxy.kind.program} {proxy.secure} {NAME}"
    ada = await plain.open("ada", "3.1", f"{proxy.ws_url}/ws", quote(name), params={"token": token()})
    socket = await hocuspocus.socket("4", f"{proxy.ws_url}/hocuspocus")
    bob = await socket.open("bob", name, token())
    await ada.until(synced=True)
    await bob.edit("type", at=0, text="bob ")
    await ada.edit("type", at=0, text="ada ")
    await until_saved(bob)
    await converge([ada, bob])
    await asyncio.to_thread(proxy.kill)
    await ada.until(connected=False)
    await bob.until(open=False)
    await ada.edit("type", at=0, text="ada offline ")
    await bob.edit("type", at=0, text="bob offline ")
    await asyncio.to_thread(proxy.start)
    await until_saved(bob)
    shared = await converge([ada, bob])
    text = "".join(run["insert"] for run in shared["text"])
    assert sorted(text.split()) == ["ada", "ada", "bob", "bob", "offline", "offline"]


async def test_the_address_is_the_clients_whatever_it_says(
    proxy: Proxy, server: ServerProcess, trusted: ssl.SSLContext
) -> None:
    """And a page from the proxy's own address is let in, one from another is not."""
    name = f"address-{proxy.port}"
    client = RawClient(
        f"{proxy.ws_url}/ws/{name}?token={token()}", local="127.0.0.2", tls=trusted if proxy.secure else None
    )
    forged = {"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=198.51.100.8", "X-Real-IP": "198.51.100.9"}
    await client.connect({"Origin": proxy.url, **forged})
    line = await asyncio.to_thread(server.wait_for_log, re.compile(rf"\[\d+ \S+ '{name}'\] > SyncStep1").search)
    assert f" 127.0.0.2 '{name}'" in line
    await client.close()
    await client.connect({"Origin": proxy.url.replace("127.0.0.1", "evil.example")})
    await client.until(lambda: client.close_code is not None, "the refusal")
    assert client.close_code == 4403
    await client.close()


async def test_names_and_pages_of_the_http_interface_pass(proxy: Proxy, trusted: ssl.SSLContext) -> None:
    name = f"http {proxy.kind.program} {proxy.secure} {NAME}"
    context = trusted if proxy.secure else True
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as http:
        made = await http.post(f"{proxy.url}/api/v1/documents", json={"name": name}, ssl=context)
        assert made.status == 201, await made.text()
        one = URL(f"{proxy.url}/api/v1/documents/{quote(name, safe='')}", encoded=True)
        found = await http.get(one, ssl=context)
        assert found.status == 200, await found.text()
        assert (await found.json())["name"] == name


@pytest.mark.parametrize("name", KINDS)
async def test_events_pass_while_their_stream_stays_open(name: str, server: ServerProcess, tmp_path: Path) -> None:
    """A proxy that keeps answers back until they end would bring them after a minute."""
    kind = {"Content-Type": "application/octet-stream"}
    with Proxy(name, tmp_path, server.port) as proxy:
        document = f"{proxy.url}/streams/docs/events-{name}"
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token()}"}) as http:
            made = await http.put(document)
            assert made.status == 201, await made.text()
            query = {"offset": "-1", "live": "sse"}
            async with http.get(document, params=query) as stream, asyncio.timeout(30):
                assert (stream.status, stream.content_type) == (200, "text/event-stream")
                for number in range(1, 4):
                    body = encode_frames([Author(number).type(f"edit {number}")])
                    posted = await http.post(document, data=body, headers=kind)
                    assert posted.status < 300, await posted.text()
                    read = b""
                    while not (b"event: data" in read and b"event: control" in read):
                        read += await stream.content.readany()
                    assert not stream.content.at_eof()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.idle is not None])
@pytest.mark.node
async def test_the_heartbeat_keeps_a_connection_that_would_be_cut_for_its_silence(
    name: str,
    server: ServerProcess,
    quiet_server: ServerProcess,
    agents: tuple[Agent, HocuspocusAgent],
    tmp_path: Path,
) -> None:
    plain, hocuspocus = agents
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for index, target in enumerate((server, quiet_server)):
            (tmp_path / str(index)).mkdir()
            proxy = Proxy(name, tmp_path / str(index), target.port, idle=IDLE)
            started.append(stack.enter_context(proxy))
        kept, cut = started
        # y-websocket sends presence every 15 s, and providers close what is silent for 30 s: idle is shorter than both.
        ada = await plain.open("ada", "3.1", f"{kept.ws_url}/ws", f"idle {name}", params={"token": token()})
        bob = await hocuspocus.open("bob", "4", f"{kept.ws_url}/hocuspocus", f"idle {name}", token=token())
        await ada.until(synced=True)
        await until_saved(bob)
        # The same block, the same seconds, but a server that does not ping: the proxy has cut this one when it is over.
        control = await plain.open("control", "3.1", f"{cut.ws_url}/ws", "idle", params={"token": token()})
        await control.until(synced=True)

        async def was_cut() -> bool:
            return bool((await control.state())["closes"])

        await eventually(was_cut, "the proxy to cut an idle connection")
        assert [(await client.state())["opens"] for client in (ada, bob)] == [1, 1]
        assert [(await client.state())["closes"] for client in (ada, bob)] == [[], []]
        await bob.edit("type", at=0, text="still here")
        await until_saved(bob)
        await converge([ada, bob])


@pytest.mark.node
async def test_nginx_serves_it_below_a_path_of_its_own(
    server: ServerProcess, agents: tuple[Agent, HocuspocusAgent], tmp_path: Path
) -> None:
    plain, hocuspocus = agents

    def below(block: str) -> str:
        moved = block.replace("location / {", "location /collab/ {")
        return moved.replace("proxy_pass http://10.0.0.5:1234;", "proxy_pass http://10.0.0.5:1234/;")

    with Proxy("nginx", tmp_path, server.port, change=below) as proxy:
        ada = await plain.open("ada", "3.1", f"{proxy.ws_url}/collab/ws", "below/it", params={"token": token()})
        bob = await hocuspocus.open("bob", "4", f"{proxy.ws_url}/collab/hocuspocus", "below/it", token=token())
        await bob.edit("type", at=0, text="bob")
        await ada.until(synced=True)
        await until_saved(bob)
        await converge([ada, bob])
