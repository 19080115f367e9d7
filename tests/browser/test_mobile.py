"""Pages on phones: frozen for minutes and thawed, and on another network than a moment before.

Strategy: Chromium freezes a page as a phone does, by the debugger protocol: no task of it runs any more, and its
sockets are closed. That wants a browser of the test's own (`Phone`), because Playwright keeps its pages in the
foreground, where none is frozen. The minutes are not waited for: the page's clock is put forward (`CLOCK`). A line that
hangs stands for the network that the phone has left, and for what iOS may do to a socket in the background: it stays
open, and nothing comes any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import pytest_asyncio
from playwright.async_api import CDPSession, async_playwright

from tests.browser.conftest import ARGUMENTS, OpenWindow, chromium
from tests.browser.window import CONNECTION_LOST, Window, until
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine

pytestmark = pytest.mark.slow

KINDS = ["text/phone", "code/phone"]
"""Of each protocol one page: rich text over Hocuspocus, code over y-websocket."""

# Runs before the page's own scripts, which keep the function that they find.
CLOCK = """
    const now = Date.now.bind(Date)
    window.ahead = 0
    Date.now = () => now() + window.ahead
    window.lifecycle = []
    for (const event of ['freeze', 'resume']) document.addEventListener(event, () => window.lifecycle.push(event))
