"""What the audit has entries of, and what an entry says.

Strategy: an entry is made once and does not change. Its texts are cut when it is made, because clients choose most of
them, and passwords in what it says are masked. A kind never changes its name: people search for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from collab.errors import CollabError
from collab.telemetry import ROOT, escape_controls, mask_secrets
from collab.telemetry.logs import ECS_VERSION, show_timestamp

LOGGER: Final = f"{ROOT}.audit"

_TEXT: Final = 1_024
"""Characters of a user, a document's name, an address: tokens and requests choose them."""

_DETAIL: Final = 300


class Group(StrEnum):
    """Sorts of kinds, each with bounds of its own."""

    ACTION = "actions"
    READ = "reads"
    REFUSAL = "refusals"
    SIGN_IN = "sign-ins"


class Kind(StrEnum):
    """What an entry is of; ``ABOUT`` says when there is one."""

    SIGN_IN = "sign-in"
    SIGN_IN_REFUSED = "sign-in-refused"
    PERMISSION_REFUSED = "permission-refused"
    LIMIT = "limit"
    DOCUMENT_DELETED = "document-deleted"
    DOCUMENT_ERASED = "document-erased"
    DOCUMENT_RESTORED = "document-restored"
    DOCUMENT_RENAMED = "document-renamed"
    DOCUMENT_RESET = "document-reset"
    DOCUMENT_REPAIRED = "document-repaired"
    DOCUMENTS_IMPORTED = "documents-imported"
    STATE_RESTORED = "state-restored"
    EDITS_UNDONE = "edits-undone"
    VERSION_DELETED = "version-deleted"
    VERSIONS_IMPORTED = "versions-imported"
    SHARE_MADE = "share-made"
    KICK = "kick"
    ACCESS_CHECKED = "access-checked"
    RELOADED = "reloaded"
    DOCUMENT_CLOSED = "document-closed"
    DOCUMENT_RELEASED = "document-released"
    LOG_LEVEL = "log-level"
    INSTRUCTION_FOLLOWED = "instruction-followed"
    WEBHOOKS_RESENT = "webhooks-resent"
    WEBHOOK_ENABLED = "webhook-enabled"
    QUOTA_SET = "quota-set"
    PEOPLE_ERASED = "people-erased"
    BACKUP_RESTORED = "backup-restored"
    DATABASE_MIGRATED = "database-migrated"
    AUDIT_BEGUN = "audit-begun"
    AUDIT_ENDED = "audit-ended"
    ENTRIES_LOST = "entries-lost"
    DOCUMENTS_EXPORTED = "documents-exported"
    DOCUMENT_READ = "document-read"
    PEOPLE_EXPORTED = "people-exported"
    BACKUP_MADE = "backup-made"
    CONNECTIONS_LISTED = "connections-listed"
    DELIVERIES_LISTED = "deliveries-listed"
    AUDIT_READ = "audit-read"


class About(NamedTuple):
    """What is known of a kind: its group, when there is an entry of it, and how its line in the log begins."""

    group: Group
    when: str
    words: str = ""


_CONTROL: Final = "control"

