"""Python hooks: code of whoever runs the server, which is told of documents and may decide on a few things.

Strategy: one class with a method for each thing that may happen. A subclass overrides those that it wants; of all
others nothing is made. Events are frozen values with names, numbers and users; the content of a document is read only
by asking the ``Server`` that comes along. When hooks are called, in which order, and what bounds them is the business
of ``collab.hub.hooks``; docs/hooks.md says it for authors.

    class Index(Hooks):
        async def changed(self, event: Rows, server: Server) -> None:
            content = await server.read(event.name, Format.MARKDOWN)
            await search.put(event.name, content.value.decode())

    app = create_app(settings, hooks=[Index()])
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from collab.content.edits import Edit, Format
from collab.errors import ConfigurationError, Refused
from collab.protocol.session import Access

__all__ = [
    "Access",
    "Content",
    "Creation",
    "Deletion",
    "Edit",
    "Format",
    "Hooks",
    "Loaded",
    "Message",
    "Refused",
    "Relay",
    "Rows",
    "Server",
    "Visit",
    "check_hooks",
    "load_hooks",
]


@dataclass(frozen=True, slots=True)
class Creation:
    """Somebody is about to create a document.

    Attributes:
        name: of the document.
        user: who it is; None for nobody in particular.
    """

    name: str
    user: str | None


@dataclass(frozen=True, slots=True)
class Deletion:
    """Somebody is about to delete a document.

    Attributes:
        name: of the document.
        user: who it is; None for nobody in particular.
        erase: for good; else it can be restored for a while.
    """

    name: str
    user: str | None
    erase: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document has come into the memory of this node.

    Attributes:
        name: of the document.
        document: its number in the store; None if it does not exist yet.
        last: the number of its last row in the log; 0 if there is none.
        size: bytes of the whole document, encoded.
        seconds: how long reading it took.
    """

    name: str
    document: int | None
    last: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a document that are in the log: they are committed, and their authors were told so.

    Rows between the first and the last may be those of other nodes.

    Attributes:
        name: of the document.
        document: its number in the store. A document that is created anew under the same name has another one, and
            its rows begin with 1 again.
        first, last: numbers of the first and the last row that this node has written.
        authors: the users who have sent them, in the order in which they came; edits of nobody in particular name none.
        more: there were more authors than are named.
    """

    name: str
    document: int
    first: int
    last: int
    authors: tuple[str, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """A session of a client on a document: one tab that has it open, say.

    Attributes:
        name: of the document.
        session: a number that no other session of this process has; the same when it joins and when it leaves.
        user: who it is; None for nobody in particular.
        access: what it may do.
        connection: names its connection, as ``collab connections`` does.
        sessions: how many sessions this node has on the document now.
    """

    name: str
    session: int
    user: str | None
    access: Access
    connection: str
    sessions: int


@dataclass(frozen=True, slots=True)
class Message:
    """A stateless message that a client has sent to the others on a document.

    Attributes:
        name: of the document.
        session: the number of the session that has sent it, as in ``Visit``.
        user: who it is; None for nobody in particular.
        text: of the message, as the hooks before have left it.
    """

    name: str
    session: int
    user: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Relay:
    """What becomes of a stateless message.

    Attributes:
        text: what the others are sent in its place; None: nothing, and no further hook is asked.
        answer: what its sender alone is sent; None: nothing.
    """

    text: str | None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What was read of a document.

    Attributes:
        value: UTF-8; JSON in the formats that are JSON.
        state: names the state that it was read of, as the ``ETag`` of the HTTP API does.
        document: the number of the document in the store, as in ``Rows``; None if none of it is stored yet.
        last: the row of the log up to which nothing is missing in it; it may hold more.
    """

    value: bytes
    state: str
    document: int | None = None
    last: int = 0


