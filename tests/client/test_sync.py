"""The client without asyncio: threads, forks, and the end of the interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pycrdt
import pytest
from pycrdt import Array, Text

from collab.client import ClientClosed, LockedDoc, NotSaved, NotSynced, OldVersion, RequestRefused
from collab.client.sync import (
    Connection,
    Document,
    Documents,
    History,
    connect,
    edit,
    read_json,
    read_text,
    replace_text,
)
from tests.support.server import ServerProcess

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # All tests share the server; each has a document of its own.
    with ServerProcess(tmp_path_factory.mktemp("sync")) as server:
        yield server.hocuspocus_url


def tokens(document: Document) -> Array[str]:
    return document.doc.get("tokens", type=Array)


def test_one_line_each(url: str) -> None:
    assert read_text(url, "lines", "content") == "" and read_json(url, "lines") == {}
    assert edit(url, "lines", lambda doc: doc.get("content", type=Text).insert(0, "one line")) is None
    assert read_text(url, "lines", "content") == read_text(url, "lines") == "one line"
    assert replace_text(url, "lines", "content", "one more line")
    assert not replace_text(url, "lines", "content", "one more line")
    assert read_json(url, "lines") == {"content": "one more line"}
    assert read_json(url, "lines", "content") == "one more line" and read_json(url, "lines", "none") is None


def test_edits_of_many_threads_and_of_others_are_never_mixed(url: str) -> None:
    with Connection(url) as connection:
        mine, theirs = connection.open("threads"), connection.open("threads")
        sizes: list[int] = []
        mine.doc.observe(lambda event: sizes.append(len(event.update)))

        def work(number: int) -> None:
            document = (mine, theirs)[number % 2]
            for i in range(20):
                with document.doc.transaction():
                    before = len(tokens(document))
                    tokens(document).append(f"{number}:{i}:a")
                    tokens(document).append(f"{number}:{i}:b")
                    assert len(tokens(document)) == before + 2, "others have edited within this transaction"

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        mine.wait_saved()
        theirs.wait_saved()
    wanted = {f"{number}:{i}:{letter}" for number in range(8) for i in range(20) for letter in "ab"}
    found = read_json(url, "threads", "tokens")
    assert set(found) == wanted and len(found) == len(wanted)


def test_what_waits_for_itself_is_refused(url: str) -> None:
    with connect(url, "waits") as document:
        with document.doc.transaction(), pytest.raises(RuntimeError, match="transaction"):
            document.wait_saved()
        raised: list[BaseException] = []
        done = threading.Event()

        def call(_: object) -> None:
            try:
                document.wait_saved()
            except RuntimeError as error:
                raised.append(error)
            done.set()

        document.on("saved", call)
        document.replace_text("content", "x")
        assert done.wait(20) and "itself" in str(raised[0])
        with Connection(url) as connection, pytest.raises(TypeError):
            connection.open("waits", doc=pycrdt.Doc())  # type: ignore[arg-type]


def test_a_document_outlives_the_absence_of_its_server(url: str) -> None:
    with pytest.raises(NotSynced):
        read_text("ws://127.0.0.1:9", "d", timeout=0.1)
    doc = LockedDoc()
    with pytest.raises(NotSaved), connect("ws://127.0.0.1:9", "d", doc=doc, wait=False, close_timeout=0.1) as document:
        document.replace_text("content", "kept")
    with connect(url, "absence", doc=doc) as document:
        document.wait_saved()
    assert read_text(url, "absence") == "kept"


def test_presence_from_any_thread(url: str) -> None:
    with connect(url, "presence") as ada, connect(url, "presence") as grace:
        came = threading.Event()
        grace.awareness.on_change(lambda change: came.set())
        ada.awareness.set({"name": "Ada"})
        ada.awareness.set_field("line", 3)
        assert came.wait(20)
        while grace.awareness.others != {ada.awareness.client_id: {"name": "Ada", "line": 3}}:
            came.clear()
            assert came.wait(20)
        assert grace.awareness.states == grace.awareness.others and ada.awareness.state == {"name": "Ada", "line": 3}


FORKS = """
import os, sys
from collab.client import ClientClosed
from collab.client.sync import History, connect, read_text
url = sys.argv[1]
history = History(url).__enter__()
with connect(url, "fork") as document:
    document.replace_text("content", "parent")
    document.wait_saved()
    child = os.fork()
    if not child:
        try:
            document.wait_saved()
        except ClientClosed:
            pass
        else:
            os._exit(3)
        with connect(url, "fork") as own:
            own.replace_text("content", "parent and child")
        try:
            history.read("fork")
        except ClientClosed:
            pass
        else:
            os._exit(4)
        with History(url) as own:
            assert own.read("fork") == {"content": "parent and child"}
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    document.wait_synced()
    assert history.read("fork") == {"content": "parent and child"}
    document.replace_text("parent", "goes on")
    document.wait_saved()
