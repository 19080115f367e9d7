"""What a token says about its bearer: who it is, and what it may do with which documents.

Strategy: the claims are read whole and strictly before any of them is used, so that a token is good
or bad whatever document it is shown for; the text of the refusal names the claim.

The claim ``documents`` maps names to ``read``, ``write`` or ``admin``. A name that ends with ``*`` is a
pattern and covers every document whose name begins with what stands before the ``*``, the slash
having no meaning of its own; ``*`` alone covers all. Any other name is that one document. Names are
compared by code points, without case folding or normalization. For one document the most specific
entry decides, whatever the order they are written in:

1. the entry that is the document's name,
2. else, of the patterns that cover it, the one with the most characters before the ``*``.

Two patterns of the same length that cover one name are the same pattern, so there is always exactly
one answer. The more specific entry also wins when it allows less:
``{"*": "write", "rules/*": "read"}`` makes the rules read-only. No entry covers it: no access.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collab.auth.access import LATELY
from collab.errors import AccessExpired, AccessNotYet, Unauthenticated
from collab.protocol.session import Access

MAX_USER_CHARACTERS = 256
"""Of ``sub`` and of ``name``: both are written into every awareness state of their bearer."""

MAX_TENANT_BYTES = 512
"""Of the name of a tenant, in UTF-8."""

MAX_SECONDS = 99_999_999_999
"""The year 5138. What lies beyond is milliseconds (``Date.now()`` of JavaScript), and a token that
lives for 50,000 years by mistake."""

_ACCESS = {access.value: access for access in Access}

# Control characters forge lines of logs; lone surrogates (which JSON can hold) cannot be sent on.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def refuse(text: str) -> Unauthenticated:
    """Make the refusal of a token; ``text`` goes to the client and to the log, so it holds nothing of the token."""
    return Unauthenticated(text, public=text)


@dataclass(frozen=True, slots=True)
class DocumentAccess:
    """The claim ``documents``: what is allowed, by name and by pattern.

    Attributes:
        names: single documents.
        patterns: what stands before the ``*``, longest first.
    """

    names: Mapping[str, Access]
    patterns: tuple[tuple[str, Access], ...]

    def to(self, document_name: str) -> Access | None:
        """Give the access to a document by its most specific entry; None if no entry covers it."""
        exact = self.names.get(document_name)
        if exact is not None:
            return exact
        for prefix, access in self.patterns:
            if document_name.startswith(prefix):
                return access
        return None


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token that is good.

    Attributes:
        user: ``sub``.
        name: ``name``, None if there is none.
        documents: ``documents``.
        expires_at: ``exp`` and the leeway: when the token stops being accepted, in seconds since 1970.
        invited_by: ``invited_by``, which the server's own tokens for guests have; None if there is none.
        tenant: what the claim for it says; None if it is not there, or there is none.
    """

    user: str
    name: str | None
    documents: DocumentAccess
    expires_at: float
    invited_by: str | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What a token must say about itself.

    Attributes:
        issuer: what ``iss`` must be; None takes any.
        audience: what ``aud`` must be or hold. None takes tokens without ``aud`` only: one that is
            for somebody is not for us (RFC 7519, section 4.1.3).
        leeway: seconds that the clocks of issuer and server may differ.
        tenant: the claim that names the bearer's tenant; None: none does.
    """

    issuer: str | None = None
    audience: str | None = None
    leeway: float = 10.0
    tenant: str | None = None


def read_claims(payload: Mapping[str, Any], rules: ClaimRules, now: float) -> Claims:
    """Read the claims of a token whose signature is good.

    Args:
        payload: the token's JSON object.
        rules: what it must say.
        now: seconds since 1970.

    Raises:
        AccessExpired: it has expired less than `LATELY` seconds ago.
        AccessNotYet: it is not valid yet.
        Unauthenticated: it has expired, is for or from somebody else, or a claim is missing or malformed; the
            public text says which.
    """
    expires_at = read_seconds(payload, "exp")
    if expires_at is None:
        raise refuse("the token has no claim exp: it must say when it expires")
    expires_at += rules.leeway
    if now >= expires_at + LATELY:
        raise refuse("the token has expired")
    not_before = (read_seconds(payload, "nbf") or 0.0) - rules.leeway
    if not_before >= expires_at:
        raise refuse("the token is never valid (claims nbf and exp)")
    if rules.issuer is not None and payload.get("iss") != rules.issuer:
        raise refuse("the token is from another issuer (claim iss) than this server trusts")
    _check_audience(payload.get("aud"), rules.audience)
    user = _read_text(payload, "sub")
    if not user:
        raise refuse("the token has no claim sub: it must name its user")
    invited_by = payload.get("invited_by")
    if not isinstance(invited_by, str) or not check_text(invited_by):
        invited_by = None  # somebody else's tokens may mean something else by it
    tenant = None if rules.tenant is None else _read_text(payload, rules.tenant)
    if tenant is not None and not check_tenant(tenant):
        raise refuse(f"the claim {rules.tenant} must have at most {MAX_TENANT_BYTES} bytes and no /")
    documents = read_documents(payload.get("documents"))
    claims = Claims(user, _read_text(payload, "name"), documents, expires_at, invited_by, tenant)
    # Behind all that time does not mend: these two ask their client to come back.
    if now >= expires_at:
        raise AccessExpired("the token has expired")
    if now < not_before:
        raise AccessNotYet(f"the token is not valid for another {not_before - now:.0f} s (claim nbf)")
    return claims


def read_documents(value: object) -> DocumentAccess:
    """Read the claim ``documents``, as JSON gives it.

    Raises:
        Unauthenticated: it is missing or malformed.
    """
    if value is None:
        raise refuse('the token has no claim documents: it maps names to access, as in {"notes/*": "write"}')
    if not isinstance(value, dict):
        raise refuse('the claim documents must map names to access, as in {"notes/*": "write"}')
    names: dict[str, Access] = {}
    patterns: list[tuple[str, Access]] = []
    for name, word in value.items():
        if not isinstance(word, str) or word not in _ACCESS:
            raise refuse(f"every value of the claim documents must be {', '.join(_ACCESS)}")
        prefix, star, rest = name.partition("*")
        if rest:
            raise refuse("in the claim documents a * may only stand at the end of a name")
        if not name or _UNPRINTABLE.search(name):
            raise refuse("a name in the claim documents is empty or holds control characters")
        if star:
            patterns.append((prefix, _ACCESS[word]))
        else:
            names[name] = _ACCESS[word]
    patterns.sort(key=lambda pattern: len(pattern[0]), reverse=True)
    return DocumentAccess(names, tuple(patterns))


def read_seconds(values: Mapping[str, Any], name: str) -> float | None:
    """Read a NumericDate (RFC 7519, section 2), in seconds since 1970; None if it is not there.

    Raises:
        Unauthenticated: it is no number, negative, or so large that it must be milliseconds.
    """
    value = values.get(name)
    if value is None:
        return None
    # A bool is an int to Python; NaN, which its JSON takes, compares false with everything.
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise refuse(f"the claim {name} must be a number of seconds since 1970")
    if value > MAX_SECONDS:  # infinity too, and integers that do not fit a float
        raise refuse(f"the claim {name} must be in seconds since 1970, not in milliseconds")
    return float(value)


def check_text(text: str) -> bool:
    """Tell whether a user or a name of one can be shown, logged and sent on."""
    return 0 < len(text) <= MAX_USER_CHARACTERS and not _UNPRINTABLE.search(text)


def check_tenant(text: str) -> bool:
    """Tell whether a text of a token can name a tenant."""
    return check_text(text) and "/" not in text and len(text.encode()) <= MAX_TENANT_BYTES


def _read_text(payload: Mapping[str, Any], name: str) -> str | None:
    value = payload.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not check_text(value):
        raise refuse(
            f"the claim {name} must be a text of 1 to {MAX_USER_CHARACTERS} characters without control characters"
        )
    return value


def _check_audience(value: object, audience: str | None) -> None:
    if value is None and audience is None:
        return
    if audience is None:
        raise refuse("the token is for an audience (claim aud), and this server is set up for none")
    held = value if isinstance(value, list) else [value]
    if audience not in held:
        raise refuse("the token is for another audience (claim aud) than this server")
