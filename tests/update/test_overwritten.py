"""Values of keys that were set at once: all but the last go, as yjs deletes them itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from collab.engine.document import Document
from collab.protocol.lib0 import encode_var_string, encode_var_uint
from collab.update import overwritten as overwritten_module
from collab.update.compact import compact
from collab.update.overwritten import find_overwritten
from collab.update.reader import read_update
from tests.support.build import deletes, section, update
from tests.support.needs import size

ROOT = b"\x01" + encode_var_string("m")
KEYED, ORIGIN, RIGHT = 32, 128, 64


def value(
    text: str = "v",
    *,
    key: str = "k",
    origin: tuple[int, int] | None = None,
    right: tuple[int, int] | None = None,
    gone: int = 0,
) -> bytes:
    """Encode a value of a key of the root "m"; ``gone``: so many deleted ones behind each other."""
    info = KEYED | (ORIGIN if origin else 0) | (RIGHT if right else 0) | (1 if gone else 4)
    head = bytes((info,))
    for identity in (origin, right):
        if identity is not None:
            head += encode_var_uint(identity[0]) + encode_var_uint(identity[1])
    if origin is None and right is None:
        head += ROOT + encode_var_string(key)
    return head + (encode_var_uint(gone) if gone else encode_var_string(text))


def found(*sections: bytes) -> dict[int, list[int]]:
    return find_overwritten(read_update(update(*sections)))


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        pytest.param([section(7, 0, value()), section(5, 0, value())], {5: [0]}, id="the highest client is the last"),
        pytest.param([section(7, 0, value()), section(5, 0, value(), value(key="l"))], {5: [0]}, id="another key"),
        pytest.param(
            [section(9, 0, value(origin=(5, 0))), section(7, 0, value()), section(5, 0, value())],
            {5: [0], 9: [0]},
            id="below another one",
        ),
        pytest.param(
            [section(9, 0, value(origin=(7, 0))), section(8, 0, value(origin=(7, 0))), section(7, 0, value())],
            {7: [0], 8: [0]},
            id="the last of those below the last",
        ),
        pytest.param(
            [section(9, 0, value(origin=(7, 1))), section(7, 0, value(gone=3), value(origin=(7, 2)))],
            {7: [3]},
            id="among deleted ones, by a higher client",
        ),
        pytest.param(
            [section(7, 0, value(gone=3), value(origin=(7, 2))), section(5, 0, value(origin=(7, 1)))],
            {5: [0]},
            id="among deleted ones, by a lower client",
        ),
        pytest.param([section(7, 0, value(gone=2)), section(5, 0, value())], {}, id="one that is not deleted"),
        pytest.param(
            [section(7, 0, value(gone=2)), section(5, 0, value(), value(key="l")), section(4, 0, value())],
            {4: [0], 5: [0]},
            id="the last one is deleted",
        ),
        pytest.param(
            [section(7, 0, value(right=(5, 0))), section(5, 0, value())], {}, id="a right origin is left alone"
        ),
        pytest.param([section(7, 0, value("ab")), section(5, 0, value())], {}, id="more than one clock too"),
        pytest.param([section(7, 0, value(), value()), section(5, 0, value())], {}, id="two of one client"),
        pytest.param(
            [section(7, 0, value(gone=3), value(origin=(7, 1)), value(origin=(7, 2)))],
            {},
            id="two of one client, among deleted ones",
        ),
        pytest.param(
            [section(9, 0, value(origin=(3, 0))), section(7, 0, value(origin=(3, 9))), section(3, 0, b"\0\1")],
            {},
            id="below what is no value",
        ),
        pytest.param(
            [section(9, 0, value(origin=(7, 4))), section(7, 0, value()), section(5, 0, value())],
            {5: [0]},
            id="below what is not there",
        ),
        pytest.param(
            [section(9, 0, value(origin=(8, 0))), section(8, 0, value(origin=(9, 0)))], {}, id="below each other"
        ),
        pytest.param([section(7, 0, b"\0\1", b"\x0a\1", value()), section(5, 0, value())], {5: [0]}, id="a gap"),
    ],
)
def test_values(sections: list[bytes], expected: dict[int, list[int]]) -> None:
    assert found(*sections) == expected


def test_too_many_values_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [section(client, 0, value()) for client in range(9, 1, -1)]
    assert sum(map(len, found(*many).values())) == 7
    monkeypatch.setattr(overwritten_module, "_MOST", 5)
    assert found(*many) == {}


def test_a_document_of_values_set_at_once_is_as_large_as_what_is_left() -> None:
    """1,540 clients that set one key of 6 KB each, as a benchmark of the author of yjs."""
    document = Document()
    for client in range(1, 1_541):
        content = b"\x01\x77" + encode_var_string(f"{client:06}" * 1_000)
        document.apply_update(update(section(client, 0, bytes((KEYED | 8,)) + ROOT + encode_var_string("k") + content)))
    document.flush()
    assert document.size > 9_000_000
    data = document.encode_state_as_update()
    compacted = compact(data)
    assert len(compacted.data) < 45_000
    assert shown(compacted.data) == shown(data) == ({"k": "001540" * 1_000}, "")
    document.rebase(compacted.data, compacted.index, document.encode_state_vector())
    assert document.size < 45_000 and document.encode_state_as_update() == compacted.data
    kept = compact(data, gc=False)
    assert len(kept.data) > 9_000_000


def shown(data: bytes) -> tuple[Any, str]:
    doc: Doc[Any] = Doc()
    doc.apply_update(data)
    return doc.get("m", type=Map).to_py(), str(doc.get("t", type=Text))


@pytest.mark.parametrize("seed", range(size(300, small=40)))
def test_clients_see_the_same_and_go_on(seed: int) -> None:
    """Clients that set, nest and delete keys, each behind the others by what it has not read yet."""
    choose = random.Random(seed)
    ids = choose.sample(range(1, 300), choose.randint(2, 6))
    docs: list[Doc[Any]] = [Doc(client_id=client) for client in ids]
    unread: list[list[bytes]] = [[] for _ in docs]
    made: list[bytes] = []
    keep = [doc.observe(lambda event: made.append(event.update)) for doc in docs]
    server = Document()
    for step in range(choose.randint(5, 60)):
        at = choose.randrange(len(docs))
        doc = docs[at]
        if choose.random() < 0.4 and unread[at]:
            for data in unread[at][: choose.randint(1, len(unread[at]))]:
                doc.apply_update(data)
                unread[at].remove(data)
            continue
        made.clear()
        edit(doc, choose, f"{at}.{step}")
        for other, waiting in enumerate(unread):
            waiting += made if other != at else []
        for data in made:
            server.apply_update(data)
    server.flush()
    data = server.encode_state_as_update()
    compacted = compact(data)
    assert shown(compacted.data) == shown(data)
    # What is said to be deleted is what a client deletes that reads the whole.
    reader: Doc[Any] = Doc()
    reader.apply_update(data)
    said = Document()
    said.apply_update(reader.get_update())
    assert said.contains_update(b"\0" + compacted.data[read_update(compacted.data).deletes_start :])
    # The others read on, and one that has seen nothing comes.
    late: list[bytes] = []
    newcomer: Doc[Any] = Doc(client_id=choose.randint(1, 400))
    keep.append(newcomer.observe(lambda event: late.append(event.update)))
    newcomer.get("m", type=Map)["a"] = "late"
    for doc, waiting in zip(docs, unread, strict=True):
        for one in (*waiting, *late):
            doc.apply_update(one)
    server.rebase(compacted.data, compacted.index, server.encode_state_vector())
    server.apply_update(late[0])
    server.flush()
    after = server.encode_state_as_update()
    for doc in docs:
        assert (doc.get("m", type=Map).to_py(), str(doc.get("t", type=Text))) == shown(after)
    assert shown(compact(after).data) == shown(after)


def edit(doc: Doc[Any], choose: random.Random, mark: str) -> None:
    values = doc.get("m", type=Map)
    key = choose.choice("abc")
    what = choose.random()
    with doc.transaction():
        if what < 0.6:
            values[key] = mark * 5
        elif what < 0.75 and key in values:
            del values[key]
        elif what < 0.9:
            values[key] = Map({"x": mark})
        elif isinstance(nested := values.get(key), Map):
            nested[choose.choice("xy")] = mark
        else:
            doc.get("t", type=Text).insert(0, "q")


def test_a_delete_set_with_more_than_the_structs_say_is_kept() -> None:
    data = update(section(7, 0, value()), section(5, 0, value(), value(key="l")), gone={5: [(1, 1)]})
    compacted = compact(data).data
    assert compacted[read_update(compacted).deletes_start :] == deletes({5: [(0, 2)]})
