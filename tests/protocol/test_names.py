"""The one rule for document names, and both wire protocols' doors, which have no other.

The doors of the HTTP API and of the command line are in tests/transports/test_names.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import InvalidDocumentName
from collab.protocol import events
from collab.protocol.events import Authenticate, Close, Send
from collab.protocol.hocuspocus import codec
from collab.protocol.hocuspocus.connection import Channel as HocuspocusChannel
from collab.protocol.hocuspocus.connection import Connection as HocuspocusConnection
from collab.protocol.hocuspocus.connection import Limits
from collab.protocol.messages import PermissionDenied
from collab.protocol.names import MAX_NAME_BYTES, check_document_name, covers, decode_document_name
from collab.protocol.session import Session
from collab.protocol.ywebsocket.connection import Connection as YWebSocketConnection
from tests.support import hocuspocus as builder

LENGTH = "a document name is 1 to 512 bytes of UTF-8"
BLANK = "a document name is 1 to 512 bytes of UTF-8, and not white space alone"
NUL = "a document name is 1 to 512 bytes of UTF-8 without NUL"

NAMES = {
    "a letter": b"d",
    "slashes": b"/a//b/",
    "white space around": b" a\t",
    "a line break inside": b"a\nb",
    "512 bytes": b"x" * 512,
    "512 bytes of 256 characters": "ä".encode() * 256,
    "a character of four bytes": "😀".encode(),
    "a percent sign": b"%41",
}

NO_NAMES = {
    "nothing": (b"", LENGTH),
    "513 bytes": (b"x" * 513, LENGTH),
    "257 characters of 514 bytes": ("ä".encode() * 257, LENGTH),
    "white space too long": (b" " * 513, LENGTH),
    "not UTF-8": (b"a\xff", LENGTH),
    "half a character": (b"\xed\xa0\x80", LENGTH),
    "a blank": (b" ", BLANK),
    "blanks of all kinds": ("\t\n\u2003\u00a0".encode(), BLANK),
}

# In an address of Hocuspocus a NUL ends the name.
WITH_NUL = {"a NUL": (b"\0", NUL), "a NUL inside": (b"a\0b", NUL), "a NUL in white space": (b" \0", NUL)}


class Channel(events.Channel):
    def new_session(self) -> Session:
        return Session()


class Addressed(HocuspocusChannel):
    def new_session(self) -> Session:
        return Session()


# Each door gives the name, or the reason for which it is none.


def rule(raw: bytes) -> str | InvalidDocumentName:
    try:
        return decode_document_name(raw)
    except InvalidDocumentName as error:
        return error


def ywebsocket_path(raw: bytes) -> tuple[str | None, str | None]:
    (step,) = YWebSocketConnection(Channel()).open(raw, "a token")
    if isinstance(step, Authenticate):
        return step.name, None
    assert isinstance(step, Close) and step.code.code == 4400
    assert isinstance(step.error, InvalidDocumentName) and step.error.public == step.code.reason
    return None, step.code.reason


def hocuspocus_address(address: bytes) -> tuple[str | None, str | None]:
    connection = HocuspocusConnection(Addressed, Limits(10, 1 << 20, True, 1 << 10))
    steps = connection.receive(builder.auth(address, "a token"))
    for step in steps:
        if isinstance(step, Authenticate):
            return step.name, None
    (answer,) = [step.payload for step in steps if isinstance(step, Send)]
    denied = codec.decode_from_server(answer, codec.read_address(answer)[1])
    assert isinstance(denied, PermissionDenied)
    assert not any(isinstance(step, Close) for step in steps)
    return None, denied.reason


@pytest.mark.parametrize("what", NAMES)
def test_a_name_opens_over_both_protocols(what: str) -> None:
    raw = NAMES[what]
    name = raw.decode()
    assert rule(raw) == name
    assert ywebsocket_path(raw) == hocuspocus_address(raw) == (name, None)
    assert hocuspocus_address(raw + b"\0a session") == (name, None)


@pytest.mark.parametrize("what", NO_NAMES)
def test_a_text_that_is_no_name_is_refused_for_one_reason_over_both_protocols(what: str) -> None:
    raw, reason = NO_NAMES[what]
    refused = rule(raw)
    assert isinstance(refused, InvalidDocumentName) and refused.public == reason
    assert ywebsocket_path(raw) == (None, reason)
    if raw.decode(errors="replace").encode() != raw:
        # Nothing can be answered under such an address: the socket is closed.
        connection = HocuspocusConnection(Addressed, Limits(10, 1 << 20, True, 1 << 10))
        (step,) = connection.receive(builder.auth(raw, "a token"))
        assert isinstance(step, Close) and step.code.code == 4401
        return
    assert hocuspocus_address(raw) == (None, reason)
    assert hocuspocus_address(raw + b"\0a session") == (None, reason)


@pytest.mark.parametrize("what", WITH_NUL)
def test_a_nul_is_in_no_name(what: str) -> None:
    raw, reason = WITH_NUL[what]
    refused = rule(raw)
    assert isinstance(refused, InvalidDocumentName) and refused.public == reason
    assert ywebsocket_path(raw) == (None, reason)


@pytest.mark.parametrize(
    ("address", "expected"),
    [(b"a\0b", ("a", None)), (b"a\0b\0c", ("a", None)), (b"\0b", (None, LENGTH)), (b" \0b", (None, BLANK))],
)
def test_a_nul_ends_the_name_in_an_address(address: bytes, expected: tuple[str | None, str | None]) -> None:
    assert hocuspocus_address(address) == expected


@pytest.mark.parametrize("name", ["\ud83d", "a\ude00"])
def test_half_a_character_is_in_no_name(name: str) -> None:
    """JSON and command lines can hold one."""
    with pytest.raises(InvalidDocumentName, match="not UTF-8") as caught:
        check_document_name(name)
    assert caught.value.public == LENGTH


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "of 0 bytes"), ("ä" * 300, "of 600 bytes"), ("a\0", "with a NUL"), (" ", "blank")],
)
def test_the_operator_is_told_what_is_wrong(name: str, said: str) -> None:
    with pytest.raises(InvalidDocumentName, match=said):
        check_document_name(name)


@pytest.mark.parametrize(
    ("pattern", "covered", "others"),
    [
        ("*", ["a", "a/b", "*"], []),
        ("a/*", ["a/", "a/b", "a/b/c"], ["a", "b/a/c", "A/b"]),
        ("a*", ["a", "ab", "a/b"], ["b"]),
        ("a", ["a"], ["ab", "a/b", "A"]),
    ],
)
def test_a_pattern_covers_a_name_or_the_beginnings_of_names(
    pattern: str, covered: list[str], others: list[str]
) -> None:
    assert [name for name in (*covered, *others) if covers(pattern, name)] == covered


@given(st.text() | st.text(alphabet=" \t\0a/", max_size=4))
def test_a_name_is_what_the_documentation_says(name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    good = 1 <= size <= MAX_NAME_BYTES and "\0" not in name and not name.isspace()
    try:
        check_document_name(name)
    except InvalidDocumentName:
        assert not good
    else:
        assert good
        assert decode_document_name(name.encode()) == name
