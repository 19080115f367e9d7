"""Frames between nodes: these bytes, and what happens to those that are damaged, cut or of another release."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.cluster.wire import (
    COMMON,
    OVERHEAD,
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

IDS = st.binary(min_size=8, max_size=8)
NUMBERS = st.integers(0, (1 << 53) - 1)
HASHES = st.lists(IDS, max_size=5).map(tuple)
FRAMES = st.builds(Frame, IDS, IDS, NUMBERS, NUMBERS, st.integers(0, 3), st.binary(max_size=100))
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(Said, st.text(max_size=20), st.binary(max_size=50)),
    st.builds(Joined, HASHES),
    st.builds(Left, HASHES),
    st.builds(Topics, HASHES),
    st.builds(Beat, NUMBERS, IDS, st.lists(st.tuples(IDS, NUMBERS), max_size=3).map(tuple)),
    st.builds(Ask, IDS),
    st.just(Bye()),
)

A, B = b"AAAAAAAA", b"BBBBBBBB"


def test_a_frame_is_these_bytes() -> None:
    frame = Frame(A, COMMON, 300, 299, 1, b"body")
    data = encode_frame(frame)
    assert data[:-4].hex(" ") == ("01 41 41 41 41 41 41 41 41 00 00 00 00 00 00 00 00 ac 02 ab 02 01 62 6f 64 79")
    assert decode_frame(data) == frame and sender_of(data) == A


@pytest.mark.parametrize(
    ("item", "data"),
    [
        (Said("ä", b"\1\2"), "00 02 c3a4 02 0102"),
        (Joined((A,)), "01 01 4141414141414141"),
        (Left(()), "02 00"),
        (Topics((A, B)), "03 02 4141414141414141 4242424242424242"),
        (Beat(2, A, ((B, 300),)), "04 02 4141414141414141 01 4242424242424242 ac02"),
        (Ask(A), "05 4141414141414141"),
        (Bye(), "06"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_item_is_these_bytes(item: Item, data: str) -> None:
    assert encode_item(item) == bytes.fromhex(data)
    assert list(decode_items(bytes.fromhex(data))) == [item]


@given(FRAMES)
def test_a_frame_comes_back(frame: Frame) -> None:
    assert decode_frame(encode_frame(frame)) == frame


@given(st.lists(ITEMS, max_size=6))
def test_items_come_back_and_cut_ones_are_refused(items: list[Item]) -> None:
    body = b"".join(encode_item(item) for item in items)
    assert list(decode_items(body)) == items
    for end in range(len(body)):
        try:
            found = list(decode_items(body[:end]))
        except DecodeError:
            continue
        assert found == items[: len(found)]


@given(FRAMES, st.data())
def test_a_frame_that_was_damaged_is_refused(frame: Frame, data: st.DataObject) -> None:
    whole = encode_frame(frame)
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = whole[:at] + bytes((whole[at] ^ (1 << bit),)) + whole[at + 1 :]
    with pytest.raises(DecodeError, match="checksum"):
        decode_frame(damaged)
    with pytest.raises(DecodeError):
        decode_frame(whole[:at])


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    for read in (decode_frame, lambda data: list(decode_items(data))):
        try:
            read(data)
        except DecodeError:
            continue


def test_what_a_later_release_says_is_left_alone() -> None:
    later = encode_frame(Frame(A, COMMON, 1, 0, 0, b"")).replace(b"\x01", b"\x02", 1)[:-4]
    assert decode_frame(later + zlib.crc32(later).to_bytes(4, "little")) is None
    assert list(decode_items(encode_item(Bye()) + b"\x63whatever")) == [Bye()]


@given(st.binary(max_size=2_000), st.integers(OVERHEAD + 1, 500))
def test_a_body_is_cut_into_frames_that_fit(body: bytes, most: int) -> None:
    parts = list(cut(body, most))
    assert b"".join(part for _, part in parts) == body
    assert [flags for flags, _ in parts] == [
        (1 if at + 1 < len(parts) else 0) | (2 if at else 0) for at in range(len(parts))
    ]
    largest = (1 << 53) - 1
    assert all(len(encode_frame(Frame(A, B, largest, largest, flags, part))) <= most for flags, part in parts)


def test_topics_are_told_apart_by_their_bytes() -> None:
    topics = ["a", "A", "a ", "ä", "a\u0308", "a\0", ""]
    assert len({topic_hash(topic) for topic in topics}) == len(topics)
    assert all(len(topic_hash(topic)) == 8 for topic in topics)
