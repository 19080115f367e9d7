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
from collections.abc import Collection, Generator, Iterable
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn

from collab.errors import AwarenessError, DecodeError, LimitExceeded
from collab.protocol.lib0 import MAX_SAFE_INTEGER, encode_var_uint, read_var_bytes, read_var_uint

NULL = b"null"

MAX_CLOCK: Final = 1 << 31
"""The largest clock that a client can have come to by itself: one change a millisecond, for 24 days."""

# A client that is told a clock for its own ID goes on from there, wherever that is.
_MAX_STEP: Final = 1 << 20

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


UNREADABLE = AwarenessUpdate(b"")
"""Given to a room in the place of a message whose frame cannot be read, or is too large to be read: it refuses this one
as any malformed update, which costs presence only."""


def read_awareness(frame: bytes, pos: int) -> AwarenessUpdate:
    """Read the body of an awareness message, which fills the frame from ``pos`` on.

    Raises:
        AwarenessError: the declared length is not the length of what follows.
    """
    try:
        payload, end = read_var_bytes(frame, pos)
    except DecodeError as error:
        raise AwarenessError(f"awareness message: {error}") from None
    if end != len(frame):
        raise AwarenessError(f"awareness message: {len(frame) - end} bytes behind its end")
    return AwarenessUpdate(payload)


def decode_awareness(payload: bytes, most: int = MAX_SAFE_INTEGER) -> list[Entry]:
    """Split an awareness update into its entries, without looking into their states.

    Above some 8 KB use ``decode_awareness_in_slices``.

    Raises:
        DecodeError: a count or length that does not fit, or bytes behind the last entry.
        LimitExceeded: it declares more than ``most`` entries; nothing of them was read.
    """
    count, pos = _read_count(payload, most)
    entries, pos = _read_entries(payload, pos, count)
    _check_end(payload, pos)
    return entries


def decode_first_entry(payload: bytes) -> tuple[int, Entry] | None:
    """Return how many entries an awareness update declares, and the first of them; nothing behind it is looked at.

    Raises:
        DecodeError: the count or the entry cannot be read.
    """
    count, pos = _read_count(payload, MAX_SAFE_INTEGER)
    return (count, _read_entries(payload, pos, 1)[0][0]) if count else None


def decode_awareness_in_slices(payload: bytes, most: int) -> Generator[None, None, list[Entry]]:
    """Do what ``decode_awareness`` does in a generator that yields about every millisecond.

    Raises:
        DecodeError, LimitExceeded.
    """
    left, pos = _read_count(payload, most)
    entries: list[Entry] = []
    while left:
        count = min(left, _SLICE)
        found, pos = _read_entries(payload, pos, count)
        entries += found
        left -= count
        yield
    _check_end(payload, pos)
    return entries


# Entries that are read between two yields: about a millisecond.
_SLICE: Final = 500


def _read_count(payload: bytes, most: int) -> tuple[int, int]:
    count, pos = read_var_uint(payload, 0)
    # An entry has at least one byte for each of its fields and four for its shortest state, "null"
    # (or one for a digit): a count beyond that is a lie, refused before anything is built for it.
    if count * 3 > len(payload) - pos:
        raise DecodeError(f"awareness update: {count} entries declared in {len(payload)} bytes")
    if count > most:
        text = f"awareness: {count} states in one message, of which {most} could be of use"
        raise LimitExceeded(text, public="awareness: too many states in one message")
    return count, pos


def _read_entries(payload: bytes, pos: int, count: int) -> tuple[list[Entry], int]:
    entries = []
    for _ in range(count):
        client, pos = read_var_uint(payload, pos)
        clock, pos = read_var_uint(payload, pos)
        state, pos = read_var_bytes(payload, pos)
        entries.append(Entry(client, clock, state))
    return entries, pos


def _check_end(payload: bytes, pos: int) -> None:
    if pos != len(payload):
        raise DecodeError(f"awareness update: {len(payload) - pos} bytes behind its end")


