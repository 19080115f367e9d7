"""Tokens for guests: a link by which whoever has it opens one document, without a sign-in of his own.

Strategy: such a token is an ordinary one, signed with the shared secret of the server (``tokens.sign``) and
checked like all others, so nothing is stored for it and nothing has to be asked when it comes back. That
is also its price: it cannot be called back alone, so its life is bounded here, and guests make no
tokens for further guests, which would make that life endless.

Every token has a user of its own, ``guest:`` and 64 random bits: the journal can tell what came by which
link, and nobody's own ``sub`` is ever given to somebody else. The name that others are shown is fixed too
("Guest of Ada"), or a guest could call himself as he likes. The name is kept with what the guest edits; the claim
``invited_by`` says whose link it is, so that it can be forgotten together with Ada.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from collab.auth.access import Grant
from collab.auth.claims import MAX_USER_CHARACTERS, ClaimRules, read_claims
from collab.auth.jwt import sign
from collab.auth.keys import secret_key
from collab.errors import Forbidden, InvalidDocumentName, Unauthenticated
from collab.protocol.session import Access

GUEST = "guest:"
"""How the ``sub`` of every guest begins."""

_RANDOM_BYTES = 8


def is_guest(user: str) -> bool:
    """Tell whether a user is a guest."""
    return user.startswith(GUEST)


class NameIsPattern(InvalidDocumentName):
    """In the claim ``documents`` this name would be a pattern, or it cannot stand there at all."""

    public = "a document with a * or a control character in its name cannot be shared by a link"


@dataclass(frozen=True, slots=True)
class GuestToken:
    """A token that was made.

    Attributes:
        token: what the guest shows.
        user: its ``sub``.
        expires_at: its ``exp``, in seconds since 1970.
    """

    token: str = field(repr=False)
    user: str
    expires_at: int


class GuestTokens:
    """Make them.

    Args:
        secret: the shared secret that the server verifies HS256 tokens with.
        rules: what a token must say for this server to take it.
        max_seconds: the longest life of one.
        clock: seconds since 1970.

    Raises:
        ConfigurationError: the secret cannot be used.
    """

    def __init__(
        self, secret: str, rules: ClaimRules, max_seconds: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = secret_key(secret).value
        self._rules = rules
        self.max_seconds = max_seconds
        self._clock = clock

    def issue(self, document_name: str, access: Access, seconds: int, sharer: Grant) -> GuestToken:
        """Sign a token for exactly this document.

        Args:
            document_name: the document.
            access: read or write.
            seconds: how long it is good, 1 to ``max_seconds``.
            sharer: what the one who shares may do with the document.

        Raises:
            Forbidden: the sharer is a guest, or may not write.
            NameIsPattern: a token cannot name the document.
        """
        assert access is not Access.ADMIN and 1 <= seconds <= self.max_seconds
        if sharer.access is Access.READ:
            raise Forbidden("a reader shares", public="this needs write access")
        if sharer.user is None or is_guest(sharer.user):
            raise Forbidden(
                "a guest shares", public="a guest makes no links for others: pass on the link that you have"
            )
        now = int(self._clock())
        claims: dict[str, Any] = {
            "sub": GUEST + secrets.token_hex(_RANDOM_BYTES),
            "name": f"Guest of {sharer.name}"[:MAX_USER_CHARACTERS] if sharer.name else "Guest",
            "invited_by": sharer.user,
            "documents": {document_name: access.value},
            "iat": now,
            "exp": now + seconds,
            "iss": self._rules.issuer,
            "aud": self._rules.audience,
        }
        claims = {claim: value for claim, value in claims.items() if value is not None}
        try:
            granted = dict(read_claims(claims, self._rules, now).documents.names)
        except Unauthenticated:
            granted = {}
        if granted != {document_name: access}:
            raise NameIsPattern(f"{document_name!r} cannot stand in a token")
        return GuestToken(sign(claims, self._key, "HS256"), claims["sub"], claims["exp"])
