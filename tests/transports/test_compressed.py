"""Bodies that are compressed: no address unpacks one, however small it is."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.auth.makers import SECRET, signed
from tests.support.api import description, told
from tests.support.server import ServerProcess
from tests.transports.conftest import Serve

BOMB = gzip.compress(bytes(10_000_000))


def address(path: str, operation: dict[str, Any]) -> str:
    """Give an address of an operation, with what it must have in its query."""
    needed = [one for one in operation["parameters"] if one["in"] == "query" and one["required"]]
    values = {one["name"]: 1 if one["schema"]["type"] == "integer" else "a" for one in needed}
    return path.replace("{name}", "d") + "?" + urlencode(values)


WITH_BODY = [
    (method.upper(), address(path, operation), media)
    for path, operations in description()["paths"].items()
    for method, operation in operations.items()
    if "requestBody" in operation
    for media in operation["requestBody"]["content"]
]


@pytest.mark.parametrize(("method", "path", "media"), WITH_BODY)
async def test_no_address_of_the_api_takes_one(
    serve: Serve, session: aiohttp.ClientSession, method: str, path: str, media: str
) -> None:
    served = await serve(jwt_secret=SECRET)
    token = {"Authorization": f"Bearer {signed(documents={'*': 'admin'}, exp=int(time.time()) + 60)}"}
    async with session.post(f"{served.url}/api/v1/documents", json={"name": "d"}, headers=token) as response:
        assert response.status == 201
    for encoding in ("gzip", "GZIP", "compress"):
        headers = {"Content-Type": media, "Content-Encoding": encoding, **token}
        async with session.request(method, served.url + path, data=BOMB, headers=headers) as response:
            assert (response.status, await told(response)) == (415, "a body that is compressed is not taken"), encoding
            assert response.headers["Connection"] == "close"


@pytest.mark.parametrize("query", ["", "?awareness=default"])
async def test_no_stream_takes_one(serve: Serve, session: aiohttp.ClientSession, query: str) -> None:
    served = await serve()
    url = f"{served.url}/streams/docs/d"
    headers = {"Content-Type": "application/octet-stream"}
    async with session.put(url, headers=headers) as response:
        assert response.status == 201
    async with session.post(url + query, data=BOMB, headers=headers | {"Content-Encoding": "gzip"}) as response:
        # By the protocol of streams a content type that is not theirs is a conflict.
        assert response.status == 409 and "is compressed" in await response.text()


@pytest.mark.server
async def test_the_server_unpacks_nothing(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    body = gzip.compress(json.dumps({"name": "d"}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with ServerProcess(tmp_path) as server:
        async with session.post(f"{server.url}/api/v1/documents", data=body, headers=headers) as response:
            assert response.status == 415
        async with session.post(f"{server.url}/api/v1/documents", json={"name": "d"}) as response:
            assert response.status == 201
