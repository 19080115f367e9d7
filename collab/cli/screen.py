"""The picture of ``collab top``: what a server says, as tables.

Apart from the command, since rich takes a while to import (it comes with typer, which reads the command line).
"""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from collab.cli.server import Server
from collab.cli.status import shown_bytes, shown_seconds
from collab.telemetry import escape_controls

SORTS: Final = ("edits", "stored", "received", "waiting", "sessions", "size")
"""The orders, one after the other with the key s."""

MOST: Final = 100
"""Rows of each table that are asked for at most."""

# Which order of documents and of connections each of them is.
_ROOMS: Final = {"received": "edits"}
_CONNECTIONS: Final = {"received": "received", "waiting": "waiting", "edits": "received", "stored": "received"}

_COLUMNS: Final = (
    "CONN",
    "OPEN",
    "EDITS/S",
    "IN/S",
    "OUT/S",
    "ACK P50",
    "ACK P99",
    "LAG P99",
    "QUEUE",
    "MEMORY",
    "CPU",
)

# What is left out of the servers where the screen has fewer characters than that.
_LEFT_OUT: Final = ("IN/S", "OUT/S", "ACK P50", "MEMORY", "CPU")
_WIDE: Final = 130

_HELP: Final = "q quit  s sort  d documents  c connections  b both  space now"


