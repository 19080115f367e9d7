"""The end of a live room's log, for those who read it as a stream.

Strategy: here are the newest rows that are committed and follow on each other, as far as they are small. They come from
the room, in the step in which it learns their numbers: its own from the journal, those of other nodes from the bus or
the log. Readers that are level are handed one batch for all; others find here what they lack, or read it in the log.
What readers are told is committed, and nothing else is.

Where numbers do not follow (a snapshot stands for rows, or the log is another one than before), what is here says
nothing any more and is dropped; ``epoch`` tells whether numbers from before still mean the same rows.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Final

from collab.errors import DocumentDeleted
from collab.hub.readers import LevelReaders
from collab.protocol.streams import Batch, Numbers, Offset, encode_frames, encode_offset
from collab.storage.checksums import row_checksum
from collab.storage.producers import MAX_PRODUCERS
from collab.storage.records import LogRow, NewRow

_BYTES: Final = 256 * 1024
"""Bytes of rows that are kept for readers that are a little behind."""


class Tail:
    """What a room knows of the end of its log.

    Args:
        document_id: the document's.
        seq: the number of its newest row that is known to be committed.

    Attributes:
        document_id, seq: see there; ``document_id`` is None when the log has gone.
        check: the checksum of that row; None where it is not known.
        epoch: how often numbers from before have lost their meaning.
        level: the readers that are level.
        producers: the highest numbers of those who post, by the keys of the store, as far as this node knows them.
    """

    __slots__ = (
        "_batches",
        "_first",
        "_nbytes",
        "_rows",
        "check",
        "document_id",
        "epoch",
        "level",
        "producers",
        "seq",
    )

    def __init__(self, document_id: int, seq: int) -> None:
        self.document_id: int | None = document_id
        self.seq = seq
        self.check: int | None = None
        self.epoch = 0
        self.producers: OrderedDict[bytes, Numbers] = OrderedDict()
        self._rows: deque[bytes] = deque()
        self._nbytes = 0
        self._first = seq + 1  # the number of the first row that is here
        self._batches: dict[int, Batch] = {}  # by the position of those who are told them
        self.level = LevelReaders()

    @property
    def offset(self) -> Offset:
        """The position behind the newest row; raises ``DocumentDeleted`` if the log has gone."""
        if self.document_id is None:
            raise DocumentDeleted("the log of a document has gone")
        return Offset(self.document_id, self.seq + 1, self.check)

    def add(self, first: int, rows: Sequence[NewRow | LogRow], *, keep: bool) -> None:
        """Add rows that were committed, the first of which has number ``first``; those that are known are passed over.

        Rows that do not follow on what is here are left out: ``moved`` says later that they have been read. They are
        kept for readers only if there are any (``keep``).
        """
        if first > self.seq + 1:
            return
        new = rows[self.seq + 1 - first :]
        if not new:
            return
        before, self.seq = self.seq, first + len(rows) - 1
        self.check = row_checksum(new[-1].data, new[-1].author) if new[-1].checksum is None else new[-1].checksum
        if not keep:
            self._drop()
            return
        for row in new:
            self._rows.append(row.data)
            self._nbytes += len(row.data)
        self._batches.clear()
        if self.level and (batch := self.since(before)) is not None:
            self.level.push(batch)
        # Behind that: who is level needs them no more.
        while self._nbytes > _BYTES and len(self._rows) > 1:
            self._nbytes -= len(self._rows.popleft())
            self._first += 1

    def note_producer(self, key: bytes, numbers: Numbers) -> None:
        """Note the highest numbers of a producer that are known."""
        before = self.producers.pop(key, numbers)
        self.producers[key] = max(before, numbers)
        if len(self.producers) > MAX_PRODUCERS:
            self.producers.popitem(last=False)

    def moved(self, seq: int) -> None:
        """Note up to which row all is known to be committed, where that has moved without the rows being given."""
        if seq > self.seq:
            self.seq, self.check = seq, None
            self._drop()

    def renumbered(self, document_id: int | None, seq: int) -> None:
        """Note that the log is another one than before: numbers from before say nothing."""
        self.document_id, self.seq, self.check = document_id, seq, None
        self.epoch += 1
        self.producers.clear()
        self._drop()

    def _drop(self) -> None:
        self._rows.clear()
        self._batches.clear()
        self._nbytes = 0
        self._first = self.seq + 1
        self.level.wake()

    def since(self, seq: int) -> Batch | None:
        """Give what follows on row ``seq``, an empty batch at the end; None if that is not here."""
        if not self._first - 1 <= seq <= self.seq:
            return None
        batch = self._batches.get(seq)
        if batch is None:
            skipped = seq + 1 - self._first
            rows: Iterable[bytes] = self._rows if not skipped else list(self._rows)[skipped:]
            batch = Batch(encode_frames(rows), encode_offset(self.offset), up_to_date=True)
            self._batches[seq] = batch
        return batch
