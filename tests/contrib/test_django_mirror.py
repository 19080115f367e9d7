"""The rule of mirrors: none takes from a column what a save has put there and the document does not have yet.

Strategy: each order of saving, sending and mirroring that the rule is about is made step by step in a process of the
project, with texts and numbers as another process would have read them. The project's server runs beside, and may
mirror and send at any moment, which the rule allows. A random session mixes all steps.
"""

from __future__ import annotations

import asyncio
import textwrap
from typing import Any

import pytest

from tests.support.django import Project, row_shows
from tests.support.django import run as run_plain

IMPORTS = """
import json, random, threading
from datetime import timedelta
from django.db import connection, connections, transaction
from django.db.models.signals import post_save
from django.utils import timezone
from collab.contrib.django.mirror import write_mirror

field = Note._meta.get_field("text")

def mirror(text, seen, more=0, since=None):
    \"\"\"Write what another process has read of a document.\"\"\"
    return list(write_mirror([(field, text)], seen.document, seen.number, seen.last + more, since))

def save_and_hold(note, text):
    \"\"\"Save a text whose edit stays where it is, as if the server were away.\"\"\"
    with transaction.atomic():
        note.text = text
        note.save()
        later = timezone.now() + timedelta(hours=1)
        PendingEdit.objects.filter(document=f"note-{note.pk}").update(claimed_until=later)

def let_go(document):
    PendingEdit.objects.filter(document=document).update(claimed_until=None)
    send_pending("default", document)
    delivered(document)

def put(document, change):
    \"\"\"Change a document as somebody else.\"\"\"
    while True:
        there = api.read(document, "text", "text")
        try:
            return api.write(document, "text", "text", change(there.value), there.state)
        except Exception as error:
            assert type(error).__name__ == "Overtaken", error
"""

NEW = """
note = Note.objects.create(title="New", owner_id=1, text="a\\n")
name = f"note-{note.pk}"
seen = mirrored(name)
"""


async def run(project: Project, code: str, **given: Any) -> Any:
    return await run_plain(project, IMPORTS + textwrap.dedent(code), **given)


async def test_what_was_read_before_a_save_is_not_written_after_it_was_sent(running: Project) -> None:
    found = await run(
        running,
        NEW
        + """
note.text += "b\\n"
note.save()
delivered(name)
result = [mirror("a\\n", seen), Note.objects.get(pk=note.pk).text, Mirror.objects.get(document=name).last > seen.last]
""",
    )
    assert found == [[0, False], "a\nb\n", True]


async def test_no_mirror_is_written_while_an_edit_waits_and_one_follows(running: Project) -> None:
    pk, *found = await run(
        running,
        NEW
        + """
save_and_hold(note, "a\\nb\\n")
result = [note.pk, mirror("newer\\n", seen, more=10), Note.objects.get(pk=note.pk).text]
result.append(Mirror.objects.get(document=name).last == seen.last)
# The server hears of this, and its mirror finds the edit too.
put(name, lambda text: "0\\n" + text)
# Made by hand: its author has seen what is stored.
Note(pk=note.pk, title="By hand", owner_id=1, text="a\\nb\\nc\\n").save()
result.append(Note.objects.get(pk=note.pk).text)
let_go(name)
result.append(api.read(name, "text", "text").value)
""",
    )
    assert found == [[0, True], "a\nb\n", True, "a\nb\nc\n", "0\na\nb\nc\n"]
    await row_shows(running, "0\na\nb\nc\n", pk)


async def test_a_mirror_waits_for_a_save_that_has_not_committed(any_project: Project) -> None:
    """The server is away: nothing but these two is under way."""
    found = await run(
        any_project,
        """
        PendingEdit.objects.all().delete()
        saved, commit, found = threading.Event(), threading.Event(), []

        def save():
            with transaction.atomic():
                note = Note.objects.get(pk=1)
                note.text += "b\\n"
                note.save()
                saved.set()
                assert commit.wait(30)
            connections.close_all()

        def write():
            found.append(mirror("older\\n", Mirror(document="note-1", number=1, last=1)))
            connections.close_all()

        threads = [threading.Thread(target=save), threading.Thread(target=write)]
        threads[0].start()
        assert saved.wait(30)
        threads[1].start()
        if connection.vendor == "postgresql":
            def waits():
                with connection.cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                    return cursor.fetchone()[0]
            until(waits)
        early = list(found)
        commit.set()
        for thread in threads:
            thread.join(30)
        result = [early, found, Note.objects.get(pk=1).text, PendingEdit.objects.count()]
        """,
    )
    assert found == [[], [[0, True]], "Write it down.\nb\n", 1]


