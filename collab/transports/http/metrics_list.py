"""Every metric once: its name, its meaning, and where it is read.

Strategy: the layers below count in plain integers, and ``Reading`` is one look at them. The answer of ``/metrics`` and
the table in ``docs/operations.md`` are made from ``METRICS``, so that no number exists in one place and not in another.

A label has one of few values that are known before: a protocol, a class of error, a constant of our code. Nothing that
a client has chosen is one: no document, no user, no address.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Final, NamedTuple

from collab import errors
from collab.audit import Group
from collab.hooks import METHODS
from collab.hub.counts import CATCH_UPS
from collab.hub.hub import Hub
from collab.hub.tasks import Tasks
from collab.limits.disks import Disks
from collab.sandbox.counted import KINDS, OUTCOMES, CountedSandbox
from collab.sandbox.port import Ending
from collab.telemetry.counters import Histogram
from collab.telemetry.loop_lag import LoopLag
from collab.telemetry.release import release
from collab.transports.guard.guard import Guard
from collab.transports.http.streams.live import LiveReaders
from collab.transports.sockets.counts import SocketCounts
from collab.transports.sockets.intake import Gate
from collab.transports.sockets.websocket import WebSockets
from collab.webhooks.counts import OUTCOMES as ATTEMPTS
from collab.webhooks.counts import WebhookCounts

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Sources(NamedTuple):
    """Where the numbers are; see the classes."""

    hub: Hub
    guard: Guard
    sockets: WebSockets
    readers: LiveReaders
    sandbox: CountedSandbox
    gate: Gate
    lag: LoopLag
    tasks: tuple[Tasks, ...]
    webhooks: WebhookCounts | None = None
    disks: Disks | None = None


class Reading:
    """One look at the sources; what has to be added up over rooms or sockets is added up once."""

    def __init__(self, sources: Sources) -> None:
        self.hub = sources.hub
        self.counts = sources.hub.counts
        self.journal = sources.hub.journal
        self.healing = sources.hub.healing
        self.bus = sources.hub.bus.counts
        self.audit = sources.guard.audit
        self.guard = sources.guard
        self.memory = sources.guard.limits.memory
        self.sandbox = sources.sandbox
        self.lag = sources.lag
        self.failing = sum(len(tasks.failing) for tasks in sources.tasks)
        self.sockets = sources.sockets.counted()
        self.readers = sources.readers
        self.webhooks = WebhookCounts() if sources.webhooks is None else sources.webhooks
        self.disks = {} if sources.disks is None else sources.disks.rooms
        self._gate = sources.gate

    @cached_property
    def updates(self) -> int:
        """Updates of clients that held something new, of all rooms until now."""
        return self.counts.updates + sum([live.updates for live in self.hub.rooms.values()])

    @cached_property
    def turns(self) -> int:
        """Turns that have brought edits, of all rooms until now."""
        return self.counts.turns + sum([live.persistence.turns for live in self.hub.rooms.values()])

    @cached_property
    def sessions(self) -> int:
        """Sessions on all rooms."""
        return sum([len(live.room.sessions) for live in self.hub.rooms.values()])

    @cached_property
    def parts(self) -> dict[str, int]:
        """What is in memory, in bytes, by what it is for."""
        return {
            "documents": sum([live.room.document.size for live in self.hub.rooms.values()]),
            "frames": self.hub.frames_budget.nbytes,
            "pieces": self.hub.pieces_budget.nbytes,
            "journal": self.journal.backlog,
            "outboxes": sum([counts.held for counts in self.sockets.values()]),
            "arriving": self._gate.arriving,
        }

    def by_protocol(self, number: Callable[[SocketCounts], int]) -> dict[str, int]:
        """Give a number of the sockets, by protocol."""
        return {name: number(counts) for name, counts in self.sockets.items()}


Value = float | Mapping[str, float] | Mapping[tuple[str, str], float] | Mapping[tuple[str, str, str], float] | Histogram


class Exported(NamedTuple):
    """One metric.

    Attributes:
        name: without the suffix that its kind gives it.
        kind: COUNTER, GAUGE or HISTOGRAM.
        meaning: a sentence without its full stop.
        read: gives its value; where there are labels, by the value of the one label, or by a tuple with that of each.
        label_names: the names of its labels, with a space between two; empty without one.
    """

    name: str
    kind: str
    meaning: str
    read: Callable[[Reading], Value]
    label_names: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return tuple(self.label_names.split())

    @property
    def unit(self) -> str:
        """In what it is counted; "1" for plain numbers."""
        return next((unit for unit in ("seconds", "bytes") if self.name.endswith(f"_{unit}")), "1")

    @property
    def series(self) -> str:
        """How it is written in a query, without what a histogram adds."""
        return f"{self.name}_total" if self.kind is COUNTER else self.name


def word(name: str) -> str:
    """Write a class or a constant as the value of a label: ``document_too_large``, ``no_request``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).replace(" ", "_").lower()


