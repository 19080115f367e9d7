"""Updates for tests: put together struct by struct, or made by real clients that edit at random."""

from __future__ import annotations

import gc as collector
import random
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from types import FrameType
from typing import Any, TypeVar

from pycrdt import Array, Doc, Map, Text, XmlElement, XmlFragment, XmlText

from collab.protocol.lib0 import encode_var_string, encode_var_uint
from collab.update.reset import RESERVED

Result = TypeVar("Result")

Id = tuple[int, int]


def identity(client: int, clock: int) -> bytes:
    return encode_var_uint(client) + encode_var_uint(clock)


def item(
    kind: int,
    content: bytes,
    *,
    origin: Id | None = None,
    right: Id | None = None,
    parent: str | Id = "t",
    key: str | None = None,
) -> bytes:
    """Encode an item; its parent is the root ``t`` when it has no origins."""
    head = bytes((kind | (0 if origin is None else 128) | (0 if right is None else 64) | (0 if key is None else 32),))
    head += b"".join(identity(*one) for one in (origin, right) if one is not None)
    if origin is None and right is None:
        head += b"\1" + encode_var_string(parent) if isinstance(parent, str) else b"\0" + identity(*parent)
        head += b"" if key is None else encode_var_string(key)
    return head + content


def text(
    string: str,
    *,
    origin: Id | None = None,
    right: Id | None = None,
    parent: str | Id = "t",
    key: str | None = None,
) -> bytes:
    return item(4, encode_var_string(string), origin=origin, right=right, parent=parent, key=key)


def gc(length: int) -> bytes:
    return b"\x00" + encode_var_uint(length)


def skip(length: int) -> bytes:
    return b"\x0a" + encode_var_uint(length)


def section(client: int, clock: int, *structs: bytes) -> bytes:
    return encode_var_uint(len(structs)) + identity(client, clock) + b"".join(structs)


def deletes(ranges: Mapping[int, Sequence[tuple[int, int]]]) -> bytes:
    """Encode a delete set as given: client -> (clock, length)."""
    encoded = encode_var_uint(len(ranges))
    for client, found in ranges.items():
        encoded += identity(client, len(found)) + b"".join(identity(*one) for one in found)
    return encoded


def update(*sections: bytes, gone: Mapping[int, Sequence[tuple[int, int]]] | None = None) -> bytes:
    return encode_var_uint(len(sections)) + b"".join(sections) + deletes(gone or {})


WORDS = ("a", "bc", "def ", "ü", "😀", "x😀y", "👩‍👩‍👧", "\n", "lorem ipsum dolor ")


class Client:
    """A pycrdt document with all kinds of roots, which keeps the update of each of its own changes."""

    def __init__(self, client: int, log: list[bytes]) -> None:
        self.doc: Doc[Any] = Doc(client_id=client)
        self.text: Text = self.doc.get("t", type=Text)
        self.map: Map[Any] = self.doc.get("m", type=Map)
        self.array: Array[Any] = self.doc.get("a", type=Array)
        self.xml: XmlFragment = self.doc.get("x", type=XmlFragment)
        self.seen = 0
        self._log = log
        self._own = True
        self._subscription = self.doc.observe(self._changed)

    def _changed(self, event: Any) -> None:
        if self._own:
            self._log.append(event.update)

    def read(self, *updates: bytes) -> None:
        """Apply updates of others."""
        self._own = False
        for one in updates:
            self.doc.apply_update(one)
        self._own = True

    def view(self) -> tuple[str, Any, Any, str]:
        """Return everything that a user would see."""
        return str(self.text.diff()), self.map.to_py(), self.array.to_py(), str(self.xml)

    def close(self) -> None:
        self.doc.unobserve(self._subscription)

    def edit(self, choose: random.Random) -> None:
        """Change something, never inside a surrogate pair."""
        action = choose.random()
        string = str(self.text)
        # Embeds are one unit of the text and no character of str(): offsets are safe while they stay at the end.
        at = choose.randint(0, len(string))
        to = min(len(string), at + choose.randint(1, 6))
        low, high = len(string[:at].encode()), len(string[:to].encode())
        with self.doc.transaction():
            if action < 0.4:
                self.text.insert(low, choose.choice(WORDS))
            elif action < 0.6 and high > low:
                del self.text[low:high]
            elif action < 0.65 and high > low:
                self.text.format(low, high, {"bold": choose.choice((True, None))})
            elif action < 0.8:
                self.map[choose.choice("klm")] = choose.choice(
                    (1, -2.5, None, True, "ü😀", b"\0\1", {"a": [1, {}]}, [[]], 2**60, Map({"n": 1}), Text("in"))
                )
            elif action < 0.9:
                if len(self.array) > 3 and choose.random() < 0.5:
                    del self.array[choose.randrange(len(self.array))]
                else:
                    self.array.insert(
                        choose.randint(0, len(self.array)),
                        choose.choice((1, "ab", None, Array([1, 2]), Map({"k": "v"}))),
                    )
            else:
                element = XmlElement(choose.choice(("p", "h1")), {"class": "c"})
                self.xml.children.append(element)
                element.children.append(XmlText("xml"))


def session(seed: int, *, clients: int = 3, edits: int = 60) -> list[bytes]:
    """Let clients edit and exchange at random; return all updates in causal order."""
    choose = random.Random(seed)
    log: list[bytes] = []
    everyone = [Client(choose.choice((1, 127, 1 << 14, 1 << 31, RESERVED - 9)) + at, log) for at in range(clients)]
    for _ in range(edits):
        client = choose.choice(everyone)
        if choose.random() < 0.3:
            client.read(*log)
        client.edit(choose)
    for client in everyone:
        client.close()
    return log


def reader_of(*updates: bytes) -> Client:
    """Return a client that has applied these updates, each of which must leave nothing waiting."""
    client = Client(0, [])
    client.read(*updates)
    return client


def lines_of_slices(work: Generator[None, None, Result]) -> tuple[list[int], Result]:
    """Run work that is done in slices; give the lines of Python of each slice, and what it returns."""
    counts: list[int] = []
    result: list[Result] = []

    def step() -> None:
        try:
            next(work)
        except StopIteration as stop:
            result.append(stop.value)

    while not result:
        counts.append(lines(step))
    return counts, result[0]


def lines(call: Callable[[], object]) -> int:
    """Count the lines of Python that a call runs: work without a clock."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
        return trace

    before = sys.gettrace()
    collector.disable()  # callbacks of the collector would be counted
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        collector.enable()
    return count
