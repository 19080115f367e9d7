"""Versions of another system into one document, from a stream; used by ``/import-versions`` and by the command line.

Strategy: a line is a version, and one is in memory at a time. A version of the same time and name that was imported
before is left as it is, so an import that broke off is sent again from its beginning. What fails is told by name and
hinders no other; what would meet every one that follows ends the import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Protocol

from pydantic import Field, ValidationError

from collab.errors import CollabError, SandboxBusy, SandboxError, is_refusal
from collab.hub.archives import ArchiveError, Item, LineReader
from collab.storage.versions import Kind, Version
from collab.transports.http.api.creation import decode_update
from collab.transports.http.api.importing import MAX_FAILURES, Failure
from collab.transports.http.api.route import Model, invalid
from collab.transports.http.api.versions import DATE_TIME, MAX_USER, Description, VersionName, check_name, read_date
from collab.transports.problems import BadRequest, code_of

# Versions that are read at once, of those that are there already.
_PAGE: Final = 500

# The rest of such a body is not waited for: with more requests behind it, it would be read as one of them.
_CLOSE: Final = {"Connection": "close"}


class VersionLine(Model):
    """A line of a stream of versions; what else it says is passed over."""

    model_config = {**Model.model_config, "extra": "ignore"}

    name: VersionName
    description: Description | None = None
    update: str = Field(description="All that the document held then: a Yjs update (v1) as base64.")
    at: str = Field(max_length=40, description="When that was, RFC 3339.", json_schema_extra=DATE_TIME)
    author: Annotated[str, Field(max_length=MAX_USER)] | None = None


class Versions(Protocol):
    """Keeps versions: ``collab.hub.versions.Versions``."""

    async def list(
        self, name: str, *, kind: Kind | None = None, after: tuple[int, float, int] | None = None, limit: int = 100
    ) -> list[Version]:
        """List versions."""
        ...

    async def import_(
        self,
        name: str,
        title: str,
        update: bytes,
        at: float,
        *,
        description: str | None = None,
        author: str | None = None,
    ) -> Version:
        """Keep a version that comes from another system."""
        ...


class VersionImport:
    """One import. Call ``begin`` first.

    Args:
        versions: keeps them.
        name: of the document.
        max_update: bytes of an update.
        check: called before each version; what it raises ends the import.

    Attributes:
        lines: versions that have come.
        created: those of them that were made.
        existed: those that were there already, and were left as they are.
        failed: those that could not be imported.
        failures: the first ``MAX_FAILURES`` of these; whoever tells them may take them out.
    """

    def __init__(
        self, versions: Versions, name: str, max_update: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self._versions = versions
        self._name = name
        self._most = max_update
        self._check = check
        self._reader = LineReader(max_update)
        # At most as many as a document may have.
        self._there: set[tuple[float, str | None]] = set()
        self._told = 0
        self.lines = self.created = self.existed = self.failed = 0
        self.failures: list[Failure] = []

    async def begin(self) -> None:
        """Read which versions were imported before; raises as ``Versions.list``."""
        after = None
        while page := await self._versions.list(self._name, kind=Kind.NAMED, after=after, limit=_PAGE):
            self._there |= {(version.at, version.name) for version in page if version.seq == 0}
            after = page[-1].place

    async def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, and keep the versions that are whole by that.

        Raises:
            BadRequest: the stream is not to be read on, or ``check`` has raised it.
            CollabError: nothing that follows would fare better.
        """
        await self._take_all(self._reader.feed(data))

    async def end(self) -> None:
        """Take the end of the stream; raises as ``feed``."""
        await self._take_all(self._reader.end())

    async def _take_all(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                self._check()
                self.lines += 1
                await self._take(item)
        except ArchiveError as error:
            code = "too_large" if error.too_large else "invalid_request"
            raise BadRequest(f"{error} (behind version {self.lines})", code, headers=_CLOSE) from None

    async def _take(self, item: Item) -> None:
        title: str | None = None
        try:
            line = _read_line(item.head)
            title = line.name
            check_name(line.name)
            at, update = read_date(line.at), decode_update(line.update)
            if len(update) > self._most:
                raise BadRequest(f"the update has {len(update)} bytes, at most {self._most} are taken", "too_large")
            # Times are kept in microseconds.
            if (round(at * 1e6) / 1e6, line.name) in self._there:
                self.existed += 1
                return
            said: dict[str, Any] = {"description": line.description, "author": line.author}
            version = await self._versions.import_(self._name, line.name, update, at, **said)
            self._there.add((version.at, version.name))
            self.created += 1
        except BadRequest as error:
            self._fail(title, error.code, str(error))
        except CollabError as error:
            if _meets_all(error):
                raise
            self._fail(title, code_of(error), error.public)

    def _fail(self, title: str | None, code: str, detail: str) -> None:
        self.failed += 1
        if self._told < MAX_FAILURES:
            self._told += 1
            self.failures.append(Failure(line=self.lines, name=title, code=code, detail=detail))


def _meets_all(error: CollabError) -> bool:
    """Tell whether what hinders one version would hinder every one that follows."""
    if isinstance(error, SandboxError):
        return isinstance(error, SandboxBusy)
    return not is_refusal(error) or code_of(error) in ("unavailable", "document_not_found", "document_deleted")


def _read_line(text: bytes) -> VersionLine:
    try:
        return VersionLine.model_validate_json(text)
    except ValidationError as error:
        raise invalid(error, "the line") from None
