"""Who gets in with which token, over each protocol, as the published clients see it.

Strategy: one server that knows a shared secret and a public key, one table of tokens, and for each token the
same questions to both protocols: may it open a document that exists, may it change it, may it make one. What
is compared is what the npm client itself reports: the code of its socket's close or the reason of its denial,
the scope that it believes to have, and how often it came back.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt
import pytest

from tests.auth.makers import Pair, encoded, pair
from tests.interop.agent import VERSIONS, Agent
from tests.interop.conftest import OPTIONS
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent
from tests.support.api import told
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import PATIENCE

SECRET = "a secret of the tests, long enough for its hash"
AUDIENCE, ISSUER = "collab-tests", "https://app.example"
NO_TOKEN = "no token was given"
UNKNOWN_KEY = "the token is signed with a key that this server does not know"
NOT_THIS = "the token does not allow this document (claim documents)"

_documents = itertools.count(1)

AgentOf = Callable[[str], Awaitable[Agent]]


def claims(**changes: Any) -> dict[str, Any]:
    made = {
        "sub": "u-17",
        "name": "Ada",
        "documents": {"made/*": "admin"},
        "aud": AUDIENCE,
        "iss": ISSUER,
        "exp": time.time() + 3600,
    } | changes
    return {name: value for name, value in made.items() if value is not None}


def token(**changes: Any) -> str:
    return jwt.encode(claims(**changes), SECRET, "HS256")


def key() -> Pair:
    return pair("RS256", 40)


def with_the_public_key_as_secret() -> str:
    """Sign with HMAC and the public key, which everybody may know: the classic confusion of algorithms."""
    head = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded(claims())}"
    signature = hmac.new(key().public_pem.encode(), head.encode(), hashlib.sha256).digest()
    return f"{head}.{encoded(signature)}"


@dataclass(frozen=True)
class Case:
    """A token, and what it gets; ``said`` is the reason of a refusal, ``code`` its close code in y-websocket."""

    make: Callable[[], str]
    code: int | None = None
    said: str = ""
    scope: str = "read-write"
    access: str = "admin"


CASES = {
    "none": Case(lambda: "", 4401, NO_TOKEN),
    "garbage": Case(lambda: "garbage", 4401, "the token is not a JWT"),
    "signed with another secret": Case(
        lambda: jwt.encode(claims(), "another secret that is long enough to be one", "HS256"),
        4401,
        UNKNOWN_KEY,
    ),
    "signed with another key": Case(
        lambda: jwt.encode(claims(), pair("RS256", 41).private, "RS256"),
        4401,
        UNKNOWN_KEY,
    ),
    "expired": Case(lambda: token(exp=time.time() - 80), 4401, "the token has expired"),
    "for another audience": Case(
        lambda: token(aud="another"), 4401, "the token is for another audience (claim aud) than this server"
    ),
    "without a signature": Case(
        lambda: f"{encoded({'alg': 'none'})}.{encoded(claims())}.", 4401, "the token is not signed (alg none)"
    ),
    "signed with the public key as a secret": Case(with_the_public_key_as_secret, 4401, UNKNOWN_KEY),
    "for another document": Case(lambda: token(documents={"other/*": "write"}), 4403, NOT_THIS),
    "read": Case(lambda: token(documents={"made/*": "read"}), scope="readonly", access="read"),
    "write": Case(lambda: token(documents={"made/*": "write"}), access="write"),
    "admin": Case(token),
    "admin, signed by the key": Case(lambda: jwt.encode(claims(), key().private, "RS256")),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("access")
    (folder / "key.pem").write_text(key().public_pem)
    environment = {
        "COLLAB_JWT_SECRET": SECRET,
        "COLLAB_JWT_KEYS": str(folder / "key.pem"),
        "COLLAB_JWT_AUDIENCE": AUDIENCE,
        "COLLAB_JWT_ISSUER": ISSUER,
    }
    with ServerProcess(folder / "data", *OPTIONS, environment=environment) as running:
        yield running


async def made(hocuspocus: HocuspocusAgent, server: ServerProcess) -> str:
    """Make a document with something in it and give its name."""
    name = f"made/{next(_documents)}"
    author = await hocuspocus.open(f"author of {name}", "4", server.hocuspocus_url, name, token=token())
    await author.until(synced=True)
    await author.edit("type", text="here")
    await author.until(unsaved=False)
    return name


async def audited(server: ServerProcess, name: str, protocol: str) -> None:
    """Wait for the audit line of an edit that was refused; what it does not say is what was typed."""
    who = f"address=127.0.0.1 user='u-17' document='{name}' protocol={protocol}"
    line = f"permission refused: an edit by a client that may only read ({who})"
    await asyncio.to_thread(server.wait_for_log, lambda found: found.endswith(line))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("version", PROVIDERS)
async def test_hocuspocus(server: ServerProcess, hocuspocus: HocuspocusAgent, version: str, case: Case) -> None:
    name = await made(hocuspocus, server)
    client = await hocuspocus.open("client", version, server.hocuspocus_url, name, token={"value": case.make()})
    if case.code is not None:
        state = await client.until(failures=[case.said])
        assert (state["authenticated"], state["text"], state["opens"]) == (False, [], 1)
        await client.edit("type", text="never ")
        await asyncio.sleep(1)  # in which a storm would show
        assert (await client.state())["opens"] <= 2
        return
    await client.until(text=[{"insert": "here"}], scope=case.scope)
    await client.edit("type", text="more")
    other = await hocuspocus.open("other", "4", server.hocuspocus_url, name, token=token())
    if case.scope == "readonly":
        await other.until(text=[{"insert": "here"}])
        # Refused, and nobody ever sees it; what others write still arrives.
        await other.edit("set", key="seen", value=1)
        await client.until(map={"seen": 1})
        state = await client.state()
        assert state["unsaved"] is True
        await audited(server, name, "hocuspocus")
        assert (await other.state())["text"] == [{"insert": "here"}]
    else:
        await other.until(text=[{"insert": "heremore"}])
        await client.until(unsaved=False)
    fresh = await hocuspocus.open("fresh", version, server.hocuspocus_url, f"{name}/new", token={"value": case.make()})
    await fresh.until(synced=True, failures=[], scope=case.scope)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_y_websocket(server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, case: Case) -> None:
    name = await made(hocuspocus, server)
    agent = await agent_of("3.1")
    client = await agent.open("client", "3.1", server.ws_url, name, params={"token": case.make()})
    if case.code is not None:
        state = await client.until(closed={"code": case.code, "reason": case.said})
        assert (state["shouldConnect"], state["opens"], state["text"]) == (False, 1, [])
        return
    await client.until(text=[{"insert": "here"}])
    await client.edit("type", text="more")
    other = await agent.open("other", "3.1", server.ws_url, name, params={"token": token()})
    if case.scope == "readonly":
        await other.until(text=[{"insert": "here"}], synced=True)
        await other.edit("set", key="seen", value=1)
        await client.until(map={"seen": 1})
        assert (await other.state())["text"] == [{"insert": "here"}]
        assert (await client.state())["connected"] is True
        await audited(server, name, "y-websocket")
    else:
        await other.until(text=[{"insert": "heremore"}])
    fresh = await agent.open("fresh", "3.1", server.ws_url, f"{name}/new", params={"token": case.make()})
    await fresh.until(synced=True, closed=None)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_http(server: ServerProcess, hocuspocus: HocuspocusAgent, case: Case) -> None:
    name = await made(hocuspocus, server)
    shown = case.make()
    headers = {"Authorization": f"Bearer {shown}"} if shown else {}
    async with aiohttp.ClientSession(f"{server.url}/", headers=headers) as session:

        async def ask(method: str, address: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
            async with session.request(method, f"/api/v1/documents{address}", json=body) as response:
                return response.status, await told(response)

        status, said = await ask("GET", f"/{name}")
        if case.code is not None:
            refused = (case.code - 4000, case.said)
            assert (status, said) == refused
            assert await ask("POST", "", {"name": f"{name}/new"}) == refused
            assert await ask("PATCH", f"/{name}", {"title": "Mine"}) == refused
            assert await ask("DELETE", f"/{name}") == refused
            return
        assert (status, said["access"], said["title"]) == (200, case.access, None)
        rank = ("read", "write", "admin").index(case.access)
        no_write, no_admin = (403, "this needs write access"), (403, "this needs admin access")
        status, said = await ask("POST", "", {"name": f"{name}/new"})
        assert status == 201 if rank else (status, said) == no_write
        status, said = await ask("PATCH", f"/{name}", {"title": "Mine"})
        assert (status, said["title"]) == (200, "Mine") if rank else (status, said) == no_write
        status, said = await ask("DELETE", f"/{name}")
        assert status == 204 if rank == 2 else (status, said) == no_admin


async def test_a_refused_y_websocket_3_0_which_always_comes_back_does_not_come_in_a_storm(
    server: ServerProcess, agent_of: AgentOf
) -> None:
    """Version 3.0 knows no code for good, and after a socket that was open waits 100 ms."""
    client = await (await agent_of("3.0")).open("client", "3.0", server.ws_url, "made/x", params={"token": "bad"})

    async def refused_often() -> list[int]:
        closes: list[int] = (await client.state())["closes"]
        return closes if len(closes) >= 5 else []

    begun = time.monotonic()
    assert set(await eventually(refused_often, "refused again and again")) == {4401}
    # Its own pauses alone would make that 0.4 seconds.
    assert time.monotonic() - begun > 3


# The claims of tokens that time will mend, or has just ended: seconds from now.
WAITS = {"not yet valid": {"nbf": 16}, "expired a moment ago": {"exp": -12}}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("when", WAITS.values(), ids=WAITS.keys())
async def test_what_waiting_mends_is_no_final_refusal_over_y_websocket(
    server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, version: str, when: dict[str, int]
) -> None:
    name = await made(hocuspocus, server)
    agent = await agent_of(version)
    old = token(**{claim: time.time() + seconds for claim, seconds in when.items()})
    client = await agent.open("client", version, server.ws_url, name, params={"token": old})

    async def refused_often() -> list[int]:
        closes: list[int] = (await client.state())["closes"]
        return closes if len(closes) >= 3 else []

    assert set(await eventually(refused_often, "refused several times")) == {4501 if "exp" in when else 1013}
    await agent.ask("params", key="client", params={"token": token()})
    await client.until(synced=True, closed=None, text=[{"insert": "here"}])


@pytest.mark.parametrize("version", PROVIDERS)
@pytest.mark.parametrize("when", WAITS.values(), ids=WAITS.keys())
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another document"])
async def test_what_waiting_mends_is_no_final_refusal_over_hocuspocus(
    server: ServerProcess, hocuspocus: HocuspocusAgent, version: str, when: dict[str, int], beside: bool
) -> None:
    name = await made(hocuspocus, server)
    old = token(**{claim: time.time() + seconds for claim, seconds in when.items()})
    socket = await hocuspocus.socket(version, server.hocuspocus_url)
    if beside:
        other = await socket.open("other", f"{name}/other", token={"value": token()})
        await other.until(synced=True)
    client = await socket.open("client", name, token={"value": old, "sync": True})
    await asyncio.sleep(1)  # it is refused once or several times
    assert (await client.state())["synced"] is False
    if "exp" in when:
        await client.token({"value": token(), "sync": True})
    state = await client.until(synced=True, failures=[], text=[{"insert": "here"}])
    assert state["scope"] == "read-write"
    if beside:
        await other.edit("type", text="goes on")
        await other.until(unsaved=False)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_recipe_brings_a_y_websocket_client_a_fresh_token_from_a_slow_route(
    server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, version: str
) -> None:
    """As docs/security.md shows it, in every version; the route takes 600 ms, and fails the first time."""
    name = await made(hocuspocus, server)
    agent = await agent_of(version)
    # The leeway of the server is ten seconds.
    client = await agent.open("client", version, server.ws_url, name, params={"token": token(exp=time.time() - 8)})
    await agent.ask("renews", key="client", tokens=[None, token()], slow=600)
    await client.until(text=[{"insert": "here"}], synced=True)
    await client.until(closes=[4501], opens=2, synced=True, asked=2)
    await client.edit("type", text="more")
    await client.disconnect()
    # After a night the computer wakes up, with a token that ran out long ago: its first try is refused for good.
    await agent.ask("params", key="client", params={"token": token(exp=time.time() - 3_600)})
    await agent.ask("renews", key="client", tokens=[token()], slow=600)
    await client.connect()
    await client.until(text=[{"insert": "heremore"}], synced=True, shouldConnect=True)
    assert (await client.state())["closes"][-1] == 4401


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_page_that_renews_its_token_only_while_it_is_sent_away_gets_in_as_well(
    server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, version: str
) -> None:
    """What these docs have shown before: the provider comes back with the old token while the new one is fetched."""
    name = await made(hocuspocus, server)
    agent = await agent_of(version)
    client = await agent.open("client", version, server.ws_url, name, params={"token": token(exp=time.time() - 8)})
    await client.until(text=[{"insert": "here"}], synced=True)
    await client.until(closes=[4501, 4501])
    await asyncio.sleep(0.6)
    await agent.ask("params", key="client", params={"token": token()})
    state = await client.until(synced=True, closed=None)
    assert set(state["closes"]) == {4501}


@pytest.mark.parametrize("version", PROVIDERS)
async def test_a_provider_is_asked_for_a_fresh_token_in_time(
    server: ServerProcess, hocuspocus: HocuspocusAgent, version: str
) -> None:
    name = await made(hocuspocus, server)
    client = await hocuspocus.open(
        "client", version, server.hocuspocus_url, name, token={"value": token(exp=time.time() - 6)}
    )
    await client.until(text=[{"insert": "here"}], scope="read-write")
    await client.token({"value": token(documents={"made/*": "read"})})

    async def fresh() -> dict[str, Any] | None:
        state = await client.state()
        return state if state["scope"] == "readonly" else None

    state = await eventually(fresh, "the scope of the fresh token", PATIENCE)
    # Providers 2 cannot be asked: their socket is closed, upon which they come back with it.
    assert state["opens"] == (1 if version != "2" else 2)
    assert state["failures"] == []


@pytest.mark.parametrize("version", PROVIDERS)
async def test_nobody_poses_as_somebody_else(
    server: ServerProcess, hocuspocus: HocuspocusAgent, agent_of: AgentOf, version: str
) -> None:
    name = await made(hocuspocus, server)
    posing = {"user": {"name": "The Director", "color": "#c00", "sub": "u-1"}, "cursor": {"at": 1.5}}
    client = await hocuspocus.open("client", version, server.hocuspocus_url, name, token={"value": token()})
    plain = await (await agent_of("3.1")).open("plain", "3.1", server.ws_url, name, params={"token": token(name=None)})
    await client.until(synced=True)
    await plain.until(synced=True)
    await client.present(posing)
    await plain.present(posing)
    seen = {"name": "Ada", "color": "#c00", "sub": "u-17"}

    async def shown(looks: Any, shows: Any) -> Any:
        return (await looks.state())["states"].get(str((await shows.state())["clientID"]))

    async def both() -> bool:
        return bool(await shown(plain, client)) and bool(await shown(client, plain))

    await eventually(both, "each sees the other")
    assert await shown(plain, client) == posing | {"user": seen}
    assert await shown(client, plain) == posing | {"user": seen | {"name": "u-17"}}
