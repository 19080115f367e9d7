"""What the server says about itself: named loggers, bounded log lines, one address per connection.

Strategy: the standard library's logging, so that whoever mounts the application routes our
records as any other. Nothing here configures anything on import; ``configure`` is called by
the command line alone, and ``JsonFormatter`` is there for both. Three rules hold for every line:

* INFO is for the life of things (started, opened, drained), WARNING for what an operator may
  want to act on, DEBUG for messages on the wire, marked ``<`` received and ``>`` sent.
* What a peer can cause as often as it likes goes through ``RateLimited``: a flood of bad
  messages costs a bounded number of lines and one count of those not shown. All other lines have
  a bound in the handler of ``configure``.
* Never a token, a password or the content of a document, at no level. Both formatters
  mask secrets once more at the end (``secrets``), because drivers put theirs into errors,
  and escape control characters, because peers choose the names of documents.

=======================  ==============================================================
``collab``               start, stop, configuration
``collab.auth``          key sets fetched, whoever decides on access and does not answer
``collab.audit``         the audit, where it has no file of its own, and what keeps its file from being written
``collab.connection``    one client's socket, through ``ConnectionLog``
``collab.http``          requests that are none, proxies, TLS
``collab.room``          rooms of this node: opened, unloaded, refused
``collab.loop``          an event loop that stands still, with its stack
``collab.journal``       group commit, retries, rows that the store refuses
``collab.store``         schema, snapshots, pruning
``collab.compaction``    snapshots made of tails
``collab.hooks``         Python hooks that have failed or taken too long, and what was dropped
``collab.sandbox``       worker processes: started, timed out, crashed
=======================  ==============================================================
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO
from weakref import WeakSet

from collab.telemetry.secrets import mask_secrets

ROOT = "collab"

LEVELS = ("debug", "info", "warning", "error")
"""The log levels that may be asked for, from most to least talkative."""

FORMATS = ("text", "json")
"""How lines may be written; see ``OneLineFormatter`` and ``JsonFormatter``."""

_MAX_KINDS = 1_000
"""How many kinds one ``RateLimited``, or one handler, tells apart. Kinds are constants in our code, a handful each;
the bound holds memory if one is ever made from what a peer sent."""

_LINES_AT_ONCE = 100
_LINES_PER_SECOND = 10.0
"""How many lines of one template a handler writes. A start with thousands of documents stays below the first one in all
templates that matter, and a fault that repeats without end costs a kilobyte or two a second."""

UNBOUNDED = frozenset({f"{ROOT}.audit"})
"""Loggers that bound their lines themselves, and of which each other line is wanted."""

ECS_VERSION = "8.17.0"
"""The version of the Elastic Common Schema from which ``JsonFormatter`` has its names."""

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
        record.message = escape_controls(record.message) + _not_shown(record)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record``; the lines of a traceback are indented, so that no text in it passes for a line of ours."""
        head, *traceback = super().format(record).splitlines()
        # Masked last: another handler may have cached its own text of the traceback in the record.
        return mask_secrets("\n".join([head, *("    " + escape_controls(line) for line in traceback)]))


