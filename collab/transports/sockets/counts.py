"""What the sockets of one protocol have brought since the server started."""

from __future__ import annotations


class SocketCounts:
    """The counts of the sockets of one protocol, those that have ended included.

    A socket counts for itself what comes; that is added here now and then, and when it ends (``WebSockets.counted``
    gives all of it at any time).

    Attributes:
        open: how many there are now.
        opened: how many there were.
        messages: messages that have come, control frames included.
        received: bytes that have come, as they were on the line behind the handshake.
        pauses: how often one was not read on for a while, because it sent more than its rates allow.
        held: bytes of memory that what waits to be sent to those that are open takes; only where it was asked for.
    """

    __slots__ = ("held", "messages", "open", "opened", "pauses", "received")

    def __init__(self) -> None:
        self.open = self.opened = self.messages = self.received = self.pauses = self.held = 0
