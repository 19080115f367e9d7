"""The port of kept attributions: who wrote what in a document, beside its snapshots.

Strategy: the bytes are made of rows, and outlive them (``collab.history.attribution``). There is one for each document,
the newest; whoever makes it goes on from the one before. So the store looks at its number alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from collab.errors import StoreRefused

MAX_ATTRIBUTION_BYTES: Final = 64 * 1024 * 1024
"""The longest attribution that is kept: that of some tens of millions of edits."""


class KeptAttribution(NamedTuple):
    """Who wrote what in a document after row ``seq``; ``data`` holds its own checksum."""

    seq: int
    data: bytes


class Attributions(Protocol):
    """Keep one attribution for each document.

    It is durable when :meth:`keep_attribution` returns, is left by pruning as long as its document is not deleted, and
    goes with the content of a deleted document. One that is lost, or older than it could be, costs what was only known
    from rows that are pruned.
    """

    async def attribution(self, document_id: int) -> KeptAttribution | None:
        """Read what is kept of a document; None if nothing is, or of a tombstone or an unknown id."""

    async def keep_attribution(self, document_id: int, kept: KeptAttribution) -> bool:
        """Keep an attribution in the place of an older one; return whether it was.

        False if one with this number, or a higher one, is kept; of a tombstone, an unknown id, and a document that has
        no such row. Of two stores at once the higher number stays. Raises ``StoreRefused`` if it is longer than
        ``MAX_ATTRIBUTION_BYTES``.
        """


def check_size(kept: KeptAttribution) -> None:
    """Raise ``StoreRefused`` if an attribution is too long."""
    if len(kept.data) > MAX_ATTRIBUTION_BYTES:
        raise StoreRefused(f"an attribution of {len(kept.data)} bytes is more than the store takes")
