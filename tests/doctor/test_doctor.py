"""``collab doctor``: each thing that it looks at is broken for real, and named."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from collab.cli import run
from collab.doctor.certificate import look_at_certificate
from collab.doctor.database import look_at_database
from collab.doctor.findings import Finding, State
from collab.doctor.run import examine
from collab.settings import Settings, options
from collab.storage import migrate
from collab.storage.urls import parse_database_url
from tests.doctor.certificates import Authority
from tests.support.postgres import PostgresServer


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for option in options():
        monkeypatch.delenv(option.env, raising=False)
    monkeypatch.chdir(tmp_path)


async def found(settings: Settings, late: float = 0.0) -> dict[str, Finding]:
    """Give what is found, by its check; this machine's clock is late by some seconds."""
    return {each.check: each async for each in examine(settings, clock=lambda: time.time() - late)}


async def database(settings: Settings) -> dict[str, Finding]:
    url = parse_database_url(settings.database_url, settings.data_dir)
    return {each.check: each async for each in look_at_database(settings, url)}


def failure(finding: Finding, text: str, state: State = State.FAILED) -> None:
    assert finding.state is state and text in finding.text and finding.advice, finding


def test_before_the_first_start_all_is_well(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["well"] is True
    assert not Path("data").exists(), "nothing was changed"
    assert {each["check"] for each in told["findings"]} == {
        "configuration",
        "database",
        "schema",
        "bus",
        "open files",
        "somaxconn",
        "memory",
        "disk",
        "certificate",
    }
    assert run(["doctor"]) == 0
    assert "ok       database       there is no data/collab.db yet" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--port", "x"], "--port: must be a valid integer"),
        (["--host", "0.0.0.0"], "--jwt-secret"),
        (["--jwt-keys", "none.pem"], "none.pem"),
        (["--hooks", "nowhere:Hooks"], "nowhere"),
        (["--redis-url", "redis://:hunter2@h"], "--redis-url"),
    ],
)
def test_options_that_do_not_fit_together_are_named(
    words: list[str], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--json", *words]) == 1
    out = capfd.readouterr().out
    first = json.loads(out)["findings"][0]
    assert (first["check"], first["state"]) == ("configuration", "failed") and text in first["found"]
    assert first["do"] and "hunter2" not in out


def sqlite_file() -> tuple[Settings, Path]:
    settings = Settings()
    url = parse_database_url(None, settings.data_dir)
    migrate.upgrade(url)
    assert url.path is not None
    return settings, url.path


async def test_a_file_of_this_release_is_well_and_one_of_a_later_release_is_not() -> None:
    settings, path = sqlite_file()
    assert {each.state for each in (await database(settings)).values()} <= {State.OK, State.SKIPPED}
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO compatibility (schema, oldest_schema, oldest_release, at) VALUES (999, 999, '9.0.0', 0)"
        )
    connection.close()
    failure((await database(settings))["schema"], "9.0.0")


async def test_a_file_that_is_no_database_is_named() -> None:
    settings, path = sqlite_file()
    path.write_bytes(b"not a database" * 1_000)
    all_found = await database(settings)
    failure(all_found["database"], "not a database")
    assert "schema" not in all_found


