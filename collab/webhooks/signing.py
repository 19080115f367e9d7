"""Signatures as Standard Webhooks says (https://www.standardwebhooks.com, specification 1.0).

Strategy: the signed text is ``ID.TIMESTAMP.BODY``, with HMAC-SHA256 and the bytes of a secret (``v1``), and with
Ed25519 keys of the server (``v1a``). A secret is written as ``whsec_`` and base64 of 24 to 64 bytes, a public key as
``whpk_`` and base64 of its 32 bytes. With several secrets and keys there are several signatures, so a receiver can
change to a new one at any time.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable, Sequence
from typing import Final

PREFIX: Final = "whsec_"

PUBLIC_PREFIX: Final = "whpk_"

MIN_BYTES: Final = 24
MAX_BYTES: Final = 64
"""How long a secret is, by the specification."""

_MADE_BYTES: Final = 32


def make_secret() -> str:
    """Make a secret."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_MADE_BYTES)).decode()


def encode_public_key(key: bytes) -> str:
    """Write the 32 bytes of an Ed25519 public key as receivers take it."""
    return PUBLIC_PREFIX + base64.b64encode(key).decode()


def read_secret(text: str) -> bytes:
    """Read a secret; raises ``ValueError``, whose text does not show it."""
    if not text.startswith(PREFIX):
        raise ValueError(f"begins with {PREFIX}")
    encoded = text[len(PREFIX) :].rstrip("=")
    try:
        # Padding is often left out.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError(f"is base64 behind {PREFIX}") from None
    if not MIN_BYTES <= len(key) <= MAX_BYTES:
        raise ValueError(f"has {MIN_BYTES} to {MAX_BYTES} bytes")
    return key


def sign(
    keys: Sequence[bytes],
    message: str,
    timestamp: int,
    body: bytes,
    ed25519: Callable[[bytes], Sequence[bytes]] = lambda text: (),
) -> dict[str, str]:
    """Give the headers of a message with this ID, sent at ``timestamp`` (Unix seconds).

    There is one signature for each of ``keys``, and one for each that ``ed25519`` makes of a text. Without any there is
    no ``webhook-signature``: the message is signed in another way.
    """
    signed = f"{message}.{timestamp}.".encode() + body
    made = [("v1", hmac.digest(key, signed, "sha256")) for key in keys]
    made += [("v1a", signature) for signature in ed25519(signed)]
    headers = {"webhook-id": message, "webhook-timestamp": str(timestamp)}
    if made:
        texts = [f"{version},{base64.b64encode(signature).decode()}" for version, signature in made]
        headers["webhook-signature"] = " ".join(texts)
    return headers
