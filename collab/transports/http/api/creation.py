"""What every call that creates a document has in common: it counts, it may have content, and it may be repeated.

Strategy: a call with an ``Idempotency-Key`` is done once (``collab.hub.idempotency``); who repeats it gets the first
answer again. Access is asked about each time, and a repeat counts in no rate. Content comes as a whole Yjs update in
base64; it is read before it is kept, as an update over a socket is.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from random import Random
from types import MappingProxyType
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import BaseModel, Field, JsonValue

from collab.auth.access import Grant
from collab.content import edits
from collab.content.edits import Batch, Format, Replace, RootType
from collab.errors import DocumentBusy, DocumentTooLarge
from collab.hub import idempotency
from collab.hub.idempotency import Once
from collab.hub.slices import in_slices
from collab.hub.transfer import whole_update
from collab.protocol.sync import EMPTY_UPDATE
from collab.sandbox.port import Sandbox
from collab.storage.metadata import MAX_BYTES, MAX_INTEGER, MAX_KEY, MAX_KEYS
from collab.transports.guard.guard import Guard
from collab.transports.http.answers import MAX_BODY_BYTES
from collab.transports.http.api.route import JSON, Model
from collab.transports.problems import HEADERS, BadRequest

KEY: Final = "Idempotency-Key"

KEY_HEADER: Final = MappingProxyType(
    {
        KEY: f"1 to {idempotency.MAX_KEY} visible ASCII characters. A call that is repeated with the same key within a "
        "day, by the same user and with the same content, is done once, and answered as the first time."
    }
)
"""What a route says of the header that it reads."""

CREATION_PROBLEMS: Final = (
    "document_exists",
    "invalid_name",
    "too_many_requests",
    "too_large",
    "key_reused",
    "refused",
)

MAX_UPDATE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of an update in a JSON body, which is in memory four times. What is larger is imported."""

MAX_PARTS: Final = 100
"""Roots of a document that is made of content."""

MAX_PARTS_BYTES: Final = 256 * 1024
"""Bytes of a body with such content."""

MAX_UNNAMED_BYTES: Final = 1024 * 1024
"""The same where the body is read before it is known whether its sender may write the document: the name is in it."""


