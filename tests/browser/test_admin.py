"""The admin page in a real browser: figures that live, a document from inside, actions that ask first, no way in
without a token that is admin of all, and no memory that grows."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenWindow
from tests.browser.test_pages import DESK, PHONE, no_serious_finding
from tests.browser.test_tokens import token
from tests.browser.window import CONNECTION_LOST, PATIENCE, Window, until
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient

# A server may have nothing behind a tab: it is asked once, which the browser logs.
NOT_OFFERED = re.compile("status of (404|422)")
# Markup, a mark that turns the direction of what follows, and more letters than any column has room for.
HOSTILE = "<img src=x onerror=window.caught=true>\u202egnp." + "long" * 60

# The pauses of the page are so much shorter, but for those in which it waits for an answer: hundreds of updates within
# seconds.
HURRY = """{
    const slow = setTimeout
    window.setTimeout = (act, time = 0, ...rest) => slow(act, time < 12_000 ? time / 25 : time, ...rest)
}"""


async def open_admin(open_window: OpenWindow, server: ServerProcess, query: str = "", **options: Any) -> Window:
    window = await open_window(server.url, path=f"admin{query}", connected=False, **options)
    window.forgive(NOT_OFFERED)
    return window


async def inspect(open_window: OpenWindow, server: ServerProcess, document: str) -> Window:
    return await open_admin(open_window, server, f"?doc={quote(document, safe='')}")


def row(window: Window, table: str, text: str) -> Locator:
    return window.page.get_by_role("region", name=table, exact=True).locator("tbody tr").filter(has_text=text)


def dialog(window: Window) -> Locator:
    return window.page.get_by_role("dialog")


async def written(server: ServerProcess, document: str, text: str = "hello") -> LiveClient:
    """Give a client that has written a document and stays on it."""
    client = await (await LiveClient(server.document_url(document)).connect()).until_synced()
    client.text().insert(0, text)
    return client


async def test_figures_come_alive_and_what_costs_the_most_is_named(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    client = await written(shared_server, document)
    try:
        admin = await open_admin(open_window, shared_server)
        page = admin.page
        await expect(page.locator("#health")).to_have_text("Ready", timeout=PATIENCE * 1000)
        edits = page.locator(".plot", has_text="Edits").locator(".plot-now")

        async def counted() -> bool:
            client.text().insert(0, "x")
            return await edits.text_content() not in ("–", "0/s", None)

        await until(counted, "a rate of edits")
        line = page.locator(".plot", has_text="Connections").locator(".plot-line")
        await expect(line).to_have_attribute("d", re.compile(r"^M[\d.]+ [\d.]+"))
        await expect(row(admin, "Busiest documents", document)).to_be_visible()
        # The time goes on; screen readers are not told of each second.
        before = await page.locator("#live").text_content()
        await expect(page.locator("#live")).not_to_have_text(before or "")
        await expect(page.locator("body > [role=status].spoken")).to_have_text("")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#live")).to_contain_text("Paused")
    finally:
        await client.close()


async def test_the_largest_stored_documents_are_named_by_their_size(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    large, small = await written(shared_server, document, "x" * 9_000_000), await written(shared_server, f"{document}2")
    try:
        for client in (large, small):
            await client.barrier()
        admin = await open_admin(open_window, shared_server)
        first = admin.page.get_by_role("region", name="Largest documents", exact=True).locator("tbody tr").first
        await expect(first).to_contain_text(document, timeout=PATIENCE * 1000)
        await expect(first).to_contain_text("8.6 MiB")
        await admin.page.get_by_role("link", name="All that are stored, by size").click()
        stored = admin.page.get_by_role("region", name="Stored documents", exact=True).locator("tbody tr")
        await expect(stored.first).to_contain_text(document, timeout=PATIENCE * 1000)
        await expect(admin.page.get_by_label("Order")).to_have_value("size")
        await expect(row(admin, "Stored documents", f"{document}2")).to_be_visible()
    finally:
        await large.close()
        await small.close()


async def test_inspect_shows_an_edit_as_it_happens(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    name = f"code/{document}{HOSTILE}"
    ada = await open_window(shared_server.url, name, name=HOSTILE)
    await ada.go_to_end()
    await ada.type("first words")
    await ada.until_connected()
    # The page of a document leads there, where everybody is an admin.
    link = ada.page.get_by_role("link", name="Inspect")
    await expect(link).to_have_attribute("href", re.compile(r"/admin\?doc="), timeout=PATIENCE * 1000)
    admin = await open_admin(open_window, shared_server, (await link.get_attribute("href") or "").partition("admin")[2])
    page = admin.page
    tree = page.get_by_role("region", name="Content", exact=True)
    await expect(tree).to_contain_text("first words", timeout=PATIENCE * 1000)
    await expect(tree).to_contain_text("codemirror")
    await ada.type(" <b>and more</b>")
    await expect(tree).to_contain_text("first words <b>and more</b>")
    # Of a long text its end is seen, too.
    await ada.page.keyboard.insert_text("long " * 200 + "the end")
    await expect(tree).to_contain_text("the end")
    await expect(page.locator("#last-change")).to_contain_text("by client")
    newest = page.get_by_role("region", name="Updates, the newest first").locator("tbody tr").first
    await expect(newest.locator("q")).to_have_text(re.compile(r"\S"))
    await expect(newest).to_contain_text("character")
    await expect(row(admin, "Participants", "y-websocket")).not_to_have_count(0)
    await expect(row(admin, "On the servers", "in memory")).to_have_count(1)
    # What others have chosen is shown, and does nothing.
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_contain_text("<img src=x onerror=window.caught=true>\\u{202e}gnp.")
    assert await page.evaluate("[window.caught, document.querySelectorAll('main img, main b').length]") == [None, 0]
    assert await page.evaluate("document.documentElement.scrollWidth") <= 1280
    # This window is not among the people, and has changed nothing.
    await ada.until_others()
    await ada.until_connected()


async def test_a_kick_asks_first_and_ends_one_connection(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    client = await written(shared_server, document)
    try:
        admin = await open_admin(open_window, shared_server, f"?view=connections&search={quote(document)}")
        page = admin.page
        found = row(admin, "Connections", document)
        await expect(found).to_have_count(1, timeout=PATIENCE * 1000)
        kick = found.get_by_role("button", name=re.compile("^Kick connection"))
        identifier = (await kick.get_attribute("aria-label") or "").split()[-1]
        await kick.click()
        await expect(dialog(admin)).to_contain_text(identifier)
        await expect(dialog(admin).get_by_role("button", name="Cancel")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(kick).to_be_focused()
        assert client.close_code is None
        await kick.press("Enter")
        await dialog(admin).get_by_role("button", name="Kick").click()
        await expect(dialog(admin)).to_have_count(0)
        await expect(page.locator(".toast")).to_contain_text("1 session ended")
        assert await client.expect_close() == 4503
        # The row stays where it was as long as the keyboard is in it.
        await expect(found).to_have_class("gone")
        await page.locator("h1").click()
        await expect(found).to_have_count(0)
    finally:
        await client.close()


async def test_a_document_is_closed_for_some_time_deleted_by_its_name_and_restored(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, f"text/{document}")
    await ada.go_to_end()
    await ada.type("precious")
    await ada.until_connected()
    admin = await inspect(open_window, shared_server, f"text/{document}")
    page = admin.page
    doings = page.get_by_role("group", name="Actions on this document")

    async def do(label: str) -> None:
        await doings.get_by_role("button", name=label, exact=True).click()
        await expect(dialog(admin).locator("#dialog-object")).to_have_text(f"text/{document}")
        await dialog(admin).get_by_role("button", name=label, exact=True).click()
        await expect(dialog(admin)).to_have_count(0)

    await do("Verify")
    await expect(page.locator("#result")).to_contain_text("Whole:")
    await do("Compact")
    await expect(page.get_by_role("region", name="Snapshots").locator("tbody tr")).to_have_count(1)
    await do("Quarantine")
    await expect(row(admin, "On the servers", "quarantine")).to_have_count(1)
    await ada.until_cut_off()
    await do("Release")
    # Meanwhile its page has tried plain HTTP, too, and may go on that way for a moment.
    await expect(ada.page.locator("#status")).to_have_attribute("data-state", "saved", timeout=PATIENCE * 1000)
    await doings.get_by_role("button", name="Delete").click()
    delete = dialog(admin).get_by_role("button", name="Delete")
    field = dialog(admin).get_by_role("textbox", name="Type the name to go on")
    await expect(field).to_be_focused()
    await field.fill("text/another")
    await field.press("Enter")
    await expect(delete).to_be_disabled()
    await field.fill(f"text/{document}")
    await delete.click()
    await ada.until_status("Deleted")
    await expect(page.locator("#missing")).to_contain_text("This document was deleted.")
    await page.get_by_role("link", name="the trash").click()
    await row(admin, "Deleted documents", document).get_by_role("button", name="Restore").click()
    await dialog(admin).get_by_role("button", name="Restore").click()
    await page.locator("h1").click()
    await expect(row(admin, "Deleted documents", document)).to_have_count(0)
    client = await (await LiveClient(shared_server.document_url(f"text/{document}")).connect()).until_synced()
    await client.close()
    admin.forgive(re.compile("status of 4(10|29)"), CONNECTION_LOST)
    ada.forgive(re.compile("status of (404|429)"), CONNECTION_LOST)


async def test_who_is_no_admin_of_all_sees_a_field_for_a_token_and_nothing_else(
    signed_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    client = LiveClient(f"{signed_server.document_url(document)}?token={token()}")
    await (await client.connect()).until_synced()
    client.text().insert(0, "secret")
    try:
        for shown in ("", "#token=wrong", f"#token={token(access='write')}"):
            admin = await open_admin(open_window, signed_server, f"?view=documents&where=stored{shown}")
            page = admin.page
            admin.forgive(re.compile("status of 40[13]"))
            await expect(page.locator("#refused")).to_be_visible(timeout=PATIENCE * 1000)
            await expect(page.locator("main table, nav a:visible, .find:visible")).to_have_count(0)
            assert document not in (await page.locator("body").text_content() or "")
        field = page.get_by_role("textbox", name="Token")
        await expect(field).to_be_focused()
        await no_serious_finding(admin)
        await field.fill(token("Root", "admin"))
        await field.press("Enter")
        await expect(row(admin, "Stored documents", document)).to_have_count(1, timeout=PATIENCE * 1000)
        assert "token" not in page.url
        await page.get_by_role("button", name="Forget the token").click()
        await expect(page.locator("#refused")).to_have_text("The token is forgotten.")
        assert document not in (await page.locator("body").text_content() or "")
        await page.reload()
        await expect(page.locator("#refused")).to_be_visible(timeout=PATIENCE * 1000)
    finally:
        await client.close()


@pytest.mark.parametrize(("device", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk-light", "phone-dark"])
async def test_axe_finds_nothing_serious_on_any_view(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, device: dict[str, Any], scheme: str
) -> None:
    name = f"{document}{HOSTILE}"
    client = await written(shared_server, name)
    try:
        admin = await open_admin(open_window, shared_server, color_scheme=scheme, **device)
        page = admin.page
        await expect(row(admin, "Busiest documents", document)).to_be_visible(timeout=PATIENCE * 1000)
        await page.get_by_text("All figures").click()

        async def judge() -> None:
            await no_serious_finding(admin)
            assert await page.evaluate("document.documentElement.scrollWidth") <= device["viewport"]["width"]

        await judge()
        tabs = page.get_by_role("navigation", name="Views").get_by_role("link")
        labels = await tabs.all_text_contents()
        assert {"Overview", "Documents", "Connections", "Webhooks", "Limits"} <= set(labels)
        for label in labels[1:]:
            await page.get_by_role("navigation", name="Views").get_by_role("link", name=label).click()
            await expect(page.get_by_role("heading", level=1)).to_have_text(label)
            await expect(page.locator("main table, main .nothing:not(:text-is('Looking'))").first).to_be_attached()
            await judge()
            if label == "Documents":
                await page.get_by_role("link", name=name.split("<")[0]).first.click()
                await expect(page.get_by_role("region", name="Content", exact=True)).to_contain_text("hello")
                await expect(row(admin, "Participants", "y-websocket")).not_to_have_count(0)
                await judge()
                await page.get_by_role("button", name="Delete", exact=True).click()
                await judge()
                await page.keyboard.press("Escape")
    finally:
        await client.close()


async def _hide(page: Page, *, hidden: bool) -> None:
    """Let the page believe that its tab is not, or is, the one that is seen."""
    await page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, 'hidden', { get: () => hidden, configurable: true })
            document.dispatchEvent(new Event('visibilitychange'))
        }""",
        hidden,
    )


