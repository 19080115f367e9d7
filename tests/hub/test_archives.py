"""Streams of documents, as bytes: what is written is read, by Python's tar too, and nothing else is taken."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from collab.hub.archives import (
    MAX_HEAD,
    ArchiveError,
    Fault,
    Item,
    LineReader,
    LineWriter,
    Reader,
    TarReader,
    TarWriter,
    Writer,
    make_stem,
)

MOST = 100_000

NAMES = ["a", "../../etc/passwd", "/abs", "C:\\x", "a\nb", "ü😀", "x" * 512, ".", "con", "a", "A"]


def head(name: str) -> dict[str, Any]:
    return {"name": name, "title": None, "metadata": {}, "gc": True}


def stream(writer: Writer, documents: Iterable[tuple[str, bytes]]) -> bytes:
    pieces = [piece for name, data in documents for piece in writer.document(head(name), data, 1_700_000_000.5)]
    return b"".join([*pieces, *writer.failed({"name": "bad", "code": "document_damaged"}), *writer.end(3, 1)])


def read(reader: Reader, data: bytes, step: int | None = None) -> list[Item]:
    found: list[Item] = []
    for begin in range(0, len(data), step or len(data) or 1):
        found += reader.feed(data[begin : begin + (step or len(data))])
    return [*found, *reader.end()]


def tar(
    *members: tuple[str, bytes] | tarfile.TarInfo, format: int = tarfile.USTAR_FORMAT, end: bool = True, **options: Any
) -> bytes:
    """Make an archive as Python does."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, **options) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
        size = archive.offset
    return file.getvalue() if end else file.getvalue()[:size]


def pair(stem: str, name: str, data: bytes = b"\x00\x00") -> list[tuple[str, bytes]]:
    return [(f"{stem}.json", json.dumps({"name": name}).encode()), (f"{stem}.yjs", data)]


DOCUMENTS = [
    (name, bytes([number]) * size)
    for (number, name), size in zip(enumerate(NAMES), itertools.cycle((0, 1, 511, 512, 513, 70_000)), strict=False)
]


@pytest.mark.parametrize("step", [None, 1, 7, 512, 1000])
def test_an_archive_is_read_as_it_was_written_in_whatever_pieces_it_comes(step: int | None) -> None:
    documents = DOCUMENTS if step != 1 else DOCUMENTS[:5]
    found = read(TarReader(MOST), stream(TarWriter(), documents), step)
    assert [(json.loads(each.head)["name"], each.update) for each in found[:-1]] == documents
    assert json.loads(found[-1].head)["code"] == "document_damaged" and found[-1].fault is Fault.NO_UPDATE


@pytest.mark.parametrize("step", [None, 1, 7, 1000])
def test_lines_are_read_as_they_were_written_in_whatever_pieces_they_come(step: int | None) -> None:
    documents = DOCUMENTS if step != 1 else DOCUMENTS[:5]
    data = stream(LineWriter(), documents)
    found = read(LineReader(MOST), data, step)
    assert [json.loads(each.head)["name"] for each in found] == [*(name for name, _ in documents), "bad"]
    assert b"\n".join(each.head for each in found) + b"\n" == data[: data.rindex(b'{"end"')]