DIED = """
def send_and_die(document):
    \"\"\"Send an edit, and end between the answer and the removal of the edit.\"\"\"
    from collab.contrib.django import outbox
    edit = PendingEdit.objects.filter(document=document).first()
    if edit is None:
        return
    assert outbox._hold(edit, "default")
    outbox._send(api, edit, "default")
"""


async def test_an_edit_that_has_arrived_is_not_made_twice(running: Project) -> None:
    pk, first, second = await run(
        running,
        NEW
        + DIED
        + """
save_and_hold(note, "a\\nb\\n")
put(name, lambda text: "0\\n" + text)
send_and_die(name)
result = [note.pk, api.read(name, "text", "text").value]
put(name, lambda text: text.replace("0", "00") + "c\\n")
# The column waits for what becomes of the edit.
assert Note.objects.get(pk=note.pk).text == "a\\nb\\n"
let_go(name)
result.append(api.read(name, "text", "text").value)
""",
    )
    assert (first, second) == ("0\na\nb\n", "00\na\nb\nc\n")
    # No change of the document has followed on the edit, so nothing but its removal can have led to this.
    await row_shows(running, second, pk)


async def test_an_edit_that_may_have_arrived_and_has_not_is_made(running: Project) -> None:
    found = await run(
        running,
        NEW
        + """
save_and_hold(note, "a\\nb\\n")
PendingEdit.objects.filter(document=name).update(sent=True)
put(name, lambda text: "0\\n" + text + "c\\n")
let_go(name)
result = api.read(name, "text", "text").value
""",
    )
    assert sorted(found.split()) == ["0", "a", "b", "c"]


async def test_a_text_that_the_database_cannot_hold_is_mirrored_and_edited(any_project: Project) -> None:
    async with any_project.server:
        found = await run(
            any_project,
            """
            mirrored("note-1")
            put("note-1", lambda text: text + "\\0")
            until(lambda: Note.objects.get(pk=1).text == "Write it down.\\n\\ufffd")
            note = Note.objects.get(pk=1)
            note.text = "Now. " + note.text
            note.save()
            delivered("note-1")
            result = api.read("note-1", "text", "text").value
            """,
        )
        assert found == "Now. Write it down.\n\0"
        await row_shows(any_project, "Now. Write it down.\n\ufffd")


async def test_an_edit_that_is_given_up_leaves_the_column_as_the_document_is(running: Project) -> None:
    pk, edit = await run(
        running,
        NEW
        + """
save_and_hold(note, "a\\nnever\\n")
result = [note.pk, PendingEdit.objects.get(document=name).pk]
""",
    )
    assert await asyncio.to_thread(running.manage, "collab_pending", "--drop", str(edit)) == "a\nnever\n"
    await row_shows(running, "a\n", pk)


async def test_a_log_that_was_put_back_is_mirrored_all_the_same(running: Project) -> None:
    pk, *found = await run(
        running,
        NEW
        + """
Mirror.objects.filter(document=name).update(last=10**6)
# A text that is too old is not written, and read again.
result = [note.pk, mirror("old\\n", seen), mirror("old\\n", seen, since=timezone.now())]
result += [Note.objects.get(pk=note.pk).text, Mirror.objects.get(document=name).behind is not None]
Note.objects.filter(pk=note.pk).update(text="stale")
Mirror.objects.filter(document=name).update(behind=timezone.now() - timedelta(minutes=2))
""",
    )
    assert found == [[0, False], [0, False], "a\n", True]
    await row_shows(running, "a\n", pk)
    assert await run(running, "result = mirrored(name).last < 10**6", name=f"note-{pk}")


async def test_a_row_is_saved_with_its_edit_or_not_at_all(running: Project) -> None:
    found = await run(
        running,
        NEW
        + """
inside = []

def broken(sender, instance, **given):
    inside.append(connection.in_atomic_block)
    raise RuntimeError

post_save.connect(broken, sender=Note)
try:
    note.text = "a\\nb\\n"
    note.save()
except RuntimeError:
    pass
finally:
    post_save.disconnect(broken, sender=Note)
result = [inside, Note.objects.get(pk=note.pk).text, PendingEdit.objects.filter(document=name).count()]
# It is still to be saved.
note.save()
delivered(name)
result += [Note.objects.get(pk=note.pk).text, api.read(name, "text", "text").value]
""",
    )
    assert found == [[True], "a\n", 0, "a\nb\n", "a\nb\n"]


