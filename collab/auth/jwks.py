"""Keys that an identity provider publishes at an address (JWKS, RFC 7517): fetched, kept, fetched again.

Strategy: the set is kept and used; what is old is replaced while it goes on being used, so that nobody
waits for the provider but those who come before the first set has arrived, or after an age of
two lifetimes. No timer runs: a server that nobody comes to asks for nothing.

    age of the set            who asks for the keys
    under ``ttl``             gets them
    under twice ``ttl``       gets them, and one fetch starts in the background
    over twice ``ttl``        waits for the fetch: a key withdrawn long ago is not used once more after a quiet night

A fetch that fails leaves the last good set in use, however old, and is tried again after ``cooldown``;
so does an answer that is no key set. There is one fetch at a time, and none within ``cooldown`` of the
last, whoever asks: tokens with made-up key names cost the provider one request each ten seconds.

A token with a key that is not there (rotation) starts a fetch at once, outside of the cool-down. Within
it nobody can say yet, and the client is asked to come back: "no such key" is said only when a fetch that
began after the key was first seen did not bring it (``has_looked_for``).
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from collab.auth.endpoint import Endpoint
from collab.auth.flights import Flights
from collab.auth.keys import MAX_FILE_BYTES, KeySet, UnusableKey, parse_jwks
from collab.errors import AccessUnavailable
from collab.telemetry import RateLimited, get_logger

MAX_JWKS_BYTES = MAX_FILE_BYTES

_MAX_SOUGHT = 1_024
"""Unknown keys that are remembered with the time they were first seen; past it the oldest is forgotten,
and its client asked to come back once more."""

_log = get_logger("auth")


class RemoteKeys:
    """The key set at an address."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        ttl: float = 300.0,
        cooldown: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the set of ``endpoint`` for ``ttl`` seconds and leave ``cooldown`` seconds between two fetches."""
        self._endpoint = endpoint
        self._ttl = ttl
        self._cooldown = cooldown
        self._clock = clock
        self._limited = RateLimited(_log, per_second=0.1, burst=3, clock=clock)
        self._flights: Flights[str, KeySet] = Flights(limit=1)
        self._keys: KeySet | None = None
        self._begun_at = -math.inf  # of the last fetch
        self._good_since = -math.inf  # the beginning of the last fetch that brought a set
        self._sought: OrderedDict[str, float] = OrderedDict()

    async def start(self) -> None:
        """Begin the first fetch, without waiting for it."""
        await self._endpoint.start()
        self._flights.launch("", self._fetch)

    async def close(self) -> None:
        """End a fetch under way and close the connection."""
        await self._flights.close()
        await self._endpoint.close()

    async def keys(self) -> KeySet:
        """Give the keys at hand; wait only if there are none yet or they are over two lifetimes old.

        Raises:
            AccessUnavailable: there are none and none could be fetched.
        """
        age = self._clock() - self._good_since
        if self._keys is not None and (age < self._ttl or not self._may_fetch()):
            return self._keys
        if self._keys is not None and age < 2 * self._ttl:
            self._flights.launch("", self._fetch)
            return self._keys
        if not self._may_fetch():
            raise AccessUnavailable("no key set yet; it is not fetched again so soon")
        try:
            return await self._flights.join("", self._fetch)
        except AccessUnavailable:
            if self._keys is None:
                raise
            return self._keys

    async def renewed(self, sought: str) -> KeySet:
        """Give a set fetched anew, because ``sought`` is not in the one at hand, if the cool-down lets it.

        ``sought`` is the key's name, or what stands for a token that gives none.

        Raises:
            AccessUnavailable: the fetch failed.
        """
        now = self._clock()
        self._sought.setdefault(sought, now)
        if len(self._sought) > _MAX_SOUGHT:
            self._sought.popitem(last=False)
        if self._may_fetch():
            return await self._flights.join("", self._fetch)
        if self._keys is None:
            raise AccessUnavailable("no key set yet; it is not fetched again so soon")
        return self._keys

    def has_looked_for(self, sought: str) -> bool:
        """Tell whether the set at hand was asked for after ``sought`` was first seen: it is not there, then."""
        return self._good_since >= self._sought.get(sought, math.inf)

    def _may_fetch(self) -> bool:
        """Tell whether a fetch may start, or is under way and may be waited for."""
        return "" in self._flights or self._clock() - self._begun_at >= self._cooldown

    async def _fetch(self) -> KeySet:
        begun = self._begun_at = self._clock()
        try:
            keys = await self._read()
        except AccessUnavailable as error:
            state = "the last good set stays in use" if self._keys is not None else "nobody with a key of it gets in"
            self._limited.warning("jwks", "key set not fetched, %s: %s", state, error)
            raise
        if keys != self._keys:
            _log.info("key set of %d keys fetched from %s", len(keys.keys), self._endpoint.name)
        self._keys = keys
        self._good_since = begun
        return keys

    async def _read(self) -> KeySet:
        name = self._endpoint.name
        answer = await self._endpoint.get()
        if answer.status != 200:
            raise AccessUnavailable(f"{name} answered {answer.status}")
        if answer.body is None:
            raise AccessUnavailable(f"{name} answered more than {MAX_JWKS_BYTES} bytes")
        try:
            keys, left_out = parse_jwks(answer.body)
        except UnusableKey as error:
            raise AccessUnavailable(f"{name}: {error}") from None
        if left_out:
            self._limited.warning("left out", "keys of %s that cannot serve: %s", name, "; ".join(left_out[:5]))
        return keys
