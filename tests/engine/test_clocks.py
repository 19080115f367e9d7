"""The encoded state vector against a plain one, while clients move on and are put in their place in slices."""

from __future__ import annotations

from collections.abc import Generator

from hypothesis import given
from hypothesis import strategies as st

from collab.engine.clocks import MANY, EncodedClocks
from collab.engine.document import Document, at_once
from collab.update.index import encode_index
from collab.update.region import Region, descending
from collab.update.state_vector import decode_in_slices, decode_state_vector, encode_in_slices, encode_state_vector
from tests.engine.test_answers import MOST, edits, written
from tests.support.build import lines, lines_of_slices
from tests.support.needs import size

CLIENTS = st.integers(1, 1_500)


def move(made: EncodedClocks, clocks: dict[int, int], clients: range | list[int]) -> None:
    for client in clients:
        clocks[client] = clocks.get(client, 0) + client % 200 + 1
        made.moved.add(client)
    made.encoded = None


@given(
    st.sets(CLIENTS, max_size=30),
    st.lists(st.tuples(st.sampled_from(("move", "many", "settle", "step", "encode", "copy")), CLIENTS), max_size=40),
)
def test_it_is_the_state_vector_at_any_time(base: set[int], steps: list[tuple[str, int]]) -> None:
    clocks = {client: client % 300 + 1 for client in base}
    entries = [encode_state_vector({client: clocks[client]})[1:] for client in sorted(base, reverse=True)]
    made = EncodedClocks(Region(b"".join(entries), sorted(base, reverse=True), 0, map(len, entries)))
    running: list[Generator[None, None, None]] = []
    for what, client in steps:
        if what == "move":
            move(made, clocks, [client])
        elif what == "many":
            move(made, clocks, range(client, client + MANY + 200))
        elif what == "settle":
            running.append(made.settle(clocks))
        elif what == "step":
            running = [one for one in running if next(one, "end") is None]
        elif what == "copy":
            made, clocks = made.copy(), dict(clocks)
            running.clear()  # they go on beside a set that nobody asks any more
        else:
            before = {client: clocks.get(client, 0) // 2 for client in clocks if client % 7 == 0}
            assert made.encode_before(clocks, before) == encode_state_vector(
                {client: clock for client, clock in {**clocks, **before}.items() if clock}
            )
        assert made.encode(clocks) == encode_state_vector(clocks)
    at_once(made.settle(clocks))
    made.encoded = None
    assert made.encode(clocks) == encode_state_vector(clocks)


def test_one_that_is_overtaken_while_it_puts_clients_in_place_changes_nothing() -> None:
    made, clocks = EncodedClocks(Region()), dict[int, int]()
    move(made, clocks, range(1, MANY + 2))
    first = made.settle(clocks)
    next(first)
    move(made, clocks, range(MANY, 2 * MANY))
    second = made.settle(clocks)
    next(second)
    for running in (first, second):
        at_once(running)
        made.encoded = None
        assert made.encode(clocks) == encode_state_vector(clocks)
    assert made.settled


def test_many_clients_are_put_in_place_in_slices() -> None:
    """Issue 11: a join of a document of 50,000 client IDs held the loop."""
    clients = range(100_000, 100_000 + size(8_000, small=4_000))
    tails = written((), clients)
    half = written(clients[::2], clients[1::2])
    data = edits(clients)
    loaded = at_once(Document.load(None, None, [data]))
    for document in (tails, half, loaded):
        assert not document.is_settled
        counts, _ = lines_of_slices(document.settle_state_vector())
        assert max(counts) < MOST and len(counts) > 10
        assert document.is_settled
        document.apply_update(edits([clients[5]], 2))
        assert lines(document.encode_flushed_vector) < MOST / 10
        assert lines(document.encode_state_vector) < MOST / 10
        assert decode_state_vector(document.encode_state_vector()) == {**dict.fromkeys(clients, 2), clients[5]: 4}
        document.flush()
        assert document.encode_flushed_vector() == document.encode_state_vector()
    stored = at_once(Document.load(data, encode_index(data), ()))
    assert stored.is_settled, "nobody has moved on"


def test_the_vector_of_the_last_turn_is_little_work_however_many_clients_there_are() -> None:
    clients = range(100_000, 108_000)
    document = written(clients, ())
    vector = document.encode_state_vector()
    document.apply_update(edits([clients[3]], 2))
    document.apply_update(edits([7]))
    assert document.encode_flushed_vector() == vector
    assert lines(document.encode_flushed_vector) < 1_000


def test_sorting_decoding_and_encoding_many_is_done_in_slices() -> None:
    clients = [client * 7_919 % 100_003 for client in range(1, 20_000)]
    counts, order = lines_of_slices(descending(clients))
    assert list(order) == sorted(clients, reverse=True) and len(counts) > 8
    vector = dict.fromkeys(clients, 3)
    counts, encoded = lines_of_slices(encode_in_slices(vector))
    assert encoded == encode_state_vector(vector) and max(counts) < MOST
    counts, decoded = lines_of_slices(decode_in_slices(encoded))
    assert decoded == vector and max(counts) < MOST
