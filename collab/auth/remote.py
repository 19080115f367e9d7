"""Ask the application: it says who a client is and what it may do.

Strategy: one POST for each question, and as few questions as possible. The application's endpoint gets

    {"token": "...", "document": "notes/7", "client_address": "192.0.2.1"}

the token being whatever the client has shown, also nothing (""), and answers

    200  {"user": "u-17", "name": "Ada", "access": "write", "expires_in": 3600}
    401  {"reason": "sign in again"}               whoever it is, not with this token
    403  {"reason": "ask the owner to share it"}   a user, and not with this document

``name`` may be missing; of ``expires_in`` (seconds) and ``expires_at`` (seconds since 1970) one must be
there, the earlier one holds if both are; ``reason`` may be missing and is shown to the client. Anything
else, silence included, lets nobody in: the client is told to come back (``AccessUnavailable``), and the
log says what was wrong.

Grants are kept for a few seconds, so that a client that reconnects or opens its document in four tabs
asks once. The key is all that was asked, for the application may decide on any of it, and the token is
in it as a hash only. Refusals are not kept: what the owner of a document allows takes effect at once.
The same question asked while it is under way waits for its answer; a circuit breaker spares clients the
time-out while the application is down.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

from collab.auth.access import AccessRequest, Grant
from collab.auth.breaker import CircuitBreaker
from collab.auth.claims import MAX_SECONDS, check_text
from collab.auth.endpoint import Answer, Endpoint
from collab.auth.flights import Flights
from collab.auth.tokens import MAX_TOKEN
from collab.errors import AccessUnavailable, Forbidden, Unauthenticated
from collab.protocol.session import Access
from collab.telemetry import RateLimited, get_logger

MAX_ANSWER_BYTES = 16 * 1024

MAX_REASON = 200
"""Characters of the application's reason that a client is shown."""

MAX_QUESTIONS = 1_000
"""Questions under way at once; they share ``endpoint.MAX_CONNECTIONS`` sockets."""

