"""Verifying and repairing what is stored, on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from collab.adapters import make_maintenance
from collab.engine.document import Document, at_once
from collab.errors import CollabError, DamagedDocument, StoreDamaged
from collab.history.attribution import Attribution
from collab.history.encoding import encode_attribution
from collab.hub import maintenance as maintenance_module
from collab.hub.beside import find_unsound_skeletons
from collab.hub.documents import Documents
from collab.hub.loading import read_document
from collab.hub.maintenance import Report, carry_out, keep_skeleton, plan_repair, verify
from collab.hub.versions import CompactsInThread, Versions
from collab.storage.attributions import KeptAttribution
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.records import Append, Appended, NewOwner, NewRow, Snapshot, StoredDocument
from collab.storage.sql_maintenance import SqlMaintenance
from collab.storage.urls import DatabaseUrl
from collab.update.hazards import MAX_NESTED_TYPES
from tests.support.author import Author, content
from tests.update.test_hazards import nested

WORDS = "abcdefgh"


@pytest.fixture
async def store(database: DatabaseUrl) -> AsyncIterator[SqlMaintenance]:
    made = make_maintenance(database)
    assert isinstance(made, SqlMaintenance)
    await made.open()
    yield made
    await made.close()


async def run(store: SqlMaintenance, statement: str) -> Any:
    def execute(connection: Any) -> Any:
        result = connection.execute(text(statement))
        return result.all() if result.returns_rows else None

    return await store._backend.run(execute, "write")


async def write(store: SqlMaintenance, name: str, *snapshots: int, sealed: bool = True) -> StoredDocument:
    """Write a row for each letter, each by a client of its own, and snapshots of the first ones."""
    updates = [Author(client).type(letter) for client, letter in enumerate(WORDS, 1)]
    rows = tuple(seal_row(data, 1.0, "somebody") if sealed else NewRow(data, 1.0, "somebody") for data in updates)
    (outcome,) = await store.append([Append(name, None, rows)])
    assert isinstance(outcome, Appended)
    for seq in snapshots:
        document = at_once(Document.load(None, None, updates[:seq]))
        vector = document.encode_state_vector()
        snapshot = Snapshot(seq, document.encode_state_as_update(), b"", vector, 1.0)
        assert await store.write_snapshot(outcome.document_id, seal_snapshot(snapshot) if sealed else snapshot)
    return (await store.describe(name)).document


async def letters(store: SqlMaintenance, name: str) -> str:
    document = at_once(read_document(name, await store.load(name)))
    return "".join(sorted(content(document.encode_state_as_update())))


async def damage(store: SqlMaintenance, table: str, document: StoredDocument, *numbers: int) -> None:
    bad = "X'0102ff'" if store._backend.url.backend == "sqlite" else r"'\x0102ff'::bytea"
    for number in numbers:
        await run(store, f"UPDATE {table} SET data = {bad} WHERE document_id = {document.id} AND seq = {number}")


async def repaired(store: SqlMaintenance, document: StoredDocument, directory: Path) -> tuple[list[str], Report]:
    report = await verify(store, document)
    steps = await plan_repair(store, document, report)
    files = await carry_out(store, document, steps, directory)
    assert len(files) == len(steps)
    return [step.text for step in steps], await verify(store, document)


async def test_whole_documents(store: SqlMaintenance) -> None:
    for document in (
        await write(store, "d", 3, 6),
        await write(store, "old", 3, sealed=False),
        await store.create("e"),
    ):
        report = await verify(store, document)
        assert report.whole and list(report.troubles()) == [] and report.facts()["whole"] is True
        assert (report.rows, report.unverified_rows) == {"d": (8, 0), "old": (8, 8), "e": (0, 0)}[document.name]
    assert await store.count() == 3
    assert [each.name for each in await store.documents_after(0, 2)] == ["d", "old"]


@pytest.mark.parametrize("sealed", [True, False])
async def test_damage_is_found_noted_and_repaired(store: SqlMaintenance, tmp_path: Path, sealed: bool) -> None:
    document = await write(store, "d", 3, 6, sealed=sealed)
    await write(store, "other", 3)
    await damage(store, "log", document, 2, 8)
    await damage(store, "snapshots", document, 6)
    report = await verify(store, document)
    assert (report.damaged_rows, report.damaged_snapshots, report.missing) == ([2, 8], [6], [])
    assert not report.whole and report.noted
    assert len(await run(store, "SELECT 1 FROM damage")) == 3
    with pytest.raises(DamagedDocument):
        await letters(store, "d")

    texts, after = await repaired(store, document, tmp_path / "aside")
    assert ["a later snapshot says" in each for each in texts] == [True, False, False]
    assert "missing until a client comes" in texts[1] and "say the same" in texts[2]
    assert after.whole and not after.noted
    assert await letters(store, "d") == "abcdefg", "row 8 alone is lost"
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "aside").iterdir())]
    assert [(each["kind"], each["seq"], each["name"]) for each in kept] == [
        ("row", 2, "d"),
        ("row", 8, "d"),
        ("snapshot", 6, "d"),
    ]
    assert {base64.b64decode(each["data"]) for each in kept} == {b"\x01\x02\xff"}
    assert [row.seq for row in await store.rows_after(document.id, 0, 99)] == list(range(1, 9)), "numbers have no gap"
    # A client that holds it brings it back.
    await store.append([Append("d", document.id, (seal_row(Author(8).type("h"), 2.0, None),))])
    assert await letters(store, "d") == WORDS


async def test_snapshot_without_anything_that_says_the_same(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d", 3, 6)
    await run(store, f"DELETE FROM log WHERE document_id = {document.id} AND seq <= 6")
    await run(store, f"DELETE FROM snapshots WHERE document_id = {document.id} AND seq = 3")
    await damage(store, "snapshots", document, 6)
    report = await verify(store, document)
    assert (report.damaged_snapshots, report.missing) == ([6], [])
    with pytest.raises(DamagedDocument) as caught:
        await letters(store, "d")
    assert caught.value.snapshots == (6,)
    (said,), after = await repaired(store, document, tmp_path)
    assert "all before row 7 is missing until a client comes that holds it" in said
    assert after.whole
    assert await letters(store, "d") == "gh"


async def test_damaged_snapshot_before_a_whole_one(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d", 3, 6)
    await damage(store, "snapshots", document, 3)
    (said,), after = await repaired(store, document, tmp_path)
    assert "a later snapshot is whole" in said and after.whole
    assert await letters(store, "d") == WORDS
    assert [kept.seq for kept in await store.kept_snapshots(document.id)] == [6]


async def test_rows_that_are_missing_are_told(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d")
    for numbers, missing in (("= 4", [(4, 4)]), ("IN (5, 8)", [(4, 5), (8, 8)]), ("< 3", [(1, 2), (4, 5), (8, 8)])):
        await run(store, f"DELETE FROM log WHERE document_id = {document.id} AND seq {numbers}")
        report = await verify(store, document)
        assert report.missing == missing and not report.whole
    assert list(report.troubles()) == ["rows 1 to 2 are missing", "rows 4 to 5 are missing", "row 8 is missing"]
    texts, _ = await repaired(store, document, tmp_path)
    assert texts == []
    pruned = await write(store, "pruned", 3, 6)
    await run(store, f"DELETE FROM log WHERE document_id = {pruned.id} AND seq <= 3")
    assert (await verify(store, pruned)).whole


async def test_filling_gives_checksums_to_what_is_whole_only(
    store: SqlMaintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.storage.sql_maintenance.FILL_ROWS", 3)
    old = await write(store, "old", 3, sealed=False)
    bad = await write(store, "bad", 3, sealed=False)
    await damage(store, "log", bad, 5)
    for document, filled in ((old, 9), (bad, 0)):
        assert (await verify(store, document)).filled == 0
        report = await verify(store, document, fill=True, note=True)
        assert report.filled == filled
    assert await store.filled_to() == old.id
    count = "SELECT count(*) FROM log WHERE checksum IS NULL"
    assert (await run(store, count))[0][0] == 8
    again = await verify(store, old)
    assert again.whole and again.unverified_rows == again.unverified_snapshots == 0
    await damage(store, "log", old, 5)
    assert (await verify(store, old)).damaged_rows == [5]
    await store.filled()
    assert await store.filled_to() == 0


async def test_what_changes_meanwhile_is_left_alone(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d", 3)
    await damage(store, "log", document, 5)
    await damage(store, "snapshots", document, 3)
    steps = await plan_repair(store, document, await verify(store, document))
    good = "X'0000'" if store._backend.url.backend == "sqlite" else r"'\x0000'::bytea"
    await run(store, f"UPDATE log SET data = {good}")
    await run(store, f"UPDATE snapshots SET data = {good}")
    await carry_out(store, document, steps, tmp_path)
    assert (await run(store, "SELECT count(*) FROM log WHERE checksum IS NOT NULL"))[0][0] == 8
    assert [kept.seq for kept in await store.kept_snapshots(document.id)] == [3]


async def test_nothing_changes_if_the_damaged_bytes_cannot_be_kept(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d")
    await damage(store, "log", document, 5)
    steps = await plan_repair(store, document, await verify(store, document))
    (tmp_path / "file").touch()
    with pytest.raises(CollabError, match="cannot keep what is damaged"):
        await carry_out(store, document, steps, tmp_path / "file")
    assert (await verify(store, document)).damaged_rows == [5]
    # Two at the same place do not overwrite each other.
    for _ in range(2):
        maintenance_module._keep(tmp_path / "aside", document, steps[0].was)
    names = sorted(path.name for path in (tmp_path / "aside").iterdir())
    assert names == [f"{document.id}-row-5-2.json", f"{document.id}-row-5.json"]


async def test_database_that_is_damaged_itself(store: SqlMaintenance, monkeypatch: pytest.MonkeyPatch) -> None:
    document = await write(store, "d")

    async def malformed(*_: object) -> None:
        raise StoreDamaged("SQLite: database disk image is malformed (SQLITE_CORRUPT)")

    monkeypatch.setattr(store, "kept_rows", malformed)
    report = await verify(store, document)
    assert not report.whole and "malformed" in next(report.troubles())


async def test_what_silences_every_client_is_named_and_left_as_it_is(store: SqlMaintenance) -> None:
    # Subdocument options with a ``guid`` that is null: this release refuses it, one before has taken it.
    poison = bytes.fromhex("010105000901016d0167760104677569647e00")
    document = await store.create("d", rows=[seal_row(poison, 1.0, None), seal_row(Author(1).type("x"), 1.0, None)])
    report = await verify(store, document)
    assert report.whole, "it says what was written"
    (trouble,) = report.troubles()
    assert trouble.startswith("row 1 is poison for yjs (")
    assert await plan_repair(store, document, report) == []


async def test_what_only_a_whole_document_shows_is_named_too(store: SqlMaintenance) -> None:
    document = await store.create("d", rows=[seal_row(nested(MAX_NESTED_TYPES + 1), 1.0, None)])
    (trouble,) = (await verify(store, document)).troubles()
    assert trouble.startswith("the whole is poison for yjs (more than 500 types lie in each other")


async def test_indexes_that_are_missing_or_not_valid_are_found_and_made(store: SqlMaintenance) -> None:
    await write(store, "d")
    assert await store.find_troubles() == [] and await store.make_indexes() == []
    await run(store, "DROP INDEX ix_calls_at")
    troubles = ["the index ix_calls_at is missing"]
    made = ["the index ix_calls_at was missing and is made"]
    if store._backend.url.backend == "postgresql":
        # As a CREATE INDEX CONCURRENTLY that has failed leaves it.
        await run(store, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_trash_name'::regclass")
        troubles.append("the index ix_trash_name is not valid")
        made.append("the index ix_trash_name was not valid and is made anew")
    assert await store.find_troubles() == troubles
    assert await store.make_indexes() == made
    assert await store.find_troubles() == []


@pytest.mark.parametrize("backend", ["sqlite"])  # PostgreSQL looks for that with its own tools (amcheck)
async def test_an_index_that_does_not_fit_its_table_is_found_and_made_anew(store: SqlMaintenance) -> None:
    await write(store, "d")
    # Filled as if it were another index.
    for was, by, fill in (("(name)", "(deleted_at)", "REINDEX"), ("(deleted_at)", "(name)", "SELECT 1")):
        change = f"UPDATE sqlite_schema SET sql = replace(sql, '{was}', '{by}') WHERE name = 'uq_documents_name'"
        for statement in ("PRAGMA writable_schema = ON", change, "PRAGMA writable_schema = RESET", fill):
            await run(store, statement)
    assert any("index uq_documents_name" in trouble for trouble in await store.find_troubles())
    assert await store.make_indexes() == ["all indexes are made anew"]
    assert await store.find_troubles() == []


async def test_a_table_that_is_missing_is_told_and_left(store: SqlMaintenance) -> None:
    await run(store, "DROP TABLE producers")
    assert await store.make_indexes() == []
    assert await store.find_troubles() == ["the table producers is missing"]


async def test_documents_in_the_trash_are_looked_at_and_repaired(store: SqlMaintenance, tmp_path: Path) -> None:
    await write(store, "d", 4)
    await Documents(store).delete("d")
    await Documents(store).create("d")  # another one under the same name
    living = (await store.describe("d")).document
    gone = await write(store, "gone")
    await Documents(store).delete("gone")
    await run(store, f"DELETE FROM trash WHERE document_id = {gone.id}")
    deleted, other = await store.documents_after(0, 10)
    assert (deleted.name, other.id, await store.count()) == ("d", living.id, 2) and deleted.deleted_at
    assert (await verify(store, deleted)).whole and (await verify(store, deleted)).deleted
    await damage(store, "log", deleted, 3, 6)
    await damage(store, "snapshots", deleted, 4)
    report = await verify(store, deleted)
    assert (report.damaged_rows, report.damaged_snapshots, report.noted) == ([3, 6], [4], True)
    _, report = await repaired(store, deleted, tmp_path)
    assert report.whole and not report.noted
    # While its content is removed nothing is missing.
    await run(store, f"DELETE FROM trash WHERE document_id = {deleted.id}")
    await run(store, f"DELETE FROM log WHERE document_id = {deleted.id} AND seq < 3")
    assert (await verify(store, deleted)).whole


async def test_what_is_kept_beside_the_log_is_looked_at(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d", 4)
    version = (await Versions(store, CompactsInThread()).make("d", "First", number=4)).id
    sound = await store.kept_snapshot(document.id, 4)
    assert sound is not None and await store.pin_version(document.id, version, sound)
    kept = KeptAttribution(4, encode_attribution(Attribution(4)))
    assert await store.keep_attribution(document.id, kept) and (await verify(store, document)).whole
    await damage(store, "version_states", document, 4)
    await damage(store, "attributions", document, 4)
    report = await verify(store, document)
    assert (report.damaged_versions, report.damaged_attribution) == ([version], True)
    assert list(report.troubles()) == [
        f"the state of version {version} is damaged",
        "what is kept of who wrote what is damaged",
    ]
    (done,), report = await repaired(store, document, tmp_path)
    assert done.startswith("who wrote what: set its 3 bytes aside") and await store.attribution(document.id) is None
    assert (report.damaged_versions, report.damaged_attribution) == ([version], False)
    await run(store, "DELETE FROM version_states")
    assert (await verify(store, document)).damaged_versions == [version]
    await Versions(store, CompactsInThread()).delete("d", version)
    assert (await verify(store, document)).whole


def told(directory: Path) -> list[dict[str, Any]]:
    """Read what was set aside."""
    return [json.loads(path.read_text()) for path in sorted(directory.iterdir())]


async def summarise(store: SqlMaintenance, document: StoredDocument) -> None:
    while (done := await store.summarise(document.id, now=1e9, spacing=None)) is not None and done.left:
        pass


async def entries(store: SqlMaintenance, document: StoredDocument) -> list[tuple[int, int]]:
    page = await store.timeline(document.id)
    return sorted((entry.first, entry.last) for entry in page.entries)


async def in_pauses(store: SqlMaintenance, name: str, count: int = 6) -> StoredDocument:
    """Write rows with long pauses between, each in an entry of its own."""
    document = None
    for number in range(count):
        row = seal_row(Author(number + 1).type(WORDS[number]), 1_000.0 * (number + 1), "ada")
        (outcome,) = await store.append([Append(name, None if document is None else document.id, (row,))])
        assert isinstance(outcome, Appended)
        document = (await store.describe(name)).document
    assert document is not None
    await summarise(store, document)
    assert await entries(store, document) == [(number, number) for number in range(1, count + 1)]
    return document


async def test_owners_that_cannot_be_are_found_and_removed(store: SqlMaintenance, tmp_path: Path) -> None:
    rows = (seal_row(Author(1).type("x"), 1.0, "ada"),)
    owners = tuple(NewOwner(client, "ada", 1.0, 0) for client in (1, 2, 3, 4, 5))
    (outcome,) = await store.append([Append("d", None, rows, owners=owners)])
    assert isinstance(outcome, Appended)
    document = (await store.describe("d")).document
    assert (await verify(store, document)).whole
    for client, column, value in ((2, "seq", 9), (3, "seq", 0), (4, "clock", -1), (5, "client", -5)):
        await run(
            store,
            f"UPDATE client_owners SET {column} = {value} WHERE document_id = {document.id} AND client = {client}",
        )
    report = await verify(store, document)
    assert report.unsound_owners == [-5, 2, 3, 4] and not report.whole
    assert "client ID -5, 2, 3, 4 is by a row that never was" in next(report.troubles())
    texts, report = await repaired(store, document, tmp_path / "aside")
    assert len(texts) == 4 and report.whole
    assert [owner.client for owner in await store.client_owners(document.id, -1, 9)] == [1]
    kept = {each["client"]: each for each in told(tmp_path / "aside")}
    assert kept.keys() == {-5, 2, 3, 4} and (kept[2]["author"], kept[2]["seq"]) == ("ada", 9)
    # An owner by a row that was written since the document was looked up is none of these.
    stale = document
    await store.append([Append("d", document.id, rows, owners=(NewOwner(7, "bob", 1.0, 0),))])
    assert (await verify(store, stale)).whole


async def test_a_timeline_that_leaves_rows_out_is_completed_from_the_log(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await in_pauses(store, "d")
    before = await store.timeline(document.id)
    await run(store, f"DELETE FROM timeline WHERE document_id = {document.id} AND first_seq IN (1, 3, 4)")
    report = await verify(store, document)
    assert report.timeline_gaps == [(1, 1), (3, 4)] and not report.whole
    assert list(report.troubles()) == ["the timeline leaves out row 1", "the timeline leaves out rows 3 to 4"]
    steps = await plan_repair(store, document, report)
    assert await carry_out(store, document, steps, tmp_path) == [], "nothing was replaced"
    assert (await verify(store, document)).whole and await store.timeline(document.id) == before


async def test_rows_that_are_pruned_are_missed_in_no_timeline(store: SqlMaintenance) -> None:
    document = await in_pauses(store, "d")
    whole = at_once(read_document("d", await store.load("d")))
    state = Snapshot(4, whole.encode_state_as_update(), b"", whole.encode_state_vector(), 1.0)
    assert await store.write_snapshot(document.id, seal_snapshot(state))
    await run(store, f"DELETE FROM log WHERE document_id = {document.id} AND seq <= 4")
    await run(store, f"DELETE FROM timeline WHERE document_id = {document.id} AND first_seq IN (2, 3)")
    assert (await verify(store, document)).whole


@pytest.mark.parametrize(
    "change",
    [
        "data = {bad} WHERE first_seq = 3",
        "last_seq = 6 WHERE first_seq = 3",
        "last_seq = 2 WHERE first_seq = 3",
        "last_seq = 99 WHERE first_seq = 6",
        "ended_at = 0 WHERE first_seq = 3",
        "nbytes = -1 WHERE first_seq = 1",
    ],
)
async def test_entries_that_cannot_be_are_summarised_anew(store: SqlMaintenance, tmp_path: Path, change: str) -> None:
    document = await in_pauses(store, "d")
    before = await store.timeline(document.id)
    bad = "X'0102ff'" if store._backend.url.backend == "sqlite" else r"'\\x0102ff'::bytea"
    await run(store, f"UPDATE timeline SET {change.format(bad=bad)}")
    report = await verify(store, document)
    (first,) = report.unsound_entries
    assert f"the entry of the timeline at row {first} is damaged" in list(report.troubles())
    steps = await plan_repair(store, document, report)
    await carry_out(store, document, steps, tmp_path / "aside")
    assert (await verify(store, document)).whole
    await summarise(store, document)
    assert await store.timeline(document.id) == before
    assert [each["first"] for each in told(tmp_path / "aside")] == [first]


async def test_receivers_that_count_as_told_of_what_never_was_are_told_again(
    store: SqlMaintenance, tmp_path: Path
) -> None:
    document = await write(store, "d")
    await run(store, f"DELETE FROM webhook_cursors WHERE document_id = {document.id}")
    assert (await verify(store, document)).whole, "nobody was told of anything"
    await run(store, f"INSERT INTO webhook_cursors (document_id, seq) VALUES ({document.id}, 8)")
    assert (await verify(store, document)).whole
    for seq in (9, -1):
        await run(store, f"UPDATE webhook_cursors SET seq = {seq}")
        report = await verify(store, document)
        assert report.unsound_cursor == seq and not report.whole
        (text,), report = await repaired(store, document, tmp_path)
        assert "told again of all from row 1" in text and report.whole
        assert await store.kept_cursor(document.id) == 0


async def test_a_mark_that_lies_days_ahead_is_removed(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d")
    await run(store, "DELETE FROM webhook_marks")
    await run(store, f"INSERT INTO webhook_marks (document_id, at) VALUES ({document.id}, 1000)")
    assert (await verify(store, document)).whole
    await run(store, "UPDATE webhook_marks SET at = 1e12")
    report = await verify(store, document)
    assert report.unsound_mark == 1e12 and list(report.troubles()) == ["webhooks are to be told in some days only"]
    (_,), report = await repaired(store, document, tmp_path / "aside")
    assert report.whole and await store.kept_mark(document.id) is None
    assert [each["at"] for each in told(tmp_path / "aside")] == [1e12]


async def test_a_skeleton_that_cannot_be_read_is_set_aside(store: SqlMaintenance, tmp_path: Path) -> None:
    documents = Documents(store)
    await documents.create("ä/d", update=Author(1).type("x"))
    await documents.delete("ä/d")
    assert await store.replace_skeleton("sound", None, Author(1).type("x"))
    assert await store.replace_skeleton("ä/d", None, b"\x01\x02\xff")
    assert await find_unsound_skeletons(store) == [("ä/d", b"\x01\x02\xff")]
    with pytest.raises(CollabError):
        await documents.create("ä/d", update=Author(2).type("x"))
    path = await keep_skeleton(store, "ä/d", b"\x01\x02\xff", tmp_path)
    about = json.loads(path.read_text())
    assert (about["name"], about["kind"], base64.b64decode(about["data"])) == ("ä/d", "skeleton", b"\x01\x02\xff")
    assert await find_unsound_skeletons(store) == []
    # Documents are created under the name, deleted and created again.
    for _ in range(2):
        await documents.create("ä/d", update=Author(2).type("x"))
        await documents.delete("ä/d")


async def pinned(store: SqlMaintenance, document: StoredDocument, number: int) -> int:
    """Make a version and keep its state beside the log, as before rows are pruned."""
    versions = Versions(store, CompactsInThread())
    version = (await versions.make(document.name, "First", number=number)).id
    state = await versions._state_of(
        await versions._rebuilding.at(document.name, document.id, number), number, 5.0, gc=document.gc
    )
    assert await store.pin_version(document.id, version, state)
    return version


@pytest.mark.parametrize("lost", [False, True])
async def test_the_state_of_a_version_is_made_anew_from_what_is_kept(
    store: SqlMaintenance, tmp_path: Path, lost: bool
) -> None:
    document = await write(store, "d", 3)
    version = await pinned(store, document, 5)
    sound = await store.kept_state(version)
    assert sound is not None and (await verify(store, document)).whole
    if lost:
        await run(store, "DELETE FROM version_states")
    else:
        await damage(store, "version_states", document, 5)
    report = await verify(store, document)
    assert report.damaged_versions == [version]
    steps = await plan_repair(store, document, report)
    (step,) = steps
    assert step.text.endswith("nothing is left to compare it with" if lost else "by its checksum"), step.text
    files = await carry_out(store, document, steps, tmp_path)
    assert (await verify(store, document)).whole
    made = await store.kept_state(version)
    assert made is not None and (made.data, made.index, made.state_vector, made.checksum) == (
        sound.data,
        sound.index,
        sound.state_vector,
        sound.checksum,
    )
    assert [json.loads(path.read_text())["kind"] for path in files] == ([] if lost else ["version"])


async def test_a_state_that_what_is_kept_does_not_give_is_left_and_told(store: SqlMaintenance, tmp_path: Path) -> None:
    document = await write(store, "d")
    version = await pinned(store, document, 5)
    await run(store, "UPDATE version_states SET checksum = 1")
    report = await verify(store, document)
    assert await plan_repair(store, document, report) == []
    assert report.left == [
        f"the state of version {version} cannot be made anew: the rows and snapshots that are kept give another one"
    ]
    await run(store, f"DELETE FROM log WHERE document_id = {document.id} AND seq = 2")
    report = await verify(store, document)
    assert await plan_repair(store, document, report) == []
    assert "the rows and snapshots that are kept do not give it" in report.left[0]
    await run(store, "UPDATE versions SET seq = 0")
    report = await verify(store, document)
    assert await plan_repair(store, document, report) == [] and "it was imported" in report.left[0]
