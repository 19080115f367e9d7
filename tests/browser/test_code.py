"""The code page in a real browser: two people in one document, and everything that can come between them."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from playwright.async_api import Dialog, expect
from pycrdt import Map

from collab.app import create_app
from collab.settings import Settings
from tests.browser.conftest import OpenWindow
from tests.browser.window import CONNECTION_LOST, KEY, PATIENCE, Cable, Window, until
from tests.support.server import ServerProcess, collab_command
from tests.support.wsclient import AWARENESS, LiveClient, RawClient, awareness

TwoWindows = Callable[[], Awaitable[tuple[Window, Window]]]

# The root type that the page uses, as the y-codemirror.next demos do.
ROOT = "codemirror"


async def stored_text(server: ServerProcess, document: str) -> str:
    """What a client gets that joins now."""
    async with LiveClient(server.document_url(document)) as client:
        await client.until_synced()
        return str(client.text(ROOT))


# -- together ---------------------------------------------------------------------------------------------------


async def test_two_windows_edit_at_once_and_end_equal(
    two_windows: TwoWindows, shared_server: ServerProcess, document: str
) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await ada.type("top\n\nbottom")
    await grace.until_text(lambda text: text == "top\n\nbottom", "Ada's text")
    await grace.go_to_end()
    await ada.page.keyboard.press("Control+Home")
    await ada.page.keyboard.press("End")
    first, last = " " + "ada ✓ " * 15, " " + "grace 😀 " * 15
    await asyncio.gather(ada.type(first, delay=8), grace.type(last, delay=8))
    expected = f"top{first}\n\nbottom{last}"
    await ada.until_text(lambda text: text == expected, "both texts in Ada's window")
    await grace.until_text(lambda text: text == expected, "both texts in Grace's window")
    assert await stored_text(shared_server, document) == expected


async def test_two_windows_typing_at_one_place_lose_no_character(
    two_windows: TwoWindows, shared_server: ServerProcess, document: str
) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await grace.go_to_end()
    await asyncio.gather(ada.type("a" * 60, delay=5), grace.type("b" * 60, delay=5))

    def complete(text: str) -> bool:
        return text.count("a") == 60 and text.count("b") == 60 and len(text) == 120

    seen = await ada.until_text(complete, "all characters in Ada's window")
    await grace.until_text(lambda text: text == seen, "Ada's order in Grace's window")
    assert await stored_text(shared_server, document) == seen


async def test_undo_takes_back_only_what_one_has_written_oneself(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await ada.type("Ada was here.")
    await grace.until_text(lambda text: text == "Ada was here.", "Ada's text")
    await grace.go_to_end()
    await grace.type(" So was Grace.")
    await ada.until_text(lambda text: text.endswith("Grace."), "Grace's text")
    await ada.page.keyboard.press("Control+z")
    await ada.until_text(lambda text: text == " So was Grace.", "the undo in Ada's window")
    await grace.until_text(lambda text: text == " So was Grace.", "the undo in Grace's window")


async def test_the_other_name_and_cursor_appear_and_go(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    assert await ada.carets() == [], "nobody has put a cursor anywhere yet"
    await grace.go_to_end()
    await grace.type("hello")
    await ada.until_carets("Grace")
    await expect(ada.page.locator("#count")).to_have_text("2 people here")
    await grace.page.keyboard.press("Shift+Home")
    selected = ada.page.locator(".selected")
    await expect(selected).to_have_text("hello")
    await grace.page.close()
    await ada.until_others()
    await ada.until_carets()
    await expect(selected).to_have_count(0)
    await expect(ada.page.locator("#count")).to_have_text("Just you")
    assert await ada.text() == "hello"


async def test_a_new_name_is_shown_to_the_others_and_kept_for_the_next_visit(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    await grace.go_to_end()
    await grace.type("x")
    await grace.call_oneself("  Grace \u202e Hopper ")
    await ada.until_others("Grace Hopper")
    await ada.until_carets("Grace Hopper")
    await grace.page.reload()
    await grace.until_connected()
    await expect(grace.page.locator("#name")).to_have_value("Grace Hopper")
    await ada.until_others("Grace Hopper")


async def test_of_two_with_one_colour_the_higher_client_id_takes_another(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, document)
    face = ada.page.locator("#list .self .face")

    async def colour() -> str:
        found: str = await face.evaluate("face => face.style.getPropertyValue('--who')")
        return found

    first = await colour()
    async with RawClient(shared_server.document_url(document)) as peer:
        same = json.dumps({"user": {"name": "Peer", "color": first}})
        # Client IDs have 32 bits: nobody's is above this one, and hardly anybody's below 1.
        await peer.send(awareness((2**32 - 1, 1, same)))
        await ada.until_others("Peer")
        assert await colour() == first
        await peer.send(awareness((1, 1, same)))
        await ada.until_others("Peer", "Peer")

        async def moved() -> bool:
            return await colour() != first

        await until(moved, "another colour for Ada")
        second = (await colour()).encode()
        await peer.expect(lambda frame: frame.type == AWARENESS and second in frame.payload, "Ada's new colour")


async def test_the_language_is_chosen_for_everybody_and_markdown_has_a_preview(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    hostile = "<img src=x onerror=alert(1)> ![](https://example.org/x.png) [x](javascript:alert(1))"
    await ada.page.keyboard.insert_text(f"# Title\n\n{hostile}\n")
    preview = grace.page.locator("#preview")
    await expect(preview.get_by_role("heading", name="Title")).to_be_visible()
    await expect(preview.locator("img")).to_have_count(0)
    addresses = await preview.locator("a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert addresses == ["https://example.org/x.png", ""]
    await ada.page.locator("#language").select_option("Python")
    await expect(grace.page.locator("#language")).to_have_value("python")
    await expect(preview).to_be_hidden()
    await ada.go_to_end()
    await ada.type("def f")
    await expect(grace.page.locator(".tok-keyword", has_text="def")).to_be_visible()


async def test_on_a_phone_the_preview_stands_in_the_place_of_the_text(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    phone = await open_window(
        shared_server.url, document, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await phone.go_to_end()
    await phone.type("# Title")
    toggle, editor = phone.page.get_by_role("button", name="Preview"), phone.page.locator("#editor")
    await toggle.tap()
    preview = phone.page.locator("#preview")
    await expect(preview.get_by_role("heading", name="Title")).to_be_visible()
    await expect(editor).to_be_hidden()
    box = await preview.bounding_box()
    assert box is not None and (box["x"], box["width"]) == (0, 390)
    await toggle.tap()
    await expect(editor).to_be_visible()
    await expect(preview).to_be_hidden()


async def test_prose_is_set_in_the_direction_of_each_line_and_code_is_not(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)

    async def directions(selector: str) -> list[str]:
        found: list[str] = await window.page.locator(selector).evaluate_all(
            "all => all.map((block) => getComputedStyle(block).direction)"
        )
        return found

    await window.go_to_end()
    await window.page.keyboard.insert_text("# left\n\n\u05e9\u05dc\u05d5\u05dd\n\n- \u05d0\n- one")
    assert await directions(".cm-line") == ["ltr", "ltr", "rtl", "ltr", "rtl", "ltr"]
    preview = window.page.locator("#preview")
    await expect(preview.locator("li")).to_have_count(2)
    assert await directions("#preview > *") == ["ltr", "rtl", "rtl"]
    assert await directions("#preview li") == ["rtl", "ltr"]
    await window.page.locator("#language").select_option("Python")

    async def all_left() -> bool:
        return set(await directions(".cm-line")) == {"ltr"}

    await until(all_left, "code from left to right")


async def test_tab_indents_and_after_escape_leads_out(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)
    editor = window.page.locator("#editor")
    await window.go_to_end()
    await window.type("one\ntwo")
    await window.page.keyboard.press("Tab")
    await window.page.keyboard.press("Shift+Home")
    await window.page.keyboard.press("Shift+ArrowUp")
    await window.page.keyboard.press("Tab")
    await expect(editor).to_be_focused()
    assert await window.text() == "  one\n    two"
    await window.page.keyboard.press("Shift+Tab")
    await window.page.keyboard.press("Shift+Tab")
    assert await window.text() == "one\ntwo"
    for key in ("Tab", "Shift+Tab"):
        await editor.focus()
        # Whatever else it does: here it takes back a selection.
        await window.page.keyboard.press("Control+a")
        await window.page.keyboard.press("Escape")
        await window.page.keyboard.press(key)
        await expect(editor).not_to_be_focused()
    assert await window.text() == "one\ntwo"


async def test_following_somebody_shows_what_they_look_at(two_windows: TwoWindows) -> None:
    ada, grace = await two_windows()
    await ada.go_to_end()
    await ada.page.keyboard.insert_text("\n".join(f"line {number}" for number in range(300)))
    await grace.until_text(lambda text: "line 3" in text, "Ada's text")
    await grace.page.locator("#people").click()
    await grace.page.get_by_role("button", name="Follow Ada").click()
    await grace.page.keyboard.press("Escape")
    await expect(grace.page.locator(".cm-line", has_text="line 299")).to_be_in_viewport()
    await ada.page.keyboard.press("Control+Home")
    await expect(grace.page.locator(".cm-line").first).to_be_in_viewport()
    await expect(grace.page.locator(".following")).to_have_text("Following AdaStop")
    # Whoever goes on alone stops following.
    await grace.go_to_end()
    await grace.page.keyboard.press("End")
    await expect(grace.page.locator(".following")).to_be_hidden()


@pytest.mark.parametrize("language", ["markdown", "python"])
async def test_typing_stays_quick_in_a_file_of_5000_lines(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, language: str
) -> None:
    lines = [f"- item {number}: some **words** in `line` {number} of a long file" for number in range(5000)]
    if language == "python":
        lines = [f"def line_{number}(x): return [x, 'of a long file', {number}]  # words" for number in range(5000)]
    async with LiveClient(shared_server.document_url(document)) as client:
        await client.until_synced()
        client.text(ROOT).insert(0, "\n".join(lines))
        client.doc.get("meta", type=Map)["language"] = language
        await client.barrier()
    ada = await open_window(shared_server.url, document, name="Ada")
    await expect(ada.page.locator("#language")).to_have_value(language)
    await ada.until_text(lambda text: "line" in text, "the long file")
    # In the middle of it, as high up as everything behind is to be looked at again.
    await ada.page.locator(".cm-line").nth(10).click()
    times = await ada.key_times(" a text of some forty letters, key by key")
    assert statistics.median(times) <= KEY, times
    await ada.until_status("Synced")
    assert len((await stored_text(shared_server, document)).split("\n")) == 5000


# -- coming back ------------------------------------------------------------------------------------------------


async def test_a_reload_keeps_the_text(shared_server: ServerProcess, open_window: OpenWindow, document: str) -> None:
    window = await open_window(shared_server.url, document)
    await window.go_to_end()
    await window.type("# Kept\n\nline two")
    # The new page's state comes after everything the old one sent: the server takes frames in order.
    await until(lambda: _holds(shared_server, document, "# Kept\n\nline two"), "the text at the server")
    await window.page.reload()
    await window.until_connected()
    await window.until_text(lambda text: text == "# Kept\n\nline two", "the text after the reload")


async def _holds(server: ServerProcess, document: str, text: str) -> bool:
    return await stored_text(server, document) == text


async def test_a_server_killed_while_people_type_loses_nothing(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(own_server.url, document, name="Ada")
    grace = await open_window(own_server.url, document, name="Grace")
    await ada.go_to_end()
    await ada.type("\n")
    await grace.until_text(lambda text: text == "\n", "the second line")
    await grace.go_to_end()
    await ada.page.keyboard.press("Control+Home")
    words = [f"w{number:02}" for number in range(40)]
    typing = asyncio.gather(ada.type(" ".join(words), delay=12), grace.type(" ".join(words), delay=12))
    await grace.until_text(lambda text: text.count("w10") == 2, "the first words")
    await own_server.akill()
    await asyncio.gather(ada.until_cut_off(), grace.until_cut_off())
    await typing
    await ada.type(" offline")
    await own_server.arestart()
    await asyncio.gather(ada.until_connected(), grace.until_connected())
    expected = " ".join(words) + " offline\n" + " ".join(words)
    await ada.until_text(lambda text: text == expected, "all words in Ada's window")
    await grace.until_text(lambda text: text == expected, "all words in Grace's window")
    await ada.until_others("Grace")
    assert await stored_text(own_server, document) == expected
    # And what has come together is on disk: it outlives the server and both windows.
    await asyncio.gather(ada.context.close(), grace.context.close())
    await own_server.arestart()
    assert await stored_text(own_server, document) == expected
    for window in (ada, grace):
        window.forgive(CONNECTION_LOST)


async def test_one_window_goes_offline_writes_on_and_comes_back(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    async with Cable(shared_server.port) as cable:
        ada = await open_window(shared_server.url, document, name="Ada")
        grace = await open_window(cable.url, document, name="Grace")
        await ada.until_others("Grace")
        await ada.go_to_end()
        await ada.type("together")
        await grace.until_text(lambda text: text == "together", "Ada's text")
        await cable.pull_out()
        await grace.until_cut_off()
        # The server takes the cut connection's awareness states away at once.
        await ada.until_others()
        await grace.until_others()
        await expect(grace.page.locator("#count")).to_have_text("Others show once connected")
        await grace.go_to_end()
        await grace.type(", apart")
        await ada.page.keyboard.press("Control+Home")
        await ada.type("Still ")
        await cable.plug_in()
        await grace.until_connected()
        for window in (ada, grace):
            await window.until_text(lambda text: text == "Still together, apart", "both edits")
        await ada.until_others("Grace")
        await grace.until_others("Ada")
        grace.forgive(CONNECTION_LOST)


async def test_what_is_written_offline_outlives_the_tab(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(own_server.url, document)
    await window.go_to_end()
    await window.type("before")
    await window.until_status("Synced")
    await own_server.akill()
    await window.until_cut_off()
    await window.type(", after")
    await expect(window.page.locator("#status")).to_have_attribute("data-kept", "yes")
    await window.page.close(run_before_unload=True)
    await own_server.arestart()
    assert await stored_text(own_server, document) == "before"
    again = await open_window(own_server.url, document, beside=window)
    await again.until_text(lambda text: text == "before, after", "what the closed tab held")
    await until(lambda: _holds(own_server, document, "before, after"), "the offline edit at the server")
    window.forgive(CONNECTION_LOST)


async def test_a_tab_that_cannot_keep_edits_says_so_and_asks_before_it_closes(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    no_disk = "Object.defineProperty(window, 'indexedDB', { value: undefined })"
    window = await open_window(own_server.url, document, script=no_disk)
    questions: list[str] = []

    async def stay(dialog: Dialog) -> None:
        questions.append(dialog.type)
        await dialog.dismiss()

    window.page.on("dialog", stay)
    await window.context.set_offline(True)
    await own_server.akill()
    await window.until_status("Offline, your changes are kept in this tab")
    await window.go_to_end()
    await window.type("unsent")
    await window.page.close(run_before_unload=True)
    await until(lambda: _true(questions == ["beforeunload"]), "the question")
    await own_server.arestart()
    await window.context.set_offline(False)
    await window.until_connected()
    closed = asyncio.Event()
    window.page.on("close", lambda page: closed.set())
    await window.page.close(run_before_unload=True)
    await asyncio.wait_for(closed.wait(), PATIENCE)
    assert questions == ["beforeunload"], "everything has arrived, so nothing is to be asked"
    window.forgive(CONNECTION_LOST)


async def _true(value: bool) -> bool:
    return value


# -- refused ----------------------------------------------------------------------------------------------------


async def test_a_name_that_the_server_refuses_is_said(shared_server: ServerProcess, open_window: OpenWindow) -> None:
    window = await open_window(shared_server.url, "x" * 513, connected=False)
    await window.until_status("Refused")
    await expect(window.page.locator("#refused")).to_contain_text("this name cannot be used for a document")
    await expect(window.page.locator("#rescue")).to_have_count(0)


async def test_a_document_deleted_meanwhile_is_said_and_its_text_can_be_rescued(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(own_server.url, document, permissions=["clipboard-read", "clipboard-write"])
    await window.go_to_end()
    await window.type("precious")
    await until(lambda: _holds(own_server, document, "precious"), "the text at the server")
    done = await asyncio.to_thread(
        collab_command, "documents", "delete", "--data-dir", str(own_server.data_dir), document
    )
    assert done.returncode == 0, done.stderr
    # A running server finds it by itself, without a write.
    await window.until_status("Deleted")
    await expect(window.page.locator("#refused")).to_contain_text("This document was deleted.")
    await expect(window.page.locator("#editor")).to_have_attribute("contenteditable", "false")
    await window.page.locator("#rescue").click()
    await expect(window.page.locator(".toast")).to_have_text("Copied")
    assert await window.page.evaluate("navigator.clipboard.readText()") == "precious"


# -- the address ------------------------------------------------------------------------------------------------


async def test_the_copied_link_opens_the_same_document(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, document, permissions=["clipboard-read", "clipboard-write"])
    await ada.go_to_end()
    await ada.type("shared")
    await ada.page.locator("#share").click()
    await expect(ada.page.locator(".toast")).to_have_text("Link copied")
    link = await ada.page.evaluate("navigator.clipboard.readText()")
    grace = await open_window(shared_server.url, "somewhere else")
    await grace.page.goto(link)
    await grace.until_text(lambda text: text == "shared", "Ada's text")
    await expect(grace.page.locator("#title")).to_have_value(document)


async def test_the_page_and_its_document_work_below_a_path(
    page_is_built: None, open_window: OpenWindow, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """``create_app`` mounted into somebody else's application."""
    parent = web.Application()
    parent.add_subapp("/notes/", create_app(Settings(data_dir=str(tmp_path_factory.mktemp("mounted")))))
    runner = web.AppRunner(parent)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/notes"
        ada, grace = await open_window(url, "a/b", name="Ada"), await open_window(url, "a/b", name="Grace")
        await ada.until_others("Grace")
        await ada.go_to_end()
        await ada.type("mounted")
        await grace.until_text(lambda text: text == "mounted", "Ada's text")
        await asyncio.gather(ada.context.close(), grace.context.close())
    finally:
        await runner.cleanup()


