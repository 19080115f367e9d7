"""``POST /api/v1/shares`` over the whole application: who gets a link for guests, and what it opens."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from collab.auth.access import AccessRequest, Grant
from collab.limits.limits import _SHARES_PER_MINUTE
from collab.protocol.session import Access
from collab.transports.http.api.shares import NO_SECRET, OPEN, TURNED_OFF
from tests.auth.makers import SECRET, pair, write
from tests.support.api import told
from tests.support.wsclient import AUTH, LiveClient, RawClient, step2, text_update
from tests.transports.conftest import Serve, Served

NAME = "notes/plan ä?"
READ = {"name": NAME, "access": "read", "seconds": 3600}


def token(user: str = "u-17", documents: dict[str, str] | None = None, seconds: int = 60, **claims: Any) -> str:
    """What an application gives its user."""
    documents = {"notes/*": "write", "rules/*": "read"} if documents is None else documents
    exp = int(time.time()) + seconds
    return jwt.encode({"sub": user, "name": "Ada", "documents": documents, "exp": exp, **claims}, SECRET, "HS256")


class Shares:
    """A client of the endpoint that gives status and body."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(
        self, served: Served, body: Any = None, bearer: str | None = None, **options: Any
    ) -> tuple[int, Any]:
        headers = options.pop("headers", {})
        if bearer is not None:
            headers = {**headers, "Authorization": f"Bearer {bearer}"}
        if body is not None:
            options["json"] = body
        method = options.pop("method", "POST")
        async with self._session.request(method, f"{served.url}/api/v1/shares", headers=headers, **options) as response:
            assert response.headers["Cache-Control"] == "no-store"
            self.headers = response.headers
            return response.status, await told(response)


@pytest.fixture
async def shares() -> AsyncIterator[Shares]:
    async with aiohttp.ClientSession() as session:
        yield Shares(session)


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve(jwt_secret=SECRET)


