"""What the sandbox processes do: pure functions from bytes to plain values.

Strategy: compaction works on bytes and knows no CRDT library; only showing content needs one, so pycrdt is
imported inside that job and nowhere else in the server. Whatever goes wrong there (a panic, an endless loop, a
stack overflow) ends this process and costs this job; see ``pool`` and docs/decisions/0009.
"""

from __future__ import annotations

import base64
import math
import os
import resource
import signal
from collections.abc import Callable
from typing import Any, TypeVar

from collab.errors import SandboxError, UpdateError
from collab.sandbox.roots import RootType, find_roots
from collab.update import compact as compacting

# A chain of 33,000 nested types overflows 8 MB when the library frees it (C1 in docs/decisions/0002).
STACK_BYTES = 512 << 20

_Result = TypeVar("_Result")


def prepare_process(memory_bytes: int) -> None:
    """Set this process's limits; called in each new one before its first job."""
    # A job that holds the interpreter lock never runs a Python signal handler: let the system end it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A panic prints one line, not tens.
    os.environ["RUST_BACKTRACE"] = "0"
    # Compaction can wait; edits on the same core cannot.
    os.nice(_NICENESS)
    _limit(resource.RLIMIT_STACK, STACK_BYTES)
    _limit(resource.RLIMIT_AS, memory_bytes)
    # A crash that tests and operators expect leaves no core file of the memory's size.
    _limit(resource.RLIMIT_CORE, 0)


_NICENESS = 10


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


def content(data: bytes) -> dict[str, Any]:
    """Return a document's content by root, as values that JSON can hold.

    A text is a string, or a list of Quill's ``{"insert", "attributes"}`` when it has formats or embeds; XML is
    its source; numbers that are no JSON are None, as ``JSON.stringify`` writes them; bytes are
    ``{"base64": ...}``, subdocuments ``{"guid": ...}``. Roots in which nothing live was found are left out.
    Raises UpdateError when ``data`` is no update, SandboxError when the library cannot read it (an XmlHook, say).
    """
    # Compacted, a surrogate pair that a delete has halved is two U+FFFD, where yrs would lose a clock.
    data = compacting.compact(data).data
    roots = find_roots(data)

    import pycrdt

    document: pycrdt.Doc[Any] = pycrdt.Doc()
    # Roots are declared before the update comes, so that none is ever read as another type (C7).
    types: dict[RootType, Any] = {
        RootType.TEXT: pycrdt.Text,
        RootType.MAP: pycrdt.Map,
        RootType.ARRAY: pycrdt.Array,
        RootType.XML: pycrdt.XmlFragment,
    }
    shared = {name: document.get(name, type=types[roots[name]]) for name in sorted(roots) if roots[name] in types}
    try:
        document.apply_update(data)
    except (ValueError, RuntimeError) as error:
        raise SandboxError(f"pycrdt cannot read the document: {error}") from None
    try:
        return {name: _plain(value) for name, value in shared.items()}
    except RecursionError:
        raise SandboxError("the document nests too deeply to be shown") from None


def _plain(value: Any) -> Any:
    """Turn what pycrdt gives into what JSON can hold."""
    import pycrdt

    if isinstance(value, pycrdt.XmlFragment | pycrdt.XmlElement | pycrdt.XmlText):
        return str(value)
    if isinstance(value, pycrdt.Text):
        runs = value.diff()
        if all(isinstance(run, str) and not attributes for run, attributes in runs):
            return "".join(run for run, _ in runs)
        return [
            {"insert": _plain(run), **({"attributes": _plain(attributes)} if attributes else {})}
            for run, attributes in runs
        ]
    if isinstance(value, pycrdt.Map):
        return {key: _plain(value[key]) for key in value.keys()}  # noqa: SIM118 - iterating is not defined by keys
    if isinstance(value, pycrdt.Array):
        return [_plain(element) for element in value]
    if isinstance(value, pycrdt.Doc):
        return {"guid": value.guid}
    if isinstance(value, dict):
        return {str(key): _plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, bytes | bytearray):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # pycrdt gives 5 as 5.0.
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise UpdateError(f"a value of type {type(value).__name__} cannot be shown")
