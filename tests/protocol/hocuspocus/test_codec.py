"""The Hocuspocus codec, against what the published packages have written and against itself.

Strategy: `golden-hocuspocus.json` holds every frame of sessions between published providers and the published
server, each taken apart by lib0. What a client wrote must be read as that; what a server wrote must come out of
our encoder to the byte. Hypothesis looks for frames beyond those; its frames are built by the test's own codec.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collab import errors
from collab.errors import AddressError, CollabError, DecodeError, InvalidDocumentName, LimitExceeded
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness, decode_awareness
from collab.protocol.hocuspocus import codec as hocuspocus
from collab.protocol.hocuspocus.codec import (
    Authenticated,
    BroadcastStateless,
    ClientMessage,
    Close,
    Closed,
    ServerMessage,
    Token,
    TokenRequest,
)
from collab.protocol.messages import PermissionDenied, Stateless, SyncStatus
from collab.protocol.session import Access
from collab.protocol.sync import SyncStep1, SyncStep2, SyncUpdate
from collab.update import decode_state_vector, encode_state_vector, read_update
from tests.support import hocuspocus as builder
from tests.support.errors import every_error
from tests.support.node import find_node, installed_packages
from tests.support.wsclient import varbytes, varuint

GOLDEN = Path(__file__).parents[1] / "data" / "golden-hocuspocus.json"
PEER = Path(__file__).parents[2] / "peers" / "hocuspocus"

SYNC = {"step1": SyncStep1, "step2": SyncStep2, "update": SyncUpdate}
SCOPES = {"read-write": Access.WRITE, "readonly": Access.READ}


def recorded() -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = json.loads(GOLDEN.read_text())["frames"]
    return frames


def vectors(sender: str) -> list[Any]:
    """The addressed frames of one side; each content once, for providers say much the same."""
    seen: dict[str, Any] = {}
    for vector in recorded():
        if vector["from"] == sender and "address" in vector:
            seen.setdefault(
                vector["frame"], pytest.param(vector, id=f"{vector['source']}: {vector['what']}: {vector['type']}")
            )
    return list(seen.values())


def decode(frame: bytes) -> tuple[str, ClientMessage | None]:
    address, pos = hocuspocus.read_address(frame)
    return address.decode(), hocuspocus.decode(frame, pos)


def from_client(vector: dict[str, Any]) -> ClientMessage | None:
    match vector["type"]:
        case "sync" | "sync reply":
            return SYNC[vector["kind"]](bytes.fromhex(vector["payload"]))
        case "awareness":
            return AwarenessUpdate(bytes.fromhex(vector["payload"]))
        case "auth":
            return Token(vector["token"], vector["version"])
        case "query awareness":
            return QueryAwareness()
        case "stateless":
            return Stateless(vector["payload"].encode())
        case "broadcast stateless":
            return BroadcastStateless()
    assert vector["type"] == "close"
    return Close()


def from_server(vector: dict[str, Any]) -> bytes:
    """What our server sends to say the same; behind the address."""
    match vector["type"], vector.get("kind"):
        case "sync", kind:
            return hocuspocus.encode(SYNC[str(kind)](bytes.fromhex(vector["payload"])))
        case "awareness", _:
            return hocuspocus.encode(AwarenessUpdate(bytes.fromhex(vector["payload"])))
        case "auth", "authenticated":
            return hocuspocus.encode_authenticated(SCOPES[vector["scope"]])
        case "auth", "permission denied":
            return hocuspocus.encode(PermissionDenied(vector["reason"]))
        case "auth", "token request":
            return hocuspocus.TOKEN_REQUEST
        case "query awareness", _:
            return hocuspocus.encode(QueryAwareness())
        case "stateless", _:
            return hocuspocus.encode(Stateless(vector["payload"].encode()))
        case "sync status", _:
            return hocuspocus.encode(SyncStatus(vector["saved"]))
        case "close", _:
            closes = {
                "provider_initiated": hocuspocus.CLOSED_BY_CLIENT,
                "Reset Connection": hocuspocus.CLOSED_FOR_BROADCAST,
            }
            return closes[vector["reason"]]
    raise AssertionError(f"not a message of a server: {vector}")


# What only servers send each other, but a hostile client may send to one.
BETWEEN_SERVERS = [
    pytest.param(vector, id=vector["what"])
    for vector in recorded()
    if vector["type"] in ("sync reply", "broadcast stateless", "query awareness")
]


# Golden


@pytest.mark.parametrize("vector", vectors("client") + BETWEEN_SERVERS)
def test_a_recorded_frame_of_a_client_is_read(vector: dict[str, Any]) -> None:
    address, message = decode(bytes.fromhex(vector["frame"]))
    assert address == vector["address"]
    assert hocuspocus.document_name(address.encode()) == vector["address"].split("\0")[0]
    assert message == from_client(vector)
    assert type(message) is type(from_client(vector))


@pytest.mark.parametrize(
    "vector",
    [param for param in vectors("server") if param.values[0]["type"] not in ("sync reply", "broadcast stateless")],
)
def test_a_recorded_frame_of_the_server_is_written_exactly(vector: dict[str, Any]) -> None:
    frame = hocuspocus.prefix(vector["address"].encode()) + from_server(vector)
    assert frame.hex() == vector["frame"]


@pytest.mark.parametrize("vector", vectors("client") + BETWEEN_SERVERS)
def test_a_recorded_frame_is_refused_when_cut(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    body = len(varbytes(vector["address"].encode()))
    # A token without the version behind it is what providers before 4 send.
    whole = {len(frame) - len(varbytes(vector["version"].encode()))} if vector.get("version") else set()
    # Behind the type of these comes nothing that would be read.
    end = body + 1 if vector["type"] == "broadcast stateless" else len(frame)
    for cut in range(end):
        if cut in whole:
            assert decode(frame[:cut]) == (vector["address"], Token(vector["token"], None))
            continue
        with pytest.raises(DecodeError) as caught:
            decode(frame[:cut])
        # Past the address the client can be told under it; before, only the socket can be closed.
        assert isinstance(caught.value, AddressError) is (cut < body)


@pytest.mark.parametrize("vector", vectors("client") + BETWEEN_SERVERS)
def test_a_recorded_frame_is_refused_when_lengthened(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"]) + b"\0"
    if vector["type"] in ("close", "query awareness", "broadcast stateless"):
        assert decode(frame) == (vector["address"], from_client(vector))
    elif vector["type"] == "auth" and vector["version"] is None:
        assert decode(frame) == (vector["address"], Token(vector["token"], ""))
    else:
        with pytest.raises(DecodeError):
            decode(frame)


@pytest.mark.parametrize("vector", vectors("client") + vectors("server"))
def test_what_recorded_frames_carry_is_taken(vector: dict[str, Any]) -> None:
    if vector["type"] == "awareness":
        for entry in decode_awareness(bytes.fromhex(vector["payload"])):
            json.loads(entry.state)
    elif vector.get("kind") == "step1":
        payload = bytes.fromhex(vector["payload"])
        assert encode_state_vector(decode_state_vector(payload)) == payload
    elif vector["type"] == "sync":
        read_update(bytes.fromhex(vector["payload"]))


def to_client(vector: dict[str, Any]) -> ServerMessage | None:
    """What a client of ours reads in it."""
    match vector["type"], vector.get("kind"):
        case "auth", "authenticated":
            return Authenticated(SCOPES[vector["scope"]])
        case "auth", "permission denied":
            return PermissionDenied(vector["reason"])
        case "auth", "token request":
            return TokenRequest()
        case "sync status", _:
            return SyncStatus(vector["saved"])
        case "close", _:
            return Closed(vector["reason"])
        case "broadcast stateless", _:
            return None
    message = from_client(vector)
    assert not isinstance(message, Token | Close | BroadcastStateless)
    return message


@pytest.mark.parametrize("vector", vectors("server"))
def test_a_recorded_frame_of_the_server_is_read_by_a_client(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    _, pos = hocuspocus.read_address(frame)
    message = hocuspocus.decode_from_server(frame, pos)
    assert message == to_client(vector)
    assert type(message) is type(to_client(vector))


@pytest.mark.parametrize("vector", vectors("server"))
def test_a_client_refuses_a_recorded_frame_that_is_cut_or_lengthened(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    _, pos = hocuspocus.read_address(frame)
    # Behind the type of these comes nothing that would be read.
    empty = vector["type"] in ("query awareness", "broadcast stateless")
    for end in range(pos, pos + 1 if empty else len(frame)):
        with pytest.raises(DecodeError):
            hocuspocus.decode_from_server(frame[:end], pos)
    if not empty:
        with pytest.raises(DecodeError):
            hocuspocus.decode_from_server(frame + b"\0", pos)


@pytest.mark.parametrize("vector", [param for param in vectors("client") if param.values[0]["type"] == "auth"])
def test_a_client_of_ours_shows_its_token_as_a_provider_does(vector: dict[str, Any]) -> None:
    body = hocuspocus.encode_token(vector["token"], vector["version"])
    assert (hocuspocus.prefix(vector["address"].encode()) + body).hex() == vector["frame"]


@pytest.mark.parametrize("vector", [param for param in vectors("client") if param.values[0]["type"] == "close"])
def test_a_client_of_ours_leaves_as_a_provider_does(vector: dict[str, Any]) -> None:
    assert (hocuspocus.prefix(vector["address"].encode()) + hocuspocus.CLOSE_REQUEST).hex() == vector["frame"]


NAMES = {
    "step1": "SyncStep1",
    "step2": "SyncStep2",
    "update": "SyncUpdate",
    "awareness": "Awareness",
    "auth": "Auth",
    "query awareness": "QueryAwareness",
    "stateless": "Stateless",
    "broadcast stateless": "BroadcastStateless",
    "close": "CLOSE",
    "sync status": "SyncStatus",
}


@pytest.mark.parametrize("vector", vectors("client") + vectors("server"))
def test_a_recorded_frame_has_a_name_for_the_log(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    name = NAMES[vector["kind"] if vector["type"] in ("sync", "sync reply") else vector["type"]]
    assert hocuspocus.describe(frame, hocuspocus.read_address(frame)[1]) == name


@pytest.mark.parametrize("rest", [b"", b"\0", b"\4\7", b"\x0b"], ids=bytes.hex)
def test_what_is_no_message_has_a_name_too(rest: bytes) -> None:
    assert hocuspocus.describe(b"\1d" + rest, 2).startswith("unknown ")


def test_every_message_was_recorded_in_its_directions() -> None:
    seen = {(vector["from"], vector["type"], vector.get("kind")) for vector in recorded()}
    sync = {(side, "sync", kind) for side in ("client", "server") for kind in SYNC}
    assert seen == sync | {
        ("client", "auth", "token"),
        ("client", "awareness", None),
        ("client", "stateless", None),
        ("client", "close", None),
        ("client", "pong", None),
        ("server", "auth", "authenticated"),
        ("server", "auth", "permission denied"),
        ("server", "auth", "token request"),
        ("server", "awareness", None),
        ("server", "query awareness", None),
        ("server", "sync reply", "step1"),
        ("server", "stateless", None),
        ("server", "broadcast stateless", None),
        ("server", "close", None),
        ("server", "sync status", None),
    }
    tokens = {(vector["token"], vector["version"]) for vector in recorded() if vector.get("kind") == "token"}
    assert tokens >= {("a token", None), ("a token", builder.VERSION), ("", None), ("", builder.VERSION)}
    assert {vector["scope"] for vector in recorded() if "scope" in vector} == set(SCOPES)
    assert {vector["saved"] for vector in recorded() if "saved" in vector} == {True, False}


def test_a_recorded_pong_is_the_constant() -> None:
    [pong] = [vector for vector in recorded() if vector["type"] == "pong"]
    assert bytes.fromhex(pong["frame"]) == hocuspocus.PONG
    assert bytes([builder.PING]) == hocuspocus.PING


def first_frames(source: str) -> list[bytes]:
    """What a provider sent when its socket opened."""
    return [
        bytes.fromhex(vector["frame"])
        for vector in recorded()
        if vector["source"].startswith(source) and vector["what"].startswith("opening") and vector["from"] == "client"
    ]


@pytest.mark.parametrize("source", ["provider 2", "provider 3", "provider 4"])
def test_step_1_is_known_among_what_a_provider_opens_with(source: str) -> None:
    found = [frame for frame in first_frames(source) if hocuspocus.is_step1(frame, hocuspocus.read_address(frame)[1])]
    assert found
    assert all(type(decode(frame)[1]) is SyncStep1 for frame in found)
    others = [frame for frame in first_frames(source) if frame not in found]
    assert others
    assert not any(type(decode(frame)[1]) is SyncStep1 for frame in others)


@pytest.fixture
def installed_peer() -> Iterator[None]:
    """The published server, installed once however many tests run side by side."""
    _, npm = find_node()
    with (Path(tempfile.gettempdir()) / "collab-npm-peer-hocuspocus.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (PEER / "node_modules").is_dir():
            import subprocess

            subprocess.run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=PEER, check=True)
    yield


@pytest.mark.usefixtures("installed_peer")
async def test_the_packages_still_write_what_was_recorded() -> None:
    process = await asyncio.create_subprocess_exec(
        find_node()[0],
        str(installed_packages() / "hocuspocus_golden.mjs"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, printed = await process.communicate()
    assert process.returncode == 0, printed.decode()
    assert json.loads(output)["frames"] == recorded()


# Addresses and names

names = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=60).filter(
    lambda name: bool(name.strip())
)
sessions = st.none() | st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
addresses = st.builds(lambda name, session: name if session is None else f"{name}\0{session}", names, sessions)
payloads = st.binary(max_size=300)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=100)


@given(names, sessions, payloads)
def test_an_address_is_read_with_its_name(name: str, session: str | None, rest: bytes) -> None:
    address = (name if session is None else f"{name}\0{session}").encode()
    frame = hocuspocus.prefix(address) + rest
    assert frame == varbytes(address) + rest
    assert hocuspocus.read_address(frame) == (address, len(frame) - len(rest))
    assert hocuspocus.document_name(address) == name


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="an empty frame"),
        pytest.param(b"\x0a", id="a length alone"),
        pytest.param(b"\x80", id="half a length"),
        pytest.param(b"\xff" * 200_000, id="an endless length"),
        pytest.param(varuint(2**53 - 1) + b"d", id="a length of 2^53"),
        pytest.param(b"\x02d", id="a length beyond the frame"),
        pytest.param(b"\x81\x00d\x00", id="an overlong length"),
        pytest.param(varbytes(b"\xff\xfe"), id="not UTF-8"),
        pytest.param(varbytes(b"\xed\xa0\x80"), id="a surrogate"),
        pytest.param(varbytes(b"d\0\xff"), id="a session that is not UTF-8"),
        pytest.param(varbytes(b"x" * (hocuspocus.MAX_ADDRESS_BYTES + 1)), id="a byte too much"),
        pytest.param(varbytes(b"x" * 2**20) + b"\x00", id="a mebibyte"),
    ],
)
def test_an_address_that_is_none_is_refused(frame: bytes) -> None:
    with pytest.raises(AddressError):
        hocuspocus.read_address(frame)


def test_an_address_may_be_twice_as_long_as_a_name() -> None:
    address = b"x" * hocuspocus.MAX_ADDRESS_BYTES
    assert hocuspocus.read_address(varbytes(address)) == (address, len(address) + 2)


@pytest.mark.parametrize(
    "name", ["", "\0session", " ", "\t\n", "\u2003 \u00a0", " \0session", "x" * 513, "ä" * 257, "x" * 513 + "\0s"]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InvalidDocumentName):
        hocuspocus.document_name(name.encode())


@pytest.mark.parametrize("name", ["x" * 512, "ä" * 256, " a ", "/", "a/b", "x" * 512 + "\0" + "s" * 500])
def test_a_name_of_512_bytes_is_a_name(name: str) -> None:
    assert hocuspocus.document_name(name.encode()) == name.split("\0")[0]


def test_only_the_first_nul_ends_a_name() -> None:
    assert hocuspocus.document_name(b"d\0one\0two") == "d"


# Messages


@st.composite
def client_messages(draw: st.DrawFn, address: str) -> tuple[bytes, ClientMessage]:
    """A frame, built by the test's own codec, and what it means."""
    match draw(st.integers(0, 9)):
        case 0:
            payload = draw(payloads)
            return builder.step1(address, payload), SyncStep1(payload)
        case 1:
            payload = draw(payloads)
            return builder.step2(address, payload), SyncStep2(payload)
        case 2:
            payload = draw(payloads)
            return builder.update(address, payload), SyncUpdate(payload)
        case 3:
            payload = draw(payloads)
            return builder.frame(address, builder.AWARENESS, varbytes(payload)), AwarenessUpdate(payload)
        case 4:
            token, version = draw(texts), draw(st.none() | st.text("0123456789.", max_size=12))
            return builder.auth(address, token, version), Token(token, version)
        case 5:
            return builder.query_awareness(address), QueryAwareness()
        case 6:
            text = draw(texts)
            return builder.stateless(address, text), Stateless(text.encode())
        case 7:
            return builder.broadcast_stateless(address, draw(texts)), BroadcastStateless()
        case 8:
            payload = draw(payloads)
            body = varuint(builder.UPDATE) + varbytes(payload)
            return builder.frame(address, builder.SYNC_REPLY, body), SyncUpdate(payload)
    return builder.close(address), Close()


