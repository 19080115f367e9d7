"""``collab status``: how all servers are, in a few lines, what is wrong, and which command to use next.

Strategy: a running server knows the most, so it is asked first. Where none answers, or shows nothing to this token, the
database still says which servers were there and what waits. What is said is what was seen: a figure that nobody knows
is left out, never 0.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from collab.cli.common import DATABASE, with_settings, with_store
from collab.cli.server import Denied, NoAnswer, Server, Timeout, Token, Url, find
from collab.errors import CollabError
from collab.settings import Settings
from collab.telemetry import escape_controls

if TYPE_CHECKING:
    from collab.storage.store import Store

_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]

# Which command helps with a check of /readyz that is not ok; the others are told by the log of the server.
_NEXT: Final = {
    "store": "collab doctor",
    "schema": "collab doctor",
    "disk": "collab doctor",
    "bus": "collab doctor",
    "journal": "collab doctor",
    "memory": "collab top --sort size",
    "documents": "collab documents verify",
}
_LOG: Final = "the log of that server"


class Finding(NamedTuple):
    """Something to know: ``wrong`` if somebody has to act; ``next`` is the command to use, or where to look."""

    wrong: bool
    text: str
    next: str


@dataclass(slots=True)
class View:
    """What was seen.

    Attributes:
        source: "server" or "database"; "nothing" where neither has answered.
        url: which server was asked.
        nodes: one object for each server, with None for what is not known of it.
        connections, rooms, queue_bytes: of all servers that have answered; None where none has.
        documents: how many are stored; None where nobody has counted them.
        findings: what is wrong, or to know.
    """

    source: str
    url: str
    nodes: list[dict[str, Any]] = field(default_factory=list)
    connections: int | None = None
    rooms: int | None = None
    queue_bytes: int | None = None
    documents: int | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nobody has to act."""
        return not any(finding.wrong for finding in self.findings)

    def facts(self) -> dict[str, Any]:
        """Give all of it for JSON."""
        return {
            "well": self.well,
            "from": self.source,
            "url": self.url,
            "nodes": self.nodes,
            "connections": self.connections,
            "rooms": self.rooms,
            "queue_bytes": self.queue_bytes,
            "documents": self.documents,
            "findings": [finding._asdict() for finding in self.findings],
        }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


@with_settings("host", "port", "tls_cert", *DATABASE)
def status(
    settings: Settings, url: Url = None, token: Token = None, timeout: Timeout = 5.0, as_json: _Json = False
) -> int:
    """Show how all servers are, what is wrong, and which command to use next. Exit code 1: somebody has to act.

    It asks a running server; where none answers, it looks into the database that the options name.
    """
    server = find(settings, url, token, timeout)
    try:
        view = read_nodes(server.url, server.ask("/nodes"))
    except Denied as error:
        view = _from_database(settings, View("database", server.url))
        _look_at_readiness(view, server, settings)
        make_one = "collab token --user NAME --document '*=admin'"
        view.findings.append(Finding(False, f"only a part is shown: {error}", make_one))
    except NoAnswer as error:
        view = View("database", server.url)
        what = "collab doctor" if url is None else f"collab doctor --url {server.url}"
        view.findings.append(Finding(True, str(error), what))
        view = _from_database(settings, view)
    if as_json:
        print(json.dumps(view.facts(), ensure_ascii=False))
    else:
        _print(view)
    return 0 if view.well else 1


# What a server says


