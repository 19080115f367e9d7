"""What shared types hold, with their types: to be compared exactly, and to be written again.

Strategy: JSON shows a nested text as a string and bytes as an object, so two documents with the same JSON may differ.
Here each type is told from the others, and two states are equal when their keys are. Writing a state changes only what
differs, as other edits do; what cannot be made anew (a subdocument) is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pycrdt

from collab.content.difference import compare
from collab.content.nodes import write_nodes
from collab.content.shared import elements, entries, nodes, plain, runs_of
from collab.content.structures import Writer, as_written, insert
from collab.content.texts import write_text
from collab.content.tree import Element, Node, Piece, TextNode, joined
from collab.content.values import plain_number
from collab.errors import EditNotShown

VALUE, TEXT, MAP, ARRAY, XML, OTHER = "value", "text", "map", "array", "xml", "other"

_TYPES: Final = (
    pycrdt.Map,
    pycrdt.Array,
    pycrdt.Text,
    pycrdt.XmlFragment,
    pycrdt.XmlElement,
    pycrdt.XmlText,
    pycrdt.Doc,
)
_EMPTY: Final[dict[str, Any]] = {TEXT: [], MAP: {}, ARRAY: [], XML: []}


@dataclass(frozen=True, slots=True)
class State:
    """What a value or a shared type holds.

    Attributes:
        kind: ``VALUE``, ``TEXT``, ``MAP``, ``ARRAY``, ``XML`` (children), or ``OTHER``, which cannot be made anew.
        held: a plain value of the library; pieces; states by key; states; nodes; for ``OTHER`` what tells it.
        key: a string that equal states have in common.
    """

    kind: str
    held: Any = field(compare=False)
    key: str

    @property
    def identity(self) -> str | None:
        """The ``id`` of an object or a map, by which it is the same one when the rest has changed."""
        value: Any = None
        if self.kind == MAP:
            inner = self.held.get("id")
            value = inner.held if inner is not None and inner.kind == VALUE else None
        elif self.kind == VALUE and isinstance(self.held, dict):
            value = self.held.get("id")
        if isinstance(value, float):
            value = plain_number(value)
        return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


class _Shared(Piece):
    """A shared type that stands in a text, by the key of its state."""


def _piece(run: tuple[Any, dict[str, Any] | None]) -> Piece:
    content, attributes = run
    formats = plain(attributes) if attributes else {}
    if isinstance(content, str):
        return Piece(content, formats)
    if isinstance(content, _TYPES):
        return _Shared(read_state(content).key, formats, False)
    return Piece(content, formats, False)


def state_of(kind: str, held: Any) -> State:
    """Make a state."""
    if kind == VALUE:
        shape: Any = _canonical(held)
    elif kind == TEXT:
        shape = _text_shape(held)
    elif kind == MAP:
        shape = {key: one.key for key, one in held.items()}
    elif kind == ARRAY:
        shape = [one.key for one in held]
    elif kind == XML:
        shape = list(map(_node_shape, held))
    else:
        shape = held
    text = json.dumps([kind, shape], sort_keys=True, separators=(",", ":"))
    return State(kind, held, text if len(text) <= 80 else hashlib.blake2b(text.encode(), digest_size=32).hexdigest())


def empty_state(kind: str) -> State:
    """Return what a shared type of a kind holds when it is new."""
    return state_of(kind, _EMPTY[kind])


def read_state(value: Any) -> State:
    """Read a value or a shared type of pycrdt."""
    if isinstance(value, pycrdt.Map):
        return state_of(MAP, {key: read_state(one) for key, one in entries(value).items()})
    if isinstance(value, pycrdt.Array):
        return state_of(ARRAY, list(map(read_state, elements(value))))
    if isinstance(value, pycrdt.Text):
        return state_of(TEXT, joined(map(_piece, runs_of(value))))
    if isinstance(value, pycrdt.XmlFragment):
        return state_of(XML, nodes(value))
    if isinstance(value, pycrdt.XmlElement | pycrdt.XmlText):
        return state_of(OTHER, [type(value).__name__, str(value)])
    if isinstance(value, pycrdt.Doc):
        return state_of(OTHER, ["Doc", value.guid])
    return state_of(VALUE, value)


def write_state(shared: Any, wanted: State, writer: Writer) -> None:
    """Make a shared type hold a state, in the transaction that is open; raises EditNotShown where that cannot be."""
    held = read_state(shared)
    if held.key == wanted.key:
        return
    if held.kind != wanted.kind:
        raise EditNotShown(f"a {wanted.kind} is wanted where a {held.kind} is")
    if wanted.kind == TEXT:
        if any(isinstance(piece, _Shared) for piece in (*held.held, *wanted.held)):
            raise EditNotShown("a shared type in a text cannot be made anew")
        write_text(shared, wanted.held, writer.work)
    elif wanted.kind == XML:
        write_nodes(shared, wanted.held, writer)
    elif wanted.kind == MAP:
        _write_map(shared, held, wanted, writer)
    elif wanted.kind == ARRAY:
        _write_array(shared, held, wanted, writer)
    else:
        raise EditNotShown("it cannot be made anew")


def _write_map(shared: pycrdt.Map[Any], held: State, wanted: State, writer: Writer) -> None:
    for key in held.held:
        if key not in wanted.held:
            del shared[key]
    for key, one in wanted.held.items():
        before = held.held.get(key)
        if before is not None and before.key == one.key:
            continue
        if before is not None and before.kind == one.kind and one.kind in _EMPTY:
            write_state(shared[key], one, writer)
            continue
        shared[key] = _made(one, writer)
        if one.kind in _EMPTY:
            write_state(shared[key], one, writer)


def _write_array(shared: pycrdt.Array[Any], held: State, wanted: State, writer: Writer) -> None:
    old, new = _tokens(held.held), _tokens(wanted.held)
    splices: list[tuple[int, int, list[State]]] = []
    at = new_at = 0
    for hunk in [*compare(old, new, writer.work), None]:
        stop = len(old) if hunk is None else hunk.start
        for offset in range(stop - at):
            before, one = held.held[at + offset], wanted.held[new_at + offset]
            if before.key == one.key:
                continue
            if before.kind == one.kind and one.kind in _EMPTY:
                write_state(shared[at + offset], one, writer)
            else:
                splices.append((at + offset, at + offset + 1, [one]))
        if hunk is not None:
            splices.append((hunk.start, hunk.stop, wanted.held[hunk.new_start : hunk.new_stop]))
            at, new_at = hunk.stop, hunk.new_stop
    for start, stop, states in reversed(splices):
        if stop > start:
            del shared[start:stop]
        for offset, one in enumerate(states):
            insert(shared, start + offset, _made(one, writer), writer)
            if one.kind in _EMPTY:
                write_state(shared[start + offset], one, writer)


def _tokens(states: Iterable[State]) -> list[tuple[str, str]]:
    """Return what elements have in common with those that they were: their ids, or all of them."""
    return [(one.kind, "key " + one.key if one.identity is None else "id " + one.identity) for one in states]


def _made(state: State, writer: Writer) -> Any:
    """Return a new value, or a new shared type, which is empty yet."""
    if state.kind == VALUE:
        return as_written(state.held)
    if state.kind not in _EMPTY:
        raise EditNotShown("a subdocument, or XML outside of a fragment, cannot be made anew")
    writer.made()
    return {TEXT: pycrdt.Text, MAP: pycrdt.Map, ARRAY: pycrdt.Array, XML: pycrdt.XmlFragment}[state.kind]()


# Elements of a state, by their ids

ID: Final = "id"
"""The attribute of a node, and the key of an object, that names an element."""


def with_element(held: State, past: State, element: str) -> State | None:
    """Return a state in which one element is as it was in another state; None where neither has it.

    An element is an XML element, or an entry of an array, with this ``id``, or what stands under this key of a map. One
    that is not there any more comes back behind what was before it, one that was not there goes.
    """
    if held.kind != past.kind:
        return None
    if held.kind == MAP:
        return _map_with(held, past, element)
    if held.kind == ARRAY:
        entries_now, entries_then = list(held.held), list(past.held)
        if not _exchange(entries_now, entries_then, element, lambda one: one.identity):
            return None
        return state_of(ARRAY, entries_now)
    if held.kind == XML:
        changed = _nodes_with(held.held, past.held, element)
        return None if changed is None else state_of(XML, changed)
    return None


def _map_with(held: State, past: State, element: str) -> State | None:
    if element not in held.held and element not in past.held:
        return None
    states = dict(held.held)
    if element in past.held:
        states[element] = past.held[element]
    else:
        del states[element]
    return state_of(MAP, states)


def _nodes_with(held: list[Node], past: list[Node], element: str) -> list[Node] | None:
    """Exchange a node in the list that holds it, or that held it."""
    changed = list(held)
    if _exchange(changed, past, element, _node_id):
        return changed
    for number, node in enumerate(held):
        if isinstance(node, Element):
            then = next((one for one in past if isinstance(one, Element) and _alike(node, one)), None)
            inner = _nodes_with(node.children, [] if then is None else then.children, element)
            if inner is not None:
                changed[number] = Element(node.name, node.attributes, inner)
                return changed
    return None


def _exchange(held: list[Any], past: list[Any], element: str, identity: Any) -> bool:
    """Make the element of a list what it was in the list before; False if it is in none of them."""
    now = next((at for at, one in enumerate(held) if identity(one) == element), None)
    then = next((at for at, one in enumerate(past) if identity(one) == element), None)
    if now is None and then is None:
        return False
    if then is None:
        del held[now]  # type: ignore[arg-type]
    elif now is not None:
        held[now] = past[then]
    else:
        before = {identity(one) for one in past[:then]} - {None}
        behind = max((at + 1 for at, one in enumerate(held) if identity(one) in before), default=min(then, len(held)))
        held.insert(behind, past[then])
    return True


def _alike(node: Element, other: Element) -> bool:
    """Tell whether two elements are the same one: of one id, or of one name without ids."""
    return node.name == other.name and _node_id(node) == _node_id(other)


def _node_id(node: Any) -> str | None:
    value = node.attributes.get(ID) if isinstance(node, Element) else None
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


# Shapes: what JSON can hold, and tells all apart


def _text_shape(held: Iterable[Piece]) -> list[Any]:
    return [
        [
            piece.content if piece.is_text else _canonical(piece.content),
            piece.attributes,
            piece.is_text,
            isinstance(piece, _Shared),
        ]
        for piece in joined(held)
    ]


def _node_shape(node: Node) -> Any:
    if isinstance(node, TextNode):
        return _text_shape(node.pieces)
    return [node.name, node.attributes, list(map(_node_shape, node.children))]


def _canonical(value: Any) -> Any:
    if isinstance(value, float):
        return plain_number(value) if math.isfinite(value) else [None, str(value)]
    if isinstance(value, bytes | bytearray):
        return [None, value.hex()]
    if isinstance(value, dict):
        return {key: _canonical(one) for key, one in value.items()}
    if isinstance(value, list):
        # What begins with None is no list of the document's own then.
        return ["list", *map(_canonical, value)]
    return plain(value)
