"""Who asks the same again and again is told more and more slowly."""

from __future__ import annotations

from collab.limits import refusals
from collab.limits.refusals import Refusals


def test_pauses_grow_for_a_question_and_are_forgotten() -> None:
    pauses = Refusals()
    assert [pauses.count("a", "/ws/d", 100.0) for _ in range(8)] == [0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert pauses.count("b", "/ws/d", 100.0) == 0.0, "another address is no worse for it"
    assert pauses.count("a", "/ws/d?token=t", 100.0) == 0.0, "nor another question"
    assert pauses.count("a", "/ws/d", 159.0) == 5.0
    assert pauses.count("a", "/ws/d", 159.0 + refusals._FORGET + 1) == 0.0


def test_questions_are_bounded() -> None:
    pauses = Refusals()
    for number in range(refusals._QUESTIONS + 5):
        pauses.count("a", str(number), 0.0)
    assert len(pauses._of) == refusals._QUESTIONS
    assert pauses.count("a", "0", 0.0) == 0.0
