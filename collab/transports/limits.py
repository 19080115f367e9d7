"""How much one client, one address, one user may have of what all share.

Strategy: every bound is a count or a token bucket that is asked with the loop's time, so nothing here
needs a task or a clock of its own. Counts are kept by what they bound (an address, a user) and forgotten
when nothing of it is left. A refusal is a ``CollabError`` whose public text names the bound; the wire
protocols say it to the client. 0 stands for "no bound" everywhere.

Nobody who keeps within the bounds pays for somebody who does not: when too many have not shown yet who
they are, those that have waited longest go, for who means it needs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from collab.errors import DocumentBusy, Overloaded
from collab.telemetry import shown_name
from collab.transports.memory import Memory
from collab.transports.peers import Peer

# A bucket of a rate holds what may come at once: a reconnect, a paste, a page of many documents.
_BURST_SECONDS = 10.0
_BURST_SECONDS_OF_BYTES = 4.0

# Links for guests that one user makes, and at once: people press a button for each. Each is a line of the log.
_SHARES_PER_MINUTE = 20

# A client that is held back is looked at again after so long, whatever it owes.
_LONGEST_PAUSE = 5.0

# Seconds for which nothing is forgotten of an address or user that has gone: longer than it takes any
# bucket to fill up again, so that going and coming back gives nobody a new one.
_FORGET = 75.0
_SWEEP = 5.0

# Addresses and users that are remembered at a time. Past it those go first that came first and have left,
# which may give somebody a new bucket and never denies anybody anything.
_MAX_ACCOUNTS = 100_000
_LOOKED_AT = 100


class TokenBucket:
    """``rate`` things a second in the long run, ``burst`` at once.

    Args:
        rate: tokens that come back each second; more than 0.
        burst: tokens that the bucket holds when it is full, which it is at first.
        now: the time in seconds.
    """

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_at = now

    def take(self, now: float, count: float = 1.0) -> float:
        """Take ``count`` tokens, on credit if need be; return the seconds until the debt is paid, 0 without one."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate) - count
        self._filled_at = now
        return 0.0 if self._tokens >= 0 else -self._tokens / self._rate

    def try_take(self, now: float) -> bool:
        """Take one token if there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def give_back(self) -> None:
        """Put back one token that was taken for nothing."""
        self._tokens = min(self._burst, self._tokens + 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the settings say; 0 for no bound.

    Attributes:
        connections, connections_per_address, connections_per_user, connections_per_document: sockets at a time.
        new_connections, requests: for one address, a second.
        new_documents: for one user, or one address where nobody is signed in, a minute.
        unauthenticated: connections at a time that were not let in to any document.
        messages, bytes, awareness: of one connection, a second.
        flood_seconds: how long a connection may be held back without a pause before it is closed.
        spare_local: clients on this machine have none of these bounds but the total, because there is no
            authentication and the server is for its own machine.
    """

    connections: int = 0
    connections_per_address: int = 0
    connections_per_user: int = 0
    connections_per_document: int = 0
    new_connections: float = 0.0
    requests: float = 0.0
    new_documents: float = 0.0
    unauthenticated: int = 0
    messages: float = 0.0
    bytes: float = 0.0
    awareness: float = 0.0
    flood_seconds: float = 60.0
    spare_local: bool = False


@dataclass(slots=True)
class _Account:
    """What one address or one user has and has used up."""

    connections: int = 0
    seen: float = 0.0
    arrivals: TokenBucket | None = None
    requests: TokenBucket | None = None
    documents: TokenBucket | None = None
    shares: TokenBucket | None = None


@dataclass(slots=True)
class Ticket:
    """The place that one socket takes: what is given back when it ends."""

    peer: Peer
    account: _Account | None
    users: dict[str, _Account] | None = None


