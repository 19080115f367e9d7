"""The port of the sandbox: where work runs that needs time or a real CRDT."""

from __future__ import annotations

from typing import Any, Protocol

from collab.content.edits import Format
from collab.update.compact import Compacted


class Sandbox(Protocol):
    """Run jobs on whole documents.

    **Promise.** A job gives its result or raises, within a bounded time, and harms nothing else: neither the loop that
    waits for it, nor the memory of the process that serves. The same arguments give the same result.
    """

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """Compact a whole document (`collab.update.compact.compact`) and make its index.

        Raises UpdateError when ``data`` is no update; SandboxTimeout, SandboxCrashed, and SandboxError when too
        many jobs wait or the sandbox is closed.
        """
        ...

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """Return what a document shows in a format, as values that JSON can hold (`collab.sandbox.jobs.content`).

        Raises what `compact` raises, SandboxError for a document that the library cannot read, and ContentError when
        there is no such root, or it is none for the format.
        """
        ...

    async def close(self) -> None:
        """Stop; jobs that run end with SandboxError. Harmless when called again."""
        ...
