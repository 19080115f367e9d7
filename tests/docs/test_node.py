"""The JavaScript that runs in Node, with the packages that it imports and a real server.

Strategy: a snippet becomes a file, and a line behind it writes what came of it. What stands above it on the
reader's page (a document, a provider's class) is put in front; addresses are those of the test's server.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.auth.makers import SECRET
from tests.support.node import DOCS_PACKAGES, find_node, installed_packages
from tests.support.server import ServerProcess
from tests.support.snippets import snippet

pytestmark = [pytest.mark.node, pytest.mark.server]

# Browsers have it, and so has Node from 22 on.
PRELUDE = "import WebSocket from 'ws'\nglobalThis.WebSocket ??= WebSocket\n"

YJS = "import * as Y from 'yjs'\nconst ydoc = new Y.Doc()\n"
WEBSOCKET = "import { WebsocketProvider } from 'y-websocket'\n"
HOCUSPOCUS = "import { HocuspocusProvider } from '@hocuspocus/provider'\n"

# The providers keep the process alive; a fact that does not come within a minute does not come.
TAIL = """
const until = async (fact) => {
  for (const end = Date.now() + 60_000; !fact();) {
    if (Date.now() > end) throw new Error(`not within a minute: ${fact}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
const done = (value) => process.stdout.write(`${JSON.stringify(value)}\\n`, () => process.exit(0))
"""

ASKED = web.AppKey("asked", list)

RunNode = Callable[..., list[str]]


@pytest.fixture
def server(tmp_path: Path) -> Any:
    with ServerProcess(tmp_path / "server") as started:
        yield started


@pytest.fixture
def node(tmp_path: Path) -> RunNode:
    """Run a file of JavaScript; give the lines that it has printed, of which the last is JSON."""
    packages = installed_packages(DOCS_PACKAGES)
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    (tmp_path / "prelude.mjs").write_text(PRELUDE)

    def run(*parts: str, environment: dict[str, str] | None = None) -> list[str]:
        (tmp_path / "snippet.mjs").write_text("\n".join(parts))
        done = subprocess.run(
            [find_node()[0], "--import", "./prelude.mjs", "snippet.mjs"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


def at(server: ServerProcess, text: str) -> str:
    """Put the address of the test's server where the documents have that of `make run`."""
    moved = re.sub(r"ws://(127\.0\.0\.1|localhost):1234", server.url.replace("http", "ws"), text)
    assert moved != text
    return moved


@pytest.mark.parametrize(
    "text",
    [snippet("README.md", "Use it", "js"), snippet("docs/quickstart.md", "Your own page", "js")],
    ids=["README", "quickstart"],
)
def test_the_first_page_connects_and_sees_its_edits(server: ServerProcess, node: RunNode, text: str) -> None:
    lines = node(at(server, text), TAIL, "await until(() => provider.synced); done(text.toString())")
    assert json.loads(lines[-1]) == "hello " and "hello " in lines[:-1]
    # The second one finds what the first one has written.
    lines = node(at(server, text), TAIL, "await until(() => provider.synced); done(text.toString())")
    assert json.loads(lines[-1]) == "hello hello "


def changed(diff: str) -> str:
    """Give what a difference leads to; each line says what it does."""
    lines = diff.splitlines()
    assert all(line[:1] in "+- " for line in lines) and any(line.startswith("-") for line in lines)
    return "\n".join(line[1:] for line in lines if not line.startswith("-"))


def test_a_hocuspocus_page_moves_by_one_line(server: ServerProcess, node: RunNode) -> None:
    text = changed(snippet("docs/migrating.md", "From `@hocuspocus/server`", "diff"))
    tail = (
        "ydoc.getText('t').insert(0, 'x'); await until(() => provider.synced && !provider.hasUnsyncedChanges); done(1)"
    )
    assert node(HOCUSPOCUS, YJS, "const token = ''", at(server, text), TAIL, tail) == ["1"]


def test_a_y_websocket_page_moves_by_one_line(server: ServerProcess, node: RunNode) -> None:
    text = changed(
        snippet("docs/migrating.md", "From `@y/websocket-server` (formerly `y-websocket/bin/server`)", "diff")
    )
    tail = "await until(() => provider.synced); done(1)"
    assert node(WEBSOCKET, YJS, f"const provider = {at(server, text)}", TAIL, tail) == ["1"]


def test_a_counter_below_zero_leads_to_another_sync(server: ServerProcess, node: RunNode) -> None:
    page = changed(snippet("docs/migrating.md", "From `@hocuspocus/server`", "diff"))
    text = snippet("docs/migrating.md", "From `@hocuspocus/server`", "js")
    tail = """
let asked = 0
provider.forceSync = () => { asked += 1 }
await until(() => provider.synced)
for (const count of [2, 0, -5]) provider.emit('unsyncedChanges', count)
done(asked)
"""
    assert node(HOCUSPOCUS, YJS, "const token = ''", at(server, page), text, TAIL, tail) == ["1"]


def test_the_route_of_a_y_sweet_application_gives_the_address_and_the_token(node: RunNode) -> None:
    route = changed(snippet("docs/migrating.md", "From Y-Sweet", "diff"))
    page = """
import express from 'express'
const app = express()
app.use(express.json())
app.use((request, response, next) => { request.user = { id: '17' }; next() })
const signToken = (user, docId) => `a token of ${user.id} for ${docId}`
"""
    tail = """
const server = app.listen(0, '127.0.0.1', async () => {
  const response = await fetch(`http://127.0.0.1:${server.address().port}/api/auth`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ docId: 'plan' }),
  })
  done(await response.json())
})
"""
    (line,) = node(page, route, TAIL, tail)
    assert json.loads(line) == {
        "url": "wss://collab.example/ws",
        "docId": "plan",
        "token": "a token of 17 for plan",
    }


def test_a_refusal_is_shown_over_y_websocket(server: ServerProcess, node: RunNode) -> None:
    text = snippet("docs/frontends.md", "What every front end wants", "js", 2)
    name = "x" * 600
    page = f"const provider = new WebsocketProvider('{server.ws_url}', '{name}', ydoc)\nconst said = []\n"
    told = "console.error = (line) => said.push(line)\n"
    (line,) = node(WEBSOCKET, YJS, page, told, text, TAIL, "await until(() => said.length); done(said)")
    assert json.loads(line)[0].startswith("refused: ")


def test_the_route_of_express_issues_a_token(node: RunNode) -> None:
    route = snippet("docs/security.md", "2. A route that issues tokens", "js")
    page = """
