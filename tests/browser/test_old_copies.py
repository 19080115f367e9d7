"""What a page had before a document was reset: it can be saved as a file before this browser forgets it."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from tests.browser.conftest import OpenWindow
from tests.browser.test_board import NO_PICKERS, ready, write
from tests.browser.test_pages import PHONE, no_serious_finding
from tests.browser.test_reset import call
from tests.browser.window import CONNECTION_LOST, Cable, Window
from tests.support.server import ServerProcess

# Over both protocols. Of rich text the file is HTML: a browser opens it, and what is copied from there pastes whole.
ENDINGS = {"text": "html", "code": "md", "board": "excalidraw"}

OFFLINE_WORK = "Changes that you made while you were offline are only in that copy."


async def add(window: Window, kind: str, word: str, line: int = 0) -> None:
    """Put a word into the document, and wait until it is on the disk of this browser."""
    if kind == "board":
        await write(window, (400, 300 + 100 * line), word)
        # What is listed is in the document, and not only on the canvas.
        await expect(window.page.get_by_role("region", name="What is on the board")).to_contain_text(word)
    else:
        await window.go_to_end()
        await window.type(f"{word}\n")
    await expect(window.page.locator("#status")).to_have_attribute("data-kept", "yes")


async def save(window: Window) -> tuple[str, str]:
    """Save the old copy; give the name of the file, and its text."""
    async with window.page.expect_download() as downloading:
        await window.page.get_by_role("button", name="Save the old copy").click()
    download = await downloading.value
    return download.suggested_filename, (await asyncio.to_thread((await download.path()).read_text, "utf-8"))


async def reset(server: ServerProcess, document: str, *, strict: bool) -> None:
    await call("POST", f"{server.url}/api/v1/reset/{quote(document, safe='')}", strict=strict)


@pytest.mark.parametrize("kind", ENDINGS)
async def test_what_was_edited_offline_can_be_saved_after_a_strict_reset(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    document = f"{kind}/{document}"
    async with Cable(shared_server.port) as cable:
        ada = await open_window(cable.url, document, name="Ada", script=NO_PICKERS)
        if kind == "board":
            await ready(ada)
        await add(ada, kind, "seen")
        await ada.rename_document("My: plan")
        await ada.until_connected()
        await cable.pull_out()
        await ada.until_cut_off()
        await add(ada, kind, "never sent", 1)
        ada.forgive(CONNECTION_LOST)
        await ada.page.close()
        await reset(shared_server, document, strict=True)
        await cable.plug_in()
        back = await open_window(cable.url, document, beside=ada)
        notice = back.page.locator("#old-copy")
        await expect(notice).to_contain_text(OFFLINE_WORK)
        # It waits in this browser until it is saved or discarded.
        await back.page.reload()
        await back.until_connected()
        await expect(notice).to_be_visible()
        await no_serious_finding(back)
        name, text = await save(back)
        assert name == f"My  plan (old copy).{ENDINGS[kind]}"
        assert "seen" in text and "never sent" in text
        if kind == "board":
            assert [each["text"] for each in json.loads(text)["elements"]] == ["seen", "never sent"]
        await expect(notice).to_be_hidden()
        await back.page.close()


@pytest.mark.parametrize("kind", ["text", "code"])
async def test_who_has_the_document_open_sees_the_notice_and_undo_brings_nothing_back(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    document = f"{kind}/{document}"
    ada = await open_window(shared_server.url, document, name="Ada", **PHONE)
    notice = ada.page.locator("#old-copy")
    await ada.rename_document("Plan")
    await ada.until_connected()
    await reset(shared_server, document, strict=False)
    await expect(ada.page.locator("#title")).not_to_have_value("Plan")
    await add(ada, kind, "written")
    await add(ada, kind, "taken away")
    for _ in "taken away\n":
        await ada.page.keyboard.press("Backspace")
    await ada.until_connected()
    # The first reset has taken away no text.
    await expect(notice).to_be_hidden()
    await reset(shared_server, document, strict=False)
    await expect(notice).to_contain_text("This document was reset")
    await ada.until_text(lambda text: "written" not in text, "the reset")
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert await ada.page.evaluate(fits)
    await ada.go_to_end()
    await ada.page.keyboard.press("Control+z")
    await ada.type("new")
    await ada.until_connected()
    grace = await open_window(shared_server.url, document, name="Grace")
    for window in (ada, grace):
        await window.until_text(lambda text: text.strip() == "new", "nothing but what was typed after the reset")
    await expect(grace.page.locator("#old-copy")).to_be_hidden()
    await ada.page.get_by_role("button", name="Discard it").click()
    await expect(notice).to_be_hidden()
    await ada.page.reload()
    await ada.until_connected()
    await expect(notice).to_be_hidden()
