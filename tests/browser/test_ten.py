"""Ten people in one document, each in a browser context of their own: all edit at once, and all end equal.

Strategy: content is compared, between the windows and with what a client finds that joins then. Windows open
two at a time, for loading ten pages at once is a test of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib

from pycrdt import XmlFragment

from tests.browser.conftest import OpenWindow
from tests.browser.test_board import drag, ready, types, until_equal
from tests.browser.test_board import stored as stored_drawing
from tests.browser.test_code import stored_text
from tests.browser.test_text import html
from tests.browser.window import Window, until
from tests.support.server import ServerProcess
from tests.support.wsclient import LiveClient

NAMES = ("Ada", "Alan", "Barbara", "Donald", "Edsger", "Frances", "Grace", "Ken", "Leslie", "Margaret")

# A line for each, and one for all.
BEGINNING = "\n".join((*NAMES, "All: "))

# Small, as ten of them are painted.
SIZE = {"width": 900, "height": 600}


async def open_ten(server: ServerProcess, open_window: OpenWindow, document: str, beginning: str = "") -> list[Window]:
    """Open a document in ten windows; the first one writes its beginning before the others come."""
    gate = asyncio.Semaphore(2)

    async def open_one(name: str) -> Window:
        async with gate:
            return await open_window(server.url, document, name=name, viewport=SIZE)

    first = await open_one(NAMES[0])
    if beginning:
        await first.go_to_end()
        await first.type(beginning)
        await first.until_status(first.saved)
    windows = [first, *await asyncio.gather(*map(open_one, NAMES[1:]))]
    for name, window in zip(NAMES, windows, strict=True):
        await window.until_others(*(other for other in NAMES if other != name))
    return windows


# Which line the caret is in, for the editor: the browser's own selection is a moment ahead.
_LINE = """() => {
    const rich = document.querySelector('.tiptap')
    if (rich) return rich.editor.state.selection.$from.index(0)
    return [...document.querySelectorAll('.cm-line')].findIndex((line) => line.matches('.cm-activeLine'))
}"""


async def put_caret(window: Window, number: int) -> None:
    """Go to the end of a line, as a user does, and wait until the editor knows.

    A click is lost where a change of somebody else arrives with it (y-prosemirror puts the old selection back), so
    the user clicks again.
    """

    async def there() -> bool:
        return bool(await window.page.evaluate(_LINE) == number)

    async def click() -> bool:
        await window.page.locator("#editor").locator("p, .cm-line").nth(number).click()
        await window.page.keyboard.press("End")
        with contextlib.suppress(AssertionError):
            await until(there, "the caret", seconds=2)
        return await there()

    await until(click, f"the caret in line {number}")


async def all_type(windows: list[Window]) -> None:
    """Write in all windows at the same time: first each in a line of its own, then all at one place."""
    for number, window in enumerate(windows):
        await put_caret(window, number)
    await asyncio.gather(*(window.type(" was here.", delay=5) for window in windows))
    for window in windows:
        await window.until_text(lambda text: text.count("here.") == 10, "what each has written")
        await put_caret(window, 10)
    await asyncio.gather(*(window.type(str(number) * 5, delay=5) for number, window in enumerate(windows)))


def complete(text: str) -> bool:
    """Whether every key is there; of those at one place, the order is the document's to decide."""
    *lines, last = text.split("\n")
    together = "".join(str(number) * 5 for number in range(10))
    return lines == [f"{name} was here." for name in NAMES] and sorted(last) == sorted("All: " + together)


async def all_type_until_equal(windows: list[Window], status: str) -> str:
    """Let all type at once; give the text that every window shows when its status is ``status``."""
    await all_type(windows)
    text = await windows[0].until_text(complete, "what all ten have written")
    for window in windows:
        await window.until_text(lambda seen: seen == text, "the same text")
        await window.until_status(status)
    return text


async def test_ten_write_one_text_and_end_equal(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    document = f"text/{document}"
    windows = await open_ten(shared_server, open_window, document, BEGINNING)
    # No new paragraphs meanwhile: in Yjs a paragraph that is split is deleted and made again, with what others
    # were writing in it, by every editor with this binding.
    text = await all_type_until_equal(windows, "Saved")
    assert len({await html(window) for window in windows}) == 1
    async with LiveClient(shared_server.document_url(document)) as client:
        await client.until_synced()
        paragraphs = client.doc.get("default", type=XmlFragment).children
        assert "\n".join("".join(map(str, one.children)) for one in paragraphs) == text


async def test_ten_write_one_file_and_end_equal(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    document = f"code/{document}"
    windows = await open_ten(shared_server, open_window, document, BEGINNING)
    text = await all_type_until_equal(windows, "Synced")
    assert await stored_text(shared_server, document) == text


async def test_ten_draw_on_one_board_and_end_equal(
    shared_server: ServerProcess, open_window: OpenWindow, document: str
) -> None:
    document = f"board/{document}"
    windows = await open_ten(shared_server, open_window, document)
    await ready(*windows)

    async def work(number: int, window: Window) -> None:
        for turn, tool in enumerate("ro"):
            await window.page.keyboard.press(tool)
            left, top = 250 + 120 * (number % 5), 120 + 200 * (number // 5) + 90 * turn
            await drag(window, (left, top), (left + 80, top + 60))

    await asyncio.gather(*(work(number, window) for number, window in enumerate(windows)))
    expected = ["ellipse"] * 10 + ["rectangle"] * 10
    drawing = await until_equal(windows, lambda seen: sorted(types(seen)) == expected, "everybody's shapes")
    # Then all take hold of everything at once: of ten positions, the same one counts everywhere.
    await asyncio.gather(*(window.page.keyboard.press("Control+a") for window in windows))
    await asyncio.gather(*(window.page.keyboard.press("ArrowRight") for window in windows))
    for window in windows:
        await window.until_status("Saved")
    moved = await until_equal(windows, lambda seen: len(seen) == 20 and seen != drawing, "what all ten have moved")

    async def at_the_server() -> bool:
        return await stored_drawing(shared_server, document) == moved

    await until(at_the_server, "the same drawing at the server")
