"""Write the table of metrics in ``docs/operations.md`` from the code.

Run ``python -m tests.support.metrics_table`` after a metric has changed; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from collab.transports.http.metrics_list import METRICS
from tests.support.tables import write_between

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
START = "<!-- metrics: written by python -m tests.support.metrics_table -->"
END = "<!-- end of metrics -->"


def render() -> str:
    """Give the table as Markdown: series, kind, unit, labels and meaning of every metric."""
    lines = ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in METRICS:
        label = ", ".join(f"`{name}`" for name in metric.labels)
        meaning = metric.meaning.replace("|", r"\|")
        lines.append(f"| `{metric.series}` | {metric.kind} | {metric.unit} | {label} | {meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_between(DOCUMENT, START, END, render())
