"""A real Django project with its server, for tests: the one of examples/django-app, copied and with its own database.

Strategy: a process has one set of Django's settings, so the project runs in processes of its own, as everywhere: its
server (``manage.py collab_serve``), commands, and one that runs code of the test (`Code`), which stands for any of the
project's own processes. It stays, because starting Django takes half a second.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import django
import django.conf
import pytest

from tests.support.needs import demand
from tests.support.server import ServerProcess
from tests.support.valkey import free_port
from tests.support.waiting import eventually
from tests.support.wsclient import LiveClient

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "django-app"

_SETTINGS = """
from mysite.settings import *

SECRET_KEY = "a secret of the tests, long enough for everybody"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
COLLAB |= {"HOOK_INTERVAL_SECONDS": 0.05, "RECHECK_SECONDS": 3600, "DRAIN_DELAY_SECONDS": 0}
COLLAB |= {"SERVER_SECONDS": 20}  # a server of a busy machine is not away
"""

_AGENT = """
import io, json, sys, traceback
import django
django.setup()
names = {}
for line in sys.stdin:
    try:
        names.pop("result", None)
        exec(json.loads(line), names)
        answer = {"result": names.get("result")}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    print("answer", json.dumps(answer), flush=True)
"""


def configure() -> None:
    """Let Django be used in this process, without a database; harmless when called again.

    All tests of a process share these settings, because Django takes settings once. The pages are those of
    ``tests.support.django_urls``: with none at all Django fails below its own handler of errors, and leaves the file
    of the request's body open, which is the warning of a later test.
    """
    if django.conf.settings.configured:
        return
    django.conf.settings.configure(
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "collab.contrib.django",
        ],
        LOGGING_CONFIG=None,
        LOGIN_URL="/login",
        ROOT_URLCONF="tests.support.django_urls",
        SECRET_KEY="a secret of the tests, long enough for everybody",
        USE_TZ=True,
    )
    django.setup()


IMPORTS = """
import time
from django.contrib.auth import get_user_model
from django.test import Client
from collab.contrib.django.api import Api
from collab.contrib.django.conf import get_conf
from collab.contrib.django.models import Mirror, PendingEdit
from collab.contrib.django.outbox import send_pending
from notes.models import Note
api = Api(get_conf())

