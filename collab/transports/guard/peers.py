"""Who is at the other end: the client's address, and by which scheme and host it came.

Strategy: the address of the connection is the only one that cannot be lied about. What proxies add in
headers is believed only when the connection comes from one of the trusted proxies, and then only as far
as trust reaches: read from the right, each entry was added by the one behind it, so the first address
that is no trusted proxy is the client, and whatever stands left of it is what that client has written
itself. Only one family of headers is read, because a proxy passes on the other as the client sent it.

Cookies are taken along only where an authenticator reads them, and only those that it names.

An address that many may share (this machine itself, or a proxy that does not say for whom it speaks)
is not counted: a bound for each address would make all of them pay for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from aiohttp import web

from collab.net import Address, Browser, Network, Peer, key_of, parse_address
from collab.telemetry import RateLimited, get_logger

Headers = Literal["x-forwarded", "forwarded"]

MAX_COOKIE = 4096
"""Characters of a cookie that is read: browsers keep no longer one, and what is read is kept while a session lives."""

_FORWARDED = ("X-Forwarded-For", "Forwarded")

# Addresses of which it is remembered what is known of them; past it all are forgotten.
_REMEMBERED = 4_096

# What balancers, Kubernetes and `collab health` ask for themselves: nobody stands behind them.
_PROBES = frozenset({"/healthz", "/readyz"})


class Remote(NamedTuple):
    """The other end of a connection, by its address alone.

    Attributes:
        address: None for a Unix socket, or for what cannot be read.
        text, key: the address as text, and what is counted as one address; empty without one.
        loopback: it is on this machine.
        proxy: its headers are believed.
    """

    address: Address | None
    text: str
    key: str
    loopback: bool
    proxy: bool


_UNKNOWN: Final = Remote(None, "", "", False, False)


class Peers:
    """Find out about clients.

    Args:
        trusted: the networks of proxies whose headers are believed; empty if none is.
        headers: which headers they write.
        cookies: the names of the cookies that the authenticator reads.
        scopes: whether it reads what an ASGI server says of a connection.
    """

    def __init__(
        self,
        trusted: Sequence[Network] = (),
        headers: Headers = "x-forwarded",
        cookies: AbstractSet[str] = frozenset(),
        *,
        scopes: bool = False,
    ) -> None:
        self._trusted = tuple(trusted)
        self._headers = headers
        self._cookies = cookies
        self._scopes = scopes
        self._limited = RateLimited(get_logger("http"), burst=1, per_second=1 / 3600)
        self._remotes: dict[str, Remote] = {}

    def remote(self, text: str) -> Remote:
        """Tell what is known of the other end of a connection by its address."""
        # Most come from few places, and each is asked about several times.
        remote = self._remotes.get(text)
        if remote is None:
            address = parse_address(text)
            if address is None:
                remote = _UNKNOWN
            else:
                trusted = any(address in network for network in self._trusted)
                remote = Remote(address, str(address), key_of(address), address.is_loopback, trusted)
            if len(self._remotes) >= _REMEMBERED:
                self._remotes.clear()
            self._remotes[text] = remote
        return remote

    def of(self, request: web.BaseRequest) -> Peer:
        """Tell who has sent a request."""
        peer = self._of(request)
        if self._scopes and request.transport is not None:
            peer = replace(peer, scope=request.transport.get_extra_info("scope"))
        if not self._cookies or "Cookie" not in request.headers:
            return peer
        cookies = read_cookies(request.headers.getall("Cookie"), self._cookies)
        if not cookies:
            return peer
        origins = request.headers.getall("Origin", ())
        # Several origins are none that anybody trusts.
        origin = ", ".join(origins) if origins else None
        return replace(peer, browser=Browser(cookies, origin, request.headers.get("Sec-Fetch-Site")))

    def _of(self, request: web.BaseRequest) -> Peer:
        peername = request.transport.get_extra_info("peername") if request.transport is not None else None
        told = peername if isinstance(peername, tuple) else ()
        remote = self.remote(told[0]) if told else _UNKNOWN
        secure, host = request.scheme == "https", request.headers.get("Host", "").lower()
        if not remote.proxy:
            if remote.loopback and (_FORWARDED[0] in request.headers or _FORWARDED[1] in request.headers):
                self._limited.warning(
                    "untrusted",
                    "requests from %s have passed a proxy (%s): without --behind-proxy and --trusted-proxies its "
                    "clients cannot be told apart",
                    remote.text,
                    " or ".join(_FORWARDED),
                )
            # A Unix socket leads to this machine. An address that cannot be read may lead anywhere.
            return _direct(remote.text, remote.key, remote.loopback or not told, secure, host)
        read = _read_forwarded if self._headers == "forwarded" else _read_x_forwarded
        hops = read(request)
        client, taken = remote.address, 0
        for hop in reversed(hops):
            address = parse_address(hop.address)
            if address is None:
                break  # "unknown", or a name: nobody can be told from it
            client, taken = address, taken + 1
            if not self.remote(str(address)).proxy:
                break
        if not taken:
            # Nothing said: its clients cannot be told apart, so none of them pays for another. Nonsense said:
            # that comes from the client, and lets it out of no bound.
            if not hops and request.path not in _PROBES:
                self._limited.warning("silent", "the proxy at %s does not say for whom it speaks", remote.text)
            return Peer(remote.text, remote.key, bool(hops), False, secure, host)
        hop = hops[-taken]
        assert client is not None
        return Peer(
            str(client),
            key_of(client),
            not self.remote(str(client)).proxy,
            False,
            hop.proto == "https" if hop.proto else secure,
            hop.host or host,
        )


def read_cookies(headers: Iterable[str], names: AbstractSet[str]) -> tuple[tuple[str, str], ...]:
    """Read the cookies ``names`` from the headers ``Cookie`` (RFC 6265, section 4.2); the last of those with one name.

    Values stay as they were sent, without the quotes around them. Those above `MAX_COOKIE` are left out.
    """
    found: dict[str, str] = {}
    for header in headers:
        for pair in header.split(";"):
            name, equals, value = pair.partition("=")
            name = name.strip()
            if equals and name in names and len(value) <= MAX_COOKIE:
                found[name] = value.strip().strip('"')
    return tuple(found.items())


@dataclass(frozen=True, slots=True)
class _Hop:
    """What one proxy has said of the one before it."""

    address: str
    proto: str
    host: str


@lru_cache(maxsize=1_024)
def _direct(address: str, key: str, local: bool, secure: bool, host: str) -> Peer:
    # Most sockets come from few places: they share what is said of them.
    return Peer(address, key, bool(address) and not local, local, secure, host)


def _read_x_forwarded(request: web.BaseRequest) -> list[_Hop]:
    addresses = _list(request, "X-Forwarded-For")
    protos, hosts = _list(request, "X-Forwarded-Proto"), _list(request, "X-Forwarded-Host")
    # Each proxy adds to the right; one that sets and does not add leaves a single value, which is for all.
    return [
        _Hop(address, _from_right(protos, behind).lower(), _from_right(hosts, behind).lower())
        for behind, address in zip(range(len(addresses), 0, -1), addresses, strict=True)
    ]


def _from_right(values: list[str], nth: int) -> str:
    return values[-min(nth, len(values))] if values else ""


def _read_forwarded(request: web.BaseRequest) -> list[_Hop]:
    hops = []
    for element in _elements(", ".join(request.headers.getall("Forwarded", ()))):
        pairs = {}
        for pair in element.split(";"):
            name, _, value = pair.partition("=")
            pairs[name.strip().lower()] = value.strip().strip('"')
        hops.append(_Hop(pairs.get("for", ""), pairs.get("proto", "").lower(), pairs.get("host", "").lower()))
    return hops


def _elements(text: str) -> list[str]:
    """Split at the commas outside of quotes (RFC 7239, section 4), reading from the right.

    What a trusted proxy has added at the end is well-formed, and what the client has sent stands before it. Read
    from the left, a quote that the client has opened and not closed would swallow what the proxy says of it.
    """
    elements, end, quoted = [], len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            quoted = not quoted
        elif text[at] == "," and not quoted:
            elements.append(text[at + 1 : end])
            end = at
    elements.append(text[:end])
    return [element for element in reversed(elements) if element.strip()]


def _list(request: web.BaseRequest, name: str) -> list[str]:
    return [part.strip() for value in request.headers.getall(name, ()) for part in value.split(",") if part.strip()]
