"""Write JSON into shared maps and arrays, so that what is equal stays.

Strategy: maps are compared by key, arrays by their longest common subsequence, in which elements with an ``id`` are the
same when that is (drawings, lists of records). What is the same and shared is changed inside; a plain value is replaced
as a whole, for that is all that Yjs can do with it. Bytes, which JSON shows as ``{"base64": ...}``, stay bytes where
they are not changed.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

import pycrdt

from collab.content.difference import Hunk, Work, compare
from collab.content.shared import elements, entries, plain
from collab.content.texts import read_delta, write_text
from collab.content.tree import Piece
from collab.content.values import check_writable, key_of, same
from collab.errors import InvalidEdit, WrongContentType

MAX_SHARED: Final = 20_000
"""Shared types that one edit may make: each is an item for good, and the library looks through them one by one."""
MAX_COPIED: Final = 8 << 20
"""Characters of JSON that one edit may copy from one place of the document to another."""

# Inserts between two commits. The library joins what was inserted in a row only then, and looks for the place of an
# insert among all that is not joined: ten thousand values in one transaction take four seconds.
_COMMIT_AFTER: Final = 300


class Writer:
    """Transactions in which an edit is made, one behind the other.

    Attributes:
        work: may be spent on differences.
    """

    def __init__(self, document: pycrdt.Doc[Any]) -> None:
        self._document = document
        self._transaction: Any = None
        self._inserts = 0
        self._shared = 0
        self._copied = 0
        self.work = Work()

    def __enter__(self) -> Self:
        self._transaction = self._document.transaction()
        self._transaction.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._transaction.__exit__(kind, error, traceback)

    def inserted(self) -> None:
        """Count an insert into a list; now and then the transaction is committed and the next one begun."""
        self._inserts += 1
        if self._inserts >= _COMMIT_AFTER:
            self._inserts = 0
            self._transaction.__exit__(None, None, None)
            self._transaction = self._document.transaction()
            self._transaction.__enter__()

    def copied(self, value: Any) -> None:
        """Count a value that is copied within the document; raises InvalidEdit when it is too much (it may double)."""
        self._copied += len(key_of(value))
        if self._copied > MAX_COPIED:
            raise InvalidEdit(f"the edit copies more than {MAX_COPIED} characters of JSON")

    def made(self) -> None:
        """Count a shared type; raises InvalidEdit when there are too many."""
        self._shared += 1
        if self._shared > MAX_SHARED:
            raise InvalidEdit(f"the edit makes more than {MAX_SHARED} shared types")


def write_value(held: Any, target: Any, writer: Writer, shared: bool = False) -> bool:
    """Make a shared type show JSON; return False, and change nothing, where ``held`` is none that can.

    ``shared`` is what it is in `collab.content.edits.Replace`. Raises WrongContentType for XML, which is not written as
    JSON, and what `write_text` raises.
    """
    if isinstance(held, pycrdt.Map) and isinstance(target, dict):
        write_map(held, target, writer, shared)
    elif isinstance(held, pycrdt.Array) and isinstance(target, list):
        write_array(held, target, writer, shared)
    elif isinstance(held, pycrdt.Text) and isinstance(target, str | list):
        write_text(held, [Piece(target)] if isinstance(target, str) else read_delta(target), writer.work)
    elif isinstance(held, pycrdt.XmlFragment | pycrdt.XmlElement | pycrdt.XmlText):
        raise WrongContentType("XML is not written as JSON: use the formats html, markdown or prosemirror")
    else:
        return False
    return True


def write_map(held: pycrdt.Map[Any], target: dict[str, Any], writer: Writer, shared: bool = False) -> None:
    """Make a map show an object."""
    before = entries(held)
    for key in before:
        if key not in target:
            del held[key]
    for key, value in target.items():
        if key not in before:
            held[key] = make(value, shared, writer)
            continue
        old = before[key]
        if same(plain(old), value) or write_value(old, value, writer, shared):
            continue
        held[key] = make(value, shared, writer, old)


def write_array(held: pycrdt.Array[Any], target: list[Any], writer: Writer, shared: bool = False) -> None:
    """Make an array show a list."""
    before = elements(held)
    shown = [plain(one) for one in before]
    hunks = compare([_token(one) for one in shown], [_token(one) for one in target], writer.work)
    splices: list[Hunk] = []
    at = new_at = 0
    for hunk in [*hunks, Hunk(len(before), len(before), len(target), len(target))]:
        for old, new in zip(range(at, hunk.start), range(new_at, hunk.new_start), strict=True):
            # Of the same id, but not always the same.
            if same(shown[old], target[new]) or write_value(before[old], target[new], writer, shared):
                continue
            splices.append(Hunk(old, old + 1, new, new + 1))
        splices += _within(before, target, hunk, writer, shared)
        at, new_at = hunk.stop, hunk.new_stop
    for splice in reversed(splices):
        if splice.stop > splice.start:
            del held[splice.start : splice.stop]
        for offset in range(splice.new_stop - splice.new_start):
            old_value = before[splice.start + offset] if splice.start + offset < splice.stop else None
            insert(
                held, splice.start + offset, make(target[splice.new_start + offset], shared, writer, old_value), writer
            )


def insert(held: pycrdt.Array[Any], at: int, value: Any, writer: Writer) -> None:
    """Insert one value into an array."""
    held[at:at] = [value]
    writer.inserted()


def _within(before: list[Any], target: list[Any], hunk: Hunk, writer: Writer, shared: bool) -> list[Hunk]:
    """Change shared elements of a stretch in order, and return what is left to be replaced."""
    splices: list[Hunk] = []
    at, new_at = hunk.start, hunk.new_start
    new = hunk.new_start
    for old in range(hunk.start, hunk.stop):
        if not isinstance(before[old], pycrdt.Map | pycrdt.Array | pycrdt.Text):
            continue
        for candidate in range(new, hunk.new_stop):
            if _fits(before[old], target[candidate]):
                write_value(before[old], target[candidate], writer, shared)
                if old > at or candidate > new_at:
                    splices.append(Hunk(at, old, new_at, candidate))
                at, new_at, new = old + 1, candidate + 1, candidate + 1
                break
    if hunk.stop > at or hunk.new_stop > new_at:
        splices.append(Hunk(at, hunk.stop, new_at, hunk.new_stop))
    return splices


def _fits(held: Any, target: Any) -> bool:
    """Tell whether a shared element may become another: of the same kind, and not of another id."""
    if isinstance(held, pycrdt.Map):
        if not isinstance(target, dict):
            return False
        identity = held.get("id") if "id" in held else None
        return bool(identity is None and target.get("id") is None)
    if isinstance(held, pycrdt.Array):
        return isinstance(target, list)
    return isinstance(target, str)


def _token(value: Any) -> Any:
    """Return what two elements have in common when they are the same one."""
    if isinstance(value, dict):
        identity = value.get("id")
        if isinstance(identity, str) or (type(identity) is int):
            return "id", identity
    return key_of(value)


def make(value: Any, shared: bool, writer: Writer, old: Any = None) -> Any:
    """Return JSON as what pycrdt inserts: a plain value, or shared types.

    ``old`` is the plain value that stands in its place; its bytes and BigInts stay where they show the same.
    """
    if shared and isinstance(value, dict):
        writer.made()
        return pycrdt.Map({key: make(one, True, writer) for key, one in value.items()})
    if shared and isinstance(value, list):
        writer.made()
        return pycrdt.Array([make(one, True, writer) for one in value])
    return _kept(old, value)


def _kept(old: Any, value: Any) -> Any:
    """Return a plain value to be written, with what of the old one shows the same."""
    if isinstance(old, dict | list | bytes | bytearray | int | float) and same(plain(old), value):
        return as_written(old)
    if isinstance(old, dict) and isinstance(value, dict):
        return {key: _kept(old.get(key), one) for key, one in value.items()}
    if isinstance(old, list) and isinstance(value, list):
        return [_kept(old[at] if at < len(old) else None, one) for at, one in enumerate(value)]
    return check_writable(value)


def as_written(value: Any) -> Any:
    """Return a plain value that was read, to be written again: the library gives bytearrays and wants bytes."""
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict):
        return {key: as_written(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_written(one) for one in value]
    return value