class Screen:
    """What is shown.

    Args:
        server: who is asked.
        sort: one of ``SORTS``.
        search: a text that is looked for.

    Attributes:
        sample: what was said last; None until then.
        trouble: why nothing was said the last time.
        documents, connections: whether they are shown.
    """

    def __init__(self, server: Server, sort: str, search: str) -> None:
        self._server = server
        self._search = search
        self.sort = sort
        self.sample: dict[str, Any] | None = None
        self.trouble: str | None = None
        self.documents = self.connections = True

    def look(self, rows: int) -> dict[str, Any]:
        """Ask the server; raises ``NoAnswer`` and ``Denied``."""
        limit = max(1, min(rows, MOST))
        nodes = self._server.ask("/nodes")
        order = _ROOMS.get(self.sort, self.sort)
        rooms = self._server.ask("/rooms", order=order, search=self._search, limit=limit)
        order = _CONNECTIONS.get(self.sort, "received")
        connections = self._server.ask("/connections", order=order, search=self._search, limit=limit)
        self.sample = {
            "at": nodes.get("at"),
            "sort": self.sort,
            "nodes": nodes.get("nodes", []),
            "silent": nodes.get("silent", []),
            "rooms": rooms.get("rooms", []),
            "rooms_total": rooms.get("total"),
            "connections": connections.get("connections", []),
        }
        self.trouble = None
        return self.sample

    def press(self, key: str) -> bool:
        """Do what a key says; give whether to go on."""
        if key in ("q", "Q", "\x03", "\x04"):
            return False
        if key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        elif key == "d":
            self.documents, self.connections = True, False
        elif key == "c":
            self.documents, self.connections = False, True
        elif key == "b":
            self.documents = self.connections = True
        return True

    def draw(self, rows: int, width: int, *, help: bool = True) -> RenderableType:
        """Draw it for so many characters, with at most so many rows of documents and connections.

        On a screen (``help``) these are for both together; else for each.
        """
        parts: list[RenderableType] = [self._headline()]
        if self.sample is not None:
            parts.append(self._nodes(width))
            if self.documents:
                parts.append(self._rooms(rows // 2 if self.connections and help else rows))
            if self.connections:
                parts.append(self._connections(rows - rows // 2 if self.documents and help else rows))
        if help:
            parts.append(Text(_HELP, style="dim", no_wrap=True))
        return Group(*parts)

    def _headline(self) -> Text:
        line = Text(f"{self._server.url}  sorted by {self.sort}", no_wrap=True)
        if self.sample is not None:
            nodes = self.sample["nodes"]
            edits = sum(node["rates"]["edits"] for node in nodes)
            open_now = sum(sum(node["connections"].values()) for node in nodes)
            line.append(f"  {len(nodes)} servers, {open_now} connections, {edits:.1f} edits/s", style="bold")
        if self.sample is not None and self.sample["silent"]:
            line.append(f"  silent: {', '.join(map(escape_controls, self.sample['silent']))}", style="bold red")
        if self.trouble is not None:
            line.append(f"  {escape_controls(self.trouble)}", style="bold red")
        return line

    def _nodes(self, width: int) -> Table:
        assert self.sample is not None
        table = _table("SERVER", "STATE")
        columns = [column for column in _COLUMNS if width >= _WIDE or column not in _LEFT_OUT]
        for title in columns:
            table.add_column(title, justify="right", no_wrap=True)
        for node in self.sample["nodes"]:
            state = "degraded" if node["degraded"] else "ready" if node["ready"] else "not ready"
            style = "" if state == "ready" else "bold red" if state == "not ready" else "yellow"
            rates = node["rates"]
            values = {
                "CONN": str(sum(node["connections"].values())),
                "OPEN": str(node["rooms"]),
                "EDITS/S": f"{rates['edits']:.1f}",
                "IN/S": shown_bytes(rates["received_bytes"]),
                "OUT/S": shown_bytes(rates["delivered_bytes"]),
                "ACK P50": shown_seconds(node["acknowledgement"]["p50"]),
                "ACK P99": shown_seconds(node["acknowledgement"]["p99"]),
                "LAG P99": shown_seconds(node["loop_lag"]["p99"]),
                "QUEUE": shown_bytes(node["journal"]["bytes"]),
                "MEMORY": shown_bytes(node["memory"]["used"]),
                "CPU": f"{100 * rates['cpu']:.0f} %",
            }
            table.add_row(_cell(node["name"]), Text(state, style=style), *[values[title] for title in columns])
        return table

    def _rooms(self, rows: int) -> Table:
        assert self.sample is not None
        table = _table("DOCUMENT")
        for title in ("EDITS/S", "STORED/S", "SESSIONS", "SIZE", "WAITING", "SLOW", "NUMBER"):
            table.add_column(title, justify="right", no_wrap=True)
        for room in self.sample["rooms"][: max(rows, 1)]:
            table.add_row(
                _cell(room["name"]),
                _rate(room["edits_per_second"]),
                shown_bytes(room["stored_bytes_per_second"]),
                str(room["sessions"]),
                shown_bytes(room["bytes"]),
                shown_bytes(room["waiting_bytes"]),
                str(room["slow_members"] or "-"),
                str(room["number"] if room["number"] is not None else "-"),
            )
        return table

    def _connections(self, rows: int) -> Table:
        assert self.sample is not None
        table = _table("CONNECTION", "USER", "ADDRESS", "PROTOCOL")
        for title in ("IN/S", "RECEIVED", "WAITING", "OPEN"):
            table.add_column(title, justify="right", no_wrap=True)
        for each in self.sample["connections"][: max(rows, 1)]:
            table.add_row(
                _cell(each["id"]),
                _cell(", ".join(each["users"]) or "-"),
                _cell(each["address"] or "-"),
                _cell(each["protocol"]),
                shown_bytes(each["received_bytes_per_second"]),
                shown_bytes(each["received_bytes"]),
                shown_bytes(each["waiting_bytes"]),
                str(each["open"]),
            )
        return table


def _table(*texts: str) -> Table:
    table = Table(box=None, pad_edge=False, expand=True, header_style="reverse")
    for place, title in enumerate(texts):
        table.add_column(
            title, no_wrap=True, overflow="ellipsis", ratio=2 if place == 0 else 1, min_width=len(title) + 2
        )
    return table


def _cell(text: object) -> Text:
    """Show a text of somebody else: what looks like markup is none."""
    return Text(escape_controls(str(text)))


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.1f}"
