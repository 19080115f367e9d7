"""The one rule for document names at every door of a running server.

Each door refuses what is no name for the same reason; the rule itself is tested in tests/protocol/test_names.py, the
door of the command line in tests/test_cli.py.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import aiohttp
import pytest

from collab.app import HUB
from tests.protocol.test_names import NAMES, NO_NAMES, WITH_NUL
from tests.support.hocuspocus import RawHocuspocus, auth
from tests.support.wsclient import RawClient, step1
from tests.transports.conftest import Serve, Served

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]

REFUSED = {**NO_NAMES, **WITH_NUL}


async def ask(served: Served, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, served.url + path, data=body, headers={"Content-Type": "application/json"} if body else None
        ) as response,
    ):
        text = await response.text()
        return response.status, json.loads(text)["detail"] if response.status >= 400 else ""


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_no_name_is_refused_at_every_door_for_the_same_reason(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus, what: str
) -> None:
    served = await serve()
    raw, reason = REFUSED[what]
    path = quote(raw, safe="")
    plain = await connect(served.ws(path))
    assert (await plain.expect_close(), plain.close_reason) == (4400, reason)
    if path:  # without a name it is the address of the listing
        for method, body in (("GET", None), ("PATCH", b'{"title": "x"}'), ("DELETE", None)):
            status = await ask(served, method, f"/api/v1/documents/{path}", body)
            assert status == (400, reason), method
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = "\ud83d"  # what JSON can hold that is not UTF-8: such a body cannot be read
        reason = "the body is not as described: Invalid JSON: unexpected end of hex escape at line 1 column 17"
    else:
        if b"\0" not in raw:  # which ends a name there
            client = await connect_hocuspocus(served.hocuspocus)
            await client.send(auth(raw))
            assert await client.denied(name) == reason
            assert client.close_code is None
    assert await ask(served, "POST", "/api/v1/documents", json.dumps({"name": name}).encode()) == (400, reason)
    assert not served.app[HUB].rooms


@pytest.mark.parametrize("what", NAMES)
async def test_a_name_is_the_same_document_at_every_door(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus, what: str
) -> None:
    served = await serve()
    raw = NAMES[what]
    name, path = raw.decode(), quote(raw, safe="")
    assert await ask(served, "POST", "/api/v1/documents", json.dumps({"name": name}).encode()) == (201, "")
    assert (await ask(served, "GET", f"/api/v1/documents/{path}"))[0] == 200
    plain = await connect(served.ws(path))
    await plain.send(step1())
    await plain.expect_sync(1)
    client = await connect_hocuspocus(served.hocuspocus)
    await client.join(name)
    assert list(served.app[HUB].rooms) == [name]
    assert (await ask(served, "DELETE", f"/api/v1/documents/{path}"))[0] == 204
    assert await plain.expect_close() == 4404
