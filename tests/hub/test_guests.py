"""What guests are called, from members and edits to the store, and after a database has gone back."""

from __future__ import annotations

import pytest

from collab.auth.access import Grant
from collab.hub.guests import guest_names, guest_of
from collab.protocol.session import Access
from collab.protocol.sync import SyncUpdate
from collab.storage.records import NewGuest
from tests.hub.conftest import Node, StartNode
from tests.hub.test_authorship import Person
from tests.hub.test_healing import Backup, backup, healed
from tests.support.gone import Gone

__all__ = ["backup"]  # a fixture

ADAS = Grant(Access.WRITE, "guest:a", "Guest of Ada", invited_by="ada")


def come(person: Person, grant: Grant) -> None:
    """Let somebody show a token, as admission does."""
    assert grant.user is not None
    person.member.identify(grant.user)
    person.live.persistence.meet(guest_of(grant))


async def names(node: Node, name: str = "d") -> dict[str, str]:
    return await node.store.guest_names((await node.stored(name)).document.id)


@pytest.mark.parametrize(
    "grant",
    [
        Grant(Access.WRITE, "ada", "Ada"),
        Grant(Access.WRITE, "guest:a", None),
        Grant(Access.WRITE, None, "Guest of Ada"),
        Grant(Access.READ, "guest:a", "Guest of Ada"),
        # What an authenticator of the application's own may say.
        Grant(Access.WRITE, "guest:a", ""),
        Grant(Access.WRITE, "guest:a", "x" * 257),
        Grant(Access.WRITE, "guest:a", "line\nbreak"),
        Grant(Access.WRITE, "guest:a", "\ud800"),
        Grant(Access.WRITE, "guest:" + "x" * 257, "Guest"),
    ],
)
def test_no_name_is_kept_of_others_and_none_that_cannot_be_shown(grant: Grant) -> None:
    assert guest_of(ADAS) == NewGuest("guest:a", "Guest of Ada", "ada")
    assert guest_of(grant) is None


async def test_a_guest_is_named_with_the_first_row_and_only_once(start_node: StartNode) -> None:
    node = await start_node()
    ann, guest, idle = [await Person.join(node, None, client) for client in (1, 2, 3)]
    come(guest, ADAS)
    come(idle, Grant(Access.WRITE, "guest:idle", "Guest of Eve"))
    await ann.save()
    assert await names(node) == {}, "nobody has to be told of who only looks on"
    await guest.save()
    come(guest, Grant(Access.WRITE, "guest:a", "Guest of Eve"))
    await guest.save()
    assert await names(node) == {"guest:a": "Guest of Ada"}
    number = (await node.stored("d")).document.id
    assert await guest_names(node.store, number, [None, "ann", "guest:x", "guest:a"]) == await names(node)


async def test_a_guest_whose_update_waits_for_others_is_named(start_node: StartNode) -> None:
    node, gone = await start_node(), Gone(client=100)
    guest = await Person.join(node, None, 2)
    come(guest, ADAS)
    guest.live.receive(guest.member, SyncUpdate(gone.rest))
    await node.write(guest.live)
    assert await names(node) == {"guest:a": "Guest of Ada"}


async def test_a_database_that_went_back_is_told_again(start_node: StartNode, backup: Backup) -> None:
    node = await start_node()
    ann, guest = [await Person.join(node, None, client) for client in (1, 2)]
    await ann.save("old")
    backup.keep()
    come(guest, ADAS)
    await guest.save("new")
    backup.restore()
    await ann.save("newest")
    await healed(node)
    assert await names(node) == {"guest:a": "Guest of Ada"}
