"""The Durable Streams Yjs protocol without I/O: offsets, frames, events, producers and error codes.

Strategy: as for lib0, plain functions on texts and bytes. The log of a document is the stream, so an offset is a
number of the log with the document's own ID before it (a document that is deleted and created anew has another ID),
and behind it the checksum of the row before the offset. So an offset vouches for what its reader has: on a database
that went back to an older state the row is another one, and the reader is told instead of being led past a gap. Where
the checksum is not known it is left out.

A batch is what all readers at one position are told. They share its bytes: the base64 of an event is made once.

Sources: github durable-streams/durable-streams, the base protocol (sections 5.2.1, 5.6 to 5.8, 8, 10.1) and
the Yjs protocol on it. What differs from them on purpose: docs/http-clients.md.
"""

from __future__ import annotations

import json
import re
from binascii import b2a_base64
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from collab.errors import DecodeError, InvalidDocumentName, LimitExceeded
from collab.protocol.lib0 import MAX_SAFE_INTEGER, encode_var_bytes, encode_var_uint, read_var_bytes

MEDIA: Final = "application/octet-stream"
"""The content type of every stream here."""

EVENTS: Final = "text/event-stream"

NEXT_OFFSET: Final = "Stream-Next-Offset"
UP_TO_DATE: Final = "Stream-Up-To-Date"
CURSOR: Final = "Stream-Cursor"
ENCODING: Final = "Stream-SSE-Data-Encoding"
CLOSED: Final = "Stream-Closed"
PRODUCER_ID: Final = "Producer-Id"
PRODUCER_EPOCH: Final = "Producer-Epoch"
PRODUCER_SEQ: Final = "Producer-Seq"

MAX_FRAMES: Final = 100_000
"""Updates in one body. The stock client puts up to 1 MiB of them into one, and none of its updates is that small."""

MAX_PRODUCER_BYTES: Final = 1_024
"""Bytes of a producer's name; the stock client takes the name of the document and a client ID."""

MAX_STREAM_NAME_BYTES: Final = 64
"""Bytes of the name of an awareness stream."""

DEFAULT_AWARENESS: Final = "default"
"""The name of the awareness stream that every document has."""

INTERVAL_SECONDS: Final = 20
INTERVALS_BEGIN: Final = 1_728_432_000
"""Cursors count intervals of so many seconds since 2024-10-09 (in Unix seconds)."""

# Updates that are decoded between two yields.
_SLICE = 1_000

# Jitter of a cursor that has to pass the one of its client, in seconds.
_JITTER = 3_600

# Bytes that become one line of an event: 64 KiB of base64. A multiple of three, so that lines can be joined.
_LINE = 48 * 1024


class Code(Enum):
    """The codes of errors, with their HTTP status. The last four are not in the specification."""

    INVALID_REQUEST = "INVALID_REQUEST", 400
    UNAUTHORIZED = "UNAUTHORIZED", 401
    DOCUMENT_NOT_FOUND = "DOCUMENT_NOT_FOUND", 404
    SNAPSHOT_NOT_FOUND = "SNAPSHOT_NOT_FOUND", 404
    STREAM_NOT_FOUND = "STREAM_NOT_FOUND", 404
    OFFSET_EXPIRED = "OFFSET_EXPIRED", 410
    RATE_LIMITED = "RATE_LIMITED", 429
    INTERNAL_ERROR = "INTERNAL_ERROR", 500
    FORBIDDEN = "FORBIDDEN", 403
    CONFLICT = "CONFLICT", 409
    TOO_LARGE = "PAYLOAD_TOO_LARGE", 413
    UNAVAILABLE = "UNAVAILABLE", 503

    def __init__(self, text: str, status: int) -> None:
        self.text = text
        self.status = status


def encode_error(code: Code, message: str) -> bytes:
    """Encode the body of an error, which is JSON in UTF-8."""
    error = {"code": code.text, "message": message.encode(errors="replace").decode()}
    return json.dumps({"error": error}).encode()


