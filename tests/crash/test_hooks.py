"""Hooks that take the memory of a real server, under clients of both protocols that edit other documents.

Strategy: the address space of a running server is bounded a little above what it has, so memory ends for the server and
not for the machine. What was saved is known from a Hocuspocus client, which is told, and from what the server reports
as committed. In the end the server is killed, as a system without memory does it: only what is in the log is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from collab.limits.exhaustion import EXIT_CODE
from tests.crash import greedy_hooks
from tests.crash.greedy_hooks import FREED, HOLDS, IN_LOOP, IN_THREAD, LEAK, LEAKED, LOSE_ANSWER, LOSE_CALL, TAKEN
from tests.crash.load import Load
from tests.crash.stored import SqliteLog, read, reported
from tests.support.hocuspocus import SYNC_STATUS, RawHocuspocus
from tests.support.hocuspocus import update as update_of
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, happens
from tests.support.wsclient import LiveClient, RawClient, step1, text_update

HOOKS = ("--log-level", "debug", "--hooks", f"{greedy_hooks.__name__}:Greedy")

# Bytes of address space that the server may take beyond what it has.
MORE = 96 << 20

# How often all memory is taken.
TIMES = 3

# Seconds after there is memory again in which a new connection is taken, and in which a new client can save; generous
# for a busy machine. The second holds also where the server has ended and was started anew.
TAKES, SAVES = 10.0, 45.0

# Seconds for which a client waits for an answer before it comes back, as the published ones do.
PATIENCE = 5.0


def bound_memory(server: ServerProcess) -> None:
    """Let the server take ``MORE`` bytes of address space beyond what it has."""
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_AS)
    size = psutil.Process(server.pid).memory_info().vms + MORE
    resource.prlimit(server.pid, resource.RLIMIT_AS, (size, hard))


class Told:
    """A Hocuspocus client that edits without rest, comes back, and notes what it was told is saved."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self._url = server.hocuspocus_url
        self._name = name
        self._number = 0
        self.saved: list[str] = []

    async def edit(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._edit()
            await asyncio.sleep(0.05)

    async def _edit(self) -> None:
        async with asyncio.timeout(PATIENCE) as patience, RawHocuspocus(self._url) as client:
            await client.join(self._name)
            while client.open:
                self._number += 1
                number, seen = self._number, len(client.frames)
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE)
                await client.send(update_of(self._name, text_update(number, f"<{number}>")))
                await client.until(
                    lambda: not client.open or client.got(self._name, SYNC_STATUS, after=seen),  # noqa: B023
                    "an answer, or the end",
                )
                self.saved += [
                    f"<{number}>" for one in client.got(self._name, SYNC_STATUS, after=seen) if one.fields[0]
                ]

    async def until_saved(self) -> bool:
        """Edit as a new client until something is saved; give True."""
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                editing = asyncio.create_task(self._edit())
                try:
                    await happens(lambda: self.saved or editing.done(), "something is saved, or it fails")
                finally:
                    editing.cancel()
                    await asyncio.gather(editing, return_exceptions=True)
        return bool(self.saved)

    async def assert_kept(self, server: ServerProcess) -> None:
        """Assert that all of it is there, which was called saved."""
        async with LiveClient(server.document_url(self._name)) as reader:
            await reader.until_synced()
            assert self.saved and set(self.saved) <= set(str(reader.text()).replace(">", "> ").split())


@contextlib.asynccontextmanager
async def supervised(server: ServerProcess) -> AsyncIterator[list[int | None]]:
    """Start the server again whenever it ends, as systemd does; give the list of its exit codes."""
    codes: list[int | None] = []

    async def keep() -> None:
        while True:
            await happens(lambda: not server.running, "it ends", 600.0)
            codes.append(server.returncode)
            await server.astart()

    keeping = asyncio.create_task(keep())
    try:
        yield codes
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def is_taken(server: ServerProcess) -> bool:
    """Tell whether a new connection is taken and answered."""
    with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with (
            asyncio.timeout(1.0),
            aiohttp.ClientSession() as session,
            session.get(f"{server.url}/healthz") as got,
        ):
            return got.status == 200
    return False


@pytest.mark.timeout(240)
async def test_a_hook_that_takes_all_memory_costs_nothing_that_was_saved(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "collab.db")
    server = ServerProcess(tmp_path, *HOOKS)
    async with server, Load(server, ["edited"], clients=2, seed=1) as load:
        told, failed = Told(server, "told"), f"Greedy.stored for {IN_LOOP!r} raised MemoryError"
        editing = asyncio.create_task(told.edit())
        async with LiveClient(server.document_url(IN_LOOP), keep=True) as trigger:
            await trigger.until_synced()
            await happens(lambda: told.saved, "somebody is told")
            bound_memory(server)
            for count in range(1, TIMES + 1):
                trigger.text().insert(0, f"{count};")
                await happens(lambda: server.stderr.count(failed) >= count, "the hook is reported")  # noqa: B023
                saved = len(told.saved)
                await load.until_made(10)
                await happens(lambda: len(told.saved) >= saved + 5, "others go on")  # noqa: B023
        assert server.running and server.starts == 1
        await server.akill()
        editing.cancel()
        await asyncio.gather(editing, return_exceptions=True)
        left = await read(log)
        for name, last in reported(server.log_lines).items():
            assert [seq for seq, _ in left[name]] == list(range(1, left[name][-1][0] + 1)) and left[name][-1][0] >= last
        await server.astart()
        await load.stop()
        await load.converged()
        await told.assert_kept(server)