@st.composite
def client_frames(draw: st.DrawFn) -> tuple[str, bytes, ClientMessage]:
    address = draw(addresses)
    frame, message = draw(client_messages(address))
    return address, frame, message


@given(client_frames())
def test_a_frame_of_a_client_is_read(sent: tuple[str, bytes, ClientMessage]) -> None:
    address, frame, message = sent
    found_address, found = decode(frame)
    assert (found_address, found) == (address, message)
    assert type(found) is type(message)
    pos = hocuspocus.read_address(frame)[1]
    assert hocuspocus.is_step1(frame, pos) is (type(message) is SyncStep1)
    assert hocuspocus.is_step2(frame, pos) is (type(message) is SyncStep2)
    assert hocuspocus.message_type(frame, pos) == frame[pos]


@given(client_frames())
def test_every_truncation_is_refused_or_harmless(sent: tuple[str, bytes, ClientMessage]) -> None:
    address, frame, message = sent
    body = hocuspocus.read_address(frame)[1]
    for end in range(len(frame)):
        try:
            found_address, found = decode(frame[:end])
        except AddressError:
            assert end < body
        except DecodeError:
            assert end >= body
        else:
            # What is left says less and nothing else.
            assert found_address == address
            if isinstance(message, Token):
                assert found == Token(message.token, None)
            else:
                assert isinstance(message, BroadcastStateless) and isinstance(found, BroadcastStateless)


