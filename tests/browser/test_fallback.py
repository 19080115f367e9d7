"""Networks that let no WebSocket through: the pages go over plain HTTP, and back when a WebSocket opens.

Strategy: one window is behind an ``Office`` (``window.py``), the other one has its socket to the same server. What a
page must not do is asked of what it has asked for: without a reason it sends nothing to ``/streams``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Request, Route, expect

from tests.auth.makers import SECRET
from tests.browser.conftest import OpenWindow
from tests.browser.test_board import draw, ready, types, until_equal
from tests.browser.test_tokens import signed_in, token
from tests.browser.window import CONNECTION_LOST, PATIENCE, Cable, Office, Window, until
from tests.support.proxies import Proxy
from tests.support.server import ServerProcess

LIMITED = "Saved (limited network)"
SAVING = "Saving (limited network)"

# Chromium logs it when a page asks for a document that nobody has created yet.
NOT_THERE_YET = re.compile("status of 404")

# A browser has six connections to a server over HTTP/1.1, and each tab wants to know of two things live.
TABS = 4


@pytest_asyncio.fixture(loop_scope="session")
async def office(shared_server: ServerProcess) -> AsyncIterator[Office]:
    async with Office(shared_server.port) as office:
        yield office


async def browser_tells_of_another_network(window: Window) -> None:
    """The page tries its WebSocket then, and not only once a minute."""
    await window.page.evaluate("dispatchEvent(new Event('online'))")


def looks(window: Window) -> list[str]:
    """Collect what the window asks of the server over HTTP: whether it is there, and all of the protocol of streams."""
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.method == "HEAD" or "/streams/" in request.url:
            asked.append(request.url)

    window.page.on("request", note)
    return asked


@asynccontextmanager
async def held_back(window: Window, method: str = "POST") -> AsyncIterator[asyncio.Event]:
    """Let no edit of the window reach the server until the block ends; gives what is set when one is held."""
    came, go = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        if route.request.method == method and "awareness=" not in route.request.url:
            came.set()
            await go.wait()
        await route.continue_()

    await window.page.route("**/streams/**", hold)
    yield came
    go.set()


async def test_a_text_goes_over_http_and_back_to_its_socket(
    shared_server: ServerProcess, open_window: OpenWindow, office: Office, document: str
) -> None:
    name = "text/" + document
    grace = await open_window(shared_server.url, name, name="Grace")
    ada = await open_window(office.url, name, name="Ada", connected=False)
    ada.forgive(CONNECTION_LOST, NOT_THERE_YET)
    await ada.until_status(LIMITED)
    # Both see who is there, and where.
    await ada.until_others("Grace")
    await grace.until_others("Ada")
    await ada.go_to_end()
    await ada.type("by http ")
    await grace.until_text(lambda text: text == "by http ", "Ada's words")
    await grace.until_carets("Ada")
    await grace.go_to_end()
    await grace.type("by socket ")
    await ada.until_text(lambda text: text == "by http by socket ", "Grace's words")
    await ada.until_carets("Grace")
    # Saved is what the server has on its disk.
    async with held_back(ada) as came:
        await ada.type("held ")
        await asyncio.wait_for(came.wait(), PATIENCE)
        await ada.until_status(SAVING)
        await asyncio.sleep(0.5)  # longer than it is shown for calm
        assert await ada.status() == SAVING
        assert "held" not in await grace.text()
        await ada.type("back ")
    await ada.until_status(LIMITED)
    await grace.until_text(lambda text: "held back" in text, "what was held")
    # Back to the socket, in the middle of edits.
    office.blocked = False
    await browser_tells_of_another_network(ada)
    await ada.type("and on")
    await ada.until_status("Saved")
    expected = await ada.text()
    assert sorted(expected) == sorted("by http by socket held back and on")
    await grace.until_text(lambda text: text == expected, "the same text")
    asked = looks(ada)
    await grace.type("!")
    await ada.until_text(lambda text: "!" in text, "an edit over the socket")
    await ada.until_others("Grace")
    await grace.until_others("Ada")
    assert asked == []


async def test_code_that_was_edited_offline_goes_out_over_http(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    name = "code/" + document
    async with Office(shared_server.port, "hangs") as office:
        office.blocked = False
        ada = await open_window(office.url, name, name="Ada")
        ada.forgive(CONNECTION_LOST, NOT_THERE_YET)
        await ada.go_to_end()
        await ada.type("socket\n")
        await ada.until_connected()
        # The laptop is carried to a network that blocks.
        await office.pull_out()
        await ada.until_cut_off()
        await ada.type("offline\n")
        office.blocked = True
        await office.plug_in()
        await browser_tells_of_another_network(ada)
        await ada.until_status(LIMITED)
        grace = await open_window(shared_server.url, name, name="Grace")
        await grace.until_text(lambda text: text.startswith("socket\noffline\n"), "what was written offline")
        # And its HTTP fails as well, for a while.
        await office.pull_out()
        await ada.until_cut_off()
        await ada.type("offline again\n")
        await grace.go_to_end()
        await grace.type("meanwhile\n")
        await office.plug_in()
        await ada.until_status(LIMITED)
        expected = await ada.until_text(lambda text: "again" in text and "meanwhile" in text, "both edits")
        await grace.until_text(lambda text: text == expected, "the same text")
        assert sorted(expected.split()) == sorted(["socket", "offline", "offline", "again", "meanwhile"])
        await ada.until_others("Grace")
        await grace.until_others("Ada")


async def test_a_board_is_drawn_over_http(shared_server: ServerProcess, open_window: OpenWindow, document: str) -> None:
    name = "board/" + document
    async with Office(shared_server.port, "swallows") as office:
        grace = await open_window(shared_server.url, name, name="Grace")
        ada = await open_window(office.url, name, name="Ada", connected=False)
        ada.forgive(CONNECTION_LOST, NOT_THERE_YET)
        await ada.until_status(LIMITED)
        await ready(ada, grace)
        await draw(ada, "r", (300, 300), (400, 400))
        await draw(grace, "o", (500, 300), (600, 400))
        await until_equal((ada, grace), lambda scene: types(scene) == ["rectangle", "ellipse"], "both shapes")
        await ada.until_status(LIMITED)
        await ada.until_others("Grace")
        await grace.until_others("Ada")
        # Who closes the page is gone at once.
        await ada.page.goto(office.url)
        await grace.until_others()


async def test_a_document_is_renamed_from_home_over_http(
    shared_server: ServerProcess, open_window: OpenWindow, office: Office, document: str
) -> None:
    name = "text/" + document
    grace = await open_window(shared_server.url, name, name="Grace")
    await grace.rename_document("Before")
    home = await open_window(office.url)
    home.forgive(CONNECTION_LOST)
    row = home.page.locator("#documents > li").filter(has_text="Before")
    await row.get_by_role("button", name="Rename").click()
    await row.get_by_role("textbox").fill("After")
    await row.get_by_role("textbox").press("Enter")
    await expect(grace.page.locator("#title")).to_have_value("After", timeout=1000 * PATIENCE)


async def test_four_tabs_of_one_document_share_the_connections_of_a_browser(
    shared_server: ServerProcess, open_window: OpenWindow, office: Office, document: str
) -> None:
    name = "code/" + document
    tabs = [await open_window(office.url, name, query="&as=Tab 0", connected=False)]
    for number in range(1, TABS):
        query = f"&as=Tab {number}"
        tabs.append(await open_window(office.url, name, query=query, connected=False, beside=tabs[0]))
    for tab in tabs:
        tab.forgive(CONNECTION_LOST, NOT_THERE_YET)
        await tab.until_status(LIMITED)
    for number, tab in enumerate(tabs):
        await tab.until_others(*(f"Tab {other}" for other in range(TABS) if other != number))
        await tab.go_to_end()
        await tab.type(f"{number}\n")
        await tab.until_status(LIMITED)
    for tab in tabs:
        await tab.until_text(lambda text: sorted(text.split()) == ["0", "1", "2", "3"], "what all tabs wrote")


async def test_a_page_without_a_network_or_a_server_is_not_taken_for_one_that_is_blocked(
    own_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    async with Cable(own_server.port) as cable:
        window = await open_window(cable.url, "text/" + document)
        window.forgive(CONNECTION_LOST)
        asked = looks(window)

        async def until_it_has_looked(times: int) -> None:
            async def fact() -> bool:
                return len(asked) >= times

            await until(fact, "a look whether the server answers over HTTP")

        await cable.pull_out()
        await until_it_has_looked(1)
        await cable.plug_in()
        await window.until_status("Saved")
        await own_server.akill()
        await until_it_has_looked(len(asked) + 1)
        await window.until_cut_off()
        await own_server.astart()
        await window.until_status("Saved")
        # It may ask whether the server answers over HTTP, and goes no further.
        assert {urlsplit(url).query for url in asked if "/streams/" in url} <= {"offset=now"}


async def test_a_guest_reads_over_http_and_a_deleted_document_stays_deleted(
    page_is_built: None, open_window: OpenWindow, document: str, tmp_path: Path
) -> None:
    name = "text/" + document
    admin = {"Authorization": f"Bearer {token(access='admin')}"}
    with ServerProcess(tmp_path, environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        ada = await open_window(server.url, name, query=signed_in())
        await ada.go_to_end()
        await ada.type("to read")
        await ada.until_connected()
        async with Office(server.port) as office:
            guest = await open_window(office.url, name, query=signed_in("Guest", "read"), connected=False)
            writer = await open_window(office.url, name, query=signed_in("Writer"), connected=False)
            await guest.until_status("Read only (limited network)")
            await guest.until_text(lambda text: text == "to read", "the text")
            await expect(guest.page.locator("#editor")).to_have_attribute("contenteditable", "false")
            await ada.until_others("Guest", "Writer")
            await writer.until_status(LIMITED)
            for window in (guest, writer):
                window.forgive(CONNECTION_LOST, NOT_THERE_YET)
            address = f"{server.url}/api/v1/documents/{quote(name)}"
            assert (await ada.page.request.delete(address, headers=admin)).ok
            for window in (guest, writer):
                await window.until_status("Deleted")
            # What it has in the browser does not bring the document back.
            await writer.page.reload()
            await writer.until_status("Deleted")
            assert not (await ada.page.request.get(address, headers=admin)).ok
            for window in (ada, guest, writer):
                await window.page.close()  # none may look for a server that has ended


def without_sockets(buffering: str) -> Callable[[str], str]:
    """Make of the block for nginx one that forgets the Upgrade, as many do, and says so about buffers."""

    def change(block: str) -> str:
        kept = [line for line in block.splitlines() if "Upgrade" not in line and "upgrade" not in line]
        return "\n".join(kept).replace(
            "proxy_http_version 1.1;", f"proxy_http_version 1.1; proxy_buffering {buffering};"
        )

    return change


@pytest.mark.proxy
@pytest.mark.postgres
@pytest.mark.parametrize("buffering", ["on", "off"])
async def test_it_works_behind_an_nginx_that_forgets_the_upgrade(
    page_is_built: None, postgres_url: str, open_window: OpenWindow, document: str, tmp_path: Path, buffering: str
) -> None:
    """The other window has its socket to another node."""
    name = "code/" + document
    with ExitStack() as stack:
        one, two = [
            stack.enter_context(ServerProcess(tmp_path / each, database_url=postgres_url)) for each in ("one", "two")
        ]
        proxy = stack.enter_context(Proxy("nginx", tmp_path, one.port, change=without_sockets(buffering)))
        ada = await open_window(proxy.url, name, name="Ada", connected=False)
        ada.forgive(CONNECTION_LOST, NOT_THERE_YET)
        await ada.until_status(LIMITED)
        grace = await open_window(two.url, name, name="Grace")
        await ada.until_others("Grace")
        await grace.until_others("Ada")
        await ada.go_to_end()
        async with held_back(ada) as came:
            await ada.type("there")
            await asyncio.wait_for(came.wait(), PATIENCE)
            await ada.until_status(SAVING)
        await ada.until_status(LIMITED)
        await grace.until_text(lambda text: text == "there", "Ada's word")
        await grace.go_to_end()
        await grace.type(" and back")
        await ada.until_text(lambda text: text == "there and back", "Grace's words")
        await ada.page.close()  # none may look for a proxy that has ended
        await grace.page.close()
