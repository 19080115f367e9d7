"""Data about people in a database: all of it is found, and nothing is left of it when it was erased."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import LargeBinary, cast, select

from collab.adapters import make_maintenance
from collab.authorship import DELETED_USER, Note
from collab.history.attribution import Attribution, Mark, Who
from collab.history.encoding import decode_attribution, encode_attribution
from collab.storage import sql_people
from collab.storage.attributions import KeptAttribution
from collab.storage.checksums import is_damaged, renamed_checksum, row_checksum, seal_row
from collab.storage.people import People
from collab.storage.records import Append, Appended, NewGuest, NewOwner, NewRow, PendingChange, PendingUpdate
from collab.storage.schema import metadata
from collab.storage.sql_maintenance import SqlMaintenance
from collab.storage.timeline import Share
from collab.storage.urls import DatabaseUrl
from collab.storage.versions import NewVersion
from collab.storage.webhooks import CHANGED, JOINED, Happened, Subscription
from tests.support.author import Author

ADA = "ada-1815 ü"
BOB = "bob"


@pytest.fixture
async def store(database: DatabaseUrl) -> AsyncIterator[SqlMaintenance]:
    made = make_maintenance(database)
    assert isinstance(made, SqlMaintenance)
    await made.open()
    yield made
    await made.close()


async def fill(store: People, name: str, at: float = 1_000.0, user: str = ADA) -> int:
    """Write a document in which Ada is named everywhere, beside Bob; give its id."""
    author = Author(5)
    updates = [author.type(letter) for letter in "abcdef"]
    rows = (
        seal_row(updates[0], at, user),
        seal_row(updates[1], at + 1, BOB),
        seal_row(updates[2], at + 2, "agent", Note(user, "a tool")),
        NewRow(updates[3], at + 3, user),  # of a release without checksums
        seal_row(updates[4], at + 4, user)._replace(checksum=12345),  # damaged
        seal_row(updates[5], at + 5, DELETED_USER),
    )
    waiting = (PendingUpdate(b"k" * 16, b"\x01", at, user), PendingUpdate(b"l" * 16, b"\x02", at, BOB))
    owners = (NewOwner(5, user, at, 0), NewOwner(6, BOB, at, 0, 1), NewOwner(7, user, at, 0, 2))
    # The names of those whom Ada has invited name her.
    guests = (NewGuest("guest:1", "Guest of Ada Lovelace", user), NewGuest("guest:2", "Guest of Bob", BOB))
    (outcome,) = await store.append(
        [Append(name, None, rows, PendingChange(waiting, ()), owners=owners, guests=guests)]
    )
    assert isinstance(outcome, Appended)
    number = outcome.document_id
    await store.make_version(number, 2, NewVersion("hers", None, user, at))
    await store.make_version(number, 3, NewVersion("his", None, BOB, at))
    assert await store.summarise(number, now=at + 10_000, spacing=None) is not None
    marks = [Mark(Who(user), 1000, 1001), Mark(Who(BOB), 1001, 1001), Mark(Who("agent", user, "a tool"), 1002, 1002)]
    assert await store.keep_attribution(number, KeptAttribution(6, encode_attribution(Attribution(6, marks))))
    return number


async def hear(store: SqlMaintenance, number: int, name: str) -> None:
    """Let a receiver be told of Ada, and of Bob alone."""
    assert await store.claim_delivery("node", 60.0)
    await store.subscribe("node", [Subscription("search", (CHANGED, JOINED), "")])
    said = {"from": 1, "to": 3, "authors": [ADA, BOB], "on_behalf_of": [ADA], "more_authors": False}
    await store.tell_people(
        [
            Happened(CHANGED, number, (name,), said),
            Happened(JOINED, number, (name,), {"user": ADA, "name": "Ada Lovelace", "node": "n"}),
            Happened(JOINED, number, (name,), {"user": BOB, "name": "Bob", "node": "n"}),
        ]
    )


async def everything(store: SqlMaintenance) -> bytes:
    """Give all bytes of the database, and what is packed in them."""

    def read(connection: Any) -> list[bytes]:
        found: list[bytes] = []
        for table in metadata.sorted_tables:
            columns = [
                cast(column, LargeBinary) if isinstance(column.type, LargeBinary) else column for column in table.c
            ]
            for row in connection.execute(select(*columns)):
                found += [
                    bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode() for value in row
                ]
        return found

    values = await store._backend.run(read, "read")
    kept = [decode_attribution(value) for value in values if value.startswith(b"CHA")]
    packed = [text.encode() for each in kept for mark in each.marks for text in mark.who if text is not None]
    return b"\n".join(values + packed)


def names(user: str) -> tuple[bytes, bytes]:
    """The ways in which a user is written: UTF-8, and JSON in ASCII."""
    return user.encode(), json.dumps(user)[1:-1].encode()


async def test_all_that_names_somebody_is_found(store: SqlMaintenance) -> None:
    number = await fill(store, "notes")
    await hear(store, number, "notes")
    assert [row.seq for row in await store.edits_of(number, ADA, 0, 100)] == [1, 3, 4, 5]
    assert [row.seq for row in await store.edits_of(number, ADA, 1, 2)] == [3, 4]
    traces = await store.traces_of(number, ADA)
    kinds = [trace.kind for trace in traces]
    assert kinds == [
        "waiting",
        "client_id",
        "client_id",
        "version",
        "sitting",
        "attribution",
        "attribution",
        "guest_name",
    ]
    by_kind = {trace.kind: trace.facts for trace in traces}
    assert by_kind["version"]["name"] == "hers" and by_kind["sitting"]["edits"] == 4
    guest = {"guest": "guest:1", "name": "Guest of Ada Lovelace", "invited_by": ADA}
    assert by_kind["guest_name"] == guest
    assert [trace.facts for trace in await store.traces_of(number, "guest:1")] == [guest]
    assert by_kind["attribution"] == {"at": 1002, "until": 1002, "label": "a tool"}
    found, last = await store.deliveries_of(ADA, 0, 100)
    assert [trace.facts["event"] for trace in found] == [CHANGED, JOINED] and last is not None
    assert await store.deliveries_of(ADA, last, 100) == ([], None)
    assert await store.edits_of(number, "ada", 0, 100) == [] and await store.traces_of(number, "ada") == []


async def test_nothing_names_somebody_who_was_erased_and_all_others_stay(store: SqlMaintenance) -> None:
    number, other = await fill(store, "notes"), await fill(store, "in the trash")
    await hear(store, number, "notes")
    await store.delete("in the trash", 2_000.0)
    written = await everything(store)
    assert all(text in written for text in names(ADA))
    before = await store.kept_rows(number, 0, 100)
    for place in await store.places_after(0, 100):
        changed = await store.rename_in(place.id, ADA, DELETED_USER)
        few = {"waiting": 1, "version": 1, "attribution": 1, "guest_name": 1}
        assert changed == {"edit": 4, "client_id": 2, "sitting": 1, **few}
        assert await store.rename_in(place.id, ADA, DELETED_USER) == {}
    assert [(place.name, place.deleted) for place in await store.places_after(0, 100)] == [
        ("notes", False),
        ("in the trash", True),
    ]
    assert await store.rename_in_deliveries(ADA, DELETED_USER) == 2
    kept = await everything(store)
    assert not [text for text in (*names(ADA), b"Lovelace") if text in kept]
    after = await store.kept_rows(number, 0, 100)
    assert [row.author for row in after] == [DELETED_USER, BOB, "agent", DELETED_USER, DELETED_USER, DELETED_USER]
    assert after[2].note == Note(DELETED_USER, "a tool")
    assert [(row.seq, row.data, row.at) for row in after] == [(row.seq, row.data, row.at) for row in before]
    assert [is_damaged(row) for row in after] == [is_damaged(row) for row in before] == [False] * 4 + [True, False]
    assert [row.checksum is None for row in after] == [row.checksum is None for row in before]
    assert await store.guest_names(number) == {"guest:2": "Guest of Bob"}
    assert await store.rename_in(number, "guest:2", DELETED_USER) == {"guest_name": 1}
    assert await store.guest_names(number) == {}
    owners = await store.client_owners(number, -1, 100)
    assert [(owner.client, owner.author) for owner in owners] == [(5, DELETED_USER), (6, BOB), (7, DELETED_USER)]
    (entry,) = (await store.timeline(number)).entries
    # Those who were erased are one from now on.
    assert set(entry.shares) == {Share(DELETED_USER, None, 4), Share(BOB, None, 1), Share("agent", DELETED_USER, 1)}
    attribution = await store.attribution(number)
    assert attribution is not None
    assert [mark.who for mark in decode_attribution(attribution.data).marks] == [
        Who(DELETED_USER),
        Who(BOB),
        Who("agent", DELETED_USER, "a tool"),
    ]
    found, _ = await store.deliveries_of(BOB, 0, 100)
    assert [trace.facts["data"].get("name") for trace in found] == [None, "Bob"]
    assert found[0].facts["data"]["authors"] == [BOB, DELETED_USER]
    assert other != number


async def test_servers_write_on_while_somebody_is_erased(
    store: SqlMaintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each portion is a transaction of its own, so an append waits for one of them at most."""
    monkeypatch.setattr(sql_people, "PORTION_ROWS", 20)
    author = Author(5)
    rows = tuple(seal_row(author.type("x"), 1.0, ADA) for _ in range(400))
    (outcome,) = await store.append([Append("notes", None, rows)])
    assert isinstance(outcome, Appended)
    erasing = asyncio.create_task(store.rename_in(outcome.document_id, ADA, DELETED_USER))
    written = 0
    while not erasing.done():
        (more,) = await store.append([Append("notes", outcome.document_id, (seal_row(author.type("y"), 2.0, BOB),))])
        assert isinstance(more, Appended)
        written += 1
    assert await erasing == {"edit": 400}
    assert written > 1
    kept = await store.kept_rows(outcome.document_id, 0, 10_000)
    assert len(kept) == 400 + written and not any(is_damaged(row) for row in kept)
    assert {row.author for row in kept} == {DELETED_USER, BOB}