async def test_a_guest_who_may_read_sees_edits_live_and_makes_none(
    served: Served, shares: Shares, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab")
    before = time.time()
    status, made = await shares(served, READ, token())
    assert status == 201 and list(made) == ["token", "access", "expires"] and made["access"] == "read"
    assert 3599 <= datetime.fromisoformat(made["expires"]).timestamp() - before <= 3601
    url = served.ws("notes/plan%20%C3%A4%3F?token=")
    async with LiveClient(url + token()) as ada:
        await ada.until_synced()
        ada.text().insert(0, "hello")
        await ada.barrier()
        async with LiveClient(url + made["token"]) as guest:
            await guest.until_synced()
            ada.text().insert(5, " there")
            await guest.until(lambda: str(guest.text()) == "hello there")
    async with RawClient(url + made["token"]) as hostile:
        await hostile.send(step2(text_update(7, "mine")))
        await hostile.expect(lambda frame: frame.type == AUTH, "the refusal")
    (line,) = [text for text in caplog.messages if text.startswith("share made: ")]
    guest_user = jwt.decode(made["token"], SECRET, ["HS256"])["sub"]
    said = f"read access for {guest_user} until {made['expires']}"
    assert line == f"share made: {said} (user='u-17' address=127.0.0.1 document={NAME!r})"
    assert made["token"] not in caplog.text and token() not in caplog.text


async def test_the_page_is_told_whether_there_are_links(serve: Serve, served: Served, shares: Shares) -> None:
    assert await shares(served, method="GET") == (200, {"max_seconds": 30 * 86_400})
    assert await shares(await serve(), method="GET") == (200, {"max_seconds": 0})


class Hook:
    """An application's own authenticator, which lets everybody in."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        return Grant(Access.ADMIN, "u-17", "Ada")


async def test_a_server_that_cannot_sign_says_why(serve: Serve, shares: Shares, tmp_path: Path) -> None:
    keys = (write(tmp_path / "key.pem", pair("EdDSA").public_pem),)
    for options, reason in (
        ({}, OPEN),
        ({"jwt_keys": keys}, NO_SECRET),
        # The secret is not what this authenticator looks at.
        ({"authenticator": Hook(), "jwt_secret": SECRET}, NO_SECRET),
        ({"jwt_secret": SECRET, "max_share_seconds": 0}, TURNED_OFF),
    ):
        other = await serve(**options)
        assert await shares(other, READ, token()) == (422, reason)
        assert await shares(other, method="GET") == (200, {"max_seconds": 0})


async def test_who_may_not_write_gets_no_link(served: Served, shares: Shares, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    assert await shares(served, READ) == (401, "no token was given")
    assert shares.headers["WWW-Authenticate"] == "Bearer"
    assert await shares(served, READ, token(seconds=-80)) == (401, "the token has expired")
    assert await shares(served, READ, "nonsense") == (401, "the token is not a JWT")
    refused = "the token does not allow this document (claim documents)"
    assert await shares(served, {**READ, "name": "letters/1"}, token()) == (403, refused)
    for access in ("read", "write"):
        body = {**READ, "name": "rules/1", "access": access}
        assert await shares(served, body, token()) == (403, "this needs write access")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(",")[0].partition(":")[0] for line in lines] == ["sign-in refused"] * 3 + [
        "permission refused"
    ] * 3


async def test_a_guest_makes_no_links_and_gets_no_further(
    served: Served, shares: Shares, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    status, made = await shares(served, {**READ, "access": "write"}, token())
    assert status == 201
    status, answer = await shares(served, READ, made["token"])
    assert status == 403 and "pass on the link" in answer
    status, answer = await shares(served, {**READ, "name": "notes/other"}, made["token"])
    assert status == 403 and "does not allow" in answer
    assert "a guest shares" in caplog.text


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"name": None}, 400, "the body is not as described at /name: Input should be a valid string"),
        ({"name": ["a"]}, 400, "the body is not as described at /name: Input should be a valid string"),
        ({"name": ""}, 400, "a document name is 1 to 512 bytes of UTF-8"),
        ({"name": "x" * 513}, 400, "a document name is 1 to 512 bytes of UTF-8"),
        ({"name": "notes/\ud800"}, 400, "the body is not as described: Invalid JSON: unexpected end of hex escape"),
        ({"access": "admin"}, 400, "the body is not as described at /access: Input should be 'read' or 'write'"),
        ({"access": None}, 400, "the body is not as described at /access: Input should be 'read' or 'write'"),
        ({"access": {}}, 400, "the body is not as described at /access: Input should be 'read' or 'write'"),
        ({"seconds": 0}, 400, "the body is not as described at /seconds: Input should be greater than or equal to 1"),
        ({"seconds": 2_592_001}, 400, '"seconds" is a whole number from 1 to 2592000'),
        ({"seconds": True}, 400, "the body is not as described at /seconds: Input should be a valid integer"),
        ({"seconds": 60.5}, 400, "the body is not as described at /seconds: Input should be a valid integer"),
        ({"seconds": "60"}, 400, "the body is not as described at /seconds: Input should be a valid integer"),
        ({"seconds": None}, 400, "the body is not as described at /seconds: Input should be a valid integer"),
        # A token for everything that begins so, or none at all.
        ({"name": "notes/*"}, 400, "a document with a * or a control character in its name cannot be shared by a link"),
        (
            {"name": "notes/*/1"},
            400,
            "a document with a * or a control character in its name cannot be shared by a link",
        ),
        (
            {"name": "notes/\n"},
            400,
            "a document with a * or a control character in its name cannot be shared by a link",
        ),
    ],
)
async def test_what_is_wrong_is_said(
    served: Served, shares: Shares, change: dict[str, Any], status: int, error: str
) -> None:
    found, said = await shares(served, READ | change, token(documents={"*": "write"}))
    assert found == status and said.startswith(error)


async def test_only_json_from_pages_that_may(served: Served, shares: Shares) -> None:
    bearer = token()
    assert (await shares(served, bearer=bearer, data="x=1"))[0] == 415
    assert (await shares(served, bearer=bearer, data="[]", headers={"Content-Type": "application/json"}))[0] == 400
    async with shares._session.post(
        f"{served.url}/api/v1/shares",
        json=READ,
        headers={"Origin": "https://evil.example", "Authorization": f"Bearer {bearer}"},
    ) as response:
        assert response.status == 403 and "token" not in await response.text()


async def test_one_user_makes_so_many_a_minute_and_nobody_else_pays(
    served: Served, shares: Shares, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "collab.audit")
    for _ in range(_SHARES_PER_MINUTE):
        assert (await shares(served, READ, token()))[0] == 201
    assert await shares(served, READ, token()) == (429, "too many links, try again later")
    assert shares.headers["Retry-After"] == "4"
    assert "limit: too many links of one user" in caplog.text
    assert (await shares(served, READ, token("u-18")))[0] == 201


async def test_the_life_of_a_link_has_the_bound_that_is_set(serve: Serve, shares: Shares) -> None:
    served = await serve(jwt_secret=SECRET, max_share_seconds=600)
    assert await shares(served, method="GET") == (200, {"max_seconds": 600})
    assert (await shares(served, {**READ, "seconds": 601}, token()))[0] == 400
    assert (await shares(served, {**READ, "seconds": 600}, token()))[0] == 201


async def test_the_answer_about_one_document_is_what_holds_for_who_asks(served: Served, shares: Shares) -> None:
    _, made = await shares(served, {**READ, "access": "write"}, token())
    guest = made["token"]

    async def longest(name: str, bearer: str) -> tuple[int, Any]:
        return await shares(served, method="GET", params={"name": name}, bearer=bearer)

    assert await longest(NAME, token()) == (200, {"max_seconds": 30 * 86_400})
    assert await longest("rules/one", token()) == (200, {"max_seconds": 0})
    assert await longest(NAME, guest) == (200, {"max_seconds": 0})
    # It cannot be shared at all: its name would be a pattern.
    assert await longest("notes/*", token()) == (200, {"max_seconds": 0})
    for name, bearer, status in (("other", guest, 403), (NAME, "none", 401), ("", token(), 400)):
        assert (await longest(name, bearer))[0] == status
