"""Many documents as one stream of bytes: lines of JSON (NDJSON), or a tar archive.

Strategy: without I/O. A writer gives the bytes of one document after the other. A reader takes bytes as they come and
gives ``Item`` s: what is said of a document, as JSON, and its update where that stands beside the JSON. So one document
is in memory at a time, whatever the size of the stream.

A line holds all of a document, the update as base64. In an archive a document is two members, ``STEM.json`` and
``STEM.yjs``, one directly behind the other: JSON without the update, and the update as it is. The stem is a hash of the
name, so no name of a document is ever a path. A reader gives no meaning to a stem but that the two belong
together: what the document is called stands in the JSON alone.

The reader of archives takes regular files and directories, with such names, and nothing else. Everything that tar can
say beyond that (links, devices, sparse files, other names) ends the stream. So does an archive without its end.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from collab.errors import DecodeError

MAX_HEAD: Final = 16 * 1024
"""Bytes of what is said of a document beside its update: its name, title and own keys have 6 KiB at most."""

_BLOCK: Final = tarfile.BLOCKSIZE
_ZEROS: Final = bytes(_BLOCK)

# A multiple of 3, so that pieces of base64 can be put behind each other.
_PIECE: Final = 3 * 64 * 1024

# Bytes of a member's name: what a header without extensions holds.
_MAX_NAME: Final = 256
# Bytes of an extended header: times and owners of a file, as archivers write them.
_MAX_EXTENDED: Final = 16 * 1024

_END: Final = "end"
_LAST: Final = b'{"end":'

# Below whatever directory: relative, nothing hidden, nothing that leads upwards.
_STEP = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_NAME = re.compile(rf"(?:\./)?(?:{_STEP}/)*(?P<stem>{_STEP})(?P<kind>\.json|\.yjs)")
_DIRECTORY = re.compile(rf"\.|(?:\./)?(?:{_STEP}/)*{_STEP}/?")

_MORE: Final = "there is more behind the end of the archive"

_KINDS: Final = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.GNUTYPE_LONGNAME: "a name that is too long",
    tarfile.GNUTYPE_LONGLINK: "a name that is too long",
}

Head = Mapping[str, Any]


class ArchiveError(DecodeError):
    """A stream of documents that cannot be read on; what came before that is whole.

    Args:
        message: what is wrong, for the one who has sent it.
        too_large: something of it is larger than may be.
    """

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.public = message
        self.too_large = too_large


class Fault(Enum):
    """What is wrong with one document of a stream that can be read on."""

    TOO_LARGE = "the update is larger than a document may be"
    HEAD_TOO_LARGE = f"what is said of a document has at most {MAX_HEAD} bytes"
    NO_HEAD = "an update without the JSON that says whose it is: STEM.json comes directly before STEM.yjs"
    NO_UPDATE = "there is no update: STEM.yjs comes directly behind STEM.json"

    @property
    def large(self) -> bool:
        """Whether something is too large."""
        return self in (Fault.TOO_LARGE, Fault.HEAD_TOO_LARGE)


class Item(NamedTuple):
    """A document of a stream.

    Attributes:
        head: what is said of it, as JSON.
        update: its update where that stands beside the head; None: it is in the head.
        fault: what is wrong with it.
    """

    head: bytes
    update: bytes | None = None
    fault: Fault | None = None


# Out


class Writer(Protocol):
    """Writes a stream. All methods give pieces of bytes, in order."""

    def document(self, head: Head, update: bytes, at: float) -> Iterator[bytes]:
        """Write a document that was edited last ``at``, in Unix seconds."""
        ...

    def failed(self, head: Head) -> Iterator[bytes]:
        """Write what is said of a document that could not be read."""
        ...

    def end(self, documents: int, failed: int) -> Iterator[bytes]:
        """End the stream: without this it has broken off."""
        ...


class LineWriter:
    """Writes lines of JSON."""

    def document(self, head: Head, update: bytes, at: float) -> Iterator[bytes]:
        """See ``Writer``."""
        yield _json(head)[:-1] + b',"update":"'
        for begin in range(0, len(update), _PIECE):
            yield base64.b64encode(update[begin : begin + _PIECE])
        yield b'"}\n'

    def failed(self, head: Head) -> Iterator[bytes]:
        """See ``Writer``."""
        yield _json(head) + b"\n"

    def end(self, documents: int, failed: int) -> Iterator[bytes]:
        """See ``Writer``."""
        yield _json(_last(documents, failed)) + b"\n"


class TarWriter:
    """Writes a tar archive, in the format that every tar reads (POSIX ustar)."""

    def document(self, head: Head, update: bytes, at: float) -> Iterator[bytes]:
        """See ``Writer``."""
        stem = make_stem(head["name"])
        yield from _member(stem + ".json", _json(head), at)
        yield from _member(stem + ".yjs", update, at)

    def failed(self, head: Head) -> Iterator[bytes]:
        """See ``Writer``."""
        yield from _member(make_stem(head["name"]) + ".json", _json(head), 0)

    def end(self, documents: int, failed: int) -> Iterator[bytes]:
        """See ``Writer``."""
        yield from _member("end.json", _json(_last(documents, failed)), 0)
        yield 2 * _ZEROS


def make_stem(name: str) -> str:
    """Give what the members of a document are called: the same for one name always, 32 hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _last(documents: int, failed: int) -> Head:
    return {_END: True, "documents": documents, "failed": failed}


