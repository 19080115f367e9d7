"""What Python hooks may ask of the server (``collab.hooks.Server``), made of what the HTTP API asks.

Strategy: a hook edits as a program over HTTP does: the same rules, turn and rows. It is the application itself, so its
access is not asked about and it has no address; the hooks are not asked whether it may create a document.
"""

from __future__ import annotations

from typing import Final

from collab.auth.access import Grant
from collab.authorship import make_note
from collab.content.edits import Edit, Format
from collab.errors import LimitExceeded
from collab.hooks import Content
from collab.hub.editing import Editing
from collab.hub.hub import Hub
from collab.hub.orders import Sender
from collab.net import Peer
from collab.protocol.messages import Stateless
from collab.protocol.names import check_document_name
from collab.protocol.session import Access

_HERE: Final = Peer(address="", key="", counted=False, local=True, secure=True, host="")


class HookServer:
    """See ``collab.hooks.Server``.

    Args:
        hub: the rooms.
        editing: reads and edits documents.
        message_bytes: the longest stateless message, in bytes of UTF-8.
    """

    def __init__(self, hub: Hub, editing: Editing, message_bytes: int) -> None:
        self._hub = hub
        self._editing = editing
        self._message_bytes = message_bytes

    async def read(self, name: str, format: Format = Format.JSON, root: str | None = None) -> Content:
        """Read what a document holds."""
        check_document_name(name)
        shown = await self._editing.read(name, format, root)
        return Content(shown.value, shown.tag, shown.document, shown.last)

    async def state(self, name: str) -> bytes:
        """Give the whole document as a Yjs update (v1)."""
        check_document_name(name)
        return (await self._editing.whole(name)).update.join()

    async def edit(self, name: str, edit: Edit, *, author: str | None = None, label: str | None = None) -> bool:
        """Change a document, and return after the commit."""
        check_document_name(name)
        return (await self._editing.edit(name, edit, _sender(author, label))).changed

    async def update(self, name: str, update: bytes, *, author: str | None = None, label: str | None = None) -> bool:
        """Apply a Yjs update (v1) to a document, and return after the commit."""
        check_document_name(name)
        return (await self._editing.apply(name, update, _sender(author, label))).changed

    def send(self, name: str, text: str) -> None:
        """Send a stateless message to everybody on a document, on all nodes."""
        check_document_name(name)
        payload = text.encode()
        if len(payload) > self._message_bytes:
            said = f"a stateless message has at most {self._message_bytes} bytes of UTF-8"
            raise LimitExceeded(f"stateless message of {len(payload)} bytes", public=said)
        self._hub.send_stateless(name, Stateless(payload))


def _sender(author: str | None, label: str | None) -> Sender:
    return Sender(_HERE, Grant(Access.WRITE, author), make_note(None, label), asks=False)
