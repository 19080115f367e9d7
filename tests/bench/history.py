"""Figures of the history: a document of a million edits over 30 days by 50 people.

::

    python -m tests.bench.history --edits 1000000            # on SQLite, in a directory of its own
    python -m tests.bench.history --keep DIRECTORY           # the document is made once, and stays there
    python -m tests.bench.history --images                   # copies of a document that grows by images, as numbers

Prints what the timeline costs, how long it takes to open versions, how many bytes are stored, what it costs to find who
wrote what, and all of that over HTTP beside a room in which somebody types. CPU is that of this process. What is asked
beside the room comes from a process of its own with the lowest priority: it must not take the time of those who are
measured.

A machine with two cores has one memory and one cache for both. So the room is also measured beside a process that asks
nothing, and does what a sandbox process does for those who ask who wrote what: what that costs the room is the
machine's part.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import http.client
import itertools
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from collab.adapters import make_store
from collab.engine.document import Document
from collab.history.tasks import Show
from collab.hub.attributing import Attributing
from collab.hub.rebuilding import Rebuilding
from collab.hub.timeline import Timelines
from collab.hub.versions import CompactsInThread, Versions, Which
from collab.protocol.lib0 import encode_var_uint
from collab.sandbox.inline import InlineSandbox
from collab.sandbox.jobs import NICENESS, show_history
from collab.storage.checksums import seal_row, seal_snapshot
from collab.storage.records import Append, NewRow, Snapshot
from collab.storage.spacing import SPACING_ROWS, superfluous
from collab.storage.store import Store
from collab.update.compact import compact
from tests.support.server import ServerProcess
from tests.support.sqlite import migrated
from tests.support.wsclient import EMPTY_UPDATE, STEP1, STEP2, RawClient, step1, step2, update, varuint

DAYS, PEOPLE = 30, 50
WHEN = 1_760_000_000.0
BATCH = 500


def typed(client: int, clock: int, text: str) -> bytes:
    """Encode the v1 update of a client that types behind what it has typed before, in the root text ``text``."""
    head = b"\x01\x01" + encode_var_uint(client) + encode_var_uint(clock)
    behind = b"\x84" + encode_var_uint(client) + encode_var_uint(clock - 1) if clock else b"\x04\x01\x04text"
    data = text.encode()
    return head + behind + encode_var_uint(len(data)) + data + b"\x00"


def deleted(client: int, clock: int, length: int) -> bytes:
    """Encode the v1 update of somebody who deletes."""
    return b"\x00\x01" + encode_var_uint(client) + b"\x01" + encode_var_uint(clock) + encode_var_uint(length)


def edits(count: int, choose: random.Random) -> Iterator[NewRow]:
    """Give rows: on each day people come for a while, type letter by letter, some at once, and delete a tenth of it."""
    clocks = dict.fromkeys(range(1, PEOPLE + 1), 0)
    made = 0
    for day in range(DAYS):
        until = count * (day + 1) // DAYS
        while made < until:
            at = WHEN + 86_400 * day + choose.random() * 70_000
            there = choose.sample(sorted(clocks), choose.randint(1, 4))
            for _ in range(choose.randint(200, 1_500)):
                if made == until:
                    break
                at += choose.expovariate(5.0)
                client = choose.choice(there)
                if clocks[client] > 20 and choose.random() < 0.1:
                    data = deleted(client, choose.randrange(clocks[client] - 5), 3)
                else:
                    data = typed(client, clocks[client], "x")
                    clocks[client] += 1
                made += 1
                yield seal_row(data, at, f"user-{client}")


async def fill(store: Store, name: str, count: int) -> None:
    """Write the rows in the order of their times within a day, with snapshots as a server makes them."""
    document, rows, written, since = Document(), [], 0, 0
    document_id = None
    for row in edits(count, random.Random(1)):
        document.apply_update(row.data)
        rows.append(row)
        if len(rows) < BATCH and written + len(rows) < count:
            continue
        document.flush()
        await store.append([Append(name, document_id, tuple(rows))])
        document_id = document_id or (await store.describe(name)).document.id
        written, since = written + len(rows), since + len(rows)
        if since >= SPACING_ROWS:
            made, vector = compact(document.encode_state_as_update()), document.encode_state_vector()
            snapshot = Snapshot(written, made.data, made.index, vector, rows[-1].at)
            await store.write_snapshot(document_id, seal_snapshot(snapshot))
            document.rebase(made.data, made.index, vector)
            since = 0
        rows = []


class Timed(NamedTuple):
    """What some calls have taken: milliseconds of the clock, and of this process' CPU."""

    wall: list[float]
    cpu: list[float]

    def __str__(self) -> str:
        return ", ".join(
            f"{what} median {statistics.median(times):.1f} ms, most {max(times):.1f} ms"
            for what, times in (("time", self.wall), ("CPU", self.cpu))
        )