class Limits:
    """The counts of this node."""

    def __init__(self, bounds: Bounds, memory: Memory | None = None) -> None:
        self.bounds = bounds
        self.memory = memory if memory is not None else Memory()
        self.connections = 0
        self._addresses: dict[str, _Account] = {}
        self._users: dict[str, _Account] = {}
        self._pending: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._swept = 0.0

    def spares(self, peer: Peer) -> bool:
        """Tell whether a client is left alone by every bound but the total."""
        return self.bounds.spare_local and peer.local

    # Connections

    def enter(self, peer: Peer, now: float) -> Ticket:
        """Give a socket its place.

        Raises:
            Overloaded: there is none.
        """
        bounds = self.bounds
        if self.memory.past_limit:
            raise Overloaded(
                f"{self.memory.used} bytes of memory in use", public="the server is short of memory, come back later"
            )
        if 0 < bounds.connections <= self.connections:
            raise Overloaded(
                f"{self.connections} connections in all", public="the server has too many connections, come back later"
            )
        account = None
        if peer.counted:
            account = self._account(self._addresses, peer.key, now)
            if bounds.new_connections:
                if account.arrivals is None:
                    account.arrivals = _bucket(bounds.new_connections, now)
                if not account.arrivals.try_take(now):
                    raise Overloaded(
                        f"more than {bounds.new_connections:g} new connections a second from {peer.key}",
                        public="too many new connections from your address, come back later",
                    )
            if 0 < bounds.connections_per_address <= account.connections:
                raise Overloaded(
                    f"{account.connections} connections from {peer.key}",
                    public="too many connections from your address, come back later",
                )
            account.connections += 1
        self.connections += 1
        return Ticket(peer, account)

    def leave(self, ticket: Ticket, now: float) -> None:
        """Take back the place of a socket that has ended."""
        self.connections -= 1
        for account in (ticket.account, *(ticket.users or {}).values()):
            if account is not None:
                account.connections -= 1
                account.seen = now
        ticket.account = ticket.users = None

    def identify(self, ticket: Ticket, user: str, now: float) -> None:
        """Count a socket for the user whose token it has shown.

        Raises:
            Overloaded: the user has too many.
        """
        if ticket.users is None:
            ticket.users = {}
        elif user in ticket.users:
            return
        account = self._account(self._users, user, now)
        if 0 < self.bounds.connections_per_user <= account.connections:
            raise Overloaded(
                f"{account.connections} connections of the user {shown_name(user)}",
                public="too many connections with your sign-in, come back later",
            )
        account.connections += 1
        ticket.users[user] = account

    def request(self, peer: Peer, now: float) -> bool:
        """Count an HTTP request; False if its address has made too many."""
        if not peer.counted or not self.bounds.requests:
            return True
        account = self._account(self._addresses, peer.key, now)
        if account.requests is None:
            account.requests = _bucket(self.bounds.requests, now)
        return account.requests.try_take(now)

    # Documents

    def check_load(self, open_already: bool) -> None:
        """Check that a document may be brought into memory.

        Raises:
            DocumentBusy: it may not, for now.
        """
        if not open_already and self.memory.past_mark:
            raise DocumentBusy(
                f"{self.memory.used} bytes of memory in use", public="the server is short of memory, come back later"
            )

    def check_join(self, ticket: Ticket, user: str | None, members: int, new: bool, now: float) -> None:
        """Check that a document which ``members`` have open may be joined; ``new``: it is thereby created.

        Raises:
            DocumentBusy: it may not, for now.
        """
        bounds = self.bounds
        if 0 < bounds.connections_per_document <= members:
            raise DocumentBusy(
                f"{members} connections on one document",
                public="the document is open too many times, come back later",
            )
        if new:
            self._create(ticket.peer, user, now)

    @contextmanager
    def creating(self, peer: Peer, user: str | None, now: float) -> Iterator[None]:
        """Count one new document, unless what is done meanwhile raises.

        Raises:
            DocumentBusy: there may be none now; in ``creation_pause`` seconds at most there may be one.
        """
        bucket = self._create(peer, user, now)
        try:
            yield
        except BaseException:
            if bucket is not None:
                bucket.give_back()
            raise

    @property
    def creation_pause(self) -> float:
        """Seconds in which one more new document is allowed."""
        return 60.0 / self.bounds.new_documents if self.bounds.new_documents else 0.0

    def _create(self, peer: Peer, user: str | None, now: float) -> TokenBucket | None:
        """Count one new document; return where, None if it is not counted."""
        rate = self.bounds.new_documents
        if not rate or self.spares(peer):
            return None
        if user is not None:
            account, whose = self._account(self._users, user, now), f"of the user {shown_name(user)}"
        elif peer.counted:
            account, whose = self._account(self._addresses, peer.key, now), f"from {peer.key}"
        else:
            return None
        if account.documents is None:
            account.documents = TokenBucket(rate / 60, max(1.0, rate), now)
        if not account.documents.try_take(now):
            raise DocumentBusy(
                f"more than {rate:g} new documents a minute {whose}",
                public="too many new documents, come back later",
            )
        return account.documents

    def share(self, user: str, now: float) -> bool:
        """Count a link for guests; False if its user has made too many."""
        account = self._account(self._users, user, now)
        if account.shares is None:
            account.shares = TokenBucket(_SHARES_PER_MINUTE / 60, _SHARES_PER_MINUTE, now)
        return account.shares.try_take(now)

    # Who has not been let in yet

    def wait(self, key: Hashable, cut: Callable[[], None], now: float) -> bool:
        """Note a connection that has still to show what it is for; ``settle`` it, or it may be ``cut``.

        Returns:
            False if another had to be cut to make room for it.
        """
        self._pending.pop(key, None)
        self._pending[key] = (now, cut)
        if not 0 < self.bounds.unauthenticated < len(self._pending):
            return True
        oldest = next(iter(self._pending))
        self._pending.pop(oldest)[1]()
        return False

    def settle(self, key: Hashable) -> None:
        """Forget a connection: it was let in, or it has ended."""
        self._pending.pop(key, None)

    @property
    def waiting(self) -> int:
        """How many have not been let in."""
        return len(self._pending)

    # What is left of those who have gone

    def _account(self, accounts: dict[str, _Account], key: str, now: float) -> _Account:
        account = accounts.get(key)
        if account is None:
            if len(accounts) >= _MAX_ACCOUNTS:
                for old in [old for old in islice(accounts, _LOOKED_AT) if not accounts[old].connections]:
                    del accounts[old]
            account = accounts[key] = _Account()
        account.seen = now
        return account

    def sweep(self, now: float) -> None:
        """Forget addresses and users that have nothing left; called every second or so."""
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        for accounts in (self._addresses, self._users):
            gone = [key for key, held in accounts.items() if not held.connections and now - held.seen > _FORGET]
            for key in gone:
                del accounts[key]


