"""What docs/security.md and docs/webhooks.md tell people to check is what a server signs, and nothing else passes."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jwt
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from collab.app import create_app
from collab.auth.access import AccessRequest
from collab.auth.factory import AuthOptions, make_authenticator
from collab.auth.jwt import sign
from collab.auth.signing import HEADER, TYPE, Signer
from collab.cli import run as collab
from collab.errors import AccessUnavailable
from collab.settings import Settings
from collab.storage.memory import MemoryStore
from collab.storage.webhooks import Delivery
from collab.webhooks.messages import encode_message
from collab.webhooks.signing import encode_public_key
from collab.webhooks.signing import sign as webhook_headers
from tests.auth.makers import pair, write
from tests.docs.asgi import as_aiohttp
from tests.docs.test_node import TAIL, RunNode, node  # noqa: F401
from tests.docs.test_python import run
from tests.support.snippets import snippet

ISSUER = "https://collab.example"
ADDRESS = "https://app.example/collab/access"
BODY = b'{"token":"t","document":"team-a/plan","client_address":"192.0.2.1"}'

ALGORITHMS = ("RS256", "ES256", "EdDSA")


@pytest.fixture(params=ALGORITHMS)
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    return Signer([write(tmp_path / "signing.pem", pair(request.param).private_pem)], ISSUER)


@pytest.fixture
async def published(signer: Signer) -> AsyncIterator[str]:
    """The address at which a server publishes the keys."""
    async with TestServer(create_app(Settings(), signer=signer, store=MemoryStore()), host="127.0.0.1") as server:
        yield str(server.make_url("/.well-known/jwks.json"))


Check = Callable[[str, bytes, str], dict[str, Any]]


@pytest.fixture
def check(published: str, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The function of the page, which later snippets import."""
    text = snippet("docs/security.md", "What the server signs", "python")
    values = run(text.replace("https://collab.example/.well-known/jwks.json", published))
    module = ModuleType("collab_signature")
    vars(module).update(values)
    monkeypatch.setitem(sys.modules, "collab_signature", module)
    found: Check = values["check"]
    return found


def forged(signer: Signer, **changes: Any) -> str:
    """Sign something else with the server's own key; None leaves a claim or a part of the header out."""
    good = jwt.decode(signer.headers(ADDRESS, BODY)[HEADER], options={"verify_signature": False})
    claims = {key: value for key, value in (good | changes).items() if key != "typ" and value is not None}
    key = signer.published[0]
    return sign(claims, signer._keys[0].private, key["alg"], key["kid"], changes.get("typ", TYPE))


def bad(signer: Signer, stranger: Signer) -> dict[str, tuple[str, bytes, str]]:
    """Give what must not pass, each with the reason why not."""
    token = signer.headers(ADDRESS, BODY)[HEADER]
    return {
        "another body": (token, BODY + b" ", ADDRESS),
        "another address": (token, BODY, ADDRESS + "/2"),
        "nothing": ("", BODY, ADDRESS),
        "another key": (stranger.headers(ADDRESS, BODY)[HEADER], BODY, ADDRESS),
        "another issuer": (forged(signer, iss="https://elsewhere.example"), BODY, ADDRESS),
        "another kind": (forged(signer, typ="JWT"), BODY, ADDRESS),
        "long ago": (forged(signer, exp=int(time.time()) - 20), BODY, ADDRESS),
        "no end": (forged(signer, exp=None), BODY, ADDRESS),
        "no body": (forged(signer, request_body_sha256=None), BODY, ADDRESS),
        "not signed": (jwt.encode({"aud": ADDRESS, "iss": ISSUER}, "", algorithm="none"), BODY, ADDRESS),
    }


@pytest.fixture
def stranger(tmp_path: Path) -> Signer:
    return Signer([write(tmp_path / "stranger.pem", pair("ES256", 7).private_pem)], ISSUER)


async def test_what_the_server_signs_passes_the_check_in_python_and_nothing_else(
    check: Check, signer: Signer, stranger: Signer
) -> None:
    claims = await asyncio.to_thread(check, signer.headers(ADDRESS, BODY)[HEADER], BODY, ADDRESS)
    assert claims["iss"] == ISSUER
    for reason, (token, body, address) in bad(signer, stranger).items():
        with pytest.raises(jwt.PyJWTError):
            raise AssertionError(f"{reason}: {await asyncio.to_thread(check, token, body, address)}")


@pytest.mark.node
async def test_the_same_passes_the_check_in_node(
    node: RunNode,  # noqa: F811
    published: str,
    signer: Signer,
    stranger: Signer,
) -> None:
    page = snippet("docs/security.md", "What the server signs", "js")
    cases = [(signer.headers(ADDRESS, BODY)[HEADER], BODY, ADDRESS), *bad(signer, stranger).values()]
    tail = """
const told = []
for (const [signature, body, address] of JSON.parse(process.env.CASES)) {
  const checked = check(signature, Buffer.from(body), address)
  told.push(await checked.then(claims => claims.iss, error => error.code ?? error.message))
}
done(told)
"""
    given = json.dumps([[token, body.decode(), address] for token, body, address in cases])
    page = page.replace("https://collab.example/.well-known/jwks.json", published)
    (line,) = await asyncio.to_thread(node, page, TAIL, tail, environment={"CASES": given})
    passed, *refused = json.loads(line)
    assert passed == ISSUER
    claim = "ERR_JWT_CLAIM_VALIDATION_FAILED"
    assert dict(zip(bad(signer, stranger), refused, strict=True)) == {
        "another body": "signed for another body",
        "another address": claim,
        "nothing": "ERR_JWS_INVALID",
        "another key": "ERR_JWKS_NO_MATCHING_KEY",
        "another issuer": claim,
        "another kind": claim,
        "long ago": "ERR_JWT_EXPIRED",
        "no end": claim,
        "no body": claim,
        "not signed": "ERR_JOSE_ALG_NOT_ALLOWED",
    }


