"""Deleting a document beside the running server: the tombstone holds until somebody creates the name anew."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

from tests.crash.test_stop import server_has
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
            # The running server notices at its next write, and tells everybody.
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