def test_an_archive_is_one_for_other_readers_and_its_names_are_no_paths() -> None:
    with tarfile.open(fileobj=io.BytesIO(stream(TarWriter(), DOCUMENTS))) as archive:
        members = archive.getmembers()
        read_back = [archive.extractfile(member) for member in members]
        contents = [file.read() for file in read_back if file is not None]
    assert [member.name for member in members] == [
        *(make_stem(name) + kind for name in NAMES for kind in (".json", ".yjs")),
        make_stem("bad") + ".json",
        "end.json",
    ]
    assert all(member.isreg() and member.mode == 0o644 for member in members)
    assert [json.loads(data)["name"] for data in contents[:-2:2]] == NAMES
    assert contents[1:-2:2] == [data for _, data in DOCUMENTS]
    assert json.loads(contents[-1]) == {"end": True, "documents": 3, "failed": 1}
    stems = {make_stem(name) for name in NAMES}
    assert len(stems) == len(set(NAMES)) and all(len(stem) == 32 and stem.isalnum() for stem in stems)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_other_programs_are_taken(format: int) -> None:
    directory = tarfile.TarInfo("./out")
    directory.type = tarfile.DIRTYPE
    directory.mtime = 1_700_000_000.25  # type: ignore[assignment]  # of a file; PAX has fractions, in an extended header
    dated = tarfile.TarInfo("out/x.json")
    dated.mtime, dated.size = 1_700_000_000.25, 0  # type: ignore[assignment]
    options = {"pax_headers": {"comment": "made by hand"}} if format == tarfile.PAX_FORMAT else {}
    data = tar(directory, *pair("out/a", "a"), *pair("./b", "b"), dated, format=format, **options)
    found = read(TarReader(MOST), data)
    assert [(each.head, each.update) for each in found[:2]] == [
        (b'{"name": "a"}', b"\x00\x00"),
        (b'{"name": "b"}', b"\x00\x00"),
    ]
    assert found[2:] == [Item(b"", None, Fault.NO_UPDATE)], "a head without bytes is none"


