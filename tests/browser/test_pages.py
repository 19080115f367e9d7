"""What holds for every page: the browser's rules, sizes, phones, keyboards, screen readers, tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import FrameLocator, expect

from collab.transports.http.static import CONTENT_SECURITY_POLICY
from tests.browser.conftest import OpenWindow
from tests.browser.window import PATIENCE, Window, until
from tests.support import token_server as token_server_script
from tests.support.server import ServerProcess

AXE = Path(__file__).parents[2] / "web_demo" / "node_modules" / "axe-core" / "axe.min.js"

# Bytes of a first visit as they travel, headers included: page, scripts, styles, icon.
FIRST_LOAD = {"": 100_000, "text/": 183_000, "code/": 280_000}
KINDS = ["text/", "code/"]

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def token_server(page_is_built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server whose tokens say how their bearer is treated; see tests/support/token_server.py."""
    with ServerProcess(tmp_path_factory.mktemp("tokens"), program=(token_server_script.__file__,)) as server:
        yield server


async def fill(window: Window) -> None:
    """Put something of everything into the document that a page shows."""
    await window.go_to_end()
    if (window.document or "").startswith("text/"):
        await window.type("# Heading\n")
        await window.type("Some **bold** words and `code`.\n")
        await window.type("- one\n")
        await window.type("two\n\n")
        await window.type("[ ] to do\n\n")
        await window.page.get_by_role("button", name="Table", exact=True).click()
        await window.type("cell")
    else:
        await window.page.keyboard.insert_text(
            "# Heading\n\nSome **bold** words and `code`.\n\n- [ ] to do\n\n```\nx\n```\n"
        )
    await window.until_status(window.saved)


# -- the browser's own rules ------------------------------------------------------------------------------------


async def test_the_content_security_policy_is_in_force(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, document)
    for path in ("/", "/split?doc=x", "/admin"):
        response = await window.page.request.get(shared_server.url + path)
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


