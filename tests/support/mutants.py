"""Invert one condition at a time, and see that the fast tests notice.

Strategy: each mutant changes one place of one file: a condition becomes ``not (...)``, a ``case`` is never taken, an
``except`` catches nothing, a table loses one row. It is written into a copy of the tree, never in place, and the tests
of ``make check`` run there until the first fails: first those that mirror the file (``tests/engine/test_room.py`` for
``collab/engine/room.py``), then those of protocol, update and engine, then all others. A test that fails, hangs or
runs out of memory has caught the mutant. What no test can see (a short cut that changes the cost and nothing else)
stands in ``equal_mutants.toml`` beside this file, with the reason.

mutmut and cosmic-ray were looked at first. The one has no operator that inverts a condition; the other puts a ``not``
before the first operand only, leaves out every ``elif`` and changes the files in place.

    python -m tests.support.mutants [--jobs N] [--list] FILE[:LINE]...
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EQUAL = Path(__file__).with_name("equal_mutants.toml")

# A mutant may loop for ever, and allocate while it does.
_TEST_SECONDS = 20
_MEMORY = 6 << 30

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: ``file[start:stop]``, in bytes, becomes ``new``; ``what`` shows it in one line."""

    file: Path
    line: int
    start: int
    stop: int
    new: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.what}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: the test that caught it, the reason why none can, or nothing."""

    mutant: Mutant
    caught_by: str | None = None
    equal: str | None = None


class _Finder(ast.NodeVisitor):
    """Collect the mutants of one file."""

    def __init__(self, file: Path, source: bytes) -> None:
        self.file = file
        self.found: dict[tuple[int, int, bytes], Mutant] = {}
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def _span(self, node: ast.expr | ast.pattern) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.expr | ast.pattern) -> str:
        start, stop = self._span(node)
        return " ".join(self._source[start:stop].decode().split())

    def _add(self, line: int, start: int, stop: int, new: bytes, what: str) -> None:
        self.found.setdefault((start, stop, new), Mutant(self.file, line, start, stop, new, what))

    def invert(self, node: ast.expr) -> None:
        start, stop = self._span(node)
        self._add(node.lineno, start, stop, b"(not (%b))" % self._source[start:stop], f"not ({self._text(node)})")

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.invert(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self.invert(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.invert(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self.invert(condition)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.invert(node)
        for operand in node.values:
            self.invert(operand)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        self.invert(node)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.invert(node)
        self.generic_visit(node)

    def visit_match_case(self, node: ast.match_case) -> None:
        if node.guard is not None:
            self.invert(node.guard)
        elif not (isinstance(node.pattern, ast.MatchAs) and node.pattern.pattern is None):
            _, stop = self._span(node.pattern)
            self._add(node.pattern.lineno, stop, stop, b" if False", f"never: case {self._text(node.pattern)}")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            start, stop = self._span(node.type)
            self._add(node.lineno, start, stop, b"()", f"never: except {self._text(node.type)}")
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """An assertion decides nothing."""

    def rows(self, tree: ast.Module) -> None:
        """Take one row out of each table: a dict literal of the module."""
        for statement in tree.body:
            value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
            if not isinstance(value, ast.Dict) or len(value.values) < 2:
                continue
            for key, one in zip(value.keys, value.values, strict=True):
                if key is None:
                    continue
                start, stop = self._span(key)[0], self._span(one)[1]
                # The comma behind the row goes with it.
                rest = re.match(rb"\s*,", self._source[stop:])
                self._add(
                    key.lineno,
                    start,
                    stop + (rest.end() if rest else 0),
                    b"",
                    f"no row: {self._text(key)}: {self._text(one)}",
                )


def mutants_of(file: Path) -> list[Mutant]:
    """Return the mutants of a file, given relative to the root, in the order of its lines."""
    source = (ROOT / file).read_bytes()
    tree = ast.parse(source)
    finder = _Finder(file, source)
    finder.visit(tree)
    finder.rows(tree)
    return sorted(finder.found.values(), key=lambda one: (one.line, one.start, -one.stop))


def mirrors(file: Path) -> list[str]:
    """Return the tests that mirror a file: ``tests/a/test_b.py`` or the folder ``tests/a/b`` for ``collab/a/b.py``."""
    inside = file.relative_to("collab").with_suffix("")
    below = Path("tests", *inside.parts[:-1])
    candidates = [
        below / f"test_{inside.name}.py",
        below / inside.name,
        *sorted((ROOT / below).glob(f"test_{inside.name}_*.py")),
    ]
    if len(inside.parts) > 2:  # the tests of a small package may share one file
        candidates += sorted((ROOT / below.parent).glob(f"test_{below.name}*.py"))
    found = [one.relative_to(ROOT) if one.is_absolute() else one for one in candidates if (ROOT / one).exists()]
    return [str(one) for one in found]


def stages(file: Path) -> list[list[str]]:
    """Return the arguments of pytest for each stage, the nearest tests first; together they run all fast tests."""
    near = mirrors(file)
    core = ["tests/protocol", "tests/update", "tests/engine"]
    return [
        *([near] if near else []),
        [*core, *(f"--ignore={one}" for one in near)],
        ["tests", *(f"--ignore={one}" for one in core)],
    ]


def _tree() -> list[str]:
    """Return the files of the tree as they are now, without what is built or installed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [name for name in listed if (ROOT / name).is_file()]


