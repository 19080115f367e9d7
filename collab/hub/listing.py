"""Pages of documents: in which order, and the cursor with which the next page begins.

Strategy: a cursor is what the order compares of the last document of a page, so a page costs the same however far on it
is, and what is created or deleted meanwhile shifts nothing. For whoever asks it is opaque: base64url of a JSON list,
whose first element says of which listing it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from enum import Enum
from typing import Any, Final, NamedTuple

from collab.errors import InvalidCursor
from collab.storage.records import DocumentSummary

MAX_CURSOR: Final = 1_024
"""Characters of a cursor: a name of 512 bytes in base64, and some."""


class Order(Enum):
    """In which order documents are listed."""

    NAME = "name"  # by the bytes of the name
    UPDATED = "updated"  # those that were edited last first


class Page(NamedTuple):
    """Some documents of a listing; ``next`` is the cursor of the page behind it, None at the end."""

    documents: list[DocumentSummary]
    next: str | None


TRASH: Final = "trash"
"""The first element of a cursor in the trash; the other listings have the value of their order there."""


def encode_cursor(kind: str, *place: Any) -> str:
    """Make the cursor of a place."""
    text = json.dumps([kind, *place], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, kind: str) -> list[Any]:
    """Read the place of a cursor; raises ``InvalidCursor`` if it is none of this kind of listing."""
    if len(cursor) > MAX_CURSOR or not cursor.isascii():
        raise InvalidCursor("a cursor is no base64url, or too long")
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise InvalidCursor("a cursor cannot be read") from None
    if not isinstance(found, list) or not found or found[0] != kind:
        raise InvalidCursor("a cursor is one of another listing")
    return found[1:]


def name_place(cursor: str) -> str:
    """Read a cursor of the order by name."""
    match decode_cursor(cursor, Order.NAME.value):
        case [str(name)]:
            return name
    raise InvalidCursor("a cursor has no name")


def time_place(cursor: str) -> tuple[float, str]:
    """Read a cursor of the order by time."""
    match decode_cursor(cursor, Order.UPDATED.value):
        case [float(at), str(name)] if math.isfinite(at):
            return at, name
    raise InvalidCursor("a cursor has no time and name")


def trash_place(cursor: str) -> tuple[float, int]:
    """Read a cursor in the trash."""
    match decode_cursor(cursor, TRASH):
        case [float(at), int(number)] if math.isfinite(at) and 0 <= number < 1 << 63:
            return at, number
    raise InvalidCursor("a cursor has no time and id")
