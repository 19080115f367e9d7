"""``/reset/{name}``: take all content out of a document, and put other content in its place if there is any.

Strategy: everything is decided and done in ``collab.hub.resetting``; here it is decided who may, and the new content is
read. Whoever may only write can delete everything too, but with that old copies merge; a reset is for ``admin``.
"""

from __future__ import annotations

from aiohttp import web
from pydantic import Field

from collab.audit import Act, Kind
from collab.hub.resetting import Resetting
from collab.protocol.session import Access
from collab.transports.http.answers import Permission
from collab.transports.http.api.creation import MOST, Content, Creation, Update, check_content
from collab.transports.http.api.route import Answer, AnyRoute, Call, Model, NoQuery, Route, json_response

TAG = "Documents"


class NewContent(Model):
    """What a document is reset to."""

    update: Update | None = None
    content: Content | None = None
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
        creation: reads the new content.
    """

    def __init__(self, resetting: Resetting, permission: Permission, creation: Creation) -> None:
        self._resetting = resetting
        self._permission = permission
        self._creation = creation

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
                most=MOST,
                check=check_content,
                description="People who have it open go on: they see the new content, and all that they type is kept. "
                "A tab, a client or a local copy that comes back later brings nothing that the server had before the "
                "reset. What it had not sent yet is merged, unless `strict` is true.",
                access="admin",
                problems=(
                    "document_not_found",
                    "document_deleted",
                    "document_damaged",
                    "invalid_update",
                    "not_possible",
                ),
            )
        ]

    async def reset(self, call: Call[NoQuery, NewContent]) -> web.Response:
        """Reset a document; answer when that is in the store."""
        name = call.name
        grant = await self._permission.require(call.request, name, Access.ADMIN)
        self._creation.check_memory()
        body = await call.body(known=True)
        content = await self._creation.make(self._creation.read_content(body.update, body.content))
        with self._permission.acting(call.request, Act(Kind.DOCUMENT_RESET, name), grant) as act:
            done = await self._resetting.reset(name, content=content, strict=body.strict, author=grant.user)
            act.detail = f"number {done.number}"
        return json_response(Done(reset=done.number))
