"""Which documents a server has: by name, by the time of the last edit, or by size.

Strategy: requests to the HTTP API, as in ``collab.client.history``. A list is read in pages, so it is as long as it
likes.
"""

from __future__ import annotations

import ssl as tls
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from collab.client.document import Token
from collab.client.http import Api
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


class Documents:
    """The documents of a server. Use it as ``async with Documents(url) as documents:``.

    Args:
        url: of the server, as for a `Connection`.
        token: shown with each request; see `Token`.
        headers: of each request.
        ssl: for ``wss://`` and ``https://``; None verifies the server as usual.
        timeout: seconds for one call. A server that is away, or asks to come back later, is asked again until then.
        max_message_bytes: the largest answer that is taken.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token | None = None,
        headers: Mapping[str, str] | None = None,
        ssl: tls.SSLContext | None = None,
        timeout: float = 30.0,
        max_message_bytes: int = 256 << 20,
    ) -> None:
        self._api = Api(
            url, token=token, headers=headers, ssl=ssl, timeout=timeout, max_message_bytes=max_message_bytes
        )

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._api.url

    async def __aenter__(self) -> Self:
        await self._api.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections."""
        await self._api.close()

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
