"""Clients that come back: who claims the ID of a socket that may be dead, and who lacks what of the others.

Strategy, for claims: a client can return on a new socket before the old one is known to be dead. Its claim on its own
ID waits here until the old socket turns out to be silent, or ends.

Strategy, for what is lacking: y-protocols removes all others when its socket closes, but keeps their clocks, and takes
a state only with a greater one. So a client that comes back does not see those who have said nothing since, until they
renew their state; that takes up to 15 s. Turns are counted. Each state has the turn in which its clock has changed
last, and each client that leaves has the turn up to which it may have seen the others. A state that is not newer than
that has to be announced anew, and one round of that serves all who have come back.

Both go beyond this node: a claim on an ID that another node shows is told to that node, and the clients of other nodes
are asked by those. What they are told names client IDs and clocks, because each node counts its own turns.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from collab.engine.visitors import Person, Visitor
from collab.protocol.awareness import Entry, decode_first_entry
from collab.protocol.session import Owner, Session, State

_NOBODY: Final = -1


class Claim(NamedTuple):
    """A session says that an ID which another one shows is its client's own, with this clock."""

    session: Session
    clock: int


class DistantClaim(NamedTuple):
    """A session of another node says that an ID is its client's own.

    Attributes:
        client, clock: the ID, and the clock of its state there.
        first: it is the first that this session has shown.
        author, address: as a ``Session`` has them.
    """

    client: int
    clock: int
    first: bool
    author: str | None
    address: str | None


class Comebacks:
    """What one room knows of clients that come back.

    Args:
        turn: the first turn, greater than those of IDs that have left before.

    Attributes:
        turn: the number of the turn that goes on.
        announced: the turn in which the clock of each client has changed last.
        noted: a client was found to have come back; the room resets it.
    """

    __slots__ = ("_behind", "_behind_distant", "_behind_there", "_claims", "_distant", "announced", "noted", "turn")

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.announced: dict[int, int] = {}
        self.noted = False
        self._behind = _NOBODY
        self._behind_there = _NOBODY
        self._behind_distant = _NOBODY
        self._claims: dict[int, Claim] = {}
        self._distant: dict[int, DistantClaim] = {}  # of IDs that sessions of this node show

    def claim(self, client: int, session: Session, clock: int) -> None:
        """Note that a session claims an ID; of several the last one counts, and of one session its own ID alone."""
        if session.own is None:
            session.note_own(client)
        if session.own == client:
            self._claims[client] = Claim(session, clock)

    def find_claim(self, client: int) -> Claim | None:
        """Return the claim of a session that is still here; None if there is none."""
        claim = self._claims.get(client)
        return None if claim is None or claim.session.state is State.CLOSED else claim

    def claim_from_afar(self, claim: DistantClaim) -> None:
        """Note what a session of another node claims; of several the last one counts."""
        self._distant[claim.client] = claim

    def find_distant_claim(self, client: int) -> DistantClaim | None:
        """Return what a session of another node claims of an ID, which may have ended since; None if there is none."""
        return self._distant.get(client)

    def withdraw_claim(self, client: int, owner: Owner) -> None:
        """Forget a session's claim of an ID: its client shows nothing any more, and nobody would remove the state."""
        claim = self._claims.get(client)
        if claim is not None and claim.session is owner:
            del self._claims[client]

    def drop_claim(self, client: int) -> None:
        """Forget what is claimed of an ID, because it has another owner, or none."""
        self._claims.pop(client, None)
        self._distant.pop(client, None)

    def drop_claim_of(self, session: Session) -> None:
        """Forget what a session claims, because it has ended."""
        client = session.own
        if client is not None and (claim := self._claims.get(client)) is not None and claim.session is session:
            del self._claims[client]

    def note(self, session: Session | Visitor, turn: int) -> None:
        """Note that somebody's client has come back, which may have been told of turns up to ``turn`` before."""
        if session.returned:
            return
        session.returned = self.noted = True
        self._behind = max(self._behind, turn)

    def note_distant(self, turn: int) -> None:
        """Note that somebody here may lack clients of other nodes, of which this one was told in ``turn`` or before."""
        self._behind_there = max(self._behind_there, turn)

    def note_asked(self, turn: int) -> None:
        """Note that somebody on another node lacks clients of this one that have said nothing since ``turn``."""
        self._behind_distant = max(self._behind_distant, turn)

    @property
    def lacking(self) -> bool:
        """Whether somebody here has come back since the last round."""
        return max(self._behind, self._behind_there) != _NOBODY

    @property
    def asked(self) -> bool:
        """Whether another node has asked since the last round for others."""
        return self._behind_distant != _NOBODY

    def begin_round(self) -> tuple[int, int]:
        """Begin a round; return the turns up to which what was announced has to be announced anew.

        The first one is for the clients of this node, the second one for those of others.
        """
        here, there = self._behind, max(self._behind, self._behind_there)
        self._behind = self._behind_there = _NOBODY
        return here, there

    def begin_round_for_others(self) -> int:
        """Begin a round for which other nodes have asked; return the turn for the clients of this node."""
        behind, self._behind_distant = self._behind_distant, _NOBODY
        return behind


def may_follow(owner: Owner, user: str | None, *, sure: bool = True) -> bool:
    """Tell whether an owner may take an ID that was ``user``'s.

    Where that is not ``sure``, because a state of another node says so, only a session of another user may not. What
    another node lets its sessions take is decided there.
    """
    if user is None or not isinstance(owner, (Session, Visitor)) or owner.author == user:
        return True
    return not sure and owner.author is None


def has_come_back(owner: Owner, held_by: Owner) -> bool:
    """Tell whether a state was claimed by its own client on a new socket.

    Both are one user's, and it is the first that the new one shows: each client begins with its own state. The tabs of
    one browser know each other's states before the server does, and send them on, but each has shown itself by then.
    A visitor shows one client alone, which sends on nothing of others. It has no socket that could still live, so
    without users its address is enough for a session.
    """
    if isinstance(owner, Visitor):
        return isinstance(held_by, Session) and owner.author is not None and owner.author == held_by.author
    if not isinstance(owner, Session) or owner.awareness:
        return False
    if isinstance(held_by, Visitor):
        return are_one(owner, held_by)
    return isinstance(held_by, Session) and owner.author is not None and owner.author == held_by.author


def are_one(a: Person, b: Person) -> bool:
    """Tell whether two sessions may be one client's: they have one user or, where nobody knows users, one address."""
    if a.author is not None or b.author is not None:
        return a.author == b.author
    return a.address is not None and a.address == b.address


def may_bring(owner: Owner) -> bool:
    """Tell whether what a session sends now can only be its client's own state.

    Each client begins with that. It is no echo while it has not answered the first thing that it was sent.
    """
    return isinstance(owner, Session) and not owner.answered and owner.own is None


def read_own(session: Session, payload: bytes) -> Entry | None:
    """Return what a session that was asked says of itself, if its message begins with that; None for any other.

    Who is asked tells all that it knows, and itself first. The rest would be as many states as the room has, from each.

    Raises:
        DecodeError: it cannot be read.
    """
    found = decode_first_entry(payload)
    if found is None or found[0] == 1 or found[1].client != session.own:
        return None
    session.queried = False
    return found[1]
