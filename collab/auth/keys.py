"""Keys that verify tokens: read from a secret, from files and from JWK sets, and which algorithm each one serves.

Strategy: the type of a key alone decides what it may verify, never the token (RFC 8725, section 3.1):

    shared secret (oct)     HS256
    RSA                     RS256
    EC on P-256             ES256
    Ed25519 (OKP)           EdDSA, and Ed25519, its name since RFC 9864

so a public key can never serve as a secret, and a token's ``alg`` only chooses among keys. What an
operator gives (``secret_key``, ``load_key_file``, ``load_jwks_file``) is refused whole when anything is
wrong with it: the server does not start on half of its keys. What comes from an address
(``parse_jwks``) holds keys for other purposes as well, so a key that does not serve is left out, with
the reason for the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from collab.errors import ConfigurationError

MIN_SECRET_BYTES = 32
"""HS256 needs a key at least as long as its hash (RFC 7518, section 3.2): a shorter one can be guessed offline."""

MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""

MAX_RSA_BITS = 8192
"""One check costs 0.1 ms with 2048 bits and grows with the square."""

MAX_KEYS = 64
"""Keys of one set: identity providers publish two to ten."""

MAX_KEY_ID = 256
"""Characters of a key's name."""

MAX_FILE_BYTES = 256 * 1024
"""Of a key file; 64 RSA keys of 8192 bits as JWK are 100 KiB."""

_JoseKey = OctKey | RSAKey | ECKey | OKPKey

ALGORITHMS_OF: Final[Mapping[str, frozenset[str]]] = {
    "oct": frozenset({"HS256"}),
    "RSA": frozenset({"RS256"}),
    "EC": frozenset({"ES256"}),
    "OKP": frozenset({"EdDSA", "Ed25519"}),
}

ALGORITHMS = frozenset().union(*ALGORITHMS_OF.values())
"""Every algorithm that a token may be signed with."""

PUBLIC_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
"""Members that make a public JWK of each type, and a secret. Only these go on to the library, so nothing in a key that
somebody else publishes (x5c, x5u, private parts) is ever looked at by it."""

CURVES: Final = {"EC": "P-256", "OKP": "Ed25519"}

PRIVATE_MEMBER: Final = "d"
"""The private number of RSA, EC and OKP keys."""


