"""One browser serves all tests of this directory: to start it takes longer than most of them."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

_seen: list[Browser] = []


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_a_test_has_the_browser_of_the_test_before_it(browser: Browser, turn: str) -> None:
    assert browser.is_connected()
    _seen.append(browser)
    assert all(one is browser for one in _seen), f"the {turn} test has a browser of its own"


async def test_no_other_process_has_a_browser(request: pytest.FixtureRequest) -> None:
    # Set by pytest-xdist, in each of its processes: the name of its group is then a part of the id of a test.
    dealt_by_group = getattr(request.config.option, "loadgroup", False)
    assert not dealt_by_group or request.node.nodeid.endswith("@browser")
