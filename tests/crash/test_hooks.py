"""Hooks that take the memory of a real server, under clients of both protocols that edit other documents.

Strategy: the address space of a running server is bounded a little above what it has, so memory ends for the server and
not for the machine. What was saved is known from a Hocuspocus client, which is told, and from what the server reports
as committed. In the end the server is killed, as a system without memory does it: only what is in the log is there.
"""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.crash import greedy_hooks
from tests.crash.greedy_hooks import IN_LOOP, IN_THREAD, LEAK, LEAKED
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
        self.saved: list[str] = []

    async def edit(self) -> None:
        number = 0
        while True:
            async with RawHocuspocus(self._url) as client:
                await client.join(self._name)
                while client.open:
                    number += 1
                    seen = len(client.frames)
                    await client.send(update_of(self._name, text_update(number, f"<{number}>")))
                    await client.until(
                        lambda: not client.open or client.got(self._name, SYNC_STATUS, after=seen),  # noqa: B023
                        "an answer, or the end",
                    )
                    self.saved += [
                        f"<{number}>" for one in client.got(self._name, SYNC_STATUS, after=seen) if one.fields[0]
                    ]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("where", [IN_LOOP, IN_THREAD])
async def test_a_hook_that_takes_all_memory_costs_nothing_that_was_saved(tmp_path: Path, where: str) -> None:
    log = SqliteLog(tmp_path / "collab.db")
    server = ServerProcess(tmp_path, *HOOKS)
    async with server, Load(server, ["edited"], clients=2, seed=1) as load:
        told, failed = Told(server, "told"), f"Greedy.stored for {where!r} raised MemoryError"
        editing = asyncio.create_task(told.edit())
        async with LiveClient(server.document_url(where), keep=True) as trigger:
            await trigger.until_synced()
            await happens(lambda: told.saved, "somebody is told")
            bound_memory(server)
            for count in range(1, TIMES + 1):
                trigger.text().insert(0, f"{count};")
                await happens(lambda: server.stderr.count(failed) >= count, "the hook is reported")  # noqa: B023
                saved = len(told.saved)
                await load.until_made(10)
                if where == IN_LOOP:  # a thread takes memory from all others meanwhile: an answer may be lost then
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
        async with LiveClient(server.document_url("told")) as reader:
            await reader.until_synced()
            assert told.saved and set(told.saved) <= set(str(reader.text()).replace(">", "> ").split())


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
