"""The journal: group commit, order, the backlog, and a store that fails, refuses and returns."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Sequence

import pytest

from collab.errors import DocumentDeleted, StoreRefused, StoreUnavailable
from collab.storage import journal as journals
from collab.storage.journal import ENTRY_OVERHEAD, Journal
from collab.storage.records import Append, Appended, AppendOutcome, NewRow
from collab.storage.sql import SqlStore
from tests.support.waiting import happens

MIB = 1024 * 1024


class Gate(SqlStore):
    """The real store, which a test can hold up, let fail, and watch."""

    def __init__(self, inner: SqlStore) -> None:
        self.__dict__ = inner.__dict__
        self.batches: list[Sequence[Append]] = []
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.arrived = asyncio.Event()
        self.failures = 0
        self.lose_answers = 0
        self.fault: dict[str, Exception] = {}

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        self.batches.append(batch)
        self.arrived.set()
        await self.open_gate.wait()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the test switched the store off")
        for entry in batch:
            if entry.name in self.fault:
                raise self.fault[entry.name]
        outcomes = await super().append(batch)
        if self.lose_answers:
            self.lose_answers -= 1
            self._doubt = (batch, self._number)
            raise StoreUnavailable("the test cut the connection after COMMIT")
        return outcomes


class Caller:
    """Append to a journal and keep what it calls back, in order."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.heard: list[tuple[str, bytes, AppendOutcome]] = []
        self.expected = 0
        self._news = asyncio.Event()

    def append(self, name: str, data: bytes, document_id: int | None = None, received: float | None = None) -> None:
        def done(outcome: AppendOutcome) -> None:
            self.heard.append((name, data, outcome))
            self._news.set()

        self.expected += 1
        self.journal.append(Append(name, document_id, (NewRow(data, 1.0, "me"),)), done, received)

    async def all(self) -> list[tuple[str, bytes, AppendOutcome]]:
        """Wait until everything was called back."""
        while len(self.heard) < self.expected:
            self._news.clear()
            await self._news.wait()
        return self.heard


@pytest.fixture
def gate(store: SqlStore) -> Gate:
    return Gate(store)


@pytest.fixture
async def journal(gate: Gate) -> AsyncIterator[Journal]:
    made = Journal(gate, backlog_bytes=MIB)
    await made.start()
    yield made
    gate.open_gate.set()
    await made.close(5.0)


@pytest.fixture
def caller(journal: Journal) -> Caller:
    return Caller(journal)


@pytest.fixture
def quick_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(journals, "LONGEST_RETRY", 0.002)


async def data_of(store: SqlStore, name: str) -> list[bytes]:
    loaded = await store.load(name)
    return [row.data for row in loaded.rows] if loaded else []


async def test_what_comes_in_one_turn_shares_a_commit(journal: Journal, caller: Caller, gate: Gate) -> None:
    for number in range(100):
        caller.append(f"d{number % 10}", b"%d" % number)
    assert caller.heard == [], "never called back from within append"
    await caller.all()
    assert len(gate.batches) == 1
    for digit in range(10):
        assert await data_of(gate, f"d{digit}") == [b"%d" % number for number in range(digit, 100, 10)]


async def test_what_comes_during_a_commit_shares_the_next(journal: Journal, caller: Caller, gate: Gate) -> None:
    gate.open_gate.clear()
    caller.append("d", b"0")
    await gate.arrived.wait()
    for number in range(1, 50):
        caller.append("d", b"%d" % number)
        await asyncio.sleep(0)
    assert caller.heard == [] and len(gate.batches) == 1, "one writer: the next waits for the last"
    gate.open_gate.set()
    heard = await caller.all()
    assert len(gate.batches) == 2
    numbers = [outcome.first_seq for _, _, outcome in heard if isinstance(outcome, Appended)]
    assert numbers == list(range(1, 51))
    assert [data for _, data, _ in heard] == [b"%d" % number for number in range(50)]


