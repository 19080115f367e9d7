"""The pages of docs/frontends.md and docs/migrating.md: bundled as their readers would, and opened in Chromium.

Strategy: each snippet is a page of one build by Vite, with the packages in the versions that the documents name
(``tests/docs/npm``) and the options that they state. The pages come from another port than the server, as a
developer's do.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Page, expect

from tests.browser.window import PATIENCE, until
from tests.support.node import DOCS_PACKAGES, find_node, installed_packages
from tests.support.server import ServerProcess
from tests.support.snippets import ROOT, snippet

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(300)]

EDITORS = {
    "tiptap": (snippet("docs/frontends.md", "Tiptap", "js"), ".tiptap", ".collaboration-carets__label"),
    "codemirror": (snippet("docs/frontends.md", "CodeMirror 6", "js"), ".cm-content", ".cm-ySelectionInfo"),
    "prosemirror": (snippet("docs/frontends.md", "ProseMirror", "js"), ".ProseMirror", ".ProseMirror-yjs-cursor"),
    "quill": (snippet("docs/frontends.md", "Quill", "js"), ".ql-editor", ".ql-cursor-name"),
    "monaco": (snippet("docs/frontends.md", "Monaco", "js"), ".view-lines", ".yRemoteSelectionHead"),
    "lexical": (snippet("docs/frontends.md", "Lexical", "jsx"), "[contenteditable]", "text=Ada"),
}
"""Of each editor its page, where one types in it, and the other's caret."""

LEAVE = ("tiptap", "prosemirror")
"""The editors that show no caret of somebody who has left the text."""

# What a page has of its own before it comes to the snippet.
YDOC = "import * as Y from 'yjs'\nconst ydoc = window.ydoc = new Y.Doc()\n"
DOC = "import * as Y from 'yjs'\nconst doc = window.doc = new Y.Doc()\n"

PARTS = {
    "saved": YDOC + snippet("docs/migrating.md", '"Saved" in your application', "js"),
    # The page of Tiptap as it is, on a document of the test's own.
    "resets": EDITORS["tiptap"][0]
    .replace("'text/notes'", "new URLSearchParams(location.search).get('name')")
    .replace("new Editor(", "const editor = new Editor(")
    + "Object.assign(window, { doc, provider, editor })\n",
    "offline": DOC + snippet("docs/frontends.md", "What every front end wants", "js") + "window.read = true\n",
}

