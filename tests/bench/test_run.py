"""Short runs over real sockets: against this server, and against one that loses or forgets."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from collab.bench.connection import Target, connect
from collab.bench.ledger import Ledger
from collab.bench.process import ServerProcess as Measured
from collab.bench.run import Bench
from collab.bench.scenarios import SCENARIOS, run_scenario
from collab.bench.sink import Room, Sink
from collab.bench.wire import YWebsocketWire
from collab.errors import ConfigurationError, ProtocolError
from tests.support.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bench")) as process:
        yield process


def bench(server: ServerProcess, **options: Any) -> Bench:
    target = Target(server.ws_url, YWebsocketWire())
    return Bench(target, Measured(server.pid), 0.5, url=server.ws_url, **options)


# Every scenario, in a size that takes about a second.
SMALL: dict[str, dict[str, float]] = {
    "one-writer": {"readers": 10},
    "everybody": {"clients": 10},
    "many-rooms": {"rooms": 10, "rate": 5},
    "presence": {"clients": 10},
    "load": {"clients": 5, "first": 4, "last": 8},
    "idle": {"connections": 60, "room_size": 20},
    "cold-join": {"edits": 2_000, "clients": 5},
    "big-join": {"megabytes": 1.0, "clients": 10},
    "many-ids": {"ids": 100, "edits": 2_000},
    "asked": {"asked": 40, "seconds": 1.0, "clients": 3},
}


@pytest.mark.parametrize("name", SMALL)
async def test_this_server_passes(server: ServerProcess, name: str) -> None:
    figures = await run_scenario(name, bench(server), SMALL[name])
    assert figures["right"], figures
    assert figures.get("error") is None
    for key in ("sent", "delivered", "server_cpu_s", "connects_per_s", "first_ms", "p99_ms", "bytes", "edit_cpu_us"):
        if key in figures:
            assert figures[key] > 0, key
    if "expected" in figures:
        assert figures["delivered"] + figures.get("superseded", 0) == figures["expected"]


def test_only_the_searches_and_what_needs_a_bound_are_not_in_these_tests() -> None:
    assert set(SCENARIOS) - set(SMALL) == {"max-one-room", "max-many-rooms", "flood", "costly", "silent"}


@asynccontextmanager
async def bounded(folder: Path, flood_seconds: float) -> AsyncIterator[Bench]:
    """Give a server that takes 20 messages a second of one connection, ten seconds' worth at once."""
    options = ("--max-messages-per-second", "20", "--flood-seconds", str(flood_seconds))
    key = OctKey.import_key("a secret of the tests, long enough for HS256")
    claims = {"documents": {"*": "write"}, "exp": int(time.time()) + 3_600}
    tokens = [jwt.encode({"alg": "HS256"}, {"sub": f"u-{n}", **claims}, key) for n in range(5)]
    environment = {"COLLAB_JWT_SECRET": "a secret of the tests, long enough for HS256"}
    async with ServerProcess(folder, *options, environment=environment) as server:
        target = Target(server.ws_url, YWebsocketWire(), cycle(tokens))
        yield Bench(target, Measured(server.pid), 1.0, url=server.ws_url)


FLOOD: dict[str, float] = {"clients": 4, "rate": 10, "limit": 20, "times": 50}


