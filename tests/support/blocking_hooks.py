"""A hook that lets the loop of a server stand still, in a document of that name for the seconds that its name says."""

from __future__ import annotations

import time

from collab.hooks import Hooks, Rows, Server

BLOCKS = "blocks/"
"""How the names of documents begin whose rows let the loop stand still."""


class Blocking(Hooks):
    """Sleeps on the loop."""

    async def stored(self, event: Rows, server: Server) -> None:
        if event.name.startswith(BLOCKS):
            self.stand_still(float(event.name.removeprefix(BLOCKS)))

    def stand_still(self, seconds: float) -> None:
        """Take all of the loop's time; the name of this function stands in the stack."""
        time.sleep(seconds)
