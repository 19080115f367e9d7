"""Write the table of options in ``docs/configuration.md`` from the code.

Run ``python -m tests.support.options_table`` after an option has changed; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from collab.settings import options
from tests.support.tables import write_between

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
START = "<!-- options: written by python -m tests.support.options_table -->"
END = "<!-- end of options -->"


def render() -> str:
    """Give the table as Markdown: flag, variable, key, default and meaning of every option."""
    lines = ["| flag | environment | key | default | meaning |", "|---|---|---|---|---|"]
    for option in options():
        flag = f"{option.flag} {option.kind}" if option.kind else f"{option.flag} / --no-{option.flag[2:]}"
        default = f"`{option.default}`" if option.default else "none"
        description = option.description.replace("|", "\\|")
        lines.append(f"| `{flag}` | `{option.env}` | `{option.name}` | {default} | {description} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_between(DOCUMENT, START, END, render())
