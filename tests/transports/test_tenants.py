"""Tenants over the whole application: what is counted, what a quota does to live clients, and what it never touches.

Strategy: the task that adds counts to the store sleeps; the tests call ``flush`` themselves.
"""

from __future__ import annotations

import base64
import json
import select
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import jwt
import pytest

from collab import app as app_module
from collab.app import HUB
from collab.auth.access import AccessRequest, Grant
from collab.errors import ConfigurationError, StoreUnavailable
from collab.hub import tenants as tenants_module
from collab.hub.tenants import Tenants
from collab.protocol.session import Access
from collab.storage.tenants import month_of, show_month
from collab.transports.sockets.parking import Parking
from tests.support.api import check
from tests.support.author import Author
from tests.support.hocuspocus import READ_WRITE, READONLY, STATELESS, RawHocuspocus
from tests.support.hocuspocus import update as addressed_update
from tests.support.waiting import happens
from tests.support.wsclient import AUTH, EMPTY_UPDATE, STEP1, UPDATE, RawClient, step1, step2, text_update, update
from tests.transports.conftest import Serve, Served

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]

SECRET = "a secret of the tests, long enough for HS256"

OVER_EDITS = "read-only: the tenant has used up its quota of edits"


class Api:
    """The HTTP API; gives a status and the JSON of the answer."""

    def __init__(self, served: Served, session: aiohttp.ClientSession) -> None:
        self._url, self._session = f"{served.url}/api/v1", session

    async def __call__(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session.request(method, self._url + path, json=body, headers=headers) as answer:
            said = await answer.read()
            check(method, answer.url.path, answer.status, answer.content_type, said)
            return answer.status, json.loads(said) if said else None


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenants_module, "FLUSH_SECONDS", 3_600.0)


def tenants_of(served: Served) -> Tenants:
    tenants = served.app[HUB].tenants
    assert tenants is not None
    return tenants


async def join(connect: Connect, served: Served, path: str) -> RawClient:
    client = await connect(served.ws(path))
    await client.send(step1())
    await client.expect_sync(STEP1)
    await client.send(step2(EMPTY_UPDATE))
    return client


async def type_(client: RawClient, author: Author, text: str) -> None:
    """Type, and wait until it is taken."""
    seen = len(client.frames)
    await client.send(update(author.type(text)))
    await client.expect_sync(UPDATE, after=seen)


async def refused_edit(client: RawClient, seen: int) -> None:
    """Wait until a client is told why its edit was not taken."""
    frame = await client.expect(lambda frame: frame.type == AUTH, "the refusal", after=seen)
    assert frame.payload.decode() == OVER_EDITS


async def stored(served: Served) -> None:
    """Wait until all that was taken is committed, and add what was counted."""
    for live in served.app[HUB].rooms.values():
        await live.persistence.durable()
    for account in tenants_of(served)._accounts.values():
        account.measure_after = 0.0
    await tenants_of(served).flush()


