"""One socket of y-websocket as a state machine: bytes in, events and bytes out; no socket, no clock, no loop.

Strategy: most tests feed bytes to a `Connection` and compare the events. Where a row of the documentation says what
comes back, a `Socket` performs the events on a real room of the engine and keeps the bytes that its client gets.
Each row of the y-websocket part of `docs/protocol.md` has its tests here, or where the rule is performed:

    Address                             test_the_document_is_what_stands_in_the_path
                                        test_a_text_that_is_no_name_is_refused_for_good
    Frames: 0 Sync                      test_a_message_goes_to_the_room
    Frames: 1 Awareness                 test_a_message_goes_to_the_room, test_a_state_goes_to_all_with_the_sender
    Frames: 2 Auth                      test_an_edit_of_a_reader_is_answered_by_its_refusal
                                        test_auth_from_a_client_means_nothing
    Frames: 3 QueryAwareness            test_a_query_is_answered_with_all_states
    unknown types                       test_an_unknown_type_is_ignored
    bytes behind a message, numbers     test_a_malformed_frame_closes_the_socket
    Session 1: opens, then speaks       test_the_server_opens_the_document_and_asks_first
                                        test_one_who_joins_is_told_the_states_of_the_others
    Session 2: SyncStep1                test_a_step_1_is_answered_to_its_sender_alone
    Session 3: news goes to everybody   test_an_edit_goes_to_all_with_the_sender
                                        test_edits_of_one_turn_travel_as_one
                                        test_what_holds_nothing_new_goes_nowhere
    Session 4: keepalive                test_a_silent_client_is_sent_the_empty_awareness_update
               its times, and pings     tests/transports/test_websocket.py
    Close codes: 1003                   test_codec.py, test_text_frames_are_refused_so_that_the_client_comes_back
    Close codes: 1009                   tests/transports/test_websocket.py,
                                        test_a_frame_that_announces_more_than_there_is_is_1009
    Close codes: all the others         test_an_end_has_the_code_of_its_row, and the test that reads the table:
                                        test_the_table_of_close_codes_is_complete
    an upgrade that is none             tests/transports/test_websocket.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from collab import errors
from collab.engine.document import Document
from collab.engine.room import Answer, Effect, Refused, Room, Send, Unseen
from collab.errors import (
    AccessUnavailable,
    CollabError,
    DocumentDeleted,
    Forbidden,
    InternalError,
    InvalidDocumentName,
    PeerTooSlow,
    StoreUnavailable,
    Unauthenticated,
    UpdateError,
)
from collab.protocol import events
from collab.protocol.awareness import UNREADABLE, AwarenessUpdate, Entry, QueryAwareness, decode_awareness
from collab.protocol.events import Authenticate, Close, Deliver, Ignored, Join, Leave, Note, Open
from collab.protocol.messages import CloseCode, Message
from collab.protocol.session import Access, Event, Session, State
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.ywebsocket import codec
from collab.protocol.ywebsocket.connection import Connection
from tests.support.author import Author, content
from tests.support.wsclient import (
    AUTH,
    AWARENESS,
    EMPTY_UPDATE,
    STEP1,
    STEP2,
    SYNC,
    UPDATE,
    Frame,
    awareness,
    parse,
    step1,
    step2,
    update,
)

Make = Callable[[], Connection["Channel"]]

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "protocol.md"


class Channel(events.Channel):
    def new_session(self) -> Session:
        return Session()


def arrived() -> Connection[Channel]:
    return Connection(Channel())


def authenticating(name: bytes = b"d") -> Connection[Channel]:
    connection = arrived()
    connection.open(name, "a token")
    return connection


def joining(access: Access = Access.WRITE) -> Connection[Channel]:
    connection = authenticating()
    connection.granted(connection.channel, connection.channel.session, access, "ann")
    return connection


def live(access: Access = Access.WRITE) -> Connection[Channel]:
    connection = joining(access)
    connection.opened(connection.channel, connection.channel.session)
    connection.channel.session.on(Event.OPENED)
    return connection


def lagging() -> Connection[Channel]:
    connection = live()
    connection.channel.session.on(Event.LAGGED)
    return connection


def receiving() -> Connection[Channel]:
    connection = live()
    connection.channel.session.on(Event.RECEIVES)
    return connection


def closed() -> Connection[Channel]:
    connection = live()
    connection.channel.session.on(Event.ENDED)
    connection.ended(connection.channel, connection.channel.session, PeerTooSlow("x"))
    return connection


STATES = {
    State.ARRIVED: arrived,
    State.AUTHENTICATING: authenticating,
    State.JOINING: joining,
    State.LIVE: live,
    State.LAGGING: lagging,
    State.RECEIVING: receiving,
    State.CLOSED: closed,
}
JOINED = (State.LIVE, State.LAGGING, State.RECEIVING)


class Socket:
    """Performs what a connection asks for on a real room, and keeps what its client gets.

    Attributes:
        sent: the frames that the client got.
        code: how its socket was closed.
        noted: what was written into the log and the audit log.
    """

    def __init__(self, room: Room, access: Access = Access.WRITE, name: bytes = b"d") -> None:
        self.room = room
        self.sent: list[bytes] = []
        self.code: CloseCode | None = None
        self.noted: list[object] = []
        self.connection = arrived()
        self._access = access
        self.perform(self.connection.open(name, "a token"))

    def send(self, *frames: bytes) -> None:
        """Do what comes of frames of the client; each goes the usual way first, as in the transport."""
        for frame in frames:
            delivered = self.connection.receive_live(frame)
            self.perform((delivered,) if delivered is not None else self.connection.receive(frame))

    def got(self) -> list[Frame]:
        """Give and forget the frames that have come."""
        frames, self.sent = self.sent, []
        return list(map(parse, frames))

    def perform(self, steps: Iterable[events.Event[Channel]]) -> None:
        for step in steps:
            match step:
                case Authenticate(channel, session):
                    self.perform(self.connection.granted(channel, session, self._access, "ann"))
                case Open(channel, session):
                    self.perform(self.connection.opened(channel, session))
                case Join(_, session):
                    self._perform_effects(self.room.join(session))
                case Deliver(channel, message):
                    session = channel.session
                    try:
                        self._perform_effects(self.room.receive(session, message))
                    except CollabError as error:
                        self.perform(self.connection.failed(channel, session, error))
                case Close(code, error):
                    self.code = code
                    self.noted.append(error)
                case _:
                    self.noted.append(step)

    def _perform_effects(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            assert effect.session is self.connection.channel.session
            match effect:
                case Send(_, message):
                    self.sent.append(codec.encode(message))
                case Answer(_, vector, question):
                    assert question is None, "only a protocol that acknowledges needs one"
                    self.sent.append(codec.encode(SyncStep2(self.room.document.encode_state_as_update(vector))))
                case Refused() | Unseen():
                    self.noted.append(effect)
                case _:
                    raise AssertionError(effect)


def make_room(**limits: int) -> Room:
    return Room(
        Document(), **{"max_document_bytes": 1 << 20, "max_awareness_bytes": 1_000, "max_awareness_ids": 3, **limits}
    )


def joined(room: Room, access: Access = Access.WRITE) -> Socket:
    """A client that has answered the server's question, and of whose beginning nothing is left to be read."""
    socket = Socket(room, access)
    socket.send(step2(EMPTY_UPDATE))
    room.end_turn()
    socket.got()
    return socket


