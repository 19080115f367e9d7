"""JSON Patch (RFC 6902) on the maps and arrays of a document.

Strategy: a path is followed through shared types as far as they go. What lies below is a plain value, which Yjs can
only replace: so it is changed beside the document and put back as a whole. Each operation is done at once, as the next
one has to see it; whoever calls undoes all of them when one fails. A path begins with the name of a root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pycrdt

from collab.content.edits import MAX_OPERATIONS, MAX_PATH, Path, RootType
from collab.content.shared import plain
from collab.content.structures import Writer, as_written, insert, make, write_value
from collab.content.values import check_name, check_writable, clean, same
from collab.errors import ContentError, EditConflict, InvalidEdit, NoSuchContent, WrongContentType

OpenRoot = Callable[[str, RootType | None], Any]
"""Return the shared type of a root by its name; an empty one is made as the given type. Raises NoSuchContent."""

Touched = Callable[[str, RootType | None, Path, str | int | None], None]
"""Note what an operation has changed: the root and its type, the path to a shared type below it, what of that one."""

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_MEMBERS: Final = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("path", "from"),
    "copy": ("path", "from"),
    "test": ("path", "value"),
}


class Operation:
    """An operation of a patch that has been read.

    Attributes:
        name: what is done, as in RFC 6902.
        path: tokens; the first is the name of a root.
        source: the tokens of ``from``.
        value: cleaned JSON.
    """

    __slots__ = ("name", "path", "source", "value")

    def __init__(self, given: Any, number: int) -> None:
        if not isinstance(given, Mapping):
            raise InvalidEdit("the operation is no object", edit=number)
        name = given.get("op")
        members = _MEMBERS.get(name) if isinstance(name, str) else None
        if members is None:
            raise InvalidEdit(f"the operation's op is none of {', '.join(_MEMBERS)}", edit=number)
        for member in members:
            if member not in given:
                raise InvalidEdit(f"the operation lacks {member}", edit=number)
        assert isinstance(name, str)
        self.name = name
        try:
            self.path = _tokens(given["path"], "path")
            self.source = _tokens(given["from"], "from") if "from" in members else ()
            self.value = clean(given["value"]) if "value" in members else None
        except ContentError as error:
            raise type(error)(str(error), edit=number) from None


def read_patch(operations: Sequence[Any]) -> list[Operation]:
    """Read the operations of a JSON Patch; raises InvalidEdit with the operation's number."""
    if len(operations) > MAX_OPERATIONS:
        raise InvalidEdit(f"the patch has more than {MAX_OPERATIONS} operations")
    return [Operation(given, number) for number, given in enumerate(operations)]


def apply_patch(
    operations: Sequence[Operation], roots: OpenRoot, touched: Touched, writer: Writer, shared: bool
) -> None:
    """Apply operations to a document, in the transaction of ``writer``.

    Raises EditConflict for a test that fails, NoSuchContent for a path that leads nowhere, WrongContentType and
    InvalidEdit; each with the operation's number.
    """
    for number, operation in enumerate(operations):
        try:
            _apply(operation, roots, touched, writer, shared)
        except ContentError as error:
            raise type(error)(str(error), edit=number) from None


def _apply(operation: Operation, roots: OpenRoot, touched: Touched, writer: Writer, shared: bool) -> None:
    path, value = operation.path, operation.value
    if operation.name == "test":
        if not same(_Place(path, roots).get(), value):
            raise EditConflict(f"the test of {pointer(path)} fails")
    elif operation.name == "add":
        _Place(path, roots, value).noted(touched).add(value, writer, shared)
    elif operation.name == "replace":
        _Place(path, roots, value).noted(touched).replace(value, writer, shared)
    elif operation.name == "remove":
        _Place(path, roots).noted(touched).remove(writer)
    else:
        source = operation.source
        if path[: len(source)] == source and len(path) > len(source) and operation.name == "move":
            raise InvalidEdit(f"{pointer(source)} cannot be moved into itself")
        taken = clean(_Place(source, roots).get())
        if operation.name == "move":
            if path == source:
                return
            _Place(source, roots).noted(touched).remove(writer)
        else:
            writer.copied(taken)
        _Place(path, roots, taken).noted(touched).add(taken, writer, shared)


