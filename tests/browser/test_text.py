"""The rich-text page in a real browser, over the stock Hocuspocus provider."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from playwright.async_api import expect
from pycrdt import XmlElement, XmlFragment, XmlText

from tests.browser.conftest import OpenWindow
from tests.browser.window import CONNECTION_LOST, OFFLINE, Cable, Window, until
from tests.support import token_server as token_server_script
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient, RawClient, awareness

# Next to a caret ProseMirror draws an image that is none.
IMAGES = "#editor img:not(.ProseMirror-separator)"

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


async def put_link(window: Window, text: str, address: str) -> None:
    """Type a text and make it a link, by the keyboard alone."""
    await window.type(text)
    await window.page.keyboard.press("Shift+Home")
    await window.page.keyboard.press("Control+k")
    await expect(window.page.get_by_role("textbox", name="Address of the link")).to_be_focused()
    await window.type(address)
    await window.page.keyboard.press("Enter")
    await expect(window.page.locator("#editor")).to_be_focused()
    await expect(window.page.locator("#editor a")).to_have_text(text)


async def opened_by(window: Window, act: Callable[[], Awaitable[None]]) -> str:
    """The address of the tab that ``act`` opens."""
    async with window.context.expect_page() as opening:
        await act()
    tab = await opening.value
    await tab.wait_for_load_state()
    url = tab.url
    assert await tab.evaluate("window.opener") is None
    await tab.close()
    return url


async def test_a_link_is_followed_by_click_key_and_touch(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)
    page = window.page
    plan = f"{shared_server.url}/split?doc=plan"
    await window.go_to_end()
    await put_link(window, "the plan", plan)
    link = page.locator("#editor a")
    # A click alone is for the caret, and shows where the link leads.
    await link.click()
    tools = page.get_by_role("group", name="Link at the caret")
    address = tools.get_by_role("link")
    await expect(address).to_have_text(plan.removeprefix("http://"))
    assert len(window.context.pages) == 1
    assert await opened_by(window, lambda: link.click(modifiers=["Control"])) == plan
    assert await opened_by(window, address.click) == plan

    async def by_the_keyboard() -> None:
        await page.locator("#editor").focus()
        for _ in range(3):
            await page.keyboard.press("Shift+Tab")
        await expect(address).to_be_focused()
        await page.keyboard.press("Enter")

    assert await opened_by(window, by_the_keyboard) == plan
    await tools.get_by_role("button", name="Change").click()
    await expect(page.get_by_role("textbox", name="Address of the link")).to_have_value(plan)
    await page.get_by_role("textbox", name="Address of the link").fill(f"{plan}2")
    await page.keyboard.press("Enter")
    await expect(link).to_have_attribute("href", f"{plan}2")
    await tools.get_by_role("button", name="Remove").click()
    await expect(link).to_have_count(0)
    await expect(tools).to_be_hidden()
    assert await window.text() == "the plan"


async def test_a_harmful_link_of_another_client_is_not_followed(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    async with LiveClient(shared_server.document_url(document)) as client:
        await client.until_synced()
        paragraph = XmlElement("paragraph")
        client.doc.get("default", type=XmlFragment).children.append(paragraph)
        text = XmlText()
        paragraph.children.append(text)
        text.insert(0, "press me", {"link": {"href": "javascript:document.title='bad'"}})
        await client.barrier()
    window = await open_window(shared_server.url, document)
    await window.until_text(lambda text: text == "press me", "the link")
    link = window.page.locator("#editor a")
    await link.click(modifiers=["Control"])
    await link.click()
    tools = window.page.get_by_role("group", name="Link at the caret")
    await expect(tools.get_by_role("button", name="Remove")).to_be_visible()
    await expect(tools.get_by_role("link")).to_have_count(0)
    assert len(window.context.pages) == 1


async def test_who_only_reads_follows_a_link_by_a_click(
    page_is_built: None, tmp_path: Path, open_window: OpenWindow, document: str
) -> None:
    with ServerProcess(tmp_path, program=(token_server_script.__file__,)) as server:
        writer = await open_window(server.url, document, query="&token=write")
        await writer.go_to_end()
        await put_link(writer, "the plan", f"{server.url}/split?doc=plan")
        await writer.until_status("Saved")
        await writer.context.close()
        reader = await open_window(server.url, document, query="&token=read", connected=False)
        await reader.until_status("Read only")
        assert await opened_by(reader, reader.page.locator("#editor a").click) == f"{server.url}/split?doc=plan"
        await reader.context.close()


async def test_an_image_is_in_the_document_and_no_other_servers_is_shown(
    two_windows: TwoWindows, shared_server: ServerProcess, document: str
) -> None:
    ada, grace = await two_windows()
    await ada.page.locator("input[type=file]").set_input_files(
        [{"name": "red.png", "mimeType": "image/png", "buffer": PIXEL}]
    )
    image = grace.page.locator(IMAGES)
    await expect(image).to_have_attribute("src", re.compile("^data:image/"))
    await expect(image).to_have_attribute("alt", "red")
    await ada.page.locator("input[type=file]").set_input_files(
        [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}]
    )
    await expect(ada.page.locator(".toast")).to_have_text("notes.txt is not an image that can be shown here")
    # Another client may write any address into the document: the page asks nobody for it.
    async with LiveClient(shared_server.document_url(document)) as client:
        await client.until_synced()
        element, _ = client.doc.get("default", type=XmlFragment).children
        element.attributes["src"] = "https://example.org/spy.png"
        await expect(image).not_to_have_attribute("src", re.compile("."))


async def paste_images(window: Window, *names: str) -> None:
    """Paste image files in one go, as a file manager's clipboard holds them."""
    await window.page.evaluate(
        """([names, pixel]) => {
            const clipboardData = new DataTransfer()
            const bytes = Uint8Array.from(atob(pixel), (character) => character.charCodeAt(0))
            for (const name of names) clipboardData.items.add(new File([bytes], name, { type: 'image/png' }))
            const paste = new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true })
            document.querySelector('#editor').dispatchEvent(paste)
        }""",
        [list(names), base64.b64encode(PIXEL).decode()],
    )


