from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab import errors
from collab.errors import CollabError, DecodeError, DocumentDeleted, DocumentTooLarge, StoreUnavailable, UpdateError
from collab.protocol import ywebsocket
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.wire import Message

payloads = st.binary(max_size=300)
messages: st.SearchStrategy[Message] = st.one_of(
    payloads.map(SyncStep1), payloads.map(SyncStep2), payloads.map(SyncUpdate), payloads.map(AwarenessUpdate)
)


@given(messages)
def test_round_trip(message: Message) -> None:
    decoded = ywebsocket.decode(ywebsocket.encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


def test_query_awareness_is_one_byte() -> None:
    assert ywebsocket.encode(QueryAwareness()) == b"\x03"
    assert type(ywebsocket.decode(b"\x03")) is QueryAwareness


@given(messages)
def test_every_truncation_is_refused(message: Message) -> None:
    frame = ywebsocket.encode(message)
    for end in range(len(frame)):
        with pytest.raises(DecodeError):
            ywebsocket.decode(frame[:end])


@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_decode_errors(frame: bytes) -> None:
    with contextlib.suppress(DecodeError):
        ywebsocket.decode(frame)


@pytest.mark.parametrize("frame", [b"\x02\x00\x00", b"\x04", b"\x7f\xff", b"\xff\xff\x03abc"])
def test_unknown_types_and_auth_are_ignored(frame: bytes) -> None:
    assert ywebsocket.decode(frame) is None


def test_keepalive_is_the_empty_awareness_update_that_every_client_accepts() -> None:
    assert bytes.fromhex("010100") == ywebsocket.KEEPALIVE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpdateError("x"), 1007),
        (DocumentDeleted("x"), 4404),
        (DocumentTooLarge("x"), 4413),
        (StoreUnavailable("x"), 1013),
        (errors.ServerStopping("x"), 1012),
        (errors.PeerTooSlow("x"), 4508),
        (errors.InvalidDocumentName("x"), 4400),
        (ValueError("our own mistake"), 4500),
    ],
)
def test_an_error_has_one_code(error: BaseException, code: int) -> None:
    assert ywebsocket.close_code(error).code == code


def every_error(kind: type[CollabError]) -> list[type[CollabError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in every_error(child))]


@pytest.mark.parametrize("kind", every_error(CollabError))
def test_retryable_errors_never_stop_a_client_for_good(kind: type[CollabError]) -> None:
    code = ywebsocket.close_code(kind("the operator's text"))
    assert "operator" not in code.reason
    assert len(code.reason.encode()) <= 123
    if kind.retryable:
        assert not 4400 <= code.code < 4500