class UnusableKey(Exception):
    """A key that cannot be used; the text says why and is for the operator. It stays inside of this package."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key that verifies tokens.

    Attributes:
        kid: its name, as tokens give it; None for a key without one, which is tried for every token that fits.
        algorithms: what it may verify.
        value: the library's key, without private parts unless it is a secret.
    """

    kid: str | None
    algorithms: frozenset[str]
    value: _JoseKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys that are valid at the same time, so that they can be rotated."""

    keys: tuple[Key, ...] = ()

    def candidates(self, algorithm: str, kid: str | None) -> tuple[Key, ...]:
        """Give the keys that may have signed a token: those of its name, else those that have none, and fit it.

        A token without a name may be signed by any key of the fitting type.
        """
        fitting = tuple(key for key in self.keys if algorithm in key.algorithms)
        if kid is None:
            return fitting
        return tuple(key for key in fitting if key.kid == kid) or tuple(key for key in fitting if key.kid is None)

    def names(self, kid: str | None) -> bool:
        """Tell whether a key has this name, whatever it is for."""
        return kid is not None and any(key.kid == kid for key in self.keys)

    def verifies(self, algorithm: str) -> bool:
        """Tell whether any key is of the type for this algorithm."""
        return any(algorithm in key.algorithms for key in self.keys)


def secret_key(secret: str) -> Key:
    """Take a shared secret, which is its UTF-8 bytes as they are: base64 is not decoded.

    Raises:
        ConfigurationError: it is shorter than 32 bytes or is no secret but a public key.
    """
    # A variable of the environment that is not UTF-8 arrives with its bytes as surrogates.
    data = secret.encode("utf-8", "surrogateescape")
    if len(data) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"the secret has {len(data)} bytes and HS256 needs at least {MIN_SECRET_BYTES}: "
            "`collab keygen --algorithm HS256` makes one"
        )
    if "-----BEGIN " in secret:
        # Whoever knows a public key, which is everybody, could sign with it.
        raise ConfigurationError("the secret is a PEM key: give a public key as a key file, not as the secret")
    try:
        return Key(None, ALGORITHMS_OF["oct"], OctKey.import_key(data))
    except ValueError:
        raise ConfigurationError(
            "the secret is a public key, which everybody may know: give it as a key file"
        ) from None


def load_key_file(path: Path) -> KeySet:
    """Read a public key: PEM (``BEGIN PUBLIC KEY`` or ``BEGIN CERTIFICATE``), one JWK, or a JWK set.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else, a private key above all.
    """
    data = read_key_file(path)
    try:
        if b"-----BEGIN" in data:
            return KeySet((from_pem(data),))
        value = parse_json(data)
        return KeySet(_all_of(value) if "keys" in value else (from_jwk(value, local=True),))
    except UnusableKey as error:
        raise ConfigurationError(f"the key file {path}: {error}") from None


def load_jwks_file(path: Path) -> KeySet:
    """Read a JWK set (RFC 7517, section 5); every key in it must serve.

    Raises:
        ConfigurationError: the file cannot be read, or one of its keys cannot verify tokens.
    """
    try:
        return KeySet(_all_of(parse_json(read_key_file(path))))
    except UnusableKey as error:
        raise ConfigurationError(f"the JWKS file {path}: {error}") from None


def parse_jwks(data: bytes) -> tuple[KeySet, list[str]]:
    """Read a JWK set that somebody else publishes; give the keys that serve and why each other one does not.

    Raises:
        UnusableKey: it is no JWK set, or none of its keys serves. An empty set is taken for a fault of
            the publisher and not for the word that every key is withdrawn.
    """
    entries = entries_of(parse_json(data))
    keys: list[Key] = []
    left_out: list[str] = []
    for number, entry in enumerate(entries):
        try:
            keys.append(from_jwk(entry, local=False))
        except UnusableKey as error:
            left_out.append(f"key {number}: {error}")
    if not keys:
        raise UnusableKey(f"none of its {len(entries)} keys serves" + "".join(f"; {reason}" for reason in left_out[:3]))
    return KeySet(tuple(keys)), left_out


def joined(sets: Iterable[KeySet]) -> KeySet:
    """Put several sets into one."""
    return KeySet(tuple(key for keys in sets for key in keys.keys))


def read_key_file(path: Path) -> bytes:
    """Read a file of keys; raises ``ConfigurationError``."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the key file {path}: {error.strerror or error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"the key file {path} is larger than {MAX_FILE_BYTES} bytes")
    return data


