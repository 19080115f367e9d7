"""What a server writes of its audit: every action, and refusals and sign-ins at bounded rates.

Strategy: each entry is kept among the newest of its group, in memory, and goes into the file; where there is none, it
is a line on the logger ``collab.audit``. Anybody can cause refusals as often as he likes, so each sort of them has a
rate of its own, in which a flood of one drowns no other, and says how many were left out. Sign-ins, what has failed,
and lists that a page asks for again and again have such rates too. Actions that were done have none. An entry holds
what the operator's log may hold of an error: its message, never a token or content; what a client has chosen is cut,
and in the log quoted and escaped.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final

from collab.audit.entries import ABOUT, NOBODY, Act, Entry, Group, Kind, Outcome, Who, acting, make_entry
from collab.audit.writer import AuditWriter
from collab.errors import (
    AccessDenied,
    AccessExpired,
    AccessNotYet,
    CollabError,
    DocumentNotFound,
    LimitExceeded,
    Unauthenticated,
)
from collab.protocol.session import Access
from collab.telemetry import get_logger, shown_name, shown_user
from collab.telemetry.logs import Rates

MAX_KEPT: Final = 1_000
"""Entries of each group in memory: some hundred KB, a few MB if clients choose the longest names."""

# Of each sort of refusal, and of what has failed.
_BURST: Final = 20
_PER_SECOND: Final = 1.0

# Of sign-ins in a file of their own; in the log they have the rate of refusals.
_SIGN_IN_BURST: Final = 2_000
_SIGN_INS_PER_SECOND: Final = 200.0

# Of one list and one user: pages ask for them every few seconds.
_READS_PER_SECOND: Final = 1 / 60

_LET_IN: Final = f"{Kind.SIGN_IN}: let in"

_POLLED: Final = frozenset({Kind.CONNECTIONS_LISTED, Kind.DELIVERIES_LISTED, Kind.AUDIT_READ, Kind.DOCUMENT_READ})

_log = get_logger("audit")


class Audit:
    """Write the audit, keep the newest entries, and count what clients were refused, whether or not it is written.

    Args:
        clock: wall-clock time in Unix seconds.

    Attributes:
        refusals: what was refused for another reason than a bound, by the name of the error, or a constant that says
            what was tried.
        limits: bounds that were passed, in the same way.
        entries: entries that were made, by their group.
        writer: writes them into a file; without it they are lines of the log.
        sign_ins: whether there are entries of sign-ins at all.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.refusals: Counter[str] = Counter()
        self.limits: Counter[str] = Counter()
        self.entries: Counter[Group] = Counter()
        self.writer: AuditWriter | None = None
        self.sign_ins = True
        self._clock = clock
        self._numbers = itertools.count(1)
        self._kept: dict[Group, deque[Entry]] = {group: deque(maxlen=MAX_KEPT) for group in Group}
        self._rates = Rates(_PER_SECOND, _BURST)
        self._sign_in_rate = Rates(_PER_SECOND, _BURST)
        self._read_rates = Rates(_READS_PER_SECOND, 1)

    def write_to(self, writer: AuditWriter) -> None:
        """Write into a file from now on."""
        self.writer = writer
        self._sign_in_rate = Rates(_SIGN_INS_PER_SECOND, _SIGN_IN_BURST)
        self.act(Act(Kind.AUDIT_BEGUN), Outcome.SUCCESS)

    def close(self, seconds: float) -> None:
        """Write what waits, within ``seconds``; actions that cannot be written go into the log. It blocks."""
        writer = self.writer
        if writer is None:
            return
        self.flush()
        self.act(Act(Kind.AUDIT_ENDED), Outcome.SUCCESS)
        self.writer = None
        for entry in writer.close(seconds):
            if entry.group in (Group.ACTION, Group.READ):
                _log_entry(entry)

    @property
    def lost(self) -> Mapping[Group, int]:
        """Entries that are not in the file, by their group."""
        return Counter() if self.writer is None else self.writer.lost

    @property
    def waiting(self) -> int:
        """Entries that wait for the file."""
        return 0 if self.writer is None else self.writer.waiting

    # What is noted

    def note(self, error: BaseException, who: Who, document_name: str | None = None) -> None:
        """Note an error that a client was told, if it is one that an audit asks for."""
        kind, what = _kind(error), type(error).__name__
        (self.limits if kind is Kind.LIMIT else self.refusals)[what] += 1
        if kind is not None and isinstance(error, CollabError):
            self._refuse(kind, what, str(error) or error.public, who, document_name)

    def read_only(self, what: str, who: Who, document_name: str) -> None:
        """Note what a client has tried that may only read: ``an edit``, say, for its ``document_name``."""
        reason = f"{what} by a client that may only read"
        self.write(Kind.PERMISSION_REFUSED, what, reason, who, document_name)

    def write(self, kind: Kind, what: str, reason: str, who: Who, document_name: str | None = None) -> None:
        """Count a refusal of one of the three kinds and write it; ``what``, a constant, has a rate of its own."""
        (self.limits if kind is Kind.LIMIT else self.refusals)[what] += 1
        self._refuse(kind, what, reason, who, document_name)

    def sign_in(self, who: Callable[[], Who], document_name: str, access: Access) -> None:
        """Note that a client was let in to a document; ``who`` says which, if it is written."""
        if not self.sign_ins:
            return
        left_out = self._sign_in_rate.take(_LET_IN, Kind.SIGN_IN)
        if left_out is not None:
            self._add(Kind.SIGN_IN, Outcome.SUCCESS, f"{access.value} access", who(), document_name, left_out=left_out)

    def act(self, act: Act, outcome: Outcome, who: Who = NOBODY) -> None:
        """Note something that was done, or tried."""
        left_out: int | None = 0
        if act.kind in _POLLED:
            left_out = self._read_rates.take(f"{act.kind} {who.user} {act.document}", act.kind)
        elif outcome is not Outcome.SUCCESS:
            left_out = self._rates.take(f"{act.kind}: failed", act.kind)
        if left_out is not None:
            self._add(act.kind, outcome, act.detail, who, act.document, act.target, left_out)

    def acting(self, act: Act, who: Who) -> AbstractContextManager[Act]:
        """Do something, then note how it has ended."""
        return acting(act, lambda act, outcome: self.act(act, outcome, who))

    def flush(self) -> None:
        """Write how many entries were left out that no other one of their sort has followed."""
        for rates in (self._rates, self._sign_in_rate):
            for sort, count, kind in rates.collect():
                outcome = Outcome.SUCCESS if kind is Kind.SIGN_IN else Outcome.FAILURE
                what = sort.partition(": ")[2]
                self._add(kind, outcome, f"{what}: {count} more like it not shown", NOBODY, left_out=count)

    def newest(self, group: Group | None) -> Iterator[Entry]:
        """Give the entries in memory, in no order."""
        return itertools.chain(*(list(kept) for one, kept in self._kept.items() if group in (None, one)))

    # Entries

    def _refuse(self, kind: Kind, what: str, reason: str, who: Who, document_name: str | None) -> None:
        left_out = self._rates.take(f"{kind}: {what}", kind)
        if left_out is not None:
            self._add(kind, Outcome.FAILURE, reason, who, document_name, left_out=left_out)

    def _add(
        self,
        kind: Kind,
        outcome: Outcome,
        detail: str,
        who: Who,
        document: str | None = None,
        target: str | None = None,
        left_out: int = 0,
    ) -> None:
        # Loaded when the first one is made: commands have no need of it.
        from collab.telemetry.tracing import ids

        entry = make_entry(
            self._clock(), next(self._numbers), kind, outcome, detail, who, document, target, ids(), left_out
        )
        group = entry.group
        self.entries[group] += 1
        self._kept[group].append(entry)
        if self.writer is None or (not self.writer.put(entry) and group in (Group.ACTION, Group.READ)):
            _log_entry(entry)


