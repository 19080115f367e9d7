"""Log levels that are changed while the server runs: of one logger, for some time, and given back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from collab.telemetry import get_logger
from collab.telemetry.levels import Change, Levels, check_change


class Timers:
    """Time that the test moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, Callable[[], None], Entry]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, seconds: float, work: Callable[[], None]) -> Entry:
        entry = Entry()
        self._due.append((self.now + seconds, work, entry))
        return entry

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        due, self._due = (
            [each for each in self._due if each[0] <= self.now],
            [each for each in self._due if each[0] > self.now],
        )
        for _, work, entry in due:
            if not entry.cancelled:
                work()


class Entry:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def timers() -> Iterator[Timers]:
    loggers = [get_logger(), get_logger("journal")]
    before = [logger.level for logger in loggers]
    get_logger().setLevel(logging.INFO)
    get_logger("journal").setLevel(logging.NOTSET)
    yield Timers()
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def test_a_level_counts_for_its_time_and_for_its_logger_alone(timers: Timers) -> None:
    levels = Levels(timers)
    levels.change("collab.journal", "debug", 60, timers.call_later)
    assert get_logger("journal").isEnabledFor(logging.DEBUG) and not get_logger("room").isEnabledFor(logging.DEBUG)
    timers.pass_by(20)
    assert levels.changed() == [Change("collab.journal", "debug", 40)]
    timers.pass_by(40)
    assert levels.changed() == []
    assert get_logger("journal").level == logging.NOTSET, "as it was: it goes by the level of all"


def test_the_last_change_counts_and_what_was_at_the_start_comes_back(timers: Timers) -> None:
    levels = Levels(timers)
    levels.change("collab", "debug", 60, timers.call_later)
    levels.change("collab", "error", 600, timers.call_later)
    timers.pass_by(60)
    assert levels.changed() == [Change("collab", "error", 540)], "the end of the first one is no end of the second"
    levels.change("collab", "default", 0, timers.call_later)
    assert get_logger().level == logging.INFO
    timers.pass_by(600)
    assert get_logger().level == logging.INFO and levels.changed() == []


def test_a_signal_turns_debug_on_and_off(timers: Timers) -> None:
    levels = Levels(timers)
    levels.change("collab", "error", 60, timers.call_later)
    levels.toggle(timers.call_later)
    assert get_logger().level == logging.DEBUG
    levels.toggle(timers.call_later)
    assert get_logger().level == logging.INFO
    levels.toggle(timers.call_later)
    timers.pass_by(600)
    assert get_logger().level == logging.INFO


@pytest.mark.parametrize(
    ("logger", "level", "seconds"),
    [
        ("sqlalchemy", "debug", 1),
        ("collaborators", "debug", 1),
        ("collab." + 40 * "x", "debug", 1),
        ("collab.ä", "debug", 1),
        ("collab", "loud", 1),
        ("collab", "debug", 0),
        ("collab", "debug", 86_401),
        ("collab", "debug", float("nan")),
    ],
)
def test_what_cannot_be_changed_is_refused(logger: str, level: str, seconds: float) -> None:
    with pytest.raises(ValueError):
        check_change(logger, level, seconds)
