"""The client on the whole application: sync, saved, presence, access, many documents, and coming back."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import aiohttp
import pycrdt
import pytest
from aiohttp import web
from pycrdt import Array, Text

from collab.auth.access import AccessRequest, Grant
from collab.client import (
    ClientClosed,
    Connection,
    ConnectionRefused,
    Document,
    DocumentRefused,
    EditRefused,
    NotSaved,
    NotSynced,
    Status,
    connect,
)
from collab.errors import ConfigurationError, InvalidDocumentName, Unauthenticated
from collab.protocol.hocuspocus.client import ClientSocket
from collab.protocol.hocuspocus.codec import CLOSED_BY_CLIENT
from collab.protocol.session import Access
from collab.storage.memory import MemoryStore
from tests.auth.makers import SECRET, signed
from tests.client.conftest import Dial
from tests.support.throttle import SlowLine
from tests.support.waiting import happens
from tests.transports.conftest import Serve, Served

TOKENS = {"jwt_secret": SECRET}


def token(documents: list[str], access: str = "write", lifetime: float = 3600) -> str:
    return signed(documents=dict.fromkeys(documents, access), exp=int(time.time() + lifetime))


class Brief:
    """Lets everybody in whose token is "read" or "write", for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[str] = []

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.asked.append(request.token)
        return Grant(Access(request.token), "u", expires_at=time.time() + self.seconds)


def port_of(served: Served) -> int:
    return int(served.url.rpartition(":")[2])


def text(document: Document) -> Text:
    return document.doc.get("content", type=Text)


async def come_back(line: SlowLine, document: Document) -> None:
    """Cut the line, and wait until the document is in sync over another connection."""
    before = line.connections
    line.cut()
    await happens(lambda: line.connections > before, "another connection")
    await document.wait_synced()


async def shows(document: Document, wanted: str) -> None:
    await happens(lambda: str(text(document)) == wanted, f"{wanted!r} in {document.name}")


async def test_an_edit_reaches_another_client_and_the_store(serve: Serve) -> None:
    store = MemoryStore()
    served = await serve(store=store)
    async with connect(served.hocuspocus, "notes") as ada, connect(served.hocuspocus, "notes") as grace:
        assert ada.synced and ada.saved and ada.access == "write" and ada.status is Status.SYNCED
        text(ada).insert(0, "hello")
        assert not ada.saved
        await ada.wait_saved()
        assert ada.saved
        loaded = await store.load("notes")
        assert loaded is not None and b"hello" in b"".join(row.data for row in loaded.rows)
        await shows(grace, "hello")
        text(grace).insert(5, " world")
        await shows(ada, "hello world")


async def test_an_address_without_a_path_is_that_of_the_protocol(serve: Serve) -> None:
    served = await serve()
    async with Connection(served.url) as connection:
        assert connection.url == served.hocuspocus
        assert (await connection.open("d")).synced
    for url in ("somewhere", "ftp://host", "ws://", "ws://[::1"):
        with pytest.raises(ConfigurationError):
            Connection(url)
    async with Connection(served.hocuspocus) as connection:
        with pytest.raises(InvalidDocumentName):
            await connection.open("a\0b")


async def test_leaving_the_block_saves_and_an_exception_does_not_wait(serve: Serve) -> None:
    served = await serve()
    async with connect(served.hocuspocus, "d") as document:
        text(document).insert(0, "saved")
    assert document.saved and document.closed
    with pytest.raises(ClientClosed):
        await document.wait_synced()
    with pytest.raises(RuntimeError, match="mine"):
        async with connect(served.hocuspocus, "d") as document:
            raise RuntimeError("mine")
    assert document.closed
    async with connect(served.hocuspocus, "d") as document:
        assert str(text(document)) == "saved"


async def test_many_documents_on_one_socket_and_one_of_them_twice(serve: Serve) -> None:
    served = await serve()
    async with Connection(served.hocuspocus) as connection:
        documents = await asyncio.gather(*(connection.open(f"d{i}") for i in range(30)))
        again = await connection.open("d0")
        for number, document in enumerate(documents):
            text(document).insert(0, str(number))
        for document in documents:
            await document.wait_saved()
        await shows(again, "0")
        # Closed and opened again on the same socket, at once.
        await documents[3].close()
        third = await connection.open("d3")
        assert str(text(third)) == "3"
        text(third).insert(0, "x")
        await third.wait_saved()
    async with Connection(served.hocuspocus) as connection:
        assert str(text(await connection.open("d3"))) == "x3"


async def test_a_document_that_is_handed_in_is_sent(serve: Serve) -> None:
    served = await serve()
    doc: pycrdt.Doc[Any] = pycrdt.Doc()
    doc.get("content", type=Text).insert(0, "brought along")
    async with connect(served.hocuspocus, "d", doc=doc) as document:
        assert document.doc is doc
        await document.wait_saved()
    async with connect(served.hocuspocus, "d") as other:
        await shows(other, "brought along")