def until(look):
    end = time.monotonic() + 60
    while not (seen := look()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return seen

def delivered(document):
    \"\"\"Wait until no edit waits: the server process may have taken it, so a save returns before.\"\"\"
    until(lambda: not PendingEdit.objects.filter(document=document, failed=False).exists())

def mirrored(document):
    \"\"\"Wait until the columns are known to show what the document shows.\"\"\"
    delivered(document)
    return until(lambda: Mirror.objects.filter(document=document, behind=None).exclude(number=0).first())
"""
"""What `run` has ready for the code of a test."""

READ = "result = Note.objects.get(pk=pk).text"


async def run(project: Project, code: str, **given: Any) -> Any:
    """Run code in a process of the project; return what it has put into ``result``."""
    return await asyncio.to_thread(project.code.run, IMPORTS + textwrap.dedent(code), **given)


async def row_shows(project: Project, text: str, pk: int = 1) -> None:
    """Wait until the row of a note has a text."""

    async def look() -> bool:
        return bool(await run(project, READ, pk=pk) == text)

    await eventually(look, f"the row shows {text!r}")


@asynccontextmanager
async def grace(project: Project) -> AsyncIterator[LiveClient]:
    """Grace, who has note 1 open."""
    headers = await asyncio.to_thread(project.headers, "grace")
    client = await LiveClient(project.server.document_url("note-1")).connect(headers)
    try:
        await client.until_synced()
        yield client
    finally:
        await client.close()


class Code:
    """A process of the project that runs code."""

    def __init__(self, project: Project) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _AGENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=project.directory,
            env=project.environment,
        )

    def run(self, code: str, **given: Any) -> Any:
        """Run code, with ``given`` as variables; return what it has put into ``result``."""
        assert self._process.stdin is not None and self._process.stdout is not None
        lines = "".join(f"{name} = {value!r}\n" for name, value in given.items()) + textwrap.dedent(code)
        print(json.dumps(lines), file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("answer "):
                answer = json.loads(line.removeprefix("answer "))
                assert "error" not in answer, answer["error"]
                return answer["result"]
        raise AssertionError("the process of the project has ended")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Project:
    """A project with Ada, who owns note 1 and may use the admin, and Grace, who may write that note.

    Attributes:
        directory: where its files are.
        server: its server, which is not started yet.
        code: runs code of the test in a process of the project.
    """

    def __init__(self, directory: Path, settings: str = "") -> None:
        demand("server")
        self.directory = directory
        ignored = shutil.ignore_patterns("node_modules", "db.sqlite3", "data", "__pycache__", "note.js")
        shutil.copytree(EXAMPLE, directory, ignore=ignored)
        (directory / "test_settings.py").write_text(_SETTINGS + textwrap.dedent(settings), encoding="utf-8")
        self.port = free_port()
        self.environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "test_settings",
            "COLLAB_PORT": str(self.port),
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(directory))),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.server = ServerProcess(
            directory / "data",
            program=("manage.py", "collab_serve"),
            port=self.port,
            drain_delay=None,
            environment={key: self.environment[key] for key in ("DJANGO_SETTINGS_MODULE", "COLLAB_PORT", "PYTHONPATH")},
            working_directory=directory,
        )
        self._code: Code | None = None

    @property
    def code(self) -> Code:
        if self._code is None:
            self._code = Code(self)
        return self._code

    def manage(self, *arguments: str, fails: bool = False) -> str:
        """Run a command; return what it has printed, of both kinds if it is to fail."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.environment,
            timeout=120,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + (done.stderr if fails else "")

    def sign_in(self, user: str) -> str:
        """Sign somebody in; return the session cookie, as a header."""
        key = self.code.run(
            """
            from django.conf import settings
            from django.contrib.auth import get_user_model
            from django.test import Client
            client = Client()
            client.force_login(get_user_model().objects.get(username=user))
            result = client.cookies[settings.SESSION_COOKIE_NAME].value
            """,
            user=user,
        )
        return f"sessionid={key}"

    def headers(self, user: str, origin: str | None = None) -> dict[str, str]:
        """Give the headers that the browser of a user sends from a page, of the server's own host if not said."""
        return {"Cookie": self.sign_in(user), "Origin": origin or self.server.url}

    def close(self) -> None:
        """End its processes."""
        self.server.close()
        if self._code is not None:
            self._code.close()


@pytest.fixture(scope="session")
def migrated_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file of a project whose tables, people and note are there."""
    project = Project(tmp_path_factory.mktemp("django") / "app")
    try:
        project.manage("migrate", "-v0")
        project.manage("demo")
    finally:
        project.close()
    return project.directory / "db.sqlite3"


@contextmanager
def sqlite_project(file: Path, directory: Path, settings: str = "") -> Iterator[Project]:
    """Make a project on a copy of a SQLite file."""
    project = Project(directory, settings)
    shutil.copy(file, directory / "db.sqlite3")
    try:
        yield project
    finally:
        project.close()


@contextmanager
def postgres_project(url: str, directory: Path, settings: str = "") -> Iterator[Project]:
    """Make a project in a database of PostgreSQL, and the tables in it."""
    from collab.storage.urls import parse_database_url

    address = parse_database_url(url).address
    assert address is not None
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": address.parameters["database"],
        "USER": address.parameters["user"],
        "HOST": address.targets[0].host,
        "PORT": str(address.targets[0].port or ""),
    }
    project = Project(directory, f"DATABASES = {{'default': {database!r}}}\n{textwrap.dedent(settings)}")
    try:
        project.manage("migrate", "-v0")
        project.manage("demo")
        yield project
    finally:
        project.close()