def end_turn(room: Room, *sockets: Socket) -> None:
    """Send to every client what the turn has gathered."""
    end = room.end_turn()
    for socket in sockets:
        if end.delta is not None:
            socket.sent.append(codec.encode(SyncUpdate(end.delta)))
        if end.awareness is not None:
            socket.sent.append(codec.encode(AwarenessUpdate(end.awareness)))


# Address


@pytest.mark.parametrize("name", ["d", "notes/ä b", "a//b/", "😀", "x" * 512, " a "])
def test_the_document_is_what_stands_in_the_path(name: str) -> None:
    connection = arrived()
    session = connection.channel.session
    assert connection.name is None
    (step,) = connection.open(name.encode(), "a token")
    assert step == Authenticate(connection.channel, session, "a token", name)
    assert connection.name == name
    assert session.state is State.AUTHENTICATING


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\0", b"a\0b", b" \t", "ä".encode() * 257, b"x" * 513])
def test_a_text_that_is_no_name_is_refused_for_good(raw: bytes) -> None:
    connection = arrived()
    (step,) = connection.open(raw, "a token")
    assert isinstance(step, Close)
    assert step.code.code == 4400
    assert isinstance(step.error, InvalidDocumentName)
    assert step.refused, "told more and more slowly to those that come back all the same"
    assert connection.name is None
    assert connection.close() == (Leave(connection.channel, connection.channel.session),)


