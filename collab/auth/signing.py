"""Keys of the server's own: it signs with the first what it sends to other servers, and publishes all of them.

Strategy: the type of a key decides its algorithm, as for keys that verify (``keys``), and its name is its thumbprint
(RFC 7638), so two nodes with the same file publish the same set. What is published is made of the public key that the
library derives from the private one, member by member, and never of what stands in the file.

A request is signed by a JWT in a header of its own, which says for whom it is and what its body was:

    {"typ": "collab-request+jwt", "alg": "ES256", "kid": "..."}
    {"iss": "collab", "aud": "https://app.example/collab/access", "iat": 1796031000, "exp": 1796031060, "jti": "...",
     "request_body_sha256": "(64 hexadecimal digits)"}

There is no registered claim for the hash of a body (docs/decisions/0033-signed-requests.md).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from collab.auth.jwt import sign
from collab.auth.keys import (
    ALGORITHMS_OF,
    CURVES,
    PRIVATE_MEMBER,
    PUBLIC_MEMBERS,
    UnusableKey,
    check_purpose,
    check_strength,
    entries_of,
    from_jwk,
    from_pem,
    parse_json,
    read_key_file,
)
from collab.errors import ConfigurationError

HEADER: Final = "Collab-Signature"
"""The header of a signed request; ``Authorization`` would look like somebody's token."""

TYPE: Final = "collab-request+jwt"
"""The ``typ`` of its JWT, by which nobody takes it for a token of another purpose (RFC 8725, section 3.11)."""

BODY_HASH: Final = "request_body_sha256"
"""The claim with the SHA-256 of the request's body, as lower-case hexadecimal digits."""

LIFETIME: Final = 60
"""Seconds for which a signature is good."""

MAX_SIGNING_KEYS: Final = 16

MAX_RSA_BITS: Final = 4096
"""Of a key that signs: one signature takes 0.4 ms of the loop with 2048 bits, and 2 ms with these."""

_JWT_ALGORITHMS: Final = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}

PrivateKey = RSAKey | ECKey | OKPKey

