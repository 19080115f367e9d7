"""Every exception that collab raises.

    CollabError
    ├── ConfigurationError          an option that is unknown, malformed or contradicts another
    ├── CannotListen                an address is taken, or not this machine's
    ├── DecodeError                 bytes from a peer that do not follow their encoding
    │   ├── AddressError            a frame that does not say which document it is for
    │   ├── AwarenessError          an awareness message that cannot be read; it costs presence only
    │   └── UpdateError             a Yjs update on which clients would throw
    ├── ProtocolError               the peer's fault: a well-formed message that it may not send now
    ├── InternalError               a defect of ours: something that our own code may never do
    │   └── InvalidTransition       an event that has no row in the table of the session's states
    ├── LimitExceeded               a bound that protects the others was passed
    │   ├── DocumentTooLarge
    │   ├── MessageTooLarge
    │   ├── DocumentBusy            retryable: one document, or one more, is too much now
    │   ├── Overloaded              retryable: one connection more, or one more of this client, is too much now
    │   └── PeerTooSlow             retryable: a client that takes nothing for too long
    ├── AccessError
    │   ├── AccessDenied
    │   │   ├── Unauthenticated     no token, or one that is not valid
    │   │   └── Forbidden           a valid token that does not allow this
    │   │       ├── Refused         a hook of the application does not allow this
    │   │       └── QuotaExceeded   the tenant has used up a quota
    │   ├── AccessExpired           retryable: what was granted has run out, now or a moment ago
    │   ├── AccessNotYet            retryable: a token whose time has not come
    │   │   └── KeptOut             retryable: an operator keeps this user out for a while
    │   ├── AccessUnavailable       retryable: whoever decides does not answer
    │   │   └── HookUnavailable     retryable: a hook that decides has failed, or does not answer
    │   └── Kicked                  retryable: an operator has ended the session
    ├── ServerStopping              retryable: this node is going down, another will come
    ├── DocumentError
    │   ├── InvalidDocumentName
    │   ├── InvalidMetadata         own keys of a document that break the rule for them
    │   ├── DocumentNotFound
    │   ├── DocumentExists
    │   ├── DamagedDocument         retryable: what is stored of it cannot be read, until somebody has repaired it
    │   ├── DocumentReloaded        retryable: an operator has it read again from the store
    │   ├── EditOvertaken           retryable: others have changed the document again and again meanwhile
    │   ├── PreconditionFailed      the document is not in the state that an edit was made for
    │   ├── NoSuchVersion           the document has no such version
    │   ├── HistoryGone             the rows of a number are gone by age, or were never there
    │   ├── TooManyVersions         the document has as many named versions as one may have
    │   ├── OffsetExpired           a stream cannot be read on from a position: its rows are gone, or were others
    │   ├── UpdateIncomplete        an update that refers to what the document lacks, where its sender can send that too
    │   └── DocumentDeleted         a tombstone stands in the document's place
    │       └── DocumentRenamed     the document has another name now
    ├── NoSuchTenant                nothing is known of a tenant
    ├── InvalidQuota                a quota that is none
    ├── NoSuchWebhook               there is no such receiver of webhooks, or no such delivery is kept
    ├── RepeatError
    │   ├── KeyReused               the key of an earlier request, which was another one
    │   └── KeyBusy                 retryable: the request with this key is still being answered
    ├── StoreError
    │   ├── StoreUnavailable        retryable: nothing is wrong with what was asked
    │   │   ├── OutcomeUnknown      an edit was taken, and nobody knows yet whether it is stored
    │   │   ├── StoreDamaged        the database finds its own files damaged where it was asked to read
    │   │   └── StoreWentBack       it lacks what this server has committed: an older state of it is there
    │   ├── StoreRefused            this row will never be taken
    │   └── SchemaError             the database is not on a schema that this release can use
    ├── ContentError                content cannot be shown or changed as asked; nothing was changed
    │   ├── NoSuchContent           there is no such root, or nothing at a path
    │   ├── WrongContentType        the root is of a type that this format or edit is not for
    │   ├── InvalidEdit             what an edit brings is malformed or too large
    │   ├── EditConflict            what an edit expects is not there: a test, a passage
    │   ├── EditNotShown            what an edit gives is not what others would see of it
    │   └── UnreadableContent       the document holds what the server's CRDT library cannot read
    ├── SandboxError
    │   ├── SandboxBusy             retryable: too much waits, or the sandbox or its process has gone
    │   ├── SandboxTimeout
    │   └── SandboxCrashed
    └── ClientError                 of the Python client (``collab.client``): it cannot do what it was asked for
        ├── ConnectionRefused       the server, or what stands before it, refuses the connection for good
        ├── DocumentRefused         the server does not let this client into the document, or has ended its session
        ├── EditRefused             the server has not taken edits of this client, which may only read
        ├── NotSynced               retryable: the document has not come in time
        ├── NotSaved                retryable: not all edits were committed in time; they are kept and sent again
        ├── RequestRefused          the server refuses a request over HTTP; ``code`` says why
        ├── NotAnswered             retryable: a request over HTTP has no answer in time, or only "come back later"
        └── ClientClosed            the document or the connection was closed here

``retryable`` says whether the same call may succeed later. ``public`` is the text that may
travel to a client: it names what to do and never shows internals; an instance may say it more
exactly than its class. ``str(error)`` is for the operator's log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final, TypeGuard

MAX_REFUSAL: Final = 500
"""Characters of a reason that the application's code gives for a refusal."""


