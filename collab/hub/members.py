"""The members of one room, and sending to them.

Strategy: a message is encoded and framed once for each kind of member (each ``Encoder``), and the same bytes object is
written to all of them. After each write the outbox says how much waits; a member past its mark is handed to ``slow``.
One to which nothing can be written is handed to ``broken``: a defect of one socket must cost the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from collab.hub.counts import HubCounts
from collab.hub.long_frames import Frame
from collab.hub.member import SMALL, Encoder, Member
from collab.protocol.messages import Message, Stateless
from collab.protocol.session import Session, State
from collab.protocol.sync import SyncUpdate


class Members:
    """The members of one room, in groups that share an encoder.

    Args:
        slow: called with a live member whose outbox has passed its mark.
        broken: called with a member whose outbox has raised, and what.
        counts: of the hub.

    Attributes:
        counts: see above.
        sent: bytes of the frames that were written to members of this room.
    """

    __slots__ = ("_broken", "_groups", "_slow", "counts", "sent")

    def __init__(
        self, slow: Callable[[Member], None], broken: Callable[[Member, Exception], None], counts: HubCounts
    ) -> None:
        self.counts = counts
        self.sent = 0
        self._groups: dict[Encoder, dict[Member, None]] = {}
        self._slow = slow
        self._broken = broken

    def __iter__(self) -> Iterator[Member]:
        return (member for group in self._groups.values() for member in group)

    def add(self, member: Member) -> None:
        """Add a member."""
        self._groups.setdefault(member.encoder, {})[member] = None

    def remove(self, member: Member) -> None:
        """Remove a member, which must be here."""
        group = self._groups[member.encoder]
        del group[member]
        if not group:
            del self._groups[member.encoder]

    def write(self, member: Member, frame: Frame) -> None:
        """Write a frame to one member."""
        outbox = member.outbox
        try:
            waiting = outbox.write(frame) if isinstance(frame, bytes) else outbox.write_long(frame)
        except Exception as error:
            self._broken(member, error)
            return
        counts = self.counts
        counts.deliveries += 1
        counts.delivered_bytes += len(frame)
        self.sent += len(frame)
        if waiting > member.outbox.mark and member.state is State.LIVE:
            self._slow(member)

    def send(self, member: Member, message: Message) -> None:
        """Send a message to one member."""
        self.write(member, member.encoder.encode(message))

    def broadcast(self, message: Message, absent: Session | None = None, behind: Message | None = None) -> bytes:
        """Send a message to every live member but ``absent``; return the frame that was not sent.

        Members that are sent a document in pieces get it too, unless it is an update. So it is with ``behind``, which
        ``absent`` gets as well: small ones leave together, for each write is a call of the kernel (5 us).
        """
        updates = type(message) is SyncUpdate
        unsent = b""
        for encoder, group in list(self._groups.items()):
            frame = encoder.encode(message)
            if absent in group:
                unsent = frame
                if len(group) == 1 and behind is None:
                    continue
            second = b"" if behind is None else encoder.encode(behind)
            if not second:
                self._write_to_group(group, frame, absent, updates=updates)
            elif len(frame) + len(second) < SMALL:
                self._write_to_group(group, frame, absent, second, updates=updates)
            else:
                self._write_to_group(group, frame, absent, updates=updates)
                self._write_to_group(group, second, None)
        return unsent

    def relay(self, message: Stateless, absent: Session | None = None) -> None:
        """Send a stateless message to every live member whose protocol has them, but ``absent``."""
        for encoder, group in list(self._groups.items()):
            if next(iter(group)).stateless:  # a group has one encoder, and so one protocol
                self._write_to_group(group, encoder.encode(message), absent)

    def _write_to_group(
        self,
        group: dict[Member, None],
        frame: bytes,
        absent: Session | None,
        second: bytes = b"",
        *,
        updates: bool = False,
    ) -> None:
        """Write a frame to all but ``absent``; a ``second`` one, which is no update, behind it to all."""
        live = State.LIVE
        both = frame + second
        small = len(both) < SMALL
        passed_over = 0
        slow: list[Member] = []
        alone: list[Member] = []  # those who get the second one only
        broken: list[tuple[Member, Exception]] = []
        for member in group:
            if member is absent:
                passed_over += 1
                alone.append(member)
                continue
            try:
                if member.state is live:
                    outbox = member.outbox
                    # No call of ours between two writes: behind each, the processor has to learn this loop anew, so
                    # what stands here costs several times what it does elsewhere (3 % of a write, measured).
                    write = outbox.direct if small else None
                    if write is None:
                        waiting = outbox.write(both)
                    else:
                        outbox.quiet = False
                        try:
                            write(both)
                        except RuntimeError:
                            outbox.write(both)  # sees that the client is gone
                        buffered = outbox.buffered
                        waiting = buffered()
                    if waiting > outbox.mark:
                        slow.append(member)
                elif not updates and member.takes:
                    member.outbox.write(both)
                else:
                    passed_over += 1
                    alone.append(member)
                    if updates and member.meanwhile is not None:
                        member.meanwhile.append(frame)
            except Exception as error:
                broken.append((member, error))
        # Once for all: a write to a member costs nothing more for being counted.
        written = len(group) - passed_over - len(broken)
        self.counts.deliveries += 2 * written if second else written
        self.counts.delivered_bytes += written * len(both)
        self.sent += written * len(both)
        if second:
            for member in alone:
                if member.takes:
                    self.write(member, second)
        for member in slow:
            self._slow(member)
        for member, defect in broken:
            self._broken(member, defect)