def _bucket(rate: float, now: float) -> TokenBucket:
    return TokenBucket(rate, max(1.0, rate * _BURST_SECONDS), now)


class Meter:
    """What one connection sends; asked every so many messages, so that a message costs it nothing."""

    __slots__ = ("_awareness", "_bytes", "_flood_seconds", "_held_since", "_messages")

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._messages = _bucket(bounds.messages, now) if bounds.messages else None
        burst = max(1.0, bounds.bytes * _BURST_SECONDS_OF_BYTES)
        self._bytes = TokenBucket(bounds.bytes, burst, now) if bounds.bytes else None
        self._awareness = _bucket(bounds.awareness, now) if bounds.awareness else None
        self._flood_seconds = bounds.flood_seconds
        self._held_since: float | None = None

    def settle(self, now: float, messages: int, nbytes: int, awareness: int) -> float:
        """Count what has come since the last time; return the seconds for which nothing more is to be read.

        Raises:
            Overloaded: it has been held back for too long without a pause, so it sends far too much.
        """
        pause, what = 0.0, ""
        if self._messages is not None:
            pause, what = self._messages.take(now, messages), "messages"
        if self._bytes is not None and (paid := self._bytes.take(now, nbytes)) > pause:
            pause, what = paid, "bytes"
        if self._awareness is not None and awareness and (paid := self._awareness.take(now, awareness)) > pause:
            pause, what = paid, "awareness messages"
        if not pause:
            self._held_since = None
            return 0.0
        if self._held_since is None:
            self._held_since = now
        elif self._flood_seconds and now - self._held_since > self._flood_seconds:
            raise Overloaded(
                f"a flood of {what} for {now - self._held_since:.0f} s",
                public=f"you send too many {what}, come back later",
            )
        return min(pause, _LONGEST_PAUSE)
