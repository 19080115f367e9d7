"""What a process that is no node tells the nodes."""

from __future__ import annotations

import pytest

from collab.cluster import tell as tell_module
from collab.cluster.bus import BusMessage
from collab.cluster.local import LocalBus, LocalExchange
from collab.cluster.messages import Look, decode_node_message
from collab.cluster.tell import telling
from tests.support.waiting import happens


class Listener:
    def __init__(self) -> None:
        self.heard: list[BusMessage] = []
        self.left: list[str] = []

    def receive(self, message: BusMessage) -> None:
        self.heard.append(message)

    def joined(self, topic: str, node: str) -> None:
        raise AssertionError("it listens to nothing")

    def gone(self, node: str) -> None:
        self.left.append(node)

    def missed(self) -> None:
        pass


async def test_nodes_that_have_a_document_open_are_told_to_look_at_once_and_it_leaves() -> None:
    exchange, listener = LocalExchange(), Listener()
    node = LocalBus(exchange)
    node.subscribe("a")
    await node.start(listener)
    other = LocalBus(exchange)
    async with telling(other) as tell:
        tell(["a", "b"])
        await happens(lambda: listener.heard, "the message, while it is still connected")
        tell(["a"])
        await happens(lambda: len(listener.heard) == 2, "once more")
    assert [(message.topic, decode_node_message(message.payload)) for message in listener.heard] == [("a", Look())] * 2
    await happens(lambda: listener.left == [other.node], "it has left")
    await node.close()


class Late(LocalBus):
    """A bus whose connection takes some time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.closed = False

    @property
    def trouble(self) -> str | None:  # type: ignore[override]
        self.asked += 1
        return None if self.asked > 3 else "it connects"

    async def close(self) -> None:
        self.closed = True
        await super().close()


async def test_it_waits_for_a_connection_and_leaves_whatever_happens() -> None:
    bus = Late()
    with pytest.raises(ZeroDivisionError):
        async with telling(bus):
            assert bus.asked == 4
            raise ZeroDivisionError
    assert bus.closed


async def test_a_bus_that_cannot_be_had_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tell_module, "_CONNECT_SECONDS", 0.05)
    bus = Late()
    bus.asked = -1_000_000
    async with telling(bus) as tell:
        tell(["a"])
    assert bus.closed
