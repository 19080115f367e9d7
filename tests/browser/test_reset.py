"""Copies in a real browser's own storage, which come back after a document was reset, or deleted and created again."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from playwright.async_api import expect

from tests.browser.conftest import OpenWindow
from tests.browser.window import Window
from tests.support.server import ServerProcess


@pytest.fixture(params=["text", "code"])
def document(document: str, request: pytest.FixtureRequest) -> str:
    """Rich text over the Hocuspocus provider, below the root; code over y-websocket, in a root text."""
    return f"{request.param}/{document}"


async def call(method: str, url: str, **body: Any) -> None:
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body or None) as response:
        assert response.status < 300, (url, response.status, await response.text())


async def has(window: Window, *present: str, absent: str) -> None:
    def accept(text: str) -> bool:
        return all(word in text for word in present) and absent not in text

    await window.until_text(accept, f"{present} and no {absent!r}")


@pytest.mark.parametrize("again", [False, True], ids=["reset", "created again"])
async def test_a_local_copy_brings_nothing_back_that_the_server_had(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, again: bool
) -> None:
    address = f"{shared_server.url}/api/v1"
    name = quote(document, safe="")
    closed = await open_window(shared_server.url, document, name="Ada")
    await closed.go_to_end()
    await closed.type("seen by the server\n")
    await expect(closed.page.locator("#status")).to_have_attribute("data-kept", "yes")
    online = await open_window(shared_server.url, document, name="Grace")
    await has(online, "seen by the server", absent="typed")
    await closed.page.close()
    if again:
        await call("DELETE", f"{address}/documents/{name}")
        await online.page.close()
        await call("POST", f"{address}/documents", name=document)
        online = await open_window(shared_server.url, document, name="Grace")
    else:
        await call("POST", f"{address}/reset/{name}", strict=False)
    await has(online, absent="seen")
    await online.go_to_end()
    await online.type("typed after it\n")
    # The old copy is on the disk of this window's browser.
    back = await open_window(shared_server.url, document, beside=closed)
    await has(back, "typed after it", absent="seen")
    await back.go_to_end()
    await back.type("typed by who came back\n")
    newcomer = await open_window(shared_server.url, document, name="Alan")
    for window in (online, back, newcomer):
        await has(window, "typed after it", "typed by who came back", absent="seen")
    shown = await asyncio.gather(*(window.text() for window in (online, back, newcomer)))
    assert len(set(shown)) == 1
    # What is on the disk by now says the same.
    await expect(back.page.locator("#status")).to_have_attribute("data-kept", "yes")
    await back.page.close()
    last = await open_window(shared_server.url, document, beside=closed)
    await has(last, "typed after it", "typed by who came back", absent="seen")
