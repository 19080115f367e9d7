r"""The file of a backup: a header, and frames that hold rows of tables.

    file    = "collab-backup 1\n" header "\n" frame*
    header  = one JSON object: what ``Header`` has
    frame   = length (32 bits, big-endian; the highest bit says that it is the last one) payload
    payload = plain:  SHA-256 (32 bytes) of the frame before's, one byte (1: the last frame) and the data; then the data
              sealed: AES-256-GCM of the data; nonce = number of the frame from 0 (96 bits, big-endian); associated
              data = SHA-256 of all before the first frame, and one byte (1: the last frame)
    data    = zlib of at most 1 MiB of the stream
    stream  = record*, total; cut anywhere
    record  = a JSON array and "\n": the number of the table in the header, then its values by its columns, bytes as
              [length]; then all these bytes, one after the other
    total   = a JSON object and "\n": how many rows each table has

So a frame that is missing, doubled, moved, cut or changed is found, and a file without its last frame is not whole. The
key of a sealed file is HKDF-SHA256 of the bytes of a key file and the salt in the header, so each file has its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from collab.errors import CollabError, ConfigurationError

MAGIC: Final = b"collab-backup 1\n"

FRAME_BYTES: Final = 1024 * 1024
"""Bytes of the stream in a frame, before they are compressed."""

MIN_KEY_BYTES: Final = 32
MAX_KEY_BYTES: Final = 64 * 1024
"""Of a key file: less can be guessed, and more is most likely another file."""

MAX_HEADER_BYTES: Final = 256 * 1024
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Of a record without its bytes: texts of a row are in it."""

_LAST: Final = 1 << 31
_DIGEST: Final = 32
# What zlib and GCM may add to a frame that does not shrink.
_MAX_FRAME: Final = FRAME_BYTES + FRAME_BYTES // 100 + 1024

Value = int | float | bool | str | bytes | None


class BackupError(CollabError):
    """A file is no backup, is not whole, was changed, or is sealed by another key; the text says which."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a backup says of itself, unsealed.

    Attributes:
        release: the release that made it.
        schema: the number of its schema.
        database: the kind it was made of, "sqlite" or "postgresql". It can be restored into both.
        at: when, in Unix seconds by the clock of the database.
        tables: the names of the tables, in the order of the rows, with the names of their columns.
        last_ids: of the tables that number their rows by themselves, the last number that was given.
        salt: in base64 where the backup is sealed, else None.
    """

    release: str
    schema: int
    database: str
    at: float
    tables: Mapping[str, Sequence[str]]
    last_ids: Mapping[str, int]
    salt: str | None = None

    def encode(self) -> bytes:
        """Give everything that stands before the first frame."""
        return MAGIC + json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


def new_salt() -> str:
    """Make the salt of a file that is to be sealed."""
    return b64encode(secrets.token_bytes(16)).decode()


def check_key(key: bytes) -> None:
    """Raise ``ConfigurationError`` if the bytes of a key file cannot be a good key."""
    if not MIN_KEY_BYTES <= len(key.strip()) <= MAX_KEY_BYTES:
        raise ConfigurationError(
            f"the key file has {len(key.strip())} bytes; it needs {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random ones, "
            "as by: openssl rand -base64 48"
        )


class _Seal:
    """Makes and checks the payloads of frames, in their order."""

    def __init__(self, before: bytes, salt: str | None, key: bytes | None) -> None:
        self._before = hashlib.sha256(before).digest()
        self._number = 0
        self._cipher: AESGCM | None = None
        if salt is not None:
            if key is None:
                raise BackupError("the backup is sealed: give the key with --key-file")
            check_key(key)
            kdf = HKDF(algorithm=SHA256(), length=32, salt=b64decode(salt), info=b"collab backup 1")
            self._cipher = AESGCM(kdf.derive(key.strip()))

    def close(self, data: bytes, last: bool) -> bytes:
        """Give the payload of the next frame."""
        flag = bytes([last])
        if self._cipher is not None:
            return self._cipher.encrypt(self._nonce(), data, self._before + flag)
        self._before = hashlib.sha256(self._before + flag + data).digest()
        return self._before + data

    def open(self, payload: bytes, last: bool) -> bytes:
        """Give the data of the next frame; raises ``BackupError``."""
        flag = bytes([last])
        if self._cipher is not None:
            try:
                return self._cipher.decrypt(self._nonce(), payload, self._before + flag)
            except InvalidTag:
                what = "sealed by another key, or damaged" if self._number == 1 else "damaged, or was changed"
                raise BackupError(f"the backup is {what} (frame {self._number - 1})") from None
        digest, data = payload[:_DIGEST], payload[_DIGEST:]
        self._before = hashlib.sha256(self._before + flag + data).digest()
        self._number += 1
        if not hmac.compare_digest(digest, self._before):
            raise BackupError(f"the backup is damaged, or was changed (frame {self._number - 1})")
        return data

    def _nonce(self) -> bytes:
        self._number += 1
        return (self._number - 1).to_bytes(12, "big")


