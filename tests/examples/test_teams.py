"""Teams and their notes, on FastAPI and on aiohttp: people by the cookies of the application, with npm clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.interop.hocuspocus import HocuspocusAgent, Provider
from tests.support.needs import demand
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

RunExample = Callable[..., Awaitable[str]]


@pytest_asyncio.fixture
async def run_example(tmp_path: Path) -> AsyncIterator[RunExample]:
    """Give what runs an example by its folder and what Python is to run there; that gives its address."""
    demand("server")
    processes: list[asyncio.subprocess.Process] = []

    async def run(folder: str, *program: str) -> str:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        environment = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "PORT": str(port), "PYTHONPATH": str(ROOT)}
        command = [part.format(port=port) for part in program]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            cwd=ROOT / "examples" / folder,
            env=environment,
            start_new_session=True,
        )
        processes.append(process)

        async def answers() -> bool:
            assert process.returncode is None, "the example has ended"
            with contextlib.suppress(aiohttp.ClientError):
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"http://127.0.0.1:{port}/collab/readyz") as response,
                ):
                    return response.status == 200
            return False

        await eventually(answers, f"{folder} serves")
        return f"127.0.0.1:{port}"

    yield run
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest_asyncio.fixture
async def npm() -> AsyncIterator[HocuspocusAgent]:
    """Give the agent for Hocuspocus providers."""
    async with HocuspocusAgent() as agent:
        yield agent


async def cookie_of(address: str, user: str, *, as_json: bool) -> dict[str, str]:
    """Sign in, and give the header with the cookie of the session."""
    body = {"json": {"user": user}} if as_json else {"data": {"user": user}}
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.post(f"http://{address}/sign-in", **body) as response,  # type: ignore[arg-type]
    ):
        assert response.status == 200
        return {"Cookie": "; ".join(f"{morsel.key}={morsel.value}" for morsel in response.cookies.values())}


EXAMPLES = {
    "fastapi-app": ("-m", "uvicorn", "app:app", "--port", "{port}"),
    "aiohttp-app": ("app.py",),
}


async def failure(provider: Provider) -> str:
    """Wait until a provider was refused, and give the reason."""

    async def look() -> list[str]:
        state = await provider.state()
        assert state["text"] == []
        failures: list[str] = state["failures"]
        return failures

    return (await eventually(look, "a refusal"))[0]


@pytest.mark.node
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("folder", EXAMPLES)
async def test_a_team_writes_and_others_do_not(run_example: RunExample, npm: HocuspocusAgent, folder: str) -> None:
    address = await run_example(folder, *EXAMPLES[folder])
    url = f"ws://{address}/collab/hocuspocus"
    people = {user: await cookie_of(address, user, as_json=folder == "fastapi-app") for user in ("ada", "bob", "cy")}
    sockets = {user: await npm.socket("4", url, headers=cookie) for user, cookie in people.items()}
    ada = await sockets["ada"].open("ada", "red/plan")
    bob = await sockets["bob"].open("bob", "red/plan")
    await ada.until(synced=True)
    await ada.edit("type", text="ship it")
    await bob.until(synced=True, text=[{"insert": "ship it"}])
    cy = await sockets["cy"].open("cy", "red/plan")
    nobody = await (await npm.socket("4", url)).open("nobody", "red/plan")
    assert await failure(cy) != await failure(nobody), "each is told why"
    async with aiohttp.ClientSession() as session:
        for user, status in (("ada", 200), ("cy", 403)):
            where = f"http://{address}/collab/api/v1/documents/red%2Fplan"
            async with session.get(where, headers=people[user]) as response:
                assert response.status == status, user
        async with session.get(f"http://{address}/collab/api/v1/documents") as response:
            assert response.status == 401
        elsewhere = {**people["ada"], "Origin": "https://elsewhere.example"}
        async with session.get(f"http://{address}/collab/api/v1/documents", headers=elsewhere) as response:
            assert response.status == 403
