"""What all tests share: markers, sizes, the event loop that serves in production, and the real PostgreSQL."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from collab.telemetry import get_logger
from tests.support import needs, scratch
from tests.support.loop import TimedLoop
from tests.support.pgbouncer import pgbouncer, pooled_url  # noqa: F401
from tests.support.postgres import (  # noqa: F401
    empty_postgres_url,
    postgres_server,
    postgres_url,
    private_postgres,
)
from tests.support.stores import backend, database, open_another, store  # noqa: F401
from tests.support.valkey import valkey, valkey_cluster, valkey_sentinel  # noqa: F401

_TESTS = Path(__file__).parent


LONG_VALUE = 100
"""Characters or bytes of a parameter past which it does not stand in the name of its test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--small", action="store_true", help="take the small number of examples, seeds and rounds")


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(_TESTS).parts[0]


def pytest_configure(config: pytest.Config) -> None:
    scratch.choose()
    config.addinivalue_line("markers", f"{needs.FAST}: has none of the needs below (set by itself)")
    for name, meaning in needs.NEEDS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    small = bool(config.getoption("--small"))
    needs.choose_small(small)
    # No deadline: a busy machine is no defect. Work that must stay bounded is counted in lines, not in seconds.
    hypothesis.settings.register_profile("large", deadline=None)
    # The same examples each time, so that coverage and mutants do not depend on luck.
    hypothesis.settings.register_profile("small", deadline=None, max_examples=25, derandomize=True)
    hypothesis.settings.load_profile("small" if small else "large")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Number long values: one that is made with a random key has another name in each process of a run."""
    return argname if isinstance(val, (str, bytes)) and len(val) > LONG_VALUE else None


# Before pytest's own choice by -m and -k.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with what it needs."""
    for item in items:
        call = getattr(item, "callspec", None)
        found = needs.needs_of(_folder(item), getattr(item, "fixturenames", ()), call.params.values() if call else ())
        for need in sorted(found):
            item.add_marker(need)
        if needs.function_of(item.nodeid) in needs.long_tests():
            item.add_marker(needs.LONG)
        if not any(item.get_closest_marker(need) for need in needs.NEEDS):
            item.add_marker(needs.FAST)
        if any(item.get_closest_marker(need) for need in ("browser", "node")):
            # CONTRIBUTING.md, "Tests with programs of others"
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Take what is collected out of the sight of the garbage collector.

    Twelve thousand tests and their modules stay to the end, and each full collection would look at all their objects.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let the helpers know what the running test has said that it needs."""
    needs.hold(frozenset(need for need in needs.NEEDS if item.get_closest_marker(need)))
    try:
        return (yield)
    finally:
        needs.hold(None)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    """Run asynchronous tests on uvloop, as the server does."""
    return {"uvloop": TimedLoop}


@pytest.fixture(autouse=True)
def own_loggers() -> Iterator[None]:
    """Put the loggers back: a command that was run here chooses a level, for all the tests that follow."""
    loggers = (logging.getLogger(), get_logger())
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
