"""Whatever a Hocuspocus client sends and whatever is answered, in any order: what must hold all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from collab.errors import (
    AccessExpired,
    AccessUnavailable,
    CollabError,
    DecodeError,
    DocumentBusy,
    DocumentDeleted,
    Forbidden,
    ServerStopping,
    StoreRefused,
)
from collab.protocol.events import (
    Authenticate,
    Leave,
    Note,
    Open,
    Renew,
    Retry,
)
from collab.protocol.hocuspocus.connection import Limits
from collab.protocol.messages import Message
from collab.protocol.session import Access, State
from collab.protocol.session import Event as Step
from tests.protocol.hocuspocus.wire import Document, Event, Question, Wire, read, snapshot
from tests.support.hocuspocus import (
    AWARENESS,
    SYNC,
    SYNC_REPLY,
    auth,
    broadcast_stateless,
    close,
    frame,
    query_awareness,
    stateless,
    step1,
    step2,
    update,
)
from tests.support.wsclient import varbytes

# What a client sends, by a number that stands in it. All but the last five are told from each other by that.
FRAMES: dict[str, Callable[[str, int], bytes]] = {
    "SyncStep1": lambda address, number: step1(address, b"%d" % number),
    "SyncStep2": lambda address, number: step2(address, b"%d" % number),
    "Update": lambda address, number: update(address, b"%d" % number),
    "Awareness": lambda address, number: frame(address, AWARENESS, varbytes(b"%d" % number)),
    "SyncReply": lambda address, number: frame(address, SYNC_REPLY, b"\2" + varbytes(b"%d" % number)),
    "Stateless": lambda address, number: stateless(address, str(number)),
    "a reader's Stateless": lambda address, number: stateless(address, f"{number:012}"),
    "Auth": lambda address, number: auth(address, str(number)),
    "Auth that cannot be read": lambda address, number: auth(address, b"\xff"),
    "CLOSE": lambda address, number: close(address),
    "BroadcastStateless": lambda address, number: broadcast_stateless(address, ""),
    "QueryAwareness": lambda address, number: query_awareness(address),
    "unknown": lambda address, number: frame(address, 11),
    "malformed": lambda address, number: frame(address, SYNC, b"\2\5"),
}
NUMBERED = list(FRAMES)[:6]

# Of two addresses with one name, one of another and one without a name.
ADDRESSES = ["a", "b", "a\0s", " "]


def numbers(messages: Iterable[tuple[str, Message]], address: str) -> list[int]:
    """The numbers in the messages that reached the room for an address."""
    return [int(message[0]) for at, message in messages if at == address and message]


@given(
    st.lists(st.tuples(st.sampled_from(ADDRESSES[:3]), st.sampled_from(NUMBERED)), min_size=1, max_size=20),
    st.lists(st.integers(0, 5), min_size=40, max_size=40),
)
@settings(max_examples=50, deadline=None)
def test_every_message_of_a_client_that_is_let_in_is_delivered_once_and_in_order(
    sent: list[tuple[str, str]], pace: list[int]
) -> None:
    """At whatever moments it is let in."""
    wire = Wire()
    expected: dict[str, list[int]] = {address: [] for address in ADDRESSES}
    moments = iter(pace)
    for number, (address, kind) in enumerate(sent):
        wire.send(FRAMES[kind](address, number))
        expected[address].append(number)
        moment = next(moments)
        if moment == 0 and wire.state(address) is State.ARRIVED:
            wire.send(auth(address))
        elif moment == 1 and wire.state(address) is State.AUTHENTICATING:
            wire.grant(address)
        elif moment == 2 and wire.state(address) is State.JOINING:
            wire.opened(address)
        elif moment == 3:
            wire.next(address)
    for address in sorted({address for address, _ in sent}):
        if wire.state(address) is State.ARRIVED:
            wire.send(auth(address))
        if wire.state(address) is State.AUTHENTICATING:
            wire.grant(address)
        if wire.state(address) is State.JOINING:
            wire.opened(address)
        wire.catch_up(address)
        assert numbers(wire.delivered, address) == expected[address]
        assert wire[address].ready
    assert wire.waiting == 0


STEPS = st.sampled_from([*FRAMES, *NUMBERED, "yes", "yes", "yes", "no", "the room ends it"])


@given(st.lists(st.tuples(st.sampled_from(ADDRESSES), STEPS), max_size=30))
@settings(max_examples=50, deadline=None)
def test_it_makes_no_difference_whether_usual_messages_are_taken_at_once(steps: list[tuple[str, str]]) -> None:
    """But in time. What is not taken at once is left untouched."""
    slow, fast = Wire(), Wire()
    for number, (address, kind) in enumerate([("a", "Auth"), ("a", "yes"), *steps]):
        if kind in FRAMES:
            data = FRAMES[kind](address, number)
            before = snapshot(fast)
            delivered = fast.protocol.receive_live(data)
            assert snapshot(fast) == before
            said = slow.send(data)
            assert said == (fast.send(data) if delivered is None else fast.perform([delivered]))
            if delivered is None and said[:1] and said[0].startswith("deliver"):
                assert kind not in ("SyncStep1", "SyncStep2", "Update", "Awareness")
        elif address.encode() in slow.protocol.channels:
            assert answer(slow, address, kind) == answer(fast, address, kind)
        assert state_of(slow) == state_of(fast)


def answer(wire: Wire, address: str, kind: str) -> list[str]:
    """Answer what is asked for an address, or end its session."""
    asks = any(one.channel is wire[address] and not isinstance(one, Renew) for one in wire.questions)
    if kind == "yes" and asks:
        return wire.let_in(address) if wire.state(address) is State.AUTHENTICATING else wire.open(address)
    if kind == "no" and asks:
        return wire.deny(address, Forbidden("no"))
    if kind == "the room ends it" and wire[address].joined:
        return wire.ended(address, DocumentDeleted("gone"))
    return []


def state_of(wire: Wire) -> object:
    channels = {
        address: (channel.session.state, channel.ready, channel.dropped, list(wire.protocol._waiting.of(address)))
        for address, channel in wire.protocol.channels.items()
    }
    return channels, wire.protocol._unproven, wire.protocol._departed


class Sockets(RuleBasedStateMachine):
    """Frames and answers in any order, and what must hold whatever they are."""

    addresses = st.sampled_from([*ADDRESSES, *ADDRESSES[:3]])
    final = st.sampled_from([Forbidden("no"), DocumentDeleted("gone"), DecodeError("bytes"), StoreRefused("no")])
    passing = st.sampled_from(
        [DocumentBusy("full"), AccessExpired("over"), AccessUnavailable("?"), ServerStopping("!")]
    )

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.connect()

    def connect(self) -> None:
        self.wire = Wire(Limits(documents=3, waiting_bytes=200, stateless=True, stateless_bytes=11))

    def run(self, steps: Sequence[Event]) -> None:
        """Perform events, of which each must be about a channel that is there or has been left."""
        wire, left = self.wire, set[int]()
        for step in steps:
            channel = getattr(step, "channel", None)
            if isinstance(step, Leave):
                left.add(id(step.channel))
            elif channel is not None and not isinstance(step, Note):
                assert channel in wire.protocol.channels.values() or id(channel) in left
        before = len(wire.delivered)
        wire.perform(steps)
        for at, (address, message) in enumerate(wire.delivered[before:], before):
            for number in numbers([(address, message)], address):
                # One after the other, and none twice.
                assert number > max(numbers(wire.delivered[:at], address), default=0)
        wire.perform(wire.protocol.relieve())

    def questions(self, *kinds: type[Question]) -> list[Question]:
        return [one for one in self.wire.questions if isinstance(one, kinds)]

    def take(self, data: st.DataObject, *kinds: type[Question]) -> Question:
        """Take a question, to answer it."""
        question = data.draw(st.sampled_from(self.questions(*kinds)))
        self.wire.questions.remove(question)
        return question

    @property
    def joined(self) -> list[Document]:
        return [channel for channel in self.wire.protocol.channels_open if channel.joined]

    @property
    def is_open(self) -> bool:
        return self.wire.closed is None

    @property
    def is_read(self) -> bool:
        return self.is_open and not self.wire.protocol.full

    # The client

    @precondition(lambda self: not self.is_open)
    @rule()
    def come_back(self) -> None:
        self.end_socket()
        self.connect()

    def receive(self, frame: bytes) -> None:
        delivered = self.wire.protocol.receive_live(frame) if self.number % 2 else None
        self.run(self.wire.protocol.receive(frame) if delivered is None else [delivered])

    @precondition(lambda self: self.is_read)
    @rule(address=addresses, kind=st.sampled_from([*FRAMES, *NUMBERED]))
    def send(self, address: str, kind: str) -> None:
        self.number += 1
        self.receive(FRAMES[kind](address, self.number))

    @precondition(lambda self: self.is_read)
    @rule(address=addresses)
    def send_as_a_provider_opens(self, address: str) -> None:
        for kind in ("Auth", "SyncStep1", "Awareness"):
            self.number += 1
            if self.is_read:
                self.receive(FRAMES[kind](address, self.number))

    @precondition(lambda self: self.is_read)
    @rule(address=addresses, size=st.integers(1, 100))
    def send_much(self, address: str, size: int) -> None:
        self.number += 1
        self.receive(update(address, b"%0*d" % (size, self.number)))

    # The server

    @precondition(lambda self: self.is_open and self.questions(Authenticate, Open))
    @rule(data=st.data(), access=st.sampled_from(Access))
    def let_in(self, data: st.DataObject, access: Access) -> None:
        question = self.take(data, Authenticate, Open)
        if isinstance(question, Authenticate):
            self.run(self.wire.protocol.granted(question.channel, question.session, access, None))
            assert question.session.state is State.JOINING
        else:
            self.run(self.wire.protocol.opened(question.channel, question.session))
            assert question.session.state is State.LIVE

    @precondition(lambda self: self.is_open)
    @rule()
    def let_everybody_in(self) -> None:
        protocol = self.wire.protocol
        while self.is_open and (found := self.questions(Authenticate, Open)):
            self.wire.questions.remove(found[0])
            channel, session, *_ = found[0]
            if isinstance(found[0], Authenticate):
                self.run(protocol.granted(channel, session, Access.WRITE, None))
            else:
                self.run(protocol.opened(channel, session))
            while self.is_open and (steps := protocol.next_waiting(channel, session)) is not None:
                self.run(steps)

    @precondition(lambda self: self.is_open and self.questions(Authenticate, Open))
    @rule(data=st.data(), error=final | passing)
    def deny(self, data: st.DataObject, error: CollabError) -> None:
        question = self.take(data, Authenticate, Open)
        steps = self.wire.protocol.denied(question.channel, question.session, error)
        if error.retryable:  # providers never ask again
            assert not any(read(step).endswith(f"denied: {error.public}") for step in steps)
        if any(isinstance(step, Retry) for step in steps):
            self.wire.questions.append(question)
        self.run(steps)

    @precondition(lambda self: self.is_open and self.questions(Renew))
    @rule(data=st.data(), access=st.sampled_from(Access), error=st.none() | final | passing)
    def renew(self, data: st.DataObject, access: Access, error: CollabError | None) -> None:
        question = self.take(data, Renew)
        if error is None:
            self.run(self.wire.protocol.renewed(question.channel, question.session, access))
            assert question.session.access is access
        else:
            self.run(self.wire.protocol.renewal_denied(question.channel, question.session, error))

    @precondition(lambda self: self.is_open and any(not channel.ready for channel in self.joined))
    @rule(data=st.data(), count=st.integers(1, 5))
    def take_what_waits(self, data: st.DataObject, count: int) -> None:
        channel = data.draw(st.sampled_from([one for one in self.joined if not one.ready]))
        session = channel.session
        for _ in range(count):
            steps = self.wire.protocol.next_waiting(channel, session)
            if steps is None:
                assert channel.ready or session.state is State.CLOSED
                break
            self.run(steps)

    @precondition(lambda self: self.is_open and self.joined)
    @rule(data=st.data(), error=final, how=st.sampled_from(["failed", "ended", "expired", "lags", "lags", "lags"]))
    def get_into_trouble(self, data: st.DataObject, error: CollabError, how: str) -> None:
        channel = data.draw(st.sampled_from(self.joined))
        protocol, session = self.wire.protocol, channel.session
        if how == "failed":
            self.run(protocol.failed(channel, session, error))
        elif how == "ended":
            self.wire.end(session)
            self.run(protocol.ended(channel, session, error))
        elif how == "lags":
            session.on(Step.LAGGED if session.state is State.LIVE else Step.CAUGHT_UP)
        elif len(self.joined) > 1:
            self.run(protocol.expiring(channel))
            self.run(protocol.expired(channel))

    @precondition(lambda self: self.is_open)
    @rule(address=addresses)
    def confirm(self, address: str) -> None:
        self.run(self.wire.protocol.confirm_close(address.encode()))

    @precondition(lambda self: self.is_open and self.wire.stale)
    @rule(data=st.data(), error=final | passing)
    def answer_in_vain(self, data: st.DataObject, error: CollabError) -> None:
        """Answer for a session that was left: that changes nothing."""
        channel, session, *_ = data.draw(st.sampled_from(self.wire.stale))
        protocol, before = self.wire.protocol, snapshot(self.wire)
        assert protocol.granted(channel, session, Access.READ, "mallory") == ()
        assert protocol.opened(channel, session) == ()
        assert protocol.denied(channel, session, error) == ()
        assert protocol.renewed(channel, session, Access.ADMIN) == ()
        assert len(protocol.renewal_denied(channel, session, error)) == 1
        assert protocol.failed(channel, session, error) == ()
        assert protocol.ended(channel, session, error) == ()
        assert protocol.next_waiting(channel, session) is None
        assert snapshot(self.wire) == before

    # What holds

    @invariant()
    def counts(self) -> None:
        protocol = self.wire.protocol
        assert self.wire.waiting >= 0
        assert len(protocol.channels) <= 3
        assert protocol._unproven <= protocol.channels.keys()
        assert len(protocol._departed) <= 20
        waits = any(one.held and one.session.state is State.JOINING for one in protocol.channels_open)
        assert bool(protocol.overdue()) is not (protocol.established or waits)
        assert not any(one.held and (one.ready or one.joined) for one in protocol.channels_open)
        assert (protocol.keepalive() is None) is not bool(protocol.channels)

    @invariant()
    def only_what_is_live_and_has_nothing_waiting_is_ready(self) -> None:
        if self.is_open:
            for address, channel in self.wire.protocol.channels.items():
                if channel.ready:
                    assert channel.joined and not list(self.wire.protocol._waiting.of(address))

    @invariant()
    def every_session_is_left_once_or_that_of_its_channel(self) -> None:
        sessions = [session for channel in self.wire.made for session in channel.sessions]
        left = self.wire.left
        assert len({id(session) for session in left}) == len(left)
        here = [channel.session for channel in self.wire.protocol.channels_open]
        assert {id(one) for one in sessions} == {id(one) for one in [*left, *here]}
        assert len(sessions) == len(left) + len(here)
        assert {one.state for one in left} <= {State.CLOSED}

    @invariant()
    def whoever_waits_for_an_answer_has_asked(self) -> None:
        asked = {id(one.session): type(one) for one in self.wire.questions if not isinstance(one, Renew)}
        waits = {State.AUTHENTICATING: Authenticate, State.JOINING: Open}
        if self.is_open:
            expected = {
                id(channel.session): waits[channel.session.state]
                for channel in self.wire.protocol.channels_open
                if channel.session.state in waits
            }
            assert asked == expected
        for one in self.wire.questions:
            assert one.channel.session is one.session

    def end_socket(self) -> None:
        self.wire.close()
        assert not self.wire.protocol.channels and self.wire.waiting == 0
        assert not self.wire.protocol._unproven
        self.every_session_is_left_once_or_that_of_its_channel()

    def teardown(self) -> None:
        self.end_socket()


TestSockets = Sockets.TestCase
TestSockets.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
