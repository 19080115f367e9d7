"""Entering a document: ask for access, open it, check the limits, join it, watch for the end of the access.

Strategy: every way in uses this one piece: sockets of both protocols, the HTTP API, streams and hooks. The steps stand
apart, because a protocol has something to say between them and may have to wait there; ``check`` and ``join`` go
together without waiting, for an empty room may leave memory at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import replace

from collab.auth.access import (
    EVERYTHING,
    LATELY,
    AccessRequest,
    Authenticator,
    Forgetful,
    Grant,
    OpenAccess,
    TokenChecker,
)
from collab.auth.places import Places
from collab.errors import AccessDenied, AccessExpired, Forbidden, QuotaExceeded, Unauthenticated
from collab.hub.agents import Caller
from collab.hub.guests import guest_of
from collab.hub.hub import Hub
from collab.hub.member import Member
from collab.hub.room import LiveRoom
from collab.limits.limits import Limits, Ticket, Turn
from collab.limits.questions import MAX_LATE, Questions
from collab.net import Peer
from collab.protocol.awareness import User
from collab.protocol.session import Access
from collab.storage.records import StoredDocument

# Grants of which it is known when they end; past it the oldest is forgotten, and its token is refused a little sooner.
_REMEMBERED = 10_000

# Questions to hooks at a time whether a document may be created. One address gets half of what is free.
MAX_CREATIONS = 100


class Admission:
    """The way into documents.

    Args:
        hub: the rooms.
        authenticator: decides who may do what.
        limits: how much each may have.
        stamp_users: whether awareness states say who their user is, wherever that is known.

    Attributes:
        everybodys: what everybody is granted, where nobody needs to be asked; else None.
        checks: how often operators have said that access is to be asked about again: what was answered before the last
            time may not be so any more.
    """

    def __init__(self, hub: Hub, authenticator: Authenticator, limits: Limits, *, stamp_users: bool = False) -> None:
        self._hub = hub
        self._authenticator = authenticator
        self._limits = limits
        self._stamp_users = stamp_users
        self.everybodys = EVERYTHING if isinstance(authenticator, OpenAccess) else None
        self._ends: dict[int, float] = {}  # when what was granted ends, by the hash of what was shown for it
        self._late = 0  # refusals that wait to be said
        self._creations = Places(MAX_CREATIONS)
        self.checks = 0
        hub.control.on_check = self._forget

    @property
    def open_to_all(self) -> bool:
        """Whether everybody may do everything, so that nobody needs to be asked."""
        return self.everybodys is not None

    async def ask(self, peer: Peer, token: str, name: str, ticket: Ticket | None = None) -> Grant:
        """Ask what a client may do with a document; ``ticket`` is the place of its socket, if it has one.

        A few questions of one socket are asked at a time. A wrong token costs its sender waiting time
        (``collab.limits.questions``).

        Raises:
            AccessDenied: it may not open it.
            AccessExpired: it could a moment ago, with this token.
            AccessNotYet: it may in a while, with this token; or an operator keeps its user out (``KeptOut``).
            AccessUnavailable: this cannot be decided now.
        """
        if self.everybodys is not None:
            return self.everybodys
        if ticket is None:
            return await self._decide(peer, token, name, None)
        questions = ticket.questions
        if questions is None:
            questions = ticket.questions = Questions()
        await questions.begin()
        try:
            return await self._decide(peer, token, name, questions)
        finally:
            questions.end()

    async def _decide(self, peer: Peer, token: str, name: str, questions: Questions | None) -> Grant:
        try:
            grant = await self._authenticator.authenticate(_request(peer, token, name, questions))
        except asyncio.CancelledError:
            # Its sender does not wait for the answer: else whoever hangs up in time would pay nothing.
            self._count_wrong(peer, token, questions)
            raise
        except AccessDenied as error:
            ended = self._ends.get(_shown(peer, token, name)) if isinstance(error, Unauthenticated) else None
            if ended is not None and ended <= self._hub.clock() < ended + LATELY:
                # Its application is fetching another one, it may be, and has not been quick enough.
                raise AccessExpired(f"what this token allowed has run out: {error}") from None
            await self._pay(peer, token, questions)
            raise
        return self._noted(grant, peer, token, name)

    def _noted(self, grant: Grant, peer: Peer, token: str, name: str) -> Grant:
        """Note when a grant ends; raises ``KeptOut``."""
        if grant.expires_at is not None:
            self._remember(_shown(peer, token, name), grant.expires_at)
        self._hub.control.check(grant.user, name)
        return grant

    def _forget(self) -> None:
        self.checks += 1
        if isinstance(self._authenticator, Forgetful):
            self._authenticator.forget()

    async def ask_again(self, peer: Peer, token: str, name: str, ticket: Ticket) -> Grant:
        """Ask what a client may do that is in a document already; it has not asked itself, so a refusal costs nothing.

        Raises: as ``ask``.
        """
        grant = await self._authenticator.authenticate(_request(peer, token, name, ticket.questions))
        return self._noted(grant, peer, token, name)

    async def check_token(self, peer: Peer, token: str) -> None:
        """Check that a token is good, if this can be told without a document; this grants nothing.

        Raises:
            AccessDenied, AccessUnavailable.
        """
        if not token and peer.browser is not None:
            return  # its cookies say who it is, and are looked at for a document
        if isinstance(self._authenticator, TokenChecker):
            try:
                await self._authenticator.check_token(token)
            except AccessDenied:
                await self._pay(peer, token, None)
                raise

    async def _pay(self, peer: Peer, token: str, questions: Questions | None) -> None:
        """Let the sender of a wrong token wait for the refusal."""
        seconds = self._count_wrong(peer, token, questions)
        if seconds and self._late < MAX_LATE:
            self._late += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self._late -= 1

    def _remember(self, question: int, expires_at: float) -> None:
        self._ends.pop(question, None)
        self._ends[question] = expires_at
        if len(self._ends) > _REMEMBERED:
            del self._ends[next(iter(self._ends))]

    def _count_wrong(self, peer: Peer, token: str, questions: Questions | None) -> float:
        now = asyncio.get_running_loop().time()
        if questions is not None:
            questions.count_wrong(token, now)
        return self._limits.count_wrong(peer, now)

    async def require(self, peer: Peer, token: str, name: str, needed: Access) -> Grant:
        """Ask for at least the access ``needed``.

        Raises:
            AccessDenied, AccessUnavailable.
        """
        grant = await self.ask(peer, token, name)
        if needed is not Access.READ and grant.access is not Access.ADMIN and grant.access is not needed:
            raise Forbidden(f"{needed.value} access is needed", public=f"this needs {needed.value} access")
        return grant

    def count(self, ticket: Ticket, key: Hashable, grant: Grant) -> None:
        """Count a connection, waiting as ``key`` in the limits, for the user whose token it has shown.

        Raises:
            Overloaded: the user has too many connections.
        """
        if grant.user is not None:
            self._limits.add_user(ticket, grant.user, asyncio.get_running_loop().time())
        ticket.let_in = True
        self._limits.remove_pending(key)

    def find_open(self, name: str) -> LiveRoom | None:
        """Return the live room of a document that is open and may be joined at once, as most that are joined.

        None where something must be waited for, or where somebody may have to be asked: ``open_for`` does that.
        """
        if self._hub.tenants is not None or self._hub.hooks is not None:
            return None
        live = self._hub.find_open(name)
        return None if live is None or not live.room.document.is_settled else live

    async def open(self, name: str) -> LiveRoom:
        """Return the live room of a document, to be joined at once; see ``Hub.open``.

        Raises:
            DocumentBusy: it would have to be loaded, for which there is no memory now.
        """
        while True:
            self._limits.check_load(name in self._hub.rooms)
            live = await self._hub.open(name)
            await live.settle()
            # A room that nobody is in may have left memory meanwhile: who joined it would be alone there.
            if self._hub.rooms.get(name) is live or live.ended is not None:
                return live

    async def open_for(self, name: str, grant: Grant, peer: Peer, connection: Hashable = None) -> LiveRoom:
        """Return the live room of a document as ``open`` does, for a client that may have to be asked about first.

        Hooks decide whether a client that may write may create a document that is not there. ``connection`` stands for
        its socket: senders are asked about in turns (``auth.places``).

        Raises:
            Refused, HookUnavailable: a hook does not allow it, or none can say.
        """
        if self._hub.tenants is not None:
            await self._hub.tenants.prepare(name, grant.tenant)
        live = await self.open(name)
        if await self.ask_to_create(live, grant, peer, connection):
            return await self.open(name)
        return live

    async def ask_to_create(self, live: LiveRoom, grant: Grant, peer: Peer, connection: Hashable = None) -> bool:
        """Ask the hooks whether a client may create a document, if it is not there; tell whether that was asked.

        Raises:
            Refused, HookUnavailable.
        """
        hooks = self._hub.hooks
        if hooks is None or not hooks.decides_on_creation or grant.access is Access.READ or live.exists:
            return False
        place = await self._creations.take(peer.key, connection)
        try:
            with live.visited():  # else it may be read again for each answer
                await hooks.may_create(live.name, grant.user)
        finally:
            place.release()
        return True

    def check(self, live: LiveRoom, grant: Grant, ticket: Ticket, turn: Turn | None = None) -> None:
        """Check that a room can be joined with what was granted; ``join`` it at once.

        A document that does not exist can be joined as well: who may only read sees an empty one, and then what comes.
        It is new, and counted, for the first who may write.

        Raises:
            CollabError: the room has ended.
            AccessExpired: what was granted has run out while its client waited.
            KeptOut: an operator has begun to keep its user out.
            DocumentBusy: too many have it open, or the client has made too many; with a ``turn`` it may wait for that.
        """
        if live.ended is not None:
            raise live.ended
        if grant.expires_at is not None and grant.expires_at <= self._hub.clock():
            raise AccessExpired("the access ran out while its client waited")
        self._hub.control.check(grant.user, live.name)
        new = self._creates(live, grant)
        members, now = len(live.room.sessions) + len(live.readers), asyncio.get_running_loop().time()
        self._limits.check_join(ticket, grant.user, members, new, now, turn)

    def limit(self, live: LiveRoom, grant: Grant, member: Member | None = None) -> tuple[Grant, QuotaExceeded | None]:
        """Say what is left of a grant under the quotas of the document's tenant, and why it is less.

        ``member`` was there before; if it could write, it goes on a little longer.
        """
        tenants = self._hub.tenants
        if tenants is None or grant.access is Access.READ:
            return grant, None
        tenants.claim(live, grant)
        try:
            tenants.check(live, already=member is not None and member.access is not Access.READ)
        except QuotaExceeded as error:
            return replace(grant, access=Access.READ), error
        return grant, None

    async def admit_new(self, name: str, grant: Grant) -> None:
        """Check that a document may be created by a call.

        Raises:
            QuotaExceeded: its tenant has used up a quota.
        """
        tenants = self._hub.tenants
        if tenants is not None:
            await tenants.prepare(name, grant.tenant)
            tenants.check_new(name, grant.tenant)

    def created(self, grant: Grant, document: StoredDocument) -> None:
        """Note a document that a call has created for its tenant."""
        if self._hub.tenants is not None:
            self._hub.tenants.created(grant, document)

    def check_edit(self, live: LiveRoom, grant: Grant, *, recovers: bool = False) -> None:
        """Check that a room can be edited, by somebody who is not in it, with what was granted a moment ago.

        ``recovers``: an earlier state comes back by it, which no quota prevents.

        Raises:
            Forbidden: it can only be read.
            QuotaExceeded: the document's tenant has used up a quota.
            AccessExpired: what was granted has run out.
            KeptOut: an operator has begun to keep its user out.
        """
        if grant.access is Access.READ:
            raise Forbidden("read-only", public="this needs write access")
        if grant.expires_at is not None and grant.expires_at <= self._hub.clock():
            raise AccessExpired("the access ran out while an edit came")
        self._hub.control.check(grant.user, live.name)
        if self._hub.tenants is not None and not recovers:
            self._hub.tenants.claim(live, grant)
            self._hub.tenants.check(live)

    def count_new(self, live: LiveRoom, grant: Grant, peer: Peer) -> None:
        """Count a new document, if it is this edit of somebody who is not in it that creates it.

        Raises:
            DocumentBusy: there may be none now.
        """
        if self._creates(live, grant):
            with self._limits.creating(peer, grant.user, asyncio.get_running_loop().time()):
                pass

    def _creates(self, live: LiveRoom, grant: Grant) -> bool:
        """Tell whether it is with this client that a document may come to be."""
        if grant.access is Access.READ or live.exists:
            return False
        return all(session.access is Access.READ for session in live.room.sessions)

    def renew(self, live: LiveRoom, member: Member, grant: Grant, ticket: Ticket) -> None:
        """Note what another token of a member allows; it may now be the first who can make the document."""
        if member.access is Access.READ and self._creates(live, grant):
            self._limits.charge_new(ticket.peer, grant.user, asyncio.get_running_loop().time())
        live.persistence.meet(guest_of(grant))
        self.identify(member, grant)

    def join(self, live: LiveRoom, member: Member, grant: Grant) -> None:
        """Let a member join its room."""
        if grant.user is not None:
            live.persistence.meet(guest_of(grant))
        self.identify(member, grant)
        live.join(member)

    def identify(self, member: Member, grant: Grant) -> None:
        """Note who a client is, for the journal and for its awareness states; again with each token it shows."""
        if grant.user != member.author:
            member.identify(grant.user)
        member.granted = grant.access
        member.user = None if grant.user is None else self._user_of(grant)

    def _user_of(self, grant: Grant) -> User | None:
        if not self._stamp_users or grant.user is None:
            return None
        return User(grant.user, grant.name or grant.user)

    def caller(self, peer: Peer, token: str, name: str, grant: Grant) -> Caller:
        """Give what an agent on a document needs of the one who shows it.

        ``token`` is kept as long as the agent, to be asked about again; it came in a header, which has a bound.
        """

        async def recheck() -> Access:
            request = _request(peer, token, name, None)
            return self._noted(await self._authenticator.authenticate(request), peer, token, name).access

        left = None if grant.expires_at is None else max(0.0, grant.expires_at - self._hub.clock())
        return Caller(grant.user, self._user_of(grant), grant.access, left, recheck)

    def when_to_check(self, grant: Grant, then: Callable[[], None]) -> asyncio.TimerHandle | None:
        """Call ``then`` when access is to be asked about again; None if the grant says nothing of it."""
        if grant.check_at is None:
            return None
        return asyncio.get_running_loop().call_later(max(0.0, grant.check_at - self._hub.clock()), then)

    def when_expired(self, grant: Grant, then: Callable[[], None], lead: float = 0.0) -> asyncio.TimerHandle | None:
        """Call ``then`` when what was granted runs out, ``lead`` seconds (a third of its time at most) before.

        None for what never runs out; else cancel the handle when the session ends or shows another token.
        """
        if grant.expires_at is None:
            return None
        left = grant.expires_at - self._hub.clock()
        return asyncio.get_running_loop().call_later(max(0.0, left - min(lead, left / 3)), then)


def _request(peer: Peer, token: str, name: str, questions: Hashable) -> AccessRequest:
    return AccessRequest(token, name, peer.address, questions, peer)


def _shown(peer: Peer, token: str, name: str) -> int:
    """Return a hash of what was shown for a document: a token, or the cookies in its place."""
    if token:
        return hash((token, name))
    if peer.scope is not None:
        return hash((*(value for header, value in peer.scope["headers"] if header in _SHOWN), name))
    return hash((None if peer.browser is None else peer.browser.cookies, name))


# The headers of a connection that say who it is.
_SHOWN = frozenset({b"authorization", b"cookie"})
