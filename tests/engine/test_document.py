"""A document as bytes: what is taken, what is new, what is asked for, and what it costs."""

from __future__ import annotations

import gc as collector
import random
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pytest

from collab.authorship import Note
from collab.engine.document import NEW, Applied, Document, Row, Turn, at_once
from collab.errors import DecodeError, UpdateError
from collab.protocol.lib0 import encode_var_uint
from collab.update.compact import compact
from collab.update.index import encode_index
from collab.update.merge import merge_updates
from collab.update.reader import read_update
from collab.update.state_vector import decode_state_vector, encode_state_vector
from tests.support.build import (
    deletes,
    gc,
    item,
    lines,
    lines_of_slices,
    reader_of,
    section,
    session,
    skip,
    text,
    update,
)
from tests.support.needs import size

SEEDS = range(6)
MANY = size(50_000, small=5_000)
KNOWN = Applied(False, None)


def document_of(*updates: bytes) -> Document:
    document = Document()
    for data in updates:
        assert document.apply_update(data).missing is None
    document.flush()
    return document


def flushed(document: Document) -> Turn:
    turn = document.flush()
    assert turn is not None
    return turn


def put_snapshot_under(document: Document) -> None:
    compacted = compact(document.encode_state_as_update())
    document.rebase(compacted.data, compacted.index, document.encode_state_vector())


