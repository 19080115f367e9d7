"""Sessions on their way into a room."""

from __future__ import annotations

from collab.protocol.session import Access, Event, Session


def admit(session: Session, access: Access, author: str | None = None) -> None:
    """Let a session show a token that is good, so that it may join."""
    session.on(Event.PRESENTED)
    session.grant(access, author)
