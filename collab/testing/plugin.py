"""A pytest plugin: a server for the tests of applications that use one (docs/testing.md).

Strategy: pytest loads this module in every run of an environment that has the package, so it imports nothing of the
server before a test asks for it. The server runs in a thread of its own, so its fixtures are plain functions: they
work in synchronous tests, under pytest-asyncio in both of its modes, and under anyio.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from aiohttp import web

    from collab.auth.access import Authenticator
    from collab.auth.hook import Hook
    from collab.hooks import Hooks
    from collab.settings import Settings
    from collab.testing.clients import Connect
    from collab.testing.server import CollabServer

_INI = "collab_settings"
_MARKER = "collab"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the ini file hold options of the server."""
    parser.addini(_INI, "options of the servers of collab_server and collab_app: lines NAME = VALUE", "linelist")


def pytest_configure(config: pytest.Config) -> None:
    """Tell of the marker."""
    config.addinivalue_line(
        "markers", f"{_MARKER}(**options): options of the server of collab_server and collab_app, as of collab.Settings"
    )


@pytest.fixture
def collab_settings(request: pytest.FixtureRequest) -> Settings:
    """The options of the server: those of the marker ``collab``, else of the ini file, else what suits a test.

    A test that asks for ``collab_token`` gets a server that checks tokens. Override this fixture to say more.
    """
    from collab.errors import ConfigurationError
    from collab.testing.server import make_settings

    options = _options_of(request)
    if "collab_token" in request.fixturenames:
        options.setdefault("jwt_secret", secrets.token_urlsafe(32))
    try:
        return make_settings(options)
    except ConfigurationError as error:
        raise pytest.UsageError(f"the marker {_MARKER} or the ini option {_INI}: {error}") from None


@pytest.fixture
def collab_authenticator() -> Authenticator | Hook | None:
    """What decides who may do what, instead of tokens; override this fixture to give one."""
    return None


@pytest.fixture
def collab_hooks() -> tuple[Hooks, ...]:
    """Python hooks (docs/hooks.md); override this fixture to give some."""
    return ()


@pytest.fixture
def collab_server(
    collab_settings: Settings, collab_authenticator: Authenticator | Hook | None, collab_hooks: tuple[Hooks, ...]
) -> Iterator[CollabServer]:
    """A server on a free port of this machine, with no documents; it ends with the test."""
    from collab.testing.server import CollabServer

    with CollabServer(collab_settings, collab_authenticator, hooks=collab_hooks) as server:
        yield server


@pytest.fixture
def collab_app(
    collab_settings: Settings, collab_authenticator: Authenticator | Hook | None, collab_hooks: tuple[Hooks, ...]
) -> web.Application:
    """The aiohttp application, to be mounted or served by the test, with no documents."""
    from collab.testing.server import make_app

    return make_app(collab_settings, collab_authenticator, hooks=collab_hooks)


@pytest.fixture
def collab_client(collab_server: CollabServer, request: pytest.FixtureRequest) -> Connect:
    """A function that opens a document of ``collab_server`` by ``collab.client``.

    It is ``collab.client.connect`` without the address. In a synchronous test, ``collab_client.sync`` is
    ``collab.client.sync.connect``. A test that asks for ``collab_token`` too is let in by a token that may write all
    documents, unless it gives one.
    """
    from collab.testing.clients import Connect

    token = collab_server.token() if "collab_token" in request.fixturenames else None
    return Connect(collab_server.hocuspocus_url, token)


@pytest.fixture
def collab_token(collab_settings: Settings) -> Callable[..., str]:
    """A function that makes tokens for the server of this test, which then lets in nobody without one.

    ``collab_token("ada")`` may write all documents, ``collab_token("bob", {"notes": "read"}, name="Bob")`` reads one.
    """
    from collab.testing.server import make_token

    return partial(make_token, collab_settings)


def _options_of(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Read the ini file and the markers: that which is nearest to the test wins."""
    options: dict[str, Any] = {}
    for line in request.config.getini(_INI):
        name, equals, value = line.partition("=")
        if not equals:
            raise pytest.UsageError(f"the ini option {_INI} has lines NAME = VALUE, and not {line!r}")
        options[name.strip()] = value.strip()
    for marker in reversed(list(request.node.iter_markers(_MARKER))):
        if marker.args:
            raise pytest.UsageError(f"the marker {_MARKER} takes options by name, as in {_MARKER}(stateless='off')")
        options.update(marker.kwargs)
    return options
