"""Single documents out of a backup into a database that is in use.

Strategy: the documents of a backup are read from a store that it was restored into, a SQLite file of the command's own.
One that the database lacks is created. One that it has is never replaced under the people who have it open: what the
backup holds of it becomes a named version of its history, which they look at and restore, or do not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

from collab.errors import CollabError
from collab.hub.transfer import Export, Failed, Transfer
from collab.hub.versions import Versions


class Brought(NamedTuple):
    """What became of one document; ``error`` says why it failed."""

    name: str
    how: Literal["created", "version", "failed"]
    error: CollabError | None = None


async def bring_back(
    source: Transfer, target: Transfer, versions: Versions, *, prefix: str, title: str, at: float
) -> AsyncIterator[Brought]:
    """Bring documents of a backup into a database that is in use; tell what became of each.

    Args:
        source: reads the backup.
        target: writes into the database.
        versions: the versions of its documents.
        prefix: only documents whose names begin with it; a whole name is one.
        title: the name of the versions.
        at: the time of the backup in Unix seconds, which is that of the versions.

    Raises:
        StoreUnavailable.
    """
    async for found in Export(source, prefix=prefix).documents():
        if isinstance(found, Failed):
            yield Brought(found.name, "failed", found.error)
            continue
        document = found.document
        try:
            wanted = await target.prepare(
                document.name, found.update, title=document.title, metadata=document.metadata, gc=document.gc
            )
            [created] = await target.write([wanted])
            if isinstance(created, CollabError):
                raise created
            if not created:
                await versions.import_(document.name, title, found.update, at)  # by nobody in particular
        except CollabError as error:
            yield Brought(document.name, "failed", error)
            continue
        yield Brought(document.name, "created" if created else "version")
