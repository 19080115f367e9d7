"""The command that shows what is in the file of ``--audit-log``: the last entries, those of somebody, what comes now.

Strategy: the file is read from its beginning, line by line, and the last entries that are wanted are kept; nothing is
indexed. Files that were rotated are not looked for: name one with ``--audit-log``. Lines that are no entries (one that
was torn when a process was killed) are counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from collab.audit import Group, Kind
from collab.cli.common import with_settings
from collab.cli.versions import read_time
from collab.errors import CollabError, ConfigurationError
from collab.settings import Settings
from collab.telemetry import escape_controls

# Between two looks at a file that is followed.
_PAUSE: Final = 0.25

# Bytes of a line; an entry has a few KB at most.
_LONGEST: Final = 64 * 1024

_KINDS: Final = frozenset({*map(str, Kind), *map(str, Group)})

_Wanted = Callable[[dict[str, Any]], bool]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(audit)


@with_settings("audit_log", "log_level", "log_format")
def audit(
    settings: Settings,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only of this kind or group.", show_default=False)
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="ID", help="Only by, for or to this user.", show_default=False),
    ] = None,
    document: Annotated[
        str | None, typer.Option("--document", metavar="NAME", help="Only of this document.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Not before this: 2026-05-04T09:14:07Z.", show_default=False),
    ] = None,
    last: Annotated[int, typer.Option(min=0, help="How many of the last ones.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The lines of the file as they are.")] = False,
) -> None:
    """Show the last entries of the file of --audit-log. docs/operations.md has the kinds."""
    path = settings.audit_log
    if path is None:
        raise ConfigurationError("say which file: --audit-log, or COLLAB_AUDIT_LOG")
    if kind is not None and kind not in _KINDS:
        raise ConfigurationError(f"there is no kind {kind!r}; docs/operations.md has them")
    wanted = _wanted(kind, user, document, None if since is None else read_time(since))
    try:
        _show(path, wanted, last, follow=follow, as_json=as_json)
    except OSError as error:
        raise CollabError(f"cannot read {path}: {error.strerror or error}") from None


def _show(path: Path, wanted: _Wanted, last: int, *, follow: bool, as_json: bool) -> None:
    kept: deque[str] = deque(maxlen=last)
    unread = 0
    file: BinaryIO = path.open("rb")
    try:
        for line in _lines(file):
            entry = _read(line)
            unread += entry is None
            if entry is not None and wanted(entry):
                kept.append(line.decode().rstrip() if as_json else _line(entry))
        for text in kept:
            print(text, flush=follow)
        if unread:
            print(f"collab: {unread} lines of {path} are no entries", file=sys.stderr)
        while follow:
            # Asked before the rest is read: those who write look at the name too.
            moved = _moved(path, file)
            for line in _lines(file):
                entry = _read(line)
                if entry is not None and wanted(entry):
                    print(line.decode().rstrip() if as_json else _line(entry), flush=True)
            if moved:
                file.close()
                file = path.open("rb")
            else:
                time.sleep(_PAUSE)
    finally:
        file.close()


def _moved(path: Path, file: BinaryIO) -> bool:
    """Tell whether another file has the name now; one that was cut is read from its beginning."""
    ours = os.fstat(file.fileno())
    if file.tell() > ours.st_size:
        file.seek(0)
    try:
        named = path.stat()
    except FileNotFoundError:
        return False  # it comes with the next entry
    return (ours.st_dev, ours.st_ino) != (named.st_dev, named.st_ino)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Give the whole lines from where the file stands; one that is only begun is left for the next time."""
    while line := file.readline(_LONGEST):
        if not line.endswith(b"\n") and len(line) < _LONGEST:
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("event.action"), str) else None


def _wanted(kind: str | None, user: str | None, document: str | None, since: float | None) -> _Wanted:
    def wanted(entry: dict[str, Any]) -> bool:
        return (
            (kind is None or kind in (entry["event.action"], entry.get("collab.group")))
            and (user is None or user in (entry.get(key) for key in _USERS))
            and (document is None or entry.get("collab.document") == document)
            and (since is None or read_time(str(entry.get("@timestamp"))) >= since)
        )

    return wanted


_USERS: Final = ("user.id", "user.target.id", "collab.on_behalf_of", "user.name")

# What is shown of an entry, behind its time, kind and outcome.
_SHOWN: Final = {
    "user.id": "user",
    "user.name": "login",
    "collab.on_behalf_of": "on behalf of",
    "user.target.id": "to",
    "client.address": "from",
    "collab.document": "document",
    "service.node.name": "node",
}


def _line(entry: dict[str, Any]) -> str:
    facts = [f"{name} {entry[key]!r}" for key, name in _SHOWN.items() if entry.get(key)]
    outcome = entry.get("event.outcome")
    what = f"{entry['event.action']}{'' if outcome == 'success' else f' ({outcome})'}"
    text = f"{entry.get('@timestamp')} {what}: {entry.get('message')} ({', '.join(facts)})"
    return escape_controls(text)
