"""Clients that may only read and write all the same: nobody sees it, and the audit log says who it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import jwt
import pytest

from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.support.wsclient import LiveClient, RawClient, step2, text_update, update

SECRET = "a secret of the tests, long enough for HS256"
CONTENT = "words that belong into no log"
READ_ONLY = "read-only: this change was not taken"
ATTEMPTS = 300

# A message of its own way through the server each: taken at once, in answer to a question, cut into slices.
EDITS = (text_update(901, CONTENT), text_update(902, CONTENT), text_update(903, CONTENT * 5_000))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("readers"), environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        yield server


def token(user: str, access: str) -> str:
    claims = {"sub": user, "documents": {"*": access}, "exp": int(time.time()) + 3_600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def url(server: ServerProcess, name: str, user: str, access: str) -> str:
    return f"{server.document_url(name)}?token={token(user, access)}"


def audited(server: ServerProcess, document_name: str) -> list[str]:
    """Give what the audit log says of a document, but for who was let in."""
    lines = [line for line in server.log_lines if f"document='{document_name}'" in line]
    said = [line.partition("collab.audit: ")[2] for line in lines]
    return [text for text in said if text and not text.startswith("sign-in: ")]


async def made(server: ServerProcess, name: str) -> LiveClient:
    """Make a document, and give the client that has it open and sees whatever is written."""
    watcher = await LiveClient(url(server, name, "watcher", "write")).connect()
    await watcher.until_synced()
    watcher.text().insert(0, "here")
    await watcher.barrier()
    return watcher


async def unharmed(server: ServerProcess, name: str, watcher: LiveClient) -> None:
    await watcher.barrier()
    async with LiveClient(url(server, name, "newcomer", "read")) as newcomer:
        await newcomer.until_synced()
        assert (str(watcher.text()), str(newcomer.text())) == ("here", "here")
    await watcher.close()
    assert CONTENT not in server.stderr and "eyJ" not in server.stderr, "no content and no token"


def line(what: str, name: str, protocol: str) -> str:
    who = f"address=127.0.0.1 user='reader 17' document='{name}' protocol={protocol}"
    return f"permission refused: {what} by a client that may only read ({who})"


async def test_over_y_websocket(guarded: ServerProcess) -> None:
    watcher = await made(guarded, "plain")
    async with RawClient(url(guarded, "plain", "reader 17", "read")) as reader:
        await reader.expect_sync(0)
        await reader.send(step2(EDITS[0]), update(EDITS[1]), update(EDITS[2]))
        await reader.barrier()
        assert sum(READ_ONLY.encode() in frame for frame in reader.frames) == 3
        assert reader.open, "it goes on to read"
    await unharmed(guarded, "plain", watcher)
    expected = [line("an edit", "plain", "y-websocket")] * 3
    await happens(lambda: audited(guarded, "plain") == expected, "each attempt in the log")


async def test_over_hocuspocus(guarded: ServerProcess) -> None:
    watcher = await made(guarded, "many")
    async with RawHocuspocus(guarded.hocuspocus_url) as reader:
        assert await reader.join("many", token("reader 17", "read")) == "readonly"
        before = len(reader.got("many", hocuspocus.SYNC_STATUS))
        await reader.send(
            hocuspocus.step2("many", EDITS[0]), hocuspocus.update("many", EDITS[1]), hocuspocus.update("many", EDITS[2])
        )
        await reader.until(lambda: len(reader.got("many", hocuspocus.SYNC_STATUS)) == before + 3, "a verdict each")
        assert [one.fields for one in reader.got("many", hocuspocus.SYNC_STATUS)[before:]] == [(0,)] * 3
        await reader.send(hocuspocus.stateless("many", CONTENT), hocuspocus.update("many", EDITS[1]))
        await reader.until(lambda: len(reader.got("many", hocuspocus.SYNC_STATUS)) == before + 4, "one more")
        assert reader.open
    await unharmed(guarded, "many", watcher)
    edit = line("an edit", "many", "hocuspocus")
    expected = [*[edit] * 3, line("a stateless message", "many", "hocuspocus"), edit]
    await happens(lambda: audited(guarded, "many") == expected, "each attempt in the log")


async def test_the_answer_to_a_question_and_what_is_known_already_are_no_attempts(guarded: ServerProcess) -> None:
    watcher = await made(guarded, "known")
    known = watcher.doc.get_update()
    async with RawClient(url(guarded, "known", "reader", "read")) as reader:
        await reader.expect_sync(0)
        await reader.send(step2(known), update(known))
        await reader.barrier()
    async with RawHocuspocus(guarded.hocuspocus_url) as reader:
        await reader.join("known", token("reader", "read"))
        before = len(reader.got("known", hocuspocus.SYNC_STATUS))
        await reader.send(hocuspocus.step2("known", known))
        await reader.until(lambda: len(reader.got("known", hocuspocus.SYNC_STATUS)) > before, "a verdict")
    await unharmed(guarded, "known", watcher)
    assert audited(guarded, "known") == []


async def test_one_that_never_stops_writing_gets_a_bounded_number_of_lines(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with ServerProcess(tmp_path_factory.mktemp("flood"), environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        watcher = await made(server, "d")
        began = asyncio.get_running_loop().time()
        async with RawClient(url(server, "d", "reader", "read")) as reader:
            await reader.expect_sync(0)
            reader.burst(*(update(text_update(number, CONTENT)) for number in range(1_000, 1_000 + ATTEMPTS)))
            await reader.barrier()
        took = asyncio.get_running_loop().time() - began
        await asyncio.to_thread(server.wait_for_log, lambda line: "more like it not shown" in line)
        assert 20 <= len(audited(server, "d")) <= 20 + took + 1
        await unharmed(server, "d", watcher)
