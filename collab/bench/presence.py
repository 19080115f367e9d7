"""The scenario in which people move their cursors."""

from __future__ import annotations

from collab.bench.connection import Connection, close_all
from collab.bench.ledger import Ledger
from collab.bench.load import collector_resting, drive, first_error, open_rooms, settle
from collab.bench.process import Stopwatch
from collab.bench.run import Bench, Figures, note_cpu


class Cursor:
    """One client's awareness: a name, a colour and a caret that moves."""

    def __init__(self, connection: Connection, client: int, number: int) -> None:
        self.connection = connection
        self.client = client
        self.clock = 0
        self._times = connection.ledger.sent_at.setdefault(client, [0.0])  # clock 0 is never sent
        self._front = f'{{"user":{{"name":"Person {number}","color":"#30bced"}},"cursor":{{"anchor":'

    def move(self, now: float) -> None:
        """Move the caret and tell the room."""
        self.clock += 1
        self._times.append(now)
        self.connection.ledger.sent += 1
        state = f'{self._front}{self.clock},"head":{self.clock + 3}}}}}'.encode()
        self.connection.send_awareness(self.client, self.clock, state)


async def presence_storm(bench: Bench, *, clients: int = 100, rate: float = 10.0, echo: int = 0) -> Figures:
    """All clients of one room move their cursors.

    With ``echo`` 1 each client sends back what is new to it in each awareness update, as those of y-websocket do.

    A server may skip a state that a newer one of the same client has replaced (``superseded``); what must
    arrive everywhere is each client's last.
    """
    ledger = Ledger()
    bench.progress(0.0, "connecting")
    (room,) = await open_rooms(bench.target, [bench.document("presence")], clients, ledger)
    connections = room.connections
    try:
        cursors = [
            Cursor(connection, bench.rng.randrange(1 << 28, 1 << 32), number)
            for number, connection in enumerate(connections)
        ]
        for connection, cursor in zip(connections, cursors, strict=True):
            connection.own.add(cursor.client)
            connection.echoes = bool(echo)
        with collector_resting():
            watch = Stopwatch(bench.server)
            driven = await drive(
                [cursor.move for cursor in cursors],
                rate,
                bench.seconds,
                bench.rng,
                progress=bench.progress,
                what="moving",
                stop=lambda: first_error(connections) is not None,
            )
            last = {cursor.client: cursor.clock for cursor in cursors}

            def missing() -> int:
                return sum(
                    1
                    for connection, own in zip(connections, cursors, strict=True)
                    for client, clock in last.items()
                    if client != own.client and connection.states.get(client, -1) < clock
                )

            await settle(ledger, lambda: missing() == 0)
            await settle(ledger, lambda: ledger.delivered >= ledger.sent * clients, patience=0.1)
            share, waited, watched = watch.generator_share(), watch.generator_waited(), watch.wall()
            cpu = watch.server_cpu()
        error = first_error(connections)
        echoed = any(own.client in c.states for c, own in zip(connections, cursors, strict=True))
        expected = ledger.sent * (clients if echoed else clients - 1)
        figures: Figures = {
            "sent": ledger.sent,
            "sent_per_s": ledger.sent / driven.seconds,
            "expected": expected,
            "delivered": ledger.delivered,
            "superseded": expected - ledger.delivered,
            "lost": missing(),
            **ledger.latencies(),
            "frames": ledger.frames,
            "echoes": ledger.echoes,
            "echoes_per_s": ledger.echoes / watched,
            "error": str(error) if error else None,
            "generator_share": share,
            "generator_waited": waited,
            "generator_lag_ms": driven.lag * 1000,
            "right": missing() == 0 and error is None,
        }
        note_cpu(figures, cpu, ledger.delivered, watched)
        return figures
    finally:
        await close_all(connections)
