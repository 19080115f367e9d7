"""Presence on one document: what this client shows of itself, and what others show.

Strategy: the clocks follow y-protocols, so stock clients understand them. A state is renewed every 15 seconds and
forgotten after 30 seconds of silence, by ``tick``. It has no loop and no socket: the document sends what ``encode``
gives, and calls ``receive`` with what comes.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from collab.errors import AwarenessError, DecodeError
from collab.protocol.awareness import NULL, Entry, decode_awareness, encode_awareness, is_far_ahead, is_newer

RENEWED_AFTER: Final = 15.0
"""Seconds after which the own state is sent again (y-protocols ``outdatedTimeout / 2``)."""
FORGOTTEN_AFTER: Final = 30.0
"""Seconds of silence after which the state of another client is forgotten (y-protocols ``outdatedTimeout``)."""

MAX_STATES: Final = 10_000
"""States of others that are kept; a server of ours shows no more."""
MAX_STATE_BYTES: Final = 64 * 1024
"""The largest own state, as JSON. A server may take less of it: it says so, which is logged."""

_log = logging.getLogger("collab.client")

State = dict[str, Any]


class Change(NamedTuple):
    """Client IDs whose state is new, has changed, or is gone."""

    added: tuple[int, ...]
    updated: tuple[int, ...]
    removed: tuple[int, ...]


class _Known:
    """What was last heard of a client; ``state`` is None when it has left."""

    __slots__ = ("clock", "heard", "state")

    def __init__(self, clock: int, state: Any, heard: float) -> None:
        self.clock, self.state, self.heard = clock, state, heard


class Awareness:
    """The states of all clients of a document, the own one included.

    Args:
        client_id: of the own document.
        changed: is called when there is something to send.
        clock: gives seconds that only rise.
    """

    def __init__(
        self, client_id: int, changed: Callable[[], None] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.client_id = client_id
        self._changed = changed
        self._now = clock
        self._clock = 0
        self._state: State | None = None
        self._text = NULL
        self._renewed = 0.0
        self._others: dict[int, _Known] = {}
        self._callbacks: list[Callable[[Change], object]] = []
        self._shown = False  # the others have been told of a state since the socket was opened

    @property
    def state(self) -> State | None:
        """What this client shows of itself; None for nothing. Change it by `set` or `set_field`."""
        return None if self._state is None else dict(self._state)

    @property
    def states(self) -> Mapping[int, State]:
        """What everybody shows now, by client ID, the own state included; a copy."""
        shown = self.others
        return MappingProxyType(dict(shown) if self._state is None else {**shown, self.client_id: dict(self._state)})

    @property
    def others(self) -> Mapping[int, State]:
        """What the others show now, by client ID; a copy."""
        found = {client: known.state for client, known in self._others.items() if isinstance(known.state, dict)}
        return MappingProxyType(found)

    def set(self, state: Mapping[str, Any] | None) -> None:
        """Show a state, an object of JSON, or nothing with None.

        Editors show ``user`` (with ``name`` and ``color``) and ``cursor``.

        Raises:
            ValueError: it is no JSON, or has more than 64 KiB.
        """
        if state is None:
            text = NULL
        else:
            try:
                text = json.dumps(dict(state), allow_nan=False, separators=(",", ":")).encode()
            except (TypeError, RecursionError) as error:
                raise ValueError(f"an awareness state is an object of JSON: {error}") from None
            if len(text) > MAX_STATE_BYTES:
                raise ValueError(f"an awareness state of {len(text)} bytes; {MAX_STATE_BYTES} at most")
        before = self._state
        self._state = None if state is None else json.loads(text)
        self._text = text
        self._advance()
        own = (self.client_id,)
        if before is None and self._state is not None:
            self._tell(Change(own, (), ()))
        elif before is not None:
            self._tell(Change((), (), own) if self._state is None else Change((), own, ()))

    def set_field(self, name: str, value: Any) -> None:
        """Show one member of the state, and leave the others as they are; see `set`."""
        self.set({**(self._state or {}), name: value})

    def on_change(self, callback: Callable[[Change], object]) -> Callable[[], None]:
        """Call a function after each change; return a function that ends this."""
        self._callbacks.append(callback)

        def remove() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return remove

    # For the document

    def encode(self) -> bytes | None:
        """Return the awareness update that tells the own state; None if there is nothing to tell."""
        if self._state is None and not self._shown:
            return None
        self._shown = self._state is not None
        return encode_awareness([Entry(self.client_id, self._clock, self._text)])

    def connected(self) -> None:
        """Go on after a socket was opened: the state gets a clock that nobody has seen."""
        self._shown = False
        if self._state is not None:
            self._advance()

    def disconnected(self) -> None:
        """Forget the others: nobody knows whether they are still there."""
        gone = tuple(self.others)
        # Their clocks are forgotten as well. Whoever is there is told anew by the server, with the clock that it has.
        self._others.clear()
        if gone:
            self._tell(Change((), (), gone))

    def receive(self, update: bytes) -> None:
        """Take an awareness update of others.

        Raises:
            AwarenessError: it cannot be read; nothing of it was taken.
        """
        try:
            entries = decode_awareness(update, MAX_STATES)
            read = [(entry, json.loads(entry.state)) for entry in entries]
        except (DecodeError, ValueError, RecursionError) as error:
            raise AwarenessError(f"awareness update: {error}") from None
        added: list[int] = []
        updated: list[int] = []
        removed: list[int] = []
        for entry, state in read:
            if entry.client == self.client_id:
                self._take_own(entry)
                continue
            kind = self._take(entry, state)
            if kind is not None:
                (added, updated, removed)[kind].append(entry.client)
        if added or updated or removed:
            self._tell(Change(tuple(added), tuple(updated), tuple(removed)))

    def tick(self) -> None:
        """Renew the own state and forget who is silent; to be called every few seconds."""
        now = self._now()
        if self._state is not None and now - self._renewed >= RENEWED_AFTER:
            self._advance()
        gone = [client for client, known in self._others.items() if now - known.heard >= FORGOTTEN_AFTER]
        shown = tuple(client for client in gone if isinstance(self._others[client].state, dict))
        for client in gone:
            del self._others[client]
        if shown:
            self._tell(Change((), (), shown))

    def _take(self, entry: Entry, state: Any) -> int | None:
        """Take the state of another client; return 0 if it is new, 1 if it has changed, 2 if it is gone."""
        known = self._others.get(entry.client)
        clock = 0 if known is None else known.clock
        was = known is not None and known.state is not None
        if is_far_ahead(clock, entry) or not is_newer(clock, was, entry):
            return None
        if known is None:
            if state is None or len(self._others) >= MAX_STATES:
                return None
            self._others[entry.client] = _Known(entry.clock, state, self._now())
            return 0 if isinstance(state, dict) else None
        before, known.clock, known.state, known.heard = known.state, entry.clock, state, self._now()
        if not isinstance(state, dict):
            return 2 if isinstance(before, dict) else None
        if not isinstance(before, dict):
            return 0
        return 1 if before != state else None

    def _take_own(self, entry: Entry) -> None:
        """Announce this client again when somebody says that it is gone, or shows something else in its name."""
        if self._state is not None and entry.clock >= self._clock and entry.state != self._text:
            self._clock = entry.clock
            self._advance()

    def _advance(self) -> None:
        self._clock += 1
        self._renewed = self._now()
        self._changed()

    def _tell(self, change: Change) -> None:
        for callback in tuple(self._callbacks):
            try:
                callback(change)
            except Exception:
                _log.exception("a callback of awareness failed")