class JsonFormatter(logging.Formatter):
    """Format a record as one line that is one JSON object, for programs that collect logs.

    The names are those of the Elastic Common Schema (ECS), with dots in them; what it has no name for begins with
    ``collab.``. Always there: ``@timestamp`` (RFC 3339 in UTC, milliseconds), ``log.level`` (in small letters),
    ``message``, ``ecs.version``, ``log.logger``, ``service.name``, ``process.pid``.
    Only where it is known: ``service.node.name`` (the name of this server, as ``collab nodes`` has it),
    ``collab.worker`` (the number of the worker process), ``collab.connection`` (its number on this server),
    ``client.address``, ``user.id``, ``collab.document`` (its name, whole), ``trace.id`` and ``span.id``,
    ``error.type``, ``error.message`` and ``error.stack_trace`` of an exception, ``collab.stack`` (a stack where nothing
    was raised).
    The message does not repeat the connection's values.
    The line is ASCII, so nothing in it can be taken for the end of a line; passwords are masked in every value.
    """

    def __init__(self, worker: int | None = None, node: str | None = None) -> None:
        """Make the formatter; a line names the ``worker`` that has written it, if there are several, and the node."""
        super().__init__()
        # What it stands on is loaded where lines are written for programs, and not by each command.
        from collab.telemetry.tracing import ids

        self._ids = ids
        self.worker = worker
        self.node = node

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as text without a line break."""
        message = record.getMessage().removeprefix(getattr(record, "address", ""))
        values: dict[str, object] = {
            "@timestamp": show_timestamp(record.created),
            "log.level": record.levelname.lower(),
            "message": message + _not_shown(record),
            "ecs.version": ECS_VERSION,
            "log.logger": record.name,
            "service.name": ROOT,
        }
        if self.node is not None:
            values["service.node.name"] = self.node
        values["process.pid"] = record.process
        if self.worker is not None:
            values["collab.worker"] = self.worker
        named = _named_in(record)
        for key, attributes in _ATTRIBUTES:
            value = next(filter(None, (getattr(record, name, None) for name in attributes)), None) or named.get(key)
            if value:
                values[key] = value if isinstance(value, int) else str(value)
        if "trace.id" not in values and (around := self._ids()) is not None:
            values["trace.id"], values["span.id"] = around
        if record.exc_info and record.exc_info[0] is not None:
            values["error.type"] = record.exc_info[0].__qualname__
            values["error.message"] = str(record.exc_info[1])
            # Not ``exc_text``: another handler may have cached its own text of the traceback there.
            values["error.stack_trace"] = self.formatException(record.exc_info)
        if record.stack_info:
            values["collab.stack"] = self.formatStack(record.stack_info)
        # Masked before it is written as JSON: what is masked ends with a word, and could take a quote with it.
        return json.dumps({key: mask_secrets(v) if isinstance(v, str) else v for key, v in values.items()})


def show_timestamp(at: float) -> str:
    """Show Unix seconds as RFC 3339 in UTC, with milliseconds."""
    seconds, milliseconds = divmod(int(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


# What a record may have, and under which attributes; the last two as the instrumentation of OpenTelemetry puts them.
_ATTRIBUTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("collab.connection", ("connection",)),
    ("client.address", ("peer",)),
    ("user.id", ("user",)),
    ("collab.document", ("document_name",)),
    ("trace.id", ("trace_id", "otelTraceID")),
    ("span.id", ("span_id", "otelSpanID")),
)


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
        old.close()
    handler = BoundedHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_FORMATTERS[format](worker))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    get_logger().setLevel(level.upper())


def name_node(name: str) -> None:
    """Let the lines of the handler that ``configure`` has made name this server from now on, where they are JSON."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonFormatter):
            handler.formatter.node = name


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Write lines to a stream: of those that one place in the code repeats, so many at once, and so many a second.

    Lines are of one kind if their logger, level and template are the same; what is filled in does not count. The next
    line of a kind that is shown ends with the number left out before it, and ``tell_left_out`` writes what no line
    follows. What somebody turns on for a while, DEBUG, has no bound.
    """

    def __init__(
        self,
        stream: TextIO,
        at_once: int = _LINES_AT_ONCE,
        per_second: float = _LINES_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bound the lines to ``stream``."""
        super().__init__(stream)
        self._at_once = at_once
        self._per_second = per_second
        self._clock = clock
        self._budgets: OrderedDict[tuple[str, int, str], _Budget] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        if record.levelno <= logging.DEBUG or record.name in UNBOUNDED:
            super().emit(record)
            return
        template = getattr(record, "template", None) or str(record.msg)
        key = (record.name, record.levelno, template[:_MAX_TEMPLATE])
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = _Budget(self._at_once, self._clock())
            if len(self._budgets) > _MAX_KINDS:
                old, dropped = self._budgets.popitem(last=False)
                self._tell(old, dropped)
        else:
            self._budgets.move_to_end(key)
            budget.refill(self._clock(), self._per_second, self._at_once)
        if budget.lines < 1.0:
            budget.left_out += 1
            return
        budget.lines -= 1.0
        if budget.left_out:
            record = copy.copy(record)
            record.left_out, budget.left_out = budget.left_out, 0
        super().emit(record)

    def tell_left_out(self) -> None:
        """Write one line for each kind of which lines were left out, and start to count anew."""
        with self.lock or contextlib.nullcontext():
            for key, budget in list(self._budgets.items()):
                self._tell(key, budget)

    def close(self) -> None:
        """Write what was left out; the stream stays open."""
        self.tell_left_out()
        super().close()

    def _tell(self, key: tuple[str, int, str], budget: _Budget) -> None:
        if not budget.left_out:
            return
        (name, level, template), count, budget.left_out = key, budget.left_out, 0
        record = logging.LogRecord(name, level, "", 0, "%d more lines like this were not shown: %s", (), None)
        record.args = (count, template)
        super().emit(record)


