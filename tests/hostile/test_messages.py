"""Frames that no client should send, each over a socket of its own, beside healthy clients."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.hostile.conftest import MAX_DOCUMENT_BYTES, MAX_MESSAGE_BYTES
from tests.hostile.ward import ADA, Ward
from tests.support.gone import Gone
from tests.support.wsclient import (
    AUTH,
    AWARENESS,
    EMPTY_UPDATE,
    STEP1,
    STEP2,
    SYNC,
    LiveClient,
    RawClient,
    awareness,
    awareness_entries,
    converge,
    parse,
    step1,
    step2,
    text_update,
    update,
    varbytes,
    varuint,
)

MALFORMED = {
    "an empty frame": b"",
    "a type without a body": b"\x00",
    "an unfinished type": b"\x80",
    "an endless type": b"\xff" * 40,
    "a sync kind that does not exist": b"\x00\x03\x00",
    "a truncated step 1": b"\x00\x00\x05\x01",
    "a truncated update": b"\x00\x02\x20" + text_update(5, "x")[:8],
    "a length beyond the frame": b"\x00\x02\xff\xff\xff\xff\x0f\x00",
    "a length of 2^53": b"\x00\x02" + varuint(2**53) + b"\x00",
    "a length of 2^63": b"\x00\x02" + varuint(2**63) + b"\x00",
    "an overlong length": b"\x00\x02\x82\x80\x80\x80\x80\x80\x80\x80\x80\x00\x00\x00",
    "two messages in a frame": update(EMPTY_UPDATE) + update(EMPTY_UPDATE),
    "bytes behind an update": update(text_update(5, "x") + b"\x00"),
    "an update without a delete set": update(text_update(5, "x")[:-1]),
    "an empty update": update(b""),
    "an empty state vector": step1(b""),
    "a truncated state vector": step1(b"\x02\x05\x01"),
    "bytes behind a state vector": step1(b"\x00\x00"),
    "a client twice in a state vector": step1(b"\x02\x05\x01\x05\x02"),
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_message_closes_its_connection_alone(ward: Ward, what: str) -> None:
    outcome = await ward.attack(MALFORMED[what])
    assert outcome.close_code == 1007
    await ward.check_untouched()


@pytest.mark.parametrize("what", ["an update without a delete set", "a truncated update", "a length beyond the frame"])
async def test_a_malformed_answer_to_step_1_closes_its_connection_alone(ward: Ward, what: str) -> None:
    frame = MALFORMED[what]
    outcome = await ward.attack(frame[:1] + b"\x01" + frame[2:], answer=False)
    assert outcome.close_code == 1007
    await ward.check_untouched()


@pytest.mark.parametrize("frame", [b"\x04", b"\x08\x01", b"\x7f" + b"x" * 100, varuint(2**53 - 1), b"\x02\x00\x00"])
async def test_an_unknown_message_type_is_ignored(ward: Ward, frame: bytes) -> None:
    outcome = await ward.attack(frame)
    assert outcome.close_code is None
    assert all(answer.kind == STEP2 for answer in outcome.frames)
    await ward.check_untouched()


async def test_an_empty_update_is_tolerated(ward: Ward) -> None:
    outcome = await ward.attack(update(EMPTY_UPDATE), step2(EMPTY_UPDATE), awareness())
    assert outcome.close_code is None
    await ward.check_untouched()


async def test_a_text_frame_is_refused(ward: Ward) -> None:
    async with RawClient(ward.url) as bad:
        await bad.send_text("hello")
        assert await bad.expect_close() == 1003
    await ward.check_untouched()


async def test_random_bytes_close_the_connection_or_change_nothing(ward: Ward) -> None:
    random_bytes = random.Random(20261123)
    codes = set()
    for i in range(60):
        data = random_bytes.randbytes(random_bytes.randrange(1, 60))
        # Half of them get past the first look: a true type, kind and length in front.
        outcome = await ward.attack(data if i % 2 else bytes([0, i // 2 % 3]) + varbytes(data))
        codes.add(outcome.close_code)
        assert outcome.close_code in (None, 1007)
    assert 1007 in codes
    await ward.check_untouched()


async def test_every_truncation_of_a_real_update_is_refused(ward: Ward) -> None:
    whole = text_update(5, "truncate me")
    for end in range(len(whole)):
        outcome = await ward.attack(update(whole[:end]))
        assert outcome.close_code == 1007, f"cut to {end} bytes"
    await ward.check_untouched()


async def test_a_state_vector_that_lies_gets_what_it_asks_for_and_harms_nobody(ward: Ward) -> None:
    beyond = b"\x02" + varuint(ADA) + varuint(2**31 - 1) + varuint(77) + varuint(5)
    outcome = await ward.attack(step1(beyond))
    assert outcome.close_code is None
    assert outcome.frames[0].kind == STEP2
    # It said that it has all of Ada's, so it gets nothing of hers.
    assert b"healthy" not in outcome.frames[0].payload
    await ward.check_untouched()


@pytest.mark.parametrize("count", [2**24, 2**28, 2**29, 2**31, 2**53 - 1])
async def test_a_state_vector_that_declares_more_than_it_holds_is_refused(ward: Ward, count: int) -> None:
    """C8 in docs/decisions/0002: each of these made the library take up to a gigabyte."""
    outcome = await ward.attack(step1(varuint(count)))
    assert outcome.close_code == 1007
    outcome = await ward.attack(update(varuint(count) + b"\x00"))
    assert outcome.close_code == 1007
    await ward.check_untouched()


# Awareness


NOT_SHOWN = {
    "an awareness type without a body": b"\x01",
    "a truncated awareness update": b"\x01" + varbytes(b"\x01\x05\x01\x7f{}"),
    "an awareness count beyond the frame": b"\x01" + varbytes(varuint(2**50)),
    "bytes behind an awareness update": b"\x01" + varbytes(b"\x00\x00"),
    "an awareness state that is not JSON": awareness((5, 1, "{name: 'x'}")),
    "an awareness state that is not UTF-8": awareness((5, 1, b'"\xff\xfe"')),
    "an awareness state of NaN": awareness((5, 1, "NaN")),
    "an awareness state with bytes behind it": awareness((5, 1, "{}}")),
    "an empty awareness state": awareness((5, 1, "")),
    "an awareness state nested deep": awareness((5, 1, "[" * 30_000 + "]" * 30_000)),
    "more state than allowed": awareness((5, 1, json.dumps("x" * 65_536))),
    "an avatar of 100 KB": awareness((5, 1, json.dumps({"user": {"avatar": "x" * 100_000}}))),
    "more client IDs than allowed": awareness(*((client, 1, "{}") for client in range(100, 201))),
}


@pytest.mark.parametrize("what", NOT_SHOWN)
async def test_trouble_with_presence_costs_presence_only(ward: Ward, what: str) -> None:
    async with RawClient(ward.url) as bad:
        await bad.expect_sync(STEP1)
        await bad.send(step2(EMPTY_UPDATE))
        await bad.barrier()
        after = len(bad.frames)
        for _ in range(20):
            await bad.send(NOT_SHOWN[what])
        await bad.barrier()
        frames = [parse(frame) for frame in bad.frames[after:]]
        told = [frame.payload for frame in frames if frame.type == AUTH]
        assert len(told) == 1 and told[0].startswith(b"presence not shown: ")
        await ward.check_untouched()
        # What it edits goes on, and so does its presence once it fits.
        await bad.send(update(text_update(77, "edited ", "beside")))
        await bad.send(awareness(*((client, 2, "null") for client in range(100, 201)), (500, 1, '{"user":"small"}')))
        await bad.until(lambda: (500, 1, '{"user":"small"}') in states_of(bad), "its own state")
        assert bad.open
        await ward.remember()
        assert b"edited" in ward.before


def states_of(client: RawClient) -> list[tuple[int, int, str]]:
    return [entry for data in client.frames for entry in _entries(data)]


async def test_the_bound_of_awareness_is_the_connections(ward: Ward) -> None:
    async with RawClient(ward.url) as bad:
        await bad.expect_sync(STEP1)
        portions = [(client, 1, json.dumps("x" * 7_000)) for client in range(100, 110)]
        for portion in portions:
            await bad.send(awareness(portion))
        await bad.send(awareness((110, 1, "1")))
        await bad.until(lambda: any(client == 110 for client, _, _ in states_of(bad)), "the state that still fits")
        # Nine of them fit into 64 KiB; the last is shown to nobody.
        assert {client for client, _, _ in states_of(bad)} == {*range(100, 109), 110}
    await ward.check_untouched()


async def test_a_state_that_has_grown_too_large_is_shown_no_more(ward: Ward) -> None:
    async with RawClient(ward.url) as bad:
        await bad.expect_sync(STEP1)
        await bad.send(awareness((31, 5, '{"user":"small"}')))
        await _states(ward.watcher, lambda entries: (31, 5, '{"user":"small"}') in entries)
        await bad.send(awareness((31, 6, json.dumps("x" * 100_000))))
        await _states(ward.watcher, lambda entries: (31, 6, "null") in entries)
        await bad.send(awareness((31, 7, '{"user":"small again"}')))
        await _states(ward.watcher, lambda entries: (31, 7, '{"user":"small again"}') in entries)
        assert bad.open


async def test_a_connection_cannot_speak_for_the_awareness_of_another(ward: Ward) -> None:
    async with RawClient(ward.url) as owner, RawClient(ward.url) as forger:
        await owner.expect_sync(STEP1)
        await owner.send(awareness((31, 5, '{"user":"owner"}')))
        await _states(ward.watcher, lambda entries: (31, 5, '{"user":"owner"}') in entries)
        await forger.send(awareness((31, 6, '{"user":"forged"}')))
        await forger.send(awareness((31, 7, "null")))
        await forger.barrier()
        await owner.barrier()
        # A newcomer is told of the owner's state, and the owner may go on from its own clock.
        async with RawClient(ward.url) as newcomer:
            await _states(newcomer, lambda entries: (31, 5, '{"user":"owner"}') in entries)
        await owner.send(awareness((31, 6, '{"user":"owner again"}')))
        await _states(ward.watcher, lambda entries: (31, 6, '{"user":"owner again"}') in entries)
        assert owner.open
    # The owner's end takes the state with it, forger or not.
    await _states(ward.watcher, lambda entries: (31, 6, "null") in entries or (31, 7, "null") in entries)
    seen = [state for frame in ward.watcher.frames for _, _, state in _entries(frame)]
    assert '{"user":"forged"}' not in seen


def _entries(data: bytes) -> list[tuple[int, int, str]]:
    frame = parse(data)
    return awareness_entries(frame.payload) if frame.type == AWARENESS else []


async def _states(client: RawClient, accept: object) -> None:
    assert callable(accept)
    await client.until(lambda: any(accept(_entries(data)) for data in client.frames), "the awareness state")


# Missing dependencies


async def test_an_update_with_missing_dependencies_is_asked_for_once_and_relayed_when_whole(ward: Ward) -> None:
    first = bytes.fromhex("0101070004010474657874026162" + "00")  # client 7 types "ab"
    second = bytes.fromhex("0101070284070102636400")  # client 7 types "cd" after it
    async with RawClient(ward.url) as bad:
        await bad.expect_sync(STEP1)
        await bad.send(step2(EMPTY_UPDATE))
        await bad.barrier()
        after = len(bad.frames)
        for _ in range(5):
            await bad.send(update(second))
        await bad.barrier()
        asked = [frame for frame in map(parse, bad.frames[after:]) if frame.type == SYNC and frame.kind == STEP1]
        assert len(asked) == 1
        await ward.check_untouched()
        # Its answer holds both; now everybody gets them.
        await bad.send(step2(bytes.fromhex("0102070004010474657874026162" + "84070102636400")))
        await converge([ward.ada, ward.bob], lambda client: "abcd" in str(client.text()), True)
        assert bad.open
    assert first not in [parse(frame).payload for frame in ward.watcher.frames]


async def test_an_answer_that_is_not_whole_is_not_asked_for_in_a_loop(ward: Ward) -> None:
    second = bytes.fromhex("0101070284070102636400")
    async with RawClient(ward.url) as bad:
        await bad.expect_sync(STEP1)
        for _ in range(20):
            await bad.send(step2(second))
        await bad.barrier()
        frames = [parse(frame) for frame in bad.frames]
        assert sum(frame.type == SYNC and frame.kind == STEP1 for frame in frames) == 1
        assert bad.open
        await ward.check_untouched()
        # When the room passes what was missing, it asks this client again, which has the rest.
        asked = len(bad.frames)
        async with RawClient(ward.url) as other:
            await other.send(update(bytes.fromhex("0101070004010474657874026162" + "00")))
            await bad.expect(lambda frame: frame.type == SYNC and frame.kind == STEP1, "the question", after=asked)
        await bad.send(step2(second))
        await converge([ward.ada, ward.bob], lambda client: "abcd" in str(client.text()), True)


@pytest.mark.parametrize("message", [step2, update])
async def test_what_waits_outlives_its_sender_over_y_websocket(ward: Ward, message: Callable[[bytes], bytes]) -> None:
    gone = Gone(root="text")
    async with RawClient(ward.url) as holder:
        await holder.expect_sync(STEP1)
        await holder.send(message(gone.rest))
        await holder.barrier()
    await ward.check_untouched()
    async with RawClient(ward.url) as other:
        await other.send(update(gone.missing))
        await converge([ward.ada, ward.bob], lambda client: gone.whole in str(client.text()), True)


async def test_no_message_overtakes_a_large_one_before_it(ward: Ward) -> None:
    """The parser holds frames back behind a large one; they must wait for it, or the order is lost."""
    large = "x" * 200_000
    whole: Doc[Any] = Doc(client_id=7)
    updates: list[bytes] = []
    subscription = whole.observe(lambda event: updates.append(event.update))
    text: Text = whole.get("text", type=Text)
    text.insert(0, large)
    for _ in range(40):
        text.insert(len(text), "y")
    whole.unobserve(subscription)
    async with RawClient(ward.url) as sender:
        await sender.expect_sync(STEP1)
        await sender.send(step2(EMPTY_UPDATE))
        await sender.barrier()
        after = len(sender.frames)
        sender.burst(*map(update, updates))
        await sender.barrier()
        # Whatever had overtaken the large one would not have been whole: the server would have asked.
        frames = [parse(frame) for frame in sender.frames[after:]]
        assert sum(frame.type == SYNC and frame.kind == STEP1 for frame in frames) == 0
    await converge([ward.ada, ward.bob], lambda client: str(client.text()).count("y") >= 40, True)


# Limits


async def test_an_edit_over_the_limit_closes_with_4413(narrow_ward: Ward) -> None:
    outcome = await narrow_ward.attack(update(os.urandom(MAX_MESSAGE_BYTES)))
    assert outcome.close_code == 4413
    await narrow_ward.check_untouched()


async def test_a_document_over_the_limit_closes_with_4413(narrow_ward: Ward) -> None:
    outcome = await narrow_ward.attack(update(text_update(5, "x" * MAX_DOCUMENT_BYTES)))
    assert outcome.close_code == 4413
    await narrow_ward.check_untouched()
    # In portions as well: each is small, together they are not.
    codes = []
    for client in range(10, 20):
        outcome = await narrow_ward.attack(update(text_update(client, "y" * 1_000)))
        codes.append(outcome.close_code)
    assert codes[0] is None
    assert codes[-1] == 4413
    # What fits is still taken from the healthy (checked when the ward is left).
    assert len(await narrow_ward.read()) <= MAX_DOCUMENT_BYTES


async def test_what_is_replaced_again_and_again_is_no_growth(narrow_ward: Ward) -> None:
    """Over sockets, small and large: each time the document holds less than the bound, and nobody is refused."""
    async with LiveClient(narrow_ward.url, client_id=77) as client:
        await client.until_synced()
        text = client.doc.get("replaced", type=Text)
        for number in range(12):
            with client.doc.transaction():
                text.clear()
                text += f"{number % 10}" * (1_500 if number % 2 else 3_000)
            await client.barrier()
        assert client.open and client.connects == 1
        await converge([narrow_ward.ada], lambda one: str(one.doc.get("replaced", type=Text)), "1" * 1_500)
        with client.doc.transaction():
            text.clear()
        await client.barrier()


async def test_what_the_document_holds_already_is_no_growth(narrow_ward: Ward) -> None:
    fits = text_update(5, "z" * (MAX_DOCUMENT_BYTES - 600))
    for _ in range(3):
        assert (await narrow_ward.attack(update(fits))).close_code is None


# Log


async def test_bad_clients_cannot_flood_the_log(ward: Ward) -> None:
    lines = len(ward.server.log_lines)
    for _ in range(150):
        assert (await ward.attack(b"\x00\x02\xff\xff", answer=False)).close_code == 1007
    await ward.check_untouched()
    assert len(ward.server.log_lines) - lines <= 30


async def test_a_name_cannot_forge_a_line_of_the_log(ward: Ward) -> None:
    url = ward.server.document_url("nice\n2026-01-01 ERROR forged line\r\x1b[31m red")
    async with RawClient(url) as bad:
        await bad.send(b"\x00\x02\xff\xff")
        assert await bad.expect_close() == 1007
    assert not any(line.startswith("2026-01-01 ERROR forged") for line in ward.server.log_lines)
    assert "\x1b" not in ward.server.stderr
