"""One window on the page, seen as its user sees it, and the cable it hangs on.

Strategy: each window is a browser context of its own, so that no two share storage or a
BroadcastChannel and everything between them goes through the server. What a window must never do (log
an error, throw, ask another origin for anything) is collected while it lives and judged at its end.
Facts are polled with ``evaluate`` through the debugger protocol: ``wait_for_function`` evals in the page,
which the Content-Security-Policy refuses.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self
from urllib.parse import quote, urlsplit

from playwright.async_api import BrowserContext, ConsoleMessage, Page, expect

# Both cores may be busy with the other tests; a fact that does not come within this time does not come.
PATIENCE = 30.0

# Milliseconds of the processor that a key may take in a large file. Measured, and the same with four other programs on
# two cores: 12 in a file of 5,000 lines, 15 with a preview of it.
KEY = 50

# Chromium itself logs these when a server goes away or refuses; no page can prevent it.
CONNECTION_LOST = re.compile(
    r"WebSocket connection to 'ws://127\.0\.0\.1:\d+/\S*' failed|net::ERR_(CONNECTION|EMPTY|INTERNET|SOCKET)_\w+"
)

# The text without what is drawn into it: the carets of others and their names.
_READ_TEXT = """() => {
    const blocks = document.querySelectorAll('.cm-content > .cm-line, .tiptap :is(p, h1, h2, h3, pre)')
    return [...blocks].map((block) => {
        const copy = block.cloneNode(true)
        for (const drawn of copy.querySelectorAll('.caret, .cm-widgetBuffer, .cm-placeholder')) drawn.remove()
        return copy.textContent
    }).join('\\n')
}"""

# RFC 6455, section 1.3.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

OFFLINE = "Offline, your changes are kept here"


async def until(fact: Callable[[], Awaitable[Any]], what: str, seconds: float = PATIENCE) -> None:
    """Ask for a fact until it is true; fail naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not await fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {seconds} s")
        await asyncio.sleep(0.05)


CARET_AT_END = """() => {
    const editor = document.querySelector('.tiptap')?.editor
    if (!editor) return true
    const { doc, selection } = editor.state
    let behind = false
    doc.nodesBetween(selection.to, doc.content.size, (node, at) => { behind ||= node.isTextblock && at > selection.to })
    return selection.empty && !behind && selection.$to.parentOffset === selection.$to.parent.content.size
}"""
"""Whether the editor of text itself, if there is one, has the caret behind all that is written."""


