"""Presence as a weapon: nobody is shut out by it, and no message of any size holds the others up.

Strategy: a server with tokens, a writer, a watcher who sees what everybody is sent, and a reader who is the attacker.
How much work one message is, is counted in tests/engine/test_awareness.py and tests/engine/test_answers.py; here the
same messages come over sockets of both protocols, and what the others see of them is looked at.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

import jwt
import psutil
import pytest
import pytest_asyncio

from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.server import ServerProcess
from tests.support.wsclient import (
    AWARENESS,
    EMPTY_UPDATE,
    STEP1,
    SYNC,
    UPDATE,
    RawClient,
    awareness,
    awareness_entries,
    parse,
    step1,
    step2,
    text_update,
    update,
    varbytes,
    varuint,
)

SECRET = "a secret of the tests, long enough for HS256"
MAX = 2**53 - 1
MINE = 4_711  # the writer's client ID


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("presence"), environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        yield server


def token(user: str, access: str = "write") -> str:
    claims = {"sub": user, "documents": {"*": access}, "exp": int(time.time()) + 3_600}
    return jwt.encode(claims, SECRET, algorithm="HS256")


class Document:
    """One document with a watcher."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.server = server
        self.name = name
        self.watcher = RawClient(self.url("watcher"))

    def url(self, user: str, access: str = "write") -> str:
        return f"{self.server.document_url(self.name)}?token={token(user, access)}"

    @contextlib.asynccontextmanager
    async def joined(self, user: str, access: str = "write") -> AsyncIterator[RawClient]:
        async with RawClient(self.url(user, access)) as client:
            await client.expect_sync(STEP1)
            await client.send(step2(EMPTY_UPDATE))
            await client.barrier()
            yield client

    async def shown(self) -> dict[int, tuple[int, str]]:
        """Give what the watcher has been told of presence, and is shown by now."""
        await self.watcher.barrier()
        return told(self.watcher)

    async def until_shown(self, client: int, state: str) -> None:
        await self.watcher.until(lambda: told(self.watcher).get(client, (0, ""))[1] == state, f"{client} as {state}")


def told(client: RawClient) -> dict[int, tuple[int, str]]:
    states: dict[int, tuple[int, str]] = {}
    for frame in map(parse, client.frames):
        if frame.type == AWARENESS:
            states |= {client: (clock, state) for client, clock, state in awareness_entries(frame.payload)}
    return states


@pytest_asyncio.fixture
async def document(guarded: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Document]:
    made = Document(guarded, request.node.name.replace("[", " ").replace("]", ""))
    async with made.watcher:
        await made.watcher.expect_sync(STEP1)
        await made.watcher.send(step2(text_update(1, "here")))
        await made.watcher.barrier()
        yield made
        assert made.watcher.open and guarded.running


# Nobody is shut out


async def test_a_reader_cannot_shut_a_writer_out_while_its_line_is_down(document: Document) -> None:
    """Issue 11: the writer was closed with 1007 on 23 reconnects, and the others saw its ID as the guest."""
    async with document.joined("writer") as writer:
        await writer.send(awareness((MINE, 7, '"writer"')))
        await document.until_shown(MINE, '"writer"')
    await document.until_shown(MINE, "null")
    async with document.joined("guest", "read") as reader:
        for clock in (8, 2**31, 2**31 + 2**21, MAX):
            await reader.send(awareness((MINE, clock, '"guest"')), awareness((MINE, clock, "null")))
        await reader.barrier()
        assert any(b"presence not shown" in frame for frame in reader.frames)
        async with document.joined("writer") as writer:
            await writer.send(awareness((MINE, 7, '"writer"')))
            # It is told the clock at which it left, and y-protocols takes the next one.
            await writer.until(lambda: told(writer).get(MINE) == (7, "null"), "what it has to go on from")
            await writer.send(awareness((MINE, 8, '"writer"')), update(text_update(99, "edited ", "beside")))
            await document.until_shown(MINE, '"writer"')
            await document.watcher.expect(
                lambda frame: frame.type == SYNC and frame.kind == UPDATE and b"edited" in frame.payload, "its edit"
            )
            await reader.send(awareness((MINE, MAX, '"guest"')), awareness((MINE, MAX, "null")))
            await reader.barrier()
            assert (await document.shown())[MINE] == (8, '"writer"')
            assert writer.open
    assert '"guest"' not in {state for frame in map(parse, document.watcher.frames) for state in _states(frame)}