async def test_edits_from_before_the_server_was_there_are_sent(serve: Serve, dial: Dial) -> None:
    served = await serve()
    with SlowLine(port_of(served)) as line:
        line.closed = True
        async with dial(f"ws://127.0.0.1:{line.port}") as connection:
            document = await connection.open("d", wait=False)
            text(document).insert(0, "offline")
            assert not document.saved and not document.synced
            with pytest.raises(NotSaved):
                await document.wait_saved(0.05)
            with pytest.raises(NotSynced):
                await document.wait_synced(0.05)
            line.closed = False
            await document.wait_saved()
            assert document.synced
            # And again, when the line is cut in the middle.
            for number in range(5):
                line.cut()
                text(document).insert(0, str(number))
                await document.wait_saved()
    async with connect(served.hocuspocus, "d") as other:
        await shows(other, "43210offline")


async def test_states_are_told_in_order(serve: Serve, dial: Dial) -> None:
    served = await serve()
    with SlowLine(port_of(served)) as line:
        async with dial(f"ws://127.0.0.1:{line.port}") as connection:
            document = await connection.open("d")
            called: list[Status] = []
            seen: list[Status] = []
            remove = document.on("status", called.append)

            async def watch() -> None:
                async for status in document.statuses():
                    seen.append(status)

            watcher = asyncio.create_task(watch())
            await happens(lambda: seen == [Status.SYNCED], "the status now")
            line.cut()
            await happens(lambda: Status.OFFLINE in called, "the end of the line")
            await document.wait_synced()
            assert called == [Status.OFFLINE, Status.CONNECTING, Status.SYNCED]
            remove()
            await document.close()
            await watcher
            assert seen[0] is Status.SYNCED and seen[-1] is Status.CLOSED
            assert Status.CLOSED not in called


@pytest.mark.slow
async def test_a_line_that_stalls_is_noticed(serve: Serve, dial: Dial) -> None:
    served = await serve()
    with SlowLine(port_of(served)) as line:
        async with dial(f"ws://127.0.0.1:{line.port}", heartbeat=0.3) as connection:
            document = await connection.open("d")
            line.hang()
            text(document).insert(0, "x" * 3_000_000)  # more than the buffers of the line
            await document.wait_saved()
            assert line.connections == 2


async def test_what_is_refused_for_good_is_an_error_with_its_reason(serve: Serve) -> None:
    served = await serve(**TOKENS)
    for given, reason in (
        (None, "no token was given"),
        ("nonsense", "the token is not a JWT"),
        (token(documents=["other"]), "the token does not allow this document (claim documents)"),
    ):
        with pytest.raises(DocumentRefused) as caught:
            async with connect(served.hocuspocus, "d", token=given):
                pass
        assert (caught.value.reason, caught.value.document_name) == (reason, "d")
    async with Connection(served.hocuspocus, token=token(documents=["a"])) as connection:
        good = await connection.open("a")
        with pytest.raises(DocumentRefused):
            await connection.open("b")
        text(good).insert(0, "goes on")
        await good.wait_saved()


async def test_a_reader_reads_and_is_told_that_its_edits_are_not_taken(serve: Serve) -> None:
    served = await serve(**TOKENS)
    async with connect(served.hocuspocus, "d", token=token(documents=["*"])) as writer:
        text(writer).insert(0, "written")
        await writer.wait_saved()
        async with Connection(served.hocuspocus, token=token(documents=["*"], access="read")) as connection:
            reader = await connection.open("d")
            assert reader.access == "read" and str(text(reader)) == "written" and reader.saved
            await reader.wait_saved()
            text(reader).insert(0, "mine ")
            with pytest.raises(EditRefused):
                await reader.wait_saved()
            with pytest.raises(EditRefused):
                await reader.close()
            assert reader.closed
        assert str(text(writer)) == "written"


async def test_a_token_function_is_asked_at_each_connection(serve: Serve, dial: Dial) -> None:
    served = await serve(**TOKENS)
    numbers = itertools.count(1)
    asked: list[int] = []

    async def give() -> str:
        asked.append(next(numbers))
        if asked[-1] == 1:
            raise OSError("the application is away")
        return token(documents=["*"])

    with SlowLine(port_of(served)) as line:
        async with dial(f"ws://127.0.0.1:{line.port}", token=give) as connection:
            document = await connection.open("d")
            assert asked == [1, 2]
            await come_back(line, document)
            assert asked == [1, 2, 3]

            def signed_out() -> str:
                raise Unauthenticated("nobody is signed in", public="sign in again")

            with pytest.raises(DocumentRefused, match="sign in again"):
                await connection.open("e", token=signed_out)
            assert (await connection.open("f", token=lambda: token(documents=["f"]))).synced


