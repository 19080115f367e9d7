"""The tokens that Django makes: for its users, and for itself.

Strategy: they are tokens as any other (docs/security.md), signed with the secret that Django and the server share.
Those for users say in a claim of their own that the project's function has to be asked as well, so that a token is
never worth more than what its user may do now.
"""

from __future__ import annotations

import time
from typing import Any, Final

from joserfc.jwk import OctKey

from collab.auth.claims import MAX_USER_CHARACTERS
from collab.auth.jwt import sign
from collab.contrib.django.conf import Conf

CLAIM: Final = "collab_django"
FOR_USER: Final = "user"
"""``{"collab_django": "user"}``: ``sub`` is the key of a user of this project, about whom its function is asked."""

_OWN_SECONDS: Final = 60
"""How long a token is good by which Django itself speaks to the server: it makes one for each request."""


def user_token(conf: Conf, user: Any, document: str, access: str, seconds: float | None = None) -> str:
    """Make a token for one document, by which a user may do at most ``access``."""
    # A name with a * at its end is a pattern there. That gives nothing away: the function is asked about each document.
    claims = {CLAIM: FOR_USER}
    return _sign(conf, user_id(user), shown_name(user), {document: access}, seconds or conf.token_seconds, claims)


def own_token(conf: Conf) -> str:
    """Make a token by which Django itself may do everything."""
    return _sign(conf, "django", None, {"*": "admin"}, _OWN_SECONDS, {})


def user_id(user: Any) -> str:
    """Give what the server knows a user by."""
    return str(user.pk)


def shown_name(user: Any) -> str:
    """Give the name that others are shown."""
    full = user.get_full_name() if hasattr(user, "get_full_name") else ""
    printable = "".join(filter(str.isprintable, str(full or user.get_username())))
    return printable[:MAX_USER_CHARACTERS] or user_id(user)


def _sign(
    conf: Conf, sub: str, name: str | None, documents: dict[str, str], seconds: float, own: dict[str, str]
) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {**own, "sub": sub, "documents": documents, "iat": now, "exp": now + int(seconds)}
    if name:
        claims["name"] = name
    if issuer := conf.options.get("jwt_issuer"):
        claims["iss"] = issuer
    if audience := conf.options.get("jwt_audience"):
        claims["aud"] = audience
    return sign(claims, OctKey.import_key(conf.secret.encode("utf-8", "surrogateescape")), "HS256")
