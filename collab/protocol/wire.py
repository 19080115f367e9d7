"""What both wire protocols carry: the messages of y-protocols, and how a socket is closed.

Strategy: the protocols differ in the bytes around a message and in how a client reads a close code,
so the messages are shared types and everything else stands with its protocol.
"""

from __future__ import annotations

from typing import NamedTuple

from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate

Message = SyncStep1 | SyncStep2 | SyncUpdate | AwarenessUpdate | QueryAwareness


class CloseCode(NamedTuple):
    """A WebSocket close code with the reason that travels with it (at most 123 bytes of UTF-8)."""

    code: int
    reason: str
