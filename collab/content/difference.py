"""What of two sequences is equal, in bounded time.

Strategy: equal ends go first, at the speed of comparing strings. Between them the shortest difference is looked for
(Myers, "An O(ND) Difference Algorithm and Its Variations", 1986: the middle snake, so memory is linear). That is quick
when little differs and quadratic when much does. So work is counted, and when it is used up, the stretch that is open
is compared in a way that takes linear time: by what is in both just once, and between that by looking a few places
ahead. Long texts are compared by lines first, then the lines that differ by words, then those words by characters: what
is used up early costs fineness and never the right result.

Characters are code points here. So no difference begins or ends within a surrogate pair.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final, NamedTuple

WORK: Final = 400_000
"""Steps of the search that a difference may take: about 0.2 s."""
MAX_HUNKS: Final = 4_000
"""Stretches that a difference may have: each costs a search for its place in the document."""

# Above so many characters, both together, lines are compared before words, and words before characters.
_BY_LINES: Final = 4_000
_BY_WORDS: Final = 400
# Places that are looked ahead, in both together, when the work is used up.
_LOOK_AHEAD: Final = 12
_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")
_WORDS: Final = re.compile(r"\w+|[^\w\s]|\s+")


class Hunk(NamedTuple):
    """A stretch that differs: ``old[start:stop]`` is to become ``new[new_start:new_stop]``."""

    start: int
    stop: int
    new_start: int
    new_stop: int


class Work:
    """What may be spent on differences; several of them may share it."""

    __slots__ = ("left",)

    def __init__(self, left: int = WORK) -> None:
        self.left = left


def compare(old: Sequence[Hashable], new: Sequence[Hashable], work: Work | None = None) -> list[Hunk]:
    """Return the stretches of two sequences that differ, ascending."""
    work = work or Work()
    numbers: dict[Hashable, int] = {}
    one = [numbers.setdefault(value, len(numbers)) for value in old]
    other = [numbers.setdefault(value, len(numbers)) for value in new]
    return _joined(_search(one, other, work))


def compare_texts(old: str, new: str, work: Work | None = None) -> list[Hunk]:
    """Return the stretches of two texts that differ, ascending, in code points."""
    work = work or Work()
    start, stop, new_stop = _inner(old, new)
    if start in (stop, new_stop):
        return [Hunk(start, stop, start, new_stop)] if stop != new_stop or start != stop else []
    found = _compare_texts(old[start:stop], new[start:new_stop], start, start, work)
    return _bounded(_joined(found))


def _inner(old: str, new: str) -> tuple[int, int, int]:
    """Return where two texts begin to differ, and where in each they cease to."""
    start = _common(old, new)
    back = _common(old[start:], new[start:], backward=True)
    return start, len(old) - back, len(new) - back


def _common(old: str, new: str, backward: bool = False) -> int:
    """Return how many characters two texts have in common at the beginning, or at the end."""
    low, high = 0, min(len(old), len(new))
    if backward:
        if old[len(old) - high :] == new[len(new) - high :]:
            return high
        while high - low > 1:
            middle = (low + high) // 2
            # What is below ``low`` is known to be equal.
            if old[len(old) - middle : len(old) - low] == new[len(new) - middle : len(new) - low]:
                low = middle
            else:
                high = middle
        return low
    if old[:high] == new[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _compare_texts(old: str, new: str, at: int, new_at: int, work: Work) -> list[Hunk]:
    """Compare by lines, words or characters, whichever is the coarsest that is worth it."""
    size = len(old) + len(new)
    for least, tokens in ((_BY_LINES, _LINES), (_BY_WORDS, _WORDS)):
        if size <= least:
            continue
        one, other = tokens.findall(old), tokens.findall(new)
        hunks = compare(one, other, work)
        if len(hunks) == 1 and hunks[0].stop - hunks[0].start == len(one) and hunks[0].new_stop == len(other):
            continue  # nothing in common: finer
        starts, new_starts = _offsets(one), _offsets(other)
        found: list[Hunk] = []
        for hunk in hunks:
            a, b = starts[hunk.start], starts[hunk.stop]
            c, d = new_starts[hunk.new_start], new_starts[hunk.new_stop]
            if a == b or c == d:
                found.append(Hunk(at + a, at + b, new_at + c, new_at + d))
                continue
            inner, stop, new_stop = _inner(old[a:b], new[c:d])
            if inner in (stop, new_stop):
                found.append(Hunk(at + a + inner, at + a + stop, new_at + c + inner, new_at + c + new_stop))
            else:
                old_part, new_part = old[a + inner : a + stop], new[c + inner : c + new_stop]
                if work.left > 0 and len(old_part) + len(new_part) < size:
                    found += _compare_texts(old_part, new_part, at + a + inner, new_at + c + inner, work)
                else:
                    found.append(Hunk(at + a + inner, at + a + stop, new_at + c + inner, new_at + c + new_stop))
        return found
    hunks = compare(old, new, work)
    kept = len(old) - sum(hunk.stop - hunk.start for hunk in hunks)
    # A few letters that two words happen to share are no common text: typing between them would come out torn.
    if kept * 2 < min(len(old), len(new)):
        hunks = [Hunk(0, len(old), 0, len(new))]
    return [Hunk(at + a, at + b, new_at + c, new_at + d) for a, b, c, d in hunks]


def _offsets(tokens: Sequence[str]) -> list[int]:
    """Return where each token begins, and where the last one ends."""
    offsets = [0]
    for token in tokens:
        offsets.append(offsets[-1] + len(token))
    return offsets


def _joined(hunks: list[Hunk]) -> list[Hunk]:
    """Join hunks between which nothing lies."""
    joined: list[Hunk] = []
    for hunk in hunks:
        if joined and joined[-1].stop == hunk.start and joined[-1].new_stop == hunk.new_start:
            joined[-1] = Hunk(joined[-1].start, hunk.stop, joined[-1].new_start, hunk.new_stop)
        else:
            joined.append(hunk)
    return joined


def _bounded(hunks: list[Hunk]) -> list[Hunk]:
    """Join those between which the least lies, until there are no more than may be."""
    gap = 1
    while len(hunks) > MAX_HUNKS:
        joined = hunks[:1]
        for hunk in hunks[1:]:
            if hunk.start - joined[-1].stop <= gap:
                joined[-1] = Hunk(joined[-1].start, hunk.stop, joined[-1].new_start, hunk.new_stop)
            else:
                joined.append(hunk)
        hunks = joined
        gap *= 2
    return hunks


def _search(old: list[int], new: list[int], work: Work) -> list[Hunk]:
    """Find the shortest difference, as far as the work reaches; without recursion, for that may go deep."""
    hunks: list[Hunk] = []
    boxes = [(0, len(old), 0, len(new))]
    while boxes:
        a, b, c, d = boxes.pop()
        while a < b and c < d and old[a] == new[c]:
            a += 1
            c += 1
        while a < b and c < d and old[b - 1] == new[d - 1]:
            b -= 1
            d -= 1
        if a == b and c == d:
            continue
        if a == b or c == d:
            hunks.append(Hunk(a, b, c, d))
            continue
        snake = _middle(old, new, a, b, c, d, work)
        if snake is None:
            hunks += _rough(old, new, a, b, c, d)
            continue
        x, y, u, v = snake
        if (u - a, v - c) == (0, 0) or (x, y) == (b, d):  # never; but it would never end
            hunks.append(Hunk(a, b, c, d))
            continue
        # The later box is put down first: hunks come out ascending.
        boxes.append((u, b, v, d))
        boxes.append((a, x, c, y))
    return hunks


def _middle(
    old: list[int], new: list[int], a: int, b: int, c: int, d: int, work: Work
) -> tuple[int, int, int, int] | None:
    """Find the middle snake of ``old[a:b]`` and ``new[c:d]``: where it begins and ends in both; None if out of work."""
    n, m = b - a, d - c
    delta = n - m
    odd = delta & 1
    # The furthest point on each diagonal, seen from either end; those that left the box are not there.
    forward = {1: 0}
    backward = {1: 0}
    for steps in range((n + m + 1) // 2 + 1):
        work.left -= 2 * (steps + 1)
        if work.left < 0:
            return None
        for k in range(-steps, steps + 1, 2):
            x = _next(forward, k, n, m)
            if x < 0:
                continue
            begin = x
            while x < n and x - k < m and old[a + x] == new[c + x - k]:
                x += 1
            work.left -= x - begin
            forward[k] = x
            if odd and -steps < delta - k < steps and x + backward.get(delta - k, -n - 1) >= n:
                return a + begin, c + begin - k, a + x, c + x - k
        for k in range(-steps, steps + 1, 2):
            x = _next(backward, k, n, m)
            if x < 0:
                continue
            begin = x
            while x < n and x - k < m and old[b - 1 - x] == new[d - 1 - x + k]:
                x += 1
            work.left -= x - begin
            backward[k] = x
            if not odd and -steps <= delta - k <= steps and x + forward.get(delta - k, -n - 1) >= n:
                return b - x, d - x + k, b - begin, d - begin + k
    return None


def _next(points: dict[int, int], k: int, n: int, m: int) -> int:
    """Return where diagonal ``k`` begins with one step more; -1, and no point, where the box ends before."""
    x = points.get(k + 1, -1)
    if x - k > m or x - k < 0:
        x = -1
    other = points.get(k - 1, n)
    if other < n and other + 1 > x:
        x = other + 1
    if x < 0:
        points.pop(k, None)
    return x


def _rough(old: list[int], new: list[int], a: int, b: int, c: int, d: int) -> list[Hunk]:
    """Compare ``old[a:b]`` and ``new[c:d]`` in linear time: what is in both just once is where they meet."""
    hunks: list[Hunk] = []
    for x, y in [*_anchors(old, new, a, b, c, d), (b, d)]:
        # Without its equal end, so that no stretch reaches over it.
        u, v = x, y
        while u > a and v > c and old[u - 1] == new[v - 1]:
            u -= 1
            v -= 1
        hunks += _ahead(old, new, a, u, c, v)
        a, c = x, y
    return hunks


def _anchors(old: list[int], new: list[int], a: int, b: int, c: int, d: int) -> list[tuple[int, int]]:
    """Return the most places in the same order at which both hold a value that either holds just once."""
    counts = Counter(old[a:b])
    counts.update(new[c:d])
    places = {new[at]: at for at in range(c, d)}
    pairs = [(at, places[old[at]]) for at in range(a, b) if counts[old[at]] == 2 and old[at] in places]
    # The longest run that ascends in both: of each length the one that ends lowest, and what came before it.
    lowest: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for number, (_, y) in enumerate(pairs):
        length = bisect_left(lowest, y)
        if length == len(lowest):
            lowest.append(y)
            ends.append(number)
        else:
            lowest[length] = y
            ends[length] = number
        before.append(ends[length - 1] if length else -1)
    found: list[tuple[int, int]] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        found.append(pairs[at])
        at = before[at]
    return found[::-1]


def _ahead(old: list[int], new: list[int], a: int, b: int, c: int, d: int) -> list[Hunk]:
    """Compare by going on from each difference to the nearest place at which three in a row are equal."""
    hunks: list[Hunk] = []
    while a < b or c < d:
        if a < b and c < d and old[a] == new[c]:
            a += 1
            c += 1
            continue
        hunk = Hunk(a, b, c, d)
        for distance in range(1, _LOOK_AHEAD + 1):
            for skipped in range(distance + 1):
                x, y = a + skipped, c + distance - skipped
                if x < b and y < d and old[x] == new[y] and old[x : min(x + 3, b)] == new[y : min(y + 3, d)]:
                    hunk = Hunk(a, x, c, y)
                    break
            else:
                continue
            break
        hunks.append(hunk)
        a, c = hunk.stop, hunk.new_stop
    return hunks
