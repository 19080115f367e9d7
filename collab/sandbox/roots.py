"""Of which type are the roots of a document? The update does not say, so look at what lies in them.

Strategy: a root's type is known to applications only; a struct names its root, or inherits it from
its origin. Reading a root as the wrong type is no harmless mistake: the library never returns from
reading text with an emoji as an Array (C7 in docs/decisions/0002). So each struct's parent is found, on
bytes, and the kinds of content in each root decide: text if there is a string, embed or format, XML if
there are XML nodes and no plain values, an array otherwise, a map if all that it holds has keys. For the
same reason a string below a nested type that is no text is an error here.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import Enum
from typing import Final

from collab.errors import SandboxError
from collab.protocol.lib0 import read_var_string, read_var_uint
from collab.update.reader import DELETED, EMBED, FORMAT, GC, SKIP, STRING, TYPE, read_update
from collab.update.structs import walk


class RootType(Enum):
    """What a root is to be read as."""

    TEXT = "text"
    MAP = "map"
    ARRAY = "array"
    XML = "xml"
    EMPTY = "empty"  # nothing live was ever seen in it that would tell


# Type references on the wire (yjs ``typeRefs``): array, map, text, then XML element, fragment, hook, text.
_TEXTS: Final = (2, 6)
_XML: Final = (3, 4, 6)
_HOOK: Final = 5

# A struct's parent: the name of a root, the id of the struct that holds the nested type, None if it is gone.
_Parent = str | tuple[int, int] | None
# (what to look at: parent or id of an origin, is it an origin, has a key, kind, type reference)
_Entry = tuple[_Parent, bool, bool, int, int]


def find_roots(data: bytes) -> dict[str, RootType]:
    """Return the roots of a document in ``data``, a v1 update, and what to read each as.

    Raises UpdateError when it is no update, SandboxError when the library must not read it: text in a type that is no
    text (C7), an XmlHook (yrs takes its name for something else).
    """
    update = read_update(data, stored=True)
    clocks: dict[int, list[int]] = {}
    entries: dict[int, list[_Entry]] = {}
    for section in update.sections:
        starts = clocks.setdefault(section.client, [])
        found = entries.setdefault(section.client, [])
        if not section.count:
            continue
        for struct in walk(data, section.start, section.stop, section.clock):
            place: _Parent = None
            inherits = False
            keyed = False
            if struct.kind in (GC, SKIP):
                pass
            elif struct.origin is not None or struct.right is not None:
                place, inherits, keyed = struct.origin or struct.right, True, bool(struct.info & 32)
            else:
                named, pos = read_var_uint(data, struct.parent)
                if named:
                    place, pos = read_var_string(data, pos)
                else:
                    client, pos = read_var_uint(data, pos)
                    clock, pos = read_var_uint(data, pos)
                    place = (client, clock)
                keyed = bool(struct.info & 32)
            reference = read_var_uint(data, struct.content)[0] if struct.kind == TYPE else -1
            if reference == _HOOK:
                raise SandboxError("the document holds an XmlHook, which pycrdt cannot read")
            starts.append(struct.clock)
            found.append((place, inherits, keyed, struct.kind, reference))

    def at(identity: tuple[int, int]) -> tuple[int, int] | None:
        starts = clocks.get(identity[0])
        index = bisect_right(starts, identity[1]) - 1 if starts else -1
        return None if index < 0 else (identity[0], index)

    parents: dict[tuple[int, int], _Parent] = {}

    def parent(where: tuple[int, int]) -> _Parent:
        chain: list[tuple[int, int]] = []
        cursor: tuple[int, int] | None = where
        result: _Parent = None
        while cursor is not None:
            if cursor in parents:
                result = parents[cursor]
                break
            chain.append(cursor)
            place, inherits, *_ = entries[cursor[0]][cursor[1]]
            if not inherits:
                result = place
                break
            assert isinstance(place, tuple)
            cursor = at(place)
            if cursor is not None and len(chain) > 1 and cursor == where:
                break  # two that wait for each other, in an update that is no whole document
        for link in chain:
            parents[link] = result
        return result

    kinds: dict[str, set[tuple[bool, int, int]]] = {}
    for client, found in entries.items():
        for index, (_, _, keyed, kind, reference) in enumerate(found):
            place = parent((client, index))
            if isinstance(place, str):
                kinds.setdefault(place, set()).add((keyed, kind, reference))
            elif place is not None and kind == STRING:
                holder = at(place)
                above = entries[holder[0]][holder[1]] if holder is not None else None
                if above is not None and above[3] == TYPE and above[4] not in _TEXTS:
                    raise SandboxError("a nested type that is no text holds text")
    return {name: _decide(seen) for name, seen in kinds.items()}


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
