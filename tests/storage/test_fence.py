"""What is sent to PostgreSQL for a batch, statement by statement in every order: numbers, tombstones, the writer's row.

Strategy: the real backends of several nodes, on connections whose every statement waits until it is let through. A
schedule says who does the next one. Whoever waits for a lock of the database is passed over until he has it. With two
at work all schedules are tried in which each is interrupted once; with more, some by chance. The rest runs to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import asyncpg
import pytest

from collab.errors import CollabError, DocumentDeleted
from collab.storage import postgresql
from collab.storage.backend import Writer
from collab.storage.batch import LARGE_BATCH_BYTES
from collab.storage.postgresql import PostgresBackend
from collab.storage.records import Append, Appended, AppendOutcome, NewRow
from collab.storage.sql import SqlStore
from collab.storage.urls import parse_database_url

SEED = 1
CHANCES = 100
"""Schedules by chance of three and more."""


class Actor:
    """A piece of work that does one statement at a time.

    Attributes:
        outcomes: what came of it, once it has ended; an error that it raised.
        pid: the session of the database that it uses.
    """

    def __init__(self, work: Callable[[Actor], Awaitable[list[AppendOutcome]]], pid: int) -> None:
        self.pid = pid
        self.outcomes: list[AppendOutcome] | BaseException | None = None
        self._let = asyncio.Semaphore(0)
        self._waits = False
        self._task = asyncio.create_task(self._run(work))

    async def _run(self, work: Callable[[Actor], Awaitable[list[AppendOutcome]]]) -> None:
        await self.gate()
        try:
            self.outcomes = await work(self)
        except CollabError as error:
            self.outcomes = error

    async def gate(self) -> None:
        """Wait until the next statement is let through."""
        self._waits = True
        await self._let.acquire()

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to do."""
        return self._task.done()

    def let(self) -> None:
        """Let one statement through, if one waits for that."""
        if self._waits and not self._task.done():
            self._waits = False
            self._let.release()

    async def settle(self, watcher: Any) -> None:
        """Wait until it stands at its next statement, has ended or waits for a lock."""
        while not (self._waits or self._task.done()):
            if await watcher.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", self.pid):
                return
        if self._task.done():
            self._task.result()


class Gated:
    """A connection whose statements wait to be let through; what the backend uses of asyncpg's."""

    def __init__(self, raw: Any, gate: Callable[[], Awaitable[None]]) -> None:
        self._raw = raw
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._raw, name)
        if name not in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
            return found

        async def gated(*arguments: Any) -> Any:
            await self._gate()
            return await found(*arguments)

        return gated

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self._gate()
        transaction = self._raw.transaction()
        await transaction.start()
        try:
            yield
        except BaseException:
            await transaction.rollback()
            raise
        await self._gate()
        await transaction.commit()


class Node(PostgresBackend):
    """A backend that appends statement by statement."""

    def __init__(self, url: str, writer: Writer | None = None) -> None:
        super().__init__(parse_database_url(url))
        self.actor: Actor | None = None
        self.pid = 0
        self.recalled = 0  # how often it came too late, and read what another attempt has written
        if writer is not None:
            self.writer = writer

    async def connect(self) -> Node:
        """Connect, so that this is no step."""
        self.pid = (await super()._connection()).get_server_pid()
        return self

    async def _connection(self) -> Any:
        raw = await super()._connection()
        assert raw.get_server_pid() == self.pid, "no connection is lost here"
        assert self.actor is not None
        return Gated(raw, self.actor.gate)

    async def _recall(self, raw: Any, batch: Sequence[Append], number: int) -> list[AppendOutcome]:
        self.recalled += 1
        return await super()._recall(raw, batch, number)

    def append_stepwise(self, batch: Sequence[Append], number: int, *, repeat: bool = False) -> Actor:
        """Append in an actor."""

        async def work(actor: Actor) -> list[AppendOutcome]:
            self.actor = actor
            return await self.append(batch, number, repeat)

        return Actor(work, self.pid)


