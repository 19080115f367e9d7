"""Writes the audit of a server into its file, in a thread, so that a slow disk holds up nobody.

Strategy: entries wait in a queue with a bound. While the file cannot be written they go on to wait, the writer tries
again each second, and says so in the log. When the queue is nearly full, refusals and sign-ins are left out, which
anybody can cause; an action that finds no place is left to the caller, which has the log for it. What was left out is
counted, and an entry says so when the file can be written again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Final

from collab.audit.entries import Entry, Group, Kind, Outcome, encode_entry, make_entry
from collab.audit.file import AuditFile
from collab.errors import ConfigurationError
from collab.telemetry import get_logger

_log = get_logger("audit")

MAX_WAITING: Final = 10_000
"""Entries that wait to be written: some MB."""

# How many of the places are for actions and reads alone.
_RESERVED: Final = MAX_WAITING // 4

# Entries in one write, and seconds between two tries.
_BATCH: Final = 500
_RETRY_SECONDS: Final = 1.0

# Seconds after which it is said again that the file cannot be written.
_SAY_SECONDS: Final = 60.0

_COUNTED: Final = (Group.ACTION, Group.READ, Group.REFUSAL, Group.SIGN_IN)


class AuditWriter:
    """The queue, and the thread that empties it.

    Args:
        path: of the file.
        node: the name of this server.
        retry_seconds: between two tries to write.

    Attributes:
        written: entries that are in the file.
        lost: entries that are not, by their group; actions and reads among them are in the log.
    """

    def __init__(self, path: Path, node: str | None = None, *, retry_seconds: float = _RETRY_SECONDS) -> None:
        self.path = path
        self.written = 0
        self.lost: Counter[Group] = Counter()
        self._file = AuditFile(path)
        self._node = node
        self._retry_seconds = retry_seconds
        self._queue: deque[Entry] = deque()
        self._batch: list[Entry] = []
        self._changed = threading.Condition()
        self._closing = self._reopen = self._failing = False
        self._until = 0.0
        self._untold: Counter[Group] = Counter()  # lost, and no entry says so yet
        self._said_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    @property
    def waiting(self) -> int:
        """Entries that wait to be written."""
        return len(self._queue) + len(self._batch)

    @property
    def failing(self) -> bool:
        """Whether the last try to write has failed."""
        return self._failing

    def start(self) -> None:
        """Open the file, and begin to write.

        Raises:
            ConfigurationError: it cannot be opened.
        """
        try:
            self._file.open()
        except OSError as error:
            raise ConfigurationError(f"--audit-log {self.path} cannot be opened: {error.strerror or error}") from None
        self._thread.start()

    def put(self, entry: Entry) -> bool:
        """Let an entry be written; False if it is lost, and counted. Never waits for the disk."""
        important = entry.group in (Group.ACTION, Group.READ)
        with self._changed:
            bound = MAX_WAITING if important else MAX_WAITING - _RESERVED
            if self._closing or self.waiting >= bound:
                self.lost[entry.group] += 1
                self._untold[entry.group] += 1
                return False
            self._queue.append(entry)
            self._changed.notify()
        return True

    def reopen(self) -> None:
        """Open the file by its name once more, before anything else is written."""
        with self._changed:
            self._reopen = True
            self._changed.notify()

    def close(self, seconds: float) -> list[Entry]:
        """Write what waits, within ``seconds``; give what was not written. It blocks."""
        with self._changed:
            self._closing, self._until = True, time.monotonic() + seconds
            self._changed.notify()
        self._thread.join(seconds + self._retry_seconds)
        with self._changed:
            left = [*self._batch, *self._queue]
            self._queue.clear()
        for entry in left:
            self.lost[entry.group] += 1
        if left:
            _log.error(
                "%d entries of the audit are not in %s at the end; actions among them follow", len(left), self.path
            )
        return left

    # In the thread

    def _run(self) -> None:
        while self._wait():
            data = b"".join([encode_entry(entry, self._node) for entry in self._batch])
            try:
                if self._reopen:
                    self._reopen = False
                    self._file.open()
                if data:
                    self._file.append(data)
            except OSError as error:
                self._say(error)
                with self._changed:
                    if self._closing and time.monotonic() >= self._until:
                        break
                    self._changed.wait(self._retry_seconds)
                continue
            self.written += len(self._batch)
            self._batch = []
            if self._failing:
                self._failing, self._said_at = False, None
                _log.warning("the audit log %s is written again; %d entries were lost", self.path, self.lost.total())
        self._file.close()

    def _wait(self) -> bool:
        """Take the next batch; False at the end."""
        with self._changed:
            if self._batch:
                return True  # it could not be written
            while not (self._queue or self._reopen or self._closing or self._tells):
                self._changed.wait()
            if self._tells:
                self._batch.append(_tell_lost(self._untold))
                self._untold = Counter()
            while self._queue and len(self._batch) < _BATCH:
                self._batch.append(self._queue.popleft())
            return bool(self._batch) or self._reopen or not self._closing

    @property
    def _tells(self) -> bool:
        """Whether it is time to write how many entries are lost."""
        return bool(self._untold) and not self._failing and len(self._queue) < MAX_WAITING // 2

    def _say(self, error: OSError) -> None:
        self._failing, now = True, time.monotonic()
        if self._said_at is None or now - self._said_at >= _SAY_SECONDS:
            self._said_at = now
            reason = error.strerror or error
            _log.error("the audit log %s cannot be written, and %d entries wait: %s", self.path, self.waiting, reason)


def _tell_lost(lost: Counter[Group]) -> Entry:
    told = ", ".join(f"{lost[group]} {group.value}" for group in _COUNTED if lost[group])
    return make_entry(time.time(), 0, Kind.ENTRIES_LOST, Outcome.FAILURE, f"not in this file: {told}")
