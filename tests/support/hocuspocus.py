"""A client that speaks the Hocuspocus protocol byte by byte, for tests of the running server.

Strategy: as in :mod:`tests.support.wsclient`, whose socket this builds on: a test sends whatever frames it
makes and looks at whatever has come; nothing is answered by itself. Every builder takes the address first,
as text or as the bytes that a hostile client would put there. The codec stands here a second time on
purpose: a mistake in ``collab.protocol`` must not cancel itself out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.support.wsclient import (
    EMPTY_VECTOR,
    STEP1,
    STEP2,
    UPDATE,
    RawClient,
    take_varbytes,
    take_varuint,
    text_update,
    varbytes,
    varuint,
)

(
    SYNC,
    AWARENESS,
    AUTH,
    QUERY_AWARENESS,
    SYNC_REPLY,
    STATELESS,
    BROADCAST_STATELESS,
    CLOSE,
    SYNC_STATUS,
    PING,
    PONG,
) = range(11)

TOKEN, PERMISSION_DENIED, AUTHENTICATED = 0, 1, 2

READ_WRITE, READONLY = "read-write", "readonly"

# What the newest provider shows; see tests/node/package.json.
VERSION = "4.8.0"

Address = str | bytes


class Frame(NamedTuple):
    """One frame from the server.

    ``fields`` by type: Sync (kind, bytes), Awareness (bytes,), Auth (PERMISSION_DENIED, reason),
    (AUTHENTICATED, scope) or (TOKEN,) for a token request, Stateless (text,), CLOSE (reason,),
    SyncStatus (0 or 1,), others none.
    """

    address: str
    type: int
    fields: tuple[int | str | bytes, ...] = ()


def parse(data: bytes) -> Frame:
    """Parse a frame from the server; it must hold exactly one message, to its last byte."""
    if data == bytes((PING,)):
        return Frame("", PING)
    address, pos = take_varbytes(data, 0)
    number, pos = take_varuint(data, pos)
    fields: tuple[int | str | bytes, ...] = ()
    if number == SYNC:
        kind, pos = take_varuint(data, pos)
        payload, pos = take_varbytes(data, pos)
        fields = (kind, payload)
    elif number == AWARENESS:
        payload, pos = take_varbytes(data, pos)
        fields = (payload,)
    elif number == AUTH:
        kind, pos = take_varuint(data, pos)
        fields = (kind,)
        if kind != TOKEN:
            text, pos = take_varbytes(data, pos)
            fields = (kind, text.decode())
    elif number in (STATELESS, CLOSE):
        text, pos = take_varbytes(data, pos)
        fields = (text.decode(),)
    elif number == SYNC_STATUS:
        status, pos = take_varuint(data, pos)
        fields = (status,)
    else:
        assert number == QUERY_AWARENESS, f"a message that no server sends: {data[:80].hex()}"
    assert pos == len(data), f"more than one message in a frame: {data[:80].hex()}"
    return Frame(address.decode(), number, fields)


def parse_type(data: bytes) -> int:
    """Give the type of any frame, to or from the server, behind its address."""
    if data in (bytes((PING,)), bytes((PONG,))):
        return data[0]
    _, pos = take_varbytes(data, 0)
    return take_varuint(data, pos)[0]


def frame(address: Address, number: int, body: bytes = b"") -> bytes:
    """Make a frame of any type with any body."""
    return varbytes(_bytes(address)) + varuint(number) + body


def auth(address: Address, token: str | bytes = "", version: str | None = None) -> bytes:
    """Show a token; with the provider's version as 4.x does, without it as 2.15 and 3.x do."""
    body = varuint(TOKEN) + varbytes(_bytes(token))
    return frame(address, AUTH, body if version is None else body + varbytes(version.encode()))


def step1(address: Address, vector: bytes = EMPTY_VECTOR) -> bytes:
    return frame(address, SYNC, varuint(STEP1) + varbytes(vector))


def step2(address: Address, data: bytes) -> bytes:
    return frame(address, SYNC, varuint(STEP2) + varbytes(data))


def update(address: Address, data: bytes) -> bytes:
    return frame(address, SYNC, varuint(UPDATE) + varbytes(data))


