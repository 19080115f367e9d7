"""Keys of the server's own: what is published of them, and what others make of what they sign.

What is signed is verified by PyJWT and by the cryptography library, and not by what has signed it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from collab.auth.access import AccessRequest
from collab.auth.factory import AuthOptions, make_authenticator
from collab.auth.keys import load_jwks_file, parse_jwks
from collab.auth.signing import (
    BODY_HASH,
    HEADER,
    LIFETIME,
    MAX_RSA_BITS,
    MAX_SIGNING_KEYS,
    TYPE,
    Signer,
    load_private_key,
)
from collab.errors import ConfigurationError, Unauthenticated
from tests.auth.conftest import Elsewhere
from tests.auth.makers import NOW, SECRET, Clock, Pair, encoded, pair, write

ALGORITHMS = ("RS256", "ES256", "EdDSA")

PUBLIC = {
    "RS256": {"kty", "kid", "use", "alg", "n", "e"},
    "ES256": {"kty", "kid", "use", "alg", "crv", "x", "y"},
    "EdDSA": {"kty", "kid", "use", "alg", "crv", "x"},
}

AUDIENCE = "https://app.example/collab/access"
BODY = b'{"token":"t"}'

MIXED = {
    "EdDSA": lambda: pair("EdDSA").private_jwk(x=pair("EdDSA", 1).private_jwk()["x"]),
    "ES256": lambda: pair("ES256").private_jwk(d=pair("ES256", 1).private_jwk()["d"]),
    "RS256": lambda: pair("RS256").private_jwk(n=pair("RS256", 1).private_jwk()["n"]),
}
"""Private keys with the public part of another one."""


def private_pem(private: Any) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def locked_pem() -> str:
    return (
        pair("ES256").private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    )


def contents(form: str, made: Pair) -> str | dict[str, Any]:
    if form == "traditional pem":
        shape = PrivateFormat.PKCS8 if made.algorithm == "EdDSA" else PrivateFormat.TraditionalOpenSSL
        return made.private.private_bytes(Encoding.PEM, shape, NoEncryption()).decode()
    jwk = made.private_jwk(kid="a name of its own", use="sig", key_ops=["sign"], alg=made.algorithm)
    return {"pem": made.private_pem, "jwk": jwk, "jwks": {"keys": [jwk]}}[form]


def thumbprint(jwk: dict[str, str]) -> str:
    """Make a name as RFC 7638, section 3 says."""
    members = {"RSA": "e kty n", "EC": "crv kty x y", "OKP": "crv kty x"}[jwk["kty"]].split()
    text = json.dumps({member: jwk[member] for member in members}, separators=(",", ":"), sort_keys=True)
    return encoded(hashlib.sha256(text.encode()).digest())


def verified(signer: Signer, token: str, audience: str = AUDIENCE, **options: Any) -> dict[str, Any]:
    """Verify a token as somebody does who has fetched the published set."""
    keys = jwt.PyJWKSet.from_dict({"keys": [dict(key) for key in signer.published]})
    key = keys[jwt.get_unverified_header(token)["kid"]]
    found: dict[str, Any] = jwt.decode(token, key, [key.algorithm_name], audience=audience, **options)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", ["pem", "traditional pem", "jwk", "jwks"])
def test_of_each_key_public_members_alone_are_published(algorithm: str, form: str, tmp_path: Path) -> None:
    made = pair(algorithm)
    signer = Signer([write(tmp_path / "key", contents(form, made))], "collab")
    (published,) = signer.published
    assert published.keys() == PUBLIC[algorithm]
    assert published["kid"] == thumbprint(dict(published)) and published["alg"] == algorithm
    assert {member: published[member] for member in made.jwk()} == made.jwk()
    for member in ("d", "p", "q", "dp", "dq", "qi"):
        number = made.private_jwk().get(member)
        assert number is None or number not in json.dumps(signer.published) + repr(signer._keys)
    # What a server publishes, another one can trust.
    keys, left_out = parse_jwks(json.dumps({"keys": [dict(published)]}).encode())
    assert [key.kid for key in keys.keys] == [published["kid"]] and left_out == []


def test_the_name_of_a_key_is_its_thumbprint_as_in_the_example_of_rfc_7638(tmp_path: Path) -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64"
        "tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91Cb"
        "OpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    example = {"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    keys = {"keys": [pair("EdDSA").private_jwk(), example]}
    published = Signer([write(tmp_path / "keys", keys)], "collab").published
    assert published[1]["kid"] == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_request_is_signed_for_its_address_and_its_body_for_a_minute(algorithm: str, tmp_path: Path) -> None:
    clock = Clock()
    signer = Signer([write(tmp_path / "key", pair(algorithm).private_pem)], "https://collab.example", clock=clock)
    one, two = (signer.headers(AUDIENCE, BODY, webhook_id="evt_1") for _ in range(2))
    assert one.keys() == {HEADER}
    token = one[HEADER]
    header = jwt.get_unverified_header(token)
    assert header == {"typ": TYPE, "alg": algorithm, "kid": signer.published[0]["kid"]}
    anytime = {"options": {"verify_exp": False, "verify_iat": False}}
    claims = verified(signer, token, **anytime)
    assert claims.pop("jti") != verified(signer, two[HEADER], **anytime)["jti"]
    assert claims == {
        "iss": "https://collab.example",
        "aud": AUDIENCE,
        "iat": NOW,
        "exp": NOW + LIFETIME,
        BODY_HASH: hashlib.sha256(BODY).hexdigest(),
        "webhook_id": "evt_1",
    }
    with pytest.raises(jwt.InvalidAudienceError):
        verified(signer, token, "https://other.example/", **anytime)
    other = Signer([write(tmp_path / "other", pair(algorithm, 1).private_pem)], "https://collab.example")
    with pytest.raises(KeyError):
        verified(other, token, **anytime)
    clock.now = 1_000_000_000
    with pytest.raises(jwt.ExpiredSignatureError):
        verified(signer, signer.headers(AUDIENCE, BODY)[HEADER])


def test_each_ed25519_key_signs_texts_and_no_other_does(tmp_path: Path) -> None:
    keys = [pair("ES256"), pair("EdDSA"), pair("EdDSA", 1)]
    content = {"keys": [*(key.private_jwk() for key in keys), pair("EdDSA", 2).jwk()]}
    signer = Signer([write(tmp_path / "keys", content)], "collab")
    signatures = signer.ed25519(b"text")
    for number, signature in enumerate(signatures, 1):
        raw = base64.urlsafe_b64decode(signer.published[number]["x"] + "=")
        public = Ed25519PublicKey.from_public_bytes(raw)
        public.verify(signature, b"text")
        with pytest.raises(InvalidSignature):
            public.verify(signature, b"another text")
    assert len(signatures) == 2
    assert Signer([write(tmp_path / "key", pair("RS256").private_pem)], "collab").ed25519(b"text") == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: pair("ES256").public_pem, "its first key is a public one"),
        (lambda: {"keys": [pair("ES256").jwk(), pair("EdDSA").private_jwk()]}, "its first key is a public one"),
        (lambda: pair("RS256").private_pem + pair("EdDSA").private_pem, "several PEM blocks"),
        (lambda: pair("RS256").private_pem + pair("EdDSA").public_pem, "several PEM blocks"),
        (lambda: "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "no private key in PEM"),
        (locked_pem, "it has a password"),
        (lambda: private_pem(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits"),
        (lambda: private_pem(rsa.generate_private_key(65537, MAX_RSA_BITS + 8)), "signs slowly"),
        (lambda: private_pem(ec.generate_private_key(ec.SECP384R1())), "on the curve secp384r1"),
        (lambda: private_pem(x25519.X25519PrivateKey.generate()), "another type"),
        (lambda: {"kty": "oct", "k": encoded(SECRET)}, "a secret has no public part"),
        (lambda: {"kty": "oct", "k": encoded(SECRET), "d": "AAAA"}, '"kty" is none of RSA, EC, OKP'),
        (lambda: "hello", "neither PEM nor JSON"),
        (lambda: "[]", "no object"),
        (lambda: {"keys": []}, "the set is empty"),
        (lambda: {"keys": {}}, 'no list "keys"'),
        (lambda: {"keys": [7]}, "no JSON object"),
        (lambda: pair("ES256").private_jwk(use="enc"), '"use" is not "sig"'),
        (lambda: pair("ES256").private_jwk(key_ops=["verify"]), '"key_ops" does not hold "sign"'),
        (lambda: pair("ES256").private_jwk(alg="RS256"), '"alg" is not ES256'),
        (lambda: pair("ES256").private_jwk(crv="P-384"), '"crv" is not P-256'),
        (lambda: pair("EdDSA").private_jwk(d=7), 'member "d" is no text'),
        (lambda: pair("EdDSA").private_jwk(d="AAAA"), "no private OKP key"),
        (lambda: pair("EdDSA").private_jwk(d="*"), "no private OKP key"),
        (MIXED["EdDSA"], "not that of its private part"),
        (MIXED["ES256"], "no private EC key"),
        (MIXED["RS256"], "no private RSA key"),
        (lambda: {"keys": [pair("EdDSA").private_jwk()] * 2}, "the same key twice"),
        (lambda: {"keys": [pair("EdDSA").private_jwk(), pair("EdDSA").jwk()]}, "the same key twice"),
        (
            lambda: {"keys": [pair("EdDSA", number).private_jwk() for number in range(MAX_SIGNING_KEYS + 1)]},
            f"at most {MAX_SIGNING_KEYS}",
        ),
    ],
)
def test_what_cannot_sign_is_refused_and_not_shown(content: Callable[[], Any], told: str, tmp_path: Path) -> None:
    written = content()
    with pytest.raises(ConfigurationError, match=told) as caught:
        Signer([write(tmp_path / "key", written)], "collab")
    assert "\n" not in str(caught.value)
    if isinstance(written, dict) and isinstance(number := written.get("d"), str) and len(number) > 1:
        assert number not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the key file .*none.pem"):
        Signer([tmp_path / "none.pem"], "collab")


def test_the_first_of_all_files_signs_and_public_keys_may_stand_behind_it(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "new.pem", pair("ES256").private_pem),
        write(tmp_path / "old.pem", pair("RS256").public_pem),
        write(tmp_path / "others.json", {"keys": [pair("EdDSA").jwk("a name")]}),
    ]
    signer = Signer(files, "collab")
    assert [key["alg"] for key in signer.published] == ["ES256", "RS256", "EdDSA"]
    assert verified(signer, signer.headers(AUDIENCE, BODY)[HEADER])["iss"] == "collab"
    assert signer.ed25519(b"text") == []


def test_files_are_read_again_and_what_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", {"keys": [pair("ES256").private_jwk()]})
    signer = Signer([path], "collab")
    reloads: list[int] = []
    signer.on_reload = lambda: reloads.append(len(signer.published))
    before = signer.published
    write(path, {"keys": [pair("ES256").jwk()]})
    with pytest.raises(ConfigurationError, match="public one"):
        signer.reload()
    assert signer.published == before and reloads == []
    assert verified(signer, signer.headers(AUDIENCE, BODY)[HEADER])
    write(path, {"keys": [pair("EdDSA").private_jwk(), pair("ES256").private_jwk()]})
    signer.reload()
    assert [key["alg"] for key in signer.published] == ["EdDSA", "ES256"] and reloads == [2]
    assert jwt.get_unverified_header(signer.headers(AUDIENCE, BODY)[HEADER])["alg"] == "EdDSA"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: pair("ES256").public_pem, "a public key; the private one signs"),
        (lambda: {"keys": [pair("ES256").private_jwk(), pair("EdDSA").private_jwk()]}, "several keys; one signs"),
        (lambda: "hello", "neither PEM nor JSON"),
    ],
)
def test_one_private_key_is_read_and_nothing_else(content: Callable[[], Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_private_key(write(tmp_path / "key", content()))


async def test_what_the_application_is_asked_is_signed(elsewhere: Elsewhere, tmp_path: Path) -> None:
    elsewhere.answers({"user": "u-17", "access": "write", "expires_in": 60})
    signer = Signer([write(tmp_path / "key", pair("ES256").private_pem)], "collab")
    url = elsewhere.url.replace("http://", "http://name:geheim@") + "?key=geheim"
    made = make_authenticator(AuthOptions(auth_url=url), signer)
    assert made is not None
    await made.start()
    try:
        await made.authenticate(AccessRequest("token of the user", "notes/1", "192.0.2.1"))
    finally:
        await made.close()
    (headers,), (body,) = elsewhere.headers, elsewhere.bodies
    claims = verified(signer, headers[HEADER], elsewhere.url)
    assert claims[BODY_HASH] == hashlib.sha256(body).hexdigest()
    assert "geheim" not in json.dumps(claims) and "token of the user" in body.decode()


async def test_keys_are_fetched_without_a_signature(elsewhere: Elsewhere, tmp_path: Path) -> None:
    elsewhere.answers({"keys": [pair("ES256").jwk("k")]})
    signer = Signer([write(tmp_path / "key", pair("ES256").private_pem)], "collab")
    made = make_authenticator(AuthOptions(jwks_url=elsewhere.url), signer)
    assert made is not None
    await made.start()
    await elsewhere.arrived.wait()
    await made.close()
    assert HEADER not in elsewhere.headers[0]


async def test_what_the_server_signs_is_no_token_for_itself(tmp_path: Path) -> None:
    signer = Signer([write(tmp_path / "key", pair("ES256").private_pem)], "collab")
    published = write(tmp_path / "published", {"keys": [dict(key) for key in signer.published]})
    assert load_jwks_file(published).keys
    made = make_authenticator(AuthOptions(jwks_file=published, audience=AUDIENCE, issuer="collab"))
    assert made is not None
    with pytest.raises(Unauthenticated, match="sub"):
        await made.authenticate(AccessRequest(signer.headers(AUDIENCE, BODY)[HEADER], "notes/1", "192.0.2.1"))
