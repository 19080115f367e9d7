"""A socket that has ended: whatever still comes for it means nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from collab.errors import CollabError
from collab.protocol.events import Channel, Event, WireProtocol
from collab.protocol.messages import CloseCode
from collab.protocol.session import Access, Session

_NOTHING_MORE = CloseCode(1000, "")


class Ended(WireProtocol[Any]):
    """Stands in the place of a socket's protocol when the socket has ended, and lets go of all that the other held."""

    __slots__ = ()

    @property
    def channels_open(self) -> Iterable[Any]:
        """None."""
        return ()

    def receive(self, frame: bytes) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def receive_live(self, frame: bytes) -> None:
        """Take nothing."""
        return None

    def may_send(self, head: bytes) -> bool:
        """Let nothing come."""
        return False

    def unread(self, head: bytes, size: int) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def granted(self, channel: Channel, session: Session, access: Access, author: str | None) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def opened(self, channel: Channel, session: Session) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def denied(self, channel: Channel, session: Session, error: CollabError) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def failed(self, channel: Channel, session: Session, error: CollabError) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def ended(self, channel: Channel, session: Session, error: CollabError) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def expiring(self, channel: Channel) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def expired(self, channel: Channel) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def close_code(self, error: BaseException) -> CloseCode:
        """Return a code that nobody will be sent."""
        return _NOTHING_MORE

    def close(self) -> Sequence[Event[Any]]:
        """Do nothing."""
        return ()

    def keepalive(self) -> None:
        """Feed nobody."""
        return None


ENDED = Ended()
