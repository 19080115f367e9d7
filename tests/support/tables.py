"""Put what is written from the code into a page of the documentation."""

from __future__ import annotations

from pathlib import Path


def write_between(document: Path, start: str, end: str, table: str) -> None:
    """Replace what stands between two marks in ``document``."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(start)
    after = rest.partition(end)[2]
    document.write_text(f"{before}{start}\n\n{table}\n\n{end}{after}", encoding="utf-8")
