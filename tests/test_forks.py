"""Servers that are forked for the tests are what `python -m` gives: `tests/support/forks.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import forks

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not forks.available(), reason="elsewhere tests start Python for each server (ServerProcess)"),
]

_SAYS_WHAT_IT_IS = """
import json, os, sys
main = sys.modules["__main__"]
print(json.dumps({
    "name": __name__, "file": main.__file__, "arguments": sys.argv[1:], "directory": os.getcwd(),
    "environment": dict(os.environ), "leads": os.getsid(0) == os.getpid(), "standard_input": sys.stdin.read(),
}))
print("and this", file=sys.stderr)
"""


def _script(tmp_path: Path, text: str) -> str:
    file = tmp_path / "program.py"
    file.write_text(text)
    return str(file)


def test_a_forked_program_has_arguments_environment_directory_and_pipes_of_its_own(tmp_path: Path) -> None:
    script = _script(tmp_path, _SAYS_WHAT_IT_IS)
    process = forks.start([script, "one", "--two"], environment={"ONLY": "this"}, directory=tmp_path)
    with process.stdout, process.stderr:
        said = json.loads(process.stdout.read())
        assert said == {
            "name": "__main__",
            "file": script,
            "arguments": ["one", "--two"],
            "directory": str(tmp_path),
            "environment": {"ONLY": "this"},
            "leads": True,
            "standard_input": "",
        }
        assert process.stderr.read() == "and this\n"
    assert process.wait(30) == 0


def test_a_forked_module_says_what_python_says(tmp_path: Path) -> None:
    arguments = ["-m", "collab", "documents", "list", "--database-url", f"sqlite:///{tmp_path}/none.sqlite3"]
    environment = {"PATH": os.environ["PATH"]}
    anew = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=Path.cwd(), capture_output=True, text=True, check=False
    )
    process = forks.start(arguments, environment=environment, directory=Path.cwd())
    with process.stdout, process.stderr:
        assert (process.stdout.read(), process.stderr.read()) == (anew.stdout, anew.stderr)
    assert process.wait(30) == anew.returncode != 0


def test_signals_and_exit_codes_come_through(tmp_path: Path) -> None:
    script = _script(tmp_path, "import sys\nprint('ready')\nsys.stdin = None\nimport time\ntime.sleep(300)")
    process = forks.start([script], environment={}, directory=tmp_path)
    with process.stdout, process.stderr:
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(30) == -signal.SIGKILL == process.poll()
    process.kill()  # It has ended: nobody else may be reached.

    script = _script(tmp_path, "raise SystemExit(7)")
    process = forks.start([script], environment={}, directory=tmp_path)
    with process.stdout, process.stderr:
        assert process.wait(30) == 7


def test_what_is_printed_is_gathered_and_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    script = _script(tmp_path, "import sys\nprint('a' * 200_000)\nprint('b' * 200_000, file=sys.stderr)")
    process = forks.start([script], environment={}, directory=tmp_path)
    assert process.communicate(timeout=30) == ("a" * 200_000 + "\n", "b" * 200_000 + "\n")
    assert process.returncode == 0

    process = forks.start([_script(tmp_path, "import time\ntime.sleep(300)")], environment={}, directory=tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.1)
    assert process.wait(30) == -signal.SIGKILL
