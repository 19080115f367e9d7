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
from collab.limits.memory import Memory
from collab.limits.questions import Questions, WrongTokens, wrong_tokens_of_address
from collab.net import Peer
from collab.telemetry import shown_user

# A bucket of a rate holds what may come at once: a reconnect, a paste, a page of many documents.
_BURST_SECONDS = 10.0
_BURST_SECONDS_OF_BYTES = 4.0

# Links for guests that one user makes, and at once: people press a button for each. Each is a line of the log.
_SHARES_PER_MINUTE = 20

# Seconds ahead for which a new document may be given its turn; who comes later asks again. A user who opens so many
# at once makes nobody else wait, and forgets them sooner.
_LONGEST_TURN = 600.0

# Seconds by which a timer may be early.
_EARLY = 0.01

# Requests of one address at a time whose bodies are waited for. A page makes a few, and a body is small: it comes with
# its request or soon after it.
MAX_BODIES = 16

_TOO_MANY_NEW = "too many new documents, come back later"

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

    def consume(self, now: float, count: float = 1.0) -> float:
        """Consume ``count`` tokens, on credit if need be; return the seconds until the debt is paid, 0 without one."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate) - count
        self._filled_at = now
        return 0.0 if self._tokens >= 0 else -self._tokens / self._rate

    def try_consume(self, now: float) -> bool:
        """Consume one token if there is one; tell whether there was."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def book(self, now: float, longest: float) -> float | None:
        """Consume the next token there will be that nobody has booked; return the seconds until it is there.

        None if it is not there within ``longest`` seconds; then nothing is consumed.
        """
        pause = self.consume(now)
        if pause > longest:
            self.give_back()
            return None
        return pause

    def give_back(self) -> None:
        """Put back one token that was consumed for nothing."""
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
        exempt_local: clients on this machine have none of these bounds but the total, because there is no
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
    exempt_local: bool = False


@dataclass(slots=True)
class _Account:
    """What one address or one user has and has used up."""

    connections: int = 0
    seen: float = 0.0
    arrivals: TokenBucket | None = None
    requests: TokenBucket | None = None
    documents: TokenBucket | None = None
    shares: TokenBucket | None = None
    stateless: TokenBucket | None = None
    wrong: WrongTokens | None = None
    bodies: int = 0

    @property
    def busy(self) -> bool:
        """Whether something is counted that ends, so that this cannot be forgotten."""
        return self.connections > 0 or self.bodies > 0


@dataclass(slots=True)
class Ticket:
    """The place that one socket takes: what is given back when it ends.

    Attributes:
        questions: what it asks for access; None before it has.
        let_in: whether it has shown a token that was good for some document.
    """

    peer: Peer
    account: _Account | None
    users: dict[str, _Account] | None = None
    questions: Questions | None = None
    let_in: bool = False