async def test_long_rows_are_changed_in_small_portions(store: SqlMaintenance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_people, "PORTION_BYTES", 1_000)
    author = Author(5)
    rows = tuple(seal_row(author.type("x" * size), 1.0, ADA) for size in (600, 600, 5_000, 1, 1))
    (outcome,) = await store.append([Append("notes", None, rows)])
    assert isinstance(outcome, Appended)
    portions: list[tuple[int, int | None]] = []

    def change(connection: Any, after: int) -> tuple[int, int | None]:
        portions.append(sql_people.rename_rows(connection, outcome.document_id, ADA, DELETED_USER, after))
        return portions[-1]

    assert await store._in_portions(change) == 5
    assert portions == [(1, 1), (1, 2), (1, 3), (2, None)]


@pytest.mark.parametrize("author", [None, ADA, ""])
def test_a_checksum_stays_as_right_or_wrong_as_it_was(author: str | None) -> None:
    data = b"some bytes"
    right = row_checksum(data, author)
    assert renamed_checksum(data, author, DELETED_USER, right) == row_checksum(data, DELETED_USER)
    wrong = renamed_checksum(data, author, DELETED_USER, right ^ 1)
    assert wrong == row_checksum(data, DELETED_USER) ^ 1
    assert renamed_checksum(data, author, DELETED_USER, 1 << 32) == 1 << 32  # of an algorithm of a later release
