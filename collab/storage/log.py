"""The port of the durable log: rows with numbers, and snapshots of them.

Strategy: a document is a log of rows with numbers 1, 2, 3 ... without gaps, and now and then a
snapshot that says the same as all rows up to its number. The log is the truth; the memory of every
node is a copy of it. One call writes, :meth:`Log.append`, and it carries the whole promise; all
else reads, or tidies up what the log already says.

Which documents there are is the other port's business (:mod:`collab.storage.catalogue`). Of it the log
knows the tombstone: an append looks at it in the transaction that writes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from collab.storage.producers import ProducerNumbers
from collab.storage.records import (
    Append,
    AppendOutcome,
    ClientOwner,
    Head,
    LoadedDocument,
    LogRow,
    NewGuest,
    NewRow,
    PendingUpdate,
    Snapshot,
)
from collab.storage.versions import History


class Log(Protocol):
    """Keep the rows of documents durably.

    **Durable when.** Rows are durable when the :meth:`append` that carried them returns: their transaction
    has committed with the database's strictest setting (SQLite: ``synchronous=FULL``; PostgreSQL: the
    ``synchronous_commit`` that its operator chose, ``on`` by default). They then survive the death of every
    process, and of the machine as far as its disk keeps what it has synced. The same holds for
    :meth:`write_snapshot`.

    **Pending updates** wait for what their document lacks. They are no rows, are in no state that is rebuilt, and are
    pruned with their document alone, when it was deleted. An :class:`Append` changes them in the transaction that
    writes its rows: first those that are settled go, then those that are added are kept. To add one whose key is there,
    and to settle one that is not, changes nothing.

    **Owners** say whose a client ID of a document is (docs/decisions/0024). An :class:`Append` brings them in the
    transaction that writes its rows. The first one of a client ID stays for ever: the later ones of this store and of
    all others change nothing, and snapshots and pruning leave it as long as its document is not deleted. It goes with
    the content of a deleted document.

    **Guests** have names (docs/decisions/0041). An :class:`Append` brings them in the transaction that writes its rows,
    and :meth:`keep_guest` without rows. The first name of a guest stays, as the first owner of a client ID does, and
    goes with the content of a deleted document.

    **Producers** have numbers, of which the highest are kept (``collab.storage.producers``). An :class:`Append` brings
    them in the transaction that writes its rows; lower ones change nothing, whichever store comes first. Of a document
    at least the ``MAX_PRODUCERS`` that were used last are kept, and soon no others; pruning forgets those that were not
    used for ``PRODUCER_SECONDS``. They go with the content of a deleted document.

    **What may be lost.** Nothing that was returned for. Rows whose ``append`` raised, was cancelled, or never returned
    because the process died, may be there or not, each batch whole or not at all.

    **What may be reordered.** Nothing within a document: numbers follow the order in a batch and the order of
    the batches. Several nodes may append to one document at once; their rows interleave batch by batch, the
    numbers stay consecutive, and a row with number n is never visible before all rows below n are.

    **What may be repeated.** Nothing, if the rule of the ambiguous commit is kept: when the connection fails while a
    COMMIT is under way, nobody can know whether it took place. :meth:`append` then raises ``StoreUnavailable``, and
    giving the *same batch object* again writes it exactly once, and returns the numbers of the first time if that
    had succeeded. An attempt that a dead connection left behind in the database can never write after the
    repeat. Giving another batch instead gives the former one up: it was then written once or not at all, and
    before the other one. An append that is cancelled leaves the same doubt, and is repeated by the same rule.

    ``append`` is called by one writer only, one call at a time: a node has one store of its own. Errors and
    concurrency otherwise: :class:`collab.storage.store.Store`.
    """

    async def load(self, name: str) -> LoadedDocument | None:
        """Read what opening the document needs; None if no document of that name was ever stored.

        A snapshot that does not fit its checksum is passed over, and named: the one before it, and all rows after
        that, say the same. Raises ``DocumentDeleted`` on a tombstone.
        """

    async def append(self, batch: Sequence[Append]) -> list[AppendOutcome]:
        """Write all rows of the batch in one transaction and give each :class:`Append` its outcome, in order.

        A document may occur more than once in a batch; its rows keep their order. What is deleted, or refused for
        good (larger than ``MAX_ROW_BYTES``, or against a rule of the database), is left out and does not hinder the
        rest. When an :class:`Append` is refused, all others of the batch for the same document are refused with it:
        what follows a lost row must not be written. Raises ``StoreUnavailable`` as the class says.
        """

    async def append_next(self, document_id: int, seq: int, row: NewRow, *, reset: bool = False) -> bool:
        """Write one row behind row ``seq`` of a document, if that is its newest one; tell whether it was.

        For what is computed from the whole log, and needs nothing to have come after that. It is durable when this
        returns True, as a row of :meth:`append`, in a transaction of its own: others may append meanwhile, and so may
        this store. False too for a tombstone and an unknown id. After ``StoreUnavailable`` it may be there or not.
        With ``reset`` receivers of webhooks are told that the document was reset (:mod:`collab.storage.webhooks`).
        Raises ``StoreRefused`` if the row is larger than ``MAX_ROW_BYTES``.
        """

    async def attend(self) -> None:
        """Note this store in the storage as that of a server, so that a storage that goes back is recognised.

        A server calls it when it starts. From then on every method raises ``StoreWentBack``, without having read or
        written anything, while the storage lacks this note, or lacks what an append of this store has returned for:
        a backup was put in its place, or a replica that was behind, or somebody has removed rows by hand. Called
        again, it takes the storage as it is; batches that were given before and not answered are given up, and can
        never be written any more. A storage that cannot go back has nothing to do here.
        """

    async def changed(self) -> bool:
        """Tell whether others may have written since the last call, so that looking at heads is worth it.

        True if that is not known. What this store itself has appended need not count.
        """

    async def rows_after(self, document_id: int, seq: int, limit: int) -> list[LogRow]:
        """Read up to ``limit`` rows with numbers above ``seq``, in order.

        Rows that were pruned are missing at the beginning: compare the first number. A tombstone or an unknown id
        has none. Rows are given as they are, with their checksums.
        """

    async def heads(self, names: Sequence[str]) -> dict[str, Head]:
        """Read where the logs of these documents stand, in one look; a name that was never stored is left out.

        A node calls it about once a second with the names of its live rooms (at most some hundred a call), so it
        should cost a look into an index for each, and nothing for what has not changed.
        """

    async def load_pending(self, document_id: int) -> list[PendingUpdate]:
        """Read the pending updates of a document, in the order of their numbers; none of a tombstone or an unknown id.

        They are given as they are: the caller makes the key of their data anew, and compares it.
        """

    async def client_owners(self, document_id: int, after: int, limit: int) -> list[ClientOwner]:
        """Read whose the client IDs above ``after`` are, ordered by them, at most ``limit``; begin with -1.

        A tombstone or an unknown id has none. Client IDs that are not here belong to nobody who is known.
        """

    async def guest_names(self, document_id: int, authors: Collection[str] | None = None) -> dict[str, str]:
        """Read what guests on a document are called, by their users: of all, or of those among ``authors``.

        A tombstone or an unknown id has none. Guests of whom no name is known are left out.
        """

    async def keep_guest(self, document_id: int, guest: NewGuest) -> None:
        """Keep the name of a guest who does something beside the log, if none is known; durable when this returns.

        Nothing is kept for a tombstone and an unknown id.
        """

    async def producer(self, document_id: int, key: bytes) -> ProducerNumbers | None:
        """Read the highest numbers of a producer; None if nothing is kept of it, or of a tombstone or an unknown id."""

    async def find_gaps(self, document_ids: Sequence[int]) -> set[int]:
        """Find the documents whose log lacks rows between its newest snapshot and its head.

        Nothing of ours leaves such a gap, but people who work on a database by hand do. A server asks now and then, for
        its live rooms (at most some hundred a call).
        """

    async def load_at(self, document_id: int, seq: int) -> tuple[Snapshot | None, list[LogRow]] | None:
        """Read what rebuilds the state after row ``seq``: the newest snapshot up to it, and the rows from there to it.

        Snapshots that are damaged are passed over. Gives None when pruning has made that state impossible to rebuild,
        or when the row does not exist (yet).
        """

    async def write_snapshot(self, document_id: int, snapshot: Snapshot) -> bool:
        """Keep a snapshot if it is newer than the newest one there; return whether it was.

        False as well when the document was deleted. Older snapshots stay until :meth:`prune`. Writing the same one
        twice is harmless. Raises ``StoreRefused`` if it is larger than the store can hold.
        """

    def claim_snapshot(self, document_id: int) -> AbstractAsyncContextManager[bool]:
        """Claim the work on the next snapshot of a document, for as long as the block lasts.

        Gives True to one store at a time, False at once to the others. The claim of a store that dies, or can no longer
        reach the storage, ends by itself. It only saves work and guards nothing: it may be lost within the block, and
        :meth:`write_snapshot` keeps its promise without it. Entering raises ``StoreUnavailable``, leaving never does.
        """

    async def prune(
        self,
        *,
        before: float,
        limit: int,
        spare: Collection[int] = (),
        trash_before: float = math.inf,
        histories: Sequence[History] = (),
    ) -> int:
        """Remove what is not needed to rebuild any state since ``before`` (unix seconds), at most ``limit`` rows.

        Per document: let c be the last row before the first one of ``before`` or later. The state after c is the
        oldest to be kept, so the newest snapshot up to c stays with all rows after it; rows up to that snapshot's
        number and older snapshots go, oldest first. Only snapshots whose checksums were compared count for this, and
        two of them always stay, with all rows after the older one. Nothing of a document goes in which damage was
        noted, nor of those in ``spare``. Content of documents that were deleted before ``trash_before`` goes whatever
        its age, with titles and own keys; they leave the trash before anything of them goes. The tombstones stay.
        The first of ``histories`` that covers the name of a document says another ``before`` for it. What a named
        version needs that is not pinned (``collab.storage.versions``) does not go; automatic versions below the
        snapshot with which the history begins do.
        Returns how many rows, snapshots and owners went; 0 says that nothing is left to prune now.
        """

    async def thin_snapshots(self, *, limit: int, spare: Collection[int] = ()) -> int:
        """Remove at most ``limit`` snapshots that nobody misses: states between others are rebuilt quickly without.

        ``collab.storage.spacing.superfluous`` says which. Nothing of a document goes in which damage was noted, that
        has a snapshot without a checksum, or is in ``spare``. Returns how many went; 0 says that nothing is left to do.
        """

    async def note_damage(self, document_id: int, *, rows: Sequence[int] = (), snapshots: Sequence[int] = ()) -> None:
        """Note which rows and snapshots of a document were found to be damaged; noting one twice is harmless.

        From its return on :meth:`prune` leaves the document alone, for every store on the storage, until the notes are
        taken away on purpose: what seems not to be needed may be what it can be rebuilt from.
        """