async def test_a_transaction_that_is_tried_again_saves_its_texts_again(running: Project) -> None:
    found = await run(
        running,
        NEW
        + """
for attempt in range(2):
    try:
        with transaction.atomic():
            note.text = "a\\nb\\n"
            note.save()
            try:
                with transaction.atomic():
                    note.text = "a\\nbc\\n"
                    note.save()
                    raise LookupError
            except LookupError:
                pass
            # The first save stands, the second one is gone.
            note.text = "a\\nbd\\n"
            note.save()
            assert [edit.base for edit in PendingEdit.objects.filter(document=name)] == ["a\\n", "a\\nb\\n"]
            if not attempt:
                raise RuntimeError
    except RuntimeError:
        assert Note.objects.get(pk=note.pk).text == "a\\n"
delivered(name)
result = [Note.objects.get(pk=note.pk).text, api.read(name, "text", "text").value]
""",
    )
    assert found == ["a\nbd\n", "a\nbd\n"]


async def test_a_process_that_was_too_slow_leaves_an_edit_to_the_one_that_has_it(running: Project) -> None:
    found = await run(
        running,
        NEW
        + """
from collab.contrib.django import outbox
save_and_hold(note, "a\\nb\\n")
slow = PendingEdit.objects.get(document=name)
later = timezone.now() + timedelta(hours=2)
PendingEdit.objects.filter(pk=slow.pk).update(claimed_until=later)
outbox._note(slow, "default", "late", failed=True)
edit = PendingEdit.objects.get(pk=slow.pk)
result = [outbox._hold(slow, "default"), edit.failed, edit.error, edit.claimed_until == later]
# One that has died holds it for a while only.
PendingEdit.objects.filter(pk=slow.pk).update(claimed_until=timezone.now() - timedelta(seconds=1))
send_pending("default", name)
delivered(name)
result.append(api.read(name, "text", "text").value)
""",
    )
    assert found == [False, False, "", True, "a\nb\n"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_when_nothing_that_was_saved_is_lost_or_doubled(running: Project, seed: int) -> None:
    """Each save adds a line; it is in the row from then on, once, and in the document in the end."""
    pk, saved, typed = await run(
        running,
        NEW
        + DIED
        + """
chance = random.Random(seed)
reads, instances, saved, typed = [], [], [], []
shown = set()  # what the last save has put into the row

def check(step):
    lines = Note.objects.get(pk=note.pk).text.split()
    assert len(lines) == len(set(lines)), [step, "doubled", lines]
    assert shown <= set(lines), [step, "lost", shown - set(lines), lines]

def save(instance):
    saved.append(f"s{len(saved)}")
    instance.text += saved[-1] + "\\n"
    shown.clear(); shown.update(instance.text.split())
    held = chance.random() < 0.5
    with transaction.atomic():
        instance.save()
        # Held by a process that is slow, or that has died: with the others behind it.
        if held or PendingEdit.objects.filter(document=name).count() > 1:
            later = timezone.now() + timedelta(hours=1)
            PendingEdit.objects.filter(document=name).update(claimed_until=later)

def read():
    head = json.loads(api._ask("GET", f"timeline/{name}")[0])["head"]
    reads.append((api.read(name, "text", "text").value, head))

def type_line():
    typed.append(f"t{len(typed)}")
    put(name, lambda text: chance.choice([typed[-1] + "\\n" + text, text + typed[-1] + "\\n"]))

def late_mirror():
    if reads:
        text, last = chance.choice(reads)
        write_mirror([(field, text)], name, seen.number, last)

steps = [
    lambda: save(Note.objects.get(pk=note.pk)),
    lambda: instances.append(Note.objects.get(pk=note.pk)),
    lambda: instances and save(instances.pop()),
    lambda: let_go(name),
    lambda: send_and_die(name),
    type_line, read, late_mirror, late_mirror,
]
for step in range(60):
    what = chance.randrange(len(steps))
    steps[what]()
    check([step, what])
let_go(name)
result = [note.pk, saved, typed]
""",
        seed=seed,
    )
    shown = await run(running, "result = api.read(f'note-{pk}', 'text', 'text').value", pk=pk)
    assert sorted(shown.split()) == sorted(["a", *saved, *typed])
    await row_shows(running, shown, pk)