def _bytes_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


async def make(directory: Path, name: str, count: int) -> None:
    """Make the document."""
    store = make_store(migrated(directory))
    await store.open()
    began = time.process_time()
    await fill(store, name, count)
    print(f"{count} edits written in {time.process_time() - began:.0f} s of CPU")
    await store.close()


async def measure(directory: Path, count: int, keep: Path | None) -> None:
    """Make the document, or take a copy of the one that is kept, and print the figures."""
    name = "d"
    if keep is None:
        await make(directory, name, count)
    else:
        made = keep / f"history-{count}"
        if not made.exists():
            making = keep / f"{made.name}.new"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            await make(making, name, count)
            making.rename(made)
        shutil.copytree(made, directory, dirs_exist_ok=True)
    store = make_store(migrated(directory))
    await store.open()
    document_id = (await store.describe(name)).document.id
    size = _bytes_of(directory)
    summary = await store.describe(name)
    print(
        f"the database: {size / 1e6:.1f} MB, {size / count:.1f} bytes an edit; "
        f"the newest snapshot {summary.snapshot_bytes} bytes"
    )
    began, portions = time.process_time(), 0
    while (done := await store.summarise(document_id, now=WHEN + 1e9, spacing=600.0)) is not None and done.left:
        portions += 1
    spent = time.process_time() - began
    print(
        f"the timeline: {spent:.1f} s of CPU in {portions + 1} portions, {1e6 * spent / count:.2f} microseconds an edit"
    )
    entries, before = 0, None
    while (page := await store.timeline(document_id, before=before, limit=500)).entries:
        entries, before = entries + len(page.entries), page.entries[-1].first
    print(f"{entries} entries, {len(await store.versions(document_id, limit=5_000))} automatic versions")
    timelines, versions = Timelines(store), Versions(store, CompactsInThread())
    print("the first page of the timeline:", await repeat([lambda: timelines.page(name, limit=50)] * 20))
    choose = random.Random(2)
    numbers = [choose.randint(1, count) for _ in range(20)]
    numbers += [SPACING_ROWS * at - 1 for at in (1, count // SPACING_ROWS // 2, count // SPACING_ROWS) if at]
    opened = [lambda number=number: versions.state(name, Which(number=number)) for number in numbers]
    print("opening a number:", await repeat(opened))
    print("thinned:", await store.thin_snapshots(limit=1_000), "snapshots of", count // SPACING_ROWS)
    print("opening a number after that:", await repeat(opened))
    rebuilding = Rebuilding(store)
    # The newest snapshot may lack some thousand edits.
    whole = len(compact((await rebuilding.at(name, document_id, count)).encode_state_as_update()).data)
    began = time.process_time()
    kept = await Attributing(store, InlineSandbox(), rebuilding).bring_up(name, document_id, count)
    spent = time.process_time() - began
    assert kept is not None and kept.seq == count
    print(
        f"who wrote what: {spent:.1f} s of CPU, {1e6 * spent / count:.1f} microseconds an edit; kept in "
        f"{len(kept.data)} bytes, {100 * len(kept.data) / whole:.1f} percent of the document"
    )
    await store.close()
    await over_http(directory, name, numbers)


async def over_http(directory: Path, name: str, numbers: list[int]) -> None:
    """Ask a server for the same, and measure a room of another document meanwhile."""
    # What was written so long ago would be pruned by default.
    kept = ("--history-days", "3650")
    async with ServerProcess(directory, *kept) as server, aiohttp.ClientSession() as session:

        async def get(path: str) -> int:
            async with session.get(f"{server.url}/api/v1/{path}") as response:
                body = await response.read()
                assert response.status == 200, body
                return len(body)

        print("over HTTP, the first page of the timeline:", await repeat([lambda: get(f"timeline/{name}")] * 20))
        paths = [f"updates/{name}?number={number}" for number in numbers]
        print("over HTTP, a number as an update:", await repeat([lambda path=path: get(path) for path in paths]))
        print(
            f"over HTTP, who wrote what, {await get(f'attribution/{name}')} bytes:",
            await repeat([lambda: get(f"attribution/{name}")] * 10),
        )
        (directory / "kept").write_bytes(await _kept(directory, name))
        base = f"{server.url}/api/v1/"
        beside = {
            "the same work without the server": ("--work", str(directory / "kept")),
            "who wrote what": ("--ask", base, f"attribution/{name}"),
            "old states": ("--ask", base, *paths),
        }
        await beside_a_room(server, directory, beside)


async def _kept(directory: Path, name: str) -> bytes:
    """Read what is kept of who wrote what."""
    store = make_store(migrated(directory))
    try:
        await store.open()
        stored = await store.describe(name)
        kept = await store.attribution(stored.document.id)
        assert kept is not None
        return kept.data
    finally:
        await store.close()


async def beside_a_room(server: ServerProcess, directory: Path, asked: dict[str, tuple[str, ...]]) -> None:
    """Type in a room, alone and beside a process of each kind, in turn; print what the edits take.

    The turns are short and many, so whatever else happens on the machine meets all kinds alike.
    """
    took: dict[str, list[list[float]]] = {what: [] for what in ("alone", *asked)}
    askers: dict[str, Asker] = {}
    async with RawClient(server.document_url("room")) as client:
        await client.send(step1(), step2(EMPTY_UPDATE))
        await client.expect_sync(STEP1)
        strokes = Strokes(client)
        try:
            for what, arguments in asked.items():
                askers[what] = Asker(arguments, directory / f"asked-{len(askers)}")
            await strokes.time(_STROKES)  # everything is opened, and loaded
            gc.collect()
            gc.freeze()
            for _ in range(_ROUNDS):
                await asyncio.sleep(_PAUSE)
                took["alone"].append(await strokes.time(_STROKES))
                for what, asker in askers.items():
                    asker.go_on()
                    took[what].append(await strokes.time(_STROKES))
                    asker.pause()
                    await asyncio.sleep(_PAUSE)
        finally:
            calls = {what: asker.end() for what, asker in askers.items()}
    alone = took["alone"]
    print(f"an edit until it is answered, {_STROKES} of them {_ROUNDS} times, alone: {_parts(alone)}")
    for what, answered in calls.items():
        beside = took[what]
        print(
            f"beside {what}, {len(answered)} calls, median {statistics.median(answered):.0f} ms: {_parts(beside)}; "
            f"99 of 100 {_p99(sum(beside, [])) / _p99(sum(alone, [])):.2f} times, "
            f"in the middle round {_middle(beside) / _middle(alone):.2f} times"
        )


# Strokes of one turn, how many turns each kind has, and seconds between two strokes, and between two turns: what was
# asked last is answered then.
_STROKES = 200
_ROUNDS = 12
_BETWEEN = 0.005
_PAUSE = 0.3


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _middle(rounds: list[list[float]]) -> float:
    """Give the p99 of the round in the middle: what disturbs all only now and then has no part in it."""
    return statistics.median(map(_p99, rounds))


def _parts(rounds: list[list[float]]) -> str:
    times = sum(rounds, [])
    return (
        f"half within {statistics.median(times):.2f} ms, 99 of 100 within {_p99(times):.2f} ms, "
        f"in the middle round {_middle(rounds):.2f} ms"
    )


class Strokes:
    """Somebody who types in a room, letter by letter."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._clock = 0

    async def time(self, count: int) -> list[float]:
        """Type so many letters; give the time in ms until each is answered."""
        times = []
        for _ in range(count):
            data = typed(_TYPIST, self._clock, "x")
            self._clock += 1
            vector = b"\x01" + varuint(_TYPIST) + varuint(self._clock)
            seen = len(self._client.frames)
            began = time.perf_counter()
            # Messages are handled in order: the answer says that the letter is there.
            await self._client.send(update(data), step1(vector))
            await self._client.expect_sync(STEP2, after=seen)
            times.append(1e3 * (time.perf_counter() - began))
            await asyncio.sleep(_BETWEEN)
        return times


_TYPIST = 77


class Asker:
    """A process that does one call after the other, without a pause, while it goes on; it is paused after the first.

    Args:
        arguments: what it does, as options of this program.
        said: a file for what each call took.
    """

    def __init__(self, arguments: Sequence[str], said: Path) -> None:
        self._said = said
        command = [sys.executable, "-m", "tests.bench.history", *arguments]
        with said.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output)
        while not said.read_bytes().endswith(b"\n"):
            assert self._process.poll() is None
            time.sleep(0.1)
        self.pause()

    def pause(self) -> None:
        """Ask nothing more for now."""
        assert self._process.poll() is None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ask."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> list[float]:
        """End the process; give what its calls took, in ms, but for the first one and those that were paused."""
        self._process.kill()
        self._process.wait()
        return [float(line) for line in self._said.read_bytes().split(b"\n")[:-1]][1:]


def give_way() -> None:
    """Give this process the lowest priority that there is."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def ask(address: str, paths: Sequence[str]) -> None:
    """Ask one after the other until this process is ended; print what each call took, in ms, that was not paused.

    It takes compressed answers, as browsers and the Python client do.
    """
    give_way()
    split = urlsplit(address)
    connection = http.client.HTTPConnection(split.netloc)

    def get(path: str) -> None:
        connection.request("GET", split.path + path, headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body

    _do_forever(partial(get, path) for path in itertools.cycle(paths))


def work(kept: Path) -> None:
    """Say who wrote what, as a sandbox process does, until this process is ended; print as ``ask`` does."""
    os.nice(NICENESS)
    task = Show(kept.read_bytes())
    _do_forever(itertools.repeat(partial(show_history, task)))


def _do_forever(calls: Iterable[Callable[[], object]]) -> None:
    paused: list[int] = []
    signal.signal(signal.SIGCONT, lambda number, frame: paused.append(number))
    for call in calls:
        began = time.perf_counter()
        call()
        if not paused:
            print(1e3 * (time.perf_counter() - began), flush=True)
        paused.clear()


async def repeat(calls: list) -> Timed:  # type: ignore[type-arg]
    """Call one after the other."""
    timed = Timed([], [])
    for call in calls:
        wall, cpu = time.perf_counter(), time.process_time()
        await call()
        timed.wall.append(1e3 * (time.perf_counter() - wall))
        timed.cpu.append(1e3 * (time.process_time() - cpu))
    return timed


def images(days: int = DAYS, total: int = 100_000_000, idle_a_day: int = 6, ratio: float = 0.5) -> None:
    """Print how many copies there are of a document to which images are added, a part of them each day."""
    seq, size, tail = 0, 0, 0
    snapshots: list[tuple[int, int]] = []
    at: dict[int, int] = {0: 0}
    for day in range(1, days + 1):
        for _ in range(idle_a_day):
            grown = total // days // idle_a_day
            seq, size, tail = seq + 500, size + grown, tail + grown
            at[seq] = size
            # A visit ends: the document leaves memory, with a snapshot if that is worth it.
            if tail >= 0.1 * ratio * (snapshots[-1][1] if snapshots else 0):
                snapshots.append((seq, size))
                tail = 0
        if day in (7, days):
            gone = set(superfluous(snapshots, lambda after, last: at[last] - at[after]))
            kept = [nbytes for number, nbytes in snapshots if number not in gone]
            before, after = sum(nbytes for _, nbytes in snapshots) / 1e6, sum(kept) / 1e6
            print(f"after {day} days: {size / 1e6:.0f} MB of images; {len(snapshots)} snapshots of {before:.0f} MB, ")
            print(f"    of which {len(kept)} of {after:.0f} MB stay")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=1_000_000)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--ask", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        ask(given.ask[0], given.ask[1:])
    elif given.work:
        work(given.work)
    elif given.images:
        images()
    else:
        with tempfile.TemporaryDirectory() as place:
            asyncio.run(measure(Path(place), given.edits, given.keep))
