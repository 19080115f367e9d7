"""docs/django.md, as its reader follows it: a project is made of the snippets, and served."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.server import ServerProcess
from tests.support.snippets import ROOT, snippet
from tests.support.valkey import free_port
from tests.support.waiting import eventually

Manage = Callable[..., str]

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "a secret of the tests, long enough for everybody"
DEBUG = True
ROOT_URLCONF = "urls"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "notes"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

# What the reader has already: a row that was there before the field was collaborative.
PREPARE = """
from django.contrib.auth import get_user_model
from notes.models import Note
ada = get_user_model().objects.create_user("ada")
Note.objects.bulk_create([Note(owner=ada, text="hello")])
"""

SHARE = """
from notes.models import Note
from sharing import unshare
note = Note.objects.get()
note.readers.add(note.owner)
unshare(note, note.owner)
assert not note.readers.exists()
"""

TOKEN = """
import json
from django.contrib.auth import get_user_model
from django.test import Client
from collab.contrib.django import token
ada = get_user_model().objects.get()
client = Client(HTTP_HOST="localhost")
client.force_login(ada)
print(client.get("/collab/token/?document=note-1").json()["token"])
assert token(ada, "note-1", "read").count(".") == 2
"""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Path]:
    """The directory of a project that has followed the page."""
    notes = tmp_path / "notes"
    (notes / "migrations").mkdir(parents=True)
    for path, text in {
        tmp_path / "settings.py": SETTINGS + snippet("docs/django.md", "Set it up", "python"),
        tmp_path / "urls.py": snippet("docs/django.md", "Tokens", "python"),
        tmp_path / "sharing.py": snippet("docs/django.md", "Sessions, and pages from elsewhere", "python"),
        tmp_path / "server.py": snippet("docs/django.md", "In a process of your own", "python"),
        notes / "__init__.py": "",
        notes / "migrations" / "__init__.py": "",
        notes / "access.py": snippet("docs/django.md", "Set it up", "python", 2),
        notes / "models.py": snippet("docs/django.md", "A field that people edit together", "python"),
        notes / "apps.py": snippet("docs/django.md", "Signals", "python"),
    }.items():
        path.write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "examples" / "django-app" / "manage.py", tmp_path)
    yield tmp_path


def environment(directory: Path) -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), str(directory)))
    return {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def manage(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=directory,
        env={**os.environ, **environment(directory)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands(text: str) -> list[list[str]]:
    """Return the arguments of manage.py in a snippet of the shell."""
    lines = [line.split() for line in text.splitlines()]
    assert all(line[:2] == ["python", "manage.py"] for line in lines), text
    return [line[2:] for line in lines]


@pytest.mark.server
@pytest.mark.slow
async def test_a_project_is_made_of_the_page(reader: Path) -> None:
    check, migrate, serve = commands(snippet("docs/django.md", "Set it up", "sh"))
    port = free_port()
    with (reader / "settings.py").open("a") as file:
        file.write(f"COLLAB |= {{'PORT': {port}, 'HOOK_INTERVAL_SECONDS': 0.05}}\n")
    await asyncio.to_thread(manage, reader, "makemigrations", "notes")
    assert "no issues" in await asyncio.to_thread(manage, reader, *check)
    await asyncio.to_thread(manage, reader, *migrate)
    await asyncio.to_thread(manage, reader, "shell", "-c", PREPARE)
    server = ServerProcess(
        reader / "data",
        *serve[1:],
        "--drain-delay-seconds",
        "0",
        program=("manage.py", serve[0]),
        port=port,
        environment=environment(reader),
        working_directory=reader,
        drain_delay=None,
    )
    async with server:
        ((*imported,),) = commands(snippet("docs/django.md", "A field that people edit together", "sh", 2))
        assert "1 documents were created" in await asyncio.to_thread(manage, reader, *imported)
        token = (await asyncio.to_thread(manage, reader, "shell", "-v0", "-c", TOKEN)).split()[-1]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            address = f"{server.url}/api/v1/content/note-1?root=text"
            assert await (await http.get(address, headers={"Accept": "text/plain"})).text() == "hello"
            answer = await http.put(address, data=b"hello, all", headers={"Content-Type": "text/plain"})
            assert answer.status == 200, await answer.text()

        async def told() -> bool:
            return "note-1 was changed by 1" in server.stdout

        await eventually(told, "the receiver is told")
        await asyncio.to_thread(manage, reader, "shell", "-c", SHARE)
        pending, send = commands(snippet("docs/django.md", "A field that people edit together", "sh"))
        assert await asyncio.to_thread(manage, reader, *pending) == ""
        assert await asyncio.to_thread(manage, reader, *send) == "0 sent\n"
        text = "from notes.models import Note; print(Note.objects.get().text)"
        assert (await asyncio.to_thread(manage, reader, "shell", "-v0", "-c", text)).strip() == "hello, all"


@pytest.mark.server
async def test_the_server_is_a_part_of_another_process(reader: Path) -> None:
    program = (
        "import asyncio, runpy; from aiohttp.test_utils import TestClient, TestServer\n"
        "app = runpy.run_path('server.py')['app']\n"
        "async def look():\n"
        "    async with TestClient(TestServer(app)) as client:\n"
        "        print((await client.get('/collab/readyz')).status, (await client.get('/collab/metrics')).status)\n"
        "asyncio.run(look())"
    )
    await asyncio.to_thread(manage, reader, "migrate", "-v0")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        cwd=reader,
        env={**os.environ, **environment(reader)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["200", "401"], done.stdout + done.stderr