# Addresses


def check_path(name: str) -> None:
    """Refuse the name of a document that a client or a proxy on the way would take for another one.

    Raises:
        InvalidDocumentName: one of its segments is ``.`` or ``..``.
    """
    if any(segment in (".", "..") for segment in name.split("/")):
        raise InvalidDocumentName("a segment of dots", public="a segment of the path must not be . or ..")


def check_stream_name(name: str) -> None:
    """Refuse what cannot name an awareness stream; raises ``DecodeError``."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_STREAM_NAME_BYTES or not name.isprintable():
        raise _invalid(f"an awareness stream has a name of 1 to {MAX_STREAM_NAME_BYTES} printable bytes")


# Offsets


class Offset(NamedTuple):
    """A position in the log of a document: the next row is number ``seq``, counted from 1.

    ``check`` is the checksum of the row before it; None where it is not known, or there is no such row.
    """

    document_id: int
    seq: int
    check: int | None = None


class SnapshotOffset(NamedTuple):
    """The snapshot of a document that holds all rows up to number ``seq``."""

    document_id: int
    seq: int


class Begin(Enum):
    """The offsets that are no positions."""

    BEGINNING = "-1"
    NOW = "now"
    SNAPSHOT = "snapshot"


Start = Offset | SnapshotOffset | Begin

_OFFSET = re.compile(r"([0-9]{16})_([0-9]{16})(?:_([0-9a-f]{8,16}))?", re.ASCII)
_SNAPSHOT = re.compile(r"([0-9]{16})_([0-9]{16})_snapshot", re.ASCII)


def encode_offset(offset: Offset | SnapshotOffset) -> str:
    """Encode an offset as a text; those of one document are ordered like their positions."""
    if isinstance(offset, SnapshotOffset):
        return f"{offset.document_id:016d}_{offset.seq:016d}_snapshot"
    text = f"{offset.document_id:016d}_{offset.seq:016d}"
    return text if offset.check is None else f"{text}_{offset.check:08x}"


def decode_offset(text: str) -> Start:
    """Decode what a client gives as its offset.

    Raises:
        DecodeError: it is none.
    """
    if found := _OFFSET.fullmatch(text):
        check = None if found[3] is None else int(found[3], 16)
        if int(found[2]) > 0:
            return Offset(int(found[1]), int(found[2]), check)
    elif found := _SNAPSHOT.fullmatch(text):
        return SnapshotOffset(int(found[1]), int(found[2]))
    try:
        return Begin(text)
    except ValueError:
        raise _invalid("the offset is none that this server has given") from None


class Live(Enum):
    """How a reader waits for what is to come."""

    NO = ""
    LONG_POLL = "long-poll"
    EVENTS = "sse"


def decode_live(text: str | None) -> Live:
    """Decode how a client wants to wait; raises ``DecodeError``."""
    if text is None:
        return Live.NO
    if text not in (Live.LONG_POLL.value, Live.EVENTS.value):
        raise _invalid("live is long-poll or sse")
    return Live(text)


# Frames


def encode_frames(updates: Iterable[bytes]) -> bytes:
    """Encode updates one behind the other, each with its length before it (lib0 ``writeVarUint8Array``)."""
    return b"".join([part for update in updates for part in (encode_var_uint(len(update)), update)])


def encode_frame(update: bytes) -> bytes:
    """Encode one update with its length before it."""
    return encode_var_bytes(update)


def decode_frames(body: bytes) -> list[bytes]:
    """Decode the updates of a body in one step; see ``decode_frames_in_slices``."""
    work = decode_frames_in_slices(body)
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: list[bytes] = done.value
            return found


def decode_frames_in_slices(body: bytes) -> Generator[None, None, list[bytes]]:
    """Decode the updates of a body, in a generator that yields about every millisecond.

    Raises:
        DecodeError: it is empty, or a length does not fit.
        LimitExceeded: it holds more than ``MAX_FRAMES``.
    """
    if not body:
        raise _invalid("the body is empty")
    found: list[bytes] = []
    pos = 0
    while pos < len(body):
        if len(found) >= MAX_FRAMES:
            raise LimitExceeded(
                f"more than {MAX_FRAMES} updates in a body", public=f"a body holds {MAX_FRAMES} updates at most"
            )
        try:
            update, pos = read_var_bytes(body, pos)
        except DecodeError as error:
            raise _invalid(f"the body is no sequence of updates with their lengths: {error}") from None
        found.append(update)
        if len(found) % _SLICE == 0:
            yield
    return found


# What readers are told


class Batch:
    """What readers at one position are told: the same object for all of them, so that its event is made once.

    Attributes:
        payload: the bytes that are new to them; empty if nothing is.
        offset: the text of the position behind it.
        up_to_date: whether that is the end of the stream.
    """

    __slots__ = ("__weakref__", "_chunk", "_cursor", "_data", "_event", "offset", "payload", "up_to_date")

    def __init__(self, payload: bytes, offset: str, *, up_to_date: bool) -> None:
        self.payload = payload
        self.offset = offset
        self.up_to_date = up_to_date
        self._cursor = -1
        self._data: bytes | None = None
        self._event = self._chunk = b""

    def event(self, cursor: int) -> bytes:
        """Give it as server-sent events, ``data`` and ``control``, for a cursor that most readers have."""
        if cursor != self._cursor:
            if self._data is None:
                self._data = b"".join(encode_data(self.payload))
            self._event = self._data + self.control(cursor)
            self._chunk = b""
            self._cursor = cursor
        return self._event

    def chunk(self, cursor: int) -> bytes:
        """Give the events as one chunk of an HTTP/1.1 body."""
        event = self.event(cursor)
        if not self._chunk:
            self._chunk = encode_chunk(event)
        return self._chunk

    def control(self, cursor: int) -> bytes:
        """Give the event that follows on the data."""
        return encode_control(self.offset, cursor, up_to_date=self.up_to_date)


def encode_data(payload: bytes) -> Iterator[bytes]:
    """Encode bytes as an event in parts, with lines of 64 KiB of base64; none if there are no bytes."""
    if payload:
        view = memoryview(payload)
        yield b"event: data\n"
        for begin in range(0, len(view), _LINE):
            yield b"data:" + b2a_base64(view[begin : begin + _LINE])
        yield b"\n"


def encode_control(offset: str, cursor: int, *, up_to_date: bool) -> bytes:
    """Encode the event that says where a reader stands."""
    told: dict[str, object] = {"streamNextOffset": offset, "streamCursor": str(cursor)}
    if up_to_date:
        told["upToDate"] = True
    return b"event: control\ndata:" + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


def encode_chunk(data: bytes) -> bytes:
    """Encode bytes as a chunk of an HTTP/1.1 body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


