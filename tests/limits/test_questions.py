"""Questions about access: how many one socket has under way, and what wrong tokens cost."""

from __future__ import annotations

import asyncio

import pytest

from collab.limits import questions as module
from collab.limits.limits import Bounds, Limits
from collab.limits.questions import (
    AT_A_TIME,
    FIRST_WAIT,
    FORGIVEN,
    FREE,
    FREE_OF_ADDRESS,
    LONGEST_WAIT,
    Questions,
    WrongTokens,
)
from collab.net import Peer

PEER = Peer("203.0.113.7", "203.0.113.7", True, False, True, "collab.example")


def test_wrong_tokens_cost_more_and_more_up_to_a_bound_and_are_forgotten() -> None:
    wrong = WrongTokens(3.0, 0.5, 1.0, 0.0)
    assert [wrong.count(0.0) for _ in range(10)] == [0, 0, 0, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert wrong.owed(1.0) == 4.0 and wrong.owed(5.0) == wrong.owed(100.0) == 0.0
    for _ in range(1_000):
        assert wrong.count(0.0) == LONGEST_WAIT
    # A thousand are forgotten as soon as the few that lead to the longest wait.
    assert wrong.count(20.0) == 0.0
    assert wrong.count(20.0, 0.1) == 0.0


def test_an_address_is_counted_however_many_share_it() -> None:
    limits = Limits(Bounds())
    shared = Peer("127.0.0.1", "127.0.0.1", False, True, True, "collab.example")
    for peer in (PEER, shared):
        waits = [limits.count_wrong(peer, 0.0) for _ in range(200)]
        assert waits[:FREE_OF_ADDRESS] == [0.0] * FREE_OF_ADDRESS
        assert waits[FREE_OF_ADDRESS] == FIRST_WAIT and waits[-1] == LONGEST_WAIT
        assert waits == sorted(waits)
    assert limits.count_wrong(PEER, 60.0) == 0.0
    limits.sweep(1_000.0)
    assert limits._addresses == {}


async def begun(questions: Questions) -> asyncio.Task[None]:
    task = asyncio.create_task(questions.begin())
    await asyncio.sleep(0)
    return task


async def test_a_few_at_a_time_in_their_order() -> None:
    questions = Questions()
    for _ in range(AT_A_TIME):
        assert (await begun(questions)).done()
    waiting = [await begun(questions) for _ in range(4)]
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    questions.end()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, True, False, False]
    # One that is given up in the moment in which its turn comes passes it on.
    questions.end()
    waiting[2].cancel()
    await asyncio.gather(waiting[2], return_exceptions=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting[2].cancelled() and waiting[3].done()
    for _ in range(AT_A_TIME):
        questions.end()
    assert questions._under_way == 0


async def test_what_is_owed_delays_the_next_question_alone() -> None:
    questions = Questions()
    now = asyncio.get_running_loop().time()
    for number in range(FREE + 20):
        questions.count_wrong(f"bad {number}", now + 1_000.0)  # as if the wait were to last
    task = await begun(questions)
    assert not task.done() and questions._under_way == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert questions._under_way == 0
    paid = Questions()
    for number in range(FREE + 20):
        paid.count_wrong(f"bad {number}", now - LONGEST_WAIT)
    assert (await begun(paid)).done()


async def test_one_token_for_many_documents_counts_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORGIVEN", 0.0)
    assert FORGIVEN > 0
    questions = Questions()
    for _ in range(10 * (FREE - 1)):
        questions.count_wrong("has expired", 0.0)
    assert questions._wrong is not None and questions._wrong.owed(0.0) == 0.0
    for number in range(100):
        questions.count_wrong(f"bad {number}", 0.0)
    assert questions._refused is not None and len(questions._refused) == module._REMEMBERED
    assert questions._wrong.owed(0.0) == LONGEST_WAIT
