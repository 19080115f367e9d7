"""The document against real yjs: random sessions of several clients, every kind of content, everything that goes wrong.

Strategy: yjs runs in Node (``tests/node/yjs_fuzz.mjs``); the server's part is played here, by the rules that the
room follows, on a real `Document`. A session is a generator that yields commands for Node and gets their
results, so that a hundred of them share each line to Node and thousands fit into a minute. Its course comes from one
seed: ``COLLAB_FUZZ_SEED=n`` runs that session alone, ``COLLAB_FUZZ_RUNS`` says how many there are (2,000 else).

What must hold at the end, when all have come online and nothing is in flight: the log's rows, what is
stored and what a joiner is sent give in yjs the content, state vector and delete set of a yjs that got
every edit from its author, and so does every client. Where surrogate pairs were split yjs differs from itself
(update-order decides), so there the joiner is compared with a yjs that got the same messages.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

from collab.engine.document import Document, at_once
from collab.update.compact import compact
from collab.update.reader import read_update
from tests.support.needs import size
from tests.support.node import NodeScript

pytestmark = pytest.mark.node

RUNS = int(os.environ.get("COLLAB_FUZZ_RUNS", size(2_000, small=400)))
FIRST_SEED = int(os.environ.get("COLLAB_FUZZ_FIRST", "1"))
# Sessions that share a line to Node: more is hardly faster and needs more memory.
BATCH = 100
# Rounds in which everything must have come to rest; an endless asking loop does not.
REST_ROUNDS = 30

Commands = list[list[Any]]
Session = Generator[Commands, list[Any], None]
Game = Generator[Commands, list[Any], Counter[str]]

STEP1, STEP2, UPDATE = 0, 1, 2

SITUATIONS = (
    "not whole",
    "asked again",
    "step 2 not whole",
    "nothing new",
    "edited while compacting",
    "opened from a snapshot",
)


class Connection:
    """One client's connection, as the room sees it (docs/decisions/0003)."""

    def __init__(self) -> None:
        self.unanswered = 0
        self.waits_for: tuple[int, int] | None = None
        self.asked = 0
        self.outgoing: list[list[Any]] = []


class Server:
    """The server's part: a document, its log, its snapshot and the connections."""

    def __init__(self, gc: bool) -> None:
        self.gc = gc
        self.document = Document()
        self.log: list[bytes] = []
        self.authors: list[str | None] = []
        self.stored: tuple[bytes, bytes] | None = None
        self.stored_rows = 0
        self.compacting: tuple[bytes, bytes, int] | None = None
        self.connections: dict[int, Connection] = {}
        self.met: Counter[str] = Counter()

    def connect(self, client: int) -> None:
        self.flush()
        connection = self.connections[client] = Connection()
        self._ask(connection)

    def _ask(self, connection: Connection) -> None:
        connection.unanswered += 1
        connection.asked += 1
        connection.waits_for = None
        connection.outgoing.append([STEP1, self.document.encode_state_vector().hex()])

    def receive(self, client: int, frames: list[list[Any]], sliced: bool) -> None:
        for kind, text in frames:
            connection = self.connections.get(client)
            if connection is None:
                return
            data = bytes.fromhex(text)
            if kind == STEP1:
                self.flush()
                connection.outgoing.append([STEP2, self.document.encode_state_as_update(data).hex()])
                continue
            known = self.document.contains_update(data)
            version = self.document.version
            applied = (
                at_once(self.document.apply_update_in_slices(data, str(client)))
                if sliced
                else self.document.apply_update(data, str(client))
            )
            if kind == STEP2:
                connection.unanswered -= 1
                assert connection.unanswered >= 0
                if applied.missing and not connection.unanswered:
                    self.met["step 2 not whole"] += 1
                    connection.waits_for = applied.missing
            elif applied.missing and not connection.unanswered:
                self.met["asked again"] += 1
                self._ask(connection)
            if applied.missing is not None:
                self.met["not whole"] += 1
                assert self.document.lacks(*applied.missing), "asked for what is there"
            if applied.new:
                for other in self.connections.values():
                    if other.waits_for is not None and not self.document.lacks(*other.waits_for):
                        self.flush()
                        self.met["asked when it was passed"] += 1
                        self._ask(other)
            else:
                self.met["nothing new"] += known
                assert self.document.version == version
            assert known is (not applied.new and applied.missing is None), "what is known is not new, all else is"

    def flush(self) -> None:
        turn = self.document.flush()
        if turn is None:
            return
        self.log += [row.data for row in turn.rows]
        self.authors += [row.author for row in turn.rows]
        for connection in self.connections.values():
            connection.outgoing.append([UPDATE, turn.delta.hex()])
        read_update(turn.delta)

    def begin_compaction(self) -> None:
        self.flush()
        self.compacting = (self.document.encode_state_as_update(), self.document.encode_state_vector(), len(self.log))

    def end_compaction(self) -> None:
        if self.compacting is None:
            return
        data, state_vector, rows = self.compacting
        self.compacting = None
        compacted = compact(data, gc=self.gc)
        self.stored, self.stored_rows = (compacted.data, compacted.index), rows
        if state_vector != self.document.encode_state_vector():
            self.met["edited while compacting"] += 1
        self.document.rebase(compacted.data, compacted.index, state_vector)

    def restart(self, with_snapshot: bool) -> None:
        """Stop, with everything journalled, and start again; the connections are gone."""
        self.flush()
        before = self.document
        self.compacting = None
        self.connections.clear()
        if with_snapshot and self.stored is not None:
            self.met["opened from a snapshot"] += 1
            self.document = at_once(Document.load(*self.stored, self.log[self.stored_rows :]))
        else:
            self.document = at_once(Document.load(None, None, self.log))
        assert self.document.encode_state_vector() == before.encode_state_vector()
        # Compaction names values of keys that were set at once as deleted, of which no update says it.
        logged = at_once(Document.load(None, None, self.log)).encode_state_as_update()
        assert before.contains_update(logged) and self.document.contains_update(logged)
        assert self.document.flush() is None