class Copy:
    """A copy of the tree in which tests run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in _tree():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("COLLAB_", "PYTEST_"))},
            # What is started in another folder has to find the copy too.
            "PYTHONPATH": str(folder),
        }
        # Compiled once: what pytest does to a module of tests takes longer than most tests.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(self, arguments: Sequence[str], seconds: float | None) -> tuple[str | None, float]:
        """Run fast tests up to the first failure; return it, None if there is none, and how long that took."""
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-m",
            "fast",
            "--small",
            "--no-header",
            "--tb=no",
            "-p",
            "no:cacheprovider",
            "--timeout",
            str(_TEST_SECONDS),
            *arguments,
        ]
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY)),
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "no end", time.monotonic() - began
        took = time.monotonic() - began
        if process.returncode in (0, 5):  # 5: none of these tests is a fast one
            return None, took
        failed = _FAILED.search(output)
        if failed:
            return failed[1], took
        # pytest itself ended: the timeout of a test, a crash, or no memory.
        found = re.search(r"Timeout|MemoryError|Error", output)
        return (found[0] if found else f"exit code {process.returncode}"), took

    def judge(self, mutant: Mutant, seconds: Sequence[float]) -> Verdict:
        """Put the mutant into the copy, run the tests stage by stage, and take it out again."""
        path = self.folder / mutant.file
        source = path.read_bytes()
        path.write_bytes(source[: mutant.start] + mutant.new + source[mutant.stop :])
        self._forget(path)
        try:
            for arguments, limit in zip(stages(mutant.file), seconds, strict=True):
                caught_by, _ = self.run(arguments, limit)
                if caught_by is not None:
                    return Verdict(mutant, caught_by)
            return Verdict(mutant)
        finally:
            path.write_bytes(source)
            self._forget(path)

    @staticmethod
    def _forget(path: Path) -> None:
        # A compiled module is known by second and size, which two mutants may share.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def read_equal(mutants: Sequence[Mutant]) -> dict[Mutant, str]:
    """Return the mutants that no test can see, with the reason.

    Raises ValueError for an entry of the list that is about one of their files and fits none of them, or several.
    """
    files = {mutant.file for mutant in mutants}
    equal: dict[Mutant, str] = {}
    for entry in tomllib.loads(EQUAL.read_text()).get("mutant", []):
        if Path(entry["file"]) not in files:
            continue
        fitting = [one for one in mutants if (str(one.file), one.what) == (entry["file"], entry["what"])]
        nth = entry.get("nth")
        if nth is not None:
            fitting = fitting[nth - 1 : nth]
        if len(fitting) != 1:
            raise ValueError(f"{EQUAL.name}: {len(fitting)} mutants are {entry['file']} {entry['what']!r}, not one")
        equal[fitting[0]] = entry["why"]
    return equal


def judge_all(mutants: Sequence[Mutant], jobs: int) -> Iterator[Verdict]:
    """Judge each mutant, ``jobs`` of them side by side; verdicts come as they are ready."""
    files = sorted({mutant.file for mutant in mutants})
    with tempfile.TemporaryDirectory(prefix="collab-mutants-") as folder:
        copies: queue.Queue[Copy] = queue.Queue()
        for number in range(jobs):
            copies.put(Copy(Path(folder) / str(number)))

        def sound(file: Path) -> list[float]:
            """Run the tests as they are, for the time that they take; a mutant gets five times that."""
            copy = copies.get()
            try:
                limits = []
                for arguments in stages(file):
                    failed, took = copy.run(arguments, None)
                    if failed is not None:
                        raise SystemExit(f"mutants: without any mutant {failed} fails")
                    limits.append(5 * took + 2 * _TEST_SECONDS)
                return limits
            finally:
                copies.put(copy)

        def judge(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                return copy.judge(mutant, limits[mutant.file])
            finally:
                copies.put(copy)

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            limits = dict(zip(files, pool.map(sound, files), strict=True))
            for done in concurrent.futures.as_completed([pool.submit(judge, mutant) for mutant in mutants]):
                yield done.result()


def main(arguments: Sequence[str]) -> int:
    """Judge the mutants of the files; return 1 if one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE[:LINE]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    options = parser.parse_args(arguments)

    mutants: list[Mutant] = []
    chosen: list[Mutant] = []
    for given in options.files:
        name, _, line = given.partition(":")
        of_file = mutants_of((ROOT / name).resolve().relative_to(ROOT))
        mutants += of_file
        chosen += [mutant for mutant in of_file if not line or mutant.line == int(line)]
    if options.list:
        print(*chosen, sep="\n")
        return 0

    equal = read_equal(mutants)
    verdicts = [Verdict(mutant, equal=equal[mutant]) for mutant in chosen if mutant in equal]
    for verdict in verdicts:
        print(f"equal     {verdict.mutant}  ({verdict.equal})", flush=True)
    for verdict in judge_all([mutant for mutant in chosen if mutant not in equal], options.jobs):
        verdicts.append(verdict)
        by = verdict.caught_by
        print(f"caught    {verdict.mutant}  by {by}" if by else f"SURVIVED  {verdict.mutant}", flush=True)

    survived = sorted((one.mutant for one in verdicts if not one.caught_by and not one.equal), key=str)
    print(f"\n{'file':48s} mutants  caught  equal  survived")
    for file in sorted({mutant.file for mutant in chosen}):
        mine = [one for one in verdicts if one.mutant.file == file]
        caught, same = sum(bool(one.caught_by) for one in mine), sum(bool(one.equal) for one in mine)
        print(f"{file!s:48s} {len(mine):7d} {caught:7d} {same:6d} {len(mine) - caught - same:9d}")
    if survived:
        print("\nsurvived:", *survived, sep="\n  ")
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
