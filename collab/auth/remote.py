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
in it as a hash only. A token that is not good (401) is not asked about again for two seconds; a 403 is not kept: what
the owner of a document allows takes effect at once. The same question asked while it is under way waits for its
answer; a circuit breaker spares clients the time-out while the application is down.

A question waits for its place (``places``) before it is asked: the time-out of its answer begins when it is asked, and
only a question that was asked can fail.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

from collab.auth.access import AccessRequest, Grant
from collab.auth.breaker import CircuitBreaker, Try
from collab.auth.claims import MAX_SECONDS, check_tenant, check_text
from collab.auth.endpoint import MAX_CONNECTIONS, Answer, Endpoint
from collab.auth.flights import Flights
from collab.auth.jwt import MAX_TOKEN
from collab.auth.places import Places
from collab.errors import AccessUnavailable, Forbidden, Unauthenticated
from collab.net import key_of_text
from collab.protocol.session import Access
from collab.telemetry import RateLimited, get_logger

MAX_ANSWER_BYTES = 16 * 1024

MAX_REASON = 200
"""Characters of the application's reason that a client is shown."""

REFUSED_SECONDS = 2.0
"""For which a 401 is kept, if grants are: y-websocket comes back with the same token every 0.1 to 2.5 s."""

_GATEWAY_ERRORS = (502, 503, 504)
"""What a proxy answers for an application that is down: as good as silence."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")

_Question = tuple[bytes, str, str, int]
"""What was asked, and how often everything was forgotten before."""

_Value = TypeVar("_Value")


class RemoteAuthenticator:
    """Decide by the answers of the application's own endpoint; see ``access.ManagedAuthenticator`` for the promise."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        cache_seconds: float = 10.0,
        cache_entries: int = 10_000,
        tenant_member: str | None = None,
        failures: int = 5,
        pause: float = 5.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask ``endpoint``.

        Args:
            endpoint: the application's.
            cache_seconds: how long a grant is kept at most; 0 keeps none.
            cache_entries: how many are kept, and how many refusals beside them; past it the least recently used goes.
            tenant_member: the member of an answer that names the client's tenant; None: none does.
            failures: questions without an answer in a row after which the endpoint is left alone.
            pause: seconds for which it is.
            clock: seconds since 1970, for lifetimes.
            monotonic: seconds, for the cache and the pause.
        """
        self._endpoint = endpoint
        self._cache_seconds = cache_seconds
        self._cache_entries = cache_entries
        self._tenant_member = tenant_member
        self._clock = clock
        self._monotonic = monotonic
        self._breaker = CircuitBreaker(failures, pause, monotonic)
        # As many as the endpoint has connections, so that what is asked waits nowhere else.
        self._places = Places(MAX_CONNECTIONS)
        self._flights: Flights[_Question, Grant] = Flights(MAX_CONNECTIONS)
        self._cache: OrderedDict[_Question, tuple[float, Grant]] = OrderedDict()
        self._refused: OrderedDict[_Question, tuple[float, str]] = OrderedDict()
        self._log = RateLimited(get_logger("auth"), clock=monotonic)
        self._forgotten = 0

    async def start(self) -> None:
        """Make the connection pool; nothing is asked yet."""
        await self._endpoint.start()

    async def close(self) -> None:
        """End the questions under way, send away those who wait, and close the connections."""
        self._places.close()
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
        question = (digest, request.document_name, request.peer, self._forgotten)
        grant = self._cached(question)
        if grant is not None:
            return grant
        address = key_of_text(request.peer)
        work = partial(self._ask, question, request, address)
        if question not in self._flights:
            if self._breaker.refuses(address):
                raise AccessUnavailable(self._left_alone)
            place = await self._places.take(address, request.connection)
            # Much may have been answered meanwhile, and the same may have been asked.
            try:
                grant = self._cached(question)
                if grant is not None or question in self._flights:
                    place.release()
                else:
                    # It goes on when nobody waits for it any more, and keeps its place as long.
                    self._flights.launch(question, work).add_done_callback(lambda _: place.release())
            except BaseException:
                place.release()
                raise
            if grant is not None:
                return grant
        return await self._flights.join(question, work)

    def forget(self) -> None:
        """Forget all answers; see ``access.Forgetful``. A question that is under way keeps its answer to itself."""
        self._forgotten += 1
        self._cache.clear()
        self._refused.clear()

    def _cached(self, question: _Question) -> Grant | None:
        """Give what is kept of the answer to a question.

        Raises:
            Unauthenticated: it was a refusal.
        """
        refusal = self._refused.get(question)
        if refusal is not None:
            until, public = refusal
            if self._monotonic() < until:
                raise Unauthenticated("the application has refused the same a moment ago", public=public)
            del self._refused[question]
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

    @property
    def _left_alone(self) -> str:
        return f"{self._endpoint.name} is left alone: it has not answered for some time"

    async def _ask(self, question: _Question, request: AccessRequest, address: str) -> Grant:
        tried = self._breaker.permit(address)
        if tried is None:
            raise AccessUnavailable(self._left_alone)
        # Lifetimes count from before the question, so that its way there and back shortens them.
        asked_at, asked = self._clock(), self._monotonic()
        try:
            answer = await self._endpoint.post(
                {"token": request.token, "document": request.document_name, "client_address": request.peer}
            )
        except AccessUnavailable as error:
            self._failed(tried, str(error))
            raise
        except BaseException:
            self._breaker.abandoned(tried)
            raise
        if answer.status in _GATEWAY_ERRORS:
            text = f"{self._endpoint.name} answered {answer.status}"
            self._failed(tried, text)
            raise AccessUnavailable(text)
        self._breaker.succeeded()
        try:
            grant = self._read(answer, asked_at)
        except Unauthenticated as error:
            until = asked + min(self._cache_seconds, REFUSED_SECONDS)
            self._keep(self._refused, question, (until, error.public))
            raise
        if grant.expires_at is not None:
            until = asked + min(self._cache_seconds, grant.expires_at - asked_at)
            self._keep(self._cache, question, (until, grant))
        return grant

    def _keep(self, kept: OrderedDict[_Question, _Value], question: _Question, value: _Value) -> None:
        if self._cache_seconds > 0 and question[-1] == self._forgotten:
            kept[question] = value
            if len(kept) > self._cache_entries:
                kept.popitem(last=False)

    def _failed(self, tried: Try, text: str) -> None:
        if self._breaker.failed(tried):
            only = self._breaker.only
            whom = "nobody gets in" if only is None else f"nobody from {only}, who alone has met this, gets in"
            self._log.error("breaker", "%s; it is left alone for a while, and %s", text, whom)
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
        tenant = None if self._tenant_member is None else value.get(self._tenant_member)
        if tenant is not None and not (isinstance(tenant, str) and check_tenant(tenant)):
            self._lying(f'answered with a "{self._tenant_member}" that names no tenant')
        return Grant(Access(word), user, name, expires_at, tenant=tenant)

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
