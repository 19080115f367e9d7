"""One receiver, however it behaves: each attempt ends, is told truly, and is tried again later and later."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from pathlib import Path
from random import Random
from typing import Any

import jwt
import pytest
from aiohttp import web

from collab.auth.signing import BODY_HASH, HEADER, Signer
from collab.content.edits import Format
from collab.errors import ConfigurationError
from collab.outbound import Outbound
from collab.storage.webhooks import CHANGED, DELETED, Delivery
from collab.webhooks.counts import WebhookCounts
from collab.webhooks.courier import AT_A_TIME, MAX_ALONE, MAX_PAUSE, TROUBLE, Courier
from collab.webhooks.messages import Content
from collab.webhooks.receivers import Receiver as Wanted
from collab.webhooks.receivers import read_keys
from tests.auth.makers import pair, write
from tests.support.webhooks import OTHER, SECRET, Receiver, cut, endless, never, redirect
from tests.transports.test_tls import make_certificate

CHANGE = {"from": 1, "to": 1, "authors": [], "on_behalf_of": [], "more_authors": False}


def delivery(kind: str = CHANGED, attempts: int = 0) -> Delivery:
    return Delivery(
        number=1,
        receiver="r",
        event="evt_1",
        kind=kind,
        lane=1,
        name="d",
        data=CHANGE if kind == CHANGED else {"seq": 1},
        at=time.time(),
        attempts=attempts,
        due_at=0.0,
        done_at=None,
        delivered=False,
        status=None,
        error=None,
    )


class Now:
    """Seconds of the loop, as a courier sees them."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


Make = Callable[..., Any]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Outbound] = []

    async def courier(
        url: str,
        *,
        seconds: float = 20.0,
        content: Format | None = None,
        read: Any = None,
        signer: Signer | None = None,
    ) -> Courier:
        outbound = Outbound(url, option="it", danger="read", timeout=seconds, max_bytes=65_536)
        await outbound.start()
        made.append(outbound)
        wanted = Wanted("r", url, read_keys([SECRET], "it"), content=content)
        counts = WebhookCounts()
        now = Now()
        found = Courier(
            wanted,
            outbound,
            read,
            first_pause=5.0,
            clock=time.time,
            now=now,
            random=Random(1),
            counts=counts,
            signer=signer,
        )
        found.test_now, found.test_counts = now, counts  # type: ignore[attr-defined]
        return found

    yield courier
    for outbound in made:
        await outbound.close()


async def test_a_message_is_signed_and_counts_as_taken_by_any_2xx(make: Make) -> None:
    async with Receiver() as receiver:
        courier = await make(receiver.url)
        receiver.replies = [200, 204]
        for status in (200, 204):
            result = await courier.attempt(delivery())
            assert result.attempt == (1, True, status, None, 0.0) and not result.gone
        (first, second) = receiver.taken
        assert (first.id, first.about, first.data["to"]) == ("evt_1", (CHANGED, "d"), 1)
        assert first.headers["User-Agent"] == "collab" and second.id == first.id
        assert courier.test_counts.attempts["delivered"] == 2


@pytest.mark.parametrize(("algorithm", "versions"), [("EdDSA", ["v1", "v1a"]), ("RS256", ["v1"])])
async def test_a_message_is_signed_with_the_key_of_the_server_too(
    make: Make, algorithm: str, versions: list[str], tmp_path: Path
) -> None:
    signer = Signer([write(tmp_path / "key", pair(algorithm).private_pem)], "collab")
    async with Receiver() as receiver:
        courier = await make(receiver.url + "?key=geheim", signer=signer)
        receiver.replies = [500, 200]
        for _ in range(2):
            await courier.attempt(delivery())
        (message,) = receiver.taken
        keys = jwt.PyJWKSet.from_dict({"keys": [dict(key) for key in signer.published]})
        token = message.headers[HEADER]
        claims = jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], [algorithm], audience=receiver.url)
        assert claims["webhook_id"] == message.id == "evt_1"
        assert claims[BODY_HASH] == hashlib.sha256(receiver.bodies[-1]).hexdigest()
        signatures = message.headers["webhook-signature"].split(" ")
        assert [signature.partition(",")[0] for signature in signatures] == versions
        if algorithm == "EdDSA":
            text = f"{message.id}.{message.headers['webhook-timestamp']}.".encode() + receiver.bodies[-1]
            pair(algorithm).private.public_key().verify(base64.b64decode(signatures[1][4:]), text)
        assert claims["aud"] == receiver.url  # without what may be a secret in it


@pytest.mark.parametrize("status", [300, 400, 401, 404, 429, 500, 503])
async def test_any_other_status_is_tried_again(make: Make, status: int) -> None:
    async with Receiver() as receiver:
        receiver.always = status
        courier = await make(receiver.url)
        result = await courier.attempt(delivery())
        assert (result.attempt.delivered, result.attempt.status) == (False, status)
        assert result.attempt.error == f"it answered {status}" and not result.gone
        assert courier.test_counts.attempts["refused"] == 1


async def test_a_redirect_is_not_followed(make: Make) -> None:
    async with Receiver() as receiver:
        receiver.replies = [redirect]
        result = await (await make(receiver.url)).attempt(delivery())
        assert (result.attempt.delivered, result.attempt.status) == (False, 307)
        assert receiver.elsewhere == 0


async def test_a_receiver_that_is_down_silent_or_cuts_is_not_answered(make: Make) -> None:
    async with Receiver() as receiver:
        url = receiver.url
        receiver.replies = [cut]
        result = await (await make(url)).attempt(delivery())
        assert (result.attempt.status, result.attempt.delivered) == (None, False)
        assert "ServerDisconnected" in result.attempt.error
        receiver.replies = [never]
        result = await (await make(url, seconds=0.2)).attempt(delivery())
        assert "did not answer within 0.2 s" in result.attempt.error
    courier = await make(url)
    result = await courier.attempt(delivery())
    assert "did not answer: Client" in result.attempt.error
    assert courier.test_counts.attempts["unanswered"] == 1


