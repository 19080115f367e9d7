"""What operators tell all nodes, as it is done on this one: kick, check access again, reload, log levels.

Strategy: an instruction is a row in the store (``storage.control``), so every node finds it over whatever bus, or by
looking once a second where there is none; one that stood still acts when it goes on. The bus carries nothing but "look
now", on a topic that no document can have, for a user's sessions may be on any document. What was done is written back,
and whoever has given the instruction reads which nodes have acted.

Sessions are worked on in slices of time: there may be thousands of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final, NamedTuple, Protocol

from collab import audit
from collab.audit import Act, Outcome, Who
from collab.errors import KeptOut, Kicked, StoreUnavailable, is_refusal
from collab.hub.agents import Agents
from collab.hub.member import Checked, Member
from collab.hub.membership import Membership
from collab.hub.people import People
from collab.hub.readers import Reader
from collab.hub.room import LiveRoom
from collab.hub.stream_presence import Visitors
from collab.hub.tasks import Tasks
from collab.protocol.names import check_document_name
from collab.protocol.session import State
from collab.storage.control import PAGE
from collab.storage.records import Instruction, Kind, NodeReport, Reports, StoredInstruction
from collab.storage.store import Store
from collab.telemetry import ROOT, RateLimited, get_logger, shown_name
from collab.telemetry.levels import DEFAULT, MOST_SECONDS, SIGNAL_SECONDS, check_change, levels

_log = get_logger("control")
_limited = RateLimited(_log)

MAX_KEPT_OUT_SECONDS: Final = 86_400.0
"""Seconds for which a user can be kept out: for longer the application has to take the access away."""

MAX_CLOSED_SECONDS: Final = 86_400.0
"""Seconds for which a document can be closed; then somebody has to say it again."""

MAX_TEXT_BYTES: Final = 1_024
"""Bytes of a user or a connection that an instruction names."""

ANSWER_SECONDS: Final = 5.0
"""Seconds for which those who have given an instruction wait for the reports."""

# Between two looks at the reports: the first is after the shortest.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25

# Seconds until nodes that have not reported are told once more.
_TELL_AGAIN = 0.5

# Seconds within which a transaction that has taken a lower number may still commit.
_OVERLAP = 15.0

# Seconds after which nobody waits for a report any more.
_REPORTED = 60.0

# Questions about access that are under way at a time for one instruction.
_QUESTIONS = 32

# What is of one document, and of nothing else.
_OF_DOCUMENT = (Kind.RELOAD, Kind.QUARANTINE, Kind.RELEASE)

# Seconds of work after which the loop gets its turn.
_SLICE = 0.002


class Keeper(Protocol):
    """What is needed of the hub."""

    store: Store
    rooms: dict[str, LiveRoom]
    tasks: Tasks
    membership: Membership
    agents: Agents
    visitors: Visitors
    people: People
    audit: audit.Audit

    def now(self) -> float:
        """Return the loop's time in seconds."""
        ...

    async def reload(self, name: str) -> int:
        """Drop a room, so that it is read from the store again; return how many sessions it had."""
        ...

    async def close_document(self, name: str, seconds: float) -> int:
        """Close a document on this node for so long; return how many sessions it had."""
        ...

    def release_document(self, name: str) -> None:
        """Let a document be opened again at once."""
        ...

    def tell_nodes(self) -> None:
        """Let the other nodes look for instructions now."""
        ...

    @property
    def generation(self) -> int:
        """How often the store was found to be an older one."""
        ...


