"""Both wire protocols on the one table of sessions: every kind of message in every state.

Strategy: the whole application runs in this process; its authenticator and the opening of its documents wait at
gates, and every step of every session is written down as it is taken. So a session is held in a state while its
client sends whatever its protocol has. What must come of that is the same for both: no step is attempted that the
table does not have, what was sent before its turn is taken in its turn, what ends a session ends nothing else,
and afterwards the client, or the same client come back, is served like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from collab.app import create_app
from collab.auth.access import AccessRequest, Grant
from collab.errors import DocumentDeleted, Forbidden
from collab.hub import catch_up as catch_up_module
from collab.hub import delivery as delivery_module
from collab.hub import room as room_module
from collab.hub.hub import Hub
from collab.hub.member import Member
from collab.protocol.session import TRANSITIONS, Access, Event, Session, State
from collab.settings import Settings
from collab.transports.sockets.outbox import SocketOutbox
from tests.support import hocuspocus, wsclient
from tests.support.hocuspocus import RawHocuspocus
from tests.support.waiting import eventually
from tests.support.wsclient import EMPTY_UPDATE, STEP2, RawClient, text_update

_numbers = itertools.count(1)


class Stage:
    """The application behind its gates.

    Attributes:
        deciding, opening: the gates; open unless a test shuts them.
        fails: whether opening a document fails for good.
        members: every session, in the order in which they began.
        steps: every step that was taken, and those that were ``refused``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._unmeasured: list[Callable[[], object]] = []
        self._measure = SocketOutbox.measure
        self.deciding, self.opening = asyncio.Event(), asyncio.Event()
        self.open_gates()
        self.fails = False
        self.members: list[Member] = []
        self.steps: list[tuple[State, Event]] = []
        self.refused: list[tuple[State, Event]] = []
        self.url = ""
        begin, step, open_room = Member.__init__, Session.on, Hub.open

        def __init__(member: Member, *args: Any) -> None:
            begin(member, *args)
            self.members.append(member)

        def on(session: Session, event: Event) -> None:
            row = (session.state, event)
            try:
                step(session, event)
            except Exception:
                self.refused.append(row)
                raise
            self.steps.append(row)

        async def open_when_told(hub: Hub, *args: Any, **kwargs: Any) -> Any:
            await self.opening.wait()
            if self.fails:
                raise DocumentDeleted("deleted by the test")
            return await open_room(hub, *args, **kwargs)

        monkeypatch.setattr(Member, "__init__", __init__)
        monkeypatch.setattr(Session, "on", on)
        monkeypatch.setattr(Hub, "open", open_when_told)

    async def authenticate(self, request: AccessRequest) -> Grant:
        await self.deciding.wait()
        if request.token == "deny":
            raise Forbidden("denied by the test")
        return Grant(Access.WRITE)

    def open_gates(self) -> None:
        self.deciding.set()
        self.opening.set()
        self._monkeypatch.setattr(SocketOutbox, "measure", self._measure)
        for done in self._unmeasured:
            done()
        self._unmeasured.clear()

    def shut_lines(self) -> None:
        """Let clients read nothing to its end, until the gates are opened."""
        self._monkeypatch.setattr(SocketOutbox, "measure", lambda _, done: self._unmeasured.append(done))

    @contextlib.contextmanager
    def all_is_large(self) -> Iterator[None]:
        """Take whatever is sent for more than a slow line may take at once."""
        with self._monkeypatch.context() as patch:
            patch.setattr(room_module, "LARGE", -1)
            patch.setattr(catch_up_module, "LARGE", -1)
            patch.setattr(delivery_module, "LARGE", -1)
            yield

    async def until(self, state: State) -> Member:
        """Wait until the latest session is in this state, and return it."""

        async def there() -> Member | None:
            return self.members[-1] if self.members and self.members[-1].state is state else None

        return await eventually(there, f"a session that is {state.value}", 20.0)


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    stage = Stage(monkeypatch)
    server = TestServer(create_app(Settings(data_dir=tmp_path), stage), host="127.0.0.1")
    await server.start_server()
    stage.url = f"ws://127.0.0.1:{server.port}"
    yield stage
    stage.open_gates()
    await server.close()
    assert stage.refused == []
    assert set(stage.steps) <= set(TRANSITIONS)