async def test_an_answer_without_an_end_counts_by_its_status(make: Make) -> None:
    async with Receiver() as receiver:
        receiver.replies = [endless]
        result = await (await make(receiver.url)).attempt(delivery())
        assert result.attempt.delivered and result.attempt.status == 200


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(make: Make, tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "receiver")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with Receiver(context=context) as receiver:
        result = await (await make(receiver.url)).attempt(delivery())
        assert "ClientConnectorCertificateError" in result.attempt.error
        assert receiver.asked == []


async def test_410_says_that_nothing_more_is_wanted(make: Make) -> None:
    async with Receiver() as receiver:
        receiver.always = 410
        result = await (await make(receiver.url)).attempt(delivery())
        assert result.gone and not result.attempt.delivered


async def test_pauses_grow_with_some_chance_up_to_a_bound(make: Make) -> None:
    async with Receiver() as receiver:
        receiver.always = 500
        courier = await make(receiver.url)
        pauses = [(await courier.attempt(delivery(attempts=number))).attempt.pause for number in range(12)]
        assert all(0.75 * 5 * 2**number <= pauses[number] <= 1.25 * 5 * 2**number for number in range(5))
        assert all(0.75 * MAX_PAUSE <= pause <= 1.25 * MAX_PAUSE for pause in pauses[8:])
        assert len(set(pauses)) == len(pauses)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("99999999999", MAX_PAUSE),
        ("in five minutes", 200.0),
        ("five minutes ago", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("1" * 100, 0.0),
    ],
)
async def test_the_time_that_a_receiver_asks_for_is_left_to_it(make: Make, header: str, seconds: float) -> None:
    dates = {"in five minutes": 300.0, "five minutes ago": -300.0}

    async def busy(request: web.Request) -> web.StreamResponse:
        value = formatdate(time.time() + dates[header], usegmt=True) if header in dates else header
        return web.Response(status=429, headers={"Retry-After": value})

    async with Receiver() as receiver:
        receiver.replies = [busy]
        pause = (await (await make(receiver.url)).attempt(delivery())).attempt.pause
        assert pause >= seconds if seconds else pause <= 1.25 * 5
        assert pause <= MAX_PAUSE


async def test_who_takes_nothing_is_left_alone_and_then_asked_by_one_at_a_time(make: Make) -> None:
    async with Receiver() as receiver:
        receiver.always = 500
        courier = await make(receiver.url)
        now = courier.test_now
        assert courier.room == AT_A_TIME and courier.alone == 0.0
        for _ in range(TROUBLE - 1):
            await courier.attempt(delivery())
            assert courier.room == AT_A_TIME
        alone = []
        for _ in range(10):
            await courier.attempt(delivery())
            assert courier.room == 0
            alone.append(courier.alone)
            now.time += courier.alone + 0.001
            assert courier.room == 1
            courier.lanes[1] = 1
            assert courier.room == 0
            courier.lanes.clear()
        assert alone[0] <= 1.25 * 5 and alone[1] > alone[0] and max(alone) <= 1.25 * MAX_ALONE
        receiver.always = 200
        result = await courier.attempt(delivery())
        assert result.recovered and courier.room == AT_A_TIME
        assert not (await courier.attempt(delivery())).recovered


async def test_content_is_read_for_who_wants_it_and_where_there_is_some(make: Make) -> None:
    read: list[str] = []

    async def content(delivery: Delivery, receiver: Wanted) -> Content:
        read.append(delivery.kind)
        return Content(Format.TEXT, b"hello", "tag")

    async with Receiver() as receiver:
        courier = await make(receiver.url, content=Format.TEXT, read=content)
        await courier.attempt(delivery(CHANGED))
        await courier.attempt(delivery(DELETED))
        assert [message.data.get("content") for message in receiver.taken] == [
            {"format": "text", "value": "hello", "etag": "tag"},
            None,
        ]
        assert read == [CHANGED]
        await (await make(receiver.url, read=content)).attempt(delivery(CHANGED))
        assert read == [CHANGED]


async def test_a_defect_of_ours_holds_up_one_delivery(make: Make) -> None:
    async def content(delivery: Delivery, receiver: Wanted) -> Content:
        raise RuntimeError("a defect")

    async with Receiver() as receiver:
        courier = await make(receiver.url, content=Format.TEXT, read=content)
        result = await courier.attempt(delivery())
        assert result.attempt.error == "a defect: RuntimeError" and result.attempt.pause > 0
        waiting = asyncio.ensure_future(courier.attempt(delivery()))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert receiver.asked == []


async def test_several_secrets_sign_each_message() -> None:
    async with Receiver(SECRET, OTHER) as receiver:
        outbound = Outbound(receiver.url, option="it", danger="read", timeout=20.0, max_bytes=65_536)
        await outbound.start()
        wanted = Wanted("r", receiver.url, read_keys([SECRET, OTHER], "it"))
        courier = Courier(
            wanted,
            outbound,
            None,
            first_pause=5.0,
            clock=time.time,
            now=Now(),
            random=Random(1),  # type: ignore[arg-type]
            counts=WebhookCounts(),
        )
        assert (await courier.attempt(delivery())).attempt.delivered
        await outbound.close()


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://app.example/hooks", "must begin with https://: read"),
        ("ftp://app.example/hooks", "is not an absolute URL"),
        ("/hooks", "is not an absolute URL"),
        ("http://[::1", "is not a URL"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        Outbound(url, option="it", danger="read", timeout=1.0, max_bytes=1)
