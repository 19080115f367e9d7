"""What both wire protocols carry: the messages, and how a socket is closed.

Strategy: the protocols differ in the bytes around a message and in how a client reads a close code,
so the messages are shared types and everything else stands with its protocol. Three messages are
known to one protocol only, or go one way; they stand here because a room speaks of them:

    Stateless           an application's own text, relayed and not kept; Hocuspocus only
    SyncStatus          to a client: what became of one of its updates; Hocuspocus only
    PermissionDenied    to a client: the reason why something was refused
"""

from __future__ import annotations

from typing import NamedTuple

from collab.errors import CollabError, InvalidDocumentName
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate

MAX_NAME_BYTES = 512

# A control frame carries 125 bytes, of which the code takes two (RFC 6455, section 5.5).
_MAX_REASON_BYTES = 123


class Stateless(NamedTuple):
    """A text of the application for the other participants; ``payload`` is UTF-8."""

    payload: bytes


class SyncStatus(NamedTuple):
    """Tell a client that one of its updates is durable, or was refused."""

    saved: bool


class PermissionDenied(NamedTuple):
    """Tell a client why it may not do what it asked for."""

    reason: str


Message = (
    SyncStep1 | SyncStep2 | SyncUpdate | AwarenessUpdate | QueryAwareness | Stateless | SyncStatus | PermissionDenied
)


class CloseCode(NamedTuple):
    """A WebSocket close code with the reason that travels with it (at most 123 bytes of UTF-8)."""

    code: int
    reason: str


def close_reason(error: BaseException) -> str:
    """Return what a client is told of an error when its socket is closed: the public text, as far as it fits."""
    reason = error.public if isinstance(error, CollabError) else "internal error, come back"
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def check_document_name(name: str) -> None:
    """Refuse what cannot be the name of a document.

    Raises:
        InvalidDocumentName: empty, longer than 512 bytes of UTF-8, or with a NUL in it, which
            PostgreSQL cannot keep in a text.
    """
    size = len(name.encode())
    if not 0 < size <= MAX_NAME_BYTES or "\0" in name:
        raise InvalidDocumentName(f"document name of {size} bytes, or with a NUL")
