"""Y-Sweet's published client in a Node process, driven from a test; as in :mod:`tests.interop.agent`."""

from __future__ import annotations

from typing import Any

from tests.interop.agent import DocumentClient, NodeAgent


class YSweetAgent(NodeAgent):
    """A process of Y-Sweet clients."""

    def __init__(self) -> None:
        super().__init__("ysweet_agent.mjs")

    async def open(self, key: str, url: str, name: str, **more: Any) -> YSweetClient:
        """Connect a new document; ``content`` are edits made before that."""
        await self.ask("open", key=key, url=url, name=name, **more)
        return YSweetClient(self, key)


class YSweetClient(DocumentClient):
    """One client.

    Its state has, beside the content: ``status``, ``localChanges`` (its sign: not all is saved), ``signs`` (how that
    has changed), ``opens`` (sockets so far), ``asked`` and ``answered`` (its questions about that, and the answers).
    """

    async def connect(self) -> None:
        await self.agent.ask("connect", key=self.key)

    async def close(self) -> None:
        await self.agent.ask("close", key=self.key)
