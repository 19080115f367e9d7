"""What operators tell all nodes, and the new names of documents, in SQL: functions for one connection each.

Strategy: as in :mod:`collab.storage.sql`, which runs them. Times are the database's own, so nodes whose clocks differ
agree on what has lapsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from collab.errors import DocumentExists, DocumentNotFound, StoreRefused
from collab.storage.backend import Backend
from collab.storage.batch import decode_author, encode_author, encode_name
from collab.storage.control import KEPT_SECONDS, MAX_INSTRUCTIONS, PAGE
from collab.storage.nodes import read_nodes
from collab.storage.records import Instruction, Kind, NodeReport, Reports, StoredDocument, StoredInstruction
from collab.storage.schema import answers, documents, instructions, reports


def read_time(connection: Connection, now: ColumnElement[float]) -> float:
    """Read the clock of the database, in seconds since 1970: ``Backend.now``."""
    return float(connection.execute(select(now)).scalar_one())


def rename(connection: Connection, found: StoredDocument | None, name: str, new_name: str, at: float) -> int:
    """Give the document ``found`` another name, and leave a tombstone under the old one.

    Lock both names by ``lock_names`` before ``found`` is read.
    """
    if found is None:
        raise DocumentNotFound(f"there is no document {name!r}")
    encoded = encode_name(new_name)
    there = connection.execute(
        select(documents.c.id, documents.c.deleted_at).where(documents.c.name == encoded)
    ).first()
    if there is not None:
        if there.deleted_at is None:
            raise DocumentExists(f"document {new_name!r} exists")
        connection.execute(update(documents).where(documents.c.id == there.id).values(name=None))
    try:
        with connection.begin_nested():
            connection.execute(update(documents).where(documents.c.id == found.id).values(name=encoded))
    except IntegrityError:
        raise DocumentExists(f"document {new_name!r} exists") from None
    connection.execute(insert(documents).values(tombstone(encode_name(name), found.id, at)))
    return found.id


def tombstone(name: bytes, document_id: int, at: float) -> dict[str, Any]:
    """Give the values of the tombstone that a document leaves under a name when it gets another one."""
    return {
        "name": name,
        "head_seq": 0,
        "gc": True,
        "created_at": at,
        "updated_at": at,
        "deleted_at": at,
        "renamed_to": document_id,
    }


def lock_names(connection: Connection, backend: Backend, *names: str) -> None:
    """Lock names, and then the documents that have them, so that no two that rename wait for each other.

    Rows alone will not do: a row may get another name while somebody waits for it, who then holds it all the same. The
    rows are locked in the order of an append.
    """
    encoded = sorted({encode_name(name) for name in names})
    for name in encoded:
        backend.lock(connection, f"name {name.hex()}")
    query = select(documents.c.id).where(documents.c.name.in_(encoded)).order_by(documents.c.id)
    connection.execute(query.with_for_update()).all()


def instruct(connection: Connection, instruction: Instruction, clock: ColumnElement[float]) -> int:
    """Keep an instruction; remove what has lapsed."""
    now = read_time(connection, clock)
    lapsed = select(instructions.c.id).where(instructions.c.lapses_at <= now)
    for table in (reports, answers):
        connection.execute(delete(table).where(table.c.instruction_id.in_(lapsed)))
    connection.execute(delete(instructions).where(instructions.c.lapses_at <= now))
    if connection.execute(select(func.count()).select_from(instructions)).scalar_one() >= MAX_INSTRUCTIONS:
        raise StoreRefused(f"{MAX_INSTRUCTIONS} instructions of the last minutes are kept already")
    values = {
        "kind": instruction.kind.value,
        "document_name": None if instruction.document is None else encode_name(instruction.document),
        "user_id": encode_author(instruction.user),
        "connection": instruction.connection if instruction.logger is None else _join(instruction),
        "seconds": instruction.seconds,
        "at": now,
        "lapses_at": now + max(KEPT_SECONDS, instruction.seconds),
    }
    number: int = connection.execute(insert(instructions).values(values).returning(instructions.c.id)).scalar_one()
    return number


def read_instructions(connection: Connection, after: int, clock: ColumnElement[float]) -> list[StoredInstruction]:
    """Read what has not lapsed."""
    now = read_time(connection, clock)
    query = select(instructions).where(instructions.c.id > after, instructions.c.lapses_at > now)
    return [
        StoredInstruction(row.id, max(0.0, now - row.at), row.lapses_at - now, _read(row))
        for row in connection.execute(query.order_by(instructions.c.id).limit(PAGE))
    ]


def _read(row: Row[Any]) -> Instruction | None:
    try:
        kind = Kind(row.kind)
        document = None if row.document_name is None else row.document_name.decode()
    except ValueError:
        return None  # of a later release
    if kind is Kind.LOG:
        logger, _, level = (row.connection or "").partition("=")
        return Instruction(kind, seconds=row.seconds, logger=logger, level=level)
    return Instruction(kind, document, decode_author(row.user_id), row.connection, row.seconds)


def _join(instruction: Instruction) -> str:
    """Write a logger and its level into the column for a connection, which no such instruction has."""
    return f"{instruction.logger}={instruction.level}"


def write_report(connection: Connection, numbers: Sequence[int], report: NodeReport) -> None:
    """Note what a node has done, in the place of what it has reported before."""
    mine = reports.c.node == report.node
    connection.execute(delete(reports).where(mine, reports.c.instruction_id.in_(numbers)))
    there = connection.execute(select(instructions.c.id).where(instructions.c.id.in_(numbers))).scalars()
    values = [{"instruction_id": number, **report._asdict()} for number in there]
    if values:
        connection.execute(insert(reports), values)


def write_answer(connection: Connection, number: int, node: str, data: bytes) -> None:
    """Keep what a node answers, in the place of what it has answered before."""
    mine = (answers.c.instruction_id == number, answers.c.node == node)
    connection.execute(delete(answers).where(*mine))
    if connection.execute(select(instructions.c.id).where(instructions.c.id == number)).first() is not None:
        connection.execute(insert(answers).values(instruction_id=number, node=node, data=data))


def read_answers(connection: Connection, number: int) -> dict[str, bytes]:
    """Read what the nodes have answered."""
    query = select(answers.c.node, answers.c.data).where(answers.c.instruction_id == number).order_by(answers.c.node)
    return {row.node: bytes(row.data) for row in connection.execute(query)}


def read_reports(connection: Connection, number: int, now: ColumnElement[float]) -> Reports:
    """Read the reports, and which servers live at the time ``now`` and have made none."""
    columns = (reports.c.node, reports.c.ended, reports.c.changed, reports.c.undecided, reports.c.done)
    query = select(*columns).where(reports.c.instruction_id == number).order_by(reports.c.node)
    found = tuple([NodeReport(*row) for row in connection.execute(query)])
    alive = {node.name for node in read_nodes(connection, now) if node.alive}
    return Reports(found, tuple(sorted(alive - {report.node for report in found})))