_GATEWAY_ERRORS = (502, 503, 504)
"""What a proxy answers for an application that is down: as good as silence."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

_Question = tuple[bytes, str, str]


class RemoteAuthenticator:
    """Decide by the answers of the application's own endpoint; see ``access.ManagedAuthenticator`` for the promise."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cache_seconds: float = 10.0,
        cache_entries: int = 10_000,
        failures: int = 5,
        pause: float = 5.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask ``endpoint``.

        Args:
            endpoint: the application's.
            cache_seconds: how long a grant is kept at most; 0 keeps none.
            cache_entries: how many are kept; past it the least recently used goes.
            failures: questions without an answer in a row after which the endpoint is left alone.
            pause: seconds for which it is.
            clock: seconds since 1970, for lifetimes.
            monotonic: seconds, for the cache and the pause.
        """
        self._endpoint = endpoint
        self._cache_seconds = cache_seconds
        self._cache_entries = cache_entries
        self._clock = clock
        self._monotonic = monotonic
        self._breaker = CircuitBreaker(failures, pause, monotonic)
        self._flights: Flights[_Question, Grant] = Flights(MAX_QUESTIONS)
        self._cache: OrderedDict[_Question, tuple[float, Grant]] = OrderedDict()
        self._log = RateLimited(get_logger("auth"), clock=monotonic)

    async def start(self) -> None:
        """Make the connection pool; nothing is asked yet."""
        await self._endpoint.start()

    async def close(self) -> None:
        """End the questions under way and close the connections."""
        await self._flights.close()
        await self._endpoint.close()
        self._log.flush()

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what the application says.

        Raises:
            Unauthenticated, Forbidden: it refuses; its reason is the public text.
            AccessUnavailable: it gave no answer that means anything.
        """
        if len(request.token) > MAX_TOKEN:
            text = f"the token is longer than {MAX_TOKEN} characters"
            raise Unauthenticated(text, public=text)
        # "surrogatepass": what a client has sent may hold anything.
        digest = hashlib.sha256(request.token.encode("utf-8", "surrogatepass")).digest()
        question = (digest, request.document_name, request.peer)
        grant = self._cached(question)
        if grant is not None:
            return grant
        return await self._flights.join(question, lambda: self._ask(question, request))

    def _cached(self, question: _Question) -> Grant | None:
        entry = self._cache.get(question)
        if entry is None:
            return None
        until, grant = entry
        # Two clocks: a wall clock that was set back must not lengthen a cached grant's stay, nor one
        # that was set forward its life.
        if self._monotonic() >= until or (grant.expires_at is not None and self._clock() >= grant.expires_at):
            del self._cache[question]
            return None
        self._cache.move_to_end(question)
        return grant

    async def _ask(self, question: _Question, request: AccessRequest) -> Grant:
        if not self._breaker.permits():
            raise AccessUnavailable(f"{self._endpoint.name} is left alone: it has not answered for some time")
        # Lifetimes count from before the question, so that its way there and back shortens them.
        asked_at, asked = self._clock(), self._monotonic()
        try:
            answer = await self._endpoint.post(
                {"token": request.token, "document": request.document_name, "client_address": request.peer}
            )
        except AccessUnavailable as error:
            self._failed(str(error))
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        if answer.status in _GATEWAY_ERRORS:
            text = f"{self._endpoint.name} answered {answer.status}"
            self._failed(text)
            raise AccessUnavailable(text)
        self._breaker.succeeded()
        grant = self._read(answer, asked_at)
        if self._cache_seconds > 0 and grant.expires_at is not None:
            until = asked + min(self._cache_seconds, grant.expires_at - asked_at)
            self._cache[question] = (until, grant)
            if len(self._cache) > self._cache_entries:
                self._cache.popitem(last=False)
        return grant

    def _failed(self, text: str) -> None:
        if self._breaker.failed():
            self._log.error("breaker", "%s; it is left alone for a while, and nobody gets in", text)
        else:
            self._log.warning("silent", "access not decided: %s", text)

    def _read(self, answer: Answer, asked_at: float) -> Grant:
        if answer.status in (401, 403):
            reason = _reason(answer.body)
            text = f"the application refused: {answer.status}"
            raise (Unauthenticated if answer.status == 401 else Forbidden)(text, public=reason)
        if answer.status != 200:
            self._lying(f"answered {answer.status}; 200, 401 and 403 are understood")
        if answer.body is None:
            self._lying(f"answered more than {MAX_ANSWER_BYTES} bytes")
        value = _json_object(answer.body)
        if value is None:
            self._lying("answered 200 without a JSON object")
        user, name, word = value.get("user"), value.get("name"), value.get("access")
        if not isinstance(user, str) or not check_text(user):
            self._lying('answered without a "user" of 1 to 256 printable characters')
        if name is not None and not (isinstance(name, str) and check_text(name)):
            self._lying('answered with a "name" that is no text of 1 to 256 printable characters')
        if word not in ("read", "write", "admin"):
            self._lying('answered with an "access" that is none of read, write, admin')
        expires_at = self._expiry(value, asked_at)
        if expires_at <= self._clock():
            self._lying("gave an access that has run out already; are the clocks right?")
        return Grant(Access(word), user, name, expires_at)

    def _expiry(self, value: dict[str, Any], asked_at: float) -> float:
        """Give the earlier of ``expires_in`` and ``expires_at`` in seconds since 1970."""
        ends: list[float] = []
        for member, start in (("expires_in", asked_at), ("expires_at", 0.0)):
            seconds = value.get(member)
            if seconds is None:
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_SECONDS:
                self._lying(f'answered with an "{member}" that is no number of seconds')
            ends.append(start + float(seconds))
        if not ends:
            self._lying('answered with neither "expires_in" nor "expires_at"')
        return min(ends)

    def _lying(self, text: str) -> NoReturn:
        """Refuse an answer that means nothing, and say so to the operator: it is a fault of the application."""
        self._log.error("lying", "access not decided: %s %s", self._endpoint.name, text)
        raise AccessUnavailable(f"{self._endpoint.name} {text}")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _reason(body: bytes | None) -> str | None:
    """Give the application's reason as one line of bounded length, or None if it gives none."""
    value = _json_object(body or b"")
    reason = value.get("reason") if value is not None else None
    if not isinstance(reason, str):
        return None
    reason = _CONTROLS.sub(" ", reason[: 2 * MAX_REASON]).strip()
    if not reason:
        return None
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"
