"""The tools that measure: mutants, the way of a message, the comparison of two checkouts."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest

from collab.storage import migrate
from collab.storage.connecting import Connector
from collab.storage.urls import parse_database_url
from tests.support import capacity, compare, path
from tests.support.mutants import EQUAL, ROOT, mirrors, mutants_of, read_equal, stages

CODE = """\
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import this

TABLE = {
    "a": 1,
    ("b", 2): "ü",
}


def decide(one, other):
    assert one != other
    if one and not other:
        return [x for x in one if x > 1]
    elif (one :=
            other):
        pass
    while True:
        try:
            return 1 if one else one == other
        except (KeyError, ValueError):
            match one:
                case int() | None if other:
                    return 0
                case {"ü": 1}:
                    break
                case _:
                    return 2
"""


def test_every_condition_every_case_every_handler_and_every_row_has_its_mutant(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(CODE)
    mutants = mutants_of(file)
    assert [(mutant.line, mutant.what) for mutant in mutants] == [
        (7, 'no row: "a": 1'),
        (8, 'no row: ("b", 2): "ü"'),
        (14, "not (one and not other)"),
        (14, "not (one)"),
        (14, "not (not other)"),
        (15, "not (x > 1)"),
        (16, "not (one := other)"),
        (21, "not (one)"),
        (21, "not (one == other)"),
        (22, "never: except (KeyError, ValueError)"),
        (24, "not (other)"),
        (26, 'never: case {"ü": 1}'),
    ]
    source = file.read_bytes()
    changed = [source[: mutant.start] + mutant.new + source[mutant.stop :] for mutant in mutants]
    assert len({source, *changed}) == len(mutants) + 1
    for one in changed:
        compile(one, "code.py", "exec")


def test_the_nearest_tests_come_first_and_none_is_left_out() -> None:
    assert mirrors(Path("collab/engine/room.py"))[0] == "tests/engine/test_room.py"
    near, core, rest = stages(Path("collab/engine/room.py"))
    assert core == ["tests/protocol", "tests/update", "tests/engine", *(f"--ignore={one}" for one in near)]
    assert rest == ["tests", "--ignore=tests/protocol", "--ignore=tests/update", "--ignore=tests/engine"]


def test_what_is_said_to_be_equal_is_a_mutant_of_the_code_as_it_is() -> None:
    entries = tomllib.loads(EQUAL.read_text()).get("mutant", [])
    for file in {entry["file"] for entry in entries}:
        assert (ROOT / file).is_file(), file
        mine = [entry for entry in entries if entry["file"] == file]
        assert len(read_equal(mutants_of(Path(file)))) == len(mine)
    assert all(entry["why"] for entry in entries)


def test_an_uneven_split_of_ten_pairs_is_unlikely_by_chance() -> None:
    base = [1.0] * 10
    assert compare.sign_test(base, [2.0] * 10) == compare.sign_test([2.0] * 10, base) == 2 / 1024
    assert compare.sign_test(base, [2.0] * 5 + [0.5] * 5) == 1.0
    assert compare.sign_test(base, base) == 1.0
    assert compare.spread([90.0, 100.0, 120.0]) == 30.0


def test_a_change_of_file_is_a_call_into_another_one() -> None:
    assert path.changes([]) == 0
    assert path.changes([("a.py", "f"), ("a.py", "g"), ("b.py", "h"), ("a.py", "f")]) == 2


@pytest.mark.slow
async def test_the_way_of_an_edit_passes_the_room_and_the_document() -> None:
    async with path.running() as stage:
        calls = await stage.edit()
    assert {"engine/room.py", "engine/document.py", "protocol/ywebsocket/connection.py"} <= {file for file, _ in calls}


@pytest.mark.postgres
async def test_the_capacity_of_a_database_is_what_is_in_it(empty_postgres_url: str) -> None:
    await asyncio.to_thread(migrate.upgrade, parse_database_url(empty_postgres_url))
    commits, rows = await capacity.appends(empty_postgres_url, 2, 3, 0.5)
    assert rows.done == 3 * commits.done and commits.done >= 2 and commits.rate > 0
    connection = await Connector(parse_database_url(empty_postgres_url)).connect()
    try:
        assert await connection.fetchval("SELECT count(*) FROM log") == rows.done
        assert await connection.fetchval("SELECT count(*) FROM documents") == 6
    finally:
        connection.terminate()
    heard = await capacity.notifications(empty_postgres_url, 2, 3, 100, 0.5)
    assert heard.done > 0 and str(heard).startswith("notifications of 100 bytes, 2 senders, 3 listeners ")