@pytest.mark.node
def test_a_signature_of_standard_webhooks_is_one_to_node(node: RunNode, tmp_path: Path) -> None:  # noqa: F811
    keys = {"keys": [pair("ES256").private_jwk(), pair("EdDSA", 1).private_jwk(), pair("EdDSA", 2).private_jwk()]}
    signer = Signer([write(tmp_path / "keys", keys)], ISSUER)
    # As the specification says it: the text, the base64 of the signature, and the key as whpk_.
    page = """
import { createPublicKey, verify } from 'node:crypto'
const { headers, body, keys } = JSON.parse(process.env.CASE)
const text = Buffer.from(`${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`)
const signatures = headers['webhook-signature'].split(' ').map(one => one.split(',')).filter(([v]) => v === 'v1a')
done(keys.map(key => {
  const x = Buffer.from(key.replace('whpk_', ''), 'base64').toString('base64url')
  const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
  return signatures.map(([, one]) => verify(null, text, publicKey, Buffer.from(one, 'base64')))
}))
"""
    given = {
        "headers": webhook_headers([], "evt_1", int(time.time()), BODY, signer.ed25519),
        "body": BODY.decode(),
        "keys": [encode_public_key(key) for key in signer.ed25519_public],
    }
    (line,) = node(TAIL, page, environment={"CASE": json.dumps(given)})
    assert json.loads(line) == [[True, False], [False, True]]


async def test_the_endpoint_of_fastapi_answers_the_server_alone(
    check: Check, signer: Signer, stranger: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, access = ModuleType("users"), ModuleType("access")
    vars(users)["user_of_session"] = {"session-1": SimpleNamespace(id="17", name="Ada", teams=["team-a"])}.get
    monkeypatch.setitem(sys.modules, "users", users)
    monkeypatch.setitem(sys.modules, "access", access)
    # Its annotations are looked up in its module, as those of a file are.
    exec(snippet("docs/security.md", "Asking the application instead", "python"), vars(access))
    page = snippet("docs/security.md", "What the server signs", "python", 2)
    apps: list[Any] = []

    async def app(*call: Any) -> None:
        await apps[0](*call)

    async with TestServer(as_aiohttp(app)) as server:
        url = str(server.make_url("/collab/access"))
        apps.append(run(page.replace("https://app.example/collab/access", url))["app"])
        for asking, taken in ((signer, True), (stranger, False), (None, False)):
            made = make_authenticator(AuthOptions(auth_url=url), asking)
            assert made is not None
            await made.start()
            try:
                question = AccessRequest("session-1", "team-a/plan", "192.0.2.1")
                if taken:
                    assert (await made.authenticate(question)).user == "17"
                else:
                    with pytest.raises(AccessUnavailable):
                        await made.authenticate(question)
            finally:
                await made.close()


async def test_the_receiver_without_a_secret_takes_what_the_server_sends(
    check: Check, signer: Signer, stranger: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"from": 41, "to": 57, "authors": ["u-17"], "on_behalf_of": [], "more_authors": False}
    message = Delivery(
        1, "app", "evt_1", "document.changed", 12, "d", data, 1796031000.25, 0, 0.0, None, False, None, None
    )
    body = encode_message(message)
    module = run(snippet("docs/webhooks.md", "Signed with the key of the server", "python"))
    address = module["ADDRESS"]
    async with TestServer(module["app"]) as server, ClientSession() as http:
        url = server.make_url("/hooks/collab")
        for asking, status in ((signer, 204), (stranger, 401)):
            headers = asking.headers(address, body, webhook_id="evt_1")
            async with http.post(url, data=body, headers=headers) as response:
                assert response.status == status
        async with http.post(url, data=body) as response:
            assert response.status == 401
    assert capsys.readouterr().out == "evt_1 document.changed d\n"


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines()]


def test_the_commands_make_a_key_that_the_server_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (keygen,) = commands(snippet("docs/security.md", "What the server signs", "sh"))
    assert collab(keygen) == 0
    (serve,) = commands(snippet("docs/security.md", "What the server signs", "sh", 2))
    assert serve[:2] == ["serve", "--signing-keys"] and serve[3:] == ["--signing-issuer", ISSUER]
    made = json.loads(Path("signing.jwks.json").read_text())
    assert Signer([Path(serve[2])], ISSUER).published == made["keys"]
    capsys.readouterr()
    (printed,) = commands(snippet("docs/webhooks.md", "Signed with the key of the server", "sh"))
    Path("signing.jwk").unlink()
    assert collab([part.replace("ES256", "EdDSA") for part in keygen if part != "--out"][:-1] + ["--out", "other"]) == 0
    Path("other.jwk").rename("signing.jwk")
    capsys.readouterr()
    assert collab(printed) == 0
    assert capsys.readouterr().out.startswith("whpk_")
