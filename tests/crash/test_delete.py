"""Deleting a document beside the running server: the tombstone holds until somebody creates the name anew."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.crash.test_stop import server_has
from tests.support.hocuspocus import RawHocuspocus, auth, step2
from tests.support.server import ServerProcess, collab_command
from tests.support.wsclient import STEP1, LiveClient, RawClient, converge

NAME = "to be deleted"


async def documents(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(collab_command, "documents", *arguments, "--data-dir", str(server.data_dir))


async def test_a_deleted_document_stays_deleted_until_it_is_imported(tmp_path: Path) -> None:
    copy = tmp_path / "copy.bin"
    async with ServerProcess(tmp_path / "data", "--idle-seconds", "0.2") as server:
        url = server.document_url(NAME)
        async with LiveClient(url, keep=True) as ada, LiveClient(url, keep=True) as bob:
            await ada.until_synced()
            await bob.until_synced()
            ada.text().insert(0, "first life")
            await converge([bob], lambda client: str(client.text()), "first life")
            await server_has(server.data_dir, NAME)
            exported = await documents(server, "export", NAME, str(copy))
            assert exported.returncode == 0, exported.stderr
            deleted = await documents(server, "delete", NAME)
            assert deleted.returncode == 0, deleted.stderr
            # The running server notices at its next write, or by itself a little later, and tells everybody.
            bob.text().insert(0, "too late: ")
            assert await ada.expect_close() == 4404
            assert await bob.expect_close() == 4404
            # With its old copy a client comes back in vain, whether the room is still in memory or not.
            for _ in range(2):
                old = LiveClient(url)
                old.doc.apply_update(bob.doc.get_update())
                await old.connect()
                assert await old.expect_close() == 4404
                await old.close()
        listed = await documents(server, "list")
        assert NAME not in listed.stdout
        assert (await documents(server, "show", NAME)).returncode == 1
        assert (await documents(server, "export", NAME, str(tmp_path / "none"))).returncode == 1
        # After a restart too.
        await server.akill()
        await server.astart()
        async with RawClient(url) as late:
            assert await late.expect_close() == 4404
        imported = await documents(server, "import", NAME, str(copy))
        assert imported.returncode == 0, imported.stderr
        async with LiveClient(url) as cy, LiveClient(url) as dan:
            await cy.until_synced()
            await converge([cy], lambda client: str(client.text()), "first life")
            await dan.until_synced()
            cy.text().insert(0, "second ")
            await converge([dan], lambda client: str(client.text()), "second first life")


async def test_deleting_one_document_leaves_the_others_alone(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        stays = await stack.enter_async_context(LiveClient(server.document_url("stays")))
        goes = await stack.enter_async_context(LiveClient(server.document_url("goes")))
        for client in (stays, goes):
            await client.until_synced()
            client.text().insert(0, "x")
        await server_has(tmp_path, "stays")
        await server_has(tmp_path, "goes")
        assert (await documents(server, "delete", "goes")).returncode == 0
        goes.text().insert(0, "y")
        assert await goes.expect_close() == 4404
        stays.text().insert(1, "y")
        async with LiveClient(server.document_url("stays")) as other:
            await converge([other], lambda client: str(client.text()), "xy")
        assert stays.open
        async with RawClient(server.document_url("new")) as new:
            await new.expect_sync(STEP1)


async def delete_by_command(server: ServerProcess) -> None:
    deleted = await documents(server, "delete", NAME)
    assert deleted.returncode == 0, deleted.stderr


async def delete_over_http(server: ServerProcess) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.delete(f"{server.url}/api/v1/documents/{NAME}") as response,
    ):
        assert response.status == 204


@pytest.mark.parametrize("delete", [delete_by_command, delete_over_http])
async def test_who_has_the_document_open_is_told_within_seconds_and_nobody_brings_it_back(
    tmp_path: Path, delete: Callable[[ServerProcess], Awaitable[None]]
) -> None:
    """Nobody writes: the server finds by itself what another process has done to the database."""
    async with ServerProcess(tmp_path) as server, contextlib.AsyncExitStack() as stack:
        ada = await stack.enter_async_context(LiveClient(server.document_url(NAME), keep=True))
        viewer = await stack.enter_async_context(RawClient(server.document_url(NAME)))
        provider = await stack.enter_async_context(RawHocuspocus(server.hocuspocus_url))
        await ada.until_synced()
        ada.text().insert(0, "first life")
        await server_has(tmp_path, NAME)
        for address in (NAME, "another"):
            await provider.join(address)
        seen = len(provider.frames)

        await delete(server)
        told = asyncio.get_running_loop().time()
        assert await ada.expect_close() == 4404
        assert await viewer.expect_close() == 4404
        assert await provider.denied(NAME, after=seen) == "the document was deleted"
        # About a second; a machine that is busy takes longer.
        assert asyncio.get_running_loop().time() - told < 10

        # Who comes back with an old copy is refused, over both protocols.
        old = ada.doc.get_update()
        for _ in range(2):
            again = LiveClient(server.document_url(NAME))
            again.doc.apply_update(old)
            await again.connect()
            assert await again.expect_close() == 4404
            await again.close()
            seen = len(provider.frames)
            await provider.send(auth(NAME))
            await provider.send(step2(NAME, old))
            assert await provider.denied(NAME, after=seen) == "the document was deleted"
        assert ada.connects == 1, "a client that keeps coming back stays away from this one"
        await provider.barrier_of("another")
        assert NAME not in (await documents(server, "list")).stdout
        assert (await documents(server, "show", NAME)).returncode == 1
