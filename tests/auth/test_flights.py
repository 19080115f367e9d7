"""One piece of work for all who want the same: who gets what it raises, and what stays of it in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from collab.auth.flights import Flights
from collab.errors import AccessUnavailable, InternalError
from tests.support.waiting import happens


class Work:
    """Work that ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go_on = asyncio.Event()
        self.runs = 0
        self._error = error

    async def __call__(self) -> int:
        self.runs += 1
        await self.go_on.wait()
        if self._error is not None:
            raise self._error
        return 7


def errors(caplog: pytest.LogCaptureFixture) -> list[BaseException | None]:
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert all(line.name == "collab.auth" for line in lines)
    return [line.exc_info[1] if line.exc_info else None for line in lines]


async def landed(flights: Flights[str, int]) -> None:
    await happens(lambda: "k" not in flights, "the end of the work")


async def test_all_who_ask_for_the_same_wait_for_one_piece_of_work() -> None:
    flights: Flights[str, int] = Flights(1)
    work = Work()
    waiting = [asyncio.create_task(flights.join("k", work)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(AccessUnavailable, match="1 questions wait"):
        await flights.join("other", work)
    work.go_on.set()
    assert await asyncio.gather(*waiting) == [7, 7, 7]
    assert work.runs == 1 and "k" not in flights
    assert await flights.join("k", work) == 7 and work.runs == 2


@pytest.mark.parametrize("error", [RuntimeError("the defect"), InternalError("the defect")])
async def test_a_defect_that_nobody_waits_for_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    flights: Flights[str, int] = Flights(1)
    work = Work(error)
    flights.launch("k", work)
    work.go_on.set()
    await landed(flights)
    assert errors(caplog) == [error] and error.__traceback__ is not None


async def test_a_defect_whose_waiters_have_gone_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    flights: Flights[str, int] = Flights(1)
    error = RuntimeError("the defect")
    work = Work(error)
    waiting = [asyncio.create_task(flights.join("k", work)) for _ in range(2)]
    await asyncio.sleep(0)
    for waiter in waiting:
        waiter.cancel()
    await asyncio.wait(waiting)
    work.go_on.set()
    await landed(flights)
    assert errors(caplog) == [error]


async def test_a_defect_that_somebody_waits_for_is_theirs_to_log(caplog: pytest.LogCaptureFixture) -> None:
    flights: Flights[str, int] = Flights(1)
    work = Work(RuntimeError("the defect"))
    gone, stays = (asyncio.create_task(flights.join("k", work)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    work.go_on.set()
    with pytest.raises(RuntimeError, match="the defect"):
        await stays
    assert errors(caplog) == []


async def test_a_refusal_that_nobody_waits_for_is_said_by_the_work_itself(caplog: pytest.LogCaptureFixture) -> None:
    flights: Flights[str, int] = Flights(1)
    work = Work(AccessUnavailable("away"))
    flights.launch("k", work)
    work.go_on.set()
    await landed(flights)
    assert errors(caplog) == []


async def test_closing_ends_what_is_under_way_and_says_so_to_those_who_wait(caplog: pytest.LogCaptureFixture) -> None:
    flights: Flights[str, int] = Flights(1)
    waiter = asyncio.create_task(flights.join("k", Work()))
    await asyncio.sleep(0)
    await flights.close()
    with pytest.raises(AccessUnavailable, match="closing"):
        await waiter
    with pytest.raises(AccessUnavailable, match="closing"):
        flights.launch("k", Work())
    assert errors(caplog) == []


async def test_what_has_failed_does_not_wait_for_the_collector() -> None:
    flights: Flights[str, None] = Flights(limit=1)
    stays: list[weakref.ref[Exception]] = []

    async def work() -> None:
        await asyncio.sleep(0)
        raise AccessUnavailable("nobody answers")

    async def ask() -> None:
        try:
            await flights.join("one question", work)
        except AccessUnavailable as error:
            stays.append(weakref.ref(error))

    gc.disable()
    try:
        await asyncio.gather(ask(), ask())
        await asyncio.sleep(0)
        assert [one() for one in stays] == [None, None]
    finally:
        gc.enable()
