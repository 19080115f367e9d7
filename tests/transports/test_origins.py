"""Which web pages may talk to the server, over every road that a browser has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from collab.auth.access import AccessRequest, Grant
from collab.errors import ConfigurationError
from collab.net import Peer, normal_origin
from collab.protocol.session import Access
from collab.transports.guard.origins import Origins
from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.wsclient import RawClient
from tests.transports.conftest import Serve

EVIL = "https://evil.example"
REASON = f"origin not allowed, see --allowed-origins: {EVIL}"

BEHIND_PROXY = {"behind_proxy": True, "trusted_proxies": "127.0.0.1"}


class Everybody:
    """An authenticator, so that the server is not for its own machine alone."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        return Grant(Access.WRITE, "somebody")


def at(host: str, *, secure: bool = False) -> Peer:
    return Peer("203.0.113.7", "203.0.113.7", True, False, secure, host)


@pytest.mark.parametrize(
    ("origin", "peer", "allowed"),
    [
        ("https://app.example", at("app.example"), True),  # TLS may end at a proxy that nobody has named
        ("http://app.example", at("app.example"), True),
        ("http://app.example:8080", at("app.example:8080"), True),
        ("https://app.example", at("app.example:443", secure=True), True),
        ("https://[2001:db8::1]:8443", at("[2001:db8::1]:8443", secure=True), True),
        ("http://app.example", at("app.example", secure=True), False),  # whoever is on the way can serve that page
        ("https://app.example:8443", at("app.example"), False),
        ("https://app.example.evil.example", at("app.example"), False),
        ("https://evil.example", at("app.example"), False),
        ("http://localhost:5173", at("app.example"), False),
        ("null", at("app.example"), False),
        ("", at("app.example"), False),
        ("https://", at(""), False),
        ("https://user@app.example", at("app.example"), False),
        ("http://[::1", at("app.example"), False),
    ],
)
def test_the_same_origin_and_no_other(origin: str, peer: Peer, allowed: bool) -> None:
    assert Origins().allows(origin, peer) is allowed


def test_listed_origins_are_allowed_exactly() -> None:
    origins = Origins([normal_origin("https://App.example:443/"), "http://b.example:8080"])
    for origin in ("https://app.example", "https://APP.example", "http://b.example:8080"):
        assert origins.allows(origin, at("collab.example"))
    for origin in ("http://app.example", "https://app.example:444", "http://b.example", "https://x.app.example"):
        assert not origins.allows(origin, at("collab.example"))
    assert all(Origins(["*"]).allows(origin, at("collab.example")) for origin in ("null", EVIL, "http://localhost"))


def test_a_name_that_leads_here_by_dns_is_not_the_same_origin_without_authentication() -> None:
    origins = Origins(["https://app.example"], loopback=True)
    for origin in ("http://localhost:5173", "http://127.0.0.1:1234", "http://[::1]:1", "https://app.example"):
        assert origins.allows(origin, at("127.0.0.1:1234"))
    assert not origins.allows("http://rebound.example:1234", at("rebound.example:1234"))
    assert not origins.allows_host(at("rebound.example:1234"))
    for host in ("localhost:1234", "127.0.0.1", "[::1]:1234", "app.example", ""):
        assert origins.allows_host(at(host))
    assert Origins().allows_host(at("rebound.example:1234"))


