"""`CollaborativeTextField`: a column that mirrors a document, and saves that overwrite nobody.

Strategy: rows are read and saved in a process of the project, people type as clients of its server, and the facts are
looked at on both sides. Forms are those of Django's admin, sent as a browser sends them.
"""

from __future__ import annotations

import asyncio
import html
import re

from tests.support.django import READ, Project, grace, row_shows, run
from tests.support.wsclient import LiveClient


async def waits(client: LiveClient, text: str) -> None:
    await client.until(lambda: str(client.text()) == text, f"the document shows {text!r}")


async def test_a_row_and_its_document_show_the_same(any_project: Project) -> None:
    project = any_project
    async with project.server, grace(project) as client:
        # The row was saved before there was a server: its text waited.
        await waits(client, "Write it down.\n")
        client.text().insert(0, "Do. ")
        await row_shows(project, "Do. Write it down.\n")
        await run(project, "note = Note.objects.get(pk=1); note.text += 'Now.\\n'; note.save()")
        await waits(client, "Do. Write it down.\nNow.\n")
        # What was typed between reading the row and saving it stays, and so does what was saved.
        await run(project, "late = Note.objects.get(pk=1)")
        client.text().insert(4, "Please. ")
        await row_shows(project, "Do. Please. Write it down.\nNow.\n")
        await run(project, "late.text = late.text.replace('Now', 'Today'); late.title = 'New'; late.save()")
        await waits(client, "Do. Please. Write it down.\nToday.\n")
        await row_shows(project, "Do. Please. Write it down.\nToday.\n")
        # A row that is saved without its text being touched leaves the column alone.
        await run(project, "late = Note.objects.get(pk=1)")
        client.text().insert(0, "1. ")
        await row_shows(project, "1. Do. Please. Write it down.\nToday.\n")
        await run(project, "late.title = 'Newer'; late.save()")
        assert await run(project, READ, pk=1) == "1. Do. Please. Write it down.\nToday.\n"
        assert await run(project, "result = PendingEdit.objects.count()") == 0
        assert await run(project, "result = Note.objects.get(pk=1).title") == "Newer"


