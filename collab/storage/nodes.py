"""The table of nodes; see :mod:`collab.storage.membership`."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, insert, select, update

from collab.storage.membership import Node
from collab.storage.schema import nodes

MOST = 1_000
"""Most servers that are listed, those that came last."""


def note_beat(connection: Connection, now: ColumnElement[float], node: Node) -> None:
    """Write what a server says of itself, and the time of the database."""
    values = {
        "address": node.address,
        "version": node.version,
        "bus": node.bus,
        "settings": node.settings,
        "documents": node.documents,
        "connections": node.connections,
        "period": node.period,
        "beat_at": now,
    }
    if not connection.execute(update(nodes).where(nodes.c.name == node.name).values(values)).rowcount:
        connection.execute(insert(nodes).values(name=node.name, since=now, **values))


def read_nodes(connection: Connection, now: ColumnElement[float]) -> list[Node]:
    """Read the servers in the order in which they came."""
    query = select(nodes, (now - nodes.c.beat_at).label("silent")).order_by(nodes.c.since.desc()).limit(MOST)
    found = [
        Node(
            row.name,
            row.address,
            row.version,
            row.bus,
            row.settings,
            row.documents,
            row.connections,
            row.period,
            row.since,
            row.beat_at,
            max(0.0, row.silent),
        )
        for row in connection.execute(query)
    ]
    return sorted(found, key=lambda node: (node.since, node.name))
