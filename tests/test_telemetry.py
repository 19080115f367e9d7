"""Log lines: bounded in number, one line each, and without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from yarl import URL

from collab.telemetry import (
    BoundedHandler,
    ConnectionLog,
    JsonFormatter,
    OneLineFormatter,
    RateLimited,
    complain,
    configure,
    get_logger,
    keep_secrets_out,
    mask_secrets,
    name_node,
    shown_name,
    shown_text,
    shown_user,
    tell_left_out,
)
from collab.telemetry.secrets import SecretFilter

ALWAYS = {"@timestamp", "log.level", "message", "ecs.version", "log.logger", "service.name", "process.pid"}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Let no test see what those before it left out, and take away the handlers that it has added."""
    tell_left_out()
    yield
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler.formatter, OneLineFormatter | JsonFormatter):
            root.removeHandler(handler)


@pytest.fixture
def lines() -> io.StringIO:
    """Collect what ``configure`` sends out."""
    stream = io.StringIO()
    configure("debug", stream)
    return stream


@pytest.fixture
def objects() -> io.StringIO:
    """Collect what ``configure`` sends out as JSON."""
    stream = io.StringIO()
    configure("debug", stream, format="json")
    return stream


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    """Read one object a line; a line that is none fails."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


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


def test_a_line_that_is_repeated_without_end_is_counted(lines: io.StringIO) -> None:
    for number in range(2_000):
        get_logger("store").warning("no snapshot of %s", shown_name(f"d{number}"))
    get_logger("store").warning("another line")
    get_logger("store").debug("frames have no bound")
    text = lines.getvalue()
    shown = text.count("no snapshot of 'd")
    assert 100 <= shown < 2_000 and "another line" in text
    tell_left_out()
    told = lines.getvalue()[len(text) :]
    assert told.count("\n") == 1
    counted = re.search(r" WARNING collab.store: (\d+) more lines like this were not shown: no snapshot of %s", told)
    assert counted is not None
    counts = [int(counted[1]), *map(int, re.findall(r"\((\d+) more like it not shown\)", text))]
    assert shown + sum(counts) == 2_000, "each is shown or counted"
    tell_left_out()
    assert lines.getvalue() == text + told, "told once"


def test_the_next_line_says_how_many_were_left_out() -> None:
    clock, stream = Clock(), io.StringIO()
    handler = BoundedHandler(stream, 2, 1.0, clock)
    handler.setFormatter(OneLineFormatter())
    logger = get_logger("bounded")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        for _ in range(10):
            ConnectionLog(1, "127.0.0.1", logger=logger).warning("bad %d", 1)
            ConnectionLog(2, "127.0.0.1", logger=logger).warning("bad %d", 2)  # the same line of another connection
            logger.debug("debug")
            clock.now += 0.0001
        get_logger("audit").addHandler(handler)
        for _ in range(10):
            get_logger("audit").warning("each is wanted")
        clock.now += 1
        ConnectionLog(3, "127.0.0.1", logger=logger).warning("bad %d", 3)
        logger.error("a flood that ends with the process")
    finally:
        logger.removeHandler(handler)
        get_logger("audit").removeHandler(handler)
    text = stream.getvalue()
    assert text.count(" bad ") == 3 and "[3 127.0.0.1] bad 3 (18 more like it not shown)" in text
    assert text.count("each is wanted") == 10
    assert text.count("debug") == 10


def test_what_was_left_out_is_told_at_the_end() -> None:
    stream = io.StringIO()
    configure("info", stream)
    for _ in range(1_000):
        get_logger().info("again")
    configure("info", io.StringIO())
    assert re.search(r"\d+ more lines like this were not shown: again\n$", stream.getvalue())


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
    assert len(limited._rates._buckets) == 1_000
    limited.flush()
    assert "first: 1 more like it not shown" in lines.getvalue()


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
    with pytest.raises(ValueError, match="xml"):
        configure("info", second, format="xml")
    third = io.StringIO()
    configure("info", third, format="json")
    configure("info", second)
    get_logger().info("text again")
    assert third.getvalue() == ""
    assert second.getvalue().count("text again") == 1


def test_a_shown_name_is_quoted_and_cut() -> None:
    assert shown_name("notes/ä b") == "'notes/ä b'"
    assert shown_name("a\nb") == "'a\\nb'"
    assert len(shown_name("x" * 500)) == 82


def test_json_has_the_values_of_the_record(objects: io.StringIO) -> None:
    name_node("5c1f-9f3a2c")
    ConnectionLog(17, "127.0.0.1", "notes/100%s", user="ada").warning("refused: %d bytes", 3)
    name_node("another")
    get_logger("room").info("opened")
    connection, room = read(objects)
    assert [*connection][:4] == ["@timestamp", "log.level", "message", "ecs.version"], "in the order of ECS"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", connection.pop("@timestamp"))
    assert connection == {
        "log.level": "warning",
        "message": "refused: 3 bytes",
        "ecs.version": "8.17.0",
        "log.logger": "collab.connection",
        "service.name": "collab",
        "service.node.name": "5c1f-9f3a2c",
        "process.pid": os.getpid(),
        "collab.connection": 17,
        "client.address": "127.0.0.1",
        "user.id": "ada",
        "collab.document": "notes/100%s",
    }
    assert room.keys() == ALWAYS | {"service.node.name"}, "only what the record has"
    assert room["service.node.name"] == "another"


def test_json_has_the_document_and_the_user_that_a_line_names(objects: io.StringIO) -> None:
    name = "notes/" + 300 * "ä"
    get_logger("room").warning("closed %s of %s after %s", shown_name(name), shown_user("ada"), shown_name("other"))
    get_logger("http").warning("%s %s failed", "GET", shown_text("/api/v1/x"))
    room, http = read(objects)
    assert (room["collab.document"], room["user.id"]) == (name, "ada"), "the first one, whole"
    assert room["message"].startswith("closed 'notes/äää") and "…" in room["message"]
    assert "collab.document" not in http


def test_json_has_the_ids_of_a_trace(objects: io.StringIO) -> None:
    get_logger().warning("of ours", extra={"trace_id": "0af7", "span_id": "b9c7"})
    get_logger().warning("of its instrumentation", extra={"otelTraceID": "1af7", "otelSpanID": "c9c7"})
    assert [(line["trace.id"], line["span.id"]) for line in read(objects)] == [("0af7", "b9c7"), ("1af7", "c9c7")]


def test_json_without_arguments_has_no_address_in_its_message(objects: io.StringIO) -> None:
    ConnectionLog(17, "127.0.0.1", "100%").info("opened")
    ConnectionLog("x").info("closed")
    assert [line["message"] for line in read(objects)] == ["opened", "closed"]


def test_json_has_the_time_of_the_record() -> None:
    record = logging.makeLogRecord({"created": 1_700_000_000.9996, "msg": "x"})
    assert json.loads(JsonFormatter().format(record))["@timestamp"] == "2023-11-14T22:13:20.999Z"


def test_json_has_exceptions_and_stacks(objects: io.StringIO) -> None:
    try:
        raise OSError("no\nspace")
    except OSError:
        get_logger().exception("failed", stack_info=True)
    get_logger().error("nothing was raised", exc_info=True)
    failed, nothing = read(objects)
    assert failed["message"] == "failed"
    assert failed["error.stack_trace"].startswith("Traceback (most recent call last):\n")
    assert failed["error.stack_trace"].endswith("OSError: no\nspace")
    assert (failed["error.type"], failed["error.message"]) == ("OSError", "no\nspace")
    assert "test_telemetry" in failed["collab.stack"]
    assert not any(key.startswith("error.") for key in nothing)


def test_json_is_one_line_whatever_a_peer_has_sent(objects: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest would keep the line for its report, and xdist cannot pass on what is not UTF-8.
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [one for one in root.handlers if getattr(one, "stream", None) is objects])
    name = 'a\n{"level": "ERROR"}\x1b[31m\u2028"\ud800'
    ConnectionLog(1, "", name).warning("name %s", name)
    assert objects.getvalue().count("\n") == 1 and objects.getvalue().isascii()
    (line,) = read(objects)
    assert (line["collab.document"], line["message"]) == (name, f"name {name}")


def test_json_masks_passwords_and_stays_json(objects: io.StringIO) -> None:
    text = 'postgresql://user:hunter2@db/collab"'
    try:
        raise OSError(text)
    except OSError:
        ConnectionLog(1, text, text).exception("%s", text)
    assert "hunter2" not in objects.getvalue()
    (line,) = read(objects)
    assert all("***" in line[key] for key in ("message", "client.address", "collab.document", "error.stack_trace"))


def test_a_line_names_the_worker_that_has_written_it() -> None:
    stream = io.StringIO()
    configure("info", stream, worker=2)
    get_logger("journal").info("committed")
    assert " INFO    [worker 2] collab.journal: committed" in stream.getvalue()
    stream = io.StringIO()
    configure("info", stream, format="json", worker=3)
    get_logger("journal").info("committed")
    (line,) = read(stream)
    assert (line["collab.worker"], line["log.logger"], line["message"]) == (3, "collab.journal", "committed")


def test_a_complaint_is_written_as_log_lines_are(capsys: pytest.CaptureFixture[str]) -> None:
    configure("error", format="text")
    complain("no\nfile postgresql://user:hunter2@db")
    assert capsys.readouterr().err == "collab: no\\nfile postgresql://user:***@db\n"
    configure("error", format="json")
    complain("no\nfile postgresql://user:hunter2@db")
    line = json.loads(capsys.readouterr().err)
    assert (line["log.level"], line["log.logger"], line["message"]) == (
        "error",
        "collab",
        "no\nfile postgresql://user:***@db",
    )
    assert "collab.worker" not in line
    configure("error", format="json", worker=4)
    complain("no")
    assert json.loads(capsys.readouterr().err)["collab.worker"] == 4


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET /x?access_token=s3cret&a=b", "GET /x?access_token=***&a=b"),
        (
            "Referer: https://a.example/?to=%2Fx%3Ftoken%3Ds3cret%26a%3Db",
            "Referer: https://a.example/?to=%2Fx%3Ftoken%3D***%26a%3Db",
        ),
        ("{'Authorization': 'Bearer s3cret-s3cret-s3cret'}", "{'Authorization': 'Bearer ***'}"),
        ("of eyJhbGciOiJ.eyJzdWIiOiI.c2VjcmV0, which", "of ***, which"),
    ],
)
def test_tokens_are_masked_by_their_names_and_by_their_form(text: str, shown: str) -> None:
    assert mask_secrets(text) == shown


@pytest.fixture
def foreign() -> Iterator[tuple[logging.Logger, list[logging.LogRecord]]]:
    """Give a logger of somebody else whose secrets are kept out, and the records that its handler has got."""
    logger, records = logging.getLogger("foreign.access"), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    keep_secrets_out(["foreign.access"])
    yield logger, records
    logger.removeHandler(handler)
    logger.filters.clear()


def test_records_of_others_are_masked_wherever_a_secret_may_stand(
    foreign: tuple[logging.Logger, list[logging.LogRecord]],
) -> None:
    logger, records = foreign
    logger.warning("token=%s", "s3cret")
    logger.warning("%s %s", "/x?token=s3cret", 200)
    logger.warning("%(path)s", {"path": "/x?token=s3cret"})
    logger.warning(URL("/x?token=s3cret"))
    logger.warning("%s", [URL("/x?token=s3cret")])
    logger.warning("x", extra={"line": "/x?token=s3cret", "headers": {"Referer": "/x?token=s3cret"}}, stack_info=True)
    try:
        raise ValueError("/x?token=s3cret")
    except ValueError:
        logger.exception("failed")
    written = [f"{logging.Formatter().format(record)} {vars(record)!r}" for record in records]
    assert len(written) == 7 and not [text for text in written if "s3cret" in text]
    assert records[1].args == ("/x?token=***", 200), "formatters of others take arguments apart"
    assert "ValueError: /x?token=***" in written[-1]


def test_records_without_a_secret_stay_as_they_are(foreign: tuple[logging.Logger, list[logging.LogRecord]]) -> None:
    logger, records = foreign
    keep_secrets_out(["foreign.access"])
    assert len(logger.filters) == 1
    given = ["/x", 200, None, {"a": 1}]
    logger.warning("%s %s %s %s", *given)
    logger.warning("100%")
    try:
        raise ValueError("of its own")
    except ValueError:
        logger.exception("failed")
    assert [record.msg for record in records] == ["%s %s %s %s", "100%", "failed"]
    assert records[0].args == tuple(given) and records[2].exc_info is not None
    # What cannot be formatted is told of by the handler that tries.
    wrong = logging.makeLogRecord({"msg": "%s %s", "args": ("too few",)})
    assert SecretFilter().filter(wrong) and wrong.args == ("too few",)


def test_masking_leaves_ordinary_text_alone() -> None:
    for text in ("collab listening on http://127.0.0.1:1234", "see http://host/a@b", "sqlite:////var/lib/a.db", "a=b"):
        assert mask_secrets(text) == text
