"""What a sandbox process keeps between its jobs: the documents that stay, by the number of their stay.

Strategy: a process that dies has lost them all, and the one that comes in its place knows none of their numbers. So a
job for a stay that is over is told so, and never gets another document, nor the same one with the same client ID.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collab.errors import CollabError, SandboxBusy, forget_frames
from collab.sandbox.port import Outcome, Reading, Task

_replicas: dict[int, Any] = {}


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
    for update in updates:
        replica.apply(update)
    outcomes: list[Outcome] = []
    for task in tasks:
        try:
            if isinstance(task, Reading):
                outcomes.append(replica.read(task.format, task.root))
            else:
                outcomes.append(replica.edit(task))
        except CollabError as error:
            forget_frames(error)
            outcomes.append(error)
    return outcomes
