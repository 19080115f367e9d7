"""Webhooks of one node: what it marks and tells of people, and, while it has the lease, all deliveries.

Strategy: an edit costs the addition of a number to a set, once for each commit of a document; everything else is done
beside the connections, by tasks of its own. Every node writes its marks into the storage now and then. One node has the
lease: it tells of changes, brings deliveries to their receivers, and notes what became of them. When it dies the lease
runs out, and another node begins with a look at all documents. Trouble with the store ends nothing here: it is tried
again, and what was not noted is delivered once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final, TypeVar

from collab.auth.signing import Signer
from collab.errors import StoreUnavailable
from collab.hub.member import Member
from collab.hub.tasks import Tasks
from collab.outbound import Outbound
from collab.storage.store import Store
from collab.storage.webhooks import JOINED, LEFT, Attempt, Delivery
from collab.telemetry import get_logger
from collab.webhooks.counts import WebhookCounts
from collab.webhooks.courier import Courier, ReadContent, Result
from collab.webhooks.people import People
from collab.webhooks.receivers import Receiver

_log = get_logger("webhooks")

# Seconds between looks for something to do, if nothing says that there is: other nodes and command lines write, too.
_LOOK: Final = 1.0

# Seconds after which what a node knows is written down at the latest; a short interval makes it shorter.
_MARK: Final = 2.0
_SHORTEST: Final = 0.05

# Documents told of in one transaction. On SQLite edits wait for it meanwhile: some milliseconds.
_TOLD: Final = 50

# Documents that a node looks at in one query when it looks at all of them; seconds between two such rounds; and how
# much longer than a query it pauses after it.
_PAGE: Final = 1_000
_ROUND: Final = 60.0
_PAUSES: Final = 9.0

# Seconds between looks for what is too old.
_EXPIRE: Final = 10.0

# Seconds before something is tried again that the store could not do.
_AGAIN: Final = 1.0

# Seconds that the last notes may take when the server stops.
_LAST: Final = 2.0

# How much of the lease may pass without a renewal before this node stops: clocks do not go at the same pace.
_SAFE: Final = 0.75

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """What webhooks are told by the settings; times in seconds.

    Attributes:
        interval: between a change and its being told: what changes meanwhile is told with it.
        disable_after: so long a receiver may fail before it is disabled.
        lease: for so long a node that has died keeps others from delivering.
        first_pause: before the second try of a delivery.
    """

    interval: float
    disable_after: float
    lease: float
    first_pause: float = 5.0


class _LostLease(Exception):
    """Another node delivers by now, or may do so."""


class Webhooks:
    """The webhooks of this node.

    Args:
        store: where deliveries are kept.
        receivers: who is told, each with its address.
        read: reads content.
        node: the name of this node.
        options: see ``WebhookOptions``.
        clock: wall-clock time in Unix seconds.
        random: spreads what would else happen in step.
        signer: signs messages with keys of the server, beside the secrets of receivers.

    Attributes:
        counts: what was done so far.
        tasks: its tasks.
    """

    def __init__(
        self,
        store: Store,
        receivers: Sequence[tuple[Receiver, Outbound]],
        read: ReadContent,
        node: str,
        options: WebhookOptions,
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
        signer: Signer | None = None,
    ) -> None:
        self.counts = WebhookCounts()
        self.tasks = Tasks()
        self._store = store
        self._receivers = receivers
        self._read = read
        self._node = node
        self._options = options
        self._clock = clock
        self._random = Random() if random is None else random
        self._signer = signer
        self._changed: set[int] = set()
        self._wants_people = any({JOINED, LEFT} & set(receiver.kinds) for receiver, _ in receivers)
        self._people = People(node, lambda: asyncio.get_running_loop().time())
        self._couriers: list[Courier] = []
        self._results: list[tuple[Courier, Delivery, Result]] = []
        self._settling = asyncio.Event()
        self._telling = asyncio.Event()
        self._renewed_at = 0.0
        self._dropped: dict[str, int] = {}
        self._closed = False

    # What the hub says (``hub.hub.Watcher``)

    def committed(self, document_id: int) -> None:
        """Note that rows of a document were committed."""
        self._changed.add(document_id)

    def joined(self, document: str, document_id: int | None, member: Member) -> None:
        """Note that somebody is on a document."""
        if self._wants_people:
            self._people.joined(document, document_id, member)

    def left(self, document: str, document_id: int | None, member: Member) -> None:
        """Note that a session has ended."""
        if self._wants_people:
            self._people.left(document, document_id, member)

    # Start and end

    async def start(self) -> None:
        """Begin; the store is open."""
        for _, outbound in self._receivers:
            await outbound.start()
        self.tasks.supervise(self._mark_forever, "marks of webhooks")
        self.tasks.supervise(self._deliver_forever, "delivery of webhooks")

    async def close(self) -> None:
        """Stop: note what is known, and let another node deliver. Call it before the store is closed; twice is once."""
        if self._closed:
            return
        self._closed = True
        await self.tasks.close()
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._mark(over=True)
                if self._results:
                    await self._store.settle(self._node, [result.attempt for _, _, result in self._results])
                await self._store.release_delivery(self._node)
        for _, outbound in self._receivers:
            await outbound.close()

    # Marks

    async def _mark_forever(self) -> None:
        pause = max(_SHORTEST, min(_MARK, self._options.interval / 4))
        while True:
            await asyncio.sleep(pause)
            with contextlib.suppress(StoreUnavailable):  # the journal says so; all of it is still to be marked
                await self._mark()

    async def _mark(self, *, over: bool = False) -> None:
        changed, self._changed = self._changed, set()
        try:
            if changed:
                await self._store.mark_changed(changed)
        except BaseException:
            self._changed |= changed
            raise
        events = self._people.take(over=over)
        try:
            if events:
                await self._store.tell_people(events)
        except BaseException:
            self._people.put_back(events)
            raise
        if changed or events:
            self._telling.set()
            self._wake_all()

    def _wake_all(self) -> None:
        for courier in self._couriers:
            courier.wake.set()

    # The lease

    async def _deliver_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._renewed_at = loop.time()
            try:
                if await self._store.claim_delivery(self._node, self._options.lease):
                    await self._deliver()
                    continue
            except StoreUnavailable:
                pass
            await asyncio.sleep(min(self._options.lease / 3, _LOOK * self._random.uniform(1.0, 3.0)))

    async def _deliver(self) -> None:
        """Deliver for as long as this node has the lease."""
        if not await self._store.subscribe(self._node, [receiver.subscription for receiver, _ in self._receivers]):
            return
        now = asyncio.get_running_loop().time
        self._couriers = [
            Courier(
                receiver,
                outbound,
                self._read,
                first_pause=self._options.first_pause,
                clock=self._clock,
                now=now,
                random=self._random,
                counts=self.counts,
                signer=self._signer,
            )
            for receiver, outbound in self._receivers
        ]
        self._results = []
        self.counts.delivering = True
        _log.info("this server delivers webhooks")
        try:
            async with asyncio.TaskGroup() as group:
                works = (self._renew, self._settle, self._tell, self._look, self._expire)
                for work in works:
                    group.create_task(work())
                for courier in self._couriers:
                    group.create_task(self._bring(courier, group))
        except* _LostLease:
            _log.info("another server delivers webhooks")
        finally:
            self.counts.delivering = False
            self.counts.states = []
            self._couriers = []

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        lease = self._options.lease
        while True:
            await asyncio.sleep(lease / 3)
            began = loop.time()
            try:
                async with asyncio.timeout(max(0.0, self._renewed_at + lease * _SAFE - began)):
                    if not await self._store.claim_delivery(self._node, lease):
                        raise _LostLease
            except TimeoutError:
                raise _LostLease from None
            except StoreUnavailable:
                if loop.time() - self._renewed_at > lease * _SAFE:
                    raise _LostLease from None
                continue
            self._renewed_at = began

    async def _held(self, call: Callable[[], Awaitable[_Result | None]]) -> _Result:
        """Do what needs the lease, as often as the store is not available; raises ``_LostLease``."""
        while True:
            try:
                result = await call()
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN)
                continue
            if result is None:
                raise _LostLease
            return result

    # What only the node with the lease does

    async def _tell(self) -> None:
        """Write deliveries of what was marked."""
        interval = self._options.interval
        while True:
            self._telling.clear()
            told = await self._held(lambda: self._store.tell_changed(self._node, interval, _TOLD, self._busy))
            if told:
                self._wake_all()
            if told == _TOLD:
                await asyncio.sleep(_SHORTEST)
            else:
                await _until(self._telling, max(_SHORTEST, min(_LOOK, interval / 4)))

    @property
    def _busy(self) -> list[int]:
        return [number for courier in self._couriers for number in courier.lanes.values()]

    async def _look(self) -> None:
        """Look at all documents, again and again, for what nobody has marked."""
        loop = asyncio.get_running_loop()
        while True:
            after: int | None = 0
            while after is not None:
                began = loop.time()
                looked = await self._held(partial(self._store.mark_missed, self._node, after, _PAGE))
                after = looked.last
                if looked.found:
                    self._telling.set()
                await asyncio.sleep(max(_SHORTEST, _PAUSES * (loop.time() - began)))
            await asyncio.sleep(_ROUND)

    async def _expire(self) -> None:
        """Give up what is too old, disable who fails for too long, and see how all stand."""
        while True:
            expired = await self._held(lambda: self._store.expire(self._node, self._options.disable_after))
            for name, count in expired.given_up.items():
                self.counts.given_up += count
                _log.error(
                    "%d deliveries to the receiver %s were given up: it has not taken them in a day", count, name
                )
            for name in expired.disabled:
                self._say_disabled(name, f"it has taken nothing for {self._options.disable_after / 3_600:.0f} hours")
            with contextlib.suppress(StoreUnavailable):
                self.counts.states = await self._store.receivers()
                self.counts.seen_at = self._clock()
            self._note_dropped()
            await asyncio.sleep(_SHORTEST if expired.more else _EXPIRE)

    def _note_dropped(self) -> None:
        """Say once for each look that events were dropped, and count them."""
        for state in self.counts.states:
            name = state.subscription.name
            new = state.dropped - self._dropped.get(name, state.dropped)
            self._dropped[name] = state.dropped
            if new > 0:
                self.counts.dropped += new
                _log.error("%d events for the receiver %s were dropped: too many wait for it", new, name)
        if self._people.dropped:
            self.counts.dropped += self._people.dropped
            self._people.dropped = 0

    def _say_disabled(self, name: str, why: str) -> None:
        _log.error(
            "THE RECEIVER %s IS DISABLED: %s. Nothing more is written for it until somebody runs: "
            "collab webhooks enable %s",
            name,
            why,
            name,
        )

    async def _bring(self, courier: Courier, group: asyncio.TaskGroup) -> None:
        """Begin attempts of one receiver."""
        name = courier.receiver.name
        while True:
            courier.wake.clear()
            found: list[Delivery] = []
            if room := courier.room:
                found = await self._held(partial(self._store.due, name, room, courier.lanes))
            for delivery in found:
                courier.lanes[delivery.lane] = delivery.number
                group.create_task(self._attempt(courier, delivery))
            alone = courier.alone
            await _until(courier.wake, min(_LOOK, alone) if alone else _LOOK)

    async def _attempt(self, courier: Courier, delivery: Delivery) -> None:
        result = await courier.attempt(delivery)
        self._results.append((courier, delivery, result))
        self._settling.set()

    async def _settle(self) -> None:
        """Note what became of attempts: all that have ended while the last ones were noted, in one transaction."""
        while True:
            await self._settling.wait()
            self._settling.clear()
            results, self._results = self._results, []
            attempts = [result.attempt for _, _, result in results]
            gone = sorted({courier.receiver.name for courier, _, result in results if result.gone})
            await self._held(partial(self._noted, attempts, gone))
            for name in gone:
                self._say_disabled(name, "it has answered 410")
            for courier in {courier for courier, _, result in results if result.recovered}:
                # What has failed meanwhile need not wait as long as it was to.
                with contextlib.suppress(StoreUnavailable):
                    await self._store.enable_receiver(courier.receiver.name)
            for courier, delivery, _ in results:
                del courier.lanes[delivery.lane]
                courier.wake.set()

    async def _noted(self, attempts: list[Attempt], gone: list[str]) -> bool | None:
        return await self._store.settle(self._node, attempts, gone) or None


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than so many seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
