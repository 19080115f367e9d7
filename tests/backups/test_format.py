"""The file of a backup: what was written is read, and whatever is done to the file is found."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.backups.format import FRAME_BYTES, MAGIC, BackupError, BackupReader, BackupWriter, Header, Value, new_salt
from collab.errors import ConfigurationError

KEY = b"0123456789abcdef0123456789abcdef"
TABLES = {"one": ("id", "data"), "two": ("x",)}

values = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
rows = st.lists(
    st.tuples(st.just("one"), st.tuples(values, st.binary() | st.none()))
    | st.tuples(st.just("two"), st.tuples(st.text() | values)),
    max_size=20,
)


def written(rows: list[tuple[str, tuple[Value, ...]]], key: bytes | None = None) -> bytes:
    out = io.BytesIO()
    header = Header("1.0", 14, "sqlite", 12.5, TABLES, {"one": 9}, None if key is None else new_salt())
    writer = BackupWriter(header, out.write, key)
    for table, row in rows:
        writer.add(table, row)
    writer.close()
    return out.getvalue()


def read(data: bytes, key: bytes | None = None) -> list[tuple[str, tuple[Value, ...]]]:
    return [(table, tuple(row)) for table, row in BackupReader(io.BytesIO(data), key).records()]


@given(rows=rows, key=st.none() | st.just(KEY))
def test_what_is_written_is_read(rows: list[tuple[str, tuple[Value, ...]]], key: bytes | None) -> None:
    data = written(rows, key)
    reader = BackupReader(io.BytesIO(data), key)
    found = [(table, tuple(row)) for table, row in reader.records()]
    assert found == rows and [[type(value) for value in row] for _, row in found] == [
        [type(value) for value in row] for _, row in rows
    ]
    assert reader.header.tables == TABLES and reader.header.at == 12.5 and reader.nbytes == len(data)


def test_rows_are_larger_than_a_frame() -> None:
    long = bytes(range(256)) * (3 * FRAME_BYTES // 256)
    content: list[tuple[str, tuple[Value, ...]]] = [("one", (1, long)), ("two", ("é\n",)), ("one", (2, long[1:]))]
    for key in (None, KEY):
        assert read(written(content, key), key) == content


@pytest.mark.parametrize("key", [None, KEY])
def test_each_byte_that_changes_is_found(key: bytes | None) -> None:
    data = written([("one", (1, b"abc")), ("two", ("text",))], key)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises((BackupError, ConfigurationError)):
            read(bytes(changed), key)


@pytest.mark.parametrize("key", [None, KEY])
def test_a_file_that_is_not_whole_is_found(key: bytes | None) -> None:
    data = written([("one", (1, b"abc"))], key)
    for end in range(len(data)):
        with pytest.raises(BackupError):
            read(data[:end], key)
    with pytest.raises(BackupError):
        read(data + b"x", key)


@pytest.mark.parametrize("key", [None, KEY])
def test_frames_that_lack_or_change_places_are_found(key: bytes | None) -> None:
    content: list[tuple[str, tuple[Value, ...]]] = [("one", (at, bytes([at]) * FRAME_BYTES)) for at in range(4)]
    data = written(content, key)
    start = data.index(b"\n", len(MAGIC)) + 1
    head, rest, frames = data[:start], data[start:], list[bytes]()
    while rest:
        length = (int.from_bytes(rest[:4], "big") & 0x7FFFFFFF) + 4
        frames.append(rest[:length])
        rest = rest[length:]
    assert len(frames) == 5 and read(head + b"".join(frames), key) == content
    for changed in (
        frames[1:],
        frames[:1] + frames[2:],
        frames[:2] + frames[1:],
        [frames[1], frames[0], *frames[2:]],
        frames[:-1],
        frames[:-2] + frames[-1:],
    ):
        with pytest.raises(BackupError):
            read(head + b"".join(changed), key)


def test_a_sealed_file_shows_nothing_and_wants_its_key() -> None:
    data = written([("one", (1, b"a secret text" * 100))], KEY)
    assert b"secret" not in data
    with pytest.raises(BackupError, match="--key-file"):
        read(data)
    with pytest.raises(BackupError, match="another key"):
        read(data, KEY[::-1])
    # A new line behind it is what an editor leaves.
    assert read(data, KEY + b"\n") == [("one", (1, b"a secret text" * 100))]
    with pytest.raises(ConfigurationError, match="32"):
        read(data, b"short")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([2, 1], "does not fit"),
        ([-1, 1], "does not fit"),
        ([1], "does not fit"),
        ([1, [3, 4]], "no known kind"),
        ([1, {"a": 1}], "no known kind"),
        ([1, [-1]], "no known kind"),
        ([1, [1000]], "ends in the middle"),
        (["one"], "no row"),
        ("one", "no row"),
    ],
)
def test_what_is_no_row_is_told(record: object, said: str) -> None:
    out = io.BytesIO()
    writer = BackupWriter(Header("1.0", 14, "sqlite", 0.0, TABLES, {}), out.write)
    writer._buffer += json.dumps(record).encode() + b"\n"
    writer.close()
    with pytest.raises(BackupError, match=said):
        read(out.getvalue())


def test_other_files_are_told_by_what_they_are() -> None:
    for data, said in (
        (b"", "not a backup"),
        (b"PK\x03\x04" + bytes(100), "not a backup"),
        (b"collab-backup 2\n{}\n", "newer release"),
        (MAGIC + b"{}\n", "header"),
        (MAGIC + b"[" * 100_000, "header"),
    ):
        with pytest.raises(BackupError, match=said):
            read(data)
