"""A text or a rich text with who wrote what, and with what was deleted in between.

Strategy: the items of a root lie in the order of the text, deleted ones too. So a walk over them gives the text in runs
of one attribution each. A run that was deleted in the interval is shown with who has deleted it; what was deleted
before, or has both come and gone in it, is not there at all. Formats and attributes are those of the end.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from collab.errors import NoSuchContent, WrongContentType
from collab.history.attribution import Attribution
from collab.history.items import Branch, Item, Items
from collab.history.values import format_of, value_of
from collab.protocol.lib0 import read_var_uint
from collab.update.reader import ANY, EMBED, FORMAT, JSON, STRING, TYPE

YCHANGE: Final = "ychange"
"""The mark, and the attribute of nodes, by which y-prosemirror shows changes."""

_TEXTS: Final = (2, 6)
_ELEMENT: Final = 3


class Run(NamedTuple):
    """A part of a list that has one attribution.

    Attributes:
        item: what it is a part of.
        start: its first clock.
        end: the clock behind its last one.
        inserted: the number of the mark of who has inserted it; None: before the interval, or nobody knows.
        deleted: the number of the mark of who has deleted it; None: it is there.
    """

    item: Item
    start: int
    end: int
    inserted: int | None
    deleted: int | None


class Shower:
    """Shows what lies in a document.

    Args:
        items: the document at the end of the interval.
        attribution: what was inserted and deleted in the interval.
        gone: whether to show what was deleted in it.
    """

    def __init__(self, items: Items, attribution: Attribution, *, gone: bool) -> None:
        self._items = items
        self._attribution = attribution
        self._gone = gone

    def root(self, name: str | None) -> Branch:
        """Find a root that is a list; without a name the one that there is.

        Raises:
            NoSuchContent: there is none.
            WrongContentType: there are several.
        """
        roots = self._items.roots
        if name is not None:
            if name not in roots:
                raise NoSuchContent(f"there is no root {name[:100]!r}")
            return roots[name]
        found = [root for root in roots.values() if root.start is not None]
        if not found:
            raise NoSuchContent("no root holds text")
        if len(found) > 1:
            raise WrongContentType("several roots hold text: name the root")
        return found[0]

    def runs(self, branch: Branch) -> Iterator[Run]:
        """Give the runs of a list that are to be shown, in order."""
        inserted, deleted = self._attribution.insertions, self._attribution.deletions
        for item in branch.list():
            if item.deleted and not self._gone:
                continue
            deletes = deleted.within(item.client, item.clock, item.end) if item.deleted else ()
            for start, end, gone in _filled(deletes, item.clock, item.end):
                if item.deleted and gone is None:
                    continue  # it was deleted before
                for low, high, made in _filled(inserted.within(item.client, start, end), start, end):
                    if gone is None or made is None:
                        yield Run(item, low, high, made, gone)

    def text_runs(self, branch: Branch) -> list[dict[str, Any]]:
        """Return a text as runs: ``insert`` (a string or an embed), ``attributes``, ``inserted``, ``deleted``."""
        if any(item.kind == TYPE and item.key is None for item in branch.list()):
            raise WrongContentType("the root is no text: take the format prosemirror")
        return [
            {
                key: value
                for key, value in (
                    ("insert", content),
                    ("attributes", attributes or None),
                    ("inserted", run.inserted),
                    ("deleted", run.deleted),
                )
                if value is not None
            }
            for run, content, attributes in self._contents(branch)
        ]

    def texts(self, branch: Branch) -> tuple[str, str]:
        """Return a text as it was at the beginning, and as it was at the end."""
        before: list[str] = []
        after: list[str] = []
        for run, content, _ in self._contents(branch):
            if isinstance(content, str):
                if run.inserted is None:
                    before.append(content)
                if run.deleted is None:
                    after.append(content)
        return "".join(before), "".join(after)

    def prosemirror(self, branch: Branch) -> dict[str, Any]:
        """Return a rich text as ProseMirror JSON in which ``ychange`` says what was added and removed, and by whom."""
        return {"type": "doc", "content": self._nodes(branch)}

    def _nodes(self, branch: Branch) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = []
        for run in self.runs(branch):
            held = run.item.branch
            if held is None:
                continue
            if held.reference in _TEXTS:
                nodes += self._text_nodes(held)
                continue
            node: dict[str, Any] = {"type": held.node or ""}
            attributes = self._attributes(held)
            change = self._change(run)
            if change is not None:
                attributes[YCHANGE] = change
            if attributes:
                node["attrs"] = attributes
            children = self._nodes(held)
            if children:
                node["content"] = children
            nodes.append(node)
        return nodes

    def _text_nodes(self, branch: Branch) -> list[dict[str, Any]]:
        nodes: list[dict[str, Any]] = []
        for run, content, attributes in self._contents(branch):
            if not isinstance(content, str):
                continue
            # The names of marks that may be there twice end with a hash in y-prosemirror: "link--a1b2".
            marks = [{"type": name.partition("--")[0], "attrs": value} for name, value in sorted(attributes.items())]
            change = self._change(run)
            if change is not None:
                marks.append({"type": YCHANGE, "attrs": change})
            nodes.append({"type": "text", "text": content, **({"marks": marks} if marks else {})})
        return nodes

    def _change(self, run: Run) -> dict[str, Any] | None:
        number = run.inserted if run.deleted is None else run.deleted
        if number is None:
            return None
        who = self._attribution.marks[number].who
        return {"type": "added" if run.deleted is None else "removed", "user": who.author, "mark": number}

    def _attributes(self, branch: Branch) -> dict[str, Any]:
        found = {}
        for key, item in branch.keys.items():
            if not item.deleted and item.kind in (ANY, JSON, EMBED):
                found[key] = value_of(self._items.content(item.client, item.end - 1))
        return found

    def _contents(self, branch: Branch) -> Iterator[tuple[Run, Any, dict[str, Any]]]:
        """Give the strings and embeds of a text, each with its run and its formats at the end."""
        formats: dict[str, Any] = {}
        for run in self.runs(branch):
            item = run.item
            if item.kind == FORMAT:
                if run.deleted is None:
                    name, value = format_of(self._items.content(item.client, item.clock))
                    if value is None:
                        formats.pop(name, None)
                    else:
                        formats[name] = value
            elif item.kind == STRING:
                yield run, self._string(run), dict(formats)
            elif item.kind in (EMBED, ANY, JSON):
                for clock in range(run.start, run.end):
                    yield run, {"embed": value_of(self._items.content(item.client, clock))}, dict(formats)

    def _string(self, run: Run) -> str:
        """Return the text of a run; half a surrogate pair is U+FFFD, as yjs shows it."""
        parts: list[str] = []
        clock = run.start
        while clock < run.end:
            data, struct, offset = self._items.content(run.item.client, clock)
            count = min(run.end - clock, struct.length - offset)
            _, pos = read_var_uint(data, struct.content)
            text = data[pos : struct.stop]
            if text.isascii():
                parts.append(text[offset : offset + count].decode())
            else:
                units = text.decode().encode("utf-16-le")[2 * offset : 2 * (offset + count)]
                parts.append(
                    units.decode("utf-16-le", "surrogatepass")
                    .encode("utf-16-le", "surrogatepass")
                    .decode("utf-16-le", "replace")
                )
            clock += count
        return "".join(parts)


def unified_diff(before: str, after: str, names: tuple[str, str]) -> str:
    """Return the lines that differ as a unified diff; empty where none do."""
    lines = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), *names)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def _filled(ranges: Any, start: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Give [start, end) in parts: those of the ranges, and None for what lies between."""
    for low, high, number in ranges:
        if start < low:
            yield start, low, None
        yield low, high, number
        start = high
    if start < end:
        yield start, end, None
