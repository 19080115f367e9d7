"""The awareness update of y-protocols: who is here, and what each of them shows of itself.

Strategy: an update is a list of entries (client, clock, state as JSON text); the text stays
undecoded bytes, because whoever relays it needs it exact and most of what arrives is stale (a
y-websocket client re-sends every awareness update that it receives). The clock rules stand here as
one function, so that a server and a test ask the same one.

Wire form (y-protocols ``awareness.js``)::

    varuint(count) count * [ varuint(client) varuint(clock) varstring(JSON state, or "null") ]
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, NoReturn

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_bytes, read_var_uint

NULL = b"null"

# Sent to silent peers: every client accepts it without a word, and it feeds the 30 s watchdog of
# y-websocket, which does not see WebSocket pings.
EMPTY_AWARENESS_UPDATE = b"\x00"


class Entry(NamedTuple):
    """One client's state: ``state`` is JSON text in UTF-8, ``b"null"`` says that it left."""

    client: int
    clock: int
    state: bytes


class AwarenessUpdate(NamedTuple):
    """Tell others awareness states; ``payload`` is the wire form above, still to be decoded."""

    payload: bytes


class QueryAwareness(NamedTuple):
    """Ask the receiver for all awareness states that it knows."""


def decode_awareness(payload: bytes) -> list[Entry]:
    """Split an awareness update into its entries, without looking into their states.

    Raises:
        DecodeError: a count or length that does not fit, or bytes behind the last entry.
    """
    count, pos = read_var_uint(payload, 0)
    # An entry has at least one byte for each of its fields and four for its shortest state, "null"
    # (or one for a digit): a count beyond that is a lie, refused before anything is built for it.
    if count * 3 > len(payload) - pos:
        raise DecodeError(f"awareness update: {count} entries declared in {len(payload)} bytes")
    entries = []
    for _ in range(count):
        client, pos = read_var_uint(payload, pos)
        clock, pos = read_var_uint(payload, pos)
        state, pos = read_var_bytes(payload, pos)
        entries.append(Entry(client, clock, state))
    if pos != len(payload):
        raise DecodeError(f"awareness update: {len(payload) - pos} bytes behind its end")
    return entries


def encode_awareness(entries: Iterable[Entry]) -> bytes:
    """Encode entries as one awareness update, in the order given."""
    parts = [b""]
    for client, clock, state in entries:
        parts += (encode_var_uint(client), encode_var_uint(clock), encode_var_uint(len(state)), state)
    parts[0] = encode_var_uint((len(parts) - 1) // 4)
    return b"".join(parts)


def is_newer(known_clock: int, state_known: bool, entry: Entry) -> bool:
    """Tell whether an entry replaces what is known of its client.

    ``known_clock`` is 0 for a client never heard of, so its first state at clock 0 counts as old:
    y-protocols itself ignores it. At an equal clock only ``null`` counts, and only while a state
    is known: ``disconnect()`` of y-websocket says goodbye that way.
    """
    return entry.clock > known_clock or (entry.clock == known_clock and state_known and entry.state == NULL)


class User(NamedTuple):
    """Who a client is, as its token says: the ``sub`` and a name to show."""

    sub: str
    name: str


def stamp_user(state: bytes, user: User) -> bytes:
    """Write who a client really is into the field ``user`` of its state; the rest of the text stays as it is.

    ``user.sub`` and ``user.name`` are the server's, other members of ``user`` (a colour) the client's. A
    state that is no object has no such field and stays as it is.

    Raises:
        DecodeError: as ``check_state``.
    """
    try:
        text = state.decode()
        if not text.lstrip(_WHITESPACE).startswith("{"):
            check_state(state)
            return state
        usual = _stamp_usual(text, user)
        return (_stamp(text, user) if usual is None else usual).encode()
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"awareness state: not JSON ({type(error).__name__})") from None


