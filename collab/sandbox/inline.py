"""A sandbox without processes: jobs run in the caller's own process, one after the other.

Strategy: a simulation of several nodes needs jobs that take no real time and always end in the same order, and tests
need no process for a document of three letters. It protects nothing: a job that hangs or crashes takes its process
along. So it is for documents that can be trusted, and never what ``app`` chooses for a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from collab.content.edits import Edit, Format
from collab.errors import SandboxBusy
from collab.history.packed import PackedRows
from collab.history.tasks import Question, Shown
from collab.history.tasks import Task as HistoryTask
from collab.sandbox import jobs, stays
from collab.sandbox.port import Ending, Outcome, Task
from collab.update.compact import Compacted


class InlineSandbox:
    """Runs jobs where it is called; of the promise of ``collab.sandbox.port.Sandbox`` it keeps the results."""

    def __init__(self) -> None:
        self._closed = False

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """Compact a whole document."""
        await self.turn()
        return jobs.compact(data, gc)

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """Return a document's content."""
        await self.turn()
        return jobs.content(data, format, root)

    async def show(self, data: bytes, format: Format, root: str | None = None) -> bytes:
        """Return a document's content, encoded."""
        await self.turn()
        return jobs.show(data, format, root)

    async def make(self, edit: Edit, client_id: int) -> bytes:
        """Make a document of content."""
        await self.turn()
        return jobs.make(edit, client_id)

    async def stay(self, data: bytes, client_id: int) -> InlineStay:
        """Load a document, so that it stays."""
        await self.turn()
        return InlineStay(self, stays.open_replica(data, client_id), client_id)

    async def reset(
        self, documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None
    ) -> bytes:
        """Make the update that resets a document."""
        await self.turn()
        return jobs.reset(documents, content, strict, known)

    async def skeleton(self, documents: Sequence[bytes], known: bytes | None) -> bytes:
        """Take the content out of documents."""
        await self.turn()
        return jobs.skeleton(documents, known)

    async def find_hazard(self, data: bytes) -> str | None:
        """Look for what yjs throws on."""
        await self.turn()
        return jobs.find_hazard(data)

    async def show_history(self, question: Question) -> Shown:
        """Answer what is asked of the history of a document."""
        await self.turn()
        return jobs.show_history(question)

    async def look_back(self, task: HistoryTask) -> bytes:
        """Make something of the history of a document."""
        await self.turn()
        return jobs.look_back(task)

    async def rebuild(
        self, snapshot: bytes | None, index: bytes | None, rows: PackedRows, *, patient: bool = False
    ) -> Compacted | None:
        """Rebuild what a document held."""
        await self.turn()
        return jobs.rebuild(snapshot, index, rows)

    async def close(self) -> None:
        """Run no more jobs."""
        self._closed = True

    async def turn(self) -> None:
        """Wait for the next turn of the loop: a job elsewhere never ends in the one in which it was begun."""
        await asyncio.sleep(0)
        if self._closed:
            raise SandboxBusy("the sandbox is closed")


class InlineStay:
    """A document that stays in the caller's own process (``collab.sandbox.port.Stay``)."""

    def __init__(self, sandbox: InlineSandbox, replica: Any, client_id: int) -> None:
        self.client_id = client_id
        self.ending: Ending | None = None
        self._sandbox = sandbox
        self._replica = replica

    @property
    def over(self) -> bool:
        """Whether the stay has ended."""
        return self.ending is not None

    async def run(self, updates: Sequence[bytes], tasks: Sequence[Task]) -> list[Outcome]:
        """Bring the document up to date and do tasks."""
        try:
            await self._sandbox.turn()
        except BaseException:
            self.end(Ending.FAILED)
            raise
        if self.over:
            raise SandboxBusy("the stay is over")
        try:
            return stays.do_tasks(self._replica, updates, tasks)
        except BaseException:
            self.end(Ending.FAILED)
            raise

    def end(self, ending: Ending = Ending.RELEASED) -> None:
        """End the stay."""
        if self.ending is None:
            self.ending, self._replica = ending, None
