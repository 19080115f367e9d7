"""Data about people in SQL: functions for one connection each; see :mod:`collab.storage.people`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, LargeBinary, cast, delete, func, or_, select, update

from collab.errors import DecodeError
from collab.history.attribution import Attribution, Mark, Who
from collab.history.encoding import decode_attribution, encode_attribution
from collab.storage.batch import decode_author, decode_note, encode_author
from collab.storage.checksums import renamed_checksum
from collab.storage.people import PORTION_BYTES, PORTION_ROWS, Place, Trace
from collab.storage.records import LogRow
from collab.storage.schema import (
    attributions,
    client_owners,
    documents,
    guests,
    log,
    pending,
    timeline,
    trash,
    versions,
    webhook_deliveries,
)
from collab.storage.timeline import Entry, Share, decode_said, encode_said
from collab.storage.webhooks import JOINED, LEFT

_PAGE = 500

_ONE = ("author", "user")
_MANY = ("authors", "on_behalf_of")
"""Keys under which deliveries name users; ``on_behalf_of`` may be one too."""


def _named(document_id: int, user: str) -> tuple[Any, ...]:
    text = encode_author(user)
    return log.c.document_id == document_id, or_(log.c.author == text, log.c.on_behalf_of == text)


def places(connection: Connection, after: int, limit: int) -> list[Place]:
    """Read documents, with the names that deleted ones had."""
    name = func.coalesce(documents.c.name, trash.c.name)
    query = select(documents.c.id, cast(name, LargeBinary), documents.c.deleted_at)
    query = query.outerjoin(trash, trash.c.document_id == documents.c.id).where(documents.c.id > after)
    return [
        Place(number, None if text is None else bytes(text).decode(errors="backslashreplace"), deleted_at is not None)
        for number, text, deleted_at in connection.execute(query.order_by(documents.c.id).limit(limit))
    ]


def edits(connection: Connection, document_id: int, user: str, after: int, limit: int) -> list[LogRow]:
    """Read rows that name a user."""
    part = log.c
    texts = [cast(column, LargeBinary) for column in (part.author, part.on_behalf_of, part.label)]
    query = select(part.seq, cast(part.data, LargeBinary), part.at, part.checksum, *texts)
    query = query.where(*_named(document_id, user), part.seq > after).order_by(part.seq).limit(limit)
    return [
        LogRow(seq, bytes(data), at, decode_author(author), checksum, decode_note(on_behalf_of, label))
        for seq, data, at, checksum, author, on_behalf_of, label in connection.execute(query)
    ]


def traces(connection: Connection, document_id: int, user: str) -> list[Trace]:
    """Read what names a user beside the rows."""
    text = encode_author(user)
    found: list[Trace] = []
    part = pending.c
    waiting = select(part.at, func.length(part.data)).where(part.document_id == document_id, part.author == text)
    found += [Trace("waiting", {"at": at, "bytes": size}) for at, size in connection.execute(waiting.order_by(part.id))]
    owned = select(client_owners.c.client, client_owners.c.at).where(
        client_owners.c.document_id == document_id, client_owners.c.author == text
    )
    found += [
        Trace("client_id", {"client": client, "at": at})
        for client, at in connection.execute(owned.order_by(client_owners.c.client))
    ]
    made = select(versions).where(versions.c.document_id == document_id, versions.c.author == text)
    found += [
        Trace("version", {"version": row.id, "number": row.seq, "name": decode_author(row.name), "at": row.at})
        for row in connection.execute(made.order_by(versions.c.id))
    ]
    after = -1
    while rows := _sittings(connection, document_id, after):
        for row in rows:
            after = row.first_seq
            shares, _, _ = decode_said(bytes(row.data))
            edits = sum(share.edits for share in shares if user in (share.user, share.on_behalf_of))
            if edits:
                facts = {"first": row.first_seq, "last": row.last_seq, "at": row.started_at, "until": row.ended_at}
                found.append(Trace("sitting", {**facts, "edits": edits}))
    _, kept = _attribution(connection, document_id)
    for mark in () if kept is None else kept.marks:
        if user in (mark.who.author, mark.who.on_behalf_of):
            facts = {"at": mark.first, "until": mark.last, "label": mark.who.label}
            found.append(Trace("attribution", facts))
    called = select(*[cast(column, LargeBinary) for column in (guests.c.author, guests.c.name, guests.c.invited_by)])
    for row in connection.execute(called.where(*_guest(document_id, user)).order_by(guests.c.author)):
        guest, name, invited_by = (None if each is None else decode_author(bytes(each)) for each in row)
        found.append(Trace("guest_name", {"guest": guest, "name": name, "invited_by": invited_by}))
    return found


def _guest(document_id: int, user: str) -> tuple[Any, ...]:
    text = encode_author(user)
    return guests.c.document_id == document_id, or_(guests.c.author == text, guests.c.invited_by == text)


def is_named(connection: Connection, document_id: int, user: str) -> bool:
    """Tell whether anything of a document names a user."""
    return bool(edits(connection, document_id, user, 0, 1) or traces(connection, document_id, user))


def rename_rows(connection: Connection, document_id: int, user: str, to: str, after: int) -> tuple[int, int | None]:
    """Change a portion of rows; return how many, and the last one that was looked at (None: there are no more)."""
    part, text, new = log.c, encode_author(user), encode_author(to)
    columns = (part.seq, part.checksum, cast(part.author, LargeBinary), cast(part.on_behalf_of, LargeBinary))
    query = select(*columns, func.length(part.data)).where(*_named(document_id, user), part.seq > after)
    rows = connection.execute(query.order_by(part.seq).limit(PORTION_ROWS)).all()
    changed, nbytes, last = 0, 0, None
    for seq, checksum, author, on_behalf_of, size in rows:
        nbytes += size
        if last is not None and nbytes > PORTION_BYTES:
            return changed, last
        last = seq
        mine = (part.document_id == document_id, part.seq == seq)
        values: dict[str, Any] = {}
        if on_behalf_of is not None and bytes(on_behalf_of) == text:
            values["on_behalf_of"] = new
        if author is not None and bytes(author) == text:
            values["author"] = new
            if checksum is not None:
                data = connection.execute(select(cast(part.data, LargeBinary)).where(*mine)).scalar()
                if data is None:
                    continue  # pruned meanwhile
                values["checksum"] = renamed_checksum(bytes(data), user, to, checksum)
        same = part.checksum.is_(None) if checksum is None else part.checksum == checksum
        changed += connection.execute(update(log).where(*mine, same).values(values)).rowcount
    return changed, last if len(rows) == PORTION_ROWS else None


def rename_owners(connection: Connection, document_id: int, user: str, to: str) -> int:
    """Change a portion of owners of client IDs."""
    part = client_owners.c
    mine = (part.document_id == document_id, part.author == encode_author(user))
    clients = connection.execute(select(part.client).where(*mine).limit(PORTION_ROWS)).scalars().all()
    if not clients:
        return 0
    change = update(client_owners).where(*mine, part.client.in_(clients)).values(author=encode_author(to))
    return connection.execute(change).rowcount


def rename_few(connection: Connection, document_id: int, user: str, to: str) -> dict[str, int]:
    """Change what a document has little of: updates that wait, versions, the attribution, names of guests."""
    text, new = encode_author(user), encode_author(to)
    found = {}
    for kind, table in (("waiting", pending), ("version", versions)):
        mine = (table.c.document_id == document_id, table.c.author == text)
        found[kind] = connection.execute(update(table).where(*mine).values(author=new)).rowcount
    found["guest_name"] = connection.execute(delete(guests).where(*_guest(document_id, user))).rowcount
    seq, kept = _attribution(connection, document_id)
    found["attribution"] = 0
    if kept is not None and any(user in (mark.who.author, mark.who.on_behalf_of) for mark in kept.marks):
        kept.marks = [Mark(_renamed(mark.who, user, to), mark.first, mark.last) for mark in kept.marks]
        mine = (attributions.c.document_id == document_id, attributions.c.seq == seq)
        change = update(attributions).where(*mine).values(data=encode_attribution(kept))
        found["attribution"] = connection.execute(change).rowcount
    return found


def rename_sittings(connection: Connection, document_id: int, user: str, to: str, after: int) -> tuple[int, int | None]:
    """Change a portion of the timeline, as `rename_rows` does."""
    changed = 0
    rows = _sittings(connection, document_id, after)
    for row in rows:
        shares, others, mark = decode_said(bytes(row.data))
        if not any(user in (share.user, share.on_behalf_of) for share in shares):
            continue
        merged: dict[tuple[str | None, str | None], int] = {}
        for share in shares:
            who = _other(share.user, user, to), _other(share.on_behalf_of, user, to)
            merged[who] = merged.get(who, 0) + share.edits
        joined = sorted((Share(*who, edits) for who, edits in merged.items()), key=lambda share: -share.edits)
        entry = Entry(
            row.first_seq, row.last_seq, row.started_at, row.ended_at, row.nbytes, tuple(joined), others, mark
        )
        # A longer form of the newest entry may have been written since.
        mine = (timeline.c.document_id == document_id, timeline.c.first_seq == row.first_seq)
        same = (*mine, timeline.c.last_seq == row.last_seq)
        changed += connection.execute(update(timeline).where(*same).values(data=encode_said(entry))).rowcount
    return changed, rows[-1].first_seq if rows else None


def deliveries(connection: Connection, user: str, after: int, limit: int) -> tuple[list[Trace], int | None]:
    """Read deliveries that name a user."""
    rows = _deliveries(connection, after, limit)
    found = []
    for row in rows:
        data = json.loads(bytes(row.data))
        if _rename(data, row.kind, user, user):
            name = bytes(row.name).decode(errors="replace")
            facts = {"receiver": row.receiver, "event": row.kind, "document": name, "at": row.at, "data": data}
            found.append(Trace("delivery", facts))
    return found, rows[-1].id if rows else None


def rename_deliveries(connection: Connection, user: str, to: str, after: int) -> tuple[int, int | None]:
    """Change a portion of the deliveries."""
    changed = 0
    rows = _deliveries(connection, after, PORTION_ROWS)
    for row in rows:
        data = json.loads(bytes(row.data))
        if _rename(data, row.kind, user, to):
            text = json.dumps(data, separators=(",", ":")).encode()
            # A change that waits may have been joined with the next one since.
            mine = (webhook_deliveries.c.id == row.id, webhook_deliveries.c.data == bytes(row.data))
            changed += connection.execute(update(webhook_deliveries).where(*mine).values(data=text)).rowcount
    return changed, rows[-1].id if rows else None


def _rename(data: dict[str, Any], kind: str, user: str, to: str) -> bool:
    """Put a name in the place of another one in what a receiver is told; tell whether it was there."""
    there = False
    for key in (*_ONE, *_MANY):
        value = data.get(key)
        if value == user:
            there, data[key] = True, to
        elif isinstance(value, list) and user in value:
            there, data[key] = True, sorted({_other(each, user, to) for each in value})
    if there and to != user and kind in (JOINED, LEFT):
        data["name"] = None  # under which the others have seen the user
    return there


def _deliveries(connection: Connection, after: int, limit: int) -> Sequence[Any]:
    part = webhook_deliveries.c
    query = select(part.id, part.receiver, part.kind, part.name, part.at, part.data).where(part.id > after)
    return connection.execute(query.order_by(part.id).limit(limit)).all()


def _sittings(connection: Connection, document_id: int, after: int) -> Sequence[Any]:
    mine = (timeline.c.document_id == document_id, timeline.c.first_seq > after)
    return connection.execute(select(timeline).where(*mine).order_by(timeline.c.first_seq).limit(_PAGE)).all()


def _attribution(connection: Connection, document_id: int) -> tuple[int, Attribution | None]:
    query = select(attributions.c.seq, attributions.c.data).where(attributions.c.document_id == document_id)
    row = connection.execute(query).first()
    if row is None:
        return 0, None
    try:
        return row.seq, decode_attribution(bytes(row.data))
    except DecodeError:
        return row.seq, None  # nobody can read it: it is made anew when somebody asks


def _renamed(who: Who, user: str, to: str) -> Who:
    return Who(_other(who.author, user, to), _other(who.on_behalf_of, user, to), who.label)


def _other(name: str | None, user: str, to: str) -> str | None:
    return to if name == user else name
