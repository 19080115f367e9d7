"""An author who has gone: its first edit was seen by nobody, and what builds on it is pending wherever it comes."""

from __future__ import annotations

from typing import Any

from pycrdt import Doc, Text


class Gone:
    """Updates of two client IDs, ``client`` and the next, for the root text ``root``.

    Attributes:
        missing: the update that nobody has.
        rest: what builds on it, by the other client.
        whole: the text with both.
    """

    def __init__(self, client: int = 100, letters: str = "rest", root: str = "t") -> None:
        first: Doc[Any] = Doc(client_id=client)
        first.get(root, type=Text).insert(0, "<missing>")
        self.missing: bytes = first.get_update()
        second: Doc[Any] = Doc(client_id=client + 1)
        second.apply_update(self.missing)
        text: Text = second.get(root, type=Text)
        text += letters
        self.rest: bytes = second.get_update(first.get_state())
        self.whole = str(text)
