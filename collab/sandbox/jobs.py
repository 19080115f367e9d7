"""What the sandbox processes do: pure functions from bytes to plain values.

Strategy: compaction works on bytes and knows no CRDT library; only showing content needs one, so what loads pycrdt
(`collab.content`) is imported inside that job and nowhere else in the server. Whatever goes wrong there (a panic, an
endless loop, a stack overflow) ends this process and costs this job; see ``pool`` and docs/decisions/0009.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from collab.content.edits import Edit, Format
from collab.history import tasks
from collab.history.packed import PackedRows
from collab.protocol.sync import EMPTY_UPDATE
from collab.sandbox.stays import TEXTS, encode_reading
from collab.update import compact as compacting
from collab.update import hazards
from collab.update import reset as resetting

# A chain of 33,000 nested types overflows 8 MB when the library frees it (C1 in docs/decisions/0002).
STACK_BYTES = 512 << 20

_Result = TypeVar("_Result")


def prepare_process(memory_bytes: int, stays: bool) -> None:
    """Set this process's limits; called in each new one before its first job, or before the first document stays."""
    # A job that holds the interpreter lock never runs a Python signal handler: let the system end it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A panic prints one line, not tens.
    os.environ["RUST_BACKTRACE"] = "0"
    os.nice(NICENESS_OF_STAYS if stays else NICENESS)
    if stays:
        _keep_memory()
    _limit(resource.RLIMIT_STACK, STACK_BYTES)
    _limit(resource.RLIMIT_AS, memory_bytes)
    # A crash that tests and operators expect leaves no core file of the memory's size.
    _limit(resource.RLIMIT_CORE, 0)


# Compaction can wait; edits on the same core cannot. Somebody waits for an edit of a document that stays.
NICENESS = 10
NICENESS_OF_STAYS = 2


# Bytes that are free before some are given back to the system, and of one block that is the system's own: what the
# texts of a document have that is no longer than some millions of characters.
FREE_BYTES = 32 << 20
BLOCK_BYTES = 8 << 20

# Of <malloc.h> of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def _keep_memory() -> None:
    """Let memory that was freed stay with this process, where the C library can do that (glibc).

    An edit reads the whole text three times. By default each of these strings is new memory of the system, which has to
    clear and to map its pages, if it has more than 128 KiB: that is half of the time of an edit.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, BLOCK_BYTES)
    mallopt(_M_TRIM_THRESHOLD, FREE_BYTES)


def _limit(which: int, wanted: int) -> None:
    """Lower or raise a soft limit as far as the hard one lets us."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(which, (wanted, hard))


def limited(seconds: float, job: Callable[..., _Result], *arguments: Any) -> _Result:
    """Run a job in this process, which dies of SIGALRM if that takes longer than ``seconds``.

    The server kills what takes too long; this is for a process whose server was killed itself.
    Raises what the job raises, and RuntimeError for what cannot travel to the server (a panic).
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return job(*arguments)
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def ready() -> int:
    """Return this process's id: an empty job."""
    return os.getpid()


def compact(data: bytes, gc: bool) -> compacting.Compacted:
    """Compact a whole document; see `collab.update.compact.compact`."""
    return compacting.compact(data, gc=gc)


def reset(documents: Sequence[bytes], content: bytes | None, strict: bool, known: bytes | None) -> bytes:
    """Return the update that resets documents; with ``known``, a state vector, only what that lacks."""
    return resetting.make_reset(documents, content, strict, known)


def skeleton(documents: Sequence[bytes], known: bytes | None) -> bytes:
    """Return what remains of documents without content; with ``known``, a state vector, only what that lacks."""
    return resetting.make_skeleton(documents, known)


def find_hazard(data: bytes) -> str | None:
    """Tell why yjs would throw on a whole document; see `collab.update.hazards.find_hazard`."""
    return hazards.find_hazard(data)


def show_history(question: tasks.Question) -> tasks.Shown:
    """Answer what is asked of the history of a document (`collab.history.tasks`). Raises as `look_back`."""
    return tasks.answer(question)


def look_back(task: tasks.Task) -> bytes:
    """Make something of the history of a document (`collab.history.tasks`).

    Raises UpdateError when something is malformed, DecodeError when an attribution is damaged, ContentError when what
    is asked cannot be done or shown.
    """
    if isinstance(task, tasks.Advance):
        return tasks.advance(task)
    from collab.content import rewinding

    return rewinding.restore(task) if isinstance(task, tasks.Restore) else rewinding.undo(task)


def rebuild(snapshot: bytes | None, index: bytes | None, rows: PackedRows) -> compacting.Compacted | None:
    """Rebuild what a document held; see `collab.engine.rebuilt.rebuild`."""
    from collab.engine import rebuilt  # what the other jobs do not need

    return rebuilt.rebuild(snapshot, index, rows)


def make(edit: Edit, client_id: int) -> bytes:
    """Make a document by an edit of an empty one (`collab.content.replica.Replica.edit`); a v1 update.

    Raises ContentError when the edit cannot be made.
    """
    from collab.content.replica import Replica

    return Replica(EMPTY_UPDATE, client_id).edit(edit) or EMPTY_UPDATE


def content(data: bytes, format: Format = Format.JSON, root: str | None = None) -> Any:
    """Return what a document shows in a format, as values that JSON can hold (`collab.content.replica.Replica.read`).

    Raises UpdateError when ``data`` is no update, UnreadableContent when the library cannot read it (an XmlHook,
    say), ContentError when there is no such root or it is none for the format.
    """
    from collab.content.replica import read

    return read(data, format, root)


def show(data: bytes, format: Format, root: str | None = None) -> bytes:
    """Return what a document shows in a format, encoded: a text in UTF-8, or JSON. Raises what `content` raises."""
    return encode_reading(content(data, format, root), text=format in TEXTS)
