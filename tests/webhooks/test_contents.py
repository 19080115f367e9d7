"""Content for receivers: of the very document, as it is now, or a reason why not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collab.content.edits import Format
from collab.errors import DocumentNotFound, SandboxBusy
from collab.hub.editing import Shown
from collab.storage.memory import MemoryStore
from collab.storage.webhooks import Delivery
from collab.testing.storage import AT
from collab.webhooks import contents as module
from collab.webhooks.contents import Contents
from collab.webhooks.messages import Content
from collab.webhooks.receivers import Receiver
from tests.webhooks.test_messages import DELIVERY

WANTED = Receiver("r", "https://a.example", (b"",), content=Format.TEXT, root="body")


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


async def about(store: MemoryStore, name: str) -> Delivery:
    """Create a document; give a delivery about it."""
    return DELIVERY._replace(lane=(await store.create(name)).id, name=name)


async def test_the_document_is_read_under_the_name_that_it_has_now(store: MemoryStore) -> None:
    delivery = await about(store, "d")
    await store.rename("d", "e", AT)

    async def read(*asked: Any) -> Shown:
        assert asked == ("e", Format.TEXT, "body")
        return Shown(b"hello", "tag", 1, 1)

    assert await Contents(store, read)(delivery, WANTED) == Content(Format.TEXT, b"hello", "tag")


async def test_what_is_gone_is_not_read(store: MemoryStore) -> None:
    delivery = await about(store, "d")

    async def read(*_: Any) -> Shown:
        raise AssertionError("nothing is to be read")

    contents = Contents(store, read)
    await store.delete("d", AT)
    gone = Content(Format.TEXT, omitted="gone")
    assert await contents(delivery, WANTED) == gone
    assert await contents(delivery._replace(lane=999), WANTED) == gone
    assert await contents(delivery._replace(lane=-5), WANTED) == gone


async def test_content_of_another_document_of_the_name_is_never_sent(store: MemoryStore) -> None:
    delivery = await about(store, "d")

    async def read(*_: Any) -> Shown:
        await store.delete("d", AT)
        await store.create("d")
        return Shown(b"another's", "tag", 2, 1)

    assert await Contents(store, read)(delivery, WANTED) == Content(Format.TEXT, omitted="gone")


async def test_what_cannot_be_read_now_is_left_out(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = await about(store, "d")

    async def busy(*_: Any) -> Shown:
        raise SandboxBusy("too much waits")

    async def forgotten(*_: Any) -> Shown:
        raise DocumentNotFound("d")

    async def never(*_: Any) -> Shown:
        await asyncio.sleep(3_600)
        raise AssertionError

    unreadable = Content(Format.TEXT, omitted="unreadable")
    assert await Contents(store, busy)(delivery, WANTED) == unreadable
    assert await Contents(store, forgotten)(delivery, WANTED) == Content(Format.TEXT, omitted="gone")
    monkeypatch.setattr(module, "_SECONDS", 0.05)
    assert await Contents(store, never)(delivery, WANTED) == unreadable