def check_instruction(instruction: Instruction) -> None:
    """Refuse an instruction that says too little or too much.

    Raises:
        ValueError: the text says what is wrong, for the one who gives it.
        InvalidDocumentName: the document has no such name.
    """
    kind, document, user, connection, seconds = (
        instruction.kind,
        instruction.document,
        instruction.user,
        instruction.connection,
        instruction.seconds,
    )
    if kind is Kind.LOG:
        if document is not None or user is not None or connection is not None:
            raise ValueError("a log level is of no document, user or connection")
        check_change(instruction.logger or "", instruction.level or "", seconds)
        return
    if instruction.logger is not None or instruction.level is not None:
        raise ValueError("a logger and a level are for a log level")
    if document is not None:
        check_document_name(document)
    for what, text in (("user", user), ("connection", connection)):
        if text is not None and not 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_TEXT_BYTES:
            raise ValueError(f"a {what} has 1 to {MAX_TEXT_BYTES} bytes")
    if connection is not None and (not connection.isascii() or len(connection) > 64):
        raise ValueError("a connection is NODE-NUMBER")
    if not 0 <= seconds <= MAX_KEPT_OUT_SECONDS:
        raise ValueError(f"seconds are a number from 0 to {MAX_KEPT_OUT_SECONDS:.0f}")
    if kind in _OF_DOCUMENT and (document is None or user is not None or connection is not None):
        raise ValueError(f"a {kind.value} is of one document")
    if kind is Kind.LIST and connection is not None:
        raise ValueError("connections are asked for by their document or their user")
    if kind is Kind.KICK and document is None and user is None and connection is None:
        raise ValueError("say who is to be kicked: a user, a connection, or everybody on a document")
    if kind is Kind.QUARANTINE:
        if not 1 <= seconds <= MAX_CLOSED_SECONDS:
            raise ValueError(f"say for how many seconds the document is closed, from 1 to {MAX_CLOSED_SECONDS:.0f}")
    elif kind is not Kind.RELEASE and seconds and (kind is not Kind.KICK or user is None or connection is not None):
        raise ValueError("only a user can be kept out for some seconds")


def release(document: str | None) -> Instruction:
    """Make the instruction that lets a document be opened again; check it as any other.

    It is kept as long as what it takes back: a node that starts later reads both.
    """
    return Instruction(Kind.RELEASE, document, seconds=MAX_CLOSED_SECONDS)


def change_of_level(logger: str | None, level: str, seconds: float | None) -> Instruction:
    """Make the instruction that changes a log level; check it as any other.

    ``logger`` None is all of ours, and ``seconds`` None is what a signal does.
    """
    if level == DEFAULT:
        # It has to be kept as long as what it takes back: a node that starts later reads both.
        return Instruction(Kind.LOG, seconds=MOST_SECONDS, logger=logger or ROOT, level=level)
    return Instruction(
        Kind.LOG, seconds=SIGNAL_SECONDS if seconds is None else seconds, logger=logger or ROOT, level=level
    )


class _Place(NamedTuple):
    """Where a user is kept out: on one document, or, with None, on all of them."""

    user: str
    document: str | None


