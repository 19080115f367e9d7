"""The setting COLLAB: what is taken from it and from the rest of Django's settings, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from collab.errors import ConfigurationError
from collab.net import Peer
from collab.storage.urls import parse_database_url
from tests.support.django import configure

configure()

from collab.contrib.django.access import is_trusted  # noqa: E402
from collab.contrib.django.checks import check_settings  # noqa: E402
from collab.contrib.django.conf import Conf, database_url, get_conf, read_conf  # noqa: E402

# Nothing is connected to: only what is made of the setting is looked at.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")


def permission(user: Any, document: str) -> str:
    return "read"


PERMISSION = f"{__name__}.permission"
SQLITE = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    with override_settings(DATABASES=SQLITE):
        yield
    get_conf.cache_clear()


def conf(**given: object) -> Conf:
    with override_settings(COLLAB={"PERMISSION": PERMISSION, **given}):
        return get_conf()


def test_a_function_is_all_that_is_needed(tmp_path: Path) -> None:
    with override_settings(BASE_DIR=tmp_path):
        found = conf()
    settings = found.server_settings()
    assert found.permission is permission
    assert (settings.data_dir, settings.database_url) == (tmp_path / "data", None)
    # The secret follows from Django's, and is not it.
    assert settings.jwt_secret == found.secret and len(found.secret) == 64
    with override_settings(SECRET_KEY="another one, as long as it has to be, for a test"):
        assert conf().secret != found.secret
    assert found.secret not in repr(found)


def test_all_that_the_server_knows_can_be_said() -> None:
    found = conf(PORT=4321, IDLE_SECONDS=7, ALLOWED_ORIGINS=["https://app.example"], JWT_SECRET="x" * 32)
    settings = found.server_settings({"port": "5000"})
    assert (settings.port, settings.idle_seconds, settings.allowed_origins) == (5000, 7.0, ("https://app.example",))
    assert (found.server_url, found.secret) == ("http://127.0.0.1:4321", "x" * 32)
    assert conf(SERVER_URL="https://collab.example/x/").server_url == "https://collab.example/x"
    assert conf(HOST="::1").server_url == "http://[::1]:1234"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"PERMISION": 1}, "COLLAB has an unknown key 'PERMISION'; did you mean PERMISSION?"),
        ({"port": 1}, "COLLAB has an unknown key 'port'; did you mean PORT?"),
        ({"PORT": -1}, "COLLAB['PORT']: must be greater than or equal to 0, not -1"),
        ({"JWT_SECRET": "short"}, "the secret has 5 bytes and HS256 needs at least 32"),
        ({"RECHECK_SECONDS": 0}, "COLLAB['RECHECK_SECONDS'] is a number from 1 to 86400, not 0"),
        ({"THREADS": True}, "COLLAB['THREADS'] is a number from 1 to 100, not True"),
        ({"SERVER_URL": "127.0.0.1:1234"}, "COLLAB['SERVER_URL'] is an address as in http://127.0.0.1:1234"),
        ({"SCHEMA": "My Schema"}, "COLLAB['SCHEMA'] is the name of a schema, in lower case, not 'My Schema'"),
        ({"DATABASE": "other"}, "COLLAB['DATABASE'] is a key of DATABASES, not 'other'"),
        ({"DATABASE": "default"}, "COLLAB['DATABASE']: 'default' is no PostgreSQL database"),
        ({"WORKERS": 2}, "COLLAB['WORKERS']: collab_serve is one process"),
        ({"AUTH_URL": "https://app.example/x"}, "COLLAB['AUTH_URL'] goes without this application"),
        ({"PERMISSION": "nowhere.permission"}, "COLLAB['PERMISSION']: No module named 'nowhere'"),
        ({"PERMISSION": 7}, "COLLAB['PERMISSION'] is the dotted path of a function"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, object], said: str) -> None:
    with override_settings(COLLAB={"PERMISSION": PERMISSION, **given}):
        errors = [str(each.msg) for each in check_settings(None)]
        assert len(errors) == 1 and said in errors[0], errors
        with pytest.raises(ConfigurationError, match="COLLAB|secret"):
            get_conf()


def test_all_of_it_is_named_at_once() -> None:
    with override_settings(COLLAB={"PORT": -1, "NONSENSE": 1}):
        assert len(read_conf()[1]) == 3
    with override_settings(COLLAB=[]):
        assert read_conf() == (None, ["COLLAB is a dict whose keys are texts"])


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"NAME": "app"}, "postgresql:///app?options=-csearch_path%3Ddocs"),
        (
            {"NAME": "app", "USER": "ada", "PASSWORD": "p@ss/word", "HOST": "db.example", "PORT": 5433},
            "postgresql://ada:p%40ss%2Fword@db.example:5433/app?options=-csearch_path%3Ddocs",
        ),
        (
            {"NAME": "app", "HOST": "/run/postgresql", "PORT": "5433"},
            "postgresql:///app?host=%2Frun%2Fpostgresql&port=5433&options=-csearch_path%3Ddocs",
        ),
        (
            {"NAME": "app", "HOST": "::1", "OPTIONS": {"sslmode": "require", "pool": True, "isolation_level": 2}},
            "postgresql://[::1]/app?sslmode=require&options=-csearch_path%3Ddocs",
        ),
        (
            {"NAME": "app", "OPTIONS": {"options": "-c search_path=app", "connect_timeout": 5.0}},
            "postgresql:///app?options=-c%20search_path%3Dapp%20-csearch_path%3Ddocs&connect_timeout=5",
        ),
    ],
)
def test_the_database_of_the_project_is_the_servers(given: dict[str, Any], url: str) -> None:
    database = {"ENGINE": "django.db.backends.postgresql", **given}
    assert database_url(database, "docs") == url
    parse_database_url(url)
    with override_settings(DATABASES={"default": database}):
        found = conf(SCHEMA="docs")
        assert (found.server_settings().database_url, found.database) == (url, "default")
        # What is said plainly comes first.
        assert conf(DATABASE_URL="sqlite:///other.db").server_settings().database_url == "sqlite:///other.db"


def peer(host: str, *, secure: bool = True) -> Peer:
    return Peer("203.0.113.7", "203.0.113.7", True, False, secure, host)


@pytest.mark.parametrize(
    ("origin", "host", "secure", "trusted"),
    [
        ("https://app.example", "app.example", True, True),
        ("https://app.example:8443", "app.example:8443", True, True),
        ("http://app.example", "app.example", False, True),
        ("http://app.example", "app.example", True, False),  # whoever is on the way can serve that page
        ("https://app.example", "collab.example", True, True),  # in ALLOWED_HOSTS
        ("https://app.example:8443", "collab.example", True, False),  # another service of that machine
        ("https://x.sub.example", "collab.example", True, True),
        ("https://forms.example", "collab.example", True, True),  # in CSRF_TRUSTED_ORIGINS
        ("https://a.b.wild.example", "collab.example", True, True),
        ("https://wild.example", "collab.example", True, False),
        ("https://evilwild.example", "collab.example", True, False),
        ("https://evil.example", "collab.example", True, False),
        ("https://evil.example", "evil.example", True, False),  # a name that somebody has pointed at the server
        ("https://app.example.evil.example", "collab.example", True, False),
        ("null", "app.example", True, False),
        ("", "app.example", True, False),
        ("file://", "", True, False),
        ("https://", "", True, False),
    ],
)
def test_pages_that_may_act_for_their_visitors(origin: str, host: str, secure: bool, trusted: bool) -> None:
    with override_settings(
        DEBUG=False,
        ALLOWED_HOSTS=["app.example", ".sub.example"],
        CSRF_TRUSTED_ORIGINS=["https://forms.example", "https://*.wild.example"],
    ):
        assert is_trusted(origin, peer(host, secure=secure)) is trusted


def test_all_hosts_are_no_list_of_the_projects_own() -> None:
    with override_settings(DEBUG=False, ALLOWED_HOSTS=["*"]):
        assert is_trusted("https://app.example", peer("app.example"))
        assert not is_trusted("https://evil.example", peer("app.example"))


def test_on_the_machine_of_a_developer_the_pages_come_from_another_port() -> None:
    with override_settings(DEBUG=True, ALLOWED_HOSTS=[]):
        assert is_trusted("http://localhost:8000", peer("localhost:1234", secure=False))
        assert is_trusted("http://127.0.0.1:8000", peer("127.0.0.1:1234", secure=False))
        assert not is_trusted("http://evil.example:8000", peer("localhost:1234", secure=False))
