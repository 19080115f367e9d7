"""A sandbox that counts what becomes of its jobs, whichever sandbox that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from typing import Any, TypeVar

from collab.content.edits import Format
from collab.errors import SandboxCrashed, SandboxTimeout
from collab.sandbox.port import Sandbox
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
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.jobs: Counter[str] = Counter()
        self.under_way = 0

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """See ``Sandbox.compact``."""
        return await self._count(self._sandbox.compact(data, gc))

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """See ``Sandbox.content``."""
        return await self._count(self._sandbox.content(data, format, root))

    async def close(self) -> None:
        """See ``Sandbox.close``."""
        await self._sandbox.close()

    async def _count(self, job: Awaitable[_Result]) -> _Result:
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
