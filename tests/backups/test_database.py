"""Backups of real databases: what comes back is what was there, on either kind, whole or as of a time."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from collab.adapters import make_store
from collab.backups.database import LEFT_OUT, SAVED, Restored, check, restore, save
from collab.backups.format import BackupError, BackupReader
from collab.errors import StoreRefused
from collab.hub.documents import Documents
from collab.hub.loading import load_document
from collab.hub.versions import CompactsInThread, Versions
from collab.storage.checksums import seal_row
from collab.storage.migrate import upgrade
from collab.storage.records import Append, NewGuest
from collab.storage.schema import SCHEMA, documents, log, metadata, snapshots
from collab.storage.store import Store
from collab.storage.transaction import run_once
from collab.storage.urls import DatabaseUrl, parse_database_url
from tests.support.author import Author, content
from tests.support.postgres import PostgresServer

KEY = b"0123456789abcdef0123456789abcdef"

Make = Callable[[], DatabaseUrl]


@contextmanager
def _making(kind: str, directory: Path, server: PostgresServer) -> Iterator[Make]:
    made: list[str] = []
    numbers = itertools.count()

    def make() -> DatabaseUrl:
        if kind == "sqlite":
            return parse_database_url(None, directory / f"{next(numbers)}")
        made.append(server.create_database())
        return parse_database_url(server.url(made[-1]), directory)

    yield make
    for name in made:
        server.drop_database(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make the URLs of databases that are not there yet (SQLite), or have no tables (PostgreSQL)."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgresql" else None
    with _making(request.param, tmp_path, server) as made:  # type: ignore[arg-type]
        yield made


def on(url: DatabaseUrl, work: Callable[[Store], Awaitable[None]]) -> None:
    """Run ``work`` on the store of a database."""

    async def inside() -> None:
        store = make_store(url)
        await store.open()
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(inside())


def everything(url: DatabaseUrl) -> dict[str, list[Any]]:
    """Read all rows of all tables that are saved."""

    def read(connection: Connection) -> dict[str, list[Any]]:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]
            for table in SAVED
        }

    return run_once(url, read, write=False)


def saved(url: DatabaseUrl, key: bytes | None = None) -> bytes:
    out = io.BytesIO()
    rows = save(url, out.write, key)
    assert check(BackupReader(io.BytesIO(out.getvalue()), key)) == rows
    return out.getvalue()


def put_back(url: DatabaseUrl, data: bytes, key: bytes | None = None, **options: Any) -> Restored:
    return restore(url, BackupReader(io.BytesIO(data), key), **options)


async def living(store: Store) -> dict[str, str]:
    """Give the text of each document by its name."""
    found: dict[str, str] = {}
    for summary in await store.list_documents(limit=1_000):
        _, document = await load_document(store, summary.document.name)
        found[summary.document.name] = content(document.encode_state_as_update())
    return found


class Past:
    """Documents that people create, edit, rename and delete, and what there was after each step; a step a second."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.now = 1_767_225_600.0
        self.states: list[tuple[float, dict[str, str]]] = []
        self._documents = Documents(store, clock=lambda: self.now)
        self._authors: dict[str, Author] = {}
        self._renamed: set[str] = set()
        self._dice = random.Random(seed)

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now += 1.0
            await self._step()
            self.states.append((self.now, await living(self.store)))

    async def _step(self) -> None:
        dice, names = self._dice, sorted(self._authors)
        kind = dice.random()
        if kind < 0.2 or not names:
            name = f"d{dice.randrange(30)}"
            if name not in names and name not in self._renamed:
                # With a row, whose time is that of the document.
                await self._documents.create(name, update=Author(dice.randrange(1, 2**31)).type("s"), author="ann")
                _, document = await load_document(self.store, name)
                self._authors[name] = Author(dice.randrange(1, 2**31))
                self._authors[name].read(document.encode_state_as_update())
                return
        if not names:
            return
        name = dice.choice(names)
        if kind < 0.3:
            await self._documents.delete(name)
            del self._authors[name]
        elif kind < 0.4:
            # Under a name that nothing else gets; what becomes of the others has a test of its own.
            new = f"r{len(self.states)}"
            await self._documents.rename(name, new)
            self._authors[new] = self._authors.pop(name)
            self._renamed.add(name)
        else:
            update = self._authors[name].type(dice.choice("abcdefgh"))
            await self.store.append([Append(name, None, (seal_row(update, self.now, "ann"),))])


