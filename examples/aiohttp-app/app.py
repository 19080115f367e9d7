"""Notes of teams: an aiohttp application with sessions of its own, and the server as a part of it.

    python app.py

A note's name begins with its team, as in ``red/plan``. Members of the team write it; nobody else sees it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from aiohttp import web

from collab.app import create_app
from collab.auth.access import AccessRequest, Grant
from collab.errors import Forbidden, Unauthenticated
from collab.net import Peer
from collab.protocol.session import Access
from collab.settings import Settings

PEOPLE = {"ada": ("Ada", "red"), "bob": ("Bob", "red"), "cy": ("Cy", "blue")}
"""Stands for the application's database: names and teams by user."""

COOKIE = "session"


class Sessions:
    """The application's sessions, and what they allow: the server asks it about each client."""

    cookies = frozenset({COOKIE})

    def __init__(self) -> None:
        self._users: dict[str, str] = {}

    def trusts(self, origin: str, client: Peer) -> bool:
        """Trust no pages but our own, whose origin is the address of the server itself."""
        return False

    def begin(self, user: str) -> str:
        """Begin a session; give the value of its cookie."""
        key = secrets.token_urlsafe()
        self._users[key] = user
        return key

    async def authenticate(self, request: AccessRequest) -> Grant:
        """Say what a client may do with a note."""
        browser = None if request.client is None else request.client.browser
        user = self._users.get(dict(browser.cookies).get(COOKIE, "")) if browser is not None else None
        if user is None:
            raise Unauthenticated("no session", public="sign in first")
        name, team = PEOPLE[user]
        if request.document_name.partition("/")[0] != team:
            raise Forbidden(f"{user} is not of that team", public="this is another team's note")
        return Grant(Access.WRITE, user, name)


sessions = Sessions()
routes = web.RouteTableDef()


@routes.post("/sign-in")
async def sign_in(request: web.Request) -> web.Response:
    """Sign a user in; a real application asks for a password."""
    user = str((await request.post()).get("user"))
    if user not in PEOPLE:
        raise web.HTTPUnauthorized(text="nobody of that name")
    response = web.json_response({"user": user})
    response.set_cookie(COOKIE, sessions.begin(user), httponly=True, samesite="Lax")
    return response


def make_app() -> web.Application:
    """Put the two together."""
    app = web.Application()
    app.add_routes(routes)
    app.add_subapp("/collab", create_app(Settings(data_dir=Path(os.environ.get("DATA_DIR", "data"))), sessions))
    return app


if __name__ == "__main__":
    # No access log: it would hold the tokens that clients show in addresses.
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")), access_log=None)