def fields_of(page: str) -> dict[str, str]:
    """Read the fields of a form as a browser would."""
    found: dict[str, str] = {}
    for tag in re.findall(r"<input [^>]*>", page):
        values = {key: html.unescape(value) for key, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        if values.get("type") in ("text", "hidden") and "name" in values:
            found[values["name"]] = values.get("value", "")
    area = re.search(r'<textarea name="text"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    assert area is not None
    found["text"] = html.unescape(area[1]).removeprefix("\n")
    return found


ADMIN = """
client = Client(HTTP_HOST="127.0.0.1")
client.force_login(get_user_model().objects.get(username="ada"))
answer = client.get("/admin/notes/note/1/change/") if sent is None else client.post("/admin/notes/note/1/change/", sent)
result = [answer.status_code, answer.content.decode()]
"""


async def test_a_form_of_the_admin_overwrites_nobody(running: Project) -> None:
    project = running
    async with grace(project) as client:
        await client.until(lambda: str(client.text()), "the text of the row")
        del client.text()[0 : len(str(client.text()))]
        client.text().insert(0, "one\ntwo <b>\n")
        await row_shows(project, "one\ntwo <b>\n")
        status, page = await run(project, ADMIN, sent=None)
        form = fields_of(page)
        assert (status, form["text"], form["text-base"]) == (200, "one\ntwo <b>\n", "one\ntwo <b>\n")
        client.text().insert(4, "one and a half\n")
        await row_shows(project, "one\none and a half\ntwo <b>\n")
        # A form that is not right is shown again: what its author saw stays what it was.
        sent = {**form, "owner": "1", "text": "one\r\ntwo <i>\r\nthree\r\n", "text-base": "one\r\ntwo <b>\r\n"}
        status, page = await run(project, ADMIN, sent={**sent, "title": ""})
        again = fields_of(page)
        assert (status, again["text"], again["text-base"]) == (200, "one\ntwo <i>\nthree\n", "one\ntwo <b>\n")
        assert (await run(project, ADMIN, sent=sent))[0] == 302
        await waits(client, "one\none and a half\ntwo <i>\nthree\n")
        await row_shows(project, "one\none and a half\ntwo <i>\nthree\n")
        # Sent with the text that it has shown: others have changed it since, and nothing is taken back.
        status, page = await run(project, ADMIN, sent=None)
        form = fields_of(page)
        client.text().insert(0, "zero\n")
        await row_shows(project, "zero\none\none and a half\ntwo <i>\nthree\n")
        sent = {**form, "owner": "1", "title": "Renamed"}
        assert (await run(project, ADMIN, sent=sent))[0] == 302
        history = await run(
            project,
            """
            from django.contrib.admin.models import LogEntry
            result = LogEntry.objects.order_by("-pk").first().change_message
            """,
        )
        assert history == '[{"changed": {"fields": ["Title"]}}]'
        assert await run(project, READ, pk=1) == "zero\none\none and a half\ntwo <i>\nthree\n"
        await client.barrier()
        assert str(client.text()) == "zero\none\none and a half\ntwo <i>\nthree\n"


async def test_a_server_that_is_away_costs_no_text(any_project: Project) -> None:
    project = any_project
    async with project.server as server, grace(project) as client:
        await waits(client, "Write it down.\n")
        # Else the server dies while it sends this edit, and the next one waits until that is known.
        await run(project, "delivered('note-1')")
        await row_shows(project, "Write it down.\n")
        await server.akill()
        await run(project, "note = Note.objects.get(pk=1); note.text += 'More.\\n'; note.save()")
        assert await run(project, READ, pk=1) == "Write it down.\nMore.\n"
        listed = await asyncio.to_thread(project.manage, "collab_pending")
        assert "waits" in listed and "did not answer" in listed
        # Somebody types offline meanwhile.
        client.text().insert(0, "Offline. ")
        await server.arestart()
        async with grace(project) as other:
            await other.send(b"\x00\x02" + _sized(client.doc.get_update()))
            await waits(other, "Offline. Write it down.\nMore.\n")
        await row_shows(project, "Offline. Write it down.\nMore.\n")
        assert await run(project, "result = PendingEdit.objects.count()") == 0


def _sized(data: bytes) -> bytes:
    from tests.support.wsclient import varbytes

    return varbytes(data)


async def test_a_mirror_catches_up_with_what_was_missed(project: Project) -> None:
    async with project.server as server, grace(project) as client:
        await waits(client, "Write it down.\n")
        client.text().insert(0, "seen ")
        await row_shows(project, "seen Write it down.\n")
        await run(project, "mirrored('note-1')")
        # As if the process had died between the commit and the hook.
        await run(project, "Note.objects.filter(pk=1).update(text='stale')")
        await server.aterminate()
        await server.arestart()
        await row_shows(project, "seen Write it down.\n")


async def test_an_edit_is_a_part_of_its_transaction(running: Project) -> None:
    project = running
    await run(
        project,
        """
        from django.db import transaction
        try:
            with transaction.atomic():
                note = Note.objects.create(title="Gone", owner_id=1, text="never")
                edits = PendingEdit.objects.filter(document=f"note-{note.pk}")
                assert edits.count() == 1
                raise RuntimeError
        except RuntimeError:
            pass
        assert edits.count() == 0
        assert not api.read(f"note-{note.pk}", "text", "text").there
        """,
    )


async def test_every_way_of_saving_a_row_is_an_edit(running: Project) -> None:
    project = running
    found = await run(
        project,
        """
        class Draft(Note):
            class Meta:
                proxy = True
                app_label = "notes"

        def text():
            delivered(f"note-{note.pk}")
            return api.read(f"note-{note.pk}", "text", "text").value

        result = []
        note = Draft.objects.create(title="Proxy", owner_id=1, text="a")
        result.append(text())
        # What is not saved stays to be saved.
        note.text = "a b"
        note.save(update_fields=["title"])
        result.append(text())
        note.save()
        result.append(text())
        # Made by hand, with the key of a row that is there: its author has seen what is stored.
        Note(pk=note.pk, title="By hand", owner_id=1, text="a b c").save()
        result.append(text())
        only = Note.objects.defer("text").get(pk=note.pk)
        only.title = "Deferred"
        only.save()
        only.text += " d"
        only.save()
        result.append(text())
        note.refresh_from_db()
        note.text = note.text.replace("a ", "")
        note.save()
        result.append(text())
        from django.apps import apps
        del apps.all_models["notes"]["draft"]; apps.clear_cache()
        """,
    )
    assert found == ["a", "a", "a b", "a b c", "a b c d", "b c d"]


async def test_an_edit_that_is_sent_twice_is_made_once(running: Project) -> None:
    project = running
    found = await run(
        project,
        """
        note = Note.objects.create(title="Twice", owner_id=1, text="base\\n")
        delivered(f"note-{note.pk}")
        for _ in range(2):  # a process has died before it could remove the row
            PendingEdit.objects.create(
                document=f"note-{note.pk}", root="text", base="base\\n", text="base\\nonce\\n",
                field="notes.Note.text", key=str(note.pk),
            )
        send_pending("default")
        delivered(f"note-{note.pk}")
        result = api.read(f"note-{note.pk}", "text", "text").value
        """,
    )
    assert found == "base\nonce\n"


async def test_what_the_server_refuses_is_kept_for_people(running: Project) -> None:
    project = running
    # A document that somebody has deleted: the row can be saved, its text does not come back into the document.
    pk = await run(
        project,
        """
        note = Note.objects.create(title="Refused", owner_id=1, text="x")
        delivered(f"note-{note.pk}")
        api.delete(f"note-{note.pk}")
        note.text = "kept"; note.save()
        delivered(f"note-{note.pk}")
        edit = PendingEdit.objects.get()
        assert edit.failed and "document_deleted" in edit.error, edit.error
        # It stands in nobody's way.
        delivered(f'note-{Note.objects.create(title="Next", owner_id=1, text="y").pk}')
        assert PendingEdit.objects.count() == 1
        result = edit.pk
        """,
    )
    listed = await asyncio.to_thread(project.manage, "collab_pending")
    assert listed.startswith(f"{pk}\tfailed")
    dropped = await asyncio.to_thread(project.manage, "collab_pending", "--drop", str(pk))
    assert dropped == "kept\n"
    assert await run(project, "result = PendingEdit.objects.count()") == 0


async def test_a_document_goes_with_its_row_where_that_was_asked_for(running: Project) -> None:
    project = running
    found = await run(
        project,
        """
        note = Note.objects.create(title="Short", owner_id=1, text="x")
        name = f"note-{note.pk}"
        delivered(name)
        before = api.read(name, "text", "text").there
        note.delete()
        delivered(name)
        try:
            after = api.read(name, "text", "text").there
        except Exception as error:
            after = str(error).partition(":")[0]
        result = [before, after]
        """,
    )
    assert found == [True, "document_deleted"]


async def test_names_find_their_rows_and_no_others(running: Project) -> None:
    project = running
    found = await run(
        project,
        """
        field = Note._meta.get_field("text")
        found = ["note-1", "note-01", "note-1x", "note-", f"note-{10**30}", "other", "note-1\\n", "Note-1"]
        result = [name for name in found if field.find(name) is not None]
        """,
    )
    assert found == ["note-1"]


async def test_migrations_know_a_plain_text_field(running: Project) -> None:
    printed = await asyncio.to_thread(running.manage, "makemigrations", "--check", "--dry-run")
    assert "No changes detected" in printed
    source = (running.directory / "notes/migrations/0001_initial.py").read_text(encoding="utf-8")
    assert "models.TextField(blank=True)" in source and "import collab" not in source


async def test_arguments_that_are_wrong_are_named(running: Project) -> None:
    found = await run(
        running,
        """
        from django.db import models
        from collab.contrib.django.fields import CollaborativeTextField
        def name(row): return f"x-{row.pk}"
        class Wrong(models.Model):
            a = CollaborativeTextField()
            b = CollaborativeTextField(document="x-{nothing}")
            c = CollaborativeTextField(document="x-{pk:03}")
            d = CollaborativeTextField(document=name)
            e = CollaborativeTextField(document="x-{pk}", format="pdf", null=True)
            class Meta:
                app_label = "notes"
        result = [each.msg for each in Wrong.check() if each.id == "collab.E003"]
        from django.apps import apps
        del apps.all_models["notes"]["wrong"]; apps.clear_cache()
        """,
    )
    assert found == [
        'document is a template with a field of the row, as in "post-{pk}"',
        "document names 'nothing', which is no field",
        "document is no template: write {field} for each field, once, and nothing else in braces",
        "a function for document needs lookup, the way back from a name to the row",
        "format is one of text, markdown, html",
        "a text that nobody has written is empty: leave out null=True",
    ]
