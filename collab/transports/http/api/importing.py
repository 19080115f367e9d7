"""Many documents into a store, from a stream of them; used by ``/import`` and by the command line.

Strategy: the documents of one piece of the stream are read one after the other, and written together, so that they
share commits. A document that is there already is left as it is, so an import that broke off is sent again from its
beginning. What fails is told by name and hinders no other; what would meet every one that follows ends the import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Final

from pydantic import Field, ValidationError

from collab.errors import CollabError, is_refusal
from collab.hub.archives import ArchiveError, Item, Reader
from collab.hub.documents import NewDocument
from collab.hub.transfer import Transfer
from collab.protocol.sync import EMPTY_UPDATE
from collab.transports.http.api.creation import Metadata, decode_update
from collab.transports.http.api.documents import Name, Title, read_title
from collab.transports.http.api.route import Model, invalid
from collab.transports.problems import BadRequest, code_of

MAX_FAILURES: Final = 1_000
"""Failures that are told by name; the others are counted."""

# Documents that are written together, and bytes of them.
_MOST: Final = 64
_MOST_BYTES: Final = 4 * 1024 * 1024

# Seconds of reading after which the loop goes on: a piece of a stream may hold a hundred small documents.
_SLICE_SECONDS: Final = 0.001

# Documents of one import that are remembered, to tell one that comes twice from one that was there.
_REMEMBERED: Final = 100_000


class Line(Model):
    """What an import reads of a document; what else an export says of it is passed over."""

    model_config = {**Model.model_config, "extra": "ignore"}

    name: Name
    update: str | None = Field(None, description="A whole Yjs update (v1) as base64; null: an empty document.")
    title: Title | None = None
    metadata: Metadata | None = None
    gc: bool = Field(True, description="Whether compaction removes deleted content.")
    code: str | None = Field(None, description="What an export says of a document that it could not read.")


class Failure(Model):
    """A document, or a version of one, that could not be imported."""

    line: int = Field(description="Which one of the stream, from 1.")
    name: str | None = Field(description="Its name, if it could be read.")
    code: str = Field(description="As in problem details.")
    detail: str


class Import:
    """One import.

    Args:
        transfer: writes.
        reader: reads the stream.
        check: called before each document; what it raises ends the import.

    Attributes:
        lines: documents that have come.
        created: those of them that were created.
        existed: those that were there already, and were left as they are.
        failed: those that could not be imported.
        failures: the first ``MAX_FAILURES`` of these; whoever tells them may take them out.
    """

    def __init__(self, transfer: Transfer, reader: Reader, check: Callable[[], None] = lambda: None) -> None:
        self._transfer = transfer
        self._reader = reader
        self._check = check
        self._seen: set[int] = set()
        self._told = 0
        self.lines = self.created = self.existed = self.failed = 0
        self.failures: list[Failure] = []

    async def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, and write the documents that are whole by that.

        Raises:
            BadRequest: the stream is not to be read on, or ``check`` has raised it.
            CollabError: nothing that follows would fare better.
        """
        await self._take(self._reader.feed(data))

    async def end(self) -> None:
        """Take the end of the stream; raises as ``feed``."""
        await self._take(self._reader.end())

    async def _take(self, items: Iterable[Item]) -> None:
        ready: list[tuple[int, NewDocument]] = []
        failures: list[Failure] = []
        nbytes = 0
        began = perf_counter()
        try:
            for item in items:
                if perf_counter() - began > _SLICE_SECONDS:
                    await asyncio.sleep(0)
                    began = perf_counter()
                self._check()
                self.lines += 1
                new = await self._read(item, failures)
                if new is None:
                    continue
                ready.append((self.lines, new))
                nbytes += len(new.update or b"")
                if len(ready) >= _MOST or nbytes >= _MOST_BYTES:
                    await self._write(ready, failures)
                    nbytes = 0
        except ArchiveError as error:
            code = "too_large" if error.too_large else "invalid_request"
            raise BadRequest(f"{error} (behind document {self.lines})", code, headers=_CLOSE) from None
        finally:
            # What came before something that ends the import is imported.
            await self._write(ready, failures)

    async def _read(self, item: Item, failures: list[Failure]) -> NewDocument | None:
        """Read a document; None if it has failed."""
        name: str | None = None
        try:
            line = _read_line(item.head) if item.head or item.fault is None else None
            if line is not None:
                name = line.name
                if line.code is not None:
                    raise BadRequest(f"it could not be exported: {line.code}", "not_possible")
            if item.fault is not None:
                raise BadRequest(item.fault.value, "too_large" if item.fault.large else "invalid_request")
            assert line is not None
            title = None if line.title is None else read_title(line.title)
            if item.update is not None:
                update = item.update
            else:
                update = EMPTY_UPDATE if line.update is None else decode_update(line.update)
            return await self._transfer.prepare(line.name, update, title=title, metadata=line.metadata, gc=line.gc)
        except BadRequest as error:
            failures.append(Failure(line=self.lines, name=name, code=error.code, detail=str(error)))
        except CollabError as error:
            failures.append(_failure(self.lines, name, error))
        return None

    async def _write(self, ready: list[tuple[int, NewDocument]], failures: list[Failure]) -> None:
        """Write what was read, and count it; both lists are empty then."""
        batch = ready.copy()
        ready.clear()
        outcomes = await self._transfer.write([new for _, new in batch]) if batch else []
        unavailable: CollabError | None = None
        for (number, new), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, CollabError):
                try:
                    failures.append(_failure(number, new.name, outcome))
                except CollabError as error:
                    unavailable = error
            elif outcome:
                self.created += 1
                if len(self._seen) < _REMEMBERED:
                    self._seen.add(hash(new.name))
            elif hash(new.name) in self._seen:
                detail = "a document of this name came before in this import"
                failures.append(Failure(line=number, name=new.name, code="document_exists", detail=detail))
            else:
                self.existed += 1
        self.failed += len(failures)
        failures.sort(key=lambda failure: failure.line)
        room = MAX_FAILURES - self._told
        self.failures += failures[:room]
        self._told += len(failures[:room])
        failures.clear()
        if unavailable is not None:
            raise unavailable


# The rest of such a body is not waited for: with more requests behind it, it would be read as one of them.
_CLOSE: Final = {"Connection": "close"}


def _failure(number: int, name: str | None, error: CollabError) -> Failure:
    """Tell what hinders one document; raises what would hinder every one that follows."""
    code = code_of(error)
    if not is_refusal(error) or code == "unavailable":
        raise error
    return Failure(line=number, name=name, code=code, detail=error.public)


def _read_line(text: bytes) -> Line:
    try:
        return Line.model_validate_json(text)
    except ValidationError as error:
        raise invalid(error, "the line") from None
