from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError, LimitExceeded
from collab.protocol.awareness import (
    EMPTY_AWARENESS_UPDATE,
    MAX_CLOCK,
    Entry,
    User,
    check_state,
    decode_awareness,
    decode_awareness_in_slices,
    decode_first_entry,
    encode_awareness,
    encode_entry,
    is_far_ahead,
    is_newer,
    join_entries,
    newest_entries,
    stamp_user,
)
from tests.support.build import lines

numbers = st.integers(0, 2**53 - 1)
entries = st.lists(st.builds(Entry, numbers, numbers, st.binary(max_size=40)), max_size=5)


def test_the_bytes_are_those_of_y_protocols() -> None:
    assert encode_awareness([Entry(1, 2, b"{}")]) == b"\x01\x01\x02\x02{}"
    assert encode_awareness([]) == EMPTY_AWARENESS_UPDATE


@given(entries)
def test_round_trip(update: list[Entry]) -> None:
    assert decode_awareness(encode_awareness(update)) == update


@given(entries)
def test_entries_that_are_encoded_one_by_one_make_the_same_update(update: list[Entry]) -> None:
    assert join_entries([encode_entry(*entry) for entry in update]) == encode_awareness(update)


def in_slices(payload: bytes, most: int = 1 << 20) -> list[Entry]:
    work = decode_awareness_in_slices(payload, most)
    while True:
        try:
            next(work)
        except StopIteration as stop:
            found: list[Entry] = stop.value
            return found


@given(entries)
def test_reading_in_slices_is_reading(update: list[Entry]) -> None:
    data = encode_awareness(update)
    assert in_slices(data) == update
    for bad in (data[:-1], data + b"\0"):
        with pytest.raises(DecodeError):
            in_slices(bad)


def test_a_slice_is_bounded_work() -> None:
    data = encode_awareness(Entry(client, 1, b"1") for client in range(2_000))
    work = decode_awareness_in_slices(data, 2_000)
    assert lines(lambda: next(work)) < 30_000
    assert len(in_slices(data)) == 2_000


def test_more_entries_than_wanted_are_not_read() -> None:
    data = encode_awareness(Entry(client, 1, b"1") for client in range(2_000))
    assert len(decode_awareness(data, 2_000)) == 2_000
    for read in (decode_awareness, in_slices):
        with pytest.raises(LimitExceeded, match="2000 states"):
            read(data, 1_999)


@pytest.mark.parametrize(
    ("known", "clock", "far"),
    [
        (0, MAX_CLOCK, False),
        (0, MAX_CLOCK + 1, True),
        (0, 2**53 - 1, True),
        (5, 2**32, True),
        (MAX_CLOCK, MAX_CLOCK + 1, False),  # a client that was told the largest clock goes on from there
        (2**40, 2**40 + (1 << 20), False),
        (2**40, 2**40 + (1 << 20) + 1, True),
    ],
)
def test_clocks_that_no_client_has_come_to(known: int, clock: int, far: bool) -> None:
    assert is_far_ahead(known, Entry(1, clock, b"{}")) is far


@given(entries)
def test_every_truncation_and_every_extra_byte_is_refused(update: list[Entry]) -> None:
    data = encode_awareness(update)
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            decode_awareness(data[:end])
    with pytest.raises(DecodeError):
        decode_awareness(data + b"\x00")


def test_a_count_beyond_the_bytes_is_refused_before_anything_is_built() -> None:
    with pytest.raises(DecodeError, match="declared"):
        decode_awareness(b"\xff\xff\xff\xff\x0f")