# A height, because Monaco fills what it is given.
HTML = """<!doctype html>
<meta charset="utf-8">
<title>page</title>
<link rel="icon" href="data:,">
<style>#editor { height: 300px }</style>
<p id="status"></p>
<div id="editor"></div>
<script type="module" src="./NAME.jsx"></script>
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle all pages, and give the directory."""
    packages = installed_packages(DOCS_PACKAGES)
    root = tmp_path_factory.mktemp("pages")
    (root / "node_modules").symlink_to(packages / "node_modules")
    scripts = {name: text for name, (text, _, _) in EDITORS.items()} | PARTS
    for name, text in scripts.items():
        (root / f"{name}.jsx").write_text(text.replace("ws://127.0.0.1:1234", server.url.replace("http", "ws")))
        (root / f"{name}.html").write_text(HTML.replace("NAME", name))
    # The options that the document states for Vite.
    prose = (ROOT / "docs" / "frontends.md").read_text(encoding="utf-8")
    dedupe, alias = re.findall(r"`(resolve: \{.*?\})`", prose, re.DOTALL)
    inputs = [f"{name}.html" for name in scripts]
    (root / "vite.config.mjs").write_text(
        "import { mergeConfig } from 'vite'\n"
        f"const build = {{ chunkSizeWarningLimit: 1e6, minify: false, target: 'es2022', "
        f"rolldownOptions: {{ input: {inputs} }} }}\n"
        "const worker = { format: 'es' }\n"
        f"export default mergeConfig({{ build, worker }}, mergeConfig({{ {dedupe} }}, {{ {alias} }}))\n"
    )
    vite = packages / "node_modules" / "vite" / "bin" / "vite.js"
    done = subprocess.run(
        [find_node()[0], str(vite), "build", "--logLevel", "warn"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "dist"


@pytest_asyncio.fixture(loop_scope="session")
async def site(pages: Path) -> AsyncIterator[str]:
    """Serve the pages as a developer's own server does, and give its address."""
    app = web.Application()
    app.router.add_static("/", pages)
    async with TestServer(app) as own:
        yield f"http://127.0.0.1:{own.port}"


class Visitor:
    """One person's browser on one page, and what it has complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)


async def visit(browser: Browser, url: str) -> Visitor:
    context = await browser.new_context()
    visitor = Visitor(await context.new_page())
    response = await visitor.page.goto(url)
    assert response is not None and response.ok
    return visitor


@pytest.mark.parametrize("editor", EDITORS)
async def test_two_people_write_in_one_document(browser: Browser, site: str, editor: str) -> None:
    ada, grace = [await visit(browser, f"{site}/{editor}.html") for _ in range(2)]
    _, place, caret = EDITORS[editor]
    for visitor, reader, word in ((ada, grace, "hello"), (grace, ada, "world")):
        await visitor.page.locator(place).first.click()
        await visitor.page.keyboard.type(word)
        for other in (visitor, reader):
            await expect(other.page.locator(place).first).to_contain_text(word, timeout=PATIENCE * 1000)
        await expect(reader.page.locator(caret).first).to_be_attached(timeout=PATIENCE * 1000)
        # Who goes away takes the caret along: one that is drawn between two keys of the other can take a key away.
        await visitor.page.locator(place).first.blur()
        if editor in LEAVE:
            await expect(reader.page.locator(caret)).to_have_count(0, timeout=PATIENCE * 1000)
    for visitor in (ada, grace):
        assert visitor.errors == []
        await visitor.page.context.close()


async def test_the_sign_says_what_is_saved(browser: Browser, server: ServerProcess, site: str) -> None:
    ada = await visit(browser, f"{site}/saved.html")
    status = ada.page.locator("#status")
    await expect(status).to_have_text("Saved", timeout=PATIENCE * 1000)
    await asyncio.to_thread(server.kill)
    await expect(status).to_have_text("Offline, your changes are kept here", timeout=PATIENCE * 1000)
    await ada.page.evaluate("ydoc.getText('t').insert(0, 'kept')")
    await asyncio.to_thread(server.restart)
    await expect(status).to_have_text("Saved", timeout=PATIENCE * 1000)
    grace = await visit(browser, f"{site}/saved.html")

    async def there() -> bool:
        return bool(await grace.page.evaluate("ydoc.getText('t').toString() === 'kept'"))

    await until(there, "the edit that was made offline")
    # A page with nothing unsaved may go; the connections that failed are the browser's own lines.
    assert [error for error in ada.errors if "WebSocket connection to" not in error] == [] and grace.errors == []
    for visitor in (ada, grace):
        await visitor.page.context.close()


async def test_the_copy_in_the_browser_is_read_first(browser: Browser, site: str) -> None:
    ada = await visit(browser, f"{site}/offline.html")

    async def read() -> bool:
        return bool(await ada.page.evaluate("window.read === true"))

    await until(read, "the copy in the browser")
    await ada.page.evaluate("doc.getText('t').insert(0, 'kept')")

    async def kept() -> bool:
        await ada.page.reload()
        await until(read, "the copy in the browser")
        return bool(await ada.page.evaluate("doc.getText('t').toString() === 'kept'"))

    await until(kept, "the text after a reload")
    assert ada.errors == []
    await ada.page.context.close()


# -- a stock editor whose document is reset ---------------------------------------------------------------------


async def reset(server: ServerProcess, name: str, *, strict: bool = False) -> None:
    """Reset a document to other content."""
    content = [{"root": "default", "format": "markdown", "value": "Fresh content"}]
    url = f"{server.url}/api/v1/reset/{name}"
    async with ClientSession() as session, session.post(url, json={"content": content, "strict": strict}) as response:
        assert response.status == 200, await response.text()


async def until_written(visitors: Sequence[Visitor], accept: Callable[[str], object], what: str) -> str:
    """Wait until the server has all, and all show the same, that ``accept`` takes; return the HTML."""
    seen: list[list[str]] = []
    show = """() => {
        const {editor, doc, provider} = window
        const sent = provider.isSynced && !provider.hasUnsyncedChanges
        return [editor.getHTML(), doc.getXmlFragment('default').toString(), sent ? 'sent' : Math.random().toString()]
    }"""

    async def fact() -> bool:
        seen[:] = [await visitor.page.evaluate(show) for visitor in visitors]
        return all(each == seen[0] for each in seen) and bool(accept(seen[0][0]))

    try:
        await until(fact, what)
    except AssertionError as error:
        raise AssertionError(f"{error}; the pages show: {seen}") from None
    return seen[0][0]


async def write(visitor: Visitor, at: int, text: str, *keys: str) -> None:
    """Set the caret, by ProseMirror's count, type there, then press keys."""
    # Tiptap's own command would focus with the next frame, and a key before it is lost.
    await visitor.page.evaluate("at => (window.editor.view.focus(), window.editor.commands.setTextSelection(at))", at)
    await visitor.page.keyboard.type(text)
    for key in keys:
        await visitor.page.keyboard.press(key)


_numbers = itertools.count(1)

SOCKET = "window.provider.configuration.websocketProvider"


@pytest.mark.parametrize("strict", [False, True], ids=["", "strict"])
async def test_enter_and_headings_of_people_who_were_offline_at_a_reset(
    browser: Browser, server: ServerProcess, site: str, strict: bool
) -> None:
    name = f"offline-{next(_numbers)}"
    address = f"{site}/resets.html?name={name}"
    ada, grace = people = [await visit(browser, address) for _ in range(2)]
    await until_written(people, lambda html: html == "<p></p>", "an empty text")
    await write(ada, 1, "One two", "Enter")
    await ada.page.keyboard.type("Three four")
    await until_written(people, lambda html: html == "<p>One two</p><p>Three four</p>", "the paragraphs")
    for visitor in people:
        await visitor.page.evaluate(f"{SOCKET}.disconnect()")
    await write(ada, 5, "", "Enter")
    await write(grace, 12, "", "Control+Alt+1")
    changed = [await visitor.page.evaluate("window.editor.getHTML()") for visitor in people]
    assert changed == ["<p>One </p><p>two</p><p>Three four</p>", "<p>One two</p><h1>Three four</h1>"]
    await reset(server, name, strict=strict)
    for visitor in people:
        await visitor.page.evaluate(f"{SOCKET}.connect()")
    everybody = [*people, await visit(browser, address)]
    found = await until_written(everybody, lambda html: "Fresh content" in html, "the new content")
    # What these editors write anew is new to the server: docs/api.md. All else that it had is gone.
    again = () if strict else ("<p>two</p>", "<h1>Three four</h1>")
    assert all(each in found for each in again)
    for each in again:
        found = found.replace(each, "")
    assert found == "<p>Fresh content</p>"
    for number, visitor in enumerate(everybody):
        await write(visitor, 2, f"{number}")
        await until_written(everybody, lambda html, word=f"{number}": word in html, "what one of them types")
    for visitor in everybody:
        assert visitor.errors == []
        await visitor.page.context.close()


async def test_undo_after_a_reset_harms_nobody(browser: Browser, server: ServerProcess, site: str) -> None:
    name = f"undo-{next(_numbers)}"
    address = f"{site}/resets.html?name={name}"
    ada, grace = people = [await visit(browser, address) for _ in range(2)]
    await until_written(people, lambda html: html == "<p></p>", "an empty text")
    await write(grace, 1, "Hers ")
    await until_written(people, lambda html: "Hers" in html, "what Grace types")
    await write(ada, 6, "mine", "Enter")
    await ada.page.keyboard.type("below")
    await until_written(people, lambda html: html == "<p>Hers mine</p><p>below</p>", "what Ada types")
    # Undo groups what comes within half a second.
    await ada.page.evaluate("new Promise((done) => setTimeout(done, 600))")
    for _ in "below\nmine":
        await ada.page.keyboard.press("Backspace")
    await until_written(people, lambda html: html == "<p>Hers </p>", "what Ada deletes")
    await reset(server, name)
    await until_written(people, lambda html: html == "<p>Fresh content</p>", "the new content")
    for visitor in people:
        for key in ("Control+z", "Control+z", "Control+z", "Control+y", "Control+z"):
            await write(visitor, 1, "", key)
        found = await until_written(people, lambda html: "Fresh content" in html, "what undo has left")
        assert "Hers" not in found
    everybody = [*people, await visit(browser, address)]
    for number, visitor in enumerate(everybody):
        await write(visitor, 2, f"{number}")
        await until_written(everybody, lambda html, word=f"{number}": word in html, "what one of them types")
    for visitor in everybody:
        assert visitor.errors == []
        await visitor.page.context.close()
