"""Rich text as ProseMirror JSON.

Strategy: what y-prosemirror gives (``yXmlFragmentToProsemirrorJSON``) and what it makes of a document of ProseMirror
(``prosemirrorToYXmlFragment``), without a schema. So attributes are those that are stored: what a schema would add as a
default is not there, and an attribute that is null is not stored. Marks of elements are dropped, as there.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from collab.content.schema import mark_name
from collab.content.tree import Element, Node, Piece, TextNode, check, joined, walk
from collab.content.values import check_name, clean, same
from collab.errors import InvalidEdit
from collab.protocol.lib0 import encode_var_uint


def to_prosemirror(nodes: Iterable[Node]) -> dict[str, Any]:
    """Return a tree as ProseMirror JSON."""
    return {"type": "doc", "content": _content(nodes)}


def _content(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for node in nodes:
        if isinstance(node, TextNode):
            content += map(_text, node.pieces)
            continue
        shown: dict[str, Any] = {"type": node.name}
        if node.attributes:
            shown["attrs"] = node.attributes
        if node.children:
            shown["content"] = _content(node.children)
        content.append(shown)
    return content


def _text(piece: Piece) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "text", "text": piece.content}
    if piece.attributes:
        marks = sorted(piece.attributes.items())
        shown["marks"] = [{"type": mark_name(name), "attrs": value} for name, value in marks]
    return shown


def from_prosemirror(value: dict[str, Any], present: Iterable[Node] = ()) -> list[Node]:
    """Return ProseMirror JSON (`clean_prosemirror`) as a tree.

    ``present`` is what the document holds: marks that it stores with a hash, because they may overlap themselves, are
    stored so. Raises InvalidEdit for what is no ProseMirror JSON.
    """
    reader = _Reader(_hashed(present) | _doubled(value))
    return check(reader.children(value), "the ProseMirror JSON")


def clean_prosemirror(given: Any) -> dict[str, Any]:
    """Return a copy of ProseMirror JSON that documents can hold; raises InvalidEdit."""
    value = clean(given, "the ProseMirror JSON")
    if not isinstance(value, dict) or value.get("type") != "doc":
        raise InvalidEdit('ProseMirror JSON is an object {"type": "doc", "content": [...]}')
    return value


class _Reader:
    def __init__(self, hashed: frozenset[str]) -> None:
        self.hashed = hashed

    def children(self, node: dict[str, Any]) -> list[Node]:
        content = node.get("content") or []
        if not isinstance(content, list):
            raise InvalidEdit("the content of a node of ProseMirror is no list")
        found: list[Node] = []
        run: list[Piece] = []
        for child in content:
            if not isinstance(child, dict):
                raise InvalidEdit("a node of ProseMirror is no object")
            if child.get("type") == "text":
                run.append(self._piece(child))
                continue
            if run:
                found += _texts(run)
                run = []
            name = check_name(child.get("type"), "the type of a node of ProseMirror")
            if not name:
                raise InvalidEdit("the type of a node of ProseMirror is empty")
            found.append(Element(name, _attributes(child.get("attrs")), self.children(child)))
        return found + _texts(run)

    def _piece(self, node: dict[str, Any]) -> Piece:
        text = node.get("text")
        if not isinstance(text, str):
            raise InvalidEdit("a text of ProseMirror has no text")
        marks = node.get("marks") or []
        if not isinstance(marks, list):
            raise InvalidEdit("the marks of a text of ProseMirror are no list")
        attributes: dict[str, Any] = {}
        for mark in marks:
            if not isinstance(mark, dict):
                raise InvalidEdit("a mark of ProseMirror is no object")
            name = check_name(mark.get("type"), "the type of a mark of ProseMirror")
            given = mark.get("attrs")
            if given is not None and not isinstance(given, dict):
                raise InvalidEdit("the attrs of a mark of ProseMirror are no object")
            if name == "ychange":
                continue
            key = f"{name}--{hash_of({'type': name, **({'attrs': given} if given else {})})}"
            attributes[key if name in self.hashed else name] = given or {}
        return Piece(text, attributes)


def _texts(run: list[Piece]) -> list[Node]:
    pieces = joined(run)
    return [TextNode(pieces)] if pieces else []


def _attributes(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InvalidEdit("the attrs of a node of ProseMirror are no object")
    return {
        check_name(name, "an attribute"): value
        for name, value in given.items()
        if value is not None and name != "ychange"
    }


def _hashed(nodes: Iterable[Node]) -> frozenset[str]:
    """Return the names of marks that a tree stores with a hash."""
    pieces = (piece for node in walk(nodes) if isinstance(node, TextNode) for piece in node.pieces)
    keys = (key for piece in pieces for key in piece.attributes)
    return frozenset(name for key in keys if (name := mark_name(key)) != key)


def _doubled(value: Any) -> frozenset[str]:
    """Return the names of marks of which one text has several: the schema lets them overlap."""
    found: set[str] = set()
    level = [value]
    while level:
        node = level.pop()
        if not isinstance(node, dict):
            continue
        marks = node.get("marks")
        if isinstance(marks, list) and len(marks) > 1:
            names = Counter(
                mark["type"] for mark in marks if isinstance(mark, dict) and isinstance(mark.get("type"), str)
            )
            for name, count in names.items():
                alike = [mark for mark in marks if isinstance(mark, dict) and mark.get("type") == name]
                if count > 1 and not all(same(mark, alike[0]) for mark in alike):
                    found.add(name)
        if isinstance(node.get("content"), list):
            level += node["content"]
    return frozenset(found)


def hash_of(value: Any) -> str:
    """Return the hash by which y-prosemirror tells overlapping marks apart (``hashOfJSON``)."""
    digest = bytearray(hashlib.sha256(_encode_any(value)).digest())
    for at in range(6, len(digest)):
        digest[at % 6] ^= digest[at]
    return base64.b64encode(digest[:6]).decode()


def _encode_any(value: Any) -> bytes:
    """Encode JSON as lib0's ``encodeAny`` does."""
    if value is None:
        return b"\x7e"
    if isinstance(value, bool):
        return b"\x78" if value else b"\x79"
    if isinstance(value, str):
        text = value.encode()
        return b"\x77" + encode_var_uint(len(text)) + text
    if isinstance(value, int) and abs(value) < 1 << 31:
        return b"\x7d" + _encode_var_int(value)
    if isinstance(value, int | float):
        number = float(value)
        try:
            short = struct.pack(">f", number)
        except OverflowError:
            return b"\x7b" + struct.pack(">d", number)
        return b"\x7c" + short if struct.unpack(">f", short)[0] == number else b"\x7b" + struct.pack(">d", number)
    if isinstance(value, list):
        return b"\x75" + encode_var_uint(len(value)) + b"".join(map(_encode_any, value))
    assert isinstance(value, Mapping)
    parts = [b"\x76", encode_var_uint(len(value))]
    for key, one in value.items():
        name = key.encode()
        parts += (encode_var_uint(len(name)), name, _encode_any(one))
    return b"".join(parts)


def _encode_var_int(value: int) -> bytes:
    """Encode as lib0's ``writeVarInt``: a sign, then six bits, then seven each."""
    negative, value = value < 0, abs(value)
    first = (0x80 if value > 63 else 0) | (0x40 if negative else 0) | (value & 63)
    value >>= 6
    encoded = bytearray((first,))
    while value:
        encoded.append((0x80 if value > 127 else 0) | (value & 127))
        value >>= 7
    return bytes(encoded)
