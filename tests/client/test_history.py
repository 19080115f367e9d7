"""The client's part for history, against the whole application: what it gives, refusals, tokens, and repeats."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pycrdt
import pytest
from aiohttp import web
from pycrdt import Doc, Map, Text

from collab.auth.access import AccessRequest, Grant
from collab.client import (
    ClientClosed,
    Connection,
    History,
    Imported,
    NotAnswered,
    OldVersion,
    RequestRefused,
    edit,
    replace_text,
)
from collab.errors import AccessDenied, ConfigurationError, InvalidDocumentName, Unauthenticated
from collab.protocol.session import Access
from collab.update.state_vector import decode_state_vector
from tests.support.waiting import happens
from tests.transports.conftest import Serve, Served


class People:
    """Lets everybody in whose token is a name; ``reader`` may only read, ``root`` everything."""

    def __init__(self) -> None:
        self.refused: set[str] = set()

    async def authenticate(self, request: AccessRequest) -> Grant:
        if not request.token or request.token in self.refused:
            raise Unauthenticated("no token", public="a token is needed")
        access = {"reader": Access.READ, "root": Access.ADMIN}.get(request.token, Access.WRITE)
        return Grant(access, request.token)


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
async def served(serve: Serve, people: People) -> Served:
    return await serve(authenticator=people, auto_version_minutes=0)


@pytest.fixture
async def history(served: Served) -> AsyncIterator[History]:
    async with History(served.hocuspocus, token="root") as history:
        yield history


async def write(served: Served, name: str, *texts: str, who: str = "ada") -> None:
    """Set the text of a document to one after the other, each by an edit of its own."""
    for text in texts:
        assert await replace_text(served.hocuspocus, name, "text", text, token=who)


async def test_versions_are_made_listed_changed_read_and_deleted(served: Served, history: History) -> None:
    name = "a folder/ß %.md"
    await write(served, name, "one", "one two")
    first = await history.make_version(name, "The first", description="as it began", number=1)
    assert (first.name, first.description, first.number) == ("The first", "as it began", 1)
    assert (first.kind, first.reason, first.author) == ("named", "made", "root")
    assert abs(first.at - datetime.now(UTC)) < timedelta(minutes=1)
    second = await history.make_version(name, "The second")
    assert [one async for one in history.versions(name)] == [second, first]
    assert [one async for one in history.versions(name, kind="automatic")] == []
    page = await history.version_page(name, limit=1)
    assert page.versions == [second] and page.next is not None
    assert (await history.version_page(name, limit=1, cursor=page.next)).versions == [first]

    assert await history.read(name, version=first) == {"text": "one"}
    assert await history.read(name, version=second.id, format="text", root="text") == "one two"
    assert await history.read(name, number=0) == {}
    doc: Doc[Any] = Doc()
    doc.apply_update(await history.read_update(name, version=first))
    assert str(doc.get("text", type=Text)) == "one"
    await history.copy(name, "copy", version=first)
    assert await history.read("copy") == {"text": "one"}

    changed = await history.change_version(name, first, title="Another", description=None)
    assert (changed.name, changed.description) == ("Another", None)
    assert (await history.change_version(name, first, description="more")).name == "Another"
    assert (await history.version(name, first.id)).description == "more"
    await history.delete_version(name, second)
    with pytest.raises(RequestRefused) as refused:
        await history.version(name, second.id)
    assert (refused.value.code, refused.value.status) == ("version_not_found", 404)


async def test_a_version_of_another_system_comes_with_its_time(served: Served, history: History) -> None:
    await write(served, "d", "now")
    old: Doc[Any] = Doc()
    old.get("text", type=Text).insert(0, "long ago")
    at = datetime(2019, 5, 1, 12, 0, tzinfo=UTC)
    made = await history.import_version("d", "Old", old.get_update(), at, description="of the wiki", author="grace")
    assert (made.number, made.reason, made.at, made.author) == (None, "imported", at, "grace")
    assert made.description == "of the wiki"
    assert await history.read("d", version=made, format="text", root="text") == "long ago"
    with pytest.raises(ValueError, match="offset"):
        await history.import_version("d", "Old", old.get_update(), datetime(2019, 5, 1))


async def test_many_versions_of_another_system_come_in_portions(served: Served, history: History) -> None:
    await write(served, "d", "now")
    old: Doc[Any] = Doc()
    old.get("text", type=Text).insert(0, "long ago")
    update, at = old.get_update(), datetime(2019, 5, 1, tzinfo=UTC)
    many = [OldVersion(f"old {number}", update, at + timedelta(days=number), author="grace") for number in range(150)]
    many[140] = OldVersion("broken", b"no update", at)
    done = await history.import_versions("d", iter(many))
    assert (done.created, done.existed) == (149, 0)
    assert [(one.line, one.name, one.code) for one in done.failures] == [(141, "broken", "invalid_update")]
    found = [one async for one in history.versions("d", kind="named")]
    assert len(found) == 149 and {one.author for one in found} == {"grace"}
    assert await history.read("d", version=found[-1], format="text", root="text") == "long ago"
    again = await history.import_versions("d", many)
    assert (again.created, again.existed) == (0, 149)
    assert await history.import_versions("d", []) == Imported(0, 0, [])


async def test_what_happened_and_the_rows_are_read_page_by_page(served: Served, history: History) -> None:
    await write(served, "d", "one", "two", who="ada")
    await write(served, "d", "three", who="grace")
    version = await history.make_version("d", "Three")
    entries = [entry async for entry in history.timeline("d")]
    assert sum(entry.edits for entry in entries) == 3 == entries[0].last
    assert {author.user for entry in entries for author in entry.authors} == {"ada", "grace"}
    assert [one.id for one in entries[0].versions] == [version.id]
    page = await history.timeline_page("d", limit=1)
    assert (page.head, page.behind, page.reaches) == (3, 0, 1) and page.entries == entries[:1]
    rows = [row async for row in history.rows("d")]
    assert [(row.number, row.author) for row in rows] == [(1, "ada"), (2, "ada"), (3, "grace")]
    doc: Doc[Any] = Doc()
    for row in rows:
        doc.apply_update(row.update)
    assert str(doc.get("text", type=Text)) == "three"
    assert [row.number async for row in history.rows("d", 1, 2)] == [2]
    assert rows[0].at.tzinfo is UTC and rows[0].at <= rows[-1].at


async def test_who_wrote_what_and_what_changed(served: Served, history: History) -> None:
    await write(served, "d", "Once upon a time", who="ada")
    await write(served, "d", "Once upon a night", who="grace")

    def shown(runs: list[Any]) -> list[tuple[Any, Any, Any]]:
        return [(run.insert, run.inserted and run.inserted.author, run.deleted and run.deleted.author) for run in runs]

    wrote = await history.who_wrote("d", "text")
    assert "".join(str(run.insert) for run in wrote) == "Once upon a night"
    assert {author for _, author, _ in shown(wrote)} == {"ada", "grace"}
    changed = await history.changed_text("d", 1)
    assert any(gone == "grace" for _, _, gone in shown(changed))
    assert any(made == "grace" for _, made, _ in shown(changed))
    assert "-Once upon a time\n" in await history.diff("d", 1) and await history.diff("d", 2) == ""

    attribution = await history.attribution("d")
    assert attribution.number == 2
    assert {one.mark.author for one in attribution.inserted} == {"ada", "grace"}
    assert {one.mark.author for one in attribution.deleted} == {"grace"}
    changes = await history.changes("d", 1, 2)
    doc: Doc[Any] = Doc()
    doc.apply_update(changes.base)
    assert str(doc.get("text", type=Text)) == "Once upon a time"
    doc.apply_update(changes.update)
    assert str(doc.get("text", type=Text)) == "Once upon a night"
    assert decode_state_vector(doc.get_state()) == decode_state_vector(changes.state_vector)
    assert changes.snapshot != changes.prev_snapshot
    assert {one.mark.author for one in changes.inserted} == {"grace"}


async def test_a_rich_text_is_shown_with_what_changed(served: Served, history: History) -> None:
    def begin(doc: pycrdt.Doc[Any]) -> None:
        root = doc.get("default", type=pycrdt.XmlFragment)
        paragraph = root.children.append(pycrdt.XmlElement("paragraph"))
        paragraph.children.append(pycrdt.XmlText("hello"))

    await edit(served.hocuspocus, "d", begin, token="ada")
    shown = await history.changed_prosemirror("d", 0)
    (paragraph,) = shown["content"]
    assert paragraph["attrs"]["ychange"]["user"] == "ada"
    assert paragraph["content"][0]["text"] == "hello"


async def test_all_a_root_or_an_element_is_restored_and_the_restore_taken_back(
    served: Served, history: History
) -> None:
    def begin(doc: pycrdt.Doc[Any]) -> None:
        doc.get("text", type=Text).insert(0, "old")
        doc.get("map", type=Map).update({"a": "old", "b": "old"})

    def change(doc: pycrdt.Doc[Any]) -> None:
        doc.get("text", type=Text).insert(0, "very ")
        doc.get("map", type=Map).update({"a": "new", "b": "new"})

    await edit(served.hocuspocus, "d", begin, token="ada")
    version = await history.make_version("d", "Old")
    await edit(served.hocuspocus, "d", change, token="ada")

    async with Connection(served.hocuspocus, token="grace") as connection:
        document = await connection.open("d")
        part = await history.restore("d", version=version, root="map", element="a", label="one", on_behalf_of="ada")
        assert part.changed and part.number == part.before + 1
        assert await history.read("d") == {"text": "very old", "map": {"a": "old", "b": "new"}}
        assert [row.label async for row in history.rows("d", part.before)] == ["one"]
        await history.restore("d", version=version, root="map")
        assert await history.read("d") == {"text": "very old", "map": {"a": "old", "b": "old"}}
        whole = await history.restore("d", number=version.number)
        await happens(
            lambda: document.read_json() == {"text": "old", "map": {"a": "old", "b": "old"}}, "the restore arrives"
        )
    again = await history.restore("d", number=whole.before)
    assert again.changed and (await history.read("d"))["text"] == "very old"
    assert not (await history.restore("d", number=whole.before)).changed


async def test_what_one_person_did_is_undone(served: Served, history: History) -> None:
    began = datetime.now(UTC)
    await write(served, "d", "ada", who="ada")
    await write(served, "d", "ada and grace", who="grace")
    await write(served, "d", "ada and grace, too", who="ada")
    done = await history.undo("d", "grace", start=0, label="sorry")
    assert done.changed and await history.read("d", format="text", root="text") == "ada, too"
    assert await history.undo("d", "ada", since=began, end=1)
    assert await history.read("d", format="text", root="text") == ", too"
    assert not (await history.undo("d", "nobody", start=0)).changed


async def test_what_is_refused_says_why(served: Served, history: History) -> None:
    await write(served, "d", "text")
    async with History(served.url, token="reader") as reader:
        assert await reader.read("d", number=1) == {"text": "text"}
        for call, code in (
            (reader.make_version("d", "Mine"), "forbidden"),
            (reader.read("none"), "document_not_found"),
            (reader.read("d", number=7), "history_gone"),
        ):
            with pytest.raises(RequestRefused) as refused:
                await call
            assert refused.value.code == code and refused.value.detail
        with pytest.raises(InvalidDocumentName):
            await reader.read("")
    with pytest.raises(RequestRefused, match="number") as refused:
        await history.restore("d")
    assert (refused.value.code, refused.value.status) == ("invalid_request", 400)
    with pytest.raises(ClientClosed):
        await reader.read("d")
    with pytest.raises(ConfigurationError):
        History("ftp://127.0.0.1")


@pytest.mark.parametrize("name", [".", "..", "a/../b", "./a", "a//b", "a%2Fb", "?#", "ø/\U0001f600", "a/"])
async def test_every_name_is_found(served: Served, history: History, name: str) -> None:
    await write(served, name, "here")
    assert await history.read(name, number=1) == {"text": "here"}


async def test_it_is_found_below_a_prefix(serve: Serve, people: People) -> None:
    served = await serve("/sub", authenticator=people)
    await write(served, "d", "below")
    for url in (served.url, served.url + "/", served.hocuspocus, served.hocuspocus + "?a=b"):
        async with History(url, token="ada") as history:
            assert history.url == f"{served.url}/api/v1"
            assert await history.read("d", number=1) == {"text": "below"}


async def test_a_token_is_asked_for_once_and_anew_when_it_is_refused(served: Served, people: People) -> None:
    await write(served, "d", "text")
    given: list[str] = []

    async def token() -> str:
        given.append(f"ada {len(given)}")
        return given[-1]

    async with History(served.url, token=token) as history:
        await history.read("d", number=1)
        await history.read("d", number=1)
        assert given == ["ada 0"]
        people.refused.add("ada 0")
        await history.read("d", number=1)
        assert given == ["ada 0", "ada 1"]
        people.refused |= {"ada 1", "ada 2", "ada 3"}
        with pytest.raises(RequestRefused, match="unauthenticated"):
            await history.read("d", number=1)
        assert given == ["ada 0", "ada 1", "ada 2"]


async def test_a_function_for_tokens_may_wait_fail_once_or_refuse(served: Served) -> None:
    await write(served, "d", "text")
    asked: list[float] = []

    def token() -> str:
        asked.append(time.monotonic())
        if len(asked) == 1:
            raise OSError("the database is away")
        return "ada"

    async with History(served.url, token=token) as history:
        await history.read("d", number=1)
    assert len(asked) == 2

    def never() -> str:
        raise AccessDenied("not today")

    async with History(served.url, token=never) as history:
        with pytest.raises(AccessDenied, match="not today"):
            await history.read("d")


class Flaky:
    """A server that answers each request by the next one of its answers, and notes what it was asked."""

    def __init__(self, *answers: web.Response | None) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str | None]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        self.requests.append((request.method, request.headers.get("Idempotency-Key")))
        answer = self.answers.pop(0)
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            raise ConnectionResetError
        return answer


def problem(status: int, code: str, **headers: str) -> web.Response:
    return web.json_response({"code": code, "detail": f"it is {code}"}, status=status, headers=headers)


@asynccontextmanager
async def serving(flaky: Flaky) -> AsyncIterator[str]:
    """Serve it; give its address."""
    runner = web.ServerRunner(web.Server(flaky), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"ws://{host}:{port}"
    finally:
        await runner.cleanup()


DONE = {"changed": True, "before": 1, "number": 2}


async def test_a_call_is_sent_again_with_its_key_until_it_is_answered() -> None:
    busy = problem(503, "unavailable", **{"Retry-After": "0"})
    flaky = Flaky(busy, None, problem(429, "too_many_requests"), web.Response(status=502), web.json_response(DONE))
    async with serving(flaky) as url, History(url) as history:
        assert (await history.restore("d", number=1)).number == 2
    keys = {key for _, key in flaky.requests}
    assert len(flaky.requests) == 5 and len(keys) == 1 and keys != {None}


async def test_a_deletion_that_was_done_before_is_not_an_error() -> None:
    flaky = Flaky(None, problem(404, "version_not_found"), problem(404, "version_not_found"))
    async with serving(flaky) as url, History(url) as history:
        await history.delete_version("d", 1)
        with pytest.raises(RequestRefused, match="version_not_found"):
            await history.delete_version("d", 1)


async def test_what_does_not_pass_is_told_at_once_and_the_rest_when_its_time_is_over() -> None:
    flaky = Flaky(
        problem(503, "outcome_unknown"),
        problem(500, "internal"),
        web.Response(status=200, text="<html>"),
        web.json_response({"another": "answer"}),
        problem(503, "unavailable", **{"Retry-After": "3600"}),
    )
    async with serving(flaky) as url, History(url) as history:
        for said in ("outcome_unknown", "internal", "no JSON", "not as this client knows it"):
            with pytest.raises(RequestRefused, match=said):
                await history.restore("d", number=1)
        with pytest.raises(NotAnswered, match="it is unavailable"):
            await history.restore("d", number=1)
    async with History(url, timeout=1.0) as history:
        with pytest.raises(NotAnswered, match="cannot be reached"):
            await history.restore("d", number=1)


async def test_a_long_answer_is_refused(served: Served) -> None:
    await write(served, "d", "x" * 5_000)
    async with History(served.url, token="ada", max_message_bytes=4_096) as history:
        with pytest.raises(RequestRefused, match="max_message_bytes"):
            await history.read("d", number=1)
