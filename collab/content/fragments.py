"""Rich text of a document as Markdown, HTML, plain text and ProseMirror JSON, and back: for scripts and clients.

Strategy: these are the converters of the HTTP API, on a ``pycrdt.XmlFragment`` that the caller has, such as the root
``default`` of Tiptap. Writing is by difference: what stays equal keeps its identity, so cursors stay where they are and
what others write at the same time is not lost. Serving processes never import this module, because it loads pycrdt.

    fragment = doc.get("default", type=pycrdt.XmlFragment)
    text = fragment_to_markdown(fragment)
    markdown_to_fragment(fragment, text.replace("teh", "the"))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pycrdt

from collab.content.difference import Work
from collab.content.edits import Dialect, Format
from collab.content.nodes import write_nodes
from collab.content.prosemirror import clean_prosemirror, from_prosemirror, to_prosemirror
from collab.content.rich import RichText, show
from collab.content.shared import nodes
from collab.content.structures import Writer
from collab.content.tree import Keys, Node
from collab.errors import EditNotShown, InvalidEdit, UnreadableContent

Over = Callable[[list[Node], Work], list[Node]]
"""Say which tree a fragment is to show, from the tree that it shows; the same object if nothing is to change."""


def fragment_to_markdown(fragment: pycrdt.XmlFragment) -> str:
    """Return what a fragment shows as Markdown (CommonMark with tables, strikethrough and task lists).

    Raises UnreadableContent for what nests too deeply, RuntimeError for a fragment that is in no document.
    """
    return str(read_fragment(fragment, Format.MARKDOWN))


def fragment_to_html(fragment: pycrdt.XmlFragment) -> str:
    """Return what a fragment shows as HTML, without a page around it; raises as `fragment_to_markdown`."""
    return str(read_fragment(fragment, Format.HTML))


def fragment_to_text(fragment: pycrdt.XmlFragment) -> str:
    """Return the paragraphs of a fragment, with an empty line between; raises as `fragment_to_markdown`."""
    return str(read_fragment(fragment, Format.TEXT))


def fragment_to_json(fragment: pycrdt.XmlFragment) -> dict[str, Any]:
    """Return a fragment as ProseMirror JSON (``{"type": "doc", ...}``); raises as `fragment_to_markdown`."""
    read: dict[str, Any] = read_fragment(fragment, Format.PROSEMIRROR)
    return read


def markdown_to_fragment(fragment: pycrdt.XmlFragment, markdown: str, *, dialect: Dialect = Dialect.TIPTAP) -> bool:
    """Make a fragment show Markdown, by difference, and tell whether anything has changed.

    Blocks that Markdown cannot express, such as those of extensions of an editor, stay if the block of Markdown that
    stands for them stays.

    Args:
        fragment: it is in a document. Call this from the thread that the document belongs to; a transaction that is
            open is used.
        markdown: at most 2 Mi UTF-16 units. HTML in it is read, and only what is harmless of it is taken.
        dialect: the names of nodes and marks where the fragment itself does not tell: those of Tiptap
            (``bulletList``, ``bold``) or of ProseMirror's basic schema (``bullet_list``, ``strong``).

    Raises:
        InvalidEdit: it is no text, or holds too much; nothing has changed.
        EditNotShown: the library does not show what was written; the document may have changed in part.
        UnreadableContent: the fragment nests too deeply.
        RuntimeError: the fragment is in no document.
    """
    return _write(fragment, RichText(Format.MARKDOWN, markdown, dialect).over)


def html_to_fragment(fragment: pycrdt.XmlFragment, html: str, *, dialect: Dialect = Dialect.TIPTAP) -> bool:
    """Make a fragment show HTML, of which only what is harmless is taken; otherwise as `markdown_to_fragment`."""
    return _write(fragment, RichText(Format.HTML, html, dialect).over)


def text_to_fragment(fragment: pycrdt.XmlFragment, text: str, *, dialect: Dialect = Dialect.TIPTAP) -> bool:
    """Make a fragment show plain text, a paragraph between two empty lines; otherwise as `markdown_to_fragment`."""
    return _write(fragment, RichText(Format.TEXT, text, dialect).over)


def json_to_fragment(fragment: pycrdt.XmlFragment, value: dict[str, Any]) -> bool:
    """Make a fragment show ProseMirror JSON, as ``editor.getJSON()`` gives it; otherwise as `markdown_to_fragment`.

    Attributes that are null are not stored, as y-prosemirror does it.
    """
    return _write(fragment, over_prosemirror(value))


# For the HTTP API too


def read_fragment(fragment: pycrdt.XmlFragment, format: Format) -> Any:
    """Return what a fragment shows in a format of rich text; raises as `fragment_to_markdown`."""
    try:
        return show_tree(nodes(fragment), format)
    except RecursionError:
        raise UnreadableContent("the document nests too deeply to be shown") from None


def show_tree(tree: list[Node], format: Format) -> Any:
    """Return a tree in a format of rich text."""
    return to_prosemirror(tree) if format is Format.PROSEMIRROR else show(format, tree)


def over_prosemirror(value: Any) -> Over:
    """Check ProseMirror JSON and return what makes a tree of it; raises InvalidEdit."""
    checked = clean_prosemirror(value)
    return lambda current, work: from_prosemirror(checked, current)


def write_fragment(fragment: pycrdt.XmlFragment, over: Over, writer: Writer) -> bool:
    """Make a fragment show a tree, in the transaction of ``writer``, and tell whether anything has changed.

    Raises EditNotShown when it does not show it then.
    """
    current = nodes(fragment)
    target = over(current, writer.work)
    if target is current:
        return False
    write_nodes(fragment, target, writer)
    keys = Keys()
    shown = [keys.of(node) for node in nodes(fragment)]
    if shown != [keys.of(node) for node in target]:
        raise EditNotShown("the rich text does not show what was written")
    return shown != [keys.of(node) for node in current]


def _write(fragment: pycrdt.XmlFragment, over: Over) -> bool:
    try:
        with Writer(fragment.doc) as writer:
            return write_fragment(fragment, over, writer)
    except RecursionError:
        raise InvalidEdit("the content, or what it changes, nests too deeply") from None
