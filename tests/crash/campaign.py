"""``kill -9`` again and again on one store, with slow lines, large edits and older databases mixed in.

    python -m tests.crash.campaign --store sqlite|postgresql --rounds 100 [--seed N] [--faults]

In each round a real server serves two documents. The published Hocuspocus providers of all versions and y-websocket
clients edit both, half of them behind a slow line. Now and then somebody makes an edit of 1 to 8 MB, and the slow line
breaks down for a moment, so that those behind it come back with offline edits. At some moment the server is killed and
started again on the same data; while it is away, everybody edits on. After each round every edit that a provider was
told to be saved (SyncStatus 1) must be in what ``documents export`` gives and in what a fresh reader is given. The
export is made while the server is dead, when nobody can bring anything again. Ten rounds make an era, with documents
and clients of its own; at the end all documents of all eras are exported and looked at once more, and ``documents
verify`` reads the whole store.

In one round of each era an older state of the database is put under the running server: a backup, or the last rows
of the documents are removed. What follows is chosen by chance. The server heals the database and goes on, or heals it
and is killed, or is killed at once. In the last case the store alone cannot have everything: that the rows are gone is
the database's own doing, and the server had no time. The clients stay connected through such a round and hold what they
have sent, so the edits must be back as soon as they have come back, and only this is looked at.

With ``--faults`` the server is one in which calls on the way of an edit fail by chance, with MemoryError or
RuntimeError (:mod:`tests.support.faulty_server`). What was acknowledged must be there all the same.

The seed gives the sizes, the ways and the planned moments, not how the processes run: the same seed may take another
course. Each round is a line, and the command ends with 1 if anything is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycrdt import Doc

from collab import cli
from collab.adapters import make_store
from collab.storage.urls import parse_database_url
from tests.crash.backups import Backup, PostgresBackup, SqliteBackup
from tests.crash.load import Load, array, faults_of_large, through, tokens_of
from tests.crash.test_hocuspocus import Providers
from tests.support.faulty_server import MARK
from tests.support.postgres import TEMPLATE, shared_server
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import eventually, happens
from tests.support.wsclient import LiveClient

# Rounds with the same documents and clients: documents grow, and so does what each look at them costs.
ERA = 10

# Snapshots are made at the moment of some kills.
OPTIONS = ("--compact-rows", "100", "--compact-ratio", "0.5")

# Edits of one provider on one document in one life of the server, and the longest pause of a y-websocket client in
# seconds: the two cores must keep up.
EDITS = 15
PAUSE = 0.4

# Bytes of a large edit, and of one on the slow line: that should sometimes arrive within a round.
LARGE = (1_000_000, 8_000_000)
LARGE_SLOW = (1_000_000, 2_000_000)

# Bytes a second of the slow line.
RATE = (300_000, 2_000_000)

# Seconds that a round waits for those behind the slow line.
SLOW_SECONDS = 3.0

# What becomes of a server under which the database went back.
FATES = ("heals", "heals and is killed", "is killed at once")

# What Python runs as the server in which calls fail.
FAULTY = ("-m", "tests.support.faulty_server")

HEALED = "were compared with the database"


@dataclass
class Count:
    """What was done and what is missing: ``lost`` names documents and tokens, ``faults`` whatever else was wrong."""

    rounds: int = 0
    kills: int = 0
    rollbacks: int = 0
    large: int = 0
    breaks: int = 0
    injected: int = 0
    saved: dict[str, set[str]] = field(default_factory=dict)
    lost: set[tuple[str, str]] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        return sum(map(len, self.saved.values()))

    @property
    def acknowledged_large(self) -> int:
        return sum(token.endswith(":large") for saved in self.saved.values() for token in saved)

    @property
    def acknowledged_slow(self) -> int:
        return sum(token.startswith("slow") for saved in self.saved.values() for token in saved)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds, {self.kills} kills, {self.rollbacks} rollbacks, {self.breaks} broken lines, "
            f"{self.large} large edits, {self.injected} faults injected; "
            f"{self.acknowledged} acknowledged ({self.acknowledged_large} of them large, "
            f"{self.acknowledged_slow} behind the slow line), "
            f"{len(self.lost)} lost, {len(self.faults)} other faults"
        )


class Campaign:
    """One campaign on one server process, which is not running yet, and the backups of its database."""

    def __init__(self, server: ServerProcess, backup: Backup, seed: int, say: Callable[[str], None]) -> None:
        self.count = Count()
        self.server = server
        self.backup = backup
        self._seed = seed
        self.say = say
        self.waiting: dict[
            str, set[str]
        ] = {}  # tokens that were kept beside a document at the last look into the store

    async def run(self, rounds: int) -> Count:
        """Go through so many rounds and return what came of it; raises AssertionError when they cannot go on."""
        async with self.server:
            for first in range(0, rounds, ERA):
                await self._era(first // ERA, min(ERA, rounds - first))
            await self.server.akill()
            for name, saved in self.count.saved.items():
                await self.look_at_export(name, saved)
                self.note(name, self.waiting.get(name, set()), "what its export lacks at the end")
            code, said = await self._command("verify")
            if code:
                self.count.faults.append(f"verify: {said}")
        return self.count

    async def _era(self, era: int, rounds: int) -> None:
        chance = random.Random(f"{self._seed} {era}")
        names = [f"campaign {era}.{i}" for i in range(2)]
        rollback = chance.randrange(rounds)
        rate = chance.uniform(*RATE)
        with SlowLine(self.server.port, down=rate, up=rate) as line:
            url = self.server.hocuspocus_url
            async with (
                Providers({"": url, "slow": through(line, url)}, names, EDITS) as providers,
                Load(self.server, names, clients=2, seed=era, line=line, pause=PAUSE) as load,
            ):
                self.count.saved.update(providers.saved)
                for number in range(rounds):
                    await Round(self, chance, names, providers, load, line, rate).run(number == rollback)
                line.down = line.up = None
                await load.stop()
                await providers.stop()
                made = {name: len(tokens) for name, tokens in load.made.items()}
                try:
                    shared = await providers.converged(made)
                except AssertionError as error:
                    self.count.faults.append(f"era {era}: {error}")
                    self.say(f"FAULT in era {era}: {error}")
                    await self._tell()
                    line.cut()
                    shared = await providers.converged(made)
                    self.say(f"era {era}: all is there after the slow line was cut")
                for name, clients in load.clients.items():
                    for client in clients:
                        await happens(
                            lambda client=client, name=name: sorted(array(client)) == sorted(shared[name]),  # type: ignore[misc]
                            f"all edits of {name} in each client",
                        )

    async def _tell(self) -> None:
        """Show the end of the server's log, and how everything stands there if it can tell."""
        if self.server.stderr.count(MARK):
            os.kill(self.server.pid, signal.SIGUSR2)
            await asyncio.sleep(2)
        self.say("\n".join(self.server.log_lines[-400:]))

    async def look_at_export(self, name: str, saved: set[str]) -> None:
        """Look for what was acknowledged in what ``documents export`` gives, and beside that.

        What refers to edits that have not come yet is acknowledged, and kept beside the document until they come.
        """
        doc, words = await self.export(name)
        kept = await self._kept(name)
        self.waiting[name] = {token for token in missing(doc, saved) if token.encode() in kept}
        self.note(name, missing(doc, saved) - self.waiting[name], "its export")
        self.count.faults += [f"{name}: {fault}" for fault in (*faults_of_large(doc), *words)]

    async def _kept(self, name: str) -> bytes:
        """Give the updates that wait beside a document, one behind the other."""
        server = self.server
        store = make_store(parse_database_url(server.database_url or "", server.data_dir))
        try:
            await store.open()
            loaded = await store.load(name)
            return b"" if loaded is None else b"".join(update.data for update in loaded.pending)
        finally:
            await store.close()

    async def export(self, name: str) -> tuple[Doc[Any], list[str]]:
        """Give what the store has of a document, and what the command complained of."""
        doc = Doc[Any]()
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "exported"
            code, said = await self._command("export", name, str(file))
            if code == 0:
                doc.apply_update(file.read_bytes())
        return doc, said.splitlines() if code or "gap" in said else []

    async def _command(self, *words: str) -> tuple[int, str]:
        """Run ``collab documents`` on the store; give its exit code and what it printed.

        In this process: a new Python for each look would take longer than all the rest of a round.
        """
        server, said = self.server, io.StringIO()
        where = ["--database-url", server.database_url] if server.database_url else ["--data-dir", str(server.data_dir)]
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            code = await asyncio.to_thread(cli.run, ["documents", *words, *where])
        return code, said.getvalue()

    def note(self, name: str, tokens: set[str], where: str) -> None:
        """Book tokens that were acknowledged and are not there."""
        if tokens:
            self.count.lost |= {(name, token) for token in tokens}
            self.say(f"LOST in {name}, looking at {where}: {sorted(tokens)}")


