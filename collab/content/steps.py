"""What an edit does in a document of the library, and what of the document it is to be judged by.

Strategy: all that an edit brings is checked before the first change, so an edit that is malformed costs nothing. Each
edit becomes a step: a function that changes the document in the transaction that is open, and notes which places it has
touched. At these the second document must show what the first one shows (`agree`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pycrdt

from collab.content.board import ELEMENTS, FILES, plan, read_scene
from collab.content.difference import Hunk, compare_texts
from collab.content.edits import (
    MAX_OPERATIONS,
    MAX_PATH,
    ArrayAppend,
    Batch,
    Edit,
    Format,
    Patch,
    Path,
    Replace,
    RootType,
    TextDelete,
    TextFormat,
    TextInsert,
    TextReplace,
)
from collab.content.fragments import Over, over_prosemirror, write_fragment
from collab.content.nodes import write_nodes
from collab.content.patches import Operation, apply_patch, pointer, read_patch, type_of
from collab.content.rich import RichText
from collab.content.shared import find, nodes, pieces, plain, runs_of
from collab.content.structures import Writer, insert, make, write_value
from collab.content.texts import Embeds, Flat, code_point, read_attributes, read_delta, write_text
from collab.content.tree import Piece, joined
from collab.content.values import check_name, check_text, clean, same
from collab.content.views import READ_AS, Roots
from collab.errors import EditConflict, EditNotShown, InvalidEdit, NoSuchContent, WrongContentType


@dataclass(frozen=True, slots=True)
class Place:
    """What edits have touched of a root.

    Args:
        root: its name.
        type: the root's type, None if it is known.
        path: to a shared type below the root.
        focus: the key or index of it that alone was changed; None for all.
    """

    root: str
    type: RootType | None
    path: Path = ()
    focus: str | int | None = None


class Places:
    """All places that edits have touched, one of each root."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places.values())

    def touch(self, root: str, type_: RootType | None, path: Path = (), focus: str | int | None = None) -> None:
        """Note a place. Two of one root become the whole root: the first may have moved since."""
        place = Place(root, type_, path, focus)
        before = self._places.get(root)
        if before is not None and (focus is not None or (before.path, before.focus) != (path, None)):
            place = Place(root, type_ or before.type)
        self._places[root] = place


Step = Callable[[Roots, Writer, Places], None]


def make_steps(edit: Edit) -> list[Step]:
    """Check what an edit brings and return what is to be done; raises InvalidEdit."""
    if not isinstance(edit, Batch):
        return [_make_step(edit)]
    if len(edit.edits) > MAX_OPERATIONS:
        raise InvalidEdit(f"the batch has more than {MAX_OPERATIONS} edits")
    steps: list[Step] = []
    for number, one in enumerate(edit.edits):
        try:
            steps.append(_make_step(one))
        except InvalidEdit as error:
            raise InvalidEdit(f"edit {number}: {error}", edit=number) from None
    return steps


def _make_step(edit: Edit) -> Step:
    if isinstance(edit, Patch):
        operations = read_patch(edit.operations)
        return partial(_patch, operations, edit.shared)
    if isinstance(edit, Replace):
        return _replacing(edit)
    if isinstance(edit, Batch):
        raise InvalidEdit("a batch holds a batch")
    _check_path(edit.root, edit.path)
    if isinstance(edit, ArrayAppend):
        return partial(_append, edit, clean(list(edit.values)))
    if isinstance(edit, TextInsert):
        check_text(edit.text, "the text")
        attributes = None if edit.attributes is None else read_attributes(clean(edit.attributes), "the edit")
        return partial(_insert_text, edit, attributes)
    if isinstance(edit, TextDelete):
        return partial(_delete_text, edit)
    if isinstance(edit, TextFormat):
        return partial(_format_text, edit, clean(edit.attributes, "the attributes"))
    if isinstance(edit, TextReplace):
        check_text(edit.text, "the text")
        if not check_text(edit.passage, "the passage"):
            raise InvalidEdit("the passage is empty")
        return partial(_replace_passage, edit)
    raise InvalidEdit(f"{type(edit).__name__} is no edit")


def _check_path(root: Any, path: Any) -> None:
    check_name(root, "the root's name")
    if not isinstance(path, tuple) or len(path) > MAX_PATH:
        raise InvalidEdit(f"the path is no tuple of at most {MAX_PATH} steps")
    for step in path:
        if type(step) is not int:
            check_name(step, "a step of the path")


# JSON


