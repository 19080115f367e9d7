"""Ask whoever decides on access, in bounded time: Python code of whoever embeds the server, or our own.

Strategy: whoever asks has clients that wait, and must not care how an authenticator breaks. The code of
somebody else may take for ever or raise anything, and what it raises may hold the token. So only the refusals
that it makes on purpose pass; everything else fails closed and is logged by its type and the places it came
through, without its text. Our own authenticators are asked in the same way, though they should not need it.

Somebody else's code may have to ask a database, so only so many questions are with it at a time, shared fairly among
those who ask (``places``). The time for a decision begins when it is asked; waiting for a place may take as long again.

    async def authenticate(request: AccessRequest) -> Grant:
        user = await users.by_token(request.token)
        if user is None:
            raise Unauthenticated("unknown token", public="sign in again")
        return Grant(Access.WRITE, user.id, user.name, expires_at=user.session_ends)

    app = create_app(settings, authenticate)
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from collab.auth.access import AccessRequest, Authenticator, Forgetful, Grant, TokenChecker
from collab.auth.places import Place, Places
from collab.errors import AccessError, AccessUnavailable, ConfigurationError
from collab.net import key_of_text
from collab.protocol.session import Access
from collab.telemetry import RateLimited, get_logger
from collab.telemetry.foreign import kind_of, places_of

Hook = Callable[[AccessRequest], Awaitable[Grant]]
"""An async function of the shape of ``Authenticator.authenticate``."""

Answer = TypeVar("Answer")

MAX_QUESTIONS = 100
"""Questions that are with a hook at a time: more than a pool of database connections has. One address gets half."""


class HookAuthenticator:
    """Decide by asking ``hook``; see ``access.ManagedAuthenticator`` for the promise.

    The hook runs in the server's loop: it must await and never block.
    """

    def __init__(
        self,
        hook: Hook | Authenticator,
        seconds: float | None = None,
        *,
        at_a_time: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask ``hook``, an async function or an object with an async ``authenticate``, for ``seconds`` at most.

        ``at_a_time`` is how many questions it gets at a time; None leaves that to itself.
        If the object has async methods ``start`` and ``close``, they are called at their times.

        Raises:
            ConfigurationError: it is neither, or is not async.
        """
        self._owner: object = hook
        function: Any = getattr(hook, "authenticate", hook)
        # A callable object is async if its __call__ is.
        candidates = (function, getattr(function, "__call__", None))  # noqa: B004
        if inspect.isclass(hook) or not any(map(inspect.iscoroutinefunction, candidates)):
            raise ConfigurationError("an authenticator is an async function or has an async method authenticate")
        self._function: Hook = function
        self._seconds = seconds
        self._places = None if at_a_time is None else Places(at_a_time)
        self._log = RateLimited(get_logger("auth"), clock=clock)

    async def start(self) -> None:
        """Call the hook's own ``start``, if it has one."""
        await self._call("start")

    async def close(self) -> None:
        """Send away those who wait for a place, and call the hook's own ``close``, if it has one."""
        if self._places is not None:
            self._places.close()
        await self._call("close")
        self._log.flush()

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what the hook says.

        Raises:
            AccessError: as the hook raises it.
            AccessUnavailable: it raised something else, gave no grant, did not answer in time, or is asked too much.
        """
        if self._places is None:
            return await self._ask(request)
        place = await self._place(self._places, request)
        try:
            return await self._ask(request)
        finally:
            place.release()

    async def check_token(self, token: str) -> None:
        """Check a token, if the hook can do so without a document; see ``access.TokenChecker``.

        Raises:
            AccessError: as the hook raises it.
            AccessUnavailable: it raised something else, or did not answer in time.
        """
        if isinstance(self._owner, TokenChecker):
            await self._answer(self._owner.check_token(token), "a token")

    def forget(self) -> None:
        """Have the hook forget what it has answered, if it keeps answers; see ``access.Forgetful``."""
        if isinstance(self._owner, Forgetful):
            self._owner.forget()

    async def _place(self, places: Places, request: AccessRequest) -> Place:
        try:
            async with asyncio.timeout(self._seconds):
                return await places.take(key_of_text(request.peer), request.connection)
        except TimeoutError:
            raise AccessUnavailable(f"no question about access could be asked for {self._seconds:g} s") from None

    async def _ask(self, request: AccessRequest) -> Grant:
        grant = await self._answer(self._function(request), request)
        if not isinstance(grant, Grant) or not isinstance(grant.access, Access):
            self._log.error(
                "no grant",
                "access not decided for %s: the authenticator gave %s, not a Grant",
                request,
                kind_of(grant),
            )
            raise AccessUnavailable(f"the authenticator gave {kind_of(grant)}")
        return grant

    async def _answer(self, asked: Awaitable[Answer], about: object) -> Answer:
        """Wait for what the hook says; ``about`` names the question in the log."""
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                return await asked
        except AccessError:
            raise
        except Exception as error:
            # None is chained: whoever logs it with its cause would log the text.
            if limit.expired():
                raise AccessUnavailable(f"no decision on access within {self._seconds:g} s") from None
            self._log.error(
                "hook",
                "access not decided for %s: the authenticator raised %s at %s",
                about,
                kind_of(error),
                places_of(error),
            )
            raise AccessUnavailable(f"the authenticator raised {kind_of(error)}") from None

    async def _call(self, name: str) -> None:
        method = getattr(self._owner, name, None)
        if inspect.iscoroutinefunction(method):
            await method()
