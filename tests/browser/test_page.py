"""The page in a real browser: two people in one document, and everything that can come between them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from playwright.async_api import expect

from collab.app import create_app
from collab.settings import Settings
from collab.transports.static import CONTENT_SECURITY_POLICY
from tests.browser.conftest import OpenWindow
from tests.browser.window import CONNECTION_LOST, PATIENCE, Cable, Window, until
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
    await grace.rename("  Grace \u202e Hopper ")
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
    await asyncio.gather(ada.until_offline(), grace.until_offline())
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
        await grace.until_offline()
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


async def test_leaving_while_offline_with_unsent_edits_asks_first(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(own_server.url, document)
    questions: list[str] = []

    async def stay(dialog: object) -> None:
        questions.append(dialog.type)  # type: ignore[attr-defined]
        await dialog.dismiss()  # type: ignore[attr-defined]

    window.page.on("dialog", stay)
    await own_server.akill()
    await window.until_offline()
    await window.go_to_end()
    await window.type("unsent")
    await window.page.close(run_before_unload=True)
    await until(lambda: _true(questions == ["beforeunload"]), "the question")
    await own_server.arestart()
    await window.until_connected()
    closed = asyncio.Event()
    window.page.on("close", lambda page: closed.set())
    await window.page.close(run_before_unload=True)
    await asyncio.wait_for(closed.wait(), PATIENCE)
    assert questions == ["beforeunload"], "connected again, so nothing is to be asked"
    window.forgive(CONNECTION_LOST)


async def _true(value: bool) -> bool:
    return value


# -- refused ----------------------------------------------------------------------------------------------------


async def test_a_name_that_the_server_refuses_is_said(shared_server: ServerProcess, open_window: OpenWindow) -> None:
    window = await open_window(shared_server.url, "x" * 513, connected=False)
    await window.until_status("Not connected")
    await expect(window.page.locator("#refused-reason")).to_have_text("This name cannot be used for a document.")
    await expect(window.page.locator("#rescue")).to_be_hidden()


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
    # A running server learns of it at its next write.
    await window.type("!")
    await window.until_status("Not connected")
    await expect(window.page.locator("#refused-reason")).to_have_text("This document was deleted.")
    await expect(window.page.locator("#editor")).to_have_attribute("contenteditable", "false")
    await window.page.locator("#rescue").click()
    await expect(window.page.locator("#rescue")).to_have_text("Copied")
    assert await window.page.evaluate("navigator.clipboard.readText()") == "precious!"


# -- the address ------------------------------------------------------------------------------------------------


async def test_without_a_name_the_page_invents_one_and_puts_it_into_the_address(
    shared_server: ServerProcess, open_window: OpenWindow
) -> None:
    first = await open_window(shared_server.url)
    (name,) = parse_qs(urlsplit(first.page.url).query)["doc"]
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{4}", name)
    await expect(first.page.locator("#title")).to_have_text(name)
    await first.go_to_end()
    await first.type("found again")
    second = await open_window(shared_server.url, name)
    await second.until_text(lambda text: text == "found again", "the text under the invented name")


async def test_the_copied_link_opens_the_same_document(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, document, permissions=["clipboard-read", "clipboard-write"])
    await ada.go_to_end()
    await ada.type("shared")
    button = ada.page.locator("#share")
    await button.click()
    await expect(button).to_have_text("Copied")
    link = await ada.page.evaluate("navigator.clipboard.readText()")
    grace = await open_window(shared_server.url, "somewhere else")
    await grace.page.goto(link)
    await grace.until_text(lambda text: text == "shared", "Ada's text")
    await expect(grace.page.locator("#title")).to_have_text(document)


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
        await until(lambda: _count(ada, len(HOSTILE_STATES)), "everybody in the list")
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


# -- the browser's own rules ------------------------------------------------------------------------------------


async def test_the_content_security_policy_is_in_force(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)
    response = await window.page.request.get(shared_server.url)
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    ran = await window.page.evaluate(
        """() => {
            const script = document.createElement('script')
            script.textContent = 'window.injected = true'
            document.body.append(script)
            return window.injected === true
        }"""
    )
    assert ran is False
    fetched = await window.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'answered', () => 'refused')")
    assert fetched == "refused"
    blocked = [error for error in window.errors if "Content Security Policy" in error]
    assert len(blocked) >= 2, window.errors
    window.errors.clear()
    window.foreign.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_a_phone(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, scheme: str
) -> None:
    phone = await open_window(
        shared_server.url,
        document,
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
        color_scheme=scheme,
    )
    await phone.go_to_end()
    await phone.type("A long line without end " * 10 + "and-one-word-that-does-not-fit-anywhere" * 4)
    width = await phone.page.evaluate("document.documentElement.scrollWidth")
    assert width == 390
    # Folded on a phone, and it unfolds.
    await expect(phone.page.locator("#name")).to_be_hidden()
    await phone.page.locator("#people summary").tap()
    await expect(phone.page.locator("#name")).to_be_visible()


async def test_the_page_can_be_used_without_a_mouse(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)
    page = window.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the text")).to_be_focused()
    await page.keyboard.press("Enter")
    editor = page.get_by_role("textbox", name=f"Text of {document}")
    await expect(editor).to_be_focused()
    await page.keyboard.type("typed")
    # Tab is the way out of the text, not a character in it.
    await page.keyboard.press("Shift+Tab")
    await expect(page.get_by_role("textbox", name="Your name")).to_be_focused()
    assert await window.text() == "typed"
    await expect(page.get_by_role("status")).to_have_text("Connected")
