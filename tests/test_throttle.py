"""The slow line that other tests use."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.throttle import SlowLine

PATIENCE = 30.0


@contextmanager
def connected(
    line_down: float | None = None, line_up: float | None = None, **options: Any
) -> Iterator[tuple[SlowLine, socket.socket, socket.socket]]:
    """Connect a client with a server through a line; the server is the bare socket at the other end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        SlowLine(listener.getsockname()[1], down=line_down, up=line_up, **options) as line,
        socket.create_connection(("127.0.0.1", line.port), PATIENCE) as client,
    ):
        server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE)
            yield line, client, server


def read(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := source.recv(65_536)):
        data += more
    return data


@pytest.mark.parametrize("way", ["down", "up"])
def test_bytes_pass_whole_and_no_faster_than_the_line_and_the_other_way_is_free(way: str) -> None:
    sent = bytes(range(256)) * 400
    with connected(500_000 if way == "down" else None, 500_000 if way == "up" else None) as (line, client, server):
        source, target = (server, client) if way == "down" else (client, server)
        started = time.monotonic()
        writer = threading.Thread(target=source.sendall, args=(sent,))
        writer.start()
        assert read(target, len(sent)) == sent
        took = time.monotonic() - started
        writer.join()
        assert took >= len(sent) / 500_000 - 0.21
        target.sendall(b"free" * 250_000)
        assert len(read(source, 1_000_000)) == 1_000_000
        assert line.connections == 1


def test_a_line_that_is_held_passes_nothing_until_it_is_let_go() -> None:
    with connected(0) as (line, client, server):
        server.sendall(b"held")
        client.sendall(b"up")
        assert read(server, 2) == b"up"
        assert line.passed_down == 0
        line.down = None
        assert read(client, 4) == b"held"
        assert line.passed_down == 4


def test_little_is_hidden_in_the_line() -> None:
    with connected(0) as (_, _, server):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        server.setblocking(False)
        written, full_since = 0, None
        while full_since is None or time.monotonic() - full_since < 0.1:
            try:
                written += server.send(bytes(65_536))
                full_since = None
            except BlockingIOError:
                full_since = full_since or time.monotonic()
        assert written < 1_000_000


def test_a_cut_ends_what_there_is_and_an_end_passes_on() -> None:
    with connected() as (line, client, server):
        line.cut()
        assert client.recv(1) == server.recv(1) == b""
    with connected() as (_, client, server):
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        assert read(server, 10) == b"last"
        server.sendall(b"answer")
        assert read(client, 6) == b"answer"


def test_bytes_are_kept_back_until_there_are_enough_or_their_time_has_passed() -> None:
    with connected(hold=1_000, hold_seconds=60.0) as (line, client, server):
        server.sendall(b"a" * 600)
        client.sendall(b"b" * 1_000)  # the other way is counted by itself
        assert read(server, 1_000) == b"b" * 1_000
        assert line.passed_down == 0
        server.sendall(b"a" * 400)
        assert read(client, 1_000) == b"a" * 1_000
    with connected(hold=1_000, hold_seconds=0.05) as (_, client, server):
        server.sendall(b"late")
        assert read(client, 4) == b"late"


def test_what_is_kept_back_comes_before_the_end() -> None:
    with connected(hold=1_000, hold_seconds=60.0) as (_, client, server):
        server.sendall(b"last")
        server.shutdown(socket.SHUT_WR)
        assert read(client, 10) == b"last"


def test_a_silent_connection_is_cut_and_one_that_is_not_stays() -> None:
    with connected(idle=0.3) as (line, client, server):
        for _ in range(10):  # one way is enough
            server.sendall(b"x")
            assert read(client, 1) == b"x"
            time.sleep(0.05)
        assert line.silent == 0
        assert client.recv(1) == server.recv(1) == b""
        assert line.silent == 1


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_connection_is_cut_in_the_middle_of_what_it_passes_on(way: str) -> None:
    with connected() as (line, client, server):
        source, target = (server, client) if way == "down" else (client, server)
        setattr(line, f"left_{way}", 150)
        source.sendall(b"x" * 100)
        assert read(target, 100) == b"x" * 100
        source.sendall(b"y" * 100)
        assert read(target, 100) == b"y" * 50
        assert (line.left_down, line.left_up) == (None, None)
        with socket.create_connection(("127.0.0.1", line.port), PATIENCE) as again:
            again.sendall(b"more")  # a new one is taken


def test_connections_hang_and_new_ones_pass_from_another_address() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        SlowLine(listener.getsockname()[1]) as line,
        socket.create_connection(("127.0.0.1", line.port), PATIENCE) as old,
    ):
        server, address = listener.accept()
        assert address[0] == "127.0.0.1"
        line.hang()
        line.source = "127.0.0.2"
        old.sendall(b"lost")
        old.shutdown(socket.SHUT_WR)
        with socket.create_connection(("127.0.0.1", line.port), PATIENCE) as new:
            other, address = listener.accept()
            assert address[0] == "127.0.0.2"
            new.sendall(b"here")
            assert read(other, 4) == b"here"
            other.close()
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1)
        server.close()


def test_a_long_line_delivers_later_and_as_fast_as_it_takes() -> None:
    with connected(delay=0.1) as (_, client, server):
        started = time.monotonic()
        for number in range(50):  # all of them are under way at once
            server.sendall(bytes((number,)))
            time.sleep(0.002)
        server.shutdown(socket.SHUT_WR)
        assert read(client, 51) == bytes(range(50))
        assert 0.1 <= time.monotonic() - started < 2.0
        started = time.monotonic()
        client.sendall(b"up")
        client.close()  # and what is under way arrives all the same
        assert read(server, 3) == b"up"
        assert time.monotonic() - started >= 0.1


def test_a_closed_line_takes_nobody() -> None:
    with connected() as (line, client, server):
        line.closed = True
        with socket.create_connection(("127.0.0.1", line.port), PATIENCE) as late:
            assert late.recv(1) == b""
        server.sendall(b"x")
        assert read(client, 1) == b"x"  # those that there are stay
        assert line.connections == 1
