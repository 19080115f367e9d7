"""Who may do what, by Django's sessions: real clients, a real server, a project in processes of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.support.django import Project
from tests.support.hocuspocus import AUTH, AUTHENTICATED, RawHocuspocus, auth
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient, RawClient

SHARE = """
Share.objects.filter(user__username="grace").update(access=access)
changed(document="note-1", user=Share.objects.get(user__username="grace").user)
"""


async def run(project: Project, code: str, **given: Any) -> Any:
    return await asyncio.to_thread(project.code.run, code, **given)


async def test_the_session_of_a_user_opens_documents_by_both_protocols(any_project: Project) -> None:
    project = any_project
    async with project.server as server:
        headers = await asyncio.to_thread(project.headers, "grace")
        grace = await LiveClient(server.document_url("note-1")).connect(headers)
        await grace.until_synced()
        assert await eventually(lambda: _text(grace), "the text of the row") == "Write it down.\n"
        # Nobody else's document, and none that is of no row.
        for name in ("note-2", "other"):
            other = await RawClient(server.document_url(name)).connect(headers)
            assert await other.expect_close() == 4403
            assert other.close_reason == "you may not open this document"
            await other.close()
        provider = await RawHocuspocus(server.hocuspocus_url).connect(headers)
        await provider.send(auth("note-1"))
        assert (await provider.find_type("note-1", AUTH)).fields == (AUTHENTICATED, "read-write")
        async with aiohttp.ClientSession(headers=headers) as http:
            answer = await http.get(f"{server.url}/api/v1/presence/note-1")
            assert answer.status == 200
        nobody = await RawClient(server.document_url("note-1")).connect({"Origin": server.url})
        assert (await nobody.expect_close(), nobody.close_reason) == (4401, "sign in first")
        for client in (grace, provider, nobody):
            await client.close()
    # Documents have a schema of their own, where they are in the project's database.
    schemas = await run(
        project,
        """
        from django.db import connection
        result = []
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT DISTINCT table_schema FROM information_schema.tables "
                    "WHERE table_name IN ('alembic_version', 'schema_revision', 'documents', 'log', 'snapshots')"
                )
                result = [row[0] for row in cursor.fetchall()]
        """,
    )
    assert schemas == ([] if (project.directory / "db.sqlite3").exists() else ["collab"])


async def _text(client: LiveClient) -> str:
    return str(client.text())


async def test_the_page_of_somebody_else_gets_nothing_by_a_session(running: Project) -> None:
    project = running
    server = project.server
    cookie = await asyncio.to_thread(project.sign_in, "ada")
    document, documents = server.document_url("note-1"), f"{server.url}/api/v1/presence/note-1"
    evil = await RawClient(document).connect({"Cookie": cookie, "Origin": "https://evil.example"})
    assert await evil.expect_close() == 4403
    await evil.close()
    # No Origin: no browser's socket; nobody says that a page of the project has asked.
    bare = await RawClient(document).connect({"Cookie": cookie})
    assert await bare.expect_close() == 4401
    await bare.close()
    # Django's development server is on another port of the same machine.
    other_port = await RawClient(document).connect({"Cookie": cookie, "Origin": "http://127.0.0.1:8000"})
    await other_port.barrier()
    await other_port.close()
    async with aiohttp.ClientSession(headers={"Cookie": cookie}) as http:
        found = {
            site: (await http.get(documents, headers={"Sec-Fetch-Site": site})).status
            for site in ("same-origin", "same-site", "cross-site", "none")
        }
        assert found == {"same-origin": 200, "same-site": 401, "cross-site": 401, "none": 401}
        assert (await http.get(documents)).status == 401


async def test_a_permission_that_changes_is_told_at_once(running: Project) -> None:
    project = running
    server = project.server
    headers = await asyncio.to_thread(project.headers, "grace")
    provider = await RawHocuspocus(server.hocuspocus_url).connect(headers)
    await provider.send(auth("note-1"))
    await provider.find_type("note-1", AUTH)
    await run(project, SHARE, access="read")
    await provider.find(lambda one: one.fields == (AUTHENTICATED, "readonly"), "that it may only read")
    await run(project, SHARE, access="write")
    await provider.find(lambda one: one.fields == (AUTHENTICATED, "read-write"), "that it may write again")
    await run(project, "Share.objects.all().delete(); changed('note-1')")
    assert await provider.denied("note-1") == "you may not open this document"
    await provider.close()


async def test_who_signs_out_leaves(running: Project) -> None:
    project = running
    server = project.server
    headers = await asyncio.to_thread(project.headers, "grace")
    client = await RawClient(server.document_url("note-1")).connect(headers)
    await client.barrier()
    status = await run(
        project,
        """
        from django.test import Client
        client = Client(HTTP_HOST="127.0.0.1")
        client.cookies[settings.SESSION_COOKIE_NAME] = key
        result = client.post("/accounts/logout/").status_code
        """,
        key=headers["Cookie"].partition("=")[2],
    )
    assert status == 302
    assert (await client.expect_close(), client.close_reason) == (4401, "sign in first")
    await client.close()


async def test_a_session_is_looked_at_in_intervals(migrated_project: Any, tmp_path: Any) -> None:
    from tests.support.django import sqlite_project

    with sqlite_project(migrated_project, tmp_path / "app", "COLLAB |= {'RECHECK_SECONDS': 1}") as project:
        async with project.server as server:
            headers = await asyncio.to_thread(project.headers, "grace")
            client = await RawClient(server.document_url("note-1")).connect(headers)
            await client.barrier()
            # A changed password ends sessions in Django too; nobody tells the server of it.
            await run(
                project,
                """
                grace = get_user_model().objects.get(username="grace")
                grace.set_password("another"); grace.save()
                """,
            )
            assert await client.expect_close() == 4401
            await client.close()


async def test_a_function_that_fails_lets_nobody_in_for_now(project: Project) -> None:
    (project.directory / "notes" / "access.py").write_text(
        "def permission(user, document):\n"
        "    if document == 'word':\n"
        "        return 'everything'\n"
        "    raise RuntimeError('a secret of the database')\n"
    )
    async with project.server as server:
        headers = await asyncio.to_thread(project.headers, "ada")
        for name in ("note-1", "word"):
            client = await RawClient(server.document_url(name)).connect(headers)
            assert await client.expect_close() == 1013
            await client.close()
        assert "RuntimeError" in server.stderr and "a secret of the database" not in server.stderr


async def test_an_async_function_is_asked_too(project: Project) -> None:
    (project.directory / "notes" / "access.py").write_text(
        "async def permission(user, document):\n    return 'read' if user.is_anonymous else 'write'\n"
    )
    async with project.server as server:
        headers = await asyncio.to_thread(project.headers, "ada")
        async with aiohttp.ClientSession() as http:
            address = f"{server.url}/api/v1/content/public?root=text"
            body = {"data": b"x", "headers": {**headers, "Content-Type": "text/plain"}}
            assert (await http.put(address, **body)).status == 200
            # Anybody may read: there is a document, and nobody is asked who that is.
            answer = await http.get(address, headers={"Accept": "text/plain"})
            assert (answer.status, await answer.text()) == (200, "x")
            body["headers"] = {"Content-Type": "text/plain"}
            assert (await http.put(address, **body)).status == 403


TOKEN = """
from django.test import Client
from django.contrib.auth import get_user_model
client = Client(enforce_csrf_checks=True, HTTP_HOST="127.0.0.1")
if user:
    client.force_login(get_user_model().objects.get(username=user))
