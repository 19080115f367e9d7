"""Cursors: where a list goes on, as a text that means nothing to whoever carries it.

Strategy: a cursor holds what the last item of a page is found by, so nothing is kept between two calls, and a page
stays right while documents come and go. That item may be one that its reader may not see. So in such lists the cursor
is sealed: AES-SIV (RFC 5297), with a key that all nodes make of the same secret. It hides what is in it, cannot be
made by others, and is the same for the same place. All have one length, or that of a hidden name would show.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from random import Random
from typing import Final

from collab.transports.problems import BadRequest

MAX_CURSOR: Final = 1_000
"""Characters of a cursor."""

# Bytes to which a place is filled up: a time, a space and the longest name.
_FILLED: Final = 544

# What makes this key another one than all others of the same secret.
_PURPOSE: Final = b"collab cursors"


class Cursors:
    """Makes and reads sealed cursors.

    Args:
        key: 64 bytes; None for cursors that are not sealed.
    """

    def __init__(self, key: bytes | None) -> None:
        self._key = key

    def encode(self, kind: str, place: str) -> str:
        """Make a cursor; see ``encode_cursor``."""
        if self._key is None:
            return encode_cursor(kind, place)
        # Loaded here, because many servers never list anything.
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return _write(AESSIV(self._key).encrypt(_fill(place.encode()), [kind.encode()]))

    def decode(self, kind: str, cursor: str) -> str:
        """Return the place; raises ``BadRequest`` for what was never given for a list of this kind, by this secret."""
        if self._key is None:
            return decode_cursor(kind, cursor)
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        try:
            filled = AESSIV(self._key).decrypt(_read(cursor), [kind.encode()])
        except (InvalidTag, ValueError):
            raise _refused() from None
        return filled.rstrip(b"\0")[:-1].decode()


def make_cursors(secret: str | None, random: Random | None) -> Cursors:
    """Make the cursors of a node.

    Args:
        secret: what all nodes share and nobody else knows.
        random: draws a key without a secret, where there is one node alone: its cursors end with it. None where there
            may be others; then cursors are not sealed without a secret.
    """
    if secret is not None:
        return Cursors(hashlib.blake2b(secret.encode(), digest_size=64, person=_PURPOSE).digest())
    return Cursors(None if random is None else random.randbytes(64))


def encode_cursor(kind: str, place: str) -> str:
    """Make a cursor of one letter, which tells kinds of lists from each other, and the place where the list goes on."""
    return _write((kind + place).encode())


def decode_cursor(kind: str, cursor: str) -> str:
    """Return the place; raises ``BadRequest`` for what was never given for a list of this kind."""
    try:
        text = _read(cursor).decode()
    except ValueError:
        text = ""
    if text[:1] != kind:
        raise _refused()
    return text[1:]


def _fill(data: bytes) -> bytes:
    """Fill up with a byte that ends the data, and zeros."""
    return (data + b"\1").ljust(_FILLED, b"\0")


def _write(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read(cursor: str) -> bytes:
    """Decode a cursor; raises ValueError."""
    if len(cursor) > MAX_CURSOR:
        raise ValueError("too long")
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _refused() -> BadRequest:
    return BadRequest('"cursor" is the "next" of the page before')
