"""Documents that are created at the same time, in one transaction: what costs is the commit.

Strategy: as the journal does with rows. What comes while a transaction is under way is done together in the next one,
each document in a savepoint of its own, so that one that cannot be created hinders no other. They are done in the order
of their names, so no two nodes that create the same ones wait for each other. Who waits for no other waits for nothing
here: the first one is done at once.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection

from collab.errors import CollabError, StoreUnavailable
from collab.storage.records import StoredDocument

MOST: Final = 32
"""Documents of one transaction: some 30 ms of work, for which an append on SQLite waits."""

MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one transaction; a document alone may have more."""

Work = Callable[[Connection], StoredDocument]

_Outcome = StoredDocument | CollabError


class _Wanted(NamedTuple):
    name: bytes
    nbytes: int
    work: Work
    done: asyncio.Future[StoredDocument]


class Creations:
    """Creates documents, those together that come together.

    Args:
        run: does a function in a transaction that writes, as ``Backend.run``.
    """

    def __init__(self, run: Callable[[Callable[[Connection], list[_Outcome]]], Awaitable[list[_Outcome]]]) -> None:
        self._run = run
        self._waiting: deque[_Wanted] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def create(self, name: bytes, nbytes: int, work: Work) -> StoredDocument:
        """Do ``work``, which creates the document of this name; raises what it raises, and ``StoreUnavailable``."""
        done: asyncio.Future[StoredDocument] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Wanted(name, nbytes, work, done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await done

    async def close(self) -> None:
        """Wait for the transaction under way; what waits for the next one is not done."""
        while self._waiting:
            _fail(self._waiting.popleft(), StoreUnavailable("the store was closed"))
        if self._worker is not None:
            await self._worker

    async def _work(self) -> None:
        try:
            while group := self._next():
                await self._do(group)
        finally:
            self._worker = None

    def _next(self) -> list[_Wanted]:
        group: list[_Wanted] = []
        nbytes = 0
        while self._waiting and len(group) < MOST:
            wanted = self._waiting[0]
            if group and nbytes + wanted.nbytes > MOST_BYTES:
                break
            self._waiting.popleft()
            if not wanted.done.done():  # whoever asked for it was cancelled
                group.append(wanted)
                nbytes += wanted.nbytes
        return sorted(group, key=lambda wanted: wanted.name)

    async def _do(self, group: Sequence[_Wanted]) -> None:
        def write(connection: Connection) -> list[_Outcome]:
            outcomes: list[_Outcome] = []
            for wanted in group:
                try:
                    with connection.begin_nested():
                        outcomes.append(wanted.work(connection))
                except CollabError as error:
                    outcomes.append(error)
            return outcomes

        try:
            outcomes = await self._run(write)
        except StoreUnavailable as error:
            for wanted in group:
                _fail(wanted, error)
        except Exception as error:
            if len(group) == 1:
                _fail(group[0], error)
                return
            # The database refuses something of one of them.
            for wanted in group:
                await self._do([wanted])
        except BaseException:
            for wanted in group:
                wanted.done.cancel()
            raise
        else:
            for wanted, outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, CollabError):
                    _fail(wanted, outcome)
                elif not wanted.done.done():
                    wanted.done.set_result(outcome)


def _fail(wanted: _Wanted, error: Exception) -> None:
    if wanted.done.done():
        return
    # One of its own for each: whoever awaits it writes its traceback into it.
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    wanted.done.set_exception(own)
