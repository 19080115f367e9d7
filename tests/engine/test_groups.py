"""Rows of the log in groups: after each, the client shows a state that existed, with whatever it had of its own."""

from __future__ import annotations

import random

import pytest

from collab.engine.document import Document, at_once
from collab.engine.groups import LogGap, RowGroup
from collab.errors import UpdateError
from collab.update import decode_state_vector, encode_state_vector, read_update
from collab.update.delete_set import DeleteSet
from tests.support.build import Client, reader_of, section, session, text, update

SEEDS = range(12)


def document_of(*rows: bytes) -> Document:
    return at_once(Document.load(None, None, rows))


def groups(rows: list[bytes], known: dict[int, int], turns: int, first: DeleteSet | None = None) -> list[bytes]:
    """Join so many rows, each a turn of its own, at a time."""
    made = []
    for at in range(0, len(rows), turns):
        group = RowGroup(known, first)
        first = None
        for row in rows[at : at + turns]:
            at_once(group.add(row))
            at_once(group.keep())
        joined, known = group.take()
        made.append(joined)
    return made


@pytest.mark.parametrize("seed", SEEDS)
def test_each_group_leads_to_the_state_after_its_last_row(seed: int) -> None:
    rows = session(seed)
    client = reader_of()
    for at, group in enumerate(groups(rows, {}, 7), 1):
        client.read(group)
        assert client.view() == reader_of(*rows[: at * 7]).view()


