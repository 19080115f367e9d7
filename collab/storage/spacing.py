"""How far apart the snapshots of a document lie that are kept for its history: pure functions.

Strategy: a state within the history is rebuilt from the snapshot before it and the rows from there on. So what lies
between two snapshots bounds the time for that, and each snapshot is a copy of the document. Rows are allowed in
proportion to what reading the snapshot costs anyhow: a large document has few copies, a small one is always quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

SPACING_ROWS: Final = 16_384
"""Rows between two snapshots that cost some tenths of a second to read, whatever the size of the document."""

_BYTES_A_ROW: Final = 1_024
"""Bytes of a snapshot that are read in about the time of a row."""

SPACING_BYTES: Final = 4 * 1024 * 1024
"""Bytes of rows between two snapshots, whatever the size of the document."""


def most_rows(nbytes: int) -> int:
    """Give how many rows may lie behind a snapshot of so many bytes, before the next one."""
    return max(SPACING_ROWS, nbytes // _BYTES_A_ROW)


def most_bytes(nbytes: int) -> int:
    """Give how many bytes of rows may lie behind a snapshot of so many bytes."""
    return max(SPACING_BYTES, nbytes)


def superfluous(snapshots: Sequence[tuple[int, int]], bytes_between: Callable[[int, int], int]) -> list[int]:
    """Find the snapshots without which every state is rebuilt quickly all the same.

    Args:
        snapshots: their numbers, ascending, with their bytes. The oldest one, on which the history stands, and the
            two newest ones always stay.
        bytes_between: gives the bytes of the rows with numbers above the first up to the second.

    Returns:
        Their numbers, ascending.
    """
    found: list[int] = []
    if len(snapshots) < 4:
        return found
    base, size = snapshots[0]
    for (seq, nbytes), (following, _) in zip(snapshots[1:-2], snapshots[2:-1], strict=True):
        if following - base <= most_rows(size) and bytes_between(base, following) <= most_bytes(size):
            found.append(seq)
        else:
            base, size = seq, nbytes
    return found
