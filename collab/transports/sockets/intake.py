"""What comes on a socket, before aiohttp's parser: counts it, and puts large messages together.

Strategy: small frames, which are nearly all, are passed on as they come. Of a message above ``LARGE`` bytes the parser
would keep the pieces, their concatenation, and an unmasked copy at the same time, and would take the bytes of anybody
up to the largest message of all. So such a message is put together here, unmasked piece by piece into one buffer which
becomes the message without a copy. Its beginning says what it is for: the connection decides by that whether its
client may send so much. What may not come is read and dropped, for a client cannot take back what it has begun to
send; the connection hears of it at once and says so.

A message that was put together here takes its place in the order of the others by a frame of our own that the parser
is given instead; ``claim`` gives the message for it.

The pump counts messages when they are whole. A message may never become whole, so its bytes and its small fragments are
counted here, as they come, and its sender is read more slowly where it sends too much. Whatever comes, only ``SLICE``
frames are taken in one turn of the loop.

The bytes that came are life and progress: whoever looks whether a client lives asks ``nbytes``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from io import BytesIO
from typing import Any, NamedTuple, Protocol

from aiohttp import WebSocketError, WSCloseCode, WSMessage, WSMsgType
from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.models import WSMessageTextBytes
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader

from collab.hub.shares import Place, Share
from collab.limits.arrivals import Arrivals
from collab.transports.sockets.parking import Parking

LARGE = 64 * 1024 - 1
"""Bytes of a message from which on it is put together here: what a frame of the short form can hold."""

HEAD = 1_100
"""Bytes of a message by which its client's right to send it is decided: the longest address of Hocuspocus is 1,024."""

SLICE = 64
"""Frames that are taken in one go: 0.2 ms. What is read from a socket at once can hold 43,000."""

SLICE_AHEAD = 4
"""The same of a client whose tenant is ahead of the others: about half of what it gets in a turn of the loop."""

SMALL_FRAGMENT = 1024
"""Bytes below which a fragment counts as much as a message: handling it costs more than its bytes are counted for."""

COUNTED = "counted"
"""The ``extra`` of a message whose bytes were counted while they came."""

UNREAD = WSMsgType.CONTINUATION
"""The type of the message that an ``Unread`` stands in; none of the parser's has it."""

# No client's memory holds so much: a frame that announces more is noise, and is not read to its end.
_ABSURD = 1 << 40

# What stands in the parser's stream for a message that was put together here. No client can guess it.
_MARK = secrets.token_bytes(16)
_MARK_FRAME = bytes((0x82, len(_MARK))) + _MARK

_CONTINUATION, _TEXT, _BINARY, _CONTROL = 0, 1, 2, 8

# How the frame of a text or of a binary message begins that has no other frame.
_WHOLE = (0x82, 0x81)

_DONE = (False, b"")
_FAILED = (True, b"")


class Gate(NamedTuple):
    """What all intakes of a node share; sizes in bytes.

    Attributes:
        largest: how large a message may be of a client that may write the document that it is for.
        other: how large all other messages may be; no more than ``largest``.
        arrivals: what messages of clients that may write have in memory before they are whole, of all sockets together.
        others: the same of all other messages.
        parking: where sockets wait whose tenants are ahead of the others; None where none does.
    """

    largest: int
    other: int
    arrivals: Arrivals
    others: Arrivals
    parking: Parking | None = None

    @property
    def arriving(self) -> int:
        """Bytes in memory of large messages, of all clients."""
        return self.arrivals.nbytes + self.others.nbytes


class Unread(NamedTuple):
    """Stands in the place of a message that was not taken: it is larger than its client may send.

    Attributes:
        head: how it begins.
        size: how many bytes of it are known to come.
    """

    head: bytes
    size: int


class Judge(Protocol):
    """What an intake asks its connection."""

    @property
    def busy(self) -> bool:
        """Whether the connection works on another message, so that none that is large is taken now."""
        ...

    @property
    def share(self) -> Share | None:
        """What its client's tenant has of the loop's time; None where nobody counts that."""
        ...

    def may_send(self, head: bytes) -> bool | None:
        """Tell whether a large message that begins like this may come; None while this is being decided."""
        ...

    def arrived(self, fragments: int, nbytes: int) -> float:
        """Count small fragments and bytes of a message that is put together; return the seconds to read no more."""
        ...


