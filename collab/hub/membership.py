"""This node among the servers on its storage: it shows that it lives, and compares what should be alike on all of them.

Strategy: one heartbeat now and then, which also tells who else is there. Nothing waits for it but the first one, for a
server that would undo what the others ensure must not serve anybody: one without authentication where the others ask
who somebody is. All else may differ for a while, as it does while a setting is changed on one node after the other; it
is said once, with both values. History is kept for as long as the most careful node that is there wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from collab.errors import ConfigurationError, StoreUnavailable
from collab.storage.membership import Heartbeat, Node
from collab.storage.store import Store
from collab.telemetry import escape_controls, get_logger

_log = get_logger("nodes")

AUTHENTICATION: Final = "authentication"
NOBODY: Final = "none"
"""Its value where everybody may do everything."""

HISTORY: Final = "history_days"
TRASH_DAYS: Final = "trash_days"
SIGNING_KEYS: Final = "signing_keys"

WHY: Final[Mapping[str, str]] = {
    AUTHENTICATION: "who is let in depends on the node",
    "tokens": "tokens that are good on one are refused by the other",
    "cursor_secret": "lists do not go on where the page before came from the other",
    "bus": "they may not hear each other: edits then arrive about a second late, and presence not at all",
    HISTORY: "what is older goes only when it is old enough for both",
    "history_days_for": "what is older goes as soon as one of them says so",
    "auto_version_minutes": "how often versions are noted depends on the node",
    TRASH_DAYS: "what was deleted goes only when that is long enough ago for both",
    "keep_deleted": "one of them may remove deleted content that the other keeps",
    "max_message_bytes": "an edit is refused for good on one that the other would take",
    "max_document_bytes": "an edit is refused for good on one that the other would take",
    "max_pending_bytes": "an update that waits for others is refused on one that the other would keep",
    "max_awareness_bytes": "presence is shown by one that the other leaves out",
    "max_awareness_ids": "presence is shown by one that the other leaves out",
    "stamp_users": "on one of them clients may show themselves under any name",
    "stateless": "stateless messages pass on one of them only",
    "max_stateless_bytes": "stateless messages pass on one that the other leaves out",
    "tenants": "whose a document is depends on the node, and on one without tenants nothing is counted",
    "quotas": "when a tenant is over a quota depends on the node",
    "hooks": "what happens is told on one of them, and asked about, and on the other it is not",
    "webhooks": "which receivers are told depends on which of them delivers",
    SIGNING_KEYS: "who fetches the keys from one of them cannot check what the other has signed",
    "webhook_interval_seconds": "how soon receivers are told depends on which of them delivers",
}
"""What should be alike on all nodes, and what comes of it where it is not."""

CLOCK_SECONDS: Final = 2.0
"""By so much the clock of this machine and that of the storage may differ: tokens and dates go by the clock."""

# Addresses that are all of a machine's.
_ANY: Final = ("0.0.0.0", "::")

# Seconds that saying goodbye may take when the server stops.
_LEAVE: Final = 2.0

# Pairs of values that were told of; more are told again.
_MAX_TOLD: Final = 1_000

# Characters of a value of another node that are shown.
_SHOWN: Final = 100


@dataclass(slots=True)
class NodeFacts:
    """What a node says of itself.

    Attributes:
        version: of the server.
        bus: how it hears of others, in one word.
        settings: what should be alike, by the names in ``WHY``.
        address: where it listens; empty until that is known.
        connections: gives how many there are.
    """

    version: str = ""
    bus: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    connections: Callable[[], int] = lambda: 0

    def tell(self, name: str, value: str) -> None:
        """Say another value for one of ``settings`` from the next heartbeat on."""
        self.settings = {**self.settings, name: value}


class Membership:
    """The heartbeat of this node.

    Args:
        store: where it is noted.
        facts: what this node says of itself; its ``address`` may be set later.
        documents: gives how many are in memory.
        prefix: the beginning of its name.
        clock: the time of day of this machine, in Unix seconds.

    Attributes:
        name: of this node, in the table.
        nodes: all that were there at the last heartbeat, this one included.
        others: how many others have shown signs of life since the heartbeat before, older releases included.
        ahead: seconds by which the clock of this machine is ahead of the storage's, at least; negative if it is behind.
    """

    def __init__(
        self,
        store: Store,
        facts: NodeFacts,
        documents: Callable[[], int],
        prefix: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"{prefix[:40]}-{secrets.token_hex(3)}"
        self.nodes: list[Node] = []
        self.others = 0
        self.ahead = 0.0
        self.facts = facts
        self._store = store
        self._documents = documents
        self._clock = clock
        self._wrong = False
        self._told: set[tuple[str, str]] = set()
        self._failing = False
        self._beat_at = float("-inf")
        self._soon = asyncio.Event()

    @property
    def alive(self) -> int:
        """How many nodes live, this one included."""
        return sum([node.alive for node in self.nodes])

    @property
    def clock_is_wrong(self) -> str | None:
        """Say how the clock of this machine and that of the storage differ, if that is too much."""
        if abs(self.ahead) <= CLOCK_SECONDS:
            return None
        return f"{abs(self.ahead):.0f} s {'ahead of' if self.ahead > 0 else 'behind'} that of the database"

    def history(self, own: float) -> float:
        """Give the seconds for which history is kept: this node's, or those of another one that wants more."""
        return self._longest(HISTORY, own)

    def trash(self, own: float) -> float:
        """Give the seconds for which deleted documents are kept, in the same way."""
        return self._longest(TRASH_DAYS, own)

    def _longest(self, name: str, own: float) -> float:
        wanted = [own]
        for node in self.nodes:
            with contextlib.suppress(ValueError):
                if node.alive:
                    wanted.append(86_400.0 * float(read_settings(node).get(name, "0")))
        return max(wanted)

    async def join(self) -> None:
        """Come to the others, before anything is served.

        Raises:
            ConfigurationError: they are incompatible with this one.
        """
        heartbeat = await self._beat()
        if heartbeat is None:
            return
        for node in heartbeat.nodes:
            theirs = read_settings(node).get(AUTHENTICATION, NOBODY)
            if self._is_other(node) and theirs != NOBODY == self.facts.settings.get(AUTHENTICATION, NOBODY):
                await self.leave()
                raise ConfigurationError(
                    f"{shown_node(node)} on the same database asks clients who they are ({theirs}), and here everybody "
                    "would read and change every document: set the same authentication here. To give it up, stop all "
                    "nodes first"
                )

    async def pause(self, seconds: float) -> None:
        """Let so many seconds pass, or less if there is something new to be told."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._soon.wait()

    @property
    def due(self) -> bool:
        """Whether the next heartbeat is."""
        # A little early: the pauses of those who ask are as long as the time between two.
        return self._soon.is_set() or asyncio.get_running_loop().time() - self._beat_at > 0.9 * self._store.beat_seconds

    async def beat(self) -> None:
        """Send one heartbeat; one that cannot be stored is left out."""
        if (heartbeat := await self._beat()) is not None:
            for node in heartbeat.nodes:
                if self._is_other(node):
                    self._compare(node)

    def listens(self, address: str) -> None:
        """Tell the others soon where this node listens; all addresses of a machine are shown as its name."""
        parts = urlsplit(address)
        if parts.hostname in _ANY:
            address = f"{parts.scheme}://{socket.gethostname()}:{parts.port}"
        self.facts.address = address
        self._soon.set()

    async def leave(self) -> None:
        """Take this node off the list, if that can be done soon."""
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(_LEAVE):
                await self._store.leave(self.name)

    async def _beat(self) -> Heartbeat | None:
        facts = self.facts
        self._beat_at = asyncio.get_running_loop().time()
        self._soon.clear()
        node = Node(
            name=self.name,
            address=facts.address,
            version=facts.version,
            bus=facts.bus,
            settings=json.dumps(dict(facts.settings)),
            documents=self._documents(),
            connections=facts.connections(),
            period=self._store.beat_seconds,
        )
        before = self._clock()
        try:
            heartbeat = await self._store.beat(node)
        except StoreUnavailable as error:
            if not self._failing:
                self._failing = True
                _log.warning("other nodes are not shown that this one lives: %s", error)
            return None
        if self._failing:
            self._failing = False
            _log.info("other nodes are shown again that this one lives")
        self.nodes, self.others = heartbeat.nodes, heartbeat.others
        for own in [node for node in heartbeat.nodes if node.name == self.name]:
            self._look_at_clock(before, own.beat_at, self._clock())
        return heartbeat

    def _look_at_clock(self, before: float, at: float, after: float) -> None:
        """Compare the clocks: the storage has noted ``at`` between two moments here."""
        self.ahead = max(0.0, before - at) + min(0.0, after - at)
        wrong = self.clock_is_wrong
        if (wrong is not None) == self._wrong:
            return
        self._wrong = wrong is not None
        if wrong is not None:
            _log.error("the clock of this machine is %s: tokens are taken for expired, or for not valid yet", wrong)
        else:
            _log.warning("the clock of this machine agrees with that of the database again")

    def _is_other(self, node: Node) -> bool:
        return node.name != self.name and node.alive

    def _compare(self, node: Node) -> None:
        """Say what is not alike, once for each value."""
        own, theirs = self.facts.settings, read_settings(node)
        for name, why in WHY.items():
            mine, other = own.get(name), theirs.get(name)
            if mine is None or other is None or mine == other or (name, other) in self._told:
                continue
            if len(self._told) >= _MAX_TOLD:
                self._told.clear()
            self._told.add((name, other))
            _log.warning(
                "%s is %s here and %s on %s; it should be the same on all nodes: %s",
                name,
                mine,
                escape_controls(other[:_SHOWN]),
                shown_node(node),
                why,
            )


def read_settings(node: Node) -> dict[str, str]:
    """Read what a node says of its settings; what is of another form, of another release, is left out."""
    try:
        found = json.loads(node.settings)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def shown_node(node: Node) -> str:
    """Name a node for people."""
    return escape_controls(f"the node {node.name}" + (f" ({node.address})" if node.address else ""))
