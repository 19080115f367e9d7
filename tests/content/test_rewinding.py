"""Restoring and undoing against real yjs: what every client shows afterwards."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from collab.content.rewinding import restore, undo
from collab.errors import ContentError
from collab.history.emptying import encode_snapshot
from collab.history.rows import Rows
from collab.history.tasks import Restore, Undo
from collab.history.tracing import trace
from collab.update.compact import compact
from collab.update.merge import merge_updates
from tests.history.sessions import Played, play
from tests.support.needs import size
from tests.support.node import NodeScript

pytestmark = pytest.mark.node

SESSIONS = size(120, small=30)
SERVER = 4_000_000_001


def contents(script: Any, documents: list[list[bytes]]) -> list[str]:
    """Show documents, each of these updates, as yjs shows them."""
    shown = script.call([["reader", [each.hex() for each in updates], True, True, False] for updates in documents])
    return [one["content"] for one in shown]


def test_a_restored_document_is_what_it_was_and_can_be_restored_again() -> None:
    met: Counter[str] = Counter()
    with NodeScript("yjs_fuzz.mjs") as script:
        for first in range(1, SESSIONS, 20):
            games = play(script, list(range(first, first + 20)), ordinary=True)
            documents: list[list[bytes]] = []
            done: list[Played] = []
            for game in games:
                number = random.Random(game.seed).randrange(len(game.rows))
                live = game.state(len(game.rows), collected=True)
                then = game.state(number, collected=True)
                rows = tuple(game.rows[number:])
                try:
                    update = restore(Restore(live, then, Rows(rows), SERVER)) or b"\0\0"
                except ContentError:
                    met["refused"] += 1
                    continue
                # What was there before comes back too, from the log with the restore in it.
                again = rows[-1]._replace(seq=rows[-1].seq + 1, data=update)
                restored = compact(merge_updates([live, update])).data
                try:
                    back = restore(Restore(restored, live, Rows([again]), SERVER + 1)) or b"\0\0"
                except ContentError:
                    met["refused"] += 1
                    continue
                done.append(game)
                documents += [[then], [live, update], [live], [live, update, back]]
            shown = contents(script, documents)
            for at, game in enumerate(done):
                then_, restored_, live_, back_ = shown[4 * at : 4 * at + 4]
                assert restored_ == then_, f"seed {game.seed}"
                assert back_ == live_, f"seed {game.seed}"
                met["different"] += then_ != live_
    assert met["different"] > SESSIONS // 2
    # Both ways lead through what the library writes for others, which it sometimes does wrongly: then it is refused.
    assert met["refused"] <= SESSIONS // 50, met


def test_what_one_person_did_is_undone_as_yjs_undoes_it() -> None:
    met: Counter[str] = Counter()
    with NodeScript("yjs_fuzz.mjs") as script:
        for first in range(5_001, 5_001 + SESSIONS // 2, 20):
            games = play(script, list(range(first, first + 20)), ordinary=True)
            commands: list[list[Any]] = []
            for game in games:
                choose = random.Random(game.seed)
                number = choose.randrange(len(game.rows))
                until = choose.randint(number + 1, len(game.rows))
                author = choose.choice(sorted({str(row.author) for row in game.rows}))
                live, then = game.state(len(game.rows), collected=True), game.state(number, collected=True)
                rows = tuple(game.rows[number:])
                try:
                    update = undo(Undo(live, then, Rows(rows), game.owners, author, None, until, SERVER)) or b"\0\0"
                except ContentError:
                    met["refused"] += 1
                    continue
                found = trace(then, rows[: until - number], game.owners)
                marks = {number for number, mark in enumerate(found.marks) if mark.who.author == author}
                theirs = [
                    encode_snapshot({}, ranges.choose(marks.__contains__)).hex()
                    for ranges in (found.insertions, found.deletions)
                ]
                commands += [
                    ["reader", [live.hex(), update.hex()], True, True, False],
                    ["undone", [row.data.hex() for row in game.rows], *theirs],
                    ["reader", [live.hex()], True, True, False],
                ]
            shown = iter(script.call(commands))
            for ours, yjs, live_ in zip(shown, shown, shown, strict=True):
                met["equal" if ours["content"] == yjs else "other"] += 1
                met["changed"] += ours["content"] != live_["content"]
    print(met)
    assert met["equal"] > 0.9 * (met["equal"] + met["other"]), met
    assert met["refused"] <= SESSIONS // 50 and met["changed"] > SESSIONS // 4, met
