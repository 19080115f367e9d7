"""Signed JWTs (RFC 7519) as text: make one, read how one is signed, check its signature.

Who may do what by them is said in ``tokens``; whose keys are trusted, in ``keys`` and ``jwks``.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, extract_compact, validate_compact

from collab.auth.claims import refuse
from collab.auth.keys import ALGORITHMS, MAX_KEY_ID, KeySet
from collab.errors import Unauthenticated

MAX_TOKEN = 8_192
"""Characters of a token: what fits into a request line of HTTP servers and proxies."""

MAX_TRIED = 16
"""Keys tried for one token that does not name its key: 4 ms of the loop at 0.25 ms each."""


class UnknownKey(Unauthenticated):
    """No key at hand has signed this token; a set that is fetched anew may hold one that has."""

    public = "the token is signed with a key that this server does not know"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self.public if message is None else message)


@dataclass(frozen=True, slots=True)
class Header:
    """What a token says about its signature, which is not yet checked.

    Attributes:
        algorithm: ``alg``, one of ``ALGORITHMS``.
        kid: the name of the key, None if it gives none.
    """

    algorithm: str
    kid: str | None


class _Registry(JWSRegistry):
    """The library's algorithms, by ours alone.

    Its own look-up warns on every use of "EdDSA", a name that RFC 9864 deprecates and that every issuer uses.
    """

    max_header_length = MAX_TOKEN
    max_payload_length = MAX_TOKEN

    def get_alg(self, name: str) -> Any:
        """Give the algorithm of that name."""
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


# Unknown header parameters are ignored, as RFC 7515, section 4 wants it.
_REGISTRY = _Registry(strict_check_header=False)


def sign(claims: dict[str, Any], key: Any, algorithm: str, kid: str | None = None, kind: str = "JWT") -> str:
    """Make a token of ``claims``, as they are: whoever lets them be signed has checked them.

    Args:
        claims: the token's JSON object.
        key: the library's key, with its private part.
        algorithm: one of ``ALGORITHMS`` that is for the type of the key.
        kid: the name of the key, if tokens are to say it.
        kind: what the token is for, as its ``typ``.
    """
    header = {"alg": algorithm, "typ": kind} | ({"kid": kid} if kid else {})
    return jwt.encode(header, claims, key, registry=_REGISTRY)


def read_header(token: str) -> Header:
    """Read how a token is signed, after bounding its size.

    Raises:
        Unauthenticated: there is none, it is too long, is no signed JWT, or is signed in a way that is
            never accepted (``none``, an encrypted token, an extension that we do not know).
    """
    if not token:
        raise refuse("no token was given")
    if len(token) > MAX_TOKEN:
        raise refuse(f"the token is longer than {MAX_TOKEN} characters")
    parts = token.split(".")
    if len(parts) == 5:
        raise refuse("the token is encrypted (JWE): send a signed one (JWS)")
    if len(parts) != 3 or not token.isascii():
        raise refuse("the token is not a JWT")
    try:
        header = json.loads(base64.b64decode(parts[0] + "=" * (-len(parts[0]) % 4), b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        raise refuse("the token is not a JWT") from None
    if not isinstance(header, dict):
        raise refuse("the token is not a JWT")
    # RFC 7515, section 4.1.11: one critical extension that is not understood makes the token invalid,
    # and we understand none. RFC 7797's unencoded payload is one of them.
    if "crit" in header or "b64" in header:
        raise refuse("the token needs an extension (crit) that this server does not have")
    algorithm = header.get("alg")
    if isinstance(algorithm, str) and algorithm.lower() == "none":
        raise refuse("the token is not signed (alg none)")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise refuse("the token is signed with an algorithm that is not supported: use HS256, RS256, ES256 or EdDSA")
    kid = header.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID):
        raise refuse(f"the token's kid must be a text of 1 to {MAX_KEY_ID} characters")
    return Header(algorithm, kid)


def verify(token: str, header: Header, keys: KeySet) -> dict[str, Any]:
    """Check the signature and give the token's claims as JSON.

    Raises:
        UnknownKey: none of the keys at hand has signed it, as far as can be told.
        Unauthenticated: the key that it names has not signed it, or its content is not a JSON object.
    """
    candidates = keys.candidates(header.algorithm, header.kid)
    if not candidates:
        raise UnknownKey
    if len(candidates) > MAX_TRIED:
        raise refuse("the token does not name its key (kid), and this server has too many to try them all")
    try:
        signed = extract_compact(token.encode(), registry=_REGISTRY)
        if not any(validate_compact(signed, key.value, registry=_REGISTRY) for key in candidates):
            if candidates[0].kid is not None and header.kid is not None:
                raise refuse("the token's signature is not by the key that it names")
            raise UnknownKey
    except (JoseError, ValueError):
        raise refuse("the token is not a JWT") from None
    try:
        payload = json.loads(signed.payload)
    except (ValueError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        raise refuse("the token's content is not a JSON object")
    return payload