class _Place:
    """Where a path leads: the last shared type on it, the step from there, and the steps within a plain value."""

    def __init__(self, path: tuple[str, ...], roots: OpenRoot, value: Any = None) -> None:
        self.path = path
        self.holder: Any = None
        self.step: str = ""
        self.rest: tuple[str, ...] = ()
        if not path:
            raise InvalidEdit("a path begins with the name of a root; to change all, replace the content")
        type_ = None
        if len(path) == 1:
            type_ = type_of(value)
        elif value is not None or len(path) == 2:
            type_ = RootType.ARRAY if path[1] == "-" else RootType.MAP
        self.type = type_
        self.root = roots(path[0], type_)
        # The path to the holder, with numbers for indices.
        self.way: list[str | int] = []
        here = self.root
        for at, token in enumerate(path[1:], 1):
            if at == len(path) - 1:
                self.holder, self.step = here, token
                break
            below = self._below(here, token, at)
            if not isinstance(below, pycrdt.Map | pycrdt.Array):
                self.holder, self.step, self.rest = here, token, path[at + 1 :]
                if not isinstance(below, dict | list):
                    raise NoSuchContent(f"nothing is at {pointer(path[: at + 2])}")
                break
            self.way.append(int(token) if isinstance(here, pycrdt.Array) else token)
            here = below
        if self.holder is not None and not isinstance(self.holder, pycrdt.Map | pycrdt.Array):
            raise WrongContentType(f"{pointer(path[:1])} is neither a map nor an array")

    def noted(self, touched: Touched) -> _Place:
        """Tell what is about to be changed."""
        if self.holder is None:
            touched(self.path[0], self.type, (), None)
        else:
            focus: str | int = self.step
            if isinstance(self.holder, pycrdt.Array):
                focus = len(self.holder) if self.step == "-" or not _INDEX.fullmatch(self.step) else int(self.step)
            touched(self.path[0], self.type, tuple(self.way), focus)
        return self

    def _below(self, holder: Any, token: str, at: int) -> Any:
        """Return what a shared type holds at a token."""
        if isinstance(holder, pycrdt.Map):
            if token not in holder:
                raise NoSuchContent(f"nothing is at {pointer(self.path[: at + 1])}")
            return holder[token]
        if isinstance(holder, pycrdt.Array):
            return holder[_index(token, len(holder), self.path, at)]
        raise WrongContentType(f"{pointer(self.path[:at])} is neither a map nor an array")

    def get(self) -> Any:
        """Return the JSON at the place."""
        if self.holder is None:
            return plain(self.root)
        value = self._below(self.holder, self.step, len(self.path) - 1 - len(self.rest))
        for at, token in enumerate(self.rest, len(self.path) - len(self.rest)):
            value = _inside(value, token, self.path, at)
        return plain(value)

    def add(self, value: Any, writer: Writer, shared: bool) -> None:
        """Set a key, or insert before an index."""
        if self.holder is None:
            self._root(value, writer, shared)
        elif self.rest:
            self._within(writer, lambda holder, token, at: _add(holder, token, value, self.path, at))
        elif isinstance(self.holder, pycrdt.Map):
            self._set(value, writer, shared)
        else:
            size = len(self.holder)
            at = size if self.step == "-" else _index(self.step, size + 1, self.path, len(self.path) - 1)
            insert(self.holder, at, make(value, shared, writer), writer)

    def replace(self, value: Any, writer: Writer, shared: bool) -> None:
        """Give what is there another value."""
        if self.holder is None:
            self._root(value, writer, shared)
        elif self.rest:
            self._within(writer, lambda holder, token, at: _replace(holder, token, value, self.path, at))
        else:
            self._below(self.holder, self.step, len(self.path) - 1)
            self._set(value, writer, shared)

    def remove(self, writer: Writer) -> None:
        """Take away what is there."""
        if self.holder is None:
            empty: Any = "" if isinstance(self.root, pycrdt.Text) else {} if isinstance(self.root, pycrdt.Map) else []
            self._root(empty, writer, False)
        elif self.rest:
            self._within(writer, lambda holder, token, at: _remove(holder, token, self.path, at))
        else:
            self._below(self.holder, self.step, len(self.path) - 1)
            if isinstance(self.holder, pycrdt.Map):
                del self.holder[self.step]
            else:
                del self.holder[int(self.step)]

    def _root(self, value: Any, writer: Writer, shared: bool) -> None:
        if not write_value(self.root, value, writer, shared):
            raise WrongContentType(f"{pointer(self.path)} is of another type than the value")

    def _set(self, value: Any, writer: Writer, shared: bool) -> None:
        """Set a key or an index of a shared type; what is equal there stays."""
        old = None
        if isinstance(self.holder, pycrdt.Map):
            check_name(self.step, "a key")
            if self.step in self.holder:
                old = self.holder[self.step]
        else:
            old = self.holder[int(self.step)]
        if old is not None and (same(plain(old), value) or write_value(old, value, writer, shared)):
            return
        if isinstance(self.holder, pycrdt.Map):
            self.holder[self.step] = make(value, shared, writer, old)
        else:
            at = int(self.step)
            del self.holder[at]
            insert(self.holder, at, make(value, shared, writer, old), writer)

    def _within(self, writer: Writer, change: Callable[[Any, str, int], None]) -> None:
        """Change a plain value and put it back."""
        at = len(self.path) - 1 - len(self.rest)
        value = as_written(self._below(self.holder, self.step, at))
        inner = value
        for number, token in enumerate(self.rest[:-1], at + 1):
            inner = _inside(inner, token, self.path, number)
        change(inner, self.rest[-1], len(self.path) - 1)
        if isinstance(self.holder, pycrdt.Map):
            if not same(plain(self.holder[self.step]), plain(value)):
                self.holder[self.step] = value
        else:
            index = int(self.step)
            if not same(plain(self.holder[index]), plain(value)):
                del self.holder[index]
                insert(self.holder, index, value, writer)


