"""A CRDT that types, for tests that need updates one by one."""

from __future__ import annotations

from typing import Any

from pycrdt import Doc, Text


class Author:
    """A client that types into the root text ``t`` and keeps the update of each change."""

    def __init__(self, client: int) -> None:
        self.doc: Doc[Any] = Doc(client_id=client)
        self.text: Text = self.doc.get("t", type=Text)
        self.updates: list[bytes] = []
        self._subscription = self.doc.observe(lambda event: self.updates.append(event.update))

    def type(self, text: str) -> bytes:
        """Append to the text and return the v1 update of it."""
        self.text += text
        return self.updates[-1]

    def replace(self, text: str) -> bytes:
        """Put ``text`` in the place of all that is there and return the v1 update of it."""
        with self.doc.transaction():
            self.text.clear()
            self.text += text
        return self.updates[-1]

    def read(self, update: bytes) -> str:
        """Apply somebody else's update and return the text as it is now."""
        self.doc.apply_update(update)
        return str(self.text)


def content(update: bytes) -> str:
    """Return the text ``t`` of a document that holds this update alone."""
    return Author(0).read(update)
