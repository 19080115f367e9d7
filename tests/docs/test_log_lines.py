"""``docs/operations.md`` says of every WARNING and ERROR what it means and what to do."""

from __future__ import annotations

import ast

import pytest

from tests.support.log_lines import NoTemplate, explained, logged, templates


def test_every_line_is_explained_and_no_other() -> None:
    code, page = logged(), explained()
    assert len(code) > 100, "the code is not read any more"
    missing = {template: places for template, places in code.items() if template not in page}
    assert not missing, "say in docs/operations.md, Every warning and error, what they mean and what to do"
    assert [template for template in page if template not in code] == [], "nothing logs these any more"
    assert len(set(page)) == len(page), "each once"


CODE = """
from collab.telemetry import RateLimited, get_logger
_log = get_logger()
_limited = RateLimited(_log)

class Some:
    def work(self, hard):
        text = "one %s"
        _log.warning(text, 1)
        self._limited.error("kind", "two" if hard else "three")
        self._say("four")
        get_logger("x").exception("five " + "six")
        _log.info("not this one")
        future.exception()

    def _say(self, line):
        _limited.log(logging.ERROR, "kind", line)
"""


def test_lines_are_found_however_they_are_written() -> None:
    assert sorted(templates(CODE, "some.py")) == [
        ("five six", 12),
        ("four", 17),
        ("one %s", 9),
        ("three", 10),
        ("two", 10),
    ]


@pytest.mark.parametrize("code", ["_log.warning(text)", "_log.error(str(error))", '_log.error(f"{name} failed")'])
def test_a_line_that_nobody_could_look_up_fails(code: str) -> None:
    ast.parse(code)
    with pytest.raises(NoTemplate):
        templates(code, "some.py")