def encode_entry(client: int, clock: int, state: bytes) -> bytes:
    """Encode one entry of an awareness update."""
    return b"".join((encode_var_uint(client), encode_var_uint(clock), encode_var_uint(len(state)), state))


def join_entries(entries: Collection[bytes]) -> bytes:
    """Make one awareness update of entries that are encoded, in the order given."""
    return encode_var_uint(len(entries)) + b"".join(entries)


def encode_awareness(entries: Iterable[Entry]) -> bytes:
    """Encode entries as one awareness update, in the order given."""
    return join_entries([encode_entry(*entry) for entry in entries])


def is_newer(known_clock: int, state_known: bool, entry: Entry) -> bool:
    """Tell whether an entry replaces what is known of its client.

    ``known_clock`` is 0 for a client never heard of, so its first state at clock 0 counts as old:
    y-protocols itself ignores it. At an equal clock only ``null`` counts, and only while a state
    is known: ``disconnect()`` of y-websocket says goodbye that way.
    """
    return entry.clock > known_clock or (entry.clock == known_clock and state_known and entry.state == NULL)


def newest_entries(entries: list[Entry]) -> list[Entry]:
    """Return one entry for each client, the newest, in the order in which the clients came first."""
    found: dict[int, Entry] = {}
    for entry in entries:
        before = found.get(entry.client)
        if before is None or is_newer(before.clock, before.state != NULL, entry):
            found[entry.client] = entry
    return entries if len(found) == len(entries) else list(found.values())


def is_far_ahead(known_clock: int, entry: Entry) -> bool:
    """Tell whether an entry's clock is one that no client has come to.

    Whoever takes an ID with such a clock would shut out its client, which is behind it for ever: lib0 reads no number
    above 2^53-1, and y-protocols takes no smaller clock. A clock that follows closely on one that is known is good:
    the client was told that one.
    """
    return entry.clock > MAX_CLOCK and entry.clock - known_clock > _MAX_STEP


class User(NamedTuple):
    """Who a client is, as its token says: the ``sub`` and a name to show."""

    sub: str
    name: str


def stamp_user(state: bytes, user: User) -> bytes:
    """Write who a client really is into the field ``user`` of its state; the rest of the text stays as it is.

    ``user.sub`` and ``user.name`` are the server's, other members of ``user`` (a colour) the client's. A
    state that is no object has no such field and stays as it is.

    Raises:
        DecodeError: as ``check_state``; also an object of very many members among which the user is hard to find.
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


def read_user(state: bytes) -> str | None:
    """Return the ``user.sub`` that a state shows; None if it shows none. It proves nothing where nobody has stamped it.

    ``state`` has passed ``check_state``.
    """
    if b'"user"' not in state:
        return None
    shown = json.loads(state)
    user = shown.get("user") if isinstance(shown, dict) else None
    sub = user.get("sub") if isinstance(user, dict) else None
    return sub if isinstance(sub, str) else None


def _stamp_usual(text: str, user: User) -> str | None:
    """Do what ``_stamp`` does for a state as stock clients send it; None for any other.

    They have ``"user"`` at most once, as the name of a member that is an object, and nothing escaped that could hide
    another. Then the library's decoder reads the text at once, in a fraction of the time.
    """
    if text[0] != "{" or "\\" in text:
        return None
    count = text.count('"user"')
    if count > 1:
        return None
    state, end = _decoder.raw_decode(text)
    if end != len(text):
        return None
    if not count:
        return f"{text[:-1]}{',' if state else ''}{_stamp_member('{}', user)}}}"
    if "user" not in state:
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


# Members that are looked through one by one, at 2 us each. Stock clients have a handful.
_MAX_MEMBERS = 1_000


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
    members = 0
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
        members += 1
        if members > _MAX_MEMBERS:
            raise DecodeError(f"awareness state: more than {_MAX_MEMBERS} members")
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
