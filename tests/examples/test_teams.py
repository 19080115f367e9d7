"""Teams and their notes, on FastAPI and on aiohttp: people by the cookies of the application, with npm clients."""

from __future__ import annotations

import aiohttp
import pytest

from tests.examples.conftest import RunExample, cookie_of
from tests.interop.hocuspocus import HocuspocusAgent, Provider
from tests.support.waiting import eventually

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
async def test_a_team_writes_and_others_do_not(
    run_example: RunExample, hocuspocus: HocuspocusAgent, folder: str
) -> None:
    address = await run_example(folder, *EXAMPLES[folder])
    url = f"ws://{address}/collab/hocuspocus"
    people = {user: await cookie_of(address, user, as_json=folder == "fastapi-app") for user in ("ada", "bob", "cy")}
    sockets = {user: await hocuspocus.socket("4", url, headers=cookie) for user, cookie in people.items()}
    ada = await sockets["ada"].open("ada", "red/plan")
    bob = await sockets["bob"].open("bob", "red/plan")
    await ada.until(synced=True)
    await ada.edit("type", text="ship it")
    await bob.until(synced=True, text=[{"insert": "ship it"}])
    cy = await sockets["cy"].open("cy", "red/plan")
    nobody = await (await hocuspocus.socket("4", url)).open("nobody", "red/plan")
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
