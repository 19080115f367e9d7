"""The y-websocket codec in both directions, against itself; `test_golden.py` has what the packages write."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab import errors
from collab.errors import CollabError, DecodeError, UpdateError
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.hocuspocus import codec as hocuspocus
from collab.protocol.messages import CloseCode, LocalVersion, Message, PermissionDenied, Stateless, SyncStatus
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.ywebsocket import codec as ywebsocket
from tests.support.errors import every_error
from tests.support.wsclient import varbytes, varuint

Decode = Callable[[bytes], Message | None]

payloads = st.binary(max_size=300)
messages: st.SearchStrategy[Message] = st.one_of(
    payloads.map(SyncStep1), payloads.map(SyncStep2), payloads.map(SyncUpdate), payloads.map(AwarenessUpdate)
)
reasons = st.text(st.characters(codec="utf-8"), max_size=200)
denials = reasons.map(PermissionDenied)

# What a server does with a client's frame, and a client with a server's.
both = pytest.mark.parametrize("decode", [ywebsocket.decode, ywebsocket.decode_from_server])


# From here to there and back


@both
@given(message=messages)
def test_round_trip(decode: Decode, message: Message) -> None:
    decoded = decode(ywebsocket.encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@given(denials)
def test_a_refusal_reaches_the_client(message: PermissionDenied) -> None:
    frame = ywebsocket.encode(message)
    assert frame == b"\x02\x00" + varbytes(message.reason.encode())
    assert ywebsocket.decode_from_server(frame) == message


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        (SyncStep1(b"\x00"), "00000100"),
        (SyncStep2(b"\x00\x00"), "0001020000"),
        (SyncUpdate(b"\x00\x00"), "0002020000"),
        (AwarenessUpdate(b"\x00"), "010100"),
        (AwarenessUpdate(bytes(200)), "01c801" + "00" * 200),
        (PermissionDenied("no"), "0200026e6f"),
        (QueryAwareness(), "03"),
        (LocalVersion(0), "660100"),
        (LocalVersion(300), "6602ac02"),
    ],
)
def test_a_message_is_these_bytes(message: Message, frame: str) -> None:
    assert ywebsocket.encode(message).hex() == frame
    decoded = ywebsocket.decode_from_server(bytes.fromhex(frame))
    assert decoded == message
    assert type(decoded) is type(message)


@pytest.mark.parametrize("message", [Stateless(b"x"), SyncStatus(True), SyncStatus(False)])
def test_what_the_protocol_does_not_have_is_not_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match=f"y-websocket has no {type(message).__name__}"):
        ywebsocket.encode(message)


def test_what_both_wire_protocols_carry_has_one_encoding() -> None:
    assert (ywebsocket.SYNC, ywebsocket.AWARENESS, ywebsocket.AUTH, ywebsocket.QUERY_AWARENESS) == (
        hocuspocus.SYNC,
        hocuspocus.AWARENESS,
        hocuspocus.AUTH,
        hocuspocus.QUERY_AWARENESS,
    )
    for message in (SyncStep1(b"v"), SyncStep2(b"u"), SyncUpdate(b"u"), AwarenessUpdate(b"a"), QueryAwareness()):
        assert ywebsocket.encode(message) == hocuspocus.encode(message)


# What is refused, and what is ignored


@both
@given(message=messages)
def test_every_truncation_is_refused(decode: Decode, message: Message) -> None:
    frame = ywebsocket.encode(message)
    for end in range(len(frame)):
        with pytest.raises(DecodeError):
            decode(frame[:end])


@both
@given(message=messages, rest=st.binary(min_size=1, max_size=20))
def test_bytes_behind_a_message_are_refused(decode: Decode, message: Message, rest: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(ywebsocket.encode(message) + rest)


@given(denials, st.binary(min_size=1, max_size=20))
def test_a_refusal_is_refused_when_cut_or_lengthened(message: PermissionDenied, rest: bytes) -> None:
    frame = ywebsocket.encode(message)
    for cut in (*(frame[:end] for end in range(len(frame))), frame + rest):
        with pytest.raises(DecodeError):
            ywebsocket.decode_from_server(cut)


@pytest.mark.parametrize("body", ["", "01", "0200", "ff", "8000", "0001ff", "0003eda080"])
def test_an_auth_message_that_is_no_refusal_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        ywebsocket.decode_from_server(b"\x02" + bytes.fromhex(body))


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "empty frame"),
        (b"\x01\x00\x00\x00", "awareness message: 2 bytes behind its end"),
        (b"\x02\x00\x00\x00\x00\x00", "Auth message: 3 bytes behind its end"),
        (b"\x02\x05", "Auth message of kind 5 from a server"),
    ],
)
def test_the_log_is_told_what_is_wrong(frame: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        ywebsocket.decode_from_server(frame)


@both
@given(frame=st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_decode_errors(decode: Decode, frame: bytes) -> None:
    with contextlib.suppress(DecodeError):
        decode(frame)


@both
@pytest.mark.parametrize("frame", [b"\x04", b"\x7f\xff", b"\xff\xff\x03abc", varuint(2**53 - 1) + bytes(9)])
def test_unknown_types_are_ignored(decode: Decode, frame: bytes) -> None:
    assert decode(frame) is None


@both
@pytest.mark.parametrize("frame", ["66", "6600", "660180", "660200", "66010000", "6602ac0200", "660301"])
def test_a_version_that_does_not_end_where_it_should_is_refused(decode: Decode, frame: str) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(frame))


@pytest.mark.parametrize("frame", [b"\x02", b"\x02\x00\x00", b"\x02\x01", b"\x02\xff\xff"])
def test_auth_from_a_client_is_ignored(frame: bytes) -> None:
    assert ywebsocket.decode(frame) is None


@both
def test_what_comes_behind_a_query_is_not_read(decode: Decode) -> None:
    """It has no body; clients do not look there either."""
    assert type(decode(b"\x03")) is QueryAwareness
    assert type(decode(b"\x03\xff")) is QueryAwareness


@both
@pytest.mark.parametrize("frame", ["", "80", "8000020000", "ff" * 9, "0003", "000300", "0080", "0002800000"])
def test_a_frame_that_no_client_writes_is_refused(decode: Decode, frame: str) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(frame))


def test_the_keepalive_is_the_empty_awareness_update_that_every_client_accepts() -> None:
    assert bytes.fromhex("010100") == ywebsocket.KEEPALIVE


# Close codes


CODES: dict[type[BaseException], int] = {
    BaseException: 4500,
    ValueError: 4500,
    RuntimeError: 4500,
    CollabError: 4500,
    errors.ConfigurationError: 4500,
    errors.CannotListen: 4500,
    errors.DecodeError: 1007,
    errors.AddressError: 1007,
    errors.AwarenessError: 1007,
    errors.UpdateError: 1007,
    errors.ProtocolError: 1008,
    errors.InternalError: 4500,
    errors.InvalidTransition: 4500,
    errors.LimitExceeded: 1008,
    errors.DocumentTooLarge: 4413,
    errors.MessageTooLarge: 4413,
    errors.DocumentBusy: 1013,
    errors.Overloaded: 1013,
    errors.PeerTooSlow: 4508,
    errors.AccessError: 4500,
    errors.AccessDenied: 4403,
    errors.Unauthenticated: 4401,
    errors.Forbidden: 4403,
    errors.Refused: 4403,
    errors.QuotaExceeded: 4403,
    errors.AccessExpired: 4501,
    errors.AccessNotYet: 1013,
    errors.KeptOut: 1013,
    errors.Kicked: 4503,
    errors.AccessUnavailable: 1013,
    errors.HookUnavailable: 1013,
    errors.ServerStopping: 1012,
    errors.DocumentError: 4500,
    errors.InvalidDocumentName: 4400,
    errors.DocumentNotFound: 4404,
    errors.DocumentExists: 4500,
    errors.OffsetExpired: 4500,
    errors.DocumentDeleted: 4404,
    errors.DocumentRenamed: 4404,
    errors.DocumentReloaded: 4502,
    errors.StoreError: 4500,
    errors.StoreUnavailable: 1013,
    errors.StoreRefused: 4413,
    errors.StoreDamaged: 1013,
    errors.StoreWentBack: 1013,
    errors.DamagedDocument: 1013,
    errors.SchemaError: 4500,
    errors.SandboxError: 4500,
    errors.SandboxTimeout: 4500,
    errors.SandboxCrashed: 4500,
    # These meet calls over HTTP alone.
    errors.InvalidMetadata: 4500,
    errors.HistoryGone: 4500,
    errors.NoSuchVersion: 4500,
    errors.TooManyVersions: 4500,
    errors.UpdateIncomplete: 4500,
    errors.PreconditionFailed: 4500,
    errors.EditOvertaken: 4500,
    errors.NoSuchWebhook: 4500,
    errors.NoSuchTenant: 4500,
    errors.InvalidQuota: 4500,
    errors.RepeatError: 4500,
    errors.KeyReused: 4500,
    errors.KeyBusy: 4500,
    errors.OutcomeUnknown: 1013,
    errors.ContentError: 4500,
    errors.NoSuchContent: 4500,
    errors.WrongContentType: 4500,
    errors.InvalidEdit: 4500,
    errors.EditConflict: 4500,
    errors.EditNotShown: 4500,
    errors.UnreadableContent: 4500,
    errors.SandboxBusy: 4500,
}


@pytest.mark.parametrize("kind", CODES)
def test_an_error_has_one_code(kind: type[BaseException]) -> None:
    code = ywebsocket.close_code(kind("the operator's text"))
    assert code.code == CODES[kind]
    public = kind.public if issubclass(kind, CollabError) else "internal error, come back"
    if kind is errors.UnreadableContent:
        public = "the document holds something that is read and changed as Yjs updates only"
    elif issubclass(kind, (errors.ContentError, errors.InvalidMetadata, errors.InvalidQuota, errors.Refused)):
        public = "the operator's text"  # which is for the one whose content it is, or who is refused
    assert code.reason == public, "the client is told the public text and nothing else"


def test_every_error_is_in_the_table_above() -> None:
    assert set(CODES) >= set(every_error())


@pytest.mark.parametrize("kind", every_error())
def test_retryable_errors_never_stop_a_client_for_good(kind: type[CollabError]) -> None:
    code = ywebsocket.close_code(kind("the operator's text"))
    assert len(code.reason.encode()) <= 123
    if kind.retryable:
        assert not 4400 <= code.code < 4500


def test_a_class_of_an_application_has_the_code_of_its_parent() -> None:
    class Late(errors.AccessExpired):
        public = "late"

    assert ywebsocket.close_code(Late("x")) == CloseCode(4501, "late")
    assert ywebsocket.close_code(UpdateError("x")).code == 1007


def test_text_frames_are_refused_so_that_the_client_comes_back() -> None:
    assert CloseCode(1003, "binary frames only") == ywebsocket.CLOSE_TEXT


# The log


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (b"\x00\x00\x01\x00", "SyncStep1"),
        (b"\x00\x01\x00", "SyncStep2"),
        (b"\x00\x02\x00", "SyncUpdate"),
        (b"\x00", "unknown sync message"),
        (b"\x00\x09", "unknown sync message"),
        (b"\x01\x01\x00", "Awareness"),
        (b"\x02\x00\x02no", "Auth"),
        (b"\x03", "QueryAwareness"),
        (b"\x04secret", "unknown type 4"),
        (b"", "unknown type -1"),
    ],
)
def test_a_frame_is_named_for_the_log_and_nothing_of_it_shown(frame: bytes, text: str) -> None:
    assert ywebsocket.describe(frame) == text
