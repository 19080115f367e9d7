"""Members that read too slowly, and bringing them level.

Strategy: a member whose outbox has passed its mark gets no more live frames. When it has drained, it gets one catch-up:
everything since the state that it was last sent, and all awareness states. Memory for each client is bounded, nothing
is dropped silently, and only a client that takes nothing at all for too long is ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from collab.engine.answers import takes_long
from collab.engine.room import Room
from collab.errors import PeerTooSlow
from collab.hub.line import LARGE
from collab.hub.member import Member
from collab.hub.members import Members
from collab.hub.persistence import Persistence
from collab.protocol.awareness import AwarenessUpdate
from collab.protocol.session import Event
from collab.protocol.sync import SyncStep2, SyncUpdate


class CatchUp:
    """The members of one room that lag.

    Args:
        room, members, persistence: of the room.
        now: the loop's time in seconds.
        patience: seconds for which a member may take nothing.
        min_rate: bytes a second that come from it meanwhile and show that its line is busy with what it sends.
        deliver: called with a member that lacks much, the state vector and the row from which it lacks it, and whether
            it has asked.
    """

    __slots__ = ("_deliver", "_lagging", "_members", "_min_rate", "_now", "_patience", "_persistence", "_room")

    def __init__(
        self,
        room: Room,
        members: Members,
        persistence: Persistence,
        now: Callable[[], float],
        patience: float,
        min_rate: float,
        deliver: Callable[[Member, bytes, int | None, bool], None],
    ) -> None:
        self._deliver = deliver
        self._room = room
        self._members = members
        self._persistence = persistence
        self._now = now
        self._patience = patience
        self._min_rate = min_rate
        self._lagging: dict[Member, None] = {}

    def __len__(self) -> int:
        return len(self._lagging)

    def lag(self, member: Member) -> None:
        """Hold a member back until it has drained."""
        document = self._room.document
        member.on(Event.LAGGED)
        # Any write may find that it lags, also one in the middle of a turn, of which it has been sent nothing.
        member.since = document.encode_flushed_vector()
        member.since_version = -1 if document.in_turn else document.version
        member.since_seq = self._persistence.seq
        member.since_turn = self._room.awareness.comebacks.turn
        self._note(member, self._now(), member.outbox.waiting())
        self._lagging[member] = None

    def forget(self, member: Member) -> None:
        """Forget a member that has left."""
        self._lagging.pop(member, None)

    def sweep(self, now: float) -> Iterator[tuple[Member, PeerTooSlow]]:
        """Bring members level whose outbox has drained; give those that have taken nothing for too long."""
        updates: dict[bytes, bytes] = {}
        for member in list(self._lagging):
            waiting = member.outbox.waiting()
            if waiting <= member.outbox.mark // 4:
                self._catch_up(member, updates)
            elif waiting < member.stalled_with:
                self._note(member, now, waiting)
            elif now - member.stalled_at > self._patience:
                stalled = now - member.stalled_at
                client = member.client
                if client.held_up or client.received - member.heard_with > max(1.0, self._min_rate * stalled):
                    self._note(member, now, waiting)
                    continue
                yield member, PeerTooSlow(f"{waiting} bytes wait, none taken for {stalled:.0f} s")

    @staticmethod
    def _note(member: Member, now: float, waiting: int) -> None:
        member.stalled_at, member.stalled_with, member.heard_with = now, waiting, member.client.received

    def _catch_up(self, member: Member, updates: dict[bytes, bytes]) -> None:
        """Send all that came since the member began to lag, or since what it asks for, and all awareness states."""
        assert member.since is not None
        document = self._room.document
        since, member.since = member.since, None
        asks, member.asks = member.asks, False
        del self._lagging[member]
        update = b""
        if asks or member.since_version != document.version:
            if takes_long(document, since):
                self._deliver(member, since, member.since_seq, asks)
                return
            update = updates.get(since, b"")
            if not update:
                update = updates[since] = document.encode_state_as_update(since)
        if len(update) > LARGE:
            self._deliver(member, since, member.since_seq, asks)
            return
        member.on(Event.CAUGHT_UP)
        if update:
            self._members.send(member, SyncStep2(update) if asks else SyncUpdate(update))
        turn, member.since_turn = member.since_turn, -1
        states = self._room.awareness.everything_since(turn)
        if states is not None:
            self._members.send(member, AwarenessUpdate(states))
        self._persistence.tell_owed(member)
