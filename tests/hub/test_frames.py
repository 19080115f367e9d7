"""Answers that are kept: shared by those who ask the same, and bounded whatever is asked."""

from __future__ import annotations

import pytest

from collab.engine.budget import Budget
from collab.errors import StoreUnavailable
from collab.hub import frames as frames_module
from collab.hub.frames import Asked, Frames
from collab.protocol.sync import SyncStep1, SyncUpdate
from tests.hub.conftest import Recorder, StartNode
from tests.support.author import Author

ENCODER = Recorder()


def asked(number: int) -> Asked:
    return Asked(ENCODER, b"%d" % number, True)


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_module, "ROOM_BYTES", 100)


def test_a_frame_is_kept_for_one_state_of_the_document() -> None:
    budget = Budget(150)
    frames = Frames(budget)
    assert frames.get(asked(1), 7) is None
    frames.keep(asked(1), b"x" * 10)
    assert frames.get(asked(1), 7) == b"x" * 10 and budget.nbytes == 11, "with what was asked"
    assert frames.get(asked(1), 8) is None and budget.nbytes == 0


def test_what_a_room_keeps_is_bounded_and_the_oldest_goes_first() -> None:
    budget = Budget(150)
    frames = Frames(budget)
    for number in range(50):
        frames.get(asked(number), 1)
        frames.keep(asked(number), b"x" * 30)
        assert budget.nbytes <= 100
    assert [frames.get(asked(number), 1) is not None for number in (46, 47, 48, 49)] == [False, True, True, True]
    frames.keep(asked(50), b"x" * 1_000)
    assert frames.get(asked(49), 1) is None
    assert frames.get(asked(50), 1) is not None, "one that is larger than the bound is kept alone, for a storm of joins"


def test_what_all_rooms_keep_is_bounded() -> None:
    budget = Budget(150)
    rooms = [Frames(budget) for _ in range(5)]
    for number in range(20):
        for frames in rooms:
            frames.get(asked(number), 1)
            frames.keep(asked(number), b"x" * 10)
    # A room that asks gives way itself: nobody takes from the others.
    assert budget.nbytes <= 150 + len(rooms) * 12
    for frames in rooms:
        frames.clear()
    assert budget.nbytes == 0


async def test_a_reader_who_asks_for_something_else_each_time_does_not_fill_memory(start_node: StartNode) -> None:
    node = await start_node()
    live, member, _ = await node.join("d")
    live.receive(member, SyncUpdate(Author(1).type("x" * 100)))
    await node.write(live)
    for clock in range(200):
        live.receive(member, SyncStep1(bytes([1, 1, clock % 100])))
        assert node.hub.frames_budget.nbytes <= 100 + 150
    node.hub.evict(live, StoreUnavailable("over"))
    assert node.hub.frames_budget.nbytes == 0
