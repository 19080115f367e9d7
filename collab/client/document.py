"""One live document: a ``pycrdt.Doc`` that is kept in sync, and what is known of it on the server.

Strategy: a document outlives the sockets of its connection. It keeps marks, and no queue of frames: what has to be
sent (a token, a question, an answer, edits, presence) is made when the socket can take it (``next_frame``). So a slow
line or an absent server costs a mark. Edits have numbers. An edit is saved when the server has acknowledged a message
that held it: that says that it is committed. What was under way when a socket ended is sent again.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, Final, Literal, Protocol, TypeVar, overload

import pycrdt

from collab.client.awareness import Awareness
from collab.client.replica import LockedDoc, Replica
from collab.content.edits import Edit, Format, Replace, RootType
from collab.content.replica import Replica as Editor
from collab.content.replica import read as read_content
from collab.errors import (
    AccessDenied,
    AwarenessError,
    ClientClosed,
    DocumentRefused,
    EditRefused,
    NoSuchContent,
    NotSaved,
    NotSynced,
)
from collab.protocol.hocuspocus.client import (
    Asked,
    Channel,
    Ended,
    Event,
    LetIn,
    NotTaken,
    Presence,
    PresenceWanted,
    Received,
    Said,
    Saved,
    Stage,
    TokenWanted,
)
from collab.protocol.session import Access
from collab.protocol.sync import EMPTY_UPDATE
from collab.update import UpdateReader

_log = logging.getLogger("collab.client")

T = TypeVar("T")

Token = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A token, or a function that gives one. It is asked at each connection, and whenever the server wants a fresh one. A
function that is not asynchronous is called in a thread."""

MAX_STATELESS: Final = 1_000
"""Stateless messages that may wait for the socket."""

# Structs that are read in one turn of the loop: about a millisecond.
_SLICE: Final = 600

# Seconds between two messages of presence: what changes in between is told by the next one.
_PRESENCE_PAUSE: Final = 0.05


class Status(StrEnum):
    """How a document stands to the server."""

    OFFLINE = "offline"
    """There is no connection; the next attempt is due."""
    CONNECTING = "connecting"
    """The server was asked, and not everything has come yet."""
    SYNCED = "synced"
    """Everything that the server had has come, and edits travel both ways as they are made."""
    REFUSED = "refused"
    """The server does not let this client in; `Document.error` says why. It is not asked again."""
    CLOSED = "closed"
    """It was closed here."""


class Host(Protocol):
    """What a document needs of its connection."""

    def mark(self, document: Document) -> None:
        """Ask for `Document.next_frame` as soon as the socket can take something; from the thread of the loop."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that ends with the socket at the latest."""

    def pause(self) -> float:
        """Return the seconds to wait before something that has failed is tried again."""

    async def leave(self, document: Document, channel: Channel | None, farewell: bytes | None) -> None:
        """Forget a document and its channel, and send a last frame of it if there is one."""


@asynccontextmanager
async def _held(doc: pycrdt.Doc[Any]) -> AsyncIterator[None]:
    """Hold the lock of a document that has one. The block must not wait: the lock is the thread's."""
    if not isinstance(doc, LockedDoc):
        yield
        return
    pause = 0.001
    while not doc.lock.acquire(timeout=0.002):
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05)
    try:
        yield
    finally:
        doc.lock.release()


