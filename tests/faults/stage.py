"""Where the faults happen: servers, people who work all the time, and an operator who looks.

Strategy: two nodes on PostgreSQL and Valkey, and one alone on SQLite. On each, people write one document and book what
they are told to be saved, somebody opens a document that is not in memory once a second, and a back end asks the HTTP
API. They do so before, during and after each fault. The operator sees what an operator has: alerts, ``/readyz`` and the
lines of the log from WARNING on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import jwt

from collab.client import Connection, Document
from tests.chaos.cluster import Cluster
from tests.crash.client import Books, quick
from tests.crash.load import tokens_of
from tests.crash.stored import StoredLog, read, tokens
from tests.crash.test_outage import Disk
from tests.faults.watch import Alerts, faster_rules
from tests.support import jumping_server
from tests.support.log_lines import logged
from tests.support.prometheus import prometheus
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, happens
from tests.support.wsclient import LiveClient

ONE, TWO, ALONE = "one", "two", "alone"

SECRET = "a secret of the tests, long enough for HS256"

SHARED = "shared"
"""The document that people write all the time."""

COLD = [f"cold {number}" for number in range(6)]
"""Documents that are opened in turn, and have left memory when it is their turn again."""

OPTIONS = (
    *("--metrics-port", "0"),
    *("--log-format", "json"),
    *("--idle-seconds", "0.3"),
    *("--max-connections-per-document", "20"),
    *("--max-messages-per-second", "20"),
    *("--flood-seconds", "8"),
    *("--outbox-bytes", "65536"),
    *("--slow-seconds", "14"),
)
"""Bounds that a few clients can pass; each is the default but for its size."""

# Seconds: between two edits of a person, between two looks, and between two who open a document.
PAUSE = 0.3
LOOK = 0.5
COME = 1.0

LIVE_SECONDS = 3.0
"""So old an edit has arrived, if edits arrive at all."""

CALL_SECONDS = 5.0
"""So long a back end waits for an answer."""


def token(user: str, access: str = "write", seconds: float = 600.0) -> str:
    """Make a token for all documents."""
    claims = {"sub": user, "documents": {"*": access}, "exp": int(time.time() + seconds)}
    return jwt.encode(claims, SECRET, algorithm="HS256")


@dataclass
class Person:
    """Somebody who writes into the shared document of a node."""

    name: str
    node: str
    document: Document
    made: list[tuple[float, str]] = field(default_factory=list)
    saved: list[tuple[float, str]] = field(default_factory=list)


@dataclass
class Readiness:
    """What ``/readyz`` has said."""

    status: int = 0
    degraded: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        return self.status == 200 and not self.reasons


class Stage:
    """All of it; use it as an async context manager.

    Attributes:
        servers: the nodes, by name.
        alerts: what Prometheus says.
        met: how those who opened a document fared since this was cleared, by node: "served", or the code of the close.
        answered: the statuses that the back end was answered, by node, as ``met``; "0" is no answer.
        codes: what else clients were closed with, by what they are; faults write it.
        failed: work of the stage that has raised.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        environment = {"COLLAB_JWT_SECRET": SECRET}
        program = ("-P", jumping_server.__file__)
        self.cluster = Cluster(
            directory / "cluster",
            "redis",
            names=(ONE, TWO),
            options=OPTIONS,
            environment=environment,
            programs={TWO: program},
        )
        (directory / "alone").mkdir()
        # Where less than 100 MiB are free, that is told before the disk is full.
        self.disk = Disk(directory / "alone", *OPTIONS, mb=160, environment=environment)
        self.servers: dict[str, ServerProcess] = {ALONE: self.disk.server}
        self.people: list[Person] = []
        self.books = {node: Books([SHARED]) for node in (ONE, ALONE)}
        self.met: dict[str, Counter[str]] = {}
        self.answered: dict[str, Counter[str]] = {}
        self.codes: dict[str, Counter[str]] = {}
        self._names: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._stack.enter_async_context(self.cluster)
            self._stack.callback(self.disk.server.close)
            await self.disk.server.astart()
            self.servers = {**{node.name: node.server for node in self.cluster.nodes}, **self.servers}
            self.session = await self._stack.enter_async_context(aiohttp.ClientSession())
            addresses = {await self._metrics(name): name for name in self.servers}
            (self._directory / "rules.yml").write_text(faster_rules(), encoding="utf-8")
            url = self._stack.enter_context(prometheus(self._directory, list(addresses), self._directory / "rules.yml"))
            self.alerts = Alerts(self.session, url, addresses)
            self._stack.push_async_callback(self._rest)
            self.forget()
            for name, node in (("ada", ONE), ("bob", ONE), ("eve", TWO), ("ivy", ALONE), ("joe", ALONE)):
                await self._come(name, node)
            for name in self.servers:
                self._do(self._open_cold(name))
                self._do(self._ask(name))
            await eventually(self.alerts.scraped, "a look at all nodes")
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            error.add_note(self.disk.server.report(40))
            for node in self.cluster.nodes:
                error.add_note(f"node {node.name}:\n{node.server.report(40)}")
        await self._stack.aclose()

    # -- what goes on all the time ------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _rest(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what any of the work has raised."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _metrics(self, name: str) -> str:
        server = self.servers[name]
        await happens(lambda: "collab metrics on" in server.stdout, "the address of metrics")
        found = re.search(r"collab metrics on http://(\S+)/metrics", server.stdout)
        assert found is not None
        return found[1]

    async def _come(self, name: str, node: str) -> None:
        connection = Connection(
            self.servers[node].hocuspocus_url, token=lambda: token(name), backoff=quick(len(self.people))
        )
        await self._stack.enter_async_context(connection)
        self._stack.push_async_callback(connection.close, save=False)
        person = Person(name, node, await connection.open(SHARED))
        self.people.append(person)
        self._do(self._write(person))
        self._do(self._save(person))

    def books_of(self, node: str) -> Books:
        """Give the books of the document that a node has: both nodes of the cluster have one."""
        return self.books[ALONE if node == ALONE else ONE]

    async def _write(self, person: Person) -> None:
        number = 0
        while True:
            made = self.books_of(person.node).put(person.document.doc, SHARED, person.name, number, large=False)
            person.made.append((time.monotonic(), made))
            number += 1
            await asyncio.sleep(PAUSE)

    async def _save(self, person: Person) -> None:
        while True:
            made = len(person.made)
            await person.document.wait_saved()
            if made > (done := len(person.saved)):
                now = time.monotonic()
                person.saved += [(now, one) for _, one in person.made[done:made]]
                self.books_of(person.node).saved[SHARED].update(one for _, one in person.made[done:made])
            await asyncio.sleep(0.1)

    async def _open_cold(self, name: str) -> None:
        for document in COLD:
            async with LiveClient(self.document_url(name, document)) as client:
                await client.until_synced()
                client.text().insert(0, name)
                await client.barrier()
        for document in itertools.cycle(COLD):
            self.met[name][await self.open_document(name, document)] += 1
            await asyncio.sleep(COME)

    async def open_document(self, name: str, document: str, seconds: float = 2.0) -> str:
        """Open a document of a node as a newcomer: "served", the code of the close, or "waits"."""
        client = LiveClient(self.document_url(name, document))
        try:
            await client.connect()
            await client.until(lambda: client.synced or client.close_code is not None, "an answer", seconds=seconds)
        except AssertionError:
            return "waits"
        except (aiohttp.ClientError, OSError):
            return "no connection"
        finally:
            synced, code = client.synced, client.close_code
            await client.close()
        return "served" if synced else str(code)

    def document_url(self, name: str, document: str, user: str = "somebody") -> str:
        """Give the address of a document, with a token."""
        return f"{self.servers[name].document_url(document)}?token={token(user)}"

    async def _ask(self, name: str) -> None:
        while True:
            self.answered[name][str(await self.call(name, "GET", f"documents/{SHARED}"))] += 1
            await asyncio.sleep(LOOK)

    async def call(self, name: str, method: str, path: str, **options: Any) -> int:
        """Call the HTTP API of a node and give the status; 0 if nothing was answered in time."""
        headers = {"Authorization": f"Bearer {token('back end')}", **options.pop("headers", {})}
        url = f"{self.servers[name].url}/api/v1/{path}"
        try:
            timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
            async with self.session.request(method, url, headers=headers, timeout=timeout, **options) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    # -- what an operator sees ----------------------------------------------------------------------------------

    async def readiness(self, name: str) -> Readiness:
        """Ask ``/readyz``."""
        async with self.session.get(f"{self.servers[name].url}/readyz") as answer:
            told = await answer.json()
            return Readiness(answer.status, told["degraded"], tuple(told["reasons"]))

    async def page(self, name: str) -> dict[str, Any] | None:
        """Give the figures of a node, as the page for operators shows them; None if there is no answer in time.

        Where the node itself does not let an operator in, another one is asked.
        """
        others = [other for other in self.servers if ALONE not in (name, other) and other != name]
        for asked in (name, *others):
            told = await self._nodes(asked)
            if asked == name and told is not None:
                self._names.setdefault(name, told["asked"])
            for node in () if told is None else told["nodes"]:
                if node["name"] == self._names.get(name):
                    found: dict[str, Any] = node
                    return found
        return None

    async def _nodes(self, name: str) -> dict[str, Any] | None:
        headers = {"Authorization": f"Bearer {token('operator', 'admin')}"}
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        try:
            url = f"{self.servers[name].url}/api/v1/nodes"
            async with self.session.get(url, headers=headers, timeout=timeout) as answer:
                told: dict[str, Any] = await answer.json()
                return told if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    def log(self, name: str) -> list[dict[str, Any]]:
        """Give the lines of a node from WARNING on."""
        lines = [json.loads(line) for line in self.servers[name].log_lines if line.startswith("{")]
        return [line for line in lines if line["log.level"] in ("warning", "error", "critical")]

    # -- what is looked at around a fault -----------------------------------------------------------------------

    def forget(self) -> None:
        """Begin to note anew how people fare."""
        self.met = {name: Counter() for name in self.servers}
        self.answered = {name: Counter() for name in self.servers}
        self.codes = {}

    def note(self, who: str, what: str) -> None:
        """Note how a client fared."""
        self.codes.setdefault(who, Counter())[what] += 1

    def passes(self, writer: str, reader: str, since: float) -> bool:
        """Say whether what one person has made since then, but for the last moment, is seen by another one."""
        by_name = {person.name: person for person in self.people}
        until = time.monotonic() - LIVE_SECONDS
        made = {one for at, one in by_name[writer].made if since < at < until}
        return bool(made) and made <= set(tokens_of(by_name[reader].document.doc))

    def waited(self, names: Sequence[str], since: float) -> float | None:
        """Give the seconds that people on some nodes have waited for "saved" since then.

        It is the median, so that a moment in which the machine was busy does not count; None where nothing was saved.
        """
        waited = [
            saved - made
            for person in self.people
            if person.node in names
            for (made, _), (saved, _) in zip(person.made, person.saved, strict=False)
            if made > since
        ]
        return statistics.median(waited) if waited else None

    def log_of(self, name: str) -> StoredLog:
        """Give what is stored behind a node."""
        return self.disk if name == ALONE else self.cluster.log

    async def nothing_is_lost(self, name: str) -> None:
        """Wait until all who write on a node are at one, and assert that all that was called saved is stored."""
        now = time.monotonic()
        group = [person for person in self.people if (person.node == ALONE) == (name == ALONE)]
        made = {one for person in group for at, one in person.made if at <= now}
        await happens(
            lambda: all(made <= set(tokens_of(person.document.doc)) for person in group), "everybody sees everything"
        )
        saved = set(self.books_of(name).saved[SHARED])
        stored = tokens([data for _, data in (await read(self.log_of(name)))[SHARED]])
        assert saved <= set(stored), f"lost: {sorted(saved - set(stored))[:10]}"
        assert len(stored) == len(set(stored)), "stored twice"


_TEMPLATES = [
    (re.compile(re.sub(r"%(?:\\?\.\d+)?[srdgf]", "(.*)", re.escape(template)), re.DOTALL), template)
    for template in sorted(logged(), key=lambda one: -len(re.sub(r"%\S+", "", one)))
]


def template_of(line: dict[str, Any]) -> str:
    """Give the text by which an operator finds a line in the handbook; of a limit, what it says that there was."""
    message = line["message"]
    if line["log.logger"] == "collab.audit":
        return re.sub(r"'[^']*'", "'…'", re.sub(r"\d+(?:\.\d+)?", "N", message.rpartition(" (address")[0]))
    for pattern, template in _TEMPLATES:
        if pattern.fullmatch(re.sub(r" \(\d+ more like it not shown\)$", "", message)):
            return template
    raise AssertionError(f"a line that the handbook does not have: {line}")
