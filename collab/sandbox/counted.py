"""A sandbox that counts what becomes of its jobs, whichever sandbox that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from collab.content.edits import Edit, Format
from collab.errors import SandboxCrashed, SandboxTimeout
from collab.sandbox.port import Outcome, Sandbox, Stay, Task
from collab.update.compact import Compacted

_Result = TypeVar("_Result")

DONE, CRASHED, TIMED_OUT, FAILED = "done", "crashed", "timed out", "failed"
OUTCOMES = (DONE, CRASHED, TIMED_OUT, FAILED)
"""What may become of a job: it gave a result, its process died, it took too long, or it has said that it cannot."""


class CountedSandbox:
    """Pass jobs on to another sandbox (``collab.sandbox.port.Sandbox``) and count them.

    Args:
        sandbox: does the work.

    Attributes:
        jobs: how many have ended, by outcome.
        under_way: how many wait or run now.
        stays: how many documents were loaded so that they stay.
        tasks: how many edits and readings such documents were given; a job may have many.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.jobs: Counter[str] = Counter()
        self.under_way = self.stays = self.tasks = 0

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """See ``Sandbox.compact``."""
        return await self.count(self._sandbox.compact(data, gc))

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """See ``Sandbox.content``."""
        return await self.count(self._sandbox.content(data, format, root))

    async def make(self, edit: Edit, client_id: int) -> bytes:
        """See ``Sandbox.make``."""
        return await self.count(self._sandbox.make(edit, client_id))

    async def stay(self, data: bytes, client_id: int) -> CountedStay:
        """See ``Sandbox.stay``."""
        self.stays += 1
        return CountedStay(self, await self.count(self._sandbox.stay(data, client_id)))

    async def reset(
        self, documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None
    ) -> bytes:
        """See ``Sandbox.reset``."""
        return await self.count(self._sandbox.reset(documents, content, strict, known))

    async def skeleton(self, documents: Sequence[bytes], known: bytes | None) -> bytes:
        """See ``Sandbox.skeleton``."""
        return await self.count(self._sandbox.skeleton(documents, known))

    async def close(self) -> None:
        """See ``Sandbox.close``."""
        await self._sandbox.close()

    async def count(self, job: Awaitable[_Result]) -> _Result:
        """Run a job, and count what becomes of it."""
        outcome = FAILED
        self.under_way += 1
        try:
            result = await job
            outcome = DONE
            return result
        except SandboxTimeout:
            outcome = TIMED_OUT
            raise
        except SandboxCrashed:
            outcome = CRASHED
            raise
        finally:
            self.under_way -= 1
            self.jobs[outcome] += 1


class CountedStay:
    """A document that stays, whose jobs are counted (``collab.sandbox.port.Stay``)."""

    def __init__(self, sandbox: CountedSandbox, stay: Stay) -> None:
        self._sandbox = sandbox
        self._stay = stay
        self.client_id = stay.client_id

    @property
    def over(self) -> bool:
        """See ``Stay.over``."""
        return self._stay.over

    async def run(self, updates: Sequence[bytes], tasks: Sequence[Task]) -> list[Outcome]:
        """See ``Stay.run``."""
        self._sandbox.tasks += len(tasks)
        return await self._sandbox.count(self._stay.run(updates, tasks))

    def end(self) -> None:
        """See ``Stay.end``."""
        self._stay.end()