class Turn:
    """The place of one session among those who make new documents, which is kept for it while it waits.

    Attributes:
        at: when it may make its document, in the loop's seconds; None while it has asked for no place.
    """

    __slots__ = ("_bucket", "at")

    def __init__(self) -> None:
        self.at: float | None = None
        self._bucket: TokenBucket | None = None

    def keep(self, bucket: TokenBucket, at: float) -> None:
        """Note the place that was booked."""
        self._bucket, self.at = bucket, at

    def used(self) -> None:
        """Note that the document is being made: the place is nobody else's any more."""
        self._bucket = None

    def give_back(self) -> None:
        """Give up the place, unless it was used."""
        if self._bucket is not None:
            self._bucket.give_back()
            self._bucket = None


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

    def exempts(self, peer: Peer) -> bool:
        """Tell whether a client is exempt from every bound but the total."""
        return self.bounds.exempt_local and peer.local

    # Connections

    def add_connection(self, peer: Peer, now: float, *, arrives: bool = True) -> Ticket:
        """Count a socket and give it its place; ``arrives`` False if it was counted among the requests already.

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
            if bounds.new_connections and arrives:
                if account.arrivals is None:
                    account.arrivals = _bucket(bounds.new_connections, now)
                if not account.arrivals.try_consume(now):
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

    def remove_connection(self, ticket: Ticket, now: float) -> None:
        """Take back the place of a socket that has ended."""
        self.connections -= 1
        for account in (ticket.account, *(ticket.users or {}).values()):
            if account is not None:
                account.connections -= 1
                account.seen = now
        ticket.account = ticket.users = None

    def add_user(self, ticket: Ticket, user: str, now: float) -> None:
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
                f"{account.connections} connections of the user {shown_user(user)}",
                public="too many connections with your sign-in, come back later",
            )
        account.connections += 1
        ticket.users[user] = account

    def allow_request(self, peer: Peer, now: float) -> bool:
        """Count an HTTP request; False if its address has made too many."""
        if not peer.counted or not self.bounds.requests:
            return True
        account = self._account(self._addresses, peer.key, now)
        if account.requests is None:
            account.requests = _bucket(self.bounds.requests, now)
        return account.requests.try_consume(now)

    def request_pause(self, peer: Peer, now: float, longest: float) -> float | None:
        """Count an HTTP request that may be answered later; return after how many seconds.

        None, and it is not counted, if that is later than ``longest``.
        """
        if not peer.counted or not self.bounds.requests:
            return 0.0
        account = self._account(self._addresses, peer.key, now)
        if account.requests is None:
            account.requests = _bucket(self.bounds.requests, now)
        return account.requests.book(now, longest)

    def add_body(self, peer: Peer, now: float) -> bool:
        """Count a request whose body is waited for, until ``remove_body``; False if its address has too many."""
        if not peer.counted:
            return True
        account = self._account(self._addresses, peer.key, now)
        if account.bodies >= MAX_BODIES:
            return False
        account.bodies += 1
        return True

    def remove_body(self, peer: Peer, now: float) -> None:
        """Forget a body that has come, or will not come."""
        if peer.counted:
            self._account(self._addresses, peer.key, now).bodies -= 1

    # Tokens

    def count_wrong(self, peer: Peer, now: float) -> float:
        """Count a wrong token; return the seconds that its sender is to wait for the refusal.

        An address that many may share is counted too: those whose tokens are good do not pay for it.
        """
        account = self._account(self._addresses, peer.key, now)
        if account.wrong is None:
            account.wrong = wrong_tokens_of_address(now)
        return account.wrong.count(now)

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

    def check_join(
        self, ticket: Ticket, user: str | None, members: int, new: bool, now: float, turn: Turn | None = None
    ) -> None:
        """Check that a document which ``members`` have open may be joined; ``new``: it is thereby created.

        Whoever comes with a ``turn`` waits: it gets a place among the new documents, for which it comes again.

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
            self._create(ticket.peer, user, now, turn)
        elif turn is not None:
            turn.give_back()  # somebody else has made it meanwhile

    def charge_new(self, peer: Peer, user: str | None, now: float) -> None:
        """Count one new document that cannot be refused any more, on credit if need be."""
        counted = self._documents_of(peer, user, now)
        if counted is not None:
            counted[0].consume(now)

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

    def _create(self, peer: Peer, user: str | None, now: float, turn: Turn | None = None) -> TokenBucket | None:
        """Count one new document; return where, None if it is not counted."""
        if turn is not None and turn.at is not None:
            if now < turn.at - _EARLY:
                raise DocumentBusy("its turn has not come", public=_TOO_MANY_NEW, wait=turn.at - now)
            return None
        counted = self._documents_of(peer, user, now)
        if counted is None:
            return None
        bucket, whose = counted
        if turn is not None:
            wait = bucket.book(now, _LONGEST_TURN)
            if wait is not None:
                turn.keep(bucket, now + wait)
            if wait == 0.0:
                return bucket
        elif bucket.try_consume(now):
            return bucket
        else:
            wait = None
        reason = f"more than {self.bounds.new_documents:g} new documents a minute {whose}"
        raise DocumentBusy(reason, public=_TOO_MANY_NEW, wait=wait)

    def _documents_of(self, peer: Peer, user: str | None, now: float) -> tuple[TokenBucket, str] | None:
        """Give what counts the new documents of a client, and whose it is for the log; None if they are not counted."""
        rate = self.bounds.new_documents
        if not rate or self.exempts(peer):
            return None
        if user is not None:
            account, whose = self._account(self._users, user, now), f"of the user {shown_user(user)}"
        elif peer.counted:
            account, whose = self._account(self._addresses, peer.key, now), f"from {peer.key}"
        else:
            return None
        if account.documents is None:
            account.documents = TokenBucket(rate / 60, max(1.0, rate), now)
        return account.documents, whose

    def allow_share(self, user: str, now: float) -> bool:
        """Count a link for guests; False if its user has made too many."""
        account = self._account(self._users, user, now)
        if account.shares is None:
            account.shares = TokenBucket(_SHARES_PER_MINUTE / 60, _SHARES_PER_MINUTE, now)
        return account.shares.try_consume(now)

    def allow_stateless(self, peer: Peer, user: str | None, rate: float, now: float) -> bool:
        """Count a stateless message that comes over HTTP, ``rate`` a second and at once; False if there were too many.

        They are counted for a user, or for an address where nobody is signed in.
        """
        if user is None and not peer.counted:
            return True
        account = (
            self._account(self._addresses, peer.key, now) if user is None else self._account(self._users, user, now)
        )
        if account.stateless is None:
            account.stateless = TokenBucket(rate, max(1.0, rate), now)
        return account.stateless.try_consume(now)

    # Who has not been let in yet

    def add_pending(self, key: Hashable, cut: Callable[[], None], now: float) -> bool:
        """Note a connection that has still to show what it is for; until `remove_pending` it may be ``cut``.

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

    def remove_pending(self, key: Hashable) -> None:
        """Note that a connection was let in, or has ended."""
        self._pending.pop(key, None)

    @property
    def pending(self) -> int:
        """How many have not been let in."""
        return len(self._pending)

    # What is left of those who have gone

    def _account(self, accounts: dict[str, _Account], key: str, now: float) -> _Account:
        account = accounts.get(key)
        if account is None:
            if len(accounts) >= _MAX_ACCOUNTS:
                for old in [old for old in islice(accounts, _LOOKED_AT) if not accounts[old].busy]:
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
            gone = [key for key, held in accounts.items() if not held.busy and now - held.seen > _FORGET]
            for key in gone:
                del accounts[key]


def _bucket(rate: float, now: float) -> TokenBucket:
    return TokenBucket(rate, max(1.0, rate * _BURST_SECONDS), now)


class Patience:
    """How long a client may be held back without a pause: one rule for every rate and every wire protocol.

    Args:
        seconds: so long; 0 for ever.
    """

    __slots__ = ("_seconds", "_since")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def free(self) -> None:
        """Note that the client is not held back now."""
        self._since = None

    def held(self, now: float, what: str) -> None:
        """Note that the client is held back for too many of ``what``.

        Raises:
            Overloaded: for too long, so it sends far too much.
        """
        if self._since is None:
            self._since = now
        elif self._seconds and now - self._since > self._seconds:
            raise Overloaded(
                f"a flood of {what} for {now - self._since:.0f} s", public=f"you send too many {what}, come back later"
            )


class Pace:
    """The rate of one kind of message of one connection, each of which is counted as it comes.

    Args:
        what: the kind, for what the client is told.
        rate: messages a second, and at once.
        flood_seconds: how long the client may be held back without a pause; 0 for ever.
        now: the time in seconds.
    """

    __slots__ = ("_bucket", "_patience", "_what")

    def __init__(self, what: str, rate: float, flood_seconds: float, now: float) -> None:
        self._what = what
        self._bucket = TokenBucket(rate, rate, now)
        self._patience = Patience(flood_seconds)

    def count(self, now: float) -> float:
        """Count one message; return the seconds for which nothing more is to be read.

        Raises:
            Overloaded: the client has been held back for too long without a pause.
        """
        pause = self._bucket.consume(now)
        if pause:
            self._patience.held(now, self._what)
        else:
            self._patience.free()
        return pause


class Meter:
    """What one connection sends; asked every so many messages, so that a message costs it nothing."""

    __slots__ = ("_awareness", "_bytes", "_messages", "_patience")

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._messages = _bucket(bounds.messages, now) if bounds.messages else None
        burst = max(1.0, bounds.bytes * _BURST_SECONDS_OF_BYTES)
        self._bytes = TokenBucket(bounds.bytes, burst, now) if bounds.bytes else None
        self._awareness = _bucket(bounds.awareness, now) if bounds.awareness else None
        self._patience = Patience(bounds.flood_seconds)

    def slow(self, now: float, nbytes: int, messages: int = 0) -> float:
        """Count what is no flood, however long it takes; return the seconds for which nothing more is to be read.

        That are bytes of a message that is not whole, which a client cannot send in parts, and what comes on a socket
        that is being closed.
        """
        pause = 0.0 if self._bytes is None else self._bytes.consume(now, nbytes)
        if messages and self._messages is not None:
            pause = max(pause, self._messages.consume(now, messages))
        return min(pause, _LONGEST_PAUSE)

    def count(self, now: float, messages: int, nbytes: int, awareness: int) -> float:
        """Count what has come since the last time; return the seconds for which nothing more is to be read.

        Raises:
            Overloaded: it has been held back for too long without a pause, so it sends far too much.
        """
        pause, what = 0.0, ""
        if self._messages is not None:
            pause, what = self._messages.consume(now, messages), "messages"
        if self._bytes is not None and (paid := self._bytes.consume(now, nbytes)) > pause:
            pause, what = paid, "bytes"
        if self._awareness is not None and awareness and (paid := self._awareness.consume(now, awareness)) > pause:
            pause, what = paid, "awareness messages"
        if not pause:
            self._patience.free()
            return 0.0
        self._patience.held(now, what)
        return min(pause, _LONGEST_PAUSE)
