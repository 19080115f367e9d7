"""For applications on Starlette or FastAPI: their own function decides on access, one line mounts the server.

    collab = create_app(Settings(data_dir="data"), authorize)
    mount(app, "/collab", collab)

Strategy: the function is given the client's connection as a route of the application would be, so it may ask the
session, cookies, headers and the database. Pages of other origins are refused before it is asked, so a cookie is never
used by somebody else's page.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from collab.asgi import Collab
from collab.asgi import create_app as create_asgi_app
from collab.auth.access import AccessRequest, Grant
from collab.cluster.bus import Bus
from collab.errors import AccessUnavailable, ConfigurationError, Forbidden, Unauthenticated
from collab.hooks import Hooks
from collab.protocol.session import Access
from collab.settings import Settings
from collab.storage.store import Store

__all__ = ["Authorize", "create_app", "lifespan", "mount"]

Decision = Grant | Access | Literal["read", "write", "admin"] | None

Authorize = Callable[[HTTPConnection, str], Decision | Awaitable[Decision]]
"""Decides what a client may do with a document: ``"read"``, ``"write"``, ``"admin"``, a ``Grant`` that also says who it
is and until when, or None for nothing. Async, or a plain function, which runs in a thread. It may raise Starlette's
``HTTPException``: 401 asks for another token, 403 and 404 refuse for good, anything else asks to come back."""


def create_app(
    settings: Settings,
    authorize: Authorize,
    *,
    hooks: Sequence[Hooks] = (),
    store: Store | None = None,
    bus: Bus | None = None,
) -> Collab:
    """Build the server as an ASGI application whose access the application's own function decides.

    Args:
        settings: every option; ``allowed_origins`` names pages of other origins that may come with cookies.
        authorize: see `Authorize`. It is asked when a client opens a document, with each request, and again when an
            operator says so (``collab check-access``). What the client itself has shown as a token, if anything, is in
            ``connection.state.collab_token``.
        hooks, store, bus: as in `collab.asgi.create_app`.

    Raises:
        ConfigurationError: something in the settings cannot be used.
    """
    if "*" in settings.allowed_origins:
        raise ConfigurationError(
            "--allowed-origins * would let every page use the cookies of your users: name the origins of your pages"
        )
    return create_asgi_app(settings, _Authenticator(authorize), hooks=hooks, store=store, bus=bus)


class _Authenticator:
    """Asks an application's function."""

    reads_scope = True

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize
        self._is_async = any(
            inspect.iscoroutinefunction(one)
            for one in (authorize, getattr(authorize, "__call__", None))  # noqa: B004
        )

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what the client may do."""
        scope = None if request.client is None else request.client.scope
        if scope is None:
            raise AccessUnavailable("there is no connection to ask about")
        connection = HTTPConnection(_own(scope))
        connection.state.collab_token = request.token
        try:
            if self._is_async:
                decision = await cast(Awaitable[Decision], self._authorize(connection, request.document_name))
            else:
                decision = cast(Decision, await run_in_threadpool(self._authorize, connection, request.document_name))
        except HTTPException as error:
            raise _refused(error) from None
        if decision is None:
            raise Forbidden("the application does not allow it")
        return decision if isinstance(decision, Grant) else Grant(Access(decision))


def _own(scope: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a scope so that what is noted in it stays with one question."""
    return {**scope, "state": dict(scope.get("state") or {})}


def _refused(error: HTTPException) -> Unauthenticated | Forbidden | AccessUnavailable:
    text = f"the application answers {error.status_code}"
    if error.status_code == 401:
        return Unauthenticated(text, public=str(error.detail))
    if error.status_code in (403, 404):
        return Forbidden(text, public=str(error.detail))
    return AccessUnavailable(text)


def mount(app: Starlette, path: str, collab: Collab) -> None:
    """Mount ``collab`` below ``path``, and start and stop it with ``app``, which tells mounted applications nothing.

    Call it before ``app`` is served. A lifespan that ``app`` has stays, and begins after this one and ends before it.
    """
    app.mount(path, collab)
    app.router.lifespan_context = lifespan(collab, app.router.lifespan_context)


def lifespan(collab: Collab, inner: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Give a lifespan for ``Starlette(lifespan=...)`` within which ``collab`` serves, and ``inner`` if there is one."""

    @asynccontextmanager
    async def within(app: Any) -> AsyncIterator[Any]:
        async with collab.lifespan():
            if inner is None:
                yield
            else:
                async with inner(app) as state:
                    yield state

    return within
