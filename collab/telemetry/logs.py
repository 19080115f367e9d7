"""What the server says about itself: named loggers, bounded log lines, one address per connection.

Strategy: the standard library's logging, so that whoever mounts the application routes our
records as any other. Nothing here configures anything on import; ``configure`` is called by
the command line alone, and ``JsonFormatter`` is there for both. Three rules hold for every line:

* INFO is for the life of things (started, opened, drained), WARNING for what an operator may
  want to act on, DEBUG for messages on the wire, marked ``<`` received and ``>`` sent.
* What a peer can cause as often as it likes goes through ``RateLimited``: a flood of bad
  messages costs a bounded number of lines and one count of those not shown.
* Never a token, a password or the content of a document, at no level. Both formatters
  mask secrets once more at the end (``secrets``), because drivers put theirs into errors,
  and escape control characters, because peers choose the names of documents.

=======================  ==============================================================
``collab``               start, stop, configuration
``collab.auth``          key sets fetched, whoever decides on access and does not answer
``collab.audit``         sign-ins refused, permissions refused, limits hit
``collab.connection``    one client's socket, through ``ConnectionLog``
``collab.http``          requests that are none, proxies, TLS
``collab.room``          rooms of this node: opened, unloaded, refused
``collab.journal``       group commit, retries, rows that the store refuses
``collab.store``         schema, snapshots, pruning
``collab.compaction``    snapshots made of tails
``collab.hooks``         Python hooks that have failed or taken too long, and what was dropped
``collab.sandbox``       worker processes: started, timed out, crashed
=======================  ==============================================================
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

from collab.telemetry.secrets import mask_secrets

ROOT = "collab"

LEVELS = ("debug", "info", "warning", "error")
"""The log levels that may be asked for, from most to least talkative."""

FORMATS = ("text", "json")
"""How lines may be written; see ``OneLineFormatter`` and ``JsonFormatter``."""

_MAX_KINDS = 1_000
"""How many kinds one ``RateLimited`` tells apart. Kinds are constants in our code, a handful each;
the bound holds memory if one is ever made from what a peer sent."""

_SHOWN_NAME = 80
"""Characters of a document name in a log line: the name may have 512 bytes, the line should stay one line."""


def get_logger(name: str = "") -> logging.Logger:
    """Give the logger ``collab`` or, with a name, ``collab.<name>``; see the module's table for the names."""
    return logging.getLogger(f"{ROOT}.{name}" if name else ROOT)


def escape_controls(text: str) -> str:
    """Write control characters and line separators as escapes, so that no text of a peer forges a log line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class OneLineFormatter(logging.Formatter):
    """Format a record as one line: UTC time, level, logger, message; a traceback follows on lines of its own."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, worker: int | None = None) -> None:
        """Make the formatter; a line names the ``worker`` that has written it, if there are several."""
        named = "" if worker is None else f"[worker {worker}] "
        super().__init__(f"%(asctime)s %(levelname)-7s {named}%(name)s: %(message)s")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Escape the message of ``record``, which leaves it one line."""
        record.message = escape_controls(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record``; the lines of a traceback are indented, so that no text in it passes for a line of ours."""
        head, *traceback = super().format(record).splitlines()
        # Masked last: another handler may have cached its own text of the traceback in the record.
        return mask_secrets("\n".join([head, *("    " + escape_controls(line) for line in traceback)]))


