"""Write the table of options in ``docs/configuration.md`` from the code.

Run ``python -m tests.support.options_table`` after an option has changed; a test compares.
"""

from __future__ import annotations

from pathlib import Path

from collab.settings import options

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


def main() -> None:
    """Replace what stands between the two marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{START}\n\n{render()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
