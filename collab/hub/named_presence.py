"""Named presence streams: what applications post beside the presence of a document, for those who are there now.

Strategy: a named stream is a short list of what was posted lately, as it came; the server does not look into it. It is
in memory alone, small, and ends an hour after the last post. Every node that has the document open keeps a copy. It
hears what is posted elsewhere on the bus, and knows each item by the node that has taken it and its number there. A
node that opens the document asks the others for what they have before it answers anything, and a node that may have
missed something is told all. Copies have orders of their own, so a position is good for one copy, and a reader with any
other one begins anew: what it is told twice are states, which say nothing the second time.

An item that is no sequence of whole frames would make what follows it unreadable. So what a reader is told at once ends
behind such an item.
"""

from __future__ import annotations

import itertools
import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from collab.cluster.bus import Bus
from collab.cluster.messages import Posted
from collab.errors import CollabError, DecodeError, LimitExceeded
from collab.hub.presence_tail import Position, PresenceStart, encode_position, new_epoch
from collab.hub.questions import Answers, Facts, Questions
from collab.hub.readers import LevelReaders, Sink
from collab.hub.room import LiveRoom
from collab.hub.stream_presence import LIFETIME
from collab.protocol.streams import MAX_FRAMES, Batch, Begin, check_stream_name, decode_frames
from collab.telemetry import RateLimited, get_logger, shown_name

_limited = RateLimited(get_logger("bus"))

HOUR: Final = 3_600.0
"""Seconds for which a stream is there after it was created, or something was posted."""

MAX_POST: Final = 16 * 1024
"""Bytes of one post."""

MAX_STREAMS: Final = 16
MAX_ITEMS: Final = 512
MAX_BYTES: Final = 96 * 1024
"""Named streams of one document, and posts and bytes that all of them keep; the oldest posts go first."""

NODE_BYTES: Final = 32 * 1024 * 1024
NODE_STREAMS: Final = 20_000
"""Bytes and streams of all documents on one node; past them the documents go that nobody has posted to for longest."""

# Seconds between looks at all documents.
_SWEEP = 5.0

# Seconds between questions to other nodes of which one is silent.
_AGAIN = 5.0

# Bytes that are told at once to a reader that is behind.
_PORTION = 64 * 1024

_ORIGIN = re.compile(r"[\x21-\x7e]{1,100}")


class StreamNotFound(CollabError):
    """There is no such stream, or there is none any more."""

    public = "there is no such awareness stream"


class Keeper(Protocol):
    """What is needed of the hub."""

    rooms: dict[str, LiveRoom]
    bus: Bus
    clock: Callable[[], float]

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...

    def publish_posted(self, name: str, posted: Posted) -> None:
        """Tell the other nodes that have a document open what was posted."""
        ...


class _Item(NamedTuple):
    """A post: by which node it was taken, its number there, its bytes, when it came, and whether it is whole frames."""

    origin: str
    number: int
    data: bytes
    at: float
    whole: bool


class NamedStream:
    """The copy of one stream; times in the loop's seconds.

    Attributes:
        items: what is kept, in the order in which it came here.
        nbytes: the bytes of the items.
        touched: when it was created, or something was posted last.
        gone: it is there no more.
        level: the readers that are level.
    """

    def __init__(self, epoch: int, now: float) -> None:
        self.items: deque[_Item] = deque()
        self.nbytes = 0
        self.touched = now
        self.gone = False
        self._epoch = epoch
        self._first = 0  # the number of the oldest item
        self.level = LevelReaders()

    @property
    def end(self) -> Position:
        """The position behind the newest item."""
        return Position(self._epoch, self._first + len(self.items))

    def holds(self, origin: str, number: int) -> bool:
        """Tell whether an item is here."""
        return any(item.number == number and item.origin == origin for item in self.items)

    def add(self, item: _Item) -> None:
        """Add an item, and hand it to all readers that are level."""
        self.items.append(item)
        self.nbytes += len(item.data)
        self.touched = max(self.touched, item.at)
        if self.level:
            self.level.push(Batch(item.data, encode_position(self.end), up_to_date=True))

    def drop_oldest(self) -> int:
        """Forget the oldest item; return how many bytes it had."""
        self._first += 1
        size = len(self.items.popleft().data)
        self.nbytes -= size
        return size

    def begin(self, start: PresenceStart, now: float) -> Position:
        """Give the position at which a reader begins; ``NOW`` is where the posts of those begin who are there now."""
        oldest, end = Position(self._epoch, self._first), self.end
        if isinstance(start, Position):
            known = start.epoch == self._epoch and oldest.number <= start.number <= end.number
            return start if known else oldest
        if start is Begin.NOW:
            current = sum(1 for item in self.items if item.at >= now - LIFETIME)
            return Position(self._epoch, end.number - current)
        return oldest

    def read(self, since: Position) -> tuple[Batch, Position]:
        """Give what follows on a position, and the one behind it."""
        begin = since.number if self._first <= since.number <= self.end.number else self._first
        found: list[bytes] = []
        size = 0
        for item in itertools.islice(self.items, begin - self._first, None):
            if found and size + len(item.data) > _PORTION:
                break
            found.append(item.data)
            size += len(item.data)
            if not item.whole:
                break
        position = Position(self._epoch, begin + len(found))
        return Batch(b"".join(found), encode_position(position), up_to_date=position == self.end), position

    def close(self) -> None:
        """Let all readers find out that it is there no more."""
        self.gone = True
        self.level.wake()


