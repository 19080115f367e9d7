"""Yjs updates that the generator writes, and the light reader that recognises them again.

Strategy: each writer continues its own run of text (client ID, clock, origin = its previous
character), and the character at a clock follows from the clock alone. So an update is five constant
parts and two numbers, a received range (client, clock) says exactly which updates were delivered,
and the final content of a document is known without a CRDT: client by client, clock by clock. A
server may merge, cut or join structs as it likes; what counts is which character each (client, clock)
holds, and that each one's left neighbour is the one its writer gave it.
"""

from __future__ import annotations

import random
from bisect import bisect_left

from collab.errors import UpdateError
from collab.protocol.lib0 import encode_var_string, encode_var_uint, read_var_string, read_var_uint
from collab.protocol.sync import EMPTY_UPDATE

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
ROOT = "text"

# Struct kinds of yjs (ContentRefs in Item.js, GC.js, Skip.js).
_GC, _DELETED, _STRING, _SKIP = 0, 1, 4, 10
_HAS_ORIGIN, _HAS_RIGHT_ORIGIN, _HAS_PARENT_SUB = 0x80, 0x40, 0x20

_CLOCKS: list[bytes] = [encode_var_uint(n) for n in range(1 << 12)]
# One paste is at most this long, so that every slice of the endless alphabet is one slice of this.
MAX_STROKE = 1 << 16
_PATTERN = (ALPHABET * (MAX_STROKE // len(ALPHABET) + 2)).encode()
_ENDS = tuple(b"\x01" + letter.encode() + b"\x00" for letter in ALPHABET)

Range = tuple[int, int, int]
"""(client, first clock, clock behind the last)."""


def _clock(value: int) -> bytes:
    while value >= len(_CLOCKS):
        _CLOCKS.extend(encode_var_uint(n) for n in range(len(_CLOCKS), 2 * len(_CLOCKS)))
    return _CLOCKS[value]


def run_of_text(start: int, end: int) -> bytes:
    """Return what a typist holds at the clocks from ``start`` to before ``end``, one ASCII byte a clock."""
    size = end - start
    first = start % len(ALPHABET)
    if first + size <= len(_PATTERN):
        return _PATTERN[first : first + size]
    whole = ALPHABET.encode() * (size // len(ALPHABET) + 2)
    return whole[first : first + size]


class Typist:
    """One client ID that types at the end of its own run, ``size`` characters an update.

    The first update puts the run at the start of the root text; runs of several typists stand in
    the order of their client IDs (YATA: equal origins, lower ID to the left) and never mix.
    """

    __slots__ = ("_again", "_head", "client", "clock", "sent_at", "size")

    def __init__(self, client: int, size: int = 1) -> None:
        if not 1 <= size <= MAX_STROKE:
            raise ValueError(f"an update types 1 to {MAX_STROKE} characters, not {size}")
        self.client = client
        self.clock = 0
        self.size = size
        # When each character was sent, perf_counter seconds; whoever sends it writes it down.
        self.sent_at: list[float] = []
        number = encode_var_uint(client)
        self._head = b"\x01\x01" + number
        self._again = bytes((_STRING | _HAS_ORIGIN,)) + number

    def stroke(self) -> bytes:
        """Type once and return the update (v1) that says so."""
        clock = self.clock
        if self.size == 1 and clock:
            self.clock = clock + 1
            try:
                return self._head + _CLOCKS[clock] + self._again + _CLOCKS[clock - 1] + _ENDS[clock % 26]
            except IndexError:
                return self._head + _clock(clock) + self._again + _clock(clock - 1) + _ENDS[clock % 26]
        self.clock = clock + self.size
        return self.encode(clock)

    def encode(self, start: int = 0) -> bytes:
        """Return one update (v1) with everything typed from the clock ``start`` on: an answer to a step 1."""
        if start >= self.clock:
            return EMPTY_UPDATE
        text = run_of_text(start, self.clock)
        origin = self._again + encode_var_uint(start - 1) if start else bytes((_STRING, 1)) + encode_var_string(ROOT)
        return self._head + encode_var_uint(start) + origin + encode_var_uint(len(text)) + text + b"\x00"

    def held(self) -> bytes:
        """Return what a document must hold of this client: one ASCII byte a clock."""
        return run_of_text(0, self.clock)


class EditingSession:
    """Single-character edits as people make them: bursts of typing, jumps, runs of backspaces.

    Seven tenths of the edits insert, the rest delete; a burst is 1 to 40 edits at one place by one of
    ``clients`` authors, who see each other's work at once. Deterministic for a ``seed``.
    """

    def __init__(self, edits: int, *, clients: int = 4, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self.clients = [self._random.randrange(1 << 28, 1 << 32) for _ in range(clients)]
        self._left = edits
        self._burst = 0
        self._deleting = False
        self._author = self.clients[0]
        self._at = 0
        self._text: list[tuple[int, int]] = []
        self._held: dict[int, bytearray] = {client: bytearray() for client in self.clients}

    def __len__(self) -> int:
        return self._left

    def edit(self) -> bytes:
        """Make the next edit and return its update (v1); raises IndexError when the session is over."""
        if not self._left:
            raise IndexError("the session is over")
        self._left -= 1
        choose = self._random
        if not self._burst:
            self._burst = choose.randint(1, 40)
            self._author = choose.choice(self.clients)
            self._at = choose.randint(0, len(self._text))
            self._deleting = choose.random() < 0.3
        self._burst -= 1
        if self._deleting and self._at:
            return self._backspace()
        return self._insert()

    def _backspace(self) -> bytes:
        self._at -= 1
        client, clock = self._text.pop(self._at)
        self._held[client][clock] = 0
        return b"\x00\x01" + encode_var_uint(client) + b"\x01" + encode_var_uint(clock) + b"\x01"

    def _insert(self) -> bytes:
        author, at, text = self._author, self._at, self._text
        held = self._held[author]
        clock = len(held)
        info, where = _STRING, b""
        if at:
            info |= _HAS_ORIGIN
            where += encode_var_uint(text[at - 1][0]) + encode_var_uint(text[at - 1][1])
        if at < len(text):
            info |= _HAS_RIGHT_ORIGIN
            where += encode_var_uint(text[at][0]) + encode_var_uint(text[at][1])
        if not where:
            where = b"\x01" + encode_var_string(ROOT)
        letter = ord(ALPHABET[clock % 26])
        held.append(letter)
        text.insert(at, (author, clock))
        self._at = at + 1
        head = b"\x01\x01" + encode_var_uint(author) + encode_var_uint(clock)
        return head + bytes((info,)) + where + bytes((1, letter, 0))

    def held(self) -> dict[int, bytes]:
        """Return what a document must hold: for each client one ASCII byte a clock, 0 where deleted."""
        return {client: bytes(held) for client, held in self._held.items() if held}

    def text(self) -> str:
        """Return the visible text."""
        return "".join(chr(self._held[client][clock]) for client, clock in self._text)


def read_ranges(data: bytes, pos: int, end: int) -> list[Range]:
    """Read which (client, clock) ranges the update at ``data[pos:end]`` carries; its deletes are not read.

    Runs of one client that follow each other come back as one range. Raises UpdateError on a struct
    that no generator of this package writes: the room is not the bench's own then.
    """
    ranges: list[Range] = []
    sections, pos = _number(data, pos)
    for _ in range(sections):
        structs, pos = _number(data, pos)
        client, pos = _number(data, pos)
        clock, pos = _number(data, pos)
        first = clock
        for _ in range(structs):
            info = data[pos]
            pos += 1
            kind = info & 31
            if kind == _STRING:
                pos = _skip_place(data, pos, info)
                size, pos = _number(data, pos)
                pos += size
                clock += size
                continue
            if kind == _DELETED:
                pos = _skip_place(data, pos, info)
            elif kind not in (_GC, _SKIP):
                raise UpdateError(f"a struct of kind {kind}: somebody else writes to this document")
            size, pos = _number(data, pos)
            if kind == _SKIP:
                if clock > first:
                    ranges.append((client, first, clock))
                first = clock + size
            clock += size
        if clock > first:
            ranges.append((client, first, clock))
    if pos > end:
        raise UpdateError("the update ends inside a struct")
    return ranges


def _number(data: bytes, pos: int) -> tuple[int, int]:
    # Inlined varUint without the checks of lib0.read_var_uint: this runs for every frame.
    byte = data[pos]
    pos += 1
    if byte < 128:
        return byte, pos
    value = byte & 127
    shift = 7
    while True:
        byte = data[pos]
        pos += 1
        if byte < 128:
            return value | byte << shift, pos
        value |= (byte & 127) << shift
        shift += 7


def _skip_place(data: bytes, pos: int, info: int) -> int:
    if info & _HAS_ORIGIN:
        _, pos = _number(data, pos)
        _, pos = _number(data, pos)
    if info & _HAS_RIGHT_ORIGIN:
        _, pos = _number(data, pos)
        _, pos = _number(data, pos)
    if not info & (_HAS_ORIGIN | _HAS_RIGHT_ORIGIN):
        named, pos = _number(data, pos)
        if named:
            size, pos = _number(data, pos)
            pos += size
        else:
            _, pos = _number(data, pos)
            _, pos = _number(data, pos)
        if info & _HAS_PARENT_SUB:
            size, pos = _number(data, pos)
            pos += size
    return pos


def read_content(update: bytes) -> dict[int, bytes]:
    """Read a whole document (v1): for each client one ASCII byte a clock, 0 where deleted.

    Raises UpdateError on other content than text, on a hole, and on a character inside a run whose
    origin is not the character before it (``Typist`` documents have no other; a session's jumps start a
    struct of their own, whose origin is not looked at).
    """
    held: dict[int, bytearray] = {}
    sections, pos = read_var_uint(update, 0)
    for _ in range(sections):
        structs, pos = read_var_uint(update, pos)
        client, pos = read_var_uint(update, pos)
        clock, pos = read_var_uint(update, pos)
        content = held.setdefault(client, bytearray())
        if clock != len(content):
            raise UpdateError(f"client {client} begins at clock {clock}")
        for _ in range(structs):
            if pos >= len(update):
                raise UpdateError("the update ends inside a section")
            info = update[pos]
            kind = info & 31
            if kind not in (_STRING, _DELETED, _GC):
                raise UpdateError(f"a struct of kind {kind} in the section of client {client}")
            pos += 1
            if kind != _GC:
                pos = _skip_place(update, pos, info)
            if kind == _STRING:
                text, pos = read_var_string(update, pos)
                content += text.encode()
            else:
                size, pos = read_var_uint(update, pos)
                content += bytes(size)
    clients, pos = read_var_uint(update, pos)
    for _ in range(clients):
        client, pos = read_var_uint(update, pos)
        count, pos = read_var_uint(update, pos)
        for _ in range(count):
            clock, pos = read_var_uint(update, pos)
            size, pos = read_var_uint(update, pos)
            if client not in held or clock + size > len(held[client]):
                raise UpdateError(f"a delete of client {client} that is not in the document")
            held[client][clock : clock + size] = bytes(size)
    if pos != len(update):
        raise UpdateError("bytes behind the update")
    return {client: bytes(content) for client, content in held.items()}


def run_is_chained(update: bytes, clients: set[int]) -> bool:
    """Say whether every struct of ``clients`` continues the one before it, as typists write them.

    The first stands in the root text with no neighbours; each other one has the clock before its own as
    origin and no right origin. With equal content that makes the document the one that was typed.
    """
    root = b"\x01" + encode_var_string(ROOT)
    sections, pos = read_var_uint(update, 0)
    for _ in range(sections):
        structs, pos = read_var_uint(update, pos)
        client, pos = read_var_uint(update, pos)
        clock, pos = read_var_uint(update, pos)
        for _ in range(structs):
            info = update[pos]
            place = update[pos + 1 : _skip_place(update, pos + 1, info)]
            expected = encode_var_uint(client) + encode_var_uint(clock - 1) if clock else root
            if client in clients and (info & 31 != _STRING or place != expected):
                return False
            pos += 1 + len(place)
            size, pos = read_var_uint(update, pos)
            pos += size if info & 31 == _STRING else 0
            clock += size
    return True


def joined_text(typists: list[Typist]) -> str:
    """Return the text of a document in which these typists, and nobody else, have typed."""
    return "".join(typist.held().decode() for typist in sorted(typists, key=lambda typist: typist.client))


def percentile(counts: dict[int, int], share: float) -> int:
    """Return the bucket below or at which ``share`` (0 to 1) of all counted values lie; -1 when there are none."""
    total = sum(counts.values())
    if not total:
        return -1
    keys = sorted(counts)
    running, cumulated = 0, []
    for key in keys:
        running += counts[key]
        cumulated.append(running)
    return keys[bisect_left(cumulated, share * total)]
