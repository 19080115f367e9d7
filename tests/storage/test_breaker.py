"""The circuit breaker for connections: who may try, and when."""

from __future__ import annotations

from random import Random

from collab.storage.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(clock, Random(1)), clock


def test_nobody_is_refused_while_there_is_a_server() -> None:
    breaker, _ = make()
    for _ in range(3):
        assert breaker.refuses() is None
        breaker.succeeded()


def test_one_failure_refuses_all_until_one_attempt_has_succeeded() -> None:
    breaker, clock = make()
    breaker.failed("gone")
    assert breaker.refuses() == "gone"
    clock.now += FIRST_PAUSE
    assert breaker.refuses() is None, "one is let through"
    assert breaker.refuses() == "gone", "and one alone"
    breaker.succeeded()
    assert breaker.refuses() is None and breaker.refuses() is None


def test_pauses_grow_to_the_longest_and_begin_anew_after_a_success() -> None:
    breaker, clock = make()
    begun, waited = clock.now, []
    for _ in range(10):
        breaker.failed("gone")
        begun = clock.now
        while breaker.refuses() is not None:
            clock.now += 0.001
        waited.append(clock.now - begun)
    assert FIRST_PAUSE / 2 <= waited[0] <= FIRST_PAUSE + 0.01
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE + 0.01 for pause in waited[5:])
    assert len(set(waited[5:])) > 1, "nodes that lost one server do not come back in step"
    breaker.succeeded()
    breaker.failed("gone again")
    assert breaker.refuses() == "gone again"
    clock.now += FIRST_PAUSE
    assert breaker.refuses() is None


def test_attempts_that_began_before_it_was_opened_do_not_make_the_pause_longer() -> None:
    breaker, clock = make()
    for _ in range(5):
        breaker.failed("gone")
    clock.now += FIRST_PAUSE
    assert breaker.refuses() is None


def test_an_attempt_that_is_given_up_leaves_its_place_to_the_next() -> None:
    breaker, clock = make()
    breaker.failed("gone")
    clock.now += FIRST_PAUSE
    assert breaker.refuses() is None
    breaker.abandoned()
    assert breaker.refuses() is None