def _replacing(edit: Replace) -> Step:
    if edit.root is not None:
        check_name(edit.root, "the root's name")
    if edit.format is Format.JSON:
        value = clean(edit.value)
        if edit.root is not None:
            return partial(_replace_json, edit.root, value, edit.type, edit.shared)
        if not isinstance(value, dict):
            raise InvalidEdit("the JSON of a document is an object with its roots")
        return partial(_replace_all, value, edit.shared)
    if edit.format is Format.TEXT:
        return partial(_replace_text, edit, RichText(Format.TEXT, edit.value, edit.dialect))
    if edit.format is Format.DELTA:
        return partial(_replace_delta, edit, read_delta(edit.value))
    if edit.format is Format.PROSEMIRROR:
        return partial(_replace_tree, edit, over_prosemirror(edit.value))
    if edit.format is Format.EXCALIDRAW:
        return partial(_replace_drawing, edit.root or ELEMENTS, *read_scene(edit.value))
    rich = RichText(edit.format, edit.value, edit.dialect)
    return partial(_replace_tree, edit, rich.over)


def _replace_all(value: dict[str, Any], shared: bool, roots: Roots, writer: Writer, places: Places) -> None:
    for name in list(roots.named()):
        if name not in value:
            _replace_json(name, None, None, shared, roots, writer, places)
    for name, content in value.items():
        _replace_json(name, content, None, shared, roots, writer, places)


def _replace_json(
    name: str, value: Any, type_: RootType | None, shared: bool, roots: Roots, writer: Writer, places: Places
) -> None:
    known = roots.types.get(name, RootType.EMPTY)
    if known is RootType.EMPTY:
        if value is None:
            return
        known = type_ or type_of(value) or RootType.EMPTY
        if known is RootType.EMPTY:
            raise InvalidEdit(f"a root shows a string, a list or an object, not the value for {name[:100]!r}")
    root = roots(name, known)
    places.touch(name, known)
    shown = plain(root)
    if value is None:
        if isinstance(root, pycrdt.XmlFragment):
            del root.children[0 : len(root.children)]
            return
        value = {RootType.TEXT: "", RootType.MAP: {}, RootType.ARRAY: []}[known]
    if same(shown, value):
        return
    if not write_value(root, value, writer, shared):
        raise WrongContentType(f"the root {name[:100]!r} is of type {known.value}, and the value is none for it")
    if not isinstance(root, pycrdt.Text) and not same(plain(root), value):
        raise EditNotShown(f"the root {name[:100]!r} does not show what was written")


def _target(edit: Replace, default: RootType, roots: Roots) -> tuple[str, RootType]:
    """Return the root that a format other than JSON is written to, and its type."""
    name = edit.root if edit.root is not None else roots.only(edit.format)
    known = roots.types.get(name, RootType.EMPTY)
    if known is RootType.EMPTY:
        known = edit.type or default
    if known not in READ_AS[edit.format]:
        raise WrongContentType(f"the root {name[:100]!r} is of type {known.value}, not for {edit.format.value}")
    return name, known


def _replace_text(edit: Replace, rich: RichText, roots: Roots, writer: Writer, places: Places) -> None:
    name, known = _target(edit, RootType.TEXT, roots)
    if known is RootType.XML:
        _replace_tree(edit, rich.over, roots, writer, places)
        return
    places.touch(name, known)
    write_text(roots(name, known), [Piece(edit.value)], writer.work)


def _replace_tree(edit: Replace, over: Over, roots: Roots, writer: Writer, places: Places) -> None:
    name, known = _target(edit, RootType.XML, roots)
    places.touch(name, known)
    write_fragment(roots(name, known), over, writer)


def _replace_drawing(
    name: str,
    elements: list[dict[str, Any]],
    files: dict[str, Any] | None,
    roots: Roots,
    writer: Writer,
    places: Places,
) -> None:
    array = _root_of(roots, name, RootType.ARRAY, places)
    gone, added = plan(plain(array), elements)
    for at in reversed(gone):
        del array[at]
    for element in added:
        insert(array, len(array), make(element, False, writer), writer)
    if files is not None and (files or roots.types.get(FILES, RootType.EMPTY) is not RootType.EMPTY):
        write_value(_root_of(roots, FILES, RootType.MAP, places), files, writer)


def _root_of(roots: Roots, name: str, type_: RootType, places: Places) -> Any:
    known = roots.types.get(name, RootType.EMPTY)
    if known not in (type_, RootType.EMPTY):
        raise WrongContentType(f"the root {name[:100]!r} is of type {known.value}, not {type_.value}")
    places.touch(name, type_)
    return roots(name, type_)


