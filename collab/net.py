"""Addresses, networks, loopback, origins, and the client of a request: pure functions and values.

Strategy: the standard library alone and no I/O, so that settings, limits and transports can all stand above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from collab.errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# One subscriber of the IPv6 internet has at least so many bits of an address to choose from.
_IPV6_SUBSCRIBER_BITS = 64

ANY = "*"
"""Stands for every origin."""

DEFAULT_PORTS = {"http": 80, "https": 443}


def key_of(address: Address) -> str:
    """Give what is counted as one address."""
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> _IPV6_SUBSCRIBER_BITS << _IPV6_SUBSCRIBER_BITS, 64)))
    return str(address)


@lru_cache(maxsize=4_096)  # most come from few places, and each is asked about several times
def parse_address(text: str) -> Address | None:
    """Read an address, with or without brackets and port; IPv4 in IPv6 is IPv4. None if it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def key_of_text(text: str) -> str:
    """Give what is counted as one address for the address of a client as text, which may be none (a Unix socket)."""
    address = parse_address(text)
    return text if address is None else key_of(address)


def parse_network(text: str) -> Network:
    """Read a network as in ``10.0.0.0/8``, or one address.

    Raises:
        ConfigurationError: it is neither, or holds bits of a host.
    """
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no network as in 10.0.0.0/8: {error}") from None


def is_loopback(host: str) -> bool:
    """Tell whether ``host``, a name or an address with or without a port, always means this machine."""
    name = host.strip().lower()
    address = parse_address(name)
    if address is not None:
        return address.is_loopback
    # RFC 6761, section 6.3: these names and no others are promised to be resolved so.
    name = name.partition(":")[0].rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


# RFC 6052, section 2.1: the IPv4 address that stands in the last 32 bits is where a translator goes to.
_TRANSLATED = IPv6Network("64:ff9b::/96")


def is_public(host: str) -> bool | None:
    """Tell whether an address is one of the internet; None for a name, which is none before it is looked up."""
    address = parse_address(host)
    if address is None:
        return False if is_loopback(host) else None
    if isinstance(address, IPv6Address) and address in _TRANSLATED:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return address.is_global and not address.is_multicast


def overlap(host: str, other: str) -> bool:
    """Tell whether two hosts that are listened on may be one address: the same, one of them all, or both this machine.

    In doubt they may: IPv4 and IPv6 are not told apart.
    """
    if host.strip().lower() == other.strip().lower():
        return True
    addresses = parse_address(host), parse_address(other)
    if any(address is not None and address.is_unspecified for address in addresses):
        return True
    return None in addresses and is_loopback(host) and is_loopback(other)


def normal_origin(text: str) -> str:
    """Give an origin as browsers write it: scheme, host and, if it is not the scheme's own, the port.

    Raises:
        ConfigurationError: it is no origin.
    """
    try:
        parts = urlsplit(text.strip().lower())
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"{text!r} is no origin as in https://app.example") from None
    if not parts.scheme or not parts.hostname or parts.path not in ("", "/") or parts.query or "@" in parts.netloc:
        raise ConfigurationError(f"{text!r} is no origin as in https://app.example: scheme, host, perhaps a port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (
        f":{port}" if port is not None and port != DEFAULT_PORTS.get(parts.scheme) else ""
    )


@dataclass(frozen=True, slots=True)
class Browser:
    """What a browser sends along with a request by itself, whoever has written the page that makes the request.

    Attributes:
        cookies: names and values, of those cookies alone that the authenticator reads.
        origin: the origin of the page (``Origin``); None if the browser names none.
        site: how the page stands to the address that is asked (``Sec-Fetch-Site``); None if the browser does not say.
    """

    cookies: tuple[tuple[str, str], ...] = field(repr=False)
    origin: str | None
    site: str | None


@dataclass(frozen=True, slots=True)
class Peer:
    """The client of one request.

    Attributes:
        address: as text; empty for a socket without one (a Unix socket).
        key: what is counted as one address: an IPv4 address, an IPv6 network of 64 bits.
        counted: False for an address that many may share.
        local: the client is on this machine and has come without a proxy that is known.
        secure: it has come by https, as far as is known.
        host: the host and port that it has asked for, in lower case.
        browser: its cookies, where an authenticator reads any of them and they are there.
        scope: its connection as the ASGI server has told it, where an authenticator reads that.
    """

    address: str
    key: str
    counted: bool
    local: bool
    secure: bool
    host: str
    browser: Browser | None = None
    scope: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
