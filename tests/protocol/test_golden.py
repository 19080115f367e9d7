"""Byte vectors recorded from the published npm packages, taken apart and put together again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collab.errors import DecodeError
from collab.protocol.awareness import AwarenessUpdate, Entry, decode_awareness, encode_awareness
from collab.protocol.messages import PermissionDenied
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.ywebsocket import codec as ywebsocket
from collab.update import decode_state_vector, encode_state_vector, read_update
from tests.support.node import find_node, installed_packages

DATA = Path(__file__).parent / "data"
GENERATIONS = ("yjs13", "yjs14")

KINDS = {"step1": SyncStep1, "step2": SyncStep2, "update": SyncUpdate}


def vectors(part: str) -> list[Any]:
    return [
        pytest.param(vector, id=f"{vector['source']}: {vector['what']}")
        for generation in GENERATIONS
        for vector in json.loads((DATA / f"golden-{generation}.json").read_text())[part]
    ]


def expected_message(vector: dict[str, Any]) -> object:
    if vector["type"] == "sync":
        return KINDS[vector["kind"]](bytes.fromhex(vector["payload"]))
    if vector["type"] == "awareness":
        return AwarenessUpdate(bytes.fromhex(vector["payload"]))
    assert vector["type"] == "auth"
    return None  # only ever goes to a client


@pytest.mark.parametrize("vector", vectors("frames"))
def test_a_recorded_frame_is_read_and_written_exactly(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    message = ywebsocket.decode(frame)
    assert message == expected_message(vector)
    assert type(message) is type(expected_message(vector))
    if message is not None:
        assert ywebsocket.encode(message) == frame


@pytest.mark.parametrize("vector", vectors("frames"))
def test_a_recorded_frame_is_read_by_a_client_and_written_exactly(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    message = ywebsocket.decode_from_server(frame)
    expected = PermissionDenied(vector["reason"]) if vector["type"] == "auth" else expected_message(vector)
    assert message == expected
    assert type(message) is type(expected)
    assert message is not None and ywebsocket.encode(message) == frame


@pytest.mark.parametrize("vector", vectors("frames"))
@pytest.mark.parametrize("decode", [ywebsocket.decode, ywebsocket.decode_from_server])
def test_a_recorded_frame_is_refused_when_cut_or_lengthened(
    vector: dict[str, Any], decode: Callable[[bytes], object]
) -> None:
    frame = bytes.fromhex(vector["frame"])
    ignored = vector["type"] == "auth" and decode is ywebsocket.decode
    # Of the long ones the first bytes, which hold all lengths, and the last.
    for cut in (*(frame[:end] for end in [*range(min(len(frame), 64)), len(frame) - 1]), frame + b"\0"):
        if ignored and cut:
            assert decode(cut) is None
            continue
        with pytest.raises(DecodeError):
            decode(cut)


@pytest.mark.parametrize("vector", vectors("frames"))
def test_what_recorded_frames_carry_is_taken(vector: dict[str, Any]) -> None:
    if vector["type"] == "awareness":
        for entry in decode_awareness(bytes.fromhex(vector["payload"])):
            json.loads(entry.state)
    elif vector["type"] == "sync" and vector["kind"] == "step1":
        payload = bytes.fromhex(vector["payload"])
        assert encode_state_vector(decode_state_vector(payload)) == payload
    elif vector["type"] == "sync":
        read_update(bytes.fromhex(vector["payload"]))


@pytest.mark.parametrize("vector", vectors("awareness"))
def test_a_recorded_awareness_update_is_read_and_written_exactly(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload"])
    entries = decode_awareness(payload)
    assert entries == [Entry(client, clock, state.encode()) for client, clock, state in vector["entries"]]
    assert encode_awareness(entries) == payload
    for end in range(min(len(payload), 64)):
        with pytest.raises(DecodeError):
            decode_awareness(payload[:end])
    with pytest.raises(DecodeError):
        decode_awareness(payload + b"\0")


def test_every_kind_of_frame_was_recorded() -> None:
    for generation in GENERATIONS:
        frames = json.loads((DATA / f"golden-{generation}.json").read_text())["frames"]
        seen = {(frame["type"], frame.get("kind")) for frame in frames}
        assert seen >= {
            ("sync", "step1"),
            ("sync", "step2"),
            ("sync", "update"),
            ("awareness", None),
            ("auth", None),
        }


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.node
async def test_the_packages_still_write_what_was_recorded(generation: str) -> None:
    packages = installed_packages()
    process = await asyncio.create_subprocess_exec(
        find_node()[0], str(packages / "interop_golden.mjs"), generation, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(output) == json.loads((DATA / f"golden-{generation}.json").read_text())
