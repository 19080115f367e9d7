"""What receivers are sent: one event as JSON.

Strategy: a pure function of a delivery and of what was read of the document, so that what is documented is tested
without a network. All of it is ASCII: what a name or a user holds beside that is escaped, so any JSON reader takes it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from collab.content.edits import Format
from collab.storage.webhooks import CHANGED, CREATED, RESET, RESTORED, Delivery

WITH_CONTENT: Final = (CREATED, CHANGED, RESET, RESTORED)
"""Kinds of events that content is sent with, where a receiver wants it."""

MAX_CONTENT: Final = 256 * 1024
"""Bytes of content that are sent; a receiver that needs more reads it over the HTTP API."""

TOO_LARGE: Final = "too_large"
UNREADABLE: Final = "unreadable"
GONE: Final = "gone"
"""Why content is left out."""

_TEXTS: Final = (Format.TEXT, Format.HTML, Format.MARKDOWN)


class Content(NamedTuple):
    """What was read of a document (UTF-8, or JSON) with the name of its state, or why it is left out."""

    format: Format
    value: bytes = b""
    etag: str = ""
    omitted: str | None = None


def encode_message(delivery: Delivery, content: Content | None = None) -> bytes:
    """Make the body of a message."""
    data: dict[str, Any] = {"document": delivery.name, "document_id": delivery.document_id, **delivery.data}
    if content is not None:
        data["content"] = _shown(content)
    at = datetime.fromtimestamp(delivery.at, UTC).isoformat(timespec="milliseconds")
    message = {"type": delivery.kind, "timestamp": at.replace("+00:00", "Z"), "data": data}
    return json.dumps(message, separators=(",", ":")).encode()


def _shown(content: Content) -> dict[str, Any]:
    if content.omitted is None and len(content.value) > MAX_CONTENT:
        content = content._replace(omitted=TOO_LARGE)
    if content.omitted is not None:
        return {"format": content.format.value, "omitted": content.omitted}
    text = content.value.decode(errors="replace")
    value: Any = text if content.format in _TEXTS else json.loads(text)
    return {"format": content.format.value, "value": value, "etag": content.etag}
