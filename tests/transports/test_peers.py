"""Whose request it is: what a proxy says is believed as far as trust reaches, and nothing that a client writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from collab.errors import ConfigurationError
from collab.net import Browser, Peer, is_loopback, key_of, parse_address, parse_network
from collab.transports.guard.peers import Headers, Peers
from tests.support.raw_http import request

TRUSTED = [parse_network(text) for text in ("10.0.0.0/8", "fd00::/8")]


class Transport:
    """A connection from an address of the test's choice, which no test could have for real."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return (self.address, 50_000) if name == "peername" else default


def peer(address: str, headers: dict[str, str], *, trusted: bool = True, kind: Headers = "x-forwarded") -> Peer:
    made = make_mocked_request("GET", "/", {"Host": "Collab.example", **headers}, transport=Transport(address))
    return Peers(TRUSTED if trusted else [], kind).of(made)


def test_without_a_proxy_the_connection_says_it_all() -> None:
    seen = peer("203.0.113.7", {"X-Forwarded-For": "10.9.9.9", "X-Forwarded-Proto": "https"}, trusted=False)
    assert seen == Peer("203.0.113.7", "203.0.113.7", True, False, False, "collab.example")


def test_who_is_no_trusted_proxy_writes_headers_in_vain() -> None:
    for kind, headers in (
        ("x-forwarded", {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil"}),
        ("forwarded", {"Forwarded": "for=192.0.2.1;proto=https;host=evil"}),
    ):
        seen = peer("203.0.113.7", headers, kind=kind)  # type: ignore[arg-type]
        assert (seen.address, seen.secure, seen.host) == ("203.0.113.7", False, "collab.example")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("192.0.2.66, 203.0.113.7", "203.0.113.7"),  # the left one is the client's own invention
        ("203.0.113.7, 10.1.2.3", "203.0.113.7"),  # through two proxies
        ("192.0.2.66, 203.0.113.7, 10.1.2.3, 10.4.5.6", "203.0.113.7"),
        ("10.66.66.66, 203.0.113.7", "203.0.113.7"),  # an invented proxy does not help
        ("127.0.0.1, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4321", "203.0.113.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("unknown, 203.0.113.7", "203.0.113.7"),
        (" , 203.0.113.7 , ", "203.0.113.7"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_trusted(header: str, expected: str) -> None:
    seen = peer("10.0.0.1", {"X-Forwarded-For": header})
    assert (seen.address, seen.counted, seen.local) == (expected, True, False)
    quoted = ", ".join(f'for="{part.strip()}"' for part in header.split(",") if part.strip())
    assert peer("10.0.0.1", {"Forwarded": quoted}, kind="forwarded").address == expected


def test_scheme_and_host_are_those_that_the_client_has_used() -> None:
    headers = {
        "X-Forwarded-For": "203.0.113.7, 10.1.2.3",
        "X-Forwarded-Proto": "https, http",
        "X-Forwarded-Host": "App.example, inner",
    }
    seen = peer("10.0.0.1", headers)
    assert (seen.secure, seen.host) == (True, "app.example")
    one_for_all = peer("10.0.0.1", {**headers, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example"})
    assert (one_for_all.secure, one_for_all.host) == (True, "app.example")
    forged = peer("10.0.0.1", {**headers, "X-Forwarded-Proto": "https, http, http"})
    assert not forged.secure
    seen = peer("10.0.0.1", {"Forwarded": 'for=203.0.113.7;proto=https;host="app.example:8443"'}, kind="forwarded")
    assert (seen.secure, seen.host) == (True, "app.example:8443")


def test_only_the_headers_that_the_proxies_write_are_read() -> None:
    both = {"X-Forwarded-For": "203.0.113.7", "Forwarded": "for=198.51.100.9"}
    assert peer("10.0.0.1", both).address == "203.0.113.7"
    assert peer("10.0.0.1", both, kind="forwarded").address == "198.51.100.9"


@pytest.mark.parametrize(("path", "told"), [("/ws/d", 1), ("/healthz", 0), ("/readyz", 0)])
def test_a_proxy_that_says_nothing_is_told_of_unless_it_asks_for_itself(
    path: str, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    Peers(TRUSTED, "x-forwarded").of(make_mocked_request("GET", path, transport=Transport("10.0.0.1")))
    assert sum("does not say for whom it speaks" in text for text in caplog.messages) == told


def test_a_proxy_that_says_nothing_makes_its_clients_pay_for_nobody() -> None:
    assert not peer("10.0.0.1", {}).counted
    # What comes from the client does not let it out of the count.
    assert peer("10.0.0.1", {"X-Forwarded-For": "nonsense"}).counted


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
@example('for="x')
@example('for=192.0.2.66;x="')
@example('for=192.0.2.66, "')
@example("for=192.0.2.66,")
def test_nothing_that_a_client_writes_hides_what_its_proxy_adds(written: str) -> None:
    for added, kind, name in (
        ('for="[2001:db8::7]:99";proto=https', "forwarded", "Forwarded"),
        ("for=203.0.113.7;host=app.example", "forwarded", "Forwarded"),
        ("203.0.113.7", "x-forwarded", "X-Forwarded-For"),
    ):
        seen = peer("10.0.0.1", {name: f"{written}, {added}"}, kind=kind)  # type: ignore[arg-type]
        assert seen.address in ("2001:db8::7", "203.0.113.7"), (written, added)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or ip_address(str(address)) == address


def test_what_counts_as_one_address() -> None:
    first, second = (ip_address(text) for text in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"))
    assert key_of(first) == key_of(second) == "2001:db8:1:2::/64"
    assert key_of(ip_address("2001:db8:1:3::1")) != key_of(first)
    assert key_of(ip_address("203.0.113.7")) == "203.0.113.7"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "app.localhost", "localhost.", "127.0.0.9:1", "[::1]:2"])
def test_names_of_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "example.org", "localhost.example.org", "notlocalhost", "10.0.0.1", "[::2]:1"])
def test_names_of_others(host: str) -> None:
    assert not is_loopback(host)


def test_a_network_is_one_or_refused() -> None:
    assert str(parse_network(" 10.0.0.0/8 ")) == "10.0.0.0/8"
    for text in ("10.0.0.1/8", "proxy", ""):
        with pytest.raises(ConfigurationError):
            parse_network(text)


@pytest.fixture
async def ask() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Serve who is seen, over real sockets, where this machine is the trusted proxy."""
    servers = []

    async def start(raw: str, trusted: str = "127.0.0.1") -> str:
        peers = Peers([parse_network(trusted)])

        async def answer(request: web.Request) -> web.Response:
            seen = peers.of(request)
            return web.Response(text=f"{seen.address} {seen.local} {seen.counted} {seen.secure} {seen.host}")

        app = web.Application()
        app.router.add_get("/", answer)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server()
        servers.append(server)
        assert server.port is not None
        return (await request("127.0.0.1", server.port, raw)).body

    yield start
    for server in servers:
        await server.close()


async def test_over_a_socket(ask: Callable[..., Awaitable[str]]) -> None:
    forwarded = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.66\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
    assert await ask(forwarded) == "203.0.113.7 False True False a"
    assert await ask(forwarded, "10.0.0.0/8") == "127.0.0.1 True False False a"


def test_only_cookies_that_somebody_reads_are_taken_along() -> None:
    def read(names: set[str], **headers: str) -> Browser | None:
        made = make_mocked_request("GET", "/", headers, transport=Transport("203.0.113.7"))
        return Peers(cookies=names).of(made).browser

    sent = {"Cookie": 'a=1; sid="x:y"; broken; b=2; sid2=z', "Origin": "https://app.example"}
    assert read(set(), **sent) is None
    assert read({"other"}, **sent) is None
    found = read({"sid"}, **sent)
    assert found == Browser((("sid", "x:y"),), "https://app.example", None)
    assert "x:y" not in repr(found)
    # As Django and others read it, of two with one name the last counts.
    assert read({"a"}, Cookie="a=1;a=2") == Browser((("a", "2"),), None, None)
    assert read({"a"}, Cookie=f"a={'x' * 5_000}") is None
    assert read({"a"}, **{"Cookie": "a=1", "Sec-Fetch-Site": "same-origin"}) == Browser(
        (("a", "1"),), None, "same-origin"
    )
