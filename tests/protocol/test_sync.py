from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.protocol.hocuspocus import codec as hocuspocus
from collab.protocol.sync import (
    SyncMessage,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode_sync,
    encode_sync,
    encode_sync_head,
)
from collab.protocol.ywebsocket import codec as ywebsocket

messages = st.one_of(
    st.binary(max_size=300).map(SyncStep1),
    st.binary(max_size=300).map(SyncStep2),
    st.binary(max_size=300).map(SyncUpdate),
)


def test_the_bytes_are_those_of_y_protocols() -> None:
    assert encode_sync(SyncStep1(b"\x00")) == bytes.fromhex("000100")
    assert encode_sync(SyncStep2(b"\x00\x00")) == bytes.fromhex("01020000")
    assert encode_sync(SyncUpdate(b"\x00\x00")) == bytes.fromhex("02020000")


@pytest.mark.parametrize("kind", [SyncStep1, SyncStep2, SyncUpdate])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000])
def test_a_length_of_any_size_is_read(kind: type[SyncMessage], size: int) -> None:
    message = kind(bytes(size))
    decoded = decode_sync(b"before" + encode_sync(message), 6)
    assert decoded == message and type(decoded) is kind


@pytest.mark.parametrize("kind", [SyncStep2, SyncUpdate])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 20_000, 3_000_000])
def test_what_stands_before_an_update_stands_there_whoever_brings_it(
    kind: type[SyncStep2] | type[SyncUpdate], size: int
) -> None:
    update = bytes(size)
    assert encode_sync_head(kind, size) + update == encode_sync(kind(update))
    for codec in (ywebsocket, hocuspocus):
        assert codec.encode_head(kind, size) + update == codec.encode(kind(update))


@given(messages)
def test_round_trip(message: SyncMessage) -> None:
    decoded = decode_sync(encode_sync(message), 0)
    assert decoded == message
    assert type(decoded) is type(message)


@given(messages)
def test_every_truncation_and_every_extra_byte_is_refused(message: SyncMessage) -> None:
    data = encode_sync(message)
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode_sync(data[:end], 0)
    with pytest.raises(DecodeError):
        decode_sync(data + b"\x00", 0)


@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_decode_errors(data: bytes) -> None:
    try:
        message = decode_sync(data, 0)
    except DecodeError:
        return
    # A length may be written in more bytes than it needs, so only the content must survive.
    assert decode_sync(encode_sync(message), 0) == message


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(DecodeError, match="unknown kind 3"):
        decode_sync(b"\x03\x00", 0)
