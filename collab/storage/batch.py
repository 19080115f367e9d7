"""What a batch means for the tables: which rows go to which document, and which numbers came of it.

Strategy: pure functions around the one fact a database must supply, the head of each document right after
the batch. From the heads follow all numbers, so a transaction needs to report (and a writer's row needs to
remember, for the repeat after an ambiguous COMMIT) nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from collab.authorship import MAX_NOTE_BYTES, Note
from collab.errors import DocumentDeleted, InvalidDocumentName, LimitExceeded, StoreRefused
from collab.storage.producers import NewProducer, highest
from collab.storage.records import MAX_ROW_BYTES, Append, Appended, AppendOutcome, NewGuest, NewOwner, NewRow

LARGE_BATCH_BYTES = 64 * 1024 * 1024
"""From here on documents are written one by one: both databases hold one statement's data several times."""


@dataclass(slots=True)
class Plan:
    """A batch by documents: ``documents`` gives the positions of each document's entries, by id, ids ascending."""

    batch: Sequence[Append]
    documents: dict[int, list[int]] = field(default_factory=dict)
    refused: dict[int, StoreRefused] = field(default_factory=dict)
    size: int = 0

    def rows(self, document_id: int) -> list[NewRow]:
        """Give the rows of one document in order."""
        return [row for position in self.documents[document_id] for row in self.batch[position].rows]

    def owners(self, document_id: int) -> list[tuple[int, NewOwner]]:
        """Give whose client IDs of one document are, the first one for each, with the place of its row among all rows.

        Places count from 1. Without a row of its own an owner has the one before, which may be 0.
        """
        found: dict[int, tuple[int, NewOwner]] = {}
        for before, entry in self._entries(document_id):
            for owner in entry.owners:
                found.setdefault(owner.client, (before + min(owner.row + 1, len(entry.rows)), owner))
        return list(found.values())

    def guests(self, document_id: int) -> list[tuple[int, NewGuest]]:
        """Give the guests of one document, each once, with the places of their rows as ``owners`` does."""
        found: dict[str, tuple[int, NewGuest]] = {}
        for before, entry in self._entries(document_id):
            for guest in entry.guests:
                found.setdefault(guest.author, (before + min(guest.row + 1, len(entry.rows)), guest))
        return list(found.values())

    def _entries(self, document_id: int) -> Iterator[tuple[int, Append]]:
        """Give the entries of one document, each with the count of the rows before its own."""
        before = 0
        for position in self.documents[document_id]:
            entry = self.batch[position]
            yield before, entry
            before += len(entry.rows)

    def producers(self, document_id: int) -> list[NewProducer]:
        """Give the highest numbers of each producer of one document."""
        return highest(
            producer for position in self.documents[document_id] for producer in self.batch[position].producers
        )

    def keeps_deleted(self, document_id: int) -> bool:
        """Tell whether an entry asks that compaction keeps deleted content of one document."""
        return not all([self.batch[position].gc for position in self.documents[document_id]])


def encode_name(name: str) -> bytes:
    """Give the name as it is stored, its UTF-8; ``InvalidDocumentName`` if it has none."""
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise InvalidDocumentName("a document name with a lone surrogate cannot be stored") from None


def encode_author(author: str | None) -> bytes | None:
    """Give the author as stored: UTF-8, lone surrogates kept, since a token's JSON may hold them."""
    return None if author is None else author.encode("utf-8", "surrogatepass")


def encode_guest(guest: NewGuest) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Give a guest as stored: the author, the name, and who has made the link."""
    return encode_author(guest.author), encode_author(guest.name), encode_author(guest.invited_by)


def decode_author(author: bytes | None) -> str | None:
    """Reverse :func:`encode_author`. Bytes that it never gives are damaged; the row's checksum tells."""
    if author is None:
        return None
    try:
        return author.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return author.decode("utf-8", "replace")


def encode_note(note: Note | None) -> tuple[bytes | None, bytes | None]:
    """Give the texts of a note as stored, like authors."""
    return (None, None) if note is None else (encode_author(note.on_behalf_of), encode_author(note.label))


def decode_note(on_behalf_of: bytes | None, label: bytes | None) -> Note | None:
    """Reverse :func:`encode_note`. What somebody has written by hand may be longer than a note can be: it is cut."""
    if on_behalf_of is None and label is None:
        return None
    texts = decode_author(on_behalf_of), decode_author(label)
    try:
        return Note(*texts)
    except LimitExceeded:
        return Note(*[None if text is None else text[: MAX_NOTE_BYTES // 4] for text in texts])


def unknown_names(batch: Sequence[Append]) -> dict[bytes, float]:
    """Give the names of entries without an id, with the time of their first row.

    They are ordered by name, so that no two writers create documents in opposite orders and wait for each other.
    """
    names: dict[bytes, float] = {}
    for entry in batch:
        if entry.document_id is None:
            try:
                names.setdefault(encode_name(entry.name), entry.begun_at)
            except InvalidDocumentName:
                continue  # ``make_plan`` refuses it
    return dict(sorted(names.items()))


def make_plan(batch: Sequence[Append], ids: Mapping[bytes, int]) -> Plan:
    """Sort a batch by documents; ``ids`` has the living documents that :func:`unknown_names` were found to be.

    Documents with more than ``MAX_ROW_BYTES`` are refused whole.
    """
    plan = Plan(batch)
    documents: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for position, entry in enumerate(batch):
        document_id = entry.document_id
        if document_id is None:
            try:
                found = ids.get(encode_name(entry.name))
            except InvalidDocumentName as error:
                plan.refused[position] = StoreRefused(str(error))
                continue
            if found is None:
                continue
            document_id = found
        positions = documents.get(document_id)
        if positions is None:
            documents[document_id] = [position]
            sizes[document_id] = 0
        else:
            positions.append(position)
        sizes[document_id] += entry.nbytes
    for document_id in sorted(documents):
        if sizes[document_id] > MAX_ROW_BYTES:
            text = f"{sizes[document_id]} bytes at once are more than the store takes ({MAX_ROW_BYTES})"
            refuse(plan, documents[document_id], StoreRefused(text))
        else:
            plan.documents[document_id] = documents[document_id]
            plan.size += sizes[document_id]
    return plan


def refuse(plan: Plan, positions: Sequence[int], error: StoreRefused) -> None:
    """Give the entries at ``positions`` the outcome ``error``."""
    for position in positions:
        plan.refused[position] = error


def outcomes(plan: Plan, heads: Mapping[int, int]) -> list[AppendOutcome]:
    """Give each entry its numbers; a document that has no head was deleted."""
    batch = plan.batch
    results: list[AppendOutcome | None] = [plan.refused.get(position) for position in range(len(batch))]
    for document_id, positions in plan.documents.items():
        head = heads.get(document_id)
        if head is None:
            continue
        for position in reversed(positions):
            if results[position] is None:
                count = len(batch[position].rows)
                results[position] = Appended(document_id, head - count + 1, head)
                head -= count
    return [
        DocumentDeleted(f"document {batch[position].name!r} is deleted") if result is None else result
        for position, result in enumerate(results)
    ]


def encode_heads(heads: Mapping[int, int]) -> str:
    """Encode heads as a writer's row keeps them: ``document:last_seq`` with commas between."""
    return ",".join([f"{document_id}:{head}" for document_id, head in heads.items()])


def decode_heads(text: str | None) -> dict[int, int]:
    """Reverse :func:`encode_heads`."""
    heads = {}
    if text:
        for pair in text.split(","):
            document_id, _, head = pair.partition(":")
            heads[int(document_id)] = int(head)
    return heads
