"""What the library must know of a document before it reads it, found on its bytes.

Strategy: an update does not say of which type a root is. A struct names its root, or inherits it from its origin; so
each struct's parent is found, and the kinds of content in each root decide: text if there is a string, embed or format,
XML if there are XML nodes and no plain values, an array otherwise, a map if all that it holds has keys. Reading a root
as the wrong type is no harmless mistake: the library never returns from reading text with an emoji as an Array (C7 in
docs/decisions/0002). For the same reason a string below a nested type that is no text is an error here.

It must also know which surrogate pairs are cut. JavaScript counts in UTF-16 units; an edit may come to lie between the
two units of an emoji, or delete one of them. Yjs then shows two U+FFFD in the pair's place. yrs keeps the pair on the
left and nothing on the right: its text is another one, and its clocks are wrong. So such pairs are written as two
U+FFFD before the library reads them (`mend_pairs`): they are as many units, and Yjs shows the same.

A `Shape` grows by updates, so a document that is edited is walked over once. Structs of one client that follow each
other in one parent are one entry: typing costs next to nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

from collab.content.edits import RootType
from collab.errors import UnreadableContent, UpdateError
from collab.protocol.lib0 import encode_var_uint, read_var_string, read_var_uint
from collab.update.merge import Run, encode_runs
from collab.update.reader import DELETED, EMBED, FORMAT, GC, SKIP, STRING, TYPE, Update, read_update
from collab.update.structs import Struct, walk

# Type references on the wire (yjs ``typeRefs``): array, map, text, then XML element, fragment, hook, text.
_TEXTS: Final = (2, 6)
_XML: Final = (3, 4, 6)
_HOOK: Final = 5

_PAIR: Final = re.compile("[\U00010000-\U0010ffff]")
# The first byte of a character of two units. Numbers have such bytes too: it only tells where there are none.
_PAIR_BYTE: Final = re.compile(b"[\xf0-\xf4]")

_Id = tuple[int, int]
# A struct's parent: the name of a root, the id of the struct that holds the nested type, None if it is gone.
_Parent = str | _Id | None
# Client, first clock that is new, struct, parent as it is written.
_Fresh = tuple[int, int, Struct, _Parent]


class Shape:
    """Where the structs of a document hang, and where its surrogate pairs are.

    Attributes:
        vector: the next clock of each client.
        whole: whether every struct is there from clock 0 on that an update needs.
    """

    def __init__(self) -> None:
        self.vector: dict[int, int] = {}
        self.whole = True
        # Of each client: where entries begin, and the parent of each.
        self._starts: dict[int, list[int]] = {}
        self._parents: dict[int, list[_Parent]] = {}
        self._types: dict[_Id, int] = {}
        self._kinds: dict[str, set[tuple[bool, int, int]]] = {}
        self._halves: dict[int, set[int]] = {}

    def add(self, update: Update) -> None:
        """Take in an update that was read.

        Raises UnreadableContent when the library must not read it: text in a type that is no text (C7), an XmlHook (yrs
        takes its name for something else). The shape is of no use after that.
        """
        data = update.data
        look_for_pairs = _PAIR_BYTE.search(data) is not None
        # Structs with origins, and what they inherit their parent from.
        inherits: dict[_Id, _Id] = {}
        fresh: list[_Fresh] = []
        for section in update.sections:
            client = section.client
            known = self.vector.get(client, 0)
            if section.clock > known:
                self.whole = False
            self.vector[client] = max(known, section.end)
            if not section.count:
                self.whole = False
                continue
            for struct in walk(data, section.start, section.stop, section.clock):
                if struct.clock + struct.length <= known:
                    continue
                clock = max(struct.clock, known)
                if struct.kind == GC or struct.kind == SKIP:
                    fresh.append((client, clock, struct, None))
                    continue
                inherited = struct.origin or struct.right
                if inherited is None:
                    fresh.append((client, clock, struct, _written(data, struct)))
                else:
                    fresh.append((client, clock, struct, None))
                    inherits[client, clock] = inherited
                if struct.kind == TYPE:
                    reference = read_var_uint(data, struct.content)[0]
                    if reference == _HOOK:
                        raise UnreadableContent("the document holds an XmlHook, which pycrdt cannot read")
                    self._types[client, struct.clock] = reference
                elif struct.kind == STRING and look_for_pairs:
                    for clock in _halves(data, struct):
                        self._halves.setdefault(client, set()).add(clock)
        self._place(fresh, inherits)

    def _place(self, fresh: list[_Fresh], inherits: dict[_Id, _Id]) -> None:
        """Find the parents of new structs, and what their kinds say of these."""
        # Each new struct as an entry of its own, until all are placed.
        new: dict[int, list[int]] = {}
        written: dict[_Id, _Parent] = {}
        for client, clock, _, parent in fresh:
            new.setdefault(client, []).append(clock)
            written[client, clock] = parent
        resolved: dict[_Id, _Parent] = {}

        def find(client: int, clock: int) -> _Parent:
            chain: list[_Id] = []
            parent: _Parent = None
            cursor: _Id | None = (client, clock)
            while cursor is not None:
                starts = new.get(cursor[0])
                at = bisect_right(starts, cursor[1]) - 1 if starts else -1
                if starts is None or at < 0:
                    parent = self.parent_of(cursor)
                    break
                here = (cursor[0], starts[at])
                if here in resolved:
                    parent = resolved[here]
                    break
                resolved[here] = None  # until it is known: two that wait for each other hang nowhere
                chain.append(here)
                if here not in inherits:
                    parent = written[here]
                    break
                cursor = inherits[here]
            for link in chain:
                resolved[link] = parent
            return parent

        for starts in new.values():
            starts.sort()
        for client, clock, struct, _ in fresh:
            parent = find(client, clock)
            if isinstance(parent, str):
                reference = self._types.get((client, struct.clock), -1) if struct.kind == TYPE else -1
                self._kinds.setdefault(parent, set()).add((struct.info & 32 > 0, struct.kind, reference))
            elif parent is not None and struct.kind == STRING:
                holder = self._types.get(parent)
                if holder is not None and holder not in _TEXTS:
                    raise UnreadableContent("a nested type that is no text holds text")
        for client, clock, _, _ in fresh:
            starts = self._starts.setdefault(client, [])
            parents = self._parents.setdefault(client, [])
            parent = resolved[client, clock]
            if not starts or parents[-1] != parent:
                starts.append(clock)
                parents.append(parent)

    def parent_of(self, identity: _Id) -> _Parent:
        """Return the parent of the struct that holds a clock, as (client, clock): a root's name, an id, or None."""
        starts = self._starts.get(identity[0])
        at = bisect_right(starts, identity[1]) - 1 if starts else -1
        return None if at < 0 else self._parents[identity[0]][at]

    def roots(self) -> dict[str, RootType]:
        """Return all roots that were ever seen, and what each is to be read as."""
        return {name: _decide(seen) for name, seen in self._kinds.items()}

    def needs(self, update: Update) -> bool:
        """Tell whether an update needs what the document does not hold: it comes before something else then."""
        own = {section.client: section.end for section in update.sections if section.count}
        for section in update.sections:
            if section.clock > self.vector.get(section.client, 0) or not section.count:
                return True
            for _, client, clock in section.references:
                if clock >= max(self.vector.get(client, 0), own.get(client, 0)):
                    return True
        for entry in update.deletes:
            end = max(self.vector.get(entry.client, 0), own.get(entry.client, 0))
            if any(clock + length > end for clock, length in zip(entry.ranges[::2], entry.ranges[1::2], strict=True)):
                return True
        return False

    def cut_pairs(self, update: Update) -> dict[int, set[int]]:
        """Return the surrogate pairs that an update cuts: of each client the clocks of their second units.

        The update must have been added before.
        """
        cut: dict[int, set[int]] = {}
        if not self._halves:
            return cut
        for client, clock in _cuts(update):
            if clock in self._halves.get(client, ()):
                cut.setdefault(client, set()).add(clock)
        return cut