KEEP_ALIVE: Final = b":\n\n"
"""A comment: an event that no client shows, for proxies that cut what is silent."""


def interval(now: float) -> int:
    """Give the cursor of a moment, in Unix seconds."""
    return int(now - INTERVALS_BEGIN) // INTERVAL_SECONDS


def next_cursor(now: float, told: str | None, random: float) -> int:
    """Give the cursor of an answer: that of the moment, or above the client's one, which is never met again.

    Args:
        now: in Unix seconds.
        told: the cursor that the client has sent; what is none is taken for none.
        random: from 0 to 1.
    """
    current = interval(now)
    if told is None or not told.isascii() or not told.isdecimal() or len(told) > 15:
        return current
    given = int(told)
    if given < current:
        return current
    return given + max(1, int(random * _JITTER) // INTERVAL_SECONDS)


# Producers


class Producer(NamedTuple):
    """The number of a request, as a producer gives it: ``seq`` counts its requests within ``epoch``, from 0."""

    id: str
    epoch: int
    seq: int


_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)


def decode_producer(headers: Mapping[str, Sequence[str]]) -> Producer | None:
    """Decode the headers of a producer; None if there are none.

    Args:
        headers: all values of the three headers, by their names as they stand here.

    Raises:
        DecodeError: one is missing, is there twice or is malformed.
    """
    values = [headers.get(name, ()) for name in (PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ)]
    if not any(values):
        return None
    if any(len(each) != 1 for each in values):
        raise _invalid(f"{PRODUCER_ID}, {PRODUCER_EPOCH} and {PRODUCER_SEQ} come together, each once")
    ((name,), *numbers) = values
    try:
        size = len(name.encode())
    except UnicodeEncodeError:  # a byte that is no text, as it came
        size = len(name.encode("utf-8", "surrogateescape"))
    if not 0 < size <= MAX_PRODUCER_BYTES:
        raise _invalid(f"{PRODUCER_ID} has 1 to {MAX_PRODUCER_BYTES} bytes")
    found: list[int] = []
    for (text,) in numbers:
        if not _NUMBER.fullmatch(text) or int(text) > MAX_SAFE_INTEGER:
            raise _invalid(f"{PRODUCER_EPOCH} and {PRODUCER_SEQ} are whole numbers from 0 to 2^53-1")
        found.append(int(text))
    return Producer(name, found[0], found[1])


