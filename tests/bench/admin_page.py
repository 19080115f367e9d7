"""Figures of the admin page under load: what it holds after minutes of an update each second, and what that costs.

::

    python -m tests.bench.admin_page                           # 500 connections, 2,000 documents, ten minutes
    python -m tests.bench.admin_page --minutes 2 --connections 100 --documents 400

A server of its own has all documents open, and some people type in them. Each view is a page in Chromium for the whole
time. Heap and DOM are read after a collection of the garbage. Exit code 1: a page has grown, or has logged an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from playwright.async_api import Browser, CDPSession, Page, Request, async_playwright

from tests.bench.history import typed
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus
from tests.support.server import ServerProcess
from tests.support.wsclient import EMPTY_UPDATE

VIEWS = {
    "overview": "view=overview",
    "documents": "view=documents",
    "connections": "view=connections",
    "inspect": "doc=bench/0",
}

# A page may hold so much more at the end than a tenth of the time after its start, as tables have more rows by then.
MORE_HEAP, MORE_NODES = 2_000_000, 500

NOT_OFFERED = re.compile("status of (404|422)")

# People who connect at a time, and who type in each second.
AT_ONCE, TYPING = 20, 25


class Held(NamedTuple):
    """What a page holds: bytes of the heap, and numbers of nodes and listeners."""

    heap: int
    nodes: int
    listeners: int


class Person:
    """A Hocuspocus socket with some documents open, in which it types behind what it has typed."""

    def __init__(self, url: str, number: int, documents: list[str]) -> None:
        self.socket = RawHocuspocus(url)
        self._number = number
        self._documents = documents
        self._clocks = dict.fromkeys(documents, 0)

    async def come(self) -> None:
        await self.socket.connect()
        for name in self._documents:
            await self.socket.join(name)
            # The server asks back what it lacks, and ends those who do not answer.
            await self.socket.send(hocuspocus.step2(name, EMPTY_UPDATE))
            await self.type(name)
        state = f'{{"user": {{"name": "Person {self._number}", "color": "#30bced"}}}}'
        await self.socket.send(hocuspocus.awareness(self._documents[0], (self._number + 1, 1, state)))

    async def type(self, name: str | None = None) -> None:
        name = name or random.choice(self._documents)
        text = random.choice(("a few words ", "x", "and more of them, "))
        update = typed(self._number + 1, self._clocks[name], text)
        self._clocks[name] += len(text)
        await self.socket.send(hocuspocus.update(name, update))
        self.socket.frames.clear()


class Watched:
    """A page, and what it has asked and logged."""

    def __init__(self, name: str, page: Page, devtools: CDPSession) -> None:
        self.name = name
        self.page = page
        self.errors: list[str] = []
        self.times: list[float] = []
        self._devtools = devtools
        page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("requestfinished", self._answered)

    @classmethod
    async def open(cls, browser: Browser, url: str, name: str) -> Watched:
        context = await browser.new_context(viewport={"width": 1440, "height": 900})
        page = await context.new_page()
        watched = cls(name, page, await context.new_cdp_session(page))
        await page.goto(f"{url}/admin?{VIEWS[name]}")
        return watched

    def _answered(self, request: Request) -> None:
        if "/api/v1/" in request.url and request.timing["responseEnd"] >= 0:
            self.times.append(request.timing["responseEnd"])

    async def held(self) -> Held:
        await self._devtools.send("HeapProfiler.collectGarbage")
        counters = await self._devtools.send("Memory.getDOMCounters")
        heap = await self._devtools.send("Runtime.getHeapUsage")
        return Held(int(heap["usedSize"]), counters["nodes"], counters["jsEventListeners"])


async def fill(url: str, connections: int, documents: int) -> list[Person]:
    """Open all documents, each by one of the people at least."""
    names = [f"bench/{number}" for number in range(documents)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def come(number: int) -> Person:
        # All of them are on the first document, which is the one that is inspected, in a tenth of the cases.
        own = names[number::connections] or [names[number % documents]]
        person = Person(url, number, [*own, names[0]] if number % 10 == 1 and names[0] not in own else own)
        async with gate:
            await person.come()
        return person

    return list(await asyncio.gather(*map(come, range(connections))))


async def live(people: list[Person]) -> None:
    """Type, until it is cancelled; what comes is not kept."""
    while True:
        began = time.monotonic()
        for person in random.sample(people, min(TYPING, len(people))):
            await person.type()
        await people[0].type("bench/0")
        for person in people:
            person.socket.frames.clear()
        await asyncio.sleep(max(0.0, 1 - (time.monotonic() - began)))


def show(seconds: float, watched: Watched, held: Held) -> None:
    print(
        f"{seconds:6.0f} s  {watched.name:<12} heap {held.heap / 1e6:6.2f} MB  nodes {held.nodes:6}  "
        f"listeners {held.listeners:5}  answers {len(watched.times):6}",
        flush=True,
    )


async def measure(server: ServerProcess, connections: int, documents: int, minutes: float) -> bool:
    """Play the load, print what pages hold, and give whether none has grown."""
    people = await fill(server.hocuspocus_url, connections, documents)
    print(f"{connections} connections, {documents} documents", flush=True)
    typing = asyncio.create_task(live(people))
    process = psutil.Process(server.pid)
    binary = next(path for name in CHROMIUM if (path := shutil.which(name)))
    good = True
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=binary, args=list(ARGUMENTS))
        pages = [await Watched.open(browser, server.url, name) for name in VIEWS]
        began, cpu = time.monotonic(), sum(process.cpu_times()[:2])
        length = minutes * 60
        first: dict[str, Held] = {}
        for tenth in range(1, 11):
            await asyncio.sleep(max(0.0, began + length * tenth / 10 - time.monotonic()))
            for watched in pages:
                held = await watched.held()
                show(time.monotonic() - began, watched, held)
                before = first.setdefault(watched.name, held)
                if tenth == 10 and (held.heap > before.heap + MORE_HEAP or held.nodes > before.nodes + MORE_NODES):
                    print(f"{watched.name} has grown: {before} to {held}")
                    good = False
        spent = (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - began)
        print(f"the server took {spent:.2f} of a core, and has {process.memory_info().rss / 1e6:.0f} MB")
        for watched in pages:
            times = sorted(watched.times)
            median = statistics.median(times) if times else 0.0
            late = times[int(len(times) * 0.99)] if times else 0.0
            print(
                f"{watched.name:<12} {len(times)} answers, half of them within {median:.0f} ms, 99 % in {late:.0f} ms"
            )
            # A server without some tab says so once, which the browser logs.
            errors = [
                error for error in watched.errors if "status of 404" not in error and "status of 422" not in error
            ]
            if errors:
                print(f"{watched.name} has logged {len(errors)} errors, such as {errors[:3]}")
                good = False
        await browser.close()
    lost = [person.socket.close_reason for person in people if not person.socket.open]
    if lost:
        print(f"{len(lost)} connections were lost: {sorted(set(map(str, lost)))}")
        good = False
    typing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await typing
    await asyncio.gather(*(person.socket.close() for person in people))
    return good


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=10.0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory)) as server:
        good = asyncio.run(measure(server, chosen.connections, chosen.documents, chosen.minutes))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
