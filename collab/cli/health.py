"""The command line's health check: what a container's ``HEALTHCHECK`` and a service's own checks run.

Strategy: it asks the server on this machine over its own port, found from the same options, so an image needs neither
curl nor a second place where the port stands.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from collab.cli.common import with_settings
from collab.cli.server import NoAnswer, Server
from collab.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(health)


@with_settings("host", "port", "tls_cert")
def health(
    settings: Settings,
    ready: Annotated[bool, typer.Option("--ready", help="Ask whether new clients belong here (/readyz).")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For the whole answer.")] = 5.0,
) -> int:
    """Ask the server on this machine whether it lives. Exit code 0: it does; 1: it does not, or gives no answer.

    Give it the options of the server, by the same environment or --config: it needs --host, --port and --tls-cert.
    """
    path = "/readyz" if ready else "/healthz"
    status, body = _ask(settings, path, timeout)
    if status == 200:
        print(body)
        return 0
    print(f"collab: {body}" if status is None else f"collab: {path} answers {status}: {body}", file=sys.stderr)
    return 1


def _ask(settings: Settings, path: str, timeout: float) -> tuple[int | None, str]:
    """Give the status (None: no answer) and one line."""
    try:
        status, body = Server.local(settings, None, timeout).get(path)
    except NoAnswer as error:
        return None, str(error)
    text = body[:100_000].decode(errors="backslashreplace").strip()
    try:
        reasons = json.loads(text).get("reasons")
    except (ValueError, AttributeError):
        reasons = None
    return status, "; ".join(map(str, reasons)) if reasons else " ".join(text.split())
