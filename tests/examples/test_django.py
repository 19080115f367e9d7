"""examples/django-app in Chromium: two people in one note, a permission that changes, and the admin meanwhile.

Strategy: the example runs as its README says, Django's own server included; its page is built with the packages of
web_demo, whose versions are the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.window import PATIENCE, until
from tests.support.django import EXAMPLE, ROOT, Project, migrated_project, sqlite_project
from tests.support.node import find_node
from tests.support.valkey import free_port

__all__ = ["migrated_project"]

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.xdist_group("browser"),
    pytest.mark.browser,
    pytest.mark.node,
    pytest.mark.server,
]

PACKAGES = ROOT / "web_demo"


def build(project: Project) -> None:
    """Build the page of the example, with packages that are there already."""
    wanted = json.loads((EXAMPLE / "package.json").read_text(encoding="utf-8"))
    given = json.loads((PACKAGES / "package.json").read_text(encoding="utf-8"))
    known = {**given["dependencies"], **given["devDependencies"]}
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert known[name] == version, name
    (project.directory / "node_modules").symlink_to(PACKAGES / "node_modules")
    node, _ = find_node()
    done = subprocess.run(
        [node, "node_modules/vite/bin/vite.js", "build", "--logLevel", "error"],
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Person:
    """Somebody in a browser of his own."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.context = context
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    async def text(self) -> str:
        found: str = await self.page.evaluate(
            """() => [...document.querySelectorAll('.cm-content > .cm-line')].map((line) => {
                const copy = line.cloneNode(true)
                for (const drawn of copy.querySelectorAll('.cm-ySelectionInfo, .cm-ySelectionCaret')) drawn.remove()
                return copy.textContent.replaceAll('\\u2060', '')
            }).join('\\n')"""
        )
        return found

    async def until_text(self, text: str) -> None:
        seen = ""

        async def fact() -> bool:
            nonlocal seen
            seen = await self.text()
            return seen == text

        try:
            await until(fact, f"the text {text!r} in the editor")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {seen!r}") from None

    async def until_status(self, words: str) -> None:
        await expect(self.page.locator("#status")).to_have_text(words, timeout=PATIENCE * 1000)


@pytest_asyncio.fixture(loop_scope="session")
async def site(migrated_project: Path, tmp_path: Path) -> AsyncIterator[tuple[Project, str]]:  # noqa: F811
    """The example, with its server and its pages; and the address of the pages."""
    with sqlite_project(migrated_project, tmp_path / "app") as project:
        await asyncio.to_thread(build, project)
        port = free_port()
        async with project.server:
            pages = await asyncio.create_subprocess_exec(
                sys.executable,
                "manage.py",
                "runserver",
                "--noreload",
                f"127.0.0.1:{port}",
                cwd=project.directory,
                env=project.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                await until(lambda: _listens(port), "Django's server")
                yield project, f"http://127.0.0.1:{port}"
            finally:
                pages.terminate()
                await pages.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def sign_in(browser: Browser, address: str, name: str) -> Person:
    context = await browser.new_context(viewport={"width": 900, "height": 760})
    person = Person(context, await context.new_page())
    page = person.page
    await page.goto(f"{address}/accounts/login/")
    await page.get_by_label("Username").fill(name)
    await page.get_by_label("Password").fill(name)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("link", name="The plan").click()
    await person.until_status("Saved")
    return person


async def look(page: Page, name: str) -> None:
    """Keep a picture, where somebody has asked for pictures."""
    if directory := os.environ.get("COLLAB_PICTURES"):
        await page.screenshot(path=f"{directory}/{name}.png")


@pytest.mark.slow
async def test_two_people_edit_while_one_changes_what_the_other_may_do(
    browser: Browser, site: tuple[Project, str]
) -> None:
    _, address = site
    ada, grace = await sign_in(browser, address, "ada"), await sign_in(browser, address, "grace")
    try:
        await grace.until_text("Write it down.\n")
        await grace.page.locator(".cm-content").click()
        await grace.page.keyboard.press("Control+Home")
        await grace.page.keyboard.type("First: ")
        await ada.until_text("First: Write it down.\n")
        await expect(ada.page.locator(".cm-ySelectionInfo")).to_have_text("Grace", timeout=PATIENCE * 1000)
        await look(ada.page, "ada-sees-grace")
        await the_admin_meanwhile(ada, grace, address)
        await a_permission_meanwhile(ada, grace)
        # Who signs out leaves, without a word of anybody.
        await ada.page.get_by_label("Grace").select_option("write")
        await ada.page.get_by_role("button", name="Save").click()
        await ada.until_status("Saved")
        await grace.page.reload()
        await grace.until_status("Saved")
        other = await grace.context.new_page()
        await other.goto(f"{address}/")
        await other.get_by_role("button", name="Sign out").click()
        await grace.until_status("sign in first")
        await look(grace.page, "grace-signed-out")
        assert ada.errors == grace.errors == []
    finally:
        for person in (ada, grace):
            await person.context.close()


async def the_admin_meanwhile(ada: Person, grace: Person, address: str) -> None:
    """Ada edits in a form of the admin, and Grace goes on typing while it is open."""
    form = await ada.context.new_page()
    area = form.locator("#id_text")

    async def shown() -> Any:
        await form.goto(f"{address}/admin/notes/note/1/change/")
        return await area.input_value() == "First: Write it down.\n"

    await until(shown, "what Grace has typed in the admin")
    await area.fill("First: Write it all down.\nThen read it.\n")
    await grace.page.keyboard.press("Control+End")
    await grace.page.keyboard.type("Ask Ada.")
    await grace.until_status("Saved")
    await look(form, "admin-form")
    await form.get_by_role("button", name="Save", exact=True).click()
    await expect(form.locator(".messagelist .success")).to_be_visible(timeout=PATIENCE * 1000)
    merged = "First: Write it all down.\nThen read it.\nAsk Ada."
    await grace.until_text(merged)
    await ada.until_text(merged)
    await look(grace.page, "grace-after-the-admin")
    await form.close()


async def a_permission_meanwhile(ada: Person, grace: Person) -> None:
    """Ada takes the right to write, and then all of it, while Grace has the note open."""
    editor = grace.page.locator(".cm-content")
    for choice, words in (("read", "You may read"), ("", "you may not open this document")):
        await ada.page.get_by_label("Grace").select_option(choice)
        await ada.page.get_by_role("button", name="Save").click()
        await grace.until_status(words)
        await expect(editor).to_have_attribute("contenteditable", "false")
        await ada.until_status("Saved")  # the page was loaded anew
    await look(grace.page, "grace-may-not")
