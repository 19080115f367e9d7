"""``collab serve`` that takes a third of everything for large, slow and long, for clients whose time is hasty too.

What takes minutes on a real line is seen in seconds: see ``tests/node/hasty.mjs``.
"""

from __future__ import annotations

import sys

from collab.cli import main
from collab.engine import document
from collab.hub import catch_up, delivery, line, room
from collab.update import pieces

for module in (catch_up, delivery, room):
    module.LARGE //= 3  # type: ignore[misc]
document.LARGE_DELTA //= 3  # type: ignore[misc]
line.SMALLEST_PIECE //= 3  # type: ignore[misc]
line.WHOLE_SECONDS /= 3  # type: ignore[misc]
line.PIECE_SECONDS /= 3  # type: ignore[misc]
delivery._PROBES = tuple((size // 3, part) for size, part in delivery._PROBES)  # type: ignore[misc]
delivery._SMALLEST_PROBE //= 3  # type: ignore[misc]
delivery._QUICK /= 3  # type: ignore[misc]
pieces._RUN //= 3  # type: ignore[misc]

if __name__ == "__main__":
    sys.argv.insert(1, "serve")
    main()
