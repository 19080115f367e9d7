"""The bus of one process: it passes the suite, and what its nodes cannot take is dropped and counted."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collab.cluster.bus import BusMessage
from collab.cluster.local import MAX_WAITING, LocalBus, LocalExchange
from collab.errors import CollabError
from collab.testing.bus import BusConformance, Cluster, Listener, MakeBus
from tests.cluster.broken import BROKEN
from tests.support.snippets import snippet

ROOT = Path(__file__).resolve().parents[2]


class TestLocal(BusConformance):
    @pytest.fixture
    def make_bus(self) -> MakeBus:
        exchange = LocalExchange()
        return lambda: LocalBus(exchange)


# What is of this bus alone


def listen(bus: LocalBus) -> Listener:
    return Listener(bus, BusConformance.PATIENCE, [])


async def test_a_bus_without_an_exchange_stays_alone() -> None:
    one, two = listen(LocalBus()), listen(LocalBus())
    for node in (one, two):
        await node.start()
        node.subscribe("t")
    assert one.bus.others == two.bus.others == 0
    assert not one.bus.wanted("t") and not one.bus.steady
    one.publish("t", b"x")
    await one.close()
    await asyncio.sleep(0.01)
    assert one.heard == two.heard == one.met == two.met == []
    await two.close()


async def test_messages_are_handed_over_in_a_later_turn_of_the_loop() -> None:
    exchange = LocalExchange()
    one, two = listen(LocalBus(exchange)), listen(LocalBus(exchange))
    await one.start()
    await two.start()
    two.subscribe("t")
    one.publish("t", b"x")
    assert two.heard == []
    await asyncio.sleep(0)
    assert two.heard == [BusMessage("t", one.bus.node, b"x")]
    await one.close()
    await two.close()


async def test_what_is_too_much_for_a_node_is_dropped_counted_and_logged_at_a_bounded_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = LocalExchange()
    buses = [LocalBus(exchange) for _ in range(3)]
    one, two, three = [await listen(bus).start() for bus in buses]
    two.subscribe("t")
    with caplog.at_level(logging.WARNING, "collab.bus"):
        for number in range(MAX_WAITING + 1_000):
            one.publish("t", b"%d" % number)
    assert [bus.counts.dropped for bus in buses] == [0, 1_000, 0]
    assert 1 <= len(caplog.records) <= 10
    await one.close()
    assert two.lost == 0
    await asyncio.sleep(0)
    assert two.payloads() == [b"%d" % number for number in range(MAX_WAITING)]
    assert two.lost == 1, "it is told that it has missed something"
    assert two.all_gone() == [one.bus.node], "the end of a node is never dropped"
    three.publish("t", b"on")
    await asyncio.sleep(0)
    assert two.payloads()[-1] == b"on" and buses[1].counts.dropped == 1_000 and two.lost == 1
    await two.close()
    await three.close()


async def test_a_node_that_closes_from_within_a_callback_is_called_no_more() -> None:
    exchange = LocalExchange()
    one, two = [await listen(LocalBus(exchange)).start() for _ in range(2)]
    closing: list[BusMessage] = []

    def close(message: BusMessage) -> None:
        closing.append(message)
        # A close that runs to its end at once, as this bus's does.
        with pytest.raises(StopIteration):
            two.bus.close().send(None)

    two.answering = close
    two.subscribe("t")
    for _ in range(3):
        one.publish("t", b"x")
    await asyncio.sleep(0.01)
    assert len(two.heard) == len(closing) == 1
    await one.close()


# The suite finds what it is there to find.

TESTS = {name: test for name, test in inspect.getmembers(BusConformance) if name.startswith("test_")}


class Impatient(BusConformance):
    """The suite for a bus of one process, on which everything comes at once or never."""

    PATIENCE = 0.5
    QUIET = 0.02


async def run(test: str, bus: type[LocalBus], patience: float) -> None:
    """Run one test of the suite on a bus."""
    exchange = LocalExchange()
    async with Cluster(lambda: bus(exchange), patience) as cluster:
        await TESTS[test](Impatient(), cluster)


@pytest.mark.parametrize(
    ("bus", "test"), [pytest.param(bus, test, id=f"{bus.__name__}-{test}") for bus, test in BROKEN]
)
@pytest.mark.slow
async def test_broken_bus_fails(bus: type[LocalBus], test: str) -> None:
    # Not just any exception: a mistake in the broken bus itself shows as another one.
    with pytest.raises((AssertionError, TimeoutError, CollabError)):
        await run(test, bus, Impatient.PATIENCE)


@pytest.mark.parametrize("test", TESTS)
async def test_every_test_can_fail_and_does_not_without_a_mistake(test: str) -> None:
    assert test in {found for _, found in BROKEN}
    await run(test, LocalBus, BusConformance.PATIENCE)


# As the author of an adapter runs it: another directory, no configuration, the plugin's strict mode.

MY_BUS = """
from collab.cluster.local import LocalBus, LocalExchange

exchanges = {}

class MyBus(LocalBus):
    def __init__(self, url):
        super().__init__(exchanges.setdefault(url, LocalExchange()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["", "    others = 0\n"])
def test_an_author_runs_the_suite_as_the_guide_says(tmp_path: Path, mistake: str) -> None:
    example = snippet("docs/adapters.md", "Running the suite", "python", 2)
    (tmp_path / "test_my_bus.py").write_text(example, encoding="utf-8")
    (tmp_path / "my_bus.py").write_text(MY_BUS + mistake, encoding="utf-8")
    # Patience is what a mistake costs.
    impatient = "from collab.testing.bus import BusConformance\nBusConformance.PATIENCE = 1\n"
    (tmp_path / "conftest.py").write_text(impatient)
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == bool(mistake), done.stdout + done.stderr
    if mistake:
        assert "FAILED test_my_bus.py::TestMyBus::test_a_node_knows_how_many_others_there_are" in done.stdout
        assert "AssertionError: 1 others: not within 1 s; heard []" in done.stdout
    else:
        assert f"{len(TESTS)} passed" in done.stdout
