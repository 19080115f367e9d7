"""The awareness states of one room: newest state per client, owned by the connection that set it.

Strategy: three small tables, client ID to state, to clock and to owner. What changed within a turn
is a set of client IDs, so however often somebody moves, the room gets one entry of them in one
frame. Nothing is stored anywhere else; a room that is unloaded has forgotten it.

The rules beyond y-protocols, all of which protect the others:

- an entry is compared by clock before anything else of it is looked at, because most of what
  arrives are echoes (each y-websocket client re-sends every awareness update that it gets);
- a state that a live session owns cannot be changed or removed by another session. The owner may
  be a dead socket whose client has come back on a new one, so the room asks for a probe of it;
- where it is known who a session is, its states say so: the server writes it, so nobody poses as
  somebody else;
- a client that comes back with the clock at which its state was removed would be ignored by all
  (y-protocols wants a greater clock): it is told ``null`` for itself, upon which y-protocols makes
  it announce itself again with the next clock.
"""

from __future__ import annotations

from collab.errors import LimitExceeded
from collab.protocol.awareness import NULL, Entry, check_state, decode_awareness, encode_awareness, is_newer, stamp_user
from collab.protocol.session import Session

# Payloads that the room has just broadcast, compared as bytes before they are decoded. Clients
# echo within one round trip, which is a few turns.
_RECENT = 32


class AwarenessStates:
    """The awareness states of one room.

    Args:
        max_bytes: how much state one session may own, in bytes of JSON text.
        max_ids: how many client IDs one session may own.
    """

    __slots__ = ("_changed", "_clocks", "_gone", "_max_bytes", "_max_ids", "_owners", "_recent", "_states")

    def __init__(self, *, max_bytes: int, max_ids: int) -> None:
        self._max_bytes = max_bytes
        self._max_ids = max_ids
        self._states: dict[int, bytes] = {}
        self._clocks: dict[int, int] = {}  # of every client in _states, and of those lately removed
        self._owners: dict[int, Session] = {}
        self._changed: dict[int, None] = {}
        self._gone: dict[int, None] = {}  # removed clients whose clock is still kept
        self._recent: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def changed(self) -> bool:
        """Whether the next ``flush`` has something to say."""
        return bool(self._changed)

    def apply(self, session: Session, payload: bytes) -> tuple[list[Entry], list[Session]]:
        """Take an awareness update that a session has sent.

        Returns:
            Entries to send back to this session alone, and the sessions that own a state which
            this one has claimed: they may be dead and should be probed.

        Raises:
            DecodeError: the update or a state in it is malformed; nothing of it was taken.
            LimitExceeded: the session would own too many states or too much; nothing was taken.
        """
        if payload in self._recent:
            return [], []
        accepted: list[Entry] = []
        back: list[Entry] = []
        contested: list[Session] = []
        for entry in decode_awareness(payload):
            client = entry.client
            owner = self._owners.get(client)
            if not is_newer(self._clocks.get(client, 0), client in self._states, entry):
                if owner is None and client in self._gone and entry.state != NULL:
                    back.append(Entry(client, self._clocks[client], NULL))
                continue
            if owner is not None and owner is not session:
                if entry.state != NULL:
                    contested.append(owner)
                continue
            if session.user is None or entry.state == NULL:
                check_state(entry.state)
            else:
                entry = Entry(client, entry.clock, stamp_user(entry.state, session.user))
            accepted.append(entry)
        self._check_limits(session, accepted)
        for entry in accepted:
            self._set(session, entry)
        return back, contested

    def _check_limits(self, session: Session, accepted: list[Entry]) -> None:
        owned = dict(session.awareness or ())
        owned.update((entry.client, len(entry.state)) for entry in accepted if entry.state != NULL)
        if len(owned) > self._max_ids:
            reason = f"awareness: more than {self._max_ids} client IDs on one connection"
            raise LimitExceeded(reason, public=reason)
        if sum(owned.values()) > self._max_bytes:
            reason = f"awareness: more than {self._max_bytes} bytes of state on one connection"
            raise LimitExceeded(reason, public=reason)

    def _set(self, session: Session, entry: Entry) -> None:
        client = entry.client
        self._clocks[client] = entry.clock
        self._changed[client] = None
        if entry.state == NULL:
            self._remove(client)
            if session.awareness is not None:
                session.awareness.pop(client, None)
            return
        self._states[client] = entry.state
        self._gone.pop(client, None)
        self._owners[client] = session
        if session.awareness is None:
            session.awareness = {}
        session.awareness[client] = len(entry.state)

    def _remove(self, client: int) -> None:
        self._states.pop(client, None)
        self._owners.pop(client, None)
        self._gone[client] = None

    def leave(self, session: Session) -> None:
        """Remove every state that the session owns; the next ``flush`` tells the room."""
        for client in session.awareness or ():
            self._remove(client)
            self._changed[client] = None
        session.awareness = None
        # Else the same client, back with the same state, would be taken for an echo.
        self._recent = {}

    def flush(self) -> bytes | None:
        """Return one awareness update with all that changed since the last flush, or None."""
        if not self._changed:
            return None
        payload = encode_awareness(self._entry(client) for client in self._changed)
        self._changed = {}
        self._recent[payload] = None
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        return payload

    def everything(self) -> bytes | None:
        """Return one awareness update with all states, or None while there are none."""
        return encode_awareness(map(self._entry, self._states)) if self._states else None

    def _entry(self, client: int) -> Entry:
        return Entry(client, self._clocks[client], self._states.get(client, NULL))

    def forget(self) -> None:
        """Drop the clocks of clients that have left; call it about every minute.

        A clock is kept that long because other clients may still send the old state on. Forgetting
        it in one go, rather than one by one by age, costs at worst a ghost that is renewed by
        nobody and goes with the connection that brought it.
        """
        for client in self._gone:
            if client not in self._changed:
                self._clocks.pop(client, None)
        self._gone = {client: None for client in self._gone if client in self._changed}
        self._recent = {}
