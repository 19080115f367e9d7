"""Plain values in the content of structs, as JSON holds them.

Strategy: the reader has bounded how deep they nest. What JSON has not is shown as the content API shows it: bytes as
``{"base64": ...}``, numbers that are none as null.
"""

from __future__ import annotations

import base64
import json
import math
import struct as packing
from typing import Any

from collab.history.items import Content
from collab.protocol.lib0 import read_var_bytes, read_var_string, read_var_uint
from collab.update.reader import ANY, BINARY, DOC, EMBED, FORMAT, JSON, skip_any

_ALL = 1 << 62


def value_of(content: Content) -> Any:
    """Return the value of one clock of a content that is no text and no shared type; None for what is no value."""
    data, struct, offset = content
    pos = struct.content
    if struct.kind == ANY:
        _, pos = read_var_uint(data, pos)
        if offset:
            pos = skip_any(data, pos, [offset], _ALL)
        return read_any(data, pos)[0]
    if struct.kind == JSON:
        _, pos = read_var_uint(data, pos)
        for _ in range(offset):
            _, pos = read_var_bytes(data, pos)
        return _from_json(read_var_string(data, pos)[0])
    if struct.kind == EMBED:
        return _from_json(read_var_string(data, pos)[0])
    if struct.kind == BINARY:
        return _bytes(read_var_bytes(data, pos)[0])
    if struct.kind == DOC:
        return {"guid": read_var_string(data, pos)[0]}
    return None


def format_of(content: Content) -> tuple[str, Any]:
    """Return the name and the value of a format (kind ``FORMAT``); None takes it off."""
    assert content.struct.kind == FORMAT
    name, pos = read_var_string(content.data, content.struct.content)
    return name, _from_json(read_var_string(content.data, pos)[0])


def read_any(data: bytes, pos: int) -> tuple[Any, int]:
    """Read an any value (lib0 ``readAny``) that was read before; return it and the position behind it."""
    tag = data[pos]
    pos += 1
    if tag == 119:
        return read_var_string(data, pos)
    if tag == 125:
        return _read_var_int(data, pos)
    if tag == 124:
        return _number(packing.unpack_from(">f", data, pos)[0]), pos + 4
    if tag == 123:
        return _number(packing.unpack_from(">d", data, pos)[0]), pos + 8
    if tag == 122:
        return packing.unpack_from(">q", data, pos)[0], pos + 8
    if tag == 116:
        found, pos = read_var_bytes(data, pos)
        return _bytes(found), pos
    if tag == 117:
        count, pos = read_var_uint(data, pos)
        values: list[Any] = []
        for _ in range(count):
            value, pos = read_any(data, pos)
            values.append(value)
        return values, pos
    if tag == 118:
        count, pos = read_var_uint(data, pos)
        fields: dict[str, Any] = {}
        for _ in range(count):
            key, pos = read_var_string(data, pos)
            fields[key], pos = read_any(data, pos)
        return fields, pos
    return {120: True, 121: False}.get(tag), pos


def _read_var_int(data: bytes, pos: int) -> tuple[int, int]:
    """Read a varInt: a sign and six bits in the first byte, seven in the others."""
    byte = data[pos]
    pos += 1
    negative, value, shift = byte & 64, byte & 63, 6
    while byte & 128:
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        shift += 7
    return -value if negative else value, pos


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


def _bytes(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def _from_json(text: str) -> Any:
    return None if text == "undefined" else json.loads(text)