class _Budget:
    """Lines of one kind: how many may be shown now, since when, and how many were not."""

    __slots__ = ("at", "left_out", "lines")

    def __init__(self, lines: float, at: float) -> None:
        self.lines, self.at, self.left_out = lines, at, 0

    def refill(self, now: float, per_second: float, at_once: float) -> None:
        self.lines = min(at_once, self.lines + (now - self.at) * per_second)
        self.at = now


_MAX_TEMPLATE = 200
"""Characters by which templates are told apart: others may log what they have made themselves."""


def tell_left_out() -> None:
    """Write how many lines were left out since the last call, of all kinds; call it now and then."""
    for limited in list(_all_limited):
        limited.flush()
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BoundedHandler):
            handler.tell_left_out()


def complain(message: str) -> None:
    """Write one line to standard error for whoever has started the process, whatever level is logged.

    It is ``collab: message``; where logs are JSON it is such an object, so that standard error holds nothing else.
    """
    line = f"{ROOT}: {escape_controls(mask_secrets(message))}"
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    if as_json := next((each for each in formatters if isinstance(each, JsonFormatter)), None):
        line = as_json.format(logging.LogRecord(ROOT, logging.ERROR, "", 0, message, None, None))
    print(line, file=sys.stderr, flush=True)


_all_limited: WeakSet[RateLimited] = WeakSet()