def type_of(value: Any) -> RootType | None:
    """Return the type of root that shows a JSON value; None if none does."""
    if isinstance(value, str):
        return RootType.TEXT
    if isinstance(value, dict):
        return RootType.MAP
    if isinstance(value, list):
        return RootType.ARRAY
    return None


def pointer(path: Sequence[str | int]) -> str:
    """Return a path as JSON Pointer (RFC 6901), cut short where it is long."""
    text = "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in path)
    return text if len(text) <= 200 else text[:199] + "…"


def _tokens(given: Any, what: str) -> tuple[str, ...]:
    """Return the tokens of a JSON Pointer; raises InvalidEdit."""
    if not isinstance(given, str):
        raise InvalidEdit(f"{what} is no string")
    if given and not given.startswith("/"):
        raise InvalidEdit(f"{what} does not begin with a slash")
    tokens = given.split("/")[1:]
    if len(tokens) > MAX_PATH:
        raise InvalidEdit(f"{what} has more than {MAX_PATH} steps")
    for token in tokens:
        if re.search(r"~(?![01])", token):
            raise InvalidEdit(f"{what} holds a ~ that is neither ~0 nor ~1")
    return tuple(check_name(token.replace("~1", "/").replace("~0", "~"), f"a step of {what}") for token in tokens)


def _index(token: str, size: int, path: Sequence[str], at: int) -> int:
    if not _INDEX.fullmatch(token):
        raise NoSuchContent(f"{pointer(path[:at])} is an array, and {token[:40]!r} is no index")
    if int(token) >= size:
        raise NoSuchContent(f"nothing is at {pointer(path[: at + 1])}")
    return int(token)


def _inside(holder: Any, token: str, path: Sequence[str], at: int) -> Any:
    """Return what a plain value holds at a token."""
    if isinstance(holder, dict):
        if token not in holder:
            raise NoSuchContent(f"nothing is at {pointer(path[: at + 1])}")
        return holder[token]
    if isinstance(holder, list):
        return holder[_index(token, len(holder), path, at)]
    raise NoSuchContent(f"nothing is at {pointer(path[: at + 1])}")


def _add(holder: Any, token: str, value: Any, path: Sequence[str], at: int) -> None:
    if isinstance(holder, dict):
        holder[check_name(token, "a key")] = check_writable(value)
    elif isinstance(holder, list):
        holder.insert(len(holder) if token == "-" else _index(token, len(holder) + 1, path, at), check_writable(value))
    else:
        raise NoSuchContent(f"nothing is at {pointer(path[:at])} that could hold a value")


def _replace(holder: Any, token: str, value: Any, path: Sequence[str], at: int) -> None:
    _inside(holder, token, path, at)
    holder[token if isinstance(holder, dict) else int(token)] = check_writable(value)


def _remove(holder: Any, token: str, path: Sequence[str], at: int) -> None:
    _inside(holder, token, path, at)
    del holder[token if isinstance(holder, dict) else int(token)]


__all__ = ["OpenRoot", "Operation", "apply_patch", "pointer", "read_patch", "type_of"]
