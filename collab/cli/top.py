"""``collab top``: a live view of all servers in a terminal, the busiest documents and connections first.

Strategy: a running server is asked again and again, with one question for each table, and a whole picture is drawn of
what it says (rich, which the program's option parser brings). Keys are read without waiting for a line. Where no
terminal is, or one sample is wanted, a picture is printed once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from collab.cli.common import with_settings
from collab.cli.server import NoAnswer, Timeout, Token, Url, find
from collab.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from collab.cli.screen import Screen

# Characters of a line where no terminal is.
_WIDTH: Final = 160

# Rows of each table where nobody knows how high the screen is.
_ROWS: Final = 20

# Lines that are no rows of the two tables: the line on top, the heads, the help, and the one for each server.
_AROUND: Final = 9


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(top)


@with_settings("host", "port", "tls_cert")
def top(
    settings: Settings,
    url: Url = None,
    token: Token = None,
    timeout: Timeout = 5.0,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, max=3600, help="Between two looks.")] = 2.0,
    sort: Annotated[
        str,
        typer.Option(
            metavar="ORDER",
            help="What comes first: edits, stored, received, waiting, sessions or size. The key s takes the next one.",
        ),
    ] = "edits",
    search: Annotated[
        str, typer.Option(metavar="TEXT", help="Only documents and connections in whose names it is.")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line for each look, and no picture.")
    ] = False,
) -> int:
    """Watch all servers live: the busiest documents and connections first. Keys: q quit, s sort, d, c, b what is shown.

    It needs a running server, and with authentication a token with admin for all documents. Rates appear after some
    seconds: they are measured while somebody watches.
    """
    from rich.console import Console

    from collab.cli.screen import SORTS, Screen

    if sort not in SORTS:
        raise typer.BadParameter(f"--sort is one of {', '.join(SORTS)}")
    screen = Screen(find(settings, url, token, timeout), sort, search)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    if as_json:
        return _print_samples(screen, interval, once=once)
    if once or not console.is_terminal:
        screen.look(_ROWS)
        console.print(screen.draw(_ROWS, console.width, help=False))
        return 0
    return _watch(screen, console, interval)


def _print_samples(screen: Screen, interval: float, *, once: bool) -> int:
    """Print a line for each look; one that fails is a line too, and the next look may succeed."""
    from collab.cli.screen import MOST

    while True:
        began = time.monotonic()
        try:
            line = screen.look(MOST)
        except NoAnswer as error:
            if once:
                raise
            line = {"error": str(error)}
        print(json.dumps(line, ensure_ascii=False), flush=True)
        if once:
            return 0
        try:
            time.sleep(max(0.0, interval - (time.monotonic() - began)))
        except KeyboardInterrupt:
            return 0


def _watch(screen: Screen, console: Console, interval: float) -> int:
    from rich.live import Live

    from collab.cli.screen import MOST

    screen.look(MOST)  # what cannot be shown at all is said as an error of any command
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + interval
        while True:
            rows = max(2, console.size.height - _AROUND - len((screen.sample or {}).get("nodes", ())))
            live.update(screen.draw(rows, console.width), refresh=True)
            key = pressed(max(0.0, due - time.monotonic()))
            if key is not None and not screen.press(key):
                return 0
            if key is None or key in ("s", " "):
                try:
                    screen.look(MOST)
                except NoAnswer as error:
                    screen.trouble = str(error)
                due = time.monotonic() + interval


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str | None]]:
    """Give what waits for a key for so many seconds; None if none came, or where keys cannot be read."""
    try:
        import termios
        import tty

        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (ImportError, OSError, ValueError, AttributeError):  # no terminal, or Windows
        yield _wait
        return
    except Exception as error:
        if type(error).__name__ != "error":  # termios.error is no OSError
            raise
        yield _wait
        return

    def read(seconds: float) -> str | None:
        try:
            if not select.select([number], [], [], seconds)[0]:
                return None
            return os.read(number, 1).decode(errors="replace") or "q"  # the terminal has gone
        except KeyboardInterrupt:
            return "q"

    try:
        tty.setcbreak(number)
        yield read
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _wait(seconds: float) -> str | None:
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return "q"
    return None
