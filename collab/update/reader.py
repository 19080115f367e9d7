"""Read a Yjs v1 update: refuse what makes yjs throw, remember what decides about the rest.

Strategy: one pass over the bytes, in one generator whose locals are the whole state, because this
runs for every edit. It validates everything (this is the only wall between a client and the log:
one update on which yjs throws closes the document to every joiner; docs/decisions/0002) and copies nothing. What stays
is, for each client, a `Section`: the range of clocks, the range of bytes, the references to other
clients, what counts as deleted, and a mark every four kilobytes from where structs can be found
again. A struct is a self-contained run of bytes, so whoever joins or cuts works with those ranges.

The generator yields about every millisecond, at the marks: small updates never get there, large
ones are read in slices by whoever must not be held up.

Grammar (yjs 13.6, ``readClientsStructRefs`` and ``readDeleteSet``)::

    update    = count sections*  delete-set
    section   = count client clock struct*
    struct    = 00 length                                     GC
              | 0a length                                     Skip
              | info [origin] [right origin] [parent [key]] content
    info      = 80 has origin, 40 has right origin, 20 has a key, low five bits the kind of content
    parent    = 01 name | 00 id                               only without origin and right origin
    delete-set= count (client count (clock length)*)*
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Generator, Iterator
from typing import Final

from collab.errors import DecodeError, UpdateError
from collab.protocol.lib0 import read_var_uint
from collab.update.json_text import check_json, check_short_json, is_short_json

# yjs counts clocks in doubles, yrs in wrapping 32-bit integers and panics at the end of them
# (C3 and C4 in docs/decisions/0002). Two thousand million characters of one client are no document.
MAX_CLOCK: Final = 1 << 31
# Containers in containers of an any value; yrs recurses and dies at 26,000 (C1).
MAX_DEPTH: Final = 64
# Bytes between marks: cutting reads at most this much again, and the marks stay under 1 % of the document.
MARK_BYTES: Final = 4096
# A section costs as much as so many bytes of structs more.
_SECTION_BYTES: Final = 24
# Bytes of a text above which it is decoded in portions of as many, half a millisecond each.
_LONG_TEXT: Final = 512 * 1024
# Any values between two yields: about half a millisecond.
_ANY_SLICE: Final = 2000

# Names of properties, as they are written: keys of any values, options of subdocuments.
_PROTO: Final = b"\x09__proto__"
_GUID: Final = b"\x04guid"
_GC_FILTER: Final = b"\x08gcFilter"

# The content that yrs writes for Array.move, and what the author of one is told; and of an update in the V2 encoding,
# which begins with so many buffers.
_MOVE: Final = 11
_NO_MOVE: Final = "the update moves an item, which Yjs does not know (Array.move, pycrdt before 0.14)"
_NO_V2: Final = "the update is in the V2 encoding, and V1 is wanted (Y.encodeStateAsUpdate, doc.on('update'))"
_V2_BUFFERS: Final = 9

GC: Final = 0
DELETED: Final = 1
JSON: Final = 2
BINARY: Final = 3
STRING: Final = 4
EMBED: Final = 5
FORMAT: Final = 6
TYPE: Final = 7
ANY: Final = 8
DOC: Final = 9
SKIP: Final = 10


class Section:
    """Consecutive structs of one client in an update, without a gap.

    ``data[start:stop]`` are ``count`` structs for the clocks from ``clock`` to ``end`` (exclusive).
    ``references`` are the ids of other clients that they name, in order: (clock of the struct, client,
    clock); ids of the same client lie before the struct itself, the reader has seen to that.
    ``deleted`` are the clock ranges of GC and ContentDeleted structs, merged: start, end, start, end ...
    ``marks`` says where to find structs again: clock, offset in data, ordinal, clock, offset, ...
    A gap that the update itself declares (Skip) is a section with a ``count`` of 0.
    """

    __slots__ = ("client", "clock", "count", "deleted", "end", "marks", "references", "start", "stop")

    def __init__(self, client: int, clock: int, start: int) -> None:
        self.client = client
        self.clock = clock
        self.end = clock
        self.count = 0
        self.start = start
        self.stop = start
        self.references: list[tuple[int, int, int]] | tuple[()] = ()
        self.deleted: list[int] | tuple[()] = ()
        self.marks: list[int] | tuple[()] = ()


class Deletes:
    """The deletes of one client in an update.

    ``ranges`` is clock, length, clock, length ... in the order of the update; ``data[start:stop]`` is the
    whole entry: client, count and ranges. Entries of one client behind each other are one here, those without
    ranges are left out.
    """

    __slots__ = ("client", "ranges", "start", "stop")

    def __init__(self, client: int, ranges: list[int], start: int, stop: int) -> None:
        self.client = client
        self.ranges = ranges
        self.start = start
        self.stop = stop


class Update:
    """An update that has been read: its bytes and what they hold.

    ``sections`` keep the order of the update; those of one client follow each other by clock.
    ``data[deletes_start:]`` is the delete set.
    """

    __slots__ = ("data", "deletes", "deletes_start", "sections")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sections: list[Section] = []
        self.deletes: list[Deletes] | tuple[()] = ()
        self.deletes_start = 0


def read_update(data: bytes, *, stored: bool = False) -> Update:
    """Read a whole v1 update at once.

    Raises UpdateError for everything on which yjs throws, for numbers past 2^31 or counts past the
    data, and for bytes behind the end. Large ones take milliseconds: see `UpdateReader`.

    With ``stored`` poison is taken (`find_poison`): what a document holds since a time when it was not refused must
    not close the document.
    """
    update = Update(data)
    for _ in _read(update, not stored):
        pass
    return update


def find_poison(data: bytes) -> str | None:
    """Tell why yjs would throw on an update of a log or on a snapshot; None when it lives with it.

    Poison is what yjs reads without an error and throws on when it writes it again. That document announces no more
    edits, and nobody is told.
    """
    work = find_poison_in_slices(data)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: str | None = end.value
            return found


def find_poison_in_slices(data: bytes) -> Generator[None, None, str | None]:
    """Do the same as `find_poison`, in a generator that yields about every millisecond."""
    reading = UpdateReader(data)
    try:
        while not reading.step():
            yield
    except UpdateError as error:
        return str(error)
    return None


class UpdateReader:
    """Reads a large update in slices.

    Call `step` until it returns True, then take `result`. ``stored`` is what it is for `read_update`.
    """

    def __init__(self, data: bytes, *, stored: bool = False) -> None:
        self.result = Update(data)
        self._slices = _read(self.result, not stored)
        self._done = False

    def step(self, structs: int = 200) -> bool:
        """Read about ``structs`` structs further; return True when the update has been read to its end.

        A slice is at least 4 KB, about 200 structs and 0.3 ms. Raises UpdateError as `read_update`
        does; the reader is of no use after that.
        """
        for _ in range(max(1, structs // 200)):
            if self._done:
                break
            for _ in self._slices:
                break
            else:
                self._done = True
        return self._done


def _read(update: Update, strict: bool) -> Iterator[None]:
    """Fill ``update`` from its bytes, yielding about every millisecond; ``strict`` refuses poison."""
    data = update.data
    sections = update.sections
    try:
        size = len(data)
        clients = data[0]
        pos = 1
        if clients > 127:
            clients, pos = read_var_uint(data, 0)
        # The least section is five bytes: count, client, clock, and a GC struct of two.
        if clients * 5 > size:
            raise UpdateError("the update declares more clients than it has bytes for")
        seen: set[int] | None = set() if clients > 1 else None
        pause = pos + MARK_BYTES
        for _ in range(clients):
            pause -= _SECTION_BYTES
            if pos > pause:
                yield
                pause = pos + MARK_BYTES
            count = data[pos]
            pos += 1
            if count > 127:
                count, pos = read_var_uint(data, pos - 1)
            if not count:
                raise UpdateError("a client's struct list is empty")
            if count * 2 > size - pos:
                raise UpdateError("a section declares more structs than it has bytes for")
            own_start = pos
            client = data[pos]
            pos += 1
            if client > 127:
                client, pos = read_var_uint(data, own_start)
            # The section's own id as written: origins mostly begin with it, and comparing is faster than decoding.
            own = data[own_start:pos]
            own_size = pos - own_start
            if seen is not None:
                if client in seen:
                    raise UpdateError(f"client {client} has two sections")
                seen.add(client)
            clock = data[pos]
            pos += 1
            if clock > 127:
                clock, pos = read_var_uint(data, pos - 1)
            section = Section(client, clock, pos)
            sections.append(section)
            references: list[tuple[int, int, int]] = []
            deleted: list[int] = []
            mark = pos + MARK_BYTES
            base = 0  # the ordinal, in the client's struct list, of the section's first struct
            for ordinal in range(count):
                if pos >= mark:
                    if ordinal > base:
                        if not section.marks:
                            section.marks = []
                        section.marks += (clock, pos, ordinal - base)
                    yield
                    pause = mark = pos + MARK_BYTES
                info = data[pos]
                pos += 1
                kind = info & 31
                if kind == 0 or kind == 10:
                    if info != kind:
                        raise UpdateError(f"a GC or Skip struct has the info byte {info:#04x}")
                    length = data[pos]
                    pos += 1
                    if length > 127:
                        length, pos = read_var_uint(data, pos - 1)
                    if kind == 0:
                        if deleted and deleted[-1] == clock:
                            deleted[-1] = clock + length
                        else:
                            deleted += (clock, clock + length)
                    else:
                        # Close the section, put the gap behind it, open another one.
                        start = pos - 1 - _size(length)
                        base = _close(sections, section, clock, ordinal, base, start, references, deleted)
                        if not length:
                            raise UpdateError("a struct has no length")
                        gap = Section(client, clock, start)
                        gap.end = clock + length
                        gap.stop = pos
                        sections.append(gap)
                        section = Section(client, clock + length, pos)
                        sections.append(section)
                        references = []
                        deleted = []
                else:
                    if info & 128:
                        if data.startswith(own, pos):
                            pos += own_size
                            value = data[pos]
                            pos += 1
                            if value > 127:
                                value, pos = read_var_uint(data, pos - 1)
                            if value >= clock:
                                raise UpdateError("a struct's origin does not lie before it")
                        else:
                            other, pos = read_var_uint(data, pos)
                            value, pos = read_var_uint(data, pos)
                            references.append((clock, other, value))
                    if info & 64:
                        if data.startswith(own, pos):
                            pos += own_size
                            value = data[pos]
                            pos += 1
                            if value > 127:
                                value, pos = read_var_uint(data, pos - 1)
                            if value >= clock:
                                raise UpdateError("a struct's right origin does not lie before it")
                        else:
                            other, pos = read_var_uint(data, pos)
                            value, pos = read_var_uint(data, pos)
                            references.append((clock, other, value))
                    if not info & 192:
                        named = data[pos]
                        pos += 1
                        if named == 1:
                            value = data[pos]
                            pos += 1
                            if value > 127:
                                value, pos = read_var_uint(data, pos - 1)
                            stop = pos + value
                            data[pos:stop].decode()
                            pos = stop
                        elif named == 0:
                            if data.startswith(own, pos):
                                value, pos = read_var_uint(data, pos + own_size)
                                if value >= clock:
                                    raise UpdateError("a struct's parent does not lie before it")
                            else:
                                other, pos = read_var_uint(data, pos)
                                value, pos = read_var_uint(data, pos)
                                references.append((clock, other, value))
                        else:
                            raise UpdateError(f"a struct's parent is written as {named}")
                        if info & 32:
                            pos = _skip_string(data, pos)
                    if kind == 4:
                        value = data[pos]
                        pos += 1
                        if value > 127:
                            value, pos = read_var_uint(data, pos - 1)
                        stop = pos + value
                        if value > _LONG_TEXT:
                            length = yield from _count_long_text(data, pos, stop)
                        else:
                            text = data[pos:stop].decode()
                            length = value if text.isascii() else len(text.encode("utf-16-le")) >> 1
                        pos = stop
                    elif kind == 1:
                        length, pos = read_var_uint(data, pos)
                        if deleted and deleted[-1] == clock:
                            deleted[-1] = clock + length
                        else:
                            deleted += (clock, clock + length)
                    elif kind == 8:
                        length, pos = read_var_uint(data, pos)
                        if length > size - pos:
                            raise UpdateError("a content declares more values than it has bytes for")
                        pending = [length]
                        pos = skip_any(data, pos, pending, _ANY_SLICE, strict)
                        while pending:
                            yield
                            pos = skip_any(data, pos, pending, _ANY_SLICE, strict)
                    elif kind == 6 or kind == 5:
                        length = 1
                        if kind == 6:
                            pos = _skip_string(data, pos)
                        value, pos = read_var_uint(data, pos)
                        text = data[pos : pos + value].decode()
                        pos += value
                        if is_short_json(text):
                            check_short_json(text)
                        else:
                            yield from check_json(text)
                    elif kind == 7:
                        length = 1
                        value, pos = read_var_uint(data, pos)
                        # 0 Array, 1 Map, 2 Text, 3 XmlElement, 4 XmlFragment, 5 XmlHook, 6 XmlText.
                        if value > 6:
                            raise UpdateError(f"unknown type {value}")
                        if value == 3 or value == 5:
                            pos = _skip_string(data, pos)
                    elif kind == 3:
                        length = 1
                        value, pos = read_var_uint(data, pos)
                        pos += value
                    elif kind == 2:
                        length, pos = read_var_uint(data, pos)
                        if length > size - pos:
                            raise UpdateError("a content declares more values than it has bytes for")
                        pause = pos + MARK_BYTES
                        for at in range(length):
                            value, pos = read_var_uint(data, pos)
                            text = data[pos : pos + value].decode()
                            pos += value
                            if is_short_json(text):
                                if text != "undefined":
                                    check_short_json(text)
                            else:
                                yield from check_json(text)
                            if at & 511 == 511 or pos >= pause:
                                yield
                                pause = pos + MARK_BYTES
                    elif kind == 9:
                        length = 1
                        pos = _skip_string(data, pos)
                        # yjs reads properties of it: a map by design, an array does no harm, null throws.
                        value = data[pos]
                        if value != 118 and value != 117:
                            raise UpdateError("the options of a subdocument are not a map")
                        if value == 117 or not strict:
                            pending = [1]
                            pos = skip_any(data, pos, pending, _ANY_SLICE, strict)
                            while pending:
                                yield
                                pos = skip_any(data, pos, pending, _ANY_SLICE, strict)
                        else:
                            value, pos = read_var_uint(data, pos + 1)
                            if value > size - pos:
                                raise UpdateError("a container declares more values than it has bytes for")
                            pause = pos + MARK_BYTES
                            for at in range(value):
                                pos = _skip_option(data, pos)
                                # The entry below stands for the map itself, which is a level of depth.
                                pending = [0, 1]
                                pos = skip_any(data, pos, pending, _ANY_SLICE, strict)
                                while pending:
                                    yield
                                    pos = skip_any(data, pos, pending, _ANY_SLICE, strict)
                                if at & 255 == 255 or pos >= pause:
                                    yield
                                    pause = pos + MARK_BYTES
                    elif kind == _MOVE:
                        raise UpdateError("a move, which Yjs does not know", public=_NO_MOVE)
                    else:
                        raise UpdateError(f"unknown content {kind}")
                if not length:
                    raise UpdateError("a struct has no length")
                clock += length
                if clock > MAX_CLOCK:
                    raise UpdateError("a clock is past 2^31")
            _close(sections, section, clock, count, base, pos, references, deleted)
        update.deletes_start = pos
        clients = data[pos]
        pos += 1
        if clients:
            if clients > 127:
                clients, pos = read_var_uint(data, pos - 1)
            # The least entry is two bytes: client and a count of 0.
            if clients * 2 > size - pos:
                raise UpdateError("the delete set declares more clients than it has bytes for")
            entries: list[Deletes] = []
            update.deletes = entries
            for _ in range(clients):
                start = pos
                client, pos = read_var_uint(data, pos)
                count, pos = read_var_uint(data, pos)
                if count * 2 > size - pos:
                    raise UpdateError("the delete set declares more ranges than it has bytes for")
                ranges: list[int] = []
                for _ in range(count):
                    clock = data[pos]
                    pos += 1
                    if clock > 127:
                        clock, pos = read_var_uint(data, pos - 1)
                    length = data[pos]
                    pos += 1
                    if length > 127:
                        length, pos = read_var_uint(data, pos - 1)
                    if not length:
                        raise UpdateError("a delete has no length")
                    if clock + length > MAX_CLOCK:
                        raise UpdateError("a delete is past clock 2^31")
                    ranges += (clock, length)
                    if pos >= pause:
                        yield
                        pause = pos + MARK_BYTES
                # No encoder writes a client without ranges or twice; millions of them must not become objects.
                if entries and entries[-1].client == client:
                    entries[-1].ranges += ranges
                    entries[-1].stop = pos
                elif count:
                    entries.append(Deletes(client, ranges, start, pos))
                if pos >= pause:
                    yield
                    pause = pos + MARK_BYTES
        if pos != size:
            raise UpdateError("the update does not end where its bytes end")
    except UpdateError as error:
        raise _named(error, data) from None
    except IndexError:
        raise _named(UpdateError("the update ends too early"), data) from None
    except UnicodeDecodeError:
        raise _named(UpdateError("a string is not UTF-8"), data) from None
    except DecodeError as error:
        raise _named(UpdateError(str(error)), data) from None


def _named(error: UpdateError, data: bytes) -> UpdateError:
    """Say more exactly what is wrong with an update that is in the V2 encoding."""
    return UpdateError(f"the update looks like V2: {error}", public=_NO_V2) if _is_v2(data) else error


def _is_v2(data: bytes) -> bool:
    """Tell whether an update that is none in V1 begins as one in V2: a 0, nine buffers with their lengths, and a rest.

    Source: UpdateEncoderV2.toUint8Array of yjs.
    """
    if data[:1] != b"\0":
        return False
    pos = 1
    try:
        for _ in range(_V2_BUFFERS):
            length, pos = read_var_uint(data, pos)
            pos += length
    except DecodeError:
        return False
    return pos < len(data)


def _close(
    sections: list[Section],
    section: Section,
    clock: int,
    ordinal: int,
    base: int,
    stop: int,
    references: list[tuple[int, int, int]],
    deleted: list[int],
) -> int:
    """Finish a section before the struct ``ordinal``; return the ordinal of the first struct behind a Skip."""
    if ordinal > base:
        section.end = clock
        section.count = ordinal - base
        section.stop = stop
        if references:
            section.references = references
        if deleted:
            section.deleted = deleted
    else:
        sections.pop()
    return ordinal + 1


def _size(value: int) -> int:
    """Return how many bytes a varUint takes."""
    return max(1, (value.bit_length() + 6) // 7)


def _count_long_text(data: bytes, pos: int, stop: int) -> Generator[None, None, int]:
    """Count the UTF-16 units of ``data[pos:stop]``, yielding about every half millisecond; it must be UTF-8."""
    if stop > len(data):
        raise IndexError
    view = memoryview(data)
    units = 0
    while pos < stop:
        end = min(pos + _LONG_TEXT, stop)
        # A character that the end cuts in two comes with the next portion.
        text, used = utf_8_decode(view[pos:end], "strict", end == stop)
        units += used if text.isascii() else len(text.encode("utf-16-le")) >> 1
        pos += used
        yield
    return units


def _skip_string(data: bytes, pos: int) -> int:
    """Return the position behind a varString, checking its UTF-8; a length past the data shows at the next read."""
    length, pos = read_var_uint(data, pos)
    stop = pos + length
    data[pos:stop].decode()
    return stop


def _skip_option(data: bytes, pos: int) -> int:
    """Return the position behind the name of an option of a subdocument; raise UpdateError if its value is poison.

    yjs makes a Doc of the options, so they may say what only code should. ``guid`` is written as text later: some
    values throw then, and the others spoil all texts in the v2 format. ``gcFilter`` is called. No client writes them.
    """
    start = pos
    pos = _skip_string(data, pos)
    tag = data[pos]
    if data.startswith(_GUID, start):
        if tag != 119 and tag != 127:
            raise UpdateError("the guid of a subdocument is no text")
    elif data.startswith(_GC_FILTER, start) and tag != 127:
        raise UpdateError("the gcFilter of a subdocument is no function")
    return pos


def skip_any(data: bytes, pos: int, pending: list[int], values: int, strict: bool = False) -> int:
    """Skip up to ``values`` any values (lib0 ``readAny``); return the position behind them.

    ``pending`` is the stack of open containers, each with what it still lacks: a positive number
    of values or a negative one of pairs. Start with one positive entry; when it comes back
    empty all is read, else call again. Raises UpdateError or IndexError on malformed bytes, and with
    ``strict`` UpdateError for a binary value under ``__proto__``: that becomes the prototype of the object, which then
    passes for a Uint8Array and is none.
    """
    size = len(data)
    while pending:
        left = pending[-1]
        if left == 0:
            pending.pop()
            continue
        if left > 0:
            pending[-1] = left - 1
        else:
            pending[-1] = left + 1
            start = pos
            pos = _skip_string(data, pos)
            if pos - start == 10 and strict and data[pos] == 116 and data.startswith(_PROTO, start):
                raise UpdateError("a value has the key __proto__ with a binary value")
        tag = data[pos]
        pos += 1
        if tag == 119:
            length = data[pos]
            pos += 1
            if length > 127:
                length, pos = read_var_uint(data, pos - 1)
            stop = pos + length
            data[pos:stop].decode()
            pos = stop
        elif tag == 125:
            pos = _skip_var_int(data, pos)
        elif tag == 118 or tag == 117:
            length, pos = read_var_uint(data, pos)
            if length > size - pos:
                raise UpdateError("a container declares more values than it has bytes for")
            pending.append(length if tag == 117 else -length)
            # The first entry is the content itself.
            if len(pending) > MAX_DEPTH + 1:
                raise UpdateError(f"a content nests more than {MAX_DEPTH} deep")
        elif tag == 123 or tag == 122:
            pos += 8
        elif tag == 124:
            pos += 4
        elif tag == 116:
            length, pos = read_var_uint(data, pos)
            pos += length
        elif not 120 <= tag <= 127:
            # 120 true, 121 false, 126 null, 127 undefined have no bytes of their own.
            raise UpdateError(f"unknown any value {tag}")
        values -= 1
        if values <= 0:
            return pos
    return pos


def _skip_var_int(data: bytes, pos: int) -> int:
    """Return the position behind a varInt: a sign and six bits in the first byte, seven in the others.

    Raises UpdateError past 2^53-1, where lib0 throws "Integer out of Range".
    """
    byte = data[pos]
    pos += 1
    if byte < 128:
        return pos
    value = byte & 63
    shift = 6
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        if value >= 1 << 53:
            raise UpdateError("a whole number is past 2^53")
        if byte < 128:
            return pos
        shift += 7
        if shift > 53:
            raise UpdateError("a whole number is past 2^53")
