"""What all rooms of a node may keep together of one kind."""

from __future__ import annotations


class Budget:
    """Counts bytes for all rooms of a node: ``nbytes``, of at most ``limit``. The rooms keep to it themselves."""

    __slots__ = ("limit", "nbytes")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