class Server(Protocol):
    """What a hook may ask of the server that has called it.

    The time for this is a part of the hook's own time. What is refused is raised as everywhere (``collab.errors``).
    """

    async def read(self, name: str, format: Format = Format.JSON, root: str | None = None) -> Content:
        """Read what a document holds, of one root or of all that the format shows.

        Raises:
            DocumentNotFound, DocumentDeleted: there is none.
            ContentError: it cannot be shown in this format.
            CollabError: it cannot be read now.
        """
        ...

    async def state(self, name: str) -> bytes:
        """Give the whole document as a Yjs update (v1); raises as ``read``."""
        ...

    async def edit(self, name: str, edit: Edit, *, author: str | None = None, label: str | None = None) -> bool:
        """Change a document, or create it, and return after the commit; tell whether anything has changed.

        The hooks are told of this edit as of any other, but none is asked whether the document may be created.

        Args:
            name: of the document.
            edit: what is to be changed (``collab.content.edits``).
            author: who the log records as the author, to whose bounds it counts.
            label: a text that the log records beside the author, at most 255 bytes of UTF-8.

        Raises:
            OutcomeUnknown: it was taken, and nobody knows yet whether it is stored.
            CollabError: nothing was changed.
        """
        ...

    async def update(self, name: str, update: bytes, *, author: str | None = None, label: str | None = None) -> bool:
        """Apply a Yjs update (v1) to a document; else as ``edit``."""
        ...

    def send(self, name: str, text: str) -> None:
        """Send a stateless message to everybody on a document, on all nodes; no hook is asked.

        Raises:
            LimitExceeded: it is longer than stateless messages may be.
        """
        ...


class Hooks:
    """Code that is told of documents, and may decide on a few things. Override what you need; all of it is async.

    ``may_create`` and ``before_delete`` refuse by raising ``Refused("a text for people")``. ``stateless`` says what
    becomes of a message. All others observe: what they return is not looked at, and what they raise is logged.
    """

    async def start(self, server: Server) -> None:
        """Open what is needed, in the loop that will call. The server does not start if this raises."""

    async def close(self) -> None:
        """Let go of everything; nothing is called any more."""

    async def may_create(self, event: Creation, server: Server) -> None:
        """Decide whether a document may be created; raise ``Refused`` if not."""

    async def loaded(self, event: Loaded, server: Server) -> None:
        """Hear that a document has come into memory."""

    async def stored(self, event: Rows, server: Server) -> None:
        """Hear of rows after their commit, as soon as the hook is free."""

    async def changed(self, event: Rows, server: Server) -> None:
        """Hear that a document has changed: at most once in ``hook_interval_seconds``, of all rows since."""

    async def joined(self, event: Visit, server: Server) -> None:
        """Hear that a session has joined a document."""

    async def left(self, event: Visit, server: Server) -> None:
        """Hear that a session has left a document."""

    async def stateless(self, event: Message, server: Server) -> Relay | None:
        """Decide what becomes of a stateless message; None: it is passed on as it is."""

    async def before_delete(self, event: Deletion, server: Server) -> None:
        """Decide whether a document may be deleted; raise ``Refused`` if not."""


METHODS: Final = ("may_create", "loaded", "stored", "changed", "joined", "left", "stateless", "before_delete")
"""The methods of ``Hooks`` that are called when something happens."""


def check_hooks(hooks: Iterable[object]) -> tuple[Hooks, ...]:
    """Check that these are hooks, each once, whose methods are async.

    Raises:
        ConfigurationError: one is not.
    """
    found: list[Hooks] = []
    for each in hooks:
        if not isinstance(each, Hooks):
            what = "the class, not an instance of it," if inspect.isclass(each) else f"{type(each).__qualname__}"
            raise ConfigurationError(f"hooks are instances of collab.hooks.Hooks: {what} was given")
        if any(each is other for other in found):
            raise ConfigurationError(f"the same {type(each).__qualname__} was given twice as hooks")
        for name in (*METHODS, "start", "close"):
            if not inspect.iscoroutinefunction(getattr(each, name)):
                raise ConfigurationError(f"{type(each).__qualname__}.{name} is not async: write async def {name}")
        found.append(each)
    return tuple(found)


def load_hooks(places: Sequence[str]) -> tuple[Hooks, ...]:
    """Load hooks by their places, ``MODULE:NAME`` each: an instance, or what makes one when it is called.

    Modules are also looked for in the working directory, behind all that is installed.

    Raises:
        ConfigurationError: there is no such thing, or it is none.
    """
    made = []
    for place in places:
        module, _, name = place.partition(":")
        where = os.getcwd()
        if where not in sys.path:
            sys.path.append(where)
        try:
            found: object = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            made.append(found() if callable(found) and not isinstance(found, Hooks) else found)
        except Exception as error:
            # The text of what somebody else's module raises may hold anything; its kind and place do not.
            why = (
                str(error) if isinstance(error, (ImportError, AttributeError)) else f"it raised {type(error).__name__}"
            )
            raise ConfigurationError(f"--hooks {place}: {why}") from error
    return check_hooks(made)
