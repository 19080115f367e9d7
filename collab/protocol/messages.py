"""What both wire protocols carry: the messages, and how a socket is closed.

Strategy: the protocols differ in the bytes around a message and in how a client reads a close code,
so the messages are shared types and everything else stands with its protocol. Four messages are
known to one protocol only, or go one way; they stand here because a room speaks of them:

    Stateless           an application's own text, relayed and not kept; Hocuspocus only
    SyncStatus          to a client: what became of one of its updates; Hocuspocus only
    LocalVersion        Y-Sweet's client asks whether all up to a version of its own is saved; it is sent back then
    PermissionDenied    to a client: the reason why something was refused
"""

from __future__ import annotations

import json
from typing import NamedTuple

from collab.errors import CollabError
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate

# A control frame carries 125 bytes, of which the code takes two (RFC 6455, section 5.5).
_MAX_REASON_BYTES = 123


class Stateless(NamedTuple):
    """A text of the application for the other participants; ``payload`` is UTF-8."""

    payload: bytes


def notice(what: str, reason: str) -> Stateless:
    """Make a stateless message of the server's own, which tells an application what of its client was not taken."""
    return Stateless(json.dumps({"type": what, "reason": reason}).encode())


class SyncStatus(NamedTuple):
    """Tell a client that one of its updates is durable, or was refused."""

    saved: bool


class LocalVersion(NamedTuple):
    """A client's count of its own edits: asked by it, and sent back when they are durable. Only Y-Sweet's has one."""

    version: int


class PermissionDenied(NamedTuple):
    """Tell a client why it may not do what it asked for."""

    reason: str


Message = (
    SyncStep1
    | SyncStep2
    | SyncUpdate
    | AwarenessUpdate
    | QueryAwareness
    | Stateless
    | SyncStatus
    | LocalVersion
    | PermissionDenied
)


class CloseCode(NamedTuple):
    """A WebSocket close code with the reason that travels with it (at most 123 bytes of UTF-8)."""

    code: int
    reason: str


def close_reason(error: BaseException) -> str:
    """Return what a client is told of an error when its socket is closed: the public text, as far as it fits."""
    reason = error.public if isinstance(error, CollabError) else "internal error, come back"
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