class _Message:
    """A message that is being put together."""

    __slots__ = ("arrivals", "buffer", "fin", "head", "judged", "left", "mask", "opcode", "size", "skipping", "turn")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.buffer = BytesIO()
        self.head = b""
        self.size = 0  # announced so far
        self.judged = False  # since the last header
        self.skipping = False
        self.arrivals: Arrivals | None = None
        # Of the frame that is coming:
        self.fin = False
        self.left = 0
        self.mask = b""
        self.turn = 0  # how many bytes the key is turned by


class _State:
    """What an intake has to remember, while it has to: most sockets have nothing on its way most of the time."""

    __slots__ = ("head", "held", "left", "message", "ready", "slowed", "stash", "timer")

    def __init__(self) -> None:
        self.left = 0  # bytes of a small frame that are still to come
        self.head = b""  # a part of a frame's header
        self.message: _Message | None = None
        self.ready: deque[WSMessage] | None = None  # put together, and their marks are with the parser
        self.held = False  # a message has to wait for something of ours
        self.slowed = False  # the client has sent much
        # Ends that; without one the pump does, when its queue is empty.
        self.timer: asyncio.Handle | Place | None = None
        self.stash = b""  # what waits behind a message that has to wait, and its own bytes first

    @property
    def empty(self) -> bool:
        return not (self.left or self.head or self.message or self.ready or self.held or self.slowed)


