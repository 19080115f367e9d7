"""Resets: byte by byte on small documents, and with real yjs clients that are online, offline, or come back late."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from collab.engine.document import Document
from collab.update.compact import compact
from collab.update.reset import reset_update
from tests.support.needs import size
from tests.support.node import NodeScript


class Session:
    """Clients in Node around a document that this test serves, as a server does."""

    def __init__(self, script: NodeScript, seed: int, clients: int, *, wide: bool = False) -> None:
        self.script = script
        self.key = seed
        self.document = Document()
        self.clients = clients
        self.online = set(range(clients))
        self.rounds = 0
        self.call("open", seed, clients, wide)

    def call(self, command: str, *arguments: Any) -> Any:
        [result] = self.script.call([[command, self.key, *arguments]])
        return result

    def close(self) -> None:
        self.call("close")

    def apply(self, data: bytes) -> bytes | None:
        applied = self.document.apply_update(data)
        assert applied.missing is None
        turn = self.document.flush()
        return None if turn is None else turn.delta

    def relay(self, sender: int | None, updates: Sequence[str]) -> None:
        """Take updates of a client, and give them to all that are online; what they answer too."""
        queue = [(sender, update) for update in updates]
        while queue:
            self.rounds += 1
            assert self.rounds < 20_000, "the clients answer each other for ever"
            sender, update = queue.pop(0)
            delta = self.apply(bytes.fromhex(update))
            if delta is None:
                continue
            for client in sorted(self.online):
                answers = self.call("receive", client, [delta.hex()])
                queue += [(client, answer) for answer in answers]

    def edit(self, client: int, count: int, tag: str) -> None:
        updates = self.call("edit", client, count, tag)
        if client in self.online:
            self.relay(client, updates)

    def run(self, client: int, code: str) -> None:
        updates = self.call("run", client, code)
        if client in self.online:
            self.relay(client, updates)

    def leave(self, client: int) -> None:
        self.online.discard(client)

    def join(self) -> int:
        client: int = self.call("client")
        self.clients += 1
        self.come(client)
        return client

    def come(self, client: int, *, answered_first: bool = False) -> None:
        """Sync as y-websocket does: both ask, both answer."""
        asked = self.document.encode_state_vector()
        answer = self.document.encode_state_as_update(bytes.fromhex(self.call("vector", client)))
        self.online.add(client)
        if answered_first:
            updates = self.call("receive", client, [answer.hex()])
            said = self.call("diff", client, asked.hex())
        else:
            said = self.call("diff", client, asked.hex())
            updates = self.call("receive", client, [answer.hex()])
        self.relay(client, [said, *updates])

    def reset(self, content: bytes | None = None, *, replaced: bool = False, strict: bool = False) -> None:
        """Reset the document as it is; with ``replaced`` another one begins with the result, and nobody is online."""
        data = self.document.encode_state_as_update()
        made = reset_update(data, content=content, strict=strict)
        if replaced:
            self.online.clear()
            self.document = Document()
            self.apply(made)
            return
        self.relay(None, [made.hex()])

    def shrink(self) -> None:
        vector = self.document.encode_state_vector()
        compacted = compact(self.document.encode_state_as_update())
        self.document.rebase(compacted.data, compacted.index, vector)

    def views(self) -> list[dict[str, Any]]:
        return [self.call("view", client) for client in range(self.clients)]

    def agree(self) -> str:
        """Let everybody come who is offline; return what all of them show then."""
        for client in range(self.clients):
            if client not in self.online:
                self.come(client)
        self.join()
        views = self.views()
        assert len({view["content"] for view in views}) == 1, [view["content"] for view in views]
        assert len({view["vector"] for view in views}) == 1
        assert not any(view["pending"] for view in views)
        assert bytes.fromhex(views[0]["vector"]) == self.document.encode_state_vector()
        content: str = views[0]["content"]
        return content


def new_content(script: NodeScript, seed: int, count: int = 12, clients: int = 1) -> tuple[bytes, str]:
    [made] = script.call([["content", seed, count, "new", clients]])
    return bytes.fromhex(made["update"]), made["content"]


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.node
def test_nothing_that_was_seen_returns_and_all_end_equal(replaced: bool) -> None:
    with NodeScript("reset.mjs") as script:
        for seed in range(1, 1 + size(100, small=25)):
            choose = random.Random(seed)
            session = Session(script, seed, 4, wide=choose.random() < 0.3)
            for _ in range(choose.randint(3, 12)):
                client = choose.randrange(4)
                session.edit(client, choose.randint(1, 5), "seen" if client in session.online else "lost")
                if choose.random() < 0.3:
                    session.leave(choose.choice((2, 3)))
            for client in (2, 3):
                session.leave(client)
                session.edit(client, choose.randint(0, 6), "lost")
            content = None
            if choose.random() < 0.7:
                content, _ = new_content(script, seed, clients=choose.choice((1, 1, 3)))
            if choose.random() < 0.5:
                session.shrink()
            session.reset(content, replaced=replaced)
            for client in (0, 1):
                session.edit(client, choose.randint(0, 4), "late")
            if choose.random() < 0.5:
                session.shrink()
            for client in (3, 2):
                session.come(client, answered_first=choose.random() < 0.5)
                session.edit(client, choose.randint(0, 4), "late")
            assert "seen" not in session.agree(), f"seed {seed}"
            session.close()
