"""The pages on a server that wants signed tokens: links for guests, and tokens that run out while somebody writes."""

from __future__ import annotations

import time

import jwt
import pytest
from playwright.async_api import expect

from tests.auth.makers import SECRET
from tests.browser.conftest import OpenWindow
from tests.browser.test_board import draw, ready, scene, types, until_equal
from tests.browser.test_pages import no_serious_finding
from tests.browser.window import CONNECTION_LOST, Cable, Window, until
from tests.support.server import ServerProcess

KINDS = ["text/", "code/"]

CLIPBOARD = ["clipboard-read", "clipboard-write"]


def token(name: str = "Ada", access: str = "write", seconds: float = 3600) -> str:
    """What an application gives to its user."""
    claims = {"sub": name.lower(), "name": name, "documents": {"*": access}, "exp": time.time() + seconds}
    return jwt.encode(claims, SECRET, "HS256")


def signed_in(name: str = "Ada", access: str = "write", seconds: float = 3600) -> str:
    """What stands behind the address when ``name`` comes from there."""
    return f"#token={token(name, access, seconds)}"


async def guest_link(window: Window, access: str, life: str = "for a day") -> str:
    """Copy a link for guests, as a user does."""
    page = window.page
    await page.get_by_role("button", name="Share").click()
    await page.get_by_role("combobox", name="What guests may do").select_option(access)
    await page.get_by_role("combobox", name="For how long").select_option(life)
    await page.get_by_role("button", name="Copy guest link").click()
    await expect(page.locator("#share-menu")).to_be_hidden()
    await expect(page.locator(".toast").last).to_contain_text("Link copied. It opens the document until")
    link: str = await page.evaluate("navigator.clipboard.readText()")
    return link


