"""Updates that wait for what their document lacks: what of an update it is, and what is kept of many."""

from __future__ import annotations

from array import array

import pytest

from collab.engine.budget import Budget
from collab.engine.document import Applied, Document, at_once
from collab.engine.kept import OVERHEAD, KeptUpdate, KeptUpdates, Rest, make_key, take_rest
from collab.update.merge import merge_updates
from collab.update.reader import read_update
from tests.support.author import Author, content
from tests.support.build import section, skip, text, update

LIMIT = 100_000


def rest_of(data: bytes, clocks: dict[int, int]) -> Rest:
    return at_once(take_rest(read_update(data), clocks, {0: 0}))


def keep(limit: int = LIMIT, node: int = LIMIT) -> KeptUpdates:
    return KeptUpdates(limit, Budget(node))


def run(client: int, clock: int, letters: str) -> bytes:
    """Give an update whose text goes on behind ``clock`` of its own client."""
    return update(section(client, clock, text(letters, origin=(client, clock - 1))))


def rest(client: int, clock: int, letters: str) -> Rest:
    return rest_of(run(client, clock, letters), {})


# What of an update waits


def test_of_structs_that_are_known_in_part_the_rest_is_cut() -> None:
    assert rest_of(run(5, 3, "abcd"), {5: 5}).data == run(5, 5, "cd")
    assert rest_of(run(5, 3, "abcd"), {5: 3}).data == run(5, 3, "abcd")
    assert rest_of(run(5, 3, "abcd"), {5: 7}).data == b"\0\0"


def test_gaps_stay_gaps() -> None:
    data = update(
        section(9, 2, text("a", origin=(9, 1)), skip(3), text("b", origin=(9, 5)), text("c", origin=(9, 6))),
        section(4, 8, text("d", origin=(4, 7))),
        gone={9: [(20, 2)], 4: [(1, 3)], 1: [(0, 1)]},
    )
    assert rest_of(data, {}).data == data
    left = rest_of(data, {9: 3, 4: 3, 1: 5})
    expected = update(
        section(9, 6, text("b", origin=(9, 5)), text("c", origin=(9, 6))),
        section(4, 8, text("d", origin=(4, 7))),
        gone={9: [(20, 2)], 4: [(3, 1)]},
    )
    assert left.data == expected
    assert list(left.spans) == [0, 9, 6, 8, 0, 4, 8, 9, 1, 9, 20, 22, 1, 4, 3, 4]


def test_what_has_many_ranges_is_cut_in_slices_and_not_compared() -> None:
    sections = [section(client, 1, text("ab", origin=(client, 0))) for client in range(3_000, 1_000, -1)]
    gone = {7: [(at * 3, 2) for at in range(2_000)]}
    data = update(*sections, gone=gone)
    clocks = {client: 2 for client in range(1_000, 3_001)}
    slices = 0
    for _ in take_rest(read_update(data), clocks, {0: 0}):
        slices += 1
    assert slices >= 8
    found = rest_of(data, clocks)
    again = read_update(found.data)
    assert not found.spans and len(again.sections) == 2_000 and len(again.deletes[0].ranges) == 4_000
    assert all(each.clock == 2 for each in again.sections)


@pytest.mark.parametrize("lost", range(8))
def test_what_is_taken_and_what_waits_are_the_update_again(lost: int) -> None:
    authors = [Author(number) for number in (1, 2, 3)]
    made: list[bytes] = []
    for turn in range(9):
        author = authors[turn % 3]
        for each in made[-2:]:
            author.read(each)
        made.append(author.type(f"<{turn}>"))
    whole = Document()
    whole.apply_update(merge_updates(made))
    document = Document()
    taken = document.apply_update(merge_updates(made[:lost] + made[lost + 1 :]))
    assert taken.missing is not None and taken.rest is not None
    again = document.apply_update(taken.rest.data)
    assert not again.new and again.rest is not None and again.rest.data == taken.rest.data
    document.apply_update(made[lost])
    assert document.apply_update(taken.rest.data) == Applied(True, None)
    assert document.encode_state_vector() == whole.encode_state_vector()
    assert content(document.encode_state_as_update()) == content(whole.encode_state_as_update())


# Many of them


def test_what_is_here_already_is_not_kept_twice() -> None:
    kept = keep()
    assert kept.add(rest(5, 3, "abc"), "a") and kept.add(rest(5, 3, "abc"), "b") and len(kept) == 1
    change = kept.flush()
    assert change is not None and [each.author for each in change.added] == ["a"] and not change.settled
    assert not kept.changed and kept.flush() is None
    assert kept.add(rest(5, 3, "ab"), "c") and not kept.changed, "another one holds it"


