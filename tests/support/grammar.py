"""Updates that no editor would make: every content, value, parent and flag, in an order that a room takes.

Strategy: one random generator makes a whole case, a few updates of a few clients in causal order. Structs
refer to what the case has made before, so that most of it gets past the reader, and their contents come
from short lists of what is special to JavaScript, to lib0 or to yjs. Some cases are pieces of real sessions instead:
cut, joined, and with a few bytes changed.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Final

from collab.protocol.lib0 import encode_var_bytes, encode_var_string, encode_var_uint
from collab.update.merge import diff_update, merge_updates
from collab.update.reader import find_poison
from collab.update.reset import RESERVED
from tests.support.build import Id, deletes, gc, item, section, skip

# What means something to JavaScript as the name of a property, to yjs as an option, or to nobody.
KEYS: Final = (
    "k",
    "",
    "0",
    "__proto__",
    "__proto__",
    "__proto__",
    "constructor",
    "toString",
    "valueOf",
    "toJSON",
    "length",
    "byteLength",
    "buffer",
    "then",
    "hasOwnProperty",
    "prototype",
    "name",
    "ü😀",
)
OPTIONS: Final = (
    "guid",
    "gcFilter",
    "gc",
    "meta",
    "meta",
    "autoLoad",
    "shouldLoad",
    "collectionid",
    "isSuggestionDoc",
    "clientID",
    "__proto__",
)
ROOTS: Final = ("t", "t", "m", "a", "x", "__proto__", "constructor", "toString", "", "undeclared")
NAMES: Final = ("p", "", "__proto__", "constructor", "div ü")
STRINGS: Final = ("a", "bc", "😀", "x😀y", "\x00", "\ufeff", "\ufffd", "\n", "__proto__", "", "undefined", "p" * 70)
FORMATS: Final = ("b", "i", "b", "__proto__", "constructor", "toString", "", "ychange")
JSON: Final = (
    "null",
    "true",
    "false",
    "1",
    "-0",
    "1e999",
    "0.1e-9",
    '""',
    '"a"',
    '"\\ud83d"',
    '"\\udc00x"',
    "[]",
    "{}",
    "[null]",
    '{"__proto__":null}',
    '{"__proto__":{"toJSON":1}}',
    '{"toJSON":1}',
    '{"toString":1,"valueOf":1}',
    '{"length":3}',
    '{"constructor":{"name":"x"}}',
    '{"constructor":null}',
    "[[[[]]]]",
    '{"a":{"b":[1,{"c":null}]}}',
    '{"__proto__":[],"__proto__":1}',
    '{"insert":"a","attributes":{}}',
    "123456789012345678901234567890",
    '"__proto__"',
)


def any_value(choose: random.Random, depth: int = 0) -> bytes:
    """Encode a random any value (lib0 ``writeAny``)."""
    kind = choose.randrange(12 if depth < 4 else 9)
    match kind:
        case 0:
            return choose.choice((b"\x7f", b"\x7e", b"\x78", b"\x79"))
        case 1:
            return b"\x7d" + choose.choice(
                (b"\0", b"\1", b"\x40", b"\x41", b"\xbf\1", b"\xff\xff\xff\xff\xff\xff\xff\x1f")
            )
        case 2:
            return b"\x7c" + choose.choice((struct.pack(">f", 0.5), b"\x7f\xc0\0\1", b"\xff\x80\0\0", b"\x80\0\0\0"))
        case 3:
            return b"\x7b" + choose.choice((struct.pack(">d", 1e300), b"\x7f\xf8\0\0\0\0\0\1", b"\x43\x40\0\0\0\0\0\0"))
        case 4:
            return b"\x7a" + choose.choice((b"\0" * 8, b"\x80" + b"\0" * 7, b"\x7f" + b"\xff" * 7, b"\xff" * 8))
        case 5 | 6:
            return b"\x77" + encode_var_string(choose.choice(STRINGS))
        case 7 | 8:
            return b"\x74" + encode_var_bytes(choose.randbytes(choose.randrange(3)))
        case 9:
            values = [any_value(choose, depth + 1) for _ in range(choose.randrange(4))]
            return b"\x75" + encode_var_uint(len(values)) + b"".join(values)
        case _:
            return any_object(choose, KEYS, depth)


def any_object(choose: random.Random, keys: Sequence[str], depth: int) -> bytes:
    """Encode a random object; a key may come twice."""
    pairs = [encode_var_string(choose.choice(keys)) + any_value(choose, depth + 1) for _ in range(choose.randrange(4))]
    return b"\x76" + encode_var_uint(len(pairs)) + b"".join(pairs)


def _values(choose: random.Random, one: Callable[[], bytes]) -> tuple[bytes, int]:
    count = choose.choice((1, 1, 2, 3))
    return encode_var_uint(count) + b"".join(one() for _ in range(count)), count


def content(choose: random.Random) -> tuple[int, bytes, int]:
    """Return a random content: its kind, its bytes and its length in clocks."""
    kind = choose.choice((4, 4, 4, 4, 8, 8, 8, 8, 7, 7, 7, 9, 9, 6, 6, 5, 3, 2, 1))
    match kind:
        case 4:
            string = choose.choice(STRINGS) or "a"
            return kind, encode_var_string(string), len(string.encode("utf-16-le")) // 2
        case 8:
            return kind, *_values(choose, lambda: any_value(choose))
        case 7:
            ref = choose.randrange(7)
            return kind, bytes((ref,)) + (encode_var_string(choose.choice(NAMES)) if ref in (3, 5) else b""), 1
        case 9:
            options = b"\x75\0" if choose.random() < 0.05 else any_object(choose, OPTIONS, 0)
            return kind, encode_var_string(choose.choice(("guid", "", "__proto__"))) + options, 1
        case 6:
            return kind, encode_var_string(choose.choice(FORMATS)) + encode_var_string(choose.choice(JSON)), 1
        case 5:
            return kind, encode_var_string(choose.choice(JSON)), 1
        case 3:
            return kind, encode_var_bytes(choose.randbytes(choose.randrange(3))), 1
        case 2:
            return kind, *_values(choose, lambda: encode_var_string(choose.choice((*JSON, "undefined"))))
        case _:
            length = choose.choice((1, 2, 5))
            return kind, encode_var_uint(length), length


class Case:
    """A case in the making: which clocks there are, whose item is a type, and what lies under a key."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose
        self.clients = choose.sample((1, 5, 127, 128, 9_000, 1 << 32, RESERVED - 1), choose.choice((1, 2, 2, 3)))
        self.clocks = dict.fromkeys(self.clients, 0)
        self.types: list[Id] = []
        # Of each client, for every clock: does it lie under a key.
        self.keyed: dict[int, list[bool]] = {client: [] for client in self.clients}

    def updates(self) -> list[bytes]:
        """Make the updates."""
        made = []
        for _ in range(self.choose.choice((1, 2, 4, 8, 16))):
            before = dict(self.clocks), list(self.types), {client: list(keyed) for client, keyed in self.keyed.items()}
            made.append(self.update())
            if find_poison(made[-1]) is not None:
                # What a room refuses is not there for the next ones.
                self.clocks, self.types, self.keyed = before
        return made

    def update(self) -> bytes:
        """Make an update: structs of some clients, in turn, and deletes."""
        choose = self.choose
        begun = dict(self.clocks)
        structs: dict[int, list[bytes]] = {}
        for _ in range(choose.choice((1, 1, 1, 2, 3, 6))):
            client = choose.choice(self.clients)
            structs.setdefault(client, []).append(self.struct(client))
        sections = [section(client, begun[client], *structs[client]) for client in sorted(structs, reverse=True)]
        gone: dict[int, list[tuple[int, int]]] = {}
        if choose.random() < 0.5:
            for client in choose.sample(self.clients, choose.randint(1, len(self.clients))):
                end = self.clocks[client]
                for _ in range(choose.choice((1, 1, 2, 4)) if end else 0):
                    start = choose.randrange(end)
                    gone.setdefault(client, []).append((start, choose.randint(1, min(4, end - start))))
        return encode_var_uint(len(sections)) + b"".join(sections) + deletes(gone)

    def known(self, client: int) -> Id | None:
        """Choose an id that is there: mostly the last of this client."""
        choose = self.choose
        if self.clocks[client] and choose.random() < 0.6:
            return client, self.clocks[client] - 1
        there = [other for other in self.clients if self.clocks[other]]
        if not there:
            return None
        other = choose.choice(there)
        return other, choose.randrange(self.clocks[other])

    def struct(self, client: int) -> bytes:
        """Make one struct of a client."""
        choose = self.choose
        origin = self.known(client) if choose.random() < 0.6 else None
        right = self.known(client) if choose.random() < 0.2 else None
        if right == origin and choose.random() < 0.9:
            right = None
        kind, body, length = content(choose)
        parent: str | Id = choose.choice(ROOTS)
        if self.types and choose.random() < 0.6:
            parent = choose.choice(self.types)
        elif choose.random() < 0.05:
            parent = self.known(client) or parent
        if origin or right:
            other, clock = origin or right or (0, 0)
            under_key = self.keyed[other][clock]
            flag = under_key if choose.random() < 0.8 else not under_key
        else:
            flag = under_key = choose.random() < 0.4
        whole = gc(length) if choose.random() < 0.03 else skip(1) if choose.random() < 0.002 else b""
        if not whole:
            key = choose.choice(("k", "k", *KEYS)) if flag else None
            whole = item(kind, body, origin=origin, right=right, parent=parent, key=key)
            if kind == 7:
                self.types.append((client, self.clocks[client]))
        self.clocks[client] += length
        self.keyed[client] += [under_key] * length
        return whole


