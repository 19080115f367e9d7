"""Log lines: bounded in number, one line each, and without secrets."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from collab.telemetry import ConnectionLog, RateLimited, configure, get_logger, mask_secrets, shown_name


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Collect what ``configure`` sends out and put the loggers back afterwards."""
    root, ours = logging.getLogger(), get_logger()
    before = root.level, ours.level, list(root.handlers)
    stream = io.StringIO()
    configure("debug", stream)
    yield stream
    root.setLevel(before[0])
    ours.setLevel(before[1])
    root.handlers[:] = before[2]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_shown_burst_times_and_then_at_the_rate(lines: io.StringIO) -> None:
    clock = Clock()
    limited = RateLimited(get_logger("connection"), per_second=2, burst=3, clock=clock)
    shown = [limited.warning("malformed", "message %d", n) for n in range(1_000)]
    assert shown == [True] * 3 + [False] * 997
    assert limited.suppressed("malformed") == 997
    clock.now += 0.5
    assert limited.warning("malformed", "message %d", 1_000)
    assert not limited.warning("malformed", "message %d", 1_001)
    text = lines.getvalue()
    assert text.count("\n") == 4
    assert "message 1000 (997 more like it not shown)" in text


def test_kinds_do_not_use_up_each_others_budget(lines: io.StringIO) -> None:
    limited = RateLimited(get_logger(), per_second=1, burst=1, clock=Clock())
    assert limited.info("one", "one")
    assert not limited.info("one", "one")
    assert limited.info("two", "two")


def test_the_end_of_a_flood_is_counted_by_flush(lines: io.StringIO) -> None:
    limited = RateLimited(get_logger(), per_second=1, burst=1, clock=Clock())
    for _ in range(5):
        limited.error("flood", "bad")
    limited.flush()
    limited.flush()
    assert lines.getvalue().count("flood: 4 more like it not shown") == 1
    assert limited.suppressed("flood") == 0


def test_lines_below_the_level_use_no_budget(lines: io.StringIO) -> None:
    get_logger().setLevel(logging.INFO)
    limited = RateLimited(get_logger(), per_second=1, burst=1, clock=Clock())
    for _ in range(10):
        assert not limited.debug("kind", "quiet")
    assert limited.info("kind", "loud")
    assert limited.suppressed("kind") == 0


def test_kinds_are_bounded_and_what_is_pushed_out_is_counted(lines: io.StringIO) -> None:
    limited = RateLimited(get_logger(), per_second=1, burst=1, clock=Clock())
    limited.info("first", "x")
    limited.info("first", "x")
    for n in range(1_000):
        limited.info(f"kind {n}", "x")
    assert "first: 1 more like it not shown" in lines.getvalue()
    assert len(limited._buckets) == 1_000


def test_a_line_can_go_through_a_connection_on_the_common_budget(lines: io.StringIO) -> None:
    limited = RateLimited(get_logger("connection"), per_second=1, burst=1, clock=Clock())
    assert limited.warning("bad", "first", to=ConnectionLog(1))
    assert not limited.warning("bad", "second", to=ConnectionLog(2))
    assert "[1] first" in lines.getvalue()
    assert "second" not in lines.getvalue()


def test_a_connection_writes_its_address_before_each_line(lines: io.StringIO) -> None:
    log = ConnectionLog(17, "127.0.0.1", "100%s")
    log.info("opened")
    log.info("%d bytes", 3)
    assert lines.getvalue().splitlines()[0].endswith("INFO    collab.connection: [17 127.0.0.1 '100%s'] opened")
    assert lines.getvalue().splitlines()[1].endswith("[17 127.0.0.1 '100%s'] 3 bytes")


def test_a_connection_gives_its_values_to_the_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="collab"):
        ConnectionLog(17, "127.0.0.1", "notes").info("opened", extra={"code": 1012})
    record = caplog.records[0]
    assert (record.__dict__["connection"], record.__dict__["document_name"], record.__dict__["code"]) == (
        17,
        "notes",
        1012,
    )


def test_no_text_of_a_peer_forges_a_line(lines: io.StringIO) -> None:
    get_logger().warning("name %s", "a\n2026-01-01 ERROR forged\x1b[31m\u2028b")
    assert lines.getvalue().count("\n") == 1
    assert "a\\n2026" in lines.getvalue()
    assert "\x1b" not in lines.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:hunter2@db/collab",
        "could not connect to postgresql+asyncpg://user:hunter2@/collab?host=/run",
        "postgresql://user:p@ss:hunter2@db/collab",
        "connection failed: host=db password=hunter2 user=x",
        "GET /ws/x?token=hunter2&y=1",
    ],
)
def test_passwords_never_come_out(lines: io.StringIO, text: str) -> None:
    get_logger().error("%s", text)
    try:
        raise OSError(text)
    except OSError:
        get_logger().exception("failed")
    assert "hunter2" not in lines.getvalue()
    assert "***" in lines.getvalue()


def test_configure_again_replaces_and_refuses_unknown_levels(lines: io.StringIO) -> None:
    second = io.StringIO()
    configure("info", second)
    get_logger().info("once")
    get_logger().debug("never")
    assert lines.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert "never" not in second.getvalue()
    with pytest.raises(ValueError, match="loud"):
        configure("loud")


def test_a_shown_name_is_quoted_and_cut() -> None:
    assert shown_name("notes/ä b") == "'notes/ä b'"
    assert shown_name("a\nb") == "'a\\nb'"
    assert len(shown_name("x" * 500)) == 82


def test_masking_leaves_ordinary_text_alone() -> None:
    for text in ("collab listening on http://127.0.0.1:1234", "see http://host/a@b", "sqlite:////var/lib/a.db", "a=b"):
        assert mask_secrets(text) == text
