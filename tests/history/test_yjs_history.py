"""The history against real yjs: who typed and who deleted what, and what changed between any two rows."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from typing import Any

import pytest

from collab.history.attribution import Attribution
from collab.history.encoding import decode_attribution, encode_attribution
from collab.history.rows import Rows
from collab.history.tasks import Changes, changes
from collab.history.tracing import Tracer, trace
from tests.history.sessions import Played, play
from tests.support.needs import size
from tests.support.node import NodeScript

pytestmark = pytest.mark.node

SESSIONS = size(200, small=40)


def clocks(ranges: list[list[int]]) -> set[tuple[int, int]]:
    return {(client, clock) for client, start, length in ranges for clock in range(start, start + length)}


def check_history(played: Played, truth: dict[str, Any], met: Counter[str]) -> None:
    """Compare what a log says with what yjs says of it, row by row."""
    tracer = Tracer(b"\0\0", played.owners, Attribution())
    deleted_by: dict[tuple[int, int], int] = {}
    for row, ranges in zip(played.rows, truth["deleted"], strict=True):
        before = tracer.items.vector()
        tracer.follow([row])
        fresh = tracer.attribution
        for client, end in tracer.items.vector().items():
            start = before.get(client, 0)
            if end > start:
                found = fresh.insertions.within(client, start, end)
                assert [(low, high) for low, high, _ in found] == [(start, end)]
                assert fresh.marks[found[0][2]].who.author == played.owners[client].author
                met["inserted"] += end - start
        for identity in clocks(ranges):
            deleted_by.setdefault(identity, row.seq)
    marks = tracer.attribution.marks
    authors = {row.seq: row.author for row in played.rows}
    for (client, clock), seq in deleted_by.items():
        number = tracer.attribution.deletions.find(client, clock)
        assert number is not None, f"nobody has deleted {clock} of {client}"
        assert marks[number].who.author == authors[seq], f"{clock} of {client}, row {seq}"
        met["deleted"] += 1
    for name, items in truth["order"].items():
        branch = tracer.items.roots.get(name)
        ours = (
            [] if branch is None else [(i.client, c, i.deleted) for i in branch.list() for c in range(i.clock, i.end)]
        )
        assert ours == [(client, c, gone) for client, clock, n, gone in items for c in range(clock, clock + n)], name
        met["placed"] += len(ours)
    assert decode_attribution(encode_attribution(tracer.attribution)) == tracer.attribution


def test_attribution_and_order_are_those_of_yjs() -> None:
    met: Counter[str] = Counter()
    with NodeScript("yjs_fuzz.mjs") as script:
        for first in range(1, SESSIONS, 20):
            # Where surrogate pairs are cut too: nothing here looks at a text.
            games = play(script, list(range(first, first + 20)), split=first % 40 == 1)
            truths = script.call([["history", [row.data.hex() for row in game.rows]] for game in games])
            for game, truth in zip(games, truths, strict=True):
                try:
                    check_history(game, truth, met)
                except AssertionError as error:
                    error.add_note(f"seed {game.seed}")
                    raise
    assert met["deleted"] > 10 * SESSIONS and met["placed"] > 20 * SESSIONS, met


def test_going_on_from_a_collected_snapshot_gives_the_same_attribution() -> None:
    with NodeScript("yjs_fuzz.mjs") as script:
        for game in play(script, list(range(1_000, 1_000 + SESSIONS // 2))):
            whole = trace(b"\0\0", game.rows, game.owners)
            middle = random.Random(game.seed).randrange(len(game.rows) + 1)
            kept = trace(b"\0\0", game.rows[:middle], game.owners)
            data = encode_attribution(kept)
            again = trace(game.state(middle, collected=True), game.rows[middle:], game.owners, decode_attribution(data))
            assert again.insertions == whole.insertions, f"seed {game.seed}"
            assert _authors(again) == _authors(whole), f"seed {game.seed}"


def _authors(attribution: Attribution) -> dict[tuple[int, int], str | None]:
    return {
        (client, clock): attribution.marks[number].who.author
        for client, start, end, number in attribution.deletions
        for clock in range(start, end)
    }


def test_changes_between_two_rows_lead_from_one_state_to_the_other() -> None:
    """The stock rendering of Yjs shows of our two states what it shows of a document that has kept everything."""
    with NodeScript("yjs_fuzz.mjs") as script:
        for first in range(3_000, 3_000 + SESSIONS // 2, 20):
            games = play(script, list(range(first, first + 20)))
            commands: list[list[Any]] = []
            for game in games:
                choose = random.Random(game.seed)
                a, b = sorted(choose.randrange(len(game.rows) + 1) for _ in range(2))
                base = game.state(a, collected=choose.random() < 0.5)
                task = Changes(base, Rows(game.rows[a:b]), game.owners)
                found = {
                    key: base64.b64decode(value).hex()
                    for key, value in json.loads(changes(task)).items()
                    if isinstance(value, str)
                }
                ours = [found[key] for key in ("base", "update", "prev_snapshot", "snapshot")]
                kept = [game.state(a, collected=False).hex(), game.state(b, collected=False).hex()]
                commands += [
                    ["history", [row.data.hex() for row in game.rows[:a]]],
                    ["history", [row.data.hex() for row in game.rows[:b]]],
                    ["changes", *ours],
                    ["changes", *kept, *ours[2:]],
                ]
            results = script.call(commands)
            for at, game in enumerate(games):
                before, after, ours, kept = results[4 * at : 4 * at + 4]
                note = f"seed {game.seed}"
                assert ours["content"] == after["content"], note
                assert commands[4 * at + 2][3] == before["snapshot"], note
                assert commands[4 * at + 2][4] == after["snapshot"], note
                assert [ours[key] for key in ("before", "after", "changes")] == [
                    kept[key] for key in ("before", "after", "changes")
                ], note
