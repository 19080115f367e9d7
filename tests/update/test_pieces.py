"""Pieces that stay pending: nothing of them is integrated before the last one, and with it everything is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pycrdt import Doc

from collab.engine.document import at_once
from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update import decode_state_vector, merge_updates, read_update
from collab.update import pieces as module
from collab.update.merge import diff_update
from collab.update.pieces import Cut, cut_update
from collab.update.structs import Struct, walk
from tests.support.build import Client, gc, item, reader_of, section, session, skip, text, update
from tests.support.needs import size
from tests.update.test_merge import deleted, units

SEEDS = range(12)


def cut(data: bytes, known: Mapping[int, int] | None = None) -> Cut:
    return at_once(cut_update(data, known or {}))


def pieces(made: Cut, size: int) -> list[bytes]:
    """All pieces of about a size, the last one too."""
    found, at = [], 0
    while at < len(made.early):
        piece, at = made.piece(at, size)
        found.append(piece)
    return [*found, made.last]


def check(made: Cut, data: bytes, known: Mapping[int, int], size: int = 100) -> None:
    """Check by the bytes that no early struct can be integrated, and that nothing is lost."""
    found = pieces(made, size)
    for piece in found[:-1]:
        read = read_update(piece)
        assert not read.deletes
        for part in read.sections:
            if part.count:
                for struct in walk(piece, part.start, part.stop, part.clock):
                    named = [one for one in (struct.origin, struct.right, parent_of(piece, struct)) if one is not None]
                    assert any(clock >= known.get(client, 0) for client, clock in named)
    together = merge_updates(found)
    assert units(together) == units(data) and deleted(together) == deleted(data)


def parent_of(data: bytes, struct: Struct) -> tuple[int, int] | None:
    if struct.content == struct.parent or data[struct.parent]:
        return None
    client, pos = read_var_uint(data, struct.parent + 1)
    return client, read_var_uint(data, pos)[0]


class Watcher(Client):
    """A client that counts what is shown of it."""

    def __init__(self, *updates: bytes) -> None:
        super().__init__(0, [])
        self.read(*updates)
        self.shown = 0
        self._watching = self.doc.observe(self._show)

    def _show(self, event: object) -> None:
        self.shown += 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0, 3, 10])
def test_nothing_is_shown_before_the_last_piece_and_then_everything(seed: int, share: int) -> None:
    log = session(seed)
    has = log[: len(log) * share // 20]
    known = decode_state_vector(reader_of(*has).doc.get_state())
    whole = reader_of(*log)
    data = diff_update(merge_updates(log), known)
    made = cut(data, known)
    check(made, data, known)
    client = Watcher(*has)
    before, state = client.view(), client.doc.get_state()
    *early, last = pieces(made, 200)
    for piece in early:
        client.read(piece)
        assert client.shown == 0 and client.view() == before and client.doc.get_state() == state
    client.read(last)
    assert client.shown == 1
    assert client.view() == whole.view()
    assert decode_state_vector(client.doc.get_state()) == decode_state_vector(whole.doc.get_state())


def test_roots_and_what_is_known_to_be_whole_are_held() -> None:
    data = update(
        section(2, 0, text("r"), text("a", origin=(1, 4)), text("b", origin=(1, 5)), item(7, b"\0", parent=(1, 2))),
        section(1, 5, text("c", origin=(1, 4), right=(1, 0)), text("d", origin=(1, 5)), gc(2), text("e", right=(9, 0))),
        gone={1: [(0, 1)]},
    )
    made = cut(data, {1: 5})
    assert made.last == update(
        section(2, 0, text("r"), text("a", origin=(1, 4)), skip(1), item(7, b"\0", parent=(1, 2))),
        section(1, 5, text("c", origin=(1, 4), right=(1, 0)), skip(1), gc(2)),
        gone={1: [(0, 1)]},
    )
    assert pieces(made, 1_000)[:-1] == [
        update(
            section(2, 2, text("b", origin=(1, 5))),
            section(1, 6, text("d", origin=(1, 5)), skip(2), text("e", right=(9, 0))),
        )
    ]


def test_a_parent_that_is_lacking_makes_early_and_one_that_is_known_does_not() -> None:
    data = update(section(3, 0, text("r"), item(7, b"\0", parent=(1, 5)), item(7, b"\0", parent=(1, 4))))
    made = cut(data, {1: 5})
    assert made.last == update(section(3, 0, text("r"), skip(1), item(7, b"\0", parent=(1, 4))))


def test_the_first_of_each_client_is_held_too_but_not_of_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    structs = [text("a", origin=(9, 0)), text("b", origin=(9, 0))]
    data = update(section(2, 0, *structs), section(1, 0, *structs))
    assert cut(data).last == update(section(2, 0, structs[0]), section(1, 0, structs[0]))
    monkeypatch.setattr(module, "_FIRSTS", 1)
    made = cut(data)
    assert made.last == update()
    assert pieces(made, 1_000)[0] == data


def test_what_the_receiver_has_may_come_at_any_time() -> None:
    data = update(section(1, 0, text("a"), text("b", origin=(1, 0)), text("c", origin=(1, 1))))
    made = cut(data, {1: 2})
    assert made.last == update(section(1, 2, text("c", origin=(1, 1))))


@pytest.mark.parametrize("string", ["x" * 200_000, "日本😀é" * 20_000, "😀" + "y" * 100_000])
@pytest.mark.parametrize("held", [True, False])
def test_a_long_string_is_cut_between_characters_and_its_first_one_held(string: str, held: bool) -> None:
    first = [text("r")] if not held else []
    long = text(string) if held else text(string, origin=(9, 5), right=(9, 6))
    data = update(section(1, 0, *first, long))
    made = cut(data)
    assert len(made.last) < 20
    check(made, data, {}, 1)
    assert max(len(run.data) for run in made.early) < 66_000 and len(made.early) > 1
    if held:
        client = Watcher()
        for piece in pieces(made, 70_000):
            assert str(client.text) == ""
            client.read(piece)
        assert str(client.text) == string and client.shown == 1


MANY = size(100_000, small=40_000)


@pytest.mark.parametrize("kind", [2, 8])
def test_a_long_list_is_cut_between_values(kind: int) -> None:
    value = b"\x05" + b'"abc"' if kind == 2 else b"\x77\x03abc"
    content = encode_var_uint(MANY) + value * MANY
    data = update(section(1, 0, item(kind, content, parent="a")))
    made = cut(data)
    assert len(made.last) < 40
    check(made, data, {}, 1)
    assert max(len(run.data) for run in made.early) < 66_000
    if kind == 2:
        return  # yrs cannot read these
    client = Watcher()
    for piece in pieces(made, 100_000):
        assert len(client.array) == 0
        client.read(piece)
    assert len(client.array) == MANY and client.shown == 1


def test_what_is_short_and_what_is_one_value_stays_whole() -> None:
    binary = item(3, b"\xc0\x84\x3d" + bytes(1_000_000), parent="a")
    data = update(section(2, 0, binary), section(1, 0, text("x" * 1_000)))
    made = cut(data)
    assert made.last == data and made.early == []
    assert made.piece(0, 1) == (update(), 0)


def test_pieces_have_the_size_that_is_asked_for_but_one_run_at_the_least() -> None:
    data = update(section(1, 0, text("r"), *[text("x" * 1_000, origin=(1, at * 1_000)) for at in range(1_000)]))
    made = cut(data)
    assert len(pieces(made, 1)) - 1 == len(made.early) > 10
    sizes = [len(piece) for piece in pieces(made, 300_000)[:-1]]
    assert len(sizes) < 6 and max(sizes) < 300_100
    doc: Doc[object] = Doc()
    for piece in pieces(made, 300_000):
        doc.apply_update(piece)
    assert decode_state_vector(doc.get_state()) == {1: 1_000_001}


def test_cutting_yields_now_and_then() -> None:
    data = update(section(1, 0, text("r"), *[text("x", origin=(1, at)) for at in range(5_000)]))
    assert sum(1 for _ in cut_update(data, {})) > 20


def test_a_gap_that_the_update_declares_stays_one() -> None:
    data = update(section(1, 0, text("r"), skip(5), text("x", origin=(1, 5))))
    made = cut(data)
    assert made.last == update(section(1, 0, text("r")))
    assert pieces(made, 100)[0] == update(section(1, 6, text("x", origin=(1, 5))))
