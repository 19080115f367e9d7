"""Network addresses and names of hosts, as text comes with them.

Strategy: pure functions of the standard library, for the settings need them too.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from collab.errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# One subscriber of the IPv6 internet has at least so many bits of an address to choose from.
_IPV6_SUBSCRIBER_BITS = 64


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


def parse_network(text: str) -> Network:
    """Read a network as in ``10.0.0.0/8``, or one address.

    Raises:
        ConfigurationError: it is neither, or holds bits of a host.
    """
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no network as in 10.0.0.0/8: {error}") from None


def is_loopback_name(host: str) -> bool:
    """Tell whether ``host``, a name or an address with or without a port, always means this machine."""
    name = host.strip().lower()
    address = parse_address(name)
    if address is not None:
        return address.is_loopback
    # RFC 6761, section 6.3: these names and no others are promised to be resolved so.
    name = name.partition(":")[0].rstrip(".")
    return name == "localhost" or name.endswith(".localhost")