def mend_pairs(data: bytes) -> bytes:
    """Return a whole document in which each surrogate pair that is cut is two U+FFFD.

    The clocks stay the same, as all origins and deletes. Raises UpdateError when ``data`` is no update.
    """
    update = read_update(data, stored=True)
    if _PAIR_BYTE.search(data) is None:
        return data
    halves: dict[int, set[int]] = {}
    for section in update.sections:
        for struct in walk(data, section.start, section.stop, section.clock):
            if struct.kind == STRING:
                for clock in _halves(data, struct):
                    halves.setdefault(section.client, set()).add(clock)
    cut: dict[int, set[int]] = {}
    for client, clock in _cuts(update):
        if clock in halves.get(client, ()):
            cut.setdefault(client, set()).add(clock)
    if not cut:
        return data
    runs: dict[int, list[Run]] = {}
    for section in update.sections:
        if not section.count:
            continue
        body = data[section.start : section.stop]
        if section.client in cut:
            structs = walk(data, section.start, section.stop, section.clock)
            body = b"".join(_mended(data, struct, cut[section.client]) for struct in structs)
        run = Run(section.client, section.clock, section.end, section.count, body, ())
        runs.setdefault(section.client, []).append(run)
    return encode_runs(runs, data[update.deletes_start :])


def _mended(data: bytes, struct: Struct, cut: set[int]) -> bytes:
    """Return the bytes of a struct in which some pairs become two U+FFFD."""
    if struct.kind != STRING or cut.isdisjoint(range(struct.clock, struct.clock + struct.length)):
        return data[struct.start : struct.stop]
    _, pos = read_var_uint(data, struct.content)
    clock = struct.clock
    mended: list[str] = []
    for character in data[pos : struct.stop].decode():
        pair = character > "\uffff"
        mended.append("\ufffd\ufffd" if pair and clock + 1 in cut else character)
        clock += 2 if pair else 1
    text = "".join(mended).encode()
    return data[struct.start : struct.content] + encode_var_uint(len(text)) + text