def _log_entry(entry: Entry) -> None:
    """Write an entry as a line of the log."""
    who = entry.who
    where = [f"address={who.address or 'none'}"] if who.address or entry.group is Group.REFUSAL else []
    if who.user is not None:
        where.insert(1 if entry.group is Group.REFUSAL else 0, f"user={shown_user(who.user)}")
    if entry.document is not None:
        where.append(f"document={shown_name(entry.document)}")
    if who.protocol in _SOCKETS and entry.group is not Group.ACTION:
        where.append(f"protocol={who.protocol}")
    # Of the record, which formatters show behind the message.
    extra = {
        "peer": who.address,
        "user": who.user,
        "document_name": entry.document,
        "connection": who.connection,
        "left_out": entry.left_out,
    }
    said, place = entry.detail, " ".join(where)
    # Limits are what an operator may want to act on; the others happen every day.
    if entry.kind is Kind.LIMIT:
        _log.warning("limit: %s (%s)", said, place, extra=extra)
        return
    words = ABOUT[entry.kind].words or entry.kind.replace("-", " ")
    if entry.outcome is not Outcome.SUCCESS and entry.group is not Group.REFUSAL:
        words += " (failed)" if entry.outcome is Outcome.FAILURE else " (given up)"
    message = f"{words}: {said}" if said else words
    _log.log(logging.INFO, "%s (%s)" if place else "%s", *((message, place) if place else (message,)), extra=extra)


_SOCKETS: Final = frozenset({"y-websocket", "hocuspocus"})


def _kind(error: BaseException) -> Kind | None:
    if isinstance(error, Unauthenticated | AccessExpired | AccessNotYet):
        return Kind.SIGN_IN_REFUSED
    if isinstance(error, AccessDenied | DocumentNotFound):
        return Kind.PERMISSION_REFUSED
    return Kind.LIMIT if isinstance(error, LimitExceeded) else None
