"""The rich-text page in a real browser, over the stock Hocuspocus provider."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import expect
from pycrdt import XmlFragment

from tests.browser.conftest import OpenWindow
from tests.browser.window import CONNECTION_LOST, OFFLINE, Cable, Window, until
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient, RawClient, awareness

TwoWindows = Callable[[], Awaitable[tuple[Window, Window]]]

# A red square of one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


@pytest.fixture
def document(document: str) -> str:
    return f"text/{document}"


async def stored(server: ServerProcess, document: str) -> str:
    """The document as a client gets it that joins now, over the other protocol: Tiptap's root as XML."""
    async with LiveClient(server.document_url(document)) as client:
        await client.until_synced()
        return str(client.doc.get("default", type=XmlFragment))


async def until_stored(server: ServerProcess, document: str, expected: str) -> None:
    seen = ""

    async def fact() -> bool:
        nonlocal seen
        seen = await stored(server, document)
        return seen == expected

    try:
        await until(fact, "the document at the server")
    except AssertionError as error:
        raise AssertionError(f"{error}; it holds: {seen}") from None


async def html(window: Window) -> str:
    """What stands in the editor as HTML, without what is drawn into it."""
    found: str = await window.page.evaluate("""() => {
        const copy = document.querySelector('.tiptap').cloneNode(true)
        for (const drawn of copy.querySelectorAll('.caret, .ProseMirror-separator, .ProseMirror-trailingBreak'))
            drawn.remove()
        for (const marked of copy.querySelectorAll('.selected')) marked.replaceWith(...marked.childNodes)
        copy.normalize()
        return copy.innerHTML
    }""")
    return found


async def test_two_windows_format_at_once_and_end_equal(
    two_windows: TwoWindows, shared_server: ServerProcess, document: str
) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await ada.type("# Plan\n")
    await ada.type("the **first** part\n")
    await grace.until_text(lambda text: text == "Plan\nthe first part\n", "Ada's text")
    await grace.go_to_end()
    await ada.page.locator("#editor p").first.click()
    await ada.page.keyboard.press("End")
    await asyncio.gather(ada.type(" is Ada's", delay=8), grace.type("- one\ntwo", delay=8))
    for window in (ada, grace):
        await window.until_text(lambda text: text == "Plan\nthe first part is Ada's\none\ntwo", "both texts")
        await window.until_status("Saved")
    assert await html(ada) == await html(grace)
    xml = await stored(shared_server, document)
    # Nesting and text; how a number is written as an attribute is the library's business.
    assert re.sub(r" \w+=\"[^\"]*\"", "", xml) == (
        "<heading>Plan</heading><paragraph>the <bold>first</bold> part is Ada's</paragraph>"
        "<bulletList><listItem><paragraph>one</paragraph></listItem>"
        "<listItem><paragraph>two</paragraph></listItem></bulletList>"
    )


