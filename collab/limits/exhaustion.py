"""A process that gets no memory at all: see that, and end it when it cannot be relied on any more.

Strategy: the marks of ``memory`` look at what is used. Here is the case behind them: the process has a limit of its own
(``ulimit -v``), code in it has taken everything, and each allocation fails. Most failures end one request or one
session, as any other error does. A few cannot be mended: an event loop that has no memory for a call loses the call,
and then a task waits for ever for what has happened already. The server would go on with parts that stand still. A
process that is started anew has no such parts, and nothing that was acknowledged is lost.

So a thread, which needs no loop, tries twice a second to get memory. If it gets none for ten seconds, the process ends.
If there is memory again, or the loop was seen to lose a call, the thread looks whether the server goes on: does the
loop answer, does a task wait for what is there, does the journal write? If not, the process ends: as on SIGTERM where
that is possible, and else at once. Its supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from collab.telemetry import get_logger

EXIT_CODE: Final = 75
"""What the process ends with: EX_TEMPFAIL, start it again."""

SECONDS: Final = 10.0
"""For which there may be no memory; also for the loop to answer, when there is some again."""

JOURNAL_SECONDS: Final = 40.0
"""In which something of what waits must be written. A lock on a table makes a commit wait for half a minute."""

# Seconds between two looks.
_PAUSE: Final = 0.5

# Bytes that the process tries to get. The interpreter asks the system for memory in pieces of this size.
_PROBE: Final = 1 << 20

# Bytes that are given back for the end. Nothing is ever written there, so they are addresses and no memory.
_RESERVE: Final = 16 << 20

# Seconds at most for the end in order.
_END_SECONDS: Final = 10.0

_SHORT_LOOKS: Final = int(SECONDS / _PAUSE)
_JOURNAL_LOOKS: Final = int(JOURNAL_SECONDS / _PAUSE)
_END_LOOKS: Final = int(_END_SECONDS / _PAUSE)
_CHECKS: Final = _JOURNAL_LOOKS + 2

# Made here: there may be no memory to make them when they are needed.
_NO_MEMORY: Final = f"there was no memory for {SECONDS:g} s"
_LOST: Final = "the event loop has lost a call, because there was no memory for it"
_WAITS: Final = "a task waits for what has happened, because there was no memory to tell it"
_SILENT: Final = f"the event loop has not turned for {SECONDS:g} s, after there was no memory"
_UNWRITTEN: Final = f"the journal has written nothing for {JOURNAL_SECONDS:g} s, after there was no memory"
_LINES: Final = {
    why: f"collab: {why}: the server ends, to be started again. Nothing that was acknowledged is lost.\n".encode()
    for why in (_NO_MEMORY, _LOST, _WAITS, _SILENT, _UNWRITTEN)
}
_NOT_IN_ORDER: Final = b"collab: it has not ended in order, and ends at once.\n"

_log = get_logger()


class Exhaustion:
    """Watch over the memory of a process that serves; use as a context manager on the loop.

    Args:
        end: asks the server to stop; called on the loop.
        progress: something that changes when the journal writes; None while it has nothing to write, or cannot
            because of its store.

    Attributes:
        ended: why the process ends; None as long as it does not.
    """

    def __init__(self, end: Callable[[], None], progress: Callable[[], object]) -> None:
        self.ended: str | None = None
        self._end = end
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="collab-exhaustion", daemon=True)
        self._reserve = mmap.mmap(-1, _RESERVE)
        self._unraisable, self._of_threads = sys.unraisablehook, threading.excepthook
        # Flags and small numbers, for which no memory is needed.
        self._noticed = False  # an allocation has failed, perhaps between two looks
        self._lost = False  # and with it a call of the loop
        self._why: str | None = None  # what a check has found
        self._short = 0  # looks in a row without memory
        self._checks = 0  # looks for which the server is still checked
        self._unanswered = 0  # looks for which the loop has not answered
        self._unwritten = 0  # checks in a row without progress
        self._last: object = None  # the progress last seen
        self._stuck: dict[asyncio.Task[Any], object] = {}  # tasks that wait for what is done

    def __enter__(self) -> Self:
        self._loop.set_exception_handler(self._handle)
        sys.unraisablehook = self._handle_unraisable
        threading.excepthook = self._handle_thread
        logging.getLogger("concurrent.futures").addFilter(self._handle_record)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        if self.ended is not None:
            return  # the thread sees to the end: tasks and threads that never end would hold it up
        self._loop.set_exception_handler(None)
        sys.unraisablehook, threading.excepthook = self._unraisable, self._of_threads
        logging.getLogger("concurrent.futures").removeFilter(self._handle_record)

    # What fails. Nothing of this may raise: uvloop ends the loop then.

    def _handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take what a callback of the loop has raised."""
        if isinstance(context.get("exception"), MemoryError):
            self._noticed = True
            # Without a handle it is what a socket has brought, which ends that connection; the door sees to sockets
            # that listen. A handle is a step of a task, or tells one that something has happened.
            if "handle" in context:
                self._lost = True
            return
        try:
            loop.default_exception_handler(context)
        except MemoryError:
            self._noticed = True

    def _handle_unraisable(self, unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, MemoryError):
            self._noticed = self._lost = True
        else:
            self._unraisable(unraisable)

    def _handle_thread(self, args: Any) -> None:
        if issubclass(args.exc_type, MemoryError):
            self._noticed = self._lost = True
        else:
            self._of_threads(args)

    def _handle_record(self, record: logging.LogRecord) -> bool:
        """Look at what an executor says: it logs that it could not hand a result over."""
        if record.exc_info and isinstance(record.exc_info[1], MemoryError):
            self._noticed = self._lost = True
        return True

    # The thread

    def _watch(self) -> None:
        while not self._closed.is_set():
            time.sleep(_PAUSE)
            try:
                self._look()
            except MemoryError:
                self._note_short()
            except RuntimeError:
                return  # the loop is closed

    def _look(self) -> None:
        if not _is_memory_there():
            self._note_short()
            return
        if self._short or self._noticed:
            self._short, self._noticed = 0, False
            if not self._checks:
                _log.error("there was no memory for a moment; it is looked at whether the server goes on")
            self._checks, self._unwritten = _CHECKS, 0
        if self._lost:
            self._finish(_LOST)
        if self._why is not None:
            self._finish(self._why)
        if self._checks:
            self._ask()

    def _note_short(self) -> None:
        self._short += 1
        if self._short >= _SHORT_LOOKS:
            self._finish(_NO_MEMORY)

    def _ask(self) -> None:
        """Have the loop look at the server."""
        if self._unanswered:
            self._unanswered += 1
            if self._unanswered > _SHORT_LOOKS:
                self._finish(_SILENT)
            return
        self._loop.call_soon_threadsafe(self._check)
        self._unanswered = 1

    def _finish(self, why: str) -> None:
        """End the process, in order if it can be."""
        if self._closed.is_set():
            return  # it ends anyway
        self.ended = why
        _write(_LINES[why])
        with contextlib.suppress(BufferError):
            self._reserve.close()
        asked = False
        for _ in range(_END_LOOKS):
            with contextlib.suppress(MemoryError, RuntimeError):
                if not asked:
                    self._loop.call_soon_threadsafe(self._end)
                    asked = True
            time.sleep(_PAUSE)
            if self._closed.is_set():
                break
        else:
            _write(_NOT_IN_ORDER)
        time.sleep(_PAUSE)  # for the last lines
        os._exit(EXIT_CODE)

    # On the loop

    def _check(self) -> None:
        """Look for what stands still."""
        self._unanswered = 0
        if not self._checks:
            return
        self._checks -= 1
        stuck: dict[asyncio.Task[Any], object] = {}
        for task in asyncio.all_tasks():
            # What it awaits. The step that follows was in the loop's queue before this call, unless it was lost.
            waiter = getattr(task, "_fut_waiter", None)
            if waiter is not None and waiter.done():
                if self._stuck.get(task) is waiter:
                    self._why = _WAITS
                stuck[task] = waiter
        progress = self._progress()
        self._unwritten = self._unwritten + 1 if progress is not None and progress == self._last else 0
        self._last = progress
        if self._unwritten >= _JOURNAL_LOOKS:
            self._why = _UNWRITTEN
        self._stuck = stuck if self._checks else {}
        if not self._checks and self._why is None:
            _log.warning("the server goes on, after there was no memory for a moment")


def _is_memory_there() -> bool:
    """Tell whether the process can get memory."""
    try:
        mmap.mmap(-1, _PROBE).close()
    except (OSError, MemoryError):
        return False
    return True


def _write(line: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line)