@given(addresses, st.binary(max_size=60))
@example("d", b"\x02\x00" + varbytes(b"x" * (hocuspocus.MAX_TOKEN_BYTES + 1)))
def test_random_bytes_behind_an_address_raise_only_what_is_said(address: str, rest: bytes) -> None:
    frame = varbytes(address.encode()) + rest
    pos = hocuspocus.read_address(frame)[1]
    hocuspocus.is_step1(frame, pos)
    with contextlib.suppress(DecodeError):
        hocuspocus.message_type(frame, pos)
    with contextlib.suppress(DecodeError, LimitExceeded):
        hocuspocus.decode(frame, pos)


@given(st.binary(max_size=60))
def test_random_bytes_raise_only_what_is_said(frame: bytes) -> None:
    with contextlib.suppress(DecodeError, LimitExceeded, InvalidDocumentName):
        address, pos = hocuspocus.read_address(frame)
        hocuspocus.document_name(address)
        hocuspocus.decode(frame, pos)


@pytest.mark.parametrize("number", [8, 9, 10, 11, 127, 128, 2**53 - 1])
@pytest.mark.parametrize("body", [b"", b"\x01", b"\xff" * 40])
def test_an_unknown_type_means_nothing(number: int, body: bytes) -> None:
    assert decode(builder.frame("d", number, body)) == ("d", None)


