"""The client without asyncio, for scripts, Django views and Celery jobs; the names are those of ``collab.client``.

    with connect("ws://127.0.0.1:1234", "notes") as document:
        document.replace_text("content", "hello")
        document.wait_saved()

Strategy: one thread of the process runs an event loop with the connections of all others, which call into it and wait.
The documents are `LockedDoc`, so they are read and edited in the caller's thread, as many threads as you like. The
thread is started by the first use, anew in a child process, and ended with the interpreter, after what is open was
saved. A document does not survive a fork: the child opens its own.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, overload

import pycrdt

from collab.client import connection as asynchronous
from collab.client import documents as asynchronous_documents
from collab.client import history as asynchronous_history
from collab.client.awareness import Change, State
from collab.client.document import Document as AsyncDocument
from collab.client.document import Status, Token
from collab.client.documents import DocumentPage, ListedDocument, Order
from collab.client.history import (
    KEEP,
    Attribution,
    Changes,
    Entry,
    Imported,
    Keep,
    OldVersion,
    Rewound,
    Row,
    Run,
    TimelinePage,
    Version,
    VersionPage,
)
from collab.client.http import ApiUser
from collab.client.replica import LockedDoc
from collab.content.edits import Edit, Format
from collab.errors import ClientClosed

_log = logging.getLogger("collab.client")

T = TypeVar("T")


class _Background:
    """The thread with the event loop."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.open: set[asynchronous.Connection | ApiUser] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="collab client", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop, wait for it and return what it returns; an interrupt cancels it."""
        if threading.get_ident() == self._thread.ident:
            work.close()
            raise RuntimeError("this would wait for itself: callbacks run in the thread of the client")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in the loop, and return what it returns."""

        async def work() -> T:
            return function()

        return self.call(work())

    def stop(self) -> None:
        """Save and close what is open, and end the thread."""
        for connection in list(self.open):
            try:
                self.call(connection.close())
            except Exception:
                _log.exception("a document was not saved at the end of the program")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)


_STOP_SECONDS: Final = 5.0
_lock = threading.Lock()
_background: _Background | None = None
# What a child process has inherited. Its loop must not be touched, not even to be closed: it shares the parent's
# sockets and what watches them.
_inherited: list[_Background] = []


def _get_background() -> _Background:
    global _background
    with _lock:
        if _background is None:
            _background = _Background()
        return _background


def _forget_background() -> None:
    """Begin anew in a child process: threads do not survive a fork."""
    global _background, _lock
    _lock = threading.Lock()
    if _background is not None:
        _inherited.append(_background)
        _background = None


def _stop_background() -> None:
    global _background
    background, _background = _background, None
    if background is not None:
        background.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_background)
atexit.register(_stop_background)


class Awareness:
    """Who is here, and what this client shows; see ``collab.client.Awareness``."""

    def __init__(self, document: AsyncDocument, background: _Background) -> None:
        self._awareness, self._background = document.awareness, background

    @property
    def client_id(self) -> int:
        """Of the own document."""
        return self._awareness.client_id

    @property
    def state(self) -> State | None:
        """What this client shows of itself; None for nothing."""
        return self._background.run(lambda: self._awareness.state)

    @property
    def states(self) -> Mapping[int, State]:
        """What everybody shows now, by client ID, the own state included."""
        return self._background.run(lambda: self._awareness.states)

    @property
    def others(self) -> Mapping[int, State]:
        """What the others show now, by client ID."""
        return self._background.run(lambda: self._awareness.others)

    def set(self, state: Mapping[str, Any] | None) -> None:
        """Show a state, or nothing with None. Raises ValueError as ``collab.client.Awareness.set``."""
        self._background.run(lambda: self._awareness.set(state))

    def set_field(self, name: str, value: Any) -> None:
        """Show one member of the state, and leave the others as they are."""
        self._background.run(lambda: self._awareness.set_field(name, value))

    def on_change(self, callback: Callable[[Change], object]) -> Callable[[], None]:
        """Call a function after each change, in the thread of the client; return a function that ends this."""
        return self._background.run(lambda: self._awareness.on_change(callback))


class Document:
    """A document that is kept in sync; see ``collab.client.Document``. Any thread may use it, and its ``doc``.

    A callback runs in the thread of the client. It must not call what waits: that raises RuntimeError.
    """

    def __init__(self, document: AsyncDocument, background: _Background) -> None:
        self._of, self._background = document, background
        self._awareness = Awareness(document, background)

    @property
    def name(self) -> str:
        """Of the document."""
        return self._of.name

    @property
    def doc(self) -> LockedDoc:
        """The live document. Read and edit it in any thread.

        Raises:
            ClientClosed: it was opened before a fork, and belongs to the parent process.
        """
        self._check_process()
        assert isinstance(self._of.doc, LockedDoc)
        return self._of.doc

    @property
    def awareness(self) -> Awareness:
        """Who is here, and what this client shows."""
        return self._awareness

    @property
    def status(self) -> Status:
        """How the document stands to the server now."""
        return self._of.status

    @property
    def synced(self) -> bool:
        """Whether everything that the server had has come on this connection."""
        return self._of.synced

    @property
    def saved(self) -> bool:
        """Whether every edit that was made here is committed on the server."""
        return self._of.saved

    @property
    def access(self) -> Literal["read", "write"] | None:
        """What the server has granted; None while it has not said."""
        return self._of.access

    @property
    def closed(self) -> bool:
        """Whether it was closed, or refused."""
        return self._of.closed

    @property
    def error(self) -> Exception | None:
        """Why it was refused; None if it was not."""
        return self._of.error

    def wait_synced(self, timeout: float | None = None) -> None:
        """Wait until the document is in sync; raises as ``collab.client.Document.wait_synced``."""
        self._check()
        self._background.call(self._of.wait_synced(timeout))

    def wait_saved(self, timeout: float | None = None) -> None:
        """Wait until everything that was edited here before this call is committed on the server.

        Raises as ``collab.client.Document.wait_saved``; RuntimeError in a transaction of the document.
        """
        self._check()
        self._background.call(self._of.wait_saved(timeout))

    @overload
    def on(self, event: Literal["status"], callback: Callable[[Status], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["saved"], callback: Callable[[bool], object]) -> Callable[[], None]: ...
    @overload
    def on(self, event: Literal["access", "stateless"], callback: Callable[[str], object]) -> Callable[[], None]: ...

    def on(self, event: Any, callback: Callable[[Any], object]) -> Callable[[], None]:
        """Call a function after each event, in the thread of the client; see ``collab.client.Document.on``."""
        self._check_process()
        return self._background.run(lambda: self._of.on(event, callback))

    def read(self, format: Format | str = Format.JSON, root: str | None = None) -> Any:
        """Return what the document shows in a format; see ``collab.client.Document.read``."""
        self._check_process()
        return self._of.read(format, root)

    def read_text(self, root: str | None = None) -> str:
        """Return the plain text of a root; see ``collab.client.Document.read_text``."""
        self._check_process()
        return self._of.read_text(root)

    def read_json(self, root: str | None = None) -> Any:
        """Return the JSON of a root, or of all; see ``collab.client.Document.read_json``."""
        self._check_process()
        return self._of.read_json(root)

    def edit(self, function: Callable[[pycrdt.Doc[Any]], T]) -> T:
        """Call a function with the document in one transaction, and return what it returns."""
        self._check_process()
        return self._of.edit(function)

    def apply(self, edit: Edit) -> bool:
        """Make an edit of ``collab.content.edits``; see ``collab.client.Document.apply``."""
        self._check_process()
        return self._of.apply(edit)

    def replace_text(self, root: str, text: str) -> bool:
        """Make a root show a text by its difference; see ``collab.client.Document.replace_text``."""
        self._check_process()
        return self._of.replace_text(root, text)

    def send_stateless(self, text: str) -> None:
        """Send a text to the other clients of the document; see ``collab.client.Document.send_stateless``."""
        self._check_process()
        self._background.call(self._of.send_stateless(text))

    def close(self, *, save: bool = True, timeout: float | None = None) -> None:
        """Leave the document; see ``collab.client.Document.close``."""
        self._check()
        self._background.call(self._of.close(save=save, timeout=timeout))

    def _check(self) -> None:
        """Refuse to wait where that would never end."""
        self._check_process()
        if self.doc.in_transaction:
            raise RuntimeError("the document cannot be waited for within its own transaction")

    def _check_process(self) -> None:
        _check_process(self._background)


def _check_process(background: _Background) -> None:
    if background.process != os.getpid():
        raise ClientClosed("it was opened before a fork: open it in this process")


class Connection:
    """A connection for many documents; see ``collab.client.Connection``, whose arguments it takes.

    Use it as ``with Connection(url) as connection:``.
    """

    def __init__(self, url: str, *, token: Token | None = None, **options: Any) -> None:
        self._of = asynchronous.Connection(url, token=token, **options)
        self._background: _Background | None = None

    @property
    def url(self) -> str:
        """Where it connects to."""
        return self._of.url

    def __enter__(self) -> Self:
        background = _get_background()
        background.call(self._of.__aenter__())
        background.open.add(self._of)
        self._background = background
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(save=error is None)

    def open(self, name: str, *, doc: LockedDoc | None = None, **options: Any) -> Document:
        """Open a document, and wait until it is in sync; see ``collab.client.Connection.open``.

        Args:
            name: of the document.
            doc: a `LockedDoc`, which several threads may use; None makes one.
            options: as there.

        Raises:
            TypeError: ``doc`` is another document. And as there.
        """
        background = self._opened()
        if doc is None:
            doc = LockedDoc()
        elif not isinstance(doc, LockedDoc):
            raise TypeError("hand in a LockedDoc: threads cannot share another document")
        elif doc.in_transaction:
            raise RuntimeError("the document cannot be opened within its own transaction")
        return Document(background.call(self._of.open(name, doc=doc, **options)), background)

    def close(self, *, save: bool = True) -> None:
        """Close all documents, and the connection; see ``collab.client.Connection.close``."""
        background = self._opened()
        try:
            background.call(self._of.close(save=save))
        finally:
            background.open.discard(self._of)

    def _opened(self) -> _Background:
        if self._background is None:
            raise ClientClosed("the connection is not open")
        _check_process(self._background)
        return self._background


class _Connect:
    """One document on a connection of its own; made by `connect`."""

    def __init__(self, connection: Connection, name: str, options: dict[str, Any]) -> None:
        self._connection, self._name, self._options = connection, name, options

    def __enter__(self) -> Document:
        self._connection.__enter__()
        try:
            return self._connection.open(self._name, **self._options)
        except BaseException:
            self._connection.close(save=False)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)


def connect(
    url: str,
    name: str,
    *,
    token: Token | None = None,
    doc: LockedDoc | None = None,
    wait: bool = True,
    timeout: float | None = 30.0,
    **options: Any,
) -> _Connect:
    """Open one document: ``with connect("ws://host:1234", "notes") as document:``; see ``collab.client.connect``."""
    given = {"doc": doc, "wait": wait, "timeout": timeout}
    return _Connect(Connection(url, token=token, **options), name, given)


class _OfServer:
    """What asks a server by single calls; ``asked`` does it on the loop of the background."""

    def __init__(self, asked: ApiUser) -> None:
        self._asked = asked
        self._background: _Background | None = None

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._asked.url

    def __enter__(self) -> Self:
        background = _get_background()
        background.call(self._asked.__aenter__())
        background.open.add(self._asked)
        self._background = background
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        if self._background is not None:
            _check_process(self._background)
            self._background.open.discard(self._asked)
            self._background.call(self._asked.close())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            if self._background is None:
                raise ClientClosed("it is not open: use it in a with statement")
            _check_process(self._background)
        except ClientClosed:
            work.close()
            raise
        return self._background.call(work)


class Documents(_OfServer):
    """The documents of a server; see ``collab.client.Documents``, whose arguments and methods it has.

    Use it as ``with Documents(url) as documents:``.
    """

    def __init__(self, url: str, *, token: Token | None = None, **options: Any) -> None:
        self._of = asynchronous_documents.Documents(url, token=token, **options)
        super().__init__(self._of)

    def list(self, *, order: Order = "name", prefix: str = "") -> Iterator[ListedDocument]:
        """Give the documents whose names begin with ``prefix``; see ``collab.client.Documents.list``."""
        cursor = None
        while True:
            page = self.page(order=order, prefix=prefix, cursor=cursor)
            yield from page.documents
            if (cursor := page.next) is None:
                return

    def page(
        self, *, order: Order = "name", prefix: str = "", cursor: str | None = None, limit: int = 100
    ) -> DocumentPage:
        """Return a page of the documents; see ``collab.client.Documents.page``."""
        return self._call(self._of.page(order=order, prefix=prefix, cursor=cursor, limit=limit))


class History(_OfServer):
    """The history of the documents of a server; see ``collab.client.History``, whose arguments and methods it has.

    Use it as ``with History(url) as history:``.
    """

    def __init__(self, url: str, *, token: Token | None = None, **options: Any) -> None:
        self._of = asynchronous_history.History(url, token=token, **options)
        super().__init__(self._of)

    def versions(self, name: str, *, kind: Literal["named", "automatic"] | None = None) -> Iterator[Version]:
        """Give the versions of a document, those of the newest states first, those of other systems last."""
        cursor = None
        while True:
            page = self.version_page(name, kind=kind, cursor=cursor)
            yield from page.versions
            if (cursor := page.next) is None:
                return

    def version_page(
        self,
        name: str,
        *,
        kind: Literal["named", "automatic"] | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> VersionPage:
        """Return a page of the versions of a document; see ``collab.client.History.version_page``."""
        return self._call(self._of.version_page(name, kind=kind, cursor=cursor, limit=limit))

    def make_version(
        self, name: str, title: str, *, description: str | None = None, number: int | None = None
    ) -> Version:
        """Give a state a name; see ``collab.client.History.make_version``."""
        return self._call(self._of.make_version(name, title, description=description, number=number))

    def import_version(
        self,
        name: str,
        title: str,
        update: bytes,
        at: datetime,
        *,
        description: str | None = None,
        author: str | None = None,
    ) -> Version:
        """Bring a version of another system along; see ``collab.client.History.import_version``."""
        return self._call(self._of.import_version(name, title, update, at, description=description, author=author))

    def import_versions(self, name: str, versions: Iterable[OldVersion]) -> Imported:
        """Bring many versions of another system along; see ``collab.client.History.import_versions``."""
        return self._call(self._of.import_versions(name, versions))

    def version(self, name: str, version: int) -> Version:
        """Return what is said of a version, by its id."""
        return self._call(self._of.version(name, version))

    def change_version(
        self,
        name: str,
        version: Version | int,
        *,
        title: str | None = None,
        description: str | None | Keep = KEEP,
    ) -> Version:
        """Change what is said of a version; see ``collab.client.History.change_version``."""
        return self._call(self._of.change_version(name, version, title=title, description=description))

    def delete_version(self, name: str, version: Version | int) -> None:
        """Delete a version; the document stays as it is."""
        self._call(self._of.delete_version(name, version))

    def read(
        self,
        name: str,
        *,
        version: Version | int | None = None,
        number: int | None = None,
        format: Format | str = Format.JSON,
        root: str | None = None,
    ) -> Any:
        """Return what a document held, in a format; see ``collab.client.History.read``."""
        return self._call(self._of.read(name, version=version, number=number, format=format, root=root))

    def read_update(self, name: str, *, version: Version | int | None = None, number: int | None = None) -> bytes:
        """Return what a document held as a Yjs update (v1)."""
        return self._call(self._of.read_update(name, version=version, number=number))

    def copy(self, name: str, to: str, *, version: Version | int | None = None) -> None:
        """Make a new document that holds what a version holds; see ``collab.client.History.copy``."""
        self._call(self._of.copy(name, to, version=version))

    def timeline(self, name: str) -> Iterator[Entry]:
        """Give what happened to a document, the newest first."""
        cursor = None
        while True:
            page = self.timeline_page(name, cursor=cursor)
            yield from page.entries
            if (cursor := page.next) is None:
                return

    def timeline_page(self, name: str, *, cursor: str | None = None, limit: int = 100) -> TimelinePage:
        """Return a page of the timeline of a document; see ``collab.client.History.timeline_page``."""
        return self._call(self._of.timeline_page(name, cursor=cursor, limit=limit))

    def rows(self, name: str, start: int = 0, end: int | None = None) -> Iterator[Row]:
        """Give the rows of the log behind the number ``start``, up to ``end``, one by one; None: the newest."""
        while True:
            found = self.some_rows(name, start, end)
            yield from found
            if not found:
                return
            start = found[-1].number

    def some_rows(self, name: str, start: int = 0, end: int | None = None) -> list[Row]:
        """Return the first rows behind the number ``start``; see ``collab.client.History.some_rows``."""
        return self._call(self._of.some_rows(name, start, end))

    def changes(self, name: str, start: int, end: int | None = None) -> Changes:
        """Return what the rows behind ``start`` have changed, up to ``end``: for Yjs, with snapshots."""
        return self._call(self._of.changes(name, start, end))

    def changed_text(self, name: str, start: int, end: int | None = None, *, root: str | None = None) -> list[Run]:
        """Return a text with what was inserted and deleted; see ``collab.client.History.changed_text``."""
        return self._call(self._of.changed_text(name, start, end, root=root))

    def changed_prosemirror(
        self, name: str, start: int, end: int | None = None, *, root: str | None = None
    ) -> dict[str, Any]:
        """Return a rich text with ``ychange`` marks; see ``collab.client.History.changed_prosemirror``."""
        return self._call(self._of.changed_prosemirror(name, start, end, root=root))

    def diff(self, name: str, start: int, end: int | None = None, *, root: str | None = None) -> str:
        """Return what changed in a text as a unified diff; empty if nothing has."""
        return self._call(self._of.diff(name, start, end, root=root))

    def attribution(self, name: str) -> Attribution:
        """Return who wrote what in a document, by ranges of IDs."""
        return self._call(self._of.attribution(name))

    def who_wrote(self, name: str, root: str) -> list[Run]:
        """Return a text in runs, each with who has written it."""
        return self._call(self._of.who_wrote(name, root))

    def restore(
        self,
        name: str,
        *,
        version: Version | int | None = None,
        number: int | None = None,
        root: str | None = None,
        element: str | None = None,
        on_behalf_of: str | None = None,
        label: str | None = None,
    ) -> Rewound:
        """Make a document what it was; see ``collab.client.History.restore``."""
        return self._call(
            self._of.restore(
                name,
                version=version,
                number=number,
                root=root,
                element=element,
                on_behalf_of=on_behalf_of,
                label=label,
            )
        )

    def undo(
        self,
        name: str,
        author: str,
        *,
        start: int | None = None,
        since: datetime | None = None,
        end: int | None = None,
        edited_on_behalf_of: str | None = None,
        on_behalf_of: str | None = None,
        label: str | None = None,
    ) -> Rewound:
        """Take back what one user has done; see ``collab.client.History.undo``."""
        return self._call(
            self._of.undo(
                name,
                author,
                start=start,
                since=since,
                end=end,
                edited_on_behalf_of=edited_on_behalf_of,
                on_behalf_of=on_behalf_of,
                label=label,
            )
        )


def read_text(url: str, name: str, root: str | None = None, *, token: Token | None = None, **options: Any) -> str:
    """Return the plain text of a document's root."""
    with connect(url, name, token=token, **options) as document:
        return document.read_text(root)


def read_json(url: str, name: str, root: str | None = None, *, token: Token | None = None, **options: Any) -> Any:
    """Return the JSON of a document, or of one root."""
    with connect(url, name, token=token, **options) as document:
        return document.read_json(root)


def edit(
    url: str, name: str, function: Callable[[pycrdt.Doc[Any]], T], *, token: Token | None = None, **options: Any
) -> T:
    """Call a function with a document, in one transaction; return what it returns once all of it is saved."""
    with connect(url, name, token=token, **options) as document:
        return document.edit(function)


def replace_text(url: str, name: str, root: str, text: str, *, token: Token | None = None, **options: Any) -> bool:
    """Make a root of a document show a text, by its difference; return whether it has changed, once that is saved."""
    with connect(url, name, token=token, **options) as document:
        return document.replace_text(root, text)
