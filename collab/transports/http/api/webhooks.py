"""``/webhooks``: how receivers stand, what they were told, and telling them again.

Strategy: all of it is in the store, so any node answers for all of them. It shows which documents there are and who
edits them, so it needs ``admin`` for all documents.
"""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import Field

from collab.audit import Act, Kind
from collab.protocol.session import Access
from collab.storage.store import Store
from collab.storage.webhooks import KINDS, Delivery, ReceiverState
from collab.telemetry import shown_name
from collab.transports.http.answers import ALL_DOCUMENTS, Permission
from collab.transports.http.api.cursors import MAX_CURSOR, decode_cursor, encode_cursor
from collab.transports.http.api.documents import DEFAULT_LIMIT, MAX_LIMIT, show_time
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoBody, NoQuery, Query, Route
from collab.transports.http.api.route import json_response as answer
from collab.transports.problems import BadRequest

TAG = "Webhooks"

_MAX_NUMBER = 2**63 - 1
_MAX_NAME = 64


class WebhookReceiver(Model):
    """A receiver."""

    name: str
    events: list[str] = Field(description="Kinds of events that it wants.")
    prefix: str = Field(description="It is told of documents whose names begin with this.")
    state: Literal["working", "failing", "disabled"]
    since: str | None = Field(description="Since when it fails or is disabled.")
    pending: int = Field(ge=0, description="Deliveries that wait for it.")
    oldest: str | None = Field(description="Since when the oldest of them waits.")
    delivered: int = Field(ge=0, description="Deliveries that it has taken, of those that are kept.")
    failed: int = Field(ge=0, description="Deliveries that were given up, of those that are kept.")
    dropped: int = Field(ge=0, description="Events that were not written, because too many waited for it.")


class WebhookReceivers(Model):
    """All receivers."""

    receivers: list[WebhookReceiver]


class WebhookDelivery(Model):
    """What one receiver is to be told, or was."""

    id: int = Field(ge=1)
    receiver: str
    event: str = Field(description="The `webhook-id` of its messages, the same for all receivers and attempts.")
    type: str = Field(description="The kind of the event.")
    document: str = Field(description="The name of the document when it happened.")
    document_id: int | None
    data: dict[str, Any] = Field(description="What the message says beside the document, without content.")
    at: str = Field(description="When it happened, RFC 3339 in UTC.", json_schema_extra={"format": "date-time"})
    state: Literal["pending", "delivered", "failed"]
    failures: int = Field(ge=0, description="Attempts that have failed.")
    next_at: str | None = Field(description="Before that it is not tried.")
    done_at: str | None = Field(description="When it was delivered or given up.")
    status: int | None = Field(description="The status of the last answer.")
    error: str | None = Field(description="Why the last attempt has failed.")


class WebhookDeliveries(Model):
    """A part of the deliveries."""

    deliveries: list[WebhookDelivery]
    next: str | None = Field(description="The cursor of the page behind this one; null at the end.")


class DeliveriesQuery(Query):
    """Which deliveries are listed."""

    receiver: str | None = Field(None, max_length=_MAX_NAME, description="Only those of this receiver.")
    state: Literal["pending", "delivered", "failed"] | None = Field(None, description="Only those in this state.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description="The `next` of the page before.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="How many are listed.")


class Again(Model):
    """Which deliveries are made again: one, or all of a receiver that were given up."""

    id: int | None = Field(None, ge=1, le=_MAX_NUMBER, description="This delivery, whatever became of it.")
    receiver: str | None = Field(None, max_length=_MAX_NAME, description="All of this receiver that were given up.")
    since: float | None = Field(
        None, ge=0, description="With `receiver`: only those given up since then, in seconds since 1970."
    )


class Resent(Model):
    """How many deliveries wait again."""

    resent: int = Field(ge=0)


class Enabling(Model):
    """Which receiver is enabled."""

    receiver: str = Field(max_length=_MAX_NAME)


