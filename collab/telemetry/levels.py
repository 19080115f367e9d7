"""Log levels that are changed while the server runs, of one logger and for some time.

Strategy: levels are a matter of the process, so there is one ``Levels`` for all of it (``levels``). It remembers what a
logger had before, and gives it back at the end of the time; a level that is forgotten at DEBUG would fill a disk. Only
loggers of our own can be changed: those of libraries would write statements with the content of documents.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from collab.telemetry.logs import LEVELS, ROOT, get_logger

_log = get_logger()

DEFAULT: Final = "default"
"""In place of a level: as it was at the start."""

MOST_SECONDS: Final = 86_400.0
"""A day: for longer the level is an option of the start."""

SIGNAL_SECONDS: Final = 600.0
"""For so long a signal turns DEBUG on."""

_MOST_LETTERS = 40


class Timer(Protocol):
    """What ``asyncio`` gives for something that is to come."""

    def cancel(self) -> None:
        """Let it not come."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Calls something after some seconds: ``loop.call_later``."""


class Change(NamedTuple):
    """A level that is not as at the start: of which logger, what it is, and the seconds that are left."""

    logger: str
    level: str
    seconds: float


def check_change(logger: str, level: str, seconds: float) -> None:
    """Refuse a change that cannot be made; raises ``ValueError`` with a text for the one who has asked for it."""
    if logger != ROOT and not logger.startswith(f"{ROOT}."):
        raise ValueError(f"a logger is {ROOT}, for all of them, or {ROOT}.journal and the like")
    if not logger.isascii() or not logger.isprintable() or len(logger) > _MOST_LETTERS:
        raise ValueError(f"a logger has at most {_MOST_LETTERS} letters")
    if level not in (*LEVELS, DEFAULT):
        raise ValueError(f"a level is one of {', '.join((*LEVELS, DEFAULT))}")
    if level != DEFAULT and not 0 < seconds <= MOST_SECONDS:
        raise ValueError(f"seconds are a number above 0, up to {MOST_SECONDS:.0f}")


class Levels:
    """The levels of this process that are not as at the start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed: dict[str, tuple[int, str, float, Timer]] = {}  # level before, level, until when, its end

    def change(self, logger: str, level: str, seconds: float, call_later: CallLater) -> None:
        """Let ``logger`` write from ``level`` up for so many seconds, or as at the start again where it is ``DEFAULT``.

        The last change of a logger counts.

        Raises:
            ValueError: as ``check_change``.
        """
        check_change(logger, level, seconds)
        self._restore(logger)
        if level == DEFAULT:
            _log.info("the log level of %s is as at the start", logger)
            return
        changed = logging.getLogger(logger)
        before, until = changed.level, self._clock() + seconds
        self._changed[logger] = (before, level, until, call_later(seconds, lambda: self._end(logger)))
        changed.setLevel(level.upper())
        _log.info("the log level of %s is %s for %.0f s", logger, level, seconds)

    def toggle(self, call_later: CallLater) -> None:
        """Turn DEBUG on for all loggers of ours, or off again: what a signal does."""
        on = self._changed.get(ROOT)
        self.change(ROOT, DEFAULT if on is not None and on[1] == "debug" else "debug", SIGNAL_SECONDS, call_later)

    def changed(self) -> list[Change]:
        """Tell what is not as at the start."""
        now = self._clock()
        return [Change(name, level, max(0.0, until - now)) for name, (_, level, until, _) in self._changed.items()]

    def _end(self, logger: str) -> None:
        self._restore(logger)
        _log.info("the log level of %s is as at the start: its time is over", logger)

    def _restore(self, logger: str) -> None:
        if (changed := self._changed.pop(logger, None)) is not None:
            before, _, _, timer = changed
            timer.cancel()
            logging.getLogger(logger).setLevel(before)


levels: Final = Levels()
"""Those of this process."""
