"""`WaitingFrames` beside a dictionary of lists, and its bounds."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from collab.protocol.hocuspocus.waiting import WaitingFrames


class Waiting(RuleBasedStateMachine):
    """`WaitingFrames` beside a dictionary of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = WaitingFrames()
        self.model: dict[bytes, list[bytes]] = {}

    addresses = st.sampled_from([b"a", b"b", b"a\0one", b"a\0two"])
    frames = st.binary(max_size=20) | st.integers(0, 2**20).map(bytes)

    @rule(address=addresses, frame=frames)
    def put(self, address: bytes, frame: bytes) -> None:
        self.waiting.put(address, frame)
        self.model.setdefault(address, []).append(frame)

    @rule(address=addresses, frame=frames, times=st.integers(1, 600))
    def put_many(self, address: bytes, frame: bytes, times: int) -> None:
        for _ in range(times):
            self.put(address, frame)

    @rule(address=addresses)
    def take(self, address: bytes) -> None:
        queue = self.model.get(address)
        assert self.waiting.pop(address) == (queue.pop(0) if queue else None)

    @rule(address=addresses)
    def take_one_by_one(self, address: bytes) -> None:
        taken = []
        while (frame := self.waiting.pop(address)) is not None:
            taken.append(frame)
        assert taken == self.model.pop(address, [])

    @rule(address=addresses)
    def take_all_at_once(self, address: bytes) -> None:
        assert self.waiting.pop_all(address) == self.model.pop(address, [])

    @invariant()
    def counts(self) -> None:
        frames = [frame for queue in self.model.values() for frame in queue]
        nbytes = sum(map(len, frames))
        assert (self.waiting.frames, self.waiting.nbytes) == (len(frames), nbytes)
        assert self.waiting.full is (nbytes > 5 * 1024 * 1024 or len(frames) > 1000)


TestWaiting = Waiting.TestCase


def test_the_bounds_of_what_waits_are_those_of_hocuspocus() -> None:
    waiting = WaitingFrames()
    for _ in range(1000):
        waiting.put(b"d", b"\x01d\x00")
    assert not waiting.full
    waiting.put(b"e", b"")
    assert waiting.full
    waiting = WaitingFrames()
    for _ in range(5):
        waiting.put(b"d", bytes(1024 * 1024))
    assert not waiting.full
    waiting.put(b"e", b"x")
    assert waiting.full
    assert WaitingFrames.MAX_ADDRESSES == 100
