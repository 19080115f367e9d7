"""Sockets that ask for a lot before they are let in, on a server whose embedder decides by a function of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from collab.auth.access import AccessRequest, Grant
from collab.auth.hook import MAX_QUESTIONS
from collab.errors import Unauthenticated
from collab.limits.questions import AT_A_TIME, MAX_UNANSWERED
from collab.protocol.session import Access
from tests.support import hocuspocus
from tests.support.hocuspocus import RawHocuspocus, auth
from tests.support.waiting import happens
from tests.transports.conftest import Serve

Connect = Callable[[str], Awaitable[RawHocuspocus]]


class Slow:
    """Answers when it may; notes each question and how many are with it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.under_way = self.most = 0
        self.go_on = asyncio.Event()

    async def authenticate(self, request: AccessRequest) -> Grant:
        self.asked.append(request.token)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.go_on.wait()
        finally:
            self.under_way -= 1
        if request.token.startswith("bad"):
            raise Unauthenticated("for the test")
        return Grant(Access.WRITE)


async def test_a_page_of_many_documents_gets_them_all(serve: Serve, connect_hocuspocus: Connect) -> None:
    slow = Slow()
    served = await serve(authenticator=slow)
    client = await connect_hocuspocus(served.hocuspocus)
    names = [f"d{number}" for number in range(5 * MAX_UNANSWERED)]
    client.burst(*(auth(name, "good") for name in names))
    await happens(lambda: slow.under_way == AT_A_TIME, "the first are asked about")
    slow.go_on.set()
    for name in names:
        assert (await client.find_type(name, hocuspocus.AUTH)).fields[0] == hocuspocus.AUTHENTICATED
    assert slow.most == AT_A_TIME and len(slow.asked) == len(names)


async def test_a_function_is_asked_only_so_much_at_a_time(serve: Serve, connect_hocuspocus: Connect) -> None:
    slow = Slow()
    served = await serve(authenticator=slow)
    clients = [await connect_hocuspocus(served.hocuspocus) for _ in range(MAX_QUESTIONS // 2 // AT_A_TIME + 3)]
    for number, client in enumerate(clients):
        client.burst(*(auth(f"d{number} {document}", "bad") for document in range(AT_A_TIME)))
    await happens(lambda: slow.under_way == MAX_QUESTIONS // 2, "one address gets half")
    slow.go_on.set()
    for number, client in enumerate(clients):
        for document in range(AT_A_TIME):
            await client.denied(f"d{number} {document}")
    assert slow.most == MAX_QUESTIONS // 2


async def test_a_token_in_place_of_another_takes_its_place(serve: Serve, connect_hocuspocus: Connect) -> None:
    """However often: the last one counts, and those before it leave nothing behind."""
    slow = Slow()
    served = await serve(authenticator=slow)
    client = await connect_hocuspocus(served.hocuspocus)
    client.burst(*(auth("d", f"bad {number}") for number in range(500)), auth("d", "good"))
    await happens(lambda: slow.asked[-1:] == ["good"], "the last is asked about")
    assert slow.under_way == 1
    slow.go_on.set()
    answer = await client.find_type("d", hocuspocus.AUTH)
    assert answer.fields[0] == hocuspocus.AUTHENTICATED
    assert client.got("d", hocuspocus.AUTH) == [answer]
