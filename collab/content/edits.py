"""Formats and edits of documents: plain values that can be pickled, without any CRDT library.

Strategy: an edit says what is wanted, in the terms of whoever wants it. `collab.content.replica.Replica` finds out what
has to change in the document for that. Offsets and lengths in texts are UTF-16 code units, as Yjs and JavaScript count
them; pycrdt counts bytes of UTF-8, so nothing here is passed to it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

MAX_OPERATIONS: Final = 1_000
"""Edits in a batch, and operations in a JSON Patch."""
MAX_VALUES: Final = 500_000
"""JSON values (numbers, strings, containers ...) in what an edit brings."""
MAX_DEPTH: Final = 60
"""Containers in containers of JSON; the wire takes 64 (`collab.update.reader.MAX_DEPTH`)."""
MAX_TEXT: Final = 8 << 20
"""UTF-16 units of one text, Markdown or HTML that an edit brings, and of all strings of its JSON together."""
MAX_MARKUP: Final = 2 << 20
"""UTF-16 units of Markdown or HTML that an edit brings: reading it takes about two seconds a million."""
MAX_NODES: Final = 50_000
"""Elements and texts of one rich text."""
MAX_TREE_DEPTH: Final = 100
"""Elements in elements of one rich text; yjs recurses over them."""
MAX_NAME: Final = 1_024
"""UTF-16 units of the name of a root, of a key and of an element."""
MAX_PATH: Final = 60
"""Steps of a path."""


class Format(Enum):
    """What content is read as, or replaced by. The value is the format's name in addresses and logs."""

    JSON = "json"
    """Yjs JSON. Of one root its value, of the whole document an object with all roots."""
    TEXT = "text"
    """Plain text: a string. Of a rich text its paragraphs, with an empty line between."""
    DELTA = "delta"
    """Quill's delta of a text: a list of ``{"insert": ..., "attributes": {...}}``."""
    PROSEMIRROR = "prosemirror"
    """ProseMirror JSON of an XML fragment: ``{"type": "doc", "content": [...]}``."""
    HTML = "html"
    """HTML of an XML fragment: a string."""
    MARKDOWN = "markdown"
    """Markdown (CommonMark with tables, strikethrough and task lists) of an XML fragment: a string."""
    EXCALIDRAW = "excalidraw"
    """A drawing of Excalidraw: the object that its files hold."""


class RootType(Enum):
    """What a root is to be read as, or made as where it is empty."""

    TEXT = "text"
    MAP = "map"
    ARRAY = "array"
    XML = "xml"
    EMPTY = "empty"
    """Nothing live was ever seen in it that would tell; never asked for in an edit."""


class Dialect(Enum):
    """How an editor names what a rich text holds."""

    TIPTAP = "tiptap"
    """``bulletList``, ``hardBreak``, ``bold``, ``italic``: Tiptap and what is built on it."""
    PROSEMIRROR = "prosemirror"
    """``bullet_list``, ``hard_break``, ``strong``, ``em``: the basic schema of ProseMirror."""


Path = tuple[str | int, ...]
"""Where a nested type lies below a root: keys of maps, indices of arrays and of children of XML."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Make a root show a value; what is equal stays, with its identity, cursors and marks.

    Args:
        root: its name; None for all roots of a document (``JSON``: those that are not named get empty), or for the
            root that holds the format, if there is just one.
        format: what ``value`` is written in.
        value: a string for ``TEXT``, ``HTML`` and ``MARKDOWN``, JSON for the others. For ``JSON`` and an existing text
            a string, or a delta.
        type: what the root is made as where it is empty. Without it the value decides: a string is a text, a list an
            array, an object a map.
        shared: make new objects and lists of JSON shared types (`Y.Map`, `Y.Array`), which can be edited in part
            by several people at once, and not plain values. Existing shared types stay what they are anyway.
        dialect: the names that Markdown, HTML and plain text are written with where the rich text itself does not tell;
            None is Tiptap's.
    """

    root: str | None
    format: Format
    value: Any
    type: RootType | None = None
    shared: bool = False
    dialect: Dialect | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """Apply a JSON Patch (RFC 6902) to maps and arrays.

    A path begins with the name of a root: ``/settings/theme``, ``/elements/0``, ``/elements/-``. A text below a map or
    an array is replaced whole, by difference; `TextInsert` and its neighbours change parts. Operations see what those
    before them did; if one cannot be done, none is.

    Args:
        operations: ``{"op": "add" | "remove" | "replace" | "move" | "copy" | "test", "path": ..., "from": ...,
            "value": ...}``.
        shared: see `Replace`.
    """

    operations: tuple[Mapping[str, Any], ...]
    shared: bool = False


@dataclass(frozen=True, slots=True)
class TextInsert:
    """Insert a string into a text.

    Args:
        root: the name of the root.
        at: where, in UTF-16 units; the length of the text appends.
        text: what.
        attributes: formats that the string gets; None for those of what stands before it.
        path: where the text lies below the root; empty for the root itself.
    """

    root: str
    at: int
    text: str
    attributes: Mapping[str, Any] | None = None
    path: Path = ()


@dataclass(frozen=True, slots=True)
class TextDelete:
    """Delete ``length`` UTF-16 units from ``at`` on; see `TextInsert`."""

    root: str
    at: int
    length: int
    path: Path = ()


@dataclass(frozen=True, slots=True)
class TextReplace:
    """Replace a passage that is in a text, or in an XML fragment, just once.

    Args:
        root: the name of the root.
        passage: what is to be found, whole, in one text. In XML texts of different elements are different texts.
        text: what comes in its place, with the formats of the passage's beginning. What is equal of both stays.
        path: see `TextInsert`; for XML it may name an element, in which alone is searched then.
    """

    root: str
    passage: str
    text: str
    path: Path = ()


@dataclass(frozen=True, slots=True)
class TextFormat:
    """Give ``length`` UTF-16 units from ``at`` on formats; an attribute that is None is taken off. See `TextInsert`."""

    root: str
    at: int
    length: int
    attributes: Mapping[str, Any]
    path: Path = ()


@dataclass(frozen=True, slots=True)
class ArrayAppend:
    """Append JSON values to an array.

    Args:
        root: the name of the root.
        values: what, in this order.
        path: where the array lies below the root; empty for the root itself.
        shared: see `Replace`.
    """

    root: str
    values: tuple[Any, ...]
    path: Path = ()
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Several edits as one: each sees what those before it did, and if one cannot be done, none is."""

    edits: tuple[Replace | Patch | TextInsert | TextDelete | TextReplace | TextFormat | ArrayAppend, ...]


Edit = Replace | Patch | TextInsert | TextDelete | TextReplace | TextFormat | ArrayAppend | Batch
