"""Write the Grafana dashboard ``docs/deploy/grafana/collab.json`` from the list of its panels.

Run ``python -m tests.support.dashboard`` after a panel or a metric has changed; a test compares.

Strategy: a panel is a title, a unit of Grafana and queries. What Grafana needs beside that is the same for all. All
queries are for the nodes that are chosen at the top; ``Q`` makes the usual ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "deploy" / "grafana" / "collab.json"

NODES: Final = 'job=~"$job",instance=~"$instance"'

_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 24


class Query(NamedTuple):
    """One query, and what stands beside its lines."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One panel; ``unit`` as Grafana names it."""

    title: str
    unit: str
    queries: tuple[Query, ...]


def now(metric: str, *by: str) -> Query:
    """Show a gauge of each node, or by labels."""
    return Query(f"sum by ({', '.join(('instance', *by))}) ({metric}{{{NODES}}})", _legend(metric, by))


def rate(metric: str, *by: str, where: str = "") -> Query:
    """Show what a counter grows by in a second, on each node, or by labels."""
    selected = f"{metric}{{{NODES}{where}}}"
    return Query(f"sum by ({', '.join(('instance', *by))}) (rate({selected}[$__rate_interval]))", _legend(metric, by))


def mean(metric: str) -> Query:
    """Show the mean of a histogram."""
    sums = [f"sum by (instance) (rate({metric}_{part}{{{NODES}}}[$__rate_interval]))" for part in ("sum", "count")]
    return Query(" / ".join(sums), "{{instance}} mean")


def quantile(metric: str, part: float) -> Query:
    """Show a quantile of a histogram."""
    buckets = f"sum by (le, instance) (rate({metric}_bucket{{{NODES}}}[$__rate_interval]))"
    return Query(f"histogram_quantile({part}, {buckets})", f"{{{{instance}}}} p{part * 100:.0f}")


def times(title: str, metric: str) -> Panel:
    """Show a histogram of seconds."""
    return Panel(title, "s", (quantile(metric, 0.5), quantile(metric, 0.99)))


def _legend(metric: str, by: tuple[str, ...]) -> str:
    return " ".join(("{{instance}}", *(f"{{{{{label}}}}}" for label in by))) if by else "{{instance}}"


