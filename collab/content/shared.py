"""Read shared types of pycrdt as plain values.

Strategy: one shape for all that JSON can hold, the one that `Y.Doc.toJSON` gives, and bytes, subdocuments and formatted
texts as objects that say what they are. The document's root types come from `collab.content.shape`, never from a guess.
"""

from __future__ import annotations

import base64
import math
from operator import itemgetter
from typing import Any

import pycrdt

from collab.content.edits import Path, RootType
from collab.content.tree import Element, Node, Piece, TextNode
from collab.content.values import plain_number
from collab.errors import NoSuchContent, UpdateError, WrongContentType

TYPES: dict[RootType, Any] = {
    RootType.TEXT: pycrdt.Text,
    RootType.MAP: pycrdt.Map,
    RootType.ARRAY: pycrdt.Array,
    RootType.XML: pycrdt.XmlFragment,
}
"""What each type of root is in pycrdt."""


def plain(value: Any) -> Any:
    """Turn what pycrdt gives into what JSON can hold.

    A text is a string, or a list of Quill's ``{"insert", "attributes"}`` when it has formats or embeds; XML is its
    source; numbers that are no JSON are None, as ``JSON.stringify`` writes them; bytes are ``{"base64": ...}``,
    subdocuments ``{"guid": ...}``.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return plain_number(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    if isinstance(value, pycrdt.Map):
        return {key: plain(element) for key, element in entries(value).items()}
    if isinstance(value, pycrdt.Array):
        return [plain(element) for element in elements(value)]
    if isinstance(value, pycrdt.Text):
        runs = runs_of(value)
        if all(isinstance(run, str) and not attributes for run, attributes in runs):
            return "".join(run for run, _ in runs)
        return delta(runs)
    if isinstance(value, pycrdt.XmlFragment | pycrdt.XmlElement | pycrdt.XmlText):
        return str(value)
    if isinstance(value, pycrdt.Doc):
        return {"guid": value.guid}
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value).decode()}
    raise UpdateError(f"a value of type {type(value).__name__} cannot be shown")


def delta(runs: list[tuple[Any, dict[str, Any] | None]]) -> list[dict[str, Any]]:
    """Turn what a text of pycrdt gives into Quill's delta."""
    return [
        {"insert": plain(run), **({"attributes": plain(attributes)} if attributes else {})} for run, attributes in runs
    ]


def entries(shared: pycrdt.Map[Any]) -> dict[str, Any]:
    """Return what a map holds, sorted by key: the library has no order of its own."""
    document = shared.doc
    with document.transaction() as transaction:
        held = shared.integrated
        txn = transaction._txn
        return {key: wrapped(document, held.get(txn, key)) for key in sorted(held.keys(txn))}


def elements(shared: pycrdt.Array[Any]) -> list[Any]:
    """Return what an array holds.

    The array must be one on the wire: the library never returns from one that holds text (C7 in docs/decisions/0002).
    """
    document = shared.doc
    with document.transaction() as transaction:
        held = shared.integrated
        txn = transaction._txn
        return [wrapped(document, held.get(txn, at)) for at in range(held.len(txn))]


def wrapped(document: pycrdt.Doc[Any], value: Any) -> Any:
    """Return what the library's inner side gives as its outer side shows it.

    It asks each value of a list or map whether it is one of ten types; most are none.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    outer = _OUTER.get(kind)
    if outer is None:
        return value
    if outer is pycrdt.Doc:
        return pycrdt.Doc(doc=value)
    return outer(_doc=document, _integrated=value)


_PLAIN = frozenset((type(None), bool, int, float, str, dict, list, bytes, bytearray))
_OUTER: dict[type, Any] = dict(pycrdt._base.base_types)
_InnerText = pycrdt._pycrdt.XmlText
_InnerElement = pycrdt._pycrdt.XmlElement


def pieces(text: pycrdt.Text | pycrdt.XmlText) -> list[Piece]:
    """Return the pieces of a text: strings and embeds with their formats."""
    return list(map(_piece, runs_of(text)))


def runs_of(text: pycrdt.Text | pycrdt.XmlText) -> list[tuple[Any, dict[str, Any] | None]]:
    """Return strings and embeds of a text with their formats; an embed may be a shared type."""
    return [(wrapped(text.doc, content), attributes) for content, attributes in text.diff()]


def _piece(run: tuple[Any, dict[str, Any] | None]) -> Piece:
    content, attributes = run
    if isinstance(content, str):
        return Piece(content, plain(attributes) if attributes else {})
    return Piece(plain(content), plain(attributes) if attributes else {}, False)


def nodes(parent: pycrdt.XmlFragment | pycrdt.XmlElement) -> list[Node]:
    """Return the children of XML as a tree."""
    with parent.doc.transaction() as transaction:
        return _nodes(parent.doc, parent.integrated, transaction._txn)


def _nodes(document: pycrdt.Doc[Any], parent: Any, txn: Any) -> list[Node]:
    """Read what the library's inner side gives: a tree has many nodes, and its outer side asks much of each."""
    found: list[Node] = []
    for child in parent.children(txn):
        kind = type(child)
        if kind is _InnerText:
            runs = [(wrapped(document, content), attributes) for content, attributes in child.diff(txn)]
            found.append(TextNode(list(map(_piece, runs))))
        elif kind is _InnerElement:
            held = sorted(child.attributes(txn), key=itemgetter(0))
            found.append(
                Element(child.tag() or "", {name: plain(value) for name, value in held}, _nodes(document, child, txn))
            )
        else:
            found.append(Element("", {}, _nodes(document, child, txn)))  # a fragment in a fragment: no editor makes it
    return found


def find(root: Any, path: Path) -> Any:
    """Return the shared type at a path below a root.

    Raises NoSuchContent where nothing is, WrongContentType where a plain value is.
    """
    value = root
    for number, step in enumerate(path):
        where = "/".join(str(one) for one in path[: number + 1])
        if isinstance(value, pycrdt.Map):
            if not isinstance(step, str) or step not in value:
                raise NoSuchContent(f"nothing is at {where}")
            value = value[step]
        elif isinstance(value, pycrdt.Array | pycrdt.XmlFragment | pycrdt.XmlElement):
            children = value if isinstance(value, pycrdt.Array) else value.children
            if type(step) is not int or not 0 <= step < len(children):
                raise NoSuchContent(f"nothing is at {where}")
            value = children[step]
        else:
            raise NoSuchContent(f"nothing is at {where}")
    if not isinstance(value, pycrdt.Map | pycrdt.Array | pycrdt.Text | _XML):
        raise WrongContentType(f"a plain value is at {'/'.join(str(one) for one in path)}, which is replaced whole")
    return value


_XML = pycrdt.XmlFragment | pycrdt.XmlElement | pycrdt.XmlText
