"""What a log may say of somebody else's code: kinds and places, which are code, and no text, which may be data.

Strategy: an exception of an application's own code may hold a token or a part of a document in its text. So a line
names its type and the places that it came through, and leaves the text out.
"""

from __future__ import annotations

import traceback

_MAX_FRAMES = 5


def kind_of(value: object) -> str:
    """Name the type of a value, and nothing of the value."""
    return type(value).__qualname__


def places_of(error: BaseException) -> str:
    """Name file, line and function of the last frames that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
