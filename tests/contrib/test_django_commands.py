"""The commands of manage.py."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.support.django import Project
from tests.support.waiting import eventually
from tests.support.wsclient import RawClient


async def text_of(project: Project, document: str, root: str = "content", token: str | None = None) -> str:
    token = token or await asyncio.to_thread(
        project.code.run,
        """
        from collab.contrib.django.conf import get_conf
        from collab.contrib.django.tokens import own_token
        result = own_token(get_conf())
        """,
    )
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/plain"}
    async with aiohttp.ClientSession(headers=headers) as http:
        answer = await http.get(f"{project.server.url}/api/v1/content/{document}?root={root}")
        assert answer.status == 200, await answer.text()
        return await answer.text()


async def test_files_and_fields_are_imported_once(running: Project) -> None:
    project = running
    (project.directory / "guide.md").write_text("# Guide\n\nRead *this*.\n", encoding="utf-8")
    (project.directory / "plain.txt").write_text("plain\n", encoding="utf-8")

    async def manage(*arguments: str, fails: bool = False) -> str:
        return await asyncio.to_thread(lambda: project.manage("collab_import", *arguments, fails=fails))

    assert (
        await manage("--prefix", "docs/", "guide.md", "plain.txt") == "2 documents were created, 0 were there already\n"
    )
    assert (
        await manage("--prefix", "docs/", "guide.md", "plain.txt") == "0 documents were created, 2 were there already\n"
    )
    assert await text_of(project, "docs/guide") == "Guide\n\nRead this."
    assert await text_of(project, "docs/plain") == "plain\n"
    await asyncio.to_thread(
        project.code.run,
        "Note.objects.bulk_create([Note(title=str(number), owner_id=1, text=f'note {number}') for number in range(3)])",
    )
    assert await manage("notes.Note.text") == "3 documents were created, 1 were there already\n"
    for arguments, said in {
        ("notes.Note.title",): "notes.Note.title is no CollaborativeTextField",
        ("notes.Nothing.text",): "App 'notes' doesn't have a 'Nothing' model.",
        ("nothing.md",): "cannot read nothing.md",
    }.items():
        assert said in await manage(*arguments, fails=True)


async def test_a_token_for_trying_things_out(running: Project) -> None:
    project = running

    async def manage(*arguments: str, fails: bool = False) -> str:
        return await asyncio.to_thread(lambda: project.manage("collab_token", *arguments, fails=fails))

    token = (await manage("grace", "note-1", "--seconds", "60")).strip()

    async def arrived() -> bool:
        return await text_of(project, "note-1", "text", token) != ""

    await eventually(arrived, "the document is there")
    assert "there is no user 'nobody'" in await manage("nobody", "note-1", fails=True)
    assert "says the permission function" in await manage("grace", "other", fails=True)
    assert "--seconds is 1 to" in await manage("grace", "note-1", "--seconds", "nan", fails=True)


async def test_wrong_options_are_named_in_a_line(running: Project) -> None:
    def fails(*arguments: str) -> str:
        return running.manage(*arguments, fails=True)

    said = await asyncio.to_thread(fails, "collab_serve", "--idle-seconds", "-1")
    assert said == "CommandError: idle_seconds: must be greater than or equal to 0, not '-1'\n"
    said = await asyncio.to_thread(fails, "collab_serve", "--host", "0.0.0.0", "--port", "0")
    assert "without TLS whoever is on the way may read" in said and "Traceback" not in said
    said = await asyncio.to_thread(fails, "collab_serve", "--workers", "2")
    assert "unrecognized arguments: --workers" in said


async def test_a_server_ends_although_a_function_hangs(project: Project) -> None:
    (project.directory / "notes" / "access.py").write_text(
        "import time\n\ndef permission(user, document):\n    print('asked', flush=True)\n    time.sleep(3600)\n"
    )
    async with project.server as server:
        headers = await asyncio.to_thread(project.headers, "ada")
        client = await RawClient(server.document_url("note-1")).connect(headers)

        async def asked() -> bool:
            return "asked" in server.stdout

        await eventually(asked, "the function is called")
        assert await server.aterminate(60.0) == 0
        assert "hangs in a thread" in server.stderr
        await client.close()