def _text(nbytes: int) -> int:
    """Give how many characters of base64 so many bytes have."""
    return 4 * (nbytes // 3 + 1)


MOST: Final = _text(MAX_UPDATE_BYTES) + MAX_BODY_BYTES
MOST_UNNAMED: Final = _text(MAX_UNNAMED_BYTES) + MAX_BODY_BYTES
"""Bytes of a body that may hold an update."""

# What Retry-After says while the server is short of memory.
_MEMORY_SECONDS = 60

Update = Annotated[
    str,
    Field(
        max_length=_text(MAX_UPDATE_BYTES),
        description="The content: a whole Yjs update (v1) as base64, up to 16 MiB. Larger ones are imported.",
    ),
]
SmallUpdate = Annotated[
    str,
    Field(
        max_length=_text(MAX_UNNAMED_BYTES),
        description="The content: a whole Yjs update (v1) as base64, up to 1 MiB. Larger ones are for PUT.",
    ),
]

_Key = Annotated[str, Field(min_length=1, max_length=MAX_KEY)]
_Value = (
    Annotated[str, Field(max_length=MAX_BYTES)]
    | Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
    | float
    | bool
    | None
)

Metadata = Annotated[
    dict[_Key, _Value],
    Field(
        max_length=2 * MAX_KEYS,
        description=f"The application's own keys: up to {MAX_KEYS}, with texts, numbers, true or false, and no more "
        f"than {MAX_BYTES} bytes as JSON. Changed by merge (RFC 7396): null takes a key away, and those that are not "
        "named stay.",
    ),
]


class Part(Model):
    """Content of one root of a new document."""

    root: str = Field(max_length=edits.MAX_NAME, description="The name of the root.")
    format: Literal["json", "text", "delta", "prosemirror", "html", "markdown", "excalidraw"] = Field(
        description="What `value` is written in."
    )
    value: JsonValue = Field(description="A string for text, HTML and Markdown; JSON for the others.")
    type: Literal["text", "map", "array", "xml"] | None = Field(
        None, description="What the root is made as; without it the content decides."
    )
    shared: bool = Field(False, description="Make objects and lists of JSON shared types, which can be edited in part.")


Content = Annotated[
    list[Part],
    Field(
        max_length=MAX_PARTS,
        description="The content by roots, instead of `update`. A body with it has at most 256 KiB; more is for "
        "`PUT /content/{name}`.",
    ),
]


def check_memory(guard: Guard) -> None:
    """Refuse a large body while the server is short of memory; raises ``BadRequest``."""
    if guard.limits.memory.past_mark:
        raise BadRequest(
            "the server is short of memory",
            "unavailable",
            retry_after=_MEMORY_SECONDS,
            headers={"Connection": "close"},
        )


def decode_update(text: str) -> bytes:
    """Decode an update in base64; raises ``BadRequest``."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest('"update" is base64') from None


class Creation:
    """Creates by calls that may be repeated.

    Args:
        guard: knows who asks, and how much each may have.
        once: keeps what was answered.
        sandbox: makes documents of content.
        max_document_bytes: how large a document may be.
        random: draws client IDs.
    """

    def __init__(self, guard: Guard, once: Once, sandbox: Sandbox, max_document_bytes: int, random: Random) -> None:
        self._guard = guard
        self._once = once
        self._sandbox = sandbox
        self._random = random
        self._most = min(MAX_UPDATE_BYTES, max_document_bytes)

    def once(
        self, request: web.Request, grant: Grant, route: str, body: BaseModel
    ) -> AbstractAsyncContextManager[idempotency.Call]:
        """Do a call within the block, if it was not done before; raises ``BadRequest`` for a key that is none."""
        keys = request.headers.getall(KEY, [])
        if not keys:
            return self._once.call(None, route, None, b"")
        (key, *others) = keys
        if others or not 0 < len(key) <= idempotency.MAX_KEY or not (key.isascii() and key.isprintable()):
            raise BadRequest(f"{KEY} has 1 to {idempotency.MAX_KEY} visible ASCII characters, once")
        return self._once.call(grant.user, route, key, body.model_dump_json(exclude_unset=True).encode())

    def check_memory(self) -> None:
        """Refuse a large body while the server is short of memory; raises ``BadRequest``."""
        check_memory(self._guard)

    @contextlib.contextmanager
    def counted(self, request: web.Request, grant: Grant, name: str) -> Iterator[None]:
        """Count a document that is created within the block; what fails is not counted.

        Raises:
            BadRequest: there are too many new ones, or there is no room for more.
        """
        peer, limits = self._guard.peer(request), self._guard.limits
        try:
            limits.check_load(open_already=False)
            with limits.creating(peer, grant.user, asyncio.get_running_loop().time()):
                yield
        except DocumentBusy as error:
            self._guard.audit.note(error, self._guard.who(request, grant.user), name)
            if limits.memory.past_mark:
                raise BadRequest(error.public, "unavailable", retry_after=_MEMORY_SECONDS) from None
            raise BadRequest(error.public, "too_many_requests", retry_after=limits.creation_pause) from None

    def read_content(self, text: str | None, content: list[Part] | None) -> Batch | bytes | None:
        """Read what a body says of the content of a document, an update as base64 or by roots; nothing is computed.

        Raises:
            BadRequest: there is both, the update is not base64, or a root is named twice.
            DocumentTooLarge: the update is larger than a document may be.
        """
        if content:
            if text is not None:
                raise BadRequest('"content" comes without an "update"')
            return _batch(content)
        if text is None:
            return None
        data = decode_update(text)
        if len(data) > self._most:
            raise DocumentTooLarge(f"{len(data)} bytes of content for a new document")
        return data

    async def make(self, content: Batch | bytes | None) -> bytes | None:
        """Make the update that a document begins with, of what ``read_content`` gives; None for an empty one.

        Raises:
            ContentError: the content cannot be written as it is wanted.
            SandboxError: the content could not be written now.
            UpdateError: it is no update, or builds on what is not in it.
            DocumentTooLarge: it is larger than a document may be.
        """
        if content is None:
            return None
        if isinstance(content, bytes):
            made = await in_slices(whole_update(content))
        else:
            # As yjs draws them; the document is new, so none can be in it.
            made = await self._sandbox.make(content, self._random.getrandbits(32) or 1)
            if len(made) > self._most:
                raise DocumentTooLarge(f"{len(made)} bytes of content for a new document")
        return None if made == EMPTY_UPDATE else made


def _batch(content: list[Part]) -> Batch:
    """Write the parts of a body as one edit; raises ``BadRequest``."""
    roots = [part.root for part in content]
    if len(set(roots)) < len(roots):
        raise BadRequest('a root is named twice in "content"')
    return Batch(
        tuple(
            Replace(
                part.root,
                Format(part.format),
                part.value,
                None if part.type is None else RootType(part.type),
                part.shared,
            )
            for part in content
        )
    )


def check_content(body: bytearray) -> None:
    """Refuse a body with much content that is no update: it is parsed where everybody waits for it."""
    if len(body) > MAX_PARTS_BYTES and b'"content"' in body:
        raise BadRequest(f'a body with "content" has at most {MAX_PARTS_BYTES} bytes', "too_large")


def answer_with(answer: idempotency.Answer) -> web.Response:
    """Make the response of a call that was done now or before."""
    return web.Response(body=answer.body, status=answer.status, content_type=JSON, headers=HEADERS)