def _stamp_usual(text: str, user: User) -> str | None:
    """Do what ``_stamp`` does for a state as stock clients send it; None for any other.

    They have ``"user"`` once, as the name of a member that is an object, and nothing escaped that could hide
    another. Then the library's decoder reads the text at once, in a fraction of the time.
    """
    if text[0] != "{" or "\\" in text or text.count('"user"') != 1:
        return None
    state, end = _decoder.raw_decode(text)
    if end != len(text) or "user" not in state:
        return None
    last = _last_stamp(user)
    before, member, after = text.partition(last.member)
    if not member:
        begin = text.find(_MEMBER)
        value = begin + len(_MEMBER)
        if begin < 0 or text[value] != "{":
            return None
        _, end = _decoder.raw_decode(text, value)
        if end - begin > _KEPT_CHARACTERS:
            return None
        before, last.member, after = text[:begin], text[begin:end], text[end:]
        last.stamp = _stamp_member(text[value:end], user)
    if before[-1] not in "{," or after[0] not in ",}":
        return None
    return f"{before}{last.stamp}}}" if after == "}" else f"{before}{after[1:-1]},{last.stamp}}}"


class _LastStamp:
    """A member ``user`` as a client has sent it, and what became of it: a cursor moves, a colour hardly ever."""

    __slots__ = ("member", "stamp")

    def __init__(self) -> None:
        self.member = "\0"  # which no JSON has
        self.stamp = ""


@lru_cache(maxsize=10_000)
def _last_stamp(user: User) -> _LastStamp:
    """Give what was stamped last for a user."""
    return _LastStamp()


_MEMBER = '"user":'

# A longer member is not kept with its stamp: the usual is a name, a colour or two, the address of a picture.
_KEPT_CHARACTERS = 512


def _stamp_member(value: str, user: User) -> str:
    """Give the text of the member ``user``: what the client shows of itself, and who it is."""
    shown = json.loads(value)
    if not isinstance(shown, dict):
        shown = {}
    return _MEMBER + json.dumps({**shown, **user._asdict()}, ensure_ascii=False, separators=(",", ":"))


def _stamp(text: str, user: User) -> str:
    """Give the text of an object with its members ``user`` replaced by one at the end."""
    pos = _skip(text, 0) + 1
    kept: list[str] = []
    value = "{}"
    pos = _skip(text, pos)
    while text[pos : pos + 1] != "}":
        begin = pos
        if text[pos : pos + 1] != '"':
            raise ValueError("a member without a name")
        name, pos = _decoder.raw_decode(text, pos)
        pos = _skip(text, pos)
        if text[pos : pos + 1] != ":":
            raise ValueError("a member without a value")
        start = _skip(text, pos + 1)
        _, pos = _decoder.raw_decode(text, start)
        if name == "user":
            # A name may stand there more than once; JavaScript takes the last.
            value = text[start:pos]
        else:
            kept.append(text[begin:pos])
        pos = _skip(text, pos)
        if text[pos : pos + 1] == ",":
            pos = _skip(text, pos + 1)
            if text[pos : pos + 1] == "}":
                raise ValueError("a comma before the end")
        elif text[pos : pos + 1] != "}":
            raise ValueError("no comma between members")
    if _skip(text, pos + 1) != len(text):
        raise ValueError("something behind the object")
    return "{" + ",".join([*kept, _stamp_member(value, user)]) + "}"


_WHITESPACE = " \t\n\r"  # of JSON, RFC 8259 section 2


def _skip(text: str, pos: int) -> int:
    while text[pos : pos + 1] in _WHITESPACE and pos < len(text):
        pos += 1
    return pos


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


# Integers of any length are fine in JavaScript, where they become floats; Python's int() refuses
# more than 4,300 digits and needs quadratic time for them, so they are not converted at all.
_decoder = json.JSONDecoder(parse_constant=_no_constant, parse_int=len, parse_float=len)


def check_state(state: bytes) -> None:
    """Refuse a state that ``JSON.parse`` in a client would throw on.

    Raises:
        DecodeError: not UTF-8, not JSON (NaN and Infinity are not), or nested too deep to read.
    """
    try:
        _decoder.decode(state.decode())
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"awareness state: not JSON ({type(error).__name__})") from None
