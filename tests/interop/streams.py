"""The stock client of the Durable Streams Yjs protocol in a Node process; as in :mod:`tests.interop.agent`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.interop.agent import DocumentClient, NodeAgent


class StreamsAgent(NodeAgent):
    """A process of such clients."""

    def __init__(self) -> None:
        super().__init__("streams_agent.mjs")

    async def open(self, key: str, url: str, name: str, others: Sequence[str] = (), **more: Any) -> StreamsClient:
        """Connect a new document; ``url`` is the server's, ``liveMode`` "sse" or "long-poll".

        With ``others`` each request goes to the next one of these servers.
        """
        addresses = [f"{other}/streams" for other in others]
        await self.ask("open", key=key, url=f"{url}/streams", others=addresses, name=name, **more)
        return StreamsClient(self, key)


class StreamsClient(DocumentClient):
    """One client.

    Its state has, beside the content: ``synced``, ``connected``, ``errors`` that it has told its application, and
    ``requests``, how many of each method and status there were.
    """

    async def flush(self) -> None:
        """Return when what was typed so far is answered."""
        await self.agent.ask("flush", key=self.key)

    async def connect(self) -> None:
        await self.agent.ask("connect", key=self.key)

    async def disconnect(self) -> None:
        await self.agent.ask("disconnect", key=self.key)

    async def close(self) -> None:
        await self.agent.ask("close", key=self.key)
