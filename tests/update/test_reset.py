"""Resets: byte by byte on small documents, and with real yjs clients that are online, offline, or come back late."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from pycrdt import Doc, Map, Text

from collab.engine.document import Document
from collab.errors import LimitExceeded, UpdateError
from collab.protocol.lib0 import MAX_SAFE_INTEGER, encode_var_string, encode_var_uint
from collab.update.compact import compact
from collab.update.delete_set import encode_delete_set
from collab.update.reader import read_update
from collab.update.reset import (
    MOST_RESETS,
    _Plan,
    bury,
    forward,
    has_marker,
    is_marker,
    make_reset,
    make_skeleton,
    marker_id,
    next_number,
    number_of,
    reset_update,
    skeleton,
    without_known,
)
from collab.update.state_vector import decode_state_vector, encode_state_vector
from tests.support.needs import size
from tests.support.node import NodeScript


class Session:
    """Clients in Node around a document that this test serves, as a server does."""

    def __init__(self, script: NodeScript, seed: int, clients: int, *, wide: bool = False) -> None:
        self.script = script
        self.key = seed
        self.document = Document()
        self.clients = clients
        self.online = set(range(clients))
        self.rounds = 0
        self.call("open", seed, clients, wide)

    def call(self, command: str, *arguments: Any) -> Any:
        [result] = self.script.call([[command, self.key, *arguments]])
        return result

    def close(self) -> None:
        self.call("close")

    def apply(self, data: bytes) -> bytes | None:
        applied = self.document.apply_update(data)
        assert applied.missing is None
        turn = self.document.flush()
        return None if turn is None else turn.delta

    def relay(self, sender: int | None, updates: Sequence[str]) -> None:
        """Take updates of a client, and give them to all that are online; what they answer too."""
        queue = [(sender, update) for update in updates]
        while queue:
            self.rounds += 1
            assert self.rounds < 20_000, "the clients answer each other for ever"
            sender, update = queue.pop(0)
            delta = self.apply(bytes.fromhex(update))
            if delta is None:
                continue
            for client in sorted(self.online):
                answers = self.call("receive", client, [delta.hex()])
                queue += [(client, answer) for answer in answers]

    def edit(self, client: int, count: int, tag: str) -> None:
        updates = self.call("edit", client, count, tag)
        if client in self.online:
            self.relay(client, updates)

    def run(self, client: int, code: str) -> None:
        updates = self.call("run", client, code)
        if client in self.online:
            self.relay(client, updates)

    def leave(self, client: int) -> None:
        self.online.discard(client)

    def join(self) -> int:
        client: int = self.call("client")
        self.clients += 1
        self.come(client)
        return client

    def come(self, client: int, *, answered_first: bool = False) -> None:
        """Sync as y-websocket does: both ask, both answer."""
        asked = self.document.encode_state_vector()
        answer = self.document.encode_state_as_update(bytes.fromhex(self.call("vector", client)))
        self.online.add(client)
        if answered_first:
            updates = self.call("receive", client, [answer.hex()])
            said = self.call("diff", client, asked.hex())
        else:
            said = self.call("diff", client, asked.hex())
            updates = self.call("receive", client, [answer.hex()])
        self.relay(client, [said, *updates])

    def reset(self, content: bytes | None = None, *, replaced: bool = False, strict: bool = False) -> None:
        """Reset the document as it is; with ``replaced`` another one begins with the result, and nobody is online."""
        data = self.document.encode_state_as_update()
        made = reset_update(data, content=content, strict=strict)
        if replaced:
            self.online.clear()
            self.document = Document()
            self.apply(made)
            return
        self.relay(None, [made.hex()])

    def shrink(self) -> None:
        vector = self.document.encode_state_vector()
        compacted = compact(self.document.encode_state_as_update())
        self.document.rebase(compacted.data, compacted.index, vector)

    def views(self) -> list[dict[str, Any]]:
        return [self.call("view", client) for client in range(self.clients)]

    def agree(self) -> str:
        """Let everybody come who is offline; return what all of them show then."""
        for client in range(self.clients):
            if client not in self.online:
                self.come(client)
        self.join()
        views = self.views()
        assert len({view["content"] for view in views}) == 1, [view["content"] for view in views]
        assert len({view["vector"] for view in views}) == 1
        assert not any(view["pending"] for view in views)
        assert bytes.fromhex(views[0]["vector"]) == self.document.encode_state_vector()
        content: str = views[0]["content"]
        return content


def new_content(script: NodeScript, seed: int, count: int = 12, clients: int = 1) -> tuple[bytes, str]:
    [made] = script.call([["content", seed, count, "new", clients]])
    return bytes.fromhex(made["update"]), made["content"]


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.node
def test_nothing_that_was_seen_returns_and_all_end_equal(replaced: bool) -> None:
    with NodeScript("reset.mjs") as script:
        for seed in range(1, 1 + size(100, small=25)):
            choose = random.Random(seed)
            session = Session(script, seed, 4, wide=choose.random() < 0.3)
            for _ in range(choose.randint(3, 12)):
                client = choose.randrange(4)
                session.edit(client, choose.randint(1, 5), "seen" if client in session.online else "lost")
                if choose.random() < 0.3:
                    session.leave(choose.choice((2, 3)))
            for client in (2, 3):
                session.leave(client)
                session.edit(client, choose.randint(0, 6), "lost")
            content = None
            if choose.random() < 0.7:
                content, _ = new_content(script, seed, clients=choose.choice((1, 1, 3)))
            if choose.random() < 0.5:
                session.shrink()
            session.reset(content, replaced=replaced)
            for client in (0, 1):
                session.edit(client, choose.randint(0, 4), "late")
            if choose.random() < 0.5:
                session.shrink()
            for client in (3, 2):
                session.come(client, answered_first=choose.random() < 0.5)
                session.edit(client, choose.randint(0, 4), "late")
            assert "seen" not in session.agree(), f"seed {seed}"
            session.close()


@pytest.mark.node
def test_the_new_content_is_what_was_given_and_several_resets_may_be_missed() -> None:
    with NodeScript("reset.mjs") as script:
        for seed in range(1, 1 + size(40, small=10)):
            choose = random.Random(seed)
            session = Session(script, seed, 3)
            session.edit(0, 10, "seen")
            session.edit(1, 10, "seen")
            session.leave(2)
            content, shown = b"", ""
            for count in range(choose.randint(1, 4)):
                content, shown = new_content(script, 10 * seed + count, 15, choose.choice((1, 4)))
                session.reset(content, strict=choose.random() < 0.3)
                if choose.random() < 0.5:
                    session.shrink()
            assert json.loads(session.agree()) == json.loads(shown), f"seed {seed}"
            session.close()


@pytest.mark.node
@pytest.mark.parametrize("empty", [False, True])
def test_what_was_set_offline_under_an_old_key_loses(empty: bool) -> None:
    """However high the client's ID, and however the key was deleted or set before."""
    with NodeScript("reset.mjs") as script:
        for seed in range(1, 1 + size(30, small=10)):
            session = Session(script, seed, 4, wide=seed % 2 > 0)
            for client in range(3):
                session.run(client, f"doc.getMap('map').set('k{client}', 'seen')")
            session.run(0, "doc.getMap('map').delete('k1')")
            session.leave(3)
            session.run(3, "for (const key of ['k0', 'k1', 'k2']) doc.getMap('map').set(key, 'lost')")
            session.reset(None if empty else make(script, "doc.getMap('map').set('k0', 'new')"))
            shown = json.loads(session.agree())[1][1]
            assert shown == ([] if empty else [["k0", "new"]])
            # A new one can be set, and goes with the next reset.
            session.run(1, "doc.getMap('map').set('k1', 'late')")
            session.reset()
            assert json.loads(session.agree())[1][1] == []
            session.close()


