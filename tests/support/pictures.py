"""Make the moving picture of the README: the real ``/split`` in a real Chromium, two people, one network plug.

Run ``make pictures``. Strategy: a frame is a screenshot, taken when both sides have painted what the step is about,
and shown for as long as the story wants, so a busy machine makes the same picture as an idle one. What the frames
have in common costs an animated WebP next to nothing.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.async_api import Frame, Page, async_playwright, expect

from tests.browser.conftest import ARGUMENTS, chromium
from tests.browser.window import until
from tests.support.server import ServerProcess

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "split.webp"
SIZE = {"width": 900, "height": 440}
SCALE = 2
"""Pixels of the picture for one of the page: it is shown at half its size, sharp on every screen."""

KEY = 90
"""Milliseconds that a frame of typing is shown."""

_FOCUS = 60
"""Milliseconds after which ProseMirror has put its selection back; nobody is quicker from one window to the other."""

# Two people have two keyboards: that this one has gone to the other side is not to take the caret away.
_STAY = """() => {
    const { editor } = document.querySelector('.tiptap')
    const carets = editor.extensionManager.extensions.find(({ name }) => name === 'collaborationCaret')
    const { awareness } = carets.options.provider
    const tell = awareness.setLocalStateField
    awareness.setLocalStateField = function (field, value) {
        if (field !== 'cursor' || value !== null) tell.call(this, field, value)
    }
}"""

# The mouse, which no screenshot shows.
_POINTER = """([x, y, pressed]) => {
    let pointer = document.querySelector('#pointer')
    if (!pointer) {
        pointer = document.createElement('div')
        pointer.id = 'pointer'
        pointer.innerHTML = `<svg viewBox="0 0 24 24" width="26" height="26"><path d="M5 2.500v17l4.300-4 2.900 6.300
            2.700-1.200-2.900-6.200 6-.4z" fill="#1c2127" stroke="#fff" stroke-width="1.500"/></svg>`
        pointer.style.cssText = 'position: fixed; z-index: 99; pointer-events: none'
        document.body.append(pointer)
    }
    pointer.style.left = `${x - 5}px`
    pointer.style.top = `${y - 3}px`
    pointer.style.scale = pressed ? 0.8 : 1
}"""

# What a side shows, without the names that are drawn into it.
_TEXT = """() => {
    const copy = document.querySelector('.tiptap').cloneNode(true)
    for (const drawn of copy.querySelectorAll('.caret')) drawn.remove()
    return copy.innerText
}"""


class Story:
    """The page, and the frames of it so far."""

    def __init__(self, page: Page, ada: Frame, grace: Frame) -> None:
        self.page = page
        self.sides = (ada, grace)
        self.frames: list[Image.Image] = []
        self.milliseconds: list[int] = []
        self._at = (450.0, 330.0)

    async def show(self, milliseconds: int) -> None:
        """Take a frame; one that shows what the last did makes that one longer."""
        png = await self.page.screenshot(caret="initial", animations="allow")
        image = Image.open(io.BytesIO(png)).convert("RGB")
        if self.frames and image.tobytes() == self.frames[-1].tobytes():
            self.milliseconds[-1] += milliseconds
        else:
            self.frames.append(image)
            self.milliseconds.append(milliseconds)

    async def click(self, name: str) -> None:
        """Let the mouse go to a switch, and press it."""
        switch = self.page.get_by_role("switch", name=name)
        box = await switch.bounding_box()
        assert box is not None
        start, end = self._at, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for step in (0.35, 0.7, 0.9, 1.0):
            point = [a + (b - a) * step for a, b in zip(start, end, strict=True)]
            await self.page.evaluate(_POINTER, [*point, False])
            await self.show(70)
        self._at = end
        await self.page.evaluate(_POINTER, [*end, True])
        await self.show(250)
        await switch.click()
        await self.page.evaluate(_POINTER, [*end, False])

    async def both(self, ada: str, grace: str, *, equal: bool) -> None:
        """Let both write at once, two keys of one after two keys of the other; ``equal``: each sees both."""
        for at in range(0, max(len(ada), len(grace)), 2):
            for side, text in zip(self.sides, (ada, grace), strict=True):
                if keys := text[at : at + 2]:
                    await side.locator("#editor").focus()
                    await self.page.wait_for_timeout(_FOCUS)
                    await self.page.keyboard.type(keys)
                    if equal:
                        await self.until_equal()
                    await self.show(KEY)

    async def until_equal(self) -> None:
        async def fact() -> bool:
            one, other = [await side.evaluate(_TEXT) for side in self.sides]
            return bool(one == other)

        await until(fact, "the same text on both sides")


async def place_caret(side: Frame, line: int, at: int | None = None) -> None:
    """Put the caret into a line (0 is the heading), behind the character ``at`` or at its end."""
    await side.evaluate(
        """([line, at]) => {
            const { editor } = document.querySelector('.tiptap')
            const starts = []
            editor.state.doc.descendants((node, position) => {
                if (node.isTextblock) starts.push([position + 1, node.content.size])
            })
            const [start, size] = starts[line]
            editor.chain().focus().setTextSelection(start + (at ?? size)).run()
        }""",
        [line, at],
    )
    # Tiptap takes the focus with the next frame.
    await side.page.wait_for_timeout(200)


async def tell(story: Story) -> None:
    """Play it."""
    ada, grace = story.sides
    for side in story.sides:
        await side.evaluate(_STAY)
    await ada.locator("#editor").focus()
    await story.page.keyboard.type("## Picnic on Sunday\nBread, cheese\n[ ] a blanket\n", delay=10)
    await story.page.keyboard.type("a ball", delay=10)
    await ada.locator("#title").fill("Picnic")
    await ada.locator("#title").press("Enter")
    await story.until_equal()
    await place_caret(ada, 1)
    await place_caret(grace, 3)
    await story.page.evaluate(_POINTER, [450, 330, False])
    await story.show(900)
    await story.both(" and olives", " and a kite", equal=True)
    await story.show(1200)

    await story.click("Grace is online")
    await expect(grace.locator("#status")).to_have_attribute("data-state", "offline")
    await expect(ada.locator("#list .person")).to_have_count(1)
    await story.show(1500)
    await place_caret(ada, 0)
    await place_caret(grace, 2)
    await story.both(", at noon", " and lemonade", equal=False)
    await story.show(1800)

    await story.click("Grace is online")
    for side in story.sides:
        await expect(side.locator("#status .words")).to_have_text("Saved", timeout=30_000)
    await story.until_equal()
    await expect(ada.locator("#list .person")).to_have_count(2)
    await story.show(3500)


async def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory)) as server:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
            page = await browser.new_page(viewport=SIZE, device_scale_factor=SCALE, color_scheme="light")
            await page.goto(f"{server.url}/split?doc=text/picnic")
            await expect(page.locator("iframe")).to_have_count(2)
            ada, grace = page.frames[1:]
            for side in (ada, grace):
                await expect(side.locator("#status .words")).to_have_text("Saved", timeout=30_000)
            story = Story(page, ada, grace)
            await tell(story)
            await browser.close()
    first, *others = story.frames
    first.save(PICTURE, save_all=True, append_images=others, duration=story.milliseconds, loop=0, quality=72, method=6)
    seconds = sum(story.milliseconds) / 1000
    print(f"{PICTURE}: {len(story.frames)} frames, {seconds:.0f} s, {PICTURE.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    asyncio.run(main())