def parse_json(data: bytes) -> dict[str, Any]:
    """Read a JSON object; raises ``UnusableKey``."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise UnusableKey("neither PEM nor JSON") from None
    if not isinstance(value, dict):
        raise UnusableKey("the JSON is no object")
    return value


def entries_of(value: Mapping[str, Any]) -> list[Any]:
    """Give the entries of a JWK set, each still to be looked at; raises ``UnusableKey``."""
    entries = value.get("keys")
    if not isinstance(entries, list):
        raise UnusableKey('no JWK set: it has no list "keys"')
    if len(entries) > MAX_KEYS:
        raise UnusableKey(f"it has {len(entries)} keys; at most {MAX_KEYS} are read")
    return entries


def _all_of(value: Mapping[str, Any]) -> tuple[Key, ...]:
    keys = tuple(from_jwk(entry, local=True) for entry in entries_of(value))
    if not keys:
        raise UnusableKey("the set is empty")
    return keys


def from_jwk(entry: object, *, local: bool) -> Key:
    """Take one public JWK; a secret only if it is ``local``, for what is published is no secret.

    Raises ``UnusableKey``.
    """
    if not isinstance(entry, dict):
        raise UnusableKey("no JSON object")
    kind = entry.get("kty")
    if not isinstance(kind, str) or kind not in ALGORITHMS_OF:
        raise UnusableKey('"kty" is none of RSA, EC, OKP' + (", oct" if local else ""))
    if kind == "oct" and not local:
        raise UnusableKey("a secret that is published")
    if PRIVATE_MEMBER in entry:
        raise UnusableKey("a private key: the server needs the public part only, whoever holds this one makes tokens")
    kid = entry.get("kid")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= MAX_KEY_ID):
        raise UnusableKey(f'"kid" is no text of 1 to {MAX_KEY_ID} characters')
    check_purpose(entry, kind, "verify")
    members: dict[str, str] = {}
    for member in PUBLIC_MEMBERS[kind]:
        if not isinstance(text := entry.get(member), str):
            raise UnusableKey(f'its member "{member}" is no text')
        members[member] = text
    if len(members.get("n", "")) > MAX_RSA_BITS // 6 + 2:  # before any arithmetic
        raise UnusableKey(f"an RSA key of more than {MAX_RSA_BITS} bits")
    # Measured before the library sees it, which warns of short secrets and goes on.
    if kind == "oct" and (size := len(members["k"]) * 3 // 4) < MIN_SECRET_BYTES:
        raise UnusableKey(f"a secret of {size} bytes; HS256 needs at least {MIN_SECRET_BYTES}")
    try:
        value = _import(kind, members)
    except (JoseError, UnsupportedAlgorithm, ValueError):
        raise UnusableKey(f"its numbers are no {kind} key") from None
    if not isinstance(value, OctKey):
        check_strength(value.public_key)
    return Key(kid, ALGORITHMS_OF[kind], value)


def check_purpose(entry: Mapping[str, Any], kind: str, operation: str) -> None:
    """Check that a JWK of this type is one for ``operation`` (RFC 7517, section 4.3) by an algorithm of ours.

    Raises ``UnusableKey``.
    """
    if entry.get("use", "sig") != "sig":
        raise UnusableKey('"use" is not "sig"')
    operations = entry.get("key_ops", [operation])
    if not isinstance(operations, list) or operation not in operations:
        raise UnusableKey(f'"key_ops" does not hold "{operation}"')
    algorithms = ALGORITHMS_OF[kind]
    meant_for = entry.get("alg")
    if meant_for is not None and meant_for not in tuple(algorithms):
        raise UnusableKey(f'"alg" is not {" or ".join(sorted(algorithms))}')
    if kind in CURVES and entry.get("crv") != CURVES[kind]:
        raise UnusableKey(f'"crv" is not {CURVES[kind]}')


def _import(kind: str, members: Mapping[str, str]) -> _JoseKey:
    whole: dict[str, str | list[str]] = {"kty": kind, **members}
    if kind == "oct":
        return OctKey.import_key(whole)
    if kind == "RSA":
        return RSAKey.import_key(whole)
    return ECKey.import_key(whole) if kind == "EC" else OKPKey.import_key(whole)


def from_pem(data: bytes) -> Key:
    """Take one public key or certificate in PEM; raises ``UnusableKey``."""
    if b"PRIVATE KEY-----" in data:
        raise UnusableKey(
            "a private key: whoever holds it makes tokens, so it stays with the application; "
            "`openssl pkey -in private.pem -pubout` gives the public one"
        )
    if data.count(b"-----BEGIN") > 1:
        raise UnusableKey("several PEM blocks: give each key a file of its own, or use a JWK set")
    try:
        if b"CERTIFICATE-----" in data:
            public: object = load_pem_x509_certificate(data).public_key()
        else:
            public = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey("no public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    check_strength(public)
    assert isinstance(public, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(public, RSAPublicKey):
        return Key(None, ALGORITHMS_OF["RSA"], RSAKey.import_key(pem))
    if isinstance(public, EllipticCurvePublicKey):
        return Key(None, ALGORITHMS_OF["EC"], ECKey.import_key(pem))
    return Key(None, ALGORITHMS_OF["OKP"], OKPKey.import_key(pem))


def check_strength(public: object) -> None:
    """Check the type and the size of the cryptography library's public key; raises ``UnusableKey``."""
    if isinstance(public, RSAPublicKey):
        if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
            raise UnusableKey(f"an RSA key of {public.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are taken")
    elif isinstance(public, EllipticCurvePublicKey):
        if not isinstance(public.curve, SECP256R1):
            raise UnusableKey(f"a key on the curve {public.curve.name}; ES256 needs P-256")
    elif not isinstance(public, Ed25519PublicKey):
        raise UnusableKey("a key of another type than RSA, EC (P-256) and Ed25519")
