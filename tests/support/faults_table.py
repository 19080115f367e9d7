"""Write the table of faults in ``docs/operations.md`` from what is seen of each.

Run ``python -m tests.support.faults_table`` after something has changed that an operator sees of a fault; it takes five
minutes, on a machine that has nothing else to do. ``tests/faults/test_faults.py`` compares.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.stage import Stage
from tests.faults.told import DOCUMENT, END, START, Row, read_table, render, watch
from tests.support.tables import write_between


async def main(names: list[str]) -> None:
    """Let the faults with these names happen, or all of them, and write the table."""
    rows: dict[str, Row] = read_table()
    with tempfile.TemporaryDirectory(prefix="collab-faults-") as directory:
        async with Stage(Path(directory)) as stage:
            for fault in FAULTS:
                if not names or fault.name in names:
                    rows[fault.name] = await watch(stage, fault, None)
                    print(f"{fault.name}: {rows[fault.name]}", flush=True)
    write_between(DOCUMENT, START, END, render(rows))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
