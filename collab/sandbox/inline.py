"""A sandbox without processes: jobs run in the caller's own process, one after the other.

Strategy: a simulation of several nodes needs jobs that take no real time and always end in the same order, and tests
need no process for a document of three letters. It protects nothing: a job that hangs or crashes takes its process
along. So it is for documents that can be trusted, and never what ``app`` chooses for a server.
"""

from __future__ import annotations

import asyncio
from typing import Any

from collab.content.edits import Format
from collab.errors import SandboxError
from collab.sandbox import jobs
from collab.update.compact import Compacted


class InlineSandbox:
    """Runs jobs where it is called; of the promise of ``collab.sandbox.port.Sandbox`` it keeps the results."""

    def __init__(self) -> None:
        self._closed = False

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """Compact a whole document."""
        await self._turn()
        return jobs.compact(data, gc)

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """Return a document's content."""
        await self._turn()
        return jobs.content(data, format, root)

    async def close(self) -> None:
        """Run no more jobs."""
        self._closed = True

    async def _turn(self) -> None:
        await asyncio.sleep(0)  # a job elsewhere never ends in the turn of the loop in which it was begun
        if self._closed:
            raise SandboxError("the sandbox is closed")
