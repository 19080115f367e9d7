"""Merge updates by putting them behind each other, and take from one what a state vector lacks.

Strategy: a struct is a self-contained run of bytes, so both move runs, and only a struct in which a
known clock falls is cut. Nothing is re-encoded, hence nothing is lost that this code does not know.
Where clocks are lacking between two runs a Skip says so, as yjs ``mergeUpdates`` writes it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from collab.protocol.lib0 import encode_var_uint
from collab.update.delete_set import encode_delete_set
from collab.update.reader import Section, Update, read_update
from collab.update.structs import suffix


class Run(NamedTuple):
    """Structs of one client, ready to be put behind others: ``structs`` many for the clocks [clock, end).

    ``marks`` is clock, offset in ``data``, ordinal, clock, ..., as a `Section` has them.
    """

    client: int
    clock: int
    end: int
    structs: int
    data: bytes
    marks: Sequence[int]


def cut_section(data: bytes, section: Section, known: int, end: int) -> Run:
    """Return the structs of ``section`` from clock ``known`` up to ``end``.

    ``known`` may fall into a struct, which is cut then; ``end`` must lie between two structs.
    """
    count = section.count
    start, stop = section.start, section.stop
    passed = 0
    head = b""
    if end < section.end:
        offset, clock, ordinal = _mark(section, end - 1)
        count, _, stop = suffix(data, offset, stop, clock, section.client, end)
        count += ordinal
    if known > section.clock:
        offset, clock, ordinal = _mark(section, known - 1)
        passed, head, start = suffix(data, offset, stop, clock, section.client, known)
        passed += ordinal - (1 if head else 0)
    else:
        known = section.clock
    marks: list[int] = []
    for at in range(0, len(section.marks), 3):
        if start < section.marks[at + 1] < stop:
            marks += (section.marks[at], section.marks[at + 1] - start + len(head), section.marks[at + 2] - passed)
    body = data[start:stop]
    return Run(section.client, known, end, count - passed, head + body if head else body, marks)


def _mark(section: Section, clock: int) -> tuple[int, int, int]:
    """Return offset, clock and ordinal of the last mark at or before ``clock``."""
    marks = section.marks
    at = bisect_right(marks[0::3], clock) * 3 - 3
    if at < 0:
        return section.start, section.clock, 0
    return marks[at + 1], marks[at], marks[at + 2]


def encode_runs(runs: Mapping[int, Sequence[Run]], deletes: bytes) -> bytes:
    """Encode the runs of each client, ascending and without overlap, and an encoded delete set as an update."""
    parts = [encode_var_uint(len(runs))]
    for client in sorted(runs, reverse=True):
        count = 0
        body: list[bytes] = []
        end = runs[client][0].clock
        for run in runs[client]:
            if run.clock > end:
                body.append(b"\x0a" + encode_var_uint(run.clock - end))
                count += 1
            body.append(run.data)
            count += run.structs
            end = run.end
        parts += (encode_var_uint(count), encode_var_uint(client), encode_var_uint(runs[client][0].clock))
        parts += body
    parts.append(deletes)
    return b"".join(parts)


def merge_updates(parts: Sequence[bytes]) -> bytes:
    """Merge v1 updates into one that holds what they hold (yjs ``mergeUpdates``).

    Made for the rows of one log, whose runs follow on each other; other orders and overlaps are taken too
    (the first of two that hold a clock wins). Raises UpdateError when one of them is malformed.
    """
    if len(parts) == 1:
        return parts[0]
    return merge_read_updates(list(map(read_update, parts)))


def merge_read_updates(updates: Sequence[Update]) -> bytes:
    """Merge updates that have been read; see `merge_updates`."""
    sections: dict[int, list[tuple[int, int, Section]]] = {}
    deletes: dict[int, list[tuple[int, int]]] = {}
    for at, update in enumerate(updates):
        for section in update.sections:
            if section.count:
                sections.setdefault(section.client, []).append((section.clock, at, section))
        for entry in update.deletes:
            deletes.setdefault(entry.client, []).extend(pairs(entry.ranges))
    runs: dict[int, list[Run]] = {}
    for client, found in sections.items():
        found.sort(key=_by_clock)
        run: list[Run] = []
        end = -1
        for clock, at, section in found:
            if section.end > end:
                run.append(cut_section(updates[at].data, section, max(clock, end), section.end))
                end = section.end
        runs[client] = run
    return encode_runs(runs, encode_delete_set({client: ranges for client, ranges in deletes.items() if ranges}))


def diff_update(data: bytes, vector: Mapping[int, int], *, stored: bool = False) -> bytes:
    """Return what ``data`` holds past the state vector, and its whole delete set (yjs ``diffUpdate``).

    ``stored`` is what it is for `read_update`. Raises UpdateError when ``data`` is malformed.
    """
    update = read_update(data, stored=stored)
    runs: dict[int, list[Run]] = {}
    for section in update.sections:
        known = vector.get(section.client, 0)
        if section.count and section.end > known:
            runs.setdefault(section.client, []).append(cut_section(data, section, known, section.end))
    return encode_runs(runs, data[update.deletes_start :])


def pairs(ranges: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Turn clock, length, clock, length ... into (start, end) pairs."""
    return ((ranges[at], ranges[at] + ranges[at + 1]) for at in range(0, len(ranges), 2))


def _by_clock(found: tuple[int, int, Section]) -> tuple[int, int]:
    """Order sections by clock, then by update."""
    return found[0], found[1]
