"""A line to a bus that does harm to its messages: they are lost, come twice, in another order, or damaged.

Strategy: it is a slow line (:mod:`tests.support.throttle`) that understands as much of what passes down to a node as
is needed to find the messages: pushes of Redis' publish and subscribe, and PostgreSQL's notifications. All else passes
as it is, so connections live on and only messages are harmed, which is the harm that no reconnect tells of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from tests.support.throttle import SlowLine

Harm = Literal["drop", "double", "swap", "damage"]
HARMS: tuple[Harm, ...] = ("drop", "double", "swap", "damage")

Piece = tuple[bytes, int, int]
"""One whole part of a stream, and where the payload of a message begins and ends in it; 0 and 0 if it is none."""

Splitter = Callable[[bytes], tuple[list[Piece], bytes]]
"""Cuts a stream: gives the whole parts, and what is left behind them."""


class HarmfulLine(SlowLine):
    """A line on which messages of a bus are harmed.

    Args:
        target: the port of the server of the bus.
        bus: which of the two it is.
        seed: for the choice of messages.

    Attributes:
        harm: how probable each harm is for a message; it may be changed at any time.
        done: how often each was done.
    """

    def __init__(self, target: int, bus: Literal["postgresql", "redis"], seed: int, **options: Any) -> None:
        super().__init__(target, **options)
        self.harm: Mapping[Harm, float] = {}
        self.done: dict[Harm, int] = dict.fromkeys(HARMS, 0)
        self._split: Splitter = split_postgresql if bus == "postgresql" else split_redis
        self._random = random.Random(seed)

    def _changer(self, way: str) -> Callable[[bytes], bytes] | None:
        return _Harmer(self).change if way == "down" else None

    def choose(self) -> Harm | None:
        """Choose what becomes of the next message."""
        chance = self._random.random()
        for harm, share in self.harm.items():
            if chance < share:
                self.done[harm] += 1
                return harm
            chance -= share
        return None

    def split(self, data: bytes) -> tuple[list[Piece], bytes]:
        """Cut what has come so far."""
        return self._split(data)


class _Harmer:
    """What comes down one connection."""

    def __init__(self, line: HarmfulLine) -> None:
        self._line = line
        self._rest = b""
        self._held = b""  # a message that the next one overtakes

    def change(self, data: bytes) -> bytes:
        pieces, self._rest = self._line.split(self._rest + data)
        return b"".join([out for piece in pieces for out in self._change_one(*piece)])

    def _change_one(self, piece: bytes, begin: int, end: int) -> Iterator[bytes]:
        harm = self._line.choose() if end > begin else None
        if harm == "swap" and not self._held:
            self._held = piece
            return
        if harm == "damage":
            yield piece[:begin] + damaged(piece[begin:end]) + piece[end:]
        elif harm != "drop":
            yield piece
        if harm == "double":
            yield piece
        if end > begin and self._held:
            held, self._held = self._held, b""
            yield held


def damaged(payload: bytes) -> bytes:
    """Change one byte in the middle into another letter, so that base64 stays base64."""
    at = len(payload) // 2
    return payload[:at] + (b"A" if payload[at : at + 1] != b"A" else b"B") + payload[at + 1 :]


def split_postgresql(data: bytes) -> tuple[list[Piece], bytes]:
    """Cut the messages of a server of PostgreSQL, on a connection that has never asked for TLS."""
    pieces, pos = [], 0
    while pos + 5 <= len(data):
        end = pos + 1 + int.from_bytes(data[pos + 1 : pos + 5], "big")
        if end > len(data):
            break
        piece = data[pos:end]
        # NotificationResponse: the process, the channel, the payload; both texts end with a zero.
        pieces.append((piece, piece.index(0, 9) + 1, len(piece) - 1) if piece[:1] == b"A" else (piece, 0, 0))
        pos = end
    return pieces, data[pos:]


def split_redis(data: bytes) -> tuple[list[Piece], bytes]:
    """Cut the replies of a server of Redis, in either version of its protocol."""
    pieces, pos = [], 0
    while True:
        spans: list[tuple[int, int]] = []
        end = _reply_end(data, pos, spans)
        if end is None:
            return pieces, data[pos:]
        piece = data[pos:end]
        words = [piece[begin - pos : stop - pos] for begin, stop in spans]
        if piece[:1] in b"*>" and len(words) == 3 and words[0] in (b"message", b"smessage"):
            pieces.append((piece, spans[2][0] - pos, spans[2][1] - pos))
        else:
            pieces.append((piece, 0, 0))
        pos = end


def _reply_end(data: bytes, pos: int, spans: list[tuple[int, int]]) -> int | None:
    """Give where the reply at ``pos`` ends, None if it is not whole; note where its strings of bytes are."""
    line_end = data.find(b"\r\n", pos)
    if line_end < 0:
        return None
    kind, head, pos = data[pos : pos + 1], data[pos + 1 : line_end], line_end + 2
    if kind in (b"$", b"=", b"!"):
        size = int(head)
        if size < 0:
            return pos
        spans.append((pos, pos + size))
        return pos + size + 2 if pos + size + 2 <= len(data) else None
    if kind in (b"*", b">", b"~", b"%"):
        for _ in range(int(head) * (2 if kind == b"%" else 1)):
            found = _reply_end(data, pos, spans)
            if found is None:
                return None
            pos = found
    return pos