@pytest.mark.node
@pytest.mark.parametrize("first", [True, False])
def test_a_format_that_was_moved_offline_does_not_go_on_over_new_text(first: bool) -> None:
    """A limit: Yjs removes what ends formats, as superfluous, in each client that loads the document before that."""
    with NodeScript("reset.mjs") as script:
        session = Session(script, 1, 2)
        session.run(0, "const t = doc.getText('text'); t.insert(0, 'aaabbb'); t.format(3, 3, { bold: true })")
        session.leave(1)
        session.run(1, "doc.getText('text').format(0, 3, { bold: true })")
        session.leave(0)
        session.reset(make(script, "doc.getText('text').insert(0, 'new')"))
        if not first:
            session.join()
        session.come(1)
        assert json.loads(session.agree())[0][1] == [
            {"insert": "new"} if first else {"insert": "new", "attributes": {"bold": True}}
        ]


@pytest.mark.node
def test_undo_of_what_was_seen_leaves_all_equal() -> None:
    """What a user had deleted before the reset, this user's own undo can bring back, at root level."""
    with NodeScript("reset.mjs") as script:
        returned = 0
        for seed in range(1, 1 + size(30, small=10)):
            session = Session(script, seed, 3)
            session.edit(0, 8, "seen")
            session.edit(1, 8, "seen")
            session.reset(new_content(script, seed)[0])
            for client in (0, 1, 0):
                session.relay(client, session.call("undo", client))
            returned += "seen" in session.agree()
            session.close()
        assert returned


