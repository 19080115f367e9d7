"""Who sends an edit without a session, and in which state the document has to be for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from collab.auth.access import Grant
from collab.authorship import Note
from collab.errors import PreconditionFailed
from collab.hub.room import LiveRoom
from collab.net import Peer

ANY: Final = "*"
"""Stands for each state of a document that exists, in a precondition."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends an edit.

    Attributes:
        peer: the other end of its connection.
        grant: what it was granted for the document.
        note: what its edit says of itself beside its author.
        asks: hooks are asked whether it may create a document. Those of a hook itself are not.
        recovers: it brings back an earlier state, which no quota prevents.
    """

    peer: Peer
    grant: Grant
    note: Note | None = None
    asks: bool = True
    recovers: bool = False

    @property
    def author(self) -> str | None:
        """Who the journal records as the author."""
        return self.grant.user


@dataclass(frozen=True, slots=True)
class Precondition:
    """In which state a document has to be for an edit, by the names of states (``LiveRoom.name_state``), or ``ANY``.

    Attributes:
        match: one of these (If-Match); None if any will do, and a document that does not exist too.
        none_match: none of these (If-None-Match).
    """

    match: frozenset[str] | None = None
    none_match: frozenset[str] | None = None

    @property
    def exact(self) -> bool:
        """Whether it is about single states, so that an edit must have been computed for one of them."""
        return self.match is not None and ANY not in self.match

    @property
    def names(self) -> bool:
        """Whether the state has to be named to check it."""
        return self.exact or (self.none_match is not None and ANY not in self.none_match)

    def check(self, live: LiveRoom) -> None:
        """Check it on a document as it is now.

        Raises:
            PreconditionFailed: it does not hold.
        """
        if self.match is None and self.none_match is None:
            return
        exists = live.exists
        tag = live.name_state() if exists and self.names else None
        if self.match is not None and not (exists and (ANY in self.match or tag in self.match)):
            raise PreconditionFailed(f"{live.name!r} is in state {tag}")
        if self.none_match is not None and exists and (ANY in self.none_match or tag in self.none_match):
            raise PreconditionFailed(f"{live.name!r} is in state {tag}")


ALWAYS: Final = Precondition()
"""Holds for every document."""
