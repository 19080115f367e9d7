"""The commands for webhooks: list, deliveries, resend, enable, secret, public-keys.

Strategy: as the other commands they work on the database. The server that delivers looks for something to do once a
second, so it need not be told. Addresses and secrets are in the settings of servers and in no database.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collab.audit import Act, Kind
from collab.cli.common import AUDIT, DATABASE, audited, with_settings, with_store
from collab.cli.nodes import date
from collab.errors import ConfigurationError
from collab.settings import Settings
from collab.telemetry import escape_controls, shown_name

if TYPE_CHECKING:
    from collab.storage.store import Store
    from collab.storage.webhooks import Delivery, ReceiverState

webhooks = typer.Typer(
    help="Show receivers of webhooks and what they were told, and tell them again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_STATES = ("pending", "delivered", "failed")
_PAGE = 500

_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
_Receiver = Annotated[str, typer.Argument(metavar="RECEIVER", show_default=False, help="The receiver's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(webhooks, name="webhooks")


@webhooks.command("list")
@with_settings(*DATABASE)
def list_receivers(settings: Settings, as_json: _Json = False) -> None:
    """List the receivers, and how they stand."""

    async def work(store: Store) -> None:
        states = await store.receivers()
        if not as_json:
            print(f"{'STATE':9} {'SINCE':20} {'PENDING':>8} {'FAILED':>7} {'DROPPED':>7}  NAME")
        for state in states:
            facts = _facts(state)
            if as_json:
                print(json.dumps(facts, ensure_ascii=False))
            else:
                print(
                    f"{facts['state']:9} {facts['since'] or '-':20} {state.pending:>8} {state.failed:>7} "
                    f"{state.dropped:>7}  {facts['name']}"
                )

    with_store(settings, work)


@webhooks.command("deliveries")
@with_settings(*DATABASE, *AUDIT)
def list_deliveries(
    settings: Settings,
    receiver: Annotated[
        str | None, typer.Option("--receiver", metavar="NAME", help="Only those of this one.", show_default=False)
    ] = None,
    state: Annotated[
        str | None, typer.Option("--state", help="Only those pending, delivered or failed.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 100,
    as_json: _Json = False,
) -> None:
    """List deliveries, the newest first. The first column is what resend takes."""
    if state is not None and state not in _STATES:
        raise ConfigurationError(f"--state is one of {', '.join(_STATES)}")

    async def work(store: Store) -> None:
        if not as_json:
            print(
                f"{'ID':>10} {'AT':20} {'STATE':9} {'FAILURES':>8} {'STATUS':>6}  {'RECEIVER':16}  "
                f"{'TYPE':18}  DOCUMENT"
            )
        before, left = None, limit
        while left > 0:
            page = await store.deliveries(receiver=receiver, state=state, before=before, limit=min(left, _PAGE))
            for delivery in page:
                _print_delivery(delivery, as_json=as_json)
            if not page:
                break
            before, left = page[-1].number, left - len(page)

    with audited(settings, Act(Kind.DELIVERIES_LISTED)):
        with_store(settings, work)


@webhooks.command()
@with_settings(*DATABASE, *AUDIT)
def resend(
    settings: Settings,
    ids: Annotated[
        list[int] | None, typer.Argument(metavar="[ID]...", help="These deliveries.", show_default=False)
    ] = None,
    failed: Annotated[
        str | None,
        typer.Option("--failed", metavar="RECEIVER", help="All of it that were given up.", show_default=False),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option("--hours", min=0, help="With --failed: only those given up since then.", show_default=False),
    ] = None,
) -> None:
    """Make deliveries again: some by their numbers, or all of a receiver that were given up."""
    if bool(ids) == (failed is not None) or (hours is not None and failed is None):
        raise ConfigurationError("give the numbers of deliveries, or --failed RECEIVER with or without --hours")

    async def work(store: Store) -> None:
        if failed is not None:
            since = 0.0 if hours is None else time.time() - 3_600.0 * hours
            count = await store.resend_failed(failed, since)
        else:
            for number in ids or ():
                await store.resend(number)
            count = len(ids or ())
        print(f"{count} deliveries wait to be made", file=sys.stderr)

    said = f"deliveries {', '.join(map(str, ids or ()))}" if failed is None else f"of {shown_name(failed)}"
    with audited(settings, Act(Kind.WEBHOOKS_RESENT, detail=said)):
        with_store(settings, work)


@webhooks.command()
@with_settings(*DATABASE, *AUDIT)
def enable(settings: Settings, receiver: _Receiver) -> None:
    """Enable a receiver that was disabled, and try at once what waits for it."""

    async def work(store: Store) -> None:
        await store.enable_receiver(receiver)
        print(f"{escape_controls(receiver)} is enabled", file=sys.stderr)

    with audited(settings, Act(Kind.WEBHOOK_ENABLED, detail=shown_name(receiver))):
        with_store(settings, work)


@webhooks.command()
def secret() -> None:
    """Make a secret, which a server signs with and a receiver verifies."""
    from collab.webhooks.signing import make_secret

    print(make_secret())


@webhooks.command("public-keys")
@with_settings("signing_keys", "log_level", "log_format")
def public_keys(settings: Settings) -> None:
    """Print the public Ed25519 keys of --signing-keys, as libraries of Standard Webhooks take them (whpk_...)."""
    from collab.auth.signing import Signer
    from collab.webhooks.signing import encode_public_key

    if not settings.signing_keys:
        raise ConfigurationError("give the keys of the server with --signing-keys")
    signer = Signer([path.expanduser() for path in settings.signing_keys], settings.signing_issuer)
    for key in signer.ed25519_public:
        print(encode_public_key(key))
    if not signer.ed25519_public:
        print("none of the keys is an Ed25519 key, the one type that these libraries know", file=sys.stderr)


def _facts(state: ReceiverState) -> dict[str, Any]:
    since = state.failing_since if state.disabled_at is None else state.disabled_at
    return {
        "name": state.subscription.name,
        "events": list(state.subscription.kinds),
        "prefix": state.subscription.prefix,
        "state": "disabled" if state.disabled_at is not None else "working" if since is None else "failing",
        "since": None if since is None else date(since),
        "pending": state.pending,
        "oldest": None if state.oldest_at is None else date(state.oldest_at),
        "delivered": state.delivered,
        "failed": state.failed,
        "dropped": state.dropped,
    }


def _print_delivery(delivery: Delivery, *, as_json: bool) -> None:
    at = datetime.fromtimestamp(delivery.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if as_json:
        facts = {
            "id": delivery.number,
            "receiver": delivery.receiver,
            "event": delivery.event,
            "type": delivery.kind,
            "document": delivery.name,
            "document_id": delivery.document_id,
            "data": delivery.data,
            "at": at,
            "state": delivery.state,
            "failures": delivery.attempts,
            "status": delivery.status,
            "error": delivery.error,
        }
        print(json.dumps(facts))
        return
    print(
        f"{delivery.number:>10} {at:20} {delivery.state:9} {delivery.attempts:>8} {delivery.status or '-':>6}  "
        f"{delivery.receiver:16}  {delivery.kind:18}  {escape_controls(delivery.name)}"
    )
