"""What `Dockerfile` makes, without a container engine: its stages, run in empty roots.

Strategy: the file is read, and its instructions are followed one by one, so nothing of it stands here a second time. A
root is made by bubblewrap: an empty directory in memory, into which what an image would hold is mounted. The Python
that runs this test, with the libraries that it needs, stands for the base image; the rest of this machine is not there,
no shell either. The stage that builds the page is not run: the page that `make` has built stands for it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.needs import demand
from tests.support.snippets import ROOT

_BASE = Path(sys.base_prefix)


@dataclass
class Stage:
    """One stage of the file: its base, its name, and its instructions in their order, each with its text."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def texts(self, instruction: str) -> list[str]:
        """Give what stands behind one kind of instruction."""
        return [text for kind, text in self.steps if kind == instruction]

    def words(self, instruction: str) -> list[str]:
        """Give the words of the last instruction of a kind, which is written as a JSON array."""
        words: list[str] = json.loads(re.sub(r"^[^\[]*", "", self.texts(instruction)[-1]))
        return words

    @property
    def environment(self) -> dict[str, str]:
        """Give what ``ENV`` sets, with ``$PATH`` as the base has it."""
        base = "/usr/local/bin:/usr/bin:/bin"
        pairs = [word.partition("=") for text in self.texts("ENV") for word in shlex.split(text)]
        return {"PATH": base} | {name: value.replace("$PATH", base) for name, _, value in pairs}


def stages(text: str) -> list[Stage]:
    """Read a Dockerfile."""
    found: list[Stage] = []
    joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, joined.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        elif found:
            found[-1].steps.append((instruction, rest.strip()))
    return found


def context(directory: Path) -> Path:
    """Copy what `.dockerignore` lets through to the builder, of the files that git knows."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, known.split("\0")):
        if any(name == rule or name.startswith(f"{rule}/") for rule in allowed) and (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)
    return directory


def bubblewrap() -> str:
    """Give the path of bubblewrap."""
    demand("image")
    found = shutil.which("bwrap")
    assert found is not None, "this test needs bubblewrap; install it with: apt install bubblewrap"
    return found


class Image:
    """The image, in a directory of the test's.

    Args:
        directory: for what the stages make; must be there.
        page: the built page, for the stage that builds it.
    """

    def __init__(self, directory: Path, page: Path) -> None:
        self.directory = directory
        self.page, self.server, self.last = stages((ROOT / "Dockerfile").read_text())
        self._built = page

    def build(self) -> None:
        """Follow the stage ``server``: its files, then its commands, which write to ``/src`` and ``/opt``."""
        source, made = self.directory / "src", self.directory / "opt"
        files = context(self.directory / "context")
        for path in (source, made):
            path.mkdir()
        for instruction, text in self.server.steps:
            if instruction == "COPY":
                self._copy(files, source, shlex.split(text))
            elif instruction == "RUN":
                subprocess.run(
                    [
                        bubblewrap(),
                        "--unshare-pid",
                        "--die-with-parent",
                        "--dev",
                        "/dev",
                        "--proc",
                        "/proc",
                        *_ours("/usr", "/bin", "/lib", "/lib64", "/etc", "/run/systemd/resolve", str(_BASE)),
                        "--tmpfs",
                        "/tmp",
                        "--bind",
                        str(source),
                        "/src",
                        "--bind",
                        str(made),
                        "/opt",
                        "--chdir",
                        "/src",
                        *self._cache(),
                        "--setenv",
                        "PATH",
                        f"{_BASE}/bin:/usr/bin:/bin",
                        "--unsetenv",
                        "PYTHONPATH",
                        "/bin/sh",
                        "-ec",
                        text,
                    ],
                    capture_output=True,
                    text=True,
                    timeout=240,
                    check=True,
                )

    def _cache(self) -> list[str]:
        """Let pip keep what it fetches, which the image does not: fetching takes longer than all else."""
        assert "PIP_NO_CACHE_DIR" in self.server.environment
        kept = Path.home() / ".cache" / "pip"
        kept.mkdir(parents=True, exist_ok=True)
        return ["--bind", str(kept), str(kept), "--setenv", "PIP_CACHE_DIR", str(kept)]

    def _copy(self, files: Path, target: Path, words: list[str]) -> None:
        origin = files
        if words[0].startswith("--from="):
            assert words[0] == f"--from={self.page.name}", words
            # What that stage has made, as its own instructions place it.
            assert words[1] == f"{self.page.texts('WORKDIR')[-1]}/dist", words
            shutil.copytree(self._built, target / words[-1])
            return
        *names, to = words
        for name in names:
            path = origin / name
            if path.is_dir():
                shutil.copytree(path, target / to)
            else:
                assert path.is_file(), f"{name} does not reach the builder: see .dockerignore"
                directory = target / to
                directory.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, directory)

    def root(self, data: Path) -> list[str]:
        """Give the command that runs another one in the image's root, as its user; ``data`` alone can be written."""
        user, _, group = self.last.texts("USER")[-1].partition(":")
        mounts: list[str] = []
        for text in self.last.texts("COPY"):
            *options, origin, target = shlex.split(text)
            assert options[0] == f"--from={self.server.name}", text
            if target in self.last.words("VOLUME"):
                mounts += ["--bind", str(data), target]
            else:
                mounts += ["--ro-bind", f"{self.directory}{origin}", target]
        environment = [word for pair in self.last.environment.items() for word in ("--setenv", *pair)]
        return [
            bubblewrap(),
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--die-with-parent",
            "--uid",
            user,
            "--gid",
            group,
            "--as-pid-1",
            "--clearenv",
            *environment,
            *_ours(str(_BASE), *self._libraries),
            *mounts,
            "--dir",
            "/tmp",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--remount-ro",
            "/",
            "--chdir",
            self.last.texts("WORKDIR")[-1],
        ]

    @functools.cached_property
    def _libraries(self) -> list[str]:
        """Give the shared libraries of the machine that Python and the installed packages need."""
        modules = [*(self.directory / "opt").rglob("*.so*")]
        modules += [_BASE / "bin" / "python3", *(_BASE / "lib").glob("python3.*/lib-dynload/*.so")]
        done = subprocess.run(["ldd", *map(str, modules)], capture_output=True, text=True, check=False)
        needed = set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE))
        return sorted(path for path in needed if not path.startswith((str(_BASE), str(self.directory))))


def _ours(*paths: str) -> list[str]:
    """Mount paths of this machine where they are, read-only."""
    return [word for path in paths if os.path.exists(path) for word in ("--ro-bind", path, path)]


class Container:
    """One process that runs in the root of an image; use as a context manager."""

    def __init__(self, image: Image, data: Path, command: Sequence[str], environment: dict[str, str]) -> None:
        more = [word for pair in environment.items() for word in ("--setenv", *pair)]
        told, tells = os.pipe()
        root = image.root(data)
        with os.fdopen(told) as answers:
            self.process = subprocess.Popen(
                [*root, *more, "--info-fd", str(tells), "--", *command],
                pass_fds=(tells,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            os.close(tells)
            text = answers.read()
        self.pid: int | None = json.loads(text)["child-pid"] if text else None

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal to the process, as an engine does, and give its exit code and what it has printed."""
        assert self.pid is not None
        os.kill(self.pid, number)
        return self.end()

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; give the exit code and what it has printed."""
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out, errors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
