"""One client of the generator, fed with bytes as they may come: in pieces, joined, repeated, too large."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from collab.bench import connection as module
from collab.bench.connection import Connection, Target, frame
from collab.bench.ledger import Ledger
from collab.bench.updates import Typist
from collab.bench.wire import HocuspocusWire, Wire, YWebsocketWire
from collab.errors import ProtocolError
from collab.protocol.awareness import AwarenessUpdate, Entry, decode_awareness, encode_awareness
from collab.protocol.lib0 import encode_var_bytes, encode_var_uint
from collab.protocol.sync import SyncUpdate
from collab.protocol.ywebsocket import codec as ywebsocket

ACCEPT = b"the-accept"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: the-accept\r\n\r\n"


class Wiretap:
    """Stands where the transport is and keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.gone = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.gone = True

    abort = close

    def get_extra_info(self, name: str) -> None:
        return None

    def messages(self) -> Iterator[bytes]:
        """Yield the payloads of what was written since the last time, each a small masked frame."""
        pos = 0
        while pos < len(self.written):
            size = self.written[pos + 1] & 127
            start = pos + 2
            if size == 126:
                size, start = int.from_bytes(self.written[start : start + 2]), start + 2
            assert self.written[pos + 1] & 128 and self.written[start : start + 4] == bytes(4)
            yield self.written[start + 4 : start + 4 + size]
            pos = start + 4 + size
        self.written = b""


def server_frame(payload: bytes, opcode: int = 0x82) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2) + payload
    return bytes((opcode, 127)) + size.to_bytes(8) + payload


def sync(step: int, body: bytes, prefix: bytes = b"") -> bytes:
    return server_frame(prefix + bytes((0, step)) + encode_var_bytes(body))


def opened(ledger: Ledger, wire: Any = None, *, keep: bool = False) -> tuple[Connection, Wiretap]:
    tap = Wiretap()
    client = Connection(wire or YWebsocketWire(), "doc", ledger, b"request", ACCEPT, keep)
    client.connection_made(cast(asyncio.BaseTransport, tap))
    assert tap.written == b"request"
    tap.written = b""
    client.data_received(UPGRADED)
    return client, tap


async def test_the_greeting_waits_for_the_upgrade() -> None:
    _, tap = opened(Ledger())
    assert list(tap.messages()) == [b"\x00\x00\x01\x00"]


async def test_hocuspocus_is_greeted_with_auth_first_as_its_provider_does() -> None:
    client, tap = opened(Ledger(), HocuspocusWire("t"))
    assert list(tap.messages()) == [b"\x03doc\x02\x00\x01t\x054.7.0", b"\x03doc\x00\x00\x01\x00"]
    client.data_received(server_frame(b"\x03doc\x02\x02\x0aread-write") + server_frame(b"\x09"))
    assert list(tap.messages()) == [b"\x0a"]
    client.data_received(sync(1, b"\x00\x00", b"\x03doc"))
    await client.ready


@pytest.mark.parametrize(
    ("wire", "denied"),
    [
        (HocuspocusWire(), b"\x03doc\x02\x01\x02no"),
        (HocuspocusWire(), b"\x03doc\x07\x02no"),
        (YWebsocketWire(), b"\x02\x00\x02no"),
    ],
)
async def test_a_refusal_is_an_error_that_says_why(wire: Wire, denied: bytes) -> None:
    client, tap = opened(Ledger(), wire)
    client.data_received(server_frame(denied))
    assert tap.gone
    client.connection_lost(None)
    with pytest.raises(ProtocolError, match="no"):
        await client.ready


async def test_a_request_for_a_token_is_answered_and_acknowledgements_are_counted() -> None:
    client, tap = opened(Ledger(), HocuspocusWire("t"))
    list(tap.messages())
    client.data_received(server_frame(b"\x03doc\x02\x00"))
    assert list(tap.messages()) == [b"\x03doc\x02\x00\x01t\x054.7.0"]
    for saved in (1, 0, 1):
        client.data_received(server_frame(b"\x03doc\x08" + bytes((saved,))))
    assert client.ledger.acks == 2
    assert list(tap.messages()) == [] and client.error is None


@pytest.mark.parametrize("wire", [HocuspocusWire(), YWebsocketWire()])
@pytest.mark.parametrize("message", [b"\x03", b"\x01\x01\x00", b"\x2a\x00"])
async def test_what_says_nothing_to_a_generator_is_ignored(wire: Wire, message: bytes) -> None:
    client, tap = opened(Ledger(), wire)
    list(tap.messages())
    client.data_received(server_frame(wire.prefix("doc") + message))
    assert client.error is None and not tap.gone and list(tap.messages()) == []


def test_y_websocket_shows_its_token_in_the_address() -> None:
    with pytest.raises(AssertionError, match="no token request"):
        YWebsocketWire().token()


