"""The awareness states of one room: newest state per client, owned by the session or the node that set it.

Strategy: small tables, client ID to encoded entry, to clock and to owner. What changed within a turn
is a set of entries, one for each client ID, so however often somebody moves, the room gets one entry of them in one
frame. Nothing is stored anywhere else.

The rules beyond y-protocols, all of which protect the others:

- an entry is compared by clock before anything else of it is looked at, because most of what
  arrives are echoes (each y-websocket client re-sends every awareness update that it gets);
- a message may declare as many entries as could be of use: those that its sender may show, and one for each client ID
  that the room knows. Of several entries of one ID the newest counts;
- a state that a live session owns cannot be changed or removed by another session. The owner may
  be a dead socket whose client has come back on a new one, so the room asks for a probe of it. Where both are known
  to be one user's, the new socket need not wait for that. Else its claim waits: if the old socket is silent and both
  have one address, or one user, it has the ID then (``yield_ids``), without a moment in which nobody shows it;
- an ID whose session has ended is its user's for some minutes (``Departed``);
- ``null`` for an ID that nobody owns says nothing, and goes nowhere;
- a clock that no client has come to is ignored: it would shut out the ID's own client for ever;
- another node speaks for the sessions that are there: its states belong to the node as a whole, they have
  passed the limits there, and they are not told back to it;
- a state that is malformed, too large or one too many costs its session this state and nothing else: what was shown
  under the ID is removed, as ``null`` would have removed it, and the document goes on;
- all sessions together have a bound, for each newcomer is told everything: past it large states are shown no more;
- where it is known who a session is, its states say so: the server writes it, so nobody poses as
  somebody else;
- a client that comes back with the clock at which its state was removed would be ignored by all
  (y-protocols wants a greater clock): it is told ``null`` for itself, upon which y-protocols makes
  it announce itself again with the next clock. In a room that was just opened nobody knows who has been here before:
  there each client is told so when it first shows itself;
- a client that comes back ignores in the same way all others who have said nothing meanwhile. They are told ``null``
  for themselves, each for its own ID and in no other frame, so nobody else sees anything of it (``begin_round``). Those
  of other nodes are asked there;
- a client may come back by another node. What it claims is told to the node that shows its ID, which judges it as its
  own, and removes the ID for it (``judge_distant``);
- agents (``collab.engine.agents``) have IDs of their own, which no session may show: an echo of one says nothing;
- a visitor (``collab.engine.visitors``) shows one client by requests. It is told by its answer what was not taken, and
  its claims do not wait: it comes again. Nodes tell whose the states of visitors are: of one person's the greater clock
  counts, whichever node shows it, and also its end.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from collab.engine.agents import FIRST_ID, Agent, is_of_node, next_clock
from collab.engine.bounds import Bounds
from collab.engine.comebacks import (
    Comebacks,
    DistantClaim,
    are_one,
    has_come_back,
    may_bring,
    may_follow,
    read_own,
)
from collab.engine.departed import Departed, Left
from collab.engine.visitors import AnothersClient, Person, Somebody, Visitor, are_same
from collab.errors import CollabError, DecodeError, LimitExceeded, forget_frames
from collab.protocol.awareness import (
    MAX_CLOCK,
    NULL,
    Entry,
    check_state,
    decode_awareness,
    decode_awareness_in_slices,
    encode_awareness,
    encode_entry,
    is_far_ahead,
    is_newer,
    join_entries,
    newest_entries,
    read_user,
    stamp_user,
)
from collab.protocol.lib0 import read_var_uint
from collab.protocol.session import Owner, Session, State

LARGE: Final = 8 * 1024
"""Bytes of an awareness update above which it is taken in slices: some 1,500 entries at most are two milliseconds."""

# Payloads that the room has just broadcast, compared as bytes before they are decoded. Clients
# echo within one round trip, which is a few turns. Larger ones are not kept: they are rare, and read in slices.
_RECENT: Final = 32
_RECENT_BYTES: Final = 64 * 1024

# Entries that are taken between two yields: about a millisecond.
_SLICE: Final = 500

# Entries that a message may hold beyond those that are of use: a client that shows a few too many is told so.
_STRANGE: Final = 100

# Calls of ``forget`` during which a room is fresh: one to two minutes. Stock clients renew their clocks every 15 s,
# also while they are away, but the timers of hidden pages run once a minute.
_FRESH: Final = 2

# How much all sessions of a room may show, in bytes of encoded entries and in client IDs, before one of them may show
# no more than a name and a cursor (``Bounds``). Everybody who joins, or asks, is sent all of it.
_ROOM_BYTES: Final = 4 * 1024 * 1024
_ROOM_IDS: Final = 10_000

ANOTHERS: Final = "awareness: this client ID is shown by another connection"

_NOBODY: Final[Mapping[int, Somebody]] = {}

Ask = tuple[Session, Entry]
"""A session, and the ``null`` for its own ID upon which its client announces itself anew."""


class Taken(NamedTuple):
    """What became of an awareness update.

    Attributes:
        back: entries to send back to its session alone.
        contested: the owners of states which this one has claimed, each once: sessions among them may be dead and
            should be probed.
        refused: why a state in it was not taken, the first such reason; None if all were.
        asks: whom it has given what they have claimed: they are to announce themselves.
    """

    back: list[Entry]
    contested: list[Owner]
    refused: CollabError | None
    asks: Sequence[Ask] = ()


_MOVED: Final = Taken([], [], None)


class Idle(NamedTuple):
    """Who is to announce itself anew.

    Attributes:
        here: the sessions of this node, as they are found.
        there: the clients of other nodes, an awareness update of a ``null`` for each; None if there are none.
    """

    here: Iterator[Ask]
    there: bytes | None


class _Waiting(NamedTuple):
    """What another node has told of an ID that somebody else still shows; ``person`` is whose, if it is a visitor's."""

    node: Owner
    entry: Entry
    person: Somebody | None


