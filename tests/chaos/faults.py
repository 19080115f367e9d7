"""What can happen to a cluster, as data: how it begins, how it ends, and how long the cluster may need then.

Strategy: a fault takes the cluster, the node that is chosen for it, and a seeded random source; those that concern
all take no notice of the node. The same table serves the suite, which goes through it, and the campaign, which
chooses.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from tests.chaos.cluster import BUSES, Bus, Cluster, Node
from tests.chaos.messages import HARMS, Harm

Act = Callable[[Cluster, Node, Random], Awaitable[None]]


@dataclass(frozen=True)
class Fault:
    """One kind of trouble.

    Attributes:
        name: as it is shown.
        begin, end: what is done.
        seconds: how long it lasts, at least and at most; the suite takes the shortest time.
        converged: seconds after its end in which all clients are equal; several times what it takes on an idle machine.
        complete: seconds after its end in which everybody sees exactly those who are there.
        buses: on which it makes sense.
        stores: whether PostgreSQL can be read before it ends, and has all that was acknowledged.
        saves: acknowledgements to wait for between the beginning and the end.
    """

    name: str
    begin: Act
    end: Act
    seconds: tuple[float, float] = (1.0, 15.0)
    converged: float = 20.0
    complete: float = 30.0
    buses: tuple[Bus, ...] = BUSES
    stores: bool = True
    saves: int = 0


async def nothing(cluster: Cluster, node: Node, random: Random) -> None:
    """Do nothing."""


async def kill_node(cluster: Cluster, node: Node, random: Random) -> None:
    await node.server.akill()


async def start_node(cluster: Cluster, node: Node, random: Random) -> None:
    await node.server.astart()


async def freeze_node(cluster: Cluster, node: Node, random: Random) -> None:
    node.freeze()


async def thaw_node(cluster: Cluster, node: Node, random: Random) -> None:
    node.thaw()


async def kill_valkey(cluster: Cluster, node: Node, random: Random) -> None:
    assert cluster.valkey is not None
    await asyncio.to_thread(cluster.valkey.kill)


async def start_valkey(cluster: Cluster, node: Node, random: Random) -> None:
    assert cluster.valkey is not None
    await asyncio.to_thread(cluster.valkey.start)


async def restart_valkey(cluster: Cluster, node: Node, random: Random) -> None:
    await kill_valkey(cluster, node, random)
    await start_valkey(cluster, node, random)


def signal_valkey(number: signal.Signals) -> Act:
    async def act(cluster: Cluster, node: Node, random: Random) -> None:
        assert cluster.valkey is not None
        os.kill(cluster.valkey.pid, number)

    return act


async def stop_postgres(cluster: Cluster, node: Node, random: Random) -> None:
    await asyncio.to_thread(cluster.postgres.stop)


async def kill_postgres(cluster: Cluster, node: Node, random: Random) -> None:
    await asyncio.to_thread(cluster.postgres.kill)


async def start_postgres(cluster: Cluster, node: Node, random: Random) -> None:
    await asyncio.to_thread(cluster.postgres.start)


async def cut_sessions(cluster: Cluster, node: Node, random: Random) -> None:
    statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    await asyncio.to_thread(cluster.sql, statement + " AND backend_type = 'client backend'")


async def take_copy(cluster: Cluster, node: Node, random: Random) -> None:
    await asyncio.to_thread(cluster.take_copy)


async def fail_over(cluster: Cluster, node: Node, random: Random) -> None:
    await asyncio.to_thread(cluster.fail_over)


def cut_off(*, store: bool, bus: bool, silent: bool) -> Act:
    """Let nothing pass on a node's lines: silently, or by ending and refusing connections."""

    async def act(cluster: Cluster, node: Node, random: Random) -> None:
        for line in [node.store] * store + [node.bus] * bus:
            line.closed = not silent
            if silent:
                line.down = line.up = 0
            else:
                line.cut()

    return act


async def let_pass(cluster: Cluster, node: Node, random: Random) -> None:
    for line in (node.store, node.bus):
        line.closed = False
        line.down = line.up = None


def harm_messages(*harms: Harm) -> Act:
    async def act(cluster: Cluster, node: Node, random: Random) -> None:
        for one in cluster.nodes:
            one.bus.harm = {harm: 0.3 / len(harms) for harm in harms}

    return act


async def leave_messages(cluster: Cluster, node: Node, random: Random) -> None:
    for one in cluster.nodes:
        one.bus.harm = {}


REDIS: tuple[Bus, ...] = ("redis",)

SILENT = (2.5, 15.0)
"""Long enough to be noticed, and shorter than the time after which a node is taken for gone, or longer."""

NOTHING = Fault("nothing happens", nothing, nothing)
"""What the others are compared with."""

EVERY_HARM = Fault("messages of the bus: every harm", harm_messages(*HARMS), leave_messages)
"""The one that may come together with another one."""

FAULTS: tuple[Fault, ...] = (
    NOTHING,
    Fault("a node is killed", kill_node, start_node),
    # Longer than the time after which it is taken for gone.
    Fault("a node stands still", freeze_node, thaw_node, (9.0, 30.0)),
    Fault("Valkey is killed, and comes back empty", kill_valkey, start_valkey, buses=REDIS),
    Fault("Valkey is restarted at once", nothing, restart_valkey, (0.0, 1.0), buses=REDIS),
    Fault(
        "Valkey stands still", signal_valkey(signal.SIGSTOP), signal_valkey(signal.SIGCONT), (4.0, 15.0), buses=REDIS
    ),
    Fault("PostgreSQL is restarted", stop_postgres, start_postgres, (1.0, 10.0), stores=False),
    Fault("PostgreSQL is killed", kill_postgres, start_postgres, (1.0, 10.0), stores=False),
    Fault("the connections to PostgreSQL are cut", nothing, cut_sessions, (0.0, 1.0)),
    Fault("PostgreSQL fails over to a copy that lacks rows", take_copy, fail_over, (0.5, 4.0), saves=5),
    Fault("a node is cut off from the bus, silently", cut_off(store=False, bus=True, silent=True), let_pass, SILENT),
    Fault("a node is refused by the bus", cut_off(store=False, bus=True, silent=False), let_pass),
    Fault("a node is cut off from the store, silently", cut_off(store=True, bus=False, silent=True), let_pass, SILENT),
    Fault("a node is refused by the store", cut_off(store=True, bus=False, silent=False), let_pass),
    Fault("a node is cut off from both, silently", cut_off(store=True, bus=True, silent=True), let_pass, (3.0, 30.0)),
    Fault("a node is refused by both", cut_off(store=True, bus=True, silent=False), let_pass),
    *(Fault(f"messages of the bus: {harm}", harm_messages(harm), leave_messages) for harm in HARMS),
    EVERY_HARM,
)