@pytest.mark.parametrize("wire", [HocuspocusWire(), YWebsocketWire()])
async def test_an_update_is_what_the_codecs_make_of_it_whatever_its_length(wire: Wire) -> None:
    client, tap = opened(Ledger(), wire)
    list(tap.messages())
    updates = [bytes(size) for size in (1, 2, 127, 128, 300, 2, 128)]
    for update in updates:
        client.send_update(update)
    assert list(tap.messages()) == [wire.prefix("doc") + wire.encode(SyncUpdate(update)) for update in updates]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 10_000])
async def test_frames_are_found_however_they_are_cut(piece: int) -> None:
    ledger = Ledger()
    client, tap = opened(ledger)
    list(tap.messages())
    typist, paster = Typist(40), Typist(50, 300)
    ledger.sent_at[40] = [0.0] * 20
    stream = sync(0, b"\x00") + sync(1, b"\x00\x00") + server_frame(b"hi", 0x89)
    stream += b"".join(sync(2, typist.stroke()) for _ in range(20)) + sync(2, paster.stroke())
    for start in range(0, len(stream), piece):
        client.data_received(stream[start : start + piece])
    assert client.error is None
    assert client.known == {40: 20, 50: 300}
    assert ledger.delivered == 320
    assert sum(ledger.buckets.values()) == 20
    assert list(tap.messages()) == [b"\x00\x01\x02\x00\x00", b"hi"]


async def test_what_a_server_has_joined_counts_as_what_it_was_joined_from() -> None:
    ledger = Ledger()
    clients = [opened(ledger)[0] for _ in range(3)]
    typists = [Typist(40), Typist(50)]
    for typist in typists:
        ledger.sent_at[typist.client] = [0.0] * 10
        for _ in range(10):
            typist.stroke()
    joined = b"\x02" + typists[1].encode()[1:-1] + typists[0].encode()[1:-1] + b"\x00"
    for client in clients:
        client.data_received(sync(2, joined))
        assert client.known == {40: 10, 50: 10}
    assert ledger.delivered == 60 == sum(ledger.buckets.values())


async def test_what_comes_twice_counts_once_and_what_was_skipped_is_a_gap() -> None:
    ledger = Ledger()
    client, _ = opened(ledger)
    typist = Typist(40)
    ledger.sent_at[40] = [0.0] * 10
    strokes = [typist.stroke() for _ in range(10)]
    for update in (strokes[0], strokes[0], strokes[1], typist.encode(1), strokes[5]):
        client.data_received(sync(2, update))
    assert ledger.delivered == 10
    assert ledger.gaps == 0
    other, _ = opened(ledger)
    other.data_received(sync(2, strokes[3]))
    assert ledger.gaps == 3
    assert ledger.delivered == 11


async def test_what_an_author_alone_gets_back_is_delivered_but_no_latency() -> None:
    ledger = Ledger()
    author, other = opened(ledger)[0], opened(ledger)[0]
    typist = Typist(40)
    ledger.sent_at[40] = typist.sent_at
    author.add(typist)
    author.type(typist, 0.0)
    echo = sync(2, typist.encode())
    author.data_received(echo)
    assert ledger.delivered == 1 and not ledger.buckets
    other.data_received(echo)
    assert ledger.delivered == 2 and sum(ledger.buckets.values()) == 1


async def test_a_step_1_is_answered_with_what_the_server_lacks_and_nothing_else() -> None:
    client, tap = opened(Ledger())
    list(tap.messages())
    typist = Typist(40)
    client.add(typist)
    for _ in range(3):
        client.type(typist, 1.0)
    list(tap.messages())
    client.data_received(sync(0, b"\x01" + encode_var_uint(40) + b"\x02"))
    client.data_received(sync(0, b"\x01" + encode_var_uint(40) + b"\x03"))
    client.data_received(sync(0, b"\x00"))
    assert list(tap.messages()) == [
        b"\x00\x01" + encode_var_bytes(update) for update in (typist.encode(2), b"\x00\x00", typist.encode(0))
    ]


async def test_each_update_is_a_message_and_a_frame_also_when_several_leave_in_one_write() -> None:
    client, tap = opened(Ledger())
    list(tap.messages())
    twin, typist = Typist(40), Typist(40)
    client.type(typist, 5.0, 4)
    assert list(tap.messages()) == [b"\x00\x02" + encode_var_bytes(twin.stroke()) for _ in range(4)]
    assert typist.sent_at == [5.0] * 4
    assert client.ledger.sent == 4


@pytest.mark.parametrize("keep", [True, False])
async def test_a_large_first_sync_comes_in_pieces_and_is_kept_only_when_asked(keep: bool) -> None:
    paster = Typist(40, 60_000)
    for _ in range(20):
        paster.stroke()
    stream = sync(1, paster.encode())
    client, _ = opened(Ledger(), keep=keep)
    after = Typist(40)
    after.clock = paster.clock
    for start in range(0, len(stream), 65_536):
        assert not client.ready.done()
        client.data_received(stream[start : start + 65_536])
    client.data_received(server_frame(b"x", 0x89))
    await client.ready
    assert client.error is None
    assert client.step2_size == len(paster.encode())
    assert client.step2 == (paster.encode() if keep else None)


