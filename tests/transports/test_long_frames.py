"""Large documents and readers that read nothing, on real sockets: no copy for each, and all of it comes later."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from pycrdt import Doc, Text

from collab.app import HUB
from collab.hub.long_frames import LONG, LongFrame
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.protocol.sync import SyncStep2, SyncUpdate
from collab.transports.sockets import deflate as module
from collab.transports.sockets.deflate import Deflater, deflate_long
from collab.transports.sockets.frames import binary_frame, payload_of
from collab.transports.sockets.hocuspocus import HocuspocusEncoder
from collab.transports.sockets.outbox import SocketOutbox
from collab.transports.sockets.ywebsocket import YWebSocketEncoder
from collab.update.parts import Parts, Span
from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.waiting import happens
from tests.support.wsclient import STEP1, STEP2, SYNC, UPDATE, LiveClient, RawClient, parse, step1, step2, update
from tests.transports.conftest import Serve, Served

Connect = Callable[[str], Awaitable[RawClient]]
ConnectHocuspocus = Callable[[str], Awaitable[RawHocuspocus]]

MIB = 1 << 20
READERS = 8


class Written:
    """A document of some MiB that a client writes, part by part, with the state after each part."""

    def __init__(self) -> None:
        self.doc: Doc[object] = Doc(client_id=7)
        self.text = self.doc.get("t", type=Text)
        self.states: list[bytes] = []
        self.updates: list[bytes] = []
        self.kept = self.doc.observe(lambda event: self.updates.append(event.update))

    def write(self, letters: str) -> bytes:
        self.text += letters
        self.states.append(self.doc.get_update())
        return self.updates[-1]


async def written(served: Served, author: RawClient, parts: int = 24) -> Written:
    document = Written()
    await author.send(step2(b"\0\0"))
    for number in range(parts):
        await author.send(update(document.write(f"{number % 10}" * (MIB // 2))))
        await author.until(lambda: size_of(served) >= len(document.states[-1]), "the edit is taken")
    return document


def live_room(served: Served) -> LiveRoom:
    return served.app[HUB].rooms["d"]


def size_of(served: Served) -> int:
    room = served.app[HUB].rooms.get("d")
    return 0 if room is None else room.room.document.size


def outboxes(served: Served) -> list[SocketOutbox]:
    found = [member.outbox for member in live_room(served).members]
    return [outbox for outbox in found if isinstance(outbox, SocketOutbox)]


def asked_by(state: bytes) -> bytes:
    doc: Doc[object] = Doc()
    doc.apply_update(state)
    return step1(doc.get_state())


async def test_a_reader_that_reads_nothing_holds_no_copy_and_gets_what_was_promised_and_what_came_since(
    serve: Serve, connect: Connect
) -> None:
    """Issue 11: 12.4 MiB for each silent reader of a document of 11 MiB."""
    served = await serve(max_document_bytes=64 * MIB, max_message_bytes=4 * MIB)
    author = await connect(served.ws("d"))
    document = await written(served, author)
    readers = [await connect(served.ws("d")) for _ in range(READERS)]
    for number, reader in enumerate(readers):
        await reader.expect_sync(STEP1)
        reader.transport.pause_reading()
        await reader.send(asked_by(document.states[number]))

    def silent() -> list[SocketOutbox]:
        return [outbox for outbox in outboxes(served) if outbox.waiting() > 2 * MIB]

    await happens(lambda: len(silent()) == READERS, "every reader was answered")
    assert sum(outbox.waiting() for outbox in silent()) > READERS * 2 * MIB
    assert max(outbox.held() for outbox in silent()) < 300_000
    assert served.app[HUB].frames_budget.nbytes < 100_000
    # Under the answers the document gets edits, deletions and a snapshot.
    for _ in range(3):
        await author.send(update(document.write("between")))
    with document.doc.transaction():
        del document.text[5 : MIB // 4]
    await author.send(update(document.updates[-1]))
    await author.barrier()
    room = live_room(served)
    await room.persistence.durable()
    await served.app[HUB]._compact(room)
    await author.send(update(document.write("after")))
    await author.barrier()
    for number, reader in enumerate(readers):
        reader.transport.resume_reading()
        answer = await reader.expect_sync(STEP2)
        client: Doc[object] = Doc()
        client.apply_update(document.states[number])
        before = str(client.get("t", type=Text))
        client.apply_update(answer)
        state = str(client.get("t", type=Text))
        assert len(state) == 12 * MIB and state.startswith(before), "the state for which it was promised"

        def text(client: Doc[object] = client, reader: RawClient = reader) -> str:
            for frame in map(parse, reader.frames):
                if frame.type == SYNC and frame.kind in (STEP2, UPDATE):
                    client.apply_update(frame.payload)
            return str(client.get("t", type=Text))

        await reader.until(lambda text=text: text() == str(document.text), "what has come since")
        assert reader.close_code is None
    await happens(lambda: not any(outbox.has_portions for outbox in outboxes(served)), "all is sent")


async def test_over_hocuspocus_with_two_documents_on_a_socket(
    serve: Serve, connect: Connect, connect_hocuspocus: ConnectHocuspocus
) -> None:
    served = await serve(max_document_bytes=64 * MIB, max_message_bytes=4 * MIB)
    document = await written(served, await connect(served.ws("d")))
    reader = await connect_hocuspocus(served.hocuspocus)
    for name in ("d", "beside"):
        await reader.join(name)
    reader.transport.pause_reading()
    for state in (document.states[0], document.states[1]):
        known: Doc[object] = Doc()
        known.apply_update(state)
        await reader.send(hocuspocus.step1("d", known.get_state()))
    await happens(lambda: outboxes(served)[-1].waiting() > 2 * MIB, "the answers")
    assert outboxes(served)[-1].held() < 300_000
    await reader.send(hocuspocus.step1("beside"))
    reader.transport.resume_reading()
    await reader.until(lambda: reader.got("beside", hocuspocus.SYNC), "the other document")
    await reader.until(
        lambda: any(len(frame) > 2 * MIB for frame in reader.frames), "an answer that was put together as it left"
    )
    client = LiveClient("")
    client.doc.apply_update(document.states[0])
    for frame in reader.frames:
        if len(frame) > 2 * MIB:
            client.doc.apply_update(hocuspocus.parse(frame).fields[-1])
    assert str(client.doc.get("t", type=Text)) == str(document.text)


@pytest.mark.parametrize("encoder", [YWebSocketEncoder(), HocuspocusEncoder(b"\x03doc")])
@pytest.mark.parametrize("kind", [SyncStep2, SyncUpdate])
@pytest.mark.parametrize("size", [0, 1, 100, 125, 126, 127, 128, 20_000, 65_520, 65_536, 3 * MIB])
def test_what_stands_before_a_long_update_is_what_stands_before_any(
    encoder: YWebSocketEncoder | HocuspocusEncoder, kind: type[SyncStep2] | type[SyncUpdate], size: int
) -> None:
    data = bytes(size)
    assert encoder.encode_head(kind, size) + data == encoder.encode(kind(data))


async def test_what_is_shorter_is_written_as_before(serve: Serve, connect: Connect) -> None:
    served = await serve()
    author = await connect(served.ws("d"))
    document = Written()
    await author.send(step2(b"\0\0"), update(document.write("x" * (LONG - 1_000))))
    await author.barrier()
    live = live_room(served)
    member = next(iter(live.members))
    assert isinstance(member, Member)
    assert isinstance(live.frame_since(member.encoder, b"\0", asks=True), bytes)
    await author.send(update(document.write("y" * 2_000)))
    await author.barrier()
    frame = live.frame_since(member.encoder, b"\0", asks=True)
    assert isinstance(frame, LongFrame) and live.frame_since(member.encoder, b"\0", asks=True) is frame
    few = live.frame_since(member.encoder, live.room.document.encode_state_vector(), asks=True)
    assert isinstance(few, bytes)


# Compressed


def framed(payload: bytes, head: int = 3) -> LongFrame:
    whole = binary_frame(payload)
    at = len(whole) - len(payload) + head
    return LongFrame(whole[:at], Parts((Span(payload, head, len(payload)),)))


def inflated(frame: LongFrame) -> bytes:
    data = bytes(payload_of(frame.head + frame.parts.join()))
    return zlib.decompressobj(-15).decompress(data + b"\0\0\xff\xff")


def test_a_long_frame_is_compressed_without_being_put_together() -> None:
    payload = b"lorem ipsum " * 100_000
    made = deflate_long(framed(payload))
    assert made.head[0] == 0xC2 and inflated(made) == payload and len(made) < len(payload) / 10
    noise = b"".join(zlib.crc32(b"%d" % n).to_bytes(4) for n in range(100_000))
    frame = framed(noise)
    assert deflate_long(frame) is frame, "what grows no smaller is sent as it is"


async def test_so_many_compressed_frames_are_in_memory_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONG_BYTES", 300_000)
    deflater = Deflater()
    frames = [framed(random.Random(number).randbytes(50_000).hex().encode()) for number in range(20)]
    first = deflater.compress_long(frames[0])
    second = deflater.compress_long(frames[1])
    assert first is not None and second is not None and deflater.compress_long(frames[0]) is first
    assert deflater.compress_long(frames[2]) is None, "what is being compressed counts as it was"
    made = [await first, await second]
    assert [inflated(one) for one in made] == [bytes(payload_of(one.head + one.parts.join())) for one in frames[:2]]
    await asyncio.sleep(0)
    for frame in frames[2:]:
        future = deflater.compress_long(frame)
        if future is not None:
            made.append(await future)
            await asyncio.sleep(0)
    assert len(made) == 4 and sum(map(len, made)) < 300_000
    refused = frames[-1]
    deflater.forget()
    assert deflater.compress_long(refused) is None, "those who read slowly have them still"
    del made, first, second, future
    await happens(lambda: not deflater._alive, "they are gone")
    assert deflater.compress_long(refused) is not None
    deflater.close()


@pytest.mark.parametrize("most", [64 * MIB, 0])
async def test_those_who_agree_are_sent_it_compressed_or_as_it_is(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(module, "_LONG_BYTES", most)
    served = await serve(compression="large", max_document_bytes=64 * MIB, max_message_bytes=4 * MIB)
    document = await written(served, await connect(served.ws("d")), 6)
    async with aiohttp.ClientSession() as session:
        sockets = [await session.ws_connect(served.ws("d"), compress=15, max_msg_size=0) for _ in range(2)]
        for socket, state in zip(sockets, (b"\0\0", document.states[1]), strict=True):
            await socket.send_bytes(asked_by(state))
        for socket, state in zip(sockets, (b"\0\0", document.states[1]), strict=True):
            client = LiveClient("")
            client.doc.apply_update(state)
            while len(str(client.doc.get("t", type=Text))) < len(str(document.text)):
                frame = await asyncio.wait_for(socket.receive_bytes(), 20)
                if frame[0] == SYNC and parse(frame).kind in (STEP2, UPDATE):
                    client.doc.apply_update(parse(frame).payload)
            assert str(client.doc.get("t", type=Text)) == str(document.text)
            await socket.close()
