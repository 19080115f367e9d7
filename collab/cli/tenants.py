"""The commands for tenants: list, show, quota.

Strategy: as the other commands they work on the database. Servers look at quotas every ten seconds, so they need not be
told. Who the tenants are, and the default quotas, say the settings, as for ``serve``.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collab.audit import Act, Kind
from collab.cli.common import AUDIT, DATABASE, audited, with_settings, with_store
from collab.cli.nodes import date
from collab.errors import ConfigurationError, InvalidQuota
from collab.settings import QUOTAS, Settings
from collab.telemetry import escape_controls, shown_name

if TYPE_CHECKING:
    from collab.hub.tenant_book import Book, Standing
    from collab.storage.store import Store

tenants = typer.Typer(help="Show what tenants use, and set their quotas.", no_args_is_help=True, rich_markup_mode=None)

_SETTINGS = (*DATABASE, "tenants", *(f"quota_{name}" for name in QUOTAS))
_PAGE = 500

_Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
_Month = Annotated[
    str | None, typer.Option("--month", metavar="YYYY-MM", help="Counters of this month (UTC).", show_default=False)
]
_Tenant = Annotated[str, typer.Argument(metavar="TENANT", show_default=False, help="The tenant's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(tenants, name="tenants")


@tenants.command("list")
@with_settings(*_SETTINGS)
def list_tenants(settings: Settings, month: _Month = None, as_json: _Json = False) -> None:
    """List tenants by their names, with what they use."""
    number = _month(month)

    async def work(store: Store) -> None:
        if not as_json:
            print(_HEAD)
        book, after = _book(settings, store), None
        while page := await book.page(after, _PAGE, number):
            after = page[-1].record.tenant
            for standing in page:
                _print(standing, as_json=as_json)

    with_store(settings, work)


@tenants.command()
@with_settings(*_SETTINGS)
def show(settings: Settings, tenant: _Tenant, month: _Month = None, as_json: _Json = False) -> None:
    """Show what a tenant uses, and its quotas."""
    number = _month(month)

    async def work(store: Store) -> None:
        _show(await _book(settings, store).find(tenant, number), as_json=as_json)

    with_store(settings, work)


@tenants.command()
@with_settings(*_SETTINGS, *AUDIT)
def quota(
    settings: Settings,
    tenant: _Tenant,
    bounds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=BOUND]...",
            show_default=False,
            help="Such as documents=100, edits=none for no bound, or edits=default. Others stay as they are.",
        ),
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Take all own quotas of the tenant away first.")] = False,
    as_json: _Json = False,
) -> None:
    """Set a tenant's own quotas. Servers follow within about ten seconds."""
    changes = dict(_bound(text) for text in bounds or ())
    if not changes and not reset:
        raise ConfigurationError(f"give NAME=BOUND, or --reset; names are {', '.join(QUOTAS)}")

    async def work(store: Store) -> None:
        book = _book(settings, store)
        known = (await store.tenants_named(book.month(), [tenant])).get(tenant)
        own: dict[str, int | None] = {} if known is None or reset else dict(known.quota or {})
        for name, bound in changes.items():
            if bound == "default":
                own.pop(name, None)
            else:
                own[name] = None if bound == "none" else int(bound)
        from collab.storage.tenants import check_quota

        await book.set_quota(tenant, check_quota(own))
        _show(await book.find(tenant), as_json=as_json)

    detail = f"{shown_name(tenant)}: {' '.join([*(['--reset'] if reset else []), *(bounds or ())])}"
    with audited(settings, Act(Kind.QUOTA_SET, detail=detail)):
        with_store(settings, work)


def _book(settings: Settings, store: Store) -> Book:
    from collab.hub.tenant_book import Book, TenantOptions

    if settings.tenants == "off":
        print("note: --tenants is off here; documents are told apart by their names", file=sys.stderr)
    return Book(store, TenantOptions(settings.tenants.startswith("claim:"), settings.quotas))


def _month(text: str | None) -> int | None:
    from collab.storage.tenants import read_month

    try:
        return None if text is None else read_month(text)
    except ValueError as error:
        raise ConfigurationError(f"--month: {error}") from None


def _bound(text: str) -> tuple[str, str]:
    name, _, bound = text.partition("=")
    if name not in QUOTAS:
        raise InvalidQuota(f"{name!r} is no quota: there are {', '.join(QUOTAS)}")
    if bound not in ("none", "default") and not (bound.isascii() and bound.isdecimal() and len(bound) < 17):
        raise InvalidQuota(f"{text!r} does not end with = and a whole number, none, or default")
    return name, bound


_HEAD = (
    f"{'STATE':8} {'DOCUMENTS':>9} {'BYTES':>14} {'SENT':>14} {'EDITS':>10} {'MINUTES':>10} {'OPEN':>6} {'PEAK':>6}"
    "  TENANT"
)


def _print(standing: Standing, *, as_json: bool) -> None:
    facts = _facts(standing)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    used = facts["usage"]
    print(
        f"{facts['state']:8} {used['documents']:>9} {used['bytes_stored']:>14} {used['bytes_sent']:>14} "
        f"{used['edits']:>10} {used['connection_minutes']:>10.1f} {used['connections']:>6} "
        f"{used['peak_connections']:>6}  {escape_controls(facts['tenant'])}"
    )


def _show(standing: Standing, *, as_json: bool) -> None:
    facts = _facts(standing)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(f"{'STATE':20} {facts['state']}")
    print(f"{'MEASURED':20} {facts['measured_at'] or 'never'}")
    print(f"{'':20} {'USED':>16} {'QUOTA':>16}")
    for name, used in facts["usage"].items():
        bound = facts["quota"].get(name, "")
        own = " (its own)" if name in (facts["own_quota"] or {}) else ""
        mark = " used up" if name in facts["over"] else ""
        print(f"{name:20} {used:>16} {'none' if bound is None else bound:>16}{own}{mark}")


def _facts(standing: Standing) -> dict[str, Any]:
    from collab.hub.tenant_book import used_of

    record, used = standing.record, used_of(standing.record)
    return {
        "tenant": record.tenant,
        "state": standing.level.value,
        "over": list(standing.over),
        "usage": {**used, "connection_minutes": round(used["connection_minutes"], 3), "peak_connections": record.peak},
        "quota": standing.quota,
        "own_quota": None if record.quota is None else dict(record.quota),
        "measured_at": None if record.measured_at is None else date(record.measured_at),
    }