class Numbers(NamedTuple):
    """The highest numbers of a producer that are known: compared as they stand, epoch first."""

    epoch: int
    seq: int


class Verdict(Enum):
    """What a producer's numbers say of its request."""

    NEW = "new"
    REPEATED = "repeated"
    STALE = "stale"


def judge(producer: Producer, known: Numbers | None) -> Verdict:
    """Say whether a request is new, is one that was taken already, or comes from an older life of its producer.

    A request that leaves numbers out, or begins an epoch with another number than 0, is new as well. The order of
    updates is the CRDT's business, and the numbers of this server may be those of a database that went back.
    """
    if known is None or producer.epoch > known.epoch:
        return Verdict.NEW
    if producer.epoch < known.epoch:
        return Verdict.STALE
    return Verdict.NEW if producer.seq > known.seq else Verdict.REPEATED


def _invalid(text: str) -> DecodeError:
    """Make an error whose text may be told to the client."""
    error = DecodeError(text)
    error.public = text
    return error


HEADERS_OF_CLIENTS: Final = (PRODUCER_ID, PRODUCER_EPOCH, PRODUCER_SEQ, "Stream-Seq", CLOSED)
"""What clients send beyond what all do; browsers ask whether they may."""

HEADERS_TOLD: Final = (NEXT_OFFSET, UP_TO_DATE, CURSOR, CLOSED, ENCODING, PRODUCER_EPOCH, PRODUCER_SEQ)
"""What pages of other origins may read."""

DESCRIPTIONS: Final[Mapping[Code, str]] = MappingProxyType(
    {
        Code.INVALID_REQUEST: "a parameter, a header, the path, the method or the body is not as described",
        Code.UNAUTHORIZED: "there is no valid token; or a producer may not write, and would repeat a 403 for ever",
        Code.FORBIDDEN: "the token is valid and does not allow this, or the request comes from elsewhere",
        Code.DOCUMENT_NOT_FOUND: "no document of that name is stored, or it was deleted or renamed",
        Code.SNAPSHOT_NOT_FOUND: "the snapshot is not the newest one any more; ask with `offset=snapshot`",
        Code.STREAM_NOT_FOUND: "there is no such awareness stream",
        Code.CONFLICT: "the content type is another one than that of the stream",
        Code.OFFSET_EXPIRED: (
            "the rows at the offset are gone, it is of another document that had the name, or the database went back"
        ),
        Code.TOO_LARGE: "the body, or the document with it, is larger than this server takes",
        Code.RATE_LIMITED: "too much at a time, or in this minute",
        Code.INTERNAL_ERROR: "a defect of the server, which is in its log",
        Code.UNAVAILABLE: "the server, its store or whoever decides on access cannot be reached now",
    }
)
"""What each code means, as a sentence for the documentation."""
