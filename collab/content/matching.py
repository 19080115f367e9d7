"""Which nodes of two trees belong together.

Strategy: equal subtrees first, by the longest common subsequence of siblings. What lies between is paired by how much
text two nodes of one name share, in order, and what is left then by name alone. Pairs never cross: a node that moved is
another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from collab.content.difference import Work, compare
from collab.content.tree import Element, Node, TextNode, text_of

# Pairs of siblings that are compared by their text; above, only names are.
_COMPARED: Final = 2_500
# Characters of a node by which it is compared.
_SAMPLE: Final = 4_000
# What two nodes must share to be paired before others: of the words of the longer one.
_ALIKE: Final = 0.3


class Sample:
    """What a node is compared by."""

    __slots__ = ("name", "size", "text", "words")

    def __init__(self, node: Node) -> None:
        self.name = "" if isinstance(node, TextNode) else node.name
        self.text = _sample(node)
        self.words = Counter(self.text.split())
        self.size = sum(self.words.values())


def pair(old: Sequence[Node], new: Sequence[Node], work: Work) -> list[tuple[int, int]]:
    """Return which of the old nodes become which of the new ones: ascending in both, and never of different names."""
    if not old or not new:
        return []
    if len(old) * len(new) > _COMPARED:
        return _by_name([_name(node) for node in old], [_name(node) for node in new], work)
    ours, theirs = [Sample(node) for node in old], [Sample(node) for node in new]
    pairs: list[tuple[int, int]] = []
    at = new_at = 0
    for i, j in [*_best(ours, theirs), (len(old), len(new))]:
        rest = _by_name([one.name for one in ours[at:i]], [one.name for one in theirs[new_at:j]], work)
        pairs += [(at + a, new_at + b) for a, b in rest]
        if i < len(old):
            pairs.append((i, j))
        at, new_at = i + 1, j + 1
    return pairs


def _best(old: Sequence[Sample], new: Sequence[Sample]) -> list[tuple[int, int]]:
    """Return the pairs in order that share the most."""
    best = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    scores = [[_alike(one, other) for other in new] for one in old]
    for i in range(len(old) - 1, -1, -1):
        for j in range(len(new) - 1, -1, -1):
            best[i][j] = max(best[i + 1][j], best[i][j + 1], scores[i][j] + best[i + 1][j + 1] if scores[i][j] else 0.0)
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        if scores[i][j] and best[i][j] == scores[i][j] + best[i + 1][j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _alike(one: Sample, other: Sample) -> float:
    """Tell how much two nodes share, from 0 to 1; 0 if it is too little to pair them for it."""
    if one.name != other.name:
        return 0.0
    longest = max(one.size, other.size)
    if not longest:
        return 0.5
    score = sum((one.words & other.words).values()) / longest
    if score < _ALIKE:
        # Words that were not finished, or languages without spaces.
        low, high = sorted((one.text, other.text), key=len)
        start = 0
        while start < len(low) and low[start] == high[start]:
            start += 1
        back = 0
        while back < len(low) - start and low[-1 - back] == high[-1 - back]:
            back += 1
        score = (start + back) / max(1, len(high))
    return score if score >= _ALIKE else 0.0


def _by_name(old: Sequence[str], new: Sequence[str], work: Work) -> list[tuple[int, int]]:
    """Pair what has the same name, in order."""
    pairs: list[tuple[int, int]] = []
    at = new_at = 0
    hunks = compare(old, new, work) if old and new else []
    if not hunks:
        return [(i, i) for i in range(min(len(old), len(new)))]
    for hunk in hunks:
        pairs += [(at + i, new_at + i) for i in range(hunk.start - at)]
        at, new_at = hunk.stop, hunk.new_stop
    return pairs + [(at + i, new_at + i) for i in range(len(old) - at)]


def _name(node: Node) -> str:
    return "" if isinstance(node, TextNode) else node.name


def _sample(node: Node) -> str:
    """Return the beginning of a node's text."""
    parts: list[str] = []
    left = _SAMPLE
    stack: list[Node] = [node]
    while stack and left > 0:
        here = stack.pop()
        if isinstance(here, Element):
            stack += reversed(here.children)
            continue
        text = text_of(here.pieces)[:left]
        left -= len(text)
        parts.append(text)
    return " ".join(parts)
