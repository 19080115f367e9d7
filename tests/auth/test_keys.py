"""Which keys are taken, from where, and what an operator is told of the others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from collab.auth.keys import (
    MAX_FILE_BYTES,
    UnusableKey,
    load_jwks_file,
    load_key_file,
    parse_jwks,
    secret_key,
)
from collab.errors import ConfigurationError
from tests.auth.makers import SECRET, encoded, pair, write

SERVES = {"RS256": {"RS256"}, "ES256": {"ES256"}, "EdDSA": {"EdDSA", "Ed25519"}}


def public_pem(private: Any) -> str:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=1))
    key = pair("ES256").private
    return builder.public_key(key.public_key()).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("algorithm", SERVES)
@pytest.mark.parametrize("form", ["pem", "jwk", "jwks"])
def test_a_public_key_is_read_from_each_form(algorithm: str, form: str, tmp_path: Path) -> None:
    made = pair(algorithm)
    content = {"pem": made.public_pem, "jwk": made.jwk("k1"), "jwks": {"keys": [made.jwk("k1")]}}[form]
    (key,) = load_key_file(write(tmp_path / "key", content)).keys
    assert key.algorithms == SERVES[algorithm]
    assert key.kid == (None if form == "pem" else "k1")


def test_the_key_of_a_certificate_is_read(tmp_path: Path) -> None:
    (key,) = load_key_file(write(tmp_path / "key", certificate())).keys
    assert key.algorithms == {"ES256"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: pair("RS256").private_pem, "a private key"),
        (lambda: {**pair("EdDSA").jwk(), "d": "AAAA"}, "a private key"),
        (lambda: pair("RS256").public_pem + pair("EdDSA").public_pem, "several PEM blocks"),
        (lambda: "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n", "no public key in PEM"),
        (lambda: public_pem(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits"),
        (lambda: public_pem(ec.generate_private_key(ec.SECP384R1())), "on the curve secp384r1"),
        (lambda: public_pem(x25519.X25519PrivateKey.generate()), "another type"),
        (lambda: "hello", "neither PEM nor JSON"),
        (lambda: "[" * 100_000, "neither PEM nor JSON"),
        (lambda: "[]", "no object"),
        (lambda: {}, '"kty" is none of'),
        (lambda: {"kty": ["RSA"]}, '"kty" is none of'),
        (lambda: {"keys": []}, "the set is empty"),
        (lambda: {"keys": {}}, 'no list "keys"'),
        (lambda: {"keys": [pair("EdDSA").jwk(), 7]}, "no JSON object"),
        (lambda: {"keys": [{}] * 65}, "at most 64"),
        (lambda: pair("ES256").jwk("k", use="enc"), '"use" is not "sig"'),
        (lambda: pair("ES256").jwk("k", key_ops=["sign"]), '"key_ops"'),
        (lambda: pair("ES256").jwk("k", key_ops="verify"), '"key_ops"'),
        (lambda: pair("ES256").jwk("k", alg="RS256"), '"alg" is not ES256'),
        (lambda: pair("RS256").jwk("k", alg=["RS256"]), '"alg" is not RS256'),
        (lambda: pair("ES256").jwk("k", crv="P-384"), '"crv" is not P-256'),
        (lambda: pair("ES256").jwk("k", x="AAAA"), "are no EC key"),
        (lambda: pair("EdDSA").jwk("k", x="*"), "are no OKP key"),
        (lambda: pair("RS256").jwk("k", n=7), 'member "n"'),
        (lambda: pair("RS256").jwk("k", n="A" * 2_000), "more than 8192 bits"),
        (lambda: pair("RS256").jwk("k", e=""), "are no RSA key"),
        (lambda: pair("RS256").jwk("k" * 257), '"kid"'),
        (lambda: {"kty": "oct", "k": encoded("short")}, "a secret of 5 bytes"),
        (lambda: " " * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
def test_a_file_that_does_not_serve_stops_the_server(content: Callable[[], Any], told: str, tmp_path: Path) -> None:
    path = write(tmp_path / "key", content())
    with pytest.raises(ConfigurationError) as refused:
        load_key_file(path)
    assert told in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for load in (load_key_file, load_jwks_file):
        with pytest.raises(ConfigurationError, match="No such file"):
            load(tmp_path / "nothing")


def test_a_set_of_ones_own_may_hold_secrets_for_their_rotation(tmp_path: Path) -> None:
    entries = [{"kty": "oct", "kid": kid, "k": encoded(SECRET + kid)} for kid in ("old", "new")]
    keys = load_jwks_file(write(tmp_path / "keys", {"keys": entries})).keys
    assert [(key.kid, key.algorithms) for key in keys] == [("old", {"HS256"}), ("new", {"HS256"})]


@pytest.mark.parametrize("size", [0, 1, 31])
def test_a_weak_secret_is_refused_without_being_shown(size: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{size} bytes") as refused:
        secret_key("q" * size)
    assert "qq" not in str(refused.value)


def test_a_secret_is_measured_in_bytes() -> None:
    assert secret_key("é" * 16).value.raw_value == ("é" * 16).encode()  # type: ignore[union-attr]
    assert secret_key("q" * 32).algorithms == {"HS256"}


def test_a_public_key_is_no_secret() -> None:
    der = pair("RS256").private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    broken = pair("RS256").public_pem[:-40]
    for secret in (pair("RS256").public_pem, certificate(), der.decode("utf-8", "surrogateescape"), broken):
        with pytest.raises(ConfigurationError, match="public key|PEM"):
            secret_key(secret)


def test_of_a_published_set_what_does_not_serve_is_left_out() -> None:
    entries: list[Any] = [
        pair("RS256").jwk("good"),
        {"kty": "oct", "k": encoded(SECRET), "kid": "published secret"},
        {**pair("ES256").jwk("published private key"), "d": encoded(b"x" * 32)},
        pair("RS256").jwk("for encryption", use="enc"),
        pair("RS256").jwk("PS256", alg="PS256"),
        {"kty": "AKP", "kid": "of the future"},
        "garbage",
    ]
    keys, left_out = parse_jwks(json.dumps({"keys": entries}).encode())
    assert [key.kid for key in keys.keys] == ["good"]
    assert len(left_out) == 6
    assert base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=") not in "".join(left_out)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"{}", b'{"keys": []}', b'{"keys": [{}]}', b"[" * 50_000])
def test_a_published_set_without_a_key_that_serves_is_none(body: bytes) -> None:
    with pytest.raises(UnusableKey):
        parse_jwks(body)