# -- others may send anything -----------------------------------------------------------------------------------

HOSTILE_STATES = [
    {"user": {"name": 5, "color": "red; position: fixed; inset: 0; background: url(https://example.org/x.png)"}},
    {"user": "nobody", "cursor": 7},
    {"user": {"name": "<img src=x onerror=alert(1)>", "color": "#12"}, "cursor": {"anchor": 1, "head": {"item": 3}}},
    {"user": {"name": "\u202e\u0000" * 500}, "cursor": {"anchor": {"tname": "nowhere"}, "head": None}},
    {"user": None, "cursor": {"anchor": {"item": {"client": "x", "clock": -1}}, "head": {"type": {"client": 1}}}},
    {"user": {"name": {"toString": 1}}, "cursor": {"anchor": {"tname": ROOT}, "head": {"tname": ROOT, "assoc": "x"}}},
    [],
    "text",
]
# Those whose ``user`` is an object; null is one to JavaScript.
HOSTILE_PEOPLE = 5


async def test_what_others_make_up_in_their_awareness_harms_nobody(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, document, name="Ada")
    await ada.go_to_end()
    await ada.type("mine")
    async with RawClient(shared_server.document_url(document)) as hostile:
        states = [(number, 1, json.dumps(state)) for number, state in enumerate(HOSTILE_STATES, start=1000)]
        for state in states:
            await hostile.send(awareness(state))
        await hostile.barrier()
        await until(lambda: _count(ada, HOSTILE_PEOPLE), "everybody who says to be somebody in the list")
        styles: list[str] = await ada.page.locator("[style*='--who']").evaluate_all(
            "all => all.map(one => one.getAttribute('style'))"
        )
        for style in styles:
            assert re.fullmatch(r"--who:\s*#[0-9a-f]{6};?", style), style
        assert max(map(len, await ada.others())) <= 32
        await ada.type(" still")
        assert await ada.text() == "mine still"
    await ada.until_others()
    assert await stored_text(shared_server, document) == "mine still"


async def _count(window: Window, number: int) -> bool:
    return len(await window.others()) == number
