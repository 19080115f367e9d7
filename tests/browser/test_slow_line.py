"""A large rich text on a slow line, in an editor that is there before it.

y-prosemirror takes what does not fit its schema out of the document, for everybody. So an editor that is attached
before the sync must never be given a part of a transaction, however long the document takes to arrive.

Strategy: the server takes a third for large and slow (``tests/support/hasty_server.py``). One document comes as groups
of the rows of its log, each of them a list item or a row of a table, the other as pieces of a snapshot. When all
has arrived the editor shows all of it, and nobody but its author has written in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, XmlElement, XmlFragment, XmlText

from tests.browser.conftest import OpenWindow
from tests.browser.window import Window, until
from tests.support import hasty_server
from tests.support.server import ServerProcess, collab_command
from tests.support.throttle import SlowLine
from tests.support.wsclient import LiveClient

# Bytes a second of the line: some 15 s for each document, where five are long.
RATE = 90_000
ROWS = 30
WORDS = "lorem ipsum dolor " * 1_600

pytestmark = pytest.mark.slow


@pytest.fixture
def hasty(page_is_built: None, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, program=(hasty_server.__file__,)) as server:
        yield server


def paragraph(text: str) -> XmlElement:
    return XmlElement("paragraph", contents=[XmlText(text)])


class Author:
    """Writes a text with two lists and a table, one item or row in a transaction."""

    def __init__(self, doc: Doc[Any]) -> None:
        self.doc = doc
        self.root = self.doc.get("default", type=XmlFragment)

    def begin(self) -> None:
        with self.doc.transaction():
            item = XmlElement("listItem", contents=[paragraph("item")])
            self.root.children.append(XmlElement("bulletList", contents=[item]))
            task = XmlElement("taskItem", {"checked": True}, [paragraph("task")])
            self.root.children.append(XmlElement("taskList", contents=[task]))
            self.root.children.append(XmlElement("table", contents=[self._row("head", "tableHeader")]))

    def add(self, number: int) -> None:
        kind = number % 3
        with self.doc.transaction():
            parent = self.root.children[kind]
            text = f"{number} {WORDS}"
            if kind == 0:
                nested = XmlElement("listItem", contents=[paragraph("within")])
                inner = XmlElement("bulletList", contents=[nested])
                parent.children.append(XmlElement("listItem", contents=[paragraph(text), inner]))
            elif kind == 1:
                parent.children.append(XmlElement("taskItem", {"checked": False}, [paragraph(text)]))
            else:
                parent.children.append(self._row(text, "tableCell"))

    def _row(self, text: str, cell: str) -> XmlElement:
        cells = [XmlElement(cell, {"colspan": 1}, [paragraph(text)]) for _ in range(3)]
        return XmlElement("tableRow", contents=cells)


async def holds(server: ServerProcess, name: str, state: bytes) -> bool:
    async with LiveClient(server.document_url(name)) as reader:
        await reader.until_synced()
        return reader.doc.get_state() == state


async def shown(window: Window) -> int:
    """Count the items of the outer lists and the rows of the table that the editor shows."""
    items = ".tiptap > ul > li, .tiptap > table tr, .tiptap > .tableWrapper tr"
    count: int = await window.page.evaluate(f"document.querySelectorAll({items!r}).length")
    return count


async def test_lists_and_tables_arrive_whole_in_an_editor_that_was_there_before(
    hasty: ServerProcess, open_window: OpenWindow, tmp_path: Path
) -> None:
    async with LiveClient(hasty.document_url("text/log")) as writer:
        await writer.until_synced()
        author = Author(writer.doc)
        author.begin()
        for number in range(ROWS):
            author.add(number)
            await asyncio.sleep(0.02)  # so that few of them are one row of the log
        expected, state = str(author.root), author.doc.get_state()
        await until(lambda: holds(hasty, "text/log", state), "the text at the server")
    file = tmp_path / "update"
    file.write_bytes(author.doc.get_update())
    imported = collab_command("documents", "import", "text/snapshot", str(file), "--data-dir", str(hasty.data_dir))
    assert imported.returncode == 0, imported.stderr
    with SlowLine(hasty.port) as line:
        url = f"http://127.0.0.1:{line.port}"
        first = await open_window(url, "text/another")  # the page itself is in the browser's cache then
        line.down = RATE
        seen = {}
        for name in ("text/log", "text/snapshot"):
            window = await open_window(url, name, connected=False, beside=first)
            seen[name] = {await shown(window)}
            async with asyncio.timeout(90):
                while await window.status() != window.saved:
                    seen[name].add(await shown(window))
                    await asyncio.sleep(0.2)
            assert await shown(window) == ROWS + 3
            assert await window.page.locator(".tiptap td").count() == 3 * (ROWS // 3)
            await window.page.close()
        await first.page.close()  # none may look for a line that has ended
    assert len(seen["text/log"]) > 3, "rows have come one after the other"
    assert seen["text/snapshot"] <= {0, ROWS + 3}, "pieces were shown before the last one"
    for name in seen:
        async with LiveClient(hasty.document_url(name)) as reader:
            await reader.until_synced()
            assert str(reader.doc.get("default", type=XmlFragment)) == expected
            assert reader.doc.get_state() == state, "somebody has written"
