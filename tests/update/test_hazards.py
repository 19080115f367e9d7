"""What shows only in a whole document: values under a key that are cut, and types too deep in each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from collab.engine.document import Document
from collab.update.hazards import MAX_NESTED_TYPES, find_hazard
from tests.support.build import gc, item, section, session, skip, text, update
from tests.support.grammar import case
from tests.support.needs import size
from tests.support.node import NodeScript
from tests.support.oracle import CUT_KEY, relayed

MAP = item(7, b"\1", parent="m", key="k")
VALUE = text("abc", parent=(5, 0), key="k")


def nested(depth: int) -> bytes:
    """Maps in each other, by turns of two clients."""
    structs: dict[int, list[bytes]] = {5: [], 6: []}
    for at in range(depth):
        client, other = (5, 6) if at % 2 == 0 else (6, 5)
        parent: str | tuple[int, int] = (other, (at - 1) // 2) if at else "m"
        structs[client].append(item(7, b"\1", parent=parent, key="k"))
    return update(section(6, 0, *structs[6]), section(5, 0, *structs[5]))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param(update(section(5, 0, MAP, VALUE)), None, id="a value of three clocks"),
        pytest.param(update(section(5, 0, MAP, VALUE), gone={5: [(2, 1)]}), "cut at clock 2", id="its middle deleted"),
        pytest.param(update(section(5, 0, MAP, VALUE), gone={5: [(1, 2), (2, 2)]}), None, id="all of it is deleted"),
        pytest.param(update(section(5, 0, MAP, VALUE), gone={5: [(1, 2)]}), "cut at clock 3", id="its beginning is"),
        pytest.param(
            update(section(5, 0, MAP, VALUE), section(4, 0, text("x", origin=(5, 1)))),
            "cut at clock 2",
            id="an origin in it",
        ),
        pytest.param(
            update(section(5, 0, MAP, VALUE), section(4, 0, text("x", origin=(5, 1))), gone={5: [(1, 3)]}),
            None,
            id="an origin in it, all of it is deleted",
        ),
        pytest.param(
            update(section(5, 0, MAP, VALUE), section(4, 0, text("x", right=(5, 3)))),
            "cut at clock 3",
            id="a right origin in it",
        ),
        pytest.param(
            update(
                section(5, 0, MAP, text("a", parent=(5, 0), key="k"), text("bc", origin=(5, 1))), gone={5: [(3, 1)]}
            ),
            "cut at clock 3",
            id="a value that does not say that it has a key",
        ),
        pytest.param(
            update(section(5, 0, MAP, VALUE), section(4, 0, text("x", origin=(5, 3))), gone={4: [(0, 1)]}),
            None,
            id="one behind it",
        ),
        pytest.param(
            update(section(5, 0, text("abc", parent="m", key="k")), gone={5: [(1, 1)]}),
            None,
            id="of a root, which stays",
        ),
        pytest.param(
            update(section(5, 0, MAP, text("abc", parent=(5, 0))), gone={5: [(2, 1)]}),
            None,
            id="a text, which has no key",
        ),
        pytest.param(update(section(5, 0, gc(3)), gone={5: [(1, 1)]}), None, id="GC"),
        pytest.param(update(section(5, 0, gc(1), skip(1), text("a", origin=(9, 1)))), None, id="a part of a document"),
        pytest.param(
            update(section(6, 0, text("ab", origin=(5, 0))), section(5, 0, text("ab", origin=(6, 0)))),
            None,
            id="waiting",
        ),
        pytest.param(update(section(5, 0, item(7, b"\1", parent=(9, 1)))), None, id="a parent that is not there"),
        pytest.param(
            update(section(6, 0, item(7, b"\1", parent=(5, 0))), section(5, 0, item(7, b"\1", parent=(6, 0)))),
            None,
            id="types that wait for each other",
        ),
        pytest.param(nested(MAX_NESTED_TYPES), None, id="as deep as may be"),
        pytest.param(nested(MAX_NESTED_TYPES + 1), "types lie in each other", id="too deep"),
        pytest.param(update(section(5, 0, item(9, b"\1g\x76\1\4guid\x7e"))), "guid", id="poison"),
    ],
)
def test_hazards(data: bytes, found: str | None) -> None:
    hazard = find_hazard(data)
    assert hazard == found if found is None or hazard is None else found in hazard


def states(turns: list[bytes]) -> Iterator[bytes]:
    """Yield the whole document after each turn."""
    document = Document()
    for data in turns:
        document.apply_update(data)
        yield document.encode_state_as_update()


@pytest.mark.parametrize("seed", range(4))
def test_real_sessions_have_none(seed: int) -> None:
    assert find_hazard(relayed(session(seed), Counter())[1]) is None


@pytest.mark.node
def test_what_yjs_throws_on_is_named() -> None:
    """Of all that a room takes and that the reader cannot refuse."""
    logs = [session(0)]
    named = 0
    with NodeScript("yjs_oracle.mjs") as script:
        for first in range(1, size(1_600, small=400), 100):
            rooms = [(seed, relayed(case(seed, logs), Counter())[0]) for seed in range(first, first + 100)]
            [found] = script.call([["check", [[seed, [data.hex() for data in sent]] for seed, sent in rooms]]])
            for (seed, sent), thrown in zip(rooms, found, strict=True):
                if thrown is not None:
                    assert thrown["error"] == CUT_KEY, (seed, thrown)
                    # What is cut in one turn may be all deleted in a later one.
                    assert any(map(find_hazard, states(sent))), (seed, thrown)
                    named += 1
    assert named > 2
