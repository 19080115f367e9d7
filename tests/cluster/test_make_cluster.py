"""``make cluster``: a whole cluster comes up behind one address, works, and goes without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.interop.agent import Agent, converge
from tests.interop.hocuspocus import HocuspocusAgent, until_saved
from tests.support.cluster import NODES, find_balancer
from tests.support.needs import demand
from tests.support.proxies import BALANCERS, ProxyFailed
from tests.support.snippets import ROOT
from tests.support.waiting import happens

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.valkey,
    pytest.mark.proxy,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]


class Made:
    """What ``make cluster`` runs, as a process."""

    def __init__(self, *arguments: str) -> None:
        for need in ("postgres", "valkey", "proxy", "server"):
            demand(need)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.cluster", "--no-open", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.lines.extend(iter(output.readline, ""))

    async def until(self, pattern: str) -> re.Match[str]:
        """Wait until a line is printed that the pattern finds."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        await happens(lambda: found() or self.process.poll() is not None, f"{pattern}", seconds=120)
        match = found()
        assert match is not None, "".join(self.lines)
        return match


@pytest.fixture(params=[*BALANCERS])
def made(request: pytest.FixtureRequest) -> Iterator[Made]:
    made = Made("--proxy", request.param)
    yield made
    if made.process.poll() is None:
        made.process.send_signal(signal.SIGTERM)
    made.process.wait(60)


def family(process: subprocess.Popen[str]) -> tuple[list[psutil.Process], set[Path]]:
    """Give the processes of a cluster, and the directories that they work in or that their command lines name."""
    processes, named = psutil.Process(process.pid).children(recursive=True), []
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            named += [each.cwd(), *each.cmdline()]
    return processes, {Path(found) for found in re.findall(r"/[\w/-]+/collab-[a-z]+-\w+", " ".join(named))}


async def gone(processes: list[psutil.Process], directories: set[Path]) -> None:
    assert not [each for each in directories if each.exists()]

    def running() -> list[psutil.Process]:
        return [each for each in processes if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    # The one that watches over the database, should this process be killed, looks once a second.
    await happens(lambda: not running(), "the end of every process")


@pytest.mark.node
async def test_two_nodes_edit_through_one_address_and_nothing_is_left(made: Made) -> None:
    url = (await made.until(r"collab cluster on (http://\S+), through"))[1]
    nodes = [match[1] for line in made.lines if (match := re.match(r"node \d +(http://\S+)", line))]
    assert len(nodes) == NODES
    async with Agent("yjs13") as plain, HocuspocusAgent() as hocuspocus, aiohttp.ClientSession() as http:
        async with http.get(f"{url}/split") as answer:
            assert answer.status == 200
        ws = url.replace("http", "ws", 1)
        clients = [await plain.open("ada", "3.1", f"{ws}/ws", "d")]
        await clients[0].until(synced=True)
        # The load balancer gives each of them to the node that has the fewest connections.
        for number in range(NODES):
            clients.append(await hocuspocus.open(f"bob {number}", "4", f"{ws}/hocuspocus", "d"))
            await until_saved(clients[-1])
        on = []
        for node in nodes:
            async with http.get(f"{node}/metrics") as answer:
                sessions = re.search(r"^collab_sessions (\d+)", await answer.text(), re.MULTILINE)
                assert sessions is not None
                on.append(int(float(sessions[1])))
        assert sum(on) == len(clients) and sum(map(bool, on)) >= 2, on
        for number, client in enumerate(clients):
            await client.edit("type", at=0, text=f"{number} ")
        await converge(clients)
    processes, directories = family(made.process)
    assert len(processes) > NODES and len(directories) >= 3 and all(each.is_dir() for each in directories)
    made.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(made.process.wait, 60) == 0
    await gone(processes, directories)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 5)


async def test_it_can_be_ended_while_it_starts() -> None:
    made = Made()
    child = psutil.Process(made.process.pid)

    def the_database_starts() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):  # the one that is asked has ended
            return any("postgres" in each.name() for each in child.children(recursive=True))
        return False

    await happens(the_database_starts, "the database")
    processes, directories = family(made.process)
    made.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(made.process.wait, 60) == 0
    assert directories
    await gone(processes, directories)
    assert "collab cluster on" not in "".join(made.lines)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_balancer() is BALANCERS["haproxy"] and find_balancer("nginx") is BALANCERS["nginx"]
    monkeypatch.setattr("shutil.which", lambda *arguments, **more: None)
    with pytest.raises(ProxyFailed, match="apt install nginx"):
        find_balancer("nginx")
