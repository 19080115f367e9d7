"""Clients of a server that runs for a test; apart from it, because they load a CRDT library and it does not."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from collab import client
from collab.client import sync as client_sync


class Connect:
    """Open documents of one server by its client; see `collab.client.connect` for what it is given.

    Args:
        url: of the server.
        token: shown where a call gives none.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url, self._token = url, token

    def __call__(self, name: str, **options: Any) -> AbstractAsyncContextManager[client.Document]:
        """Open a document: ``async with collab_client("notes") as document:``."""
        return client.connect(self._url, name, **self._with_token(options))

    def sync(self, name: str, **options: Any) -> AbstractContextManager[client_sync.Document]:
        """Open a document without asyncio: ``with collab_client.sync("notes") as document:``."""
        return client_sync.connect(self._url, name, **self._with_token(options))

    def _with_token(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"token": self._token, **options}
