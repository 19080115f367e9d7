"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How things stand."""

    OK = "ok"
    WARNING = "warning"  # it works, and somebody should look
    FAILED = "failed"  # a server cannot work like this, or loses something
    SKIPPED = "skipped"  # there is nothing to look at, or it could not be looked at


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found.

    Attributes:
        check: what was looked at, such as ``database``.
        state: how it stands.
        text: what was found, in one line, without any secret.
        advice: what to do; empty where nothing is to be done.
    """

    check: str
    state: State
    text: str
    advice: str = ""

    def facts(self) -> dict[str, str]:
        """Give it as JSON has it."""
        return {"check": self.check, "state": self.state.value, "found": self.text, "do": self.advice}


def ok(check: str, text: str) -> Finding:
    """Make a finding of which nothing follows."""
    return Finding(check, State.OK, text)


def warning(check: str, text: str, advice: str) -> Finding:
    """Make a finding that somebody should look at."""
    return Finding(check, State.WARNING, text, advice)


def failed(check: str, text: str, advice: str) -> Finding:
    """Make a finding that has to be mended."""
    return Finding(check, State.FAILED, text, advice)


def skipped(check: str, text: str) -> Finding:
    """Make a finding of what was not looked at."""
    return Finding(check, State.SKIPPED, text)
