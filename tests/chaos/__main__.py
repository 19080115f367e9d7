"""Trouble at random, in a cluster of three nodes, for some minutes.

    python -m tests.chaos --bus postgresql|redis --minutes 30 [--seed N]

Each round is a line. The command ends with 1 if anything was lost, or was not well again in time. The seed gives the
faults, their order, and how long they last, not how the processes run: the same seed may take another course.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.campaign import Campaign
from tests.chaos.cluster import BUSES, Bus, Cluster
from tests.chaos.faults import Fault

# How probable it is that messages of the bus are harmed as well, while something else happens.
ALSO = 0.3


def until(deadline: float, rounds: Iterator[tuple[Fault, float]]) -> Iterator[tuple[Fault, float]]:
    """Give rounds until the time has come; the last ones are not longer than they have to be."""
    while (left := deadline - time.monotonic()) > 0:
        fault, seconds = next(rounds)
        yield fault, min(seconds, max(left, fault.seconds[0]))


def say(line: str) -> None:
    print(line, flush=True)


async def run(bus: Bus, seed: int, minutes: float) -> int:
    say(f"bus {bus}, seed {seed}, {minutes:g} minutes")
    with tempfile.TemporaryDirectory(prefix="collab-chaos-") as directory:
        campaign = None
        try:
            async with Cluster(Path(directory), bus, seed=seed) as cluster:
                campaign = Campaign(cluster, seed, say, also=ALSO)
                count = await campaign.run(until(time.monotonic() + 60 * minutes, campaign.choose()))
        except AssertionError as error:
            say("\n".join((f"the campaign cannot go on: {error}", *getattr(error, "__notes__", ()))))
            if campaign is not None:
                say(f"bus {bus}, seed {seed}: {campaign.count}")
            return 1
    for line in count.table():
        say(line)
    for fault in count.faults:
        say(f"fault: {fault}")
    say(f"bus {bus}, seed {seed}: {count}")
    return 1 if count.lost or count.faults else 0


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--bus", choices=BUSES, action="append", help="one or both; the time is shared then")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    buses: Sequence[Bus] = chosen.bus or BUSES
    return max([asyncio.run(run(bus, chosen.seed, chosen.minutes / len(buses))) for bus in buses])


if __name__ == "__main__":
    sys.exit(main())