ABOUT: Final[dict[Kind, About]] = {
    Kind.SIGN_IN: About(
        Group.SIGN_IN, "a client was let in to a document on a socket, or follows it by server-sent events", "sign-in"
    ),
    Kind.SIGN_IN_REFUSED: About(Group.REFUSAL, "a token is missing, wrong, or has expired", "sign-in refused"),
    Kind.PERMISSION_REFUSED: About(
        Group.REFUSAL, "a token or an origin does not allow what was asked for", "permission refused"
    ),
    Kind.LIMIT: About(Group.REFUSAL, "a client has passed a bound", "limit"),
    Kind.DOCUMENT_DELETED: About(Group.ACTION, "a document was deleted"),
    Kind.DOCUMENT_ERASED: About(Group.ACTION, "a document was erased for good"),
    Kind.DOCUMENT_RESTORED: About(Group.ACTION, "a document was taken out of the trash"),
    Kind.DOCUMENT_RENAMED: About(Group.ACTION, "a document was given another name"),
    Kind.DOCUMENT_RESET: About(Group.ACTION, "all content was taken out of a document"),
    Kind.DOCUMENT_REPAIRED: About(Group.ACTION, "damaged rows or snapshots of a document were replaced or removed"),
    Kind.DOCUMENTS_IMPORTED: About(Group.ACTION, "documents were imported, one or many"),
    Kind.STATE_RESTORED: About(Group.ACTION, "a document, or a part of it, was made what it was before"),
    Kind.EDITS_UNDONE: About(Group.ACTION, "edits of one user were undone; the user is the target"),
    Kind.VERSION_DELETED: About(Group.ACTION, "a version was deleted"),
    Kind.VERSIONS_IMPORTED: About(Group.ACTION, "versions from another system were imported"),
    Kind.SHARE_MADE: About(Group.ACTION, "a link for guests was made; the guest is the target"),
    Kind.KICK: About(Group.ACTION, "all servers were told to end sessions", _CONTROL),
    Kind.ACCESS_CHECKED: About(Group.ACTION, "all servers were told to check access again", _CONTROL),
    Kind.RELOADED: About(Group.ACTION, "all servers were told to read a document again", _CONTROL),
    Kind.DOCUMENT_CLOSED: About(Group.ACTION, "all servers were told to close a document for some time", _CONTROL),
    Kind.DOCUMENT_RELEASED: About(Group.ACTION, "all servers were told to let a document be opened again", _CONTROL),
    Kind.LOG_LEVEL: About(Group.ACTION, "all servers were told to log more or less", _CONTROL),
    Kind.INSTRUCTION_FOLLOWED: About(
        Group.ACTION, "this server has done what it was told, and sessions were ended or changed", _CONTROL
    ),
    Kind.WEBHOOKS_RESENT: About(Group.ACTION, "deliveries of webhooks were told to be made again"),
    Kind.WEBHOOK_ENABLED: About(Group.ACTION, "a receiver of webhooks was enabled"),
    Kind.QUOTA_SET: About(Group.ACTION, "the quotas of a tenant were set"),
    Kind.PEOPLE_ERASED: About(Group.ACTION, "a user was taken out of all that is stored; the user is the target"),
    Kind.BACKUP_RESTORED: About(Group.ACTION, "a backup was restored, in whole or in part"),
    Kind.DATABASE_MIGRATED: About(Group.ACTION, "the schema of the database was changed"),
    Kind.AUDIT_BEGUN: About(Group.ACTION, "a server has begun to write into the file"),
    Kind.AUDIT_ENDED: About(Group.ACTION, "a server has stopped, and all of its entries are in the file"),
    Kind.ENTRIES_LOST: About(Group.ACTION, "the file could not be written for a while, and entries are lost"),
    Kind.DOCUMENTS_EXPORTED: About(Group.READ, "documents were exported, one or many"),
    Kind.DOCUMENT_READ: About(
        Group.READ, "the content of a document was shown on the command line, or its log from inside over HTTP"
    ),
    Kind.PEOPLE_EXPORTED: About(Group.READ, "what is stored about a user was exported; the user is the target"),
    Kind.BACKUP_MADE: About(Group.READ, "a backup of the database was made"),
    Kind.CONNECTIONS_LISTED: About(Group.READ, "connections were listed, with their users and addresses"),
    Kind.DELIVERIES_LISTED: About(Group.READ, "deliveries of webhooks were listed"),
    Kind.AUDIT_READ: About(Group.READ, "the newest entries were read over HTTP"),
}


class Outcome(StrEnum):
    """How what an entry is of has ended, as ECS has it. ``UNKNOWN``: its sender has gone before that was known."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class Who(NamedTuple):
    """Who has done something, and from where.

    Attributes:
        user: as the token names it; None where nobody has said.
        address: of its client; empty where there is none.
        protocol: "http", "streams", "y-websocket" or "hocuspocus"; "command" for the command line.
        connection: the number of its socket on this node.
        on_behalf_of: for whom a back end has done it, as that says.
        request: the header ``X-Request-ID`` of its request.
        login: the user of the operating system, for the command line.
    """

    user: str | None = None
    address: str = ""
    protocol: str | None = None
    connection: int | None = None
    on_behalf_of: str | None = None
    request: str | None = None
    login: str | None = None


NOBODY: Final = Who()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; made by ``make_entry``.

    Attributes:
        at: when, in Unix seconds.
        number: counts the entries of this process, from 1.
        kind, outcome: see there.
        detail: a sentence for people; may be empty.
        who: see there; its texts are cut.
        document: its name.
        target: the user to whom it was done.
        trace: the trace and the span that it is a part of, in hexadecimal.
        left_out: how many entries like this were left out before it.
    """

    at: float
    number: int
    kind: Kind
    outcome: Outcome
    detail: str
    who: Who
    document: str | None
    target: str | None
    trace: tuple[str, str] | None
    left_out: int

    @property
    def group(self) -> Group:
        """The group of its kind."""
        return ABOUT[self.kind].group


