"""``kill -9`` again and again under the Python client: what ``wait_saved`` has said to be saved is never lost.

    python -m tests.crash.client --store sqlite|postgresql --rounds 200 [--seed N]

Writers of the asynchronous client share one socket behind a line that is cut now and then, one more has its own, and
a thread uses the client without asyncio. Each puts tokens into its document and calls ``wait_saved``; what it had put
there before the call is booked as saved when the call returns. In each round the server is killed at some moment.
While it is dead, and nobody can bring anything again, all that is booked must be in what ``documents export`` gives. At
the end every writer's document has every token, once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pycrdt import Array, Doc

from collab.client import Backoff, Connection, Document, NotSaved, sync
from tests.crash.backups import Backup
from tests.crash.campaign import Campaign, stores
from tests.crash.load import through, tokens_of
from tests.support.server import ServerProcess
from tests.support.throttle import SlowLine
from tests.support.waiting import happens

# Rounds with the same documents: documents grow, and so does what each look at them costs.
ERA = 20

# Seconds after which the server is killed, at most, and the longest pause of a writer.
MOMENT = 0.5
PAUSE = 0.03

# One in so many tokens has a large value beside it, of so many bytes.
LARGE_EVERY = 25
LARGE = 200_000


class Books:
    """What was made and what was saved, by document."""

    def __init__(self, names: Sequence[str]) -> None:
        self.made: dict[str, list[str]] = {name: [] for name in names}
        self.saved: dict[str, set[str]] = {name: set() for name in names}
        self.stopped = threading.Event()

    def put(self, doc: Doc[Any], name: str, writer: str, number: int, *, large: bool = True) -> str:
        """Make an edit; with ``large``, now and then a large one."""
        token = f"{writer}:{number}" + ("x" * LARGE if large and number % LARGE_EVERY == LARGE_EVERY - 1 else "")
        self.made[name].append(token)
        tokens: Array[Any] = doc.get("tokens", type=Array)
        tokens.append(token)
        return token


async def write(document: Document, books: Books, writer: str, chance: random.Random) -> None:
    """Make edits, and book what is saved, until it is enough."""
    mine: list[str] = []
    number = 0
    while not books.stopped.is_set():
        for _ in range(chance.randint(1, 5)):
            mine.append(books.put(document.doc, document.name, writer, number))
            number += 1
            await asyncio.sleep(chance.random() * PAUSE)
        before = len(mine)
        with contextlib.suppress(NotSaved):
            await document.wait_saved(0.5)
            books.saved[document.name].update(mine[:before])
    await document.wait_saved(60)
    books.saved[document.name].update(mine)


def write_in_thread(url: str, name: str, books: Books, failed: list[BaseException]) -> None:
    """Do what `write` does, by the client without asyncio."""
    try:
        with sync.Connection(url, backoff=quick(1)) as connection:
            document = connection.open(name)
            mine: list[str] = []
            while not books.stopped.wait(PAUSE / 2):
                mine.append(books.put(document.doc, name, "thread", len(mine)))
                before = len(mine)
                with contextlib.suppress(NotSaved):
                    document.wait_saved(0.5)
                    books.saved[name].update(mine[:before])
            document.wait_saved(60)
            books.saved[name].update(mine)
    except BaseException as error:
        failed.append(error)


def quick(seed: int) -> Backoff:
    return Backoff(first=0.05, last=0.3, random=random.Random(seed))


class ClientCampaign(Campaign):
    """Rounds of writing and killing on one server, which is not running yet."""

    async def run(self, rounds: int) -> Any:
        async with self.server:
            for first in range(0, rounds, ERA):
                await self._writers(first // ERA, min(ERA, rounds - first))
            await self.server.akill()
            for name, saved in self.count.saved.items():
                await self.look_at_export(name, saved)
        return self.count

    async def _writers(self, era: int, rounds: int) -> None:
        chance = random.Random(f"{self._seed} {era}")
        names = [f"client {era}.{i}" for i in range(3)]
        books = Books(names)
        self.count.saved.update(books.saved)
        url = self.server.hocuspocus_url
        failed: list[BaseException] = []
        thread = threading.Thread(target=write_in_thread, args=(url, names[2], books, failed))
        with SlowLine(self.server.port) as line:
            async with (
                Connection(through(line, url), backoff=quick(era)) as shared,
                Connection(url, backoff=quick(era + 1)) as alone,
            ):
                documents = [await shared.open(name) for name in names[:2]] + [await alone.open(names[0])]
                thread.start()
                writers = [
                    asyncio.create_task(write(document, books, str(i), chance)) for i, document in enumerate(documents)
                ]
                for _ in range(rounds):
                    await self._round(chance, line, books, [shared, alone])
                books.stopped.set()
                await asyncio.gather(*writers)
                await asyncio.to_thread(thread.join, 90)
                assert not failed and not thread.is_alive(), failed
                await self._check_end(documents, books)

    async def _round(self, chance: random.Random, line: SlowLine, books: Books, connections: list[Connection]) -> None:
        before = {name: len(saved) for name, saved in books.saved.items()}
        await happens(
            lambda: all(len(saved) > before[name] for name, saved in books.saved.items()), "something saved in each"
        )
        if chance.random() < 0.3:
            line.cut()
            self.count.breaks += 1
        await asyncio.sleep(chance.random() * MOMENT)
        await self.server.akill()
        self.count.kills += 1
        await happens(lambda: not any(one.connected for one in connections), "the end of each socket")
        for name, saved in books.saved.items():
            await self.look_at_export(name, set(saved))
        self.count.rounds += 1
        self.say(f"round {self.count.rounds}: {self.count.acknowledged} saved, {len(self.count.lost)} lost")
        await self.server.astart()

    async def _check_end(self, documents: list[Document], books: Books) -> None:
        for document in documents:
            wanted = sorted(books.made[document.name])
            await happens(
                lambda document=document, wanted=wanted: sorted(tokens_of(document.doc)) == wanted,  # type: ignore[misc]
                f"all tokens of {document.name}, once",
            )
        assert {name: set(made) for name, made in books.made.items()} == books.saved


async def campaign(
    server: ServerProcess, backup: Backup, rounds: int, seed: int, say: Callable[[str], None] = print
) -> Any:
    """Run a campaign and return what came of it."""
    return await ClientCampaign(server, backup, seed, say).run(rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.crash.client", description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="collab-client-") as directory,
        stores(chosen.store, Path(directory)) as (server, backup),
    ):
        count = asyncio.run(campaign(server, backup, chosen.rounds, chosen.seed, say))
    say(f"seed {chosen.seed}, {chosen.store}: {count}")
    return 1 if count.lost or count.faults else 0


if __name__ == "__main__":
    sys.exit(main())
