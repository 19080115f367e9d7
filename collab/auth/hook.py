"""Ask whoever decides on access, in bounded time: Python code of whoever embeds the server, or our own.

Strategy: whoever asks has clients that wait, and must not care how an authenticator breaks. The code of
somebody else may take for ever or raise anything, and what it raises may hold the token. So only the refusals
that it makes on purpose pass; everything else fails closed and is logged by its type and the places it came
through, without its text. Our own authenticators are asked in the same way, though they should not need it.

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
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from collab.auth.access import AccessRequest, Authenticator, Grant
from collab.errors import AccessError, AccessUnavailable, ConfigurationError
from collab.protocol.session import Access
from collab.telemetry import RateLimited, get_logger

Hook = Callable[[AccessRequest], Awaitable[Grant]]
"""An async function of the shape of ``Authenticator.authenticate``."""

_MAX_FRAMES = 5


class HookAuthenticator:
    """Decide by asking ``hook``; see ``access.ManagedAuthenticator`` for the promise.

    The hook runs in the server's loop: it must await and never block.
    """

    def __init__(
        self,
        hook: Hook | Authenticator,
        seconds: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask ``hook``, an async function or an object with an async ``authenticate``, for ``seconds`` at most.

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
        self._log = RateLimited(get_logger("auth"), clock=clock)

    async def start(self) -> None:
        """Call the hook's own ``start``, if it has one."""
        await self._call("start")

    async def close(self) -> None:
        """Call the hook's own ``close``, if it has one."""
        await self._call("close")
        self._log.flush()

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what the hook says.

        Raises:
            AccessError: as the hook raises it.
            AccessUnavailable: it raised something else, gave no grant, or did not answer in time.
        """
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                grant = await self._function(request)
        except AccessError:
            raise
        except Exception as error:
            # None is chained: whoever logs it with its cause would log the text.
            if limit.expired():
                raise AccessUnavailable(f"no decision on access within {self._seconds:g} s") from None
            self._log.error(
                "hook",
                "access not decided for %s: the authenticator raised %s at %s",
                request,
                _kind_of(error),
                _places_of(error),
            )
            raise AccessUnavailable(f"the authenticator raised {_kind_of(error)}") from None
        if not isinstance(grant, Grant) or not isinstance(grant.access, Access):
            self._log.error(
                "no grant",
                "access not decided for %s: the authenticator gave %s, not a Grant",
                request,
                _kind_of(grant),
            )
            raise AccessUnavailable(f"the authenticator gave {_kind_of(grant)}")
        return grant

    async def _call(self, name: str) -> None:
        method = getattr(self._owner, name, None)
        if inspect.iscoroutinefunction(method):
            await method()


def _kind_of(value: object) -> str:
    """Name the type of a value of somebody else's, and nothing of the value."""
    return type(value).__qualname__


def _places_of(error: BaseException) -> str:
    """Name file, line and function of the last frames, which are code and never data."""
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    return " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
