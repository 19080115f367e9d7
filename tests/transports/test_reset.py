"""``/api/v1/reset``: who may, what is refused, and what clients see."""

from __future__ import annotations

import base64
from typing import Any

import aiohttp

from collab.auth.access import AccessRequest, Grant
from collab.protocol.session import Access as AccessKind
from tests.support.api import told
from tests.support.wsclient import LiveClient, text_update
from tests.transports.conftest import Serve, Served
from tests.transports.test_description import Anybody


async def reset(session: aiohttp.ClientSession, served: Served, name: str, **body: Any) -> tuple[int, Any]:
    async with session.post(f"{served.url}/api/v1/reset/{name}", json=body) as response:
        return response.status, await told(response)


def base64_of(update: bytes) -> str:
    return base64.b64encode(update).decode()


async def test_a_document_is_reset_while_somebody_has_it_open(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve()
    async with LiveClient(served.ws("a/b")) as client:
        await client.until_synced()
        client.text().insert(0, "before")
        await client.barrier()
        content = base64_of(text_update(7, "after"))
        assert await reset(session, served, "a%2Fb", update=content) == (200, {"reset": 1})
        await client.until(lambda: str(client.text()) == "after", "the new content")
        client.text().insert(0, "typed ")
        await client.barrier()
        assert await reset(session, served, "a/b", strict=True) == (200, {"reset": 2})
        await client.until(lambda: str(client.text()) == "", "no content")


async def test_what_is_refused(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve()
    assert (await reset(session, served, "none"))[0] == 404
    assert (await reset(session, served, "none", update="§"))[0] == 400
    assert (await reset(session, served, "none", update=base64_of(b"\1\1")))[0] == 400
    assert (await reset(session, served, "none", other=1))[0] == 400
    async with session.post(f"{served.url}/api/v1/documents", json={"name": "d"}) as response:
        assert response.status == 201
    async with session.delete(f"{served.url}/api/v1/documents/d") as response:
        assert response.status == 204
    assert (await reset(session, served, "d"))[0] == 410


class Access(Anybody):
    """Lets everybody write, too."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        return Grant(AccessKind.WRITE, "u-2") if request.token == "write" else await super().authenticate(request)


async def test_it_takes_admin_of_the_document(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(authenticator=Access())
    assert (await reset(session, served, "d?token=write"))[0] == 403
    assert (await reset(session, served, "d"))[0] == 401
    assert (await reset(session, served, "d?token=admin"))[0] == 404
