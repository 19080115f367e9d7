"""Sending to the members of a room: one frame for each kind of member, the same bytes object for all of them."""

from __future__ import annotations

import pytest

from collab.hub.counts import HubCounts
from collab.hub.member import SMALL, Member
from collab.hub.members import Members
from collab.protocol.awareness import AwarenessUpdate
from collab.protocol.messages import Message, Stateless
from collab.protocol.session import Event
from collab.protocol.sync import SyncUpdate
from tests.hub.conftest import Acknowledged, Box, Recorder


class KeepingBox(Box):
    """A box that keeps the bytes objects too."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.frames: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.frames.append(data)
        return super().write(data)


class Crowd:
    """Members, those of one kind behind one encoder, and who was called slow."""

    def __init__(self) -> None:
        self.slow: list[Member] = []
        self.broken: list[Member] = []
        self.members = Members(self.slow.append, self.note_broken, HubCounts())
        self.recorders = {Member: Recorder(), Acknowledged: Recorder()}

    def note_broken(self, member: Member, error: Exception) -> None:
        assert str(error) == "a defect"
        self.broken.append(member)

    def add(self, kind: type[Member] = Member, *, live: bool = True) -> tuple[Member, KeepingBox]:
        recorder = self.recorders[kind]
        box = KeepingBox(recorder)
        member = kind(recorder, box, box)
        for event in (Event.PRESENTED, Event.GRANTED, Event.OPENED)[: 3 if live else 2]:
            member.on(event)
        self.members.add(member)
        return member, box


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


UPDATE: Message = SyncUpdate(b"x" * 100)


def test_a_message_is_encoded_once_for_each_kind_of_member(crowd: Crowd) -> None:
    some = [crowd.add()[1] for _ in range(5)]
    others = [crowd.add(Acknowledged)[1] for _ in range(5)]
    assert crowd.members.broadcast(UPDATE) == b""
    assert [len(recorder.messages) for recorder in crowd.recorders.values()] == [1, 1]
    for boxes in (some, others):
        assert all(box.messages == [UPDATE] for box in boxes)
        assert len({id(frame) for box in boxes for frame in box.frames}) == 1, "the same bytes object"
    assert crowd.slow == []


def test_members_come_in_the_order_in_which_they_joined_their_kind(crowd: Crowd) -> None:
    a, b, c = crowd.add()[0], crowd.add(Acknowledged)[0], crowd.add()[0]
    assert list(crowd.members) == [a, c, b]
    crowd.members.remove(a)
    crowd.members.remove(b)
    assert list(crowd.members) == [c]


def test_a_kind_that_has_left_costs_nothing(crowd: Crowd) -> None:
    crowd.add()
    gone, _ = crowd.add(Acknowledged)
    crowd.members.remove(gone)
    crowd.members.broadcast(UPDATE)
    assert crowd.recorders[Acknowledged].messages == []


def test_one_may_be_left_out_and_its_frame_is_given_back(crowd: Crowd) -> None:
    member, box = crowd.add(Acknowledged)
    _, beside = crowd.add(Acknowledged)
    _, other = crowd.add()
    frame = crowd.members.broadcast(UPDATE, member)
    assert box.frames == [] and other.messages == [UPDATE]
    assert beside.frames == [frame] and beside.frames[0] is frame


def test_only_live_members_get_what_is_for_everybody(crowd: Crowd) -> None:
    _, joining = crowd.add(live=False)
    lagging, held = crowd.add()
    lagging.on(Event.LAGGED)
    _, box = crowd.add()
    crowd.members.broadcast(UPDATE)
    assert joining.frames == held.frames == [] and box.messages == [UPDATE]


def test_stateless_messages_pass_those_whose_protocol_has_none(crowd: Crowd) -> None:
    sender, back = crowd.add(Acknowledged)
    _, box = crowd.add(Acknowledged)
    _, joining = crowd.add(Acknowledged, live=False)
    _, silent = crowd.add()
    message = Stateless(b"hello")
    crowd.members.relay(message, sender)
    assert box.messages == [message] and back.frames == joining.frames == silent.frames == []
    assert crowd.recorders[Member].messages == [], "not even encoded"
    crowd.members.relay(message)
    assert back.messages == [message] and silent.frames == []


def test_who_is_past_its_mark_is_slow_when_all_have_been_written_to(crowd: Crowd) -> None:
    members = [crowd.add() for _ in range(3)]
    first, blocked = members[0]
    blocked.blocked, blocked.mark = True, 10
    seen: list[int] = []

    def slow(member: Member) -> None:
        crowd.slow.append(member)
        seen.extend(len(box.frames) for _, box in members)

    crowd.members = Members(slow, crowd.note_broken, HubCounts())
    for member, _ in members:
        crowd.members.add(member)
    crowd.members.broadcast(UPDATE)
    assert crowd.slow == [first] and seen == [1, 1, 1]


def test_the_mark_itself_is_not_past_it(crowd: Crowd) -> None:
    member, box = crowd.add()
    size = len(Recorder().encode(UPDATE))
    box.blocked, box.mark = True, size
    crowd.members.broadcast(UPDATE)
    assert crowd.slow == []
    crowd.members.send(member, UPDATE)
    assert crowd.slow == [member]
    other, box = crowd.add()
    box.blocked, box.mark = True, size
    crowd.members.send(other, UPDATE)
    assert crowd.slow == [member]
    crowd.members.broadcast(UPDATE)
    assert crowd.slow[1:] == [member, other]


def test_writing_to_one_that_lags_calls_it_slow_no_more(crowd: Crowd) -> None:
    member, box = crowd.add()
    box.blocked, box.mark = True, 10
    member.on(Event.LAGGED)
    crowd.members.send(member, UPDATE)
    crowd.members.write(member, box.frames[0])
    assert crowd.slow == [] and box.messages == [UPDATE, UPDATE]


def test_a_member_that_cannot_be_written_to_costs_the_others_nothing(crowd: Crowd) -> None:
    def raises(data: bytes) -> int:
        raise RuntimeError("a defect")

    (_, first), (broken, box), (_, last) = (crowd.add() for _ in range(3))
    box.write = raises  # type: ignore[method-assign]
    crowd.members.broadcast(UPDATE)
    assert first.messages == last.messages == [UPDATE]
    crowd.members.send(broken, UPDATE)
    assert crowd.broken == [broken, broken] and crowd.slow == []


def test_what_is_written_is_counted(crowd: Crowd) -> None:
    counts = crowd.members.counts
    author, box = crowd.add()
    boxes = [crowd.add()[1] for _ in range(2)] + [crowd.add(Acknowledged)[1] for _ in range(3)]
    crowd.add(live=False)
    crowd.members.broadcast(UPDATE, absent=author)
    frames = [frame for box in boxes for frame in box.frames]
    assert len(frames) == 5 and box.frames == []
    assert (counts.deliveries, counts.delivered_bytes) == (5, sum(map(len, frames)))
    crowd.members.write(author, b"\0" * 3 + b"\1" + bytes(4))
    assert (counts.deliveries, counts.delivered_bytes) == (6, sum(map(len, frames)) + 8)


def test_what_cannot_be_written_is_not_counted(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, box = crowd.add()
    whole = crowd.add()[1]

    def write(data: bytes) -> int:
        raise ValueError("a defect")

    monkeypatch.setattr(box, "write", write)
    crowd.members.broadcast(UPDATE)
    crowd.members.write(broken, b"x")
    assert crowd.broken == [broken, broken]
    assert (crowd.members.counts.deliveries, crowd.members.counts.delivered_bytes) == (1, len(whole.frames[0]))


def test_a_member_that_is_alone_gets_its_echo_from_its_caller(crowd: Crowd) -> None:
    alone, box = crowd.add(Acknowledged)
    other = crowd.add()[1]
    frame = crowd.members.broadcast(UPDATE, absent=alone)
    assert frame and box.frames == []
    assert crowd.members.counts.deliveries == len(other.frames) == 1


PRESENCE: Message = AwarenessUpdate(b"who is here")


def test_two_small_messages_leave_in_one_write(crowd: Crowd) -> None:
    boxes = [crowd.add()[1] for _ in range(3)]
    assert crowd.members.broadcast(UPDATE, None, PRESENCE) == b""
    assert all(box.messages == [UPDATE, PRESENCE] for box in boxes)
    assert all(len(box.frames) == 1 for box in boxes) and len({id(box.frames[0]) for box in boxes}) == 1
    assert crowd.members.counts.deliveries == 6
    assert crowd.members.counts.delivered_bytes == crowd.members.sent == 3 * len(boxes[0].frames[0])


def test_two_that_are_large_together_leave_one_behind_the_other(crowd: Crowd) -> None:
    _, box = crowd.add()
    large = SyncUpdate(bytes(SMALL))
    crowd.members.broadcast(large, None, PRESENCE)
    assert box.messages == [large, PRESENCE] and len(box.frames) == 2
    assert crowd.members.counts.deliveries == 2


@pytest.mark.parametrize("others", [0, 1])
def test_one_that_is_left_out_gets_what_comes_behind(crowd: Crowd, others: int) -> None:
    member, box = crowd.add()
    seen = [crowd.add()[1] for _ in range(others)]
    frame = crowd.members.broadcast(UPDATE, member, PRESENCE)
    assert box.messages == [PRESENCE]
    assert all(other.messages == [UPDATE, PRESENCE] for other in seen)
    assert crowd.recorders[Member].decode(frame) == [UPDATE]
    assert crowd.members.counts.deliveries == 1 + 2 * others


def test_one_that_is_sent_a_document_in_pieces_gets_the_update_later(crowd: Crowd) -> None:
    member, box = crowd.add(live=False)
    member.on(Event.OPENED)
    member.on(Event.RECEIVES)
    member.meanwhile = []
    crowd.members.broadcast(UPDATE, None, PRESENCE)
    assert box.messages == [PRESENCE] and crowd.recorders[Member].decode(member.meanwhile[0]) == [UPDATE]
    late, nothing = crowd.add()
    late.on(Event.LAGGED)
    crowd.members.broadcast(UPDATE, None, PRESENCE)
    assert nothing.messages == [], "it is told all of it when it has caught up"


class DirectBox(KeepingBox):
    """A box whose small frames may be written without asking it."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.quiet, self.gone, self.asked = True, False, 0
        self.direct = self.take  # type: ignore[assignment]

    def take(self, data: bytes) -> None:
        if self.gone:
            raise RuntimeError("the handle is closed")
        super().write(data)

    def write(self, data: bytes) -> int:
        self.asked += 1
        return 0 if self.gone else super().write(data)


def test_small_frames_go_directly_and_others_by_the_outbox(crowd: Crowd) -> None:
    recorder = crowd.recorders[Member]
    boxes = [DirectBox(recorder) for _ in range(3)]
    members = [Member(recorder, box, box) for box in boxes]
    for member in members:
        for event in (Event.PRESENTED, Event.GRANTED, Event.OPENED):
            member.on(event)
        crowd.members.add(member)
    boxes[1].gone = True
    boxes[2].blocked, boxes[2].mark = True, 0
    crowd.members.broadcast(UPDATE)
    assert [box.messages for box in boxes] == [[UPDATE], [], [UPDATE]]
    assert [box.asked for box in boxes] == [0, 1, 0], "one that is gone hears of it by its outbox"
    assert not boxes[0].quiet and crowd.slow == [members[2]] and crowd.broken == []
    large = SyncUpdate(bytes(SMALL))
    crowd.members.broadcast(large)
    assert boxes[0].messages == [UPDATE, large] and boxes[0].asked == 1