def test_all_tables_are_saved_or_left_out_on_purpose() -> None:
    assert set(SAVED) | LEFT_OUT == set(metadata.sorted_tables) and len(SAVED) > 15


@pytest.mark.parametrize("key", [None, KEY])
def test_what_was_there_comes_back(make: Make, key: bytes | None) -> None:
    source = make()
    empty = make()
    restore(source, BackupReader(io.BytesIO(_filled(empty))))  # the tables are made on the way
    data = saved(source, key)
    target = make()
    restored = put_back(target, data, key)
    assert everything(target) == everything(source) and restored.rows["log"] > 20 and restored.moment is None
    assert restored.rows["guests"] == 1
    assert saved(target)[:20] == saved(source)[:20]

    async def goes_on(store: Store) -> None:
        # Numbers go on behind those that were given, also to rows that are gone.
        before = {summary.document.id for summary in await store.list_documents(limit=1_000)}
        created = await store.create("new", gc=True, rows=(), title=None, metadata=None, over_tombstone=False)
        assert created.id > max(before)

    on(target, goes_on)


def _filled(url: DatabaseUrl) -> bytes:
    upgrade(url)

    async def fill(store: Store) -> None:
        await Past(store, 3).run(60)
        author = Author(9)
        rows = tuple(seal_row(author.type("x"), 5.0 + at, "bob") for at in range(5))
        await store.append([Append("versions", None, rows, guests=(NewGuest("guest:1", "Guest of Bob", "bob", 2),))])
        await Versions(store, CompactsInThread()).make("versions", "First", author="bob")

    on(url, fill)
    return saved(url)


@pytest.mark.postgres
def test_one_kind_of_database_becomes_the_other(tmp_path: Path, postgres_server: PostgresServer) -> None:
    with (
        _making("sqlite", tmp_path, postgres_server) as files,
        _making("postgresql", tmp_path, postgres_server) as servers,
    ):
        first, second, third = files(), servers(), files()
        data = _filled(first)
        put_back(second, data)
        assert everything(second) == everything(first)
        put_back(third, saved(second))
        assert everything(third) == everything(first)

        async def edit(store: Store) -> None:
            await store.append([Append("versions", None, (seal_row(Author(11).type("y"), 99.0, None),))])
            assert (await living(store))["versions"] in ("xxxxxy", "yxxxxx")

        on(second, edit)


def test_what_is_there_is_not_overwritten_unless_it_is_wanted(make: Make) -> None:
    source, target = make(), make()
    data = _filled(source)
    put_back(target, data)
    before = everything(target)
    with pytest.raises(StoreRefused, match="--replace"):
        put_back(target, data)

    async def change(store: Store) -> None:
        await Documents(store).delete("versions")
        await Documents(store).create("other")

    on(target, change)
    assert everything(target) != before
    put_back(target, data, replace=True)
    assert everything(target) == before


