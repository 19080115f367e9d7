"""What this node says of itself to the others on its database, by its settings.

Strategy: a part of the composition root (:mod:`collab.app`) in a module of its own. Of secrets the others are shown a
short hash alone, which says whether two are the same and nothing else. What comes of a difference stands in
:mod:`collab.hub.membership`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from collab.auth.signing import Signer
from collab.hooks import Hooks
from collab.hub.membership import AUTHENTICATION, HISTORY, NOBODY, SIGNING_KEYS, TRASH_DAYS, NodeFacts
from collab.settings import Settings
from collab.telemetry.release import release

# By their own names, with their values as text.
_PLAIN: Final = (
    "max_message_bytes",
    "max_document_bytes",
    "max_pending_bytes",
    "max_awareness_bytes",
    "max_awareness_ids",
    "max_stateless_bytes",
    "stateless",
    "stamp_users",
)

_KEY: Final = b"collab nodes"


def node_facts(
    settings: Settings,
    *,
    authenticated: bool,
    shared: bool,
    hooks: Sequence[Hooks] = (),
    signer: Signer | None = None,
) -> NodeFacts:
    """Say what a node with these settings is; ``shared``: on a PostgreSQL of theirs, which other nodes may use too."""
    values = {name: str(getattr(settings, name)) for name in _PLAIN}
    values[HISTORY] = f"{settings.history_days:g}"
    values[TRASH_DAYS] = f"{settings.trash_days:g}"
    values["webhooks"] = _receivers(settings)
    values["webhook_interval_seconds"] = f"{settings.webhook_interval_seconds:g}"
    values["keep_deleted"] = ",".join(sorted(settings.keep_deleted)) or "nothing"
    values["history_days_for"] = ",".join(settings.history_days_for) or "none"
    values["auto_version_minutes"] = f"{settings.auto_version_minutes:g}"
    values["tenants"] = settings.tenants
    values["quotas"] = ",".join(f"{name}={bound}" for name, bound in settings.quotas.items()) or "none"
    values["hooks"] = ",".join(f"{type(each).__module__}:{type(each).__qualname__}" for each in hooks) or "none"
    values[SIGNING_KEYS] = published_keys(signer)
    values[AUTHENTICATION] = way = _authentication(settings) if authenticated else NOBODY
    if way != NOBODY:
        values["tokens"] = _fingerprint(settings)
        values["cursor_secret"] = "none" if settings.cursor_secret is None else _short(settings.cursor_secret)
    bus = "process" if not shared else "postgresql" if settings.redis_url is None else "redis"
    values["bus"] = bus if settings.redis_url is None else f"{bus} {_place(settings.redis_url)}"
    return NodeFacts(release(), bus, values)


def published_keys(signer: Signer | None) -> str:
    """Give what is the same where the same keys are published, in any order: the first one differs in a rotation."""
    if signer is None:
        return "none"
    return _short(" ".join([*sorted(key["kid"] for key in signer.published), signer.issuer]))


def _authentication(settings: Settings) -> str:
    if settings.auth_url is not None:
        return "endpoint"
    keys = (settings.jwt_secret, settings.jwks_file, settings.jwks_url)
    return "tokens" if settings.jwt_keys or any(key is not None for key in keys) else "function"


def _fingerprint(settings: Settings) -> str:
    """Give eight characters that are the same where the same tokens are good."""
    hashed = hashlib.blake2b(key=_KEY, digest_size=4)
    files = [*sorted(settings.jwt_keys), settings.jwks_file]
    texts = [settings.jwt_secret, settings.jwks_url, settings.auth_url, settings.jwt_issuer, settings.jwt_audience]
    given = [None if text is None else text.encode(errors="surrogatepass") for text in texts]
    for part in [*map(_read, files), *given]:
        hashed.update(b"-" if part is None else hashlib.sha256(part).digest())
    return hashed.hexdigest()


def _short(secret: str) -> str:
    hashed = hashlib.sha256(secret.encode(errors="surrogatepass")).digest()
    return hashlib.blake2b(hashed, key=_KEY, digest_size=4).hexdigest()


def _receivers(settings: Settings) -> str:
    """Give what is the same where the same receivers are told."""
    if settings.webhook_url is None and settings.webhooks_file is None:
        return "nobody"
    hashed = hashlib.blake2b(key=_KEY, digest_size=4)
    for part in (settings.webhook_url, ",".join(settings.webhook_secrets)):
        hashed.update(hashlib.sha256((part or "").encode(errors="surrogatepass")).digest())
    hashed.update(_read(settings.webhooks_file) or b"")
    return hashed.hexdigest()


def _read(path: Path | None) -> bytes | None:
    with contextlib.suppress(OSError):  # who checks tokens has said what is wrong with it
        return None if path is None else path.expanduser().read_bytes()
    return None


def _place(url: str) -> str:
    """Give the part of an address that holds no secret."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