"""

MINUTES = 5


class Phone:
    """A browser with one window, which can be frozen; use as an async context manager.

    The clock of its page is put forward by `thaw`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.AsyncExitStack()
        self.window: Window
        self._devtools: CDPSession

    async def __aenter__(self) -> Self:
        process = await asyncio.create_subprocess_exec(
            *(chromium(), "--headless", "--no-sandbox", *ARGUMENTS),
            *("--remote-debugging-port=0", f"--user-data-dir={self._directory}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None

        async def end() -> None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

        self._stack.push_async_callback(end)
        while (found := re.search(rb"listening on (ws://\S+)", line := await process.stderr.readline())) is None:
            assert line, "Chromium has ended"
        playwright = await self._stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.connect_over_cdp(found[1].decode(), no_defaults=True)
        (self._context,) = browser.contexts
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def open(self, url: str, document: str) -> None:
        """Open a document as Ada."""
        self.window = Window(self._context, await self._context.new_page(), url, document)
        await self.window.page.add_init_script(CLOCK)
        await self.window.page.add_init_script("localStorage.setItem('collab:name', 'Ada')")
        await self.window.open()
        await self.window.until_connected()
        self._devtools = await self._context.new_cdp_session(self.window.page)

    async def freeze(self) -> None:
        """Put the browser into the background: no task of the page runs from now on."""
        await self._devtools.send("Page.setWebLifecycleState", {"state": "frozen"})

    async def thaw(self, minutes: float = 0) -> None:
        """Take the browser out again; the page finds that so many minutes have passed."""
        await self.put_forward(minutes)  # the debugger's own tasks run in a frozen page, too
        await self._devtools.send("Page.setWebLifecycleState", {"state": "active"})
        await self.window.page.bring_to_front()
        assert await self.window.page.evaluate("window.lifecycle.splice(0)") == ["freeze", "resume"]

    async def put_forward(self, minutes: float) -> None:
        """Let the page find that so many minutes have passed."""
        await self.window.page.evaluate(f"window.ahead += {minutes * 60_000}")


Two = Callable[[str, str, str], Awaitable[tuple[Phone, Window]]]


@pytest_asyncio.fixture(loop_scope="session")
async def two(open_window: OpenWindow, tmp_path: Path) -> AsyncIterator[Two]:
    """Open a document on a phone (its address first) and on a computer."""
    async with Phone(tmp_path / "phone") as phone:

        async def open_both(phone_url: str, url: str, document: str) -> tuple[Phone, Window]:
            await phone.open(phone_url, document)
            grace = await open_window(url, document, name="Grace")
            await phone.window.until_others("Grace")
            await grace.until_others("Ada")
            return phone, grace

        yield open_both
        phone.window.check()


async def both_have(phone: Phone, grace: Window, *words: str) -> None:
    """Wait until everything is in both windows, and each sees the other."""
    for window in (phone.window, grace):
        await window.until_text(lambda text: all(word in text for word in words), f"the words {words}")
        await window.until_connected()
    assert await phone.window.text() == await grace.text()
    await phone.window.until_others("Grace")
    await grace.until_others("Ada")


async def write(window: Window, words: str) -> None:
    await window.go_to_end()
    await window.type(words)


@pytest.mark.parametrize("document", KINDS)
async def test_a_page_that_was_frozen_has_what_the_others_wrote(
    own_server: ServerProcess, two: Two, document: str
) -> None:
    phone, grace = await two(own_server.url, own_server.url, document)
    await write(phone.window, "before ")
    await grace.until_text(lambda text: "before" in text, "what was written before")
    await phone.freeze()
    await write(grace, "meanwhile ")
    await grace.until_connected()
    assert "meanwhile" not in await phone.window.text()
    await phone.thaw()
    await write(phone.window, "after ")
    await both_have(phone, grace, "before", "meanwhile", "after")
    phone.window.forgive(CONNECTION_LOST)


@pytest.mark.parametrize("document", KINDS)
async def test_a_page_comes_back_to_a_server_that_was_restarted_while_it_was_frozen(
    own_server: ServerProcess, two: Two, document: str
) -> None:
    phone, grace = await two(own_server.url, own_server.url, document)
    await write(phone.window, "before ")
    await phone.window.until_connected()
    await phone.freeze()
    await asyncio.to_thread(own_server.terminate)
    await grace.until_cut_off()
    await asyncio.to_thread(own_server.restart)
    await grace.until_connected()
    await write(grace, "meanwhile ")
    await grace.until_connected()
    await phone.thaw(MINUTES)
    await write(phone.window, "after ")
    await both_have(phone, grace, "before", "meanwhile", "after")
    for window in (phone.window, grace):
        window.forgive(CONNECTION_LOST)


@pytest.mark.parametrize("document", KINDS)
async def test_a_socket_that_hangs_after_minutes_in_the_background_is_given_up(
    own_server: ServerProcess, two: Two, document: str
) -> None:
    with SlowLine(own_server.port) as line:
        phone, grace = await two(f"http://127.0.0.1:{line.port}", own_server.url, document)
        await write(phone.window, "before ")
        await phone.window.until_connected()
        line.hang()
        before = line.connections
        await write(grace, "meanwhile ")
        await grace.until_connected()
        await phone.put_forward(MINUTES)
        await write(phone.window, "after ")
        await both_have(phone, grace, "before", "meanwhile", "after")
        assert line.connections > before
        phone.window.forgive(CONNECTION_LOST)


@pytest.mark.parametrize("event", ["online", "offline"])
@pytest.mark.parametrize("document", KINDS)
async def test_a_phone_that_changes_network_comes_back_from_its_new_address(
    own_server: ServerProcess, two: Two, document: str, event: str
) -> None:
    with SlowLine(own_server.port) as line:
        phone, grace = await two(f"http://127.0.0.1:{line.port}", own_server.url, document)
        await write(phone.window, "before ")
        await phone.window.until_connected()
        before = line.connections
        line.hang()
        line.source = "127.0.0.2"
        # On the train: the page believes that it is connected.
        await write(phone.window, "train ")
        await write(grace, "meanwhile ")
        await grace.until_connected()
        # The browser tells of a network, or of none. The watchdogs of the providers would take 30 s and more.
        await phone.window.page.evaluate(f"dispatchEvent(new Event('{event}'))")

        async def again() -> bool:
            return line.connections > before

        await until(again, "a new connection", 20)
        await both_have(phone, grace, "before", "train", "meanwhile")
        phone.window.forgive(CONNECTION_LOST)
