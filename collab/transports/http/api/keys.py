"""``/.well-known/jwks.json``: the keys that the server signs with, for those who check what it sends.

Strategy: anybody may read it, as anybody may read the description. An answer has the fields of its model and no other,
and these are public members alone, so no private one can get here. It may be kept for some minutes, which is how long a
new key is to be published before it signs (docs/operations.md).
"""

from __future__ import annotations

from typing import Final, Literal

from aiohttp import hdrs, web
from pydantic import Field

from collab.auth.signing import Signer
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Route
from collab.transports.http.api.route import json_response as answer

TAG = "Keys"

KEPT_SECONDS: Final = 300
"""Seconds for which a set may be kept. Libraries keep one for five to ten minutes."""


class PublicKey(Model):
    """A public key (RFC 7517). RSA has `n` and `e`, EC has `crv`, `x` and `y`, OKP has `crv` and `x`."""

    kty: Literal["RSA", "EC", "OKP"]
    kid: str = Field(description="Its thumbprint (RFC 7638).")
    use: Literal["sig"]
    alg: Literal["RS256", "ES256", "EdDSA"]
    n: str | None = Field(None, description="Modulus, base64url.")
    e: str | None = Field(None, description="Exponent, base64url.")
    crv: Literal["P-256", "Ed25519"] | None = Field(None, description="Curve.")
    x: str | None = Field(None, description="Public number, base64url.")
    y: str | None = Field(None, description="The second public number of an EC key, base64url.")


class PublicKeys(Model):
    """The keys of the server (a JWK set)."""

    keys: list[PublicKey]


class KeyRoutes:
    """The handler.

    Args:
        signer: the keys; None if there are none.
    """

    def __init__(self, signer: Signer | None) -> None:
        self._signer = signer

    def routes(self) -> list[AnyRoute]:
        """Give the route."""
        return [
            Route(
                "GET",
                "/.well-known/jwks.json",
                self.keys,
                "list_public_keys",
                TAG,
                "Read the public keys that the server signs with.",
                [
                    Answer(
                        200,
                        "All keys; none where the server signs nothing.",
                        PublicKeys,
                        headers={"Cache-Control": f"It may be kept for {KEPT_SECONDS} seconds."},
                    )
                ],
                prefix="",
                access="none",
                description=(
                    "What the server sends to `--auth-url` and to receivers of webhooks is signed with the first key "
                    "of `--signing-keys` (docs/security.md)."
                ),
            )
        ]

    async def keys(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Answer with the set."""
        found = [] if self._signer is None else self._signer.published
        return answer(
            PublicKeys(keys=[PublicKey.model_validate(dict(key)) for key in found]),
            headers={hdrs.CACHE_CONTROL: f"public, max-age={KEPT_SECONDS}"},
        )