# Admission


def test_a_good_token_opens_the_document_and_an_open_document_is_joined() -> None:
    connection = authenticating()
    channel, session = connection.channel, connection.channel.session
    assert connection.granted(channel, session, Access.READ, "ann") == (Open(channel, session),)
    assert (session.state, session.access, session.author) == (State.JOINING, Access.READ, "ann")
    assert connection.opened(channel, session) == (Join(channel, session),)
    assert session.state is State.JOINING, "the room lets it in"


@pytest.mark.parametrize(
    "state", [state for state in STATES if state is not State.AUTHENTICATING], ids=lambda state: state.value
)
def test_an_answer_about_a_token_that_nobody_waits_for_means_nothing(state: State) -> None:
    connection = STATES[state]()
    session = connection.channel.session
    before = session.access, session.author
    assert connection.granted(connection.channel, session, Access.ADMIN, "mallory") == ()
    assert (session.state, session.access, session.author) == (state, *before)


@pytest.mark.parametrize(
    "state", [state for state in STATES if state is not State.JOINING], ids=lambda state: state.value
)
def test_a_document_that_nobody_waits_for_is_not_joined(state: State) -> None:
    connection = STATES[state]()
    assert connection.opened(connection.channel, connection.channel.session) == ()
    assert connection.channel.session.state is state


@pytest.mark.parametrize("make", [authenticating, joining])
@pytest.mark.parametrize("error", [Forbidden("x"), AccessUnavailable("x"), StoreUnavailable("x")])
def test_an_admission_that_fails_closes_the_socket(make: Make, error: CollabError) -> None:
    connection = make()
    steps = connection.denied(connection.channel, connection.channel.session, error)
    assert steps == (Close(codec.close_code(error), error, refused=not error.retryable),)


@pytest.mark.parametrize("error", [errors.AccessExpired("x"), errors.AccessNotYet("x")])
def test_one_that_comes_back_with_the_same_token_is_told_so_more_and_more_slowly(error: CollabError) -> None:
    """Version 3.0 waits 100 ms; and the code is none after which 3.1 stays away."""
    connection = authenticating()
    (step,) = connection.denied(connection.channel, connection.channel.session, error)
    assert isinstance(step, Close) and step.refused
    assert not 4400 <= step.code.code < 4500


def test_nothing_waits_and_nothing_is_confirmed_on_a_socket_with_one_document() -> None:
    connection = live()
    channel, session = connection.channel, connection.channel.session
    assert connection.full is False
    assert connection.relieve() == ()
    assert connection.next_waiting(channel, session) is None
    assert connection.overdue() == ()
    assert connection.confirm_close(b"d") == ()


def test_a_token_that_is_looked_at_again_changes_what_its_client_may_do() -> None:
    connection = live()
    channel, session = connection.channel, connection.channel.session
    for access in (Access.READ, Access.READ, Access.WRITE):
        assert connection.renewed(channel, session, access) == (), "there is no message that says so"
        assert session.access is access and session.state is State.LIVE
    connection.renewed(channel, channel.new_session(), Access.READ)
    assert session.access is Access.WRITE, "an answer about another session"


@pytest.mark.parametrize(
    ("error", "code"), [(Forbidden("x"), 4403), (Unauthenticated("x"), 4401), (AccessUnavailable("x"), None)]
)
def test_a_token_that_is_refused_when_it_is_looked_at_again_ends_the_session(
    error: CollabError, code: int | None
) -> None:
    connection = live()
    channel, session = connection.channel, connection.channel.session
    (step,) = connection.renewal_denied(channel, session, error)
    if code is None:
        assert step == Note(channel, error), "what cannot be decided leaves all as it is"
    else:
        assert isinstance(step, Close) and step.code.code == code and not step.refused
    assert connection.renewal_denied(channel, channel.new_session(), error) == ()
    connection.close()
    session.on(Event.ENDED)
    assert connection.renewal_denied(channel, session, error) == ()


