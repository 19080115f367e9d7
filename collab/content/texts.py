"""Write into a shared text, so that what is equal stays.

Strategy: both texts are strings of code points, in which something that is no text (an embed) is one half of a
surrogate pair: no text that was let in holds any. What differs is deleted and inserted from the end to the beginning,
so no offset moves; then formats are changed where they differ. pycrdt counts bytes of UTF-8, with one for an embed:
offsets are turned into those in one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import pycrdt

from collab.content.difference import Hunk, Work, compare_texts
from collab.content.shared import pieces
from collab.content.tree import Piece, joined
from collab.content.values import check_name, clean, key_of, same, units
from collab.errors import EditNotShown, InvalidEdit

MAX_EMBEDS: Final = 2_048
"""Different embeds (images, say) that one text may hold to be edited: so many halves of pairs there are."""

_FIRST: Final = 0xD800
_EMBED: Final = re.compile("[\ud800-\udfff]")

Shared = pycrdt.Text | pycrdt.XmlText


class Flat:
    """A text as a string of code points and the formats of its stretches.

    Attributes:
        text: embeds are halves of surrogate pairs in it.
        spans: (code points, formats), one behind the other.
    """

    def __init__(self, given: Iterable[Piece], embeds: Embeds) -> None:
        parts: list[str] = []
        self.spans: list[tuple[int, dict[str, Any]]] = []
        for piece in given:
            part = piece.content if piece.is_text else embeds.sign(piece.content)
            if part:
                parts.append(part)
                self.spans.append((len(part), piece.attributes))
        self.text = "".join(parts)

    @property
    def is_plain(self) -> bool:
        """Whether nothing in it has a format."""
        return not any(attributes for _, attributes in self.spans)

    def cut(self, start: int, stop: int) -> list[tuple[str, dict[str, Any]]]:
        """Return a part of the text with its formats; both ends in code points."""
        found: list[tuple[str, dict[str, Any]]] = []
        at = 0
        for length, attributes in self.spans:
            low, high = max(start, at), min(stop, at + length)
            if low < high:
                found.append((self.text[low:high], attributes))
            at += length
            if at >= stop:
                break
        return found


class Embeds:
    """Signs for embeds in a text."""

    def __init__(self) -> None:
        self._signs: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def sign(self, value: Any) -> str:
        """Return the sign for an embed; equal ones have the same."""
        key = key_of(value)
        sign = self._signs.get(key)
        if sign is None:
            if len(self._signs) == MAX_EMBEDS:
                raise InvalidEdit(f"a text with more than {MAX_EMBEDS} different embeds cannot be edited")
            sign = self._signs[key] = chr(_FIRST + len(self._signs))
            self.values[sign] = value
        return sign


def write_text(
    text: Shared,
    target: Sequence[Piece],
    work: Work,
    hunks: list[Hunk] | None = None,
    held: Sequence[Piece] | None = None,
) -> None:
    """Make a text show pieces.

    Args:
        text: is changed, in the transaction that is open.
        target: what it shall show.
        work: may be spent on the difference.
        hunks: where it differs, in code points, when that is known. Without it the difference is looked for.
        held: what it shows now, when that is known.
    """
    embeds = Embeds()
    old, new = Flat(pieces(text) if held is None else held, embeds), Flat(joined(target), embeds)
    if hunks is None:
        hunks = compare_texts(old.text, new.text, work)
    plainly = old.is_plain and new.is_plain
    points = _Offsets(old.text, sorted({at for hunk in hunks for at in (hunk.start, hunk.stop)}))
    for hunk in reversed(hunks):
        start, stop = points[hunk.start], points[hunk.stop]
        if stop > start:
            del text[start:stop]
        for part, attributes in new.cut(hunk.new_start, hunk.new_stop):
            for string, embed in _parts(part):
                if embed is not None:
                    text.insert_embed(start, embeds.values[embed], attributes or None)
                    start += 1
                elif plainly:
                    text.insert(start, string)
                    start += len(string.encode())
                else:
                    text.insert(start, string, attributes)
                    start += len(string.encode())
    if not plainly:
        _write_formats(text, new, embeds)


def _parts(part: str) -> Iterable[tuple[str, str | None]]:
    """Split a string into strings and embeds."""
    at = 0
    for found in _EMBED.finditer(part):
        if found.start() > at:
            yield part[at : found.start()], None
        yield "", found.group()
        at = found.end()
    if at < len(part):
        yield part[at:], None


def _write_formats(text: Shared, new: Flat, embeds: Embeds) -> None:
    """Change formats where they differ; the text itself is as it shall be."""
    old = Flat(pieces(text), embeds)
    if old.text != new.text:
        raise EditNotShown("the library shows another text than the one that was written")
    changes: dict[str, list[tuple[int, int, Any]]] = {}
    for start, stop, before, after in _both(old.spans, new.spans):
        if before is after:
            continue
        for name in before.keys() | after.keys():
            value = after.get(name)
            if same(before.get(name), value):
                continue
            ranges = changes.setdefault(name, [])
            if ranges and ranges[-1][1] == start and same(ranges[-1][2], value):
                ranges[-1] = (ranges[-1][0], stop, value)
            else:
                ranges.append((start, stop, value))
    points = _Offsets(
        new.text, sorted({at for ranges in changes.values() for start, stop, _ in ranges for at in (start, stop)})
    )
    for name in sorted(changes):
        for start, stop, value in changes[name]:
            text.format(points[start], points[stop], {name: value})


def _both(
    old: list[tuple[int, dict[str, Any]]], new: list[tuple[int, dict[str, Any]]]
) -> Iterable[tuple[int, int, dict[str, Any], dict[str, Any]]]:
    """Yield the stretches in which neither formats change: start, stop, the formats before and after."""
    at = old_at = new_at = 0
    ours, theirs = iter(old), iter(new)
    old_left, new_left = next(ours, (0, {})), next(theirs, (0, {}))
    while old_left[0] and new_left[0]:
        length = min(old_left[0] - old_at, new_left[0] - new_at)
        yield at, at + length, old_left[1], new_left[1]
        at += length
        old_at += length
        new_at += length
        if old_at == old_left[0]:
            old_left, old_at = next(ours, (0, {})), 0
        if new_at == new_left[0]:
            new_left, new_at = next(theirs, (0, {})), 0


class _Offsets(dict[int, int]):
    """Offsets of the library, in bytes of UTF-8, for ascending offsets in code points."""

    def __init__(self, text: str, points: Sequence[int]) -> None:
        super().__init__()
        at = size = 0
        for point in points:
            size += _bytes(text[at:point])
            at = point
            self[point] = size


def _bytes(text: str) -> int:
    """Return how many units of the library a string is: bytes of UTF-8, one for an embed."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-8", "surrogatepass")) - 2 * sum(1 for _ in _EMBED.finditer(text))


