"""Participants without a socket: what a back end shows of itself among the people on a document.

Strategy: an agent owns one awareness state, as a session does, and nobody sends anything for it but this node. Its
client ID is made of the document, its user and the name that its user gives it. So it is the same on every node and
after every start, and it comes from a range that no Yjs client draws from (they draw 32 bits): no session may show such
an ID, and no agent can show a client's. Its clock is the time in quarters of a second, or one more than the last one.
So it is greater than all that was shown under the ID, by whichever node, and y-protocols takes it.

Where two nodes show one agent, the greater clock counts: its caller has come to the other node.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from collab.engine.visitors import Visitor
from collab.protocol.awareness import User
from collab.protocol.session import Owner, Session

FIRST_ID: Final = 1 << 52
"""The first client ID of agents. They go up to 2^53 - 1, the largest number that lib0 reads."""

TICKS: Final = 4
"""Steps of a clock in a second: an agent that changes more often gets ahead of the time."""

_EPOCH: Final = 1_767_225_600.0
"""2026-01-01 in Unix seconds: clocks from here on stay below ``awareness.MAX_CLOCK`` until 2043."""


class Agent(Owner):
    """A participant of this node that has no socket.

    Args:
        document: the name of its document.
        author: its user, as a session has it.
        ident: the name by which its user tells its agents on the document apart.
        user: who its state says it is; None leaves that to the state.

    Attributes:
        client: its client ID.
        state: what it shows, as it is shown; empty before.
    """

    __slots__ = ("author", "client", "document", "ident", "state")

    def __init__(self, document: str, author: str | None, ident: str, user: User | None = None) -> None:
        super().__init__()
        self.document = document
        self.author = author
        self.ident = ident
        self.client = agent_id(document, author, ident)
        self.user = user
        self.state = b""

    @property
    def shown(self) -> bool:
        """Whether this node shows it; not so before, after its end, and when another node shows it."""
        return self.awareness is not None and self.client in self.awareness


def agent_id(document: str, author: str | None, ident: str) -> int:
    """Give the client ID of an agent."""
    digest = blake2b(digest_size=8)
    for text in (document, "" if author is None else f"={author}", ident):
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8) + raw)
    return FIRST_ID | int.from_bytes(digest.digest()) >> 12


def next_clock(known: int, at: float) -> int:
    """Give the clock of an agent's next state: ``known`` was the last one, ``at`` is the time in Unix seconds."""
    return max(known + 1, int((at - _EPOCH) * TICKS), 1)


def is_of_node(owner: Owner) -> bool:
    """Tell whether an owner of states stands for another node."""
    return not isinstance(owner, _HERE)


_HERE: Final = (Session, Agent, Visitor)
