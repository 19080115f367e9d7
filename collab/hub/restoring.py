"""Restore a document in the log, for a command line beside running servers or without any.

Strategy: as a reset it is one row, behind those that others write meanwhile, with which it merges. Servers read it from
the log (``collab.hub.resetting``). What it is computed from, and how, is as on a server (``collab.hub.rewinding``).
"""

from __future__ import annotations

import time
from functools import partial
from random import Random, SystemRandom
from typing import Final

from collab.authorship import Note
from collab.errors import DocumentBusy, DocumentNotFound
from collab.history.tasks import Restore
from collab.hub.attributing import Attributing, LookingBack
from collab.hub.loading import read_document
from collab.hub.rebuilding import Rebuilding, encode
from collab.hub.resetting import write_behind
from collab.hub.rewinding import Rewound, find_target
from collab.hub.slices import in_slices
from collab.hub.versions import Versions, Which
from collab.protocol.sync import EMPTY_UPDATE
from collab.storage.checksums import beside_the_loop, seal_row
from collab.storage.records import Head
from collab.storage.store import Store
from collab.storage.versions import Reason

# Times that it is computed, if others reset the document meanwhile.
_COMPUTED: Final = 5


async def restore_stored(
    store: Store,
    sandbox: LookingBack,
    versions: Versions,
    name: str,
    which: Which,
    *,
    root: str | None = None,
    element: str | None = None,
    random: Random | None = None,
) -> Rewound:
    """Make a document what it was, or only a root of it, or an element of that; nobody is its author.

    Raises: as ``Versions.state``, and
        ContentError: it cannot be done.
        SandboxError: it could not be computed.
        DocumentBusy: others reset the document again and again, or write so much that there is no place between it.
        StoreUnavailable, StoreRefused: it could not be written.
    """
    random = SystemRandom() if random is None else random
    attributing = Attributing(store, sandbox, Rebuilding(store))
    for _ in range(_COMPUTED):
        loaded = await store.load(name)
        if loaded is None:
            raise DocumentNotFound(f"there is no document {name!r}")
        document = await in_slices(read_document(name, loaded))
        head = Head(loaded.document.id, loaded.document.head_seq, deleted=False)
        target = await find_target(
            versions, attributing, name, head, which, resets=document.resets, whole=element is None
        )
        client = random.getrandbits(32)
        while not client or not document.lacks(client, 0):
            client = random.getrandbits(32)
        task = Restore(await encode(document), target.base, target.rows, client, root, element)
        update = await sandbox.look_back(task)
        if not update or update == EMPTY_UPDATE:
            return Rewound(False, head.seq, head.seq)
        await versions.note(head.document_id, head.seq, Reason.RESTORE)
        note = Note(label=target.label)
        row = await beside_the_loop(len(update), partial(seal_row, update, time.time(), None, note))
        seq = await write_behind(store, name, head.document_id, head.seq, row)
        if seq is not None:
            return Rewound(True, head.seq, seq)
    raise DocumentBusy(f"{name!r} was reset by others again and again", public="others reset it at the same time")