class Intake:
    """Stands between aiohttp's connection and its parser, and looks like the parser to it.

    Args:
        gate: what may come.
        queue: where messages go; knows aiohttp's protocol, whose socket is held when a message has to wait.
        parser: reads what is small.

    Attributes:
        nbytes: how much has come so far.
        begun: how many messages have come in more than one piece, or were large; a new number is a new message.
        state: what there is to remember; None, and so quickly asked for, while there is nothing.
    """

    __slots__ = ("_fd", "_gate", "_judge", "_parked", "_parser", "_queue", "begun", "nbytes", "state")

    def __init__(self, gate: Gate, queue: WebSocketDataQueue, parser: WebSocketReader) -> None:
        self._gate: Gate | None = gate
        self._queue = queue
        self._parser = parser
        self._judge: Judge | None = None
        self._fd: int | None = None  # of the socket; -1 if it cannot be parked, None while nobody has asked
        self._parked = False
        self.state: _State | None = None
        self.nbytes = 0
        self.begun = 0

    def attach(self, judge: Judge) -> None:
        """From now on ask ``judge``; large messages have waited for it."""
        self._judge = judge

    def release(self) -> None:
        """Let go of everything: the socket has ended."""
        if self._gate is not None:
            self._gate.arrivals.remove(self)
            self._gate.others.remove(self)
            self._leave_parking(self._gate)
        if self.state is not None and self.state.timer is not None:
            self.state.timer.cancel()
        self._gate = self._judge = self.state = None

    @property
    def held(self) -> bool:
        """Whether reading waits for something of ours."""
        return self.state is not None and self.state.held

    @property
    def stopped(self) -> bool:
        """Whether nothing is read: for something of ours, or because the client has sent much."""
        return self.state is not None and (self.state.held or self.state.slowed)

    @property
    def claims(self) -> bool:
        """Whether one of the parser's next messages stands for one that was put together here."""
        return self.state is not None and self.state.ready is not None

    @property
    def partial(self) -> bool:
        """Whether a frame or a message is not whole yet."""
        state = self.state
        return state is not None and (state.left > 0 or bool(state.head) or state.message is not None)

    @property
    def arrived(self) -> int:
        """How many bytes have come of the message that is not whole; of a small one, all that has come so far.

        What comes between its fragments is not of it.
        """
        message = None if self.state is None else self.state.message
        return self.nbytes if message is None else message.size - message.left

    @property
    def crowded(self) -> bool:
        """Whether others wait for the room that a message here takes."""
        message = None if self.state is None else self.state.message
        return message is not None and message.arrivals is not None and message.arrivals.short

    # As aiohttp's parser

    def feed_eof(self) -> None:
        """Note that nothing more comes."""
        self._parser.feed_eof()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what came, as the parser does."""
        size = len(data)
        self.nbytes += size
        if (judge := self._judge) is not None and (share := judge.share) is not None and share.ahead:
            return self._take_behind(share, data)
        state = self.state
        if state is None:
            # The usual: one small frame that is whole and masked, of the short form or of the next.
            if size > 5 and data[0] & 0x80:
                length = data[1]
                if length == size + 122:
                    if size < 132:
                        return self._parser.feed_data(data)
                elif length == 254 and size == (data[2] << 8) + data[3] + 8:
                    gate = self._gate
                    if gate is None or size <= gate.other:
                        return self._parser.feed_data(data)
        elif size < state.left:
            state.left -= size
            return self._parser.feed_data(data)
        return self._take(data)

    def claim(self, message: WSMessage | WSMessageTextBytes) -> WSMessage | None:
        """Return what a message of the parser stands for, if it is a mark of ours."""
        state = self.state
        if state is None or not state.ready or message.type is not WSMsgType.BINARY or message.data != _MARK:
            return None
        claimed = state.ready.popleft()
        if not state.ready:
            state.ready = None
        return claimed

    # Waiting

    def go_on(self) -> None:
        """Try again, in the next turn of the loop, to take what had to wait."""
        if self.held:
            asyncio.get_running_loop().call_soon(self.try_again)

    def try_again(self) -> None:
        """Try again to take what had to wait; nothing is done before the time of one that was slowed is over."""
        state = self.state
        if state is None or state.timer is not None or not (state.held or state.slowed):
            return
        held = state.held
        state.held = state.slowed = False
        stash, state.stash = state.stash, b""
        protocol: Any = self._queue._protocol
        failed, _ = self._take(stash)
        if failed:
            protocol.close()
        elif not self.held:
            if held:
                self.begun += 1  # nobody else's waiting counts against the client
            if not self.stopped and not self._park():
                protocol._resume_reading_for_buffer()

    def worked_on(self) -> None:
        """Note that the last message was worked on: its bytes are free."""
        gate = self._gate
        if gate is not None and (gate.arrivals.nbytes or gate.others.nbytes):
            gate.arrivals.remove(self)
            gate.others.remove(self)

    def _hold(self, state: _State, rest: bytes) -> None:
        state.held = True
        self._stop(state, rest)

    def _slow(self, state: _State, rest: bytes, pause: float) -> None:
        """Take no more for ``pause`` seconds; with 0 for a turn of the loop, or while messages wait for the pump."""
        state.slowed = True
        if pause:
            state.timer = asyncio.get_running_loop().call_later(pause, self._time_is_over)
        elif not self._queue._buffer:
            state.timer = asyncio.get_running_loop().call_soon(self._time_is_over)
        self._stop(state, rest)

    def _take_behind(self, share: Share, data: bytes) -> tuple[bool, bytes]:
        """Take what came of a client whose tenant is ahead, and read on when it is its turn again."""
        if self._parked and self._gate is not None:  # it was on its way to us when reading was stopped
            self._leave_parking(self._gate)
        if share.waits:
            return self._wait(share, data)
        taken = self._take(data)
        if not taken[0] and not self.stopped:
            self._park()
        return taken

    def _wait(self, share: Share, data: bytes) -> tuple[bool, bytes]:
        """Take nothing before the turn of the client's tenant."""
        state = self.state
        if self._gate is None:
            return _DONE  # the socket has ended
        if state is None:
            state = self.state = _State()
        if state.held or state.slowed:
            self._stop(state, state.stash + data)
        else:
            self._wait_in_row(state, share, data)
        return _DONE

    def _wait_in_row(self, state: _State, share: Share, rest: bytes) -> None:
        state.slowed = True
        state.timer = share.wait(self._time_is_over)
        self._stop(state, rest)

    def _park(self) -> bool:
        """Read nothing more before it is the socket's turn, if its tenant is ahead; False if nothing was done."""
        gate, judge = self._gate, self._judge
        if gate is None or gate.parking is None or judge is None:
            return False
        share = judge.share
        if share is None or not share.ahead:
            return False
        protocol: Any = self._queue._protocol
        if self._fd is None:
            self._fd = _descriptor(protocol.transport)
        if self._fd < 0 or not gate.parking.park(self._fd, self._read_on):
            return False
        self._parked = True
        protocol._pause_reading_for_buffer()
        return True

    def _read_on(self) -> None:
        self._parked = False
        protocol: Any = self._queue._protocol
        protocol._resume_reading_for_buffer()

    def _leave_parking(self, gate: Gate) -> None:
        if self._parked and gate.parking is not None and self._fd is not None:
            gate.parking.leave(self._fd, self._read_on)
        self._parked = False

    def _stop(self, state: _State, rest: bytes) -> None:
        state.stash = rest
        protocol: Any = self._queue._protocol
        protocol._pause_reading_for_buffer()

    def _time_is_over(self) -> None:
        if self.state is not None:
            self.state.timer = None
            self.try_again()

    def _count(self, fragments: int, nbytes: int) -> float:
        return 0.0 if self._judge is None else self._judge.arrived(fragments, nbytes)

    # Frames

    def _take(self, data: bytes) -> tuple[bool, bytes]:
        gate, state = self._gate, self.state
        if gate is None:
            return _DONE  # the socket has ended
        if state is None:
            state = self.state = _State()
        if state.held or state.slowed:
            self._stop(state, state.stash + data)  # it was on its way to us when reading was stopped
            return _DONE
        if state.head:
            data, state.head = state.head + data, b""
        try:
            done, failed = self._walk(gate, state, data)
        except WebSocketError as error:
            self._queue.set_exception(error)
            return _FAILED
        if not failed and done < len(data):
            failed = self._parser.feed_data(data[done:] if done else data)[0]
        if self.state is state and state.empty:
            self.state = None
        return _FAILED if failed else _DONE

    def _walk(self, gate: Gate, state: _State, data: bytes) -> tuple[int, bool]:
        """Go through the frames in ``data``.

        Returns:
            From where on the parser is to be given it, and whether the parser has failed.

        Raises:
            WebSocketError: a frame is wrong.
        """
        pos, end = 0, len(data)
        done = frames = 0
        share = None if self._judge is None else self._judge.share
        ahead = share is not None and share.ahead
        most = SLICE_AHEAD if ahead else SLICE
        if not state.left and state.message is None:
            # The usual, one behind the other: small frames that are whole messages, masked, and all there.
            longest = min(LARGE, gate.other)
            while frames < most and pos + 8 < end:
                size = data[pos + 1] - 128
                if size < 126:
                    behind = pos + 6 + size
                elif size == 126:
                    size = (data[pos + 2] << 8) + data[pos + 3]
                    behind = pos + 8 + size
                else:
                    break
                if data[pos] not in _WHOLE or not 0 <= size <= longest or behind > end:
                    break
                pos = behind
                frames += 1
            self.begun += frames
        while pos < end:
            message = state.message
            if state.left:
                count = min(state.left, end - pos)
                state.left -= count
                pos += count
            elif message is not None and message.left:
                taken = self._put(gate, message, data, pos)
                if not taken:
                    self._hold(state, data[pos:])
                    return end, False
                done = pos = pos + taken
                pause = self._count(0, taken)
                if not message.left and message.fin and self._finish(state, message):
                    return end, True
                if pause:
                    self._slow(state, data[pos:], pause)
                    return end, False
            elif frames == most:
                if done < pos and self._parser.feed_data(data[done:pos])[0]:
                    return end, True
                if ahead and share is not None:
                    self._wait_in_row(state, share, data[pos:])
                else:
                    self._slow(state, data[pos:], 0.0)
                return end, False
            else:
                frames += 1
                begin = pos
                try:
                    pos, small = self._read_header(gate, state, data, pos)
                except WebSocketError:
                    self._parser.feed_data(data[done:begin])
                    raise
                if small and pos > begin:
                    continue
                # A part of a header, or the header of a frame that the parser does not get.
                if done < begin and self._parser.feed_data(data[done:begin])[0]:
                    return end, True
                done = pos
                if pos == begin:
                    state.head = data[begin:]
                    return end, False
                message = state.message
                if message is None:
                    continue
                pause = 0.0 if message.fin or message.left >= SMALL_FRAGMENT else self._count(1, 0)
                if message.fin and not message.left and self._finish(state, message):
                    return end, True
                if pause:
                    self._slow(state, data[pos:], pause)
                    return end, False
        return done, False

    def _read_header(self, gate: Gate, state: _State, data: bytes, pos: int) -> tuple[int, bool]:
        """Read the header of a frame; return the position behind it, and whether the frame is the parser's."""
        left = len(data) - pos
        if left < 2:
            return pos, True
        first, second = data[pos], data[pos + 1]
        if not second & 0x80:
            # RFC 6455, section 5.1: a proxy between could take such bytes for something else.
            raise WebSocketError(WSCloseCode.PROTOCOL_ERROR, "an unmasked frame")
        size = second & 0x7F
        wide = 2 if size == 126 else 8 if size == 127 else 0
        behind = pos + 2 + wide + 4
        if behind > len(data):
            return pos, True
        if wide:
            size = int.from_bytes(data[pos + 2 : pos + 2 + wide])
        fin, opcode = bool(first & 0x80), first & 0x0F
        message = state.message
        if message is None:
            self.begun += 1
        if opcode >= _CONTROL or first & 0x70 or (message is None and fin and size <= min(LARGE, gate.other)):
            # Also what is wrong: the parser says so.
            if opcode < _CONTROL and message is not None:
                raise WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a new message inside of another")
            state.left = size
            return behind, True
        if size > _ABSURD:
            raise WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, f"a frame of {size} bytes")
        if (opcode == _CONTINUATION) is (message is None) or opcode > _BINARY:
            raise WebSocketError(WSCloseCode.PROTOCOL_ERROR, f"a frame of type {opcode} is out of its order")
        if message is None:
            message = state.message = _Message(opcode)
        message.fin = fin
        message.left = size
        message.size += size
        message.mask = data[behind - 4 : behind]
        message.turn = 0
        message.judged = False
        return behind, False

    def _put(self, gate: Gate, message: _Message, data: bytes, pos: int) -> int:
        """Take what ``data`` holds of a message's frame from ``pos`` on; return how much, 0 if it has to wait."""
        count = min(message.left, len(data) - pos)
        if not message.skipping:
            part = _unmasked(data[pos : pos + count], message)
            if not message.judged:
                head = message.head + part[: HEAD - len(message.head)]
                if len(head) >= min(HEAD, message.size) and not self._decide(gate, message, head):
                    return 0
                message.head = head
            if not message.skipping:
                # What is too little to be judged is too little to count.
                if message.arrivals is not None and not message.arrivals.add(self, count):
                    return 0
                message.buffer.write(part)
        message.left -= count
        message.turn += count
        return count

    def _decide(self, gate: Gate, message: _Message, head: bytes) -> bool:
        """Decide whether a message is taken on; False if it has to wait."""
        judge = self._judge
        if judge is None or judge.busy or self._queue._buffer:
            return False  # one at a time, so that what is whole does not lie about
        if message.opcode == _TEXT:
            self._skip(message, WSMessage(WSMsgType.TEXT, "", None))  # none is taken, whatever it says
            return True
        may = judge.may_send(head)
        size = message.size
        if size > (gate.other if may is False else gate.largest):
            self._skip(message, WSMessage(UNREAD, Unread(bytes(head), size), None))
            return True
        if may is None and size > gate.other:
            return False
        arrivals = gate.arrivals if may else gate.others
        before = message.arrivals
        if before is None or (before is gate.others and may):
            counted = message.buffer.tell()
            if counted and not arrivals.add(self, counted):
                return False
            if before is not None:
                before.remove(self)
            message.arrivals = arrivals
        message.judged = True
        return True

    def _skip(self, message: _Message, instead: WSMessage) -> None:
        """Take no more of a message, and give ``instead`` in its place."""
        message.skipping = True
        message.buffer = BytesIO()
        self.worked_on()
        self._give(instead)

    def _finish(self, state: _State, message: _Message) -> bool:
        """Give a message that is whole its place among the others; return whether the parser has failed."""
        state.message = None
        if message.skipping:
            return False
        if message.opcode == _TEXT:
            return self._give(WSMessage(WSMsgType.TEXT, "", None))
        if message.arrivals is not None:
            message.arrivals.whole(self)
        return self._give(WSMessage(WSMsgType.BINARY, message.buffer.getvalue(), COUNTED))

    def _give(self, message: WSMessage) -> bool:
        state = self.state
        assert state is not None  # a message is being read
        if state.ready is None:
            state.ready = deque()
        state.ready.append(message)
        return self._parser.feed_data(_MARK_FRAME)[0]


def _descriptor(transport: asyncio.Transport | None) -> int:
    """Give the number of a socket whose bytes are the client's; -1 for one of another kind."""
    if transport is None or transport.get_extra_info("sslcontext") is not None:
        return -1
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else int(sock.fileno())


def _unmasked(data: bytes, message: _Message) -> bytearray:
    part = bytearray(data)
    turn = message.turn % 4
    websocket_mask(message.mask[turn:] + message.mask[:turn], part)
    return part