class Rates:
    """Say which events of a kind are let through, and count the others.

    A token bucket for each kind: ``burst`` at once, then ``per_second``. ``kind`` is one of few: more than
    ``_MAX_KINDS`` of them push out the least recently used, of which ``collect`` still tells.
    """

    __slots__ = ("_buckets", "_burst", "_clock", "_gone", "_per_second")

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Bound each kind."""
        if per_second <= 0 or burst < 1:
            raise ValueError("per_second must be positive and burst at least 1")
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        # kind -> [tokens, time of the last refill, events left out, what the last one of these was about]
        self._buckets: OrderedDict[str, list[Any]] = OrderedDict()
        self._gone: list[tuple[str, int, Any]] = []

    def take(self, kind: str, about: object = None) -> int | None:
        """Let an event through: how many were left out before it; None if it is left out. ``about`` is kept with it."""
        now = self._clock()
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = [self._burst, now, 0, about]
            if len(self._buckets) > _MAX_KINDS:
                old_kind, old = self._buckets.popitem(last=False)
                if old[2]:
                    self._gone.append((old_kind, old[2], old[3]))
        else:
            self._buckets.move_to_end(kind)
            bucket[0] = min(self._burst, bucket[0] + (now - bucket[1]) * self._per_second)
            bucket[1] = now
        if bucket[0] < 1.0:
            bucket[2] += 1
            bucket[3] = about
            return None
        bucket[0] -= 1.0
        left_out: int
        left_out, bucket[2] = bucket[2], 0
        return left_out

    def left_out(self, kind: str) -> int:
        """Count the events of ``kind`` that were left out since the last one that was let through."""
        bucket = self._buckets.get(kind)
        return 0 if bucket is None else int(bucket[2])

    def collect(self) -> list[tuple[str, int, Any]]:
        """Give what was left out since the last time: its kind, how many, what the last one was about."""
        found, self._gone = self._gone, []
        for kind, bucket in self._buckets.items():
            if bucket[2]:
                found.append((kind, bucket[2], bucket[3]))
                bucket[2] = 0
        return found


class RateLimited:
    """Log each kind of event at a bounded rate and count what was not shown.

    ``burst`` lines of each kind at once, then ``per_second`` lines a second (``Rates``).
    The next line of that kind that is shown ends with the number left out before it; call
    ``flush`` now and then (at the end at the latest), so that a flood that has ended is
    counted too.

    ``tell_left_out`` calls it for all of them.

    ``kind`` is a short constant, one for each place or case. It must not be made from what a
    peer sent.
    """

    __slots__ = ("__weakref__", "_logger", "_rates")

    def __init__(
        self,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        per_second: float = 1.0,
        burst: int = 5,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bound the lines to ``logger``: ``per_second`` for each kind in the long run, ``burst`` at once."""
        self._logger = logger
        self._rates = Rates(per_second, burst, clock)
        _all_limited.add(self)

    def log(
        self,
        level: int,
        kind: str,
        message: str,
        *args: object,
        to: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        exc_info: BaseException | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> bool:
        """Log ``message % args`` if the bucket of ``kind`` allows it; tell whether it was shown.

        ``to`` shows the line through another logger (a connection's own adapter) on this one's
        budget. ``extra`` are attributes of the record. A line below the logger's level costs nothing and is not
        counted.
        """
        logger = self._logger if to is None else to
        if not logger.isEnabledFor(level):
            return False
        suppressed = self._rates.take(kind, level)
        if suppressed is None:
            return False
        if suppressed:
            message, args = message + " (%d more like it not shown)", (*args, suppressed)
        logger.log(level, message, *args, exc_info=exc_info, extra=extra)
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
        return self._rates.left_out(kind)

    def flush(self) -> None:
        """Write one line for each kind that was left out, and start to count anew."""
        for kind, suppressed, level in self._rates.collect():
            self._logger.log(level, "%s: %d more like it not shown", kind, suppressed)


class ConnectionLog(logging.LoggerAdapter[logging.Logger]):
    """Put the connection and its document before each line: ``[17 127.0.0.1 'notes/a'] ...``.

    The same values travel as attributes of the record (``connection``, ``peer``, ``document_name``, and ``user``, which
    is not put before the line), and what was put before the message as ``address``, for handlers that write JSON.
    ``template`` is the message as the code has it, by which lines are counted.
    """

    def __init__(
        self,
        connection: int | str,
        peer: str = "",
        document_name: str | None = None,
        logger: logging.Logger | None = None,
        *,
        user: str | None = None,
    ) -> None:
        """Name the connection by a number of this process, its peer's address, and the document and user it is for."""
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
        extra = {
            "connection": connection,
            "peer": peer,
            "user": user,
            "document_name": document_name,
            "address": self._plain,
        }
        super().__init__(logger if logger is not None else get_logger("connection"), extra)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log ``msg % args`` behind the connection's address, as ``logging.Logger.log``."""
        if self.isEnabledFor(level):
            text, options = self.process(msg, kwargs)
            options["extra"]["template"] = text
            self.logger.log(level, (self._prefix if args else self._plain) + text, *args, **options)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        """Merge the connection's values into the record's attributes; the line's own values win."""
        extra: Mapping[str, object] = self.extra or {}
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return str(msg), kwargs


class Shown(str):
    """A text for people, with what it stands for: a log in JSON has that under a name of its own.

    Attributes:
        key: its name there.
        whole: the text as it is, neither quoted nor cut.
    """

    __slots__ = ("key", "whole")

    key: str
    whole: str


def shown_name(document_name: str) -> str:
    """Write a document name for a log or error line: quoted, control characters escaped, cut if long.

    As an argument of a log line it is the line's ``collab.document`` in JSON.
    """
    return _shown(document_name, "collab.document")


def shown_user(user: str) -> str:
    """Write the name of a user as ``shown_name`` does; it is the line's ``user.id`` in JSON."""
    return _shown(user, "user.id")


def shown_text(text: str) -> str:
    """Write another text of a peer, as ``shown_name`` does a name."""
    if len(text) > _SHOWN_NAME:
        text = text[: _SHOWN_NAME - 1] + "…"
    return repr(text)


def _shown(whole: str, key: str) -> Shown:
    shown = Shown(shown_text(whole))
    shown.key, shown.whole = key, whole
    return shown


def _named_in(record: logging.LogRecord) -> dict[str, str]:
    """Give what the arguments of a line name; the first of a sort counts."""
    named: dict[str, str] = {}
    for value in record.args if isinstance(record.args, tuple) else ():
        if isinstance(value, Shown):
            named.setdefault(value.key, value.whole)
    return named


def _not_shown(record: logging.LogRecord) -> str:
    left_out = getattr(record, "left_out", 0)
    return f" ({left_out} more like it not shown)" if left_out else ""