def awareness(address: Address, *entries: tuple[int, int, str | bytes]) -> bytes:
    """Encode an awareness frame of (client ID, clock, JSON text)."""
    body = varuint(len(entries))
    for client, clock, state in entries:
        body += varuint(client) + varuint(clock) + varbytes(_bytes(state))
    return frame(address, AWARENESS, varbytes(body))


def stateless(address: Address, payload: str | bytes) -> bytes:
    return frame(address, STATELESS, varbytes(_bytes(payload)))


def broadcast_stateless(address: Address, payload: str | bytes) -> bytes:
    return frame(address, BROADCAST_STATELESS, varbytes(_bytes(payload)))


def query_awareness(address: Address) -> bytes:
    return frame(address, QUERY_AWARENESS)


def close(address: Address) -> bytes:
    return frame(address, CLOSE)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


class RawHocuspocus(RawClient):
    """A socket for many documents that sends what it is told and remembers what it gets.

    The waiting methods of :class:`RawClient` that parse frames are for y-websocket; here are their twins.
    """

    def got(self, address: str | None = None, number: int | None = None, *, after: int = 0) -> list[Frame]:
        """Give the frames that came from number ``after`` on, of one address or type if wanted, oldest first."""
        return [
            one
            for one in map(parse, self.frames[after:])
            if (address is None or one.address == address) and (number is None or one.type == number)
        ]

    async def find(self, accept: Callable[[Frame], object], what: str, *, after: int = 0) -> Frame:
        """Wait for a frame that ``accept`` takes among those from number ``after`` on, and return it."""
        found: list[Frame] = []

        def search() -> bool:
            found.extend(one for one in self.got(after=after) if accept(one))
            return bool(found)

        await self.until(search, what)
        return found[0]

    async def find_type(self, address: str, number: int, *, after: int = 0) -> Frame:
        """Wait for a frame of this type under this address and return it."""
        return await self.find(
            lambda one: one.address == address and one.type == number, f"type {number} of {address!r}", after=after
        )

    async def find_sync(self, address: str, kind: int, *, after: int = 0) -> bytes:
        """Wait for a sync message of this kind under this address and return its payload."""
        found = await self.find(
            lambda one: one.address == address and one.type == SYNC and one.fields[0] == kind,
            f"sync {kind} of {address!r}",
            after=after,
        )
        payload = found.fields[1]
        assert isinstance(payload, bytes)
        return payload

    async def join(self, address: str, token: str = "", version: str | None = VERSION) -> str:
        """Open a document as a provider does and return the scope; wait for step 2."""
        seen = len(self.frames)
        await self.send(auth(address, token, version))
        await self.send(step1(address))
        answer = await self.find_type(address, AUTH, after=seen)
        assert answer.fields[0] == AUTHENTICATED, answer
        await self.find_sync(address, STEP2, after=seen)
        scope = answer.fields[1]
        assert isinstance(scope, str)
        return scope

    async def make(self, address: str, token: str = "") -> None:
        """Open a document and write something into it, so that readers find it."""
        await self.join(address, token)
        seen = len(self.frames)
        await self.send(update(address, text_update(1, "made")))
        await self.find_type(address, SYNC_STATUS, after=seen)

    async def denied(self, address: str, *, after: int = 0) -> str:
        """Wait for PermissionDenied under this address and return its reason."""
        found = await self.find(
            lambda one: one.address == address and one.type == AUTH and one.fields[0] == PERMISSION_DENIED,
            f"PermissionDenied of {address!r}",
            after=after,
        )
        return str(found.fields[1])

    async def statuses(self, address: str, count: int, *, after: int = 0) -> list[int]:
        """Wait until ``count`` SyncStatus messages have come under this address and return all of them."""

        def come() -> list[int]:
            return [int(one.fields[0]) for one in self.got(address, SYNC_STATUS, after=after)]

        await self.until(lambda: len(come()) >= count, f"SyncStatus number {count} of {address!r}")
        return come()

    async def barrier_of(self, address: str) -> None:
        """Wait until the server has handled everything sent so far under an address that it has let in.

        The frames of one address are handled in order, so the answer to a step 1 says that all before it were.
        """
        seen = len(self.frames)
        await self.send(step1(address))
        await self.find_sync(address, STEP2, after=seen)
