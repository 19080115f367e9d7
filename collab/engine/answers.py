"""The answer to a SyncStep1 in slices: for a long state vector, or a document of many client IDs.

Strategy: as ``Document.collect_state_as_update``, which does the same in one go. What both hold alike is compared as
bytes, block by block, and not decoded. Client IDs that the document does not know are passed over as they come, so a
long vector costs time and no memory. Edits may be taken between the slices: the sections of their clients are then of
different moments, and what an answer lacks of them was sent, or is about to be, as an update.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from typing import Final, NamedTuple, TypeVar

from collab.engine.document import Document
from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_uint
from collab.update.parts import Parts, Piece
from collab.update.state_vector import StateVector, split_pairs

Item = TypeVar("Item")

LONG: Final = 2 * 1024
"""Bytes of a state vector above which it is compared in slices."""

WIDE: Final = 500
"""Client IDs that a document may have for an answer in one go: 10 us each at worst."""

# Pairs that are decoded, sections that are found, and pieces that are put together, between two yields: about a
# millisecond.
_PAIRS: Final = 500
_SECTIONS: Final = 200
_PIECES: Final = 2000


class Comparison(NamedTuple):
    """What a state vector says of a document; client IDs and clocks as they are encoded.

    Attributes:
        vector: the same without client IDs that the document does not know.
        own: the document's clocks.
        known: what it says of clients of whom the document has another clock.
        same: the clients of whom both have the same.
    """

    vector: bytes
    own: dict[bytes, bytes]
    known: dict[bytes, bytes]
    same: set[bytes]


def takes_long(document: Document, state_vector: bytes) -> bool:
    """Tell whether an answer is better made by ``compare`` and ``encode``."""
    if len(state_vector) > LONG:
        return True
    return (document.tail_clients if state_vector == b"\0" else document.clients) > WIDE


def compare(document: Document, state_vector: bytes) -> Generator[None, None, Comparison]:
    """Compare a state vector with a document, in a generator that yields about every millisecond.

    Raises:
        DecodeError: as ``decode_state_vector``; but a client ID that the document does not know may be named twice.
    """
    own: dict[bytes, bytes] = {}
    known: dict[bytes, bytes] = {}
    same: set[bytes] = set()
    if state_vector == b"\0":
        return Comparison(state_vector, own, known, same)
    yield from document.settle_state_vector()
    for pairs in split_pairs(document.encode_state_vector()):
        own.update(pairs)
        yield
    unknown = False
    for pairs in split_pairs(state_vector):
        for client, clock in pairs:
            mine = own.get(client)
            if mine is None:
                unknown = True
            elif client in known or client in same:
                raise DecodeError("the state vector names a client twice")
            elif mine == clock:
                same.add(client)
            else:
                known[client] = clock
        yield
    vector = state_vector
    if unknown:
        parts = [encode_var_uint(len(same) + len(known))]
        parts += (client + own[client] for client in same)
        yield
        parts += map(bytes.__add__, known.keys(), known.values())
        vector = b"".join(parts)
    return Comparison(vector, own, known, same)


def collect(document: Document, compared: Comparison) -> Generator[None, None, Parts]:
    """Collect what a client with that state vector lacks, in a generator that yields about every millisecond."""
    _, own, encoded, same = compared
    known: StateVector = {}
    for block in _blocks(encoded.items()):
        known.update((_decode(client), _decode(clock)) for client, clock in block)
        yield
    pieces: list[Piece] = []
    if len(own) < 2 * len(same):
        wanted: list[int] = []
        for clients in _blocks(own):  # descending, as they are encoded
            wanted += [_decode(client) for client in clients if client not in same]
            yield
        count = 0
        for section in _sections(document, wanted, known):
            if section is None:
                yield
            elif section[1]:
                pieces += section[1]
                count += 1
    else:
        # Most is lacking: the whole, but for what they named and what is not in the snapshot.
        changed: dict[int, list[Piece]] = {}
        for clients in _blocks(same):
            changed.update((_decode(client), []) for client in clients)
            yield
        others = {**dict.fromkeys(document.tail_client_ids()), **known}
        for section in _sections(document, (client for client in others if client not in changed), known):
            if section is None:
                yield
            else:
                changed[section[0]] = section[1]
        count, pieces = yield from document.sections.patched_in_slices(changed)
        count -= sum(not section for section in changed.values())
    deletes = yield from document.deletes()
    parts = Parts((encode_var_uint(count),))
    for some in _blocks(chain(pieces, deletes), _PIECES):
        parts.add(some)
        yield
    return parts


def _sections(
    document: Document, clients: Iterable[int], known: StateVector
) -> Iterable[tuple[int, list[Piece]] | None]:
    """Give the section of each client from its known clock on, empty where nothing lacks; None where to yield."""
    sections = 0
    for client in clients:
        section = document.section(client, known.get(client, 0))
        yield client, section
        sections += 1
        if sections >= _SECTIONS:
            sections = 0
            yield None


def _blocks(items: Iterable[Item], most: int = _PAIRS) -> Iterator[list[Item]]:
    """Give items some at a time."""
    left = iter(items)
    while block := list(islice(left, most)):
        yield block


def _decode(number: bytes) -> int:
    return read_var_uint(number, 0)[0]
