"""What a document's state is named by: equal states have equal names, on every node.

Strategy: two documents with one state vector and one delete set hold the same, for a clock of a client is given once.
Both are kept in one canonical encoding (clients descending, ranges merged), whatever way the updates came. So the name
is a hash over these bytes, which are small beside the document.

One thing changes it although nobody has edited: of values of one key that were set at the same time, compaction takes
away all but the last, which no delete set had named.
"""

from __future__ import annotations

from collections.abc import Generator
from hashlib import blake2b
from typing import Final

from collab.engine.document import Document
from collab.protocol.lib0 import encode_var_uint
from collab.update.parts import Piece

# 128 bits: nobody finds two states of one name by chance, and a name is short enough to be written into a log.
_DIGEST: Final = 16

# Bytes that are hashed between two yields: some 0.3 ms.
_STEP: Final = 256 * 1024


def name_state(document: Document) -> Generator[None, None, str]:
    """Name the state that a document is in when the generator ends, which yields about every millisecond.

    The name is of the state at the end only if ``document.version`` is then what it was at the beginning: edits may be
    taken between the slices. Run at once, it always is.
    """
    yield from document.settle_state_vector()
    pieces = yield from document.deletes()
    vector = document.encode_state_vector()
    # The length keeps what belongs to the one from being read as the other's.
    digest = blake2b(encode_var_uint(len(vector)) + vector, digest_size=_DIGEST)
    work = len(vector)
    for piece in pieces:
        digest.update(_bytes(piece))
        work += len(piece) if isinstance(piece, bytes) else piece.stop - piece.start
        if work >= _STEP:
            work = 0
            yield
    return digest.hexdigest()


def _bytes(piece: Piece) -> bytes | memoryview:
    return piece if isinstance(piece, bytes) else memoryview(piece.data)[piece.start : piece.stop]