def session(seed: int, split: bool) -> Game:
    """Play one session and check it; yields commands for Node, expects their results, returns what was met."""
    choose = random.Random(seed)
    node = seed
    server = Server(gc=choose.random() < 0.8)
    yield [["open", node, seed, split]]
    count = 0
    sent: list[list[Any]] = []  # what some client has sent before, for replays
    copies: list[str] = []

    for _ in range(choose.randint(2, 4)):
        yield [["client", node, choose.random() < 0.8, None]]
        count += 1

    def deliver(client: int, frames: list[list[Any]]) -> None:
        sent.extend(frame for frame in frames if frame[0] != STEP1)
        server.receive(client, frames, choose.random() < 0.2)
        if choose.random() < 0.5:
            server.flush()

    def connect(client: int) -> Session:
        [frames] = yield [["connect", node, client]]
        server.connect(client)
        deliver(client, frames)

    for client in range(count):
        yield from connect(client)

    for _ in range(choose.randint(5, 35)):
        action = choose.random()
        client = choose.randrange(count)
        if action < 0.30:
            [frames] = yield [["edit", node, client, choose.randint(1, 6)]]
            deliver(client, frames)
        elif action < 0.60:
            # Some of what the server has sent arrives, and is answered.
            connection = server.connections.get(client)
            if connection is not None and connection.outgoing:
                some = len(connection.outgoing)
                if choose.random() < 0.3:
                    some = choose.randint(1, some)
                arriving, connection.outgoing = connection.outgoing[:some], connection.outgoing[some:]
                [frames] = yield [["receive", node, client, arriving]]
                deliver(client, frames)
        elif action < 0.66:
            if client in server.connections:
                del server.connections[client]
                yield [["drop", node, client]]
            else:
                yield from connect(client)
        elif action < 0.80:
            other = choose.randrange(count)
            if choose.random() < 0.4 and client in server.connections:
                del server.connections[client]
                yield [["drop", node, client]]
            made, cleaned, frames = yield [
                ["edit", node, client, 2],
                # What the receiver of a side channel cleans up is an edit of its own.
                ["side", node, client, other, choose.random() < 0.5],
                ["edit", node, other, choose.randint(0, 3)],
            ]
            if choose.random() < 0.5:
                deliver(client, made)
                deliver(other, cleaned + frames)
            else:
                deliver(other, cleaned + frames)
                deliver(client, made)
        elif action < 0.83:
            # An old frame again, from somebody who is no client and answers nothing.
            if sent:
                server.connections[-1] = Connection()
                again = choose.choices(sent, k=choose.randint(1, 4))
                server.receive(-1, [[UPDATE, data] for _, data in again], choose.random() < 0.5)
                server.connections.pop(-1)
        elif action < 0.88:
            server.restart(choose.random() < 0.7)
            yield [["drop", node, other] for other in range(count)]
            if choose.random() < 0.5:
                for other in range(count):
                    yield from connect(other)
        elif action < 0.97:
            if server.compacting is None:
                server.begin_compaction()
            else:
                server.end_compaction()
        elif count < 5:
            if choose.random() < 0.5 or not copies:
                copies += yield [["copy", node, client]]
                state = None
            else:
                state = choose.choice(copies)
            yield [["client", node, choose.random() < 0.8, state]]
            count += 1
            yield from connect(count - 1)

    # Everybody comes online, what is in flight arrives.
    if choose.random() < 0.5:
        server.end_compaction()
    for client in range(count):
        if client not in server.connections:
            yield from connect(client)
    for _ in range(REST_ROUNDS):
        server.flush()
        moving = [client for client, connection in server.connections.items() if connection.outgoing]
        if not moving:
            break
        requests = []
        for client in moving:
            requests.append(["receive", node, client, server.connections[client].outgoing])
            server.connections[client].outgoing = []
        results = yield requests
        for client, frames in zip(moving, results, strict=True):
            server.receive(client, frames, False)
    else:
        raise AssertionError("the exchange does not come to rest")

    yield from check(node, count, server, split, choose)
    yield [["close", node]]
    return server.met


