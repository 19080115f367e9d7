"""Published clients that come too early, or too many at once: what will pass by waiting keeps nobody out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import jwt
import pytest

from tests.interop.agent import VERSIONS, Agent
from tests.interop.conftest import OPTIONS
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, until_saved
from tests.support.server import ServerProcess

AgentOf = Callable[[str], Awaitable[Agent]]

SECRET = "a secret of the tests, long enough for its hash"


def token(user: str, access: str = "write") -> str:
    claims = {"sub": user, "documents": {"*": access}, "exp": time.time() + 3_600}
    return jwt.encode(claims, SECRET, "HS256")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("held")
    options = (*OPTIONS, "--max-new-documents-per-minute", "120", "--auth-seconds", "5")
    with ServerProcess(folder, *options, environment={"COLLAB_JWT_SECRET": SECRET}) as running:
        yield running


@pytest.mark.parametrize("version", PROVIDERS)
async def test_150_new_documents_on_one_socket_all_get_in(
    server: ServerProcess, hocuspocus: HocuspocusAgent, version: str
) -> None:
    """120 at once, and then two a second; what is typed meanwhile waits for nobody to type it again."""
    socket = await hocuspocus.socket(version, server.hocuspocus_url)
    shown = token(f"user of {version}")
    providers = [
        await socket.open(f"{version}/{i}", f"many/{version}/{i}", token=shown, content=[["type", {"text": f"{i}, "}]])
        for i in range(150)
    ]
    for provider in providers[::10]:
        await provider.edit("keystrokes", text="while it waits")
    for provider in providers:
        state = await until_saved(provider)
        assert (state["failures"], state["scope"]) == ([], "read-write")
    assert (await socket.state())["opens"] == 1
    reader = await hocuspocus.open(
        "reader", version, server.hocuspocus_url, f"many/{version}/140", token=token("r", "read")
    )
    await reader.until(text=[{"insert": "140, while it waits"}])


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_socket_on_which_all_wait_stays_open_for_longer_than_its_client_may_take_to_show_a_token(
    server: ServerProcess, hocuspocus: HocuspocusAgent, version: str
) -> None:
    """Five seconds here."""
    shown = token(f"another user of {version}")
    first = await hocuspocus.socket(version, server.hocuspocus_url)
    for i in range(135):
        await first.open(f"a{version}/{i}", f"all/{version}/{i}", token=shown)
    late = await hocuspocus.open("late", version, server.hocuspocus_url, f"all/{version}/late", token=shown)
    await late.edit("type", text="at last")
    state = await until_saved(late)
    assert (state["failures"], state["opens"]) == ([], 1)


@pytest.mark.parametrize("made_by", ["an edit", "the HTTP API"])
@pytest.mark.parametrize("version", [*PROVIDERS, *VERSIONS])
async def test_a_reader_before_the_first_edit_sees_it_come(
    server: ServerProcess,
    hocuspocus: HocuspocusAgent,
    agent_of: AgentOf,
    name: str,
    version: str,
    made_by: str,
) -> None:
    name = f"{name}/{version}"
    shown, writes = token("reader", "read"), token(f"writer of {version}")
    if version in PROVIDERS:
        reader = await hocuspocus.open("reader", version, server.hocuspocus_url, name, token=shown)
    else:
        agent = await agent_of(version)
        reader = await agent.open("reader", version, server.ws_url, name, params={"token": shown})
    await reader.until(synced=True, text=[])
    if made_by == "the HTTP API":
        headers = {"Authorization": f"Bearer {writes}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"{server.url}/api/v1/documents", json={"name": name}) as answer,
        ):
            assert answer.status == 201
    writer = await hocuspocus.open("writer", "4", server.hocuspocus_url, name, token=writes)
    await writer.until(synced=True)
    # One who comes while a writer has it open without an edit.
    late = await hocuspocus.open("late", "4", server.hocuspocus_url, name, token=shown)
    await late.until(synced=True, scope="readonly")
    await writer.edit("type", text="the first")
    for one in (reader, late):
        await one.until(text=[{"insert": "the first"}])
    state = await reader.state()
    assert state["opens"] == 1 and state["closes"] == []
