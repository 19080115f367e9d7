"""Calls that are done once, however often a client repeats them: idempotency keys.

Strategy: the store decides which attempt does the call (:mod:`collab.storage.calls`), so it holds on all nodes. The
others wait for its answer, for some seconds. Only what has come to its end is kept: a call that fails leaves nothing,
and its repeat is done anew. A document that a call creates is noted with it in one transaction, so a repeat after a
crash takes up that document::

    async with once.call(user, "POST /documents", key, request) as call:
        if call.answer is None:
            summary = await documents.create(name, call=call.key)
            call.finish(201, body_of(summary))
    return answer(call.answer)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from collab.errors import DocumentDeleted, KeyBusy, StoreUnavailable
from collab.storage.calls import ERASED
from collab.storage.records import CallKey, CallState
from collab.storage.store import Store
from collab.telemetry import RateLimited, get_logger

_limited = RateLimited(get_logger("documents"))

MAX_KEY: Final = 255
"""Characters of a key that a client chooses."""

WAIT_SECONDS: Final = 10.0
"""How long a repeat waits for the attempt that is under way."""

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class Answer(NamedTuple):
    """What a call was answered: the status of HTTP, and the body."""

    status: int
    body: bytes


class Call:
    """One attempt at a call.

    Attributes:
        key: for what creates a document, None if the client has sent no key.
        created: the id of the document that an attempt before has created, which was cut off then.
        answer: what is to be answered; None while the call is to be done.
    """

    def __init__(self, key: CallKey | None = None, created: int | None = None, answer: Answer | None = None) -> None:
        self.key = key
        self.created = created
        self.answer = answer

    def finish(self, status: int, body: bytes) -> Answer:
        """Say how the call was answered; it is kept when the block ends."""
        self.answer = Answer(status, body)
        return self.answer


class Once:
    """Do calls once.

    Args:
        store: where keys and answers are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextlib.asynccontextmanager
    async def call(self, user: str | None, route: str, key: str | None, request: bytes) -> AsyncIterator[Call]:
        """Do a call within the block, unless it was done before: then ``answer`` is there at once.

        ``key`` is the client's, for this ``user`` and this ``route`` alone; None: nothing is kept, and the block is
        simply run. ``request`` is all that was asked, so that a key which is used for something else is refused.

        Raises:
            KeyReused: the key was used for another request.
            KeyBusy: another attempt is under way, and takes long; ask again later.
            DocumentDeleted: the document that the call has created was erased, and the answer with it.
            StoreUnavailable: it cannot be known now.
        """
        if key is None:
            yield Call()
            return
        named = CallKey(_hash(user, route, key), secrets.token_hex(16))
        state = await self._begin(named, hashlib.sha256(request).digest())
        if not state.mine:
            if state.status == ERASED and state.answer is None:
                raise DocumentDeleted("the document of this call was erased")
            assert state.status is not None
            yield Call(answer=Answer(state.status, state.answer or b""))
            return
        call = Call(named, state.document_id)
        try:
            yield call
        except BaseException:
            await self._abandon(named)
            raise
        if call.answer is None:
            await self._abandon(named)
        else:
            await self._finish(named, call.answer)

    async def _begin(self, key: CallKey, request: bytes) -> CallState:
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + WAIT_SECONDS, _FIRST_PAUSE
        while True:
            state = await self._store.begin_call(key, request)
            if state.mine or state.status is not None:
                return state
            if loop.time() > until:
                raise KeyBusy("another attempt at the call is under way")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _finish(self, key: CallKey, answer: Answer) -> None:
        try:
            await self._store.finish_call(key, answer.status, answer.body)
        except StoreUnavailable as error:
            # It was done, and its document is noted: the repeat of it takes that up.
            _limited.warning("keys", "the answer of a call is not kept: %s", error)

    async def _abandon(self, key: CallKey) -> None:
        with contextlib.suppress(StoreUnavailable):  # else it lapses
            await asyncio.shield(self._store.abandon_call(key))


def _hash(user: str | None, route: str, key: str) -> bytes:
    hashed = hashlib.sha256()
    for part in (None if user is None else user.encode("utf-8", "surrogatepass"), route.encode(), key.encode()):
        hashed.update(b"-" if part is None else b"%d:" % len(part) + part)
    return hashed.digest()