@pytest.mark.slow
async def test_a_token_that_runs_out_is_asked_for_again(serve: Serve, dial: Dial) -> None:
    brief = Brief(1.5)
    served = await serve(authenticator=brief)
    with SlowLine(port_of(served)) as line:
        async with dial(f"ws://127.0.0.1:{line.port}", token=lambda: "write") as connection:
            document = await connection.open("d")
            await happens(lambda: len(brief.asked) >= 3, "two fresh tokens")
            text(document).insert(0, "still there")
            await document.wait_saved()
            assert line.connections == 1, "it was asked on the socket that was open"


@pytest.mark.slow
async def test_edits_of_a_reader_are_sent_when_it_may_write(serve: Serve, dial: Dial) -> None:
    served = await serve(authenticator=Brief(1.5))
    tokens = iter(["read"])
    access: list[str] = []
    released = asyncio.Event()

    async def give() -> str:
        first = next(tokens, None)
        if first is None:
            await released.wait()
        return first or "write"

    async with dial(served.hocuspocus, token=give) as connection:
        document = await connection.open("d")
        document.on("access", access.append)
        text(document).insert(0, "early")
        with pytest.raises(EditRefused):
            await document.wait_saved()
        released.set()
        await happens(lambda: document.access == "write", "another access")
        await document.wait_saved()
        text(document).insert(0, "not so ")
        await document.wait_saved()
        assert access[-1] == "write"
    async with connect(served.hocuspocus, "d", token="write") as other:
        assert str(text(other)) == "not so early"


async def test_a_document_that_is_deleted_is_refused_and_the_others_go_on(serve: Serve, dial: Dial) -> None:
    served = await serve()
    async with dial(served.hocuspocus) as connection:
        gone, other = await connection.open("gone"), await connection.open("other")
        text(gone).insert(0, "x")
        await gone.wait_saved()
        async with aiohttp.ClientSession() as http, http.delete(f"{served.url}/api/v1/documents/gone") as answer:
            assert answer.status == 204
        await happens(lambda: gone.status is Status.REFUSED, "the end")
        assert isinstance(gone.error, DocumentRefused) and gone.error.reason == "the document was deleted"
        text(gone).insert(0, "too late")
        with pytest.raises(DocumentRefused):
            await gone.wait_saved()
        with pytest.raises(DocumentRefused):
            await gone.close()
        text(other).insert(0, "goes on")
        await other.wait_saved()


async def test_presence_comes_and_goes(serve: Serve, dial: Dial) -> None:
    served = await serve()
    async with connect(served.hocuspocus, "d") as ada:
        changes: list[Any] = []
        ada.awareness.on_change(changes.append)
        async with dial(served.hocuspocus) as connection:
            grace = await connection.open("d")
            me = grace.awareness.client_id
            grace.awareness.set({"user": {"name": "Grace"}})
            await happens(lambda: ada.awareness.others == {me: {"user": {"name": "Grace"}}}, "Grace")
            grace.awareness.set_field("cursor", 3)
            await happens(lambda: ada.awareness.states.get(me, {}).get("cursor") == 3, "her cursor")
            grace.awareness.set(None)
            await happens(lambda: not ada.awareness.others, "she shows nothing")
            grace.awareness.set({"user": {"name": "Grace"}})
            await happens(lambda: me in ada.awareness.others, "Grace again")
        await happens(lambda: not ada.awareness.others, "she has left")
        assert changes[0].added == (me,) and changes[-1].removed == (me,)
        with pytest.raises(ValueError):
            ada.awareness.set({"x": object()})
        with pytest.raises(ValueError):
            ada.awareness.set({"x": "y" * 70_000})


async def test_presence_is_back_after_the_line_was_cut(serve: Serve, dial: Dial) -> None:
    served = await serve()
    with SlowLine(port_of(served)) as line:
        async with (
            dial(f"ws://127.0.0.1:{line.port}") as ours,
            dial(served.hocuspocus) as theirs,
        ):
            ada, grace = await ours.open("d"), await theirs.open("d")
            ada.awareness.set({"name": "Ada"})
            grace.awareness.set({"name": "Grace"})
            both = {ada.awareness.client_id: {"name": "Ada"}, grace.awareness.client_id: {"name": "Grace"}}
            for _ in range(3):
                await happens(lambda: ada.awareness.states == grace.awareness.states == both, "both see both")
                await come_back(line, ada)
            await happens(lambda: ada.awareness.states == grace.awareness.states == both, "both see both")