async def test_called_back_only_after_the_commit(journal: Journal, gate: Gate) -> None:
    visible: list[list[bytes]] = []
    asked = asyncio.get_running_loop().create_future()
    journal.append(Append("d", None, (NewRow(b"x", 1.0),)), asked.set_result)
    outcome = await asked
    visible.append(await data_of(gate, "d"))
    assert isinstance(outcome, Appended) and visible == [[b"x"]]


async def test_first_entry_after_quiet_does_not_wait_and_later_ones_gather(gate: Gate) -> None:
    # The gathering would outlast the test by far: only what needs no gathering can be called back.
    now = 1000.0
    journal = Journal(gate, backlog_bytes=MIB, gather=3600.0, clock=lambda: now)
    await journal.start()
    caller = Caller(journal)
    caller.append("d", b"1")
    await caller.all()
    caller.append("d", b"2")
    await asyncio.sleep(0)
    assert len(gate.batches) == 1, "so soon after a commit it gathers"
    # A batch that is large enough does not wait for more.
    for number in range(journals.MAX_BATCH_ENTRIES):
        caller.append("d", b"%d" % number)
    gate.arrived.clear()
    await gate.arrived.wait()
    now += 3600.0
    assert await journal.close(10.0) == [], "closing does not gather either"
    assert len(caller.heard) == caller.expected
    assert [len(batch) for batch in gate.batches] == [1, journals.MAX_BATCH_ENTRIES, 1]


async def test_what_other_nodes_wait_for_gathers_for_less_the_less_the_node_has_to_do(gate: Gate) -> None:
    now = 0.0
    journal = Journal(gate, backlog_bytes=MIB, gather=3600.0, clock=lambda: now)
    await journal.start()
    caller = Caller(journal)
    caller.append("d", b"1")
    await caller.all()
    now += journals.SHARED_GATHER / 2
    caller.append("d", b"2")
    journal.hurry_shared(1.0)
    journal.hurry_shared(0.5)
    await asyncio.sleep(2 * journals.SHARED_GATHER)
    assert len(gate.batches) == 1, "on a busy node it gathers as ever; half as busy, for half as long"
    caller.append("d", b"3")
    now += journals.SHARED_GATHER
    journal.hurry_shared(0.0)
    journal.hurry_shared(0.5)  # what was sooner stays
    await caller.all()
    assert [len(batch) for batch in gate.batches] == [1, 2]
    caller.append("d", b"4")
    now += 2 * journals.SHARED_GATHER
    await asyncio.sleep(2 * journals.SHARED_GATHER)
    assert len(gate.batches) == 2, "it was about what waited then"
    assert await journal.close(10.0) == []


async def test_what_somebody_waits_for_gathers_no_longer_than_a_moment(gate: Gate) -> None:
    journal = Journal(gate, backlog_bytes=MIB, gather=3600.0)
    await journal.start()
    caller = Caller(journal)
    journal.hurry()  # nothing waits, and what comes later is not meant
    caller.append("d", b"1")
    await caller.all()
    caller.append("d", b"2")
    await asyncio.sleep(2 * journals.HURRIED_GATHER)
    assert len(gate.batches) == 1, "it gathers"
    journal.hurry()
    caller.append("d", b"3")
    await caller.all()
    assert [len(batch) for batch in gate.batches] == [1, 2]
    # It was about what waited then. What comes while a batch is under way goes with the next.
    caller.append("d", b"4")
    await asyncio.sleep(2 * journals.HURRIED_GATHER)
    assert len(gate.batches) == 2
    gate.open_gate.clear()
    journal.hurry()
    await asyncio.sleep(2 * journals.HURRIED_GATHER)
    assert len(gate.batches) == 3
    caller.append("d", b"5")
    journal.hurry()
    gate.open_gate.set()
    await caller.all()
    assert [len(batch) for batch in gate.batches] == [1, 2, 1, 1]
    assert await journal.close(10.0) == []


