"""The sync messages of y-protocols: what both wire protocols carry about the document itself.

Strategy: a message is a named tuple of the bytes that matter; decoding only splits lengths, so
the update inside is still unread (``collab.update`` reads it). The three kinds are those
of y-protocols ``sync.js``::

    SyncStep1   00 varbytes(state vector)   "send me what I lack"
    SyncStep2   01 varbytes(update)         the answer to a SyncStep1
    SyncUpdate  02 varbytes(update)         one incremental change
"""

from __future__ import annotations

from typing import NamedTuple

from collab.errors import DecodeError
from collab.protocol.lib0 import encode_var_uint, read_var_bytes, read_var_uint

STEP1, STEP2, UPDATE = 0, 1, 2

EMPTY_STATE_VECTOR = b"\x00"
EMPTY_UPDATE = b"\x00\x00"


class SyncStep1(NamedTuple):
    """Ask the receiver for everything that ``state_vector`` (v1 bytes) lacks."""

    state_vector: bytes


class SyncStep2(NamedTuple):
    """Answer one SyncStep1 with a v1 update; it also tells the asker that it is in sync."""

    update: bytes


class SyncUpdate(NamedTuple):
    """Pass on one change as a v1 update."""

    update: bytes


SyncMessage = SyncStep1 | SyncStep2 | SyncUpdate


def decode_sync(data: bytes, pos: int) -> SyncMessage:
    """Decode the sync message that fills ``data`` from ``pos`` to its end.

    Raises:
        DecodeError: an unknown kind, a length that does not fit, or bytes behind the message.
    """
    # The usual message is an update whose length fits one byte: no calls for that one.
    end = len(data)
    if pos + 1 < end and data[pos] == UPDATE and data[pos + 1] < 0x80:
        if pos + 2 + data[pos + 1] != end:
            raise DecodeError("sync message: the declared length is not the length of the update")
        return SyncUpdate(data[pos + 2 :])
    kind, pos = read_var_uint(data, pos)
    payload, pos = read_var_bytes(data, pos)
    if pos != end:
        raise DecodeError(f"sync message: {end - pos} bytes behind its end")
    if kind == UPDATE:
        return SyncUpdate(payload)
    if kind == STEP2:
        return SyncStep2(payload)
    if kind == STEP1:
        return SyncStep1(payload)
    raise DecodeError(f"sync message: unknown kind {kind}")


def encode_sync(message: SyncMessage) -> bytes:
    """Encode a sync message; the result is the body of a Sync frame of either wire protocol."""
    kind = UPDATE if type(message) is SyncUpdate else STEP2 if type(message) is SyncStep2 else STEP1
    payload = message[0]
    return b"%c%b%b" % (kind, encode_var_uint(len(payload)), payload)


def encode_sync_head(kind: type[SyncStep2] | type[SyncUpdate], size: int) -> bytes:
    """Encode what stands in a sync message of this kind before an update of ``size`` bytes, which ends it."""
    return b"%c%b" % (UPDATE if kind is SyncUpdate else STEP2, encode_var_uint(size))


def is_update(data: bytes, pos: int) -> bool:
    """Tell whether the sync message at ``pos`` brings an update."""
    return data[pos : pos + 1] in (b"\x01", b"\x02")


def describe_sync(data: bytes, pos: int) -> str:
    """Name the kind of the sync message at ``pos``, for a log; nothing of it is checked."""
    kind = data[pos] if pos < len(data) else -1
    return {STEP1: "SyncStep1", STEP2: "SyncStep2", UPDATE: "SyncUpdate"}.get(kind, "unknown sync message")
