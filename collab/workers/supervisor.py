"""The parent of the workers: starts them, replaces one that dies, and ends all of them together.

Strategy: until all workers serve, the end of any of them ends the whole: a wrong option or a database that is away is
told at once, with one line and not with one for each worker, because the first one starts alone. From then on a place
is never given up. A worker that dies is replaced at once; one that dies young is replaced after a pause that grows.

A signal to stop is passed on, to all at the same time, so the drain of the whole takes as long as that of one server.
Workers lead sessions of their own: Ctrl-C at a terminal would reach them twice, and the second time means haste.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from collab.errors import ConfigurationError
from collab.settings import Settings
from collab.storage.urls import parse_database_url
from collab.systemd import Notifier
from collab.telemetry import complain, get_logger
from collab.transports.guard.listening import announce, can_share, reserve
from collab.workers import BEAT_SECONDS, LISTEN

_log = get_logger()

OLD_SECONDS: Final = 10.0
"""A worker that has listened for so long is replaced at once; one that dies younger, after a pause."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds before a worker that has died young is replaced, the first time and at most; doubled each time."""

SILENT_BEATS: Final = 12
"""Beats that may be missing before a worker counts as hung and is killed. Nothing that it does takes a minute."""

_LATE_SECONDS: Final = 10.0
"""Seconds beyond ``drain_seconds`` until a worker that does not stop is killed."""


class Place:
    """One place among the workers.

    Attributes:
        number: from 1.
        process: the worker that has it now.
        started: one has started there, at some time.
        ready: the one that is there now waits to be told to listen.
        listening: since when the one that is there now listens, by the loop; None while it does not.
        served: one has listened there, at some time.
        missed: beats that are missing.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: asyncio.subprocess.Process | None = None
        self.started = self.ready = self.served = False
        self.listening: float | None = None
        self.missed = 0
        self.addresses: list[str] = []
        self.metrics: str | None = None

    def tell(self, line: bytes) -> None:
        """Write a line to the worker, if it is still there; what it has said may be read when it has died."""
        if self.process is not None and self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(line)

    def signal(self, number: int) -> None:
        """Send a signal to the worker, if there is one."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)


def check_workers(settings: Settings) -> None:
    """Check that several workers can serve here.

    Raises:
        ConfigurationError: they cannot; the line says what to do.
    """
    if parse_database_url(settings.database_url, settings.data_dir).backend != "postgresql":
        raise ConfigurationError(
            f"--workers {settings.workers} needs PostgreSQL: each worker is a server of its own, and a SQLite file "
            "belongs to one server. Set --database-url postgresql://user:password@host/database, or leave --workers out"
        )
    if not can_share():
        raise ConfigurationError(
            "--workers needs a system on which processes can share a port (SO_REUSEPORT), which this one cannot"
        )
    if sys.platform != "linux":
        _log.warning("this system may give all new connections to one of the workers; Linux deals them out evenly")


async def supervise(settings: Settings) -> int:
    """Serve with ``settings.workers`` workers until SIGTERM or SIGINT; return the exit code, as ``collab.app.serve``.

    Prints ``collab listening on http://HOST:PORT`` once all of them take connections. SIGHUP and SIGUSR1 are
    passed on to them.

    Raises:
        ConfigurationError: several workers cannot serve here.
        CollabError: an address cannot be listened on.
    """
    check_workers(settings)
    reserved = await reserve(settings.host, settings.port)
    try:
        return await Supervisor(settings.model_copy(update={"port": reserved[0].getsockname()[1]})).run()
    finally:
        for sock in reserved:
            sock.close()