def named(query: Query, name: str) -> Query:
    """Put a name behind the lines of a query."""
    return query._replace(legend=f"{query.legend} {name}")


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "People",
        (
            Panel(
                "Connections", "short", (now("collab_connections", "protocol"), now("collab_stream_readers", "mode"))
            ),
            Panel(
                "Documents in memory, clients on them",
                "short",
                (named(now("collab_rooms"), "documents"), named(now("collab_sessions"), "clients")),
            ),
            Panel(
                "Joins and returns a second",
                "short",
                (named(rate("collab_joins_total"), "joins"), named(rate("collab_returns_total"), "returns")),
            ),
            Panel(
                "Connections opened a second",
                "short",
                (
                    rate("collab_connections_opened_total", "protocol"),
                    rate("collab_stream_readers_opened_total", "mode"),
                ),
            ),
            Panel("Refused a second", "short", (rate("collab_refusals_total", "reason"),)),
            Panel(
                "Audit entries a second, and those that are lost or wait",
                "short",
                (
                    rate("collab_audit_entries_total", "group"),
                    named(rate("collab_audit_lost_total"), "lost"),
                    named(now("collab_audit_waiting"), "waiting"),
                ),
            ),
            Panel(
                "Limits hit a second",
                "short",
                (rate("collab_limits_total", "limit"), named(rate("collab_read_pauses_total", "protocol"), "pauses")),
            ),
        ),
    ),
    (
        "Edits",
        (
            Panel(
                "Updates and turns a second",
                "short",
                (
                    named(rate("collab_updates_total"), "updates"),
                    named(rate("collab_turns_total"), "turns"),
                    named(rate("collab_refused_updates_total"), "refused"),
                ),
            ),
            times("Receipt of an edit to its commit", "collab_acknowledgement_seconds"),
            times("Receipt of an edit to all clients of the node", "collab_propagation_seconds"),
            Panel("Bytes of a turn", "bytes", (mean("collab_turn_bytes"), quantile("collab_turn_bytes", 0.99))),
            Panel(
                "Messages in, frames out, a second",
                "short",
                (rate("collab_received_messages_total", "protocol"), named(rate("collab_deliveries_total"), "out")),
            ),
            Panel(
                "Bytes in and out a second",
                "Bps",
                (rate("collab_received_bytes_total", "protocol"), named(rate("collab_delivered_bytes_total"), "out")),
            ),
            Panel(
                "Slow clients",
                "short",
                (now("collab_slow_members"), named(rate("collab_slow_members_held_back_total"), "begin, a second")),
            ),
            Panel(
                "Streams a second",
                "short",
                (
                    named(rate("collab_stream_events_total"), "events"),
                    named(rate("collab_stream_behind_total"), "behind"),
                    named(rate("collab_stream_posts_total", "outcome"), "posts"),
                    named(rate("collab_stream_updates_total"), "updates posted"),
                ),
            ),
        ),
    ),
    (
        "Store",
        (
            Panel("What waits for a commit", "short", (now("collab_journal_queue_entries"),)),
            Panel("Bytes that wait for a commit", "bytes", (now("collab_journal_queue_bytes"),)),
            times("One commit", "collab_journal_commit_seconds"),
            Panel(
                "Entries of a commit",
                "short",
                (mean("collab_journal_batch_entries"), quantile("collab_journal_batch_entries", 0.99)),
            ),
            Panel(
                "Entries and retries a second",
                "short",
                (
                    named(rate("collab_journal_entries_total"), "entries"),
                    named(rate("collab_journal_retries_total"), "retries"),
                ),
            ),
            Panel("Bytes committed a second", "Bps", (rate("collab_update_bytes_total"),)),
            Panel(
                "Store takes no writes",
                "short",
                (
                    named(now("collab_journal_failing"), "failing"),
                    named(now("collab_journal_stalled_seconds"), "stalled, s"),
                ),
            ),
            Panel("Size of the database", "bytes", (now("collab_store_bytes"),)),
            Panel(
                "Free on the disk",
                "bytes",
                (now("collab_disk_free_bytes", "kept"), named(now("collab_disk_size_bytes", "kept"), "size")),
            ),
            times("Opening a document", "collab_cold_load_seconds"),
            Panel(
                "Documents closed or damaged",
                "short",
                (
                    rate("collab_evictions_total", "reason"),
                    named(now("collab_damaged_documents"), "damaged"),
                    named(now("collab_troubled_documents"), "troubled"),
                ),
            ),
            Panel(
                "Database went back",
                "short",
                (
                    named(rate("collab_database_went_back_total"), "times"),
                    named(rate("collab_healed_rows_total"), "rows written again"),
                ),
            ),
            Panel("Documents unloaded a second", "short", (rate("collab_unloads_total"),)),
        ),
    ),
    (
        "Snapshots and sandbox",
        (
            times("Making a snapshot", "collab_compaction_seconds"),
            Panel(
                "Snapshots a second",
                "short",
                (
                    named(
                        Query(f"rate(collab_compaction_seconds_count{{{NODES}}}[$__rate_interval])", "{{instance}}"),
                        "made",
                    ),
                    named(rate("collab_compactions_failed_total"), "failed"),
                    named(rate("collab_snapshots_of_others_total"), "of others"),
                    named(rate("collab_versions_pinned_total"), "versions kept"),
                ),
            ),
            Panel("Jobs a second", "short", (rate("collab_sandbox_jobs_total", "kind", "outcome"),)),
            Panel(
                "Jobs that wait or run",
                "short",
                (now("collab_sandbox_jobs_under_way"), named(now("collab_timelines_waiting"), "timelines that wait")),
            ),
            Panel(
                "Documents that stay loaded",
                "short",
                (
                    now("collab_sandbox_stays"),
                    named(rate("collab_sandbox_stays_loaded_total"), "loaded, a second"),
                    named(rate("collab_sandbox_stays_ended_total", "reason"), "ended, a second"),
                    named(rate("collab_sandbox_tasks_total"), "edits and readings, a second"),
                ),
            ),
            Panel("Bytes of them", "bytes", (now("collab_sandbox_stay_bytes"),)),
        ),
    ),
    (
        "Nodes",
        (
            Panel(
                "Nodes that live, and that are heard",
                "short",
                (
                    named(now("collab_nodes"), "live"),
                    named(now("collab_bus_nodes"), "others heard"),
                    named(now("collab_bus_up"), "bus up"),
                ),
            ),
            Panel("Clocks, ahead of that of the database", "s", (now("collab_clock_ahead_seconds"),)),
            Panel(
                "Messages a second",
                "short",
                (rate("collab_bus_messages_total", "direction"), rate("collab_bus_lost_total", "reason")),
            ),
            times("Edits of other nodes, to clients here", "collab_node_propagation_seconds"),
            Panel(
                "Rows of other nodes a second",
                "short",
                (
                    rate("collab_rows_of_others_total"),
                    named(rate("collab_bus_catch_ups_total", "reason"), "read from the log"),
                ),
            ),
            Panel(
                "Reconnects of the bus, instructions",
                "short",
                (rate("collab_bus_reconnects_total"), rate("collab_instructions_total", "kind")),
            ),
        ),
    ),
    (
        "HTTP, hooks and webhooks",
        (
            Panel("Answers a second by status", "short", (rate("collab_http_answers_total", "status"),)),
            Panel("Answers a second by route", "short", (rate("collab_http_answers_total", "route", "method"),)),
            times("Calls of Python hooks", "collab_hook_seconds"),
            Panel(
                "Python hooks a second",
                "short",
                (
                    named(rate("collab_hook_calls_total", "hook"), "calls"),
                    named(rate("collab_hook_failures_total", "hook"), "failures"),
                    named(rate("collab_hook_timeouts_total", "hook"), "timeouts"),
                    named(rate("collab_hook_dropped_total", "hook"), "dropped"),
                    named(now("collab_hook_waiting"), "wait"),
                ),
            ),
            Panel(
                "Tenants and quotas",
                "short",
                (now("collab_tenants", "state"), named(rate("collab_quota_refusals_total"), "refused a second")),
            ),
            Panel(
                "Webhooks a second",
                "short",
                (rate("collab_webhook_attempts_total", "outcome"), rate("collab_webhook_lost_total", "reason")),
            ),
            Panel(
                "Webhooks that wait",
                "short",
                (
                    now("collab_webhook_pending"),
                    named(now("collab_webhook_disabled"), "receivers disabled"),
                    named(now("collab_webhook_delivering"), "delivers"),
                ),
            ),
            Panel("Age of the oldest webhook", "s", (now("collab_webhook_oldest_seconds"),)),
        ),
    ),
    (
        "Process",
        (
            Panel("CPU", "percentunit", (rate("process_cpu_seconds_total"),)),
            times("Lag of the event loop", "collab_loop_lag_seconds"),
            Panel("Stalls of the event loop", "short", (rate("collab_loop_stalls_total"),)),
            Panel("Memory", "bytes", (now("collab_memory_used_bytes"), now("collab_memory_bytes", "part"))),
            Panel(
                "Past a mark of memory",
                "short",
                (now("collab_memory_past_mark"), named(now("collab_tasks_failing"), "tasks that fail")),
            ),
            Panel("Running for", "s", (Query(f"time() - process_start_time_seconds{{{NODES}}}", "{{instance}}"),)),
            Panel("Releases", "short", (Query(f"count by (version) (collab_build_info{{{NODES}}})", "{{version}}"),)),
        ),
    ),
)