_KINDS: Final[Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

# What a private JWK has beside its public members, and goes on to the library.
_PRIVATE_MEMBERS: Final = {"RSA": ("d", "p", "q", "dp", "dq", "qi"), "EC": ("d",), "OKP": ("d",)}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key of the server's own.

    Attributes:
        public: its public JWK, with ``kid``, ``use`` and ``alg``.
        private: the library's key; None if only the public part is there, which is published and signs nothing.
    """

    public: Mapping[str, str]
    private: PrivateKey | None = field(default=None, repr=False)


class Signer:
    """Signs requests to other servers.

    Args:
        files: key files in order: PEM, a JWK or a JWK set each. The first key of all signs and has its private part.
        issuer: the claim ``iss``.
        clock: seconds since 1970.

    Attributes:
        on_reload: called when the files were read again.

    Raises:
        ConfigurationError: a file cannot be used.
    """

    def __init__(self, files: Sequence[Path], issuer: str, *, clock: Callable[[], float] = time.time) -> None:
        self._files = tuple(files)
        self._issuer = issuer
        self._clock = clock
        self._keys = _load(self._files)
        self.on_reload: Callable[[], object] = lambda: None

    def reload(self) -> None:
        """Read the files again.

        Raises:
            ConfigurationError: they cannot be used; the keys that were there before stay.
        """
        self._keys = _load(self._files)
        self.on_reload()

    @property
    def issuer(self) -> str:
        """What ``iss`` says."""
        return self._issuer

    @property
    def published(self) -> list[Mapping[str, str]]:
        """The public JWKs of all keys."""
        return [key.public for key in self._keys]

    @property
    def ed25519_public(self) -> list[bytes]:
        """The 32 bytes of each public Ed25519 key."""
        return [urlsafe_b64decode(key["x"] + "=") for key in self.published if key.get("crv") == CURVES["OKP"]]

    def headers(self, audience: str, body: bytes, **claims: str) -> dict[str, str]:
        """Give the header that signs a request.

        Args:
            audience: the address that it goes to, without user, password, query and fragment.
            body: its whole body.
            claims: what else is said.
        """
        now = int(self._clock())
        said: dict[str, Any] = {
            "iss": self._issuer,
            "aud": audience,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_urlsafe(16),
            BODY_HASH: hashlib.sha256(body).hexdigest(),
            **claims,
        }
        first = self._keys[0]
        return {HEADER: sign(said, first.private, first.public["alg"], first.public["kid"], TYPE)}

    def ed25519(self, text: bytes) -> list[bytes]:
        """Sign ``text`` as it is, with each Ed25519 key that has its private part; 64 bytes each."""
        return [
            key.private.private_key.sign(text)
            for key in self._keys
            if key.private is not None and isinstance(key.private.private_key, Ed25519PrivateKey)
        ]


def load_private_key(path: Path) -> tuple[PrivateKey, str]:
    """Read one private key, PEM or JWK, and say which algorithm it signs with; a JWK brings its ``kid``.

    Raises:
        ConfigurationError: the file cannot be read or holds something else.
    """
    try:
        found = _read(read_key_file(path))
        if len(found) > 1:
            raise UnusableKey("several keys; one signs")
        if found[0].private is None:
            raise UnusableKey("a public key; the private one signs")
    except UnusableKey as error:
        raise ConfigurationError(f"the key file {path}: {error}") from None
    return found[0].private, found[0].public["alg"]


def _load(files: Sequence[Path]) -> tuple[SigningKey, ...]:
    keys: list[SigningKey] = []
    for path in files:
        try:
            found = _read(read_key_file(path))
            for key in found:
                _check_cost(key)
        except UnusableKey as error:
            raise ConfigurationError(f"the key file {path}: {error}") from None
        keys += found
    if keys and keys[0].private is None:
        raise ConfigurationError(f"the key file {files[0]}: its first key is a public one, and the first one signs")
    if len(keys) > MAX_SIGNING_KEYS:
        raise ConfigurationError(f"--signing-keys has {len(keys)} keys; at most {MAX_SIGNING_KEYS} are taken")
    if len({key.public["kid"] for key in keys}) < len(keys):
        raise ConfigurationError("--signing-keys has the same key twice")
    return tuple(keys)


def _check_cost(key: SigningKey) -> None:
    private = None if key.private is None else key.private.private_key
    if isinstance(private, RSAPrivateKey) and private.key_size > MAX_RSA_BITS:
        raise UnusableKey(f"an RSA key of {private.key_size} bits signs slowly; at most {MAX_RSA_BITS} are taken")


def _read(data: bytes) -> list[SigningKey]:
    """Read the keys of a file, private or public; raises ``UnusableKey``."""
    if b"-----BEGIN" in data:
        if b"PRIVATE KEY-----" in data:
            return [_from_private_pem(data)]
        return [_published(from_pem(data).value)]
    value = parse_json(data)
    entries = entries_of(value) if "keys" in value else [value]
    if not entries:
        raise UnusableKey("the set is empty")
    return [_from_entry(entry) for entry in entries]


def _from_entry(entry: object) -> SigningKey:
    if isinstance(entry, dict) and PRIVATE_MEMBER in entry:
        return _from_private_jwk(entry)
    if isinstance(entry, dict) and entry.get("kty") == "oct":
        raise UnusableKey("a secret has no public part that could be published; RSA, EC and Ed25519 keys have")
    return _published(from_jwk(entry, local=False).value)


def _from_private_pem(data: bytes) -> SigningKey:
    if data.count(b"-----BEGIN") > 1:
        raise UnusableKey("several PEM blocks: give each key a file of its own, or use a JWK set")
    try:
        private = load_pem_private_key(data, None)
    except TypeError:
        raise UnusableKey("it has a password: give the server one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey("no private key in PEM (-----BEGIN PRIVATE KEY-----)") from None
    check_strength(private.public_key())
    assert isinstance(private, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey)
    kind = "OKP"
    if isinstance(private, RSAPrivateKey | EllipticCurvePrivateKey):
        kind = "RSA" if isinstance(private, RSAPrivateKey) else "EC"
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return _with_public(_KINDS[kind].import_key(pem))


def _from_private_jwk(entry: dict[str, Any]) -> SigningKey:
    kind = entry.get("kty")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UnusableKey('"kty" is none of RSA, EC, OKP')
    check_purpose(entry, kind, "sign")
    members: dict[str, Any] = {"kty": kind}
    for member in (*PUBLIC_MEMBERS[kind], *_PRIVATE_MEMBERS[kind], "kid"):
        if (text := entry.get(member)) is None:
            continue
        if not isinstance(text, str):
            raise UnusableKey(f'its member "{member}" is no text')
        members[member] = text
    try:
        made = _with_public(_KINDS[kind].import_key(members))
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError):
        raise UnusableKey(f"its numbers are no private {kind} key") from None
    if any(members.get(member) != made.public[member] for member in PUBLIC_MEMBERS[kind]):
        raise UnusableKey("its public part is not that of its private part")
    return made


def _with_public(key: PrivateKey) -> SigningKey:
    """Join a private key with what is published of it."""
    private = key.private_key
    assert private is not None
    public: Any = private.public_key()
    check_strength(public)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(_published(_KINDS[key.key_type].import_key(pem)).public, key)


def _published(key: OctKey | PrivateKey) -> SigningKey:
    """Give what is published of a public key."""
    kind = key.key_type
    found = key.as_dict(private=False)
    members = {member: str(found[member]) for member in PUBLIC_MEMBERS[kind]}
    facts = {"kid": key.thumbprint(), "use": "sig", "alg": _JWT_ALGORITHMS[kind]}
    assert facts["alg"] in ALGORITHMS_OF[kind]
    return SigningKey({"kty": kind, **members, **facts})
