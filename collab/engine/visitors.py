"""People without a socket: those who show themselves by HTTP requests (``collab.hub.stream_presence``).

Strategy: a visitor owns the state of one client ID, as a session owns those of its client, and its client sends it with
a clock of its own. It has no line that could break, so it is here until nothing was posted for a while. No request says
which connection it belongs to. A visitor is known by its user or, where nobody knows users, by its address; whoever is
another one cannot change what it shows.

Its client may go from a socket to requests and back, and its requests may come to any node. The ID goes with it:

- a session that begins with the ID of a visitor who is the same has it at once;
- a visitor has the ID of a session of its own user at once; without users the session is probed first, for it may be a
  neighbour's that lives;
- each node says whose the states of its visitors are. Of two nodes that show one person's ID the greater clock counts,
  on all nodes. So requests that go to several nodes may overtake what these tell each other.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from collab.errors import LimitExceeded
from collab.protocol.session import Owner


class AnothersClient(LimitExceeded):
    """Somebody else shows a client ID, or has shown it until lately."""


class Person(Protocol):
    """Whose client somebody is, as far as anybody knows."""

    @property
    def author(self) -> str | None:
        """The user; None while nobody has said."""
        ...

    @property
    def address(self) -> str | None:
        """What its client's address counts as; None for one that many may share."""
        ...


class Somebody(NamedTuple):
    """Whose the client of a visitor is, as another node says."""

    author: str | None
    address: str | None


class Visitor(Owner):
    """A person of this node who shows one client by requests.

    Args:
        client: the client ID.
        author: the user, as a session has it.
        address: as a session has it.

    Attributes:
        returned: its client was found to have come back.
    """

    __slots__ = ("address", "author", "client", "returned")

    def __init__(self, client: int, author: str | None, address: str | None) -> None:
        super().__init__()
        self.client = client
        self.author = author
        self.address = address
        self.returned = False

    @property
    def shown(self) -> bool:
        """Whether this node shows it; not so before, after its end, and when it has gone elsewhere."""
        return self.awareness is not None and self.client in self.awareness

    def is_one_with(self, person: Person) -> bool:
        """Tell whether somebody who posts for its client is the same person."""
        return are_same(self, person)


def are_same(a: Person, b: Person) -> bool:
    """Tell whether two who show one client ID by requests are the same person.

    Where nobody knows users and many share an address, all of them count as one: their requests say no more.
    """
    if a.author is not None or b.author is not None:
        return a.author == b.author
    return a.address == b.address
