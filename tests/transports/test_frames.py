from __future__ import annotations

import struct

import pytest

from collab.transports.sockets.frames import PING, binary_frame, pong_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_binary_frame_declares_its_length_in_the_shortest_form(size: int) -> None:
    payload = bytes(size)
    frame = binary_frame(payload)
    assert frame[0] == 0x82
    assert frame[1] & 0x80 == 0, "a server never masks"
    if size < 126:
        header, length = 2, frame[1]
    elif size < 65_536:
        assert frame[1] == 126
        header, length = 4, struct.unpack_from("!H", frame, 2)[0]
    else:
        assert frame[1] == 127
        header, length = 10, struct.unpack_from("!Q", frame, 2)[0]
    assert length == size
    assert frame[header:] == payload


def test_control_frames() -> None:
    assert bytes.fromhex("8900") == PING
    assert pong_frame(b"abc") == bytes.fromhex("8a03") + b"abc"
