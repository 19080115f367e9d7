"""A sandbox that counts what becomes of its jobs, whichever sandbox that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar

from collab.content.edits import Edit, Format
from collab.errors import SandboxCrashed, SandboxTimeout
from collab.history import tasks
from collab.history.packed import PackedRows
from collab.sandbox.port import Ending, Outcome, Sandbox, Stay, Task
from collab.telemetry.tracing import span
from collab.update.compact import Compacted

_Result = TypeVar("_Result")

DONE, CRASHED, TIMED_OUT, FAILED = "done", "crashed", "timed out", "failed"
OUTCOMES = (DONE, CRASHED, TIMED_OUT, FAILED)
"""What may become of a job: it gave a result, its process died, it took too long, or it has said that it cannot."""

COMPACTION, CONTENT, CREATION, LOAD, EDITS = "compaction", "content", "creation", "load", "edits"
RESET, SKELETON, VERIFICATION, REBUILDING = "reset", "skeleton", "verification", "rebuilding"

_HISTORY: Final[Mapping[type[tasks.Task | tasks.Question], str]] = {
    tasks.Advance: "attribution",
    tasks.Show: "authors",
    tasks.Changes: "changes",
    tasks.Restore: "restore",
    tasks.Undo: "undo",
}

KINDS: Final = (
    COMPACTION,
    CONTENT,
    CREATION,
    LOAD,
    EDITS,
    RESET,
    SKELETON,
    VERIFICATION,
    REBUILDING,
    *_HISTORY.values(),
)
"""What jobs are for, each a method of the sandbox or a task of the history.

``load`` is of a document that stays, and ``edits`` are edits and readings of one that stays.
"""


class CountedSandbox:
    """Pass jobs on to another sandbox (``collab.sandbox.port.Sandbox``) and count them.

    Args:
        sandbox: does the work.

    Attributes:
        jobs: how many have ended, by kind and outcome.
        under_way: how many wait or run now.
        loaded: how many documents were loaded so that they stay.
        tasks: how many edits and readings such documents were given; a job may have many.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.jobs: Counter[tuple[str, str]] = Counter()
        self.under_way = self.loaded = self.tasks = 0
        self._stays: set[CountedStay] = set()
        self._ended: Counter[Ending] = Counter()

    async def compact(self, data: bytes, gc: bool) -> Compacted:
        """See ``Sandbox.compact``."""
        return await self.count(COMPACTION, self._sandbox.compact(data, gc))

    async def content(self, data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
        """See ``Sandbox.content``."""
        return await self.count(CONTENT, self._sandbox.content(data, format, root))

    async def show(self, data: bytes, format: Format, root: str | None = None) -> bytes:
        """See ``Sandbox.show``."""
        return await self.count(CONTENT, self._sandbox.show(data, format, root))

    async def make(self, edit: Edit, client_id: int) -> bytes:
        """See ``Sandbox.make``."""
        return await self.count(CREATION, self._sandbox.make(edit, client_id))

    async def stay(self, data: bytes, client_id: int) -> CountedStay:
        """See ``Sandbox.stay``."""
        stay = CountedStay(self, await self.count(LOAD, self._sandbox.stay(data, client_id)), len(data))
        self.loaded += 1
        self._look()
        self._stays.add(stay)
        return stay

    @property
    def staying(self) -> int:
        """How many documents stay now."""
        self._look()
        return len(self._stays)

    @property
    def staying_bytes(self) -> int:
        """How many bytes they have, encoded; at most, for what updates replace is counted too."""
        self._look()
        return sum(stay.nbytes for stay in self._stays)

    @property
    def ended(self) -> Counter[Ending]:
        """How many stays have ended, by why."""
        self._look()
        return self._ended

    def _look(self) -> None:
        """Find the stays that have ended; they do so by themselves, and tell nobody."""
        for stay in [stay for stay in self._stays if stay.over]:
            self._stays.discard(stay)
            self._ended[stay.ending or Ending.RELEASED] += 1

    async def reset(
        self, documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None
    ) -> bytes:
        """See ``Sandbox.reset``."""
        return await self.count(RESET, self._sandbox.reset(documents, content, strict, known))

    async def skeleton(self, documents: Sequence[bytes], known: bytes | None) -> bytes:
        """See ``Sandbox.skeleton``."""
        return await self.count(SKELETON, self._sandbox.skeleton(documents, known))

    async def find_hazard(self, data: bytes) -> str | None:
        """See ``Sandbox.find_hazard``."""
        return await self.count(VERIFICATION, self._sandbox.find_hazard(data))

    async def show_history(self, question: tasks.Question) -> tasks.Shown:
        """See ``Sandbox.show_history``."""
        return await self.count(_HISTORY[type(question)], self._sandbox.show_history(question))

    async def look_back(self, task: tasks.Task) -> bytes:
        """See ``Sandbox.look_back``."""
        return await self.count(_HISTORY[type(task)], self._sandbox.look_back(task))

    async def rebuild(
        self, snapshot: bytes | None, index: bytes | None, rows: PackedRows, *, patient: bool = False
    ) -> Compacted | None:
        """See ``Sandbox.rebuild``."""
        return await self.count(REBUILDING, self._sandbox.rebuild(snapshot, index, rows, patient=patient))

    async def close(self) -> None:
        """See ``Sandbox.close``."""
        await self._sandbox.close()

    async def count(self, kind: str, job: Awaitable[_Result]) -> _Result:
        """Run a job of a kind, and count what becomes of it."""
        outcome = FAILED
        self.under_way += 1
        try:
            with span("sandbox job", {"collab.job": kind}):
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
            self.jobs[kind, outcome] += 1


class CountedStay:
    """A document that stays, whose jobs are counted (``collab.sandbox.port.Stay``).

    ``nbytes`` is how many bytes it was given, encoded.
    """

    def __init__(self, sandbox: CountedSandbox, stay: Stay, nbytes: int) -> None:
        self._sandbox = sandbox
        self._stay = stay
        self.client_id = stay.client_id
        self.nbytes = nbytes

    @property
    def ending(self) -> Ending | None:
        """See ``Stay.ending``."""
        return self._stay.ending

    @property
    def over(self) -> bool:
        """See ``Stay.over``."""
        return self._stay.over

    async def run(self, updates: Sequence[bytes], tasks: Sequence[Task]) -> list[Outcome]:
        """See ``Stay.run``."""
        self._sandbox.tasks += len(tasks)
        self.nbytes += sum(map(len, updates))
        return await self._sandbox.count(EDITS, self._stay.run(updates, tasks))

    def end(self) -> None:
        """See ``Stay.end``."""
        self._stay.end()
