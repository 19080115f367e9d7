"""What the tests of several buses share."""

from __future__ import annotations

import pytest

from collab.cluster import network


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bus connect again after a short while."""
    monkeypatch.setattr(network, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(network, "LONGEST_PAUSE", 0.1)