def mutated(choose: random.Random, data: bytes) -> bytes:
    """Change a few bytes of an update."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 3)):
        at = choose.randrange(len(changed))
        match choose.randrange(3):
            case 0:
                changed[at] = choose.randrange(256)
            case 1:
                changed[at] ^= 1 << choose.randrange(8)
            case _:
                changed[at : at + choose.randrange(3)] = any_value(choose)
    return bytes(changed)


def pieces(choose: random.Random, log: Sequence[bytes]) -> list[bytes]:
    """Cut and join a piece of a real session, whose updates are in causal order; change a few bytes of it."""
    start = 0 if choose.random() < 0.7 else choose.randrange(len(log))
    part = list(log[start : start + choose.randint(1, 25)])
    while len(part) > 1 and choose.random() < 0.6:
        at = choose.randrange(len(part) - 1)
        part[at : at + 2] = [merge_updates(part[at : at + 2])]
    if choose.random() < 0.2:
        part[-1] = diff_update(merge_updates(part), {})
    if choose.random() < 0.8:
        at = choose.randrange(len(part))
        part[at] = mutated(choose, part[at])
    return part


def case(seed: int, logs: Sequence[Sequence[bytes]] = ()) -> list[bytes]:
    """Make the updates of a case from its seed alone; the reader may refuse some of them."""
    choose = random.Random(seed)
    if logs and choose.random() < 0.2:
        return pieces(choose, choose.choice(logs))
    return Case(choose).updates()
