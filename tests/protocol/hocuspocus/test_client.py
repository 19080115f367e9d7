"""The client's side of a socket, with the bytes of the server written out."""

from __future__ import annotations

import pytest

from collab.errors import AddressError, DecodeError, InvalidDocumentName, ProtocolError
from collab.protocol.hocuspocus.client import (
    MAX_UNDER_WAY,
    Asked,
    Channel,
    ClientSocket,
    Ended,
    LetIn,
    NotTaken,
    Presence,
    PresenceWanted,
    Received,
    Reply,
    Said,
    Saved,
    Stage,
    TokenWanted,
)
from collab.protocol.messages import LocalVersion
from collab.protocol.session import Access

LET_IN = b"\x01d\x02\x02\x0aread-write"
READER = b"\x01d\x02\x02\x08readonly"
STEP_1 = b"\x01d\x00\x00\x01\x00"
STEP_2 = b"\x01d\x00\x01\x02\x00\x00"
UPDATE = b"\x01d\x00\x02\x02\x00\x00"
SAVED, REFUSED = b"\x01d\x08\x01", b"\x01d\x08\x00"


def live() -> tuple[ClientSocket, Channel]:
    socket = ClientSocket()
    channel = socket.open("d")
    socket.receive(LET_IN)
    socket.receive(STEP_1)
    return socket, channel


def test_a_document_is_opened_and_what_the_server_says_is_told() -> None:
    socket = ClientSocket()
    channel = socket.open("d")
    assert (channel.stage, channel.access, channel.vector, channel.may_edit) == (Stage.OPENING, None, None, False)
    assert channel.token("tök") == b"\x01d\x02\x00\x04t\xc3\xb6k"
    assert channel.ask(b"\x00") == b"\x01d\x00\x00\x01\x00"
    assert socket.receive(LET_IN) == (LetIn(channel, Access.WRITE),)
    assert (channel.stage, channel.access, channel.may_edit) == (Stage.LET_IN, Access.WRITE, False)
    assert socket.receive(STEP_1) == (Asked(channel),)
    assert (channel.stage, channel.vector, channel.may_edit) == (Stage.LIVE, b"\x00", True)
    assert socket.receive(STEP_2) == (Received(channel, b"\x00\x00", True),)
    assert socket.receive(UPDATE) == (Received(channel, b"\x00\x00", False),)
    assert socket.receive(b"\x01d\x01\x01\x00") == (Presence(channel, b"\x00"),)
    assert socket.receive(b"\x01d\x03") == (PresenceWanted(channel),)
    assert socket.receive(b"\x01d\x05\x02hi") == (Said(channel, "hi"),)
    assert socket.receive(b"\x01d\x02\x00") == (TokenWanted(channel),)
    assert socket.receive(READER) == (LetIn(channel, Access.READ),)
    assert not channel.may_edit
    assert socket.receive(b"\x09") == (Reply(b"\x0a"),) and socket.receive(b"\x0a") == ()
    assert socket.receive(b"\x01d\x64") == (), "a type of a later time"
    assert channel.presence(b"\x00") == b"\x01d\x01\x01\x00"
    assert channel.stateless("hi") == b"\x01d\x05\x02hi"


def test_acknowledgements_come_in_the_order_of_the_edits() -> None:
    socket, channel = live()
    assert channel.answer(b"\x00\x00", 3) == b"\x01d\x00\x01\x02\x00\x00"
    assert channel.edit(b"\x00\x00", 5) == b"\x01d\x00\x02\x02\x00\x00"
    assert channel.edit(b"\x00\x00", 6) == UPDATE
    assert socket.receive(SAVED) == (Saved(channel, 3),)
    assert socket.receive(REFUSED) == (NotTaken(channel, 5),)
    assert socket.receive(SAVED) == (Saved(channel, 6),)
    with pytest.raises(ProtocolError):
        socket.receive(SAVED)


def test_only_so_many_edits_are_under_way() -> None:
    socket, channel = live()
    for number in range(MAX_UNDER_WAY):
        assert channel.may_edit
        channel.edit(b"\x00\x00", number)
    assert not channel.may_edit
    with pytest.raises(AssertionError):
        channel.edit(b"\x00\x00", MAX_UNDER_WAY)
    socket.receive(SAVED)
    assert channel.may_edit


def test_a_session_that_the_server_refuses_is_over() -> None:
    socket, channel = live()
    channel.edit(b"\x00\x00", 1)
    assert socket.receive(b"\x01d\x02\x01\x02no") == (Ended(channel, "no"),)
    assert channel.stage is Stage.ENDED and not channel.may_edit
    assert socket.receive(SAVED) == (), "of a session that is over"


def test_a_document_that_the_server_closes_comes_back_with_its_socket() -> None:
    socket, _ = live()
    with pytest.raises(ProtocolError, match="no"):
        socket.receive(b"\x01d\x07\x02no")


def test_what_is_said_of_a_session_that_was_left_never_counts_for_the_next() -> None:
    socket, channel = live()
    channel.edit(b"\x00\x00", 1)
    assert channel.leave() == b"\x01d\x07"
    socket.forget(channel)
    again = socket.open("d")
    assert again.address == b"d\x002"
    again.answer(b"\x00\x00", 9)
    assert socket.receive(SAVED) == ()
    assert socket.receive(b"\x03d\x002\x08\x01") == (Saved(again, 9),)
    assert socket.open("d").address == b"d\x003"
    assert socket.open("e").address == b"e"


def test_documents_of_one_socket_are_told_apart() -> None:
    socket = ClientSocket()
    one, two = socket.open("d"), socket.open("ä")
    assert socket.receive(LET_IN) == (LetIn(one, Access.WRITE),)
    assert socket.receive(b"\x02\xc3\xa4\x02\x02\x08readonly") == (LetIn(two, Access.READ),)
    assert socket.receive(STEP_1) == (Asked(one),)
    assert socket.receive(b"\x01x\x08\x01") == ()


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"", AddressError),
        (b"\x05d", AddressError),
        (b"\x01d", DecodeError),
        (b"\x01d\x00\x02\x05\x00", DecodeError),
        (b"\x01d\x02\x07", DecodeError),
        (b"\x01d\x05\x01\xff", DecodeError),
    ],
)
def test_what_cannot_be_read_is_an_error(frame: bytes, error: type[Exception]) -> None:
    socket, _ = live()
    with pytest.raises(error):
        socket.receive(frame)


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(InvalidDocumentName):
        ClientSocket().open("a\0b")


def test_a_message_that_this_protocol_does_not_have_says_nothing() -> None:
    socket, channel = live()
    assert socket._take(channel, LocalVersion(7)) == () and channel.may_edit
