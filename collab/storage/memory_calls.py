"""Calls that are done once, in memory: see :mod:`collab.storage.calls`.

Strategy: as in :mod:`collab.storage.memory`: each method is one step, so it is a transaction.
"""

from __future__ import annotations

from dataclasses import dataclass

from collab.errors import KeyBusy, KeyReused
from collab.storage.calls import ERASED, KEPT_SECONDS, MAX_CALLS, RUNNING_SECONDS, check_answer
from collab.storage.records import CallKey, CallState


@dataclass(slots=True)
class _Call:
    """A call as kept; ``request`` None says that its document was erased, ``token`` None that nobody is at it."""

    request: bytes | None
    token: str | None
    at: float
    document_id: int | None = None
    status: int | None = None
    answer: bytes | None = None


class MemoryCalls:
    """The calls of a storage."""

    def __init__(self) -> None:
        self._calls: dict[bytes, _Call] = {}

    def begin(self, call: CallKey, request: bytes, now: float) -> CallState:
        """Begin a call, or tell what became of it."""
        self._calls = {key: found for key, found in self._calls.items() if found.at > now - KEPT_SECONDS}
        found = self._calls.get(call.key)
        if found is None:
            if len(self._calls) >= MAX_CALLS:
                raise KeyBusy(f"{MAX_CALLS} calls of the last day are kept already")
            self._calls[call.key] = _Call(request, call.token, now)
            return CallState(mine=True)
        if found.request is None:
            return CallState(status=ERASED)
        if found.request != request:
            raise KeyReused("the key belongs to an earlier request")
        if found.status is not None:
            return CallState(status=found.status, answer=found.answer)
        if found.token is not None and found.at > now - RUNNING_SECONDS:
            return CallState()
        found.token, found.at = call.token, now
        return CallState(mine=True, document_id=found.document_id)

    def check(self, call: CallKey) -> None:
        """Raise ``KeyBusy`` if the call is another attempt's."""
        if self._mine(call) is None:
            raise KeyBusy("another attempt has taken up the call")

    def note_created(self, call: CallKey, document_id: int) -> None:
        """Note the document that a call has created."""
        found = self._mine(call)
        assert found is not None
        found.document_id = document_id

    def finish(self, call: CallKey, status: int, answer: bytes) -> bool:
        """Keep the answer."""
        check_answer(answer)
        found = self._mine(call)
        if found is None:
            return False
        found.status, found.answer, found.token = status, bytes(answer), None
        return True

    def abandon(self, call: CallKey) -> None:
        """End an attempt."""
        found = self._mine(call)
        if found is not None and found.document_id is None:
            del self._calls[call.key]
        elif found is not None:
            found.token = None

    def erase(self, document_id: int) -> None:
        """Forget what calls say of a document."""
        for key, found in self._calls.items():
            if found.document_id == document_id:
                self._calls[key] = _Call(None, None, found.at, document_id, ERASED)

    def _mine(self, call: CallKey) -> _Call | None:
        found = self._calls.get(call.key)
        return found if found is not None and found.token == call.token else None
