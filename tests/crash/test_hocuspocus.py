"""``kill -9`` under load, by the acknowledgement: what a provider was told to be saved is in the store.

The published providers of all versions edit the same documents in one Node process, which keeps books of the
statuses that came for what they sent (``tests/node/hocuspocus_crash.mjs``). The store is read while the server is
dead and every provider has seen its end: afterwards they would bring back what had been lost.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.crash.stored import PostgresLog, SqliteLog, StoredLog, read, tokens
from tests.support.node_process import NodeProcess
from tests.support.postgres import PostgresServer
from tests.support.server import ServerProcess
from tests.support.wsclient import STEP2, RawClient, step1

DOCUMENTS = ("crash 0", "crash 1")
VERSIONS = ("2", "3", "4")


class Providers(NodeProcess):
    """The Node process; use as an async context manager.

    ``lines`` are the addresses to come by, under the names that their tokens begin with; an address alone is one
    without a name. ``edits`` is how many a provider makes in each life of the server. With ``presence`` each shows the
    name of its line and its version.

    Attributes:
        sockets: how many there are when all are open.
        saved: the tokens of each document that a provider was told to be saved.
        made: how many tokens were made for each document, as last heard.
        open: how many sockets are open.
    """

    def __init__(
        self, lines: str | Mapping[str, str], names: Sequence[str], edits: int = 60, *, presence: bool = False
    ) -> None:
        lines = {"": lines} if isinstance(lines, str) else dict(lines)
        more = ("presence",) if presence else ()
        super().__init__("hocuspocus_crash.mjs", json.dumps(lines), json.dumps(list(names)), str(edits), *more)
        self.sockets = len(lines) * len(VERSIONS)
        self.saved: dict[str, set[str]] = {name: set() for name in names}
        self.made = dict.fromkeys(names, 0)
        self.open = 0
        self._state: dict[str, Any] | None = None
        self._changed = asyncio.Condition()

    async def until(self, fact: Callable[[], object], what: str) -> None:
        """Wait until the fact is true; it is asked again with every line."""
        try:
            async with asyncio.timeout(60), self._changed:
                await self._changed.wait_for(lambda: bool(fact()) or self._ended)
        except TimeoutError:
            raise AssertionError(f"{what}: not within 60 s; {self.open} open, made {self.made}") from None
        assert not self._ended, f"{what}: the Node process ended:\n{self.stderr}"

    async def until_saved(self, more: int) -> None:
        """Wait until the providers of each document were told that so many more tokens are saved."""
        goal = {name: len(saved) + more for name, saved in self.saved.items()}
        await self.until(
            lambda: all(len(self.saved[name]) >= count for name, count in goal.items()), f"{more} more tokens saved"
        )

    def large(self, size: int, line: str, pick: int) -> None:
        """Let the provider with this number among those of a line make an edit of so many bytes."""
        self._write(json.dumps({"large": size, "line": line, "pick": pick}))

    def more(self) -> None:
        """Let the providers edit on in a life of the server that is longer than their edits."""
        self._write("more")

    def rest(self) -> None:
        """Let nobody edit until :meth:`more`."""
        self._write("rest")

    async def stop(self) -> None:
        """End the editing; the providers stay."""
        self._write("stop")
        await self.state()

    async def state(self, *, brief: bool = False) -> dict[str, Any]:
        """What the providers hold now; instead of the tokens, their number, a snapshot and who is present."""
        self._state = None
        self._write("brief" if brief else "state")
        await self.until(lambda: self._state is not None, "the state")
        assert self._state is not None
        return self._state

    async def converged(self, others: Mapping[str, int] | None = None) -> dict[str, list[str]]:
        """Wait until every provider has every token and nothing to save any more; return the tokens.

        ``others`` is how many tokens of each document somebody else has made.
        """
        others = others or {}
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            state = await self.state()
            shared: dict[str, list[str]] = {one["name"]: one["tokens"] for one in state["clients"]}
            if state["waiting"] == 0 and all(
                one["tokens"] == shared[one["name"]]
                and len(one["tokens"]) == state["made"][one["name"]] + others.get(one["name"], 0)
                and not one["unsynced"]
                for one in state["clients"]
            ):
                return shared
            if asyncio.get_running_loop().time() > deadline:
                keys = ("version", "name", "unsynced", "synced", "pending")
                shown = [(len(one["tokens"]), *(one[key] for key in keys)) for one in state["clients"]]
                raise AssertionError(f"no convergence within 60 s: {state['made']}, {state['waiting']}, {shown}")
            await asyncio.sleep(0.02)

    def _write(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    @property
    def _ended(self) -> bool:
        return bool(self._tasks) and self._tasks[0].done()

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            async with self._changed:
                for name, found in message.get("saved", {}).items():
                    self.saved[name].update(found)
                self.made.update(message.get("made", {}))
                self.open = message.get("open", self.open)
                self._state = message.get("state", self._state)
                self._changed.notify_all()
        # Whoever waits is told when this task is done.
        asyncio.get_running_loop().call_soon(lambda: self._tasks.append(asyncio.create_task(self._tell_end())))

    async def _tell_end(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def kill_and_check(server: ServerProcess, log: StoredLog, providers: Providers, moment: float) -> None:
    """Kill the server after ``moment`` seconds and look for all that was acknowledged; start it again."""
    await asyncio.sleep(moment)
    await server.akill()
    # Each socket hands over what has come before it tells its end: no status comes after this.
    await providers.until(lambda: providers.open == 0, "the end of each socket")
    rows = await read(log)
    for name, saved in providers.saved.items():
        missing = saved - set(tokens(data for _, data in rows[name]))
        assert not missing, f"{name}: acknowledged and not stored: {sorted(missing)}"
    await server.astart()
    for name, saved in providers.saved.items():
        async with RawClient(server.document_url(name)) as joiner:
            await joiner.send(step1())
            assert set(tokens([await joiner.expect_sync(STEP2)])) >= saved
    await providers.until(lambda: providers.open == providers.sockets, "all sockets again")


async def run(server: ServerProcess, log: StoredLog, *, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    async with server, Providers(f"ws://{server.host}:{server.port}/hocuspocus", DOCUMENTS) as providers:
        for _ in range(kills):
            await providers.until_saved(10)
            await kill_and_check(server, log, providers, moments.uniform(0.0, 0.3))
        assert server.starts == kills + 1
        await providers.stop()
        shared = await providers.converged()
        # Nobody is left to send anything again: all of it must have been stored, once.
        await server.akill()
        rows = await read(log)
        for name in DOCUMENTS:
            assert sorted(tokens(data for _, data in rows[name])) == sorted(shared[name])
            assert {token.split(":")[0] for token in providers.saved[name]} == set(VERSIONS)
            assert len(set(shared[name])) == len(shared[name]) > 10 * kills


@pytest.mark.timeout(240)
async def test_kill_under_load_on_sqlite(tmp_path: Path) -> None:
    await run(ServerProcess(tmp_path), SqliteLog(tmp_path / "collab.db"), kills=11, seed=21)


@pytest.mark.timeout(240)
async def test_kill_under_load_on_postgresql(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    database = urlsplit(postgres_url).path.lstrip("/")
    server = ServerProcess(tmp_path, database_url=postgres_url)
    await run(server, PostgresLog(postgres_server, database), kills=9, seed=22)
