"""The documents of a server, with a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from collab.auth.access import AccessRequest, Grant
from collab.client import Documents, RequestRefused, replace_text
from collab.errors import Unauthenticated
from collab.protocol.session import Access
from tests.transports.conftest import Serve, Served


class People:
    """The token is the user; ``reader`` may only read."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        if not request.token:
            raise Unauthenticated("no token", public="a token is needed")
        return Grant(Access.READ if request.token == "reader" else Access.ADMIN, request.token)


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve(authenticator=People(), auto_version_minutes=0)


@pytest.fixture
async def documents(served: Served) -> AsyncIterator[Documents]:
    async with Documents(served.hocuspocus, token="root") as documents:
        yield documents


async def test_documents_are_listed_by_name_time_and_size(served: Served, documents: Documents) -> None:
    for name, text in (("b/ß %", "x" * 100), ("a", "x" * 1_000), ("b/2", "x")):
        assert await replace_text(served.hocuspocus, name, "text", text, token="ada")
    assert [each.name async for each in documents.list()] == ["a", "b/2", "b/ß %"]
    assert [each.name async for each in documents.list(order="updated")] == ["b/2", "a", "b/ß %"]
    assert [each.name async for each in documents.list(order="size")] == ["a", "b/ß %", "b/2"]
    assert [each.name async for each in documents.list(order="size", prefix="b/")] == ["b/ß %", "b/2"]
    page = await documents.page(order="size", limit=2)
    assert [each.name for each in page.documents] == ["a", "b/ß %"] and page.next is not None
    rest = await documents.page(order="size", limit=2, cursor=page.next)
    assert [each.name for each in rest.documents] == ["b/2"] and rest.next is None
    first = page.documents[0]
    assert (first.title, first.metadata, first.access) == (None, {}, "admin") and first.nbytes > 1_000
    assert first.created_at <= first.updated_at and abs(first.updated_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_who_may_not_do_that_is_told(served: Served) -> None:
    async with Documents(served.url, token="reader") as documents:
        assert (await documents.page()).documents == []
        with pytest.raises(RequestRefused) as refused:
            await documents.page(order="size")
        assert (refused.value.code, refused.value.status) == ("forbidden", 403)