class CollabError(Exception):
    """The root: catch this to catch everything that collab raises on purpose."""

    retryable: ClassVar[bool] = False
    public: str = "internal error"


class ConfigurationError(CollabError):
    """An option that is unknown, malformed or contradicts another."""

    public = "the server is misconfigured"


class CannotListen(CollabError):
    """An address cannot be listened on: it is taken, or not this machine's.

    Args:
        message: for the operator's log.
        host: as it was given.
        reason: what the system says.
        taken: another program has it.
    """

    def __init__(self, message: str, *, host: str = "", reason: str = "", taken: bool = False) -> None:
        super().__init__(message)
        self.host, self.reason, self.taken = host, reason, taken


class DecodeError(CollabError):
    """Bytes from a peer that do not follow their encoding."""

    public = "malformed message"


class AddressError(DecodeError):
    """A frame of a socket for many documents that does not say which one it is for."""

    public = "unreadable address"


class AwarenessError(DecodeError):
    """An awareness message whose body cannot be read; whoever sends it goes on editing the document."""

    public = "malformed awareness"


class UpdateError(DecodeError):
    """A Yjs update on which clients would throw; it is never relayed nor stored.

    Args:
        message: for the operator's log.
        public: what the client is told, when it is known what its author has done.
    """

    public = "malformed update"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class ProtocolError(CollabError):
    """A well-formed message that the peer may not send in the state it is in: the peer's fault."""

    public = "unexpected message"


class InternalError(CollabError):
    """A defect of ours, which no peer can cause: logged with its traceback, and never told as the peer's fault.

    Nothing says that the next try meets it again, so clients are asked to come back.
    """

    retryable = True
    public = "internal error, come back"


class InvalidTransition(InternalError):
    """An event for which the table of a session's states has no row in its current state."""


def is_refusal(error: BaseException) -> TypeGuard[CollabError]:
    """Tell whether an exception was raised on purpose and is no defect of ours: its ``public`` text can be told."""
    return isinstance(error, CollabError) and not isinstance(error, InternalError)


class LimitExceeded(CollabError):
    """A bound that protects the other clients was passed.

    Args:
        message: for the operator's log.
        public: what the client is told, when it can be said more exactly than by the class.

    Attributes:
        option: what an operator raises, should the bound keep out what people have written; None where it protects.
    """

    public = "limit exceeded"
    option: ClassVar[str | None] = None

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class DocumentTooLarge(LimitExceeded):
    """The document would grow past what this server holds for one document."""

    public = "the document is too large"
    option = "--max-document-bytes"


