"""Rows of a log on their way into a sandbox process, or to a client.

Strategy: a hundred thousand rows as objects would hold up the loop while they are pickled. So they are pickled in
portions, as they are read, and travel as bytes; the process takes them apart again.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence

from collab.history.attribution import Row


class Rows:
    """Rows in their order, which can be read as often as wanted.

    Attributes:
        count: how many there are.
        nbytes: how many bytes of updates they have.
    """

    __slots__ = ("_portions", "count", "nbytes")

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._portions: list[bytes] = []
        self.count = self.nbytes = 0
        self.add(rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Put rows behind the others; some hundred at a time take less than a millisecond."""
        if rows:
            self._portions.append(pickle.dumps([tuple(row) for row in rows], pickle.HIGHEST_PROTOCOL))
            self.count += len(rows)
            self.nbytes += sum([len(row.data) for row in rows])

    def __iter__(self) -> Iterator[Row]:
        """Give the rows."""
        for portion in self._portions:
            # Made above, by the server itself, as all that a sandbox process is given.
            yield from map(Row._make, pickle.loads(portion))


def data_of(rows: Iterable[Row]) -> list[bytes]:
    """Return the updates of rows."""
    return [row.data for row in rows]


def encode_line(row: Row, guests: Mapping[str, str]) -> bytes:
    """Encode a row as a line of JSON for clients, with its update (v1) as base64; ``at`` is in unix seconds.

    ``guests`` says what guests are called.
    """
    said = {
        "number": row.seq,
        "at": row.at,
        "author": row.author,
        "author_name": None if row.author is None else guests.get(row.author),
        "on_behalf_of": row.on_behalf_of,
        "label": row.label,
    }
    # ASCII, so that a name with half a surrogate pair is one as well.
    head = json.dumps(said, separators=(",", ":")).encode()
    return head[:-1] + b',"update":"' + base64.b64encode(row.data) + b'"}\n'