def _classes(kind: type[Exception]) -> Iterator[str]:
    yield kind.__name__
    for below in kind.__subclasses__():
        yield from _classes(below)


# Each is there from the start: the first event of a series that begins with it is no increase for a query.
_LIMITS: Final = {word(name): 0 for name in _classes(errors.LimitExceeded)}
_REFUSALS: Final = {word(name): 0 for name in _classes(errors.CollabError) if word(name) not in _LIMITS}
_EVICTIONS: Final = {
    word(kind.__name__): 0
    for kind in (
        errors.DocumentDeleted,
        errors.DocumentRenamed,
        errors.DocumentReloaded,
        errors.StoreRefused,
        errors.InternalError,
    )
}


def _words(counted: Counter[str], known: Mapping[str, int]) -> dict[str, float]:
    found: dict[str, float] = dict(known)
    for name, count in counted.items():
        found[word(name)] = found.get(word(name), 0) + count
    return found


def _by_method(counted: Counter[str]) -> dict[str, float]:
    return {name: counted[name] for name in METHODS}


_STARTED: Final = time.time()
_VERSION: Final = release()

METRICS: Final[tuple[Exported, ...]] = (
    Exported("collab_build_info", GAUGE, "1, with the version of the server", lambda at: {_VERSION: 1}, "version"),
    Exported("process_start_time_seconds", GAUGE, "When the process has started, in Unix seconds", lambda at: _STARTED),
    Exported("process_cpu_seconds", COUNTER, "CPU seconds of the process", lambda at: time.process_time()),
    # Sockets
    Exported(
        "collab_connections", GAUGE, "WebSockets that are open", lambda at: at.by_protocol(lambda c: c.open), "protocol"
    ),
    Exported(
        "collab_connections_opened",
        COUNTER,
        "WebSockets that were opened",
        lambda at: at.by_protocol(lambda c: c.opened),
        "protocol",
    ),
    Exported(
        "collab_received_messages",
        COUNTER,
        "WebSocket messages of clients, pings and pongs included",
        lambda at: at.by_protocol(lambda c: c.messages),
        "protocol",
    ),
    Exported(
        "collab_received_bytes",
        COUNTER,
        "Bytes that clients have sent on WebSockets, behind the handshake",
        lambda at: at.by_protocol(lambda c: c.received),
        "protocol",
    ),
    Exported(
        "collab_read_pauses",
        COUNTER,
        "How often a connection was not read for a while, because it sent more than max_messages_per_second and the "
        "like allow",
        lambda at: at.by_protocol(lambda c: c.pauses),
        "protocol",
    ),
    Exported(
        "collab_http_answers",
        COUNTER,
        "Answers to other HTTP requests on the main port, by template of the route, method and class of status (2xx)",
        lambda at: at.guard.answers,
        "route method status",
    ),
    # Streams
    Exported(
        "collab_stream_readers", GAUGE, "Requests that wait on streams", lambda at: at.readers.open_by_mode(), "mode"
    ),
    Exported(
        "collab_stream_readers_opened",
        COUNTER,
        "Requests that have waited on streams",
        lambda at: at.readers.counts.opened,
        "mode",
    ),
    Exported(
        "collab_stream_events",
        COUNTER,
        "Batches of rows that were written to readers by server-sent events as they came",
        lambda at: at.readers.counts.events,
    ),
    Exported(
        "collab_stream_behind",
        COUNTER,
        "Times that such a reader took less than came, and read on later",
        lambda at: at.readers.counts.behind,
    ),
    Exported(
        "collab_stream_posts", COUNTER, "Posts of updates to streams", lambda at: at.readers.counts.posts, "outcome"
    ),
    Exported("collab_stream_updates", COUNTER, "Updates in those posts", lambda at: at.readers.counts.updates),
    # Rooms
    Exported("collab_rooms", GAUGE, "Documents in memory", lambda at: len(at.hub.rooms)),
    Exported("collab_sessions", GAUGE, "Clients on documents; a Hocuspocus socket has many", lambda at: at.sessions),
    Exported(
        "collab_joins", COUNTER, "Clients that have joined documents, as in collab_sessions", lambda at: at.counts.joins
    ),
    Exported(
        "collab_returns",
        COUNTER,
        "Of these, those that had something of the document already: they have lost a connection, or keep documents",
        lambda at: at.counts.returns,
    ),
    Exported("collab_updates", COUNTER, "Updates of clients that held something new", lambda at: at.updates),
    Exported(
        "collab_refused_updates",
        COUNTER,
        "Updates whose clients were told that they are not saved (SyncStatus 0): malformed, or of a client that may "
        "only read",
        lambda at: at.counts.refused_updates,
    ),
    Exported(
        "collab_turns",
        COUNTER,
        "Turns of rooms that have brought edits, each of one or more updates",
        lambda at: at.turns,
    ),
    Exported(
        "collab_turn_bytes",
        HISTOGRAM,
        "Bytes of the edits of one turn, joined",
        lambda at: at.counts.turn_bytes,
    ),
    Exported(
        "collab_propagation_seconds",
        HISTOGRAM,
        "Seconds from the receipt of the first message of a turn to when its edits were written to all clients on this "
        "node; for each turn",
        lambda at: at.counts.propagations,
    ),
    Exported(
        "collab_node_propagation_seconds",
        HISTOGRAM,
        "Seconds from the end of a turn on another node to when its edits were written to the clients on this one, by "
        "the clocks of both machines; for each row of the log",
        lambda at: at.counts.node_propagations,
    ),
    Exported(
        "collab_deliveries", COUNTER, "Frames that were written to clients of rooms", lambda at: at.counts.deliveries
    ),
    Exported(
        "collab_delivered_bytes",
        COUNTER,
        "Bytes of those frames, before they are compressed",
        lambda at: at.counts.delivered_bytes,
    ),
    Exported(
        "collab_slow_members",
        GAUGE,
        "Clients that get no live frames until they have read what waits for them",
        lambda at: at.hub.slow_members,
    ),
    Exported(
        "collab_slow_members_held_back",
        COUNTER,
        "How often a client has begun to be such a one",
        lambda at: at.counts.held_back,
    ),
    Exported(
        "collab_cold_load_seconds",
        HISTOGRAM,
        "Seconds in which a document came from the store into memory",
        lambda at: at.counts.loads,
    ),
    Exported(
        "collab_unloads", COUNTER, "Documents that left memory because nobody was there", lambda at: at.counts.unloaded
    ),
    Exported(
        "collab_evictions",
        COUNTER,
        "Documents that were closed to the clients on them, by reason: deleted, renamed, reloaded, refused by the "
        "store, or a defect",
        lambda at: _words(at.counts.evictions, _EVICTIONS),
        "reason",
    ),
    Exported(
        "collab_loop_lag_seconds",
        HISTOGRAM,
        "Seconds by which the event loop was late, looked at ten times a second",
        lambda at: at.lag.seconds,
    ),
    Exported(
        "collab_loop_stalls",
        COUNTER,
        "How often the event loop has stood still for a second or more; the log has the stacks",
        lambda at: at.lag.stalls,
    ),
    # The journal
    Exported(
        "collab_journal_queue_entries",
        GAUGE,
        "Entries of the journal that wait for a commit",
        lambda at: at.journal.waiting,
    ),
    Exported("collab_journal_queue_bytes", GAUGE, "Bytes that they take in memory", lambda at: at.journal.backlog),
    Exported(
        "collab_journal_entries",
        COUNTER,
        "Entries of the journal that were answered: committed, or refused for good",
        lambda at: at.journal.counts.entries,
    ),
    Exported(
        "collab_update_bytes",
        COUNTER,
        "Bytes of edits that were committed, joined by turns",
        lambda at: at.journal.counts.nbytes,
    ),
    Exported(
        "collab_journal_batch_entries",
        HISTOGRAM,
        "Entries of one commit",
        lambda at: at.journal.counts.batches,
    ),
    Exported(
        "collab_journal_commit_seconds",
        HISTOGRAM,
        "Seconds of one commit, which has entries of many documents",
        lambda at: at.journal.counts.commits,
    ),
    Exported(
        "collab_journal_retries",
        COUNTER,
        "Commits that have failed and were tried again",
        lambda at: at.journal.counts.retries,
    ),
    Exported(
        "collab_journal_failing",
        GAUGE,
        "1 while the store takes no writes, else 0",
        lambda at: at.journal.failing is not None,
    ),
    Exported(
        "collab_journal_stalled_seconds",
        GAUGE,
        "Seconds for which one commit has been under way, if that is too long; else 0",
        lambda at: at.journal.stalled or 0.0,
    ),
    Exported(
        "collab_acknowledgement_seconds",
        HISTOGRAM,
        "Seconds from the receipt of an edit to its commit, with which its author is told that it is saved; all turns "
        "of one commit are counted as the oldest edit in it",
        lambda at: at.journal.counts.answered,
    ),
    # What is stored
    Exported(
        "collab_store_bytes",
        GAUGE,
        "Bytes of the database, of all nodes that share it, looked at once a minute; not there for a store that "
        "does not say",
        lambda at: {} if at.counts.store_bytes is None else at.counts.store_bytes,
    ),
    Exported(
        "collab_disk_free_bytes",
        GAUGE,
        "Bytes that are free on a disk of this machine to which the server writes, by what is kept there; an audit log "
        "on the disk of the database is not told of by itself",
        lambda at: {kept: room.free for kept, room in at.disks.items()},
        "kept",
    ),
    Exported(
        "collab_disk_size_bytes",
        GAUGE,
        "Bytes that such a disk has",
        lambda at: {kept: room.size for kept, room in at.disks.items()},
        "kept",
    ),
    Exported(
        "collab_compaction_seconds",
        HISTOGRAM,
        "Seconds in which a snapshot was made and stored",
        lambda at: at.counts.compactions,
    ),
    Exported(
        "collab_compactions_failed",
        COUNTER,
        "Snapshots that could not be made; they are tried again",
        lambda at: at.counts.failed_compactions,
    ),
    Exported(
        "collab_snapshots_of_others",
        COUNTER,
        "Snapshots that other nodes have made and documents in memory have taken",
        lambda at: at.counts.snapshots_of_others,
    ),
    Exported(
        "collab_versions_pinned",
        COUNTER,
        "Named versions whose states were kept beside the log, because their rows were about to go",
        lambda at: at.hub.versions.pinned,
    ),
    Exported(
        "collab_timelines_waiting",
        GAUGE,
        "Documents with rows that are to be put into their timelines",
        lambda at: at.hub.timelines.waiting,
    ),
    Exported(
        "collab_sandbox_jobs",
        COUNTER,
        "Jobs of the sandbox, by what they are for and what became of them; load and edits are of documents that stay",
        lambda at: {(kind, word(outcome)): at.sandbox.jobs[kind, outcome] for kind in KINDS for outcome in OUTCOMES},
        "kind outcome",
    ),
    Exported(
        "collab_sandbox_jobs_under_way", GAUGE, "Jobs of the sandbox that wait or run", lambda at: at.sandbox.under_way
    ),
    Exported(
        "collab_sandbox_stays",
        GAUGE,
        "Documents that stay loaded in the sandbox, because they are edited or read over HTTP",
        lambda at: at.sandbox.staying,
    ),
    Exported(
        "collab_sandbox_stay_bytes", GAUGE, "Bytes of them, encoded, at most", lambda at: at.sandbox.staying_bytes
    ),
    Exported(
        "collab_sandbox_stays_loaded", COUNTER, "Documents that were loaded to stay", lambda at: at.sandbox.loaded
    ),
    Exported(
        "collab_sandbox_stays_ended",
        COUNTER,
        "Documents that do not stay any longer, by reason: released by who used them, idle, to make room for others, a "
        "job on them has failed, their process has gone, or the sandbox is closed",
        lambda at: {ending.value: at.sandbox.ended[ending] for ending in Ending},
        "reason",
    ),
    Exported(
        "collab_sandbox_tasks",
        COUNTER,
        "Edits and readings that were given to documents that stay; one job has many",
        lambda at: at.sandbox.tasks,
    ),
    Exported(
        "collab_rows_of_others",
        COUNTER,
        "Rows that other nodes have written and documents in memory have taken from the log",
        lambda at: at.counts.rows_of_others,
    ),
    Exported(
        "collab_instructions",
        COUNTER,
        "What operators have told all nodes and this one has followed",
        lambda at: {kind: float(count) for kind, count in at.hub.control.followed.items()},
        "kind",
    ),
    Exported(
        "collab_database_went_back",
        COUNTER,
        "How often the database was found to be an older state of itself",
        lambda at: at.healing.times,
    ),
    Exported(
        "collab_healed_rows",
        COUNTER,
        "Rows that were written again because such a database lacked what they hold; one for each document",
        lambda at: at.healing.documents,
    ),
    Exported(
        "collab_damaged_documents",
        GAUGE,
        "Documents that could not be read when somebody asked last, because what is stored of them is damaged",
        lambda at: len(at.hub.damaged),
    ),
    Exported(
        "collab_troubled_documents",
        GAUGE,
        "Documents that could not be opened, or had to be closed, for a reason of their own",
        lambda at: len(at.hub.troubled),
    ),
    # Python hooks
    Exported(
        "collab_hook_calls",
        COUNTER,
        "Calls of Python hooks that have ended in time, whatever came of them",
        lambda at: _by_method(at.counts.hooks.calls),
        "hook",
    ),
    Exported(
        "collab_hook_failures",
        COUNTER,
        "Of these, those that raised what they may not, or gave what is no answer",
        lambda at: _by_method(at.counts.hooks.failures),
        "hook",
    ),
    Exported(
        "collab_hook_timeouts",
        COUNTER,
        "Calls of Python hooks that took longer than hook_seconds and were given up",
        lambda at: _by_method(at.counts.hooks.timeouts),
        "hook",
    ),
    Exported(
        "collab_hook_dropped",
        COUNTER,
        "Events that no hook was told because too much waited, and stateless messages on which none could decide",
        lambda at: _by_method(at.counts.hooks.dropped),
        "hook",
    ),
    Exported(
        "collab_hook_waiting",
        GAUGE,
        "Events, messages and questions that wait for hooks, or with which hooks are busy",
        lambda at: at.counts.hooks.waiting,
    ),
    Exported("collab_hook_seconds", HISTOGRAM, "Seconds of calls of Python hooks", lambda at: at.counts.hooks.seconds),
    # Other nodes
    Exported(
        "collab_bus_up",
        GAUGE,
        "1 while this node can hear others, 0 while the bus is down",
        lambda at: at.hub.bus.trouble is None,
    ),
    Exported("collab_bus_nodes", GAUGE, "Other nodes that are there", lambda at: at.hub.bus.others),
    Exported(
        "collab_nodes",
        GAUGE,
        "Nodes that live by the table of nodes, this one included",
        lambda at: at.hub.membership.alive,
    ),
    Exported(
        "collab_clock_ahead_seconds",
        GAUGE,
        "By how much the clock of this machine is ahead of that of the database, at least; negative where it is behind",
        lambda at: at.hub.membership.ahead,
    ),
    Exported(
        "collab_bus_messages",
        COUNTER,
        "Messages between nodes about documents",
        lambda at: {"published": at.bus.published, "received": at.bus.received},
        "direction",
    ),
    Exported(
        "collab_bus_lost",
        COUNTER,
        "What was lost between nodes and then read from the log: messages that too much waited for, frames that were "
        "damaged, and how often some were missing",
        lambda at: {"dropped": at.bus.dropped, "damaged": at.bus.damaged, "missing": at.bus.holes},
        "reason",
    ),
    Exported(
        "collab_bus_catch_ups",
        COUNTER,
        "How often rows of other nodes were read from the log, by why: a message has said where they are (told), rows "
        "were missing between others (gap), or a look at the heads of the log has found them (look)",
        lambda at: {why: at.counts.catch_ups[why] for why in CATCH_UPS},
        "reason",
    ),
    Exported(
        "collab_bus_reconnects", COUNTER, "How often the bus was down and came back", lambda at: at.bus.reconnects
    ),
    # Webhooks
    Exported(
        "collab_tenants",
        GAUGE,
        "Tenants that have something open on this node, or had a minute ago, by how they stand to their quotas; none "
        "without --tenants",
        lambda at: {} if at.hub.tenants is None else at.hub.tenants.levels(),
        "state",
    ),
    Exported(
        "collab_quota_refusals",
        COUNTER,
        "Sessions that may only read, edits and new documents that were refused, because a tenant has used up a quota",
        lambda at: 0 if at.hub.tenants is None else at.hub.tenants.refused,
    ),
    Exported(
        "collab_webhook_attempts",
        COUNTER,
        "Attempts to bring a delivery to a receiver: taken, refused (another status than 2xx), or not answered",
        lambda at: {outcome: at.webhooks.attempts[outcome] for outcome in ATTEMPTS},
        "outcome",
    ),
    Exported(
        "collab_webhook_lost",
        COUNTER,
        "What receivers will not be told: deliveries that were given up after a day, and events that found no room",
        lambda at: {"given_up": at.webhooks.given_up, "dropped": at.webhooks.dropped},
        "reason",
    ),
    Exported(
        "collab_webhook_delivering",
        GAUGE,
        "1 on the node that delivers webhooks; the gauges below are 0 on all others",
        lambda at: int(at.webhooks.delivering),
    ),
    Exported(
        "collab_webhook_pending",
        GAUGE,
        "Deliveries that wait, of all receivers",
        lambda at: at.webhooks.pending,
    ),
    Exported(
        "collab_webhook_oldest_seconds",
        GAUGE,
        "How long the oldest delivery that waits has waited",
        lambda at: at.webhooks.oldest_seconds,
    ),
    Exported(
        "collab_webhook_disabled",
        GAUGE,
        "Receivers that are disabled, because they have failed for too long or want nothing more",
        lambda at: at.webhooks.disabled,
    ),
    # Who was refused
    Exported(
        "collab_refusals",
        COUNTER,
        "What clients were refused, or their sessions ended for, by the class of the error or what was tried; bounds "
        "are counted in collab_limits_total",
        lambda at: _words(at.audit.refusals, _REFUSALS),
        "reason",
    ),
    Exported(
        "collab_limits",
        COUNTER,
        "Bounds that clients have passed, by the class of the error or what was too much",
        lambda at: _words(at.audit.limits, _LIMITS),
        "limit",
    ),
    Exported(
        "collab_audit_entries",
        COUNTER,
        "Entries of the audit, by their group; what the rates leave out is not counted",
        lambda at: {group.value: at.audit.entries[group] for group in Group},
        "group",
    ),
    Exported(
        "collab_audit_lost",
        COUNTER,
        "Entries that found no place in the file of --audit-log; actions and reads among them are in the log",
        lambda at: {group.value: at.audit.lost[group] for group in Group},
        "group",
    ),
    Exported(
        "collab_audit_waiting",
        GAUGE,
        "Entries that wait to be written into the file of --audit-log",
        lambda at: at.audit.waiting,
    ),
    # The process
    Exported(
        "collab_memory_used_bytes",
        GAUGE,
        "Memory of the process (resident), as the marks see it",
        lambda at: at.memory.used,
    ),
    Exported(
        "collab_memory_bytes",
        GAUGE,
        "Bytes in memory that are counted, by what they are for",
        lambda at: at.parts,
        "part",
    ),
    Exported(
        "collab_memory_past_mark",
        GAUGE,
        "0, 1 past memory_mark_bytes, 2 past memory_limit_bytes",
        lambda at: at.memory.past_mark + at.memory.past_limit,
    ),
    Exported(
        "collab_tasks_failing",
        GAUGE,
        "Work beside the connections that has failed and starts again",
        lambda at: at.failing,
    ),
)