def read_nodes(url: str, said: dict[str, Any]) -> View:
    """Read the answer of ``/api/v1/nodes``; raises ``NoAnswer`` for one of another form."""
    view = View("server", url)
    try:
        for node in said["nodes"]:
            view.nodes.append(_node_of(node))
            _look_at(view, node)
        beats = {beat["name"]: beat for beat in said["heartbeats"]}
        for name in said["silent"]:
            view.nodes.append(_silent(name, beats.get(name)))
            text = f"{name} lives by its heartbeats, and does not answer: its figures are missing"
            view.findings.append(Finding(True, text, f"collab doctor on its machine, and {_LOG}"))
        for beat in beats.values():
            if not beat["alive"] and all(node["name"] != beat["name"] for node in view.nodes):
                text = f"{beat['name']} is gone without a word, {beat['silent_seconds']:.0f} s ago"
                view.findings.append(Finding(False, text, "collab nodes"))
        versions = {node["version"] for node in view.nodes if node["version"]}
    except (KeyError, TypeError, ValueError):
        raise NoAnswer(f"what {url} answers is of another release") from None
    if len(versions) > 1:
        view.findings.append(Finding(False, f"several versions run: {', '.join(sorted(versions))}", "collab nodes"))
    known = [node for node in view.nodes if node["ready"] is not None]
    view.connections = sum(node["connections"] for node in known)
    view.rooms = sum(node["rooms"] for node in known)
    view.queue_bytes = sum(node["queue_bytes"] for node in known)
    return view


def _node_of(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": node["name"],
        "address": node["address"],
        "version": node["version"],
        "alive": True,
        "ready": node["ready"],
        "degraded": node["degraded"],
        "reasons": node["reasons"],
        "connections": sum(node["connections"].values()),
        "rooms": node["rooms"],
        "edits_per_second": node["rates"]["edits"],
        "acknowledgement_p99": node["acknowledgement"]["p99"],
        "loop_lag_p99": node["loop_lag"]["p99"],
        "queue_entries": node["journal"]["entries"],
        "queue_bytes": node["journal"]["bytes"],
        "memory_bytes": node["memory"]["used"],
    }


def _silent(name: str, beat: dict[str, Any] | None) -> dict[str, Any]:
    """Describe a server of which only the last heartbeat is known."""
    return {
        "name": name,
        "address": beat["address"] if beat else "",
        "version": beat["version"] if beat else "",
        "alive": beat["alive"] if beat else None,
        "ready": None,
        "degraded": None,
        "reasons": [],
        "connections": beat["connections"] if beat else None,
        "rooms": beat["documents"] if beat else None,
        "edits_per_second": None,
        "acknowledgement_p99": None,
        "loop_lag_p99": None,
        "queue_entries": None,
        "queue_bytes": None,
        "memory_bytes": None,
    }


def _look_at(view: View, node: dict[str, Any]) -> None:
    """Say what is to know of one server."""
    name, found = node["name"], view.findings
    for reason in node["reasons"]:
        wrong = not node["ready"] or reason.partition(":")[0] in ("journal", "store", "schema", "disk")
        found.append(Finding(wrong, f"{name}: {reason}", _NEXT.get(reason.partition(":")[0], _LOG)))
    if damaged := node["documents"]["damaged"]:
        found.append(Finding(True, f"{name}: {damaged} documents are damaged", "collab documents verify"))
    if closed := node["documents"]["closed"]:
        text = f"{name}: {closed} documents are closed, by an operator or for their failures"
        found.append(Finding(False, text, "collab documents release NAME"))
    if disabled := node["webhooks"]["disabled"]:
        found.append(Finding(True, f"{disabled} receivers of webhooks are disabled", "collab webhooks list"))
    for limit in node["limits"][:3]:
        if limit["hour"]:
            text = f"{name}: the limit {limit['reason']} was met {limit['hour']} times in the last hour"
            found.append(Finding(False, text, "collab top --sort received"))
    if node["slow_members"]:
        text = f"{name}: {node['slow_members']} clients read too slowly"
        found.append(Finding(False, text, "collab top --sort waiting"))


def _look_at_readiness(view: View, server: Server, settings: Settings) -> None:
    """Ask what a server tells everybody."""
    try:
        _, body = server.get("/readyz")
        answer = json.loads(body)
        ready, reasons = bool(answer["ready"]), [str(reason) for reason in answer["reasons"]]
    except (NoAnswer, ValueError, KeyError, TypeError) as error:
        view.findings.append(Finding(True, f"{server.url}/readyz: {error}", "collab doctor"))
        return
    for reason in reasons:
        view.findings.append(Finding(not ready, f"{server.url}: {reason}", _NEXT.get(reason.partition(":")[0], _LOG)))


