"""What stands in the place of a socket's protocol when the socket has ended: nothing happens any more."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from collab.errors import Forbidden, InternalError
from collab.protocol import events
from collab.protocol.ended import ENDED, Ended
from collab.protocol.events import WireProtocol
from collab.protocol.messages import CloseCode
from collab.protocol.session import Access, Session, State


class Channel(events.Channel):
    def new_session(self) -> Session:
        return Session()


CHANNEL = Channel()
SESSION = CHANNEL.session

CALLS: dict[str, Callable[[], object]] = {
    "receive": lambda: ENDED.receive(b"\x00\x02\x02\x00\x00"),
    "receive_live": lambda: ENDED.receive_live(b"\x00\x02\x02\x00\x00"),
    "may_send": lambda: ENDED.may_send(b"\x00\x02\x02\x00\x00"),
    "unread": lambda: ENDED.unread(b"\x00\x02", 1_000),
    "full": lambda: ENDED.full,
    "relieve": ENDED.relieve,
    "granted": lambda: ENDED.granted(CHANNEL, SESSION, Access.WRITE, "ann"),
    "opened": lambda: ENDED.opened(CHANNEL, SESSION),
    "denied": lambda: ENDED.denied(CHANNEL, SESSION, Forbidden("x")),
    "next_waiting": lambda: ENDED.next_waiting(CHANNEL, SESSION),
    "failed": lambda: ENDED.failed(CHANNEL, SESSION, Forbidden("x")),
    "ended": lambda: ENDED.ended(CHANNEL, SESSION, Forbidden("x")),
    "expiring": lambda: ENDED.expiring(CHANNEL),
    "expired": lambda: ENDED.expired(CHANNEL),
    "renewed": lambda: ENDED.renewed(CHANNEL, SESSION, Access.READ),
    "renewal_denied": lambda: ENDED.renewal_denied(CHANNEL, SESSION, Forbidden("x")),
    "close": ENDED.close,
    "keepalive": ENDED.keepalive,
    "overdue": ENDED.overdue,
    "confirm_close": lambda: ENDED.confirm_close(b"d"),
    "channels_open": lambda: ENDED.channels_open,
}


NOTHING = {"receive_live": None, "next_waiting": None, "keepalive": None, "full": False, "may_send": False}


@pytest.mark.parametrize("what", CALLS)
def test_nothing_happens_any_more(what: str) -> None:
    assert CALLS[what]() == NOTHING.get(what, ())
    assert (SESSION.state, SESSION.access) == (State.ARRIVED, Access.WRITE)


@pytest.mark.parametrize("error", [Forbidden("x"), InternalError("x"), RuntimeError("x")])
def test_the_code_that_nobody_will_be_sent_says_nothing(error: Exception) -> None:
    assert ENDED.close_code(error) == CloseCode(1000, "")


def test_all_that_a_protocol_can_be_asked_for_is_in_the_table_above() -> None:
    asked = {name for name, _ in inspect.getmembers(WireProtocol) if not name.startswith("_")}
    assert {name.partition(" ")[0] for name in CALLS} | {"close_code"} == asked


def test_it_holds_nothing() -> None:
    """One for all sockets: what has ended must not keep anything of itself in memory."""
    assert Ended.__slots__ == ()
    assert not hasattr(ENDED, "__dict__")