def of_type(kind: bytes, name: str = "a.json", **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def changed(data: bytes, at: int, by: bytes) -> bytes:
    return data[:at] + by + data[at + len(by) :]


def extended(*records: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Make an extended header of these records, and an archive behind it."""
    data = b"".join(records)
    info = of_type(kind, size=len(data))
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512) + tar(*pair("a", "a"))


GOOD = tar(*pair("a", "a"))
LONG = "x" * 101

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "symbolic link": (lambda: tar(of_type(tarfile.SYMTYPE, linkname="/etc/passwd")), "a link"),
    "link": (lambda: tar(of_type(tarfile.LNKTYPE, linkname="b.json")), "a link"),
    "device": (lambda: tar(of_type(tarfile.CHRTYPE)), "a device"),
    "disk": (lambda: tar(of_type(tarfile.BLKTYPE)), "a device"),
    "pipe": (lambda: tar(of_type(tarfile.FIFOTYPE)), "a pipe"),
    "sparse": (lambda: changed_type(tarfile.GNUTYPE_SPARSE), "sparse"),
    "contiguous": (lambda: changed_type(tarfile.CONTTYPE), "not known"),
    "unknown": (lambda: changed_type(b"Z"), "not known"),
    "absolute": (lambda: tar(*pair("/a", "a")), "is called"),
    "upwards": (lambda: tar(*pair("x/../../a", "a")), "is called"),
    "hidden": (lambda: tar(*pair("._a", "a")), "is called"),
    "backslash": (lambda: tar(*pair("x\\a", "a")), "is called"),
    "no UTF-8": (lambda: tar(*pair("\udcff", "a"), encoding="utf-8", errors="surrogateescape"), "is called"),
    "other file": (lambda: tar(("README", b"")), "is called"),
    "long name": (lambda: tar(*pair(LONG, "a"), format=tarfile.GNU_FORMAT), "too long"),
    "longer name": (lambda: tar(*pair("x" * 300, "a"), format=tarfile.PAX_FORMAT), "is called"),
    "directory upwards": (lambda: tar(of_type(tarfile.DIRTYPE, "../x")), "directory"),
    "directory with bytes": (lambda: tar(of_type(tarfile.DIRTYPE, "x", size=512)), "directory"),
    "checksum": (lambda: changed(GOOD, 0, b"b"), "damaged"),
    "no archive": (lambda: b"x" * 1024, "no tar"),
    "size below 0": (lambda: with_size(b"\xff" * 12), "less than no"),
    "size no number": (lambda: with_size(b"ten bytes  \0"), "damaged"),
    "two archives": (lambda: GOOD + GOOD, "more behind"),
    "more behind the end": (lambda: GOOD + b"x", "more behind"),
    "one block of zeros": (lambda: bytes(512) + GOOD, "more behind"),
    "without an end": (lambda: tar(*pair("a", "a"), end=False), "breaks off"),
    "cut in a member": (lambda: GOOD[:530], "breaks off"),
    "cut in a header": (lambda: GOOD[:100], "breaks off"),
    "nothing": (lambda: b"", "breaks off"),
    "long extended header": (lambda: extended(b"x" * 20_000), "at most"),
    "record without an end": (lambda: extended(b"12 path=a.b\0"), "malformed"),
    "record too long": (lambda: extended(b"99 path=a\n"), "malformed"),
    "record of no length": (lambda: extended(b"0 path=a\n"), "malformed"),
    "record without a key": (lambda: extended(b"6 abc\n"), "malformed"),
    "size in words": (lambda: extended(b"12 size=ten\n"), "no number"),
    "size below 0 in a record": (lambda: extended(b"11 size=-1\n"), "no number"),
    "path upwards": (lambda: extended(b"18 path=../a.json\n"), "is called"),
    "path of all": (lambda: extended(b"15 path=a.json\n", kind=tarfile.XGLTYPE), "may not"),
    "link in a record": (lambda: extended(b"14 linkpath=x\n"), "may not"),
    "sparse in a record": (lambda: extended(b"22 GNU.sparse.major=1\n"), "sparse"),
}


def changed_type(kind: bytes) -> bytes:
    return of_type(kind, size=0).tobuf(tarfile.USTAR_FORMAT) + bytes(1024)


def with_size(size: bytes) -> bytes:
    header = changed(GOOD[:512], 124, size)
    total = sum(header[:148]) + sum(header[156:]) + 8 * 32
    return changed(header, 148, b"%06o\0 " % total) + GOOD[512:]


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("step", [None, 13])
def test_what_an_archive_of_documents_never_has_ends_it(case: str, step: int | None) -> None:
    make, reason = HOSTILE[case]
    with pytest.raises(ArchiveError, match=reason) as found:
        read(TarReader(MOST), make(), step)
    assert str(found.value).isprintable() and len(str(found.value)) < 1_500


def test_what_is_wrong_with_one_document_hinders_no_other() -> None:
    data = tar(
        ("lone.json", b'{"name": "lone"}'),
        *pair("a", "a"),
        ("orphan.yjs", b"1"),
        ("long.json", b"x" * (MAX_HEAD + 1)),
        ("long.yjs", b"2"),
        *pair("large", "large", bytes(MOST + 1)),
        *pair("full", "full", bytes(MOST)),
        ("x.json", b'{"name": "x"}'),
        ("y.yjs", b"3"),
        *pair("empty", "empty", b""),
        ("last.json", b'{"name": "last"}'),
    )
    for step in (None, 100):
        found = read(TarReader(MOST), data, step)
        assert [(each.head and json.loads(each.head)["name"], each.fault) for each in found] == [
            ("lone", Fault.NO_UPDATE),
            ("a", None),
            (b"", Fault.NO_HEAD),
            (b"", Fault.HEAD_TOO_LARGE),
            ("large", Fault.TOO_LARGE),
            ("full", None),
            ("x", Fault.NO_UPDATE),
            (b"", Fault.NO_HEAD),
            ("empty", None),
            ("last", Fault.NO_UPDATE),
        ]


def test_a_size_that_nobody_sends_is_not_waited_for_in_memory() -> None:
    reader = TarReader(MOST)
    bomb = of_type(tarfile.REGTYPE, "bomb.json", size=8 * 1024**3 - 1).tobuf(tarfile.USTAR_FORMAT)
    assert [item.fault for item in reader.feed(bomb)] == [Fault.HEAD_TOO_LARGE]
    for _ in range(1_000):
        assert list(reader.feed(bytes(64 * 1024))) == []
    assert len(reader._buffer) == 0
    with pytest.raises(ArchiveError, match="breaks off"):
        list(reader.end())


def test_a_line_that_never_ends_is_ended() -> None:
    reader = LineReader(30_000)
    with pytest.raises(ArchiveError, match="a line has at most") as found:
        for _ in range(100):
            assert list(reader.feed(b"x" * 10_000)) == []
    assert found.value.too_large
