"""The bodies of messages."""

from __future__ import annotations

import json
from typing import Any

from collab.content.edits import Format
from collab.storage.webhooks import Delivery
from collab.webhooks.messages import MAX_CONTENT, Content, encode_message

DELIVERY = Delivery(
    number=7,
    receiver="search",
    event="evt_1",
    kind="document.changed",
    lane=12,
    name="notes/ä",
    data={"from": 1, "to": 2},
    at=1_700_000_000.25,
    attempts=0,
    due_at=0.0,
    done_at=None,
    delivered=False,
    status=None,
    error=None,
)


def read(delivery: Delivery, content: Content | None = None) -> Any:
    return json.loads(encode_message(delivery, content))


def test_a_message_says_what_has_happened_to_which_document_and_when() -> None:
    assert read(DELIVERY) == {
        "type": "document.changed",
        "timestamp": "2023-11-14T22:13:20.250Z",
        "data": {"document": "notes/ä", "document_id": 12, "from": 1, "to": 2},
    }
    assert read(DELIVERY._replace(lane=-5))["data"]["document_id"] is None


def test_names_and_users_that_have_no_utf8_can_be_sent() -> None:
    body = encode_message(DELIVERY._replace(data={"user": "a\ud83d"}))
    assert body.isascii() and json.loads(body)["data"]["user"] == "a\ud83d"


def test_content_is_a_text_or_a_value() -> None:
    text = Content(Format.MARKDOWN, "# ä".encode(), "abc")
    assert read(DELIVERY, text)["data"]["content"] == {"format": "markdown", "value": "# ä", "etag": "abc"}
    value = Content(Format.JSON, b'{"text": ["a"]}', "abc")
    assert read(DELIVERY, value)["data"]["content"]["value"] == {"text": ["a"]}


def test_content_is_left_out_with_a_reason() -> None:
    large = Content(Format.TEXT, b"x" * (MAX_CONTENT + 1), "abc")
    assert read(DELIVERY, large)["data"]["content"] == {"format": "text", "omitted": "too_large"}
    gone = Content(Format.TEXT, omitted="gone")
    assert read(DELIVERY, gone)["data"]["content"] == {"format": "text", "omitted": "gone"}
