"""The client's side of the Hocuspocus codec: what a server sends is read, what a client sends is written.

Strategy: what the published server has written (`golden-hocuspocus.json`, each frame taken apart by lib0) must be read
as that, and what a published provider has written must come out to the byte. Hypothesis goes from our own encoder
and back.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.hocuspocus import codec
from collab.protocol.hocuspocus.codec import Authenticated, Closed, ServerMessage, Token, TokenRequest
from collab.protocol.messages import PermissionDenied, Stateless, SyncStatus
from collab.protocol.session import Access
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from tests.support.wsclient import varbytes, varuint

GOLDEN = Path(__file__).parents[1] / "data" / "golden-hocuspocus.json"

SYNC: dict[str, type[SyncStep1 | SyncStep2 | SyncUpdate]] = {
    "step1": SyncStep1,
    "step2": SyncStep2,
    "update": SyncUpdate,
}
SCOPES = {"read-write": Access.WRITE, "readonly": Access.READ}


def recorded(sender: str) -> list[Any]:
    """The addressed frames of one side; each content once, for providers say much the same."""
    seen: dict[str, Any] = {}
    for vector in json.loads(GOLDEN.read_text())["frames"]:
        if vector["from"] == sender and "address" in vector:
            name = f"{vector['source']}: {vector['what']}: {vector['type']}"
            seen.setdefault(vector["frame"], pytest.param(vector, id=name))
    return list(seen.values())


def decode(frame: bytes) -> tuple[bytes, ServerMessage | None]:
    address, pos = codec.read_address(frame)
    return address, codec.decode_from_server(frame, pos)


def from_server(vector: dict[str, Any]) -> ServerMessage | None:
    match vector["type"], vector.get("kind"):
        case (("sync" | "sync reply"), kind):
            return SYNC[str(kind)](bytes.fromhex(vector["payload"]))
        case "awareness", _:
            return AwarenessUpdate(bytes.fromhex(vector["payload"]))
        case "auth", "authenticated":
            return Authenticated(SCOPES[vector["scope"]])
        case "auth", "permission denied":
            return PermissionDenied(vector["reason"])
        case "auth", "token request":
            return TokenRequest()
        case "query awareness", _:
            return QueryAwareness()
        case "stateless", _:
            return Stateless(vector["payload"].encode())
        case "sync status", _:
            return SyncStatus(vector["saved"])
        case "close", _:
            return Closed(vector["reason"])
    assert vector["type"] == "broadcast stateless"
    return None  # only servers send it, to each other


# Golden


@pytest.mark.parametrize("vector", recorded("server"))
def test_a_recorded_frame_of_the_server_is_read_exactly(vector: dict[str, Any]) -> None:
    address, message = decode(bytes.fromhex(vector["frame"]))
    assert address.decode() == vector["address"]
    assert message == from_server(vector)
    assert type(message) is type(from_server(vector))


@pytest.mark.parametrize("vector", recorded("server"))
def test_a_recorded_frame_of_the_server_is_refused_when_cut_or_lengthened(vector: dict[str, Any]) -> None:
    frame, pos = bytes.fromhex(vector["frame"]), len(varbytes(vector["address"].encode()))
    if vector["type"] in ("query awareness", "broadcast stateless"):
        pos = len(frame)  # behind their type nothing is read
        assert decode(frame + b"\0") == decode(frame)
    else:
        with pytest.raises(DecodeError):
            decode(frame + b"\0")
    for cut in range(min(pos, len(frame)), len(frame)):
        with pytest.raises(DecodeError):
            decode(frame[:cut])


@pytest.mark.parametrize("vector", recorded("client"))
def test_a_recorded_frame_of_a_provider_is_written_exactly(vector: dict[str, Any]) -> None:
    match vector["type"]:
        case "auth":
            body = codec.encode_token(vector["token"], vector["version"])
        case "close":
            body = codec.CLOSE_REQUEST
        case "sync":
            body = codec.encode(SYNC[vector["kind"]](bytes.fromhex(vector["payload"])))
        case "awareness":
            body = codec.encode(AwarenessUpdate(bytes.fromhex(vector["payload"])))
        case kind:
            assert kind == "stateless"
            body = codec.encode(Stateless(vector["payload"].encode()))
    assert (codec.prefix(vector["address"].encode()) + body).hex() == vector["frame"]


# From our own encoder and back

texts = st.text(st.characters(codec="utf-8"), max_size=100)
payloads = st.binary(max_size=300)
answers = st.one_of(
    payloads.map(SyncStep1),
    payloads.map(SyncStep2),
    payloads.map(SyncUpdate),
    payloads.map(AwarenessUpdate),
    texts.map(lambda text: Stateless(text.encode())),
    st.booleans().map(SyncStatus),
    texts.map(PermissionDenied),
    st.sampled_from([Access.READ, Access.WRITE]).map(Authenticated),
    texts.map(Closed),
    st.just(TokenRequest()),
)


def encode(message: ServerMessage) -> bytes:
    match message:
        case Authenticated(access):
            return codec.encode_authenticated(access)
        case TokenRequest():
            return codec.TOKEN_REQUEST
        case Closed(reason):
            return bytes((codec.CLOSE,)) + varbytes(reason.encode())
        case _:
            return codec.encode(message)


@given(texts, answers)
def test_what_a_server_sends_reaches_its_client(address: str, message: ServerMessage) -> None:
    frame = codec.prefix(address.encode()) + encode(message)
    found, decoded = decode(frame)
    assert (found.decode(), decoded) == (address, message)
    assert type(decoded) is type(message)


@given(answers, st.binary(min_size=1, max_size=20))
def test_a_message_is_refused_when_cut_or_lengthened(message: ServerMessage, rest: bytes) -> None:
    body = encode(message)
    for cut in (*(body[:end] for end in range(len(body))), body + rest):
        with pytest.raises(DecodeError):
            codec.decode_from_server(cut, 0)


def test_whoever_may_manage_a_document_is_told_that_it_may_write() -> None:
    assert codec.decode_from_server(codec.encode_authenticated(Access.ADMIN), 0) == Authenticated(Access.WRITE)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (codec.CLOSED_BY_CLIENT, "provider_initiated"),
        (codec.CLOSED_FOR_BROADCAST, "Reset Connection"),
        (b"\x07\x00", ""),
    ],
)
def test_the_end_of_a_document_is_told_with_its_reason(body: bytes, reason: str) -> None:
    assert codec.decode_from_server(body, 0) == Closed(reason)


def test_a_keepalive_is_an_empty_awareness_update() -> None:
    assert codec.decode_from_server(codec.KEEPALIVE, 0) == AwarenessUpdate(b"\x00")


def test_a_query_for_awareness_has_no_body() -> None:
    message = codec.decode_from_server(codec.encode(QueryAwareness()), 0)
    assert type(message) is QueryAwareness


@pytest.mark.parametrize("number", [0, 2, 127, 300])
def test_only_1_says_saved_as_providers_read_it(number: int) -> None:
    message = codec.decode_from_server(b"\x08" + varuint(number), 0)
    assert message == SyncStatus(False) and type(message) is SyncStatus


@pytest.mark.parametrize(
    "body", ["0203", "02ff", "028000", "0202", "020209", "0201", "02010161ff", "020101ff", "0701ff"]
)
def test_a_message_that_no_server_sends_is_refused(body: str) -> None:
    with pytest.raises(DecodeError):
        codec.decode_from_server(bytes.fromhex(body), 0)


def test_an_unknown_type_of_auth_is_named() -> None:
    with pytest.raises(DecodeError, match="Auth message of kind 3 from a server"):
        codec.decode_from_server(b"\x02\x03", 0)


@pytest.mark.parametrize("body", [b"\x06", b"\x06\x02to", b"\x0b", b"\xff\x03abc"])
def test_what_a_client_need_not_know_is_nothing(body: bytes) -> None:
    assert codec.decode_from_server(body, 0) is None


@given(st.binary(max_size=60), st.integers(0, 5))
def test_random_bytes_raise_nothing_but_decode_errors(frame: bytes, pos: int) -> None:
    with contextlib.suppress(DecodeError):
        codec.decode_from_server(frame, pos)


# What a client sends


@given(texts, texts, st.none() | st.text(st.characters(codec="ascii"), max_size=64))
def test_a_token_reaches_the_server(address: str, token: str, version: str | None) -> None:
    frame = codec.prefix(address.encode()) + codec.encode_token(token, version)
    found, pos = codec.read_address(frame)
    assert found.decode() == address
    assert codec.decode(frame, pos) == Token(token, version)


def test_a_request_to_close_reaches_the_server() -> None:
    assert bytes((codec.CLOSE,)) == codec.CLOSE_REQUEST
    assert type(codec.decode(codec.CLOSE_REQUEST, 0)) is codec.Close
