"""Write the table of document names in ``docs/protocol.md`` from what the published clients really do.

Strategy: each client opens each name on a real server and edits. What it sends is read by a pass-through before the
server; which document it has opened is what the server's listing shows to have a connection.

Run ``python -m tests.interop.names_table`` after a client has been added or changed; a test compares.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import aiohttp

from tests.interop.agent import GENERATION, VERSIONS, Agent, Client
from tests.interop.hocuspocus import PROVIDERS, HocuspocusAgent, Provider
from tests.support.server import ServerProcess
from tests.support.tables import write_between
from tests.support.waiting import eventually

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
START = "<!-- names: written by python -m tests.interop.names_table -->"
END = "<!-- end of names -->"

NAMES = (
    *("a/b", "a b", "ä", "a+b", "a&b=c", "a//b", "/a", "a/"),  # the same in both
    *("a?b", "a#b", "a%41", "a%2Fb", "a%", "a\\b", " a", "a ", "a\tb", "a\nb", "a\x01b", ".", "..", "a/./b", "a/../b"),
)

# What encodeURIComponent leaves as it is, beside letters and digits.
_UNCHANGED = "-_.!~*'()"

_REFUSED = "nothing: refused"


class Seen(NamedTuple):
    """What one client does with a name: the request target that it sends, the document that it opens, and the one
    that it opens when it is given ``encodeURIComponent`` of the name.
    """

    target: str
    opens: str
    encoded: str = ""


class Recorder:
    """Passes connections on to a server and keeps the target of each request."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._listener: asyncio.Server | None = None
        self.targets: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Give the address under which the server is reached."""
        self._listener = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        finally:
            self._listener.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.targets.append(head.split(b" ", 2)[1].decode())
        theirs, ours = await asyncio.open_connection(self._server.host, self._server.port)
        ours.write(head)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
            except ConnectionError:
                pass
            sink.close()

        await asyncio.gather(copy(reader, ours), copy(theirs, writer))


class Observer:
    """Opens names by clients, one after the other."""

    def __init__(self, server: ServerProcess, recorder: Recorder, url: str, http: aiohttp.ClientSession) -> None:
        self._server = server
        self._recorder = recorder
        self._url = url
        self._http = http

    async def _opened(self) -> list[str]:
        async with self._http.get(f"{self._server.url}/api/v1/documents?limit=1000") as response:
            return [found["name"] for found in (await response.json())["documents"] if found["connections"]]

    async def plain(self, agent: Agent, version: str, name: str) -> Seen:
        """See what a y-websocket client does."""
        self._recorder.targets.clear()
        try:
            client = await agent.open("k", version, f"{self._url}/ws", name)
        except AssertionError as error:
            assert "fragment" in str(error), error
            return Seen("nothing: it throws", "nothing")

        async def refused() -> bool:
            return bool((await client.state())["closes"])

        opens = await self._edit(client, refused)
        target = self._recorder.targets[0]
        await client.close()
        await self._closed()
        return Seen(target, opens)

    async def provider(self, agent: HocuspocusAgent, version: str, name: str) -> Seen:
        """See what a Hocuspocus provider does; all of them ask for one address."""
        socket = await agent.socket(version, f"{self._url}/hocuspocus")
        provider = await socket.open("k", name)

        async def refused() -> bool:
            return bool((await provider.state())["failures"])

        opens = await self._edit(provider, refused)
        await provider.destroy()
        await socket.destroy()
        await self._closed()
        return Seen("/hocuspocus", opens)

    async def _edit(self, client: Client | Provider, refused: Callable[[], Awaitable[bool]]) -> str:
        await client.edit("type", text="x")

        async def decided() -> str | None:
            opened = await self._opened()
            return opened[0] if opened else _REFUSED if await refused() else None

        return await eventually(decided, "a document that is open, or a refusal")

    async def _closed(self) -> None:
        async def closed() -> bool:
            return not await self._opened()

        await eventually(closed, "the end of the client")


async def observe(server: ServerProcess) -> dict[str, dict[str, Seen]]:
    """Give what each client does with each name: by name and then by client."""
    seen: dict[str, dict[str, Seen]] = {name: {} for name in NAMES}
    recorder = Recorder(server)
    async with recorder.running() as url, aiohttp.ClientSession() as http:
        observer = Observer(server, recorder, url, http)
        for version in VERSIONS:
            async with Agent(GENERATION[version]) as agent:
                for name in NAMES:
                    encoded = await observer.plain(agent, version, quote(name, safe=_UNCHANGED))
                    one = await observer.plain(agent, version, name)
                    seen[name][f"y-websocket {version}"] = one._replace(encoded=encoded.opens)
        for version in PROVIDERS:
            async with HocuspocusAgent() as providers:
                for name in NAMES:
                    seen[name][f"provider {version}"] = await observer.provider(providers, version, name)
    return seen


def render(seen: dict[str, dict[str, Seen]]) -> str:
    """Give the table as Markdown; all clients of a protocol do the same, else there is an AssertionError."""
    lines = [
        "| name | y-websocket sends | and opens | with `encodeURIComponent(name)` it opens | a provider opens |",
        "|---|---|---|---|---|",
    ]
    for name, clients in seen.items():
        plain = {of for client, of in clients.items() if client.startswith("y-")}
        providers = {of for client, of in clients.items() if not client.startswith("y-")}
        assert len(plain) == len(providers) == 1, f"{name!r}: clients differ: {clients}"
        [sent], [asked] = plain, providers
        opens = (_shown(opens, name) for opens in (sent.opens, sent.encoded, asked.opens))
        cells = (_shown(name), _shown(sent.target), *opens)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(text: str, name: str | None = None) -> str:
    if text.startswith("nothing"):
        return text
    if text == name:
        return "the same"
    # As in JavaScript, so that control characters and blanks at the ends can be seen.
    escaped = "".join(f"\\x{ord(char):02x}" if ord(char) < 32 else char for char in text.replace("\\", "\\\\"))
    escaped = escaped.replace("\\x09", "\\t").replace("\\x0a", "\\n")
    return f"`'{escaped}'`"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, ServerProcess(Path(directory)) as server:
        write_between(DOCUMENT, START, END, render(asyncio.run(observe(server))))


if __name__ == "__main__":
    main()
