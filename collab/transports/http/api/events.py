"""What receivers of webhooks are sent, as models: for the description of the API, which shows it to their authors.

Strategy: messages are made of what the storage has (``collab.webhooks.messages``), and not of these models, because a
later release may have written more. That each message is as described here is a matter of tests: their receiver
compares whatever it gets (``tests/support/webhooks.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from pydantic import Field, create_model

from collab.auth.signing import HEADER
from collab.content.edits import Format
from collab.storage.webhooks import (
    CHANGED,
    CREATED,
    DELETED,
    ERASED,
    JOINED,
    KINDS,
    LEFT,
    RENAMED,
    RESET,
    RESTORED,
    VERSION_MADE,
    VERSION_RESTORED,
)
from collab.transports.http.api.route import Model
from collab.webhooks.messages import GONE, TOO_LARGE, UNREADABLE


class EventContent(Model):
    """What the document holds when the message is sent, or why that is left out."""

    format: Literal[tuple(format.value for format in Format)]  # type: ignore[valid-type]
    value: Any = Field(None, description="A text, or JSON, by the format.")
    etag: str | None = Field(None, description="The name of its state, with `value`.")
    omitted: Literal[TOO_LARGE, UNREADABLE, GONE] | None = Field(  # type: ignore[valid-type]
        None, description="Why there is no `value`."
    )


class ErasedData(Model):
    """The document."""

    document: str = Field(description="The name that it had then.")
    document_id: int | None = Field(description="The same for as long as it lives, whatever its name is.")


class DocumentData(ErasedData):
    """The document, and how far its log was."""

    seq: int = Field(ge=0, description="The number of its newest row then.")


class ShownData(DocumentData):
    """The document, how far its log was, and its content."""

    content: EventContent | None = Field(None, description="There where the receiver wants it.")


class ChangedData(ErasedData):
    """The document, which rows have come, and by whom."""

    first: int = Field(alias="from", ge=1, description="The number of the first row.")
    last: int = Field(alias="to", ge=1, description="The number of the last row.")
    authors: list[str] = Field(description="The users who have sent them.")
    on_behalf_of: list[str] = Field(description="For whom, where edits over HTTP say so.")
    more_authors: bool = Field(description="There are more than are named.")
    content: EventContent | None = Field(None, description="There where the receiver wants it.")


class RenamedData(DocumentData):
    """The document under its new name."""

    previous: str = Field(description="The name before.")


class VersionData(DocumentData):
    """A version of the document."""

    version: int = Field(description="Its id.")
    name: str | None = Field(description="What it is called.")
    number: int = Field(ge=0, description="The row after which the document was so; 0: it was imported.")
    author: str | None = Field(description="The user who has made it.")


class RestoredData(DocumentData):
    """The document, and the state that it was restored to."""

    number: int | None = Field(description="The row after which it was so; null: it comes from another system.")
    version: int | None = Field(description="The id of the version, if one was restored.")
    author: str | None = Field(description="The user who has restored it.")
    on_behalf_of: str | None = Field(description="For whom, if that was said.")


class UserData(ErasedData):
    """A user on a document."""

    user: str | None = Field(description="Null for all who have not said who they are.")
    name: str | None = Field(description="What others are shown of the user.")
    node: str = Field(description="Where.")


class Event(NamedTuple):
    """One kind of event: what has happened, in a line, and the model of a whole message."""

    summary: str
    message: type[Model]


def _event(kind: str, summary: str, data: type[Model]) -> Event:
    name = "".join(part.capitalize() for part in kind.split("."))
    at = Field(description="When it happened, RFC 3339 in UTC.", json_schema_extra={"format": "date-time"})
    fields: dict[str, Any] = {"type": (Literal[kind], ...), "timestamp": (str, at), "data": (data, ...)}
    return Event(summary, create_model(name, __base__=Model, __doc__=summary, **fields))


EVENTS: Final[Mapping[str, Event]] = MappingProxyType(
    {
        kind: _event(kind, summary, data)
        for kind, summary, data in (
            (CREATED, "A document was created.", ShownData),
            (CHANGED, "Rows of a document have come.", ChangedData),
            (DELETED, "A document is in the trash.", DocumentData),
            (RESTORED, "A document lives again.", ShownData),
            (RENAMED, "A document has another name.", RenamedData),
            (RESET, "All content of a document was taken out.", ShownData),
            (ERASED, "A document is gone for good.", ErasedData),
            (JOINED, "A user has opened a document on a node.", UserData),
            (LEFT, "A user has it open there no more.", UserData),
            (VERSION_MADE, "A state of a document has a name.", VersionData),
            (VERSION_RESTORED, "A document was made what it was before.", RestoredData),
        )
    }
)
"""All of them, by their names."""

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "webhook-id": "The name of the message, the same each time it is sent.",
        "webhook-timestamp": "When it was sent, in seconds since 1970.",
        "webhook-signature": "Signatures as Standard Webhooks says: `v1` for each secret, `v1a` for each Ed25519 key.",
        HEADER: "A JWT by the key of the server, where it has one (docs/security.md).",
    }
)
"""What headers a message has."""

assert EVENTS.keys() == set(KINDS)
