"""Random documents, random targets: what is written is shown, to yjs too, and what others type meanwhile stays."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collab.content.edits import Dialect, Format, Replace, RootType
from collab.content.markdown import from_markdown, to_markdown
from collab.content.prosemirror import from_prosemirror, to_prosemirror
from collab.content.replica import Replica
from collab.content.schema import fit
from collab.content.tree import Element, Node, TextNode, joined
from collab.content.values import same
from collab.update import read_update
from tests.content import samples
from tests.support.node import NodeScript

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(300)]

RANDOM = st.randoms(use_true_random=False)
EXAMPLES = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
TYPED = "TYPED"


@pytest.fixture(scope="module")
def yjs() -> Iterator[NodeScript]:
    with NodeScript("content_oracle.mjs") as script:
        yield script


def ask(yjs: NodeScript, *command: Any) -> Any:
    """Ask yjs one thing."""
    (answer,) = yjs.call([list(command)])
    assert not (isinstance(answer, dict) and "error" in answer), answer["error"]
    return answer


class Case:
    """A kind of content: how it is made, changed, written and seen."""

    format: Format
    roots: dict[str, str]
    name: str | None = None
    type: RootType | None = None

    def make(self, random: Random) -> Any:
        raise NotImplementedError

    def change(self, random: Random, value: Any) -> Any:
        raise NotImplementedError

    def expect(self, value: Any) -> Any:
        """Return what shall be read after a value was written, in a form that can be compared."""
        return value

    def read(self, value: Any) -> Any:
        """Return what was read in the form of `expect`."""
        return value

    def as_yjs(self, replica: Replica) -> dict[str, Any]:
        """Return what a replica shows as the oracle shows it."""
        raise NotImplementedError

    def typing(self, random: Random) -> dict[str, Any]:
        """Return what another client types."""
        ((root, kind),) = self.roots.items()
        return {"root": root, "kind": kind, "at": random.randint(0, 9), "text": TYPED, "nth": random.randint(0, 5)}


class Structures(Case):
    format = Format.JSON
    roots = {"m": "map", "l": "array"}

    def make(self, random: Random) -> Any:
        return {
            "m": {key: samples.json_value(random) for key in "abc"},
            "l": [samples.json_value(random, 1) for _ in range(random.randint(0, 6))],
        }

    def change(self, random: Random, value: Any) -> Any:
        changed = {key: samples.changed_json(random, one) for key, one in value.items()}
        return {
            "m": changed["m"] if isinstance(changed["m"], dict) else {},
            "l": changed["l"] if isinstance(changed["l"], list) else [],
        }

    def read(self, value: Any) -> Any:
        return {"m": {}, "l": [], **value}

    def as_yjs(self, replica: Replica) -> dict[str, Any]:
        return self.read(replica.read(Format.JSON))

    def typing(self, random: Random) -> dict[str, Any]:
        if random.random() < 0.5:
            return {"root": "m", "kind": "map", "at": 5, "text": TYPED}
        return {"root": "l", "kind": "array", "at": random.randint(0, 4), "text": TYPED}


class Texts(Case):
    format = Format.DELTA
    roots = {"t": "text"}
    name = "t"
    type = RootType.TEXT

    def make(self, random: Random) -> Any:
        return samples.delta(random)

    def change(self, random: Random, value: Any) -> Any:
        return samples.changed_delta(random, value)

    def read(self, value: Any) -> Any:
        return samples.joined_delta(value)

    def as_yjs(self, replica: Replica) -> dict[str, Any]:
        return {"t": replica.read(Format.DELTA, "t")}


class Trees(Case):
    format = Format.PROSEMIRROR
    roots = {"x": "xml"}
    name = "x"

    def make(self, random: Random) -> Any:
        return to_prosemirror(samples.blocks(random, special=True))

    def change(self, random: Random, value: Any) -> Any:
        return samples.changed_prosemirror(random, value)

    def expect(self, value: Any) -> Any:
        return self.read(value)

    def read(self, value: Any) -> Any:
        return to_prosemirror(joined_texts(from_prosemirror(value)))

    def as_yjs(self, replica: Replica) -> dict[str, Any]:
        return {"x": replica.read(Format.PROSEMIRROR, "x")}


class Markdown(Trees):
    format = Format.MARKDOWN

    def make(self, random: Random) -> Any:
        return to_markdown(samples.blocks(random, marks=("bold", "italic", "link", "strike")))

    def change(self, random: Random, value: Any) -> Any:
        tree = samples.changed_prosemirror(random, to_prosemirror(from_markdown(value)))
        return to_markdown(from_prosemirror(tree))

    def read(self, value: Any) -> Any:
        return to_prosemirror(fit(from_markdown(value), False, Dialect.TIPTAP, frozenset()))


def joined_texts(nodes: list[Node]) -> list[Node]:
    """Return a tree whose texts are not split at marks that say nothing."""
    return [
        TextNode(joined(node.pieces))
        if isinstance(node, TextNode)
        else Element(node.name, node.attributes, joined_texts(node.children))
        for node in nodes
    ]


def ordered(value: Any) -> Any:
    """Return JSON with marks in one order: theirs says nothing."""
    if isinstance(value, list):
        return [ordered(one) for one in value]
    if isinstance(value, dict):
        return {
            key: sorted(one, key=lambda mark: str(mark["type"])) if key == "marks" else ordered(one)
            for key, one in value.items()
        }
    return value


CASES = [Structures(), Texts(), Trees(), Markdown()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: type(case).__name__)
@EXAMPLES
@given(random=RANDOM)
def test_what_is_written_is_shown_to_everybody_and_merges(case: Case, yjs: NodeScript, random: Random) -> None:
    replica = Replica(b"\0\0", 7)
    value = case.make(random)
    shared = random.random() < 0.5
    for client in (8, 9, 10):
        base = replica.encode()
        edit = Replace(case.name, case.format, value, case.type, shared)
        update = replica.edit(edit)
        if update:
            read = read_update(update)
            assert {section.client for section in read.sections} <= {replica.client_id}
            shown = replica.read(case.format, case.name)
            assert same(case.read(shown), case.expect(value))
            seen = ask(yjs, "show", [base.hex(), update.hex()], case.roots)
            assert not seen["pending"]
            assert ordered(seen["roots"]) == ordered(case.as_yjs(replica))
            merged = ask(yjs, "concurrent", base.hex(), update.hex(), case.typing(random), case.roots)
            assert merged["one"] == merged["other"]
        else:
            assert replica.encode() == base
        assert replica.edit(edit) == b"", "what is there is not written again"
        value = case.change(random, value)
        replica = Replica(replica.encode(), client)


@EXAMPLES
@given(random=RANDOM)
def test_what_is_typed_into_a_text_meanwhile_stays(yjs: NodeScript, random: Random) -> None:
    """Whatever an edit deletes: it deletes what it has seen."""
    replica = Replica(b"\0\0", 7)
    value = samples.delta(random) + [{"insert": "the end"}]
    replica.edit(Replace("t", Format.DELTA, value, RootType.TEXT))
    base = replica.encode()
    update = replica.edit(Replace("t", Format.DELTA, samples.changed_delta(random, value)))
    typing = {"root": "t", "kind": "text", "at": random.randint(0, 20), "text": TYPED}
    merged = ask(yjs, "concurrent", base.hex(), update.hex(), typing, {"t": "text"})
    assert merged["one"] == merged["other"]
    text = "".join(run["insert"] for run in merged["one"]["t"] if isinstance(run["insert"], str))
    assert TYPED in text


@EXAMPLES
@given(random=RANDOM)
def test_what_is_typed_into_a_paragraph_that_stays_stays(yjs: NodeScript, random: Random) -> None:
    """A paragraph is edited by Markdown at one end, and typed in at the other."""
    first = [f"paragraph {number} {samples.words(random)} end" for number in range(random.randint(1, 5))]
    replica = Replica(b"\0\0", 7)
    replica.edit(Replace("x", Format.MARKDOWN, "\n\n".join(first)))
    base = replica.encode()
    at = random.randrange(len(first))
    second = [*first[:at], first[at].replace("paragraph", "section"), *first[at + 1 :]]
    if random.random() < 0.5:
        second.insert(random.randint(0, len(second)), "something new")
    update = replica.edit(Replace("x", Format.MARKDOWN, "\n\n".join(second)))
    typing = {"root": "x", "kind": "xml", "at": len(first[at]), "text": TYPED, "nth": at}
    merged = ask(yjs, "concurrent", base.hex(), update.hex(), typing, {"x": "xml"})
    assert merged["one"] == merged["other"]
    shown = [block["content"][0]["text"] for block in merged["one"]["x"]["content"]]
    assert first[at].replace("paragraph", "section") + TYPED in shown


@EXAMPLES
@given(random=RANDOM)
def test_updates_of_two_replicas_merge_in_any_order(yjs: NodeScript, random: Random) -> None:
    """Replicas of one document that edit at once, and take each other's updates, end equal, as yjs does."""
    case = Structures()
    base = Replica(b"\0\0", 7)
    value = case.make(random)
    base.edit(Replace(None, Format.JSON, value, shared=True))
    one, other = Replica(base.encode(), 8), Replica(base.encode(), 9)
    mine = one.edit(Replace(None, Format.JSON, case.change(random, value), shared=True))
    theirs = other.edit(Replace(None, Format.JSON, case.change(random, value), shared=True))
    for replica, update in ((one, theirs), (other, mine)):
        if update:
            replica.apply(update)
    assert one.read(Format.JSON) == other.read(Format.JSON)
    seen = ask(yjs, "show", [one.encode().hex()], case.roots)["roots"]
    assert case.read(one.read(Format.JSON)) == seen
