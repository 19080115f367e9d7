"""What no provider sends, over sockets for many documents: refused as narrowly as it can be said.

Strategy: a socket on which nothing can be told any more is closed; everything else costs the bad client the one
document under whose address it was sent. So each attack has three kinds of bystanders: the clients of the
document that is attacked, on both protocols (:class:`Hospital`), another document on the attacker's own socket,
and the server process itself, whose memory must not follow what it is sent.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

import psutil
import pytest
import pytest_asyncio

from tests.hostile.conftest import MAX_DOCUMENT_BYTES
from tests.hostile.test_updates import CORPUS, POISON, of
from tests.hostile.ward import Ward
from tests.support.hocuspocus import (
    AUTH,
    AWARENESS,
    CLOSE,
    PERMISSION_DENIED,
    PING,
    PONG,
    STATELESS,
    SYNC,
    SYNC_STATUS,
    Frame,
    RawHocuspocus,
    auth,
    awareness,
    broadcast_stateless,
    close,
    frame,
    parse,
    query_awareness,
    stateless,
    step1,
    step2,
    update,
)
from tests.support.server import ServerProcess
from tests.support.waiting import eventually
from tests.support.wsclient import (
    EMPTY_UPDATE,
    STEP1,
    STEP2,
    UPDATE,
    converge,
    text_update,
    varbytes,
    varuint,
)

# What the server takes by default.
MAX_DOCUMENTS = 1_000
MAX_WAITING_BYTES = 5 * 1024 * 1024
MAX_WAITING_FRAMES = 1_000
MAX_WAITING_DOCUMENTS = 100
MAX_STATELESS_BYTES = 64 * 1024

# By how much a server may grow over a flood that it must not keep; the floods are several times as large.
GROWTH = 16 * 1024 * 1024

# An address that makes each answer long.
LONG = "d" * 500

_numbers = itertools.count(1)


def endpoint(server: ServerProcess) -> str:
    return f"ws://{server.host}:{server.port}/hocuspocus"


class Hospital(Ward):
    """A ward with a provider among its clients, and a second document on the socket of the attacker."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        super().__init__(server, name)
        self.endpoint = endpoint(server)
        self.provider = RawHocuspocus(self.endpoint)
        self._edits = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self.provider.connect()
            await self.provider.join(self.name)
            await self.provider.send(step2(self.name, EMPTY_UPDATE))
            await self.provider.statuses(self.name, 1)
            await self.remember()
        except BaseException as error:
            await self.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.provider.close()
        await super().__aexit__(kind, error, trace)

    async def remember(self) -> None:
        await super().remember()
        if self.provider.open:
            await self.provider.barrier_of(self.name)
        self._provider_seen = len(self.provider.frames)

    @contextlib.asynccontextmanager
    async def attacker(self, *, joins: bool = True) -> AsyncIterator[Attacker]:
        """Open a socket of its own that has a healthy document, and the attacked one if it ``joins``."""
        async with Attacker(self) as bad:
            await bad.open_document(bad.healthy)
            if joins:
                await bad.open_document(self.name)
            yield bad

    async def check_untouched(self) -> None:
        await super().check_untouched()
        await self.provider.barrier_of(self.name)
        seen = self.provider.got(after=self._provider_seen)
        assert [one for one in seen if one.type not in (SYNC, AWARENESS)] == []
        assert [one for one in seen if one.type == SYNC and one.fields[0] == UPDATE] == []

    async def check_unharmed(self) -> None:
        await super().check_unharmed()
        assert self.provider.open
        before = len(self.provider.frames)
        await self.provider.send(update(self.name, text_update(8000 + next(_numbers), "x", "of the provider")))
        assert await self.provider.statuses(self.name, 1, after=before) == [1]
        await self.ada.until(lambda: "x" in str(self.ada.text("of the provider")), "the edit of the provider")


class Attacker(RawHocuspocus):
    """A bad client with one good document beside what it attacks."""

    def __init__(self, hospital: Hospital) -> None:
        super().__init__(hospital.endpoint)
        self.name = hospital.name
        self.healthy = f"healthy {next(_numbers)}"
        self._edits = itertools.count(1)

    async def open_document(self, address: str) -> None:
        """Join as a provider does, the answer to the server's step 1 included."""
        seen = len(self.frames)
        await self.join(address)
        await self.send(step2(address, EMPTY_UPDATE))
        assert await self.statuses(address, 1, after=seen) == [1]

    async def check_healthy(self) -> None:
        """Assert that the other document on this socket goes on."""
        seen = len(self.frames)
        await self.send(update(self.healthy, text_update(100 + next(self._edits), "still here")))
        assert await self.statuses(self.healthy, 1, after=seen) == [1]
        assert not self.of(CLOSE, self.healthy) and not self.of(AUTH, self.healthy)[1:]

    def of(self, number: int, address: str | None = None, *, after: int = 0) -> list[Frame]:
        return self.got(self.name if address is None else address, number, after=after)


@pytest_asyncio.fixture
async def hospital(server: ServerProcess) -> AsyncIterator[Hospital]:
    async with Hospital(server, f"hospital {next(_numbers)}") as hospital:
        yield hospital
        await hospital.check_unharmed()


@pytest_asyncio.fixture
async def narrow_hospital(narrow_server: ServerProcess) -> AsyncIterator[Hospital]:
    async with Hospital(narrow_server, f"hospital {next(_numbers)}") as hospital:
        yield hospital
        await hospital.check_unharmed()


@pytest.fixture(scope="session")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("strict"), "--auth-seconds", "1") as server:
        yield server


