"""What a node says and knows on a bus that crosses a network: sans I/O, with the time given.

Strategy: every frame has a number, so what is lost shows in the next one; a beat, four times a second while the node
speaks, says how far it is, so the last one shows as well. Whoever finds a hole, hears a node for the first time, or
nothing for two seconds, has the log looked at (``missed``) and asks the node to introduce itself: it then says what it
has subscribed to, and both tell each other what they hold of the topics that they share (``joined``). So nothing is
proved by a message that arrived, and nothing rests on one that did not.

Each node knows the topics of all others as hashes, and keeps to itself what nobody else has open. Where it does not
know, it takes a topic as open. A beat carries the number of the subscriptions and their hashes by XOR; where that does
not fit, the node is asked again.

Who is heard again after it was counted as gone, because it was stopped or cut off, is new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from collab.cluster.bus import BusCounts, BusListener, BusMessage
from collab.cluster.wire import (
    COMMON,
    CONTINUES,
    MORE,
    Ask,
    Beat,
    Bye,
    Frame,
    Item,
    Joined,
    Left,
    Said,
    Topics,
    cut,
    decode_frame,
    decode_items,
    encode_frame,
    encode_item,
    sender_of,
    topic_hash,
)
from collab.errors import DecodeError

BEAT_SECONDS: Final = 0.25
"""Between two beats, while others are there."""

QUIET_BEAT_SECONDS: Final = 0.75
"""The same while this node says nothing: each costs every node a fifth of a millisecond. One may be lost before it
counts as silent."""

LONE_BEAT_SECONDS: Final = 1.0
"""The same while no other node is known."""

SILENT_SECONDS: Final = 2.0
"""Without a frame of a node, or of one's own, something is taken to be lost."""

GONE_SECONDS: Final = 8.0
"""Without a frame of a node it is taken to be gone."""

ASK_SECONDS: Final = 1.0
"""Between two questions to one node."""

MAX_WAITING: Final = 4 * 1024 * 1024
"""Bytes that wait to be sent; past it messages are dropped."""

MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of a body in several frames; a longer one is dropped."""

LEFT_SECONDS: Final = 60.0
"""For these a node that has said that it leaves is not listened to: its last frames may come on another connection."""

MAX_PEERS: Final = 1_000
"""Nodes that are known at once; a flood of invented ones is left out."""

JOINED_AT_ONCE: Final = 200
"""Shared topics that are told at once, when a node has introduced itself; the rest follows with the next ticks."""


class _Peer:
    """Another node.

    Attributes:
        node: its name as the port gives it.
        topics: hashes of what it has subscribed to; None while that is not known.
        numbers: of the last frame heard, by stream.
        partial: bodies that are not whole yet, by stream.
        heard: when a frame of it came last.
        silent: nothing came for too long, and that was said.
        asked: when it was asked to introduce itself.
        owing: something of it was missed, and it was not asked since: what it says meanwhile, because others have
            asked, does not repeat that.
    """

    __slots__ = ("asked", "heard", "name", "node", "numbers", "owing", "partial", "silent", "topics", "xor")

    def __init__(self, name: bytes, now: float) -> None:
        self.name = name
        self.node = name.hex()
        self.topics: set[bytes] | None = None
        self.xor = 0
        self.numbers: dict[bytes, int] = {}
        self.partial: dict[bytes, bytearray] = {}
        self.heard = now
        self.silent = False
        self.asked = float("-inf")
        self.owing = False


class Outgoing(NamedTuple):
    """Bytes to be sent: a frame, and the stream on which it goes."""

    stream: bytes
    data: bytes


class Peers:
    """One node among others.

    Args:
        name: eight bytes that no other node has.
        listener: told what is heard, from within ``hear``, ``tick``, ``tell_joined`` and ``reconnected``.
        most: bytes of a frame.
        streams: whether each topic has a stream of its own; else all have the common one.

    Attributes:
        ordered: what is sent on different streams arrives in the order in which it was sent, so a topic need not keep
            to its own.
        heard_itself: when a frame of this node's own came back last.
        counts: what was said and heard.
    """

    def __init__(self, name: bytes, listener: BusListener, most: int, *, streams: bool) -> None:
        self._name = name
        self._listener = listener
        self._most = most
        self._streams = streams
        self.ordered = False
        self._topics: dict[str, bytes] = {}
        self._by_text: dict[bytes, str] = {}  # the same topics by their UTF-8
        self._by_hash: dict[bytes, set[str]] = {}
        self._xor = 0
        self._peers: dict[bytes, _Peer] = {}
        self._left: dict[bytes, float] = {}  # when each of those has said that it leaves
        self._unsure = 0  # peers whose topics are not known
        self._number = 0
        self._sent: dict[bytes, int] = {}  # the number of the last frame, by stream
        self._lately: tuple[set[bytes], set[bytes]] = set(), set()  # streams with frames since the last two beats
        self._waiting: dict[bytes, list[bytes]] = {}
        self._nbytes = 0
        self._lost: set[bytes] = set()  # streams of which something was dropped
        self._changed: dict[bytes, bool] = {}  # subscriptions that have still to be told
        self._tell_all = False
        self._ask: set[bytes] = set()
        self._to_tell: deque[tuple[str, bytes]] = deque()
        self._beat_at = self._ticked = float("-inf")
        self._beats = False  # what waits has a beat
        self._spoke = False  # something but a beat was said to all since the last one
        self._beat_waits = False  # for a frame that takes it along
        self.heard_itself = float("-inf")
        self.counts = BusCounts()

    @property
    def count(self) -> int:
        """How many other nodes are known."""
        return len(self._peers)

    @property
    def sure(self) -> bool:
        """Whether every other node is heard, and known."""
        return not self._unsure and not any(peer.silent for peer in self._peers.values())

    def wanted(self, topic: str) -> bool:
        """Tell whether another node may have subscribed to a topic."""
        if self._unsure:
            return True
        hashed = self._topics.get(topic) or topic_hash(topic)
        for peer in self._peers.values():  # noqa: SIM110 -- twice for each edit: a generator costs more than the rest
            if peer.topics is not None and hashed in peer.topics:
                return True
        return False

    # What this node says

    def subscribe(self, topic: str) -> bytes | None:
        """Listen to a topic, and let the others know; return its stream if it is new."""
        if topic in self._topics:
            return None
        hashed = self._topics[topic] = topic_hash(topic)
        self._by_text[topic.encode()] = topic
        here = self._by_hash.setdefault(hashed, set())
        if not here:
            self._xor ^= int.from_bytes(hashed, "little")
            self._changed[hashed] = True
        here.add(topic)
        for peer in self._peers.values():
            if peer.topics is not None and hashed in peer.topics:
                self._to_tell.append((topic, peer.name))
        return hashed

    def unsubscribe(self, topic: str) -> bytes | None:
        """Listen to a topic no more; return its stream if no other topic has it."""
        hashed = self._topics.pop(topic, None)
        if hashed is None:
            return None
        del self._by_text[topic.encode()]
        here = self._by_hash[hashed]
        here.discard(topic)
        if here:
            return None
        del self._by_hash[hashed]
        self._xor ^= int.from_bytes(hashed, "little")
        self._changed[hashed] = False
        for peer in self._peers.values():
            peer.numbers.pop(hashed, None)
            peer.partial.pop(hashed, None)
        return hashed

    def publish(self, topic: str, payload: bytes) -> bool:
        """Let a message wait to be sent; return False if it was dropped, for too much waits."""
        stream = self._stream(topic) if self._streams else COMMON
        if self._nbytes + len(payload) > MAX_WAITING:
            self.counts.dropped += 1
            self._lost.add(stream)
            return False
        self.counts.published += 1
        self._put(stream, encode_item(Said(topic, payload)))
        return True

    def _stream(self, topic: str) -> bytes:
        """Choose the stream for a message: the common one if at least half of the nodes want it.

        All that is said on the common stream in one turn is one frame, for the sender, the network and who hears it. A
        node that does not want it passes it over, which costs less than a frame.
        """
        hashed = self._topics.get(topic) or topic_hash(topic)
        if not self.ordered or self._unsure:
            return hashed
        wanted = sum([hashed in peer.topics for peer in self._peers.values() if peer.topics is not None])
        return COMMON if 2 * wanted >= len(self._peers) else hashed

    def leave(self) -> None:
        """Say that this node leaves."""
        self._put(COMMON, encode_item(Bye()))

    def _put(self, stream: bytes, item: bytes) -> None:
        self._waiting.setdefault(stream, []).append(item)
        self._nbytes += len(item)

    @property
    def waiting(self) -> bool:
        """Whether ``take`` has something to send."""
        return bool(self._waiting or self._changed or self._tell_all or self._ask or self._lost)

    @property
    def telling(self) -> bool:
        """Whether ``tell_joined`` has something to tell."""
        return bool(self._to_tell)

    def take(self) -> list[Outgoing]:
        """Return all that waits, as frames, in the order in which they have to be sent."""
        heads = [encode_item(item) for item in self._introductions()]
        waiting, self._waiting, self._nbytes = self._waiting, {}, 0
        if heads:
            # Before the messages: who is spoken to by one of them knows that this node listens.
            waiting = {COMMON: heads + waiting.pop(COMMON, []), **waiting}
        if COMMON in waiting and not self._beats:
            self._spoke = True
            if self._beat_waits:
                waiting[COMMON].append(self._next_beat(self._ticked))
        self._beats = False
        for stream in self._lost:
            self._next(stream)  # a number that nobody will hear
        self._lost = set()
        found = []
        for stream, items in waiting.items():
            for flags, body in cut(b"".join(items), self._most):
                before = self._sent.get(stream, 0)
                found.append(
                    Outgoing(stream, encode_frame(Frame(self._name, stream, self._next(stream), before, flags, body)))
                )
        return found

    def _next(self, stream: bytes) -> int:
        self._number += 1
        self._sent[stream] = self._number
        if stream != COMMON:
            self._lately[0].add(stream)
        return self._number

    def _introductions(self) -> list[Item]:
        items: list[Item] = []
        if self._tell_all:
            items.append(Topics(tuple(self._by_hash)))
        elif self._changed:
            joined = tuple([hashed for hashed, there in self._changed.items() if there])
            left = tuple([hashed for hashed, there in self._changed.items() if not there])
            items += [Joined(joined)] if joined else []
            items += [Left(left)] if left else []
        items += [Ask(COMMON)] if COMMON in self._ask else [Ask(node) for node in sorted(self._ask)]
        self._tell_all, self._changed, self._ask = False, {}, set()
        return items

    def reconnected(self) -> None:
        """Note that the connection is a new one: what was said meanwhile is lost, here and there."""
        self._waiting, self._nbytes = {}, 0
        for peer in self._peers.values():
            self._doubt(peer)
            peer.numbers, peer.partial = {}, {}
        self._tell_all = True
        self._ask.add(COMMON)
        self._beat_at = self.heard_itself = float("-inf")
        self._beats = self._spoke = self._beat_waits = False
        self._listener.missed()

    # Time

    def tick(self, now: float) -> None:
        """Do what is due by now: beat, ask, miss, forget; call it every ``BEAT_SECONDS`` or so."""
        if now - self._ticked > SILENT_SECONDS and self._ticked > float("-inf"):
            # This process stood still, and what came meanwhile is about to be read: nobody is at fault.
            for peer in self._peers.values():
                peer.heard = max(peer.heard, now - BEAT_SECONDS)
            self._listener.missed()
        self._ticked = now
        for peer in list(self._peers.values()):
            quiet = now - peer.heard
            if quiet >= GONE_SECONDS:
                self._remove(peer)
            elif quiet >= SILENT_SECONDS and not peer.silent:
                peer.silent = True
                self._listener.missed()
            elif peer.topics is None or peer.owing:
                self._ask_peer(peer, now)
        self._left = {name: at for name, at in self._left.items() if now - at < LEFT_SECONDS}
        self.tell_joined()
        if now - self._beat_at >= self._beat_pause * 0.9:
            if self._spoke and not self._beat_waits:
                # A node that says something has shown that it lives: the beat goes with the next frame, or alone at
                # the next tick.
                self._beat_waits = True
            else:
                self._beats = True
                self._put(COMMON, self._next_beat(now))

    @property
    def _beat_pause(self) -> float:
        """Seconds from the last beat to the next one: less after a frame that may have been lost."""
        if not self._peers:
            return LONE_BEAT_SECONDS
        return BEAT_SECONDS if self._spoke or self._lately[0] or self._lately[1] else QUIET_BEAT_SECONDS

    def tell_joined(self) -> None:
        """Have some of those nodes told that have come to a topic, or that this one has come to."""
        for _ in range(min(len(self._to_tell), JOINED_AT_ONCE)):
            topic, name = self._to_tell.popleft()
            if topic in self._topics and name in self._peers:
                self._listener.joined(topic, name.hex())

    def _next_beat(self, now: float) -> bytes:
        self._beat_at = now
        self._spoke = self._beat_waits = False
        return encode_item(self._beat())

    def _beat(self) -> Beat:
        # Streams are told one beat late: what was sent on another connection has arrived by then.
        now, before = self._lately
        self._lately = set(), now
        numbers = tuple([(stream, self._sent[stream]) for stream in sorted(before - now) if stream in self._sent])
        for stream in before - now:
            if stream not in self._by_hash:
                self._sent.pop(stream, None)
        return Beat(len(self._by_hash), self._xor.to_bytes(8, "little"), numbers)

    # What this node hears

    def hear(self, data: bytes, now: float) -> None:
        """Take one frame.

        Raises:
            DecodeError: it cannot be read. That is counted, and what it may have held is found by the numbers.
        """
        try:
            if sender_of(data) == self._name:
                self.heard_itself = now
                return
            frame = decode_frame(data)
            if frame is None:
                return
            peer = self._peers.get(frame.sender)
            if peer is None:
                peer = self._meet(frame.sender, now)
            if peer is not None:
                peer.heard, peer.silent = now, False
                self._hear(peer, frame, now)
        except DecodeError:
            self.counts.damaged += 1
            raise

    def _meet(self, name: bytes, now: float) -> _Peer | None:
        if len(self._peers) >= MAX_PEERS or name == COMMON or name in self._left:
            return None
        peer = self._peers[name] = _Peer(name, now)
        self._unsure += 1
        self._tell_all = True
        self._ask_peer(peer, now)
        return peer

    def _hear(self, peer: _Peer, frame: Frame, now: float) -> None:
        stream = frame.stream
        if stream != COMMON and stream not in self._by_hash:
            return
        last = peer.numbers.get(stream)
        if last is not None and frame.number <= last:
            return  # repeated, or overtaken: it was taken for lost then
        peer.numbers[stream] = frame.number
        if last is not None and frame.before > last:
            self._hole(peer, now)
            peer.partial.pop(stream, None)
        begun = peer.partial.pop(stream, None)
        body = frame.body
        if frame.flags:
            if not frame.flags & CONTINUES:
                begun = bytearray(body)
            elif begun is None:
                return
            else:
                begun += body
            if frame.flags & MORE:
                if len(begun) <= MAX_BODY:
                    peer.partial[stream] = begun
                else:
                    self._hole(peer, now)
                return
            body = bytes(begun)
        for item in decode_items(body, self._by_text):
            self._take(peer, item, now)
            if self._peers.get(peer.name) is not peer:
                return  # it has left

    def _take(self, peer: _Peer, item: Item, now: float) -> None:
        match item:
            case Said(topic, payload):
                self.counts.received += 1
                self._listener.receive(BusMessage(topic, peer.node, payload))
            case Joined(hashes):
                if peer.topics is not None:
                    self._add(peer, hashes)
            case Left(hashes):
                if peer.topics is not None:
                    left = [hashed for hashed in dict.fromkeys(hashes) if hashed in peer.topics]
                    for hashed in left:
                        peer.topics.discard(hashed)
                        peer.xor ^= int.from_bytes(hashed, "little")
                    self._tell_left(peer, left)
            case Topics(hashes):
                given = set(hashes)
                # Where it was not known what it had, it may have said anything of what it has no more.
                left = [hashed for hashed in self._by_hash if hashed not in given]
                if peer.topics is None:
                    self._unsure -= 1
                    before: set[bytes] = set()
                else:
                    before = peer.topics
                    left = [hashed for hashed in left if hashed in before]
                peer.topics, peer.xor = before & given, 0
                for hashed in peer.topics:
                    peer.xor ^= int.from_bytes(hashed, "little")
                self._add(peer, hashes)
                self._tell_left(peer, left)
            case Beat(subscriptions, digest, numbers):
                said = (subscriptions, int.from_bytes(digest, "little"))
                if peer.topics is not None and said != (len(peer.topics), peer.xor):
                    self._doubt(peer)
                    self._ask_peer(peer, now)
                for stream, number in numbers:
                    if stream in self._by_hash and peer.numbers.get(stream, -1) < number:
                        peer.numbers[stream] = number
                        self._hole(peer, now)
            case Ask(node):
                if node in (self._name, COMMON):
                    self._tell_all = True
                    if peer.topics is not None:
                        self._tell(peer, [hashed for hashed in self._by_hash if hashed in peer.topics])
            case Bye():
                self._left[peer.name] = now
                self._remove(peer)

    def _add(self, peer: _Peer, hashes: tuple[bytes, ...]) -> None:
        topics = peer.topics
        assert topics is not None
        new = [hashed for hashed in dict.fromkeys(hashes) if hashed not in topics]
        topics.update(new)
        for hashed in new:
            peer.xor ^= int.from_bytes(hashed, "little")
        self._tell(peer, new)

    def _tell(self, peer: _Peer, hashes: Iterable[bytes]) -> None:
        """Have a peer told, soon and not all at once, what it has to know of the topics that both have."""
        shared = [hashed for hashed in hashes if hashed in self._by_hash]
        self._to_tell.extend([(topic, peer.name) for hashed in shared for topic in self._by_hash[hashed]])

    def _tell_left(self, peer: _Peer, hashes: Iterable[bytes]) -> None:
        """Tell that a peer has left topics that this node has.

        Streams overtake each other: it has come back to a topic of which a later frame was heard already.
        """
        here = peer.numbers.get(COMMON, 0)
        for hashed in hashes:
            if peer.numbers.get(hashed, 0) <= here:
                for topic in self._by_hash.get(hashed, ()):
                    self._listener.left(topic, peer.node)

    def _doubt(self, peer: _Peer) -> None:
        if peer.topics is not None:
            peer.topics = None
            peer.xor = 0
            self._unsure += 1

    def _ask_peer(self, peer: _Peer, now: float) -> None:
        if now - peer.asked >= ASK_SECONDS:
            peer.asked = now
            peer.owing = False
            self._ask.add(peer.name)

    def _hole(self, peer: _Peer, now: float) -> None:
        """Go on after frames of a node were lost: the log has the rows, and it repeats the rest when asked."""
        self.counts.holes += 1
        self._doubt(peer)
        peer.owing = True
        self._ask_peer(peer, now)
        self._listener.missed()

    def _remove(self, peer: _Peer) -> None:
        del self._peers[peer.name]
        self._unsure -= peer.topics is None
        self._listener.gone(peer.node)
