"""The application decides, and is slow, down, lying, or of another opinion than a moment ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from collab.auth.access import AccessRequest, Forgetful, Grant, ManagedAuthenticator
from collab.auth.endpoint import MAX_CONNECTIONS
from collab.auth.factory import AuthOptions, make_authenticator
from collab.auth.remote import MAX_ANSWER_BYTES, MAX_REASON, REFUSED_SECONDS
from collab.errors import AccessDenied, AccessUnavailable, ConfigurationError, Forbidden, Unauthenticated
from collab.protocol.session import Access
from tests.auth.conftest import Elsewhere
from tests.auth.makers import NOW, Clock
from tests.support.waiting import happens

YES = {"user": "u-17", "name": "Ada", "access": "write", "expires_in": 3600}

CACHE, PAUSE, FAILURES = 10.0, 5.0, 5


class Asking:
    """An authenticator that asks the application, with clocks that a test moves."""

    def __init__(self, url: str, **options: Any) -> None:
        self.clock, self.ages = Clock(), Clock(1000)
        options = {"auth_cache": CACHE, "timeout": 30.0, **options}
        made = make_authenticator(AuthOptions(auth_url=url, **options), clock=self.clock, monotonic=self.ages)
        assert made is not None
        self.authenticator: ManagedAuthenticator = made

    async def __call__(self, token: str = "token-1", document: str = "notes/1", peer: str = "192.0.2.1") -> Grant:
        return await self.authenticator.authenticate(AccessRequest(token, document, peer))

    async def refused(self, token: str = "token-1") -> AccessDenied:
        with pytest.raises(AccessDenied) as caught:
            await self(token)
        return caught.value

    async def cannot_say(self, token: str = "token-1") -> str:
        with pytest.raises(AccessUnavailable) as caught:
            await self(token)
        assert caught.value.public == AccessUnavailable.public
        return str(caught.value)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.ages.now += seconds


@pytest.fixture
async def ask(elsewhere: Elsewhere) -> AsyncIterator[Asking]:
    elsewhere.answers(YES)
    made = Asking(elsewhere.url)
    await made.authenticator.start()
    yield made
    await made.authenticator.close()


async def test_the_application_is_asked_and_believed(ask: Asking, elsewhere: Elsewhere) -> None:
    assert await ask() == Grant(Access.WRITE, "u-17", "Ada", NOW + 3600)
    assert elsewhere.asked == [{"token": "token-1", "document": "notes/1", "client_address": "192.0.2.1"}]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"access": "read"}, Grant(Access.READ, "u-17", "Ada", NOW + 3600)),
        ({"access": "admin", "name": None}, Grant(Access.ADMIN, "u-17", None, NOW + 3600)),
        ({"expires_at": NOW + 60}, Grant(Access.WRITE, "u-17", "Ada", NOW + 60)),
        ({"expires_at": NOW + 9999}, Grant(Access.WRITE, "u-17", "Ada", NOW + 3600)),
        ({"expires_in": None, "expires_at": NOW + 0.5}, Grant(Access.WRITE, "u-17", "Ada", NOW + 0.5)),
    ],
)
async def test_what_it_grants(ask: Asking, elsewhere: Elsewhere, change: dict[str, Any], expected: Grant) -> None:
    elsewhere.answers(YES | change)
    assert await ask() == expected


async def test_it_is_asked_about_those_without_a_token_too(ask: Asking, elsewhere: Elsewhere) -> None:
    assert (await ask("")).user == "u-17"
    assert elsewhere.asked[0]["token"] == ""
    assert (await ask("\ud800")).user == "u-17"
    with pytest.raises(Unauthenticated):
        await ask("t" * 8193)
    assert len(elsewhere.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (401, {"reason": "sign in again"}, Unauthenticated, "sign in again"),
        (403, {"reason": "ask the owner"}, Forbidden, "ask the owner"),
        (401, {}, Unauthenticated, Unauthenticated.public),
        (403, b"<html>", Forbidden, Forbidden.public),
        (403, b"", Forbidden, Forbidden.public),
        (403, [], Forbidden, Forbidden.public),
        (403, {"reason": 7}, Forbidden, Forbidden.public),
        (403, {"reason": " \n "}, Forbidden, Forbidden.public),
        (403, {"reason": "a\r\nb\x1b[2J\ud800c"}, Forbidden, "a b [2J c"),
        (403, {"reason": "x" * 5000}, Forbidden, "x" * (MAX_REASON - 1) + "…"),
        (403, {"reason": "x", "more": "y" * MAX_ANSWER_BYTES}, Forbidden, Forbidden.public),
    ],
)
async def test_a_refusal_says_what_the_application_says(
    ask: Asking, elsewhere: Elsewhere, status: int, body: Any, kind: type[AccessDenied], told: str
) -> None:
    elsewhere.answers(body, status)
    error = await ask.refused()
    assert type(error) is kind
    assert error.public == told
    elsewhere.answers(YES)
    if status == 401:
        # For a moment, for the same question alone: whoever comes back with it costs the application nothing.
        again = await ask.refused()
        assert (type(again), again.public, len(elsewhere.asked)) == (kind, told, 1)
        assert (await ask("token-2")).user == "u-17"
        assert (await ask(peer="192.0.2.2")).user == "u-17"
        assert (await ask(document="notes/2")).user == "u-17"
        ask.later(REFUSED_SECONDS)
    # Any other refusal is not kept: what the owner allows takes effect at once.
    assert (await ask()).user == "u-17"


async def test_only_so_many_refusals_are_kept_and_none_beyond_what_is_said(elsewhere: Elsewhere) -> None:
    elsewhere.answers({}, 401)
    ask = Asking(elsewhere.url, auth_cache_entries=3)
    await ask.authenticator.start()
    for token in ("a", "b", "c", "d", "a", "d"):
        await ask.refused(token)
    assert len(elsewhere.asked) == 5
    await ask.authenticator.close()
    for seconds, expected in ((0.0, 7), (1.0, 9)):
        ask = Asking(elsewhere.url, auth_cache=seconds)
        await ask.authenticator.start()
        await ask.refused()
        ask.later(seconds)
        await ask.refused()
        assert len(elsewhere.asked) == expected
        await ask.authenticator.close()


LIES: list[tuple[Any, int, str]] = [
    (YES, 201, "201"),
    (YES, 404, "404"),
    (YES, 429, "429"),
    (YES, 500, "500"),
    (b"<html>sign in</html>", 200, "JSON object"),
    (b"", 200, "JSON object"),
    (b"\xff", 200, "JSON object"),
    (b"[" * 10_000, 200, "JSON object"),
    ([YES], 200, "JSON object"),
    (True, 200, "JSON object"),
    (YES | {"more": "y" * MAX_ANSWER_BYTES}, 200, "more than"),
    ({}, 200, '"user"'),
    (YES | {"user": None}, 200, '"user"'),
    (YES | {"user": 17}, 200, '"user"'),
    (YES | {"user": ""}, 200, '"user"'),
    (YES | {"user": "a\nb"}, 200, '"user"'),
    (YES | {"user": "u" * 257}, 200, '"user"'),
    (YES | {"name": 5}, 200, '"name"'),
    (YES | {"access": "owner"}, 200, '"access"'),
    (YES | {"access": None}, 200, '"access"'),
    (YES | {"access": ["write"]}, 200, '"access"'),
    (YES | {"access": True}, 200, '"access"'),
    (YES | {"expires_in": None}, 200, "neither"),
    (YES | {"expires_in": "3600"}, 200, '"expires_in"'),
    (YES | {"expires_in": True}, 200, '"expires_in"'),
    (YES | {"expires_in": -1}, 200, '"expires_in"'),
    (YES | {"expires_in": float("nan")}, 200, '"expires_in"'),
    (YES | {"expires_in": float("inf")}, 200, '"expires_in"'),
    (YES | {"expires_in": 10**400}, 200, '"expires_in"'),
    (YES | {"expires_at": NOW * 1000}, 200, '"expires_at"'),
    (YES | {"expires_in": 0}, 200, "run out"),
    (YES | {"expires_at": NOW - 1}, 200, "run out"),
]


@pytest.mark.parametrize(("body", "status", "told"), LIES)
async def test_whatever_else_it_answers_lets_nobody_in(
    ask: Asking, elsewhere: Elsewhere, lines: Callable[[], str], body: Any, status: int, told: str
) -> None:
    elsewhere.answers(body, status)
    # More often than the breaker bears silence: an answer is none.
    for _ in range(FAILURES + 1):
        assert told in await ask.cannot_say()
    assert told in lines()
    elsewhere.answers(YES)
    assert (await ask()).user == "u-17"


async def test_a_redirect_takes_the_token_nowhere(ask: Asking, elsewhere: Elsewhere) -> None:
    async def answer(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("/other")

    elsewhere.answer = answer
    assert "307" in await ask.cannot_say()
    assert len(elsewhere.asked) == 1


async def test_a_grant_is_kept_for_a_while_and_for_what_was_asked(ask: Asking, elsewhere: Elsewhere) -> None:
    for _ in range(3):
        await ask()
    assert len(elsewhere.asked) == 1
    await ask("token-2")
    await ask(document="notes/2")
    await ask(peer="192.0.2.2")
    assert len(elsewhere.asked) == 4
    ask.later(CACHE - 0.1)
    await ask()
    assert len(elsewhere.asked) == 4
    ask.later(0.1)
    elsewhere.answers(YES | {"access": "read"})
    assert (await ask()).access is Access.READ


async def test_a_grant_is_never_kept_longer_than_it_lasts(ask: Asking, elsewhere: Elsewhere) -> None:
    elsewhere.answers(YES | {"expires_in": 2})
    assert (await ask()).expires_at == NOW + 2
    ask.later(1.9)
    assert (await ask()).expires_at == NOW + 2
    ask.later(0.1)
    assert (await ask()).expires_at == NOW + 4
    assert len(elsewhere.asked) == 2
    # Whichever of the clocks says so.
    ask.clock.now += 2
    assert (await ask()).expires_at == NOW + 6
    ask.ages.now += 2
    await ask()
    assert len(elsewhere.asked) == 4


async def test_the_way_of_an_answer_shortens_what_it_grants(ask: Asking, elsewhere: Elsewhere) -> None:
    elsewhere.answers(YES | {"expires_in": 60})
    elsewhere.hangs()
    waiting = asyncio.create_task(ask())
    await elsewhere.arrived.wait()
    ask.later(20)
    elsewhere.release()
    assert (await waiting).expires_at == NOW + 60
    # Nor was it kept from when it came.
    await ask()
    assert len(elsewhere.asked) == 2


async def test_only_so_many_grants_are_kept(elsewhere: Elsewhere) -> None:
    elsewhere.answers(YES)
    ask = Asking(elsewhere.url, auth_cache_entries=3)
    await ask.authenticator.start()
    for token in ("a", "b", "c", "a", "d"):
        await ask(token)
    assert len(elsewhere.asked) == 4
    for token in ("a", "c", "d"):
        await ask(token)
    assert len(elsewhere.asked) == 4
    await ask("b")
    assert len(elsewhere.asked) == 5
    await ask.authenticator.close()


async def test_nothing_is_kept_if_so_said(elsewhere: Elsewhere) -> None:
    elsewhere.answers(YES)
    ask = Asking(elsewhere.url, auth_cache=0)
    await ask.authenticator.start()
    await ask()
    await ask()
    assert len(elsewhere.asked) == 2
    await ask.authenticator.close()


async def test_the_same_question_is_asked_once_at_a_time(ask: Asking, elsewhere: Elsewhere) -> None:
    elsewhere.hangs()
    tasks = [asyncio.create_task(ask()) for _ in range(20)]
    other = asyncio.create_task(ask("token-2"))
    await elsewhere.arrived.wait()
    tasks[0].cancel()
    elsewhere.release()
    grants = await asyncio.gather(*tasks[1:], other)
    assert {grant.user for grant in grants} == {"u-17"}
    assert len(elsewhere.asked) == 2


async def test_all_who_ask_together_are_refused_together(ask: Asking, elsewhere: Elsewhere) -> None:
    elsewhere.answers({"reason": "no"}, 403)
    elsewhere.hangs()
    tasks = [asyncio.create_task(ask.refused()) for _ in range(5)]
    await elsewhere.arrived.wait()
    elsewhere.release()
    assert {error.public for error in await asyncio.gather(*tasks)} == {"no"}
    assert len(elsewhere.asked) == 1


@pytest.mark.parametrize("how", ["gateway", "silence", "nobody there"])
async def test_who_does_not_answer_is_left_alone_and_tried_again(
    elsewhere: Elsewhere, how: str, lines: Callable[[], str]
) -> None:
    elsewhere.answers(YES)
    ask = Asking(elsewhere.url, timeout=0.5 if how == "silence" else 30.0)
    await ask.authenticator.start()
    kept = await ask("kept")
    if how == "gateway":
        elsewhere.answers(b"Bad Gateway", 502)
    elif how == "silence":
        elsewhere.hangs()
    else:
        await elsewhere.server.close()
    for number in range(FAILURES):
        assert "left alone" not in await ask.cannot_say(f"token-{number}")
    so_far = len(elsewhere.asked)
    # Open: nobody is asked and nobody waits; what is kept goes on.
    for number in range(50):
        assert "left alone" in await ask.cannot_say(f"other-{number}")
    assert await ask("kept") == kept
    assert len(elsewhere.asked) == so_far
    assert lines().count("left alone for a while") == 1
    # Half-open: one is asked, and its failure means another pause.
    ask.later(PAUSE)
    assert "left alone" not in await ask.cannot_say()
    assert "left alone" in await ask.cannot_say()
    if how == "nobody there":
        await ask.authenticator.close()
        return
    assert len(elsewhere.asked) == so_far + 1
    elsewhere.answers(YES)
    assert "left alone" in await ask.cannot_say()
    ask.later(PAUSE)
    assert (await ask()).user == "u-17"
    assert (await ask("token-9")).user == "u-17"
    await ask.authenticator.close()


async def test_while_one_tries_the_others_are_not_kept_waiting(ask: Asking, elsewhere: Elsewhere) -> None:
    elsewhere.answers(b"", 503)
    for number in range(FAILURES):
        await ask.cannot_say(f"token-{number}")
    ask.later(PAUSE)
    elsewhere.answers(YES)
    elsewhere.hangs()
    elsewhere.arrived.clear()
    probe = asyncio.create_task(ask())
    await elsewhere.arrived.wait()
    assert "left alone" in await ask.cannot_say("token-8")
    elsewhere.release()
    assert (await probe).user == "u-17"
    assert (await ask("token-8")).user == "u-17"


async def test_failures_count_in_a_row(ask: Asking, elsewhere: Elsewhere) -> None:
    for round_ in range(3):
        elsewhere.answers(b"", 504)
        for number in range(FAILURES - 1):
            assert "504" in await ask.cannot_say(f"token-{round_}-{number}")
        # Any answer shows that it is there, a refusal too.
        elsewhere.answers({}, 403)
        await ask.refused()


async def test_too_many_questions_at_once_are_not_put(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collab.auth.places.MAX_WAITING", 3)
    elsewhere.answers(YES)
    elsewhere.hangs()
    ask = Asking(elsewhere.url)
    await ask.authenticator.start()
    # One address gets half of the places.
    waiting = [asyncio.create_task(ask(f"token-{number}")) for number in range(MAX_CONNECTIONS // 2 + 3)]
    await happens(lambda: len(elsewhere.asked) == MAX_CONNECTIONS // 2, "those who have a place are asked about")
    assert "wait already" in await ask.cannot_say("one more")
    other = asyncio.create_task(ask(peer="192.0.2.2"))
    await happens(lambda: len(elsewhere.asked) == MAX_CONNECTIONS // 2 + 1, "another address has places of its own")
    elsewhere.release()
    assert {grant.user for grant in await asyncio.gather(*waiting, other)} == {"u-17"}
    assert (await ask("one more")).user == "u-17"
    await ask.authenticator.close()


async def test_waiting_for_a_place_is_no_failure_and_takes_nothing_from_the_time_of_an_answer(
    elsewhere: Elsewhere,
) -> None:
    """Silence for twice as many as have a place: those who wait are asked after it, each with the whole time."""
    elsewhere.answers(YES)
    elsewhere.hangs()
    ask = Asking(elsewhere.url, timeout=1.0)
    await ask.authenticator.start()
    count = MAX_CONNECTIONS // 2
    first = [asyncio.create_task(ask(f"first-{number}")) for number in range(count)]
    await happens(lambda: len(elsewhere.asked) == count, "all places are taken")
    for task in first[: FAILURES - 1]:
        task.cancel()  # they are asked about all the same, and hold their places
    behind = [asyncio.create_task(ask(f"behind-{number}")) for number in range(count)]
    gone = asyncio.create_task(ask("gone"))
    await asyncio.sleep(0.5)
    gone.cancel()
    elsewhere.release()
    elsewhere.hangs(elsewhere.answer)
    await happens(lambda: len(elsewhere.asked) == 2 * count, "those behind are asked in their turn")
    await asyncio.sleep(0.7)  # more than what was left of the time when they came
    elsewhere.release()
    assert {grant.user for grant in await asyncio.gather(*behind)} == {"u-17"}
    assert "gone" not in {question["token"] for question in elsewhere.asked}
    await ask.authenticator.close()


async def test_a_token_on_which_the_application_is_silent_shuts_out_its_sender_alone(
    elsewhere: Elsewhere, lines: Callable[[], str]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        question = await request.json()
        return web.json_response(YES) if question["token"] == "good" else web.Response(status=504)

    elsewhere.answer = answer
    ask = Asking(elsewhere.url, auth_cache=0)
    await ask.authenticator.start()

    async def fails(token: str, peer: str) -> str:
        with pytest.raises(AccessUnavailable) as caught:
            await ask(token, peer=peer)
        return str(caught.value)

    for number in range(FAILURES):
        assert "504" in await fails(f"bad-{number}", "192.0.2.66")
    assert "left alone" in await fails("good", "192.0.2.66")
    assert "nobody from 192.0.2.66" in lines()
    assert (await ask("good")).user == "u-17"
    # From many addresses it shuts out all, for one pause: then one who has not failed is asked about beside them.
    for number in range(FAILURES):
        await fails(f"bad-{number}", f"198.51.100.{number}")
    assert "left alone" in await fails("good", "192.0.2.1")
    ask.later(PAUSE)
    assert "504" in await fails("bad", "198.51.100.1")
    assert (await ask("good")).user == "u-17"
    await ask.authenticator.close()


async def test_those_who_wait_are_told_when_it_closes(elsewhere: Elsewhere) -> None:
    elsewhere.hangs()
    ask = Asking(elsewhere.url)
    assert "before start" in await ask.cannot_say()
    await ask.authenticator.start()
    waiting = asyncio.create_task(ask.cannot_say())
    await elsewhere.arrived.wait()
    await ask.authenticator.close()
    assert "closing" in await waiting
    assert await ask.cannot_say()


async def test_no_log_line_shows_a_token(
    ask: Asking, elsewhere: Elsewhere, lines: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    token = "hidden-in-every-line"
    for body, status in ((YES, 200), ({"reason": token}, 403), (token.encode(), 200), (b"", 502)):
        elsewhere.answers(body, status)
        ask.later(CACHE)
        try:
            await ask(token)
        except (AccessDenied, AccessUnavailable) as error:
            assert token not in str(error)
    ours = "\n".join(line for line in lines().splitlines() if not line.startswith("aiohttp.access"))
    assert "JSON object" in ours
    assert token not in ours


@pytest.mark.parametrize("url", ["http://app.example/auth", "app.example", "https://"])
def test_a_token_is_not_sent_where_others_can_read_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the auth URL"):
        make_authenticator(AuthOptions(auth_url=url))
    if url.startswith("http://"):
        assert make_authenticator(AuthOptions(auth_url=url, allow_http=True)) is not None


async def test_what_was_answered_is_forgotten_when_access_has_changed(ask: Asking, elsewhere: Elsewhere) -> None:
    assert (await ask()).access is Access.WRITE
    elsewhere.answers({**YES, "access": "read"})
    assert (await ask()).access is Access.WRITE, "it is kept"
    assert isinstance(ask.authenticator, Forgetful)
    ask.authenticator.forget()
    assert (await ask()).access is Access.READ
    elsewhere.answers({}, 401)
    ask.authenticator.forget()
    await ask.refused()
    elsewhere.answers(YES)
    ask.authenticator.forget()
    assert (await ask()).access is Access.WRITE, "a refusal is forgotten, too"


async def test_an_answer_that_was_under_way_counts_for_nobody_who_asks_later(ask: Asking, elsewhere: Elsewhere) -> None:
    elsewhere.hangs()
    before = asyncio.create_task(ask())
    await happens(lambda: len(elsewhere.asked) == 1, "it was asked")
    assert isinstance(ask.authenticator, Forgetful)
    ask.authenticator.forget()
    later = asyncio.create_task(ask())
    await happens(lambda: len(elsewhere.asked) == 2, "it is asked anew")
    elsewhere.release()
    await asyncio.gather(before, later)
    elsewhere.answers({**YES, "access": "read"})
    ask.authenticator.forget()
    assert (await ask()).access is Access.READ
