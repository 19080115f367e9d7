"""The port of webhooks: what happened to documents, and which receivers are still to be told of it.

Strategy: one row for each event and receiver, a **delivery**, which is there until the receiver has taken it. What a
method of the catalogue or the trash does (create, delete, restore, rename, erase), and a reset, writes its deliveries
in the transaction that does it. An edit does not: that would cost each append. A **cursor** for each document says up
to which row receivers were told. A server **marks** the documents that it has written now and then, which is only a
hint. Whoever delivers looks at the marks, writes what lies between cursor and head as one delivery, and moves the
cursor in the same transaction. Rows that restore an older state are told of with that, each by a delivery of its own:
their labels say so. What was never marked, because a server died, is found by a look at all heads. So no
commit is passed over, and a document that is edited all the time costs one delivery for each interval.

One server delivers, by a lease in the storage. It moves cursors and settles deliveries only while it holds that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol
from uuid import uuid4

from collab.storage.timeline import Restored

CREATED: Final = "document.created"
CHANGED: Final = "document.changed"
DELETED: Final = "document.deleted"
RESTORED: Final = "document.restored"
RENAMED: Final = "document.renamed"
RESET: Final = "document.reset"
ERASED: Final = "document.erased"
JOINED: Final = "user.joined"
LEFT: Final = "user.left"
VERSION_MADE: Final = "version.made"
VERSION_RESTORED: Final = "version.restored"

KINDS: Final = (
    CREATED,
    CHANGED,
    DELETED,
    RESTORED,
    RENAMED,
    RESET,
    ERASED,
    JOINED,
    LEFT,
    VERSION_MADE,
    VERSION_RESTORED,
)
"""All kinds of events."""

KEPT_ERASED: Final = (DELETED, ERASED)
"""Kinds whose deliveries stay when their document is erased: they hold its name and numbers alone."""

GIVE_UP_SECONDS: Final = 86_400.0
"""After so long a delivery is given up. A receiver that no server has delivered to for so long is told nothing new."""

LOG_SECONDS: Final = 3 * 86_400.0
MAX_LOG: Final = 10_000
"""How long, and how many for each receiver, deliveries are kept that are done."""

MAX_PENDING: Final = 100_000
"""Deliveries that may wait for one receiver. What comes then is dropped, and counted."""

MAX_AUTHORS: Final = 50
"""Authors that one delivery names."""

AUTHOR_ROWS: Final = 500
"""Rows whose authors are looked at for one delivery, the newest ones."""

MAX_ERROR: Final = 200
"""Characters that are kept of why an attempt has failed."""

MAX_RESTORED: Final = 100
"""Restores between cursor and head that are told of, the newest ones."""

PORTION: Final = 1_000
"""Deliveries that one call gives up or removes."""

SEEN_SECONDS: Final = 3_600.0
"""How old it may be what is noted of a receiver's server, before it is noted anew."""


class Subscription(NamedTuple):
    """What one receiver wants to be told: events of these ``kinds`` on documents whose names begin with ``prefix``."""

    name: str
    kinds: tuple[str, ...]
    prefix: str

    def wants(self, kind: str, *names: str) -> bool:
        """Tell whether it wants an event about a document that has, or had, these names."""
        return kind in self.kinds and any([name.startswith(self.prefix) for name in names])


class Happened(NamedTuple):
    """One event. ``document_id`` is None where the document is not stored; ``names``: its name, and those before."""

    kind: str
    document_id: int | None
    names: tuple[str, ...]
    data: Mapping[str, Any]

    @property
    def lane(self) -> int:
        """What its deliveries are ordered within: the id of the document, or a negative number made of its name."""
        if self.document_id is not None:
            return self.document_id
        digest = blake2b(self.names[0].encode(errors="surrogatepass"), digest_size=7).digest()
        return -1 - int.from_bytes(digest)


class Delivery(NamedTuple):
    """What one receiver is to be told, or was.

    Attributes:
        number: names it, and grows.
        receiver: its name.
        event: names the event, the same for all receivers and attempts.
        kind: one of ``KINDS``.
        lane: deliveries of one receiver with the same one are made in the order of their numbers.
        name: of the document, when it happened.
        data: what is said beside that.
        at: when it happened, in Unix seconds.
        attempts: how many have failed.
        due_at: before that it is not tried; in Unix seconds.
        done_at: when it was delivered or given up; None: it waits.
        delivered: whether it was taken.
        status: of the last answer, if there was one.
        error: why the last attempt has failed.
    """

    number: int
    receiver: str
    event: str
    kind: str
    lane: int
    name: str
    data: dict[str, Any]
    at: float
    attempts: int
    due_at: float
    done_at: float | None
    delivered: bool
    status: int | None
    error: str | None

    @property
    def document_id(self) -> int | None:
        """The id of the document, if it was known."""
        return self.lane if self.lane >= 0 else None

    @property
    def state(self) -> str:
        """In a word: pending, delivered or failed."""
        return "pending" if self.done_at is None else "delivered" if self.delivered else "failed"


class Attempt(NamedTuple):
    """What became of one attempt: it was taken, or it is to be tried again after ``pause`` seconds."""

    number: int
    delivered: bool
    status: int | None = None
    error: str | None = None
    pause: float = 0.0


class ReceiverState(NamedTuple):
    """How a receiver stands.

    Attributes:
        subscription: what it wants.
        failing_since: since when nothing was taken, though it was tried; None: the last attempt went well.
        disabled_at: since when nothing is written for it and nothing tried.
        pending: deliveries that wait.
        oldest_at: since when the oldest of them does.
        delivered, failed: deliveries that are kept although they are done.
        dropped: events that were not written, because too many waited.
    """

    subscription: Subscription
    failing_since: float | None
    disabled_at: float | None
    pending: int
    oldest_at: float | None
    delivered: int
    failed: int
    dropped: int


