"""Keys, tokens and clocks for the tests; tokens come from PyJWT, another library than the one that verifies."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

NOW = 1_800_000_000

SECRET = "correct horse battery staple, twice over"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Pair:
    """A private key and what it signs with."""

    algorithm: str
    private: Any

    @property
    def private_pem(self) -> str:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def public_pem(self) -> str:
        public = self.private.public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def private_jwk(self, **members: Any) -> dict[str, Any]:
        made = jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.private, as_dict=True)
        return {**made, **members}

    def jwk(self, kid: str | None = None, **members: Any) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        made = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        made.pop("key_ops", None)
        return {**made, **({"kid": kid} if kid else {}), **members}


@functools.cache
def pair(algorithm: str, number: int = 0) -> Pair:
    """Make the key pair ``number`` for an algorithm, the same one each time."""
    makers = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }
    return Pair(algorithm, makers[algorithm]())


def claims(**changes: Any) -> dict[str, Any]:
    """Make good claims; ``None`` leaves one out."""
    made = {"sub": "u-17", "name": "Ada", "documents": {"notes/*": "write"}, "exp": NOW + 3600} | changes
    return {name: value for name, value in made.items() if value is not None}


def signed(key: Pair | str = SECRET, kid: str | None = None, /, **changes: Any) -> str:
    """Sign ``claims(**changes)``."""
    headers = {"kid": kid} if kid else None
    if isinstance(key, str):
        return jwt.encode(claims(**changes), key, "HS256", headers=headers)
    return jwt.encode(claims(**changes), key.private, key.algorithm, headers=headers)


def encoded(data: bytes | str | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: Any, payload: Any, secret: bytes = SECRET.encode()) -> str:
    """Put a token together that no library would make, with an HMAC of ``secret`` for its signature."""
    text = f"{encoded(header)}.{encoded(payload)}"
    return f"{text}.{encoded(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def write(path: Path, content: str | dict[str, Any]) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path
