"""Several workers on one port of one machine: a parent, and processes each of which is a node of its own.

Strategy: the parent serves nobody. It takes the port, starts the workers, and each of them listens on that port
(SO_REUSEPORT), so the system deals new connections out and nobody passes bytes on. A worker is a fresh process, not a
fork: what a process has begun (threads, an event loop, connections) cannot be shared.

The parent writes to a worker's standard input and reads its standard output, a line at a time:

=========================  =============================================================================
parent: the settings       as JSON, the first line. So secrets show in no list of processes, and a worker that is
                           started later has the same settings as the others, whatever the file says by then
worker: ``started``        it could listen now: the database is open, the schema is right
parent: ``listen``         all have started; so the first one does not get all the clients of a server before
worker: ``listening``      with its addresses
worker: ``beat``           its event loop turns; every few seconds
parent: end of file        the parent has died; the worker stops in order, so that nothing is left behind
=========================  =============================================================================
"""

from __future__ import annotations

from typing import Final

LISTEN: Final = b"listen\n"

BEAT_SECONDS: Final = 5.0
"""Seconds between two beats of a worker."""

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes of one line, which may hold all settings."""
