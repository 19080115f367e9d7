"""Verifying, repairing and compacting one document while servers serve it, because an operator asks.

Strategy: what is done is that of the command line (``collab.hub.maintenance``), in slices and in the sandbox, so that
those who edit notice nothing. Few are done at a time, and one of a document. Before a document is repaired that is live
here, a snapshot is made of what memory holds: then a damaged row below it costs only the history. After a repair all
nodes read the document again, for what they hold may differ from what is stored now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from collab.errors import CollabError, DocumentBusy, StoreRefused
from collab.hub.hub import Hub
from collab.hub.maintenance import Report, carry_out, plan_repair, verify
from collab.sandbox.port import Sandbox
from collab.storage.maintenance import Maintenance
from collab.storage.records import Instruction, Kind, Reports

AT_A_TIME: Final = 2
"""Documents that are verified or repaired at a time: each is read as a whole."""


class Snapshotted(NamedTuple):
    """What became of a snapshot that was asked for: ``was`` and ``number`` are those of the newest one, 0 for none.

    ``reason`` says why there is no new one; None if there is.
    """

    number: int
    was: int
    nbytes: int
    reason: str | None


class Repaired(NamedTuple):
    """What a repair has done, or would do.

    Attributes:
        steps: what was or would be done, in words.
        kept: files of this node with the damaged bytes.
        report: what is found now.
        reloaded: what the nodes have said that were to read the document again; None if none was to.
    """

    steps: list[str]
    kept: list[Path]
    report: Report
    reloaded: Reports | None


class Upkeep:
    """Does it on this node.

    Args:
        hub: has the rooms.
        store: shows everything that it keeps.
        sandbox: looks at whole documents.
        directory: where damaged bytes are kept.
    """

    def __init__(self, hub: Hub, store: Maintenance, sandbox: Sandbox, directory: Path) -> None:
        self._hub = hub
        self._store = store
        self._sandbox = sandbox
        self._directory = directory
        self._busy: set[str] = set()

    async def verify(self, name: str) -> Report:
        """Read all that is kept of a document; note what is damaged.

        Raises:
            DocumentNotFound, DocumentDeleted: there is no such document.
            DocumentBusy: too many are looked at now, or this one is.
            SandboxError: it cannot be looked at now.
            StoreUnavailable.
        """
        with self._place(name):
            return await self._verify(name)

    async def repair(self, name: str, *, dry_run: bool) -> Repaired:
        """Put in order what is damaged of a document, or only say what would be done.

        Raises:
            CollabError: damaged bytes cannot be kept; nothing has changed from that step on. Else as ``verify``.
        """
        with self._place(name):
            report = await self._verify(name)
            if not dry_run and not report.whole and name in self._hub.rooms:
                with contextlib.suppress(CollabError):
                    await self._hub.compact_now(name)
                report = await self._verify(name)
            document = (await self._store.describe(name)).document
            steps = await plan_repair(self._store, document, report)
            forgets = report.whole and report.noted
            texts = [step.text for step in steps]
            if forgets:
                texts.append("forget that it is noted as damaged: it is whole")
            left = [f"not repaired: {reason}" for reason in report.left]
            if dry_run or not texts:
                return Repaired([*texts, *left], [], report, None)
            kept = await carry_out(self._store, document, steps, self._directory)
            report = await self._verify(name)
            reloaded = None
            with contextlib.suppress(StoreRefused):  # too many instructions: the repair is done all the same
                reloaded = await self._hub.control.give(Instruction(Kind.RELOAD, name))
            return Repaired([*texts, *left], kept, report, reloaded)

    async def compact(self, name: str) -> Snapshotted:
        """Make a snapshot of a document, here, whichever node has it open; raises as ``Hub.compact_now``."""
        live = await self._hub.open_existing(name)
        log = live.persistence
        was = log.snapshot_seq
        if log.seq <= was and not log.uncommitted:
            return Snapshotted(was, was, log.snapshot_bytes, "there is nothing new since the last one")
        if live.room.document.waiting:
            return Snapshotted(was, was, log.snapshot_bytes, "rows wait for what the log lacks")
        await self._hub.compact_now(name)
        reason = None if log.snapshot_seq > was else "another node is making one, or edits came in between"
        return Snapshotted(log.snapshot_seq, was, log.snapshot_bytes, reason)

    async def _verify(self, name: str) -> Report:
        document = (await self._store.describe(name)).document
        return await verify(self._store, document, find_hazard=self._sandbox.find_hazard)

    @contextlib.contextmanager
    def _place(self, name: str) -> Iterator[None]:
        if name in self._busy:
            raise DocumentBusy(f"{name!r} is looked at already", public="the document is looked at already")
        if len(self._busy) >= AT_A_TIME:
            raise DocumentBusy(f"{AT_A_TIME} documents are looked at", public="too many documents are looked at now")
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)
