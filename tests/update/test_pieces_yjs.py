"""Pieces that stay pending, in the two generations of Yjs; and that each rule of the cut is needed.

Strategy: random logs of real clients are cut, and a real Yjs document is given the pieces. Before the last one nothing
may be shown: no event, no transaction with changes, no observer called, state vector and JSON as before. With it the
document must equal one that got everything in one message, to the byte, with as many events. A cut without one of the
rules, or by a state vector that is stale, must be found out by the very same checks.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from collab.engine.document import at_once
from collab.update import StateVector, decode_state_vector, merge_updates, read_update
from collab.update import pieces as module
from collab.update.merge import diff_update
from collab.update.pieces import cut_update
from collab.update.structs import Struct
from tests.support.build import reader_of, session
from tests.support.needs import size
from tests.support.node import NodeScript

pytestmark = pytest.mark.node

RUNS = size(240, small=60)

QUIET = {"events": 0, "changes": 0, "observed": 0, "same": True}


@pytest.fixture(scope="module", params=["yjs13", "yjs14"])
def yjs(request: pytest.FixtureRequest) -> Iterator[Any]:
    with NodeScript("pieces.mjs", request.param) as script:
        script.generation = request.param
        yield script


def encoded(update: bytes) -> str:
    return base64.b64encode(update).decode()


class Run:
    """One random document, what a client has of it, and the pieces of what it lacks."""

    def __init__(self, seed: int) -> None:
        choose = random.Random(seed)
        self.log = session(seed, clients=choose.randint(1, 5), edits=choose.randint(20, 120))
        self.has = self.log[: choose.choice((0, 0, len(self.log) // 3, len(self.log) * 3 // 4))]
        self.known = decode_state_vector(reader_of(*self.has).doc.get_state())
        self.lacks = diff_update(merge_updates(self.log), self.known)
        self.size = choose.choice((1, 100, 1_000))

    def pieces(self) -> list[bytes]:
        made = at_once(cut_update(self.lacks, self.known))
        found, at = [], 0
        while at < len(made.early):
            piece, at = made.piece(at, self.size)
            found.append(piece)
        return [*found, made.last]

    def shown(self, yjs: Any, pieces: list[bytes]) -> dict[str, Any]:
        """What Yjs shows when it is given these pieces."""
        answer: dict[str, Any] = yjs.call(
            {"has": [*map(encoded, self.has)], "pieces": [*map(encoded, pieces)], "whole": encoded(self.lacks)}
        )
        return answer


def is_quiet(shown: dict[str, Any]) -> bool:
    before = {key: value for key, value in shown["before"].items() if key != "pending"}
    return before == QUIET


def test_nothing_is_shown_before_the_last_piece_and_then_all_as_by_one_message(yjs: Any) -> None:
    pending = 0
    for seed in range(RUNS):
        run = Run(seed)
        shown = run.shown(yjs, run.pieces())
        assert is_quiet(shown), seed
        pending += shown["before"]["pending"]
        told = shown["after"].pop("told")
        assert shown["after"] == {"events": True, "bytes": True, "state": True, "pending": False}, seed
        assert told < 5_000
    assert pending > RUNS // 2, "pieces were sent early"


def unruled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], list[bytes]]:
    monkeypatch.setattr(module, "_FIRSTS", 0)
    monkeypatch.setattr(module, "_is_early", lambda *_: True)
    return Run.pieces


def deletes_first(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], list[bytes]]:
    def pieces(run: Run) -> list[bytes]:
        return [b"\0" + run.lacks[read_update(run.lacks).deletes_start :], *run.pieces()]

    return pieces


def firsts_alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], list[bytes]]:
    monkeypatch.setattr(module, "_is_early", lambda *_: True)
    return Run.pieces


def parents_forgotten(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], list[bytes]]:
    def is_early(data: bytes, struct: Struct, known: StateVector) -> bool:
        if struct.origin is None and struct.right is None:
            return True
        return any(one is not None and one[1] >= known.get(one[0], 0) for one in (struct.origin, struct.right))

    monkeypatch.setattr(module, "_FIRSTS", 0)
    monkeypatch.setattr(module, "_is_early", is_early)
    return Run.pieces


def stale_vector(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], list[bytes]]:
    def pieces(run: Run) -> list[bytes]:
        run.lacks, run.known = merge_updates(run.log), {}  # it has more than it has told
        return run.pieces()

    return pieces


def live_updates_passed_through(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], list[bytes]]:
    def pieces(run: Run) -> list[bytes]:
        # Somebody deletes what the client has and inserts in its place: the insert waits, the delete does not.
        whole = reader_of(*run.log)
        live: list[bytes] = []
        whole.doc.observe(lambda event: live.append(event.update))
        with whole.doc.transaction():
            if str(whole.text):
                del whole.text[0:1]
            whole.text.insert(0, "new")
        return [run.pieces()[0], *live, *run.pieces()[1:]] if len(run.pieces()) > 1 else run.pieces()

    return pieces


@pytest.mark.parametrize(
    ("mutate", "generations"),
    [
        (unruled, "yjs13 yjs14"),
        (deletes_first, "yjs13 yjs14"),
        (firsts_alone, "yjs14"),
        (parents_forgotten, "yjs13 yjs14"),
        (stale_vector, "yjs13 yjs14"),
        (live_updates_passed_through, "yjs13 yjs14"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_rule_is_needed(
    yjs: Any, monkeypatch: pytest.MonkeyPatch, mutate: Callable[..., Callable[[Run], list[bytes]]], generations: str
) -> None:
    if yjs.generation not in generations:
        return
    pieces = mutate(monkeypatch)
    found = 0
    for seed in range(RUNS):
        run = Run(seed)
        found += not is_quiet(run.shown(yjs, pieces(run)))
        if found > 2:
            return
    assert found > 2