async def test_stateless_messages(serve: Serve) -> None:
    served = await serve()
    async with connect(served.hocuspocus, "d") as ada, connect(served.hocuspocus, "d") as grace:
        heard: list[str] = []
        grace.on("stateless", heard.append)
        await ada.send_stateless("hällo")
        await happens(lambda: heard == ["hällo"], "the message")
    with pytest.raises(ClientClosed):
        await ada.send_stateless("too late")


@pytest.mark.slow
async def test_edits_faster_than_the_line_cost_no_memory(serve: Serve, dial: Dial) -> None:
    served = await serve()
    port = port_of(served)
    with SlowLine(port) as line:
        async with dial(f"ws://127.0.0.1:{line.port}", close_timeout=60) as connection:
            document = await connection.open("d")
            line.up = 0
            numbers = document.doc.get("numbers", type=Array)
            for number in range(2_000):
                numbers.append(str(number) + "x" * 1000)
                if number % 500 == 0:
                    await asyncio.sleep(0)
            assert document._replica._waiting_bytes <= 1 << 20
            line.up = None
            await document.wait_saved()
    async with connect(served.hocuspocus, "d") as other:
        assert len(other.doc.get("numbers", type=Array)) == 2_000


@pytest.mark.slow
async def test_a_large_document_on_a_slow_line_never_shows_a_part(serve: Serve, dial: Dial) -> None:
    served = await serve()
    port = port_of(served)
    async with connect(served.hocuspocus, "d", close_timeout=60) as writer:
        with writer.doc.transaction():
            numbers = writer.doc.get("numbers", type=Array)
            for number in range(2_000):
                numbers.append(str(number) + "x" * 1_500)
        await writer.wait_saved()
    with SlowLine(port, down=500_000) as line:
        async with dial(f"ws://127.0.0.1:{line.port}") as connection:
            document = await connection.open("d", wait=False)
            seen: set[int] = set()
            document.doc.observe(lambda event: seen.add(1))
            await document.wait_synced()
            assert len(document.doc.get("numbers", type=Array)) == 2_000
            assert len(seen) <= 1


async def test_an_address_that_is_none_is_final_and_a_server_that_is_away_is_not(serve: Serve, dial: Dial) -> None:
    served = await serve()
    with pytest.raises(ConnectionRefused) as caught:
        async with connect(f"{served.url}/nothing", "d"):
            pass
    assert caught.value.code == 404
    with pytest.raises(NotSynced):
        async with connect("ws://127.0.0.1:9", "d", timeout=0.2):
            pass


@pytest.mark.parametrize("code", [4401, 4403])
async def test_a_socket_that_is_closed_for_good_is_not_opened_again(code: int, aiohttp_server: Any, dial: Dial) -> None:
    opened = 0

    async def answer(request: web.Request) -> web.WebSocketResponse:
        nonlocal opened
        opened += 1
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.close(code=code if opened > 2 else 1012, message=b"go away")
        return ws

    app = web.Application()
    app.router.add_get("/hocuspocus", answer)
    server = await aiohttp_server(app)
    async with dial(f"ws://127.0.0.1:{server.port}") as connection:
        with pytest.raises(ConnectionRefused) as caught:
            await connection.open("d")
        assert (caught.value.code, caught.value.reason, opened) == (code, "go away", 3)


async def test_closing_one_document_leaves_the_socket_to_the_others(
    serve: Serve, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[bytes] = []
    receive = ClientSocket.receive

    def noting(socket: ClientSocket, frame: bytes) -> Any:
        try:
            return receive(socket, frame)
        finally:
            frames.append(frame)

    monkeypatch.setattr(ClientSocket, "receive", noting)
    served = await serve()
    async with dial(served.hocuspocus) as connection:
        one, two = await connection.open("one"), await connection.open("two")
        seen: list[Status] = []
        one.on("status", seen.append)
        await two.close()
        await happens(lambda: any(frame.endswith(CLOSED_BY_CLIENT) for frame in frames), "the server confirms it")
        again = await connection.open("two")
        assert again.synced and one.synced and seen == []


async def test_cancelling_leaves_nothing_behind(serve: Serve, dial: Dial) -> None:
    served = await serve()
    before = asyncio.all_tasks()

    async def work() -> None:
        async with dial(served.hocuspocus) as connection:
            document = await connection.open("d")
            text(document).insert(0, "x")
            await asyncio.Event().wait()

    async def wait_in_vain() -> None:
        async with connect("ws://127.0.0.1:9", "d", timeout=None):
            pass

    tasks = [asyncio.create_task(work()) for _ in range(5)] + [asyncio.create_task(wait_in_vain()) for _ in range(5)]
    await asyncio.sleep(0.3)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    await happens(
        lambda: not {task for task in asyncio.all_tasks() - before if "client" in repr(task.get_coro())}, "no task"
    )
