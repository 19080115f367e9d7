"""The Hocuspocus endpoint, and what access control adds to both, over real sockets in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.errors import AccessUnavailable, DocumentDeleted, Forbidden, Unauthenticated
from collab.hub.documents import Documents
from collab.protocol.session import Access
from tests.support.hocuspocus import (
    AUTH,
    AUTHENTICATED,
    AWARENESS,
    CLOSE,
    PERMISSION_DENIED,
    STATELESS,
    SYNC,
    SYNC_STATUS,
    Frame,
    RawHocuspocus,
    auth,
    awareness,
    close,
    query_awareness,
    stateless,
    step1,
    step2,
    update,
)
from tests.support.waiting import happens
from tests.support.wsclient import EMPTY_UPDATE, STEP1, STEP2, UPDATE, RawClient, text_update
from tests.support.wsclient import update as plain_update
from tests.transports.conftest import Serve, on_every_server, on_servers_that_drain

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]


class Scripted:
    """An authenticator that does what the token says.

    ``slow`` waits until the test lets it go on; ``write:2`` lasts two seconds.
    """

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.asked: list[AccessRequest] = []
        self.down = False

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.asked.append(request)
        if self.down:
            raise AccessUnavailable("switched off by the test")
        if request.token == "slow":
            await self.go_on.wait()
        elif request.token == "deny":
            raise Forbidden("denied by the test", public="not this one")
        elif request.token == "broken":
            raise RuntimeError("a defect of the application")
        elif request.token == "":
            raise Unauthenticated("no token")
        lasts = float(request.token.partition(":")[2] or 0)
        return Grant(
            Access.READ if request.token == "read" else Access.WRITE,
            "ann",
            "Ann",
            time.time() + lasts if lasts else None,
        )


@on_every_server
async def test_a_document_is_opened_as_hocuspocus_does(serve: Serve, connect_hocuspocus: ConnectHocuspocus) -> None:
    client = await connect_hocuspocus((await serve()).hocuspocus)
    assert await client.join("d") == "read-write"
    kinds = [(one.type, one.fields[0]) for one in client.got("d")]
    assert kinds[:3] == [(AUTH, AUTHENTICATED), (0, STEP1), (0, STEP2)]
    await client.send(update("d", text_update(1, "a")))
    assert (await client.find_type("d", SYNC_STATUS)).fields == (1,)
    await client.find_sync("d", UPDATE)


@on_every_server
async def test_both_protocols_edit_one_document(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve()
    plain = await connect(served.ws("d"))
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d")
    ours, theirs = text_update(1, "a"), text_update(2, "b")
    await client.send(update("d", ours))
    assert await plain.expect_sync(2) == ours
    await plain.send(plain_update(theirs))
    await client.find(lambda one: one.fields == (UPDATE, theirs), "the other's edit")
    await client.send(awareness("d", (7, 1, '{"name":"ann"}')))
    await plain.until(lambda: any(b"ann" in one for one in plain.frames), "its awareness")


@on_every_server
async def test_a_slow_and_a_denied_document_do_not_touch_the_others(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    scripted = Scripted()
    client = await connect_hocuspocus((await serve(authenticator=scripted)).hocuspocus)
    await client.send(update("slow", text_update(1, "early")), auth("slow", "slow"), auth("denied", "deny"))
    await client.join("good", "write")
    denied = await client.find_type("denied", AUTH)
    assert denied.fields == (PERMISSION_DENIED, "not this one")
    assert not client.got("slow")
    await client.send(update("slow", text_update(2, "waiting")))
    scripted.go_on.set()
    await client.until(lambda: len(client.got("slow", SYNC_STATUS)) == 2, "what waited was taken in order")
    assert client.close_code is None


@on_every_server
async def test_a_denied_client_may_try_again_on_the_same_socket(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(authenticator=Scripted())
    client = await connect_hocuspocus(served.hocuspocus)
    await client.send(auth("d", "deny"), step1("d"))
    await client.find(lambda one: one.fields[:1] == (PERMISSION_DENIED,), "the denial")
    for _ in range(1_100):
        await client.send(update("d", text_update(1, "typed on")))
    await client.send(auth("d", "write"))
    await client.find(lambda one: one.fields[:1] == (AUTHENTICATED,), "the second token is good")
    await client.find_sync("d", STEP2)
    await client.find_sync("d", STEP1)


@on_every_server
async def test_a_client_that_was_denied_before_is_told_when_its_session_ends(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(authenticator=Scripted())
    client = await connect_hocuspocus(served.hocuspocus)
    await client.send(auth("d", "deny"))
    await client.denied("d")
    seen = len(client.frames)
    await client.join("d", "write")
    served.app[HUB].rooms["d"].end_all(DocumentDeleted("deleted by the test"))
    assert await client.denied("d", after=seen) == "the document was deleted"


@on_every_server
async def test_a_new_token_changes_the_scope_of_a_live_session(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    scripted = Scripted()
    served = await serve(authenticator=scripted)
    client = await connect_hocuspocus(served.hocuspocus)
    await (await connect_hocuspocus(served.hocuspocus)).make("d", "write")
    assert await client.join("d", "read") == "readonly"
    await client.send(update("d", text_update(1, "a")))
    assert (await client.find_type("d", SYNC_STATUS)).fields == (0,)
    seen = len(client.frames)
    await client.send(auth("d", "write"))
    assert (await client.find_type("d", AUTH, after=seen)).fields == (AUTHENTICATED, "read-write")
    seen = len(client.frames)
    await client.send(update("d", text_update(1, "a")))
    assert (await client.find_type("d", SYNC_STATUS, after=seen)).fields == (1,)
    # What cannot be decided now changes nothing; what is decided otherwise ends the session.
    scripted.down = True
    await client.send(auth("d", "read"))
    await happens(lambda: scripted.asked[-1].token == "read", "it was asked")
    scripted.down = False
    seen = len(client.frames)
    await client.send(auth("d", "deny"))
    assert (await client.find_type("d", AUTH, after=seen)).fields == (PERMISSION_DENIED, "not this one")
    assert client.close_code is None


@on_every_server
@pytest.mark.parametrize("token", ["broken", "slow"])
async def test_without_a_decision_the_client_is_asked_to_come_back(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus, token: str
) -> None:
    served = await serve(authenticator=Scripted(), auth_seconds=0.2)
    client = await connect_hocuspocus(served.hocuspocus)
    await client.send(auth("d", token))
    assert await client.expect_close() in ({1013} if token == "broken" else {1013, 4408})


@on_every_server
async def test_a_provider_without_a_token_is_judged_without_one(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    scripted = Scripted()
    client = await connect_hocuspocus((await serve(authenticator=scripted)).hocuspocus)
    await client.send(step1("d"))
    assert (await client.find_type("d", AUTH)).fields == (PERMISSION_DENIED, "a valid token is needed")
    assert [request.token for request in scripted.asked] == [""]


@on_every_server
async def test_close_ends_one_document_and_opening_it_again_at_once_is_no_answer_to_it(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve()
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("stays")
    await client.join("goes")
    await client.send(close("goes"), awareness("goes", (1, 2, "null")))
    assert (await client.find_type("goes", CLOSE)).fields == ("provider_initiated",)
    assert {live.name for live in served.app[HUB].rooms.values() if live.occupied} == {"stays"}
    # As React does in its strict mode: closed and opened again in one breath, before it was ever live.
    burst = [auth("again"), step1("again"), update("again", text_update(1, "kept")), close("again")]
    await client.send(*burst, awareness("again", (1, 2, "null")), auth("again"), step1("again"))
    await client.until(lambda: len(client.got("again", AUTH)) == 2, "let in twice")
    await client.until(
        lambda: [one for one in client.got("again") if one.fields[0] == STEP2 and b"kept" in _bytes(one)],
        "what was written before the CLOSE is there",
    )
    await client.join("last")
    assert not client.got("again", CLOSE)


def _bytes(one: Frame) -> bytes:
    payload = one.fields[1]
    return payload if isinstance(payload, bytes) else b""


@on_every_server
async def test_a_provider_that_does_not_know_that_its_session_was_closed_is_made_to_come_back(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    """One made and destroyed and another made before the socket was open: the CLOSE comes behind the second's Auth."""
    client = await connect_hocuspocus((await serve()).hocuspocus)
    await client.join("d")
    await client.send(close("d"), step2("d", EMPTY_UPDATE))
    assert await client.expect_close() == 4205


