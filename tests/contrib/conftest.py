"""Projects of Django on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.django import Project, migrated_project, postgres_project, sqlite_project

__all__ = ["migrated_project"]


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what shares a project in one process, else each process starts its own."""
    for item in items:
        shares = {"migrated_project", "started_project"} & set(getattr(item, "fixturenames", ()))
        if shares and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("django"))


@pytest.fixture
def project(migrated_project: Path, tmp_path: Path) -> Iterator[Project]:  # noqa: F811
    """A project on SQLite."""
    with sqlite_project(migrated_project, tmp_path / "app") as project:
        yield project


@pytest.fixture(scope="module")
def started_project(migrated_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:  # noqa: F811
    """A project on SQLite whose server runs for all tests of a file."""
    with sqlite_project(migrated_project, tmp_path_factory.mktemp("started") / "app") as project, project.server:
        yield project


@pytest.fixture
def running(started_project: Project) -> Project:
    """That project, as it was: Grace is there and may write Ada's note."""
    started_project.code.run(
        """
        from django.contrib.auth import get_user_model
        from notes.models import Note, Share
        from collab.contrib.django import changed
        from collab.contrib.django.models import PendingEdit
        import time
        end = time.monotonic() + 60
        while PendingEdit.objects.filter(failed=False).exists():  # that of the note, and of the test before
            assert time.monotonic() < end
            time.sleep(0.02)
        get_user_model().objects.update(is_active=True)
        grace = get_user_model().objects.get(username="grace")
        Share.objects.update_or_create(note_id=1, user=grace, defaults={"access": "write"})
        """
    )
    return started_project


@pytest.fixture(params=["sqlite", "postgresql"])
def any_project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """A project on SQLite, and one whose rows and documents are in one PostgreSQL."""
    if request.param == "sqlite":
        with sqlite_project(request.getfixturevalue("migrated_project"), tmp_path / "app") as project:
            yield project
        return
    url = request.getfixturevalue("empty_postgres_url")
    with postgres_project(url, tmp_path / "app", "COLLAB |= {'MIGRATE': True}") as project:
        yield project