class NamedCursor:
    """Where a reader stands in a named stream (``readers.Cursor``)."""

    __slots__ = ("_since", "_sink", "_stream")

    def __init__(self, stream: NamedStream, since: Position) -> None:
        self._stream = stream
        self._since = since
        self._sink: Sink | None = None

    async def read(self) -> Batch:
        """Give what has come, and move on; raises ``StreamNotFound``."""
        if self._stream.gone:
            raise StreamNotFound("the stream has ended")
        batch, self._since = self._stream.read(self._since)
        return batch

    def attach(self, sink: Sink) -> bool:
        """Hand what comes from now on to ``sink``; False if there is more to be read."""
        if self._stream.gone or self._since != self._stream.end:
            return False
        self._sink = sink
        self._stream.level.attach(self)
        return True

    def detach(self) -> None:
        """Hand it nothing more; a second call does nothing."""
        self._stream.level.detach(self)
        self._sink = None

    def push(self, batch: Batch) -> bool:
        """Hand a batch on, up to the end; False if its reader cannot take it now."""
        if self._sink is None or not self._sink.push(batch):
            return False
        self._since = self._stream.end
        return True

    def wake(self) -> None:
        """Let the reader read on, or find out that the stream has ended."""
        if self._sink is not None:
            self._sink.wake()


class _Document:
    """The copies of the streams of one document.

    Attributes:
        document_id: which one of its name.
        streams: by name, the one that was posted to last at the end.
        live: the room since whose opening this node hears of all posts; None before it has asked.
        ask_at: when other nodes may be asked again, one of which was silent.
    """

    def __init__(self, document_id: int) -> None:
        self.document_id = document_id
        self.streams: dict[str, NamedStream] = {}
        self.live: LiveRoom | None = None
        self.ask_at = 0.0