def _replace_delta(edit: Replace, target: list[Piece], roots: Roots, writer: Writer, places: Places) -> None:
    name, known = _target(edit, RootType.TEXT, roots)
    places.touch(name, known)
    write_text(roots(name, known), target, writer.work)


def _patch(operations: Sequence[Operation], shared: bool, roots: Roots, writer: Writer, places: Places) -> None:
    apply_patch(operations, roots, places.touch, writer, shared)


def _append(edit: ArrayAppend, values: list[Any], roots: Roots, writer: Writer, places: Places) -> None:
    array = find(roots(edit.root, None if edit.path else RootType.ARRAY), edit.path)
    if not isinstance(array, pycrdt.Array):
        raise WrongContentType(f"{pointer((edit.root, *edit.path))} is no array")
    at = len(array)
    places.touch(edit.root, None if edit.path else RootType.ARRAY, edit.path, at if len(values) == 1 else None)
    for offset, value in enumerate(values):
        insert(array, at + offset, make(value, edit.shared, writer), writer)


# Texts


def _text(edit: Any, roots: Roots, places: Places) -> tuple[pycrdt.Text | pycrdt.XmlText, list[Piece], Flat]:
    """Return the text that an edit is for, its pieces, and both as one string."""
    text = find(roots(edit.root, None if edit.path else RootType.TEXT), edit.path)
    if not isinstance(text, pycrdt.Text | pycrdt.XmlText):
        raise WrongContentType(f"{pointer((edit.root, *edit.path))} is no text")
    places.touch(edit.root, None if edit.path else RootType.TEXT, edit.path)
    held = pieces(text)
    return text, held, Flat(held, Embeds())


def _insert_text(
    edit: TextInsert, attributes: dict[str, Any] | None, roots: Roots, writer: Writer, places: Places
) -> None:
    text, held, flat = _text(edit, roots, places)
    at = code_point(flat.text, edit.at, "at")
    if attributes is None:
        before = flat.cut(at - 1, at)
        attributes = before[0][1] if before else {}
    _splice(text, held, Hunk(at, at, at, at + len(edit.text)), [Piece(edit.text, attributes)], writer)


def _delete_text(edit: TextDelete, roots: Roots, writer: Writer, places: Places) -> None:
    text, held, flat = _text(edit, roots, places)
    start, stop = _range(flat, edit.at, edit.length)
    _splice(text, held, Hunk(start, stop, start, start), [], writer)


def _format_text(edit: TextFormat, attributes: dict[str, Any], roots: Roots, writer: Writer, places: Places) -> None:
    text, held, flat = _text(edit, roots, places)
    start, stop = _range(flat, edit.at, edit.length)
    for name in attributes:
        check_name(name, "an attribute")
    before, middle, after = _cut(held, start, stop)
    changed = []
    for piece in middle:
        merged = {name: value for name, value in {**piece.attributes, **attributes}.items() if value is not None}
        changed.append(Piece(piece.content, merged, piece.is_text))
    write_text(text, [*before, *changed, *after], writer.work, [], held)


def _range(flat: Flat, at: int, length: int) -> tuple[int, int]:
    """Return a range in code points."""
    start = code_point(flat.text, at, "at")
    if type(length) is not int or length < 0:
        raise InvalidEdit("length is no length")
    return start, code_point(flat.text, at + length, "at with length")


def _replace_passage(edit: TextReplace, roots: Roots, writer: Writer, places: Places) -> None:
    holder = find(roots(edit.root), edit.path)
    found: list[tuple[Any, Path, int]] = []
    for text, path in _texts_below(holder, edit.path):
        content = Flat(pieces(text), Embeds()).text
        at = content.find(edit.passage)
        while at >= 0:
            found.append((text, path, at))
            if len(found) > 1:
                raise EditConflict("the passage is in the text more than once")
            at = content.find(edit.passage, at + 1)
    if not found:
        raise EditConflict("the passage is not in the text")
    text, path, at = found[0]
    places.touch(edit.root, None if path else RootType.TEXT, path)
    held = pieces(text)
    flat = Flat(held, Embeds())
    attributes = flat.cut(at, at + 1)[0][1]
    hunks = [
        Hunk(at + start, at + stop, at + new_start, at + new_stop)
        for start, stop, new_start, new_stop in compare_texts(edit.passage, edit.text, writer.work)
    ]
    for hunk in reversed(hunks):
        part = edit.text[hunk.new_start - at : hunk.new_stop - at]
        _splice(
            text,
            pieces(text),
            Hunk(hunk.start, hunk.stop, hunk.start, hunk.start + len(part)),
            [Piece(part, attributes)],
            writer,
        )