def doctor(*words: str, wrapper: list[str]) -> dict[str, Any]:
    """Run the command in a process with limits of its own."""
    command = [*wrapper, sys.executable, "-m", "collab", "doctor", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not done.stdout:
        pytest.skip(f"this system does not let the test do that: {done.stderr[-200:]}")
    return {each["check"]: each for each in json.loads(done.stdout)["findings"]}


@pytest.mark.server
def test_too_few_open_files_are_named() -> None:
    finding = doctor(wrapper=["prlimit", "--nofile=512:512"])["open files"]
    assert finding["state"] == "failed" and "at most 512" in finding["found"] and "ulimit" in finding["do"]


@pytest.mark.server
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs namespaces of its own")
def test_a_short_queue_of_connections_and_a_full_disk_are_named(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    script = f'echo 16 > /proc/sys/net/core/somaxconn; mount -t tmpfs -o size=8m tmpfs {full}; exec "$@"'
    told = doctor("--data-dir", str(full), wrapper=["unshare", "--net", "--mount", "sh", "-c", script, "sh"])
    assert told["somaxconn"]["state"] == "warning" and "16 new connections" in told["somaxconn"]["found"]
    assert told["disk"]["state"] == "failed" and "make room" in told["disk"]["do"]


async def test_bounds_above_the_memory_of_the_machine_are_named() -> None:
    failure((await found(Settings(memory_limit_bytes=1 << 50)))["memory"], "--memory-limit-bytes")


async def test_certificates_that_do_not_serve_are_named(tmp_path: Path) -> None:
    authority, now = Authority(tmp_path), time.time()
    (good, key), (other, _), (soon, soon_key), (old, old_key) = (
        authority.issue("collab.example", days) for days in (90, 90, 3, -1)
    )
    fine = look_at_certificate(Settings(tls_cert=good, tls_key=key), now)
    assert fine.state is State.OK and "collab.example" in fine.text
    failure(look_at_certificate(Settings(tls_cert=other, tls_key=key), now), "key values mismatch")
    failure(look_at_certificate(Settings(tls_cert=old, tls_key=old_key), now), "it ran out")
    failure(look_at_certificate(Settings(tls_cert=good, tls_key=key), now - 40 * 86_400), "it is valid from")
    failure(look_at_certificate(Settings(tls_cert=soon, tls_key=soon_key), now), "it runs out", State.WARNING)
    failure(look_at_certificate(Settings(tls_cert=tmp_path / "none", tls_key=key), now), "cannot read")
    assert look_at_certificate(Settings(), now).state is State.SKIPPED


# PostgreSQL


def on(url: str, **values: Any) -> Settings:
    return Settings(database_url=url, **values)


async def test_a_database_that_is_well_its_clock_and_its_bus(postgres_url: str) -> None:
    told = await found(on(postgres_url), late=0.0)
    assert told["database"].state is State.OK and told["database"].text.startswith("PostgreSQL ")
    assert [told[check].state for check in ("schema", "clock", "bus")] == [State.OK] * 3, told
    failure(told["durability"], "fsync")  # as the database of the tests is
    failure((await found(on(postgres_url), late=100.0))["clock"], "100 s behind", State.WARNING)


async def test_what_cannot_be_reached_is_named_without_its_password(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    nowhere = urlunsplit(parts._replace(netloc="collab:hunter2@127.0.0.1:1", query=""))
    told = await database(on(nowhere))
    failure(told["database"], "connection refused")
    assert "hunter2" not in str(told) and set(told) == {"database"}
    failure((await database(on(postgres_url, redis_url="redis://127.0.0.1:1")))["bus"], "Redis is down")


async def test_a_database_without_tables_says_what_to_run(empty_postgres_url: str) -> None:
    told = await database(on(empty_postgres_url))
    assert told["database"].state is State.OK
    failure(told["schema"], "has no tables of collab yet")
    assert "collab migrate" in told["schema"].advice


async def test_a_role_that_may_not_write_and_a_database_that_forgets(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    import asyncpg

    owner = await asyncpg.connect(postgres_url)
    try:
        await owner.execute("CREATE ROLE doctor_reader LOGIN PASSWORD 'x'")
        await owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO doctor_reader")
        await owner.execute("ALTER ROLE doctor_reader SET synchronous_commit = off")
        try:
            parts = urlsplit(postgres_url)
            host = parts.netloc.rpartition("@")[2]
            reader = urlunsplit(parts._replace(netloc=f"doctor_reader:x@{host}"))
            told = await database(on(reader))
            failure(told["database"], "the role doctor_reader may not read and write")
            assert told["database"].advice.startswith("GRANT ")
            await owner.execute("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO doctor_reader")
            failure((await database(on(reader)))["durability"], "synchronous_commit")
            await owner.execute("ALTER ROLE doctor_reader RESET synchronous_commit")
            assert "synchronous_commit" not in (await database(on(reader)))["durability"].advice
            await owner.execute("ALTER ROLE doctor_reader SET default_transaction_read_only = on")
            failure((await database(on(reader)))["database"], "takes no writes")
        finally:
            await owner.execute("DROP OWNED BY doctor_reader; DROP ROLE doctor_reader")
    finally:
        await owner.close()
