"""One thing done with one document, in one line.

Each function opens a connection, waits until the document is in sync, and closes it again. To do several things, open
the document once by `connect`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pycrdt

from collab.client.connection import connect
from collab.client.document import Token

T = TypeVar("T")


async def read_text(url: str, name: str, root: str | None = None, *, token: Token | None = None, **options: Any) -> str:
    """Return the plain text of a document's root; see `Document.read_text`, and `connect` for the rest."""
    async with connect(url, name, token=token, **options) as document:
        return document.read_text(root)


async def read_json(url: str, name: str, root: str | None = None, *, token: Token | None = None, **options: Any) -> Any:
    """Return the JSON of a document, or of one root; see `Document.read_json`, and `connect` for the rest."""
    async with connect(url, name, token=token, **options) as document:
        return document.read_json(root)


async def edit(
    url: str, name: str, function: Callable[[pycrdt.Doc[Any]], T], *, token: Token | None = None, **options: Any
) -> T:
    """Call a function with a document, in one transaction; return what it returns once all of it is saved.

    See `Document.edit`, and `connect` for the rest.
    """
    async with connect(url, name, token=token, **options) as document:
        return document.edit(function)


async def replace_text(
    url: str, name: str, root: str, text: str, *, token: Token | None = None, **options: Any
) -> bool:
    """Make a root of a document show a text, by its difference; return whether it has changed, once that is saved.

    See `Document.replace_text`, and `connect` for the rest.
    """
    async with connect(url, name, token=token, **options) as document:
        return document.replace_text(root, text)