class Window:
    """A page in a context of its own, and what it has done wrong."""

    def __init__(
        self, context: BrowserContext, page: Page, url: str, document: str | None, path: str = "", query: str = ""
    ) -> None:
        self.context = context
        self.page = page
        self.path = path
        self.query = query
        self.url = url
        self.document = document
        self.errors: list[str] = []
        self._forgiven: tuple[re.Pattern[str], ...] = ()
        self.foreign: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._on_request(request.url))
        page.on("websocket", lambda socket: self._on_request(socket.url))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text}")

    def _on_request(self, url: str) -> None:
        # Of data: and blob: URLs the browser tells as well; they stay in it.
        if not url.startswith(("data:", "blob:")) and urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.foreign.append(url)

    async def open(self) -> Self:
        """Load the page of ``document``, home without one."""
        query = "" if self.document is None else f"?doc={quote(self.document, safe='')}{self.query}"
        response = await self.page.goto(f"{self.url}/{self.path}{query}")
        assert response is not None and response.ok, f"{self.url} answered {response}"
        return self

    # -- what the user reads ------------------------------------------------------------------------------------

    async def text(self) -> str:
        text: str = await self.page.evaluate(_READ_TEXT)
        return text

    async def status(self) -> str:
        return await self.page.locator("#status .words").text_content() or ""

    async def others(self) -> list[str]:
        """The names of the others in the list, as shown."""
        return await self.page.locator("#list .person:not(.self) .name").all_text_contents()

    async def carets(self) -> list[str]:
        """The names at the carets of the others in the text."""
        return await self.page.locator(".caret .caret-name").all_text_contents()

    # -- what the user waits for --------------------------------------------------------------------------------

    async def until_status(self, words: str) -> Self:
        await expect(self.page.locator("#status .words")).to_have_text(words, timeout=PATIENCE * 1000)
        return self

    @property
    def saved(self) -> str:
        """What the status says when everything has arrived: only one of the protocols can say "Saved"."""
        return "Saved" if (self.document or "").startswith(("text/", "board/")) else "Synced"

    async def until_connected(self) -> Self:
        return await self.until_status(self.saved)

    async def until_cut_off(self) -> Self:
        await expect(self.page.locator("#status")).to_have_attribute(
            "data-state", re.compile("reconnecting|offline"), timeout=PATIENCE * 1000
        )
        return self

    async def until_text(self, accept: Callable[[str], object], what: str) -> str:
        seen = ""

        async def fact() -> bool:
            nonlocal seen
            seen = await self.text()
            return bool(accept(seen))

        try:
            await until(fact, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; the window shows: {seen!r}") from None
        return seen

    async def until_others(self, *names: str) -> None:
        async def fact() -> bool:
            return await self.others() == sorted(names)

        await until(fact, f"the list of others {names}")

    async def until_carets(self, *names: str) -> None:
        async def fact() -> bool:
            return sorted(await self.carets()) == sorted(names)

        await until(fact, f"the carets of {names}")

    # -- what the user does -------------------------------------------------------------------------------------

    async def go_to_end(self) -> None:
        """Put the caret behind all that is written."""
        await self.page.locator("#editor").focus()
        # A moment after it has got the focus the editor of text puts the caret back, if it has not read yet that it has
        # moved.
        for _ in range(40):
            await self.page.keyboard.press("Control+End")
            if await self.page.evaluate(CARET_AT_END):
                break
            await asyncio.sleep(0.05)

    async def type(self, text: str, delay: float = 0.0) -> None:
        """Type into the focused text, one key at a time, ``delay`` milliseconds apart."""
        await self.page.keyboard.type(text, delay=delay)

    async def key_times(self, text: str) -> list[float]:
        """Type and give the milliseconds for which each key keeps the page's thread busy, the next frame included.

        It is time on the processor, so that it does not count what else the machine has to do.
        """
        devtools = await self.context.new_cdp_session(self.page)
        await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

        async def busy() -> float:
            metrics = (await devtools.send("Performance.getMetrics"))["metrics"]
            return 1000 * float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))

        times = []
        for key in text:
            before = await busy()
            await self.page.keyboard.type(key)
            await self.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
            times.append(await busy() - before)
        await devtools.detach()
        return times

    async def call_oneself(self, name: str) -> None:
        await self.page.locator("#people").click()
        await self.page.locator("#name").fill(name)
        await self.page.locator("#name").press("Enter")
        await self.page.keyboard.press("Escape")

    async def rename_document(self, title: str) -> None:
        await self.page.locator("#title").fill(title)
        await self.page.locator("#title").press("Enter")

    def forgive(self, *patterns: re.Pattern[str]) -> None:
        """Do not count errors that the test provokes, before or after this; the others still fail it."""
        self._forgiven += patterns

    def check(self) -> None:
        """Fail if the page logged an error, threw, or asked another origin for anything."""
        errors = [error for error in self.errors if not any(one.search(error) for one in self._forgiven)]
        assert errors == [], f"the page logged errors: {errors}"
        assert self.foreign == [], f"the page asked another origin: {self.foreign}"


class Cable:
    """A TCP connection to the server that can be pulled out, for one window alone."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def plug_in(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def pull_out(self) -> None:
        """Cut what is connected and refuse what comes."""
        assert self._server is not None
        self._server.close()
        self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> Self:
        await self.plug_in()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._server is not None:
            await self.pull_out()

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        """Decide on a new connection: give what was read of it and goes on to the server, or None to close it."""
        return b""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        upstream: asyncio.StreamWriter | None = None
        try:
            first = await self.admit(reader, writer)
            if first is None:
                return
            source, upstream = await asyncio.open_connection("127.0.0.1", self._target)
            upstream.write(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, upstream))
                group.create_task(_copy(source, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            if upstream is not None:
                upstream.transport.abort()


class Office(Cable):
    """A network that lets plain HTTP through, and WebSockets only while it is not ``blocked``.

    ``how`` it blocks them: it "refuses" the Upgrade, "hangs" and gives no answer to it, or "swallows" what is sent
    over a WebSocket that it opens.
    """

    def __init__(self, port: int, how: str = "refuses") -> None:
        super().__init__(port)
        self.how = how
        self.blocked = True

    async def admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        head = await reader.readuntil(b"\r\n\r\n")
        if not self.blocked or b"\r\nupgrade: websocket\r\n" not in head.lower():
            return head
        if self.how == "refuses":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return None
        if self.how == "swallows":
            key = re.search(rb"\r\nsec-websocket-key: *(\S+)\r\n", head, re.IGNORECASE)
            assert key is not None
            answer = base64.b64encode(hashlib.sha1(key[1] + _GUID, usedforsecurity=False).digest())
            upgrade = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            writer.write(upgrade + b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n")
        while await reader.read(65536):  # until the browser gives it up
            pass
        return None


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
