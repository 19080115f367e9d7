"""What guests are called, on its way into the store and out of it again.

Strategy: the name in the token of a guest is kept for one document, together with the first row that the guest has sent
there (docs/decisions/0041). Whatever names authors says the user alone; whoever shows it asks for the names, of the
guests among these users alone: where there are none, nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterable

from collab.auth.access import Grant
from collab.auth.claims import check_text
from collab.auth.guests import is_guest
from collab.protocol.session import Access
from collab.storage.log import Log
from collab.storage.records import NewGuest


def guest_of(grant: Grant) -> NewGuest | None:
    """Give the name of a guest who may write, as the store keeps it; None for all others.

    None too for a name that cannot be shown, which an authenticator of the application's own may have said.
    """
    if grant.access is Access.READ or grant.user is None or grant.name is None or not is_guest(grant.user):
        return None
    if not check_text(grant.user) or not check_text(grant.name):
        return None
    return NewGuest(grant.user, grant.name, grant.invited_by)


async def guest_names(store: Log, document_id: int, users: Iterable[str | None]) -> dict[str, str]:
    """Read the names of the guests among users; of those who are not named nothing is known."""
    guests = {user for user in users if user is not None and is_guest(user)}
    return await store.guest_names(document_id, guests) if guests else {}
