"""Connections that come and go without a pause, on one server: its memory must stay where it is.

    python -m tests.crash.soak --minutes 60 [--wave 500]          # the nightly soak
    python -m tests.crash.soak --waves 12 --wave 5000             # the waves of a reconnect storm

Strategy: each wave opens its connections, waits until all that can be answered were answered, and ends them, most of
them abruptly: clients of both protocols that edit, show themselves and have many documents, clients in the middle of a
frame or of a large message, wrong tokens, requests that never end, sockets that say nothing. Two people edit all the
time. Then the server must have let go of all connections and, ``--idle-seconds`` later, of the documents; its memory
(resident set) is read when the wave stands and when it has gone.

The users and documents of all waves are the same, so a wave costs what the first one costs, and memory that grows from
wave to wave is kept for nothing. The bounds: no wave takes more than ``STANDING`` times what the first one took, and
what is left after the last fifth of the waves is at most ``LEFT`` times what was left after the first fifth (medians).
Each wave is a line. The command ends with 1 if a bound was passed, if the people were cut off, or if there is a
traceback in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import jwt
import psutil

from tests.hostile.endless import POST, frame
from tests.support import hocuspocus
from tests.support.handshake import upgrade
from tests.support.server import ServerProcess
from tests.support.waiting import happens
from tests.support.wsclient import EMPTY_UPDATE, LiveClient, awareness, step1, step2, text_update, update

STANDING = 1.15
LEFT = 1.15

IDLE_SECONDS = 1.0
OPTIONS = ("--idle-seconds", str(IDLE_SECONDS), "--max-unauthenticated", "0", "--max-new-documents-per-minute", "0")

# Seconds for a wave of any size on a machine that is busy.
_PATIENCE = 600.0

# Connections that are being opened at a time.
_AT_A_TIME = 200

# Clients for each document of a wave: they share it, and what one sends is not relayed to thousands.
_CLIENTS_OF_A_DOCUMENT = 10

_SECRET = secrets.token_hex(32)


def token(user: str) -> str:
    claims = {"sub": user, "documents": {"*": "write"}, "exp": int(time.time()) + 86_400}
    return jwt.encode(claims, _SECRET, algorithm="HS256")


def _binary(*messages: bytes) -> bytes:
    return b"".join(frame(0x82, message) for message in messages)


def _y(number: int, documents: int, chance: random.Random) -> tuple[bytes, bytes]:
    """Give what a client of y-websocket says: its request, and what follows the answer to it."""
    document = f"soak%20{chance.randrange(documents)}"
    presence = awareness((number + 1, 1, '{"user":{"name":"Ada"}}'))
    says = _binary(step1(), step2(EMPTY_UPDATE), update(text_update(number + 1, "x")), presence)
    return upgrade(f"/ws/{document}?token={token(f'user {number}')}"), says


def _hocuspocus(number: int, documents: int, chance: random.Random) -> tuple[bytes, bytes]:
    names = [f"soak {name}" for name in chance.sample(range(documents), 3)]
    shown = token(f"user {number}")
    # The answer waits behind the token for the question.
    says = [
        message for name in names for message in (hocuspocus.auth(name, shown), hocuspocus.step2(name, EMPTY_UPDATE))
    ]
    return upgrade("/hocuspocus"), _binary(*says)


# What comes behind an edit and is never whole.
_HALVES = (
    b"",
    b"",
    frame(0x82, b"\0\2", 300),
    frame(0x82, b"\0\2" + b"x" * 2_000, 300_000),
    frame(0x02, b"\0\2") + frame(0x00, b"x") * 20,
    frame(0x82, b"\0\2")[:3],
    frame(0x89, b"?") * 30,
)

# No WebSockets, or none that gets far.
_OTHERS = (
    b"",
    b"GET /healthz HT",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    POST + b"Content-Length: 100\r\n\r\n{",
    POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    upgrade("/ws/soak?token=wrong"),
    upgrade("/hocuspocus"),
    b"\x16\x03\x01\x02",
)


class _Client(asyncio.Protocol):
    """One connection; ``came`` is whether anything has come, behind the answer to its request if something follows."""

    def __init__(self, first: bytes, then: bytes) -> None:
        self._first = first
        self._then = then
        self._head = b""
        self.came = not first
        self.gone = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        if not self._then or self.came:
            self.came = True
            return
        self._head += data
        head, found, behind = self._head.partition(b"\r\n\r\n")
        if found and self.transport is not None:
            if self._first != self._then:
                self.transport.write(self._then)
                self._first = self._then
            self.came = bool(behind)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = self.came = True
        self.transport = None


@dataclass
class Result:
    """Memory in MiB: when each wave stood, and when it had gone; ``faults`` is whatever was wrong."""

    standing: list[float] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    connections: int = 0
    faults: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Note the bounds that were passed."""
        if self.growth_standing > STANDING:
            self.faults.append(f"a wave took {self.growth_standing:.2f} times what the first one took")
        if self.growth_left > LEFT:
            self.faults.append(f"what is left has grown to {self.growth_left:.2f} of what it was")

    @property
    def growth_standing(self) -> float:
        return max(self.standing) / self.standing[0]

    @property
    def growth_left(self) -> float:
        some = max(1, len(self.left) // 5)
        return statistics.median(self.left[-some:]) / statistics.median(self.left[:some])

    def __str__(self) -> str:
        return (
            f"{len(self.standing)} waves, {self.connections} connections; standing {self.standing[0]:.0f} MiB first, "
            f"{max(self.standing):.0f} at most ({self.growth_standing:.2f}); left {self.left[0]:.0f} first, "
            f"{self.left[-1]:.0f} last ({self.growth_left:.2f}); {len(self.faults)} faults"
        )


class Soak:
    """One soak on a server that runs."""

    def __init__(self, server: ServerProcess, wave: int, seed: int, say: Callable[[str], None]) -> None:
        self.result = Result()
        self._server = server
        self._process = psutil.Process(server.pid)
        self._wave = wave
        self._seed = seed
        self._say = say
        self._held = 0

    async def run(self, waves: int | None, seconds: float | None) -> Result:
        """Send so many waves, or as many as come within so many seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        url = f"{self._server.document_url('people')}?token={token('people')}"
        async with LiveClient(url) as ada, LiveClient(url) as bob:
            for client in (ada, bob):
                await client.until_synced()
            self._held = self._connections()
            typing = asyncio.create_task(self._type(ada, bob))
            number = 0
            while (waves is None or number < waves) and (until is None or time.monotonic() < until):
                await self._run_wave(number)
                number += 1
            typing.cancel()
            await asyncio.wait([typing])
            if (ada.connects, bob.connects, ada.open, bob.open) != (1, 1, True, True):
                self.result.faults.append("the people were cut off")
            if not typing.cancelled() and typing.exception() is not None:
                self.result.faults.append(f"the people could not edit: {typing.exception()}")
        self.result.faults += [line for line in self._server.log_lines if "Traceback" in line]
        self.result.judge()
        return self.result

    async def _type(self, ada: LiveClient, bob: LiveClient) -> None:
        """Edit on both sides; what is written is taken back, so that the document stays small."""
        while True:
            ada.text().insert(0, "x")
            await bob.until(lambda: str(bob.text()) == "x", "an edit")
            del bob.text()[0]
            await ada.until(lambda: str(ada.text()) == "", "its end")
            await asyncio.sleep(0.5)

    async def _run_wave(self, number: int) -> None:
        began = time.monotonic()
        # The same wave again and again, in another order and with other ends.
        chance, ends = random.Random(self._seed), random.Random(f"{self._seed} {number}")
        clients = [_Client(*self._script(each, chance)) for each in range(self._wave)]
        ends.shuffle(clients)
        loop = asyncio.get_running_loop()
        for begin in range(0, len(clients), _AT_A_TIME):
            some = clients[begin : begin + _AT_A_TIME]
            await asyncio.gather(
                *(loop.create_connection(lambda c=c: c, self._server.host, self._server.port) for c in some)  # type: ignore[misc]
            )
        # Those that have not sent a whole request hear nothing.
        await happens(lambda: sum(client.came for client in clients) >= 0.9 * len(clients), "the answers", _PATIENCE)
        self.result.standing.append(self._memory())
        for client in clients:
            if client.transport is not None:
                end = ends.random()
                if end < 0.7:
                    client.transport.abort()
                elif end < 0.85:
                    client.transport.write(frame(0x88, (1_000).to_bytes(2)))
                    client.transport.close()
                else:
                    client.transport.close()
        await happens(lambda: all(client.gone for client in clients), "the end of all connections, here", _PATIENCE)
        await happens(lambda: self._connections() <= self._held, "the end of all connections, at the server", _PATIENCE)
        await asyncio.sleep(2 * IDLE_SECONDS)  # the documents leave memory, which cannot be seen from outside
        self.result.left.append(self._memory())
        self.result.connections += len(clients)
        self._say(
            f"wave {number + 1}: {len(clients)} connections in {time.monotonic() - began:.0f} s; "
            f"standing {self.result.standing[-1]:.1f} MiB, left {self.result.left[-1]:.1f} MiB"
        )

    def _script(self, number: int, chance: random.Random) -> tuple[bytes, bytes]:
        kind, documents = chance.random(), max(3, self._wave // _CLIENTS_OF_A_DOCUMENT)
        if kind < 0.6:
            first, then = _y(number, documents, chance)
        elif kind < 0.8:
            first, then = _hocuspocus(number, documents, chance)
        else:
            return chance.choice(_OTHERS), b""
        return first, then + chance.choice(_HALVES)

    def _connections(self) -> int:
        return sum(found.status == psutil.CONN_ESTABLISHED for found in self._process.net_connections("tcp4"))

    def _memory(self) -> float:
        return float(self._process.memory_info().rss) / (1 << 20)


def enough_files(connections: int) -> None:
    """Let this process have as many files as a wave has connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 200
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def server_in(directory: Path) -> ServerProcess:
    """Give a server for a soak, which is not running yet."""
    return ServerProcess(directory, *OPTIONS, environment={"COLLAB_JWT_SECRET": _SECRET})


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak", description=__doc__.splitlines()[0])
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--waves", type=int)
    parser.add_argument("--wave", type=int, default=500, help="connections of a wave")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, flush=True)

    enough_files(chosen.wave)
    with tempfile.TemporaryDirectory(prefix="collab-soak-") as directory, server_in(Path(directory)) as server:
        one = Soak(server, chosen.wave, chosen.seed, say)
        seconds = None if chosen.minutes is None else 60 * chosen.minutes
        try:
            asyncio.run(one.run(chosen.waves, seconds))
        except AssertionError as error:
            say("\n".join((f"the soak cannot go on: {error}", *getattr(error, "__notes__", ()), server.report())))
            return 1
    for fault in one.result.faults:
        say(f"fault: {fault}")
    say(str(one.result))
    return 1 if one.result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
