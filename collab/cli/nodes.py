"""How the command line shows the servers that are on a database."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from collab.storage.membership import Node
from collab.telemetry import escape_controls


def print_nodes(nodes: Iterable[Node], *, as_json: bool) -> None:
    """Print a line for each server, of which a dead one is told to be gone."""
    if not as_json:
        print(
            f"{'STATE':7} {'SINCE':20} {'HEARTBEAT':>9} {'DOCUMENTS':>9} {'CONNECTIONS':>11}  {'BUS':10}  "
            f"{'VERSION':10}  {'NAME':24}  ADDRESS"
        )
    for node in nodes:
        if as_json:
            print(json.dumps(_facts(node), ensure_ascii=False))
            continue
        texts = [escape_controls(text) for text in (node.bus, node.version, node.name, node.address or "-")]
        state, ago = "alive" if node.alive else "gone", f"{node.silent:.0f} s ago"
        print(
            f"{state:7} {date(node.since):20} {ago:>9} {node.documents:>9} {node.connections:>11}  "
            f"{texts[0]:10}  {texts[1]:10}  {texts[2]:24}  {texts[3]}"
        )


def _facts(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "address": node.address,
        "version": node.version,
        "alive": node.alive,
        "since": date(node.since),
        "heartbeat_at": date(node.beat_at),
        "silent_seconds": round(node.silent, 1),
        "documents": node.documents,
        "connections": node.connections,
        "bus": node.bus,
    }


def date(at: float) -> str:
    """Show Unix seconds to people and programs."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