@pytest.mark.parametrize("kind", [1, 2, 3, 127])
def test_only_a_token_comes_from_a_client_in_auth(kind: int) -> None:
    with pytest.raises(DecodeError):
        decode(builder.frame("d", builder.AUTH, varuint(kind) + varbytes(b"read-write")))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(builder.auth("d", b"\xff\xfe"), id="token"),
        pytest.param(builder.stateless("d", b"\xff\xfe"), id="stateless"),
    ],
)
def test_a_text_that_is_not_utf_8_is_refused(frame: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(frame)


def test_a_token_has_a_bound() -> None:
    bound = hocuspocus.MAX_TOKEN_BYTES
    assert decode(builder.auth("d", "x" * bound)) == ("d", Token("x" * bound, None))
    with pytest.raises(LimitExceeded):
        decode(builder.auth("d", "x" * (bound + 1)))


def test_a_long_version_is_cut_and_no_error() -> None:
    _, message = decode(builder.auth("d", "t", "4." + "0" * 100_000))
    assert isinstance(message, Token) and message.version is not None
    assert message.version.startswith("4.0") and len(message.version) <= 64


def test_what_is_no_text_in_a_version_is_left_out() -> None:
    """It is for the log alone, so nobody is refused for it; cutting it may split a character, too."""
    _, message = decode(builder.auth("d", "t", "x" + "ä" * 100))
    assert isinstance(message, Token) and message.version is not None
    assert set(message.version) == {"x", "ä"}
    assert decode(builder.frame("d", builder.AUTH, b"\x00\x01t" + varbytes(b"4.\xff8")))[1] == Token("t", "4.8")


@given(
    addresses,
    st.one_of(
        payloads.map(SyncStep1),
        payloads.map(SyncStep2),
        payloads.map(SyncUpdate),
        payloads.map(AwarenessUpdate),
        texts.map(lambda text: Stateless(text.encode())),
        st.booleans().map(SyncStatus),
        texts.map(PermissionDenied),
        st.just(QueryAwareness()),
    ),
)
def test_what_the_server_writes_is_one_message(address: str, message: Any) -> None:
    frame = builder.parse(hocuspocus.prefix(address.encode()) + hocuspocus.encode(message))
    expected: dict[type, tuple[int, tuple[Any, ...]]] = {
        SyncStep1: (builder.SYNC, (0,)),
        SyncStep2: (builder.SYNC, (1,)),
        SyncUpdate: (builder.SYNC, (2,)),
        AwarenessUpdate: (builder.AWARENESS, ()),
        Stateless: (builder.STATELESS, ()),
        SyncStatus: (builder.SYNC_STATUS, ()),
        PermissionDenied: (builder.AUTH, (builder.PERMISSION_DENIED,)),
        QueryAwareness: (builder.QUERY_AWARENESS, ()),
    }
    number, fields = expected[type(message)]
    content = [part.decode() for part in message] if isinstance(message, Stateless) else list(message)
    assert frame == (address, number, (*fields, *content))


@given(addresses, st.binary(max_size=60))
def test_random_bytes_of_a_server_raise_only_what_is_said(address: str, rest: bytes) -> None:
    frame = varbytes(address.encode()) + rest
    with contextlib.suppress(DecodeError):
        hocuspocus.decode_from_server(frame, len(frame) - len(rest))


@pytest.mark.parametrize("number", [9, 10, 11, 127, 128, 2**53 - 1])
def test_an_unknown_type_of_a_server_means_nothing(number: int) -> None:
    assert hocuspocus.decode_from_server(builder.frame("d", number, b"x"), 2) is None


@pytest.mark.parametrize("kind", [3, 127])
def test_an_answer_to_a_token_that_does_not_exist_is_refused(kind: int) -> None:
    with pytest.raises(DecodeError):
        hocuspocus.decode_from_server(builder.frame("d", builder.AUTH, varuint(kind) + varbytes(b"x")), 2)


@pytest.mark.parametrize("scope", ["read-write", "admin", ""])
def test_every_scope_but_one_may_write(scope: str) -> None:
    frame = builder.frame("d", builder.AUTH, varuint(builder.AUTHENTICATED) + varbytes(scope.encode()))
    assert hocuspocus.decode_from_server(frame, 2) == Authenticated(Access.WRITE)


def test_the_keepalive_is_the_empty_awareness_update_that_every_provider_accepts() -> None:
    assert bytes.fromhex("010100") == hocuspocus.KEEPALIVE


# Close codes


@pytest.mark.parametrize("kind", every_error())
def test_an_error_ends_the_socket_only_where_coming_back_is_of_use(kind: type[CollabError]) -> None:
    code = hocuspocus.close_code(kind("the operator's text"))
    if kind is AddressError:
        # Nothing to answer under: the one refusal that closes the socket.
        assert code is not None and code.code == 4401
    elif code is not None:
        assert kind.retryable, "a refusal is a PermissionDenied under its address"
        assert "operator's text" not in code.reason and len(code.reason.encode()) <= 123
        # 2.15 stays away after these.
        assert code.code not in (1009, 4401, 4403)


@pytest.mark.parametrize("kind", [*every_error(), RuntimeError])
def test_every_error_that_is_about_no_one_session_closes_the_socket(kind: type[Exception]) -> None:
    error = kind("the operator's text")
    expected = 4205 if isinstance(error, LimitExceeded) else 4500
    assert hocuspocus.socket_close_code(error) == (
        hocuspocus.close_code(error) or (expected, hocuspocus.socket_close_code(error).reason)
    )
    assert "operator's text" not in hocuspocus.socket_close_code(error).reason


def test_what_passes_closes_the_socket_so_that_the_provider_comes_back() -> None:
    codes = {
        errors.ServerStopping: 1012,
        errors.StoreUnavailable: 1013,
        errors.DamagedDocument: 1013,
        errors.AccessUnavailable: 1013,
        errors.PeerTooSlow: 4508,
    }
    for kind, code in codes.items():
        found = hocuspocus.close_code(kind("x"))
        assert found is not None and found.code == code