def check(node: int, count: int, server: Server, split: bool, choose: random.Random) -> Session:
    """Compare what the server has with what yjs makes of the edits."""
    document = server.document
    raw = at_once(Document.load(None, None, server.log)).encode_state_as_update()
    whole = document.encode_state_as_update()
    compacted = compact(whole, gc=server.gc)
    vector = document.encode_state_vector()
    # A joiner, one from the raw log, one from compacted bytes, the log itself one by one, and a returning one.
    truth, joiner, of_raw, of_compacted, of_rows, steps, *clients = yield [
        ["truth", node, False],
        ["reader", [whole.hex()], True, False, False],
        ["reader", [raw.hex()], True, False, False],
        ["reader", [compacted.data.hex()], True, False, False],
        ["reader", [row.hex() for row in server.log], True, False, False],
        ["steps", [row.hex() for row in server.log]],
        *(["view", node, client, False] for client in range(count)),
    ]
    reopened = at_once(Document.load(compacted.data, compacted.index, []))
    assert reopened.encode_state_vector() == vector
    # Compaction names values of keys that were set at once as deleted, of which no update says it.
    assert reopened.contains_update(whole)
    assert reopened.encode_state_as_update() == compacted.data
    assert joiner == of_raw == of_compacted, "collecting or compaction changed something"
    assert not joiner["pending"], "a joiner waits for something"
    assert bytes.fromhex(joiner["vector"]) == vector
    assert steps == {"vector": vector.hex()}, "a row is not whole"
    assert joiner == of_rows, "a joiner differs from one who saw every row"
    if split:
        return
    for client, seen in enumerate(clients):
        # A client may hold pending structs that came past the server and whose author is ahead of it.
        assert {**seen, "pending": False} == joiner, f"client {client} differs"
    # Deletes may differ here and only here: a yjs that integrates in another order cleans other formats up.
    assert (truth["digest"], truth["vector"]) == (joiner["digest"], joiner["vector"]), "something was lost"
    # One who returns with an older state gets there by the difference.
    rows = server.log[: choose.randint(0, len(server.log))]
    older = at_once(Document.load(None, None, rows))
    [returned] = yield [
        [
            "reader",
            [older.encode_state_as_update().hex(), document.encode_state_as_update(older.encode_state_vector()).hex()],
            True,
            False,
            False,
        ]
    ]
    assert returned == joiner, "a returning client differs"


