"""Undo a part of the history of a document, and make sure that everybody sees what was wanted.

Strategy: the interval is undone as one item of the library's undo manager, in a document that has kept all content of
it. So cursors, identities and what others type meanwhile survive. The library undoes rightly in its own document, but
what its update does for others is another thing in some cases (a key that was overwritten below a parent that was
deleted). So the update is applied to a replica of the live document, as any peer would; what differs there from what is
wanted is changed on top, and looked at again. If it still differs, nothing is done, and this is said. Where there
are no rows of the interval, all of it is changed on top: what comes back is new content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pycrdt

from collab.content import shared
from collab.content.edits import RootType
from collab.content.replica import Replica, load
from collab.content.shape import Shape, mend_pairs
from collab.content.states import MAP, VALUE, State, empty_state, read_state, state_of, with_element
from collab.errors import ContentError, NoSuchContent, UnreadableContent, WrongContentType
from collab.history.attribution import Attribution
from collab.history.items import Branch, Item
from collab.history.ranges import RangeMap
from collab.history.rows import data_of
from collab.history.tasks import Restore, Undo
from collab.history.tracing import Tracer
from collab.history.values import value_of
from collab.update.delete_set import encode_delete_set
from collab.update.merge import Run, cut_section, diff_update, encode_runs, merge_updates
from collab.update.reader import ANY, read_update

Ranges = dict[int, list[tuple[int, int]]]


def restore(task: Restore) -> bytes:
    """Return the update that makes a document what it was; empty if it is that already.

    Raises UpdateError when something is malformed, ContentError when it cannot be done.
    """
    return _guarded(lambda: _restore(task))


def undo(task: Undo) -> bytes:
    """Return the update that takes back what somebody has done; empty if nothing of it is left.

    Raises UpdateError when something is malformed, ContentError when it cannot be done.
    """
    return _guarded(lambda: _undo(task))


def _guarded(work: Any) -> bytes:
    try:
        found: bytes = work()
        return found
    except RecursionError:
        raise UnreadableContent("the document nests too deeply to be changed") from None


def _restore(task: Restore) -> bytes:
    past = None if task.rows is None else Past(task.base, data_of(task.rows), task.live, task.client_id)
    types, then = _old_states(task.base) if past is None else (past.types, past.states_before())
    replica = Replica(task.live, task.client_id)
    now = replica.states(types)
    wanted = _wanted(task, now, then)
    if wanted == now:
        return b""
    updates: list[bytes] = []
    if past is not None and task.element is None:
        updates = past.undo(past.inserted, past.deleted, [*wanted] if task.root is None else [task.root])
    return _take(replica, updates, wanted)


def _wanted(task: Restore, now: Mapping[str, State], then: Mapping[str, State]) -> dict[str, State]:
    """Return what each root is to hold."""
    for name in now if task.root is None else (task.root,):
        if name in now and name in then and now[name].kind != then[name].kind:
            raise WrongContentType(f"the root {name[:100]!r} is of another type now")
    if task.root is None:
        return {name: then.get(name, _none(state)) for name, state in now.items()}
    if task.root not in now:
        raise NoSuchContent(f"there is no root {task.root[:100]!r}")
    before: State | None = then.get(task.root, _none(now[task.root]))
    assert before is not None
    if task.element is not None:
        before = with_element(now[task.root], before, task.element)
        if before is None:
            raise NoSuchContent(f"there is no element {task.element[:100]!r} in {task.root[:100]!r}")
    return {**now, task.root: before}


def _old_states(base: bytes) -> tuple[dict[str, RootType], dict[str, State]]:
    """Return the roots of a document that is looked at for itself, and what each of them holds."""
    data = mend_pairs(base)
    shape = Shape()
    shape.add(read_update(data, stored=True))
    types = shape.roots()
    return types, _read_states(load(data, types, None), types)


def _undo(task: Undo) -> bytes:
    tracer = Tracer(task.base, task.owners, Attribution())
    tracer.follow(row for row in task.rows if row.seq <= task.until)
    marks = tracer.attribution.marks

    def is_theirs(number: int) -> bool:
        who = marks[number].who
        return who.author == task.author and task.on_behalf_of in (None, who.on_behalf_of)

    inserted = tracer.attribution.insertions.choose(is_theirs)
    deleted = tracer.attribution.deletions.choose(is_theirs)
    if not inserted and not deleted:
        return b""
    tracer.follow(row for row in task.rows if row.seq > task.until)
    past = Past(task.base, data_of(task.rows), task.live, task.client_id)
    replica = Replica(task.live, task.client_id)
    updates = past.undo(inserted.pairs(), deleted.pairs(), list(past.types))
    wanted = past.states_now()
    for branch in tracer.items.roots.values():
        _set_former_values(branch, inserted, deleted, tracer, wanted)
    return _take(replica, updates, wanted)


def _take(replica: Replica, updates: list[bytes], wanted: Mapping[str, State]) -> bytes:
    """Apply what was undone to the replica, and make it show what is wanted."""
    try:
        return replica.take_over(updates, wanted)
    except ContentError:
        # The library writes what nobody takes, where pairs were cut: then the difference alone.
        return replica.take_over([], wanted)


class Past:
    """A document with all content of an interval, in which that can be undone.

    Args:
        base: the document before the interval.
        later: the rows since then.
        live: the document now; it may be ahead of the rows.
        client_id: whose edits the undoing is.

    Attributes:
        types: the roots, and what each is read as.
        inserted: what was inserted since the base.
        deleted: what was deleted since the base.
    """

    def __init__(self, base: bytes, later: list[bytes], live: bytes, client_id: int) -> None:
        vector = _vector(base)
        whole = merge_updates([base, *later]) if later else base
        # What is not in a row yet; and never the live document's content in the place of a row's, which may be emptied.
        whole = mend_pairs(merge_updates([whole, diff_update(live, _vector(whole), stored=True)]))
        shape = Shape()
        shape.add(read_update(whole, stored=True))
        self.types = shape.roots()
        self._before = _cut_to(whole, vector, base)
        self.inserted: Ranges = {
            client: [(vector.get(client, 0), end)]
            for client, end in _vector(whole).items()
            if end > vector.get(client, 0)
        }
        self._document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client_id, skip_gc=True)
        self._roots = {
            name: self._document.get(name, type=shared.TYPES[type_])
            for name, type_ in self.types.items()
            if type_ in shared.TYPES
        }
        self.deleted = self._go_on(diff_update(whole, vector, stored=True))

    def _go_on(self, later: bytes) -> Ranges:
        """Load the base, then all that came later; return what that has deleted."""
        deleted: list[bytes] = []
        try:
            self._document.apply_update(self._before)
            subscription = self._document.observe(lambda event: deleted.append(event.delete_set))
            try:
                self._document.apply_update(later)
            finally:
                self._document.unobserve(subscription)
        except (ValueError, RuntimeError) as error:
            raise UnreadableContent(f"pycrdt cannot read the document: {error}") from None
        ranges: Ranges = {}
        for data in deleted:
            for entry in read_update(b"\0" + data, stored=True).deletes:
                pairs = zip(entry.ranges[::2], entry.ranges[1::2], strict=True)
                ranges.setdefault(entry.client, []).extend((clock, clock + length) for clock, length in pairs)
        return ranges

    def states_before(self) -> dict[str, State]:
        """Return what each root held before the interval."""
        return _read_states(load(self._before, self.types, None), self.types)

    def states_now(self) -> dict[str, State]:
        """Return what each root holds now."""
        return {name: read_state(root) for name, root in self._roots.items()}

    def undo(self, inserted: Ranges, deleted: Ranges, roots: list[str]) -> list[bytes]:
        """Undo what was inserted and deleted below roots; return the updates of that."""
        scopes = [self._roots[name] for name in roots if name in self._roots]
        item: pycrdt.StackItem[None] = pycrdt.StackItem(
            self._document._doc,
            pycrdt.IdSet.decode(encode_delete_set(deleted)),
            pycrdt.IdSet.decode(encode_delete_set(inserted)),
        )
        manager = pycrdt.UndoManager(scopes=scopes, undo_stack=[item])
        updates: list[bytes] = []
        subscription = self._document.observe(lambda event: updates.append(event.update))
        try:
            manager.undo()
        finally:
            self._document.unobserve(subscription)
        return updates


def _set_former_values(
    branch: Branch, inserted: RangeMap, deleted: RangeMap, tracer: Tracer, wanted: dict[str, State]
) -> None:
    """Give keys of a root map their former values where somebody's values still stand; the library forgets some."""
    state = wanted.get(branch.name or "")
    if state is None or state.kind != MAP:
        return
    values = dict(state.held)
    for key, last in branch.keys.items():
        if last.deleted or inserted.find(last.client, last.clock) is None:
            continue
        former: Item | None = last.left
        while former is not None and inserted.find(former.client, former.end - 1) is not None:
            former = former.left
        if former is None or deleted.find(former.client, former.end - 1) is None:
            values.pop(key, None)
        elif former.kind == ANY:
            content = tracer.items.content(former.client, former.end - 1)
            if key not in values or values[key].kind == VALUE:
                values[key] = state_of(VALUE, value_of(content))
    wanted[branch.name or ""] = state_of(MAP, values)


def _read_states(document: pycrdt.Doc[Any], types: Mapping[str, RootType]) -> dict[str, State]:
    return {
        name: read_state(document.get(name, type=shared.TYPES[type_]))
        for name, type_ in types.items()
        if type_ in shared.TYPES
    }


def _none(state: State) -> State:
    return empty_state(state.kind)


def _vector(data: bytes) -> dict[int, int]:
    return {section.client: section.end for section in read_update(data, stored=True).sections if section.count}


def _cut_to(whole: bytes, vector: Mapping[int, int], base: bytes) -> bytes:
    """Return the base with the structs of ``whole``, in which pairs that were cut later are written as such."""
    runs: dict[int, list[Run]] = {}
    update = read_update(whole, stored=True)
    for section in update.sections:
        end = min(section.end, vector.get(section.client, 0))
        if section.count and end > section.clock:
            runs.setdefault(section.client, []).append(cut_section(whole, section, section.clock, end))
    return encode_runs(runs, base[read_update(base, stored=True).deletes_start :])