def _texts_below(holder: Any, path: Path) -> list[tuple[Any, Path]]:
    """Return the texts at or below a text or XML, with their paths."""
    if isinstance(holder, pycrdt.Text | pycrdt.XmlText):
        return [(holder, path)]
    if not isinstance(holder, pycrdt.XmlFragment | pycrdt.XmlElement):
        raise WrongContentType("a passage is looked for in texts and XML only")
    found: list[tuple[Any, Path]] = []
    for number, child in enumerate(holder.children):
        found += _texts_below(child, (*path, number))
    return found


def _splice(
    text: pycrdt.Text | pycrdt.XmlText, held: list[Piece], hunk: Hunk, new: list[Piece], writer: Writer
) -> None:
    """Put pieces in the place of a range; offsets in code points, embeds being one."""
    before, _, after = _cut(held, hunk.start, hunk.stop)
    write_text(text, [*before, *new, *after], writer.work, [hunk] if hunk.stop > hunk.start or new else [], held)


def _cut(held: list[Piece], start: int, stop: int) -> tuple[list[Piece], list[Piece], list[Piece]]:
    """Split pieces at two offsets in code points."""
    parts: tuple[list[Piece], list[Piece], list[Piece]] = ([], [], [])
    at = 0
    for piece in held:
        length = len(piece.content) if piece.is_text else 1
        for part, low, high in ((0, 0, start), (1, start, stop), (2, stop, at + length)):
            a, b = max(low, at) - at, min(high, at + length) - at
            if a < b:
                content = piece.content[a:b] if piece.is_text else piece.content
                parts[part].append(Piece(content, piece.attributes, piece.is_text))
        at += length
    return parts


# What is shown


def agree(main: Roots, peer: Roots, place: Place) -> bool:
    """Tell whether two documents show the same at a place."""
    try:
        one = find(main(place.root, place.type), place.path)
        other = find(peer(place.root, place.type), place.path)
    except NoSuchContent:
        return False
    focus = place.focus
    if isinstance(focus, str) and isinstance(one, pycrdt.Map) and isinstance(other, pycrdt.Map):
        return len(one) == len(other) and plain(one.get(focus)) == plain(other.get(focus))
    if isinstance(focus, int) and isinstance(one, pycrdt.Array) and isinstance(other, pycrdt.Array):
        # Whole and in order: as long, also as JSON, and the same where it was changed.
        window = range(max(0, focus - 1), min(len(one), focus + 2))
        return (
            len(one) == len(other)
            and all(plain(one[at]) == plain(other[at]) for at in window)
            and len(str(one)) == len(str(other))
        )
    return bool(_shown(one) == _shown(other))


def _shown(value: Any) -> Any:
    """Return what a shared type shows, for comparing: fast, and of what lies deeper only its JSON."""
    if isinstance(value, pycrdt.Text | pycrdt.XmlText):
        return [(plain(content), attributes) for content, attributes in runs_of(value)]
    if isinstance(value, pycrdt.Map | pycrdt.Array):
        return json.loads(str(value))
    return nodes(value)


class View:
    """What a root shows, to be shown again."""

    def __init__(self, roots: Roots, root: str, type_: RootType | None) -> None:
        self.root = root
        self.type = type_
        held = roots(root, type_)
        self._text = joined(pieces(held)) if isinstance(held, pycrdt.Text) else None
        self._tree = nodes(held) if isinstance(held, pycrdt.XmlFragment) else None
        self._value = None if self._text is not None or self._tree is not None else plain(held)

    def is_shown(self, roots: Roots) -> bool:
        """Tell whether another document shows it."""
        held = roots(self.root, self.type)
        if self._text is not None:
            return joined(pieces(held)) == self._text
        if self._tree is not None:
            return nodes(held) == self._tree
        return same(plain(held), self._value)

    def write(self, roots: Roots, writer: Writer) -> None:
        """Make another document show it."""
        held = roots(self.root, self.type)
        if self._text is not None:
            write_text(held, self._text, writer.work)
        elif self._tree is not None:
            write_nodes(held, self._tree, writer)
        elif not same(plain(held), self._value):
            write_value(held, self._value, writer)
