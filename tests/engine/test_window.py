"""How long rooms wait between turns, with loads and times that exist only here."""

from __future__ import annotations

import pytest

from collab.engine.window import Window

FULL = 0.004


def node(load: float, sending: float = 0.0) -> Window:
    """Make the window of a node that has worked so much for a long time, part of it on sending."""
    window = Window(FULL)
    for second in range(10):
        window.measure(float(second), load * second, sending * second)
    return window


@pytest.mark.parametrize(
    ("members", "share"), [(0, 0.0), (1, 0.05), (5, 0.25), (20, 1.0), (40, 1.2), (100, 1.5), (150, 1.5)]
)
def test_the_window_grows_with_the_members(members: int, share: float) -> None:
    assert node(1.0).of(members) == pytest.approx(FULL * share)


@pytest.mark.parametrize(
    ("load", "share"), [(0.0, 0.0), (0.075, 0.1), (0.25, 1 / 3), (0.375, 0.5), (0.75, 1.0), (1.0, 1.0)]
)
@pytest.mark.parametrize("members", [2, 20, 100])
def test_the_window_grows_with_the_load_of_the_node(load: float, share: float, members: int) -> None:
    assert node(load).of(members) == pytest.approx(node(1.0).of(members) * share)


def test_a_node_that_has_measured_nothing_yet_does_not_wait() -> None:
    window = Window(FULL)
    assert window.of(100) == 0.0 and window.measure_at < 0
    window.measure(1000.0, 500.0, 300.0)
    assert window.of(100) == 0.0, "what was before the first look says nothing"


def test_a_load_counts_in_full_after_a_quarter_of_a_second_and_is_forgotten_as_fast() -> None:
    window = Window(FULL)
    window.measure(0.0, 0.0, 0.0)
    window.measure(0.05, 0.05, 0.0)
    assert window.load == pytest.approx(0.2), "a burst alone is not a busy node"
    assert window.measure_at == pytest.approx(0.1)
    window.measure(0.30, 0.30, 0.0)
    assert window.load == pytest.approx(1.0)
    window.measure(60.0, 0.31, 0.0)
    assert window.load < 0.01, "after a minute of quiet the first edits wait for nothing"
    window.measure(60.0, 0.31, 0.0)
    assert window.load < 0.01, "no time between two looks is no load"


def test_time_spent_on_sending_counts_though_another_process_had_the_core() -> None:
    window = Window(FULL)
    for second in range(10):
        window.measure(float(second), 0.1 * second, 0.35 * second)
    assert window.load == pytest.approx(0.35)


def test_no_measurement_makes_a_node_more_than_busy() -> None:
    assert node(3.0).load == 1.0


def test_windows_stretch_while_ending_turns_takes_most_of_the_time() -> None:
    window = Window(0.02)
    window.measure(0.0, 0.0, 0.0)
    window.measure(1.0, 1.0, 0.4)
    assert window.of(2) == pytest.approx(0.002), "not yet"
    window.measure(2.0, 2.0, 0.9)
    assert window.of(2) == pytest.approx(0.004)
    window.measure(3.0, 3.0, 1.2)
    assert window.of(2) == pytest.approx(0.004), "neither most of the time nor little of it: as it is"
    for second in range(4, 20):
        window.measure(float(second), float(second), second - 3.0)
    assert window.of(2) == pytest.approx(0.025), "no longer than this"
    assert window.of(100) == pytest.approx(0.03), "and the room's own window is never cut"
    for second in range(20, 40):
        window.measure(float(second), float(second), 16.0)
    assert window.of(2) == pytest.approx(0.002)


# Seconds of the loop for one frame to one socket, and for one message that comes in.
SEND, RECEIVE = 6e-6, 60e-6


def settle(members: int, rate: float) -> list[float]:
    """Let a room type ``rate`` times a second for three seconds; give its windows of the last one."""
    window = Window(FULL)
    now = worked = ending = 0.0
    windows = []
    window.measure(now, worked, ending)
    while now < 3.0:
        # Edits come at random: the first one after the window ends the turn.
        turns = 0.05 / (window.of(members) + 1 / rate)
        now += 0.05
        ending += turns * members * SEND
        worked += turns * members * SEND + 0.05 * rate * RECEIVE
        window.measure(now, worked, ending)
        windows.append(window.of(members))
    return windows[-20:]


@pytest.mark.parametrize(
    ("members", "rate", "least", "most"),
    [
        (20, 10.0, 0.0, 0.0005),  # people who talk: at once
        (100, 50.0, 0.0, 0.0005),  # one writer and many readers
        (100, 500.0, 0.001, 0.0025),  # a hundred who type
        (100, 1_000.0, 0.0015, 0.003),  # a hundred who move
        (100, 20_000.0, 0.006, 0.025),  # more than the node can do
    ],
)
def test_load_and_window_settle_though_each_changes_the_other(
    members: int, rate: float, least: float, most: float
) -> None:
    windows = settle(members, rate)
    assert least <= min(windows) and max(windows) <= most
    assert max(windows) - min(windows) <= 0.02 * max(windows), "they do not swing"


def test_the_window_never_grows_when_less_is_sent() -> None:
    settled = [settle(100, rate)[-1] for rate in (10, 50, 200, 500, 1_000, 5_000, 20_000)]
    assert settled == sorted(settled)