# What the database says


def _from_database(settings: Settings, view: View) -> View:
    """Add what the database says of the servers."""

    async def work(store: Store) -> None:
        nodes = await store.list_nodes()
        for node in nodes:
            beat = {
                "address": node.address,
                "version": node.version,
                "alive": node.alive,
                "connections": node.connections,
                "documents": node.documents,
            }
            view.nodes.append(_silent(node.name, beat))
            if not node.alive:
                text = f"{node.name} is gone without a word, {node.silent:.0f} s ago"
                view.findings.append(Finding(False, text, "collab nodes"))
        alive = [node for node in nodes if node.alive]
        if alive:
            view.connections = sum(node.connections for node in alive)
            view.rooms = sum(node.documents for node in alive)
        else:
            view.findings.append(Finding(True, "no server is on the database", "collab serve"))
        view.documents = await store.count_documents()
        for state in await store.receivers():
            if state.disabled_at is not None:
                text = f"the receiver {state.subscription.name} of webhooks is disabled, {state.pending} wait"
                view.findings.append(Finding(True, text, "collab webhooks list"))

    try:
        with_store(settings, work)
    except CollabError as error:
        view.source = "nothing" if not view.nodes else view.source
        view.findings.append(Finding(True, f"the database: {error or error.public}", "collab doctor"))
    return view


# For people


def _print(view: View) -> None:
    alive = [node for node in view.nodes if node["alive"]]
    ready = sum(bool(node["ready"]) for node in alive)
    words = [f"servers: {len(alive)}" + (f", ready: {ready}" if view.source == "server" else "")]
    for what, count in (
        ("connections", view.connections),
        ("documents open", view.rooms),
        ("documents stored", view.documents),
    ):
        if count is not None:
            words.append(f"{what}: {count}")
    if view.queue_bytes is not None:
        words.append(f"waiting to be stored: {shown_bytes(view.queue_bytes)}")
    origin = {
        "server": f"by {view.url}",
        "database": "by the database, as the last heartbeats say",
        "nothing": "neither a server nor the database has answered",
    }
    print(f"{', '.join(words)} ({origin[view.source]})")
    if view.nodes:
        print(
            f"\n{'STATE':9} {'CONNECTIONS':>11} {'OPEN':>6} {'EDITS/S':>8} {'ACK P99':>8} {'LAG P99':>8} "
            f"{'QUEUE':>9} {'MEMORY':>9}  {'VERSION':10}  {'NAME':24}  ADDRESS"
        )
    for node in view.nodes:
        print(
            f"{_state(node):9} {_shown(node['connections']):>11} {_shown(node['rooms']):>6} "
            f"{_shown(node['edits_per_second']):>8} {shown_seconds(node['acknowledgement_p99']):>8} "
            f"{shown_seconds(node['loop_lag_p99']):>8} {shown_bytes(node['queue_bytes']):>9} "
            f"{shown_bytes(node['memory_bytes']):>9}  {escape_controls(node['version']):10}  "
            f"{escape_controls(node['name']):24}  {escape_controls(node['address'] or '-')}"
        )
    if view.findings:
        print()
    for finding in sorted(view.findings, key=lambda each: not each.wrong):
        print(f"{'WRONG' if finding.wrong else 'note':5}  {escape_controls(finding.text)}")
        print(f"{'':5}  -> {finding.next}")
    sys.stdout.flush()


def _state(node: dict[str, Any]) -> str:
    if node["ready"] is None:
        return "alive" if node["alive"] else "gone" if node["alive"] is False else "silent"
    return "degraded" if node["degraded"] else "ready" if node["ready"] else "not ready"


def _shown(number: float | None) -> str:
    return "-" if number is None else f"{number:g}" if isinstance(number, int) else f"{number:.1f}"


def shown_bytes(number: float | None) -> str:
    """Show bytes to people."""
    if number is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def shown_seconds(seconds: float | None) -> str:
    """Show a short time to people."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
