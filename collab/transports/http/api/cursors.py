"""Cursors: where a list goes on, as a text that means nothing to whoever carries it.

Strategy: a cursor holds what the last item of a page is found by, so nothing is kept between two calls, and a page
stays right while documents come and go.
"""

from __future__ import annotations

import base64
import binascii

from collab.transports.problems import BadRequest

MAX_CURSOR = 1_000
"""Characters of a cursor."""


def encode_cursor(kind: str, place: str) -> str:
    """Make a cursor of one letter, which tells kinds of lists from each other, and the place where the list goes on."""
    return base64.urlsafe_b64encode((kind + place).encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> str:
    """Return the place; raises ``BadRequest`` for what was never given for a list of this kind."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if len(cursor) > MAX_CURSOR or text[:1] != kind:
        raise BadRequest('"cursor" is the "next" of the page before')
    return text[1:]
