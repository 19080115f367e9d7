"""The port of the instructions: what operators tell all nodes to do, and what the nodes have done.

Strategy: an instruction is a row that every node finds, over whatever bus, or none: a node that missed a message, or
stood still, acts when it looks. The bus only says that there is something to look at. Each node writes what it has
done, so that whoever gave the instruction learns which nodes have acted, and which are silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from collab.storage.records import Instruction, NodeReport, Reports, StoredInstruction

KEPT_SECONDS: Final = 600.0
"""For so long a node that stood still, or could not reach the storage, acts on an instruction all the same."""

MAX_INSTRUCTIONS: Final = 20_000
"""Instructions that are kept at a time; past it no more are taken."""

PAGE: Final = 1_000
"""Instructions that are given at once."""

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
"""Bytes of what a node answers to an instruction."""


class Instructions(Protocol):
    """Keep instructions for some time, and what nodes report of them."""

    async def instruct(self, instruction: Instruction) -> int:
        """Keep an instruction for all nodes; return its number, from 1 and larger than all that were given before.

        It is durable from the return on. It lapses after ``KEPT_SECONDS``, or its own ``seconds`` if those are more,
        by the clock of the storage; what has lapsed goes, with its reports. Raises ``StoreRefused`` if
        ``MAX_INSTRUCTIONS`` are kept already. After ``StoreUnavailable`` it may be there.
        """
        ...

    async def instructions(self, after: int) -> list[StoredInstruction]:
        """Read those with numbers above ``after`` that have not lapsed, in order, at most ``PAGE``.

        A transaction that has begun before may still add one with a lower number, within seconds.
        """
        ...

    async def report(self, numbers: Sequence[int], report: NodeReport) -> None:
        """Note what a node has done of each of these instructions, in the place of what it has reported before."""
        ...

    async def answer(self, number: int, node: str, data: bytes) -> None:
        """Keep what a node answers to this instruction, in the place of what it has answered before.

        ``data`` is opaque here and has ``MAX_ANSWER_BYTES`` at most. It goes with its instruction; of one that is not
        there nothing is kept.
        """
        ...

    async def answers(self, number: int) -> dict[str, bytes]:
        """Read what the nodes have answered to an instruction, by their names."""
        ...

    async def reports(self, number: int) -> Reports:
        """Read what the nodes have reported of an instruction, in the order of their names.

        Silent are the servers that live, as far as their heartbeats tell (``membership``), and have reported nothing.
        """
        ...
