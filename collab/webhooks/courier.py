"""Bringing deliveries to one receiver, and what is done when it does not take them.

Strategy: each delivery is tried again later and later, with some chance in it, so that receivers are not hit in step.
A receiver that takes nothing at all is left alone as a whole, beside that: then one delivery at a time asks whether it
is back. Without that a receiver that is down would be asked by each of the documents that have changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final, NamedTuple

from opentelemetry.trace import SpanKind

from collab.auth.signing import Signer
from collab.outbound import NoAnswer, Outbound
from collab.storage.webhooks import MAX_ERROR, Attempt, Delivery
from collab.telemetry import RateLimited, get_logger
from collab.telemetry.tracing import passed_on, span
from collab.webhooks.counts import WebhookCounts
from collab.webhooks.messages import WITH_CONTENT, Content, encode_message
from collab.webhooks.receivers import Receiver
from collab.webhooks.signing import sign

AT_A_TIME: Final = 8
"""Deliveries that one receiver is brought at the same time, each of another document."""

MAX_PAUSE: Final = 600.0
"""Seconds between two tries of one delivery, at the most."""

TROUBLE: Final = 3
"""Failures in a row after which a receiver is left alone."""

MAX_ALONE: Final = 60.0
"""Seconds for which it is, at the most, before one delivery asks again."""

GONE: Final = 410
"""By this status a receiver says that it wants nothing more (Standard Webhooks)."""

_limited = RateLimited(get_logger("webhooks"))

ReadContent = Callable[[Delivery, Receiver], Awaitable[Content]]


class Result(NamedTuple):
    """What became of an attempt; whether the receiver wants nothing more, and whether it is back after trouble."""

    attempt: Attempt
    gone: bool = False
    recovered: bool = False


class Courier:
    """Brings deliveries to one receiver.

    Args:
        receiver: who is told.
        outbound: its address, started.
        read: reads content of documents, for receivers that want it.
        first_pause: seconds before the second try of a delivery.
        clock: wall-clock time in Unix seconds.
        now: seconds of the loop.
        random: spreads what would else happen in step.
        counts: what all of them do.
        signer: signs messages with keys of the server, beside the secrets of the receiver.

    Attributes:
        receiver: see above.
        lanes: those of which a delivery is on its way or not settled yet, each with its number.
        wake: set when there may be something to do.
    """

    def __init__(
        self,
        receiver: Receiver,
        outbound: Outbound,
        read: ReadContent,
        *,
        first_pause: float,
        clock: Callable[[], float],
        now: Callable[[], float],
        random: Random,
        counts: WebhookCounts,
        signer: Signer | None = None,
    ) -> None:
        self.receiver = receiver
        self.lanes: dict[int, int] = {}
        self.wake = asyncio.Event()
        self._outbound = outbound
        self._read = read
        self._first_pause = first_pause
        self._clock = clock
        self._now = now
        self._random = random
        self._counts = counts
        self._signer = signer
        self._failures = 0
        self._resume_at = 0.0

    @property
    def room(self) -> int:
        """How many deliveries may be begun now."""
        if self._now() < self._resume_at:
            return 0
        return max(0, (AT_A_TIME if self._failures < TROUBLE else 1) - len(self.lanes))

    @property
    def alone(self) -> float:
        """Seconds for which the receiver is still left alone."""
        return max(0.0, self._resume_at - self._now())

    async def attempt(self, delivery: Delivery) -> Result:
        """Bring one delivery; never raises but when it is cancelled."""
        try:
            return await self._attempt(delivery)
        except Exception as error:
            # A defect of ours must hold up this delivery alone.
            _limited.error("defect", "delivery %d was not made", delivery.number, exc_info=error)
            return self._failed(delivery, None, f"a defect: {type(error).__name__}")

    async def _attempt(self, delivery: Delivery) -> Result:
        content = None
        if self.receiver.content is not None and delivery.kind in WITH_CONTENT:
            content = await self._read(delivery, self.receiver)
        body = encode_message(delivery, content)
        headers = self._headers(delivery, body)
        try:
            named = {"collab.receiver": self.receiver.name, "collab.event": delivery.event}
            with span("deliver webhook", named, kind=SpanKind.CLIENT, alone=True) as current:
                answer = await self._outbound.send("POST", body, headers | passed_on())
                current.set_attribute("http.response.status_code", answer.status)
        except NoAnswer as error:
            return self._failed(delivery, None, str(error))
        if 200 <= answer.status < 300:
            recovered = self._failures >= TROUBLE
            self._failures, self._resume_at = 0, 0.0
            self._counts.attempts["delivered"] += 1
            return Result(Attempt(delivery.number, True, answer.status), recovered=recovered)
        text = f"it answered {answer.status}"
        pause = _seconds_of(answer.retry_after, self._clock())
        failed = self._failed(delivery, answer.status, text, pause)
        return failed._replace(gone=answer.status == GONE)

    def _headers(self, delivery: Delivery, body: bytes) -> dict[str, str]:
        """Sign a message with the secrets of the receiver and the keys of the server."""
        message, now, signer = delivery.event, int(self._clock()), self._signer
        if signer is None:
            return sign(self.receiver.keys, message, now, body)
        # The name of the message is bound, too, because a receiver knows by it what it has seen.
        token = signer.headers(self._outbound.name, body, webhook_id=message)
        return sign(self.receiver.keys, message, now, body, signer.ed25519) | token

    def _failed(self, delivery: Delivery, status: int | None, error: str, at_least: float = 0.0) -> Result:
        self._counts.attempts["unanswered" if status is None else "refused"] += 1
        self._failures += 1
        if self._failures >= TROUBLE:
            alone = min(MAX_ALONE, self._first_pause * 2.0 ** min(self._failures - TROUBLE, 20))
            self._resume_at = self._now() + alone * self._random.uniform(0.75, 1.25)
        pause = min(MAX_PAUSE, self._first_pause * 2.0 ** min(delivery.attempts, 20))
        pause = max(pause * self._random.uniform(0.75, 1.25), min(at_least, MAX_PAUSE))
        name = self.receiver.name
        line = "the receiver %s did not take delivery %d (%s): %s; it is tried again in %.0f s"
        _limited.warning(f"failed {name}", line, name, delivery.number, delivery.kind, error, pause)
        return Result(Attempt(delivery.number, False, status, error[:MAX_ERROR], pause))


def _seconds_of(retry_after: str | None, now: float) -> float:
    """Read ``Retry-After``: seconds, or a date; 0 for what is neither."""
    if retry_after is None or len(retry_after) > 64:
        return 0.0
    if retry_after.isascii() and retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
