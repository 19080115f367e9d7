"""Reset a document so that no old copy brings back what the server has seen: one forward update, nobody is refused.

Strategy: an old copy is a set of structs that others may refer to for ever, so their IDs stay and their content goes.
What a reset leaves of each struct is what every client must meet to put later structs in the same place:

- a struct at root level keeps id, origins, parent and key, and its content becomes ContentDeleted. Neighbours are
  joined where the origin is the id before and the right origin is equal;
- everything below becomes GC, as yjs does with what lies in a deleted type. At root level GC would be wrong: what
  refers to a GC is one itself, so a client that still holds the real item would show what others do not;
- the delete set covers every clock, for a client that holds the real items passes over the structs.

The reset's own structs have client IDs from a range that no client uses (`RESERVED`), above those of all clients, and
rising with each reset: of several values of a key that know nothing of each other the one of the highest client wins.

- Under each old key of a root that the new content does not set stands a ContentDeleted without an origin, so a
  value that was set offline loses against it; not again where one stands and nothing was set since.
- For each format of a root there is one that ends it, else a format that was moved offline would go on over new text.
- A GC under an ID of its own is the *marker*. A state vector without it is that of an old copy (`has_marker`).

The numbers of the range are given in order: each client of the new content takes one, the marker has the last of them.
An ID is ``RESERVED + 4 * number + kind``; kind 0 is content, 1 a marker, 3 a marker of a strict reset.

docs/decisions/0025 says what happens to offline work, and what was tried. All of this is read from bytes: nothing is
integrated, in time that is linear in the structs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from collab.errors import LimitExceeded, UpdateError
from collab.protocol.lib0 import MAX_SAFE_INTEGER, encode_var_string, encode_var_uint, read_var_uint
from collab.update.delete_set import encode_delete_set
from collab.update.merge import diff_update, merge_read_updates, pairs
from collab.update.reader import DELETED, FORMAT, GC, Update, read_update
from collab.update.state_vector import decode_state_vector
from collab.update.structs import Struct, walk

RESERVED: Final = MAX_SAFE_INTEGER + 1 - (1 << 24)
"""The lowest client ID of resets. yjs draws its own from 32 bits, yrs from 53: it meets this range once in 2^29."""

MOST_RESETS: Final = 1 << 22
"""Numbers that there are."""

_MARKER: Final = 1
_STRICT: Final = 3
# The info byte's flags: origin, right origin, key.
_FLAGS: Final = 224
_RIGHT: Final = 64
_KEYED: Final = 32

# The group of structs that are GC, or lie in one.
_GONE: Final = 0
_ALL: Final = 1 << 62

_Id = tuple[int, int]


class _Group(NamedTuple):
    """Where structs lie: under a root (its name as written, and the ``key`` if there is one) or below ``parent``."""

    root: bytes
    key: bytes | None
    parent: _Id | None


def marker_id(number: int, *, strict: bool = False) -> int:
    """Return the client ID of the marker of a reset."""
    return RESERVED + 4 * number + (_STRICT if strict else _MARKER)


def number_of(client: int) -> int:
    """Return the number in a client ID of a reset; 0 for those of clients."""
    return client - RESERVED >> 2 if client >= RESERVED else 0


def is_marker(client: int, *, strict: bool = False) -> bool:
    """Tell whether a client ID is that of a marker, or only of a ``strict`` one."""
    return client >= RESERVED and (client & 3) in ((_STRICT,) if strict else (_MARKER, _STRICT))


def has_marker(state_vector: bytes, marker: int) -> bool:
    """Tell whether an encoded state vector knows a marker.

    A search for bytes, at C speed. Who forges a vector can say anything anyhow; by chance eight bytes are not met.
    """
    return encode_var_uint(marker) + b"\1" in state_vector


def next_number(clients: Iterable[int]) -> int:
    """Return the number from which the next reset of a document counts, whose client IDs are given; 1 for the first."""
    return 1 + max(map(number_of, clients), default=0)


def skeleton(*documents: bytes) -> bytes:
    """Return what of whole documents (v1) remains without their content: one v1 update, all of it deleted.

    IDs, names of roots and keys of root maps; no text, no value, no name of an element or format. For a document that
    begins where others were: `reset_update` takes it for them. Several are joined; where two hold
    the same clock, the first one's struct is taken.

    Raises UpdateError when one of them is no update, or is not whole.
    """
    update = _read_all(documents)
    plan = _Plan(update)
    sections, ranges = plan.strip()
    return _encode(sections, ranges)


def without_known(data: bytes, known: Mapping[int, int]) -> bytes:
    """Return a skeleton without what a document (its state vector ``known``) has itself; of it nothing is deleted.

    For what an old copy says after a strict reset: its IDs are taken, so that later edits can refer to them.
    """
    kept = read_update(diff_update(data, known), stored=True)
    ranges: dict[int, list[tuple[int, int]]] = {}
    for section in kept.sections:
        ranges.setdefault(section.client, []).append((section.clock, section.end))
    return kept.data[: kept.deletes_start] + encode_delete_set(ranges)


def reset_update(
    *documents: bytes, number: int | None = None, content: bytes | None = None, strict: bool = False
) -> bytes:
    """Return the v1 update that resets a document: only the IDs of ``documents`` remain, ``content`` takes their place.

    Apply it where they are the document, or begin another document with it.

    Args:
        documents: all that is known of the document, a v1 update (`Document.encode_state_as_update`) or a `skeleton`,
            and of those that had its name before. What is pending is not in it, and counts as never seen.
        number: the reset's number, above all that the document has; None: the next one.
        content: the new content, the v1 update of a whole document. Its client IDs are replaced by IDs of the reset,
            in the same order, so it may come from anywhere, such as from ``documents``.
        strict: the marker says that copies without it may bring nothing at all.

    Raises UpdateError when one of them is no update or is not whole, LimitExceeded when there are no more numbers, and
    ValueError for one that is not above the others.
    """
    update = _read_all(documents)
    plan = _Plan(update)
    sections, ranges = plan.strip()
    lowest = next_number(section.client for section in update.sections)
    number = lowest if number is None else number
    added = None if content is None else read_update(content, stored=True)
    clients = sorted({section.client for section in added.sections}) if added is not None else []
    last = number + max(1, len(clients)) - 1
    if last >= MOST_RESETS:
        raise LimitExceeded(f"{last} resets", public="this document was reset too often: take another name")
    if number < lowest:
        raise ValueError(f"{number} is no number for the next reset of this document")
    own = RESERVED + 4 * number

    parts: dict[int, list[bytes]] = {}
    ends: dict[int, int] = {}
    keys: set[tuple[bytes, bytes | None]] = set()
    if added is not None:
        names = {client: own + 4 * at for at, client in enumerate(clients)}
        for section in added.sections:
            if section.clock != ends.get(names[section.client], 0) or not section.count:
                raise UpdateError("the new content is not whole", public="the content is a part of a document")
            ends[names[section.client]] = section.end
        for section in added.sections:
            renamed = parts.setdefault(names[section.client], [])
            for struct in walk(added.data, section.start, section.stop, section.clock):
                renamed.append(_rename(added.data, struct, names, ends))
                if struct.kind != GC and not struct.info & 192 and added.data[struct.parent] == 1:
                    keys.add(_named(added.data, struct))
        for entry in added.deletes:
            for start, end in pairs(entry.ranges):
                client = names.get(entry.client, -1)
                if end > ends.get(client, 0):
                    raise UpdateError("the new content is not whole", public="the content is a part of a document")
                ranges.setdefault(client, []).append((start, end))

    # These come before the content: of items without an origin those of one client stand in the opposite order of their
    # clocks, and those of a lower client before those of a higher one.
    mine = parts.get(own, [])
    end = ends.get(own, 0)
    for root, key in plan.list_keys():
        if (root, key) not in keys:
            mine.append(bytes((DELETED | _KEYED, 1)) + root + key + b"\1")
            ranges.setdefault(own, []).append((end, end + 1))
            end += 1
    for root, name in plan.list_formats():
        mine.append(bytes((FORMAT, 1)) + root + name + encode_var_string("null"))
        end += 1
    if mine:
        parts[own] = mine
    for client, structs in parts.items():
        sections.append((client, len(structs), structs))
    marker = marker_id(last, strict=strict)
    sections.append((marker, 1, [b"\0\1"]))
    ranges[marker] = [(0, 1)]
    made = _encode(sections, ranges)
    read_update(made, stored=True)  # what clients would refuse raises here, such as content that names itself
    return made


def make_reset(documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None) -> bytes:
    """Return `reset_update` of documents; with ``known``, an encoded state vector, only what is `forward` of that."""
    made = reset_update(*documents, content=content, strict=strict)
    return made if known is None else forward(made, known)


def make_skeleton(documents: Sequence[bytes], known: bytes | None) -> bytes:
    """Return the `skeleton` of documents; with ``known``, an encoded state vector, only what that lacks."""
    made = skeleton(*documents)
    return made if known is None else without_known(made, decode_state_vector(known))


def forward(data: bytes, known: bytes) -> bytes:
    """Return what of an update the encoded state vector ``known`` lacks, and its whole delete set.

    For a reset where the document is: its log has the structs already.
    """
    return diff_update(data, decode_state_vector(known), stored=True)


def bury(data: bytes) -> bytes:
    """Turn into GC what lies in deleted types of a whole document (v1), as yjs does; all else stays byte for byte.

    A document that was reset consists of little else. Raises UpdateError when it is no update, or is not whole.
    """
    update = read_update(data, stored=True)
    sections = _Plan(update).bury()
    return _join([*(_section(*section) for section in sections)], data[update.deletes_start :])


class _Plan:
    """The structs of a whole document, and where each of them lies.

    A struct lies where its parent says, or if it has none, where its origin lies, else its right origin. If one of
    these is GC, so is the struct (yjs ``Item.getMissing``).
    """

    def __init__(self, update: Update) -> None:
        self._data = update.data
        self._update = update
        self._structs: dict[int, list[Struct]] = {}
        self._starts: dict[int, list[int]] = {}
        self._groups: dict[_Group, int] = {}
        self._list: list[_Group] = [_Group(b"", None, None)]
        self._of: dict[int, list[int]] = {}
        ends: dict[int, int] = {}
        for section in update.sections:
            client = section.client
            if section.clock != ends.get(client, 0) or not section.count:
                raise UpdateError("the update is no whole document")
            ends[client] = section.end
            structs = list(walk(update.data, section.start, section.stop, section.clock))
            self._structs.setdefault(client, []).extend(structs)
            self._starts.setdefault(client, []).extend([struct.clock for struct in structs])
        self._ends = ends
        self._resolve()

    def _resolve(self) -> None:
        """Find the group of each struct, from origin to origin; those that wait for each other are gone."""
        data = self._data
        links: dict[int, list[_Id | None]] = {}
        rights: list[tuple[int, int, _Id]] = []
        for client, structs in self._structs.items():
            of = self._of[client] = [-1] * len(structs)
            link = links[client] = [None] * len(structs)
            for at, struct in enumerate(structs):
                if struct.kind == GC:
                    of[at] = _GONE
                elif struct.origin is not None:
                    link[at] = struct.origin
                    if struct.right is not None:
                        rights.append((client, at, struct.right))
                elif struct.right is not None:
                    link[at] = struct.right
                else:
                    group = _parent(data, struct)
                    if group.parent is not None:
                        self._find(*group.parent)
                    of[at] = self._group(group)
        for client, of in self._of.items():
            for at, number in enumerate(of):
                if number >= 0:
                    continue
                passed: list[tuple[list[int], int]] = []
                there, behind, found = of, at, client
                while there[behind] < 0:
                    passed.append((there, behind))
                    linked = links[found][behind]
                    assert linked is not None
                    there[behind] = _GONE
                    found, clock = linked
                    there, behind = self._of.get(found, []), self._find(found, clock)
                for one, where in passed:
                    one[where] = there[behind]
        self._spread(links, rights)

    def _spread(self, links: Mapping[int, list[_Id | None]], rights: Sequence[tuple[int, int, _Id]]) -> None:
        """Find what lies left of a GC: it is one too, and so is all that refers to it. No client writes that."""
        found = [(client, at) for client, at, right in rights if self._of[client][at] and not self._group_of(right)]
        if not found:
            return
        users: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for client, linked in links.items():
            for at, link in enumerate(linked):
                if link is not None:
                    users.setdefault((link[0], self._find(*link)), []).append((client, at))
        for client, at, right in rights:
            users.setdefault((right[0], self._find(*right)), []).append((client, at))
        while found:
            client, at = found.pop()
            if self._of[client][at]:
                self._of[client][at] = _GONE
                found += users.get((client, at), ())

    def _group_of(self, identity: _Id) -> int:
        client, clock = identity
        return self._of[client][self._find(client, clock)]

    def _find(self, client: int, clock: int) -> int:
        """Return which of a client's structs holds a clock."""
        if clock >= self._ends.get(client, 0):
            raise UpdateError("the update is no whole document")
        return bisect_right(self._starts[client], clock) - 1

    def _is_root(self, group: int) -> bool:
        return group != _GONE and self._list[group].parent is None

    def _group(self, group: _Group) -> int:
        number = self._groups.get(group)
        if number is None:
            number = self._groups[group] = len(self._list)
            self._list.append(group)
        return number

    def list_keys(self) -> list[tuple[bytes, bytes]]:
        """List names of roots with keys of theirs, as written; without those that are closed.

        Of the structs of a key that have no origin the one of the highest client stands last. If that is a reset's and
        is a ContentDeleted to which nothing refers, the key has no value, and nobody has set it since: whoever sets a
        key refers to the value before.
        """
        last: dict[int, tuple[int, int, Struct]] = {}
        for client, structs in self._structs.items():
            if client < RESERVED:
                continue
            for number, struct in zip(self._of[client], structs, strict=True):
                # Those of one client stand in the opposite order of their clocks.
                if struct.origin is None and (number not in last or (client, -struct.clock) > last[number][:2]):
                    last[number] = (client, -struct.clock, struct)
        closed = {number: found for number, found in last.items() if found[2].kind == DELETED}
        for client, structs in self._structs.items():
            for number, struct in zip(self._of[client], structs, strict=True):
                found = closed.get(number)
                if found is not None and struct.origin is not None and struct.origin[0] == found[0]:
                    clock = struct.origin[1] - found[2].clock
                    if 0 <= clock < found[2].length:
                        del closed[number]
        return [
            (group.root, group.key)
            for at, group in enumerate(self._list)
            if self._is_root(at) and group.key is not None and at not in closed
        ]

    def list_formats(self) -> list[tuple[bytes, bytes]]:
        """List names of roots with formats in them, as written."""
        found: dict[tuple[bytes, bytes], None] = {}
        for client, structs in self._structs.items():
            of = self._of[client]
            for at, struct in enumerate(structs):
                if struct.kind == FORMAT:
                    group = self._list[of[at]]
                    if self._is_root(of[at]) and group.key is None:
                        stop = _behind(self._data, struct.content)
                        found[group.root, self._data[struct.content : stop]] = None
        return list(found)

    def strip(self) -> tuple[list[tuple[int, int, list[bytes]]], dict[int, list[tuple[int, int]]]]:
        """Take away all content: give client, count and structs of each section, and ranges that cover everything."""
        sections = []
        for client, structs in self._structs.items():
            of = self._of[client]
            line = _Line(self._data, client)
            for at, struct in enumerate(structs):
                if not self._is_root(of[at]):
                    line.add_gc(struct.length)
                elif struct.right is None or self._is_root(self._group_of(struct.right)):
                    line.add_deleted(struct)
                else:
                    # It says that it lies beside something below, which becomes GC, and would make it one. It has an
                    # origin too, for with a right origin alone it would lie below with that.
                    flags = struct.info & _FLAGS & ~_RIGHT
                    line.add_deleted(
                        struct._replace(info=flags, right=None, content=_behind_origin(self._data, struct))
                    )
            sections.append((client, *line.close()))
        return sections, {client: [(0, end)] for client, end in self._ends.items()}

    def bury(self) -> list[tuple[int, int, list[bytes]]]:
        """Turn into GC what lies in deleted types; give client, count and structs of each section."""
        deleted = {entry.client: sorted(pairs(entry.ranges)) for entry in self._update.deletes}
        buried: list[bool | None] = [None] * len(self._list)
        buried[_GONE] = True
        for at in range(len(self._list)):
            # Up to a root, or to the first that is known or deleted: all below it are as it is.
            path: list[int] = []
            number, found = at, buried[at]
            while found is None:
                path.append(number)
                buried[number] = False  # types that lie in each other do not occur; if they did, this ends
                parent = self._list[number].parent
                if parent is None:
                    found = False
                elif self._is_deleted(deleted, parent):
                    found = True
                else:
                    number = self._of[parent[0]][self._find(*parent)]
                    found = buried[number]
            for number in path:
                buried[number] = found
        sections = []
        for client, structs in self._structs.items():
            of = self._of[client]
            line = _Line(self._data, client)
            for at, struct in enumerate(structs):
                if buried[of[at]]:
                    line.add_gc(struct.length)
                else:
                    line.add(self._data[struct.start : struct.stop])
            sections.append((client, *line.close()))
        return sections

    def _is_deleted(self, deleted: Mapping[int, list[tuple[int, int]]], identity: _Id) -> bool:
        client, clock = identity
        if self._structs[client][self._find(client, clock)].kind == DELETED:
            return True
        ranges = deleted.get(client, [])
        at = bisect_right(ranges, (clock, _ALL)) - 1
        return at >= 0 and clock < ranges[at][1]


