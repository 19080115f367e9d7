"""The generator's updates, integrated by a CRDT that is not ours, give the text that the generator expects."""

from __future__ import annotations

import random

import pycrdt
import pytest

from collab.bench.updates import (
    ROOT,
    EditingSession,
    Typist,
    joined_text,
    percentile,
    read_content,
    read_ranges,
    run_is_chained,
    run_of_text,
)
from collab.errors import DecodeError


def document(updates: list[bytes]) -> pycrdt.Doc[pycrdt.Text]:
    doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc()
    doc[ROOT] = pycrdt.Text()
    for update in updates:
        doc.apply_update(update)
    return doc


def text_of(doc: pycrdt.Doc[pycrdt.Text]) -> str:
    return str(doc.get(ROOT, type=pycrdt.Text))


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_typist_types_its_run(size: int) -> None:
    typist = Typist(3_000_000_000, size)
    doc = document([typist.stroke() for _ in range(300)])
    assert text_of(doc) == typist.held().decode() == run_of_text(0, 300 * size).decode()
    assert typist.clock == 300 * size


def test_typists_who_type_at_once_stand_in_the_order_of_their_ids_whatever_the_order_of_arrival() -> None:
    rng = random.Random(3)
    typists = [Typist(client) for client in rng.sample(range(1 << 28, 1 << 32), 12)]
    queues = [[typist.stroke() for _ in range(rng.randint(1, 60))] for typist in typists]
    updates: list[bytes] = []
    while any(queues):
        updates.append(rng.choice([queue for queue in queues if queue]).pop(0))
    assert text_of(document(updates)) == joined_text(typists)


def test_clocks_beyond_the_prepared_ones_are_encoded_too() -> None:
    typist = Typist(1 << 31)
    updates = [typist.stroke() for _ in range(20_000)]
    assert read_ranges(updates[-1], 0, len(updates[-1])) == [(1 << 31, 19_999, 20_000)]
    assert text_of(document(updates)) == typist.held().decode()


@pytest.mark.parametrize("start", [0, 1, 25, 26, 99])
def test_an_answer_to_a_step_1_continues_what_the_server_has(start: int) -> None:
    typist = Typist(77)
    strokes = [typist.stroke() for _ in range(100)]
    assert text_of(document([*strokes[:start], typist.encode(start)])) == typist.held().decode()
    assert typist.encode(100) == b"\x00\x00"


@pytest.mark.parametrize("seed", range(5))
def test_an_editing_session_is_what_a_crdt_makes_of_it(seed: int) -> None:
    session = EditingSession(3_000, seed=seed)
    updates = []
    while len(session):
        updates.append(session.edit())
    with pytest.raises(IndexError):
        session.edit()
    doc = document(updates)
    assert text_of(doc) == session.text()
    assert read_content(doc.get_update()) == session.held()
    deletes = sum(update[0] == 0 for update in updates)
    assert 300 < deletes < 1_800


def test_content_is_read_the_same_from_single_and_from_merged_structs() -> None:
    typists = [Typist(5), Typist(900_000_000, 40)]
    updates = [typist.stroke() for _ in range(50) for typist in typists]
    expected = {typist.client: typist.held() for typist in typists}
    merged = document(updates).get_update()
    assert read_content(merged) == expected
    assert run_is_chained(merged, set(expected))
    apart = [typist.stroke() for typist in [Typist(5)] for _ in range(3)]
    # The structs of three updates behind each other, as a server that joins byte runs sends them.
    structs = b"\x01\x03\x05\x00" + b"".join(update[4:-1] for update in apart) + b"\x00"
    assert read_content(structs) == {5: b"abc"}
    assert run_is_chained(structs, {5})


def test_content_tells_a_wrong_character_a_missing_one_and_a_deleted_one() -> None:
    typist = Typist(5)
    strokes = [typist.stroke() for _ in range(30)]
    whole = document(strokes).get_update()
    assert read_content(whole) == {5: typist.held()}
    assert read_content(document(strokes[:-1]).get_update()) != {5: typist.held()}
    assert read_content(whole.replace(b"abc", b"abd", 1)) != {5: typist.held()}
    doc = document(strokes)
    text = doc.get(ROOT, type=pycrdt.Text)
    del text[3]
    held = read_content(doc.get_update())[5]
    assert held[3] == 0 and held[:3] == b"abc" and len(held) == 30


def test_a_character_at_another_place_breaks_the_chain() -> None:
    doc: pycrdt.Doc[pycrdt.Text] = pycrdt.Doc(client_id=9)
    doc[ROOT] = text = pycrdt.Text()
    text += "ac"
    text.insert(1, "b")
    moved = doc.get_update()
    assert read_content(moved)[9] == b"acb"
    assert not run_is_chained(moved, {9})
    assert run_is_chained(moved, set())


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_truncated_document_is_refused(cut: int) -> None:
    typist = Typist(1 << 30, 30)
    typist.stroke()
    whole = typist.encode()
    with pytest.raises((DecodeError, IndexError)):
        read_content(whole[:-cut])


def test_ranges_of_a_joined_update_are_those_of_its_parts() -> None:
    first, second = Typist(100), Typist(200)
    for _ in range(10):
        first.stroke()
        second.stroke()
    joined = b"\x02" + second.encode(4)[1:-1] + first.encode(7)[1:-1] + b"\x00"
    assert read_ranges(joined, 0, len(joined)) == [(200, 4, 10), (100, 7, 10)]
    assert read_ranges(b"\x00\x00", 0, 2) == []
    delete_only = b"\x00\x01\x64\x01\x00\x03"
    assert read_ranges(delete_only, 0, len(delete_only)) == []


def test_foreign_content_is_refused_by_its_kind() -> None:
    doc: pycrdt.Doc[pycrdt.Map[int]] = pycrdt.Doc()
    doc["map"] = pycrdt.Map({"key": 1})
    update = doc.get_update()
    with pytest.raises(DecodeError, match="somebody else writes"):
        read_ranges(update, 0, len(update))


def test_percentiles_are_the_smallest_bucket_that_covers_the_share() -> None:
    counts = {10: 50, 20: 45, 30: 4, 90: 1}
    assert [percentile(counts, share) for share in (0.5, 0.51, 0.95, 0.99, 1.0)] == [10, 20, 20, 30, 90]
    assert percentile({}, 0.5) == -1
