"""What the tests of the client share: the whole application on a real port."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collab.client import Backoff, Connection
from tests.transports.conftest import below, serve  # noqa: F401

Dial = Callable[..., Connection]


@pytest.fixture
def dial() -> Dial:
    """Give a function that makes a connection which comes back quickly."""

    def make(url: str, **options: object) -> Connection:
        return Connection(url, backoff=Backoff(first=0.02, last=0.2), **options)  # type: ignore[arg-type]

    return make
