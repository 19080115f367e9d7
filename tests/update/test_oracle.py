"""Real yjs, 13 and 14, lives with what a room passes on: it emits, encodes, deletes, undoes, and nothing throws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collab.update.reader import find_poison, read_update
from tests.support.build import session
from tests.support.grammar import case
from tests.support.needs import size
from tests.support.node import NodeScript
from tests.support.oracle import BATCH, Oracle

CORPUS = json.loads((Path(__file__).parent / "data" / "hostile-updates.json").read_text())["updates"]

FIRST_SEED = 1
CASES = size(1_000, small=100)


@pytest.mark.node
def test_yjs_lives_with_what_a_room_passes_on() -> None:
    """``python -m tests.support.oracle 100000`` runs more of them."""
    with Oracle([session(seed) for seed in range(10)]) as oracle:
        for first in range(FIRST_SEED, FIRST_SEED + CASES, BATCH):
            oracle.run(range(first, first + BATCH))
            assert not oracle.failed, oracle.failed[:3]
        met = oracle.met
    # A generator that makes nothing special, or nothing that passes, would show nothing.
    assert met["cases that yjs saw"] > CASES * 3 // 4, met
    assert met["taken"] > met["updates"] // 2, met
    for poison in ("__proto__", "guid", "gcFilter"):
        assert sum(count for what, count in met.items() if what.startswith("refused") and poison in what) > CASES // 100


@pytest.mark.node
def test_yjs_chokes_on_what_is_refused_as_poison_and_on_nothing_else_of_the_corpus() -> None:
    names = [name for name, entry in CORPUS.items() if entry["expect"] != "ask"]
    poison = [name for name in names if "guid-" in name or "gc-filter" in name or "proto-" in name]
    with NodeScript("yjs_oracle.mjs") as script:
        [found] = script.call([["check", [[seed, [CORPUS[name]["hex"]]] for name in poison for seed in range(8)]]])
    assert len(poison) > 12
    for at, name in enumerate(poison):
        thrown = [one for one in found[at * 8 : at * 8 + 8] if one is not None]
        assert bool(thrown) == (CORPUS[name]["expect"] == "refuse"), (name, thrown)


def test_poison_reads_as_an_update_otherwise() -> None:
    """What is refused as poison is refused for nothing else, so a stored one can be told from a damaged one."""
    poisoned = 0
    for seed in range(1, size(3_000, small=300)):
        for data in case(seed):
            found = find_poison(data)
            if found is not None and any(word in found for word in ("__proto__", "guid", "gcFilter")):
                poisoned += 1
                assert read_update(data, stored=True).data is data
    assert poisoned > size(300, small=30) // 2