class Looked(NamedTuple):
    """A look at a part of all documents: the last id (None: there are no more), and how many were found."""

    last: int | None
    found: int


class Expired(NamedTuple):
    """What time has done: deliveries that were given up, by receiver; receivers now disabled; whether more is left."""

    given_up: dict[str, int]
    disabled: tuple[str, ...]
    more: bool


def new_event() -> str:
    """Make the name of an event."""
    return f"evt_{uuid4().hex}"


def merge_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Say what two changes of a document say, one after the other."""
    merged: dict[str, Any] = {"from": old["from"], "to": new["to"]}
    more = bool(old["more_authors"] or new["more_authors"])
    for part in ("authors", "on_behalf_of"):
        found = sorted({*old[part], *new[part]})
        more = more or len(found) > MAX_AUTHORS
        merged[part] = found[:MAX_AUTHORS]
    return {**merged, "more_authors": more}


def say_changed(first: int, last: int, authors: set[str], others: set[str], *, more: bool) -> dict[str, Any]:
    """Make the data of a change: the numbers of its rows, who has sent them, and on whose behalf."""
    more = more or len(authors) > MAX_AUTHORS or len(others) > MAX_AUTHORS
    return {
        "from": first,
        "to": last,
        "authors": sorted(authors)[:MAX_AUTHORS],
        "on_behalf_of": sorted(others)[:MAX_AUTHORS],
        "more_authors": more,
    }


def say_restored(seq: int, author: str | None, on_behalf_of: str | None, to: Restored) -> dict[str, Any]:
    """Make the data of a restore: the number of its row, who has done it for whom, and which state it was."""
    return {
        "seq": seq,
        "number": to.number,
        "version": to.version,
        "author": author,
        "on_behalf_of": on_behalf_of,
    }


class Webhooks(Protocol):
    """Keep what receivers are still to be told.

    **Durable when.** As in the catalogue: when a method returns. The deliveries of a change are there when the
    transaction of that change is, or neither.

    **What may be lost.** Nothing that was written, until it is given up (``GIVE_UP_SECONDS``). Dropped and counted is
    what comes while ``MAX_PENDING`` wait for a receiver. A mark may be lost; :meth:`mark_missed` finds what it was for.

    **What may be reordered.** Nothing within a lane of a receiver: :meth:`due` gives the first one that waits alone.

    **What may be repeated.** A delivery that was made and not settled, because its server died or lost the lease.

    Methods that take the ``node`` that delivers do nothing without the lease, and give None, or False. Times are by the
    clock of the storage.
    """

    async def claim_delivery(self, node: str, seconds: float) -> bool:
        """Take the lease for so many seconds, or renew it; False while another node holds it.

        Documents that are there when the lease is taken for the first time are not told of as created; what is written
        to them counts from then on. Where only one server can use the storage, it takes the lease at once.
        """

    async def release_delivery(self, node: str) -> None:
        """Give the lease back, so that another node need not wait for its end; harmless without it."""

    async def subscribe(self, node: str, subscriptions: Sequence[Subscription]) -> bool:
        """Say which receivers there are from now on; others are told nothing more. What was disabled stays so."""

    async def mark_changed(self, document_ids: Collection[int]) -> None:
        """Note that rows were committed to these documents; for one that is noted already nothing changes."""

    async def mark_missed(self, node: str, after: int, limit: int) -> Looked | None:
        """Look at ``limit`` documents with ids above ``after``; mark those whose head is past their cursor."""

    async def tell_changed(self, node: str, seconds: float, limit: int, busy: Collection[int]) -> int | None:
        """Write deliveries for documents that were marked ``seconds`` ago or earlier, at most ``limit``; give how many.

        Behind the change there is a delivery for each of its rows that restores an older state, up to ``MAX_RESTORED``.

        A document that receivers do not know yet is told of as created, however long ago it was marked. A change joins
        the delivery that waits behind all others of its lane if that is a change which was never tried, and whose
        number is not in ``busy``: those are on their way.
        """

    async def tell_people(self, events: Sequence[Happened]) -> None:
        """Write deliveries of events that no transaction is about."""

    async def due(self, receiver: str, limit: int, busy: Collection[int]) -> list[Delivery]:
        """Read deliveries that are to be made now, in order: of each lane that is not ``busy`` the first that waits."""

    async def settle(self, node: str, attempts: Sequence[Attempt], disable: Collection[str] = ()) -> bool:
        """Note what became of attempts, and disable receivers that want nothing more; False without the lease."""

    async def expire(self, node: str, disable_after: float) -> Expired | None:
        """Give up what is too old, disable who has failed for ``disable_after`` seconds, and shorten the log."""

    async def receivers(self) -> list[ReceiverState]:
        """Tell how all receivers stand, by their names."""

    async def deliveries(
        self, *, receiver: str | None = None, state: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """List deliveries, the newest first; only those of a receiver, in a state, with numbers below ``before``."""

    async def resend(self, number: int) -> Delivery:
        """Let a delivery be made again, or at once if it waits; raises ``NoSuchWebhook`` if it is not kept."""

    async def resend_failed(self, receiver: str, since: float) -> int:
        """Let all deliveries of a receiver be made again that were given up since then; give how many.

        Raises ``NoSuchWebhook`` if there is no such receiver.
        """

    async def enable_receiver(self, receiver: str) -> None:
        """Enable a receiver that was disabled, and try at once what waits for it; harmless for one that was not.

        Raises ``NoSuchWebhook`` if there is no such receiver.
        """
