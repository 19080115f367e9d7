"""The circuit breaker: what opens it, for whom, and who may try again."""

from __future__ import annotations

from collab.auth import breaker as module
from collab.auth.breaker import RESERVED_TRIES, CircuitBreaker, Try
from tests.auth.makers import Clock

FAILURES, PAUSE = 3, 5.0


class Broken:
    def __init__(self) -> None:
        self.clock = Clock(1000)
        self.breaker = CircuitBreaker(FAILURES, PAUSE, self.clock)

    def permit(self, address: str) -> Try:
        assert not self.breaker.refuses(address)
        tried = self.breaker.permit(address)
        assert tried is not None
        return tried

    def fail(self, *addresses: str) -> list[bool]:
        return [self.breaker.failed(self.permit(address)) for address in addresses]

    def refuses(self, address: str) -> bool:
        return self.breaker.refuses(address) and self.breaker.permit(address) is None


def test_failures_of_one_address_shut_out_that_address_until_another_fails_too() -> None:
    broken = Broken()
    assert broken.fail("a", "a", "a") == [False, False, True]
    assert broken.breaker.only == "a" and broken.refuses("a")
    broken.breaker.abandoned(broken.permit("b"))
    assert broken.refuses("a"), "nothing was learnt"
    assert broken.fail("b") == [True] and broken.breaker.only is None
    assert broken.refuses("a") and broken.refuses("b") and broken.refuses("c")


def test_one_answer_closes_it_for_all() -> None:
    broken = Broken()
    broken.fail("a", "a", "a")
    broken.permit("b")
    broken.breaker.succeeded()
    assert broken.fail("a", "a") == [False, False], "failures count in a row"


def test_whoever_fails_uses_up_no_try_of_those_who_have_not() -> None:
    broken = Broken()
    broken.fail("a", "b", "a")
    assert broken.refuses("new")
    broken.clock.now += PAUSE
    common = broken.permit("a")
    assert broken.refuses("a") and broken.refuses("b")
    reserved = [broken.permit(f"new {number}") for number in range(RESERVED_TRIES)]
    assert all(tried.reserved for tried in reserved) and broken.refuses("late")
    # One that fails was its address' only one, and its place is free at once.
    assert broken.breaker.failed(reserved[0]) is False
    assert broken.refuses("new 0")
    late = broken.permit("late")
    assert late.reserved
    assert broken.breaker.failed(common) is False and broken.refuses("a"), "another pause"
    broken.breaker.abandoned(late)
    reserved[1] = broken.permit("late")
    broken.clock.now += PAUSE
    assert not broken.permit("a").reserved
    broken.breaker.succeeded()
    # What belongs to an opening that is over takes nothing from the next.
    broken.fail("a", "b", "c")
    broken.breaker.abandoned(reserved[1])
    broken.clock.now += PAUSE
    broken.permit("a")
    assert [broken.permit(f"new {number}").reserved for number in range(RESERVED_TRIES)] == [True, True]
    assert broken.refuses("late")


def test_only_so_many_addresses_are_remembered() -> None:
    broken = Broken()
    assert module.MAX_FAILED > 1_000
    broken.breaker._failed.update(str(number) for number in range(module.MAX_FAILED))
    broken.fail("a", "b", "c")
    assert len(broken.breaker._failed) == module.MAX_FAILED
    broken.clock.now += PAUSE
    broken.permit("a")
    assert broken.refuses("new"), "nobody knows whether it is"
