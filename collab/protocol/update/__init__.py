"""The Yjs v1 update as bytes: read, cut, join, diff and collect without a CRDT.

Strategy: integrating edits is the clients' business. A struct in a v1 update is a self-contained run
of bytes, so a server that never interprets content can still read, order, cut and join updates,
exact to the byte, where the CRDT libraries re-encode and lose (subdocument options, BigInts, halves
of surrogate pairs). From bottom to top:

=================  =========================================================================
``json_text``      would ``JSON.parse`` take this text
``reader``         the wall: refuses everything on which yjs throws, yields ranges of clocks and bytes
``structs``        walk over structs already read, cut one
``state_vector``   client -> next clock
``delete_set``     ranges of deleted clocks, canonical, its encoding cached in blocks
``index``          where the clients' sections of a stored update begin
``join``           updates behind each other, and what one of them holds past a state vector
``collect``        empties deleted content and joins runs: compaction
=================  =========================================================================
"""

from __future__ import annotations

from collab.protocol.update.reader import Deletes, Section, Update, UpdateReader, read_update

__all__ = [
    "Deletes",
    "Section",
    "Update",
    "UpdateReader",
    "read_update",
]
