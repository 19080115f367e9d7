"""Checksums of rows and snapshots: made by whoever writes them, kept by the store, checked by whoever reads them.

Strategy: CRC-32 of the standard library. It finds what disks, memory and hands do to bytes: every error of up to three
bits in a usual row, every run of up to 32 bits, and of all else one in four thousand million stays unseen. It costs
0.1 microseconds for a row and a quarter of a millisecond for a megabyte (docs/decisions/0014). It is no protection
against somebody who wants to deceive. None says that nobody knows: an older release has written it.

The values are below 2**32. Larger ones are left to other algorithms of later releases; here they say nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar
from zlib import crc32

from collab.authorship import Note
from collab.history.packed import KNOWN
from collab.storage.records import LogRow, NewRow, Snapshot

LARGE_BYTES = 1024 * 1024
"""From here on a checksum is made in a thread: a megabyte is a quarter of a millisecond of the event loop."""

_Result = TypeVar("_Result")


def row_checksum(data: bytes, author: str | None) -> int:
    """Make the checksum of a row's content: what was written, and by whom."""
    # As ``checksum_of``, without a call: it is made for each row that is written.
    checksum = crc32(data)
    return checksum if author is None else crc32(author.encode("utf-8", "surrogatepass"), checksum)


def renamed_checksum(data: bytes, was: str | None, author: str | None, checksum: int) -> int:
    """Give the checksum of a row whose author gets another name. One that was wrong stays wrong."""
    if checksum >= KNOWN:
        return checksum
    return checksum ^ row_checksum(data, was) ^ row_checksum(data, author)


def seal_row(data: bytes, at: float, author: str | None, note: Note | None = None) -> NewRow:
    """Make a row with its checksum, which does not cover the note: releases that know none compare it too."""
    return NewRow(data, at, author, row_checksum(data, author), note)


def snapshot_checksum(snapshot: Snapshot) -> int:
    """Make the checksum of a snapshot: of all its bytes and of its number."""
    checksum = crc32(b"%d" % snapshot.seq)
    for part in (snapshot.state_vector, snapshot.index, snapshot.data):
        checksum = crc32(part, crc32(b"%d:" % len(part), checksum))
    return checksum


def seal_snapshot(snapshot: Snapshot) -> Snapshot:
    """Give a snapshot with its checksum."""
    return replace(snapshot, checksum=snapshot_checksum(snapshot))


def is_damaged(row: LogRow | NewRow) -> bool:
    """Tell whether a row's bytes are not those that were written; False too if nobody knows."""
    checksum = row.checksum
    return checksum is not None and checksum < KNOWN and checksum != row_checksum(row.data, row.author)


def is_damaged_snapshot(snapshot: Snapshot) -> bool:
    """Tell whether a snapshot's bytes are not those that were written; False too if nobody knows."""
    checksum = snapshot.checksum
    return checksum is not None and checksum < KNOWN and checksum != snapshot_checksum(snapshot)


def is_verified(checksum: int | None) -> bool:
    """Tell whether there is a checksum that this release can compare."""
    return checksum is not None and 0 <= checksum < KNOWN


def damaged_rows(rows: Iterable[LogRow]) -> list[int]:
    """Give the numbers of the rows that are damaged."""
    return [row.seq for row in rows if is_damaged(row)]


async def beside_the_loop(nbytes: int, function: Callable[[], _Result]) -> _Result:
    """Call a function that reads ``nbytes``, in a thread if these are many."""
    return function() if nbytes < LARGE_BYTES else await asyncio.to_thread(function)