answer = getattr(client, method)("/collab/token/", {"document": document})
body = answer.json() if answer["Content-Type"] == "application/json" else None
result = [answer.status_code, body, dict(answer.headers)]
"""


async def test_a_token_of_the_view_is_good_for_what_its_user_may_do_now(running: Project) -> None:
    project = running

    async def ask(user: str, document: str = "note-1", method: str = "get") -> Any:
        return await run(project, TOKEN, user=user, document=document, method=method)

    status, given, headers = await ask("grace")
    assert (status, given["access"], given["user"]["name"]) == (200, "write", "Grace")
    assert "no-store" in headers["Cache-Control"] and "Cookie" in headers["Vary"]
    assert (await ask(""))[:2] == [401, {"detail": "sign in first"}]
    assert (await ask("grace", "other"))[0] == 403
    assert (await ask("grace", " "))[0] == 400
    assert (await ask("grace", method="post"))[0] == 403  # without the token of Django's forms
    server = project.server
    address = f"{server.document_url('note-1')}?token={given['token']}"
    client = await RawClient(address).connect({"Origin": server.url})
    await client.barrier()
    await run(project, SHARE, access="read")
    other = await RawClient(f"{server.document_url('note-2')}?token={given['token']}").connect()
    assert await other.expect_close() == 4403
    await other.close()
    await run(project, "Share.objects.all().delete(); changed('note-1')")
    assert await client.expect_close() == 4403
    await client.close()
    # The token would be good for minutes; its user is not.
    await run(project, "get_user_model().objects.filter(username='grace').update(is_active=False)")
    client = await RawClient(address).connect()
    assert (await client.expect_close(), client.close_reason) == (4401, "sign in again")
    await client.close()