@pytest_asyncio.fixture
async def strict_hospital(strict_server: ServerProcess) -> AsyncIterator[Hospital]:
    async with Hospital(strict_server, f"hospital {next(_numbers)}") as hospital:
        yield hospital
        await hospital.check_unharmed()


# Before authentication


async def refused_flood(hospital: Hospital, messages: Iterable[bytes], *, at_once: bool = False) -> None:
    """Send to a socket that has authenticated nothing and expect its end."""
    async with RawHocuspocus(hospital.endpoint) as bad:
        if at_once:
            bad.burst(*messages)
        else:
            for data in messages:
                await bad.send(data)
        assert await bad.expect_close() == 4205
        assert bad.frames == []
    await hospital.check_untouched()


async def test_more_than_5_mib_before_authentication_close_the_socket(hospital: Hospital) -> None:
    message = update(hospital.name, os.urandom(256 * 1024))
    count = MAX_WAITING_BYTES // len(message)
    async with RawHocuspocus(hospital.endpoint) as good:
        for _ in range(count):
            await good.send(message)
        await good.send(auth("another document"))
        await good.find_type("another document", AUTH)
    await refused_flood(hospital, [message] * (count + 1))
    await refused_flood(hospital, [message] * (count + 1), at_once=True)


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_more_than_1000_messages_before_authentication_close_the_socket(
    hospital: Hospital, at_once: bool
) -> None:
    message = awareness(hospital.name, (5, 1, "{}"))
    await refused_flood(hospital, [message] * (MAX_WAITING_FRAMES + 1), at_once=at_once)
    # Spread over documents too: the bound is the socket's.
    spread = [update(f"flood {i % 50}", EMPTY_UPDATE) for i in range(MAX_WAITING_FRAMES + 1)]
    await refused_flood(hospital, spread, at_once=at_once)


async def test_1000_messages_before_authentication_are_kept_in_order(hospital: Hospital) -> None:
    async with RawHocuspocus(hospital.endpoint) as client:
        name = f"patient {next(_numbers)}"
        good = text_update(5, "worth waiting for")
        for i in range(MAX_WAITING_FRAMES):
            # Every third is refused, so the answers show the order.
            await client.send(update(name, good[:-1] if i % 3 == 2 else good))
        await client.send(auth(name))
        statuses = await client.statuses(name, MAX_WAITING_FRAMES)
        await client.barrier_of(name)
        assert await client.statuses(name, MAX_WAITING_FRAMES) == statuses
        assert statuses == [int(i % 3 != 2) for i in range(MAX_WAITING_FRAMES)]


async def test_more_than_100_documents_before_authentication_close_the_socket(hospital: Hospital) -> None:
    names = [f"waiting {i}" for i in range(MAX_WAITING_DOCUMENTS + 1)]
    messages = [awareness(name, (5, 1, "{}")) for name in names]
    async with RawHocuspocus(hospital.endpoint) as good:
        for message in messages[:-1]:
            await good.send(message)
        await good.send(auth(names[0]))
        await good.send(step1(names[0]))
        await good.find_sync(names[0], STEP2)
    await refused_flood(hospital, messages)
    await refused_flood(hospital, messages, at_once=True)


async def test_a_flood_before_authentication_is_refused_beside_a_live_document(hospital: Hospital) -> None:
    """That one document was granted buys no more room for those that were not."""
    message = awareness("never authenticated", (5, 1, "{}"))
    async with hospital.attacker() as bad:
        bad.burst(*[message] * (MAX_WAITING_FRAMES + 1))
        assert await bad.expect_close() == 4205
    await hospital.check_untouched()


@pytest.mark.xdist_group("little patience")
async def test_a_socket_that_authenticates_nothing_is_closed(strict_hospital: Hospital) -> None:
    async with contextlib.AsyncExitStack() as stack:
        silent, early, denied, live = [
            await stack.enter_async_context(RawHocuspocus(strict_hospital.endpoint)) for _ in range(4)
        ]
        await early.send(awareness(strict_hospital.name, (5, 1, "{}")))
        await denied.send(auth(" "))
        await denied.denied(" ")
        await live.join(strict_hospital.name)
        for bad in (silent, early, denied):
            assert await bad.expect_close() == 4408
        await live.barrier_of(strict_hospital.name)
        assert live.open
    await strict_hospital.check_untouched()


@pytest.mark.xdist_group("little patience")
async def test_a_socket_that_sends_byte_by_byte_is_closed(strict_hospital: Hospital) -> None:
    async with RawHocuspocus(strict_hospital.endpoint) as bad:
        token = auth(strict_hospital.name, "x" * 60_000)
        header = b"\x82\xfe" + len(token).to_bytes(2, "big") + bytes(4)
        for byte in header + token:
            if bad.close_code is not None:
                break
            bad.cut(bytes([byte]))
            await asyncio.sleep(0.05)
        assert await bad.expect_close() == 4408
    await strict_hospital.check_untouched()


