"""Which servers are compared, in which scenarios, and what is to be reached."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle

from joserfc import jwt
from joserfc.jwk import OctKey

from collab.bench.connection import Target
from collab.bench.run import Figures
from collab.bench.wire import WireName, choose_wire

SECRET = secrets.token_urlsafe(32)
"""What tokens are signed with: as long as one comparison."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server that can be started: ``folder`` of a peer below tests/peers, None for this server.

    With ``users`` it wants tokens, and its clients are so many people in turn. A peer runs on Node, or ``on_bun``.
    """

    name: str
    folder: str | None
    wire: WireName
    path: str
    users: int = 0
    on_bun: bool = False

    def target(self, url: str) -> Target:
        """Give what its clients connect to."""
        return Target(url, choose_wire(self.wire), cycle(_tokens(self.users)) if self.users else None)


OURS = Candidate("collab", None, WireName.Y_WEBSOCKET, "/ws")
OURS_HOCUSPOCUS = Candidate("collab, Hocuspocus protocol", None, WireName.HOCUSPOCUS, "/hocuspocus")
# As many people as the scenarios have clients, because what each has written is kept apart.
OURS_SIGNED_IN = Candidate("collab, with tokens", None, WireName.Y_WEBSOCKET, "/ws", users=100)
Y_WEBSOCKET = Candidate("@y/websocket-server", "y-websocket", WireName.Y_WEBSOCKET, "")
HOCUSPOCUS = Candidate("@hocuspocus/server", "hocuspocus", WireName.HOCUSPOCUS, "")
# The same files as Y_WEBSOCKET on another runtime, which writes to sockets at less cost.
Y_WEBSOCKET_BUN = Candidate("@y/websocket-server on Bun", "y-websocket", WireName.Y_WEBSOCKET, "", on_bun=True)
CANDIDATES = (OURS, OURS_HOCUSPOCUS, OURS_SIGNED_IN, Y_WEBSOCKET, Y_WEBSOCKET_BUN, HOCUSPOCUS)
_BOTH_PROTOCOLS = (OURS, OURS_HOCUSPOCUS, Y_WEBSOCKET, Y_WEBSOCKET_BUN, HOCUSPOCUS)
_ONE_PROTOCOL = (OURS, Y_WEBSOCKET, HOCUSPOCUS)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure, and what it should be: at most (or least) ``factor`` of the best peer's, or a bound of its own.

    ``against`` names the peers that count; empty, ``factor`` is absolute. ``of`` is who has to reach it. Without
    a ``factor`` the figure is only shown.
    """

    key: str
    meaning: str
    factor: float | None
    against: tuple[Candidate, ...] = ()
    higher: bool = False
    of: Candidate = OURS


PEERS = (Y_WEBSOCKET, HOCUSPOCUS)
ALL_PEERS = (*PEERS, Y_WEBSOCKET_BUN)
_CPU = "server CPU for 1,000 deliveries, ms"
_P50 = Goal("p50_ms", "p50 latency, ms", None)
_P99 = Goal("p99_ms", "p99 latency, ms", 1.0, PEERS)
# What a client that is told "saved" may cost more than one that is not.
_BOTH = Goal("cpu_to_beside", "server CPU, Hocuspocus to y-websocket protocol", 1.15, of=OURS_HOCUSPOCUS)

# With tokens people are told apart in the journal, their states are stamped and their messages counted.
_SIGNED_IN = Goal("cpu_to_beside", "CPU of the serving process, with tokens to without", 1.05, of=OURS_SIGNED_IN)


@dataclass(frozen=True, slots=True)
class Plan:
    """One scenario of the comparison."""

    scenario: str
    title: str
    goals: tuple[Goal, ...]
    repetitions: int = 3
    peer_repetitions: int = 3  # fewer where a peer takes half a minute and is far from the bound
    candidates: tuple[Candidate, ...] = _BOTH_PROTOCOLS
    keeps: bool = False  # the peers keep files, because the server is restarted
    sizes: Mapping[str, float] = field(default_factory=dict, hash=False)
    quick: Mapping[str, float] = field(default_factory=dict, hash=False)  # sizes for --quick
    seconds: float = 3.0
    beside: Candidate | None = None  # gets the same load on the same core at the same time
    serving_alone: bool = False  # without the processes that make snapshots, which may fall due or not meanwhile


Runs = dict[tuple[Plan, Candidate], list[Figures]]


_CROWD = (
    Goal("core_share", "server CPU, part of a core", None),
    Goal("p50_ms", "p50 latency, ms", None),
    Goal("p99_ms", "p99 latency, ms", None),
)
_HIGHEST = (
    Goal("updates_per_s", "updates/s", 3.0, PEERS, higher=True),
    Goal("p50_ms", "p50 latency at that rate, ms", None),
    Goal("p99_ms", "p99 latency at that rate, ms", None),
)

