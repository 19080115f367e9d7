"""Random sessions of several yjs clients whose rows have authors, for the tests of the history."""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from collab.history.attribution import Owner, Row
from collab.update.compact import compact
from collab.update.merge import merge_updates
from tests.update.test_yjs_sessions import Server

Commands = list[list[Any]]
Play = Generator[Commands, list[Any], "Played"]


@dataclass
class Played:
    """What a session has left: its rows, and whose client IDs are."""

    seed: int
    rows: list[Row]
    owners: dict[int, Owner]

    def state(self, number: int, *, collected: bool) -> bytes:
        """Return the document after a row, as a snapshot has it or with all content."""
        whole = merge_updates([row.data for row in self.rows[:number]] or [b"\0\0"])
        return compact(whole).data if collected else whole


def session(seed: int, split: bool = False, ordinary: bool = False) -> Play:
    """Play a session of clients that go offline and come back, all of whom the server knows by their numbers.

    With ``split`` surrogate pairs are cut; ``ordinary`` values are those that every CRDT library keeps.
    """
    choose = random.Random(seed)
    server = Server(gc=True)
    yield [["open", seed, seed, split, ordinary]]
    count = choose.randint(2, 5)
    yield [["client", seed, choose.random() < 0.7, None] for _ in range(count)]

    def deliver(client: int, frames: list[list[Any]]) -> None:
        server.receive(client, frames, False)
        server.flush()

    def connect(client: int) -> Generator[Commands, list[Any], None]:
        [frames] = yield [["connect", seed, client]]
        server.connect(client)
        deliver(client, frames)

    def receive(client: int) -> Generator[Commands, list[Any], None]:
        connection = server.connections[client]
        arriving, connection.outgoing = connection.outgoing, []
        [frames] = yield [["receive", seed, client, arriving]]
        deliver(client, frames)

    for client in range(count):
        yield from connect(client)
    for _ in range(choose.randint(20, 60)):
        client = choose.randrange(count)
        action = choose.random()
        if action < 0.55:
            [frames] = yield [["edit", seed, client, choose.randint(1, 4)]]
            deliver(client, frames)
        elif client not in server.connections:
            yield from connect(client)
        elif action < 0.85:
            yield from receive(client)
        else:
            del server.connections[client]
            yield [["drop", seed, client]]
    for client in range(count):
        if client not in server.connections:
            yield from connect(client)
    for client in range(count):
        yield from receive(client)
    [ids] = yield [["ids", seed]]
    yield [["close", seed]]
    rows = [
        Row(at + 1, data, 1_700_000_000.0 + 400.0 * at, author)
        for at, (data, author) in enumerate(zip(server.log, server.authors, strict=True))
    ]
    return Played(seed, rows, {client: Owner(str(number), 0) for number, client in enumerate(ids)})


def play(script: Any, seeds: list[int], split: bool = False, ordinary: bool = False) -> list[Played]:
    """Play sessions side by side."""
    live: list[tuple[int, Play, Commands]] = []
    for seed in seeds:
        game = session(seed, split, ordinary)
        live.append((seed, game, next(game)))
    played: list[Played] = []
    while live:
        answers = iter(script.call([command for _, _, commands in live for command in commands]))
        going: list[tuple[int, Play, Commands]] = []
        for seed, game, commands in live:
            try:
                going.append((seed, game, game.send([next(answers) for _ in commands])))
            except StopIteration as stop:
                played.append(stop.value)
            except Exception as error:
                error.add_note(f"seed {seed}")
                raise
        live = going
    return played