@pytest.mark.parametrize("kind", KINDS)
async def test_a_guest_sees_edits_live_by_a_link_to_read_and_changes_nothing(
    signed_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    name = kind + document
    # Nothing is written yet: who has the link opens it all the same.
    ada = await open_window(signed_server.url, name, query=signed_in(), permissions=CLIPBOARD)
    link = await guest_link(ada, "read")
    address, _, fragment = link.partition("#")
    assert address.startswith(f"{signed_server.url}/?doc=") and fragment.startswith("token=")
    guest = await open_window(signed_server.url, name, query=f"#{fragment}", connected=False)
    await guest.until_status("Read only")
    assert "token" not in guest.page.url
    await ada.until_others("Guest of Ada")
    await guest.until_others("Ada")
    # One's own name is what the others see, and not to be chosen.
    for window, own in ((ada, "Ada"), (guest, "Guest of Ada")):
        await expect(window.page.locator("#name")).to_have_value(own)
        await expect(window.page.locator("#name")).not_to_be_editable()
    await ada.go_to_end()
    await ada.type("for all to read")
    await guest.until_text(lambda text: text == "for all to read", "Ada's text")
    await expect(guest.page.locator("#editor")).to_have_attribute("contenteditable", "false")
    await expect(guest.page.locator("#title")).not_to_be_editable()
    await guest.page.locator("#editor").click()
    await guest.type("no")
    await ada.type("!")
    for window in (ada, guest):
        await window.until_text(lambda text: text == "for all to read!", "Ada's text, and nothing else")
    # It opens this document alone.
    other = await open_window(signed_server.url, f"{name}2", query=f"#{fragment}", connected=False)
    await other.until_status("Refused")
    # Who may only read can let nobody in, and is offered the plain link alone.
    await guest.context.grant_permissions(CLIPBOARD)
    await guest.page.get_by_role("button", name="Share").click()
    await expect(guest.page.locator(".toast")).to_have_text("Link copied")
    assert await guest.page.evaluate("navigator.clipboard.readText()") == address


async def test_a_guest_draws_by_a_link_to_edit(
    signed_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    name = f"board/{document}"
    ada = await open_window(signed_server.url, name, query=signed_in(), permissions=CLIPBOARD)
    await ready(ada)
    await draw(ada, "r", (300, 300), (400, 380))
    await ada.until_status("Saved")
    await ada.page.get_by_role("button", name="Share").click()
    await no_serious_finding(ada)
    await ada.page.keyboard.press("Escape")
    links = [await guest_link(ada, "write"), await guest_link(ada, "read", "for an hour")]
    writer, reader = [
        await open_window(signed_server.url, name, query="#" + link.partition("#")[2], connected=False)
        for link in links
    ]
    await writer.until_status("Saved")
    await reader.until_status("Read only")
    await ready(writer, reader)
    await draw(writer, "o", (500, 300), (600, 380))
    both = ["rectangle", "ellipse"]
    await until_equal((ada, writer, reader), lambda seen: types(seen) == both, "the guest's ellipse")
    await draw(reader, "d", (700, 300), (800, 380))
    await draw(ada, "a", (700, 500), (800, 580))
    await until_equal((ada, writer, reader), lambda seen: types(seen) == [*both, "arrow"], "no reader's diamond")
    assert types(await scene(reader)) == [*both, "arrow"]
    # A guest lets nobody else in, and is offered the plain link alone.
    await writer.context.grant_permissions(CLIPBOARD)
    await writer.page.get_by_role("button", name="Share").click()
    await expect(writer.page.locator(".toast")).to_have_text("Link copied")
    await expect(writer.page.locator("#share-menu")).to_be_hidden()


async def test_what_cannot_be_had_is_not_offered(
    page_is_built: None, tmp_path_factory: pytest.TempPathFactory, open_window: OpenWindow, document: str
) -> None:
    directory = tmp_path_factory.mktemp("off")
    environment = {"COLLAB_JWT_SECRET": SECRET, "COLLAB_MAX_SHARE_SECONDS": "0"}
    with ServerProcess(directory, environment=environment) as server:
        ada = await open_window(server.url, f"text/{document}", query=signed_in(), permissions=CLIPBOARD)
        await ada.page.get_by_role("button", name="Share").click()
        await expect(ada.page.locator(".toast")).to_have_text("Link copied")
        assert "#" not in await ada.page.evaluate("navigator.clipboard.readText()")
        await ada.page.close()


async def show_another(window: Window, another: str) -> None:
    """Paste a token where the page asks for one."""
    notice = window.page.locator("#refused")
    await notice.get_by_role("textbox", name="Token").fill(another)
    await notice.get_by_role("button", name="Open").click()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_that_runs_out_is_said_and_a_new_one_goes_on_where_it_was(
    signed_server: ServerProcess, open_window: OpenWindow, document: str, kind: str
) -> None:
    name = kind + document
    grace = await open_window(signed_server.url, name, query=signed_in("Grace"))
    async with Cable(signed_server.port) as cable:
        ada = await open_window(cable.url, name, query=signed_in(seconds=10))
        await ada.go_to_end()
        await ada.type("while it lasted")
        await ada.until_status(ada.saved)
        # It runs out while she looks on.
        await ada.until_status("Refused")
        notice = ada.page.locator("#refused")
        await expect(notice).to_contain_text("Your access has run out. Show a new token to go on")
        await expect(ada.page.locator("#editor")).to_have_attribute("contenteditable", "false")
        await grace.until_others()
        end = time.time() + 10
        await show_another(ada, token(seconds=10))
        await ada.until_connected()
        await expect(notice).to_be_hidden()
        await ada.go_to_end()
        await ada.type(", again")
        await grace.until_text(lambda text: text == "while it lasted, again", "what was written with the new token")
        # It runs out while she is cut off, and writes on.
        await cable.pull_out()
        await ada.until_cut_off()
        await ada.type(", alone")

        async def run_out() -> bool:
            return time.time() > end

        await until(run_out, "the end of the second token")
        await cable.plug_in()
        await ada.until_status("Refused")
        await expect(notice).to_contain_text("Your access has run out. Show a new token to go on")
        assert await ada.text() == "while it lasted, again, alone"
        await grace.go_to_end()
        await grace.type("!")
        await show_another(ada, token())
        for window in (ada, grace):
            await window.until_connected()
            seen = await window.until_text(lambda text: "!" in text and "alone" in text, "what both have written")
            assert sorted(seen) == sorted("while it lasted, again, alone!")
        await ada.until_others("Grace")
        ada.forgive(CONNECTION_LOST)
        await ada.page.close()
