"""The line that does harm to messages: it harms these, and nothing else of what passes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Literal

import pytest

from tests.chaos.messages import HARMS, HarmfulLine, split_postgresql, split_redis

Kind = Literal["postgresql", "redis"]


def notification(payload: bytes) -> bytes:
    body = (7).to_bytes(4, "big") + b"channel\0" + payload + b"\0"
    return b"A" + (len(body) + 4).to_bytes(4, "big") + body


def push(payload: bytes, kind: bytes = b"*") -> bytes:
    words = (b"message", b"channel", payload)
    return kind + b"3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


OTHERS = {
    "postgresql": (b"Z\0\0\0\5I", b"D\0\0\0\x0b\0\1\0\0\0\1A"),
    "redis": (b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", b"%1\r\n+a\r\n*0\r\n"),
}
MAKE: dict[str, Callable[[bytes], bytes]] = {"postgresql": notification, "redis": push}
SPLIT = {"postgresql": split_postgresql, "redis": split_redis}


def stream(kind: Kind, payloads: list[bytes]) -> bytes:
    return b"".join(OTHERS[kind]) + b"".join(MAKE[kind](one) + OTHERS[kind][0] for one in payloads)


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
def test_messages_are_found_wherever_the_stream_is_cut(kind: Kind) -> None:
    payloads = [b"one", b"", b"three \x01\r\n"]
    data = stream(kind, payloads)
    for cut in range(len(data) + 1):
        first, rest = SPLIT[kind](data[:cut])
        second, left = SPLIT[kind](rest + data[cut:])
        pieces = first + second
        assert not left and b"".join(piece for piece, _, _ in pieces) == data
        assert [piece[begin:end] for piece, begin, end in pieces if begin] == payloads


def test_a_push_of_the_newer_protocol_is_a_message_too() -> None:
    pieces, rest = split_redis(push(b"x", b">") + b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n$4\r\nhal")
    assert [piece[begin:end] for piece, begin, end in pieces] == [b"x", b""] and rest == b"$4\r\nhal"


@pytest.mark.parametrize("kind", ["postgresql", "redis"])
@pytest.mark.parametrize("harm", HARMS)
def test_each_harm_is_done_to_messages_alone(kind: Kind, harm: Literal["drop", "double", "swap", "damage"]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        HarmfulLine(listener.getsockname()[1], kind, seed=1) as line,
        socket.create_connection(("127.0.0.1", line.port), 30) as client,
    ):
        server, _ = listener.accept()
        with server:
            first, second = MAKE[kind](b"AAAA"), MAKE[kind](b"CCCC")
            between = OTHERS[kind][0]
            line.harm = {harm: 1.0}
            server.sendall(first + between + second + between)
            server.shutdown(socket.SHUT_WR)
            came = b""
            while more := client.recv(65_536):
                came += more
    wanted = {
        "drop": 2 * between,
        "double": 2 * first + between + 2 * second + between,
        "swap": between + second + first + between,
        "damage": MAKE[kind](b"AABA") + between + MAKE[kind](b"CCAC") + between,
    }
    assert came == wanted[harm] and line.done[harm] == 2
