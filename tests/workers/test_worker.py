"""Several workers on one port, as clients and operators see them; real processes on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest

from tests.crash.load import Load
from tests.crash.stored import PostgresLog, read, tokens
from tests.crash.test_hocuspocus import DOCUMENTS, VERSIONS, Providers
from tests.interop.agent import Agent, converge
from tests.interop.hocuspocus import HocuspocusAgent, until_saved
from tests.support.postgres import PostgresServer
from tests.support.server import collab_command
from tests.support.waiting import eventually, happens
from tests.support.wsclient import STEP1, LiveClient, RawClient
from tests.transports.test_tls import make_certificate, serial_of
from tests.workers.conftest import Workers

pytestmark = [pytest.mark.postgres, pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(240)]

# More than enough for each of two workers to be given one of so many connections.
MANY = 40


async def on_both(server: Workers, name: str) -> list[RawClient]:
    """Connect clients until each worker has one."""
    clients: list[RawClient] = []
    while len(clients) < MANY:
        client = await RawClient(server.document_url(name)).connect()
        await client.expect_sync(STEP1)
        clients.append(client)
        if all(server.connections()[number] for number in range(1, server.count + 1)):
            return clients
    raise AssertionError(f"{MANY} connections came to {server.connections()}")


async def close(clients: list[RawClient]) -> None:
    for client in clients:
        await client.close()


async def gone(processes: list[psutil.Process]) -> None:
    await happens(
        lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes),
        "the end of all workers",
    )


@pytest.mark.node
async def test_clients_of_both_protocols_on_different_workers_edit_one_document(two_workers: Workers) -> None:
    async with two_workers as server, Agent("yjs13") as plain, HocuspocusAgent() as hocuspocus:
        others = await on_both(server, "elsewhere")
        before = server.connections()
        clients = []
        # Until there are clients of each protocol on each worker, or so many that one must be on each.
        for number in range(6):
            ada = await plain.open(f"ada {number}", "3.1", server.ws_url, "d")
            bob = await hocuspocus.open(f"bob {number}", "4", server.hocuspocus_url, "d")
            await ada.until(synced=True)
            await until_saved(bob)
            clients += [ada, bob]
        after = server.connections()
        assert after.total() - before.total() == len(clients)
        assert all(after[number] > before[number] for number in (1, 2)), "the system deals connections out"
        for number, client in enumerate(clients):
            await client.edit("type", at=0, text=f"{number} ")
        await converge(clients)
        await clients[0].present({"name": "Ada"})

        async def seen() -> bool:
            states = [await client.state() for client in clients[1:]]
            return all("Ada" in json.dumps(state["states"]) for state in states)

        await eventually(seen, "presence on all workers")
        await close(others)


@pytest.mark.node
async def test_a_worker_that_is_killed_is_replaced_and_nothing_acknowledged_is_lost(
    two_workers: Workers, postgres_server: PostgresServer, postgres_url: str
) -> None:
    log = PostgresLog(postgres_server, urlsplit(postgres_url).path.lstrip("/"))
    async with two_workers as server:
        # Three sockets of each version, and two plain clients: some on each worker.
        lines = dict.fromkeys(("a", "b", "c"), server.hocuspocus_url)
        async with Providers(lines, DOCUMENTS) as providers, Load(server, ["plain"], 4, 5, pause=0.05) as load:
            await providers.until(lambda: providers.open == providers.sockets, "all sockets")
            parent = server.pid
            for number in (1, 2, 1):
                await providers.until_saved(10)
                victim = server.workers()[number]
                victim.kill()
                await gone([victim])
                told = {name: set(saved) for name, saved in providers.saved.items()}
                rows = await read(log)
                for name, saved in told.items():
                    missing = saved - set(tokens(data for _, data in rows[name]))
                    assert not missing, f"{name}: acknowledged and not stored: {sorted(missing)}"

                async def replaced(victim: psutil.Process = victim, number: int = number) -> bool:
                    found = server.workers().get(number)
                    return found is not None and found.pid != victim.pid

                await eventually(replaced, "another worker in its place")
                providers.more()
            await happens(
                lambda: sum("serves again" in line for line in server.log_lines) == 3, "they serve", seconds=60
            )
            assert server.pid == parent and server.running
            await load.until_made(5)
            await load.stop()
            await load.converged()
            await providers.stop()
            shared = await providers.converged()
            for name in DOCUMENTS:
                assert len(set(shared[name])) == len(shared[name])
                assert {token.split(":")[0] for token in providers.saved[name]} == {
                    line + version for line in lines for version in VERSIONS
                }
        assert await server.aterminate(60.0) == 0


async def test_one_signal_drains_all_workers_side_by_side(tmp_path: Path, postgres_url: str) -> None:
    async with Workers(tmp_path, postgres_url, 2, drain_delay=60.0) as server:
        server.options += ["--drain-seconds", "120"]
        await server.aterminate(60.0, by=signal.SIGINT)
        await server.astart()
        clients = await on_both(server, "d")
        workers = [*server.workers().values()]
        stopping = asyncio.create_task(server.aterminate(100.0))

        async def draining() -> bool:
            codes = set()
            async with aiohttp.ClientSession() as http:
                for _ in range(8):  # a new connection each time, so both are asked
                    async with http.get(f"{server.url}/readyz", headers={"Connection": "close"}) as answer:
                        codes.add(answer.status)
            return codes == {503}

        await eventually(draining, "no worker is ready")
        assert not stopping.done() and not any(client.close_code for client in clients)
        # The second signal ends the wait of all of them.
        os.kill(server.pid, signal.SIGTERM)
        for client in clients:
            assert await client.expect_close() == 1012
        assert await stopping == 0
        await gone(workers)
        for number in (1, 2):
            assert any(f"[worker {number}] collab: stopping" in line for line in server.log_lines)
        await close(clients)


async def test_workers_of_a_parent_that_was_killed_stop_too(two_workers: Workers) -> None:
    async with two_workers as server:
        clients = await on_both(server, "d")
        workers = [*server.workers().values()]
        await server.akill()
        for client in clients:
            assert await client.expect_close() == 1012, "in order"
        await gone(workers)
        assert sum("the parent of the workers has died" in line for line in server.log_lines) == 2
        await close(clients)
        await server.astart()  # the port is free again


async def test_what_cannot_be_stored_in_time_ends_with_1(tmp_path: Path, private_postgres: PostgresServer) -> None:
    url = private_postgres.url(private_postgres.create_database())
    async with Workers(tmp_path, url, 2, "--migrate", "--drain-seconds", "3") as server:
        async with LiveClient(server.document_url("d")) as client:
            await client.until_synced()
            client.text().insert(0, "stored ")
            await client.barrier()
            await asyncio.to_thread(private_postgres.stop)
            client.text().insert(0, "not ")
            await client.barrier()
            assert await server.aterminate(60.0) == 1
        assert any("not everything of the document 'd' could be stored" in line for line in server.log_lines)


async def test_the_address_is_told_once_and_each_worker_has_its_metrics(tmp_path: Path, postgres_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        first = free.getsockname()[1]
    options = ("--host", "127.0.0.2,::1", "--metrics-port", str(first), "--log-format", "json")
    async with Workers(tmp_path, postgres_url, 2, *options) as server:
        await happens(lambda: server.stdout.count("/metrics\n") == 2, "all addresses")
        hosts = re.findall(r"^collab listening on http://(\S+):(\d+)$", server.stdout, re.MULTILINE)
        assert hosts == [("127.0.0.2", str(server.port)), ("[::1]", str(server.port))]
        async with aiohttp.ClientSession() as http:
            for number in (0, 1):
                url = f"http://127.0.0.1:{first + number}/metrics"
                assert f"collab metrics on {url}\n" in server.stdout
                async with http.get(url) as answer:
                    assert answer.status == 200
            async with http.get(f"http://[::1]:{server.port}/readyz") as answer:
                assert (await answer.json())["ready"] is True
        assert await server.aterminate(60.0) == 0
    lines = [json.loads(line) for line in server.log_lines]
    assert {line.get("collab.worker") for line in lines} == {None, 1, 2}
    # What all of them would say is said once.
    assert len([line for line in lines if "no authentication" in line["message"]]) == 1


async def test_a_certificate_and_the_audit_log_are_opened_again_by_all_workers(
    tmp_path: Path, postgres_url: str
) -> None:
    cert, key = make_certificate(tmp_path, "server", serial=1001)
    trusting = ssl.create_default_context(cafile=str(cert))
    audit = tmp_path / "audit.jsonl"
    options = ("--tls-cert", str(cert), "--tls-key", str(key), "--audit-log", str(audit))
    async with Workers(tmp_path, postgres_url, 2, *options) as server:
        assert server.scheme == "https"
        audit.rename(tmp_path / "audit.jsonl.1")
        assert {await serial_of(server, trusting) for _ in range(8)} == {1001}
        fresh = make_certificate(tmp_path, "fresh", serial=1002)
        trusting.load_verify_locations(fresh[0])
        os.replace(fresh[0], cert)
        os.replace(fresh[1], key)
        os.kill(server.pid, signal.SIGHUP)
        for number in (1, 2):
            mark = f"[worker {number}] collab: SIGHUP: new connections get the certificate"
            await asyncio.to_thread(server.wait_for_log, lambda line, mark=mark: mark in line)
        assert {await serial_of(server, trusting) for _ in range(16)} == {1002}
        assert await server.aterminate(60.0) == 0
    # One file for both of them, rotated for both.
    for file, kind in ((tmp_path / "audit.jsonl.1", "audit-begun"), (audit, "audit-ended")):
        entries = [json.loads(line) for line in file.read_bytes().splitlines()]
        found = [entry for entry in entries if entry["event.action"] == kind]
        assert len({entry["service.node.name"] for entry in found}) == len(found) == 2


async def test_nobody_joins_the_port_by_mistake(two_workers: Workers, tmp_path: Path, postgres_url: str) -> None:
    async with two_workers as server:
        for workers in ("1", "2"):
            done = await asyncio.to_thread(
                collab_command,
                "serve",
                "--port",
                str(server.port),
                "--workers",
                workers,
                "--database-url",
                postgres_url,
            )
            assert done.returncode == 1
            assert f"cannot listen on 127.0.0.1 port {server.port}: Address already in use" in done.stderr
        assert len(server.workers()) == 2


async def test_a_worker_that_cannot_start_ends_the_whole_with_its_reason(tmp_path: Path, postgres_url: str) -> None:
    # A database that is not there: the first worker says so, and no other one is started.
    missing = postgres_url.replace("/test_", "/missing_")
    done = await asyncio.to_thread(collab_command, "serve", "--port", "0", "--workers", "3", "--database-url", missing)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.count("missing_") == 1
    assert "worker 1 has ended (exit code 1) before it served" in done.stderr
    # A wrong option keeps its exit code.
    done = await asyncio.to_thread(
        collab_command, "serve", "--port", "0", "--workers", "3", "--database-url", postgres_url, "--host", "0.0.0.0"
    )
    assert done.returncode == 2 and "without authentication" in done.stderr
    # One of several: its port for metrics is taken.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = await asyncio.to_thread(
            collab_command,
            "serve",
            "--port",
            "0",
            "--workers",
            "2",
            "--database-url",
            postgres_url,
            "--metrics-port",
            str(port - 1),
        )
    assert done.returncode == 1 and not done.stdout
    assert f"cannot listen for metrics on 127.0.0.1 port {port}" in done.stderr
    assert "worker 2 has ended (exit code 1) before it served" in done.stderr


def test_sqlite_is_refused_with_what_to_do(tmp_path: Path) -> None:
    done = collab_command("serve", "--port", "0", "--workers", "2", "--data-dir", str(tmp_path))
    assert done.returncode == 2 and not done.stdout
    for word in ("--workers 2 needs PostgreSQL", "SQLite", "--database-url", "leave --workers out"):
        assert word in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_start_can_be_interrupted(empty_postgres_url: str, number: signal.Signals) -> None:
    options = ("--port", "0", "--workers", "2", "--migrate", "--database-url", empty_postgres_url)
    with subprocess.Popen(
        [sys.executable, "-m", "collab", "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert "no authentication" in process.stderr.readline()  # the first worker is at it
        process.send_signal(number)
        out, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert not out and "Traceback" not in log and "workers serve" not in log
