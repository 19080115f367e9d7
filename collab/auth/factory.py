"""From options to an authenticator.

Strategy: every contradiction is refused here, when the server starts, and nothing that is half
configured ends in open access: only options that are all empty give None.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from collab.auth.access import ManagedAuthenticator
from collab.auth.claims import ClaimRules
from collab.auth.endpoint import Endpoint
from collab.auth.guests import GuestTokens
from collab.auth.jwks import MAX_JWKS_BYTES, RemoteKeys
from collab.auth.keys import KeySet, joined, load_jwks_file, load_key_file, secret_key
from collab.auth.remote import MAX_ANSWER_BYTES, RemoteAuthenticator
from collab.auth.signing import Signer
from collab.auth.tokens import TokenAuthenticator
from collab.errors import ConfigurationError

MAX_LEEWAY = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthOptions:
    """How access is decided.

    Attributes:
        secret: shared secret of HS256 tokens, at least 32 bytes.
        key_files: public keys, PEM or JWK.
        jwks_file: a JWK set.
        jwks_url: the address of a JWK set.
        auth_url: the application's own endpoint, which is then asked instead of reading tokens.
        issuer, audience: what ``iss`` and ``aud`` of a token must be.
        leeway: seconds that clocks may differ.
        jwks_ttl: seconds after which the set of ``jwks_url`` is fetched anew.
        jwks_cooldown: seconds between two fetches of it.
        timeout: seconds for one answer of ``jwks_url`` and ``auth_url``.
        auth_cache: seconds for which a grant of ``auth_url`` is kept, at most as long as it lasts.
        auth_cache_entries: how many are kept.
        tenant_claim: the claim, or the member of the endpoint's answer, that names the bearer's tenant; None: there is
            none.
        allow_http: let ``jwks_url`` and ``auth_url`` be plain http to other hosts than this one.
    """

    secret: str | None = field(default=None, repr=False)
    key_files: tuple[Path, ...] = ()
    jwks_file: Path | None = None
    jwks_url: str | None = field(default=None, repr=False)  # may hold a password
    auth_url: str | None = field(default=None, repr=False)
    issuer: str | None = None
    audience: str | None = None
    leeway: float = 10.0
    jwks_ttl: float = 300.0
    jwks_cooldown: float = 10.0
    timeout: float = 5.0
    auth_cache: float = 10.0
    auth_cache_entries: int = 10_000
    allow_http: bool = False
    tenant_claim: str | None = None


def make_authenticator(
    options: AuthOptions,
    signer: Signer | None = None,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> ManagedAuthenticator | None:
    """Make what ``options`` ask for; None if they ask for nothing, which is open access.

    Reads the key files; opens no connection before ``start``.

    Args:
        options: how access is decided.
        signer: signs what is asked of ``auth_url``.
        clock: seconds since 1970.
        monotonic: seconds, for ages and pauses.

    Raises:
        ConfigurationError: a key that cannot be used, options that contradict each other, or one that
            needs another.
    """
    given = {f.name for f in fields(options) if getattr(options, f.name) not in (None, "", ())}
    keys = given & {"secret", "key_files", "jwks_file", "jwks_url"}
    if options.secret == "":
        # An empty variable in a deployment is a secret that went missing, not the wish for open access.
        raise ConfigurationError("the secret is empty")
    if "auth_url" in given and (other := sorted(keys | given & {"issuer", "audience"})):
        raise ConfigurationError(
            f"with an auth URL the application reads the tokens, so it goes without {', '.join(other)}"
        )
    if not keys and (lonely := sorted(given & {"issuer", "audience"})):
        raise ConfigurationError(f"{', '.join(lonely)} without a key that verifies tokens protects nothing")
    if not 0 <= options.leeway <= MAX_LEEWAY:
        raise ConfigurationError(f"the leeway must be 0 to {MAX_LEEWAY:g} seconds")
    if options.auth_url:
        return RemoteAuthenticator(
            _endpoint(options.auth_url, "the auth URL", MAX_ANSWER_BYTES, options, signer),
            cache_seconds=options.auth_cache,
            cache_entries=options.auth_cache_entries,
            tenant_member=options.tenant_claim,
            clock=clock,
            monotonic=monotonic,
        )
    if not keys:
        return None
    sets = [load_key_file(path) for path in options.key_files]
    if options.secret:
        sets.append(KeySet((secret_key(options.secret),)))
    if options.jwks_file is not None:
        sets.append(load_jwks_file(options.jwks_file))
    remote = None
    if options.jwks_url:
        remote = RemoteKeys(
            _endpoint(options.jwks_url, "the JWKS URL", MAX_JWKS_BYTES, options),
            ttl=options.jwks_ttl,
            cooldown=options.jwks_cooldown,
            clock=monotonic,
        )
    return TokenAuthenticator(joined(sets), _rules(options), remote, clock=clock)


def make_guest_tokens(options: AuthOptions, max_seconds: int) -> GuestTokens | None:
    """Make what signs tokens for guests (see ``guests``); None without a shared secret, which alone can sign.

    Raises:
        ConfigurationError: the secret cannot be used.
    """
    return GuestTokens(options.secret, _rules(options), max_seconds) if options.secret else None


def _rules(options: AuthOptions) -> ClaimRules:
    return ClaimRules(options.issuer or None, options.audience or None, options.leeway, options.tenant_claim)


def _endpoint(url: str, option: str, max_bytes: int, options: AuthOptions, signer: Signer | None = None) -> Endpoint:
    return Endpoint(
        url,
        option=option,
        timeout=options.timeout,
        max_bytes=max_bytes,
        allow_http=options.allow_http,
        signer=signer,
    )
