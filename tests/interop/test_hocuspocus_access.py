"""Published Hocuspocus providers and who lets them in: denial, read only, and tokens and authenticators in trouble."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.agent import converge
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, until_saved
from tests.support import hocuspocus as wire
from tests.support.server import ServerProcess
from tests.support.token_server import DENIED
from tests.support.waiting import eventually

# What the empty token, and none, is told.
NO_TOKEN = "a valid token is needed"


def allow(server: ServerProcess, file: str) -> None:
    """Let happen what tokens with this file wait for."""
    (server.data_dir / file).touch()


def flag(name: str, kind: str) -> str:
    """Give the name of a file for this test alone."""
    return f"{kind}-{name.replace('/', '-')}"


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_denied_document_is_asked_for_again_on_the_same_socket(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    socket = await hocuspocus.socket(version, token_server.hocuspocus_url)
    beside = await socket.open("beside", name + "/beside", token="write")
    await beside.until(synced=True)
    denied = await socket.open("denied", name, token={"value": "deny"}, content=[["type", {"text": "before, "}]])
    state = await denied.until(failures=[DENIED])
    assert (state["synced"], state["authenticated"], state["scope"]) == (False, False, None)
    # People type on; the other document of the socket does not notice.
    await denied.edit("keystrokes", text="meanwhile, ")
    await beside.edit("type", text="unharmed")
    await beside.until(unsynced=0)
    assert (await denied.state())["unsaved"] is True
    # Denied again, then let in.
    await denied.retry()
    await denied.until(failures=[DENIED, DENIED])
    await denied.token({"value": "write"})
    await denied.retry()
    state = await until_saved(denied)
    assert (state["scope"], state["opens"], state["failures"]) == ("read-write", 1, [DENIED, DENIED])
    await denied.edit("type", text="after")
    await denied.until(unsaved=False)
    await denied.present({"user": "Ada"})
    reader = await hocuspocus.open("reader", version, token_server.hocuspocus_url, name, token="read")
    await reader.until(text=[{"insert": "before, meanwhile, after"}])
    ids = {str((await denied.state())["clientID"]): {"user": "Ada"}, str((await reader.state())["clientID"]): {}}
    await reader.until(states=dict(sorted(ids.items(), key=lambda item: int(item[0]))))
    assert (await beside.state())["failures"] == []


@pytest.mark.parametrize("version", ["3", "4"])
async def test_a_denied_provider_that_only_sends_another_token_is_let_in_whole(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    """Stock servers let a first SyncStep1 wait that came behind the denied token."""
    url = token_server.hocuspocus_url
    writer = await hocuspocus.open("writer", version, url, name, token="write")
    await writer.edit("type", text="there already, ")
    await until_saved(writer)
    content = [["push", {"values": ["mine"]}]]
    denied = await hocuspocus.open("denied", version, url, name, token={"value": "deny"}, content=content)
    await denied.until(failures=[DENIED])
    await denied.token({"value": "write"})
    await denied.send_token()
    await denied.until(synced=True, unsynced=0)
    await converge([writer, denied])
    assert (await writer.state())["array"] == ["mine"]


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_reader_sees_everything_and_changes_nothing(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = token_server.hocuspocus_url
    writer = await hocuspocus.open("writer", version, url, name, token="write", clientID=11)
    await writer.until(synced=True)
    await writer.edit("type", text="there already")
    await writer.until(unsynced=0)
    socket = await hocuspocus.socket(version, url)
    reader = await socket.open("reader", name, token="read", clientID=12)
    state = await reader.until(synced=True, unsynced=0)
    assert state["scope"] == "readonly"
    await writer.edit("fuzz", seed=1, count=20)
    await writer.until(synced=True, unsynced=0)
    await converge([writer, reader])
    # A reader is seen, and sees.
    await reader.present({"reads": True})
    await writer.until(states={"11": {}, "12": {"reads": True}})
    await writer.present({"writes": True})
    await reader.until(states={"11": {"writes": True}, "12": {"reads": True}})
    # What it says to all goes nowhere, what it hears is for it.
    await reader.send_stateless("not for anybody")
    await writer.send_stateless("for all")
    await reader.until(stateless=["for all"])
    # Its edit is refused: its provider never calls it saved, and nobody gets it.
    before = (await writer.state())["snapshot"]
    await reader.edit("type", text="not allowed")

    async def refused() -> bool:
        return any(one.type == wire.SYNC_STATUS and one.fields == (0,) for one in await socket.received())

    await eventually(refused, "SyncStatus 0")
    assert (await reader.state())["unsaved"] is True
    joiner = await hocuspocus.open("joiner", version, url, name, token="write")
    assert (await joiner.until(synced=True))["snapshot"] == before
    state = await writer.state()
    assert (state["snapshot"], state["stateless"]) == (before, [])
    assert (await reader.state())["opens"] == 1


@pytest.mark.parametrize("version", PROVIDERS)
async def test_offline_edits_of_a_reader_are_refused_when_it_comes_back(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = token_server.hocuspocus_url
    writer = await hocuspocus.open("writer", version, url, name, token="write")
    await writer.edit("type", text="there already")
    await until_saved(writer)
    socket = await hocuspocus.socket(version, url)
    reader = await socket.open("reader", name, token="read")
    await reader.until(synced=True, unsynced=0)
    await socket.disconnect()
    await reader.until(status="disconnected")
    await reader.edit("type", text="not allowed")
    await socket.connect()

    async def refused() -> bool:
        # The update that waited, and step 2, which holds it, too.
        return [one.fields for one in await socket.received() if one.type == wire.SYNC_STATUS][1:] == [(0,), (0,)]

    await eventually(refused, "two refusals")
    assert (await reader.state())["unsaved"] is True
    joiner = await hocuspocus.open("joiner", version, url, name, token="read")
    assert (await joiner.until(synced=True))["text"] == [{"insert": "there already"}]


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_slow_authenticator_holds_up_its_document_alone(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    socket = await hocuspocus.socket(version, token_server.hocuspocus_url)
    file = flag(name, "slow")
    slow = await socket.open("slow", name, token=f"wait={file} write", content=[["type", {"text": "before, "}]])
    others = [await socket.open(f"other {i}", f"{name}/{i}", token="write") for i in range(3)]
    await slow.edit("keystrokes", text="while it decides")
    for i, other in enumerate(others):
        await other.edit("type", text=f"other {i}")
        await until_saved(other)
    state = await slow.state()
    assert (state["authenticated"], state["unsaved"], state["failures"]) == (False, True, [])
    allow(token_server, file)
    await slow.until(synced=True, unsaved=False, opens=1)
    reader = await hocuspocus.open("reader", version, token_server.hocuspocus_url, name, token="read")
    await reader.until(text=[{"insert": "before, while it decides"}])


@pytest.mark.parametrize("version", PROVIDERS)
@pytest.mark.parametrize("trouble", ["down", "fail"])
async def test_an_authenticator_that_cannot_decide_is_asked_again_until_it_can(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str, trouble: str
) -> None:
    """Alone on its socket, the provider is sent away to come back; beside others it waits, and they go on."""
    url = token_server.hocuspocus_url
    file = flag(name, f"{trouble}-{version}")
    token: Any = f"down={file} write" if trouble == "down" else {"value": "fail"}
    alone_socket, shared_socket = [await hocuspocus.socket(version, url) for _ in range(2)]
    beside = await shared_socket.open("beside", name + "/beside", token="write")
    await beside.until(synced=True)
    waits = await shared_socket.open("waits", name, token=token)
    alone = await alone_socket.open("alone", name, token=token)

    async def sent_away_twice() -> bool:
        return len((await alone_socket.state())["closes"]) >= 2

    await eventually(sent_away_twice, "two closes")
    state = await alone.state()
    # The two retries of 3 that run side by side close each other's sockets, too.
    assert (state["closes"][0], state["failures"], state["synced"]) == (1013, [], False)
    # 2 would come back in the same millisecond from a connection that has given it any frame.
    assert await alone_socket.received() == []
    await beside.edit("type", text="goes on")
    await beside.until(unsynced=0, opens=1)
    for provider in (alone, waits):
        await provider.edit("type", text="kept ")
    if trouble == "down":
        allow(token_server, file)
    else:
        for provider in (alone, waits):
            await provider.token({"value": "write"})
        # A new token counts while the old one is still being asked for.
        await waits.retry()
    for provider in (alone, waits):
        await provider.until(synced=True, unsaved=False, text=[{"insert": "kept kept "}])
    await beside.until(opens=1)


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_slow_token_function_loses_no_edit(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    """What is typed meanwhile is sent at once, before the token and before SyncStep1."""
    socket = await hocuspocus.socket(version, token_server.hocuspocus_url)
    provider = await socket.open("slow", name, token={"value": "write", "slow": 300})
    await provider.until(open=True)
    await provider.edit("keystrokes", text="early")
    await until_saved(provider)
    kinds = [wire.parse_type(frame) for frame in await socket.sent()]
    assert kinds[:6] == [wire.SYNC] * 5 + [wire.AUTH]
    reader = await hocuspocus.open("reader", version, token_server.hocuspocus_url, name, token="read")
    await reader.until(text=[{"insert": "early"}])
    state = await provider.state()
    assert (state["asked"], state["opens"], state["failures"]) == (1, 1, [])


@pytest.mark.parametrize("version", PROVIDERS)
@pytest.mark.parametrize("sync", [False, True], ids=["promise", "plain"])
async def test_a_failing_token_function_lets_nobody_in_until_it_works(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str, sync: bool
) -> None:
    socket = await hocuspocus.socket(version, token_server.hocuspocus_url)
    beside = await socket.open("beside", name + "/beside", token="write")
    await beside.until(synced=True)
    provider = await socket.open("fails", name, token={"fail": "no token today", "sync": sync})
    # 2 says nothing to the server then; 3 and 4 begin to sync without a token, which is refused as none.
    failed = "Failed to get token" + ("" if version == "2" else " during sendToken()") + ": Error: no token today"
    state = await provider.until(failures=[failed] if version == "2" else [failed, NO_TOKEN])
    assert (state["authenticated"], state["synced"]) == (False, False)
    await provider.edit("type", text="kept")
    await provider.token({"value": "write", "sync": sync})
    await provider.retry()
    await provider.until(synced=True, unsaved=False, opens=1)
    reader = await hocuspocus.open("reader", version, token_server.hocuspocus_url, name, token="read")
    await reader.until(text=[{"insert": "kept"}])
    await beside.edit("type", text="unharmed")
    await beside.until(unsynced=0, opens=1)


@pytest.mark.parametrize("version", PROVIDERS)
@pytest.mark.parametrize("token", [None, "", "unknown"])
async def test_without_a_valid_token_the_reason_is_told(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str, token: str | None
) -> None:
    provider = await hocuspocus.open("nobody", version, token_server.hocuspocus_url, name, token=token)
    state = await provider.until(failures=[NO_TOKEN])
    assert (state["authenticated"], state["synced"], state["open"]) == (False, False, True)


@pytest.mark.parametrize("version", ["3", "4"])
async def test_another_token_on_a_live_session_changes_what_it_may(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str, version: str
) -> None:
    url = token_server.hocuspocus_url
    writer = await hocuspocus.open("writer", version, url, name, token="write")
    await writer.edit("push", values=["there already"])
    await until_saved(writer)
    provider = await hocuspocus.open("changes", version, url, name, token={"value": "read"})
    await provider.until(synced=True, unsynced=0, scope="readonly")
    await provider.token({"value": "write"})
    await provider.send_token()
    await provider.until(scope="read-write")
    await provider.edit("type", text="now it may")
    await provider.until(unsynced=0)
    await writer.until(text=[{"insert": "now it may"}])
    await provider.token({"value": "read"})
    await provider.send_token()
    await provider.until(scope="readonly")
    # What cannot be decided changes nothing; a denial ends the session.
    await provider.token({"value": "fail"})
    await provider.send_token()
    await writer.edit("type", text=", and reads")
    await provider.until(text=[{"insert": "now it may, and reads"}])
    assert (await provider.state())["failures"] == []
    await provider.token({"value": "deny"})
    await provider.send_token()
    await provider.until(failures=[DENIED], authenticated=False, opens=1)


async def test_fifty_documents_of_which_every_second_is_denied(
    token_server: ServerProcess, hocuspocus: HocuspocusAgent, name: str
) -> None:
    for version in PROVIDERS:
        socket = await hocuspocus.socket(version, token_server.hocuspocus_url)
        providers = [
            await socket.open(f"{version}/{i}", f"{name}/{version}/{i}", token={"value": ("write", "deny")[i % 2]})
            for i in range(50)
        ]
        for i, provider in enumerate(providers):
            await provider.edit("keystrokes", text=f"document {i}")
        for i, provider in enumerate(providers):
            if i % 2:
                await provider.until(failures=[DENIED])
            else:
                await until_saved(provider)
        for provider in providers[1::2]:
            await provider.token({"value": "write"})
            await provider.retry()
        for provider in providers:
            await provider.until(synced=True, unsaved=False, opens=1)
