"""The protocol of streams: offsets, frames, events, cursors and producers, as texts and bytes."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import CollabError, DecodeError, InvalidDocumentName, LimitExceeded
from collab.protocol import streams
from collab.protocol.lib0 import MAX_SAFE_INTEGER
from collab.protocol.streams import (
    Batch,
    Begin,
    Code,
    Live,
    Numbers,
    Offset,
    Producer,
    SnapshotOffset,
    Verdict,
    check_path,
    check_stream_name,
    decode_frames,
    decode_frames_in_slices,
    decode_live,
    decode_offset,
    decode_producer,
    encode_data,
    encode_error,
    encode_frame,
    encode_frames,
    encode_offset,
    interval,
    judge,
    next_cursor,
)
from tests.support import stream_codes

numbers = st.integers(1, 10**16 - 1)
checks = st.none() | st.integers(0, 2**64 - 1)


def read_events(data: bytes) -> list[tuple[str, str]]:
    """Read server-sent events as a browser does; comments are left out."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        fields = [line.split(":", 1) for line in block.split("\n") if not line.startswith(":")]
        if fields:
            kind = next(value.removeprefix(" ") for name, value in fields if name == "event")
            found.append((kind, "\n".join(value.removeprefix(" ") for name, value in fields if name == "data")))
    return found


# Offsets


@given(numbers, numbers, checks)
def test_an_offset_comes_back_as_it_was(document_id: int, seq: int, check: int | None) -> None:
    offset = Offset(document_id, seq, check)
    assert decode_offset(encode_offset(offset)) == offset
    assert not set(",&=?/") & set(encode_offset(offset))


@given(numbers, numbers, numbers, checks, checks)
def test_offsets_of_a_document_are_ordered_like_their_positions(
    document_id: int, one: int, other: int, check: int | None, another: int | None
) -> None:
    first, second = sorted([(one, check), (other, another)], key=lambda each: each[0])
    if first[0] < second[0]:
        assert encode_offset(Offset(document_id, *first)) < encode_offset(Offset(document_id, *second))


def test_the_offset_behind_a_snapshot_is_one_number_higher() -> None:
    told = encode_offset(SnapshotOffset(42, 1555))
    assert told == "0000000000000042_0000000000001555_snapshot"
    assert decode_offset(told) == SnapshotOffset(42, 1555)
    # As the conformance suite makes it of the name of the snapshot.
    first, second = told.removesuffix("_snapshot").split("_")
    assert encode_offset(Offset(42, 1556)) == f"{first}_{str(int(second) + 1).rjust(len(second), '0')}"