def _states(frame: object) -> list[str]:
    payload = getattr(frame, "payload", b"") if getattr(frame, "type", None) == AWARENESS else b""
    return [state for _, _, state in awareness_entries(payload)] if payload else []


async def test_a_reader_cannot_over_hocuspocus_either(document: Document) -> None:
    name = document.name
    async with RawHocuspocus(document.server.hocuspocus_url) as writer:
        await writer.join(name, token("writer"))
        await writer.send(hocuspocus.awareness(name, (MINE, 7, '"writer"')))
        await document.until_shown(MINE, '"writer"')
    await document.until_shown(MINE, "null")
    async with RawHocuspocus(document.server.hocuspocus_url) as reader:
        assert await reader.join(name, token("guest", "read")) == "readonly"
        for clock in (8, MAX):
            await reader.send(hocuspocus.awareness(name, (MINE, clock, '"guest"')))
        await reader.find_type(name, hocuspocus.STATELESS)
        async with RawHocuspocus(document.server.hocuspocus_url) as writer:
            await writer.join(name, token("writer"))
            await writer.send(hocuspocus.awareness(name, (MINE, 8, '"writer"')))
            await document.until_shown(MINE, '"writer"')
            before = len(writer.got(name, hocuspocus.SYNC_STATUS))
            await writer.send(hocuspocus.update(name, text_update(99, "edited ", "beside")))
            assert set((await writer.statuses(name, before + 1))[before:]) == {1}
        assert reader.open


async def test_a_user_on_a_new_socket_does_not_wait_for_the_old_one(document: Document) -> None:
    async with document.joined("writer") as before, document.joined("writer") as after:
        await before.send(awareness((MINE, 7, '"before"')))
        await document.until_shown(MINE, '"before"')
        await after.send(awareness((MINE, 8, '"after"')))
        await document.until_shown(MINE, '"after"')
        await before.close()
        await after.barrier()
        assert (await document.shown())[MINE] == (8, '"after"')


async def test_a_user_on_a_new_socket_does_not_wait_over_hocuspocus_either(document: Document) -> None:
    """Nor does one that has moved nothing meanwhile, and claims its ID with the clock that is known."""
    name = document.name
    shows = hocuspocus.awareness(name, (MINE, 7, '"writer"'))
    async with RawHocuspocus(document.server.hocuspocus_url) as before:
        await before.join(name, token("writer"))
        await before.send(shows)
        await document.until_shown(MINE, '"writer"')
        async with RawHocuspocus(document.server.hocuspocus_url) as after:
            # As providers begin: its presence comes before anything is answered.
            await after.send(hocuspocus.auth(name, token("writer")), hocuspocus.step1(name), shows)
            asked = hocuspocus.awareness(name, (MINE, 7, "null"))
            await after.until(lambda: asked in after.frames, "it may announce itself")
            await after.send(hocuspocus.awareness(name, (MINE, 8, '"after"')))
            await document.until_shown(MINE, '"after"')
            await before.close()
            assert (await document.shown())[MINE] == (8, '"after"')
            assert not any("null" in _states(frame) for frame in map(parse, document.watcher.frames))


# No message is much work for the others


