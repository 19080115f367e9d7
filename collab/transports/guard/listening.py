"""The sockets that a server listens on: one for each address of each host, all on one port.

Strategy: addresses are looked up and bound here and not by the event loop. That would give each address a port of
its own where a free one is wanted, and would take ``::`` for IPv6 alone, so that half of the world is not served by
what says "all addresses". Each socket has one family, so that the other end is shown as it is.

Several processes may listen on one port (SO_REUSEPORT); the system deals new connections out to them. Any process
of the same user could join them, a second server that was started by mistake too. So the parent of these processes
first takes the port for itself (`reserve`), and only then lets others of its user share it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence

from collab.errors import CannotListen
from collab.telemetry import get_logger

BACKLOG = 4096

_ALL = {"::": ("::", "0.0.0.0")}  # noqa: S104 - the settings have seen to it that this is meant

# What a machine says that has not got a family of addresses, or not this address.
_MISSING = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

# How often a free port is looked for that is free on every address.
_TRIES = 20

_log = get_logger()

_Address = tuple[socket.AddressFamily, str, int]  # family, address, scope of an IPv6 address

_Make = Callable[[_Address, int], socket.socket]


async def listen(hosts: Sequence[str], port: int, *, shared: bool = False) -> list[socket.socket]:
    """Listen on every address of ``hosts``, which are names or addresses; the caller closes the sockets.

    ``::`` is all addresses, of IPv6 and of IPv4. A host with several addresses may lack some of them on this machine,
    but not all. Port 0 takes one that is free on all of them. With ``shared`` other processes may listen there too.

    Raises:
        CannotListen: one of the hosts cannot be listened on; then none is.
    """
    return await _on_each(hosts, port, _shared_socket if shared else _socket)


async def reserve(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Take the addresses that `listen` would listen on, without listening; the caller closes the sockets.

    As long as they are open, other processes of this user can listen there with ``shared``, and nobody else can.

    Raises:
        CannotListen: as `listen`; also where another program listens, or has reserved an address.
    """
    return await _on_each(hosts, port, _reserved_socket)


def can_share() -> bool:
    """Tell whether this system lets several processes listen on one port."""
    return hasattr(socket, "SO_REUSEPORT")


async def _on_each(hosts: Sequence[str], port: int, make: _Make) -> list[socket.socket]:
    groups = [(host, await _addresses(host, port)) for host in hosts]
    for _ in range(_TRIES - 1):
        try:
            return _bind(groups, port, make)
        except CannotListen as error:
            if port or not error.taken:
                raise
    return _bind(groups, port, make)


def announce(addresses: Sequence[str], *metrics: str | None) -> None:
    """Say on standard output where the server is reached; programs that start it wait for this."""
    for address in addresses:
        print(f"collab listening on {address}", flush=True)
    for url in filter(None, metrics):
        print(f"collab metrics on {url}", flush=True)


def shown(address: tuple[str, int]) -> str:
    """Give a socket's name as an address shows it: ``127.0.0.1:1234``, ``[::1]:1234``."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _addresses(host: str, port: int) -> list[_Address]:
    found: dict[_Address, None] = {}
    for name in _ALL.get(host, (host,)):
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise _cannot_listen(host, port, error) from error
        for family, _, _, _, address in infos:
            found[family, str(address[0]), int(address[3]) if len(address) == 4 else 0] = None
    return list(found)


def _bind(groups: Sequence[tuple[str, list[_Address]]], port: int, make: _Make) -> list[socket.socket]:
    bound: dict[_Address, socket.socket] = {}
    chosen = port
    try:
        for host, addresses in groups:
            missing: dict[str, str] = {}
            for address in addresses:
                if address in bound:
                    continue
                try:
                    bound[address] = sock = make(address, chosen)
                except OSError as error:
                    if error.errno not in _MISSING or len(missing) + 1 == len(addresses):
                        raise _cannot_listen(host, port, error) from error
                    missing[address[1]] = error.strerror or str(error)
                else:
                    chosen = sock.getsockname()[1]
            for name, reason in missing.items():
                _log.warning("not listening on %s, one of the addresses of %s: %s", name, host, reason)
    except BaseException:
        for sock in bound.values():
            sock.close()
        raise
    return list(bound.values())


def _socket(address: _Address, port: int) -> socket.socket:
    return _listening(_bound_socket(address, port))


def _shared_socket(address: _Address, port: int) -> socket.socket:
    return _listening(_bound_socket(address, port, shared=True))


def _reserved_socket(address: _Address, port: int) -> socket.socket:
    sock = _bound_socket(address, port)
    # Bound while nobody else was there. From now on it may be shared, and is in the way of whoever does not share.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return sock


def _bound_socket(address: _Address, port: int, *, shared: bool = False) -> socket.socket:
    family, name, scope = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the server before
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((name, port, 0, scope))
        else:
            sock.bind((name, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _listening(sock: socket.socket) -> socket.socket:
    try:
        sock.listen(BACKLOG)  # only here does the system say that another one listens
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    # A name that cannot be looked up has numbers of its own.
    by_number = error.errno and not isinstance(error, socket.gaierror)
    reason = os.strerror(error.errno) if by_number and error.errno else (error.strerror or str(error))
    taken = error.errno == errno.EADDRINUSE
    return CannotListen(f"cannot listen on {host} port {port}: {reason}", host=host, reason=reason, taken=taken)
