"""Answers in slices say what the answer in one go says, and no slice is much work.

Strategy: the document's own encoder is the oracle, while nothing else happens. What is edited between two slices has
tests of its own, with a real CRDT that has been sent the edits.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.engine.answers import LONG, WIDE, Comparison, collect, compare, takes_long
from collab.engine.document import Document, at_once
from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint
from collab.update.index import encode_index
from collab.update.parts import join
from collab.update.reader import read_update
from collab.update.state_vector import decode_state_vector, encode_state_vector
from tests.support.author import Author, content
from tests.support.build import lines_of_slices
from tests.support.needs import size

CLIENTS = range(1_000, 1_040)


def edits(clients: Sequence[int], clock: int = 0) -> bytes:
    """Make an update in which each of these clients writes two letters."""
    heads = [b"\x02" + encode_var_uint(client) + encode_var_uint(clock) for client in sorted(clients, reverse=True)]
    structs = b"\x04\x01\x01t\x01a" + b"\x04\x01\x01t\x01b"
    return encode_var_uint(len(heads)) + b"".join(head + structs for head in heads) + b"\0"


def written(snapshot: Sequence[int], tail: Sequence[int], on: Sequence[int] = ()) -> Document:
    """Make a document of clients in a snapshot, others behind it, and some who have written on since."""
    document = Document()
    if snapshot:
        data = edits(snapshot)
        document = at_once(Document.load(data, encode_index(data), ()))
    for update in (edits(tail), edits(on, 2)):
        at_once(document.apply_update_in_slices(update))
    document.flush()
    return document


def answered(document: Document, vector: bytes) -> bytes:
    return at_once(collect(document, at_once(compare(document, vector)))).join()


@given(st.integers(0, 3), st.dictionaries(st.sampled_from(CLIENTS) | st.integers(1, 5), st.integers(0, 6)))
def test_in_slices_the_answer_is_the_same(kind: int, vector: dict[int, int]) -> None:
    first, second, third = CLIENTS[:20], CLIENTS[20:], CLIENTS[10:30:3]
    document = [
        written(first, second, third),
        written((), CLIENTS, third),
        written(CLIENTS, ()),
        written((), ()),
    ][kind]
    for asked in (vector, {**decode_state_vector(document.encode_state_vector()), **vector}):
        encoded = encode_state_vector(asked)
        assert sections(answered(document, encoded)) == sections(document.encode_state_as_update(encoded))
        compared = at_once(compare(document, encoded))
        assert (
            decode_state_vector(compared.vector)
            == {client: clock for client, clock in asked.items() if not document.lacks(client, 0)}
            or compared.vector == encoded == b"\0"
        )


def sections(update: bytes) -> list[tuple[int, int, bytes]]:
    found = read_update(update)
    return [(section.client, section.clock, update[section.start : section.stop]) for section in found.sections]


def test_the_delete_set_is_in_it() -> None:
    author = Author(1)
    document = Document()
    author.type("abc")
    del author.text[1]
    for update in author.updates:
        document.apply_update(update)
    assert content(answered(document, b"\0")) == content(document.encode_state_as_update())
    assert answered(document, document.encode_state_vector()) == b"\0" + join(at_once(document.deletes()))


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x02\x05\x01", id="one less than declared"),
        pytest.param(b"\x01\x05\x01\x06\x01", id="one more than declared"),
        pytest.param(b"\x01\x05", id="a client without a clock"),
        pytest.param(b"\x02\x05\x80\x80", id="a clock that does not end"),
        pytest.param(encode_var_uint(2**40), id="a count of 2^40"),
        pytest.param(b"\x02\xe8\x07\x02\xe8\x07\x02", id="the same twice"),
        pytest.param(b"\x02\xe8\x07\x02\xe8\x07\x01", id="a client that has what we have, twice"),
        pytest.param(b"\x02\xe8\x07\x01\xe8\x07\x02", id="the other way round"),
        pytest.param(b"\x02\xe8\x07\x00\xe8\x07\x01", id="a client that has less, twice"),
    ],
)
def test_a_malformed_vector_is_refused(vector: bytes) -> None:
    document = written((), CLIENTS)
    with pytest.raises(DecodeError):
        document.encode_state_as_update(vector)
    with pytest.raises(DecodeError):
        answered(document, vector)


def test_a_client_twice_is_found_across_blocks() -> None:
    document = written((), CLIENTS)
    filler = b"".join(encode_var_uint(client) + b"\x01" for client in range(5_000, 8_000))
    for first, last in ((b"\x01", b"\x00"), (b"\x02", b"\x01"), (b"\x02", b"\x02"), (b"\x01", b"\x02")):
        pair = encode_var_uint(CLIENTS[0])
        with pytest.raises(DecodeError, match="twice"):
            answered(document, encode_var_uint(3_002) + pair + first + filler + pair + last)


def test_which_answers_take_long() -> None:
    narrow, wide = written((), CLIENTS), written(range(1, WIDE + 2), ())
    assert not takes_long(narrow, b"\0") and not takes_long(narrow, b"\1\5\1")
    assert takes_long(narrow, b"\0" * (LONG + 1))
    assert takes_long(wide, b"\1\5\1")
    assert not takes_long(wide, b"\0"), "all of it lies there in one piece"
    assert takes_long(written((), range(1, WIDE + 2)), b"\0")


# Lines of Python in one slice: some 50 ns each, so about a millisecond.
MOST = 30_000


@pytest.mark.parametrize("state", ["all in the snapshot", "all behind it"])
@pytest.mark.parametrize("asks", ["nothing", "one", "half", "most", "less of all", "all"])
def test_a_slice_is_bounded_work(state: str, asks: str) -> None:
    """Issue 11: a document of 50,000 client IDs held the loop for half a second."""
    clients = range(100_000, 100_000 + size(8_000, small=3_000))
    document = written(clients, ()) if state == "all in the snapshot" else written((), clients)
    vector = encode_state_vector(
        {
            "nothing": {},
            "one": {clients[5]: 2},
            "half": dict.fromkeys(clients[::2], 2),
            "most": dict.fromkeys(clients[:-700], 2),
            "less of all": dict.fromkeys(clients, 1),
            "all": dict.fromkeys(clients, 2),
        }[asks]
    )
    document.encode_state_vector()
    counts, compared = lines_of_slices(compare(document, vector))
    more, parts = lines_of_slices(collect(document, compared))
    assert max(counts + more) < MOST
    assert sections(parts.join()) == sections(document.encode_state_as_update(vector))


def test_a_vector_is_cut_down_to_what_the_document_knows() -> None:
    clients = range(100_000, 101_000)
    document = written(clients, clients, clients[:10])
    vector = encode_state_vector({**dict.fromkeys(clients, 2), 5: 1, 6: 0})
    compared = at_once(compare(document, vector))
    assert decode_state_vector(compared.vector) == dict.fromkeys(clients, 2)
    vector = encode_state_vector({**dict.fromkeys(clients, 1), 5: 1})
    assert decode_state_vector(at_once(compare(document, vector)).vector) == dict.fromkeys(clients, 1)


def test_clients_that_nobody_knows_cost_time_and_no_memory() -> None:
    """Issue 11: a state vector of 15 MB held the loop for 10 s."""
    document = written((), CLIENTS)
    document.encode_state_vector()
    count = 100_000
    vector = encode_var_uint(count) + b"".join(encode_var_uint(client) + b"\x05" for client in range(5_000, 105_000))
    counts, compared = lines_of_slices(compare(document, vector))
    assert max(counts) < MOST and len(counts) > 190
    assert compared == Comparison(b"\0", compared.own, {}, set())
    assert sections(at_once(collect(document, compared)).join()) == sections(document.encode_state_as_update())


@pytest.mark.parametrize("seed", range(20))
def test_with_edits_between_the_slices_nothing_is_lost(seed: int) -> None:
    """A member is sent what comes meanwhile as updates; together with them the answer is whole."""
    chosen = random.Random(seed)
    clients = range(2_000, 2_000 + 3 * WIDE)
    document = written(clients[::2], clients[1::2]) if seed % 2 else written((), clients)
    has = {client: 2 for client in clients if chosen.random() < (0.1, 0.5, 0.95)[seed % 3]}
    reader = Author(9)
    if has:
        reader.read(edits(list(has)))
    live: list[bytes] = []
    clocks = dict.fromkeys(clients, 2)

    def edit() -> None:
        client = chosen.choice([*clients, 77, 78])
        clock = clocks.get(client, 0)
        update = edits([client], clock)
        clocks[client] = clock + 2
        document.apply_update(update)
        turn = document.flush()
        assert turn is not None
        live.append(turn.delta)

    def both() -> Generator[None, None, bytes]:
        compared = yield from compare(document, encode_state_vector(has))
        return (yield from collect(document, compared)).join()

    work = both()
    while True:
        try:
            next(work)
        except StopIteration as stop:
            update = stop.value
            break
        edit()
    for data in (*live, update):
        reader.read(data)
    assert reader.doc.get_state() and decode_state_vector(reader.doc.get_state()) == clocks
