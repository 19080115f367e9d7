"""What a sandbox process keeps between its jobs: the documents that stay, by the number of their stay.

Strategy: a process that dies has lost them all, and the one that comes in its place knows none of their numbers. So a
job for a stay that is over is told so, and never gets another document, nor the same one with the same client ID.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from collab.content.edits import Edit, Format, Patch
from collab.errors import (
    CollabError,
    InvalidEdit,
    SandboxBusy,
    SandboxCrashed,
    UnreadableContent,
    UpdateError,
    forget_frames,
)
from collab.sandbox.port import Outcome, Reading, Task, Written
from collab.update.merge import merge_updates

_replicas: dict[int, Any] = {}

TEXTS: Final = (Format.TEXT, Format.HTML, Format.MARKDOWN)
"""Formats that are a text, and no JSON."""


def load(number: int, data: bytes, client_id: int, ended: Sequence[int]) -> None:
    """Begin the stay ``number`` with a whole document, after those that have ``ended`` were forgotten."""
    _forget(ended)
    _replicas[number] = open_replica(data, client_id)


def run(number: int, updates: Sequence[bytes], tasks: Sequence[Task], ended: Sequence[int]) -> list[Outcome]:
    """Bring the document of a stay up to date and do tasks; see ``Stay.run``.

    Raises SandboxBusy when this process does not have it. Whatever else is raised has left the document in an unknown
    state: then it is forgotten here.
    """
    _forget(ended)
    replica = _replicas.pop(number, None)
    if replica is None:
        raise SandboxBusy("the document does not stay here any more")
    outcomes = do_tasks(replica, updates, tasks)
    _replicas[number] = replica
    return outcomes


def _forget(ended: Sequence[int]) -> None:
    for number in ended:
        _replicas.pop(number, None)


def open_replica(data: bytes, client_id: int) -> Any:
    """Open a document with the CRDT library, which is loaded here and not before."""
    from collab.content.replica import Replica

    return Replica(data, client_id)


def do_tasks(replica: Any, updates: Sequence[bytes], tasks: Sequence[Task]) -> list[Outcome]:
    """Add updates to a replica, then do tasks in order."""
    try:
        if updates:
            replica.apply(merge_updates(updates))  # each costs as much as all of them
    except (UpdateError, UnreadableContent) as error:
        # Loaded as a whole it may be read all the same; else that says why not.
        raise SandboxBusy(f"the document has to be loaded again: {error}") from None
    outcomes: list[Outcome] = []
    for task in tasks:
        try:
            if isinstance(task, Reading):
                outcomes.append(encode_reading(replica.read(task.format, task.root), text=task.format in TEXTS))
            else:
                outcomes.append(replica.edit(_decode(task) if isinstance(task, Written) else task))
        except SandboxCrashed as error:
            # The library has failed, and what it has left behind is not to be trusted: this process has to go.
            raise RuntimeError(str(error)) from None
        except CollabError as error:
            forget_frames(error)
            outcomes.append(error)
    return outcomes


def encode_reading(value: Any, *, text: bool) -> bytes:
    """Encode what was read: a text as it is, anything else as JSON."""
    if text:
        return bytes(value.encode(errors="replace"))
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can only write as an escape
        return json.dumps(value, separators=(",", ":")).encode()


def _decode(written: Written) -> Edit:
    """Decode the value of an edit; raises InvalidEdit."""
    edit = written.edit
    try:
        text = written.data.decode()
    except UnicodeDecodeError:
        raise InvalidEdit("the body is not UTF-8") from None
    if not isinstance(edit, Patch) and edit.format in TEXTS:
        return replace(edit, value=text)
    try:
        value = json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        raise InvalidEdit("the body is not JSON") from None
    if not isinstance(edit, Patch):
        return replace(edit, value=value)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InvalidEdit("a JSON Patch is a list of operations")
    return replace(edit, operations=tuple(value))


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