async def test_the_toolbar_does_what_it_shows(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    page = ada.page
    await ada.go_to_end()
    await ada.type("words")
    await page.keyboard.press("Shift+Home")
    for label in ("Bold", "Italic", "Underline", "Strike through", "Code"):
        button = page.get_by_role("button", name=label).first
        await button.click()
        await expect(button).to_have_attribute("aria-pressed", "true")
    other = grace.page.locator("#editor")
    await expect(other.locator("code")).to_contain_text("words")
    await page.get_by_role("button", name="Code (").click()
    await page.get_by_role("combobox", name="Kind of paragraph").select_option("Heading 2")
    await expect(other.locator("h2")).to_contain_text("words")
    await page.keyboard.press("End")
    await page.keyboard.press("Enter")
    for label, tag in (("Bullet list", "ul li"), ("Numbered list", "ol li"), ("Task list", "li input[type=checkbox]")):
        await page.get_by_role("button", name=label).click()
        await expect(other.locator(tag)).to_have_count(1)
    await other.locator("input[type=checkbox]").check()
    await expect(page.locator("#editor input[type=checkbox]")).to_be_checked()
    await page.get_by_role("button", name="Task list").click()
    await page.get_by_role("button", name="Table", exact=True).click()
    await expect(other.locator("tr")).to_have_count(3)
    await page.get_by_role("button", name="Row below").click()
    await page.get_by_role("button", name="Column right").click()
    await expect(other.locator("tr")).to_have_count(4)
    await expect(other.locator("th")).to_have_count(4)
    await page.get_by_role("button", name="Delete table").click()
    await expect(other.locator("table")).to_have_count(0)


async def test_a_link_is_set_and_a_harmful_one_is_not(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    page = ada.page
    await ada.go_to_end()
    await ada.type("see the plan")
    for address, links in (("javascript:alert(1)", 0), ("example.org/plan", 1)):
        await page.keyboard.press("Shift+Home")
        await page.get_by_role("button", name="Link").click()
        await page.get_by_role("textbox", name="Address of the link").fill(address)
        await page.keyboard.press("Enter")
        await ada.until_status("Saved")
        link = grace.page.locator("#editor a")
        await expect(link).to_have_count(links)
    await expect(link).to_have_attribute("href", "https://example.org/plan")
    await expect(link).to_have_attribute("rel", re.compile("noopener"))


async def test_an_image_is_in_the_document_and_no_other_servers_is_shown(
    two_windows: TwoWindows, shared_server: ServerProcess, document: str
) -> None:
    ada, grace = await two_windows()
    await ada.page.locator("input[type=file]").set_input_files(
        [{"name": "red.png", "mimeType": "image/png", "buffer": PIXEL}]
    )
    image = grace.page.locator("#editor img")
    await expect(image).to_have_attribute("src", re.compile("^data:image/"))
    await expect(image).to_have_attribute("alt", "red")
    await ada.page.locator("input[type=file]").set_input_files(
        [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}]
    )
    await expect(ada.page.locator(".toast")).to_have_text("notes.txt is not an image that can be shown here")
    # Another client may write any address into the document: the page asks nobody for it.
    async with LiveClient(shared_server.document_url(document)) as client:
        await client.until_synced()
        (element,) = client.doc.get("default", type=XmlFragment).children
        element.attributes["src"] = "https://example.org/spy.png"
        await expect(image).not_to_have_attribute("src", re.compile("."))


async def test_carets_appear_with_names_and_go(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await ada.type("hello")
    await grace.until_carets("Ada")
    await ada.page.keyboard.press("Shift+Home")
    await expect(grace.page.locator("#editor .selected")).to_have_text("hello")
    await ada.call_oneself("Ada Lovelace")
    await ada.page.locator("#editor").focus()
    await grace.until_carets("Ada Lovelace")
    await ada.page.close()
    await grace.until_carets()
    await grace.until_others()


async def test_somebody_who_types_is_seen_to(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    typing = grace.page.locator("#list .person", has_text="Ada").locator(".typing")
    await ada.go_to_end()
    await ada.type("h")
    await expect(typing).to_have_count(1)
    await expect(typing).to_have_count(0)


async def test_undo_takes_back_only_what_one_has_written_oneself(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await ada.type("Ada was here.")
    await grace.until_text(lambda text: text == "Ada was here.", "Ada's text")
    await grace.go_to_end()
    await grace.type(" So was Grace.")
    await ada.until_text(lambda text: text.endswith("Grace."), "Grace's text")
    await ada.page.get_by_role("button", name="Undo").click()
    await grace.until_text(lambda text: text == " So was Grace.", "the undo in Grace's window")


async def test_a_rename_is_seen_by_all_at_once_and_by_the_listing(
    two_windows: TwoWindows, shared_server: ServerProcess, document: str
) -> None:
    ada, grace = await two_windows()
    await ada.rename_document("  Minutes of \n Monday ")
    await expect(grace.page.locator("#title")).to_have_value("Minutes of Monday")
    await expect(grace.page).to_have_title("Minutes of Monday · collab")

    async def listed() -> bool:
        response = await ada.page.request.get(f"{shared_server.url}/api/documents", params={"prefix": document})
        return [one["title"] for one in (await response.json())["documents"]] == ["Minutes of Monday"]

    await until(listed, "the title in the listing")


async def test_both_sides_offline_and_back(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    async with Cable(shared_server.port) as cable:
        ada = await open_window(cable.url, document, name="Ada")
        grace = await open_window(cable.url, document, name="Grace")
        await ada.go_to_end()
        await ada.type("middle")
        await grace.until_text(lambda text: text == "middle", "Ada's text")
        await cable.pull_out()
        await asyncio.gather(ada.until_cut_off(), grace.until_cut_off())
        await ada.type(" end")
        await grace.go_to_end()
        await grace.page.keyboard.press("Home")
        await grace.type("start ")
        await cable.plug_in()
        for window in (ada, grace):
            await window.until_text(lambda text: text == "start middle end", "both edits")
            await window.until_status("Saved")
            window.forgive(CONNECTION_LOST)
    assert "start middle end" in await stored(shared_server, document)


async def test_saved_is_said_when_it_is_and_a_kill_loses_nothing(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(own_server.url, document)
    await window.go_to_end()
    for number in range(3):
        await window.type(f"{number} saved ")
        await window.until_status("Saved")
        # Whatever was called saved is there after a kill, whoever asks first: no client is let back in before.
        expected = await window.text()
        url, window.errors[:] = own_server.url, []
        await window.context.set_offline(True)
        await own_server.akill()
        await window.until_status(OFFLINE)
        await window.type(f"{number} offline ")
        await own_server.arestart()
        assert own_server.url == url
        assert expected.strip() in await stored(own_server, document)
        await window.context.set_offline(False)
        await window.until_status("Saved")
        window.forgive(CONNECTION_LOST)
    text = "".join(f"{number} saved {number} offline " for number in range(3))
    assert await window.text() == text
    assert text.strip() in await stored(own_server, document)


async def test_a_server_killed_while_people_type_loses_nothing(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(own_server.url, document, name="Ada")
    grace = await open_window(own_server.url, document, name="Grace")
    await ada.go_to_end()
    await ada.type("\n")
    await grace.until_text(lambda text: text == "\n", "the second paragraph")
    await grace.go_to_end()
    await ada.page.keyboard.press("Control+Home")
    words = " ".join(f"w{number:02}" for number in range(25))
    typing = asyncio.gather(ada.type(words, delay=10), grace.type(words, delay=10))
    await grace.until_text(lambda text: text.count("w05") == 2, "the first words")
    await own_server.akill()
    await typing
    await own_server.arestart()
    for window in (ada, grace):
        await window.until_text(lambda text: text == f"{words}\n{words}", "all words")
        await window.until_status("Saved")
        window.forgive(CONNECTION_LOST)
    assert (await stored(own_server, document)).count(words) == 2


async def test_what_others_make_up_in_their_awareness_harms_nobody(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, document, name="Ada")
    await ada.go_to_end()
    await ada.type("mine")
    states = [
        {"user": {"name": 5, "color": "red; position: fixed"}, "cursor": {}},
        {
            "user": {"name": "<img src=x onerror=alert(1)>", "color": "#12"},
            "cursor": {"anchor": 1, "head": {"item": 3}},
        },
        {"user": {"name": "x" * 500}, "cursor": {"anchor": {"tname": "default"}, "head": {"tname": "default"}}},
        {"user": {}, "cursor": {"anchor": {"item": {"client": "x", "clock": -1}}, "head": {"type": {"client": 1}}}},
        {"cursor": {"anchor": None, "head": None}},
    ]
    async with RawClient(shared_server.document_url(document)) as hostile:
        for number, state in enumerate(states, start=1000):
            await hostile.send(awareness((number, 1, json.dumps(state))))
        await hostile.barrier()

        async def seen() -> bool:
            return len(await ada.others()) == 4

        await until(seen, "those who say to be somebody")
        assert max(map(len, await ada.others())) <= 32
        await ada.type(" still")
        assert await ada.text() == "mine still"
        await ada.until_status("Saved")
    await ada.until_others()
