"""What every sandbox promises, on the one with processes and the one without."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pycrdt
import pytest

from collab.content.edits import Format, Patch, Replace, TextInsert, TextReplace
from collab.engine.rebuilt import rebuild
from collab.errors import CollabError, ContentError, SandboxBusy, UnreadableContent, UpdateError
from collab.history.attribution import Row
from collab.history.packed import PackedRows
from collab.history.rows import Rows
from collab.history.tasks import LONG_BYTES, Changes, Shown, changes
from collab.sandbox import jobs
from collab.sandbox.counted import CountedSandbox
from collab.sandbox.inline import InlineSandbox
from collab.sandbox.pool import ProcessSandbox
from collab.sandbox.port import Ending, Reading, Sandbox, Written
from collab.storage.checksums import row_checksum
from collab.storage.records import LogRow
from collab.update.compact import Compacted, compact
from collab.update.merge import merge_updates
from collab.update.reader import read_update
from tests.support.author import Author, content
from tests.support.packing import pack

MakeSandbox = Callable[[], Sandbox]

HOOK = bytes.fromhex("010105000701017805016800")
"""A document with an XmlHook, which the library cannot read."""


def written() -> bytes:
    """Make a text that was typed letter by letter, and a part of which was deleted."""
    author = Author(1)
    for letter in "a document that was typed letter by letter":
        author.type(letter)
    del author.text[2:11]
    return merge_updates(author.updates)  # the author's own library has dropped what it deleted


def mixed() -> bytes:
    """Make a document with roots of several types."""
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=5)
    document.get("rich", type=pycrdt.Text).insert(0, "bold", {"b": True})
    document.get("map", type=pycrdt.Map)["list"] = pycrdt.Array([1.5, None, True, b"\x01", {"k": "ä😀"}])
    document.get("xml", type=pycrdt.XmlFragment).children.append(pycrdt.XmlElement("p", {"class": "c"}, ["hi"]))
    return document.get_update()


DOCUMENTS = {"empty": b"\0\0", "written": written(), "mixed": mixed(), "hook": HOOK}


async def rebuilt(sandbox: Sandbox, snapshot: bytes | None, rows: PackedRows) -> Compacted | None:
    """Rebuild a document when the sandbox can begin with it."""
    while True:
        try:
            return await sandbox.rebuild(snapshot, b"", rows)
        except SandboxBusy:
            await asyncio.sleep(0.01)


class SandboxConformance:
    """The promise of :class:`collab.sandbox.port.Sandbox`, as far as it can be seen from outside."""

    @pytest.fixture
    def make_sandbox(self) -> MakeSandbox:
        raise NotImplementedError

    @pytest.fixture
    async def sandbox(self, make_sandbox: MakeSandbox) -> AsyncIterator[Sandbox]:
        sandbox = make_sandbox()
        yield sandbox
        await sandbox.close()

    async def test_compacting_gives_what_the_function_gives(self, sandbox: Sandbox) -> None:
        for name, data in DOCUMENTS.items():
            for gc in (True, False):
                assert await sandbox.compact(data, gc) == compact(data, gc=gc), name
        shorter = await sandbox.compact(DOCUMENTS["written"], True)
        assert len(shorter.data) < len((await sandbox.compact(DOCUMENTS["written"], False)).data)
        assert content(shorter.data) == content(DOCUMENTS["written"])

    async def test_content_is_what_the_job_gives_and_json_can_hold_it(self, sandbox: Sandbox) -> None:
        for name in ("empty", "written", "mixed"):
            shown = await sandbox.content(DOCUMENTS[name])
            assert shown == jobs.content(DOCUMENTS[name]), name
            assert json.loads(json.dumps(shown)) == shown
        assert await sandbox.content(DOCUMENTS["written"]) == {"t": content(DOCUMENTS["written"])}

    async def test_content_is_encoded_where_it_was_read(self, sandbox: Sandbox) -> None:
        for name in ("empty", "written", "mixed"):
            shown = await sandbox.show(DOCUMENTS[name], Format.JSON)
            assert json.loads(shown) == jobs.content(DOCUMENTS[name]), name
        assert await sandbox.show(DOCUMENTS["written"], Format.TEXT, "t") == content(DOCUMENTS["written"]).encode()
        with pytest.raises(UnreadableContent, match="XmlHook"):
            await sandbox.show(HOOK, Format.JSON)
        with pytest.raises(ContentError):
            await sandbox.show(DOCUMENTS["written"], Format.TEXT, "nothing")

    async def test_history_is_shown_as_the_function_shows_it_and_compressed_if_it_is_long(
        self, sandbox: Sandbox
    ) -> None:
        row = Rows()
        row.add([Row(1, DOCUMENTS["written"], 0.0, "ann")])
        question = Changes(b"\0\0", row, {})
        assert await sandbox.show_history(question) == Shown(changes(question))
        guests = {"ann": "n" * LONG_BYTES}
        shown = await sandbox.show_history(Changes(b"\0\0", row, {}, guests=guests))
        assert shown.gzipped and len(shown.data) < LONG_BYTES
        names = [mark["author_name"] for mark in json.loads(shown.plain())["marks"]]
        assert guests["ann"] in names
        with pytest.raises(UpdateError):
            await sandbox.show_history(Changes(b"\x01", row, {}))

    async def test_what_is_no_update_is_refused_and_the_next_job_runs(self, sandbox: Sandbox) -> None:
        for bad in (b"", b"\x01", DOCUMENTS["written"][:-1], DOCUMENTS["mixed"] + b"\0", b"\xff" * 20):
            with pytest.raises(UpdateError):
                await sandbox.compact(bad, True)
            with pytest.raises(UpdateError):
                await sandbox.content(bad)
        assert await sandbox.content(DOCUMENTS["empty"]) == {}

    async def test_what_the_library_cannot_read_is_an_error_of_the_document(self, sandbox: Sandbox) -> None:
        with pytest.raises(UnreadableContent, match="XmlHook"):
            await sandbox.content(HOOK)
        assert (await sandbox.compact(HOOK, True)).data == HOOK

    async def test_the_same_arguments_give_the_same_result(self, sandbox: Sandbox) -> None:
        data = bytes(DOCUMENTS["mixed"])
        first, second = await sandbox.compact(data, True), await sandbox.compact(data, True)
        assert first == second and data == DOCUMENTS["mixed"]
        assert list(await sandbox.content(data)) == list(await sandbox.content(data))

    async def test_what_a_document_held_is_rebuilt_as_the_function_does(self, sandbox: Sandbox) -> None:
        author = Author(1)
        for letter in "typed letter by letter":
            author.type(letter)
        rows = [LogRow(seq, data, 1.0, "ann", row_checksum(data, "ann")) for seq, data in enumerate(author.updates, 1)]
        for snapshot, packed in ((None, pack(rows)), (compact(author.updates[0]).data, pack(rows[1:]))):
            made = await rebuilt(sandbox, snapshot, packed)
            assert made is not None and made == rebuild(snapshot, b"", packed)
            assert content(made.data) == "typed letter by letter"
        assert await rebuilt(sandbox, None, pack(rows[1:])) is None, "it is not whole"

    async def test_many_jobs_at_once_each_get_their_own_result(self, sandbox: Sandbox) -> None:
        documents = [Author(client + 1).type(f"document {client}") for client in range(20)]
        shown = await asyncio.gather(*map(sandbox.content, documents))
        assert shown == [{"t": f"document {client}"} for client in range(20)]

    async def test_a_job_never_ends_in_the_turn_of_the_loop_in_which_it_begins(self, sandbox: Sandbox) -> None:
        job = asyncio.ensure_future(sandbox.compact(DOCUMENTS["empty"], True))
        await asyncio.sleep(0)
        assert not job.done(), "else a test would not see what comes in between"
        await job

    async def test_a_job_that_is_cancelled_costs_that_job(self, sandbox: Sandbox) -> None:
        some = [asyncio.ensure_future(sandbox.content(DOCUMENTS["written"])) for _ in range(3)]
        await asyncio.sleep(0)
        some[1].cancel()
        results = await asyncio.gather(*some, return_exceptions=True)
        assert isinstance(results[1], asyncio.CancelledError)
        assert results[0] == results[2] == jobs.content(DOCUMENTS["written"])

    async def test_closing_ends_the_jobs_that_run_and_is_harmless_when_done_again(
        self, make_sandbox: MakeSandbox
    ) -> None:
        sandbox = make_sandbox()
        running = [asyncio.ensure_future(sandbox.content(DOCUMENTS["written"])) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(2):
            await sandbox.close()
        for result in await asyncio.gather(*running, return_exceptions=True):
            assert isinstance(result, SandboxBusy)
        for job in (sandbox.compact(DOCUMENTS["written"], True), sandbox.content(DOCUMENTS["written"])):
            with pytest.raises(SandboxBusy, match="closed"):
                await job

    # Documents that stay

    async def test_a_document_that_stays_is_edited_and_read_as_it_is_then(self, sandbox: Sandbox) -> None:
        author = Author(1)
        stay = await sandbox.stay(author.type("hello"), 77)
        assert (stay.client_id, stay.over) == (77, False)
        first, second, shown = await stay.run(
            [author.type(" you")],
            [TextInsert("t", 0, "Oh, "), TextReplace("t", "you", "world"), Reading(Format.TEXT, "t")],
        )
        assert isinstance(first, bytes) and isinstance(second, bytes)
        assert shown == b"Oh, hello world"
        author.read(first)
        assert author.read(second) == "Oh, hello world"
        assert {section.client for section in read_update(first).sections} == {77}
        again = await stay.run([author.type("!"), first], [Reading(Format.JSON)])
        assert json.loads(again[0]) == {"t": "Oh, hello world!"}
        assert await stay.run([], [Replace("t", Format.TEXT, "Oh, hello world!")]) == [b""], "it says that already"

    async def test_a_task_that_is_refused_costs_none_of_the_others(self, sandbox: Sandbox) -> None:
        stay = await sandbox.stay(Author(1).type("hello"), 77)
        outcomes = await stay.run(
            [],
            [
                TextInsert("t", 0, "a"),
                TextReplace("t", "absent", "x"),
                TextInsert("t", 99, "x"),
                Reading(Format.TEXT, "nothing"),
                Written(Replace("t", Format.TEXT, None), b"\xff"),
                Written(Replace("m", Format.JSON, None), b'{"a": NaN}'),
                Written(Patch(()), b"{}"),
                TextInsert("t", 0, "b"),
                Reading(Format.TEXT, "t"),
            ],
        )
        assert [isinstance(outcome, CollabError) for outcome in outcomes] == [False] + [True] * 6 + [False] * 2
        assert all(isinstance(outcome, ContentError) for outcome in outcomes[1:7])
        assert outcomes[-1] == b"bahello" and not stay.over

    async def test_what_is_written_in_bytes_is_decoded_there(self, sandbox: Sandbox) -> None:
        stay = await sandbox.stay(b"\0\0", 77)
        value = json.dumps({"title": "ä😀", "tags": [1, 2.5, None]}).encode()
        patch = json.dumps([{"op": "replace", "path": "/m/title", "value": "b"}]).encode()
        tasks = [
            Written(Replace("m", Format.JSON, None), value),
            Written(Patch(()), patch),
            Written(Replace("t", Format.TEXT, None), "ä😀".encode()),
            Reading(Format.JSON, "m"),
            Reading(Format.JSON, "t"),
            Reading(Format.TEXT, "t"),
        ]
        *edits, shown, quoted, text = await stay.run([], tasks)
        assert all(edits)
        assert isinstance(shown, bytes) and json.loads(shown) == {"title": "b", "tags": [1, 2.5, None]}
        assert (quoted, text) == ('"ä😀"'.encode(), "ä😀".encode())

    async def test_stays_have_nothing_to_do_with_each_other(self, sandbox: Sandbox) -> None:
        documents = [Author(client + 1).type(f"document {client}") for client in range(10)]
        stays = [await sandbox.stay(data, 100 + client) for client, data in enumerate(documents)]
        shown = await asyncio.gather(*(stay.run([], [Reading(Format.TEXT, "t")]) for stay in stays))
        assert shown == [[f"document {client}".encode()] for client in range(10)]

    async def test_a_stay_that_has_ended_does_nothing_more(self, sandbox: Sandbox) -> None:
        stay = await sandbox.stay(Author(1).type("hello"), 77)
        other = await sandbox.stay(Author(1).type("other"), 78)
        for _ in range(2):
            stay.end()
        assert stay.over and not other.over
        assert (stay.ending, other.ending) == (Ending.RELEASED, None)
        with pytest.raises(SandboxBusy):
            await stay.run([], [Reading(Format.TEXT, "t")])
        assert await other.run([], [Reading(Format.TEXT, "t")]) == [b"other"]

    async def test_what_cannot_be_loaded_does_not_stay(self, sandbox: Sandbox) -> None:
        with pytest.raises(UpdateError):
            await sandbox.stay(b"\1", 77)
        with pytest.raises(UnreadableContent):
            await sandbox.stay(HOOK, 77)

    async def test_updates_that_do_not_fit_end_the_stay_and_nothing_is_done(self, sandbox: Sandbox) -> None:
        author = Author(1)
        stay = await sandbox.stay(author.type("a"), 77)
        author.type("b")
        with pytest.raises(SandboxBusy):
            await stay.run([author.type("c")], [TextInsert("t", 0, "x")])
        assert stay.over and stay.ending is Ending.FAILED, "it has to be loaded again"

    async def test_closing_ends_the_stays(self, make_sandbox: MakeSandbox) -> None:
        sandbox = make_sandbox()
        stay = await sandbox.stay(Author(1).type("a"), 77)
        running = asyncio.ensure_future(stay.run([], [Reading(Format.TEXT, "t")]))
        await asyncio.sleep(0)
        await sandbox.close()
        (result,) = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(result, SandboxBusy)
        with pytest.raises(SandboxBusy):
            await stay.run([], [])
        with pytest.raises(SandboxBusy, match="closed"):
            await sandbox.stay(b"\0\0", 77)


class TestInline(SandboxConformance):
    @pytest.fixture
    def make_sandbox(self) -> MakeSandbox:
        return InlineSandbox


class TestProcess(SandboxConformance):
    @pytest.fixture
    def make_sandbox(self) -> MakeSandbox:
        return lambda: ProcessSandbox(1, 30.0, 1 << 30)


class TestCounted(SandboxConformance):
    @pytest.fixture
    def make_sandbox(self) -> MakeSandbox:
        return lambda: CountedSandbox(InlineSandbox())
