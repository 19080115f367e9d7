"""What the state of a document is named: the same on every node and by every way to it, another one for each change."""

from __future__ import annotations

import random
from hashlib import blake2b

import pytest

from collab.engine.document import Document, at_once
from collab.engine.tags import name_state
from collab.update.compact import compact
from collab.update.index import encode_index
from tests.support.build import gc, lines_of_slices, section, session, text, update
from tests.support.needs import size

SEEDS = range(4)


def named(document: Document) -> str:
    return at_once(name_state(document))


def document_of(*updates: bytes) -> Document:
    document = Document()
    for data in updates:
        assert document.apply_update(data).missing is None
    return document


@pytest.mark.parametrize("seed", SEEDS)
def test_it_does_not_depend_on_the_way_to_the_state(seed: int) -> None:
    log = session(seed)
    document = document_of(*log)
    name, whole = named(document), document.encode_state_as_update()
    assert named(document_of(whole)) == name, "all at once"
    assert named(at_once(Document.load(None, None, log))) == named(document.copy()) == name
    document.flush()
    assert named(document) == name, "a turn that ends changes nothing"


@pytest.mark.parametrize("seed", SEEDS)
def test_it_does_not_depend_on_snapshots(seed: int) -> None:
    """Nothing is set at once here: a snapshot deletes the values that lose, which no client has told."""
    log = session(seed, clients=1)
    document = document_of(*log)
    name, whole = named(document), document.encode_state_as_update()
    snapshot = compact(whole)
    document.rebase(snapshot.data, snapshot.index, document.encode_state_vector())
    assert named(document) == name == named(document.copy())
    for index in (snapshot.index, None):
        assert named(at_once(Document.load(snapshot.data, index, log))) == name
    half = compact(document_of(*log[: len(log) // 2]).encode_state_as_update())
    assert named(at_once(Document.load(half.data, half.index, log[len(log) // 2 :]))) == name


@pytest.mark.parametrize("seed", SEEDS)
def test_it_does_not_depend_on_the_order_of_clients(seed: int) -> None:
    updates = [update(section(client, 0, text("ab")), gone={client: [(client % 2, 1)]}) for client in range(1, 40)]
    name = named(document_of(*updates))
    random.Random(seed).shuffle(updates)
    assert named(document_of(*updates)) == name


def test_each_change_gives_another_name() -> None:
    names = [named(Document())]
    document = Document()
    for data in (
        update(section(5, 0, text("abc"))),
        update(section(5, 3, text("d", origin=(5, 2)))),
        update(section(6, 0, text("x"))),
        update(gone={5: [(0, 1)]}),
        update(gone={5: [(2, 1)]}),
        update(gone={6: [(0, 1)]}),
        update(gone={5: [(1, 1)]}),
    ):
        document.apply_update(data)
        names.append(named(document))
    assert len(set(names)) == len(names)
    document.apply_update(update(section(5, 0, text("abc")), gone={5: [(0, 3)]}))
    assert named(document) == names[-1], "all of it is known"
    document.apply_update(update(section(9, 1, text("waits"))))
    assert named(document) == names[-1], "what is not whole is not in the document"


def test_where_one_thing_is_deleted_or_written_the_names_differ() -> None:
    written = update(section(5, 0, text("abc")))
    made = [
        document_of(written),
        document_of(written, update(gone={5: [(0, 1)]})),
        document_of(written, update(gone={5: [(1, 1)]})),
        document_of(update(section(5, 0, gc(3)))),
        document_of(update(section(5, 0, text("ab")))),
        document_of(update(section(6, 0, text("abc")))),
    ]
    assert len(set(map(named, made))) == len(made)


def test_nodes_and_releases_agree() -> None:
    """Clients keep names, as ETags, and come to any node."""
    assert named(Document()) == "38f932e73ea28dc9b1444c30a7bb4d23"
    document = document_of(update(section(300, 0, text("abc")), gone={300: [(1, 1)]}))
    # BLAKE2b with 128 bits: the length of the vector and the vector, {300: 3}, then the deletes, {300: [(1, 1)]}.
    hashed = bytes.fromhex("04 01ac0203") + bytes.fromhex("01ac02 01 0101")
    assert named(document) == blake2b(hashed, digest_size=16).hexdigest() == "c5bc73b841b57fb444f7c7bc555a1ceb"


def test_a_long_delete_set_is_hashed_in_slices() -> None:
    holes = 70_000
    assert holes * 4 > 256 * 1024
    deleted = [(at * 2, 1) for at in range(holes)]
    data = update(section(9, 0, text("x" * 2 * holes)), section(5, 0, text("abc")), gone={9: deleted, 5: [(2, 1)]})
    document = at_once(Document.load(data, encode_index(data), []))
    document.apply_update(update(gone={5: [(0, 1)]}))
    gathered, _ = lines_of_slices(document.copy().deletes())
    slices, name = lines_of_slices(name_state(document))
    assert len(slices) > len(gathered), "once more after the large piece"
    assert name == named(document_of(data, update(gone={5: [(0, 1)]})))


def test_many_clients_are_named_in_slices() -> None:
    clients = range(1, size(8_000, small=3_000))
    document = document_of(update(*(section(client, 0, text("a")) for client in clients)))
    slices, name = lines_of_slices(name_state(document))
    assert len(slices) > 10 and max(slices) < 10_000
    assert name == named(document_of(*(update(section(client, 0, text("a"))) for client in clients)))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_hashed_is_not_more_than_the_document_says(seed: int) -> None:
    """Callers decide by this whether they can wait for the name; it may be more."""
    document = Document()
    assert document.naming_bytes == 0
    for data in session(seed):
        document.apply_update(data)
        vector, deletes = (
            document.encode_state_vector(),
            len(document.encode_state_as_update(document.encode_state_vector())),
        )
        hashed = len(vector) + deletes - 3  # but for the numbers of clients and sections
        assert hashed <= document.naming_bytes <= hashed + 10 * document.clients
