"""Code of the application decides; whatever it does wrong lets nobody in and shows no token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from collab.auth.access import AccessRequest, Grant
from collab.auth.hook import HookAuthenticator
from collab.errors import AccessUnavailable, ConfigurationError, Forbidden, Unauthenticated
from collab.protocol.session import Access
from tests.support.waiting import happens

REQUEST = AccessRequest("hidden-token", "notes/1", "192.0.2.1")
GRANT = Grant(Access.READ, "u-17", "Ada", 5.0)


async def decide(request: AccessRequest) -> Grant:
    assert request is REQUEST
    return GRANT


async def decide_for(user: str, request: AccessRequest) -> Grant:
    return Grant(Access.WRITE, user)


class Owner:
    def __init__(self) -> None:
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def close(self) -> None:
        self.calls.append("close")

    async def authenticate(self, request: AccessRequest) -> Grant:
        return GRANT


class Callable_:
    async def __call__(self, request: AccessRequest) -> Grant:
        return GRANT


async def test_an_async_function_or_an_object_decides() -> None:
    for hook in (decide, Owner(), Callable_()):
        assert await HookAuthenticator(hook).authenticate(REQUEST) is GRANT
    assert (await HookAuthenticator(partial(decide_for, "u-9")).authenticate(REQUEST)).user == "u-9"


async def test_a_token_is_checked_by_an_object_that_can() -> None:
    class Checker(Owner):
        async def check_token(self, token: str) -> None:
            if token == "defect":
                raise ValueError(token)
            if token != "good":
                raise Unauthenticated("no", public="no")

    hook = HookAuthenticator(Checker())
    await hook.check_token("good")
    with pytest.raises(Unauthenticated):
        await hook.check_token("bad")
    with pytest.raises(AccessUnavailable):
        await hook.check_token("defect")
    for other in (decide, Owner()):
        await HookAuthenticator(other).check_token("bad")  # nothing is known of it


async def test_an_object_is_started_and_closed_if_it_can_be() -> None:
    owner = Owner()
    for hook in (HookAuthenticator(owner), HookAuthenticator(decide)):
        await hook.start()
        await hook.close()
    assert owner.calls == ["start", "close"]


@pytest.mark.parametrize("hook", [None, "decide", lambda request: GRANT, object(), Owner])
def test_what_cannot_be_awaited_is_refused_at_once(hook: Any) -> None:
    with pytest.raises(ConfigurationError, match="async"):
        HookAuthenticator(hook)


@pytest.mark.parametrize(
    "error",
    [
        Unauthenticated("who?", public="sign in again"),
        Forbidden("not this one", public="ask the owner"),
        AccessUnavailable("the database is away"),
    ],
)
async def test_what_it_refuses_on_purpose_passes(error: Exception) -> None:
    async def refuse(request: AccessRequest) -> Grant:
        raise error

    with pytest.raises(type(error)) as caught:
        await HookAuthenticator(refuse).authenticate(REQUEST)
    assert caught.value is error


async def by_name(users: dict[str, Grant], request: AccessRequest) -> Grant:
    return users[request.token]


async def impossible(request: AccessRequest) -> Grant:
    raise RuntimeError(f"cannot read {request.token}") from ValueError(request.token)


async def too_slow(request: AccessRequest) -> Grant:
    raise TimeoutError(request.token)


@pytest.mark.parametrize(
    ("hook", "kind", "place"),
    [
        (partial(by_name, {}), "KeyError", "by_name"),
        (impossible, "RuntimeError", "impossible"),
        (too_slow, "TimeoutError", "too_slow"),
    ],
)
async def test_what_it_raises_by_mistake_lets_nobody_in(
    hook: Callable[[AccessRequest], Awaitable[Grant]], kind: str, place: str, lines: Callable[[], str]
) -> None:
    with pytest.raises(AccessUnavailable) as caught:
        await HookAuthenticator(hook).authenticate(REQUEST)
    assert kind in lines() and f" {place}" in lines() and "test_hook.py" in lines() and "'notes/1'" in lines()
    assert "hidden-token" not in lines() + str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize("value", [None, True, "write", {"access": "write"}, Grant("write")])  # type: ignore[arg-type]
async def test_what_is_no_grant_lets_nobody_in(value: Any) -> None:
    async def give(request: AccessRequest) -> Any:
        return value

    with pytest.raises(AccessUnavailable, match=type(value).__name__):
        await HookAuthenticator(give).authenticate(REQUEST)


class Silence:
    """Never answers, and notes when it was asked and when nobody waits any more."""

    def __init__(self) -> None:
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return GRANT


async def test_silence_ends_in_time_and_is_no_defect(lines: Callable[[], str]) -> None:
    silence = Silence()
    with pytest.raises(AccessUnavailable, match="no decision on access within 0.01 s") as caught:
        await HookAuthenticator(silence, 0.01).authenticate(REQUEST)
    assert silence.ended.is_set() and lines() == ""
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


async def test_what_answers_in_time_is_not_hurried() -> None:
    assert await HookAuthenticator(decide, 60.0).authenticate(REQUEST) is GRANT
    with pytest.raises(AccessUnavailable, match="TimeoutError"):  # its own, and not ours
        await HookAuthenticator(too_slow, 60.0).authenticate(REQUEST)


async def test_who_stops_waiting_stops_the_hook() -> None:
    silence = Silence()
    task = asyncio.create_task(HookAuthenticator(silence).authenticate(REQUEST))
    await silence.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert silence.ended.is_set()


class Slow:
    """Answers when it is told to, and notes whom it was asked about, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.asked.append(request.document_name)
        await self.go_on.wait()
        return GRANT


async def test_only_so_many_questions_are_with_it_at_a_time_and_each_address_has_its_turn() -> None:
    slow = Slow()
    hook = HookAuthenticator(slow, 60.0, at_a_time=4)

    def ask(document: str, peer: str) -> asyncio.Task[Grant]:
        return asyncio.create_task(hook.authenticate(AccessRequest("t", document, peer, connection=peer)))

    tasks = [ask(f"bad {number}", "192.0.2.66") for number in range(50)] + [ask("good", "192.0.2.1")]
    await happens(lambda: "good" in slow.asked, "the honest one is asked about")
    assert slow.asked == ["bad 0", "bad 1", "good"]
    slow.go_on.set()
    assert await asyncio.gather(*tasks) == [GRANT] * 51


async def test_who_cannot_be_asked_about_in_time_or_before_the_end_is_told_so() -> None:
    silence = Silence()
    hook = HookAuthenticator(silence, 0.05, at_a_time=1)
    with pytest.raises(AccessUnavailable, match="no decision on access within 0.05 s"):
        await hook.authenticate(REQUEST)
    hook = HookAuthenticator(Slow(), 0.05, at_a_time=0)
    with pytest.raises(AccessUnavailable, match=r"no question about access could be asked for 0.05 s") as caught:
        await hook.authenticate(REQUEST)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    hook = HookAuthenticator(Slow(), 60.0, at_a_time=0)
    task = asyncio.create_task(hook.authenticate(REQUEST))
    await asyncio.sleep(0)
    await hook.close()
    with pytest.raises(AccessUnavailable, match="closing"):
        await task