class BackupWriter:
    """Writes one file; ``close`` makes it whole.

    Args:
        header: has a salt if the file is to be sealed.
        write: takes bytes.
        key: the bytes of a key file; needed where the header has a salt.
    """

    def __init__(self, header: Header, write: Callable[[bytes], object], key: bytes | None = None) -> None:
        self._names = list(header.tables)
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._write = write
        before = header.encode()
        self._seal = _Seal(before, header.salt, key)
        self._buffer = bytearray()
        self.rows = dict.fromkeys(self._names, 0)
        """How many rows of each table were written."""
        write(before)

    def add(self, table: str, values: Sequence[Value]) -> int:
        """Write a row, its values in the order of the header's columns; give its bytes in the stream."""
        parts = [value for value in values if isinstance(value, bytes)]
        line = [[len(value)] if isinstance(value, bytes) else value for value in values]
        record = json.dumps([self._numbers[table], *line], separators=(",", ":")).encode()
        self._buffer += record
        self._buffer += b"\n"
        for part in parts:
            self._buffer += part
        self.rows[table] += 1
        self._flush(FRAME_BYTES)
        return len(record) + 1 + sum(map(len, parts))

    def close(self) -> None:
        """Write the total and the last frame."""
        self._buffer += json.dumps(self.rows, separators=(",", ":")).encode() + b"\n"
        self._flush(FRAME_BYTES)
        self._frame(bytes(self._buffer), last=True)
        self._buffer.clear()

    def _flush(self, size: int) -> None:
        while len(self._buffer) > size:
            self._frame(bytes(self._buffer[:size]), last=False)
            del self._buffer[:size]

    def _frame(self, data: bytes, *, last: bool) -> None:
        payload = self._seal.close(zlib.compress(data, 1), last)
        self._write((len(payload) | (_LAST if last else 0)).to_bytes(4, "big"))
        self._write(payload)


class BackupReader:
    """Reads one file.

    Args:
        source: gives bytes.
        key: the bytes of a key file, for a file that is sealed.

    Raises:
        BackupError: it is no backup of a kind that this release reads, or the key is missing.

    Attributes:
        header: what the file says of itself. The first frame checks it: believe it when a row was read.
        rows: how many rows of each table were read.
        nbytes: how many bytes of the file were read.
    """

    def __init__(self, source: BinaryIO, key: bytes | None = None) -> None:
        self._source = source
        self.nbytes = 0
        magic = self._take(len(MAGIC), "")
        if magic != MAGIC:
            if magic.startswith(b"collab-backup "):
                raise BackupError("the backup was made by a newer release, in another format")
            raise BackupError("this is not a backup of collab")
        line = source.readline(MAX_HEADER_BYTES)
        self.nbytes += len(line)
        self.header = _read_header(line)
        self._seal = _Seal(magic + line, self.header.salt, key)
        self.rows: dict[str, int] = dict.fromkeys(self.header.tables, 0)
        self._buffer = bytearray()
        self._at = 0
        self._ended = False

    def records(self) -> Iterator[tuple[str, list[Value]]]:
        """Give each row with the name of its table; the last step checks that the file is whole.

        Raises ``BackupError``; what was given before is then part of a damaged file.
        """
        names = list(self.header.tables)
        widths = [len(columns) for columns in self.header.tables.values()]
        while True:
            line = self._line()
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                break
            if not isinstance(record, list) or not record or type(record[0]) is not int:
                raise BackupError("the backup holds what is no row")
            number = record[0]
            if not 0 <= number < len(names) or len(record) != widths[number] + 1:
                raise BackupError("the backup holds a row that does not fit its tables")
            values = [self._value(value) for value in record[1:]]
            self.rows[names[number]] += 1
            yield names[number], values
        if record != self.rows:
            raise BackupError("the backup does not hold as many rows as it says")
        if not self._ended or self._at != len(self._buffer) or self._source.read(1):
            raise BackupError("there is something behind the end of the backup")

    def _value(self, value: Any) -> Value:
        if value is None or isinstance(value, int | float | str):
            return value
        if isinstance(value, list) and len(value) == 1 and type(value[0]) is int and value[0] >= 0:
            return self._bytes(value[0])
        raise BackupError("the backup holds a value of no known kind")

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if len(self._buffer) - self._at > MAX_LINE_BYTES:
                raise BackupError("the backup holds a line that never ends")
            self._more()
        line = bytes(self._buffer[self._at : end])
        self._at = end + 1
        return line

    def _bytes(self, count: int) -> bytes:
        while len(self._buffer) - self._at < count:
            self._more()
        data = bytes(self._buffer[self._at : self._at + count])
        self._at += count
        return data

    def _more(self) -> None:
        """Read a frame behind what is left of those before."""
        if self._ended:
            raise BackupError("the backup ends in the middle of a row")
        length = int.from_bytes(self._take(4, "the backup is not whole: its end is missing"), "big")
        last, length = bool(length & _LAST), length & ~_LAST
        if length > _MAX_FRAME:
            raise BackupError("the backup is damaged: a frame is too long")
        data = self._seal.open(self._take(length, "the backup is not whole: its end is missing"), last)
        unpack = zlib.decompressobj()
        try:
            plain = unpack.decompress(data, FRAME_BYTES + 1)
        except zlib.error:
            raise BackupError("the backup is damaged: a frame cannot be unpacked") from None
        if len(plain) > FRAME_BYTES or not unpack.eof or unpack.unused_data:
            raise BackupError("the backup is damaged: a frame does not hold what it should")
        del self._buffer[: self._at]
        self._at = 0
        self._buffer += plain
        self._ended = last

    def _take(self, count: int, missing: str) -> bytes:
        data = self._source.read(count)
        self.nbytes += len(data)
        if len(data) < count and missing:
            raise BackupError(missing)
        return data


def _read_header(line: bytes) -> Header:
    try:
        said = json.loads(line)
        header = Header(
            release=str(said["release"]),
            schema=int(said["schema"]),
            database=str(said["database"]),
            at=float(said["at"]),
            tables={str(name): tuple(map(str, columns)) for name, columns in said["tables"].items()},
            last_ids={str(name): int(last) for name, last in said["last_ids"].items()},
            salt=None if said["salt"] is None else str(said["salt"]),
        )
        if header.salt is not None:
            b64decode(header.salt, validate=True)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise BackupError("the header of the backup cannot be read") from None
    return header
