"""The conformance suite of the store, on every store there is."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collab.adapters import make_store as make_sql_store
from collab.errors import CollabError
from collab.storage.memory import MemoryStorage, MemoryStore
from collab.storage.urls import parse_database_url
from collab.testing.log import LogConformance
from collab.testing.storage import MakeStore, Moments, opened
from collab.testing.store import StoreConformance
from tests.storage.broken import BROKEN, make
from tests.support.snippets import snippet
from tests.support.sqlite import migrated

ROOT = Path(__file__).resolve().parents[2]


class TestMemory(StoreConformance):
    @pytest.fixture
    def make_store(self) -> MakeStore:
        storage = MemoryStorage()
        return lambda: MemoryStore(storage)


class TestSqlite(StoreConformance):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        url = migrated(tmp_path)
        return lambda: make_sql_store(url)


class TestPostgresql(StoreConformance):
    @pytest.fixture
    def make_store(self, postgres_url: str) -> MakeStore:
        url = parse_database_url(postgres_url)
        return lambda: make_sql_store(url)


class Pooled:
    @pytest.fixture
    def make_store(self, pooled_url: str) -> MakeStore:
        url = parse_database_url(pooled_url)
        return lambda: make_sql_store(url)


@pytest.mark.parametrize("pgbouncer", ["transaction"], indirect=True)
class TestPgBouncer(Pooled, StoreConformance):
    """In transaction mode: no two transactions in a row get the same session."""

    # Thousands of transactions that differ in nothing: their count is taken by the statements of TestPostgresql.
    test_named_versions_have_a_bound = None
    test_the_oldest_automatic_versions_go_for_newer_ones = None
    test_a_timeline_has_a_bound = None


@pytest.mark.parametrize("pgbouncer", ["session"], indirect=True)
class TestPgBouncerBySession(Pooled, LogConformance):
    """In session mode, where a store does what it does in transaction mode and less can go wrong: the log alone."""


# The suite finds what it is there to find.

TESTS = {name: test for name, test in inspect.getmembers(StoreConformance) if name.startswith("test_")}


async def run(test: str, make_store: MakeStore) -> None:
    """Run one test of the suite with its fixtures."""
    wanted = inspect.signature(TESTS[test]).parameters
    async with opened(make_store) as store:
        fixtures = {"store": store, "open_store": lambda: opened(make_store)}
        await TESTS[test](StoreConformance(), **{name: fixtures[name] for name in wanted if name != "self"})


@pytest.mark.parametrize(
    ("store", "test"), [pytest.param(store, test, id=f"{store.__name__}-{test}") for store, test in BROKEN]
)
async def test_broken_store_fails(store: type[MemoryStore] | type[MemoryStorage], test: str) -> None:
    # Not just any exception: a mistake in the broken store itself shows as another one.
    with pytest.raises((AssertionError, pytest.fail.Exception, CollabError)):
        await run(test, make(store))


@pytest.mark.parametrize("test", TESTS)
async def test_every_test_can_fail_and_does_not_without_a_mistake(test: str) -> None:
    assert test in {found for _, found in BROKEN}
    await run(test, make(MemoryStorage))


# As the author of an adapter runs it: another directory, no configuration, the plugin's strict mode.


def run_outside(directory: Path, store: str) -> subprocess.CompletedProcess[str]:
    """Run the example of docs/adapters.md on a store."""
    example = snippet("docs/adapters.md", "Running the suite", "python")
    (directory / "test_my_store.py").write_text(example, encoding="utf-8")
    (directory / "my_store.py").write_text(store, encoding="utf-8")
    # The plugin itself warns of a later default when there is no configuration.
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


MY_STORE = """
from collab.storage.memory import MemoryStorage, MemoryStore

storages = {}

class MyStore(MemoryStore):
    def __init__(self, path):
        super().__init__(storages.setdefault(path, MemoryStorage()))
"""


@pytest.mark.slow
def test_an_author_runs_the_suite_as_the_guide_says(tmp_path: Path) -> None:
    done = run_outside(tmp_path, MY_STORE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(TESTS)} passed" in done.stdout


@pytest.mark.slow
def test_an_author_sees_what_was_wrong(tmp_path: Path) -> None:
    mistake = """
    async def append(self, batch):
        self._doubt = None
        return await super().append(batch)
"""
    done = run_outside(tmp_path, MY_STORE + mistake)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED test_my_store.py::TestMyStore::test_repeat_of_an_append_that_was_cut_off_writes_once" in done.stdout
    # The values, not only "AssertionError".
    assert "At index 0 diff:" in done.stdout


def test_the_guide_counts_right() -> None:
    guide = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    assert f"has {len({store for store, _ in BROKEN})} stores with one mistake each" in guide
    assert f"at {Moments.TURNS + Moments.PARTS} moments" in guide