def filled(size: int, state: bytes, clock: int = 1, first: int = 1_000_000, clients: int = 1 << 30) -> bytes:
    """Make an awareness update of about ``size`` bytes; of fewer ``clients`` each comes again and again."""
    one = len(varuint(first) + varuint(clock) + varbytes(state))
    count = size // one
    tail = varuint(clock) + varbytes(state)
    if clients == 1:
        return varuint(count) + (varuint(first) + tail) * count
    return varuint(count) + b"".join(varuint(first + number % clients) + tail for number in range(count))


def vector(size: int) -> bytes:
    count = size // 5
    return varuint(count) + b"".join(varuint((1 << 21) + number) + b"\x05" for number in range(count))


KINDS: dict[str, Callable[[int], bytes]] = {
    "states": lambda size: filled(size, b"1"),
    "nulls of IDs that nobody has": lambda size: filled(size, b"null"),
    "claims of another's ID": lambda size: filled(size, b"1", 9, MINE, 1),
    "removals of another's ID": lambda size: filled(size, b"null", 9, MINE, 1),
    "states that are no JSON": lambda size: filled(size, b"[" * 60_000),
    "a count that lies": lambda size: varuint(size) + b"\x01" * size,
}
SIZES = {"2 MiB": 2 << 20, "5 MiB less a bit": (5 << 20) - 100, "15 MB": 15_000_000}


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *((kind, "2 MiB") for kind in KINDS),
        ("nulls of IDs that nobody has", "5 MiB less a bit"),
        ("claims of another's ID", "5 MiB less a bit"),
        ("claims of another's ID", "15 MB"),
    ],
)
async def test_presence_of_any_size_goes_nowhere_and_ends_nothing(document: Document, kind: str, size: str) -> None:
    payload = KINDS[kind](SIZES[size])
    name = document.name
    async with document.joined("writer") as writer, document.joined("guest", "read") as reader:
        await writer.send(awareness((MINE, 7, '"writer"')))
        await document.until_shown(MINE, '"writer"')
        before, memory = len(document.watcher.frames), psutil.Process(document.server.pid).memory_info().rss
        await reader.send(b"\x01" + varbytes(payload))
        await reader.barrier()
        async with RawHocuspocus(document.server.hocuspocus_url) as other:
            await other.join(name, token("guest", "read"))
            await other.send(hocuspocus.frame(name, hocuspocus.AWARENESS, varbytes(payload)))
            await other.barrier_of(name)
            assert other.open
        await document.watcher.barrier()
        seen = document.watcher.frames[before:]
        assert [entry for frame in map(parse, seen) for entry in _states(frame)] == []
        assert sum(map(len, seen)) < 10_000
        # Its own first pings may be: one for each owner that is claimed, not one for each claim.
        grown = psutil.Process(document.server.pid).memory_info().rss - memory
        assert grown < 6 * SIZES[size] + (32 << 20)
        assert reader.open and writer.open
        await writer.send(awareness((MINE, 8, '"still"')))
        await document.until_shown(MINE, '"still"')


@pytest.mark.parametrize("access", ["read", "write"])
@pytest.mark.parametrize("size", ["200 KB", "5 MiB less a bit"])
async def test_a_long_state_vector_is_answered_if_it_can_be_meant(document: Document, access: str, size: str) -> None:
    long = vector(200_000 if size == "200 KB" else SIZES[size])
    meant = access == "write" or size == "200 KB"
    async with document.joined("somebody", access) as client:
        if meant:
            await client.send(step1(long))
            await client.barrier()
            answers = [frame for frame in map(parse, client.frames) if frame.type == SYNC and b"here" in frame.payload]
            assert answers, "it lacks what is here, whatever else it has"
        else:
            await client.send(step1(long))
            assert await client.expect_close() == 1008
    async with RawHocuspocus(document.server.hocuspocus_url) as other:
        await other.join(document.name, token("somebody", access))
        seen = len(other.frames)
        await other.send(hocuspocus.step1(document.name, long))
        if meant:
            assert b"here" in await other.find_sync(document.name, hocuspocus.STEP2, after=seen)
        else:
            await other.denied(document.name, after=seen)
            assert other.open
