"""An agent that joins a document as a participant and improves one paragraph.

    python agent.py ws://127.0.0.1:1234 article

People who have the document open see it by its name, and where it has written, while they type on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re

from collab.client import Document, connect
from collab.content.edits import TextReplace
from collab.update import decode_state_vector

WHO = {"name": "Copy editor", "color": "#7c3aed"}


def improve(paragraph: str) -> str:
    """Return a better paragraph.

    This is the place of your model: send it the paragraph, and return what it answers. It may take its time, because
    the document is not locked meanwhile. Here a few rules do the work.
    """
    better = re.sub(r"\s+", " ", paragraph).strip()
    better = re.sub(r"\s+([,.;:!?])", r"\1", better)
    better = re.sub(r"\b(\w+) \1\b", r"\1", better, flags=re.IGNORECASE)
    better = better[:1].upper() + better[1:]
    return better if better.endswith((".", "!", "?", ":")) else better + "."


def choose(markdown: str) -> tuple[str, str] | None:
    """Return the first paragraph that can be improved, and the better one; None if all are good.

    A paragraph with marks or links is left alone: what stands in Markdown is not the text of the document then.
    """
    for paragraph in map(str.strip, markdown.split("\n\n")):
        if not paragraph or re.search(r"^[#>|\-+`\d]|[*_`\[\]<>\\]|\n", paragraph):
            continue
        better = improve(paragraph)
        if better != paragraph:
            return paragraph, better
    return None


def show_cursor(document: Document) -> None:
    """Show the cursor behind what this agent has written last."""
    clock = decode_state_vector(document.doc.get_state()).get(document.doc.client_id, 0)
    if clock:
        # As Y.createRelativePositionFromJSON reads it: behind the character with this ID.
        place = {"item": {"client": document.doc.client_id, "clock": clock - 1}, "assoc": -1}
        document.awareness.set_field("cursor", {"anchor": place, "head": place})


async def work(url: str, name: str, root: str, token: str | None, stay: float) -> None:
    """Improve one paragraph of a document."""
    async with connect(url, name, token=token) as document:
        document.awareness.set({"user": WHO, "status": "reading"})
        found = choose(document.read("markdown", root))
        if found is None:
            print("every paragraph is good")
            return
        paragraph, better = found
        document.awareness.set_field("status", "writing")
        # Only what differs is changed, so people keep their cursors. If somebody has changed the paragraph meanwhile,
        # this raises EditConflict, and nothing is changed.
        document.apply(TextReplace(root, paragraph, better))
        show_cursor(document)
        await document.wait_saved(timeout=30)
        print(f"saved: {better}")
        await asyncio.sleep(stay)


def main() -> None:
    parser = argparse.ArgumentParser(description="Improve one paragraph of a document that people have open.")
    parser.add_argument("url", help="of the server, as in ws://127.0.0.1:1234")
    parser.add_argument("name", help="of the document")
    parser.add_argument("--root", default="default", help="the rich text in it; Tiptap calls it default")
    parser.add_argument("--stay", type=float, default=3.0, help="seconds for which it is seen afterwards")
    given = parser.parse_args()
    asyncio.run(work(given.url, given.name, given.root, os.environ.get("COLLAB_TOKEN"), given.stay))


if __name__ == "__main__":
    main()