async def test_usage_is_counted_for_each_tenant(
    serve: Serve, session: aiohttp.ClientSession, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(tenants="name")
    api = Api(served, session)
    assert (await api("GET", "/tenants"))[1]["tenants"] == []
    ann, author = await join(connect, served, "a/one"), Author(1)
    for text in "xyz":
        await type_(ann, author, text)
    both = await connect_hocuspocus(served.hocuspocus)
    await both.make("a/two")  # one connection, of two documents and two tenants
    await both.make("b/one")
    await both.join("a/one")
    await (await join(connect, served, "no tenant")).send(update(text_update(9, "!")))
    await happens(lambda: served.app[HUB].rooms["no tenant"].updates == 1, "the edit")
    await stored(served)
    status, page = await api("GET", "/tenants?limit=2")
    assert status == 200 and page["month"] == show_month(month_of(time.time()))
    assert [each["tenant"] for each in page["tenants"]] == ["-", "a"]
    status, rest = await api("GET", f"/tenants?limit=2&cursor={page['next']}")
    assert [each["tenant"] for each in rest["tenants"]] == ["b"] and rest["next"] is None
    found = page["tenants"][1]
    sent, minutes = found["usage"].pop("bytes_sent"), found["usage"].pop("connection_minutes")
    size = sum([(await api("GET", f"/documents/{name}"))[1]["bytes"] for name in ("a/one", "a/two")])
    assert found["usage"] == {
        "documents": 2,
        "bytes_stored": size,
        "connections": 2,
        "edits": 4,
        "peak_connections": 2,
    }
    assert sent > 0 and minutes >= 0 and found["state"] == "ok" and found["own_quota"] is None
    # What rooms and sessions have brought that are over is counted, and nothing twice.
    await ann.close()
    await both.close()
    await happens(
        lambda: not any(live.occupied for name, live in served.app[HUB].rooms.items() if "/" in name), "all have left"
    )
    await stored(served)
    status, after = await api("GET", "/tenants/a")
    used = after["usage"]
    assert (used["edits"], used["connections"], used["peak_connections"]) == (4, 0, 2)
    assert used["bytes_sent"] >= sent and used["connection_minutes"] >= minutes
    assert (await api("GET", "/tenants/a?month=2020-01"))[1]["usage"]["edits"] == 0
    assert (await api("GET", "/tenants/nobody"))[1]["code"] == "tenant_not_found"
    assert (await api("GET", "/tenants?month=2020-13"))[0] == 400


async def test_over_a_quota_new_sessions_are_read_only_and_open_ones_go_on_for_a_while(
    serve: Serve, session: aiohttp.ClientSession, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(tenants="name", quota_edits=1_000)
    api, name = Api(served, session), "a/d"
    ann, author = await join(connect, served, name), Author(1)
    for number in range(20):
        await type_(ann, author, str(number % 10))
    await stored(served)
    status, answer = await api("PUT", "/quotas/a", {"edits": 20})
    assert status == 200 and (answer["state"], answer["over"]) == ("over", ["edits"])
    assert (answer["quota"]["edits"], answer["own_quota"]) == (20, {"edits": 20})
    # Who comes now may only read, and is told why, in the words of each protocol.
    bob = await join(connect, served, name)
    told_why = await bob.expect(lambda frame: frame.type == AUTH, "why it is read-only")
    assert told_why.payload.decode() == OVER_EDITS
    provider = await connect_hocuspocus(served.hocuspocus)
    assert await provider.join(name) == READONLY
    notice = await provider.find_type(name, STATELESS)
    assert json.loads(str(notice.fields[0])) == {"type": "read-only", "reason": OVER_EDITS}
    seen = len(bob.frames)
    await bob.send(update(text_update(2, "bob")))
    assert (
        await bob.expect(lambda frame: frame.type == AUTH, "the refusal", after=seen)
    ).payload.decode() == OVER_EDITS
    # A program is a new session with each call; reading, deleting, exporting and restoring are free.
    status, problem = await api("POST", "/documents", {"name": "a/new"})
    assert (status, problem["code"], problem["detail"]) == (403, "quota_exceeded", OVER_EDITS)
    async with session.post(f"{served.url}/api/v1/updates/{name}", data=text_update(3, "post")) as answer:
        assert (answer.status, (await answer.json())["code"]) == (403, "quota_exceeded")
    # Who was there goes on, up to a tenth more.
    await type_(ann, author, "+")
    await stored(served)
    assert (await api("GET", "/tenants/a"))[1]["state"] == "over"
    for text in "abc":
        await type_(ann, author, text)
    await stored(served)
    assert (await api("GET", "/tenants/a"))[1]["state"] == "stopped"
    await happens(
        lambda: {member.access for member in served.app[HUB].rooms[name].members} == {Access.READ}, "all may only read"
    )
    seen, refused = len(ann.frames), author.type("in vain")
    await ann.send(update(refused))
    assert (
        await ann.expect(lambda frame: frame.type == AUTH, "the refusal", after=seen)
    ).payload.decode() == OVER_EDITS
    # Below the quota again, everybody writes, and what was typed in vain is asked for.
    seen, bobs = len(ann.frames), len(bob.frames)
    assert (await api("PUT", "/quotas/a", {}))[1]["state"] == "ok"
    await ann.expect_sync(STEP1, after=seen)
    await bob.expect_sync(STEP1, after=bobs)
    await ann.send(step2(refused))
    await bob.expect(lambda frame: b"in vain" in frame.payload, "what was typed in vain", after=bobs)
    await provider.find(lambda frame: READ_WRITE in frame.fields, "the scope")
    await provider.send(addressed_update(name, text_update(5, "provider")))
    assert await provider.statuses(name, 1) == [1]


async def test_deleting_restoring_and_exporting_work_over_every_quota(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    served = await serve(tenants="name")
    api = Api(served, session)
    for name in ("a/one", "a/two"):
        assert (await api("POST", "/documents", {"name": name, "content": _text("before")}))[0] == 201
    version = (await api("POST", "/versions/a/one", {"name": "v"}))[1]
    async with session.post(f"{served.url}/api/v1/updates/a/one", data=text_update(3, "post")) as answer:
        assert answer.status < 300
    nothing = dict.fromkeys(
        ("documents", "bytes_stored", "bytes_sent", "edits", "connection_minutes", "connections"), 0
    )
    await api("PUT", "/quotas/a", nothing)
    await stored(served)
    assert (await api("GET", "/tenants/a"))[1]["state"] == "stopped"
    assert (await api("POST", "/documents", {"name": "a/three"}))[1]["code"] == "quota_exceeded"
    assert (await api("PUT", "/documents/a/three", {}))[1]["code"] == "quota_exceeded"
    assert (await api("POST", "/copies/a/one", {"name": "a/three"}))[1]["code"] == "quota_exceeded"
    assert (await api("PUT", "/documents/a/two", {}))[0] == 200  # it is there
    status, done = await api("POST", "/restore/a/one", {"version": version["id"]})
    assert (status, done["changed"]) == (200, True)
    assert (await api("DELETE", "/documents/a/two"))[0] == 204
    async with session.get(f"{served.url}/api/v1/export?prefix=a/") as answer:
        assert answer.status == 200 and b'"a/one"' in await answer.read()
    await stored(served)
    assert (await api("GET", "/tenants/a"))[1]["usage"]["documents"] == 1
    assert (await api("POST", "/trash/a/two", {}))[0] == 200
    # Other tenants know nothing of it.
    assert (await api("POST", "/documents", {"name": "b/one"}))[0] == 201


def _text(text: str) -> list[dict[str, Any]]:
    return [{"root": "text", "format": "text", "value": text}]


async def test_documents_are_bounded_when_they_are_created(
    serve: Serve, session: aiohttp.ClientSession, connect: Connect
) -> None:
    served = await serve(tenants="name", quota_documents=2)
    api = Api(served, session)
    assert (await api("POST", "/documents", {"name": "a/one"}))[0] == 201
    ann = await join(connect, served, "a/two")
    await type_(ann, Author(1), "made")
    await happens(lambda: served.app[HUB].rooms["a/two"].persistence.document_id is not None, "it is stored")
    assert (await api("POST", "/documents", {"name": "a/three"}))[1]["code"] == "quota_exceeded"
    third = await join(connect, served, "a/three")
    await third.expect(lambda frame: b"quota of documents" in frame.payload, "why it is read-only")
    await stored(served)
    # Those that are there are written on.
    await type_(await join(connect, served, "a/two"), Author(2), "more")
    assert (await api("GET", "/tenants/a"))[1]["state"] == "ok"


class ByTenant:
    """The token is the tenant; one without a tenant may do everything."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        return Grant(Access.ADMIN, "somebody", tenant=request.token if request.token != "root" else None)


async def test_a_claim_says_whose_a_document_is_that_it_creates(
    serve: Serve, session: aiohttp.ClientSession, connect: Connect
) -> None:
    served = await serve(tenants="claim:org", authenticator=ByTenant(), quota_documents=2)
    api = Api(served, session)
    await type_(await join(connect, served, "x/one?token=red"), Author(1), "red")
    assert (await api("POST", "/documents", {"name": "y/two"}, "red"))[0] == 201
    await stored(served)
    await type_(await join(connect, served, "x/one?token=blue"), Author(2), "a guest of red")
    await stored(served)
    found = {each["tenant"]: each["usage"] for each in (await api("GET", "/tenants", token="root"))[1]["tenants"]}
    assert {name: (used["documents"], used["edits"]) for name, used in found.items()} == {"red": (2, 2)}
    assert (await api("POST", "/documents", {"name": "z"}, "red"))[1]["code"] == "quota_exceeded"
    assert (await api("POST", "/documents", {"name": "z"}, "blue"))[0] == 201
    # Another room of the same document knows it from the store.
    hub = served.app[HUB]
    await hub.reload("x/one")
    again = await hub.open("x/one")
    assert again.account is not None and again.account.tenant == "red"


async def test_answers_over_plain_http_are_counted(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(tenants="name")
    api, tenants = Api(served, session), tenants_of(served)
    content = {"content": [{"root": "text", "format": "text", "value": "hello " * 100}]}
    expected = 0
    for method, path, body in (
        ("POST", "/documents", {"name": "a/one", **content}),
        ("GET", "/documents/a/one", None),
        ("GET", "/content/a/one?root=text&format=text", None),
    ):
        async with session.request(method, f"{served.url}/api/v1{path}", json=body) as answer:
            assert answer.status < 300
            expected += len(await answer.read())
    async with session.get(f"{served.url}/streams/docs/a/one?offset=-1") as answer:
        assert answer.status == 200
        expected += len(await answer.read())
    # An answer without a body, what is about no document alone, and what somebody only asks for.
    async with session.head(f"{served.url}/api/v1/documents/a/one") as answer:
        assert answer.status == 200
    assert (await api("GET", "/documents"))[0] == 200
    assert (await api("GET", "/documents/x/nothing"))[0] == 404
    await stored(served)
    assert (await tenants.book.find("a")).record.bytes_sent == expected > 1_500
    assert [each.record.tenant for each in await tenants.book.page(None, 10)] == ["a"]


async def test_answers_about_documents_that_nobody_has_open_go_to_the_tenant_that_a_claim_has_said(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    served = await serve(tenants="claim:org", authenticator=ByTenant())
    api, tenants = Api(served, session), tenants_of(served)
    assert (await api("POST", "/documents", {"name": "d"}, "red"))[0] == 201
    await stored(served)
    before = (await tenants.book.find("red")).record.bytes_sent
    assert before > 0 and not served.app[HUB].rooms
    async with session.get(f"{served.url}/api/v1/documents/d", headers={"Authorization": "Bearer blue"}) as answer:
        size = len(await answer.read())
    assert (await api("GET", "/documents/gone", token="blue"))[0] == 404
    await stored(served)
    assert (await tenants.book.find("red")).record.bytes_sent == before + size
    assert [each.record.tenant for each in await tenants.book.page(None, 10)] == ["red"]


async def test_events_of_streams_are_counted(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(tenants="name")
    api, tenants, hub = Api(served, session), tenants_of(served), served.app[HUB]
    assert (await api("POST", "/documents", {"name": "a/d"}))[0] == 201
    await stored(served)
    before = (await tenants.book.find("a")).record.bytes_sent
    async with session.get(f"{served.url}/streams/docs/a/d?offset=-1&live=sse") as events:
        found = await events.content.readuntil(b"\n\n")
        await happens(lambda: any(live.readers for live in hub.rooms.values()), "a reader")
        update, octets = Author(1).type("x" * 3_000), {"Content-Type": "application/octet-stream"}
        async with session.post(f"{served.url}/api/v1/updates/a/d", data=update, headers=octets) as answer:
            assert answer.status < 300
        while found.count(b"\n\n") < 3:
            found += await events.content.readuntil(b"\n\n")
        await stored(served)
        sent = (await tenants.book.find("a")).record.bytes_sent - before
        # And what says how long each chunk is, and the answer to the edit.
        assert len(found) <= sent < len(found) + 500 and len(found) > 4_000


def token(org: str | None, *, secret: str = SECRET, access: str = "write", documents: str = "*") -> str:
    """Sign a token as a back end does, with the tenant in the claim ``org``."""
    claims: dict[str, Any] = {"sub": "ada", "exp": int(time.time()) + 600, "documents": {documents: access}}
    return jwt.encode(claims | ({} if org is None else {"org": org}), secret, "HS256")


async def test_signed_tokens_say_whose_a_document_is(
    serve: Serve, session: aiohttp.ClientSession, connect: Connect
) -> None:
    served = await serve(tenants="claim:org", jwt_secret=SECRET)
    api, root = Api(served, session), token(None, access="admin")
    # Over a socket, and over HTTP.
    await type_(await join(connect, served, f"one?token={token('red')}"), Author(1), "red")
    assert (await api("POST", "/documents", {"name": "two"}, token("red")))[0] == 201
    # A token without the claim.
    assert (await api("POST", "/documents", {"name": "three"}, token(None)))[0] == 201
    # A document of another tenant may be edited, by whoever may write it, and uses up that one's quotas.
    await stored(served)
    guest = await join(connect, served, f"one?token={token('blue')}")
    await type_(guest, Author(2), "a guest")
    await type_(guest, Author(3), "again")
    await stored(served)
    found = {each["tenant"]: each["usage"] for each in (await api("GET", "/tenants", token=root))[1]["tenants"]}
    assert {name: (used["documents"], used["edits"]) for name, used in found.items()} == {"-": (1, 0), "red": (2, 3)}


@pytest.mark.parametrize("org", [7, ["red"], {"red": 1}, "", "a/b", "x" * 300, "a\nb"])
async def test_a_token_whose_claim_can_name_no_tenant_is_no_good(
    serve: Serve, session: aiohttp.ClientSession, org: Any
) -> None:
    served = await serve(tenants="claim:org", jwt_secret=SECRET)
    api = Api(served, session)
    status, said = await api("POST", "/documents", {"name": "d"}, token(org))
    assert status == 401 and "the claim org must" in said["detail"]
    await stored(served)
    assert (await api("GET", "/tenants", token=token(None, access="admin")))[1]["tenants"] == []


async def test_a_forged_tenant_is_nobodys(serve: Serve, session: aiohttp.ClientSession, connect: Connect) -> None:
    served = await serve(tenants="claim:org", jwt_secret=SECRET, quota_edits=1)
    api, root = Api(served, session), token(None, access="admin")
    await type_(await join(connect, served, f"d?token={token('red')}"), Author(1), "red")
    await stored(served)
    head, _, signature = token("red").split(".")
    body = base64.urlsafe_b64encode(
        json.dumps({"sub": "ada", "exp": int(time.time()) + 600, "documents": {"*": "write"}, "org": "blue"}).encode()
    )
    unsigned = jwt.encode({"sub": "ada", "documents": {"*": "write"}, "org": "blue"}, "", "none")
    for forged in (
        token("blue", secret="another secret, which is as long as it"),
        f"{head}.{body.decode().rstrip('=')}.{signature}",
        unsigned,
    ):
        assert (await api("POST", "/documents", {"name": "x"}, forged))[0] == 401
        client = await connect(served.ws(f"d?token={forged}"))
        assert await client.expect_close() == 4401
    await stored(served)
    found = {each["tenant"]: each["state"] for each in (await api("GET", "/tenants", token=root))[1]["tenants"]}
    assert found == {"red": "over"}, "nothing was counted for the other one"
    # A good token of another tenant gets no further on a document of a tenant that is over its quota.
    other = await join(connect, served, f"d?token={token('blue')}")
    await other.expect(lambda frame: b"quota of edits" in frame.payload, "why it is read-only")
    # Nor does it reach a document that its token does not cover.
    assert (await api("GET", "/documents/d", token=token("red", documents="e")))[0] == 403


async def test_counts_survive_a_store_that_fails(serve: Serve, connect: Connect) -> None:
    served = await serve(tenants="name")
    tenants, hub = tenants_of(served), served.app[HUB]
    ann, author = await join(connect, served, "a/d"), Author(1)
    await type_(ann, author, "x")
    add = hub.store.add_usage

    async def answer_lost(*given: Any) -> None:
        await add(*given)
        raise StoreUnavailable("for the test")

    hub.store.add_usage = answer_lost  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await tenants.flush()
    await type_(ann, author, "y")
    hub.store.add_usage = add  # type: ignore[method-assign]
    await tenants.flush()
    assert (await tenants.book.find("a")).record.edits == 2


async def test_a_socket_whose_tenant_is_ahead_is_read_when_something_comes_and_then_parked_again(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    parking = Parking()
    monkeypatch.setattr(app_module, "Parking", lambda: parking)
    served = await serve(tenants="name")
    shares = tenants_of(served).shares
    first, second = [await join(connect, served, "storm/one") for _ in range(2)]
    share = tenants_of(served).account("storm").share
    shares._next_look = float("inf")  # nobody looks again who is ahead
    share.ahead = True
    author = Author(1)
    for number in range(5):
        await type_(first, author, str(number))
        await happens(lambda: len(parking) >= 1, "it is parked")
    # Many at once are taken a few at a time, in order; a socket that ends leaves its place.
    seen = len(second.frames)
    await first.send(*[update(author.type("x")) for _ in range(100)])
    await happens(lambda: served.app[HUB].rooms["storm/one"].updates == 105, "all of them are taken")
    await second.expect(lambda frame: frame.kind == UPDATE, "they are relayed", after=seen)
    await happens(lambda: len(parking) >= 1, "it is parked")
    await first.close()
    await happens(lambda: share.connections == 1, "its end is seen")
    share.ahead = False
    await type_(second, Author(2), "y")
    await happens(lambda: not parking, "nobody is parked any more")
    await type_(second, Author(3), "z")
    await second.close()


async def test_without_tenants_nothing_is_counted(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve()
    assert served.app[HUB].tenants is None
    assert (await Api(served, session)("GET", "/tenants"))[1]["code"] == "not_offered"
    with pytest.raises(ConfigurationError, match="--quota-edits goes with --tenants"):
        await serve(quota_edits=1)