async def test_memory_does_not_grow_over_hundreds_of_updates(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    clients = [await written(shared_server, f"{document}{number}") for number in range(5)]
    admin = await open_admin(open_window, shared_server, script=HURRY)
    page = admin.page
    devtools = await admin.context.new_cdp_session(page)
    answers = 0

    def heard(url: str) -> None:
        nonlocal answers
        answers += "/api/v1/" in url

    page.on("requestfinished", lambda request: heard(request.url))

    async def after(number: int) -> dict[str, float]:
        """Wait for so many answers, give what is left after the garbage is gone."""
        end = answers + number

        async def come() -> bool:
            clients[0].text().insert(0, "x")
            return answers >= end

        await until(come, f"{number} answers", 2 * PATIENCE)
        await devtools.send("HeapProfiler.collectGarbage")
        counters = await devtools.send("Memory.getDOMCounters")
        heap = await devtools.send("Runtime.getHeapUsage")
        return {"heap": heap["usedSize"], "nodes": counters["nodes"], "listeners": counters["jsEventListeners"]}

    try:
        for address in ("?view=overview", "?view=connections", f"?doc={quote(document)}0"):
            await page.goto(f"{shared_server.url}/admin{address}")
            first = await after(60)
            last = await after(120)
            # Some rows and lines come and go; a leak would be hundreds of each.
            assert last["nodes"] < first["nodes"] + 150, (address, first, last)
            assert last["listeners"] < first["listeners"] + 50, (address, first, last)
            assert last["heap"] < first["heap"] + 400_000, (address, first, last)
        # One asks for nothing while nobody looks, and goes on when somebody does.
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await _hide(page, hidden=True)
        asked.clear()
        await asyncio.sleep(0.5)  # a dozen of the shortened pauses
        assert [url for url in asked if "/api/v1/" in url] == []
        await _hide(page, hidden=False)
        await after(5)
    finally:
        for client in clients:
            await client.close()
