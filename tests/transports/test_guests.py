"""What guests are called in the history: told on every node, long after they have left."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import jwt

from collab.app import HUB
from collab.client import History
from tests.auth.makers import SECRET
from tests.support.api import told
from tests.support.author import Author
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient, RawClient, update
from tests.transports.conftest import Serve, Served
from tests.transports.test_content import insert
from tests.transports.test_shares import token

NAME = "notes/plan"
GUEST = "Guest of Ada"


class Api:
    """Calls of one person at one node."""

    def __init__(self, session: aiohttp.ClientSession, served: Served, bearer: str) -> None:
        self._session = session
        self._url = f"{served.url}/api/v1"
        self._headers = {"Authorization": f"Bearer {bearer}"}

    async def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        url = f"{self._url}/{path}"
        async with self._session.request(method, url, params=query, json=body, headers=self._headers) as response:
            said = await told(response)
            assert response.status < 300, (response.status, said)
            return said

    async def names(self) -> dict[str, dict[str, str | None]]:
        """Give what the authors are called, by what names them and by their users."""
        timeline = await self("GET", f"timeline/{NAME}")
        found = {
            "timeline": {each["user"]: each["name"] for one in timeline["entries"] for each in one["authors"]},
            "versions": {each["author"]: each["author_name"] for each in await self._versions()},
        }
        asked = {
            "attribution": {},
            "text": {"root": "text"},
            "changes": {"from": timeline["reaches"] if timeline["reaches"] > 1 else 0},
        }
        for what, query in asked.items():
            answer = await self("GET", f"{'attribution' if what == 'text' else what}/{NAME}", **query)
            found[what] = {mark["author"]: mark["author_name"] for mark in answer["marks"]}
        return found

    async def _versions(self) -> list[Any]:
        listed: list[Any] = (await self("GET", f"versions/{NAME}", kind="named"))["versions"]
        for each in listed:
            assert await self("GET", f"version/{NAME}", id=each["id"]) == each
        return listed

    async def link(self, name: str = NAME) -> str:
        """Make a link for guests; gives its token."""
        made = await self("POST", "shares", {"name": name, "access": "write", "seconds": 3600})
        return str(made["token"])


def user(bearer: str) -> str:
    return str(jwt.decode(bearer, SECRET, ["HS256"])["sub"])


async def collab(*words: str) -> bytes:
    """Run a command beside the servers; gives what it has printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "collab", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def test_guests_have_names_on_every_node_long_after_they_have_left(
    postgres_url: str, serve: Serve, session: aiohttp.ClientSession
) -> None:
    options = {"database_url": postgres_url, "jwt_secret": SECRET, "auto_version_minutes": 0}
    one, two = await serve(**options, compact_rows=1, compact_ratio=0), await serve(**options)
    ada, grace = Api(session, one, token()), Api(session, two, token("u-18"))
    typist, program = await ada.link(), await ada.link()
    async with LiveClient(f"{one.ws(NAME)}?token={typist}") as client:
        await client.until_synced()
        client.text().insert(0, "typed")
        await client.barrier()
    by_program = Api(session, one, program)
    await by_program("PATCH", f"content/{NAME}", {"edits": [insert(0, "x", "text")]})
    await by_program("POST", f"versions/{NAME}", {"name": "by a guest"})
    async with LiveClient(f"{one.ws(NAME)}?token={token()}") as client:
        await client.until_synced()
        client.text().insert(0, "signed in")
        await client.barrier()
    named = {user(typist): GUEST, user(program): GUEST}
    everybody = {**named, "u-17": None}
    expected = dict.fromkeys(("timeline", "attribution", "text", "changes"), everybody)
    expected["versions"] = {user(program): GUEST}

    async def is_told() -> bool:
        return await grace.names() == expected

    await eventually(is_told, "all of it is told on the other node")
    (entry, *_) = (await grace("GET", f"timeline/{NAME}"))["entries"]
    assert GUEST in entry["summary"] and "guest:" not in entry["summary"]
    async with History(two.hocuspocus, token=token("u-18")) as history:
        assert {row.author: row.author_name async for row in history.rows(NAME, 0)} == everybody
        page = await history.timeline_page(NAME)
        assert {each.user: each.name for one_ in page.entries for each in one_.authors} == everybody
        assert [version.author_name async for version in history.versions(NAME, kind="named")] == [GUEST]
        written = await history.attribution(NAME)
        assert {each.mark.author: each.mark.author_name for each in written.inserted} == everybody
    listed = await collab("versions", "list", NAME, "--named", "--json", "--database-url", postgres_url)
    assert json.loads(listed)["author_name"] == GUEST

    # The rows of the guests go; what is told of them stays.
    hub = one.app[HUB]
    document, head = entry["to"], (await ada("GET", f"timeline/{NAME}"))["head"]
    async with RawClient(f"{one.ws(NAME)}?token={token()}") as client:
        author = Author(1)
        for number in range(1, 4):
            await client.send(update(author.type("y")))

            async def compacted(number: int = number) -> bool:
                stored = await hub.store.load(NAME)
                return stored is not None and stored.snapshot is not None and stored.snapshot.seq >= head + number

            await eventually(compacted, f"snapshot {number}")
    number = (await hub.store.describe(NAME)).document.id
    (version,) = await hub.store.versions(number, limit=9)
    await hub.store.delete_version(number, version.id)
    while await hub.store.prune(before=time.time() + 60, limit=1_000):
        pass
    assert (await hub.store.rows_after(number, 0, 1))[0].seq > document
    after = await grace.names()
    assert {what: after[what] for what in ("timeline", "attribution", "text")} == dict.fromkeys(
        ("timeline", "attribution", "text"), everybody
    )

    # Their names hold Ada's own.
    await collab("people", "erase", "u-17", "--yes", "--database-url", postgres_url)
    after = await grace.names()
    assert after["timeline"] == after["attribution"] == dict.fromkeys([*named, "deleted user"])


async def test_a_guest_who_begins_a_document_over_http_has_a_name(serve: Serve, session: aiohttp.ClientSession) -> None:
    served = await serve(jwt_secret=SECRET)
    ada = Api(session, served, token())
    for number, (method, path, body) in enumerate(
        (("POST", "documents", {"name": "notes/0"}), ("PUT", "documents/notes/1", {}))
    ):
        name = f"notes/{number}"
        link = await ada.link(name)
        content = [{"root": "text", "format": "text", "value": "begun"}]
        await Api(session, served, link)(method, path, {**body, "content": content})
        (entry,) = (await ada("GET", f"timeline/{name}"))["entries"]
        assert [(each["user"], each["name"]) for each in entry["authors"]] == [(user(link), GUEST)]
