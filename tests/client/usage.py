"""The client as a typed program uses it: nothing runs this, the type checker reads it (make lint)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_type

import pycrdt

from collab.client import (
    Backoff,
    Change,
    Connection,
    Entry,
    History,
    LockedDoc,
    Mark,
    Rewound,
    Status,
    Version,
    connect,
    edit,
    read_text,
    replace_text,
    sync,
)


def on_status(status: Status) -> None: ...


def on_saved(saved: bool) -> None: ...


def on_text(text: str) -> None: ...


async def asynchronous(url: str) -> None:
    async def token() -> str:
        return "token"

    async with connect(url, "d", token=token, doc=pycrdt.Doc(), timeout=5.0, heartbeat=10.0) as document:
        assert_type(document.doc, pycrdt.Doc[Any])
        assert_type(document.saved, bool)
        assert_type(document.status, Status)
        assert_type(document.read_text("content"), str)
        assert_type(document.replace_text("content", "x"), bool)
        assert_type(document.edit(lambda doc: len(doc.get_state())), int)
        assert_type(document.awareness.states, Mapping[int, dict[str, Any]])
        document.on("status", on_status)
        document.on("saved", on_saved)
        document.on("stateless", on_text)
        document.on("saved", on_text)  # type: ignore[call-overload]
        document.awareness.on_change(lambda change: assert_type(change, Change))
        async for status in document.statuses():
            assert_type(status, Status)
        await document.wait_saved(timeout=1)
    async with Connection(url, token=lambda: "token", backoff=Backoff(last=5.0)) as connection:
        (await connection.open("d", token=None, wait=False)).on("nothing", print)  # type: ignore[call-overload]
    assert_type(await read_text(url, "d"), str)
    assert_type(await replace_text(url, "d", "content", "x", token="token"), bool)
    assert_type(await edit(url, "d", lambda doc: doc.client_id), int)
    async with History(url, token=token, timeout=5) as history:
        assert_type(await history.make_version("d", "Sent"), Version)
        async for version in history.versions("d", kind="named"):
            assert_type(await history.restore("d", version=version), Rewound)
        async for entry in history.timeline("d"):
            assert_type(entry, Entry)
        assert_type([run.inserted for run in await history.who_wrote("d", "text")], list[Mark | None])
        history.versions("d", kind="other")  # type: ignore[arg-type]


def synchronous(url: str) -> None:
    with sync.connect(url, "d", token="token") as document:
        assert_type(document.doc, LockedDoc)
        assert_type(document.awareness.others, Mapping[int, dict[str, Any]])
        assert_type(document.edit(lambda doc: doc.guid), str)
        document.on("saved", on_saved)
        document.wait_saved(timeout=1)
    with sync.Connection(url) as connection:
        assert_type(connection.open("d", doc=LockedDoc()), sync.Document)
    assert_type(sync.read_text(url, "d"), str)
    assert_type(sync.edit(url, "d", lambda doc: doc.client_id), int)
    with sync.History(url, token="token") as history:
        assert_type(history.versions("d"), Iterator[Version])
        assert_type(history.undo("d", "ada", start=3), Rewound)