class Field:
    """A database with nodes, and what there is to be tried on it; names and numbers are new for each try."""

    def __init__(self, url: str, watcher: Any, counter: Any, store: SqlStore, pid: int) -> None:
        self.url = url
        self.watcher = watcher
        self._counter = counter
        self.store = store
        self.pid = pid  # of the store's one connection that does not append
        self.nodes: list[Node] = []
        self._numbers = itertools.count(1)
        self._tries = itertools.count()

    async def node(self, writer: Writer | None = None) -> Node:
        """Make one more node."""
        node = await Node(self.url, writer).connect()
        self.nodes.append(node)
        return node

    @property
    def number(self) -> int:
        """A number for a batch, greater than all before."""
        return next(self._numbers)

    def name(self, letter: str) -> str:
        """A name that no try has used."""
        return f"{letter} {next(self._tries)}"

    async def count(self, document_id: int) -> int:
        """Count the rows of a document."""
        found: int = await self._counter.fetchval("SELECT count(*) FROM log WHERE document_id = $1", document_id)
        return found

    async def create(self, name: str) -> int:
        """Create a document with one row."""
        (outcome,) = await self.store.append([Append(name, None, (NewRow(b"first", 1.0),))])
        assert isinstance(outcome, Appended)
        return outcome.document_id

    async def run(self, actors: Sequence[Actor], schedule: Iterable[int]) -> None:
        """Let actors do their statements in this order, and the rest to the end."""
        await self._settle(actors)
        for at in schedule:
            actors[at].let()
            await self._settle(actors)
        while not all(actor.ended for actor in actors):
            for actor in actors:
                actor.let()
                await self._settle(actors)

    async def _settle(self, actors: Sequence[Actor]) -> None:
        for actor in actors:
            await actor.settle(self.watcher)
        # Who has waited may have gone on by what the last ones did.
        for actor in actors:
            await actor.settle(self.watcher)

    async def check(self, name: str, batches: Sequence[tuple[Sequence[Append], Actor]]) -> None:
        """Look whether the log holds what the actors were told, each row once, under numbers without a gap."""
        found = await self.watcher.fetch(
            "SELECT document_id, seq, data FROM log JOIN documents ON id = document_id WHERE name = $1 ORDER BY 1, 2",
            name.encode(),
        )
        heads = await self.watcher.fetch(
            "SELECT id, head_seq, deleted_at FROM documents WHERE name = $1", name.encode()
        )
        rows: dict[int, list[bytes]] = {head["id"]: [] for head in heads}
        for document_id, seq, data in found:
            rows[document_id].append(data)
            assert seq == len(rows[document_id]), "numbers have no gap"
        for head in heads:
            assert head["head_seq"] == len(rows[head["id"]])
        assert sum(head["deleted_at"] is None for head in heads) <= 1
        told = {id: [data for data in written if data == b"first"] for id, written in rows.items()}
        for batch, actor in batches:
            for entry, outcome in zip(batch, _listed(actor), strict=True):
                if entry.name != name:
                    continue
                data = [row.data for row in entry.rows]
                if isinstance(outcome, Appended):
                    begin = outcome.first_seq - 1
                    assert rows[outcome.document_id][begin : outcome.last_seq] == data
                    told[outcome.document_id] += data
                else:
                    assert isinstance(outcome, DocumentDeleted), outcome
                    assert not any(set(data) & set(written) for written in rows.values())
        assert {id: sorted(data) for id, data in told.items()} == {id: sorted(data) for id, data in rows.items()}


