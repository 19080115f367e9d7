"""Who an edit is from, beside the author of its row: on whose behalf it was made, and whose its client ID is.

Strategy: the sender of a row is the user that was signed in. An edit over HTTP is often made by a back end or an agent
for somebody else, so it can say more, in a note. Most rows have none, and pay nothing for it. And a row may hold what
somebody else has written, so who owns a client ID is noted beside the rows. The engine finds that out; hub and storage
pass it on, and notes too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from collab.errors import LimitExceeded

MAX_NOTE_BYTES: Final = 255
"""The longest text of a note, in bytes of UTF-8: each timeline of a document shows some hundred of them."""


DELETED_USER: Final = "deleted user"
"""Stands for a user whose data was erased, wherever that user was named (``collab people erase``)."""


@dataclass(frozen=True, slots=True)
class Note:
    """What an edit says of itself beside its author; use ``make_note`` where both texts may be missing.

    Attributes:
        on_behalf_of: the user for whom the author has made it; None for nobody else.
        label: a text of the author's, as the name of a tool or of a model; None for none.

    Raises:
        LimitExceeded: a text has more than ``MAX_NOTE_BYTES``.
    """

    on_behalf_of: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        for name, text in (("on_behalf_of", self.on_behalf_of), ("label", self.label)):
            size = 0 if text is None else len(text.encode("utf-8", "surrogatepass"))
            if size > MAX_NOTE_BYTES:
                said = f"{name} has {size} bytes of UTF-8, at most {MAX_NOTE_BYTES} are taken"
                raise LimitExceeded(said, public=said)


def make_note(on_behalf_of: str | None, label: str | None) -> Note | None:
    """Make a note of two texts; None if there is nothing to note. Raises ``LimitExceeded`` as ``Note`` does."""
    return None if on_behalf_of is None and label is None else Note(on_behalf_of, label)


class FirstUse(NamedTuple):
    """Whose a client ID is: the user whose Update has used it first (docs/decisions/0024).

    Attributes:
        client: the client ID.
        clock: the first clock of it in that Update; what lies below came by another way.
        author: the user; None: the server has made it for the edits of several, and each row says whose it is.
    """

    client: int
    clock: int
    author: str | None
