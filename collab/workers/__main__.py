"""``python -m collab.workers NUMBER`` is one worker; the parent starts it, nobody else."""

from __future__ import annotations

from collab.workers.worker import main

if __name__ == "__main__":
    main()
