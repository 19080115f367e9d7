"""One HTTP request as bytes, for what no client library would send."""

from __future__ import annotations

import asyncio
from typing import NamedTuple


class Answer(NamedTuple):
    """What came back; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: str


async def request(host: str, port: int, raw: str | bytes) -> Answer:
    """Send ``raw`` over a connection of its own and read the answer, whose length must be given."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(raw.encode() if isinstance(raw, str) else raw)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(lines[0].split(" ")[1]), headers, body.decode())
    finally:
        writer.close()
