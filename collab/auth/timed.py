"""An authenticator that always answers: in time, and with the errors of the port.

Strategy: whoever asks has clients that wait, and must not care how an application's own authenticator
breaks. A defect of it is logged as a hook's is, without its text, which may hold the token, and told to
clients as what it is to them: access that cannot be checked now.
"""

from __future__ import annotations

import asyncio

from collab.auth.access import AccessRequest, Authenticator, Grant
from collab.auth.hook import kind_of, places_of
from collab.errors import AccessUnavailable, CollabError
from collab.telemetry import RateLimited, get_logger


class TimedAuthenticator:
    """Ask another authenticator, for a bounded time.

    Args:
        inner: who decides.
        seconds: for one decision.
    """

    def __init__(self, inner: Authenticator, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds
        self._limited = RateLimited(get_logger("auth"))

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what the client may do; see ``Authenticator`` for what is raised, which is all that is."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._inner.authenticate(request)
        except TimeoutError:
            raise AccessUnavailable(f"no decision on access within {self._seconds:g} s") from None
        except CollabError:
            raise
        except Exception as error:
            self._limited.error(
                "authenticator",
                "access not decided for %s: the authenticator raised %s at %s",
                request,
                kind_of(error),
                places_of(error),
            )
            raise AccessUnavailable(f"the authenticator raised {kind_of(error)}") from None
