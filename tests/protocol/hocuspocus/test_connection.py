"""One socket of the Hocuspocus protocol, line by line of docs/protocol.md: frames in, events and frames out.

Strategy: bytes in, events and bytes out, without a socket, a loop or a clock. Each call of a `Wire` returns what came
of it as a list of short texts, so that a test reads like a record of the wire.

Where the lines of docs/protocol.md are tested (a name without a file is a test of this module):

Frames
    0 Sync                        test_a_message_of_a_live_session_is_delivered
    1 Awareness                   test_a_message_of_a_live_session_is_delivered
    2 Auth                        test_a_token_is_looked_at_with_or_without_a_version
    1 + reason                    test_what_will_not_pass_is_told_under_its_address,
                                  test_the_scope_is_told_when_the_document_is_open,
                                  test_a_fresh_token_is_asked_for_before_the_old_one_runs_out
    3 QueryAwareness              test_a_message_of_a_live_session_is_delivered
    4 SyncReply                   test_a_message_of_a_live_session_is_delivered
    5 Stateless                   test_a_message_of_a_live_session_is_delivered
    6 BroadcastStateless          test_a_broadcast_of_a_client_ends_its_session_by_close
    7 CLOSE                       test_close_ends_one_session_and_is_answered_later
    8 SyncStatus                  tests/protocol/hocuspocus/test_codec.py, tests/engine/test_room.py;
                                  of a client: test_what_a_client_need_not_say_is_ignored
    the address                   test_everything_goes_to_a_client_under_the_address_under_which_it_came
    Ping and Pong                 test_a_ping_is_answered_and_a_pong_is_not
    unknown types                 test_what_a_client_need_not_say_is_ignored
    bytes behind a message        test_a_malformed_message_ends_its_session_alone

Session
    1.                            test_what_comes_before_a_client_is_let_in_waits_in_order,
                                  test_so_much_may_wait_on_a_socket_that_was_let_in_nowhere,
                                  test_100_addresses_may_wait_without_a_token,
                                  test_a_step_1_before_any_token_is_an_empty_token
    2.                            test_a_document_is_opened_step_by_step,
                                  test_a_slow_or_refused_address_holds_up_no_other
    3.                            test_a_denied_client_may_show_another_token,
                                  test_of_what_a_denied_client_sends_the_last_step_1_and_awareness_are_kept
    4.                            test_a_token_on_a_live_session_is_looked_at_too,
                                  test_a_changed_scope_is_told_and_an_unchanged_one_is_not,
                                  test_a_refused_renewal_ends_the_session,
                                  test_a_renewal_that_cannot_be_decided_now_changes_nothing
    5.                            test_close_ends_one_session_and_is_answered_later,
                                  test_a_close_is_not_answered_when_the_document_was_opened_again
    6.                            test_a_socket_on_which_nothing_was_opened_in_time_is_closed

SyncStatus: what "saved" means
    1 the transaction             tests/engine/test_room.py; a connection has its part in what was dropped:
                                  test_updates_that_were_dropped_are_acknowledged_when_the_client_is_let_in
    0 refused                     tests/engine/test_room.py,
                                  test_a_reader_is_not_told_that_dropped_updates_were_saved
    nothing yet                   tests/engine/test_room.py

Stateless messages
    stateless                     test_stateless_messages_may_be_turned_off
    max_stateless_bytes           test_a_stateless_message_has_a_bound
    clients that may only read    test_a_stateless_message_of_a_reader_is_left_to_the_room_whatever_its_size
    max_stateless_per_second      tests/hostile/test_hocuspocus.py

How a session ends
    no valid token, not allowed   test_what_will_not_pass_is_told_under_its_address,
                                  test_a_name_that_is_none_is_refused_under_its_address,
                                  test_a_malformed_message_ends_its_session_alone
    the server restarts           test_what_may_pass_closes_the_socket
    an operator has               test_what_may_pass_closes_the_socket, tests/transports/test_control.py
    the store is away             test_what_may_pass_closes_the_socket,
                                  test_an_admission_is_tried_again_while_other_documents_are_live
    what is stored is damaged     test_a_damaged_document_is_held_also_where_nothing_else_is_open_yet
    too slow                      test_what_may_pass_closes_the_socket
    the token has run out         test_access_that_has_run_out_closes_the_socket,
                                  test_a_provider_alone_whose_token_has_just_run_out_is_made_to_come_back,
                                  test_beside_other_documents_it_is_asked_for_another_token_before_all_must_come_back
    no room for the document now  test_a_document_for_which_there_is_no_room_now_waits_for_its_turn,
                                  test_what_will_pass_by_waiting_is_never_told_as_a_final_refusal
    an error of the server's own  test_a_defect_of_ours_closes_the_socket_without_its_text
    let in nowhere in time        test_a_socket_on_which_nothing_was_opened_in_time_is_closed
    too much before               test_so_much_may_wait_on_a_socket_that_was_let_in_nowhere
    an empty frame, a text frame  test_a_frame_for_no_document_closes_the_socket,
                                  test_a_text_frame_is_told_the_same
    an edit over                  test_an_edit_that_was_not_read_ends_its_session_alone,
                                  tests/hostile/test_hocuspocus.py, tests/engine/test_room.py
    what is no WebSocket frame    tests/transports/test_intake.py, tests/hostile/test_http.py
    a frame that announces        tests/transports/test_intake.py
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from collab import errors
from collab.errors import (
    AccessExpired,
    AccessNotYet,
    AccessUnavailable,
    AddressError,
    CollabError,
    DamagedDocument,
    DecodeError,
    DocumentBusy,
    DocumentDeleted,
    DocumentNotFound,
    DocumentReloaded,
    DocumentTooLarge,
    Forbidden,
    HookUnavailable,
    InternalError,
    InvalidTransition,
    KeptOut,
    Kicked,
    LimitExceeded,
    Overloaded,
    PeerTooSlow,
    ServerStopping,
    StoreDamaged,
    StoreRefused,
    StoreUnavailable,
    StoreWentBack,
    Unauthenticated,
)
from collab.protocol.awareness import UNREADABLE as UNREADABLE_AWARENESS
from collab.protocol.events import Deliver, Note
from collab.protocol.hocuspocus import codec
from collab.protocol.session import Access, State
from collab.protocol.session import Event as Step
from tests.protocol.hocuspocus.wire import LIMITS, MIB, PING, PONG, Wire, read, snapshot
from tests.support.errors import every_error
from tests.support.hocuspocus import (
    AWARENESS,
    CLOSE,
    STATELESS,
    SYNC,
    SYNC_REPLY,
    SYNC_STATUS,
    auth,
    awareness,
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

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "protocol.md"


@pytest.fixture
def wire() -> Wire:
    return Wire()


DENIED = "send d denied: {}"
NO = DENIED.format(Forbidden.public)


# The document


def sections(text: str, heading: str) -> dict[str, list[str]]:
    """Split a text at its headings, and each part into its lines."""
    _, *parts = re.split(heading, text, flags=re.MULTILINE)
    return {name: body.split("\n") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def rows(lines: list[str]) -> list[str]:
    """The numbered rules and the rows of the tables among lines; the cells of a row are put together."""
    found = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"\d\. ", line):
            found.append(line)
        elif line.startswith("| ") and not following.startswith("|--"):
            found.append(" ".join(line.replace("|", " ").replace("`", "").split()))
    return found


def test_every_line_of_the_document_has_its_tests_in_the_list_above() -> None:
    listed = sections(__doc__ or "", r"^(Frames|Session|SyncStatus.*|Stateless messages|How a session ends)$")
    chapter = PAGE.read_text(encoding="utf-8").partition("\n## Hocuspocus\n")[2].partition("\n## ")[0]
    page = sections(chapter, r"^### (.*)$")
    assert list(listed) == list(page)
    for name, lines in page.items():
        keys = [key for line in listed[name] if (key := line[4:34].strip())]
        assert [row for row in rows(lines) if not row.startswith(tuple(keys))] == [], name
    assert sum(len(rows(lines)) for lines in page.values()) == 34
    for words in listed.values():
        for test in re.findall(r"\btest_\w+\b(?!\.py)", " ".join(words)):
            assert test in globals()
        for file in re.findall(r"tests/[\w/]+\.py", " ".join(words)):
            assert (ROOT / file).is_file()


# Large messages


def test_edits_of_whoever_may_write_may_be_large(wire: Wire) -> None:
    may = wire.protocol.may_send
    assert not may(update("d", b"x")) and wire.protocol.channels == {}, "nobody has shown a token"
    wire.send(auth("d", "good"))
    assert may(update("d", b"x")) is None, "its token is looked at"
    wire.grant("d")
    assert may(step2("d", b"x")) is None, "its document is opened"
    wire.opened("d")
    assert may(step2("d", b"x")) is None, "what has waited comes before"
    wire.catch_up("d")
    for edit in (update("d", b"x"), step2("d", b"x"), frame("d", SYNC_REPLY, b"\2" + varbytes(b"u"))):
        assert may(edit) and may(edit[:4])
    for other in (step1("d"), awareness("d"), stateless("d", "x"), auth("d"), frame("d", SYNC), update("other", b"x")):
        assert may(other) is False
    assert may(b"\xff\xff") is False, "no address"
    wire.join("read", Access.READ)
    assert may(update("read", b"x")) is False
    wire.be_denied("denied")
    assert may(update("denied", b"x")) is False


@pytest.mark.parametrize("edit", [update("d", b"x"), step2("d", b"x")])
def test_an_edit_that_was_not_read_ends_its_session_alone(wire: Wire, edit: bytes) -> None:
    wire.join("other")
    wire.join("d")
    said = wire.unread(edit)
    assert said == ["note d MessageTooLarge", "drain", "leave d", "send d denied: the message is too large"]
    assert wire.send(update("other", b"x")) == ["deliver other SyncUpdate x"]
    # Once: what is typed on is not refused again.
    assert wire.send(update("d", b"x")) == wire.unread(edit) == []


def test_an_edit_of_a_reader_that_was_not_read_is_the_rooms_to_refuse(wire: Wire) -> None:
    wire.join("d", Access.READ)
    assert wire.unread(update("d", b"x")) == ["refuse unread update d"]
    assert wire.unread(step2("d", b"x")) == ["refuse unread answer d"]


def test_what_is_no_edit_and_was_not_read_ends_its_session(wire: Wire) -> None:
    for access in (Access.WRITE, Access.READ):
        wire.join("d", access)
        assert wire.unread(step1("d", b"x"))[-1] == "send d denied: the message is too large"


def test_presence_that_was_not_read_costs_presence_only(wire: Wire) -> None:
    """Else an echo of what many show would end its session, for good."""
    for access in (Access.WRITE, Access.READ):
        wire.join(access.value, access)
        (event,) = wire.protocol.unread(awareness(access.value), 1_000)
        assert event == Deliver(wire[access.value], UNREADABLE_AWARENESS, 1_000)
    wire.be_denied("denied")
    wire.send(auth("held"))
    wire.deny("held", DocumentBusy("full"))
    wire.send(auth("asked"))
    for name in ("denied", "held", "asked"):
        assert wire.unread(awareness(name)) == []
    assert wire.closed is None


@pytest.mark.parametrize("denied", [False, True])
def test_an_edit_that_was_not_read_before_any_token_comes_again(wire: Wire, denied: bool) -> None:
    if denied:
        wire.be_denied("d")
    assert wire.unread(update("d", b"x")) == wire.unread(step2("d", b"x")) == []
    channel = wire.join("d")
    assert channel.session.held == [True, True], "they are acknowledged when all was asked for"
    assert wire.closed is None


def test_what_is_not_read_before_any_token_is_bounded(wire: Wire) -> None:
    for number in range(100):
        assert wire.unread(update(f"d{number}", b"x")) == []
    assert wire.unread(update("d100", b"x")) == ["close 4205 LimitExceeded"]
    wire = Wire(LIMITS._replace(documents=0))
    assert wire.unread(update("d", b"x"))[0] == "note socket LimitExceeded"
    wire = Wire()
    wire.be_denied("d")
    wire["d"].dropped = 5_000
    assert wire.unread(update("d", b"x")) == []
    assert wire["d"].dropped == 5_000


@pytest.mark.parametrize("frame", [auth("d", "x" * 1_000), awareness("d"), b"\xff"])
def test_what_is_no_edit_and_was_not_read_before_any_token_closes_the_socket(wire: Wire, frame: bytes) -> None:
    said = wire.unread(frame)
    assert said == ["close 4401 AddressError" if frame == b"\xff" else "close 4205 LimitExceeded"]


# Frames


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(step1("d", b"vector"), "SyncStep1 vector", id="SyncStep1"),
        pytest.param(step2("d", b"update"), "SyncStep2 update", id="SyncStep2"),
        pytest.param(update("d", b"update"), "SyncUpdate update", id="Update"),
        pytest.param(update("d", bytes(200)), f"SyncUpdate {chr(0) * 200}", id="a longer Update"),
        pytest.param(frame("d", AWARENESS, varbytes(b"states")), "AwarenessUpdate states", id="Awareness"),
        pytest.param(query_awareness("d"), "QueryAwareness", id="QueryAwareness"),
        pytest.param(frame("d", SYNC_REPLY, b"\0" + varbytes(b"v")), "SyncStep1 v", id="SyncReply of a SyncStep1"),
        pytest.param(frame("d", SYNC_REPLY, b"\1" + varbytes(b"u")), "SyncStep2 u", id="SyncReply of a SyncStep2"),
        pytest.param(frame("d", SYNC_REPLY, b"\2" + varbytes(b"u")), "SyncUpdate u", id="SyncReply of an Update"),
        pytest.param(stateless("d", "hello"), "Stateless hello", id="Stateless"),
    ],
)
def test_a_message_of_a_live_session_is_delivered(wire: Wire, data: bytes, message: str) -> None:
    wire.join("d")
    assert wire.send(data) == [f"deliver d {message}"]


def test_a_delivered_message_comes_with_its_channel_and_the_size_of_its_frame(wire: Wire) -> None:
    channel = wire.join("d")
    for data in (update("d", b"update"), query_awareness("d"), stateless("d", "hello")):
        [delivered] = wire.protocol.receive(data)
        assert isinstance(delivered, Deliver)
        assert delivered.channel is channel
        assert delivered.size == len(data)


@pytest.mark.parametrize("address", ["d\0one", "notes/ä b\0", "notes/ä b"])
def test_everything_goes_to_a_client_under_the_address_under_which_it_came(wire: Wire, address: str) -> None:
    name = address.partition("\0")[0]
    assert wire.send(auth(address, "good")) == [f"authenticate {address} 'good' for {name}"]
    assert wire[address].name == name
    assert wire.let_in(address) == ["drain", f"open {address}", f"send {address} let in: read-write", f"join {address}"]
    assert wire.send(update(address, b"x")) == [f"deliver {address} SyncUpdate x"]
    assert wire.perform(wire.protocol.expiring(wire[address])) == [f"control {address} token?"]
    assert wire.protocol.keepalive() == varbytes(address.encode()) + bytes.fromhex("010100")
    assert wire.failed(address, DecodeError("x"))[-1] == f"send {address} denied: malformed message"
    assert wire.send(close(address))[-1] == f"confirm {address} in 0.05"
    assert wire.confirm(address) == [f"send {address} closed: provider_initiated"]


def test_addresses_of_one_document_are_channels_of_their_own(wire: Wire) -> None:
    wire.join("d")
    wire.join("d\0one")
    assert wire.send(auth("d\0two", "good")) == ["authenticate d\0two 'good' for d"]
    assert wire.send(update("d\0one", b"x")) == ["deliver d\0one SyncUpdate x"]
    assert wire.send(close("d\0one")) == ["drain", "leave d\0one", "confirm d\0one in 0.05"]
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]


@pytest.mark.parametrize("version", [None, "4.8.0", "", "x" * 1000])
@pytest.mark.parametrize("token", ["", "a token", "ä"])
def test_a_token_is_looked_at_with_or_without_a_version(wire: Wire, token: str, version: str | None) -> None:
    assert wire.send(auth("d", token, version)) == [f"authenticate d {token!r} for d"]
    assert wire.state("d") is State.AUTHENTICATING
    assert wire["d"].session.quiet is (version is not None), "one that says its version tells nobody of a clock it took"


@pytest.mark.parametrize("access", Access)
def test_the_scope_is_told_when_the_document_is_open(wire: Wire, access: Access) -> None:
    """Not before: a provider 2 that has got any message comes back at once, for ever, while the store is down."""
    wire.send(auth("d"))
    assert wire.grant("d", access) == ["drain", "open d"]
    scope = "readonly" if access is Access.READ else "read-write"
    assert wire.open("d") == [f"send d let in: {scope}", "join d"]
    assert wire["d"].session.access is access


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame("d", SYNC_STATUS, b"\x01"), id="SyncStatus"),
        pytest.param(frame("d", 9), id="an addressed Ping"),
        pytest.param(frame("d", 10), id="an addressed Pong"),
        pytest.param(frame("d", 11, b"\xff" * 40), id="11"),
        pytest.param(frame("d", 2**53 - 1, b"x"), id="2^53-1"),
    ],
)
def test_what_a_client_need_not_say_is_ignored(wire: Wire, data: bytes) -> None:
    wire.join("d")
    assert wire.send(data) == ["ignored d"]
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]
    # Also in its place among what waits.
    wire.send(auth("e"), varbytes(b"e") + data[2:], update("e", b"x"))
    assert wire.let_in("e")[-2:] == ["ignored e", "deliver e SyncUpdate x"]


def test_a_ping_is_answered_and_a_pong_is_not(wire: Wire) -> None:
    assert wire.send(PING) == ["control pong"]
    assert wire.send(PONG) == []
    wire.join("d")
    assert wire.send(PONG, PING) == ["control pong"]
    assert wire.protocol.receive_live(PING) is None
    assert wire.protocol.receive_live(PONG) is None
    # Two bytes are neither.
    assert wire.send(PING + PING) == ["close 4401 AddressError"]


UNREADABLE = [
    pytest.param(b"", id="an empty frame"),
    pytest.param(b"\x80", id="half a length"),
    pytest.param(b"\x02d", id="a length beyond the frame"),
    pytest.param(auth(b"\xff\xfe"), id="not UTF-8"),
    pytest.param(update("x" * 1025, b"x"), id="1,025 bytes"),
]


@pytest.mark.parametrize("data", UNREADABLE)
@pytest.mark.parametrize("live", [False, True], ids=["new", "live"])
def test_a_frame_for_no_document_closes_the_socket(wire: Wire, data: bytes, live: bool) -> None:
    if live:
        wire.join("d")
    assert wire.protocol.receive_live(data) is None
    assert wire.send(data) == ["close 4401 AddressError"]
    assert wire.closed is not None and wire.closed.code.reason == "unreadable address"


def test_an_address_of_1024_bytes_is_read_and_refused_for_its_name(wire: Wire) -> None:
    said = wire.send(auth("x" * 1024))
    assert said[-1].endswith("denied: a document name is 1 to 512 bytes of UTF-8")
    assert wire.closed is None


def test_a_text_frame_is_told_the_same() -> None:
    assert codec.CLOSE_UNREADABLE.code == 4401


# Session, rule 1: what comes before a client is let in


MIXED = {
    awareness("d", (5, 1, "{}")): "AwarenessUpdate \1\5\1\2{}",
    stateless("d", "hello"): "Stateless hello",
    step1("d", b"vector"): "SyncStep1 vector",
    update("d", b"first"): "SyncUpdate first",
    query_awareness("d"): "QueryAwareness",
    step2("d", b"second"): "SyncStep2 second",
    frame("d", SYNC_REPLY, b"\2" + varbytes(b"third")): "SyncUpdate third",
    update("d", b"fourth"): "SyncUpdate fourth",
}


def test_what_comes_before_a_client_is_let_in_waits_in_order(wire: Wire) -> None:
    frames = list(MIXED)
    assert wire.send(*frames[:2]) == []
    assert wire.state("d") is State.ARRIVED
    assert wire.send(auth("d")) == ["authenticate d '' for d"]
    assert wire.send(*frames[2:4]) == []
    assert wire.grant("d") == ["drain", "open d"]
    assert wire.send(*frames[4:6]) == []
    assert wire.opened("d") == ["send d let in: read-write", "join d"]
    # It is live, and what comes now still waits behind the rest.
    assert wire.send(*frames[6:]) == []
    assert wire.waiting == len(frames)
    for message in MIXED.values():
        assert not wire["d"].ready
        assert wire.next("d") == [f"deliver d {message}"]
    assert wire.next("d") is None
    assert wire["d"].ready
    assert wire.waiting == 0
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]


def test_a_client_that_sends_nothing_else_is_ready_at_once(wire: Wire) -> None:
    wire.send(auth("d"))
    wire.grant("d")
    wire.opened("d")
    assert not wire["d"].ready
    assert wire.next("d") is None
    assert wire["d"].ready
    assert wire.next("d") is None
    assert wire["d"].ready


def test_nothing_is_taken_of_what_waits_before_the_room_is_joined(wire: Wire) -> None:
    wire.send(update("d", b"x"))
    assert wire.next("d") is None
    wire.send(auth("d"))
    assert wire.next("d") is None
    wire.grant("d")
    assert wire.next("d") is None
    assert not wire["d"].ready
    assert wire.open("d")[-1] == "deliver d SyncUpdate x"


def test_a_step_1_before_any_token_is_an_empty_token(wire: Wire) -> None:
    """Providers 2 send none without one."""
    assert wire.send(awareness("d", (5, 1, "{}"))) == []
    assert wire.send(step1("d", b"mine")) == ["authenticate d '' for d"]
    assert wire.send(step1("d", b"again"), update("d", b"x")) == []
    assert wire.let_in("d")[-4:] == [
        "deliver d AwarenessUpdate \1\5\1\2{}",
        "deliver d SyncStep1 mine",
        "deliver d SyncStep1 again",
        "deliver d SyncUpdate x",
    ]


@pytest.mark.parametrize(
    "data",
    [step2("d", b"x"), update("d", b"x"), awareness("d"), query_awareness("d"), stateless("d", "x"), varbytes(b"d")],
    ids=["SyncStep2", "Update", "Awareness", "QueryAwareness", "Stateless", "nothing"],
)
def test_nothing_but_a_step_1_is_an_empty_token(wire: Wire, data: bytes) -> None:
    assert wire.send(data) == []
    assert wire.state("d") is State.ARRIVED
    assert wire.waiting == 1


def test_a_sync_reply_before_any_token_is_none(wire: Wire) -> None:
    assert wire.send(frame("d", SYNC_REPLY, b"\0" + varbytes(b"vector"))) == []
    assert wire.state("d") is State.ARRIVED


def test_so_much_may_wait_on_a_socket_that_was_let_in_nowhere() -> None:
    by_count, by_bytes = Wire(), Wire()
    for i in range(1000):
        assert by_count.send(awareness(str(i % 50), (5, 1, "{}"))) == []
    assert not by_count.protocol.full and by_count.relieve() == []
    assert by_count.send(awareness("0", (5, 1, "{}"))) == ["close 4205 LimitExceeded"]
    largest = update("d", bytes(MIB - 7))
    assert len(largest) == MIB
    assert by_bytes.send(*[largest] * 5) == []
    assert not by_bytes.protocol.full and by_bytes.relieve() == []
    assert by_bytes.send(varbytes(b"d")) == ["close 4205 LimitExceeded"]
    assert by_bytes.closed is not None
    assert by_bytes.closed.code.reason == "too much was sent before authentication"


def test_as_much_may_wait_as_the_limits_say() -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=40))
    assert wire.send(update("d", bytes(16)), update("d", bytes(14))) == []
    assert wire.protocol._waiting.nbytes == 40
    assert wire.send(varbytes(b"d")) == ["close 4205 LimitExceeded"]


@pytest.mark.parametrize("state", [State.ARRIVED, State.AUTHENTICATING])
def test_a_socket_is_closed_over_what_waits_where_nobody_was_let_in(state: State) -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=40))
    if state is State.AUTHENTICATING:
        wire.send(auth("d"))
    assert wire.send(update("d", bytes(40))) == ["close 4205 LimitExceeded"]


def test_that_one_document_was_opened_buys_no_more_room_for_others() -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=40))
    wire.join("good")
    assert wire.send(update("d", bytes(40))) == ["close 4205 LimitExceeded"]


@pytest.mark.parametrize("state", [State.JOINING, State.LIVE, State.LAGGING, State.RECEIVING])
def test_a_socket_is_not_read_while_too_much_waits_for_a_document_that_is_being_opened(state: State) -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=40))
    wire.send(auth("d"))
    wire.grant("d")
    if state is not State.JOINING:
        wire.opened("d")
    if state is State.LAGGING:
        wire["d"].session.on(Step.LAGGED)
    if state is State.RECEIVING:
        wire["d"].session.on(Step.RECEIVES)
    assert wire.send(update("d", b"x" * 40)) == []
    assert wire.protocol.full
    assert wire.relieve() == []
    said = wire.open("d") if state is State.JOINING else wire.catch_up("d")
    assert said[-1] == "deliver d SyncUpdate " + "x" * 40
    assert not wire.protocol.full


def test_room_is_made_first_by_what_waits_for_denied_documents() -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=60))
    wire.be_denied("d")
    wire.send(step1("d", bytes(20)), awareness("d", (5, 1, "{}")))
    wire.send(auth("e"), update("e", bytes(10)))
    assert wire.waiting == 3
    assert wire.send(update("f", bytes(10))) == []
    assert not wire.protocol.full
    assert wire.waiting == 2
    # Nothing is left there that could make room once more.
    assert wire.send(update("f", bytes(30))) == ["close 4205 LimitExceeded"]


def test_room_is_made_when_a_document_is_denied() -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=40))
    for address in ("joins", "slow"):
        wire.send(auth(address))
        wire.grant(address)
    wire.send(step1("slow", bytes(40)))
    assert wire.protocol.full
    assert wire.deny("slow", DocumentDeleted("gone"))[-1] == DENIED.format("the document was deleted").replace(
        " d ", " slow "
    )
    assert wire.protocol.full
    assert wire.relieve() == []
    assert not wire.protocol.full
    assert wire.waiting == 0


def test_a_socket_is_closed_when_the_document_for_which_too_much_waits_is_denied_and_more_waits() -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=40))
    wire.send(auth("d"), update("e", bytes(30)))
    wire.grant("d")
    wire.send(update("e", bytes(10)))
    assert wire.protocol.full
    wire.deny("d", DocumentDeleted("gone"))
    assert wire.relieve() == ["close 4205 LimitExceeded"]


def test_100_addresses_may_wait_without_a_token() -> None:
    wire = Wire()
    for i in range(100):
        assert wire.send(awareness(str(i), (5, 1, "{}"))) == []
    # One that has shown a token is not among them any more.
    assert wire.send(auth("0")) == ["authenticate 0 '' for 0"]
    assert wire.send(awareness("100", (5, 1, "{}"))) == []
    assert wire.send(awareness("101", (5, 1, "{}"))) == ["close 4205 LimitExceeded"]
    assert "101" not in {channel.name for channel in wire.made}


def test_an_empty_token_that_nobody_has_shown_counts_until_it_is_found_good() -> None:
    wire = Wire()
    for i in range(100):
        wire.send(step1(str(i)))
    wire.grant("0")
    assert wire.send(step1("100")) == ["authenticate 100 '' for 100"]
    assert wire.send(step1("101")) == ["close 4205 LimitExceeded"]


@pytest.mark.parametrize("leaves", [close("0"), broadcast_stateless("0", "x")], ids=["CLOSE", "BroadcastStateless"])
def test_an_address_that_was_left_counts_no_more(leaves: bytes) -> None:
    wire = Wire()
    for i in range(100):
        wire.send(step1(str(i)))
    wire.send(leaves)
    wire.let_in("0")
    assert "0" not in {channel.name for channel in wire.protocol.channels_open}
    wire.send(step1("100"))
    assert wire.send(step1("101")) == ["close 4205 LimitExceeded"]


@pytest.mark.parametrize("first", [awareness("0"), auth("0", b"\xff")], ids=["arrived", "denied"])
def test_an_address_that_was_left_before_it_had_shown_a_token_counts_no_more(first: bytes) -> None:
    wire = Wire()
    wire.send(first, *[step1(str(i)) for i in range(1, 100)])
    wire.send(close("0"))
    assert wire.send(step1("100")) == ["authenticate 100 '' for 100"]
    assert wire.send(step1("101")) == ["close 4205 LimitExceeded"]


def test_a_token_that_is_shown_behind_a_step_1_counts_as_shown() -> None:
    wire = Wire()
    for i in range(100):
        wire.send(step1(str(i)))
    wire.send(auth("0", "late"))
    assert wire.send(step1("100")) == ["authenticate 100 '' for 100"]
    assert wire.send(step1("101")) == ["close 4205 LimitExceeded"]


def test_a_token_that_cannot_be_read_is_none() -> None:
    wire = Wire()
    for i in range(100):
        assert wire.send(auth(str(i), b"\xff"))[-1] == f"send {i} denied: malformed message"
    assert wire.send(auth("100", b"\xff")) == ["close 4205 LimitExceeded"]


def test_a_socket_may_have_so_many_documents() -> None:
    wire = Wire(LIMITS._replace(documents=2))
    wire.join("one")
    wire.send(update("two", b"x"))
    refused = "control three denied: more than 2 documents on one connection"
    assert wire.send(auth("three")) == ["note socket LimitExceeded", refused]
    assert wire.send(update("three", b"x")) == ["note socket LimitExceeded", refused]
    assert [channel.name for channel in wire.protocol.channels_open] == ["one", "two"]
    assert wire.waiting == 1
    # One that leaves makes room for another.
    wire.send(close("one"))
    assert wire.send(auth("three")) == ["authenticate three '' for three"]


def test_a_document_over_the_number_is_none_without_a_token_either() -> None:
    wire = Wire(LIMITS._replace(documents=1))
    wire.join("one")
    for i in range(101):
        wire.send(update(str(i), b"x"))
    assert wire.closed is None


# Session, rule 2: the admission


def test_a_document_is_opened_step_by_step(wire: Wire) -> None:
    assert wire.send(auth("d", "good")) == ["authenticate d 'good' for d"]
    assert wire.state("d") is State.AUTHENTICATING
    assert wire.grant("d", Access.ADMIN, "ann") == ["drain", "open d"]
    session = wire["d"].session
    assert (session.state, session.access, session.author) == (State.JOINING, Access.ADMIN, "ann")
    assert not wire.protocol.established
    assert wire.send(step1("d", b"v"), update("d", b"x")) == []
    # The room asks for what it lacks, and tells who is here, when it is joined.
    assert wire.opened("d") == ["send d let in: read-write", "join d"]
    assert wire["d"].session is session and session.state is State.LIVE
    assert wire.catch_up("d") == ["deliver d SyncStep1 v", "deliver d SyncUpdate x"]
    assert wire.protocol.established
    assert wire.made == [wire["d"]]


def test_a_slow_or_refused_address_holds_up_no_other(wire: Wire) -> None:
    wire.send(auth("slow"), update("slow", b"early"), auth("bad"), update("bad", b"early"), auth("opening"))
    wire.grant("opening")
    wire.deny("bad", Forbidden("no"))
    wire.join("good")
    assert wire.send(update("good", b"x")) == ["deliver good SyncUpdate x"]
    assert wire.send(update("slow", b"x"), update("bad", b"x"), update("opening", b"x")) == []
    assert wire.let_in("slow")[-2:] == ["deliver slow SyncUpdate early", "deliver slow SyncUpdate x"]
    assert wire.open("opening")[-1] == "deliver opening SyncUpdate x"


def test_a_newer_token_counts_instead_of_one_that_is_being_looked_at(wire: Wire) -> None:
    wire.send(auth("d", "slow"), update("d", b"x"))
    first = wire["d"].session
    assert wire.send(auth("d", "newer")) == ["leave d", "authenticate d 'newer' for d"]
    assert wire["d"].session is not first
    assert wire.left == [first]
    [stale] = wire.stale
    assert wire.protocol.granted(stale.channel, stale.session, Access.WRITE, "ann") == ()
    assert wire.protocol.denied(stale.channel, stale.session, Forbidden("no")) == ()
    assert wire.state("d") is State.AUTHENTICATING
    assert wire.let_in("d")[-1] == "deliver d SyncUpdate x"


def test_a_token_that_comes_while_the_document_is_opened_waits_for_its_turn(wire: Wire) -> None:
    wire.send(auth("d", "good"))
    wire.grant("d")
    assert wire.send(update("d", b"x"), auth("d", "newer"), update("d", b"y")) == []
    assert wire.open("d")[-3:] == ["deliver d SyncUpdate x", "renew d 'newer'", "deliver d SyncUpdate y"]


def test_a_token_behind_a_close_is_for_the_next_session(wire: Wire) -> None:
    """What React does to a provider in development."""
    wire.send(auth("d", "first"), update("d", b"first"))
    assert wire.send(close("d"), auth("d", "second"), update("d", b"second")) == []
    assert wire.let_in("d")[-5:] == [
        "deliver d SyncUpdate first",
        "drain",
        "leave d",
        "confirm d in 0.05",
        "authenticate d 'second' for d",
    ]
    assert wire.let_in("d")[-1] == "deliver d SyncUpdate second"
    assert wire.confirm("d") == []


def test_a_close_has_no_body_to_be_looked_at(wire: Wire) -> None:
    longer = frame("d", CLOSE, varbytes(b"a reason"))
    wire.send(auth("d", "first"), longer, auth("d", "second"))
    assert wire.let_in("d")[-1] == "authenticate d 'second' for d"
    wire.send(longer, auth("d", "third"))
    assert wire.deny("d", Forbidden("no"))[-1] == "authenticate d 'third' for d"


def test_of_two_tokens_behind_a_close_the_newer_counts(wire: Wire) -> None:
    wire.send(auth("d", "first"), close("d"), auth("d", "second"), auth("d", "third"), update("d", b"x"))
    assert wire.let_in("d")[-3:] == ["authenticate d 'second' for d", "leave d", "authenticate d 'third' for d"]
    assert wire.let_in("d")[-1] == "deliver d SyncUpdate x"


@pytest.mark.parametrize("behind", ["CLOSE", "Auth"])
def test_a_refusal_does_not_concern_what_comes_behind_the_next_close_or_token(wire: Wire, behind: str) -> None:
    wire.send(auth("d", "bad"), step1("d", b"first"), update("d", b"first"), awareness("d"))
    if behind == "CLOSE":
        wire.send(close("d"), auth("d", "second"), step1("d", b"second"))
    else:
        # A token waits only while the document is opened.
        wire.grant("d")
        wire.send(auth("d", "second"), step1("d", b"second"))
    said = wire.deny("d", DocumentNotFound("none"))
    assert said[:4] == ["note d DocumentNotFound", "drain", "leave d", DENIED.format("no such document")]
    if behind == "CLOSE":
        assert said[4:] == ["drain", "leave d", "confirm d in 0.05", "authenticate d 'second' for d"]
        assert wire.let_in("d")[4:] == ["deliver d SyncStep1 second"]
    else:
        assert said[4:] == ["authenticate d 'second' for d"]
        # Of what came before it, the SyncStep1 and the awareness message are kept.
        assert wire.let_in("d")[4:] == [
            "deliver d SyncStep1 first",
            "deliver d AwarenessUpdate \0",
            "deliver d SyncStep1 second",
        ]


# What a client has sent, and what becomes of it.
ENDS: dict[str, tuple[bytes, Callable[[Wire], list[str]]]] = {
    "the room refuses a message": (update("d", b"x"), lambda wire: wire.failed("d", DecodeError("x"))),
    "the room ends it": (update("d", b"x"), lambda wire: wire.ended("d", DocumentDeleted("x"))),
    "a newer token is refused": (auth("d", "newer"), lambda wire: wire.renewal_denied("d", Forbidden("x"))),
    "a newer token cannot be read": (auth("d", b"\xff"), lambda wire: []),
    "a message is malformed": (varbytes(b"d"), lambda wire: []),
}


@pytest.mark.parametrize("behind", ["CLOSE", "Auth"])
@pytest.mark.parametrize("end", ENDS)
def test_nor_does_any_other_end_of_a_session_whose_client_has_sent_more(wire: Wire, end: str, behind: str) -> None:
    data, then = ENDS[end]
    wire.join("other")
    wire.send(auth("d"))
    wire.grant("d")
    wire.send(data, update("d", b"dropped"), *([close("d")] if behind == "CLOSE" else []))
    wire.send(auth("d", "second"), update("d", b"kept"))
    wire.opened("d")
    said = (wire.next("d") or []) + then(wire)
    told = next(at for at, one in enumerate(said) if one.startswith("send d denied: "))
    expected = ["authenticate d 'second' for d"]
    if behind == "CLOSE":
        expected = ["drain", "leave d", "confirm d in 0.05", *expected]
    assert said[told + 1 :] == expected
    assert wire.let_in("d")[4:] == ["deliver d SyncUpdate kept"]
    assert wire.closed is None


def test_a_close_alone_that_waits_is_done_when_the_client_is_denied(wire: Wire) -> None:
    wire.send(auth("d"), update("d", b"x"), close("d"))
    assert wire.deny("d", Forbidden("no")) == [
        "note d Forbidden",
        "drain",
        "leave d",
        NO,
        "drain",
        "leave d",
        "confirm d in 0.05",
    ]
    assert not wire.protocol.channels
    assert wire.waiting == 0


@pytest.mark.parametrize("token", [b"\xff", "x" * 70_000], ids=["not UTF-8", "too long"])
@pytest.mark.parametrize("state", [State.ARRIVED, State.AUTHENTICATING, State.JOINING, State.DENIED, State.LIVE])
def test_a_token_that_cannot_be_read_is_refused_in_every_state(wire: Wire, state: State, token: str | bytes) -> None:
    wire.send(update("d", b"before"))
    if state is State.DENIED:
        wire.be_denied("d")
    elif state is not State.ARRIVED:
        wire.send(auth("d", "slow"))
    if state in (State.JOINING, State.LIVE):
        wire.grant("d")
    if state is State.LIVE:
        wire.open("d")
    assert wire.state("d") is state
    error = "DecodeError" if isinstance(token, bytes) else "LimitExceeded"
    reason = "malformed message" if isinstance(token, bytes) else "a token has at most 65536 bytes"
    said = wire.send(auth("d", token))
    if state is State.JOINING:
        assert said == []
        said = wire.open("d")
        assert said[:3] == ["send d let in: read-write", "join d", "deliver d SyncUpdate before"]
        said = said[3:]
    assert said == [f"note d {error}", "drain", "leave d", DENIED.format(reason)]
    assert wire.state("d") is State.DENIED
    assert wire.closed is None
    # It may show another.
    assert wire.send(auth("d", "good")) == ["authenticate d 'good' for d"]
    assert wire.let_in("d")[-1] == "join d"


@pytest.mark.parametrize("address", ["", " ", "\t\u2003", "\0session", "x" * 512 + "y", "ä" * 257])
def test_a_name_that_is_none_is_refused_under_its_address(wire: Wire, address: str) -> None:
    said = wire.send(auth(address, "good"))
    assert said[:3] == [f"note {address} InvalidDocumentName", "drain", f"leave {address}"]
    assert said[3].startswith(f"send {address} denied: a document name is 1 to 512 bytes of UTF-8")
    assert len(said) == 4
    # Also of one that shows no token, and what has come with it is thinned out.
    other = f" {address}"
    assert wire.send(update(other, b"x"), step1(other, b"v"))[-1].startswith(f"send {other} denied: ")
    assert wire.waiting == 1
    assert wire[other].dropped == 1
    # Whatever it tries again.
    assert wire.send(auth(other, "good"))[0] == f"note {other} InvalidDocumentName"
    assert wire.questions == [] and wire.closed is None


def test_an_admission_is_tried_again_while_other_documents_are_live(wire: Wire) -> None:
    """Each time after a longer pause, which begins anew with the next step or token."""
    wire.join("other")
    pauses = [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    down = AccessUnavailable("away")
    wire.send(auth("d"))
    for seconds in pauses:
        assert wire.deny("d", down) == ["note d AccessUnavailable", f"retry in {seconds}"]
    assert wire.send(auth("d", "newer")) == ["leave d", "authenticate d 'newer' for d"]
    for seconds in pauses[:2]:
        assert wire.deny("d", down)[-1] == f"retry in {seconds}"
    wire.grant("d")
    for seconds in pauses[:2]:
        assert wire.deny("d", StoreUnavailable("away")) == ["note d StoreUnavailable", f"retry in {seconds}"]
    assert wire.deny("d", DocumentDeleted("gone"))[-1] == DENIED.format("the document was deleted")
    wire.send(auth("d", "good"))
    assert wire.deny("d", down)[-1] == "retry in 0.5"
    assert wire.let_in("d")[-1] == "join d"
    assert wire.send(update("other", b"x")) == ["deliver other SyncUpdate x"]


def test_an_admission_is_tried_again_for_hours(wire: Wire) -> None:
    wire.join("other")
    wire.send(auth("d"))
    for _ in range(2_000):
        said = wire.deny("d", StoreUnavailable("away"))
    assert said == ["note d StoreUnavailable", "retry in 10.0"]


@pytest.mark.parametrize("other", [None, State.ARRIVED, State.AUTHENTICATING, State.DENIED, State.JOINING, State.LIVE])
def test_an_admission_is_tried_again_only_while_another_document_is_ready(wire: Wire, other: State | None) -> None:
    wire.send(auth("d"))
    if other is State.ARRIVED:
        wire.send(update("other", b"x"))
    elif other is State.DENIED:
        wire.be_denied("other")
    elif other is not None:
        wire.send(auth("other"), update("other", b"x"))
    if other in (State.JOINING, State.LIVE):
        wire.grant("other")
    if other is State.LIVE:
        wire.opened("other")  # it is live, and something waits still
    said = wire.deny("d", StoreUnavailable("away"))
    assert said == ["note d StoreUnavailable", "drain", "close 1013"]
    if other is not None:
        assert wire.closed is not None and wire.closed.code.reason == StoreUnavailable.public


def test_a_damaged_document_is_held_also_where_nothing_else_is_open_yet(wire: Wire) -> None:
    """Else the documents that its client opens at the same time would lose their socket each time."""
    wire.send(auth("d"), auth("other"))
    assert wire.deny("d", DamagedDocument("row 3")) == ["note d DamagedDocument", "retry in 0.5"]
    wire.join("other")
    assert wire.deny("d", DamagedDocument("row 3")) == ["note d DamagedDocument", "retry in 1.0"]
    assert wire.closed is None


PASSING = [kind("x") for kind in every_error() if kind.retryable and not issubclass(kind, InternalError)]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("beside", [True, False], ids=["beside a document that is open", "alone"])
@pytest.mark.parametrize("step", [State.AUTHENTICATING, State.JOINING])
def test_what_will_pass_by_waiting_is_never_told_as_a_final_refusal(
    wire: Wire, error: CollabError, beside: bool, step: State
) -> None:
    """Providers never ask again after PermissionDenied; after a close they come back."""
    if beside:
        wire.join("other")
    wire.send(auth("d"), step1("d"), update("d", b"x"))
    if step is State.JOINING:
        wire.grant("d")
    for _ in range(20):
        said = wire.deny("d", error)
        assert not any("denied" in one for one in said)
        assert said[-1].startswith(("retry in ", "close "))
        if wire.closed is not None:
            assert not 4400 <= wire.closed.code.code < 4500
            break
    held = isinstance(error, (DocumentBusy, DamagedDocument))
    held = held or (beside and not isinstance(error, (AccessExpired, ServerStopping)))
    assert (wire.closed is None) is held


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_nor_is_it_so_on_a_live_session(error: CollabError) -> None:
    for trouble in (Wire.failed, Wire.ended):
        wire = Wire()
        wire.join("other")
        wire.join("d")
        trouble(wire, "d", error)
        assert wire.closed is not None and not 4400 <= wire.closed.code.code < 4500


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ServerStopping("stops"), "close 1012"),
        (Forbidden("no"), NO),
        (DocumentDeleted("gone"), DENIED.format("the document was deleted")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CollabError) else str(value),
)
def test_what_will_not_pass_here_is_not_tried_again(wire: Wire, error: CollabError, expected: str) -> None:
    wire.join("other")
    wire.send(auth("d"))
    assert wire.deny("d", error)[-1] == expected
    wire.join("one more")
    wire.send(auth("e"))
    wire.grant("e")
    assert wire.deny("e", error)[-1] == expected.replace(" d ", " e ")


# Held documents


def test_a_document_for_which_there_is_no_room_now_waits_for_its_turn(wire: Wire) -> None:
    """Whether or not another one is open on its socket."""
    wire.send(auth("d"), step1("d", b"first"), awareness("d"))
    wire.grant("d")
    for seconds in (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert wire.deny("d", DocumentBusy("full")) == ["note d DocumentBusy", f"retry in {seconds}"]
    assert wire.deny("d", DocumentBusy("full", wait=37.5))[-1] == "retry in 37.5 exactly"
    assert wire["d"].held and not wire["d"].ready
    # The client has shown who it is: it may wait for as long as it takes.
    assert wire.protocol.overdue() == ()
    assert wire.protocol.keepalive() is not None
    said = wire.open("d")
    assert said == ["send d let in: read-write", "join d", "deliver d SyncStep1 first", "deliver d AwarenessUpdate \0"]
    assert wire["d"].ready and not wire["d"].held


def test_of_what_a_held_client_sends_the_last_step_1_and_awareness_are_kept_and_all_is_acknowledged(wire: Wire) -> None:
    wire.send(auth("d"), update("d", b"early"), step1("d", b"first"))
    wire.grant("d")
    wire.deny("d", DocumentBusy("full"))
    for number in range(2_000):
        wire.send(update("d", b"%d" % number), awareness("d", (5, number + 1, "{}")))
    wire.send(step1("d", b"last"), step2("d", b"x"))
    assert wire.waiting == 2
    said = wire.open("d")
    assert [one[:20] for one in said[2:]] == ["deliver d AwarenessU", "deliver d SyncStep1 "]
    assert wire["d"].session.held == [True] * 2_002, "what it answers to the server's question holds them all"


def test_a_held_document_may_be_closed_or_shown_another_token_at_once(wire: Wire) -> None:
    wire.send(auth("d"))
    wire.grant("d")
    wire.deny("d", DocumentBusy("full"))
    assert wire.send(auth("d", "newer")) == ["leave d", "authenticate d 'newer' for d"]
    assert not wire["d"].held
    wire.grant("d")
    wire.deny("d", DocumentBusy("full"))
    assert wire.send(update("d", b"x"), close("d")) == ["drain", "leave d", "confirm d in 0.05"]
    assert not wire.protocol.channels and wire.waiting == 0


@pytest.mark.parametrize(
    ("behind", "last"),
    [(close("d"), "confirm d in 0.05"), (auth("d", "newer"), "authenticate d 'newer' for d")],
    ids=["CLOSE", "Auth"],
)
def test_what_a_client_has_asked_for_before_it_is_held_is_done_then(wire: Wire, behind: bytes, last: str) -> None:
    wire.send(auth("d"))
    wire.grant("d")
    wire.send(update("d", b"x"), behind, update("d", b"y"))
    said = wire.deny("d", DocumentBusy("full"))
    assert last in said and not any(one.startswith("retry") for one in said)


def test_held_documents_take_little_room_and_hold_up_no_other() -> None:
    wire = Wire(LIMITS._replace(documents=1_000))
    wire.join("other")
    for number in range(999):
        address = str(number)
        wire.send(auth(address), step1(address), awareness(address, (5, 1, "{}")))
        wire.grant(address)
        wire.deny(address, DocumentBusy("full"))
        assert not wire.protocol.full
    assert 999 <= wire.waiting <= 1_000
    # Nor does what its client goes on sending take the room, or the time, of others.
    assert wire.send(awareness("5", (5, 2, "{}")), update("5", b"x"), update("other", b"x")) == [
        "deliver other SyncUpdate x"
    ]
    assert wire.closed is None
    assert wire.open("7")[-1] == "deliver 7 SyncStep1 \0"


def test_presence_gives_way_first_when_much_waits_for_held_documents() -> None:
    wire = Wire(LIMITS._replace(waiting_bytes=100))
    wire.send(auth("d"), step1("d", bytes(10)), awareness("d", (5, 1, '"' + "x" * 30 + '"')))
    wire.grant("d")
    wire.deny("d", DocumentBusy("full"))
    assert wire.waiting == 1, "it is more than half of all that may wait"
    wire.send(awareness("d", (5, 2, "{}")))
    assert wire.waiting == 2
    wire.send(auth("e"), update("e", bytes(76)))
    assert wire.waiting == 2 and not wire.protocol.full
    assert wire.send(update("e", bytes(1))) == ["close 4205 LimitExceeded"]


def test_a_held_document_of_no_client_that_has_shown_who_it_is_is_not_waited_for(wire: Wire) -> None:
    wire.join("other")
    wire.send(auth("d"))
    wire.deny("d", AccessUnavailable("away"))
    wire.send(close("other"))
    assert wire.protocol.overdue() == (), "it was let in once"
    asking = Wire()
    asking.send(auth("d"), auth("e"))
    asking.grant("e")
    asking.deny("e", DocumentBusy("full"))
    assert asking.deny("d", AccessUnavailable("away"))[-1] == "retry in 0.5", "one that waits is not to lose its turn"
    asking.send(close("e"))
    assert asking.perform(asking.protocol.overdue()) == ["close 4408"]


# A token that ran out a moment ago


def test_a_provider_alone_whose_token_has_just_run_out_is_made_to_come_back(wire: Wire) -> None:
    wire.send(auth("d", "old"))
    assert wire.deny("d", AccessExpired("over")) == ["note d AccessExpired", "drain", "close 4501"]


def test_beside_other_documents_it_is_asked_for_another_token_before_all_must_come_back(wire: Wire) -> None:
    wire.join("other")
    wire.send(auth("d", "old"), step1("d"))
    for seconds in (0.5, 1.0, 2.0, 4.0, 8.0):
        assert wire.deny("d", AccessExpired("over")) == [
            "note d AccessExpired",
            "control d token?",
            f"retry in {seconds}",
        ]
    assert wire.send(auth("d", "new")) == ["leave d", "authenticate d 'new' for d"]
    for _ in range(5):
        wire.deny("d", AccessExpired("over"))
    # Those before 3.3 cannot be asked.
    assert wire.deny("d", AccessExpired("over")) == ["note d AccessExpired", "drain", "close 4501"]


# Session, rule 3: denied clients


def test_a_denied_client_may_show_another_token(wire: Wire) -> None:
    wire.send(auth("d", "bad"))
    assert wire.deny("d", Forbidden("no")) == ["note d Forbidden", "drain", "leave d", NO]
    assert wire.state("d") is State.DENIED
    assert wire.send(auth("d", "bad too")) == ["authenticate d 'bad too' for d"]
    wire.deny("d", Forbidden("no"))
    assert wire.send(auth("d", "good")) == ["authenticate d 'good' for d"]
    assert wire.let_in("d") == ["drain", "open d", "send d let in: read-write", "join d"]
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]
    assert len(wire.made) == 1


@pytest.mark.parametrize("step", [State.AUTHENTICATING, State.JOINING])
def test_each_token_has_a_session_of_its_own(wire: Wire, step: State) -> None:
    """One that was denied is given up, and nothing that is held for the next one goes with it."""
    wire.send(auth("d", "first"))
    if step is State.JOINING:
        wire.grant("d")
    wire.deny("d", Forbidden("no"))
    first, second = wire["d"].sessions
    assert wire["d"].session is second and second.state is State.DENIED
    assert wire.left == [first]
    granted = [Step.GRANTED] if step is State.JOINING else []
    assert first.steps == [Step.PRESENTED, *granted, Step.DENIED, Step.ENDED]
    wire.send(auth("d", "good"))
    wire.let_in("d")
    assert wire["d"].session is second
    assert wire.left == [first]


def test_a_late_answer_to_a_denied_token_does_not_count_for_the_next(wire: Wire) -> None:
    """It was refused for another reason than its own: a newer token that cannot be read has come."""
    wire.send(auth("d", "first"), auth("d", b"\xff"), auth("d", "second"))
    channel, first, *_ = wire.stale[0]
    assert wire.protocol.granted(channel, first, Access.ADMIN, "mallory") == ()
    assert wire.protocol.denied(channel, first, Forbidden("no")) == ()
    assert wire.state("d") is State.AUTHENTICATING
    assert wire.let_in("d")[-1] == "join d"


@pytest.mark.parametrize("first", [step1, awareness], ids=["SyncStep1", "Awareness"])
def test_a_denied_client_is_let_in_by_a_token_alone(wire: Wire, first: Callable[[str], bytes]) -> None:
    wire.be_denied("d")
    assert wire.send(first("d"), update("d", b"x"), query_awareness("d")) == []
    assert wire.state("d") is State.DENIED


def test_of_what_a_denied_client_sends_the_last_step_1_and_awareness_are_kept(wire: Wire) -> None:
    wire.send(auth("d", "bad"), step1("d", b"1"), update("d", b"early"), awareness("d", (1, 1, "1")))
    wire.deny("d", Forbidden("no"))
    assert wire.waiting == 2
    typed = [update("d", b"typed"), step2("d", b"typed"), stateless("d", "x"), query_awareness("d"), varbytes(b"d")]
    assert wire.send(*typed, step1("d", b"2"), awareness("d", (1, 2, "2")), *typed) == []
    assert wire.waiting == 2
    assert wire.relieve() == []
    assert wire.waiting == 2
    wire.send(auth("d", "good"))
    # It was told no: what it sends from now on waits like that of any other.
    wire.send(update("d", b"late"))
    assert wire.let_in("d")[4:] == [
        "deliver d SyncStep1 2",
        "deliver d AwarenessUpdate \1\1\2\1" + "2",
        "deliver d SyncUpdate late",
    ]


def test_what_is_kept_of_a_denied_client_stays_in_order(wire: Wire) -> None:
    wire.be_denied("d")
    wire.send(awareness("d", (1, 1, "1")), step1("d", b"1"), awareness("d", (1, 2, "2")))
    wire.send(auth("d", "good"))
    assert wire.let_in("d")[4:] == ["deliver d SyncStep1 1", "deliver d AwarenessUpdate \1\1\2\1" + "2"]


def test_a_live_session_that_ends_leaves_nothing_to_the_next(wire: Wire) -> None:
    wire.send(auth("d"), update("d", b"x"), step1("d", b"v"), update("d", b"y"))
    wire.grant("d")
    wire.opened("d")
    assert wire.next("d") == ["deliver d SyncUpdate x"]
    first = wire["d"].session
    assert wire.failed("d", DecodeError("x"))[-1] == DENIED.format("malformed message")
    assert wire.protocol.next_waiting(wire["d"], first) is None
    assert not wire["d"].ready
    wire.send(auth("d"))
    assert wire.let_in("d")[4:] == ["deliver d SyncStep1 v"]
    assert wire["d"].session.held == [True]


@pytest.mark.parametrize("access", [Access.WRITE, Access.ADMIN])
def test_updates_that_were_dropped_are_acknowledged_when_the_client_is_let_in(wire: Wire, access: Access) -> None:
    """Each counts for one SyncStatus; the answer to the SyncStep1 of the room holds them all."""
    wire.be_denied("d")
    wire.send(update("d", b"1"), step2("d", b"2"), step1("d"), awareness("d"), stateless("d", "x"), update("d", b"3"))
    assert wire["d"].dropped == 3
    wire.send(auth("d", "good"))
    wire.grant("d", access)
    assert wire["d"].session.held is None
    wire.opened("d")
    assert wire["d"].session.held == [True] * 3
    assert wire["d"].dropped == 0
    wire.catch_up("d")
    # They are acknowledged once.
    wire.failed("d", DecodeError("x"))
    wire.send(auth("d", "good"))
    wire.let_in("d", access)
    assert wire["d"].session.held is None


def test_nothing_is_acknowledged_that_was_not_dropped(wire: Wire) -> None:
    wire.be_denied("d")
    wire.send(step1("d"), awareness("d"), query_awareness("d"), auth("d", "good"), update("d", b"x"))
    wire.let_in("d")
    assert wire["d"].session.held is None


def test_a_reader_is_not_told_that_dropped_updates_were_saved(wire: Wire) -> None:
    wire.be_denied("d")
    wire.send(update("d", b"1"), auth("d", "read"))
    wire.let_in("d", Access.READ)
    assert wire["d"].session.held is None
    # Nor is it told so when it may write later: nobody has them any more.
    assert wire["d"].dropped == 0


def test_so_many_dropped_updates_are_remembered(wire: Wire) -> None:
    wire.be_denied("d")
    for _ in range(5_001):
        wire.send(update("d", b"x"))
    wire.send(auth("d", "good"))
    wire.let_in("d")
    assert wire["d"].session.held == [True] * 5_000


def test_dropped_updates_are_forgotten_when_the_client_leaves(wire: Wire) -> None:
    wire.be_denied("d")
    wire.send(update("d", b"x"), close("d"), auth("d", "good"))
    wire.let_in("d")
    assert wire["d"].session.held is None


# Session, rule 4: tokens on a live session


def test_a_token_on_a_live_session_is_looked_at_too(wire: Wire) -> None:
    channel = wire.join("d")
    session = channel.session
    assert wire.send(auth("d", "newer", "4.8.0")) == ["renew d 'newer'"]
    # It goes on meanwhile.
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]
    assert wire.renewed("d", Access.WRITE) == []
    assert channel.session is session and session.state is State.LIVE


@pytest.mark.parametrize("before", Access)
@pytest.mark.parametrize("after", Access)
def test_a_changed_scope_is_told_and_an_unchanged_one_is_not(wire: Wire, before: Access, after: Access) -> None:
    session = wire.join("d", before).session
    wire.send(auth("d", "newer"))
    scope = "readonly" if after is Access.READ else "read-write"
    assert wire.renewed("d", after) == ([] if after is before else [f"send d let in: {scope}"])
    assert session.access is after


def test_a_refused_renewal_ends_the_session(wire: Wire) -> None:
    wire.join("d")
    wire.join("other")
    wire.send(auth("d", "bad"))
    assert wire.renewal_denied("d", Forbidden("no")) == ["note d Forbidden", "leave d", NO]
    assert wire.state("d") is State.DENIED
    assert wire.send(update("d", b"x")) == []
    assert wire.send(update("other", b"x")) == ["deliver other SyncUpdate x"]
    wire.send(auth("d", "good"))
    assert wire.let_in("d")[-1] == "join d"


@pytest.mark.parametrize("error", [AccessUnavailable("away"), Overloaded("busy"), ServerStopping("stops")])
def test_a_renewal_that_cannot_be_decided_now_changes_nothing(wire: Wire, error: CollabError) -> None:
    session = wire.join("d").session
    wire.send(auth("d", "newer"))
    assert wire.renewal_denied("d", error) == [f"note d {type(error).__name__}"]
    assert wire["d"].session is session and wire["d"].ready
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]


def test_what_comes_of_a_renewal_means_nothing_to_the_next_session(wire: Wire) -> None:
    wire.join("d", Access.READ)
    wire.send(auth("d", "newer"))
    [renew] = wire.questions
    wire.failed("d", DecodeError("x"))
    wire.join("d", Access.READ)
    assert wire.protocol.renewed(renew.channel, renew.session, Access.WRITE) == ()
    said = wire.perform(wire.protocol.renewal_denied(renew.channel, renew.session, Forbidden("no")))
    assert said == ["note d Forbidden"]
    assert (wire["d"].session.access, wire.state("d")) == (Access.READ, State.LIVE)


def test_a_fresh_token_is_asked_for_before_the_old_one_runs_out(wire: Wire) -> None:
    """Providers before 3.3 ignore that; it may be left out, too."""
    channel = wire.join("d")
    assert wire.perform(wire.protocol.expiring(channel)) == ["control d token?"]


@pytest.mark.parametrize("other", [False, True])
def test_access_that_has_run_out_closes_the_socket(wire: Wire, other: bool) -> None:
    """A provider before 3.3 shows its new token when it comes back, and would never do so after PermissionDenied."""
    wire.join("d")
    if other:
        wire.join("other")
    assert wire.expired("d") == ["note d AccessExpired", "close 4501"]


# Session, rule 5: CLOSE


def test_close_ends_one_session_and_is_answered_later(wire: Wire) -> None:
    wire.join("stays")
    session = wire.join("goes").session
    assert wire.send(close("goes")) == ["drain", "leave goes", "confirm goes in 0.05"]
    assert session.state is State.CLOSED
    assert [channel.name for channel in wire.protocol.channels_open] == ["stays"]
    assert wire.confirm("goes") == ["send goes closed: provider_initiated"]
    assert wire.send(update("stays", b"x")) == ["deliver stays SyncUpdate x"]


def test_a_close_is_not_answered_when_the_document_was_opened_again(wire: Wire) -> None:
    """The new provider of that name would take the answer for its own end."""
    wire.join("d")
    assert wire.send(close("d"), auth("d", "again"))[-1] == "authenticate d 'again' for d"
    assert wire.confirm("d") == []
    wire.let_in("d")
    assert wire.confirm("d") == []
    # Its own is.
    assert wire.send(close("d"))[-1] == "confirm d in 0.05"
    assert wire.confirm("d") == ["send d closed: provider_initiated"]


def test_what_comes_before_a_close_is_taken_first(wire: Wire) -> None:
    wire.send(auth("d"), update("d", b"x"), close("d"), update("d", b"for the next"))
    said = wire.let_in("d")
    assert said[4:] == ["deliver d SyncUpdate x", "drain", "leave d", "confirm d in 0.05"]
    assert wire.waiting == 1
    assert wire.state("d") is State.ARRIVED
    wire.send(auth("d"))
    assert wire.let_in("d")[4:] == ["deliver d SyncUpdate for the next"]


def test_a_close_that_comes_while_what_waits_is_taken_waits_too(wire: Wire) -> None:
    wire.send(auth("d"), update("d", b"x"))
    wire.grant("d")
    wire.opened("d")
    assert wire.send(close("d")) == []
    assert wire.next("d") == ["deliver d SyncUpdate x"]
    assert wire.next("d") == ["drain", "leave d", "confirm d in 0.05"]


@pytest.mark.parametrize("state", [None, State.ARRIVED, State.DENIED])
def test_a_client_that_leaves_before_it_was_let_in_leaves_nothing(wire: Wire, state: State | None) -> None:
    if state is State.DENIED:
        wire.be_denied("d")
    if state is not None:
        wire.send(update("d", b"x"), awareness("d", (5, 1, '"ghost"')))
    assert wire.send(close("d")) == ["drain", "leave d", "confirm d in 0.05"]
    assert not wire.protocol.channels
    assert wire.waiting == 0
    assert [session.state for channel in wire.made for session in channel.sessions[-1:]] == [State.CLOSED]
    wire.join("d")
    assert wire.delivered == []


def test_awareness_behind_a_close_is_ignored(wire: Wire) -> None:
    """Providers 2 send one more message."""
    wire.join("d")
    wire.send(close("d"))
    assert wire.send(awareness("d", (5, 2, "null"))) == []
    assert not wire.protocol.channels
    wire.confirm("d")
    assert wire.send(awareness("d", (5, 2, "null"))) == []
    assert not wire.protocol.channels
    # Under another address it is the first message.
    assert wire.send(awareness("e", (5, 1, "{}"))) == []
    assert list(wire.protocol.channels) == [b"e"]


def test_a_step_2_behind_a_close_closes_the_socket(wire: Wire) -> None:
    """Its provider does not know that it was closed, by another one of its name: both are made to come back."""
    wire.join("d")
    wire.send(close("d"))
    assert wire.send(step2("d", b"x")) == ["close 4205 LimitExceeded"]
    assert not wire.protocol.channels


@pytest.mark.parametrize(
    "data",
    [update("d", b"x"), query_awareness("d"), stateless("d", "x"), varbytes(b"d"), broadcast_stateless("d", "x")],
    ids=["Update", "QueryAwareness", "Stateless", "nothing", "BroadcastStateless"],
)
def test_anything_else_behind_a_close_is_of_the_next_session(wire: Wire, data: bytes) -> None:
    wire.join("d")
    assert wire.send(close("d"), data) == ["drain", "leave d", "confirm d in 0.05"]
    assert wire.state("d") is State.ARRIVED
    assert wire.waiting == 1


def test_a_step_1_behind_a_close_opens_the_document_again(wire: Wire) -> None:
    wire.join("d")
    assert wire.send(close("d"), step1("d"))[-1] == "authenticate d '' for d"


def test_the_last_20_addresses_that_were_closed_are_remembered(wire: Wire) -> None:
    for i in range(21):
        wire.join(str(i))
        wire.send(close(str(i)))
    wire.send(*[awareness(str(i), (5, 2, "null")) for i in range(1, 21)])
    assert not wire.protocol.channels
    wire.send(awareness("0", (5, 2, "null")))
    assert list(wire.protocol.channels) == [b"0"]
    # One that is closed again is the latest.
    wire.send(close("1"))
    for i in range(19):
        wire.send(close(f"more {i}"))
    wire.send(awareness("1", (5, 2, "null")), awareness("20", (5, 2, "null")))
    assert list(wire.protocol.channels) == [b"0", b"20"]


# Session, rule 6


def test_a_socket_on_which_nothing_was_opened_in_time_is_closed(wire: Wire) -> None:
    assert wire.perform(wire.protocol.overdue()) == ["close 4408"]
    other = Wire()
    other.be_denied("denied")
    other.send(auth("d"), auth("slow"))
    other.grant("d")
    assert not other.protocol.established
    assert other.perform(other.protocol.overdue()) == ["close 4408"]
    other.opened("d")
    assert other.protocol.established
    assert other.protocol.overdue() == ()
    # It has shown that it may be here, whatever it has left since.
    other.catch_up("d")
    other.send(close("d"))
    assert other.protocol.overdue() == ()


# Stateless messages


def test_a_broadcast_of_a_client_ends_its_session_by_close(wire: Wire) -> None:
    """Only servers send them each other."""
    wire.join("other")
    session = wire.join("d").session
    said = wire.send(broadcast_stateless("d", "to everybody"))
    assert said == ["note d ProtocolError", "drain", "leave d", "send d closed: Reset Connection"]
    assert session.state is State.CLOSED
    assert wire.delivered == []
    # It may come back at once, and its awareness is that of a new session.
    assert wire.send(awareness("d", (5, 1, "{}")), auth("d")) == ["authenticate d '' for d"]
    assert wire.let_in("d")[-1] == "deliver d AwarenessUpdate \1\5\1\2{}"
    assert wire.send(update("other", b"x")) == ["deliver other SyncUpdate x"]


def test_what_waits_behind_a_broadcast_is_dropped_up_to_the_next_close_or_token(wire: Wire) -> None:
    frames = [broadcast_stateless("d", "x"), update("d", b"dropped"), auth("d", "again"), update("d", b"kept")]
    wire.send(auth("d"))
    wire.grant("d")
    wire.send(*frames)
    said = wire.open("d")
    assert said[2:] == [
        "note d ProtocolError",
        "drain",
        "leave d",
        "send d closed: Reset Connection",
        "authenticate d 'again' for d",
    ]
    assert wire.waiting == 1
    assert wire.let_in("d")[4:] == ["deliver d SyncUpdate kept"]


@pytest.mark.parametrize("access", Access)
def test_stateless_messages_may_be_turned_off(access: Access) -> None:
    wire = Wire(LIMITS._replace(stateless=False))
    wire.join("d", access)
    assert wire.send(stateless("d", "hello")) == ["note d ProtocolError"]
    assert wire.send(stateless("d", "longer than allowed")) == ["note d ProtocolError"]
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]


def test_a_stateless_message_has_a_bound(wire: Wire) -> None:
    wire.join("d")
    wire.join("other")
    assert wire.send(stateless("d", "x" * 10)) == ["deliver d Stateless xxxxxxxxxx"]
    assert wire.send(stateless("d", "x" * 11)) == [
        "note d LimitExceeded",
        'control d type 5: (\'{"type": "stateless message not relayed", '
        '"reason": "a stateless message has at most 10 bytes"}\',)',
    ]
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]
    assert wire.send(stateless("other", "x")) == ["deliver other Stateless x"]


def test_a_stateless_message_past_the_bound_is_not_looked_at(wire: Wire) -> None:
    wire.join("d")
    noise = frame("d", STATELESS, varbytes(b"\xff" * 40))
    assert wire.send(noise)[0] == "note d LimitExceeded", "not that it is no text, which would end the session"
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]


@pytest.mark.parametrize("text", ["x", "x" * 11])
def test_a_stateless_message_of_a_reader_is_left_to_the_room_whatever_its_size(wire: Wire, text: str) -> None:
    wire.join("d", Access.READ)
    assert wire.send(stateless("d", text)) == [f"deliver d Stateless {text}"]


# How a session ends


# How each error is told: by closing the socket, if coming back may help, or under the address.
CLOSES: dict[type[CollabError], int] = {
    AddressError: 4401,
    InternalError: 4500,
    InvalidTransition: 4500,
    Overloaded: 1013,
    PeerTooSlow: 4508,
    ServerStopping: 1012,
    StoreUnavailable: 1013,
    StoreDamaged: 1013,
    StoreWentBack: 1013,
    DamagedDocument: 1013,
    AccessUnavailable: 1013,
    HookUnavailable: 1013,
    AccessNotYet: 1013,
    KeptOut: 1013,
    Kicked: 4503,
    DocumentReloaded: 4502,
    AccessExpired: 4501,
    DocumentBusy: 1013,
    # These meet calls over HTTP; a socket would be told to come later.
    errors.OutcomeUnknown: 1013,
    errors.EditOvertaken: 1013,
    errors.KeyBusy: 1013,
    errors.SandboxBusy: 1013,
}


ERRORS = [pytest.param(kind("the operator's text"), id=kind.__name__) for kind in every_error()]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_that_ends_a_session_is_told_by_a_close_or_under_the_address(error: CollabError) -> None:
    code = CLOSES.get(type(error))
    told = DENIED.format(error.public) if code is None else f"close {code}"
    note = f"note d {type(error).__name__}"

    def fresh(step: Callable[[Wire], object]) -> Wire:
        wire = Wire()
        step(wire)
        return wire

    live = fresh(lambda wire: wire.join("d"))
    assert live.ended("d", error) == (["leave d"] if code is None else []) + [told]
    failing = fresh(lambda wire: wire.join("d"))
    assert failing.failed("d", error) == [note, "drain", *(["leave d"] if code is None else []), told]
    asking = fresh(lambda wire: wire.send(auth("d")))
    if isinstance(error, (DocumentBusy, DamagedDocument)):
        assert asking.deny("d", error) == [note, "retry in 0.5"]
        return
    assert asking.deny("d", error) == [note, "drain", *(["leave d"] if code is None else []), told]
    opening = fresh(lambda wire: wire.send(auth("d")))
    opening.grant("d")
    assert opening.deny("d", error) == [note, "drain", *(["leave d"] if code is None else []), told]
    for wire in (live, failing, asking, opening):
        if code is None:
            assert wire.state("d") is State.DENIED
            assert wire.send(update("d", b"x")) == []
            wire.send(auth("d", "good"))
            assert wire.let_in("d")[-1] == "join d"
        else:
            assert wire.closed is not None and wire.closed.code.reason == error.public


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_of_a_whole_socket_has_a_code(wire: Wire, error: CollabError) -> None:
    expected = CLOSES.get(type(error), 4205 if isinstance(error, LimitExceeded) else 4500)
    assert wire.protocol.close_code(error).code == expected


def test_a_defect_of_ours_closes_the_socket_without_its_text(wire: Wire) -> None:
    assert wire.protocol.close_code(RuntimeError("a secret")) == (4500, "internal error, come back")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unauthenticated("x"), "a valid token is needed"),
        (Forbidden("x", public="not this one"), "not this one"),
        (DocumentNotFound("x"), "no such document"),
        (DocumentDeleted("x"), "the document was deleted"),
        (StoreRefused("x"), "the store refuses this document"),
        (DecodeError("x"), "malformed message"),
        (LimitExceeded("x"), "limit exceeded"),
        (DocumentTooLarge("x"), "the document is too large"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, CollabError) else "",
)
def test_what_will_not_pass_is_told_under_its_address(wire: Wire, error: CollabError, reason: str) -> None:
    wire.join("other")
    wire.send(auth("d"))
    assert wire.deny("d", error)[-1] == DENIED.format(reason)
    wire.join("d")
    assert wire.ended("d", error) == ["leave d", DENIED.format(reason)]
    assert wire.closed is None
    assert wire.send(update("other", b"x")) == ["deliver other SyncUpdate x"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(ServerStopping("x"), 1012, id="ServerStopping"),
        pytest.param(StoreUnavailable("x"), 1013, id="StoreUnavailable"),
        pytest.param(AccessUnavailable("x"), 1013, id="AccessUnavailable"),
        pytest.param(PeerTooSlow("x"), 4508, id="PeerTooSlow"),
        pytest.param(DocumentReloaded("x"), 4502, id="DocumentReloaded"),
        pytest.param(Kicked("x"), 4503, id="Kicked"),
    ],
)
def test_what_may_pass_closes_the_socket(wire: Wire, error: CollabError, code: int) -> None:
    """Upon which a provider comes back, with all its documents."""
    wire.send(auth("d"))
    assert wire.deny("d", error)[-1] == f"close {code}"
    live = Wire()
    live.join("other")
    live.join("d")
    assert live.ended("d", error) == [f"close {code}"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="an address alone"),
        pytest.param(b"\x80", id="half a type"),
        pytest.param(b"\0", id="a sync message without a body"),
        pytest.param(b"\0\3\0", id="a sync kind that does not exist"),
        pytest.param(b"\0\2\5\0", id="a truncated Update"),
        pytest.param(b"\0\2\1\0\0", id="a byte behind an Update"),
        pytest.param(b"\0\1\1\0\0", id="a byte behind a SyncStep2"),
        pytest.param(b"\2", id="Auth without a body"),
        pytest.param(b"\2\2" + varbytes(b"read-write"), id="Auth of a server"),
        pytest.param(b"\2\0\0\0\0", id="a byte behind a version"),
        pytest.param(b"\5", id="Stateless without a body"),
        pytest.param(b"\5" + varbytes(b"\xff"), id="Stateless that is not UTF-8"),
        pytest.param(b"\5\0\0", id="a byte behind Stateless"),
    ],
)
def test_a_malformed_message_ends_its_session_alone(wire: Wire, body: bytes) -> None:
    wire.join("other")
    wire.join("d")
    told = ["note d DecodeError", "drain", "leave d", DENIED.format("malformed message")]
    assert wire.protocol.receive_live(varbytes(b"d") + body) is None
    assert wire.send(varbytes(b"d") + body) == told
    assert wire.state("d") is State.DENIED
    # In its place among what waits as well.
    wire.send(auth("e"))
    wire.grant("e")
    wire.send(update("e", b"x"), varbytes(b"e") + body, update("e", b"y"))
    assert wire.open("e")[2:] == ["deliver e SyncUpdate x", *(one.replace(" d", " e", 1) for one in told)]
    assert wire.send(update("other", b"x")) == ["deliver other SyncUpdate x"]
    assert wire.closed is None


@pytest.mark.parametrize("body", [b"\1", b"\1\1\0\0", b"\1\xff"], ids=["no body", "a byte behind it", "half a length"])
def test_a_malformed_awareness_message_is_left_to_the_room_which_refuses_the_presence_only(
    wire: Wire, body: bytes
) -> None:
    wire.join("d")
    assert wire.protocol.receive_live(varbytes(b"d") + body) is None
    assert wire.send(varbytes(b"d") + body) == ["deliver d AwarenessUpdate "]
    assert wire.send(update("d", b"x")) == ["deliver d SyncUpdate x"]


def test_a_keepalive_goes_under_any_address_and_every_client_takes_it(wire: Wire) -> None:
    assert wire.protocol.keepalive() is None
    wire.send(update("first", b"x"))
    wire.join("d")
    message = wire.protocol.keepalive()
    assert message == varbytes(b"first") + bytes.fromhex("010100")
    wire.send(close("first"))
    assert wire.protocol.keepalive() == varbytes(b"d") + bytes.fromhex("010100")
    wire.send(close("d"))
    assert wire.protocol.keepalive() is None


def test_the_end_of_the_socket_leaves_everything(wire: Wire) -> None:
    wire.send(update("arrived", b"x"))
    wire.be_denied("denied")
    wire.send(step1("denied"))
    wire.send(auth("asking"), update("asking", b"x"), auth("opening"), update("opening", b"x"))
    wire.grant("opening")
    wire.send(auth("behind"), update("behind", b"x"))
    wire.grant("behind")
    wire.opened("behind")
    wire.join("lags")
    wire["lags"].session.on(Step.LAGGED)
    wire.join("live")
    sessions = [channel.session for channel in wire.protocol.channels_open]
    names = ["arrived", "denied", "asking", "opening", "behind", "lags", "live"]
    assert wire.close() == [f"leave {name}" for name in names]
    assert {session.state for session in sessions} == {State.CLOSED}
    assert list(wire.protocol.channels_open) == []
    assert wire.protocol._waiting.frames == wire.protocol._waiting.nbytes == 0
    assert wire.close() == []
    # Whatever was asked for is answered in vain.
    assert {one.channel.name for one in wire.stale} == {"asking", "opening"}
    for one in wire.stale:
        assert wire.protocol.granted(one.channel, one.session, Access.WRITE, None) == ()
        assert wire.protocol.opened(one.channel, one.session) == ()
        assert wire.protocol.next_waiting(one.channel, one.session) is None


# Answers that come too late


def test_no_answer_to_a_session_that_was_left_means_anything(wire: Wire) -> None:
    channel = wire.join("d")
    old = channel.session
    wire.failed("d", DecodeError("x"))
    wire.send(auth("d"))
    protocol, error = wire.protocol, Forbidden("no")
    for state in (State.AUTHENTICATING, State.JOINING, State.LIVE):
        assert wire.state("d") is state
        assert protocol.granted(channel, old, Access.READ, "mallory") == ()
        assert protocol.opened(channel, old) == ()
        assert protocol.denied(channel, old, error) == ()
        assert protocol.denied(channel, old, StoreUnavailable("away")) == ()
        assert protocol.denied(channel, old, DocumentBusy("full")) == ()
        assert protocol.next_waiting(channel, old) is None
        assert protocol.renewed(channel, old, Access.READ) == ()
        assert [type(one) for one in protocol.renewal_denied(channel, old, error)] == [Note]
        assert protocol.failed(channel, old, error) == ()
        assert protocol.ended(channel, old, error) == ()
        assert wire.state("d") is state
        assert channel.session.access is Access.WRITE and channel.session.author is None
        if state is State.AUTHENTICATING:
            wire.grant("d")
            wire.send(update("d", b"x"))
        elif state is State.JOINING:
            wire.opened("d")
    # Nor is anything taken for it.
    assert not channel.ready and wire.waiting == 1


@pytest.mark.parametrize("state", [State.AUTHENTICATING, State.JOINING, State.LIVE])
@pytest.mark.parametrize("again", [False, True])
def test_no_answer_for_a_document_that_was_left_means_anything(wire: Wire, state: State, again: bool) -> None:
    """Also when it was opened again on the same socket."""
    wire.send(auth("d"))
    if state is not State.AUTHENTICATING:
        wire.grant("d")
    if state is State.LIVE:
        wire.open("d")
    channel, session = wire["d"], wire["d"].session
    wire.close()
    if again:
        wire.join("d")
    protocol, error = wire.protocol, Forbidden("no")
    before = snapshot(wire)
    assert protocol.granted(channel, session, Access.READ, "mallory") == ()
    assert protocol.opened(channel, session) == ()
    assert protocol.denied(channel, session, error) == ()
    assert protocol.next_waiting(channel, session) is None
    assert protocol.renewed(channel, session, Access.READ) == ()
    assert [type(one) for one in protocol.renewal_denied(channel, session, error)] == [Note]
    assert protocol.failed(channel, session, error) == ()
    assert protocol.ended(channel, session, error) == ()
    assert snapshot(wire) == before


def test_an_answer_that_comes_twice_counts_once(wire: Wire) -> None:
    wire.send(auth("d"))
    channel, session = wire["d"], wire["d"].session
    assert wire.protocol.opened(channel, session) == ()
    wire.grant("d")
    assert wire.protocol.granted(channel, session, Access.READ, "mallory") == ()
    wire.opened("d")
    assert wire.protocol.granted(channel, session, Access.READ, "mallory") == ()
    assert wire.protocol.opened(channel, session) == ()
    assert (session.access, session.author, session.state) == (Access.WRITE, None, State.LIVE)


# The usual messages


USUAL = [step1("d", b"v"), step2("d", b"x"), update("d", b"x"), update("d", bytes(300)), awareness("d", (5, 1, "{}"))]


@pytest.mark.parametrize("data", USUAL, ids=["SyncStep1", "SyncStep2", "Update", "a longer Update", "Awareness"])
def test_a_usual_message_of_a_ready_channel_is_taken_at_once(wire: Wire, data: bytes) -> None:
    channel = wire.join("d")
    delivered = wire.protocol.receive_live(data)
    assert delivered is not None and delivered.channel is channel
    assert [read(delivered)] == wire.send(data)
    assert delivered.size == len(data)


def test_a_usual_message_is_taken_at_once_whichever_document_spoke_last(wire: Wire) -> None:
    """Also of a document that was closed, or denied, and opened again."""
    channels = {address: wire.join(address) for address in ("d", "d\0one", "dd")}
    for address in ("d", "d\0one", "dd", "dd", "d", "d\0one"):
        delivered = wire.protocol.receive_live(update(address, b"x"))
        assert delivered is not None and delivered.channel is channels[address]
    wire.send(close("d\0one"))
    assert wire.protocol.receive_live(update("d\0one", b"x")) is None
    again = wire.join("d\0one")
    for _ in range(2):
        delivered = wire.protocol.receive_live(update("d\0one", b"x"))
        assert delivered is not None and delivered.channel is again
    wire.failed("d\0one", DecodeError("x"))
    assert wire.protocol.receive_live(update("d\0one", b"x")) is None
    assert wire.protocol.receive_live(update("d", b"x")) is not None


@pytest.mark.parametrize(
    "data",
    [
        auth("d", "newer"),
        query_awareness("d"),
        frame("d", SYNC_REPLY, b"\2" + varbytes(b"x")),
        stateless("d", "x"),
        broadcast_stateless("d", "x"),
        close("d"),
        frame("d", SYNC_STATUS, b"\1"),
        varbytes(b"d"),
        frame("d", SYNC, b"\2\5"),
        frame("d", AWARENESS, b"\5"),
        update("e", b"x"),
        update("unknown", b"x"),
        b"",
        PING,
        b"\xff" * 20,
    ],
    ids=lambda data: data[:12].hex(),
)
def test_any_other_frame_is_left_untouched(wire: Wire, data: bytes) -> None:
    wire.join("d")
    wire.send(auth("e"))
    before = snapshot(wire)
    assert wire.protocol.receive_live(data) is None
    assert snapshot(wire) == before


def test_a_large_edit_of_a_document_that_is_held_is_not_read_and_is_asked_for_later(wire: Wire) -> None:
    """Else its socket would not be read for as long as the document is held, and the others are on it, too."""
    wire.join("other")
    wire.send(auth("d"))
    wire.deny("d", DocumentBusy("full"))
    assert wire.protocol.may_send(update("d", b"x")) is False
    assert list(wire.protocol.unread(update("d", b"x"), 1_000)) == []
    assert wire["d"].dropped == 1 and wire.closed is None