@dataclass
class Round:
    """One round of a campaign; ``told`` is what has happened in it, for its line."""

    campaign: Campaign
    chance: random.Random
    names: list[str]
    providers: Providers
    load: Load
    line: SlowLine
    rate: float
    told: list[str] = field(default_factory=list)

    async def run(self, rollback: bool) -> None:
        """Edit, kill or roll back, and look for all that was acknowledged."""
        began = time.monotonic()
        count, providers, server = self.campaign.count, self.providers, self.campaign.server
        with contextlib.suppress(TimeoutError):  # those behind the slow line may have much to fetch first
            async with asyncio.timeout(SLOW_SECONDS):
                await providers.until(lambda: providers.open == providers.sockets, "all sockets")
        providers.more()
        await providers.until_saved(self.chance.randint(1, 10))
        if self.chance.random() < 0.3:
            await self._break_line()
        if self.chance.random() < 0.6:
            self._large()
        fate = self.chance.choice(FATES) if rollback else ""
        if rollback:
            await self._go_back(fate)
        else:
            await asyncio.sleep(self.chance.uniform(0.0, 0.7))
        if fate != FATES[0]:
            await self._kill(strict=fate != FATES[2])
        saved = {name: set(providers.saved[name]) for name in self.names}
        if fate == FATES[2]:
            await self._until_back(saved)
        for name in self.names:
            await self._look_as_reader(name, saved[name])
        if fate == FATES[0]:
            await self._look_in_store(saved)
        count.rounds += 1
        count.injected = server.stderr.count(MARK)
        self.campaign.say(
            f"round {count.rounds}: {', '.join(self.told)}; {count.acknowledged} acknowledged so far, "
            f"{len(count.lost)} lost, {len(count.faults)} other faults; start {server.starts}, "
            f"{time.monotonic() - began:.1f} s"
        )

    async def _break_line(self) -> None:
        """Let nobody pass for a moment, and end what was open."""
        self.line.down = self.line.up = 0
        self.line.cut()
        await asyncio.sleep(self.chance.uniform(0.1, 0.5))
        self.line.down = self.line.up = self.rate
        self.campaign.count.breaks += 1
        self.told.append("line broken")

    def _large(self) -> None:
        """Let somebody make a large edit."""
        who = self.chance.choice(("", "", "slow", "plain"))
        low, high = LARGE_SLOW if who == "slow" else LARGE
        size = int(low * (high / low) ** self.chance.random())
        if who == "plain":
            self.load.large(self.chance.choice(self.names), self.chance.randrange(2), size)
        else:
            self.providers.large(size, who, self.chance.randrange(100))
        self.campaign.count.large += 1
        self.told.append(f"large {size / 1e6:.1f} MB by {who or 'fast'}")

    async def _go_back(self, fate: str) -> None:
        """Put an older state under the server, and wait until it is whole again if its fate is to heal."""
        server, backup, providers = self.campaign.server, self.campaign.backup, self.providers
        how = self.chance.choice((*backup.hows, "rows"))
        healed = server.stderr.count(HEALED)
        if how == "rows":
            rows = self.chance.randint(1, 40)
            await asyncio.to_thread(backup.remove_rows, self.names, rows)
            how = f"last {rows} rows removed"
        else:
            await asyncio.to_thread(backup.keep)
            providers.more()
            await providers.until_saved(5)
            if self.chance.random() < 0.5:
                self._large()
            await asyncio.to_thread(backup.restore, how)
            how = f"backup {how}"
        self.campaign.count.rollbacks += 1
        self.told.append(f"{how}, server {fate}")
        if fate == FATES[2]:
            await asyncio.sleep(self.chance.uniform(0.0, 0.3))
        else:
            await happens(lambda: server.stderr.count(HEALED) > healed, "the comparison with the database")
            providers.more()
            await providers.until_saved(5)
            await asyncio.sleep(self.chance.uniform(0.0, 0.5))

    async def _kill(self, *, strict: bool) -> None:
        """Kill the server, look into the store while it is dead, if it must have all, and start it again."""
        server, providers = self.campaign.server, self.providers
        await server.akill()
        self.line.cut()
        self.campaign.count.kills += 1
        self.told.append("killed")
        # Each socket hands over what has come before it tells its end: no status comes after this.
        await providers.until(lambda: providers.open == 0, "the end of each socket")
        if strict:
            await self._look_in_store(providers.saved)
        await server.astart()

    async def _look_in_store(self, saved: dict[str, set[str]]) -> None:
        wanted = {name: set(saved[name]) for name in self.names}
        for name in self.names:
            await self.campaign.look_at_export(name, wanted[name])

    async def _look_as_reader(self, name: str, saved: set[str]) -> None:
        async with LiveClient(self.campaign.server.document_url(name), keep=True) as reader:
            await reader.until_synced()
            saved = saved - self.campaign.waiting.get(name, set())
            with contextlib.suppress(
                AssertionError
            ):  # what was kept may come a moment later; what never comes is named
                await reader.until(lambda: not missing(reader.doc, saved), "all that was saved")
            self.campaign.note(name, missing(reader.doc, saved), "what a fresh reader is given")
            self.campaign.count.faults += [f"{name}: {fault}" for fault in faults_of_large(reader.doc)]

    async def _until_back(self, saved: dict[str, set[str]]) -> None:
        """Wait until the clients have brought back what the database lost under a server that was killed."""

        async def back(name: str) -> bool:
            doc, words = await self.campaign.export(name)
            return not (words or missing(doc, saved[name]))

        for name in self.names:
            with contextlib.suppress(AssertionError):  # what is missing then is found and named by the looks below
                await eventually(lambda name=name: back(name), f"{name} in the store")  # type: ignore[misc]
        await self._look_in_store(saved)