async def test_10000_addresses_on_one_socket_are_refused_past_the_bound(hospital: Hospital) -> None:
    addresses = [f"one of many {i}" for i in range(10_000)]
    async with hospital.attacker() as bad:
        beyond = len(addresses) - (MAX_DOCUMENTS - 2)  # it has two already
        bad.burst(*[auth(address) for address in addresses])
        answered, seen = 0, len(bad.frames)

        def all_answered() -> bool:
            # One that was let in gets other frames too.
            nonlocal answered, seen
            fresh = bad.got(after=seen)
            answered, seen = answered + sum(one.type == AUTH for one in fresh), seen + len(fresh)
            return answered >= len(addresses)

        await bad.until(all_answered, "an answer to each", seconds=60.0)
        await bad.barrier_of(bad.healthy)
        answers = {one.address: one for one in bad.got(number=AUTH)}
        refused = [address for address in addresses if answers[address].fields[0] == PERMISSION_DENIED]
        assert refused == addresses[-beyond:]
        assert all(str(MAX_DOCUMENTS) in str(answers[address].fields[1]) for address in refused)
        await bad.check_healthy()
        # One that leaves makes room for another.
        await bad.send(close(addresses[0]))
        await bad.find_type(addresses[0], CLOSE)
        await bad.join(addresses[-1])
        await bad.check_healthy()
    await hospital.check_untouched()


# Frames that are for no document

UNREADABLE = {
    "an empty frame": b"",
    "an endless length": b"\xff" * 200_000,
    "a length beyond the frame": b"\x05ab",
    "a length of 2^53": varuint(2**53 - 1) + b"d",
    "an overlong length": b"\x81\x00d\x00\x00\x01\x00",
    "an address of a mebibyte": auth("x" * 2**20),
    "an address that is not UTF-8": auth(b"\xff\xfe"),
    "a session that is not UTF-8": auth(b"d\0\xff"),
    "half a surrogate pair": auth(b"\xed\xa0\x80"),
}


@pytest.mark.parametrize("live", [False, True], ids=["new", "live"])
@pytest.mark.parametrize("what", UNREADABLE)
async def test_a_frame_without_an_address_closes_its_socket(hospital: Hospital, what: str, live: bool) -> None:
    async with hospital.attacker() if live else RawHocuspocus(hospital.endpoint) as bad:
        await bad.send(UNREADABLE[what])
        assert await bad.expect_close() == 4401
    await hospital.check_untouched()


@pytest.mark.parametrize("live", [False, True], ids=["new", "live"])
async def test_a_text_frame_closes_its_socket(hospital: Hospital, live: bool) -> None:
    async with hospital.attacker() if live else RawHocuspocus(hospital.endpoint) as bad:
        await bad.send_text("hello")
        assert await bad.expect_close() == 4401
    await hospital.check_untouched()


async def test_random_bytes_close_the_socket_or_change_nothing(hospital: Hospital) -> None:
    random_bytes = random.Random(20261123)
    codes = set()
    for _ in range(60):
        async with RawHocuspocus(hospital.endpoint) as bad:
            await bad.join(hospital.name)
            data = random_bytes.randbytes(random_bytes.randrange(2, 60))
            await bad.send(data)
            seen = len(bad.frames)
            await bad.send(auth("still there?"))
            await bad.until(
                lambda bad=bad, seen=seen: bad.close_code or bad.got("still there?", AUTH, after=seen),  # type: ignore[misc]
                "an answer or the close",
            )
            codes.add(bad.close_code)
    assert codes == {None, 4401} or codes == {4401}
    await hospital.check_untouched()