class Document:
    """A document that is kept in sync; `Connection.open` and `connect` make it.

    Use it, and its ``doc``, in the thread of the event loop alone; ``collab.client.sync`` is for other threads. A
    transaction must not stay open while something is awaited.

    Attributes:
        name: of the document.
        doc: the live document. Read and edit it as you like; edits are sent by themselves.
        awareness: who is here, and what this client shows.
        error: why it was refused; None if it was not.
    """

    def __init__(self, name: str, doc: pycrdt.Doc[Any], token: Token | None, host: Host, close_timeout: float) -> None:
        self.name = name
        self.doc = doc
        self.error: Exception | None = None
        self._token = token
        self._host = host
        self._close_timeout = close_timeout
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._replica = Replica(doc, self._edited)
        self.awareness = Awareness(doc.client_id, self._shown)
        self._status = Status.OFFLINE
        self._channel: Channel | None = None
        self._saved = 0
        self._refused = False  # an edit was not taken, so later acknowledgements say nothing of it
        self._resent: int | None = None  # the number that stands for all edits, sent after that
        self._fresh_token: str | None = None
        self._asks = False
        self._answers = False
        self._presence = False
        self._presence_at = 0.0
        self._stateless: deque[str] = deque()
        self._waiters: set[asyncio.Future[None]] = set()
        self._callbacks: dict[str, list[Callable[[Any], object]]] = {}

    # State

    @property
    def status(self) -> Status:
        """How the document stands to the server now."""
        return self._status

    @property
    def synced(self) -> bool:
        """Whether everything that the server had has come on this connection."""
        return self._status is Status.SYNCED

    @property
    def saved(self) -> bool:
        """Whether every edit that was made here is committed on the server."""
        return self._saved >= self._replica.edits

    @property
    def access(self) -> Literal["read", "write"] | None:
        """What the server has granted; None while it has not said."""
        access = None if self._channel is None else self._channel.access
        return None if access is None else "read" if access is Access.READ else "write"

    @property
    def closed(self) -> bool:
        """Whether it was closed, or refused: it is not in sync any more, and will not be."""
        return self._status in (Status.CLOSED, Status.REFUSED)

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait until the document is in sync.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            NotSynced: not in time.
            DocumentRefused, ConnectionRefused: the server refuses it for good.
            ClientClosed: it was closed meanwhile.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: self.synced)
        except TimeoutError:
            raise NotSynced(f"the document {self.name[:100]!r} has not come within {timeout} s") from None

    async def wait_saved(self, timeout: float | None = None) -> None:
        """Wait until everything that was edited here before this call is committed on the server.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            NotSaved: not in time. The edits are kept, and sent again.
            EditRefused: this client may only read.
            DocumentRefused, ConnectionRefused: the server refuses the document, with edits that are not saved.
            ClientClosed: it was closed before.
        """
        number = self._replica.edits
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: self._is_saved(number))
        except TimeoutError:
            raise NotSaved(
                f"not all edits of {self.name[:100]!r} were committed within {timeout} s ({self._status})"
            ) from None

    def _is_saved(self, number: int) -> bool:
        if self._saved >= number:
            return True
        if self.access == "read":
            raise EditRefused(f"the edits of {self.name[:100]!r} are not taken: this client may only read")
        return False

    async def statuses(self) -> AsyncIterator[Status]:
        """Give the status now, and each one that follows; who is slow misses some, and never the last one."""
        last: Status | None = None
        while last not in (Status.CLOSED, Status.REFUSED):
            if self._status is last:
                await self._changed()
                continue
            last = self._status
            yield last

    @overload
    def on(self, event: Literal["status"], callback: Callable[[Status], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["saved"], callback: Callable[[bool], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["access", "stateless"], callback: Callable[[str], object]) -> Callable[[], None]: ...

    def on(self, event: str, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function after each event; return a function that ends this.

        Args:
            event: ``status`` (gives the `Status`), ``saved`` (gives `saved`, when it becomes true), ``access`` (gives
                "read" or "write"), ``stateless`` (gives the text of a stateless message).
            callback: is called in the event loop, and must not wait.
        """
        callbacks = self._callbacks.setdefault(event, [])
        callbacks.append(callback)

        def remove() -> None:
            if callback in callbacks:
                callbacks.remove(callback)

        return remove

    # Content

    def read(self, format: Format | str = Format.JSON, root: str | None = None) -> Any:
        """Return what the document shows in a format, as the HTTP API does (docs/api.md).

        Args:
            format: "json", "text", "delta", "prosemirror", "html", "markdown" or "excalidraw".
            root: its name; None for all roots in "json", and for the one root that holds the format in others.

        Raises:
            NoSuchContent: there is no such root.
            WrongContentType: it holds something else, or several roots hold the format.
        """
        return read_content(self.doc.get_update(), Format(format), root)

    def read_text(self, root: str | None = None) -> str:
        """Return the plain text of a root; "" for one that nobody has written into. See `read`."""
        try:
            return str(self.read(Format.TEXT, root))
        except NoSuchContent:
            return ""

    def read_json(self, root: str | None = None) -> Any:
        """Return the JSON of a root, None for one that nobody has written into; of all roots without a name."""
        try:
            return self.read(Format.JSON, root)
        except NoSuchContent:
            return None

    def edit(self, function: Callable[[pycrdt.Doc[Any]], T]) -> T:
        """Call a function with the document in one transaction, and return what it returns.

        What it has done before it raises stays done: a CRDT takes nothing back.
        """
        with self.doc.transaction():
            return function(self.doc)

    def apply(self, edit: Edit) -> bool:
        """Make an edit of ``collab.content.edits``; what is equal stays. Return whether anything has changed.

        Raises:
            ContentError: it cannot be made; the document is as it was.
        """
        with self.doc.transaction():  # nobody else's edits come in between
            update = Editor(self.doc.get_update(), self.doc.client_id).edit(edit)
            if update:
                self.doc.apply_update(update)
        return bool(update)

    def replace_text(self, root: str, text: str) -> bool:
        """Make a root show a text by its difference: what stays equal keeps its identity, and cursors their place.

        Return whether anything has changed. A root that nobody has written into becomes a text.

        Raises:
            ContentError: the root is no text.
        """
        return self.apply(Replace(root, Format.TEXT, text, type=RootType.TEXT))

    async def send_stateless(self, text: str) -> None:
        """Send a text to the other clients of the document; it is kept nowhere, and lost while there is no connection.

        Raises:
            NotSynced: there is no connection, or too many messages wait for it.
            ClientClosed, DocumentRefused, ConnectionRefused: the document is closed.
        """
        self._check()
        if self._channel is None or self._channel.stage is Stage.OPENING or len(self._stateless) >= MAX_STATELESS:
            raise NotSynced("a stateless message cannot be sent now")
        self._stateless.append(text)
        self._host.mark(self)

    async def close(self, *, save: bool = True, timeout: float | None = None) -> None:
        """Leave the document. Its ``doc`` stays usable.

        Args:
            save: wait until all edits are committed.
            timeout: seconds for that; None takes what the connection was made with.

        Raises:
            NotSaved, EditRefused, DocumentRefused, ConnectionRefused: edits are not committed. It is closed all the
                same.
        """
        if self._status is Status.CLOSED:
            return
        try:
            if save and not self.saved:
                await self.wait_saved(self._close_timeout if timeout is None else timeout)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        channel, self._channel = self._channel, None
        self._set(Status.CLOSED)
        farewell = None if channel is None or channel.stage in (Stage.OPENING, Stage.ENDED) else channel.leave()
        self.awareness.disconnected()
        await self._host.leave(self, channel, farewell)
        async with _held(self.doc):
            self._replica.close()

    # For the connection

    def connecting(self) -> None:
        """Note that a socket is being opened."""
        if self._status is Status.OFFLINE:
            self._set(Status.CONNECTING)

    def attach(self, channel: Channel) -> None:
        """Go on with a socket that was opened: show a token and ask for what is lacking."""
        self._channel = channel
        self._fresh_token = None
        self._asks = self._answers = False
        self._refused, self._resent = False, None
        self._set(Status.CONNECTING)
        self.awareness.connected()
        self._host.spawn(self._show_token(channel))

    def detach(self) -> None:
        """Go on after the socket has ended."""
        self._channel = None
        self._stateless.clear()
        self._replica.lose_held()
        if not self.closed:
            self._set(Status.OFFLINE)
            self.awareness.disconnected()

    def fail(self, error: Exception) -> None:
        """Go on after the server has refused the document for good, or it has come to be of no use."""
        if self.closed:
            return
        self.error = error
        self._channel = None
        self._set(Status.REFUSED)
        self.awareness.disconnected()

    async def next_frame(self) -> bytes | None:
        """Return what is to be sent next; None for nothing now."""
        channel = self._channel
        if channel is None:
            return None
        if self._fresh_token is not None:
            token, self._fresh_token = self._fresh_token, None
            self._asks = self._asks or channel.stage is Stage.OPENING
            return channel.token(token)
        if self._asks:
            self._asks = False
            async with _held(self.doc):
                return channel.ask(self._replica.state())
        if self._answers and channel.vector is not None:
            self._answers = False
            return await self._answer(channel, channel.vector)
        if channel.stage is Stage.OPENING:
            return None
        if self._presence and self._presence_due():
            self._presence = False
            shown = self.awareness.encode()
            if shown is not None:
                return channel.presence(shown)
        if channel.may_edit and self._replica.waits:
            async with _held(self.doc):
                edit = self._replica.next_edit()
            if edit is not None:
                return channel.edit(*edit)
        return channel.stateless(self._stateless.popleft()) if self._stateless else None

    async def _answer(self, channel: Channel, vector: bytes) -> bytes:
        if channel.access is Access.READ:
            # The server would refuse what is new in it, and nothing is new in nothing.
            return channel.answer(EMPTY_UPDATE, self._saved)
        async with _held(self.doc):
            if self._refused:
                self._replica.edits += 1  # a number that no message before it has
            update, number = self._replica.answer(vector)
        if self._refused:
            self._resent = number
        return channel.answer(update, number)

    async def take(self, event: Event) -> None:
        """Take an event of the document's channel.

        Raises:
            CollabError: the server's fault.
        """
        if isinstance(event, Received):
            await self._receive(event.update, event.synced)
        elif isinstance(event, Presence):
            try:
                self.awareness.receive(event.update)
            except AwarenessError as error:
                _log.warning("%r: %s", self.name[:100], error)
        elif isinstance(event, Saved | NotTaken):
            self._settle(event)
        elif isinstance(event, Asked):
            self._answers = True
            self._host.mark(self)
        elif isinstance(event, LetIn):
            self._let_in(event.access)
        elif isinstance(event, TokenWanted):
            self._host.spawn(self._show_token(event.channel))
        elif isinstance(event, PresenceWanted):
            self._shown()
        elif isinstance(event, Said):
            self._call("stateless", event.text)
        elif isinstance(event, Ended):
            self.fail(DocumentRefused(event.reason, document_name=self.name))

    async def _receive(self, update: bytes, synced: bool) -> None:
        reader = UpdateReader(update, stored=True)
        while not reader.step(_SLICE):
            await _next_turn()
        async with _held(self.doc):
            self._replica.take(reader.result, synced=synced)
        if synced and not self.closed:
            self._set(Status.SYNCED)

    def _settle(self, event: Saved | NotTaken) -> None:
        self._host.mark(self)  # another edit may be under way now
        if isinstance(event, NotTaken):
            self._refused, self._resent = True, None
        elif self._refused and self._resent is not None and event.number >= self._resent:
            self._refused, self._resent = False, None
        if not self._refused and event.number > self._saved:
            self._saved = event.number
            if self.saved:
                self._call("saved", True)
        self._notify()

    def _let_in(self, access: Access) -> None:
        # Edits that were made while it could only read are sent when that changes.
        self._answers = self._answers or (access is not Access.READ and not self.saved and self._is_live())
        self._presence = True
        self._host.mark(self)
        self._call("access", self.access)
        self._notify()

    def _is_live(self) -> bool:
        return self._channel is not None and self._channel.stage is Stage.LIVE

    async def _show_token(self, channel: Channel) -> None:
        """Ask for a token until there is one, and have it shown."""
        while self._channel is channel:
            try:
                token = await token_of(self._token)
            except AccessDenied as error:
                self.fail(DocumentRefused(error.public, document_name=self.name))
                return
            except Exception:
                _log.warning("the token for %r could not be had; it is asked for again", self.name[:100], exc_info=True)
                await asyncio.sleep(self._host.pause())
                continue
            if self._channel is channel:
                self._fresh_token = token
                self._host.mark(self)
            return

    def tick(self) -> None:
        """Renew presence; to be called every few seconds while there is a socket."""
        self.awareness.tick()

    # Inside

    def _edited(self) -> None:
        # In the thread of the edit, within its transaction: the document may not be touched here.
        if threading.get_ident() == self._thread:
            self._host.mark(self)
            return
        try:
            self._loop.call_soon_threadsafe(self._host.mark, self)
        except RuntimeError:
            _log.warning("an edit of %r was made after its event loop was closed", self.name[:100])

    def _shown(self) -> None:
        self._presence = True
        self._host.mark(self)

    def _presence_due(self) -> bool:
        now = self._loop.time()
        left = self._presence_at + _PRESENCE_PAUSE - now
        if left > 0:
            self._loop.call_later(left, self._host.mark, self)
            return False
        self._presence_at = now
        return True

    def _set(self, status: Status) -> None:
        if status is self._status:
            return
        self._status = status
        self._call("status", status)
        self._notify()

    def _call(self, event: str, value: Any) -> None:
        for callback in tuple(self._callbacks.get(event, ())):
            try:
                callback(value)
            except Exception:
                _log.exception("a callback for %s of %r failed", event, self.name[:100])

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _changed(self) -> None:
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def _until(self, fact: Callable[[], bool]) -> None:
        while not fact():
            self._check()
            await self._changed()

    def _check(self) -> None:
        if self.error is not None:
            raise self.error
        if self._status is Status.CLOSED:
            raise ClientClosed(f"the document {self.name[:100]!r} was closed")


async def _next_turn() -> None:
    """Let the loop do something else."""
    await asyncio.sleep(0)


async def token_of(token: Token | None) -> str:
    """Return the token, or ask the function for one."""
    if token is None:
        return ""
    if isinstance(token, str):
        return token
    given = token() if inspect.iscoroutinefunction(token) else await asyncio.to_thread(token)
    found = await given if inspect.isawaitable(given) else given
    if not isinstance(found, str):
        raise TypeError(f"a token is a string, and the function gave {type(found).__name__}")
    return found
