"""The books of a run: what was sent when, and how long each delivery took."""

from __future__ import annotations

import pytest

from collab.bench.ledger import Arrival, Ledger


def test_send_times_of_a_range_are_gathered_by_moment() -> None:
    ledger = Ledger()
    ledger.sent_at[7] = [1.0, 1.0, 1.5, 2.0]
    ledger.sent_at[8] = [1.5]
    assert dict(ledger.moments([(7, 0, 3), (8, 0, 1)])) == {1.0: 2, 1.5: 2}


def test_what_another_generator_sent_has_no_send_time() -> None:
    assert Ledger().moments([(7, 0, 3)]) == ()


def test_latencies_are_those_of_the_deliveries() -> None:
    ledger = Ledger()
    ledger.record(((10.0, 98), (9.990, 1)), 10.001)
    ledger.record(((9.0, 1),), 10.0)
    figures = ledger.latencies()
    assert figures["p50_ms"] == pytest.approx(1.0, abs=0.06)
    assert figures["p99_ms"] == pytest.approx(11.0, abs=0.06)
    assert figures["max_ms"] == pytest.approx(1000.0, abs=0.06)


def test_without_deliveries_there_are_no_latencies() -> None:
    assert set(Ledger().latencies().values()) == {None}


def test_remembered_frames_are_bounded() -> None:
    ledger = Ledger()
    for number in range(100_000):
        ledger.remember(number.to_bytes(4), Arrival(False, ((1, number, number + 1),), (), 1))
    assert 0 < len(ledger.arrivals) <= 1 << 14
    assert (99_999).to_bytes(4) in ledger.arrivals