@pytest.mark.parametrize("kind", FIRST_LOAD)
async def test_a_first_visit_loads_little(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    window = await open_window(shared_server.url, "" if not kind else kind + document, connected=bool(kind))
    # What is still on its way to this visit is not the next one's.
    await window.page.wait_for_load_state("networkidle")
    devtools = await window.context.new_cdp_session(window.page)
    sizes: dict[str, int] = {}
    compressed: list[str] = []
    devtools.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    devtools.on("Network.responseReceived", lambda event: compressed.append(_encoding(event["response"])))
    await devtools.send("Network.enable")
    await devtools.send("Network.setCacheDisabled", {"cacheDisabled": True})
    await window.page.reload(wait_until="networkidle")
    if kind:
        await window.until_connected()
    assert 10_000 < sum(sizes.values()) <= FIRST_LOAD[kind]
    assert {"br"} <= set(compressed) <= {"br", "", "gzip"}


def _encoding(response: dict[str, Any]) -> str:
    return str({key.lower(): value for key, value in response["headers"].items()}.get("content-encoding", ""))


# -- everybody can use it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("kind", ["", *KINDS])
async def test_axe_finds_nothing_serious(
    shared_server: ServerProcess,
    open_window: OpenWindow,
    document: str,
    kind: str,
    device: dict[str, Any],
    scheme: str,
) -> None:
    name = kind + document if kind else None
    window = await open_window(shared_server.url, name, color_scheme=scheme, name="Ada", **device)
    if kind:
        await fill(window)
        other = await open_window(shared_server.url, kind + document, name="Grace")
        await other.go_to_end()
        await other.type("x")
        await window.until_others("Grace")
    else:
        await expect(window.page.locator("#documents > li, #message").locator("visible=true").first).to_be_visible()
    await no_serious_finding(window)
    if kind:
        await window.page.locator("#people").click()
        await no_serious_finding(window)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
async def test_axe_finds_nothing_serious_side_by_side(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, device: dict[str, Any], scheme: str
) -> None:
    window = await open_window(
        shared_server.url, f"text/{document}", path="split", connected=False, color_scheme=scheme, **device
    )
    grace = window.page.frame_locator("iframe[title^='The document as Grace']")
    await expect(grace.locator("#status .words")).to_have_text("Saved", timeout=PATIENCE * 1000)
    await window.page.get_by_role("switch", name="Ada is online").click()
    ada = window.page.frame_locator("iframe[title^='The document as Ada']")
    await expect(ada.locator("#status")).to_have_attribute("data-state", "offline")
    # axe looks into frames that have it too.
    for frame in window.page.frames[1:]:
        await frame.evaluate(AXE.read_text())
    await no_serious_finding(window)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
async def test_axe_finds_nothing_serious_in_what_a_refused_visitor_sees(
    token_server: ServerProcess, open_window: OpenWindow, document: str, device: dict[str, Any], scheme: str
) -> None:
    window = await open_window(token_server.url, f"text/{document}", connected=False, color_scheme=scheme, **device)
    await window.until_status("Refused")
    await no_serious_finding(window)


async def no_serious_finding(window: Window) -> None:
    await window.page.evaluate(AXE.read_text())
    found = await window.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    serious = [
        (one["id"], one["help"], [node["html"][:120] + " " + node.get("failureSummary", "") for node in one["nodes"]])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == [], json.dumps(serious, indent=1)


@pytest.mark.parametrize("kind", ["", *KINDS])
async def test_the_page_fits_a_phone(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    phone = await open_window(
        shared_server.url,
        kind + document if kind else None,
        **PHONE,
    )
    if kind:
        await phone.go_to_end()
        await phone.type("A long line without end " * 4 + "and-one-word-that-does-not-fit-anywhere" * 4)
        await expect(phone.page.locator("#name")).to_be_hidden()
        await phone.page.locator("#people").tap()
        await expect(phone.page.locator("#name")).to_be_visible()
    assert await phone.page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("kind", KINDS)
async def test_the_page_can_be_used_without_a_mouse(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    window = await open_window(shared_server.url, kind + document)
    page = window.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the document")).to_be_focused()
    order = ["All documents", "Title of this document", "What the status means", "Who is here"]
    for _ in order:
        await page.keyboard.press("Tab")
    await expect(page.locator("#people")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("textbox", name="Your name")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#people")).to_be_focused()
    for _ in range(12):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == "editor":
            break
    await expect(page.locator("#editor")).to_be_focused()
    await page.keyboard.type("typed")
    if kind == "code/":
        # In code Tab indents; the page says how to get out.
        await expect(page.locator("#editor")).to_have_accessible_description(re.compile("Esc, then Tab leaves"))
        await expect(page.locator("#way-out")).to_be_visible()
        await page.keyboard.press("Escape")
    await page.keyboard.press("Shift+Tab")
    await expect(page.locator("#editor")).not_to_be_focused()
    assert await window.text() == "typed"


@pytest.mark.parametrize(
    ("kind", "words"), [("text/", "is on the server’s disk"), ("code/", "does not tell when they are on its disk")]
)
async def test_the_page_says_what_its_word_for_arrived_means(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str, words: str
) -> None:
    window = await open_window(shared_server.url, kind + document)
    meaning = window.page.locator("#meaning")
    await expect(meaning).to_be_hidden()
    await window.page.get_by_role("button", name=window.saved).click()
    await expect(meaning).to_contain_text(words)
    await no_serious_finding(window)


async def test_comings_and_goings_are_spoken_and_every_key_is_not(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    ada = await open_window(shared_server.url, f"text/{document}", name="Ada")
    spoken = ada.page.locator("#spoken")
    grace = await open_window(shared_server.url, f"text/{document}", name="Grace")
    await expect(spoken).to_have_text("Grace is here.")
    await ada.go_to_end()
    await ada.type("words")
    await ada.until_status("Saved")
    await expect(spoken).to_have_text("Grace is here.")
    await grace.page.close()
    await expect(spoken).to_have_text("Grace has left.")


@pytest.mark.parametrize("kind", KINDS)
async def test_two_windows_of_one_browser_are_one_person(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    grace = await open_window(shared_server.url, kind + document, name="Grace")
    # She has chosen no name: what is invented is her browser's, not the window's.
    ada = await open_window(shared_server.url, kind + document)
    name = await ada.page.locator("#name").input_value()
    await grace.until_others(name)
    await expect(grace.page.locator("#spoken")).to_have_text(f"{name} is here.")
    second = await open_window(shared_server.url, kind + document, beside=ada)
    theirs, own = (grace.page.locator("#list .person:not(.self)"), second.page.locator("#list .self .note"))
    await expect(theirs).to_contain_text("2 windows")
    await expect(own).to_have_text("you, 2 windows")
    for window in (grace, ada, second):
        await expect(window.page.locator("#count")).to_have_text("2 people here")
        await expect(window.page.locator("#people .face")).to_have_count(2)
    await expect(grace.page.locator("#spoken")).to_have_text(f"{name} is here.")

    async def colours() -> list[str]:
        return [
            await window.page.locator("#list .self .face").evaluate("face => face.style.getPropertyValue('--who')")
            for window in (ada, second, grace)
        ]

    async def one_each() -> bool:
        first, other, hers = await colours()
        return first == other != hers

    await until(one_each, "one colour in both windows, and another for Grace")
    # A new name holds for both at once.
    await second.call_oneself("Ada")
    await grace.until_others("Ada")
    await expect(theirs).to_contain_text("2 windows")
    await expect(ada.page.locator("#name")).to_have_value("Ada")
    await ada.page.close()
    await expect(own).to_have_text("you")
    await grace.until_others("Ada")
    await expect(theirs).not_to_contain_text("windows")


async def test_light_and_dark_follow_the_system_until_somebody_chooses(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, f"text/{document}", color_scheme="dark")

    async def ground() -> str:
        found: str = await window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return found

    async def turned_light() -> bool:
        return await ground() != dark

    dark = await ground()
    await window.page.emulate_media(color_scheme="light")
    await until(turned_light, "light")
    await window.page.get_by_role("button", name="Dark appearance").click()
    assert await ground() == dark
    await window.page.reload()
    await window.until_connected()
    assert await ground() == dark


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chosen", [False, True], ids=["system", "chosen"])
async def test_the_dark_appearance_prints_dark_on_white(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str, chosen: bool
) -> None:
    window = await open_window(shared_server.url, kind + document, color_scheme="light" if chosen else "dark")
    await fill(window)
    if chosen:
        await window.page.get_by_role("button", name="Dark appearance").click()
    await window.page.emulate_media(media="print")
    # Every letter is as dark as it is in the light appearance, which axe has judged.
    faint = await window.page.evaluate("""() => {
        const brightness = (color) => Math.max(...color.match(/[\\d.]+/g).slice(0, 3).map(Number))
        const texts = document.createTreeWalker(document.querySelector('#main'), NodeFilter.SHOW_TEXT)
        const faint = []
        while (texts.nextNode()) {
            const { data, parentElement } = texts.currentNode
            const { color } = getComputedStyle(parentElement)
            if (data.trim() && parentElement.checkVisibility() && brightness(color) > 160) faint.push([data, color])
        }
        return faint
    }""")
    assert faint == []
    assert (
        await window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_the_names_of_carets_at_one_place_do_not_cover_each_other(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    ada = await open_window(shared_server.url, kind + document, name="Ada")
    await ada.go_to_end()
    await ada.type("here")
    others = {name: await open_window(shared_server.url, kind + document, name=name) for name in ("Alan", "Grace")}
    for window in others.values():
        await window.until_text(lambda text: text == "here", "Ada's text")
        await window.go_to_end()
    await ada.until_carets(*others)

    async def apart() -> bool:
        boxes = await ada.page.locator(".caret-name").evaluate_all("all => all.map(one => one.getBoundingClientRect())")
        bars = await ada.page.locator(".tools").bounding_box()
        first, second = sorted(boxes, key=lambda box: box["top"])
        assert bars is not None
        return bool(bars["y"] + bars["height"] <= first["top"] and first["bottom"] <= second["top"] + 1)

    await until(apart, "two names that can both be read")


# -- side by side -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_two_sides_go_apart_while_one_is_unplugged_and_come_together(
    shared_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    window = await open_window(shared_server.url, kind + document, path="split", connected=False)
    page = window.page
    ada, grace = (page.frame_locator(f"iframe[title$='{name} sees it']") for name in ("Ada", "Grace"))
    for side in (ada, grace):
        await expect(side.locator("#status .words")).to_have_text(window.saved, timeout=PATIENCE * 1000)

    async def shows(side: FrameLocator, text: str) -> None:
        async def fact() -> bool:
            found = await side.locator("#editor").evaluate("""editor => {
                const copy = editor.cloneNode(true)
                for (const drawn of copy.querySelectorAll('.caret, .cm-placeholder')) drawn.remove()
                return copy.textContent
            }""")
            return bool(found == text)

        await until(fact, f"{text!r} on one side")

    await ada.locator("#editor").click()
    await page.keyboard.type("together")
    await shows(grace, "together")
    await expect(ada.locator("#list .person:not(.self) .name")).to_have_text("Grace")
    await page.get_by_role("switch", name="Grace is online").click()
    await expect(grace.locator("#status .words")).to_have_text("Offline, your changes are kept here")
    await page.keyboard.press("Tab")
    await grace.locator("#editor").click()
    await page.keyboard.press("Control+End")
    await page.keyboard.type(" apart")
    await ada.locator("#editor").click()
    await page.keyboard.press("Control+Home")
    await page.keyboard.type("still ")
    await shows(ada, "still together")
    await shows(grace, "together apart")
    await page.get_by_role("switch", name="Grace is online").click()
    for side in (ada, grace):
        await shows(side, "still together apart")
        await expect(side.locator("#status .words")).to_have_text(window.saved)


async def test_a_plug_that_is_pulled_before_its_side_is_there_holds(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    window = await open_window(shared_server.url, f"text/{document}", path="split", connected=False)
    page = window.page
    await page.get_by_role("switch", name="Grace is online").click()
    ada, grace = (page.frame_locator(f"iframe[title$='{name} sees it']") for name in ("Ada", "Grace"))
    await expect(ada.locator("#status .words")).to_have_text("Saved", timeout=PATIENCE * 1000)
    await expect(grace.locator("#status")).to_have_attribute("data-state", "offline")
    # A rename goes the same way as the word that a side is there; it does not put the plug back.
    await ada.locator("#title").fill("Renamed")
    await ada.locator("#title").press("Enter")
    await expect(page.get_by_role("heading", name="Renamed")).to_be_visible()
    await expect(grace.locator("#status")).to_have_attribute("data-state", "offline")
    await page.get_by_role("switch", name="Grace is online").click()
    await expect(grace.locator("#title")).to_have_value("Renamed", timeout=PATIENCE * 1000)
    await expect(grace.locator("#status .words")).to_have_text("Saved")
    # On a slow machine the plug is pulled while Grace's socket is being opened, and the browser says so.
    window.forgive(re.compile("WebSocket is closed before the connection is established"))


# -- who may --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_is_taken_from_the_link_and_leaves_the_address(
    token_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    for place in ("&token=write", "#token=write"):
        window = await open_window(token_server.url, kind + document, query=place)
        assert "write" not in window.page.url and "token" not in window.page.url
        await window.go_to_end()
        await window.type("x")
        await window.until_status(window.saved)
        await window.page.reload()
        await window.until_connected()
        await window.until_text(lambda text: "x" in text, "the text after the reload")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_is_asked_for_when_the_server_wants_one(
    token_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    window = await open_window(token_server.url, kind + document, connected=False)
    await window.until_status("Refused")
    notice = window.page.locator("#refused")
    await expect(notice).to_contain_text("This document needs a token. The answer was: a valid token is needed.")
    await expect(window.page.locator("#editor")).to_have_attribute("contenteditable", "false")
    await notice.get_by_role("textbox", name="Token").fill("deny")
    await notice.get_by_role("button", name="Open").click()
    await expect(notice).to_contain_text("The server has refused this document.")
    await notice.get_by_role("textbox", name="Token").fill("write")
    await notice.get_by_role("button", name="Open").click()
    await window.until_connected()
    await expect(notice).to_be_hidden()
    await window.go_to_end()
    await window.type("in")
    await window.until_status(window.saved)
    assert await window.text() == "in"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_sees_everything_live_and_changes_nothing(
    token_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    writer = await open_window(token_server.url, kind + document, query="&token=write", name="Ada")
    await writer.go_to_end()
    await writer.type("read me")
    await writer.until_status(writer.saved)
    reader = await open_window(token_server.url, kind + document, query="&token=read", name="Grace", connected=False)
    await reader.until_status("Read only")
    await reader.until_text(lambda text: text == "read me", "the writer's text")
    await writer.until_others("Grace")
    await expect(reader.page.locator("#editor")).to_have_attribute("contenteditable", "false")
    await expect(reader.page.locator("#title")).not_to_be_editable()
    await reader.page.locator("#editor").click()
    await reader.type("no")
    await writer.type("!")
    await reader.until_text(lambda text: text == "read me!", "the writer's text, and nothing else")
    await writer.until_text(lambda text: text == "read me!", "the writer's text, and nothing else")


async def test_home_asks_for_a_token_and_shows_what_it_may_see(
    token_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    writer = await open_window(token_server.url, f"text/{document}", query="&token=write")
    await writer.go_to_end()
    await writer.type("x")
    await writer.until_status("Saved")
    home = await open_window(token_server.url)
    await expect(home.page.locator("#message")).to_have_text("This server asks who you are.")
    await home.page.get_by_role("textbox", name="Token").fill("write")
    await home.page.get_by_role("button", name="Go on").click()
    found = home.page.locator(f'li[data-name="text/{document}"]')
    await expect(found).to_be_visible()
    await expect(found.get_by_role("button", name="Rename")).to_be_visible()
    await expect(found.get_by_role("button", name="Delete")).to_have_count(0)
    home.forgive(re.compile("401"))
