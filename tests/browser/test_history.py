"""The history at the side of each page: versions, the document as it was and how it came to be, and the way back."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Locator, expect

from tests.browser.conftest import OpenWindow
from tests.browser.test_board import draw, ready, types, until_equal
from tests.browser.test_pages import PHONE, no_serious_finding
from tests.browser.test_tokens import CLIPBOARD, guest_link, signed_in
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
@pytest.mark.parametrize("kind", KINDS)
async def test_axe_finds_nothing_serious_in_the_history(
    shared_server: ServerProcess,
    open_window: OpenWindow,
    document: str,
    kind: str,
    device: dict[str, Any],
    scheme: str,
) -> None:
    # A film that nobody starts stands still.
    look: dict[str, Any] = {"color_scheme": scheme, "reduced_motion": "reduce", **device}
    writer = await open_window(shared_server.url, kind + document, name="Ada")
    if kind == "board/":
        await ready(writer)
        await draw(writer, "r", (300, 300), (420, 380))
    else:
        await write(writer, "some words\nof two lines")
    await writer.until_status(writer.saved)
    window = await open_window(shared_server.url, kind + document, **look)
    panel = await open_history(window)
    await keep(window, "A name")
    await no_serious_finding(window)
    await look_at(window, newest(panel))
    await no_serious_finding(window)
    film = await play(window)
    await seek(film, await last_place(film))
    await no_serious_finding(window)
    await panel.get_by_role("button", name="Who wrote what").click()
    who = window.page.get_by_role("region", name="Who wrote what")
    await expect(who.get_by_role("list", name="Authors").locator("bdi")).not_to_have_count(0, timeout=PATIENCE * 1000)
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


# -- the whole life ---------------------------------------------------------------------------------------------


async def play(window: Window) -> Locator:
    """Open the film from the open panel, and wait until it is loaded."""
    panel = window.page.get_by_role("complementary", name="History")
    await panel.get_by_role("button", name="Play back").click()
    film = window.page.get_by_role("region", name="The life of the document")
    await expect(film.get_by_role("slider", name="Place in the film")).to_be_enabled(timeout=PATIENCE * 1000)
    return film


async def seek(film: Locator, place: int) -> None:
    """Go to a place of a film that stands still, and wait until it shows."""
    slider = film.get_by_role("slider", name="Place in the film")
    await slider.evaluate(
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')) }", str(place)
    )
    await expect(film.locator(".count")).to_have_text(re.compile(f"^{place} of "), timeout=PATIENCE * 1000)


async def last_place(film: Locator) -> int:
    return int(await film.get_by_role("slider", name="Place in the film").get_attribute("max") or "0")


@pytest.mark.parametrize("kind", WRITTEN)
async def test_the_life_of_a_document_is_played_and_gone_through(two: Two, kind: str) -> None:
    ada, grace = await two(kind)
    await write(ada, "words of Ada")
    await grace.until_text(lambda text: text == "words of Ada", "the words of Ada")
    await write(grace, ", and of Grace")
    await open_history(ada)
    film = await play(ada)
    place, typing = film.locator(".past-place"), film.locator(".typing")
    # It goes by itself to its end, and what others write meanwhile is in the live document alone.
    await expect(place).to_contain_text("words of Ada, and of", timeout=PATIENCE * 1000)
    await expect(film.get_by_role("button", name="Play", exact=True)).to_be_visible(timeout=PATIENCE * 1000)
    await write(grace, "!")
    await expect(place).not_to_contain_text("!")
    await seek(film, 1)
    await expect(typing).to_contain_text("Ada")
    await expect(place).to_contain_text("w")
    await expect(place).not_to_contain_text("words of Ada")
    end = await last_place(film)
    await seek(film, end)
    await expect(typing).to_contain_text("Grace")
    await expect(place.locator(".caret-name")).to_have_text("Grace")
    # By the keyboard: one edit back and forth, play, and away.
    slider = film.get_by_role("slider", name="Place in the film")
    await slider.press("ArrowLeft")
    await expect(slider).to_have_attribute("aria-valuetext", re.compile(f"^Edit {end - 1} of {end}, .*Grace"))
    await slider.press("Home")
    await expect(film.locator(".count")).to_have_text(f"0 of {end}")
    await slider.press(" ")
    await expect(film.locator(".count")).to_have_text(f"{end} of {end}", timeout=PATIENCE * 1000)
    await slider.press("Escape")
    await expect(film).to_have_count(0)
    assert await ada.text() == "words of Ada, and of Grace!"


async def test_the_life_of_a_board_is_played(two: Two) -> None:
    ada, grace = await two("board/")
    await ready(ada, grace)
    await draw(ada, "r", (300, 300), (420, 380))
    await until_equal([ada, grace], lambda seen: types(seen) == ["rectangle"], "the rectangle")
    await draw(grace, "o", (560, 300), (680, 380))
    await until_equal([ada, grace], lambda seen: sorted(types(seen)) == ["ellipse", "rectangle"], "both shapes")
    await grace.until_status(grace.saved)
    await open_history(ada)
    film = await play(ada)
    await expect(film.get_by_role("button", name="Play", exact=True)).to_be_visible(timeout=PATIENCE * 1000)

    async def whole() -> bool:
        # What came last has a frame in the colour of its author.
        return await past_types(ada) == ["ellipse", "rectangle", "rectangle"]

    await seek(film, await last_place(film))
    await until(whole, "both shapes, and a frame around the last one")
    await expect(film.locator(".typing")).to_contain_text("Grace")
    await seek(film, 0)

    async def nothing() -> bool:
        return await past_types(ada) == []

    await until(nothing, "the empty board")


async def test_a_film_does_not_begin_by_itself_where_nobody_wants_movement(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, f"text/{document}", reduced_motion="reduce")
    await write(window, "words")
    await open_history(window)
    film = await play(window)
    end = await last_place(film)
    await expect(film.locator(".count")).to_have_text(f"0 of {end}")
    play_button = film.get_by_role("button", name="Play", exact=True)
    await expect(play_button).to_be_focused()
    await play_button.press("Enter")
    await expect(film.locator(".count")).to_have_text(f"{end} of {end}", timeout=PATIENCE * 1000)


@pytest.mark.parametrize("kind", WRITTEN)
async def test_it_is_said_who_wrote_what_is_selected(two: Two, kind: str) -> None:
    ada, grace = await two(kind)
    await write(ada, "words of Ada")
    await grace.until_text(lambda text: text == "words of Ada", "the words of Ada")
    await write(grace, ", and more")
    await ada.until_text(lambda text: text == "words of Ada, and more", "the words of Grace")
    panel = await open_history(ada)
    await panel.get_by_role("button", name="Who wrote what").click()
    who = ada.page.get_by_role("region", name="Who wrote what")
    await expect(who).not_to_have_attribute("aria-busy", "true", timeout=PATIENCE * 1000)
    assert sorted(await who.get_by_role("list", name="Authors").locator("bdi").all_text_contents()) == ["Ada", "Grace"]
    spans = who.locator("span.change.written")
    await expect(spans).to_have_text(["words of Ada", ", and more"])
    said = who.get_by_role("status")
    for at, name in enumerate(("Ada", "Grace")):
        await spans.nth(at).evaluate("element => getSelection().selectAllChildren(element)")
        await expect(said).to_have_text(re.compile(rf"^Written by {name}, .*\d"))
    await who.get_by_role("button", name="Back to the present").click()
    await expect(who).to_have_count(0)


async def test_the_elements_of_a_board_have_the_colours_of_their_authors(two: Two) -> None:
    ada, grace = await two("board/")
    await ready(ada, grace)
    await draw(ada, "r", (300, 300), (420, 380))
    await until_equal([ada, grace], lambda seen: types(seen) == ["rectangle"], "the rectangle")
    await draw(grace, "o", (560, 300), (680, 380))
    await until_equal([ada, grace], lambda seen: sorted(types(seen)) == ["ellipse", "rectangle"], "both shapes")
    panel = await open_history(ada)
    await panel.get_by_role("button", name="Who wrote what").click()
    who = ada.page.get_by_role("region", name="Who wrote what")
    await expect(who.get_by_role("list", name="Authors").locator("bdi")).to_have_count(2, timeout=PATIENCE * 1000)
    script = (
        "document.querySelector('#past-board').excalidraw.getSceneElements()"
        ".filter(({ id }) => id.startsWith('frame of')).map(({ strokeColor }) => strokeColor)"
    )

    async def framed() -> bool:
        return len(set(await ada.page.evaluate(script))) == 2

    await until(framed, "a frame in a colour of its own for each author")


async def test_names_that_were_seen_stand_for_those_who_are_not_signed_in(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, f"text/{document}", name="Ada")
    grace = await open_window(shared_server.url, f"text/{document}", name="Grace")
    await ada.until_others("Grace")
    await write(grace, "words of Grace")
    await ada.until_text(lambda text: text == "words of Grace", "the words of Grace")
    await grace.page.close()
    await ada.until_others()
    panel = await open_history(ada)
    await panel.get_by_role("button", name="Who wrote what").click()
    who = ada.page.get_by_role("region", name="Who wrote what")
    await expect(who.get_by_role("list", name="Authors").locator("bdi")).to_have_text(
        ["Grace"], timeout=PATIENCE * 1000
    )


async def test_a_guest_has_a_name_in_the_history_for_those_who_never_saw_him(
    signed_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(signed_server.url, f"text/{document}", query=signed_in(), permissions=CLIPBOARD)
    link = "#" + (await guest_link(ada, "write")).partition("#")[2]
    guest = await open_window(signed_server.url, f"text/{document}", query=link)
    await ada.until_others("Guest of Ada")
    await write(guest, "words of a guest")
    await ada.until_text(lambda text: text == "words of a guest", "the words of the guest")
    panel = await open_history(ada)
    moment = re.compile("^Guest of Ada")
    await expect(panel.get_by_role("button", name=moment)).to_be_visible(timeout=PATIENCE * 1000)
    await expect(panel).not_to_contain_text("guest:")
    await panel.get_by_role("button", name="Who wrote what").click()
    authors = ada.page.get_by_role("region", name="Who wrote what").get_by_role("list", name="Authors").locator("bdi")
    await expect(authors).to_have_text(["Guest of Ada"], timeout=PATIENCE * 1000)
    # So it is in a window that has never seen him.
    await guest.page.close()
    await ada.until_others()
    grace = await open_window(signed_server.url, f"text/{document}", query=signed_in("Grace"))
    panel = await open_history(grace)
    await expect(panel.get_by_role("button", name=moment)).to_be_visible(timeout=PATIENCE * 1000)
    await panel.get_by_role("button", name="Who wrote what").click()
    authors = grace.page.get_by_role("region", name="Who wrote what").get_by_role("list", name="Authors").locator("bdi")
    await expect(authors).to_have_text(["Guest of Ada"], timeout=PATIENCE * 1000)
