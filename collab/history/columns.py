"""Columns of whole numbers in few bytes.

Strategy: a symbol says how long a number is in bits, and its two bits below the highest one; numbers below 8 are their
own symbols. The bits below those usually look random, so they are kept apart, those of all columns one behind the
other. The symbols of a column are packed by zlib. Where what was read before tells which numbers are likely, a column
can be split into streams, one for each case, if that is shorter: each has Huffman codes of its own.

==============================  ==================================================================================
part                            what
==============================  ==================================================================================
the low bits                    a stream
a column                        a stream of its symbols
a column that can be split      0 and a stream, or 1 and a stream for each case
a stream                        twice its length, one more if it is packed, and its bytes
==============================  ==================================================================================
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from collab.protocol.lib0 import encode_var_uint, read_var_uint

# Without the header and the checksum of zlib: whoever keeps columns has one for all.
_RAW = -15

# Symbols are frequent or rare; a few columns repeat themselves. What else zlib can do is slower and gains nothing.
_STRATEGIES = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY)
_LEVEL = 6
# Streams of so many bytes are not packed: to begin with zlib takes longer than all the rest of a small document.
_SHORT = 8

_OWN = 8
"""Numbers below it are their own symbols."""
_LAST = 251
"""The highest symbol, of numbers of 64 bits."""


def _split(number: int) -> tuple[int, str]:
    """Return the symbol of a number, and its low bits as digits."""
    if number < _OWN:
        return number, ""
    low = number.bit_length() - 3
    return 4 * low + (number >> low), f"{number & (1 << low) - 1:0{low}b}"


# Most numbers are in one byte.
_SYMBOLS = bytes([_split(number)[0] for number in range(256)])
_LOW = [_split(number)[1] for number in range(256)]


class ColumnWriter:
    """Encodes columns of numbers from 0 to 2**64 - 1, and bytes."""

    def __init__(self) -> None:
        self._low: list[str] = []
        self._streams = bytearray()

    def write(self, numbers: Sequence[int]) -> None:
        """Add a column."""
        self._streams += _pack(self._symbols(numbers))

    def write_by_case(self, numbers: Sequence[int], cases: Sequence[int], count: int) -> None:
        """Add a column that can be split: ``cases`` says of each number which of ``count`` cases it is."""
        symbols = self._symbols(numbers)
        parts = [bytearray() for _ in range(count)]
        for symbol, case in zip(symbols, cases, strict=True):
            parts[case].append(symbol)
        whole, split = _pack(symbols), b"".join(map(_pack, parts))
        self._streams += b"\0" + whole if len(whole) <= len(split) else b"\1" + split

    def write_bytes(self, data: bytes) -> None:
        """Add bytes."""
        self._streams += _pack(data)

    def data(self) -> bytes:
        """Return all of it."""
        digits = "".join(self._low)
        size = -(-len(digits) // 8)
        return _pack(int(digits.ljust(8 * size, "0") or "0", 2).to_bytes(size)) + self._streams

    def _symbols(self, numbers: Sequence[int]) -> bytes:
        if not numbers or max(numbers) < 256:
            self._low += [_LOW[number] for number in numbers if number >= _OWN]
            return bytes(numbers).translate(_SYMBOLS)
        symbols = bytearray()
        for number in numbers:
            symbol, low = _split(number)
            symbols.append(symbol)
            self._low.append(low)
        return bytes(symbols)


class ColumnReader:
    """Reads what a `ColumnWriter` gave, in the same order.

    Args:
        data: all of it.
        most: how many bytes all streams may have when they are unpacked: one for each number, and the low bits.

    Raises:
        ValueError, IndexError, DecodeError, zlib.error: it is damaged; so do the methods.
    """

    def __init__(self, data: bytes, most: int) -> None:
        self._data = data
        self._pos = 0
        self._left = most
        self._low = self.read_bytes()
        self._at = 0  # how many of the low bits are read

    def read(self, count: int) -> list[int]:
        """Read a column of so many numbers."""
        symbols = self.read_bytes()
        if len(symbols) != count:
            raise ValueError("a column is too long, or cut off")
        return self._numbers(symbols)

    def read_by_case(self, count: int, cases: Callable[[], Sequence[int]], most: int) -> list[int]:
        """Read a column that can be split into ``most`` streams; ``cases`` is only called if it is."""
        split = self._data[self._pos]
        self._pos += 1
        if not split:
            return self.read(count)
        parts = [self.read_bytes() for _ in range(most)]
        if sum(map(len, parts)) != count:
            raise ValueError("a column is too long, or cut off")
        streams = [iter(part) for part in parts]
        try:
            symbols = [next(streams[case]) for case in cases()]
        except StopIteration:
            raise ValueError("a stream of a column is cut off") from None
        return self._numbers(bytes(symbols))

    def read_bytes(self) -> bytes:
        """Read bytes."""
        size, pos = read_var_uint(self._data, self._pos)
        packed, size = size & 1, size >> 1
        stream = self._data[pos : pos + size]
        if len(stream) != size:
            raise ValueError("a stream is cut off")
        if packed:
            stream = unpack(stream, _RAW, self._left)
        self._pos = pos + size
        self._left -= len(stream)
        if self._left < 0:
            raise ValueError("the streams are too long")
        return stream

    def end(self) -> None:
        """Make sure that all was read."""
        if self._pos != len(self._data) or -(-self._at // 8) != len(self._low):
            raise ValueError("bytes behind the columns")

    def _numbers(self, symbols: bytes) -> list[int]:
        numbers = list(symbols)
        most = max(numbers, default=0)
        if most < _OWN:
            return numbers
        if most > _LAST:
            raise ValueError("a symbol that is none")
        low, at = self._low, self._at
        for place, symbol in enumerate(numbers):
            if symbol >= _OWN:
                size = (symbol >> 2) - 1
                end = at + size
                bits = int.from_bytes(low[at >> 3 : (end + 7) >> 3]) >> (-end & 7)
                numbers[place] = (4 | symbol & 3) << size | bits & (1 << size) - 1
                at = end
        if at > 8 * len(low):
            raise ValueError("the low bits are cut off")
        self._at = at
        return numbers


def unpack(packed: bytes, bits: int, most: int) -> bytes:
    """Unpack what zlib has packed with so many window bits; raises ValueError if it is longer than ``most`` bytes."""
    unpacking = zlib.decompressobj(bits)
    data = unpacking.decompress(packed, most + 1)
    if len(data) > most or unpacking.unconsumed_tail or unpacking.unused_data or not unpacking.eof:
        raise ValueError("it is too long, or cut off")
    return data


def _pack(data: bytes | bytearray) -> bytes:
    """Encode a stream in the way that makes it shortest."""
    packed, is_packed = bytes(data), 0
    for strategy in _STRATEGIES if len(data) > _SHORT else ():
        packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, strategy)
        found = packing.compress(data) + packing.flush()
        if len(found) < len(packed):
            packed, is_packed = found, 1
    return encode_var_uint(2 * len(packed) + is_packed) + packed


def zigzag(number: int) -> int:
    """Return a number that is not negative, and small if ``number`` is near 0."""
    return 2 * number if number >= 0 else -2 * number - 1


def unzigzag(number: int) -> int:
    """Return what ``zigzag`` was given."""
    return (number >> 1) ^ -(number & 1)