@pytest.mark.parametrize(
    ("known_clock", "state_known", "entry", "newer"),
    [
        (0, False, Entry(1, 0, b"{}"), False),  # the first {} at clock 0 is ignored by all
        (0, False, Entry(1, 1, b"{}"), True),
        (3, True, Entry(1, 3, b"{}"), False),
        (3, True, Entry(1, 2, b"{}"), False),
        (3, True, Entry(1, 3, b"null"), True),  # disconnect() says null at an equal clock
        (3, False, Entry(1, 3, b"null"), False),
        (3, True, Entry(1, 2, b"null"), False),
        (3, True, Entry(1, 4, b"null"), True),
    ],
)
def test_clock_rules(known_clock: int, state_known: bool, entry: Entry, newer: bool) -> None:
    assert is_newer(known_clock, state_known, entry) is newer


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
def test_json_is_taken(value: object) -> None:
    check_state(json.dumps(value).encode())
    check_state(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nul", b"NaN", b"[Infinity]", b"-Infinity", b"{'a':1}", b'"\xff"', b'"\n"', b"1 2", b"[" * 60_000],
)
def test_what_json_parse_throws_on_is_refused(text: bytes) -> None:
    with pytest.raises(DecodeError):
        check_state(text)


def test_a_number_of_any_length_is_no_work() -> None:
    check_state(b"1" * 60_000)
    check_state(b"1" + b"0" * 30_000 + b".5e99999")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("user"), inner, max_size=4),
    max_leaves=12,
)
USER = User("u7", 'Ann "the" Ä\u2028')


# Written as JavaScript does, as Python does, and for people.
WRITTEN: tuple[dict[str, Any], ...] = ({"separators": (",", ":")}, {}, {"indent": 2})


@given(
    st.dictionaries(st.text() | st.just("user"), JSON, max_size=5)
    | st.fixed_dictionaries({"user": st.dictionaries(st.sampled_from(["name", "color"]), st.text(max_size=5))})
    | st.fixed_dictionaries({"cursor": JSON, "user": st.just({"name": "Eve", "sub": "u1"}), "role": JSON}),
    st.sampled_from(WRITTEN),
    st.booleans(),
)
def test_a_stamped_state_says_who_it_is_and_else_what_it_said(
    value: dict[str, object], written: dict[str, Any], plain: bool
) -> None:
    state = json.dumps(value, **written, ensure_ascii=not plain).encode(errors="replace")
    before = json.loads(state)
    after = json.loads(stamp_user(state, USER))
    theirs, ours = before.pop("user", None), after.pop("user")
    assert after == before
    kept = theirs if isinstance(theirs, dict) else {}
    assert ours == {**kept, "sub": USER.sub, "name": USER.name}


@pytest.mark.parametrize(
    ("text", "stamped"),
    [
        ('{"user":{}}', "{STAMP}"),
        ('{"user":{},"a":1e999}', '{"a":1e999,STAMP}'),
        ('{"a":1.0,"user":{}}', '{"a":1.0,STAMP}'),
        ('{"a":01234,"user":{},"b":2}', None),
        ('{"a":[12345678901234567890],"user":{},"b":" x "}', '{"a":[12345678901234567890],"b":" x ",STAMP}'),
        ('{"user":{},"user":{"sub":"u1"}}', "{STAMP}"),
        ('{"user":{},"\\u0075ser":{"sub":"u1"}}', "{STAMP}"),
        ('{"a":{"user":{"sub":"u1"}}}', '{"a":{"user":{"sub":"u1"}},STAMP}'),
        ('{"a":{"user":{"sub":"u1"}},"user":{}}', '{"a":{"user":{"sub":"u1"}},STAMP}'),
        ('{"a":"user","user":{}}', '{"a":"user",STAMP}'),
        ('{"a":"\\"user\\":{","user":{}}', '{"a":"\\"user\\":{",STAMP}'),
        ('{"user":[1]}', "{STAMP}"),
        (' {"user":{}}', "{STAMP}"),
        ('{"user":{}} ', "{STAMP}"),
        ('{ "user":{} , "a":1 }', '{"a":1,STAMP}'),
        ('{"a":1, "user":{}}', '{"a":1,STAMP}'),
        (' {"user":{}', None),
        ('{"user":{},}', None),
        ('{,"user":{}}', None),
        ('{"a":1"user":{}}', None),
        ('{"user":{}"a":1}', None),
        ('{"user":{"a":NaN}}', None),
        ('{"user":{}}}', None),
    ],
)
def test_a_stamp_takes_the_place_of_every_user_and_of_nothing_else(text: str, stamped: str | None) -> None:
    if stamped is None:
        with pytest.raises(DecodeError):
            stamp_user(text.encode(), USER)
        return
    ours = json.dumps({"sub": USER.sub, "name": USER.name}, ensure_ascii=False, separators=(",", ":"))
    assert stamp_user(text.encode(), USER).decode() == stamped.replace("STAMP", f'"user":{ours}')


