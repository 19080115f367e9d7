"""Keys at an address, which may be slow, down, lying or rotating."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from collab.auth.access import AccessRequest, ManagedAuthenticator
from collab.auth.factory import AuthOptions, make_authenticator
from collab.auth.jwks import MAX_JWKS_BYTES
from collab.errors import AccessUnavailable, ConfigurationError, Unauthenticated
from tests.auth.conftest import Elsewhere
from tests.auth.makers import SECRET, Clock, Pair, pair, signed
from tests.support.waiting import eventually

OLD, NEW, OTHER = pair("ES256"), pair("ES256", 1), pair("EdDSA")

TTL, COOLDOWN = 300.0, 10.0


def jwks(**keys: Pair) -> dict[str, Any]:
    return {"keys": [made.jwk(kid) for kid, made in keys.items()]}


class Trusting:
    """An authenticator that trusts the keys at an address, with clocks that a test moves."""

    def __init__(self, url: str, **options: Any) -> None:
        self.clock, self.ages = Clock(), Clock(1000)
        options = {"jwks_ttl": TTL, "jwks_cooldown": COOLDOWN, "timeout": 30.0, **options}
        made = make_authenticator(AuthOptions(jwks_url=url, **options), clock=self.clock, monotonic=self.ages)
        assert made is not None
        self.authenticator: ManagedAuthenticator = made

    async def takes(self, key: Pair | str, kid: str | None = None) -> bool:
        """Tell whether a token of that key gets in; False if it is refused for good."""
        request = AccessRequest(signed(key, kid), "notes/1", "192.0.2.1")
        try:
            return (await self.authenticator.authenticate(request)).user == "u-17"
        except Unauthenticated as error:
            assert "does not know" in error.public or "not by the key" in error.public, error.public
            return False

    async def cannot_say(self, key: Pair, kid: str | None = None) -> str:
        with pytest.raises(AccessUnavailable) as caught:
            await self.takes(key, kid)
        assert caught.value.public == AccessUnavailable.public
        return str(caught.value)


@pytest.fixture
async def trusting(elsewhere: Elsewhere) -> AsyncIterator[Trusting]:
    elsewhere.answers(jwks(old=OLD))
    made = Trusting(elsewhere.url)
    await made.authenticator.start()
    yield made
    await made.authenticator.close()


async def test_keys_are_fetched_once_and_kept(trusting: Trusting, elsewhere: Elsewhere) -> None:
    assert all(await asyncio.gather(*(trusting.takes(OLD, "old") for _ in range(20))))
    assert await trusting.takes(OLD)
    assert len(elsewhere.asked) == 1
    assert "Cookie" not in elsewhere.headers[0]


async def test_a_start_waits_for_nobody_and_the_first_tokens_do(elsewhere: Elsewhere) -> None:
    elsewhere.answers(jwks(old=OLD))
    elsewhere.hangs()
    trusting = Trusting(elsewhere.url, secret=SECRET)
    await trusting.authenticator.start()
    await elsewhere.arrived.wait()
    waiting = asyncio.create_task(trusting.takes(OLD, "old"))
    # Whose key is at hand is let in meanwhile.
    assert await trusting.takes(SECRET)
    assert not waiting.done()
    elsewhere.release()
    assert await waiting
    assert len(elsewhere.asked) == 1
    await trusting.authenticator.close()


async def test_old_keys_are_used_while_new_ones_are_fetched(trusting: Trusting, elsewhere: Elsewhere) -> None:
    assert await trusting.takes(OLD, "old")
    elsewhere.answers(jwks(new=NEW))
    elsewhere.hangs()
    elsewhere.arrived.clear()
    trusting.ages.now += TTL
    assert await trusting.takes(OLD, "old")
    await elsewhere.arrived.wait()
    assert await trusting.takes(OLD, "old")
    elsewhere.release()

    async def has_changed() -> bool:
        return not await trusting.takes(OLD, "old")

    await eventually(has_changed, "the withdrawn key is refused")
    assert len(elsewhere.asked) == 2


async def test_after_a_long_silence_a_withdrawn_key_is_not_used_once_more(
    trusting: Trusting, elsewhere: Elsewhere
) -> None:
    assert await trusting.takes(OLD, "old")
    elsewhere.answers(jwks(new=NEW))
    trusting.ages.now += 2 * TTL
    assert not await trusting.takes(OLD, "old")
    assert await trusting.takes(NEW, "new")


async def test_a_new_key_is_fetched_when_it_is_first_seen(trusting: Trusting, elsewhere: Elsewhere) -> None:
    assert await trusting.takes(OLD, "old")
    elsewhere.answers(jwks(old=OLD, new=NEW))
    trusting.ages.now += COOLDOWN
    assert all(await asyncio.gather(*(trusting.takes(NEW, "new") for _ in range(20))))
    assert await trusting.takes(OLD, "old")
    assert len(elsewhere.asked) == 2


async def test_within_the_cooldown_nobody_is_refused_for_good(trusting: Trusting, elsewhere: Elsewhere) -> None:
    assert await trusting.takes(OLD, "old")
    elsewhere.answers(jwks(new=NEW))
    trusting.ages.now += COOLDOWN - 1
    assert "too short a time ago" in await trusting.cannot_say(NEW, "new")
    assert len(elsewhere.asked) == 1
    trusting.ages.now += 1
    assert await trusting.takes(NEW, "new")


@pytest.mark.parametrize("kid", ["made-up", None])
async def test_a_key_that_was_looked_for_in_vain_is_refused_for_good(
    trusting: Trusting, elsewhere: Elsewhere, kid: str | None
) -> None:
    assert await trusting.takes(OLD, "old")
    trusting.ages.now += COOLDOWN
    for _ in range(5):
        assert not await trusting.takes(OTHER, kid)
        trusting.ages.now += 1
    assert len(elsewhere.asked) == 2


async def test_made_up_keys_cost_one_fetch_for_each_cooldown(trusting: Trusting, elsewhere: Elsewhere) -> None:
    assert await trusting.takes(OLD, "old")
    for round_ in range(3):
        trusting.ages.now += COOLDOWN
        tries = (trusting.takes(OTHER, f"made-up-{round_}-{n}") for n in range(50))
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert all(outcome is False or isinstance(outcome, AccessUnavailable) for outcome in outcomes)
        assert await trusting.takes(OLD, "old")
    assert len(elsewhere.asked) == 4


async def test_the_last_good_keys_are_kept_when_the_address_is_down(
    trusting: Trusting, elsewhere: Elsewhere, lines: Callable[[], str]
) -> None:
    assert await trusting.takes(OLD, "old")
    await elsewhere.server.close()
    for _ in range(3):
        trusting.ages.now += 10 * TTL
        assert await trusting.takes(OLD, "old")
        await trusting.cannot_say(NEW, "new")
    assert "the last good set stays in use" in lines()
    assert "ClientConnectorError" in lines()


LIES: list[tuple[Any, int]] = [
    (b"<html>down for maintenance</html>", 200),
    (b"[" * 100_000, 200),
    (b"", 200),
    ({"keys": []}, 200),
    ({"keys": "none"}, 200),
    ({"keys": [{"kty": "oct", "k": "c2VjcmV0" * 8}]}, 200),
    ({"keys": [{"kty": 5}, {"kty": "RSA", "n": 7, "e": None}, {"kty": "EC", "crv": "P-256", "x": "A", "y": "="}]}, 200),
    (b'{"keys": [' + b" " * MAX_JWKS_BYTES + b"]}", 200),
    (jwks(new=NEW), 500),
    (jwks(new=NEW), 404),
]


@pytest.mark.parametrize(("body", "status"), LIES)
async def test_lies_change_nothing(trusting: Trusting, elsewhere: Elsewhere, body: Any, status: int) -> None:
    assert await trusting.takes(OLD, "old")
    elsewhere.answers(body, status)
    trusting.ages.now += 10 * TTL
    assert await trusting.takes(OLD, "old")
    await trusting.cannot_say(NEW, "new")
    # The truth is taken again after the cool-down.
    elsewhere.answers(jwks(new=NEW))
    trusting.ages.now += COOLDOWN
    assert await trusting.takes(NEW, "new")


async def test_a_redirect_is_not_followed(trusting: Trusting, elsewhere: Elsewhere) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            return web.json_response(jwks(new=NEW))
        raise web.HTTPFound("/elsewhere")

    assert await trusting.takes(OLD, "old")
    elsewhere.answer = answer
    trusting.ages.now += COOLDOWN
    assert "answered 302" in await trusting.cannot_say(NEW, "new")


async def test_an_endless_answer_is_cut(trusting: Trusting, elsewhere: Elsewhere) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    assert await trusting.takes(OLD, "old")
    elsewhere.answer = answer
    trusting.ages.now += COOLDOWN
    assert "more than" in await trusting.cannot_say(NEW, "new")


async def test_a_slow_address_is_given_up(elsewhere: Elsewhere) -> None:
    elsewhere.hangs()
    # What answers at all answers sooner on any machine: the last question here is answered.
    trusting = Trusting(elsewhere.url, timeout=1.0)
    await trusting.authenticator.start()
    assert "did not answer within" in await trusting.cannot_say(OLD, "old")
    # Not asked again at once, however many come.
    for _ in range(10):
        assert "not fetched again so soon" in await trusting.cannot_say(OLD, "old")
    assert len(elsewhere.asked) == 1
    elsewhere.answers(jwks(old=OLD))
    trusting.ages.now += COOLDOWN
    assert await trusting.takes(OLD, "old")
    await trusting.authenticator.close()


async def test_a_client_that_goes_away_does_not_fail_the_others(elsewhere: Elsewhere) -> None:
    elsewhere.answers(jwks(old=OLD))
    elsewhere.hangs()
    trusting = Trusting(elsewhere.url)
    await trusting.authenticator.start()
    first, second = (asyncio.create_task(trusting.takes(OLD, "old")) for _ in range(2))
    await elsewhere.arrived.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    elsewhere.release()
    assert await second
    await trusting.authenticator.close()


async def test_those_who_wait_are_told_when_it_closes(elsewhere: Elsewhere) -> None:
    elsewhere.hangs()
    trusting = Trusting(elsewhere.url)
    await trusting.authenticator.start()
    waiting = asyncio.create_task(trusting.cannot_say(OLD, "old"))
    await elsewhere.arrived.wait()
    await trusting.authenticator.close()
    assert "closing" in await waiting
    await trusting.authenticator.close()
    assert await trusting.cannot_say(OLD, "old")


async def test_a_secret_is_never_looked_for_at_an_address(trusting: Trusting, elsewhere: Elsewhere) -> None:
    assert await trusting.takes(OLD, "old")
    trusting.ages.now += COOLDOWN
    for kid in ("old", "other", None):
        request = AccessRequest(signed(SECRET, kid), "notes/1", "192.0.2.1")
        with pytest.raises(Unauthenticated, match="HS256"):
            await trusting.authenticator.authenticate(request)
    assert len(elsewhere.asked) == 1


async def test_a_name_that_two_issuers_give_finds_both_keys(elsewhere: Elsewhere, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(jwks(k1=OTHER)))
    elsewhere.answers(jwks(k1=OLD))
    trusting = Trusting(elsewhere.url, jwks_file=file)
    await trusting.authenticator.start()
    assert await trusting.takes(OTHER, "k1")
    assert await trusting.takes(OLD, "k1")
    await trusting.authenticator.close()


async def test_keys_of_a_file_serve_while_the_address_is_down(elsewhere: Elsewhere, tmp_path: Any) -> None:
    file = tmp_path / "key.pem"
    file.write_text(NEW.public_pem)
    trusting = Trusting(elsewhere.url, key_files=(file,))
    await elsewhere.server.close()
    await trusting.authenticator.start()
    assert await trusting.takes(NEW)
    assert await trusting.takes(NEW, "any")
    await trusting.cannot_say(OLD, "old")
    await trusting.authenticator.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example/jwks",
        "http://10.0.0.7/jwks",
        "ftp://keys.example",
        "keys.example/jwks",
        "https://",
        "https://a:b",
        "",
    ],
)
def test_an_address_that_is_not_safe_is_refused(url: str) -> None:
    if url:
        with pytest.raises(ConfigurationError) as refused:
            make_authenticator(AuthOptions(jwks_url=url))
        assert "the JWKS URL" in str(refused.value)
    else:
        assert make_authenticator(AuthOptions(jwks_url=url)) is None


def test_plain_http_is_for_this_machine_or_said_on_purpose() -> None:
    for url in ("http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost/", "https://keys.example/"):
        assert make_authenticator(AuthOptions(jwks_url=url)) is not None
    assert make_authenticator(AuthOptions(jwks_url="http://keys:8000/", allow_http=True)) is not None


async def test_no_log_line_shows_what_an_address_holds_in_secret(
    elsewhere: Elsewhere, lines: Callable[[], str]
) -> None:
    port = elsewhere.server.port
    elsewhere.answers(b"garbage")
    trusting = Trusting(f"http://user:hidden1@127.0.0.1:{port}/there?api_key=hidden2#hidden3")
    await trusting.authenticator.start()
    await trusting.cannot_say(OLD, "old")
    assert f"http://127.0.0.1:{port}/there" in lines()
    ours = "\n".join(line for line in lines().splitlines() if line.startswith("collab"))
    assert "hidden" not in ours
    await trusting.authenticator.close()
