"""Sockets of tenants that are ahead: read when something has come, a few in each turn of the loop."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from collab.transports.sockets.parking import OPENED, Parking
from tests.support.waiting import happens

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    with ExitStack() as stack:
        found = []
        for _ in range(3 * OPENED + 1):
            one, other = socket.socketpair()
            found.append((stack.enter_context(one), stack.enter_context(other)))
        yield found


async def test_a_few_are_called_in_each_turn_and_each_once(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    parking = Parking()
    turn = 0
    called: list[tuple[int, int]] = []
    for number, (here, there) in enumerate(pairs):
        assert parking.park(here.fileno(), lambda number=number: called.append((turn, number)))  # type: ignore[misc]
        there.send(b"x")
    while parking:
        await asyncio.sleep(0)
        turn += 1
        assert turn < 1_000
    assert [number for _, number in called] == list(range(len(pairs)))
    turns = [at for at, _ in called]
    assert max(turns.count(at) for at in turns) == OPENED


async def test_nobody_is_called_on_whose_socket_nothing_comes(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    parking = Parking()
    called: list[str] = []
    (one, _), (other, writes), (gone, end) = pairs[:3]
    for name, sock in (("one", one), ("other", other), ("gone", gone)):
        parking.park(sock.fileno(), lambda name=name: called.append(name))  # type: ignore[misc]
    writes.send(b"x")
    end.close()
    await happens(lambda: len(called) == 2, "what has come, and an end, are told")
    assert sorted(called) == ["gone", "other"] and len(parking) == 1
    parking.park(other.fileno(), lambda: called.append("again"))  # it has not read what came
    await happens(lambda: called[2:] == ["again"], "it is told again")


async def test_who_has_left_is_not_called_and_takes_nobody_elses_place(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    parking = Parking()
    called: list[str] = []
    (here, _), (spare, writes) = pairs[:2]

    def first() -> None:
        called.append("first")

    def second() -> None:
        called.append("second")

    number = here.fileno()
    parking.park(number, first)
    parking.leave(number, first)
    assert not parking
    parking.park(number, first)
    here.close()
    os.dup2(spare.fileno(), number)  # another socket has got the number
    try:
        parking.park(number, second)
        parking.leave(number, first)
        assert len(parking) == 1
        writes.send(b"x")
        await happens(lambda: not parking, "the other one is told")
    finally:
        os.close(number)
    assert called == ["second"]


async def test_a_file_cannot_be_parked() -> None:
    file = os.open(__file__, os.O_RDONLY)
    try:
        assert not Parking().park(file, lambda: None)
    finally:
        os.close(file)
