"""Whatever an application's own authenticator does, the answer is one that the port knows."""

from __future__ import annotations

import asyncio
import logging

import pytest

from collab.auth.access import AccessRequest, Grant
from collab.auth.timed import TimedAuthenticator
from collab.errors import AccessUnavailable, Forbidden
from collab.protocol.session import Access

REQUEST = AccessRequest("a secret token", "d", "127.0.0.1")


class Inner:
    def __init__(self, error: Exception | None = None, *, answers: bool = True) -> None:
        self._error = error
        self._answers = answers

    async def authenticate(self, request: AccessRequest) -> Grant:
        if self._error is not None:
            raise self._error
        if not self._answers:
            await asyncio.Event().wait()
        return Grant(Access.READ, "ada")


async def test_an_answer_and_a_refusal_pass_as_they_are() -> None:
    assert await TimedAuthenticator(Inner(), 5.0).authenticate(REQUEST) == Grant(Access.READ, "ada")
    refusal = Forbidden("no", public="not this one")
    with pytest.raises(Forbidden) as caught:
        await TimedAuthenticator(Inner(refusal), 5.0).authenticate(REQUEST)
    assert caught.value is refusal


async def test_silence_ends_in_time() -> None:
    with pytest.raises(AccessUnavailable):
        await TimedAuthenticator(Inner(answers=False), 0.01).authenticate(REQUEST)


async def test_a_defect_is_logged_without_the_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "collab.auth"), pytest.raises(AccessUnavailable):
        await TimedAuthenticator(Inner(KeyError(REQUEST.token)), 5.0).authenticate(REQUEST)
    assert "KeyError" in caplog.text and "'d'" in caplog.text
    assert "secret" not in caplog.text
