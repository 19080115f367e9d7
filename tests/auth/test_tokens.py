"""Tokens, good and bad: what each is worth, and what its bearer is told."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.auth.access import AccessRequest, Grant
from collab.auth.claims import ClaimRules
from collab.auth.factory import AuthOptions, make_authenticator
from collab.auth.jwt import MAX_TOKEN, MAX_TRIED
from collab.auth.keys import KeySet, load_key_file, secret_key
from collab.auth.tokens import TokenAuthenticator
from collab.errors import AccessDenied, Forbidden, Unauthenticated
from collab.protocol.session import Access
from tests.auth.makers import NOW, SECRET, Clock, by_hand, claims, encoded, pair, signed, write
from tests.support.node import find_node

PUBLISHED = ("RS256", "ES256", "EdDSA")


def authenticator(*keys: KeySet, **rules: Any) -> TokenAuthenticator:
    together = KeySet(tuple(key for each in keys for key in each.keys))
    return TokenAuthenticator(together, ClaimRules(**rules), clock=Clock())


def secrets(*values: str) -> KeySet:
    return KeySet(tuple(secret_key(value) for value in values))


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Any], KeySet]:
    def load(content: Any) -> KeySet:
        return load_key_file(write(tmp_path / "key", content))

    return load


async def shown(to: TokenAuthenticator, token: str, document: str = "notes/1") -> Grant:
    return await to.authenticate(AccessRequest(token, document, "192.0.2.1"))


async def refused(to: TokenAuthenticator, token: str, document: str = "notes/1") -> AccessDenied:
    with pytest.raises(AccessDenied) as caught:
        await shown(to, token, document)
    # Neither client nor log ever see any of it.
    for part in token.split("."):
        assert len(part) < 8 or (part not in caught.value.public and part not in str(caught.value))
    return caught.value


async def test_a_token_is_checked_without_a_document() -> None:
    to = authenticator(secrets(SECRET))
    await to.check_token(signed())
    await to.check_token(signed(documents={"other": "read"}))
    for bad in ("", "x", signed("another secret that is long enough for HS256"), signed(exp=NOW - 3_600)):
        with pytest.raises(AccessDenied):
            await to.check_token(bad)


async def test_a_good_token_gives_what_it_says() -> None:
    grant = await shown(authenticator(secrets(SECRET), leeway=5), signed())
    assert grant == Grant(Access.WRITE, "u-17", "Ada", NOW + 3600 + 5)


@pytest.mark.parametrize("algorithm", PUBLISHED)
@pytest.mark.parametrize("form", ["pem", "jwk"])
async def test_each_algorithm_verifies_what_another_library_signed(
    algorithm: str, form: str, file: Callable[[Any], KeySet]
) -> None:
    made = pair(algorithm)
    to = authenticator(file(made.public_pem if form == "pem" else made.jwk("k1")))
    assert (await shown(to, signed(made))).user == "u-17"
    assert (await shown(to, signed(made, "k1"))).user == "u-17"
    assert "does not know" in (await refused(to, signed(pair(algorithm, 1)))).public


@pytest.mark.node
async def test_node_signs_and_we_verify(file: Callable[[Any], KeySet]) -> None:
    script = """
    const { sign } = require("node:crypto")
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
    const input = process.argv[1], [key, algorithm, claims] = JSON.parse(input)
    const text = part({ alg: algorithm, typ: "JWT" }) + "." + part(claims)
    const hash = algorithm === "EdDSA" ? null : "sha256"
    console.log(text + "." + sign(hash, Buffer.from(text), { key, dsaEncoding: "ieee-p1363" }).toString("base64url"))
    """
    for algorithm in PUBLISHED:
        given_key = json.dumps([pair(algorithm).private_pem, algorithm, claims()])
        node = await asyncio.create_subprocess_exec(find_node()[0], "-e", script, given_key, stdout=PIPE)
        token = (await node.communicate())[0].decode().strip()
        grant = await shown(authenticator(file(pair(algorithm).public_pem)), token)
        assert grant.access is Access.WRITE


HEADER = {"alg": "HS256", "typ": "JWT"}


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", "no token was given"),
        ("garbage", "not a JWT"),
        ("a.b", "not a JWT"),
        ("..", "not a JWT"),
        ("é.e30.AAAA", "not a JWT"),
        ("\ud800.e30.AAAA", "not a JWT"),
        (f"{encoded('[1]')}.e30.AAAA", "not a JWT"),
        (f"{encoded(chr(34) + 'alg' + chr(34))}.e30.AAAA", "not a JWT"),
        (f"{encoded('[' * 5000)}.e30.AAAA", "not a JWT"),
        (f"{encoded(b'{' + bytes([0xFF]) + b'}')}.e30.AAAA", "not a JWT"),
        ("a.b.c.d.e", "encrypted"),
        ("A" * (MAX_TOKEN + 1), "longer than 8192 characters"),
        (f"{encoded({'alg': 'none'})}.{encoded(claims())}.", "not signed (alg none)"),
        (f"{encoded({'alg': 'NoNe'})}.{encoded(claims())}.", "not signed (alg none)"),
        (f"{encoded({})}.{encoded(claims())}.AAAA", "algorithm that is not supported"),
        (f"{encoded({'alg': 256})}.{encoded(claims())}.AAAA", "algorithm that is not supported"),
        (f"{encoded({'alg': ['HS256']})}.{encoded(claims())}.AAAA", "algorithm that is not supported"),
        (jwt.encode(claims(), SECRET * 2, "HS512"), "algorithm that is not supported"),
        (signed(pair("RS256")), "signed with RS256, for which this server has no key"),
        (signed(SECRET + "!"), "signed with a key that this server does not know"),
        (signed() + "A", "does not know|not a JWT"),
        (signed()[:-20], "does not know|not a JWT"),
        (signed().rsplit(".", 1)[0] + ".", "does not know"),
        (signed().rsplit(".", 1)[0] + ".****", "does not know"),
        (by_hand({**HEADER, "crit": ["exp"], "exp": 1}, claims()), "extension"),
        (by_hand({**HEADER, "crit": ["b64"], "b64": False}, claims()), "extension"),
        (by_hand({**HEADER, "b64": True}, claims()), "extension"),
        (by_hand({**HEADER, "kid": 7}, claims()), "kid must be"),
        (by_hand({**HEADER, "kid": ""}, claims()), "kid must be"),
        (by_hand({**HEADER, "kid": "k" * 257}, claims()), "kid must be"),
        (by_hand({**HEADER, "typ": 5}, claims()), "not a JWT"),
        (by_hand(HEADER, "not JSON"), "not a JSON object"),
        (by_hand(HEADER, b"\xff\xfe"), "not a JSON object"),
        (by_hand(HEADER, "[]"), "not a JSON object"),
        (by_hand(HEADER, "[" * 3000), "not a JSON object"),
        (by_hand(HEADER, '{"sub": "u", "documents": {"*": "write"}, "exp": NaN}'), "exp must be a number"),
        (by_hand(HEADER, '{"sub": "u", "documents": {"*": "write"}, "exp": 1e999}'), "exp must be in seconds"),
        (signed(exp=NOW - 71), "expired"),
        (signed(exp=None), "no claim exp"),
        (signed(iss="x"), "another issuer"),
        (signed(iss="https://app.example", aud="x"), "another audience"),
    ],
)
async def test_a_bad_token_is_refused_with_its_reason(token: str, told: str) -> None:
    to = authenticator(secrets(SECRET), issuer="https://app.example", audience="collab")
    await shown(to, signed(iss="https://app.example", aud="collab"))
    error = await refused(to, token)
    assert isinstance(error, Unauthenticated)
    assert any(part in error.public for part in told.split("|")), error.public


async def test_an_unknown_header_parameter_is_ignored() -> None:
    token = by_hand({**HEADER, "nonce": "n", "jku": "https://evil.example/keys", "x5c": ["AAAA"]}, claims())
    assert (await shown(authenticator(secrets(SECRET)), token)).user == "u-17"


@pytest.mark.parametrize("algorithm", PUBLISHED)
@pytest.mark.parametrize("form", ["pem", "jwk"])
async def test_a_public_key_is_no_secret_to_sign_with(algorithm: str, form: str, file: Callable[[Any], KeySet]) -> None:
    made = pair(algorithm)
    jwk = made.jwk("k1")
    for known in (made.public_pem, made.public_pem.strip(), json.dumps(jwk), str(jwk.get("n") or jwk["x"])):
        for kid in ({}, {"kid": "k1"}):
            token = by_hand({**HEADER, **kid}, claims(), known.encode())
            error = await refused(authenticator(file(made.public_pem if form == "pem" else jwk)), token)
            assert error.public == "the token is signed with HS256, for which this server has no key"
            # And with a secret beside it, which does not make the public key one.
            both = authenticator(file(made.public_pem if form == "pem" else jwk), secrets(SECRET))
            told = "not for its algorithm, HS256" if form == "jwk" and kid else "does not know"
            assert told in (await refused(both, token)).public


async def test_keys_of_each_kind_serve_side_by_side(tmp_path: Path) -> None:
    files = tuple(write(tmp_path / algorithm, pair(algorithm).public_pem) for algorithm in PUBLISHED)
    jwks = write(tmp_path / "jwks", {"keys": [pair("ES256", 1).jwk("other")]})
    made = make_authenticator(AuthOptions(secret=SECRET, key_files=files, jwks_file=jwks), clock=Clock())
    assert isinstance(made, TokenAuthenticator)
    for key in (SECRET, *map(pair, PUBLISHED)):
        assert (await shown(made, signed(key))).user == "u-17"
    assert (await shown(made, signed(pair("ES256", 1), "other"))).user == "u-17"
    assert (await shown(made, signed(pair("ES256", 1)))).user == "u-17"


async def test_keys_are_rotated_by_name_and_without(file: Callable[[Any], KeySet]) -> None:
    old, new, other = pair("EdDSA"), pair("EdDSA", 1), pair("EdDSA", 2)
    during = authenticator(file({"keys": [old.jwk("old"), new.jwk("new")]}))
    for key, kid in ((old, "old"), (new, "new"), (old, None), (new, None)):
        assert (await shown(during, signed(key, kid))).user == "u-17"
    assert "not by the key that it names" in (await refused(during, signed(old, "new"))).public
    assert "does not know" in (await refused(during, signed(other, "other"))).public
    assert "does not know" in (await refused(during, signed(old, "other"))).public
    after = authenticator(file({"keys": [new.jwk("new")]}))
    assert "does not know" in (await refused(after, signed(old, "old"))).public
    # Two keys that carry one name, as some issuers publish them.
    same = authenticator(file({"keys": [old.jwk("k"), new.jwk("k")]}))
    assert (await shown(same, signed(new, "k"))).user == "u-17"


async def test_a_key_that_is_named_and_of_another_type_is_said_to_be(file: Callable[[Any], KeySet]) -> None:
    to = authenticator(file({"keys": [pair("EdDSA").jwk("k1"), pair("ES256").jwk("k2")]}))
    assert "not for its algorithm, ES256" in (await refused(to, signed(pair("ES256"), "k1"))).public


async def test_secrets_are_rotated() -> None:
    to = authenticator(secrets(SECRET, SECRET[::-1]))
    assert (await shown(to, signed())).user == "u-17"
    assert (await shown(to, signed(SECRET[::-1]))).user == "u-17"


async def test_not_more_keys_are_tried_than_the_loop_can_bear() -> None:
    numbered = [f"{SECRET} {number}" for number in range(MAX_TRIED + 1)]
    assert (await shown(authenticator(secrets(*numbered[:-1])), signed(numbered[-2]))).user == "u-17"
    assert "too many" in (await refused(authenticator(secrets(*numbered)), signed(numbered[0]))).public


async def test_a_good_token_for_other_documents_is_forbidden() -> None:
    to = authenticator(secrets(SECRET))
    assert isinstance(error := await refused(to, signed(), "letters/1"), Forbidden)
    assert "does not allow this document" in error.public
    assert isinstance(await refused(to, signed(documents={})), Forbidden)


@given(st.data())
async def test_whatever_is_changed_in_a_token_refuses_it(data: st.DataObject) -> None:
    token = signed()
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCabc019-_.=+ /"))
    if token[at] != letter:
        await refused(authenticator(secrets(SECRET)), token[:at] + letter + token[at + 1 :])


@given(st.text(max_size=60), st.text("eyJ.A_-", max_size=60))
async def test_no_text_gets_in_or_breaks_anything(first: str, second: str) -> None:
    for token in (first, second, f"{encoded(first.encode('utf-8', 'replace'))}.{second}.AAAA"):
        await refused(authenticator(secrets(SECRET)), token)


def test_a_request_shows_its_token_nowhere() -> None:
    request = AccessRequest("top-secret", "notes/1", "192.0.2.1")
    assert "top-secret" not in repr(request) + str(request) + f"{request}"
    assert "top" not in repr(AuthOptions(secret="top" * 20))
