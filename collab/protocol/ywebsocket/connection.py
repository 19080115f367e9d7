"""One socket of the y-websocket protocol: frames in, events out.

Strategy: the path names the document, so there is one channel, and its document is opened before the first frame is
read: a socket is either refused by a close code or has one session for the whole of its life. Whatever ends the
session closes the socket; the code says whether its client may come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from collab.errors import (
    AccessExpired,
    AccessNotYet,
    AwarenessError,
    CollabError,
    DecodeError,
    LimitExceeded,
    MessageTooLarge,
)
from collab.protocol import events
from collab.protocol.awareness import UNREADABLE
from collab.protocol.events import (
    AnyChannel,
    Authenticate,
    Close,
    Deliver,
    Ignored,
    Join,
    Leave,
    Note,
    Open,
    RefuseUnread,
)
from collab.protocol.messages import CloseCode
from collab.protocol.names import decode_document_name
from collab.protocol.session import Access, Event, Session, State
from collab.protocol.ywebsocket import codec


class Connection(events.WireProtocol[AnyChannel]):
    """The state of one socket.

    Args:
        channel: its one channel.

    Attributes:
        channel: its one channel.
        name: the document in the path, once it is found to be a name.
    """

    __slots__ = ("_live", "channel", "name")

    def __init__(self, channel: AnyChannel) -> None:
        self.channel = channel
        self.name: str | None = None
        self._live = False  # the session is on the document: kept here, because each message asks

    @property
    def channels_open(self) -> Iterable[AnyChannel]:
        """The one channel."""
        return (self.channel,)

    # Admission

    def open(self, raw_name: bytes, token: str) -> Sequence[events.Event[AnyChannel]]:
        """Begin with what stands in the address: the name in UTF-8, percent-decoded, and the token."""
        session = self.channel.session
        session.on(Event.PRESENTED)
        try:
            self.name = decode_document_name(raw_name)
        except CollabError as error:
            return self.denied(self.channel, session, error)
        return (Authenticate(self.channel, session, token, self.name),)

    def granted(
        self, channel: AnyChannel, session: Session, access: Access, author: str | None
    ) -> Sequence[events.Event[AnyChannel]]:
        """Go on with a session whose token is good; nothing if it is over."""
        if session.state is not State.AUTHENTICATING:
            return ()
        session.grant(access, author)
        return (Open(channel, session),)

    def opened(self, channel: AnyChannel, session: Session) -> Sequence[events.Event[AnyChannel]]:
        """Go on with a session whose document is open and may be joined."""
        if session.state is not State.JOINING:
            return ()
        self._live = True
        return (Join(channel, session),)

    def denied(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[events.Event[AnyChannel]]:
        """Go on after a step of the admission has failed: the code says whether the client may come back."""
        # Versions 3.0 and 4.0 come back at once whatever the code, so the same refusal is told more and more slowly.
        in_vain = not error.retryable or isinstance(error, (AccessExpired, AccessNotYet))
        return (Close(codec.close_code(error), error, refused=in_vain),)

    # What is live

    def receive(self, frame: bytes) -> Sequence[events.Event[AnyChannel]]:
        """Take one binary frame."""
        if not self._live:
            return ()
        try:
            message = codec.decode(frame)
        except AwarenessError:
            return (Deliver(self.channel, UNREADABLE, len(frame)),)
        except DecodeError as error:
            return (_close(error),)
        return (Ignored(self.channel),) if message is None else (Deliver(self.channel, message, len(frame)),)

    def receive_live(self, frame: bytes) -> Deliver[AnyChannel] | None:
        """Take a message of a session that has joined; None leaves any other frame to ``receive``."""
        if not self._live:
            return None
        try:
            message = codec.decode(frame)
        except DecodeError:
            return None
        return None if message is None else Deliver(self.channel, message, len(frame))

    def may_send(self, head: bytes) -> bool | None:
        """Let edits of a client that may write come, whatever their size."""
        if self.channel.session.state in (State.AUTHENTICATING, State.JOINING):
            return None
        return self._live and self.channel.session.access is not Access.READ and codec.is_edit(head)

    def unread(self, head: bytes, size: int) -> Sequence[events.Event[AnyChannel]]:
        """Refuse a message that was not read: for good, if its client may write; coming back would bring it again."""
        if not self._live:
            return ()
        if codec.is_awareness(head):
            return (Deliver(self.channel, UNREADABLE, size),)
        if not codec.is_edit(head):
            text = f"message of {size} bytes that is no edit"
            return (_close(LimitExceeded(text, public=MessageTooLarge.public)),)
        if self.channel.session.access is Access.READ:
            return (RefuseUnread(self.channel, codec.is_step2(head)),)
        return self.failed(self.channel, self.channel.session, MessageTooLarge(f"message of {size} bytes or more"))

    def failed(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[events.Event[AnyChannel]]:
        """Go on after the room has refused a message that was delivered: the session is over."""
        # Versions 3.0 and 4.0 come back with all of what was too large, so they are told more and more slowly.
        return (Close(codec.close_code(error), error, refused=isinstance(error, LimitExceeded) and bool(error.option)),)

    # Ends

    def ended(self, channel: AnyChannel, session: Session, error: CollabError) -> Sequence[events.Event[AnyChannel]]:
        """Go on after the room has ended the session."""
        self._live = False
        return (Close(codec.close_code(error)),)

    def expiring(self, channel: AnyChannel) -> Sequence[events.Event[AnyChannel]]:
        """Do nothing: the client cannot be asked for a fresh token."""
        return ()

    def expired(self, channel: AnyChannel) -> Sequence[events.Event[AnyChannel]]:
        """End what was granted: with another token the client may come back, with the same it is refused for good."""
        error = AccessExpired("the token has expired")
        return (_close(error),)

    def renewed(self, channel: AnyChannel, session: Session, access: Access) -> Sequence[events.Event[AnyChannel]]:
        """Go on after the token was looked at again: the client is told of a scope only when it tries to edit."""
        if session is channel.session and channel.joined:
            session.access = access
        return ()

    def renewal_denied(
        self, channel: AnyChannel, session: Session, error: CollabError
    ) -> Sequence[events.Event[AnyChannel]]:
        """Go on after the token was refused when it was looked at again; what cannot be decided leaves all as it is."""
        if session is not channel.session or not channel.joined:
            return ()
        return (Note(channel, error),) if error.retryable else (_close(error),)

    def close_code(self, error: BaseException) -> CloseCode:
        """Return how the socket is closed because of ``error``."""
        return codec.close_code(error)

    def keepalive(self) -> bytes | None:
        """Return the empty awareness update, which feeds the client's watchdog."""
        return codec.KEEPALIVE

    def close(self) -> Sequence[events.Event[AnyChannel]]:
        """Leave the document: the socket has ended."""
        self._live = False
        channel = self.channel
        if not channel.joined and channel.session.state is not State.CLOSED:
            channel.session.on(Event.ENDED)  # the room sees to one that has joined it
        return (Leave(channel, channel.session),)


def _close(error: CollabError) -> Close:
    return Close(codec.close_code(error), error)
