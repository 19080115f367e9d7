"""Places for questions: each address, socket and document has its turn, and few wait."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import pytest

from collab.auth import places as module
from collab.auth.places import PLACES_PER_SOCKET, Place, Places
from collab.errors import AccessUnavailable


class Asked:
    """Questions of a test, in the order in which they had their places."""

    def __init__(self, count: int) -> None:
        self.places = Places(count)
        self.order: list[str] = []
        self.held: dict[str, Place] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, address: str, socket: Hashable = None) -> asyncio.Task[None]:
        async def wait() -> None:
            self.held[name] = await self.places.take(address, socket)
            self.order.append(name)

        task = self.tasks[name] = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return task

    async def end(self, *names: str) -> list[str]:
        """Give places back; return which questions have theirs now because of it."""
        before = len(self.order)
        for name in names:
            self.held.pop(name).release()
        await turns()
        return self.order[before:]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_address_holds_no_more_places_than_are_free() -> None:
    asked = Asked(8)
    for number in range(20):
        await asked.ask(f"a{number}", "a")
    assert asked.order == ["a0", "a1", "a2", "a3"]
    for number in range(5):
        await asked.ask(f"b{number}", "b")
    assert asked.order[4:] == ["b0", "b1"]
    await asked.ask("c0", "c")
    assert asked.order[6:] == ["c0"], "one that has none finds one, whatever the others want"


async def test_places_go_round_among_addresses_then_sockets_then_documents() -> None:
    asked = Asked(2)
    await asked.ask("first", "a", 1)
    for number in range(3):
        await asked.ask(f"a1.{number}", "a", 1)
    await asked.ask("a2.0", "a", 2)
    await asked.ask("other", "z")
    await asked.ask("b1.0", "b", 3)
    await asked.ask("b1.1", "b", 3)
    assert asked.order == ["first", "other"]
    order = []
    name = "first"
    while asked.held:
        new = await asked.end(name)
        order += new
        if not asked.held:
            break
        name = next(iter(asked.held))
    assert order.index("b1.0") < order.index("a1.1"), order
    assert order.index("a2.0") < order.index("a1.1") < order.index("a1.2"), order
    assert len(order) == 6 and asked.places.waiting == 0


async def test_one_socket_holds_few_places() -> None:
    asked = Asked(100)
    for number in range(PLACES_PER_SOCKET + 2):
        await asked.ask(f"s{number}", "a", 1)
    assert len(asked.order) == PLACES_PER_SOCKET
    await asked.ask("other socket", "a", 2)
    assert asked.order[-1] == "other socket"
    for number in range(20):
        await asked.ask(f"http {number}", "a")
    assert asked.order[-1] == "http 19", "requests have the bound of their address alone"
    assert await asked.end("s0") == [f"s{PLACES_PER_SOCKET}"]


async def test_one_who_gives_up_makes_room_and_leaves_nothing() -> None:
    asked = Asked(2)
    await asked.ask("first", "a", 1)
    gone = await asked.ask("gone", "a", 1)
    stays = await asked.ask("stays", "a", 1)
    gone.cancel()
    # Before it has run: its turn is passed on, and not lost.
    assert await asked.end("first") == ["stays"]
    # In the moment in which it has its place.
    late = await asked.ask("late", "a", 1)
    asked.held.pop("stays").release()
    late.cancel()
    await turns()
    assert stays.done() and late.cancelled() and asked.places.waiting == 0
    assert asked.places._senders == {}
    await asked.ask("next", "a", 1)
    assert asked.order[-1] == "next"
    asked.held["next"].release()
    asked.held["next"].release()  # once is enough
    assert asked.places._free == 2


async def refused(task: asyncio.Task[None]) -> str:
    with pytest.raises(AccessUnavailable) as caught:
        await task
    return str(caught.value)


async def test_few_wait_of_a_socket_an_address_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_WAITING", 6), ("MAX_WAITING_PER_ADDRESS", 4), ("MAX_WAITING_PER_SOCKET", 2)):
        monkeypatch.setattr(module, name, value)
    asked = Asked(1)
    await asked.ask("first", "z")
    for number in range(3):
        await asked.ask(f"a1.{number}", "a", 1)
    assert "one connection" in await refused(asked.tasks["a1.2"])
    for number in range(3):
        await asked.ask(f"a2.{number}", "a", 2 + number)
    assert "from a wait" in await refused(asked.tasks["a2.2"])
    for number in range(2):
        await asked.ask(f"b.{number}", "b", 5)
    assert asked.places.waiting == 6
    # Full: the newest of whoever has most makes room, as long as that is not the newcomer.
    await asked.ask("c.0", "c", 6)
    await turns()
    assert asked.tasks["a1.1"].done() and "about access" in await refused(asked.tasks["a1.1"])
    await asked.ask("c.1", "c", 6)
    await turns()
    assert asked.places.waiting == 6
    assert "about access" in await refused(
        next(asked.tasks[name] for name in ("a2.1", "a1.0") if asked.tasks[name].done())
    )
    assert "about access" in await refused(await asked.ask("d.0", "b", 7))
    order = []
    while asked.held:
        order += await asked.end(next(iter(asked.held)))
    assert len(order) == 6 and asked.places._senders == {}


async def test_closing_sends_away_who_waits_and_who_comes() -> None:
    asked = Asked(1)
    await asked.ask("first", "a")
    waits = await asked.ask("waits", "a")
    asked.places.close()
    assert "closing" in await refused(waits)
    assert "closing" in await refused(await asked.ask("late", "b"))
    assert await asked.end("first") == []
