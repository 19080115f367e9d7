"""Who may do what with a document: the question, the answer, and the port that stands between them.

Strategy: a transport asks once for each session, when a client presents its token, and again when the
client sends a new one. The answer is a value; nothing here knows sockets or documents' contents.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from collab.net import Peer
from collab.protocol.session import Access

# Seconds after the end of a token in which it is answered by "come back with another": the client's application may be
# fetching one. Then it is refused for good, so that nobody comes back for ever in silence.
LATELY = 60.0


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """One client asks for one document.

    Attributes:
        token: what the client has shown; empty if nothing.
        document_name: what it wants to open.
        peer: its network address, for rules and logs.
        connection: stands for its socket, whose questions share a turn; None for a request without one.
        client: who stands at the other end, with those of its cookies that the authenticator reads (`ReadsCookies`);
            None where nobody has said.
    """

    token: str
    document_name: str
    peer: str
    connection: Hashable = field(default=None, repr=False, compare=False)
    client: Peer | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Leave the token out: a request ends up in error messages and tracebacks."""
        return f"AccessRequest(document_name={self.document_name!r}, peer={self.peer!r})"


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client may do with the document it has asked for.

    Attributes:
        access: read, write or admin; everything but read may write.
        user: who it is (the token's ``sub``), as the journal records it; None for nobody in particular.
        name: what the others are shown of it; None if nothing was said.
        expires_at: when the access ends, in seconds since 1970 (UTC); None for never. The one who
            has asked ends it: nothing here calls back.
        check_at: when a session that is still there is to be asked about again, with what it has shown, in seconds
            since 1970 (UTC); None for not before an operator says so. What cannot be decided then leaves it as it is.
        invited_by: of a guest, the user who has made the link; None if that is not known.
        tenant: whose a document is that it creates, where claims say so (``--tenants claim:NAME``); None if nothing was
            said.
    """

    access: Access
    user: str | None = None
    name: str | None = None
    expires_at: float | None = None
    check_at: float | None = None
    invited_by: str | None = None
    tenant: str | None = None


class Authenticator(Protocol):
    """Decide on requests.

    Promise: an answer is about this request alone, and no state of a session hangs on it. It may take
    its time (the caller sets the limit and keeps serving others meanwhile) and it may be asked the
    same again.
    """

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what the client may do.

        Raises:
            AccessDenied: it may not open the document; its ``public`` text is what the client is told.
            AccessExpired: its token ran out less than `LATELY` seconds ago.
            AccessNotYet: its token is not valid yet.
            AccessUnavailable: this cannot be decided now; the client is asked to come back.
        """
        ...


@runtime_checkable
class TokenChecker(Protocol):
    """An authenticator that can tell of a token whether it is any good, without a document."""

    async def check_token(self, token: str) -> None:
        """Check a token before anything else of its bearer is read; this grants nothing.

        Raises:
            AccessDenied, AccessExpired, AccessNotYet, AccessUnavailable: as for a question about any document.
        """
        ...


@runtime_checkable
class ReadsCookies(Protocol):
    """An authenticator that may know a client by the cookies of its browser.

    A browser sends them with whatever a page asks for, the page of somebody else too. So they count for the pages alone
    that the authenticator trusts: it looks at ``AccessRequest.client.browser``.
    """

    @property
    def cookies(self) -> AbstractSet[str]:
        """The names of the cookies that it reads; the others are not kept."""
        ...

    def trusts(self, origin: str, client: Peer) -> bool:
        """Tell whether pages of an origin (in lower case, ``https://app.example``) may talk to this server.

        It is asked beside the origins of the settings.
        """
        ...


@runtime_checkable
class ReadsScope(Protocol):
    """An authenticator that knows a client by all that its connection to an ASGI server has brought.

    The scope (headers, cookies, what middlewares of the host have put in) is ``AccessRequest.client.scope``. It is kept
    while the connection lives.
    """

    @property
    def reads_scope(self) -> bool:
        """True."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """An authenticator that keeps answers for some time, and can forget them."""

    def forget(self) -> None:
        """Forget all answers: what is asked from now on is decided anew, and nothing that is under way counts."""
        ...


class ManagedAuthenticator(Authenticator, Protocol):
    """An authenticator that may hold connections and work of its own; what ``make_authenticator`` gives.

    Promise: between ``start`` and ``close`` it answers. ``start`` does not wait for others and does
    not fail because one of them is down. After ``close`` no task and no socket of it is left; those
    who still wait for an answer get ``AccessUnavailable``.
    """

    async def start(self) -> None:
        """Open what is needed, in the loop that will ask."""
        ...

    async def close(self) -> None:
        """Let go of everything; harmless without ``start`` and when called again."""
        ...


EVERYTHING: Final = Grant(Access.ADMIN)
"""What everybody may do on a server that asks nobody who he is."""


class OpenAccess:
    """Let everybody read and write everything, whatever the token: for a server on loopback only."""

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Grant everything to nobody in particular."""
        return EVERYTHING