class Control:
    """The instructions that this node follows.

    Args:
        hub: see ``Keeper``.

    Attributes:
        on_check: called before access is asked about again: nothing that was answered before counts any more.
        followed: how many instructions this node has acted on, by their kind.
    """

    def __init__(self, hub: Keeper) -> None:
        self._hub = hub
        self.on_check: Callable[[], None] = _nothing
        self.followed: dict[str, int] = {kind.value: 0 for kind in Kind}
        self._kept_out: dict[_Place, float] = {}  # until when, in the loop's seconds
        self._seen: dict[int, float] = {}  # instructions that were followed, and when they were
        self._floor = 0  # all up to this number were followed, or are of no use
        self._generation = 0
        self._looking = asyncio.Lock()
        self._asked = False
        self._behind = True

    @property
    def behind(self) -> bool:
        """Whether the last look has failed, or there was none."""
        return self._behind

    # Users who are kept out

    def check(self, user: str | None, document: str) -> None:
        """Refuse a user whom an operator keeps out of a document; raises ``KeptOut``."""
        if not self._kept_out or user is None:
            return
        now = self._hub.now()
        for place in (_Place(user, None), _Place(user, document)):
            left = self._kept_out.get(place, 0.0) - now
            if left > 0:
                raise KeptOut(f"kept out by an operator for {left:.0f} s more")
            self._kept_out.pop(place, None)

    # Giving an instruction

    async def give(self, instruction: Instruction, by: Who | None = None) -> Reports:
        """Tell all nodes, this one too, and wait for what they report.

        ``by`` is who has told it, for the audit; None for what is a part of something that the audit has already.

        Raises:
            ValueError, InvalidDocumentName: as ``check_instruction``.
            StoreRefused: too many were given.
            StoreUnavailable: it cannot be given now, or what became of it cannot be read.
        """
        check_instruction(instruction)
        store = self._hub.store
        if by is None:
            number = await store.instruct(instruction)
        else:
            act = Act(KINDS[instruction.kind], instruction.document, describe(instruction), instruction.user)
            with self._hub.audit.acting(act, by):
                number = await store.instruct(instruction)
        self.told()
        return await until_reported(store, number, self._hub.tell_nodes)

    # Following

    def told(self) -> None:
        """Look now: there is something new."""
        if not self._asked:
            self._asked = True
            self._hub.tasks.spawn(self._look_when_told(), "following an instruction")

    async def _look_when_told(self) -> None:
        try:
            await self.look()
        except StoreUnavailable as error:
            _limited.warning("look", "an instruction cannot be read now, and will be: %s", error)

    async def look(self) -> int:
        """Follow what was told since the last look; return how many instructions that were.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        self._behind = True
        async with self._looking:
            self._asked = False
            if self._hub.generation != self._generation:
                self._generation, self._floor, self._seen = self._hub.generation, 0, {}  # numbers are given once more
            after, new = self._floor, 0
            while True:
                found = await self._hub.store.instructions(after)
                for stored in found:
                    after = stored.number
                    if after not in self._seen:
                        self._seen[after] = self._hub.now()
                        new += 1
                        await self._follow(stored)
                if len(found) < PAGE:
                    break
            self._forget()
            self._behind = False
            return new

    def _forget(self) -> None:
        now = self._hub.now()
        old = [number for number, at in self._seen.items() if now - at > _OVERLAP]
        if old:
            self._floor = max(self._floor, *old)
            self._seen = {number: at for number, at in self._seen.items() if number > self._floor}
        self._kept_out = {place: until for place, until in self._kept_out.items() if until > now}

    async def _follow(self, stored: StoredInstruction) -> None:
        instruction = stored.instruction
        if instruction is None:
            _limited.warning("unknown", "an instruction of a later release is left alone; those who gave it see that")
            return
        self.followed[instruction.kind.value] += 1
        try:
            if instruction.kind is Kind.CHECK:
                self.on_check()
                chosen: list[Callable[[], Awaitable[Checked]]] = []
                chosen += [partial(member.client.check_access, member) for _, member in self._members(instruction)]
                chosen += [reader.check_access for reader in self._readers(instruction)]
                agents = self._hub.agents.of(instruction.document, instruction.user)
                visitors = self._hub.visitors.of(instruction.document, instruction.user)
                if instruction.connection is not None:
                    agents, visitors = [], []
                if chosen or agents or visitors:
                    await self._report(stored, NodeReport(self._hub.membership.name, done=False))
                    self._hub.tasks.spawn(self._check(stored, chosen, agents, visitors), "checking access again")
                    return
                report = NodeReport(self._hub.membership.name)
            elif instruction.kind is Kind.LIST:
                if stored.age <= _REPORTED:
                    self._hub.tasks.spawn(self._list(stored, instruction), "telling which connections there are")
                return
            elif instruction.kind is Kind.KICK:
                report = await self._kick(stored, instruction)
            elif instruction.kind is Kind.LOG:
                report = self._change_level(stored, instruction)
            elif instruction.kind is Kind.QUARANTINE:
                report = await self._close(stored, instruction)
            elif instruction.kind is Kind.RELEASE:
                assert instruction.document is not None
                self._hub.release_document(instruction.document)
                report = NodeReport(self._hub.membership.name)
            else:
                report = await self._reload(instruction)
        except Exception as error:  # one that fails must not keep the others from being followed
            _log.error("an instruction was not followed: %s", describe(instruction), exc_info=error)
            report = NodeReport(self._hub.membership.name, undecided=1)
        await self._report(stored, report)

    async def _report(self, stored: StoredInstruction, report: NodeReport) -> None:
        if stored.instruction is not None and (report.ended or report.changed or report.undecided):
            instruction = stored.instruction
            done = f"{report.ended} sessions ended here, {report.changed} with another access"
            said = f"{describe(instruction)}: {done}, {report.undecided} not decided"
            act = Act(audit.Kind.INSTRUCTION_FOLLOWED, instruction.document, said, instruction.user)
            self._hub.audit.act(act, Outcome.SUCCESS)
        if stored.age > _REPORTED:
            return
        try:
            await self._hub.store.report([stored.number], report)
        except StoreUnavailable as error:
            _limited.warning("report", "an instruction was followed, and that cannot be reported: %s", error)

    def _readers(self, instruction: Instruction) -> Iterator[Reader]:
        """Give the readers of streams that an instruction is about."""
        rooms, document = self._hub.rooms, instruction.document
        chosen = list(rooms.values()) if document is None else [rooms[document]] if document in rooms else []
        node = self._hub.membership.name
        for live in chosen:
            for reader in list(live.readers):
                if instruction.user is not None and reader.author != instruction.user:
                    continue
                if instruction.connection is None or instruction.connection == f"{node}-{reader.number}":
                    yield reader

    def _members(self, instruction: Instruction) -> Iterator[tuple[LiveRoom, Member]]:
        """Give the sessions that an instruction is about."""
        rooms, document = self._hub.rooms, instruction.document
        chosen = list(rooms.values()) if document is None else [rooms[document]] if document in rooms else []
        node = self._hub.membership.name
        for live in chosen:
            for member in list(live.members):
                if instruction.user is not None and member.author != instruction.user:
                    continue
                connection = instruction.connection
                if connection is None or connection == f"{node}-{member.client.number}":
                    yield live, member

    async def _kick(self, stored: StoredInstruction, instruction: Instruction) -> NodeReport:
        if instruction.user is not None and instruction.connection is None:
            place = _Place(instruction.user, instruction.document)
            self._kept_out.pop(place, None)  # the last one counts
            left = instruction.seconds - stored.age
            if left > 0:
                self._kept_out[place] = self._hub.now() + left
        ended = 0
        began = self._hub.now()
        if instruction.connection is None:
            for client in self._hub.agents.of(instruction.document, instruction.user):
                ended += self._hub.agents.end_here(client)
            ended += self._hub.visitors.end_here(self._hub.visitors.of(instruction.document, instruction.user))
        for live, member in self._members(instruction):
            if member.state is not State.CLOSED:
                live.end(member, Kicked("ended by an operator"))
                ended += 1
            if self._hub.now() - began > _SLICE:
                await asyncio.sleep(0)
                began = self._hub.now()
        for reader in self._readers(instruction):
            if reader.state is not State.CLOSED:
                reader.end(Kicked("ended by an operator"))
                ended += 1
        return NodeReport(self._hub.membership.name, ended)

    def _change_level(self, stored: StoredInstruction, instruction: Instruction) -> NodeReport:
        assert instruction.logger is not None and instruction.level is not None
        left = instruction.seconds - stored.age
        if left > 0:
            levels.change(instruction.logger, instruction.level, left, asyncio.get_running_loop().call_later)
        return NodeReport(self._hub.membership.name)

    async def _close(self, stored: StoredInstruction, instruction: Instruction) -> NodeReport:
        assert instruction.document is not None
        node, left = self._hub.membership.name, instruction.seconds - stored.age
        if left <= 0:
            return NodeReport(node)
        try:
            return NodeReport(node, await self._hub.close_document(instruction.document, left))
        except StoreUnavailable as error:
            _log.warning(
                "%s is closed to those who come, and not to those who are there: %s",
                shown_name(instruction.document),
                error,
            )
            return NodeReport(node, undecided=1)

    async def _reload(self, instruction: Instruction) -> NodeReport:
        assert instruction.document is not None
        node = self._hub.membership.name
        try:
            return NodeReport(node, await self._hub.reload(instruction.document))
        except StoreUnavailable as error:
            _log.warning("%s is not reloaded: %s", shown_name(instruction.document), error)
            return NodeReport(node, undecided=1)

    async def _list(self, stored: StoredInstruction, instruction: Instruction) -> None:
        """Say which connections there are on this node."""
        people, store, node = self._hub.people, self._hub.store, self._hub.membership.name
        try:
            data = await people.tell_connections(instruction.document, instruction.user)
            await store.answer(stored.number, node, data)
            await store.report([stored.number], NodeReport(node))
        except StoreUnavailable as error:
            _limited.warning("report", "what was asked of all nodes cannot be answered: %s", error)

    async def _check(
        self,
        stored: StoredInstruction,
        chosen: list[Callable[[], Awaitable[Checked]]],
        agents: list[int],
        visitors: list[tuple[str, int]],
    ) -> None:
        """Ask again what each of those chosen, and of these agents and visitors, may do, some at a time."""
        counts = dict.fromkeys(Checked, 0)
        left = iter(chosen)

        async def work() -> None:
            for check in left:
                try:
                    counts[await check()] += 1
                except Exception as error:
                    counts[Checked.UNDECIDED] += 1
                    if not is_refusal(error):
                        _limited.error("check", "access was not checked again", exc_info=error)
                await asyncio.sleep(0)

        await asyncio.gather(*[work() for _ in range(min(_QUESTIONS, len(chosen)))])
        others = await self._hub.agents.check(agents) + await self._hub.visitors.check(visitors)
        for checked, count in others.items():
            counts[checked] += count
        node = self._hub.membership.name
        report = NodeReport(node, counts[Checked.ENDED], counts[Checked.CHANGED], counts[Checked.UNDECIDED])
        await self._report(stored, report)


async def until_reported(store: Store, number: int, tell: Callable[[], None]) -> Reports:
    """Wait until every node that is known has done what an instruction says, for ``ANSWER_SECONDS`` at most.

    Where it is not known which nodes there are, the first that has done it is waited for. ``tell`` lets the nodes look;
    it is called before, and then again and again, for a message may be lost.

    Raises:
        StoreUnavailable: the store cannot be read now.
    """
    loop = asyncio.get_running_loop()
    until, pause, telling = loop.time() + ANSWER_SECONDS, _FIRST_PAUSE, 0.0
    while True:
        if loop.time() >= telling:
            tell()
            telling = loop.time() + _TELL_AGAIN
        await asyncio.sleep(pause)
        reports = await store.reports(number)
        if reports.complete or loop.time() > until:
            return reports
        pause = min(2 * pause, _LONGEST_PAUSE)


KINDS: Final = {
    Kind.KICK: audit.Kind.KICK,
    Kind.CHECK: audit.Kind.ACCESS_CHECKED,
    Kind.RELOAD: audit.Kind.RELOADED,
    Kind.QUARANTINE: audit.Kind.DOCUMENT_CLOSED,
    Kind.RELEASE: audit.Kind.DOCUMENT_RELEASED,
    Kind.LIST: audit.Kind.CONNECTIONS_LISTED,
    Kind.LOG: audit.Kind.LOG_LEVEL,
}
"""What the audit calls each instruction."""

_WORDS: Final = {
    Kind.KICK: "kick",
    Kind.CHECK: "check access again",
    Kind.RELOAD: "reload",
    Kind.QUARANTINE: "quarantine",
    Kind.RELEASE: "release",
    Kind.LIST: "list connections",
    Kind.LOG: "log level",
}


def describe(instruction: Instruction) -> str:
    """Say what an instruction is, for a log."""
    words = [_WORDS[instruction.kind]]
    for what, text in (("user", instruction.user), ("document", instruction.document)):
        if text is not None:
            words.append(f"{what} {shown_name(text)}")
    if instruction.connection is not None:
        words.append(f"connection {instruction.connection}")
    if instruction.logger is not None:
        words.append(f"{instruction.logger} {instruction.level}, for {instruction.seconds:g} s")
    elif instruction.kind is Kind.QUARANTINE:
        words.append(f"for {instruction.seconds:g} s")
    elif instruction.kind is Kind.KICK and instruction.seconds:
        words.append(f"kept out for {instruction.seconds:g} s")
    return ", ".join(words)


def _nothing() -> None:
    """Do nothing."""
