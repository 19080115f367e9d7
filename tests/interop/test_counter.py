"""The counter of provider 2.15, which has no floor: what it shows after offline edits, and what an application does.

The provider sets it to 1 when it comes back, and what was edited offline goes out behind that, one message for each
edit, of which each is acknowledged.
"""

from __future__ import annotations

from tests.interop.hocuspocus import HocuspocusAgent, Provider
from tests.interop.store import store_away
from tests.support.hocuspocus import SYNC_STATUS
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

EDITS = 5


async def edited_offline(agent: HocuspocusAgent, server: ServerProcess, *, recipe: bool) -> Provider:
    """Give a provider that has come back after edits that it made offline, when all of them are acknowledged."""
    socket = await agent.socket("2", server.hocuspocus_url)
    provider = await socket.open("offline", "plan", "a token")
    await provider.until(synced=True, unsynced=0)
    if recipe:
        await provider.count_again()
    await socket.disconnect()
    for _ in range(EDITS):
        await provider.edit("type", text="x")
    await provider.until(unsynced=EDITS)
    await socket.connect()

    async def answered() -> bool:
        sent = [frame.removeprefix(b"\4plan")[:2] for frame in await socket.sent()]
        edits = [start for start in sent if start in (b"\0\1", b"\0\2")]
        said = [frame for frame in await socket.received() if frame.type == SYNC_STATUS]
        return len(edits) >= EDITS + 2 and len(said) == len(edits)

    await eventually(answered, "every message is acknowledged")
    return provider


async def test_the_counter_goes_below_zero(own_server: ServerProcess, hocuspocus: HocuspocusAgent) -> None:
    provider = await edited_offline(hocuspocus, own_server, recipe=False)
    state = await provider.until(unsynced=-EDITS)
    assert not state["unsaved"]


async def test_an_application_that_syncs_again_has_a_counter_that_tells_the_truth(
    own_server: ServerProcess, hocuspocus: HocuspocusAgent
) -> None:
    provider = await edited_offline(hocuspocus, own_server, recipe=True)
    await provider.until(unsynced=0)
    with store_away(own_server):
        await provider.edit("type", text="y")
        await until_missed(own_server)
        assert (await provider.state())["unsynced"] == 1
    await provider.until(unsynced=0)


async def until_missed(server: ServerProcess) -> None:
    async def missed() -> bool:
        return any("the store does not take writes" in line for line in server.log_lines)

    await eventually(missed, "the store is missed")
