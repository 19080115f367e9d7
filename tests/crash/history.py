"""A process that makes versions, pins them, prunes and thins as fast as it can, to be killed at any moment.

``python -m tests.crash.history URL`` goes on for ever on a database. It types one letter a row into the document ``d``,
and prints ``version ID NUMBER`` for each version that it was told is made, and ``pruned`` after each round. So the
state after row n is a text of n letters, which :func:`check` compares.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys

from collab.adapters import make_store
from collab.engine.document import Document
from collab.errors import HistoryGone
from collab.hub.versions import CompactsInThread, Versions, Which
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.records import Append, Snapshot
from collab.storage.store import Store
from collab.storage.urls import DatabaseUrl, parse_database_url
from collab.update.compact import compact
from tests.support.author import Author, content

NAME = "d"
CLIENT = 5


async def work(store: Store) -> None:
    """Type, and do all that history asks for."""
    versions = Versions(store, CompactsInThread())
    found = await store.load(NAME)
    written = 0 if found is None else found.document.head_seq
    document, author = Document(), Author(CLIENT)
    if written:
        state = await versions.state(NAME, Which(number=written))
        document = state.document
        author.read(document.encode_state_as_update())
    document_id = None if found is None else found.document.id
    choose = random.Random(written)
    for round_ in itertools.count():
        rows = []
        for _ in range(choose.randint(1, 5)):
            update = author.type("x")
            document.apply_update(update)
            rows.append(seal_row(update, float(written + len(rows) + 1), "ann"))
        document.flush()
        await store.append([Append(NAME, document_id, tuple(rows))])
        written += len(rows)
        document_id = document_id or (await store.describe(NAME)).document.id
        version = await versions.make(NAME, f"version {written}", number=choose.randint(max(1, written - 2), written))
        print("version", version.id, version.seq, flush=True)
        made = compact(document.encode_state_as_update())
        snapshot = Snapshot(written, made.data, made.index, document.encode_state_vector(), float(written))
        await store.write_snapshot(document_id, seal_snapshot(snapshot))
        await store.summarise(document_id, now=1e9, spacing=1.0)
        if round_ % 3 == 0:
            await versions.pin_due(float(written), ())
            while await store.prune(before=float(written), limit=2):
                pass
            await store.thin_snapshots(limit=1)
            print("pruned", flush=True)


async def check(url: DatabaseUrl, told: dict[int, int]) -> int:
    """Read all versions that were told of, and all numbers that the timeline says can be read; give how many.

    What can be read beside those is right too.
    """
    store = make_store(url)
    await store.open()
    try:
        versions = Versions(store, CompactsInThread())
        for version_id, number in told.items():
            state = await versions.state(NAME, Which(version=version_id))
            assert content(state.document.encode_state_as_update()) == "x" * number, (version_id, number)
        document_id = (await store.describe(NAME)).document.id
        page = await store.timeline(document_id, limit=500)
        for number in range(page.reaches, page.head + 1):
            state = await versions.state(NAME, Which(number=number))
            assert content(state.document.encode_state_as_update()) == "x" * number
        for number in range(1, page.reaches):
            # A snapshot that nobody has removed yet may stand between rows that are gone: then it is the right one.
            with contextlib.suppress(HistoryGone):
                state = await versions.state(NAME, Which(number=number))
                assert content(state.document.encode_state_as_update()) == "x" * number
        entries = sorted(page.entries)
        assert [each.last + 1 for each in entries[:-1]] == [each.first for each in entries[1:]], "entries overlap"
        return len(told) + page.head - page.reaches
    finally:
        await store.close()


async def _main(url: str) -> None:
    store = make_store(parse_database_url(url))
    await store.open()
    await work(store)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
