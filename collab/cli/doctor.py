"""``collab doctor``: what is wrong with a server and what it stands on, and what to do."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from collab.cli.common import with_settings
from collab.doctor.findings import Finding, State, failed
from collab.errors import ConfigurationError
from collab.loop import run_loop
from collab.settings import Settings
from collab.telemetry import escape_controls, mask_secrets

_Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Try the way of a client, too: through this public address, with a WebSocket. https://collab.example",
        show_default=False,
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def _unreadable(error: ConfigurationError, as_json: bool) -> int:
    from collab.doctor.run import MEND_OPTIONS

    return _tell([failed("configuration", str(error), MEND_OPTIONS)], as_json)


@with_settings(unreadable=lambda error, given: _unreadable(error, given["as_json"]))
def doctor(settings: Settings, url: _Url = None, as_json: _Json = False) -> int:
    """Look at everything that a server with these options needs, and say what is wrong and what to do.

    Give it the options, environment and user of the server, on its machine. It changes nothing. Exit code 1 if
    something is wrong; warnings do not count.
    """
    from collab.doctor.run import examine

    found: list[Finding] = []

    async def work() -> None:
        async for finding in examine(settings, url):
            found.append(finding)
            if not as_json:
                _print(finding)

    run_loop(work())
    if as_json:
        return _tell(found, as_json)
    return _code(found)


def _tell(found: list[Finding], as_json: bool) -> int:
    if as_json:
        facts = [{key: mask_secrets(text) for key, text in finding.facts().items()} for finding in found]
        print(json.dumps({"well": not _code(found), "findings": facts}, ensure_ascii=False))
    else:
        for finding in found:
            _print(finding)
    return _code(found)


def _print(finding: Finding) -> None:
    print(f"{finding.state.value:8} {finding.check:14} {escape_controls(mask_secrets(finding.text))}", flush=True)
    if finding.advice:
        print(f"{'':23} -> {escape_controls(mask_secrets(finding.advice))}", flush=True)


def _code(found: list[Finding]) -> int:
    return int(any(finding.state is State.FAILED for finding in found))
