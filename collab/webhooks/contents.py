"""Content of documents for receivers that want it, read when a delivery is made.

Strategy: nothing of a document is kept with a delivery, so nothing of it is there when the document is erased. What is
read is looked at twice: the name might belong to another document by now. One is read at a time, because the sandbox
is for people who edit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from collab.content.edits import Format
from collab.errors import CollabError, DocumentDeleted, DocumentNotFound
from collab.hub.editing import Shown
from collab.storage.store import Store
from collab.storage.webhooks import Delivery
from collab.webhooks.messages import GONE, UNREADABLE, Content
from collab.webhooks.receivers import Receiver

_SECONDS: Final = 30.0

Read = Callable[[str, Format, str | None], Awaitable[Shown]]


class Contents:
    """Reads documents.

    Args:
        store: says which document has a name.
        read: reads what a document of a name holds (``Editing.read``).
    """

    def __init__(self, store: Store, read: Read) -> None:
        self._store = store
        self._read = read
        self._one = asyncio.Semaphore(1)

    async def __call__(self, delivery: Delivery, receiver: Receiver) -> Content:
        """Read the document that a delivery is about, as it is now; what cannot be read now is left out."""
        format = receiver.content
        assert format is not None
        if delivery.document_id is None:
            return Content(format, omitted=GONE)
        try:
            async with asyncio.timeout(_SECONDS), self._one:
                document = (await self._store.describe_id(delivery.document_id)).document
                shown = await self._read(document.name, format, receiver.root)
                head = (await self._store.heads([document.name])).get(document.name)
        except (DocumentNotFound, DocumentDeleted):
            return Content(format, omitted=GONE)
        except (CollabError, TimeoutError):
            return Content(format, omitted=UNREADABLE)
        if head is None or head.deleted or head.document_id != delivery.document_id:
            return Content(format, omitted=GONE)
        return Content(format, shown.value, shown.tag)
