"""Rebuild a document from packed rows, in one go: what a sandbox process does for the hub.

Strategy: only a document that is whole is given. Whoever asks reads the rows itself else, and finds out what is wrong
with which of them.
"""

from __future__ import annotations

from operator import attrgetter

from collab.engine.document import Document
from collab.errors import DecodeError
from collab.history.packed import PackedRows, unpack
from collab.update.compact import Compacted
from collab.update.index import encode_index
from collab.update.slices import at_once


def rebuild(snapshot: bytes | None, index: bytes | None, rows: PackedRows) -> Compacted | None:
    """Return the document of a snapshot and the rows behind it, exactly, with an index for `Document.load`.

    None if something is damaged, cannot be read or is not whole.
    """
    try:
        found = sorted(unpack(rows), key=attrgetter("seq"))
    except ValueError:
        return None
    if any(row.damaged for row in found):
        return None
    try:
        document = at_once(Document.load(snapshot, index, [row.data for row in found]))
    except DecodeError:
        return None
    if document.waiting:
        return None
    data = document.encode_state_as_update()
    return Compacted(data, encode_index(data))
