"""Portions: fair, bounded in each turn, and never one frame inside another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.transports.sockets import pacing
from collab.transports.sockets.pacing import PORTION, Pacer
from tests.support.waiting import happens
from tests.support.wsclient import RawClient, step1, text_update, update
from tests.transports.conftest import Serve

Connect = Callable[[str], Awaitable[RawClient]]


class Socket:
    """A socket with so many portions to send; it takes one only while it has room."""

    def __init__(self, portions: int, turns: list[Socket]) -> None:
        self.left = portions
        self.room = True
        self.cut = False
        self._turns = turns

    @property
    def has_portions(self) -> bool:
        return self.left > 0

    def abort(self) -> None:
        self.cut = True

    def send_portion(self) -> bool:
        if not self.room:
            return False
        self.left -= 1
        self._turns.append(self)
        return True


async def turn() -> None:
    await asyncio.sleep(0)


async def test_a_turn_sends_a_bounded_number_of_portions_and_everybody_gets_one_before_anybody_two() -> None:
    turns: list[Socket] = []
    sockets = [Socket(2, turns) for _ in range(20)]
    pacer = Pacer()
    for socket in sockets:
        pacer.add(socket)
    sent = []
    while any(socket.has_portions for socket in sockets):
        before = len(turns)
        await turn()
        sent.append(len(turns) - before)
    assert max(sent) == pacing._PORTIONS_A_TURN
    assert turns[:20] == sockets and turns[20:] == sockets
    pacer.close()


async def test_a_socket_without_room_holds_up_nobody_and_is_served_when_it_has_room() -> None:
    turns: list[Socket] = []
    full, free = Socket(1, turns), Socket(3, turns)
    full.room = False
    pacer = Pacer()
    pacer.add(full)
    pacer.add(free)
    async with asyncio.timeout(20):
        while free.has_portions:
            await turn()
        assert turns == [free] * 3
        full.room = True
        await happens(lambda: not full.has_portions, "its portion is sent")
    pacer.close()


async def test_what_is_written_during_a_large_frame_comes_behind_it_whole(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(max_document_bytes=1 << 27, keepalive_seconds=0.05, ping_seconds=0.05)
    author = await connect(served.ws("d"))
    text = "x" * (PORTION * 40)
    await author.send(update(text_update(1, text)))
    await author.expect_sync(2)
    leaves, send_piece = asyncio.Event(), LiveRoom.send_piece

    def watched(live: LiveRoom, member: Member, frame: bytes, *, last: bool) -> None:
        send_piece(live, member, frame, last=last)
        leaves.set()

    monkeypatch.setattr(LiveRoom, "send_piece", watched)
    reader = await connect(served.ws("d"))
    await reader.send(step1())
    answer = asyncio.create_task(reader.expect_sync(1))  # it answers the pings, too
    # Keepalives, pings and the edits of others fall into the time in which the portions leave.
    await leaves.wait()
    for client in range(2, 30):
        await author.send(update(text_update(client, "y", root=f"r{client}")))
    assert text.encode() in await answer
    rest = await reader.expect_sync(2)
    assert text.encode() not in rest, "one catch-up, of what has come since"
    assert reader.close_code is None


async def test_a_socket_that_fails_is_cut_and_the_others_have_their_turns(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[Socket] = []
    broken, fine = Socket(3, turns), Socket(3, turns)

    def fails() -> bool:
        raise RuntimeError("a defect")

    broken.send_portion = fails  # type: ignore[method-assign]
    pacer = Pacer()
    pacer.add(broken)
    pacer.add(fine)
    await happens(lambda: not fine.has_portions, "all portions of the other")
    assert broken.cut and not fine.cut
    assert any(record.exc_info for record in caplog.records)
    pacer.close()
