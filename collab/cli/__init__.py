"""The command line. ``commands`` has the program and ends it; each other module has the commands of one subject.

``commands`` adds them with the ``register`` of their module. What a command needs is imported when it runs, and so are
the commands themselves: each process of the sandbox imports the script ``collab`` again, and that imports `main`.
"""

from __future__ import annotations

from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line with ``arguments`` (default: the process's) and exit; see ``commands`` for the codes."""
    from collab.cli import commands

    commands.main(arguments)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what went wrong is one line on standard error."""
    from collab.cli import commands

    return commands.run(arguments)