PLANS = (
    Plan(
        "one-writer",
        "One writer at 50 edits/s, 100 readers",
        (Goal("cpu_ms_per_1000", _CPU, 0.9, (Y_WEBSOCKET,)), _P50, _P99),
    ),
    Plan(
        "one-writer",
        "One writer at 50 edits/s, 100 readers, in both protocols",
        (_BOTH,),
        candidates=(OURS_HOCUSPOCUS,),
        beside=OURS,
    ),
    Plan(
        "everybody",
        "100 clients in one room, 5 edits/s each",
        (
            Goal("cpu_ms_per_1000", _CPU, 1.0, ALL_PEERS),
            Goal("p50_ms", "p50 latency, ms", 1.0),
            Goal("p99_ms", "p99 latency, ms", 1.0, (Y_WEBSOCKET,)),
        ),
    ),
    Plan(
        "everybody",
        "100 clients in one room, 5 edits/s each, in both protocols",
        (_BOTH,),
        candidates=(OURS_HOCUSPOCUS,),
        beside=OURS,
    ),
    Plan(
        "everybody",
        "100 signed-in clients in one room, 5 edits/s each",
        (_SIGNED_IN,),
        repetitions=4,
        candidates=(OURS_SIGNED_IN,),
        beside=OURS,
        serving_alone=True,
        seconds=6.0,
    ),
    Plan(
        "many-rooms",
        "500 rooms of 2 clients, 1 edit/s each",
        (
            Goal("cpu_ms_per_1000", f"{_CPU}, against @y/websocket-server", 1.1, (Y_WEBSOCKET,)),
            Goal("cpu_ms_per_1000", f"{_CPU}, against @hocuspocus/server", 0.75, (HOCUSPOCUS,)),
            _P50,
            _P99,
        ),
    ),
    Plan(
        "many-rooms",
        "500 rooms of 2 clients, 1 edit/s each, in both protocols",
        (_BOTH,),
        candidates=(OURS_HOCUSPOCUS,),
        beside=OURS,
        seconds=5.0,
    ),
    Plan(
        "presence",
        "Presence: 100 clients moving 10 times a second",
        (
            Goal("cpu_ms_per_1000", _CPU, 0.6, ALL_PEERS),
            Goal("p50_ms", "p50 latency, ms", 1.5),
            Goal("p99_ms", "p99 latency, ms", 1.0, (Y_WEBSOCKET,)),
        ),
    ),
    Plan(
        "presence",
        "Presence: 100 clients moving 10 times a second, in both protocols",
        (_BOTH,),
        candidates=(OURS_HOCUSPOCUS,),
        beside=OURS,
    ),
    Plan(
        "presence",
        "Presence: 100 signed-in clients moving 10 times a second",
        (_SIGNED_IN,),
        repetitions=5,
        candidates=(OURS_SIGNED_IN,),
        beside=OURS,
        serving_alone=True,
        seconds=5.0,
    ),
    Plan(
        "presence",
        "Presence: 500 clients moving 10 times a second",
        _CROWD,
        repetitions=2,
        candidates=(OURS,),
        sizes={"clients": 500},
    ),
    Plan(
        "presence",
        "Presence: 500 clients moving 10 times a second, each sending back what it gets",
        (*_CROWD, Goal("echoes_per_s", "awareness updates sent back, a second", None)),
        repetitions=2,
        candidates=(OURS,),
        sizes={"clients": 500, "echo": 1},
    ),
    Plan(
        "load",
        "100 clients in one room, from idle until saturated",
        (),
        repetitions=2,
        peer_repetitions=2,
        candidates=(OURS, Y_WEBSOCKET, Y_WEBSOCKET_BUN),
        quick={"last": 8},
    ),
    Plan(
        "flood",
        "20 people in a room, and one more in it who sends 50 times what is allowed",
        (
            Goal("calm_p50_ms", "p50 latency before, ms", None, of=OURS_SIGNED_IN),
            Goal("calm_p99_ms", "p99 latency before, ms", None, of=OURS_SIGNED_IN),
            Goal("flood_p50_ms", "p50 latency meanwhile, ms", None, of=OURS_SIGNED_IN),
            Goal("flood_p99_ms", "p99 latency meanwhile, ms", None, of=OURS_SIGNED_IN),
            Goal("flood_ratio", "p99 latency, meanwhile to before", 3.0, of=OURS_SIGNED_IN),
        ),
        repetitions=2,
        candidates=(OURS_SIGNED_IN,),
    ),
    Plan(
        "costly",
        "20 people in a room, and one writer in another whose updates are small and cost as much as can be",
        (
            Goal("calm_p50_ms", "p50 latency before, ms", None, of=OURS_SIGNED_IN),
            Goal("calm_p99_ms", "p99 latency before, ms", None, of=OURS_SIGNED_IN),
            Goal("costly_p50_ms", "p50 latency meanwhile, ms", None, of=OURS_SIGNED_IN),
            Goal("costly_p99_ms", "p99 latency meanwhile, ms", None, of=OURS_SIGNED_IN),
            Goal("costly_ratio", "p99 latency, meanwhile to before", 3.0, of=OURS_SIGNED_IN),
        ),
        repetitions=2,
        candidates=(OURS_SIGNED_IN,),
    ),
    Plan(
        "silent",
        "20 people in a room, and 100 readers who ask for 11 MB, each in other words, and read nothing",
        (
            Goal("memory_before_mib", "server memory before, MiB", None),
            Goal("memory_most_mib", "server memory, the most, MiB", None),
            Goal("memory_after_mib", "server memory after, MiB", None),
            Goal("memory_kib", "server memory for each reader, KiB", 512.0),
            Goal("calm_p50_ms", "p50 latency before, ms", None),
            Goal("calm_p99_ms", "p99 latency before, ms", None),
            Goal("silent_p50_ms", "p50 latency meanwhile, ms", None),
            Goal("silent_p99_ms", "p99 latency meanwhile, ms", None),
        ),
        repetitions=2,
        candidates=(OURS,),
        quick={"readers": 40},
    ),
    Plan(
        "asked",
        "20 people in a room, and one reader who asks for 1 MB 88 times a second, each time in other words",
        (
            Goal("memory_before_mib", "server memory before, MiB", None),
            Goal("memory_most_mib", "server memory, the most, MiB", None),
            Goal("memory_after_mib", "server memory after, MiB", None),
            Goal("memory_ratio", "server memory, the most to before", 1.15),
            Goal("calm_p50_ms", "p50 latency before, ms", None),
            Goal("calm_p99_ms", "p99 latency before, ms", None),
            Goal("asked_p50_ms", "p50 latency meanwhile, ms", None),
            Goal("asked_p99_ms", "p99 latency meanwhile, ms", None),
            Goal("asked_ratio", "p99 latency, meanwhile to before", 3.0),
        ),
        repetitions=2,
        candidates=(OURS,),
        quick={"seconds": 4},
    ),
    Plan(
        "max-one-room",
        "Highest rate with p99 under 100 ms: 1 room of 20",
        _HIGHEST,
        repetitions=2,
        peer_repetitions=1,
    ),
    Plan(
        "max-many-rooms",
        "Highest rate with p99 under 100 ms: 50 rooms of 4",
        _HIGHEST,
        repetitions=2,
        peer_repetitions=1,
    ),
    Plan(
        "idle",
        "5,000 idle connections",
        (
            Goal("memory_kib", "memory for each connection, KiB", 15.0),
            Goal("connects_per_s", "connects/s", 1.0, (Y_WEBSOCKET,), higher=True),
        ),
        repetitions=2,
        peer_repetitions=2,
        candidates=_ONE_PROTOCOL,
        quick={"connections": 2_000},
    ),
    Plan(
        "cold-join",
        "A stored document of 100,000 single-character edits, after a restart",
        (Goal("first_ms", "first client in sync, ms", 40.0), Goal("last_ms", "last of 50 at once, ms", 150.0)),
        peer_repetitions=1,
        candidates=_ONE_PROTOCOL,
        keeps=True,
        quick={"edits": 20_000},
    ),
    Plan(
        "big-join",
        "A 20 MB document, 150 clients joining at once",
        (
            Goal("server_cpu_s", "server CPU in all, s", 2.0),
            Goal("others_p50_ms", "other rooms' p50 meanwhile, ms", None),
            Goal("others_p99_ms", "other rooms' p99 meanwhile, ms", 50.0),
        ),
        peer_repetitions=1,
        candidates=_ONE_PROTOCOL,
        quick={"megabytes": 5, "clients": 50},
    ),
    Plan(
        "many-ids",
        "A document of 50,000 client IDs and 1,000,000 edits, beside a fresh one",
        (
            Goal("edit_ratio", "cost of an edit, aged to fresh", 1.25),
            Goal("join_ratio", "cost of a join, aged to fresh of the same size", 1.25),
        ),
        candidates=(OURS,),
        quick={"ids": 5_000, "edits": 100_000},
    ),
)


def _tokens(users: int) -> list[str]:
    """Make a token for each of so many people, good for a day."""
    key = OctKey.import_key(SECRET)
    claims = {"documents": {"*": "write"}, "exp": int(time.time()) + 86_400}
    return [
        jwt.encode({"alg": "HS256"}, {"sub": f"u-{number}", "name": f"Person {number}", **claims}, key)
        for number in range(users)
    ]
