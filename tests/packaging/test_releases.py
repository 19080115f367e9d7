"""The release before and this one on one database: what rolling upgrades and going back rest on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.crash.stored import PostgresLog, read, tokens
from tests.crash.test_hocuspocus import VERSIONS, Providers
from tests.interop.agent import Agent, converge
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]

BEFORE = "3e8bd47f7f645d5ead37a168edfdf478be3dffc0"
"""The commit of the release before, 0.1.0. It has schema 2, and expects to be the one server of its database."""

WITH_A_BUS = "9cea087e666927391583fbeaa7c59fa63784656b"
"""The first commit whose servers share documents with others."""

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(300), pytest.mark.xdist_group("releases")]

WRITE = """
import asyncio, json, sys
try:
    from collab.adapters import make_store
    from collab.storage.records import Append, NewRow
except ImportError:  # 0.1.0
    from collab.storage.sql import open_store as make_store
    from collab.storage.store import Append, NewRow
from collab.storage.urls import parse_database_url

async def main(url, mark, count):
    store = make_store(parse_database_url(url))
    await store.open()
    for number in range(count):
        batch = [Append("shared", None, (NewRow(f"{mark}{number}".encode(), 1.0, mark),))]
        while True:
            try:
                await store.append(batch)
                break
            except Exception as error:
                if not getattr(error, "retryable", False):
                    raise
    loaded = await store.load("shared")
    print(json.dumps([[row.seq, row.data.decode(), row.author] for row in loaded.rows]))
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


_writers: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_writer_is_left() -> Iterator[None]:
    """End the writers of a test that has failed: without its database, one would try for ever."""
    yield
    for process in _writers:
        process.kill()
        process.communicate()
    _writers.clear()


