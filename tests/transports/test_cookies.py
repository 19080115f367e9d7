"""Cookies as authentication: an authenticator that reads them, pages that it trusts, and access that changes.

Strategy: the cookie ``sid`` is the name of a session in a table, which a test changes while sessions are live.
"""

from __future__ import annotations

import time

import aiohttp

from collab.auth.access import AccessRequest, Grant
from collab.errors import AccessUnavailable, Forbidden, Unauthenticated
from collab.net import Peer
from collab.protocol.session import Access
from tests.support.hocuspocus import AUTH, AUTHENTICATED, RawHocuspocus, auth
from tests.support.waiting import happens
from tests.support.wsclient import RawClient, text_update, update
from tests.transports.conftest import Serve

APP, EVIL = "https://app.example", "https://evil.example"


class Sessions:
    """Knows a client by the cookie ``sid``, if a page of ``APP`` makes the request."""

    cookies = frozenset({"sid"})

    def __init__(self, check_seconds: float | None = None) -> None:
        self.table: dict[str, Access | None] = {"ada": Access.WRITE}
        self.asked = 0
        self.away = False
        self._check_seconds = check_seconds

    def trusts(self, origin: str, client: Peer) -> bool:
        return origin == APP

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.asked += 1
        if self.away:
            raise AccessUnavailable("away")
        assert request.client is not None
        browser = request.client.browser
        if browser is None or browser.origin != APP:
            raise Unauthenticated("no session", public="sign in")
        user = dict(browser.cookies)["sid"]
        access = self.table.get(user)
        if access is None:
            raise Forbidden("not this one", public="not yours")
        at = None if self._check_seconds is None else time.time() + self._check_seconds
        return Grant(access, user, check_at=at)


def headers(cookie: str = "theme=dark; sid=ada; sid2=x", origin: str | None = APP) -> dict[str, str]:
    return {"Cookie": cookie} | ({} if origin is None else {"Origin": origin})


async def test_a_cookie_opens_documents_by_both_protocols_and_over_http(serve: Serve) -> None:
    sessions = Sessions()
    served = await serve(authenticator=sessions)
    client = await RawClient(served.ws("d")).connect(headers())
    await client.send(update(text_update(1, "hello")))
    await client.barrier()
    await client.close()
    provider = await RawHocuspocus(served.hocuspocus).connect(headers())
    await provider.send(auth("d"))
    assert (await provider.find_type("d", AUTH)).fields == (AUTHENTICATED, "read-write")
    await provider.close()
    async with aiohttp.ClientSession(headers=headers()) as http:
        answer = await http.get(f"{served.url}/api/v1/content/d?root=text&format=text")
        assert (answer.status, await answer.text()) == (200, "hello")
        # Lists and bodies that come before a document is known need no token either.
        assert (await http.get(f"{served.url}/api/v1/documents")).status == 200
        assert (await http.post(f"{served.url}/api/v1/documents", json={"name": "new"})).status == 201


async def test_a_page_that_is_not_trusted_gets_nothing_by_a_cookie(serve: Serve) -> None:
    sessions = Sessions()
    served = await serve(authenticator=sessions)
    client = await RawClient(served.ws("d")).connect(headers(origin=EVIL))
    assert await client.expect_close() == 4403
    await client.close()
    assert sessions.asked == 0
    # No browser leaves Origin out of a socket; who does is nobody's page, and the authenticator decides.
    client = await RawClient(served.ws("d")).connect(headers(origin=None))
    assert await client.expect_close() == 4401
    await client.close()
    async with aiohttp.ClientSession(headers=headers(origin=EVIL)) as http:
        answer = await http.post(f"{served.url}/api/v1/documents", json={"name": "new"})
        assert answer.status == 403 and "Access-Control-Allow-Origin" not in answer.headers
    async with aiohttp.ClientSession(headers=headers(origin=APP)) as http:
        answer = await http.get(f"{served.url}/api/v1/documents")
        assert answer.headers["Access-Control-Allow-Origin"] == APP
        assert "Access-Control-Allow-Credentials" not in answer.headers
    async with aiohttp.ClientSession(headers=headers("theme=dark")) as http:
        assert (await http.get(f"{served.url}/api/v1/documents")).status == 401


async def test_access_is_asked_about_again_while_a_session_lives(serve: Serve) -> None:
    sessions = Sessions(check_seconds=0.05)
    served = await serve(authenticator=sessions)
    client = await RawClient(served.ws("d")).connect(headers())
    provider = await RawHocuspocus(served.hocuspocus).connect(headers())
    await provider.send(auth("d"))
    await provider.find_type("d", AUTH)
    await client.barrier()
    # It goes on being asked, also while nothing can be decided.
    sessions.away = True
    seen = sessions.asked
    await happens(lambda: sessions.asked > seen + 1, "it is asked twice more")
    assert client.open
    sessions.away = False
    sessions.table["ada"] = Access.READ
    await provider.find(lambda one: one.fields == (AUTHENTICATED, "readonly"), "that it may only read")
    sessions.table["ada"] = None
    assert await client.expect_close() == 4403
    assert await provider.denied("d") == "not yours"
    await provider.close()
    await client.close()
