"""Answers that are put together as they leave: byte for byte what they were promised to be, and next to no memory.

Strategy: the oracle is ``diff_update``, which cuts the whole document by reading all of it. What was collected is read
after more edits, more questions and new snapshots, as a slow socket reads it.
"""

from __future__ import annotations

import random

import pytest

from collab.engine.answers import collect, compare
from collab.engine.document import Document, at_once
from collab.update.compact import compact
from collab.update.index import encode_index
from collab.update.merge import diff_update
from collab.update.parts import Cursor, Parts
from collab.update.reader import read_update
from collab.update.state_vector import decode_state_vector, encode_state_vector
from tests.support.build import deletes, reader_of, section, session, text, update
from tests.support.needs import size

MEGABYTE = 1_000_000


def sections(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = read_update(data)
    return [(one.client, one.clock, one.count, data[one.start : one.stop]) for one in found.sections]


def put_snapshot_under(document: Document) -> None:
    compacted = compact(document.encode_state_as_update())
    document.rebase(compacted.data, compacted.index, document.encode_state_vector())


@pytest.mark.parametrize("seed", range(size(40, small=10)))
def test_what_was_collected_is_what_was_encoded_whatever_comes_before_it_is_read(seed: int) -> None:
    choose = random.Random(seed)
    document = Document()
    promised: list[tuple[Parts, bytes, Cursor, list[bytes]]] = []
    for data in session(seed, clients=choose.choice((1, 2, 9)), edits=120):
        document.apply_update(data)
        if choose.random() < 0.3:
            document.flush()
        if choose.random() < 0.04:
            document.flush()
            put_snapshot_under(document)
        if choose.random() < 0.2:
            has = decode_state_vector(document.encode_state_vector())
            vector = encode_state_vector(
                {
                    client: choose.choice((0, clock, choose.randint(0, clock), clock + 5))
                    for client, clock in has.items()
                    if choose.random() < 0.7
                }
            )
            vector = choose.choice((vector, b"\0", document.encode_state_vector()))
            encoded = document.encode_state_as_update(vector)
            whole = document.encode_state_as_update()
            lacking = diff_update(whole, decode_state_vector(vector))
            assert sections(encoded) == sections(lacking)
            assert encoded[read_update(encoded).deletes_start :] == lacking[read_update(lacking).deletes_start :]
            for parts in (
                document.collect_state_as_update(vector),
                at_once(collect(document, at_once(compare(document, vector)))),
            ):
                assert parts.nbytes == len(encoded)
                promised.append((parts, encoded, Cursor(parts), []))
        for _, _, cursor, read in choose.sample(promised, min(3, len(promised))):
            if cursor.left:
                read += [bytes(buffer) for buffer in cursor.take(choose.choice((1, 50, 700)))]
    assert promised
    for parts, encoded, cursor, read in promised:
        assert parts.join() == encoded
        while cursor.left:
            read += [bytes(buffer) for buffer in cursor.take(300)]
        assert b"".join(read) == encoded
    # Whoever has what one answer holds has what the document was then.
    parts, encoded, _, _ = next(one for one in promised if one[1] != b"\0\0")
    if encoded[:1] != b"\0" and all(one[1] == 0 for one in sections(encoded)):
        reader_of(parts.join())


def stored(data: bytes) -> Document:
    return at_once(Document.load(data, encode_index(data), ()))


@pytest.mark.parametrize("letter", ["x", "ü", "日", "😀"])
@pytest.mark.parametrize("kind", ["a snapshot", "a tail", "a tail of many runs"])
def test_a_question_of_its_own_costs_no_copy_of_a_long_text(letter: str, kind: str) -> None:
    """Issue 11: each reader that asked in other words held a copy of the document."""
    units = len(letter.encode("utf-16-le")) // 2
    letters = MEGABYTE // len(letter.encode())
    data = update(section(5, 0, text(letter * letters)))
    document = stored(data) if kind == "a snapshot" else Document()
    if kind == "a tail":
        document.apply_update(data)
    elif kind == "a tail of many runs":
        for at in range(0, letters, letters // 100):
            origin = (5, at * units - 1) if at else None
            document.apply_update(update(section(5, at * units, text(letter * (letters // 100), origin=origin))))
    answers = [document.collect_state_as_update(encode_state_vector({5: units * 7 * n + 1})) for n in range(1, 50)]
    assert sum(parts.nbytes for parts in answers) > 45 * MEGABYTE
    assert max(parts.held for parts in answers) < 4_000
    runs = {id(run): len(run) for parts in answers for run in parts._runs}
    assert sum(runs.values()) < 1.1 * MEGABYTE, "all refer to the same bytes"
    for n in (1, 20, 48):
        known = units * 7 * (n + 1) + 1
        encoded = answers[n].join()
        assert encoded == document.encode_state_as_update(encode_state_vector({5: known}))
        assert read_update(encoded).sections[0].clock == known


def test_an_answer_that_cuts_thousands_of_sections_costs_a_part_of_it() -> None:
    clients = range(100_000, 103_000)
    texts = [text("a"), text("b" * 300, origin=(9, 1))]
    document = stored(update(*(section(client, 0, *texts) for client in reversed(clients))))
    parts = document.collect_state_as_update(encode_state_vector(dict.fromkeys(clients, 1)))
    assert parts.nbytes > 300 * len(clients) and parts.held < parts.nbytes / 6
    assert len({id(run) for run in parts._runs}) == 1


def test_answers_share_a_long_delete_set_though_more_is_deleted_between_them() -> None:
    gone = {5: [(clock, 1) for clock in range(0, 40_000, 2)]}
    data = update(section(5, 0, text("x" * 100_000)), gone=gone)
    for document in (stored(data), Document()):
        document.apply_update(data)
        answers = []
        for clock in range(50_000, 50_200, 4):
            document.apply_update(b"\0" + deletes({5: [(clock, 1)]}))
            answers.append(document.collect_state_as_update(b"\x01\x05\x01"))
        length = len(deletes(gone))
        assert sum(parts.held for parts in answers) < 50 * length / 8
        runs = {id(run): len(run) for parts in answers for run in parts._runs}
        assert sum(runs.values()) < 100_000 + 4 * length
        assert answers[-1].join() == document.encode_state_as_update(b"\x01\x05\x01")


def test_a_client_with_nothing_to_tell_is_known_by_the_pieces_it_was_sent() -> None:
    gone = {5: [(clock, 1) for clock in range(0, 40_000, 2)]}
    document = Document()
    document.apply_update(update(section(5, 0, text("x" * 100_000)), gone=gone))
    answer = document.collect_state_as_update(b"\x01\x05\x01").join()
    told = b"\0" + answer[read_update(answer).deletes_start :]
    assert document._deletes._encoded is None and document._deletes.was_encoded_as(told, 1)
    assert not document._deletes.was_encoded_as(told[:-1] + b"\x02", 1)
    assert not document._deletes.was_encoded_as(told + b"\0", 1)
    document.apply_update(b"\0" + deletes({5: [(90_000, 1)]}))
    assert not document._deletes.was_encoded_as(told, 1)


def test_pieces_of_deletes_that_were_gathered_while_something_was_deleted_are_not_kept() -> None:
    clients = range(1_000, 2_000)
    document = Document()
    at_once(document.apply_update_in_slices(update(*(section(c, 0, text("abc")) for c in reversed(clients)))))
    for client in clients:
        document.apply_update(b"\0" + deletes({client: [(1, 1)]}))
    work = document.deletes()
    next(work)
    document.apply_update(b"\0" + deletes({clients[0]: [(0, 1)]}))
    at_once(work)
    assert document._deletes._pieces is None
    assert at_once(document.deletes()) is at_once(document.deletes())
