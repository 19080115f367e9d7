"""Count the files, and the changes of file, on the way of one message through the server.

Strategy: the whole application runs in this process on loopback with SQLite, as ``create_app`` gives it, and a client
that is written by hand beside it talks to it. Between the sending and the last effect ``sys.setprofile`` notes, on
the thread of the event loop, each function of ``collab/`` that is called. A change is a call of a function whose file
is another one than that of the call before. Each way is walked some times before it is counted, so that nothing is
done for the first time, and then again until two countings agree.

    python -m tests.support.path [--calls WHAT]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import uvloop
from aiohttp import web

import collab
from collab.app import create_app
from collab.settings import Settings
from tests.support import hocuspocus, wsclient
from tests.support.author import Author
from tests.support.hocuspocus import RawHocuspocus
from tests.support.wsclient import EMPTY_UPDATE, STEP1, STEP2, RawClient

PACKAGE = str(Path(collab.__file__).parent) + "/"

# Between two calls of what belongs to one message there is less.
_QUIET_SECONDS = 0.15

# What the server does by itself, whatever is sent, runs in this.
_BY_ITSELF = "Tasks._run_again"
_WARM_UPS = 3
_TRIES = 20

Call = tuple[str, str]
"""The file, below ``collab/``, and the name of a function that was called."""

Walk = Callable[[], Awaitable[list[Call]]]


def _is_by_itself(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_qualname == _BY_ITSELF:
            return True
        frame = frame.f_back
    return False


class Recorder:
    """Notes the calls into the package while it is on."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            file = frame.f_code.co_filename
            if file.startswith(PACKAGE) and not _is_by_itself(frame):
                self.calls.append((file[len(PACKAGE) :], frame.f_code.co_qualname))

    @contextmanager
    def on(self) -> Iterator[list[Call]]:
        self.calls = []
        sys.setprofile(self._note)
        try:
            yield self.calls
        finally:
            sys.setprofile(None)

    async def quiet(self) -> None:
        """Wait until nothing is called any more."""
        seen = -1
        while seen != len(self.calls):
            seen = len(self.calls)
            await asyncio.sleep(_QUIET_SECONDS)


def changes(calls: list[Call]) -> int:
    """Count the calls whose file is another one than that of the call before."""
    return sum(one[0] != other[0] for one, other in zip(calls, calls[1:], strict=False))