def play(seeds: list[int], split: bool) -> None:
    """Play sessions side by side; a failure names its seed."""
    met: Counter[str] = Counter()
    with NodeScript("yjs_fuzz.mjs") as script:
        for first in range(0, len(seeds), BATCH):
            live: list[tuple[int, Game, Commands]] = []
            for seed in seeds[first : first + BATCH]:
                game = session(seed, split)
                live.append((seed, game, next(game)))
            while live:
                answers = iter(script.call([command for _, _, commands in live for command in commands]))
                going: list[tuple[int, Game, Commands]] = []
                for seed, game, commands in live:
                    try:
                        going.append((seed, game, game.send([next(answers) for _ in commands])))
                    except StopIteration as stop:
                        met += stop.value
                    except Exception as error:
                        error.add_note(f"run it alone: COLLAB_FUZZ_SEED={seed} (split={split})")
                        raise
                live = going
    if len(seeds) >= BATCH:
        # Sessions in which nothing went wrong would show nothing.
        rare = [situation for situation in SITUATIONS if met[situation] < len(seeds) // 100]
        assert not rare, f"the sessions hardly meet {rare}: {met}"


def seeds(part: int, parts: int) -> list[int]:
    """Return the seeds of one of several tests."""
    single = os.environ.get("COLLAB_FUZZ_SEED")
    if single is not None:
        return [int(single)]
    return list(range(FIRST_SEED, FIRST_SEED + RUNS))[part::parts]


@pytest.mark.parametrize("part", range(4))
def test_random_sessions_lose_nothing_and_end(part: int) -> None:
    play(seeds(part, 4), split=False)


def test_sessions_that_split_surrogate_pairs_give_joiners_what_yjs_gives() -> None:
    play(seeds(0, 5), split=True)


def test_edits_between_the_slices_of_a_large_update() -> None:
    """The slow reading of a first sync meets the same and other edits that were taken meanwhile."""
    between = 0
    with NodeScript("yjs_fuzz.mjs") as script:
        for seed in range(1, 9):
            choose = random.Random(seed)
            script.call([["open", seed, seed, False]] + [["client", seed, True, None] for _ in range(3)])
            commands: Commands = [["connect", seed, client] for client in range(3)]
            for _ in range(100):
                one, other = choose.sample(range(3), 2)
                commands += [["edit", seed, one, 12], ["side", seed, one, other, False]]
            results = script.call(commands)
            edits = [bytes.fromhex(data) for frames in results[3:] for kind, data in frames if kind == UPDATE]
            [copy] = script.call([["copy", seed, 0]])
            document = Document()
            log: list[bytes] = []
            slices = document.apply_update_in_slices(bytes.fromhex(copy))
            position = 0
            while True:
                try:
                    next(slices)
                except StopIteration:
                    break
                # Now and then all of them, so that nothing is new any more of what is being read.
                for _ in range(choose.choice((0, 1, 5, 30, 30, len(edits)))):
                    if position < len(edits):
                        assert document.apply_update(edits[position]).missing is None
                        position += 1
                        between += 1
                turn = document.flush() if choose.random() < 0.5 else None
                log += [row.data for row in turn.rows] if turn else []
            for data in edits[position:]:
                assert document.apply_update(data).missing is None
            turn = document.flush()
            log += [row.data for row in turn.rows] if turn else []
            vector = document.encode_state_vector()
            reopened = at_once(Document.load(None, None, log))
            assert reopened.encode_state_as_update(vector) == document.encode_state_as_update(vector)
            of_edits, of_document, of_log, steps = script.call(
                [
                    ["reader", [data.hex() for data in edits], True, False, False],
                    ["reader", [document.encode_state_as_update().hex()], True, False, False],
                    ["reader", [data.hex() for data in log], True, False, False],
                    ["steps", [data.hex() for data in log]],
                ]
            )
            assert of_document == of_log, f"seed {seed}"
            assert steps == {"vector": vector.hex()}, f"seed {seed}"
            assert (of_document["digest"], of_document["vector"]) == (of_edits["digest"], of_edits["vector"])
            script.call([["close", seed]])
    assert between > 100