class AwarenessStates:
    """The awareness states of one room.

    Args:
        max_bytes: how much state one session may own, in bytes of JSON text.
        max_ids: how many client IDs one session may own.
        departed: the client IDs that were here before, if the room was in memory a while ago.
        fresh: nobody knows who was here before, because the node has just started, or another one had the room.

    Attributes:
        comebacks: the clients that have come back.
    """

    __slots__ = (
        "_changed",
        "_clocks",
        "_foreign",
        "_freed",
        "_fresh",
        "_nbytes",
        "_nodes",
        "_owners",
        "_people",
        "_recent",
        "_states",
        "_told",
        "_waiting",
        "comebacks",
        "departed",
        "max_bytes",
        "max_ids",
    )

    def __init__(self, *, max_bytes: int, max_ids: int, departed: Departed | None = None, fresh: bool = False) -> None:
        self.max_bytes = max_bytes
        self.max_ids = max_ids
        self.departed = Departed() if departed is None else departed
        self.comebacks = Comebacks(self.departed.turn + 1)
        self._fresh = _FRESH if fresh else 0  # how often ``forget`` is still to be called until it is not
        self._states: dict[int, bytes] = {}  # encoded entries
        self._nbytes = 0  # of those
        self._clocks: dict[int, int] = {}
        self._owners: dict[int, Owner] = {}
        self._nodes: dict[Owner, None] = {}  # other nodes among those
        self._changed: dict[int, bytes] = {}  # encoded entries
        # Of those that have changed: last by another node, and the removal that this one has still to tell of it.
        self._foreign: dict[int, bytes | None] = {}
        self._recent: dict[bytes, None] = {}
        # Newer states that another node has told of IDs that somebody else still shows: a client has moved to that
        # node, and its old one does not know yet, or is dead. At most one for each ID that is shown.
        self._waiting: dict[int, _Waiting] = {}
        self._freed: list[_Waiting] = []  # of those, what was waited for has happened
        self._people: dict[int, Somebody] = {}  # whose IDs are that visitors of other nodes show
        self._told: dict[int, Somebody] = {}  # of those that have changed: whose, if a visitor of this node did it

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, client: int) -> bool:
        return client in self._states

    @property
    def changed(self) -> bool:
        """Whether the next ``flush`` has something to say."""
        return bool(self._changed)

    @property
    def crowded(self) -> bool:
        """Whether so much is shown that nobody may add a large state."""
        return self._nbytes > max(_ROOM_BYTES, 4 * self.max_bytes) or len(self._states) > _ROOM_IDS

    def apply(self, owner: Owner, payload: bytes, people: Mapping[int, Somebody] = _NOBODY) -> Taken:
        """Take an awareness update that a session, or another node, has sent.

        One of a session above ``LARGE`` bytes is better given to ``apply_in_slices``. ``people`` says whose the IDs are
        that visitors of another node show.

        Raises:
            DecodeError: it cannot be split into its states; nothing of it was taken.
            LimitExceeded: it holds more states than could be of use; nothing of it was taken.
        """
        if len(payload) <= _RECENT_BYTES and payload in self._recent and not people and not may_bring(owner):
            return Taken([], [], None)
        if not isinstance(owner, Session):
            entries = decode_awareness(payload)
        elif payload[:1] == b"\1" and not owner.queried and self._move(owner, payload):
            return _MOVED
        elif owner.queried and (own := read_own(owner, payload)) is not None:
            entries = [own]
        else:
            entries = decode_awareness(payload, self._most)
        if len(entries) > 1:
            entries = newest_entries(entries)
        brought = _brought(owner, entries)
        if brought is not None:
            _announce(owner, brought)
        return self._take(owner, entries, None, brought, people)

    def _move(self, session: Session, payload: bytes) -> bool:
        """Take the usual update: a session changes the one state that it shows already, by the only entry in it.

        A shorter way to what ``_take`` and ``_set`` do with it: 3 us instead of 7. False leaves any other update to
        them, also what is refused.
        """
        shown = session.awareness
        if shown is None or len(shown) > 1 or self.crowded or may_bring(session):
            return False
        if self._told or self._people or self._foreign:
            return False
        try:
            client, pos = read_var_uint(payload, 1)
            clock, pos = read_var_uint(payload, pos)
            size, pos = read_var_uint(payload, pos)
            state = payload[pos:]
            if (
                self._owners.get(client) is not session
                or not self._clocks[client] < clock <= MAX_CLOCK
                or size != len(state)
                or size > self.max_bytes
                or state == NULL
            ):
                return False
            if session.user is None:
                check_state(state)
                encoded = payload[1:]  # each number has one encoding
            else:
                state = stamp_user(state, session.user)
                encoded = encode_entry(client, clock, state)
        except DecodeError:
            return False
        self._nbytes += len(encoded) - len(self._states[client])
        self._states[client] = self._changed[client] = encoded
        self._clocks[client] = clock
        comebacks = self.comebacks
        comebacks.announced[client] = comebacks.turn
        shown[client] = len(state)
        return True

    def apply_in_slices(self, session: Session, payload: bytes) -> Generator[None, None, Taken]:
        """Do what ``apply`` does in a generator that yields about every millisecond.

        Other updates may be taken, turns ended and the session closed between the slices.

        Raises:
            DecodeError, LimitExceeded.
        """
        if len(payload) <= _RECENT_BYTES and payload in self._recent and not may_bring(session):
            return Taken([], [], None)
        if session.queried and (own := read_own(session, payload)) is not None:
            return self._take(session, [own], None, None)
        entries = newest_entries((yield from decode_awareness_in_slices(payload, self._most)))
        bounds: Bounds | None = None
        brought = _brought(session, entries)
        if brought is not None:
            _announce(session, brought)
        back: list[Entry] = []
        contested: dict[Owner, None] = {}
        refused: CollabError | None = None
        for begin in range(0, len(entries), _SLICE):
            yield
            if session.state is State.CLOSED:
                break  # what it shows has gone with it
            bounds = Bounds(session, self) if bounds is None else bounds
            taken = self._take(session, entries[begin : begin + _SLICE], bounds, brought)
            back += taken.back
            contested |= dict.fromkeys(taken.contested)
            refused = refused or taken.refused
        return Taken(back, list(contested), refused)

    @property
    def _most(self) -> int:
        """How many entries a session's update may hold: what it may show, what it may echo, and some more."""
        return self.max_ids + len(self._states) + len(self.departed) + _STRANGE

    def _take(
        self,
        owner: Owner,
        entries: Sequence[Entry],
        bounds: Bounds | None,
        brought: Entry | None,
        people: Mapping[int, Somebody] = _NOBODY,
        *,
        given: bool = False,
    ) -> Taken:
        """Take entries of as many clients, within the bounds of the message that they are of.

        Args:
            owner: who sends them.
            entries: of different clients.
            bounds: None for those of the owner.
            brought: the one among them, if any, that a session's client can only have brought along.
            people: whose IDs are that visitors of another node show.
            given: the node that shows the ID of a visitor has said that it is the visitor's.
        """
        accepted: list[Entry] = []
        back: list[Entry] = []
        contested: dict[Owner, None] = {}
        refused: CollabError | None = None
        for entry in entries:
            client = entry.client
            held_by = self._owners.get(client)
            if client >= FIRST_ID:
                if isinstance(owner, Visitor):
                    refused = refused or _anothers("awareness: this client ID is for agents")
                    continue
                if isinstance(owner, Session):
                    gone = self.departed.get(client) if held_by is None else None
                    if entry is brought:
                        refused = refused or _limit("awareness: this client ID is for agents")
                    elif gone is not None and entry.state != NULL and entry.clock <= gone.clock:
                        back.append(Entry(client, gone.clock, NULL))
                    continue
                if held_by is not None and held_by is not owner:
                    if entry.state != NULL and is_newer(self._clocks[client], True, entry):
                        accepted.append(entry)  # its caller has come to another node
                    continue
            if held_by is None:
                if entry.state == NULL:
                    if client in people:
                        self.note_end(entry, people[client])
                    continue
                left = self.departed.get(client)
                known = 0 if left is None else left.clock
                if not is_newer(known, False, entry):
                    if left is not None:
                        back.append(Entry(client, known, NULL))
                        if entry is brought and isinstance(owner, Session) and self._may_return(owner, left):
                            owner.note_own(client)
                            self.comebacks.note(owner, left.turn)
                    continue
                if left is not None and not self._may_return(owner, left):
                    refused = refused or _anothers("awareness: this client ID is another user's")
                    continue
            else:
                known = self._clocks[client]
                if held_by is owner:
                    if not is_newer(known, True, entry):
                        continue
                else:
                    own = given or self._is_one_person(client, held_by, owner, people)
                    if is_newer(known, True, entry):
                        if entry.state == NULL and not own:
                            self.comebacks.withdraw_claim(client, owner)
                            self._wait_no_more(client, owner)
                            continue
                    elif entry is not brought or entry.clock < known:
                        continue
                    if not own:
                        contested[held_by] = None
                        if not self._claim(owner, held_by, entry, people):
                            if isinstance(owner, Visitor):
                                refused = refused or _anothers(ANOTHERS)
                            continue
                    if entry.clock == known and entry.state != NULL:
                        back.append(self._hand_over(client, held_by, owner, entry.clock, bounds))
                        continue
            if is_far_ahead(known, entry):
                refused = refused or _limit("awareness: a clock that no client has come to")
                continue
            if bounds is None:
                bounds = Bounds(owner, self)
            try:
                accepted.append(bounds.check(entry))
            except (DecodeError, LimitExceeded) as error:
                forget_frames(error)  # one of them is this, which holds the error
                refused = refused or error
                bounds.bad += 1
                # Of a client that shows nothing there is nothing to be removed, and no clock to be kept.
                if held_by is not None:
                    accepted.append(Entry(client, entry.clock, NULL))
                bounds.owned.pop(client, None)
                if bounds.bad > self.max_ids:
                    break  # nobody means to show these
                continue
            if entry is brought and self._fresh and held_by is None and left is None:
                back.append(Entry(client, entry.clock, NULL))
                if self._nodes:
                    self.comebacks.note_distant(self.comebacks.turn)
                    self.comebacks.noted = True
        asks: list[Ask] = []
        if not is_of_node(owner):
            if self._foreign:
                for entry in accepted:
                    self._foreign.pop(entry.client, None)
        else:
            for entry in accepted:
                self._note_foreign(entry.client)
                if entry.state == NULL:
                    asks += self._give_to_claimant(entry.client)
                    self._recent = {}  # as in ``leave``: its session has left there, and its client may come here
        for entry in accepted:
            self._set(owner, entry)
            if entry.client in people and entry.state != NULL:
                self._people[entry.client] = people[entry.client]
        self._take_freed()
        return Taken(back, list(contested), refused, asks)

    def _is_one_person(self, client: int, held_by: Owner, owner: Owner, people: Mapping[int, Somebody]) -> bool:
        """Tell whether who shows an ID, and who wants to, are known to be one person, at least one of them a visitor.

        At least one of them is on another node; those of one node settle it among themselves.
        """
        person: Person | None = owner if isinstance(owner, Visitor) and is_of_node(held_by) else people.get(client)
        if person is None:
            return False
        if isinstance(held_by, Session):
            return person.author is not None and held_by.author == person.author
        known: Person | None = held_by if isinstance(held_by, Visitor) else self._people.get(client)
        return known is not None and are_same(known, person)

    def is_anothers(self, client: int, session: Session) -> bool:
        """Tell whether somebody else shows a client ID, or has shown it until lately: none of the session's user.

        What another node shows counts as somebody else's.
        """
        owner = self._owners.get(client)
        if owner is None:
            left = self.departed.get(client)
            return left is not None and left.user is not None and left.user != session.author
        return owner is not session and not (isinstance(owner, (Session, Visitor)) and owner.author == session.author)

    def is_of_another_user(self, client: int, user: str) -> bool:
        """Tell whether somebody shows a client ID, or has shown it until lately, who is not known to be ``user``."""
        owner = self._owners.get(client)
        if owner is None:
            left = self.departed.get(client)
            return left is not None and left.user is not None and left.user != user
        return getattr(owner, "author", None) != user

    def _may_return(self, owner: Owner, left: Left) -> bool:
        return may_follow(owner, left.user, sure=left.sure)

    def _claim(self, owner: Owner, held_by: Owner, entry: Entry, people: Mapping[int, Somebody]) -> bool:
        """Tell whether an owner has the ID that another one shows at once; else its claim waits.

        A client that comes back and has moved nothing meanwhile claims its ID with the clock that is known.
        """
        if has_come_back(owner, held_by):
            return True
        known = self._clocks[entry.client]
        if is_far_ahead(known, entry):
            return False
        if isinstance(owner, Session):
            self.comebacks.claim(entry.client, owner, entry.clock)
        elif is_of_node(owner):
            waiting = self._waiting.get(entry.client)
            if waiting is None or waiting.node is owner or waiting.entry.clock < entry.clock:
                self._waiting[entry.client] = _Waiting(owner, entry, people.get(entry.client))
        return False

    def _wait_no_more(self, client: int, owner: Owner) -> None:
        """Forget what a node has told of an ID, for it says now that its session has left."""
        if (waiting := self._waiting.get(client)) is not None and waiting.node is owner:
            del self._waiting[client]

    def _take_freed(self) -> None:
        """Take the states that have waited for those that were removed just now."""
        while self._freed:
            node, entry, person = self._freed.pop()
            self._take(node, [entry], None, None, _NOBODY if person is None else {entry.client: person})

    def yield_ids(self, owner: Owner) -> list[Ask]:
        """Give the IDs of an owner that is silent, or is about to end, to those who claim them and are its client.

        What was shown stays as it is until they have announced themselves, for which they are to be asked.
        """
        asks: list[Ask] = []
        if not isinstance(owner, (Session, Visitor)):
            return asks  # another node decides on what it shows
        comebacks = self.comebacks
        for client in list(owner.awareness or ()):
            claim = comebacks.find_claim(client)
            distant = comebacks.find_distant_claim(client)
            if claim is not None and are_one(claim.session, owner) and self._has_room(claim.session, owner, client):
                asks.append((claim.session, self._hand_over(client, owner, claim.session, claim.clock)))
            elif distant is not None and are_one(distant, owner):
                self._give_up(client, owner)
        return asks

    def judge_distant(self, claim: DistantClaim) -> Session | None:
        """Take what a session of another node claims: remove the ID for it, or return the session to be probed for it.

        The rules are those for two sessions of this node. The ID is removed first and then shown by the other node, so
        the room may see its client leave and come.
        """
        owner = self._owners.get(claim.client)
        if not isinstance(owner, (Session, Visitor)):
            return None
        known = self._clocks[claim.client]
        if claim.clock < known or is_far_ahead(known, Entry(claim.client, claim.clock, NULL)):
            return None
        if isinstance(owner, Visitor):
            if claim.first and are_one(claim, owner):
                self._give_up(claim.client, owner)
            return None
        if claim.first and claim.author is not None and owner.author == claim.author:
            self._give_up(claim.client, owner)
            return None
        self.comebacks.claim_from_afar(claim)
        return owner

    def _give_up(self, client: int, owner: Session | Visitor) -> None:
        """Remove the ID of an owner for a session of another node that is the same client."""
        assert owner.awareness is not None
        del owner.awareness[client]
        self._remove(client, self._clocks[client])
        self._recent = {}  # as in ``leave``

    def _give_to_claimant(self, client: int) -> list[Ask]:
        """Give the session of this node that claims an ID of another node, which is about to be removed, if any.

        It announces itself when it is asked, and has the ID then.
        """
        claim = self.comebacks.find_claim(client)
        if claim is None or not may_follow(claim.session, self._user_of(client), sure=False):
            return []
        self.comebacks.note(claim.session, self.comebacks.turn - 1)
        return [(claim.session, Entry(client, claim.clock, NULL))]

    def _user_of(self, client: int) -> str | None:
        """Return whose an ID is that another node shows, as its state says."""
        (entry,) = decode_awareness(join_entries((self._states[client],)))
        return read_user(entry.state)

    def _has_room(self, session: Session, owner: Owner, client: int) -> bool:
        """Tell whether a session may show, beside all that it shows, what ``owner`` shows under an ID."""
        shown = session.awareness or {}
        assert owner.awareness is not None
        return len(shown) < self.max_ids and sum(shown.values()) + owner.awareness[client] <= self.max_bytes

    def _hand_over(self, client: int, before: Owner, session: Owner, clock: int, bounds: Bounds | None = None) -> Entry:
        """Let a session own what another owner has shown under an ID: it is the same client, which has this clock.

        Return the ``null`` that is to be sent to it; ``bounds`` are those of the message that claims the ID.
        """
        assert isinstance(session, Session) and before.awareness is not None
        if session.awareness is None:
            session.awareness = {}
        session.awareness[client] = before.awareness.pop(client)
        if bounds is not None:
            bounds.add(client, session.awareness[client])
        self._owners[client] = session
        self._has_new_socket(client, session)
        return Entry(client, clock, NULL)

    def _has_new_socket(self, client: int, session: Session) -> None:
        """Note that a client is back before its old socket has ended: how long that has been silent nobody knows."""
        comebacks = self.comebacks
        comebacks.drop_claim(client)
        if session.own is None:
            session.note_own(client)
        comebacks.announced[client] = comebacks.turn
        comebacks.note(session, comebacks.turn - 1)

    def begin_round(self) -> Idle:
        """Begin a round: give whose clients have to announce themselves anew, so that all who came back see them."""
        here, there = self.comebacks.begin_round()
        return Idle(self._idle_here(here), self._idle_there(there) if self._nodes else None)

    def begin_round_for_others(self) -> Idle:
        """Do the same for those who have come back on other nodes, which have asked (``note_asked``)."""
        return Idle(self._idle_here(self.comebacks.begin_round_for_others()), None)

    def _idle_here(self, behind: int) -> Iterator[Ask]:
        """Give the sessions whose clients have said nothing since the turn ``behind``.

        Others may join, leave and announce themselves meanwhile. A client is asked only for its own ID: what else a
        socket shows it has only heard of, and would remove.
        """
        announced = self.comebacks.announced
        for client, owner in list(self._owners.items()):
            if (
                isinstance(owner, Session)
                and owner.own == client
                and announced.get(client, behind + 1) <= behind
                and self._owners.get(client) is owner
            ):
                yield owner, Entry(client, self._clocks[client], NULL)

    def _idle_there(self, behind: int) -> bytes | None:
        """Give the clients of other nodes of which nothing was heard since the turn ``behind``."""
        announced, clocks = self.comebacks.announced, self._clocks
        idle = [
            Entry(client, clocks[client], NULL)
            for node in self._nodes
            for client in node.awareness or ()
            if announced[client] <= behind
        ]
        return encode_awareness(idle) if idle else None

    def note_asked(self, payload: bytes) -> None:
        """Note that another node asks these clients to announce themselves anew, ``Idle.there`` of it.

        Those that have said something since, or are no session's of this node, need not.

        Raises:
            DecodeError: it cannot be read; nothing was noted.
        """
        comebacks = self.comebacks
        for client, clock, _ in decode_awareness(payload):
            owner = self._owners.get(client)
            own = isinstance(owner, Agent) or (isinstance(owner, Session) and owner.own == client)
            if own and self._clocks[client] <= clock:
                comebacks.note_asked(comebacks.announced[client])

    def _note_foreign(self, client: int) -> None:
        """Note that another node changes a state: it tells the others, but for the removal that came before it here."""
        if client not in self._foreign:
            # What is still shown is overtaken; who has heard nothing of it need not.
            self._foreign[client] = None if client in self._states else self._changed.get(client)

    def _set(self, owner: Owner, entry: Entry) -> None:
        client, clock, state = entry
        if isinstance(owner, Visitor):
            self._told[client] = Somebody(owner.author, owner.address)
        elif self._told:
            self._told.pop(client, None)
        self._people.pop(client, None)
        before = self._owners.get(client)
        if before is not None and before is not owner and before.awareness is not None:
            before.awareness.pop(client, None)
        if state == NULL:
            self._remove(client, clock, self._told.get(client))
            if owner.awareness is not None:
                owner.awareness.pop(client, None)
            return
        encoded = self._changed[client] = encode_entry(client, clock, state)
        if before is None:
            left = self.departed.remove(client)
            if isinstance(owner, Visitor) and left is not None:
                self.comebacks.note(owner, left.turn)
            if isinstance(owner, Session) and owner.own is None:
                owner.note_own(client)
                if left is not None:  # one that has shown itself before was here all the time
                    self.comebacks.note(owner, left.turn)
            self._nbytes += len(encoded)
        else:
            if before is not owner and isinstance(owner, Session):
                self._has_new_socket(client, owner)
            elif before is not owner and isinstance(owner, Visitor):
                self.comebacks.drop_claim(client)
            self._nbytes += len(encoded) - len(self._states[client])
        self.comebacks.announced[client] = self.comebacks.turn
        self._states[client] = encoded
        self._clocks[client] = clock
        self._owners[client] = owner
        if owner.awareness is None:
            owner.awareness = {}
            if is_of_node(owner):
                self._nodes[owner] = None
        owner.awareness[client] = len(state)

    def _remove(self, client: int, clock: int, by: Somebody | None = None) -> None:
        """Remove the state of a client, which has one, by ``null`` with this clock.

        ``by`` is whose visitor has said so. Else this node does, which speaks for itself: its visitor may have gone to
        another one.
        """
        owner = self._owners.pop(client)
        user = owner.author if isinstance(owner, (Session, Agent, Visitor)) else self._user_of(client)
        self._people.pop(client, None)
        if by is None:
            self._told.pop(client, None)
        self._nbytes -= len(self._states.pop(client))
        del self._clocks[client]
        comebacks = self.comebacks
        if (waiting := self._waiting.pop(client, None)) is not None:
            self._freed.append(waiting)
        comebacks.drop_claim(client)
        del comebacks.announced[client]
        here = not is_of_node(owner)
        # What changes in this turn it has not been told yet.
        self.departed.add(client, clock, user, comebacks.turn - 1, sure=here)
        self._changed[client] = encode_entry(client, clock, NULL)

    def leave(self, owner: Owner) -> list[Ask]:
        """Remove every state of an owner that has gone; the next ``flush`` tells the room.

        Those who have claimed its IDs are to be asked to announce themselves. What they may own already stays.
        """
        asks = self.yield_ids(owner)
        self._waiting = {client: waiting for client, waiting in self._waiting.items() if waiting.node is not owner}
        for client in owner.awareness or ():
            if is_of_node(owner):
                self._note_foreign(client)
                asks += self._give_to_claimant(client)
            elif (
                isinstance(owner, (Session, Visitor))
                and (claim := self.comebacks.find_claim(client)) is not None
                and may_follow(claim.session, owner.author)
            ):
                asks.append((claim.session, Entry(client, claim.clock, NULL)))
                self.comebacks.note(claim.session, self.comebacks.turn - 1)
            self._remove(client, self._clocks[client])
        owner.awareness = None
        self._nodes.pop(owner, None)
        self._take_freed()
        if isinstance(owner, Session):
            self.comebacks.drop_claim_of(owner)
        # Else the same client, back with the same state, would be taken for an echo.
        self._recent = {}
        return asks

    def replace(self, node: Owner, payload: bytes) -> Taken:
        """Take an awareness update with all states of another node; what it shows no more is removed.

        Raises:
            DecodeError: it cannot be split into its states; nothing of it was taken.
        """
        entries = newest_entries(decode_awareness(payload))
        there = {entry.client for entry in entries}
        for client in [client for client in self._waiting if client not in there]:
            self._wait_no_more(client, node)
        owned = node.awareness or {}
        asks: list[Ask] = []
        for client in [client for client in owned if client not in there]:
            self._note_foreign(client)
            asks += self._give_to_claimant(client)
            self._remove(client, self._clocks[client])
            del owned[client]
            self._recent = {}  # as in ``leave``
        taken = self._take(node, entries, None, None)
        if self._fresh and there and any(isinstance(owner, Session) for owner in self._owners.values()):
            # Who is here may have seen them on another node, a moment ago.
            self.comebacks.note_distant(self.comebacks.turn)
        return taken._replace(asks=[*asks, *taken.asks])

    def flush(self) -> tuple[bytes | None, bytes | None]:
        """Return one awareness update with all that changed since the last flush, and what of it this node has to tell.

        The second is what has changed by sessions of this node; it is usually the same bytes object. Either is None
        when there is nothing.
        """
        if not self._changed:
            return None, None
        payload = join_entries(self._changed.values())
        own: bytes | None = payload
        if self._foreign:
            mine = [entry for client, entry in self._changed.items() if client not in self._foreign]
            mine += [entry for entry in self._foreign.values() if entry is not None]
            own = join_entries(mine) if mine else None
            self._foreign = {}
        self._changed = {}
        self.comebacks.turn += 1
        if len(payload) <= _RECENT_BYTES:
            self._recent[payload] = None
            if len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
        return payload, own

    def everything(self) -> bytes | None:
        """Return one awareness update with all states, or None while there are none."""
        return join_entries(self._states.values()) if self._states else None

    def everything_since(self, turn: int) -> bytes | None:
        """Return what ``everything`` does, and the removals since a turn began, which somebody was not told of.

        Those of the turn before too: it may have been about to be told when ``turn`` was counted.
        """
        removed = [Entry(client, left.clock, NULL) for client, left in self.departed.since(turn - 2)]
        if not removed:
            return self.everything()
        return join_entries([*self._states.values(), *[encode_entry(*entry) for entry in removed]])

    def changes_since(self, turn: int) -> bytes | None:
        """Return one awareness update for somebody who was told all before a turn began; None if that is all there is.

        It has the newest state of each client that has changed, and the removals that are remembered. It may have
        what the turn that goes on has brought, which is told once more when that turn ends.
        """
        announced = self.comebacks.announced
        entries = [state for client, state in self._states.items() if announced[client] >= turn]
        entries += [encode_entry(client, left.clock, NULL) for client, left in self.departed.since(turn - 1)]
        return join_entries(entries) if entries else None

    def own(self) -> bytes | None:
        """Return one awareness update with the states of this node's participants, None while there are none."""
        mine = [self._states[client] for client, owner in self._owners.items() if not is_of_node(owner)]
        return join_entries(mine) if mine else None

    # Agents

    def show_agent(self, agent: Agent, state: bytes, at: float, known: int = 0) -> None:
        """Show a state for an agent, in the place of what it has shown before; one of another node ends there by it.

        Args:
            agent: of this node.
            state: JSON text in UTF-8.
            at: the time in Unix seconds.
            known: a clock that other nodes know of it; 0 for none.

        Raises:
            DecodeError: the state is malformed.
            LimitExceeded: it is too large; nothing has changed.
        """
        client = agent.client
        clock = next_clock(max(known, self.clock_of(client)), at)
        entry = Bounds(agent, self).check(Entry(client, clock, state))
        self._foreign.pop(client, None)
        self._set(agent, entry)
        agent.state = entry.state

    def renew_agent(self, agent: Agent, at: float) -> None:
        """Show what an agent shows once more, with the next clock: clients take it for gone otherwise."""
        client = agent.client
        self._foreign.pop(client, None)
        self._set(agent, Entry(client, next_clock(self._clocks[client], at), agent.state))

    # Visitors of this node, and of others

    def may_be_elsewhere(self, client: int) -> bool:
        """Tell whether another node shows a client ID, so it is that node which knows whose it is."""
        owner = self._owners.get(client)
        return owner is not None and is_of_node(owner)

    def is_known_to_be(self, client: int, person: Person) -> bool:
        """Tell whether another node shows a client ID, and has said that it is this person's, who has no socket."""
        known = self._people.get(client)
        return known is not None and are_same(known, person)

    def visit(self, visitor: Visitor, entry: Entry, *, moved: bool = False) -> Taken:
        """Take what a visitor posts for its client ID; ``moved``: it was found to be its, whichever node shows it.

        An entry that is not newer than what is known says nothing, and is not refused. Of one that cannot be shown what
        was shown before under the ID is removed.
        """
        return self._take(visitor, [entry], None, None, given=moved and self.may_be_elsewhere(entry.client))

    def note_end(self, entry: Entry, person: Person) -> bool:
        """Note the end of a visitor's client that nobody is known to show; tell whether that is news.

        Its request has overtaken what its node is about to tell: a state with a smaller clock is none by then.
        """
        client = entry.client
        left = self.departed.get(client)
        known = 0 if left is None else left.clock
        if client in self._states or client >= FIRST_ID or entry.clock <= known or is_far_ahead(known, entry):
            return False
        if left is not None:
            if left.user != person.author:
                return False
            self.departed.remove(client)
        self.departed.add(client, entry.clock, person.author, self.comebacks.turn - 1)
        return True

    def take_told(self) -> Mapping[int, Somebody]:
        """Return whose the visitors of this node are that have changed states since the last call; for ``flush``."""
        if not self._told:
            return _NOBODY
        told, self._told = self._told, {}
        return told

    def list_visitors(self) -> tuple[bytes | None, Mapping[int, Somebody]]:
        """Return one awareness update with the states of this node's visitors, and whose they are; None for none."""
        people = {
            client: Somebody(owner.author, owner.address)
            for client, owner in self._owners.items()
            if isinstance(owner, Visitor)
        }
        return join_entries([self._states[client] for client in people]) if people else None, people

    def may_give(self, claim: DistantClaim) -> tuple[bool, Session | None]:
        """Tell whether a visitor of another node may have an ID that is shown here, and who is to be probed if not.

        The ID of a visitor goes with it. That of a session is removed for its user.
        """
        owner = self._owners.get(claim.client)
        if isinstance(owner, Visitor):
            return owner.is_one_with(claim), None
        if not isinstance(owner, Session):
            return False, None
        if owner.author is None or owner.author != claim.author:
            return False, owner
        self._give_up(claim.client, owner)
        return True, None

    def clock_of(self, client: int) -> int:
        """Return the last clock that is known of a client ID, 0 if none is."""
        left = self.departed.get(client)
        return self._clocks.get(client, 0 if left is None else left.clock)

    def states_of(self, owner: Owner) -> list[Entry]:
        """Give what an owner shows."""
        shown = [self._states[client] for client in owner.awareness or ()]
        return decode_awareness(join_entries(shown)) if shown else []

    def forget(self) -> None:
        """Forget the IDs of clients that have left long ago; call it about every minute.

        A clock is kept that long because other clients may still send the old state on. Without it there is at worst a
        ghost that is renewed by nobody and goes with the connection that brought it.
        """
        self.departed.pass_minute()
        self._recent = {}
        self._fresh = max(0, self._fresh - 1)


def _brought(owner: Owner, entries: Sequence[Entry]) -> Entry | None:
    """Return the entry that a session's client has brought along: the first one of its first message."""
    return entries[0] if entries and may_bring(owner) else None


def _announce(owner: Owner, brought: Entry) -> None:
    if isinstance(owner, Session) and brought.state != NULL:
        owner.note_announced(brought.client)


def _anothers(reason: str) -> AnothersClient:
    return AnothersClient(reason, public=reason)


def _limit(reason: str) -> LimitExceeded:
    return LimitExceeded(reason, public=reason)