@pytest.fixture(scope="module")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(BEFORE, tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def release_with_a_bus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked_wheel(WITH_A_BUS, tmp_path_factory.mktemp("with_a_bus"))


def unpacked_wheel(commit: str, home: Path) -> Path:
    """Build the wheel of a release from its commit, and unpack it in ``home``; it needs what this one needs."""
    shallow = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if shallow.stdout.strip() != "false":
        pytest.skip("this is no clone with its whole history: git fetch --unshallow, or a clone without --depth")
    subprocess.run(["git", "archive", "-o", str(home / "source.tar"), commit], cwd=ROOT, check=True)
    source = home / "source"
    source.mkdir()
    subprocess.run(["tar", "xf", str(home / "source.tar"), "-C", str(source)], check=True)
    # The page is not what is tested, and building it takes Node.
    page = source / "web_demo" / "dist" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("a page", encoding="utf-8")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home)]
    done = subprocess.run(build, cwd=source, env=environment(source), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unpacked = home / "unpacked"
    zipfile.ZipFile(next(home.glob("*.whl"))).extractall(unpacked)
    return unpacked


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "postgresql":
        found: str = request.getfixturevalue("empty_postgres_url")
        return found
    return f"sqlite:///{tmp_path / 'collab.db'}"


def environment(path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COLLAB_", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(path), "PYTHONUNBUFFERED": "1"}


def collab(release: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collab", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(release), capture_output=True, text=True, timeout=120)


def writing(release: Path, url: str, mark: str, count: int, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITE, url, mark, str(count)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=cwd, env=environment(release), stdout=pipe, stderr=pipe, text=True)
    _writers.append(process)
    return process


def written(process: subprocess.Popen[str]) -> list[list[object]]:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    rows: list[list[object]] = json.loads(out)
    return rows


def serves(release: Path, url: str, cwd: Path, documents: str = "/api/v1/documents") -> None:
    """Start a server on the database, see that it is ready, and stop it; ``documents`` is where it lists them."""
    process = subprocess.Popen(
        [sys.executable, "-m", "collab", "serve", "--port", "0", "--database-url", url],
        cwd=cwd,
        env=environment(release),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None, process.communicate(timeout=30)[1]
        with urllib.request.urlopen(f"{found[0]}/readyz", timeout=30) as response:
            assert response.status == 200
        with urllib.request.urlopen(f"{found[0]}{documents}", timeout=30) as response:
            assert [each["name"] for each in json.load(response)["documents"]] == ["shared"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_the_release_before_goes_on_beside_this_one(release_before: Path, url: str, tmp_path: Path) -> None:
    assert (ROOT / "collab").is_dir() and (release_before / "collab" / "_migrations").is_dir()
    done = collab(release_before, "migrate", "--database-url", url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(written(writing(release_before, url, "old", 3, tmp_path))) == 3

    # Migrated under a process of the release before that has the database open and writes.
    still_there = writing(release_before, url, "during", 300, tmp_path)
    done = collab(ROOT, "migrate", "--database-url", url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "was brought to" in done.stdout
    rows = written(still_there)
    assert [row[0] for row in rows] == list(range(1, 304))

    # It can be started anew, beside this one, and both write.
    done = collab(release_before, "migrate", "--database-url", url, cwd=tmp_path)
    assert done.returncode == 0 and "is on the newest schema" in done.stdout, done.stderr
    both = [writing(release, url, mark, 50, tmp_path) for release, mark in ((release_before, "a"), (ROOT, "b"))]
    for process in both:
        written(process)
    serves(release_before, url, tmp_path, "/api/documents")
    serves(ROOT, url, tmp_path)
    read = [written(writing(release, url, "none", 0, tmp_path)) for release in (release_before, ROOT)]
    assert read[0] == read[1]
    assert [row[0] for row in read[0]] == list(range(1, 404))
    assert sorted(str(row[1]) for row in read[0]) == sorted(
        [f"old{n}" for n in range(3)]
        + [f"during{n}" for n in range(300)]
        + [f"{m}{n}" for m in "ab" for n in range(50)]
    )


@pytest.mark.node
@pytest.mark.postgres
async def test_servers_of_both_releases_serve_one_document(
    release_with_a_bus: Path, tmp_path: Path, postgres_server: PostgresServer, empty_postgres_url: str
) -> None:
    """A rolling upgrade and the way back, under clients of both protocols that type all the time."""
    url, names = empty_postgres_url, ["both 0", "both 1"]
    log = PostgresLog(postgres_server, urlsplit(url).path.lstrip("/"))
    for release in (release_with_a_bus, ROOT):
        done = collab(release, "migrate", "--database-url", url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    def server(release: Path, port: int = 0) -> ServerProcess:
        directory = tmp_path / "elsewhere"  # where no module of either release lies
        directory.mkdir(exist_ok=True)
        return ServerProcess(
            directory,
            database_url=url,
            port=port,
            working_directory=directory,
            environment={"PYTHONPATH": str(release)},
            drain_delay=None,
        )

    old, one, two = server(release_with_a_bus), server(ROOT), server(ROOT)
    async with AsyncExitStack() as stack:
        for each in (old, one, two):
            await stack.enter_async_context(each)
        lines = {"old": old.hocuspocus_url, "one": one.hocuspocus_url, "two": two.hocuspocus_url}
        plain = await stack.enter_async_context(Agent("yjs13"))
        ada = await plain.open("ada", "3.1", old.ws_url, "plain")
        bob = await plain.open("bob", "3.0", one.ws_url, "plain")
        providers = await stack.enter_async_context(Providers(lines, names, 20))
        await providers.until(lambda: providers.open == providers.sockets, "all sockets")
        for client, text in ((ada, "ada "), (bob, "bob "), (ada, "again ")):
            await client.edit("type", at=0, text=text)
            await converge([ada, bob])

        async def replaced(before: ServerProcess, release: Path) -> ServerProcess:
            assert await before.aterminate(60.0) == 0, before.report()
            rows = await read(log)
            for name, saved in providers.saved.items():
                missing = saved - set(tokens(data for _, data in rows[name]))
                assert not missing, f"{name}: acknowledged and not stored: {sorted(missing)}"
            after = await stack.enter_async_context(server(release, before.port))
            await providers.until(lambda: providers.open == providers.sockets, "all sockets again")
            providers.more()
            await providers.until_saved(10)
            await client_edits()
            return after

        async def client_edits() -> None:
            for client in (ada, bob):
                await client.until(synced=True)
                await client.edit("type", at=0, text="more ")
            await converge([ada, bob])

        new = await replaced(old, ROOT)
        await replaced(new, release_with_a_bus)  # and back
        await replaced(one, release_with_a_bus)
        await providers.stop()
        shared = await providers.converged()
        for name in names:
            assert len(set(shared[name])) == len(shared[name])
            assert {token.split(":")[0] for token in providers.saved[name]} == {
                line + version for line in lines for version in VERSIONS
            }


def test_the_release_before_refuses_what_it_may_not_use(release_before: Path, url: str, tmp_path: Path) -> None:
    """It is on this that a release rests which ends with it: ``alembic_version`` is what 0.1.0 looks at."""
    assert collab(ROOT, "migrate", "--database-url", url, cwd=tmp_path).returncode == 0
    script = (
        "import sys\nfrom sqlalchemy import text\nfrom collab.storage.migrate import run_exclusively\n"
        "from collab.storage.urls import parse_database_url\n"
        "run_exclusively(parse_database_url(sys.argv[1]), lambda connection: bool(connection.execute("
        "text(\"UPDATE alembic_version SET version_num = '9999'\"))))\n"
    )
    command = [sys.executable, "-c", script, url]
    subprocess.run(command, env=environment(ROOT), cwd=tmp_path, check=True, timeout=60)
    done = collab(release_before, "documents", "list", "--database-url", url, cwd=tmp_path)
    assert done.returncode == 1 and "9999" in done.stderr
    assert collab(ROOT, "documents", "list", "--database-url", url, cwd=tmp_path).returncode == 0
