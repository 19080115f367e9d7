"""The keys that the server publishes: anybody may read them, and there is nothing private among them."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import jwt
import pytest

from collab.transports.http.api.keys import KEPT_SECONDS
from tests.auth.makers import pair, write
from tests.auth.test_signing import ALGORITHMS, PUBLIC
from tests.support.api import told
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
