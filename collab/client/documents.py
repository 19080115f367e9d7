"""Which documents a server has: by name, by the time of the last edit, or by size.

Strategy: requests to the HTTP API, as in ``collab.client.history``. A list is read in pages, so it is as long as it
likes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from collab.client.http import ApiUser
from collab.errors import RequestRefused

Order = Literal["name", "updated", "size"]
"""By the bytes of the name; those that were edited last first; or the largest first."""


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document of a list.

    Attributes:
        name: of the document.
        title: what lists show; None where nobody has said it.
        metadata: the application's own keys.
        access: what whoever asks may do with it: ``read``, ``write`` or ``admin``.
        created_at, updated_at: when it was created, and edited last.
        nbytes: bytes that are read to open it.
        connections: how many sessions the server that was asked has on it.
    """

    name: str
    title: str | None
    metadata: Mapping[str, Any]
    access: str
    created_at: datetime
    updated_at: datetime
    nbytes: int
    connections: int


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """A part of a list; ``next`` is None at the end. It may hold fewer documents than were asked for, even none."""

    documents: list[ListedDocument]
    next: str | None


class Documents(ApiUser):
    """The documents of a server. Use it as ``async with Documents(url) as documents:``.

    Its arguments are those of `ApiUser`.
    """

    async def list(self, *, order: Order = "name", prefix: str = "") -> AsyncIterator[ListedDocument]:
        """Give the documents whose names begin with ``prefix``; by size for ``admin`` of all documents."""
        cursor = None
        while True:
            page = await self.page(order=order, prefix=prefix, cursor=cursor)
            for document in page.documents:
                yield document
            if (cursor := page.next) is None:
                return

    async def page(
        self, *, order: Order = "name", prefix: str = "", cursor: str | None = None, limit: int = 100
    ) -> DocumentPage:
        """Return a page of the documents.

        Args:
            order: how they are put in order.
            prefix: only names that begin with this.
            cursor: the ``next`` of the page before.
            limit: how many are looked at, 1,000 at most.
        """
        query = {"order": order, "prefix": prefix or None, "cursor": cursor, "limit": limit}
        said = await self._api.json("GET", "documents", None, query=query)
        try:
            return DocumentPage([_document(each) for each in said["documents"]], said["next"])
        except (KeyError, TypeError, ValueError) as error:
            raise RequestRefused(f"the server answers in another form: {error!r}") from None


def _document(said: Mapping[str, Any]) -> ListedDocument:
    return ListedDocument(
        name=said["name"],
        title=said["title"],
        metadata=said["metadata"],
        access=said["access"],
        created_at=datetime.fromisoformat(said["created_at"]),
        updated_at=datetime.fromisoformat(said["updated_at"]),
        nbytes=said["bytes"],
        connections=said["connections"],
    )