class JsonFormatter(logging.Formatter):
    """Format a record as one line that is one JSON object, for programs that collect logs.

    Always there: ``time`` (RFC 3339 in UTC, milliseconds), ``level`` (as logging names it), ``logger``, ``message``.
    Only where several workers serve: ``worker``, the number of the one that has written the line.
    Only where the record has them: ``connection`` (its number), ``peer`` (an address), ``document`` (a name, as it is),
    ``exception`` and ``stack`` (texts of several lines). The message does not repeat the connection's values.
    The line is ASCII, so nothing in it can be taken for the end of a line; passwords are masked in every value.
    """

    def __init__(self, worker: int | None = None) -> None:
        """Make the formatter; a line names the ``worker`` that has written it, if there are several."""
        super().__init__()
        self.worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as text without a line break."""
        seconds, milliseconds = divmod(int(record.created * 1000), 1000)
        values: dict[str, object] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().removeprefix(getattr(record, "address", "")),
        }
        if self.worker is not None:
            values["worker"] = self.worker
        for key, attribute in (("connection", "connection"), ("peer", "peer"), ("document", "document_name")):
            value = getattr(record, attribute, None)
            if value is not None and value != "":
                values[key] = value if isinstance(value, int) else str(value)
        if record.exc_info and record.exc_info[0] is not None:
            # Not ``exc_text``: another handler may have cached its own text of the traceback there.
            values["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            values["stack"] = self.formatStack(record.stack_info)
        # Masked before it is written as JSON: what is masked ends with a word, and could take a quote with it.
        return json.dumps({key: mask_secrets(v) if isinstance(v, str) else v for key, v in values.items()})


_FORMATTERS: Mapping[str, type[OneLineFormatter | JsonFormatter]] = {"text": OneLineFormatter, "json": JsonFormatter}


def configure(
    level: str = "info", stream: TextIO | None = None, *, format: str = "text", worker: int | None = None
) -> None:
    """Send every record of this process to ``stream`` (default: standard error) and ``collab``'s from ``level`` up.

    Other libraries are shown from WARNING up. Calling it again replaces what it did before.
    ``level`` is one of ``LEVELS``, ``format`` one of ``FORMATS``; ``ValueError`` for any other. ``worker`` is the
    number of this process among those that serve on one port.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    if format not in FORMATS:
        raise ValueError(f"log format {format!r} is none of {', '.join(FORMATS)}")
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, tuple(_FORMATTERS.values()))]:
        root.removeHandler(old)
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_FORMATTERS[format](worker))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    get_logger().setLevel(level.upper())


def complain(message: str) -> None:
    """Write one line to standard error for whoever has started the process, whatever level is logged.

    It is ``collab: message``; where logs are JSON it is such an object, so that standard error holds nothing else.
    """
    line = f"{ROOT}: {escape_controls(mask_secrets(message))}"
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    if as_json := next((each for each in formatters if isinstance(each, JsonFormatter)), None):
        line = as_json.format(logging.LogRecord(ROOT, logging.ERROR, "", 0, message, None, None))
    print(line, file=sys.stderr, flush=True)