class NamedStreams:
    """The named streams of all documents, as this node has them.

    Args:
        hub: see ``Keeper``.

    Attributes:
        questions: the way to the other nodes; set by the hub.
    """

    questions: Questions

    def __init__(self, hub: Keeper) -> None:
        self._hub = hub
        self._documents: dict[str, _Document] = {}  # the one that was posted to last at the end
        self._numbers = itertools.count(1)
        self._sweep_at = 0.0
        self.count = self.nbytes = 0

    # What is asked for

    async def find(self, live: LiveRoom, stream: str) -> NamedStream | None:
        """Return the stream of a document that is stored; None if there is none. Raises ``Overloaded``.

        One that is not here is asked for: its client may come from the node that has created it a moment ago.
        """
        document = await self._current(live, stream)
        return None if document is None else document.streams.get(stream)

    async def create(self, live: LiveRoom, stream: str) -> bool:
        """Create a stream, if it is not there; tell whether that was so.

        Raises:
            LimitExceeded: the document has ``MAX_STREAMS`` already.
            Overloaded: too much is asked of other nodes at a time.
        """
        document = await self._current(live, make=True)
        assert document is not None
        found = document.streams.get(stream)
        if found is None:
            self._check_room(document)
            self._make(live.name, document, stream)
        else:
            found.touched = self._hub.now()
        self._hub.publish_posted(live.name, Posted(document.document_id, stream, self._hub.bus.node, 0, 0, b""))
        return found is None

    async def post(self, live: LiveRoom, stream: str, data: bytes) -> NamedStream:
        """Add to a stream, which is created if it is not there; return it.

        Raises:
            LimitExceeded: there are too many bytes, or the document has ``MAX_STREAMS`` already.
            Overloaded: too much is asked of other nodes at a time.
        """
        if len(data) > MAX_POST:
            raise LimitExceeded(f"a post of {len(data)} bytes", public=f"a post has {MAX_POST} bytes at most here")
        document = await self._current(live, make=True)
        assert document is not None
        if stream not in document.streams:
            self._check_room(document)
        posted = Posted(document.document_id, stream, self._hub.bus.node, next(self._numbers), 0, data)
        found = self._add(live.name, document, posted, self._hub.now())
        self._hub.publish_posted(live.name, posted)
        return found

    async def delete(self, live: LiveRoom, stream: str) -> bool:
        """Delete a stream on all nodes; tell whether there was one. Raises ``Overloaded``."""
        document_id = live.persistence.document_id
        ended = self._delete_here(live.name, document_id, stream)
        if self._hub.bus.others:
            asked = {"kind": "end named presence", "name": live.name, "document": document_id, "stream": stream}
            answers = await self.questions.ask(asked)
            ended = ended or any(said.get("ended") is True for said in answers.said.values())
        return ended

    @staticmethod
    def _check_room(document: _Document) -> None:
        if len(document.streams) >= MAX_STREAMS:
            reason = f"a document has {MAX_STREAMS} awareness streams beside the default one at most"
            raise LimitExceeded(reason, public=reason)

    async def _current(self, live: LiveRoom, stream: str | None = None, *, make: bool = False) -> _Document | None:
        """Return the copies of a document, which hold what all nodes have; None if there are none.

        With ``stream`` others are asked if that one is not here.
        """
        name, document_id = live.name, live.persistence.document_id
        assert document_id is not None
        document = self._documents.get(name)
        if document is not None and document.document_id != document_id:
            self._forget(name)
            document = None
        known = document is not None and (document.live is live or self._hub.now() < document.ask_at)
        if document is not None and known and (stream is None or stream in document.streams):
            return document
        answers: Answers | None = None
        if self._hub.bus.others:
            asked = {"kind": "named presence", "name": name, "document": document_id}
            answers = await self.questions.ask(asked)
            document = self._documents.get(name)
        if document is None or document.document_id != document_id:
            if not make and (answers is None or not any(said.get("streams") for said in answers.said.values())):
                return None
            self._forget(name)
            document = self._documents[name] = _Document(document_id)
        if answers is None or not answers.silent:
            document.live = live
        else:
            document.ask_at = self._hub.now() + _AGAIN
        for said in () if answers is None else answers.said.values():
            self._merge(name, document, said)
        return document

    # What other nodes say and ask

    def receive(self, live: LiveRoom, posted: Posted) -> None:
        """Take what another node has told of a document that is live here; raises ``DecodeError``."""
        name = live.name
        if live.persistence.document_id != posted.document_id:
            return  # it asks when it needs to know
        document = self._documents.get(name)
        if document is None or document.document_id != posted.document_id:
            self._forget(name)
            document = self._documents[name] = _Document(posted.document_id)
        self._take(name, document, posted, self._hub.now() - posted.age)

    def _take(self, name: str, document: _Document, posted: Posted, at: float) -> None:
        """Take an item of another node, if it is not here yet."""
        check_stream_name(posted.stream)
        if len(posted.data) > MAX_POST or _ORIGIN.fullmatch(posted.origin) is None:
            raise DecodeError("a post between nodes that no node takes")
        if self._hub.now() - at >= HOUR:
            return
        if posted.stream not in document.streams and len(document.streams) >= MAX_STREAMS:
            return  # two nodes have created the last one at the same time
        if posted.number:
            self._add(name, document, posted, at)
        elif posted.stream in document.streams:
            document.streams[posted.stream].touched = max(document.streams[posted.stream].touched, at)
        else:
            self._make(name, document, posted.stream).touched = at

    def held(self, live: LiveRoom) -> list[Posted]:
        """Give all that this node has of a document, for one that may have missed something."""
        document = self._documents.get(live.name)
        if document is None or document.document_id != live.persistence.document_id:
            return []
        now, found = self._hub.now(), []
        for stream, copy in document.streams.items():
            told = [(self._hub.bus.node, 0, copy.touched, b"")]
            told += [(each.origin, each.number, each.at, each.data) for each in copy.items]
            for origin, number, at, data in told:
                found.append(Posted(document.document_id, stream, origin, number, max(0, int(now - at)), data))
        return found

    def answer(self, asked: Facts) -> Facts | None:
        """Answer a question of another node; None to one that is not about named streams."""
        name, document_id = str(asked.get("name")), asked.get("document")
        if asked.get("kind") == "end named presence":
            return {"ended": self._delete_here(name, document_id, str(asked.get("stream")))}
        if asked.get("kind") != "named presence":
            return None
        document = self._documents.get(name)
        if document is None or document.document_id != document_id:
            return {"streams": {}}
        now = self._hub.now()
        return {
            "streams": {
                stream: {
                    "age": now - copy.touched,
                    "items": [
                        [each.origin, each.number, b64encode(each.data).decode(), now - each.at] for each in copy.items
                    ],
                }
                for stream, copy in document.streams.items()
            }
        }

    def _merge(self, name: str, document: _Document, said: Facts) -> None:
        """Take what another node has said that it has."""
        now = self._hub.now()
        try:
            for stream, told in dict(said.get("streams") or {}).items():
                at = now - _age(told["age"])
                self._take(name, document, Posted(document.document_id, str(stream), "-", 0, 0, b""), at)
                for origin, number, data, age in told["items"]:
                    posted = Posted(document.document_id, str(stream), str(origin), int(number), 0, b64decode(data))
                    self._take(name, document, posted, now - _age(age))
        except (DecodeError, KeyError, TypeError, ValueError) as error:
            _limited.warning("named", "a named presence stream of %s is left out: %s", shown_name(name), error)

    # Copies

    def _make(self, name: str, document: _Document, stream: str) -> NamedStream:
        made = document.streams[stream] = NamedStream(new_epoch(self._hub.clock()), self._hub.now())
        self.count += 1
        self._touch(name)
        return made

    def _add(self, name: str, document: _Document, posted: Posted, at: float) -> NamedStream:
        copy = document.streams.get(posted.stream) or self._make(name, document, posted.stream)
        if copy.holds(posted.origin, posted.number):
            return copy
        copy.add(_Item(posted.origin, posted.number, posted.data, at, _is_whole(posted.data)))
        self.nbytes += len(posted.data)
        self._make_room(document)
        self._touch(name)
        return copy

    def _make_room(self, document: _Document) -> None:
        """Forget the oldest posts of a document that has too many."""
        copies = [copy for copy in document.streams.values() if copy.items]
        nbytes, count = sum(copy.nbytes for copy in copies), sum(len(copy.items) for copy in copies)
        while nbytes > MAX_BYTES or count > MAX_ITEMS:
            oldest = min((copy for copy in copies if copy.items), key=lambda copy: copy.items[0].at)
            size = oldest.drop_oldest()
            nbytes, count, self.nbytes = nbytes - size, count - 1, self.nbytes - size

    def _touch(self, name: str) -> None:
        document = self._documents.pop(name)
        self._documents[name] = document
        while (self.nbytes > NODE_BYTES or self.count > NODE_STREAMS) and len(self._documents) > 1:
            self._forget(next(iter(self._documents)))

    def _delete_here(self, name: str, document_id: Any, stream: str) -> bool:
        document = self._documents.get(name)
        if document is None or document.document_id != document_id or stream not in document.streams:
            return False
        self._end(document, stream)
        return True

    def _end(self, document: _Document, stream: str) -> None:
        copy = document.streams.pop(stream)
        self.count -= 1
        self.nbytes -= copy.nbytes
        copy.close()

    def _forget(self, name: str) -> None:
        document = self._documents.pop(name, None)
        if document is not None:
            for stream in list(document.streams):
                self._end(document, stream)

    def sweep(self, now: float) -> None:
        """End the streams whose time is over; call it every second or so."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP
        for name, document in list(self._documents.items()):
            for stream, copy in list(document.streams.items()):
                if now - copy.touched >= HOUR:
                    self._end(document, stream)
            live = document.live
            if live is not None and (live.ended is not None or self._hub.rooms.get(name) is not live):
                document.live = None  # nothing is heard of it any more, and its memory is free
            if not document.streams and document.live is None and now >= document.ask_at:
                del self._documents[name]


def _is_whole(data: bytes) -> bool:
    """Tell whether a post is a sequence of whole frames, as clients read them."""
    if len(data) > MAX_FRAMES:
        return False
    try:
        decode_frames(data)
    except (DecodeError, LimitExceeded):
        return False
    return True


def _age(value: Any) -> float:
    """Read seconds that another node has told."""
    age = float(value)
    if not 0 <= age <= 2 * HOUR:
        raise ValueError("an age that no stream has")
    return age