def _halves(data: bytes, struct: Struct) -> Iterator[int]:
    """Yield the clocks of the second units of the pairs in a string."""
    _, pos = read_var_uint(data, struct.content)
    if struct.length < struct.stop - pos and _PAIR_BYTE.search(data, pos, struct.stop) is not None:
        for number, found in enumerate(_PAIR.finditer(data[pos : struct.stop].decode())):
            yield struct.clock + found.start() + number + 1


def _cuts(update: Update) -> Iterator[_Id]:
    """Yield where an update cuts structs: the first clock behind each cut."""
    for section in update.sections:
        yield section.client, section.clock
        for struct in walk(update.data, section.start, section.stop, section.clock):
            if struct.origin is not None:
                yield struct.origin[0], struct.origin[1] + 1
            if struct.right is not None:
                yield struct.right
    for entry in update.deletes:
        for clock, length in zip(entry.ranges[::2], entry.ranges[1::2], strict=True):
            yield entry.client, clock
            yield entry.client, clock + length


def _written(data: bytes, struct: Struct) -> _Parent:
    """Return the parent that a struct without origins names."""
    named, pos = read_var_uint(data, struct.parent)
    if named:
        return read_var_string(data, pos)[0]
    client, pos = read_var_uint(data, pos)
    return client, read_var_uint(data, pos)[0]


def _decide(seen: set[tuple[bool, int, int]]) -> RootType:
    """Choose by what lies in the root: (has a key, kind of content, type reference)."""
    listed = {(kind, reference) for keyed, kind, reference in seen if not keyed and kind != DELETED}
    if any(kind in (STRING, EMBED, FORMAT) for kind, _ in listed):
        return RootType.TEXT
    if listed and all(kind == TYPE and reference in _XML for kind, reference in listed):
        return RootType.XML
    if listed:
        return RootType.ARRAY
    if any(keyed for keyed, _, _ in seen):
        return RootType.MAP
    return RootType.EMPTY


def find_roots(data: bytes) -> dict[str, RootType]:
    """Return the roots of a document in ``data``, a v1 update, and what to read each as.

    Raises UpdateError when it is no update, and what `Shape.add` raises.
    """
    shape = Shape()
    shape.add(read_update(data, stored=True))
    return shape.roots()


__all__ = ["RootType", "Shape", "UpdateError", "find_roots", "mend_pairs"]
