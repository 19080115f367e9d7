"""The application's own keys on a document: which ones there may be, how they change, and how they are kept.

Strategy: a flat JSON object beside the title, bounded so that a listing of a thousand documents stays small. It is no
part of the document: nobody edits it together, and it changes by merge (RFC 7396): a value replaces, null takes a key
away, and what is not named stays. So two back ends that each have keys of their own do not undo each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final

from collab.errors import InvalidMetadata
from collab.storage.records import Scalar

MAX_BYTES: Final = 4 * 1024
"""Bytes of all keys and values, as JSON in UTF-8 without white space."""

MAX_KEYS: Final = 32
MAX_KEY: Final = 64
"""Characters of a key; it has one at least."""

MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that JavaScript reads as it was written."""


def merge_metadata(kept: Mapping[str, Scalar], changes: Mapping[str, object]) -> dict[str, Scalar]:
    """Give what is kept after ``changes``: null takes a key away, every other value replaces.

    Raises:
        InvalidMetadata: a key or a value cannot be kept, or it is too much; the text says what.
    """
    merged = dict(kept)
    for key, value in changes.items():
        checked = _checked(key, value)
        merged.pop(key, None)
        if checked is not None:
            merged[key] = checked
    if len(merged) > MAX_KEYS:
        raise InvalidMetadata(f"metadata has at most {MAX_KEYS} keys")
    encode_metadata(merged)
    return merged


def _checked(key: object, value: object) -> Scalar:
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY:
        raise InvalidMetadata(f"a key of metadata is a text of 1 to {MAX_KEY} characters")
    for text in (key, value):
        if isinstance(text, str) and not _is_unicode(text):
            raise InvalidMetadata("a text in metadata is not Unicode: it holds half of a character")
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise InvalidMetadata(
        "a value of metadata is a text, a number that JavaScript can hold, true or false; null takes the key away"
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_metadata(metadata: Mapping[str, Scalar]) -> bytes | None:
    """Give the bytes that are kept, None for no keys; raises ``InvalidMetadata`` if they are too many."""
    if not metadata:
        return None
    data = json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    if len(data) > MAX_BYTES:
        raise InvalidMetadata(f"metadata has at most {MAX_BYTES} bytes as JSON")
    return data


def decode_metadata(data: bytes | None) -> dict[str, Scalar]:
    """Reverse :func:`encode_metadata`. What it never gives is damaged, and is left out: a listing shows the others."""
    if data is None:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
