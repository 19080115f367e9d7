"""The command line. ``commands`` has the program and ends it; each other module has the commands of one subject.

``commands`` adds them with the ``register`` of their module. What a command needs is imported when it runs.
"""

from collab.cli.commands import main, run

__all__ = ["main", "run"]
