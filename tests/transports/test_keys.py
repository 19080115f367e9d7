"""The keys that the server publishes: anybody may read them, and there is nothing private among them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from collab.auth.signing import BODY_HASH, HEADER
from collab.transports.http.api.keys import KEPT_SECONDS
from tests.auth.makers import pair, write
from tests.auth.test_signing import ALGORITHMS, PUBLIC
from tests.support.api import told
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.transports.conftest import Serve
from tests.transports.test_guard import ADA, BOB, PROXY

PATH = "/.well-known/jwks.json"


@pytest.mark.parametrize("prefix", ["", "/below"])
async def test_all_keys_are_published_without_a_token(
    serve: Serve, session: aiohttp.ClientSession, tmp_path: Path, prefix: str
) -> None:
    files = tuple(write(tmp_path / name, pair(name).private_pem) for name in ALGORITHMS)
    served = await serve(prefix, jwt_secret="s" * 32, signing_keys=files)
    async with session.get(served.url + PATH) as response:
        found = await told(response)
        assert (response.status, response.content_type) == (200, "application/json")
        assert response.headers["Cache-Control"] == f"public, max-age={KEPT_SECONDS}"
    assert {key["alg"]: key.keys() for key in found["keys"]} == PUBLIC
    for name in ALGORITHMS:
        assert pair(name).private_jwk()["d"] not in json.dumps(found)
    assert [key.algorithm_name for key in jwt.PyJWKSet.from_dict(found).keys] == list(ALGORITHMS)
    async with session.head(served.url + PATH) as response:
        assert response.status == 200 and await response.read() == b""


async def test_a_server_that_signs_nothing_publishes_nothing(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve()
    async with session.get(served.url + PATH) as response:
        assert (response.status, await told(response)) == (200, {"keys": []})
    async with session.post(served.url + PATH) as response:
        assert response.status == 405 and response.headers["Allow"] == "GET, HEAD"
        assert (await response.json())["code"] == "method_not_allowed"
    async with session.get(f"{served.url}{PATH}?kid=x") as response:
        assert response.status == 400


async def test_the_keys_are_limited_as_every_request(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(**PROXY, jwt_secret="s" * 32, max_requests_per_second=0.1)  # one at once
    statuses = []
    for address in (ADA, ADA, BOB):
        async with session.get(served.url + PATH, headers={"X-Forwarded-For": address}) as response:
            statuses.append(response.status)
    assert statuses == [200, 429, 200]


class Application:
    """An application that is asked about access, and checks with the keys that it has fetched last.

    Attributes:
        keys: those.
        signed_by: which of them have signed the questions so far.
    """

    def __init__(self) -> None:
        self.keys = jwt.PyJWKSet.from_dict({"keys": [pair("ES256", 9).jwk("none of them")]})
        self.signed_by: list[str] = []
        app = web.Application()
        app.router.add_post("/access", self._answer)
        self._server = TestServer(app, host="127.0.0.1")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with self._server:
            yield str(self._server.make_url("/access"))

    async def _answer(self, request: web.Request) -> web.Response:
        token = request.headers[HEADER]
        kid = jwt.get_unverified_header(token)["kid"]
        key = self.keys[kid]
        claims = jwt.decode(token, key, [key.algorithm_name], audience=str(request.url), issuer="collab")
        assert claims[BODY_HASH] == hashlib.sha256(await request.read()).hexdigest()
        self.signed_by.append(kid)
        return web.json_response({"user": "17", "access": "write", "expires_in": 60})


@pytest.mark.server
async def test_a_key_is_changed_step_by_step_and_everything_can_be_checked_meanwhile(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    old, new = (pair(name).private_jwk() for name in ("RS256", "EdDSA"))
    application, path = Application(), write(tmp_path / "keys.json", {"keys": [old]})
    reloads = 0

    async with (
        application.serving() as url,
        ServerProcess(tmp_path / "data", "--auth-url", url, "--signing-keys", str(path)) as server,
    ):

        async def published() -> list[str]:
            async with session.get(server.url + PATH) as response:
                found = await response.json()
            application.keys = jwt.PyJWKSet.from_dict(found)
            return [key["kid"] for key in found["keys"]]

        async def signer() -> str:
            """Say who signs a question that nobody has asked before; the application must be able to check it."""
            token = {"Authorization": f"Bearer {len(application.signed_by)}"}
            async with session.get(f"{server.url}/api/v1/presence/d", headers=token) as response:
                assert response.status == 200, await response.text()
            return application.signed_by[-1]

        async def change(content: dict[str, Any], said: str = "the signing keys are read again") -> None:
            nonlocal reloads
            reloads += 1
            write(path, content)
            os.kill(server.pid, signal.SIGHUP)

            def lines() -> list[str]:
                return [line for line in server.log_lines if "SIGHUP: " in line]

            await happens(lambda: len(lines()) == reloads, "the word about the keys")
            assert said in lines()[-1]

        (first,) = await published()
        assert await signer() == first
        await change({"keys": [old, new]})
        assert await signer() == first, "the new one is published and does not sign yet"
        (_, second) = await published()
        await change({"keys": [new, old]})
        assert await signer() == second, "who has fetched the set once since then can check it"
        await change({"keys": [pair("EdDSA").jwk()]}, "the signing keys stay as they were")
        assert await signer() == second and set(await published()) == {first, second}
        await change({"keys": [new]})
        assert await signer() == second and await published() == [second]