@pytest.mark.parametrize(
    "text", ["app.example", "https://app.example/x", "https://app.example:x", "https://?a", "null"]
)
def test_what_is_no_origin(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is no origin"):
        normal_origin(text)


# --- over sockets


@asynccontextmanager
async def sent(url: str, origin: str | None, method: str = "GET", **headers: str) -> AsyncIterator[Any]:
    if origin is not None:
        headers["Origin"] = origin
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as response:
        yield response


async def ends(url: str, **headers: str) -> tuple[int | None, str | None]:
    """Open a y-websocket; return how it was closed, or None when it is let in."""
    client = await RawClient(url).connect(headers)
    try:
        await client.until(lambda: client.frames or client.close_code is not None, "a greeting or the close")
        return client.close_code, client.close_reason
    finally:
        await client.close()


async def test_a_page_of_another_origin_is_told_so_in_its_protocol(serve: Serve) -> None:
    served = await serve(authenticator=Everybody())
    url = served.ws("d")
    assert await ends(url, Origin=EVIL) == (4403, REASON)
    assert await ends(url, Origin="null") == (4403, REASON.replace(EVIL, "null"))
    assert await ends(url, Origin=served.url) == (None, None)
    assert await ends(url) == (None, None), "no browser, no origin"

    async with RawHocuspocus(served.hocuspocus) as client:
        assert client.open
    client = await RawHocuspocus(served.hocuspocus).connect({"Origin": EVIL})
    await client.send(hocuspocus.auth("a", "token"), hocuspocus.auth("b", "token"))
    for name in ("a", "b"):
        frame = await client.find_type(name, hocuspocus.AUTH)
        assert frame.fields == (hocuspocus.PERMISSION_DENIED, REASON)
    assert client.open, "the provider would come back for ever"
    await client.close()


async def test_a_long_origin_does_not_hide_what_to_do(serve: Serve) -> None:
    served = await serve(authenticator=Everybody())
    code, reason = await ends(served.ws("d"), Origin="https://" + "x" * 4_000)
    assert code == 4403 and reason is not None and reason.startswith("origin not allowed, see --allowed-origins: https")


async def test_http_follows_the_same_rule_and_answers_cors(serve: Serve) -> None:
    served = await serve(authenticator=Everybody(), allowed_origins="https://app.example")
    for path in ("/", "/healthz", "/nothing"):
        async with sent(served.url + path, EVIL) as response:
            assert response.status == 403 and "--allowed-origins" in await response.text()
            assert "Access-Control-Allow-Origin" not in response.headers
    async with sent(served.url + "/api/v1/documents", EVIL) as response:
        assert response.status == 403 and "--allowed-origins" in (await response.json())["detail"]
    for origin in (served.url, "https://app.example"):
        async with sent(served.url + "/healthz", origin) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == origin
            assert "Access-Control-Allow-Credentials" not in response.headers
            assert "Access-Control-Expose-Headers" not in response.headers, "there is nothing to name"
            assert "Origin" in response.headers["Vary"]
        async with sent(served.url + "/streams/docs/d", origin, "PUT"):
            pass
        for path, exposed in (
            ("/streams/docs/d?offset=now", {"Stream-Next-Offset", "Stream-Up-To-Date"}),
            ("/api/v1/updates/d", {"ETag"}),
        ):
            async with sent(served.url + path, origin) as response:
                assert response.status == 200, path
                assert exposed <= set(response.headers["Access-Control-Expose-Headers"].split(", "))
    async with sent(served.url + "/healthz", None) as response:
        assert response.status == 200 and "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers["Vary"], "a cache must not give one page's answer to another"
    wanted = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
    async with sent(served.url + "/healthz", "https://app.example", "OPTIONS", **wanted) as response:
        assert response.status == 204
        assert "PUT" in response.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    async with sent(served.url + "/healthz", EVIL, "OPTIONS", **wanted) as response:
        assert response.status == 403


async def test_without_authentication_pages_and_names_of_this_machine_only(serve: Serve) -> None:
    served = await serve()
    rebound = f"rebound.example:{served.server.port}"
    assert await ends(served.ws("d"), Origin="http://localhost:5173") == (None, None)
    assert (await ends(served.ws("d"), Origin=f"http://{rebound}", Host=rebound))[0] == 4403
    async with sent(served.url + "/healthz", None, Host=rebound) as response:
        assert response.status == 403 and "own machine" in await response.text()
    async with sent(served.url + "/healthz", None, Host="localhost") as response:
        assert response.status == 200


async def test_behind_a_proxy_the_origin_is_compared_with_what_the_browser_has_asked_for(serve: Serve) -> None:
    served = await serve(authenticator=Everybody(), **BEHIND_PROXY)
    proxied = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example"}
    assert await ends(served.ws("d"), Origin="https://app.example", **proxied) == (None, None)
    assert (await ends(served.ws("d"), Origin="http://app.example", **proxied))[0] == 4403
    assert (await ends(served.ws("d"), Origin=served.url, **proxied))[0] == 4403
    # Without the proxy's word the same headers are anybody's.
    direct = await serve(authenticator=Everybody())
    assert (await ends(direct.ws("d"), Origin="https://app.example", **proxied))[0] == 4403


async def test_every_answer_carries_the_headers_that_make_it_safe(serve: Serve) -> None:
    served = await serve()
    for path, status in (("/healthz", 200), ("/nothing", 404), ("/ws/d", 400), ("/readyz", 200)):
        async with sent(served.url + path, None) as response:
            assert response.status == status
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["X-Frame-Options"] == "SAMEORIGIN"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'self'")
    async with sent(served.url + "/", None) as response:
        # The page says itself what it may do and who may frame it.
        assert response.headers.getall("Content-Security-Policy") == [response.headers["Content-Security-Policy"]]
        assert "script-src 'self'" in response.headers["Content-Security-Policy"]
        assert len(response.headers.getall("X-Content-Type-Options")) == 1