async def test_batches_are_bounded_in_bytes(
    journal: Journal, caller: Caller, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MAX_BATCH_BYTES", 10_000)
    for number in range(10):
        caller.append("d", bytes([number]) * (30_000 if number == 5 else 3_000))
    await caller.all()
    assert [len(batch) for batch in gate.batches] == [2, 2, 1, 1, 2, 2]
    assert [data[0] for data in await data_of(gate, "d")] == list(range(10))


async def test_a_tenant_with_much_to_store_leaves_others_their_part(
    journal: Journal, caller: Caller, gate: Gate, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MAX_BATCH_ENTRIES", 10)
    journal.tenant = lambda name: name[0]
    gate.open_gate.clear()
    caller.append("a0", b"first")
    await gate.arrived.wait()
    for number in range(40):
        caller.append(f"a{number % 4}", b"%d" % number)
    for number in range(3):
        caller.append("b", b"%d" % number)
    gate.open_gate.set()
    await caller.all()
    batches = [[entry.name[0] for entry in batch] for batch in gate.batches]
    assert [len(batch) for batch in batches] == [1, 10, 10, 10, 10, 3] and batches[1].count("b") == 3
    # In each document the order is kept, and the id that the first commit has taught is known to what waited.
    assert await data_of(store, "a0") == [b"first", *[b"%d" % number for number in range(0, 40, 4)]]
    assert await data_of(store, "b") == [b"0", b"1", b"2"]
    assert {entry.document_id for batch in gate.batches[1:] for entry in batch if entry.name == "a0"} != {None}


async def test_backlog_counts_what_is_not_committed(journal: Journal, caller: Caller, gate: Gate) -> None:
    assert journal.backlog == 0 and not journal.full
    gate.open_gate.clear()
    caller.append("d", b"x" * (MIB // 2))
    caller.append("d", b"y" * 100)
    assert journal.backlog == MIB // 2 + 100 + 2 * ENTRY_OVERHEAD and not journal.full
    await gate.arrived.wait()
    caller.append("d", b"z" * (MIB // 2))
    assert journal.full
    gate.open_gate.set()
    await caller.all()
    assert journal.backlog == 0 and not journal.full


async def test_a_large_message_does_not_fill_the_backlog_while_the_store_works(
    journal: Journal, caller: Caller, gate: Gate, quick_retry: None
) -> None:
    gate.open_gate.clear()
    for number in range(2):
        caller.append("paste", bytes([number]) * (2 * MIB - ENTRY_OVERHEAD))
        await gate.arrived.wait()
    assert journal.backlog == 4 * MIB and not journal.full, "its commit is under way"
    caller.append("d", b"x" * (MIB - 1 - ENTRY_OVERHEAD))
    assert not journal.full
    caller.append("d", b"x")
    assert journal.full, "what is small counts as ever"
    caller.append("paste", bytes(2 * MIB))
    assert journal.full
    gate.open_gate.set()
    await caller.all()
    assert journal.backlog == 0 and not journal.full
    # And all of it counts where the store fails.
    gate.failures = 1
    gate.open_gate.clear()
    caller.append("paste", bytes(2 * MIB))
    gate.open_gate.set()
    while journal.failing is None:  # noqa: ASYNC110 - the journal tells nobody
        await asyncio.sleep(0)
    assert journal.full
    await caller.all()
    assert not journal.full


async def test_a_large_entry_that_was_taken_out_counts_no_longer(
    journal: Journal, caller: Caller, store: SqlStore
) -> None:
    await journal.hold()
    caller.append("paste", bytes(2 * MIB))
    caller.append("d", b"a")
    assert journal.holds("paste") and sorted(journal.held_names()) == ["d", "paste"]
    before = journal.backlog
    (done,) = journal.take("paste")
    assert not journal.holds("paste") and journal.backlog == before - 2 * MIB - ENTRY_OVERHEAD
    caller.append("d", bytes(MIB // 2))
    caller.append("d", bytes(MIB // 2))
    assert journal.full, "no large entry is here any more, so all of the backlog counts"
    journal.put_first(Append("paste", None, (NewRow(bytes(2 * MIB), 1.0, "me"),)), done)
    journal.release()
    await caller.all()
    assert journal.backlog == 0 and not journal.full and not journal.holds("d")
    assert [len(data) for data in await data_of(store, "d")] == [1, MIB // 2, MIB // 2], "once, and in order"


async def test_store_that_fails_and_returns_gets_everything_once(gate: Gate, quick_retry: None) -> None:
    states: list[StoreUnavailable | None] = []
    failing = asyncio.Event()

    def on_state(error: StoreUnavailable | None) -> None:
        states.append(error)
        failing.set()

    journal = Journal(gate, backlog_bytes=MIB, on_state=on_state)
    await journal.start()
    caller = Caller(journal)
    gate.failures, gate.lose_answers = 5, 2
    for number in range(300):
        caller.append(f"d{number % 7}", b"%d" % number)
        if number % 10 == 0:
            await asyncio.sleep(0)
    await failing.wait()
    assert journal.failing is not None and caller.heard == []
    heard = await caller.all()
    assert all(isinstance(outcome, Appended) for _, _, outcome in heard)
    assert [data for _, data, _ in heard] == [b"%d" % number for number in range(300)]
    for digit in range(7):
        assert await data_of(gate, f"d{digit}") == [b"%d" % number for number in range(digit, 300, 7)]
    assert journal.failing is None and journal.backlog == 0
    assert isinstance(states[0], StoreUnavailable) and states[-1] is None
    assert all((one is None) != (two is None) for one, two in itertools.pairwise(states)), "only changes are told"
    first = gate.batches[0]
    assert all(batch is first for batch in gate.batches[:6]), "the same object is offered again"
    assert await journal.close(5.0) == []


async def test_repeat_while_answers_are_lost_gives_the_first_numbers(
    journal: Journal, caller: Caller, gate: Gate, quick_retry: None
) -> None:
    gate.lose_answers = 1
    caller.append("d", b"1")
    caller.append("d", b"2")
    heard = await caller.all()
    assert [outcome[1:] for _, _, outcome in heard if isinstance(outcome, Appended)] == [(1, 1), (2, 2)]
    assert len(gate.batches) == 2


async def test_deleted_document_is_told_and_others_are_written(journal: Journal, caller: Caller, gate: Gate) -> None:
    caller.append("gone", b"1")
    await caller.all()
    await gate.delete("gone", 2.0)
    caller.append("gone", b"2", document_id=1)
    caller.append("d", b"1")
    heard = await caller.all()
    assert isinstance(heard[1][2], DocumentDeleted) and isinstance(heard[2][2], Appended)


async def test_entries_queued_before_the_id_was_known_stay_with_their_document(
    journal: Journal, caller: Caller, gate: Gate
) -> None:
    gate.open_gate.clear()
    caller.append("d", b"1")
    await gate.arrived.wait()
    caller.append("d", b"2")  # its room does not know the id yet
    gate.arrived.clear()
    gate.open_gate.set()
    await gate.arrived.wait()
    await caller.all()
    first = caller.heard[0][2]
    assert isinstance(first, Appended)
    assert [entry.document_id for entry in gate.batches[1]] == [first.document_id]


async def test_refused_entry_takes_along_only_what_waits_behind_it(
    journal: Journal, caller: Caller, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collab.storage.batch.MAX_ROW_BYTES", 1_000)
    gate.open_gate.clear()
    caller.append("bad", b"x" * 1_001)
    caller.append("good", b"1")
    await gate.arrived.wait()
    caller.append("bad", b"built on what is lost")
    caller.append("good", b"2")
    gate.open_gate.set()
    await caller.all()
    outcomes = {(name, data[:1]): outcome for name, data, outcome in caller.heard}
    assert isinstance(outcomes["bad", b"x"], StoreRefused) and isinstance(outcomes["bad", b"b"], StoreRefused)
    assert await data_of(gate, "good") == [b"1", b"2"]
    assert await data_of(gate, "bad") == []
    assert journal.backlog == 0
    # Who opens the document again may go on with it.
    caller.append("bad", b"anew")
    await caller.all()
    assert await data_of(gate, "bad") == [b"anew"]


async def test_fault_that_names_no_document_is_isolated(
    journal: Journal, caller: Caller, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.fault["bad"] = ValueError("a mistake in our own code")
    for number in range(3):
        caller.append("good", b"%d" % number)
        caller.append("bad", b"%d" % number)
        caller.append("also good", b"%d" % number)
    await caller.all()
    assert {name for name, _, outcome in caller.heard if isinstance(outcome, StoreRefused)} == {"bad"}
    assert await data_of(gate, "good") == await data_of(gate, "also good") == [b"0", b"1", b"2"]
    assert any("'bad'" in record.getMessage() for record in caplog.records)


async def test_callback_that_fails_does_not_hinder_the_others(
    journal: Journal, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: AppendOutcome) -> None:
        raise LookupError("a mistake of the caller")

    journal.append(Append("d", None, (NewRow(b"1", 1.0),)), broken)
    caller.append("d", b"2")
    await caller.all()
    assert "a callback of the journal failed" in caplog.text


async def test_close_writes_what_is_left(gate: Gate) -> None:
    journal = Journal(gate, backlog_bytes=MIB, gather=3600.0)
    caller = Caller(journal)
    caller.append("before the start", b"1")
    await journal.start()
    caller.append("d", b"1")
    assert await journal.close(10.0) == []
    assert len(caller.heard) == 2
    with pytest.raises(RuntimeError):
        caller.append("d", b"2")


async def test_many_are_called_back_in_portions_and_the_loop_has_its_turn_in_between(
    journal: Journal, caller: Caller, gate: Gate
) -> None:
    count = 10 * journals.REPORT_ENTRIES
    caller.append("d", b"first")
    caller.append("other", b"first")
    heard = await caller.all()
    assert len(heard) == 2, "documents that are created are called back in one go"
    outcome = heard[0][2]
    assert isinstance(outcome, Appended)
    for number in range(count):
        caller.append("d", b"%d" % number, outcome.document_id)
    seen = [2]
    while len(caller.heard) < caller.expected:
        await asyncio.sleep(0)
        seen.append(len(caller.heard))
        assert journal.holds("d") is (len(caller.heard) < caller.expected)
    assert max(after - before for before, after in itertools.pairwise(seen)) == journals.REPORT_ENTRIES
    assert [data for _, data, _ in caller.heard[2:]] == [b"%d" % number for number in range(count)]
    assert journal.backlog == 0


async def test_what_is_left_of_a_report_is_called_back_after_a_defect(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(gate, backlog_bytes=MIB)
    await journal.start()
    caller = Caller(journal)
    caller.append("d", b"first")
    outcome = (await caller.all())[0][2]
    assert isinstance(outcome, Appended)
    report = journal._report
    failed: list[int] = []

    def fails_once(outcomes: Sequence[AppendOutcome]) -> bool:
        if len(caller.heard) > 1 and not failed:
            failed.append(len(caller.heard))
            raise RuntimeError("the defect")
        return report(outcomes)

    monkeypatch.setattr(journal, "_report", fails_once)
    for number in range(50):
        caller.append("d", b"%d" % number, outcome.document_id)
    await caller.all()
    assert failed == [1 + journals.REPORT_ENTRIES]
    assert [data for _, data, _ in caller.heard[1:]] == [b"%d" % number for number in range(50)]
    assert await journal.close(5.0) == [] and journal.backlog == 0


async def test_close_names_what_could_not_be_saved(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(gate, backlog_bytes=MIB)
    await journal.start()
    caller = Caller(journal)
    caller.append("saved", b"1")
    await caller.all()
    gate.failures = 10**9
    gate.arrived.clear()
    caller.append("two", b"1")
    await gate.arrived.wait()
    caller.append("one", b"1")
    caller.append("two", b"2")
    assert await journal.close(0.05) == ["one", "two"]
    assert len(caller.heard) == 1


async def test_close_saves_when_the_store_returns_in_time(gate: Gate) -> None:
    journal = Journal(gate, backlog_bytes=MIB)
    await journal.start()
    caller = Caller(journal)
    gate.failures = 2
    caller.append("d", b"1")
    assert await journal.close(30.0) == []
    assert await data_of(gate, "d") == [b"1"]


@pytest.mark.parametrize("broken", ["_begin_batch", "_report"])
async def test_a_writer_that_fails_by_a_defect_says_so_and_goes_on(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """The defects of a store do not come so far. What waits is written when the defect has passed, and once."""
    journal = Journal(gate, backlog_bytes=MIB)
    await journal.start()
    caller = Caller(journal)
    caller.append("d", b"1")
    await caller.all()
    error = RuntimeError("the defect")

    def fails(*args: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(journal, broken, fails)
        caller.append("d", b"2")
        async with asyncio.timeout(20):
            while len([record for record in caplog.records if record.exc_info]) < 2:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.001)
        assert journal.failing is not None
    caller.append("d", b"3")
    await caller.all()
    assert await data_of(gate, "d") == [b"1", b"2", b"3"]
    for line in [record for record in caplog.records if record.exc_info]:
        assert line.levelname == "CRITICAL" and line.exc_info is not None and line.exc_info[1] is error
    assert journal.failing is None
    assert await journal.close(5.0) == []


async def test_a_commit_that_takes_too_long_counts_as_stalled(gate: Gate) -> None:
    now = 100.0
    journal = Journal(gate, backlog_bytes=MIB, clock=lambda: now)
    await journal.start()
    caller = Caller(journal)
    gate.open_gate.clear()
    caller.append("d", b"1")
    await gate.arrived.wait()
    now += journals.STALLED_SECONDS
    assert journal.stalled is None
    now += 1.0
    assert journal.stalled == journals.STALLED_SECONDS + 1.0 and journal.failing is None
    gate.open_gate.set()
    await caller.all()
    assert journal.stalled is None
    await journal.close(5.0)


async def test_a_store_that_does_not_answer_is_told_and_so_is_one_that_is_slow(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journals, "STALLED_SECONDS", 0.01)
    monkeypatch.setattr(journals, "LONG_SECONDS", 0.05)
    now = 100.0
    journal = Journal(gate, backlog_bytes=MIB, clock=lambda: now)
    await journal.start()
    caller = Caller(journal)

    def told() -> list[str]:
        return [line.getMessage() for line in caplog.records if line.name == "collab.journal"]

    gate.open_gate.clear()
    caller.append("d", b"1")
    await happens(lambda: len(told()) == 2, "both lines")
    now += 12.0
    gate.open_gate.set()
    await caller.all()
    wait = "the store has not answered a commit for 0 s: edits wait in memory and are not called saved"
    [size] = re.findall(r"(\d+) bytes of edits are waiting", told()[-1])
    assert told() == [
        wait,
        wait,
        f"the store has answered a commit after 12.0 s; {size} bytes of edits are waiting",
    ]
    # Slow, and not for so long that it was told of meanwhile.
    monkeypatch.setattr(journals, "STALLED_SECONDS", 60.0)
    gate.open_gate.clear()
    gate.arrived.clear()
    caller.append("d", b"2")
    await gate.arrived.wait()
    now += journals.SLOW_SECONDS + 0.5
    gate.open_gate.set()
    await caller.all()
    assert told()[3:] == ["the store is slow: a commit took 1.5 s, and people wait as long until their edits are saved"]
    caller.append("d", b"3")
    await caller.all()
    assert len(told()) == 4, "one that is quick says nothing"
    await journal.close(5.0)


async def test_an_entry_for_which_there_is_no_memory_is_written_later(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "FIRST_RETRY", 0.001)
    journal = Journal(gate, backlog_bytes=MIB)
    await journal.start()
    caller = Caller(journal)
    gate.fault["d"] = MemoryError()
    caller.append("d", b"1")
    async with asyncio.timeout(20):
        while len(gate.batches) < 3:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.001)
    assert journal.failing is not None and caller.heard == []
    gate.fault.clear()
    await caller.all()
    assert await data_of(gate, "d") == [b"1"]
    await journal.close(5.0)


async def test_batches_are_counted_with_what_they_held(journal: Journal, caller: Caller, gate: Gate) -> None:
    now = 100.0
    journal._clock = lambda: now
    counts = journal.counts
    gate.open_gate.clear()
    caller.append("a", b"12345")
    caller.append("b", b"678")
    await gate.arrived.wait()
    now += 2.0
    caller.append("a", b"9", 1)  # behind the batch that is under way
    assert journal.waiting == 3
    now += 1.0
    gate.open_gate.set()
    await caller.all()
    counts.fold()
    assert (counts.entries, counts.nbytes, counts.retries, journal.waiting) == (3, 9, 0, 0)
    # Two batches. Of the first both entries have waited 3 s, as did the commit; of the second one, 1 s.
    assert (counts.commits.count, counts.commits.sum) == (2, 3.0)
    assert (counts.answered.count, counts.answered.sum) == (3, 3.0 + 3.0 + 1.0)
    assert (counts.batches.count, counts.batches.sum) == (2, 3.0)


async def test_commits_that_nobody_asks_for_take_no_memory(
    journal: Journal, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_MOST_NOTED", 3)
    for number in range(8):
        caller.append("a", b"x")
        await caller.all()
        assert len(journal.counts.batches.noted) <= 3 and len(journal.counts.commits.noted) <= 3, number
    journal.counts.fold()
    assert (journal.counts.batches.count, journal.counts.commits.count) == (8, 8)


async def test_an_entry_has_waited_since_its_oldest_edit_came(journal: Journal, caller: Caller, gate: Gate) -> None:
    journal._clock = lambda: 100.0
    counts = journal.counts
    caller.append("a", b"1", received=99.0)
    caller.append("b", b"2", received=97.0)
    caller.append("c", b"3", received=98.0)
    caller.append("d", b"4")
    await caller.all()
    counts.fold()
    assert (counts.batches.count, counts.answered.count, counts.answered.sum) == (1, 4, 4 * 3.0)
    caller.append("a", b"5", 1, 99.5)
    await caller.all()
    assert counts.answered.sum == 4 * 3.0 + 0.5, "what was answered is forgotten"


@pytest.mark.usefixtures("quick_retry")
async def test_each_offer_that_fails_is_counted_and_the_wait_goes_on(
    journal: Journal, caller: Caller, gate: Gate
) -> None:
    now = 100.0

    def clock() -> float:
        return now + 10.0 * len(gate.batches)

    journal._clock = clock
    gate.failures = 3
    caller.append("a", b"x")
    await caller.all()
    counts = journal.counts
    counts.fold()
    assert (counts.retries, counts.entries, counts.commits.count, counts.answered.count) == (3, 1, 1, 1)
    assert counts.answered.sum == 40.0, "from its coming to the answer, over all offers"
    assert counts.commits.sum == 10.0, "the last offer alone"


async def test_what_was_held_is_as_old_as_it_is(journal: Journal, caller: Caller, gate: Gate) -> None:
    now = 100.0
    journal._clock = lambda: now
    await journal.hold()
    caller.append("a", b"x")
    now += 5.0
    caller.append("b", b"y")
    assert journal.waiting == 2
    journal.release()
    await caller.all()
    assert journal.counts.answered.sum == 10.0, "both as the older one"
    now += 50.0
    caller.append("c", b"z")
    await caller.all()
    assert journal.counts.answered.sum == 10.0


async def test_an_entry_that_is_refused_with_the_one_before_it_is_in_no_batch(
    journal: Journal, caller: Caller, gate: Gate
) -> None:
    gate.open_gate.clear()
    gate.fault["bad"] = StoreRefused("no")
    caller.append("bad", b"12345")
    await gate.arrived.wait()
    caller.append("bad", b"678")
    caller.append("good", b"9")
    gate.open_gate.set()
    await caller.all()
    assert (journal.counts.entries, journal.counts.nbytes) == (2, 6)
