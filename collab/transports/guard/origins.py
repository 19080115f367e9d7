"""Which web pages may talk to the server: the origins that browsers name.

Strategy: a browser sends every page's requests with whatever gives its user access (the network it is
in, the machine it runs on), so what a page may do must not depend on where the browser stands. A request
without an Origin is not made by a page, or is one that the page cannot read the answer of; it is let
pass. What names an origin must be the same as the server's own address, or be listed.

A server without authentication is protected by nothing but its address, which a foreign page can reach
as well, and under a name of its own (DNS rebinding): so there the "same origin" counts only if the name
is one of this machine's, and a request for another host is refused even without an Origin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from collab.errors import ConfigurationError
from collab.net import ANY, DEFAULT_PORTS, Peer, is_loopback, normal_origin


class Origins:
    """Decide on origins.

    Args:
        allowed: origins as browsers write them (``https://app.example``), or ``*`` for all.
        loopback: there is no authentication and the server is for this machine alone.
        trusts: an authenticator that reads cookies says of further origins whether it trusts their pages.
    """

    def __init__(
        self, allowed: Iterable[str] = (), *, loopback: bool = False, trusts: Callable[[str, Peer], bool] | None = None
    ) -> None:
        self._allowed = frozenset(allowed)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._allowed if origin != ANY)
        self._loopback = loopback
        self._trusts = trusts

    def allows(self, origin: str, peer: Peer) -> bool:
        """Tell whether a page of ``origin`` may talk to the server under the name by which it has asked for it."""
        if ANY in self._allowed:
            return True
        try:
            origin = normal_origin(origin)
        except ConfigurationError:
            return False  # "null" of a sandboxed frame, or no origin at all
        scheme, _, host = origin.partition("://")
        if origin in self._allowed or (self._loopback and is_loopback(host)):
            return True
        if self._trusts is not None and self._trusts(origin, peer):
            return True
        if self._loopback and not is_loopback(peer.host):
            return False
        # Who has come by https is a page of https. The other way round, TLS may end at a proxy of which
        # nobody has told the server.
        return _same_host(host, peer.host, scheme) and (scheme == "https" or not peer.secure)

    def allows_host(self, peer: Peer) -> bool:
        """Tell whether the server may be asked for under this name; see the module on DNS rebinding."""
        return (
            not self._loopback
            or not peer.host
            or is_loopback(peer.host)
            or peer.host in self._hosts
            or ANY in self._allowed
        )


def _same_host(host: str, asked: str, scheme: str) -> bool:
    default = f":{DEFAULT_PORTS.get(scheme)}"
    return host.removesuffix(default) == asked.removesuffix(default)
