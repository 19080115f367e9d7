"""Write the table of the codes of streams in ``docs/http-clients.md`` from the code.

Run ``python -m tests.support.stream_codes`` after a code has changed; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from collab.protocol.streams import DESCRIPTIONS
from tests.support.tables import write_between

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "http-clients.md"
START = "<!-- codes: written by python -m tests.support.stream_codes -->"
END = "<!-- end of codes -->"


def render() -> str:
    """Give the table as Markdown: status, code and meaning."""
    lines = ["| status | code | meaning |", "|---|---|---|"]
    for code, meaning in sorted(DESCRIPTIONS.items(), key=lambda each: (each[0].status, each[0].text)):
        lines.append(f"| {code.status} | `{code.text}` | {meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_between(DOCUMENT, START, END, render())