@pytest.mark.server
async def test_a_flood_is_taken_as_far_as_it_is_allowed_and_harms_nobody(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with bounded(tmp_path, 0) as run:
        began = loop.time()
        figures = await run_scenario("flood", run, FLOOD)
        took = loop.time() - began
    assert figures["right"] and figures["lost"] == 0 and figures["documents_equal"] == 1, figures
    assert figures["sent"] == 2 * 4 * 10
    assert figures["calm_p99_ms"] > 0 and figures["flood_p99_ms"] > 0
    assert figures["flood_ratio"] == figures["flood_p99_ms"] / figures["calm_p99_ms"]
    # What came within one look at the clock is counted behind it.
    assert 0 < figures["flood_taken"] <= 200 + 20 * took + 32
    assert figures["flood_sent"] > figures["flood_taken"]
    assert figures["flood_ended"] is None


@pytest.mark.server
async def test_a_flood_that_is_closed_is_no_failure(tmp_path: Path) -> None:
    async with bounded(tmp_path, 0.1) as run:
        run.seconds = 4.0  # within which it has to be held back twice
        figures = await run_scenario("flood", run, {**FLOOD, "times": 500})
    assert figures["right"], figures
    assert "1013 you send too many messages" in figures["flood_ended"]


async def test_one_writer_is_counted_at_every_reader_and_at_itself(server: ServerProcess) -> None:
    figures = await run_scenario("one-writer", bench(server), {"readers": 4, "rate": 40})
    assert figures["sent"] == 20
    assert figures["delivered"] == 100
    assert figures["documents_equal"] == 1
    assert figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"] <= figures["max_ms"]


@pytest.mark.server
async def test_a_cold_join_restarts_the_server(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as own:

        async def restart() -> tuple[Target, Measured]:
            await own.aterminate()
            await own.astart()
            return Target(own.ws_url, YWebsocketWire()), Measured(own.pid)

        figures = await run_scenario("cold-join", bench(own, restart=restart), {"edits": 3_000, "clients": 5})
        assert own.starts == 3
    assert figures["right"] and figures["cold"]


async def test_the_command_restarts_a_server_as_it_is_told(server: ServerProcess, tmp_path: Path) -> None:
    mark = tmp_path / "restarted"
    run = await command(
        "--url",
        server.ws_url,
        "--scenario",
        "cold-join",
        "--size",
        "edits=500",
        "--size",
        "clients=2",
        "--restart-command",
        f"echo again >> {mark}",
        "--json",
    )
    out, err = await run.communicate()
    assert run.returncode == 0, err
    assert json.loads(out)["cold"] is True
    assert mark.read_text() == "again\nagain\n"


class Lossy(Room):
    """Loses every tenth frame."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def add(self, piece: bytes) -> None:
        self.seen += 1
        if self.seen % 10:
            super().add(piece)


class Doubling(Room):
    """Sends everything twice."""

    def add(self, piece: bytes) -> None:
        super().add(piece)
        super().add(piece)


class Quitting(Room):
    """Closes everybody's socket at the fifth frame."""

    def add(self, piece: bytes) -> None:
        super().add(piece)
        if len(self.gathered) == 5:
            self.gathered.append(b"\x88\x06" + (1012).to_bytes(2) + b"bye!")


@asynccontextmanager
async def sink(room: type[Room]) -> AsyncIterator[Bench]:
    rooms: defaultdict[bytes, Room] = defaultdict(room)
    listening = await asyncio.get_running_loop().create_server(lambda: Sink(rooms), "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        yield Bench(Target(url, YWebsocketWire()), None, 0.5, verify=False, url=url)


@pytest.mark.slow
async def test_a_sink_that_fans_out_is_right() -> None:
    async with sink(Room) as run:
        figures = await run_scenario("everybody", run, {"clients": 5, "rate": 20})
    assert figures["right"] and figures["lost"] == 0
    assert figures["delivered"] == figures["sent"] * 5 == 250


@pytest.mark.slow
async def test_a_document_that_is_not_what_was_typed_is_wrong() -> None:
    async with sink(Room) as run:
        run.verify = True
        figures = await run_scenario("everybody", run, {"clients": 5, "rate": 20})
    assert figures["lost"] == 0 and figures["documents_equal"] == 0
    assert not figures["right"]


@pytest.mark.slow
async def test_lost_updates_are_noticed() -> None:
    async with sink(Lossy) as run:
        figures = await run_scenario("one-writer", run, {"readers": 3, "rate": 90})
    # The last that was lost has others behind it: seen as a gap, not as an end that never came.
    assert figures["sent"] == 45
    assert figures["delivered"] == 41 * 4
    assert figures["lost"] == 4 * 4
    assert not figures["right"]


@pytest.mark.slow
async def test_repeated_updates_are_delivered_once() -> None:
    async with sink(Doubling) as run:
        figures = await run_scenario("everybody", run, {"clients": 4, "rate": 20})
    assert figures["delivered"] == figures["sent"] * 4
    assert figures["right"]


@pytest.mark.slow
async def test_a_server_that_closes_is_wrong_and_says_why() -> None:
    async with sink(Quitting) as run:
        run.rng.seed(1)
        figures = await run_scenario("one-writer", run, {"readers": 3, "rate": 2_000})
    assert not figures["right"]
    assert "1012 bye!" in figures["error"]


async def test_nobody_listening_is_an_error_and_no_hang() -> None:
    listening = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    silent = Target(f"ws://127.0.0.1:{port}", YWebsocketWire())
    with pytest.raises(TimeoutError, match="no first sync"):
        await connect(silent, "d", Ledger(), within=0.2)
    listening.close()
    await listening.wait_closed()
    with pytest.raises((OSError, ProtocolError)):
        await connect(silent, "d", Ledger(), within=5)


async def test_unknown_scenarios_and_sizes_are_named_with_the_known_ones(server: ServerProcess) -> None:
    with pytest.raises(ConfigurationError, match="everybody"):
        await run_scenario("nothing", bench(server))
    with pytest.raises(ConfigurationError, match="clients, rate"):
        await run_scenario("everybody", bench(server), {"people": 3})


async def command(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "collab.bench",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_command_prints_json_for_machines(server: ServerProcess) -> None:
    run = await command(
        "--url",
        server.ws_url,
        "--scenario",
        "everybody",
        "--scenario",
        "presence",
        "--seconds",
        "0.5",
        "--size",
        "clients=4",
        "--server-pid",
        str(server.pid),
        "--json",
    )
    out, err = await run.communicate()
    assert run.returncode == 0, err
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["scenario"], second["scenario"]) == ("everybody", "presence")
    assert first["right"] and second["right"]
    assert first["server_cpu_s"] > 0


async def test_the_command_prints_a_table_for_people(server: ServerProcess) -> None:
    run = await command("--url", server.ws_url, "--seconds", "0.5", "--size", "clients=4")
    out, err = await run.communicate()
    assert run.returncode == 0, err
    assert "latency p99, ms" in out.decode() and "documents that hold exactly" in out.decode()


async def test_what_is_wrong_with_the_command_line_is_one_line() -> None:
    run = await command("--url", "ws://127.0.0.1:9", "--scenario", "nothing")
    _, err = await run.communicate()
    assert run.returncode == 1
    assert err.decode().startswith("collab bench: no scenario 'nothing'")
    assert err.count(b"\n") == 1


async def test_an_interrupt_ends_the_command_cleanly() -> None:
    typing = asyncio.Event()

    class Watched(Room):
        def add(self, piece: bytes) -> None:
            super().add(piece)
            typing.set()

    async with sink(Watched) as target:
        run = await command("--url", target.url, "--seconds", "60", "--size", "clients=3")
        await asyncio.wait_for(typing.wait(), 30)
        run.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(run.communicate(), 20)
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert b"interrupted" in err


@pytest.mark.server
async def test_costly_updates_are_taken_and_harm_nobody(tmp_path: Path) -> None:
    async with bounded(tmp_path, 0) as run:
        figures = await run_scenario("costly", run, {"clients": 4, "rate": 10, "others": 2, "limit": 10})
    assert figures["right"] and figures["lost"] == 0 and figures["documents_equal"] == 1, figures
    assert figures["sent"] == 2 * 4 * 10
    assert figures["costly_ratio"] == figures["costly_p99_ms"] / figures["calm_p99_ms"]
    assert 0 < figures["costly_sent"] <= 10 and figures["costly_ended"] is None


@pytest.mark.server
async def test_readers_who_read_nothing_cost_no_copy_of_the_document_each(tmp_path: Path) -> None:
    """Issue 11: 12.4 MiB for each silent reader of a document of 11 MiB."""
    async with bounded(tmp_path, 0) as run:
        figures = await run_scenario("silent", run, {"readers": 30, "megabytes": 6.0, "clients": 3})
    assert figures["right"] and figures["lost"] == 0 and figures["readers"] == 30, figures
    assert figures["memory_kib"] < 1_500, "of some 5,800 that one of them asks for"
