"""The markers of tests: they follow from what a test uses, and nothing is started without them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.browser.conftest import chromium
from tests.support.needs import NEEDS, WHOLE, function_of, long_tests, needs_of
from tests.support.node import NodeScript, find_node, installed_packages
from tests.support.postgres import PostgresServer
from tests.support.prometheus import find_program
from tests.support.proxies import KINDS, find_proxy
from tests.support.server import ServerProcess, collab_command

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("folder", "fixtures", "parameters", "needs"),
    [
        ("protocol", [], [], set()),
        ("storage", ["tmp_path", "backend"], ["sqlite"], set()),
        ("storage", ["tmp_path", "backend"], ["postgresql"], {"postgres"}),
        ("storage", ["postgres_url", "postgres_server"], [], {"postgres"}),
        ("interop", [], [], {"node", "server"}),
        ("browser", ["browser"], [{}], {"browser", "page", "server"}),
        ("protocol", ["installed_peer"], [], {"node"}),
    ],
)
def test_needs_follow_from_what_a_test_uses(
    folder: str, fixtures: list[str], parameters: list[Any], needs: set[str]
) -> None:
    assert needs_of(folder, fixtures, parameters) == needs


STARTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "Node": (lambda path: find_node(), "node"),
    "npm": (lambda path: installed_packages(), "node"),
    "a script": (lambda path: NodeScript("yjs_fuzz.mjs").__enter__(), "node"),
    "PostgreSQL": (lambda path: PostgresServer(path), "postgres"),
    "Chromium": (lambda path: chromium(), "browser"),
    "a proxy": (lambda path: find_proxy(KINDS["nginx"]), "proxy"),
    "promtool": (lambda path: find_program("promtool"), "prometheus"),
    "a server": (lambda path: ServerProcess(path).start(), "server"),
    "the command line": (lambda path: collab_command("version"), "server"),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_test_that_says_nothing_can_start_nothing(what: str, tmp_path: Path) -> None:
    start, need = STARTS[what]
    with pytest.raises(AssertionError, match=rf"@pytest\.mark\.{need}"):
        start(tmp_path)


def test_a_test_that_has_no_need_is_fast(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("fast") is not None
    assert not any(request.node.get_closest_marker(need) for need in NEEDS)


@pytest.mark.node
def test_a_test_that_has_one_is_not(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("fast") is None
    assert find_node()


def test_what_is_long_is_there_and_of_no_folder_that_is_run_whole() -> None:
    """A function that is gone or renamed leaves the list with the next weighing."""
    assert long_tests()
    for function in long_tests():
        path, *classes, name = function.split("::")
        assert path.split("/")[0] not in WHOLE, function
        # The tests of a suite stand in another file, and its class here.
        source = (ROOT / "tests" / path).read_text()
        assert f"class {classes[0]}" in source if classes else f"def {name}(" in source, function


def test_the_cases_of_a_test_are_of_one_function() -> None:
    assert function_of("tests/hub/test_room.py::TestX::test_y[a::b[0]]") == "hub/test_room.py::TestX::test_y"
    assert function_of("tests/hub/test_room.py::test_y") == "hub/test_room.py::test_y"


# The gate of coverage


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The gate, with floors of its own: 90 % of the lines of ``engine``, 50 % of its branches."""
    spec = importlib.util.spec_from_file_location("coverage_gate", ROOT / ".ci" / "coverage_gate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coverage_gate", module)
    spec.loader.exec_module(module)
    floors = tmp_path / "floors.json"
    floors.write_text(json.dumps({"engine": {"lines": 90.0, "branches": 50.0}}))
    monkeypatch.setattr(module, "FLOORS", floors)
    return module


def report(tmp_path: Path, lines: int, branches: int) -> str:
    """A report of 100 lines and 100 branches, of which so many were run."""
    figures = {
        "summary": {"covered_lines": lines, "num_statements": 100, "covered_branches": branches, "num_branches": 100},
        "missing_lines": [7, 9] if lines < 100 else [],
        "missing_branches": [[6, 7], [8, -1]] if branches < 100 else [],
    }
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"files": {"collab/engine/room.py": figures, "tests/test_cli.py": figures}}))
    return str(path)


@pytest.mark.parametrize(
    ("lines", "branches", "missing"),
    [(90, 50, None), (100, 100, None), (89, 50, "room.py: 7, 9"), (90, 49, "room.py: 6->7, 8->exit")],
)
def test_a_figure_below_its_floor_fails_and_names_the_places(
    gate: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: int, branches: int, missing: str | None
) -> None:
    assert gate.main([report(tmp_path, lines, branches)]) == int(missing is not None)
    out = capsys.readouterr().out
    assert f"engine {lines:16.1f} {branches:10.1f}".split() in [line.split() for line in out.splitlines()]
    assert "tests" not in out
    if missing is not None:
        assert missing in out


def test_a_package_that_is_gone_fails(gate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"files": {}}))
    assert gate.main([str(tmp_path / "report.json")]) == 1


def test_floors_rise_and_never_fall(gate: ModuleType, tmp_path: Path) -> None:
    assert gate.main([report(tmp_path, 80, 77), "--raise"]) == 1
    assert json.loads(gate.FLOORS.read_text()) == {"engine": {"lines": 90.0, "branches": 77.0}}
    assert gate.main([report(tmp_path, 90, 76)]) == 1


def test_the_floors_of_the_core_are_what_was_agreed(gate: ModuleType) -> None:
    floors = json.loads((ROOT / ".ci" / "coverage-floors.json").read_text())
    for name in ("engine", "protocol"):
        assert floors[name]["lines"] == 100.0
        assert floors[name]["branches"] >= 98.0