def code_point(text: str, at: int, what: str) -> int:
    """Turn an offset in UTF-16 units into one in code points; raises InvalidEdit beyond the end or within a pair."""
    if type(at) is not int or at < 0:
        raise InvalidEdit(f"{what} is no offset")
    size = units(text)
    if at > size:
        raise InvalidEdit(f"{what} is {at}, and the text has {size} UTF-16 units")
    if size == len(text):
        return at
    decoded = text.encode("utf-16-le", "surrogatepass")[: 2 * at].decode("utf-16-le", "surrogatepass")
    # What was cut there ends with half of a pair, which is not in the text.
    if decoded and not text.startswith(decoded[-1], len(decoded) - 1):
        raise InvalidEdit(f"{what} is {at}, which is within a surrogate pair")
    return len(decoded)


def read_delta(value: Any, what: str = "the delta") -> list[Piece]:
    """Return the pieces of a Quill delta that inserts only; raises InvalidEdit."""
    if isinstance(value, dict) and set(value) == {"ops"}:
        value = value["ops"]
    if not isinstance(value, list):
        raise InvalidEdit(f"{what} is no list")
    found: list[Piece] = []
    for number, operation in enumerate(clean(value, what)):
        if not isinstance(operation, dict) or "insert" not in operation or set(operation) - {"insert", "attributes"}:
            raise InvalidEdit(f'{what} has an operation {number} that is not {{"insert": ..., "attributes": ...}}')
        content, given = operation["insert"], operation.get("attributes")
        if not isinstance(content, str | dict | list):
            raise InvalidEdit(f"{what} has an operation {number} that inserts neither a string nor an object")
        found.append(Piece(content, read_attributes(given, what), isinstance(content, str)))
    return joined(found)


def read_attributes(given: Any, what: str) -> dict[str, Any]:
    """Return formats without those that are None, as a text shows them; raises InvalidEdit."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidEdit(f"{what} has attributes that are no object")
    return {check_name(name, f"an attribute in {what}"): value for name, value in given.items() if value is not None}
