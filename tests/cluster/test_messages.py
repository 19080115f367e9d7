"""What nodes say to each other: bytes of each kind, and what happens to those that are cut or of another release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.cluster.messages import (
    ALL_NODES,
    QUESTIONS,
    Answer,
    Asked,
    Awareness,
    Claimed,
    Committed,
    Deleted,
    Held,
    Look,
    NodeMessage,
    Posted,
    Question,
    Renamed,
    Row,
    Rows,
    Stateless,
    Visited,
    VisitedBy,
    answers_topic,
    decode_node_message,
    encode_node_message,
)
from collab.errors import DecodeError, InvalidDocumentName
from collab.protocol.lib0 import encode_var_bytes
from collab.protocol.names import check_document_name

BYTES: list[tuple[NodeMessage, str]] = [
    (Committed(1, 2), "00 01 02"),
    (Committed(300, 70_000), "00 ac02 f0a204"),
    (Committed(0, 0), "00 00 00"),
    (Awareness(b"\x01\x07\x01\x02{}"), "01 06 010701027b7d"),
    (Awareness(b""), "01 00"),
    (Stateless("hä".encode()), "03 03 68c3a4"),
    (Stateless(b""), "03 00"),
    (Deleted(7), "04 07"),
    (Deleted(1 << 40), "04 808080808020"),
    (Rows(3, 9, (Row(b"\0\0", 1.5, None),)), "05 03 09 01 000000000000f83f 00 02 0000"),
    (
        Rows(3, 9, (Row(b"\1", 0.0, "ä"), Row(b"", -2.0, ""))),
        "05 03 09 02 0000000000000000 01 02 c3a4 01 01 00000000000000c0 01 00 00",
    ),
    (Rows(1, 1, ()), "05 01 01 00"),
    (Held(7, 300, b"\0"), "06 07 ac02 01 00"),
    (Held(None, 0, b""), "06 00 00 00"),
    (Look(), "07"),
    (Renamed(300, "ä"), "08 ac02 02 c3a4"),
    (Asked(b"\x01\x07\x01\x04null"), "10 08 010701046e756c6c"),
    (Claimed(300, 5, True, "ä", None), "11 ac02 05 01 01 02 c3a4 00"),
    (Claimed(7, 0, False, None, "::1"), "11 07 00 00 00 01 03 3a3a31"),
    (Visited(b"\0", ()), "12 01 00 00"),
    (
        Visited(b"\1\7", (VisitedBy(300, None, "::1"), VisitedBy(7, "ä", None))),
        "12 02 0107 02 ac02 00 01 03 3a3a31 07 01 02 c3a4 00",
    ),
    (Posted(300, "ä", "n", 2, 200, b"\1\0"), "13 ac02 02 c3a4 01 6e 02 c801 02 0100"),
    (Posted(1, "s", "n", 0, 0, b""), "13 01 01 73 01 6e 00 00 00"),
    (Question(300, b"{}"), "18 ac02 02 7b7d"),
    (Answer(1, b"{}"), "19 01 02 7b7d"),
]


@pytest.mark.parametrize(("message", "data"), BYTES, ids=lambda value: str(value)[:40])
def test_each_kind_is_these_bytes(message: NodeMessage, data: str) -> None:
    assert encode_node_message(message) == bytes.fromhex(data)
    decoded = decode_node_message(bytes.fromhex(data))
    assert decoded == message and type(decoded) is type(message)


NUMBERS = st.integers(0, (1 << 53) - 1)
# An author may hold what is no text: a lone surrogate, as the store keeps it.
AUTHORS = st.none() | st.text(st.characters(), max_size=10) | st.just("\ud800")
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.strip() and "\0" not in name)
ROWS = st.builds(Row, st.binary(max_size=100), st.floats(allow_nan=False), AUTHORS)


@given(
    st.one_of(
        st.builds(Committed, NUMBERS, NUMBERS),
        st.builds(Awareness, st.binary(max_size=300)),
        st.builds(Rows, NUMBERS, NUMBERS, st.lists(ROWS, max_size=5).map(tuple)),
        st.builds(Held, st.none() | st.integers(1, (1 << 53) - 1), NUMBERS, st.binary(max_size=300)),
        st.just(Look()),
        st.builds(Renamed, NUMBERS, NAMES),
        st.builds(Asked, st.binary(max_size=300)),
        st.builds(Claimed, NUMBERS, NUMBERS, st.booleans(), AUTHORS, AUTHORS),
        st.builds(
            Visited,
            st.binary(max_size=300),
            st.lists(st.builds(VisitedBy, NUMBERS, AUTHORS, AUTHORS), max_size=4).map(tuple),
        ),
        st.builds(Posted, NUMBERS, NAMES, NAMES, NUMBERS, NUMBERS, st.binary(max_size=300)),
        st.builds(Stateless, st.binary(max_size=300)),
        st.builds(Question, NUMBERS, st.binary(max_size=300)),
        st.builds(Answer, NUMBERS, st.binary(max_size=300)),
        st.builds(Deleted, NUMBERS),
    )
)
def test_what_is_encoded_is_decoded(message: NodeMessage) -> None:
    decoded = decode_node_message(encode_node_message(message))
    assert decoded == message and type(decoded) is type(message)


@pytest.mark.parametrize(("message", "data"), BYTES, ids=lambda value: str(value)[:40])
def test_cut_anywhere_or_with_something_behind_it_a_message_is_refused(message: NodeMessage, data: str) -> None:
    whole = bytes.fromhex(data)
    for end in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_node_message(whole[:end])
    with pytest.raises(DecodeError, match="1 bytes behind the end"):
        decode_node_message(whole + b"\0")


@pytest.mark.parametrize("data", ["02", "0a", "09 01 02", "7f", "8001", "ff7f 00 00"])
def test_a_kind_that_is_not_known_is_left_alone(data: str) -> None:
    """It is of a later release: nodes of two releases are on one bus while they are replaced."""
    assert decode_node_message(bytes.fromhex(data)) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_unknown_or_refused(data: bytes) -> None:
    try:
        message = decode_node_message(data)
    except DecodeError:
        return
    assert message is None or decode_node_message(encode_node_message(message)) == message


@pytest.mark.parametrize("name", [b"", b" ", b"a\0b", b"\xff", b"x" * 513])
def test_a_new_name_that_is_none_is_refused(name: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_node_message(b"\x08\x01" + encode_var_bytes(name))
    assert decode_node_message(b"\x08\x01" + encode_var_bytes(b"x" * 512)) == Renamed(1, "x" * 512)


@pytest.mark.parametrize("topic", [ALL_NODES, QUESTIONS, answers_topic("node")])
def test_the_topics_of_all_nodes_are_no_names_of_documents(topic: str) -> None:
    with pytest.raises(InvalidDocumentName):
        check_document_name(topic)
