"""Every kind of message, in every place that tells kinds apart; and how a socket's end is told.

Strategy: a kind that is added to `Message` fails here until it has an example, and then until each encoder and the
room know what to do with it. mypy says the same of the code (`assert_never`), which is tested here too: it is shown
the code with one kind more.
"""

from __future__ import annotations

import re
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from collab.engine.document import Document
from collab.engine.room import Answer, Refused, Relay, Room, Send
from collab.errors import CollabError, Forbidden, InternalError, InvalidTransition
from collab.protocol.awareness import AwarenessUpdate, QueryAwareness
from collab.protocol.hocuspocus import codec as hocuspocus
from collab.protocol.messages import LocalVersion, Message, PermissionDenied, Stateless, SyncStatus, close_reason
from collab.protocol.session import Access, Session
from collab.protocol.sync import EMPTY_UPDATE, SyncStep1, SyncStep2, SyncUpdate
from collab.protocol.ywebsocket import codec as ywebsocket
from tests.support.sessions import admit

ROOT = Path(__file__).parents[2]

EXAMPLES: dict[type[Message], Message] = {
    SyncStep1: SyncStep1(b"\x00"),
    SyncStep2: SyncStep2(EMPTY_UPDATE),
    SyncUpdate: SyncUpdate(EMPTY_UPDATE),
    AwarenessUpdate: AwarenessUpdate(b"\x01\x07\x01\x02{}"),
    QueryAwareness: QueryAwareness(),
    Stateless: Stateless(b"a text"),
    SyncStatus: SyncStatus(True),
    LocalVersion: LocalVersion(7),
    PermissionDenied: PermissionDenied("no"),
}

# What a protocol has no message for.
MISSING = {Stateless, SyncStatus}
MISSING_IN_HOCUSPOCUS = {LocalVersion}

every_kind = pytest.mark.parametrize("message", EXAMPLES.values(), ids=lambda message: type(message).__name__)


class Unknown(NamedTuple):
    """A kind that was added and forgotten."""

    payload: bytes = b"x"


def make_room() -> tuple[Room, Session]:
    room = Room(Document(), max_document_bytes=1 << 20, max_awareness_bytes=1_000, max_awareness_ids=3)
    session = Session()
    admit(session, Access.WRITE)
    room.join(session)
    return room, session


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(typing.get_args(Message))


@every_kind
def test_hocuspocus_has_a_kind_or_says_that_it_has_not(message: Message) -> None:
    if type(message) in MISSING_IN_HOCUSPOCUS:
        with pytest.raises(ValueError, match=f"Hocuspocus has no {type(message).__name__}"):
            hocuspocus.encode(message)
        return
    decoded = hocuspocus.decode_from_server(hocuspocus.encode(message), 0)
    assert decoded == message and type(decoded) is type(message)


@every_kind
def test_y_websocket_has_a_kind_or_says_that_it_has_not(message: Message) -> None:
    if type(message) in MISSING:
        with pytest.raises(ValueError, match=f"y-websocket has no {type(message).__name__}"):
            ywebsocket.encode(message)
        return
    decoded = ywebsocket.decode_from_server(ywebsocket.encode(message))
    assert decoded == message and type(decoded) is type(message)


@every_kind
def test_a_room_has_an_answer_to_every_kind(message: Message) -> None:
    room, session = make_room()
    room.receive(session, AwarenessUpdate(b"\x01\x07\x01\x02{}"))
    effects = [type(effect) for effect in room.receive(session, message)]
    expected: dict[type[Message], list[type]] = {SyncStep1: [Answer], QueryAwareness: [Send], Stateless: [Relay]}
    assert effects == expected.get(type(message), [])
    session.access = Access.READ
    if isinstance(message, Stateless):
        assert [type(effect) for effect in room.receive(session, message)] == [Refused]


@pytest.mark.parametrize("encode", [ywebsocket.encode, hocuspocus.encode])
def test_no_encoder_makes_another_message_of_a_kind_that_it_does_not_know(encode: Callable[[object], bytes]) -> None:
    with pytest.raises(AssertionError, match="Unknown"):
        encode(Unknown())


def test_a_room_does_not_take_a_kind_that_it_does_not_know_for_another() -> None:
    room, session = make_room()
    with pytest.raises(AssertionError, match="Unknown"):
        room.receive(session, Unknown())  # type: ignore[arg-type]


def test_the_type_checker_names_every_place_that_forgets_a_kind(tmp_path: Path) -> None:
    source = ROOT / "collab" / "protocol" / "messages.py"
    changed = tmp_path / "messages.py"
    text = source.read_text()
    assert "\nMessage = (\n" in text
    added = "\nclass Added(NamedTuple):\n    payload: bytes\n\n\nMessage = Added | (\n"
    changed.write_text(text.replace("\nMessage = (\n", added))
    places = [
        "collab/engine/room.py",
        "collab/protocol/hocuspocus/codec.py",
        "collab/protocol/hocuspocus/connection.py",
        "collab/protocol/ywebsocket/codec.py",
    ]
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")),
            *("--shadow-file", str(source.relative_to(ROOT)), str(changed), *places),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = re.findall(
        r'^(\S+):\d+: error: Argument 1 to "assert_never" has incompatible type "Added"', checked.stdout, re.M
    )
    assert sorted(found) == places, checked.stdout + checked.stderr


# How a socket's end is told


class Wordy(CollabError):
    public = "ä" * 100


def test_a_reason_is_the_public_text_as_far_as_it_fits() -> None:
    assert close_reason(Forbidden("the operator's text")) == "the token does not allow this"
    assert close_reason(Forbidden("the operator's text", public="not this one")) == "not this one"
    # 123 bytes are left beside the code, and no character is cut in half.
    assert close_reason(Wordy("x")) == "ä" * 61


@pytest.mark.parametrize("error", [RuntimeError("secret"), InternalError("secret"), InvalidTransition("secret")])
def test_a_defect_is_told_as_nothing_but_a_defect(error: Exception) -> None:
    assert close_reason(error) == "internal error, come back"
