"""``kill -9`` of a server with deliveries that wait: the next one makes all of them, in order for each document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from collab.storage.webhooks import CHANGED, CREATED
from tests.crash.test_stop import server_has
from tests.support.server import ServerProcess, collab_command
from tests.support.webhooks import SECRET, Receiver
from tests.support.wsclient import LiveClient


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def server(directory: Path, receiver: Receiver, interval: float) -> ServerProcess:
    options = ("--webhook-url", receiver.url, "--webhook-interval-seconds", str(interval))
    return ServerProcess(directory, *options, environment={"COLLAB_WEBHOOK_SECRETS": SECRET})


async def delivers(server: ServerProcess) -> None:
    """Wait until the server delivers; what is there before is told to nobody."""
    await asyncio.to_thread(server.wait_for_log, lambda line: "this server delivers webhooks" in line, 60.0)


async def webhooks(server: ServerProcess, *arguments: str) -> str:
    """Run a command beside the server; give what it prints."""
    done = await asyncio.to_thread(collab_command, "webhooks", *arguments, "--data-dir", str(server.data_dir))
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_what_waits_is_delivered_by_the_next_server(tmp_path: Path, receiver: Receiver) -> None:
    receiver.always = 503
    async with server(tmp_path, receiver, 0.2) as process:
        await delivers(process)
        async with LiveClient(process.document_url("d")) as ada, LiveClient(process.document_url("e")) as bob:
            for client in (ada, bob):
                await client.until_synced()
                client.text().insert(0, "x")
            # The receiver is asked about people too, which may be before the edits are stored.
            for name in ("d", "e"):
                await server_has(tmp_path, name)
            await receiver.until(lambda: len(set(receiver.asked)) >= 2, "it is asked about both")
        await process.akill()
        assert receiver.taken == []
        receiver.always = 200
        await process.astart()
        await receiver.until(lambda: receiver.of("d", CHANGED) and receiver.of("e", CHANGED), "all that waited")
        for name in ("d", "e"):
            assert [message.type for message in receiver.of(name, CREATED, CHANGED)] == [CREATED, CHANGED]


async def test_an_edit_that_nobody_has_marked_is_told_after_a_crash(tmp_path: Path, receiver: Receiver) -> None:
    """Between the commit and the mark there are seconds; the next server looks at all documents."""
    async with server(tmp_path, receiver, 3_600.0) as process:
        await delivers(process)
        async with LiveClient(process.document_url("d")) as ada:
            await ada.until_synced()
            ada.text().insert(0, "x")
            await server_has(tmp_path, "d")
            await process.akill()
        process.options[process.options.index("--webhook-interval-seconds") + 1] = "0.2"
        await process.astart()
        await receiver.until(lambda: receiver.of("d", CHANGED), "the edit")
        (changed,) = receiver.of("d", CHANGED)
        assert (changed.data["from"], changed.data["to"]) == (1, 1)
        delivered = await webhooks(process, "deliveries", "--receiver", "default", "--json")
        assert '"type": "document.changed"' in delivered