def calls(call: Callable[[], object]) -> int:
    """Count the calls, of Python and of C, that a call makes."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1

    collector.disable()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
        collector.enable()
    return count


ABC = update(section(5, 0, text("abc")))


# Taking and flushing.


@pytest.mark.parametrize("seed", SEEDS)
def test_an_update_that_is_new_leaves_as_the_very_bytes_that_came(seed: int) -> None:
    document = Document()
    for data in session(seed, clients=1):
        assert document.apply_update(data, "a")[:2] == (True, None)
        turn = flushed(document)
        assert turn.delta is data
        assert turn.rows == (Row(data, "a"),)
        assert document.flush() is None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_turn_holds_what_its_updates_hold(seed: int) -> None:
    log = session(seed)
    document, follower, rows = Document(), reader_of(), []
    choose = random.Random(seed)
    at = 0
    while at < len(log):
        together = choose.randint(1, 9)
        for data in log[at : at + together]:
            document.apply_update(data)
        turn = flushed(document)
        follower.read(turn.delta)
        rows += [row.data for row in turn.rows]
        at += together
    assert follower.view() == reader_of(*log).view() == reader_of(*rows).view()
    assert reader_of(document.encode_state_as_update()).view() == follower.view()
    assert (
        document_of(*rows).encode_state_as_update()
        == document_of(*log).encode_state_as_update()
        == document.encode_state_as_update()
    )


def test_rows_are_cut_where_the_author_changes() -> None:
    document = Document()
    parts = [update(section(5, at, text("a", parent="r"))) for at in range(4)]
    for part, author in zip(parts, ("x", "x", None, "x"), strict=True):
        document.apply_update(part, author)
    turn = flushed(document)
    assert [(row.data, row.author) for row in turn.rows] == [
        (merge_updates(parts[:2]), "x"),
        (parts[2], None),
        (parts[3], "x"),
    ]
    assert turn.delta == merge_updates(parts)


def test_rows_are_cut_where_the_note_changes_and_keep_it() -> None:
    document = Document()
    parts = [update(section(5, at, text("a", parent="r"))) for at in range(4)]
    notes = (Note("ada"), Note("ada"), None, Note("ada", "model"))
    for at, (part, note) in enumerate(zip(parts, notes, strict=True)):
        # The one in slices deletes, too, so it does not take the short way.
        if at == 3:
            part = parts[3] = update(section(5, 3, text("a", parent="r")), gone={5: [(0, 1)]})
            at_once(document.apply_update_in_slices(part, "robot", note))
        else:
            document.apply_update(part, "robot", note)
    assert flushed(document).rows == (
        Row(merge_updates(parts[:2]), "robot", notes[0]),
        Row(parts[2], "robot"),
        Row(parts[3], "robot", notes[3]),
    )


def test_one_row_is_the_delta_itself() -> None:
    document = Document()
    document.apply_update(ABC, "x")
    document.apply_update(update(section(6, 0, text("d"))), "x")
    turn = flushed(document)
    assert len(turn.rows) == 1
    assert turn.rows[0].data is turn.delta


def test_a_malformed_update_changes_nothing() -> None:
    document = document_of(ABC)
    before = document.version, document.size, document.encode_state_as_update()
    with pytest.raises(UpdateError):
        document.apply_update(update(section(5, 3, text("d")), section(6, 0, text(""))))
    assert (document.version, document.size, document.encode_state_as_update()) == before
    assert document.flush() is None


@pytest.mark.parametrize("seed", SEEDS)
def test_slices_apply_what_one_go_applies(seed: int) -> None:
    whole = merge_updates(session(seed))
    one, other = Document(), Document()
    assert one.apply_update(whole) == at_once(other.apply_update_in_slices(whole))
    assert flushed(one) == flushed(other)
    assert one.encode_state_as_update() == other.encode_state_as_update()


def test_what_is_large_is_looked_at_in_slices() -> None:
    """Many clients, many deleted clients, many ranges: each part of the work lets others in between."""

    def slices(work: Generator[None, None, Any]) -> tuple[int, Any]:
        count = 0
        while True:
            try:
                next(work)
            except StopIteration as end:
                return count, end.value
            count += 1

    crowd = range(1, 2_001)
    typed = update(*(section(client, 0, text("abcde")) for client in reversed(crowd)))
    gone = update(gone={client: [(0, 1), (2, 1)] for client in reversed(crowd)})
    many = update(gone={1: [(at, 1) for at in range(0, 5, 2)], **dict.fromkeys(crowd[1:], [(0, 1), (2, 1)])})
    document = Document()
    for data, left in ((typed, gone), (gone, many), (many, None)):
        count, applied = slices(document.apply_update_in_slices(data))
        assert applied == NEW and count >= 4
        count, contained = slices(document.contains_update_in_slices(data))
        assert contained and count >= 4
        assert left is None or not document.contains_update(left)
        assert document.apply_update(data) == KNOWN


def test_a_client_named_again_behind_another_is_looked_at_again() -> None:
    document = document_of(update(section(6, 0, text("ab")), section(5, 0, text("abc")), gone={5: [(0, 1)]}))
    five, six = deletes({5: [(0, 1)]})[1:], deletes({6: [(1, 1)]})[1:]
    again = deletes({5: [(2, 1)]})[1:]
    assert document.contains_update(b"\0\2" + five + five)
    assert not document.contains_update(b"\0\3" + five + six + five)
    assert document.apply_update(b"\0\3" + five + six + five) == NEW
    assert document.contains_update(b"\0\3" + five + six + five)
    assert not document.contains_update(b"\0\3" + five + six + again)
    assert document.apply_update(b"\0\3" + five + six + again) == NEW
    assert flushed(document).delta == update(gone={6: [(1, 1)], 5: [(2, 1)]})


# Nothing new.


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_known_is_neither_relayed_nor_counted(seed: int) -> None:
    log = session(seed)
    document = document_of(*log)
    version = document.version
    for data in (*log, merge_updates(log), document.encode_state_as_update(), b"\0\0"):
        assert document.apply_update(data) == KNOWN
        assert document.contains_update(data)
    assert document.flush() is None
    assert document.version == version


def test_the_step_2_of_a_client_with_nothing_to_tell_is_known() -> None:
    document = document_of(update(section(5, 0, text("abc")), gone={5: [(0, 1), (2, 1)]}))
    step_2 = document.encode_state_as_update(document.encode_state_vector())
    assert document.apply_update(step_2) == KNOWN
    assert document.flush() is None


def test_only_what_is_new_of_structs_is_relayed() -> None:
    document = document_of(ABC)
    assert document.apply_update(update(section(5, 0, text("abc"), text("d", origin=(5, 2))))) == NEW
    assert flushed(document).delta == update(section(5, 3, text("d", origin=(5, 2))))
    # Inside a struct: what lies behind the known clock.
    assert document.apply_update(update(section(5, 3, text("de😀f", origin=(5, 2))))) == NEW
    assert flushed(document).delta == update(section(5, 4, text("e😀f", origin=(5, 3))))
    # Inside a surrogate pair, by a version of the struct that ends there.
    document = document_of(update(section(5, 0, text("a\ufffd"))))
    assert document.apply_update(update(section(5, 0, text("a😀b")))) == NEW
    assert flushed(document).delta == update(section(5, 2, text("\ufffdb", origin=(5, 1))))


def test_only_what_is_new_of_deletes_is_relayed() -> None:
    document = document_of(update(section(5, 0, text("abcdefgh"))))
    assert document.apply_update(update(gone={5: [(2, 2)]})) == NEW
    flushed(document)
    assert document.apply_update(update(gone={5: [(2, 1)]})) == KNOWN
    assert document.apply_update(update(gone={5: [(1, 4)]})) == NEW
    assert flushed(document).delta == update(gone={5: [(1, 1), (4, 1)]})
    assert document.apply_update(update(gone={5: [(1, 4)]})) == KNOWN
    assert document.encode_state_as_update() == update(section(5, 0, text("abcdefgh")), gone={5: [(1, 4)]})


def test_the_same_delete_by_many_clients_in_one_turn_is_relayed_once() -> None:
    document = document_of(ABC)
    clean_up = update(gone={5: [(1, 1)]})
    assert [document.apply_update(clean_up).new for _ in range(3)] == [True, False, False]
    assert flushed(document).delta is clean_up


@pytest.mark.parametrize("struct", [gc(3), item(1, b"\3")], ids=["GC", "ContentDeleted"])
def test_structs_without_content_count_as_deleted(struct: bytes) -> None:
    document = Document()
    assert document.apply_update(update(section(5, 0, struct))) == NEW
    assert document.apply_update(update(gone={5: [(0, 3)]})) == KNOWN
    assert document.encode_state_as_update() == update(section(5, 0, struct), gone={5: [(0, 3)]})
    assert document.encode_state_as_update(document.encode_state_vector()) == update(gone={5: [(0, 3)]})


def test_a_struct_without_content_that_is_known_with_content_deletes_nothing() -> None:
    document = document_of(ABC)
    assert document.apply_update(update(section(5, 0, gc(5)))) == NEW
    assert document.encode_state_as_update() == update(section(5, 0, text("abc"), gc(2)), gone={5: [(3, 2)]})


@pytest.mark.parametrize("seed", SEEDS)
def test_containing_agrees_with_applying(seed: int) -> None:
    log = session(seed)
    choose = random.Random(seed)
    answers = set()
    for _ in range(size(60, small=20)):
        some = choose.randint(0, len(log))
        low = choose.randint(0, len(log) - 1)
        data = merge_updates(log[low : choose.randint(low + 1, len(log))])
        document = document_of(*log[:some])
        contained = document.contains_update(data)
        applied = document.apply_update(data)
        assert contained == (applied == KNOWN)
        answers.add(contained)
    assert answers == {True, False}


def test_asking_whether_it_is_contained_changes_nothing_and_refuses_what_is_malformed() -> None:
    document = document_of(ABC)
    assert not document.contains_update(update(section(5, 0, text("abcd"))))
    assert not document.contains_update(update(gone={5: [(0, 1)]}))
    assert not document.contains_update(update(gone={7: [(0, 1)]}))
    assert document.encode_state_as_update() == ABC
    assert document.flush() is None
    with pytest.raises(UpdateError):
        document.contains_update(ABC[:-1])


# Whole or not.


def test_the_whole_prefix_is_taken_and_the_rest_asked_for() -> None:
    document = document_of(ABC)
    data = update(
        section(7, 0, text("x", origin=(5, 2)), text("y", origin=(9, 4)), text("z", origin=(7, 1))),
        section(6, 0, text("v", origin=(7, 0)), text("w", origin=(7, 2))),
        gone={7: [(0, 3)], 5: [(0, 1)]},
    )
    assert document.apply_update(data)[:2] == (True, (9, 4))
    assert document.lacks(9, 4) and document.lacks(7, 1) and not document.lacks(7, 0)
    assert flushed(document).delta == update(
        section(7, 0, text("x", origin=(5, 2))),
        section(6, 0, text("v", origin=(7, 0))),
        gone={7: [(0, 1)], 5: [(0, 1)]},
    )
    # When it comes again with what it waited for, all of it gets in.
    assert document.apply_update(update(section(9, 0, text("12345")))) == NEW
    assert document.apply_update(data) == NEW
    assert decode_state_vector(document.encode_state_vector()) == {5: 3, 6: 2, 7: 3, 9: 5}
    assert document.contains_update(data)


def test_a_gap_is_asked_for() -> None:
    document = document_of(ABC)
    assert document.apply_update(update(section(5, 4, text("e", origin=(5, 3)))))[:2] == (False, (5, 3))
    gap = update(section(5, 0, text("abc"), skip(1), text("e", origin=(5, 3))))
    assert document.apply_update(gap)[:2] == (False, (5, 3))
    assert document.flush() is None
    # A gap whose clocks are known is none.
    assert document.apply_update(update(section(5, 0, skip(2), text("cd", origin=(5, 1))))) == NEW
    assert flushed(document).delta == update(section(5, 3, text("d", origin=(5, 2))))


def test_pending_deletes_are_asked_for() -> None:
    document = document_of(ABC)
    assert document.apply_update(update(gone={5: [(2, 3)]}))[:2] == (True, (5, 3))
    assert flushed(document).delta == update(gone={5: [(2, 1)]})
    assert document.apply_update(update(gone={8: [(4, 1)]}))[:2] == (False, (8, 0))
    assert document.flush() is None
    # Deletes of what the update itself brings are not pending.
    assert document.apply_update(update(section(5, 3, text("de", origin=(5, 2))), gone={5: [(2, 3)]})) == NEW


def test_what_was_deleted_before_it_was_sent_is_taken_once() -> None:
    """An update may bring content that is known beside content that is new, both deleted by its author."""
    document = document_of(update(section(5, 0, item(1, b"\3"))))
    data = update(section(5, 0, item(1, b"\3"), text("d", origin=(5, 2)), item(1, b"\2", origin=(5, 3))))
    assert document.apply_update(data) == NEW
    assert document.encode_state_as_update() == data[:-1] + deletes({5: [(0, 3), (4, 2)]})


def test_an_edit_that_others_bring_between_the_slices_is_not_taken_twice() -> None:
    many = update(*(section(client, 0, text("a")) for client in range(2_000, 0, -1)))
    first = update(section(2_000, 0, text("a")))
    steps = sum(1 for _ in Document().apply_update_in_slices(many))
    document = Document()
    slices = document.apply_update_in_slices(many)
    for _ in range(steps):
        next(slices)
    assert document.apply_update(first) == NEW
    with pytest.raises(StopIteration) as stop:
        next(slices)
    assert stop.value.value == NEW
    turn = flushed(document)
    assert document_of(turn.delta).encode_state_as_update() == document.encode_state_as_update() == many


def test_an_update_of_many_clients_is_known() -> None:
    document = document_of(update(*(section(client, 0, gc(1)) for client in range(1_200, 0, -1))))
    document.flush()
    for data in (
        document.encode_state_as_update(),
        update(gone={client: [(0, 1)] for client in range(1, 1_200)}),
        update(section(1, 0, gc(1)), gone={client: [(0, 1)] for client in range(1, 1_200)}),
    ):
        assert document.contains_update(data)
        assert document.apply_update(data) == KNOWN
    assert document.flush() is None


def test_an_update_that_names_a_client_twice_is_known_by_its_ranges() -> None:
    sections = section(6, 0, text("b")), section(5, 0, text("a" * 9))
    document = document_of(update(*sections, gone={6: [(0, 1)], 5: [(0, 1), (2, 1)]}))
    twice = b"\0\3" + b"".join(deletes({client: [(at, 1)]})[1:] for client, at in ((5, 0), (6, 0), (5, 2)))
    assert document.contains_update(twice)
    assert not document.contains_update(twice[:-2] + b"\3\1")


@pytest.mark.parametrize("what", ["origin", "right", "parent"])
def test_structs_that_wait_for_each_other_are_not_whole(what: str) -> None:
    def waiting(other: int, clock: int) -> bytes:
        return text("a", **{what: (other, clock)})  # type: ignore[arg-type]

    two = update(section(6, 0, waiting(5, 0)), section(5, 0, waiting(6, 0)))
    three = update(section(7, 0, waiting(5, 0)), section(6, 0, waiting(7, 0)), section(5, 0, waiting(6, 0)))
    for data in (two, three):
        document = Document()
        applied = document.apply_update(data)
        assert not applied.new
        assert applied.missing is not None and document.lacks(*applied.missing)
        assert (document.flush(), document.encode_state_as_update()) == (None, b"\0\0")


def test_clients_that_refer_to_each_other_by_turns_are_whole() -> None:
    """Each goes on only as far as the other has come."""
    count = size(5_000, small=1_000)
    ones = [text("a", parent="r"), *(text("a", origin=(6, at)) for at in range(count - 1))]
    others = [text("b", origin=(5, at)) for at in range(count)]
    for sections in ((section(6, 0, *others), section(5, 0, *ones)), (section(5, 0, *ones), section(6, 0, *others))):
        document = Document()
        data = update(*sections)
        assert lines(lambda applying=document, data=data: applying.apply_update(data)) < 300 * count  # type: ignore[misc]
        assert decode_state_vector(document.encode_state_vector()) == {5: count, 6: count}
        assert flushed(document).delta is data


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_chain_over_many_clients_is_linear(order: str, whole: bool) -> None:
    count = size(20_000, small=4_000)
    clients = list(range(1, count + 1))
    if order == "descending":
        clients.reverse()
    elif order == "shuffled":
        random.Random(1).shuffle(clients)
    # Each waits for the next; the last for nothing, or for what nobody has.
    data = update(
        *(
            section(client, 0, text("a") if whole and client == count else text("a", origin=(client + 1, 0)))
            for client in clients
        )
    )
    document = Document()
    read = read_update(data)
    applied: list[Applied] = []
    assert calls(lambda: applied.append(document.apply_update(read))) < 60 * count
    if whole:
        assert applied == [NEW]
        assert flushed(document).delta is data
    else:
        assert [each[:2] for each in applied] == [(False, (count + 1, 0))]
        assert document.flush() is None


def test_many_that_wait_for_one_are_linear() -> None:
    count = size(10_000, small=2_000)
    sections = [section(client, 0, text("a", origin=(1, client - 2))) for client in range(2, count + 2)]
    data = update(*sections, section(1, 0, *(text("a", parent="r") for _ in range(count))))
    document = Document()
    read = read_update(data)
    assert calls(lambda: document.apply_update(read)) < 80 * count
    assert flushed(document).delta is data


@pytest.mark.parametrize("what", ["origin", "right", "parent"])
@pytest.mark.parametrize("clock", [1, 2, 2**40])
def test_an_origin_of_the_own_future_is_refused(what: str, clock: int) -> None:
    """yrs takes it and yjs can never open the document again."""
    document = document_of(update(section(5, 0, text("a"))))
    struct = text("b", **{what: (5, clock)})  # type: ignore[arg-type]
    with pytest.raises(UpdateError, match="before"):
        document.apply_update(update(section(5, 1, struct)))


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_gets_everything_in_when_what_is_not_whole_comes_again(seed: int) -> None:
    log = session(seed)
    document, waiting = Document(), list(log)
    random.Random(seed).shuffle(waiting)
    for _ in log:
        waiting = [data for data in waiting if document.apply_update(data).missing is not None]
    assert not waiting
    assert document.encode_state_vector() == document_of(*log).encode_state_vector()
    assert reader_of(flushed(document).delta).view() == reader_of(*log).view()


def test_a_log_out_of_order_is_opened() -> None:
    log = session(3)
    assert (
        at_once(Document.load(None, None, log[::-1])).encode_state_vector() == document_of(*log).encode_state_vector()
    )
    assert at_once(Document.load(None, None, log)).flush() is None


def test_a_log_with_a_gap_is_opened_with_what_is_whole_and_the_rest_waits() -> None:
    beyond = update(section(5, 4, text("e", origin=(5, 3))))
    document = at_once(Document.load(None, None, [ABC, beyond]))
    assert document.waiting == [(beyond, (5, 3))]
    assert document.encode_state_as_update() == document_of(ABC).encode_state_as_update()
    assert document.flush() is None
    assert not document.apply_waiting() and len(document.waiting) == 1
    document.apply_update(update(section(5, 3, text("d", origin=(5, 2)))))
    assert document.flush() is not None
    assert document.apply_waiting() and document.waiting == []
    assert flushed(document).rows[0].author is None
    assert (
        reader_of(document.encode_state_as_update()).view()
        == reader_of(ABC, beyond, update(section(5, 3, text("d", origin=(5, 2))))).view()
    )


def test_a_row_that_is_whole_in_part_brings_that_part() -> None:
    both = update(section(6, 0, text("x", parent="r")), section(5, 4, text("e", origin=(5, 3))))
    document = at_once(Document.load(None, None, [ABC, both]))
    assert not document.lacks(6, 0) and document.waiting == [(both, (5, 3))]
    # A client that has all of it brings what waited as well: the row says nothing new any more.
    document.apply_update(update(section(5, 3, text("de", origin=(5, 2)))))
    flushed(document)
    assert not document.apply_waiting() and document.waiting == []


def test_rows_that_wait_for_each_other_come_together() -> None:
    rows = [update(section(client, 0, text("x", origin=(client + 1, 0)))) for client in range(10, 20)]
    document = at_once(Document.load(None, None, rows))
    assert len(document.waiting) == 10
    assert document.apply_stored(update(section(20, 0, text("y", parent="r")))).new
    assert document.apply_waiting() and document.waiting == []
    assert not document.lacks(10, 0)


def test_a_stored_row_that_is_not_whole_waits() -> None:
    document = document_of(ABC)
    row = update(section(5, 4, text("e", origin=(5, 3))))
    assert document.apply_stored(row)[:2] == (False, (5, 3))
    assert document.waiting == [(row, (5, 3))]
    assert not document.apply_stored(ABC).new and len(document.waiting) == 1


# What joiners get.


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("snapshot", [False, True])
def test_step_2_brings_every_older_state_up_to_date(seed: int, snapshot: bool) -> None:
    log = session(seed)
    document = document_of(*log)
    if snapshot:
        put_snapshot_under(document)
    view = reader_of(*log).view()
    for known in range(0, len(log) + 1, 5):
        client = reader_of(*log[:known])
        client.read(document.encode_state_as_update(client.doc.get_state()))
        assert client.view() == view
        assert decode_state_vector(client.doc.get_state()) == decode_state_vector(document.encode_state_vector())


def test_step_2_for_whoever_has_nothing_all_or_more() -> None:
    document = document_of(update(section(6, 0, text("d")), section(5, 0, text("abc")), gone={5: [(0, 1)]}))
    assert document.encode_state_as_update(b"\0") == document.encode_state_as_update()
    assert document.encode_state_as_update(document.encode_state_vector()) == update(gone={5: [(0, 1)]})
    more = encode_state_vector({5: 9, 6: 9, 7: 9})
    assert document.encode_state_as_update(more) == update(gone={5: [(0, 1)]})
    assert document.encode_state_as_update(encode_state_vector({5: 1})) == update(
        section(6, 0, text("d")), section(5, 1, text("bc", origin=(5, 0))), gone={5: [(0, 1)]}
    )


@pytest.mark.parametrize(
    "vector", ["", "01", "0105", "0205010501", "0205010502", "0205030502", "ffffff7f", "010501" + "00"]
)
def test_a_bad_vector_is_refused(vector: str) -> None:
    with pytest.raises(DecodeError):
        document_of(ABC).encode_state_as_update(bytes.fromhex(vector))


def test_cuts_anywhere_in_a_long_tail() -> None:
    """Through marks, over a snapshot, and inside strings with surrogate pairs."""
    document, whole = Document(), []
    for at in range(3_000):
        whole.append(text("a😀", origin=(5, at * 3 - 1)) if at else text("a😀"))
        document.apply_update(update(section(5, at * 3, whole[-1])))
        if at == 1_500:
            document.flush()
            put_snapshot_under(document)
    for known in (1, 2, 3, 4_000, 4_502, 4_503, 4_504, 7_777, 8_998):
        [left] = read_update(document.encode_state_as_update(encode_state_vector({5: known}))).sections
        assert (left.clock, left.end) == (known, 9_000)
    cut = document.encode_state_as_update(encode_state_vector({5: 8_993}))
    assert cut == update(section(5, 8_993, text("\ufffd", origin=(5, 8_992)), *whole[-2:]))


# Snapshots.


@pytest.mark.parametrize("seed", SEEDS)
def test_rebase_keeps_what_came_since_and_the_turn(seed: int) -> None:
    log = session(seed, edits=90)
    choose = random.Random(seed)
    document, plain = Document(), Document()
    rows: list[bytes] = []
    made: tuple[bytes, bytes, bytes] | None = None
    based = 0
    for data in log:
        assert document.apply_update(data) == plain.apply_update(data)
        action = choose.random()
        if action < 0.15:
            compacted = compact(document.encode_state_as_update())
            made = compacted.data, compacted.index, document.encode_state_vector()
            if choose.random() < 0.5:
                document.note_end()
        elif action < 0.35 and made is not None:
            version = document.version
            document.rebase(*made)
            assert document.version == version
            made = None
            based += 1
        elif action < 0.6:
            turn = document.flush()
            assert turn == plain.flush()
            rows += [turn.delta] if turn else []
    assert based > 2
    turn = document.flush()
    assert turn == plain.flush()
    rows += [turn.delta] if turn else []
    assert document.encode_state_vector() == plain.encode_state_vector()
    # Compaction names values of keys that were set at once as deleted, of which no update says it.
    assert document.contains_update(plain.encode_state_as_update())
    view = reader_of(*log).view()
    assert reader_of(document.encode_state_as_update()).view() == reader_of(*rows).view() == view
    for data in log:
        assert document.apply_update(data) == KNOWN


def test_where_a_snapshot_ends_is_not_looked_for_after_it_was_noted() -> None:
    def typed(noted: bool) -> tuple[Document, int]:
        document = Document()
        for clock in range(400):
            document.apply_update(update(section(5, clock, text("x", origin=(5, clock - 1)) if clock else text("x"))))
            if clock == 299:
                made = compact(document.encode_state_as_update())
                vector = document.encode_state_vector()
                if noted:
                    document.note_end()
                    document.note_end()  # once more changes nothing
        work = lines(lambda: document.rebase(made.data, made.index, vector))
        return document, work

    (document, work), (other, more) = typed(noted=True), typed(noted=False)
    assert document.encode_state_as_update() == other.encode_state_as_update()
    assert document.size == other.size
    assert 10 * work < more


def test_rebase_in_the_middle_of_a_struct_of_the_tail() -> None:
    document = document_of(ABC)
    snapshot = (
        document.encode_state_as_update(),
        encode_index(document.encode_state_as_update()),
        document.encode_state_vector(),
    )
    document.apply_update(
        update(section(5, 3, text("defg", origin=(5, 2))), section(9, 0, text("x")), gone={5: [(4, 1)]})
    )
    # The same content, as another node has stored it.
    other = update(section(5, 0, text("abcde")))
    document.rebase(other, encode_index(other), encode_state_vector({5: 5}))
    assert document.encode_state_as_update() == update(
        section(9, 0, text("x")), section(5, 0, text("abcde"), text("fg", origin=(5, 4))), gone={5: [(4, 1)]}
    )
    assert flushed(document).delta
    with pytest.raises(ValueError, match="not one of this document"):
        document.rebase(*snapshot)


def test_a_snapshot_that_does_not_belong_is_refused_and_changes_nothing() -> None:
    document = document_of(ABC, update(section(6, 0, text("x"))))
    before = document.encode_state_as_update()
    longer = update(section(5, 0, text("abcd")))
    for snapshot, index, vector in (
        (ABC, encode_index(ABC), encode_state_vector({5: 3, 6: 1})),
        (ABC, b"", encode_state_vector({5: 3})),
        (longer, encode_index(longer), encode_state_vector({5: 4})),
    ):
        with pytest.raises(ValueError, match="snapshot"):
            document.rebase(snapshot, index, vector)
        assert document.encode_state_as_update() == before
    with pytest.raises(DecodeError):
        document.rebase(ABC + b"\0", encode_index(ABC), encode_state_vector({5: 3}))
    stranger = update(section(7, 0, text("s")), section(6, 0, text("x")), section(5, 0, text("abc")))
    with pytest.raises(ValueError, match="not one of this document"):
        document.rebase(stranger, encode_index(stranger), encode_state_vector({7: 1, 6: 1, 5: 3}))
    assert document.encode_state_as_update() == before


# What it costs.


def typed(client: int, count: int) -> list[bytes]:
    """One character an update."""
    return [update(section(client, at, text("a", origin=(client, at - 1)) if at else text("a"))) for at in range(count)]


def sizes() -> dict[str, list[bytes]]:
    client, many = 3_000_000_000, size(2_000, small=600)
    return {
        "typing": typed(client, many),
        "typing, all deleted": [*typed(client, many), *(update(gone={client: [(at, 1)]}) for at in range(many))],
        "backspace": [
            *typed(client, many),
            *(update(gone={client: [(at, 1)]}) for at in range(many - 1, many // 4, -1)),
        ],
        "holes": [*typed(client, many), *(update(gone={client: [(at, 1)]}) for at in range(0, many, 2))],
        "a large delete set": [*typed(client, many), update(gone={client: [(at, 2) for at in range(0, many - 2, 4)]})],
        "clients": [update(section(one, 0, text("a"))) for one in range(2**31, 2**31 + many // 2)],
        "clients at once": [update(*(section(one, 0, text("a")) for one in range(2**31, 2**31 + many // 2)))],
        "GC": [update(*(section(one, 0, gc(9)) for one in range(2**31, 2**31 + many // 2)))],
        "real": session(5, edits=200),
    }


SIZES = sizes()


@pytest.mark.parametrize("name", SIZES)
def test_the_size_is_within_5_percent(name: str) -> None:
    def check(document: Document) -> None:
        exact = len(document.encode_state_as_update())
        assert abs(document.size - exact) <= max(0.05 * exact, 40)

    document = Document()
    for at, data in enumerate(SIZES[name]):
        document.apply_update(data)
        if at % 300 == 0:
            check(document)
    check(document)
    rows = SIZES[name]
    half = document_of(*rows[: len(rows) // 2])
    opened = at_once(
        Document.load(
            half.encode_state_as_update(), encode_index(half.encode_state_as_update()), rows[len(rows) // 2 :]
        )
    )
    check(opened)
    made = half.encode_state_as_update(), encode_index(half.encode_state_as_update()), half.encode_state_vector()
    document.rebase(*made)
    check(document)
    put_snapshot_under(document)
    check(document)


@pytest.mark.parametrize("sliced", [False, True])
def test_a_client_named_many_times_is_compared_once(sliced: bool) -> None:
    """Each comparison costs the client's whole entry, and an update may name it millions of times."""

    def work(deleted: int) -> int:
        gone = [(at * 2, 1) for at in range(deleted)]
        document = document_of(update(section(5, 0, text("a" * 60_000)), gone={5: gone}))
        data = b"\0" + encode_var_uint(2_000) + deletes({5: [(0, 1), (2, 1)]})[1:] * 2_000
        call = (
            (lambda: at_once(document.contains_update_in_slices(data)))
            if sliced
            else (lambda: document.apply_update(data))
        )
        assert call() in (True, KNOWN)
        return lines(call)

    assert work(size(30_000, small=6_000)) < 1.5 * work(200)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_step_2_for_any_share_of_many_clients(seed: int, share: float) -> None:
    """Whether little is lacking or most: each client's structs from the clock that is named, and no others."""
    rand = random.Random(seed)
    document = crowd(40, since=15)
    for one in rand.sample(range(1, 41), 12):
        document.apply_update(update(section(one, 1, text("bc", origin=(one, 0)))))
    clocks = decode_state_vector(document.encode_state_vector())
    vector = {one: clock for one, clock in clocks.items() if rand.random() < share}
    for one in rand.sample(sorted(vector), len(vector) // 3):
        vector[one] = rand.randrange(4)
    vector[1_000] = 7
    read = read_update(document.encode_state_as_update(encode_state_vector(vector)))
    assert [(found.client, found.clock, found.end) for found in read.sections] == [
        (one, vector.get(one, 0), clock)
        for one, clock in sorted(clocks.items(), reverse=True)
        if vector.get(one, 0) < clock
    ]
    assert len(read.deletes) == 25


def test_a_vector_with_a_second_clock_for_a_client_is_refused() -> None:
    document = document_of(update(section(6, 0, text("d")), section(5, 0, text("abc"))))
    for vector in ("0305030502" + "0601", "02" + "0502" + "0503"):
        with pytest.raises(DecodeError):
            document.encode_state_as_update(bytes.fromhex(vector))


def test_the_vector_of_the_last_flush_knows_nothing_of_the_turn_since() -> None:
    document = Document()
    document.apply_update(update(section(1, 0, text("ab")), section(2, 0, text("x"))))
    assert document.in_turn and document.encode_flushed_vector() == encode_state_vector({})
    document.flush()
    flushed = document.encode_state_vector()
    assert not document.in_turn and document.encode_flushed_vector() == flushed
    document.apply_update(update(section(1, 2, text("c", origin=(1, 1)))))
    document.apply_update(update(section(1, 3, text("d", origin=(1, 2))), section(3, 0, text("y"))))
    assert document.in_turn and document.encode_flushed_vector() == flushed
    assert decode_state_vector(document.encode_state_vector()) == {1: 4, 2: 1, 3: 1}


def test_the_clock_of_a_client_is_the_one_behind_its_last() -> None:
    document = document_of(update(section(1, 0, text("ab")), section(2, 0, text("x"))))
    put_snapshot_under(document)
    assert (document.clock(1), document.clock(2), document.clock(3)) == (2, 1, 0)
    document.apply_update(update(section(2, 1, text("y", origin=(2, 0))), section(3, 0, text("z"))))
    assert (document.clock(1), document.clock(2), document.clock(3)) == (2, 2, 1)


def crowd(clients: int, since: int) -> Document:
    """A document that so many clients have edited, some of them since its snapshot was made."""
    half = clients - since
    snapshot = update(
        *(section(one, 0, text("a")) for one in range(half, 0, -1)), gone={one: [(0, 1)] for one in range(half, 0, -1)}
    )
    document = at_once(Document.load(snapshot, encode_index(snapshot), []))
    assert document.apply_update(update(*(section(one, 0, text("a")) for one in range(half + 1, clients + 1)))) == NEW
    document.flush()
    return document


def edits(document: Document) -> dict[str, Callable[[], object]]:
    """What happens to a document between two joins: each of these for the clients 1 (stored) and 9 million (new)."""
    new = 9_000_000
    return {
        "first": lambda: document.apply_update(update(section(new, 0, text("a", origin=(1, 0))))),
        "flush": document.flush,
        "next": lambda: document.apply_update(update(section(new, 1, text("b", origin=(new, 0))))),
        "of a stored client": lambda: document.apply_update(update(section(1, 1, text("b", origin=(1, 0))))),
        "of two clients": lambda: document.apply_update(
            update(section(new, 2, text("c", origin=(new, 1))), section(1, 2, text("b", origin=(1, 1))))
        ),
        "delete": lambda: document.apply_update(update(gone={new: [(1, 1)]})),
        "delete again": lambda: document.apply_update(update(gone={new: [(1, 1)]})),
        "delete of a stored client": lambda: document.apply_update(update(gone={1: [(1, 1)]})),
        "not whole": lambda: document.apply_update(update(section(1, 9, text("b", origin=(1, 8))))),
        "known": lambda: document.contains_update(update(section(1, 0, text("a")))),
        "flush of many": document.flush,
    }


@pytest.mark.parametrize("count", [lines, calls])
def test_an_edit_does_not_depend_on_the_number_of_clients(count: Callable[[Callable[[], object]], int]) -> None:
    """Whether they came before the snapshot or since; finding one takes a few more steps of a bisection."""

    def work(document: Document) -> dict[str, int]:
        return {name: count(edit) for name, edit in edits(document).items()}

    few = work(crowd(4, since=2))
    for since in (MANY // 2, MANY - 2):
        many = work(crowd(MANY, since))
        assert {name: many[name] for name in few if many[name] > few[name] + 100} == {}


def test_joining_does_not_depend_on_the_number_of_clients() -> None:
    """But for the bytes that are copied."""

    def work(document: Document) -> tuple[int, int]:
        document.apply_update(update(section(1, 1, text("b", origin=(1, 0)))))
        return lines(document.encode_state_vector), lines(lambda: document.encode_state_as_update(b"\0"))

    few, many = work(crowd(4, since=2)), work(crowd(MANY, since=2))
    assert many[0] <= few[0] + 50
    assert many[1] <= few[1] + 50


def test_no_step_of_a_large_first_sync_is_long() -> None:
    shapes: dict[str, bytes] = {
        "clients": update(*(section(one, 0, text("a")) for one in range(10_000, 0, -1))),
        "references": update(
            section(6, 0, *(text("a", origin=(5, at)) for at in range(9_000))), section(5, 0, text("a" * 9_000))
        ),
        "deletes": update(section(5, 0, gc(60_000)), gone={5: [(at * 2, 1) for at in range(20_000)]}),
        "GC": update(section(5, 0, *(gc(1), text("a", parent="r")) * 8_000)),
        "clients without deletes": b"\0" + encode_var_uint(100_000) + deletes({7: []})[1:] * 100_000,
    }
    for name, data in shapes.items():
        document = Document()
        slices = document.apply_update_in_slices(data)
        most = steps = 0
        done: list[Any] = []

        def step(slices: Generator[None, None, Applied] = slices, done: list[Any] = done) -> None:
            try:
                next(slices)
            except StopIteration as stop:
                done.append(stop.value)

        counts = []
        while not done:
            counts.append(lines(step))
            steps += 1
        # The last one commits at once what the others have prepared.
        most = max(counts[:-1])
        assert steps > 5, name
        assert most < 100_000, name
        assert counts[-1] < 25 * 10_000, name


DENSE: dict[str, bytes] = {
    "deletes": update(gone={5: [(at, 1) for at in range(0, 14_000, 2)]}),
    "deletes in no order": update(gone={5: [(at * 5_003 % 14_000 // 2 * 2, 1) for at in range(7_000)]}),
    "GC": update(section(6, 0, *(gc(1), text("a", parent="r")) * 3_000)),
    "clients": update(*(section(one, 0, gc(1)) for one in range(5_000, 1_000, -1))),
    "values": update(section(6, 0, b"\x08\x01\x01t" + encode_var_uint(32_000) + b"\x7f" * 32_000)),
    "references": update(section(6, 0, *(text("a", origin=(5, at)) for at in range(2_800)))),
}


@pytest.mark.parametrize("name", DENSE)
def test_what_is_small_and_much_work_is_done_in_slices(name: str) -> None:
    """Each is less than 32 KB, as a long paste, which is one slice."""
    data = DENSE[name]
    document = document_of(update(section(5, 0, text("x" * 20_000))))
    document.flush()
    document.apply_update(update(gone={5: [(18_000, 1)]}))
    assert len(data) < 32_768
    counts, done = lines_of_slices(document.apply_update_in_slices(data))
    assert done == NEW
    assert len(counts) > 5 and max(counts) < 60_000, (len(counts), max(counts))
    # Its deletes were made ready too: a turn that it shares with another update only puts bytes together.
    turns: list[Turn | None] = []
    assert lines(lambda: turns.append(document.flush())) < (120_000 if name == "clients" else 20_000)
    (turn,) = turns
    assert turn is not None
    again = document_of(update(section(5, 0, text("x" * 20_000))), turn.delta)
    assert again.encode_state_as_update() == document.encode_state_as_update()


def test_a_long_paste_is_one_slice() -> None:
    paste = update(section(6, 0, text("x" * 30_000)))
    assert sum(1 for _ in Document().apply_update_in_slices(paste)) == 0


def text_of(part: int) -> bytes:
    origin = (9_999, part * 6_000 - 1) if part else None
    return update(section(9_999, part * 6_000, text("x" * 6_000, origin=origin)))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("stored", [False, True])
def test_a_copy_goes_its_own_way(seed: int, stored: bool) -> None:
    updates = session(seed, edits=80)
    document = document_of(*updates[:40])
    if stored:
        snapshot = compact(document.encode_state_as_update())
        document.rebase(snapshot.data, snapshot.index, document.encode_state_vector())
    # A second run puts marks into a tail.
    for data in (*(text_of(at) for at in range(3)), *updates[40:60]):
        document.apply_update(data)
    document.flush()
    before = document.encode_state_as_update()
    copy = document.copy()
    assert copy.encode_state_as_update() == before and copy.size == document.size and not copy.in_turn
    assert (copy.clients, copy.tail_clients) == (document.clients, document.tail_clients) and copy.clients > 1
    for data in updates[60:]:
        copy.apply_update(data)
    assert document.encode_state_as_update() == before and not document.in_turn
    for data in updates[60:]:
        document.apply_update(data)
    assert document.encode_state_as_update() == copy.encode_state_as_update()
    assert document.encode_state_vector() == copy.encode_state_vector() and document.size == copy.size