class RateLimited:
    """Log each kind of event at a bounded rate and count what was not shown.

    A token bucket for each kind: ``burst`` lines at once, then ``per_second`` lines a second.
    The next line of that kind that is shown ends with the number left out before it; call
    ``flush`` now and then (at the end at the latest), so that a flood that has ended is
    counted too.

    ``kind`` is a short constant, one for each place or case. It must not be made from what a
    peer sent: more than ``_MAX_KINDS`` of them push out the least recently used.
    """

    __slots__ = ("_buckets", "_burst", "_clock", "_logger", "_per_second")

    def __init__(
        self,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        per_second: float = 1.0,
        burst: int = 5,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bound the lines to ``logger``: ``per_second`` for each kind in the long run, ``burst`` at once."""
        if per_second <= 0 or burst < 1:
            raise ValueError("per_second must be positive and burst at least 1")
        self._logger = logger
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        # kind -> [tokens, time of the last refill, lines not shown, level of the last line not shown]
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()

    def log(
        self,
        level: int,
        kind: str,
        message: str,
        *args: object,
        to: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        exc_info: BaseException | None = None,
    ) -> bool:
        """Log ``message % args`` if the bucket of ``kind`` allows it; tell whether it was shown.

        ``to`` shows the line through another logger (a connection's own adapter) on this one's
        budget. A line below the logger's level costs nothing and is not counted.
        """
        logger = self._logger if to is None else to
        if not logger.isEnabledFor(level):
            return False
        now = self._clock()
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = [self._burst, now, 0, level]
            if len(self._buckets) > _MAX_KINDS:
                old_kind, old = self._buckets.popitem(last=False)
                self._report(old_kind, old)
        else:
            self._buckets.move_to_end(kind)
            bucket[0] = min(self._burst, bucket[0] + (now - bucket[1]) * self._per_second)
            bucket[1] = now
        if bucket[0] < 1.0:
            bucket[2] += 1
            bucket[3] = level
            return False
        bucket[0] -= 1.0
        suppressed, bucket[2] = int(bucket[2]), 0
        if suppressed:
            message, args = message + " (%d more like it not shown)", (*args, suppressed)
        logger.log(level, message, *args, exc_info=exc_info)
        return True

    def debug(self, kind: str, message: str, *args: object, **options: Any) -> bool:
        """Log at DEBUG; see ``log``."""
        return self.log(logging.DEBUG, kind, message, *args, **options)

    def info(self, kind: str, message: str, *args: object, **options: Any) -> bool:
        """Log at INFO; see ``log``."""
        return self.log(logging.INFO, kind, message, *args, **options)

    def warning(self, kind: str, message: str, *args: object, **options: Any) -> bool:
        """Log at WARNING; see ``log``."""
        return self.log(logging.WARNING, kind, message, *args, **options)

    def error(self, kind: str, message: str, *args: object, **options: Any) -> bool:
        """Log at ERROR; see ``log``."""
        return self.log(logging.ERROR, kind, message, *args, **options)

    def suppressed(self, kind: str) -> int:
        """Count the lines of ``kind`` that were left out since the last one shown."""
        bucket = self._buckets.get(kind)
        return int(bucket[2]) if bucket is not None else 0

    def flush(self) -> None:
        """Log one line for each kind of which lines were left out, and start to count anew."""
        for kind, bucket in self._buckets.items():
            self._report(kind, bucket)

    def _report(self, kind: str, bucket: list[float]) -> None:
        suppressed, bucket[2] = int(bucket[2]), 0
        if suppressed:
            self._logger.log(int(bucket[3]), "%s: %d more like it not shown", kind, suppressed)


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """Put the connection and its document before each line: ``[17 127.0.0.1 'notes/a'] ...``.

    The same values travel as attributes of the record (``connection``, ``peer``, ``document_name``), and what was put
    before the message as ``address``, for handlers that write JSON.
    """

    def __init__(
        self,
        connection: int | str,
        peer: str = "",
        document_name: str | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Name the connection by a number of this process, its peer's address and the document it is for."""
        parts = [str(connection)]
        if peer:
            parts.append(peer)
        if document_name is not None:
            parts.append(shown_name(document_name))
        # Connections are many and most never log: what is built once here is not built per line,
        # and "%" must survive the formatting that follows.
        self._prefix = "[" + " ".join(parts).replace("%", "%%") + "] "
        # Without arguments logging does not format, so "%%" would stay doubled.
        self._plain = "[" + " ".join(parts) + "] "
        extra = {"connection": connection, "peer": peer, "document_name": document_name, "address": self._plain}
        super().__init__(logger if logger is not None else get_logger("connection"), extra)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log ``msg % args`` behind the connection's address, as ``logging.Logger.log``."""
        if self.isEnabledFor(level):
            text, options = self.process(msg, kwargs)
            self.logger.log(level, (self._prefix if args else self._plain) + text, *args, **options)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """Merge the connection's values into the record's attributes; the line's own values win."""
        extra: Mapping[str, object] = self.extra or {}
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return str(msg), kwargs


def shown_name(document_name: str) -> str:
    """Write a document name for a log or error line: quoted, control characters escaped, cut if long."""
    if len(document_name) > _SHOWN_NAME:
        document_name = document_name[: _SHOWN_NAME - 1] + "…"
    return repr(document_name)