class MessageTooLarge(LimitExceeded):
    """A message of a client that may write is larger than this server takes, and was not read."""

    public = "the message is too large"
    option = "--max-message-bytes"


class DocumentBusy(LimitExceeded):
    """The document cannot be opened now: too many have it open, or too much is open; other documents may go on.

    Args:
        message: for the operator's log.
        public: what the client is told, when it can be said more exactly than by the class.
        wait: seconds until its turn, which is kept for it; None if nobody can say.
    """

    retryable = True
    public = "the document cannot be opened now, come back later"

    def __init__(self, message: str, *, public: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, public=public)
        self.wait = wait


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


class Refused(Forbidden):
    """A hook of the application does not allow this (``collab.hooks``).

    Args:
        reason: what the client is told, in at most ``MAX_REFUSAL`` characters; what is longer is cut.
    """

    public = "the application does not allow this"

    def __init__(self, reason: str = public) -> None:
        said = str(reason)[:MAX_REFUSAL].encode(errors="replace").decode() or type(self).public
        super().__init__(f"a hook refuses it: {said}", public=said)


class QuotaExceeded(Forbidden):
    """The tenant of a document has used up a quota, so the document can only be read.

    Args:
        message: for the operator's log.
        public: what the client is told.
    """

    public = "read-only: the tenant is over its quota"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class AccessExpired(AccessError):
    """What the client was granted has run out; with a new token it may come back."""

    retryable = True
    public = "the token has expired, come back with a new one"


class AccessNotYet(AccessError):
    """The client's token says itself that it is not valid yet; with time it will be."""

    retryable = True
    public = "the token is not valid yet, come back later"


class KeptOut(AccessNotYet):
    """An operator has ended the sessions of this user, and keeps it out for a while."""

    public = "an operator keeps you out for a while, come back later"


class Kicked(AccessError):
    """An operator has ended this session; its client may come back at once, unless its user is kept out."""

    retryable = True
    public = "ended by an operator, come back"


class AccessUnavailable(AccessError):
    """Whoever decides on access does not answer; ask again later."""

    retryable = True
    public = "access cannot be checked now, try again later"


class HookUnavailable(AccessUnavailable):
    """A hook of the application that decides on this has failed, or does not answer; ask again later."""

    public = "the application does not answer now, try again later"


class ServerStopping(CollabError):
    """This server is going down; come back, and another will be there."""

    retryable = True
    public = "the server restarts, come back"


class DocumentError(CollabError):
    """Something about one document, by its name."""

    public = "the document cannot be used"


class InvalidDocumentName(DocumentError):
    """A text that breaks the rule for document names (``collab.protocol.names``).

    Args:
        message: for the operator's log.
        public: what the client is told, when it can be said more exactly than by the class.
    """

    public = "a document name is 1 to 512 bytes of UTF-8"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class InvalidMetadata(DocumentError):
    """Own keys of a document that break the rule for them (``collab.storage.metadata``).

    Args:
        message: what is wrong, for the one who has sent them.
    """

    public = "the metadata cannot be kept"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.public = message


class DocumentNotFound(DocumentError):
    """No document of that name is stored."""

    public = "no such document"


class DocumentExists(DocumentError):
    """A document of that name is stored already."""

    public = "the document exists already"


class DocumentDeleted(DocumentError):
    """The document was deleted; its name is free only when somebody creates it anew on purpose."""

    public = "the document was deleted"


class DocumentRenamed(DocumentDeleted):
    """The document has another name now; the old one is left as by a deletion, and no client is told the new one.

    Args:
        message: for the operator's log.
        new_name: its name now, if that is known.
    """

    public = "the document was renamed"

    def __init__(self, message: str, *, new_name: str | None = None) -> None:
        super().__init__(message)
        self.new_name = new_name


class DocumentReloaded(DocumentError):
    """An operator has the document read again from the store; its clients come back at once."""

    retryable = True
    public = "the document is read again, come back"


class NoSuchVersion(DocumentError):
    """The document has no such version: it was deleted, or is another document's."""

    public = "the document has no such version"


