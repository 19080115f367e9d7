"""``kill -9`` with posts to a stream under way: what was answered is there, and what was sent again is there once."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from pathlib import Path

import aiohttp
import pytest

from collab.protocol.streams import decode_frames, encode_frames
from tests.support.author import Author
from tests.support.server import ServerProcess

pytestmark = [pytest.mark.server, pytest.mark.slow]

NAME = "posted"

_GONE = (aiohttp.ClientError, ConnectionError)


class Producer:
    """Posts words of its own, each until it is answered: what the kill cuts off is sent again, with the same number."""

    def __init__(self, server: ServerProcess, client: int) -> None:
        self._url = f"{server.url}/streams/docs/{NAME}"
        self._author = Author(client)
        self._client = client
        self._pending: tuple[str, bytes] | None = None
        self._seq = 0
        self.answered: list[str] = []
        self.repeated = 0

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Post until the server is gone."""
        while True:
            again = self._pending is not None
            if self._pending is None:
                word = f"<{self._client}-{self._seq}>"
                self._pending = (word, self._author.type(word))
            word, update = self._pending
            headers = {
                "Content-Type": "application/octet-stream",
                "Producer-Id": f"{NAME}-{self._client}",
                "Producer-Epoch": "0",
                "Producer-Seq": str(self._seq),
            }
            try:
                async with session.post(self._url, data=encode_frames([update]), headers=headers) as answer:
                    assert answer.status in ((200, 204) if again else (200,)), await answer.text()
                    self.repeated += answer.status == 204
            except _GONE:
                return
            self.answered.append(word)
            self._pending = None
            self._seq += 1


class Reader:
    """Reads events, from where it was each time."""

    def __init__(self, server: ServerProcess) -> None:
        self._url = f"{server.url}/streams/docs/{NAME}"
        self._author = Author(0)
        self.offset = "-1"

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Read until the server is gone."""
        kind, payload = "", b""
        try:
            async with session.get(self._url, params={"offset": self.offset, "live": "sse"}) as answer:
                assert answer.status == 200, await answer.text()
                async for line in answer.content:
                    if line.startswith(b"event:"):
                        kind = line[6:].strip().decode()
                    elif line.startswith(b"data:") and kind == "data":
                        payload = base64.b64decode(line[5:].strip())
                    elif line.startswith(b"data:"):
                        for update in decode_frames(payload) if payload else ():
                            self._author.read(update)
                        payload, self.offset = b"", json.loads(line[5:])["streamNextOffset"]
        except _GONE:
            return

    @property
    def words(self) -> list[str]:
        return read_words(str(self._author.text))


def read_words(text: str) -> list[str]:
    return [f"<{word}" for word in text.split("<")[1:]]


async def stored(session: aiohttp.ClientSession, server: ServerProcess) -> list[str]:
    author, offset, level = Author(0), "-1", False
    while not level:
        async with session.get(f"{server.url}/streams/docs/{NAME}", params={"offset": offset}) as answer:
            assert answer.status == 200
            body = await answer.read()
            for update in decode_frames(body) if body else ():
                author.read(update)
            offset, level = answer.headers["Stream-Next-Offset"], "Stream-Up-To-Date" in answer.headers
    return read_words(str(author.text))


@pytest.mark.timeout(240)
async def test_what_was_answered_survives_a_kill_and_is_there_once(tmp_path: Path) -> None:
    moments = random.Random(7)
    server = ServerProcess(tmp_path, "--compact-rows", "20")
    async with server, aiohttp.ClientSession() as session:
        async with session.put(f"{server.url}/streams/docs/{NAME}") as answer:
            assert answer.status == 201
        producers, reader = [Producer(server, client) for client in (1, 2, 3)], Reader(server)
        for _ in range(4):
            before = [len(producer.answered) for producer in producers]
            running = asyncio.gather(reader.run(session), *[producer.run(session) for producer in producers])
            while any(len(each.answered) < count + 3 for each, count in zip(producers, before, strict=True)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            await asyncio.sleep(moments.uniform(0.0, 0.1))
            await server.akill()
            await running
            await server.astart()
            words = await stored(session, server)
            answered = {word for producer in producers for word in producer.answered}
            assert answered <= set(words), "what was answered is there"
            assert len(words) == len(set(words)), "and once"
        # A reader that was cut each time goes on where it was, and misses nothing.
        reading = asyncio.create_task(reader.run(session))
        words = await stored(session, server)
        async with asyncio.timeout(60):
            while sorted(reader.words) != sorted(words):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.wait([reading])
