"""What comes on a socket, before aiohttp's parser: frames of all sizes, cut anywhere, in any order.

Strategy: bytes go in as the socket would give them, into the real parser and the real queue, and messages come out.
The protocol of the connection is only noted: whether reading is held.
"""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from aiohttp import WebSocketError, WSMsgType
from aiohttp._websocket.reader import WebSocketReader

from collab.hub.shares import MESSAGES_SECONDS, Share, Shares
from collab.limits.arrivals import Arrivals
from collab.transports.sockets.eager import _EagerQueue
from collab.transports.sockets.intake import (
    COUNTED,
    HEAD,
    LARGE,
    SLICE,
    SLICE_AHEAD,
    SMALL_FRAGMENT,
    UNREAD,
    Gate,
    Intake,
    Unread,
)
from tests.support.waiting import happens

KIB = 1024
MIB = 1024 * KIB
LARGEST = 4 * MIB
OTHER = 256 * KIB

BINARY, TEXT, CONTINUATION, CLOSE, PING, PONG = 2, 1, 0, 8, 9, 10


def frame(payload: bytes, opcode: int = BINARY, *, fin: bool = True, key: bytes | None = b"\x11\x22\x33\x44") -> bytes:
    size = len(payload)
    mask = 0x80 if key is not None else 0
    head = bytes((opcode | (0x80 if fin else 0),))
    if size < 126:
        head += bytes((mask | size,))
    elif size < 65536:
        head += bytes((mask | 126,)) + size.to_bytes(2)
    else:
        head += bytes((mask | 127,)) + size.to_bytes(8)
    if key is None:
        return head + payload
    repeated = key * (size // 4 + 1)
    masked = int.from_bytes(payload) ^ int.from_bytes(repeated[:size])
    return head + key + masked.to_bytes(size)


def in_fragments(payload: bytes, *sizes: int, opcode: int = BINARY, between: bytes = b"") -> bytes:
    """Frame a message in fragments of these sizes and one with the rest; ``between`` stands between them."""
    out, pos = bytearray(), 0
    for number, size in enumerate(sizes):
        out += frame(payload[pos : pos + size], CONTINUATION if number else opcode, fin=False) + between
        pos += size
    return bytes(out + frame(payload[pos:], CONTINUATION))


class Protocol:
    """As much of aiohttp's protocol as is asked."""

    _reading_paused = False

    def __init__(self) -> None:
        self.held = False
        self.closed = False

    def _pause_reading_for_buffer(self) -> None:
        self.held = True

    def _resume_reading_for_buffer(self) -> None:
        self.held = False

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False

    def close(self) -> None:
        self.closed = True


class Socket:
    """An intake with all that stands around it."""

    def __init__(
        self, arrivals: Arrivals | None = None, others: Arrivals | None = None, largest: int = LARGEST
    ) -> None:
        self.busy = False
        self.may: bool | None = True
        self.share: Share | None = None
        self.fragments = self.counted = 0
        self.pause = 0.0
        self.heads: list[bytes] = []
        self.protocol = Protocol()
        self.arrivals = Arrivals(64 * MIB) if arrivals is None else arrivals
        self.others = Arrivals(64 * MIB) if others is None else others
        self.queue = _EagerQueue(self.protocol, 2**16, loop=asyncio.get_running_loop())  # type: ignore[arg-type]
        self.queue.take = None
        self.parser = WebSocketReader(self.queue, largest + 1, compress=False, decode_text=True)
        self.intake = Intake(Gate(largest, OTHER, self.arrivals, self.others), self.queue, self.parser)
        self.queue.intake = self.intake
        self.intake.attach(self)

    def may_send(self, head: bytes) -> bool | None:
        self.heads.append(head)
        return self.may

    def arrived(self, fragments: int, nbytes: int) -> float:
        self.fragments += fragments
        self.counted += nbytes
        return self.pause

    def feed(self, data: bytes, step: int | None = None) -> bool:
        """Give in bytes, ``step`` at a time; return whether the parser has failed."""
        failed = False
        for begin in range(0, len(data), step or max(1, len(data))):
            failed |= self.intake.feed_data(data[begin : begin + (step or len(data))])[0]
        return failed

    async def got(self) -> list[object]:
        """Take all messages that are there."""
        found: list[object] = []
        while self.queue._buffer:
            message = await self.queue.read()
            found.append(message.data if message.type in (WSMsgType.BINARY, UNREAD) else (message.type, message.data))
            self.intake.worked_on()
        return found


def blob(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def test_messages_of_all_sizes_come_whole_and_in_order_however_they_are_cut() -> None:
    chance = random.Random(10)
    sizes = [0, 1, 125, 126, 127, 1_000, LARGE, LARGE + 1, 70_000, 200_000]
    for round in range(60):
        messages: list[object] = []
        stream = bytearray()
        for number in range(chance.randrange(2, 7)):
            payload = chance.randbytes(chance.choice(sizes))
            kind = chance.randrange(6)
            if kind == 0:
                stream += frame(payload[:100], PING)
                messages.append((WSMsgType.PING, payload[:100]))
            elif kind < 3:
                cuts = [chance.randrange(0, max(1, len(payload))) for _ in range(chance.randrange(1, 4))]
                ping = frame(b"%d" % number, PING) if kind == 1 else b""
                stream += in_fragments(payload, *cuts, between=ping)
                messages += [(WSMsgType.PING, b"%d" % number)] * (len(cuts) if ping else 0)
                messages.append(payload)
            else:
                stream += frame(payload, key=chance.choice([b"\0\0\0\0", b"\x01\xfe\x7f\x80"]))
                messages.append(payload)
        socket = Socket()
        found: list[object] = []
        pos = 0
        while pos < len(stream):
            step = chance.choice([1, 2, 3, 13, 1_000, 65_536, 300_000]) if round % 3 else 262_144
            socket.feed(bytes(stream[pos : pos + step]))
            pos += step
            if not chance.randrange(3) or socket.intake.stopped:
                found += await socket.got()
                socket.intake.try_again()
        while socket.intake.stopped or socket.queue._buffer:
            found += await socket.got()
            socket.intake.try_again()
        # Pings between the fragments of a message come before it.
        assert found == messages, f"round {round}"
        assert not socket.intake.partial and socket.intake.nbytes == len(stream)
        assert socket.arrivals.nbytes == socket.others.nbytes == 0


async def test_a_message_is_judged_by_its_beginning_before_it_is_kept() -> None:
    payload = blob(MIB)
    for step in (1, 700, HEAD, 300_000):
        socket = Socket()
        socket.feed(frame(payload)[: HEAD + 3_000], step)
        assert socket.heads == [payload[:HEAD]], "once"
        assert socket.intake.partial


@pytest.mark.parametrize("may", [True, False, None])
async def test_what_is_too_large_is_dropped_and_said_once_and_what_follows_is_read(may: bool | None) -> None:
    size = (LARGEST if may is not False else OTHER) + 1
    payload = blob(size)
    streams = [frame(payload)]
    if may is not None:  # else it waits at its second fragment at the latest
        streams.append(in_fragments(payload, size // 2))
    for large in streams:
        socket = Socket()
        socket.may = may
        stream = large + frame(b"behind") + (frame(blob(100_000, 2)) if may is not None else b"")
        found: list[object] = []
        for begin in range(0, len(stream), 65_536):
            socket.feed(stream[begin : begin + 65_536])
            if not found and socket.queue._buffer:
                found += await socket.got()
                assert begin < len(large) // 2 + 65_536 * 2, "as soon as it is known"
                assert socket.arrivals.nbytes == socket.others.nbytes == 0, "nothing of it is kept"
        while socket.queue._buffer:
            found += await socket.got()
            socket.intake.try_again()
        assert found[0] == Unread(payload[:HEAD], size)
        assert found[1] == b"behind"
        assert may is None or found[2] == blob(100_000, 2)


async def test_what_is_large_waits_while_its_right_is_being_decided() -> None:
    socket = Socket()
    socket.may = None
    payload = blob(2 * MIB)
    stream = frame(b"before") + frame(payload) + frame(b"behind")
    socket.feed(stream[:300_000])
    assert await socket.got() == [b"before"]
    socket.intake.try_again()
    assert socket.protocol.held and socket.intake.held
    socket.intake.feed_data(stream[300_000:400_000])  # what was on its way
    socket.intake.go_on()
    await asyncio.sleep(0)
    assert socket.intake.held, "still not decided"
    socket.may = True
    begun = socket.intake.begun
    socket.intake.go_on()
    await asyncio.sleep(0)
    assert not socket.protocol.held and socket.intake.begun > begun, "its time begins anew"
    socket.feed(stream[400_000:], 262_144)
    assert await socket.got() == [payload, b"behind"]


async def test_what_is_large_waits_for_the_message_before_it() -> None:
    socket = Socket()
    socket.busy = True
    payload = blob(100_000)
    socket.feed(frame(payload))
    assert socket.intake.held and await socket.got() == []
    socket.busy = False
    socket.intake.try_again()
    assert await socket.got() == [payload]


async def test_a_large_text_is_not_kept() -> None:
    socket = Socket()
    socket.feed(frame(blob(200_000), TEXT)[:100_000])
    assert await socket.got() == [(WSMsgType.TEXT, "")]
    socket.feed(frame(blob(200_000), TEXT)[100_000:] + frame(b"x"))
    assert await socket.got() == [b"x"]
    socket.feed(in_fragments(b"abcdef", 3, opcode=TEXT))
    assert await socket.got() == [(WSMsgType.TEXT, "")]


@pytest.mark.parametrize(
    "stream",
    [
        frame(b"x" * 10, CONTINUATION),
        frame(b"x" * 10, CONTINUATION, fin=False),
        in_fragments(b"x" * 10, 5)[:11] + frame(b"y"),
        frame(b"x" * 10, fin=False) + frame(b"x" * 70_000),
        frame(b"x" * 10, 3),
        frame(b"x" * 10, 3, fin=False),
        frame(b"x", PING, fin=False),
        frame(b"x" * 126, PING),
        bytes((0xC2, 0x81)) + bytes(5),
        bytes((0x82, 0xFF)) + (1 << 62).to_bytes(8) + bytes(4),
        bytes((0x82, 0xFF)) + (1 << 41).to_bytes(8) + bytes(4),
        *(frame(b"x" * size, key=None) for size in (0, 3, 10, 126, 131, 300, 70_000)),
        frame(b"x" * 10, fin=False, key=None),
        frame(b"x" * 10, fin=False) + frame(b"x" * 10, CONTINUATION, key=None),
        frame(b"x", PING, key=None),
        frame(b"\x03\xe8", CLOSE, key=None),
    ],
)
async def test_what_is_no_websocket_fails_behind_what_came_before(stream: bytes) -> None:
    for step in (None, 1):
        socket = Socket()
        assert not socket.feed(frame(b"before"), step)
        failed = socket.feed(stream, step)
        assert (await socket.queue.read()).data == b"before"
        socket.intake.try_again()
        assert failed or socket.protocol.closed
        with pytest.raises(WebSocketError):
            await socket.queue.read()


async def test_all_together_have_a_bound_and_the_first_always_goes_on() -> None:
    arrivals = Arrivals(300_000)
    sockets = [Socket(arrivals) for _ in range(4)]
    streams = [frame(blob(250_000, seed)) for seed in range(4)]
    for socket, stream in zip(sockets, streams, strict=True):
        for begin in range(0, 200_000, 50_000):
            socket.feed(stream[begin : begin + 50_000])
    assert arrivals.nbytes <= 300_000
    assert [socket.intake.held for socket in sockets] == [False, True, True, True]
    assert sockets[0].intake.crowded and arrivals.short
    for socket, stream in zip(sockets, streams, strict=True):
        socket.feed(stream[200_000:])
        assert await socket.got() == [blob(250_000, sockets.index(socket))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert arrivals.nbytes == 0 and not arrivals.short


async def test_one_that_ends_makes_room() -> None:
    arrivals = Arrivals(100_000)
    one, two = Socket(arrivals), Socket(arrivals)
    one.feed(frame(blob(200_000))[:90_000])
    two.feed(frame(blob(80_000, 2)))
    assert two.intake.held and not one.intake.held
    one.intake.release()
    await asyncio.sleep(0)
    assert await two.got() == [blob(80_000, 2)]
    one.feed(frame(blob(200_000))[90_000:])  # nobody reads it
    assert arrivals.nbytes == 0


async def test_what_may_not_write_has_a_bound_of_its_own() -> None:
    arrivals, others = Arrivals(300_000), Arrivals(100_000)
    one, two, writer = (Socket(arrivals, others) for _ in range(3))
    one.may = two.may = False
    one.feed(frame(blob(200_000))[:90_000])
    two.feed(frame(blob(200_000))[:90_000])
    writer.feed(frame(blob(250_000)))
    assert two.intake.held and await writer.got() == [blob(250_000)]
    # A message that is found to be an edit is counted with the others of its kind.
    fragments = Socket(arrivals, others)
    fragments.may = False
    one.intake.release()
    two.intake.release()
    fragments.feed(in_fragments(blob(90_000), 50_000)[:50_008])
    assert (arrivals.nbytes, others.nbytes > 40_000) == (0, True)
    fragments.may = True
    fragments.feed(in_fragments(blob(90_000), 50_000)[50_008:])
    assert others.nbytes == 0
    assert await fragments.got() == [blob(90_000)]


@pytest.mark.parametrize(
    "flood",
    [
        frame(b"", CONTINUATION, fin=False),
        frame(b"x", CONTINUATION, fin=False),
        frame(b"", CONTINUATION, fin=False) + frame(b"", PING),
        frame(b"x" * (SMALL_FRAGMENT - 1), CONTINUATION, fin=False),
    ],
    ids=["empty", "one byte", "pings between", "nearly enough"],
)
async def test_of_fragments_that_never_end_few_are_taken_in_a_turn_and_each_is_counted(flood: bytes) -> None:
    socket = Socket()
    per_unit = flood.count(frame(b"", PING)) + 1
    units = 10 * SLICE
    socket.feed(frame(b"x", fin=False) + flood * units)
    assert 0 < socket.fragments <= SLICE and socket.protocol.held and socket.intake.stopped
    turns = 0
    while socket.intake.stopped:
        before = socket.fragments
        await socket.got()
        socket.intake.try_again()
        await asyncio.sleep(0)
        turns += 1
        assert socket.fragments <= before + 2 * SLICE
    assert socket.fragments == units + 1, "the first one is one too"
    assert turns >= per_unit * units / SLICE / 3
    assert not socket.protocol.held


async def test_a_client_that_sends_much_is_read_on_when_its_time_has_come() -> None:
    socket = Socket()
    socket.pause = 0.05
    payload = blob(300_000)
    stream = frame(payload) + frame(b"behind")
    socket.feed(stream[:100_000])
    taken = socket.counted
    assert 0 < taken < 100_000 and socket.protocol.held
    assert not socket.intake.held, "it waits for nothing of ours"
    socket.feed(stream[100_000:])  # what was on its way
    socket.intake.try_again()
    assert socket.counted == taken, "the pump does not end the time"
    socket.pause = 0.0
    await happens(lambda: not socket.protocol.held, "the end of the pause")
    assert socket.counted == len(payload)
    assert await socket.got() == [payload, b"behind"]


async def test_one_that_ends_while_it_is_slowed_leaves_no_timer() -> None:
    socket = Socket()
    socket.pause = 3_600.0
    socket.feed(frame(blob(100_000))[:-1])
    state = socket.intake.state
    assert state is not None and state.timer is not None
    timer = state.timer
    socket.intake.release()
    assert timer.cancelled()


async def test_bytes_are_counted_once() -> None:
    socket = Socket()
    payload = blob(200_000)
    for stream in (frame(payload), in_fragments(payload, 100_000)):
        socket.feed(stream)
        message = await socket.queue.read()
        assert message.extra is COUNTED
    assert (socket.counted, socket.fragments) == (2 * len(payload), 0), "large fragments count by their bytes alone"
    socket.feed(frame(b"small"))
    assert (await socket.queue.read()).extra is not COUNTED
    assert socket.counted == 2 * len(payload)


async def test_small_messages_are_not_parsed_faster_than_they_are_worked_on() -> None:
    socket = Socket()
    stream = frame(b"\x03") * 10_000
    socket.feed(stream)
    assert len(socket.queue._buffer) <= SLICE
    found = 0
    while socket.queue._buffer or socket.intake.stopped:
        found += len(await socket.got())
        socket.intake.try_again()
        assert len(socket.queue._buffer) <= SLICE
    assert found == 10_000


async def test_only_what_is_of_a_message_is_its_progress() -> None:
    socket = Socket()
    socket.feed(frame(blob(100_000), fin=False))
    begun, arrived = socket.intake.begun, socket.intake.arrived
    assert arrived == 100_000
    socket.feed(frame(b"x" * 100, PING) + frame(b"", CONTINUATION, fin=False) + frame(b"x" * 100, PONG))
    assert (socket.intake.begun, socket.intake.arrived) == (begun, arrived)
    await socket.got()
    socket.intake.try_again()
    socket.feed(frame(b"x" * 300, CONTINUATION, fin=False)[:-100])
    assert (socket.intake.begun, socket.intake.arrived) == (begun, arrived + 200)


def pieces(data: bytes, step: int) -> Iterable[bytes]:
    return (data[begin : begin + step] for begin in range(0, len(data), step))


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


async def test_a_large_message_is_in_memory_once(traced: None) -> None:
    socket = Socket(largest=64 * MIB)
    size = 32 * MIB
    head = bytes((0x82, 0xFF)) + size.to_bytes(8) + bytes(4)
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    socket.feed(head)
    zeros = bytes(256 * KIB)
    for _ in range(size // len(zeros)):
        socket.feed(zeros)
    [message] = await socket.got()
    assert message == bytes(size)
    assert tracemalloc.get_traced_memory()[1] - before < 2.2 * size + 2 * MIB  # the comparison above is one more


async def test_the_bytes_that_came_are_counted_to_the_last_one() -> None:
    socket = Socket()
    stream = frame(blob(500_000))
    socket.feed(stream[:-1], 10_000)
    assert socket.intake.nbytes == len(stream) - 1 and socket.intake.partial
    socket.feed(stream[-1:])
    assert socket.intake.nbytes == len(stream) and not socket.intake.partial
    begun = socket.intake.begun
    for piece in pieces(frame(b"x" * 300), 100):
        socket.feed(piece)
        assert socket.intake.begun == begun + 1, "one frame, in pieces"


async def test_a_client_whose_tenant_is_ahead_is_read_a_few_messages_in_each_turn_of_the_loop() -> None:
    socket, shares = Socket(), Shares()
    share = socket.share = shares.share()
    shares._next_look = 1e9  # nobody looks again who is ahead
    share.ahead = True
    share.charge(2 * MESSAGES_SECONDS, 1.0)
    messages = [b"%d" % number for number in range(3 * SLICE_AHEAD)]
    taken: list[object] = []

    def take(message: Any) -> bool:
        taken.append(message.data)
        share.charge(1.1 * MESSAGES_SECONDS / SLICE_AHEAD, 1.0)
        return True

    socket.queue.take = take
    socket.feed(b"".join(map(frame, messages[:5])))
    assert not taken and socket.protocol.held and socket.intake.stopped
    socket.feed(b"".join(map(frame, messages[5:])))  # it was on its way already
    assert not taken
    read: list[int] = []
    while socket.intake.stopped:
        await asyncio.sleep(0)
        read.append(len(taken))
    assert max(after - before for before, after in zip([0, *read], read, strict=False)) == SLICE_AHEAD
    assert taken == messages and not socket.protocol.held
    # What still waits when the socket ends is not called any more.
    share.charge(2 * MESSAGES_SECONDS, 1.0)
    socket.feed(frame(b"late"))
    assert share.waiting == 1
    socket.intake.release()
    await happens(lambda: not share.waiting, "its place is given up")
    assert taken == messages