def test_its_one_channel_is_there_all_the_time() -> None:
    for state, make in STATES.items():
        connection = make()
        assert list(connection.channels_open) == [connection.channel]
        assert connection.channel.joined is (state in JOINED)


# Frames


MESSAGES: list[tuple[bytes, Message]] = [
    (step1(b"\x01\x05\x02"), SyncStep1(b"\x01\x05\x02")),
    (step2(EMPTY_UPDATE), SyncStep2(EMPTY_UPDATE)),
    (update(EMPTY_UPDATE), SyncUpdate(EMPTY_UPDATE)),
    (update(bytes(1_000)), SyncUpdate(bytes(1_000))),
    (awareness((1, 2, "{}")), AwarenessUpdate(b"\x01\x01\x02\x02{}")),
    (b"\x03", QueryAwareness()),
]


@pytest.mark.parametrize("make", [live, lagging, receiving])
@pytest.mark.parametrize(("frame", "message"), MESSAGES, ids=lambda value: type(value).__name__)
def test_a_message_goes_to_the_room(make: Make, frame: bytes, message: Message) -> None:
    """Both ways in say the same: the usual one, taken while the socket is read, and the other."""
    connection = make()
    delivered = connection.receive_live(frame)
    assert delivered == Deliver(connection.channel, message, len(frame))
    assert type(delivered.message) is type(message)
    assert connection.receive(frame) == (delivered,)


@pytest.mark.parametrize("frame", [b"\x04", b"\x2a\x00\x01\x02", b"\xff\xff\x03abc"])
def test_an_unknown_type_is_ignored(frame: bytes) -> None:
    connection = live()
    assert connection.receive_live(frame) is None, "left to the other way in"
    assert connection.receive(frame) == (Ignored(connection.channel),)


@pytest.mark.parametrize("frame", [b"\x02", b"\x02\x00\x02no", b"\x02\x01"])
def test_auth_from_a_client_means_nothing(frame: bytes) -> None:
    connection = live()
    assert connection.receive_live(frame) is None
    assert connection.receive(frame) == (Ignored(connection.channel),)


