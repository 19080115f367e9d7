"""What all tests share: the event loop that serves in production, and the real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

from tests.support.postgres import (  # noqa: F401
    empty_postgres_url,
    postgres_server,
    postgres_url,
    private_postgres,
)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """Run asynchronous tests on uvloop, as the server does."""
    return {"uvloop": uvloop.new_event_loop}
