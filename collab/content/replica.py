"""A document in a sandbox process: read, and changed by edits that are checked before they leave.

Strategy: the bytes are the truth, and what the library holds is a view of them. There are two documents. An edit is
made in the first; the update that it gives is read by our own reader and applied to the second, which has never had
anything but updates, as any other peer. That one must show what was wanted, for the library's view of what it edits may
be another than what its update does for others. If it does not, what differs is changed on top, twice at most; else the
edit is refused. After an edit that failed, and after anything that the library should not do, both
documents are built anew from the bytes: the library knows no way back from within a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import pycrdt

from collab.content import shared
from collab.content.edits import Batch, Edit, Format, RootType
from collab.content.shape import Shape, mend_pairs
from collab.content.states import ARRAY, MAP, TEXT, XML, State, read_state, write_state
from collab.content.steps import Places, View, agree, make_steps
from collab.content.structures import Writer
from collab.content.views import Roots, read_content
from collab.errors import (
    ContentError,
    EditNotShown,
    InvalidEdit,
    SandboxCrashed,
    UnreadableContent,
    UpdateError,
    WrongContentType,
)
from collab.protocol.sync import EMPTY_UPDATE
from collab.update.merge import merge_updates
from collab.update.reader import read_update

_Result = TypeVar("_Result")

# How often an edit is mended that others would see in another way.
_MENDED: Final = 2
# Updates that are kept one by one before they are merged.
_PARTS: Final = 500

_TYPES: Final = {TEXT: RootType.TEXT, MAP: RootType.MAP, ARRAY: RootType.ARRAY, XML: RootType.XML}


class Replica:
    """A document that can be read and edited; not for several threads.

    It is not the truth: an update that `edit` returned is part of it at once, whatever becomes of the update. If it is
    not taken by the log, throw the replica away. Give it back by `apply` or not, as you like.

    Args:
        data: a v1 update that holds the whole document; ``b"\\0\\0"`` for an empty one.
        client_id: whose edits its own are, below 2^53. Nobody else may write with it meanwhile.

    Raises UpdateError when ``data`` is no update, UnreadableContent for what the library cannot read (an XmlHook,
    text in a type that is no text).
    """

    def __init__(self, data: bytes, client_id: int) -> None:
        self._client = client_id
        self._parts = [data]
        self._build()

    @property
    def client_id(self) -> int:
        """Whose edits those of this replica are."""
        return self._client

    @property
    def roots(self) -> dict[str, RootType]:
        """All roots that were ever seen, sorted by name, and what each is read as."""
        return dict(sorted(self._types.items()))

    def encode(self) -> bytes:
        """Return the whole document as a v1 update, exact to the byte of what came in."""
        self._parts = [merge_updates(self._parts)]
        return self._parts[0]

    def apply(self, update: bytes) -> None:
        """Take in an update of others, or one of its own again.

        Raises UpdateError when it is no update, or needs what was not applied before, and UnreadableContent for
        what the library cannot read. The replica is as it was after the former; after the latter it is of no use.
        """
        read = read_update(update, stored=True)
        if self._shape.needs(read):
            raise UpdateError("the update needs what this replica does not hold")
        self._guarded(lambda: self._take(update))

    def read(self, format: Format, root: str | None = None) -> Any:
        """Return content in a format, as others see it.

        Args:
            format: what is wanted.
            root: its name. None for all roots in ``JSON``, for the one root that holds the format in others.

        Raises NoSuchContent when there is no such root, WrongContentType when it is none for the format, or when
        several are.
        """
        return self._guarded(lambda: read_content(Roots(self._peer, self._types), format, root))

    def edit(self, edit: Edit) -> bytes:
        """Make an edit and return its v1 update, b"" when nothing changes.

        Raises ContentError; the document is as it was then. A batch's error has the number of the edit.
        """
        if not self._shape.whole:
            raise WrongContentType("the document lacks updates that others of it need: it can only be read")
        steps = make_steps(edit)
        kept = list(self._parts)
        updates: list[bytes] = []
        try:
            return self._made(steps, isinstance(edit, Batch), updates)
        except BaseException as error:
            if updates:
                self._parts = kept
            if updates or not isinstance(error, Exception):
                self._build()
            if isinstance(error, RecursionError):
                raise InvalidEdit("the edit, or what it changes, nests too deeply") from None
            if isinstance(error, Exception | KeyboardInterrupt | SystemExit):
                raise
            raise SandboxCrashed(f"the library failed: {type(error).__name__}: {error}") from None

    def states(self, types: Mapping[str, RootType]) -> dict[str, State]:
        """Return what each root holds, as others see it; ``types`` are those of roots that are empty here."""
        return self._guarded(lambda: _states(self._peer, {**types, **_known(self._types)}))

    def take_over(self, updates: Sequence[bytes], wanted: Mapping[str, State]) -> bytes:
        """Take updates of this replica's client that were made elsewhere, and make its content what is wanted.

        Returns all of that as one update, b"" when nothing changes. Raises ContentError; the document is as it was
        then.
        """
        kept, types = list(self._parts), {name: _TYPES[state.kind] for name, state in wanted.items()}
        try:
            given = self._given(updates)
            for tries in range(_MENDED + 1):
                shown = _states(self._peer, {**types, **_known(self._types)})
                if all(shown[name].key == state.key for name, state in wanted.items()):
                    return merge_updates(given) if given else b""
                if tries == _MENDED:
                    break
                self._build()
                more: list[bytes] = []
                self._write(lambda roots, writer: _write_states(wanted, types, roots, writer), more)
                given += self._given(more)
        except ContentError:
            self._parts = kept
            self._build()
            raise
        self._parts = kept
        self._build()
        raise EditNotShown("others would not see what is wanted, and it could not be mended")

    # What is not for others

    def _build(self) -> None:
        """Make both documents from the bytes."""
        data = mend_pairs(merge_updates(self._parts) if len(self._parts) > 1 else self._parts[0])
        self._shape = Shape()
        self._shape.add(read_update(data, stored=True))
        self._types = self._shape.roots()
        self._main = load(data, self._types, self._client)
        self._peer = load(data, self._types, None)

    def _guarded(self, work: Callable[[], _Result]) -> _Result:
        """Run what uses the library; after a panic of it build the documents anew."""
        try:
            return work()
        except RecursionError:
            raise UnreadableContent("the document nests too deeply to be shown") from None
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._build()
            raise SandboxCrashed(f"the library failed: {type(error).__name__}: {error}") from None

    def _take(self, update: bytes) -> None:
        """Take an update of others into the bytes, the shape and both documents."""
        self._parts.append(update)
        if len(self._parts) > _PARTS:
            # The first one is long, merging it costs as much as a hundred edits: it waits until the rest is as long.
            first, *rest = self._parts
            merged = merge_updates(rest)
            self._parts = [first, merged] if len(merged) < len(first) else [merge_updates([first, merged])]
        if not self._noted(update):
            self._build()
            return
        try:
            self._peer.apply_update(update)
            self._main.apply_update(update)
        except (ValueError, RuntimeError) as error:
            self._build()
            raise UnreadableContent(f"pycrdt cannot read an update: {error}") from None

    def _noted(self, update: bytes) -> bool:
        """Take an update into the shape; return False when the documents must not be given it as it is."""
        read = read_update(update, stored=True)
        self._shape.add(read)
        types = self._shape.roots()
        if any(old not in (RootType.EMPTY, types[name]) for name, old in self._types.items()):
            return False
        if types != self._types:
            self._types = types
            _declare(self._peer, types)
            _declare(self._main, types)
        return not self._shape.cut_pairs(read)

    def _made(self, steps: Sequence[Callable[..., None]], numbered: bool, updates: list[bytes]) -> bytes:
        """Make an edit in the first document, check it in the second, and mend it if need be.

        Whatever the library writes is put into ``updates``.
        """
        places = Places()
        self._write(lambda roots, writer: _run(steps, numbered, roots, writer, places), updates)
        given = self._given(updates)
        if not given:
            return b""
        main, peer = self._opener(self._main), self._opener(self._peer)
        if all(agree(main, peer, place) for place in places):
            return given[0]
        wanted = [View(main, place.root, place.type) for place in places]
        for _ in range(_MENDED):
            # What the first document shows is not what the bytes say: go on from those.
            self._build()
            more: list[bytes] = []
            self._write(lambda roots, writer: _write_all(wanted, roots, writer), more)
            given += self._given(more)
            peer = self._opener(self._peer)
            if all(view.is_shown(peer) for view in wanted):
                return merge_updates(given)
        raise EditNotShown("others would not see what the edit is to give, and it could not be mended")

    def _write(self, work: Callable[[Roots, Writer], None], updates: list[bytes]) -> None:
        """Change the first document, in one transaction or several, and collect what that writes."""
        # A document with a live observer is never freed.
        subscription = self._main.observe(lambda event: updates.append(event.update))
        try:
            with Writer(self._main) as writer:
                work(self._opener(self._main), writer)
        finally:
            self._main.unobserve(subscription)

    def _given(self, updates: Sequence[bytes]) -> list[bytes]:
        """Take what the first document wrote into the bytes and the second; return it as one update, or none."""
        made = [update for update in updates if update != EMPTY_UPDATE]
        if not made:
            return []
        try:
            update = merge_updates(made)
            read = read_update(update)
        except UpdateError as error:
            raise InvalidEdit(f"what the edit would write is not taken: {error}") from None
        clock = self._shape.vector.get(self._client, 0)
        if any(section.client != self._client or section.clock != clock for section in read.sections):
            raise EditNotShown("the library wrote what does not follow on the document")
        self._parts.append(update)
        if not self._noted(update):
            raise EditNotShown("the edit would change the type of a root, or cut a surrogate pair")
        try:
            self._peer.apply_update(update)
        except (ValueError, RuntimeError) as error:
            raise EditNotShown(f"another document would not take the edit: {error}") from None
        return [update]

    def _opener(self, document: pycrdt.Doc[Any]) -> Roots:
        return Roots(document, self._types)


def read(data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
    """Return what a document shows, without making it ready for edits; see `Replica` and `Replica.read`."""
    data = mend_pairs(data)
    shape = Shape()
    shape.add(read_update(data, stored=True))
    types = shape.roots()
    try:
        return read_content(Roots(load(data, types, None), types), format, root)
    except RecursionError:
        raise UnreadableContent("the document nests too deeply to be shown") from None


def load(data: bytes, types: dict[str, RootType], client_id: int | None) -> pycrdt.Doc[Any]:
    """Load a document into the library, its roots declared before, so that none is ever read as another type (C7)."""
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client_id)
    _declare(document, types)
    try:
        document.apply_update(data)
    except (ValueError, RuntimeError) as error:
        raise UnreadableContent(f"pycrdt cannot read the document: {error}") from None
    return document


def _declare(document: pycrdt.Doc[Any], types: dict[str, RootType]) -> None:
    for name, type_ in types.items():
        if type_ in shared.TYPES:
            document.get(name, type=shared.TYPES[type_])


def _known(types: Mapping[str, RootType]) -> dict[str, RootType]:
    return {name: type_ for name, type_ in types.items() if type_ is not RootType.EMPTY}


def _states(document: pycrdt.Doc[Any], types: Mapping[str, RootType]) -> dict[str, State]:
    return {name: read_state(document.get(name, type=shared.TYPES[type_])) for name, type_ in _known(types).items()}


def _write_states(wanted: Mapping[str, State], types: Mapping[str, RootType], roots: Roots, writer: Writer) -> None:
    for name, state in wanted.items():
        write_state(roots(name, types[name]), state, writer)


def _run(steps: Sequence[Callable[..., None]], numbered: bool, roots: Roots, writer: Writer, places: Places) -> None:
    """Make the steps of an edit, one after the other."""
    for number, step in enumerate(steps):
        try:
            step(roots, writer, places)
        except ContentError as error:
            if not numbered:
                raise
            raise type(error)(f"edit {number}: {error}", edit=number) from None


def _write_all(views: Sequence[View], roots: Roots, writer: Writer) -> None:
    for view in views:
        view.write(roots, writer)