@pytest.mark.timeout(240)
async def test_when_a_thread_has_held_all_memory_the_server_takes_and_saves_again(tmp_path: Path) -> None:
    name = f"{IN_THREAD}/{HOLDS}4"
    server = ServerProcess(tmp_path, *HOOKS)
    async with server, supervised(server) as codes:
        told = Told(server, "told")
        editing = asyncio.create_task(told.edit())
        async with LiveClient(server.document_url(name)) as trigger:
            await trigger.until_synced()
            await happens(lambda: told.saved, "somebody is told")
            bound_memory(server)
            trigger.text().insert(0, "x")
            await happens(lambda: TAKEN in server.stderr, "all memory is taken")
            meanwhile = 0
            while FREED not in server.stderr and not codes:
                meanwhile += await is_taken(server)
                await asyncio.sleep(0.02)
        freed = time.monotonic()
        await eventually(lambda: is_taken(server), "a new connection is taken", TAKES)
        taken = time.monotonic() - freed
        for document in ("told", "another"):
            await eventually(Told(server, document).until_saved, f"a new client saves {document}", SAVES)
        saves = time.monotonic() - freed
        saved = len(told.saved)
        await happens(lambda: len(told.saved) >= saved + 5, "who was there goes on", SAVES)
        print(f"taken after {taken:.2f} s, saved after {saves:.2f} s; exit codes {codes}; meanwhile {meanwhile}")
        assert set(codes) <= {EXIT_CODE}
    editing.cancel()
    await asyncio.gather(editing, return_exceptions=True)
    async with server:
        await told.assert_kept(server)


@pytest.mark.timeout(240)
async def test_a_server_that_gets_no_memory_ends_to_be_started_again(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, *HOOKS)
    async with server:
        told = Told(server, "told")
        editing = asyncio.create_task(told.edit())
        async with LiveClient(server.document_url(f"{IN_THREAD}/{HOLDS}600")) as trigger:
            await trigger.until_synced()
            await happens(lambda: told.saved, "somebody is told")
            bound_memory(server)
            trigger.text().insert(0, "x")
            await happens(lambda: TAKEN in server.stderr, "all memory is taken")
            await happens(lambda: not server.running, "it ends")
        assert server.returncode == EXIT_CODE
        assert "there was no memory for 10 s: the server ends, to be started again" in server.stderr
        editing.cancel()
        await asyncio.gather(editing, return_exceptions=True)
        await server.astart()
        await told.assert_kept(server)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "why"), [(LOSE_CALL, "has lost a call"), (LOSE_ANSWER, "a task waits for what has happened")]
)
async def test_a_server_whose_loop_has_lost_something_ends_in_order(tmp_path: Path, name: str, why: str) -> None:
    server = ServerProcess(tmp_path, *HOOKS)
    async with (
        server,
        LiveClient(server.document_url(name)) as client,
        RawClient(server.document_url("other")) as other,
    ):
        await client.until_synced()
        bound_memory(server)
        client.text().insert(0, "x")
        await other.until(lambda: other.close_code is not None, "the others are told")
        assert other.close_code == 1012
        await happens(lambda: not server.running, "it ends")
        assert server.returncode == EXIT_CODE
        assert why in server.stderr and "has not ended in order" not in server.stderr


@pytest.mark.timeout(240)
async def test_a_hook_that_leaks_ends_in_refusals_which_say_why(tmp_path: Path) -> None:
    """Those who edit go on; documents that are not open already have to wait, and the operator is told."""
    server = ServerProcess(tmp_path, *HOOKS)
    async with server:
        used = psutil.Process(server.pid).memory_info().rss
    server.options += ["--memory-mark-bytes", str(used + 3 * LEAKED)]
    async with server, LiveClient(server.document_url(LEAK), keep=True) as client, aiohttp.ClientSession() as session:
        await client.until_synced()
        edits = 0
        while "documents that are not open already are refused" not in server.stderr:
            edits += 1
            client.text().insert(0, "x")
            await happens(lambda: server.stderr.count(f"committed {LEAK!r}") >= edits, "it is saved")  # noqa: B023
            await asyncio.sleep(0.2)  # it may look at its memory
        async with RawClient(server.document_url("new")) as late:
            await late.send(step1())
            await late.until(lambda: late.close_code is not None, "it is refused")
            assert late.close_code == 1013 and "memory" in str(late.close_reason)

        async def ready() -> bool:
            async with session.get(f"{server.url}/readyz") as answer:
                return "MiB in use" in str((await answer.json())["reasons"])

        await eventually(ready, "its probe says why")
        text = len(str(client.text()))
        client.text().insert(0, "y")
        await happens(lambda: server.stderr.count(f"committed {LEAK!r}") > edits, "who edits goes on")
        await server.akill()
        await server.astart()
        async with LiveClient(server.document_url(LEAK)) as reader:
            await reader.until_synced()
            assert len(str(reader.text())) == text + 1
