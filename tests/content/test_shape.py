"""What is found on the bytes of a document: types of roots, cut pairs, what an update needs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collab.content.edits import Format, Replace
from collab.content.replica import Replica
from collab.content.shape import RootType, Shape, find_roots, mend_pairs
from collab.update import read_update
from tests.content import samples
from tests.support.node import NodeScript

PAIR = bytes.fromhex("01010500040101740661f09f98806200")
"""Client 5 has typed "a😀b" into the root t."""
CUTS = {
    "second unit deleted": "000105010201",
    "first unit deleted": "000105010101",
    "typed between": "01010600c4050105020158" + "00",
    "typed behind the first unit": "010106008405010158" + "00",
    "typed before the second unit": "010106004405020158" + "00",
}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_a_shape_that_grows_is_the_shape_of_the_whole(random: Random) -> None:
    replica = Replica(b"\0\0", 7)
    growing = Shape()
    growing.add(read_update(b"\0\0"))
    for client in range(8, 12):
        values = {"m": {"k": samples.json_value(random)}, "l": [samples.json_value(random)], "t": samples.words(random)}
        update = replica.edit(Replace(None, Format.JSON, values, shared=random.random() < 0.5))
        if update:
            assert not growing.needs(read_update(update))
            growing.add(read_update(update))
        whole = Shape()
        whole.add(read_update(replica.encode()))
        assert growing.roots() == whole.roots()
        assert growing.vector == whole.vector
        for section in read_update(replica.encode()).sections:
            for clock in range(section.clock, section.end):
                identity = (section.client, clock)
                assert growing.parent_of(identity) == whole.parent_of(identity)
        replica = Replica(replica.encode(), client)


def test_what_a_root_is_grows_with_it() -> None:
    shape = Shape()
    shape.add(read_update(bytes.fromhex("01010500010101740200")))  # deleted content alone
    assert shape.roots() == {"t": RootType.EMPTY}
    shape.add(read_update(bytes.fromhex("0101050284050101610000"[:-2])))
    assert shape.roots() == {"t": RootType.TEXT}
    assert shape.whole


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_cut_is_seen_when_it_comes(cut: str) -> None:
    shape = Shape()
    shape.add(read_update(PAIR))
    update = read_update(bytes.fromhex(cut))
    shape.add(update)
    assert shape.cut_pairs(update) == {5: {2}}


def test_what_does_not_cut_a_pair_is_left_as_it_is() -> None:
    shape = Shape()
    shape.add(read_update(PAIR))
    for harmless in ("010106008405020158" + "00", "010107008405000158" + "00", "000105010102", "000105010001"):
        update = read_update(bytes.fromhex(harmless))
        shape.add(update)
        assert shape.cut_pairs(update) == {}
    assert mend_pairs(PAIR) == PAIR


def test_an_update_that_needs_more_is_told_from_one_that_does_not() -> None:
    shape = Shape()
    shape.add(read_update(PAIR))
    needs = {
        "010106018405010158" + "00": True,  # clock 1 of client 6, before clock 0
        "010106008405040158" + "00": True,  # behind what client 5 has not typed yet
        "010106008405030158" + "00": False,
        "000105010401": True,  # deletes what is not there
        "000105010301": False,
    }
    for update, expected in needs.items():
        assert shape.needs(read_update(bytes.fromhex(update))) is expected, update


@pytest.fixture(scope="module")
def yjs() -> Iterator[NodeScript]:
    with NodeScript("content_oracle.mjs") as script:
        yield script


@pytest.mark.node
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_document_with_a_cut_pair_shows_what_yjs_shows(yjs: NodeScript, cut: str, at_once: bool) -> None:
    update = bytes.fromhex(cut)
    replica = Replica(PAIR, 9)
    replica.apply(update)
    if at_once:
        replica = Replica(replica.encode(), 9)
    (seen,) = yjs.call([["show", [PAIR.hex(), update.hex()], {"t": "text"}]])
    assert replica.read(Format.DELTA, "t") == seen["roots"]["t"]
    edit = replica.edit(Replace("t", Format.TEXT, "x" + replica.read(Format.TEXT, "t") + "😀"))
    (seen,) = yjs.call([["show", [PAIR.hex(), update.hex(), edit.hex()], {"t": "text"}]])
    assert not seen["pending"]
    assert samples.joined_delta(replica.read(Format.DELTA, "t")) == samples.joined_delta(seen["roots"]["t"])


def test_finding_roots_takes_every_struct_once() -> None:
    assert find_roots(Replica(PAIR, 9).encode()) == {"t": RootType.TEXT}