class Client(ABC):
    """A client of one protocol on a document of its own; use as an async context manager."""

    held: dict[State, State]
    """The states in which a session can be held, and in which of them the server then has it."""

    rows: frozenset[tuple[State, Event]]
    """The rows of the table that this protocol walks."""

    ends: frozenset[str]
    """The kinds of message over which a live session ends."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.name = f"document {next(_numbers)}"
        self.raw: RawClient | None = None
        self.member: Member | None = None

    @property
    @abstractmethod
    def messages(self) -> dict[str, bytes]:
        """Every kind of message; "update" and "step 2" bring the text "taken"."""

    @abstractmethod
    async def arrive(self, token: str | None) -> None:
        """Open the socket and show the token, if there is one."""

    @abstractmethod
    async def again(self) -> None:
        """Show a good token, as a client does that was refused or has left."""

    @abstractmethod
    async def recover(self, state: State, kind: str) -> None:
        """Do what a client does whose session ends over what it has sent in a state."""

    @abstractmethod
    async def joined(self) -> None:
        """Wait until the client has been let in."""

    @abstractmethod
    async def edit(self, text: str) -> None:
        """Send an edit and wait until the server has told the client what became of it."""

    @abstractmethod
    async def leave(self) -> None:
        """End the session, but not the socket if the protocol can."""

    @abstractmethod
    async def goes_on(self) -> bool:
        """Wait until all that was sent to a live session was looked at; tell whether it lives."""

    async def send(self, data: bytes) -> None:
        assert self.raw is not None
        await self.raw.send(data)

    async def hold(self, state: State) -> None:
        """Bring the session into a state and keep it there."""
        stage = self.stage
        if state is State.ARRIVED and isinstance(self, Hocuspocus):
            await self.arrive(None)
            return  # the session begins with its first message
        if state in (State.ARRIVED, State.AUTHENTICATING):
            stage.deciding.clear()
        elif state is State.JOINING:
            stage.opening.clear()
        await self.arrive("deny" if state is State.DENIED else "good")
        if state in (State.LIVE, State.LAGGING, State.RECEIVING, State.CLOSED):
            await self.joined()
        if state is State.LAGGING:
            # Past a mark below nothing, which the next frame shows, and the outbox never drains to it.
            stage.members[-1].outbox.mark = -1
            await self.send(self.messages["step 1"])
        if state is State.RECEIVING:
            stage.shut_lines()
            with stage.all_is_large():
                await self.send(self.messages["step 1"])
                await stage.until(State.RECEIVING)
        if state is State.CLOSED:
            await self.leave()
        self.member = await stage.until(self.held[state])

    async def let_go(self, state: State) -> None:
        """Let the session go on from where it was held."""
        self.stage.open_gates()
        if state is State.LAGGING:
            self.stage.members[-1].outbox.mark = 1 << 20
        if state in (State.DENIED, State.CLOSED) or (state is State.ARRIVED and isinstance(self, Hocuspocus)):
            await self.again()
        else:
            await self.joined()

    async def text(self) -> str:
        """The text of the document as a newcomer gets it."""
        async with RawClient(f"{self.stage.url}/ws/{self.name}?token=good") as reader:
            reader_doc = wsclient.LiveClient("")
            await reader.send(wsclient.step1())
            reader_doc.doc.apply_update(await reader.expect_sync(STEP2))
            return str(reader_doc.text())

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.raw is not None:
            await self.raw.close()


class YWebSocket(Client):
    # The token comes with the upgrade, so a session that has shown none yet is never seen.
    held = {
        State.AUTHENTICATING: State.AUTHENTICATING,
        State.JOINING: State.JOINING,
        State.LIVE: State.LIVE,
        State.LAGGING: State.LAGGING,
        State.RECEIVING: State.RECEIVING,
        State.CLOSED: State.CLOSED,
    }
    rows = frozenset(
        {
            (State.ARRIVED, Event.PRESENTED),
            (State.AUTHENTICATING, Event.GRANTED),
            (State.AUTHENTICATING, Event.ENDED),
            (State.JOINING, Event.OPENED),
            (State.JOINING, Event.ENDED),
            (State.LIVE, Event.LAGGED),
            (State.LIVE, Event.RECEIVES),
            (State.LIVE, Event.ENDED),
            (State.LAGGING, Event.CAUGHT_UP),
            (State.LAGGING, Event.RECEIVES),
            (State.LAGGING, Event.ENDED),
            (State.RECEIVING, Event.CAUGHT_UP),
            (State.RECEIVING, Event.ENDED),
        }
    )
    ends = frozenset({"malformed"})

    @property
    def messages(self) -> dict[str, bytes]:
        return {
            "step 1": wsclient.step1(),
            "step 2": wsclient.step2(text_update(5, "taken")),
            "update": wsclient.update(text_update(5, "taken")),
            "awareness": wsclient.awareness((5, 1, "{}")),
            "query awareness": b"\x03",
            "auth": b"\x02\x00\x01x",
            "unknown": b"\x7f and more",
            "malformed": b"\x00\x02\x7f",
        }

    async def arrive(self, token: str | None) -> None:
        self.raw = await RawClient(f"{self.stage.url}/ws/{self.name}?token={token}").connect()

    async def again(self) -> None:
        assert self.raw is not None
        await self.raw.close()
        await self.arrive("good")
        await self.joined()

    async def recover(self, state: State, kind: str) -> None:
        if not await self.goes_on():
            await self.again()

    async def joined(self) -> None:
        assert self.raw is not None
        await self.raw.until(
            lambda: self.raw is not None and (self.raw.frames or self.raw.close_code), "step 1, or the close"
        )

    async def edit(self, text: str) -> None:
        assert self.raw is not None
        seen = len(self.raw.frames)
        await self.send(wsclient.update(text_update(1000 + next(_numbers), text)))
        await self.raw.until(lambda: any(text.encode() in data for data in self.raw.frames[seen:]), "the echo")  # type: ignore[union-attr]

    async def leave(self) -> None:
        assert self.raw is not None
        await self.raw.close()

    async def goes_on(self) -> bool:
        assert self.raw is not None
        await self.raw.barrier_or_close()
        return self.raw.close_code is None


class Hocuspocus(Client):
    held = {state: state for state in State}
    rows = frozenset(TRANSITIONS)
    # A token on a live session ends nothing.
    ends = frozenset({"close", "broadcast stateless", "malformed"})

    client: RawHocuspocus

    @property
    def messages(self) -> dict[str, bytes]:
        name = self.name
        return {
            "step 1": hocuspocus.step1(name),
            "step 2": hocuspocus.step2(name, text_update(5, "taken")),
            "update": hocuspocus.update(name, text_update(5, "taken")),
            "awareness": hocuspocus.awareness(name, (5, 1, "{}")),
            "query awareness": hocuspocus.query_awareness(name),
            "token": hocuspocus.auth(name, "good"),
            "sync reply": hocuspocus.frame(name, hocuspocus.SYNC_REPLY, b"\x02" + wsclient.varbytes(EMPTY_UPDATE)),
            "stateless": hocuspocus.stateless(name, "text"),
            "broadcast stateless": hocuspocus.broadcast_stateless(name, "text"),
            "close": hocuspocus.close(name),
            "status": hocuspocus.frame(name, hocuspocus.SYNC_STATUS, b"\x01"),
            "unknown": hocuspocus.frame(name, 127, b" and more"),
            "malformed": hocuspocus.frame(name, hocuspocus.SYNC, b"\x02\x7f"),
        }

    async def arrive(self, token: str | None) -> None:
        self.raw = self.client = RawHocuspocus(f"{self.stage.url}/hocuspocus")
        await self.client.connect()
        if token is not None:
            await self.send(hocuspocus.auth(self.name, token))

    async def again(self) -> None:
        await self.send(hocuspocus.auth(self.name, "good"))

    async def recover(self, state: State, kind: str) -> None:
        if state is State.DENIED or (kind == "close" and state in (State.ARRIVED, State.CLOSED)):
            return  # it was dropped with the denial, or came before the token
        told = {
            "close": (hocuspocus.CLOSE, "provider_initiated"),
            "broadcast stateless": (hocuspocus.CLOSE, "Reset Connection"),
            "malformed": (hocuspocus.AUTH, hocuspocus.PERMISSION_DENIED),
        }[kind]
        await self.client.find(lambda one: (one.type, *one.fields[:1]) == told, "the end of the session")
        await self.again()

    async def joined(self) -> None:
        await self.client.find(
            lambda one: one.type == hocuspocus.AUTH and one.fields[0] == hocuspocus.AUTHENTICATED, "to be let in"
        )

    async def edit(self, text: str) -> None:
        seen = len(self.client.frames)
        await self.send(hocuspocus.step2(self.name, EMPTY_UPDATE))
        await self.send(hocuspocus.update(self.name, text_update(1000 + next(_numbers), text)))
        await self.client.until(lambda: any(text.encode() in data for data in self.client.frames[seen:]), "the echo")
        assert await self.client.statuses(self.name, 2, after=seen)

    async def leave(self) -> None:
        await self.send(hocuspocus.close(self.name))

    async def goes_on(self) -> bool:
        # Answered in its place among the messages of the socket, whatever they were.
        await self.send(bytes([hocuspocus.PING]))
        await self.client.until(lambda: bytes([hocuspocus.PONG]) in self.client.frames, "the pong")
        self.client.frames.remove(bytes([hocuspocus.PONG]))
        assert self.member is not None
        return self.member.state is not State.CLOSED


EVERY_STATE = [
    pytest.param(kind, state, id=f"{kind.__name__} {state.value}")
    for kind in (YWebSocket, Hocuspocus)
    for state in kind.held
]


@pytest.mark.parametrize(("protocol", "state"), EVERY_STATE)
async def test_every_message_has_its_place_in_every_state(
    stage: Stage, protocol: Callable[[Stage], Client], state: State
) -> None:
    for kind in protocol(stage).messages:
        try:
            async with protocol(stage) as client:
                await client.hold(state)
                await client.send(client.messages[kind])
                if kind == "step 2" and state is State.CLOSED and protocol is Hocuspocus:
                    # Only one that does not know of its end sends that: it is made to come back.
                    assert client.raw is not None
                    assert await client.raw.expect_close() == 4205
                    continue
                await client.let_go(state)
                if kind in client.ends:
                    await client.recover(state, kind)
                await client.edit("served")
                text = await client.text()
                # Updates of a client that was denied, or whose socket has ended, are not kept: it says them again.
                kept = state is not State.DENIED and not (state is State.CLOSED and protocol is YWebSocket)
                assert text.count("taken") == int(kept and kind in ("update", "step 2"))
                assert text.count("served") == 1
        except BaseException as error:
            error.add_note(f"sent while {state.value}: {kind}")
            raise


@pytest.mark.parametrize("protocol", [YWebSocket, Hocuspocus])
async def test_a_live_session_ends_over_what_ends_it_and_over_nothing_else(
    stage: Stage, protocol: Callable[[Stage], Client]
) -> None:
    kinds = list(protocol(stage).messages)
    ended = set()
    async with protocol(stage) as other:
        await other.hold(State.LIVE)
        for kind in kinds:
            async with protocol(stage) as client:
                client.name = other.name
                await client.hold(State.LIVE)
                await client.send(client.messages[kind])
                if not await client.goes_on():
                    ended.add(kind)
        await other.edit("unharmed")
        assert ended == other.ends


@pytest.mark.parametrize("protocol", [YWebSocket, Hocuspocus])
async def test_the_protocol_walks_its_rows_and_no_others(stage: Stage, protocol: Callable[[Stage], Client]) -> None:
    client = protocol(stage)
    for state in client.held:
        # Each state is left by what comes next, and by the end of the socket.
        for goes_on in (True, False) if state is not State.CLOSED else (True,):
            async with protocol(stage) as client:
                await client.hold(state)
                if goes_on:
                    await client.let_go(state)
                    await client.edit("served")
                else:
                    # On Hocuspocus a session begins with its first message.
                    await client.send(client.messages["awareness"])
                    await stage.until(client.held[state])
                    assert client.raw is not None
                    await client.raw.vanish()
            stage.open_gates()
    # One that has lagged, and lacks much.
    async with protocol(stage) as client:
        await client.hold(State.LAGGING)
        await client.send(client.messages["update"])
        with stage.all_is_large():
            stage.shut_lines()
            stage.members[-1].outbox.mark = 1 << 20
            await stage.until(State.RECEIVING)
        stage.open_gates()
        await client.edit("served")
    # A document that cannot be opened.
    stage.fails = True
    async with protocol(stage) as client:
        await client.arrive("good")
        if protocol is Hocuspocus:
            await stage.until(State.DENIED)
        else:
            assert client.raw is not None
            assert await client.raw.expect_close() == 4404
    stage.fails = False
    assert set(stage.steps) == client.rows
