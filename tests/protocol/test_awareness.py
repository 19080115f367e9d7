from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.errors import DecodeError
from collab.protocol.awareness import (
    EMPTY_AWARENESS_UPDATE,
    Entry,
    User,
    check_state,
    decode_awareness,
    encode_awareness,
    is_newer,
    stamp_user,
)

numbers = st.integers(0, 2**53 - 1)
entries = st.lists(st.builds(Entry, numbers, numbers, st.binary(max_size=40)), max_size=5)


def test_the_bytes_are_those_of_y_protocols() -> None:
    assert encode_awareness([Entry(1, 2, b"{}")]) == b"\x01\x01\x02\x02{}"
    assert encode_awareness([]) == EMPTY_AWARENESS_UPDATE


@given(entries)
def test_round_trip(update: list[Entry]) -> None:
    assert decode_awareness(encode_awareness(update)) == update


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
    with pytest.raises(DecodeError):
        stamp_user(text, USER)