assert read_text(url, "fork", "content") == "parent and child"
"""

FORGETS = """
import sys
from collab.client.sync import Connection
document = Connection(sys.argv[1]).__enter__().open("forgets")
document.replace_text("content", "saved at the end")
"""


def run(program: str, url: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-X", "dev", "-c", program, url]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_child_process_opens_its_own(url: str) -> None:
    done = run(FORKS, url)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_end_of_the_interpreter_saves_what_is_open(url: str) -> None:
    done = run(FORGETS, url)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_text(url, "forgets") == "saved at the end"


def test_a_closed_connection_is_of_no_use(url: str) -> None:
    connection = Connection(url)
    with pytest.raises(ClientClosed):
        connection.open("d")
    with connection:
        document = connection.open("d")
    assert document.closed and document.name == "d" and connection.url == url
    with pytest.raises(ClientClosed):
        document.wait_synced()
    with pytest.raises(ClientClosed):
        connection.open("d")


def test_the_documents_of_a_server(url: str) -> None:
    for name, text in (("largest/a", "x"), ("largest/b", "x" * 1_000), ("largest/c", "x" * 100)):
        replace_text(url, name, "content", text)
    with Documents(url) as documents:
        found = list(documents.list(prefix="largest/", order="size"))
        assert [each.name for each in found] == ["largest/b", "largest/c", "largest/a"]
        assert found[0].nbytes > 1_000 > found[1].nbytes > found[2].nbytes > 0
        page = documents.page(prefix="largest/", limit=2)
        assert [each.name for each in page.documents] == ["largest/a", "largest/b"] and page.next
    with pytest.raises(ClientClosed):
        documents.page()


def test_the_history_of_a_document(url: str) -> None:
    replace_text(url, "story", "content", "one")
    began = datetime.now(UTC).replace(microsecond=0)
    with History(url) as history:
        first = history.make_version("story", "First", description="as it began")
        replace_text(url, "story", "content", "two")
        second = history.make_version("story", "Second")
        assert list(history.versions("story", kind="named")) == [second, first]
        page = history.version_page("story", kind="named", limit=1)
        assert page.versions == [second] and page.next
        assert history.version("story", first.id) == first
        assert history.change_version("story", first, title="The first", description=None).name == "The first"
        assert history.read("story", version=first) == {"content": "one"}
        doc: pycrdt.Doc[Any] = pycrdt.Doc()
        doc.apply_update(history.read_update("story", number=1))
        assert str(doc.get("content", type=Text)) == "one"
        history.copy("story", "story/copy", version=first)
        assert read_text(url, "story/copy") == "one"
        old = history.import_version("story", "Old", doc.get_update(), began, author="grace")
        assert (old.at, old.author) == (began, "grace")
        many = [OldVersion("Old", doc.get_update(), began), OldVersion("Older", doc.get_update(), began)]
        done = history.import_versions("story", many)
        assert (done.created, done.existed, done.failures) == (1, 1, [])

        assert sum(entry.edits for entry in history.timeline("story")) == 2
        assert history.timeline_page("story", limit=1).head == 2
        assert [row.number for row in history.rows("story")] == [1, 2]
        assert [row.number for row in history.some_rows("story", 1)] == [2]
        assert history.diff("story", 1).endswith(
            "-one\n\\ No newline at end of file\n+two\n\\ No newline at end of file\n"
        )
        assert [run.insert for run in history.changed_text("story", 1) if run.deleted]
        assert history.changes("story", 1).inserted and history.attribution("story").number == 2
        assert "".join(str(run.insert) for run in history.who_wrote("story", "content")) == "two"

        assert history.restore("story", version=first).changed
        assert read_text(url, "story") == "one"
        with pytest.raises(RequestRefused, match="invalid_request"):
            history.undo("story", "", start=0, since=began)
        assert not history.undo("story", "nobody", start=0).changed
        history.delete_version("story", first)
        with pytest.raises(RequestRefused, match="version_not_found"):
            history.version("story", first.id)
    with pytest.raises(ClientClosed):
        History(url).version("story", 1)