class HistoryGone(DocumentError):
    """What a document held after a number of its log cannot be told: it is too old, or the number is none of it."""

    public = "the history of the document does not reach this number"


class TooManyVersions(DocumentError):
    """The document has as many named versions as one document may have; some must be deleted first."""

    public = "the document has too many versions: delete some first"


class OffsetExpired(DocumentError):
    """A stream cannot be read on from where its reader stands: to go on behind what is gone would leave a gap."""

    public = "the stream cannot be read on from this offset: begin again with offset=snapshot"


class UpdateIncomplete(DocumentError):
    """An update refers to what the document lacks, and was not taken; its sender can send that with it.

    Args:
        message: for the operator's log.
        missing: the first client ID and clock that the document lacks; None if that is not known.
    """

    public = "the update refers to what the document lacks: send all that its state vector lacks"

    def __init__(self, message: str, *, missing: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.missing = missing


class PreconditionFailed(DocumentError):
    """The document is not, or not any more, in the state that its sender wants it to be in for an edit."""

    public = "the document is in another state"


class EditOvertaken(DocumentError):
    """An edit was made for a state of the document which others changed before it could be taken, again and again."""

    retryable = True
    public = "others change the document at the same time, try again"


class DamagedDocument(DocumentError):
    """What is stored of a document is damaged, and nothing else that is stored says the same.

    It passes when the operator has repaired it, so clients come back; meanwhile they keep their edits.

    Args:
        message: for the operator's log.
        name: the document's.
        rows, snapshots: the numbers of what is damaged, as far as they are known.
    """

    retryable = True
    public = "the document cannot be read now, try again later"

    def __init__(
        self, message: str, *, name: str = "", rows: Sequence[int] = (), snapshots: Sequence[int] = ()
    ) -> None:
        super().__init__(message)
        self.name = name
        self.rows = tuple(rows)
        self.snapshots = tuple(snapshots)


class NoSuchTenant(CollabError):
    """Nothing is known of a tenant."""

    public = "no such tenant"


class InvalidQuota(CollabError):
    """A quota that is none; the text says what is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.public = message


class NoSuchWebhook(CollabError):
    """There is no such receiver of webhooks, or no such delivery is kept."""

    public = "no such receiver or delivery"


class RepeatError(CollabError):
    """Something about the key by which a repeated request is recognised (``collab.storage.calls``)."""

    public = "the request cannot be repeated like this"


class KeyReused(RepeatError):
    """The key belongs to an earlier request, and this is another one."""

    public = "this idempotency key was used for another request"


class KeyBusy(RepeatError):
    """The request with this key is still being answered, or no more keys can be kept now; ask again later."""

    retryable = True
    public = "the request with this idempotency key is still being answered, try again later"


class StoreError(CollabError):
    """The store did not do what it was asked."""

    public = "the store failed"


class StoreUnavailable(StoreError):
    """The store cannot be reached or cannot write now; ask again later.

    Args:
        message: for the operator's log.
        public: what the client is told, when it can be said more exactly than by the class.
    """

    retryable = True
    public = "the store is not available, try again later"

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public


class OutcomeUnknown(StoreUnavailable):
    """An edit was taken, and it is not known whether it is, or will be, in the log.

    The same update may be sent again: it is in the document once, however often it comes.
    """

    public = "it is not known yet whether the edit is stored; the same update may be sent again"


class StoreDamaged(StoreUnavailable):
    """The database has found its own files damaged where it was asked to read."""


class StoreWentBack(StoreUnavailable):
    """The storage lacks what this server has committed to it: somebody has put an older state in its place.

    Nothing was read or written. The server compares what it has in memory with what is there, and goes on.
    """


class StoreRefused(StoreError):
    """The store will never take this row (too large, say); the document cannot go on."""

    public = "the store refuses this document"


class SchemaError(StoreError):
    """The database is not on a schema that this release can use: it has to be migrated, or the release is too old."""

    public = "the database schema does not fit"


class ContentError(CollabError):
    """Content cannot be shown, or changed, as it was asked for; the document is as it was.

    Args:
        message: says which edit, where and why. It names what the caller has sent and no content of the document, so
            it may be told to the caller: it is ``public`` too.
        edit: the number of the edit in a batch, or of the operation in a JSON Patch, from 0; None if there is one only.
    """

    public = "the content cannot be shown or changed like this"

    def __init__(self, message: str, *, edit: int | None = None) -> None:
        super().__init__(message)
        self.public = message
        self.edit = edit


class NoSuchContent(ContentError):
    """There is no root of this name, or nothing at this path."""


class WrongContentType(ContentError):
    """The root, or what a path leads to, is of a type that this format or edit is not for."""


class InvalidEdit(ContentError):
    """What an edit brings is malformed, or larger than its bounds."""


class EditConflict(ContentError):
    """What an edit expects is not there: a test of a JSON Patch, or a passage that is in the text just once."""


class EditNotShown(ContentError):
    """What an edit gives is not what others would see of it, and it could not be mended."""


class UnreadableContent(ContentError):
    """The document holds what the server's CRDT library cannot read; clients can, and it is exchanged as updates.

    Args:
        message: says what that is, for the log. What a caller is told is always the same.
        edit: as of every ContentError.
    """

    def __init__(self, message: str, *, edit: int | None = None) -> None:
        super().__init__(message, edit=edit)
        self.public = "the document holds something that is read and changed as Yjs updates only"


class SandboxError(CollabError):
    """A job in a sandbox process did not give a result; one of those below says why."""

    public = "the document could not be processed"


class SandboxBusy(SandboxError):
    """The job was not begun, or its process went before: too much waits, or the sandbox is closed."""

    retryable = True
    public = "the document cannot be processed now, try again later"


class SandboxTimeout(SandboxError):
    """The job took longer than its limit; its process was killed."""


class SandboxCrashed(SandboxError):
    """The job's process died."""


class ClientError(CollabError):
    """The Python client cannot do what it was asked for."""

    public = "the client cannot do this"


class ConnectionRefused(ClientError):
    """The server, or what stands before it, refuses the connection, and trying again would not help.

    Args:
        message: says what was answered.
        code: the close code of the WebSocket, or the status of HTTP.
        reason: the text that came with it; may be empty.
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class DocumentRefused(ClientError):
    """The server does not let this client into a document, or has ended its session for good.

    The other documents of the connection go on.

    Args:
        reason: the text that the server has sent.
        document_name: of which document.
    """

    def __init__(self, reason: str, *, document_name: str = "") -> None:
        super().__init__(f"the document {document_name[:100]!r} is refused: {reason}")
        self.document_name, self.reason = document_name, reason


class EditRefused(ClientError):
    """The server has not taken edits of this client. They are in its own document, and nowhere else."""


class NotSynced(ClientError):
    """The document has not come from the server in time; the client goes on trying."""

    retryable = True


class NotSaved(ClientError):
    """Not all edits were committed in time. As long as the document is open, they are kept and sent again."""

    retryable = True


class RequestRefused(ClientError):
    """The server, or what stands before it, refuses a request over HTTP: the same request meets that again.

    Args:
        detail: a sentence for people.
        code: for programs, as the table of problems in docs/api.md has it; empty if the answer has none.
        status: of HTTP.
    """

    def __init__(self, detail: str, *, code: str = "", status: int = 0) -> None:
        super().__init__(f"{detail} ({code or status})")
        self.detail, self.code, self.status = detail, code, status


class NotAnswered(ClientError):
    """A request over HTTP was not answered in time, or the server said for all that time to come back later.

    It is not known whether what the request asks for was done. Each call says whether it can be repeated.
    """

    retryable = True


class ClientClosed(ClientError):
    """The document, or its connection, was closed here."""


def forget_frames(error: BaseException) -> None:
    """Take the traceback from an error that was handled, and from those that it came from.

    A frame of it often holds the error itself (in a list of events, say), so both would stay until the collector
    comes to them.
    """
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