def test_offsets_that_are_no_positions() -> None:
    assert [decode_offset(text) for text in ("-1", "now", "snapshot")] == list(Begin)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-2",
        "NOW",
        "1_2",
        "0000000000000001_0000000000000000",
        "0000000000000001_0000000000000001_",
        "0000000000000001_0000000000000001_XYZ",
        "0000000000000001_0000000000000001_1234567",
        "x" * 10_000,
        "0000000000000001_0000000000000001_00000000\n",
        "\u0660" * 16 + "_" + "0" * 15 + "1",
        "0000000000000001_00000000000000001",
        "0000000000000001_0000000000000001_Snapshot",
        "_snapshot",
    ],
)
def test_an_offset_that_nobody_was_given_is_refused(text: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_offset(text)
    assert "offset" in refused.value.public


def test_how_a_reader_waits() -> None:
    assert [decode_live(text) for text in (None, "long-poll", "sse")] == list(Live)
    for text in ("", "true", "SSE", "websocket"):
        with pytest.raises(DecodeError):
            decode_live(text)


# Addresses


def test_segments_of_dots_are_refused() -> None:
    for name in ("..", ".", "a/../b", "./a", "a/."):
        with pytest.raises(InvalidDocumentName):
            check_path(name)
    for name in ("a", "a..b", "...", "a/b/.c", "a//b"):
        check_path(name)


def test_the_name_of_an_awareness_stream_is_bounded() -> None:
    for name in ("default", "a b", "ä" * 32):
        check_stream_name(name)
    for name in ("", "x" * 65, "ä" * 33, "a\n", "\ud800"):
        with pytest.raises(DecodeError):
            check_stream_name(name)


# Frames


@given(st.lists(st.binary(max_size=300), min_size=1))
def test_frames_come_back_as_they_were(updates: list[bytes]) -> None:
    body = encode_frames(updates)
    assert body == b"".join(map(encode_frame, updates))
    assert decode_frames(body) == updates


@given(st.binary())
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        updates = decode_frames(body)
    except CollabError as error:
        assert error.public != "malformed message"
    else:
        assert encode_frames(updates) == body


def test_a_frame_that_is_cut_is_refused() -> None:
    for body in (b"", b"\x01", b"\x05abc", b"\x01a\x80", b"\x80\x00"):
        with pytest.raises(DecodeError):
            decode_frames(body)


def test_the_number_of_frames_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_FRAMES", 3)
    assert len(decode_frames(b"\x00" * 3)) == 3
    with pytest.raises(LimitExceeded):
        decode_frames(b"\x00" * 4)


def test_many_frames_are_decoded_in_slices() -> None:
    slices = decode_frames_in_slices(encode_frames([b"x"] * 2_500))
    found: list[bytes] = []
    steps = 0
    while True:
        try:
            next(slices)
        except StopIteration as done:
            found = done.value
            break
        steps += 1
    assert steps == 2 and found == [b"x"] * 2_500


# Events


@given(st.binary(max_size=200), st.booleans())
def test_an_event_holds_the_payload_and_says_where_its_reader_stands(payload: bytes, level: bool) -> None:
    batch = Batch(payload, "a_b", up_to_date=level)
    *data, (kind, control) = read_events(batch.event(7))
    assert [(name, base64.b64decode(text, validate=True)) for name, text in data] == [("data", payload)] * bool(payload)
    expected = {"streamNextOffset": "a_b", "streamCursor": "7"} | ({"upToDate": True} if level else {})
    assert (kind, json.loads(control)) == ("control", expected)


def test_a_long_payload_has_lines_that_can_be_joined() -> None:
    payload = bytes(range(256)) * 1_000
    ((kind, text),) = read_events(b"".join(encode_data(payload)))
    assert kind == "data" and "\n" in text
    assert base64.b64decode(text.replace("\n", ""), validate=True) == payload
    assert max(map(len, text.split("\n"))) == 64 * 1024


def test_readers_at_one_position_share_the_bytes() -> None:
    batch = Batch(b"abc", "x", up_to_date=True)
    assert batch.event(3) is batch.event(3)
    chunk = batch.chunk(3)
    assert chunk is batch.chunk(3)
    size, rest = chunk.split(b"\r\n", 1)
    assert rest == batch.event(3) + b"\r\n" and int(size, 16) == len(batch.event(3))
    assert b'"4"' in batch.event(4) and b'"4"' in batch.chunk(4)


# Cursors


def test_a_cursor_counts_intervals_and_never_goes_back() -> None:
    now = streams.INTERVALS_BEGIN + 100 * streams.INTERVAL_SECONDS + 1.5
    assert interval(now) == 100
    assert [next_cursor(now, told, 0.5) for told in (None, "", "x", "-4", "9" * 40, "\u0661", "99")] == [100] * 7
    for random in (0.0, 0.5, 1.0):
        assert 100 < next_cursor(now, "100", random) <= 100 + 180
        assert next_cursor(now, "5000", random) > 5_000


# Producers


def headers(name: str | None = "p", epoch: str | None = "0", seq: str | None = "0") -> dict[str, list[str]]:
    values = {"Producer-Id": name, "Producer-Epoch": epoch, "Producer-Seq": seq}
    return {key: [value] for key, value in values.items() if value is not None}


def test_the_headers_of_a_producer_are_read() -> None:
    assert decode_producer({}) is None
    assert decode_producer(headers("doc-17", "3", str(MAX_SAFE_INTEGER))) == Producer("doc-17", 3, MAX_SAFE_INTEGER)


@pytest.mark.parametrize(
    "given",
    [
        headers(name=None),
        headers(epoch=None),
        headers(seq=None),
        headers(name=""),
        headers(name="x" * 1025),
        headers(epoch="-1"),
        headers(seq="1.0"),
        headers(seq=str(MAX_SAFE_INTEGER + 1)),
        headers(seq=" 1"),
        headers(epoch="\u0661"),
        headers() | {"Producer-Seq": ["1", "2"]},
        headers(seq="9" * 5_000),
    ],
)
def test_headers_of_a_producer_that_do_not_fit_are_refused(given: dict[str, list[str]]) -> None:
    with pytest.raises(DecodeError):
        decode_producer(given)


def test_the_name_of_a_producer_may_be_no_text() -> None:
    """Its bytes count, as they came."""
    assert decode_producer(headers(name="\udcff" * 1024)) == Producer("\udcff" * 1024, 0, 0)
    with pytest.raises(DecodeError):
        decode_producer(headers(name="\udcff" * 1025))


def test_what_the_numbers_of_a_producer_say() -> None:
    known = Numbers(2, 5)
    said = {
        (2, 6): Verdict.NEW,
        (2, 9): Verdict.NEW,
        (3, 0): Verdict.NEW,
        (3, 4): Verdict.NEW,
        (2, 5): Verdict.REPEATED,
        (2, 0): Verdict.REPEATED,
        (1, 99): Verdict.STALE,
    }
    for (epoch, seq), verdict in said.items():
        assert judge(Producer("p", epoch, seq), known) is verdict
        assert judge(Producer("p", epoch, seq), None) is Verdict.NEW


# Errors


def test_an_error_is_told_as_the_specification_says() -> None:
    told = json.loads(encode_error(Code.OFFSET_EXPIRED, "half a character: \ud800"))
    assert told == {"error": {"code": "OFFSET_EXPIRED", "message": "half a character: ?"}}
    assert Code.OFFSET_EXPIRED.status == 410


def test_each_code_is_described() -> None:
    assert set(streams.DESCRIPTIONS) == set(Code)
    text = stream_codes.DOCUMENT.read_text(encoding="utf-8")
    written = text.partition(stream_codes.START)[2].partition(stream_codes.END)[0].strip()
    assert written == stream_codes.render(), "run: python -m tests.support.stream_codes"
