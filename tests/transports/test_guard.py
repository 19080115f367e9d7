"""Bounds over real sockets: each refuses in the client's own protocol, with its own reason, and nobody else pays."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer, make_mocked_request

from collab.app import GUARD, HUB, create_app
from collab.auth.access import AccessRequest, Grant
from collab.errors import Unauthenticated
from collab.limits.limits import MAX_BODIES
from collab.net import Peer
from collab.protocol.session import Access
from collab.settings import Settings
from tests.support import hocuspocus
from tests.support.api import told
from tests.support.hocuspocus import RawHocuspocus
from tests.support.waiting import happens
from tests.support.wsclient import EMPTY_UPDATE, RawClient, awareness, step2, text_update, update, varbytes
from tests.transports.conftest import Serve, Served

PROXY = {"behind_proxy": True, "trusted_proxies": "127.0.0.1"}
ADA, BOB = "203.0.113.7", "198.51.100.9"


class ByToken:
    """Let in everybody who shows a token, which names the user before its first colon."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        if not request.token:
            raise Unauthenticated("no token was given", public="no token was given")
        return Grant(Access.WRITE, request.token.partition(":")[0])


class Clients:
    """Open sockets from any address, and close them all in the end."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def y(self, served: Served, name: str, address: str = ADA, token: str = "ada") -> RawClient:
        client = RawClient(f"{served.ws(name)}?token={token}")
        await client.connect({"X-Forwarded-For": address})
        self._stack.push_async_callback(client.close)
        return client

    async def hocuspocus(self, served: Served, address: str = ADA) -> RawHocuspocus:
        client = RawHocuspocus(served.hocuspocus)
        await client.connect({"X-Forwarded-For": address})
        self._stack.push_async_callback(client.close)
        return client


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    async with AsyncExitStack() as stack:
        yield Clients(stack)


ServeProxied = Callable[..., Awaitable[Served]]


@pytest.fixture
def proxied(serve: Serve) -> ServeProxied:
    """Serve with authentication, believing this machine what it says of addresses."""

    async def start(**options: object) -> Served:
        return await serve(authenticator=ByToken(), **{**PROXY, **options})

    return start


async def welcome(client: RawClient) -> RawClient:
    await client.expect_sync(0)
    return client


async def refused(client: RawClient) -> tuple[int, str | None]:
    return await client.expect_close(), client.close_reason


async def test_connections_in_all(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_connections=2)
    first = await welcome(await clients.y(served, "a"))
    await welcome(await clients.y(served, "b", BOB))
    reason = (1013, "the server has too many connections, come back later")
    assert await refused(await clients.y(served, "c")) == reason
    assert await refused(await clients.hocuspocus(served)) == reason
    await first.close()
    await happens(lambda: served.app[GUARD].limits.connections == 1, "its place is free")
    await welcome(await clients.y(served, "c"))


async def test_connections_of_one_address_and_not_of_another_behind_the_same_proxy(
    proxied: ServeProxied, clients: Clients
) -> None:
    served = await proxied(max_connections_per_address=2)
    for name in "ab":
        await welcome(await clients.y(served, name))
    reason = (1013, "too many connections from your address, come back later")
    assert await refused(await clients.y(served, "c")) == reason
    assert await refused(await clients.y(served, "c", f"10.0.0.1, {ADA}")) == reason, "an invented hop does not help"
    assert await refused(await clients.hocuspocus(served)) == reason
    await welcome(await clients.y(served, "c", BOB))


async def test_an_ipv6_subscriber_is_one_address(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_connections_per_address=1)
    await welcome(await clients.y(served, "a", "2001:db8::1"))
    assert (await refused(await clients.y(served, "b", "2001:db8::2")))[0] == 1013
    await welcome(await clients.y(served, "b", "2001:db8:0:1::1"))


async def test_connections_of_one_user_from_anywhere(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_connections_per_user=2)
    first = await welcome(await clients.y(served, "a"))
    shared = await clients.hocuspocus(served, BOB)
    for name in "abc":  # three documents, one socket
        await shared.send(hocuspocus.auth(name, "ada"))
        await shared.find(lambda frame, name=name: frame.address == name, f"a word on {name}")
    assert not [frame for frame in shared.got(number=hocuspocus.AUTH) if frame.fields[0] == 0]
    reason = (1013, "too many connections with your sign-in, come back later")
    assert await refused(await clients.y(served, "b", BOB)) == reason
    third = await clients.hocuspocus(served)
    await third.send(hocuspocus.auth("a", "ada"))
    assert await refused(third) == reason
    await welcome(await clients.y(served, "b", token="bob"))
    await first.close()
    await happens(lambda: served.app[GUARD].limits.connections == 2, "its place is free")
    await welcome(await clients.y(served, "b"))


async def test_connections_on_one_document(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_connections_per_document=2)
    members = [await welcome(await clients.y(served, "busy", token=token)) for token in ("ada", "bob")]
    reason = "the document is open too many times, come back later"
    assert await refused(await clients.y(served, "busy", token="eve")) == (1013, reason)
    shared = await clients.hocuspocus(served)
    await shared.send(hocuspocus.auth("busy", "ada"), hocuspocus.auth("other", "ada"))
    granted = await shared.find_type("other", hocuspocus.AUTH)
    assert granted.fields[0] == hocuspocus.AUTHENTICATED and shared.open
    assert not shared.got("busy", hocuspocus.AUTH), "it waits for its turn"
    await members[0].close()
    granted = await shared.find_type("busy", hocuspocus.AUTH)
    assert granted.fields[0] == hocuspocus.AUTHENTICATED


async def test_new_connections_a_second_of_one_address(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_new_connections_per_second=0.01)  # and one at once
    await welcome(await clients.y(served, "a"))
    reason = (1013, "too many new connections from your address, come back later")
    assert await refused(await clients.y(served, "a")) == reason
    assert await refused(await clients.hocuspocus(served)) == reason
    await welcome(await clients.y(served, "a", BOB))


async def test_new_documents_a_minute_of_one_user(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_new_documents_per_minute=2)
    first = await welcome(await clients.y(served, "first"))
    await first.send(step2(text_update(1, "there")))
    await first.barrier()
    await welcome(await clients.y(served, "second", BOB))
    reason = "too many new documents, come back later"
    assert await refused(await clients.y(served, "third")) == (1013, reason)
    shared = await clients.hocuspocus(served)
    await shared.send(hocuspocus.auth("fourth", "ada"), hocuspocus.auth("first", "ada"))
    assert (await shared.find_type("first", hocuspocus.AUTH)).fields[0] == hocuspocus.AUTHENTICATED, "it is not new"
    assert not shared.got("fourth", hocuspocus.AUTH), "it waits for its turn"
    await welcome(await clients.y(served, "third", token="bob"))


async def test_new_documents_wait_on_their_socket_and_are_let_in_one_after_the_other(
    proxied: ServeProxied, clients: Clients
) -> None:
    served = await proxied(max_new_documents_per_minute=60)
    shared = await clients.hocuspocus(served)
    names = [f"new {number:02}" for number in range(63)]
    for name in names:
        await shared.send(hocuspocus.auth(name, "ada"), hocuspocus.step1(name))
    await shared.send(hocuspocus.update(names[-1], text_update(1, "typed while it waits")))
    for name in names:
        granted = await shared.find_type(name, hocuspocus.AUTH)
        assert granted.fields == (hocuspocus.AUTHENTICATED, "read-write")
    # What was typed meanwhile is acknowledged when the client has answered the server's question.
    await shared.send(hocuspocus.step2(names[-1], text_update(1, "typed while it waits")))
    assert await shared.statuses(names[-1], 2) == [1, 1]
    assert len(served.app[HUB].rooms) == 63


async def test_a_document_that_is_closed_while_it_waits_takes_no_turn(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_new_documents_per_minute=1)
    shared = await clients.hocuspocus(served)
    await shared.send(hocuspocus.auth("first", "ada"))
    await shared.find_type("first", hocuspocus.AUTH)
    for name in ("second", "third"):  # they ask at the same time, and either may book first
        await shared.send(hocuspocus.auth(name, "ada"))
    bucket = served.app[GUARD].limits._users["ada"].documents
    assert bucket is not None
    await happens(lambda: bucket._tokens < -1.9, "two turns that were booked")
    await shared.send(hocuspocus.close("second"))
    await happens(lambda: -1.0 <= bucket._tokens < -0.9, "one that was given back")
    await shared.close()
    await happens(lambda: -0.1 <= bucket._tokens < 0.1, "the other one as well")


async def test_documents_made_over_http_count_as_those_made_by_joining(
    proxied: ServeProxied, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    served = await proxied(max_new_documents_per_minute=2)
    async with aiohttp.ClientSession() as session:

        async def create(name: str, token: str = "ada") -> tuple[int, str | None, Any]:
            headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": ADA}
            async with session.post(f"{served.url}/api/v1/documents", json={"name": name}, headers=headers) as response:
                return response.status, response.headers.get("Retry-After"), await told(response)

        assert (await create("first"))[0] == 201
        for _ in range(3):
            assert (await create("first"))[0] == 409, "what is there already is not counted"
        await welcome(await clients.y(served, "first"))
        await welcome(await clients.y(served, "second", BOB))
        reason = "too many new documents, come back later"
        assert await create("third") == (429, "30", reason)
        assert await refused(await clients.y(served, "third")) == (1013, reason)
        assert (await create("third", "bob"))[0] == 201
        headers = {"Authorization": "Bearer ada"}
        async with session.patch(
            f"{served.url}/api/v1/documents/first", json={"title": "x"}, headers=headers
        ) as response:
            assert response.status == 200, "a title makes nothing new"
    line = f"limit: more than 2 new documents a minute of the user 'ada' (address={ADA} user='ada' document='third'"
    lines = [text for text in caplog.messages if text.startswith("limit: ")]
    assert lines == [f"{line})", f"{line} protocol=y-websocket)"]


async def test_requests_of_one_address(proxied: ServeProxied) -> None:
    served = await proxied(max_requests_per_second=0.2)  # two at once
    async with aiohttp.ClientSession() as session:

        async def status(address: str) -> int:
            async with session.get(f"{served.url}/healthz", headers={"X-Forwarded-For": address}) as response:
                return response.status

        assert [await status(ADA) for _ in range(3)] == [200, 200, 429]
        assert await status(BOB) == 200
        async with session.get(f"{served.url}/healthz", headers={"X-Forwarded-For": ADA}) as response:
            assert response.headers["Retry-After"] == "1" and "too many requests" in await response.text()
        async with session.get(f"{served.url}/api/v1/documents", headers={"X-Forwarded-For": ADA}) as response:
            assert response.headers["Retry-After"] == "1" and "too many requests" in (await response.json())["detail"]


async def test_who_has_waited_longest_without_a_token_goes_for_those_who_come(
    proxied: ServeProxied, clients: Clients
) -> None:
    served = await proxied(max_unauthenticated=3)
    honest = await welcome(await clients.y(served, "d"))
    silent = [await clients.hocuspocus(served) for _ in range(5)]
    for gone in silent[:2]:
        assert await refused(gone) == (1013, "others need the place: show a token sooner, come back later")
    assert all(client.open for client in silent[2:])
    await silent[4].send(hocuspocus.auth("d", "bob"))
    await silent[4].find_type("d", hocuspocus.AUTH)
    for _ in range(3):
        await clients.hocuspocus(served)
    await silent[3].expect_close()
    assert silent[4].open, "it has been let in"
    await honest.barrier()


async def test_past_the_memory_mark_no_documents_and_past_the_limit_no_connections(
    proxied: ServeProxied, clients: Clients
) -> None:
    served = await proxied(memory_mark_bytes=0, memory_limit_bytes=0)
    memory = served.app[GUARD].limits.memory
    open_already = await welcome(await clients.y(served, "open"))
    memory.mark = 1  # any process has more
    await happens(lambda: memory.past_mark, "the look at the memory")
    reason = "the server is short of memory, come back later"
    await welcome(await clients.y(served, "open"))
    assert await refused(await clients.y(served, "closed")) == (1013, reason)
    shared = await clients.hocuspocus(served)
    await shared.send(hocuspocus.auth("closed", "ada"), hocuspocus.auth("open", "ada"))
    assert (await shared.find_type("open", hocuspocus.AUTH)).fields[0] == hocuspocus.AUTHENTICATED
    assert not shared.got("closed", hocuspocus.AUTH), "it waits"
    headers = {"Authorization": "Bearer ada", "X-Forwarded-For": ADA}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{served.url}/api/v1/documents", json={"name": "closed"}) as response,
    ):
        assert (response.status, response.headers["Retry-After"]) == (503, "60")
        assert (await response.json())["detail"] == reason

    memory.limit = 1
    assert await refused(await clients.y(served, "open")) == (1013, reason)
    assert await refused(await clients.hocuspocus(served)) == (1013, reason)
    await open_already.send(step2(text_update(1, "editing goes on")))
    await open_already.barrier()
    memory.mark = memory.limit = 0
    await welcome(await clients.y(served, "closed"))
    assert (await shared.find_type("closed", hocuspocus.AUTH)).fields[0] == hocuspocus.AUTHENTICATED


async def test_the_size_of_a_message(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_message_bytes=1_024)
    reason = "the message is too large"
    large = text_update(1, "x" * 1_024)
    client = await welcome(await clients.y(served, "d"))
    await client.send(step2(large))
    assert await refused(client) == (4413, reason)
    shared = await clients.hocuspocus(served)
    await shared.make("d", "ada")
    await shared.send(hocuspocus.update("d", large))
    await shared.find(lambda frame: frame.fields == (hocuspocus.PERMISSION_DENIED, reason), "the refusal")


async def test_the_size_of_a_document(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_document_bytes=1_024)
    large = text_update(1, "x" * 1_024)
    client = await welcome(await clients.y(served, "d"))
    await client.send(step2(large))
    assert await refused(client) == (4413, "the document is too large")
    shared = await clients.hocuspocus(served)
    await shared.make("d", "ada")
    await shared.send(hocuspocus.update("d", large))
    reason = "the document is too large"
    await shared.find(lambda frame: frame.fields == (hocuspocus.PERMISSION_DENIED, reason), "the refusal")


async def test_the_size_and_the_ids_of_awareness(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_awareness_bytes=200, max_awareness_ids=2)
    states = {
        "awareness: more than 200 bytes of state on one connection": [(1, 1, json.dumps("x" * 200))],
        "awareness: more than 2 client IDs on one connection": [(number, 1, "{}") for number in range(10, 13)],
    }
    for reason, entries in states.items():
        client = await welcome(await clients.y(served, "d"))
        await client.send(step2(EMPTY_UPDATE), awareness(*entries))
        told = b"\x02\x00" + varbytes(f"presence not shown: {reason}".encode())
        await client.until(lambda client=client, told=told: told in client.frames, reason)
        await client.barrier()
        shared = await clients.hocuspocus(served)
        await shared.make("d", "ada")
        await shared.send(hocuspocus.awareness("d", *((number + 100, 1, state) for number, _, state in entries)))
        text = json.dumps({"type": "presence not shown", "reason": reason})
        assert (await shared.find_type("d", hocuspocus.STATELESS)).fields == (text,)
        assert shared.open and client.open
        await client.close()


async def test_documents_on_one_socket(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_documents_per_connection=2)
    shared = await clients.hocuspocus(served)
    for name in "ab":
        await shared.make(name, "ada")
    await shared.send(hocuspocus.auth("c", "ada"))
    denied = await shared.find_type("c", hocuspocus.AUTH)
    assert denied.fields == (hocuspocus.PERMISSION_DENIED, "more than 2 documents on one connection")
    assert shared.open
    await shared.send(hocuspocus.close("a"), hocuspocus.auth("d", "ada"))
    assert (await shared.find_type("d", hocuspocus.AUTH)).fields[0] == hocuspocus.AUTHENTICATED, "its place is free"


async def test_bytes_before_being_let_in(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_unauthenticated_bytes=2_048)
    waiting = hocuspocus.update("d", text_update(1, "x" * 900))
    shared = await clients.hocuspocus(served)
    await shared.send(waiting, waiting, hocuspocus.auth("d", "ada"))
    assert (await shared.find_type("d", hocuspocus.AUTH)).fields[0] == hocuspocus.AUTHENTICATED
    await shared.send(*[waiting] * 5)
    await shared.until(lambda: len(shared.got("d", hocuspocus.SYNC_STATUS)) == 7, "who is in may send more")
    shared = await clients.hocuspocus(served)
    await shared.send(*[waiting] * 3)
    assert await refused(shared) == (4205, "too much was sent before authentication")


async def test_the_time_before_being_let_in(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(auth_seconds=0.2)
    assert await refused(await clients.hocuspocus(served)) == (4408, "nothing was authenticated in time")


@pytest.mark.slow
async def test_what_floods_in_is_named(proxied: ServeProxied, clients: Clients) -> None:
    """Each of the rates, small enough beside the others, and the same over both protocols."""
    floods: dict[str, tuple[dict[str, object], bytes | None, bytes]] = {
        "bytes": ({"max_bytes_per_second": 10_000}, b"\x7f" + bytes(20_000), hocuspocus.frame("d", 99, bytes(20_000))),
        "awareness messages": (
            {"max_awareness_per_second": 2},
            awareness((9, 1, "{}")),
            hocuspocus.awareness("d", (9, 1, "{}")),
        ),
        "messages": ({"max_messages_per_second": 2}, b"\x03", hocuspocus.query_awareness("d")),
        "stateless messages": ({"max_stateless_per_second": 5}, None, hocuspocus.stateless("d", "x")),
    }
    for what, (options, plain, framed) in floods.items():
        served = await proxied(flood_seconds=0.1, **options)
        told = (1013, f"you send too many {what}, come back later")
        if plain is not None:
            client = await welcome(await clients.y(served, "d"))
            client.burst(*[plain] * 200)
            assert await refused(client) == told
        provider = await clients.hocuspocus(served)
        await provider.join("d", "ada")
        provider.burst(*[framed] * 200)
        assert await refused(provider) == told, what


@pytest.mark.slow
async def test_a_client_that_sends_too_much_is_read_more_slowly_and_then_closed(
    proxied: ServeProxied, clients: Clients
) -> None:
    served = await proxied(max_messages_per_second=5, flood_seconds=1)  # fifty at once
    client = await welcome(await clients.y(served, "d"))
    await client.send(step2(EMPTY_UPDATE))
    await client.barrier()
    client.burst(*[b"\x03"] * 200)
    assert await refused(client) == (1013, "you send too many messages, come back later")


@pytest.mark.slow
async def test_awareness_has_a_rate_of_its_own(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_awareness_per_second=1, flood_seconds=0)  # ten at once
    client = await welcome(await clients.y(served, "d"))
    loop = asyncio.get_running_loop()
    for messages in ([update(EMPTY_UPDATE)] * 14, [awareness((9, clock, "{}")) for clock in range(1, 15)]):
        began = loop.time()
        client.burst(*messages, *[b"\x03"] * 3)
        await client.barrier()
    # Fourteen were sent where ten are free, so at least three seconds lie before the answer. Edits are not held.
    assert loop.time() - began >= 3.0


@pytest.mark.slow
async def test_bytes_have_a_rate_of_their_own(proxied: ServeProxied, clients: Clients) -> None:
    served = await proxied(max_bytes_per_second=50_000, flood_seconds=0)  # 200,000 at once
    client = await welcome(await clients.y(served, "d"))
    began = asyncio.get_running_loop().time()
    client.burst(*[update(EMPTY_UPDATE + bytes(0))] * 16, *[b"\x7f" + bytes(70_000)] * 5)
    await client.barrier()
    assert asyncio.get_running_loop().time() - began >= 2.0


async def test_on_its_own_machine_without_authentication_nobody_is_held_back(serve: Serve, clients: Clients) -> None:
    served = await serve(
        max_connections_per_address=1,
        max_new_connections_per_second=0.01,
        max_unauthenticated=1,
        max_messages_per_second=1,
        max_awareness_per_second=1,
        max_bytes_per_second=1,
        max_new_documents_per_minute=0.01,
        max_requests_per_second=0.01,
        flood_seconds=0.1,
    )
    for number in range(20):
        client = await welcome(await clients.y(served, f"d{number}"))
    client.burst(*[b"\x03"] * 500)
    await client.barrier()
    shared = [await clients.hocuspocus(served) for _ in range(3)]
    assert all(one.open for one in shared)
    async with aiohttp.ClientSession() as session:
        for _ in range(5):
            async with session.get(f"{served.url}/healthz") as response:
                assert response.status == 200


def test_without_authentication_nobody_from_elsewhere_is_served_wherever_the_application_is_mounted(
    tmp_path: Path,
) -> None:
    made = make_mocked_request("GET", "/", {"Host": "127.0.0.1"})
    here = Peer("127.0.0.1", "127.0.0.1", False, True, False, "127.0.0.1")
    elsewhere = Peer("203.0.113.7", "203.0.113.7", True, False, False, "127.0.0.1")
    guard = create_app(Settings(data_dir=str(tmp_path)))[GUARD]
    refusal = guard.refusal(made, elsewhere)
    assert refusal is not None and "own machine only" in refusal.public
    assert guard.refusal(made, here) is None
    for app in (create_app(Settings(data_dir=str(tmp_path), insecure=True)), create_app(Settings(), ByToken())):
        assert app[GUARD].refusal(made, elsewhere) is None


async def test_an_authenticator_is_started_and_closed_with_the_application(tmp_path: Path) -> None:
    class Managed(ByToken):
        life: list[str] = []

        async def start(self) -> None:
            self.life.append("start")

        async def close(self) -> None:
            self.life.append("close")

    async with TestServer(create_app(Settings(data_dir=str(tmp_path)), Managed()), host="127.0.0.1"):
        assert Managed.life == ["start"]
    assert Managed.life == ["start", "close"]


async def test_the_settings_make_an_authenticator_and_one_that_is_given_wins(serve: Serve, clients: Clients) -> None:
    secret = "a secret of the tests, long enough for HS256"
    assert (await refused(await clients.y(await serve(jwt_secret=secret), "d")))[0] == 4401
    await welcome(await clients.y(await serve(authenticator=ByToken(), jwt_secret=secret), "d"))


async def test_the_audit_log_says_who_was_refused_what_and_never_a_token(
    proxied: ServeProxied, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    served = await proxied(max_connections_per_user=1, max_document_bytes=1024)
    assert (await refused(await clients.y(served, "notes/a", token="")))[0] == 4401
    await welcome(await clients.y(served, "notes/a", token="ada:s3cret"))
    await refused(await clients.y(served, "notes/a", token="ada:s3cret"))
    shared = await clients.hocuspocus(served, BOB)
    await shared.send(hocuspocus.auth("notes/b", ""))
    await shared.find_type("notes/b", hocuspocus.AUTH)
    stranger = RawClient(f"{served.ws('notes/a')}?token=eve:s3cret")
    await stranger.connect({"X-Forwarded-For": BOB, "Origin": "https://evil.example"})
    await refused(stranger)
    await stranger.close()
    lines = [record.getMessage() for record in caplog.records if record.name == "collab.audit"]
    assert lines == [
        f"sign-in refused: no token was given (address={ADA} document='notes/a' protocol=y-websocket)",
        f"sign-in: write access (user='ada' address={ADA} document='notes/a' protocol=y-websocket)",
        f"limit: 1 connections of the user 'ada' (address={ADA} document='notes/a' protocol=y-websocket)",
        f"sign-in refused: no token was given (address={BOB} document='notes/b' protocol=hocuspocus)",
        f"permission refused: origin 'https://evil.example' for host '127.0.0.1:{served.server.port}' "
        f"(address={BOB} document='notes/a' protocol=y-websocket)",
    ]
    assert "s3cret" not in caplog.text


async def test_the_audit_log_cannot_be_flooded(
    proxied: ServeProxied, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    served = await proxied()
    shared = await clients.hocuspocus(served)
    await shared.send(*(hocuspocus.auth(f"d{number}", "") for number in range(90)))
    await shared.until(lambda: len(shared.got(number=hocuspocus.AUTH)) == 90, "ninety refusals")
    lines = [record for record in caplog.records if record.name == "collab.audit"]
    assert 20 <= len(lines) < 60


async def test_requests_of_one_address_whose_bodies_are_waited_for(proxied: ServeProxied) -> None:
    """``ByToken`` cannot tell of a token whether it is good, before the name of the document has come."""
    served = await proxied()
    head = (
        b"POST /api/v1/documents HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ada\r\nX-Forwarded-For: %s\r\n"
        b"Content-Type: application/json\r\nContent-Length: 15\r\n\r\n"
    )

    async def ask(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        writer.write(head % address.encode())
        return reader, writer

    async def status(reader: asyncio.StreamReader) -> bytes:
        return (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]

    accounts = served.app[GUARD].limits._addresses
    held = [await ask(ADA) for _ in range(MAX_BODIES)]
    await happens(lambda: ADA in accounts and accounts[ADA].bodies == MAX_BODIES, "all requests")
    refused, writer = await ask(ADA)
    assert await status(refused) == b"429"
    writer.close()
    other, writer = await ask(BOB)
    writer.write(b'{"name": "bob"}')
    assert await status(other) == b"201"
    writer.close()
    first, writer = held[0]
    writer.write(b'{"name": "ada"}')
    assert await status(first) == b"201"
    again, writer = await ask(ADA)
    writer.write(b'{"name": "one"}')
    assert await status(again) == b"201", "its place is free"
    for _, one in (*held, (again, writer)):
        one.transport.abort()
    await happens(lambda: accounts[ADA].bodies == 0, "that nothing is counted of those that have gone")
