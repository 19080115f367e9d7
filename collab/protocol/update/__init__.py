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
``region``           entries of many clients in one bytes object, of which few change
``join``           updates behind each other, and what one of them holds past a state vector
``collect``        empties deleted content and joins runs: compaction
=================  =========================================================================
"""

from __future__ import annotations

from collab.protocol.update.delete_set import DeleteSet, encode_deletes
from collab.protocol.update.index import IndexedUpdate, encode_index, open_index
from collab.protocol.update.join import diff_update, join_updates
from collab.protocol.update.reader import Deletes, Section, Update, UpdateReader, read_update
from collab.protocol.update.state_vector import StateVector, decode_state_vector, encode_state_vector

__all__ = [
    "DeleteSet",
    "Deletes",
    "IndexedUpdate",
    "Section",
    "StateVector",
    "Update",
    "UpdateReader",
    "decode_state_vector",
    "diff_update",
    "encode_deletes",
    "encode_index",
    "encode_state_vector",
    "join_updates",
    "open_index",
    "read_update",
]
