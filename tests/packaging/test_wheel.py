"""The wheel alone: what somebody gets who has neither the clone nor Node."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("wheel")]


def clean_environment(**more: str) -> dict[str, str]:
    """Give an environment in which nothing of this checkout or of the developer's options is left."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("COLLAB_", "PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def run(command: list[str], cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=clean_environment(**more), capture_output=True, text=True, timeout=240, check=False
    )


def build(source: Path, target: str, out: Path) -> subprocess.CompletedProcess[str]:
    """Build with the backend itself: what ``pip wheel`` calls, without fetching it again."""
    return run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)], source)


@pytest.fixture(scope="module")
def built_page() -> Path:
    """Give the built page. ``make test`` builds it; without it the wheel cannot be tested and this fails."""
    index = ROOT / "web_demo" / "dist" / "index.html"
    assert index.is_file(), "the page is not built; run: make web"
    return index.parent


@pytest.fixture(scope="module")
def wheel(built_page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist and from it the wheel, as an index does, so that the sdist is known to be whole too."""
    out = tmp_path_factory.mktemp("dist")
    done = build(ROOT, "sdist", out)
    assert done.returncode == 0, done.stderr
    # Not by tarfile: its filters came with a patch release of 3.11, and leaving them out warns later.
    assert run(["tar", "xzf", str(next(out.glob("*.tar.gz")))], out).returncode == 0
    done = build(next(path for path in out.iterdir() if path.is_dir()), "wheel", out)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into an empty environment and give the path of its ``collab``."""
    home = tmp_path_factory.mktemp("venv") / "v"
    venv.create(home, with_pip=True)
    constraints = ["-c", str(ROOT / "constraints.txt")]
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    done = run([*pip, *constraints, str(wheel)], home)
    assert done.returncode == 0, done.stderr
    return home / "bin" / "collab"


@pytest.fixture
def served(installed: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve from a directory that holds nothing, and give the process and the address it printed."""
    process = subprocess.Popen(
        [str(installed), "serve", "--port", "0"],
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"collab listening on (http://127\.0\.0\.1:\d+)\n", line)
        if found is None:
            process.kill()
            pytest.fail(f"no address but {line!r}; standard error: {process.stderr.read()}")
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def get(url: str) -> tuple[int, str, str]:
    with urllib.request.urlopen(url, timeout=30) as response:
        return response.status, response.headers.get_content_type(), response.read().decode()


def test_the_wheel_holds_the_migrations_the_page_and_the_licence(wheel: Path, built_page: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (path for path in built_page.rglob("*") if path.is_file()):
        assert f"collab/_web/{path.relative_to(built_page).as_posix()}" in names
    for path in (path for path in (ROOT / "migrations").rglob("*") if path.is_file() and path.suffix != ".pyc"):
        assert f"collab/_migrations/{path.relative_to(ROOT / 'migrations').as_posix()}" in names
    assert "collab/py.typed" in names
    # "collab" on PyPI is somebody else's: the distribution is called otherwise, what is imported is not.
    assert wheel.name.startswith("collab_server-")
    assert any(name.endswith("licenses/LICENSE") for name in names)
    top = {name.partition("/")[0] for name in names}
    assert len(top) == 2, f"only the package and its metadata belong into the wheel, not {top}"


def test_migrate_makes_the_database_where_it_is_told(installed: Path, tmp_path: Path) -> None:
    done = run([str(installed), "migrate", "--data-dir", "there"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / "collab.db").is_file()
    again = run([str(installed), "migrate", "--data-dir", "there"], tmp_path)
    assert again.returncode == 0, again.stderr
    listed = run([str(installed), "documents", "list", "--json", "--data-dir", "there"], tmp_path)
    assert (listed.returncode, listed.stdout) == (0, ""), listed.stderr


def test_serve_answers_shows_the_page_and_stops_with_success(
    served: tuple[subprocess.Popen[str], str], built_page: Path, tmp_path: Path
) -> None:
    process, address = served
    assert get(f"{address}/healthz")[0] == 200
    status, kind, page = get(f"{address}/")
    assert (status, kind) == (200, "text/html")
    assert page == (built_page / "index.html").read_text(encoding="utf-8")
    for asset in re.findall(r'(?:src|href)="\./([^"]+)"', page):
        assert get(f"{address}/{asset}")[0] == 200, asset
    process.send_signal(signal.SIGINT)  # which does not wait for proxies
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert (tmp_path / "data" / "collab.db").is_file()


USES = """
def test_it(collab_client):
    with collab_client.sync("notes") as document:
        document.replace_text("content", "x")
"""

SHOWS = """
import sys

def pytest_collection_finish():
    print("loaded:", *sorted(name for name in sys.modules if name.partition(".")[0] == "collab"))
"""


@pytest.mark.timeout(600)
def test_a_project_has_a_server_for_its_tests_by_installing_the_wheel_and_pytest(
    installed: Path, tmp_path: Path
) -> None:
    python = str(installed.parent / "python")
    done = run([python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), "pytest"], tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "test_it.py").write_text(USES)
    (tmp_path / "conftest.py").write_text(SHOWS)
    done = run([python, "-W", "error", "-m", "pytest", "-q", "-s"], tmp_path)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    # The entry point alone loads nothing: other tests of the environment do not pay for it.
    assert "loaded: collab collab.testing collab.testing.plugin\n" in done.stdout, done.stdout


def checkout_without(missing: str, source: Path) -> Path:
    """Copy what a build needs, without one of its parts."""
    source.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / ".ci", source / ".ci")
    shutil.copytree(ROOT / "collab", source / "collab", ignore=shutil.ignore_patterns("__pycache__"))
    for directory, proof in (("web_demo/dist", "index.html"), ("migrations", "env.py")):
        if not directory.startswith(missing):
            (source / directory).mkdir(parents=True)
            (source / directory / proof).touch()
    return source


@pytest.mark.slow
def test_nothing_is_built_without_the_migrations(tmp_path: Path) -> None:
    source = checkout_without("migrations", tmp_path / "source")
    for target in ("wheel", "sdist"):
        done = build(source, target, tmp_path / "dist")
        assert done.returncode != 0
        assert "not complete" in done.stderr
    assert not [path for path in (tmp_path / "dist").rglob("*") if path.suffix in (".whl", ".gz")]


@pytest.mark.slow
def test_without_the_page_it_is_built_with_a_warning(tmp_path: Path) -> None:
    """As ``pip install .`` does it in a clone without Node; test_static.py shows what the server says then."""
    source = checkout_without("web_demo", tmp_path / "source")
    for target in ("wheel", "sdist"):
        done = build(source, target, tmp_path / "dist")
        assert done.returncode == 0, done.stderr
        assert "has no page; build it first with: make web" in done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name.startswith("collab_server-")
    names = zipfile.ZipFile(wheel).namelist()
    assert "collab/_migrations/env.py" in names and not [name for name in names if name.startswith("collab/_web")]