def test_an_update_that_holds_another_takes_its_place() -> None:
    kept = keep()
    kept.add(rest(5, 3, "abc"), None)
    stored = kept.flush()
    kept.add(rest(8, 3, "abc"), None)
    kept.add(rest(5, 3, "abcd"), None)
    kept.add(rest(5, 3, "abcde"), None)
    change = kept.flush()
    assert stored is not None and change is not None
    assert change.settled == (stored.added[0].key,)
    assert [each.data for each in change.added] == [run(8, 3, "abc"), run(5, 3, "abcde")]
    assert len(kept) == 2
    kept.add(rest_of(update(gone={5: [(3, 9)]}), {}), None)
    assert len(kept) == 3, "deletions hold no structs"
    kept.load([KeptUpdate.stored(make_key(b"x"), b"x", None)])
    kept.add(rest(5, 3, "abcdef"), None)
    assert len(kept) == 4, "what was not read since it came from the store is not compared"


def test_what_was_settled_in_this_turn_can_come_again() -> None:
    kept = keep()
    kept.add(rest(5, 3, "abc"), None)
    stored = kept.flush()
    assert stored is not None
    kept.settle(stored.added[0].key)
    kept.settle(stored.added[0].key)
    kept.add(rest(5, 3, "abc"), None)
    assert not kept.changed and len(kept) == 1


def test_there_is_a_bound_for_the_document_and_one_for_the_node() -> None:
    budget = Budget(4 * OVERHEAD)
    first, second = KeptUpdates(3 * OVERHEAD, budget), KeptUpdates(3 * OVERHEAD, budget)
    assert not first.add(rest(5, 3, "a" * 3 * OVERHEAD), None)
    assert first.add(rest(1, 3, "abc"), None) and first.add(rest(2, 3, "abc"), None)
    assert not first.add(rest(3, 3, "abc"), None), "of the document"
    assert second.add(rest(1, 3, "abc"), None) and not second.add(rest(2, 3, "abc"), None), "of the node"
    assert first.add(rest(1, 3, "abcd"), None), "in the place of another"
    assert 0 < second.nbytes < first.nbytes and first.nbytes + second.nbytes == budget.nbytes
    second.load([KeptUpdate.stored(make_key(b"x"), b"x", None)] * 2)
    assert len(second) == 2, "what the store keeps is taken, whatever the bounds say"
    for kept in (first, second):
        kept.clear()
    assert budget.nbytes == 0
    assert second.add(rest(2, 3, "abc"), None)


def test_an_update_is_ready_when_one_of_the_clocks_has_come_for_which_it_waits() -> None:
    kept = keep()
    none = array("Q")
    kept.add(Rest(b"a", {5: 3, 6: 0}, none), None)
    kept.add(Rest(b"b", {5: 9}, none), None)
    clocks: dict[int, int] = {5: 3}

    def lacks(client: int, clock: int) -> bool:
        return clock >= clocks.get(client, 0)

    kept.note_clocks([5, 6, 7], lacks)
    assert kept.find_ready() is None
    clocks = {6: 1}
    kept.note_clocks([7], lacks)
    assert kept.find_ready() is None, "one looks only at those that have risen"
    kept.note_clocks([6], lacks)
    ready = kept.find_ready()
    assert ready is not None and ready.data == b"a"
    kept.wait(ready, Rest(b"", {5: 3}, none), lacks)
    assert kept.find_ready() is None and len(kept) == 2
    kept.wait(ready, Rest(b"", {6: 0}, none), lacks)
    assert kept.find_ready() is None, "another has taken its place meanwhile"
    clocks = {5: 4}
    kept.note_clocks([5], lacks)
    ready = kept.find_ready()
    assert ready is not None and ready.data == b"a"
    kept.wait(ready, Rest(b"", {5: 3}, none), lacks)
    ready = kept.find_ready()
    assert ready is not None and ready.data == b"a", "it has come while it was read"
    kept.settle(ready.key)
    kept.wait(ready, Rest(b"", {7: 0}, none), lacks)
    assert len(kept) == 1 and kept.find_ready() is None


def test_what_cannot_be_taken_is_forgotten_here_and_not_in_the_store() -> None:
    kept = keep()
    kept.add(rest(5, 3, "abc"), None)
    (update,) = kept.everything()
    kept.drop(update.key)
    kept.drop(update.key)
    change = kept.flush()
    assert len(kept) == 0 and change is not None and change.added == (update,)