def test_a_damaged_file_changes_nothing(make: Make) -> None:
    source, target = make(), make()
    data = _filled(source)
    put_back(target, data)
    before = everything(target)
    for broken in (data[:-1], data[:-30] + b"x" + data[-29:], data[: len(data) // 2]):
        with pytest.raises(BackupError):
            put_back(target, broken, replace=True)
        assert everything(target) == before
    with pytest.raises(BackupError, match="schema 99"):
        put_back(target, data.replace(b'"schema":%d' % SCHEMA, b'"schema":99', 1), replace=True)


@pytest.mark.parametrize("seed", range(4))
def test_a_database_goes_back_to_any_time(make: Make, seed: int) -> None:
    source = make()
    upgrade(source)
    states: list[tuple[float, dict[str, str]]] = []

    async def live(store: Store) -> None:
        past = Past(store, seed)
        await past.run(80)
        states.extend(past.states)

    on(source, live)
    data = saved(source)
    target = make()
    for at, state in [*random.Random(seed).sample(states[:-1], 12), states[-1]]:
        restored = put_back(target, data, at=at + 0.5, replace=True)
        assert restored.moment is not None and not restored.moment.kept and not restored.moment.lost

        async def shows(store: Store, wanted: dict[str, str] = state, at: float = at) -> None:
            assert await living(store) == wanted, at - states[0][0]

        on(target, shows)
        # It is whole: numbers follow on each other, and people go on.
        run_once(target, _has_no_gap, write=False)
    with pytest.raises(BackupError, match="before the time"):
        put_back(target, data, at=4_000_000_000.0, replace=True)


def _has_no_gap(connection: Connection) -> None:
    for row in connection.execute(select(documents)).all():
        mine = log.c.document_id == row.id
        count, last = connection.execute(select(func.count(), func.max(log.c.seq)).where(mine)).one()
        base = connection.execute(select(func.max(snapshots.c.seq)).where(snapshots.c.document_id == row.id)).scalar()
        assert (last or base or 0) == row.head_seq and count == row.head_seq - (base or 0 if not count else 0)


def test_a_document_whose_rows_are_pruned_stays_as_it_is(make: Make) -> None:
    source, target = make(), make()
    upgrade(source)

    async def fill(store: Store) -> None:
        for name in ("kept", "cut"):
            author = Author(9)
            rows = tuple(seal_row(author.type("x"), 100.0 + at, "bob") for at in range(5))
            guests = tuple(NewGuest(f"guest:{place}", "Guest", None, place) for place in (1, 4))
            await store.append([Append(name, None, rows, guests=guests)])

    on(source, fill)

    def prune(connection: Connection) -> None:
        kept = select(documents.c.id).where(documents.c.name == b"kept").scalar_subquery()
        connection.execute(log.delete().where(log.c.document_id == kept, log.c.seq < 5))

    run_once(source, prune, write=True)
    restored = put_back(target, saved(source), at=102.5)
    assert restored.moment is not None and restored.moment.kept == ["kept"] and restored.moment.cut == 1

    def heads(connection: Connection) -> dict[bytes, int]:
        return {row.name: row.head_seq for row in connection.execute(select(documents)).all()}

    assert run_once(target, heads, write=False) == {b"kept": 5, b"cut": 3}

    async def names(store: Store) -> None:
        for name, guests in (("kept", {"guest:1", "guest:4"}), ("cut", {"guest:1"})):
            assert (await store.guest_names((await store.describe(name)).document.id)).keys() == guests

    on(target, names)


def test_names_that_went_on_to_others_are_told(make: Make) -> None:
    source, target = make(), make()
    upgrade(source)

    async def live(store: Store) -> None:
        now = 100.0
        service = Documents(store, clock=lambda: now)
        for name in ("a", "b"):
            await service.create(name, update=Author(5).type(name))
        now = 200.0
        await service.delete("b")
        await service.rename("a", "b")
        await service.create("a", update=Author(6).type("new"))

    on(source, live)
    restored = put_back(target, saved(source), at=150.0)
    assert restored.moment is not None and restored.moment.removed == 1
    # Of "a" only the name that it got last is known; "b" stands beside it.
    assert restored.moment.renamed == ["b"] and restored.moment.returned == ["b (2)"] and not restored.moment.lost

    async def shows(store: Store) -> None:
        assert await living(store) == {"b": "a", "b (2)": "b"}

    on(target, shows)