@on_every_server
async def test_two_sessions_of_one_document_on_one_socket(serve: Serve, connect_hocuspocus: ConnectHocuspocus) -> None:
    served = await serve()
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("d\0one")
    await client.join("d\0two")
    assert list(served.app[HUB].rooms) == ["d"]
    await client.send(awareness("d\0one", (7, 1, '{"x":1}')))
    await client.find_type("d\0one", AWARENESS)
    await client.find_type("d\0two", AWARENESS)
    seen = len(client.frames)
    await client.send(close("d\0one"))
    gone = await client.find_type("d\0two", AWARENESS, after=seen)
    assert b"null" in _awareness(gone)


def _awareness(one: Frame) -> bytes:
    payload = one.fields[0]
    assert isinstance(payload, bytes)
    return payload


@on_every_server
async def test_awareness_is_told_to_whoever_asks(serve: Serve, connect_hocuspocus: ConnectHocuspocus) -> None:
    client = await connect_hocuspocus((await serve()).hocuspocus)
    await client.join("d")
    await client.send(awareness("d", (7, 1, '{"x":1}')))
    await client.find_type("d", AWARENESS)
    seen = len(client.frames)
    await client.send(query_awareness("d"))
    assert b'{"x":1}' in _awareness(await client.find_type("d", AWARENESS, after=seen))