import express from 'express'
const app = express()
app.use((request, response, next) => { request.user = { id: '17', name: 'Ada', teams: ['team-a'] }; next() })
app.get('/collab-token', token)
const server = app.listen(0, '127.0.0.1', async () => {
  const response = await fetch(`http://127.0.0.1:${server.address().port}/collab-token`)
  done([response.headers.get('content-type'), await response.text()])
})
"""
    (line,) = node(route, TAIL, page, environment={"COLLAB_JWT_SECRET": SECRET})
    kind, token = json.loads(line)
    assert kind.startswith("text/plain")
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["name"], claims["documents"]) == ("17", "Ada", {"team-a/*": "write"})
    assert 590 < claims["exp"] - time.time() <= 600


@pytest.fixture
async def application() -> AsyncIterator[TestServer]:
    """The reader's own application: its route gives tokens of a few seconds."""

    async def token(request: web.Request) -> web.Response:
        request.app[ASKED].append(1)
        claims = {"sub": "17", "documents": {"team-a/*": "write"}, "exp": int(time.time()) + 2}
        return web.Response(text=jwt.encode(claims, SECRET, algorithm="HS256"))

    app = web.Application()
    app[ASKED] = []
    app.router.add_get("/collab-token", token)
    async with TestServer(app) as server:
        yield server


@pytest.mark.slow
async def test_both_providers_go_on_when_their_token_runs_out(
    tmp_path: Path, node: RunNode, application: TestServer
) -> None:
    text = snippet("docs/security.md", "3. The client shows it", "js")
    options = ("--jwt-leeway-seconds", "0")
    with ServerProcess(tmp_path / "server", *options, environment={"COLLAB_JWT_SECRET": SECRET}) as server:
        moved = text.replace("wss://collab.example", server.url.replace("http", "ws"))
        moved = moved.replace("new HocuspocusProvider(", "const other = new HocuspocusProvider(", 1)
        assert moved.count(server.url.replace("http", "ws")) == 2
        page = f"const plain = fetch\nglobalThis.fetch = (path) => plain(new URL(path, '{application.make_url('/')}'))"
        tail = """
const closes = []
provider.on('connection-close', (event) => closes.push(event?.code))
await until(() => closes.includes(4501))
await until(() => provider.synced && other.synced)
ydoc.getText('t').insert(0, 'x')
await until(() => !other.hasUnsyncedChanges)
done(closes)
"""
        lines = await asyncio.to_thread(node, HOCUSPOCUS, WEBSOCKET, YJS, page, moved, TAIL, tail)
    assert 4501 in json.loads(lines[-1])
    # Once for each provider at first, and again for each when the token has run out.
    assert len(application.app[ASKED]) >= 4
