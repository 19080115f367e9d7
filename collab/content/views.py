"""Read the content of a document in a format.

Strategy: a format belongs to types of roots; without a name the one root of such a type is meant, and with several of
them the caller has to say which.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pycrdt

from collab.content.board import ELEMENTS, FILES, scene
from collab.content.edits import Format, RootType
from collab.content.fragments import read_fragment, show_tree
from collab.content.shared import TYPES, delta, pieces, plain, runs_of
from collab.content.tree import text_of
from collab.errors import NoSuchContent, WrongContentType

READ_AS: dict[Format, tuple[RootType, ...]] = {
    Format.TEXT: (RootType.TEXT, RootType.XML),
    Format.DELTA: (RootType.TEXT,),
    Format.PROSEMIRROR: (RootType.XML,),
    Format.HTML: (RootType.XML,),
    Format.MARKDOWN: (RootType.XML,),
}
"""The types of roots that a format is for; JSON is for all, and drawings have names of their own."""


class Roots:
    """The roots of a document of the library, each as the type that it is."""

    def __init__(self, document: pycrdt.Doc[Any], types: dict[str, RootType]) -> None:
        self._document = document
        # What is made here is known here: an edit may go on with a root that it has made.
        self.types = dict(types)

    def __call__(self, name: str, type_: RootType | None = None) -> Any:
        """Return a root; one that is empty is made as ``type_``. Raises NoSuchContent without that."""
        known = self.types.get(name, RootType.EMPTY)
        if known is RootType.EMPTY:
            if type_ is None or type_ is RootType.EMPTY:
                raise NoSuchContent(f"there is no root {name[:100]!r}, or nothing in it tells its type")
            known = self.types[name] = type_
        return self._document.get(name, type=TYPES[known])

    def named(self) -> Iterable[str]:
        """Return the names of all roots with a type, sorted."""
        return (name for name in sorted(self.types) if self.types[name] is not RootType.EMPTY)

    def only(self, format: Format) -> str:
        """Return the name of the one root for a format; raises NoSuchContent, or WrongContentType for several."""
        found = [name for name in self.named() if self.types[name] in READ_AS[format]]
        if not found:
            raise NoSuchContent(f"no root holds {format.value}: name the root")
        if len(found) > 1:
            raise WrongContentType(f"several roots hold {format.value}: name the root")
        return found[0]


def read_content(roots: Roots, format: Format, root: str | None) -> Any:
    """Return content in a format; see `collab.content.replica.Replica.read`."""
    if format is Format.JSON:
        if root is None:
            return {name: plain(roots(name)) for name in roots.named()}
        return None if _is_empty(roots, root) else plain(roots(root))
    if format is Format.EXCALIDRAW:
        return scene(_held(roots, root or ELEMENTS, RootType.ARRAY), _held(roots, FILES, RootType.MAP))
    name = root if root is not None else roots.only(format)
    types = READ_AS[format]
    empty = _is_empty(roots, name)
    if not empty and roots.types[name] not in types:
        raise WrongContentType(f"the root {name[:100]!r} is of type {roots.types[name].value}, not for {format.value}")
    shared = None if empty else roots(name)
    if format is Format.DELTA:
        return [] if shared is None else delta(runs_of(shared))
    if isinstance(shared, pycrdt.Text):
        return text_of(pieces(shared))
    return show_tree([], format) if shared is None else read_fragment(shared, format)


def _held(roots: Roots, name: str, type_: RootType) -> Any:
    """Return the JSON of a root of a drawing, empty where it is not there; raises WrongContentType."""
    known = roots.types.get(name, RootType.EMPTY)
    if known is RootType.EMPTY:
        return [] if type_ is RootType.ARRAY else {}
    if known is not type_:
        raise WrongContentType(f"the root {name[:100]!r} is of type {known.value}, not of a drawing")
    return plain(roots(name))


def _is_empty(roots: Roots, name: str) -> bool:
    """Tell whether a root is known, and nothing in it tells its type; raises NoSuchContent when it was never seen."""
    if name not in roots.types:
        raise NoSuchContent(f"there is no root {name[:100]!r}")
    return roots.types[name] is RootType.EMPTY