@on_every_server
async def test_stateless_messages_are_relayed_or_not(serve: Serve, connect_hocuspocus: ConnectHocuspocus) -> None:
    served = await serve(authenticator=Scripted(), max_stateless_bytes=10)
    writer, other, reader = [await connect_hocuspocus(served.hocuspocus) for _ in range(3)]
    await writer.make("d", "write")
    await other.join("d", "write")
    await reader.join("d", "read")
    await reader.send(stateless("d", "unheard"))
    # Answered behind the stateless message, so that one was looked at before.
    await reader.send(update("d", text_update(1, "a")))
    await reader.find_type("d", SYNC_STATUS)
    await writer.send(stateless("d", "hello"))
    assert (await other.find_type("d", STATELESS)).fields == ("hello",)
    assert (await reader.find_type("d", STATELESS)).fields == ("hello",)
    assert not writer.got("d", STATELESS)
    await writer.send(stateless("d", "x" * 11))
    assert (await writer.find(lambda one: one.fields[0] == PERMISSION_DENIED, "the denial")).address == "d"


@on_every_server
async def test_stateless_messages_can_be_turned_off(serve: Serve, connect_hocuspocus: ConnectHocuspocus) -> None:
    served = await serve(stateless="off")
    writer, other = [await connect_hocuspocus(served.hocuspocus) for _ in range(2)]
    await writer.join("d")
    await other.join("d")
    await writer.send(stateless("d", "hello"), update("d", text_update(1, "a")))
    await other.find_sync("d", UPDATE)
    assert not other.got("d", STATELESS)


