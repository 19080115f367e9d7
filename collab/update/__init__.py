"""The Yjs v1 update as bytes: read, cut, merge, diff and compact without a CRDT.

Strategy: integrating edits is the clients' business. A struct in a v1 update is a self-contained run
of bytes, so a server that never interprets content can still read, order, cut and merge updates,
exact to the byte, where the CRDT libraries re-encode and lose (subdocument options, BigInts, halves
of surrogate pairs; docs/decisions/0001). From bottom to top:

=================  =========================================================================
``json_text``      would ``JSON.parse`` take this text
``reader``         the wall: refuses everything on which yjs throws, yields ranges of clocks and bytes
``structs``        walk over structs already read, cut one
``parts``          long encodings as references into bytes that never change
``state_vector``   client -> next clock
``delete_set``     ranges of deleted clocks, canonical, its encoding cached in blocks
``index``          where the clients' sections of a stored update begin
``region``           entries of many clients in one bytes object, of which few change
``merge``          updates behind each other, and what one of them holds past a state vector
``reset``          empties all of a document so that no old copy brings it back
``compact``        empties deleted content and joins runs: compaction
``hazards``        what yjs throws on in a whole document: for ``verify``
=================  =========================================================================
"""

from __future__ import annotations

from collab.update.delete_set import DeleteSet, encode_delete_set
from collab.update.hazards import find_hazard
from collab.update.index import IndexedUpdate, encode_index, open_index
from collab.update.merge import diff_update, merge_updates
from collab.update.reader import Deletes, Section, Update, UpdateReader, find_poison, read_update
from collab.update.state_vector import StateVector, decode_state_vector, encode_state_vector

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
    "encode_delete_set",
    "encode_index",
    "encode_state_vector",
    "find_hazard",
    "find_poison",
    "merge_updates",
    "open_index",
    "read_update",
]
