"""Which sockets are listened on for the hosts that a server is given."""

from __future__ import annotations

import errno
import logging
import socket

import pytest

from collab.errors import CannotListen
from collab.transports.guard import listening
from collab.transports.guard.listening import announce, can_share, listen, reserve, shown


def close(sockets: list[socket.socket]) -> set[tuple[str, int]]:
    """Close them, and give where they listened."""
    names = {sock.getsockname()[:2] for sock in sockets}
    for sock in sockets:
        sock.close()
    return names


def without(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let the address ``name`` fail as it does on a machine that lacks it."""
    make = listening._socket

    def lacking(address: listening._Address, port: int) -> socket.socket:
        if address[1] == name:
            raise OSError(number, "missing")
        return make(address, port)

    monkeypatch.setattr(listening, "_socket", lacking)


async def test_all_addresses_are_those_of_both_families_on_one_port() -> None:
    sockets = await listen(("::",), 0)
    try:
        port = sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), 5).close()
    finally:
        assert close(sockets) == {("::", port), ("0.0.0.0", port)}


async def test_each_host_has_its_socket_and_all_have_one_port() -> None:
    sockets = await listen(("127.0.0.2", "127.0.0.1", "::1", "127.0.0.2"), 0)
    assert [sock.getsockname()[0] for sock in sockets] == ["127.0.0.2", "127.0.0.1", "::1"]
    assert len({port for _, port in close(sockets)}) == 1
    names = close(await listen(("::", "0.0.0.0", "::"), 0))
    assert {name for name, _ in names} == {"::", "0.0.0.0"}


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize(("missing", "left"), [("::", "0.0.0.0"), ("0.0.0.0", "::")])
async def test_a_family_that_the_machine_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str, left: str, number: int
) -> None:
    caplog.set_level(logging.WARNING, "collab")
    without(monkeypatch, missing, number)
    assert {name for name, _ in close(await listen(("::",), 0))} == {left}
    assert caplog.messages == [f"not listening on {missing}, one of the addresses of ::: missing"]
    with pytest.raises(CannotListen, match="cannot listen on 127.0.0.1 port 0: "):
        without(monkeypatch, "127.0.0.1", number)  # said by itself it has to be there
        await listen(("::1", "127.0.0.1"), 0)


async def test_a_host_that_is_not_this_machines_is_an_error() -> None:
    for host, reason in (("192.0.2.1", "assign requested address"), ("nothing.invalid", "")):
        with pytest.raises(CannotListen, match=f"cannot listen on {host} port 0: .*{reason}"):
            await listen(("127.0.0.1", host), 0)


async def test_a_port_that_is_taken_on_one_address_is_an_error_and_a_free_one_is_looked_for() -> None:
    [taken] = await listen(("127.0.0.2",), 0)
    port = taken.getsockname()[1]
    try:
        with pytest.raises(CannotListen, match="Address already in use") as failure:
            await listen(("127.0.0.1", "127.0.0.2"), port)
        assert failure.value.taken
        # The first address was given back.
        close(await listen(("127.0.0.1",), port))
    finally:
        taken.close()


async def test_a_free_port_is_free_on_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    make, tried = listening._socket, []

    def taken_at_first(address: listening._Address, port: int) -> socket.socket:
        if port:
            tried.append(port)
            if len(tried) < 3:
                raise OSError(errno.EADDRINUSE, "taken")
        return make(address, port)

    monkeypatch.setattr(listening, "_socket", taken_at_first)
    ports = {port for _, port in close(await listen(("127.0.0.1", "127.0.0.2"), 0))}
    assert ports == {tried[2]}
    tried.clear()
    monkeypatch.setattr(listening, "_TRIES", 2)
    with pytest.raises(CannotListen, match="taken|in use"):
        await listen(("127.0.0.1", "127.0.0.2"), 0)
    assert len(tried) == 2


def test_an_address_is_shown_as_clients_write_it() -> None:
    assert shown(("::1", 1234)) == "[::1]:1234" and shown(("127.0.0.1", 80)) == "127.0.0.1:80"


async def test_a_reserved_port_is_shared_by_those_who_say_so_and_by_nobody_else() -> None:
    assert can_share()
    hosts = ("127.0.0.1", "::1")
    reserved = await reserve(hosts, 0)
    port = reserved[0].getsockname()[1]
    shared = []
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)  # it does not listen
        for _ in range(2):
            shared += await listen(hosts, port, shared=True)
            for alone in (listen, reserve):
                with pytest.raises(CannotListen, match="Address already in use"):
                    await alone(hosts, port)
        for host in hosts:
            socket.create_connection((host, port), 5).close()
    finally:
        assert len(close(shared)) == 2 and len(close(reserved)) == 2
    # Where somebody listens already nothing is reserved, shared or not.
    for share in (True, False):
        taken = await listen(hosts, 0, shared=share)
        with pytest.raises(CannotListen, match="Address already in use"):
            await reserve(hosts, taken[0].getsockname()[1])
        close(taken)


def test_addresses_are_announced_before_those_of_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    announce(["http://127.0.0.1:1", "http://[::1]:1"], None, "http://127.0.0.1:2/metrics")
    assert capsys.readouterr().out.splitlines() == [
        "collab listening on http://127.0.0.1:1",
        "collab listening on http://[::1]:1",
        "collab metrics on http://127.0.0.1:2/metrics",
    ]