class _Line:
    """The structs of one client, being written: GC and ContentDeleted are joined."""

    def __init__(self, data: bytes, client: int) -> None:
        self._data = data
        self._client = client
        self._out: list[bytes] = []
        self._head = b""
        self._right: _Id | None = None
        self._length = 0

    def add(self, struct: bytes) -> None:
        """Write a struct as it is."""
        self._flush()
        self._out.append(struct)

    def add_gc(self, length: int) -> None:
        """Write a GC."""
        if self._head != b"\0":
            self._flush()
            self._head = b"\0"
        self._length += length

    def add_deleted(self, struct: Struct) -> None:
        """Write a struct without its content."""
        follows = struct.origin == (self._client, struct.clock - 1)
        if not (follows and self._length and self._head != b"\0" and struct.right == self._right):
            self._flush()
            self._head = bytes((struct.info & _FLAGS | DELETED,)) + self._data[struct.references : struct.content]
            self._right = struct.right
        self._length += struct.length

    def _flush(self) -> None:
        if self._length:
            self._out.append(self._head + encode_var_uint(self._length))
        self._head, self._length = b"", 0

    def close(self) -> tuple[int, list[bytes]]:
        """Give how many structs there are, and the structs."""
        self._flush()
        return len(self._out), self._out


def _read_all(documents: Sequence[bytes]) -> Update:
    updates = [read_update(data, stored=True) for data in documents]
    return updates[0] if len(updates) == 1 else read_update(merge_read_updates(updates), stored=True)