def missing(doc: Doc[Any], saved: set[str]) -> set[str]:
    """Give the tokens that were acknowledged and are not there."""
    return saved - set(tokens_of(doc))


async def campaign(
    server: ServerProcess, backup: Backup, rounds: int, seed: int, say: Callable[[str], None] = print
) -> Count:
    """Run a campaign and return what came of it."""
    return await Campaign(server, backup, seed, say).run(rounds)


@contextlib.contextmanager
def stores(
    store: str, directory: Path, kind: type[ServerProcess] = ServerProcess, **options: Any
) -> Iterator[tuple[ServerProcess, Backup]]:
    """Give a server on an empty store, made with ``options``, and the backups of that."""
    if store == "sqlite":
        data = directory / "data"
        data.mkdir()
        yield kind(data, *OPTIONS, **options), SqliteBackup(data / "collab.db", directory / "backup.db")
        return
    with shared_server() as postgres:
        name = postgres.create_database(template=TEMPLATE)
        try:
            backup = PostgresBackup(postgres, name, directory / "backup")
            yield kind(directory, *OPTIONS, database_url=postgres.url(name), **options), backup
        finally:
            postgres.drop_database(name)


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.crash.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", action="store_true", help="let calls within the server fail by chance")
    chosen = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, flush=True)

    options = {"program": FAULTY} if chosen.faults else {}
    say(f"store {chosen.store}, seed {chosen.seed}")
    with (
        tempfile.TemporaryDirectory(prefix="collab-campaign-") as directory,
        stores(chosen.store, Path(directory), **options) as (server, backup),
    ):
        one = Campaign(server, backup, chosen.seed, say)
        try:
            asyncio.run(one.run(chosen.rounds))
        except AssertionError as error:
            say("\n".join((f"the campaign cannot go on: {error}", *getattr(error, "__notes__", ()))))
            say(f"seed {chosen.seed}, {chosen.store}: {one.count}")
            return 1
    for fault in one.count.faults:
        say(f"fault: {fault}")
    say(f"seed {chosen.seed}, {chosen.store}: {one.count}")
    return 1 if one.count.lost or one.count.faults else 0


if __name__ == "__main__":
    sys.exit(main())