@pytest.mark.node
def test_with_gc_at_root_level_clients_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it is ContentDeleted there; and that these tests can fail."""
    monkeypatch.setattr(_Plan, "_is_root", lambda self, group: False)
    with NodeScript("reset.mjs") as script:
        session = Session(script, 1, 2)
        session.run(0, "doc.getText('text').insert(0, 'seen')")
        session.leave(1)
        session.run(1, "doc.getText('text').insert(4, 'lost')")
        session.reset(replaced=True)
        with pytest.raises(AssertionError):
            session.agree()


def make(script: NodeScript, code: str) -> bytes:
    """Run code on a document of its own; give its update."""
    script.call([["open", "made", 4711, 1, False], ["run", "made", 0, code]])
    [update] = script.call([["diff", "made", 0, "00"]])
    return bytes.fromhex(update)


# Bytes

A, B = 5, 7
ROOT = b"\1\1t"


def struct(
    kind: int,
    content: bytes,
    *,
    origin: tuple[int, int] | None = None,
    right: tuple[int, int] | None = None,
    parent: bytes = ROOT,
) -> bytes:
    flags = (0 if origin is None else 128) | (0 if right is None else 64)
    references = b"".join(below(*one)[1:] for one in (origin, right) if one is not None)
    return bytes((kind | flags,)) + (references or parent) + content


def update(*sections: tuple[int, list[bytes]], deletes: bytes = b"\0") -> bytes:
    parts = [encode_var_uint(len(sections))]
    for client, structs in sorted(sections, reverse=True):
        parts += (encode_var_uint(len(structs)), encode_var_uint(client), b"\0", *structs)
    return b"".join((*parts, deletes))


def below(client: int, clock: int) -> bytes:
    return b"\0" + encode_var_uint(client) + encode_var_uint(clock)


def text(string: str, **more: Any) -> bytes:
    return struct(4, encode_var_string(string), **more)


def gone(length: int, **more: Any) -> bytes:
    return struct(1, encode_var_uint(length), **more)


def form(name: str, value: str, **more: Any) -> bytes:
    return struct(6, encode_var_string(name) + encode_var_string(value), **more)


def parts(data: bytes) -> dict[int, bytes]:
    """Give the structs of each client, as written."""
    return {section.client: data[section.start : section.stop] for section in read_update(data).sections}


def deleted(data: bytes) -> dict[int, list[int]]:
    return {entry.client: entry.ranges for entry in read_update(data).deletes}


def all_deleted(**clocks: int) -> bytes:
    ends = {{"a": A, "b": B}[name]: [(0, end)] for name, end in clocks.items()}
    return encode_delete_set(ends)


@pytest.mark.parametrize(
    ("structs", "remains"),
    [
        ([text("abc"), text("d", origin=(A, 2))], [gone(4)]),
        ([text("abc"), text("d", origin=(A, 1))], [gone(3), gone(1, origin=(A, 1))]),
        ([struct(7, b"\2"), text("abc", parent=below(A, 0)), text("d", origin=(A, 3))], [gone(1), b"\0\4"]),
        (
            [struct(7, b"\2"), text("a", parent=below(A, 0)), text("d", origin=(A, 0))],
            [gone(1), b"\0\1", gone(1, origin=(A, 0))],
        ),
        ([b"\0\3", text("d")], [b"\0\3", gone(1)]),
        ([b"\0\3", text("d", origin=(A, 2))], [b"\0\4"]),
        ([struct(8 | 32, b"\1\x7d\1", parent=ROOT + b"\1k")], [struct(1 | 32, b"\1", parent=ROOT + b"\1k")]),
        ([text("a"), text("b", right=(A, 0))], [gone(1), gone(1, right=(A, 0))]),
        ([struct(7, b"\2"), text("a", parent=below(A, 0)), text("b", right=(A, 1))], [gone(1), b"\0\2"]),
        (
            [text("ab"), text("c", origin=(A, 0), right=(A, 1)), text("d", origin=(A, 2), right=(A, 1))],
            [gone(2), gone(2, origin=(A, 0), right=(A, 1))],
        ),
        (
            # With the right origin it would be GC in a client that has no real item, and not in one that has it.
            [struct(7, b"\2"), text("a", parent=below(A, 0)), text("b", origin=(A, 0), right=(A, 1))]
            + [text("c", origin=(A, 2)), text("d")],
            [gone(1), b"\0\1", gone(2, origin=(A, 0)), gone(1)],
        ),
        (
            [
                b"\0\1",
                text("a"),
                text("b", origin=(A, 1), right=(A, 0)),
                text("c", origin=(A, 2)),
                text("d", origin=(A, 1), right=(A, 3)),
                text("e", right=(A, 4)),
                text("f", origin=(A, 1)),
            ],
            [b"\0\1", gone(1), b"\0\4", gone(1, origin=(A, 1))],
        ),
    ],
    ids=[
        "joined",
        "not neighbours",
        "below a type",
        "beside a type",
        "beside GC",
        "behind GC",
        "under a key",
        "before another",
        "before one below a type",
        "between two",
        "left of one below a type",
        "left of GC",
    ],
)
def test_what_remains_of_structs(structs: list[bytes], remains: list[bytes]) -> None:
    data = update((A, structs))
    end = read_update(data).sections[0].end
    assert skeleton(data) == update((A, remains), deletes=all_deleted(a=end))
    assert skeleton(skeleton(data)) == skeleton(data)


def test_structs_left_of_gc_that_wait_for_each_other_are_gone() -> None:
    """Each is found again by way of the other one; that ends."""
    data = update(
        (A, [b"\0\1", text("a"), text("b", origin=(A, 1), right=(A, 0)), text("c", origin=(A, 2), right=(B, 0))]),
        (B, [text("d", origin=(A, 1), right=(A, 3))]),
    )
    assert skeleton(data) == update((A, [b"\0\1", gone(1), b"\0\2"]), (B, [b"\0\1"]), deletes=all_deleted(a=4, b=1))


def test_a_reset_has_a_marker_and_closes_the_keys_of_roots() -> None:
    data = update((A, [struct(8 | 32, b"\1\x7d\1", parent=ROOT + b"\1k"), text("x", parent=b"\1\1u")]))
    once = reset_update(data)
    sections = {section.client: section for section in read_update(once).sections}
    marker, own = marker_id(1), marker_id(1) - 1
    assert set(sections) == {A, own, marker}
    assert once[sections[own].start : sections[own].stop] == struct(1 | 32, b"\1", parent=ROOT + b"\1k")
    assert once[sections[marker].start : sections[marker].stop] == b"\0\1"
    assert all(number_of(client) == 1 for client in (own, marker)) and is_marker(marker) and not is_marker(own)
    assert not is_marker(marker, strict=True) and is_marker(marker_id(1, strict=True), strict=True)
    # The next one closes nothing that is closed.
    twice = reset_update(once, strict=True)
    assert {section.client for section in read_update(twice).sections} == {*sections, marker_id(2, strict=True)}
    vector = encode_state_vector({section.client: section.end for section in read_update(twice).sections})
    assert has_marker(vector, marker) and has_marker(vector, marker_id(2, strict=True))
    assert not has_marker(encode_state_vector({A: 2}), marker)
    assert max(filter(is_marker, decode_state_vector(vector))) == marker_id(2, strict=True)


KEY = ROOT + b"\1k"
VALUE = struct(8 | 32, b"\1\x7d\1", parent=KEY)
CLOSED = struct(1 | 32, b"\1", parent=KEY)
OWN = marker_id(1) - 1


def test_a_key_that_was_set_after_a_reset_is_closed_by_the_next_one() -> None:
    once = reset_update(update((A, [VALUE])))
    assert parts(once)[OWN] == CLOSED
    later = update((B, [struct(8 | 32, b"\1\x7d\2", origin=(OWN, 0))]))
    twice = reset_update(once, later)
    own = marker_id(2) - 1
    assert parts(twice)[own] == CLOSED and deleted(twice)[own] == [0, 1]
    # Only what refers to the key's own structs opens it: another root has been written to here.
    other = update((B, [text("x", parent=b"\1\1u"), text("y", origin=(B, 0))]))
    assert own not in parts(reset_update(once, other))
    # Nor do values from before the reset.
    twice_set = update((A, [VALUE]), (B, [struct(8 | 32, b"\1\x7d\2", origin=(A, 0))]))
    assert own not in parts(reset_update(reset_update(twice_set)))


def test_a_key_is_closed_again_only_if_it_was_set_since() -> None:
    later = update((B, [struct(8 | 32, b"\1\x7d\2", origin=(OWN, 0))]))
    twice = reset_update(reset_update(update((A, [VALUE]))), later)
    assert parts(twice)[marker_id(2) - 1] == CLOSED
    # What was set between the first two resets is gone with the second one.
    thrice = reset_update(twice)
    assert marker_id(3) - 1 not in parts(thrice)
    # Content of a reset that sets a key opens it, without an origin.
    again = reset_update(thrice, content=update((B, [VALUE])))
    assert parts(reset_update(again))[marker_id(5) - 1] == CLOSED
    # As does what is set behind it, also when that is joined with it.
    behind = update((B, [VALUE, struct(8 | 32, b"\1\x7d\2", origin=(B, 0))]))
    joined = reset_update(reset_update(thrice, content=behind))
    assert marker_id(6) - 1 not in parts(reset_update(joined))
    since = update((A + 1, [struct(8 | 32, b"\1\x7d\3", origin=(marker_id(5) - 1, 0))]))
    assert parts(reset_update(joined, since))[marker_id(6) - 1] == CLOSED


@pytest.mark.node
@pytest.mark.parametrize("content", [False, True])
def test_what_is_set_offline_under_a_key_without_a_value_survives_the_next_reset(content: bool) -> None:
    """However often the key had a value before."""
    with NodeScript("reset.mjs") as script:
        for seed in range(1, 1 + size(20, small=6)):
            session = Session(script, seed, 2, wide=seed % 2 > 0)
            for _ in range(2):
                session.run(0, "doc.getMap('map').set('k', 'seen')")
                session.reset()
            session.leave(1)
            session.run(1, "doc.getMap('map').set('k', 'offline')")
            session.reset(make(script, "doc.getText('text').insert(0, 'new')") if content else None)
            assert json.loads(session.agree())[1][1] == [["k", "offline"]]
            # It is a value now, and the next reset takes it away: what was set offline since then loses.
            session.leave(1)
            session.run(1, "doc.getMap('map').set('k', 'lost')")
            session.reset()
            assert json.loads(session.agree())[1][1] == []
            session.close()


@pytest.mark.node
def test_what_is_set_offline_over_the_content_of_a_reset_loses_against_the_next_one() -> None:
    with NodeScript("reset.mjs") as script:
        session = Session(script, 1, 2)
        session.run(0, "doc.getMap('map').set('k', 'seen')")
        session.reset()
        session.reset(make(script, "doc.getMap('map').set('k', 'new')"))
        session.leave(1)
        session.run(1, "doc.getMap('map').set('k', 'lost')")
        session.reset()
        assert json.loads(session.agree())[1][1] == []
        session.close()


def test_a_key_that_the_new_content_sets_is_not_closed() -> None:
    """Else the key would stand deleted beside its value."""
    data = update((A, [VALUE, struct(8 | 32, b"\1\x7d\2", parent=ROOT + b"\1l")]))
    made = reset_update(data, content=update((B, [VALUE])))
    assert parts(made)[OWN] == VALUE + struct(1 | 32, b"\1", parent=ROOT + b"\1l")
    assert deleted(made)[OWN] == [1, 1]
    # A key of the same name elsewhere is another one: of another root, or of a map. That is clock 116 of client 1,
    # which is written like the name of the root.
    of_root = update((1, [struct(8 | 32, b"\1\x7d\1", parent=b"\1\1u\1k")]))
    inner = [text("x" * 116), struct(7, b"\1"), struct(8 | 32, b"\1\x7d\1", parent=below(1, 116) + b"\1k")]
    for content in (of_root, update((1, inner))):
        assert parts(reset_update(update((A, [VALUE])), content=content))[OWN].endswith(CLOSED)
    # Nor does a GC name anything, whatever follows.
    high = MAX_SAFE_INTEGER
    made = reset_update(b"\0\0", content=update((high, [text("ab"), b"\0\1", text("c", origin=(high, 1))])))
    assert parts(made)[OWN] == text("ab") + b"\0\1" + text("c", origin=(OWN, 1))


def test_a_reset_ends_each_format_of_a_root() -> None:
    structs = [
        form("bold", "true"),
        text("ab", origin=(A, 0)),
        form("bold", "null", origin=(A, 2)),
        form("link", '"x"', origin=(A, 3), right=(A, 2)),
        struct(7, b"\2", parent=b"\1\1u"),
        form("below", "true", parent=below(A, 5)),
        form("bold", "true", parent=b"\1\1u"),
        struct(6 | 32, b"\1x\4true", parent=KEY),
    ]
    made = reset_update(update((A, structs)), content=update((B, [text("new")])))
    ends = [form("bold", "null"), form("link", "null"), form("bold", "null", parent=b"\1\1u")]
    # Without an origin and behind the content by their clocks, so that they stand before it.
    assert parts(made)[OWN] == text("new") + CLOSED + b"".join(ends)
    assert deleted(made)[OWN] == [3, 1]
    assert read_update(made).sections[-2].end == 7


def test_new_content_keeps_its_shape_under_new_ids() -> None:
    """Everything by which structs refer to each other is renamed: origins on both sides, and parents."""
    content = update(
        (A, [struct(7, b"\2"), text("a", parent=below(A, 0)), text("b", right=(A, 1)), b"\0\3"]),
        (300, [text("c", origin=(A, 1), right=(A, 2)), text("d", parent=below(A, 0)), text("e", parent=below(300, 0))]),
        deletes=encode_delete_set({A: [(1, 2), (3, 6)], 300: [(0, 1)]}),
    )
    first, second = OWN, OWN + 4
    made = reset_update(b"\0\0", content=content)
    assert made == update(
        (first, [struct(7, b"\2"), text("a", parent=below(first, 0)), text("b", right=(first, 1)), b"\0\3"]),
        (
            second,
            [
                text("c", origin=(first, 1), right=(first, 2)),
                text("d", parent=below(first, 0)),
                text("e", parent=below(second, 0)),
            ],
        ),
        (marker_id(2), [b"\0\1"]),
        deletes=encode_delete_set({first: [(1, 2), (3, 6)], second: [(0, 1)], marker_id(2): [(0, 1)]}),
    )


def test_new_content_shows_what_it_showed() -> None:
    """As a client of another kind reads it, with all that was deleted in it, and with maps below."""
    source: Doc[Any] = Doc(client_id=A)
    shown, items = source.get("t", type=Text), source.get("m", type=Map)
    shown += "onetwo"
    shown.insert(3, " and ")
    del shown[0:1]
    items["kept"] = Map({"in": Map({"it": 1.0})})
    items["gone"] = Map({"in": 2.0})
    del items["gone"]
    made = reset_update(update((A, [text("old")])), content=source.get_update())
    copy: Doc[Any] = Doc()
    copy.apply_update(made)
    assert str(copy.get("t", type=Text)) == "ne and two"
    assert copy.get("m", type=Map).to_py() == {"kept": {"in": {"it": 1.0}}}


@pytest.mark.parametrize("ranges", [{A: [(2, 4)]}, {B: [(0, 1)]}, {A: [(3, 4)], B: [(0, 1)]}])
def test_new_content_that_deletes_what_it_lacks_is_refused(ranges: dict[int, list[tuple[int, int]]]) -> None:
    with pytest.raises(UpdateError, match="not whole"):
        reset_update(b"\0\0", content=update((A, [text("abc")]), deletes=encode_delete_set(ranges)))


def test_forward_gives_what_a_document_lacks_of_its_reset() -> None:
    author: Doc[Any] = Doc(client_id=A)
    shown = author.get("t", type=Text)
    shown += "old content"
    data, known = author.get_update(), author.get_state()
    made = reset_update(data, content=update((B, [text("new")])))
    lacking = forward(made, known)
    assert parts(lacking) == {OWN: text("new"), marker_id(1): b"\0\1"}
    assert deleted(lacking) == deleted(made) == {A: [0, 11], marker_id(1): [0, 1]}
    author.apply_update(lacking)
    assert str(shown) == "new"
    assert forward(made, author.get_state()) == b"\0" + made[read_update(made).deletes_start :]


def test_a_document_with_poison_from_of_old_can_be_reset_to_its_own_content() -> None:
    """As one is that takes a name which others had."""
    poison = struct(9, b"\1g\x76\1\4guid\x7e")
    data = update((A, [poison]))
    with pytest.raises(UpdateError):
        read_update(data)
    lacking = forward(reset_update(data, content=data), encode_state_vector({A: 1}))
    assert lacking == update(
        (OWN, [poison]), (marker_id(1), [b"\0\1"]), deletes=encode_delete_set({A: [(0, 1)], marker_id(1): [(0, 1)]})
    )


def test_clients_of_the_new_content_keep_their_order() -> None:
    content = update((A, [text("a"), text("b", origin=(B, 0))]), (B, [text("c", origin=(A, 0))]))
    made = read_update(reset_update(b"\0\0", content=content))
    first, second = marker_id(1) - 1, marker_id(2) - 1
    assert [section.client for section in made.sections] == [marker_id(2), second, first]
    assert made.sections[1].references == [(0, first, 0)] and made.sections[2].references == [(1, second, 0)]
    assert next_number(section.client for section in made.sections) == 3


@pytest.mark.parametrize(
    "data",
    [
        update((A, [text("a", origin=(B, 0))])),
        update((A, [text("a", right=(B, 0))])),
        update((A, [text("a", parent=below(B, 0))])),
        update((A, [b"\x0a\2", text("a")])),
        b"\1\1" + encode_var_uint(A) + b"\2" + text("a") + b"\0",
        b"\1",
    ],
    ids=["an origin that is not there", "no right origin", "no parent", "a gap", "begins later", "no update"],
)
def test_what_is_not_whole_is_refused(data: bytes) -> None:
    with pytest.raises(UpdateError):
        skeleton(data)
    with pytest.raises(UpdateError):
        reset_update(b"\0\0", content=data)
    with pytest.raises(UpdateError):
        bury(data)


def test_numbers_rise_and_end() -> None:
    once = reset_update(b"\0\0", number=7)
    with pytest.raises(ValueError, match="no number"):
        reset_update(once, number=7)
    with pytest.raises(LimitExceeded):
        reset_update(reset_update(b"\0\0", number=MOST_RESETS - 1))


def test_a_reset_and_a_skeleton_are_made_whole_or_of_what_is_lacking() -> None:
    one, new = update((A, [text("abc")])), update((B, [text("new")]))
    whole = reset_update(one, content=new)
    known = encode_state_vector({A: 3})
    assert make_reset([one], new, False, None) == whole
    assert make_reset([one], new, False, known) == forward(whole, known)
    assert make_skeleton([one], None) == skeleton(one)
    assert make_skeleton([one], known) == without_known(skeleton(one), {A: 3}) != skeleton(one)


def test_several_documents_are_joined() -> None:
    one, other = update((A, [text("abc")])), update((A, [text("abcd")]), (B, [text("x")]))
    assert skeleton(one, other) == update((A, [gone(4)]), (B, [gone(1)]), deletes=all_deleted(a=4, b=1))
    assert without_known(skeleton(one, other), {A: 3}) == (
        update((B, [gone(1)]))[:-1].replace(b"\1", b"\2", 1)
        + b"\1"
        + encode_var_uint(A)
        + b"\3"
        + gone(1, origin=(A, 2))
        + encode_delete_set({A: [(3, 4)], B: [(0, 1)]})
    )


def test_what_lies_in_deleted_types_becomes_gc() -> None:
    structs = [
        struct(7, b"\2"),
        text("abc", parent=below(A, 0)),
        struct(7, b"\1", parent=below(A, 0)),
        text("x", parent=below(A, 4)),
    ]
    deletes = encode_delete_set({A: [(0, 1)]})
    kept = [struct(7, b"\2"), b"\0\5"]
    assert bury(update((A, structs), deletes=deletes)) == update((A, kept), deletes=deletes)
    assert bury(update((A, structs))) == update((A, structs))
    for parent in (gone(1), b"\0\1"):
        # What is left of a type says so itself, also where the delete set does not.
        written = [b"\0\6"] if parent == b"\0\1" else [parent, b"\0\5"]
        assert bury(update((A, [parent, *structs[1:]]))) == update((A, written))
    inner = encode_delete_set({A: [(4, 5)]})
    assert bury(update((A, structs), deletes=inner)) == update((A, [*structs[:3], b"\0\1"]), deletes=inner)


@pytest.mark.parametrize("count", [20_000])
def test_time_is_linear_also_for_structs_that_lie(count: int) -> None:
    """A chain of structs that each lie beside the next one, at whose end there is a GC."""
    structs = [b"\0\1"]
    for at in range(count):
        structs.append(bytes((4 | 64 | 128,)) + below(A, at)[1:] + below(A, 0)[1:] + b"\1x")
    data = update((A, structs))
    assert skeleton(data) == update((A, [b"\0" + encode_var_uint(count + 1)]), deletes=all_deleted(a=count + 1))
    chain = [text("a")]
    chain += [text("a", origin=(A, 0)) for _ in range(count)]
    assert len(skeleton(update((A, chain)))) > count
