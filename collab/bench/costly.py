"""Updates that are small and cost much: a writer who stays within all limits, beside people in another room.

Strategy: each update is just under the size of a usual paste and deletes thousands of characters one by one, each with
a neighbour that stays. Nothing of it can be joined, so it is as much work as so many bytes can be.
"""

from __future__ import annotations

from collab.protocol.lib0 import encode_var_uint

# Ranges in one update: 28 KB, as a long paste.
RANGES = 7_000


def text_for(client: int, updates: int) -> bytes:
    """Encode the text (v1) that so many updates of `deletes` need, as one string."""
    size = 2 * RANGES * updates
    text = encode_var_uint(size) + b"x" * size
    return b"\x01\x01" + encode_var_uint(client) + b"\x00\x04\x01\x08document" + text + b"\x00"


def deletes(client: int, number: int) -> bytes:
    """Encode the update (v1) that deletes every second character of one stretch of the text."""
    start = 2 * RANGES * number
    ranges = b"".join(encode_var_uint(clock) + b"\x01" for clock in range(start, start + 2 * RANGES, 2))
    return b"\x00\x01" + encode_var_uint(client) + encode_var_uint(RANGES) + ranges