def queries() -> Iterator[str]:
    """Give all queries."""
    for _, panels in ROWS:
        for panel in panels:
            for query in panel.queries:
                yield query.expr


def render() -> str:
    """Give the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, y, _COLUMNS, 1)})
        y += 1
        for number, panel in enumerate(row):
            x = number * _WIDTH % _COLUMNS
            panels.append(_panel(panel, _place(x, y, _WIDTH, _HEIGHT)))
            if x + _WIDTH == _COLUMNS or number == len(row) - 1:
                y += _HEIGHT
    for number, one in enumerate(panels, 1):
        one["id"] = number
    dashboard = {
        "title": "collab",
        "uid": "collab",
        "description": "Written by python -m tests.support.dashboard; docs/operations.md says what each metric means.",
        "tags": ["collab"],
        "timezone": "browser",
        "schemaVersion": 38,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_source(), _choice("job", "collab_build_info"), _choice("instance", _OF_JOB)]},
        "panels": panels,
    }
    return json.dumps(dashboard, indent=1) + "\n"


_OF_JOB: Final = 'collab_build_info{job=~"$job"}'


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}


def _choice(label: str, series: str) -> dict[str, Any]:
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": f"label_values({series}, {label})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": query.expr, "legendFormat": query.legend}
            for number, query in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
