"""Notes of teams: a FastAPI application with sessions of its own, and the server mounted in it.

    uvicorn app:app

A note's name begins with its team, as in ``red/plan``. Members of the team write; everybody else who is signed in
reads notes whose name says that they are public, as in ``red/public/roadmap``.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from collab.auth.access import Grant
from collab.contrib.starlette import create_app, mount
from collab.protocol.session import Access
from collab.settings import Settings

PEOPLE = {"ada": ("Ada", "red"), "bob": ("Bob", "red"), "cy": ("Cy", "blue")}
"""Stands for the application's database: names and teams by user."""

app = FastAPI()
# Several processes need the same key, and so does the same process tomorrow.
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SECRET_KEY") or secrets.token_hex())


@app.get("/")
async def home() -> FileResponse:
    """Give the page: who is signed in, and where the editor connects."""
    return FileResponse(Path(__file__).with_name("index.html"))


@app.post("/sign-in")
async def sign_in(request: Request, user: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    """Sign a user in; a real application asks for a password."""
    if user not in PEOPLE:
        raise HTTPException(401, "nobody of that name")
    request.session["user"] = user
    return {"user": user}


async def authorize(connection: HTTPConnection, document: str) -> Grant | None:
    """Decide what the session that a connection belongs to may do with a note."""
    user = connection.session.get("user")
    if user not in PEOPLE:
        raise HTTPException(401, "sign in first")
    name, team = PEOPLE[user]
    of_team, _, note = document.partition("/")
    if of_team == team:
        return Grant(Access.WRITE, user, name)
    return Grant(Access.READ, user, name) if note.startswith("public/") else None


collab = create_app(Settings(data_dir=Path(os.environ.get("DATA_DIR", "data"))), authorize)
mount(app, "/collab", collab)
