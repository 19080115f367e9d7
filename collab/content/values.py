"""JSON values that come from outside: checked and counted before anything is done with them.

Strategy: what is taken here is what JavaScript can hold without a loss, and what neither yjs nor its library in Rust
breaks on. Numbers become those that JSON would show: 5.0 is 5. So two values are the same when their JSON is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from collab.content.edits import MAX_DEPTH, MAX_NAME, MAX_TEXT, MAX_VALUES
from collab.errors import InvalidEdit

MAX_SAFE_INTEGER: Final = (1 << 53) - 1
"""The largest integer up to which JavaScript's numbers hold every integer."""
_MAX_BIGINT: Final = 1 << 63

# It would be the prototype of an object in JavaScript; yjs throws on some values under it.
_REFUSED_KEYS: Final = frozenset(("__proto__",))


def clean(value: Any, what: str = "the value") -> Any:
    """Return a copy of a JSON value that documents can hold.

    Raises InvalidEdit, which begins with ``what``, for what is no JSON (NaN, other types), halves of surrogate pairs,
    integers that no number of JavaScript is, a key ``__proto__``, and what passes the bounds of `collab.content.edits`.
    Integers up to 64 bits are taken nonetheless, for a document may hold BigInts: see `check_writable`.
    """
    return _Cleaner(what).clean(value, 0)


class _Cleaner:
    """Counts values and characters while it copies."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.values = MAX_VALUES
        self.units = MAX_TEXT

    def clean(self, value: Any, depth: int) -> Any:
        self.values -= 1
        if self.values < 0:
            raise InvalidEdit(f"{self.what} holds more than {MAX_VALUES} values")
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if kind is str:
            self._count(value)
            return value
        if kind is int:
            return self._integer(value)
        if kind is float:
            if not math.isfinite(value):
                raise InvalidEdit(f"{self.what} holds a number that JSON cannot hold (NaN or Infinity)")
            return plain_number(value)
        if depth >= MAX_DEPTH:
            raise InvalidEdit(f"{self.what} nests more than {MAX_DEPTH} deep")
        if isinstance(value, list | tuple):
            return [self.clean(one, depth + 1) for one in value]
        if isinstance(value, Mapping):
            copy: dict[str, Any] = {}
            for key, one in value.items():
                if type(key) is not str:
                    raise InvalidEdit(f"{self.what} holds a key that is no string")
                self._count(check_name(key, f"a key in {self.what}"))
                copy[key] = self.clean(one, depth + 1)
            return copy
        raise InvalidEdit(f"{self.what} holds a {kind.__name__}, which is no JSON")

    def _count(self, text: str) -> None:
        self.units -= units(text)
        if self.units < 0:
            raise InvalidEdit(f"{self.what} holds more than {MAX_TEXT} UTF-16 units of text")
        if not is_text(text):
            raise InvalidEdit(f"{self.what} holds half of a surrogate pair")

    def _integer(self, value: int) -> int | float:
        if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            return value
        if abs(value) >= _MAX_BIGINT:
            # 1e30 may be written as an integer; what no number of JavaScript is would be changed silently.
            if value.bit_length() > 1024 or (number := _exact(value)) is None:
                raise InvalidEdit(f"{self.what} holds an integer that no number of JavaScript is")
            return number
        return value


def _exact(value: int) -> float | None:
    """Return an integer as a float, None where that is another number."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if int(number) == value else None


def check_writable(value: Any, what: str = "the value") -> Any:
    """Return a cleaned value as it is written anew: large integers as the numbers that they are in JavaScript.

    Raises InvalidEdit for an integer that no number of JavaScript is. It is taken only where the document shows the
    same already (a BigInt).
    """
    if type(value) is int and not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        number = _exact(value)
        if number is None:
            raise InvalidEdit(f"{what} holds an integer that no number of JavaScript is")
        return number
    if type(value) is list:
        return [check_writable(one, what) for one in value]
    if type(value) is dict:
        return {key: check_writable(one, what) for key, one in value.items()}
    return value


def check_text(text: Any, what: str) -> str:
    """Return a text that documents can hold; raises InvalidEdit."""
    if type(text) is not str:
        raise InvalidEdit(f"{what} is no string")
    if units(text) > MAX_TEXT:
        raise InvalidEdit(f"{what} has more than {MAX_TEXT} UTF-16 units")
    if not is_text(text):
        raise InvalidEdit(f"{what} holds half of a surrogate pair")
    return text


def check_name(name: Any, what: str) -> str:
    """Return a name of a root, a key, an element or an attribute; raises InvalidEdit."""
    if type(name) is not str:
        raise InvalidEdit(f"{what} is no string")
    if len(name) > MAX_NAME or units(name) > MAX_NAME:
        raise InvalidEdit(f"{what} has more than {MAX_NAME} UTF-16 units")
    if name in _REFUSED_KEYS:
        raise InvalidEdit(f"{what} is {name}, which JavaScript takes for something else")
    if not is_text(name):
        raise InvalidEdit(f"{what} holds half of a surrogate pair")
    return name


def is_text(text: str) -> bool:
    """Tell whether a string has no half of a surrogate pair, which UTF-8 cannot hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def units(text: str) -> int:
    """Return the length of a string in UTF-16 units."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) >> 1


def plain_number(value: float) -> int | float:
    """Return a number as JSON shows it: 5.0 is 5, and -0.0 is 0."""
    if value.is_integer() and abs(value) <= MAX_SAFE_INTEGER:
        return int(value)
    return value


def key_of(value: Any) -> str:
    """Return a string that two values have in common when they are the same."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same JSON: true is not 1, the order of keys says nothing."""
    if type(one) is str or type(other) is str or one is None or other is None:
        return bool(one == other)
    # Python compares fast, and takes True for 1; JSON does not take a large integer for a float.
    return bool(one == other) and (key_of(one) == key_of(other) or _same(one, other))


def _same(one: Any, other: Any) -> bool:
    """Compare what Python holds to be equal."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list):
        return all(map(_same, one, other))
    if isinstance(one, dict):
        return all(_same(value, other[key]) for key, value in one.items())
    return True
