"""The history at the side of each page: versions with names, the document as it was, what has changed, the way back."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Locator, expect

from tests.browser.conftest import OpenWindow
from tests.browser.test_board import draw, ready, types, until_equal
from tests.browser.test_pages import PHONE, no_serious_finding
from tests.browser.test_tokens import signed_in
from tests.browser.window import PATIENCE, Window, until
from tests.support.server import ServerProcess

KINDS = ["text/", "code/", "board/"]
WRITTEN = ["text/", "code/"]

Two = Callable[[str], Awaitable[tuple[Window, Window]]]


@pytest.fixture
def two(signed_server: ServerProcess, open_window: OpenWindow, document: str) -> Two:
    """Open a document of a kind as Ada and as Grace, who are signed in."""

    async def give(kind: str) -> tuple[Window, Window]:
        windows = [
            await open_window(signed_server.url, kind + document, query=signed_in(name)) for name in ("Ada", "Grace")
        ]
        await windows[0].until_others("Grace")
        return windows[0], windows[1]

    return give


async def open_history(window: Window) -> Locator:
    """Open the panel; gives it."""
    await window.page.get_by_role("button", name="History").click()
    panel = window.page.get_by_role("complementary", name="History")
    await expect(panel).to_be_visible()
    return panel


async def keep(window: Window, name: str) -> None:
    """Give what the document holds a name, in the open panel."""
    panel = window.page.get_by_role("complementary", name="History")
    await window.until_status(window.saved)
    await panel.get_by_role("textbox", name="Name this version").fill(name)
    await window.page.keyboard.press("Enter")
    await expect(panel.get_by_role("button", name=re.compile(f"^{name}"))).to_be_visible(timeout=PATIENCE * 1000)


async def look_at(window: Window, moment: Locator) -> Locator:
    """Choose a moment of the list, and wait until it shows; gives what was."""
    await moment.click()
    past = window.page.get_by_role("region", name="The document as it was")
    await expect(past).to_be_visible(timeout=PATIENCE * 1000)
    await expect(past).not_to_have_attribute("aria-busy", "true", timeout=PATIENCE * 1000)
    return past


def newest(panel: Locator) -> Locator:
    """The newest moment of the past."""
    return panel.locator(".moments .moment").first


async def past_types(window: Window) -> list[str]:
    """The kinds of the elements that the board of the past shows."""
    script = "document.querySelector('#past-board')?.excalidraw?.getSceneElements().map(({ type }) => type) ?? []"
    found: list[str] = await window.page.evaluate(script)
    return sorted(found)


async def write(window: Window, words: str) -> None:
    await window.go_to_end()
    await window.type(words)
    await window.until_status(window.saved)


# -- there and back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITTEN)
async def test_one_restores_a_version_and_the_other_sees_it_and_goes_on(two: Two, kind: str) -> None:
    ada, grace = await two(kind)
    await write(ada, "the first words")
    panel = await open_history(ada)
    await keep(ada, "First draft")
    await write(grace, " and what came later")
    past = await look_at(ada, panel.get_by_role("button", name=re.compile("^First draft")))
    place = past.locator(".past-place")
    await expect(place).to_contain_text("the first words")
    await expect(place).not_to_contain_text("later")
    # Nothing of that touches the document, which lives on meanwhile.
    await write(grace, ", and last")
    assert await grace.text() == "the first words and what came later, and last"
    await past.get_by_role("button", name="Restore this version").click()
    for window in (ada, grace):
        await window.until_text(lambda text: text == "the first words", "the restored words")
    await expect(past).to_have_count(0)
    await write(grace, ", once more")
    await ada.until_text(lambda text: text == "the first words, once more", "what Grace goes on to write")
    # The restore is an entry of its own, by Ada, and can be taken back.
    await ada.page.get_by_role("status").get_by_role("button", name="Undo").click()
    for window in (ada, grace):
        await window.until_text(lambda text: "later, and last" in text, "what was there before the restore")


async def test_a_board_is_restored_for_everybody(two: Two) -> None:
    ada, grace = await two("board/")
    await ready(ada, grace)
    await draw(ada, "r", (300, 300), (420, 380))
    await until_equal([ada, grace], lambda seen: types(seen) == ["rectangle"], "the rectangle")
    panel = await open_history(ada)
    await keep(ada, "One shape")
    await draw(grace, "o", (560, 300), (680, 380))
    await until_equal([ada, grace], lambda seen: sorted(types(seen)) == ["ellipse", "rectangle"], "both shapes")
    past = await look_at(ada, panel.get_by_role("button", name=re.compile("^One shape")))

    async def framed() -> bool:
        return await past_types(ada) == ["rectangle", "rectangle"]

    await until(framed, "the rectangle, and the frame that marks it as new")
    await past.get_by_role("checkbox", name="Show changes").uncheck()

    async def alone() -> bool:
        return await past_types(ada) == ["rectangle"]

    await until(alone, "the rectangle alone")
    await past.get_by_role("button", name="Restore this version").click()
    await until_equal([ada, grace], lambda seen: types(seen) == ["rectangle"], "the restored board")
    await draw(grace, "d", (560, 420), (680, 500))
    await until_equal([ada, grace], lambda seen: sorted(types(seen)) == ["diamond", "rectangle"], "what Grace draws")


@pytest.mark.parametrize("kind", WRITTEN)
async def test_what_has_changed_is_in_the_colours_of_its_authors(two: Two, kind: str) -> None:
    ada, grace = await two(kind)
    await write(ada, "one two three")
    panel = await open_history(ada)
    await keep(ada, "Before")
    await grace.until_text(lambda text: text == "one two three", "the words of Ada")
    await grace.go_to_end()
    await grace.page.keyboard.press("Control+Shift+ArrowLeft")
    await grace.page.keyboard.press("Backspace")
    await grace.page.keyboard.press("Home")
    await grace.type("zip ")
    await ada.until_text(lambda text: text == "zip one two ", "the edits of Grace")
    await grace.until_status(grace.saved)
    await expect(panel.locator(".moments .moment")).to_have_count(2, timeout=PATIENCE * 1000)
    past = await look_at(ada, newest(panel))
    added, removed = (past.locator(f".past-place .change.{change}") for change in ("added", "removed"))
    await expect(added).to_have_text("zip ")
    await expect(removed).to_have_text("three")
    for change, said in ((added, "Added by Grace"), (removed, "Deleted by Grace")):
        await expect(change).to_have_attribute("title", re.compile(said))
    assert await removed.evaluate("element => getComputedStyle(element).textDecorationLine") == "line-through"
    await expect(past.get_by_role("status")).to_have_text("1 of 2")
    await past.get_by_role("button", name="Next change").click()
    await expect(past.get_by_role("status")).to_have_text("2 of 2")
    # Back with the keyboard alone: the document is as it was left.
    await panel.get_by_role("button", name=re.compile("^Now")).focus()
    await ada.page.keyboard.press("Escape")
    await expect(past).to_have_count(0)
    assert await ada.text() == "zip one two "
    await ada.page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()


async def test_the_edits_of_one_person_are_undone(two: Two) -> None:
    ada, grace = await two("text/")
    await write(ada, "kept words")
    await grace.until_text(lambda text: text == "kept words", "the words of Ada")
    await write(grace, " of Grace")
    await ada.until_text(lambda text: text == "kept words of Grace", "the words of Grace")
    await write(ada, " and of Ada")
    panel = await open_history(ada)
    past = await look_at(ada, newest(panel))
    await past.get_by_role("button", name="Undo one person’s edits").click()
    await past.get_by_role("button", name="Undo Grace’s edits").click()
    for window in (ada, grace):
        await window.until_text(lambda text: text == "kept words and of Ada", "the words without those of Grace")


# -- versions, links, copies ------------------------------------------------------------------------------------


async def test_a_version_is_named_renamed_linked_to_and_copied(
    two: Two, signed_server: ServerProcess, open_window: OpenWindow
) -> None:
    ada, _ = await two("text/")
    await ada.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await ada.rename_document("Minutes")
    await write(ada, "words of the past")
    panel = await open_history(ada)
    await keep(ada, "Draft")
    await write(ada, ", and later ones")
    await panel.get_by_role("checkbox", name="Only named versions").check()
    await expect(panel.locator(".moments .moment")).to_have_count(1)
    past = await look_at(ada, newest(panel))
    await past.get_by_role("button", name="Rename it").click()
    field = panel.get_by_role("textbox", name="Name this version")
    await expect(field).to_have_value("Draft")
    await field.fill("Sent to the board")
    await ada.page.keyboard.press("Enter")
    await expect(newest(panel)).to_contain_text("Sent to the board")
    await past.get_by_role("button", name="Copy link").click()
    await expect(ada.page.locator(".toast").last).to_have_text("Link to this version copied")
    link: str = await ada.page.evaluate("navigator.clipboard.readText()")
    assert re.search(r"&version=\d+$", link)
    visitor = await open_window(signed_server.url, ada.document, query=f"&{link.rsplit('&')[-1]}{signed_in('Alan')}")
    shown = visitor.page.get_by_role("article", name="Text as it was")
    await expect(shown).to_contain_text("words of the past", timeout=PATIENCE * 1000)
    await expect(shown).not_to_contain_text("later")
    await past.get_by_role("button", name="Make a copy").click()
    await ada.page.get_by_role("button", name="Open it").click()
    await expect(ada.page.locator("#title")).to_have_value("Copy of Minutes", timeout=PATIENCE * 1000)
    await ada.until_text(lambda text: text == "words of the past", "the copy")


@pytest.mark.parametrize("kind", WRITTEN)
async def test_who_may_only_read_looks_back_and_changes_nothing(
    two: Two, signed_server: ServerProcess, open_window: OpenWindow, kind: str
) -> None:
    ada, _ = await two(kind)
    await write(ada, "words of the past")
    reader = await open_window(signed_server.url, ada.document, query=signed_in("Alan", "read"), connected=False)
    await reader.until_status("Read only")
    panel = await open_history(reader)
    past = await look_at(reader, newest(panel))
    await expect(past).to_contain_text("words of the past")
    await expect(past.get_by_role("button", name="Copy link")).to_be_visible()
    await expect(past.get_by_role("button", name="Restore this version")).to_have_count(0)
    await expect(panel.get_by_role("textbox")).to_be_hidden()


# -- everybody can use it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("kind", WRITTEN)
async def test_axe_finds_nothing_serious_in_the_history(
    shared_server: ServerProcess,
    open_window: OpenWindow,
    document: str,
    kind: str,
    device: dict[str, Any],
    scheme: str,
) -> None:
    window = await open_window(shared_server.url, kind + document, color_scheme=scheme, **device)
    await write(window, "some words\nof two lines")
    panel = await open_history(window)
    await keep(window, "A name")
    await no_serious_finding(window)
    await look_at(window, newest(panel))
    await no_serious_finding(window)
    width = await window.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]


async def test_the_list_goes_by_the_arrow_keys(shared_server: ServerProcess, open_window: OpenWindow) -> None:
    window = await open_window(shared_server.url, "text/arrows in the history")
    await write(window, "words")
    panel = await open_history(window)
    await expect(newest(panel)).to_be_visible(timeout=PATIENCE * 1000)
    await expect(panel.get_by_role("button", name=re.compile("^Now"))).to_be_focused()
    await window.page.keyboard.press("ArrowDown")
    await expect(newest(panel)).to_be_focused()
    await window.page.keyboard.press("Enter")
    await expect(window.page.get_by_role("region", name="The document as it was")).to_contain_text("words")


async def test_nothing_of_it_is_loaded_before_it_is_opened(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, f"text/{document}")
    await write(window, "words")
    await window.page.wait_for_load_state("networkidle")
    loaded: list[str] = []
    window.page.on("request", lambda request: loaded.append(request.url))
    panel = await open_history(window)
    await expect(newest(panel)).to_be_visible(timeout=PATIENCE * 1000)
    assert any("panel" in url for url in loaded)
    assert any("/timeline/" in url for url in loaded)