@pytest.mark.parametrize("members", ["", '"user":{"color":"red"},', '"user":1,"user":2,'])
def test_a_state_of_very_many_members_is_stamped_in_bounded_work(members: str) -> None:
    """Issue 11: 64 KiB of members, looked through one by one, held the loop for 29 ms."""
    plain = "{" + members + ",".join(f'"{at}":0' for at in range(5_000)) + "}"
    hidden = "{" + members + '"\\u0061":1,' + plain[1:]
    if members.count("user") < 2:
        stamped: list[bytes] = []
        assert lines(lambda: stamped.append(stamp_user(plain.encode(), USER))) < 500
        assert len(json.loads(stamped[0])) == 5_001
    same = "{" + ",".join(['"user":{}'] * 5_000) + "}"
    for text in (hidden, same, plain)[: 2 + (members.count("user") > 1)]:
        refuse(text)
        assert lines(partial(refuse, text)) < 60_000
    few = "{" + members + '"\\u0061":1,' + ",".join(f'"{at}":0' for at in range(900)) + "}"
    assert len(json.loads(stamp_user(few.encode(), USER))) == 902


def refuse(text: str) -> None:
    with pytest.raises(DecodeError, match="members"):
        stamp_user(text.encode(), USER)


def test_what_a_client_shows_of_itself_changes_at_once_and_each_has_its_own_name() -> None:
    for color in ("red", "blue", "x" * 2_000):
        for user in (USER, User("u8", "Bob")):
            shown = json.loads(stamp_user(f'{{"user":{{"color":"{color}"}}}}'.encode(), user))["user"]
            assert shown == {"color": color, "sub": user.sub, "name": user.name}


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",: \n0user\\1', max_size=30).map(str.encode))
def test_stamping_refuses_exactly_what_is_no_json(text: bytes) -> None:
    try:
        check_state(text)
    except DecodeError:
        with pytest.raises(DecodeError):
            stamp_user(text, USER)
    else:
        stamped = stamp_user(text, USER)
        assert stamped == text or json.loads(stamped)["user"]["sub"] == "u7"


@pytest.mark.parametrize(
    "text", [b'{"a":1,}', b'{,"a":1}', b'{"a" 1}', b'{"a":1 "b":2}', b'{"a":1}x', b"{a:1}", b"{", b'{"a":NaN}']
)
def test_stamping_reads_as_strictly_as_json_parse(text: bytes) -> None:
    # The second has something escaped, and is looked through member by member.
    for state in (text, b'{"\\u0061":1,' + text[1:], text.replace(b'"a"', b'"\\u0061"')):
        with pytest.raises(DecodeError):
            stamp_user(state, USER)


def test_of_an_update_the_first_entry_can_be_read_alone() -> None:
    entries = [Entry(7, 3, b'"x"'), Entry(8, 1, b"{}")]
    payload = encode_awareness(entries)
    assert decode_first_entry(payload) == (2, entries[0])
    assert decode_first_entry(payload[:-1]) == (2, entries[0]), "nothing behind it is looked at"
    assert decode_first_entry(EMPTY_AWARENESS_UPDATE) is None
    for malformed in (b"", b"\x02\x07\x03\x05abc", payload[:5]):
        with pytest.raises(DecodeError):
            decode_first_entry(malformed)


def test_of_several_entries_of_a_client_the_newest_is_left_where_the_first_was() -> None:
    first, other = Entry(7, 1, b"[1]"), Entry(8, 5, b"{}")
    alone = [first, other]
    assert newest_entries(alone) is alone
    assert newest_entries([first, other, Entry(7, 3, b"[3]"), Entry(7, 2, b"[2]")]) == [Entry(7, 3, b"[3]"), other]
    # At one clock a removal is newer than a state, and no state is newer than a removal.
    assert newest_entries([first, Entry(7, 1, b"null"), Entry(7, 1, b"[1]")]) == [Entry(7, 1, b"null")]
