"""How much presence one session may show.

Strategy: the size of a state is checked before anything is read of it, and what is refused counts as read, so all of a
message together costs no more than what may be shown.
"""

from __future__ import annotations

from typing import Final, Protocol

from collab.engine.agents import is_of_node
from collab.errors import LimitExceeded
from collab.protocol.awareness import NULL, Entry, check_state, stamp_user
from collab.protocol.session import Owner

# What one session may show where all together show very much.
_SMALL_BYTES: Final = 4 * 1024
_SMALL_IDS: Final = 4


class Limits(Protocol):
    """What a room says of the bounds: bytes and client IDs of one session, and whether all together show too much."""

    max_bytes: int
    max_ids: int

    @property
    def crowded(self) -> bool:
        """Whether so much is shown that nobody may add a large state."""
        ...


class Bounds:
    """What an owner may still show, while one of its updates is read.

    Attributes:
        owned: the client IDs whose states it shows so far, with their sizes.
        bad: how many states were refused.
    """

    __slots__ = ("_left", "_max_bytes", "_max_ids", "_owner", "_states", "_unread", "bad", "owned")

    def __init__(self, owner: Owner, states: Limits) -> None:
        self._owner = owner
        self._states = states
        self.owned = dict(owner.awareness or ())
        self._max_bytes, self._max_ids = states.max_bytes, states.max_ids
        # What is refused is read once as well: all of a message together costs no more than what may be shown.
        self._unread = self._max_bytes
        self._left = self._max_bytes - sum(self.owned.values())
        self.bad = 0

    def add(self, client: int, size: int) -> None:
        """Note a state of so many bytes that its owner was given meanwhile."""
        self.owned[client] = size
        self._left -= size

    def check(self, entry: Entry) -> Entry:
        """Return an entry as it is to be kept; what was there before it under its client ID goes in any case.

        Raises:
            DecodeError: its state is malformed.
            LimitExceeded: its owner, a session or an agent, shows too much.
        """
        client, owner = entry.client, self._owner
        before = self.owned.get(client)
        if before is not None:
            self._left += before
            self.owned[client] = 0
        if entry.state == NULL:
            self.owned.pop(client, None)
            return entry
        if not is_of_node(owner):  # another node's have passed the limits there
            self._check_size(len(entry.state), new=before is None)
        if owner.user is None:
            check_state(entry.state)
        else:
            entry = Entry(client, entry.clock, stamp_user(entry.state, owner.user))
        self.owned[client] = len(entry.state)
        self._left -= len(entry.state)
        return entry

    def _check_size(self, size: int, *, new: bool) -> None:
        """Check a state before anything is read of it; what the server then writes into it counts as well."""
        if new and len(self.owned) >= self._max_ids:
            reason = f"awareness: more than {self._max_ids} client IDs on one connection"
            raise LimitExceeded(reason, public=reason)
        if size > self._left or size > self._unread:
            reason = f"awareness: more than {self._max_bytes} bytes of state on one connection"
            raise LimitExceeded(reason, public=reason)
        if self._states.crowded and (
            (new and len(self.owned) >= _SMALL_IDS) or self._max_bytes - self._left + size > _SMALL_BYTES
        ):
            reason = f"awareness: so much is shown here that {_SMALL_BYTES} bytes are left for one connection"
            raise LimitExceeded(reason, public=reason)
        self._unread -= size
