"""Updates that make a client or a CRDT library throw, hang or die, sent to the running server.

The corpus says of each what must become of it: ``refuse`` (malformed, or Yjs throws on it), ``ask``
(not causally whole) or ``take`` (odd, but Yjs lives with it). C1 to C8 are the classes that brought
down pycrdt 0.14 (docs/decisions/0002): they must never get as far as a library, neither here nor in a
healthy client.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from tests.hostile.ward import Ward
from tests.support.server import ServerProcess, collab_command
from tests.support.wsclient import EMPTY_UPDATE, STEP1, RawClient, step1, step2, update, varuint

CORPUS = json.loads((Path(__file__).parents[1] / "update" / "data" / "hostile-updates.json").read_text())["updates"]


def of(verdict: str) -> list[str]:
    return [name for name, entry in CORPUS.items() if entry["expect"] == verdict]


@pytest.mark.parametrize("what", of("refuse"))
@pytest.mark.parametrize("frame", [update, step2], ids=["update", "step 2"])
async def test_an_update_on_which_yjs_throws_is_refused(ward: Ward, what: str, frame: object) -> None:
    assert callable(frame)
    outcome = await ward.attack(frame(bytes.fromhex(CORPUS[what]["hex"])))
    assert outcome.close_code == 1007
    await ward.check_untouched()


@pytest.mark.parametrize("what", of("ask"))
async def test_an_update_that_is_not_whole_is_asked_for_and_not_relayed(ward: Ward, what: str) -> None:
    outcome = await ward.attack(update(bytes.fromhex(CORPUS[what]["hex"])))
    assert outcome.close_code is None
    assert outcome.asked == 1
    await ward.check_untouched()


@pytest.mark.parametrize("what", of("take"))
async def test_an_odd_update_that_yjs_takes_does_no_harm(server: ServerProcess, what: str) -> None:
    """No healthy pycrdt client on this document: yrs throws on some of these, Yjs does not."""
    url = server.document_url(f"odd {what}")
    data = bytes.fromhex(CORPUS[what]["hex"])
    async with RawClient(url) as sender, RawClient(url) as watcher:
        for client in (sender, watcher):
            await client.expect_sync(STEP1)
            await client.send(step2(EMPTY_UPDATE))
            await client.barrier()
        await sender.send(update(data))
        await sender.barrier()
        assert sender.open and watcher.open
        async with RawClient(url) as newcomer:
            await newcomer.send(step1())
            await newcomer.barrier()
            assert newcomer.open


C1_ARRAY = bytes.fromhex("01010500080101610175") + b"\x01" + b"\x75\x01" * 26_600 + b"\x7f\x00"
C1_MAP = bytes.fromhex("010105000801016101") + b"\x76\x01\x01k" * 26_600 + b"\x7f\x00"

# The document of these knows client 5, with 7 units ("healthy").
POISON = {
    "C1 an array nested 26,600 deep": C1_ARRAY,
    "C1 a map nested 26,600 deep": C1_MAP,
    "C1 an array nested 500,000 deep": bytes.fromhex("010105000801016101") + b"\x75\x01" * 500_000 + b"\x7f\x00",
    "C2 an empty struct list of a known client": bytes.fromhex("0100050000"),
    "C2 an empty struct list at the client's clock": bytes.fromhex("0100050700"),
    "C2 an item of no content": bytes.fromhex("010105070801017400" + "00"),
    "C2 a text of no length": bytes.fromhex("010105070401017400" + "00"),
    "C3 a struct that wraps the clock": bytes.fromhex("010105ffffffff0f000500"),
    "C3 two structs that wrap the clock": bytes.fromhex("010205ffffffff0f0401016103616263040101610361626300"),
    "C3 a GC and a Skip that wrap the clock": bytes.fromhex("0102050300feffffff0f0afeffffff0f00"),
    "C6 a varint of 200,000 bytes": b"\xff" * 200_000 + b"\x01",
    "C8 2^27 clients declared": varuint(2**27) + b"\x00",
}


@pytest.mark.parametrize("what", POISON)
async def test_what_brings_down_the_library_never_reaches_one(server: ServerProcess, what: str) -> None:
    async with Ward(server, f"poison {what}", ada=5) as ward:
        outcome = await ward.attack(update(POISON[what]))
        # A clock far beyond what the client has is either refused or taken for a gap; never for content.
        assert outcome.close_code == 1007 or (what.startswith("C3") and outcome.asked == 1)
        # C4 was a second helping of the same.
        await ward.attack(update(POISON[what]))
        outcome = await ward.attack(step2(POISON[what]))
        assert outcome.close_code == 1007 or what.startswith("C3")
        await ward.check_untouched()
        await ward.check_unharmed()


async def test_c1_a_chain_of_nested_types_does_not_take_the_server_with_it(server: ServerProcess) -> None:
    """33,000 maps, each in the one before, and the deletion of the first."""
    depth = 33_000
    structs = b"\x27\x01\x01r\x01k\x01" + b"".join(
        b"\x27\x00\x05" + varuint(clock) + b"\x01k\x01" for clock in range(depth - 1)
    )
    chain = b"\x01" + varuint(depth) + b"\x05\x00" + structs
    async with Ward(server, "bystander") as bystander:
        url = server.document_url("chain")
        async with RawClient(url) as bad:
            await bad.expect_sync(STEP1)
            await bad.send(update(chain + b"\x00"))
            await bad.send(update(b"\x00\x01\x05\x01\x00\x01"))
            await bad.send(step1())
            await bad.until(lambda: bad.close_code is not None or len(bad.frames) > 1, "an answer or the close")
        # Compaction and the content view read it too, in processes that may die of it alone.
        shown = await asyncio.to_thread(
            collab_command, "documents", "show", "chain", "--json", "--data-dir", str(server.data_dir)
        )
        assert shown.returncode >= 0, "the command itself must not die of a signal"
        await bystander.check_untouched()
        await bystander.check_unharmed()


async def test_c5_the_two_updates_that_hung_the_library_leave_the_others_alone(server: ServerProcess) -> None:
    data = json.loads((Path(__file__).parent / "data" / "c5.json").read_text())
    async with Ward(server, "bystander of c5") as bystander:
        url = server.document_url("c5")
        for part in ("a", "b", "b"):
            async with RawClient(url) as bad:
                await bad.expect_sync(STEP1)
                await bad.send(step2(EMPTY_UPDATE))
                await bad.send(update(bytes.fromhex(data[part])))
                await bad.send(step1())
                await bad.until(partial(_answered, bad), "an answer or the close")
        # A skip of 2^32-1 makes clocks run backwards: whatever was taken, that was not.
        async with RawClient(url) as reader:
            await reader.send(step1())
            await reader.barrier()
            assert all(b"\xff\xff\xff\xff\x0f" not in frame for frame in reader.frames)
        await bystander.check_untouched()
        await bystander.check_unharmed()


def _answered(client: RawClient) -> bool:
    return client.close_code is not None or len(client.frames) > 1


async def test_c6_an_endless_varint_does_not_hold_up_the_others(ward: Ward) -> None:
    endless = b"\xff" * 1_000_000 + b"\x01"
    for frame in (b"\x01" + endless, b"\x00" + endless, b"\x00\x02" + endless, b"\x00\x00" + endless, endless):
        outcome = await ward.attack(frame)
        presence_only = frame[:1] == b"\x01"
        assert outcome.close_code == (None if presence_only else 1007)
    await ward.check_untouched()


async def test_c7_an_emoji_in_a_text_can_be_shown(server: ServerProcess) -> None:
    """Reading such a root as an array never returned; a view must not guess the root's type."""
    name = "c7"
    async with Ward(server, name) as ward:
        ward.ada.text("a").insert(0, "😀")
        await ward.bob.until(lambda: str(ward.bob.text("a")) == "😀", "the emoji")
        for _ in range(50):
            shown = await asyncio.to_thread(
                collab_command, "documents", "show", name, "--json", "--data-dir", str(server.data_dir), timeout=60
            )
            if "😀" in shown.stdout or "\\ud83d\\ude00" in shown.stdout:
                break
        assert shown.returncode == 0, shown.stderr
        assert "😀" in shown.stdout or "\\ud83d\\ude00" in shown.stdout
        await ward.check_unharmed()