def _encode(sections: Iterable[tuple[int, int, list[bytes]]], ranges: dict[int, list[tuple[int, int]]]) -> bytes:
    ordered = sorted(sections, key=_by_client, reverse=True)
    return _join([_section(*section) for section in ordered], encode_delete_set(ranges))


def _section(client: int, count: int, structs: list[bytes]) -> bytes:
    return b"".join((encode_var_uint(count), encode_var_uint(client), b"\0", *structs))


def _join(sections: list[bytes], deletes: bytes) -> bytes:
    return b"".join((encode_var_uint(len(sections)), *sections, deletes))


def _by_client(section: tuple[int, int, list[bytes]]) -> int:
    return section[0]


def _behind_origin(data: bytes, struct: Struct) -> int:
    """Return the position behind the origin of a struct that has one."""
    _, pos = read_var_uint(data, struct.references)
    return read_var_uint(data, pos)[1]


def _behind(data: bytes, pos: int) -> int:
    """Return the position behind a varString."""
    length, pos = read_var_uint(data, pos)
    return pos + length


def _parent(data: bytes, struct: Struct) -> _Group:
    """Read where a struct without origins lies."""
    if data[struct.parent] == 1:
        root, key = _named(data, struct)
        return _Group(root, key, None)
    client, pos = read_var_uint(data, struct.parent + 1)
    clock, _ = read_var_uint(data, pos)
    return _Group(b"", None, (client, clock))


def _named(data: bytes, struct: Struct) -> tuple[bytes, bytes | None]:
    """Return the name of the root, and the key, of a struct that names them."""
    stop = _behind(data, struct.parent + 1)
    return data[struct.parent + 1 : stop], data[stop : struct.content] if struct.info & _KEYED else None


def _rename(data: bytes, struct: Struct, names: Mapping[int, int], ends: Mapping[int, int]) -> bytes:
    """Encode a struct with other client IDs; raise UpdateError when it refers to something that is not there."""

    def identity(client: int, clock: int) -> bytes:
        name = names.get(client, -1)
        if clock >= ends.get(name, 0):
            raise UpdateError("the new content is not whole", public="the content is a part of a document")
        return encode_var_uint(name) + encode_var_uint(clock)

    head = bytes((struct.info,))
    if struct.origin is not None:
        head += identity(*struct.origin)
    if struct.right is not None:
        head += identity(*struct.right)
    pos = struct.parent  # of a GC that of its length, which is not 0
    if not struct.info & 192 and data[pos] == 0:
        client, pos = read_var_uint(data, pos + 1)
        clock, pos = read_var_uint(data, pos)
        head += b"\0" + identity(client, clock)
    return head + data[pos : struct.stop]
