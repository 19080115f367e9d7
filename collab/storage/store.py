"""The port of the store: one thing that is the log and the catalogue of the same documents.

Strategy: several ports, because they have different callers: the hub lives from the log (:mod:`collab.storage.log`),
listings and the command line from the catalogue (:mod:`collab.storage.catalogue`) and the trash
(:mod:`collab.storage.trash`), the history keeps what outlives the rows by :mod:`collab.storage.attributions`, the HTTP
API does calls once by :mod:`collab.storage.calls`, servers see each other by
membership (:mod:`collab.storage.membership`), operators tell all nodes something through
:mod:`collab.storage.control`, receivers are told what happened through :mod:`collab.storage.webhooks`, people see it
through :mod:`collab.storage.versions` and :mod:`collab.storage.timeline`, and what tenants use is added up by
:mod:`collab.storage.tenants`. One
adapter, because a tombstone holds only if the transaction that appends looks at it, and because this storage is what
all nodes share. What passes through is in :mod:`collab.storage.records`; ``docs/adapters.md`` is for those who
write an adapter, ``collab.testing.store`` the suite that it must pass.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from collab.history.packed import PackedRows
from collab.storage.attributions import Attributions
from collab.storage.calls import Calls
from collab.storage.catalogue import Catalogue
from collab.storage.control import Instructions
from collab.storage.log import Log
from collab.storage.membership import Membership
from collab.storage.records import Snapshot
from collab.storage.tenants import Tenants
from collab.storage.timeline import Timelines
from collab.storage.trash import Trash
from collab.storage.versions import Versions
from collab.storage.webhooks import Webhooks


class Store(
    Log,
    Attributions,
    Catalogue,
    Trash,
    Calls,
    Membership,
    Instructions,
    Webhooks,
    Versions,
    Timelines,
    Tenants,
    Protocol,
):
    """Keep documents durably; a store is one writer's connection to storage that others may share.

    Errors: ``StoreUnavailable`` from any method means that the same call may succeed later (no connection, locked,
    disk full, read-only, database stopped); other methods than ``append`` may have taken effect nevertheless.
    ``InvalidDocumentName`` says that a name has no UTF-8 (a lone surrogate); in a batch it is a ``StoreRefused``
    of its entry alone. No message holds a password or the content of a document.

    All methods may be called concurrently from one event loop, ``append`` by one writer only. Any call may be
    cancelled, and the store can be used afterwards. Nothing here blocks that loop.
    """

    async def open(self) -> None:
        """Connect and check the schema; call once, before all else.

        Raises ``SchemaError``, whose text ends with what to do (the line to run, or the release to start), when this
        release cannot use the database as it stands, and ``StoreUnavailable`` when it does not answer.
        """

    async def close(self) -> None:
        """Release all connections; a batch under way is finished or given up, and nothing may be called after."""

    async def ping(self) -> None:
        """Return when the store can be read, for the readiness of a node; raise ``StoreUnavailable`` otherwise."""


@runtime_checkable
class Packing(Protocol):
    """A store that can give rows put together by the database; a store need not be able to."""

    async def load_packed(
        self, document_id: int, seq: int, *, least: int, most: int
    ) -> tuple[Snapshot | None, PackedRows] | None:
        """Read what ``Log.load_at`` reads, with all rows in a few texts: that costs the process that asks very little.

        Gives None too when there are fewer than ``least`` rows, or more than ``most`` bytes of a snapshot and rows.
        Then, and when what is given is not whole, ``Log.load_at`` says more. Raises ``StoreUnavailable``.
        """
        ...


@runtime_checkable
class Measured(Protocol):
    """A store that can say how large it is; a store need not be able to."""

    async def nbytes(self) -> int:
        """Return the bytes that the storage takes, with what other nodes have put there.

        It is asked once a minute, so it must not cost more than a moment. Raises ``StoreUnavailable``.
        """
        ...
