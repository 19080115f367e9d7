"""Every exception that collab raises.

    CollabError
    ├── ConfigurationError          an option that is unknown, malformed or contradicts another
    ├── DecodeError                 bytes from a peer that do not follow their encoding
    │   ├── AddressError            a frame that does not say which document it is for
    │   └── UpdateError             a Yjs update on which clients would throw
    ├── ProtocolError               a well-formed message that the peer may not send now
    ├── LimitExceeded               a bound that protects the others was passed
    │   ├── DocumentTooLarge
    │   ├── DocumentBusy            retryable: one document, or one more, is too much now
    │   ├── Overloaded              retryable: one connection more, or one more of this client, is too much now
    │   └── PeerTooSlow             retryable: a client that takes nothing for too long
    ├── AccessError
    │   ├── AccessDenied
    │   │   ├── Unauthenticated     no token, or one that is not valid
    │   │   └── Forbidden           a valid token that does not allow this
    │   ├── AccessExpired           retryable: what was granted has run out
    │   └── AccessUnavailable       retryable: whoever decides does not answer
    ├── ServerStopping              retryable: this node is going down, another will come
    ├── DocumentError
    │   ├── InvalidDocumentName
    │   ├── DocumentNotFound
    │   ├── DocumentExists
    │   └── DocumentDeleted         a tombstone stands in the document's place
    ├── StoreError
    │   ├── StoreUnavailable        retryable: nothing is wrong with what was asked
    │   ├── StoreRefused            this row will never be taken
    │   └── SchemaError             the database is not on the schema of this release
    └── SandboxError
        ├── SandboxTimeout
        └── SandboxCrashed

``retryable`` says whether the same call may succeed later. ``public`` is the text that may
travel to a client: it names what to do and never shows internals; an instance may say it more
exactly than its class. ``str(error)`` is for the operator's log.
"""

from __future__ import annotations

from typing import ClassVar


class CollabError(Exception):
    """The root: catch this to catch everything that collab raises on purpose."""

    retryable: ClassVar[bool] = False
    public: str = "internal error"


class ConfigurationError(CollabError):
    """An option that is unknown, malformed or contradicts another."""

    public = "the server is misconfigured"


class DecodeError(CollabError):
    """Bytes from a peer that do not follow their encoding."""

    public = "malformed message"


class AddressError(DecodeError):
    """A frame of a socket for many documents that does not say which one it is for."""

    public = "unreadable address"


class UpdateError(DecodeError):
    """A Yjs update on which clients would throw; it is never relayed nor stored."""

    public = "malformed update"


class ProtocolError(CollabError):
    """A well-formed message that the peer may not send in the state it is in."""

    public = "unexpected message"


class LimitExceeded(CollabError):
    """A bound that protects the other clients was passed.

    Args:
        message: for the operator's log.
        public: what the client is told, when it can be said more exactly than by the class.
    """

    public = "limit exceeded"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class DocumentTooLarge(LimitExceeded):
    """The document would grow past what this server holds for one document."""

    public = "the document is too large"


class DocumentBusy(LimitExceeded):
    """The document cannot be opened now: too many have it open, or too much is open; other documents may go on."""

    retryable = True
    public = "the document cannot be opened now, come back later"


class Overloaded(LimitExceeded):
    """There is no room for this connection now; the client comes back later."""

    retryable = True
    public = "the server is busy, come back later"


class PeerTooSlow(LimitExceeded):
    """A client has taken nothing of what waits for it, or answered nothing, for too long."""

    retryable = True
    public = "too slow, come back"


class AccessError(CollabError):
    """A client asked for something that needs permission."""

    public = "access could not be granted"


class AccessDenied(AccessError):
    """The client may not do this.

    Args:
        message: for the operator's log; never a token.
        public: what the client is told, when it can be said more exactly than by the class.
    """

    public = "permission denied"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class Unauthenticated(AccessDenied):
    """The client has shown no token, or one that is not valid."""

    public = "a valid token is needed"


class Forbidden(AccessDenied):
    """The client's token is valid and does not allow this."""

    public = "the token does not allow this"


class AccessExpired(AccessError):
    """What the client was granted has run out; with a new token it may come back."""

    retryable = True
    public = "the token has expired, come back with a new one"


class AccessUnavailable(AccessError):
    """Whoever decides on access does not answer; ask again later."""

    retryable = True
    public = "access cannot be checked now, try again later"


class ServerStopping(CollabError):
    """This server is going down; come back, and another will be there."""

    retryable = True
    public = "the server restarts, come back"


class DocumentError(CollabError):
    """Something about one document, by its name."""

    public = "the document cannot be used"


class InvalidDocumentName(DocumentError):
    """A document name that is empty, longer than 512 bytes or not UTF-8."""

    public = "a document name is 1 to 512 bytes of UTF-8"


class DocumentNotFound(DocumentError):
    """No document of that name is stored."""

    public = "no such document"


class DocumentExists(DocumentError):
    """A document of that name is stored already."""

    public = "the document exists already"


class DocumentDeleted(DocumentError):
    """The document was deleted; its name is free only when somebody creates it anew on purpose."""

    public = "the document was deleted"


class StoreError(CollabError):
    """The store did not do what it was asked."""

    public = "the store failed"


class StoreUnavailable(StoreError):
    """The store cannot be reached or cannot write now; ask again later."""

    retryable = True
    public = "the store is not available, try again later"


class StoreRefused(StoreError):
    """The store will never take this row (too large, say); the document cannot go on."""

    public = "the store refuses this document"


class SchemaError(StoreError):
    """The database is not on the schema that this release needs."""

    public = "the database schema is not current"


class SandboxError(CollabError):
    """A job in a sandbox process did not give a result."""

    public = "the document could not be processed"


class SandboxTimeout(SandboxError):
    """The job took longer than its limit; its process was killed."""


class SandboxCrashed(SandboxError):
    """The job's process died."""