@on_servers_that_drain
async def test_a_server_that_stops_closes_the_socket_so_that_providers_come_back(
    serve: Serve, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(authenticator=Scripted())
    live, denied = [await connect_hocuspocus(served.hocuspocus) for _ in range(2)]
    await live.join("d", "write")
    await denied.send(auth("d", "deny"))
    await denied.find_type("d", AUTH)
    await served.server.close()
    assert await live.expect_close() == 1012
    assert await denied.expect_close() == 1012


@on_every_server
async def test_a_reader_may_come_before_the_first_edit_and_makes_no_document(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(authenticator=Scripted())
    early = await connect_hocuspocus(served.hocuspocus)
    assert await early.join("d", "read") == "readonly"
    plain = await connect(served.ws("d?token=read"))
    await plain.expect_sync(0)
    await plain.send(plain_update(text_update(2, "b")))
    await plain.until(lambda: any(frame[:2] == b"\x02\x00" for frame in plain.frames), "the refusal")
    assert plain.close_code is None
    async with aiohttp.ClientSession() as session:

        async def exists() -> bool:
            async with session.get(
                f"{served.url}/api/v1/documents/d", headers={"Authorization": "Bearer read"}
            ) as answer:
                return answer.status == 200

        assert not await exists()
        writer = await connect_hocuspocus(served.hocuspocus)
        await writer.join("d", "write")
        assert not await exists(), "looking at it makes nothing, whoever looks"
        edit = text_update(1, "first")
        await writer.send(update("d", edit))
        assert (await writer.find_type("d", SYNC_STATUS)).fields == (1,)
        assert await exists()
    await early.find(lambda one: one.type == SYNC and edit in one.fields, "the first edit")
    await plain.until(lambda: plain_update(edit) in plain.frames, "the first edit")
    late = await connect_hocuspocus(served.hocuspocus)
    assert await late.join("d", "read") == "readonly"


@on_every_server
@pytest.mark.parametrize("made_by", ["the HTTP API", "the command line"])
async def test_a_reader_who_came_before_a_document_was_made_sees_what_it_holds(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus, made_by: str
) -> None:
    served = await serve(authenticator=Scripted())
    early = await connect_hocuspocus(served.hocuspocus)
    assert await early.join("d", "read") == "readonly"
    plain = await connect(served.ws("d?token=read"))
    await plain.expect_sync(0)
    live = served.app[HUB].rooms["d"]
    assert not live.exists
    if made_by == "the HTTP API":
        async with (
            aiohttp.ClientSession(headers={"Authorization": "Bearer write"}) as session,
            session.post(f"{served.url}/api/v1/documents", json={"name": "d"}) as answer,
        ):
            assert answer.status == 201
        await happens(lambda: live.exists, "that the room knows of it")
        writer = await connect_hocuspocus(served.hocuspocus)
        await writer.join("d", "write")
        edit = text_update(1, "first")
        await writer.send(update("d", edit))
    else:
        # It has no rooms of its own, and this server is told nothing.
        edit = text_update(1, "imported")
        await Documents(served.app[HUB].store).create("d", update=edit)
    await early.find(lambda one: one.type == SYNC and edit in one.fields, "what it holds")
    await plain.until(lambda: plain_update(edit) in plain.frames, "what it holds")


@on_every_server
@pytest.mark.slow
async def test_a_token_that_runs_out_ends_the_access_unless_a_fresh_one_comes(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(authenticator=Scripted())
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join("renewed", "write:1.5")
    plain = await connect(served.ws("d?token=write:0.3"))
    assert await plain.expect_close() == 4501
    await client.find(lambda one: one == Frame("renewed", AUTH, (0,)), "it is asked for a fresh token")
    await client.send(auth("renewed", "write"))
    await client.send(update("renewed", text_update(1, "a")))
    assert (await client.find_type("renewed", SYNC_STATUS)).fields == (1,)
    alone = await connect_hocuspocus(served.hocuspocus)
    await alone.join("stays", "write")
    await alone.join("d", "write:0.2")
    # Its provider, asked or not, would never show another token after PermissionDenied; after a close it does.
    assert await alone.expect_close() == 4501
    assert not [one for one in alone.got("d", AUTH) if one.fields[0] == PERMISSION_DENIED]


@on_every_server
@pytest.mark.parametrize("stamps", [True, False])
async def test_awareness_says_who_a_client_is(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus, stamps: bool
) -> None:
    served = await serve(authenticator=Scripted(), stamp_users=stamps)
    client = await connect_hocuspocus(served.hocuspocus)
    plain = await connect(served.ws("d?token=write"))
    await client.join("d", "write")
    shown = b'"name":"Ann","color":"#c00","sub":"ann"' if stamps else b'"name":"Bob","color":"#c00"'
    await client.send(awareness("d", (7, 1, '{"user":{"name":"Bob","color":"#c00"}}')))
    await plain.until(lambda: any(shown in frame for frame in plain.frames), "who it is")
