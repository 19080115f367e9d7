"""docs/testing.md: its tests run in a process of their own, as in a project of somebody else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.snippets import snippet

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_tests_pass_with_the_settings_that_are_shown(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        test_first=snippet("docs/testing.md", "Testing an application that uses the server", "python"),
        test_any=snippet("docs/testing.md", "Testing an application that uses the server", "python", 2),
        test_tokens=snippet("docs/testing.md", "Users and tokens", "python"),
        test_options=snippet("docs/testing.md", "Options", "python"),
        test_mounted=snippet("docs/testing.md", "In your own application", "python"),
    )
    pytester.makepyprojecttoml(
        snippet("docs/testing.md", "Options", "toml") + "asyncio_default_fixture_loop_scope = 'function'"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.runpytest_subprocess("-p", "collab.testing.plugin", "-p", "asyncio", "-q").assert_outcomes(passed=5)


def test_a_server_runs_without_pytest(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(snippet("docs/testing.md", "Without pytest", "python"), "a snippet", "exec"), {})
    assert re.fullmatch(r"ws://127\.0\.0\.1:\d+/hocuspocus\n", capsys.readouterr().out)
