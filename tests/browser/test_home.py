"""The home page in a real browser: what there is, who is in it, and what one can do with it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.async_api import Locator, expect

from tests.browser.conftest import OpenWindow
from tests.browser.window import CONNECTION_LOST, Window, until
from tests.support.server import ServerProcess


def row(window: Window, document: str) -> Locator:
    return window.page.locator(f'li[data-name="{document}"]')


async def listed(window: Window, server: ServerProcess) -> dict[str, str | None]:
    response = await window.page.request.get(f"{server.url}/api/v1/documents?limit=1000")
    return {one["name"]: one["title"] for one in (await response.json())["documents"]}


@pytest.mark.parametrize(("kind", "label"), [("text", "New rich text"), ("code", "New code")])
async def test_a_new_document_is_one_click_away_and_listed_with_its_first_edit(
    shared_server: ServerProcess, open_window: OpenWindow, kind: str, label: str
) -> None:
    home = await open_window(shared_server.url)
    ada = await open_window(shared_server.url, name="Ada")
    await ada.page.get_by_role("link", name=label).click()
    await ada.page.wait_for_selector("#editor")
    (name,) = parse_qs(urlsplit(ada.page.url).query)["doc"]
    assert re.fullmatch(rf"{kind}/[a-z]+-[a-z]+-\d{{6}}", name)
    assert name not in await listed(ada, shared_server)
    await ada.go_to_end()
    await ada.type("hello")
    await ada.rename_document("Ada's plans")
    shown = row(home, name)
    await expect(shown.get_by_role("link")).to_have_text("Ada's plans")
    await expect(shown.locator(".faces")).to_contain_text("Ada is in there now")
    await expect(shown.locator("time")).to_have_text("just now")
    await shown.get_by_role("link").click()
    await home.page.wait_for_selector("#editor")
    await home.until_text(lambda text: text == "hello", "Ada's text")


@pytest.mark.parametrize(("kind", "label"), [("text", "New rich text"), ("code", "New code")])
async def test_the_first_words_go_into_a_new_document(
    shared_server: ServerProcess, open_window: OpenWindow, kind: str, label: str
) -> None:
    window = await open_window(shared_server.url)
    await window.page.get_by_role("link", name=label).click()
    await expect(window.page.locator("#editor")).to_be_focused()
    await window.type("first words")
    assert await window.text() == "first words"
    # It is new once: whoever follows the address, or reloads, is left where he is.
    assert urlsplit(window.page.url).fragment == ""
    window.document = f"{kind}/"
    await window.until_connected()
    await window.page.reload()
    await window.until_text(lambda text: text == "first words", "the text after the reload")
    await expect(window.page.locator("#editor")).not_to_be_focused()


async def test_a_rename_at_home_is_an_edit_of_the_document(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    name = f"text/{document}"
    ada = await open_window(shared_server.url, name)
    await ada.go_to_end()
    await ada.type("x")
    await ada.until_status("Saved")
    home = await open_window(shared_server.url)
    await row(home, name).get_by_role("button", name="Rename").click()
    field = row(home, name).get_by_role("textbox", name="New title")
    await field.fill("Renamed at home")
    await field.press("Enter")
    await expect(ada.page.locator("#title")).to_have_value("Renamed at home")
    await expect(row(home, name).get_by_role("link")).to_have_text("Renamed at home")

    async def told() -> bool:
        return (await listed(home, shared_server))[name] == "Renamed at home"

    await until(told, "the title in the listing")
    await home.page.locator("#filter").fill("at HOME")
    await expect(home.page.locator("#documents > li")).to_have_count(1)
    await home.page.locator("#filter").fill("nothing of the kind")
    await expect(home.page.locator("#message")).to_have_text("Nothing is called that")


async def test_a_delete_can_be_undone_and_is_sent_at_the_latest_when_the_page_is_left(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    name = f"code/{document}"
    ada = await open_window(shared_server.url, name)
    await ada.go_to_end()
    await ada.type("precious")
    await ada.until_status("Synced")
    home = await open_window(shared_server.url)
    await row(home, name).get_by_role("button", name="Delete").click()
    await expect(row(home, name)).to_have_count(0)
    await home.page.get_by_role("button", name="Undo").click()
    await expect(row(home, name).get_by_role("link")).to_be_focused()
    assert name in await listed(home, shared_server)
    await ada.type(" still")
    await ada.until_status("Synced")
    await row(home, name).get_by_role("button", name="Delete").click()
    await expect(row(home, name)).to_have_count(0)
    await home.page.goto("about:blank")
    await ada.until_status("Deleted")
    await expect(ada.page.locator("#refused")).to_contain_text("This document was deleted.")

    async def gone() -> bool:
        return name not in await listed(ada, shared_server)

    await until(gone, "the delete")


async def test_home_says_when_the_server_is_away_and_comes_back_by_itself(
    own_server: ServerProcess, open_window: OpenWindow
) -> None:
    home = await open_window(own_server.url)
    await expect(home.page.locator("#message")).to_have_text(re.compile("Nothing here yet"))
    await own_server.akill()
    await expect(home.page.locator("#message")).to_have_text(re.compile("cannot be reached"), timeout=15_000)
    await own_server.arestart()
    await expect(home.page.locator("#message")).to_have_text(re.compile("Nothing here yet"), timeout=15_000)
    home.forgive(re.compile("ERR_CONNECTION"))


@pytest.mark.parametrize("kind", ["text/", "code/"])
async def test_a_deleted_document_can_be_brought_back_and_copied(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    name = kind + document
    ada = await open_window(shared_server.url, name, name="Ada")
    await ada.go_to_end()
    await ada.type("precious")
    await ada.rename_document("Plans")
    await ada.until_status(ada.saved)
    grace = await open_window(shared_server.url, name, name="Grace")

    async def delete() -> None:
        # The title is copied to the listing first: who does that late finds no document.
        await until(told, "the title in the listing")
        response = await ada.page.request.delete(f"{shared_server.url}/api/v1/documents/{quote(name)}")
        assert response.status == 204
        for window in (ada, grace):
            await window.until_status("Deleted")

    async def told() -> bool:
        return (await listed(ada, shared_server)).get(name) == "Plans"

    await grace.until_text(lambda text: text == "precious", "Ada's text")
    await delete()
    await ada.page.get_by_role("button", name="Bring it back").click()
    await ada.until_connected()
    await expect(ada.page.locator("#refused")).to_be_hidden()
    # Somebody else was as quick: one document comes of it, and both go on in it.
    await grace.page.get_by_role("button", name="Bring it back").click()
    await grace.until_connected()
    grace.forgive(re.compile("status of 40[49]"))  # nothing is in the trash any more, and the document is there
    await ada.go_to_end()
    await ada.type("!")
    await grace.until_text(lambda text: text == "precious!", "what was written after it")
    await delete()
    await grace.page.get_by_role("button", name="Go on in a copy").click()
    await grace.page.wait_for_url(lambda url: parse_qs(urlsplit(url).query)["doc"] != [name])
    await grace.until_connected()
    await grace.until_text(lambda text: text == "precious!", "the copy")
    await expect(grace.page.locator("#title")).to_have_value("Copy of Plans")
    assert name not in await listed(ada, shared_server)


async def test_what_the_server_does_not_keep_is_made_anew_of_what_the_page_has(
    page_is_built: None, tmp_path: Path, open_window: OpenWindow, document: str
) -> None:
    name = f"text/{document}"
    with ServerProcess(tmp_path, "--trash-days", "0") as server:
        ada = await open_window(server.url, name, name="Ada")
        await ada.go_to_end()
        await ada.type("precious")
        await ada.until_status(ada.saved)
        response = await ada.page.request.delete(f"{server.url}/api/v1/documents/{quote(name)}")
        assert response.status == 204
        await ada.until_status("Deleted")
        await ada.page.get_by_role("button", name="Bring it back").click()
        ada.forgive(re.compile("status of 404"))
        await ada.until_connected()
        await ada.until_text(lambda text: text == "precious", "what was there")
        # Others see it too, and it can be written on.
        grace = await open_window(server.url, name, name="Grace")
        await grace.until_text(lambda text: text == "precious", "Ada's text")
        await ada.go_to_end()
        await ada.type("!")
        await grace.until_text(lambda text: text == "precious!", "what was written after it")
        for window in (ada, grace):
            window.forgive(CONNECTION_LOST)  # the server goes before the pages