@pytest.fixture
async def field(postgres_url: str) -> AsyncIterator[Field]:
    watcher = await asyncpg.connect(postgres_url)
    store = SqlStore(PostgresBackend(parse_database_url(postgres_url)))
    await store.open()
    await store.ping()
    (other,) = await watcher.fetch(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    counter = await asyncpg.connect(postgres_url)
    made = Field(postgres_url, watcher, counter, store, other["pid"])
    yield made
    for node in made.nodes:
        await node.close()
    await store.close()
    await watcher.close()
    await counter.close()


Try = Callable[[Iterable[int]], Awaitable[None]]


async def all_orders(attempt: Try, actors: int, steps: int) -> int:
    """Try schedules of two actors or more; return how many."""
    count = 0
    for first, second in itertools.permutations(range(actors), 2):
        for i, j in itertools.product(range(steps), repeat=2):
            await attempt([first] * i + [second] * j + [first] * 30)
            count += 1
    dice = random.Random(SEED)
    for _ in range(CHANCES if actors > 2 else 0):
        await attempt([dice.randrange(actors) for _ in range(actors * steps)])
        count += 1
    return count


def _listed(actor: Actor) -> list[AppendOutcome]:
    assert isinstance(actor.outcomes, list), actor.outcomes
    return actor.outcomes


def entry(name: str, document_id: int | None, *data: bytes, gc: bool = True) -> Append:
    return Append(name, document_id, tuple(NewRow(each, 2.0) for each in data), gc=gc)


@pytest.mark.timeout(300)
async def test_two_nodes_that_write_and_create_the_same_documents(field: Field) -> None:
    one, two = await field.node(), await field.node()

    async def attempt(schedule: Iterable[int]) -> None:
        known, new = field.name("a"), field.name("b")
        id = await field.create(known)
        batches = (
            [entry(new, None, b"1", b"2"), entry(known, id, b"3")],
            [entry(known, id, b"4", gc=False), entry(new, None, b"5")],
        )
        actors = [node.append_stepwise(batch, field.number) for node, batch in zip((one, two), batches, strict=True)]
        await field.run(actors, schedule)
        for name in (known, new):
            await field.check(name, list(zip(batches, actors, strict=True)))

    assert await all_orders(attempt, 2, 8) == 128


@pytest.mark.parametrize("new", [True, False], ids=["several statements", "one statement"])
@pytest.mark.timeout(300)
async def test_an_attempt_that_goes_on_while_it_is_repeated(field: Field, new: bool) -> None:
    """Its connection was lost here, and the server does not know it yet. Another node writes the same documents."""
    one, other = await field.node(), await field.node()
    again = await field.node(one.writer)

    async def attempt(schedule: Iterable[int]) -> None:
        name = field.name("c")
        id = None if new else await field.create(name)
        batch, others = [entry(name, id, b"1", b"2")], [entry(name, id, b"3", gc=not new)]
        number = field.number
        lost = one.append_stepwise(batch, number)
        repeat = again.append_stepwise(batch, number, repeat=True)
        beside = other.append_stepwise(others, field.number)
        await field.run([lost, repeat, beside], schedule)
        # What the lost attempt would have said is what the repeat says, whichever has written.
        assert _listed(lost) == _listed(repeat)
        await field.check(name, [(batch, repeat), (others, beside)])
        one.writer.batch = number

    assert await all_orders(attempt, 3, 5) == 6 * 25 + CHANCES
    assert one.recalled > 10 and again.recalled > 10, "each has come too late in some of them"
    assert one.recalled + again.recalled == 6 * 25 + CHANCES, "one of them in each"


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
@pytest.mark.timeout(300)
async def test_a_document_that_is_deleted_and_made_again_meanwhile(
    field: Field, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large batches are written document by document."""
    monkeypatch.setattr(postgresql, "LARGE_BATCH_BYTES", 0 if large else LARGE_BATCH_BYTES)
    nodes = [await field.node() for _ in range(3)]
    met = 0

    async def attempt(schedule: Iterable[int]) -> None:
        nonlocal met
        name, beside = field.name("d"), field.name("e")
        id, kept = await field.create(name), await field.create(beside)
        batches = (
            [entry(name, id, b"1"), entry(beside, kept, b"2")],
            [entry(beside, kept, b"3"), entry(name, id, b"4", gc=False)],
            [entry(name, None, b"5")],
        )

        there = 0

        async def delete(actor: Actor) -> list[AppendOutcome]:
            nonlocal there
            await field.store.delete(name, 3.0)
            there = await field.count(id)
            return []

        # The deletion is one step, in which it waits for those who have the document.
        actors = [node.append_stepwise(batch, field.number) for node, batch in zip(nodes, batches, strict=True)]
        await field.run([*actors, Actor(delete, field.pid)], schedule)
        assert await field.count(id) == there, "nothing is written behind a tombstone"
        for each in (name, beside):
            await field.check(each, list(zip(batches, actors, strict=True)))
        met += sum(isinstance(found, DocumentDeleted) for actor in actors for found in _listed(actor))

    assert await all_orders(attempt, 4, 4) == 12 * 16 + CHANCES
    assert met > 100
