"""The port of calls that are done once, however often they are repeated: idempotency keys.

Strategy: a call is known by a key of 32 bytes, a hash of who asks, what is asked for and the text that the client has
chosen. Beginning one is a row that only one attempt gets. The transaction that creates a document notes its id in that
row (:meth:`collab.storage.catalogue.Catalogue.create`), so an attempt that dies right behind it is taken up by the
next one with that very document. When the call is done, its answer is kept for all who ask again.
"""

from __future__ import annotations

from typing import Final, Protocol

from collab.errors import StoreRefused
from collab.storage.records import CallKey, CallState

KEPT_SECONDS: Final = 86_400.0
"""For so long a repeat gets the answer of the first call."""

RUNNING_SECONDS: Final = 60.0
"""After so long an attempt that has not ended counts as dead, and the next one takes up the call."""

MAX_CALLS: Final = 100_000
"""Calls that are kept at a time; past it no more are begun."""

MAX_ANSWER_BYTES: Final = 64 * 1024
"""The largest answer that is kept."""

ERASED: Final = 410
"""The status of a call whose document was erased: its answer is gone."""


def check_answer(answer: bytes) -> None:
    """Raise ``StoreRefused`` if an answer is too large to be kept."""
    if len(answer) > MAX_ANSWER_BYTES:
        raise StoreRefused(f"an answer of {len(answer)} bytes is more than is kept ({MAX_ANSWER_BYTES})")


class Calls(Protocol):
    """Keep calls with their answers for ``KEPT_SECONDS``, by the clock of the storage."""

    async def begin_call(self, call: CallKey, request: bytes) -> CallState:
        """Begin a call, or hear what has become of it; ``request`` (32 bytes) is a hash of all that was asked.

        Of several attempts one is told that the call is its own (``mine``), until it ends it by :meth:`finish_call`
        or :meth:`abandon_call`, or ``RUNNING_SECONDS`` have passed. Raises ``KeyReused`` if the key was begun with
        another request, ``KeyBusy`` if ``MAX_CALLS`` are kept already.
        """
        ...

    async def finish_call(self, call: CallKey, status: int, answer: bytes) -> bool:
        """Keep the answer; False if the call is another attempt's by now. ``StoreRefused`` if it is too large."""
        ...

    async def abandon_call(self, call: CallKey) -> None:
        """End an attempt that has failed: the next one begins anew, or takes up the document that was created."""
        ...
