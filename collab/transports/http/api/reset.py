"""``/reset/{name}``: take all content out of a document, and put other content in its place if there is any.

Strategy: everything is decided and done in ``collab.hub.resetting``; here it is decided who may, and the new content is
read. Whoever may only write can delete everything too, but with that old copies merge; a reset is for ``admin``.
"""

from __future__ import annotations

import base64
import binascii

from aiohttp import web
from pydantic import Field

from collab.hub.resetting import Resetting
from collab.protocol.session import Access
from collab.transports.http.answers import Permission
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoQuery, Route, json_response
from collab.transports.problems import BadRequest

TAG = "Documents"

# Bytes of a body beside the content in it.
_BODY_BYTES = 16 * 1024


class NewContent(Model):
    """What a document is reset to."""

    content: str | None = Field(
        None, description="The new content: a whole Yjs update (v1) as base64, made by a fresh document. None: empty."
    )
    strict: bool = Field(
        False,
        description="Copies from before the reset bring nothing at all, not even edits that the server never saw.",
    )


class Done(Model):
    """A reset that is stored."""

    reset: int = Field(description="Its number. It rises with each reset of the document.")


class ResetRoutes:
    """The handler.

    Args:
        resetting: does it.
        permission: knows who asks.
        max_document_bytes: bytes of the new content.
    """

    def __init__(self, resetting: Resetting, permission: Permission, max_document_bytes: int) -> None:
        self._resetting = resetting
        self._permission = permission
        self._most = max_document_bytes

    def routes(self) -> list[AnyRoute]:
        """Give the route."""
        return [
            Route(
                "POST",
                "/reset/{name}",
                self.reset,
                "reset_document",
                TAG,
                "Take all content out of a document, so that no old copy brings it back.",
                [Answer(200, "The document was reset, and this is stored.", Done)],
                body=NewContent,
                most=_BODY_BYTES + self._most * 4 // 3,
                description="People who have it open go on: they see the new content, and all that they type is kept. "
                "A tab, a client or a local copy that comes back later brings nothing that the server had before the "
                "reset. What it had not sent yet is merged, unless `strict` is true.",
                access="admin",
                problems=("document_not_found", "document_deleted", "document_damaged", "invalid_update"),
            )
        ]

    async def reset(self, call: Call[NoQuery, NewContent]) -> web.Response:
        """Reset a document; answer when that is in the store."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.ADMIN)
        body = await call.body(known=True)
        content = None if body.content is None else _decode(body.content)
        done = await self._resetting.reset(name, content=content, strict=body.strict, author=grant.user)
        return json_response(Done(reset=done.number))


def _decode(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("the content is not base64") from None
