"""Two changes of one text, put together.

Strategy: what two people have made of a text is compared with what it was. Then each stretch that either has deleted is
gone, and each stretch that either has inserted is there, as if both had typed at the same time into a shared text. So
there is no conflict to be solved by anybody, and nothing that one of them has written is lost. What both have
changed in the same way is changed once, so a change may be merged again.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from collab.content.difference import compare_texts

# How far a stretch is moved at most to be whole words: further than a long word.
_FAR: Final = 100


def merge_texts(base: str, mine: str, theirs: str) -> str:
    """Return ``theirs`` with the change from ``base`` to ``mine``.

    Where both have inserted at one place, theirs comes first.
    """
    if mine in (base, theirs):
        return theirs
    if theirs == base:
        return mine
    others = _changes(base, theirs)
    changes = [*others, *(change for change in _changes(base, mine) if change not in others)]
    inserted: dict[int, str] = {}
    # How many deletions begin and end at a place of the base.
    begun: dict[int, int] = {}
    for start, stop, text in changes:
        inserted[start] = inserted.get(start, "") + text
        begun[start] = begun.get(start, 0) + 1
        begun[stop] = begun.get(stop, 0) - 1
    out: list[str] = []
    deletions = 0
    places = sorted({0, *inserted, *begun, len(base)})
    for place, following in pairwise([*places, len(base)]):
        out.append(inserted.get(place, ""))
        deletions += begun.get(place, 0)
        if not deletions:
            out.append(base[place:following])
    return "".join(out)


def _changes(old: str, new: str) -> dict[tuple[int, int, str], None]:
    """Return from where to where the old text is deleted, and what is inserted there; in order."""
    changes: dict[tuple[int, int, str], None] = {}
    before = 0
    for hunk in compare_texts(old, new):
        start, stop, text = hunk.start, hunk.stop, new[hunk.new_start : hunk.new_stop]
        if start == stop:
            back = _words_back(old, text, before, start)
            text = text[len(text) - back % len(text) :] + text[: len(text) - back % len(text)]
            start = stop = start - back
        elif not text:
            back = _words_back(old, old[start:stop], before, start)
            start, stop = start - back, stop - back
        changes[start, stop, text] = None
        before = stop
    return changes


def _words_back(old: str, moved: str, least: int, at: int) -> int:
    """Return how far a stretch that comes or goes at a place is to be moved to the left, to be whole words or lines.

    "two " and "wo t" are the same deletion in "one two three". Both texts stay what they are by such a move, but what
    somebody else has written in between is torn only by one of them.
    """
    best, chosen = _edges(old[at - 1 : at], moved), 0
    for back in range(1, min(at - least, _FAR) + 1):
        if old[at - back] != moved[-1]:
            break
        moved = moved[-1] + moved[:-1]
        found = _edges(old[at - back - 1 : at - back], moved)
        if found > best:
            best, chosen = found, back
    return chosen


def _edges(before: str, moved: str) -> int:
    """Rate the edges of a stretch: those of lines, then those of words, then those within a word."""
    if before in ("", "\n"):
        return 2
    return 1 if before.isspace() or not (before.isalnum() and moved[0].isalnum()) else 0