async def shown_blocks(window: Window) -> list[str]:
    """The blocks of the text in their order: of an image its description, of all else the text."""
    found: list[str] = await window.page.locator("#editor > *").evaluate_all("""all => all.map((block) => {
        const copy = block.cloneNode(true)
        for (const drawn of copy.querySelectorAll('.caret')) drawn.remove()
        return copy.tagName === 'IMG' ? `[${copy.alt}]` : copy.textContent
    })""")
    return found


async def until_blocks(window: Window, *blocks: str) -> None:
    seen: list[str] = []

    async def fact() -> bool:
        nonlocal seen
        seen = await shown_blocks(window)
        return seen == list(blocks)

    try:
        await until(fact, f"the blocks {blocks}")
    except AssertionError as error:
        raise AssertionError(f"{error}; the window shows: {seen}") from None


async def test_typing_goes_on_behind_an_image_that_was_just_inserted(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)
    await window.go_to_end()
    picker = window.page.locator("input[type=file]")
    image = {"name": "red.png", "mimeType": "image/png", "buffer": PIXEL}
    await picker.set_input_files([image])
    await expect(window.page.locator(IMAGES)).to_have_count(1)
    await window.type("behind")
    await until_blocks(window, "[red]", "behind")
    # In the middle of a text, too.
    for _ in "hind":
        await window.page.keyboard.press("ArrowLeft")
    await picker.set_input_files([image])
    await expect(window.page.locator(IMAGES)).to_have_count(2)
    await window.type("-")
    await until_blocks(window, "[red]", "be", "[red]", "-hind")


async def test_all_images_of_one_paste_stay(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await ada.type("before")
    await paste_images(ada, "one.png", "two.png", "three.png")
    await expect(grace.page.locator(IMAGES)).to_have_count(3)
    await ada.type("after")
    for window in (ada, grace):
        await until_blocks(window, "before", "[one]", "[two]", "[three]", "after")


async def test_tab_indents_in_a_block_of_code_and_leads_out_behind_it(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)
    editor = window.page.locator("#editor")
    await window.go_to_end()
    await window.page.get_by_role("button", name="Code block").click()
    await expect(editor).to_be_focused()
    await window.page.keyboard.press("Tab")
    await window.type("x")
    await expect(editor.locator("pre")).to_have_text("  x", use_inner_text=True)
    await window.page.keyboard.press("ArrowDown")
    await window.page.keyboard.press("Tab")
    await expect(editor).not_to_be_focused()


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
        response = await ada.page.request.get(f"{shared_server.url}/api/v1/documents", params={"prefix": document})
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
        caret = "document.querySelector('.tiptap').editor.state.selection.from"

        async def at_the_start() -> bool:
            # The editor reads where the browser's caret is a moment later, and until then may put it back for good.
            await grace.page.keyboard.press("Home")
            return await grace.page.evaluate(caret) == 1

        await until(at_the_start, "the editor's caret at the start")
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


async def directions(window: Window, selector: str) -> list[str]:
    """How the blocks that ``selector`` finds are set."""
    found: list[str] = await window.page.locator(selector).evaluate_all(
        "all => all.map((block) => getComputedStyle(block).direction)"
    )
    return found


async def test_each_block_is_set_in_the_direction_of_its_own_text(
    two_windows: TwoWindows, shared_server: ServerProcess, document: str
) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    for block in (
        "left\n",
        "\u05e9\u05dc\u05d5\u05dd world\n",
        "12: \u0645\u0631\u062d\u0628\u0627\n",
        "- \u05d0\n",
        "one",
        "\n\n",
    ):
        await ada.type(block)
    await ada.type("> \u05d1")
    await grace.until_text(lambda text: text.endswith("\u05d1"), "Ada's text")
    for window in (ada, grace):
        assert await directions(window, "#editor > p") == ["ltr", "rtl", "rtl"]
        # Its bullets stand where its first item begins; an item of another direction keeps its own.
        assert await directions(window, "#editor > ul") == ["rtl"]
        assert await directions(window, "#editor li p") == ["rtl", "ltr"]
        assert await directions(window, "#editor blockquote") == ["rtl"]
    # A paragraph turns with its first letter.
    await ada.page.keyboard.press("Control+Home")
    await ada.type("\u05d2")
    await grace.until_text(lambda text: text.startswith("\u05d2left"), "the letter")
    assert (await directions(grace, "#editor > p"))[0] == "rtl"
    # It is drawn, and no attribute of the document.
    await ada.until_status("Saved")
    assert "dir" not in await stored(shared_server, document)


@pytest.mark.parametrize("width", [390, 749, 751, 820, 863, 865, 1440])
async def test_the_paper_lies_in_the_middle(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, width: int
) -> None:
    window = await open_window(shared_server.url, document, viewport={"width": width, "height": 844})
    left, right = await window.page.locator("#editor").evaluate("""paper => {
        const { left, right } = paper.getBoundingClientRect()
        return [left, document.documentElement.clientWidth - right]
    }""")
    assert abs(left - right) <= 1