async def test_random_bytes_behind_a_good_address_cost_that_document_at_most(hospital: Hospital) -> None:
    random_bytes = random.Random(20261124)
    denied = 0
    async with hospital.attacker(joins=False) as bad:
        for i in range(60):
            seen = len(bad.frames)
            await bad.join(bad.name)
            data = random_bytes.randbytes(random_bytes.randrange(1, 60))
            # Two of three get past the first look: a true type, or a true sync message.
            body = [data, bytes([i // 3 % 11]) + data, b"\x00" + bytes([i // 3 % 3]) + varbytes(data)][i % 3]
            await bad.send(varbytes(bad.name.encode()) + body)
            await bad.send(close(bad.name))
            await bad.find_type(bad.name, CLOSE, after=seen)
            denied += any(one.fields[0] == PERMISSION_DENIED for one in bad.of(AUTH, after=seen))
        assert denied > 10
        await bad.check_healthy()
    await hospital.check_untouched()


# Names


@pytest.mark.parametrize(
    "address",
    ["", " ", "\t\u2003", "\0session", " \0session", "x" * 513, "ä" * 257, "x" * 513 + "\0session"],
    ids=["empty", "blank", "wide", "session alone", "blank with session", "513", "514", "513 with session"],
)
async def test_a_name_that_is_none_is_refused_under_its_address(hospital: Hospital, address: str) -> None:
    async with hospital.attacker() as bad:
        for version in (None, "4.8.0"):
            seen = len(bad.frames)
            await bad.send(auth(address, "", version))
            assert "name" in await bad.denied(address, after=seen)
        # Also to one that shows no token.
        await bad.send(step1(f"{address} " if not address.strip() else address + "x"))
        await bad.until(lambda: len([one for one in bad.got(number=AUTH) if one.fields[0] == PERMISSION_DENIED]) == 3)
        await bad.check_healthy()
        await bad.barrier_of(bad.name)
    await hospital.check_untouched()


async def test_a_name_of_512_bytes_is_a_name(hospital: Hospital) -> None:
    async with RawHocuspocus(hospital.endpoint) as client:
        for name in ("x" * 512, "ä" * 256, "/", " a "):
            await client.join(name)
            await client.join(f"{name}\0{'s' * 500}")


# Messages behind a good address

UPDATE_OF_5 = text_update(5, "x")

MALFORMED = {
    "an address alone": b"",
    "an unfinished type": b"\x80",
    "an endless type": b"\xff" * 40,
    "a sync message without a body": b"\x00",
    "a sync kind that does not exist": b"\x00\x03\x00",
    "a truncated step 1": b"\x00\x00\x05\x01",
    "a truncated update message": b"\x00\x02\x20" + UPDATE_OF_5[:8],
    "a truncated step 2 message": b"\x00\x01\x20" + UPDATE_OF_5[:8],
    "a length beyond the frame": b"\x00\x02\xff\xff\xff\xff\x0f\x00",
    "a length of 2^53": b"\x00\x02" + varuint(2**53 - 1) + b"\x00",
    "bytes behind an update message": b"\x00\x02" + varbytes(UPDATE_OF_5) + b"\x00",
    "an empty state vector": b"\x00\x00" + varbytes(b""),
    "a truncated state vector": b"\x00\x00" + varbytes(b"\x02\x05\x01"),
    "bytes behind a state vector": b"\x00\x00" + varbytes(b"\x00\x00"),
    "a state vector of 2^29 clients": b"\x00\x00" + varbytes(varuint(2**29)),
    "an Auth message without a body": b"\x02",
    "an Auth message of a server": b"\x02\x02" + varbytes(b"read-write"),
    "a token beyond the frame": b"\x02\x00\x7fabc",
    "a token that is not UTF-8": b"\x02\x00" + varbytes(b"\xff\xfe"),
    "a token over the bound": b"\x02\x00" + varbytes(b"x" * 65_537),
    "bytes behind a version": b"\x02\x00\x00\x014\x00",
    "a stateless message without a body": b"\x05",
    "a stateless message beyond the frame": b"\x05\x7fabc",
    "a stateless message that is not UTF-8": b"\x05" + varbytes(b"\xff\xfe"),
}

NOT_TAKEN = {
    "an awareness message without a body": b"\x01",
    "an empty awareness update": b"\x01" + varbytes(b""),
    "a truncated awareness update": b"\x01" + varbytes(b"\x01\x05\x01\x7f{}"),
    "an awareness count beyond the frame": b"\x01" + varbytes(varuint(2**50)),
    "bytes behind an awareness update": b"\x01" + varbytes(b"\x00\x00"),
    "an awareness state that is not JSON": awareness("", (5, 1, "{name: 'x'}"))[1:],
    "an awareness state that is not UTF-8": awareness("", (5, 1, b'"\xff\xfe"'))[1:],
    "an awareness state of NaN": awareness("", (5, 1, "NaN"))[1:],
    "an awareness state nested deep": awareness("", (5, 1, "[" * 30_000 + "]" * 30_000))[1:],
    "more awareness than allowed": awareness("", (5, 1, '"' + "x" * 65_536 + '"'))[1:],
    "more awareness clients than allowed": awareness("", *((client, 1, "{}") for client in range(1, 102)))[1:],
    "an avatar of 100 KB": awareness("", (5, 1, '{"user":"' + "x" * 100_000 + '"}'))[1:],
    "a stateless message over the bound": b"\x05" + varbytes(b"x" * (MAX_STATELESS_BYTES + 1)),
}


@pytest.mark.parametrize("what", NOT_TAKEN)
async def test_trouble_with_what_is_beside_the_document_costs_that_only(hospital: Hospital, what: str) -> None:
    """Providers never come back after PermissionDenied: an avatar would keep out what is written, for good."""
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        await bad.send(varbytes(bad.name.encode()) + NOT_TAKEN[what])
        told = await bad.find_type(bad.name, STATELESS, after=seen)
        assert "not" in json.loads(told.fields[0])["type"]
        assert json.loads(told.fields[0])["reason"]
        await bad.check_healthy()
        seen = len(bad.frames)
        await bad.send(update(bad.name, text_update(77, "edited ", "beside")))
        assert await verdicts(bad, 1, after=seen) == [1]
        assert bad.of(CLOSE) == []
        assert bad.of(AUTH)[1:] == []
    await hospital.remember()
    assert b"edited" in hospital.before


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_message_costs_its_document_alone(hospital: Hospital, what: str) -> None:
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        await bad.send(varbytes(bad.name.encode()) + MALFORMED[what])
        reason = await bad.denied(bad.name, after=seen)
        assert reason and "Traceback" not in reason and "Error" not in reason
        await bad.check_healthy()
        # What follows is not kept; after another token it is told like the rest, when the client has said what it has.
        seen = len(bad.frames)
        bad.burst(update(bad.name, EMPTY_UPDATE), auth(bad.name))
        await bad.find_sync(bad.name, STEP1, after=seen)
        await withheld(bad, after=seen)
        await bad.send(step2(bad.name, EMPTY_UPDATE))
        assert await verdicts(bad, 2, after=seen) == [1, 1]
        await bad.check_healthy()
        assert bad.of(CLOSE) == []
    await hospital.check_untouched()


@pytest.mark.parametrize(
    "body",
    [b"\x08\x01", b"\x09", b"\x0a", b"\x0b", b"\x7f" + b"x" * 100, varuint(2**53 - 1), b"\x03", b"\x03 and more"],
    ids=["SyncStatus", "Ping", "Pong", "11", "127", "2^53-1", "QueryAwareness", "QueryAwareness, longer"],
)
async def test_a_message_that_means_nothing_is_ignored(hospital: Hospital, body: bytes) -> None:
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        await bad.send(varbytes(bad.name.encode()) + body)
        await bad.barrier_of(bad.name)
        assert {one.type for one in bad.got(after=seen)} <= {SYNC, AWARENESS}
        await bad.check_healthy()
    await hospital.check_untouched()


async def test_a_ping_is_answered_and_a_pong_is_not(hospital: Hospital) -> None:
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        for byte in (PONG, PING, PONG, PING):
            await bad.send(bytes([byte]))
        await bad.send(step1(bad.healthy))
        await bad.until(lambda: len(bad.frames) >= seen + 3, "the answers")
        pongs = bad.frames[seen : seen + 2]
        del bad.frames[seen : seen + 2]  # these have no address to be parsed by
        assert pongs == [bytes([PONG])] * 2
        assert parse(bad.frames[seen]).type == SYNC
        await bad.check_healthy()


# Updates


def many_structs(client_id: int, count: int, root: str) -> bytes:
    """Make an update of as many structs, one letter each: a large one is read in slices, between which others run."""
    item = b"\x04\x01" + varbytes(root.encode()) + varbytes(b"y")
    return b"\x01" + varuint(count) + varuint(client_id) + b"\x00" + item * count + b"\x00"


async def judged(bad: Attacker, *messages: bytes) -> list[int]:
    """Send messages that each ask for a verdict and return the verdicts; no more may come."""
    seen = len(bad.frames)
    for data in messages:
        await bad.send(data)
    return await verdicts(bad, len(messages), after=seen)


async def verdicts(bad: Attacker, count: int, *, after: int) -> list[int]:
    """Wait for as many verdicts and return them; one more update shows by its own verdict that these were all."""
    await bad.send(update(bad.name, EMPTY_UPDATE))
    *expected, last = await bad.statuses(bad.name, count + 1, after=after)
    assert len(expected) == count and last == 1
    return expected


async def withheld(bad: Attacker, *, after: int) -> None:
    """Assert that no verdict has come, though a commit has passed meanwhile."""
    await bad.barrier_of(bad.name)
    await bad.check_healthy()
    assert bad.of(SYNC_STATUS, after=after) == []


async def asked(client: RawHocuspocus, name: str, *, after: int) -> bool:
    """Wait for what the server says to an update: its verdict, or a question (then true)."""
    said = await client.find(
        lambda one: one.address == name and (one.type == SYNC_STATUS or (one.type == SYNC and one.fields[0] == STEP1)),
        "a verdict or a question",
        after=after,
    )
    return said.type == SYNC


async def goes_on(bad: Attacker) -> None:
    """Assert that the session on the attacked document is what it was."""
    assert await judged(bad, update(bad.name, EMPTY_UPDATE)) == [1]
    assert bad.of(CLOSE) == [] and len(bad.of(AUTH)) == 1
    await bad.check_healthy()


@pytest.mark.parametrize("what", of("refuse"))
async def test_an_update_on_which_yjs_throws_is_refused_by_its_status(hospital: Hospital, what: str) -> None:
    data = bytes.fromhex(CORPUS[what]["hex"])
    async with hospital.attacker() as bad:
        assert await judged(bad, update(bad.name, data), step2(bad.name, data)) == [0, 0]
        await goes_on(bad)
    await hospital.check_untouched()


@pytest.mark.parametrize("what", of("ask"))
async def test_an_update_that_is_not_whole_is_asked_for_and_kept(hospital: Hospital, what: str) -> None:
    data = bytes.fromhex(CORPUS[what]["hex"])
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        await bad.send(update(bad.name, data))
        await bad.find_sync(bad.name, STEP1, after=seen)
        # It is kept beside the document, and holds back nothing that comes behind it.
        assert await verdicts(bad, 1, after=seen) == [1]
        await hospital.check_untouched()
        seen = len(bad.frames)
        await bad.send(step2(bad.name, EMPTY_UPDATE))
        assert await verdicts(bad, 1, after=seen) == [1]
        await goes_on(bad)
    await hospital.check_untouched()


@pytest.mark.parametrize("what", of("take"))
async def test_an_odd_update_that_yjs_takes_is_saved(server: ServerProcess, what: str) -> None:
    """No healthy pycrdt client on this document: yrs throws on some of these, Yjs does not."""
    data = bytes.fromhex(CORPUS[what]["hex"])
    name = f"odd {what} on Hocuspocus"
    async with RawHocuspocus(endpoint(server)) as sender, RawHocuspocus(endpoint(server)) as watcher:
        for client in (sender, watcher):
            await client.join(name)
            await client.send(step2(name, EMPTY_UPDATE))
            await client.statuses(name, 1)
        seen = len(sender.frames)
        await sender.send(update(name, data))
        sent = 1
        if await asked(sender, name, after=seen):
            # It deletes what nobody has.
            await sender.send(step2(name, EMPTY_UPDATE))
            sent = 2
        assert await sender.statuses(name, sent, after=seen) == [1] * sent
        await watcher.barrier_of(name)
        assert sender.open and watcher.open


@pytest.mark.parametrize("what", POISON)
async def test_what_brings_down_the_library_never_reaches_one(server: ServerProcess, what: str) -> None:
    async with Hospital(server, f"poison {what} on Hocuspocus") as hospital:
        async with hospital.attacker() as bad:
            data = POISON[what]
            seen = len(bad.frames)
            await bad.send(update(bad.name, data))
            # A clock far beyond what the client has is either refused or taken for a gap; never for content.
            if await asked(bad, bad.name, after=seen):
                assert what.startswith("C3")
                await withheld(bad, after=seen)
            else:
                assert await verdicts(bad, 1, after=seen) == [0]
            await bad.send(step2(bad.name, data))
            await bad.barrier_of(bad.name)
            await bad.check_healthy()
        await hospital.check_untouched()
        await hospital.check_unharmed()


async def test_every_update_of_a_burst_gets_one_status_in_its_order(hospital: Hospital) -> None:
    shuffle = random.Random(7)
    refused = [bytes.fromhex(CORPUS[what]["hex"]) for what in of("refuse")]
    # Large ones are read in slices: nothing behind them may overtake.
    large = many_structs(77, 20_000, "burst")
    corrupt = large[:100_000] + b"\xff" * 50_000
    messages: list[tuple[Callable[[str, bytes], bytes], bytes, int]] = []
    for i in range(400):
        kind = shuffle.randrange(6)
        frame_of = step2 if shuffle.random() < 0.2 else update
        if kind == 0:
            messages.append((frame_of, shuffle.choice(refused), 0))
        elif kind == 1 and i % 20 == 0:
            messages.append((frame_of, corrupt, 0))
        elif kind == 2 and i % 20 == 0:
            messages.append((frame_of, large, 1))
        elif kind == 3:
            messages.append((frame_of, EMPTY_UPDATE, 1))
        else:
            messages.append((frame_of, text_update(1000 + i, "x", "burst"), 1))
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        bad.burst(*(make(bad.name, data) for make, data, _ in messages))
        expected = [status for _, _, status in messages]
        assert expected.count(0) > 20 and expected.count(1) > 20
        assert await verdicts(bad, len(messages), after=seen) == expected
        await goes_on(bad)
    distinct = len({data for _, data, status in messages if status and data not in (EMPTY_UPDATE, large)})
    await converge([hospital.ada, hospital.bob], lambda client: str(client.text("burst")).count("x"), distinct)


async def test_statuses_of_documents_on_one_socket_keep_apart(hospital: Hospital) -> None:
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        data = text_update(5, "x", "apart")
        bad.burst(*(update((bad.name, bad.healthy)[i % 2], (data, data[:-1])[i % 3 == 0]) for i in range(120)))
        for which, address in enumerate((bad.name, bad.healthy)):
            expected = [int(i % 3 != 0) for i in range(120) if i % 2 == which]
            assert await bad.statuses(address, 60, after=seen) == expected
        await goes_on(bad)


async def test_an_update_that_would_make_the_document_too_large_is_refused(narrow_hospital: Hospital) -> None:
    # One that is read at once, and one that is read in slices.
    for large in (text_update(5, "x" * MAX_DOCUMENT_BYTES), text_update(6, "x" * 60_000)):
        for message in (update, step2):
            async with narrow_hospital.attacker() as bad:
                await refused_as(bad, message(bad.name, large), reason="the document is too large")
    await narrow_hospital.check_untouched()
    # In portions as well: each is small, together they are not.
    async with narrow_hospital.attacker() as bad:
        for client in range(10, 20):
            seen = len(bad.frames)
            portion = update(bad.name, text_update(client, "y" * 1_000))
            await bad.send(portion)
            told = await bad.find(
                lambda one: one.address == bad.name and one.type in (AUTH, SYNC_STATUS), "a verdict", after=seen
            )
            if told.type == AUTH:
                break
            assert told.fields == (1,)
        assert told.fields == (PERMISSION_DENIED, "the document is too large") and client > 10
        await bad.check_healthy()
    assert len(await narrow_hospital.read()) <= MAX_DOCUMENT_BYTES


async def refused_as(bad: Attacker, *messages: bytes, reason: str) -> None:
    """Assert that the last of these messages at the latest ends the session for good, once, and no other document."""
    seen = len(bad.frames)
    await bad.send(*messages)
    denied = await bad.find_type(bad.name, AUTH, after=seen)
    assert denied.fields == (PERMISSION_DENIED, reason)
    # What is typed on is not answered, and not refused again and again.
    await bad.send(update(bad.name, text_update(77, "x")))
    await bad.check_healthy()
    assert len(bad.of(AUTH, after=seen)) == 1


async def test_a_frame_over_the_limit_costs_its_document_alone(narrow_hospital: Hospital) -> None:
    async with narrow_hospital.attacker() as bad:
        await refused_as(bad, update(bad.name, os.urandom(100_000)), reason="the message is too large")
    await narrow_hospital.check_untouched()


# What this protocol alone has


async def test_a_broadcast_between_servers_ends_the_session_that_sends_it(hospital: Hospital) -> None:
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        bad.burst(broadcast_stateless(bad.name, "to everybody"), update(bad.name, EMPTY_UPDATE))
        ended = await bad.find_type(bad.name, CLOSE, after=seen)
        assert ended.fields == ("Reset Connection",)
        await bad.check_healthy()
        assert bad.of(SYNC_STATUS, after=seen) == []
        # What came behind it waits for another token.
        await bad.send(auth(bad.name))
        assert await bad.statuses(bad.name, 1, after=seen) == [1]
        await bad.check_healthy()
    assert not hospital.provider.got(number=STATELESS)
    await hospital.check_untouched()


async def test_stateless_messages_reach_the_others_and_not_too_fast(hospital: Hospital) -> None:
    async with hospital.attacker() as bad:
        largest = "x" * MAX_STATELESS_BYTES
        # Twice what the bucket holds, beside which the healthy document and the healthy clients go on.
        texts = [f"message {i}" for i in range(75)] + [largest]
        bad.burst(*(stateless(bad.name, text) for text in texts))
        await hospital.check_unharmed()
        await hospital.provider.until(
            lambda: len(hospital.provider.got(bad.name, STATELESS)) >= len(texts), "every stateless message"
        )
        assert [one.fields[0] for one in hospital.provider.got(bad.name, STATELESS)] == texts
        assert bad.of(STATELESS) == []
        await bad.check_healthy()


async def test_what_a_client_sends_before_it_leaves_is_taken(hospital: Hospital) -> None:
    async with hospital.attacker() as bad:
        seen = len(bad.frames)
        large = many_structs(6, 10_000, "left")
        bad.burst(update(bad.name, text_update(5, "x", "left")), update(bad.name, large), close(bad.name))
        ended = await bad.find_type(bad.name, CLOSE, after=seen)
        assert ended.fields == ("provider_initiated",)
        await converge([hospital.ada], lambda client: sorted(set(str(client.text("left")))), ["x", "y"])
        told = len(bad.of(SYNC_STATUS, after=seen))
        assert told <= 2
        # No token stands before these, so they wait.
        bad.burst(update(bad.name, text_update(7, "z", "left")), awareness(bad.name, (7, 1, "{}")))
        await bad.check_healthy()
        await hospital.check_unharmed()
        assert "z" not in str(hospital.ada.text("left"))
        await bad.send(auth(bad.name))
        await converge([hospital.ada], lambda client: sorted(set(str(client.text("left")))), ["x", "y", "z"])
        assert len(await bad.statuses(bad.name, told + 1, after=seen)) == told + 1
        await bad.check_healthy()


async def test_a_client_that_leaves_before_it_was_let_in_leaves_nothing(hospital: Hospital) -> None:
    async with hospital.attacker(joins=False) as bad:
        ghost = awareness(bad.name, (5, 1, '"ghost"'))
        bad.burst(update(bad.name, text_update(5, "ghost")), ghost, close(bad.name))
        await bad.find_type(bad.name, CLOSE)
        await bad.open_document(bad.name)
        await bad.check_healthy()
    await hospital.check_untouched()
    assert not any(b"ghost" in data for data in hospital.provider.frames)


async def test_a_client_that_leaves_and_returns_at_once_is_served(hospital: Hospital) -> None:
    """What React does to a provider in development."""
    name = f"strict mode {next(_numbers)}"
    async with hospital.attacker() as bad:
        opening = [auth(name), step1(name), awareness(name, (5, 1, "{}"))]
        seen = len(bad.frames)
        bad.burst(*opening, close(name), *opening, close(name), *opening)
        await bad.until(
            lambda: sum(one.type == SYNC and one.fields[0] == STEP2 for one in bad.got(name, after=seen)) == 3,
            "the answer to each step 1",
        )
        seen = len(bad.frames)
        bad.burst(update(name, many_structs(6, 20_000, "text")), step1(name))
        assert await bad.statuses(name, 1, after=seen) == [1]
        # The provider that is there would take the answer to the one that has left for its own end.
        assert bad.got(name, CLOSE) == []
        await bad.send(close(name))
        await bad.find_type(name, CLOSE)
        await bad.check_healthy()


async def test_tokens_behind_tokens_do_not_stop_what_follows(hospital: Hospital) -> None:
    name = f"impatient {next(_numbers)}"
    async with hospital.attacker() as bad:
        large = many_structs(6, 20_000, "text")
        for _ in range(5):
            seen = len(bad.frames)
            bad.burst(auth(name), auth(name), auth(name), update(name, large), auth(name), step1(name))
            await bad.find_sync(name, STEP2, after=seen)
            assert await bad.statuses(name, 1, after=seen) == [1]
            await bad.barrier_of(name)
            await bad.send(close(name))
            await bad.find_type(name, CLOSE, after=seen)
        await bad.check_healthy()


async def test_sessions_that_come_and_go_leave_nobody_behind(hospital: Hospital) -> None:
    async with hospital.attacker(joins=False) as bad:
        for i in range(40):
            address = f"{bad.name}\0{i}"
            bad.burst(auth(address), step1(address), awareness(address, (500 + i, 1, '"ghost"')))
            await bad.find_type(address, AWARENESS)
            if i % 2:
                await bad.send(close(address))
        await bad.vanish()
    await hospital.watcher.barrier()

    async def gone() -> bool:
        async with RawHocuspocus(hospital.endpoint) as newcomer:
            await newcomer.join(hospital.name)
            await newcomer.send(query_awareness(hospital.name))
            await newcomer.barrier_of(hospital.name)
            return not any(b"ghost" in data for data in newcomer.frames)

    await eventually(gone, "the end of the ghosts")


# Clients that do not read


class Deaf:
    """A socket from which nothing is ever read until :meth:`listen`; it writes with the pace of the server."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.frames: list[bytes] = []

    async def __aenter__(self) -> Self:
        # A small window: what waits should wait in the server, where its bound is.
        self._reader, self._writer = await asyncio.open_connection(self._server.host, self._server.port, limit=4096)
        key = base64.b64encode(os.urandom(16)).decode()
        self._writer.write(
            f"GET /hocuspocus HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert (await self._reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        self._transport = self._writer.transport
        self._transport.pause_reading()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.abort()

    async def flood(self, *messages: bytes, times: int, patience: float = 60.0) -> bool:
        """Send the messages over and over; false when the server has cut the connection or stopped to read it."""
        data = b"".join(map(_masked, messages))
        portion = max(1, 65_536 // len(data))
        try:
            for done in range(0, times, portion):
                self._writer.write(data * min(portion, times - done))
                async with asyncio.timeout(patience):
                    await self._writer.drain()
        except (ConnectionError, TimeoutError):
            return False
        return True

    async def listen(self, until: Callable[[], object]) -> None:
        """Read what waits, until the fact or the end."""
        self._transport.resume_reading()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            async with asyncio.timeout(60):
                while not until():
                    self.frames.append(await self._frame())

    async def _frame(self) -> bytes:
        first, size = await self._reader.readexactly(2)
        if size >= 126:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        data = await self._reader.readexactly(size)
        if first == 0x88:
            raise ConnectionError(int.from_bytes(data[:2], "big"))
        return data


def _masked(data: bytes) -> bytes:
    length = (
        bytes([0x80 | len(data)])
        if len(data) < 126
        else b"\xfe" + len(data).to_bytes(2, "big")
        if len(data) < 1 << 16
        else b"\xff" + len(data).to_bytes(8, "big")
    )
    return b"\x82" + length + bytes(4) + data


class Memory:
    """How much a server has grown since it was last looked at."""

    def __init__(self, server: ServerProcess) -> None:
        self._process = psutil.Process(server.pid)
        self._before = self._process.memory_info().rss
        self.most = 0

    def look(self) -> None:
        self.most = max(self.most, self._process.memory_info().rss - self._before)


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small outboxes, whose memory is measured; what a client may rightly hold is small too."""
    options = ("--outbox-bytes", "262144", "--max-documents-per-connection", "100")
    with ServerProcess(tmp_path_factory.mktemp("small"), *options) as server:
        yield server


@pytest_asyncio.fixture
async def flooded(small_server: ServerProcess) -> AsyncIterator[Hospital]:
    async with Hospital(small_server, f"hospital {next(_numbers)}") as hospital:
        yield hospital
        await hospital.check_unharmed()


@pytest.mark.xdist_group("measured memory")
async def test_a_client_that_reads_nothing_gets_its_statuses_when_it_does(flooded: Hospital) -> None:
    # 80,000 statuses under a long address: together more than twice what the server may grow.
    times, name = 40_000, LONG + " floods"
    data = text_update(5, "x", "flood")
    async with Deaf(flooded.server) as deaf:
        await deaf.flood(auth(name), step1(name), times=1)
        memory = Memory(flooded.server)
        assert await deaf.flood(update(name, data), update(name, data[:-1]), times=times)
        await flooded.provider.barrier_of(flooded.name)
        memory.look()
        assert memory.most < GROWTH
        saved = refused = 0

        def all_told() -> bool:
            nonlocal saved, refused
            for one in map(parse, deaf.frames):
                if one.type == SYNC_STATUS:
                    assert one.fields[0] == int(saved == refused), "out of order"
                    saved, refused = saved + (one.fields[0] == 1), refused + (one.fields[0] == 0)
            deaf.frames.clear()
            return saved + refused >= 2 * times

        await deaf.listen(all_told)
        assert (saved, refused) == (times, times)


# Each message, or pair of messages, is answered with about as many bytes as it has.
FLOODS = {
    "denials": [auth(f"{i:03}" + "x" * 1000) for i in range(400)],
    "endings": [close(f"{i:03}" + LONG) for i in range(400)],
    "comings and goings": [make(f"{i:03}" + LONG) for i in range(400) for make in (auth, close)],
    "broadcasts": [auth(LONG), broadcast_stateless(LONG, "")],
    "malformed messages": [auth(LONG), varbytes(LONG.encode()) + b"\x00\x07"],
    "questions for awareness": [auth(LONG), awareness(LONG, (5, 1, '"me"')), query_awareness(LONG)],
    "step 1": [auth(LONG), *[step1(LONG)] * 20],
    "more documents than allowed": [auth(f"{i:05}" + LONG) for i in range(2_000)],
}


@pytest.mark.xdist_group("measured memory")
@pytest.mark.parametrize("what", FLOODS)
async def test_answers_that_nobody_reads_do_not_fill_the_server(flooded: Hospital, what: str) -> None:
    """Whatever a client can make the server say: it stops being said, or the client is cut off."""
    # 40 MB, in portions that are far fewer than what may wait for permission.
    messages = list(itertools.islice(itertools.cycle(FLOODS[what]), 40_000_000 // len(FLOODS[what][0])))
    memory = Memory(flooded.server)
    async with Deaf(flooded.server) as deaf, RawHocuspocus(flooded.endpoint) as other:
        await other.join("other")
        for begin in range(0, len(messages), 200):
            if not await deaf.flood(*messages[begin : begin + 200], times=1, patience=1.0):
                break
            await other.barrier_of("other")
            if begin % 8_000 == 0:
                memory.look()
        memory.look()
    assert memory.most < GROWTH
    await flooded.check_untouched()


async def test_bad_clients_cannot_flood_the_log(hospital: Hospital) -> None:
    lines = len(hospital.server.log_lines)
    async with hospital.attacker(joins=False) as bad:
        for i in range(300):
            address = f"{bad.name}\0{i % 7}"
            await bad.send(auth(address))
            await bad.send(varbytes(address.encode()) + b"\x00\x07")
            await bad.send(frame(address, CLOSE))
        await bad.check_healthy()
    for _ in range(60):
        async with RawHocuspocus(hospital.endpoint) as unreadable:
            await unreadable.send(b"")
            await unreadable.expect_close()
    await hospital.check_untouched()
    assert len(hospital.server.log_lines) - lines <= 40


async def test_neither_a_token_nor_a_name_can_write_to_the_log(hospital: Hospital) -> None:
    name = "nice\n2026-01-01 ERROR forged line\r\x1b[31m red"
    async with RawHocuspocus(hospital.endpoint) as bad:
        await bad.send(auth(name, "a secret that nobody may read"))
        await bad.send(varbytes(name.encode()) + b"\x00\x07")
        await bad.denied(name)
        await bad.send(auth("other", "x" * 70_000 + "a secret that nobody may read"))
        await bad.denied("other")
    assert not any(line.startswith("2026-01-01 ERROR forged") for line in hospital.server.log_lines)
    assert "\x1b" not in hospital.server.stderr
    assert "a secret" not in hospital.server.stderr