class Stage:
    """A server, and the ways to walk through it; each uses a document and clients of its own."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http
        self._ws = url.replace("http", "ws", 1)
        self._recorder = Recorder()
        self._number = 0

    def ways(self) -> dict[str, Walk]:
        return {
            "y-websocket join": self.join,
            "Hocuspocus join": self.hocuspocus_join,
            "edit, y-websocket": self.edit,
            "edit, Hocuspocus": self.hocuspocus_edit,
            "presence change, y-websocket": self.presence,
            "presence change, Hocuspocus": self.hocuspocus_presence,
            "HTTP read of a document": self.read,
        }

    async def _document(self) -> tuple[str, RawClient]:
        """Make a document that one y-websocket client has written and stays in, with an awareness state."""
        self._number += 1
        name = f"document {self._number}"
        client = await RawClient(f"{self._ws}/ws/{name}").connect()
        await client.send(wsclient.step1())
        await client.expect_sync(STEP2)
        await client.send(wsclient.step2(Author(1).type("made")))
        await client.send(wsclient.awareness((1, 1, '{"user":"Ada"}')))
        await self._recorder.quiet()
        return name, client

    async def join(self) -> list[Call]:
        """Connect, sync both ways."""
        name, other = await self._document()
        client = RawClient(f"{self._ws}/ws/{name}")
        await asyncio.sleep(_QUIET_SECONDS)
        with self._recorder.on() as calls:
            await client.connect()
            await client.send(wsclient.step1())
            await client.expect_sync(STEP1)
            await client.expect_sync(STEP2)
            await client.send(wsclient.step2(EMPTY_UPDATE))
            await self._recorder.quiet()
        await self._end(client, other)
        return calls

    async def hocuspocus_join(self) -> list[Call]:
        """Connect, show a token, sync both ways, until the client's SyncStep2 is acknowledged."""
        name, other = await self._document()
        client = RawHocuspocus(f"{self._ws}/hocuspocus")
        await asyncio.sleep(_QUIET_SECONDS)
        with self._recorder.on() as calls:
            await client.connect()
            await client.join(name)
            await client.find_sync(name, STEP1)
            await client.send(hocuspocus.step2(name, EMPTY_UPDATE))
            await client.statuses(name, 1)
            await self._recorder.quiet()
        await self._end(client, other)
        return calls

    async def _joined(self, name: str) -> RawHocuspocus:
        client = RawHocuspocus(f"{self._ws}/hocuspocus")
        await client.connect()
        await client.join(name)
        await client.send(hocuspocus.step2(name, EMPTY_UPDATE))
        await client.statuses(name, 1)
        await asyncio.sleep(_QUIET_SECONDS)
        return client

    async def edit(self) -> list[Call]:
        """Send an update; the echo, the other client's frame, the commit."""
        name, client = await self._document()
        reader = await RawClient(f"{self._ws}/ws/{name}").connect()
        await asyncio.sleep(_QUIET_SECONDS)
        data = Author(2).type("edited")
        with self._recorder.on() as calls:
            await client.send(wsclient.update(data))
            for one in (client, reader):
                await one.until(lambda one=one: any(data in frame for frame in one.frames), "the edit")  # type: ignore[misc]
            await self._recorder.quiet()
        await self._end(client, reader)
        return calls

    async def hocuspocus_edit(self) -> list[Call]:
        """Send an update; the other client's frame, the commit, the acknowledgement."""
        name, reader = await self._document()
        client = await self._joined(name)
        data = Author(2).type("edited")
        with self._recorder.on() as calls:
            await client.send(hocuspocus.update(name, data))
            await reader.until(lambda: any(data in frame for frame in reader.frames), "the edit")
            await client.statuses(name, 2)
            await self._recorder.quiet()
        await self._end(client, reader)
        return calls

    async def presence(self) -> list[Call]:
        """Send an awareness state; the other client's frame."""
        name, client = await self._document()
        reader = await RawClient(f"{self._ws}/ws/{name}").connect()
        await asyncio.sleep(_QUIET_SECONDS)
        with self._recorder.on() as calls:
            await client.send(wsclient.awareness((1, 2, '{"user":"Grace"}')))
            await reader.until(lambda: any(b"Grace" in frame for frame in reader.frames), "the state")
            await self._recorder.quiet()
        await self._end(client, reader)
        return calls

    async def hocuspocus_presence(self) -> list[Call]:
        """Send an awareness state; the other client's frame."""
        name, reader = await self._document()
        client = await self._joined(name)
        with self._recorder.on() as calls:
            await client.send(hocuspocus.awareness(name, (2, 1, '{"user":"Grace"}')))
            await reader.until(lambda: any(b"Grace" in frame for frame in reader.frames), "the state")
            await self._recorder.quiet()
        await self._end(client, reader)
        return calls

    async def read(self) -> list[Call]:
        """Ask for a document over HTTP."""
        name, client = await self._document()
        with self._recorder.on() as calls:
            async with self._http.get(f"{self._url}/api/v1/documents/{name}") as response:
                assert response.status == 200, await response.text()
                assert (await response.json())["name"] == name
            await self._recorder.quiet()
        await self._end(client)
        return calls

    async def _end(self, *clients: RawClient) -> None:
        for client in clients:
            await client.close()
        await self._recorder.quiet()


async def measure(walk: Walk) -> list[Call]:
    """Walk until two walks agree, which says that nothing else came in between; return the calls of the second."""
    for _ in range(_WARM_UPS):
        await walk()
    seen: list[list[Call]] = []
    for _ in range(_TRIES):
        calls = await walk()
        if calls in seen:
            return calls
        seen.append(calls)
    raise AssertionError("no two walks were the same")


@asynccontextmanager
async def running() -> AsyncIterator[Stage]:
    """Run the application on a free port of loopback, its data in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="collab-path-") as folder:
        runner = web.AppRunner(create_app(Settings(data_dir=Path(folder))), access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            async with aiohttp.ClientSession() as http:
                yield Stage(f"http://127.0.0.1:{port}", http)
        finally:
            await runner.cleanup()


async def run(shown: str | None) -> None:
    """Print the figures of every way, and the calls of the one that is ``shown``."""
    print(f"{'':30s} files  changes  calls")
    async with running() as stage:
        for name, walk in stage.ways().items():
            calls = await measure(walk)
            print(f"{name:30s} {len({file for file, _ in calls}):5d} {changes(calls):8d} {len(calls):6d}", flush=True)
            if name == shown:
                previous = ""
                for file, function in calls:
                    print(f"    {file if file != previous else '':36s} {function}")
                    previous = file


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.path", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", metavar="WHAT", help="show each call of this way, too")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(options.calls))


if __name__ == "__main__":
    main()