def _json(content: Head) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _member(name: str, data: bytes, at: float) -> Iterator[bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mtime = max(0, int(at))
    member.mode = 0o644
    yield member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    view = memoryview(data)
    for begin in range(0, len(data), _PIECE):
        yield bytes(view[begin : begin + _PIECE])
    if len(data) % _BLOCK:
        yield bytes(-len(data) % _BLOCK)


# In


class Reader(Protocol):
    """Reads a stream."""

    def feed(self, data: bytes) -> Iterator[Item]:
        """Take the next bytes, and give the documents that are whole by that; read on when all were taken.

        Raises:
            ArchiveError: the stream is not to be read on.
        """
        ...

    def end(self) -> Iterator[Item]:
        """Give what the end of the stream makes whole.

        Raises:
            ArchiveError: the stream has broken off.
        """
        ...


class LineReader:
    """Reads lines of JSON; a line that is blank, or says that it is the last one, is none.

    Args:
        max_update: bytes of an update.
    """

    def __init__(self, max_update: int) -> None:
        self._max_line = 4 * (max_update // 3 + 1) + MAX_HEAD
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Item]:
        """See ``Reader``."""
        # Only what has come is looked through and copied: a line may be as long as a document.
        *ends, last = data.split(b"\n")
        for end in ends:
            self._rest += end
            yield from self.end()
        self._rest += last
        if len(self._rest) > self._max_line:
            raise ArchiveError(f"a line has at most {self._max_line} bytes", too_large=True)

    def end(self) -> Iterator[Item]:
        """See ``Reader``. A stream of lines may end anywhere."""
        line, self._rest = self._rest, bytearray()
        if line.strip() and not line.startswith(_LAST):
            yield Item(bytes(line))


class TarReader:
    """Reads a tar archive.

    Args:
        max_update: bytes of an update. A larger one is passed over as it comes.
    """

    def __init__(self, max_update: int) -> None:
        self._max_update = max_update
        self._buffer = bytearray()  # of what is being read: a header, or a member
        self._wanted = _BLOCK  # bytes of it
        self._skipping = 0  # bytes that are passed over before that
        self._member: tuple[str, str] | None = None  # stem and kind of the member that is being read
        self._extended: tarfile.TarInfo | None = None  # the extended header that is being read
        self._says: dict[str, str] = {}  # what such a header has said of the next member
        self._head: tuple[str, bytes] | None = None  # stem and JSON of a document whose update comes next
        self._bad: str | None = None  # stem of a document that has failed already
        self._zeros = 0  # blocks of zeros, of which two are the end

    def feed(self, data: bytes) -> Iterator[Item]:
        """See ``Reader``."""
        view = memoryview(data)
        while view:
            if self._skipping:
                passed = min(self._skipping, len(view))
                self._skipping -= passed
                view = view[passed:]
                continue
            taken = view[: self._wanted - len(self._buffer)]
            self._buffer += taken
            view = view[len(taken) :]
            # A member without bytes has ended with its header.
            while not self._skipping and len(self._buffer) == self._wanted:
                done, self._buffer = bytes(self._buffer), bytearray()
                yield from self._whole(done)

    def end(self) -> Iterator[Item]:
        """See ``Reader``."""
        if self._zeros < 2:
            raise ArchiveError("the archive breaks off: it has no end")
        if any(self._buffer):
            raise ArchiveError(_MORE)
        yield from self._without_update()

    def _whole(self, data: bytes) -> Iterator[Item]:
        if self._member is not None:
            stem, kind = self._member
            self._member = None
            self._next(len(data))
            yield from self._read_member(stem, kind, data)
        elif self._extended is not None:
            kind_of = self._extended.type
            self._extended = None
            self._next(len(data))
            self._read_extended(kind_of, data)
        elif data == _ZEROS:
            self._zeros += 1
        elif self._zeros:
            raise ArchiveError(_MORE)
        else:
            yield from self._read_header(data)

    def _next(self, nbytes: int) -> None:
        """Read a header next, behind what fills the last block of so many bytes."""
        self._wanted = _BLOCK
        self._skipping = -nbytes % _BLOCK

    def _read_header(self, data: bytes) -> Iterator[Item]:
        try:
            member = tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise ArchiveError(f"this is no tar archive, or it is damaged: {error}") from None
        if member.size < 0:
            raise ArchiveError("a member has less than no bytes")
        if member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            if member.size > _MAX_EXTENDED:
                raise ArchiveError(f"an extended header has at most {_MAX_EXTENDED} bytes", too_large=True)
            self._extended, self._wanted = member, member.size
            return
        says, self._says = self._says, {}
        name = says.get("path", member.name)
        shown = ascii(name[:_MAX_NAME])
        if member.type == tarfile.DIRTYPE:
            if member.size or not _DIRECTORY.fullmatch(name) or len(name) > _MAX_NAME:
                raise ArchiveError(f"{shown} is no directory as it may be here")
            return
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _KINDS.get(member.type, "of a kind that is not known")
            raise ArchiveError(f"the member {shown} is {kind}; only regular files are taken")
        found = _NAME.fullmatch(name) if len(name) <= _MAX_NAME else None
        if found is None:
            raise ArchiveError(
                f"a member is called {shown}; it is STEM.json or STEM.yjs, with a stem of letters, digits, -, _ and ."
            )
        size = _read_size(says["size"]) if "size" in says else member.size
        yield from self._begin(found["stem"], found["kind"], size)

    def _begin(self, stem: str, kind: str, size: int) -> Iterator[Item]:
        """Begin with a member: it is read, or passed over."""
        if kind == ".json":
            yield from self._without_update()
            if size > MAX_HEAD:
                self._bad = stem
                self._pass_over(size)
                yield Item(b"", fault=Fault.HEAD_TOO_LARGE)
                return
        elif self._head is None or self._head[0] != stem:
            self._pass_over(size)
            if self._bad == stem:
                return  # it was told already
            yield from self._without_update()
            yield Item(b"", fault=Fault.NO_HEAD)
            return
        elif size > self._max_update:
            head, self._head = self._head[1], None
            self._pass_over(size)
            yield Item(head, fault=Fault.TOO_LARGE)
            return
        self._member, self._wanted = (stem, kind), size

    def _pass_over(self, size: int) -> None:
        self._wanted = _BLOCK
        self._skipping = size + -size % _BLOCK

    def _read_member(self, stem: str, kind: str, data: bytes) -> Iterator[Item]:
        if kind == ".yjs":
            assert self._head is not None
            head, self._head = self._head[1], None
            yield Item(head, data)
        elif not data.startswith(_LAST):
            self._head = stem, data

    def _without_update(self) -> Iterator[Item]:
        """Give a document whose update has not come."""
        self._bad = None
        if self._head is not None:
            head, self._head = self._head[1], None
            yield Item(head, fault=Fault.NO_UPDATE)

    def _read_extended(self, kind: bytes, data: bytes) -> None:
        for key, value in _records(data):
            if key.startswith("GNU.sparse"):
                raise ArchiveError("a member is a sparse file; only regular files are taken")
            if key in ("path", "size", "linkpath"):
                if kind == tarfile.XGLTYPE or key == "linkpath":
                    raise ArchiveError(f"an extended header sets {key!r} where it may not")
                self._says[key] = value


def _read_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ArchiveError("an extended header has a size that is no number")
    return int(text)


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Read the records of an extended header (POSIX pax): each has its length, a key and a value."""
    at = 0
    while at < len(data):
        digits, blank, _ = data[at : at + 6].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        record = data[at : at + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != length or length == 0 or not record.endswith(b"\n") or not equals:
            raise ArchiveError("an extended header is malformed")
        yield key.decode("utf-8", "replace"), value.decode("utf-8", "surrogateescape")
        at += length