async def test_newest_awareness_states_count_and_older_ones_do_not() -> None:
    ledger = Ledger()
    client, tap = opened(ledger)
    ledger.sent_at[40] = [0.0] * 6
    list(tap.messages())
    client.send_awareness(40, 5, b'{"a":1}')
    (message,) = tap.messages()
    assert message == b"\x01" + encode_var_bytes(b'\x01\x28\x05\x07{"a":1}')
    assert message == ywebsocket.encode(AwarenessUpdate(encode_awareness([Entry(40, 5, b'{"a":1}')])))
    client.data_received(server_frame(message))
    client.data_received(server_frame(message))
    client.data_received(server_frame(b"\x01" + encode_var_bytes(b"\x01\x28\x03\x02{}")))
    client.data_received(server_frame(b"\x01" + encode_var_bytes(b"\x02\x28\x03\x02{}\x29\x01\x02{}")))
    client.data_received(server_frame(b"\x01\x01\x00"))
    assert client.states == {40: 5, 41: 1}
    assert ledger.delivered == 2


async def test_a_client_that_echoes_sends_back_what_is_new_to_it_but_for_its_own_state() -> None:
    ledger = Ledger()
    client, tap = opened(ledger)
    list(tap.messages())
    client.own.add(40)
    mine, theirs, third = Entry(40, 5, b'{"a":1}'), Entry(41, 2, b'{"b":2}'), Entry(42, 9, b"null")

    def update(*entries: Entry) -> bytes:
        return ywebsocket.encode(AwarenessUpdate(encode_awareness(entries)))

    client.data_received(server_frame(update(third)))
    assert not list(tap.messages()), "other generators' clients send nothing back"
    client.echoes = True
    client.data_received(server_frame(update(mine, theirs, third)))
    assert list(tap.messages()) == [update(theirs)]
    client.data_received(server_frame(update(mine, theirs, third)))
    client.data_received(server_frame(update(mine)))
    assert not list(tap.messages()) and ledger.echoes == 1


def test_states_are_read_as_the_codec_reads_them() -> None:
    entries = [Entry(40, 5, b'{"a":1}'), Entry(2**53 - 1, 300, b"null"), Entry(1, 0, b"x" * 200)]
    for count in range(len(entries) + 1):
        payload = encode_awareness(entries[:count])
        expected = [(client, clock, clock) for client, clock, _ in decode_awareness(payload)]
        assert module._read_states(payload) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (server_frame((4404).to_bytes(2) + b"deleted", 0x88), "4404 deleted"),
        (server_frame(b"text", 0x81), "0x81"),
        (server_frame(b"\x00\x02\x03\x01"), "."),
        (server_frame(b""), "."),
    ],
)
async def test_what_the_server_may_not_send_ends_the_client_with_the_reason(data: bytes, reason: str) -> None:
    client, tap = opened(Ledger())
    client.data_received(data)
    assert tap.gone
    client.connection_lost(None)
    assert client.error is not None
    with pytest.raises(type(client.error), match=reason):
        await client.ready


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 404 Not Found\r\n\r\n", b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: other\r\n\r\n"]
)
async def test_an_upgrade_that_is_refused_or_wrong_is_an_error(head: bytes) -> None:
    tap = Wiretap()
    client = Connection(YWebsocketWire(), "doc", Ledger(), b"request", ACCEPT, False)
    client.connection_made(cast(asyncio.BaseTransport, tap))
    client.data_received(head)
    assert tap.gone and isinstance(client.error, ProtocolError)


def test_frames_have_the_mask_bit_and_the_shortest_length() -> None:
    assert frame(b"ab") == b"\x82\x82" + bytes(4) + b"ab"
    assert frame(bytes(125))[1] == 0x80 | 125
    assert frame(bytes(126))[1:4] == bytes((0x80 | 126, 0, 126))
    assert frame(bytes(1 << 16))[1:10] == bytes((0x80 | 127,)) + (1 << 16).to_bytes(8)
    assert module.frame(b"", 0x88)[:2] == b"\x88\x80"


@pytest.mark.parametrize(
    ("url", "document", "line", "host"),
    [
        ("ws://h:81/ws/", "notes/ä b", b"GET /ws/notes/%C3%A4%20b HTTP/1.1", b"Host: h:81"),
        ("ws://h/?token=a%26", "d", b"GET /d?token=a%26 HTTP/1.1", b"Host: h\r"),
        ("ws://[::1]:5", "d", b"GET /d HTTP/1.1", b"Host: [::1]:5"),
    ],
)
def test_the_document_is_the_end_of_the_path(url: str, document: str, line: bytes, host: bytes) -> None:
    request, _ = Target(url, YWebsocketWire()).request(document)
    assert request.startswith(line + b"\r\n")
    assert host in request


@pytest.mark.parametrize("url", ["http://h/ws", "ws:///ws", "h:80"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="WebSocket URL"):
        Target(url, YWebsocketWire())
