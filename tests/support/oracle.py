"""Give accepted updates to real yjs, of both versions: it must live with all of them.

``python -m tests.support.oracle COUNT [SEED]`` runs COUNT cases and prints what it met. It ends with 1 when yjs threw
on something that a room would have passed on, and prints those cases.

Strategy: a room takes the updates of a case as it takes a client's, and what it would send to its members
(the deltas of its turns) goes to ``yjs_oracle.mjs``. The state that the room ends with is compacted, and yjs must make
the same of it before and after.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from collab.engine.document import Document
from collab.errors import UpdateError
from collab.update.compact import compact
from collab.update.reader import GC, read_update
from collab.update.structs import Struct, walk
from tests.support.build import session
from tests.support.grammar import case
from tests.support.node import NodeScript

# A part of a value of several clocks under a key was deleted, or an item refers into it; then its parent was
# collected. Whoever refuses that has to know what lies under a key in the whole document (docs/decisions/0018).
CUT_KEY = "Error: Unexpected case"

# Cases that go to Node at once.
BATCH = 100


def relayed(updates: Iterable[bytes], met: Counter[str]) -> tuple[list[bytes], bytes]:
    """Let a room take updates; return what it would send to its members, and the whole document."""
    document = Document()
    sent = []
    for update in updates:
        met["updates"] += 1
        try:
            applied = document.apply_update(update)
        except UpdateError as error:
            met["refused"] += 1
            met[f"refused: {error}"] += 1
            continue
        met["taken"] += applied.new
        met["not whole"] += applied.missing is not None
        turn = document.flush()
        if turn is not None:
            sent.append(turn.delta)
    return sent, document.encode_state_as_update()


class Shape:
    """The structs of an update, to be found by their clocks."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.starts: dict[int, list[int]] = {}
        self.structs: dict[int, list[Struct]] = {}
        for section in read_update(data, stored=True).sections:
            for struct in walk(data, section.start, section.stop, section.clock):
                self.starts.setdefault(section.client, []).append(struct.clock)
                self.structs.setdefault(section.client, []).append(struct)

    def find(self, client: int, clock: int) -> Struct | None:
        """Return the struct that holds a clock."""
        at = bisect_right(self.starts.get(client, ()), clock) - 1
        return None if at < 0 else self.structs[client][at]

    def list_of(self, struct: Struct | None) -> bytes:
        """Return the parent and key of a struct as they are written, where its origins lead to."""
        for _ in range(len(self.data)):
            if struct is None or struct.kind == GC:
                break
            reference = struct.origin or struct.right
            if reference is None:
                return self.data[struct.parent : struct.content]
            struct = self.find(*reference)
        return b""

    def is_odd(self) -> bool:
        """Tell whether a struct has its two origins in two lists, or in a place where they never were neighbours.

        No client writes that. What yjs makes of it depends on what it has collected and where it has cut structs
        before, so it differs between clients too: of one struct it goes on with the wrong half.
        """
        for structs in self.structs.values():
            for struct in structs:
                if struct.origin is None and struct.right is not None:
                    # At the very beginning of its list, before one that is not at the beginning.
                    right = self.find(*struct.right)
                    if right is not None and (right.origin is not None or right.clock != struct.right[1]):
                        return True
                elif struct.origin is not None and struct.right is not None:
                    left, right = self.find(*struct.origin), self.find(*struct.right)
                    if self.list_of(left) != self.list_of(right):
                        return True
                    while left is not None and left is not right:
                        left = self.find(*left.origin) if left.origin is not None else None
                    if left is not None:
                        return True
        return False


class Oracle:
    """Ask yjs about cases, many at a time; use as a context manager.

    ``met`` counts what the cases were; ``failed`` are those that yjs did not live with: the seed, the updates
    and what yjs said.
    """

    def __init__(self, logs: Sequence[Sequence[bytes]]) -> None:
        self.logs = logs
        self.met: Counter[str] = Counter()
        self.failed: list[tuple[int, list[str], Any]] = []
        self._script = NodeScript("yjs_oracle.mjs")

    def __enter__(self) -> Oracle:
        self._script.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._script.__exit__(*error)

    def run(self, seeds: Iterable[int]) -> None:
        """Make the cases of these seeds and ask about them."""
        cases = []
        pairs = []
        for seed in seeds:
            sent, whole = relayed(case(seed, self.logs), self.met)
            self.met["cases"] += 1
            if sent:
                self.met["cases that yjs saw"] += 1
                cases.append((seed, [data.hex() for data in sent]))
                compacted = compact(whole).data
                if Shape(whole).is_odd() or Shape(compacted).is_odd():
                    self.met["odd origins"] += 1
                    compacted = whole
                pairs.append((whole.hex(), compacted.hex()))
        if not cases:
            return
        checked, same = self._script.call([["check", cases], ["same", pairs]])
        for (seed, updates), found in zip(cases, checked, strict=True):
            if found is not None and found["error"] == CUT_KEY and "Item.gc" in found["stack"][2]:
                self.met["a value under a key was cut"] += 1
            elif found is not None:
                self.failed.append((seed, updates, found))
        for (seed, _), pair, found in zip(cases, pairs, same, strict=True):
            if found == "unstable":
                self.met["documents that yjs rewrites"] += 1
            elif found is not None and CUT_KEY not in (found["one"], found["other"]):
                self.failed.append((seed, list(pair), {"at": "compaction", **found}))


def main(count: int, first: int) -> int:
    """Run ``count`` cases from the seed ``first`` on; return 1 when yjs threw."""
    began = time.monotonic()
    failed = 0
    with Oracle([session(seed) for seed in range(40)]) as oracle:
        for start in range(first, first + count, BATCH):
            oracle.run(range(start, min(start + BATCH, first + count)))
            for seed, updates, found in oracle.failed[:20]:
                print(f"seed {seed}: {found}\n    {' '.join(updates)}", flush=True)
            failed += len(oracle.failed)
            oracle.failed.clear()
            if (start - first) // BATCH % 100 == 99 or start + BATCH >= first + count:
                print(
                    f"{time.monotonic() - began:.0f} s, {failed} failed: {dict(oracle.met.most_common(20))}", flush=True
                )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