class Supervisor:
    """Look after the workers.

    Args:
        settings: with the port that all of them listen on.
        command: gives the command line of the worker with a number.
    """

    def __init__(self, settings: Settings, command: Callable[[int], list[str]] | None = None) -> None:
        self._settings = settings
        self._command = worker_command if command is None else command
        self._places = [Place(number + 1) for number in range(settings.workers)]
        self._migrate = settings.migrate
        self._first_started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._serving = False
        self._failure: int | None = None
        self._notifier = Notifier.from_environment()

    async def run(self) -> int:
        """Serve until asked to stop; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, partial(self._stop, number))
        for number in (signal.SIGHUP, signal.SIGUSR1):
            loop.add_signal_handler(number, self._pass_on, number)
        async with self._notifier.alive(), asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch())
            first, *others = self._places
            keeping = [tasks.create_task(self._keep(first))]
            await self._first_started.wait()
            if not self._stopping.is_set():
                keeping += [tasks.create_task(self._keep(place)) for place in others]
            codes = [await task for task in keeping]
            watch.cancel()
        if self._failure is not None:
            return self._failure
        return int(any(codes))

    # One place

    async def _keep(self, place: Place) -> int:
        """Have a worker in a place until all stop; return the exit code of the last one, 0 if it served nobody."""
        pause = 0.0
        while True:
            code = await self._live(place)
            lived = 0.0 if place.listening is None else asyncio.get_running_loop().time() - place.listening
            listened, place.listening = place.listening is not None, None
            if self._stopping.is_set():
                return code if listened else 0
            if not self._serving:
                self._fail(place, code)
                return code
            pause = 0.0 if lived >= OLD_SECONDS else min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * pause))
            when = f"in {pause:g} s" if pause else "now"
            _log.error("worker %d has died (%s): it is replaced %s", place.number, _reason(code), when)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            if self._stopping.is_set():
                return 0

    async def _live(self, place: Place) -> int:
        """Run one worker to its end; return its exit code, or the signal that has ended it with a minus."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(place.number),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            _log.error("worker %d cannot be started: %s", place.number, error)
            return 1
        assert process.stdin is not None and process.stdout is not None
        place.process, place.missed, place.ready = process, 0, False
        if self._stopping.is_set():  # asked for while it was started
            place.signal(signal.SIGTERM)
        try:
            # Once: the others wait for the first one, and a worker that comes later finds the schema as it is.
            settings = self._settings.model_copy(update={"migrate": self._migrate})
            self._migrate = False
            place.tell(settings.model_dump_json(exclude_unset=True).encode() + b"\n")
            while line := await process.stdout.readline():
                self._hear(place, line)
            return await process.wait()
        finally:
            place.process = None
            process.stdin.close()

    def _hear(self, place: Place, line: bytes) -> None:
        message = json.loads(line)
        place.missed = 0
        if message["event"] == "started":
            place.started = place.ready = True
            self._first_started.set()
            if all(each.started for each in self._places):
                self._let_listen()
        elif message["event"] == "listening":
            place.listening, place.served = asyncio.get_running_loop().time(), True
            place.addresses, place.metrics = message["addresses"], message["metrics"]
            if self._serving:
                _log.info("worker %d serves again", place.number)
            elif all(each.served for each in self._places):
                self._serving = True
                _log.info("%d workers serve", len(self._places))
                announce(place.addresses, *(each.metrics for each in self._places))
                self._notifier.ready(f"{len(self._places)} workers serve on {', '.join(place.addresses)}")

    def _let_listen(self) -> None:
        for place in self._places:
            if place.ready:
                place.ready = False
                place.tell(LISTEN)

    def _fail(self, place: Place, code: int) -> None:
        """End what has begun, because one worker has ended before all of them served."""
        if self._failure is None:
            self._failure = code if code > 0 else 1
            complain(f"worker {place.number} has ended ({_reason(code)}) before it served: all are stopped")
        self._stop(signal.SIGINT)  # there are no clients yet that had to be let down gently

    # All of them

    def _stop(self, number: int) -> None:
        """Pass a signal to stop on; the second one too, which means haste."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._first_started.set()
            self._notifier.stopping(f"stopping, within {self._settings.drain_seconds:g} s")
            if self._failure is None:
                _log.info("stopping all %d workers", len(self._places))
            asyncio.get_running_loop().call_later(self._settings.drain_seconds + _LATE_SECONDS, self._kill)
        for place in self._places:
            place.signal(number)

    def _kill(self) -> None:
        for place in self._places:
            if place.process is not None:
                _log.error("worker %d has not stopped in time and is killed", place.number)
                place.signal(signal.SIGKILL)

    def _pass_on(self, number: int) -> None:
        """Pass SIGHUP or SIGUSR1 on. A worker that is only starting would die of it."""
        with self._notifier.reloading() if number == signal.SIGHUP else contextlib.nullcontext():
            for place in self._places:
                if place.listening is not None:
                    place.signal(number)

    async def _watch(self) -> None:
        """Kill a worker whose loop does not turn any more: the system goes on to give it new connections."""
        while True:
            # Counted and not measured: after a pause of the whole machine nobody has missed anything.
            await asyncio.sleep(BEAT_SECONDS)
            for place in self._places:
                place.missed += 1
                if place.listening is not None and place.missed > SILENT_BEATS:
                    _log.error("worker %d hangs and is killed", place.number)
                    place.signal(signal.SIGKILL)


def worker_command(number: int) -> list[str]:
    """Give the command line of a worker, which finds its modules where this process has found them."""
    here = {""}
    with contextlib.suppress(OSError):  # a directory that has been removed is no place for modules
        here.add(os.getcwd())
    safe = [] if here & {*sys.path[:1]} else ["-P"]
    return [sys.executable, *safe, "-m", "collab.workers", str(number)]


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
