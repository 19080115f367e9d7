"""What a serving process loads, and what a fresh clone installs from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_a_serving_process_loads_neither_pycrdt_nor_what_tests_it() -> None:
    modules = loaded_by("import collab.app, collab.cli.commands")
    assert "collab.hub.hub" in modules
    assert not {"pycrdt", "pytest", "collab.testing"} & modules


def test_the_asgi_application_needs_no_framework_and_no_server() -> None:
    modules = loaded_by("import collab.asgi")
    assert "collab.transports.asgi.exchange" in modules
    assert not {"pycrdt", "starlette", "fastapi", "uvicorn", "hypercorn", "granian", "h11", "httpx"} & modules


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    modules = loaded_by("import collab.cli.commands")
    assert not {"sqlalchemy", "aiohttp", "asyncpg", "pebble", "alembic", "collab.app"} & modules


def test_a_process_of_the_sandbox_loads_nothing_of_the_command_line() -> None:
    # What `multiprocessing` imports in it: the module that was started, or the script ``collab`` of the package.
    modules = loaded_by("import collab.__main__\nfrom collab.cli import main\nimport collab.sandbox.jobs")
    assert not {"typer", "pydantic", "collab.settings", "collab.cli.commands"} & modules


@pytest.mark.parametrize("module", ["collab.update", "collab.engine.document", "collab.engine.room"])
def test_protocol_and_engine_load_nothing_that_does_io(module: str) -> None:
    modules = loaded_by(f"import {module}")
    assert not {"asyncio", "socket", "selectors", "logging", "aiohttp", "sqlalchemy", "pycrdt"} & modules


def test_lock_files_name_no_host() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in constraints
    assert all(re.match(r"[a-z0-9][a-z0-9._-]*==\S+( ; .+)?$", line) for line in constraints.splitlines())
    locks = [path for path in ROOT.rglob("package-lock.json") if "node_modules" not in path.parts]
    assert locks
    for lock in locks:
        # A folder of this repository may be named; an address may not.
        assert not re.search(r'"resolved": "[a-z+]+:', lock.read_text(encoding="utf-8")), lock