@pytest.mark.parametrize("seed", SEEDS)
def test_one_with_a_part_of_the_log_and_edits_of_its_own_is_led_the_same_way(seed: int) -> None:
    rows = session(seed)
    choose = random.Random(seed)
    begin = choose.randrange(len(rows))
    own: list[bytes] = []
    author = Client(77_777, own)
    author.read(*rows[: begin // 2])
    for _ in range(5):
        author.edit(choose)
    author.close()
    has = [*rows[:begin], *own]
    known = decode_state_vector(reader_of(*has).doc.get_state())
    client = reader_of(*has)
    # From any row before those that it lacks, and with all that was deleted up to there.
    base = choose.randint(0, begin)
    first = DeleteSet()
    for row in rows[:base]:
        for entry in read_update(row).deletes:
            for start, length in zip(entry.ranges[::2], entry.ranges[1::2], strict=True):
                first.add(entry.client, start, start + length)
    for at, group in enumerate(groups(rows[base:], known, 5, first), 1):
        client.read(group)
        until = max(begin, min(len(rows), base + at * 5))
        assert client.view() == reader_of(*rows[:until], *own).view()


def test_what_was_deleted_goes_along_also_of_rows_whose_structs_are_known() -> None:
    gone, last = update(gone={1: [(0, 1)]}), update(section(1, 2, text("c", origin=(1, 1))))
    rows = [update(section(1, 0, text("ab"))), gone, last]
    client = reader_of(rows[0], rows[2])  # it has lost a row, and its state vector does not say so
    (group,) = groups(rows, {1: 3}, 3)
    assert group == gone
    client.read(group)
    assert str(client.text) == "bc"


@pytest.mark.parametrize(
    ("known", "least", "most"),
    [({}, 1_000, 1_050), ({1: 450}, 540, 600), ({1: 900}, 100, 130), ({1: 900, 2: 100}, 1, 1)],
)
def test_the_size_is_that_of_what_is_lacking(known: dict[int, int], least: int, most: int) -> None:
    group = RowGroup(known)
    assert group.empty and group.size == 0
    at_once(group.add(update(section(1, 0, text("x" * 900)), section(2, 0, text("y" * 100)))))
    assert group.turn_size() in range(least, most + 1) and group.empty
    size = group.turn_size()
    at_once(group.keep())
    assert group.size == size and not group.empty and group.turn_size() == 0
    assert abs(len(group.take()[0]) - size) < 40


def test_a_log_that_does_not_go_on_from_what_the_client_has_is_found() -> None:
    group = RowGroup({1: 1})
    at_once(group.add(update(section(1, 2, text("c", origin=(1, 1))))))
    with pytest.raises(LogGap, match="clock 1 of client 1"):
        at_once(group.keep())
    with pytest.raises(UpdateError):
        at_once(group.add(b"\x01"))


def test_large_rows_are_worked_on_in_slices() -> None:
    structs = [text("a")] + [text("b", origin=(1, at)) for at in range(3_000)]
    group = RowGroup({})
    assert sum(1 for _ in group.add(update(section(1, 0, *structs)))) > 2
    assert sum(1 for _ in group.keep()) == 0, "one run is moved as a whole"
    scattered = [section(client, 0, text("x" * 100)) for client in range(2_000, 0, -1)]
    gone = {7: [(at * 2, 1) for at in range(2_000)]}
    group = RowGroup({})
    assert sum(1 for _ in group.add(update(*scattered, gone=gone))) > 5
    assert sum(1 for _ in group.keep()) > 4
    joined, known = group.take()
    assert known == {client: 100 for client in range(1, 2_001)}
    assert read_update(joined).deletes[0].ranges == [number for pair in gone[7] for number in pair]


def test_the_state_vector_before_a_large_turn_is_given_with_it() -> None:
    document = document_of(update(section(1, 0, text("a")), section(2, 0, text("b"))))
    before = document.encode_state_vector()
    document.apply_update(update(section(1, 1, text("x" * 2_000_000, origin=(1, 0)))), "ann")
    document.apply_update(update(section(3, 0, text("c"))), "bob")
    document.apply_update(update(section(1, 2_000_001, text("d", origin=(1, 5)))), "ann")
    turn = document.flush()
    assert turn is not None and turn.before == before == encode_state_vector({1: 1, 2: 1})
    document.apply_update(update(section(3, 1, text("c", origin=(3, 0)))))
    turn = document.flush()
    assert turn is not None and turn.before is None, "small ones need none"


def test_the_deletes_of_a_snapshot_are_given_to_those_that_have_all_of_it() -> None:
    rows = [update(section(1, 0, text("ab")), section(2, 0, text("c")), gone={1: [(0, 1)]})]
    assert document_of(*rows).stored_deletes({1: 2, 2: 1}) is None, "no snapshot"
    document = at_once(Document.load(document_of(*rows).encode_state_as_update(), None, []))
    document.apply_update(update(gone={1: [(1, 1)]}))
    for known in ({}, {1: 2}, {1: 1, 2: 1}):
        assert document.stored_deletes(known) is None
    made = document.stored_deletes({1: 2, 2: 5, 9: 1})
    assert made is not None
    assert made().ranges(1) == [(0, 1)] and made() is not made()


def test_what_a_sender_says_beyond_what_it_has_told_is_found_if_the_document_had_it() -> None:
    document = document_of(update(section(1, 0, text("abc")), section(2, 0, text("d")), gone={1: [(0, 1)]}))

    def repeats(known: dict[int, int], *sections: bytes, gone: dict[int, list[tuple[int, int]]] | None = None) -> bool:
        return at_once(document.repeats(update(*sections, gone=gone), known))

    known = {1: 2}
    assert not repeats(known, section(1, 0, text("ab")), gone={1: [(0, 1)]}), "it has told that"
    assert not repeats(known, section(3, 0, text("new"))) and known[3] == 3
    document.apply_update(update(section(3, 0, text("new"))))
    assert not repeats(known, section(3, 0, text("new"))), "its own again"
    assert not repeats(known, gone={5: [(0, 1)]}), "of what nobody has"
    assert repeats(dict(known), section(1, 0, text("abc")))
    assert repeats(dict(known), section(1, 2, text("c", origin=(1, 1))))
    assert repeats(dict(known), section(1, 0, text("abcd")))
    assert repeats(dict(known), gone={2: [(0, 1)]})
    assert repeats(dict(known), section(2, 0, text("d")), section(1, 0, text("a")))
    with pytest.raises(UpdateError):
        at_once(document.repeats(b"\x01", {}))
    assert sum(1 for _ in document.repeats(update(section(9, 0, *[text("x")] * 5_000)), {})) > 5
