"""The token bucket, with a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collab.transports.limits import TokenBucket


def test_a_burst_is_free_and_what_follows_is_paid_by_waiting() -> None:
    bucket = TokenBucket(rate=10.0, burst=3.0, now=100.0)
    assert [bucket.take(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert bucket.take(100.0) == pytest.approx(0.1)
    assert bucket.take(100.0) == pytest.approx(0.2)
    assert bucket.take(100.31) == 0.0, "the debt is paid and one token is there"
    assert bucket.take(1_000.0) == 0.0 == bucket.take(1_000.0) == bucket.take(1_000.0)
    assert bucket.take(1_000.0) > 0, "no more than a burst is ever saved"


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=60))
def test_who_waits_as_told_never_passes_the_rate(pauses: list[float]) -> None:
    now = 0.0
    bucket = TokenBucket(rate=5.0, burst=5.0, now=now)
    for taken, pause in enumerate(pauses, 1):
        now += pause
        now += bucket.take(now)
        assert taken <= 5.0 * now + 5.0 + 1e-6