def make_entry(
    at: float,
    number: int,
    kind: Kind,
    outcome: Outcome,
    detail: str = "",
    who: Who = NOBODY,
    document: str | None = None,
    target: str | None = None,
    trace: tuple[str, str] | None = None,
    left_out: int = 0,
) -> Entry:
    """Make an entry of what others have said: texts are cut, and what is said is escaped, with passwords masked."""
    if detail:
        detail = cut(escape_controls(mask_secrets(detail)), _DETAIL)
    if who is not NOBODY:
        who = Who(
            _cut(who.user),
            cut(who.address, _TEXT),
            who.protocol,
            who.connection,
            _cut(who.on_behalf_of),
            None if who.request is None else escape_controls(cut(who.request, _DETAIL)),
            _cut(who.login),
        )
    return Entry(at, number, kind, outcome, detail, who, _cut(document), _cut(target), trace, left_out)


def cut(text: str, most: int) -> str:
    """Cut a text, and replace half characters, which no encoder takes."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text if text.isascii() else text.encode(errors="replace").decode()


def _cut(text: str | None) -> str | None:
    return None if text is None else cut(text, _TEXT)


def encode_entry(entry: Entry, node: str | None) -> bytes:
    """Write an entry as a line of JSON, with the names of ``JsonFormatter``, and those of ECS for what happened.

    The line is ASCII. What is not known is left out.
    """
    who = entry.who
    values: dict[str, object] = {
        "@timestamp": show_timestamp(entry.at),
        "log.level": "warning" if entry.kind in (Kind.LIMIT, Kind.ENTRIES_LOST) else "info",
        "message": entry.detail or ABOUT[entry.kind].when,
        "ecs.version": ECS_VERSION,
        "log.logger": LOGGER,
        "service.name": ROOT,
        "service.node.name": node,
        "process.pid": os.getpid(),
        "event.kind": "event",
        "event.dataset": LOGGER,
        "event.action": entry.kind.value,
        "event.outcome": entry.outcome.value,
        "collab.group": entry.group.value,
        "user.id": who.user,
        "user.name": who.login,
        "user.target.id": entry.target,
        "collab.on_behalf_of": who.on_behalf_of,
        "client.address": who.address or None,
        "collab.document": entry.document,
        "collab.protocol": who.protocol,
        "collab.connection": who.connection,
        "http.request.id": who.request,
        "trace.id": None if entry.trace is None else entry.trace[0],
        "span.id": None if entry.trace is None else entry.trace[1],
        "collab.left_out": entry.left_out or None,
    }
    known = {key: value for key, value in values.items() if value is not None}
    masked = {key: mask_secrets(value) if isinstance(value, str) else value for key, value in known.items()}
    return json.dumps(masked).encode() + b"\n"


@dataclass(slots=True)
class Act:
    """Something that is being done, of which there will be an entry; ``nothing``: it was not done after all."""

    kind: Kind
    document: str | None = None
    detail: str = ""
    target: str | None = None
    nothing: bool = False


@contextmanager
def acting(act: Act, write: Callable[[Act, Outcome], object]) -> Iterator[Act]:
    """Do something, then write an entry of how it has ended; what is inside may still change the act."""
    try:
        yield act
    except Exception as error:
        # What else an error says may be anything, and stands in the log.
        said = (str(error) or error.public) if isinstance(error, CollabError) else ""
        act.detail = said or f"failed ({type(error).__name__})"
        write(act, Outcome.FAILURE)
        raise
    except BaseException:
        write(act, Outcome.UNKNOWN)
        raise
    if not act.nothing:
        write(act, Outcome.SUCCESS)
