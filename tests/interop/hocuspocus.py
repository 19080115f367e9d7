"""Published Hocuspocus providers in a Node process, driven from a test.

Strategy: as in :mod:`tests.interop.agent`, with ``tests/node/hocuspocus_agent.mjs``. A socket is an object of
its own here, because many providers may share one; ``open`` without one makes one for the provider alone.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Mapping
from typing import Any

from tests.interop.agent import DocumentClient, NodeAgent
from tests.support.hocuspocus import Frame, parse
from tests.support.waiting import eventually

# The major versions of @hocuspocus/provider; tests/node/package.json has the exact ones.
PROVIDERS = ("2", "3", "4")


class HocuspocusAgent(NodeAgent):
    """A process with providers of all versions."""

    def __init__(self) -> None:
        super().__init__("hocuspocus_agent.mjs")
        self._keys = itertools.count(1)

    async def socket(
        self, version: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Socket:
        """Make the socket for any number of providers; ``options`` are those of the provider's package."""
        socket = Socket(self, f"socket {next(self._keys)}", version)
        await self.ask("socket", key=socket.key, version=version, url=url, headers=dict(headers or {}), options=options)
        return socket

    async def open(self, key: str, version: str, url: str, name: str, **more: Any) -> Provider:
        """Make a document and connect it by that version's provider, over a socket of its own."""
        return await (await self.socket(version, url)).open(key, name, **more)

    async def thrown(self) -> list[str]:
        """Take the errors that were thrown in Node where nobody caught them: in a page they would be on its console."""
        errors: list[str] = await self.ask("thrown")
        return errors


class Socket:
    """One socket of one provider version."""

    def __init__(self, agent: HocuspocusAgent, key: str, version: str) -> None:
        self.agent = agent
        self.key = key
        self.version = version

    async def open(self, key: str, name: str, token: str | dict[str, Any] | None = None, **more: Any) -> Provider:
        """Attach a provider.

        ``token`` is the text itself, or what a function does that is asked for it: ``{"value": text,
        "slow": ms, "fail": message}``, with ``"sync": True`` for one that is no promise. ``options`` are
        those of the provider's package.
        """
        await self.agent.ask("open", key=key, socket=self.key, name=name, token=token, **more)
        return Provider(self, key)

    async def state(self) -> dict[str, Any]:
        """``open``, ``status``, ``opens`` (how often it was) and ``closes`` (the codes)."""
        state: dict[str, Any] = await self.agent.ask("socketState", key=self.key)
        return state

    async def received(self) -> list[Frame]:
        """The last 1,000 frames from the server, oldest first."""
        return [parse(base64.b64decode(frame)) for frame in await self.agent.ask("received", key=self.key)]

    async def sent(self) -> list[bytes]:
        """The last 1,000 frames to the server, oldest first."""
        return [base64.b64decode(frame) for frame in await self.agent.ask("sent", key=self.key)]

    async def raw(self, data: bytes) -> None:
        """Send a frame past all providers."""
        await self.agent.ask("raw", key=self.key, data=base64.b64encode(data).decode())

    async def connect(self) -> None:
        await self.agent.ask("connect", key=self.key)

    async def disconnect(self) -> None:
        """Go offline on purpose, until :meth:`connect`.

        Returns when the socket has closed: 4 does not come back while it still closes.
        """
        await self.agent.ask("disconnect", key=self.key)

        async def closed() -> bool:
            state = await self.state()
            return not state["open"] and state["status"] == "disconnected"

        await eventually(closed, "the socket has closed")

    async def cut(self) -> None:
        """Cut the connection without a word; the providers come back by themselves."""
        await self.agent.ask("cut", key=self.key)

    async def destroy(self) -> None:
        await self.agent.ask("destroySocket", key=self.key)


class Provider(DocumentClient):
    """One provider.

    Its state has, beside the content: ``states``, ``synced``, ``authenticated``, ``scope``, ``unsynced`` (the
    provider's counter) and ``unsaved`` (``hasUnsyncedChanges``), ``events`` (how often each happened),
    ``failures`` (the reasons of denials), ``stateless`` (payloads), ``asked`` (calls of the token function), and
    the state of its socket.
    """

    def __init__(self, socket: Socket, key: str) -> None:
        super().__init__(socket.agent, key)
        self.socket = socket

    async def token(self, token: str | dict[str, Any] | None) -> None:
        """Change what the token function does, which must be one."""
        await self.agent.ask("token", key=self.key, token=token)

    async def retry(self) -> None:
        """Ask once more on the same socket, as an application does after a denial."""
        await self.agent.ask("retry", key=self.key)

    async def send_token(self) -> None:
        await self.agent.ask("sendToken", key=self.key)

    async def send_stateless(self, payload: str) -> None:
        await self.agent.ask("sendStateless", key=self.key, payload=payload)

    async def force_sync(self) -> None:
        await self.agent.ask("forceSync", key=self.key)

    async def count_again(self) -> None:
        """Do as docs/migrating.md says whenever the counter of a provider 2 is below zero."""
        await self.agent.ask("countAgain", key=self.key)

    async def attach(self) -> None:
        await self.agent.ask("attach", key=self.key)

    async def detach(self) -> None:
        await self.agent.ask("detach", key=self.key)

    async def destroy(self) -> None:
        await self.agent.ask("destroy", key=self.key)


async def until_saved(provider: Provider) -> dict[str, Any]:
    """Wait until the provider says that it has synced and all is saved; return the state.

    2 counts below zero after edits that it made before it had synced, and means the same by it.
    """
    return await provider.until(synced=True, unsaved=False)
