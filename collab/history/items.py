"""The items of a document in their order, deleted ones too, found as yjs finds them.

Strategy: this is yjs' own integration (``Item.getMissing``, ``Item.integrate``, ``Item.delete`` and
``readAndApplyDeleteSet`` of yjs 13.6) for items of which only the place and the content's place in the bytes are known.
Nothing is ever collected. What is deleted is noted in the order in which it happens, so whoever integrates one row
learns what that row has deleted, also what its update does not name. A run of typing becomes one item, as in yjs.

The updates must have been read (`collab.update.reader`) and whole: those of a log are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from collab.errors import UpdateError
from collab.protocol.lib0 import read_var_string, read_var_uint
from collab.update.reader import DELETED, GC, SKIP, STRING, TYPE, Section, Update
from collab.update.structs import Struct, walk


class Branch:
    """A shared type: a root, or what an item holds.

    Attributes:
        name: of a root; None for another one.
        item: what holds it; None for a root.
        reference: of which type it is on the wire (yjs ``typeRefs``); None for a root, whose type nothing says.
        node: the name of an XML element.
        start: the first item of its list.
        keys: of each key the last item, whose value counts.
    """

    __slots__ = ("item", "keys", "name", "node", "reference", "start")

    def __init__(
        self, name: str | None, item: Item | None = None, reference: int | None = None, node: str | None = None
    ) -> None:
        self.name = name
        self.item = item
        self.reference = reference
        self.node = node
        self.start: Item | None = None
        self.keys: dict[str, Item] = {}

    def list(self) -> Iterator[Item]:
        """Give the items of the list in order, deleted ones too."""
        item = self.start
        while item is not None:
            yield item
            item = item.right


class Item:
    """Some clocks of one client that lie behind each other.

    ``branch`` is what it holds, if that is a shared type; ``parent`` is None for what was collected by a client.
    """

    __slots__ = (
        "branch",
        "client",
        "clock",
        "deleted",
        "key",
        "kind",
        "left",
        "length",
        "origin",
        "parent",
        "right",
        "right_origin",
    )

    def __init__(self, client: int, clock: int, length: int, kind: int) -> None:
        self.client = client
        self.clock = clock
        self.length = length
        self.kind = kind
        self.deleted = False
        self.left: Item | None = None
        self.right: Item | None = None
        self.origin: tuple[int, int] | None = None
        self.right_origin: tuple[int, int] | None = None
        self.parent: Branch | None = None
        self.key: str | None = None
        self.branch: Branch | None = None

    @property
    def end(self) -> int:
        """The clock behind the last one."""
        return self.clock + self.length


class Content(NamedTuple):
    """Where the content of some clocks lies: ``data``, the struct there, and how many of its clocks are passed over."""

    data: bytes
    struct: Struct
    offset: int


class _Client:
    """The items of a client, and where their content lies; both ascending."""

    __slots__ = ("clocks", "contents", "items", "places")

    def __init__(self) -> None:
        self.clocks: list[int] = []
        self.items: list[Item] = []
        self.places: list[int] = []
        self.contents: list[Content] = []


class Items:
    """A document that updates are integrated into.

    Attributes:
        roots: by their names.
        deleted: what was deleted since somebody looked: (client, start, end), in order.
    """

    def __init__(self) -> None:
        self.roots: dict[str, Branch] = {}
        self.deleted: list[tuple[int, int, int]] = []
        self._clients: dict[int, _Client] = {}

    def vector(self) -> dict[int, int]:
        """Return the next clock of each client."""
        return {client: of.items[-1].end for client, of in self._clients.items()}

    def clock(self, client: int) -> int:
        """Return the next clock of a client."""
        of = self._clients.get(client)
        return of.items[-1].end if of is not None else 0

    def content(self, client: int, clock: int) -> Content:
        """Find the content of a clock."""
        of = self._clients[client]
        data, struct, passed = of.contents[at := bisect_right(of.places, clock) - 1]
        return Content(data, struct, passed + clock - of.places[at])

    def contents(self, item: Item) -> Iterator[tuple[Content, int]]:
        """Give the contents of an item, and how many clocks each has."""
        of = self._clients[item.client]
        at = bisect_right(of.places, item.clock) - 1
        clock = item.clock
        while clock < item.end:
            data, struct, passed = of.contents[at]
            offset = passed + clock - of.places[at]
            count = min(item.end - clock, struct.length - offset)
            yield Content(data, struct, offset), count
            clock += count
            at += 1

    def item(self, client: int, clock: int) -> Item:
        """Find the item that holds a clock.

        Raises:
            UpdateError: there is none.
        """
        of = self._clients.get(client)
        at = bisect_right(of.clocks, clock) - 1 if of is not None else -1
        if of is None or at < 0 or clock >= of.items[at].end:
            raise UpdateError(f"the log lacks clock {clock} of client {client}")
        return of.items[at]

    # Integration

    def apply(self, update: Update) -> None:
        """Integrate an update that was read.

        Raises:
            UpdateError: it needs what is not there.
        """
        sections: dict[int, list[Section]] = {}
        for section in update.sections:
            if section.count:
                sections.setdefault(section.client, []).append(section)
        queues = {client: self._structs(update.data, sections[client]) for client in reversed(sections)}
        waiting: dict[int, Struct] = {}
        for first in list(queues):
            stack = [first]
            while stack:
                client = stack[-1]
                struct = waiting.pop(client, None) or next(queues[client], None)
                if struct is None:
                    stack.pop()
                    continue
                needed = self._needed(update.data, client, struct)
                if needed is None:
                    self._integrate(update.data, client, struct)
                    if len(stack) > 1:
                        stack.pop()  # the one that has waited for it may go on
                    continue
                waiting[client] = struct
                if needed not in queues or needed in stack:
                    raise UpdateError(f"the update needs what the log lacks of client {needed}")
                stack.append(needed)
        for entry in update.deletes:
            for at in range(0, len(entry.ranges), 2):
                self._delete_range(entry.client, entry.ranges[at], entry.ranges[at] + entry.ranges[at + 1])

    def _structs(self, data: bytes, sections: list[Section]) -> Iterator[Struct]:
        """Give the structs of a client that are not there yet."""
        for section in sections:
            if section.end <= self.clock(section.client):
                continue
            for struct in walk(data, section.start, section.stop, section.clock):
                if struct.clock + struct.length > self.clock(section.client):
                    yield struct

    def _needed(self, data: bytes, client: int, struct: Struct) -> int | None:
        """Return the client whose structs have to come first; None if nothing is lacking."""
        if struct.clock > self.clock(client):
            raise UpdateError(f"the log lacks clock {self.clock(client)} of client {client}")
        for named in (struct.origin, struct.right):
            if named is not None and named[0] != client and named[1] >= self.clock(named[0]):
                return named[0]
        if struct.content != struct.parent and not struct.info & 192 and not data[struct.parent]:
            other, pos = read_var_uint(data, struct.parent + 1)
            if other != client and read_var_uint(data, pos)[0] >= self.clock(other):
                return other
        return None

    def _integrate(self, data: bytes, client: int, struct: Struct) -> None:
        """Integrate one struct all of whose references are there, as far as it is new."""
        offset = max(0, self.clock(client) - struct.clock)
        clock, length = struct.clock + offset, struct.length - offset
        of = self._clients.get(client)
        if of is None:
            of = self._clients[client] = _Client()
        of.places.append(clock)
        of.contents.append(Content(data, struct, offset))
        if struct.kind in (GC, SKIP):
            self._collected(of, client, clock, length)
            return
        origin = (client, clock - 1) if offset else struct.origin
        if struct.kind == STRING and origin == (client, clock - 1) and self._joins(of, struct, clock, length):
            return
        item = Item(client, clock, length, struct.kind)
        item.origin, item.right_origin = origin, struct.right
        left = None if origin is None else self._clean_end(*origin)
        right = None if struct.right is None else self._clean_start(*struct.right)
        if not self._find_parent(data, item, struct, left, right):
            self._collected(of, client, clock, length)
            return
        of.clocks.append(clock)
        of.items.append(item)
        self._place(item, left, right)
        if struct.kind == TYPE:
            reference, pos = read_var_uint(data, struct.content)
            node = read_var_string(data, pos)[0] if reference in (3, 5) else None
            item.branch = Branch(None, item, reference, node)
        parent = item.parent
        assert parent is not None
        if struct.kind == DELETED:
            item.deleted = True
            self.deleted.append((client, clock, clock + length))
        elif (parent.item is not None and parent.item.deleted) or (item.key is not None and item.right is not None):
            self._delete(item)

    def _joins(self, of: _Client, struct: Struct, clock: int, length: int) -> bool:
        """Join typing with what was typed before, where yjs would find them as neighbours and join them."""
        last = of.items[-1] if of.items else None
        if last is None or last.kind != STRING or last.deleted or last.end != clock or last.key is not None:
            return False
        right = last.right
        if struct.right != last.right_origin:
            return False
        # Nothing lies between it and what it was written before, so there is nothing to decide.
        if struct.right is None:
            if right is not None:
                return False
        elif right is None or (right.client, right.clock) != struct.right:
            return False
        last.length += length
        return True

    def _collected(self, of: _Client, client: int, clock: int, length: int) -> None:
        """Note clocks whose content and place are gone."""
        last = of.items[-1] if of.items else None
        self.deleted.append((client, clock, clock + length))
        if last is not None and last.kind == GC:
            last.length += length
            return
        item = Item(client, clock, length, GC)
        item.deleted = True
        of.clocks.append(clock)
        of.items.append(item)

    def _find_parent(self, data: bytes, item: Item, struct: Struct, left: Item | None, right: Item | None) -> bool:
        """Find what an item belongs to; return False if that is gone (yjs ``getMissing``)."""
        if (left is not None and left.kind == GC) or (right is not None and right.kind == GC):
            return False
        if struct.info & 192:
            near = right if right is not None else left
            assert near is not None
            item.parent, item.key = near.parent, near.key
            return item.parent is not None
        named, pos = read_var_uint(data, struct.parent)
        if named:
            name, pos = read_var_string(data, pos)
            item.parent = self.roots.get(name)
            if item.parent is None:
                item.parent = self.roots[name] = Branch(name)
        else:
            client, pos = read_var_uint(data, pos)
            clock, pos = read_var_uint(data, pos)
            item.parent = self.item(client, clock).branch
        if struct.info & 32:
            item.key = read_var_string(data, pos)[0]
        return item.parent is not None

    def _place(self, item: Item, left: Item | None, right: Item | None) -> None:
        """Put an item into its list, between what was written there at the same time (yjs ``Item.integrate``)."""
        parent, key = item.parent, item.key
        assert parent is not None
        if (left is None and (right is None or right.left is not None)) or (
            left is not None and left.right is not right
        ):
            left = self._resolve(item, left, right)
        if left is not None:
            item.right, left.right = left.right, item
        elif key is not None:
            item.right = _first(parent.keys.get(key))
        else:
            item.right, parent.start = parent.start, item
        item.left = left
        if item.right is not None:
            item.right.left = item
        elif key is not None:
            parent.keys[key] = item
            if left is not None:
                self._delete(left)

    def _resolve(self, item: Item, left: Item | None, right: Item | None) -> Item | None:
        """Return behind what an item lies where others were put at the same place."""
        parent = item.parent
        assert parent is not None
        other: Item | None
        if left is not None:
            other = left.right
        elif item.key is not None:
            other = _first(parent.keys.get(item.key))
        else:
            other = parent.start
        conflicting: set[Item] = set()
        before: set[Item] = set()
        while other is not None and other is not right:
            before.add(other)
            conflicting.add(other)
            if item.origin == other.origin:
                if other.client < item.client:
                    left = other
                    conflicting.clear()
                elif item.right_origin == other.right_origin:
                    break
            elif other.origin is not None and (found := self.item(*other.origin)) in before:
                if found not in conflicting:
                    left = other
                    conflicting.clear()
            else:
                break
            other = other.right
        return left

    # Deleting

    def _delete_range(self, client: int, start: int, end: int) -> None:
        """Delete what is there of [start, end)."""
        of = self._clients.get(client)
        if of is None:
            return
        at = max(0, bisect_right(of.clocks, start) - 1)
        while at < len(of.items) and of.clocks[at] < end:
            item = of.items[at]
            if not item.deleted and item.end > start:
                if item.clock < start:
                    item = self._split(of, at, start)
                    at += 1
                if item.end > end:
                    self._split(of, at, end)
                self._delete(item)
            at += 1

    def _delete(self, item: Item) -> None:
        """Delete an item, and all below it."""
        waiting = [item]
        while waiting:
            item = waiting.pop()
            if item.deleted:
                continue
            item.deleted = True
            self.deleted.append((item.client, item.clock, item.end))
            if item.branch is not None:
                waiting += item.branch.keys.values()
                waiting += item.branch.list()

    # Splitting

    def _clean_end(self, client: int, clock: int) -> Item:
        """Return the item that ends behind a clock; one that goes on is split there."""
        of = self._clients[client]
        at = bisect_right(of.clocks, clock) - 1
        item = of.items[at]
        if item.end != clock + 1 and item.kind != GC:
            self._split(of, at, clock + 1)
        return item

    def _clean_start(self, client: int, clock: int) -> Item:
        """Return the item that begins with a clock; one that begins before it is split there."""
        of = self._clients[client]
        at = bisect_right(of.clocks, clock) - 1
        item = of.items[at]
        return item if item.clock == clock or item.kind == GC else self._split(of, at, clock)

    def _split(self, of: _Client, at: int, clock: int) -> Item:
        """Split an item, the one at place ``at`` of its client; return the part that begins with ``clock``."""
        item = of.items[at]
        part = Item(item.client, clock, item.end - clock, item.kind)
        item.length = clock - item.clock
        part.deleted, part.parent, part.key = item.deleted, item.parent, item.key
        part.origin, part.right_origin = (item.client, clock - 1), item.right_origin
        part.left, part.right = item, item.right
        item.right = part
        if part.right is not None:
            part.right.left = part
        elif part.key is not None and part.parent is not None:
            part.parent.keys[part.key] = part
        of.clocks.insert(at + 1, clock)
        of.items.insert(at + 1, part)
        return part


def _first(item: Item | None) -> Item | None:
    """Return the first value that a key has had, whose last one this is."""
    while item is not None and item.left is not None:
        item = item.left
    return item