MALFORMED = {
    "an empty frame": b"",
    "an unfinished type": b"\x80",
    "a type above 2^53": b"\xff" * 12,
    "a sync type alone": b"\x00",
    "a sync kind that is none": b"\x00\x03\x00",
    "a length beyond the frame": b"\x00\x02\x05abc",
    "an overlong length": b"\x00\x02\x83\x00abc",
    "bytes behind an update": update(EMPTY_UPDATE) + b"\x00",
    "bytes behind a step 1": step1() + b"\x00",
    "two messages in a frame": update(EMPTY_UPDATE) + update(EMPTY_UPDATE),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_frame_closes_the_socket(what: str) -> None:
    connection = live()
    assert connection.receive_live(MALFORMED[what]) is None, "left to the other way in"
    (step,) = connection.receive(MALFORMED[what])
    assert isinstance(step, Close)
    assert step.code == CloseCode(1007, "malformed message")
    assert isinstance(step.error, errors.DecodeError), "the log says what is wrong with it"
    assert not step.refused


@pytest.mark.parametrize(
    "frame",
    [b"\x01", b"\x01\x05", b"\x01\xff", awareness((1, 1, "{}")) + b"\x00"],
    ids=["nothing", "cut", "no length", "bytes behind it"],
)
def test_a_malformed_awareness_message_is_left_to_the_room_which_refuses_the_presence_only(frame: bytes) -> None:
    connection = live()
    assert connection.receive_live(frame) is None
    assert connection.receive(frame) == (Deliver(connection.channel, UNREADABLE, len(frame)),)


@pytest.mark.parametrize("state", [state for state in STATES if state not in JOINED], ids=lambda state: state.value)
@pytest.mark.parametrize("frame", [update(EMPTY_UPDATE), b"", b"\x2a"], ids=["an update", "malformed", "unknown"])
def test_nothing_is_taken_of_a_client_that_has_not_joined(state: State, frame: bytes) -> None:
    connection = STATES[state]()
    assert connection.receive_live(frame) is None
    assert connection.receive(frame) == ()
    assert connection.channel.session.state is state


# Session, on a real room


def test_the_server_opens_the_document_and_asks_first() -> None:
    room = make_room()
    socket = Socket(room)
    assert socket.sent == [bytes.fromhex("00000100")], "that is what brings offline edits in"
    assert list(room.sessions) == [socket.connection.channel.session]
    socket.send(step2(Author(1).type("offline")))
    other = Socket(room)
    (question,) = other.got()
    assert (question.type, question.kind) == (SYNC, STEP1)
    assert question.payload != b"\x00", "it has the offline edit by now"


def test_one_who_joins_is_told_the_states_of_the_others() -> None:
    room = make_room()
    joined(room).send(awareness((7, 1, '{"name":"ann"}')))
    question, states = Socket(room).got()
    assert (question.type, question.kind) == (SYNC, STEP1)
    assert states.type == AWARENESS
    assert decode_awareness(states.payload) == [Entry(7, 1, b'{"name":"ann"}')]


def test_a_step_1_is_answered_to_its_sender_alone() -> None:
    room, author = make_room(), Author(1)
    writer, reader = joined(room), joined(room)
    writer.send(update(author.type("a")))
    end_turn(room)
    vector = author.doc.get_state()
    writer.send(update(author.type("b")))
    reader.send(step1())
    (answer,) = reader.got()
    assert (answer.type, answer.kind) == (SYNC, STEP2)
    assert content(answer.payload) == "ab", "edits of the last moment included"
    reader.send(step1(vector))
    (rest,) = reader.got()
    assert len(rest.payload) < len(answer.payload)
    reader.send(step1(author.doc.get_state()))
    assert reader.got() == [Frame(SYNC, STEP2, EMPTY_UPDATE)], "synced, though there is nothing to tell"
    assert writer.got() == []


@pytest.mark.parametrize("frame", [update, step2])
def test_an_edit_goes_to_all_with_the_sender(frame: Callable[[bytes], bytes]) -> None:
    room, author = make_room(), Author(1)
    sender, other = joined(room), joined(room)
    edit = author.type("hello")
    sender.send(frame(edit))
    assert sender.got() == [], "nothing is acknowledged"
    end_turn(room, sender, other)
    assert sender.got() == other.got() == [Frame(SYNC, UPDATE, edit)], "the very bytes that came"


def test_edits_of_one_turn_travel_as_one() -> None:
    room, ann, bob = make_room(), Author(1), Author(2)
    one, two = joined(room), joined(room)
    one.send(update(ann.type("a")), update(ann.type("b")))
    two.send(update(bob.type("c")))
    end_turn(room, one, two)
    (delta,) = one.got()
    assert (delta.type, delta.kind) == (SYNC, UPDATE)
    assert sorted(content(delta.payload)) == ["a", "b", "c"]
    assert two.got() == [delta]


def test_what_holds_nothing_new_goes_nowhere() -> None:
    room, author = make_room(), Author(1)
    sender, other = joined(room), joined(room)
    edit = author.type("a")
    sender.send(update(edit))
    end_turn(room)
    sender.send(update(edit), step2(edit), update(EMPTY_UPDATE))
    end_turn(room, sender, other)
    assert sender.got() == other.got() == []
    assert sender.code is None


def test_a_state_goes_to_all_with_the_sender() -> None:
    room = make_room()
    sender, other = joined(room), joined(room)
    sender.send(awareness((7, 1, "{}")))
    end_turn(room, sender, other)
    assert sender.got() == other.got() == [Frame(AWARENESS, None, b"\x01\x07\x01\x02{}")]


def test_a_query_is_answered_with_all_states() -> None:
    room = make_room()
    asker = joined(room)
    asker.send(b"\x03")
    assert asker.got() == [], "there are none"
    joined(room).send(awareness((7, 1, "{}"), (8, 1, "{}")))
    asker.send(b"\x03")
    (answer,) = asker.got()
    assert [entry.client for entry in decode_awareness(answer.payload)] == [7, 8]


@pytest.mark.parametrize("frame", [update, step2])
def test_an_edit_of_a_reader_is_answered_by_its_refusal(frame: Callable[[bytes], bytes]) -> None:
    room, author = make_room(), Author(1)
    reader = joined(room, Access.READ)
    reader.send(frame(author.type("a")))
    assert reader.got() == [Frame(AUTH, 0, b"read-only: this change was not taken")]
    assert room.end_turn().delta is None
    assert reader.code is None, "it reads on"
    reader.send(frame(EMPTY_UPDATE))
    assert reader.got() == [], "it has changed nothing"


def test_a_silent_client_is_sent_the_empty_awareness_update() -> None:
    for make in STATES.values():
        assert make().keepalive() == bytes.fromhex("010100")


# Close codes


ENDS: dict[int, list[CollabError]] = {
    1007: [errors.DecodeError("x"), UpdateError("x")],
    1008: [errors.LimitExceeded("awareness")],
    1012: [errors.ServerStopping("x")],
    1013: [
        AccessUnavailable("x"),
        StoreUnavailable("x"),
        errors.Overloaded("x"),
        errors.DocumentBusy("x"),
        errors.DamagedDocument("x"),
        errors.AccessNotYet("x"),
        errors.KeptOut("x"),
    ],
    4400: [InvalidDocumentName("x")],
    4401: [errors.Unauthenticated("x")],
    4403: [Forbidden("x"), errors.AccessDenied("x")],
    4404: [DocumentDeleted("x"), errors.DocumentNotFound("x"), errors.DocumentRenamed("x")],
    4413: [errors.DocumentTooLarge("x"), errors.MessageTooLarge("x"), errors.StoreRefused("x")],
    4500: [InternalError("x"), errors.InvalidTransition("x")],
    4501: [errors.AccessExpired("x")],
    4502: [errors.DocumentReloaded("x")],
    4503: [errors.Kicked("x")],
    4508: [errors.PeerTooSlow("x")],
}


@pytest.mark.parametrize(
    ("code", "error"),
    [pytest.param(code, error, id=f"{code} {type(error).__name__}") for code, row in ENDS.items() for error in row],
)
def test_an_end_has_the_code_of_its_row(code: int, error: CollabError) -> None:
    told = CloseCode(code, error.public)
    connection = live()
    channel, session = connection.channel, connection.channel.session
    in_vain = not error.retryable or isinstance(error, (errors.AccessExpired, errors.AccessNotYet))
    assert connection.denied(channel, session, error) == (Close(told, error, refused=in_vain),)
    final = isinstance(error, errors.DocumentTooLarge | errors.MessageTooLarge)
    assert connection.failed(channel, session, error) == (Close(told, error, refused=final),)
    assert connection.ended(channel, session, error) == (Close(told),), "the room has noted why"
    assert connection.close_code(error) == told


def test_an_error_of_nobody_has_the_code_of_a_defect() -> None:
    assert live().close_code(RuntimeError("secret")) == CloseCode(4500, "internal error, come back")


def test_only_what_does_not_change_by_waiting_stops_a_client_for_good() -> None:
    for code, row in ENDS.items():
        for error in row:
            assert not (error.retryable and 4400 <= code < 4500)
    final = {type(error) for code, row in ENDS.items() for error in row if 4400 <= code < 4500}
    assert final == {
        InvalidDocumentName,
        errors.Unauthenticated,
        errors.AccessDenied,
        Forbidden,
        DocumentDeleted,
        errors.DocumentRenamed,
        errors.DocumentNotFound,
        errors.DocumentTooLarge,
        errors.MessageTooLarge,
        errors.StoreRefused,
    }


def test_the_table_of_close_codes_is_complete() -> None:
    """The documentation names exactly the codes that clients can get, and says rightly which of them are final."""
    text = DOCUMENTATION.read_text()
    table = text[text.index("### Close codes") :].split("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \| .* \| (stops|comes back) \|$", table, re.MULTILINE)
    listed = {int(code): what for codes, what in rows for code in codes.split(",")}
    assert {code: what == "stops" for code, what in listed.items()} == {
        code: 4400 <= code < 4500 for code in {*codec.CLOSE_CODES.values(), codec.CLOSE_TEXT.code, 1002, 1009}
    }
    assert set(ENDS) == set(codec.CLOSE_CODES.values())


def test_edits_of_whoever_may_write_may_be_large() -> None:
    assert joining().may_send(update(b"x")) is None, "the document is being opened"
    connection = live()
    assert connection.may_send(update(b"x")) and connection.may_send(step2(b"x")[:2])
    for other in (step1(), awareness((1, 1, "{}")), b"\x00", b"", b"\x03"):
        assert connection.may_send(other) is False
    assert live(Access.READ).may_send(update(b"x")) is False
    assert closed().may_send(update(b"x")) is False


def test_a_message_that_was_not_read_is_refused_for_good() -> None:
    connection = live()
    [told] = connection.unread(update(b"x"), 1_000)
    assert isinstance(told, Close) and told.refused
    assert told.code == CloseCode(4413, "the message is too large")
    [told] = connection.unread(step1(b"\0"), 1_000)
    assert isinstance(told, Close) and told.code == CloseCode(1008, "the message is too large")
    assert closed().unread(update(b"x"), 1_000) == ()


@pytest.mark.parametrize("access", [Access.READ, Access.WRITE])
def test_presence_that_was_not_read_costs_presence_only(access: Access) -> None:
    connection = live(access)
    assert connection.unread(awareness((1, 1, "{}")), 1_000) == (Deliver(connection.channel, UNREADABLE, 1_000),)
    assert closed().unread(awareness((1, 1, "{}")), 1_000) == ()


def test_an_edit_of_a_reader_that_was_not_read_is_the_rooms_to_refuse() -> None:
    connection = live(Access.READ)
    assert connection.unread(update(b"x"), 1_000) == (events.RefuseUnread(connection.channel, False),)
    assert connection.unread(step2(b"x"), 1_000) == (events.RefuseUnread(connection.channel, True),)


@pytest.mark.parametrize("frame", [update(b"\x01"), step1(b"\x01\xff")])
def test_a_malformed_content_closes_its_sender_alone(frame: bytes) -> None:
    room = make_room()
    bad, good = joined(room), joined(room)
    bad.send(frame)
    assert bad.code is not None and bad.code.code == 1007
    assert good.code is None


def test_a_bound_that_is_passed_closes_its_sender_alone() -> None:
    room = make_room(max_document_bytes=500)
    bad, good = joined(room), joined(room)
    bad.send(update(Author(1).type("x" * 600)))
    assert bad.code is not None and (bad.code.code, good.code) == (4413, None)
    assert bad.noted and isinstance(bad.noted[-1], errors.LimitExceeded)
    end_turn(room, good)
    assert good.got() == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (awareness((1, 1, '"' + "x" * 1_000 + '"')), "awareness: more than 1000 bytes of state on one connection"),
        (awareness(*((n, 1, "{}") for n in range(4))), "awareness: more than 3 client IDs on one connection"),
        (awareness((1, 1, "{")), "malformed message"),
        (b"\x01", "malformed message"),
    ],
)
def test_trouble_with_presence_costs_presence_only(frame: bytes, reason: str) -> None:
    room = make_room()
    bad, good = joined(room), joined(room)
    bad.send(frame)
    (told,) = bad.got()
    assert (told.type, told.payload) == (AUTH, f"presence not shown: {reason}".encode())
    bad.send(frame)
    assert bad.got() == [], "once is enough"
    edit = Author(1).type("goes on")
    bad.send(update(edit))
    end_turn(room, bad, good)
    assert parse(update(edit)) in good.got() and parse(update(edit)) in bad.got()
    assert bad.code is None


# What ends


def test_what_was_granted_ends_with_its_time_and_another_token_may_be_shown() -> None:
    connection = live()
    assert connection.expiring(connection.channel) == (), "the client cannot be asked for another"
    (step,) = connection.expired(connection.channel)
    assert isinstance(step, Close)
    assert step.code.code == 4501
    assert isinstance(step.error, errors.AccessExpired)
    assert not step.refused


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.value)
def test_the_end_of_a_socket_leaves_its_document(state: State) -> None:
    connection = STATES[state]()
    session = connection.channel.session
    assert connection.close() == (Leave(connection.channel, session),)
    # The room sees to the session of one that has joined it; it takes the awareness states with it.
    assert session.state is (state if state in JOINED else State.CLOSED)
    assert connection.close() == (Leave(connection.channel, session),), "once more does no harm"
    assert connection.receive_live(update(EMPTY_UPDATE)) is None, "nothing more is taken"
    assert connection.receive(update(EMPTY_UPDATE)) == ()