class WebhookRoutes:
    """The handlers.

    Args:
        store: where deliveries are kept.
        permission: knows who asks.
    """

    def __init__(self, store: Store, permission: Permission) -> None:
        self._store = store
        self._permission = permission

    def routes(self) -> list[AnyRoute]:
        """Give the routes."""
        access = "admin of all documents"
        return [
            Route(
                "GET",
                "/webhooks",
                self.receivers,
                "list_webhook_receivers",
                TAG,
                "List the receivers of webhooks, and how they stand.",
                [Answer(200, "All receivers.", WebhookReceivers)],
                access=access,
                description=f"They are written down in the settings of the server. Kinds of events: {_kinds()}.",
            ),
            Route(
                "GET",
                "/webhooks/deliveries",
                self.deliveries,
                "list_webhook_deliveries",
                TAG,
                "List deliveries, the newest first.",
                [Answer(200, "A page of deliveries.", WebhookDeliveries)],
                query=DeliveriesQuery,
                access=access,
                description="Those that are done are kept for three days, and ten thousand for each receiver.",
            ),
            Route(
                "POST",
                "/webhooks/resend",
                self.resend,
                "resend_webhooks",
                TAG,
                "Make deliveries again.",
                [Answer(202, "They wait to be made.", Resent)],
                body=Again,
                access=access,
                problems=("webhook_not_found",),
                description="A message that is sent again has the `webhook-id` that it had.",
            ),
            Route(
                "POST",
                "/webhooks/enable",
                self.enable,
                "enable_webhook_receiver",
                TAG,
                "Enable a receiver, and try at once what waits for it.",
                [Answer(200, "How it stands.", WebhookReceiver)],
                body=Enabling,
                access=access,
                problems=("webhook_not_found",),
            ),
        ]

    async def receivers(self, call: Call[NoQuery, NoBody]) -> web.Response:
        """Answer with all receivers."""
        await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        return answer(WebhookReceivers(receivers=[_receiver(state) for state in await self._store.receivers()]))

    async def deliveries(self, call: Call[DeliveriesQuery, NoBody]) -> web.Response:
        """Answer with a page of deliveries."""
        grant = await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        query = call.query
        before = None if query.cursor is None else _number(query.cursor)
        with self._permission.acting(call.request, Act(Kind.DELIVERIES_LISTED), grant):
            found = await self._store.deliveries(
                receiver=query.receiver, state=query.state, before=before, limit=query.limit + 1
            )
        page = found[: query.limit]
        return answer(
            WebhookDeliveries(
                deliveries=[_delivery(each) for each in page],
                next=encode_cursor("w", str(page[-1].number)) if len(found) > query.limit else None,
            )
        )

    async def resend(self, call: Call[NoQuery, Again]) -> web.Response:
        """Let deliveries be made again."""
        grant = await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        body = await call.body(known=True)
        if (body.id is None) == (body.receiver is None) or (body.id is not None and body.since is not None):
            raise BadRequest('either "id", or "receiver" with or without "since"')
        with self._permission.acting(call.request, Act(Kind.WEBHOOKS_RESENT), grant) as act:
            if body.id is not None:
                act.detail = f"delivery {body.id}"
                await self._store.resend(body.id)
                return answer(Resent(resent=1), 202)
            assert body.receiver is not None
            count = await self._store.resend_failed(body.receiver, body.since or 0.0)
            act.detail = f"{count} deliveries of {shown_name(body.receiver)}"
            return answer(Resent(resent=count), 202)

    async def enable(self, call: Call[NoQuery, Enabling]) -> web.Response:
        """Enable a receiver."""
        grant = await self._permission.require(call.request, ALL_DOCUMENTS, Access.ADMIN)
        name = (await call.body(known=True)).receiver
        with self._permission.acting(call.request, Act(Kind.WEBHOOK_ENABLED, detail=shown_name(name)), grant):
            await self._store.enable_receiver(name)
        states = await self._store.receivers()
        return answer(next(_receiver(state) for state in states if state.subscription.name == name))


def _kinds() -> str:
    return ", ".join(f"`{kind}`" for kind in KINDS)


def _receiver(state: ReceiverState) -> WebhookReceiver:
    since = state.failing_since if state.disabled_at is None else state.disabled_at
    return WebhookReceiver(
        name=state.subscription.name,
        events=list(state.subscription.kinds),
        prefix=state.subscription.prefix,
        state="disabled" if state.disabled_at is not None else "working" if since is None else "failing",
        since=_time(since),
        pending=state.pending,
        oldest=_time(state.oldest_at),
        delivered=state.delivered,
        failed=state.failed,
        dropped=state.dropped,
    )


def _delivery(each: Delivery) -> WebhookDelivery:
    return WebhookDelivery(
        id=each.number,
        receiver=each.receiver,
        event=each.event,
        type=each.kind,
        document=each.name,
        document_id=each.document_id,
        data=each.data,
        at=show_time(each.at),
        state="pending" if each.done_at is None else "delivered" if each.delivered else "failed",
        failures=each.attempts,
        next_at=show_time(each.due_at) if each.done_at is None else None,
        done_at=_time(each.done_at),
        status=each.status,
        error=each.error,
    )


def _time(at: float | None) -> str | None:
    return None if at is None else show_time(at)


def _number(cursor: str) -> int:
    text = decode_cursor("w", cursor)
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadRequest('"cursor" is the "next" of the page before')
    return int(text)
